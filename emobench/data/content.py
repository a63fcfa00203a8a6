"""Digests of files, by names, sizes and times or by content; without a heavy import."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def digest(content: Any) -> str:
    """SHA-256 of plain values, the same whatever the order of their dicts."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()


def listing(top: Path) -> str:
    """SHA-256 of the names, sizes and times of a file, or of every file below a folder.

    Links are followed, to folders once each; what is not there has the digest of nothing.
    """
    found, seen = hashlib.sha256(), set[str]()

    def add(name: str, path: str) -> None:
        try:
            status = os.stat(path)
        except OSError:
            found.update(f"{name}\0".encode(errors="surrogateescape"))  # a link to nothing
            return
        found.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        if not status.st_mode & 0o004 and not os.access(path, os.R_OK, effective_ids=True):
            found.update(b"may not be read\0")  # to be seen again when it may

    if top.is_file():
        add(top.name, str(top))
    for folder, folders, files in os.walk(top, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        within = os.path.relpath(folder, top)
        for name in sorted(files):
            add(name if within == os.curdir else os.path.join(within, name), os.path.join(folder, name))
    return found.hexdigest()


def contents(top: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of every file below a folder, hidden ones aside."""
    if top.is_file():
        with top.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(path for path in top.rglob("*") if path.is_file() and not path.name.startswith("."))
    return digest({path.relative_to(top).as_posix(): contents(path) for path in files})
