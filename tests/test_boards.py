"""A board that cannot be written costs no training, is said, and is never reported as done."""

from __future__ import annotations

import errno
import html
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from reading import pages

from emobench.evaluation.tracks import recognition
from emobench.report.written import mark_unwritten, overall
from emobench.runner.record import read_record
from emobench.runner.store import load_board

Emobench = Callable[..., int]


def stumble(subjects: pd.Series) -> NoReturn:
    """In the place of a step of the board's code; all that files can make it raise costs their row alone."""
    raise TypeError(f"unhashable type: 'dict' among {len(subjects)}")


def test_what_breaks_a_board_is_said_once_and_the_other_cells_go_on(
    emobench: Emobench,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = tmp_path / "results"
    short = tiny.read_text().replace("epochs = 4", "epochs = 1")
    tiny.write_text(short)
    assert emobench("bench", tiny, "--results", results) == 0
    page = results / "tiny" / "leaderboard.md"
    former = page.read_text()
    monkeypatch.setattr(recognition, "people", stumble)
    tiny.write_text(short + '\n[model.other]\nclass = "resnet18"\nwidth = 0.0625\nbatch = 16\nepochs = 1\n')
    capsys.readouterr()
    assert emobench("bench", tiny, "--results", results) == 1
    shown = capsys.readouterr()
    assert shown.err.count("could not be written: TypeError: unhashable type: 'dict'") == 1
    assert "The board is" not in shown.out
    assert {row.row: row.state for row in load_board(results, "tiny")} == {
        "resnet18": "done", "other": "done", "control:permuted": "done",
    }  # fmt: skip
    lines = page.read_text().splitlines()
    assert lines[2].startswith("> **This board could not be written**: TypeError: unhashable type: 'dict'")
    assert "line " in lines[2]
    assert page.read_text().endswith(former)  # the last one that could be written stands below

    assert emobench("bench", tiny, "--results", results) == 1  # nothing is left to run, and the board is no board
    shown = capsys.readouterr()
    assert "cells are done" not in shown.out
    assert "could not be written" in shown.err
    assert emobench("report", "tiny", "--results", results) == 1
    assert "could not be written: TypeError" in capsys.readouterr().err
    assert page.read_text().count("could not be written**") == 1

    monkeypatch.undo()
    assert emobench("bench", tiny, "--results", results) == 0
    assert f"The board is {page}; as a page: emobench view tiny --results {results}" in capsys.readouterr().out
    assert "could not be written" not in page.read_text()
    assert emobench("bench", tiny, "--results", results) == 0
    assert "3 of 3 cells are done; the board is" in capsys.readouterr().out


def test_who_may_not_write_a_board_hears_whom_to_ask(tiny_results: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_results / "tiny", tmp_path / "tiny")
    path = str(tmp_path / "tiny" / "figures" / ".a.webp.tmp")
    said = mark_unwritten(tmp_path, "tiny", PermissionError(errno.EACCES, "Permission denied", path))
    assert said.startswith(f"{tmp_path / 'tiny' / 'figures'}: Permission denied. Ask its owner for the right")
    page = html.unescape(pages(tmp_path / "tiny")).replace("\\", "")
    assert "Ask its owner for the right to write there (`chmod -R g+w` for a group)" in page


@pytest.mark.parametrize("obstacle", ["page", "folder"])
def test_a_board_that_has_no_place_is_tried_again(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], obstacle: str
) -> None:
    """A folder where the page should be, a file where its folder should be: read-only folders do not stop root."""
    results = tmp_path / "results"
    tiny.write_text(tiny.read_text().replace("epochs = 4", "epochs = 1"))
    blocked = results / "tiny" if obstacle == "folder" else results / "tiny" / "leaderboard.md"
    if obstacle == "folder":
        results.mkdir()
        blocked.write_text("")
    else:
        (blocked / "kept").mkdir(parents=True)
    assert emobench("bench", tiny, "--results", results) == 1
    shown = capsys.readouterr()
    assert str(blocked) in shown.err
    assert shown.err.count("could not be written") == 1
    done = [read_record(path).state for path in results.glob("cells/*/*/result.json")]
    assert done == ["done", "done"]
    assert emobench("bench", tiny, "--results", results) == 1
    shown = capsys.readouterr()
    assert "could not be written" in shown.err
    assert "done; the board" not in shown.out
    blocked.unlink() if obstacle == "folder" else shutil.rmtree(blocked)
    assert emobench("bench", tiny, "--results", results) == 0
    assert "Complete: 2 of 2 cells done." in pages(results / "tiny")


def test_a_board_older_than_its_results_is_no_board(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a sweep that was killed between its last cell and its board."""
    results = tmp_path / "results"
    tiny.write_text(tiny.read_text().replace("epochs = 4", "epochs = 1"))
    assert emobench("bench", tiny, "--results", results) == 0
    page = results / "tiny" / "leaderboard.md"
    whole = page.read_text()
    for content in (whole.replace("<!-- results ", "<!-- results 0"), "".join(whole.splitlines(True)[:-1]), ""):
        page.write_text(content)
        capsys.readouterr()
        assert emobench("bench", tiny, "--results", results) == 0
        assert "The board is" in capsys.readouterr().out
        assert page.read_text() == whole


def test_a_diverged_cell_is_not_counted_as_done(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = '\n[model.wild]\nclass = "resnet18"\nwidth = 0.0625\nepochs = 2\nbatch = 16\nlr = 1e30\n'
    tiny.write_text(tiny.read_text().replace("epochs = 4", "epochs = 1") + wild)
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--results", results) == 1
    capsys.readouterr()
    assert emobench("bench", tiny, "--results", results) == 1
    assert "2 of 3 cells are done; the board is" in capsys.readouterr().out


def test_a_control_is_not_called_by_the_row_that_it_is_of() -> None:
    numbers = pd.DataFrame(
        {"model": ["resnet18", "resnet18", "control:permuted"], "variant": ["", "resnet18-wide", "resnet18-wide"]}
    ).assign(seed=np.nan, judge="", emotion="")
    assert overall(numbers)["row"].tolist() == ["resnet18", "resnet18-wide", "control:permuted"]
