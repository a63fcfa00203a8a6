"""The sweep: cells in order, each after those that it needs, handed to an engine that runs them."""

from __future__ import annotations

import functools
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emobench import downloads
from emobench.errors import Interrupted, StoreError
from emobench.files import SCHEMA_VERSION, read_json, write_json
from emobench.recipe import Execution
from emobench.runner.choice import EXPLANATION, NOT_CHOSEN, groups, is_candidate
from emobench.runner.engines.engine import AGAIN, LOST, Engine
from emobench.runner.record import Record, State, finished, read_record
from emobench.runner.reuse import Reuse, stored
from emobench.runner.store import (
    FINISHED,
    HELD,
    Origin,
    Store,
    adopt,
    choice_of,
    committed_cells,
    committed_judge,
    intact,
)
from emobench.runner.threads import Packing
from emobench.runner.usage import sweeping
from emobench.suite import plugins
from emobench.suite.cell import Cell, Plan
from emobench.suite.keys import PROTOCOL, in_todays_form, key, processes

if TYPE_CHECKING:
    from emobench.runner.run import Part
    from emobench.runner.tracking import Tracking

GRACE = 60  # seconds that a cell has to end in order after SIGTERM
PATIENCE = 30  # seconds, at most, until a cell of another sweep is asked for again
LOSSES = 3  # times that a cell may lose the machine that it runs on


@dataclass
class Running:
    """A cell that an engine runs."""

    cell: Cell
    started: Any  # what the engine knows it by
    since: float
    only: Part | None = None  # of its two parts; None: both
    where: str | None = None  # on which machine, where the engine has several


@dataclass
class Sweep:
    """The state of a sweep, for whoever shows it."""

    plan: Plan
    store: Store
    cells: list[Cell]  # of this sweep, in the plan's order; those join whose networks change
    waiting: list[Cell]
    running: list[Running] = field(default_factory=list)
    states: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # see `_place` -> state, reason
    seconds: dict[str, float] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)  # which cells joined, and why
    fitted: list[Cell] = field(default_factory=list)  # settings that wait until one of them is chosen
    chosen: list[Cell] = field(default_factory=list)  # settings that are
    held: dict[str, float] = field(default_factory=dict)  # fit_key -> when to ask again for a cell of another sweep
    asked: Counter[str] = field(default_factory=Counter)  # fit_key -> how often it was asked for in vain
    lost: Counter[str] = field(default_factory=Counter)  # see `_place` -> how often its machine went away
    awaited: dict[int, str] = field(default_factory=dict)  # a waiting cell, by identity -> fit_key that it waits for
    news: list[Cell] = field(default_factory=list)  # whose states changed, in turn
    signal: int | None = None

    def state(self, cell: Cell) -> tuple[str, str | None]:
        return self.states.get(_place(cell), ("pending", None))

    def note(self, cell: Cell, state: str, reason: str | None = None) -> None:
        """A cell is in a state now."""
        self.states[_place(cell)] = state, reason
        self.news.append(cell)

    @functools.cached_property
    def by_fit(self) -> dict[str, list[Cell]]:
        """The plan's cells of each fit_key."""
        found: dict[str, list[Cell]] = {}
        for cell in self.plan.cells:
            found.setdefault(cell.fit_key, []).append(cell)
        return found

    @functools.cached_property
    def built_on(self) -> dict[str, list[Cell]]:
        """The plan's cells that a network of the plan is behind, by its fit_key: by what their keys are made of."""
        behind: dict[str, set[str]] = {}
        found: dict[str, list[Cell]] = {}
        for cell in self.plan.cells:  # which stands after those that it needs
            mine = {each for keys in cell.fit["needs"].values() for each in keys}
            behind[cell.fit_key] = mine.union(*(behind.get(each, ()) for each in mine))
            judges = {each for role in ("judges", "reader") for each in cell.evaluation.get(role, ())}
            for fit_key in behind[cell.fit_key].union(judges, *(behind.get(each, ()) for each in judges)):
                found.setdefault(fit_key, []).append(cell)
        return found

    @functools.cached_property
    def groups(self) -> list[list[Cell]]:
        """The settings of the plan among which one is chosen."""
        return groups(self.plan.cells)

    def join(self, cell: Cell) -> None:
        """Have a cell wait to be run, at its place in the plan's order."""
        self.waiting.append(cell)
        self.waiting.sort(key=self.order)
        if all(other is not cell for other in self.cells):
            self.cells.append(cell)
            self.cells.sort(key=self.order)

    def order(self, cell: Cell) -> int:
        """A cell's place in the plan."""
        return self._places[id(cell)]

    @functools.cached_property
    def _places(self) -> dict[int, int]:
        return {id(cell): place for place, cell in enumerate(self.plan.cells)}

    def took(self, cell: Cell) -> float | None:
        """Seconds that a cell ran; None: it has not ended, or did not run."""
        return self.seconds.get(_place(cell))


