"""Engines: where the jobs of a sweep run. One a file, here or in files of the user's own."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from emobench.errors import SuiteError, unknown
from emobench.runner.engines.engine import Engine
from emobench.suite import plugins
from emobench.suite.plugins import Broken


def engine_at(name: str, address: str | None, resources: Mapping[str, str] | None = None) -> Engine:
    """The engine of a name, as `engine_of` finds it, for a cluster (see `Engine.__init__`).

    Raises:
        EmobenchError: there is no such engine, no such cluster, or no such resource.
    """
    found = engine_of(name)
    return found(address, resources) if address is not None or resources else found()


def engine_of(name: str) -> type[Engine]:
    """The engine of a name, or of a file, as `my_engine.py:Mine`.

    Raises:
        SuiteError: there is none, or its file cannot be imported.
    """
    broken: list[Broken] = []
    if plugins.is_reference(name):
        path, _, cls = plugins.anchored(name, Path.cwd()).rpartition(":")
        module = plugins.wanted(Path(path), f"the engine {name} is named from the current folder on")
        found = {each.__name__: each for each in plugins.defined(module, Engine)}
        if cls not in found:
            raise SuiteError(f"{path}: {unknown('engine class', cls, found)}")
        return found[cls]
    named = {each.name: each for module in _modules(broken) for each in plugins.defined(module, Engine)}
    if name not in named:
        passed_over = "".join(f"\n{each} (passed over)" for each in broken)
        raise SuiteError(f"{unknown('engine', name, named)}{passed_over}")
    return named[name]


def _modules(broken: list[Broken]) -> Iterator[ModuleType]:
    """Those of this room, whose hidden ones are the fork server's, and the user's own."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            yield importlib.import_module(f"{__name__}.{module.name}")
    yield from plugins.modules(broken)
