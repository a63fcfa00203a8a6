"""Grad-CAM (Selvaraju et al. 2017) by captum, from the deepest layer whose map is fine enough for a face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emobench.errors import EmobenchError, NotExplained

LEAST_CELLS = 8  # along a side: with fewer, a cell holds an eye and its brow, and a map tells little of a face


def grad_cam(layer: nn.Module, scores: Callable[[Tensor], Tensor], pixels: Tensor, target: Tensor) -> Tensor:
    """ReLU(Σ_c α_c·A_c) of a layer's maps A_c, α_c the mean over cells of ∂score/∂A_c (equations 1 and 2).

    Args:
        scores: pixels (N, 3, S, S) through that layer to the scores (N, M) of a network's classes.
        target: (N,) the class whose score is explained.

    Returns:
        (N, h, w) float32.

    Raises:
        EmobenchError: captum is not installed.
    """
    explained = captum().LayerGradCam(scores, layer)
    with torch.enable_grad():
        found: Tensor = explained.attribute(pixels, target, relu_attributions=True)
    return found.detach().float()[:, 0]


def captum() -> Any:
    """captum.attr.

    Raises:
        EmobenchError: captum is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise EmobenchError(
            f"Grad-CAM needs captum ({error}). Install it: pip install 'emobench[explain]'. Attention rollout, of "
            "Vision Transformers, does without"
        ) from None
    return captum.attr


def deepest(network: nn.Module, scores: Callable[[Tensor], Tensor], pixels: Tensor) -> tuple[str, int]:
    """The layer that ends last among those whose maps are of at least 8 × 8 cells: its name, and cells along a side.

    Raises:
        NotExplained: there is none.
    """
    found: list[tuple[str, tuple[int, ...]]] = []

    def noted(name: str) -> Callable[..., None]:
        return lambda module, given, made: found.append((name, tuple(made.shape))) if _is_map(made) else None

    hooks = [module.register_forward_hook(noted(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            scores(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    fine = [(name, shape[-1]) for name, shape in found if shape[-1] >= LEAST_CELLS]
    if fine:
        return fine[-1]
    raise NotExplained(_too_coarse([shape for _, shape in found]))


def _too_coarse(shapes: Sequence[tuple[int, ...]]) -> str:
    if not shapes:
        return "it has no layer with a map of the face"
    most = max(shape[-1] for shape in shapes)
    return f"its finest layer has {most} x {most} cells, and fewer than {LEAST_CELLS} x {LEAST_CELLS} tell little"


def _is_map(made: Any) -> bool:
    """Whether a layer's output is of a square of cells, (N, C, h, h)."""
    return isinstance(made, Tensor) and made.ndim == 4 and made.shape[-1] == made.shape[-2] and made.shape[-1] > 1
