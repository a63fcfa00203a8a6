"""Control: does a face show the emotion asked for? Read by judges that never met the model.

Shapes: R resamples, J judges, K emotions, N faces, G groups of faces that are resampled together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SKILL = 0.1  # of recall − f; a judge that tells an emotion apart less well says nothing about it
_TINY = 1e-12  # a variance below is that of the arithmetic

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """What a panel of J judges said of N faces.

    Attributes:
        asked: (N,) the emotion asked for, in 0 … K − 1; of real faces the one that they show.
        read: (J, N) the emotion that each judge reads.
        groups: (N,) what faces share, so that they are resampled together: a person, a source or the noise seed that
            every emotion was drawn from; None: each face is its own.
    """

    asked: NDArray[np.int64]
    read: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None


def rates(asked: NDArray[np.int64], read: NDArray[np.int64], classes: int) -> Shares:
    """(J, K, K): of the faces asked for as e (row), the share that each judge reads as each emotion; NaN for none."""
    return rate_shares(_counts(asked, read, np.zeros(len(asked), np.int64), 1, classes)[0])


def _counts(
    asked: NDArray[np.int64], read: NDArray[np.int64], group: NDArray[np.int64], groups: int, classes: int
) -> NDArray[np.float64]:
    """(G, J, K, K) how many faces of each group that were asked for as e (row) each judge read as each emotion."""
    counts = np.zeros((groups, len(read), classes, classes))
    for judge, seen in enumerate(read):
        np.add.at(counts[:, judge], (group, asked, seen), 1)
    return counts


def rate_units(verdicts: Verdicts, classes: int) -> NDArray[np.float64]:
    """(G, J, K, K) what each group adds to the counts whose shares are `rates`."""
    groups = np.arange(len(verdicts.asked)) if verdicts.groups is None else verdicts.groups
    names, group = np.unique(groups, return_inverse=True)
    return _counts(verdicts.asked, verdicts.read, group, len(names), classes)


def rate_shares(counts: Shares) -> Shares:
    """(…, J, K, K) `rates` of sums of `rate_units`."""
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(-1, keepdims=True))


def hit_units(verdicts: Verdicts, classes: int) -> NDArray[np.float64]:
    """(G, 1 + J, K) what each group adds: faces asked for as each emotion, and those that each judge reads as it."""
    counts = rate_units(verdicts, classes)
    return np.concatenate([counts[:, :1].sum(-1), hits(counts)], 1)


def hit_shares(counts: Shares) -> Shares:
    """(…, J, K) `hits` of sums of `hit_units`; NaN where no face was asked for the emotion."""
    with np.errstate(invalid="ignore"):
        return np.asarray(counts[..., 1:, :] / counts[..., :1, :])


def hits(rates_: Shares) -> Shares:
    """(…, J, K) raw control: the share read as what was asked for."""
    return np.diagonal(rates_, axis1=-2, axis2=-1)


def false_rates(rates_: Shares) -> Shares:
    """(…, J, K) f: the rate of reading e on faces of the other emotions that have any, these equally weighted."""
    known = ~np.isnan(rates_)
    all_, own = np.nansum(rates_, -2), np.nan_to_num(hits(rates_))
    with np.errstate(invalid="ignore"):
        return np.asarray((all_ - own) / (known.sum(-2) - hits(known)))


def calibrated(made: Shares, real: Shares) -> Shares:
    """(…, K) Rogan–Gladen: (acc − f) / (recall − f) per judge, then the mean of the judges that can tell.

    NaN where none can, or no face was asked for the emotion.

    Args:
        made: (…, J, K) hits on generated faces.
        real: (…, J, K, K) rates on real test faces of known emotion.
    """
    recall, false = hits(real), false_rates(real)
    skill = recall - false
    able = skill >= LEAST_SKILL
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(able, (made - false) / skill, 0)
        return np.asarray(each.sum(-2) / np.where(able.any(-2), able.sum(-2), np.nan))


def corrected(raw_macro: Shares | float, classes: int) -> Shares | float:
    """The macro average corrected for chance: (acc − 1/K) / (1 − 1/K)."""
    return (raw_macro - 1 / classes) / (1 - 1 / classes)


@dataclass(frozen=True)
class Control:
    """Control of one model: per emotion and the macro average, as values or as draws (R, …) of the bootstrap.

    Attributes:
        each: (…, J, K) raw, of each judge; NaN where no face was asked for the emotion.
        calibrated: (…, K); NaN where moreover no judge can tell the emotion.
        asked: (K,) bool, the emotions that faces were asked for: those of the raw macro average.
        counted: (K,) bool, those of them that also have real faces to calibrate by: of the calibrated macro average.
    """

    each: Shares
    calibrated: Shares
    asked: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    @classmethod
    def of(cls, made: Shares, real: Shares) -> Control:
        """From hits (J, K) on generated and rates (J, K, K) on real faces."""
        asked, known = (np.asarray(np.isfinite(each).all(-2)) for each in (made, hits(real)))
        return cls(made, calibrated(made, real), asked, asked & known)

    def under(self, made: Shares, real: Shares) -> Control:
        """The same of draws (R, J, K) and (R, J, K, K): macro averages of the same emotions, whatever is drawn."""
        return Control(made, calibrated(made, real), self.asked, self.counted)

    @property
    def raw(self) -> Shares:
        """(…, K), mean over judges."""
        return np.asarray(self.each.mean(-2))

    def macro(self) -> dict[str, Shares]:
        """The macro averages, over the emotions that can have a value; NaN where one of them has none."""
        raw = average(self.raw, self.asked)
        return {
            "control": raw,
            "control_calibrated": average(self.calibrated, self.counted),
            "control_corrected": np.asarray(corrected(raw, self.raw.shape[-1])),
        }


def average(values: Shares, emotions: NDArray[np.bool_]) -> Shares:
    """(…,) the mean of values (…, K) over some emotions (K,); NaN over none."""
    if not emotions.any():
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(values[..., emotions].mean(-1))


def control(generated: Verdicts, real: Verdicts, classes: int) -> Control:
    """Control of generated faces, calibrated by the judges' rates on real test faces."""
    made = hits(rates(generated.asked, generated.read, classes))
    return Control.of(made, rates(real.asked, real.read, classes))


