"""The sweep: cells in order, each in a process of its own, one at a time on every GPU (or on the CPU).

The processes are forked from a server that has imported the heavy libraries and not touched a GPU, so that a cell
starts in a fraction of a second. A cell on several devices starts cold: Lightning runs the command again for each.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emobench.bench.keys import in_todays_form, key
from emobench.bench.reuse import Reuse, stored
from emobench.bench.store import (
    FINISHED,
    HELD,
    PROTOCOL,
    SCHEMA_VERSION,
    Origin,
    Store,
    adopt,
    cards,
    committed_cells,
    committed_judge,
    finished,
    read_json,
    write_json,
)
from emobench.errors import StoreError
from emobench.suite import Cell, Plan

if TYPE_CHECKING:
    from emobench.bench.run import Job

GRACE = 60  # seconds that a cell has to end in order after SIGTERM


@dataclass
class Running:
    """A cell's process."""

    cell: Cell
    gpu: int | None
    process: Any  # multiprocessing.Process or subprocess.Popen
    started: float

    @property
    def exitcode(self) -> int | None:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode  # type: ignore[no-any-return]


@dataclass
class Sweep:
    """The state of a sweep, for whoever shows it."""

    plan: Plan
    store: Store
    cells: list[Cell]  # of this sweep, in the plan's order; those join whose networks change
    waiting: list[Cell]
    running: list[Running] = field(default_factory=list)
    states: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # fit_key/eval_key -> state, reason
    seconds: dict[str, float] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)  # which cells joined, and why
    held: dict[str, float] = field(default_factory=dict)  # fit_key -> when to ask again for a cell of another sweep
    signal: int | None = None

    def state(self, cell: Cell) -> tuple[str, str | None]:
        return self.states.get(_place(cell), ("pending", None))


def _place(cell: Cell) -> str:
    return f"{cell.fit_key}/{cell.eval_key}"


def trusting(results: Path, plan: Plan) -> Plan:
    """The plan, with cells that the committed board holds under their keys there, though earlier code made them.

    A cell whose network another, not committed one needs is not among them; one that judges is where the board holds
    its weights, which are put into the store.
    """
    committed: dict[str, dict[str, Any]] = {}
    places: dict[str, Path] = {}  # eval_key -> where it is committed
    weights: dict[str, str] = {}  # fit_key of a committed judge -> sha256 of its weights
    for folder in committed_cells(results, plan.suite):
        try:
            record = read_json(folder / "result.json")
        except FileNotFoundError:
            continue
        except StoreError as error:
            print(error)
            continue
        weights |= {card["fit_key"]: card["sha256"] for card in cards(record)}
        if record["state"] in FINISHED:
            committed.setdefault(_but_for_code(record["made_of"]["fit"], record["made_of"]["eval"]), record)
            places.setdefault(record["eval_key"], folder)
    cells: list[Cell] = []
    needed: set[str] = set()
    judging: set[str] = set()
    known: dict[str, str] = {}  # fit_key of today -> of the committed judge
    for cell in reversed(plan.cells):  # a cell stands after those that it needs
        found = committed.get(_but_for_code(cell.fit, cell.evaluation))
        judge = None
        if found is not None and cell.fit_key in judging:
            judge = committed_judge(results, places[found["eval_key"]], weights.get(found["fit_key"]))
        if found is None or cell.fit_key in needed or (cell.fit_key in judging and judge is None):
            needed |= {each for keys in cell.needs.values() for each in keys}
            judging |= {each for keys in cell.panel.values() for each in keys}
            cells.append(cell)
            continue
        cells.append(replace(cell, fit=found["made_of"]["fit"], evaluation=found["made_of"]["eval"]))
        if judge is not None:
            adopt(Store(results), found, judge)
            known[cell.fit_key] = found["fit_key"]
    return replace(plan, cells=[_judged_by(cell, known) for cell in cells[::-1]])


