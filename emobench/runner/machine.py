"""What a number was measured on: versions, commit, hardware."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import resource
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emobench.runner.record import Hardware, Record, State, Versions
from emobench.suite.cell import Cell

ORDERLY = 20.0  # seconds that a cell has to end in order when what started it is gone


@functools.cache
def versions() -> Versions:
    """Versions of emobench (and the git commit of its checkout, if it is one), torch, lightning and Python."""
    commit, dirty = _git()
    return Versions(
        emobench=importlib.metadata.version("emobench"),
        commit=commit,
        dirty=dirty,
        torch=importlib.metadata.version("torch"),
        lightning=importlib.metadata.version("lightning"),
        python=platform.python_version(),
    )


def _git() -> tuple[str | None, bool | None]:
    """Short commit of the checkout that holds the package, and whether its tracked files differ from it."""
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder:
            return None, None
        return git("rev-parse", "--short=12", "HEAD"), bool(
            git("status", "--porcelain", "--untracked-files=no", "emobench")
        )
    except (OSError, subprocess.SubprocessError):
        return None, None


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


@dataclass(frozen=True)
class Machines:
    """What a sweep runs on: this machine, or the nodes of a cluster.

    Attributes:
        cores, gpus, memory: of each, in GiB; of the smallest, where they differ.
        number: how many there are.
    """

    cores: int
    gpus: int
    memory: int
    number: int = 1

    @classmethod
    def here(cls, gpus: int) -> Machines:
        """This one; `gpus`: that may be used."""
        return cls(cores(), gpus, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30)


def hardware(device: str | None = None) -> Hardware:
    """The machine as results name it, and with how many threads this process computes now.

    Args:
        device: the kind of device that does the work, such as "cpu", which it may do beside a GPU; None: the GPU where
            there is one.
    """
    import torch

    machine = _machine()
    if device == "cpu":
        machine = machine.model_copy(update={"device": "cpu", "gpu": None})
    return machine.model_copy(update={"threads": torch.get_num_threads()})


@functools.cache
def _machine() -> Hardware:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return Hardware(
        device="cuda" if gpu else "cpu",
        cpu=cpu(),
        cores=cores(),
        gpu=gpu,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    )


@functools.cache
def cpu() -> str:
    """The processor's name, which does not change while this process and those forked from it run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory_gb(device: str) -> float:
    """Peak memory of this process in GiB: of the GPU where the work is done there, else resident."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@contextmanager
def lives(process: int) -> Iterator[Callable[..., bool]]:
    """A function that says whether a process is still there; `timeout`: seconds for which it may wait for the end, 0
    without one, None for as long as it takes."""
    try:
        handle = os.pidfd_open(process)
    except OSError:
        yield lambda timeout=0: False
        return

    def alive(timeout: float | None = 0) -> bool:
        return not select.select([handle], [], [], timeout)[0]

    try:
        yield alive
    finally:
        os.close(handle)


def record_of(cell: Cell, state: State, reason: str | None = None, **more: Any) -> Record:
    """A cell's record, made in this process now; `more`: further fields."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Record.of(cell, state, reason, versions=versions(), hardware=hardware(), finished=now, **more)
