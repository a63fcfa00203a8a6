"""On a Slurm cluster: a batch job a cell, through submitit.

What a batch job asks for is said by `--resource`, in the words of `sbatch`: partition, time (minutes), account, qos,
constraint, mem, gpus_per_node, cpus_per_task. A job that reaches its time limit is told so by a signal before, and so
is one that makes room for another where the cluster says so: its cell ends, the job is queued again, and the cell goes
on from its last checkpoint, that of an epoch's end or one within an epoch that takes long. A signal writes none.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emobench.errors import EmobenchError, first_line
from emobench.files import say
from emobench.runner.engines.engine import LOST, Engine, alone
from emobench.runner.engines.local import on_several_devices
from emobench.runner.machine import ORDERLY, Machines
from emobench.suite.keys import processes

if TYPE_CHECKING:
    from emobench.runner.run import Job

JOBS = 64  # batch jobs at once, where nobody says how many
MINUTES = 24 * 60  # that a batch job may take
CORES = 4  # of a batch job
REQUEUES = 1000  # times that a job may reach its limit: a cell goes on from its checkpoint
LOOK = 10.0  # seconds between two looks at Slurm's queue
_NUMBERS = ("jobs", "time", "cpus_per_task", "gpus_per_node")
_WORDS = ("partition", "account", "qos", "constraint", "mem", "gres", "nodelist", "exclude", "setup")
_TERMINATED = (128 + signal.SIGTERM, -signal.SIGTERM)  # exit codes of a cell that SIGTERM ended, in order or at once
_MAKE_ROOM = {signal.SIGUSR1, signal.SIGUSR2}  # by which a job is asked to make room: submitit listens to one of them
_GONE = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "UNKNOWN")


@dataclass(eq=False)
class Batch:
    """A cell's batch job."""

    job: Any  # submitit.Job
    since: float
    stopped: float | None = None  # since when it is to end, which this sweep wants; None: it is not
    taken: bool = False  # its cell was told to end by others, and what becomes of it is Slurm's to say


