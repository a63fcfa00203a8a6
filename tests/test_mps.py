"""NVIDIA's Multi-Process Service, as far as that goes without a GPU: what a client must be told reaches the cells.

A CUDA program looks for the daemon by itself, in the folder that the environment names (NVIDIA's guide, appendix on
environment variables). Where the daemon sees some GPUs of several, it numbers them anew; UUIDs stay what they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY

from emobench.runner.engines.slurm import Cell

MINE = '''
import json
import os

from emobench.classifiers.resnet import ResNet18


class Mine(ResNet18):
    """A network that says what its process is told of GPUs."""

    name = "mine"

    def on_fit_start(self):
        wanted = ("CUDA_MPS_", "CUDA_VISIBLE_")
        print("told", json.dumps({name: value for name, value in os.environ.items() if name.startswith(wanted)}))
'''
CLIENT = {"CUDA_MPS_PIPE_DIRECTORY": "/tmp/one/pipe", "CUDA_MPS_LOG_DIRECTORY": "/tmp/one/log"}
LIMITED = {**CLIENT, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25"}


def told(results: Path) -> list[dict[str, str]]:
    """What each cell's process was told."""
    lines = [line for path in results.glob("cells/*/log.txt") for line in path.read_text().splitlines()]
    return [json.loads(line.removeprefix("told ")) for line in lines if line.startswith("told ")]


@pytest.mark.slow
def test_cells_that_share_a_gpu_are_told_and_see_it_by_its_uuid(tmp_path: Path) -> None:
    """In a command of its own: the server that these tests share was started without."""
    suite = tmp_path / "mine.toml"
    (tmp_path / "mine.py").write_text(MINE)
    row = '[model.m]\nclass = "mine.py:Mine"'
    suite.write_text(TINY.replace("epochs = 4", "epochs = 1").replace("[model.resnet18]", row))
    environment = {**os.environ, **LIMITED, "CUDA_VISIBLE_DEVICES": "GPU-8932f937,GPU-1a2b3c4d", "SLURM_PROCID": "3"}
    command = [sys.executable, "-m", "emobench", "bench", suite, "--results", tmp_path / "results", "--per-gpu", "2"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    cells = told(tmp_path / "results")  # the second is the control with shuffled labels
    assert {each.pop("CUDA_VISIBLE_DEVICES") for each in cells} <= {"GPU-1a2b3c4d", "GPU-8932f937"}
    assert cells == [LIMITED] * 2


def test_a_cell_that_starts_cold_is_told_and_nothing_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a batch job, whose process says here what it was told in place of running a cell."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nenv | grep -E '^(CUDA_MPS|CUDA_VISIBLE|SLURM)_' | sort > {tmp_path / 'told'}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    for name, value in {**CLIENT, "CUDA_VISIBLE_DEVICES": "GPU-8932f937", "SLURM_PROCID": "3"}.items():
        monkeypatch.setenv(name, value)
    assert Cell({})() == 0
    assert (tmp_path / "told").read_text().splitlines() == [
        "CUDA_MPS_LOG_DIRECTORY=/tmp/one/log",
        "CUDA_MPS_PIPE_DIRECTORY=/tmp/one/pipe",
        "CUDA_VISIBLE_DEVICES=GPU-8932f937",
    ]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that bears the daemon's name, and its folder."""
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        (tmp_path / "nvidia-cuda-mps-control.pid").write_text(f"{process.pid}\n")
        yield process


def test_the_doctor_says_whether_the_daemon_runs(
    daemon: subprocess.Popen[bytes],
    emobench: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said() -> list[str]:
        assert emobench("doctor", "--data", tmp_path) == 0
        return [line.strip() for line in capsys.readouterr().out.splitlines() if "MPS" in line]

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert said() == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H100")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "none"))
    assert said() == [f"MPS: no daemon runs in {tmp_path / 'none'} (CUDA_MPS_PIPE_DIRECTORY)"]
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert said() == [f"MPS: its daemon runs in {tmp_path}, process {daemon.pid}; cells that share a GPU use it"]
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(f"{os.getpid()}\n")  # another has its number since
    (shown,) = said()
    assert shown.startswith(f"MPS: the daemon of {tmp_path}, process {os.getpid()}, is not seen here")
