"""How cells share the cores of a machine, and how the threads of one wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY
from threadpoolctl import threadpool_info

from emobench.errors import EmobenchError
from emobench.runner import machine
from emobench.runner.engines import local
from emobench.runner.machine import Machines, hardware
from emobench.runner.record import read_record
from emobench.runner.threads import Packing, threads, wait_gently

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")
BLAS = {"OPENBLAS_THREAD_TIMEOUT": "16"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """One in which nobody has said how threads wait; it is taken back as a whole."""
    before = dict(os.environ)
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"} | BLAS),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"} | BLAS),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"} | BLAS),
        ({"OPENBLAS_THREAD_TIMEOUT": "26"}, {"GOMP_SPINCOUNT": "1000", "OPENBLAS_THREAD_TIMEOUT": "26"}),
    ],
)
def test_what_the_user_says_stays(
    environment: pytest.MonkeyPatch, given: dict[str, str], expected: dict[str, str]
) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    wait_gently()
    assert {name: os.environ[name] for name in WAITING if name in os.environ} == expected


@pytest.mark.slow
def test_the_fork_server_is_started_with_it_and_a_cold_cell_loads_torch_after_it(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[tuple[str | None, ...]] = []
    said = ("GOMP_SPINCOUNT", "OPENBLAS_THREAD_TIMEOUT")
    environment.setattr(local.forkserver, "ensure_running", lambda: started.append(tuple(map(os.environ.get, said))))
    local.Local().open(tmp_path)
    assert started == [("1000", "16")]
    code = (
        "import os, sys, emobench.commands.cell as cold\n"
        "try:\n"
        "    cold.cell(__import__('pathlib').Path('nowhere.json'))\n"
        "except FileNotFoundError:\n"
        "    print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "1000 False"


@pytest.mark.parametrize(
    ("there", "asked", "cells", "expected"),
    [
        (Machines(2, 0, 32), None, 13, (2, 1)),
        (Machines(2, 0, 32), 1, 13, (1, 2)),
        (Machines(2, 0, 32), None, 1, (1, 2)),
        (Machines(3, 0, 32), 2, 13, (2, 1)),
        (Machines(1, 0, 32), None, 13, (1, 1)),
        (Machines(16, 0, 32), None, 13, (4, 4)),
        (Machines(16, 0, 32), 16, 13, (16, 1)),
        (Machines(16, 8, 32), None, 13, (8, 2)),
        (Machines(1, 8, 32), None, 13, (8, 1)),  # a batch system's careless limit
        (Machines(16, 0, 32, number=13), None, 13, (1, 16)),
        (Machines(16, 0, 32, number=4), None, 13, (4, 4)),
        (Machines(16, 0, 32, number=7), None, 13, (2, 8)),
    ],
)
def test_cells_share_cores_by_the_plan(
    there: Machines, asked: int | None, cells: int, expected: tuple[int, int]
) -> None:
    packing = Packing.on(there, asked, cells)
    assert (packing.per_node, packing.threads) == expected


def test_this_machine_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5})
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**23}[name])  # 32 GiB
    assert Machines.here(2) == Machines(cores=3, gpus=2, memory=32, number=1)


def test_memory_bounds_how_many_run_side_by_side() -> None:
    assert Packing.on(Machines(16, 0, 8), None, 13) == Packing(2, 8, Machines(16, 0, 8))
    assert Packing.on(Machines(16, 0, 8), 3, 13) == Packing(3, 5, Machines(16, 0, 8))
    assert Packing.on(Machines(16, 0, 1), None, 13).per_node == 1


@pytest.mark.parametrize("asked", [0, -1, 3])
def test_more_cells_than_cores_are_refused(asked: int) -> None:
    with pytest.raises(EmobenchError, match=rf"--per-node {asked}: this machine has 2 cores.*from 1 to 2"):
        Packing.on(Machines(2, 0, 8), asked, 13)
    with pytest.raises(EmobenchError, match=rf"--per-node {asked}: the smallest machine has 2 cores.*from 1 to 2"):
        Packing.on(Machines(2, 0, 8, number=2), asked, 13)


def test_the_processes_of_a_cell_on_several_devices_share_the_cores() -> None:
    packing = Packing(8, 2, Machines(16, 8, 64))
    assert [packing.threads_of(each) for each in (1, 2, 8, 99)] == [2, 8, 2, 1]


def test_the_threads_of_a_boards_plan_are_the_same_on_every_machine() -> None:
    for machines in (Machines(64, 2, 512), Machines(16, 2, 512), Machines(4, 0, 64)):
        for planned in (1, 16):
            packing = Packing.on(machines, None, 10, fixed=planned)
            assert [packing.threads_of(each) for each in (1, 2, 8)] == [planned] * 3
    assert Packing.on(Machines(4, 0, 64), None, 10, fixed=16).per_node == 1


def test_torch_and_blas_compute_with_so_many_threads_and_then_with_as_many_as_before() -> None:
    def blas() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    before = torch.get_num_threads(), blas()
    for number in (3, 1):
        with threads(number):
            assert (torch.get_num_threads(), blas(), hardware().threads) == (number, {number}, number)
    assert (torch.get_num_threads(), blas()) == before


@pytest.mark.slow
def test_cells_side_by_side_equal_cells_alone_bit_for_bit(
    emobench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("seeds = [0]", "seeds = [0, 1]"))

    def sweep(name: str, *arguments: str) -> tuple[dict[str, tuple[bytes, bytes, int | None]], str]:
        results = tmp_path / name
        assert emobench("bench", tmp_path / "tiny.toml", "--results", results, *arguments) == 0
        found = {}
        for path in results.glob("cells/*/*/result.json"):
            record = read_record(path)
            weights = path.parents[1] / "weights.safetensors"
            predictions = next(path.parent.glob("*.parquet"))
            assert record.hardware is not None
            found[record.eval_key] = (weights.read_bytes(), predictions.read_bytes(), record.hardware.threads)
        return found, capsys.readouterr().out

    monkeypatch.setattr(machine, "cores", lambda: 1)
    alone, said = sweep("alone")
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert [line.endswith("running") for line in lines] == [True, False] * 3  # two seeds, and the control
    assert [threads for _, _, threads in alone.values()] == [1] * 3
    monkeypatch.setattr(machine, "cores", lambda: 2)
    packed, said = sweep("packed", "--per-node", "2")
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert all(line.endswith("running") for line in lines[:2])
    assert packed == alone
