"""CK+, the extended Cohn-Kanade dataset (Lucey et al. 2010), in the forms people have it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Unpack

import numpy as np
import pandas as pd
from annotated_types import Ge

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import DataArguments
from emobench.data.readers.beside import agreed_with_definition
from emobench.data.readers.files import read_small
from emobench.data.readers.images import is_picture
from emobench.data.readers.labels import Meaning
from emobench.data.readers.layouts import the_only
from emobench.data.readers.pixel_table import PixelTable, public_as_test, read_pixel_tables
from emobench.data.readers.tables import known, plain, table_names
from emobench.data.readers.tree import holds_faces, named, places, scan, visible
from emobench.emotions import ORDERS
from emobench.errors import DatasetError, RowError, to_text

_SEQUENCE = re.compile(r"(S\d+)_(\d+)_(\d+)")  # subject, sequence, frame, as all its pictures are named
_IMAGES, _LABELS = ("cohn-kanade-images",), ("emotion", "emotion_labels")
_TABLES = table_names("ckextended")
_LARGEST = 4096  # bytes of a sequence's label
_Row = tuple[Path, str, str, str]  # path, label, subject, sequence
_EXTENDED = {str(number): emotion for number, emotion in enumerate(ORDERS["ckextended"])}


class CKPlus(EmotionDataModule):
    """Posed expressions of 123 people, from neutral to the peak: 327 labelled sequences of seven emotions.

    Of each labelled sequence the first frame is neutral and the last one shows the emotion. Splits never share a
    subject; ckextended.csv, which names no subjects, has splits of its own.

    Args:
        layout: the file or folder to read, below the dataset's folder, where several are there; None: the only one.
        frames: so many last frames of each sequence show its emotion; None: the peak alone, of CK+48 all three.
        neutral: take the first frames too; CK+48 has none.
        folds: split by subject into so many parts, of which one is the test split and the next one validation;
            None: 80 / 10 / 10 %.
        fold: which of them is the test split, from 0.

    Raises:
        DatasetError: `fold` is not below `folds`.
    """

    name = "ckplus"
    expects = """
