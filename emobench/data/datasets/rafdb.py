"""RAF-DB, faces from the web (Li et al. 2017, "Reliable crowdsourcing and deep locality-preserving learning …")."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import BOX, DataArguments
from emobench.data.readers.beside import agreed_with_definition
from emobench.data.readers.files import read_small
from emobench.data.readers.images import is_picture
from emobench.data.readers.labels import PROBLEM
from emobench.data.readers.layouts import the_only
from emobench.data.readers.tables import Inside, known, labelled, number, read_words
from emobench.data.readers.tree import archives, holds_faces, named, places, scan, visible
from emobench.emotions import ORDERS, in_canonical_order
from emobench.errors import DatasetError, RowError

_LABELS = {str(number): emotion for number, emotion in enumerate(ORDERS["rafdb"]) if emotion}
_TABLES = ("list_patition_label.txt", "list_partition_label.txt")  # as the authors spell it, and as it is meant
_COLUMNS = ("image_name", "label")
_WRAPPERS = ("basic", "rafdb", "raf-db", "raf_db")
_SPLIT = re.compile(r"(train|test)_", re.IGNORECASE)  # begins the name of a picture
_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {  # in the order of their lines: column -> id -> what it stands for
    "gender": {"0": "male", "1": "female", "2": "unsure"},
    "race": {"0": "Caucasian", "1": "African-American", "2": "Asian"},
    "age": {"0": "0-3", "1": "4-19", "2": "20-39", "3": "40-69", "4": "70+"},  # years
}
_LANDMARKS = 5  # lines of two numbers before them
_LARGEST = 4096  # bytes of a picture's box, or of its attributes


class RAFDB(EmotionDataModule):
    """15,339 faces from the web with seven emotions, each labelled by about 40 people.

    The official splits stand in the pictures' names, `train_` and `test_`; validation is carved from training. Nobody
    is known by name.

    Args:
        pictures: the aligned faces of 100 px, or the faces cut out of the original pictures by their boxes; None: the
            aligned ones where they are there.
        layout: the label file or the folder to read, below the dataset's folder, where several are there; None: the
            only one.
    """

    name = "rafdb"
    classes = in_canonical_order(list(_LABELS.values()))
    expects = """
