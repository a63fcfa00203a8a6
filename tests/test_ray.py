"""The engine ray: on a cluster of two nodes on this machine, whose cores are one each."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from reading import pages
from soak import Processes, processes_of, raw_files, running, workers
from watching import until

import emobench as package
from emobench.errors import EmobenchError, StoreError
from emobench.runner.engines import engine_at
from emobench.runner.engines import ray as engine
from emobench.runner.record import read_record
from emobench.runner.run import Job
from emobench.runner.sockets import SHORT
from emobench.runner.store import Store
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load

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


def driver(suite: Path, results: Path, address: str | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "emobench", "bench", str(suite), "--results", str(results), "--engine", "ray"]
    command += [] if address is None else ["--address", address]
    with open(results.with_suffix(".txt"), "a") as log:  # Ray's workers import from where the sweep was started
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, cwd=results.parent)


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


def of_sweeps() -> Processes:
    """What sweeps have there: the actors of nodes and the tasks of cells, and all below them."""
    return running(*workers("ray::Node", "ray::emobench"))


def one_is_ahead(started: Processes, results: Path) -> bool:
    """Whether each fork server is there, with one process that waits for its job beside those of cells."""
    nodes = sum("ray::Node" in command for command in started.values())
    forked = {pid for (pid, _), command in started.items() if "multiprocessing.forkserver" in command}
    return nodes > 0 and len(forked - set(processes_of(results))) == 2 * nodes


def kill(sweep: subprocess.Popen[str], started: Processes) -> None:
    """Kill a sweep: 30 seconds later, nothing may be left of what it had started."""
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    end = time.monotonic() + 30
    pids = [pid for pid, _ in started]
    while (left := {each for each in running(*pids).items() if each[0] in started}) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


@pytest.mark.long
def test_thirty_seconds_after_its_driver_is_killed_nothing_is_left_and_the_same_command_goes_on(
    cluster: Any, tmp_path: Path
) -> None:
    """Neither cells nor the servers that they are forked from, with what these have forked ahead; the cluster stays."""
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    process = driver(suite, results, cluster.address)
    until(lambda: len({path.parent for path in checkpoints(results)}) == 2, 120, "checkpoints of both cells")
    assert processes_of(results)
    started = running(process.pid) | of_sweeps()
    assert one_is_ahead(started, results), started
    kill(process, started)
    assert not of_sweeps()
    assert driver(suite, results, cluster.address).wait(timeout=240) == 0, said(results)
    assert "going on from last-step=" in "".join(path.read_text() for path in results.glob("cells/*/log.txt"))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a sweep finds no cluster to join, and so starts Ray itself."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir=SHORT, ignore_cleanup_errors=True) as folder:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        for name, value in {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(CHECKOUT)}.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.mark.long
def test_a_driver_that_started_ray_itself_and_is_killed_leaves_nothing_of_it(alone: None, tmp_path: Path) -> None:
    """Neither raylet nor head, agents or log monitor; the same command starts Ray anew, and goes on."""
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    process = driver(suite, results, None)
    until(lambda: len({path.parent for path in checkpoints(results)}) == 2, 120, "checkpoints of both cells")
    started = running(process.pid)
    assert one_is_ahead(started, results), started
    commands = " ".join(started.values()).lower()
    assert all(part in commands for part in ("gcs_server", "/raylet ", "agent", "log_monitor.py")), started
    kill(process, started)
    assert not processes_of(results)
    assert driver(suite, results, None).wait(timeout=240) == 0, said(results)
    assert "going on from last-step=" in "".join(path.read_text() for path in results.glob("cells/*/log.txt"))


@pytest.mark.long
def test_a_killed_worker_and_a_killed_cell(cluster: Any, tmp_path: Path) -> None:
    """Whoever kills a task's worker makes the cell start again; a cell's own process that is killed has failed."""
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    process = driver(suite, results, cluster.address)
    until(lambda: len({path.parent for path in checkpoints(results)}) == 2, 120, "checkpoints of both cells")
    before = set(processes_of(results))  # of which one outlives its worker by a moment, and is killed for nothing
    os.kill(workers("ray::emobench")[0], signal.SIGKILL)
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
import time

import torch
from emobench.classifiers.resnet import ResNet18


class Hungry(ResNet18):
    name = "hungry"

    def on_train_start(self):
        self.held = [torch.ones(2**28) for _ in range(6)]
        while True:
            pass
"""


