"""What a sweep shows: one live table on a terminal, plain lines elsewhere, and the dry run's list."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from emobench.errors import printable_name
from emobench.files import heard_or_not, say
from emobench.recipe import Execution
from emobench.runner.duration import Durations, alike, elapsed
from emobench.runner.reuse import Reuse
from emobench.runner.store import Store
from emobench.runner.sweep import Sweep
from emobench.runner.threads import Packing
from emobench.suite.cell import Cell, Plan
from emobench.suite.file import Suite
from emobench.suite.scale import stands_in_for

if TYPE_CHECKING:
    from emobench.runner.calibrate import Seconds

_LONG = 3600  # seconds
_OFTEN = 0.25  # seconds after which a table is drawn again: it takes some milliseconds
_FEWEST = 10  # rows of a table, on however small a screen
_STYLES = {"done": "green", "failed": "red", "diverged": "red", "interrupted": "yellow", "running": "bold cyan"}


class Display:
    """Shows a sweep while it runs; use as a context manager."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console, self.plan = console, plan
        self.live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self.said: dict[int, str] = {}
        self.again = 0  # how many of the sweep's reasons to run a cell again were shown
        self.news = 0  # how many of its cells' changes
        self.drawn = -_OFTEN  # when the table was drawn last, s
        self.undrawn: Sweep | None = None  # what has changed since
        self.places: dict[int, int] = {}  # of the sweep's cells, by identity, from 1

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            with heard_or_not():
                if self.undrawn is not None:
                    self.live.update(self._table(self.undrawn))
                self.live.__exit__(kind, error, trace)

    def update(self, sweep: Sweep) -> None:
        """Show the sweep as it stands now."""
        show_again(sweep.again[self.again :])
        self.again = len(sweep.again)
        if self.live is not None:
            self.undrawn = sweep
            if time.monotonic() - self.drawn >= _OFTEN:
                with heard_or_not():
                    self.live.update(self._table(sweep))
                self.drawn, self.undrawn = time.monotonic(), None
            return
        if len(self.places) != len(sweep.cells):  # more cells joined
            self.places = {id(cell): place for place, cell in enumerate(sweep.cells, 1)}
        changed = [*sweep.news[self.news :], *(running.cell for running in sweep.running)]
        self.news = len(sweep.news)
        for cell in changed:
            state, reason = _state(sweep, cell)
            if state != self.said.get(id(cell), "pending"):
                self.said[id(cell)] = state
                seconds = None if state == "running" else sweep.took(cell)
                took = f" in {_duration(seconds)}" if seconds is not None else ""
                said = f"{printable_name(cell.label)}: {state}{took}{': ' + reason if reason else ''}"
                say(f"[{self.places[id(cell)]}/{len(sweep.cells)}] {said}")

    def _shown(self, sweep: Sweep) -> list[Cell]:
        """The cells that a screen has room for: all, or those that run, the last that ended and the next that wait."""
        room = max(_FEWEST, self.console.size.height - 6)
        if len(sweep.cells) <= room:
            return sweep.cells
        running = [each.cell for each in sweep.running][:room]
        found = {id(cell): cell for cell in running}
        for cell in sweep.news[: -1 - room : -1] if room > len(found) else ():
            if len(found) < (room + len(running)) // 2:
                found.setdefault(id(cell), cell)
        for cell in sweep.waiting[:room]:
            if len(found) < room:
                found.setdefault(id(cell), cell)
        return sorted(found.values(), key=sweep.order)

    def _table(self, sweep: Sweep) -> Table:
        several = any(each.where is not None for each in sweep.running)
        columns = ["cell", "state", *(["on"] if several else []), "epoch", "val macro F1", "time"]
        table = Table(*columns, title=f"emobench bench {self.plan.suite}")
        shown = self._shown(sweep)
        if len(shown) < len(sweep.cells):
            table.caption = f"{len(sweep.cells)} cells, of which {len(sweep.waiting)} wait"
        for cell in shown:
            state, reason = _state(sweep, cell)
            where, epoch, score, spent = "", "", "", ""
            running = next((each for each in sweep.running if each.cell is cell), None)
            if running is not None:
                epoch, score, spent = _progress(sweep.store, cell, running.since)
                where = printable_name(running.where or "")
            elif (seconds := sweep.took(cell)) is not None:
                spent = _duration(seconds)
            style = _STYLES.get(state, "dim")
            said = f"[{style}]{state}[/]" + (f" {escape(printable_name(reason[:60]))}" if reason else "")
            on = [escape(where)] if several else []
            table.add_row(escape(printable_name(cell.label)), said, *on, epoch, score, spent)
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


def show_stand_ins(suite: Suite) -> None:
    """Which datasets are not here, and that drawn faces stand in for them."""
    for name in suite.data:
        if (real := stands_in_for(name)) is not None:
            say(f"{real} is not below the data root: drawn faces stand in for it, as {name}")


