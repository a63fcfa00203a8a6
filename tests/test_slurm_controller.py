"""The engine slurm on Slurm itself: a controller and a node of this machine, for as long as these tests take."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from test_readme import printed
from test_resume import EPOCHS, pause, written
from watching import until

from emobench.runner.record import read_record
from emobench.runner.store import load_board

pytest.importorskip("submitit", reason="submitit is not installed (pip install 'emobench[slurm]')")

pytestmark = pytest.mark.long

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
REQUEUED = 10  # seconds that Slurm lets a job wait that is queued again; by default 120


def found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


class Controller:
    """A cluster of one node, which is this machine, with two cores for jobs whatever it has.

    Slurm's own programs find it by `environment`, and no other: nothing of it is in /etc or /var.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}

    @contextmanager
    def running(self) -> Iterator[Controller]:
        key, seed = self.folder / "munge.key", self.folder / "munge.seed"
        munge, plugstack = self.folder / "munge.socket", self.folder / "plugstack.conf"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        plugstack.touch()
        self.conf.write_text(self._settings(munge, plugstack))
        with ExitStack() as stack:
            stack.callback(until, lambda: not self.left(), 30, "the end of all that Slurm started")
            files = ("--key-file", key, "--socket", munge, "--seed-file", seed, "--pid-file", self.folder / "munge.pid")
            self._start(stack, "munged", "--foreground", "--force", *files)
            until(munge.exists, 30, "munged")
            self._start(stack, "slurmctld", "-D", "-f", self.conf)
            self._start(stack, "slurmd", "-D", "-f", self.conf)
            until(lambda: self.says("sinfo", "--noheader", "--format=%T") == "idle", 60, "a node that is idle")
            stack.callback(self._cancel)
            yield self

    def _settings(self, munge: Path, plugstack: Path) -> str:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in (one, two)]
        name = socket.gethostname().partition(".")[0]
        spool = self.folder / "spool"
        state = self.folder / "state"
        for folder in (spool, state):
            folder.mkdir()
        return f"""
ClusterName=emobench
SlurmctldHost={name}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={munge},cred_expire={REQUEUED}
PlugStackConfig={plugstack}
StateSaveLocation={state}
SlurmdSpoolDir={spool}
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=10
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
NodeName={name} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""

    def _start(self, stack: ExitStack, program: str, *arguments: object) -> None:
        said = stack.enter_context((self.folder / f"{program}.out").open("wb"))
        command = [str(found(program)), *map(str, arguments)]
        process = subprocess.Popen(command, env=self.environment, stdout=said, stderr=said)
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)

    def _cancel(self) -> None:
        """Jobs of a test that failed end before what watches them does."""
        for job in self.jobs():
            self.says("scancel", job)
        until(lambda: not self.jobs(), 60, "the end of all jobs")

    def left(self) -> list[int]:
        """Processes that were started for this cluster, or by it."""
        mark, pids = f"SLURM_CONF={self.conf}".encode(), []
        for process in Path("/proc").iterdir():
            with suppress(OSError):  # it has ended
                if process.name.isdecimal() and mark in (process / "environ").read_bytes().split(b"\0"):
                    pids.append(int(process.name))
        return pids

    def says(self, program: str, *arguments: str) -> str:
        command = [str(found(program)), *arguments]
        return subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True).stdout.strip()

    def jobs(self, *states: str) -> list[str]:
        """Numbers of the jobs that are queued or run."""
        return self.says("squeue", "--noheader", "--format=%A", *(f"--states={state}" for state in states)).split()

    def requeues(self, job: str) -> int:
        words = self.says("scontrol", "show", "job", "--oneliner", job).split()
        return int(next(word.partition("=")[2] for word in words if word.startswith("Restarts=")))


class Sweep:
    """The command, as one types it on a login node."""

    def __init__(self, suite: Path, results: Path, slurm: Controller, *arguments: str) -> None:
        self.results, self.log = results, results.with_suffix(".txt")
        command = [
            sys.executable,
            "-m",
            "emobench",
            "bench",
            str(suite),
            "--results",
            str(results),
            "--engine",
            "slurm",
        ]
        command += ["--resource", "cpus_per_task=1", "--resource", "jobs=2", *arguments]
        with open(self.log, "wb") as said:
            self.process = subprocess.Popen(command, env=slurm.environment, stdout=said, stderr=said)

    def end(self, seconds: float = 180) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        return self.log.read_text()

    def pausing(self) -> int:
        """How many cells have stood still by now, after three epochs."""
        return sum(of_cell == ["0", "1", "2"] for of_cell in self.epochs())

    def of_cells(self) -> list[str]:
        """What each cell says."""
        return [path.read_text() for path in self.results.glob("cells/*/log.txt")]

    def of_jobs(self) -> list[str]:
        """What submitit says in each job."""
        return [path.read_text() for path in self.results.glob("cells/slurm/*_log.err")]

    def submitted(self) -> list[str]:
        return [path.name.partition("_")[0] for path in self.results.glob("cells/slurm/*_submission.sh")]

    def states(self) -> list[str]:
        return [cell.state for cell in load_board(self.results, next(self.results.glob("*/suite.json")).parent.name)]

    def epochs(self) -> list[list[str]]:
        """The epochs of each cell, as its history has them."""
        rows = [path.read_text().splitlines()[1:] for path in self.results.glob("cells/*/history.csv")]
        return [[row.partition(",")[0] for row in of_cell] for of_cell in rows]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    lacking = [program for program in PROGRAMS if found(program) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed (apt-get install munge slurmctld slurmd slurm-client)")
    if os.geteuid() != 0:
        pytest.skip("only root can start slurmd")
    with Controller(tmp_path_factory.mktemp("slurm")).running() as controller:
        yield controller


@pytest.fixture
def pausing(tmp_path: Path) -> Path:
    """A suite whose cells stand still in their fourth epoch for as long as a file is there."""
    return written(tmp_path)


@pytest.fixture
def sweep(tmp_path: Path, slurm: Controller) -> Iterator[Callable[..., Sweep]]:
    """`sweep(suite, *arguments)` starts the command, which ends with the test, and its jobs with it."""
    started: list[Sweep] = []

    def start(suite: Path, *arguments: str) -> Sweep:
        started.append(Sweep(suite, tmp_path / "slurm", slurm, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.send_signal(signal.SIGTERM)
        each.end()


def test_batch_jobs_of_slurm_give_the_local_engines_raw_files(
    sweep: Callable[..., Sweep], tiny: Path, emobench: Callable[..., int], tmp_path: Path, slurm: Controller
) -> None:
    batch = sweep(tiny)
    cores = str(len(os.sched_getaffinity(0)))  # of which each cell has one
    assert emobench("bench", tiny, "--results", tmp_path / "local", "--per-node", cores) == 0
    assert batch.end() == 0, batch.said()
    assert len(batch.submitted()) == 2
    files = [path for kind in ("parquet", "safetensors") for path in batch.results.glob(f"cells/**/*.{kind}")]
    assert {path.suffix for path in files} == {".parquet", ".safetensors"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "local" / path.relative_to(batch.results)).read_bytes(), path
    for path in batch.results.glob("cells/*/*/result.json"):
        hardware = read_record(path).hardware
        assert hardware is not None
        assert hardware.threads == 1
    assert slurm.jobs() == []


def test_a_job_that_slurm_queues_again_goes_on_from_its_last_checkpoint(
    sweep: Callable[..., Sweep], pausing: Path, slurm: Controller
) -> None:
    waiting = pause(pausing)
    batch = sweep(pausing)
    until(lambda: batch.pausing() == 2, 120, "two cells in the middle of an epoch")
    jobs = slurm.jobs("RUNNING")
    for job in jobs:
        slurm.says("scontrol", "requeue", job)
    until(lambda: not slurm.jobs("RUNNING", "COMPLETING"), 60, "two jobs that wait")
    waiting.unlink()
    assert batch.end() == 0, batch.said()
    assert all("going on from last-step=" in said for said in batch.of_cells())
    assert batch.epochs() == [[str(k) for k in range(EPOCHS)]] * 2
    assert batch.states() == ["done"] * 2
    assert "again:" not in batch.said()  # the sweep has waited for the jobs that it had
    assert sorted(batch.submitted()) == sorted(jobs)
    assert [slurm.requeues(job) for job in jobs] == [1, 1]


def test_a_job_that_nears_its_time_limit_is_told_so_and_goes_on_in_its_next_turn(
    sweep: Callable[..., Sweep], pausing: Path, slurm: Controller
) -> None:
    """Slurm looks at the limits twice a minute, and sends the signal 90 seconds before: here at its first look."""
    waiting = pause(pausing)
    batch = sweep(pausing, "--resource", "time=2")
    until(
        lambda: batch.pausing() == 2 and all("going on from last-step=" in said for said in batch.of_cells()),
        240,
        "two cells that go on",
    )
    for job in slurm.jobs():  # or this turn may end like the one before
        slurm.says("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    waiting.unlink()
    assert batch.end() == 0, batch.said()
    assert all("Caught signal SIGUSR2" in said and "this job is timed-out" in said for said in batch.of_jobs())
    assert all(
        "stopped by signal 15" in said for said in batch.of_cells()
    )  # in order: USR2 itself would have killed it
    assert batch.epochs() == [[str(k) for k in range(EPOCHS)]] * 2
    assert batch.states() == ["done"] * 2
    assert len(batch.submitted()) == 2


def test_a_cell_whose_job_is_cancelled_is_interrupted(
    sweep: Callable[..., Sweep], pausing: Path, slurm: Controller
) -> None:
    """Whether it runs or waits in the queue."""
    pause(pausing)
    batch = sweep(pausing, "--resource", "cpus_per_task=2")  # which leaves the other job no core
    until(lambda: batch.pausing() == 1 and len(slurm.jobs()) == 2, 120, "a cell in the middle of an epoch")
    for job in slurm.jobs():
        slurm.says("scancel", job)
    assert batch.end() == 1, batch.said()
    assert batch.states() == ["interrupted"] * 2
    assert slurm.jobs() == []
    assert len(batch.submitted()) == 2


def test_the_batch_script_for_ray_starts_a_cluster_and_the_sweep_in_one_job(
    tiny: Path, tmp_path: Path, slurm: Controller
) -> None:
    """As the documentation prints it, but for the size of the nodes and the suite; nothing of Ray is left."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'emobench[ray]')")
    text = printed("docs/clusters.md", "symmetric-run", "bash")
    for shown, here in {
        "--nodes=4": "--nodes=1",
        " --gpus-per-node=8": "",
        ":6379": f":{find_free_network_port()}",
        "bench full": f"bench {tiny}",
        "/shared/results": str(tmp_path / "results"),
    }.items():
        assert shown in text
        text = text.replace(shown, here)
    script, said = tmp_path / "sweep.sh", tmp_path / "said.txt"
    script.write_text(text)
    slurm.says(
        "sbatch",
        f"--output={said}",
        f"--export=ALL,PATH={Path(sys.executable).parent}:{os.environ['PATH']}",
        str(script),
    )
    until(lambda: not slurm.jobs(), 240, "the end of the job")
    assert "The board is" in said.read_text(), said.read_text()
    assert [cell.state for cell in load_board(tmp_path / "results", "tiny")] == ["done"] * 2
