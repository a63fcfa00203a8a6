"""Do intervals and ranks hold what they promise? Simulated networks on simulated faces, measured as the report does.

    OMP_NUM_THREADS=1 python benchmarks/intervals.py --out results/checks/intervals.md

The network of seed s of a model reads face i of a person rightly where a weighted sum of standard normal effects,
whose squared weights sum to 1, lies below Φ⁻¹(p_s): effects of the person and of the face, which all networks share; of
the model × face, which the seeds of a model share; of the person × seed and the face × seed. p_s = p + b_s with b
normal. So p is exactly the accuracy over all people, faces and seeds, and p_s that of one network over all faces. The
seed's standard deviation is given in standard errors √(p(1 − p)/n) of one network's accuracy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import beta
from scipy.stats import t as student

from emobench.evaluation.tracks.panel import resampled
from emobench.metrics import intervals as stats
from emobench.metrics.control import Verdicts, control
from emobench.metrics.recognition import measures, tally

FACES = 1000
SEEDS = (1, 3, 5)
ACCURACIES = (0.3, 0.6, 0.9)
MODELS = (2, 6, 12, 20)
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class World:
    """What decides whether a face is read rightly: squared weights of effects, the rest being face × seed.

    Attributes:
        seed: standard deviation of a seed's accuracy, in standard errors of one network's.
        people, each: how many people, and faces of each.
        differing: how many times the seeds of the first model vary as much as others', in standard deviations.
    """

    face: float = 0.0
    person: float = 0.0
    model: float = 0.0
    person_seed: float = 0.0
    seed: float = 0.2
    people: int = FACES
    each: int = 1
    accuracy: float = 0.6
    differing: float = 1.0

    @property
    def faces(self) -> int:
        return self.people * self.each


REGIMES = {
    "face": World(face=0.95),
    "seed": World(face=0.5, seed=3.0),
    "face × seed": World(face=0.05),
    "all alike": World(face=0.5, seed=1.0),
    "face × seed and seed": World(face=0.05, seed=2.0),
    "model × face": World(face=0.25, model=0.5, seed=0.5),
}
FEW_PEOPLE = ((10, 20), (10, 5), (20, 10), (40, 5), (40, 20), (118, 1), (118, 3))
PEOPLE = World(face=0.3, person=0.3, person_seed=0.1, seed=0.5)
TABLES = {  # on fewer faces, since there are many networks
    "face": replace(REGIMES["face"], people=500),
    "people": World(face=0.1, person=0.4, model=0.1, person_seed=0.2, seed=0.5, people=50, each=10),
    "few people, 0.95": World(
        face=0.1, person=0.4, model=0.1, person_seed=0.2, seed=0.5, people=20, each=10, accuracy=0.95
    ),
    "seed": replace(REGIMES["seed"], people=500),
    "face × seed": replace(REGIMES["face × seed"], people=500),
    "face × seed and seed": replace(REGIMES["face × seed and seed"], people=500, seed=1.0),
    "all alike": replace(REGIMES["all alike"], people=500),
    "model × face": replace(REGIMES["model × face"], people=500),
    "all alike, one model's seeds × 3": replace(REGIMES["all alike"], people=500, differing=3.0),
    "seed, one model's seeds × 3": replace(REGIMES["seed"], people=500, differing=3.0),
}


@dataclass(frozen=True)
class Coverage:
    """How often 95 % intervals held the truth in one world; a missing one does not hold it."""

    covered: float
    plain: float  # the same for mean ± t·√(V_m + B), as it was until 0c8123b
    width: float  # mean width
    alarms: float = float("nan")  # share of runs in which two equally good models were told apart, at 5 %


def networks(draw: np.random.Generator, world: World, runs: int, models: int, seeds: int) -> tuple[Floats, Floats]:
    """Faces of each person read rightly, (runs, models, seeds, people), and true accuracies, (runs, models, seeds)."""
    apart = np.full((models, 1), world.seed)
    apart[0] *= world.differing
    error = np.sqrt(world.accuracy * (1 - world.accuracy) / world.faces)
    true = world.accuracy + apart * error * draw.standard_normal((runs, models, seeds))
    true = np.clip(true, 1e-3, 1 - 1e-3)

    def effect(share: float, *shape: int) -> Floats | float:
        return np.sqrt(np.float32(share)) * draw.standard_normal(shape, np.float32) if share else np.float32(0)

    people, each = world.people, world.each
    rest = 1 - world.face - world.person - world.model - world.person_seed
    shared = effect(world.person, runs, 1, 1, people, 1) + effect(world.face, runs, 1, 1, people, each)
    latent = effect(rest, runs, models, seeds, people, each)
    latent += shared + effect(world.model, runs, models, 1, people, each)
    latent += effect(world.person_seed, runs, models, seeds, people, 1)
    right = latent < ndtri(true).astype(np.float32)[..., None, None]
    return right.sum(-1, dtype=np.float32), true


def measured(right: Floats, world: World, resamples: int) -> tuple[Floats, Floats]:
    """Accuracies (runs, models, seeds) and the same on resampled people, (R, runs, models, seeds)."""
    runs, models, seeds, people = right.shape
    units = right.reshape(-1, people, 1)
    draws = stats.bootstrap(units, lambda sums: sums / world.faces, resamples)
    return right.sum(-1, dtype=np.float64) / world.faces, draws.reshape(-1, runs, models, seeds)


def batches(runs: int, networks_each: int) -> Iterator[int]:
    """Sizes of parts of the runs that fit into memory."""
    size = max(1, 1000 // networks_each)
    for start in range(0, runs, size):
        yield min(size, runs - start)


def share_intervals(world: World, seeds: int, runs: int, resamples: int, alarmed: bool = False) -> Coverage:
    """Coverage for the accuracy; with fewer than three seeds the truth is the accuracy of those networks."""
    draw = np.random.default_rng([seeds, round(1000 * world.accuracy), world.people, world.each])
    covered = plain = alarms = 0
    width = 0.0
    for size in batches(runs, 2 * seeds):  # two equally good models, the first of which is looked at
        right, true = networks(draw, world, size, 2, seeds)
        values, draws = measured(right, world, resamples)
        truth = np.full(size, world.accuracy) if seeds >= stats.SEEDS_NEEDED else true[:, 0].mean(1)
        spread = stats.spread(values[:, 0].T, draws[:, :, 0].transpose(0, 2, 1), world.people)
        low, high = _ends(stats.intervals(spread))
        covered += int(((low <= truth) & (truth <= high)).sum())
        width += float(np.nansum(high - low))
        plain += int((np.abs(spread.mean - truth) <= _plain(spread)).sum())
        for run in range(size if alarmed else 0):
            (pair,) = stats.compare(list(values[run]), list(draws[:, run].transpose(1, 0, 2)), world.people)
            alarms += pair.p < 1 - stats.LEVEL  # a borderline pair, which a board would draw again, counts too
    return Coverage(covered / runs, plain / runs, width / runs, alarms / runs if alarmed else float("nan"))


def accuracy_intervals(regime: str, accuracy: float, seeds: int, runs: int, resamples: int) -> Coverage:
    """`share_intervals` of a regime at an accuracy, on 1,000 faces."""
    world = replace(REGIMES[regime], accuracy=accuracy)
    return share_intervals(world, seeds, runs, resamples, seeds >= stats.SEEDS_NEEDED)


def _ends(found: list[stats.Interval]) -> NDArray[np.float64]:
    return np.array([[each.low, each.high] for each in found], np.float64).T


def _plain(spread: stats.Spread) -> Floats:
    """Half the width of the symmetric interval."""
    of_seeds = stats.half_width([(spread.seeds, max(spread.count - 1, 1))])
    both = stats.half_width([(spread.faces, max(spread.groups - 1, 1)), (spread.seeds, spread.freedom)])
    return np.maximum(both, of_seeds)


def macro_f1_intervals(
    seeds: int, runs: int, resamples: int, *, easy: float = 0.8, people: int = FACES, each: int = 1
) -> Coverage:
    """Coverage for macro F1: eight emotions of unequal difficulty, each taken for the next one where it is misread.

    Args:
        easy: the latent threshold; 0.8 gives a macro F1 of about 0.78, 1.8 of 0.95.
        people, each: people with `each` faces, of successive emotions; 30 % of the latent variance is theirs.
    """
    classes = 8
    draw = np.random.default_rng([seeds, classes, people, each])
    labels = np.arange(people * each) % classes
    offset, deviation = np.linspace(-0.6, 0.6, classes), 0.05  # the latter of a seed, in the latent
    of_people = 0.0 if each == 1 else 0.3

    def truth(shift: Floats) -> Floats:
        right = ndtr(easy + offset + shift[..., None])
        return np.asarray((2 * right / (2 + right - np.roll(right, 1, -1))).mean(-1))

    def statistic(sums: Floats) -> Floats:
        return measures(sums, classes)["macro_f1"][..., None]

    average = float(truth(deviation * draw.standard_normal(200_000)).mean())
    person = np.repeat(np.arange(people), each)
    covered, plain, width = 0, 0, 0.0
    for _ in range(runs):
        shift = deviation * draw.standard_normal(seeds)
        latent = np.sqrt(of_people) * np.repeat(draw.standard_normal(people), each)
        latent = latent + np.sqrt((1 - of_people) / 2) * draw.standard_normal(len(labels))
        latent = latent + np.sqrt((1 - of_people) / 2) * draw.standard_normal((seeds, len(labels)))
        read = np.where(latent < easy + offset[labels] + shift[:, None], labels, (labels + 1) % classes)
        faces = np.stack([tally(np.eye(classes)[each], labels) for each in read])
        units = stats.grouped(faces, person)
        spread = stats.spread(statistic(faces.sum(1)), stats.bootstrap(units, statistic, resamples), people)
        ((low,), (high,)) = _ends(stats.intervals(spread))
        target = average if seeds >= stats.SEEDS_NEEDED else float(truth(shift).mean())
        covered += low <= target <= high
        plain += bool(abs(spread.mean[0] - target) <= _plain(spread)[0])
        width += float(np.nan_to_num(high - low))
    return Coverage(covered / runs, plain / runs, width / runs)


def control_intervals(noise: float, seeds: int, runs: int, resamples: int, emotions: int = 4) -> Coverage:
    """Coverage for calibrated control where each noise seed is drawn with every emotion, and its alarms.

    A face drawn from a noise seed shows what was asked for with a probability that the seed decides in part, for all
    its emotions alike. Two judges read faces with errors that are known from 400 real faces.

    Args:
        noise: the share of the latent variance that belongs to the noise seed.
    """
    draw = np.random.default_rng([seeds, round(100 * noise), emotions])
    drawn, judges, real = 100, 2, 100  # noise seeds, judges, real faces of each emotion
    shows, reads = 0.8, 0.85  # a face shows what was asked for; a judge reads what a face shows
    asked, group = np.tile(np.arange(emotions), drawn), np.repeat(np.arange(drawn), emotions)

    def verdicts(shown: NDArray[np.int64]) -> NDArray[np.int64]:
        wrong = (shown + draw.integers(1, emotions, (judges, len(shown)))) % emotions
        return np.where(draw.random((judges, len(shown))) < reads, shown, wrong)

    def generated(true: float) -> Verdicts:
        latent = np.sqrt(noise) * draw.standard_normal(drawn)[group] + np.sqrt(1 - noise) * draw.standard_normal(
            len(asked)
        )
        other = (asked + draw.integers(1, emotions, len(asked))) % emotions
        return Verdicts(asked, verdicts(np.where(latent < ndtri(true), asked, other)), group)

    covered, plain, alarms, width = 0, 0, 0, 0.0
    for _ in range(runs):
        labels = np.repeat(np.arange(emotions), real)
        truth = np.clip(shows + 0.02 * draw.standard_normal((2, seeds)), 0, 1)
        known = Verdicts(labels, verdicts(labels))
        values, draws = [], []
        for model in range(2):
            faces = [generated(true) for true in truth[model]]
            whole = [control(each, known, emotions).macro()["control_calibrated"] for each in faces]
            values.append(np.array(whole, np.float64))
            again = [resampled(each, known, emotions, f"row {model}", resamples)[1] for each in faces]
            draws.append(np.stack([each.macro()["control_calibrated"] for each in again], 1))
        spread = stats.spread(values[0][:, None], draws[0][..., None], drawn)
        ((low,), (high,)) = _ends(stats.intervals(spread, np.inf, -np.inf))
        target = shows if seeds >= stats.SEEDS_NEEDED else float(truth[0].mean())  # what faces show, not what is read
        covered += low <= target <= high
        plain += bool(abs(spread.mean[0] - target) <= _plain(spread)[0])
        width += float(np.nan_to_num(high - low))
        (pair,) = stats.compare(values, draws, drawn)
        alarms += pair.p < 1 - stats.LEVEL
    return Coverage(covered / runs, plain / runs, width / runs, alarms / runs)


@dataclass(frozen=True)
class Alarms:
    """How often tables of equally good models tell any two apart, and how many pairs where half are better."""

    found: int  # tables
    tables: int
    power: float  # share of the truly different pairs
    welch: float  # share of tables in which Welch over the seeds' means tells any two apart; NaN below three seeds
    welch_power: float

    @property
    def interval(self) -> tuple[float, float]:
        """99 % of the family-wise error (Clopper and Pearson 1934)."""
        low = beta.ppf(0.005, self.found, self.tables - self.found + 1) if self.found else 0.0
        return float(low), float(beta.ppf(0.995, self.found + 1, self.tables - self.found))


def table_alarms(world: World, models: int, seeds: int, tables: int, resamples: int, powered: int = 500) -> Alarms:
    """Tables of equally good models; then the first `powered` of them with every second model better.

    With fewer than three seeds the models are equally good on the population of faces as these very networks.
    """
    draw = np.random.default_rng([seeds, models, world.people, list(TABLES.values()).index(world)])
    if seeds < stats.SEEDS_NEEDED:
        world = replace(world, seed=0.0)
    found, power, welch, welch_power = 0, [], 0, []
    odd = np.arange(models) % 2
    first, second = np.triu_indices(models, 1)
    for size in batches(tables, models * seeds):
        values, draws = measured(networks(draw, world, size, models, seeds)[0], world, resamples)
        better = 4 * np.sqrt(2 * values.mean(2).var(1, ddof=1).mean()) * odd[:, None]
        for table in range(size):
            drawn = list(draws[:, table].transpose(1, 0, 2))
            p = [pair.p for pair in stats.compare(list(values[table]), drawn, world.people)]
            found += min(p) < 1 - stats.LEVEL
            known = seeds >= stats.SEEDS_NEEDED
            welch += known and min(_welch(values[table])) < 1 - stats.LEVEL
            if len(power) < powered:
                apart = odd[first] != odd[second]
                shifted = values[table] + better
                p = [pair.p for pair in stats.compare(list(shifted), drawn, world.people)]
                power.append(np.mean(np.array(p)[apart] < 1 - stats.LEVEL))
                welch_power.append(np.mean(np.array(_welch(shifted))[apart] < 1 - stats.LEVEL) if known else np.nan)
    share = welch / tables if seeds >= stats.SEEDS_NEEDED else float("nan")
    return Alarms(found, tables, float(np.mean(power)), share, float(np.mean(welch_power)))


def _welch(values: Floats) -> list[float]:
    """Holm-corrected p of all pairs from the seeds' means alone, (models, seeds) (Welch 1947)."""
    first, second = np.triu_indices(len(values), 1)
    seeds = values.shape[1]
    each = values.var(1, ddof=1) / seeds
    total = each[first] + each[second]
    freedom = (seeds - 1) * total**2 / np.maximum(each[first] ** 2 + each[second] ** 2, 1e-300)
    gap = np.abs(values[first].mean(1) - values[second].mean(1))
    return stats.holm((2 * student.sf(gap / np.sqrt(np.maximum(total, 1e-300)), freedom)).tolist())


