"""How far another training moves a figure: writes emobench/report/spread.csv from the committed boards.

    python benchmarks/spread.py

Of each class on a dataset the standard deviation over seeds, pooled over the rows of all boards that have at least
three, and of the demo with three seeds, whose figures alone are committed (`demo_seeds.py`); of the figures that rank
a track, and of accuracy, raw control, FED and ES. Run it when one of them was written again; a test says so.
"""

from __future__ import annotations

import csv
import io
import math
import subprocess
from collections.abc import Iterable
from pathlib import Path

from emobench.files import write_text
from emobench.metrics.intervals import SEEDS_NEEDED
from emobench.report.spread import RELATIVE, TABLE, Known, deviation
from emobench.suite.catalog import tracks

RESULTS = Path(__file__).parents[1] / "results"
DEMO = RESULTS / "checks" / "demo-seeds.csv"
ALSO = {("accuracy", ""), ("control", "macro"), ("fed", ""), ("es", "")}

Place = tuple[str, str, int, str, str, str, str]  # the first fields of `Known`


def figures() -> set[tuple[str, str]]:
    """Metric and emotion of what is looked at."""
    ranked = {(key.metric, key.emotion) for each in tracks().values() for by in each.rankings for key in by.metrics}
    return ranked | ALSO


def measured(table: Path) -> dict[Place, dict[str, list[float]]]:
    """The figures of the trained rows of a board's table: place -> row -> a value a seed, from three seeds on."""
    found: dict[Place, dict[str, list[float]]] = {}
    flags: dict[tuple[str, ...], str] = {}
    wanted = figures()
    with open(table, newline="", encoding="utf-8") as file:
        lines = [row for row in csv.DictReader(file) if not row["model"].startswith("control:") and not row["judge"]]
    for row in lines:
        mine = "@".join(filter(None, [row["variant"], row.get("trainer")]))  # boards of before have no such column
        name = row["track"], row["dataset"], row["size"], row["model"], mine
        if not row["seed"]:
            flags.setdefault(name, row["flags"])
        elif (row["metric"], row["emotion"]) in wanted and row["value"] != "n/a":
            under = "yes" if "under-trained" in flags[name].split(";") else "no"
            place = (*name[:2], int(row["size"]), row["model"], under, row["metric"], row["emotion"])
            found.setdefault(place, {}).setdefault(mine, []).append(float(row["value"]))
    whole = {place: {row: of for row, of in rows.items() if len(of) >= SEEDS_NEEDED} for place, rows in found.items()}
    return {place: rows for place, rows in whole.items() if rows}


def pooled(boards: Iterable[Path], *checks: Path) -> list[Known]:
    """The table: spreads of the rows of all boards, weighted by their degrees of freedom.

    Args:
        checks: tables of boards of which no more is committed.
    """
    squares: dict[Place, list[tuple[float, int, str]]] = {}
    tables = {board.name: board / "metrics.csv" for board in boards}
    tables |= {f"{check.parent.name}/{check.name}": check for check in checks}
    for source, table in tables.items():
        for place, rows in measured(table).items():
            relative = place[5] in RELATIVE
            for values in rows.values():
                freedom = len(values) - 1
                squares.setdefault(place, []).append((deviation(values, relative) ** 2, freedom, source))
    found = []
    for place, of in sorted(squares.items()):
        freedom = sum(each for _, each, _ in of)
        spread = math.sqrt(sum(square * each for square, each, _ in of) / freedom)
        source = ", ".join(dict.fromkeys(name for *_, name in of))
        scale = "log" if place[5] in RELATIVE else "linear"
        found.append(Known(*place, scale, float(f"{spread:.4g}"), freedom, source))
    return found


def committed(results: Path = RESULTS) -> list[Path]:
    """The boards that are committed, and not those that somebody ran here."""
    command = ["git", "ls-files", "-z", "--", "*/metrics.csv"]
    listed = subprocess.run(command, cwd=results, capture_output=True, text=True, check=True)
    return sorted((results / name).parent for name in listed.stdout.split("\0") if name)


def written(lines: Iterable[Known]) -> str:
    """The table as its file holds it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Known._fields)
    writer.writerows(lines)
    return file.getvalue()


def main() -> None:
    lines = pooled(committed(), DEMO)
    write_text(TABLE, written(lines))
    print(f"{TABLE}: {len(lines)} figures")


if __name__ == "__main__":
    main()
