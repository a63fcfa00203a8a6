"""What a board was made of when this process wrote it last, so that a further cell costs what it changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

from emobench.runner.record import Record, read_record

T = TypeVar("T")


class Memory:
    """Values by all that they are computed from; those of the last board that were not used for it are forgotten.

    What is found here is what would be computed again: keys hold the identity of files (`identity`) whose content a
    value follows from, and all else that it depends on.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, Any] = {}
        self._now: dict[Hashable, Any] = {}

    @property
    def first(self) -> bool:
        """Whether this is the first board that is written with it."""
        return not self._last

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """A value that was computed for the last board, or for this one; whatever `compute` raises is not kept."""
        if key not in self._now:
            self._now[key] = self._last[key] if key in self._last else compute()
        return cast(T, self._now[key])

    def text(self, record: Record) -> str:
        """The text of a record; one that comes from here is the same object, and is known by that."""
        return self.once(("text", id(record)), lambda: (record.text(), record))[0]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._now or key in self._last

    def record(self, path: Path) -> Record:
        """As `read_record`; one file gives the same object as long as it is not written again."""
        return self.once(("record", path, identity(path)), lambda: read_record(path))

    def written(self) -> None:
        """A board is written: the next one begins with what this one used."""
        self._last, self._now = self._now, {}


def identity(path: str | Path) -> tuple[int, ...]:
    """What tells whether a file was written since: time, size, and inode, which is another where it was replaced.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        state = os.stat(path)
    except NotADirectoryError:
        raise FileNotFoundError(path) from None
    except OSError:  # which reading it says
        return ()
    return state.st_mtime_ns, state.st_size, state.st_ino
