"""`emobench bench`: train and measure every cell of a suite, and write its board."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from emobench import downloads
from emobench.commands import budget as budgets
from emobench.commands.live import Display, show_again, show_notes, show_overrides, show_plan, show_stand_ins
from emobench.errors import EmobenchError, Interrupted, Unsaid
from emobench.files import say
from emobench.recipe import Execution
from emobench.report.written import is_written, mark_unwritten
from emobench.runner.budget import execution_of
from emobench.runner.calibrate import gpu_memory, memory_of
from emobench.runner.choice import NOT_CHOSEN
from emobench.runner.engines import engine_at
from emobench.runner.engines.engine import Engine
from emobench.runner.fetch import INCEPTION, fetch_where_it_lacks, lacks_inception
from emobench.runner.machine import Machines
from emobench.runner.reuse import OnExisting, to_run
from emobench.runner.store import Origin, Store, check_owner, load_board
from emobench.runner.sweep import Sweep, suite_is_written, sweep, trusting, write_suite
from emobench.runner.threads import Packing, fit_on_a_gpu
from emobench.runner.trial import Calibration
from emobench.suite.budget import PlanFile, planned
from emobench.suite.cell import Cell, Plan
from emobench.suite.file import Suite, is_file, load, packaged, written
from emobench.suite.plan_cache import plan_of
from emobench.suite.scale import scaled

if TYPE_CHECKING:
    from emobench.report.board import Board
    from emobench.report.memory import Memory
    from emobench.runner.remote import Remote
    from emobench.runner.tracking import Tracking

ENDED_WELL = {"done", NOT_CHOSEN}


@dataclass(frozen=True)
class Outcome:
    """How a run of a suite ended.

    Attributes:
        board: its folder.
        exit_code: 0 where every cell is done, or a setting that is not chosen, and the board is written; 128 and a
            signal's number where that stopped it; else 1.
    """

    board: Path
    exit_code: int


def bench(
    suite: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    results: Path,
    data: Path,
    *,
    name: str | None = None,
    dry_run: bool = False,
    engine: str = "local",
    address: str | None = None,
    resources: Mapping[str, str] | None = None,
    remote: str | None = None,
    on_existing: Literal["skip", "redo", "trust"] = "skip",
    workers: int | None = None,
    per_node: int | None = None,
    per_gpu: str | None = None,
    budget: str | None = None,
    recalibrate: bool = False,
    scale: float | None = None,
    offline: bool = False,
    log: Sequence[Literal["wandb", "tensorboard"]] = (),
    wandb: Literal["online", "offline"] | None = None,
    samples_every: int | None = None,
    weights_dir: Path | None = None,
) -> Outcome:
    """Run the cells of a suite that have no result yet, and write its board after each.

    Args:
        suite: a file, the name of a suite of the package, or the content of a file with the board's `name`.
        overrides: as `--set` takes them.
        name: of the board; None: the suite's, and the overrides.
        engine: where cells run: the name of an engine, or `my_engine.py:Mine`.
        address: of the cluster that the engine runs them on.
        resources: what each of its jobs asks the cluster for.
        remote: URL of an object store that holds the results too, for machines that share no folder.
        on_existing: what becomes of cells that have a result; "trust": also of those committed with the board.
        workers: loader processes of each cell; None: as the hardware suggests.
        per_node: cells side by side on this machine; None: as the hardware suggests.
        per_gpu: cells that share a GPU, a number or "auto"; None: each has one to itself.
        budget: of time, such as "2h", that the suite is fitted to; None: that of its board, if it has one.
        recalibrate: measure this machine again, and write the board's plan anew.
        log: where cells and boards are shown too.
        wandb: how Weights & Biases logs; None: as the suite says, and only where it or `log` asks for it.
        samples_every: epochs between two logged grids of a generator's faces; None: ten a fit.
        scale: a share of faces and epochs, with drawn faces for datasets that are not here; None: the whole.

    Raises:
        EmobenchError: the suite cannot be read or planned, the results cannot be written, or what is to be logged with
            is not installed.
    """
    if offline or downloads.offline():
        downloads.stay_offline()
    if weights_dir is not None:
        os.environ["EMOBENCH_WEIGHTS"] = str(weights_dir.resolve())
    store = Store(results)
    store.check_writable()
    if isinstance(suite, Mapping):
        suite, name = written(suite, overrides, results)
    loaded = load(_completed(suite), overrides, name)
    if scale is not None:
        loaded = scaled(loaded, scale, name, data)
        show_stand_ins(loaded)
    shared = None if remote is None else _reached(remote)
    loaded = budgets.named(loaded, results, shared, budget, name, recalibrate)
    check_owner(results, loaded)
    show_overrides(loaded)
    tracking = None if dry_run else _tracking(loaded, log, wandb, offline, samples_every)
    with contextlib.ExitStack() as ending:

        @functools.cache
        def built() -> Engine:
            """The engine, where something has to be run or measured."""
            return ending.enter_context(contextlib.closing(engine_at(engine, address, resources)))

        place = budgets.place_of(loaded, results, shared)
        fixed = None if loaded.budget is None or recalibrate else place.read()
        if fixed is not None and not dry_run:
            fixed = place.keep(fixed)  # where it lacks: here, or in the store
        if loaded.budget is not None and fixed is None:
            plan = plan_of(loaded, data, store.cells)
            how = Sharing(built(), per_node, per_gpu, len(plan.cells))
            side = how.packing()
            try:
                fixed = budgets.fit(
                    loaded,
                    plan,
                    store,
                    place,
                    data,
                    side,
                    numbers=how.numbers,
                    if_it_pays=per_gpu == "auto",
                    packed=lambda number: how.packing(per_gpu=number),
                    workers=_workers(side.machines) if workers is None else workers,
                    recalibrate=recalibrate,
                    dry_run=dry_run,
                )
            except Interrupted as stopped:
                say(str(stopped), error=True)
                return Outcome(results / loaded.name, 128 + stopped.signal)
        if fixed is not None:
            budgets.warn(loaded, fixed, data)
            loaded = planned(loaded, fixed)
        plan = _plan(loaded, results, data, on_existing, dry_run)
        if shared is not None and not dry_run:
            shared.sync(store, plan.cells)
        chosen = to_run(results, plan, on_existing)
        cells = [cell for cell, _ in chosen]
        how = Sharing(built() if cells else None, per_node, per_gpu, len(plan.cells))

        def execution(cell: Cell) -> Execution:
            return execution_of(cell, loaded, plan.cells, fixed)

        packing = _packing(how, fixed)
        if dry_run:
            lacking = lacks_inception(cells if on_existing == "trust" else plan.cells)
            fetched = [INCEPTION] if lacking and not downloads.offline() else []
            show_plan(plan, cells, results, packing, [*plan.downloads, *fetched], on_existing == "redo", execution)
        else:
            show_notes(plan)
        show_again(f"{cell.label}: {why}" for cell, why in chosen if why is not None)
        board = BoardFile(results, plan, Origin.of(loaded, results), data)
        if dry_run:
            return Outcome(board.path.parent, 0)
        if not cells:
            outcome = _without_a_sweep(board)
            _show(tracking, board)
            return outcome
        built().open(results, remote)
        run = functools.partial(
            sweep,
            plan,
            cells,
            results,
            data,
            engine=built(),
            packing=packing,
            workers=_workers(packing.machines) if workers is None else workers,
            redo=on_existing == "redo",
            tracking=tracking,
            remote=remote,
            execution=execution,
            memory=memory_of(store, plan.cells, packing),
        )
        state = _shown(run, plan, board)
    if board.due or not board.whole():
        board.write()
    _write_papers(results, loaded.name)
    if state.signal is not None:
        say(f"stopped by signal {state.signal}; run the same command again to go on", error=True)
        return Outcome(board.path.parent, 128 + state.signal)
    _show(tracking, board)
    board.say_where()
    return _outcome(board, [found for found, _ in state.states.values()])


def _plan(suite: Suite, results: Path, data: Path, on_existing: OnExisting, dry_run: bool) -> Plan:
    """The cells of a suite, with Inception's weights fetched where they are to be measured by them."""
    cache = Store(results).cells
    try:
        plan = plan_of(suite, data, cache)
    except Unsaid as error:
        from emobench.runner.usual import advised

        raise advised(error) from None
    cells = plan.cells
    if on_existing == "trust":
        plan = trusting(results, plan)
        cells = [cell for cell, _ in to_run(results, plan, on_existing)]  # for those alone it is fetched
    if not dry_run and fetch_where_it_lacks(cells, offline=downloads.offline()):
        plan = plan_of(suite, data, cache)
        return trusting(results, plan) if on_existing == "trust" else plan
    return plan


