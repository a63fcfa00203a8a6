"""Random changes of training faces by albumentations, seeded once a batch.

Its own global seeding gives every worker and every epoch the same changes, so `Augmenter` reseeds from (seed, epoch,
step, rank) before each batch: the numbers depend on neither the number of workers nor what came before.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from emobench.recipe import Augment


class Augmenter:
    """Applies an `Augment` to batches of faces; built where it is used first, thus once in each worker."""

    def __init__(self, augment: Augment) -> None:
        self.augment = augment
        self._compose: Any = None

    def __call__(self, images: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """uint8 (n, C, S, S) -> the same shape, changed; equal `seed`, equal changes."""
        if self._compose is None:
            self._compose = _compose(self.augment)
        self._compose.set_random_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        changed = np.empty_like(images)
        for face, out in zip(images, changed, strict=True):
            result = self._compose(image=np.ascontiguousarray(face.transpose(1, 2, 0)))["image"]  # (S, S, C)
            out[:] = result.transpose(2, 0, 1)
        return changed


def augmenter(augment: Augment) -> Augmenter | None:
    """None where every change is switched off: albumentations is then not even imported."""
    moves = augment.rotation or augment.shift or augment.scale
    active = moves or augment.hflip or augment.brightness or augment.contrast or augment.blur_p or augment.erase
    return Augmenter(augment) if active else None


def _compose(augment: Augment) -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for its newest version
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # more threads than one only cost on small faces, and fight over the cores
    changes: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it warns of a wrong argument and goes on without it
        if augment.hflip:
            changes.append(A.HorizontalFlip(p=augment.hflip))
        if augment.rotation or augment.shift or augment.scale:
            shift, scale = augment.shift, augment.scale
            changes.append(
                A.Affine(
                    rotate=(-augment.rotation, augment.rotation),
                    translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                    scale=(1 - scale, 1 + scale),
                    border_mode=cv2.BORDER_REFLECT_101,  # no black corners, which only training faces would have
                    p=1.0,
                )
            )
        if augment.brightness or augment.contrast:
            bright, contrast = augment.brightness, augment.contrast
            changes.append(A.RandomBrightnessContrast((-bright, bright), (-contrast, contrast), p=1.0))
        if augment.blur_p:
            changes.append(A.GaussianBlur(blur_limit=0, sigma_limit=tuple(augment.blur), p=augment.blur_p))
        if augment.erase:
            changes.append(A.Erasing(fill="random", p=augment.erase))
        return A.Compose(changes)
