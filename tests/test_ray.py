"""The engine ray: on a cluster of two nodes on this machine, whose cores are one each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from reading import pages
from soak import processes_of, raw_files
from watching import until

import emobench as package
from emobench.errors import EmobenchError
from emobench.runner.engines import engine_at
from emobench.runner.engines import ray as engine
from emobench.runner.record import read_record

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'emobench[ray]')")

CHECKOUT = Path(package.__file__).parents[1]
# Cells of some seconds, which keep a checkpoint an epoch.
LONG = TINY.replace("epochs = 4", "epochs = 150")


@pytest.fixture(scope="module")
def cluster(s3: str) -> Iterator[Any]:
    """Two nodes; raylets hand their environment on to the processes of cells."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(CHECKOUT), EMOBENCH_OFFLINE="1")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def disconnected() -> Iterator[None]:
    yield
    ray.shutdown()


def checkpoints(results: Path) -> list[Path]:
    return list(results.glob("cells/*/checkpoints/last-*.ckpt"))


def driver(suite: Path, results: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "emobench", "bench", str(suite), "--results", str(results)]
    with open(results.with_suffix(".txt"), "a") as log:
        return subprocess.Popen([*command, "--engine", "ray", "--address", address], stdout=log, stderr=log, text=True)


def cores() -> int:
    return len(os.sched_getaffinity(0))


def said(results: Path) -> str:
    return results.with_suffix(".txt").read_text()


