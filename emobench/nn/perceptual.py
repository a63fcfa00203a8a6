"""Perceptual loss (Johnson et al. 2016, eq. 2): how far two faces are in the features of a network that stays as it is.

The network is VGG16 with ImageNet weights, by name or path; without them, an emotion classifier that the suite names
(`needs = { guide = ... }`), which the firewall then keeps out of the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import SuiteError
from emobench.nn.weights import WeightFile, by_name_or_path, load_weights, tensors_of

LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}  # of torchvision's VGG16.features
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


def vgg16_file(weights: str) -> WeightFile:
    """The file of VGG16's ImageNet weights behind a name or path."""
    from torchvision.models import VGG16_Weights

    return replace(by_name_or_path(weights, {"IMAGENET1K_V1": VGG16_Weights.IMAGENET1K_V1.url}), guides="vgg")


def needed_file(arguments: Mapping[str, Any]) -> WeightFile | None:
    """The file that a model with these arguments needs where it compares faces in VGG16's features."""
    wanted = arguments["perceptual"] == "vgg16" and arguments["weights"] is not None
    return vgg16_file(arguments["weights"]) if wanted else None


class VGG16Features:
    """Activations of VGG16 at named layers, for pixels in [-1, 1].

    Not a module: its weights are no part of whoever is trained by it.

    Args:
        weights: "IMAGENET1K_V1" or a path to a state dict; None: random, for a network that is trained already.
        layers: keys of `LAYERS`.
    """

    def __init__(self, weights: str | None, layers: Sequence[str]) -> None:
        from torchvision.models import vgg16

        network = vgg16(weights=None)
        if weights is not None:
            file = vgg16_file(weights)
            load_weights(network, tensors_of(file), file.name, ())
        self.layers = [LAYERS[name] for name in layers]
        self.network = network.features[: max(self.layers) + 1].eval().requires_grad_(False)

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to one (N, C, h, w) for each layer."""
        mean, std = (pixels.new_tensor(each).view(1, 3, 1, 1) for each in (_MEAN, _STD))
        x = ((pixels + 1) / 2 - mean) / std
        found = []
        for place, layer in enumerate(self.network.to(pixels.device)):
            x = layer(x)
            if place in self.layers:
                found.append(x)
        return found


class GuideFeatures:
    """Activations of an emotion classifier before each of its poolings or strides, for pixels in [-1, 1].

    Not a module: the guide's weights are no part of whoever is trained by it.

    Args:
        guide: an emotion classifier of emobench, frozen.
        depth: so many of its convolutions, spread from the first to the last, are compared.
    """

    def __init__(self, guide: Any, depth: int = 3) -> None:
        self.guide = guide
        convolutions = [module for module in guide.modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise SuiteError(f"{guide.name} has no convolutions to compare faces in; name another guide")
        places = np.linspace(0, len(convolutions) - 1, min(depth, len(convolutions))).round().astype(int)
        self.chosen = [convolutions[place] for place in places]

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to one (N, C, h, w) for each chosen convolution."""
        guide = self.guide.to(pixels.device)
        found: list[Tensor] = []
        hooks = [each.register_forward_hook(lambda _, __, made: found.append(made)) for each in self.chosen]
        try:
            images = (pixels + 1) * 127.5  # as floats: the guide's own rounding would stop the gradient
            guide.logits(normalised(guide, images))
        finally:
            for hook in hooks:
                hook.remove()
        return found


def normalised(guide: Any, images: Tensor) -> Tensor:
    """What the guide's `forward` makes of images, kept differentiable."""
    side = (guide.size, guide.size)
    if images.shape[-2:] != side:
        images = F.interpolate(images, side, mode="bilinear", antialias=True)
    pixels: Tensor = (images - 255 * guide.pixel_mean) / (255 * guide.pixel_std)
    return pixels


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Mean squared distance, a mean over layers, each by the size of its activations: no layer drowns the others."""
    terms = [F.mse_loss(a, b) / b.detach().square().mean().clamp_min(1e-8) for a, b in zip(one, other, strict=True)]
    return torch.stack(terms).mean()


Perceptual = Literal["none", "vgg16", "guide"]


def features_for(
    perceptual: Perceptual, weights: str | None, guide: Sequence[Any]
) -> VGG16Features | GuideFeatures | None:
    """What compares faces, as a model's arguments say.

    Raises:
        SuiteError: "guide" without a guide, or a guide without use.
    """
    if (perceptual == "guide") != bool(guide):
        says = "names no guide: add needs = { guide = ... }" if perceptual == "guide" else "has no use for a guide"
        raise SuiteError(f"perceptual = {perceptual!r} {says}")
    if perceptual == "vgg16":
        return VGG16Features(weights, ("relu2_2",))
    return GuideFeatures(guide[0]) if guide else None
