"""`emobench history`: how did this fit go?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emobench.errors import RawError, StoreError, unknown
from emobench.report.history import History, of_fit, read_history, why_none
from emobench.report.markdown import one_line
from emobench.runner.record import Record, read_record
from emobench.runner.store import HISTORY, Store, StoredCell, check_raw, load_board

_LINES = 20  # of the table: a longer fit is shown at so many of its epochs
_BAR = 18  # characters of the longest bar
_WIDEST = 16  # characters of a heading, so that all stands in 80 columns


@dataclass(frozen=True)
class _Found:
    """A cell's history.

    Attributes:
        best: the epoch whose weights were kept; None: the last, or not known yet.
    """

    label: str
    history: History
    best: int | None


def history(run: str, results: Path, *, csv: bool) -> None:
    """Print the history of a cell's fit: a table with a bar an epoch, or the file itself.

    Args:
        run: `best:<board>/<dataset>`, `<board>/<dataset>/<row>`, or the beginning of a cell's key.

    Raises:
        StoreError: there is no such cell, or it has no history; says why.
    """
    found = _of_row(results, run) if "/" in run else _of_key(Store(results), run)
    if csv:
        print(found.history.text, end="" if found.history.text.endswith("\n") else "\n")
        return
    console = Console(highlight=False)
    console.width = max(console.width, 80)  # a narrow terminal breaks lines; a number is never cut
    console.print(Text(one_line(found.label)))
    shown = _columns(found.history)
    barred = next((name for name in (*found.history.scores, "val_loss", "train_loss", "lr") if name in shown), "lr")
    console.print(_table(found, shown, barred))
    for note in _notes(found, shown, barred):
        console.print(Text(note))


def _columns(history: History) -> list[str]:
    """What stands in the table: the losses, the first validation score, accuracy, the learning rate."""
    scores = [name for place, name in enumerate(history.scores) if place == 0 or name == "val_accuracy"]
    wanted = ["train_loss", "val_loss", *scores, "lr"]
    return [name for name in wanted if name in history.columns]


def _table(found: _Found, shown: Sequence[str], barred: str) -> Table:
    """At most `_LINES` epochs, the first, the last and the best among them; the bars are of one column."""
    columns = found.history.columns
    low, high = _range(columns[barred])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("epoch", justify="right", no_wrap=True)
    for name in shown:
        heading = name.removeprefix("val_") if name in found.history.scores else name
        table.add_column(Text(heading[:_WIDEST]), justify="right", no_wrap=True, overflow="crop")
    table.add_column("", no_wrap=True, min_width=_BAR)
    for place in _chosen(len(found.history.epochs), found.best):
        value = columns[barred][place]
        share = 1.0 if high == low else (value - low) / (high - low)
        bar = "" if math.isnan(value) else "#" * (1 + round(share * (_BAR - 1)))
        mark = "*" if place == found.best else ""
        numbers = [_number(columns[name][place]) for name in shown]
        table.add_row(f"{mark}{place + 1}", *numbers, bar)
    return table


def _chosen(epochs: int, best: int | None) -> list[int]:
    if epochs <= _LINES:
        return list(range(epochs))
    spread = {round(k * (epochs - 1) / (_LINES - 2)) for k in range(_LINES - 1)}
    return sorted(spread | ({best} if best is not None and best < epochs else set()))


def _range(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    return min(known, default=0.0), max(known, default=0.0)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _notes(found: _Found, shown: Sequence[str], barred: str) -> list[str]:
    low, high = _range(found.history.columns[barred])
    notes = [f"bars: {barred}, from {_number(low)} to {_number(high)}"]
    if found.best is not None:
        notes.append("*: the epoch whose weights were kept")
    if len(found.history.epochs) > _LINES:
        notes.append(f"some of {len(found.history.epochs)} epochs; --csv prints all")
    others = [name for name in found.history.columns if name not in ("epoch", "step", *shown)]
    return [*notes, *([f"also logged, see --csv: {', '.join(others)}"] if others else [])]


def _of_row(results: Path, run: str) -> _Found:
    """Of the first seed of a board's row that has a history."""
    if run.startswith("best:"):
        from emobench.commands.runs import best_by_validation

        board, _, dataset = run.removeprefix("best:").partition("/")
        cells = [best_by_validation(results, board, dataset)[0]]
    else:
        board, _, wanted = run.partition("/")
        known = load_board(results, board)
        cells = [cell for cell in known if f"{cell.dataset}/{cell.row}" == wanted and cell.state != "skipped"]
        if not cells:
            raise StoreError(unknown("row", run, {f"{board}/{each.dataset}/{each.row}" for each in known}))
    reasons: list[str] = []
    for cell in cells:
        try:
            return _of_cell(results, cell)
        except StoreError as error:
            reasons.append(str(error))
    raise StoreError(f"{run} has no history: {'; '.join(dict.fromkeys(reasons))}")


def _of_cell(results: Path, cell: StoredCell) -> _Found:
    """The history of the cell's fit in the store, or the one that is committed with the board.

    Raises:
        StoreError: there is none; says why.
    """
    label = f"{cell.row} on {cell.dataset}, seed {cell.seed}"
    folder = Store(results).fit_folder(cell.fit_key)
    if (folder / "history.csv").exists():
        return _read(label, folder, "history.csv", cell.record)
    evaluation = None if cell.record is None else cell.record.evaluation
    if cell.folder is None or evaluation is None:
        raise StoreError(cell.reason or f"{cell.state}: no epoch is finished")
    if HISTORY not in evaluation.raw:
        raise StoreError(why_none(cell.record))
    return _read(label, cell.folder, evaluation.raw[HISTORY], cell.record)


def _of_key(store: Store, run: str) -> _Found:
    """Of the cell in the store whose key begins so."""
    folders = [path for path in store.cells.glob(f"{run}*") if path.is_dir() and path.name not in ("plans", "sweeps")]
    if not run.isalnum() or len(folders) != 1:
        found = f"{len(folders)} cells begin with '{run}'" if run.isalnum() and folders else f"no cell '{run}'"
        raise StoreError(
            f"{found} in {store.cells}. Name one as <board>/<dataset>/<row>, best:<board>/<dataset>, or by its key"
        )
    folder = folders[0]
    try:
        record = read_record(folder / "fit.json")
    except FileNotFoundError:  # under way, or killed
        record = None
    if not (folder / "history.csv").exists():
        raise StoreError(f"{run} has no history: {'no epoch is finished' if record is None else why_none(record)}")
    label = folder.name if record is None else f"{record.cell.row} on {record.cell.dataset}, seed {record.cell.seed}"
    return _read(label, folder, "history.csv", record)


def _read(label: str, folder: Path, name: str, record: Record | None) -> _Found:
    """Read a history that lies there.

    Raises:
        StoreError: it is no history, or not of the fit of this record.
    """
    try:
        check_raw(folder, [name])
        found = read_history(folder / name)
    except (RawError, FileNotFoundError) as error:
        raise StoreError(f"{folder / name}: {getattr(error, 'found', 'missing')}") from None
    fit = None if record is None or record.state != "done" else record.fit
    if fit is None or record is None:
        return _Found(f"{label} ({'under way' if record is None else record.state})", found, None)
    best = None if fit.validation is None else fit.validation.epoch
    return _Found(label, of_fit(found, record, folder / name), best)
