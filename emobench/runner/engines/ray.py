"""On a Ray cluster: a task a cell, which has a process of the node run it, as on one machine.

Ray says where a cell runs and keeps its devices, cores and memory for it. What was done is the store's to say: a task
is never run again by Ray, and its value is an exit code. On each node an actor holds the server from which the
processes of cells are forked, so that they start warm; a cell's process ends with its task, a node's with the sweep.
"""

from __future__ import annotations

import fcntl
import functools
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from emobench.errors import EmobenchError, StoreError, first_line
from emobench.files import say
from emobench.runner.engines.engine import AGAIN, LOST, Engine
from emobench.runner.engines.local import Local, Started, on_several_devices
from emobench.runner.machine import ORDERLY, Machines, lives, versions
from emobench.runner.record import Record
from emobench.runner.remote import Remote, failure
from emobench.runner.sockets import SHORT, too_long
from emobench.runner.store import HELD, Store
from emobench.runner.usage import is_held
from emobench.suite.cell import Cell
from emobench.suite.keys import package_digest, processes

if TYPE_CHECKING:
    from emobench.runner.run import Job

_PARTS = 10_000  # into which Ray divides a GPU
QUEUED = 2  # tasks that wait for a place, so that none stands empty until the sweep sees it
PATIENCE = 10.0  # seconds for which a cluster's head may be silent
LOOK = 5.0  # seconds between two looks at which nodes there are
SHORT_OF_MEMORY = 4  # times that a cell is ended for memory until it has failed
CALM = 10.0  # seconds after that in which its memory may be given back
GREETING = 120.0  # seconds that a node has to say what is installed on it
_FOLDER = "emobench-node-"
_IN_USE = ".in-use"  # a file there, which is locked
_CREATION = "error raised in its creation task"  # what Ray says of an actor that could not be made
# Ends processes, whose ids it is given, when its input ends: with whoever holds the other end of that, however it ends.
_END_WITH = """
import os, signal, sys

handles = []
for each in sys.argv[1:]:
    try:
        handles.append(os.pidfd_open(int(each)))
    except ProcessLookupError:
        pass
sys.stdin.read()
for handle in handles:
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
_LESS = "Use a smaller batch or model, or nodes with more memory"


@dataclass(eq=False)
class Task:
    """A cell on its way, or on a node."""

    number: int
    cell: Cell
    values: Any  # ray.ObjectRefGenerator: where it runs, then its exit code
    node: str | None = None
    host: str | None = None


class Ray(Engine):
    """Tasks of a Ray cluster."""

    name = "ray"

    def __init__(self, address: str | None = None, resources: Mapping[str, str] | None = None) -> None:
        super().__init__(None, resources)
        ray = _ray()
        os.environ.setdefault("RAY_task_oom_retries", "0")  # else Ray runs a cell for ever that memory does not suffice
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if too_long():
            os.environ.setdefault("RAY_TMPDIR", SHORT)
        try:
            _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
            before = set(_below(os.getpid()))
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError) as error:
            raise EmobenchError(
                f"no Ray cluster can be reached at {address or os.environ.get('RAY_ADDRESS', 'this machine')} "
                f"({' '.join(str(error).split())[:300]}). Start one with `ray start --head`, or leave --address out"
            ) from None
        self.ray = ray
        self.watch = _end_with_this_process(set(_below(os.getpid())) - before)
        self.run_cell = ray.remote(max_retries=0, num_returns="streaming")(run_cell)  # sent to the cluster once
        self.token = token_hex(8)  # of this sweep, in the names of its actors
        self.results = Store(Path("results"))
        self.remote: Remote | None = None
        self.probe: Path | None = None  # a file that nodes see which share the results' folder
        self.nodes: dict[str, Any] = {}  # node id -> actor
        self.asked: dict[str, Any] = {}  # node id -> what its actor says of whether it can run cells
        self.ends: dict[str, Any] = {}  # node id -> what its actor says at its end
        self.refused: dict[str, str] = {}  # node id -> why it cannot
        self.told = 0  # how many of these were named
        self.tasks: list[Task] = []
        self.short: Counter[str] = Counter()  # how often a cell was ended for memory, which it or another one took
        self.calm = -math.inf  # until when nothing is started, since memory was short
        self.count = 0
        self.on_gpus: bool | None = None  # whether cells run on GPUs: as at the start, whatever joins
        self.alive: list[dict[str, Any]] = []  # nodes that can run cells: those that have cores, and GPUs, to give
        self.looked = -math.inf
        self._look()

    # ---- the cluster -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.looked = time.monotonic()
        cores = [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        gpus = [node for node in cores if node["Resources"].get("GPU", 0) >= 1]
        if self.on_gpus is None and cores:
            self.on_gpus = bool(gpus)  # a head node often has none, and is then for no cell
        self.alive = [node for node in (gpus if self.on_gpus else cores) if node["NodeID"] not in self.refused]

    def machines(self) -> Machines:
        alive = [node["Resources"] for node in self.alive]
        if not alive:
            raise EmobenchError("the Ray cluster has no node with a CPU to give. Add one with `ray start --address`")
        cores, gpus = (int(min(each.get(name, 0) for each in alive)) for name in ("CPU", "GPU"))
        gpus = gpus if self.on_gpus else 0
        memory = int(min(each.get("memory", 0) for each in alive)) // 2**30
        return Machines(cores, gpus, memory, len(alive))

    def open(self, results: Path, store: str | None = None) -> None:
        self.results = Store(results)
        if store is not None:
            self.remote = Remote(store)
        else:
            self.probe = (results / "cells" / f".probe.{self.token}").resolve()
            self.probe.write_bytes(b"")
        self._greet()
        self._hear(GREETING)
        if self.refused:
            raise EmobenchError(
                f"nodes of the cluster cannot run these cells: {'; '.join(list(self.refused.values())[:6])}. Install "
                "the same versions on all of them (pip install --constraint constraints.txt). Put the results into a "
                "folder that all nodes share (--results), or name an object store (--store s3://bucket/folder)"
            )

    def _greet(self) -> None:
        """Put an actor on every node that has none, and ask it whether it can run cells; forget those that are gone."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._look()
        alive = {node["NodeID"] for node in self.alive}
        ends = {end: node for node, end in self.ends.items() if node not in self.asked}
        ended = self.ray.wait([*ends], num_returns=len(ends), timeout=0)[0] if ends else []
        for gone in (self.nodes.keys() - alive | {ends[end] for end in ended}) - self.refused.keys():
            for of_nodes in (self.nodes, self.asked, self.ends):
                of_nodes.pop(gone, None)
        for new in alive - self.nodes.keys():
            placed = self.ray.remote(Node).options(
                name=_name(self.token, new),
                num_cpus=0,
                max_concurrency=1024,
                scheduling_strategy=NodeAffinitySchedulingStrategy(new, soft=False),
            )
            try:
                actor = placed.remote(installed(), None if self.probe is None else str(self.probe))
            except ValueError:  # one that has just ended keeps its name until the cluster knows
                continue
            self.nodes[new], self.asked[new], self.ends[new] = actor, actor.unfit.remote(), actor.end.remote()

    def _hear(self, patience: float = 0) -> bool:
        """Note which nodes cannot run cells, of those that have answered; returns whether one was refused now.

        Args:
            patience: seconds to wait for all answers.
        """
        if not self.asked:
            return False
        before = len(self.refused)
        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in self.alive}
        ready, _ = self.ray.wait(list(self.asked.values()), num_returns=len(self.asked), timeout=patience)
        for node, answer in list(self.asked.items()):
            if answer not in ready:
                continue
            del self.asked[node]
            try:
                why = self.ray.get(answer)
            except self.ray.exceptions.RayError as error:
                why = None
                if _CREATION in str(error):
                    why = f"emobench cannot be loaded there ({first_line(_cause(error))})"
                else:
                    self.nodes.pop(node, None)  # it was ended, and another one is put there
            if why is not None:  # its actor stays, and says so to each cell
                self.refused[node] = f"{hosts.get(node, 'a node')} ({node[:6]}): {why}"
        self.alive = [node for node in self.alive if node["NodeID"] not in self.refused]
        return len(self.refused) > before

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def start(self, job: Job) -> Task | None:
        if not self.alive or time.monotonic() < self.calm:  # nodes come and go, and memory is given back
            return None
        wanted = self._wanted(job)
        if len(self.tasks) >= self._room(wanted) + (0 if self.short else QUEUED):
            return None
        self.count += 1
        elsewhere = {"label_selector": {"ray.io/node-id": f"!in({','.join(self.refused)})"}} if self.refused else {}
        submit = self.run_cell.options(**wanted, **elsewhere, name=f"emobench {job.cell.label}")
        task = Task(self.count, job.cell, submit.remote(self.token, self.count, job.plain()))
        self.tasks.append(task)
        return task

    def _wanted(self, job: Job) -> dict[str, float]:
        """What of a node a job takes: its threads' cores, its devices, its share of the memory or what was measured."""
        least = self.machines()
        count = 1
        gpus: float = math.floor(_PARTS / job.per_gpu) / _PARTS if least.gpus else 0
        if on_several_devices(job):
            count = processes(job.cell.trainer) or 1
            gpus = min(count, least.gpus)
        smallest = min(int(node["Resources"].get("memory", 0)) for node in self.alive)
        share = 1 if count > 1 or job.cell.label in self.short else job.per_node
        measured = math.ceil(2**30 * count * (job.memory or 0))
        memory = min(smallest, max(1, smallest // share, measured))
        cores = min(least.cores, job.threads * count)
        return {"num_cpus": cores, "num_gpus": gpus, "memory": memory}

    def _room(self, wanted: dict[str, float]) -> int:
        """How many such jobs the nodes have place for at once."""
        named = {"CPU": wanted["num_cpus"], "GPU": wanted["num_gpus"], "memory": wanted["memory"]}
        return sum(
            min(int(node["Resources"].get(name, 0) / each + 1e-9) for name, each in named.items() if each)
            for node in self.alive
        )

    def poll(self, started: Task) -> int | str | None:
        code = self._code(started)
        if code is not None and started in self.tasks:
            self.tasks.remove(started)
        return code

    def _code(self, task: Task) -> int | str | None:
        errors = self.ray.exceptions
        try:
            while self.ray.wait([task.values], timeout=0)[0]:
                value = self.ray.get(next(task.values))
                if isinstance(value, Ended):
                    return self._bring(task.cell, value) or value.code
                task.node, task.host = value
        except errors.TaskCancelledError:
            return -signal.SIGTERM
        except errors.RayTaskError as error:  # which may be of the kind of its cause too
            cause = _cause(error)
            if isinstance(cause, errors.OutOfMemoryError):  # Ray ended what runs the cells of its node
                return self._out_of_memory(task)
            if isinstance(cause, ImportError) and task.node is None:  # on a node that has no emobench
                self._greet()
                return AGAIN if self._hear(GREETING) else LOST
            lost = isinstance(cause, errors.RayActorError | errors.RaySystemError | errors.WorkerCrashedError)
            return LOST if lost else f"Ray could not run it: {type(cause).__name__}: {cause}"
        except errors.OutOfMemoryError:
            return self._out_of_memory(task)
        except (errors.RayError, StopIteration):  # its node, its worker or the actor of its node is gone
            return LOST
        return None

    def _out_of_memory(self, task: Task) -> int | str:
        """What is said of a cell that Ray ended to have memory again, which may have been another one's.

        Ray looks at its own processes, which are all small, and ends whichever it likes: memory belongs to those of
        cells. So each that was ended runs again, with a node's memory to itself, once what took it may have ended; a
        few times, since the wrong one may be ended then too.
        """
        self.short[task.cell.label] += 1
        self.calm = time.monotonic() + CALM
        if self.short[task.cell.label] < SHORT_OF_MEMORY:
            return AGAIN
        return f"out of memory on {task.host or 'a node'}, which it had to itself: Ray ended it. {_LESS}"

    def _bring(self, cell: Cell, ended: Ended) -> str | None:
        """Where nodes share no folder with this machine, fetch what a cell made, or write how it failed.

        Returns:
            Why that could not be done.
        """
        if self.remote is None or ended.code in (HELD, AGAIN):
            return None
        try:
            if ended.failure is not None:
                self.results.keep_failure(Record.model_validate_json(ended.failure))
            elif self.remote.pull_fit(self.results, cell.fit_key):
                self.remote.pull_evaluation(self.results, cell.fit_key, cell.eval_key)
        except (OSError, StoreError) as error:
            return f"it ended, and what it made could not be fetched: {error}"
        return None

    def where(self, started: Task) -> str | None:
        return started.host

    def stop(self, started: Task, *, at_once: bool = False) -> None:
        with suppress(self.ray.exceptions.RayError):
            if started.node is None:
                self.ray.cancel(started.values, force=False)  # it waits for a place
            elif started.node in self.nodes:
                self.nodes[started.node].stop.remote(started.number, at_once)

    def wait(self, started: Sequence[Task]) -> None:
        if started:
            self.ray.wait([task.values for task in started], timeout=1)
        else:
            time.sleep(1)
        if time.monotonic() - self.looked > LOOK:
            self._greet()
        self._hear()
        for why in list(self.refused.values())[self.told :]:
            say(f"not used: {why}")
        self.told = len(self.refused)

    def close(self) -> None:
        if self.probe is not None:
            self.probe.unlink(missing_ok=True)
        if ending := [actor.close.remote() for actor in self.nodes.values()]:
            self.ray.wait(ending, num_returns=len(ending), timeout=PATIENCE)
        for actor in self.nodes.values():
            self.ray.kill(actor)
        self.ray.shutdown()
        if self.watch is not None:
            self.watch.communicate()


def _ray() -> Any:
    """The library, which only this engine loads."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EmobenchError(f"the engine ray needs Ray ({error}). Install it: pip install 'emobench[ray]'") from None
    return ray


def _below(process: int) -> Iterator[int]:
    """The processes that descend from one."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text(encoding="ascii").split()):
                yield child
                yield from _below(child)


def _end_with_this_process(started: Collection[int]) -> subprocess.Popen[bytes] | None:
    """Have what Ray started here, where it joined no cluster, end with this process even where that is killed.

    Raylet and head do; the agents try for a minute to report that to the head.
    """
    if not started:
        return None
    command = [sys.executable, "-I", "-S", "-c", _END_WITH, *map(str, started)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _name(token: str, node: str) -> str:
    return f"emobench-{token}-{node}"


def _unfit(wanted: Mapping[str, str], probe: str | None) -> str | None:
    """Why this machine cannot run the cells of a sweep; None: it can."""
    here = installed()
    differ = [f"{name} {here.get(name, 'none')}, not {want}" for name, want in wanted.items() if here.get(name) != want]
    if differ:
        return f"has {', '.join(differ[:4])}"
    if probe is not None and not Path(probe).exists():
        return f"{Path(probe).parents[1]} is not the same folder there"
    return None


def _check_reachable(address: str) -> None:
    """A cluster at HOST:PORT listens there: Ray itself would try for many minutes.

    Raises:
        OSError, ValueError: it does not, or this is the address of a client's server.
    """
    if "://" in address:
        raise ValueError("a sweep runs on a node of the cluster: give the address of its head, as HOST:PORT")
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _cause(error: Exception) -> BaseException:
    """What went wrong in a task or an actor, behind what Ray says of it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


@functools.cache
def installed() -> dict[str, str]:
    """What decides numbers on a machine: Python, emobench with its code, and the libraries that it needs."""
    found = {"Python": f"{sys.version_info.major}.{sys.version_info.minor}", "emobench": versions().emobench}
    needed = [each for each in requires("emobench") or () if "extra ==" not in each]
    names = (re.match(r"[\w.-]+", each) for each in (*needed, "ray"))
    for name in (each.group() for each in names if each is not None):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return {**found, "emobench's code": package_digest()[:12]}


@dataclass(frozen=True)
class Ended:
    """How a cell's process ended.

    Attributes:
        failure: its record where it did not end well and its node keeps its results for itself.
    """

    code: int
    failure: str | None


def run_cell(token: str, number: int, job: dict[str, Any]) -> Iterator[tuple[str, str] | Ended]:
    """The task of a cell: yields its node, as its id and its name, then how the cell's process ended."""
    import ray

    context = ray.get_runtime_context()
    try:
        node = _node(token, context.get_node_id())
    except ValueError:  # the sweep has not seen this node yet, or will have none of it
        yield Ended(AGAIN, None)
        return
    yield context.get_node_id(), os.uname().nodename
    gpus = context.get_accelerator_ids().get("GPU", [])
    try:
        yield ray.get(node.run.remote(number, job, [str(each) for each in gpus], os.getpid()))
    except BaseException:  # cancelled, or Ray ends, or has ended the node's actor
        node.stop.remote(number, False)
        raise


def _node(token: str, node: str) -> Any:
    """The actor of a node, which the sweep puts there as soon as it sees it, and again where it has ended."""
    import ray

    until = time.monotonic() + 60
    while True:
        try:
            return ray.get_actor(_name(token, node))
        except ValueError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def new_folder() -> Path:
    """One of this machine alone, for results that go to an object store; those of killed processes are deleted."""
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    fcntl.flock(os.open(folder / _IN_USE, os.O_CREAT | os.O_WRONLY), fcntl.LOCK_EX)  # until this process ends
    for left in folder.parent.glob(f"{_FOLDER}*/{_IN_USE}"):
        if not is_held(left):
            shutil.rmtree(left.parent, ignore_errors=True)
    return folder


def delete(folder: Path, but: Collection[str]) -> None:
    """Delete such a folder, or of its cells all but those with some fit_keys."""
    (folder / _IN_USE).unlink(missing_ok=True)
    for cell in Store(folder).cells.glob("*"):
        if cell.name not in but:
            shutil.rmtree(cell, ignore_errors=True)
    if not but:
        shutil.rmtree(folder, ignore_errors=True)


class Node:
    """The cells of one node, in processes of its own.

    Args:
        wanted: what is to be `installed` here.
        probe: a file that is to be seen here; None: nodes share no folder.
    """

    def __init__(self, wanted: dict[str, str], probe: str | None) -> None:
        self.why_not = _unfit(wanted, probe)
        # What Ray says of an actor without cores and devices is not said of its cells.
        for variable in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
            os.environ.pop(variable, None)
        main = sys.modules["__main__"]
        if hasattr(main, "__file__"):
            del main.__file__  # Ray's worker, which each forked process would import anew
        self.engine = Local()
        self.engine.serve()
        self.running: dict[int, Started] = {}
        self.lock = threading.Lock()
        self.failed: set[str] = set()  # fit_keys
        self.folder = new_folder()
        self.closed = threading.Event()

    def end(self) -> None:
        """Return when this is closed: whoever waits for it hears, too, when Ray or anybody has ended this actor."""
        self.closed.wait()

    def close(self) -> None:
        """Delete what is only here: copies, and checkpoints that are put elsewhere too. Cells that failed stay."""
        delete(self.folder, but=self.failed)
        self.closed.set()

    def unfit(self) -> str | None:
        """Why this node cannot run the sweep's cells; None: it can."""
        return self.why_not

    def run(self, number: int, plain: dict[str, Any], gpus: list[str], task: int) -> Ended:
        """Run a cell's process, whose task has the process id `task`, until it ends."""
        from emobench.runner.run import Job

        if self.why_not is not None:
            return Ended(AGAIN, None)
        job = Job.of(plain)
        if job.store is not None:
            job = replace(job, results=self.folder)
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        with self.lock:
            started = self.engine.launch(job, environment)
            self.running[number] = started
        gone = None
        try:
            with lives(task) as alive:
                while (code := self._polled(started)) is None:
                    if gone is None and not alive():
                        gone = time.monotonic()
                        self.engine.stop(started)
                    elif gone is not None and time.monotonic() - gone > ORDERLY:
                        self.engine.stop(started, at_once=True)
                    self.engine.wait([started])
            told = None if job.store is None else failure(Store(self.folder), job.cell)
            if told is not None and Record.model_validate_json(told).state == "failed":
                self.failed.add(job.cell.fit_key)
            return Ended(code, told)
        finally:
            self.running.pop(number, None)

    def _polled(self, started: Started) -> int | None:
        with self.lock:
            return self.engine.poll(started)

    def stop(self, number: int, at_once: bool) -> None:
        """Ask a cell to end in order, or end it at once."""
        started = self.running.get(number)
        if started is not None:
            self.engine.stop(started, at_once=at_once)