EmoLabel/list_patition_label.txt       train_00001.jpg 5, with
Image/aligned/*_aligned.jpg            the aligned faces, or
Image/original/*.jpg                   with Annotation/boundingbox/*_boundingbox.txt (and, where they are there,
                                       Annotation/manual/*_manu_attri.txt: gender, race, age); or
{train,test}/{1..7}/*.jpg              with these ids, as on kaggle.com
basic/, DATASET/, archive/ or data/ may be on top. From its authors, whdeng.cn/RAF, on request.
"""

    def __init__(
        self,
        *,
        pictures: Literal["aligned", "original"] | None = None,
        layout: str | None = None,
        **common: Unpack[DataArguments],
    ) -> None:
        super().__init__({"pictures": pictures, "layout": layout}, **common)
        self._wanted, self._chosen = pictures, layout

    @cached_property
    def _layout(self) -> Path:
        """The label file, or the folder of splits."""
        folder, found, unlabelled = self.located(), [], []
        for place in places(folder, *_WRAPPERS):
            tables = [
                path
                for top in (_below(place, "EmoLabel"), place)
                if top is not None
                for path in visible(top)
                if path.name.lower() in _TABLES and path.is_file()
            ]
            found += tables
            if not tables and holds_faces(place, self.meaning):
                found.append(place)
            elif not tables and _below(place, "Image") is not None:
                unlabelled.append(place)
        if unlabelled and not found:
            raise DatasetError(
                f"{unlabelled[0]}: Image/ without EmoLabel/{_TABLES[0]} beside. Unpack the labels there, as EmoLabel/"
            )
        return the_only(found, self._chosen, folder, "RAF-DB", self.expects)

    @property
    def _top(self) -> Path:
        """The folder of EmoLabel/, Image/ and Annotation/."""
        above = self._layout.parent
        return above.parent if above.name.lower() == "emolabel" else above

    @cached_property
    def _pictures(self) -> tuple[Path, bool]:
        """The folder of the pictures, and whether they are the original ones."""
        images = _below(self._top, "Image") or self._top
        for kind in ("aligned", "original") if self._wanted is None else (self._wanted,):
            found = _innermost(images, kind)
            if found is not None and any(is_picture(found / name) for name in os.listdir(found)):
                return found, kind == "original"
        packed = ", ".join(path.name for path in archives(images))
        missing = f"Image/{self._wanted}/" if self._wanted else "Image/aligned/, or Image/original/ with Annotation/"
        remedy = f"Unpack {packed} first" if packed else f"They are expected in {missing}"
        raise DatasetError(f"{self._top}: {self._layout.name} without pictures. {remedy}")

    @cached_property
    def _boxes(self) -> Path:
        """The folder of the original pictures' boxes."""
        found = _innermost(_below(self._top, "Annotation"), "boundingbox")
        if found is None:
            packed = ", ".join(path.name for path in archives(_below(self._top, "Annotation") or self._top))
            remedy = f"Unpack {packed} first" if packed else "Unpack them there, or take the aligned pictures"
            raise DatasetError(f"{self._top}: original pictures without Annotation/boundingbox/*.txt. {remedy}")
        return found

    @cached_property
    def _attributes(self) -> Path | None:
        """The folder of the pictures' attributes."""
        return _innermost(_below(self._top, "Annotation"), "manual")

    def sources(self) -> list[Path]:
        """The label file, the folders of the pictures and of their annotations, or the one folder of all."""
        if self._layout.is_dir():
            return [self._layout]
        images, original = self._pictures
        annotations = [self._boxes] if original else []
        return [self._layout, images, *annotations, *([self._attributes] if self._attributes else [])]

    def index(self) -> pd.DataFrame:
        """One row a line of the label file: `gender`, `race`, `age` (years) where known, in originals the box (px)."""
        if self._layout.is_dir():
            tree = scan(self._layout, ORDERS["rafdb"], self.meaning, self.located())
            self.notes += tree.notes
            return tree.table(self.located())
        table, rows = self._layout, []
        agreed_with_definition("RAF-DB's ids", _LABELS, None, table, self.located(), self.meaning)
        images, original = self._pictures
        inside, pictures = Inside(images, self.located().parent), _by_stem(images)
        boxes = _by_name(self._boxes) if original else {}
        used: set[str] = set()
        for line, row in read_words(table, _COLUMNS):
            name = inside(table, line, "image_name", row["image_name"])
            if (split := _SPLIT.match(name)) is None:
                remedy = "RAF-DB's names begin with train_ or test_, which says the split."
                raise RowError(table, line, "image_name", f"'{name[:60]}' is of no split", remedy)
            label, problem = labelled(table, line, row, "label", _LABELS, self.meaning)
            stem, suffix = os.path.splitext(name)
            names = [name] if original else [f"{stem}_aligned{suffix}", name]
            file = _file_of(names, pictures, images)
            used.add(file)
            box = _box(self._boxes, boxes.get(f"{stem}_boundingbox.txt".lower()), stem) if original else ()
            rows.append((named(images / file, self.located()), stem, label, split[1].lower(), problem, *box))
        columns = ["source", "stem", "label", "split", PROBLEM, *(BOX if original else ())]
        index = pd.DataFrame(rows, columns=columns)
        if self._attributes is not None:
            index = index.join(self._described(index["stem"], self._attributes))
        if unused := len({file for files in pictures.values() for file in files} - used):
            self.notes.append(f"{unused:,} pictures have no line in {table.name} and are left out")
        again = index.groupby("source").cumcount()  # a picture that the table names twice
        if again.any():
            self.notes.append(f"{(again > 0).sum():,} lines of {table.name} name a picture again; each is a face")
        ids = index["source"].where(again == 0, index["source"] + "#" + again.astype(str))
        return index.drop(columns="stem").assign(id=ids, subject=None)

    def _described(self, stems: pd.Series, folder: Path) -> pd.DataFrame:
        """The attributes of pictures, None where a picture has none."""
        files = _by_name(folder)
        found = [files.get(f"{stem}_manu_attri.txt".lower()) for stem in stems]
        if lacking := found.count(None):
            self.notes.append(f"{lacking:,} of {len(found):,} faces have no attributes")
        rows = [dict.fromkeys(_ATTRIBUTES) if path is None else _attributes(path) for path in found]
        return pd.DataFrame(rows, columns=list(_ATTRIBUTES), index=stems.index, dtype=object)


def _below(place: Path, name: str) -> Path | None:
    """The folder of this name, whatever its case."""
    return next((path for path in visible(place) if path.name.lower() == name.lower() and path.is_dir()), None)


def _innermost(place: Path | None, name: str) -> Path | None:
    """The folder of this name, or the one of its name in it, as some archives unpack; None: none, or it is empty."""
    found = None if place is None else _below(place, name)
    while found is not None and (inner := _below(found, name)) is not None:
        found = inner
    return found if found is not None and visible(found) else None


def _by_stem(folder: Path) -> dict[str, list[str]]:
    """The pictures in a folder by their names without suffix, in lower case."""
    found: dict[str, list[str]] = {}
    for path in visible(folder):
        if is_picture(path):
            found.setdefault(path.stem.lower(), []).append(path.name)
    return found


def _by_name(folder: Path) -> dict[str, Path]:
    """The files in a folder by their names in lower case."""
    return {path.name.lower(): path for path in visible(folder)}


def _file_of(names: Sequence[str], pictures: Mapping[str, list[str]], folder: Path) -> str:
    """The file that goes by one of these names, else by one of them whatever its case and suffix, else the first name.

    Raises:
        RowError: several do.
    """
    for name in names:
        files = pictures.get(os.path.splitext(name)[0].lower(), [])
        if name in files:
            return name
        if len(files) > 1:
            raise RowError(folder / files[0], None, None, f"{', '.join(files[1:])} goes by the same name", "Keep one.")
        if files:
            return files[0]
    return names[0]


def _box(folder: Path, path: Path | None, stem: str) -> tuple[float, ...]:
    """The box of an original picture, px: left, top, right, bottom."""
    path = path or folder / f"{stem}_boundingbox.txt"
    numbers = _words(path, "box")
    if len(numbers) != len(BOX):
        found = f"{len(numbers)} numbers where a box has {len(BOX)}"
        raise RowError(path, None, None, found, f"It is expected as {' '.join(BOX)}. Unpack the annotations again.")
    return tuple(number(path, None, dict(zip(BOX, numbers, strict=True)), side) for side in BOX)


def _attributes(path: Path) -> dict[str, str]:
    """What a picture's file says of the person."""
    words = _words(path, "attributes")[2 * _LANDMARKS :]
    if len(words) != len(_ATTRIBUTES):
        expected = f"{_LANDMARKS} landmarks and {', '.join(_ATTRIBUTES)}"
        raise RowError(path, None, None, f"no {expected} in it", "Unpack the annotations again, or remove them.")
    row = dict(zip(_ATTRIBUTES, words, strict=True))
    return {name: known(path, None, row, name, ids) for name, ids in _ATTRIBUTES.items()}


def _words(path: Path, what: str) -> list[str]:
    """The words of a small file of annotations."""
    try:
        return read_small(path, _LARGEST).decode("utf-8-sig", errors="replace").replace(",", " ").split()
    except FileNotFoundError:
        raise RowError(path, None, None, f"no {what}: the file is missing", "Unpack the annotations again.") from None
