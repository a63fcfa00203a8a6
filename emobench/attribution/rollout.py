"""Attention rollout (Abnar and Zuidema 2020): how much each token of the last layer takes from each patch.

Shapes: L layers, N faces, H heads, T tokens, g × g patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from emobench.errors import NotExplained

Fusion = Literal["mean", "max", "min"]
FUSIONS: Mapping[Fusion, Callable[[Tensor], Tensor]] = {
    "mean": lambda weights: weights.mean(1),
    "max": lambda weights: weights.amax(1),
    "min": lambda weights: weights.amin(1),
}
_MOST_PREFIX = 16  # tokens before the patches: the class token, one of distillation, registers


class Attentions(TorchFunctionMode):
    """The attention weights that a network computes within the block, however its library calls its layers.

    Those of timm, transformers and torch itself go through `scaled_dot_product_attention`, which hands out no weights:
    they are computed here once more from the same queries and keys.

    Args:
        fusion: how the heads of a layer become one.

    Attributes:
        layers: of each self-attention, in the order of its calls, (N, T, T): rows take, columns give.
        others: attentions that no rollout can follow: of other tokens than their own.
    """

    def __init__(self, fusion: Fusion = "mean") -> None:
        super().__init__()
        self.fusion, self.layers, self.others = fusion, list[Tensor](), 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._record(*args, **kwargs)
        return func(*args, **kwargs)

    def _record(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if query.ndim != 4 or query.shape[-2] != key.shape[-2] or is_causal or query.shape[1] != key.shape[1]:
            self.others += 1
            return
        weights = query.detach() @ key.detach().transpose(-2, -1)  # (N, H, T, T)
        weights = weights * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            masked = attn_mask.detach()
            weights = weights.masked_fill(~masked, -math.inf) if masked.dtype == torch.bool else weights + masked
        self.layers.append(FUSIONS[self.fusion](weights.double().softmax(-1)))


def rolled_out(layers: Sequence[Tensor], discard: float = 0.0) -> Tensor:
    """The attention of the last layer's tokens to the first layer's, through all layers between.

    Ã(l) = A(l)·Ã(l − 1), with A = (W + I)/2, its rows normalised: half of what a token becomes is itself, by the
    residual connection (section 3, "attention rollout").

    Args:
        layers: W of each layer, its heads fused, (N, T, T); the first layer first.
        discard: the share of the entries of each W, the lowest ones of each face, that count as 0.

    Returns:
        (N, T, T) float64, rows sum to 1.
    """
    rolled: Tensor | None = None
    for weights in layers:
        kept = _without_lowest(weights.double(), discard)
        mixed = (kept + torch.eye(kept.shape[-1], dtype=kept.dtype, device=kept.device)) / 2
        mixed = mixed / mixed.sum(-1, keepdim=True)
        rolled = mixed if rolled is None else mixed @ rolled
    assert rolled is not None
    return rolled


def _without_lowest(weights: Tensor, discard: float) -> Tensor:
    """(N, T, T) with the lowest share of each face's entries set to 0."""
    flat = weights.flatten(1)
    count = int(discard * flat.shape[1])
    if count == 0:
        return weights
    lowest = flat.topk(count, dim=1, largest=False, sorted=False).indices
    return flat.scatter(1, lowest, 0.0).view_as(weights)


def check_tokens(found: Attentions, faces: int) -> int:
    """The side g of the grid of patches that all recorded layers attend over.

    Raises:
        NotExplained: they are not all of one set of tokens, or those are no square of patches.
    """
    shapes = {tuple(layer.shape[:2]) for layer in found.layers}
    if found.others or len(shapes) != 1 or next(iter(shapes))[0] != faces:
        raise NotExplained(
            "a rollout needs layers in which all tokens attend to all, and its do not (windows, pooling, other tokens)"
        )
    tokens = next(iter(shapes))[1]
    side = math.isqrt(tokens)
    if side < 2 or tokens - side * side > _MOST_PREFIX:
        raise NotExplained(f"its {tokens} tokens are no square of patches")
    return side


def to_patches(rolled: Tensor, side: int, *, from_class: bool) -> Tensor:
    """What a network's answer takes from each patch: (N, T, T) to (N, g, g).

    Args:
        side: g; the tokens before the g² patches are the class token and its like.
        from_class: whether the answer is read from the first token; else from the mean of the patches.
    """
    prefix = rolled.shape[-1] - side * side
    rows = rolled[:, 0] if from_class and prefix else rolled[:, prefix:].mean(1)  # (N, T)
    patches: Tensor = rows[:, prefix:].unflatten(1, (side, side))
    return patches
