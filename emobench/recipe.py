"""How a model is trained by default: the part of a row that is neither architecture, loss nor optimiser."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

# Ranges of fields and arguments, which pydantic reads: a suite is checked against them before anything starts.
Share = Annotated[float, Ge(0), Le(1)]  # the whole is allowed
BelowOne = Annotated[float, Ge(0), Lt(1)]  # where the whole would leave nothing, as of a dropout
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of a training face; the defaults are Di Iorio's recipe (section 3.2).

    Strengths of 0 and probabilities of 0 switch a change off: `Augment.none()` all, `Augment.mirror()` all but mirror
    images.
    """

    hflip: Share = 0.5  # probability of a mirror image
    rotation: NotNegative = 15.0  # at most this many degrees either way
    shift: Share = 0.0  # at most this share of the side, in x and in y
    scale: Share = 0.0  # at most this share larger or smaller
    brightness: Share = 0.25  # at most this share of the full range up or down
    contrast: Share = 0.25  # factor 1 ± this
    blur: tuple[NotNegative, NotNegative] = (0.1, 1.0)  # sigma of the Gaussian, px, drawn between the two
    blur_p: Share = 0.5  # probability of a blur
    erase: Share = 0.0  # probability of a random erased patch (Zhong et al. 2020)
    backend: Literal["albumentations", "batched"] = (
        "albumentations"  # a face at a time in the loader, or a batch at a time where the network is
    )

    @classmethod
    def none(cls) -> Augment:
        """No change at all."""
        return cls(hflip=0, rotation=0, brightness=0, contrast=0, blur_p=0)

    @classmethod
    def mirror(cls) -> Augment:
        """Mirror images alone: whatever else the faces were put through, a generator would learn to draw."""
        return cls(rotation=0, brightness=0, contrast=0, blur_p=0)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a fit is computed where that is a matter of speed: chosen for a machine, and in no key.

    Another way rounds otherwise and makes another network, as another processor does.
    """

    compile: bool = False  # torch.compile for the networks through which no second derivative is taken
    cuda_graphs: bool = False  # what is compiled is recorded once and replayed
    channels_last: bool = False  # the order in which the weights of convolutions lie
    fused: bool = False  # an optimiser's step as one kernel


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fields that a suite may set beside the arguments of the class.

    Exactly one of `epochs` and `steps` is set.
    """

    size: Count | None = None  # side of the faces that the network sees, px; None: the dataset's evaluation size
    batch: Count = 64  # faces per optimiser step and process
    epochs: Count | None = None  # passes over the (balanced) training split
    steps: Count | None = None  # optimiser steps
    patience: Count | None = None  # epochs without a better `monitor` before the fit stops; None: never
    monitor: Literal["macro_f1", "accuracy", "loss"] | None = (
        "macro_f1"  # on validation; picks the best epoch; None: the last weights, as of every generator
    )
    ema: BelowOne | None = None  # decay a step of averaged weights, which are then kept; None: none
    oversample: Annotated[float, Ge(1)] = (
        1.0  # a class below the cap is repeated up to this factor, never above the cap
    )
    undersample: Annotated[float, Gt(0), Le(1)] | None = (
        None  # cap of a class: share of the largest, never below the smallest; None: none
    )
    compile: bool = False  # torch.compile for the networks through which no second derivative is taken
    rotate_to: Count | None = None  # a class with fewer faces is filled up to this many an epoch with rotated copies
    rotate_by: NotNegative = 15.0  # degrees by which such a copy is turned at most, either way
    class_weights: Literal["balanced"] | None = None  # n / (K · n_k) of what training sees, in the loss
    augment: Augment = field(default_factory=Augment)

    def plain(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts: what a key and a result hold."""
        return asdict(self)
