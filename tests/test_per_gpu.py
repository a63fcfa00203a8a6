"""Several cells on one GPU, as far as that goes without one: CUDA_VISIBLE_DEVICES says which of them a cell sees."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY

from emobench.errors import EmobenchError
from emobench.runner import run as runner
from emobench.runner.engines.local import Local, Started
from emobench.runner.engines.slurm import Slurm
from emobench.runner.machine import Machines
from emobench.runner.record import read_record
from emobench.runner.run import Job
from emobench.runner.threads import Packing, fit_on_a_gpu
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
    [(4, 1, True, [0.25]), (1, 1, True, []), (4, 2, True, []), (4, 1, False, [])],
    ids=["packed", "alone", "on several devices", "no GPU"],
)
def test_a_cell_that_shares_a_gpu_has_its_part_of_the_memory(
    per_gpu: int, devices: int, there: bool, caps: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    ran: list[list[float]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", seen.append)
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
