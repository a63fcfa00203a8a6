"""Intervals, comparisons and ranks. Arrays in, numbers out; deterministic.

What is claimed of them here is simulated by benchmarks/intervals.py, whose figures are results/checks/intervals.md:
95 % intervals cover in 92 % of boards or more, from ten people on and at accuracies from 0.3 to 0.97, and at most 5 %
of tables of 2 to 20 equally good models tell any two apart.

Faces and seeds are crossed: every network is measured on the same faces. A bootstrap over faces (over subjects
where they are known: whole people are drawn) tells how far a mean over networks moves with the faces; how far it
moves with the seed is added to that from the spread between the networks.
Shapes: R resamples, M networks (cells), S seeds of one model, N faces, G units (faces or subjects), C sums,
Q statistics.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.floating]
Statistic = Callable[[Floats], Floats]  # sums (..., C) -> statistics (..., Q), NaN where undefined

RESAMPLES = 2000
SEED = 20130615  # of the resampled faces: the same ones for every model, board and machine
LEVEL = 0.95
CONTROL_LEVEL = 0.999  # a control fails only outside this interval
MOST_RESAMPLES = 50_000  # where a p-value lies so near the limit that fewer cannot tell its side
SEEDS_NEEDED = 3  # fewer tell nothing usable about the spread between seeds
_SKEWNESS = 0.5  # how much of their kurtosis the intervals of shares allow for beside Wilson's own
_FLOAT32 = 1e-6  # of a number: what sums of resamples in float32 leave of one that is the same in all of them
ROUNDING = 1e-9  # a spread below is that of the arithmetic
_CHUNK = 8_000_000  # float32 weights held at once: 32 MB
_MOST_KEPT = 50_000_000  # resamples × units that are kept, of a byte each
_MOST_DRAWN = 500_000_000  # resamples × units: some seconds
_MORE = 5  # times as many resamples at each step
_MANY = 32  # models from which their covariances give the variances of all pairs, in a twentieth of the time
_NORMAL = 1e9  # degrees of freedom that are as good as infinitely many
_SETTLED = 3.2905  # standard deviations of resampling on either side, 99.9 %, before the side of a p-value is said


def resample(groups: int, resamples: int = RESAMPLES) -> Iterator[NDArray[np.unsignedinteger]]:
    """How often each group is drawn in each resample: chunks (groups, r) that together hold `resamples` columns.

    Equal for equal arguments, so that two models, resampled one after the other, are still paired.
    """
    draw = _kept if groups * resamples <= _MOST_KEPT else _drawn
    return iter(draw(groups, resamples, SEED))


@functools.lru_cache(maxsize=2)
def _kept(groups: int, resamples: int, seed: int) -> list[NDArray[np.unsignedinteger]]:
    """All chunks, for the next networks: to draw them takes nearly half as long as to sum the faces of ten."""
    return list(_drawn(groups, resamples, seed))


def _drawn(groups: int, resamples: int, seed: int) -> Iterator[NDArray[np.unsignedinteger]]:
    draw, chunk = np.random.default_rng([seed, groups]), max(1, _CHUNK // max(groups, 1))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = draw.integers(0, groups, (rows, groups), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * groups
        counts = np.bincount(drawn.ravel(), minlength=rows * groups)
        small = np.uint8 if counts.max(initial=0) < 256 else np.uint32  # a quarter of the memory, in all but odd cases
        found = np.ascontiguousarray(counts.astype(small).reshape(rows, groups).T)
        found.flags.writeable = False
        yield found


def grouped(faces: Floats, groups: NDArray[np.int64] | None) -> Floats:
    """Sum what the faces of one subject add: (..., N, C) and (N,) subject numbers 0..G-1 -> (..., G, C)."""
    if groups is None:
        return faces
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.add.reduceat(faces[..., order, :], starts, axis=-2)


@dataclass(frozen=True)
class Parted:
    """What units add to the sums of parts of them, each to those of its own part alone.

    The same as columns for all parts in which most units have zeros, in a fraction of the time.

    Attributes:
        units: (M, G, C).
        part: (G,) from 0 to P − 1; −1: of none.
        parts: P; their sums are (M, P·C), part by part.
    """

    units: Floats
    part: NDArray[np.integer]
    parts: int


Units = Floats | Sequence[Floats | Parted]  # (M, G, C), or several whose sums stand one after the other


def total(units: Units) -> Floats:
    """(M, C) the sums of all units."""
    return np.concatenate([table.sum(1) for _, table in _tables(units)], -1)


def bootstrap(units: Units, statistic: Statistic, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Statistics under resampled units, the same ones for all networks.

    Args:
        units: what each face or subject adds to the sums of each network.
        statistic: sums (..., C) -> (..., Q).

    Returns:
        (R, M, Q) float64.
    """
    first = units if isinstance(units, np.ndarray) else units[0]
    networks, groups = (first.units if isinstance(first, Parted) else first).shape[:2]
    tables = [(who, np.ascontiguousarray(table.transpose(1, 0, 2), np.float32)) for who, table in _tables(units)]
    draws = []
    for counts in resample(groups, resamples):
        sums = np.concatenate([_summed(counts[who], table) for who, table in tables], -1)
        draws.append(np.stack([statistic(sums[:, each]) for each in range(networks)], 1))
    return np.concatenate(draws)


