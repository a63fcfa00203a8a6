"""Results on disk: where they lie, how they are written so that none is ever half there, how they are read.

    results/cells/<fit_key>/            a fit: fit.json, weights.safetensors, history.csv, log.txt
    results/cells/<fit_key>/<eval_key>/ an evaluation of it: result.json and its raw files
    results/<suite>/suite.json          the rows of a board and their keys
    results/<suite>/cells/<eval_key>/   what a committed board needs of its evaluations, and of settings to choose among
    results/judges/<sha256>.safetensors the weights of panels, readers and guides, each network once for all boards

Imports no torch, so that reports are made without it.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from emobench.errors import RawError, StoreError
from emobench.files import SCHEMA_VERSION, attempts, complete, published, read_json, replacing, restore, write_json
from emobench.runner.choice import EXPLANATION, READ_EARLIER, RECOGNITION, C, Choice, choice, groups, is_candidate
from emobench.runner.lease import FILE, FilePlace, Lease, lease
from emobench.runner.record import Card, Count, PlainName, Record, Text, finished, misfit, read_record
from emobench.runner.record import State as Ended
from emobench.suite import plugins
from emobench.suite.declared import Declared
from emobench.suite.file import Suite, is_file, packaged, stem
from emobench.suite.keys import is_current as made_by_todays_code
from emobench.suite.overrides import board_name, parsed

if TYPE_CHECKING:
    import pandas as pd

JUDGES_BYTES = 4 * 2**20  # of the weights of panel, reader and guides that a board commits
WEBP: dict[str, Any] = {"lossless": True, "quality": 80, "method": 4}  # Pillow's; 80: effort, of which more gains 2 %
_FEW = 256  # distinct values of a column up to which a dictionary of them is shorter
HISTORY = "history"  # kind of the raw file that says how the fit went; no number follows from it
PLACES = "files.json"  # beside the fit of an outside model: where its files lie on this machine
JUDGE = "judge.safetensors"  # beside a fit: its weights in float16, as evaluations of generators load them

State = Ended | Literal["pending", "skipped", "not chosen"]
Reading = Callable[[Path], Record]  # `read_record`, or what remembers the records that it has read
HELD = 75  # exit code (EX_TEMPFAIL) of a cell's process where another sweep holds the cell
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems without them, such as some of Lustre
FINISHED = ("done", "diverged")  # running such a cell again would give the same


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a table with one row a face; `pandas.read_parquet` gives every value back as it is.

    The bytes of floats are stored byte by byte of all faces, so that signs and exponents, which are much alike, stand
    together and compress; numbers and names that count up are stored as differences.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    encodings: dict[str, str] = {}
    few: list[str] = []
    for column in table.schema:
        if pa.types.is_floating(column.type):
            encodings[column.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(column.type) or _text(column.type):
            if frame[column.name].nunique() <= _FEW:
                few.append(column.name)
            else:
                encodings[column.name] = "DELTA_BYTE_ARRAY" if _text(column.type) else "DELTA_BINARY_PACKED"
    with replacing(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=few,
            column_encoding=encodings,
            write_statistics=False,
            store_schema=False,
        )


def _text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def intact(weights: Path) -> bool:
    """Whether a safetensors file is there, and as long as its own header says."""
    try:
        size = weights.stat().st_size
        with open(weights, "rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8 if start <= size else 0))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return bool(size == start + max(ends, default=0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def is_current(judge: Path, weights: Path) -> bool:
    """Whether the form of a network that judges is whole, and no older than the weights that it comes of, if these are
    here."""
    return intact(judge) and not (intact(weights) and weights.stat().st_mtime_ns > judge.stat().st_mtime_ns)


def _lies_there(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one of its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _ended_badly(path: Path, read: Reading) -> bool:
    """Whether a whole record lies there whose state is not `done`."""
    try:
        return read(path).state != "done"
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
            probe.write_bytes(b"")
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

    def remember(self, fit_key: str, files: Mapping[str, Any]) -> None:
        """Note where the files of an outside model lie on this machine."""
        folder = self.fit_folder(fit_key)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLACES, {"schema_version": SCHEMA_VERSION, "files": dict(files)})

    def files_of(self, fit_key: str) -> dict[str, Any]:
        """Where the files of an outside model lay when it was last run here; empty: of any other model."""
        try:
            found = read_json(self.fit_folder(fit_key) / PLACES)["files"]
            return dict(found)
        except (FileNotFoundError, StoreError, KeyError, TypeError, ValueError):
            return {}

    def keep_failure(self, record: Record) -> str:
        """Write the state of a fit or evaluation that did not end well; what was finished before stays finished.

        Returns:
            Its reason, and what kept it from being written: the disk is full, or the folder is read-only.
        """
        path = self._under_way(record.fit_key, record.eval_key)
        seen = published(path.parent)
        try:
            if not finished(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                record.write(path)
                restore(path.parent, seen)  # another process may have finished the cell in this moment
        except OSError as error:
            return f"{record.reason}; the state could not be written ({error})"
        return str(record.reason)

    def elsewhere(self, fit_key: str) -> Path:
        """Where a further process of a fit says why it failed: the first one sees only that it is gone."""
        return self.fit_folder(fit_key) / "failed-elsewhere.txt"

    def failed_elsewhere(self, fit_key: str) -> str | None:
        """Why a further process of a fit failed; None: none did."""
        try:
            return f"{self.elsewhere(fit_key).read_text(encoding='utf-8')} (in another process of the fit)"
        except (OSError, UnicodeDecodeError):
            return None

    def failure(self, fit_key: str, eval_key: str) -> tuple[Record, int] | None:
        """What is written of a fit or evaluation that did not end well, and when it was, in ns; None: nothing that can
        be read."""
        path = self._under_way(fit_key, eval_key)
        try:
            return read_record(path), path.stat().st_mtime_ns
        except (OSError, StoreError):
            return None

    def _under_way(self, fit_key: str, eval_key: str) -> Path:
        """The record of a fit, or where that is finished of its evaluation."""
        path = self.fit_folder(fit_key) / "fit.json"
        return self.eval_folder(fit_key, eval_key) / "result.json" if finished(path) else path

    def tidy(self, fit_key: str, eval_key: str) -> None:
        """Of a cell that this process holds: finish what a killed one had begun to put into place, and delete what
        others left half."""
        folder = self.fit_folder(fit_key)
        for target in (folder, folder / eval_key):
            complete(target)
            for left in attempts(target):
                shutil.rmtree(left, ignore_errors=True)
        for place, _, names in os.walk(folder):  # no `rglob`, for which every cell would compile a pattern
            for name in names:
                if name.endswith(".tmp"):
                    Path(place, name).unlink(missing_ok=True)

    @contextmanager
    def lock(self, fit_key: str) -> Iterator[Lease | None]:
        """Hold the cell for this process; yields None where another process holds it.

        On this machine that is known at once, and the lock goes with its process, however that ends. One of another
        machine that shares the folder is watched for some seconds (see `emobench.runner.lease`).
        """
        path = self.fit_folder(fit_key) / ".lock"
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                locked = True
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield None
                    return
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise
                    locked = False  # the lease is enough, and is watched for longer
                if _lies_there(file, path):  # else the cell was deleted meanwhile
                    with lease(FilePlace(path.parent / FILE), locked=locked) as mine:
                        yield mine
                    return


@dataclass(frozen=True)
class StoredCell:
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
    record: Record | None  # of the evaluation, or of the fit where that did not end well
    folder: Path | None  # where the record's raw files lie
    share: float | None = None  # of its recipe; of one that trains nothing, the least of the networks that it needs
    setting_of: str = ""  # the row of the suite whose settings are swept, where it is one of them
    part: int | None = None  # of a cross-validation: which one its fit is without; another cell pools their answers
    trainer: str = ""  # the suite's name of the trainer that it was fitted with, where it has several
    declared: Declared = field(default_factory=Declared)  # what the suite claims of its row

    @functools.cached_property
    def stale(self) -> str | None:
        """The commit that made it, where today's code would key it differently: asked for, all code is read."""
        record = self.record
        if record is None or made_by_todays_code(record.made_of.fit, record.made_of.eval):
            return None
        return "unknown" if record.versions is None else record.versions.named


