"""What a board of many cells needs: memory that does not grow with their faces."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report import Results, predictions

from emobench.metrics import intervals
from emobench.report import board
from emobench.report.board import sections
from emobench.runner.store import load_board
from emobench.suite.catalog import tracks

FACES = 3589  # FER2013's test split


def many(folder: Path, rows: int) -> Results:
    made = Results(folder)
    for place in range(rows):
        for seed in range(2):
            made.cell(f"row{place}", seed, table=predictions(1.0 + 0.1 * place, seed, FACES))
    made.write()
    return made


def peak(folder: Path) -> int:
    """Bytes that the numbers of a board take at most."""
    cells = load_board(folder, "demo")
    tracemalloc.start()
    sections("demo", cells, [tracks()["recognition"]])
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.slow
def test_memory_does_not_grow_with_the_faces_of_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell more takes its ranks' resamples, 16 kB, and its numbers; its faces alone took 5 MB."""
    monkeypatch.setattr(board, "AT_ONCE", 4)
    few, more = (peak(many(tmp_path / str(rows), rows).folder) for rows in (4, 12))
    assert (more - few) / 16 < 200_000, f"{few:,} and {more:,} bytes"


def test_numbers_do_not_depend_on_how_many_cells_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = many(tmp_path, 3)
    whole = (made.folder / "demo" / "metrics.json").read_bytes()
    table = pd.read_csv(made.folder / "demo" / "metrics.csv")
    monkeypatch.setattr(board, "AT_ONCE", 2)
    made.write()
    again = pd.read_csv(made.folder / "demo" / "metrics.csv")
    assert (made.folder / "demo" / "metrics.json").read_bytes() == whole
    numeric = ["value", "low", "high"]
    np.testing.assert_allclose(again[numeric], table[numeric], rtol=1e-5)  # sums of resamples are in float32
    assert again.drop(columns=numeric).equals(table.drop(columns=numeric))


def test_pairs_are_compared_alike_in_any_number_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    values = [random.random(3) for _ in range(9)]
    draws = [each + 0.01 * random.normal(size=(200, 3)) for each in values]
    whole = intervals.compare(values, draws, 50)
    monkeypatch.setattr(intervals, "_CHUNK", 200 * 2 * 5)  # five pairs at once
    assert intervals.compare(values, draws, 50) == whole
