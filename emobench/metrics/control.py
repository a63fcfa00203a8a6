"""Control: does a face show the emotion asked for? Read by judges that never met the model (PROTOCOL.md, 4).

Shapes: R resamples, J judges, K emotions, N faces, G groups of faces (people).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SKILL = 0.1  # of recall − f; a judge that tells an emotion apart less well says nothing about it

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """What a panel of J judges said of N faces.

    Attributes:
        asked: (N,) the emotion asked for, in 0 … K − 1; of real faces the one that they show.
        read: (J, N) the emotion that each judge reads.
        groups: (N,) the person of each face; None: each face is its own.
    """

    asked: NDArray[np.int64]
    read: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None


def rates(asked: NDArray[np.int64], read: NDArray[np.int64], classes: int) -> Shares:
    """(J, K, K): of the faces asked for as e (row), the share that each judge reads as each emotion; NaN for none."""
    counts = _counts(asked, read, np.zeros(len(asked), np.int64), classes)[0]
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(2, keepdims=True))


def _counts(
    asked: NDArray[np.int64], read: NDArray[np.int64], group: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """(G, J, K, K) how many faces of each group that were asked for as e (row) each judge read as each emotion."""
    counts = np.zeros((int(group.max(initial=-1)) + 1, len(read), classes, classes))
    for judge, seen in enumerate(read):
        np.add.at(counts[:, judge], (group, asked, seen), 1)
    return counts


def hits(rates_: Shares) -> Shares:
    """(…, J, K) raw control: the share read as what was asked for."""
    return np.diagonal(rates_, axis1=-2, axis2=-1)


def false_rates(rates_: Shares) -> Shares:
    """(…, J, K) f: the rate of reading e on faces of the other emotions, these equally weighted."""
    classes = rates_.shape[-1]
    return np.asarray((rates_.sum(-2) - hits(rates_)) / (classes - 1))


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
        each: (…, J, K) raw, of each judge.
        calibrated: (…, K); NaN where no judge can tell the emotion.
    """

    each: Shares
    calibrated: Shares

    @classmethod
    def of(cls, made: Shares, real: Shares) -> Control:
        """From hits (…, J, K) on generated and rates (…, J, K, K) on real faces."""
        return cls(made, calibrated(made, real))

    @property
    def raw(self) -> Shares:
        """(…, K), mean over judges."""
        return np.asarray(self.each.mean(-2))

    def macro(self) -> dict[str, Shares]:
        """The macro averages; NaN where an emotion's is."""
        raw = self.raw.mean(-1)
        return {
            "control": raw,
            "control_calibrated": self.calibrated.mean(-1),
            "control_corrected": np.asarray(corrected(raw, self.raw.shape[-1])),
        }


def control(generated: Verdicts, real: Verdicts, classes: int) -> Control:
    """Control of generated faces, calibrated by the judges' rates on real test faces."""
    made = hits(rates(generated.asked, generated.read, classes))
    return Control.of(made, rates(real.asked, real.read, classes))


def resampled(generated: Verdicts, real: Verdicts, classes: int, resamples: int, seed: int, stream: int = 0) -> Control:
    """The same under `resamples` bootstrap samples (R, …): numerator and denominator are resampled together.

    Args:
        seed: of the resampled real faces: the same ones for all models of a board.
        stream: of the resampled generated faces: one for models that are compared on the same faces (editing), each its
            own for models whose faces have nothing to do with each other.
    """
    made = resampled_hits(generated, classes, resamples, np.random.default_rng((seed, 1, stream)))
    return Control.of(made, resampled_rates(real, classes, resamples, np.random.default_rng((seed, 0))))


def resampled_rates(real: Verdicts, classes: int, resamples: int, random: np.random.Generator) -> Shares:
    """(R, J, K, K) `rates` of real faces, of which whole people are drawn."""
    drawn = _drawn(real, classes, resamples, random)
    with np.errstate(invalid="ignore"):
        return np.asarray(drawn / drawn.sum(-1, keepdims=True))


def resampled_hits(generated: Verdicts, classes: int, resamples: int, random: np.random.Generator) -> Shares:
    """(R, J, K) `hits` of generated faces: drawn within each emotion asked for, or by whole people where known."""
    if generated.groups is not None:
        return hits(resampled_rates(generated, classes, resamples, random))
    made = np.full((resamples, len(generated.read), classes), np.nan)
    for k in range(classes):
        right = (generated.read[:, generated.asked == k] == k).astype(np.float64)  # (J, n)
        if n := right.shape[1]:
            made[:, :, k] = random.multinomial(n, np.full(n, 1 / n), resamples) @ right.T / n
    return made


def unchanged_hits(
    real: Verdicts, shown: NDArray[np.int64], classes: int, resamples: int, random: np.random.Generator
) -> Shares:
    """(R, J, K) `hits` of real faces that nobody changed, each asked for every emotion but the one that it shows.

    Args:
        shown: (K,) how many faces of each emotion are drawn, each time anew.
    """
    counts = np.zeros((resamples, len(real.read), classes, classes))
    for k, faces in enumerate(shown):
        seen = real.read[:, real.asked == k, None] == np.arange(classes)  # (J, n, K)
        if n := seen.shape[1]:
            drawn = random.multinomial(faces, np.full(n, 1 / n), resamples).astype(np.float64)
            counts[:, :, k] = np.einsum("rn,jnk->rjk", drawn, seen)
    asked = shown.sum() - shown
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((counts.sum(2) - hits(counts)) / asked)


def _drawn(verdicts: Verdicts, classes: int, resamples: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(R, J, K, K) counts under resampled groups."""
    groups = np.arange(len(verdicts.asked)) if verdicts.groups is None else verdicts.groups
    group = np.unique(groups, return_inverse=True)[1]
    counts = _counts(verdicts.asked, verdicts.read, group, classes)
    n = len(counts)
    weights = random.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
    return np.asarray((weights @ counts.reshape(n, -1)).reshape(resamples, *counts.shape[1:]))


def intensity(probabilities: Shares, levels: Shares) -> tuple[float, float]:
    """Monotonicity and slope of the panel's probability of an emotion against the intensity asked for.

    Args:
        probabilities: (N,) of the emotion asked for.
        levels: (N,) 0 to 1.

    Returns:
        Spearman's rank correlation (NaN where nothing changes), and the least-squares slope.
    """
    from scipy.stats import spearmanr

    if np.ptp(probabilities) == 0:
        return float("nan"), 0.0
    return float(spearmanr(levels, probabilities).statistic), float(np.polyfit(levels, probabilities, 1)[0])