def _tables(units: Units) -> Iterator[tuple[NDArray[np.int64] | slice, Floats]]:
    """Which units are summed, and what they add (M, ·, C): of parts, those of one after those of another."""
    for each in [units] if isinstance(units, np.ndarray) else units:
        if isinstance(each, Parted):
            for part in range(each.parts):
                mine = np.flatnonzero(each.part == part)
                yield mine, each.units[:, mine]
        else:
            yield slice(None), each


def _summed(counts: NDArray[np.unsignedinteger], table: Floats) -> Floats:
    """(r, M, C) float32 from counts (G, r) and what each unit adds (G, M, C); a column of zeros costs nothing.

    Counts stay exact.
    """
    groups, *shape = table.shape
    flat, weights = table.reshape(groups, math.prod(shape)), counts.astype(np.float32).T
    used = flat.any(0)
    if used.all():
        return (weights @ flat).reshape(-1, *shape)
    sums = np.zeros((len(weights), flat.shape[1]), np.float32)
    sums[:, used] = weights @ flat[:, used]
    return sums.reshape(-1, *shape)


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and what is known of its variance, for Q statistics."""

    mean: Floats  # (Q,) NaN where a seed has no value
    faces: Floats  # (Q,) V_m: variance of the mean under resampled faces; NaN: cannot be resampled
    seeds: Floats  # (Q,) B: variance through the choice of seeds; 0 where `count` is too small to know it
    freedom: Floats  # (Q,) degrees of freedom of B
    count: int  # S
    groups: int  # faces, or subjects, that were resampled
    own: Floats  # (Q,) the part of V_m that each network has for itself, face × seed; 0 where S = 1
    between: Floats  # (Q,) s²/S: variance of the mean as the seeds' own values show it; NaN where S = 1


def spread(values: Floats, draws: Floats, groups: int) -> Spread:
    """The two variances of a mean over seeds.

    s² holds, beside the variance of seeds, the part of the faces' noise that each network has for itself,
    (V̄ − V_m)·S/(S − 1): it is taken off, since V_m has it already. The S − 1 degrees of freedom are those of s²;
    what is taken off is known well, so B = s²/S − constant has (S − 1)·(B / (s²/S))² of them. Counting S − 1 for B
    itself would leave the interval of three seeds with too little coverage (results/checks/intervals.md).

    Args:
        values: (S, Q) on the faces as they are.
        draws: (R, S, Q) on resampled faces.
        groups: how many units were resampled.
    """
    count = len(values)
    mean_variance = _variance(draws.mean(1))  # (Q,) V_m
    own, seeds, freedom = (np.full_like(mean_variance, value) for value in (0.0, 0.0, 1.0))
    between = np.full_like(mean_variance, np.nan)
    if count > 1:
        between = values.var(0, ddof=1) / count  # s²/S
        own = np.maximum(0, _variance(draws).mean(0) - mean_variance) / (count - 1)
    if count >= SEEDS_NEEDED:
        seeds = np.maximum(0, between - own)
        share = np.divide(seeds, between, out=np.ones_like(between), where=seeds > 0)
        freedom = (count - 1) * np.square(share)
    return Spread(values.mean(0), mean_variance, seeds, freedom, count, groups, own, between)


def _variance(draws: Floats) -> Floats:
    """Variance over resamples (axis 0); NaN where more than 5 % of them leave the statistic undefined."""
    defined = np.isfinite(draws)
    count = defined.sum(0)
    kept = np.where(defined, draws, 0)
    centred = np.where(defined, draws - kept.sum(0) / np.maximum(count, 1), 0)
    variance = np.square(centred).sum(0) / np.maximum(count - 1, 1)
    return np.where(count >= max(2, 0.95 * len(draws)), variance, np.nan)


Parts = Sequence[tuple[Floats, ArrayLike]]  # independent variances, each with its degrees of freedom


def half_width(variances: Parts, level: float = LEVEL) -> Floats:
    """t_ν·√ΣV of independent variances, each with its degrees of freedom; ν by Satterthwaite (1946)."""
    return np.asarray(_quantile(_freedom(variances), level) * np.sqrt(_total(variances)))


def _quantile(freedom: ArrayLike, level: float = LEVEL) -> Floats:
    """t_ν that holds `level` between its two signs."""
    return np.asarray(stdtrit(np.minimum(freedom, _NORMAL), (1 + level) / 2))


def _p_value(difference: Floats, variances: Parts) -> Floats:
    """Two-sided p of differences by the same rule; 1 where nothing varies: equal predictions, nothing to resample."""
    error = np.sqrt(_total(variances))
    ratio = np.divide(np.abs(difference), error, out=np.zeros_like(error), where=error > ROUNDING)
    p = 2 * stdtr(np.minimum(_freedom(variances), _NORMAL), -ratio)
    return np.asarray(np.where(error > ROUNDING, p, 1.0))


def _total(variances: Parts) -> Floats:
    return np.asarray(np.sum([variance for variance, _ in variances], axis=0))


def _freedom(variances: Parts) -> Floats:
    total = _total(variances)
    below = np.sum([np.square(variance) / freedom for variance, freedom in variances], axis=0)
    return np.asarray(np.divide(np.square(total), below, out=np.full_like(total, np.inf), where=below > 0))


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, or why there is none, or what it leaves out."""

    low: float | None
    high: float | None
    note: str | None = None


