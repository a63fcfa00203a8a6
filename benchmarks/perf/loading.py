"""Speed of the way from packed faces to changed batches, on one thread of a CPU."""

from __future__ import annotations

import os
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import: it asks the network

import albumentations as A
import cv2
import numpy as np
import torch
from timing import paired, ratio

from emobench.data.augment import batched, draw
from emobench.data.datasets.synthetic import Synthetic
from emobench.recipe import Augment, Recipe

BATCH = 64
NO_BLUR = Augment(blur_p=0.0)


def recipe_r1(blur: bool = True) -> A.Compose:
    """The default changes as one would write them with albumentations alone."""
    cv2.setNumThreads(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        changes = [
            A.HorizontalFlip(p=0.5),
            A.Affine(rotate=(-15, 15), border_mode=cv2.BORDER_REFLECT_101, p=1.0),
            A.RandomBrightnessContrast((-0.25, 0.25), (-0.25, 0.25), p=1.0),
        ]
        return A.Compose([*changes, A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 1.0), p=0.5)] if blur else changes)


def faces(size: int, cache: Path) -> Synthetic:
    data = Synthetic(size=size, train=4000, val=400, test=400, cache=cache)
    data.prepare()
    return data


def measure_loader(runs: int) -> dict[str, Any]:
    """An epoch of the training loader against albumentations called for the same faces, no batch being made."""
    with tempfile.TemporaryDirectory() as folder:
        data = faces(48, Path(folder))
        data.feed(recipe=Recipe(epochs=1, batch=BATCH), seed=0)
        loader, compose = data.train_dataloader(), recipe_r1()
        images = np.ascontiguousarray(data.images[: len(loader) * BATCH].transpose(0, 2, 3, 1))  # (N, S, S, C)

        def ours() -> None:
            for _ in loader:
                pass

        def alone() -> None:
            for image in images:
                compose(image=image)

        one, other = _on_one_thread(ours, alone, runs)
    return _speeds(one, other, len(images), 0.85)


def measure_batched(runs: int, blur: bool) -> dict[str, Any]:
    """All faces of a batch changed at once by torch against albumentations one by one."""
    augment = Augment() if blur else NO_BLUR
    with tempfile.TemporaryDirectory() as folder:
        data = faces(48, Path(folder))
        images = torch.from_numpy(np.array(data.images[: 32 * BATCH]))
        one_by_one = np.ascontiguousarray(images.numpy().transpose(0, 2, 3, 1))  # (N, S, S, C)
        compose = recipe_r1(blur)

        def ours() -> None:
            for step, batch in enumerate(images.split(BATCH)):
                batched(batch, draw(augment, BATCH, 48, (0, 0, step, 0)))

        def alone() -> None:
            for image in one_by_one:
                compose(image=image)

        one, other = _on_one_thread(ours, alone, runs)
    return _speeds(one, other, len(images), None if blur else 2.5)


def _on_one_thread(ours: Any, alone: Any, runs: int) -> tuple[list[float], list[float]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return paired(ours, alone, runs)
    finally:
        torch.set_num_threads(threads)


def _speeds(one: list[float], other: list[float], n: int, limit: float | None) -> dict[str, Any]:
    return {
        "emobench_images_per_s": n / statistics.median(one),
        "albumentations_images_per_s": n / statistics.median(other),
        "ratio": ratio(other, one),
        "limit": limit,
    }
