"""Threads of a cell give their core up soon where they wait, unless the user said how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from emobench.runner.engines import local
from emobench.runner.threads import wait_gently

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


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
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
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
    environment: pytest.MonkeyPatch,
) -> None:
    started: list[str | None] = []
    environment.setattr(local.forkserver, "ensure_running", lambda: started.append(os.environ.get("GOMP_SPINCOUNT")))
    local.Local()
    assert started == ["1000"]
    code = (
        "import os, sys, json, emobench.commands.cell as cold\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n"
        "    cold.cell(__import__('pathlib').Path('nowhere.json'))\n"
        "except FileNotFoundError:\n"
        "    print(os.environ.get('GOMP_SPINCOUNT'))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "1000"
