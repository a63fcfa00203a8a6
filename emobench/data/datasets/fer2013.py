"""FER-2013 (Goodfellow et al. 2013, "Challenges in representation learning", section 2) in the forms people have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import DataArguments
from emobench.data.readers.beside import agreed_with_definition
from emobench.data.readers.layouts import the_only
from emobench.data.readers.pixel_table import USAGE, PixelTable, public_as_test, read_pixel_tables
from emobench.data.readers.tables import table_names
from emobench.data.readers.tree import Tree, holds_faces, order_named, places, scan, visible
from emobench.emotions import ORDERS, in_canonical_order
from emobench.errors import RowError

LABELS = {str(number): emotion for number, emotion in enumerate(ORDERS["fer2013"])}
_TABLES = table_names("fer2013", "icml_face_data", "train")


class FER2013(EmotionDataModule):
    """35,887 gray faces of 48 px with seven emotions: Training, PublicTest and PrivateTest are the official splits.

    Where PrivateTest is missing, PublicTest is the test split and validation is carved from Training.

    Args:
        layout: the file or folder to read, below the dataset's folder, where several are there; None: the only one.
        order: what numeric folder names mean: a name in `emotions.ORDERS`, or the emotions of 0, 1, …; None: such
            folders are refused where no file beside them, such as data.yaml, says it.
    """

    name = "fer2013"
    classes = in_canonical_order(ORDERS["fer2013"])
    expects = """
fer2013.csv                            emotion,pixels,Usage; or
icml_face_data.csv                     emotion, Usage, pixels; or
train.csv                              emotion,pixels: the contest's, without official splits; or
{train,test}/<emotion>/*.jpg           with PublicTest_* and PrivateTest_* in test/, or with a val/ of its own; or
{Training,PublicTest,PrivateTest}/<emotion>/*.jpg
CSV files may end in .gz or .xz; archive/, data/ or images/ may be on top. From kaggle.com: fer2013 (msambare), or the
contest "Challenges in Representation Learning: Facial Expression Recognition Challenge".
"""

    def __init__(
        self,
        *,
        layout: str | None = None,
        order: str | Sequence[str] | None = None,
        **common: Unpack[DataArguments],
    ) -> None:
        self._order = order_named(order)
        super().__init__({"layout": layout, "order": self._order}, **common)
        self._chosen = layout

    @cached_property
    def _layout(self) -> Path:
        """The CSV file, or the folder that holds splits or emotions."""
        folder = self.located()
        found = [
            path
            for place in places(folder)
            for path in (
                *[p for p in visible(place) if p.name.lower() in _TABLES],
                *[place] * holds_faces(place, self.meaning),
            )
        ]
        return the_only(found, self._chosen, folder, "FER-2013", self.expects)

    @cached_property
    def _tree(self) -> Tree:
        tree = scan(self._layout, self._order, self.meaning, self.located())
        tree.files = [(name, label, _official(name, split)) for name, label, split in tree.files]
        return tree

    @cached_property
    def _table(self) -> PixelTable:
        agreed_with_definition("FER-2013's ids", LABELS, self._order, self._layout, self.located(), self.meaning)
        return read_pixel_tables(self.sources(), self.located(), LABELS, self.meaning)

    def sources(self) -> list[Path]:
        """The CSV file (the contest's test.csv comes after its train.csv), or the folder of the pictures."""
        if not self._layout.name.startswith("train.csv"):
            return [self._layout]
        return [self._layout, *(path for path in visible(self._layout.parent) if path.name.startswith("test.csv"))]

    def index(self) -> pd.DataFrame:
        """One row a face; a CSV file's rows in their order, numbered from 0 in `id`."""
        if self._layout.is_dir():
            self.notes += self._tree.notes
            return self._tree.table(self.located())
        index, notes = public_as_test(self._table.index)
        self.notes += [*self._table.notes, *notes]
        return index

    def read_many(self, rows: pd.DataFrame) -> Iterator[np.ndarray | RowError]:
        """The faces of rows of the index, in their order."""
        if self._layout.is_dir():
            yield from super().read_many(rows)
        else:
            yield from self._table.read(rows)


def _official(name: str, split: str | None) -> str | None:
    """The official split: copies that are sorted into train/ and test/ keep it in the names of the test files."""
    if split != "test":
        return split
    return USAGE.get(name.rpartition("/")[2].partition("_")[0], split)
