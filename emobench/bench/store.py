"""Results on disk: where they lie, how they are written so that none is ever half there, how they are read.

    results/cells/<fit_key>/            a fit: fit.json, weights.safetensors, history.csv, log.txt
    results/cells/<fit_key>/<eval_key>/ an evaluation of it: result.json and its raw files
    results/<suite>/suite.json          the rows of a board and their keys
    results/<suite>/cells/<eval_key>/   what a committed board needs of its evaluations

Imports no torch, so that reports are made without it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emobench.atomic import replacing
from emobench.bench.keys import is_current
from emobench.errors import StoreError

SCHEMA_VERSION = 1
PROTOCOL = 1
JUDGES_BYTES = 20 * 2**20  # of judges' weights that a board commits
JUDGE = "judge.safetensors"  # beside a fit: its weights in float16, as evaluations of generators load them

State = Literal["done", "failed", "diverged", "interrupted", "pending", "skipped"]
HELD = 75  # exit code (EX_TEMPFAIL) of a cell's process where another sweep holds the cell
FINISHED = ("done", "diverged")  # running such a cell again would give the same


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON beside its place and move it there, so that a reader sees all of it or nothing.

    Raises:
        ValueError: `content` holds NaN or an infinity, which JSON cannot.
        OSError: the disk is full or the folder is read-only; the old file is untouched.
    """
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """Read a record that `write_json` wrote.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is not whole; the message names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not a whole result file ({error}). Delete it; the cell can run again.") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds {type(content).__name__}, not a record. Delete it; the cell can run again.")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise StoreError(f"{path}: schema version {found}, this emobench reads {SCHEMA_VERSION}. Run the cell again.")
    return content


def finished(path: Path) -> bool:
    """Whether a whole record lies there whose state is `done`."""
    try:
        return bool(read_json(path)["state"] == "done")
    except (FileNotFoundError, StoreError):
        return False


class Store:
    """The cells of all suites below one results folder."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.cells = results / "cells"

    def check_writable(self) -> None:
        """Find out before anything is trained whether results can be kept.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        probe = self.cells / f".probe.{os.getpid()}"
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"{self.cells}: cannot be written ({error.strerror}). Make it writable or choose another "
                "folder with --results."
            ) from error

    def fit_folder(self, fit_key: str) -> Path:
        return self.cells / fit_key

    def eval_folder(self, fit_key: str, eval_key: str) -> Path:
        return self.cells / fit_key / eval_key

    def weights(self, fit_key: str) -> Path:
        return self.fit_folder(fit_key) / "weights.safetensors"

    @contextmanager
    def lock(self, fit_key: str) -> Iterator[bool]:
        """Hold the cell for this process; yields False at once where another process holds it.

        The lock goes with the process that holds it, however that ends.
        """
        folder = self.fit_folder(fit_key)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


@dataclass(frozen=True)
class Row:
    """One cell of a board, with what the store knows about it."""

    row: str
    model: str
    variant: str
    dataset: str
    size: int
    seed: int
    track: str
    control: str | None
    fit_key: str
    eval_key: str
    state: State
    reason: str | None
    result: dict[str, Any] | None  # the evaluation's record, or the fit's where it did not end well
    folder: Path | None  # where the raw files of `result` lie
    stale: str | None  # the commit that made it, where today's code would key it differently


def find(
    results: Path, suite: str, fit_key: str, eval_key: str
) -> tuple[State, str | None, dict[str, Any] | None, Path]:
    """State, reason, record and folder of one cell: the own store first, then what is committed with the board."""
    store = Store(results)
    committed = results / suite / "cells" / eval_key
    for folder in (store.eval_folder(fit_key, eval_key), committed):
        try:
            record = read_json(folder / "result.json")
        except FileNotFoundError:
            continue
        except StoreError as error:
            return "failed", f"corrupt result: {error}", None, folder
        return record["state"], record.get("reason"), record, folder
    folder = store.fit_folder(fit_key)
    try:
        record = read_json(folder / "fit.json")
    except FileNotFoundError:
        return "pending", None, None, folder
    except StoreError as error:
        return "failed", f"corrupt result: {error}", None, folder
    if record["state"] == "done":
        return "pending", "trained, not yet evaluated", record, folder
    return record["state"], record.get("reason"), record, folder


def load_board(results: Path, suite: str) -> list[Row]:
    """The rows of a board in the suite's order.

    Raises:
        StoreError: the suite has never been run, or its `suite.json` is not whole.
    """
    try:
        board = read_json(results / suite / "suite.json")
    except FileNotFoundError:
        raise StoreError(
            f"{results / suite}: no suite.json, so this suite was never run here. Run `emobench bench` with it first."
        ) from None
    rows = []
    for entry in board["rows"]:
        entry = dict(entry)
        skipped = entry.pop("skipped", None)
        if skipped is not None:
            rows.append(Row(**entry, state="skipped", reason=skipped, result=None, folder=None, stale=None))
            continue
        state, reason, record, folder = find(results, suite, entry["fit_key"], entry["eval_key"])
        rows.append(Row(**entry, state=state, reason=reason, result=record, folder=folder, stale=_stale(record)))
    return rows


def _stale(record: dict[str, Any] | None) -> str | None:
    """The commit that made a record, where the code that determined its numbers reads differently today."""
    if record is None or is_current(record):
        return None
    versions = record.get("versions", {})
    return f"{versions.get('commit') or 'unknown'}{' + changes' if versions.get('dirty') else ''}"


def adopt(store: Store, record: dict[str, Any], judge: Path) -> None:
    """Put a committed judge into the store: its fit, as its evaluation's record has it, and the weights that judge."""
    folder = store.fit_folder(record["fit_key"])
    if finished(folder / "fit.json"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / JUDGE) as temporary:
        shutil.copyfile(judge, temporary)
    fit = {name: value for name, value in record.items() if name not in ("metrics", "per_emotion", "dataset", "raw")}
    made = {"versions": record["fitted_with"], "hardware": record["fitted_on"]}
    write_json(folder / "fit.json", {**fit, **made})


def commit_judges(results: Path, suite: str, rows: Sequence[Row], fit_keys: Sequence[str]) -> None:
    """Copy the weights of judges, reader and guides beside their cells, where a later clone finds them.

    Small networks only: of those that are together larger than `JUDGES_BYTES`, the rest is left out.
    """
    store, total = Store(results), 0
    for fit_key in dict.fromkeys(fit_keys):
        row = next((row for row in rows if row.fit_key == fit_key and row.track == "recognition"), None)
        source = store.fit_folder(fit_key) / JUDGE
        if row is None or not source.exists():
            continue
        target = results / suite / "cells" / row.eval_key / JUDGE
        total += source.stat().st_size
        if total <= JUDGES_BYTES and target.parent.is_dir() and not target.exists():
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)


def commit_cell(results: Path, suite: str, row: Row) -> Path | None:
    """Copy what a committed board needs of a finished cell beside the board; returns the copy's folder, or None."""
    if row.state != "done" or row.result is None or row.folder is None:
        return None
    target = results / suite / "cells" / row.eval_key
    if row.folder == target:
        return target
    target.mkdir(parents=True, exist_ok=True)
    for name in (*row.result.get("raw", {}).values(), "result.json"):  # the record last: with it the copy is whole
        if not (target / name).exists() or (target / name).stat().st_mtime < (row.folder / name).stat().st_mtime:
            with replacing(target / name) as temporary:
                shutil.copyfile(row.folder / name, temporary)
    return target
