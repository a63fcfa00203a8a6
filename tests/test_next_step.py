"""Refusals that say the next step, and what is understood because its meaning is plain."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from conftest import TINY
from made_records import hand_over
from safetensors.torch import save_file

import emobench as package
from emobench.errors import SuiteError, unknown
from emobench.nn.weights import read_weights
from emobench.runner.wandb import sync_command
from emobench.suite.file import load

Emobench = Callable[..., int]


def test_nobody_is_asked_whether_he_meant_what_he_wrote() -> None:
    assert unknown("suite", "mine", ["mine", "mind"]) == "unknown suite 'mine': did you mean 'mind'? Known: mind, mine"
    assert "did you mean" not in unknown("suite", "mine", ["mine"])


def test_a_missing_suite_names_suites_alone(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    (tmp_path / "broken.toml").write_text("[")
    (tmp_path / "tiny.toml").write_text(TINY)
    with pytest.raises(SuiteError) as raised:
        load(tmp_path / "tinny.toml")
    known = f"{tmp_path / 'broken.toml'}, {tmp_path / 'tiny.toml'}"  # one that cannot be read may be the one meant
    assert str(raised.value).endswith(f"did you mean '{tmp_path / 'tiny.toml'}'? Known: {known}")


def test_the_command_that_uploads_survives_a_shell(tmp_path: Path) -> None:
    results = tmp_path / "my results; $(touch x)"
    for name in ("a", "b"):
        (results / "cells" / name / "wandb" / "offline-run-1").mkdir(parents=True)
    command = sync_command(results).replace("wandb sync", "printf '%s\\n'")
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    assert shown == [str(results / "cells" / name / "wandb" / "offline-run-1") for name in ("a", "b")]
    assert not (tmp_path / "x").exists()
    assert shlex.split(sync_command(results))[:2] == ["wandb", "sync"]


@pytest.mark.parametrize("end", [".pth", ".safetensors"])
def test_a_state_dict_of_data_parallel_is_understood(tmp_path: Path, end: str) -> None:
    own = torch.nn.Linear(2, 3).state_dict()
    wrapped = {f"module.{name}": value for name, value in own.items()}
    path = tmp_path / f"weights{end}"
    save_file(wrapped, path) if end == ".safetensors" else torch.save({"state_dict": wrapped}, path)
    found = read_weights(path)
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)
    mixed = {**wrapped, "bias": own["bias"].clone()}  # a module that is really called so
    save_file(mixed, path) if end == ".safetensors" else torch.save(mixed, path)
    assert read_weights(path).keys() == mixed.keys()


@pytest.mark.parametrize("value", ["1", "true", "ON", "yes", " True ", "y", "t", "2"])
def test_the_doctor_sees_that_downloads_are_off(
    emobench: Emobench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.delenv("EMOBENCH_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert emobench("doctor") == 0
    assert "Downloads are off" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["", "0", "false", "Off", "no"])
def test_the_doctor_sees_that_downloads_are_allowed(
    emobench: Emobench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("EMOBENCH_OFFLINE", value)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert emobench("doctor") == 0
    assert "Downloads are allowed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "there"), [("EMOBENCH_OFFLINE", True), ("HF_HUB_OFFLINE", False)])
def test_a_run_that_is_offline_by_any_spelling_tells_other_libraries_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, there: bool
) -> None:
    """In a process of its own: huggingface_hub looks once, when it is imported, and knows fewer spellings.

    Before any model is imported, which takes ten seconds: one time it ends there, for want of the suite.
    """
    if not there:
        tiny.unlink()
    for each in ("EMOBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "y")
    program = (
        "import sys\n"
        "from emobench.cli import main\n"
        "try:\n"
        f"    main(['bench', {str(tiny)!r}, '--results', {str(tmp_path / 'results')!r}, '--dry-run'])\n"
        "except SystemExit as stop:\n"
        f"    assert (stop.code or 0) == {0 if there else 2}\n"
        "from huggingface_hub import constants\n"
        "print('hub offline:', constants.HF_HUB_OFFLINE)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "hub offline: True" in ran.stdout, ran.stderr


def test_float_images_are_refused_with_the_line_that_converts_them(tiny_results: Path) -> None:
    model = package.load(tiny_results, "tiny", "resnet18")
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(TypeError, match="images are uint8") as raised:
        model(images)
    line = str(raised.value).rpartition("by ")[2]
    names = {"images": images, "torch": torch}
    exec(line, names)
    assert model(names["images"]).shape == (2, len(model.emotions))
    for other in (images.double(), images.long(), images > 0.5):
        with pytest.raises(TypeError, match="images are uint8"):
            model.features(other)


def test_predict_lists_what_there_is_to_choose(
    emobench: Emobench, tiny_results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(b"")
    for name in ("best:tiny", "best:tiny/", "best:tiny/synthetic"):
        assert emobench("predict", name, picture, "--results", tiny_results) == 2
        assert "Known: best:tiny/synthetic-plain" in capsys.readouterr().err


def test_predict_of_a_board_without_weights_names_the_command(
    emobench: Emobench, tiny_results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    shutil.rmtree(results / "cells")  # as a clone has it
    picture = tmp_path / "x.png"
    picture.write_bytes(b"")
    for name in ("best:tiny/synthetic-plain", "tiny/synthetic-plain/resnet18"):
        assert emobench("predict", name, picture, "--results", results) == 2
        said = capsys.readouterr().err
        assert "tiny.toml" in said
        assert "`emobench bench " in said
        assert "trained in" in said


@pytest.mark.slow
def test_an_account_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.toml"
    suite.write_text(TINY)
    program = (
        "import os, pwd, sys\n"
        "os.environ.pop('HOME', None); os.environ.pop('EMOBENCH_CACHE', None)\n"
        "pwd.getpwuid = lambda number: (_ for _ in ()).throw(KeyError(number))\n"
        "from emobench.cli import main\n"
        f"main(['bench', {str(suite)!r}, '--results', {str(tmp_path / 'results')!r}, '--dry-run'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" not in ran.stderr, ran.stderr
    assert ran.returncode in (0, 2)
    if ran.returncode == 2:
        assert "Set EMOBENCH_CACHE to a folder, or HOME" in ran.stderr


def dry_run(emobench: Emobench, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    capsys.readouterr()
    assert emobench("bench", *arguments, "--dry-run") == 0
    return capsys.readouterr().out.splitlines()


def time_of(lines: list[str]) -> str:
    (line,) = (line for line in lines if line.startswith("Time: "))
    return line


def test_a_dry_run_says_how_long_as_far_as_it_was_measured(
    emobench: Emobench, tiny_results: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = dry_run(emobench, capsys, tiny, "--results", tmp_path / "nothing")
    bound = r"Time: at most about \d:\d\d:\d\d of training for %s fits, like which none was measured here before"
    assert re.fullmatch(bound % 2, time_of(lines))
    assert lines[0].startswith("tiny: 2 cells")

    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    again = ("--set", "seeds=[0, 1]", "--results", results)
    costs = [json.loads(path.read_text())["fit"]["cost"]["fit_seconds"] for path in results.glob("cells/*/fit.json")]
    assert len(costs) == 2
    lines = dry_run(emobench, capsys, tiny, *again)  # one cell is new: the control is of the first seed alone
    assert time_of(lines) == f"Time: about {timedelta(seconds=round(sum(costs) / 2))} of training"
    assert "more than an hour" not in lines[1]
    lines = dry_run(emobench, capsys, tiny, *again, "--set", "model.resnet18.lr=0.01")
    assert re.fullmatch(bound % 3, time_of(lines))

    for path in results.glob("cells/*/fit.json"):
        record = json.loads(path.read_text())
        record["fit"]["cost"]["fit_seconds"] = 4000.0
        path.write_text(json.dumps(record))
    lines = dry_run(emobench, capsys, tiny, *again)
    place = next(place for place, line in enumerate(lines) if "cells" in line)
    assert lines[place - 1] == "This takes more than an hour: about 1:06:40 of training"
    more = ("--set", 'model.wide={ class = "resnet18", width = 0.125, epochs = 1 }')
    lines = dry_run(emobench, capsys, tiny, *again, *more)
    assert "about 1:06:40 of training for 1 of " in time_of(lines)
    assert re.search(r", at most about \d:\d\d:\d\d for \d fits, like which none was measured here", time_of(lines))
    assert lines[0].startswith("with ")
    assert any(line.startswith("This may take more than an hour: about 1:06:40") for line in lines)


def test_a_dry_run_counts_no_fit_that_is_here(
    emobench: Emobench, tiny_results: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    hand_over(results, "tiny", tiny)
    for path in results.glob("cells/*/*/result.json"):  # as after a change of the protocol: they are evaluated again
        path.unlink()
    lines = dry_run(emobench, capsys, tiny, "--results", results)
    assert lines[0].startswith("tiny: 2 cells, 2 to run")
    assert time_of(lines) == "Time: nothing to train"
    assert [" ".join(line.split()[1:4]) for line in lines[1:3]] == ["to run fitted", "to run fitted"]
    lines = dry_run(emobench, capsys, tiny, "--results", results, "--on-existing", "redo")
    assert time_of(lines).startswith("Time: about 0:")
    (weights,) = (path for path in results.glob("cells/*/weights.safetensors") if "permuted" not in _row(path))
    weights.unlink()  # then it is fitted again
    lines = dry_run(emobench, capsys, tiny, "--results", results)
    assert re.fullmatch(r"Time: about \d:\d\d:\d\d of training", time_of(lines))


def _row(weights: Path) -> str:
    return str(json.loads((weights.parent / "fit.json").read_text())["cell"]["row"])


def test_a_suite_of_a_checkout_is_found_by_its_name(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert emobench("bench", "mine", "--dry-run") == 2
    assert "unknown suite 'mine'" in capsys.readouterr().err
    (tmp_path / "benchmarks").mkdir()
    for name in ("mine", "smoke"):
        (tmp_path / "benchmarks" / f"{name}.toml").write_text(TINY.replace("epochs = 4", "epochs = 3"))
    assert dry_run(emobench, capsys, "mine")[0].startswith("mine: 2 cells")
    assert emobench("bench", "mine", "--dry-run") == 0
    assert f"the suite mine is {Path('benchmarks/mine.toml')}" in capsys.readouterr().err
    assert emobench("bench", "smoke", "--dry-run") == 0  # the package's come first
    assert "benchmarks" not in capsys.readouterr().err
