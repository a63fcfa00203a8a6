"""Conditional convolutional VAE (Kingma and Welling 2014; Sohn et al. 2015): emotion in, face out; and edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from emobench.errors import SizeError
from emobench.generators.vae import ConditionalVAE, group_norm, halvings_of
from emobench.nn.perceptual import Perceptual
from emobench.recipe import Augment, Recipe


class CVAE(ConditionalVAE):
    """A convolutional encoder to a Gaussian latent and a decoder of transposed convolutions, both told the emotion.

    Loss: MSE (mean over pixels) + β · KL (summed over latent dimensions), both means over the batch. The
    defaults are those of Liu et al. 2025; Facial-Emotion-CVAE-StyleGAN has size 128 and a perceptual loss.

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
    source = (
        "Liu et al. 2025, section 4.1.1, and Facial-Emotion-CVAE-StyleGAN (docs/systems.md); Sohn et al. 2015, eq. 4; "
        "β: Higgins et al. 2017, eq. 4"
    )
    recipe = Recipe(size=64, batch=64, epochs=50, monitor=None, augment=Augment.mirror())
    small_faces: ClassVar[Mapping[str, Any]] = {
        "size": "none",
        "latent": 32,
        "width": 32,
        "beta": 3e-4,
        "epochs": 20,
    }

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
        super().__init__(emotions=emotions, size=size, guide=guide)
        halvings = halvings_of(size)
        self.side = size >> halvings
        self.deep = nn.Sequential(nn.Linear(latent + len(self.emotions), self.features), nn.ReLU())
        up: list[nn.Module] = []
        before = self.features // self.side**2
        for level in range(halvings - 1, -1, -1):
            channels = width * min(2 ** max(0, level - 1), 8)
            up += [nn.ConvTranspose2d(before, channels, 4, 2, 1), group_norm(channels), nn.ReLU()]
            before = channels
        self.decoder = nn.Sequential(
            *up, nn.Conv2d(before, 3, 3, 1, 1), nn.Tanh()
        )  # (N, C, side, side) -> (N, 3, S, S)

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where the halvings do not come out even."""
        if size < 8 or size % 2 ** halvings_of(size):
            raise SizeError(
                f"{cls.name} cannot make faces of {size} px; it makes 4 to 7 px times a power of two, from 8 on"
            )

    def decode(self, z: Tensor, emotions: Tensor) -> Tensor:
        """z (N, latent) and emotions (N, K) to pixels (N, 3, S, S)."""
        deep = self.deep(torch.cat([z, emotions], 1)).view(len(z), -1, self.side, self.side)
        pixels: Tensor = self.decoder(deep)
        return pixels
