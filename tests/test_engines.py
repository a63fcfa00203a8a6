"""Where cells run: an engine is one file, and changes no number."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from reading import pages
from soak import processes_of
from toys import COSTS, ENGINE
from watching import beside, until

import emobench as package
from emobench.errors import SuiteError
from emobench.runner import machine
from emobench.runner.engines import engine_of
from emobench.runner.engines.engine import alone
from emobench.runner.engines.local import Local
from emobench.runner.record import read_record


@pytest.fixture
def here(tmp_path: Path) -> Path:
    path = tmp_path / "here.py"
    path.write_text(ENGINE)
    return path


def numbers(board: pd.DataFrame) -> pd.DataFrame:
    return board[~board.metric.isin(COSTS)].reset_index(drop=True)


@pytest.mark.slow
def test_a_toy_engine_gives_the_local_engines_numbers(tiny: Path, tmp_path: Path, here: Path) -> None:
    data = tmp_path / "data"
    local = package.bench(tiny, results=tmp_path / "local", data=data)
    toy = package.bench(tiny, results=tmp_path / "toy", data=data, engine=f"{here}:Here")
    pd.testing.assert_frame_equal(numbers(toy), numbers(local))
    assert local.value.notna().sum() > 20


def test_a_cell_that_fails_there_is_kept(tiny: Path, tmp_path: Path, here: Path, emobench: Callable[..., int]) -> None:
    results = tmp_path / "results"
    assert (
        emobench("bench", tiny, "--set", "model.resnet18.lr=1e30", "--results", results, "--engine", f"{here}:Here")
        == 1
    )
    assert "diverged" in pages(next(results.glob("tiny*/leaderboard.md")).parent)


AWAY = f'''{ENGINE}
from emobench.runner.engines.engine import AGAIN, LOST


class Away(Here):
    """Says of each cell, so often before it runs it, that its machine is gone, or that it is to start again."""

    name, says, times = "away", LOST, 0

    def __init__(self, address=None, resources=None):
        super().__init__(None, None)
        self.left = {{}}

    def start(self, job):
        left = self.left.setdefault(job.cell.label, self.times)
        self.left[job.cell.label] -= 1
        return [self.says] if left > 0 else super().start(job)

    def where(self, started):
        return "node-7"


class Thrice(Away):
    name, times = "thrice", 3


class Often(Away):
    name, times = "often", 4


class Late(Away):
    name, says, times = "late", AGAIN, 1
'''


@pytest.mark.parametrize(
    ("kind", "ends"),
    [("Thrice", "done"), ("Often", "failed in .*: the machine that it ran on went away 4 times"), ("Late", "done")],
)
def test_a_cell_whose_machine_goes_away_starts_again_some_times_at_most(
    kind: str, ends: str, tiny: Path, tmp_path: Path, emobench: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "away.py").write_text(AWAY)
    one = ("--set", "seeds=[0]", "--engine", f"{tmp_path / 'away.py'}:{kind}")
    assert emobench("bench", tiny, *one, "--results", tmp_path / "results") == (ends != "done")
    said = capsys.readouterr().out
    assert re.search(f"resnet18 on .*: {ends}", said), said
    assert said.count("resnet18 on synthetic-plain, seed 0: the machine that it ran on") == {"Late": 0}.get(kind, 3)


def said_by(target: Callable[[Any], None], results: Path) -> Any:
    """What a process sends that is forked from the server of the local engine."""
    here, there = multiprocessing.Pipe()
    engine = Local()
    engine.open(results)
    engine.context.Process(target=target, args=(there,)).start()
    return here.recv()


def of_garbage(said: Any) -> None:
    said.send((gc.isenabled(), gc.get_freeze_count()))


@pytest.mark.slow
def test_a_cell_collects_no_garbage_among_what_the_server_imported(tmp_path: Path) -> None:
    """Going through it copied most of the memory that the two share."""
    enabled, frozen = said_by(of_garbage, tmp_path)
    assert enabled
    assert frozen > 500_000  # objects


def of_forks(said: Any) -> None:
    """Sends how many cells the server has forked, and after which one it would have made that cheaper."""
    warm = sys.modules["emobench.runner.engines._warm"]
    begun, when = warm.started, []
    warm.into_large_pages = lambda: when.append(warm.started)
    warm.after_a_fork()  # this process is not the server
    warm.server = os.getpid()
    for _ in range(2 * warm.MANY):
        warm.after_a_fork()
    said.send((begun, when, warm.MANY))


@pytest.mark.slow
def test_forking_is_made_cheaper_once_and_only_where_there_are_many_cells(tmp_path: Path) -> None:
    (first, when, many), (second, *_) = (said_by(of_forks, tmp_path) for _ in range(2))
    assert second == first + 1  # the server counts, and its children do not
    assert when == ([many] if first < many else [])


def of_memory(said: Any) -> None:
    """Sends how many MiB the largest mapping of memory has, and how many the server took in one piece."""
    mappings = [line.split() for line in Path("/proc/self/maps").read_text("utf-8").splitlines()]
    places = [[int(end, 16) for end in place.split("-")] for place, _, _, _, inode, *_ in mappings if inode == "0"]
    server = sys.modules["emobench.runner.engines._server"]
    said.send((max(end - start for start, end in places) / 2**20, server.RESERVED))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_the_server_imports_lies_in_one_piece(tmp_path: Path) -> None:
    """A tenth of it lay in pieces of a mebibyte, which cannot be moved into large pages."""
    largest, reserved = said_by(of_memory, tmp_path)
    assert largest > 0.95 * reserved


def of_gpus(said: Any) -> None:
    """Sends whether the server knows its machine, whether a rehearsal asks for GPUs, and where a driver is seen."""
    warm = sys.modules["emobench.runner.engines._warm"]
    known = machine._machine.cache_info().currsize
    machine._machine.cache_clear()
    asked: list[bool] = []
    torch.cuda.is_available = lambda: bool(asked.append(True))  # type: ignore[func-returns-value]
    warm.rehearse()
    here = warm.driven()
    ctypes.CDLL = lambda name: None  # type: ignore[assignment, misc]  # a driver
    said.send((known, asked, here, warm.driven()))


@pytest.mark.slow
def test_the_server_asks_for_gpus_only_where_there_can_be_none(tmp_path: Path) -> None:
    """A process that is forked from one that has asked can use none."""
    known, asked, driven, with_a_driver = said_by(of_gpus, tmp_path)
    assert known == (0 if driven else 1)
    assert not asked
    assert with_a_driver


def test_engines_are_found_by_name_or_by_file(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_of("local") is Local
    assert engine_of(f"{here}:Here").name == "here"
    with pytest.raises(SuiteError, match="'here'"):
        engine_of("here")
    monkeypatch.setenv("EMOBENCH_PLUGINS", str(here))
    assert engine_of("here").__name__ == "Here"
    with pytest.raises(SuiteError, match="did you mean 'local'"):
        engine_of("locl")
    with pytest.raises(SuiteError, match="no such file"):
        engine_of(f"{tmp_path / 'none.py'}:Here")
    with pytest.raises(SuiteError, match="Her"):
        engine_of(f"{here}:Her")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    with pytest.raises(SuiteError, match=r"broken\.py, line 1: ModuleNotFoundError"):
        engine_of(f"{tmp_path / 'broken.py'}:Here")


OF_SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "batch",
    "SLURM_NTASKS": "4",
    "SLURM_NODELIST": "here",
    "SLURM_PROCID": "3",
}
OF_TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "NODE_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4"}


def test_what_a_batch_system_says_is_told_from_the_rest() -> None:
    rest = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "RANKING": "1", "MY_SLURM_JOB_ID": "7"}
    assert alone({**OF_SLURM, **OF_TORCHRUN, **rest}) == rest


@pytest.mark.long
def test_what_a_batch_system_says_of_the_sweep_is_not_said_of_its_cells(tiny: Path, tmp_path: Path) -> None:
    """Lightning would have a cell of two processes wait for two more, and Slurm queue it again."""
    both = ("--set", "trainer.devices=2", "--set", "trainer.accelerator=cpu", "--set", "trainer.strategy=ddp")
    command = [sys.executable, "-m", "emobench", "bench", str(tiny), *both, "--results", str(tmp_path / "results")]
    environment = {**os.environ, **OF_SLURM, **OF_TORCHRUN}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=200)
    assert ended.returncode == 0, ended.stdout
    logs = [path.read_text() for path in (tmp_path / "results").glob("cells/*/log.txt")]
    assert any("distributed_backend=gloo" in log for log in logs)


@pytest.mark.slow
def test_the_cells_of_a_sweep_that_is_killed_end_with_it(tiny: Path, tmp_path: Path) -> None:
    """And the same command goes on from where they were."""
    results = tmp_path / "results"
    longer = ("--set", "model.resnet18.epochs=200")
    sweep = beside(tmp_path / "said", "bench", tiny, *longer, "--results", results)
    until(lambda: list(results.glob("cells/*/checkpoints/last-*.ckpt")), 120, "a checkpoint")
    assert processes_of(results)
    sweep.kill()
    sweep.join()
    until(lambda: not processes_of(results), 20, "the end of its cells")
    (state,) = {read_record(path).state for path in results.glob("cells/*/fit.json")}
    assert state == "interrupted"
