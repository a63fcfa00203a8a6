"""Leases: which process has a cell, where machines share what a file lock may hold on each one alone.

A lease is a small object with a counter, which its holder raises every few seconds. Whoever wants the cell watches
that: a counter that stands still is one of a process that is gone, whatever its clock said. A lease saves work and is
no promise: a process that was only paused may wake, and then what it publishes comes too late (see
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
from typing import Any, Protocol

from emobench.files import create, replacing

FILE = ".lease"
BEAT = 5.0  # seconds between two counts
PATIENCE = 30.0  # seconds that a counter may stand still
_UNREADABLE = {"host": "unreadable"}


class Place(Protocol):
    """Where a lease lies.

    Raises:
        OSError: it cannot be reached now.
    """

    def read(self) -> bytes | None:
        """What lies there; None: nothing."""

    def write(self, content: bytes) -> None:
        """Put it there."""

    def create(self, content: bytes) -> bool:
        """Put it there unless something is; returns whether it was put."""

    def remove(self) -> None:
        """Take away what lies there."""


class FilePlace:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        with replacing(self.path) as temporary:
            temporary.write_bytes(content)

    def create(self, content: bytes) -> bool:
        new = self.path.with_name(f"{self.path.name}.{token_hex(8)}")
        new.write_bytes(content)
        try:
            return create(new, self.path)
        finally:
            new.unlink()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class Lease:
    """A cell that this process has.

    Attributes:
        lost: whether another process has it by now, since this one was silent for too long.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.lost = place, False
        self._holder, self._count = token_hex(8), 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self, *, over: bool) -> bool:
        """Write it; returns whether it is this process's: False where another one was faster.

        Args:
            over: take the place of the one that lies there.
        """
        if over:
            self.place.write(self._content())
            time.sleep(BEAT / 5)  # two may take it over in the same moment: it is whose name stays
            mine = False  # also where that cannot be read: the cell is asked for again
            with suppress(OSError):
                mine = self._is_mine()
        else:
            mine = self.place.create(self._content())
        if mine:
            self._thread.start()
        return mine

    def end(self) -> None:
        """Give it back."""
        self._done.set()
        self._thread.join()
        with suppress(OSError):
            if not self.lost and self._is_mine():
                self.place.remove()

    def _is_mine(self) -> bool:
        """Whether it is this process's; an OSError where that cannot be read now, which says nothing of it."""
        return _parsed(self.place.read()).get("holder") == self._holder

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            with suppress(OSError):  # a disk that is full, or a server that is away for a moment
                if not self._is_mine():
                    self.lost = True
                    os.kill(os.getpid(), signal.SIGTERM)  # what goes on would be done twice
                    return
                self.place.write(self._content())

    def _content(self) -> bytes:
        self._count += 1
        content = {"holder": self._holder, "host": host(), "pid": os.getpid(), "count": self._count}
        return json.dumps(content).encode()


@contextmanager
def lease(place: Place, *, locked: bool) -> Iterator[Lease | None]:
    """Have a lease inside the block; None where another process has it, and lives.

    One that lies there is watched first, as long as its counter stands still, at most for `PATIENCE`.

    Args:
        locked: the caller holds a lock that all processes of this machine take first: what one of them has left is
            taken over at once.
    """
    there = _read(place)
    if there and not (locked and there.get("host") == host()) and not _stands_still(place, there):
        yield None
        return
    mine = Lease(place)
    if not mine.take(over=bool(there)):
        yield None
        return
    try:
        yield mine
    finally:
        mine.end()


def has_lease(folder: Path) -> bool:
    """Whether another machine has, or had when it went, the lease of a folder."""
    there = _read(FilePlace(folder / FILE))
    return bool(there) and there.get("host") != host()


def _stands_still(place: Place, seen: dict[str, Any]) -> bool:
    """Whether a lease is not renewed for as long as its holder may be silent."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(BEAT / 5)
        now = _read(place)
        if not now:
            return True
        if now != seen:
            return False
    return True


def _read(place: Place) -> dict[str, Any]:
    """What a lease says; nothing where there is none."""
    try:
        return _parsed(place.read())
    except OSError:
        return _UNREADABLE


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        found = {} if content is None else json.loads(content)
    except ValueError:
        return _UNREADABLE
    return found if isinstance(found, dict) else _UNREADABLE


@functools.cache
def host() -> str:
    """This machine since it was started, or this container."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()}"
    return socket.gethostname()
