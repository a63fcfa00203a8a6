"""Engines: where the jobs of a sweep run. One a file, here or in files of the user's own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from emobench.errors import SuiteError, unknown
from emobench.runner.engines.engine import Engine
from emobench.suite import plugins
from emobench.suite.plugins import Broken


def engine_of(name: str) -> type[Engine]:
    """The engine of a name, or of a file, as `my_engine.py:Mine`.

    Raises:
        SuiteError: there is none, or its file cannot be imported.
    """
    broken: list[Broken] = []
    if plugins.is_reference(name):
        path, _, cls = plugins.anchored(name, Path.cwd()).rpartition(":")
        try:
            modules = iter([plugins.load(Path(path))])
        except FileNotFoundError:
            raise SuiteError(f"{path}: no such file; the engine {name} is named from the current folder on") from None
        except plugins.ANYTHING as error:
            raise SuiteError(str(Broken.by(error, Path(path)))) from error
        found = {each.__name__: each for each in _engines(modules)}
        if cls not in found:
            raise SuiteError(f"{path}: {unknown('engine class', cls, found)}")
        return found[cls]
    named = {each.name: each for each in _engines(_modules(broken))}
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


def _engines(modules: Iterator[ModuleType]) -> Iterator[type[Engine]]:
    for module in modules:
        for member in list(vars(module).values()):
            own = inspect.isclass(member) and member.__module__ == module.__name__
            if own and issubclass(member, Engine) and "name" in vars(member):
                yield member
