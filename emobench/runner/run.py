"""One cell in a process of its own: fit, evaluate, and keep the state whatever happens."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.connection import wait
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from emobench import downloads
from emobench.errors import Diverged, EmobenchError, Interrupted
from emobench.files import print_anything
from emobench.recipe import Execution
from emobench.runner.build import build_data, build_joint_data, model_class
from emobench.runner.callbacks import newest_whole
from emobench.runner.choice import EXPLANATION
from emobench.runner.engines.engine import TOGETHER
from emobench.runner.evaluate import evaluate
from emobench.runner.fetch import have_inception
from emobench.runner.fit import fit, together
from emobench.runner.lease import Lease
from emobench.runner.machine import ORDERLY, record_of
from emobench.runner.record import State, finished, read_record
from emobench.runner.remote import Remote
from emobench.runner.reuse import Reuse
from emobench.runner.store import HELD, Store
from emobench.runner.threads import keep_to_a_part, threads
from emobench.runner.tracking import Tracking, tracked
from emobench.suite import plugins
from emobench.suite.cell import Cell
from emobench.suite.keys import processes

Part = Literal["fit", "evaluation"]

_TOGETHER = "together.txt"  # by its first process, which has the cell: which processes may go on with its fit


@dataclass(frozen=True)
class Job:
    """A cell and where to run it; crosses process boundaries."""

    cell: Cell
    results: Path
    data_root: Path
    workers: int = 0
    per_node: int = 1  # how many jobs run side by side on a machine at most
    threads: int = 1  # of each of its processes
    per_gpu: int = 1  # how many jobs share a GPU at most, each with that part of its memory
    execution: Execution = field(default_factory=Execution)  # of its fit
    redo: bool = False
    plugins: dict[str, str] = field(default_factory=dict)  # files that it is measured by: `plugins.used`
    tracking: Tracking | None = None  # where it is shown too; None: nowhere
    only: Part | None = None  # of the two that a cell is of; None: both
    store: str | None = None  # URL of what machines share that share no folder (see `emobench.runner.remote`)
    offline: bool = False  # nothing may be downloaded, on whichever machine
    memory: float | None = None  # GiB that it was measured to take, beside that of a GPU

    def plain(self) -> dict[str, Any]:
        """Plain values, for a process that starts cold."""
        places = {"results": str(self.results.resolve()), "data_root": str(self.data_root.resolve())}
        tracking = None if self.tracking is None else asdict(self.tracking)
        parts = {"cell": asdict(self.cell), "execution": asdict(self.execution), "tracking": tracking}
        return {**parts, **places, **{name: getattr(self, name) for name in self._others()}}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Job:
        """The job whose `plain` values these are."""
        results, data_root = Path(plain["results"]), Path(plain["data_root"])
        rest = {name: plain[name] for name in cls._others()}
        rest["execution"] = Execution(**plain["execution"])
        rest["tracking"] = None if plain["tracking"] is None else Tracking(**plain["tracking"])
        return cls(Cell(**plain["cell"]), results, data_root, **rest)

    @classmethod
    def _others(cls) -> list[str]:
        apart = ("cell", "execution", "tracking", "results", "data_root")
        return [each.name for each in fields(cls) if each.name not in apart]


def start(job: Job, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Entry of a cell's process, forked warm or started cold: its output goes to the cell's `log.txt`.

    Args:
        environment: variables that say which GPUs the process sees, and tell one of a fit on several devices from the
            others.
    """
    os.environ.update(environment)
    settle()
    folder = Store(job.results).fit_folder(job.cell.fit_key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for stream in (sys.stdout, sys.stderr):
            print_anything(stream, "utf-8")
    except OSError as error:
        print(f"{folder}: no log can be written ({error})", file=sys.stderr)
    sys.exit(execute(job))


def settle() -> None:
    """Have this process, forked by a server, end where what had it started is gone, and its loaders fork from here."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed server leaves no orphan behind
        # By default a child of a fork server starts a server of its own for its loaders' workers, and each imports
        # everything anew.
        multiprocessing.set_start_method("fork", force=True)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """End in order where the process is gone that had this one started, and at once if that takes too long.

    Args:
        parent: the sweep's; that of the server, which forked this one, lives as long as there are cells.
    """
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORDERLY)
    os.kill(os.getpid(), signal.SIGKILL)


def execute(job: Job) -> int:
    """Run a job in this process and keep its state, whatever happens.

    Returns:
        The exit code: 0 done, 1 failed or diverged, 143 after SIGTERM, `HELD` where another sweep has the cell.
    """
    store = Store(job.results)
    folder = store.fit_folder(job.cell.fit_key)
    raised: list[int] = []

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        if not raised:  # Lightning puts this handler back as a fit ends, and a second signal would break off the end
            raised.append(number)
            raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep gets it too and ends its cells in order
    helper = int(os.environ.get("LOCAL_RANK", 0)) > 0  # a further process of a fit on several devices
    leases: list[Lease | None] = []
    former = store.failure(job.cell.fit_key, job.cell.eval_key)
    try:
        signal.signal(signal.SIGTERM, stop)
        # In its handler of SIGTERM, which comes first, Lightning tells the other processes of a fit, and waits for them
        # for ever where they are in the middle of a step. They end with this one.
        _SignalConnector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
        remote = None if job.store is None else Remote(job.store)
        with ExitStack() as held:
            if not helper:
                leases.append(held.enter_context(store.lock(job.cell.fit_key)))
                if remote is not None and None not in leases:
                    leases.append(held.enter_context(remote.holding(store, job.cell.fit_key)))
            if None in leases:
                return HELD
            if not helper:
                store.elsewhere(job.cell.fit_key).unlink(missing_ok=True)  # of a run before
            try:
                if job.per_gpu > 1 and torch.cuda.is_available() and processes(job.cell.trainer) == 1:
                    keep_to_a_part(job.per_gpu)
                if job.offline:
                    downloads.stay_offline()
                if not helper and job.only != "fit":  # before hours of training, where it cannot be had
                    have_inception(job.cell, offline=downloads.offline())
                with threads(job.threads):
                    run(job, store, helper, remote)
            finally:
                (folder / "progress.json").unlink(missing_ok=True)
        return 0
    except BaseException as error:
        if any(each is not None and each.lost for each in leases):
            print("another process has this cell by now", file=sys.stderr)
            return HELD
        # Libraries may wrap or replace what the handler raised.
        ended = Interrupted(raised[0]) if raised else error
        traceback.print_exc()
        reason = describe(ended)
        if helper:
            with suppress(OSError):
                store.elsewhere(job.cell.fit_key).write_text(reason, encoding="utf-8")
        else:
            reason = (None if raised else store.failed_elsewhere(job.cell.fit_key)) or reason
            states: dict[type, State] = {Diverged: "diverged", Interrupted: "interrupted"}
            known = store.failure(job.cell.fit_key, job.cell.eval_key) if raised else None
            if known is not None and known[0].state == "failed" and known != former:
                said = f"{reason}; the sweep knew why: {known[0].reason}"  # and has written it
            else:
                said = store.keep_failure(record_of(job.cell, states.get(type(ended), "failed"), reason))
            print(said, file=sys.stderr)  # with what kept it from being written: the sweep sees the exit code alone
        return 128 + ended.signal if isinstance(ended, Interrupted) else 1
    finally:
        for number, handler in before.items():  # an engine may run jobs in the sweep's own process
            signal.signal(number, handler)


def describe(error: BaseException) -> str:
    """One line for the board: what went wrong."""
    if isinstance(error, EmobenchError | Interrupted):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:  # torch.save buries what the disk said under an error of its own
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return f"disk full: {cause}. Free some space and run again; what was finished is kept"
        if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
            return f"file too large: {cause}. Raise the file-size limit and run again; what was finished is kept"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return f"out of memory ({str(error).splitlines()[0] if str(error) else 'host'}). Use a smaller batch or model"
    return f"{type(error).__name__}: {error}"


def _wait_for_the_first(folder: Path) -> None:
    """Have a further process of a fit touch nothing of it before the first one has the cell, and what it needs.

    Those that Lightning starts itself need not wait: the first has started them in the middle of its fit.
    """
    name = os.environ.get(TOGETHER)
    while name is not None:
        with suppress(OSError):
            if (folder / _TOGETHER).read_text(encoding="utf-8") == name:
                return
        time.sleep(0.05)


def run(job: Job, store: Store, helper: bool = False, remote: Remote | None = None) -> None:
    """Fit the cell unless the store holds its fit, then evaluate it unless the store holds that too.

    A fit whose weights are gone, or that was made with other networks than are here now, is made again; likewise an
    evaluation. A job that is only of one of the two leaves the other: a setting is fitted, and evaluated where it is
    chosen.

    Args:
        helper: this is not the first process of a fit on several devices: it helps to fit and is done.
        remote: where the networks that it needs come from, and where what is finished is put.
    """
    cell = job.cell
    folder = store.fit_folder(cell.fit_key)
    if helper:
        _wait_for_the_first(folder)
    else:
        store.tidy(cell.fit_key, cell.eval_key)
        if remote is not None:
            remote.fetch(store, cell, redo=job.redo)
        if (name := os.environ.get(TOGETHER)) is not None:
            newest_whole(folder / "checkpoints")  # puts aside what cannot be read, once for all of them
            (folder / _TOGETHER).write_text(name, encoding="utf-8")
    for source in cell.sources.values():
        plugins.load(Path(source["path"]), source["sha256"])
    plugins.use(job.plugins, f"the suite or {plugins.VARIABLE} names it: put it there on every machine")
    if getattr(model_class(cell), "foreign", False) and not helper:
        store.remember(cell.fit_key, cell.files)
    data = build_data(cell, job.data_root)
    data.prepare()
    lost = Reuse(store).lost(cell)
    fitted = lost is None and finished(folder / "fit.json")
    if lost is not None and not helper:
        print(f"{lost}; the fit is made again")
        (folder / "fit.json").unlink()
    anew = not fitted or (job.redo and job.only != "evaluation")
    if helper and not anew:
        return
    tracking = None if helper or cell.track == EXPLANATION else job.tracking  # a cell that is fitted has the run
    with nullcontext() if tracking is None else tracked(tracking, cell, job.results) as logger:
        if cell.trains and anew:
            training = build_joint_data(cell, job.data_root, data) if "joint" in cell.fit["data"] else data
            options: dict[str, Any] = {"workers": job.workers, "redo": job.redo, "logger": logger}
            anew = fit(cell, store, training, **options, execution=job.execution)
        elif not fitted:
            pooled = [read_record(store.fit_folder(each) / "fit.json") for each in cell.needs.get("networks", ())]
            record_of(cell, "done", fit=together(pooled)).write(folder / "fit.json")
        if remote is not None and not helper:
            remote.push_fit(store, cell.fit_key)
        if not helper and job.only != "fit" and (anew or job.redo or not Reuse(store).evaluated(cell)):
            if not job.redo:
                (folder / cell.eval_key / "result.json").unlink(missing_ok=True)  # of networks that are no longer here
            evaluate(cell, store, data)
            if remote is not None:
                remote.push_evaluation(store, cell.fit_key, cell.eval_key)
