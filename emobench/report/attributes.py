"""What is known of test faces beside their emotion, by the rows of their dataset.

Of drawn faces all follows from the numbers of their rows. Of other datasets it stands in the manifest that this
machine's cache keeps of them, and nowhere in a board: it is found where the dataset was read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.data.drawn.parameters import VARIANTS, Variant, emotion_weights, identities, scenes
from emobench.data.pack import default_cache
from emobench.data.split import SPLITS
from emobench.emotions import EMOTIONS, canonical
from emobench.errors import DatasetError
from emobench.runner.record import Record
from emobench.suite.keys import DRAWN, datasets_in, name_of

Ints = NDArray[np.int64]

PEOPLE = 1_000_000  # by which the people of its splits are numbered apart
_PER_PERSON = 10  # its faces
_SILENT = ("fer2013", "ferplus", "ckplus", "jaffe", "expw", "affectnet")  # say nothing that divides faces
_GIVEN = ("gender", "age", "race", "angle", "glasses")  # columns of other datasets that are slices
_MOST = 12  # values of such a column; one with more names no groups
_AGES = (0, 20, 40, 60)  # years from which on a slice goes, where ages are numbers


@dataclass(frozen=True)
class Attribute:
    """What divides faces into slices.

    Attributes:
        slices: L names, in an order of their own.
        of: (N,) the slice of each face; −1: it is in none.
    """

    name: str
    slices: tuple[str, ...]
    of: Ints


def dataset_of(record: Record) -> dict[str, Any]:
    """What a record's keys hold of the dataset that its cell was evaluated on."""
    return datasets_in(record.made_of.fit)[int(record.made_of.eval.get("part") or 0)]


def is_drawn(record: Record) -> bool:
    """Whether the faces that a cell was evaluated on are drawn by emobench, so that they are nobody's."""
    return catalogue_name(record) == DRAWN


def catalogue_name(record: Record) -> str:
    """The name of the dataset's class that a cell was evaluated on; "": a class of the user's own, in an old record."""
    try:
        return name_of(dataset_of(record))
    except (KeyError, IndexError):
        return ""


class Lookup:
    """Where the attributes of a dataset's faces are found.

    Attributes:
        reason: why they are not; None: they are, though a dataset may give none.
    """

    def __init__(self, record: Record) -> None:
        self.reason: str | None = None
        self._find: Callable[[Ints], list[Attribute]] = lambda rows: []
        if is_drawn(record):
            self._find = _drawn(record)
            return
        if catalogue_name(record) in _SILENT:
            return
        assert record.evaluation is not None
        table = _kept(record.evaluation.dataset.fingerprint)
        if table is None:
            self.reason = (
                "what the dataset says of its faces is not at hand, since this machine's cache has not read it. Where "
                "the data is, emobench bench SUITE --dry-run reads it, and emobench report then finds it"
            )
        else:
            self._find = lambda rows: _given(table.reindex(rows))

    def of(self, rows: Ints) -> list[Attribute]:
        """The attributes of faces by which at least two groups of them can be told apart; rows (N,) of the dataset."""
        return [each for each in self._find(rows) if len(np.unique(each.of[each.of >= 0])) > 1]


# Drawn faces


def _drawn(record: Record) -> Callable[[Ints], list[Attribute]]:
    arguments = dataset_of(record).get("arguments", {})
    variant, seed = VARIANTS.get(arguments.get("variant", "standard")), arguments.get("draw_seed", 0)
    counts = [arguments.get(split) for split in SPLITS]
    only = arguments.get("only")
    wanted = set(EMOTIONS) if only is None else {canonical(each) for each in only}
    emotions = np.array([k for k, name in enumerate(EMOTIONS) if name in wanted])
    if variant is None or not all(isinstance(each, int) for each in (seed, *counts)):
        return lambda rows: []
    starts = np.concatenate([[0], np.cumsum(counts)])

    def found(rows: Ints) -> list[Attribute]:
        split = np.searchsorted(starts, rows, "right") - 1
        place = rows - starts[split]
        person, face = split * PEOPLE + place // _PER_PERSON, place % _PER_PERSON
        return drawn(variant, seed, person, face, emotions[place % len(emotions)])

    return found


def drawn(variant: Variant, draw_seed: int, person: Ints, face: Ints, emotion: Ints) -> list[Attribute]:
    """The attributes of drawn faces (N,): of the person, of the scene, and how strongly the emotion is shown."""
    who, scene = identities(draw_seed, person), scenes(variant, draw_seed, person, face)
    intensity = 1 - emotion_weights(variant, draw_seed, person, face, emotion)[:, 0]
    turned = np.digitize(np.abs(scene["yaw"]), (5, 10))
    strength = np.where(emotion == EMOTIONS.index("neutral"), -1, np.digitize(intensity, (0.5, 0.75)))
    return [
        Attribute("skin tone", ("light", "medium", "dark"), np.digitize(who["skin"], (1 / 3, 2 / 3))),
        Attribute("glasses", ("without", "with"), (who["glasses"] > 0).astype(np.int64)),
        Attribute("beard", ("without", "with"), (who["beard"] > 0).astype(np.int64)),
        Attribute("occlusion", ("free", "covered"), (scene["covered"] > 0).astype(np.int64)),
        Attribute("pose", ("frontal (< 5°)", "turned (5–10°)", "far (≥ 10°)"), turned),
        Attribute("intensity", ("weak (< 0.5)", "medium (0.5–0.75)", "strong (≥ 0.75)"), strength),
    ]


# Other datasets


def _kept(fingerprint: str) -> pd.DataFrame | None:
    """What the cache has of a dataset's faces, a row a face; None: it has nothing."""
    try:
        folders = [path.parent for path in sorted((default_cache() / "plans").glob("*/manifest.json"))]
    except DatasetError:  # there is no home folder
        return None
    for folder in folders:
        try:
            if fingerprint in (folder / "manifest.json").read_text(encoding="utf-8"):
                return pd.read_parquet(folder / "faces.parquet")
        except (OSError, ValueError):  # damaged: another may be whole
            continue
    return None


def _given(faces: pd.DataFrame) -> list[Attribute]:
    return [found for name in _GIVEN if name in faces and (found := _named(name, faces[name])) is not None]


def _named(name: str, values: pd.Series) -> Attribute | None:
    """A column as slices; None: it has too many values to name groups."""
    known = values.dropna()
    if name == "age" and pd.api.types.is_numeric_dtype(known) and known.nunique() > 2:
        of = np.where(values.isna(), -1, np.digitize(values.fillna(0), _AGES) - 1)
        return Attribute(name, _ranges(_AGES), of)
    texts = values.map(str, na_action="ignore")
    names = sorted(texts.dropna().unique(), key=_number_first)
    if len(names) > _MOST:
        return None
    places = {each: place for place, each in enumerate(names)}
    return Attribute(name, tuple(names), texts.map(places).fillna(-1).to_numpy(np.int64))


def _ranges(starts: Sequence[int]) -> tuple[str, ...]:
    """0–19, 20–39, …, from 60"""
    within = [f"{low}–{high - 1}" for low, high in itertools.pairwise(starts)]
    return (*within, f"from {starts[-1]}")


def _number_first(text: str) -> tuple[float, str]:
    """Groups such as 4-19 and 20-39 by their numbers, others by their names."""
    found = re.match(r"\d+", text)
    return (float(found[0]) if found else float("inf"), text)
