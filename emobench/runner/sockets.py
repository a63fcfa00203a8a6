"""Where the sockets between processes lie: a socket's path is short, and a folder of temporary files may not be."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import util

from emobench.errors import EmobenchError

SHORT = "/tmp"
_LONGEST = 103 - len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # bytes; Linux allows a path 107, macOS 103


def too_long() -> bool:
    """Whether the folder of temporary files leaves no room for the name of a socket in it."""
    return len(os.fsencode(tempfile.gettempdir())) > _LONGEST


def keep_short() -> None:
    """Have multiprocessing keep its sockets in /tmp, of this process and all that it starts, where TMPDIR is too long.

    Raises:
        EmobenchError: nothing can be written there either.
    """
    if not too_long():
        return
    if not os.access(SHORT, os.W_OK | os.X_OK):
        raise EmobenchError(
            f"TMPDIR {tempfile.gettempdir()} has a path of more than {_LONGEST} bytes, which leaves none for sockets "
            f"between processes, and {SHORT} cannot be written. Set TMPDIR to a shorter one"
        )
    before, tempfile.tempdir = tempfile.tempdir, SHORT
    try:
        util.get_temp_dir()  # which it remembers
    finally:
        tempfile.tempdir = before
