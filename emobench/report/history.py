"""How a fit went, epoch by epoch: its `history.csv`, read as what anyone may have written or a disk damaged.

Imports no torch, and pandas neither: a history has a line an epoch.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emobench.errors import RawError, StoreError
from emobench.files import read_text
from emobench.runner.record import Record
from emobench.runner.store import HISTORY, StoredCell, check_raw

_LARGEST = 16 * 2**20  # bytes: some 100,000 epochs
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")  # of a column: nothing that a page or a terminal would run
_FIRST = ("epoch", "step", "lr")
_REMEDY = "Run the suite again with --on-existing redo, or delete the file: the row is then without curves."


@dataclass(frozen=True)
class History:
    """A line an epoch.

    Attributes:
        epochs: the number of each, from 0.
        columns: name -> its value after each epoch; NaN where it was not logged, or is not finite.
        text: the file.
    """

    epochs: Sequence[int]
    columns: Mapping[str, Sequence[float]]
    text: str

    @property
    def scores(self) -> list[str]:
        """What was measured on the validation split, its loss aside; of classifiers, macro F1 comes first."""
        found = [name for name in self.columns if name.startswith("val_") and name != "val_loss"]
        return sorted(found, key=lambda name: name != "val_macro_f1")


@dataclass(frozen=True)
class Run:
    """One seed of a row: its history, or why there is none.

    Attributes:
        path: of the file, from the board's folder; None: there is none.
        best: the epoch whose weights were kept; None: the last, or unknown.
    """

    seed: int
    history: History | None
    path: str | None
    reason: str | None
    best: int | None


def read_history(path: Path) -> History:
    """Read a `history.csv`.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is no whole history; says what stands where.
    """
    try:
        lines = list(csv.reader(io.StringIO(text := read_text(path, _LARGEST))))
    except csv.Error as error:
        raise StoreError(f"{path}: no CSV ({error}). {_REMEDY}") from None
    header = lines[0] if lines else []
    wrong = next((name for name in header if not _NAME.fullmatch(name)), None)
    if tuple(header[:3]) != _FIRST or len(set(header)) < len(header) or wrong is not None or len(lines) < 2:
        found = "no epoch" if header and len(lines) < 2 else f"begins with {', '.join(header)[:60]!r}"
        raise StoreError(f"{path}: {found}, and no line an epoch below {', '.join(_FIRST)}, … {_REMEDY}")
    rows = [[_number(path, place, cell) for cell in line] for place, line in enumerate(lines[1:], 2)]
    for place, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise StoreError(f"{path}: line {place} has {len(row)} cells, and not {len(header)}. {_REMEDY}")
        if row[0] != place - 2:
            raise StoreError(f"{path}: line {place} is epoch {row[0]:g}, and not {place - 2}. {_REMEDY}")
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    return History([int(epoch) for epoch in columns["epoch"]], columns, text)


def _number(path: Path, place: int, cell: str) -> float:
    try:
        value = float(cell) if cell else math.nan
    except ValueError:
        raise StoreError(f"{path}: line {place}: {cell[:40]!r} is no number. {_REMEDY}") from None
    return value if math.isfinite(value) else math.nan


def why_none(record: Record | None) -> str:
    """Why a finished cell names no history."""
    if record is not None and record.fit is not None and record.fit.cost is None:
        return "nothing is trained"
    return "measured before histories were kept with boards"


def runs(cells: Sequence[StoredCell]) -> list[Run]:
    """The histories of finished cells, as they lie beside the board."""
    return [_run(cell) for cell in cells]


def _run(cell: StoredCell) -> Run:
    record, folder = cell.record, cell.folder
    assert record is not None
    assert folder is not None
    name = None if record.evaluation is None else record.evaluation.raw.get(HISTORY)
    if name is None:
        return Run(cell.seed, None, None, why_none(record), None)
    try:
        check_raw(folder, [name])
        history = of_fit(read_history(folder / name), record, folder / name)
    except FileNotFoundError:
        return Run(cell.seed, None, None, f"{name} is missing", None)
    except RawError as error:
        return Run(cell.seed, None, None, f"{name}: {error.found}", None)
    except StoreError as error:
        return Run(cell.seed, None, None, str(error).replace(f"{folder}/", ""), None)
    best = None if record.fit is None or record.fit.validation is None else record.fit.validation.epoch
    return Run(cell.seed, history, f"cells/{cell.eval_key}/{name}", None, best)


def of_fit(history: History, record: Record, path: Path) -> History:
    """The history, which has as many epochs as the record of its fit says.

    Raises:
        StoreError: it has not, and so is that of another fit.
    """
    cost = None if record.fit is None else record.fit.cost
    if cost is not None and cost.epochs != len(history.epochs):
        raise StoreError(f"{path}: {len(history.epochs)} epochs, but the fit had {cost.epochs}. {_REMEDY}")
    return history
