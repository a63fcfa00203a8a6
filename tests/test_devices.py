"""Fits on several devices: two processes on the CPU stand for two GPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from emobench.bench.store import load_board


def test_two_processes_fit_one_cell_and_one_evaluates_it(tiny: Path, tmp_path: Path) -> None:
    """The validation count does not divide by two, and the cell is the real command's, started cold."""
    results = tmp_path / "results"
    options = [
        *("--set", "trainer.devices=2", "--set", "trainer.accelerator=cpu", "--set", "trainer.strategy=ddp"),
        *("--set", "data.synthetic-plain.val=88", "--set", "model.resnet18.epochs=2"),
    ]
    command = [sys.executable, "-m", "emobench", "bench", str(tiny), *options, "--results", str(results)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    logs = "\n".join(path.read_text() for path in results.glob("cells/*/log.txt"))
    assert ended.returncode == 0, ended.stdout + ended.stderr + logs
    row = load_board(results, "tiny")[0]
    assert row.state == "done"
    assert row.result is not None
    assert row.result["made_of"]["fit"]["trainer"]["devices"] == 2
    assert row.result["cost"]["steps"] == 2 * (80 // 32)  # 16 faces a step and process
    predictions = pd.read_parquet(row.folder / "predictions.parquet")  # type: ignore[operator]
    assert len(predictions) == predictions["index"].nunique() == 80
    folder = results / "cells" / row.fit_key
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [0, 1]
    accuracy = history["val_accuracy"] * 88
    assert accuracy.round(3).tolist() == pytest.approx(accuracy.round().tolist(), abs=1e-2)  # each face counted once
    assert load_file(folder / "weights.safetensors")