def show_plan(
    plan: Plan,
    cells: list[Cell],
    results: Path,
    packing: Packing,
    downloads: Sequence[str],
    redo: bool = False,
    execution: Callable[[Cell], Execution] = lambda cell: Execution(),
) -> None:
    """What a suite would do: cells, how long their fits take, disk, downloads, what is skipped.

    Args:
        packing: how many cells run side by side.
        downloads: what a run fetches.
        redo: cells that are fitted are fitted again.
        execution: how the fit of a cell is computed, which a board's plan says.
    """
    known, reuse = Durations.of(Store(results)), Reuse(Store(results))
    calibrated = _calibrated(plan, Store(results), packing, execution)
    todo = {id(cell) for cell in cells}
    times: dict[str, _Time] = {}  # by fit_key: a fit counts once
    left: dict[str, float] = {}  # by fit_key: seconds that a cell takes with its evaluations, where that is calibrated
    lines = []
    for cell in plan.cells:
        state, whole = "to run" if id(cell) in todo else "done", calibrated.get(cell.fit_key)
        took = _Time("nothing to fit" if whole is None else f"calibrated {_duration(whole.rest)}")
        if cell.trains and id(cell) in todo and not redo and reuse.fitted(cell) and reuse.lost(cell) is None:
            # To be evaluated, or a setting that waits for the others.
            took = _Time("fitted" if whole is None else f"fitted, {_duration(whole.rest)}")
        elif cell.trains:
            took = _time(cell, plan, known, packing.threads, calibrated)
            times |= {cell.fit_key: took} if id(cell) in todo else {}
        if whole is not None:
            left[cell.fit_key] = whole.rest + took.seconds
        lines.append(f"  {cell.fit_key}  {state:6}  {took.shown:>18}  {printable_name(cell.label)}")
    expected = list(times.values())
    places = packing.per_node * packing.machines.number
    until = elapsed(cells, {fit_key: took.seconds for fit_key, took in times.items()}, places)
    if until > _LONG:
        sure = "takes" if all(each.measured for each in expected) else "may take"
        print(f"This {sure} more than an hour: {_expected(expected)}")
    print(f"{plan.suite}: {len(plan.cells)} cells, {len(cells)} to run, {len(plan.cells) - len(cells)} done")
    print("\n".join(lines))
    print(f"Time: {_expected(expected)}")
    if places > 1 and times:
        sure = "about" if all(each.measured for each in expected) else "at most about"
        share = f"{places} cells side by side, {packing.threads} of {packing.machines.cores} cores each"
        print(f"  {share}: {sure} {_duration(until)}")
    if any(cell.fit_key in left for cell in cells):
        print("  (calibrated: training and evaluation, by some seconds of each on this machine)")
    if cells and all(cell.fit_key in left for cell in cells):
        print(f"  with evaluation, as calibrated: about {_duration(elapsed(cells, left, places))}")
    if not all(each.measured for each in expected):
        print(
            "  (at most: parameters x faces x pixels, at the rate of the slowest fit of the class in these results, or "
            "else on a committed board without a GPU)"
        )
    kept, running = sum(4 * cell.parameters for cell in cells), max((cell.disk_bytes for cell in cells), default=0)
    print(f"Disk: about {kept / 2**20:.0f} MiB of weights, and {running / 2**20:.0f} MiB while the largest cell runs")
    print("Downloads: " + ("; ".join(downloads) or "none"))
    show_notes(plan)


def _calibrated(
    plan: Plan, store: Store, packing: Packing, execution: Callable[[Cell], Execution]
) -> Mapping[str, Seconds]:
    """How long the cells take that were calibrated here as they run (see `emobench.runner.calibrate`), by fit_key."""
    if not (store.cells / "calibrations").is_dir():
        return {}
    from emobench.runner.budget import times_of
    from emobench.runner.calibrate import known

    return times_of(plan, known(store, plan.cells, packing, execution))


@dataclass(frozen=True)
class _Time:
    """How long a fit takes; `measured`: as long as like ones did, else at most so long."""

    shown: str
    seconds: float = 0.0  # of training
    measured: bool = True


def _time(cell: Cell, plan: Plan, known: Durations, threads: int, calibrated: Mapping[str, Seconds]) -> _Time:
    seconds = known.like.get(alike(cell.fit, threads))
    if seconds is not None:
        return _Time(_duration(seconds), seconds)
    if cell.fit_key in calibrated:
        took = calibrated[cell.fit_key]
        return _Time(f"calibrated {_duration(took.both)}", took.fit)
    bound = known.at_most(cell, plan, threads)
    return _Time(f"at most {_duration(bound)}", bound, False)


def _expected(times: Sequence[_Time]) -> str:
    """How long fits take in all."""
    measured = [each.seconds for each in times if each.measured]
    bounds = [each.seconds for each in times if not each.measured]
    said = []
    if measured:
        said.append(f"about {_duration(sum(measured))} of training")
        said[-1] += f" for {len(measured)} of {len(times)} fits" if bounds else ""
    if bounds:
        fits = f"{len(bounds)} fit{'s' if len(bounds) > 1 else ''}"
        said.append(f"at most about {_duration(sum(bounds))}{'' if measured else ' of training'}")
        said[-1] += f" for {fits}, like which none was measured here before"
    return ", ".join(said) or "nothing to train"


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