_WRITE_AGAIN = "Run the suite again: `emobench bench` writes this file anew, and what is done stays done."


class _OriginFields(BaseModel):
    """`Origin` as `suite.json` holds it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    file: Text
    overrides: list[str] = []
    plugins: list[Text] = []
    budget: Text | None = None
    scale: float | None = None
    real_faces: bool = False


@dataclass(frozen=True)
class Origin:
    """The suite and the overrides that a board is of.

    Attributes:
        file: as the command takes it: the name of a suite of the package, or a path; that is relative to the folder
            that holds the results where the file lies below it, so that a moved checkout or a clone still finds it.
        overrides: as `--set` takes them, in one order.
        plugins: files of the user's own that it names, relative in the same way.
        budget: of time, as `--budget` takes it; None: its own recipes.
        scale: of faces and epochs, as `--scale` takes it; None: the whole.
        real_faces: whether its page may show pictures of real people.
    """

    file: str
    overrides: list[str]
    plugins: list[str] = field(default_factory=list)
    budget: str | None = None
    real_faces: bool = False
    scale: float | None = None

    @classmethod
    def of(cls, suite: Suite, results: Path) -> Origin:
        """Of a suite that is run now."""
        home = results.resolve().parent

        def placed(name: str) -> str:
            inside = is_file(name) and Path(name).is_relative_to(home)
            return Path(name).relative_to(home).as_posix() if inside else name

        named = [placed(each) for each in suite.plugins]
        return cls(placed(suite.file), list(suite.overrides), named, suite.budget, suite.real_faces, suite.scale)

    @classmethod
    def recorded(cls, results: Path, board: str) -> Origin:
        """Of a board that was run.

        One that an older emobench wrote does not say: it is of a suite of the package, or `benchmarks/<board>.toml`.

        Raises:
            FileNotFoundError, StoreError: there is no such board, or its `suite.json` is not whole.
        """
        path = results / board / "suite.json"
        default = board if board in packaged() else f"benchmarks/{board}.toml"
        try:
            return cls(**_OriginFields.model_validate({"file": default, **read_json(path)}).model_dump())
        except ValidationError as error:
            raise StoreError(f"{path}: {misfit(error)}. {_WRITE_AGAIN}") from None

    def path(self, results: Path) -> Path | None:
        """Where the suite's file lies; None for a suite of the package."""
        return results.resolve().parent / self.file if is_file(self.file) else None

    def use_plugins(self, results: Path) -> None:
        """Import the files of the user's own that the suite names, if the user did: a board may be a stranger's.

        Raises:
            SuiteError: one is missing, or cannot be imported.
            StoreError: one is not trusted.
        """
        paths = [results.resolve().parent / each for each in self.plugins]
        for path in paths:
            with suppress(FileNotFoundError):  # which `use` says
                plugins.check_trusted(path)
        plugins.use(dict.fromkeys(map(str, paths)))

    def command(self, board: str) -> str:
        """The command that runs it again, from the folder that holds the results; quoted for a shell."""
        words = ["emobench", "bench", self.file, *(word for each in self.overrides for word in ("--set", each))]
        name = board_name(stem(self.file), parsed(self.overrides))
        if self.scale is not None:
            words += ["--scale", f"{self.scale:g}"]
            name = f"{name}+scale={self.scale:g}"
        if self.budget is not None:
            words += ["--budget", self.budget]
            name = f"{name}+budget={self.budget}"
        if board != name:
            words += ["--name", board]
        return shlex.join(words)


