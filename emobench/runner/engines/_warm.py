"""Imported by the fork server, last of all: every model, dataset and track, so that each cell starts with them there.

Files that cannot be imported are passed over; who wants what they hold has been refused by then. So do the digests of
the datasets' code, what a record says of versions and machine, and the libraries with threads of their own, which
every cell asks for, and what libraries import where they are first used. Then a cell is rehearsed.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from emobench.definitions.roots import digest_of
from emobench.errors import SuiteError
from emobench.files import Attempt, published
from emobench.runner.machine import cpu, hardware, versions
from emobench.runner.record import Record, read_record
from emobench.runner.reuse import Reuse
from emobench.runner.store import Store
from emobench.runner.threads import multiplying, threads
from emobench.suite.catalog import classes, tracks
from emobench.suite.cell import Cell

COLLAPSE = 25  # MADV_COLLAPSE, of Linux 6.1 and later
LARGE = 2**21  # bytes of a large page
MANY = 8  # cells: those of a larger sweep are cheaper to fork, while a smaller one ends sooner
REHEARSALS = 5  # more make a cell no cheaper

started = 0  # cells


def after_a_fork() -> None:
    """Where the server forks many cells, make that cheaper, while the first of them run."""
    global started
    if os.getpid() == server:
        started += 1
        if started == MANY:
            into_large_pages()


def into_large_pages() -> None:
    """Have the kernel move this process's memory into large pages, where it can, which takes a second or two.

    A fork copies an entry for each page: of 600 MB in pages of 4 KiB that took 20 ms, and as long again when the cell
    ended. A cell that writes to a part of a large page has a copy of that part alone, as before.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            place, mode, *_, inode = line.split(maxsplit=5)[:5]
            start, end = (int(each, 16) for each in place.split("-"))
            start, end = -(-start // LARGE) * LARGE, end // LARGE * LARGE
            if mode == "rw-p" and inode == "0" and start < end:  # else it is of a file
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), COLLAPSE)


def driven() -> bool:
    """Whether NVIDIA's driver is here: torch starts it to find GPUs, and no process forked later can then use one."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def rehearse() -> None:
    """Do what a cell does beside its fit and its evaluation, in a folder that is gone afterwards.

    Python notes in a function's code what it met there (PEP 659), in the first calls above all. A cell that does so has
    a copy of each page that it writes to; where the functions have run here before, it copies a sixth fewer.
    """
    made_of: dict[str, Any] = {"data": {}, "recipe": None, "code": {"digest": ""}}
    cell = Cell("rehearsal", "none", "none", 48, 0, "none", None, made_of, made_of, ["happy", "sad"], 0)
    record = Record.of(cell, "failed", "rehearsed")  # that of a fit would say which GPU there is (see `driven`)
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place))
        folder = store.eval_folder(cell.fit_key, cell.eval_key)
        for _ in range(REHEARSALS):
            with store.lock(cell.fit_key), threads(1):
                store.tidy(cell.fit_key, cell.eval_key)
                Reuse(store).lost(cell)
                store.keep_failure(record)
                with Attempt.at(folder, published(folder)) as attempt:
                    record.write(attempt.folder / "result.json")
                    attempt.publish("result.json")
                read_record(folder / "result.json")
                Reuse(store).evaluated(cell)


with contextlib.suppress(SuiteError):
    classes("model")
    tracks()
    for cls in classes("dataset").values():
        digest_of(cls)
for name in (
    "emobench.cli",
    "emobench.runner.engines.local",
    "fsspec.implementations.chained",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "torch.utils.serialization.config",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
versions()
cpu()
multiplying()
if torch.version.hip is None and not driven():
    hardware()
with contextlib.suppress(OSError):  # no folder for temporary files can be written to
    rehearse()

# Folders that libraries made as they were imported (wandb, through timm), which their own way to end would remove.
folders = [each for each in gc.get_objects() if type(each) is tempfile.TemporaryDirectory]


def end() -> None:
    """Nothing has to be waited for, and taking apart all that was imported takes two seconds."""
    for folder in folders:
        folder.cleanup()
    os._exit(0)


# What is here stays for as long as the server does. A garbage collection of a cell that went through it would copy most
# of the memory that it shares with the server, which takes most of a second.
gc.freeze()
gc.enable()
server = os.getpid()
os.register_at_fork(after_in_parent=after_a_fork)
atexit.register(end)  # the server's alone: cells end by themselves
