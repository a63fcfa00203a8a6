"""Whether a classifier's classes are named in the right order, from its answers on labelled faces.

The best renaming on the faces that also judge it would nearly always seem better than the names that are given. So it
is found on one half of the faces and judged on the other, people kept together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import stdtrit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LEVEL = 0.99  # of the one-sided bound of the gain
LEAST_POWER = 0.5  # of finding two exchanged classes, below which nothing can be said
_TRIALS = 400  # simulated exchanges of which the power is the share found


@dataclass(frozen=True)
class Audit:
    """What a label-order audit found.

    Attributes:
        renamed: class of the model -> the emotion (a place among the K, None: none) that it rather tells; empty: the
            order that was given is not beaten. Where the renaming falls into parts that exchange names among
            themselves, those that are better by themselves.
        gain: of balanced accuracy on the second half by the renaming of the first.
        low: its one-sided 99 % bound.
        power: probability of noticing that two classes are exchanged, a mean over pairs.
        faces: of both halves.
    """

    renamed: dict[int, int | None]
    gain: float
    low: float
    power: float
    faces: int

    @property
    def checkable(self) -> bool:
        return self.power >= LEAST_POWER


def audit(
    labels: Ints, answers: Ints, given: Ints, classes: int, groups: Ints | None = None, seed: int = 20130615
) -> Audit:
    """Look for a renaming of a model's classes by which it is better than by the names that were given.

    Args:
        labels: (N,) emotions, 0 to K − 1.
        answers: (N,) the model's own classes, 0 to M − 1.
        given: (M,) the emotion that each class of the model is said to tell; −1: none of the K.
        classes: K.
        groups: (N,) the person of each face, who is never on both sides; None: each face is its own.
        seed: of the halves, and of the simulation that gives the power.
    """
    random = np.random.default_rng(seed)
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    first = _half(units, labels, random)
    gain, low, renamed = _judged(labels, answers, given, classes, units, first)
    found: dict[int, int | None] = {}
    if low > 0:
        parts = _parts(given, renamed)
        alone = [np.where(part, renamed, given) for part in parts]
        certain = [names for names in alone if _gain(labels, answers, given, names, classes, units, first)[1] > 0]
        for names in certain or [renamed]:
            found |= {m: None if names[m] < 0 else int(names[m]) for m in np.flatnonzero(names != given).tolist()}
    return Audit(found, gain, low, _power(labels, answers, given, classes, random), len(labels))


def _half(units: Ints, labels: Ints, random: np.random.Generator) -> NDArray[np.bool_]:
    """(N,) which faces are of the first half: whole people; where each face is its own, half of each emotion's."""
    number = units.max(initial=-1) + 1
    if number == len(units):
        order = random.permutation(len(units))
        order = order[np.argsort(labels[order], kind="stable")]
        first = np.zeros(len(units), bool)
        first[order[::2]] = True
        return first
    return np.asarray(random.permutation(number)[units] % 2 == 0)


def _judged(
    labels: Ints, answers: Ints, given: Ints, classes: int, units: Ints, first: NDArray[np.bool_]
) -> tuple[float, float, Ints]:
    """The gain of the first half's best renaming on the second, its bound, and the renaming (M,)."""
    shown = _shown(labels, classes, first)
    best = best_names(_confusion(labels[first], answers[first], classes, len(given)), given, shown)
    return *_gain(labels, answers, given, best, classes, units, first), best


