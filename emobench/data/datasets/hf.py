"""Any Hugging Face dataset on disk: Parquet files as the hub has them, or a folder that `datasets` has saved."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import DataArguments
from emobench.data.readers.beside import DESCRIPTIONS, columns_beside, names_beside
from emobench.data.readers.columns import ColumnFile, Pictures, picture_name
from emobench.data.readers.hub import Columns, Found, Part, descriptions, look, parts_of
from emobench.data.readers.images import read_bytes
from emobench.data.readers.labels import PROBLEM, Ids, agreed, known_orders, questioned
from emobench.data.readers.layouts import the_only
from emobench.data.readers.tables import NoNumber, holds_nothing, known
from emobench.data.readers.tree import holds_faces, named, order_named
from emobench.errors import DatasetError, DatasetMissing, RowError, shown

SLICES = ("age", "gender", "race", "angle", "glasses")  # columns that are kept, whatever their case
_NO_LABEL = "-1"  # how `datasets` writes that a row has none


class HuggingFace(EmotionDataModule):
    """`hf:<x>` reads `<data root>/<x>/`: Parquet files of pictures and labels, or what `datasets` has saved there.

    A picture is a struct of its bytes and path, or bytes; a label a ClassLabel, whose names stand in the file or in
    README.md, a whole number (with `names`), or a text. Splits go by the names of files and folders: train, validation
    (valid, val, dev), test. Nothing of `datasets` is needed, no program that lies there is run, and pictures are read
    one batch after the other. Columns called age, gender, race, angle or glasses are kept. Faces are numbered from 0 in
    each file.

    Args:
        dataset: the folder's name below the data root.
        image_column: the column of the pictures; None: the only one of its kind.
        label_column: the column of the emotions; None: the only one of its kind.
        subject_column: the column of the person, who then never crosses a drawn split; None: no person is known.
        names: what the ids 0, 1, … mean: emotions, or a name in `emotions.ORDERS`; None: as the files say.
        layout: the folder to read, below the dataset's folder, where several are there; None: the only one.
    """

    name = "hf"
    family = "dataset"
    expects = """