def intervals(
    of: Spread, upper: ArrayLike | None = 1.0, lower: ArrayLike = 0.0, units: ArrayLike | None = None
) -> list[Interval]:
    """The intervals of Q statistics, cut at `lower` and `upper` (one for all, or (Q,)), beyond which no value lies.

    Statistics between 0 and 1 are taken as shares, see `_share_bounds`; the others get mean ± t_ν·√(V_m + B).

    Args:
        units: (Q,) faces or people that each statistic rests on, such as those of one emotion; None: all of them.
    """
    top = np.broadcast_to(np.asarray(np.inf if upper is None else upper, np.float64), of.mean.shape)
    bottom = np.broadcast_to(np.asarray(lower, np.float64), of.mean.shape)
    rests = np.broadcast_to(np.asarray(of.groups if units is None else units, np.float64), of.mean.shape)
    share = (bottom == 0) & (top == 1)
    at_end = share & (of.mean * (1 - of.mean) < ROUNDING)
    faces = of.faces * _larger(rests)
    free = np.where(share, _share_freedom(of.mean, faces, rests), np.maximum(rests - 1, 1))
    parts: Parts = [(faces, free), (of.seeds, of.freedom)]
    # Never narrower than the seeds alone allow: where few seeds happen to lie close, ν comes out too large as well. Of
    # what their spread owes to the faces, half is taken off there: by simulation, no world is then far below 95 %.
    least = np.maximum(0, of.between - of.own / 2) if of.count >= SEEDS_NEEDED else of.seeds
    half = np.maximum(half_width(parts), half_width([(least, max(of.count - 1, 1))]))
    low, high = of.mean - half, of.mean + half
    ends = _share_bounds(of.mean, faces, of.seeds, half, rests)
    low, high = np.where(share, ends[0], np.maximum(low, bottom)), np.where(share, ends[1], np.minimum(high, top))
    few = None if of.count >= SEEDS_NEEDED else _only(of.count)
    found = []
    for place, mean in enumerate(of.mean):
        if math.isnan(mean):
            found.append(Interval(None, None))
        elif rests[place] < 2 or math.isnan(of.faces[place]):
            found.append(Interval(None, None, "no interval: too few faces to resample"))
        elif half[place] < max(ROUNDING, _FLOAT32 * abs(mean)) and not at_end[place]:
            found.append(Interval(None, None, "no interval: every resample gives the same value"))
        else:
            found.append(Interval(float(low[place]), float(high[place]), few))
    return found