def _place(cell: Cell) -> str:
    """What a cell is known by; one written by hand may share the keys of a setting, and is not chosen among them."""
    place = f"{cell.fit_key}/{cell.eval_key}"
    return f"{place}/{cell.row}" if cell.setting_of else place


def trusting(results: Path, plan: Plan) -> Plan:
    """The plan, with cells that the committed board holds under their keys there, though earlier code made them.

    They are taken as they are, whether or not they were measured with Inception and its weights are here.
    A cell whose network another, not committed one needs is among them where the store has its weights under that key;
    one that judges also where the board holds its weights, which are put into the store.
    """
    store = Store(results)
    committed, places, weights = _committed(results, plan.suite)
    trusted: dict[int, Record] = {}
    needed: set[str] = set()
    judging: set[str] = set()
    for cell in reversed(plan.cells):  # a cell stands after those that it needs
        wanted_as = (_but_for_code(cell.fit, cell.evaluation, inception=exactly) for exactly in (True, False))
        found = next((committed[each] for each in wanted_as if each in committed), None)
        wanted = cell.fit_key in needed or cell.fit_key in judging
        here = found is not None and wanted and _is_here(store, found.fit_key)
        judge = None
        if found is not None and cell.fit_key in judging and not here:
            judge = committed_judge(results, places[found.eval_key], weights.get(found.fit_key))
        lacking = (cell.fit_key in needed or judge is None) if wanted and not here else False
        if found is None or lacking:
            needed |= {each for keys in cell.needs.values() for each in keys}
            judging |= {each for keys in cell.panel.values() for each in keys}
            continue
        trusted[id(cell)] = found
        if judge is not None:
            adopt(store, found, judge)
    cells: list[Cell] = []
    known: dict[str, str] = {}  # fit_key of the plan -> of the cell that takes its place
    for cell in plan.cells:
        record = trusted.get(id(cell))
        made_of = None if record is None else record.made_of
        taken = _with(cell, known) if made_of is None else replace(cell, fit=made_of.fit, evaluation=made_of.eval)
        known |= {cell.fit_key: taken.fit_key} if taken.fit_key != cell.fit_key else {}
        cells.append(taken)
    return replace(plan, cells=cells)


def _committed(results: Path, board: str) -> tuple[dict[str, Record], dict[str, Path], dict[str, str]]:
    """The committed cells of a board.

    Returns:
        Records by what they are of but for the code, their folders by eval_key, and of those that judge the SHA-256 of
        their weights by fit_key.
    """
    records: dict[str, Record] = {}
    places: dict[str, Path] = {}
    weights: dict[str, str] = {}
    for folder in committed_cells(results, board):
        paths = [folder / "result.json", folder / "fit.json"]  # that of a fit: of a setting that was not chosen
        try:
            record = read_record(next((path for path in paths if path.exists()), paths[0]))
        except FileNotFoundError:
            continue
        except StoreError as error:
            print(error)
            continue
        if record.evaluation is not None:
            weights |= {card.fit_key: card.sha256 for card in record.evaluation.cards}
        if record.state in FINISHED:
            for exactly in (True, False):
                records.setdefault(_but_for_code(record.made_of.fit, record.made_of.eval, inception=exactly), record)
            places.setdefault(record.eval_key, folder)
    return records, places, weights