class Slurm(Engine):
    """Batch jobs of a Slurm cluster, or processes of this machine in their place."""

    name = "slurm"
    shares_gpus = False  # it gives whole ones
    shares_machines = False  # a batch job runs one cell

    def __init__(self, address: str | None = None, resources: Mapping[str, str] | None = None) -> None:
        """`address`: "local" for processes of this machine, to try it; None: Slurm."""
        try:
            import submitit
        except ImportError as error:
            raise EmobenchError(
                f"the engine slurm needs submitit ({error}). Install it: pip install 'emobench[slurm]'"
            ) from None
        if address not in (None, "slurm", "local"):
            raise EmobenchError(f"--address {address}: of the engine slurm it is slurm, or local to try it here")
        self.submitit = submitit
        self.cluster = address or "slurm"
        self.numbers, self.words = _resources(resources or {})
        self.cores = self.numbers.get("cpus_per_task", CORES)
        self.gpus = self.numbers.get("gpus_per_node", 0)
        self.running: list[Batch] = []
        self.refusals: set[str] = set()  # what Slurm said of jobs that it did not take
        self.queued: list[str] | None = None  # ids of jobs that Slurm has, at the last look and the one before
        self.before: list[str] | None = None
        self.looked = -LOOK

    def machines(self) -> Machines:
        """Batch jobs, as many as are queued at once."""
        return Machines(self.cores, self.gpus, 2**20, self.numbers.get("jobs", JOBS))

    def open(self, results: Path, store: str | None = None) -> None:
        folder = results.resolve() / "cells" / "slurm"
        try:
            self.executor = self.submitit.AutoExecutor(
                folder, cluster=self.cluster, slurm_max_num_timeout=REQUEUES, local_max_num_timeout=REQUEUES
            )
        except (RuntimeError, ValueError) as error:
            raise EmobenchError(
                f"no Slurm is here ({error}). Start the sweep on a login node of the cluster, or try it with "
                "--address local"
            ) from None
        self.executor.update_parameters(
            timeout_min=self.numbers.get("time", MINUTES),
            **{f"slurm_{name}": [value] if name == "setup" else value for name, value in self.words.items()},
        )

    def start(self, job: Job) -> Batch | None:
        if len(self.running) >= self.numbers.get("jobs", JOBS):
            return None
        count = (processes(job.cell.trainer) or 1) if on_several_devices(job) else 1
        self.executor.update_parameters(
            name="emobench",
            cpus_per_task=max(self.cores, job.threads * count),
            **({"gpus_per_node": max(self.gpus, count)} if self.gpus else {}),
        )
        try:
            with redirect_stderr(io.StringIO()):  # submitit also prints what it raises
                batch = Batch(self.executor.submit(Cell(job.plain())), time.monotonic())
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self._refused(error)
            return None
        self.running.append(batch)
        return batch

    def _refused(self, error: Exception) -> None:
        """Say why no further job is taken, which may be otherwise when one of those that are has ended.

        Raises:
            EmobenchError: none is, so that there is nothing to wait for.
        """
        words = _of_sbatch(error)
        if not self.running:
            raise EmobenchError(
                f"no batch job could be queued: {words}. Mend what --resource asks for, or wait until Slurm takes jobs "
                "of yours again (sinfo, squeue --me); the same command then goes on"
            )
        if words not in self.refusals:
            self.refusals.add(words)
            say(f"no further batch job can be queued now: {words}. Tried again as others end")

    def poll(self, started: Batch) -> int | str | None:
        left = self._left(started)
        if left is None or started.taken:
            if not self._is_gone(started):  # it waits or runs, perhaps once more: Slurm queues jobs again by itself
                return None
            left = self._left(started)  # where it came between the two looks
        if started in self.running:
            self.running.remove(started)
        if isinstance(left, int) and not started.taken:
            return left
        state = self._state(started)
        if isinstance(left, int):
            return left if state == "CANCELLED" else LOST
        if state in _GONE:
            return LOST
        if state == "CANCELLED" or (self.cluster == "local" and state == "INTERRUPTED"):
            return -signal.SIGTERM
        if state == "OUT_OF_MEMORY":
            return "out of memory: Slurm ended it. Give it more (--resource mem=32G), or use a smaller batch"
        return self._says(started, state, left)

    def _left(self, batch: Batch) -> int | Exception | None:
        """The exit code of a job's cell, or why there is none; None: it has left nothing yet.

        A cell that was told to end, though this sweep did not want it, had to leave its machine. Its job may have been
        queued again, and then leaves another result in the place of this one.
        """
        if not batch.job.paths.result_pickle.exists():
            return None
        try:
            left = int(batch.job.result())
        except Exception as error:  # submitit's own, or what reading half a result raises
            return error
        batch.taken = batch.stopped is None and left in _TERMINATED
        return left

    def _says(self, batch: Batch, state: str, error: Exception | None) -> str:
        """Why a job failed outside of its cell."""
        job = f"batch job {batch.job.job_id} ended as {state}"
        log = batch.job.paths.stderr
        if error is None and not log.exists():
            return (
                f"{job} and left nothing in {log.parent}, not even a log: the nodes likely have another folder there, "
                "or none. Put the results on one that all nodes share (--results)"
            )
        return f"{job} ({'it left no result' if error is None else first_line(error)}); see {log}"

    def _is_gone(self, batch: Batch) -> bool:
        """Whether Slurm has done with a job: it stands in no queue, at two looks one after the other.

        submitit asks the accounting, which not every cluster has. One look is enough for a job that was cancelled
        before it.
        """
        if self.cluster == "local":
            return self._state(batch) != "RUNNING"
        if time.monotonic() - self.looked > LOOK:
            self.looked, self.before = time.monotonic(), self.queued
            self.queued = _said(["squeue", "--noheader", "--format=%A"])
        if batch.stopped is not None and batch.stopped < self.looked and self.queued is not None:
            return batch.job.job_id not in self.queued
        return (
            None not in (self.before, self.queued)
            and not any(batch.job.job_id in (each or ()) for each in (self.before, self.queued))
            and batch.since < self.looked - 2 * LOOK
        )

    def _state(self, batch: Batch) -> str:
        """As Slurm calls it; UNKNOWN where it has forgotten the job."""
        if self.cluster == "local":
            return str(batch.job.state).split()[0]
        words = _said(["scontrol", "show", "job", "--oneliner", batch.job.job_id]) or []
        return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "UNKNOWN")

    def where(self, started: Batch) -> str | None:
        return f"job {started.job.job_id}"

    def stop(self, started: Batch, *, at_once: bool = False) -> None:
        started.stopped = started.stopped or time.monotonic()
        with suppress(subprocess.CalledProcessError, OSError):
            started.job.cancel(check=False)

    def wait(self, started: Sequence[Batch]) -> None:
        until = time.monotonic() + 1
        fresh = [batch.job.paths.result_pickle for batch in started if not batch.taken]
        while time.monotonic() < until and not any(result.exists() for result in fresh):
            time.sleep(0.05)