data/train-00000-of-00002.parquet      with data/test-….parquet; validation-…, train.parquet and train/*.parquet too
{train,test}/data-00000-of-00001.arrow with state.json and dataset_info.json, as `datasets.save_to_disk` writes them
A column of pictures (bytes and path) and one of labels. As `hf download <name> --repo-type dataset --local-dir <x>`.
"""

    def __init__(
        self,
        *,
        dataset: str,
        image_column: str | None = None,
        label_column: str | None = None,
        subject_column: str | None = None,
        names: str | list[str] | None = None,
        layout: str | None = None,
        **common: Unpack[DataArguments],
    ) -> None:
        self._names = order_named(names) if isinstance(names, str) else None if names is None else tuple(names)
        columns = {"image_column": image_column, "label_column": label_column, "subject_column": subject_column}
        super().__init__({**columns, "names": self._names, "layout": layout}, **common)
        self.dataset, self._chosen = dataset, layout
        self._image_column, self._label_column, self._subject_column = image_column, label_column, subject_column

    # ---- files ---------------------------------------------------------------------------------------------------

    @cached_property
    def _found(self) -> Found:
        return look(self.located())

    @cached_property
    def _layout(self) -> Path:
        """The folder of the files, or of the folders of splits."""
        folder, found = self.located(), self._found
        if not found.layouts:
            if found.scripts:
                listed = ", ".join(named(path, folder) for path in found.scripts)
                remedy = "Save what it loads by `datasets.save_to_disk`, or fetch the hub's branch refs/convert/parquet"
                raise DatasetMissing(f"{folder}: only a program, {listed}, which is never run. {remedy}")
            if found.streams:
                remedy = "Save the dataset again by `datasets.save_to_disk`, which writes state.json beside"
                raise DatasetMissing(f"{found.streams[0]}: Arrow files without state.json. {remedy}")
            if holds_faces(folder, self.meaning):
                raise DatasetMissing(f"{folder}: folders of pictures. Name it folder:{folder.name}")
        return the_only(found.layouts, self._chosen, folder, "Hugging Face dataset", self.expects)

    @cached_property
    def _parts(self) -> list[Part]:
        return parts_of(self._layout, self._found.layouts[self._layout])

    def sources(self) -> list[Path]:
        """The files, and those that say which of them count."""
        more = descriptions(self._layout, self._found.layouts[self._layout])
        return [*(part.file.path for part in self._parts), *more]

    # ---- columns -------------------------------------------------------------------------------------------------

    @cached_property
    def _columns(self) -> dict[ColumnFile, Columns]:
        return {part.file: Columns.of(part.file) for part in self._parts}

    @cached_property
    def _image(self) -> str:
        """The column of the pictures."""
        found = dict.fromkeys(name for columns in self._columns.values() for name in columns.pictures)
        chosen = self._one("pictures", "image_column", self._image_column, list(found))
        for file, columns in self._columns.items():
            if chosen not in columns.pictures:
                raise RowError(file.path, None, chosen, "no such column of pictures", "Fetch the file again.")
        return chosen

    @cached_property
    def _label(self) -> str:
        """The column of the emotions: a ClassLabel where there is one, else of whole numbers or of texts."""
        every = [*self._columns.values()]
        found = [name for columns in every for name in columns.named]
        numbers = [name for columns in every for name in columns.numbers]
        found += [name for name in numbers if any(name in said for _, said in self._beside)]
        if self._names is not None:
            found += numbers
        elif not found:
            found = [*numbers, *(name for columns in every for name in columns.texts)]
        chosen, others = self._label_column, {*SLICES, str(self._subject_column).lower()}
        if chosen is not None:
            return self._one("labels", "label_column", chosen, [name for columns in every for name in columns.plain])
        found = [name for name in dict.fromkeys(found) if name.lower() not in others]
        return self._one("labels", "label_column", None, found)

    @cached_property
    def _beside(self) -> list[tuple[str, dict[str, dict[int, str]]]]:
        """(file, column -> id -> name) of the descriptions beside the data."""
        return columns_beside(self._parts[0].file.path, self.located())

    @cached_property
    def _ids(self) -> Ids | None:
        """What the ids in the column of labels mean, where anything says it."""
        said = [] if self._names is None else [Ids.of_order(self._names, "`names`")]
        for file, columns in self._columns.items():
            if self._label in columns.named:
                said.append(Ids(file.path.relative_to(self.located()).as_posix(), columns.named[self._label], False))
        said += [Ids(file, columns[self._label], False) for file, columns in self._beside if self._label in columns]
        lists = names_beside(self._parts[0].file.path, self.located())
        said += [each for each in lists if each.says.rpartition("/")[2] not in DESCRIPTIONS]
        return agreed(said, self.meaning, self._layout)

    def _one(self, what: str, option: str, chosen: str | None, found: Sequence[str]) -> str:
        """The chosen column, or the only one."""
        if chosen in found or (chosen is None and len(found) == 1):
            return str(chosen or found[0])
        listed = ", ".join(shown(name) for name in found) or "none"
        if chosen is not None:
            raise DatasetError(f"{self._layout}: no column '{chosen}' of {what}. There are: {listed}")
        if not found:
            every = ", ".join(dict.fromkeys(name for file in self._columns for name in file.schema().names))
            raise DatasetError(f"{self._layout}: no column of {what} among {shown(every)}. Expected: {self.expects}")
        raise DatasetError(f"{self._layout}: several columns of {what}: {listed}. Choose one by `{option}`")

    # ---- faces ---------------------------------------------------------------------------------------------------

    def index(self) -> pd.DataFrame:
        """One row a row of the files, numbered in each from 0 by `row`, and those of `SLICES` that are there."""
        assert self._image  # without pictures nothing else is worth saying
        self._say_what_is_left_out()
        parts = [self._of(part) for part in self._parts if self._has_labels(part)]
        index = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["label", "split"])
        for name in [name for name in SLICES if name in index]:
            index[name] = _of_one_kind(index[name])
        empty = index["label"].isna().groupby(index["split"], dropna=False).all()
        for split in [] if empty.all() else empty.index[empty]:
            mine = index["split"].isna() if pd.isna(split) else index["split"] == split
            self.notes.append(f"{split} has no labels: its {mine.sum():,} rows are not used")
            index = index[~mine]
        if not parts:
            raise DatasetError(f"{self._layout}: no file has a column {self._label}")
        self._say_what_ids_mean(set(index["label"].dropna()))
        return index.assign(id=index["source"] + "#" + index["row"].astype(str)).reset_index(drop=True)

    def _has_labels(self, part: Part) -> bool:
        """Whether a file has the column of labels; one without it, such as a contest's test set, is not used."""
        if self._label in self._columns[part.file].plain:
            return True
        name = named(part.file.path, self.located())
        self.notes.append(f"{name} has no column {self._label}: its {part.file.rows():,} rows are not used")
        return False

    def _of(self, part: Part) -> pd.DataFrame:
        """The rows of one file, without the pictures."""
        file, columns = part.file, self._columns[part.file]
        wanted = {"label": self._label} | {name.lower(): name for name in columns.plain if name.lower() in SLICES}
        if self._subject_column is not None:
            wanted["subject"] = self._one("people", "subject_column", self._subject_column, columns.plain)
        read = list(dict.fromkeys(wanted.values()))
        found = dict(zip(read, zip(*file.values(read), strict=True), strict=False))  # nothing, of an empty file
        labels = [self._meant(file, k, value) for k, value in enumerate(found.get(self._label, ()))]
        table = pd.DataFrame(
            {
                "source": named(file.path, self.located()),
                "row": range(len(labels)),
                "label": pd.Series([label for label, _ in labels], dtype=object),
                PROBLEM: pd.Series([problem for _, problem in labels], dtype=object),
                "split": pd.Series([part.split] * len(labels), dtype=object),
                "subject": None,
            }
        )
        for name, column in wanted.items():
            if name != "label":
                names = columns.named.get(column, {})
                values = [names.get(value, value) for value in found.get(column, ())]
                table[name] = pd.Series(values, dtype=object)
        if self._subject_column is not None:
            table["subject"] = table["subject"].map(str, na_action="ignore")
        return table

    def _meant(self, file: ColumnFile, row: int, value: Any) -> tuple[str | None, NoNumber | None]:
        """(label, None), or of a row without one (None, why its face is excluded)."""
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        text = "" if value is None else str(value)
        number = isinstance(value, int) or (self._ids is not None and text.isdecimal())
        if text == "" or (number and text == _NO_LABEL) or holds_nothing(text):
            return None, NoNumber(file.path, row, self._label, "no label", "Label it, or remove the row.")
        if not number:
            return text, None
        if self._ids is None and not self.meaning.explains(text):
            remedy = f'Set `names`, such as names = ["anger", "happy"]; {known_orders()}'
            raise RowError(file.path, row, self._label, f"the id {text}, and nothing says what it means", remedy)
        names = {} if self._ids is None else self._spelt
        return known(file.path, row, {self._label: text}, self._label, names, self.meaning), None

    @cached_property
    def _spelt(self) -> dict[str, str]:
        """Id, as text -> name."""
        return {} if self._ids is None else {str(k): name for k, name in self._ids.names.items()}

    def read(self, row: Any) -> np.ndarray:
        """One face, uint8 (C, h, w)."""
        file = self._files[row.source]
        return read_bytes(picture_name(file.path, row.row), self._pictures.read(file, row.row))

    @cached_property
    def _files(self) -> dict[str, ColumnFile]:
        return {named(part.file.path, self.located()): part.file for part in self._parts}

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures(self._image)

    # ---- what is said --------------------------------------------------------------------------------------------

    def _say_what_is_left_out(self) -> None:
        """Programs, which are never run, and files that are no data."""
        if self._found.scripts:
            listed = ", ".join(named(path, self.located()) for path in self._found.scripts)
            self.notes.append(f"programs are left out, and never run: {listed}")
        self.notes += self._found.others.notes()

    def _say_what_ids_mean(self, labels: set[str]) -> None:
        """What the ids mean, as the files say; of an order that the user gives, what speaks against it."""
        ids = self._ids
        if ids is None or not any(self._label in (*each.named, *each.numbers) for each in self._columns.values()):
            return
        if not ids.counted:
            self.notes.append(f"the ids mean what {ids.says} says: {ids.listed()}")
        met = [k for k, name in ids.names.items() if name in labels]
        self.notes += questioned(ids, met, self.meaning, self._layout)


def _of_one_kind(values: pd.Series) -> pd.Series:
    """Numbers where all are numbers, else texts."""
    known = values.dropna()
    if known.map(lambda value: isinstance(value, int | float) and not isinstance(value, bool)).all():
        return pd.to_numeric(values)
    return values.map(str, na_action="ignore").astype(object)
