"""Imported by the fork server, last of all: every model, dataset and track, so that each cell starts with them there.

Files that cannot be imported are passed over; who wants what they hold has been refused by then. So do the digests of
the datasets' code, which every cell asks for, and what libraries import where they are first used.
"""

import atexit
import contextlib
import gc
import importlib
import os

from emobench.definitions.roots import digest_of
from emobench.errors import SuiteError
from emobench.suite.catalog import classes, tracks

with contextlib.suppress(SuiteError):
    classes("model")
    tracks()
    for cls in classes("dataset").values():
        digest_of(cls)
for name in (
    "fsspec.implementations.chained",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "torch.utils.serialization.config",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

# What is here stays for as long as the server does. A garbage collection of a cell that went through it would copy most
# of the memory that it shares with the server, which takes most of a second.
gc.freeze()
gc.enable()
# Its end has nothing to wait for, and taking apart all that was imported takes two seconds. Cells end by themselves.
atexit.register(os._exit, 0)
