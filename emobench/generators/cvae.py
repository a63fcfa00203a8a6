"""Conditional convolutional VAE (Kingma and Welling 2014; Sohn et al. 2015): emotion in, face out; and edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import SizeError
from emobench.generators.generator import EmotionGenerator
from emobench.nn.blocks import encoder, groups_for
from emobench.nn.noise import Noise
from emobench.nn.perceptual import Perceptual, distance, features_for, needed_file
from emobench.nn.weights import WeightFile
from emobench.recipe import Augment, Recipe

_SMALLEST = 4  # px, the side at which the convolutions end


class CVAE(EmotionGenerator):
    """A convolutional encoder to a Gaussian latent and a decoder of transposed convolutions, both told the emotion.

    Loss: MSE (mean over pixels) + β · KL (summed over latent dimensions), both means over the batch. The document's
    other recipe: size 128, with a perceptual loss.

    Args:
        latent: dimensions of z.
        width: channels of the first convolution; doubled at each halving, up to eight times.
        beta: weight of the KL term.
        perceptual: features in which faces are compared too: VGG16's at relu2_2, those of a guide (a classifier of
            emobench), or none.
        perceptual_weight: of that term.
        weights: of VGG16, by torchvision's name or by path.
        lr: of Adam.
        guide: the networks that fill the need of this name.
    """

    name = "cvae"
    source = "SYSTEMS.md G1: multi-expression, cvae-stylegan; Sohn et al. 2015, eq. 4; β: Higgins et al. 2017, eq. 4"
    may_need: ClassVar[Mapping[str, str]] = {"guide": "classifier"}
    recipe = Recipe(
        size=64, batch=64, epochs=50, monitor=None, augment=Augment(rotation=0, brightness=0, contrast=0, blur_p=0)
    )

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        latent: Annotated[int, Ge(1)] = 128,
        width: Annotated[int, Ge(1)] = 64,
        beta: Annotated[float, Ge(0)] = 1e-3,
        perceptual: Perceptual = "none",
        perceptual_weight: Annotated[float, Ge(0)] = 1.0,
        weights: str | None = "IMAGENET1K_V1",
        lr: Annotated[float, Gt(0)] = 1e-3,
        guide: Sequence[Any] = (),
    ) -> None:
        architecture = {
            "latent": latent, "width": width, "beta": beta, "perceptual": perceptual,
            "perceptual_weight": perceptual_weight, "weights": weights, "lr": lr,
        }  # fmt: skip
        super().__init__(emotions=emotions, size=size, architecture=architecture)
        self.latent, self.beta, self.lr, self.perceptual_weight = latent, beta, lr, perceptual_weight
        self._see = features_for(perceptual, weights, guide)
        k, halvings = len(self.emotions), halvings_of(size)
        self.side = size >> halvings
        self.encoder, deep = encoder(size, width, halvings)  # (N, 3, S, S) -> (N, C · side²)
        self.moments = nn.Linear(deep + k, 2 * latent)
        self.deep = nn.Sequential(nn.Linear(latent + k, deep), nn.ReLU())
        up: list[nn.Module] = []
        before = deep // self.side**2
        for level in range(halvings - 1, -1, -1):
            channels = width * min(2 ** max(0, level - 1), 8)
            up += [
                nn.ConvTranspose2d(before, channels, 4, 2, 1),
                nn.GroupNorm(groups_for(channels), channels),
                nn.ReLU(),
            ]
            before = channels
        self.decoder = nn.Sequential(
            *up, nn.Conv2d(before, 3, 3, 1, 1), nn.Tanh()
        )  # (N, C, side, side) -> (N, 3, S, S)

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """VGG16's, where faces are compared in its features."""
        return needed_file(arguments)

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where the halvings do not come out even."""
        if size < 8 or size % 2 ** halvings_of(size):
            raise SizeError(
                f"{cls.name} cannot make faces of {size} px; it makes 4 to 7 px times a power of two, from 8 on"
            )

    def encode(self, pixels: Tensor, emotions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, latent) of z for faces (N, 3, S, S) of known emotions (N, K)."""
        mean, log_variance = self.moments(torch.cat([self.encoder(pixels), emotions], 1)).chunk(2, 1)
        return mean, log_variance.clamp(-20, 20)

    def decode(self, z: Tensor, emotions: Tensor) -> Tensor:
        """z (N, latent) and emotions (N, K) to pixels (N, 3, S, S)."""
        deep = self.deep(torch.cat([z, emotions], 1)).view(len(z), -1, self.side, self.side)
        pixels: Tensor = self.decoder(deep)
        return pixels

    def loss_parts(self, pixels: Tensor, emotions: Tensor, *, training: bool) -> Mapping[str, Tensor]:
        """Reconstruction and β · KL(q(z | x, e) ‖ N(0, I))."""
        mean, log_variance = self.encode(pixels, emotions)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if training else mean
        made = self.decode(z, emotions)
        parts = {"reconstruction": F.mse_loss(made, pixels), "kl": self.beta * kl_of(mean, log_variance)}
        if self._see is not None:
            parts["perceptual"] = self.perceptual_weight * distance(self._see(made), self._see(pixels))
        return parts

    @torch.no_grad()
    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K)."""
        return self.images(self.decode(Noise(seeds).normal(self.latent), emotions))

    @torch.no_grad()
    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The same faces (N, 3, S, S) with emotions (N, K): encoded, and decoded with another label."""
        z = self.latents(images)
        return self.images(self.decode(z, emotions))

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """The mean latents (N, latent) of faces, each encoded with the emotion that reconstructs it best.

        The encoder must be told the emotion that a face shows, and nobody else is asked.
        """
        pixels = self.pixels(images)
        labels = torch.eye(len(self.emotions), device=pixels.device)
        found, least = None, None
        for label in labels:
            row = label.expand(len(pixels), -1)
            mean, _ = self.encode(pixels, row)
            error = (self.decode(mean, row) - pixels).square().flatten(1).mean(1)  # (N,)
            if found is None or least is None:
                found, least = mean, error
            else:
                better = error < least
                found, least = torch.where(better[:, None], mean, found), torch.where(better, error, least)
        assert found is not None
        return found

    @torch.no_grad()
    def interpolate(self, first: Tensor, second: Tensor, emotions: Tensor, shares: Tensor) -> Tensor:
        """Faces (N, 3, S, S) on the straight line between the latents of pairs, all with emotions (N, K).

        Args:
            first, second: faces (N, 3, S, S).
            shares: (N,) of the second, 0 to 1.
        """
        mixed = torch.lerp(self.latents(first), self.latents(second), shares[:, None])
        return self.images(self.decode(mixed, emotions))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all parameters."""
        return torch.optim.Adam(self.parameters(), self.lr)


def kl_of(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, variance) from N(0, I): a sum over dimensions, a mean over the batch (Kingma and Welling, B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


def halvings_of(size: int) -> int:
    """How often a side is halved until it is below 8 px."""
    halvings = 0
    while size >> halvings >= 2 * _SMALLEST:
        halvings += 1
    return halvings
