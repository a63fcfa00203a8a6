"""Networks of others as judges, readers and guides: where a suite says so, and kept apart from what they judge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from reading import pages

from emobench.emotions import EMOTIONS
from emobench.errors import SuiteError
from emobench.nn.latents import log_shares
from emobench.nn.provenance import provenance
from emobench.runner.store import load_board
from emobench.suite.catalog import resolve
from emobench.suite.expand import expand
from emobench.suite.file import load

Emobench = Callable[..., int]
# Reads the brightness of the face's quarters: no good judge, but a network of its own.
JUDGE = f"""
import numpy as np
import pandas as pd

SHARP = {{sharp}}


def predict(faces):
    parts = faces[:, :, :16, :16], faces[:, :, :16, 16:], faces[:, :, 16:, :16], faces[:, :, 16:, 16:]
    seen = np.stack([part.mean((1, 2, 3)) for part in parts], 1) / 255
    logits = SHARP * (seen - seen.mean(1, keepdims=True)) @ np.random.default_rng(0).normal(size=(4, {len(EMOTIONS)}))
    return logits.astype(np.float32)
"""
LABELS = json.dumps(EMOTIONS)


def judge(folder: Path, name: str, sharp: float = 100.0) -> str:
    """A row of a suite for a callable in a file of its own."""
    (folder / f"{name}.py").write_text(JUDGE.format(sharp=sharp))
    return f'[model.{name}]\nclass = "python:{name}.py:predict"\nlabels = {LABELS}\noutputs = "logits"\n'


def suite(made_suite: Path, folder: Path, rows: str) -> Path:
    path = folder / "made.toml"
    path.write_text(made_suite.read_text().replace("[evaluation]", f"{rows}\n[evaluation]"))
    return path


@pytest.fixture(scope="module")
def files(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judge resnet18 and the guide vgg16 of the suite of generators, as ONNX."""
    from emobench.cli import main

    folder = tmp_path_factory.mktemp("files")
    for row in ("resnet18", "vgg16"):
        run = f"made/synthetic-plain/{row}"
        with pytest.raises(SystemExit) as stop:
            main(["export", run, "--to", "onnx", "--out", str(folder / row), "--results", str(generated)])
        assert not stop.value.code
        shutil.move(next((folder / row).glob("*.onnx")), folder / f"{row}.onnx")
    return folder


def plan(made_suite: Path, folder: Path, rows: str, *overrides: str) -> Any:
    return expand(load(suite(made_suite, folder, rows), overrides), folder)


def onnx(name: str, path: Path) -> str:
    return f'[model.{name}]\nclass = "onnx:{path}"\n'


GUIDED = 'model.cvae.needs={ guide = "theirs" }'


