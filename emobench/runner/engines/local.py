"""On this machine: a process a job, one at a time on every GPU, or some side by side on the cores.

The processes are forked from a server that has imported the heavy libraries and not touched a GPU, so that a job
starts in a fraction of a second. A job on several devices starts cold: Lightning runs the command again for each.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from emobench.files import SCHEMA_VERSION, write_json
from emobench.runner.engines.engine import Engine
from emobench.runner.store import Store
from emobench.runner.threads import wait_gently

if TYPE_CHECKING:
    from emobench.runner.run import Job


@dataclass(eq=False)
class Started:
    """A job's process."""

    process: Any  # multiprocessing.Process or subprocess.Popen
    gpu: int | None
    alone: bool  # it takes every device


class Local(Engine):
    """Forked processes on this machine."""

    name = "local"

    def __init__(self) -> None:
        wait_gently()
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(preload())
        forkserver.ensure_running()  # it imports while this process does
        from emobench.runner.run import visible_gpus

        self.gpus = list(range(len(visible_gpus())))
        self.running: list[Started] = []

    def start(self, job: Job) -> Started | None:
        alone = job.cell.trains and job.cell.trainer.get("devices", 1) != 1
        if len(self.running) >= job.per_node or (alone and self.running) or any(each.alone for each in self.running):
            return None
        free = [gpu for gpu in self.gpus if gpu not in [other.gpu for other in self.running]]
        if self.gpus and not free:
            return None
        gpu = free[0] if free else None
        started = Started(self._cold(job) if alone else self._warm(job, gpu), gpu, alone)
        self.running.append(started)
        return started

    def _warm(self, job: Job, gpu: int | None) -> Any:
        from emobench.runner.run import start

        process = self.context.Process(target=start, args=(job, gpu))
        process.start()
        return process

    def _cold(self, job: Job) -> Any:
        folder = Store(job.results).fit_folder(job.cell.fit_key)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.json"
        write_json(path, {"schema_version": SCHEMA_VERSION, **job.plain()})
        return subprocess.Popen([sys.executable, "-m", "emobench", "cell", str(path)], process_group=0)

    def poll(self, started: Started) -> int | None:
        code = started.process.poll() if isinstance(started.process, subprocess.Popen) else started.process.exitcode
        if code is not None and started in self.running:
            self.running.remove(started)
        return code

    def stop(self, started: Started, *, at_once: bool = False) -> None:
        (started.process.kill if at_once else started.process.terminate)()

    def wait(self, started: Sequence[Started]) -> None:
        sentinels = [each.process.sentinel for each in started if not isinstance(each.process, subprocess.Popen)]
        if len(sentinels) == len(started) and sentinels:
            wait(sentinels, timeout=1)
        else:
            time.sleep(0.2 if started else 1)


def preload() -> list[str]:
    """What the fork server imports once for all cells: the run, every model and dataset, the augmentation library.

    With all code loaded at the start, a sweep is not changed by edits that are made while it runs.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    return ["emobench.runner.engines._server", "emobench.runner.run", "albumentations", "emobench.runner.engines._warm"]
