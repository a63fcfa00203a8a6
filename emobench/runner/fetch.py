"""Fetching the Inception weights, without which there is no FID, KID or IS: once and before a sweep, not in a cell."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from emobench.errors import WeightsError
from emobench.files import say
from emobench.suite.cell import Cell

TIMEOUT = 20.0  # seconds that a server may be silent
INCEPTION = "the Inception weights for FID, KID and IS, 91 MiB"


def wants_inception(cells: Iterable[Cell]) -> bool:
    """Whether some cells are measured in Inception's features."""
    return any("inception" in cell.evaluation.get("files", {}) for cell in cells)


def lacks_inception(cells: Iterable[Cell]) -> bool:
    """Whether some cells are measured in Inception's features, and its weights have to be fetched.

    They are nowhere, or another file stands where they would be put. One in a folder that somebody has named is theirs.
    """
    if not wants_inception(cells):
        return False
    from emobench.metrics import inception

    found = inception.find()
    return found.path is None or (found.reason is not None and found.path == inception.places()[-1])


def fetch_inception(then: str = "so FID, KID and IS stay empty") -> Path:
    """Fetch the published file into torch hub's folder, where torch-fidelity finds it too; returns its path.

    It appears whole and checked, or not at all, and takes the place of another file of its name. Where several
    processes want it, one fetches and the others wait.

    Args:
        then: what follows where it cannot be fetched, in the error's words.

    Raises:
        WeightsError: the server cannot be reached, what it sent is not the published file, or it cannot be written.
    """
    import torch
    from filelock import FileLock

    from emobench.metrics import inception

    path = inception.places()[-1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():
                if is_published(path):  # another process was faster
                    return path
                say(f"{path} is not the published file, and is replaced")
            for rest in path.parent.glob(f"{path.name}.*.partial"):  # of a process that was killed meanwhile
                rest.unlink()
            say(f"fetching {INCEPTION}, from {inception.URL}")
            with _impatient():
                torch.hub.download_url_to_file(
                    inception.URL, str(path), hash_prefix=inception.PUBLISHED, progress=sys.stderr.isatty()
                )
    except (OSError, HTTPException, RuntimeError, ValueError) as error:  # network, disk; half an answer; another hash
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(
            f"the Inception weights could not be fetched ({reason}), {then}. Run again with a "
            f"network, or put {inception.FILE} from {inception.URL} into {path.parent} (--weights-dir names another "
            "folder); networks that are trained by then are only measured again"
        ) from None
    return path


def is_published(path: Path) -> bool:
    """Whether a file holds the published weights."""
    from emobench.metrics import inception

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(inception.PUBLISHED)


def fetch_where_it_lacks(cells: Sequence[Cell], *, offline: bool) -> bool:
    """Fetch the weights where cells lack them; returns whether they are there now, and the plan has to be made anew.

    Without a network the sweep goes on, and this says once that the scores are missing, and why.
    """
    if not lacks_inception(cells):
        _say_what_hides_them(cells, offline)
        return False
    from emobench.metrics import inception

    if offline:
        path = inception.find().path
        here = "are not here" if path is None else f"are not here ({path} is another file, or not whole)"
        say(f"the Inception weights {here}, and downloads are off: FID, KID and IS stay empty")
        return False
    try:
        say(f"the Inception weights are {fetch_inception()}")
    except WeightsError as error:
        say(f"emobench: {error}", error=True)
        return False
    return True


def have_inception(cell: Cell, *, offline: bool) -> None:
    """Fetch the weights where a cell is planned with them and this machine lacks them: the plan is another machine's.

    Raises:
        WeightsError: they cannot be fetched, or may not.
    """
    planned = cell.evaluation.get("files", {}).get("inception")
    if planned is None or planned["sha256"] is None or not lacks_inception([cell]):
        return
    from emobench.metrics import inception

    machine, folder = os.uname().nodename, inception.places()[-1].parent
    if offline:
        raise WeightsError(
            f"{inception.FILE} is not on {machine}, where this cell runs, and downloads are off. Put it into {folder} "
            "there"
        )
    fetch_inception(f"and {machine}, where this cell runs, does not have them, by which it is measured")


def _say_what_hides_them(cells: Sequence[Cell], offline: bool) -> None:
    """A file of their name in a folder that somebody has named comes first, whatever it is, and is left alone."""
    if not wants_inception(cells):  # asked first: what finds the file imports torch
        return
    from emobench.metrics import inception

    found = inception.find()
    if found.path is None or found.reason is None:
        return
    other = inception.places()[-1]
    if other.is_file() and is_published(other):
        how = f"It hides {other}, which is whole: delete it"
    else:
        how = f"Put the one from {inception.URL} there" if offline else "Delete it, and the next run fetches them"
    say(f"emobench: {found.path} is {found.reason}, so FID, KID and IS stay empty. {how}", error=True)


@contextmanager
def _impatient() -> Iterator[None]:
    """A server that says nothing for long is given up inside the block; torch hub would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