def check_owner(results: Path, suite: Suite) -> None:
    """A board belongs to one suite file and its overrides, and another one never overwrites it.

    Raises:
        StoreError: the board of this name is another suite's.
    """
    mine = Origin.of(suite, results)
    try:
        theirs = Origin.recorded(results, suite.name)
    except (FileNotFoundError, NotADirectoryError, StoreError):
        return
    here, there = mine.path(results), theirs.path(results)
    moved = here is not None and there is not None and not there.exists()  # or the checkout that held it
    same = here.resolve() == there.resolve() if here and there else mine.file == theirs.file
    if (same or moved) and (mine.overrides, mine.budget, mine.scale) == (theirs.overrides, theirs.budget, theirs.scale):
        return
    raise StoreError(
        f"{results / suite.name} is the board of `{theirs.command(suite.name)}`, and not of this suite. Give this one "
        f"a name of its own, such as --name {shlex.quote(f'{suite.name}-2')}"
    )


def committed_cells(results: Path, board: str, eval_key: str = "*") -> list[Path]:
    """The folders of evaluations that are committed with a board, or with the one that it is an overridden form of."""
    boards = dict.fromkeys([board, board.partition("+")[0]])
    return [folder for each in boards for folder in sorted((results / each / "cells").glob(eval_key))]


