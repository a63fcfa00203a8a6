"""What lies under a file's name: a regular file of bounded size, or what else, named with what to do about it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from emobench.errors import RowError

MOST = 256 * 2**20  # bytes; a larger file is no picture of a face, and is never read
HEAD = 1024  # bytes; pointers are shorter

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO (a named pipe)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_MEND = "Replace the file by an intact copy, or remove it."
_ANNEX = "Fetch its content, `git annex get`, in the clone that it lies in."


def read_whole(path: Path) -> bytes:
    """The bytes of a regular file of at most `MOST` bytes; links are followed.

    Raises:
        RowError: it is something else, too large, not there or not readable; says which.
    """
    size = regular(path)
    if size > MOST:
        raise RowError(path, None, None, too_large(size), "Scale the picture down, or remove it.")
    try:
        with open(path, "rb") as file:
            return file.read(MOST)
    except OSError as error:
        raise cannot_open(path, error) from error


def read_small(path: Path, most: int) -> bytes:
    """The bytes of a label file that holds one value.

    Raises:
        FileNotFoundError: there is none.
        RowError: it is no regular file, has more than `most` bytes, or cannot be read.
    """
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) and status.st_size <= most:
            return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RowError(path, None, None, f"cannot be read ({error.strerror or error})", _MEND) from error
    raise RowError(path, None, None, f"no file of at most {most:,} bytes, as one value has", _MEND)


def regular(path: Path) -> int:
    """The size in bytes of a regular file; links are followed.

    Raises:
        RowError: it is something else, such as a device or a loop of links, or is not there.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise cannot_open(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        through = f"a link to {kind}" if os.path.islink(path) else kind
        raise RowError(path, None, None, f"{through}, no regular file", "Remove it, or put a picture there.")
    return status.st_size


def too_large(size: int) -> str:
    """What an error says of a file of so many bytes."""
    return f"{size / 2**20:,.0f} MiB, more than the {MOST // 2**20} MiB that a picture may have"


def cannot_open(path: Path, error: OSError) -> RowError:
    """The error of a file that is not there, is not reachable or may not be read."""
    target = os.readlink(path) if os.path.islink(path) else None
    if error.errno == errno.ELOOP:
        return RowError(path, None, None, "a link that leads back to itself", "Remove it, or put a picture there.")
    if error.errno == errno.ENOENT and target is not None and ".git/annex/objects/" in target.replace("\\", "/"):
        return RowError(path, None, None, "a link of git-annex whose content is not here", _ANNEX)
    if error.errno == errno.ENOENT and target is not None:
        return RowError(path, None, None, f"a link to {target}, which is not there", "Put a file there, or remove it.")
    if error.errno == errno.ENOENT:
        return RowError(path, None, None, "not an intact image (no such file)", "Put it there, or remove its row.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return RowError(
            path,
            None,
            None,
            "may not be read (Permission denied)",
            "Give yourself the right to read it (`chmod u+r`), or remove it.",
        )
    return RowError(path, None, None, f"cannot be read ({error.strerror or error})", _MEND)


def let_read(path: Path | str) -> str:
    """The advice that goes with a file or folder that the user may not read."""
    return f"Give yourself the right to read it (`chmod -R u+rX {path}`, or ask its owner)"


def pointer(head: bytes) -> tuple[str, str] | None:
    """What stands in a file in place of its content, and what fetches that; None: it is no pointer.

    Args:
        head: the first bytes of the file, at least 200 where it has so many.
    """
    if head.startswith((b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")):
        return "a pointer of git-lfs, not the file itself", "Fetch the files: `git lfs pull` in the clone."
    if len(head) < HEAD and (b"/annex/objects/" in head[:200] and b"\n" not in head.strip()):
        return "a pointer of git-annex, not the file itself", _ANNEX
    return None