def _is_here(store: Store, fit_key: str) -> bool:
    """Whether the store holds a finished fit with its weights, and those of the networks that it is built with."""
    path = store.fit_folder(fit_key) / "fit.json"
    if not finished(path):
        return False
    fit = read_record(path)
    behind = [each for keys in fit.cell.needs.values() for each in keys]
    return (not fit.trains or intact(store.weights(fit_key))) and all(_is_here(store, each) for each in behind)


def _with(cell: Cell, known: dict[str, str]) -> Cell:
    """The cell with networks under the keys that they are here by, and so with keys of its own."""
    needs, panel = (
        {role: [known.get(each, each) for each in keys] for role, keys in of.items()} for of in (cell.needs, cell.panel)
    )
    if needs == cell.needs and panel == cell.panel:
        return cell
    fit = {**cell.fit, "needs": needs}
    evaluation = {**cell.evaluation, "fit_key": key(fit), **panel}
    return replace(cell, needs=needs, panel=panel, fit=fit, evaluation=evaluation)


def _but_for_code(fit: dict[str, Any], evaluation: dict[str, Any], *, inception: bool = True) -> str:
    """What two cells have in common that differ in the code alone; `inception`: not in whether it was there either."""
    fit = in_todays_form(fit)
    fit["needs"] = {role: len(keys) for role, keys in fit["needs"].items()}
    made_by_code = ("code", "fit_key", "judges", "reader", "tracks")
    rest = {name: value for name, value in evaluation.items() if name not in made_by_code}
    if not inception and "files" in rest:
        rest["files"] = {name: value for name, value in rest["files"].items() if name != "inception"}
    return key([fit, rest])


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
    from emobench.runner.machine import versions

    if suite_is_written(results, plan, origin):
        return
    folder = results / plan.suite
    folder.mkdir(parents=True, exist_ok=True)
    head = {"schema_version": SCHEMA_VERSION, "protocol": PROTOCOL, "suite": plan.suite, "commit": versions().commit}
    of = {name: value for name, value in asdict(origin).items() if value not in (None, False)}
    write_json(folder / "suite.json", {**head, **of, "rows": _rows(plan)})


def _rows(plan: Plan) -> list[dict[str, Any]]:
    """The cells of a plan as `suite.json` lists them, then what is skipped."""
    rows = [{**cell.entry(), "skipped": None} for cell in plan.cells]
    for skipped in plan.skipped:
        empty = {"variant": "", "seed": 0, "track": "recognition", "control": None, "fit_key": "", "eval_key": ""}
        row = {"row": skipped.row, "model": skipped.model, "dataset": skipped.dataset, "size": skipped.size}
        by = {"trainer": skipped.trained_by} if skipped.trained_by else {}
        rows.append({**row, **empty, **by, "skipped": skipped.reason})
    return rows


