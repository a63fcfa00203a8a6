"""Work that makes next to no garbage, without looking for it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looking for cycles of objects that nobody holds.

    Importing libraries and parsing code makes next to none, and so does writing a board: to look is a sixth of a plan's
    time, and a tenth of a report's.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
