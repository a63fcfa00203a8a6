"""On this machine: a process a job, one or some at a time on every GPU, or some side by side on the cores.

The processes are forked from a server that has imported the heavy libraries and not touched a GPU, so that a job
starts in a fraction of a second: one is always forked ahead, while another job runs. A job on several devices has a
process for each, which Lightning finds by their environment.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from emobench.runner.engines.engine import TOGETHER, Engine
from emobench.runner.machine import visible_gpus
from emobench.runner.sockets import keep_short
from emobench.runner.threads import wait_gently
from emobench.suite.keys import processes

if TYPE_CHECKING:
    from emobench.runner.run import Job


PATIENCE = 10.0  # seconds that a job has to notice that one of its further processes failed


@dataclass(eq=False)
class Started:
    """A job's processes: the first, and of a job on several devices the others, which help it to fit."""

    processes: list[Any]  # multiprocessing.Process
    alone: bool  # it takes every device
    on_gpus: bool  # what these hold for it, the next job needs
    gpu: int | None = None  # which it has to itself, or shares with other jobs
    lost: float | None = None  # since when one of the others is known to have failed


@dataclass
class Talk:
    """What goes to and fro between this process and one that was forked for a job."""

    pipe: Connection
    given: Any | None = None  # the job, until the process says that it has it
    ends: int | None = None  # the exit code that it says it will have
    closed: bool = False

    def listen(self) -> None:
        """Take note of what the process said: first nothing but that it has its job, then how that ended."""
        try:
            while not self.closed and self.pipe.poll():
                self.ends, self.given = self.pipe.recv(), None
        except (EOFError, OSError):
            self.closed = True


