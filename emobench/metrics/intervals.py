"""Intervals, comparisons and ranks: section 1 of the protocol. Arrays in, numbers out; deterministic.

Faces and seeds are crossed: every network is measured on the same faces. A bootstrap over faces (over subjects
where they are known: whole people are drawn) tells how far a mean over networks moves with the faces; how far it
moves with the seed is added to that from the spread between the networks.
Shapes: R resamples, M networks (cells), S seeds of one model, N faces, C sums, Q statistics.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as distributions

Floats = NDArray[np.floating]
Statistic = Callable[[Floats], Floats]  # sums (..., C) -> statistics (..., Q), NaN where undefined

RESAMPLES = 2000
SEED = 20130615  # of the resampled faces: the same ones for every model, board and machine
LEVEL = 0.95
CONTROL_LEVEL = 0.999  # a control fails only outside this interval
SEEDS_NEEDED = 3  # fewer tell nothing usable about the spread between seeds
ROUNDING = 1e-9  # a spread below is that of the arithmetic
_CHUNK = 8_000_000  # float32 weights held at once: 32 MB


def resample(groups: int, resamples: int = RESAMPLES) -> Iterator[NDArray[np.float32]]:
    """How often each group is drawn in each resample: chunks (r, groups) that together hold `resamples` rows.

    Equal for equal arguments, so that two models, resampled one after the other, are still paired.
    """
    draw = np.random.default_rng([SEED, groups])
    chunk = max(1, _CHUNK // max(groups, 1))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = draw.integers(0, groups, (rows, groups), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * groups
        counts = np.bincount(drawn.ravel(), minlength=rows * groups)
        yield counts.reshape(rows, groups).astype(np.float32)


def grouped(faces: Floats, groups: NDArray[np.int64] | None) -> Floats:
    """Sum what the faces of one subject add: (..., N, C) and (N,) subject numbers 0..G-1 -> (..., G, C)."""
    if groups is None:
        return faces
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.add.reduceat(faces[..., order, :], starts, axis=-2)


def bootstrap(units: Floats, statistic: Statistic, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Statistics under resampled units, the same ones for all networks.

    Args:
        units: (M, G, C), what each face or subject adds to the sums of each network.
        statistic: sums (..., C) -> (..., Q).

    Returns:
        (R, M, Q) float64.
    """
    networks, groups, columns = units.shape
    flat = np.ascontiguousarray(units.transpose(1, 0, 2).reshape(groups, -1), np.float32)  # counts stay exact
    draws = []
    for weights in resample(groups, resamples):
        sums = (weights @ flat).reshape(-1, networks, columns)
        draws.append(np.stack([statistic(sums[:, each]) for each in range(networks)], 1))
    return np.concatenate(draws)


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and what is known of its variance, for Q statistics."""

    mean: Floats  # (Q,) NaN where a seed has no value
    faces: Floats  # (Q,) V_m: variance of the mean under resampled faces; NaN: cannot be resampled
    seeds: Floats  # (Q,) B: variance through the choice of seeds; 0 where `count` is too small to know it
    freedom: Floats  # (Q,) degrees of freedom of B
    count: int  # S
    groups: int  # faces, or subjects, that were resampled


def spread(values: Floats, draws: Floats, groups: int) -> Spread:
    """The two variances of a mean over seeds (PROTOCOL.md 1).

    s² holds, beside the variance of seeds, the part of the faces' noise that each network has for itself,
    (V̄ − V_m)·S/(S − 1): it is taken off, since V_m has it already. The S − 1 degrees of freedom are those of s²;
    what is taken off is known well, so B = s²/S − constant has (S − 1)·(B / (s²/S))² of them. Counting S − 1 for B
    itself would leave the interval of three seeds with 89 % coverage (results/checks/intervals.md).

    Args:
        values: (S, Q) on the faces as they are.
        draws: (R, S, Q) on resampled faces.
        groups: how many units were resampled.
    """
    count = len(values)
    mean_variance = _variance(draws.mean(1))  # (Q,) V_m
    between, freedom = np.zeros_like(mean_variance), np.ones_like(mean_variance)
    if count >= SEEDS_NEEDED:
        whole = values.var(0, ddof=1)  # s²
        own = np.maximum(0, _variance(draws).mean(0) - mean_variance) * count / (count - 1)
        between = np.maximum(0, whole - own) / count
        share = np.divide(between * count, whole, out=np.ones_like(whole), where=between > 0)
        freedom = (count - 1) * np.square(share)
    return Spread(values.mean(0), mean_variance, between, freedom, count, groups)


def _variance(draws: Floats) -> Floats:
    """Variance over resamples (axis 0); NaN where more than 5 % of them leave the statistic undefined."""
    defined = np.isfinite(draws)
    count = defined.sum(0)
    kept = np.where(defined, draws, 0)
    centred = np.where(defined, draws - kept.sum(0) / np.maximum(count, 1), 0)
    variance = np.square(centred).sum(0) / np.maximum(count - 1, 1)
    return np.where(count >= max(2, 0.95 * len(draws)), variance, np.nan)


def half_width(variances: Sequence[tuple[Floats, ArrayLike]], level: float = LEVEL) -> Floats:
    """t_ν·√ΣV of independent variances, each with its degrees of freedom; ν by Satterthwaite (1946)."""
    quantile = np.asarray(distributions.t.ppf((1 + level) / 2, _freedom(variances)))
    return np.asarray(quantile * np.sqrt(_total(variances)))


def _total(variances: Sequence[tuple[Floats, ArrayLike]]) -> Floats:
    return np.asarray(np.sum([variance for variance, _ in variances], axis=0))


def _freedom(variances: Sequence[tuple[Floats, ArrayLike]]) -> Floats:
    total = _total(variances)
    below = np.sum([np.square(variance) / freedom for variance, freedom in variances], axis=0)
    return np.asarray(np.divide(np.square(total), below, out=np.full_like(total, np.inf), where=below > 0))


def _parts(of: Spread) -> list[tuple[Floats, ArrayLike]]:
    """V_m with G − 1 degrees of freedom, which matters only where people are few, and B with its own."""
    return [(of.faces, max(of.groups - 1, 1)), (of.seeds, of.freedom)]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, or why there is none, or what it leaves out."""

    low: float | None
    high: float | None
    note: str | None = None


