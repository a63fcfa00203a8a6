"""ExpW, Expression in-the-Wild (Zhang et al. 2018, "From facial expression recognition to interpersonal relation")."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Unpack

import pandas as pd
from annotated_types import Ge, Le

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import BOX, DataArguments
from emobench.data.readers.beside import agreed_with_definition
from emobench.data.readers.images import is_picture
from emobench.data.readers.labels import PROBLEM
from emobench.data.readers.layouts import the_only
from emobench.data.readers.tables import Inside, labelled, number, read_words
from emobench.data.readers.tree import archives, named, places
from emobench.emotions import ORDERS, in_canonical_order
from emobench.errors import DatasetError

_COLUMNS = ("image_name", "face_id", "top", "left", "right", "bottom", "confidence", "label")  # as the file has them
_LABELS = {str(number): emotion for number, emotion in enumerate(ORDERS["fer2013"])}
_IMAGES = ("image/origin", "origin", "image", "images/origin", "images")


class ExpW(EmotionDataModule):
    """91,793 faces from the web with seven emotions, cut out by their boxes; several may lie in one picture.

    No split is official and no subject is known: the split is drawn, stratified, and the faces of one picture stay
    together.

    Args:
        layout: the label file to read, relative to the dataset's folder, where several are there; None: the only one.
        confidence: the face detector's least confidence, 0 to 100; faces below it are left out and counted.
    """

    name = "expw"
    classes = in_canonical_order(ORDERS["fer2013"])
    together = ("hash", "source")
    expects = """
label/label.lst                        image_name face_id top left right bottom confidence label; or label.lst
image/origin/*.jpg                     the pictures
data/ may be on top. From its authors' page at the Multimedia Lab, CUHK.
"""

    def __init__(
        self,
        *,
        layout: str | None = None,
        confidence: Annotated[float, Ge(0), Le(100)] = 0.0,
        **common: Unpack[DataArguments],
    ) -> None:
        super().__init__({"layout": layout, "confidence": confidence}, **common)
        self._chosen, self._confidence = layout, confidence

    @cached_property
    def _layout(self) -> Path:
        """The label file."""
        folder = self.located()
        inside = [place / name for place in places(folder) for name in ("label/label.lst", "label.lst")]
        found = [path for path in inside if path.is_file()]
        return the_only(found, self._chosen, folder, "ExpW", self.expects)

    @cached_property
    def _images(self) -> Path:
        """The folder of the pictures."""
        top = self._layout.parent.parent if self._layout.parent.name == "label" else self._layout.parent
        found = next((top / name for name in _IMAGES if _has_pictures(top / name)), None)
        if found is None:
            packed = ", ".join(
                path.name for place in (top, top / "image") if place.is_dir() for path in archives(place)
            )
            remedy = f"Unpack {packed} first" if packed else "The pictures are expected in image/origin/"
            raise DatasetError(f"{top}: label.lst without pictures. {remedy}")
        return found

    def sources(self) -> list[Path]:
        """The label file and the folder of the pictures."""
        return [self._layout, self._images]

    def index(self) -> pd.DataFrame:
        """One row a face, with its box (px) and the detector's confidence."""
        inside, table, unsure = Inside(self._images, self.located().parent), self._layout, 0
        rows: list[tuple[object, ...]] = []
        agreed_with_definition("ExpW's ids", _LABELS, None, table, self.located(), self.meaning)
        for line, row in read_words(table, _COLUMNS):
            name = inside(table, line, "image_name", row["image_name"])
            label, problem = labelled(table, line, row, "label", _LABELS, self.meaning)
            box = [number(table, line, row, side) for side in BOX]
            sure = number(table, line, row, "confidence")
            if sure < self._confidence:
                unsure += 1
            else:
                rows.append((name, line, label, *box, sure, problem))
        if unsure:
            self.notes.append(f"{unsure:,} faces with a confidence below {self._confidence:g} are left out")
        index = pd.DataFrame(rows, columns=["name", "line", "label", *BOX, "confidence", PROBLEM])
        top = named(self._images, self.located())
        source = index["name"].radd(f"{top}/")
        return index.assign(source=source, id=source + "#" + index["line"].astype(str), subject=None, split=None).drop(
            columns=["name", "line"]
        )


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(is_picture(folder / name) for name in os.listdir(folder))
