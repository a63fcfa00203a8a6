"""What tests share: the real command in this process, whose cells start warm from one fork server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["EMOBENCH_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"  # before any library looks

TINY = """
seeds = [0]

[data.synthetic-plain]
size = 32
train = 80
val = 80
test = 80

[model.resnet18]
width = 0.0625
batch = 16
epochs = 4
lr = 0.02
momentum = 0.8
step_size = 2
patience = "none"
"""


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Packs are made once for all tests, and never in the user's own cache."""
    os.environ["EMOBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def emobench() -> Callable[..., int]:
    """`emobench(*arguments)` runs the command in this process and returns its exit code."""
    from emobench.cli import main

    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return int(stop.value.code or 0)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A suite whose cells take about a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path
