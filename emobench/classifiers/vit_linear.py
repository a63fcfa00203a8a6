"""The Vision Transformer with one linear layer for a head: transformers' own `ViTForImageClassification`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

from torch import nn

from emobench.classifiers.classifier import TrainingArguments
from emobench.classifiers.vit import ViT
from emobench.recipe import BelowOne, Count


class ViTLinear(ViT):
    """ViT (Dosovitskiy et al. 2021, section 3.1, fine-tuning): one linear layer on the class token.

    All but the head is as in `vit`: recipe, losses, strategies. That head has a hidden layer (Di Iorio, section 4.3),
    which no class of transformers has; this one `emobench export --to hf` writes as transformers reads it.

    Args:
        strategy: what is trained: "frozen", the head only; "partial", the highest `unfrozen` blocks too; "full", all;
            "warmup", all, by the schedule "warmup-plateau" in place of the default one.
        unfrozen: blocks that "partial" trains, with the norm behind them.
        dim: width of a token; with `depth`, `heads` and `patch` the architecture, which a checkpoint must have too.
        depth: blocks.
        heads: attention heads a block.
        patch: side of a patch, px.
        dropout: probability before the head.
        weights: a name on Hugging Face, the folder of a checkpoint as transformers saves it, or None: from scratch.
    """

    name = "vit_linear"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    source = "Dosovitskiy et al. 2021, section 3.1, arXiv:2010.11929; trained as Di Iorio's ViT (docs/systems.md)"
    small_faces: ClassVar[Mapping[str, Any]] = {
        name: value for name, value in ViT.small_faces.items() if name != "hidden"
    }

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        strategy: Literal["frozen", "partial", "full", "warmup"] = "warmup",
        unfrozen: Count = 4,
        dim: Count = 768,
        depth: Count = 12,
        heads: Count = 12,
        patch: Count = 16,
        dropout: BelowOne = 0.0,
        weights: str | None = "google/vit-base-patch16-224-in21k",
        **training: Unpack[TrainingArguments],
    ) -> None:
        super().__init__(
            emotions=emotions,
            size=size,
            strategy=strategy,
            unfrozen=unfrozen,
            dim=dim,
            depth=depth,
            heads=heads,
            patch=patch,
            hidden=1,  # of a head that is not kept
            dropout=dropout,
            weights=weights,
            **training,
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, len(self.emotions)))