def find(
    results: Path, suite: str, fit_key: str, eval_key: str, read: Reading = read_record
) -> tuple[State, str | None, Record | None, Path]:
    """State, reason, record and folder of one cell: the own store first, then what is committed with the board.

    A fit that did not end well is the state of its cell, whatever was measured before it was lost.
    """
    store = Store(results)
    places = (store.eval_folder(fit_key, eval_key), *committed_cells(results, suite, eval_key))
    for folder in () if _ended_badly(store.fit_folder(fit_key) / "fit.json", read) else places:
        try:
            record = _read(folder / "result.json", fit_key, eval_key, read)
        except FileNotFoundError:
            continue
        except StoreError as error:
            return "failed", f"corrupt result: {error}", None, folder
        return record.state, record.reason, record, folder
    folder = store.fit_folder(fit_key)
    fits = [folder / "fit.json", *(each / "fit.json" for each in committed_cells(results, suite, eval_key))]
    try:
        record = _read(next((path for path in fits if path.exists()), fits[0]), fit_key, read=read)
    except FileNotFoundError:
        return "pending", None, None, folder
    except StoreError as error:
        return "failed", f"corrupt result: {error}", None, folder
    if record.state == "done":
        return "pending", "trained, not yet evaluated", record, folder
    return record.state, record.reason, record, folder


def _read(path: Path, fit_key: str, eval_key: str | None = None, read: Reading = read_record) -> Record:
    """The record of a fit, or of its evaluation `eval_key`.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it cannot be read, or is that of another cell.
    """
    record = read(path)
    if record.fit_key != fit_key or eval_key not in (None, record.eval_key):
        raise StoreError(f"{path}: the record of another cell, {record.fit_key}/{record.eval_key}. Delete it")
    if eval_key is not None and record.state == "done" and record.evaluation is None:
        raise StoreError(f"{path}: evaluation: is done, but nothing says what was measured. Delete it")
    return record


def load_board(results: Path, suite: str) -> list[StoredCell]:
    """The cells of a board in the suite's order.

    Raises:
        StoreError: the suite has never been run, or its `suite.json` is not whole.
    """
    return load_choices(results, suite)[0]


def load_choices(results: Path, suite: str, read: Reading = read_record) -> tuple[list[StoredCell], list[Choice]]:
    """The cells of a board in the suite's order, and the choices among settings that were made for them.

    Args:
        read: how records are read.

    Raises:
        StoreError: the suite has never been run, or its `suite.json` is not whole.
    """
    path = results / suite / "suite.json"
    try:
        board = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        boards = ", ".join(sorted(path.parent.name for path in results.glob("*/suite.json"))) or "none"
        raise StoreError(
            f"{path.parent}: no suite.json, so this suite was never run here. Run `emobench bench` with it first. "
            f"Boards that are here: {boards}"
        ) from None
    if not isinstance(board.get("rows"), list):
        raise StoreError(f"{path}: rows: is no list of cells. {_WRITE_AGAIN}")
    cells = [_stored(results, suite, place, entry, read) for place, entry in enumerate(board["rows"])]
    cells = _once(path, cells)
    shares = {cell.fit_key: share for cell in cells if (share := _trained(cell)) is not None}
    return _with_choices(results, suite, [replace(cell, share=_share(cell, shares)) for cell in cells], read)