def sweep(
    plan: Plan,
    cells: list[Cell],
    results: Path,
    data_root: Path,
    *,
    engine: Engine,
    packing: Packing,
    workers: int,
    redo: bool,
    tracking: Tracking | None,
    remote: str | None,
    on_change: Callable[[Sweep], None],
    on_tick: Callable[[Sweep], None],
    execution: Callable[[Cell], Execution] = lambda cell: Execution(),
    memory: Callable[[Cell], float | None] = lambda cell: None,
) -> Sweep:
    """Run cells until all have ended or a signal asks to stop.

    Args:
        engine: where they run.
        packing: how many side by side, with how many threads.
        tracking: where cells are shown too (see `Job`).
        remote: URL of the object store that holds the results too (see `Job`).
        on_change: called after cells have ended, such as to write the board again.
        on_tick: called about once a second, and when cells have started.
        execution: how the fit of a cell is computed, which a board's plan says.
        memory: that a cell takes, GiB, where it was measured.
    """
    from emobench.runner.run import Job

    state = Sweep(plan, Store(results), list(cells), list(cells))
    used = plugins.used()  # an edit while the sweep runs is refused by the cells that come after it
    room = True  # whether the engine may take another job: until one ends it need not be asked, nor the store be read

    def launch() -> bool:
        """Start what can start; returns whether a cell ended without a job."""
        nonlocal room
        settled = _choose(state)
        if not room and state.running:
            return settled
        under_way = Counter(each.fit_key for each in (*state.waiting, *(running.cell for running in state.running)))
        for cell in list(state.waiting):
            problem = _needs(state, cell, under_way)
            if problem == "wait" or state.held.get(cell.fit_key, 0) > time.monotonic():
                continue
            if any(running.cell.fit_key == cell.fit_key for running in state.running):
                continue  # a second evaluation of a fit that is under way
            # A redone fit is redone once, by the cell that comes first.
            only: Part | None = "evaluation" if cell.track == EXPLANATION else None
            if is_candidate(cell):
                only = "evaluation" if any(each is cell for each in state.chosen) else "fit"
            if problem is not None:
                _fail(state, cell, problem)
                settled = True
            elif only == "fit" and (not redo or cell.track == EXPLANATION) and Reuse(state.store).fitted(cell):
                state.fitted.append(cell)
                state.note(cell, "fitted")
            elif not redo and _ran_meanwhile(state, cell):
                _note(state, cell)
                settled = True
            else:
                count = packing.threads_of(processes(cell.trainer) or 1 if cell.trains else 1)
                side = packing.per_node
                job = Job(
                    cell,
                    results,
                    data_root,
                    workers=workers,
                    per_node=side,
                    threads=count,
                    per_gpu=packing.per_gpu,
                    execution=execution(cell),
                    memory=memory(cell),
                    redo=redo,
                    plugins=used,
                    tracking=tracking,
                    only=only,
                    store=remote,
                    offline=downloads.offline(),
                )
                started = engine.start(job)
                if started is None:
                    room = False
                    break
                state.running.append(Running(cell, started, time.monotonic(), only))
                under_way[cell.fit_key] += 1  # which takes what follows back
            under_way[cell.fit_key] -= 1
            del state.waiting[next(place for place, each in enumerate(state.waiting) if each is cell)]
        return settled

    with _signals(state), sweeping(state.store, plan.cells):
        try:
            while (state.waiting or state.running or state.fitted) and state.signal is None:
                changed = launch()
                on_tick(state)  # before the wait: what has started is shown at once
                engine.wait([running.started for running in state.running])
                if state.signal is not None:
                    break
                under_way = len(state.running)
                changed |= _collect(state, engine)
                room |= len(state.running) < under_way
                if changed:
                    launch()  # the boards are written while the next cell runs
                    on_change(state)
        finally:  # whatever goes wrong, no cell runs on that nobody waits for
            _stop(state, engine)
    return state


def _ran_meanwhile(state: Sweep, cell: Cell) -> bool:
    """Whether another sweep has done a cell that waits, with the networks that are here now."""
    if not stored(state.store.results, state.plan.suite, cell, "skip"):
        return False
    reuse = Reuse(state.store)
    return reuse.remade(cell, reuse.needed(state.waiting)) is None