cohn-kanade-images/S005/001/*.png      with Emotion/S005/001/*_emotion.txt beside (the original); or
<emotion>/S010_004_00000017.png        a folder per emotion (CK+48); or
ckextended.csv                         emotion,pixels,Usage; may end in .gz or .xz
The original from its authors, on request; CK+48 and ckextended.csv from kaggle.com.
"""

    def __init__(
        self,
        *,
        layout: str | None = None,
        frames: Annotated[int, Ge(1)] | None = None,
        neutral: bool = True,
        folds: Annotated[int, Ge(3)] | None = None,
        fold: Annotated[int, Ge(0)] = 0,
        **common: Unpack[DataArguments],
    ) -> None:
        settings = {"layout": layout, "frames": frames, "neutral": neutral, "folds": folds, "fold": fold}
        super().__init__(settings, **common)
        if fold >= (folds or 1):
            raise DatasetError(f"ckplus: fold = {fold}, but folds = {folds}. Folds are counted from 0")
        self.fold = None if folds is None else (fold, folds)
        self._chosen, self._frames, self._neutral = layout, frames, neutral

    @cached_property
    def _layout(self) -> Path:
        """The CSV file, the folder of emotions, or the folder of the original's two."""
        folder = self.located()
        found = []
        for place in places(folder, "ck+48", "ck+", "ck48", "ckplus"):
            found += [path for path in visible(place) if path.name.lower() in _TABLES]
            if holds_faces(place, self.meaning) or _below(place, _IMAGES) is not None:
                found.append(place)
        return the_only(found, self._chosen, folder, "CK+", self.expects)

    @cached_property
    def _table(self) -> PixelTable:
        agreed_with_definition("ckextended.csv's ids", _EXTENDED, None, self._layout, self.located(), self.meaning)
        return read_pixel_tables([self._layout], self.located(), _EXTENDED, self.meaning)

    def sources(self) -> list[Path]:
        """The CSV file, or the folder of the pictures and labels."""
        return [self._layout]

    def index(self) -> pd.DataFrame:
        """One row a face, with its `sequence` where that is known."""
        if self._layout.is_file():
            index, notes = public_as_test(self._table.index)
            self.notes += [*self._table.notes, *notes]
            return index
        images = _below(self._layout, _IMAGES)
        return self._sorted_by_emotion() if images is None else self._original(images)

    def read_many(self, rows: pd.DataFrame) -> Iterator[np.ndarray | RowError]:
        """The faces of rows of the index, in their order."""
        if self._layout.is_file():
            yield from self._table.read(rows)
        else:
            yield from super().read_many(rows)

    def _original(self, images: Path) -> pd.DataFrame:
        """The first and the last frames of each labelled sequence."""
        labels = _below(self._layout, _LABELS)
        if labels is None:
            raise DatasetError(f"{self._layout}: {images.name} without Emotion/ beside. Unpack Emotion_labels there")
        labels = _below(labels, _LABELS) or labels  # Emotion_labels/Emotion, as it is packed
        rows, unlabelled, sequences = [], 0, 0
        for subject in (path for path in visible(images) if path.is_dir()):
            for sequence in (path for path in visible(subject) if path.is_dir()):
                sequences += 1
                emotion = _label(labels / subject.name / sequence.name, self.meaning)
                frames = [path for path in visible(sequence) if is_picture(path)]
                if emotion is None:
                    unlabelled += 1
                elif len(frames) < 2:
                    raise DatasetError(f"{sequence}: {len(frames)} frames of a labelled sequence. Unpack it again")
                else:
                    who = to_text(subject.name)
                    rows += self._of_sequence(who, f"{who}_{to_text(sequence.name)}", frames, emotion)
        if unlabelled:
            self.notes.append(f"{unlabelled} of {sequences} sequences have no label and are left out")
        return self._indexed(rows)

    def _of_sequence(self, subject: str, sequence: str, frames: list[Path], emotion: str) -> list[_Row]:
        """The frames that are taken."""
        last = frames[max(1, len(frames) - (self._frames or 1)) :]
        first = frames[:1] if self._neutral else []
        labels = ["neutral"] * len(first) + [emotion] * len(last)
        return [(path, label, subject, sequence) for path, label in zip([*first, *last], labels, strict=True)]

    def _sorted_by_emotion(self) -> pd.DataFrame:
        """CK+48: the last three frames of each sequence in a folder per emotion."""
        tree = scan(self._layout, None, self.meaning, self.located())
        self.notes += tree.notes
        sequences: dict[str, list[_Row]] = {}
        for name, label, _ in tree.files:
            path = tree.place / name
            match = _SEQUENCE.match(path.name)
            if match is None:
                remedy = "CK+48 names its pictures S010_004_00000017.png; without them subjects would cross the splits"
                raise RowError(path, None, None, "no subject in the name", f"{remedy}. Use folder:<x> for other names.")
            subject, sequence, _ = match.groups()
            named = f"{subject}_{sequence}"
            sequences.setdefault(named, []).append((path, label, subject, named))
        last = slice(None) if self._frames is None else slice(-self._frames, None)
        return self._indexed([row for rows in sequences.values() for row in sorted(rows)[last]])

    def _indexed(self, rows: list[_Row]) -> pd.DataFrame:
        folder = self.located()
        names = [named(path, folder) for path, *_ in rows]
        table = pd.DataFrame([row[1:] for row in rows], columns=["label", "subject", "sequence"])
        return table.assign(id=names, source=names, split=None)


def _below(place: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of one of these names, whatever its case."""
    return next((path for path in visible(place) if path.is_dir() and path.name.lower() in names), None)


def _label(folder: Path, meaning: Meaning) -> str | None:
    """The label of a sequence, from the one file that holds its number as a float; None where there is no file."""
    files = [path for path in visible(folder) if path.suffix == ".txt"] if folder.is_dir() else []
    if not files:
        return None
    if len(files) > 1:
        raise DatasetError(f"{folder}: {len(files)} label files for one sequence. Keep one of them")
    text = plain(read_small(files[0], _LARGEST).decode("utf-8", errors="replace"))
    order = {str(k): emotion for k, emotion in enumerate(ORDERS["ckplus"])}
    with suppress(ValueError):  # of what is no number, which `known` says
        whole = f"{float(text):.0f}" if float(text).is_integer() else text
        text = whole if whole in order else text
    return known(files[0], 1, {"": text}, "", order, meaning)
