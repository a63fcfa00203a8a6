"""Processes beside that of the tests: started without importing anything, and what tests see of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emobench.cli import main
from emobench.runner.engines.local import Local


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def beside(said: Path, *arguments: object) -> Any:
    """The command in a process and a process group of its own, which writes what it says to a file."""
    return _forked(_command, said, [str(each) for each in arguments])


def ran(code: str, folder: Path, *arguments: object) -> str:
    """What a program prints that runs in a folder, in a process of its own."""
    said = folder / "said.txt"
    process = _forked(_program, said, code, folder, [str(each) for each in arguments])
    process.join()
    text = said.read_text(encoding="utf-8")
    said.unlink()
    assert process.exitcode == 0, text
    return text


def _forked(target: Callable[..., None], said: Path, *arguments: object) -> Any:
    """A process that has imported emobench: one that starts cold takes ten seconds for what it needs.

    It is forked from the server of the cells of this process, and of what tests have done here it knows nothing.
    """
    engine = Local()
    engine.serve()
    process = engine.context.Process(target=target, args=(said, *arguments))
    process.start()
    return process


def _command(said: Path, arguments: list[str]) -> None:
    os.setsid()
    _written_to(said)
    main(arguments)


def _program(said: Path, code: str, folder: Path, arguments: list[str]) -> None:
    _written_to(said)
    os.chdir(folder)
    sys.argv[1:] = arguments
    exec(compile(code, "program", "exec"), {"__name__": "__main__"})


def _written_to(said: Path) -> None:
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
