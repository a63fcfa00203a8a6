"""JAFFE, Japanese Female Facial Expression (Lyons et al. 1998, "Coding facial expressions with Gabor wavelets")."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Unpack

import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import DataArguments
from emobench.data.readers.layouts import the_only
from emobench.data.readers.picture_names import holding, named_pictures
from emobench.data.readers.tables import known
from emobench.data.readers.tree import named, places
from emobench.emotions import in_canonical_order

_NAME = re.compile(
    r"([A-Z]{2})\.([A-Z]{2})(\d+)\.(\d+)", re.IGNORECASE
)  # person, emotion and its number, number of all
_EMOTIONS = {
    "AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise",
}  # fmt: skip
_WRAPPERS = ("jaffe", "jaffedbase", "jaffeimages", "jaffe_dataset")


class JAFFE(EmotionDataModule):
    """213 posed expressions of ten Japanese women with seven emotions, gray, 256 px.

    Person and emotion stand in each picture's name. No split is official: it is drawn, and never shares a person. With
    ten people `cross_validate = 10` reads each one by a network that has not seen her.

    Args:
        layout: the folder to read, below the dataset's folder, where several are there; None: the only one.
    """

    name = "jaffe"
    classes = in_canonical_order(list(_EMOTIONS.values()))
    expects = """
KA.AN1.39.tiff                         all pictures in one folder, or one deeper; .tif, .png or .jpg too
jaffe/, archive/ or data/ may be on top. From its authors, at zenodo.org, on request.
"""

    def __init__(self, *, layout: str | None = None, **common: Unpack[DataArguments]) -> None:
        super().__init__({"layout": layout}, **common)
        self._chosen = layout

    @cached_property
    def _layout(self) -> Path:
        """The folder of the pictures."""
        folder = self.located()
        return the_only(holding(places(folder, *_WRAPPERS), _NAME), self._chosen, folder, "JAFFE", self.expects)

    def sources(self) -> list[Path]:
        """The folder of the pictures."""
        return [self._layout]

    def index(self) -> pd.DataFrame:
        """One row a picture, with its person."""
        pictures, notes = named_pictures(self._layout, _NAME, "KA.AN1.39.tiff")
        self.notes += notes
        rows = []
        for path, match in pictures:
            person, emotion = match[1].upper(), {"emotion": match[2].upper()}
            label = known(path, None, emotion, "emotion", _EMOTIONS, self.meaning)
            rows.append((named(path, self.located()), label, person))
        index = pd.DataFrame(rows, columns=["source", "label", "subject"])
        return index.assign(id=index["source"], split=None)