def _shown(labels: Ints, classes: int, first: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(K,) emotions of which both halves have faces: of others nothing can be said, nor of classes that tell them."""
    halves = [np.bincount(labels[half], minlength=classes) for half in (first, ~first)]
    return (halves[0] > 0) & (halves[1] > 0)


def _gain(
    labels: Ints, answers: Ints, given: Ints, names: Ints, classes: int, units: Ints, first: NDArray[np.bool_]
) -> tuple[float, float]:
    """How much better the second half's balanced accuracy is by other names (M,) than by those given, and its bound."""
    shown = _shown(labels, classes, first)
    rest = ~first & shown[labels]
    mine, said, unit = labels[rest], answers[rest], units[rest]
    support = np.bincount(labels[~first], minlength=classes)
    differs = (names[said] == mine).astype(np.float64) - (given[said] == mine)
    differs /= support[mine] * max(1, int(shown.sum()))
    sums = np.bincount(unit, differs)[np.bincount(unit) > 0]
    gain = float(sums.sum())
    moved = int((sums != 0).sum())
    if moved < 2:
        return gain, min(gain, 0.0)
    # Against no difference at all: the spread of what moved, by as many units as did.
    half = float(stdtrit(moved - 1, LEVEL) * np.sqrt((sums**2).sum()))
    return gain, gain - half


def _parts(given: Ints, renamed: Ints) -> list[NDArray[np.bool_]]:
    """Of a renaming its parts, (M,) each: classes that exchange their emotions' names among themselves alone."""
    parts: list[tuple[set[int], set[int]]] = []  # emotions, classes
    for m in np.flatnonzero(renamed != given).tolist():
        emotions, classes = {int(given[m]), int(renamed[m])} - {-1}, {m}
        for part in [each for each in parts if each[0] & emotions]:
            parts.remove(part)
            emotions, classes = emotions | part[0], classes | part[1]
        parts.append((emotions, classes))
    return [np.isin(np.arange(len(given)), sorted(classes)) for _, classes in parts]


def best_names(confusion: Floats, given: Ints, shown: NDArray[np.bool_] | None = None) -> Ints:
    """(M,) the emotion of each class by which balanced accuracy is highest, −1: none; the names given, where equal.

    Args:
        confusion: (K, M) faces of emotion i that were answered by class j.
        given: (M,) see `audit`.
        shown: (K,) the emotions that are looked at; a class that is said to tell another one keeps its name. None: all.
    """
    own = confusion.shape[1]
    if shown is not None and not shown.all():
        free = np.flatnonzero((given < 0) | shown[given])
        place = np.cumsum(shown) - 1  # of an emotion among those that are shown
        names = given.copy()
        inner = np.where(given[free] >= 0, place[given[free]], -1)
        found = best_names(confusion[np.ix_(shown, free)], inner)
        names[free] = np.where(found >= 0, np.flatnonzero(shown)[found], -1)
        return names
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    said = given >= 0
    shares[given[said], np.flatnonzero(said)] += 1e-9  # of equal renamings the one that was given
    emotions, columns = linear_sum_assignment(shares, maximize=True)
    names = np.full(own, -1, np.int64)
    names[columns] = emotions
    return names


def _confusion(labels: Ints, answers: Ints, classes: int, own: int) -> Floats:
    cells = labels * own + answers
    return np.bincount(cells, minlength=classes * own).reshape(classes, own).astype(np.float64)


def _power(labels: Ints, answers: Ints, given: Ints, classes: int, random: np.random.Generator) -> float:
    """The share of exchanges of two classes that would be noticed, if the model answers as it does by its best names.

    Faces are drawn anew from what it answers to each emotion; people are left aside, so that it is rather too high
    where there are few of them.
    """
    confusion = _confusion(labels, answers, classes, len(given))
    names = best_names(confusion, given)
    told = np.flatnonzero(names >= 0)
    if len(told) < 2:
        return 0.0
    shares = np.cumsum(confusion / np.maximum(confusion.sum(1, keepdims=True), 1), 1)
    found = 0
    units = np.arange(len(labels))
    for _ in range(_TRIALS):
        one, other = random.choice(told, 2, replace=False)
        wrong = names.copy()
        wrong[[one, other]] = wrong[[other, one]]
        drawn = np.minimum((random.random(len(labels))[:, None] > shares[labels]).sum(1), len(given) - 1)
        _, low, renamed = _judged(labels, drawn, wrong, classes, units, _half(units, labels, random))
        found += low > 0 and bool((renamed[[one, other]] == names[[one, other]]).all())
    return found / _TRIALS
