"""Recognition: a face in, its emotion out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.data.manifest import PART
from emobench.errors import RawError
from emobench.evaluation.outside import Answers, answers
from emobench.evaluation.protocol import READ_BATCH
from emobench.evaluation.tracks.track import (
    Check,
    Column,
    ControlRow,
    Estimates,
    Floats,
    Key,
    Made,
    MeasuredCell,
    Metric,
    Ranking,
    Track,
    digest,
    means,
    people,
    table_of,
)
from emobench.metrics import intervals
from emobench.metrics.recognition import Sums, class_measures, confusion_matrix, measures, tally

if TYPE_CHECKING:
    from emobench.data.datamodule import EmotionDataModule

WHOLE = (
    "accuracy",
    "accuracy_unleaked",
    "accuracy_distinct",
    "macro_f1",
    "weighted_f1",
    "precision",
    "recall",
    "ece",
    "nll",
)
SINGLE = ("accuracy", "precision", "recall", "f1")
MACRO = ("precision", "recall")  # of WHOLE those that are a mean over emotions
_UNDEFINED = {
    "accuracy_unleaked": "every test face also occurs in training or validation",
    "accuracy_distinct": "of every test face training or validation has a copy",
    "accuracy": "no test face of it",
    "recall": "no test face of it",
    "precision": "never predicted",
    "f1": "no test face of it, and never predicted",
}
_MAJORITY = "control:majority"

METRICS: tuple[Metric, ...] = ()


def measure(
    model: Any, data: EmotionDataModule, metrics: Sequence[Metric] = METRICS, said: Answers | None = None
) -> tuple[pd.DataFrame, float | None]:
    """Reads the test split once: a row a face with its label and the probability of every emotion.

    Args:
        metrics: further ones, whose `Made` holds the faces that were read, their labels as `asked`, and `columns` with
            the probability of each emotion.
        said: what an outside model says of the test faces; None: it is asked.

    Returns:
        The raw predictions, and faces per second; None: nothing was run.

    Raises:
        NotFinite: an output is NaN or infinite; names the face.
        EmobenchError: predictions depend on the batch.
    """
    from emobench.data.near import near_duplicates

    test = data.faces[data.faces["split"] == "test"]
    rows = test.index.to_numpy()
    images = np.asarray(data.images[rows])
    if hasattr(model, "said"):  # what it sees is not the faces of this size
        found = answers(model, data, test) if said is None else said
        probabilities, predictions, seconds = found.probabilities, found.predictions, found.seconds
    else:
        probabilities, seconds = _answers(model, images, None if PART not in test else test[PART].to_numpy())
        predictions = probabilities.argmax(1)
    shares = {f"p_{emotion}": probabilities[:, k].astype(np.float32) for k, emotion in enumerate(data.emotions)}
    coloured = np.broadcast_to(images, (len(images), 3, *images.shape[2:]))
    labels = test["label"].to_numpy()
    made = Made(coloured, labels, tuple(data.emotions), rows=rows, data=data, columns=shares)
    further = {metric.name: metric.compute(made) for metric in metrics}
    table = pd.DataFrame(
        {
            "index": rows,
            "id": test["id"].to_numpy(),
            "subject": test["subject"].to_numpy(),
            "label": labels,
            "prediction": predictions,
            "leaked": data.leaked()[rows],
            "copied": (data.copied() | near_duplicates(data))[rows],
            **shares,
            **{name: values for name, values in further.items() if values is not None},
        }
    )
    return table, len(images) / seconds if seconds else None


def _answers(model: Any, images: np.ndarray, part: np.ndarray | None) -> tuple[Floats, float]:
    """Probabilities (N, K) of faces, and the seconds that they took.

    Args:
        part: (N,) of a cross-validation: each face is read by the network that was trained without its part alone.
    """
    from emobench.evaluation.predict import check_batches, predict

    if part is None:
        predict(model, images[:READ_BATCH], READ_BATCH)  # libraries choose their kernels at the first call
        probabilities, seconds = predict(model, images, READ_BATCH)
        check_batches(model, images, probabilities)
        return probabilities, seconds
    found, took = np.full((len(images), len(model.emotions)), np.nan), 0.0
    for k, network in enumerate(model.members):
        mine = np.flatnonzero(part == k)
        found[mine], seconds = _answers(network, images[mine], None)
        took += seconds
    return found, took


@dataclass(frozen=True)
class Predictions:
    """One cell's raw predictions, whole and plausible."""

    cell: MeasuredCell
    faces: pd.DataFrame  # sorted by index
    tally: Floats  # (N, K² + 20 + K), see `emobench.metrics.recognition.tally`

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.cell.emotions

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) faces of emotion i that are read as j; those that are read as none of the K are left out."""
        read = self.faces[self.faces["prediction"] >= 0]
        return confusion_matrix(read["label"], read["prediction"], len(self.emotions))


class Recognition(Track):
    """Every test face read once; ranked by macro F1 over all K emotions."""

    name = "recognition"
    title = "Recognition: a face in, its emotion out"
    raw = "predictions"
    whole_samples = False
    headline = Key("macro_f1")
    measure = staticmethod(measure)  # type: ignore[assignment]
    metrics = METRICS
    rankings = (Ranking("macro_f1", "macro F1", (Key("macro_f1"),), "is best, macro F1"),)
    columns = (
        Column("macro F1", Key("macro_f1")),
        Column("behind the first", Key("macro_f1"), shows="behind"),
        Column("accuracy", Key("accuracy")),
        Column("accuracy, unleaked", Key("accuracy_unleaked"), optional=True),
        Column("accuracy, distinct", Key("accuracy_distinct"), optional=True),
        Column("weighted F1", Key("weighted_f1")),
        Column("ECE", Key("ece")),
    )
    by_emotion = (("accuracy", "accuracy"), ("f1", "F1"))
    floor = (_MAJORITY, Key("recall", "macro"))  # balanced accuracy: 1/K of the majority, and of any guess

    meaning = (
        "Recognition is ranked by macro F1: an absent or never predicted emotion counts 0. An emotion's accuracy is "
        "the share of its faces that are read as it, its recall. ECE: expected calibration error in 15 bins. "
        "`control:permuted` was trained on permuted labels: its balanced accuracy must lie among those of the same "
        "predictions under random names, or something but the faces gives the labels away.",
    )

    @classmethod
    def measures(cls, model: type) -> bool:
        return hasattr(model, "logits")

    def read(self, cell: MeasuredCell) -> Predictions:
        with table_of(cell.path) as read:
            faces = _named(_in_order(read))
            probabilities = faces[[f"p_{emotion}" for emotion in cell.emotions]].to_numpy(np.float64)
            predictions = faces["prediction"].to_numpy(np.int64)
            copied = faces.get("copied")  # predictions of before have none
            table = tally(probabilities, faces["label"], predictions=predictions, leaked=faces["leaked"], copied=copied)
            likely = np.take_along_axis(probabilities, np.maximum(predictions, 0)[:, None], 1)[:, 0]
            likely = np.where(predictions < 0, 1.0, likely)
        if len(faces) == 0 or faces["index"].duplicated().any():
            raise RawError(cell.path, "no test faces, or one twice")
        if (likely < probabilities.max(1) - 1e-6).any():
            raise RawError(cell.path, "predictions are not the most probable emotion")
        found = measures(table.sum(0), len(cell.emotions))
        for name in ("accuracy", "macro_f1"):
            claimed = cell.values[name].value if name in cell.values else None
            if claimed is not None and abs(claimed - float(found[name])) > 1e-6:
                said = f"gives {name} {float(found[name]):.6f}, but result.json says {claimed:.6f}"
                raise RawError(cell.path, said)
        return Predictions(cell, faces, table)

    def same(self, faces: Predictions) -> object:
        """Protocol, emotions, faces and their labels."""
        return faces.cell.same, faces.emotions, digest(faces.faces)

    def estimates(self, cells: Sequence[Predictions]) -> list[list[Estimates]]:
        """Whole people are resampled where they are known, each other face for itself; the same ones for all cells."""
        first = cells[0]
        cells = list(cells)  # each is read once, and all are held meanwhile
        classes = len(first.emotions)
        apart = {"accuracy_unleaked": self.leaked(first), "accuracy_distinct": _copied(first)}
        keys = [Key(name, "macro" if name in MACRO else "") for name in WHOLE]
        keys += [Key(name, emotion) for name in SINGLE for emotion in first.emotions]
        kept = [place for place, key in enumerate(keys) if apart.get(key.metric) != 0]

        def statistic(sums: intervals.Floats) -> intervals.Floats:
            whole, single = measures(sums, classes), class_measures(sums, classes)
            joint = np.stack([whole[name] for name in WHOLE], -1)
            return np.concatenate([joint, *(single[name] for name in SINGLE)], -1)[..., kept]

        groups, units = _units(cells)
        unit = "faces" if groups is None else "people"
        values = statistic(np.stack([cell.tally.sum(0) for cell in cells]))  # in float64; the resamples need less
        draws = intervals.bootstrap(_by_label(units, groups, first), statistic)
        support = np.bincount(first.faces["label"], minlength=classes).tolist()
        counts = [len(first.faces) - apart.get(name, 0) for name in WHOLE]
        counts += support * len(SINGLE)
        keys, counts = [keys[place] for place in kept], [counts[place] for place in kept]
        low, high = np.zeros(len(keys)), np.array([np.inf if key.metric == "nll" else 1.0 for key in keys])
        found = []
        for place, cell in enumerate(cells):
            notes = tuple(
                _UNDEFINED.get(key.metric) if np.isnan(value) else None
                for key, value in zip(keys, values[place], strict=True)
            )
            of = [
                Estimates(
                    tuple(keys),
                    values[place],
                    draws[:, place],
                    units.shape[1],
                    unit,
                    tuple(counts),
                    low,
                    high,
                    notes,
                    _rests_on(keys, units[place], first.emotions),
                )
            ]
            if self.metrics:
                group = np.arange(len(cell.faces)) if groups is None else groups
                of.append(means(cell.faces, group, unit, self.metrics))
            probabilities = cell.cell.values.get("ece")
            if probabilities is not None and probabilities.value is None:
                of[:1] = _without_probabilities(of[:1], probabilities.reason or "it gives no probabilities")
            found.append(of)
        return found

    def redrawn(self, cells: Sequence[Predictions], key: Key, resamples: int) -> Floats:
        classes = len(cells[0].emotions)

        def any_measure(sums: intervals.Floats) -> intervals.Floats:
            return measures(sums, classes)[key.metric][..., None]

        def of_counts(sums: intervals.Floats) -> intervals.Floats:
            right, either = np.split(sums.astype(np.float64), 2, -1)
            single = np.divide(2 * right, either, out=np.zeros_like(right), where=either > 0)  # F1, 0 where undefined
            return np.asarray(single.mean(-1)[..., None])

        if key.metric == "macro_f1" and all((cell.faces["prediction"] >= 0).all() for cell in cells):
            return intervals.bootstrap(_for_f1(cells), of_counts, resamples)[..., 0]
        groups, units = _units(cells)
        return intervals.bootstrap(_by_label(units, groups, cells[0]), any_measure, resamples)[..., 0]

    def controls(self, cells: Sequence[Predictions]) -> list[ControlRow]:
        """The majority class; and whether the networks trained on permuted labels read nothing."""
        majority = self.majority(cells[0])
        rows = (
            [] if majority is None else [ControlRow(_MAJORITY, _without_probabilities(self.estimates([majority])[0]))]
        )
        for cell in cells:
            if cell.cell.control == "permuted":
                value, low, high = intervals.renamed(cell.confusion)
                chance = 1 / len(np.unique(cell.faces["label"]))
                check = Check(cell.cell.row, cell.cell.seed, "balanced accuracy", value, low, high, chance=chance)
                rows.append(ControlRow(cell.cell.row, checks=[check], trained=True))
        return rows

    def leaked(self, faces: Predictions) -> int:
        return int(faces.faces["leaked"].sum())

    def majority(self, faces: Predictions) -> Predictions | None:
        """Always the most frequent emotion of training, the first of equal ones; None: nobody counted them."""
        if not faces.cell.counts:
            return None
        most = max(faces.emotions, key=lambda emotion: faces.cell.counts.get(emotion, 0))
        certain = np.zeros((len(faces.faces), len(faces.emotions)))
        certain[:, faces.emotions.index(most)] = 1
        apart = {"leaked": faces.faces["leaked"], "copied": faces.faces.get("copied")}
        table = tally(certain, faces.faces["label"], **apart)
        return Predictions(faces.cell, faces.faces.assign(prediction=certain.argmax(1)), table)


def _in_order(faces: pd.DataFrame) -> pd.DataFrame:
    """Predictions by the place of their faces, in which they are written."""
    if faces["index"].is_monotonic_increasing and isinstance(faces.index, pd.RangeIndex):
        return faces
    return faces.sort_values("index", ignore_index=True)


def _named(faces: pd.DataFrame) -> pd.DataFrame:
    """Predictions whose faces and people have names, and whose marks are yes or no.

    Raises:
        KeyError, ValueError: a column is missing, or holds something else.
    """
    marks = [name for name in ("leaked", "copied") if name in faces]
    if other := [name for name in marks if faces[name].dtype != bool]:
        raise ValueError(f"{other[0]} is not yes or no")
    for name in ("id", "subject"):
        if isinstance(faces[name].dtype, pd.StringDtype) and (name == "subject" or not faces[name].hasnans):
            continue  # no need to look at each
        known = faces[name] if name == "id" else faces[name].dropna()
        if pd.api.types.infer_dtype(known, skipna=False) not in ("string", "empty"):
            raise ValueError(f"{name} is no name")
    return faces


def _copied(faces: Predictions) -> int:
    """Test faces of which training or validation has a copy; 0 where nobody looked, as in predictions of before."""
    return int(faces.faces["copied"].sum()) if "copied" in faces.faces else 0


def _units(cells: Sequence[Predictions]) -> tuple[NDArray[np.int64] | None, NDArray[np.float32]]:
    """The person of each face (N,), None where nobody is known, and what each person, or face, adds: (M, G, C)."""
    subjects = cells[0].faces["subject"]
    groups = people(subjects)
    return groups, np.stack([intervals.grouped(cell.tally, groups).astype(np.float32) for cell in cells])


def _by_label(units: intervals.Floats, groups: NDArray[np.int64] | None, faces: Predictions) -> intervals.Units:
    """Units (M, G, C) as they are summed fastest: a face that is read adds to the line of its own emotion alone of the
    confusion. What an annotator says of one is held against several emotions, those of the other annotators.
    """
    if groups is not None:
        return units
    classes, labels = len(faces.emotions), faces.faces["label"].to_numpy(np.int64)
    square = classes * classes
    lines = units[..., :square].reshape(*units.shape[:-1], classes, classes)
    read = lines[:, np.arange(len(labels)), labels]
    if not np.array_equal(read, lines.sum(-2)):
        return units
    return [intervals.Parted(read, labels, classes), units[..., square:]]


def _for_f1(cells: Sequence[Predictions]) -> intervals.Units:
    """What each person, or face, adds to the two numbers that F1 of each emotion needs: faces of it that are read as
    it, and faces of it plus faces that are read as it. A tenth of what all measures need.
    """
    every = np.eye(len(cells[0].emotions), dtype=np.float32)
    labels = cells[0].faces["label"].to_numpy(np.int64)
    read = np.stack([cell.faces["prediction"].to_numpy(np.int64) for cell in cells])  # (M, N)
    right, either = (read == labels)[..., None].astype(np.float32), every[labels] + every[read]
    groups = people(cells[0].faces["subject"])
    if groups is None:
        return [intervals.Parted(right, labels, len(every)), either]
    return intervals.grouped(np.concatenate([right * every[labels], either], -1), groups)


def _rests_on(keys: Sequence[Key], units: Floats, emotions: Sequence[str]) -> Floats:
    """(Q,) how many faces, or people (G, C), each number is counted from."""
    sums = Sums.of(units, len(emotions))
    confusion = sums.confusion  # (G, K, K)
    shown = (sums.support > 0).sum(0)  # people, or faces, of each emotion
    read = (confusion.sum(-2) > 0).sum(0)
    there = shown[shown > 0]
    # A mean over emotions varies as the rarest of them does: as K²/Σ(1/n) faces of one share.
    whole = dict.fromkeys(("macro_f1", "precision", "recall"), len(there) ** 2 / np.sum(1 / there))
    whole |= {"accuracy_unleaked": (sums.unleaked > 0).sum(), "accuracy_distinct": (sums.distinct > 0).sum()}
    found = []
    for key in keys:
        if key.emotion in emotions:
            found.append((read if key.metric == "precision" else shown)[list(emotions).index(key.emotion)])
        else:
            found.append(whole.get(key.metric, len(units)))
    return np.array(found, np.float64)


def _without_probabilities(
    estimates: Sequence[Estimates], why: str = "the majority class gives no probabilities"
) -> list[Estimates]:
    """Who gives no probabilities has no ECE and no NLL."""
    found = []
    for of in estimates:
        lacking = np.array([key.metric in ("ece", "nll") for key in of.keys])
        notes = tuple(why if none else note for none, note in zip(lacking, of.notes, strict=True))
        found.append(replace(of, values=np.where(lacking, np.nan, of.values), notes=notes))
    return found


def cannot_fail(classes: int) -> bool:
    """Whether all renamings of so few classes lie within the interval of `control:permuted`."""
    return math.factorial(classes) * (1 - intervals.CONTROL_LEVEL) < 2
