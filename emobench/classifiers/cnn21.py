"""The 21-layer CNN of Padalia and Saxena (docs/systems.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from emobench.classifiers.classifier import EmotionClassifier, TrainingArguments, at_least
from emobench.recipe import Augment, BelowOne, Count, Positive, Recipe


class CNN21(EmotionClassifier):
    """Five blocks of convolution, ReLU, batch norm and max-pool, then three dense layers: 21 as its authors count.

    15 in the blocks, 2 of dropout, 1 that flattens, 3 dense ones (Padalia and Saxena, section 3.2; docs/systems.md).
    Initial values are PyTorch's own: the document, which used TensorFlow, gives none.

    Args:
        width: multiplier of the convolutions' channels 16, 32, 64, 128, 256.
        padding: pad the convolutions, so that faces from 32 px on do; without it 94 px are needed.
        dense: widths of the first two dense layers; a reader (docs/protocol.md) usually has 512 and 64.
        dropout: probability after the second and the fourth block.
    """

    name = "cnn21"
    source = "Padalia and Saxena (docs/systems.md), sections 3.2, 4.2 and 4.3"
    channels_last = True
    # Section 4.2 rotates the smaller classes up to "approximately 10,000" each, which on ExpW is 0.29 of the largest;
    # here the split comes first. The angle is not given: Di Iorio's. No early stopping is mentioned. On ExpW itself
    # `rotate_to = 10000` with `oversample = 1.0` and `undersample = "none"` is the document's own balance.
    recipe = Recipe(
        size=128,
        batch=16,
        epochs=50,
        oversample=10.0,
        undersample=0.29,
        augment=Augment(hflip=0, rotation=15, brightness=0, contrast=0, blur_p=0),
    )
    small_faces: ClassVar[Mapping[str, Any]] = {
        "padding": True,
        "dense": [512, 64],
        "size": "none",
        "batch": 64,
        "epochs": 6,
        "oversample": 1.0,
        "undersample": "none",
        "lr": 2e-3,
        "schedule": "onecycle",
    }
    defaults: ClassVar[TrainingArguments] = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        width: Positive = 1.0,
        padding: bool = False,
        dense: tuple[Count, Count] = (512, 256),
        dropout: BelowOne = 0.25,
        **training: Unpack[TrainingArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size, **training)
        channels = [max(1, round(16 * 2**block * width)) for block in range(5)]
        layers: list[nn.Module] = []
        for block, (before, after) in enumerate(zip([3, *channels], channels, strict=False)):
            layers += [nn.Conv2d(before, after, 3, padding=int(padding)), nn.ReLU(), nn.BatchNorm2d(after)]
            layers += [nn.MaxPool2d(2), *([nn.Dropout(dropout)] if block in (1, 3) else [])]
        self.blocks = nn.Sequential(*layers)
        flat = channels[-1] * side_after_blocks(size, padding) ** 2
        self.dense = nn.Sequential(nn.Linear(flat, dense[0]), nn.ReLU(), nn.Linear(dense[0], dense[1]), nn.ReLU())
        self.head = nn.Linear(dense[1], len(self.emotions))
        self.to(memory_format=torch.channels_last)

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """At least one pixel must be left after five blocks."""
        if arguments.get("padding", False):
            at_least(cls.name, size, 32, " with padding")
        else:
            at_least(cls.name, size, 94, " without padding (padding = true: from 32 px on)")

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to what the last dense layer reads, (N, dense[1])."""
        x = self.blocks(pixels)  # (N, 256·width, side, side); 2 px remain of 128
        features: Tensor = self.dense(x.flatten(1))
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, dense[1]) to logits (N, K)."""
        logits: Tensor = self.head(features)
        return logits


def side_after_blocks(size: int, padding: bool) -> int:
    """Side in px after five times a 3×3 convolution and a 2×2 max-pool."""
    for _ in range(5):
        size = (size if padding else size - 2) // 2
    return size
