"""The command: help that answers at once, lists, and the examination of the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from emobench.metrics.inception import FILE

HEAVY = (
    "torch",
    "lightning",
    "pandas",
    "matplotlib",
    "transformers",
    "timm",
    "albumentations",
    "numpy",
    "gradio",
    "captum",
)
COMMANDS = [
    "bench", "report", "check", "compare", "view", "predict", "generate", "edit", "morph", "stylize", "explain", "demo",
    "history", "models", "datasets",
    "new", "data check", "data show", "wandb dashboard", "doctor", "clean",
]  # fmt: skip


def printed(code: str) -> str:
    """What a program prints in a process that starts cold."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def after(command: list[str], code: str) -> str:
    """What the command prints, and then a program in the same process."""
    return printed(
        "import sys, contextlib\n"
        "from emobench.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main({command!r})\n"
        f"{code}"
    )


def test_no_command_needs_an_extra(tmp_path: Path) -> None:
    """Where none is installed, all commands can be imported, and a suite is planned."""
    extras = "captum gradio moto obstore onnx onnxscript pillow_heif ray skimage submitit tensorboard wandb_workspaces"
    shown = printed(
        f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({extras.split()!r}))
from emobench import cli, commands
for module in pkgutil.iter_modules(commands.__path__):
    importlib.import_module(f"emobench.commands.{{module.name}}")
cli.main(["bench", "smoke", "--dry-run", "--results", {str(tmp_path)!r}])
"""
    )
    assert "cells" in shown


@pytest.mark.parametrize("command", [[], *[name.split() for name in COMMANDS]])
def test_help_has_an_example_and_imports_nothing_heavy(command: list[str]) -> None:
    loaded = f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    shown = after([*command, "--help"], loaded)
    assert "heavy: []" in shown
    assert "Usage" in shown
    if command:
        assert f"Example: emobench {' '.join(command)}" in shown


def test_boards_are_compared_without_torch() -> None:
    code = "import sys; from emobench.commands import compare; print('torch:', 'torch' in sys.modules)"
    assert "torch: False" in printed(code)


def test_a_finished_suite_is_known_without_torch(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path
) -> None:
    """Its plan is in the store and nothing is to be run: the answer is not to wait until libraries are imported, or the
    code of the package is read for its digests.
    """
    shutil.copytree(tiny_results, tmp_path / "results")
    suite = tiny_results.parent.with_suffix(".toml")
    command = ["bench", str(suite), "--results", str(tmp_path / "results"), "--data", str(tmp_path / "data")]
    assert emobench(*command) == 0  # keeps the plan, of this data root
    loaded = (
        "print('torch:', 'torch' in sys.modules)\n"
        "from emobench.definitions.statements import _parse_state\n"
        "print('files read:', _parse_state.cache_info().currsize)"
    )
    shown = after(command, loaded)
    assert "2 of 2 cells are done" in shown
    assert "torch: False" in shown
    assert "files read: 0\n" in shown


def test_what_is_still_to_do_is_listed_without_the_models(
    emobench: Callable[..., int], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the plan is in the store: of torch no more is asked for than how many GPUs there are."""
    command = ["bench", str(tiny), "--dry-run", "--results", str(tmp_path), "--data", str(tmp_path / "data")]
    assert emobench(*command) == 0
    for named, expected in (("", []), (None, ["torch"])):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if named is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        loaded = "print('heavy:', [name for name in ('torch', 'torchvision', 'lightning') if name in sys.modules])"
        shown = after(command, loaded)
        assert "2 to run, 0 done" in shown
        assert f"heavy: {expected}" in shown


