"""Fetching the Inception weights, without which there is no FID, KID or IS: once and before a sweep, not in a cell."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from emobench.errors import WeightsError
from emobench.files import say
from emobench.suite.cell import Plan

TIMEOUT = 20.0  # seconds that a server may be silent
INCEPTION = "the Inception weights for FID, KID and IS, 91 MiB"


def lacks_inception(plan: Plan) -> bool:
    """Whether a plan has cells that are measured in Inception's features, and its weights are nowhere."""
    if not any("inception" in cell.evaluation.get("files", {}) for cell in plan.cells):
        return False
    from emobench.metrics import inception

    return inception.find().path is None


def fetch_inception() -> Path:
    """Fetch the published file into torch hub's folder, where torch-fidelity finds it too; returns its path.

    It appears whole and checked, or not at all. Where several processes want it, one fetches and the others wait.

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
            if path.exists():  # another process was faster
                return path
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
            f"the Inception weights could not be fetched ({reason}), so FID, KID and IS stay empty. Run again with a "
            f"network, or put {inception.FILE} from {inception.URL} into {path.parent} (--weights-dir names another "
            "folder); networks that are trained by then are only measured again"
        ) from None
    return path


def fetch_where_it_lacks(plan: Plan, *, offline: bool) -> bool:
    """Fetch the weights where a plan lacks them; returns whether they are there now, and the plan has to be made anew.

    Without a network the sweep goes on, and this says once that the scores are missing, and why.
    """
    if not lacks_inception(plan):
        return False
    if offline:
        say("the Inception weights are not here, and downloads are off: FID, KID and IS stay empty")
        return False
    try:
        say(f"the Inception weights are {fetch_inception()}")
    except WeightsError as error:
        say(f"emobench: {error}", error=True)
        return False
    return True


@contextmanager
def _impatient() -> Iterator[None]:
    """A server that says nothing for long is given up inside the block; torch hub would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