def _collect(state: Sweep, engine: Engine) -> bool:
    """Take the jobs that ended off the list; returns whether a cell ended with them."""
    changed = False
    for running in list(state.running):
        code = engine.poll(running.started)
        if code is None:
            running.where = engine.where(running.started)
            continue
        state.running.remove(running)
        if code == LOST and state.lost[_place(running.cell)] < LOSSES:
            state.lost[_place(running.cell)] += 1
            where = f", {running.where}," if running.where is not None else ""
            state.again.append(f"{running.cell.label}: the machine that it ran on{where} went away")
            state.waiting.insert(0, running.cell)
        elif code in (HELD, AGAIN):
            wait = min(2 << state.asked[running.cell.fit_key], PATIENCE)
            state.asked[running.cell.fit_key] += 1
            state.held[running.cell.fit_key] = time.monotonic() + wait
            state.waiting.insert(0, running.cell)
        elif running.only == "fit" and code == 0 and Reuse(state.store).fitted(running.cell):
            state.seconds[_place(running.cell)] = time.monotonic() - running.since
            state.note(running.cell, "fitted")
            state.fitted.append(running.cell)
            _join(state, running.cell)
            changed = True
        else:
            _ended(state, running, code)
            _join(state, running.cell)
            changed = True
    return changed


def _join(state: Sweep, ended: Cell) -> None:
    """Cells that were made with other weights than a cell has that has just ended run again."""
    found = (*state.by_fit.get(ended.fit_key, ()), *state.built_on.get(ended.fit_key, ()))
    touched = {id(cell): cell for cell in found if cell is not ended}
    if not touched:
        return
    reuse = Reuse(state.store)
    running = (each.cell for each in state.running)
    under_way = {id(cell) for cell in (*state.waiting, *running, *state.fitted)}
    for cell in sorted(touched.values(), key=state.order):
        needed = reuse.needed([cell])
        if id(cell) in under_way or not (cell.fit_key == ended.fit_key or ended.fit_key in needed):
            continue
        why = reuse.remade(cell, reuse.needed([]))
        if why is not None:
            state.note(cell, "pending")
            state.again.append(f"{cell.label}: {why}")
            state.join(cell)


def _choose(state: Sweep) -> bool:
    """Where all settings of a row are fitted on a dataset, let the chosen one be evaluated; the others have ended.

    Returns:
        Whether a cell ended so.
    """
    settled = False
    under_way = {id(each) for each in (*state.waiting, *(each.cell for each in state.running))} if state.fitted else ()
    for group in state.groups if state.fitted else ():
        mine = {id(cell) for cell in group}
        fitted = [cell for cell in state.fitted if id(cell) in mine]
        if not fitted or any(id(cell) in under_way for cell in group):
            continue
        state.fitted = [cell for cell in state.fitted if id(cell) not in mine]
        choice = choice_of(state.store.results, state.plan.suite, group)
        for cell in fitted:
            if cell.row != choice.chosen:
                state.note(cell, "pending" if choice.pending else NOT_CHOSEN, choice.reason(cell))
                settled = True
        known = {id(cell) for cell in fitted}
        for cell in (cell for cell in group if cell.row == choice.chosen):
            if id(cell) in known or not stored(state.store.results, state.plan.suite, cell, "skip"):
                state.chosen.append(cell)
                state.join(cell)
    return settled


def _needs(state: Sweep, cell: Cell, under_way: Mapping[str, int]) -> str | None:
    """None where all networks that a cell needs are there, "wait", or why they will never be.

    Args:
        under_way: how many cells of a fit_key wait or run. Who waits for one is looked at again when it has ended.
    """
    if not cell.awaits:
        return None
    if under_way.get(state.awaited.get(id(cell), ""), 0):
        return "wait"
    needed = Reuse(state.store).needed([cell])
    for fit_key in (*needed.whole, *needed.judging):
        if fit_key != cell.fit_key and under_way.get(fit_key, 0):
            state.awaited[id(cell)] = fit_key
            return "wait"
    for fit_key in cell.awaits:
        if finished(state.store.fit_folder(fit_key) / "fit.json"):
            continue
        others = state.by_fit.get(fit_key)
        return f"needs {others[0].row if others else fit_key}, which did not finish"
    return None


