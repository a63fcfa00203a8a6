"""Loaders: which faces a step sees is a pure function of (seed, epoch, step), on any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from emobench.data.augment import Albumentations, Changes, active, batched, draw
from emobench.data.balance import Balance
from emobench.recipe import Augment

Batch = dict[str, Any]


@dataclass(frozen=True)
class BatchSpec:
    """Which rows make a batch, and its place in the training, which seeds their augmentation."""

    rows: np.ndarray  # (n,) int64, rows of the pack
    epoch: int
    number: int  # within the epoch, among the batches of all processes
    again: bool = False  # whether another process has it too
    turn: np.ndarray | None = None  # (n,) degrees by which a copy is rotated at most, either way; 0: not a copy


class PackedFaces(Dataset[Batch]):
    """The faces of a pack, a batch at a time.

    Args:
        images: uint8 (N, C, S, S), C 1 or 3.
        emotions: float32 (N, K), rows sum to 1.
        augment: random changes of training faces; None: faces as they are.
        seed: of those changes.
        on_device: leave to `finish` what the device does better: augmentation by the batched backend, and repeating
            gray to three channels.
        resident: the device holds all faces, so none are sent; needs `on_device`, and no augmentation other than by the
            batched backend.
    """

    def __init__(
        self,
        images: np.ndarray,
        emotions: np.ndarray,
        augment: Augment | None,
        seed: int,
        *,
        on_device: bool = False,
        resident: bool = False,
    ) -> None:
        self.images, self.emotions, self.augment, self.seed = images, emotions, augment, seed
        self.on_device, self.resident = on_device, resident
        self._one_by_one = None if augment is None or augment.backend == "batched" else Albumentations(augment)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, spec: BatchSpec) -> Batch:
        batch: Batch = {
            "emotions": torch.from_numpy(self.emotions[spec.rows]),  # (n, K)
            "index": torch.from_numpy(spec.rows),  # (n,)
            **({"again": True} if spec.again else {}),
        }
        changes = self._changes(spec)
        if not self.resident:
            images = np.asarray(self.images)[spec.rows]  # (n, C, S, S)
            if changes is not None and self._one_by_one is not None:
                images, changes = self._one_by_one(images, changes), None
            batch["image"] = torch.from_numpy(images)
        if changes is not None:
            batch["changes"] = vars(changes)
        return batch if self.on_device else finish(batch)

    def _changes(self, spec: BatchSpec) -> Changes | None:
        if self.augment is None or not (active(self.augment) or spec.turn is not None):
            return None
        place = (self.seed, spec.epoch, spec.number, 0)
        return draw(self.augment, len(spec.rows), self.images.shape[-1], place, spec.turn)


def finish(batch: Batch, pack: torch.Tensor | None = None) -> Batch:
    """The batch as models see it: `image` uint8 (n, 3, S, S), augmented where `changes` came with it.

    Args:
        batch: of `PackedFaces`.
        pack: uint8 (N, C, S, S), all faces, where the batch has none.
    """
    image = batch["image"] if pack is None else pack[batch["index"]]
    changes = batch.pop("changes", None)
    if changes is not None:
        image = batched(image, Changes(**changes))
    batch["image"] = image.expand(-1, 3, -1, -1)
    return batch


class TrainBatches(Sampler[BatchSpec]):
    """The sampler of training: step s of epoch e is the same batch however often and wherever it is asked for.

    On several processes a step's global batch is shared out: rank r takes its r-th part, which is what a process alone
    has as its batch s · world + r, to accumulate the gradients of `world` such batches. An incomplete last global batch
    is dropped where there is a full one.

    Args:
        labels: (n,) class of each training row, as training sees it.
        rows: (n,) the training rows.
        batch: faces per step and process.
    """

    def __init__(
        self, labels: np.ndarray, rows: np.ndarray, balance: Balance, batch: int, seed: int, rank: int, world: int
    ) -> None:
        self.labels, self.rows, self.balance = labels, rows, balance
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0
        self.first = 0  # the step at which the epoch begins: more than 0 only where a fit is resumed in its middle
        n = int(balance.counts(np.bincount(labels)).sum())
        self.steps = max(1, n // (batch * world))
        self.batch = min(batch * world, n)  # faces per step, all processes together

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch's, from its beginning."""
        self.epoch, self.first = epoch, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[BatchSpec]:
        epoch, first = self.epoch, self.first
        order, turns = self.balance.draw(self.labels, self.rows, self.seed, epoch)
        for step in range(first, self.steps):
            together = np.arange(step * self.batch, (step + 1) * self.batch)
            mine = np.resize(together, (self.world, -(-len(together) // self.world)))[self.rank]
            turn = None if self.balance.rotate_to is None else turns[mine]
            yield BatchSpec(order[mine], epoch, step * self.world + self.rank, turn=turn)


class Stateless:
    """A loader whose place in the training is the trainer's; without these methods Lightning warns when it resumes."""

    def state_dict(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load."""


class TrainLoader(Stateless, DataLoader[Batch]):
    """A loader that begins each epoch where `place` says when its first batch is asked for.

    Not earlier: Lightning makes the first iterator before it knows the epoch, and workers would fetch ahead of that.

    Args:
        place: (epoch, step) that comes next; None: what `set_epoch` said last, from its beginning.
    """

    sampler: TrainBatches

    def __init__(
        self,
        faces: PackedFaces,
        batches: TrainBatches,
        place: Callable[[], tuple[int, int]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(faces, sampler=batches, batch_size=None, **options)
        self.place = place

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self.place is not None:
            self.sampler.epoch, self.sampler.first = self.place()
        yield from super().__iter__()


def eval_batches(rows: np.ndarray, batch: int, rank: int, world: int) -> Sequence[BatchSpec]:
    """Rows in order; on several processes rank r takes every `world`-th batch from r on.

    They are the batches of one process, on which what a model draws for a face in validation may depend. Ranks get
    equally many: where there are too few, some get the first once more, marked `again`.
    """
    starts = list(range(0, len(rows), batch))
    batches = [BatchSpec(rows[start : start + batch], 0, number) for number, start in enumerate(starts)]
    more = [replace(batches[0], again=True)] * (-len(batches) % world) if batches else []
    return [*batches, *more][rank::world]


def loader_options(workers: int) -> dict[str, Any]:
    """Options of a `DataLoader` that training and evaluation share.

    The generator is the loader's own: the global one is left to the model, for instance for dropout.
    """
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "generator": torch.Generator(),
        "collate_fn": _as_it_is,
    }


def _as_it_is(batch: Batch) -> Batch:
    """The default would make tensors of the changes, and they would be sent to the device, where none are needed."""
    return batch