def _trained(cell: StoredCell) -> float | None:
    """The share of its recipe that a cell was trained for; None: it trains nothing, or that is not known."""
    fit = None if cell.record is None else cell.record.fit
    return None if fit is None or fit.cost is None else fit.cost.recipe_share


def _share(cell: StoredCell, shares: Mapping[str, float]) -> float | None:
    """The share of a cell's recipe: an ensemble or a search has had as much as the least of what it is made of."""
    share = _trained(cell)
    if share is not None or cell.record is None:
        return share
    needed = [shares[key] for keys in cell.record.cell.needs.values() for key in keys if key in shares]
    return min(needed, default=None)


def fit_of(results: Path, board: str, fit_key: str, eval_key: str, read: Reading = read_record) -> Record | None:
    """The record of a fit, however that ended: of the own store, else what is committed with the board.

    Raises:
        StoreError: it is damaged, and no other record says how the fit ended.
    """
    own = Store(results).fit_folder(fit_key)
    committed = committed_cells(results, board, eval_key)
    places = [own / "fit.json", own / eval_key / "result.json"]
    places += [folder / name for folder in committed for name in ("fit.json", "result.json")]
    damage: StoreError | None = None
    for path in places:
        try:
            record = _read(path, fit_key, read=read)
        except FileNotFoundError:
            continue
        except StoreError as error:
            damage = damage or error
            continue
        if record.fit is not None or path == places[0]:
            return record
    if damage is not None:
        raise damage
    return None


def choice_of(results: Path, board: str, group: Sequence[C], read: Reading = read_record) -> Choice:
    """Which of the settings of a group of cells, of a plan or of a board, reads the test split."""
    return choice(group, lambda cell: fit_of(results, board, cell.fit_key, cell.eval_key, read))


def _with_choices(
    results: Path, board: str, cells: list[StoredCell], read: Reading
) -> tuple[list[StoredCell], list[Choice]]:
    """A board's cells, of each sweep of a classifier's settings only the chosen one with what was measured; and the
    choices."""
    changed: dict[int, StoredCell] = {}
    choices: list[Choice] = []
    for group in groups(cells):
        found = choice_of(results, board, group, read)
        choices += [found] if group[0].track == RECOGNITION else []  # the other track's is the same
        for cell in group:
            if cell.row == found.chosen or not found.scored(cell):
                continue
            reason = found.reason(cell) + (READ_EARLIER if cell.state == "done" else "")
            changed[id(cell)] = replace(cell, state="pending" if found.pending else "not chosen", reason=reason)
    return [changed.get(id(cell), cell) for cell in cells], choices


def _once(path: Path, cells: Sequence[StoredCell]) -> list[StoredCell]:
    """The cells; one that stands before too has failed, since the same network does not count twice."""
    first: dict[Hashable, int] = {}
    found: list[StoredCell] = []
    for place, cell in enumerate(cells):
        same = (cell.row, cell.dataset, cell.size, cell.seed, cell.control, cell.part, cell.track == EXPLANATION)
        before = first.setdefault(same, place)
        if before < place and cell.state not in ("skipped", "failed"):
            why = f"corrupt result: {path}: rows.{place}: the same cell as rows.{before}. {_WRITE_AGAIN}"
            cell = replace(cell, state="failed", reason=why, record=None, folder=None)
        found.append(cell)
    return found


