"""How well emotions are recognised: arrays in, numbers out. numpy only, all sums in float64.

Every measure is a function of sums over faces. `tally` says what each face adds to them; `measures` and
`class_measures` turn the sums into numbers, whatever stands before the last axis. So one set of formulas
serves the values, their bootstrap (sums with random weights) and every subset of the faces.
Values agree with scikit-learn's (`zero_division=0`); what is undefined is NaN here, for the caller to name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]

BINS = 15  # of the expected calibration error
CLIP = float(np.finfo(np.float64).eps)  # least probability in the NLL, as in scikit-learn: at most 36.04 nats a face


class Sums(NamedTuple):
    """The sums over faces from which all measures follow, by name."""

    confusion: Floats  # (..., K, K) faces of emotion i that are read as j
    gaps: Floats  # (..., 15) confidence minus correctness in each bin of confidence
    surprisal: Floats  # (...,) −ln p of the label
    unleaked: Floats  # (...,) faces that occur in neither training nor validation
    unleaked_right: Floats  # (...,) those of them that are read rightly
    distinct: Floats  # (...,) faces of which training and validation have no copy either
    distinct_right: Floats  # (...,) those of them that are read rightly
    elsewhere: Floats  # (..., K) faces of each emotion that are read as none of the K

    @classmethod
    def of(cls, sums: Floats, classes: int) -> Sums:
        """Name the columns of sums over `tally`, (..., K² + 20 + K)."""
        square = classes * classes
        confusion = sums[..., :square].reshape(*sums.shape[:-1], classes, classes)
        rest = square + BINS
        single = (sums[..., place] for place in range(rest, rest + 5))
        return cls(*(confusion, sums[..., square:rest], *single, sums[..., rest + 5 :]))

    @property
    def support(self) -> Floats:
        """(..., K) faces of each emotion."""
        return np.asarray(self.confusion.sum(-1) + self.elsewhere)


def tally(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    predictions: ArrayLike | None = None,
    leaked: ArrayLike | None = None,
    copied: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """What each face adds to the sums.

    Args:
        probabilities: (N, K), rows sum to 1.
        labels: (N,) ints below K.
        predictions: (N,) ints below K, −1 where a face is read as none of the K; None: the most probable emotion, the
            first of equal ones.
        leaked: (N,) bool, the face occurs in training or validation too; None: none does.
        copied: (N,) bool, it does, or a copy of it, such as a mirrored one; None: only what is leaked.

    Returns:
        (N, K² + 20 + K) float64, see `Sums`.

    Raises:
        ValueError: a probability is NaN, infinite, negative or above 1, or shapes or labels do not fit.
    """
    probabilities = np.asarray(probabilities, np.float64)
    labels = np.asarray(labels, np.int64)
    faces, classes = probabilities.shape
    predictions = probabilities.argmax(1) if predictions is None else np.asarray(predictions, np.int64)
    leaked = np.zeros(faces, bool) if leaked is None else np.asarray(leaked, bool)
    copied = leaked if copied is None else np.asarray(copied, bool)
    if not (labels.shape == predictions.shape == leaked.shape == copied.shape == (faces,)):
        raise ValueError(f"{faces} faces, but labels {labels.shape}, predictions {predictions.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-5)).all():  # NaN is neither
        raise ValueError("probabilities must lie between 0 and 1")
    if ((labels < 0) | (labels >= classes) | (predictions < -1) | (predictions >= classes)).any():
        raise ValueError(f"labels and predictions must be 0 to {classes - 1}")

    row = np.arange(faces)
    right, read = labels == predictions, predictions >= 0
    confidence = np.where(
        read, probabilities[row, predictions], 1.0
    )  # of an answer outside the K nothing more is known
    # Guo et al. 2017, section 2: bin m is ((m − 1)/M, m/M].
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    square = classes * classes
    rest = square + BINS
    table = np.zeros((faces, rest + 5 + classes))
    table[row[read], (labels * classes + predictions)[read]] = 1
    table[row, square + bins] = confidence - right
    table[:, rest] = -np.log(np.clip(probabilities[row, labels], CLIP, 1))
    for place, apart in ((rest + 1, ~leaked), (rest + 3, ~copied)):
        table[:, place], table[:, place + 1] = apart, right & apart
    table[row[~read], (rest + 5 + labels)[~read]] = 1
    return table


def measures(sums: Floats, classes: int) -> dict[str, Floats]:
    """The measures of all faces together, each of shape (...,), from sums (..., K² + 20 + K).

    `precision`, `recall` and `macro_f1` are means over all K classes; an absent or never predicted class
    counts 0 in them. `accuracy_unleaked` and `accuracy_distinct` are NaN where every face is leaked, or copied.
    """
    part = Sums.of(np.asarray(sums, np.float64), classes)
    single = class_measures(sums, classes)
    support = part.support
    faces = support.sum(-1)
    return {
        "accuracy": _ratio(np.trace(part.confusion, axis1=-2, axis2=-1), faces),
        "accuracy_unleaked": _ratio(part.unleaked_right, part.unleaked),
        "accuracy_distinct": _ratio(part.distinct_right, part.distinct),
        "macro_f1": np.nan_to_num(single["f1"]).mean(-1),
        "weighted_f1": _ratio((np.nan_to_num(single["f1"]) * support).sum(-1), faces),
        "precision": np.nan_to_num(single["precision"]).mean(-1),
        "recall": np.nan_to_num(single["recall"]).mean(-1),
        "ece": _ratio(np.abs(part.gaps).sum(-1), faces),  # Guo et al. 2017, equation 3
        "nll": _ratio(part.surprisal, faces),
    }


def class_measures(sums: Floats, classes: int) -> dict[str, Floats]:
    """Each emotion's measures, (..., K), from sums (..., K² + 20 + K).

    The accuracy of an emotion is its recall: the share of its faces that are read as it. NaN where undefined:
    recall of an emotion without faces, precision of one never predicted, F1 of one that is neither.
    """
    part = Sums.of(np.asarray(sums, np.float64), classes)
    right, read = np.diagonal(part.confusion, axis1=-2, axis2=-1), part.confusion.sum(-2)
    recall = _ratio(right, part.support)
    return {
        "accuracy": recall,
        "precision": _ratio(right, read),
        "recall": recall,
        "f1": _ratio(2 * right, part.support + read),
    }


def accuracy(confusion: ArrayLike) -> Floats:
    """The share of faces on the diagonal of (..., K, K), true × read: (...,); NaN without faces."""
    table = np.asarray(confusion, np.float64)
    return _ratio(np.trace(table, axis1=-2, axis2=-1), table.sum((-2, -1)))


def f1(confusion: ArrayLike) -> Floats:
    """2·TP / (2·TP + FP + FN) of each emotion, (..., K), from (..., K, K); NaN of one that neither is nor is read."""
    table = np.asarray(confusion, np.float64)
    return _ratio(2 * np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1) + table.sum(-2))


def macro_f1(confusion: ArrayLike) -> Floats:
    """F1 averaged over all K emotions, of which an absent or never read one counts 0: (...,) from (..., K, K)."""
    mean: Floats = np.nan_to_num(f1(confusion)).mean(-1)
    return mean


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Faces of emotion i that are read as j, (K, K)."""
    cells = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where there is nothing below."""
    ratio: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)
    return ratio