def _reached(url: str) -> Remote:
    """The object store, which can be written."""
    from emobench.runner.remote import Remote

    found = Remote(url)
    found.check()
    return found


def _shown(run: Callable[..., Sweep], plan: Plan, board: BoardFile) -> Sweep:
    """Run a sweep, with its live table, and its board written as cells end."""
    board.write()  # at once, so that a reader sees results from the first minute
    with Display(Console(), plan) as display:

        def on_change(state: Sweep) -> None:
            display.update(state)
            board.changed()

        def on_tick(state: Sweep) -> None:
            display.update(state)
            board.write_if_due()

        state = run(on_change=on_change, on_tick=on_tick)
        display.update(state)
    return state


def _without_a_sweep(board: BoardFile) -> Outcome:
    """Where all cells have their results: the board is written if it is not that of them."""
    if board.whole():
        say(board.summary())
    else:
        board.write()
        board.say_where()
    _write_papers(board.results, board.plan.suite)
    return _outcome(board)


@dataclass(frozen=True)
class Sharing:
    """How the command wants cells to share what an engine runs them on.

    Attributes:
        engine: None: nothing has to be run.
        cells: of the plan.

    Raises:
        EmobenchError: there is no such number of cells, or nothing that they could share.
    """

    engine: Engine | None
    per_node: int | None
    per_gpu: str | None
    cells: int

    def __post_init__(self) -> None:
        asked, engine = self.per_gpu, self.engine
        if engine is not None and not engine.shares_machines and self.per_node not in (None, 1):
            raise EmobenchError(
                f"--per-node {self.per_node}: the engine {engine.name} gives each cell a job of its own, which shares "
                "its cores with no other; leave it out. --resource says how large a job is, and how many run at once"
            )
        if asked is None:
            return
        if asked != "auto" and not (asked.isdecimal() and int(asked) > 0):
            raise EmobenchError(f"--per-gpu {asked}: it is a number of cells from 1 on, or auto")
        if engine is None or asked in ("auto", "1"):
            return
        if not engine.shares_gpus:
            raise EmobenchError(f"--per-gpu {asked}: the engine {engine.name} gives each cell whole GPUs; leave it out")
        if not self.machines.gpus:
            raise EmobenchError(f"--per-gpu {asked}: no GPU is here. On cores, --per-node packs cells")

    @functools.cached_property
    def machines(self) -> Machines:
        """What cells share."""
        return Machines.here(0) if self.engine is None else self.engine.machines()

    @property
    def on_gpus(self) -> bool:
        """Whether cells may share GPUs."""
        engine = self.engine
        return self.per_gpu is not None and engine is not None and engine.shares_gpus and self.machines.gpus > 0

    def numbers(self, found: Mapping[str, Calibration]) -> Sequence[int]:
        """How many cells may share a GPU: as many as the command says, or as it has memory for by what was measured of
        each, half as many, and so on, down to two.
        """
        if self.per_gpu is None or not self.on_gpus:
            return []
        if self.per_gpu != "auto":
            return [int(self.per_gpu)] if int(self.per_gpu) > 1 else []
        most = min(fit_on_a_gpu(gpu_memory(), [each.gpu_memory_gb for each in found.values()]), self.cells)
        return [most >> times for times in range(most.bit_length() - 1)]

    def packing(self, threads: int | None = None, per_gpu: int = 1) -> Packing:
        """How the plan's cells share what there is.

        Args:
            threads: of each cell, as a board's plan says; None: as many as there are cores for.
            per_gpu: cells that share a GPU, where the command leaves it to what was measured.

        Raises:
            EmobenchError: the plan's threads need more cores than are asked for, though more could be.
        """
        if self.engine is not None and not self.engine.shares_machines:
            cores = self.machines.cores
            if threads is not None and threads > cores:
                raise EmobenchError(
                    f"the plan of this board has cells of {threads} threads, and a job of the engine "
                    f"{self.engine.name} {cores} cores; fewer threads round otherwise. Ask for as many (of Slurm: "
                    f"--resource cpus_per_task={threads}), or make the plan anew (--recalibrate)"
                )
            return Packing.on(self.machines, 1, self.cells, threads)
        shared = 1
        if self.per_gpu is not None and self.on_gpus:
            shared = per_gpu if self.per_gpu == "auto" else int(self.per_gpu)
        asked = self.per_node
        if asked is not None and asked > 0 and self.per_gpu == "auto" and self.machines.gpus:
            asked = min(asked, self.machines.gpus * shared)  # as many as fit, and at most so many
        return Packing.on(self.machines, asked, self.cells, threads, shared)


