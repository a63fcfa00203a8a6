"""What of a store, and of the cache of datasets, is still in use: by a board of its results, or by a running sweep.

    results/cells/<fit_key>/             in use where a row of a board has the key, or a network of such a row
    results/cells/<fit_key>/<eval_key>/  in use where a row of a board has both keys
    results/cells/plans/*.json           in use where all of its cells are
    results/cells/calibrations/*.json    in use where today's code is what was measured
    results/cells/sweeps/*.json          the cells of a running sweep, locked by it as long as it lives
    <cache>/packs, plans                 in use where a cell in use is of that dataset, as today's code reads it
    <cache>/features/*.npz               in use where a cell in use has an FID

Whatever cannot be read is never deleted. Imports no torch.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from filelock import FileLock, Timeout

from emobench.data.content import digest
from emobench.errors import StoreError
from emobench.files import SCHEMA_VERSION, read_json
from emobench.runner.lease import has_lease
from emobench.runner.record import Record, read_record
from emobench.runner.store import Store, committed_cells
from emobench.suite.cell import Cell
from emobench.suite.keys import datasets_in, fit_is_current, name_of

_KEY = re.compile("[0-9a-f]{16,64}")
_PACK = re.compile(r"([0-9a-f]{64})(-\d+)?")
_DELETED = ".deleted."  # of what was being deleted when that was cut short


@dataclass(frozen=True)
class Unused:
    """Something that no board and no running sweep uses.

    Attributes:
        what: in words, for a list.
        fit_key: of the cell that it is or belongs to; "": of none.
        lock: the lock that a process holds while it makes it; None: there is none.
    """

    path: Path
    what: str
    fit_key: str = ""
    lock: Path | None = None

    @functools.cached_property
    def size(self) -> int:
        """Bytes of its files, counted once."""
        return size_of(self.path)


@dataclass
class Used:
    """What the boards and the running sweeps of a results folder use.

    Attributes:
        boards: how many there are.
        cells: fit_key -> eval_keys; those of networks that a cell is made with, or judged by, have none of their own.
        data: what the keys hold of the datasets.
        inception: whether a cell in use is measured in Inception's features.
        problems: path -> what of it cannot be understood.
        unknown: whether a list of cells is among them, so that any cell may be in use.
    """

    boards: int = 0
    cells: dict[str, set[str]] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    inception: bool = False
    problems: dict[Path, str] = field(default_factory=dict)
    unknown: bool = False

    def add(self, fit_key: str, eval_key: str | None = None) -> None:
        self.cells.setdefault(fit_key, set()).update([] if eval_key is None else [eval_key])


# ---- running sweeps --------------------------------------------------------------------------------------------------


@contextmanager
def sweeping(store: Store, cells: Sequence[Cell]) -> Iterator[None]:
    """Say in the store which cells a sweep has planned, until the block or its process ends.

    A store that cannot be written stops no sweep: its board says the same.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(_said(store, cells))
        yield


@contextmanager
def _said(store: Store, cells: Sequence[Cell]) -> Iterator[None]:
    planned = [
        {"fit_key": cell.fit_key, "eval_key": cell.eval_key, "awaits": cell.awaits, "data": datasets_in(cell.fit)}
        | {"inception": _by_inception(cell.evaluation)}
        for cell in cells
    ]
    path = store.cells / "sweeps" / f"{os.getpid()}-{token_hex(4)}.json"
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({"schema_version": SCHEMA_VERSION, "cells": planned}, file)
            file.flush()
            os.replace(temporary, path)  # it appears whole, and locked
            yield
    finally:
        for each in (temporary, path):
            each.unlink(missing_ok=True)


def _by_inception(evaluation: Mapping[str, Any]) -> bool:
    files = evaluation.get("files")
    planned = files.get("inception") if isinstance(files, dict) else None
    return isinstance(planned, dict) and planned.get("reason") is None


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file; False where there is none."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (BlockingIOError, PermissionError):
        return True
    return False


# ---- what is in use --------------------------------------------------------------------------------------------------


