"""`images:FOLDER`: faces that somebody's generator made, a folder an emotion; and edits of test faces."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from emobench.emotions import canonical, is_emotion
from emobench.errors import SuiteError
from emobench.generators.generator import EmotionGenerator

SETS = ("fidelity", "control")  # folders of their own where each set of faces is given as it is to be measured
LIST = "edits.csv"  # of edited faces
_COLUMNS = ("file", "source", "emotion")


class Pictures(EmotionGenerator):
    """Faces that somebody else's generator made for an emotion, in a folder of its name.

    They are drawn from by a seed, or taken as they are from `fidelity/` and `control/`, as `emobench generate
    --as-scored` writes them. There is nothing to train and nothing to draw.

    Args:
        directory: with a folder an emotion, by any usual spelling.
        directories: further ones, each of another training: they are the suite's seeds in turn.
    """

    name = "images"
    family = "directory"
    files = ("directory",)
    source = "the folder's own"
    recipe = None
    foreign: ClassVar[bool] = True
    measured_on: ClassVar[Sequence[str]] = ("generation",)

    def __init__(
        self, *, emotions: Sequence[str], size: int, directory: str, directories: list[str] | None = None
    ) -> None:
        super().__init__(emotions=emotions, size=size)

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], size: int) -> None:
        """Look at the folders.

        Raises:
            SuiteError: one is not there, or holds no folder of an emotion.
        """
        for folder in cls.all_folders(arguments):
            pictures_in(folder)

    @classmethod
    def all_folders(cls, arguments: Mapping[str, Any]) -> list[str]:
        """A folder a seed."""
        return [arguments["directory"], *(arguments.get("directories") or [])]

    @classmethod
    def located(cls, arguments: Mapping[str, Any]) -> list[str]:
        return ["directory"]

    @classmethod
    def shown(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Its arguments without places on this machine: each seed has its folder's content."""
        return {**arguments, "directory": cls.title(arguments), "directories": None}

    @classmethod
    def inputs(cls, arguments: Mapping[str, Any]) -> dict[str, list[Path | str]]:
        return {"directory": [Path(folder).expanduser() for folder in cls.all_folders(arguments)]}

    @classmethod
    def title(cls, arguments: Mapping[str, Any]) -> str:
        """What boards call it: the folder's name."""
        return Path(arguments["directory"]).name

    def given(self, what: str) -> dict[str, list[Path]]:
        """Its pictures for a set of faces ("fidelity" or "control"), by emotion, in the order of their names."""
        found = pictures_in(self.hparams["directory"])
        return found[what] if what in found else found.get("", {})

    @property
    def ordered(self) -> bool:
        """Whether the pictures are to be taken in their order: each set has its own."""
        return "" not in pictures_in(self.hparams["directory"])

    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """There is nothing that draws: an evaluation reads the pictures themselves."""
        raise SuiteError(f"images:{self.title(self.hparams)} is pictures, and draws none")


class EditedPictures(Pictures):
    """Test faces that somebody else's editor changed: `edits.csv` with the columns file, source and emotion.

    `source` names the test face by its id or its row, as `emobench data faces` lists them.
    """

    name = "edited-images"
    asked_for = False  # `images:` of a folder with such a list is meant
    measured_on = ("editing",)

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], size: int) -> None:
        for folder in cls.all_folders(arguments):
            edits_in(folder)

    def edits(self) -> list[tuple[Path, str, str]]:
        """Picture, id of its source and emotion of each edit."""
        return edits_in(self.hparams["directory"])

    def given(self, what: str) -> dict[str, list[Path]]:
        return {}

    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        """There is nothing that edits, likewise."""
        raise SuiteError(f"images:{self.title(self.hparams)} is pictures, and edits none")


def pictures_in(folder: str) -> dict[str, dict[str, list[Path]]]:
    """The pictures of a folder by set ("" where there is one for all) and emotion.

    Raises:
        SuiteError: it is not there, or holds no folder of an emotion.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise SuiteError(f"images:{folder}: no such folder")
    return _pictures_in(str(path), path.stat().st_mtime_ns)


@functools.cache
def _pictures_in(folder: str, stamp: int) -> dict[str, dict[str, list[Path]]]:
    path = Path(folder)
    sets = [name for name in SETS if (path / name).is_dir()]
    places = {name: path / name for name in sets} if sets else {"": path}
    if len(sets) == 1:
        raise SuiteError(f"images:{folder}: has {sets[0]}/ alone; both {' and '.join(SETS)} are wanted, or neither")
    found = {name: _by_emotion(place) for name, place in places.items()}
    for name, by_emotion in found.items():
        if not any(by_emotion.values()):
            where = f"{folder}/{name}".rstrip("/")
            raise SuiteError(f"images:{where}: holds no folder of an emotion with pictures, such as happy/1.png")
    return found


def _by_emotion(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir() and is_emotion(place.name):
            files = [each for each in sorted(place.iterdir()) if each.is_file() and not each.name.startswith(".")]
            found.setdefault(canonical(place.name), []).extend(files)
    return found


def edits_in(folder: str) -> list[tuple[Path, str, str]]:
    """Picture, id of its source and emotion of each edit in a folder.

    Raises:
        SuiteError: the list is not there, a row of it is not whole, or a file is missing.
    """
    path = Path(folder).expanduser() / LIST
    if not path.is_file():
        raise SuiteError(f"images:{folder}: no {LIST} there, though it is of edits")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(_COLUMNS) <= rows[0].keys():
        raise SuiteError(f"{path}: has no rows with the columns {', '.join(_COLUMNS)}")
    found: list[tuple[Path, str, str]] = []
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(rows, 1):
        file_, source, emotion = (str(row[name] or "").strip() for name in _COLUMNS)
        if not is_emotion(emotion):
            raise SuiteError(f"{path}, row {number}: {emotion!r} is no emotion")
        picture = path.parent / file_
        if not file_ or not picture.is_file() or not picture.resolve().is_relative_to(path.parent.resolve()):
            raise SuiteError(f"{path}, row {number}: no picture {file_} in the folder")
        if (source, canonical(emotion)) in seen:
            raise SuiteError(f"{path}, row {number}: {source} towards {emotion} stands there already")
        seen.add((source, canonical(emotion)))
        found.append((picture, source, canonical(emotion)))
    return found
