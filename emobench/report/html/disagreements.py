"""The faces on which two models disagree: of classifiers the test faces that one reads and the other does not; of
generators and editors the requests that one obeys and the other does not.

Of drawn people and of what models made up faces are shown; of real datasets only the row numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.evaluation.tracks.panel import JudgedFaces, PanelTrack
from emobench.evaluation.tracks.recognition import Predictions
from emobench.report.board import Entry, Section
from emobench.report.html.faces import Allowance, Shown, drawn_faces, sheet_of_faces

ROWS = 16  # models, the best first: what is compared grows with their number
FACES = 4000  # test faces of which it is said who reads them as what
PICTURES = 256  # test faces that are shown
_EACH = 12  # of two models
_NONE = "-"  # in the place of a digit: read as none of the emotions


def disagreements(section: Section, places: Mapping[str, int], shown: Sequence[Shown], allowance: Allowance) -> Any:
    """What the page needs to show where two rows of a section disagree; None: fewer than two can be compared.

    `rows` holds their numbers; `asked` of each face the emotion that it shows, or was asked for, as a digit; `read` of
    each row what each judge reads in it (of a classifier: itself); `sure` how probable it finds that, in percent, two
    digits a face.

    Args:
        places: number of each row on the page.
        shown: the pictures of the section.
    """
    entries = [entry for entry in section.measured if section.usable_of(entry)][:ROWS]
    if len(entries) < 2:
        return None
    if section.track.name == "recognition":
        return _read_apart(section, entries, places, allowance)
    return _judged_apart(section, entries, places, shown) if isinstance(section.track, PanelTrack) else None


def _read_apart(
    section: Section, entries: Sequence[Entry], places: Mapping[str, int], allowance: Allowance
) -> dict[str, Any] | None:
    """Of each model's first seed, whose faces are the same as all others'."""
    found: list[Predictions] = [section.data_of(entry)[0] for entry in entries]
    names = [f"p_{emotion}" for emotion in section.emotions]
    first = found[0].faces
    read = np.stack([each.faces["prediction"].to_numpy(np.int64) for each in found])  # (R, N)
    sure = np.stack([each.faces[names].to_numpy(np.float64).max(1) for each in found])
    labels = first["label"].to_numpy(np.int64)
    apart = np.flatnonzero((read != read[0]).any(0))
    if not len(apart):
        return None
    kept = np.sort(apart[_most_told(read[:, apart] == labels[apart])[:FACES]])
    chosen = _pictured(read[:, kept] == labels[kept], sure[:, kept])
    picture = None
    ids = [str(each) for each in first["id"].to_numpy()[kept[chosen]]]
    if (images := drawn_faces(section, ids, labels[kept[chosen]])) is not None:
        sheet = sheet_of_faces(images)
        if allowance.take(sheet):
            picture = {**sheet.plain, "faces": chosen.tolist()}
    return {
        "what": "test faces",
        "of": len(first),
        "apart": len(apart),
        "rows": [places[entry.name] for entry in entries],
        "seed": [entry.seeds[0] for entry in entries],
        "number": first["index"].to_numpy(np.int64)[kept].tolist(),
        "asked": digits(labels[kept]),
        "read": [[digits(line[kept])] for line in read],
        "sure": ["".join(f"{min(99, round(100 * each)):02d}" for each in line[kept].tolist()) for line in sure],
        "picture": picture,
    }


def digits(values: NDArray[np.int64]) -> str:
    """Small numbers as a text, a character each; those below 0 as `-`."""
    return "".join(_NONE if value < 0 else str(value) for value in values.tolist())


def _most_told(right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Faces (R, N) by how evenly they divide the models, those that divide them most first."""
    share = right.mean(0)
    return np.argsort(np.abs(share - 0.5), kind="stable")


