"""What tests see of processes that are not theirs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def processes_of(results: Path) -> list[int]:
    """Processes of cells that keep their results there: those with its log open."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                opened = [os.readlink(each) for each in (process / "fd").iterdir()]
            except OSError:
                continue
            if any(path.startswith(str(results)) and path.endswith("log.txt") for path in opened):
                found.append(int(process.name))
    return found


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)
