"""On a Ray cluster: a task a cell, which has a process of the node run it, as on one machine.

Ray says where a cell runs and keeps its devices, cores and memory for it. What was done is the store's to say: a task
is never run again by Ray, and its value is an exit code. On each node an actor holds the server from which the
processes of cells are forked, so that they start warm; a cell's process ends with its task, a node's with the sweep.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from emobench.errors import EmobenchError
from emobench.runner.engines.engine import LOST, Engine
from emobench.runner.engines.local import Local, Started, on_several_devices
from emobench.runner.machine import ORDERLY, Machines, lives, versions
from emobench.runner.record import Record
from emobench.runner.remote import Remote, failure
from emobench.runner.sockets import SHORT, too_long
from emobench.runner.store import HELD, Store
from emobench.suite.cell import Cell
from emobench.suite.keys import package_digest, processes

if TYPE_CHECKING:
    from emobench.runner.run import Job

_PARTS = 10_000  # into which Ray divides a GPU
QUEUED = 2  # tasks that wait for a place, so that none stands empty until the sweep sees it
PATIENCE = 10.0  # seconds for which a cluster's head may be silent
LOOK = 5.0  # seconds between two looks at which nodes there are
_LESS = "Use a smaller batch or model, or fewer cells a node (--per-node)"
_LIBRARIES = ("torch", "lightning", "torchvision", "numpy", "ray")


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
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError) as error:
            raise EmobenchError(
                f"no Ray cluster can be reached at {address or os.environ.get('RAY_ADDRESS', 'this machine')} "
                f"({' '.join(str(error).split())[:300]}). Start one with `ray start --head`, or leave --address out"
            ) from None
        self.ray = ray
        self.run_cell = ray.remote(max_retries=0, num_returns="streaming")(run_cell)  # sent to the cluster once
        self.token = token_hex(8)  # of this sweep, in the names of its actors
        self.results = Store(Path("results"))
        self.remote: Remote | None = None
        self.nodes: dict[str, Any] = {}  # node id -> actor
        self.tasks: list[Task] = []
        self.count = 0
        self.alive: list[dict[str, Any]] = []  # nodes that can run cells: those that have cores to give
        self.looked = -math.inf
        self._look()

    # ---- the cluster -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.looked = time.monotonic()
        self.alive = [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]

    def machines(self) -> Machines:
        alive = [node["Resources"] for node in self.alive]
        if not alive:
            raise EmobenchError("the Ray cluster has no node with a CPU to give. Add one with `ray start --address`")
        cores, gpus = (int(min(each.get(name, 0) for each in alive)) for name in ("CPU", "GPU"))
        memory = int(min(each.get("memory", 0) for each in alive)) // 2**30
        return Machines(cores, gpus, memory, len(alive))

    def open(self, results: Path, store: str | None = None) -> None:
        self.results = Store(results)
        self._greet()
        _check_versions(self._asked("versions"))
        if store is not None:
            self.remote = Remote(store)
            return
        probe = results / "cells" / f".probe.{self.token}"
        probe.write_bytes(b"")
        try:
            blind = [host for host, sees in self._asked("sees", str(probe.resolve())).items() if not sees]
        finally:
            probe.unlink()
        if blind:
            raise EmobenchError(
                f"{results.resolve()}: not the same folder on {', '.join(blind)} as here. Put the results into one "
                "that all nodes share (--results), or name an object store (--store s3://bucket/folder)"
            )

    def _asked(self, question: str, *arguments: Any) -> dict[str, Any]:
        """What every node says; by its name, with a number where several have one name."""
        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in self.alive}
        asked = [(node, getattr(actor, question).remote(*arguments)) for node, actor in self.nodes.items()]
        return {f"{hosts[node]} ({node[:6]})": self.ray.get(answer) for node, answer in asked}

    def _greet(self) -> None:
        """Put an actor on every node that is new; forget those that are gone."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._look()
        alive = {node["NodeID"] for node in self.alive}
        for gone in self.nodes.keys() - alive:
            del self.nodes[gone]
        for new in alive - self.nodes.keys():
            self.nodes[new] = (
                self.ray.remote(Node)
                .options(
                    name=_name(self.token, new),
                    num_cpus=0,
                    max_concurrency=1024,
                    max_restarts=-1,  # Ray may end it where memory is short
                    scheduling_strategy=NodeAffinitySchedulingStrategy(new, soft=False),
                )
                .remote()
            )

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def start(self, job: Job) -> Task | None:
        wanted = self._wanted(job)
        if len(self.tasks) >= self._room(wanted) + QUEUED:
            return None
        self.count += 1
        submit = self.run_cell.options(**wanted, name=f"emobench {job.cell.label}")
        task = Task(self.count, job.cell, submit.remote(self.token, self.count, job.plain()))
        self.tasks.append(task)
        return task

    def _wanted(self, job: Job) -> dict[str, float]:
        """What of a node a job takes: its threads' cores, its share of the memory, its devices."""
        least = self.machines()
        count = 1
        gpus: float = math.floor(_PARTS / job.per_gpu) / _PARTS if least.gpus else 0
        if on_several_devices(job):
            count = processes(job.cell.trainer) or max(1, least.gpus)
            gpus = min(count, least.gpus)
        smallest = min(int(node["Resources"].get("memory", 0)) for node in self.alive)
        share = 1 if count > 1 else job.per_node
        cores = min(least.cores, job.threads * count)
        return {"num_cpus": cores, "num_gpus": gpus, "memory": max(1, smallest // share)}

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
                    self._bring(task.cell, value)
                    return value.code
                task.node, task.host = value
        except errors.OutOfMemoryError:
            return f"out of memory on {task.host or 'a node'}: Ray ended it. {_LESS}"
        except errors.TaskCancelledError:
            return -signal.SIGTERM
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, errors.OutOfMemoryError):
                return f"out of memory on {task.host or 'a node'}: Ray ended what runs cells there. {_LESS}"
            lost = isinstance(cause, errors.RayActorError | errors.RaySystemError | errors.WorkerCrashedError)
            return LOST if lost else f"Ray could not run it: {type(cause).__name__}: {cause}"
        except (errors.RayError, StopIteration):  # its node, its worker or the actor of its node is gone
            return LOST
        return None

    def _bring(self, cell: Cell, ended: Ended) -> None:
        """Where nodes share no folder with this machine, fetch what a cell made, or write how it failed."""
        if self.remote is None or ended.code == HELD:
            return
        if ended.failure is not None:
            self.results.keep_failure(Record.model_validate_json(ended.failure))
        elif self.remote.pull_fit(self.results, cell.fit_key):
            self.remote.pull_evaluation(self.results, cell.fit_key, cell.eval_key)

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

    def close(self) -> None:
        with suppress(self.ray.exceptions.RayError):
            self.ray.get([actor.close.remote() for actor in self.nodes.values()], timeout=PATIENCE)
        for actor in self.nodes.values():
            self.ray.kill(actor)
        self.ray.shutdown()


def _ray() -> Any:
    """The library, which only this engine loads."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EmobenchError(f"the engine ray needs Ray ({error}). Install it: pip install 'emobench[ray]'") from None
    return ray


def _name(token: str, node: str) -> str:
    return f"emobench-{token}-{node}"


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


def _check_versions(said: dict[str, dict[str, str]]) -> None:
    """All nodes run the code and the libraries that this process runs.

    Raises:
        EmobenchError: one does not; names what differs.
    """
    mine = installed()
    differ = [
        f"{host} has {name} {theirs.get(name, 'none')}, here it is {here}"
        for host, theirs in said.items()
        for name, here in mine.items()
        if theirs.get(name) != here
    ]
    if differ:
        raise EmobenchError(
            f"the nodes of the cluster differ, and so would their numbers: {'; '.join(differ[:6])}. Install the same "
            "versions on all of them: pip install --constraint constraints.txt"
        )


def installed() -> dict[str, str]:
    """What decides numbers on a machine: Python, emobench with its code, and the libraries below it."""
    found = {"Python": f"{sys.version_info.major}.{sys.version_info.minor}", "emobench": versions().emobench}
    for name in _LIBRARIES:
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
    node = _node(token, context.get_node_id())
    yield context.get_node_id(), os.uname().nodename
    gpus = context.get_accelerator_ids().get("GPU", [])
    try:
        yield ray.get(node.run.remote(number, job, [str(each) for each in gpus], os.getpid()))
    except BaseException:  # cancelled, or Ray ends
        node.stop.remote(number, False)
        raise


@functools.cache
def _node(token: str, node: str) -> Any:
    """The actor of a node, which the sweep puts there as soon as it sees it; a worker of Ray's runs many cells."""
    import ray

    until = time.monotonic() + 60
    while True:
        try:
            return ray.get_actor(_name(token, node))
        except ValueError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


class Node:
    """The cells of one node, in processes of its own."""

    def __init__(self) -> None:
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
        self.folder = Path(tempfile.mkdtemp(prefix="emobench-"))  # for results that go to an object store

    def close(self) -> None:
        """Delete what is only here: copies, and checkpoints that are put elsewhere too."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def versions(self) -> dict[str, str]:
        """What is installed here, and what it is here."""
        return installed()

    def sees(self, path: str) -> bool:
        """Whether a file of the sweep's is here."""
        return Path(path).exists()

    def run(self, number: int, plain: dict[str, Any], gpus: list[str], task: int) -> Ended:
        """Run a cell's process, whose task has the process id `task`, until it ends."""
        from emobench.runner.run import Job

        job = Job.of(plain)
        if job.store is not None:
            job = replace(job, results=self.folder)
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        with self.lock:
            started = self.engine.launch(job, len(gpus), environment)
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
            return Ended(code, None if job.store is None else failure(Store(self.folder), job.cell))
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
