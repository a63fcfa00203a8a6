"""The engine slurm: through submitit, with processes of this machine in place of batch jobs."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from soak import processes_of
from watching import until

from emobench.commands.bench import Sharing
from emobench.errors import EmobenchError
from emobench.runner.engines import engine_at, slurm
from emobench.runner.engines.engine import LOST, Engine
from emobench.runner.engines.slurm import Batch, Cell, Slurm
from emobench.runner.machine import Machines
from emobench.runner.record import read_record
from emobench.runner.run import Job
from emobench.runner.store import load_board
from emobench.runner.sweep import sweep
from emobench.runner.threads import Packing
from emobench.suite.expand import expand
from emobench.suite.file import load

pytest.importorskip("submitit", reason="submitit is not installed (pip install 'emobench[slurm]')")

HERE = ("--engine", "slurm", "--address", "local", "--resource", "jobs=2", "--resource", "cpus_per_task=1")


class Cluster:
    """Stand-ins for Slurm's commands: sbatch takes jobs, and none of them is ever run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refusal, self.state, self.queue = folder / "refusal", folder / "state", folder / "queue"
        for name, text in {
            "srun": "",
            "sbatch": f"""
                if [ -e {self.refusal} ]; then cat {self.refusal} >&2; exit 1; fi
                number=$(($(wc -l < {self.queue}) + 1))
                cp "$1" {folder}/$number.sh
                echo $number >> {self.queue}
                echo Submitted batch job $number""",
            "squeue": f"cat {self.queue}",
            "scontrol": f"echo JobId=1 JobState=$(cat {self.state}) Restarts=0",
            "scancel": "",
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        self.queue.touch()
        self.ends("RUNNING")

    def refuses(self, *says: str) -> None:
        self.refusal.write_text("".join(f"sbatch: {line}\n" for line in says))

    def ends(self, state: str) -> None:
        self.state.write_text(state)

    def asked(self, number: int) -> list[str]:
        """What a job asked for."""
        lines = (self.folder / f"{number}.sh").read_text().splitlines()
        return [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH --")]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "LOOK", 0.0)  # seconds between two looks at the queue
    return Cluster(tmp_path / "bin")


def opened(folder: Path, **resources: str) -> Slurm:
    engine = engine_at("slurm", None, resources)
    assert isinstance(engine, Slurm)
    engine.open(folder)
    return engine


def job_of(tiny: Path, threads: int = 1) -> Job:
    folder = tiny.parent
    return Job(expand(load(tiny), folder).cells[0], folder / "results", folder, threads=threads)


def leave(batch: Batch, code: int) -> None:
    """What submitit writes when a job's cell has ended."""
    batch.job.paths.result_pickle.write_bytes(pickle.dumps(("success", code)))


@pytest.mark.long
def test_batch_jobs_give_the_local_engines_raw_files(tiny: Path, emobench: Callable[..., int], tmp_path: Path) -> None:
    cores = str(len(os.sched_getaffinity(0)))  # of which each cell has one
    assert emobench("bench", tiny, "--results", tmp_path / "local", "--per-node", cores) == 0
    assert emobench("bench", tiny, "--results", tmp_path / "slurm", *HERE) == 0
    found = {path.relative_to(tmp_path / "slurm"): path for path in (tmp_path / "slurm").glob("cells/*/*/*.parquet")}
    assert len(found) == 2
    for name, path in found.items():
        assert path.read_bytes() == (tmp_path / "local" / name).read_bytes()
        hardware = read_record(path.parent / "result.json").hardware
        assert hardware is not None
        assert hardware.threads == 1


def started(suite: Path, results: Path, log: Path, epochs: int) -> subprocess.Popen[bytes]:
    """The command beside this process."""
    command = [sys.executable, "-m", "emobench", "bench", str(suite), "--results", str(results), *HERE]
    with open(log, "w") as said:
        return subprocess.Popen([*command, "--set", f"model.resnet18.epochs={epochs}"], stdout=said, stderr=said)


def jobs_of(results: Path) -> list[str]:
    """Process ids of its jobs, as submitit has them."""
    found = subprocess.run(["pgrep", "-f", f"submitit.core._submit.*{results}"], capture_output=True, text=True)
    return found.stdout.split()


@pytest.mark.long
def test_a_job_that_must_make_room_is_queued_again_and_goes_on(tiny: Path, tmp_path: Path) -> None:
    """As submitit says it: USR2 to the process of the job."""
    results = tmp_path / "results"
    sweep = started(tiny, results, tmp_path / "log.txt", epochs=150)
    until(lambda: list(results.glob("cells/*/checkpoints/last-*.ckpt")), 120, "a checkpoint")
    for pid in jobs_of(results):
        subprocess.run(["kill", "-USR2", pid])
    assert sweep.wait(timeout=240) == 0, (tmp_path / "log.txt").read_text()
    assert "going on from last-step=" in "".join(path.read_text() for path in results.glob("cells/*/log.txt"))
    for path in results.glob("cells/*/history.csv"):
        assert [line.split(",")[0] for line in path.read_text().splitlines()[1:]] == [str(k) for k in range(150)]


@pytest.mark.long
def test_a_job_that_is_terminated_alone_ends_its_cell_which_goes_on_in_another(tiny: Path, tmp_path: Path) -> None:
    """As under Slurm's cgroups: the signal reaches submitit's process, and not that of the cell below it."""
    results = tmp_path / "results"
    sweep = started(tiny, results, tmp_path / "log.txt", epochs=30)
    until(lambda: len({*results.glob("cells/*/checkpoints")}) == 2, 120, "two cells")
    jobs = jobs_of(results)
    for pid in jobs:
        os.kill(int(pid), signal.SIGTERM)
    assert sweep.wait(timeout=240) == 0, (tmp_path / "log.txt").read_text()
    said = (tmp_path / "log.txt").read_text()
    assert said.count("the machine that it ran on, job ") == len(jobs)
    assert all("stopped by signal 15" in path.read_text() for path in results.glob("cells/*/log.txt"))


@pytest.mark.long
def test_a_signal_ends_all_jobs(tiny: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    sweep = started(tiny, results, tmp_path / "log.txt", epochs=500)
    until(lambda: list(results.glob("cells/*/checkpoints/last-*.ckpt")), 120, "a checkpoint")
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(timeout=90) == 128 + signal.SIGINT, (tmp_path / "log.txt").read_text()
    until(lambda: not processes_of(results), 30, "the end of all cells")
    assert all(cell.state != "done" for cell in load_board(results, next(results.glob("tiny*")).name))


def test_what_slurm_does_not_know_is_refused() -> None:
    with pytest.raises(EmobenchError, match="--resource unknown resource 'partitoin'.*partition"):
        engine_at("slurm", None, {"partitoin": "gpu"})
    with pytest.raises(EmobenchError, match="--resource time=2h: no number from 1 on"):
        engine_at("slurm", None, {"time": "2h"})
    with pytest.raises(EmobenchError, match="--resource time: the engine local takes none"):
        engine_at("local", None, {"time": "2"})
    with pytest.raises(EmobenchError, match="--address gpu: of the engine slurm it is slurm, or local"):
        engine_at("slurm", "gpu")


def test_without_slurm_it_says_where_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmobenchError, match="no Slurm is here .*login node.*--address local"):
        engine_at("slurm", None).open(tmp_path)


def test_without_submitit_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(EmobenchError, match=r"the engine slurm needs submitit .*pip install 'emobench\[slurm\]'"):
        engine_at("slurm", None)


def test_a_pair_without_a_value_is_refused(
    emobench: Callable[..., int], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emobench("bench", tiny, "--resource", "partition") == 2
    assert "no name=value, such as partition=gpu" in " ".join(capsys.readouterr().err.split())


# ---- Slurm's answers, of stand-ins for its commands ------------------------------------------------------------------


def test_where_slurm_takes_no_job_at_all_its_words_are_the_error(tiny: Path, tmp_path: Path, cluster: Cluster) -> None:
    cluster.refuses("Account: lab", "error: invalid partition specified: gpux", "error: Batch job submission failed.")
    said = (
        "no batch job could be queued: invalid partition specified: gpux; Batch job submission failed. Mend what --res"
    )
    with pytest.raises(EmobenchError, match=said):
        opened(tmp_path).start(job_of(tiny))


def test_where_slurm_takes_no_further_job_the_sweep_waits_for_room(
    tiny: Path, tmp_path: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    engine, job = opened(tmp_path), job_of(tiny)
    first = engine.start(job)
    assert first is not None
    cluster.refuses("error: QOSMaxSubmitJobPerUserLimit")
    assert engine.start(job) is None
    assert engine.start(job) is None
    out, err = capfd.readouterr()
    assert out == "no further batch job can be queued now: QOSMaxSubmitJobPerUserLimit. Tried again as others end\n"
    assert err == ""
    leave(first, 0)
    assert engine.poll(first) == 0
    cluster.refusal.unlink()
    assert engine.start(job) is not None


def test_a_job_has_the_cores_that_were_asked_for_and_its_cell_all_of_them(
    tiny: Path, tmp_path: Path, cluster: Cluster
) -> None:
    engine = opened(tmp_path, cpus_per_task="8", gpus_per_node="2")
    packing = Sharing(engine, None, None, 100).packing()
    assert (packing.per_node, packing.machines.number) == (1, 64)
    job = job_of(tiny)
    for place, (devices, threads) in enumerate(((1, 8), (2, 4), (16, 1)), 1):
        cell = replace(job.cell, trainer={"devices": devices})
        assert packing.threads_of(devices) == threads
        assert engine.start(replace(job, cell=cell, threads=threads)) is not None
        assert {f"cpus-per-task={max(8, devices)}", f"gpus-per-node={max(2, devices)}"} <= {*cluster.asked(place)}
    assert Sharing(engine, 1, None, 100).packing().threads == 8


def test_a_plans_threads_are_those_of_its_cells(tiny: Path, tmp_path: Path, cluster: Cluster) -> None:
    engine = opened(tmp_path, cpus_per_task="4")
    packing = Sharing(engine, None, None, 100).packing(2)
    assert packing.threads == 2
    assert engine.start(job_of(tiny, packing.threads)) is not None
    assert "cpus-per-task=4" in cluster.asked(1)
    with pytest.raises(EmobenchError, match="8 threads, and a job of the engine slurm 4 cores.*cpus_per_task=8"):
        Sharing(engine, None, None, 100).packing(8)


def test_cells_share_no_batch_job(emobench: Callable[..., int], tiny: Path, tmp_path: Path, capsys: Any) -> None:
    suite = ("bench", tiny, "--dry-run", "--results", tmp_path / "results", "--engine", "slurm", "--address", "local")
    assert emobench(*suite, "--resource", "cpus_per_task=4", "--resource", "jobs=3") == 0
    assert "3 cells side by side, 4 of 4 cores each" in " ".join(capsys.readouterr().out.split())
    assert emobench(*suite, "--per-node", "2") == 2
    assert "--per-node 2: the engine slurm gives each cell a job of its own" in capsys.readouterr().err


def test_a_job_asks_for_the_signal_before_its_time_limit(tiny: Path, tmp_path: Path, cluster: Cluster) -> None:
    assert opened(tmp_path, time="30").start(job_of(tiny)) is not None
    asked = cluster.asked(1)
    assert "time=30" in asked
    assert "signal=USR2@90" in asked  # seconds before, to the processes below the script: it knows nothing of it


@pytest.mark.parametrize("code", [128 + signal.SIGTERM, -signal.SIGTERM])
def test_a_cell_that_slurm_ended_has_lost_its_machine(tiny: Path, tmp_path: Path, cluster: Cluster, code: int) -> None:
    engine = opened(tmp_path)
    lost, cancelled, stopped = (engine.start(job_of(tiny)) for _ in range(3))
    assert lost is not None
    assert cancelled is not None
    assert stopped is not None
    for batch in (lost, cancelled, stopped):
        leave(batch, code)
    engine.stop(stopped)
    assert engine.poll(stopped) == code
    assert [engine.poll(lost) for _ in range(3)] == [None] * 3  # it may run once more: it is in the queue
    began = time.monotonic()
    engine.wait([lost])  # not for nothing, while its first result lies there
    assert time.monotonic() - began > 0.5
    cluster.queue.write_text("")
    cluster.ends("COMPLETED")
    assert [engine.poll(lost) for _ in range(2)] == [None, LOST]  # gone at two looks
    cluster.ends("CANCELLED")
    assert engine.poll(cancelled) == code
    assert engine.running == []


def test_a_job_that_slurm_queued_again_is_waited_for(tiny: Path, tmp_path: Path, cluster: Cluster) -> None:
    engine = opened(tmp_path)
    batch = engine.start(job_of(tiny))
    assert batch is not None
    leave(batch, 128 + signal.SIGTERM)
    cluster.ends("PENDING")
    assert [engine.poll(batch) for _ in range(3)] == [None] * 3
    batch.job.paths.result_pickle.write_bytes(b"half")  # while one result takes the place of the other
    assert engine.poll(batch) is None
    leave(batch, 0)
    assert engine.poll(batch) == 0


def test_a_job_that_left_nothing_points_to_the_folder(tiny: Path, tmp_path: Path, cluster: Cluster) -> None:
    engine = opened(tmp_path)
    silent, spoke = engine.start(job_of(tiny)), engine.start(job_of(tiny))
    assert silent is not None
    assert spoke is not None
    spoke.job.paths.stderr.write_text("the disk is full\n")
    cluster.queue.write_text("")
    cluster.ends("FAILED")
    assert engine.poll(silent) is None
    folder = tmp_path / "cells" / "slurm"
    assert engine.poll(silent) == (
        f"batch job 1 ended as FAILED and left nothing in {folder}, not even a log: the nodes likely have another "
        "folder there, or none. Put the results on one that all nodes share (--results)"
    )
    said = f"batch job 2 ended as FAILED (it left no result); see {folder / '2_0_log.err'}"
    assert engine.poll(spoke) == said


def test_a_cell_is_told_to_end_and_not_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it die of the signal that asks submitit to make room, which Slurm may send to every process."""
    python, up = tmp_path / "python", tmp_path / "up"
    python.write_text(f"""#!{sys.executable} -IS
import os, signal, time
open("{tmp_path}/env", "w").write("".join(f"{{name}}={{value}}\\n" for name, value in os.environ.items()))
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
open("{up}.new", "w").write(str(os.getpid()))
os.rename("{up}.new", "{up}")
time.sleep(5)
""")  # no shell: it hears again what its parent had not let it hear
    python.chmod(0o755)
    for name in ("SLURM_JOB_ID", "SUBMITIT_EXECUTOR", "SLURMY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "executable", str(python))
    passed: list[int] = []

    def bypass(number: int, frame: object) -> None:
        """As submitit's, which does nothing."""
        passed.append(number)

    def terminate() -> None:
        until(up.exists, 5, "the cell's process")
        for each in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(int(up.read_text()), each)
        os.kill(os.getpid(), signal.SIGTERM)

    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    before = signal.signal(signal.SIGTERM, bypass)
    thread = threading.Thread(target=terminate)
    try:
        thread.start()
        assert Cell({})() == 143
        assert signal.getsignal(signal.SIGTERM) is bypass
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == masked
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)
    assert passed == []
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names >= {"PATH", "SLURMY"}
    assert not any(name.startswith(("SLURM_", "SUBMITIT_")) for name in names)


class Faulty(Engine):
    """Takes two jobs, of which the first cannot be stopped, then fails; a job ends some time after it is stopped."""

    name = "faulty"

    def __init__(self) -> None:
        super().__init__()
        self.left: dict[int, int] = {}  # looks until a job has ended, of those that were stopped
        self.started = 0

    def start(self, job: Job) -> int:
        if self.started == 2:
            raise EmobenchError("the cluster burns")
        self.started += 1
        return self.started

    def poll(self, started: int) -> int | None:
        if started == 1:
            raise RuntimeError("there is no such job")
        self.left[started] -= 1
        return 128 + signal.SIGTERM if self.left[started] == 0 else None

    def stop(self, started: int, *, at_once: bool = False) -> None:
        if started == 1:
            raise RuntimeError("there is no such job")
        self.left[started] = 3


def test_cells_are_stopped_in_order_whatever_ends_the_sweep(tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("seeds = [0]", "seeds = [0, 1, 2]"))
    plan, engine = expand(load(tiny), tmp_path), Faulty()
    with pytest.raises(EmobenchError, match="the cluster burns"):
        sweep(
            plan,
            plan.cells,
            tmp_path / "results",
            tmp_path,
            engine=engine,
            packing=Packing(3, 1, Machines(3, 0, 8)),
            workers=0,
            redo=False,
            tracking=None,
            remote=None,
            on_change=lambda state: None,
            on_tick=lambda state: None,
        )
    assert engine.left == {2: 0}