def _ended(state: Sweep, running: Running, code: int | str) -> None:
    """Take note of how a cell ended; one that could not write its own state is written here."""
    cell = running.cell
    if code == LOST:
        code = f"the machine that it ran on went away {LOSSES + 1} times; run the same command again to go on"
    fitting = state.seconds.get(_place(cell), 0.0) if running.only == "evaluation" else 0.0
    state.seconds[_place(cell)] = fitting + time.monotonic() - running.since
    found = _outcome(state.store, cell)
    if isinstance(code, str):
        _fail(state, cell, code)
    elif code == -signal.SIGTERM and found[0] != "diverged":  # before it could end in order
        _fail(state, cell, str(Interrupted(signal.SIGTERM)), "interrupted")
    elif code < 0 and found[0] != "diverged":  # what an attempt before it said, or what the first of several saw
        name = _signal_name(-code)
        _fail(state, cell, f"killed by {name}" + (": out of memory, or by hand" if name == "SIGKILL" else ""))
    elif found[0] == "pending" or (code != 0 and found[0] == "done"):
        log = state.store.fit_folder(cell.fit_key) / "log.txt"
        elsewhere = state.store.failed_elsewhere(cell.fit_key)
        _fail(state, cell, elsewhere or f"ended with exit code {code}; see {log}")
    else:
        state.note(cell, *found)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those without a meaning of their own, real-time signals
        return f"signal {number}"


def _note(state: Sweep, cell: Cell) -> None:
    state.note(cell, *_outcome(state.store, cell))


def _outcome(store: Store, cell: Cell) -> tuple[str, str | None]:
    """State and reason of a cell that ran: those of its fit where that did not end well, else of its evaluation."""
    outcome: tuple[str, str | None] = ("pending", None)
    for path in (store.fit_folder(cell.fit_key), store.eval_folder(cell.fit_key, cell.eval_key)):
        try:
            record = read_record(path / ("fit.json" if path.name == cell.fit_key else "result.json"))
        except FileNotFoundError:
            return "pending", None
        except StoreError as error:
            return "failed", f"corrupt result: {error}"
        outcome = record.state, record.reason
        if record.state != "done":
            break
    return outcome


def _fail(state: Sweep, cell: Cell, reason: str, how: State = "failed") -> None:
    """Write the failure of a cell that could not write it itself."""
    state.note(cell, how, state.store.keep_failure(Record.of(cell, how, reason)))


@contextmanager
def _signals(state: Sweep) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the sweep in order: cells keep their state, the boards are written.

    SIGHUP comes where the terminal or the connection goes; under `nohup` it stays ignored.
    """

    def stop(number: int, frame: object) -> None:
        state.signal = number

    with handled(stop):
        yield


@contextmanager
def handled(stop: Callable[[int, Any], None]) -> Iterator[None]:
    """The signals by which a command is asked to end call `stop` inside the block."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else []
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(state: Sweep, engine: Engine) -> None:
    """Ask every cell to end in order, then make sure that it does; what fails for one is still done for the others."""
    for running in state.running:
        with suppress(Exception):
            engine.stop(running.started)
    deadline = time.monotonic() + GRACE
    under_way = list(state.running)
    while under_way and time.monotonic() < deadline:
        under_way = [running for running in under_way if not _has_ended(engine, running)]
        time.sleep(0.05)
    for running in under_way:
        with suppress(Exception):
            engine.stop(running.started, at_once=True)
    for running in state.running:
        _note(state, running.cell)
    state.running.clear()


def _has_ended(engine: Engine, running: Running) -> bool:
    """Whether a cell has, or its engine can no longer say: there is nothing to wait for."""
    try:
        return engine.poll(running.started) is not None
    except Exception:
        return True