def against_zero(
    of: Spread, level: float = LEVEL, units: ArrayLike | None = None, alike: int | None = None
) -> tuple[Floats, Floats]:
    """p, two-sided, that each of Q statistics is 0, such as differences within one model; and half its interval.

    By the variances of `intervals`: mean ± t_ν·√(V_m + B). Three seeds tell little of B, so that it is pooled over the
    statistics; that of a statistic itself counts where it is larger.

    Args:
        level: of the interval.
        units: (Q,) faces or people that each statistic rests on; None: all of them.
        alike: how many of the Q statistics tell of B for themselves, the others following from them; None: all.

    Returns:
        p (Q,), 1 where nothing varies or resamples leave it undefined; half (Q,), NaN where they do.
    """
    rests = np.broadcast_to(np.asarray(of.groups if units is None else units, np.float64), of.mean.shape)
    parts = [(of.faces * _larger(rests), np.maximum(rests - 1, 1))]
    if of.count >= SEEDS_NEEDED:
        seeds = np.maximum(0, of.between - of.own)
        pooled = float(np.mean(seeds[np.isfinite(seeds)])) if np.isfinite(seeds).any() else 0.0
        freedom = np.full(of.mean.shape, (of.count - 1.0) * (len(of.mean) if alike is None else alike))
        parts.append((np.maximum(seeds, pooled), freedom))
    return _p_value(of.mean, parts), half_width(parts, level)


def _larger(units: Floats | float) -> Floats:
    """G/(G − 1), by which the variance of a bootstrap is too small (Efron 1982)."""
    return np.asarray(units / np.maximum(np.asarray(units) - 1, 1))


def _share_freedom(mean: Floats, faces: Floats, units: Floats) -> Floats:
    """Degrees of freedom of the variance of a share under resampled units.

    That of G units of kurtosis κ has 2G/(κ − 1) of them. The units of a share are skewed, the more the nearer it is to
    0 or 1 and the more a person's faces are alike: few people hold most errors. 1/(m(1 − m)) is the kurtosis of faces,
    of which as many count as vary as much as the people do. A part of that is in Wilson's interval already
    (`_share_bounds`): the weight is chosen by simulation (results/checks/intervals.md).
    """
    binomial = np.clip(mean * (1 - mean), 0, None)
    skewed = _ratio(np.nan_to_num(faces), np.square(binomial))  # 1/(m(1 − m)) over the number of independent faces
    return np.asarray(2 / (2 / np.maximum(units - 1, 1) + _SKEWNESS * skewed))


