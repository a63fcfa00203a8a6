"""How often the label-order audit accuses a network wrongly, and how often it notices an exchange: by simulation.

    python benchmarks/label_order.py --out results/checks/label-order.md

Networks of seven emotions are drawn: those that guess, always say the same, are biased, weak, take two for one, or
are good; test faces in even shares or in those of FER-2013. Each audit is the one of `emobench.metrics.label_order`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from emobench.metrics import label_order
from emobench.report.markdown import table

K = 7
SIZES = (200, 500, 1000, 3589)  # faces; the last: PublicTest or PrivateTest of FER-2013
EVEN = np.full(K, 1 / K)
FER2013 = np.array(
    [0.137, 0.015, 0.147, 0.245, 0.174, 0.111, 0.171]
)  # anger, disgust, fear, happy, sad, surprise, neutral
UNIFORM = np.full((K, K), 1 / K)
EYE = np.eye(K)
NETWORKS = {  # (K, K): how often each emotion is read as each
    "guesses": UNIFORM,
    "always says the same": np.tile(EYE[3], (K, 1)),
    "always says the rarest": np.tile(EYE[1], (K, 1)),
    "guesses, biased": np.tile([0.6, 0.2, 0.1, 0.05, 0.03, 0.01, 0.01], (K, 1)),
    "nearly always says the same": np.tile([0, 0, 0, 0.98, 0.01, 0.005, 0.005], (K, 1)),
    "weak": 0.92 * UNIFORM + 0.08 * EYE,
    "weak, biased": 0.1 * EYE + 0.9 * np.tile([0.02, 0.02, 0.02, 0.7, 0.1, 0.07, 0.07], (K, 1)),
    "takes two for one": np.where(np.arange(K)[:, None] < 2, [0.4, 0.4, *[0.2 / 5] * 5], 0.6 * EYE + 0.4 * UNIFORM),
    "half right": 0.5 * EYE + 0.5 * UNIFORM,
}
SKILLS = (0.1, 0.2, 0.3, 0.5, 0.7)  # of the networks whose exchange is to be noticed: accuracy is skill + (1 − skill)/7


def drawn(
    confusion: np.ndarray, n: int, prior: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and answers of n faces."""
    labels = random.choice(K, n, p=prior / prior.sum())
    chances = np.cumsum(confusion / confusion.sum(1, keepdims=True), 1)[labels]
    return labels, np.minimum((random.random(n)[:, None] > chances).sum(1), K - 1)


def accused(confusion: np.ndarray, n: int, prior: np.ndarray, given: np.ndarray, times: int, seed: int) -> float:
    """The share of networks whose order the audit does not believe."""
    random, found = np.random.default_rng([seed, n]), 0
    for trial in range(times):
        labels, answers = drawn(confusion, n, prior, random)
        found += bool(label_order.audit(labels, answers, given, K, seed=trial).renamed)
    return found / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/checks/label-order.md"))
    parser.add_argument("--times", type=int, default=2000, help="networks of each kind")
    given = parser.parse_args()
    label_order._TRIALS = 1  # the power is not asked for here
    order, exchanged = np.arange(K), np.array([0, 1, 4, 3, 2, 5, 6])
    priors = {"even": EVEN, "FER-2013": FER2013}
    rows, worst = [], 0.0
    for name, confusion in NETWORKS.items():
        for shares, prior in priors.items():
            found = [accused(confusion, n, prior, order, given.times, 0) for n in SIZES]
            worst = max(worst, *found)
            rows.append([name, shares, *(f"{100 * each:.2f} %" for each in found)])
    power = [
        [f"{skill + (1 - skill) / K:.2f}", shares,
         *(f"{100 * accused(skill * EYE + (1 - skill) * UNIFORM, n, prior, exchanged, given.times // 4, 1):.0f} %"
           for n in SIZES)]
        for skill in SKILLS
        for shares, prior in priors.items()
    ]  # fmt: skip
    header = [f"{n:,} faces" for n in SIZES]
    lines = [
        "# The label-order audit",
        "",
        f"Of {given.times:,} simulated networks of each kind whose classes are named rightly, so many are accused of "
        f"an exchange; at most {100 * worst:.2f} %, and 2 % are allowed. Seven emotions, each face of another person.",
        "",
        *table(["network", "faces of each emotion", *header], rows, left=range(2)),
        "",
        f"And of {given.times // 4:,} of which two classes (fear and sad) are exchanged, so many are found:",
        "",
        *table(["accuracy in the right order", "faces of each emotion", *header], power, left=range(2)),
        "",
        f"Repeat: `python benchmarks/label_order.py --times {given.times}`.",
    ]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
