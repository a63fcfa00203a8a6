"""`emobench new`: what it writes works as it stands, and so do the commands and the suite that it prints."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import emobench as package
from emobench.cli import main
from emobench.commands.new import TEMPLATES, new
from emobench.errors import SuiteError
from emobench.suite.catalog import resolve
from emobench.suite.expand import expand
from emobench.suite.file import load

Emobench = Callable[..., int]
KINDS = ("classifier", "generator", "dataset")


def printed_suite(shown: str) -> str:
    """The suite that `emobench new` prints, indented."""
    body = shown.partition("from the suite's own folder on):\n\n")[2].partition("\n  emobench bench")[0]
    return textwrap.dedent(body)


def elsewhere(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder where only the package is found, as for somebody who installed it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], str]:
    """A file of each kind; what the command said; and what came of their tests, all in one run, verbosely."""
    place = tmp_path_factory.mktemp("written")
    said = {}
    for kind in KINDS:
        shown = io.StringIO()
        with contextlib.chdir(place), contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as stop:
            main(["new", kind, "my-own_one", "--out", f"{kind}/my_{kind}.py"])
        assert not stop.value.code
        said[kind] = shown.getvalue()
    files = [f"{kind}/test_my_{kind}.py" for kind in KINDS]
    tested = elsewhere(place, "pytest", "-v", "-p", "no:cacheprovider", *files)
    return place, said, tested.stdout + tested.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_the_written_test_passes(kind: str, written: tuple[Path, dict[str, str], str]) -> None:
    """The very files, tested as their own command says, which trains a suite with them."""
    place, said, tested = written
    assert f"python -m pytest {kind}/test_my_{kind}.py" in said[kind]
    assert f"emobench bench {kind}/try-my-own_one.toml" in said[kind]
    assert sorted(path.name for path in (place / kind).glob("*.py")) == [f"my_{kind}.py", f"test_my_{kind}.py"]
    ended = re.findall(rf"^{kind}/test_my_{kind}\.py::\S+ (\w+)", tested, re.MULTILINE)
    assert len(ended) >= 2, tested
    assert set(ended) == {"PASSED"}, tested
    for command in (("check", "--select", "E,F,I,UP,B"), ("format", "--diff")):
        linted = elsewhere(place / kind, "ruff", command[0], "--isolated", *command[1:], "--line-length=120", ".")
        assert linted.returncode == 0, linted.stdout


@pytest.mark.slow
def test_the_printed_suite_runs(emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From another folder than its own: its classes are named from the suite's folder on."""
    assert emobench("new", "classifier", "small", "--out", tmp_path / "mine" / "small.py") == 0
    suite = tmp_path / "mine" / "try-small.toml"
    suite.write_text(printed_suite(capsys.readouterr().out))
    small = ("--set", "data.synthetic-plain.train=80", "--set", "model.small.epochs=1", "--name", "try")
    assert emobench("bench", suite, *small, "--results", tmp_path / "results") == 0
    assert package.load(tmp_path / "results", "try", "small").name == "small"


@pytest.mark.parametrize("kind", ["classifier", "generator"])
def test_the_printed_suite_is_one(
    kind: str, emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emobench("new", kind, "mine", "--out", tmp_path / "own.py") == 0
    suite = tmp_path / "try-mine.toml"
    suite.write_text(printed_suite(capsys.readouterr().out))
    plan = expand(load(suite), tmp_path)
    assert "mine" in {cell.row for cell in plan.cells}
    assert plan.downloads == []


def test_the_printed_suite_of_a_dataset_names_its_class(
    emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emobench("new", "dataset", "mine", "--out", tmp_path / "own.py") == 0
    suite = tmp_path / "try-mine.toml"
    suite.write_text(printed_suite(capsys.readouterr().out))
    table = load(suite).data["mine"]
    assert resolve("dataset", table["class"])[0].name == "mine"
    assert emobench("bench", suite, "--data", tmp_path, "--dry-run", "--results", tmp_path / "results") == 2
    assert f"no folder {tmp_path / 'mine'}. Expected there" in capsys.readouterr().err


@pytest.mark.parametrize("there", ["own.py", "test_own.py"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(SuiteError, match=f"{there} is there already, and is not overwritten"):
        new("classifier", "small", tmp_path / "own.py")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("classifier", "", "is no name such as"),
        ("classifier", "Small", "is no name such as"),
        ("classifier", "9lives", "is no name such as"),
        ("classifier", "a b", "is no name such as"),
        ("classifier", "../x", "is no name such as"),
        ("classifier", "größe", "is no name such as"),
        ("classifier", "none", "is no name such as"),  # class None
        ("classifier", "resnet18", "there is a model 'resnet18' already"),
        ("generator", "vit-full", "there is a model 'vit-full' already"),
        ("dataset", "synthetic-plain", "there is a dataset 'synthetic-plain' already"),
        ("classifier", "random", "a module `random` is installed"),
        ("classifier", "torch", "a module `torch` is installed"),
        ("classifier", "class", "no file that Python can import"),
    ],
)
def test_names_that_cannot_be_used(
    kind: str,
    name: str,
    why: str,
    emobench: Emobench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert emobench("new", kind, name) == 2
    assert why in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["small.txt", "my-model.py", "json.py", "class.py"])
def test_files_that_python_cannot_import(out: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="--out"):
        new("classifier", "small", tmp_path / out)
    assert list(tmp_path.iterdir()) == []


def test_the_templates_are_whole() -> None:
    expected = {f"{kind}{end}.txt" for kind in KINDS for end in (".py", "_test.py", ".toml")}
    assert {path.name for path in TEMPLATES.iterdir()} == expected
