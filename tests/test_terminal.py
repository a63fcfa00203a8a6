"""A terminal of any kind: the C locale and ASCII output cost no command, and no file its bytes."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY
from rich.console import Console

import emobench as package
from emobench.commands.live import Display
from emobench.files import print_anything
from emobench.runner.store import Store
from emobench.runner.sweep import Running, Sweep
from emobench.suite.expand import expand
from emobench.suite.file import load

PACKAGE = Path(package.__file__).parent
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


COMMANDS = """
import shutil, sys
from emobench.cli import main

for line in sys.argv[1:]:
    print("\\f", line, flush=True)
    if line == "report tiny":
        shutil.move("results/tiny/leaderboard.md", "first.md")
    try:
        main(line.split())
    except SystemExit as stop:
        assert not stop.code, line
"""
SAID = (
    "bench tiny.toml", "report tiny", "bench tiny.toml --dry-run", "models", "models vit", "datasets fer2013", "doctor",
    "bench --help",
)  # fmt: skip


@pytest.mark.slow
def test_the_commands_in_the_c_locale(tmp_path: Path) -> None:
    """In one process, since each takes seconds to start."""
    (tmp_path / "tiny.toml").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-c", COMMANDS, *SAID]
    ran = subprocess.run(command, capture_output=True, cwd=tmp_path, env={**os.environ, **ASCII})
    assert ran.returncode == 0, ran.stderr.decode()
    parts = [part.partition("\n") for part in ran.stdout.decode("ascii").split("\f ")[1:]]
    shown = {line: out for line, _, out in parts}
    assert tuple(shown) == SAID
    assert all(shown.values())
    assert "gr\\xf6\\xdfe \\u8868 on synthetic-plain, seed 0: done" in shown["bench tiny.toml"]
    assert "gr\\xf6\\xdfe" in shown["bench tiny.toml --dry-run"]
    page = (tmp_path / "results" / "tiny" / "leaderboard.md").read_text("utf-8")
    assert f"{ROW} leads, which" in page
    assert page == (tmp_path / "first.md").read_text("utf-8")


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


def test_the_live_table_says_where_cells_run_where_there_are_several_machines(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE, encoding="utf-8")
    plan = expand(load(path), tmp_path)
    shown = Console(record=True, width=120, file=io.StringIO())
    state = Sweep(plan, Store(tmp_path / "results"), plan.cells, plan.cells)
    for where in (None, "node-7"):
        state.running[:] = [Running(plan.cells[0], None, 0.0, where=where)]
        shown.print(Display(shown, plan)._table(state))
        text = shown.export_text()
        assert ("node-7" in text) == (where is not None)
        assert bool(re.search(r"state\W+on\W+epoch", text)) == (where is not None)


def test_a_sweep_on_a_terminal_shows_its_cells_while_they_run(
    emobench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a real one: whether there is a terminal is asked, and its size, where the command starts."""
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE.replace("epochs = 1", "epochs = 8"), encoding="utf-8")  # some seconds
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    ours, theirs = pty.openpty()
    shown = bytearray()

    def watch() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 2**16):
                shown.extend(part)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with monkeypatch.context() as patch, open(theirs, "w", encoding="utf-8") as screen:
        patch.setattr(sys, "stdout", screen)
        code = emobench("bench", path, "--results", tmp_path / "results")
    watcher.join()
    os.close(ours)
    assert code == 0, shown.decode("utf-8", "replace")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode("utf-8"))
    assert re.search(rf"{ROW} on synthetic-plain, seed 0 +│ running +│.*│ +0:0\d:\d\d", text)
    assert re.search(rf"{ROW} on synthetic-plain, seed 0 +│ done ", text)