class Local(Engine):
    """Forked processes on this machine."""

    name = "local"

    def __init__(self, address: str | None = None, resources: Mapping[str, str] | None = None) -> None:
        super().__init__(address, resources)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(preload())
        self.gpus: list[str] = []
        self.running: list[Started] = []
        self.talks: dict[Any, Talk] = {}  # with the processes of jobs
        self.ahead: list[tuple[Any, Talk]] = []  # a process that waits for its job
        weakref.finalize(self, _let_go, self.ahead)  # before this process waits for those that it has started

    def open(self, results: Path, store: str | None = None) -> None:
        self.serve()
        self.gpus = visible_gpus()

    def serve(self) -> None:
        """Start the server that the processes are forked from; it imports while this process goes on."""
        wait_gently()
        keep_short()
        forkserver.ensure_running()

    def start(self, job: Job) -> Started | None:
        alone = on_several_devices(job)
        if len(self.running) >= job.per_node or (alone and self.running) or any(each.alone for each in self.running):
            return None
        on_each = Counter(other.gpu for other in self.running)
        gpu = min(range(len(self.gpus)), key=lambda each: on_each[each], default=None)
        if gpu is not None and on_each[gpu] >= job.per_gpu:
            return None
        named = {} if gpu is None or alone else {"CUDA_VISIBLE_DEVICES": self.gpus[gpu]}
        started = self.launch(job, named)
        started.gpu = gpu
        return started

    def launch(self, job: Job, environment: Mapping[str, str]) -> Started:
        """Start a job's processes, whatever else runs; `environment`: variables, such as which GPUs they see."""
        alone = on_several_devices(job)
        if alone:
            from lightning.fabric.plugins.environments.lightning import find_free_network_port

            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
            address[TOGETHER] = token_hex(8)
            ranks = range(processes(job.cell.trainer) or 1)
            each = [{**environment, **address, "LOCAL_RANK": str(rank)} for rank in ranks]
        else:
            each = [dict(environment)]
        on_gpus = bool(self.gpus or environment.get("CUDA_VISIBLE_DEVICES"))
        started = Started([self._process(job, variables) for variables in each], alone, on_gpus)
        self.running.append(started)
        return started

    def _process(self, job: Job, environment: dict[str, str]) -> Any:
        given = (job, environment)
        process, talk = self.ahead.pop() if self.ahead else self._forked()
        try:
            talk.pipe.send(given)
        except OSError:  # somebody has ended it
            process, talk = self._forked()
            talk.pipe.send(given)
        talk.given = given
        self.talks[process] = talk
        self.ahead.append(self._forked())
        return process

    def _forked(self) -> tuple[Any, Talk]:
        """A process that begins with the job that it is sent, and ends where that will never come."""
        mine, its = self.context.Pipe()
        process = self.context.Process(target=begin, args=(its,))
        process.start()
        its.close()
        return process, Talk(mine)

    def _again(self, started: Started) -> None:
        """Start a job in another process: its own was killed while it still waited for one, which costs no cell."""
        given = self.talks.pop(started.processes[0]).given
        started.processes[0], talk = self._forked()
        talk.pipe.send(given)
        self.talks[started.processes[0]] = talk

    def poll(self, started: Started) -> int | None:
        first, *others = started.processes
        code: int | None = first.exitcode
        if (talk := self.talks.get(first)) is not None:
            talk.listen()
            if code is not None and code < 0 and talk.given is not None:
                self._again(started)
                return None
            if code is None and self._tells(started):
                code = talk.ends
        failed = next((each.exitcode for each in others if each.exitcode), None)
        if code is None and failed is not None:
            started.lost = started.lost or time.monotonic()
            if time.monotonic() - started.lost > PATIENCE:  # some wait for ever for a process that is gone
                first.kill()
                code = failed
        if code is not None:
            killed = next((each.exitcode for each in others if (each.exitcode or 0) < 0), None)
            if code == 1 and killed is not None:  # the first saw only that a connection was gone
                code = killed
            for each in others:
                each.kill()
            for each in started.processes:
                self.talks.pop(each, None)
            if started in self.running:
                self.running.remove(started)
        return code

    def stop(self, started: Started, *, at_once: bool = False) -> None:
        first, *others = started.processes
        if at_once:
            for each in (first, *others):
                each.kill()
        else:
            first.terminate()  # the others end with it

    def close(self) -> None:
        _let_go(self.ahead)
        self.ahead.clear()

    def wait(self, started: Sequence[Started]) -> None:
        firsts = [each.processes[0] for each in started]
        others = [other for each in started for other in each.processes[1:] if other.exitcode is None]
        pipes = [self.talks[each.processes[0]].pipe for each in started if self._tells(each)]
        if started:
            wait([*(process.sentinel for process in (*firsts, *others)), *pipes], timeout=1)
        else:
            time.sleep(1)

    def _tells(self, started: Started) -> bool:
        """Whether a job has ended when it says so: only its process is then left, which gives its memory back.

        That takes as long as starting one. What a GPU holds for it is needed by the next job.
        """
        talk = self.talks.get(started.processes[0])
        return not started.on_gpus and len(started.processes) == 1 and talk is not None and not talk.closed


def _let_go(ahead: list[tuple[Any, Talk]]) -> None:
    for _, talk in ahead:
        talk.pipe.close()


def begin(pipe: Connection) -> None:
    """Entry of a process: wait for a job, run it and say how it ended."""
    from emobench.runner.run import start

    try:
        job, environment = pipe.recv()
        pipe.send(None)
    except (EOFError, OSError):  # there is no further job, and nobody listens any more
        return
    try:
        start(job, environment)
    except SystemExit as ended:
        with contextlib.suppress(OSError):
            pipe.send(ended.code)
        raise


def on_several_devices(job: Job) -> bool:
    """Whether a job has a process a device."""
    return bool(job.cell.trains and job.cell.trainer.get("devices", 1) != 1)


def preload() -> list[str]:
    """What the fork server imports once for all cells: the run, every model and dataset, the augmentation library.

    With all code loaded at the start, a sweep is not changed by edits that are made while it runs.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    return ["emobench.runner.engines._server", "emobench.runner.run", "albumentations", "emobench.runner.engines._warm"]
