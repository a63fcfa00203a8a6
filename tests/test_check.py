"""`emobench check`: figures that fell end CI."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Emobench = Callable[..., int]


def changed(results: Path, folder: Path, **figures: float) -> Path:
    """A copy of the tiny board's folder in which resnet18 has other figures."""
    shutil.copytree(results / "tiny", folder)
    table = pd.read_csv(folder / "metrics.csv", keep_default_na=False, dtype=str)
    for metric, value in figures.items():
        table.loc[(table["model"] == "resnet18") & (table["metric"] == metric), "value"] = str(value)
    table.to_csv(folder / "metrics.csv", index=False)
    return folder


@pytest.fixture
def low(tiny_results: Path, tmp_path: Path) -> Path:
    """Results whose board has a macro F1 of 0.25."""
    changed(tiny_results, tmp_path / "results" / "tiny", macro_f1=0.25, nll=1.5)
    return tmp_path / "results"


def test_figures_within_their_bounds_pass(low: Path, emobench: Emobench, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        emobench("check", "tiny", "--min", "resnet18.macro_f1=0.25", "--max", "resnet18.nll=2", "--results", low) == 0
    )
    assert "2 of 2 figures are as they must be" in capsys.readouterr().out


def test_figures_outside_are_named(low: Path, emobench: Emobench, capsys: pytest.CaptureFixture[str]) -> None:
    bounds = ("--min", "resnet18.macro_f1=0.3", "--max", "resnet18.nll=1.4", "--min", "resnet18.accuracy=0")
    assert emobench("check", "tiny", *bounds, "--results", low) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "resnet18 on synthetic-plain, recognition: macro_f1 is 0.25, and must be at least 0.3",
        "resnet18 on synthetic-plain, recognition: nll is 1.5, and must be at most 1.4",
    ]
    assert "1 of 3 figures are as they must be" in shown.out


def test_rows_that_fell_below_another_board_are_named(
    low: Path, tiny_results: Path, tmp_path: Path, emobench: Emobench, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changed(tiny_results, tmp_path / "before", macro_f1=0.28)
    assert emobench("check", "tiny", "--against", before, "--drop", 0.031, "--results", low) == 0
    capsys.readouterr()
    assert emobench("check", "tiny", "--against", before, "--drop", 0.02, "--results", low) == 1
    said = (
        "resnet18 on synthetic-plain, recognition: macro_f1 was 0.28, and is 0.25: worse by 0.03, and 0.02 is allowed"
    )
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_row_that_is_gone_or_not_measured_fell(
    low: Path, tiny_results: Path, tmp_path: Path, emobench: Emobench, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changed(tiny_results, tmp_path / "before")
    path = low / "tiny" / "metrics.csv"
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    table.assign(value=table["value"].where(table["metric"] != "macro_f1", "n/a")).to_csv(path, index=False)
    assert emobench("check", "tiny", "--against", before, "--results", low) == 1
    assert "and is n/a" in capsys.readouterr().err
    table[table["model"] != "resnet18"].to_csv(path, index=False)
    assert emobench("check", "tiny", "--against", before, "--results", low) == 1
    assert "and the row is not there any more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to check: say --min"),
        (("--min", "resnet18=0.3"), "is written as ROW.METRIC=VALUE"),
        (("--min", "resnet18.macro_f1=high"), "is written as ROW.METRIC=VALUE"),
        (("--min", "resnet81.macro_f1=0.3"), "did you mean 'resnet18'"),
        (("--min", "resnet18.macro_f=0.3"), "did you mean 'macro_f1'"),
        (("--against", "nowhere"), "there is no such board"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    low: Path, emobench: Emobench, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert emobench("check", "tiny", *options, "--results", low) == 2
    assert message.lower() in capsys.readouterr().err.lower()
