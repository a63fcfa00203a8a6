"""The Dockerfile, by hadolint."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
BESIDE = shutil.which("hadolint", path=str(Path(sys.executable).parent))  # `.[dev]` has it


@pytest.mark.skipif(BESIDE is None, reason="hadolint is not installed")
def test_the_linter_finds_nothing(tmp_path: Path) -> None:
    def found(path: Path) -> str:
        assert BESIDE is not None
        return subprocess.run([BESIDE, "--no-color", str(path)], capture_output=True, text=True).stdout

    assert found(TOP / "Dockerfile") == ""
    careless = tmp_path / "Dockerfile"
    careless.write_text("FROM python\nRUN cd /x && pip install torch\n")
    assert {"DL3006", "DL3013", "DL3042"} <= {word for word in found(careless).split() if word.startswith("DL")}


def test_it_installs_what_the_reference_results_were_made_with_and_runs_as_nobody_special() -> None:
    lines = (TOP / "Dockerfile").read_text(encoding="utf-8").splitlines()
    (base,) = (line.removeprefix("FROM ") for line in lines if line.startswith("FROM "))
    assert base.startswith("python:3.12")
    assert any("--constraint constraints.txt" in line for line in lines)
    copied = " ".join(line for line in lines if line.startswith("COPY "))
    assert all(name in copied for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "emobench"))
    users = [line.removeprefix("USER ") for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0] not in ("0", "root")


@pytest.mark.parametrize(("extras", "installed"), [("", "."), ("kuberay", ".[kuberay]"), ("ray,heif", ".[ray,heif]")])
def test_extras_are_an_argument_of_its_build(extras: str, installed: str) -> None:
    text = (TOP / "Dockerfile").read_text(encoding="utf-8")
    assert (
        text.index("\nFROM ") < text.index("\nARG EXTRAS=\n") < text.index("\nRUN ")
    )  # before FROM it counts for FROM alone
    (line,) = (line for line in text.splitlines() if line.startswith("RUN pip install"))
    command = line.removeprefix("RUN pip install").removesuffix("\\")
    ran = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], env={"EXTRAS": extras}, capture_output=True, text=True
    )
    assert ran.stdout.splitlines()[-1] == installed
