"""What one person reads in the test faces of a dataset that several people have labelled: the ceiling of classifiers.

Leave one out: of each test face one annotator, drawn at random, against the emotion that most of the others name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emobench.data.readers.labels import Meaning
from emobench.data.readers.tables import NoNumber, number, read_rows, table_names
from emobench.data.readers.tree import places, visible
from emobench.emotions import canonical
from emobench.errors import EmobenchError
from emobench.evaluation.tracks.recognition import Predictions
from emobench.evaluation.tracks.track import ControlRow, Name
from emobench.evaluation.values import Value
from emobench.metrics.recognition import BINS, Sums
from emobench.report.attributes import catalogue_name, dataset_of
from emobench.report.board import Section, add_control
from emobench.report.memory import Memory, identity
from emobench.report.page import Text

Floats = NDArray[np.float64]

NAME = "control:annotator"
_VOTED = "ferplus"  # the dataset with votes
_FOLDERS = ("ferplus", "fer2013")  # of the data root, in which they may lie
_FILES = table_names("fer2013new")
_COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def add(section: Section, suite: str, data: Path | None) -> None:
    """Put one annotator beside the classifiers of a dataset with votes; where these are not at hand, say so.

    Args:
        data: the data root, in which the votes are looked for; None: nowhere.
    """
    record = next(iter(section.records), None)
    if section.track.name != "recognition" or record is None or catalogue_name(record) != _VOTED:
        return
    try:
        faces: Predictions = section.data[0]
        found = votes(data, dataset_of(record).get("arguments", {}), faces, section.memory)
    except (EmobenchError, OSError) as error:
        section.without_people = str(error).replace(f"{data}/", "")  # a board names no folder of this machine
        return
    one = annotator(faces, found)
    add_control(section, ControlRow(NAME, section.track.estimates([one])[0][:1]), suite)
    confusion = Sums.of(one.tally.sum(0), len(one.emotions)).confusion
    support = confusion.sum(-1, keepdims=True)
    shares = np.divide(confusion, support, out=np.full(confusion.shape, np.nan), where=support > 0)
    section.controls[-1].shares = shares


def confusions(section: Section) -> NDArray[np.floating] | None:
    """(K, K) of faces that show an emotion (row) by the others, the share of people who name each; None: not known."""
    return next((entry.shares for entry in section.controls if entry.name == NAME), None)


def notes(section: Section) -> list[Text]:
    """What the annotator's line means, or why it is not there."""
    if section.without_people:
        return [("No ceiling by people: ", Name(section.without_people))]
    if confusions(section) is None:
        return []
    said = (
        " is one person of those who labelled the faces, drawn at random for each, against the emotion that most of "
        "the others name; equal leads are divided, and whoever names no emotion is wrong. A classifier is held "
        "against all of them together, which is a little easier. Confusions of at least 5 % that at least one person "
        "in twenty makes too are marked."
    )
    return [(Name(NAME), said)]


# Votes


def votes(data: Path | None, arguments: Mapping[str, Any], faces: Predictions, memory: Memory) -> Floats:
    """(N, K + O) the votes for each of the K emotions, and for whatever else there is, of the test faces.

    Args:
        data: the data root.
        arguments: of the dataset, which may count columns of votes together.

    Raises:
        EmobenchError: they are not there, damaged, or not those that the labels were made of; says what to do.
    """
    path = _file(data)
    table: Floats = memory.once(("votes", path, identity(path)), lambda: _read(path))
    columns = [_emotion(name, arguments) for name in _COLUMNS]
    joint = [[k for k, emotion in enumerate(columns) if emotion == each] for each in faces.emotions]
    joint += [[k] for k, emotion in enumerate(columns) if emotion not in faces.emotions]
    summed = np.stack([table[:, of].sum(1) for of in joint], 1)
    rows = faces.faces["id"].map(lambda name: int(name) if name.isdecimal() else -1).to_numpy(np.int64)
    known = (rows >= 0) & (rows < len(summed))
    found = summed[np.where(known, rows, 0)]
    wrong = int((~known | (found.argmax(1) != faces.faces["label"].to_numpy())).sum())
    if wrong:
        raise EmobenchError(
            f"the votes in {path.name} give {wrong:,} of {len(rows):,} test faces another emotion than their label. "
            "They belong to another version of the dataset, or are out of order"
        )
    return found


def _file(data: Path | None) -> Path:
    folders = [] if data is None else [folder for name in _FOLDERS if (folder := data / name).is_dir()]
    for folder in folders:
        for place in places(folder):
            for path in visible(place):
                if path.name.lower() in _FILES:
                    return path
    raise EmobenchError("the votes (fer2013new.csv) are not at hand. `emobench report` reads them with --data ROOT")


def _emotion(column: str, arguments: Mapping[str, Any]) -> str | None:
    """The emotion that a column of votes counts for; None: for none."""
    labels = arguments.get("labels")
    meaning = Meaning(labels if isinstance(labels, dict) else None, arguments.get("ignore"))
    if meaning.explains(column):
        return meaning.emotion(column)
    return canonical(column) if meaning.knows(column) else None


def _read(path: Path) -> Floats:
    """(rows, 10) in the order of `_COLUMNS`; a row that holds no numbers has no votes."""
    found: list[list[float]] = []
    for line, row in read_rows(path, _COLUMNS):
        try:
            found.append([number(path, line, row, name) for name in _COLUMNS])
        except NoNumber:
            found.append([0.0] * len(_COLUMNS))
    return np.array(found, np.float64).reshape(-1, len(_COLUMNS))


# One of them against the others


def annotator(faces: Predictions, found: Floats) -> Predictions:
    """One annotator's answers, as what each face adds to the sums of `emobench.metrics.recognition`: expected counts.

    Args:
        faces: of any classifier.
        found: (N, K + O), see `votes`.
    """
    classes, count = len(faces.emotions), len(found)
    confusion, elsewhere = np.zeros((count, classes, classes)), np.zeros((count, classes))
    for column in range(found.shape[1]):
        mine = found[:, column] / found.sum(1)  # of those who are drawn, the share who say so
        others = found[:, :classes].copy()
        if column < classes:
            others[:, column] -= 1
        most = others.max(1, keepdims=True)
        leading = (others == most) & (most > 0)
        leads = leading / np.maximum(leading.sum(1, keepdims=True), 1) * mine[:, None]  # (N, K)
        if column < classes:
            confusion[:, :, column] += leads
        else:
            elsewhere += leads
    right = np.trace(confusion, axis1=1, axis2=2)
    whole = confusion.sum((1, 2)) + elsewhere.sum(1)
    table = faces.faces[["index", "id", "subject", "label", "leaked", *(["copied"] if "copied" in faces.faces else [])]]
    apart = [~faces.faces[name].to_numpy(bool) for name in ("leaked", table.columns[-1])]
    nothing = np.zeros((count, BINS + 1))  # no probabilities: neither calibration nor surprisal
    split = [each * values for each in apart for values in (whole, right)]
    tally = np.concatenate([confusion.reshape(count, -1), nothing, np.stack(split, 1), elsewhere], 1)
    none = {"ece": Value(None, count, "people give no probabilities")}
    cell = replace(faces.cell, row=NAME, control=NAME.partition(":")[2], values=none)
    return Predictions(cell, table, tally)
