"""Dataset: index → audit → split → pack. A dataset is one subclass that says how its faces are listed and read."""

from __future__ import annotations

import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypedDict, Unpack

import numpy as np
import pandas as pd
from annotated_types import Ge, Le

from emobench.data.audit import by_name_and_size, copied, leaked
from emobench.data.content import digest, listing
from emobench.data.manifest import Manifest, checked
from emobench.data.pack import alone, default_cache, is_whole, read_copies, read_images, read_records, write_pack
from emobench.data.readers.beside import files_beside
from emobench.data.readers.files import let_read
from emobench.data.readers.images import crop, is_archive, read_face
from emobench.data.readers.labels import PROBLEM, Labels, Meaning
from emobench.data.split import SPLITS
from emobench.definitions.roots import digest_of
from emobench.errors import DatasetError, DatasetMissing, RowError, from_text

BOX = ("left", "top", "right", "bottom")  # columns of an index whose faces are cropped out of larger pictures, px
SOFT = "soft_"  # prefix of an emotion's column in an index with soft labels: its share, 0 to 1


class FileArguments(TypedDict, total=False):
    """Keyword arguments that every dataset takes beside its own, `labels` apart."""

    folder: Path | None  # where it lies; None: nowhere, its faces are drawn
    size: Annotated[int, Ge(1)]  # evaluation size, px
    cache: Path | None  # where packs and manifests are kept; None: `default_cache()`
    max_bad: Annotated[float, Ge(0), Le(1)]  # the dataset is refused where a larger share of its faces is unreadable
    ignore: str | list[str] | None  # its own names, or ids, of labels whose faces are left out and counted
    cross_validate: Annotated[int, Ge(2)] | None  # train so many networks a row, each without one part of the faces
    held_out: Annotated[int, Ge(0)] | None  # that part, from 0, as the test split; None: all, one after the other


class DataArguments(FileArguments, total=False):
    """Keyword arguments that every dataset takes beside its own."""

    labels: Labels | None  # emotion -> the dataset's own names, or ids, for it, such as { happy = "Freude" }


DEFAULTS = DataArguments(
    folder=None, size=48, cache=None, max_bad=0.01, ignore=None, cross_validate=None, held_out=None, labels=None
)


