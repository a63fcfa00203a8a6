"""AffectNet (Mollahosseini et al. 2017) in the forms people have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import BOX, DataArguments
from emobench.data.readers.beside import agreed_with_definition, names_beside
from emobench.data.readers.files import read_small
from emobench.data.readers.images import crop, is_picture
from emobench.data.readers.labels import PROBLEM, Ids, agreed, questioned
from emobench.data.readers.layouts import the_only
from emobench.data.readers.tables import Inside, NoNumber, labelled, number, plain, read_rows, read_words, table_names
from emobench.data.readers.tree import LeftOut, holds_faces, named, order_named, places, scan, split_named, visible
from emobench.emotions import ORDERS, canonical, is_emotion
from emobench.errors import DatasetError, RowError

_COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip
_FACE, _MEASURED = ("face_x", "face_y", "face_width", "face_height"), ("valence", "arousal")
_NO_EMOTION = {"8": "none", "9": "uncertain", "10": "no face"}
_LABELS = {**{str(number): emotion for number, emotion in enumerate(ORDERS["affectnet"])}, **_NO_EMOTION}
_YOLO_COLUMNS = ("class", "x", "y", "width", "height")  # centre and size, shares of the picture
_TRAINING, _VALIDATION, _AUTOMATIC = map(table_names, ("training", "validation", "automatically_annotated"))
_WRAPPERS = ("manually_annotated_file_lists", "automatically_annotated_file_list", "affectnet")
_MANUAL_IMAGES = ("manually_annotated_images", "manually_annotated")
_AUTOMATIC_IMAGES = ("automatically_annotated_images", "automatically_annotated")
_LARGEST = 64 * 1024  # bytes of a .npy file that holds one value
_SETS = {"train_set": "train", "val_set": "val"}


class AffectNet(EmotionDataModule):
    """Faces from the web with eight emotions, valence and arousal.

    The official validation set is the test split (there is no other), and validation is carved from training. Faces
    labelled none, uncertain or no face are left out and counted.

    Args:
        layout: the file or folder to read, below the dataset's folder, where several are there; None: the only one.
        automatic: train on the automatically annotated pictures too (CSV layout).
        order: what numeric folder names, and the ids of YOLO's labels, mean: a name in `emotions.ORDERS`, or the
            emotions of 0, 1, …; None: what data.yaml or another file beside them says, else such folders are refused
            and YOLO's ids are alphabetical.
    """

    name = "affectnet"
    together = ("hash", "source")
    expects = """