def nearly_full(gib: int) -> float:
    """The share of this machine's memory that is used where so many GiB more are; skips the test if it is too much."""
    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    full = (memory["MemTotal"] - memory["MemAvailable"] + gib * 2**20) / memory["MemTotal"]
    if full > 0.9:
        pytest.skip(f"needs {gib + 2} GiB of free memory")
    return full


@pytest.mark.long
def test_a_cell_that_memory_does_not_suffice_for_has_failed_for_that_reason(tmp_path: Path) -> None:
    """And is not run again for ever: it takes six GiB on a node that counts as full with four more than now."""
    from ray.cluster_utils import Cluster

    full = nearly_full(4)
    before = dict(os.environ)
    os.environ.update(RAY_memory_usage_threshold=str(full), RAY_memory_monitor_refresh_ms="100")
    os.environ.update(PYTHONPATH=str(CHECKOUT))
    small = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    (tmp_path / "hungry.py").write_text(HUNGRY)
    suite.write_text(LONG.replace("[model.resnet18]", '[model.hungry]\nclass = "hungry.py:Hungry"'))
    try:
        assert driver(suite, results, small.address).wait(timeout=240) == 1, said(results)
    finally:
        small.shutdown()
        os.environ.clear()
        os.environ.update(before)
    assert "hungry on synthetic-plain, seed 0: failed" in said(results)
    assert "out of memory on " in pages(results / "long")
    assert not processes_of(results)


@pytest.fixture
def own() -> Iterator[Any]:
    """`own(**of_the_head)` starts a cluster of the test's own; the environment is as before at the end."""
    from ray.cluster_utils import Cluster

    before, started = dict(os.environ), []
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(CHECKOUT), EMOBENCH_OFFLINE="1")

    def start(**head: Any) -> Any:
        started.append(Cluster(initialize_head=True, head_node_args=head))
        return started[-1]

    yield start
    ray.shutdown()
    for each in started:
        each.shutdown()
    os.environ.clear()
    os.environ.update(before)


