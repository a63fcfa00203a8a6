"""What a sweep shows: one live table on a terminal, plain lines elsewhere, and the dry run's list."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from emobench.errors import printable_name
from emobench.files import heard_or_not, say
from emobench.runner.store import Store
from emobench.runner.sweep import Sweep, alike, like_seconds
from emobench.suite.cell import Cell, Plan
from emobench.suite.file import Suite

_LONG = 3600  # seconds
_STYLES = {"done": "green", "failed": "red", "diverged": "red", "interrupted": "yellow", "running": "bold cyan"}


class Display:
    """Shows a sweep while it runs; use as a context manager."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console, self.plan = console, plan
        self.live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self.said: dict[int, str] = {}
        self.again = 0  # how many of the sweep's reasons to run a cell again were shown

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            with heard_or_not():
                self.live.__exit__(kind, error, trace)

    def update(self, sweep: Sweep) -> None:
        """Show the sweep as it stands now."""
        show_again(sweep.again[self.again :])
        self.again = len(sweep.again)
        if self.live is not None:
            with heard_or_not():
                self.live.update(self._table(sweep))
            return
        for number, cell in enumerate(sweep.cells, 1):
            state, reason = _state(sweep, cell)
            if state != self.said.get(id(cell), "pending"):
                self.said[id(cell)] = state
                seconds = None if state == "running" else sweep.took(cell)
                took = f" in {_duration(seconds)}" if seconds is not None else ""
                label = printable_name(cell.label)
                say(f"[{number}/{len(sweep.cells)}] {label}: {state}{took}{': ' + reason if reason else ''}")

    def _table(self, sweep: Sweep) -> Table:
        table = Table("cell", "state", "epoch", "val macro F1", "time", title=f"emobench bench {self.plan.suite}")
        for cell in sweep.cells:
            state, reason = _state(sweep, cell)
            epoch, score, spent = "", "", ""
            running = next((each for each in sweep.running if each.cell is cell), None)
            if running is not None:
                epoch, score, spent = _progress(sweep.store, cell, running.started)
            elif (seconds := sweep.took(cell)) is not None:
                spent = _duration(seconds)
            style = _STYLES.get(state, "dim")
            shown = f"[{style}]{state}[/]" + (f" {escape(printable_name(reason[:60]))}" if reason else "")
            table.add_row(escape(printable_name(cell.label)), shown, epoch, score, spent)
        return table


def _state(sweep: Sweep, cell: Cell) -> tuple[str, str | None]:
    return ("running", None) if any(each.cell is cell for each in sweep.running) else sweep.state(cell)


def _progress(store: Store, cell: Cell, started: float) -> tuple[str, str, str]:
    """Epoch, validation score and time, spent and to come, of a running cell."""
    spent = time.monotonic() - started
    try:
        progress: dict[str, Any] = json.loads((store.fit_folder(cell.fit_key) / "progress.json").read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return "", "", _duration(spent)
    score = progress["val_macro_f1"]
    epochs = progress["epochs"] if progress["epochs"] and progress["epochs"] > 0 else "?"
    left = f" (about {_duration(spent / progress['done'] - spent)} left)" if progress["done"] > 0.02 else ""
    return f"{progress['epoch']}/{epochs}", "" if score is None else f"{score:.3f}", _duration(spent) + left


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(max(0, seconds))))


def show_overrides(suite: Suite) -> None:
    """What is overridden, and so where the board lies."""
    if suite.overrides:
        say(f"with {', '.join(suite.overrides)}: the board is {suite.name}")


def show_plan(plan: Plan, cells: list[Cell], results: Path) -> None:
    """What a suite would do: cells, time where a like one was measured, disk, downloads, what is skipped."""
    measured = like_seconds(Store(results))
    seconds = {id(cell): measured.get(alike(cell.fit)) if cell.trains else 0.0 for cell in plan.cells}
    todo = {id(cell) for cell in cells}
    expected = list({cell.fit_key: seconds[id(cell)] for cell in cells if cell.trains}.values())  # a fit counts once
    if sum(filter(None, expected)) > _LONG:
        print(f"This takes more than an hour: {_expected(expected)}")
    print(f"{plan.suite}: {len(plan.cells)} cells, {len(cells)} to run, {len(plan.cells) - len(cells)} done")
    for cell in plan.cells:
        state = "to run" if id(cell) in todo else "done"
        took = seconds[id(cell)]
        shown = "time unknown" if took is None else _duration(took)
        print(f"  {cell.fit_key}  {state:6}  {shown:>12}  {printable_name(cell.label)}")
    print(f"Time: {_expected(expected)}")
    kept, running = sum(4 * cell.parameters for cell in cells), max((cell.disk_bytes for cell in cells), default=0)
    print(f"Disk: about {kept / 2**20:.0f} MiB of weights, and {running / 2**20:.0f} MiB while the largest cell runs")
    print("Downloads: " + ("; ".join(plan.downloads) or "none"))
    show_notes(plan)


def _expected(seconds: list[float | None]) -> str:
    """How long fits will take, as far as like ones were measured in this store; None: it was not."""
    known = [each for each in seconds if each is not None]
    unknown = len(seconds) - len(known)
    if unknown == 0:
        return f"about {_duration(sum(known))} of training" if known else "nothing to train"
    fits = f"{unknown} fit{'s' if unknown > 1 else ''}"
    if not known:
        return f"unknown: none like the {fits} was measured here before"
    return f"about {_duration(sum(known))} of training for {len(known)} of {len(seconds)} fits; {fits} of unknown time"


def show_again(reasons: Iterable[str]) -> None:
    """Why cells that were finished run again."""
    for reason in reasons:
        say(f"again: {reason}")


def show_notes(plan: Plan) -> None:
    """What the datasets' loaders say, and what is skipped and how to get it."""
    for name, notes in plan.data_notes.items():
        for note in notes:
            say(f"{printable_name(name)}: {note}")
    rows: dict[tuple[str, str], list[str]] = {}
    for skipped in plan.skipped:
        rows.setdefault((skipped.dataset, skipped.reason), []).append(skipped.row)
    for (dataset, reason), names in rows.items():
        say(f"skipped on {dataset}: {', '.join(names)}: {reason}")
