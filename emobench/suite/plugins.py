"""Files of the user's own that define models, datasets, tracks, metrics and engines: where they are looked for, and how
they are imported.

There are three ways to name one: in a suite, from the suite's folder on, as `class = "my_models.py:Small"` or among
`plugins = ["my_track.py"]`; by `EMOBENCH_PLUGINS`, files and folders of files; and by the entry-point group
`emobench.plugins`, modules of installed packages.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from emobench.data.content import listing
from emobench.definitions.roots import current, root_of
from emobench.errors import EmobenchError, StoreError, SuiteError

VARIABLE, GROUP = "EMOBENCH_PLUGINS", "emobench.plugins"
ANYTHING = (Exception, SystemExit)  # that importing a foreign file may raise
Base = TypeVar("Base")
_REFERENCE = re.compile(r".+\.py:\w+")


@dataclass(frozen=True)
class Broken:
    """A file that cannot be used, and why."""

    file: Path
    line: int | None
    error: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f', line {self.line}'}: {self.error}"

    @classmethod
    def by(cls, error: BaseException, file: Path) -> Broken:
        """What importing a file raised, at the file's own line."""
        if isinstance(error, SyntaxError) and error.filename:
            return cls(Path(error.filename), error.lineno, f"{type(error).__name__}: {error.msg}")
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
        return cls(file, frames[-1].lineno if frames else None, f"{type(error).__name__}: {error}")


def line_of(cls: Any) -> int | None:
    """Where a class begins in its file."""
    try:
        return inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return None


def is_reference(name: str) -> bool:
    """Whether a class is named by its file, as `my_models.py:Small`."""
    return _REFERENCE.fullmatch(name) is not None


def anchored(name: str, folder: Path) -> str:
    """A reference whose file is named from a folder on, with the whole path of the file."""
    path, _, cls = name.rpartition(":")
    return f"{(folder / Path(path).expanduser()).resolve()}:{cls}"


_of_suite: list[Path] = []  # the files that the suite at hand names


def wanted(path: Path, missing: str, sha256: str | None = None) -> ModuleType:
    """As `load`, of a file that a suite or a command names; `missing`: what to do where it is not there.

    Raises:
        SuiteError: it is missing, or cannot be imported.
        EmobenchError: it is another one by now.
    """
    try:
        return load(path, sha256)
    except FileNotFoundError:
        raise SuiteError(f"{path}: no such file; {missing}") from None
    except ANYTHING as error:
        if sha256 is not None and isinstance(error, EmobenchError):
            raise
        raise SuiteError(str(Broken.by(error, path))) from error


def defined(module: ModuleType, base: type[Base]) -> Iterator[type[Base]]:
    """The named subclasses of a class that a module itself defines."""
    for member in list(vars(module).values()):
        own = inspect.isclass(member) and member.__module__ == module.__name__
        if own and issubclass(member, base) and "name" in vars(member):
            yield member


def use(named: Mapping[str, str | None]) -> None:
    """From now on these are the files of the suite at hand, in the place of those before.

    Args:
        named: path -> SHA-256 when the suite was planned, see `load`.

    Raises:
        SuiteError: one is missing, or cannot be imported.
        EmobenchError: one is another one by now.
    """
    _of_suite[:] = [Path(path).resolve() for path in named]
    for path, sha256 in zip(_of_suite, named.values(), strict=True):
        wanted(path, "`plugins` names it from the suite's own folder on", sha256)


def used() -> dict[str, str]:
    """The files of the suite at hand: path -> SHA-256."""
    return {str(path): vars(load(path))["sha256_of_file"] for path in _of_suite}


def files() -> list[Path]:
    """Those of the suite at hand and of `EMOBENCH_PLUGINS`; of a folder all but those that `_` or a dot begins."""
    found = list(_of_suite)
    for part in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(part).expanduser().resolve()
        found += sorted(path.glob("[!_.]*.py")) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def state() -> tuple[object, ...]:
    """What tells two moments apart between which the user's files changed."""
    stamps = ((path, path.stat().st_mtime_ns if path.is_file() else None) for path in files())
    return (*sys.path, *stamps)