def test_a_judge_exported_to_onnx_is_refused_as_a_guide(made_suite: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as refused:
        plan(made_suite, tmp_path, onnx("theirs", files / "resnet18.onnx"), GUIDED)
    for part in (
        "cvae and its judge resnet18 are not independent",
        f"theirs ({files}/resnet18.onnx) is an export of resnet18, which has the settings of resnet18",
        "Choose another guide or judge",
    ):
        assert part in str(refused.value)


def test_its_copy_under_another_name_is_the_same(made_suite: Path, files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "resnet18.onnx", tmp_path / "somebodys.onnx")
    with pytest.raises(SuiteError, match="is an export of resnet18, which has the settings of resnet18"):
        plan(made_suite, tmp_path, onnx("theirs", tmp_path / "somebodys.onnx"), GUIDED)


def test_a_guide_exported_to_onnx_is_refused_as_a_judge(made_suite: Path, files: Path, tmp_path: Path) -> None:
    """Of the generators that it guided; without these it may judge, beside networks of other architectures."""
    rows = onnx("theirs", files / "vgg16.onnx")
    with pytest.raises(SuiteError, match="cvae and its judge theirs are not independent: theirs .* is an export of"):
        plan(made_suite, tmp_path, rows, 'panel=["resnet18", "theirs"]')
    unguided = 'model.cvae.needs={ guide = "cnn21" }', 'reader="vit"'
    with pytest.raises(SuiteError, match="all judges are vgg16"):  # an export is of its network's architecture
        plan(made_suite, tmp_path, rows, 'panel=["vgg16", "theirs"]', *unguided)
    cells = plan(made_suite, tmp_path, rows, 'panel=["resnet18", "theirs"]', *unguided).cells
    judged = next(cell for cell in cells if cell.row == "cvae")
    assert next(cell.fit_key for cell in cells if cell.row == "theirs") in judged.panel["judges"]


def test_a_network_and_its_export_are_not_two_judges(made_suite: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="theirs is a judge, and the same network as the judge resnet18"):
        plan(made_suite, tmp_path, onnx("theirs", files / "resnet18.onnx"), 'panel=["resnet18", "vit", "theirs"]')


def test_guides_need_a_gradient(made_suite: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"cvae is guided by theirs, which gives no gradient; an hf: or timm:"):
        plan(made_suite, tmp_path, onnx("theirs", files / "vgg16.onnx"), GUIDED)


def test_a_reader_needs_features_and_predictions_judge_nothing(made_suite: Path, files: Path, tmp_path: Path) -> None:
    rows = onnx("theirs", files / "vgg16.onnx")
    with pytest.raises(SuiteError, match="the reader compares faces in features, and theirs gives none"):
        plan(made_suite, tmp_path, rows, 'reader="theirs"')
    (tmp_path / "said.csv").write_text("source_row,label\n0,happy\n")
    rows = f'[model.theirs]\nclass = "predictions:{tmp_path}/said.csv"\n'
    with pytest.raises(SuiteError, match="theirs reads generated faces, and predictions are of a dataset's faces"):
        plan(made_suite, tmp_path, rows, 'panel=["resnet18", "theirs"]')


def test_an_export_as_a_row_gives_the_predictions_of_its_network(
    files: Path, made_suite: Path, generated: Path, emobench: Emobench, tmp_path: Path
) -> None:
    shutil.copytree(generated, tmp_path / "results")
    tables = made_suite.read_text().split("\n[")
    kept = [each for each in tables if each.startswith(("\nseeds", "data.", "model.vgg16"))]
    rows = [f'model.theirs]\nclass = "onnx:{files}/vgg16.onnx"\n']
    (tmp_path / "again.toml").write_text("\n[".join([*kept, *rows]))
    assert emobench("bench", tmp_path / "again.toml", "--results", tmp_path / "results") == 0
    said = {
        cell.row: pd.read_parquet(cell.folder / "predictions.parquet")
        for cell in load_board(tmp_path / "results", "again")
        if cell.folder is not None
    }
    shares = [f"p_{emotion}" for emotion in EMOTIONS]
    np.testing.assert_allclose(said["theirs"][shares], said["vgg16"][shares], atol=1e-4)
    assert (said["theirs"]["prediction"] == said["vgg16"]["prediction"]).all()


def test_exports_say_what_a_firewall_asks(files: Path) -> None:
    said = provenance(files / "resnet18.onnx")
    assert said is not None
    own = said.lineage[said.fit_key]
    assert (own.architecture, own.family) == ("resnet18", "resnet")
    assert own.settings is not None


@pytest.fixture(scope="module")
def judged(generated: Path, made_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite of generators with an outside judge, and with two that are one network; only vit_cvae is judged."""
    from emobench.cli import main

    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(generated, folder / "results")
    rows = judge(folder, "theirs") + judge(folder, "again", 100.0001)
    text = made_suite.read_text().replace("[evaluation]", f"{rows}\n[evaluation]")
    head, *tables = text.split("\n[")
    kept = [each for each in tables if not each.startswith(("model.cvae", "model.stargan", "model.diffusion"))]
    text = "\n[".join([head, *kept])
    for name, panel, code in (("one", '["resnet18", "theirs"]', 0), ("two", '["resnet18", "theirs", "again"]', 1)):
        (folder / f"{name}.toml").write_text(f"panel = {panel}\n{text}")
        with pytest.raises(SystemExit) as stop:
            main(["bench", str(folder / f"{name}.toml"), "--results", str(folder / "results")])
        assert int(stop.value.code or 0) == code
    return folder / "results"


def test_an_outside_judge_reads_and_the_board_says_that_it_is_outside(judged: Path) -> None:
    cell = next(cell for cell in load_board(judged, "one") if cell.row == "vit_cvae")
    assert cell.state == "done"
    assert cell.record is not None
    assert cell.record.evaluation is not None
    own, theirs = cell.record.evaluation.panel
    assert (own.outside, theirs.outside, theirs.data, theirs.architecture) == (
        False, True, None, "python:theirs.py:predict",
    )  # fmt: skip
    board = pages(judged / "one")
    assert "| theirs (outside) |" in board
    assert "Outside networks were not trained by emobench" in board
    assert cell.folder is not None
    verdicts = pd.read_parquet(cell.folder / "verdicts.parquet")
    assert verdicts["read_1"].nunique() > 1


def test_two_judges_that_answer_alike_are_one(judged: Path) -> None:
    cell = next(cell for cell in load_board(judged, "two") if cell.row == "vit_cvae")
    assert cell.state == "failed"
    board = pages(judged / "two")
    assert "again and theirs answer alike: on 80 validation faces" in board


@pytest.mark.parametrize("name", ["hf", "timm"])
def test_a_guide_of_the_libraries_gives_the_gradient_of_what_it_reads(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    if name == "hf":
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

        labels = dict(enumerate(EMOTIONS[:3]))
        config = ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=24,
            patch_size=8, id2label=labels, label2id={label: k for k, label in labels.items()},
        )  # fmt: skip
        ViTForImageClassification(config).eval().save_pretrained(tmp_path)
        ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(tmp_path)
        cls, arguments = resolve("model", f"hf:{tmp_path}")
        features = 16
    else:
        import timm

        network = timm.create_model("test_vit", num_classes=3, pretrained=False)
        torch.save(network.state_dict(), tmp_path / "a.pth")
        cls, arguments = resolve("model", "timm-checkpoint:test_vit")
        arguments |= {
            "checkpoint": str(tmp_path / "a.pth"), "labels": list(EMOTIONS[:3]), "channels": "rgb",
            "range": (0.0, 1.0), "side": 160,
        }  # fmt: skip
        features = network.num_features
    guide = cls(emotions=EMOTIONS, size=24, **arguments).eval().requires_grad_(False)
    faces = torch.randint(0, 256, (2, 3, guide.size, guide.size), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():  # who asks first loads the network
        read, seen = guide.read(faces.byte())
    assert seen.shape == (2, features)
    pixels = (faces / 127.5 - 1).requires_grad_(True)
    shares = log_shares(guide, pixels)
    np.testing.assert_allclose(shares.detach(), read.log_softmax(1), atol=1e-4)
    shares[:, 1].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