class _Row(BaseModel):
    """A row of `suite.json`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    row: Text
    model: Text
    variant: str
    dataset: Text
    size: Count
    seed: Count
    track: str
    control: Text | None
    fit_key: str
    eval_key: str
    skipped: str | None = None
    setting_of: str = ""
    part: int | None = None
    trainer: str = ""
    declared: Declared = Declared()


class _Keys(BaseModel):
    """Those of a row that is not skipped: they name folders."""

    fit_key: PlainName
    eval_key: PlainName


def _stored(results: Path, suite: str, place: int, entry: Any, read: Reading) -> StoredCell:
    """A row of `suite.json` with what the store knows about it; one that does not fit has failed."""
    try:
        row = _Row.model_validate(entry)
        if row.skipped is None:
            _Keys(fit_key=row.fit_key, eval_key=row.eval_key)
    except ValidationError as error:
        why = f"corrupt result: {results / suite / 'suite.json'}: rows.{place}.{misfit(error)}. {_WRITE_AGAIN}"
        nothing: dict[str, Any] = {"state": "failed", "reason": why, "record": None, "folder": None}
        return StoredCell(**_as_far_as_known(place, entry), **nothing)
    known = {**row.model_dump(exclude={"skipped", "declared"}), "declared": row.declared}
    if row.skipped is not None:
        return StoredCell(**known, state="skipped", reason=row.skipped, record=None, folder=None)
    state, reason, record, folder = find(results, suite, row.fit_key, row.eval_key, read)
    if record is not None and (other := _differs(row, record)) is not None:
        state, record = "failed", None
        reason = f"corrupt result: {results / suite / 'suite.json'}: rows.{place}.{other}. {_WRITE_AGAIN}"
    return StoredCell(**known, state=state, reason=reason, record=record, folder=folder)


def _differs(row: _Row, record: Record) -> str | None:
    """Where a row says something else than its record; what rows and datasets are called is each suite's own."""
    for name in ("size", "seed", "control", "track"):
        said, found = getattr(row, name), getattr(record.cell, name)
        if said != found:
            return f"{name}: {said!r}, but its record says {found!r}"
    return None


def _as_far_as_known(place: int, entry: Any) -> dict[str, Any]:
    """The fields of a row of `suite.json` that does not fit, with what can be shown in the place of wrong ones."""
    given = entry if isinstance(entry, dict) else {}
    name = f"row {place}"
    stand_in = {"row": name, "model": name, "variant": "", "dataset": "unknown", "size": 0, "seed": 0, "track": ""}

    def shown(field: str, otherwise: Any) -> Any:
        value = given.get(field)
        fits = type(value) is type(otherwise) and value != "" and not (isinstance(value, int) and value < 0)
        return value if fits else otherwise

    known = {field: shown(field, otherwise) for field, otherwise in stand_in.items()}
    return {**known, "control": None, "fit_key": "", "eval_key": ""}


def adopt(store: Store, record: Record, judge: Path) -> None:
    """Put a committed judge into the store: its fit, as its evaluation's record has it, and the weights that judge.

    Raises:
        StoreError: the file is not what its name says, such as a pointer of Git LFS or half a download.
    """
    folder = store.fit_folder(record.fit_key)
    if finished(folder / "fit.json"):
        fit = read_record(folder / "fit.json").fit
        known = None if fit is None or fit.weights is None else fit.weights.judge
        lost = not intact(folder / JUDGE) and not intact(store.weights(record.fit_key))
        if lost and known == sha256_of(judge):
            with replacing(folder / JUDGE) as temporary:
                shutil.copyfile(judge, temporary)
        return
    if judge.name != JUDGE and (found := sha256_of(judge)) != judge.stem:
        raise StoreError(f"{judge}: holds other bytes (sha256 {found[:12]}…) than its name says. Check it out again.")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / JUDGE) as temporary:
        shutil.copyfile(judge, temporary)
    made = {"versions": record.fit.versions, "hardware": record.fit.hardware} if record.fit is not None else {}
    record.model_copy(update={"evaluation": None, **made}).write(folder / "fit.json")


def judge_file(results: Path, sha256: str) -> Path:
    """Where the weights of this content are committed, once for all boards."""
    return results / "judges" / f"{sha256}.safetensors"