def _packing(how: Sharing, fixed: PlanFile | None) -> Packing:
    """How the cells of a plan share machines."""
    packing = how.packing() if fixed is None else how.packing(fixed.threads, fixed.per_gpu)
    if how.engine is not None and packing.threads > (cores := packing.machines.cores):
        say(f"the board's plan gives each cell {packing.threads} threads, and {cores} cores are here: they take turns")
    if how.per_gpu == "auto" and how.machines.gpus:
        say(_said(packing.per_gpu, measured=fixed is not None))
    return packing


def _said(per_gpu: int, measured: bool) -> str:
    """What came of `--per-gpu auto`."""
    if per_gpu > 1:
        return f"{per_gpu} cells share a GPU, as the board's plan says"
    way = "--recalibrate, with --budget, measures" if measured else "with --budget it is measured"
    return f"each cell has a GPU to itself; {way} whether it pays to share one"


def _completed(suite: str | Path) -> str | Path:
    """The file that a name means in a checkout, whose `benchmarks/` has suites too; those of the package come first."""
    near = Path("benchmarks") / f"{suite}.toml"
    if is_file(suite) or suite in packaged() or not near.is_file():
        return suite
    print(f"the suite {suite} is {near}", file=sys.stderr)
    return near


def option_of(results: Path) -> str:
    """What a command needs further to find these results; empty: it looks there by itself."""
    return "" if results == Path("results") else f" --results {shlex.quote(str(results))}"


