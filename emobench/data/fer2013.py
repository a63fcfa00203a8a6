"""FER-2013 (Goodfellow et al. 2013, "Challenges in representation learning", section 2) in the forms people have it."""

from __future__ import annotations

import csv
import gzip
import lzma
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.pack import pixel_hash
from emobench.data.tree import Tree, archives, holds_faces, order_named, places, scan, visible
from emobench.emotions import ORDERS, in_canonical_order
from emobench.errors import DatasetError, RowError

SIDE = 48  # px
USAGE = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_LABELS = {str(number): emotion for number, emotion in enumerate(ORDERS["fer2013"])}
_STEMS, _PACKED = ("fer2013", "icml_face_data", "train"), ("", ".gz", ".xz")
_TABLES = tuple(f"{stem}.csv{packed}" for stem in _STEMS for packed in _PACKED)


class FER2013(EmotionDataModule):
    """35,887 gray faces of 48 px with seven emotions: Training, PublicTest and PrivateTest are the official splits.

    Where PrivateTest is missing, PublicTest is the test split and validation is carved from Training.

    Args:
        layout: the file or folder to read, relative to the dataset's folder, where several are there; None: the only.
        order: what numeric folder names mean: a name in `emotions.ORDERS`, or the emotions of 0, 1, …; None: refused.
    """

    name = "fer2013"
    classes = in_canonical_order(ORDERS["fer2013"])
    expects = """
fer2013.csv                            emotion,pixels,Usage; or
icml_face_data.csv                     emotion, Usage, pixels; or
train.csv                              emotion,pixels: the contest's, without official splits; or
{train,test}/<emotion>/*.jpg           with PublicTest_* and PrivateTest_* in test/, or with a val/ of its own
CSV files may end in .gz or .xz; archive/, data/ or images/ may be on top. From kaggle.com: fer2013 (msambare), or the
contest "Challenges in Representation Learning: Facial Expression Recognition Challenge".
"""

    def __init__(
        self,
        *,
        folder: Path | None = None,
        size: int = SIDE,
        cache: Path | None = None,
        layout: str | None = None,
        order: str | Sequence[str] | None = None,
    ) -> None:
        self._order = order_named(order)
        super().__init__(folder=folder, size=size, cache=cache, layout=layout, order=self._order)
        self._chosen = layout

    @cached_property
    def _layout(self) -> Path:
        """The CSV file, or the folder that holds splits or emotions."""
        folder = self.located()
        found = {
            path.relative_to(folder).as_posix(): path
            for place in places(folder)
            for path in (*[p for p in visible(place) if p.name.lower() in _TABLES], *[place] * holds_faces(place))
        }
        if self._chosen is not None:
            if self._chosen not in found:
                raise DatasetError(f"{folder}: no layout '{self._chosen}'. Found: {', '.join(found) or 'none'}")
            return found[self._chosen]
        if len(found) > 1:
            remedy = "Keep one of them, or choose by `layout`"
            raise DatasetError(f"{folder}: several layouts match: {', '.join(found)}. {remedy}")
        if not found:
            packed = ", ".join(path.name for path in archives(folder))
            remedy = f"Unpack {packed} first" if packed else f"Expected there: {self.expects}"
            raise DatasetError(f"{folder}: no FER-2013 there. {remedy}")
        return next(iter(found.values()))

    @cached_property
    def _tables(self) -> list[Path]:
        """The CSV files in the order of their rows; the contest's test.csv comes after its train.csv."""
        if not self._layout.name.startswith("train.csv"):
            return [self._layout]
        return [self._layout, *(path for path in visible(self._layout.parent) if path.name.startswith("test.csv"))]

    @cached_property
    def _tree(self) -> Tree:
        tree = scan(self._layout, self._order)
        tree.files = [(path, label, _official(path, split)) for path, label, split in tree.files]
        return tree

    @cached_property
    def _parsed(self) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
        """The CSV files' index, their faces uint8 (N, 48, 48), and notes."""
        return _read_tables(self._tables, self.located())

    def sources(self) -> list[Path]:
        """The CSV files, or every picture."""
        return [path for path, _, _ in self._tree.files] if self._layout.is_dir() else self._tables

    def index(self) -> pd.DataFrame:
        """One row a face; a CSV file's rows in their order, numbered from 0 in `id`."""
        if self._layout.is_dir():
            index, notes = self._tree.table(self.located()), self._tree.notes
        else:
            index, _, notes = self._parsed
        self.notes += notes
        return index

    def read_many(self, rows: pd.DataFrame) -> Iterator[np.ndarray | RowError]:
        """The faces of all rows of the index, in its order."""
        if self._layout.is_dir():
            yield from super().read_many(rows)
        else:
            yield from self._parsed[1][rows["row"].to_numpy(), None]  # each (1, 48, 48)
            del self._parsed  # 83 MB