def used(results: Path) -> Used:
    """What the boards of a results folder and the sweeps that run on it use."""
    found, store = Used(), Store(results)
    for board in sorted(path for path in results.iterdir() if path.is_dir() and path != store.cells):
        _of_board(found, results, board)
    for path in sorted((store.cells / "sweeps").glob("*.json")):
        if is_held(path):
            _of_sweep(found, path)
    todo = list(found.cells)
    while todo:
        fit_key = todo.pop()
        for record in _records(found, store, fit_key):
            _of_record(found, record)
            for each in networks(record):
                if each not in found.cells:
                    found.add(each)
                    todo.append(each)
    return found


def _of_board(found: Used, results: Path, board: Path) -> None:
    """The cells that a board lists, and the networks of those that are committed with it."""
    path = board / "suite.json"
    try:
        os.stat(path)
        rows = [(row["fit_key"], row["eval_key"]) for row in read_json(path)["rows"]]
        if not all(isinstance(key, str) for row in rows for key in row):
            raise TypeError("a key that is no text")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (StoreError, OSError, KeyError, TypeError) as error:
        found.problems[path] = f"what this board uses is not known ({error})"
        found.unknown = True
        return
    found.boards += 1
    for fit_key, eval_key in rows:
        if fit_key:  # else it was skipped
            found.add(fit_key, eval_key)
    committed = {folder.name: folder for folder in committed_cells(results, board.name)}
    for _, eval_key in rows:
        for name in ("result.json", "fit.json") if eval_key in committed else ():
            record = _read(found, committed[eval_key] / name)
            if record is not None:
                _of_record(found, record)
                for fit_key in networks(record):
                    found.add(fit_key)


def _of_sweep(found: Used, path: Path) -> None:
    """The cells of a sweep that runs."""
    try:
        for cell in read_json(path)["cells"]:
            found.add(cell["fit_key"], cell["eval_key"])
            for fit_key in cell["awaits"]:
                found.add(fit_key)
            found.data += cell["data"]
            found.inception |= cell["inception"]
    except FileNotFoundError:  # it ended meanwhile
        return
    except (StoreError, KeyError, TypeError) as error:
        found.problems[path] = f"what this sweep uses is not known ({error})"
        found.unknown = True


def _records(found: Used, store: Store, fit_key: str) -> Iterator[Record]:
    """Those of a cell in use that lie in the store."""
    folder = store.fit_folder(fit_key)
    paths = [folder / "fit.json", *(folder / key / "result.json" for key in sorted(found.cells[fit_key]))]
    yield from (record for path in paths if (record := _read(found, path)) is not None)


def _read(found: Used, path: Path) -> Record | None:
    """A record; None where there is none, or none that can be read, which is noted."""
    try:
        return read_record(path)
    except FileNotFoundError:
        return None
    except StoreError as error:
        found.problems[path] = str(error)
        return None


def _of_record(found: Used, record: Record) -> None:
    found.data += datasets_in(record.made_of.fit)
    found.inception |= _by_inception(record.made_of.eval)


def networks(record: Record) -> set[str]:
    """The fit_keys of all networks behind a result: what it is made with, and what judges it."""
    cell, cards = record.cell, [] if record.evaluation is None else record.evaluation.cards
    named = [key for keys in (*cell.needs.values(), *cell.panel.values()) for key in keys]
    behind = [key for card in cards for keys in card.needs.values() for key in keys]
    return {*named, *behind, *(card.fit_key for card in cards), *record.made_with}


# ---- what is not -----------------------------------------------------------------------------------------------------


def unused(results: Path, cache: Path | None) -> tuple[list[Unused], dict[Path, str]]:
    """What no board and no running sweep uses, the largest first; and what is not understood, which stays.

    Args:
        cache: of the datasets; None: not looked at. It is shared by all results folders, and what it loses is made
            again when it is wanted.
    """
    found, of = _found(results, cache)
    return sorted(found, key=lambda each: -each.size), of.problems


def _found(results: Path, cache: Path | None) -> tuple[list[Unused], Used]:
    """As `unused`, in no order, so that no size is asked for; and what is in use."""
    of, store = used(results), Store(results)
    found: list[Unused] = []
    if of.unknown:
        of.problems.setdefault(store.cells, "kept as a whole, since a list of cells cannot be read")
    elif store.cells.is_dir():
        found += _of_store(of, store)
    if cache is not None and of.boards and not of.unknown:
        found += _of_cache(of, cache)
    return found, of


