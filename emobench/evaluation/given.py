"""Faces that somebody made elsewhere, taken where a generator of ours would draw them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emobench.data.readers.images import read_face, resized
from emobench.errors import EmobenchError, RowError
from emobench.evaluation.protocol import CHOICE_SEED


def is_given(model: Any) -> bool:
    """Whether a model is pictures, and draws nothing."""
    return hasattr(model, "given")


def answered(model: Any, emotions: tuple[str, ...], asked: np.ndarray, what: str) -> np.ndarray:
    """(N,) whether there is a picture for each of the requests (N,) of a set of faces: all, where a model draws."""
    if not is_given(model):
        return np.ones(len(asked), bool)
    files, place = model.given(what), _places(asked)
    there = np.array([len(files.get(emotion, ())) for emotion in emotions])
    return np.asarray(place < there[asked])


def chosen(model: Any, emotions: tuple[str, ...], asked: np.ndarray, what: str) -> list[Path]:
    """The picture of each request (N,): in their order, else by a seeded draw, in which "control" takes others than
    "fidelity" as far as there are enough."""
    files, place = model.given(what), _places(asked)
    wanted = np.bincount(asked, minlength=len(emotions))
    drawn: dict[int, list[Path]] = {}
    for k, emotion in enumerate(emotions):
        mine = files.get(emotion, [])
        if not model.ordered:
            order = np.random.default_rng([CHOICE_SEED, k]).permutation(len(mine))
            order = order[-wanted[k] :] if what == "control" else order
            mine = [mine[each] for each in order]
        drawn[k] = mine
    return [drawn[k][n] for k, n in zip(asked.tolist(), place.tolist(), strict=True)]


def read(paths: list[Path], size: int) -> np.ndarray:
    """Pictures as faces uint8 (N, 3, size, size), resized as those of our own rows are.

    Raises:
        RowError: one cannot be read.
    """
    found = np.empty((len(paths), 3, size, size), np.uint8)
    for row, path in enumerate(paths):
        face = read_face(path)
        found[row] = np.broadcast_to(resized(face, size), (3, size, size))
    return found


@dataclass(frozen=True)
class Edits:
    """Which of the edits that are asked for are given.

    Attributes:
        known: (N,) bool.
        paths: of those.
    """

    known: np.ndarray
    paths: list[Path]


def given_edits(model: Any, data: Any, rows: np.ndarray, asked: np.ndarray) -> Edits:
    """The pictures of edits of rows (N,) of the dataset towards emotions (N,).

    Raises:
        EmobenchError: none of them is given.
    """
    by_place = {(source, emotion): path for path, source, emotion in model.edits()}
    ids = data.faces["id"].iloc[rows]
    found = [by_place.get((str(id_), data.emotions[k])) for id_, k in zip(ids, asked, strict=True)]
    known = np.array([each is not None for each in found])
    if not known.any():
        some = ", ".join(f"{id_} towards {data.emotions[k]}" for id_, k in list(zip(ids, asked, strict=True))[:3])
        raise EmobenchError(f"none of its edits is one that is asked for, such as {some}")
    return Edits(known, [each for each in found if each is not None])


def side(model: Any) -> int:
    """Of its pictures, px; of the first that can be read."""
    edits = [path for path, _, _ in model.edits()[:1]] if hasattr(model, "edits") else []
    for paths in [edits, *model.given("control").values()]:
        for path in paths[:1]:
            try:
                return int(max(read_face(path).shape[1:]))
            except RowError:
                continue
    return int(model.size)


def _places(asked: np.ndarray) -> np.ndarray:
    """(N,) the how-manieth of its emotion each request is, from 0."""
    place = np.empty(len(asked), np.int64)
    for emotion in np.unique(asked):
        mine = asked == emotion
        place[mine] = np.arange(mine.sum())
    return place
