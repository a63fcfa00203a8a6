"""ResNet18 on torchvision's residual blocks, with a width multiplier and a stem for small faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock

from emobench.classifiers.classifier import EmotionClassifier, TrainingArguments
from emobench.errors import WeightsError
from emobench.nn.weights import WeightFile, by_name_or_path, load_weights, tensors_of
from emobench.recipe import BelowOne, Positive, Recipe


class ResNet18(EmotionClassifier):
    """ResNet18 (He et al. 2016, table 1): a stem and eight residual blocks of two 3×3 convolutions.

    A baseline of Di Iorio, section 4.2, trained there by cross-entropy, SGD and StepLR on the same balanced faces as
    the ViT; section 4.4 says focal loss for it (`loss = "focal"`). Facial-Emotion-CVAE-StyleGAN fine-tunes it on
    AffectNet at 128 px (`weights = "IMAGENET1K_V1"`, `size = 128`). docs/systems.md has more of both.

    The names of parameters are torchvision's, so that its files and ours load alike.

    Args:
        width: multiplier of all channels; pre-trained weights have 1.
        stem: "imagenet", 7×7 of stride 2 and a max-pool (a quarter of the side remains), or "small", 3×3 of stride 1
            (all of it remains: for faces of 48 px), which starts afresh also where the rest is pre-trained.
        dropout: probability before the head.
        weights: torchvision's name IMAGENET1K_V1, a path to a state dict, or None: from scratch. The head is new.
    """

    name = "resnet18"
    source = (
        "Di Iorio, section 4.2, and Facial-Emotion-CVAE-StyleGAN (docs/systems.md); He et al. 2016, arXiv:1512.03385"
    )
    channels_last = True
    # "Consistent experimental conditions", so the ViT's balance, batch and epochs, but plain cross-entropy.
    recipe = Recipe(batch=32, epochs=15, patience=3, oversample=2.0, undersample=0.4)
    small_faces: ClassVar[Mapping[str, Any]] = {
        "width": 0.25,
        "batch": 64,
        "epochs": 16,
        "patience": "none",
        "oversample": 1.0,
        "undersample": "none",
        "lr": 0.05,
        "nesterov": True,
        "weight_decay": 5e-4,
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
        dropout: BelowOne = 0.0,
        weights: str | None = None,  # the documents do not say whether their baselines were pre-trained
        **training: Unpack[TrainingArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size, **training)
        c1, c2, c3, c4 = (max(1, round(channels * width)) for channels in (64, 128, 256, 512))
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, c1, 7, stride=2, padding=3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(3, c1, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(c1)
        self.layer1 = stage(c1, c1, stride=1)
        self.layer2 = stage(c1, c2, stride=2)
        self.layer3 = stage(c2, c3, stride=2)
        self.layer4 = stage(c3, c4, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(c4, len(self.emotions))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, as torchvision does
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        file = self.weight_file(self.hparams)
        if file is not None:
            fresh = ("fc.", "pixel_", *(("conv1.",) if stem == "small" else ()))
            load_weights(self, tensors_of(file), file.name, fresh)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def architecture_family(cls, arguments: Mapping[str, Any]) -> str:
        """As timm's residual networks."""
        return "resnet"

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The file behind `weights`."""
        if arguments.get("weights") is None:
            return None
        if arguments.get("width", 1.0) != 1:
            raise WeightsError(f"{cls.name}: pre-trained weights have width 1, not {arguments['width']}")
        return by_name_or_path(arguments["weights"], {"IMAGENET1K_V1": ResNet18_Weights.IMAGENET1K_V1.url})

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to pooled features (N, 512·width)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(pixels))))  # (N, 64·width, size / 4 or size, …)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 512·width, size / 32 or size / 8, …)
        features: Tensor = self.dropout(x.mean((2, 3)))  # (N, 512·width)
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, 512·width) to logits (N, K)."""
        logits: Tensor = self.fc(features)
        return logits


def stage(channels: int, out: int, stride: int) -> nn.Sequential:
    """Two residual blocks, the first of which changes channels and side, with a 1×1 projection where it does."""
    projection = None
    if stride != 1 or channels != out:
        projection = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
    return nn.Sequential(BasicBlock(channels, out, stride, projection), BasicBlock(out, out))