def _judged_by(cell: Cell, known: dict[str, str]) -> Cell:
    """The cell with judges under the keys that the committed board has them by."""
    if not any(each in known for keys in cell.panel.values() for each in keys):
        return cell
    panel = {role: [known.get(each, each) for each in keys] for role, keys in cell.panel.items()}
    return replace(cell, panel=panel, evaluation={**cell.evaluation, **panel})


def _but_for_code(fit: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """What two cells have in common that differ in the code alone."""
    fit = in_todays_form(fit)
    fit["needs"] = {role: len(keys) for role, keys in fit["needs"].items()}
    made_by_code = ("code", "fit_key", "judges", "reader")
    return key([fit, {name: value for name, value in evaluation.items() if name not in made_by_code}])


def suite_is_written(results: Path, plan: Plan, origin: Origin) -> bool:
    """Whether the board's `suite.json` lists the plan's cells, and says what it is of."""
    try:
        known = Origin.recorded(results, plan.suite)
        return bool(known == origin and read_json(results / plan.suite / "suite.json")["rows"] == _rows(plan))
    except (FileNotFoundError, StoreError):
        return False


def write_suite(results: Path, plan: Plan, origin: Origin) -> None:
    """Write what the board is of and its rows, `suite.json`, where they changed.

    Raises:
        OSError: the folder cannot be written.
    """
    from emobench.bench.machine import versions

    if suite_is_written(results, plan, origin):
        return
    folder = results / plan.suite
    folder.mkdir(parents=True, exist_ok=True)
    head = {"schema_version": SCHEMA_VERSION, "protocol": PROTOCOL, "suite": plan.suite, "commit": versions()["commit"]}
    write_json(folder / "suite.json", {**head, **asdict(origin), "rows": _rows(plan)})


def _rows(plan: Plan) -> list[dict[str, Any]]:
    """The cells of a plan as `suite.json` lists them, then what is skipped."""
    rows = [{**cell.entry(), "skipped": None} for cell in plan.cells]
    for skipped in plan.skipped:
        empty = {"variant": "", "seed": 0, "track": "recognition", "control": None, "fit_key": "", "eval_key": ""}
        row = {"row": skipped.row, "model": skipped.model, "dataset": skipped.dataset, "size": skipped.size}
        rows.append({**row, **empty, "skipped": skipped.reason})
    return rows


def sweep(
    plan: Plan,
    cells: list[Cell],
    results: Path,
    data_root: Path,
    *,
    workers: int,
    redo: bool,
    wandb: dict[str, str] | None,
    on_change: Callable[[Sweep], None],
    on_tick: Callable[[Sweep], None],
) -> Sweep:
    """Run cells until all have ended or a signal asks to stop.

    Args:
        wandb: where cells are logged too (see `Job`).
        on_change: called after every cell that ended, such as to write the boards again.
        on_tick: called about once a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload())
    forkserver.ensure_running()  # it imports while this process does
    from emobench.bench.run import Job, visible_gpus

    state = Sweep(plan, Store(results), list(cells), list(cells))
    slots: list[int | None] = list(range(len(visible_gpus()))) or [None]

    def launch() -> bool:
        """Start what can start; returns whether a cell ended without a process."""
        settled = False
        for cell in list(state.waiting):
            taken = [running.gpu for running in state.running]
            free = [slot for slot in slots if slot not in taken]
            if any(_several(running.cell) for running in state.running) or not free:
                break
            problem = _needs(state, cell)
            if problem == "wait" or state.held.get(cell.fit_key, 0) > time.monotonic():
                continue
            if any(running.cell.fit_key == cell.fit_key for running in state.running):
                continue  # a second evaluation of a fit that is under way
            if _several(cell) and state.running:
                break  # it takes every device
            state.waiting.remove(cell)
            if problem is not None:
                _fail(state, cell, problem)
                settled = True
            elif not redo and _ran_meanwhile(state, cell):
                _note(state, cell)
                settled = True
            else:
                state.running.append(_start(context, Job(cell, results, data_root, workers, redo, wandb), free[0]))
        return settled

    with _signals(state):
        while (state.waiting or state.running) and state.signal is None:
            changed = launch()
            _wait(state)
            on_tick(state)
            if state.signal is not None:
                break
            changed |= _collect(state)
            if changed:
                launch()  # the boards are written while the next cell runs
                on_change(state)
        if state.signal is not None:
            _stop(state)
    return state


def _several(cell: Cell) -> bool:
    """Whether a cell is fitted on several devices, and so takes all of them."""
    return cell.trains and cell.trainer.get("devices", 1) != 1


def _ran_meanwhile(state: Sweep, cell: Cell) -> bool:
    """Whether another sweep has done a cell that waits, with the networks that are here now."""
    if not stored(state.store.results, state.plan.suite, cell, "skip"):
        return False
    reuse = Reuse(state.store)
    return reuse.remade(cell, reuse.needed(state.waiting)) is None


def _collect(state: Sweep) -> bool:
    """Take the processes that ended off the list; returns whether a cell ended with them."""
    changed = False
    for running in [each for each in state.running if each.exitcode is not None]:
        state.running.remove(running)
        if running.exitcode == HELD:
            state.held[running.cell.fit_key] = time.monotonic() + 2
            state.waiting.insert(0, running.cell)
        else:
            _ended(state, running)
            _join(state, running.cell)
            changed = True
    return changed


def _join(state: Sweep, ended: Cell) -> None:
    """Cells that were made with other weights than a cell has that has just ended run again."""
    reuse = Reuse(state.store)
    under_way = {id(cell) for cell in (*state.waiting, *(running.cell for running in state.running))}
    for cell in state.plan.cells:
        needed = reuse.needed([cell])
        mine = cell.fit_key == ended.fit_key and cell is not ended
        if id(cell) in under_way or not (mine or ended.fit_key in needed):
            continue
        why = reuse.remade(cell, reuse.needed([]))
        if why is not None:
            state.states.pop(_place(cell), None)
            state.again.append(f"{cell.label}: {why}")
            state.waiting.append(cell)
            state.cells += [cell] if all(other is not cell for other in state.cells) else []
    order = {id(cell): place for place, cell in enumerate(state.plan.cells)}
    state.waiting.sort(key=lambda cell: order[id(cell)])
    state.cells.sort(key=lambda cell: order[id(cell)])


def preload() -> list[str]:
    """What the fork server imports once for all cells: the run, every model and dataset, the augmentation library.

    With all code loaded at the start, a sweep is not changed by edits that are made while it runs.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    return ["emobench.bench.server", "emobench.bench.run", "emobench.bench.warm", "albumentations"]


def _needs(state: Sweep, cell: Cell) -> str | None:
    """None where all networks that a cell needs are there, "wait", or why they will never be."""
    reuse = Reuse(state.store)
    needed = reuse.needed([cell])
    under_way = {other.fit_key for other in (*state.waiting, *(running.cell for running in state.running))}
    if any(fit_key in under_way for fit_key in (*needed.whole, *needed.judging) if fit_key != cell.fit_key):
        return "wait"
    for fit_key in cell.awaits:
        if finished(state.store.fit_folder(fit_key) / "fit.json"):
            continue
        others = [other for other in state.plan.cells if other.fit_key == fit_key]
        return f"needs {others[0].row if others else fit_key}, which did not finish"
    return None


def _start(context: Any, job: Job, gpu: int | None) -> Running:
    if not _several(job.cell):
        from emobench.bench.run import start

        process = context.Process(target=start, args=(job, gpu))
        process.start()
        return Running(job.cell, gpu, process, time.monotonic())
    folder = Store(job.results).fit_folder(job.cell.fit_key)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    write_json(path, {"schema_version": SCHEMA_VERSION, **job.plain()})
    return Running(
        job.cell,
        gpu,
        subprocess.Popen([sys.executable, "-m", "emobench", "cell", str(path)], process_group=0),
        time.monotonic(),
    )


def _wait(state: Sweep) -> None:
    """Until a process ends, about a second at most."""
    sentinels = [run.process.sentinel for run in state.running if not isinstance(run.process, subprocess.Popen)]
    if len(sentinels) == len(state.running) and sentinels:
        wait(sentinels, timeout=1)
    else:
        time.sleep(0.2 if state.running else 1)


def _ended(state: Sweep, running: Running) -> None:
    """Take note of how a cell ended; one that could not write its own state is written here."""
    cell, code = running.cell, running.exitcode
    state.seconds[_place(cell)] = time.monotonic() - running.started
    found = _outcome(state.store, cell)
    if code != 0 and found[0] in ("pending", "done"):
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            reason = f"killed by {name}" + (": out of memory, or by hand" if name == "SIGKILL" else "")
        else:
            reason = f"ended with exit code {code}; see {state.store.fit_folder(cell.fit_key) / 'log.txt'}"
        _fail(state, cell, reason)
    elif code is not None and code < 0 and found[0] == "interrupted":
        _fail(state, cell, f"killed by {signal.Signals(-code).name}")
    else:
        _note(state, cell)


def _note(state: Sweep, cell: Cell) -> None:
    state.states[_place(cell)] = _outcome(state.store, cell)


def _outcome(store: Store, cell: Cell) -> tuple[str, str | None]:
    """State and reason of a cell that ran: those of its fit where that did not end well, else of its evaluation."""
    outcome: tuple[str, str | None] = ("pending", None)
    for path in (store.fit_folder(cell.fit_key), store.eval_folder(cell.fit_key, cell.eval_key)):
        try:
            record = read_json(path / ("fit.json" if path.name == cell.fit_key else "result.json"))
        except FileNotFoundError:
            return "pending", None
        except StoreError as error:
            return "failed", f"corrupt result: {error}"
        outcome = record["state"], record.get("reason")
        if record["state"] != "done":
            break
    return outcome


def _fail(state: Sweep, cell: Cell, reason: str) -> None:
    """Write the failure of a cell that could not write it itself."""
    state.states[_place(cell)] = ("failed", reason)
    folder = state.store.fit_folder(cell.fit_key)
    path = folder / "fit.json"
    if finished(path):
        path = folder / cell.eval_key / "result.json"
    record = {
        "schema_version": SCHEMA_VERSION,
        "protocol": PROTOCOL,
        "fit_key": cell.fit_key,
        "eval_key": cell.eval_key,
        "made_of": {"fit": cell.fit, "eval": cell.evaluation},
        "cell": cell.record(),
        "state": "failed",
        "reason": reason,
    }
    try:
        if not finished(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, record)
    except OSError as error:
        state.states[_place(cell)] = ("failed", f"{reason}; the state could not be written ({error})")


@contextmanager
def _signals(state: Sweep) -> Iterator[None]:
    """SIGINT and SIGTERM end the sweep in order: cells keep their state, the boards are written."""

    def stop(number: int, frame: object) -> None:
        state.signal = number

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(state: Sweep) -> None:
    """Ask every cell to end in order, then make sure that it does."""
    for running in state.running:
        running.process.terminate()
    deadline = time.monotonic() + GRACE
    while any(running.exitcode is None for running in state.running) and time.monotonic() < deadline:
        time.sleep(0.05)
    for running in state.running:
        if running.exitcode is None:
            running.process.kill()
        _note(state, running.cell)
    state.running.clear()


def like_seconds(store: Store) -> dict[str, float]:
    """Seconds that fits took in this store, by what they had in common (see `alike`)."""
    measured: dict[str, list[float]] = {}
    for path in store.cells.glob("*/fit.json"):
        try:
            record = read_json(path)
        except (StoreError, OSError):
            continue
        seconds = record.get("cost", {}).get("fit_seconds")
        if record["state"] == "done" and seconds is not None:
            measured.setdefault(alike(record["made_of"]["fit"]), []).append(seconds)
    return {name: sum(values) / len(values) for name, values in measured.items()}


def alike(fit: dict[str, Any]) -> str:
    """What two fits have in common that should take the same time."""
    fit = in_todays_form(fit)
    data = {name: value for name, value in fit["data"].items() if name != "fingerprint"}
    return key({name: fit[name] for name in ("model", "arguments", "recipe", "trainer")} | {"data": data})