def of_another_torch(folder: Path) -> str:
    """A path on which a node finds another version of torch named first."""
    (folder / "torch-1.0.dist-info").mkdir(parents=True)
    (folder / "torch-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    return f"{folder}{os.pathsep}{CHECKOUT}"


def of_no_emobench(folder: Path) -> str:
    """One on which it finds no emobench."""
    (folder / "emobench").mkdir(parents=True)
    (folder / "emobench" / "__init__.py").write_text("raise ImportError('nothing of that name')")
    return str(folder)


@pytest.mark.long
def test_a_node_that_joins_later_and_differs_runs_no_cell(own: Callable[..., Any], tmp_path: Path) -> None:
    """Nor does one that has no emobench; the sweep goes on where it was, and says why."""
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    suite.write_text(LONG)
    small = own(num_cpus=1)
    process = driver(suite, results, small.address)
    until(lambda: checkpoints(results), 120, "a checkpoint")
    for number, path in enumerate((of_another_torch, of_no_emobench)):
        os.environ["PYTHONPATH"] = path(tmp_path / str(number))
        small.add_node(num_cpus=1)
    assert process.wait(timeout=240) == 0, said(results)
    assert re.search(r"not used: .*: has torch 1\.0, not 2", said(results)), said(results)
    assert re.search(r"not used: .*: emobench cannot be loaded there", said(results)), said(results)
    records = [read_record(path) for path in results.glob("cells/*/fit.json")]
    assert len(records) == 2
    assert not any(record.versions is None or record.versions.torch == "1.0" for record in records)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_memory_that_one_cell_takes_fails_no_other(own: Callable[..., Any], tmp_path: Path) -> None:
    """Ray ends whichever task it likes; the cell beside the hungry one, and the one that waits, go on."""
    full = nearly_full(5)
    os.environ.update(RAY_memory_usage_threshold=str(full), RAY_memory_monitor_refresh_ms="100")
    small = own(num_cpus=2)
    suite, results = tmp_path / "long.toml", tmp_path / "results"
    (tmp_path / "hungry.py").write_text(HUNGRY.replace("self.held", "time.sleep(12)\n        self.held"))
    both = LONG.replace("epochs = 150", "epochs = 600")
    suite.write_text(f'{both}\n[model.hungry]\nclass = "hungry.py:Hungry"{both.partition("[model.resnet18]")[2]}')
    driver(suite, results, small.address).wait(timeout=480)
    ends = dict(re.findall(r"\] (\S+) on synthetic-plain, seed 0: (done|failed)", said(results)))
    assert ends == {"resnet18": "done", "hungry": "failed", "control:permuted": "done"}, said(results)
    assert "out of memory on " in pages(results / "long")


@pytest.mark.slow
def test_what_cannot_work_is_refused_before_anything_starts(
    own: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cells").mkdir()
    monkeypatch.chdir(tmp_path)  # Ray's workers import from where the sweep was started
    small = own(num_cpus=1)
    for path in (of_another_torch, of_no_emobench):
        os.environ["PYTHONPATH"] = path(tmp_path / path.__name__)
        small.add_node(num_cpus=1)
    found = engine.Ray(small.address)
    with pytest.raises(EmobenchError, match="nodes of the cluster cannot run these cells") as refusal:
        found.open(tmp_path)
    found.close()
    assert re.search(r"has torch 1\.0, not 2", str(refusal.value))
    assert "emobench cannot be loaded there" in str(refusal.value)
    assert not list((tmp_path / "cells").iterdir())


@pytest.mark.long
def test_a_node_whose_actor_was_killed_gets_another_one(own: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    """Also where no cell was waiting for it, as where Ray has just ended these for memory, and the actor with them.

    Nor does a worker of Ray's, in which a cell has run before, look for the one that has ended.
    """
    (tmp_path / "cells").mkdir()
    found = engine.Ray(own(num_cpus=1).address)

    def code(cell: Cell) -> int | str | None:
        task = found.start(Job(cell, tmp_path, tmp_path, threads=1))
        assert task is not None
        while (ended := found.poll(task)) is None:
            found.wait([task])
        return ended

    def replaced() -> bool:
        found.wait([])
        return workers("ray::Node") not in ([], [process])

    try:
        found.open(tmp_path)
        first, second = expand(load(tiny), tmp_path).cells
        assert code(first) == 0
        (process,) = workers("ray::Node")
        os.kill(process, signal.SIGKILL)
        until(replaced, 60, "another actor")
        assert code(second) == 0
    finally:
        found.close()


@pytest.mark.long
def test_cells_run_where_the_gpus_are_and_share_them(own: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    """The head has none; a folder that a node does not see is refused; a cell of two devices takes two."""
    small = own(num_cpus=1)
    small.add_node(num_cpus=4, num_gpus=2)
    (tmp_path / "cells").mkdir()
    found = engine.Ray(small.address)
    try:
        machines = found.machines()
        assert (machines.cores, machines.gpus, machines.number) == (4, 2, 1)
        found.open(tmp_path)
        assert not found.refused
        assert found.probe is not None
        assert found.probe.exists()
        cell = expand(load(tiny), tmp_path).cells[0]
        job = Job(cell, tmp_path, tmp_path, per_node=4, per_gpu=2)
        wanted = found._wanted(job)
        assert (wanted["num_cpus"], wanted["num_gpus"]) == (1, 0.5)
        assert found._room(wanted) == 4
        smallest = found._wanted(replace(job, per_node=1))["memory"]
        assert wanted["memory"] == smallest // 4
        assert found._wanted(replace(job, memory=smallest / 2**31))["memory"] == -(-smallest // 2)  # half of the node
        assert found._wanted(replace(job, memory=1e6))["memory"] == smallest
        two = replace(job, cell=replace(cell, trainer={"devices": 2}))
        assert found._wanted(two)["num_gpus"] == 2
    finally:
        found.close()
    assert not list((tmp_path / "cells").iterdir())


SEES = '''
import os
import time
from pathlib import Path

from emobench.classifiers.resnet import ResNet18


class Sees(ResNet18):
    """A network that says which GPUs its process sees; where that is of one, it waits until three others are there."""

    name = "sees"

    def on_fit_start(self):
        folder, until = Path(__file__).parent, time.monotonic() + 60
        (folder / f"{os.getpid()}.txt").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        while self.trainer.world_size == 1 and len(list(folder.glob("*.txt"))) < 4 and time.monotonic() < until:
            time.sleep(0.1)
'''


@pytest.mark.long
def test_cells_see_the_gpus_that_ray_keeps_for_them(
    own: Callable[..., Any], emobench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray hides GPUs from what asked for none, such as the actor whose server the cells are forked from.

    There is no GPU here: Ray is told that a node may use the fourth and the sixth of a machine.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    small = own(num_cpus=4, num_gpus=2)
    one = TINY.replace("epochs = 4", "epochs = 1").replace("[model.resnet18]", '[model.m]\nclass = "sees.py:Sees"')
    suites = {
        "four": one.replace("seeds = [0]", "seeds = [0, 1, 2]"),  # and the control
        "both": f'{one}\n[trainer]\ndevices = 2\naccelerator = "cpu"\n',
    }
    seen = {}
    for name, suite in suites.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "sees.py").write_text(SEES)
        (tmp_path / name / "mine.toml").write_text(suite)
        options = (
            "--engine",
            "ray",
            "--address",
            small.address,
            "--per-gpu",
            "2",
            "--results",
            tmp_path / name / "out",
        )
        assert emobench("bench", tmp_path / name / "mine.toml", *options) == 0
        ray.shutdown()
        found = [path.read_text().split(",") for path in (tmp_path / name).glob("*.txt")]
        seen[name] = Counter(",".join(sorted(each)) for each in found)
    assert seen["four"] == {"3": 2, "5": 2}
    assert seen["both"] == {"3,5": 4}  # two processes of the cell, and of its control


def test_a_machine_that_does_not_see_the_results_is_told(tmp_path: Path) -> None:
    mine = engine.installed()
    assert {"Python", "torch", "lightning", "timm", "diffusers", "ray", "emobench's code"} <= mine.keys()
    (tmp_path / "cells").mkdir()
    probe = tmp_path / "cells" / ".probe"
    assert engine._unfit(mine, str(probe)) == f"{tmp_path} is not the same folder there"
    probe.touch()
    assert engine._unfit(mine, str(probe)) is None
    assert engine._unfit({**mine, "torch": "1.0"}, None) == f"has torch {mine['torch']}, not 1.0"


def not_connected(**values: Any) -> Any:
    """The engine, of no cluster."""
    found = engine.Ray.__new__(engine.Ray)
    vars(found).update(alive=[], tasks=[], calm=0.0, **values)
    return found


def test_without_a_node_for_a_moment_cells_wait() -> None:
    assert not_connected().start(None) is None


def test_what_a_cell_made_and_a_store_does_not_give_fails_that_cell_alone(tmp_path: Path) -> None:
    class Away:
        def pull_fit(self, store: Store, fit_key: str) -> bool:
            raise StoreError("s3://faces: cannot be reached (403)")

    found = not_connected(results=Store(tmp_path), remote=Away())
    why = found._bring(Cell("row", "m", "none", 48, 0, "d", None, {}, {}, ["happy"], 0), engine.Ended(0, None))
    assert why == "it ended, and what it made could not be fetched: s3://faces: cannot be reached (403)"


def test_folders_of_killed_processes_are_deleted_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("killed", "kept"):
        (tmp_path / f"emobench-node-{name}" / "cells" / "key").mkdir(parents=True)
    (tmp_path / "emobench-node-killed" / ".in-use").touch()
    first = engine.new_folder()
    second = engine.new_folder()
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "emobench-node-kept"}
    for name in ("done", "failed"):
        (first / "cells" / name).mkdir(parents=True)
    engine.delete(first, but={"failed"})
    engine.delete(second, but=())
    engine.new_folder()
    assert [path.name for path in (first / "cells").iterdir()] == ["failed"]
    assert not second.exists()


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