def modules(passed_over: list[Broken]) -> Iterator[ModuleType]:
    """The user's modules that every command knows; those that cannot be imported are added to `passed_over`."""
    for path in files():
        try:
            yield load(path)
        except ANYTHING as error:
            passed_over.append(Broken.by(error, path))
    for each in entry_points(group=GROUP):
        try:
            yield importlib.import_module(each.module)
        except ANYTHING as error:
            passed_over.append(Broken(_file_of(each.module), None, f"{type(error).__name__}: {error}"))


def _file_of(module: str) -> Path:
    """Where a module lies that cannot be imported; its name where that is not found either."""
    try:
        found = importlib.util.find_spec(module)
    except ANYTHING:
        found = None
    return Path(module if found is None or found.origin is None else found.origin)


def load(path: Path, sha256: str | None = None) -> ModuleType:
    """Import a file by its path; it may import what lies beside it.

    It is imported once, and again where it has changed.

    Args:
        sha256: of the file when a sweep was planned; then one that was imported before it changed is good.

    Raises:
        FileNotFoundError: there is none.
        EmobenchError: it is another one by now.
        Exception: whatever the file raises.
    """
    path = path.resolve()
    if (planned := _imported(path, sha256)) is not None:
        return planned
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if sha256 not in (None, digest):
        raise EmobenchError(f"{path} changed while the sweep ran. Run the same command again")
    if (same := _imported(path, digest)) is not None:
        return same
    name = _module_name(path)
    loaded = sys.modules.get(name)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = ModuleType(name)
    module.__file__ = str(path)
    vars(module)["sha256_of_file"] = digest
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except BaseException:
        if loaded is None:
            del sys.modules[name]
        else:
            sys.modules[name] = loaded
        raise
    return module


def _imported(path: Path, sha256: str | None) -> ModuleType | None:
    """The module of a file that was imported when it had this content."""
    module = sys.modules.get(_module_name(path))
    return module if module is not None and vars(module)["sha256_of_file"] == sha256 else None


def _module_name(path: Path) -> str:
    """The same for the same path, and for no other one."""
    return f"emobench_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def reference(cls: Any) -> str:
    """What records call a class: its module and name, or the name of its file where that was imported by its path."""
    digest = vars(sys.modules[cls.__module__]).get("sha256_of_file")
    module = cls.__module__ if digest is None else Path(str(sys.modules[cls.__module__].__file__)).name
    return f"{module}:{cls.__qualname__}"


def sources(*classes: Any) -> dict[str, dict[str, str]]:
    """Where the classes lie that were imported by their paths: reference -> `path` and `sha256` of the file."""
    found: dict[str, dict[str, str]] = {}
    for cls in classes:
        module = sys.modules[cls.__module__]
        if "sha256_of_file" in vars(module):
            place = {"path": str(module.__file__), "sha256": vars(module)["sha256_of_file"]}
            if found.setdefault(reference(cls), place) != place:
                raise EmobenchError(f"two files are called {Path(place['path']).name}, each with a {cls.__qualname__}")
    return found


def listings(*classes: Any) -> dict[str, str]:
    """What tells soon whether the files outside the package that some classes come from changed: path -> digest."""
    own = [cls for cls in classes if cls.__module__.partition(".")[0] != "emobench"]
    return {str(path): listing(path) for cls in own for path in current().reached([root_of(cls)]).files}


def source_of(cls: Any) -> Path:
    """The file that defines a class."""
    return Path(str(sys.modules[cls.__module__].__file__)).resolve()


def class_of(name: str, places: Mapping[str, Mapping[str, str]]) -> Any:
    """The class that a record names.

    Args:
        name: as `reference` gives it.
        places: as `sources` gives it.

    Raises:
        StoreError: the file of a class is gone, or no longer has it.
    """
    module, _, qualname = name.partition(":")
    if not module.endswith(".py"):
        return getattr(importlib.import_module(module), qualname)
    place = places.get(name, {})
    paths = [Path(place["path"])] if place else []
    for path in [*paths, *(path for path in files() if path.name == module)]:
        with contextlib.suppress(FileNotFoundError):
            found = getattr(_imported(path, place.get("sha256")) or load(path), qualname, None)
            if found is not None:
                return found
    looked_for = ", ".join(map(str, paths)) or "no known place"
    raise StoreError(f"{name}: not found at {looked_for}. Put the file back, or name it in {VARIABLE}")