def _share_bounds(mean: Floats, faces: Floats, seeds: Floats, half: Floats, units: Floats) -> tuple[Floats, Floats]:
    """The shares p that lie within q·√(V_m·p(1 − p)/(m(1 − m)) + B) of the mean m, q = half/√(V_m + B).

    Wilson's interval (1927) with the design effect of seeds and people: m(1 − m)/V_m is the number of independent
    faces that would vary as much. Where the mean is 0 or 1 nothing varies, and each unit counts as one such face.
    """
    mean = np.clip(mean, 0, 1)
    binomial = mean * (1 - mean)
    total = faces + seeds
    few = _quantile(np.maximum(units - 1, 1))
    squared = np.divide(np.square(half), total, out=np.square(few), where=total > ROUNDING**2)  # q²
    per_face = np.divide(faces, binomial, out=1 / np.maximum(units, 1), where=binomial > ROUNDING)
    wide = squared * per_face
    # (p − m)² = q²B + wide·p(1 − p), a quadratic equation in p.
    middle = (mean + wide / 2) / (1 + wide)
    inner = np.square(middle) - (np.square(mean) - squared * seeds) / (1 + wide)
    reach = np.sqrt(np.maximum(inner, 0))
    return np.maximum(middle - reach, 0), np.minimum(middle + reach, 1)


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
    borderline: bool = False  # p lies so near the limit that other resamples could have put it on the other side

    @property
    def certain(self) -> bool:
        return self.p < 1 - LEVEL and not self.borderline


More = Callable[[Sequence[int], int], Sequence[Floats]]  # some models, R -> per model (R, S) draws


def compare(
    values: Sequence[Floats],
    draws: Sequence[Floats],
    groups: int,
    more: More | None = None,
    most: int = MOST_RESAMPLES,
) -> list[Comparison]:
    """Compare all pairs of models, paired over faces; the seeds of two models are independent draws.

    From three seeds on a comparison speaks of the models: its variance is that of the difference under the same
    resampled faces and what the seeds add (`_Seeds.tested`). With fewer seeds of either it speaks of these very
    networks, and only the faces vary.

    Args:
        values: per model (S,), one statistic of which more is better.
        draws: per model (R, S).
        groups: how many units were resampled.
        more: draws again with more resamples, where p lies so near the limit that R resamples cannot tell its side. A
            pair that `most` resamples do not settle, or that has no `more`, is borderline.
        most: resamples at which to stop.
    """
    draws, counts = list(draws), np.full(len(values), len(draws[0]) if len(draws) else 0)
    pairs, near = _compared(values, draws, counts, groups)
    resamples = _MORE * int(counts.max(initial=1))
    while more is not None and near and resamples <= most and resamples * groups <= _MOST_DRAWN:
        for place, drawn in zip(near, more(near, resamples), strict=True):
            draws[place], counts[place] = drawn, resamples
        pairs, near = _compared(values, draws, counts, groups)
        resamples *= _MORE
    return pairs


