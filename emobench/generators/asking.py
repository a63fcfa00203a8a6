"""What a finished generator may be asked with: names of emotions and lists of seeds, beside tensors.

    model.sample(["happy", "sad"], seeds=[0, 1])
    model.sample(["happy", "sad"])                  # seeds 0 and 1
    model.edit(images, ["happy"] * len(images))

Tensors are handed on as they are: an evaluation asks with tensors alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from emobench.emotions import canonical, is_emotion
from emobench.errors import unknown

_ASKED = ("begin", "edit", "sample", "stylize")  # the methods that make faces


def understand(cls: type) -> None:
    """Let the methods of a class that make faces take names of emotions and lists of seeds too."""
    for name in _ASKED:
        method = vars(cls).get(name)
        if inspect.isfunction(method):
            setattr(cls, name, _understanding(method))


def _understanding(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose `images`, `emotions` and `seeds` are tensors by the time that its own code sees them."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def asked(self: Any, *given: Any, **named: Any) -> Any:
        call = signature.bind_partial(self, *given, **named).arguments
        images, emotions, seeds = (call.get(name) for name in ("images", "emotions", "seeds"))
        if isinstance(images, Tensor):
            self.check_images(images)
        if emotions is not None:
            named_in = call["emotions"] = emotion_rows(emotions, self.emotions, self.device)
            if "seeds" in signature.parameters:
                call["seeds"] = _seeds(seeds, len(named_in), self.device)
            if isinstance(images, Tensor) and len(images) != len(named_in):
                raise ValueError(f"{len(images)} images and {len(named_in)} emotions: name one for each image")
        return method(**call)

    return asked


def emotion_rows(
    emotions: Tensor | str | Sequence[Any], known: Sequence[str], device: torch.device | str = "cpu"
) -> Tensor:
    """Emotions as rows of weights, float (N, K).

    Args:
        emotions: N names in any of their usual spellings, one name, or (N, K) weights, which are handed on.
        known: the K emotions that the model knows, in its order.

    Raises:
        ValueError: a name that the model does not know; says which it knows. Or no K weights a row.
    """
    if not isinstance(emotions, Tensor):
        names = [emotions] if isinstance(emotions, str) else list(emotions)
        if any(isinstance(name, str) for name in names):
            places = torch.tensor([_place(name, known) for name in names], device=device)
            return torch.eye(len(known), device=device)[places]
        emotions = torch.as_tensor(emotions, dtype=torch.float32, device=device)
    if emotions.ndim != 2 or emotions.shape[1] != len(known):
        raise ValueError(
            f"emotions are (N, {len(known)}) weights of {', '.join(known)}, or N of these names, not "
            f"{tuple(emotions.shape)}"
        )
    return emotions


def _place(name: Any, known: Sequence[str]) -> int:
    """Where the model has an emotion."""
    if name in known:
        return known.index(name)
    if isinstance(name, str) and is_emotion(name) and canonical(name) in known:
        return known.index(canonical(name))
    raise ValueError(unknown("emotion", str(name), known))


def _seeds(seeds: Any, n: int, device: torch.device) -> Tensor:
    """One seed for each of n faces, int64 (n,); None: 0 to n - 1."""
    if seeds is None:
        return torch.arange(n, device=device)
    found = seeds if isinstance(seeds, Tensor) else torch.as_tensor(list(seeds), device=device)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"seeds are whole numbers, not {str(found.dtype).removeprefix('torch.')}")
    if found.shape != (n,):
        raise ValueError(f"{n} emotions and seeds of shape {tuple(found.shape)}: name one seed for each emotion")
    return found if isinstance(seeds, Tensor) else found.long()
