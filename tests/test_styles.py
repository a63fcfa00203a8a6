"""StyleGAN2, searches in its latent space and style transfer through the real command, judged on boards."""

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
from PIL import Image
from reading import pages

import emobench as package
from emobench.runner.store import StoredCell, load_board
from emobench.suite.expand import expand
from emobench.suite.file import load

Emobench = Callable[..., int]

ROWS = """
[model.stylegan2]
size = 32
latent = 8
style = 8
base = 256
most = 8
epochs = 1
trainer = { limit_train_batches = 10 }

[model.latent_search]
steps = 3
projection_steps = 3
needs = { generator = "stylegan2", guide = "vgg16" }

[model.cvae_stylegan]
steps = 2
projection_steps = 3
needs = { generator = "stylegan2", cvae = "cvae", guide = "vgg16" }

[model.labels]
class = "cnn21"
padding = true
size = 32
width = 0.25
dense = [16, 16]
batch = 32
epochs = 1
patience = "none"
augment = "none"

[model.style_transfer]
size = 32
width = 4
batch = 32
epochs = 1
perceptual = "guide"
needs = { classifier = "labels", guide = "vgg16" }
trainer = { limit_train_batches = 10 }

[evaluation]"""


@pytest.fixture(scope="session")
def styled_suite(made_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judges, guide and CVAE as in the suite of generators, and the rows above, which draw fewer faces."""
    path = tmp_path_factory.mktemp("suite") / "styled.toml"
    text = without(made_suite, "vit_cvae", "stargan", "diffusion").replace("[evaluation]", ROWS)
    path.write_text(text.replace("fidelity = 640", "fidelity = 80"))
    return path


def without(suite: Path, *names: str) -> str:
    """A suite's text without some of its rows."""
    rows = tuple(f"model.{name}]" for name in names)
    return "\n[".join(part for part in suite.read_text().split("\n[") if not part.startswith(rows))


@pytest.fixture(scope="session")
def styled(styled_suite: Path, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of that suite, in a store that holds the judges."""
    from emobench.cli import main

    folder = tmp_path_factory.mktemp("styled") / "results"
    shutil.copytree(generated, folder)
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(styled_suite), "--results", str(folder)])
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("cells/*/log.txt"))
    assert not stop.value.code, logs
    return folder


def rows(results: Path) -> dict[str, StoredCell]:
    return {row.row: row for row in load_board(results, "styled")}


def planned(path: Path, *overrides: str) -> Any:
    return expand(load(path, overrides), path.parent)


def numbers(results: Path) -> pd.DataFrame:
    table = pd.read_csv(results / "styled" / "metrics.csv", keep_default_na=False)
    return table[table.seed == ""]


def test_searches_are_on_the_boards_with_their_start_and_what_their_guide_believes(styled: Path) -> None:
    of = numbers(styled)
    macro = of[(of.emotion == "macro") & (of.judge == "")]
    for model in ("latent_search", "cvae_stylegan"):
        mine = macro[(macro.model == model) & (macro.track == "generation")]
        assert {"control", "control_calibrated", "control_start", "control_self", "adversarial_gain"} <= set(
            mine.metric
        )
        value = mine.set_index("metric").value.astype(float)
        assert value["adversarial_gain"] == pytest.approx(value["control_self"] - value["control"], abs=1e-6)
        assert len(of[(of.model == model) & (of.track == "editing") & (of.metric == "truth_ssim")]) == 1
    assert not len(macro[(macro.model == "stylegan2") & (macro.metric == "control_start")])
    assert set(of[of.model == "stylegan2"].track) == {"generation"}
    text = pages(styled / "styled")
    assert "raw, at the start" in text
    assert "adversarial gain" in text
    cost = of[(of.model == "latent_search") & (of.metric == "fit_seconds")]
    assert list(cost.reason) == ["nothing is trained"]


def test_stylization_has_its_own_table(styled: Path) -> None:
    of = numbers(styled)
    mine = of[of.model == "style_transfer"]
    assert set(mine.track) == {"stylization"}
    value = mine[mine.emotion.isin(["", "macro"]) & (mine.judge == "")].set_index("metric").value
    for metric in ("content_loss", "style_loss", "total_loss", "ssim", "faces_per_s", "control_start", "control"):
        assert float(value[metric]) >= 0, metric
    assert float(value["total_loss"]) == pytest.approx(
        float(value["content_loss"]) + 400_000 * float(value["style_loss"]), rel=1e-4
    )
    assert float(value["control_start"]) > 0.5  # before, the panel reads what the face shows
    text = pages(styled / "styled")
    assert "## Stylization on synthetic-plain, 32 px" in text
    assert "Losses: style_transfer in the features of vgg16, an emotion classifier of this suite and not VGG16" in text
    assert f"| {float(value['style_loss']):.3g}" in text  # small as it is: no 0.000
    shown = [part.split(")")[0] for part in text.split("](")[1:]]
    pictures = [path for path in shown if path.startswith(("cells/", "figures/"))]
    assert pictures
    for picture in pictures:
        assert picture.endswith((".webp", "/history.csv"))
        assert (styled / "styled" / picture).exists(), picture
    row = rows(styled)["style_transfer"]
    assert row.record is not None
    assert row.record.evaluation is not None
    assert list(row.record.evaluation.tracks) == ["stylization"]
    picture = np.asarray(Image.open(row.folder / "styles.webp"))  # type: ignore[operator]
    assert picture.shape[0] * 9 == picture.shape[1] * 8
    verdicts = pd.read_parquet(row.folder / "verdicts.parquet")  # type: ignore[operator]
    after, before = (verdicts[verdicts.kind == kind] for kind in ("stylized", "stylized_start"))
    assert len(after) == len(before) == 16
    assert (after.asked.to_numpy() == before.asked.to_numpy()).all()


def test_the_label_is_that_of_a_classifier_of_its_own(styled: Path) -> None:
    model: Any = package.load(styled, "styled", "style_transfer")
    faces = torch.randint(0, 256, (4, 3, 40, 52), dtype=torch.uint8)
    own = model.stylize(faces)
    assert own.shape == faces.shape
    assert torch.equal(own, model.stylize(faces, model.label(faces)))


def test_the_board_is_written_again_from_what_is_committed(styled: Path, emobench: Emobench, tmp_path: Path) -> None:
    shutil.copytree(styled / "styled", tmp_path / "styled")
    before = (tmp_path / "styled" / "metrics.csv").read_bytes()
    assert emobench("report", "styled", "--results", tmp_path) == 0
    assert (tmp_path / "styled" / "metrics.csv").read_bytes() == before
    board = json.loads((tmp_path / "styled" / "metrics.json").read_text())
    assert board["controls_pass"], [check for check in board["controls"] if not check["passed"]]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (['model.latent_search.needs={ generator = "cvae", guide = "vgg16" }'], "its generator must be a stylegan2"),
        (['model.latent_search.needs={ generator = "stylegan2", guide = "cvae" }'], "its guide must be a classifier"),
        (['model.latent_search.needs={ guide = "vgg16" }'], "searches one generator"),
        (['model.latent_search.needs={ generator = "stylegan2" }'], "says no row for `guide`"),
        (['model.latent_search.needs={ generator = "stylegan2", guide = "resnet18" }'], "stands on both sides"),
        (['model.style_transfer.needs={ classifier = "cnn21", guide = "vgg16" }'], "stands on both sides"),
        (["model.stylegan2.size=48"], "it makes 32, 64, 128"),
        (["model.latent_search.network=nowhere.pkl"], "nowhere.pkl not found"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(styled_suite: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(Exception, match=says):
        planned(styled_suite, *overrides)


def test_a_resumed_fit_of_stylegan2_equals_an_uninterrupted_one(
    styled_suite: Path, both_ways: Callable[..., dict[str, Any]]
) -> None:
    """Two optimisers, averaged weights, and the augmentation's probability."""
    settings = ["model.stylegan2.epochs=3", "data.synthetic-plain.train=80", "model.stylegan2.batch=16"]
    settings += ["model.stylegan2.ada_kimg=0.5", "model.stylegan2.ada_target=-1.0", "model.stylegan2.path_length=2.0"]
    cell = next(cell for cell in planned(styled_suite, *settings).cells if cell.row == "stylegan2")
    ends = {kind: weights for kind, (weights, _) in both_ways(cell).items()}
    for key, tensor in ends["through"].items():
        torch.testing.assert_close(tensor, ends["stopped"][key], rtol=0, atol=0)
    assert 0 < float(ends["through"]["augment.p"]) <= 1


def test_a_loss_that_is_not_finite_ends_the_fit_of_stylegan2(
    styled_suite: Path, emobench: Emobench, tmp_path: Path
) -> None:
    """What needs a network that diverged fails with it; the rest goes on."""
    settings = ["model.stylegan2.lr=1e30", "data.synthetic-plain.train=160", "data.synthetic-plain.test=80"]
    settings += [f"model.{judge}.epochs=1" for judge in ("resnet18", "vit", "cnn21")]
    options = [word for setting in settings for word in ("--set", setting)]
    path = tmp_path / "styled.toml"
    path.write_text(without(styled_suite, "cvae_stylegan", "labels", "style_transfer"))
    assert emobench("bench", path, *options, "--name", "styled", "--results", tmp_path / "results") == 1
    found = rows(tmp_path / "results")
    assert found["stylegan2"].state == "diverged", found["stylegan2"].reason
    assert found["latent_search"].state != "done"
    assert found["cvae"].state == "done"
