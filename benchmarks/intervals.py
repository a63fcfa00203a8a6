"""Do the intervals hold what they promise? Simulated networks on simulated faces, measured as the report does.

    python benchmarks/intervals.py

The network of seed s reads face i rightly where a_i·√w + c_is·√(1 − w) < Φ⁻¹(p_s), with a (the face) and c (the
face × seed) standard normal, and p_s = p + b_s with b (the seed) normal. So p is exactly the accuracy over all
faces and seeds, and p_s that of one network over all faces. The seed's standard deviation is given in standard
errors √(p(1 − p)/n) of one network's accuracy.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import t as student

from emobench.metrics import intervals as stats
from emobench.metrics.recognition import measures, tally

FACES = 1000
REGIMES = {  # name -> (w, standard deviation of the seed in standard errors)
    "face": (0.95, 0.2),
    "seed": (0.5, 3.0),
    "face × seed": (0.05, 0.2),
    "all alike": (0.5, 1.0),
}
ACCURACIES = (0.3, 0.6, 0.9)
SEEDS = (1, 3, 5)


@dataclass(frozen=True)
class Coverage:
    """How often 95 % intervals held the truth in one regime."""

    covered: float
    plain: float  # the same with S − 1 degrees of freedom for B itself
    width: float  # mean width
    alarms: float  # share of runs in which two equally good models were told apart, at 5 %


def networks(
    draw: np.random.Generator, face: NDArray[np.float32], seeds: int, accuracy: float, regime: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Right or not, (runs, seeds, faces), and the true accuracy of each network, (runs, seeds)."""
    share, spread = REGIMES[regime]
    error = np.sqrt(accuracy * (1 - accuracy) / FACES)
    true = np.clip(accuracy + spread * error * draw.standard_normal((len(face), seeds)), 1e-3, 1 - 1e-3)
    own = draw.standard_normal((len(face), seeds, FACES), np.float32)
    return face * np.sqrt(share) + own * np.sqrt(1 - share) < ndtri(true)[..., None], true


def accuracy_intervals(regime: str, accuracy: float, seeds: int, runs: int, resamples: int) -> Coverage:
    """Coverage for the accuracy; with fewer than three seeds the truth is the accuracy of those networks."""
    draw = np.random.default_rng([seeds, round(100 * accuracy), list(REGIMES).index(regime)])
    covered = plain = alarms = 0
    width = 0.0
    for start in range(0, runs, 500):
        size = min(500, runs - start)
        face = draw.standard_normal((size, 1, FACES), np.float32)
        values: list[NDArray[np.float64]] = []
        draws: list[NDArray[np.float64]] = []
        for _ in range(2):  # two equally good models, the first of which is looked at
            right, true = networks(draw, face, seeds, accuracy, regime)
            if not values:
                truth = np.full(size, accuracy) if seeds >= stats.SEEDS_NEEDED else true.mean(1)
            units = right.reshape(-1, FACES, 1).astype(np.float32)
            resampled = stats.bootstrap(units, lambda sums: sums / FACES, resamples)
            values.append(right.mean(2).T)  # (seeds, runs)
            draws.append(resampled.reshape(-1, size, seeds).transpose(0, 2, 1))  # (resamples, seeds, runs)
        spread = stats.spread(values[0], draws[0], FACES)
        found = stats.intervals(spread)
        low, high = np.array([[each.low, each.high] for each in found], np.float64).T
        covered += int(((low <= truth) & (truth <= high)).sum())
        width += float((high - low).sum())
        plain += int((np.abs(spread.mean - truth) <= _plain(spread)).sum())
        for run in range(size):
            pair = stats.compare([each[:, run] for each in values], [each[..., run] for each in draws], FACES)[0]
            alarms += pair.certain
    return Coverage(covered / runs, plain / runs, width / runs, alarms / runs)


def _plain(spread: stats.Spread) -> NDArray[np.float64]:
    """Half the width with S − 1 degrees of freedom for B as it comes out after the subtraction."""
    total = spread.faces + spread.seeds
    below = np.square(spread.seeds) / max(spread.count - 1, 1)
    freedom = np.divide(np.square(total), below, out=np.full_like(total, np.inf), where=below > 0)
    return np.asarray(student.ppf(0.975, freedom) * np.sqrt(total))


