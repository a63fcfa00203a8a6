"""Several cells on one GPU, as far as that goes without one: CUDA_VISIBLE_DEVICES says which of them a cell sees."""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY

from emobench.commands.bench import Sharing
from emobench.errors import EmobenchError
from emobench.runner import calibrate
from emobench.runner import run as runner
from emobench.runner.calibrate import Together, settings_of
from emobench.runner.engines.local import Local, Started
from emobench.runner.engines.slurm import Slurm
from emobench.runner.machine import Machines
from emobench.runner.record import read_record
from emobench.runner.run import Job
from emobench.runner.threads import Packing, fit_on_a_gpu
from emobench.runner.trial import WARM, Calibration, Trial, measure_together
from emobench.suite.cell import Plan
from emobench.suite.expand import expand
from emobench.suite.file import load

MINE = '''
import os

from emobench.classifiers.resnet import ResNet18


class Mine(ResNet18):
    """A network that says which GPU it sees."""

    name = "mine"

    def on_fit_start(self):
        print("sees", os.environ["CUDA_VISIBLE_DEVICES"])
'''


@pytest.mark.parametrize(
    ("memory", "peaks", "expected"),
    [
        (80.0, [1.0, 4.0], 8),  # 80 / 5.8 = 13, and at most 8
        (16.0, [1.0, 4.0], 2),
        (16.0, [1.9], 5),
        (16.0, [40.0], 1),
        (80.0, [], 1),
        (80.0, [0.0], 8),
    ],
)
def test_as_many_share_a_gpu_as_memory_has_place_for(memory: float, peaks: list[float], expected: int) -> None:
    assert fit_on_a_gpu(memory, peaks) == expected


def test_cells_on_gpus_share_the_cores_by_the_plan() -> None:
    there = Machines(16, 2, 64)
    assert Packing.on(there, None, 24, per_gpu=4) == Packing(8, 2, there, 4)
    assert Packing.on(there, 3, 24, per_gpu=4) == Packing(3, 5, there, 4)
    assert Packing.on(there, None, 24, 1, 4) == Packing(8, 1, there, 4, fixed=True)
    assert Packing.on(there, None, 24, per_gpu=4).threads_of(2) == 8  # a process on each of the two


@pytest.mark.parametrize(
    ("there", "asked", "per_gpu", "says"),
    [
        (
            Machines(16, 1, 64),
            4,
            1,
            "1 GPU has place for 1 cell, 1 on each.*--per-gpu 4",
        ),
        (Machines(16, 2, 64), 5, 2, "2 GPUs have place for 4 cells, 2 on each.*--per-gpu 3"),
    ],
)
def test_more_cells_than_gpus_have_place_for_are_refused(there: Machines, asked: int, per_gpu: int, says: str) -> None:
    with pytest.raises(EmobenchError, match=f"--per-node {asked}: {says}"):
        Packing.on(there, asked, 24, per_gpu=per_gpu)
    assert Packing.on(there, there.gpus * per_gpu, 24, per_gpu=per_gpu).per_node == there.gpus * per_gpu


