"""How long a face, pixel and parameter takes: writes emobench/runner/rates.csv from the committed boards.

    python benchmarks/rates.py

Of each class the slowest fit, in picoseconds; a dry run bounds the time of fits by it. Run it when a committed board
has new fits; a test says so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from spread import committed

from emobench.files import write_text
from emobench.runner.duration import TABLE, slowest
from emobench.runner.record import read_record


def written(boards: Iterable[Path]) -> str:
    """The table as its file holds it."""
    found: dict[str, tuple[float, str]] = {}
    for board in boards:
        records = [read_record(path) for path in sorted((board / "cells").glob("*/result.json"))]
        fitted = [each for each in records if each.hardware is not None and each.hardware.gpu is None]
        for name, seconds in slowest(fitted).items():
            found[name] = max((seconds, board.name), found.get(name, (0.0, "")))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("model", "picoseconds", "source"))
    writer.writerows((name, f"{1e12 * seconds:.3g}", source) for name, (seconds, source) in sorted(found.items()))
    return file.getvalue()


def main() -> None:
    write_text(TABLE, written(committed()))
    print(TABLE)


if __name__ == "__main__":
    main()