def _compared(
    values: Sequence[Floats], draws: Sequence[Floats], counts: NDArray[np.int64], groups: int
) -> tuple[list[Comparison], list[int]]:
    """All pairs, and the models of those whose side of the limit the resamples leave open."""
    first, second = np.triu_indices(len(values), 1)
    mean, between, own = np.zeros((3, len(values)))
    sizes = [drawn.shape for drawn in draws]
    together = [[place for place, other in enumerate(sizes) if other == size] for size in set(sizes)]
    for which in itertools.chain.from_iterable(_split(each, _CHUNK // math.prod(sizes[each[0]])) for each in together):
        of = spread(np.stack([values[each] for each in which], 1), np.stack([draws[each] for each in which], 2), groups)
        mean[which], between[which], own[which] = of.mean, of.between, of.own
    means = [drawn.mean(1) for drawn in draws]
    resamples = np.minimum(counts[first], counts[second])
    faces = np.zeros(len(first))
    for number in np.unique(resamples):  # more of them begin with the same ones, so that pairs stay paired
        which = resamples == number
        if len(values) > _MANY and all(np.isfinite(each[:number]).all() for each in means):
            faces[which] = _larger(groups) * _apart(means, first[which], second[which], int(number))
            continue
        at_once = max(2, _CHUNK // 2 // int(number))
        for start in range(0, int(which.sum()), at_once):
            some = np.flatnonzero(which)[start : start + at_once]
            pairs = zip(first[some], second[some], strict=True)
            apart = np.stack([means[one][:number] - means[other][:number] for one, other in pairs], 1)
            faces[some] = _larger(groups) * _variance(apart)
    seeds = _Seeds.of(between, [len(each) for each in values])
    difference, owned = mean[first] - mean[second], _larger(groups) * (own[first] + own[second])
    p, half = seeds.tested(difference, faces, owned, groups)
    # A variance from R resamples is known to within √(2/R) of itself, one standard deviation.
    unsure = _SETTLED * np.sqrt(2 / np.maximum(resamples, 1))
    less, more = 1 - unsure, 1 + unsure
    least = np.array(holm(seeds.tested(difference, less * faces, more * owned, groups)[0]))
    most = np.array(holm(seeds.tested(difference, more * faces, less * owned, groups)[0]))
    borderline = (least < 1 - LEVEL) & (most >= 1 - LEVEL)
    found = _comparisons(difference, half, p, seeds.known, borderline)
    return found, sorted({int(place) for pair in np.flatnonzero(borderline) for place in (first[pair], second[pair])})


def _split(places: list[int], size: int) -> Iterator[list[int]]:
    """Models of as many seeds and resamples, as many at once as memory allows."""
    yield from (places[start : start + max(1, size)] for start in range(0, len(places), max(1, size)))


def _apart(means: Sequence[Floats], first: NDArray[np.int64], second: NDArray[np.int64], resamples: int) -> Floats:
    """(P,) the variance of the difference of two models under resampled faces: V₁ + V₂ − 2·C₁₂, as of all at once."""
    here = np.unique([first, second])
    drawn = np.stack([means[each][:resamples] for each in here])
    drawn -= drawn.mean(1, keepdims=True)
    covariance = drawn @ drawn.T / (resamples - 1)
    one, other = np.searchsorted(here, first), np.searchsorted(here, second)
    variance = np.diagonal(covariance)
    return np.asarray(np.maximum(0, variance[one] + variance[other] - 2 * covariance[one, other]))


@dataclass(frozen=True)
class _Seeds:
    """How far the values of each model's seeds lie apart, and what that says of the P pairs of a table."""

    known: NDArray[np.bool_]  # (P,) both models have three seeds or more
    apart: Floats  # (P,) s₁²/S₁ + s₂²/S₂, of the pair alone
    freedom: Floats  # (P,) its degrees of freedom
    pooled: Floats  # (P,) the same from s² of all models, never below `apart`
    pooled_freedom: float

    @classmethod
    def of(cls, between: Floats, counts: Sequence[int]) -> _Seeds:
        """From s²/S and S of each model."""
        first, second = np.triu_indices(len(counts), 1)
        count, enough = np.array(counts, np.float64), np.array(counts) >= SEEDS_NEEDED
        mean_variance = np.where(enough, between, 0.0)
        free = np.where(enough, count - 1, 0.0)
        apart = mean_variance[first] + mean_variance[second]
        square = np.square(mean_variance) / np.maximum(free, 1)
        variance = mean_variance * count  # s²
        pool = _ratio(np.sum(free * variance), np.sum(free))
        return cls(
            enough[first] & enough[second],
            apart,
            _ratio(np.square(apart), square[first] + square[second], 1.0),
            np.maximum(apart, pool * (1 / count[first] + 1 / count[second])),
            float(_ratio(np.square(np.sum(free * variance)), np.sum(free * np.square(variance)), 1.0)),
        )

    def tested(self, difference: Floats, faces: Floats, own: Floats, groups: int) -> tuple[Floats, Floats]:
        """p and half the 95 % interval of each difference.

        Two tests, of which the one that finds more counts; their family-wise error together is simulated in
        results/checks/intervals.md. *Own*: Welch's (1947) over the seeds' means, with the part of the faces' variance
        added that all seeds of a model share. *Pooled*: three seeds tell little of their spread, so that of all models
        is pooled, with degrees of freedom by Box (1954), who allows for models that differ in it; the pair's own spread
        counts where it is larger.

        Args:
            difference: (P,)
            faces: (P,) its variance under resampled faces, V_m.
            own: (P,) the part of V_m that each network has for itself, face × seed.
        """
        free = max(groups - 1, 1)
        by_faces: Parts = [(faces, free)]
        by_own: Parts = [(np.maximum(0, faces - own), free), (np.maximum(self.apart, own), self.freedom)]
        excess = np.maximum(0, self.pooled - own)
        by_pool: Parts = [(faces, free), (excess, self.pooled_freedom * np.square(_ratio(excess, self.pooled, 1.0)))]
        by_seeds: Parts = [(excess, self.pooled_freedom)]  # never narrower than the seeds alone allow
        p_seeds = np.where(excess > 0, _p_value(difference, by_seeds), 0)
        p = np.minimum(_p_value(difference, by_own), np.maximum(_p_value(difference, by_pool), p_seeds))
        half = np.minimum(half_width(by_own), np.maximum(half_width(by_pool), half_width(by_seeds)))
        alone = _p_value(difference, by_faces), half_width(by_faces)
        return np.where(self.known, p, alone[0]), np.where(self.known, half, alone[1])


def compare_means(values: Sequence[Floats]) -> list[Comparison]:
    """Compare all pairs of models by a number of which each seed has one, more being better: `compare` without faces.

    Args:
        values: per model (S,), S ≥ 3.
    """
    first, second = np.triu_indices(len(values), 1)
    between = np.array([each.var(ddof=1) / len(each) for each in values])
    seeds = _Seeds.of(between, [len(each) for each in values])
    means = np.array([each.mean() for each in values])
    difference, none = means[first] - means[second], np.zeros(len(first))
    p, half = seeds.tested(difference, none, none, 1)
    return _comparisons(difference, half, p, seeds.known, np.zeros(len(first), bool))


def _comparisons(
    difference: Floats, half: Floats, p: Floats, known: NDArray[np.bool_], borderline: NDArray[np.bool_]
) -> list[Comparison]:
    """All pairs in the order of `itertools.combinations`, their p-values Holm-corrected."""
    found, corrected = [], holm(p)
    models = round((1 + math.sqrt(1 + 8 * len(p))) / 2)
    for place, (first, second) in enumerate(itertools.combinations(range(models), 2)):
        gap, width = float(difference[place]), float(half[place])
        low, high = (None, None) if math.isnan(width) else (gap - width, gap + width)
        sides = bool(known[place]), bool(borderline[place])
        found.append(Comparison(first, second, gap, low, high, corrected[place], *sides))
    return found


def _ratio(above: ArrayLike, below: ArrayLike, least: float = 0.0) -> Floats:
    """above / below, `least` where one of them is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.asarray(np.divide(above, below, out=np.full(above.shape, least), where=(above > 0) & (below > 0)))


def holm(p_values: Sequence[float] | Floats) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.zeros(len(p_values))
    times = np.arange(len(p_values), 0, -1) * np.asarray(p_values, np.float64)[order]
    corrected[order] = np.maximum.accumulate(np.minimum(times, 1))
    return [float(each) for each in corrected]


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

    A network that learned nothing of the emotions names its groups of faces by chance. The
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
