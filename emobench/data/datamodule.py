"""EmotionDataModule: a dataset as Lightning trains on it. Balanced and augmented loaders, finished on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from emobench.data.augment import active
from emobench.data.balance import Balance
from emobench.data.dataset import SOFT, DataArguments, Dataset
from emobench.data.loaders import (
    Batch,
    PackedFaces,
    TrainBatches,
    TrainLoader,
    eval_batches,
    finish,
    loader_options,
)
from emobench.recipe import Recipe

RESIDENT_BYTES = 4 * 2**30  # a larger pack stays on the host: a small share of the memory of a GPU that one trains on


@dataclass(frozen=True)
class _Feed:
    """See `EmotionDataModule.feed`."""

    recipe: Recipe
    seed: int
    workers: int
    permuted: bool


class EmotionDataModule(Dataset, L.LightningDataModule):
    """The base of every dataset: what `Dataset` is, and the loaders that feed training and evaluation.

    A batch is a dict: `image` uint8 (n, 3, size, size), `emotions` float32 (n, K), one-hot or soft, and `index` int64
    (n,), rows of the pack. Which faces a step sees, and how they are changed, follows from (seed, epoch, step) alone.

    Args:
        settings: see `Dataset`.
        common: see `DataArguments`.
    """

    name: str  # Lightning declares it as optional

    def __init__(self, settings: Mapping[str, Any], **common: Unpack[DataArguments]) -> None:
        super().__init__(settings, **common)
        self._feed: _Feed | None = None
        self._resident: torch.Tensor | None = None  # all faces, on the trainer's device

    def feed(self, *, recipe: Recipe, seed: int, workers: int = 0, permuted: bool = False) -> None:
        """How the loaders feed the training that follows.

        Args:
            recipe: batch, balance and augmentation.
            seed: of the order of the faces and of their augmentation.
            workers: processes that load; the numbers do not depend on it.
            permuted: a control: the labels of training and of validation are permuted, each within its split.
        """
        self._feed = _Feed(recipe, seed, workers, permuted)

    def _fed(self) -> _Feed:
        if self._feed is None:
            raise RuntimeError("call feed() before asking for what training sees")
        return self._feed

    # ---- balance -------------------------------------------------------------------------------------------------

    def class_weights(self) -> np.ndarray:
        """(K,) float32: n / (classes present · n_k) of the labels that an epoch of training sees; absent: 0.

        scikit-learn's 'balanced' (King and Zeng 2001).
        """
        rows = self._rows("train")
        available = np.bincount(self._labels()[rows], minlength=len(self.emotions))
        seen = Balance.of(self._fed().recipe).counts(available)
        weights = np.zeros(len(seen), np.float32)
        present = seen > 0
        weights[present] = seen.sum() / (present.sum() * seen[present])
        return weights

    def steps_per_epoch(self, recipe: Recipe, world: int = 1) -> int:
        """Optimiser steps of one epoch under a recipe, on `world` processes."""
        return len(self._train_batches(recipe, seed=0, rank=0, world=world))

    def faces_per_epoch(self, recipe: Recipe) -> int:
        """Faces that training sees in one epoch under a recipe, on one process; repeated ones count each time."""
        batches = self._train_batches(recipe, seed=0, rank=0, world=1)
        return len(batches) * batches.batch

    def _train_batches(self, recipe: Recipe, seed: int, rank: int, world: int) -> TrainBatches:
        rows = self._rows("train")
        return TrainBatches(self._labels()[rows], rows, Balance.of(recipe), recipe.batch, seed, rank, world)

    # ---- loaders, as Lightning asks for them ---------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Lightning calls this in one process per node, before the others look for the pack."""
        self.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Lightning calls this in every process."""
        self.prepare()

    def train_dataloader(self) -> TrainLoader:
        """Balanced, shuffled, augmented; needs `feed()`."""
        feed = self._fed()
        batches = self._train_batches(feed.recipe, feed.seed, *self._rank())
        augment = feed.recipe.augment
        changes = active(augment) or feed.recipe.rotate_to is not None
        resident = self._is_resident() and not (changes and augment.backend == "albumentations")
        faces = PackedFaces(
            self.images, self._targets(), augment, feed.seed, on_device=self._on_device(), resident=resident
        )
        options = loader_options(0 if resident else feed.workers)
        return TrainLoader(faces, batches, None if self.trainer is None else self.place, **options)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split in row order."""
        return self._eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split in row order."""
        return self._eval_dataloader("test")

    def _eval_dataloader(self, split: str) -> DataLoader[Batch]:
        batch = 64 if self._feed is None else max(64, self._feed.recipe.batch)
        workers = 0 if self._feed is None else self._feed.workers
        batches = eval_batches(self._rows(split), batch, *self._rank())
        resident = self._is_resident()
        faces = PackedFaces(self.images, self._targets(), None, 0, on_device=self._on_device(), resident=resident)
        return DataLoader(faces, sampler=batches, batch_size=None, **loader_options(0 if resident else workers))

    def place(self) -> tuple[int, int]:
        """(epoch, step) of the trainer's next batch, right also after it has loaded a checkpoint from within an epoch.

        Its progress counts batches as `ready` before it counts anything else, and a restart sets that to the finished.
        """
        assert self.trainer is not None
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _rank(self) -> tuple[int, int]:
        """(this process, processes) of the trainer, (0, 1) without one."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    # ---- on the device -------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning calls this when a batch is on the device: augments and gathers there what the loader left."""
        if "image" in batch and "changes" not in batch and batch["image"].shape[1] == 3:
            return batch
        return finish(batch, None if "image" in batch else self._all_on(batch["index"].device))

    def _on_device(self) -> bool:
        """Whether the trainer's device finishes the batches: a GPU does, on a CPU the loader does as well."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _is_resident(self) -> bool:
        """Whether the device holds all faces, so that none passes through a loader."""
        return self._on_device() and self.images.nbytes <= RESIDENT_BYTES

    def _all_on(self, device: torch.device) -> torch.Tensor:
        """uint8 (N, C, size, size) on a device."""
        if self._resident is None or self._resident.device != device:
            self._resident = torch.from_numpy(np.array(self.images)).to(device)
        return self._resident

    # ---- labels as training sees them ----------------------------------------------------------------------------

    def _rows(self, split: str) -> np.ndarray:
        """(n,) int64 rows of the pack, ascending."""
        return np.flatnonzero(self.faces["split"] == split)

    def _labels(self) -> np.ndarray:
        """(N,) int64 classes."""
        labels = np.asarray(self.faces["label"], np.int64)
        return np.asarray(labels[self._label_rows()])

    def _targets(self) -> np.ndarray:
        """(N, K) float32: one-hot, or soft where the dataset has soft labels."""
        soft = [SOFT + emotion for emotion in self.emotions]
        if set(soft) <= set(self.faces.columns):
            targets = self.faces[soft].to_numpy(np.float32)
        else:
            targets = np.eye(len(self.emotions), dtype=np.float32)[self.faces["label"]]
        return np.asarray(targets[self._label_rows()])

    def _label_rows(self) -> np.ndarray:
        """(N,) the row from which each row takes its label: itself, or of the control a permuted one in its split."""
        rows = np.arange(len(self.faces))
        if self._feed is not None and self._feed.permuted:
            random = np.random.default_rng((self._feed.seed, 0x9E3779B9))  # a stream apart from the epochs'
            for split in ("train", "val"):
                rows[self._rows(split)] = random.permutation(self._rows(split))
        return rows