def main() -> None:
    """Write the page that is committed as results/checks/intervals.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="of intervals in one world")
    parser.add_argument("--tables", type=int, default=2000, help="of models in one world")
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    options = parser.parse_args()
    start, lines = time.monotonic(), list[str]()

    def say(*more: str) -> None:
        lines.extend(more)
        print("\n".join(more), flush=True)

    say("# What the intervals and the ranks hold", "", *_head(options), "")
    _intervals(say, options)
    _tables(say, options)
    print(f"{(time.monotonic() - start) / 60:.0f} minutes")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _head(options: argparse.Namespace) -> list[str]:
    return [
        f"`OMP_NUM_THREADS=1 python benchmarks/intervals.py --out results/checks/intervals.md`: {options.runs:,} runs",
        f"or {options.tables:,} tables a line (macro F1 and control a quarter of it), {options.resamples:,} resamples.",
        "The docstring of the script says how networks and faces are made.",
    ]


def _intervals(say: Callable[..., None], options: argparse.Namespace) -> None:
    say(
        "## Coverage of 95 % intervals",
        "",
        "Wanted: at least 92 % everywhere, at most 98 % from 40 units on; a missing interval does not cover. *plain*:",
        "mean ± t·√(V_m + B) without Wilson's correction. *false alarms*: two equally good models told apart at 5 %.",
        "Below three seeds the truth is the accuracy of those networks.",
        "",
        "| seeds | units | world | true value | coverage | plain | mean width | false alarms |",
        "| --: | --: | --- | --: | --: | --: | --: | --: |",
    )

    def line(seeds: int, units: str, world: str, value: str, found: Coverage) -> None:
        alarms = "–" if seeds < stats.SEEDS_NEEDED or np.isnan(found.alarms) else f"{100 * found.alarms:.1f} %"
        shares = f"{100 * found.covered:.1f} % | {100 * found.plain:.1f} %"
        say(f"| {seeds} | {units} | {world} | {value} | {shares} | {found.width:.4f} | {alarms} |")

    for seeds in SEEDS:
        for name in REGIMES:
            for accuracy in ACCURACIES:
                found = accuracy_intervals(name, accuracy, seeds, options.runs, options.resamples)
                line(seeds, f"{FACES:,} faces", name, f"accuracy {accuracy}", found)
    for seeds in SEEDS:
        for people, each in FEW_PEOPLE:
            for accuracy in (0.6, 0.9, 0.95, 0.97):
                world = replace(PEOPLE, people=people, each=each, accuracy=accuracy)
                found = share_intervals(world, seeds, options.runs, options.resamples)
                line(seeds, f"{people} people × {each}", "people", f"accuracy {accuracy}", found)
    for seeds in SEEDS:
        for easy, people, each in ((0.8, FACES, 1), (1.8, FACES, 1), (0.8, 20, 16), (1.8, 40, 16), (1.8, 118, 8)):
            found = macro_f1_intervals(seeds, options.runs // 4, options.resamples, easy=easy, people=people, each=each)
            units = f"{people:,} faces" if each == 1 else f"{people} people × {each}"
            line(seeds, units, "all alike", f"macro F1, {'0.78' if easy == 0.8 else '0.95'}", found)
    for seeds in SEEDS:
        for noise in (0.0, 0.5, 0.9):
            found = control_intervals(noise, seeds, options.runs // 4, options.resamples)
            line(seeds, "100 noise seeds × 4", f"noise seeds {noise:.0%}", "calibrated control 0.8", found)
    say("")


def _tables(say: Callable[..., None], options: argparse.Namespace) -> None:
    say(
        "## Tables of equally good models",
        "",
        "How many tables tell any two models apart, at 5 % (wanted: no 99 % interval above it), and how many of the",
        "truly different pairs are found where every second model is better by four standard errors of a difference.",
        "*Welch*: over the seeds' means alone, Holm-corrected; it knows nothing of the faces, so it tells models apart",
        "that are good at other faces (*model × face*, *people*). Below three seeds the models are equal as these very",
        "networks. A p below 5 % counts, borderline or not.",
        "",
        "| seeds | models | world | false alarms (99 %) | power | Welch: false alarms | Welch: power |",
        "| --: | --: | --- | --: | --: | --: | --: |",
    )
    for seeds in SEEDS:
        for name, world in TABLES.items():
            if seeds < stats.SEEDS_NEEDED and name not in ("face", "people", "few people, 0.95", "face × seed"):
                continue  # the same to a network alone
            for models in MODELS:
                found = table_alarms(world, models, seeds, options.tables, options.resamples)
                low, high = found.interval
                share = f"{100 * found.found / found.tables:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
                welch = (
                    ("–", "–")
                    if np.isnan(found.welch)
                    else (f"{100 * found.welch:.1f} %", f"{100 * found.welch_power:.1f} %")
                )
                say(f"| {seeds} | {models} | {name} | {share} | {100 * found.power:.1f} % | {' | '.join(welch)} |")


if __name__ == "__main__":
    main()
