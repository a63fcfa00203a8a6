"""What of the demo does another training show again? Writes results/checks/demo-seeds.md, and its figures as CSV.

    emobench bench demo --set "seeds=[0, 1, 2]" --name seeds --results DIR      # on another processor than results/demo
    python benchmarks/demo_seeds.py DIR/seeds

`spread.py` reads the CSV, so that a demo says how far another training moves its figures; a test compares the page with
the CSV.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from spread import DEMO, RESULTS, figures

import emobench
from emobench.evaluation.tracks.track import Ranking
from emobench.files import write_text
from emobench.report.board import COSTS as OF_FITS
from emobench.runner.store import load_board
from emobench.suite.catalog import tracks

OTHER = "another processor"
COMMITTED = RESULTS / "demo"
COSTS = {*OF_FITS, "faces_per_s"}
PLACE = ["track", "dataset", "size", "model", "variant", "metric", "emotion", "judge"]


def of_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The figures of a board that say which network is better, each with the run that it is of ("": the mean)."""
    table = table[~table.metric.isin(COSTS)]
    return table.assign(run=table.seed.map(lambda seed: "" if pd.isna(seed) else f"seed {int(seed)}"))


def inside(table: pd.DataFrame) -> Iterator[tuple[str, int, float]]:
    """Of each further run, how many of its figures have an interval in seed 0, and the share that lies within."""
    first = table[(table.run == "seed 0") & table.low.notna()]
    for run in dict.fromkeys(table.run):
        if run not in ("", "seed 0"):
            both = first.merge(table[(table.run == run) & table.value.notna()], on=PLACE, suffixes=("", "_then"))
            yield run, len(both), float(both.value_then.between(both.low, both.high).mean())


def ranked(table: pd.DataFrame, track: str, ranking: Ranking) -> pd.DataFrame:
    """(rows, runs and `low`, `high`) the figure that ranks a track's rows, best of seed 0 first, with its interval."""
    for key in ranking.metrics:
        chosen = table[(table.track == track) & (table.metric == key.metric) & (table.emotion == key.emotion)]
        chosen = chosen[(chosen.judge == "") & ~chosen.model.str.startswith("control:") & (chosen.run != "")]
        found = chosen.pivot_table(index="model", columns="run", values="value", sort=False)
        if len(found) > 1 and not found.isna().any(axis=None):
            first = chosen[chosen.run == "seed 0"].set_index("model")
            return found.join(first[["low", "high"]]).sort_values("seed 0", ascending=ranking.better == "lower")
    return pd.DataFrame()


def kept(values: pd.DataFrame, run: str, *, apart: bool = False) -> tuple[int, int]:
    """How many pairs of rows stand in a run as in seed 0, of all.

    Args:
        apart: of those whose intervals in seed 0 do not overlap.
    """
    pairs = [values.loc[list(pair)] for pair in itertools.combinations(values.index, 2)]
    pairs = [pair for pair in pairs if not apart or pair.low.max() > pair.high.min()]
    return sum(pair["seed 0"].argmax() == pair[run].argmax() for pair in pairs), len(pairs)


def orders(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each order of the demo's rows: what it is of, and the figures as `ranked` gives them."""
    for name, track in tracks().items():
        for ranking in track.rankings:
            values = ranked(table, name, ranking)
            if len(values) > 1:
                yield f"{name}: {ranking.heading}", values


def line(model: str, values: pd.DataFrame, runs: Sequence[str]) -> str:
    """A row of the page."""
    digits = 1 if values["seed 0"].max() > 10 else 3  # shares, or distances
    return f"| {model} | {' | '.join(f'{values.loc[model, run]:,.{digits}f}' for run in runs)} |"


def _apart(tables: Sequence[tuple[str, pd.DataFrame]], run: str) -> str:
    counts = [kept(values, run, apart=True) for _, values in tables]
    return f"{sum(of for _, of in counts)} | {sum(same for same, _ in counts)}"


def page(table: pd.DataFrame, machine: str, other: str) -> str:
    """The check, from the figures of all runs, and the machines of the seeds and of the committed board."""
    runs = [run for run in dict.fromkeys(table.run) if run]
    tables = list(orders(table))
    lines = [
        "# What of the demo does another training show again?",
        "",
        f"The demo with seeds 0, 1 and 2 ({machine}), and seed 0 from {OTHER} ({other}), of which the "
        "[committed board](../demo/leaderboard.md) is. To repeat it, see `benchmarks/demo_seeds.py`.",
        "",
        "## Figures",
        "",
        "Of those that have a 95 % interval in seed 0, the share that lies within it in another run; and of the pairs "
        "of rows below whose intervals do not overlap, those that stand in the same order:",
        "",
        "| run | figures | within | pairs apart | in the same order |",
        "| --- | --: | --: | --: | --: |",
        *(f"| {run} | {n:,} | {100 * share:.0f} % | {_apart(tables, run)} |" for run, n, share in inside(table)),
        "",
        "## Orders",
        "",
        "Each track by what ranks it, the best row of seed 0 first; below it, pairs of rows that stand as in seed 0.",
    ]
    for heading, values in tables:
        lines += ["", f"| {heading} | {' | '.join(runs)} |", f"| --- |{' --: |' * len(runs)}"]
        lines += [line(model, values, runs) for model in values.index]
        lines += [f"| *pairs as in seed 0* | {' | '.join('{} of {}'.format(*kept(values, run)) for run in runs)} |"]
    return "\n".join([*lines, ""])


def _machine(board: Path) -> str:
    records = (cell.record for cell in load_board(board.parent, board.name))
    return next(record.hardware.named for record in records if record is not None and record.hardware is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=Path, help="the board of three seeds")
    options = parser.parse_args()
    seeds, other = (of_runs(emobench.read_board(board)) for board in (options.seeds, COMMITTED))
    both = pd.concat([seeds, other[other.run == "seed 0"].assign(run=OTHER)])
    mine, theirs = _machine(options.seeds), _machine(COMMITTED)
    if mine == theirs:
        parser.error(f"{options.seeds} is of {mine}, as {COMMITTED} is: train it on another processor")
    write_text(DEMO.with_suffix(".md"), page(both, mine, theirs))
    wanted = pd.Series(list(zip(both.metric, both.emotion, strict=True)), both.index).isin(figures())
    kept_rows = both[wanted & (both.judge == "") & ~both.model.str.startswith("control:") & (both.run != OTHER)]
    numbers = ["" if pd.isna(seed) else str(seed) for seed in kept_rows.seed]
    write_text(DEMO, kept_rows.assign(seed=numbers).drop(columns="run").to_csv(index=False, na_rep="n/a"))
    print(DEMO.with_suffix(".md"))


if __name__ == "__main__":
    main()
