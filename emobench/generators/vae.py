"""What the conditional VAEs share (Kingma and Welling 2014; Sohn et al. 2015): all but how a latent becomes a face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.generators.generator import EmotionGenerator
from emobench.nn.noise import Noise
from emobench.nn.perceptual import distance, features_for, needed_file
from emobench.nn.weights import WeightFile

_SMALLEST = 4  # px, the side at which the convolutions end


class ConditionalVAE(EmotionGenerator):
    """A convolutional encoder to a Gaussian latent, told the emotion; a subclass defines `decode`.

    Loss: MSE (mean over pixels) + β · KL (summed over latent dimensions), both means over the batch, and a perceptual
    term where one is asked for.

    A subclass takes the arguments `latent`, `width`, `beta`, `perceptual`, `perceptual_weight`, `weights` and `lr`.

    Args:
        guide: the networks that fill the need of this name.
    """

    may_need: ClassVar[Mapping[str, str]] = {"guide": "classifier"}

    def __init__(self, *, emotions: Sequence[str], size: int, guide: Sequence[Any]) -> None:
        super().__init__(emotions=emotions, size=size)
        given = self.hparams  # of the subclass
        self.latent, self.beta, self.lr = given["latent"], given["beta"], given["lr"]
        self.perceptual_weight = given["perceptual_weight"]
        self._see = features_for(given["perceptual"], given["weights"], guide)
        self.encoder, self.features = _encoder(size, given["width"])  # (N, 3, S, S) -> (N, features)
        self.moments = nn.Linear(self.features + len(self.emotions), 2 * self.latent)

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """VGG16's, where faces are compared in its features."""
        return needed_file(arguments)

    def encode(self, pixels: Tensor, emotions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, latent) of z for faces (N, 3, S, S) of known emotions (N, K)."""
        mean, log_variance = self.moments(torch.cat([self.encoder(pixels), emotions], 1)).chunk(2, 1)
        return mean, log_variance.clamp(-20, 20)

    def decode(self, z: Tensor, emotions: Tensor) -> Tensor:
        """z (N, latent) and emotions (N, K) to pixels (N, 3, S, S)."""
        raise NotImplementedError

    def loss_parts(self, pixels: Tensor, emotions: Tensor, *, training: bool) -> Mapping[str, Tensor]:
        """How far the face that comes back is from the face, and β · KL(q(z | x, e) ‖ N(0, I))."""
        mean, log_variance = self.encode(pixels, emotions)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if training else mean
        made = self.decode(z, emotions).float()
        return {**self.differences(made, pixels), "kl": self.beta * kl_of(mean, log_variance)}

    def differences(self, made: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss that compare faces (N, 3, S, S), weighted."""
        parts = {"reconstruction": F.mse_loss(made, pixels)}
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
        return self.images(self.decode(self.latents(images), emotions))

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """The mean latents (N, latent) of faces, each encoded with the emotion that reconstructs it best.

        The encoder must be told the emotion that a face shows, and nobody else is asked.
        """
        pixels = self.pixels(images)
        means, errors = [], []
        for label in torch.eye(len(self.emotions), device=pixels.device):
            row = label.expand(len(pixels), -1)
            mean, _ = self.encode(pixels, row)
            means.append(mean)
            errors.append((self.decode(mean, row) - pixels).square().flatten(1).mean(1))  # (N,)
        best = torch.stack(errors).argmin(0)  # (N,)
        return torch.stack(means)[best, torch.arange(len(pixels), device=pixels.device)]

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


def group_norm(channels: int) -> nn.GroupNorm:
    """In eight groups where they divide the channels."""
    return nn.GroupNorm(next(groups for groups in (8, 4, 2, 1) if channels % groups == 0), channels)


def _encoder(size: int, width: int) -> tuple[nn.Sequential, int]:
    """Faces (N, 3, size, size) to features (N, D), and D.

    Convolutions that halve the side and double the channels, from `width` up to eight times as many.
    """
    layers: list[nn.Module] = []
    before, halvings = 3, halvings_of(size)
    for level in range(halvings):
        channels = width * min(2**level, 8)
        layers += [nn.Conv2d(before, channels, 4, 2, 1), group_norm(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten()), before * (size >> halvings) ** 2
