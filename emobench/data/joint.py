"""Joint training on several datasets: labels over the union of their emotions, and masks of what each knows.

Choi et al. 2018 (StarGAN), section 3.2. A batch is of one dataset; the order of the datasets is random, and an epoch
passes once over each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch

from emobench.data.datamodule import EmotionDataModule
from emobench.data.loaders import Batch, Stateless, TrainLoader
from emobench.emotions import EMOTIONS
from emobench.recipe import Recipe


class Joint(L.LightningDataModule):
    """Batches as of one dataset, with `emotions` (N, K) over the union of their emotions, and two masks.

    `mask` (N, K) is 1 where the face's dataset knows the emotion; `dataset` (N, n) is one-hot over the n datasets.

    Args:
        parts: the datasets, at one size.
    """

    def __init__(self, parts: Sequence[EmotionDataModule]) -> None:
        super().__init__()
        self.parts = list(parts)
        self.emotions = tuple(each for each in EMOTIONS if any(each in part.emotions for part in parts))
        self._seed = 0

    def feed(self, *, recipe: Recipe, seed: int, workers: int = 0, permuted: bool = False) -> None:
        """How the loaders feed the training that follows; see `EmotionDataModule.feed`."""
        self._seed = seed
        for part in self.parts:
            part.feed(recipe=recipe, seed=seed, workers=workers, permuted=permuted)

    def steps_per_epoch(self, recipe: Recipe, world: int = 1) -> int:
        """Batches of one epoch."""
        return sum(part.steps_per_epoch(recipe, world) for part in self.parts)

    def faces_per_epoch(self, recipe: Recipe) -> int:
        """Faces that training sees in one epoch under a recipe, on one process, of all datasets together."""
        return sum(part.faces_per_epoch(recipe) for part in self.parts)

    def prepare_data(self) -> None:
        """Lightning calls this in one process per node."""
        for part in self.parts:
            part.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Lightning calls this in every process."""
        for part in self.parts:
            part.trainer = self.trainer
            part.prepare()

    def train_dataloader(self) -> Interleaved:
        """Balanced, shuffled, augmented; needs `feed()`."""
        place = None if self.trainer is None else self.parts[0].place
        together: Any = 1 if self.trainer is None else self.trainer.lightning_module.micro_batches
        return Interleaved([part.train_dataloader() for part in self.parts], self._seed, place, together)

    def val_dataloader(self) -> OneAfterTheOther:
        """The validation splits in row order."""
        return OneAfterTheOther([part.val_dataloader() for part in self.parts])

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """What the dataset itself does where the batch has come to; then its labels over the union, and the masks."""
        number = batch.pop("part")
        part = self.parts[number]
        batch = part.on_after_batch_transfer(batch, dataloader_idx)
        own = batch["emotions"]  # (N, k)
        places = torch.tensor([self.emotions.index(each) for each in part.emotions], device=own.device)
        empty = own.new_zeros(len(own), len(self.emotions))
        batch["emotions"] = empty.index_copy(1, places, own)
        batch["mask"] = empty.index_fill(1, places, 1.0)
        batch["dataset"] = own.new_zeros(len(own), len(self.parts))  # (N, n)
        batch["dataset"][:, number] = 1
        return batch


class Interleaved(Stateless):
    """The batches of several loaders in an order that follows from the seed and the epoch alone.

    Args:
        place: (epoch, step) that comes next; None: epoch 0 from its beginning.
        together: batches that make one step of an optimiser, and so are of one loader; what is left of each comes last.
    """

    def __init__(
        self,
        loaders: Sequence[TrainLoader],
        seed: int,
        place: Callable[[], tuple[int, int]] | None,
        together: int = 1,
    ) -> None:
        self.loaders, self.seed, self.place, self.together = list(loaders), seed, place, together

    def __len__(self) -> int:
        return sum(len(loader) for loader in self.loaders)

    def order(self, epoch: int) -> np.ndarray:
        """(batches,) which loader each batch of an epoch is of."""
        each = np.arange(len(self.loaders))
        whole, rest = np.divmod([len(loader) for loader in self.loaders], self.together)
        steps = np.random.default_rng((self.seed, epoch, 0x517CC1B7)).permutation(np.repeat(each, whole))
        return np.concatenate([np.repeat(steps, self.together), np.repeat(each, rest)])

    def __iter__(self) -> Iterator[Batch]:
        epoch, step = (0, 0) if self.place is None else self.place()
        order = self.order(epoch)
        iterators = []
        for part, loader in enumerate(self.loaders):
            behind = int((order[:step] == part).sum())
            loader.place = lambda at=(epoch, behind): at
            iterators.append(iter(loader))
        for part in order[step:].tolist():
            yield {**next(iterators[part]), "part": part}


class OneAfterTheOther:
    """The batches of several loaders, each marked with its loader."""

    def __init__(self, loaders: Sequence[torch.utils.data.DataLoader[Batch]]) -> None:
        self.loaders = list(loaders)

    def __len__(self) -> int:
        return sum(len(loader) for loader in self.loaders)

    def __iter__(self) -> Iterator[Batch]:
        for part, loader in enumerate(self.loaders):
            for batch in loader:
                yield {**batch, "part": part}