def _pictured(right: NDArray[np.bool_], sure: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which faces (R, N) are shown: of each two models the ones that the wrong one is surest of, then others."""
    wanted: list[int] = []
    for one, other in itertools.permutations(range(len(right)), 2):
        mine = np.flatnonzero(right[one] & ~right[other])
        wanted += mine[np.argsort(-sure[other][mine], kind="stable")][:_EACH].tolist()
    order = dict.fromkeys([*_alternating(wanted), *_most_told(right).tolist()])
    return np.sort(np.array(list(order)[:PICTURES], np.int64))


def _alternating(wanted: Sequence[int]) -> list[int]:
    """The first of each pair, then the second of each, so that no pair comes too short."""
    return [each for start in range(_EACH) for each in wanted[start::_EACH]]


# Faces that models made


def _judged_apart(
    section: Section, entries: Sequence[Entry], places: Mapping[str, int], shown: Sequence[Shown]
) -> dict[str, Any] | None:
    """Requests by their emotion and number, or edits by their source and emotion, as far as all rows have them."""
    assert isinstance(section.track, PanelTrack)
    kind = section.track.judged
    tables = {}
    for entry in entries:
        cell, faces = section.usable_of(entry)[0], section.data_of(entry)[0]
        outside = cell.record is not None and cell.record.evaluation is not None and cell.record.evaluation.outside
        if not outside and (table := asked_table(faces, kind)) is not None:
            tables[entry.name] = table
    if len(tables) < 2:
        return None
    common = sorted(set.intersection(*({*table.index} for table in tables.values())))
    if not common:
        return None
    tables = {name: table.loc[common] for name, table in tables.items()}
    first: JudgedFaces = section.data_of(entries[0])[0]
    names = [f"read_{place}" for place in range(len(first.judges))]
    made = kind == "control"
    pictures = {each.row: each for each in shown if each.kind == {"control": "samples", "editing": "edits"}.get(kind)}
    lines = lines_of(first, kind, common)
    return {
        "what": "requests" if made else "edits" if kind == "editing" else "faces",
        "of": len(common),
        "rows": [places[name] for name in tables],
        "seed": [entry.seeds[0] for entry in entries if entry.name in tables],
        "judges": first.judges,
        "number": [number + 1 if made else number for number, _ in common],
        "asked": digits(np.array([asked for _, asked in common])),
        "read": [[digits(table[name].to_numpy(np.int64)) for name in names] for table in tables.values()],
        "lines": lines,
        "pictured": [name in pictures and pictures[name].sheet is not None for name in tables],
    }


def asked_table(faces: JudgedFaces, kind: str) -> pd.DataFrame | None:
    """What judges read, by (number, emotion): the n-th face of the emotion, or the row of the source."""
    part = faces.part(kind)
    if part.empty:
        return None
    number = part["row"] if kind != "control" else part.groupby("asked")["face"].rank("first") - 1
    table = part.assign(number=number.astype(np.int64)).set_index(["number", "asked"])
    return table if table.index.is_unique else None


def lines_of(faces: JudgedFaces, kind: str, common: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Where each face stands in the picture of its row: line and column; [−1, −1]: not in it.

    Samples have a line an emotion and a column a number; edits a line for the first source of each emotion, in the
    order of the emotions, and a column for the source and each emotion.
    """
    if kind == "control":
        return [[int(asked), int(number)] for number, asked in common]
    if kind != "editing":
        return [[-1, -1] for _ in common]
    part = faces.part(kind)
    classes = len(faces.emotions)
    own: dict[int, int] = {}  # emotion -> the first of its sources
    rows, asked = part["row"].to_numpy(np.int64), part["asked"].to_numpy(np.int64)
    for row in dict.fromkeys(rows.tolist()):
        lacking = set(range(classes)) - set(asked[rows == row].tolist())
        if len(lacking) == 1:
            own.setdefault(lacking.pop(), row)
    line = {row: place for place, (_, row) in enumerate(sorted(own.items()))}
    return [[line.get(int(row), -1), int(asked) + 1 if int(row) in line else -1] for row, asked in common]
