"""EmotionDataModule: index → audit → split → balance → pack → loaders. A dataset adds `index()`, perhaps `read()`."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypedDict, Unpack

import lightning as L
import numpy as np
import pandas as pd
import torch
from annotated_types import Ge, Le
from torch.utils.data import DataLoader

from emobench.data.audit import by_name_and_size, leaked
from emobench.data.augment import active
from emobench.data.content import digest, listing
from emobench.data.loaders import Balance, Batch, Faces, TrainBatches, TrainLoader, eval_batches, finish
from emobench.data.pack import alone, default_cache, read_images, read_records, write_pack
from emobench.data.readers.images import cut, is_archive, read_face
from emobench.data.split import SPLITS
from emobench.data.survey import Survey, checked, survey
from emobench.errors import DatasetError, DatasetMissing, RowError
from emobench.recipe import Recipe
from emobench.definitions.roots import digest_of

BOX = ("left", "top", "right", "bottom")  # columns of an index whose faces are cut out of pictures, px
RESIDENT_BYTES = 4 * 2**30  # a larger pack stays on the host: a small share of the memory of a GPU that one trains on
SOFT = "soft_"  # with an emotion, a column of an index with soft labels: its share


class DataArguments(TypedDict, total=False):
    """Keyword arguments of every dataset that lies on disk, beside its own."""

    folder: Path | None
    size: Annotated[int, Ge(1)]  # evaluation size, px
    cache: Path | None
    max_bad: Annotated[float, Ge(0), Le(1)]  # the dataset is refused where a larger share of its faces is unreadable


DEFAULTS = DataArguments(folder=None, size=48, cache=None, max_bad=0.01)


@dataclass(frozen=True)
class _Feed:
    """How the loaders feed the training that follows; see `EmotionDataModule.feed`."""

    recipe: Recipe
    seed: int
    workers: int
    permuted: bool


class EmotionDataModule(L.LightningDataModule, ABC):
    """Faces with emotions, split, packed and served.

    A dataset is one subclass in one file. `prepare()` makes everything below ready; the user's folder is only read.

    Args:
        settings: the dataset's own arguments that change its rows or pixels: part of the fingerprint.
        folder: `<data root>/<dataset>/`; None for drawn faces.
        size: side of the faces that are packed and served (the evaluation size), px.
        cache: where packs and indices are kept; None: `default_cache()`.
        max_bad: the dataset is refused where a larger share of its faces cannot be read.

    Attributes:
        emotions: the K classes, in canonical order.
        fingerprint: SHA-256 of the index after the split, the pixels' hashes and the settings.
        faces: one row a face; its RangeIndex is the row of the pack. `id`, `source`, `label` (into `emotions`),
            `subject`, `split` ("excluded" where the face cannot be read), further columns of the dataset, and `hash`,
            of the pixels at the source's resolution; of drawn faces only after `prepare()`.
        images: uint8 (N, C, size, size), a read-only memory map; C is 1 for gray faces.
        notes: what the loader decided or left out.
        audit: see `audit.findings`.
        listings: source -> digest of the names, sizes and times of its files.
    """

    name: str  # of the class; no ClassVar because Lightning declares it without
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    family: ClassVar[str | None] = None
    expects: ClassVar[str] = ""  # how the files must lie below the folder; "": needs none
    classes: ClassVar[tuple[str, ...] | None] = None  # K classes by definition; None: those that occur
    together: ClassVar[tuple[str, ...]] = ("hash",)  # columns of which equal values never cross a split drawn here

    emotions: tuple[str, ...]
    fingerprint: str
    faces: pd.DataFrame
    images: np.ndarray
    audit: dict[str, Any]
    listings: dict[str, str]

    def __init__(self, settings: Mapping[str, Any], **common: Unpack[DataArguments]) -> None:
        super().__init__()
        given = DataArguments(**{**DEFAULTS, **common})
        self.folder = None if given["folder"] is None else Path(given["folder"])
        self.size = given["size"]
        self.cache = default_cache() if given["cache"] is None else Path(given["cache"])
        self.max_bad = given["max_bad"]
        self.settings = {"class": type(self).__qualname__, **settings}
        self.fold: tuple[int, int] | None = None  # which part is the test split, of how many by subject
        self.notes: list[str] = []
        self._feed: _Feed | None = None
        self._last: tuple[Path, np.ndarray] | None = None  # picture read last
        self._resident: torch.Tensor | None = None  # all faces, on the trainer's device

    @classmethod
    def argument_defaults(cls) -> DataArguments:
        """Every argument that datasets share, with the value that it has where nothing else is said."""
        return DEFAULTS

    # ---- what a dataset says -------------------------------------------------------------------------------------

    def sources(self) -> list[Path]:
        """The files, and the folders of files, that determine the dataset."""
        return []

    @abstractmethod
    def index(self) -> pd.DataFrame:
        """One row a face.

        `id` (str, unique), `source` (str, relative to the folder), `label` (a canonical emotion), `subject` (str or
        None), `split` ("train", "val", "test", or None: to be drawn), and any further columns, among which `BOX` and
        soft labels (`SOFT` and the emotion) have a meaning.
        """

    def read(self, row: Any) -> np.ndarray:
        """One face, uint8 (C, h, w) with C 1 or 3, for a row of the index; here from the image file `row.source`.

        Raises:
            RowError: the face cannot be read.
        """
        path = self.located() / row.source
        if not hasattr(row, BOX[0]):
            return read_face(path)
        return cut(path, self._picture(path), *(round(getattr(row, side)) for side in BOX))

    def _picture(self, path: Path) -> np.ndarray:
        """A picture in which several faces may lie, one after the other."""
        if self._last is None or self._last[0] != path:
            self._last = path, read_face(path, upright=False)
        return self._last[1]

    def read_many(self, rows: pd.DataFrame) -> Iterator[np.ndarray | RowError]:
        """The faces of rows of the index in their order, or for a face that cannot be read the error that says why."""
        for row in rows.itertuples():
            try:
                yield self.read(row)
            except RowError as error:
                yield error

    # ---- what every dataset has ----------------------------------------------------------------------------------

    def located(self) -> Path:
        """The dataset's folder.

        Raises:
            DatasetMissing: there is none; says what is expected, or which archive to unpack.
        """
        place = self.folder
        if place is None:
            raise DatasetMissing(f"{self.name} needs a folder. Expected there: {self.expects}")
        if place.is_dir():
            return place
        if place.is_file():
            raise DatasetMissing(f"{place}: a file where a folder is expected. If it is an archive, unpack it first")
        beside = sorted(place.parent.glob(f"{place.name}.*"))
        if packed := [path.name for path in beside if is_archive(path)]:
            raise DatasetMissing(
                f"{self.name}: no folder {place}, only {', '.join(packed)}. Unpack it first, to {place}"
            )
        raise DatasetMissing(f"{self.name}: no folder {place}. Expected there: {self.expects}")

    def plan(self, *, pixels: bool = True) -> Self:
        """Index, audit, split, emotions, fingerprint and counts; idempotent, the second time from the cache.

        The audit decodes every face of a dataset on disk, and packs it on the way; drawn faces need none.

        Args:
            pixels: False: look at names and sizes alone, for a first overview of a large dataset.

        Raises:
            DatasetError: the dataset is missing or malformed, or more than `max_bad` of its faces cannot be read.
        """
        if hasattr(self, "fingerprint"):
            return self
        self.listings = {str(path.resolve()): listing(path) for path in self.sources()}
        key = digest([self.listings, self.settings, self._code(), pixels])
        folder = self.cache / "plans" / key
        if not folder.is_dir():
            with alone(self.cache, f"plan-{key}", f"reading {self.name}"):
                if not folder.is_dir():  # not made by another process meanwhile
                    self._survey(key, pixels).write(folder)
        survey = Survey.read(folder)
        if survey.unreadable > self.max_bad:
            raise DatasetError(self._refusal(survey))
        if not survey.usable:  # it was refused before, under a smaller limit, and has no split
            shutil.rmtree(folder)
            return self.plan(pixels=pixels)
        self.faces, self.emotions, self.notes = survey.faces, survey.emotions, survey.notes
        self.audit, self.fingerprint = survey.audit, survey.fingerprint
        return self

    def prepare(self) -> None:
        """`plan()`, and the faces packed at `size`; idempotent, the second time from the cache.

        Raises:
            DatasetError: the dataset is missing, malformed, or changed while it was read.
        """
        self.plan()
        if hasattr(self, "images"):
            return
        folder = self._pack(self.fingerprint)
        if not folder.is_dir():
            write_pack(folder, self.read_many, self.faces, self.size, f"packing {self.name} at {self.size} px")
        if "hash" not in self.faces:
            self.faces["hash"] = read_records(folder)["hash"]
        elif not self.faces["hash"].equals(read_records(folder)["hash"]):
            shutil.rmtree(folder)
            raise DatasetError(f"{self.folder}: faces changed while they were read. Run the same command again")
        self.images = read_images(folder)
        self._forget()

    def _pack(self, content: str) -> Path:
        """Where the faces of this content lie, packed at `size`."""
        return self.cache / "packs" / digest([content, self.size, self._code()])

    def counts(self) -> dict[str, dict[str, int]]:
        """Faces per split and emotion, absent ones as 0."""
        table = pd.crosstab(self.faces["split"], self.faces["label"])
        table = table.reindex(index=SPLITS, columns=range(len(self.emotions)), fill_value=0)
        return {split: dict(zip(self.emotions, map(int, table.loc[split]), strict=True)) for split in SPLITS}

    def counted(self) -> list[str]:
        """A line a split: how many faces, of each emotion."""
        return [
            f"{split} {sum(of.values()):,}: " + ", ".join(f"{emotion} {n:,}" for emotion, n in of.items())
            for split, of in self.counts().items()
        ]

    def described(self, name: str) -> dict[str, Any]:
        """What a result says of the dataset, which goes by `name` in its suite."""
        return {
            "name": name,
            "size": self.size,
            "fingerprint": self.fingerprint,
            "emotions": list(self.emotions),
            "counts": self.counts(),
            "notes": list(self.notes),
            "audit": {finding: n for finding, n in self.audit.items() if isinstance(n, int)},
        }

    def leaked(self) -> np.ndarray:
        """(N,) bool: a test face pixel-equal, at the source's resolution, to one of training or validation."""
        return leaked(self.faces)

    def _survey(self, key: str, pixels: bool) -> Survey:
        """The dataset indexed, audited and split; what was packed on the way is kept under its content."""
        place = self.folder or self.name
        index = checked(self.index(), self.classes, place, self.expects)
        on_the_way = self.cache / "packs" / f"{key}-{self.size}"
        if not self.expects:
            records = pd.DataFrame(index=index.index)
        elif pixels:
            write_pack(on_the_way, self.read_many, index, self.size, f"reading {self.name}")
            records = read_records(on_the_way)
        else:
            records = by_name_and_size(self.located(), index["source"])
        top = "" if self.folder is None else f"{self.located()}/"
        found = survey(
            index,
            records,
            place=place,
            top=top,
            classes=self.classes,
            settings=self.settings,
            max_bad=self.max_bad,
            fold=self.fold,
            together=self.together,
        )
        found.notes[:0] = self.notes
        pack = self._pack(found.fingerprint)
        if on_the_way.is_dir() and found.usable and not pack.is_dir():
            on_the_way.rename(pack)
        return found

    def _refusal(self, survey: Survey) -> str:
        bad, n = survey.audit["excluded"], survey.audit["faces"]
        some = list(survey.audit["excluded_faces"].values())[:10]
        lines = "\n".join(f"  {problem}" for problem in some) + ("\n  …" if bad > len(some) else "")
        remedy = f"Mend or remove them, or set max_bad above {self.max_bad:g}; `emobench data check` lists them"
        return f"{self.folder}: {bad:,} of {n:,} faces cannot be read, more than max_bad allows. {remedy}:\n{lines}"

    def _forget(self) -> None:
        """What only index and read were made from, such as a parsed table of all faces."""
        for cls in type(self).__mro__:
            for name, member in vars(cls).items():
                if isinstance(member, cached_property):
                    vars(self).pop(name, None)

    @classmethod
    def _code(cls) -> str:
        """The digest of the dataset's code: a changed loader must not be answered from the cache."""
        return digest_of(cls)

    # ---- how training is fed -------------------------------------------------------------------------------------

    def feed(self, *, recipe: Recipe, seed: int, workers: int = 0, permuted: bool = False) -> None:
        """How the loaders feed the training that follows.

        Args:
            recipe: batch, balance and augmentation.
            seed: of the order of the faces and of their augmentation.
            workers: processes that load; the numbers do not depend on it.
            permuted: a control: the labels of training and of validation are permuted, each within its split.
        """
        self._feed = _Feed(recipe, seed, workers, permuted)

    def class_weights(self) -> np.ndarray:
        """(K,) float32: n / (classes present · n_k) of the labels that an epoch of training sees; absent: 0.

        scikit-learn's 'balanced' (King and Zeng 2001).
        """
        feed = self._fed()
        rows = self._rows("train")
        available = np.bincount(self._labels()[rows], minlength=len(self.emotions))
        seen = _balance(feed.recipe).counts(available)
        weights = np.zeros(len(seen), np.float32)
        present = seen > 0
        weights[present] = seen.sum() / (present.sum() * seen[present])
        return weights

    def steps_per_epoch(self, recipe: Recipe, world: int = 1) -> int:
        """Optimiser steps of one epoch under a recipe, on `world` processes."""
        return len(self._batches(recipe, world))

    def faces_per_epoch(self, recipe: Recipe) -> int:
        """Faces that training sees in one epoch under a recipe, on one process; repeated ones count each time."""
        batches = self._batches(recipe, 1)
        return len(batches) * batches.batch

    def _batches(self, recipe: Recipe, world: int) -> TrainBatches:
        rows = self._rows("train")
        return TrainBatches(self._labels()[rows], rows, _balance(recipe), recipe.batch, 0, 0, world)

    def prepare_data(self) -> None:
        """Lightning calls this in one process per node, before the others look for the pack."""
        self.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Lightning calls this in every process."""
        self.prepare()

    def train_dataloader(self) -> TrainLoader:
        """Balanced, shuffled, augmented; needs `feed()`."""
        feed = self._fed()
        rank, world = self._rank()
        rows = self._rows("train")
        balance = _balance(feed.recipe)
        batches = TrainBatches(self._labels()[rows], rows, balance, feed.recipe.batch, feed.seed, rank, world)
        augment = feed.recipe.augment
        changes = active(augment) or balance.rotate_to is not None
        resident = self._is_resident() and not (changes and augment.backend == "albumentations")
        faces = Faces(self.images, self._targets(), augment, feed.seed, on_device=self._on_device(), resident=resident)
        options = _options(0 if resident else feed.workers)
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
        picks = eval_batches(self._rows(split), batch, *self._rank())
        resident = self._is_resident()
        faces = Faces(self.images, self._targets(), None, 0, on_device=self._on_device(), resident=resident)
        return DataLoader(faces, sampler=picks, batch_size=None, **_options(0 if resident else workers))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning calls this where the batch has come to: what the loaders left to the device is done here."""
        if "image" in batch and "changes" not in batch and batch["image"].shape[1] == 3:
            return batch
        return finish(batch, None if "image" in batch else self._all_on(batch["index"].device))

    def _on_device(self) -> bool:
        """Whether the trainer's device finishes the batches: a GPU does, on a CPU the loader does as well."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _is_resident(self) -> bool:
        """Whether the device holds all faces, and no loader stands in the way."""
        return self._on_device() and self.images.nbytes <= RESIDENT_BYTES

    def _all_on(self, device: torch.device) -> torch.Tensor:
        """uint8 (N, C, size, size) on a device."""
        if self._resident is None or self._resident.device != device:
            self._resident = torch.from_numpy(np.array(self.images)).to(device)
        return self._resident

    def _fed(self) -> _Feed:
        if self._feed is None:
            raise RuntimeError("call feed() before asking for what training sees")
        return self._feed

    def _rows(self, split: str) -> np.ndarray:
        """(n,) int64 rows of the pack, ascending."""
        return np.flatnonzero(self.faces["split"] == split)

    def _labels(self) -> np.ndarray:
        """(N,) the classes as training sees them."""
        labels = np.asarray(self.faces["label"], np.int64)
        return np.asarray(labels[self._seen_as()])

    def _targets(self) -> np.ndarray:
        """(N, K) float32 as training sees them: one-hot, or soft where the dataset says so."""
        soft = [SOFT + emotion for emotion in self.emotions]
        if set(soft) <= set(self.faces.columns):
            targets = self.faces[soft].to_numpy(np.float32)
        else:
            targets = np.eye(len(self.emotions), dtype=np.float32)[self.faces["label"]]
        return np.asarray(targets[self._seen_as()])

    def _seen_as(self) -> np.ndarray:
        """(N,) the row whose label a row has: its own, or a permuted one within training and validation (control)."""
        rows = np.arange(len(self.faces))
        if self._feed is not None and self._feed.permuted:
            random = np.random.default_rng((self._feed.seed, 0x9E3779B9))  # a stream apart from the epochs'
            for split in ("train", "val"):
                rows[self._rows(split)] = random.permutation(self._rows(split))
        return rows

    def place(self) -> tuple[int, int]:
        """(epoch, step) of the trainer's next batch, right also after it has loaded a checkpoint from within an epoch.

        Its progress counts batches as `ready` before it counts anything else, and a restart sets that to the finished.
        """
        assert self.trainer is not None
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _rank(self) -> tuple[int, int]:
        """(this process, processes) of the trainer, (0, 1) without one."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _balance(recipe: Recipe) -> Balance:
    return Balance(recipe.oversample, recipe.undersample, recipe.rotate_to, recipe.rotate_by)


def _options(workers: int) -> dict[str, Any]:
    """What all loaders share. Their generator is their own: the global one is left to the model, e.g. for dropout."""
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