def _of_store(of: Used, store: Store) -> Iterator[Unused]:
    for path in sorted(store.cells.iterdir()):
        if path.name in ("plans", "sweeps", "slurm", "calibrations") or path.name.startswith(".probe."):
            continue
        if path.name.startswith(_DELETED):
            yield Unused(path, "what an earlier clean left")
        elif not _is_folder(of, path, _KEY) or is_held(path / ".lock") or has_lease(path):
            continue  # a cell that runs is in use, whoever started it
        elif path.name not in of.cells:
            records = list(_all_records(of, path))
            if path not in of.problems:
                label = records[0].planned.label if records else "a cell without a result"
                yield Unused(path, label, path.name)
        else:
            yield from _evaluations(of, path)
    for path in sorted((store.cells / "plans").glob("*.json")):
        if _is_unused_plan(of, path):
            yield Unused(path, "a plan")
    for path in sorted((store.cells / "calibrations").glob("*.json")):
        if _is_old_calibration(path):
            yield Unused(path, "a calibration")
    for path in sorted((store.cells / "sweeps").iterdir()) if (store.cells / "sweeps").is_dir() else ():
        if not is_held(path):
            yield Unused(path, "the cells of a sweep that was killed")


def _is_old_calibration(path: Path) -> bool:
    """Whether a calibration is of other code than today's, or not whole: it is measured again where it is wanted."""
    try:
        return not fit_is_current(read_json(path)["fit"])
    except FileNotFoundError:
        return False
    except (StoreError, KeyError, TypeError):
        return True


def _is_folder(of: Used, path: Path, name: re.Pattern[str]) -> bool:
    """Whether something is a folder that emobench has made; what is not is noted."""
    if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
        return True
    of.problems[path] = "nothing that emobench has made"
    return False


def _all_records(of: Used, folder: Path) -> Iterator[Record]:
    """All records of a cell that is not in use; one that cannot be read is noted, and with it the folder."""
    for path in (folder / "fit.json", *sorted(folder.glob("*/result.json"))):
        try:
            record = read_record(path)
            if record.fit_key != folder.name:
                raise StoreError(f"{path}: the record of another cell, {record.fit_key}")
            yield record
        except FileNotFoundError:
            continue
        except StoreError as error:
            of.problems[folder] = str(error)


def _evaluations(of: Used, folder: Path) -> Iterator[Unused]:
    """Of a fit in use, the evaluations that no board shows."""
    for path in sorted(folder.iterdir()):
        if (
            not _KEY.fullmatch(path.name)
            or not path.is_dir()
            or path.is_symlink()
            or path.name in of.cells[folder.name]
        ):
            continue
        try:
            record = read_record(path / "result.json")
        except FileNotFoundError:
            yield Unused(path, "an evaluation without a result", folder.name)
        except StoreError as error:
            of.problems[path] = str(error)
        else:
            yield Unused(path, f"an evaluation of {record.planned.label}", folder.name)


def _is_unused_plan(of: Used, path: Path) -> bool:
    from emobench.suite.plan_cache import kept  # with all that plans are made of

    if (plan := kept(path)) is None:
        if path.exists():
            of.problems[path] = "no plan that can be read"
        return False
    cells = [Cell(**cell) for cell in plan["cells"]]
    return not all(cell.eval_key in of.cells.get(cell.fit_key, ()) for cell in cells)


def _of_cache(of: Used, cache: Path) -> Iterator[Unused]:
    fingerprints, manifests = {part.get("fingerprint") for part in of.data}, _manifests(of, cache)
    packs = _packs(of, cache, manifests.values())
    for path in _inside(cache / "packs") if packs is not None else ():
        if path.name.removeprefix(".").removesuffix(".partial") not in (packs or ()):
            yield from _cached(of, path, "faces of a dataset")
    for path in _inside(cache / "plans"):
        if path.name.startswith(".") or (path in manifests and manifests[path][0] not in fingerprints):
            yield from _cached(of, path, "the index of a dataset")
    for path in _inside(cache / "features") if not of.inception else ():
        if path.suffix == ".npz":
            yield Unused(path, "Inception's features of real faces")