def macro_f1_intervals(seeds: int, runs: int, resamples: int, classes: int = 8) -> Coverage:
    """Coverage for macro F1: eight emotions of unequal difficulty, each taken for the next one where it is misread."""
    draw = np.random.default_rng([seeds, classes])
    labels = np.arange(FACES) % classes
    offset = np.linspace(-0.6, 0.6, classes)
    deviation = 0.05  # of a seed, in the latent

    def truth(shift: NDArray[np.float64]) -> NDArray[np.float64]:
        right = ndtr(0.8 + offset + shift[..., None])
        return np.asarray((2 * right / (2 + right - np.roll(right, 1, -1))).mean(-1))

    def statistic(sums: NDArray[np.floating]) -> NDArray[np.floating]:
        return measures(sums, classes)["macro_f1"][..., None]

    average = float(truth(deviation * draw.standard_normal(200_000)).mean())
    covered, plain, width = 0, 0, 0.0
    for _ in range(runs):
        face = draw.standard_normal(FACES)
        shift = deviation * draw.standard_normal(seeds)
        latent = np.sqrt(0.5) * (face + draw.standard_normal((seeds, FACES)))
        read = np.where(latent < 0.8 + offset[labels] + shift[:, None], labels, (labels + 1) % classes)
        units = np.stack([tally(np.eye(classes)[each], labels) for each in read])
        spread = stats.spread(statistic(units.sum(1)), stats.bootstrap(units, statistic, resamples), FACES)
        (found,) = stats.intervals(spread)
        target = average if seeds >= stats.SEEDS_NEEDED else float(truth(shift).mean())
        covered += found.low is not None and found.high is not None and found.low <= target <= found.high
        plain += bool(abs(spread.mean[0] - target) <= _plain(spread)[0])
        width += (found.high or 0) - (found.low or 0)
    return Coverage(covered / runs, plain / runs, width / runs, float("nan"))


def main() -> None:
    """Print the table that is committed as results/checks/intervals.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    lines = [
        "# Coverage of the 95 % intervals",
        "",
        f"`python benchmarks/intervals.py`: {options.runs:,} simulated boards a line, {FACES:,} faces, "
        f"{options.resamples:,} resamples. Wanted: 92 to 98 %.",
        "",
        "*plain* counts S − 1 degrees of freedom for B after the subtraction; emobench counts them for s², of which B",
        "is what remains, and is never narrower than t₍S₋₁₎·√B. *false alarms*: two equally good models told apart at",
        "5 %; below three seeds the comparison speaks of the trained networks only, which do differ.",
        "",
        "| seeds | dominant effect | true value | coverage | plain | mean width | false alarms |",
        "| --: | --- | --: | --: | --: | --: | --: |",
    ]
    print("\n".join(lines), flush=True)
    cases = [(seeds, regime, accuracy) for seeds in SEEDS for regime in REGIMES for accuracy in ACCURACIES]
    for seeds, regime, accuracy in cases:
        found = accuracy_intervals(regime, accuracy, seeds, options.runs, options.resamples)
        alarms = f"{100 * found.alarms:.1f} %" if seeds >= stats.SEEDS_NEEDED else "–"
        lines.append(_line(seeds, regime, f"accuracy {accuracy}", found, alarms))
        print(lines[-1], flush=True)
    for seeds in SEEDS:
        found = macro_f1_intervals(seeds, options.runs // 4, options.resamples)
        lines.append(_line(seeds, "all alike", "macro F1, 8 emotions", found, "–"))
        print(lines[-1], flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(seeds: int, regime: str, what: str, found: Coverage, alarms: str) -> str:
    shares = f"{100 * found.covered:.1f} % | {100 * found.plain:.1f} %"
    return f"| {seeds} | {regime} | {what} | {shares} | {found.width:.4f} | {alarms} |"


if __name__ == "__main__":
    main()