class Cell:
    """What a batch job runs: a cell, in a process of its own, which signals to the job end in order."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.process: subprocess.Popen[bytes] | None = None
        self.terminated = False

    def __call__(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "job.json"
            path.write_text(json.dumps({"schema_version": 1, **self.job}), encoding="utf-8")
            # Slurm may signal this process alone, and submitit would have it pass the signal by.
            before = signal.signal(signal.SIGTERM, self._pass_on)
            try:
                self.process = self._started(path)
                if self.terminated:  # before there was a process
                    self._terminate()
                return self.process.wait()
            except BaseException:
                self._end()
                raise
            finally:
                signal.signal(signal.SIGTERM, before)

    def _started(self, path: Path) -> subprocess.Popen[bytes]:
        """The process of the cell, which never hears what only this one answers.

        Without cgroups Slurm signals every process of a job, and one that knows nothing of such a signal dies of it.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _MAKE_ROOM)
        try:
            return subprocess.Popen([sys.executable, "-m", "emobench", "cell", str(path)], env=alone(os.environ))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _pass_on(self, number: int, frame: object) -> None:
        """Have the process end in order as well, which may have had the signal too; how it ended is the result."""
        self.terminated = True
        self._terminate()

    def _terminate(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def checkpoint(self) -> Any:
        """What submitit calls when the job is to make room: the cell ends in order, and goes on when it is its turn."""
        import submitit

        self._end()
        return submitit.helpers.DelayedSubmission(Cell(self.job))

    def _end(self) -> None:
        """Have the process end in order; not by its `wait`, in the middle of which the signal came that asks for it."""
        if self.process is None:
            return
        until = time.monotonic() + ORDERLY
        self._terminate()
        with suppress(ProcessLookupError, ChildProcessError):  # it has ended, and was taken note of
            while os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                if time.monotonic() > until:
                    os.kill(self.process.pid, signal.SIGKILL)
                time.sleep(0.1)

    def __getstate__(self) -> dict[str, Any]:
        return {"job": self.job, "process": None, "terminated": False}


def _of_sbatch(error: Exception) -> str:
    """What sbatch said when it took no job, without what it says beside its errors."""
    said = [line.strip() for line in (str(error) or str(error.__cause__ or type(error).__name__)).splitlines()]
    errors = [line.removeprefix("sbatch: error: ") for line in said if line.startswith("sbatch: error: ")]
    return "; ".join(errors or said)[:300].rstrip(".")


def _resources(given: Mapping[str, str]) -> tuple[dict[str, int], dict[str, str]]:
    """What is asked for, numbers and words apart.

    Raises:
        EmobenchError: something is unknown, or no number.
    """
    from emobench.errors import unknown

    numbers, words = {}, {}
    for name, value in given.items():
        if name in _NUMBERS:
            if not value.isdecimal() or int(value) < 1:
                raise EmobenchError(f"--resource {name}={value}: no number from 1 on")
            numbers[name] = int(value)
        elif name in _WORDS:
            words[name] = value
        else:
            raise EmobenchError(f"--resource {unknown('resource', name, [*_NUMBERS, *_WORDS])}")
    return numbers, words


def _said(command: Sequence[str]) -> list[str] | None:
    """The words that a command of Slurm's says; None where it fails, as while the controller is away."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=60)
        return ended.stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
