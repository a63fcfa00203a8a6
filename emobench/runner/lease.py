"""Leases: which process has a cell, where machines share a folder on which a file lock may hold on each one alone.

A lease is a file with a counter, which its holder raises every few seconds. Whoever wants the cell watches that: a
counter that stands still is one of a process that is gone, whatever its clock said. A lease saves work and is no
promise: a process that was only paused may wake, and then what it publishes comes too late (see
`emobench.files.Attempt`).
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from emobench.files import create, replacing

FILE = ".lease"
BEAT = 5.0  # seconds between two counts
PATIENCE = 30.0  # seconds that a counter of another machine may stand still


class Lease:
    """A cell that this process has.

    Attributes:
        lost: whether another process has it by now, since this one was silent for too long.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lost = path, False
        self._holder, self._count = token_hex(8), 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self, *, over: bool) -> bool:
        """Write it; returns whether it is this process's: False where another one was faster.

        Args:
            over: take the place of the one that lies there.
        """
        if over:
            self._write(self.path)
            time.sleep(BEAT / 5)  # two may take it over in the same moment: it is whose name stays
            mine = _read(self.path).get("holder") == self._holder
        else:
            new = self.path.with_name(f"{FILE}.{self._holder}")
            self._write(new)
            mine = create(new, self.path)
            new.unlink(missing_ok=True)
        if mine:
            self._thread.start()
        return mine

    def end(self) -> None:
        """Give it back."""
        self._done.set()
        self._thread.join()
        with suppress(OSError):
            if not self.lost and _read(self.path).get("holder") == self._holder:
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            with suppress(OSError):  # a disk that is full, or a server that is away for a moment
                if _read(self.path).get("holder") != self._holder:
                    self.lost = True
                    os.kill(os.getpid(), signal.SIGTERM)  # what goes on would be done twice
                    return
                self._write(self.path)

    def _write(self, path: Path) -> None:
        self._count += 1
        content = json.dumps({"holder": self._holder, "host": host(), "pid": os.getpid(), "count": self._count})
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


@contextmanager
def lease(folder: Path) -> Iterator[Lease | None]:
    """Have the lease of a folder inside the block; None where a process of another machine has it, and lives.

    The caller holds the folder's file lock: a lease that a process of this machine has left is taken over at once. One
    of another machine is watched first, as long as its counter stands still, at most for `PATIENCE`.
    """
    path = folder / FILE
    there = _read(path)
    if there and there.get("host") != host() and not _stands_still(path, there):
        yield None
        return
    mine = Lease(path)
    if not mine.take(over=bool(there)):
        yield None
        return
    try:
        yield mine
    finally:
        mine.end()


def has_lease(folder: Path) -> bool:
    """Whether another machine has, or had when it went, the lease of a folder."""
    there = _read(folder / FILE)
    return bool(there) and there.get("host") != host()


def _stands_still(path: Path, seen: dict[str, Any]) -> bool:
    """Whether a lease is not renewed for as long as its holder may be silent."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(BEAT / 5)
        now = _read(path)
        if not now:
            return True
        if now != seen:
            return False
    return True


def _read(path: Path) -> dict[str, Any]:
    """What a lease says; nothing where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return {"host": "unreadable"}
    return found if isinstance(found, dict) else {"host": "unreadable"}


@functools.cache
def host() -> str:
    """This machine since it was started, or this container."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()}"
    return socket.gethostname()