def intervals(of: Spread, upper: ArrayLike | None = 1.0, lower: ArrayLike = 0.0) -> list[Interval]:
    """The intervals of Q statistics, cut at `lower` and `upper` (one for all, or (Q,)), beyond which no value lies."""
    most = np.broadcast_to(np.asarray(np.inf if upper is None else upper, np.float64), of.mean.shape)
    least = np.broadcast_to(np.asarray(lower, np.float64), of.mean.shape)
    # Never narrower than the seeds alone allow: where few seeds happen to lie close, ν comes out too large as well.
    half = np.maximum(half_width(_parts(of)), half_width([(of.seeds, max(of.count - 1, 1))]))
    few = None if of.count >= SEEDS_NEEDED else _only(of.count)
    found = []
    for mean, width, faces, bottom, top in zip(of.mean, half, of.faces, least, most, strict=True):
        if math.isnan(mean):
            found.append(Interval(None, None))
        elif of.groups < 2 or math.isnan(faces):
            found.append(Interval(None, None, "no interval: too few faces to resample"))
        elif width < ROUNDING:
            found.append(Interval(None, None, "no interval: every resample gives the same value"))
        else:
            found.append(Interval(max(float(bottom), float(mean - width)), min(float(top), float(mean + width)), few))
    return found


def _only(seeds: int) -> str:
    return "interval for this seed only" if seeds == 1 else f"interval for these {seeds} seeds only"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same faces: `first` − `second`, positive where the first is better."""

    first: int
    second: int
    difference: float
    low: float | None  # 95 % of this difference alone; None: too many resamples leave it undefined
    high: float | None
    p: float  # two-sided, Holm-corrected over all pairs of the table
    seeds_known: bool  # False: a model has fewer than three seeds, so this holds for those networks only

    @property
    def certain(self) -> bool:
        return self.p < 1 - LEVEL


def compare(values: Sequence[Floats], draws: Sequence[Floats], groups: int) -> list[Comparison]:
    """Compare all pairs of models, paired over faces; the seeds of two models are independent draws.

    V_m is the variance of the difference under the same resampled faces; each model adds its own B.

    Args:
        values: per model (S,), one statistic of which more is better.
        draws: per model (R, S).
        groups: how many units were resampled.
    """
    spreads = [spread(each[:, None], drawn[..., None], groups) for each, drawn in zip(values, draws, strict=True)]
    means = [drawn.mean(1) for drawn in draws]  # (R,)
    pairs = []
    for first, second in itertools.combinations(range(len(values)), 2):
        one, two = spreads[first], spreads[second]
        faces = _variance(means[first] - means[second])
        variances = [(np.atleast_1d(faces), max(groups - 1, 1)), _parts(one)[1], _parts(two)[1]]
        difference = float(one.mean[0] - two.mean[0])
        error = float(np.sqrt(_total(variances))[0])
        freedom, half = float(_freedom(variances)[0]), float(half_width(variances)[0])
        # No spread at all means equal predictions, or nothing to resample: nothing is told apart.
        p = 2 * float(distributions.t.sf(abs(difference) / error, freedom)) if error > ROUNDING else 1.0
        known = min(one.count, two.count) >= SEEDS_NEEDED
        low, high = (None, None) if math.isnan(half) else (difference - half, difference + half)
        pairs.append(Comparison(first, second, difference, low, high, p, known))
    return _holm_corrected(pairs)


def compare_means(values: Sequence[Floats]) -> list[Comparison]:
    """Compare all pairs of models by a number of which each seed has one, more being better (Welch 1947).

    Args:
        values: per model (S,), S ≥ 3.
    """
    pairs = []
    for first, second in itertools.combinations(range(len(values)), 2):
        one, two = values[first], values[second]
        variances: list[tuple[Floats, ArrayLike]] = [
            (np.atleast_1d(each.var(ddof=1) / len(each)), len(each) - 1) for each in (one, two)
        ]
        difference = float(one.mean() - two.mean())
        error = float(np.sqrt(_total(variances))[0])
        half = float(half_width(variances)[0])
        p = 2 * float(distributions.t.sf(abs(difference) / error, float(_freedom(variances)[0]))) if error else 1.0
        pairs.append(Comparison(first, second, difference, difference - half, difference + half, p, True))
    return _holm_corrected(pairs)


def _holm_corrected(pairs: Sequence[Comparison]) -> list[Comparison]:
    corrected = holm([pair.p for pair in pairs])
    return [replace(pair, p=p) for pair, p in zip(pairs, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda each: p_values[each])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, each in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[each]))
        corrected[each] = largest
    return corrected


def rank_ranges(models: int, comparisons: Sequence[Comparison]) -> list[tuple[int, int]]:
    """Each model's best and worst possible rank: 1 + those certainly better, M − those certainly worse."""
    better, worse = [0] * models, [0] * models
    for pair in comparisons:
        if pair.certain:
            winner, loser = (pair.first, pair.second) if pair.difference > 0 else (pair.second, pair.first)
            better[loser] += 1
            worse[winner] += 1
    return [(1 + above, models - below) for above, below in zip(better, worse, strict=True)]