def committed_judge(results: Path, folder: Path, sha256: str | None) -> Path | None:
    """The committed weights of a judge: under their sha256, or as earlier versions wrote them, in the cell's folder.

    Args:
        folder: where the judge's own evaluation is committed.
        sha256: as a generator's record has it; None: no record names this network.
    """
    if sha256 is not None and (path := judge_file(results, sha256)).exists():
        return path
    path = folder / JUDGE
    return path if path.exists() else None


def commit_judges(results: Path, records: Sequence[Record]) -> None:
    """Copy the weights of a board's judges and readers, then of its guides, to where a later clone finds them.

    Small networks only, so that a clone is quick: together at most `JUDGES_BYTES`. A panel and its reader are
    committed as a whole or not at all, since one of them without the others judges nothing.

    Args:
        records: of the board's generators.
    """
    kept: set[str] = set()
    total = 0
    judged = [record.evaluation for record in records if record.evaluation is not None and record.evaluation.reader]
    panels = [[*of.panel, of.reader] for of in judged if of.reader is not None]
    for group in [*panels, *([guide] for of in judged for guide in of.guides)]:
        trained = [card for card in group if not card.outside]  # the files of others are not ours to pass on
        files = {card.sha256: _weights(results, card) for card in trained if card.sha256 not in kept}
        found = {sha256: path for sha256, path in files.items() if path is not None}
        size = sum(path.stat().st_size for path in found.values())
        if len(found) < len(files) or total + size > JUDGES_BYTES:
            continue
        kept.update(found)
        total += size
        for sha256, path in found.items():
            target = judge_file(results, sha256)
            if path != target:
                target.parent.mkdir(exist_ok=True)
                with replacing(target) as temporary:
                    shutil.copyfile(path, temporary)


def _weights(results: Path, card: Card) -> Path | None:
    """The file with the very weights of a card: the committed one, or else the store's."""
    target = judge_file(results, card.sha256)
    if target.exists():
        return target
    source = Store(results).fit_folder(card.fit_key) / JUDGE
    return source if source.exists() and sha256_of(source) == card.sha256 else None


def commit_cell(results: Path, suite: str, cell: StoredCell) -> Path | None:
    """Copy what a committed board needs of a finished cell beside the board; returns the copy's folder, or None."""
    if cell.state != "done" or cell.record is None or cell.record.evaluation is None or cell.folder is None:
        return None
    target = results / suite / "cells" / cell.eval_key
    if cell.folder == target:
        return target
    target.mkdir(parents=True, exist_ok=True)
    raw = [name for name in cell.record.evaluation.raw.values() if _is_there(cell.folder, name)]
    for name in (*raw, "result.json"):  # the record last: with it the copy is whole
        source = cell.folder / name
        if not (target / name).exists() or (target / name).stat().st_mtime < source.stat().st_mtime:
            with replacing(target / name) as temporary:
                shutil.copyfile(source, temporary)
    return target


def _is_there(folder: Path, name: str) -> bool:
    """Whether a raw file can be copied; the history of a usable cell may be gone, which costs its curves alone."""
    try:
        check_raw(folder, [name])
    except RawError:
        return False
    return True


def commit_fit(results: Path, suite: str, cell: StoredCell) -> None:
    """Copy the record of a setting's fit beside the board, so that a clone chooses among the same."""
    if not (is_candidate(cell) and cell.state in ("done", "not chosen")):
        return
    source = Store(results).fit_folder(cell.fit_key) / "fit.json"
    target = results / suite / "cells" / cell.eval_key / "fit.json"
    if not finished(source):
        return
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def check_raw(folder: Path, names: Iterable[str]) -> None:
    """The raw files of a finished cell are there: regular files of its own folder.

    Raises:
        RawError: one is missing, or is a folder, a device or a link that leads elsewhere.
    """
    for name in names:
        path = folder / name
        if not os.path.lexists(path):
            raise RawError(path, "missing")
        if not path.is_file() or path.resolve().parent != folder.resolve():
            raise RawError(path, "no regular file of this folder")