def _write_papers(results: Path, board: str) -> None:
    """What the document of a board reports, beside it; as with the board itself, nothing stops for it."""
    from emobench.report import papers
    from emobench.report.written import why

    try:
        if papers.suites(results, [board]):
            papers.write(results)
    except Exception as error:
        say(f"emobench: {results / papers.FILE} could not be written: {why(error, results / papers.FILE)}", error=True)


def _tracking(
    suite: Suite, log: Sequence[str], wandb: str | None, offline: bool, samples_every: int | None
) -> Tracking | None:
    """Where the cells are shown: as the suite and the command ask."""
    if not log and wandb is None and suite.wandb is None:
        return None
    from emobench.runner.tensorboard import check_installed
    from emobench.runner.tracking import Tracking

    if "tensorboard" in log:
        check_installed()
    return Tracking(
        suite=suite.name,
        real_faces=suite.real_faces,
        every=samples_every,
        wandb=_wandb(suite, wandb, offline) if "wandb" in log or wandb is not None or suite.wandb is not None else None,
        tensorboard="tensorboard" in log,
    )


def _wandb(suite: Suite, asked: str | None, offline: bool) -> dict[str, str]:
    """How the cells are logged to W&B: as the suite or the command asks, offline where it cannot be reached."""
    from emobench.runner.wandb import reachable_mode

    options = {"project": "emobench"} if suite.wandb is None else suite.wandb.model_dump(exclude_none=True)
    wanted = "offline" if offline else asked if asked is not None else options["mode"]
    mode, why = reachable_mode(wanted)
    if why is not None:
        say(f"W&B logs offline: {why}", error=True)
    return {**options, "mode": mode}


def _show(tracking: Tracking | None, board: BoardFile) -> None:
    """Show the cells that are not shown yet, and the board; what keeps them from being shown costs nothing else."""
    written = None if tracking is None else board.written()
    if tracking is None or written is None:
        return
    from emobench.commands.tracking import show

    try:
        show(tracking, board.results, written)
    except Exception as error:
        say(f"emobench: the board is not logged: {type(error).__name__}: {error}", error=True)


