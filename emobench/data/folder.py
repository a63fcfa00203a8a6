"""Any folder of faces: a folder per emotion, perhaps below a folder per split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.tree import Tree, archives, holds_faces, order_named, places, scan
from emobench.errors import DatasetError


class Folder(EmotionDataModule):
    """`folder:<x>` reads `<data root>/<x>/<Emotion>/*`, or `<data root>/<x>/<split>/<Emotion>/*`.

    The usual spellings of emotions and splits are understood; the classes are the emotions that occur. Without split
    folders the split is drawn, stratified.

    Args:
        dataset: the folder's name below the data root.
        order: what numeric folder names mean: a name in `emotions.ORDERS`, or the emotions of 0, 1, …; None: refused.
    """

    name = "folder"
    family = "dataset"
    expects = """
<Emotion>/*.jpg                        a folder per emotion (happy, happiness, joy; anger, angry; …), or
{train,val,test}/<Emotion>/*.jpg       the same below split folders (valid, validation too; test or val may be missing)
"""

    def __init__(
        self,
        *,
        dataset: str,
        folder: Path | None = None,
        size: int = 48,
        cache: Path | None = None,
        order: str | Sequence[str] | None = None,
    ) -> None:
        self._order = order_named(order)
        super().__init__(folder=folder, size=size, cache=cache, order=self._order)
        self.dataset = dataset

    @cached_property
    def _tree(self) -> Tree:
        folder = self.located()
        found = [place for place in places(folder) if holds_faces(place)]
        if len(found) > 1:
            listed = ", ".join(str(place) for place in found)
            raise DatasetError(f"{folder}: faces in several places: {listed}. Keep one, or name it folder:<x>/<place>")
        if not found and (packed := archives(folder)):
            raise DatasetError(f"{folder}: only archives. Unpack {', '.join(path.name for path in packed)} first")
        return scan(found[0] if found else folder, self._order)

    def sources(self) -> list[Path]:
        """Every picture."""
        return [path for path, _, _ in self._tree.files]

    def index(self) -> pd.DataFrame:
        """One row a picture."""
        self.notes += self._tree.notes
        return self._tree.table(self.located())
