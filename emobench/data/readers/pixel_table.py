"""Faces in a CSV table: `emotion,pixels,Usage`, 48×48 gray values as text in every row (Goodfellow et al. 2013)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emobench.data.readers.labels import PROBLEM, Meaning
from emobench.data.readers.tables import known, labelled, plain, read_rows
from emobench.data.readers.tree import split_named
from emobench.errors import RowError

SIDE = 48  # px
USAGE = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_SPELLINGS = {"emotion": ("emotions", "label"), "pixels": ("pixel",), "Usage": ("split", "set", "subset")}


@dataclass(frozen=True)
class PixelTable:
    """The rows of one table or of several, one after the other.

    Attributes:
        index: `id` (the row's number from 0), `source`, `label`, `subject`, `split` and `row`.
        faces: uint8 (N, 48, 48).
        notes: which tables have no labels and are not used.
    """

    index: pd.DataFrame
    faces: np.ndarray
    notes: list[str]

    def read(self, rows: pd.DataFrame) -> Iterator[np.ndarray]:
        """The faces of rows of the index in their order, each uint8 (1, 48, 48)."""
        yield from self.faces[rows["row"].to_numpy(), None]


def read_pixel_tables(tables: list[Path], folder: Path, labels: Mapping[str, str], meaning: Meaning) -> PixelTable:
    """Read tables with a header that names at least `emotion` and `pixels`; one named test.csv may lack `emotion`.

    A row whose emotion is NaN, infinite or empty has no label but a `problem`.

    Args:
        tables: in the order of their rows.
        folder: sources are named relative to it.
        labels: id in the column `emotion` -> canonical emotion.
        meaning: of names that may stand there instead.

    Raises:
        RowError: names the row as an editor counts lines, and the column.
    """
    frames, faces = [], []
    notes: list[str] = []
    for path in tables:
        frame, pixels = _read(path, labels, meaning, notes)
        name = path.relative_to(folder).as_posix()
        if "label" in frame:
            frames.append(frame.assign(source=name, subject=None))
            faces.append(pixels)
        else:
            notes.append(f"{name} has no labels: its {len(frame):,} rows are not used")
    if len(frames) == 2 and all(frame["split"].isna().all() for frame in frames):
        frames = [frame.assign(split=split) for frame, split in zip(frames, ("train", "test"), strict=True)]
    index, stacked = pd.concat(frames, ignore_index=True), np.concatenate(faces)
    return PixelTable(index.assign(id=index.index.astype(str), row=index.index), stacked, notes)


def public_as_test(index: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The index with PublicTest as the test split where PrivateTest is missing, and the note that says so."""
    if "val" not in set(index["split"]) or "test" in set(index["split"]):
        return index, []
    index = index.assign(split=index["split"].replace("val", "test"))
    return index, [f"no PrivateTest rows: PublicTest ({(index['split'] == 'test').sum():,} rows) is the test split"]


def usage(path: Path, line: int, row: Mapping[str, str]) -> str:
    """The split that the column `Usage` names.

    Raises:
        RowError: it names none.
    """
    named = split_named(plain(row["Usage"]))
    if named is None or row["Usage"].strip().lower() in ("test", "testing"):  # which of the two test splits?
        return known(path, line, row, "Usage", USAGE)
    return named


def _read(path: Path, names: Mapping[str, str], meaning: Meaning, notes: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """`label` and `split` of each row, and the faces; no `label` and no faces without labels."""
    needed = {"pixels"} if path.name.startswith("test.csv") else {"emotion", "pixels"}
    labels, splits, faces, problems = [], [], [], []
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how numpy says that text is no number
        looked_for = {"emotion", "pixels", "Usage"} - needed
        for line, row in read_rows(path, needed, optional=looked_for, spellings=_SPELLINGS, said=said):
            splits.append(usage(path, line, row) if "Usage" in row else None)
            if "emotion" in row:
                label, problem = labelled(path, line, row, "emotion", names, meaning)
                labels.append(label)
                problems.append(problem)
                faces.append(_face(path, line, row["pixels"]))
    notes += said
    if not splits:
        raise RowError(path, None, None, "no rows below the header", "Fetch the file again.")
    frame = pd.DataFrame({"split": pd.Series(splits, dtype=object)})
    if not labels:
        return frame, np.empty((0, SIDE, SIDE), np.uint8)
    frame["label"], frame[PROBLEM] = pd.Series(labels, dtype=object), pd.Series(problems, dtype=object)
    return frame, np.stack(faces)


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