def _manifests(of: Used, cache: Path) -> dict[Path, tuple[str, str]]:
    """The fingerprint of each manifest in the cache, and what names its pack; one that cannot be read is noted."""
    found = {}
    for folder in _inside(cache / "plans"):
        if folder.name.startswith("."):  # half made
            continue
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            fingerprint = str(manifest["fingerprint"])
            found[folder] = fingerprint, manifest.get("undivided", fingerprint)  # none in those of earlier versions
        except (OSError, ValueError, KeyError, TypeError) as error:
            of.problems[folder] = f"no manifest of a dataset that can be read ({error})"
    return found


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _cached(of: Used, path: Path, what: str) -> Iterator[Unused]:
    """A folder of the cache, unless a process is making it; one with a dot before its name was left half made."""
    half = path.name.startswith(".")
    match = _PACK.search(path.name) if half else _PACK.fullmatch(path.name)
    if match is None or not path.is_dir() or path.is_symlink():
        of.problems[path] = "nothing that emobench has made"
        return
    planned = path.parents[1] / "locks" / f"plan-{match[1]}.lock"  # held while a dataset is indexed and decoded
    mine = planned if path.parent.name == "plans" else planned.with_name(f"{match[0]}.lock")
    if not is_held(mine) and not is_held(planned):
        yield Unused(path, f"{'half of ' if half else ''}{what}", lock=mine)


def _packs(of: Used, cache: Path, manifests: Collection[tuple[str, str]]) -> set[str] | None:
    """The packs of the datasets in use, as today's code names them; None: of one that is not known.

    No file is imported because a record names it: a record is data.

    Args:
        manifests: see `_manifests`; a pack without one would not be found by who wants its faces.
    """
    from emobench.suite.catalog import classes

    known, found = classes("dataset"), set[str]()
    parts = {digest(part): part for part in of.data}
    for part in parts.values():
        try:
            size, code = part["arguments"]["size"], known[name_of(part)]._code()
            named = [undivided for fingerprint, undivided in manifests if fingerprint == part["fingerprint"]]
            found.update(digest([undivided, size, code]) for undivided in named)
        except (KeyError, TypeError) as error:
            of.problems[cache / "packs"] = (
                f"kept as a whole, since a dataset in use is not known ({error}). Name its file in EMOBENCH_PLUGINS"
            )
            return None
    return found


# ---- deleting --------------------------------------------------------------------------------------------------------


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size if os.path.lexists(path) else 0
    files = (Path(top, name) for top, _, names in os.walk(path) for name in names)
    return sum(each.lstat().st_size for each in files if os.path.lexists(each))


def delete(results: Path, items: Iterable[Unused], cache: Path | None) -> Iterator[tuple[Unused, str | None]]:
    """Delete what is still unused now; yields each with why it was not deleted, None where it was.

    A cell is deleted while its lock is held, under another name: whoever comes meanwhile finds none and makes it again.
    """
    now = {each.path for each in _found(results, cache)[0]}
    for item in items:
        try:
            why = _delete(Store(results), item) if item.path in now else "in use by now, or gone"
        except OSError as error:
            why = f"{error.strerror or error}: {error.filename or item.path}"
        yield item, why


def _delete(store: Store, item: Unused) -> str | None:
    if item.fit_key and not store.fit_folder(item.fit_key).is_dir():  # a lock would make it
        return "gone by now"
    if item.lock is not None:
        item.lock.parent.mkdir(exist_ok=True)
    try:
        with (
            store.lock(item.fit_key) if item.fit_key else nullcontext(True) as mine,
            nullcontext() if item.lock is None else FileLock(item.lock, timeout=0),
        ):
            if not mine or _swept(store, item.fit_key):
                return "in use by now"
            _remove(item.path)
    except Timeout:
        return "in use by now"
    return None


def _swept(store: Store, fit_key: str) -> bool:
    """Whether a sweep that has begun by now uses a cell."""
    found = Used()
    for path in (store.cells / "sweeps").glob("*.json"):
        if is_held(path):
            _of_sweep(found, path)
    return found.unknown or fit_key in found.cells


def _remove(path: Path) -> None:
    """Delete a file or a folder; a folder disappears at once, and then its files."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    aside = path if path.name.startswith(_DELETED) else path.with_name(f"{_DELETED}{path.name}.{token_hex(4)}")
    if aside != path:
        path.rename(aside)
    shutil.rmtree(aside)
