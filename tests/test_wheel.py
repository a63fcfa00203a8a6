"""The wheel, installed where the checkout is not: it holds the whole package, and runs a suite of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest
from reading import pages

from emobench.runner.store import load_board
from emobench.suite.expand import expand
from emobench.suite.file import load, packaged

CHECKOUT = Path(__file__).parents[1]
HIDDEN = ("PYTHON", "PYTEST", "EMOBENCH_PLUGINS", "EMOBENCH_DATA")  # what could show the checkout to a child, or more
WHERE = """
import importlib, json, pathlib, sys
import emobench
importlib.import_module("emobench.commands.bench")
print(json.dumps({
    "package": emobench.__file__,
    "holds one": [entry for entry in sys.path if pathlib.Path(entry, "emobench").exists()],
    "path": [str(pathlib.Path(entry).resolve()) for entry in sys.path],
    "finders": [getattr(finder, "__module__", "") for finder in sys.meta_path],
    "files": [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "emobench"],
}))
"""


def run(*command: object, cwd: Path, **variables: object) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    environment |= {name: str(value) for name, value in variables.items()}
    ended = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=280, env=environment, cwd=cwd
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy, since a build leaves folders beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder / name)
    shutil.copytree(CHECKOUT / "emobench", folder / "emobench", ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", folder, cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Path:
    """A new one with emobench alone; libraries are those of the running one.

    Its site-packages come by a `.pth` file, and those in a folder that comes so are not processed: neither is the one
    that makes an editable install of the checkout be found.
    """
    folder = wheel.parents[1] / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheel.parent)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=wheel.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "libraries.pth").write_text("\n".join(sorted(libraries)))
    return folder


def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    package = CHECKOUT / "emobench"
    expected = {
        path.relative_to(CHECKOUT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__" and not path.name.startswith(".")
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"smoke", "demo", "gpu", "full", "paper-vit", "paper-style"} <= {*packaged()}
    assert {"emobench/py.typed", *(f"emobench/suites/{name}.toml" for name in packaged())} <= held


@pytest.mark.slow
def test_smoke_runs_from_an_empty_folder_where_the_checkout_is_not(environment: Path, tmp_path: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    where = json.loads(run(environment / "bin" / "python", "-c", WHERE, cwd=tmp_path))
    assert where["package"] == str(site / "emobench" / "__init__.py")
    assert where["holds one"] == [str(site)]
    assert str(CHECKOUT.resolve()) not in where["path"]
    assert not [finder for finder in where["finders"] if "editable" in finder]
    assert [file for file in where["files"] if not Path(file).is_relative_to(site)] == []

    command = environment / "bin" / "emobench"
    assert run(command, "--version", cwd=tmp_path).startswith("emobench 0.")
    assert list(tmp_path.iterdir()) == []
    temporary = tmp_path / ("temporary" * 12)  # no socket's path may be as long
    temporary.mkdir()
    run(command, "bench", "smoke", cwd=tmp_path, TMPDIR=temporary)
    ends = time.monotonic() + 20  # the server, which ends when the command has
    while (left := [each.name for each in temporary.iterdir() if each.name.startswith("tmp")]) != []:
        assert time.monotonic() < ends, left
        time.sleep(0.1)
    assert pages(tmp_path / "results" / "smoke").startswith("#")
    cells = load_board(tmp_path / "results", "smoke")
    rows = ("resnet18", "resnet18@bf16", "resnet18@two", "control:permuted")
    assert {cell.row: cell.state for cell in cells} == dict.fromkeys(rows, "done")
    here = {cell.row: cell.fit_key for cell in expand(load("smoke"), tmp_path / "data").cells}
    assert {cell.row: cell.fit_key for cell in cells} == here  # the same code wherever it lies

    # What the README prints runs as it stands there; the board is there already.
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (script,) = (code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "emobench.bench(" in code)
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    printed = run(environment / "bin" / "python", "script.py", cwd=tmp_path)
    assert re.search(r"resnet18 +0\.\d+", printed)
    assert "'surprise'" in printed