def _outcome(board: BoardFile, ended: Sequence[str] = ()) -> Outcome:
    """Exit code 1 where the board could not be written, or a cell of it failed or diverged, or is not done.

    Args:
        ended: the states of cells that this sweep ran.
    """
    whole = board.problem is None and {*board.states(), *ended} <= ENDED_WELL
    return Outcome(board.path.parent, 0 if whole else 1)


def _workers(machines: Machines) -> int:
    """Loader processes per cell: on a CPU they would only take cores from the training."""
    return max(0, min(8, machines.cores - 1)) if machines.gpus else 0


class BoardFile:
    """A plan's board on disk, and never a reason to stop training.

    It is written when the first cell has ended, then once a minute where others have, and in the end. No cell is
    started meanwhile, so that a board that takes seconds is written more seldom.

    Attributes:
        problem: why the board could not be written when that was last tried; None where it could.
        due: a cell has ended since it was written.
    """

    AT_ONCE = 1  # cells after which it is written at once
    EVERY = 60.0  # seconds from then on, at least ...
    SHARE = 0.05  # ... and of the time that may be spent on it

    def __init__(self, results: Path, plan: Plan, origin: Origin, data: Path | None = None) -> None:
        self.results, self.plan, self.origin, self.data = results, plan, origin, data
        self.path = results / plan.suite / "leaderboard.md"
        self.problem: str | None = None
        self.due = False
        self._written, self._next = 0, 0.0
        self._memory: Memory | None = None
        self._suite: tuple[int, ...] | None = None  # the list of cells as it was written
        self._board: Board | None = None  # as it was written last

    def whole(self) -> bool:
        """Whether the board on disk is that of the plan, with the results that the store holds now."""
        try:
            return suite_is_written(self.results, self.plan, self.origin) and is_written(self.results, self.plan.suite)
        except Exception:  # what keeps it from being read keeps it from being written, and is said there
            return False

    def changed(self) -> None:
        """A cell has ended."""
        self.due = True
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write it if a cell has ended since, and it is time."""
        if self.due and (self._written <= self.AT_ONCE or time.monotonic() >= self._next):
            self.write()

    def write(self) -> None:
        """Write it; where that fails, whatever the reason, say so once and in the board itself."""
        from emobench.report.memory import Memory
        from emobench.report.write import write

        started = time.monotonic()
        self._memory = self._memory or Memory()
        try:
            self._list()
            self._board = write(self.results, self.plan.suite, self._memory, self.data)
        except Exception as error:
            reason = mark_unwritten(self.results, self.plan.suite, error)
            if reason != self.problem:
                say(f"emobench: the board {self.path} could not be written: {reason}", error=True)
            self.problem = reason
        else:
            self.problem = None
        took = time.monotonic() - started
        self.due, self._written = False, self._written + 1
        self._next = time.monotonic() + max(self.EVERY, took / self.SHARE - took)

    def written(self) -> Board | None:
        """The board as it was written; None where that failed."""
        if self._board is None:
            self.write()
        return self._board if self.problem is None else None

    def _list(self) -> None:
        """Write the list of its cells, unless that lies there as it was written."""
        from emobench.report.memory import identity

        path = self.path.with_name("suite.json")
        if self._suite is None or not path.exists() or identity(path) != self._suite:
            write_suite(self.results, self.plan, self.origin)
            self._suite = identity(path)

    def states(self) -> list[str]:
        """The states of its cells, skipped ones aside; none where the board has no list of its cells."""
        try:
            states = [row.state for row in load_board(self.results, self.plan.suite)]
        except Exception:
            return []
        return [state for state in states if state != "skipped"]

    def summary(self) -> str:
        """How many cells are done, and where the board is."""
        states = self.states()
        others = states.count(NOT_CHOSEN)
        of_them = f", {others} of them settings that are not chosen" if others else ""
        return f"{states.count('done') + others} of {len(states)} cells are done{of_them}; the board is {self.path}"

    def say_where(self) -> None:
        """Where the board is, or why what lies there is another one."""
        if self.problem is None:
            view = f"emobench view {self.plan.suite}{option_of(self.results)}"
            say(f"The board is {self.path}; as a page: {view}")
        else:
            say(f"emobench: {self.path} is not the board of these results: {self.problem}", error=True)