def unchanged_hits(
    real: Verdicts, shown: NDArray[np.int64], classes: int, resamples: int, random: np.random.Generator
) -> Shares:
    """(R, J, K) `hits` of real faces that nobody changed, each asked for every emotion but the one that it shows.

    Args:
        shown: (K,) how many faces of each emotion are drawn, each time anew; an emotion without real faces gives none.
    """
    counts = np.zeros((resamples, len(real.read), classes, classes))
    shown = np.where(np.bincount(real.asked, minlength=classes) > 0, shown, 0)
    for k in np.flatnonzero(shown):
        seen = real.read[:, real.asked == k, None] == np.arange(classes)  # (J, n, K)
        n = seen.shape[1]
        drawn = random.multinomial(shown[k], np.full(n, 1 / n), resamples).astype(np.float64)
        counts[:, :, k] = np.einsum("rn,jnk->rjk", drawn, seen)
    asked = shown.sum() - shown
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((counts.sum(2) - hits(counts)) / asked)


def intensity(
    probabilities: Shares, levels: Shares, weights: NDArray[np.floating] | None = None
) -> tuple[Shares, Shares]:
    """Monotonicity and slope of the panel's probability of an emotion against the intensity asked for.

    Args:
        probabilities: (N,) of the emotion asked for.
        levels: (N,) 0 to 1.
        weights: (…, N) how often each face counts, whole numbers; None: once.

    Returns:
        (…,) Spearman's rank correlation (NaN where nothing changes), and (…,) the least-squares slope.
    """
    counts = np.ones(len(levels)) if weights is None else np.asarray(weights, np.float64)
    probabilities = probabilities - probabilities[0]  # what does not change has no slope, not that of rounding
    ranks = _correlation(_ranks(probabilities, counts), _ranks(levels, counts), counts)
    wide = np.broadcast_to(levels, counts.shape), np.broadcast_to(probabilities, counts.shape)
    covariance, variance, _ = _moments(*wide, counts)
    return ranks, np.divide(covariance, variance, out=np.full_like(variance, np.nan), where=variance > _TINY)


def _ranks(values: Shares, counts: Shares) -> Shares:
    """(…, N) mid-ranks of values (N,) of which each is there `counts` (…, N) times."""
    names, place = np.unique(values, return_inverse=True)
    tied = counts @ (place[:, None] == np.arange(len(names)))  # (…, V) how often each value is there
    return np.asarray((np.cumsum(tied, -1) - (tied - 1) / 2)[..., place])


def _moments(one: Shares, other: Shares, counts: Shares) -> tuple[Shares, Shares, Shares]:
    """(…,) covariance and both variances over the last axis, each pair there `counts` times."""
    shares = counts / counts.sum(-1, keepdims=True)
    a, b = (each - (shares * each).sum(-1, keepdims=True) for each in (one, other))
    return (shares * a * b).sum(-1), (shares * a * a).sum(-1), (shares * b * b).sum(-1)


def _correlation(one: Shares, other: Shares, counts: Shares) -> Shares:
    covariance, first, second = _moments(one, other, counts)
    scale = np.sqrt(first * second)
    return np.divide(covariance, scale, out=np.full_like(scale, np.nan), where=scale > _TINY)