@pytest.mark.long
def test_it_gives_the_local_engines_raw_files_byte_for_byte(
    cluster: Any, emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the smoke suite, at one thread a cell."""
    assert emobench("bench", "smoke", "--results", tmp_path / "local", "--per-node", cores()) == 0
    capsys.readouterr()
    shared = ("--results", tmp_path / "ray", "--engine", "ray", "--address", cluster.address)
    assert emobench("bench", "smoke", *shared) == 0
    assert raw_files(tmp_path / "ray") == raw_files(tmp_path / "local")
    assert len(raw_files(tmp_path / "ray")) >= 4
    for path in (tmp_path / "ray").glob("cells/*/*/result.json"):
        hardware = read_record(path).hardware
        assert hardware is not None
        assert hardware.threads == 1
    assert not processes_of(tmp_path / "ray")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_nodes_that_share_nothing_but_a_store_give_the_same(
    kind: str, cluster: Any, s3: str, tiny: Path, emobench: Callable[..., int], tmp_path: Path
) -> None:
    """Each keeps its results in a folder of its own, which is gone at the end; failures reach the board too."""
    url = f"file://{tmp_path}/shared" if kind == "file" else f"{s3}/{tmp_path.name}"
    before = set(Path(tempfile.gettempdir()).glob("emobench-*"))
    assert emobench("bench", tiny, "--results", tmp_path / "local", "--per-node", cores()) == 0
    shared = ("--results", tmp_path / "ray", "--engine", "ray", "--address", cluster.address, "--store", url)
    assert emobench("bench", tiny, *shared) == 0
    assert raw_files(tmp_path / "ray") == raw_files(tmp_path / "local")
    assert set(Path(tempfile.gettempdir()).glob("emobench-*")) == before
    ray.shutdown()
    assert emobench("bench", tiny, *shared, "--set", "model.resnet18.lr=1e30") == 1
    (page,) = (tmp_path / "ray").glob("tiny+*/leaderboard.md")
    assert "diverged" in page.read_text()


@pytest.mark.long
def test_a_node_that_goes_away_costs_nothing(cluster: Any, tmp_path: Path) -> None:
    """Its cell starts again elsewhere from its last checkpoint; nothing is lost, nothing done twice."""
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    process = driver(suite, results, cluster.address)
    until(lambda: len({path.parent for path in checkpoints(results)}) == 2, 120, "checkpoints of both cells")
    cluster.remove_node(next(each for each in cluster.list_all_nodes() if each is not cluster.head_node))
    cluster.add_node(num_cpus=1)
    assert process.wait(timeout=240) == 0, said(results)
    assert "went away" in said(results)
    assert "going on from last-step=" in "".join(path.read_text() for path in results.glob("cells/*/log.txt"))
    for path in results.glob("cells/*/history.csv"):
        assert [line.split(",")[0] for line in path.read_text().splitlines()[1:]] == [str(k) for k in range(150)]
    assert not processes_of(results)


@pytest.mark.long
def test_thirty_seconds_after_its_driver_is_killed_nothing_is_left_and_the_same_command_goes_on(
    cluster: Any, tmp_path: Path
) -> None:
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    process = driver(suite, results, cluster.address)
    until(lambda: checkpoints(results), 120, "a checkpoint")
    assert processes_of(results)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not processes_of(results), 30, "the end of all processes")
    assert driver(suite, results, cluster.address).wait(timeout=240) == 0, said(results)
    assert "going on from last-step=" in "".join(path.read_text() for path in results.glob("cells/*/log.txt"))


@pytest.mark.long
def test_a_killed_worker_and_a_killed_cell(cluster: Any, tmp_path: Path) -> None:
    """Whoever kills a task's worker makes the cell start again; a cell's own process that is killed has failed."""
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    process = driver(suite, results, cluster.address)
    until(lambda: len({path.parent for path in checkpoints(results)}) == 2, 120, "checkpoints of both cells")
    before = set(processes_of(results))  # of which one outlives its worker by a moment, and is killed for nothing
    worker = next(pid for pid in workers() if "emobench" in title(pid))
    os.kill(worker, signal.SIGKILL)
    until(lambda: "went away" in said(results), 60, "the cell starts again")
    until(lambda: set(processes_of(results)) - before, 60, "the cell runs again")
    # A signal that ends it in its start costs it nothing; when it goes on from its checkpoint it is past that.
    until(
        lambda: any("going on from last-step=" in path.read_text() for path in results.glob("cells/*/log.txt")),
        60,
        "a step",
    )
    (cell, *_) = set(processes_of(results)) - before
    os.kill(cell, signal.SIGKILL)
    assert process.wait(timeout=240) == 1, said(results)
    assert "killed by SIGKILL: out of memory, or by hand" in pages(results / "long")
    assert driver(suite, results, cluster.address).wait(timeout=240) == 0, said(results)


def workers() -> list[int]:
    """Processes of Ray's workers."""
    found = subprocess.run(["pgrep", "-f", "^ray::"], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.long
def test_a_signal_ends_all_in_order(cluster: Any, tmp_path: Path) -> None:
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    process = driver(suite, results, cluster.address)
    until(lambda: checkpoints(results), 120, "a checkpoint")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGINT, said(results)
    assert "stopped by signal 2" in said(results)
    assert not processes_of(results)
    states = {read_record(path).state for path in results.glob("cells/*/fit.json")}
    assert "interrupted" in states <= {"interrupted", "done"}


HUNGRY = """
import torch
from emobench.classifiers.resnet import ResNet18


class Hungry(ResNet18):
    name = "hungry"

    def on_train_start(self):
        self.held = [torch.ones(2**28) for _ in range(6)]
        while True:
            pass
"""


@pytest.mark.long
def test_a_cell_that_memory_does_not_suffice_for_has_failed_for_that_reason(tmp_path: Path) -> None:
    """And is not run again for ever: it takes six GiB on a node that counts as full with four more than now."""
    from ray.cluster_utils import Cluster

    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    full = (memory["MemTotal"] - memory["MemAvailable"] + 4 * 2**20) / memory["MemTotal"]
    if full > 0.9:
        pytest.skip("needs six GiB of free memory")
    before = dict(os.environ)
    os.environ.update(RAY_memory_usage_threshold=str(full), RAY_memory_monitor_refresh_ms="100")
    os.environ.update(PYTHONPATH=str(CHECKOUT))
    small = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    (tmp_path / "hungry.py").write_text(HUNGRY)
    suite.write_text(LONG.replace("[model.resnet18]", '[model.hungry]\nclass = "hungry.py:Hungry"'))
    try:
        assert driver(suite, results, small.address).wait(timeout=120) == 1, said(results)
    finally:
        small.shutdown()
        os.environ.clear()
        os.environ.update(before)
    assert "hungry on synthetic-plain, seed 0: failed" in said(results)
    assert "out of memory on " in pages(results / "long")
    assert not processes_of(results)


@pytest.mark.slow
def test_what_cannot_work_is_refused_before_anything_starts(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cells").mkdir()
    found = engine.Ray(cluster.address)
    try:
        found.open(tmp_path)
        mine = engine.installed()
        monkeypatch.setattr(engine, "installed", lambda: {**mine, "torch": "1.0"})
        with pytest.raises(EmobenchError, match=r"the nodes of the cluster differ.* has torch 2.*, here it is 1\.0"):
            found.open(tmp_path)
        monkeypatch.setattr(engine, "installed", lambda: mine)
        monkeypatch.setattr(Path, "write_bytes", lambda *_: 0)  # what is written here is not seen there
        monkeypatch.setattr(Path, "unlink", lambda *_: None)
        with pytest.raises(EmobenchError, match="not the same folder on .*all nodes share"):
            found.open(tmp_path)
    finally:
        found.close()


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(EmobenchError, match=r"no Ray cluster can be reached at 127\.0\.0\.1:1 .*ray start --head"):
        engine_at("ray", "127.0.0.1:1")
    with pytest.raises(EmobenchError, match="a sweep runs on a node of the cluster"):
        engine_at("ray", "ray://127.0.0.1:10001")


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EmobenchError, match=r"the engine ray needs Ray .*pip install 'emobench\[ray\]'"):
        engine_at("ray", None)


def test_an_address_is_no_matter_of_an_engine_of_this_machine() -> None:
    with pytest.raises(EmobenchError, match="--address auto: the engine local runs on this machine"):
        engine_at("local", "auto")