ENDING = """
import atexit, sys
from emobench import cli

def main():
    atexit.register(print, "what a library does last")
    print("said")
    sys.exit({code!r})

cli.main = main
cli.command()
"""


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (3, 3), (None, 0), ("why", 1)])
def test_the_command_ends_at_once_and_in_order(code: object, exit_code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING.format(code=code)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (exit_code, "said\nwhat a library does last\n")
    assert ended.stderr == ("why\n" if code == "why" else "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_what_could_not_be_printed_is_said_at_the_end() -> None:
    with open("/dev/full", "w") as full:
        program = [sys.executable, "-c", ENDING.format(code=0)]
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        ended = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered)
    assert ended.returncode == 120
    assert "No space left on device" in ended.stderr


def test_lists_and_details(emobench: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert emobench("models") == 0
    listed = capsys.readouterr().out
    for name in ("cnn21", "ensemble", "resnet18", "timm:<backbone>", "vgg16", "vit"):
        assert name in listed
    assert emobench("models", "vit") == 0
    shown = capsys.readouterr().out
    assert "2010.11929" in shown  # its source
    assert "unfrozen" in shown  # an argument
    assert re.search(r"^patience +3 +int from 1 on, or \"none\"$", shown, re.MULTILINE)  # a field of its recipe
    assert emobench("datasets", "fer2013") == 0
    assert "icml_face_data.csv" in capsys.readouterr().out
    assert emobench("models", "vti") == 2
    assert "did you mean 'vit'?" in capsys.readouterr().err


def test_doctor_says_what_is_missing_and_where_to_put_it(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fer2013").mkdir()
    (tmp_path / "fer2013" / "fer2013.csv").write_text("")
    assert emobench("doctor", "--data", tmp_path) == 0
    shown = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in shown
    assert f"fer2013: found, {tmp_path / 'fer2013' / 'fer2013.csv'}" in shown
    assert f"ckplus: MISSING, ckplus: no folder {tmp_path / 'ckplus'}" in shown
    assert "ferplus: MISSING" in shown  # faces, but no votes
    assert "synthetic: drawn, always there" in shown
    assert "resnet18-f37072fd.pth" in shown  # where torchvision looks for it
    assert "Downloads are off" in shown


def test_doctor_names_each_file_of_weights_its_place_and_its_address(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOBENCH_WEIGHTS", str(tmp_path / "weights"))
    assert emobench("doctor", "--data", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "MISSING none" not in shown  # of rows that take no weights
    for name, place, address in (
        ("vit", "model.safetensors", "https://huggingface.co/google/vit-base-patch16-224-in21k"),
        ("timm:convnext_tiny", "model.safetensors", "https://huggingface.co/timm/convnext_tiny.in12k_ft_in1k"),
        ("resnet18-pretrained", "resnet18-f37072fd.pth", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
        ("vgg16-pretrained", "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
        ("Inception (FID, KID, IS)", f"{tmp_path / 'weights' / FILE}", URL_INCEPTION_V3),
    ):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"  {name}: "))
        looked_for, _, from_ = line.partition("; from ")
        assert place in looked_for.partition("looked for ")[2]
        assert from_.startswith(address)


def test_doctor_lists_folders_of_ones_own(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("mine/happy/a", "mine/sad/b", "foreign/Freude/c", "fer2013/happy/d"):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (48, 48)).save(path)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    assert emobench("doctor", "--data", tmp_path) == 0
    own = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  folder:")]
    assert "  folder:mine: found, 2 faces of happy, sad" in own
    (foreign,) = (line for line in own if "foreign" in line)
    assert foreign.startswith("  folder:foreign: NO DATASET, ")
    assert 'labels = { happy = "Freude" }' in foreign
    (empty,) = (line for line in own if "empty" in line)
    assert empty.startswith("  folder:empty: NO DATASET, ")
    assert len(own) == 4  # and the line that says that any folder is one; fer2013 is a dataset of its own


def test_wrong_options_and_files_are_one_line(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo.toml").write_text("seeds = [0")
    assert emobench("bench", tmp_path / "dmo.toml") == 2
    assert "did you mean" in capsys.readouterr().err
    assert emobench("bench", tmp_path / "demo.toml") == 2
    assert "cannot be read as TOML" in capsys.readouterr().err
    assert emobench("bench", tmp_path / "demo.toml", "--on-existing", "maybe") == 2
    assert "maybe" in capsys.readouterr().err
    assert emobench("report", "never-run", "--results", tmp_path) == 2
    assert "was never run here" in capsys.readouterr().err
