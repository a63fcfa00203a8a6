"""Any folder of faces: a folder per emotion, perhaps below a folder per split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Unpack

import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import DataArguments
from emobench.data.readers.tree import archives, holds_faces, order_named, places, scan
from emobench.errors import DatasetError, DatasetMissing


class Folder(EmotionDataModule):
    """`folder:<x>` reads `<data root>/<x>/<Emotion>/*`, or `<data root>/<x>/<split>/<Emotion>/*`.

    The usual spellings of emotions and splits are understood; the classes are the emotions that occur. Without split
    folders the split is drawn, stratified.

    Args:
        dataset: the folder's name below the data root.
        order: what numeric folder names mean: a name in `emotions.ORDERS`, or the emotions of 0, 1, …; None: such
            folders are refused where no file beside them, such as data.yaml, says it.
    """

    name = "folder"
    family = "dataset"
    expects = """
<Emotion>/*.jpg                        a folder per emotion (happy, happiness, joy; anger, angry; …), or
{train,val,test}/<Emotion>/*.jpg       the same below split folders (valid, validation too; test or val may be missing)
Your own names for emotions by `labels`, such as --set 'labels={ happy = "Freude" }', and others by `ignore`.
"""

    def __init__(
        self,
        *,
        dataset: str,
        order: str | Sequence[str] | None = None,
        **common: Unpack[DataArguments],
    ) -> None:
        self._order = order_named(order)
        super().__init__({"order": self._order}, **common)
        self.dataset = dataset

    @cached_property
    def _top(self) -> Path:
        """The folder that holds emotions, or splits."""
        folder = self.located()
        found = [place for place in places(folder) if holds_faces(place, self.meaning)]
        if len(found) > 1:
            listed = ", ".join(str(place) for place in found)
            raise DatasetError(f"{folder}: faces in several places: {listed}. Keep one, or name it folder:<x>/<place>")
        if not found and (packed := archives(folder)):
            raise DatasetMissing(f"{folder}: only archives. Unpack {', '.join(path.name for path in packed)} first")
        return found[0] if found else folder

    def sources(self) -> list[Path]:
        """The folder of all pictures."""
        return [self._top]

    def index(self) -> pd.DataFrame:
        """One row a picture."""
        tree = scan(self._top, self._order, self.meaning, self.located())
        self.notes += tree.notes
        return tree.table(self.located())
