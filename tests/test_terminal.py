"""A terminal of any kind: the C locale and ASCII output cost no command, and no file its bytes."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY
from rich.console import Console

import emobench
from emobench.commands.live import Display
from emobench.files import print_anything
from emobench.runner.store import Store
from emobench.runner.sweep import Sweep
from emobench.suite.expand import expand
from emobench.suite.file import load

PACKAGE = Path(emobench.__file__).parent
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
ROW = "größe 表"
SUITE = TINY.replace("[model.resnet18]", f'[model."{ROW}"]\nclass = "resnet18"').replace("epochs = 4", "epochs = 1")


def calls(source: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield node


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_text_file_names_its_encoding(path: Path) -> None:
    """`read_text`, `write_text`, `open`, and what subprocesses say: whatever the locale is, it is UTF-8."""
    for call in calls(path.read_text("utf-8")):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        where = f"{path}, line {call.lineno}"
        if name == "read_text":
            assert "encoding" in named or call.args, where
        elif name == "write_text" and isinstance(call.func, ast.Attribute):
            assert "encoding" in named, where
        elif name == "open" and isinstance(call.func, ast.Name):
            mode = named.get("mode", call.args[1] if len(call.args) > 1 else None)
            assert "encoding" in named or "b" in ast.literal_eval(mode or ast.Constant("r")), where
        elif name in ("run", "Popen", "check_output") and getattr(named.get("text"), "value", False):
            assert "encoding" in named, where


def command(*arguments: object, folder: Path) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "emobench", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, cwd=folder, env={**os.environ, **ASCII})


@pytest.mark.slow
def test_the_command_in_the_c_locale(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SUITE, encoding="utf-8")
    ran = command("bench", "tiny.toml", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr.decode()
    assert b"gr\\xf6\\xdfe \\u8868 on synthetic-plain, seed 0: done" in ran.stdout
    page = (tmp_path / "results" / "tiny" / "leaderboard.md").read_text("utf-8")
    assert f"{ROW} leads with" in page
    again = command("report", "tiny", folder=tmp_path)
    assert again.returncode == 0, again.stderr.decode()
    assert (tmp_path / "results" / "tiny" / "leaderboard.md").read_text("utf-8") == page
    shown = command("bench", "tiny.toml", "--dry-run", folder=tmp_path)
    assert b"gr\\xf6\\xdfe" in shown.stdout
    for words in (("models",), ("models", "vit"), ("datasets", "fer2013"), ("doctor",), ("bench", "--help")):
        found = command(*words, folder=tmp_path)
        assert found.returncode == 0, found.stderr.decode()
        found.stdout.decode("ascii")


def test_the_live_table_on_an_ascii_terminal(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE, encoding="utf-8")
    plan = expand(load(path), tmp_path)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_anything(stream)
    console = Console(file=stream, force_terminal=True, width=100)
    state = Sweep(plan, Store(tmp_path / "results"), plan.cells, plan.cells)
    with Display(console, plan) as display:
        display.update(state)
        state.states[f"{plan.cells[0].fit_key}/{plan.cells[0].eval_key}"] = ("failed", "zu groß " * 20)
        display.update(state)
    stream.flush()
    assert b"gr\\xf6\\xdfe \\u8868" in raw.getvalue()
    raw.getvalue().decode("ascii")