def _official(path: Path, split: str | None) -> str | None:
    """The official split: copies that are sorted into train/ and test/ keep it in the names of the test files."""
    if split != "test":
        return split
    return USAGE.get(path.name.partition("_")[0], split)


def _read_tables(tables: list[Path], folder: Path) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """Index, faces uint8 (N, 48, 48) and notes of one table, or of the contest's two."""
    frames, faces, notes = [], [], []
    for path in tables:
        frame, pixels = _read_table(path)
        name = path.relative_to(folder).as_posix()
        if "label" in frame:
            frames.append(frame.assign(source=name, subject=None))
            faces.append(pixels)
        else:
            notes.append(f"{name} has no labels: its {len(frame):,} rows are not used")
    if len(frames) == 2 and all(frame["split"].isna().all() for frame in frames):
        frames = [frame.assign(split=split) for frame, split in zip(frames, ("train", "test"), strict=True)]
    index, stacked = pd.concat(frames, ignore_index=True), np.concatenate(faces)
    if "val" in set(index["split"]) and "test" not in set(index["split"]):
        index["split"] = index["split"].replace("val", "test")
        notes.append(f"no PrivateTest rows: PublicTest ({(index['split'] == 'test').sum():,} rows) is the test split")
    hashes = [pixel_hash(face[None]) for face in stacked]
    return index.assign(id=index.index.astype(str), row=index.index, hash=hashes), stacked, notes


def _read_table(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """`label` and `split` of each row, and the faces, uint8 (N, 48, 48); no `label` and no faces without labels.

    Raises:
        RowError: names the row as an editor counts lines, and the column.
    """
    unpack: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    line = None
    try:
        with unpack(path, "rt", encoding="utf-8-sig", newline="") as file, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how numpy says that text is no number
            reader = csv.reader(file)
            columns = _header(path, reader)
            labels, splits, faces = [], [], []
            for fields in reader:
                line = reader.line_num
                if not any(fields):
                    continue
                if len(fields) != len(columns):
                    found = f"{len(fields)} columns, the header has {len(columns)}"
                    raise RowError(path, line, None, found, "Each row needs them all, and no more.")
                row = dict(zip(columns, fields, strict=True))
                splits.append(_known(path, line, row, "Usage", USAGE) if "Usage" in row else None)
                if "emotion" in row:
                    labels.append(_known(path, line, row, "emotion", _LABELS))
                    faces.append(_face(path, line, row["pixels"]))
    except (csv.Error, UnicodeDecodeError) as error:
        raise RowError(path, line, None, f"no CSV text after this row ({error})", "Fetch the file again.") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RowError(path, line, None, f"cannot be read further ({error})", "Fetch the file again.") from error
    if not splits:
        raise RowError(path, None, None, "no rows below the header", "Fetch the file again.")
    frame = pd.DataFrame({"split": pd.Series(splits, dtype=object)})
    return (frame.assign(label=labels), np.stack(faces)) if labels else (frame, np.empty((0, SIDE, SIDE), np.uint8))


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    """The columns' names, whatever blanks stand around them."""
    columns = [name.strip() for name in next(reader, [])]
    if not columns:
        raise RowError(path, None, None, "the file is empty", "Fetch it again.")
    needed = {"pixels"} if path.name.startswith("test.csv") else {"emotion", "pixels"}
    if not needed <= set(columns):
        found = f"no header with {' and '.join(sorted(needed))}, but '{','.join(columns)[:40]}'"
        raise RowError(path, 1, None, found, "The first line must name the columns: emotion,pixels,Usage.")
    return columns


def _known(path: Path, line: int, row: Mapping[str, str], column: str, names: Mapping[str, str]) -> str:
    value = row[column].strip()
    if value not in names:
        listed = ", ".join(f"{number} is {name}" for number, name in names.items())
        raise RowError(path, line, column, f"'{value[:20]}'", f"Known: {listed}.")
    return names[value]


def _face(path: Path, line: int, text: str) -> np.ndarray:
    """uint8 (48, 48) from 2,304 numbers in a string."""
    remedy = f"A row has {SIDE * SIDE:,} numbers from 0 to 255 with blanks between them."
    try:
        values = np.fromstring(text, np.int64, sep=" ")
    except (DeprecationWarning, ValueError) as error:
        wrong = next((word for word in text.split() if not word.isdecimal()), "")
        raise RowError(path, line, "pixels", f"'{wrong[:20]}' is no pixel", remedy) from error
    if len(values) != SIDE * SIDE:
        raise RowError(path, line, "pixels", f"{len(values):,} pixels", remedy)
    if values.min() < 0 or values.max() > 255:
        at = int(np.flatnonzero((values < 0) | (values > 255))[0])
        raise RowError(path, line, "pixels", f"number {at + 1} is {values[at]}", remedy)
    return values.astype(np.uint8).reshape(SIDE, SIDE)
