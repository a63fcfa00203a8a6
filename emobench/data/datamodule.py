"""EmotionDataModule: index → split → balance → pack → loaders. A dataset adds `index()`, and `read()` if it must."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from emobench.data.augment import augmenter
from emobench.data.images import is_archive, read_face
from emobench.data.loaders import Balance, Batch, Faces, TrainBatches, TrainLoader, eval_batches
from emobench.data.pack import default_cache, published, read_pack, write_pack
from emobench.data.split import SPLITS, complete
from emobench.emotions import EMOTIONS, in_canonical_order
from emobench.errors import DatasetError, RowError
from emobench.recipe import Recipe

_COLUMNS = ("id", "source", "label", "subject", "split")


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
        folder: `<data root>/<dataset>/`; None for drawn faces.
        size: side of the faces that are packed and served (the evaluation size), px.
        cache: where packs and indices are kept; None: `default_cache()`.
        settings: the dataset's own arguments that change its rows or pixels: part of the fingerprint.

    Attributes:
        emotions: the K classes, in canonical order.
        fingerprint: SHA-256 of the index after the split, the sources' content and the settings.
        faces: one row a face; its RangeIndex is the row of the pack. `id`, `source`, `label` (into `emotions`),
            `subject`, `split`, further columns of the dataset, and after `prepare()` `hash`, of the pixels at the
            source's resolution.
        images: uint8 (N, C, size, size), a read-only memory map; C is 1 for gray faces.
        notes: what the loader decided or left out.
    """

    name: str  # of the class; no ClassVar because Lightning declares it without
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    family: ClassVar[str | None] = None
    expects: ClassVar[str] = ""  # how the files must lie below the folder; "": needs none
    classes: ClassVar[tuple[str, ...] | None] = None  # K classes by definition; None: those that occur

    emotions: tuple[str, ...]
    fingerprint: str
    faces: pd.DataFrame
    images: np.ndarray

    def __init__(
        self, *, folder: Path | None = None, size: int = 48, cache: Path | None = None, **settings: Any
    ) -> None:
        super().__init__()
        self.folder = None if folder is None else Path(folder)
        self.size = size
        self.cache = default_cache() if cache is None else Path(cache)
        self.settings = {"class": type(self).__qualname__, **settings}
        self.notes: list[str] = []
        self._feed: _Feed | None = None

    # ---- what a dataset says -------------------------------------------------------------------------------------

    def sources(self) -> list[Path]:
        """The files whose content determines the dataset."""
        return []

    @abstractmethod
    def index(self) -> pd.DataFrame:
        """One row a face.

        `id` (str, unique), `source` (str, relative to the folder), `label` (a canonical emotion), `subject` (str or
        None), `split` ("train", "val", "test", or None: to be drawn), and any further columns. A column `hash`
        (`pack.pixel_hash`) keeps pixel-equal faces on one side of a split drawn here; without it, equal files do.
        """

    def read(self, row: Any) -> np.ndarray:
        """One face, uint8 (C, h, w) with C 1 or 3, for a row of the index; here the image file `row.source`.

        Raises:
            RowError: the face cannot be read.
        """
        return read_face(self.located() / row.source)

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
            DatasetError: there is none; says what is expected, or which archive to unpack.
        """
        place = self.folder
        if place is None:
            raise DatasetError(f"{self.name} needs a folder. Expected there: {self.expects}")
        if place.is_dir():
            return place
        if place.is_file():
            raise DatasetError(f"{place}: a file where a folder is expected. If it is an archive, unpack it first")
        beside = sorted(place.parent.glob(f"{place.name}.*"))
        if packed := [path.name for path in beside if is_archive(path)]:
            raise DatasetError(f"{self.name}: no folder {place}, only {', '.join(packed)}. Unpack it first, to {place}")
        raise DatasetError(f"{self.name}: no folder {place}. Expected there: {self.expects}")

    def plan(self) -> Self:
        """Index, split, emotions, fingerprint and counts, without decoding the faces; idempotent, cached."""
        if hasattr(self, "fingerprint"):
            return self
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.sources()]
        key = _digest([files, str(self.folder and self.folder.resolve()), self.settings, self._code()])
        folder = self.cache / "plans" / key
        if not folder.is_dir():
            faces, made = self._make_plan(files)
            with published(folder) as scratch:
                faces.to_parquet(scratch / "faces.parquet")
                (scratch / "plan.json").write_text(json.dumps(made))
        state = json.loads((folder / "plan.json").read_text())
        self.notes = state["notes"]
        self.emotions = tuple(state["emotions"])
        self.faces = pd.read_parquet(folder / "faces.parquet")
        self.fingerprint = state["fingerprint"]
        return self

    def prepare(self) -> None:
        """`plan()`, and the faces packed at `size`; idempotent, the second time from the cache.

        Raises:
            DatasetError: the dataset is missing, malformed, or has faces that cannot be read.
        """
        self.plan()
        if hasattr(self, "images"):
            return
        folder = self.cache / "packs" / _digest([self.fingerprint, self.size, self._code()])
        if not folder.is_dir():
            title = f"packing {self.name} at {self.size} px"
            write_pack(folder, lambda: self.read_many(self.faces), len(self.faces), self.size, title)
        images, self.faces["hash"] = read_pack(folder)
        self.images = images

    def counts(self) -> dict[str, dict[str, int]]:
        """Faces per split and emotion, absent ones as 0."""
        table = pd.crosstab(self.faces["split"], self.faces["label"])
        table = table.reindex(index=SPLITS, columns=range(len(self.emotions)), fill_value=0)
        return {split: dict(zip(self.emotions, map(int, table.loc[split]), strict=True)) for split in SPLITS}

    def leaked(self) -> np.ndarray:
        """(N,) bool: a test face pixel-equal, at the source's resolution, to one of training or validation."""
        test = self.faces["split"] == "test"
        seen = set(self.faces.loc[~test, "hash"])
        return np.asarray(test & self.faces["hash"].isin(seen))

    def _make_plan(self, files: list[tuple[str, int, int]]) -> tuple[pd.DataFrame, dict[str, Any]]:
        """`faces` without the hashes, and notes, emotions and fingerprint."""
        index = self._checked(self.index())
        hashes = self._file_hashes(files)
        twin = index["id"]
        if "hash" in index:
            twin = index.pop("hash")
        elif index["source"].is_unique and self.folder is not None:
            twin = index["source"].map({str(path): digest for path, digest in hashes.items()})
        split, notes = complete(index.assign(twin=twin), self.folder or self.name)
        emotions = self.classes or in_canonical_order(set(index["label"]))
        faces = index.assign(split=split, label=index["label"].map(emotions.index).astype(np.int64))
        for name in SPLITS:
            present = set(faces.loc[faces["split"] == name, "label"])
            if absent := [emotion for k, emotion in enumerate(emotions) if k not in present]:
                notes.append(f"{name} has no face of {', '.join(absent)}, which counts 0 in macro F1")
        content = [faces.to_csv(index=False), sorted(hashes.items()), self.settings, emotions]
        return faces, {"notes": self.notes + notes, "emotions": emotions, "fingerprint": _digest(content)}

    def _checked(self, index: pd.DataFrame) -> pd.DataFrame:
        """The index with its columns in order and rows numbered from 0; refused where it is not what it must be."""
        place = self.folder or self.name
        if missing := set(_COLUMNS) - set(index.columns):
            raise DatasetError(f"{place}: the index lacks {', '.join(sorted(missing))}")
        if index.empty:
            raise DatasetError(f"{place}: no faces. Expected there: {self.expects}")
        if wrong := set(index["label"]) - set(self.classes or EMOTIONS):
            raise DatasetError(f"{place}: labels outside the dataset's emotions: {', '.join(map(str, wrong))}")
        if wrong := set(index["split"].dropna()) - set(SPLITS):
            raise DatasetError(f"{place}: splits other than {', '.join(SPLITS)}: {', '.join(map(str, wrong))}")
        if index["label"].nunique() < 2:
            raise DatasetError(f"{place}: all faces show {index['label'][0]}. Two emotions are the least to tell apart")
        if not index["id"].is_unique:
            raise DatasetError(f"{place}: several faces have the id {index['id'][index['id'].duplicated()].iloc[0]}")
        further = [column for column in index.columns if column not in _COLUMNS]
        return index[[*_COLUMNS, *further]].reset_index(drop=True)

    def _file_hashes(self, files: list[tuple[str, int, int]]) -> dict[str, str]:
        """Relative path -> SHA-256, remembered by path, size and time of the last change."""
        if self.folder is None:
            return {}
        memory = self.cache / "sha256" / f"{_digest(str(self.folder.resolve()))}.json"
        known = json.loads(memory.read_text()) if memory.is_file() else {}
        fresh = {}
        for path, size, changed in files:
            relative = Path(path).relative_to(self.folder).as_posix()
            entry = known.get(relative)
            if entry is None or entry[:2] != [size, changed]:
                with open(path, "rb") as file:
                    entry = [size, changed, hashlib.file_digest(file, "sha256").hexdigest()]
            fresh[relative] = entry
        if fresh != known:
            memory.parent.mkdir(parents=True, exist_ok=True)
            scratch = memory.with_name(f".{memory.name}-{os.getpid()}")
            scratch.write_text(json.dumps(fresh))
            scratch.replace(memory)
        return {relative: entry[2] for relative, entry in fresh.items()}

    @classmethod
    def _code(cls) -> str:
        """SHA-256 of the dataset's module and of the emobench modules that it takes names from, directly or not.

        A changed loader must not be answered from the cache.
        """
        pending, sources = [cls.__module__], {}
        while pending:
            name = pending.pop()
            if name in sources or not (name == cls.__module__ or name.startswith("emobench.")):
                continue
            module = sys.modules[name]
            file = getattr(module, "__file__", None)
            sources[name] = Path(file).read_text() if file else ""
            for value in vars(module).values():
                origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
                if isinstance(origin, str):
                    pending.append(origin)
        return _digest(sorted(sources.items()))

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
        rows = self._rows("train")
        return len(TrainBatches(self._labels()[rows], rows, _balance(recipe), recipe.batch, 0, 0, world))

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
        faces = Faces(self.images, self._targets(), augmenter(feed.recipe.augment), feed.seed)
        return TrainLoader(faces, batches, None if self.trainer is None else self._place, **_options(feed.workers))

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
        faces = Faces(self.images, self._targets(), None, 0)
        return DataLoader(faces, sampler=picks, batch_size=None, **_options(workers))

    def _fed(self) -> _Feed:
        if self._feed is None:
            raise RuntimeError("call feed() before asking for what training sees")
        return self._feed

    def _rows(self, split: str) -> np.ndarray:
        """(n,) int64 rows of the pack, ascending."""
        return np.flatnonzero(self.faces["split"] == split)

    def _labels(self) -> np.ndarray:
        """(N,) the classes as training sees them: permuted within training and validation for the control."""
        labels = np.array(self.faces["label"])
        if self._feed is not None and self._feed.permuted:
            random = np.random.default_rng((self._feed.seed, 0x9E3779B9))  # a stream apart from the epochs'
            for split in ("train", "val"):
                rows = self._rows(split)
                labels[rows] = labels[random.permutation(rows)]
        return labels

    def _targets(self) -> np.ndarray:
        """(N, K) float32, one-hot."""
        return np.asarray(np.eye(len(self.emotions), dtype=np.float32)[self._labels()])

    def _place(self) -> tuple[int, int]:
        """(epoch, step) of the trainer's next batch, right also after it has loaded a checkpoint from within an epoch.

        Its progress counts batches as `ready` before it counts anything else, and a restart sets that to the finished.
        """
        assert self.trainer is not None
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _rank(self) -> tuple[int, int]:
        """(this process, processes) of the trainer, (0, 1) without one."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _balance(recipe: Recipe) -> Balance:
    return Balance(recipe.oversample, recipe.undersample)


def _options(workers: int) -> dict[str, Any]:
    """What all loaders share. Their generator is their own: the global one is left to the model, e.g. for dropout."""
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "generator": torch.Generator(),
    }


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()
