"""KDEF, the Karolinska Directed Emotional Faces (Lundqvist et al. 1998)."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import DataArguments
from emobench.data.readers.layouts import the_only
from emobench.data.readers.picture_names import holding, named_pictures
from emobench.data.readers.tables import known
from emobench.data.readers.tree import named, places
from emobench.emotions import in_canonical_order
from emobench.errors import DatasetError

ANGLES = ("FL", "HL", "S", "HR", "FR")  # from profile to profile

_NAME = re.compile(rf"([AB])([FM])(\d\d)([A-Z]{{2}})({'|'.join(ANGLES)})", re.IGNORECASE)
_EMOTIONS = {
    "AF": "fear", "AN": "anger", "DI": "disgust", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise",
}  # fmt: skip
_GENDERS = {"F": "female", "M": "male"}
_WRAPPERS = ("kdef", "kdef_and_akdef")


class KDEF(EmotionDataModule):
    """4,900 posed expressions of 70 people with seven emotions, from five angles and in two sessions.

    Session, person, emotion and angle stand in each picture's name. No split is official: it is drawn, and never shares
    a person, who is the same in both sessions.

    Args:
        angle: of the pictures that are taken: S straight, HL and HR half left and right, FL and FR in profile; several
            as a list.
        layout: the folder to read, below the dataset's folder, where several are there; None: the only one.
    """

    name = "kdef"
    classes = in_canonical_order(list(_EMOTIONS.values()))
    expects = """
AF01/AF01ANS.JPG                       a folder a person and session, or
AF01ANS.JPG                            all pictures in one folder; .png and lower case too
KDEF_and_AKDEF/KDEF/, archive/ or data/ may be on top. From its authors, at kdef.se, on request.
"""

    def __init__(
        self,
        *,
        angle: Literal["S", "FL", "HL", "HR", "FR", "all"] | list[Literal["S", "FL", "HL", "HR", "FR"]] = "S",
        layout: str | None = None,
        **common: Unpack[DataArguments],
    ) -> None:
        wanted = ANGLES if angle == "all" else (angle,) if isinstance(angle, str) else tuple(angle)
        if not wanted or not set(wanted) <= set(ANGLES):
            raise DatasetError(f"kdef: angle = {angle!r}. It is one of {', '.join(ANGLES)}, a list of these, or all")
        self._angles = tuple(each for each in ANGLES if each in wanted)
        super().__init__({"angle": self._angles, "layout": layout}, **common)
        self._chosen = layout

    @cached_property
    def _layout(self) -> Path:
        """The folder of the pictures, or of the folders of people."""
        folder = self.located()
        deep = [inner for place in places(folder, *_WRAPPERS) for inner in places(place, *_WRAPPERS)]  # often doubled
        return the_only(holding(list(dict.fromkeys(deep)), _NAME), self._chosen, folder, "KDEF", self.expects)

    def sources(self) -> list[Path]:
        """The folder of the pictures."""
        return [self._layout]

    def index(self) -> pd.DataFrame:
        """One row a picture, with its person, `gender` (female, male), `angle` (as in its name) and `session`."""
        pictures, notes = named_pictures(self._layout, _NAME, "AF01ANS.JPG")
        self.notes += notes
        rows, others = [], Counter[str]()
        for path, match in pictures:
            session, gender, number, emotion, angle = (part.upper() for part in match.groups())
            label = known(path, None, {"emotion": emotion}, "emotion", _EMOTIONS, self.meaning)
            if angle not in self._angles:
                others[angle] += 1
                continue
            row = (named(path, self.located()), label, gender + number, _GENDERS[gender], angle, session)
            rows.append(row)
        told = ", ".join(f"{others[angle]:,} {angle}" for angle in ANGLES if others[angle])
        if not rows:
            wanted = ", ".join(self._angles)
            raise DatasetError(f"{self._layout}: no picture of the angle {wanted}, but {told}. Set `angle`")
        if others:
            self.notes.append(f"pictures of other angles are left out: {told}")
        index = pd.DataFrame(rows, columns=["source", "label", "subject", "gender", "angle", "session"])
        return index.assign(id=index["source"], split=None)