class Dataset(ABC):
    """Faces with emotions: listed, audited, split, and packed at one size. The user's folder is only read.

    Subclasses define `index()`, `read()` or `read_many()` where the faces are no image files, and `sources()`.
    `plan()` makes everything below ready but `images`, and `prepare()` that too.

    Args:
        settings: the dataset's own arguments that change its rows or pixels: part of the fingerprint.
        folder: `<data root>/<dataset>/`; None for drawn faces.
        size: side of the faces as they are packed and served (the evaluation size), px.
        cache: where packs and manifests are kept; None: `default_cache()`.
        max_bad: the dataset is refused where a larger share of its faces cannot be read.
        labels: emotion -> the dataset's own names, or ids, for it; they come before the usual spellings and any order.
        ignore: the dataset's own names, or ids, of labels whose faces are left out and counted.
        cross_validate: the number of parts of a cross-validation, for a dataset without an official test split: of
            every classifier one network a part is trained without it, and reads it. People and copies stay together.
        held_out: the part that is the test split, from 0; None: the whole, every face a test face.

    Raises:
        SuiteError: `labels` or `ignore` name no emotion, or one name twice.
        DatasetError: `held_out` is not below `cross_validate`.

    Attributes:
        meaning: of the dataset's own names, as `labels` and `ignore` say.
        emotions: the K classes, in canonical order.
        fingerprint: SHA-256 of the index after the split, the pixels' hashes, the settings and the emotions.
        faces: one row a face; its RangeIndex is the row of the pack. `id`, `source`, `label` (into `emotions`),
            `subject`, `split` ("excluded" where the face cannot be read), further columns of the dataset, `hash`, of
            the pixels at the source's resolution (of drawn faces only after `prepare()`), and `copy`, equal for copies
            of a face as `copies` finds them (where pixels were looked at).
        images: uint8 (N, C, size, size), a read-only memory map; C is 1 where all faces are gray, else 3.
        notes: what was decided or left out on the way, in sentences.
        audit: see `audit.findings`.
        listings: source -> digest of the names, sizes and times of its files.
    """

    name: str  # under which suites and the command know it
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # further names, with the arguments that each presets
    family: ClassVar[str | None] = None  # the argument that follows `name` and a colon; None: there is none
    expects: ClassVar[str] = ""  # how the files must lie below the folder; "": needs none
    classes: ClassVar[tuple[str, ...] | None] = None  # K classes by definition; None: those that occur
    unless_none: ClassVar[tuple[str, ...]] = ("cross_validate", "held_out")  # in settings and keys where they are given
    together: ClassVar[tuple[str, ...]] = ("hash",)  # columns of which equal values never cross a split drawn here

    emotions: tuple[str, ...]
    fingerprint: str
    faces: pd.DataFrame
    images: np.ndarray
    audit: dict[str, Any]
    listings: dict[str, str]

    def __init__(self, settings: Mapping[str, Any], **common: Unpack[DataArguments]) -> None:
        super().__init__()  # the next base of a subclass that has one
        given = DataArguments(**{**DEFAULTS, **common})
        self.folder = None if given["folder"] is None else Path(given["folder"]).expanduser()
        self.size = given["size"]
        self.cache = default_cache() if given["cache"] is None else Path(given["cache"]).expanduser()
        self.max_bad = given["max_bad"]
        self.meaning = Meaning(given["labels"], given["ignore"])
        folds, held_out = given["cross_validate"], given["held_out"]
        if held_out is not None and held_out >= (folds or 0):
            raise DatasetError(
                f"{self.name}: held_out = {held_out}, but cross_validate = {folds or 'none'}. Parts are counted from 0"
            )
        self.cross = None if folds is None else (held_out, folds)
        told = {name: each for name in ("labels", "ignore") if (each := given.get(name))}
        told |= {name: each for name in self.unless_none if (each := given.get(name)) is not None}
        self.settings = {"class": type(self).__qualname__, **settings, **told}
        self.fold: tuple[int, int] | None = None  # (k, n): the k-th of n parts by subject is the test split
        self.notes: list[str] = []
        self._last: tuple[Path, np.ndarray] | None = None  # the picture read last, for its other faces

    @classmethod
    def argument_defaults(cls) -> DataArguments:
        """Every argument that datasets share, with its default."""
        return DEFAULTS

    # ---- what a subclass defines ---------------------------------------------------------------------------------

    def sources(self) -> list[Path]:
        """The files, and the folders of files, that determine the dataset.

        Raises:
            DatasetMissing: they are not there; says what is expected.
        """
        return []

    @abstractmethod
    def index(self) -> pd.DataFrame:
        """One row a face.

        `id` (str, unique), `source` (str, relative to the folder), `label` (an emotion by any of its spellings, or a
        name that `labels` or `ignore` may explain), `subject` (str or None), `split` ("train", "val", "test", or None:
        to be drawn), and any further columns, among which `BOX`, soft labels (`SOFT` and the emotion) and `PROBLEM`
        have a meaning.

        Raises:
            DatasetError: the files are malformed; says which, and what to do.
        """

    def read(self, row: Any) -> np.ndarray:
        """One face, uint8 (C, h, w) with C 1 or 3, for a row of the index; here from the image file `row.source`.

        Raises:
            RowError: the face cannot be read.
        """
        path = self.file(row)
        if not hasattr(row, BOX[0]):
            return read_face(path)
        return crop(path, self._picture(path), *(round(getattr(row, side)) for side in BOX))

    def file(self, row: Any) -> Path:
        """The file that a row of the index names as its source."""
        return self.located() / from_text(row.source)

    def _picture(self, path: Path) -> np.ndarray:
        """A picture in which several faces may lie: decoded once for rows that follow each other."""
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

    def source_faces(self, rows: pd.DataFrame) -> Iterator[np.ndarray]:
        """The faces of rows of the index at the size of their source, uint8 (C, h, w) each, one after the other.

        Raises:
            RowError: one cannot be read, though it could when the dataset was planned.
        """
        for face in self.read_many(rows):
            if isinstance(face, RowError):
                raise face
            yield face

    def located(self) -> Path:
        """The dataset's folder.

        Raises:
            DatasetMissing: there is none; says what is expected, or which archive to unpack.
        """
        place = self.folder
        if place is None:
            raise DatasetMissing(f"{self.name} needs a folder. Expected there: {self.expects}")
        try:
            if place.is_dir():
                return place
        except PermissionError as error:
            raise DatasetMissing(f"{place}: cannot be reached (Permission denied). {let_read(place.parent)}") from error
        if place.is_file():
            raise DatasetMissing(f"{place}: a file where a folder is expected. If it is an archive, unpack it first")
        beside = sorted(place.parent.glob(f"{place.name}.*"))
        if packed := [path.name for path in beside if is_archive(path)]:
            raise DatasetMissing(
                f"{self.name}: no folder {place}, only {', '.join(packed)}. Unpack it first, to {place}"
            )
        raise DatasetMissing(f"{self.name}: no folder {place}. Expected there: {self.expects}")

    # ---- index → audit → split -----------------------------------------------------------------------------------

    def plan(self, *, pixels: bool = True) -> Self:
        """Index, audit, split, emotions and fingerprint; idempotent, the second time from the cache.

        The audit decodes every face of a dataset on disk, and packs it on the way; drawn faces need none.

        Args:
            pixels: False: look at names and sizes alone, for a first overview of a large dataset.

        Raises:
            DatasetError: the dataset is missing or malformed, or more than `max_bad` of its faces cannot be read.
        """
        if hasattr(self, "fingerprint"):
            return self
        folder, manifest = self._examined(pixels)
        if manifest.unreadable > self.max_bad:
            raise DatasetError(self._refusal(manifest))
        if manifest.refused is not None:
            raise DatasetError(manifest.refused)
        if not manifest.usable:  # it was refused before, under a smaller limit, and has no split
            shutil.rmtree(folder)
            return self.plan(pixels=pixels)
        self.faces, self.emotions, self.notes = manifest.faces, manifest.emotions, manifest.notes
        self.audit, self.fingerprint, self._undivided = manifest.audit, manifest.fingerprint, manifest.undivided
        return self

    def examine(self, *, pixels: bool = True) -> Manifest:
        """The dataset's manifest, also where `plan` would refuse it: its audit says what is wrong.

        Args:
            pixels: see `plan`.

        Raises:
            DatasetError: the dataset is missing or malformed.
        """
        return self._examined(pixels)[1]

    def _examined(self, pixels: bool) -> tuple[Path, Manifest]:
        """Where the manifest is kept, and the manifest."""
        sources = self.sources()
        beside = (
            [] if self.folder is None else [file for path in sources for file in files_beside(path, self.located())]
        )
        self.listings = {str(path.resolve()): listing(path) for path in (*sources, *beside)}
        key = digest([self.listings, self.settings, self._code(), pixels])
        folder = self.cache / "plans" / key
        found = Manifest.kept(folder)
        if found is None:
            with alone(self.cache, f"plan-{key}", f"reading {self.name}"):
                found = Manifest.kept(folder)  # of another process meanwhile
                if found is None:
                    if folder.is_dir():
                        print(f"{folder}: damaged, and made again", file=sys.stderr)
                        shutil.rmtree(folder)
                    self._manifest(key, pixels).write(folder)
                    found = Manifest.read(folder)
        return folder, found

    def _manifest(self, key: str, pixels: bool) -> Manifest:
        """The dataset indexed, audited and split; faces decoded for the audit are kept as the pack of that content.

        Args:
            key: of the files, settings and code, since the fingerprint is not known before the faces are decoded.
            pixels: see `plan`.
        """
        place = self.folder or self.name
        index = self._labelled(self.index())
        index, told = checked(index, self.classes, place, self.expects, self.meaning)
        problems = index.pop(PROBLEM) if PROBLEM in index else None
        whole = self._whole() if self.expects and pixels else None
        decoded = self.cache / "packs" / f"{key}-{self.size}" if whole is None else self._pack(whole.undivided)
        if not self.expects:
            records = pd.DataFrame(index=index.index)
        elif pixels:
            write_pack(decoded, self.read_many, index, self.size, f"reading {self.name}")
            records = read_records(decoded)
            records["copy"] = read_copies(decoded) if whole is None else whole.faces["copy"]
        else:
            records = by_name_and_size(self.located(), index["source"])
        if problems is not None:
            seen = records.get("problem", pd.Series(None, index.index, object))
            records["problem"] = problems.map(str, na_action="ignore").where(problems.notna(), seen).astype(object)
        manifest = Manifest.make(
            index,
            records,
            place=place,
            top="" if self.folder is None else f"{self.located()}/",
            classes=self.classes,
            settings=self.settings,
            max_bad=self.max_bad,
            fold=self.fold,
            cross=self.cross,
            together=self.together,
        )
        manifest.notes[:0] = [*self.notes, *told]
        pack = self._pack(manifest.undivided)
        if decoded.is_dir() and manifest.usable and manifest.refused is None and not pack.is_dir():
            decoded.rename(pack)
        return manifest

    def _whole(self) -> Manifest | None:
        """The manifest of the cross-validation of which this dataset is a part; None: of none, or files changed."""
        if self.cross is None or self.pooled:
            return None
        whole = copy(self)
        whole.cross, whole.notes = (None, self.cross[1]), []
        whole.settings = {name: value for name, value in self.settings.items() if name != "held_out"}
        manifest = whole.examine()
        return manifest if whole.listings == self.listings else None

    def _labelled(self, index: pd.DataFrame) -> pd.DataFrame:
        """The index, where at most `max_bad` of its faces have no usable label."""
        problems = index.get(PROBLEM, pd.Series(None, index.index, object)).dropna()
        if len(problems) > self.max_bad * len(index):
            first, counted = problems.iloc[0], f"{len(problems):,} of {len(index):,} labels hold no number"
            remedy = f"{first.remedy} {counted}, more than max_bad = {self.max_bad:g} allows."
            raise RowError(first.file, first.row, first.column, first.found, remedy)
        return index

    def _refusal(self, manifest: Manifest) -> str:
        bad, n = manifest.audit["excluded"], manifest.audit["faces"]
        some = list(manifest.audit["excluded_faces"].values())[:10]
        lines = "\n".join(f"  {problem}" for problem in some) + ("\n  …" if bad > len(some) else "")
        limit = f"set max_bad above {self.max_bad:g} in the suite's table of the dataset"
        remedy = f"Mend or remove them, or {limit}; `emobench data check` lists them"
        return f"{self.folder}: {bad:,} of {n:,} faces cannot be read, more than max_bad allows. {remedy}:\n{lines}"

    # ---- pack ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """`plan()`, and the faces packed at `size`; idempotent, the second time from the cache.

        Raises:
            DatasetError: the dataset is missing, malformed, or changed while it was read.
        """
        self.plan()
        if hasattr(self, "images"):
            return
        folder = self._pack(self._undivided)
        if not is_whole(folder, len(self.faces), self.size):
            write_pack(folder, self.read_many, self.faces, self.size, f"packing {self.name} at {self.size} px")
        if "hash" not in self.faces:
            self.faces["hash"] = read_records(folder)["hash"]
        elif not self.faces["hash"].equals(read_records(folder)["hash"]):
            shutil.rmtree(folder)
            raise DatasetError(f"{self.folder}: faces changed while they were read. Run the same command again")
        self.images = read_images(folder)
        self._free_parsed()

    def _pack(self, undivided: str) -> Path:
        """The folder of the faces of this content, packed at `size`."""
        return self.cache / "packs" / digest([undivided, self.size, self._code()])

    def _free_parsed(self) -> None:
        """Frees what only `index` and `read` needed, such as a parsed table of all faces: cached properties."""
        for cls in type(self).__mro__:
            for name, member in vars(cls).items():
                if isinstance(member, cached_property):
                    vars(self).pop(name, None)

    @classmethod
    def _code(cls) -> str:
        """The digest of the dataset's code, so that the cache never answers for a loader that has changed."""
        return digest_of(cls)

    # ---- what is known of it -------------------------------------------------------------------------------------

    @property
    def pooled(self) -> bool:
        """Whether it is a cross-validation as a whole, every face of it a test face."""
        return self.cross is not None and self.cross[0] is None

    def counts(self) -> dict[str, dict[str, int]]:
        """Faces per split and emotion, absent ones as 0; of a cross-validation all train, and all are test faces."""
        table = pd.crosstab(self.faces["split"], self.faces["label"])
        table = table.reindex(index=SPLITS, columns=range(len(self.emotions)), fill_value=0)
        if self.pooled:
            table.loc["train"] = table.loc["test"]
        return {split: dict(zip(self.emotions, map(int, table.loc[split]), strict=True)) for split in SPLITS}

    def counted(self) -> list[str]:
        """`counts()` in words, a line a split."""
        return [
            f"{split} {sum(of.values()):,}: " + ", ".join(f"{emotion} {n:,}" for emotion, n in of.items())
            for split, of in self.counts().items()
        ]

    def described(self, name: str) -> dict[str, Any]:
        """What a result records of the dataset, which goes by `name` in its suite."""
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

    def copied(self) -> np.ndarray:
        """(N,) bool: a test face of which training or validation has a copy (see `copies`), or an equal face."""
        return copied(self.faces)