training.csv, validation.csv           with Manually_Annotated_Images/ (and, where `automatic` is set,
                                       automatically_annotated.csv with Automatically_Annotated_Images/); or
{train_set,val_set}/images/N.jpg       with annotations/N_{exp,val,aro,lnd}.npy; or
<emotion>/*.jpg with labels.csv        eight folders; or
YOLO_format/{train,valid,test}/{images,labels}/*; or
{train,val,test}/{0..7}/*              with `order`
CSV files may end in .gz or .xz. From its authors, on request.
"""

    def __init__(
        self,
        *,
        layout: str | None = None,
        automatic: bool = False,
        order: str | Sequence[str] | None = None,
        **common: Unpack[DataArguments],
    ) -> None:
        self._order = order_named(order)
        super().__init__({"layout": layout, "automatic": automatic, "order": self._order}, **common)
        self._chosen, self._automatic = layout, automatic

    @cached_property
    def _layout(self) -> Path:
        """training.csv (or validation.csv alone), or the folder that holds sets, splits or emotions."""
        folder = self.located()
        found = []
        for place in places(folder, *_WRAPPERS):
            tables = [path for path in visible(place) if path.name.lower() in _TRAINING]
            found += tables or [path for path in visible(place) if path.name.lower() in _VALIDATION]
            if (
                (place / "train_set").is_dir()
                or (place / "val_set").is_dir()
                or _is_yolo(place)
                or holds_faces(place, self.meaning)
            ):
                found.append(place)
            found += [path for path in visible(place) if path.name.lower() == "yolo_format" and _is_yolo(path)]
        return the_only(found, self._chosen, folder, "AffectNet", self.expects)

    def sources(self) -> list[Path]:
        """The tables and the folders of the pictures, or the one folder of all."""
        if self._layout.is_dir():
            return [self._layout]
        return [path for table, images, _ in self._tables for path in (table, images)]

    @cached_property
    def _tables(self) -> list[tuple[Path, Path, str]]:
        """(table, folder of its pictures, split) of the CSV layout."""
        beside = visible(self._layout.parent)
        found = [(path, _MANUAL_IMAGES, "train") for path in beside if path.name.lower() in _TRAINING]
        found += [(path, _MANUAL_IMAGES, "val") for path in beside if path.name.lower() in _VALIDATION]
        if self._automatic:
            everywhere = [path for place in places(self.located(), *_WRAPPERS) for path in visible(place)]
            automatic = [path for path in everywhere if path.name.lower() in _AUTOMATIC]
            if not automatic:
                raise DatasetError(f"{self.located()}: automatic = true, but no automatically_annotated.csv")
            found += [(path, _AUTOMATIC_IMAGES, "train") for path in automatic]
        return [(table, self._folder_of(images), split) for table, images, split in found]

    def _folder_of(self, names: tuple[str, ...]) -> Path:
        """The innermost folder of these names, such as Manually_Annotated/Manually_Annotated_Images."""
        for place in places(self.located(), *_WRAPPERS, *names)[::-1]:
            for path in visible(place):
                if path.is_dir() and path.name.lower() in names:
                    return path
        raise DatasetError(f"{self.located()}: no folder {names[0]}. The pictures of the tables are expected there")

    def index(self) -> pd.DataFrame:
        """One row a face: a box where the layout has one, and valence and arousal (-1 to 1, missing where invalid)."""
        if self._layout.is_dir() and _is_yolo(self._layout):
            return self._from_yolo()
        npy = any((self._layout / name).is_dir() for name in _SETS)
        if npy or self._layout.is_file():
            ids = {number: label for number, label in _LABELS.items() if number not in _NO_EMOTION}
            agreed_with_definition("AffectNet's ids", ids, self._order, self._layout, self.located(), self.meaning)
            return self._from_npy() if npy else self._from_tables()
        tree = scan(self._layout, self._order, self.meaning, self.located())
        self.notes += tree.notes + _disagreements(self._layout)
        return tree.table(self.located())

    def read(self, row: Any) -> np.ndarray:
        """One face, uint8 (C, h, w), cut out by its box where it has one."""
        if not hasattr(row, "width"):
            return super().read(row)
        path = self.file(row)
        picture = self._picture(path)
        _, height, width = picture.shape
        centre, half = np.array([row.x * width, row.y * height]), np.array([row.width * width, row.height * height]) / 2
        return crop(path, picture, *np.rint([*(centre - half), *(centre + half)]).astype(int))

    def _from_tables(self) -> pd.DataFrame:
        parts = []
        left_out: Counter[str] = Counter()
        for table, images, split in self._tables:
            inside = Inside(images, self.located().parent)
            rows: list[tuple[Any, ...]] = []
            top = named(images, self.located())
            needed = ("subDirectory_filePath", "expression", *_FACE)
            for line, row in read_rows(table, needed, _COLUMNS, optional=_MEASURED):
                name = inside(table, line, "subDirectory_filePath", row["subDirectory_filePath"])
                label, problem = labelled(table, line, row, "expression", _LABELS, self.meaning)
                if label in _NO_EMOTION.values() and not self.meaning.explains(str(label)):
                    left_out[str(label)] += 1
                    continue
                x, y, width, height = (number(table, line, row, side) for side in _FACE)
                box = (x, y, x + width, y + height)  # BOX
                measured = [_measured(table, line, row, each) for each in _MEASURED]
                rows.append((f"{top}/{name}", label, *box, *measured, problem))
            parts.append(pd.DataFrame(rows, columns=["source", "label", *BOX, *_MEASURED, PROBLEM]).assign(split=split))
        self._note(left_out)
        index = pd.concat(parts, ignore_index=True)
        again = index.groupby("source").cumcount()  # a picture that a table names twice, or two tables name
        ids = index["source"].where(again == 0, index["source"] + "#" + again.astype(str))
        return index.assign(id=ids, subject=None)

    def _from_npy(self) -> pd.DataFrame:
        rows: list[tuple[Any, ...]] = []
        left_out: Counter[str] = Counter()
        others = LeftOut()
        folder, console = self.located(), Console(stderr=True)
        for top, split in ((self._layout / name, split) for name, split in _SETS.items()):
            files = visible(top / "images") if (top / "images").is_dir() else []
            hidden = not console.is_terminal
            for path in track(files, f"reading {top.name}", console=console, disable=hidden, transient=True):
                if not is_picture(path):
                    others.add(path.name)
                    continue
                of = top / "annotations" / path.stem
                row = {"": _spelt(Path(f"{of}_exp.npy"))}
                label, problem = labelled(Path(f"{of}_exp.npy"), None, row, "", _LABELS, self.meaning)
                if label in _NO_EMOTION.values() and not self.meaning.explains(str(label)):
                    left_out[str(label)] += 1
                    continue
                beside = [Path(f"{of}_{name}.npy") for name in ("val", "aro")]
                measured = [_measured(file, None, {"": _spelt(file)}, "") for file in beside]
                rows.append((named(path, folder), label, split, *measured, problem))
        self._note(left_out)
        self.notes += others.notes()
        index = pd.DataFrame(rows, columns=["source", "label", "split", *_MEASURED, PROBLEM])
        return index.assign(id=index["source"], subject=None)

    def _from_yolo(self) -> pd.DataFrame:
        rows: list[tuple[Any, ...]] = []
        empty, folder, others = 0, self.located(), LeftOut()
        for top in visible(self._layout):
            split = split_named(top.name)
            if split is None or not (top / "images").is_dir():
                continue
            for path in visible(top / "images"):
                table = top / "labels" / f"{path.stem}.txt"
                if not is_picture(path):
                    others.add(path.name)
                    continue
                if not table.is_file():
                    raise RowError(path, None, None, f"no label file {table}", "Unpack the labels again.")
                faces = list(read_words(table, _YOLO_COLUMNS))
                empty += not faces
                for line, row in faces:
                    box = [number(table, line, row, side) for side in _YOLO_COLUMNS[1:]]
                    source = named(path, folder)
                    rows.append((f"{source}#{line}", source, (table, line, row), split, *box))
        if empty:
            self.notes.append(f"{empty} pictures without a labelled face are left out")
        self.notes += others.notes()
        names = self._yolo_ids(plain(row["class"]) for _, _, (_, _, row), *_ in rows)
        told = [labelled(table, line, row, "class", names, self.meaning) for _, _, (table, line, row), *_ in rows]
        index = pd.DataFrame(rows, columns=["id", "source", "label", "split", *_YOLO_COLUMNS[1:]])
        index["label"] = pd.Series([label for label, _ in told], dtype=object)
        index[PROBLEM] = pd.Series([problem for _, problem in told], dtype=object)
        return index.assign(subject=None)

    def _yolo_ids(self, found: Iterable[str]) -> dict[str, str]:
        """What the ids of YOLO's labels mean: as data.yaml says, as `order` says, else in the order of the alphabet."""
        beside = names_beside(self._layout, self.located())
        given = None if self._order is None else Ids.of_order(self._order)
        ids = agreed([given, *beside], self.meaning, self._layout)
        if ids is None:
            ids = Ids.of_order(ORDERS["alphabetical8"], "AffectNet's alphabetical order, for want of a data.yaml")
        elif not ids.counted:
            self.notes.append(f"the ids mean what {ids.says} says: {ids.listed()}")
        numbers = {int(each) for each in found if each.isdecimal()}
        self.notes += questioned(ids, numbers, self.meaning, self._layout)
        return {str(k): name for k, name in ids.names.items()}

    def _note(self, left_out: Counter[str]) -> None:
        if left_out:
            listed = ", ".join(f"{n:,} {name}" for name, n in left_out.items())
            self.notes.append(f"faces without an emotion are left out: {listed}")


def _is_yolo(place: Path) -> bool:
    return any(
        split_named(path.name) and (path / "images").is_dir() and (path / "labels").is_dir() for path in visible(place)
    )


def _measured(path: Path, line: int | None, row: Mapping[str, str], column: str) -> float | None:
    """Valence or arousal; None where there is none, which -2, NaN, infinity and nothing say."""
    try:
        value = number(path, line, row, column) if column in row else -2
    except NoNumber:
        return None
    return None if value == -2 else value


def _spelt(path: Path) -> str:
    """The one value in a .npy file as a CSV table would have it: a whole number without a point, "" where none is.

    Raises:
        RowError: it is something else than one value.
    """
    try:
        content = BytesIO(read_small(path, _LARGEST))
        values = np.load(content, allow_pickle=False).reshape(-1)  # never unpickled: a pickle may carry code
    except (FileNotFoundError, EOFError):
        return ""  # not there, or empty
    except (OSError, ValueError, MemoryError) as error:  # the last where a header promises more than there is room for
        if isinstance(error, ValueError) and "pickle" not in str(error):
            return ""  # cut off
        raise RowError(path, None, None, f"no number ({error})", "Unpack the annotations again.") from error
    if len(values) > 1:
        raise RowError(path, None, None, f"{len(values)} values where one is expected", "Unpack the annotations again.")
    text = plain(str(values[0])) if len(values) else ""
    try:
        return f"{float(text):.0f}" if float(text).is_integer() else text
    except ValueError:
        return text


def _disagreements(place: Path) -> list[str]:
    """A note where labels.csv says another emotion than a picture's folder, which is what counts."""
    table = place / "labels.csv"
    if not table.is_file():
        return []
    rows = [row for _, row in read_rows(table, {"pth", "label"})]
    named = [(Path(row["pth"]).parent.name, row["label"]) for row in rows]
    other = sum(
        is_emotion(folder) and is_emotion(label) and canonical(folder) != canonical(label) for folder, label in named
    )
    if not other:
        return []
    return [f"labels.csv names another emotion than the folder for {other:,} of {len(rows):,} pictures"]
