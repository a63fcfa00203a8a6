"""Conditional VAE with a ViT decoder and a convolutional high-resolution head (Almousa et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import SizeError
from emobench.generators.vae import ConditionalVAE, halvings_of
from emobench.nn.perceptual import Perceptual
from emobench.recipe import Augment, Recipe


class ViTCVAE(ConditionalVAE):
    """A CNN encoder to a Gaussian latent; a ViT over patch tokens decodes it; a CNN head refines and upsamples.

    Loss: reconstruction (MSE) + 0.2 · perceptual + 0.2 · (1 − SSIM) + β · KL. The document omits the KL term, without
    which nothing can be sampled from the prior: `beta = 0` reproduces its text.

    Args:
        latent: dimensions of z.
        width: channels of the encoder's first convolution.
        dim: of a token.
        depth: transformer layers.
        heads: of their attention; divides `dim`.
        patch: side of a token's patch, px, at the resolution that the ViT makes.
        head: the high-resolution head, which doubles the ViT's resolution; without it the ViT makes the face itself.
        beta: weight of the KL term.
        ssim: weight of 1 − SSIM.
        perceptual: features in which faces are compared too: VGG16's at relu2_2, those of a guide (a classifier of
            emobench), or none.
        perceptual_weight: of that term.
        weights: of VGG16, by torchvision's name or by path.
        lr: of Adam.
        guide: the networks that fill the need of this name.
    """

    name = "vit_cvae"
    source = (
        "Almousa et al. 2025, section III (docs/systems.md); Dosovitskiy et al. 2021, eq. 1-4; SSIM: Wang et al. 2004, "
        "eq. 13"
    )
    recipe = Recipe(size=64, batch=64, epochs=50, monitor=None, augment=Augment.mirror())
    small_faces: ClassVar[Mapping[str, Any]] = {
        "size": "none",
        "latent": 32,
        "width": 32,
        "dim": 64,
        "depth": 2,
        "heads": 4,
        "patch": 2,
        "ssim": 0.0,
        "perceptual": "none",
        "beta": 3e-4,
        "lr": 2e-3,
        "ema": 0.995,
        "batch": 32,
        "epochs": 24,
    }

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        latent: Annotated[int, Ge(1)] = 128,
        width: Annotated[int, Ge(1)] = 64,
        dim: Annotated[int, Ge(8)] = 256,
        depth: Annotated[int, Ge(1)] = 6,
        heads: Annotated[int, Ge(1)] = 8,
        patch: Annotated[int, Ge(1)] = 4,
        head: bool = True,
        beta: Annotated[float, Ge(0)] = 1e-3,
        ssim: Annotated[float, Ge(0)] = 0.2,
        perceptual: Perceptual = "vgg16",
        perceptual_weight: Annotated[float, Ge(0)] = 0.2,
        weights: str | None = "IMAGENET1K_V1",
        lr: Annotated[float, Gt(0)] = 1e-3,
        guide: Sequence[Any] = (),
    ) -> None:
        super().__init__(emotions=emotions, size=size, guide=guide)
        self.ssim, self.patch = ssim, patch
        self.tokens = (size // (2 if head else 1)) // patch  # a side
        self.enter = nn.Linear(latent + len(self.emotions), dim)  # told to every token
        self.position = nn.Parameter(torch.randn(1, self.tokens**2, dim) * 0.2)
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        channels = max(32, dim // 4) if head else 3
        self.leave = nn.Linear(dim, channels * patch**2)
        self.head = _head(channels) if head else nn.Identity()

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where patches or halvings do not come out even."""
        step = arguments["patch"] * (2 if arguments["head"] else 1)
        if size < 16 or size % step or size % 2 ** halvings_of(size):
            raise SizeError(
                f"{cls.name} cannot make faces of {size} px; here it makes 4 to 7 px times a power of two, from 16 px "
                f"on, that {step} divides"
            )

    def decode(self, z: Tensor, emotions: Tensor) -> Tensor:
        """z (N, latent) and emotions (N, K) to pixels (N, 3, S, S)."""
        told = self.enter(torch.cat([z, emotions], 1))[:, None]  # (N, 1, dim)
        tokens = self.leave(self.layers(told + self.position))  # (N, tokens², C · patch²)
        folded = tokens.transpose(1, 2).unflatten(2, (self.tokens, self.tokens))
        pixels: Tensor = self.head(F.pixel_shuffle(folded, self.patch)).tanh()
        return pixels

    def differences(self, made: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        """With 1 − SSIM among the terms."""
        from torchmetrics.functional.image import structural_similarity_index_measure as similarity

        parts = super().differences(made, pixels)
        if self.ssim:
            alike = similarity(made, pixels, data_range=2.0)
            assert isinstance(alike, Tensor)
            parts["ssim"] = self.ssim * (1 - alike)
        return parts


def _head(channels: int) -> nn.Module:
    """(N, C, S/2, S/2) -> (N, 3, S, S)."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 1, 1),
        nn.GELU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(channels, channels, 3, 1, 1),
        nn.GELU(),
        nn.Conv2d(channels, 3, 3, 1, 1),
    )
