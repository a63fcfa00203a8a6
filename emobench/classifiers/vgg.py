"""VGG16 on torchvision's layers, with a width multiplier, and a stem and a head for small faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights, VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from emobench.classifiers.classifier import EmotionClassifier, TrainingArguments, at_least
from emobench.errors import WeightsError
from emobench.nn.weights import WeightFile, by_name_or_path, load_weights, tensors_of
from emobench.recipe import BelowOne, Count, Positive, Recipe

_URLS = {False: VGG16_Weights.IMAGENET1K_V1.url, True: VGG16_BN_Weights.IMAGENET1K_V1.url}


class VGG16(EmotionClassifier):
    """VGG16 (Simonyan and Zisserman 2015, table 1, D): thirteen 3×3 convolutions in five groups, three dense layers.

    A baseline of Di Iorio (docs/systems.md), section 4.2, trained like its ResNet18. The names of parameters are
    torchvision's, so that its files and ours load alike.

    Args:
        width: multiplier of all channels of the convolutions; pre-trained weights have 1.
        stem: "imagenet", a max-pool after each of the five groups (1/32 of the side remains), or "small", none after
            the first group (1/16 remains: for faces of 48 px).
        batch_norm: batch norm after every convolution (Ioffe and Szegedy 2015), another file of weights.
        pool: side of the average pool before the dense layers, px. torchvision's 7 repeats what small faces leave;
            1 makes the first dense layer 49 times lighter.
        head: width of the two hidden dense layers.
        dropout: probability after each hidden dense layer.
        weights: torchvision's name IMAGENET1K_V1, a path to a state dict, or None: from scratch. The last layer is
            new; with another `pool` or `head` than the file's, so are all dense layers.
    """

    name = "vgg16"
    source = "Di Iorio (docs/systems.md), section 4.2; Simonyan and Zisserman 2015, arXiv:1409.1556"
    channels_last = True
    # Di Iorio's comparison, as for ResNet18: the ViT's balance, batch and epochs, but plain cross-entropy.
    recipe = Recipe(batch=32, epochs=15, patience=3, oversample=2.0, undersample=0.4)
    small_faces: ClassVar[Mapping[str, Any]] = {
        "width": 0.25,
        "stem": "small",
        "batch_norm": True,
        "pool": 1,
        "head": 128,
        "dropout": 0.2,
        "batch": 64,
        "epochs": 6,
        "patience": "none",
        "oversample": 1.0,
        "undersample": "none",
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-2,
        "schedule": "onecycle",
    }
    # The document gives no rate for SGD; 0.01 ends the range that it explored. Weight decay as for its ViT.
    defaults: ClassVar[TrainingArguments] = {"optimizer": "sgd", "lr": 0.01, "schedule": "step"}

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        width: Positive = 1.0,
        stem: Literal["imagenet", "small"] = "imagenet",
        batch_norm: bool = False,
        pool: Count = 7,
        head: Count = 4096,
        dropout: BelowOne = 0.5,
        weights: str | None = None,  # the documents do not say whether their baselines were pre-trained
        **training: Unpack[TrainingArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size, **training)
        plan = [max(1, round(layer * width)) if isinstance(layer, int) else layer for layer in cfgs["D"]]
        self.convolutions = make_layers(plan, batch_norm)  # "M" in the plan is a max-pool
        self.register_state_dict_post_hook(to_torchvisions_names)
        self.register_load_state_dict_pre_hook(from_torchvisions_names)
        if stem == "small":
            first = next(place for place, layer in enumerate(self.convolutions) if isinstance(layer, nn.MaxPool2d))
            self.convolutions[first] = nn.Identity()  # in its place, so that the names of the others stay
        self.avgpool = nn.AdaptiveAvgPool2d(pool)
        channels = max(1, round(512 * width))
        self.classifier = nn.Sequential(
            nn.Linear(channels * pool**2, head),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(head, head),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(head, len(self.emotions)),
        )
        self.apply(initialise)
        file = self.weight_file(self.hparams)
        if file is not None:
            tensors = tensors_of(file)
            kept = [tensors.get(f"classifier.{layer}.weight") for layer in (0, 3)]
            shapes = [None if weight is None else tuple(weight.shape) for weight in kept]
            fits = shapes == [(head, channels * pool**2), (head, head)]
            load_weights(self, tensors, file.name, ("pixel_", "classifier.6." if fits else "classifier."))
        self.to(memory_format=torch.channels_last)

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """At least one pixel must be left after the max-pools."""
        if arguments.get("stem") == "small":
            at_least(cls.name, size, 16, ' with stem "small"')
        else:
            at_least(cls.name, size, 32, ' with stem "imagenet" (stem = "small": from 16 px on)')

    @classmethod
    def architecture_family(cls, arguments: Mapping[str, Any]) -> str:
        """As timm's, and as the network of perceptual losses."""
        return "vgg"

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The file behind `weights`."""
        if arguments.get("weights") is None:
            return None
        if arguments.get("width", 1.0) != 1:
            raise WeightsError(f"{cls.name}: pre-trained weights have width 1, not {arguments['width']}")
        return by_name_or_path(arguments["weights"], {"IMAGENET1K_V1": _URLS[arguments.get("batch_norm", False)]})

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to the second hidden dense layer, (N, head)."""
        x: Tensor = self.avgpool(self.convolutions(pixels)).flatten(1)  # (N, 512·width·pool²)
        for layer in list(self.classifier)[:-1]:
            x = layer(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, head) to logits (N, K)."""
        logits: Tensor = self.classifier[-1](features)
        return logits


# torchvision calls the convolutions `features`, which here is a method. Files keep its name.


def to_torchvisions_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Rename the convolutions in a state that is handed out."""
    _rename(state, f"{prefix}convolutions.", f"{prefix}features.")


def from_torchvisions_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename them back in one that is taken in."""
    _rename(state, f"{prefix}features.", f"{prefix}convolutions.")


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for name in list(state):  # all of them, so that their order stays
        value = state.pop(name)
        state[new + name.removeprefix(old) if name.startswith(old) else name] = value


def initialise(module: nn.Module) -> None:
    """Initial values of He et al. 2015, biases 0.

    torchvision draws dense layers from N(0, 0.01²), which suits their 4,096 inputs alone: behind narrower ones the
    logits all but vanish, and training stands still for epochs.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
