"""How a fit went: `history.csv` beside the board, a picture a row, and `emobench history` on any terminal."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from reading import pages

from emobench.errors import StoreError
from emobench.files import write_json
from emobench.report import figures
from emobench.report.history import Run, read_history
from emobench.report.markdown import markdown
from emobench.report.page import Link, Paragraph, Picture
from emobench.runner.record import read_record
from emobench.runner.store import StoredCell, load_board

Emobench = Callable[..., int]
HEADER = "epoch,step,lr,val_loss,val_accuracy,val_macro_f1,train_loss\n"
LINE = "{epoch},{step},0.01,1.5,0.5,0.25,1.25\n"


@pytest.fixture
def trained(tiny_results: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_results, tmp_path / "results")
    return tmp_path / "results"


def row(results: Path, name: str = "resnet18") -> StoredCell:
    (board,) = results.glob("*/suite.json")
    return next(cell for cell in load_board(results, board.parent.name) if cell.row == name)


def page(results: Path) -> str:
    (path,) = results.glob("*/leaderboard.md")
    return pages(path.parent)


def committed(results: Path) -> Path:
    """The folder that a clone has of the one row."""
    (board,) = results.glob("*/suite.json")
    return board.parent / "cells" / row(results).eval_key


def cloned(results: Path) -> None:
    shutil.rmtree(results / "cells")


# ---- on the board ---------------------------------------------------------------------------------------------------


def test_a_board_holds_the_history_of_each_fit(trained: Path) -> None:
    cell = row(trained)
    made = (trained / "cells" / cell.fit_key / "history.csv").read_bytes()
    assert (committed(trained) / "history.csv").read_bytes() == made
    evaluation = read_record(committed(trained) / "result.json").evaluation
    assert evaluation is not None
    assert evaluation.raw["history"] == "history.csv"
    rows = pd.read_csv(committed(trained) / "history.csv")
    assert rows["epoch"].tolist() == [0, 1, 2, 3]
    assert {"lr", "train_loss", "val_loss", "val_macro_f1"} <= set(rows.columns)

    picture = "figures/training-resnet18-synthetic-plain.webp"
    path = f"cells/{cell.eval_key}/history.csv"
    assert f"![training of resnet18]({picture})" in page(trained)
    assert f"| resnet18 | 4 | [curves]({picture}) | [`{path}`]({path}) |" in page(trained)
    folder = committed(trained).parents[1]
    with Image.open(folder / picture) as drawn:
        assert drawn.format == "WEBP"
        assert drawn.width > 600
        assert len(drawn.convert("RGB").getcolors(2**20)) > 20


def test_a_clone_draws_the_same_picture(emobench: Emobench, trained: Path) -> None:
    folder = committed(trained).parents[1]
    picture = folder / "figures" / "training-resnet18-synthetic-plain.webp"
    before, written = picture.read_bytes(), page(trained)
    picture.unlink()
    cloned(trained)
    assert emobench("report", folder.name, "--results", trained) == 0
    assert picture.read_bytes() == before
    assert page(trained) == written


def test_a_control_in_the_faces_of_others_has_no_fit_of_its_own(trained: Path) -> None:
    """`control:majority` is computed from the answers of another row; what is permuted is trained."""
    assert "training of control:permuted" in page(trained)
    assert "training of control:majority" not in page(trained)


def test_a_row_that_was_made_before_says_so(
    emobench: Emobench, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = committed(trained) / "result.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["evaluation"]["raw"]["history"]
    write_json(path, content)
    cloned(trained)
    folder = path.parents[2]
    assert emobench("report", folder.name, "--results", trained) == 0
    assert "No history of resnet18: measured before histories were kept with boards." in page(trained)
    assert "![training of resnet18]" not in page(trained)
    assert emobench("history", f"{folder.name}/synthetic-plain/resnet18", "--results", trained) == 2
    assert "has no history: measured before histories were kept with boards" in capsys.readouterr().err


DAMAGED = {
    "gone": (None, "history.csv: missing"),
    "empty": ("", "begins with ''"),
    "no epoch": (HEADER, "no epoch"),
    "a picture": ("\x89PNG\r\n\n\x00", "begins with"),
    "another fit's": (HEADER + LINE.format(epoch=0, step=5), "1 epochs, but the fit had 4"),
    "a short line": (HEADER + "0,5,0.01\n", "line 2 has 3 cells, and not 7"),
    "a word": (HEADER + LINE.format(epoch=0, step="five"), "line 2: 'five' is no number"),
    "epochs out of order": (HEADER + LINE.format(epoch=3, step=5), "line 2 is epoch 3, and not 0"),
    "a column with markup": ("epoch,step,lr,<img>\n0,1,2,3\n", "begins with"),
    "a name twice": ("epoch,step,lr,lr\n0,1,2,3\n", "begins with"),
}


@pytest.mark.parametrize(
    ("columns", "panels"), [(HEADER, 3), ("epoch,step,lr,train_loss\n", 2)], ids=["all", "without"]
)
def test_what_was_not_measured_has_no_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str, panels: int
) -> None:
    """Validation by which nothing is chosen may be left out."""
    path = tmp_path / "history.csv"
    values = {"lr": 0.01, "val_loss": 1.5, "val_accuracy": 0.5, "val_macro_f1": 0.25, "train_loss": 1.25}
    names = columns.strip().split(",")
    path.write_text(
        columns + "".join(f"{','.join(str(values.get(name, epoch)) for name in names)}\n" for epoch in (0, 1))
    )
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: (drawn.append(figure), path.touch()))
    figures.training(tmp_path / "training.webp", "mine", [Run(0, read_history(path), None, None, None)])
    assert [axes.get_title() for axes in drawn[0].axes][:: panels - 1] == ["loss", "learning rate"]
    assert len(drawn[0].axes) == panels
    assert all(axes.lines for axes in drawn[0].axes)


@pytest.mark.parametrize(("text", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_history_costs_its_curves_alone(
    emobench: Emobench, trained: Path, text: str | None, says: str
) -> None:
    cloned(trained)
    path, folder = committed(trained) / "history.csv", committed(trained).parents[1]
    numbers = (folder / "metrics.csv").read_bytes()
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert emobench("report", folder.name, "--results", trained) == 0
    assert "No history of resnet18: " in page(trained)
    assert says in page(trained).replace("\\", "").replace("&lt;", "<")
    assert "<img>" not in page(trained)
    assert (folder / "metrics.csv").read_bytes() == numbers


def test_a_history_that_leads_elsewhere_is_not_read_or_copied(emobench: Emobench, trained: Path) -> None:
    secret = trained.parent / "secret.csv"
    secret.write_text(HEADER + "".join(LINE.format(epoch=k, step=k) for k in range(4)))
    cell, folder = row(trained), committed(trained).parents[1]
    mine = trained / "cells" / cell.fit_key / cell.eval_key / "history.csv"
    shutil.rmtree(folder / "cells")
    mine.unlink()
    mine.symlink_to(secret)
    assert emobench("report", folder.name, "--results", trained) == 0
    assert not (folder / "cells" / cell.eval_key / "history.csv").exists()
    assert "No history of resnet18: history.csv: no regular file of this folder." in page(trained)


def test_what_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,step,lr,train_loss\n0,5,0.1,nan\n1,10,0.1,\n2,15,0.1,inf\n3,20,0.1,0.5\n")
    found = read_history(path)
    assert [math.isnan(value) for value in found.columns["train_loss"]] == [True, True, True, False]
    assert found.epochs == [0, 1, 2, 3]


def test_a_device_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "history.csv").symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="no file of at most 16 MiB"):
        read_history(tmp_path / "history.csv")


def test_a_path_never_ends_its_link() -> None:
    path = "cells/k/a) [x](javascript:y) <b>.csv"
    written = markdown([Paragraph((Link(path),)), Picture(path, ("shows",))])
    assert written.count("](") == 4 - 1  # the two links, and the bracket that stands in a code span
    assert "<b>" not in written
    assert "(cells/k/a%29%20%5Bx%5D%28javascript%3Ay%29%20%3Cb%3E.csv)" in written


# ---- on the terminal ------------------------------------------------------------------------------------------------


def test_the_command_shows_every_epoch(emobench: Emobench, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell, board = row(trained), committed(trained).parents[1].name
    assert cell.record is not None
    assert cell.record.fit is not None
    assert cell.record.fit.validation is not None
    best = cell.record.fit.validation
    file = (committed(trained) / "history.csv").read_text(encoding="utf-8")
    shown = set()
    for run in (f"{board}/synthetic-plain/resnet18", f"best:{board}/synthetic-plain", cell.fit_key, cell.fit_key[:8]):
        assert emobench("history", run, "--results", trained) == 0
        shown.add(capsys.readouterr().out)
        assert emobench("history", run, "--csv", "--results", trained) == 0
        assert capsys.readouterr().out == file
    (text,) = shown
    lines = text.splitlines()
    assert lines[0] == "resnet18 on synthetic-plain, seed 0"
    assert lines[1].split() == ["epoch", "train_loss", "val_loss", "macro_f1", "accuracy", "lr"]
    kept = lines[2 + best.epoch].split()
    assert kept[0] == f"*{best.epoch + 1}"
    assert kept[3] == f"{best.macro_f1:.4g}"
    assert kept[-1] == "#" * 18  # the best score has the longest bar
    assert len(lines[2:6]) == 4


def test_a_clone_shows_what_is_committed(emobench: Emobench, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = committed(trained).parents[1].name
    file = (committed(trained) / "history.csv").read_text(encoding="utf-8")
    cloned(trained)
    assert emobench("history", f"{board}/synthetic-plain/resnet18", "--csv", "--results", trained) == 0
    assert capsys.readouterr().out == file


def test_a_fit_under_way_is_shown_as_far_as_it_is(
    emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cells" / "0123456789abcdef0123"
    folder.mkdir(parents=True)
    assert emobench("history", "0123", "--results", tmp_path) == 2
    assert "no epoch is finished" in capsys.readouterr().err
    (folder / "history.csv").write_text(HEADER + "".join(LINE.format(epoch=k, step=k) for k in range(45)))
    assert emobench("history", "0123", "--results", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0123456789abcdef0123 (under way)"
    epochs = [line.split()[0] for line in lines[2:] if line.split()[0].isdigit()]
    assert len(epochs) <= 20
    assert (epochs[0], epochs[-1]) == ("1", "45")
    assert "some of 45 epochs; --csv prints all" in lines


def test_unknown_runs_are_named(emobench: Emobench, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = committed(trained).parents[1].name
    for run, says in {
        f"{board}/synthetic-plain/resnet81": f"did you mean '{board}/synthetic-plain/resnet18'?",
        "nothing/here/at-all": "Boards that are here: ",
        "zzzz": "no cell 'zzzz' in",
        "../cells": "no suite.json",
        "*": "no cell '*' in",
    }.items():
        assert emobench("history", run, "--results", trained) == 2, run
        assert says in capsys.readouterr().err, run


@pytest.mark.parametrize("width", ["80", "40"])
def test_an_ascii_terminal_cuts_no_number(trained: Path, width: str) -> None:
    board = committed(trained).parents[1].name
    run = [sys.executable, "-m", "emobench", "history", f"{board}/synthetic-plain/resnet18", "--results", str(trained)]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(run, capture_output=True, env={**os.environ, **plain, "COLUMNS": width}, check=True)
    lines = done.stdout.decode("ascii").splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["epoch", "train_loss", "val_loss", "macro_f1", "accuracy", "lr"]
    assert [line.split()[5] for line in lines[2:6]] == ["0.02", "0.002", "0.002", "0.0002"]
    assert "\\u" not in done.stdout.decode("ascii")
    assert len(lines) >= 2 + 4