def renamed(confusion: ArrayLike, level: float = CONTROL_LEVEL) -> tuple[float, float, float]:
    """Balanced accuracy, and its interval over random renamings of the predicted classes.

    A network that learned nothing of the emotions names its groups of faces by chance (PROTOCOL.md 2). The
    interval is exact for up to eight classes, where all K! renamings are taken, else from 10,000 of them. With
    fewer than seven classes it holds all of them, so that nothing can lie outside.

    Args:
        confusion: (K, K) faces of emotion i that are read as j.

    Returns:
        balanced accuracy over the classes that have faces; low; high.
    """
    confusion = np.asarray(confusion, np.float64)
    shares = confusion[confusion.sum(1) > 0]
    present = np.flatnonzero(confusion.sum(1) > 0)
    shares /= shares.sum(1, keepdims=True)
    classes = len(confusion)
    if math.factorial(classes) <= 50_000:
        names = np.array(list(itertools.permutations(range(classes))))
    else:
        names = np.random.default_rng(SEED).permuted(np.tile(np.arange(classes), (10_000, 1)), axis=1)
    scores = shares[np.arange(len(present)), names[:, present]].mean(1)
    low = float(np.quantile(scores, (1 - level) / 2, method="lower"))
    high = float(np.quantile(scores, (1 + level) / 2, method="higher"))
    return float(shares[np.arange(len(present)), present].mean()), low, high
