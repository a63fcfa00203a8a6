"""Files of the user's own that define models, datasets, tracks, metrics and engines: where they are looked for, and how
they are imported.

There are three ways to name one: in a suite, from the suite's folder on, as `class = "my_models.py:Small"` or among
`plugins = ["my_track.py"]`; by `EMOBENCH_PLUGINS`, files and folders of files; and by the entry-point group
`emobench.plugins`, modules of installed packages, or packages that show what their modules define.

A record names files too: that of a class, those of a board. It is data, perhaps a stranger's, so such a file runs only
where the user has named it in one of these ways, now or before on this account (`is_trusted`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from emobench.data.content import listing
from emobench.errors import EmobenchError, StoreError, SuiteError, first_line, unknown

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
    return f"{os.path.realpath(folder / Path(path).expanduser())}:{cls}"


_of_suite: dict[Path, str | None] = {}  # the files that the suite at hand names, and their SHA-256 when it was planned
_named: set[Path] = set()  # every file that the user has named since this process began


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
    """The named subclasses of a class that a module, or the package that it is, defines."""
    for member in own_classes(module):
        if issubclass(member, base) and "name" in vars(member):
            yield member


def own_classes(module: ModuleType) -> Iterator[type]:
    """The classes that a module, or the package that it is, defines; not those that it imports from elsewhere."""
    for member in list(vars(module).values()):
        if inspect.isclass(member) and f"{member.__module__}.".startswith(f"{module.__name__}."):
            yield member


def use(named: Mapping[str, str | None], missing: str = "`plugins` names it from the suite's own folder on") -> None:
    """From now on these are the files of the suite at hand, in the place of those before.

    Args:
        named: path -> SHA-256 when the suite was planned, see `load`.
        missing: what to do where one is not there.

    Raises:
        SuiteError: one is missing, or cannot be imported.
        EmobenchError: one is another one by now.
    """
    _of_suite.clear()
    _of_suite.update({Path(os.path.realpath(path)): sha256 for path, sha256 in named.items()})
    for path, sha256 in list(_of_suite.items()):
        wanted(path, missing, sha256)


def used() -> dict[str, str]:
    """The files that cells are measured by: path -> SHA-256 of what was imported, which their keys speak of.

    They are those of the suite at hand, and of `EMOBENCH_PLUGINS` those with tracks and metrics.
    """
    found = {path: sys.modules.get(_module_name(path)) for path in files()}
    return {
        str(path): vars(module)["sha256_of_file"]
        for path, module in found.items()
        if module is not None and (path in _of_suite or _measures(module))
    }


def _measures(module: ModuleType) -> bool:
    from emobench.evaluation.tracks.track import Metric, Track

    return any(isinstance(each, Metric) for each in vars(module).values()) or any(defined(module, Track))


def files() -> list[Path]:
    """Those of the suite at hand and of `EMOBENCH_PLUGINS`; of a folder all but those that `_` or a dot begins."""
    found = list(_of_suite)
    for part in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(os.path.realpath(Path(part).expanduser()))  # also of links that lead back to themselves
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
            passed_over.append(Broken.by(error, _file_of(each.module)))


def stamps() -> list[tuple[str, list[str]]]:
    """The same as `state` for two processes, and of packages with entry points too: nothing is imported for it."""
    named = [(str(path), [listing(path)]) for path in files()]
    for each in entry_points(group=GROUP):
        named.append((each.value, [listing(path) for path in _files_of(each.module.partition(".")[0])]))
    return named


def _files_of(package: str) -> list[Path]:
    """All files of code of a module, or package, at the top; none where it is not found."""
    found = _spec(package)
    if found is None:
        return []
    folders = found.submodule_search_locations
    if folders is None:
        return [Path(str(found.origin))]
    return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))


def _file_of(module: str) -> Path:
    """Where a module lies that cannot be imported, or the package whose import fails; its name where it is nowhere."""
    parts = module.split(".")
    specs = (_spec(".".join(parts[:end])) for end in range(len(parts), 0, -1))
    return next((Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None), Path(module))


def _spec(module: str) -> ModuleSpec | None:
    """Where a module would be imported from: its package is imported for it, itself not."""
    try:
        return importlib.util.find_spec(module)
    except ANYTHING:
        return None


def load(path: Path, sha256: str | None = None) -> ModuleType:
    """Import a file by its path; it may import what lies beside it.

    It is imported once, and again where it has changed; records may name it from now on.

    Args:
        sha256: of the file when a sweep was planned; then one that was imported before it changed is good. None: what
            `use` was told of it.

    Raises:
        FileNotFoundError: there is none.
        EmobenchError: it is another one by now.
        Exception: whatever the file raises.
    """
    path = Path(os.path.realpath(path))
    sha256 = sha256 or _of_suite.get(path)
    if (planned := _imported(path, sha256)) is not None:
        return planned
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if sha256 not in (None, digest):
        raise EmobenchError(f"{path} changed while the sweep ran. Run the same command again")
    if (same := _imported(path, digest)) is not None:
        return same
    _trust(path)
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
    return f"emobench_plugin_{path.stem}_{hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:8]}"


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


def source_of(cls: Any) -> Path:
    """The file that defines a class."""
    return Path(str(sys.modules[cls.__module__].__file__)).resolve()


def class_of(name: str, places: Mapping[str, Mapping[str, str]]) -> Any:
    """The class that a record names.

    Args:
        name: as `reference` gives it.
        places: as `sources` gives it.

    Raises:
        StoreError: the file of a class is gone, no longer has it, or is not trusted.
    """
    file, _, qualname = name.partition(":")
    place = places.get(name, {})
    paths = [Path(place["path"])] if place else []
    for path in [*paths, *(path for path in files() if path.name == file)]:
        with contextlib.suppress(FileNotFoundError):
            if (module := _imported(path, place.get("sha256"))) is None:
                check_trusted(path)
                module = load(path)
            found = getattr(module, qualname, None)
            if inspect.isclass(found):
                return found
    looked_for = ", ".join(map(str, paths)) or "no known place"
    raise StoreError(f"{name}: not found at {looked_for}. Put the file back, or name it in {VARIABLE}")


# ---- files that records name -----------------------------------------------------------------------------------------


def check_trusted(path: Path) -> None:
    """A file that a record names may be imported.

    Raises:
        StoreError: the user has not named it.
        FileNotFoundError: there is none.
    """
    if not path.is_file():  # nor a pipe, whose end never comes
        raise FileNotFoundError(path)
    if not is_trusted(path):
        raise StoreError(
            f"{path}: a record names this file of code, and no suite that was run from this account does. If you "
            f"trust it, name it in {VARIABLE}"
        )


def is_trusted(path: Path) -> bool:
    """Whether the user has named a file."""
    path = Path(os.path.realpath(path))
    if path in _named or path in files():
        return True
    with contextlib.suppress(OSError, RuntimeError):  # no home, or none that may be read
        return _mark(path).exists()
    return False


def _trust(path: Path) -> None:
    """Remember a file that the user has named; where nothing can be written, as long as this process runs."""
    if path in _named:
        return
    _named.add(path)
    with contextlib.suppress(OSError, RuntimeError):
        mark = _mark(path)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(f"{path}\n", encoding="utf-8", errors="surrogateescape")


def _mark(path: Path) -> Path:
    """What remembers a file; in the home of the user alone, since a cache may be shared."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return state / "emobench" / "trusted" / hashlib.sha256(os.fsencode(path)).hexdigest()


@functools.cache
def callable_of(path: Path, name: str) -> Any:
    """What a file of the user's own calls so, which is run here, with what it imports from its folder.

    Raises:
        SuiteError: the file cannot be imported, or holds nothing of this name that can be called.
    """
    sys.path.insert(0, str(path.parent))
    try:
        held = runpy.run_path(str(path), run_name=f"emobench_outside_{path.stem}")
    except Exception as error:
        raise SuiteError(f"{path}: cannot be imported ({type(error).__name__}: {first_line(error)})") from error
    finally:
        sys.path.remove(str(path.parent))
    if name not in held:
        raise SuiteError(f"{path}: {unknown('name', name, [each for each in held if not each.startswith('_')])}")
    found = held[name]() if isinstance(held[name], type) else held[name]
    if not callable(found):
        raise SuiteError(f"{path}: {name} cannot be called with faces")
    return found