def test_a_dry_run_plans_with_the_cells_that_a_gpu_takes(
    emobench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("emobench.runner.machine.cores", lambda: 16)
    (tmp_path / "tiny.toml").write_text(TINY.replace("seeds = [0]", "seeds = [0, 1]"))
    suite = ("bench", tmp_path / "tiny.toml", "--dry-run", "--results", tmp_path / "results", "--per-node", "4")
    assert emobench(*suite) == 2
    assert "--per-gpu 4" in capsys.readouterr().err
    assert emobench(*suite, "--per-gpu", "4") == 0
    assert "4 cells side by side, 4 of 16 cores each" in capsys.readouterr().out
    assert emobench(*suite, "--per-gpu", "auto") == 0  # nothing was measured: one has the GPU, and all cores
    assert "side by side" not in capsys.readouterr().out


# Whether it pays


@pytest.fixture
def four(tmp_path: Path) -> Plan:
    """Four networks that are trained, of which one is the control."""
    (tmp_path / "tiny.toml").write_text(TINY.replace("seeds = [0]", "seeds = [0, 1, 2]"))
    return expand(load(tmp_path / "tiny.toml"), tmp_path)


def shared(plan: Plan, numbers: list[int], folder: Path, *, if_it_pays: bool = True) -> tuple[Together, list[str]]:
    """How many cells share a GPU, each of which took a second a face alone, and what was said."""
    found = {cell.fit_key: Calibration(settings_of(cell), 1.0, 1, 1.0, 1.0) for cell in plan.cells}
    said: list[str] = []
    options: dict[str, Any] = {"threads": lambda n: 8 // n, "workers": 0, "say": said.append}
    return calibrate.sharing(plan, found, numbers, folder, if_it_pays=if_it_pays, **options), said


def measuring(monkeypatch: pytest.MonkeyPatch, *seconds: float | Exception) -> list[list[Trial]]:
    """So many seconds a face of each of 2, 3, ... cells at once; returns the trials."""
    tried: list[list[Trial]] = []

    def together(engine: Any, trials: list[Trial]) -> list[Calibration]:
        tried.append(trials)
        found = seconds[len(trials) - 2]
        if isinstance(found, Exception):
            raise found
        return [Calibration(each.settings, found, 1, 1.0, 1.0) for each in trials]

    monkeypatch.setattr(calibrate, "measure_together", together)
    return tried


@pytest.mark.parametrize(
    ("numbers", "seconds", "expected"),
    [
        ([4, 2], (1.0, 1.5, 1.8), (4, 1.8)),  # 4 / 1.8 = 2.2 times as much as one
        ([4, 2], (1.0, 1.5, 3.9), (2, 1.0)),  # 1.03 times as much with four, twice as much with two
        ([2], (1.9,), (1, 1.0)),  # 1.05 times as much
        ([4, 2], (1.0, 1.5, MemoryError("none left")), (2, 1.0)),
        ([4, 2], (EmobenchError("no"), 1.5, MemoryError("none left")), (1, 1.0)),
        ([], (), (1, 1.0)),
    ],
)
def test_cells_share_a_gpu_where_they_get_more_done_together(
    numbers: list[int],
    seconds: tuple[float | Exception, ...],
    expected: tuple[int, float],
    four: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = measuring(monkeypatch, *seconds)
    found, said = shared(four, numbers, tmp_path)
    assert (found.per_gpu, found.slower) == pytest.approx(expected)
    assert [len(trials) for trials in tried] == numbers
    assert all(each.sharing == len(trials) and each.threads == 8 // len(trials) for trials in tried for each in trials)
    assert len(said) == len(tried)
    if 1.8 in seconds:
        assert said[0] == "4 cells that share a GPU get 2.22 times as much done as one alone"


def test_a_number_that_is_asked_for_is_kept_and_how_slow_cells_are_by_it_is_measured(
    four: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, 1.9, 3.0, 3.9)
    assert shared(four, [4], tmp_path, if_it_pays=False)[0] == Together(4, pytest.approx(3.9))
    assert shared(four, [2], tmp_path, if_it_pays=False)[0] == Together(2, pytest.approx(1.9))
    measuring(monkeypatch, MemoryError("none left"))
    assert shared(four, [2], tmp_path, if_it_pays=False)[0] == Together(2, 2.0)
    few = dataclasses.replace(four, cells=four.cells[:1])
    assert shared(few, [4], tmp_path, if_it_pays=False)[0] == Together(4, 1.0)  # with nobody


def test_cells_on_several_devices_share_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = measuring(monkeypatch)
    (tmp_path / "tiny.toml").write_text(TINY + "[trainer]\ndevices = 2\n")
    plan = expand(load(tmp_path / "tiny.toml"), tmp_path)
    assert shared(plan, [8, 4, 2], tmp_path) == (Together(1, 1.0), [])
    assert not tried
    found = {cell.fit_key: Calibration(settings_of(cell), 1.0, 1, 1.0, 1.0) for cell in plan.cells}
    assert Together(4, 2.0).of(found, plan) == found


def test_all_that_a_cell_does_is_slower_where_it_shares_a_gpu(four: Plan) -> None:
    cell = four.cells[0]
    own = Calibration(settings_of(cell), 2.0, 1, 1.0, 1.0)
    found = Calibration(settings_of(cell), 1.0, 1, 3.0, 4.0, seconds_read=0.5, seconds_seen=0.25, own=own)
    slower = Together(4, 2.0).of({cell.fit_key: found}, four)[cell.fit_key]
    assert slower == dataclasses.replace(
        found, seconds_a_face=2.0, seconds_read=1.0, seconds_seen=0.5, own=dataclasses.replace(own, seconds_a_face=4.0)
    )


@pytest.mark.parametrize(
    ("asked", "cells", "expected"),
    [("auto", 24, [8, 4, 2]), ("auto", 6, [6, 3]), ("auto", 1, []), ("5", 24, [5]), ("1", 24, []), (None, 24, [])],
)
def test_of_how_many_cells_it_is_measured(
    asked: str | None, cells: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emobench.commands.bench.gpu_memory", lambda: 80.0)
    engine = Local()
    monkeypatch.setattr(engine, "machines", lambda: Machines(16, 1, 64))
    small = {"a": Calibration(None, 0.0, 1, 0.5, 1.0)}
    assert Sharing(engine, None, asked, cells).numbers(small) == expected
    large = {**small, "b": Calibration(None, 0.0, 1, 20.0, 1.0)}
    wanted = {"auto": [3] if cells > 1 else []}.get(str(asked), expected)
    assert Sharing(engine, None, asked, cells).numbers(large) == wanted  # 80 / 26.6 GiB


WAITS = '''
import time
from pathlib import Path

from emobench.classifiers.resnet import ResNet18


class Early(ResNet18):
    """A network that notes when its batches begin."""

    name = "early"

    def on_train_batch_start(self, batch, batch_idx):
        with open(Path(__file__).with_name(self.name), "a") as file:
            print(time.monotonic(), file=file)


class Late(Early):
    """One whose training begins later."""

    name = "late"

    def on_fit_start(self):
        time.sleep(3)


class Fails(ResNet18):
    """One that cannot be trained."""

    name = "fails"

    def on_fit_start(self):
        raise RuntimeError("no such luck")
'''


@pytest.mark.slow
def test_what_shares_a_gpu_is_timed_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WAITS)
    rows = "".join(f'[model.{name}]\nclass = "mine.py:{name.title()}"\n' for name in ("early", "late", "fails"))
    (tmp_path / "tiny.toml").write_text(TINY.replace("[model.resnet18]", rows))
    cells = {cell.row: cell for cell in expand(load(tmp_path / "tiny.toml"), tmp_path).cells}
    early, late, fails = (
        Trial(cells[row], {}, tmp_path, 1, 0, 1.0, settings_of(cells[row]), 2) for row in ("early", "late", "fails")
    )
    engine = Local()
    engine.serve()
    found = measure_together(engine, [early, late])
    assert all(each.seconds_read is None for each in found)  # only training is timed
    batches = {name: [float(line) for line in (tmp_path / name).read_text().split()] for name in ("early", "late")}
    gaps = [after - before for before, after in pairwise(batches["early"])]
    assert max(gaps) == gaps[WARM - 1] > 2  # it waited for the other one when it was warm
    assert found[0].seconds_a_face * 32 < 1  # which is in no time
    assert batches["early"][WARM] < batches["late"][-1]
    assert batches["late"][WARM] < batches["early"][-1]
    with pytest.raises(EmobenchError, match="fails on synthetic-plain.*no such luck"):
        measure_together(engine, [early, fails])
    assert not multiprocessing.active_children()


def test_jobs_go_where_the_fewest_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Noted(Local):
        def launch(self, job: Job, environment: Mapping[str, str]) -> Started:
            seen.append(environment["CUDA_VISIBLE_DEVICES"])
            started = Started([], False, True)
            self.running.append(started)
            return started

    (tmp_path / "tiny.toml").write_text(TINY)
    cell = expand(load(tmp_path / "tiny.toml"), tmp_path).cells[0]
    engine = Noted()
    engine.gpus = ["3", "GPU-5"]
    jobs = Job(cell, tmp_path, tmp_path, per_node=4, per_gpu=2)
    first = engine.start(jobs)
    assert first is not None
    assert [engine.start(jobs) is not None for _ in range(4)] == [True, True, True, False]
    assert seen == ["3", "GPU-5", "3", "GPU-5"]
    engine.running.remove(first)
    assert engine.start(jobs) is not None
    assert seen[-1] == "3"


def test_what_cannot_share_is_refused(emobench: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    suite = ("bench", tmp_path / "tiny.toml", "--dry-run", "--results", tmp_path / "results", "--per-gpu")
    for asked, says in (("2", "no GPU is here. On cores, --per-node"), ("0", "a number of cells from 1 on, or auto")):
        assert emobench(*suite, asked) == 2
        assert says in capsys.readouterr().err
    assert emobench(*suite, "auto") == 0
    assert not Slurm.shares_gpus


@pytest.mark.parametrize(
    ("per_gpu", "devices", "there", "caps"),
    [(4, 1, True, [0.25 - 0.6 / 16]), (1, 1, True, []), (4, 2, True, []), (4, 1, False, [])],
    ids=["packed", "alone", "on several devices", "no GPU"],
)
def test_a_cell_that_shares_a_gpu_has_its_part_of_the_memory(
    per_gpu: int, devices: int, there: bool, caps: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    ran: list[list[float]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", seen.append)
    card = SimpleNamespace(total_memory=16 * 2**30)  # of which each process's context takes 0.6 GiB
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(runner, "run", lambda *_: ran.append([*seen]))
    (tmp_path / "tiny.toml").write_text(f"{TINY}\n[trainer]\ndevices = {devices}\n")
    cell = expand(load(tmp_path / "tiny.toml"), tmp_path).cells[0]
    assert runner.execute(Job(cell, tmp_path / "results", tmp_path, per_gpu=per_gpu)) == 0
    assert ran == [caps]  # before anything is put there


@pytest.mark.slow
def test_cells_see_the_gpu_that_they_share_and_give_the_numbers_of_cells_alone(
    emobench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("emobench.runner.machine.cores", lambda: 1)
    (tmp_path / "mine.py").write_text(MINE)
    suite = tmp_path / "mine.toml"
    suite.write_text(
        TINY.replace("epochs = 4", "epochs = 1")
        .replace("seeds = [0]", "seeds = [0, 1]")
        .replace("[model.resnet18]", '[model.m]\nclass = "mine.py:Mine"')
    )
    weights: dict[str, dict[str, str | None]] = {}
    sharing: list[int] = []  # by which a cell's process limits its memory
    own = Local.launch
    monkeypatch.setattr(
        Local, "launch", lambda engine, job, *rest: sharing.append(job.per_gpu) or own(engine, job, *rest)
    )
    for name, options in {"packed": ("--per-gpu", "2"), "alone": ("--per-node", "1")}.items():
        results = tmp_path / name
        assert emobench("bench", suite, "--results", results, *options) == 0
        records = [read_record(path) for path in results.glob("cells/*/fit.json")]
        weights[name] = {each.fit_key: each.fit.weights.sha256 for each in records if each.fit and each.fit.weights}
        if name == "packed":
            logs = [path.read_text() for path in results.glob("cells/*/log.txt")]
            seen = Counter(found for log in logs for found in re.findall(r"^sees (.*)$", log, re.MULTILINE))
            assert seen == {"0": 2, "1": 1}
    assert sharing == [2] * 3 + [1] * 3
    assert len(weights["alone"]) == 3
    assert weights["packed"] == weights["alone"]
