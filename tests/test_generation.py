"""Generators through the real command: judged by a panel, on boards, with controls; what is refused and what fails."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from made_records import hand_over
from PIL import Image
from reading import pages
from safetensors.torch import load_file, save_file
from torchvision.models import vgg16

import emobench as package
from emobench.errors import SuiteError, WeightsError
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.sampler import Sampler
from emobench.evaluation.values import Value
from emobench.runner import callbacks
from emobench.runner.build import build_data, build_model
from emobench.runner.record import Card, Evaluation, FitCost
from emobench.runner.store import JUDGE, Store, StoredCell, load_board
from emobench.suite.expand import expand
from emobench.suite.file import load

Emobench = Callable[..., int]

GENERATORS = ("cvae", "vit_cvae", "stargan", "diffusion")


def rows(results: Path, suite: str = "made") -> dict[str, StoredCell]:
    return {row.row: row for row in load_board(results, suite)}


def evaluated(row: StoredCell) -> Evaluation:
    assert row.record is not None
    assert row.record.evaluation is not None
    return row.record.evaluation


def cost(row: StoredCell) -> FitCost:
    assert row.record is not None
    assert row.record.fit is not None
    assert row.record.fit.cost is not None
    return row.record.fit.cost


def reader(row: StoredCell) -> Card:
    found = evaluated(row).reader
    assert found is not None
    return found


def planned(path: Path, *overrides: str) -> Any:
    return expand(load(path, overrides), path.parent)


def of_generators(made_suite: Path, folder: Path, *names: str) -> Path:
    """The suite with no more of its generators than these."""
    others = tuple(f"model.{name}]" for name in GENERATORS if name not in names)
    path = folder / made_suite.name
    parts = made_suite.read_text().split("\n[")
    path.write_text("\n[".join(part for part in parts if not part.startswith(others)))
    return path


# ---- what a board says ---------------------------------------------------------------------------------------------


def test_the_board_has_both_tracks_their_controls_and_the_floor(generated: Path) -> None:
    table = pd.read_csv(generated / "made" / "metrics.csv", keep_default_na=False)
    of = table[table["seed"] == ""]
    for model in GENERATORS:
        for metric in ("control", "control_calibrated", "control_min", "control_max"):
            mine = of[(of.model == model) & (of.metric == metric) & (of.track == "generation") & (of.judge == "")]
            assert sorted(mine.emotion) == sorted(
                [*["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt", "macro"]]
            )
        for metric in ("fed", "es", "memorisation", "control_corrected", "intensity_spearman", "recipe_share", "flops"):
            assert len(of[(of.model == model) & (of.metric == metric) & (of.track == "generation")]) == 1, metric
        missing = of[(of.model == model) & (of.metric == "fid") & (of.track == "generation")].iloc[0]
        assert missing.value == "n/a"
        assert "Inception weights not found" in missing.reason
        assert (
            of[(of.model == model) & (of.metric == "control") & (of.judge != "")].judge.unique() == ["resnet18", "vit"]
        ).all()
    for model in GENERATORS:
        edits = of[(of.model == model) & (of.track == "editing")]
        assert {"control", "ssim", "truth_psnr", "truth_ssim", "fed", "faces_per_s"} <= set(edits.metric)
        assert edits[edits.metric == "identity"].value.tolist() == ["n/a"]
        assert edits[edits.metric == "fed"].reason.tolist() == ["below 640 faces"]  # 112 edits
    controls = {name for name in of.model if name.startswith("control:")}
    assert {"control:real", "control:shuffled", "control:one_emotion", "control:copies", "control:floor"} <= controls
    assert {"control:source", "control:other_person"} <= controls
    real = of[(of.model == "control:real") & (of.metric == "control_calibrated") & (of.emotion == "macro")]
    assert 0.8 < float(real.value.iloc[0]) < 1.2
    own = of[(of.metric == "adversarial_gain") & (of.emotion == "macro")]
    assert own.model.tolist() == ["cvae"]


def test_every_control_is_as_it_should_be_and_the_board_shows_the_faces(generated: Path) -> None:
    board = json.loads((generated / "made" / "metrics.json").read_text())
    assert board["controls_pass"], [check for check in board["controls"] if not check["passed"]]
    names = {(check["name"], check["what"]) for check in board["controls"]}
    assert ("control:copies", "memorisation") in names
    assert {name for name, _ in names} >= {"control:real", "control:shuffled", "control:one_emotion", "control:source"}
    text = pages(generated / "made")
    assert "cannot draw a face" in text  # stargan edits validation faces
    assert "orders only" in text
    shown = [part.split(")")[0] for part in text.split("](")[1:]]
    pictures = [path for path in shown if path.startswith(("cells/", "figures/"))]
    assert pictures
    for picture in pictures:
        assert picture.endswith((".webp", "/history.csv"))
        assert (generated / "made" / picture).exists(), picture
    edits = np.asarray(Image.open(generated / "made" / "figures" / "edits-synthetic-plain.webp"))
    assert edits.std() > 20


def test_the_committed_board_can_be_written_again_without_the_store(
    generated: Path, emobench: Emobench, tmp_path: Path
) -> None:
    shutil.copytree(generated / "made", tmp_path / "made")
    before = (tmp_path / "made" / "metrics.csv").read_bytes()
    assert emobench("report", "made", "--results", tmp_path) == 0
    assert (tmp_path / "made" / "metrics.csv").read_bytes() == before


def in_the_cells(results: Path) -> None:
    """Move the judges' weights to where earlier versions committed them: each beside its evaluation."""
    names = {card.sha256: card.fit_key for row in rows(results).values() for card in evaluated(row).cards}
    places = {row.fit_key: row.eval_key for row in rows(results).values() if row.track == "recognition"}
    for path in (results / "judges").iterdir():
        path.rename(results / "made" / "cells" / places[names[path.stem]] / JUDGE)
    (results / "judges").rmdir()


@pytest.mark.parametrize("layout", ["once for all boards", "of earlier versions"])
def test_a_later_clone_judges_a_new_row_with_the_same_judges(
    generated: Path, made_suite: Path, emobench: Emobench, tmp_path: Path, layout: str
) -> None:
    there = tmp_path / "results"
    shutil.copytree(generated / "made", there / "made")
    shutil.copytree(generated / "judges", there / "judges")
    files = list((there / "judges").iterdir())
    assert len(files) == 4  # two judges, the reader, the guide
    for path in files:
        assert path.name == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors"
    if layout == "of earlier versions":
        in_the_cells(there)
    longer = tmp_path / "made.toml"
    second = 'class = "cvae"\nsize = 32\nwidth = 8\nlatent = 4\nperceptual = "none"\nepochs = 1\n'
    longer.write_text(f"{made_suite.read_text()}\n[model.second]\n{second}")
    hand_over(there, "made", longer)
    assert emobench("bench", longer, "--results", there, "--on-existing", "trust") == 0
    trained = [path.parent.name for path in there.glob("cells/*/weights.safetensors")]
    found = rows(there)
    assert trained == [found["second"].fit_key]
    panels = {name: [judge.sha256 for judge in evaluated(found[name]).panel] for name in ("second", "cvae")}
    assert len(panels["cvae"]) == 2
    assert panels["second"] == panels["cvae"]


def test_a_committed_judge_that_is_another_file_is_refused(
    generated: Path, made_suite: Path, emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a clone holds pointers of Git LFS: a judge that nobody knows would judge the new row."""
    there = tmp_path / "results"
    shutil.copytree(generated / "made", there / "made")
    shutil.copytree(generated / "judges", there / "judges")
    sha256 = reader(rows(there)["cvae"]).sha256
    (there / "judges" / f"{sha256}.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    changed = ["--set", "evaluation.sources=8"]
    assert emobench("bench", made_suite, "--results", there, "--on-existing", "trust", *changed, "--dry-run") == 2
    assert f"{sha256}.safetensors: holds other bytes" in capsys.readouterr().err


def test_a_finished_generator_is_loaded_and_draws(generated: Path) -> None:
    model = package.load(generated, "made", "cvae")
    faces = model.sample(torch.eye(8), torch.arange(8))  # type: ignore[operator]
    assert (faces.shape, faces.dtype) == ((8, 3, 32, 32), torch.uint8)
    middle = model.interpolate(faces[:1], faces[1:2], torch.eye(8)[:1], torch.tensor([0.5]))  # type: ignore[operator]
    assert middle.shape == (1, 3, 32, 32)


def test_a_rerun_does_nothing(
    generated: Path, made_suite: Path, emobench: Emobench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emobench("bench", made_suite, "--results", generated) == 0
    assert "cells are done" in capsys.readouterr().out


def test_editing_is_measured_on_the_networks_that_the_suite_names(
    generated: Path, made_suite: Path, emobench: Emobench, tmp_path: Path
) -> None:
    """LPIPS by a file of VGG16; the rest is not trained again."""
    there = tmp_path / "results"
    shutil.copytree(generated, there)
    torch.manual_seed(0)
    torch.save(vgg16(weights=None).state_dict(), tmp_path / "vgg16.pth")
    changes = [f"evaluation.lpips={tmp_path / 'vgg16.pth'}", "evaluation.sources=8", "evaluation.per_emotion=2"]
    changes.append("evaluation.fidelity=80")  # which does not matter here
    options = [word for change in changes for word in ("--set", change)]
    suite = of_generators(made_suite, tmp_path, "cvae", "stargan")
    assert emobench("bench", suite, *options, "--name", "with-lpips", "--results", there) == 0
    found = rows(there, "with-lpips")["stargan"]
    assert found.fit_key == rows(generated)["stargan"].fit_key
    table = pd.read_csv(there / "with-lpips" / "metrics.csv", keep_default_na=False)
    lpips = table[(table.metric == "lpips") & (table.seed == "")].set_index("model").value.astype(float)
    assert set(lpips.index) == {"cvae", "stargan", "control:other_person"}
    assert (lpips > 0).all()
    assert str(tmp_path) not in "".join(path.read_text() for path in (there / "made").rglob("*.json"))


@pytest.mark.parametrize("validations", [0, 1])
def test_training_time_is_counted_with_and_without_validation(validations: int) -> None:
    class Slow(L.LightningModule):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            time.sleep(0.02)

        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            time.sleep(0.5)

        def configure_optimizers(self) -> None:
            return None

    faces = torch.utils.data.DataLoader([{"image": torch.zeros(1)}] * 5)
    stopwatch = callbacks.Stopwatch()
    trainer = L.Trainer(
        max_epochs=2, limit_val_batches=validations, callbacks=[stopwatch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Slow(), faces, faces)
    assert stopwatch.faces == 10
    assert 0.2 < stopwatch.seconds < 0.5


def test_averaged_weights_are_the_mean_that_the_decay_says(tmp_path: Path) -> None:
    class Walk(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.place = torch.nn.Parameter(torch.zeros(2))
            self.seen: list[torch.Tensor] = []

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return (self.place - batch[0]).square().sum()

        def on_train_batch_end(self, *_: Any) -> None:
            self.seen.append(self.place.detach().clone())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    walk = Walk()
    faces = torch.utils.data.TensorDataset(torch.randn(30, 2, generator=torch.Generator().manual_seed(0)))
    trainer = L.Trainer(
        max_epochs=2, callbacks=[callbacks.Averaging(0.9)], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(walk, torch.utils.data.DataLoader(faces))
    mean = walk.seen[0]
    for n, place in enumerate(walk.seen[1:], start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * place
    assert len(walk.seen) == 60
    assert torch.allclose(walk.place, mean, atol=1e-6)
    assert not torch.allclose(walk.place, walk.seen[-1], atol=1e-3)


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_fit(emobench: Emobench, made_suite: Path, tmp_path: Path) -> None:
    """Of each generator, whatever its loop; the networks that it needs are trained."""
    settings = ["data.synthetic-plain.train=160", "data.synthetic-plain.test=80"]
    settings += [f"model.{name}.lr=1e30" for name in GENERATORS]
    settings += [f"model.{judge}.epochs=1" for judge in ("resnet18", "vit", "cnn21")]
    options = [word for setting in settings for word in ("--set", setting)]
    assert emobench("bench", made_suite, *options, "--name", "wild", "--results", tmp_path / "results") == 1
    found = rows(tmp_path / "results", "wild")
    board = pages(tmp_path / "results" / "wild")
    for name in GENERATORS:
        assert found[name].state == "diverged", found[name].reason
        assert "NaN" in (found[name].reason or "")
        assert f"{name} on synthetic-plain, seed 0: diverged" in board
    assert {row.state for name, row in found.items() if name not in GENERATORS} == {"done"}


def test_faces_that_are_not_finite_fail_the_evaluation_by_index(
    generated: Path, made_suite: Path, emobench: Emobench, tmp_path: Path
) -> None:
    """NaN would become a black pixel, and every metric would be finite."""
    there = tmp_path / "results"
    shutil.copytree(generated, there)
    row = rows(there)["cvae"]
    weights = there / "cells" / row.fit_key / "weights.safetensors"
    state = load_file(weights)
    state["decoder.0.weight"] = torch.full_like(state["decoder.0.weight"], float("nan"))
    save_file(state, weights)
    suite = of_generators(made_suite, tmp_path, "cvae", "stargan")
    assert emobench("bench", suite, "--results", there, "--set", "evaluation.per_emotion=9") == 1
    found = rows(there, "made+evaluation.per_emotion=9")
    row = found["cvae"]
    assert row.state == "failed"
    assert "fidelity: face 0 is not finite" in (row.reason or "")
    assert row.record is not None
    assert row.record.evaluation is None
    assert found["stargan"].state == "done"


def test_too_few_faces_are_not_measured(generated: Path, made_suite: Path, emobench: Emobench, tmp_path: Path) -> None:
    there = tmp_path / "results"
    shutil.copytree(generated, there)
    suite = of_generators(made_suite, tmp_path, "cvae")
    assert emobench("bench", suite, "--results", there, "--set", "evaluation.fidelity=100") == 0
    metrics = evaluated(rows(there, "made+evaluation.fidelity=100")["cvae"]).tracks["generation"].values
    assert metrics["fed"] == Value(None, 100, "below 640 faces")
    assert metrics["es"].n == 100


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (['model.cvae.needs={ guide = "resnet18" }'], "stands on both sides"),
        (['panel=["resnet18", "vgg16"]'], "stands on both sides"),
        (['reader="vgg16"'], "stands on both sides"),
        (['panel=["resnet18", "resnet18"]'], "names resnet18 2 times"),
        (['model.other={ class = "resnet18", width = 0.5 }', 'panel=["resnet18", "other"]'], "two architectures"),
        (['reader="vit"'], "a judge and the reader"),
        (['panel=["resnet18", "cvae"]'], "trained classifiers"),
        (['model.cvae.perceptual="none"'], "has no use for a guide"),
        (["model.vit_cvae.perceptual=guide"], "names no guide"),
        (['model.stargan.train_on=["synthetic"]'], "unknown dataset 'synthetic'"),
        (['model.cvae.train_on=["synthetic-plain"]'], "cannot be trained on several"),
        (['model.stargan.train_on=["synthetic-plain", "synthetic-plain"]'], "names synthetic-plain 2 times"),
        (["model.resnet18.seeds=[3]"], "unknown seed '3'"),
        (["model.cvae.sice=32"], "did you mean 'size'"),
        (["model.stargan.size=30"], "multiples of 4"),
        (["model.cvae.monitor=loss"], "evaluated at its last weights"),
        (["evaluation.identity=nowhere.onnx"], "no file nowhere.onnx"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(made_suite: Path, overrides: list[str], says: str) -> None:
    with pytest.raises((SuiteError, WeightsError, Exception), match=says):
        planned(made_suite, *overrides)


def test_a_guide_of_a_judges_architecture_is_refused(made_suite: Path, tmp_path: Path) -> None:
    path = tmp_path / "alike.toml"
    extra = '\n[model.other]\nclass = "resnet18"\nwidth = 0.125\nepochs = 1\n'
    text = made_suite.read_text().replace('needs = { guide = "vgg16" }', 'needs = { guide = "other" }')
    path.write_text(text + extra)
    with pytest.raises(SuiteError, match="what deceives one deceives the other"):
        planned(path)


def test_judges_are_of_the_first_seed_and_trained_once(made_suite: Path) -> None:
    once = [f"model.{judge}.seeds=[0]" for judge in ("resnet18", "vit", "cnn21")]
    plan = planned(made_suite, "seeds=[0, 1]", *once)
    made = [cell for cell in plan.cells if cell.track == "generation"]
    assert sorted({cell.seed for cell in made}) == [0, 1]
    assert len({key for cell in made for key in cell.panel["judges"]}) == 2
    assert len([cell for cell in plan.cells if cell.row == "vgg16"]) == 2  # a guide is of the model's own seed
    with pytest.raises(SuiteError, match="its guide vgg16 is not run"):
        planned(made_suite, "seeds=[0, 1]", "model.vgg16.seeds=[0]")


def test_joint_training_sees_the_union_of_emotions_and_is_evaluated_on_each(
    made_suite: Path, emobench: Emobench, tmp_path: Path
) -> None:
    path = tmp_path / "joint.toml"
    start, rest = made_suite.read_text().split("[data.synthetic-plain]")
    models = [part for part in rest.split("\n[") if part.startswith(("model.resnet18", "model.vit]", "model.cnn21"))]
    models = [re.sub("epochs = .*", "epochs = 1", part) for part in models]
    first, second = ["neutral", "happy"], ["neutral", "sad", "fear", "anger"]
    data = "\n".join(
        f'[data.{name}]\nclass = "synthetic-plain"\nsize = 32\ntrain = {n}\nval = 40\ntest = 40\nonly = {only}\n'
        for name, n, only in (("first", 160, json.dumps(first)), ("second", 120, json.dumps(second)))
    )
    stargan = """
[model.stargan]
train_on = ["first", "second"]
size = 32
width = 8
blocks = 1
discriminator_width = 8
batch = 8
epochs = 2

"""
    evaluation = "[evaluation]\nper_emotion = 4\nsources = 8\nintensity = 1\n"
    judges = "\n[".join(["", *models])
    path.write_text(start + data + judges + "\n" + stargan + evaluation)
    assert emobench("bench", path, "--results", tmp_path / "results") == 0
    found = [row for row in load_board(tmp_path / "results", "joint") if row.row == "stargan"]
    assert [row.dataset for row in found] == ["first", "second"]
    assert len({row.fit_key for row in found}) == 1
    assert len({row.eval_key for row in found}) == 2
    model = package.load(tmp_path / "results", "joint", "stargan", "first")
    assert model.emotions == ("neutral", "happy", "sad", "fear", "anger")
    assert model.datasets == ("first", "second")
    check_masks(path, tmp_path / "results", found)
    verdicts = pd.read_parquet(found[0].folder / "verdicts.parquet")  # type: ignore[operator]
    assert set(verdicts[verdicts.kind == "control"].asked) == {0, 1}  # of the first dataset's own emotions
    assert cost(found[0]).steps == 2 * (160 // 8 + 120 // 8) // 5

    renamed = tmp_path / "renamed.toml"  # what a suite calls its datasets is in no key
    renamed.write_text(path.read_text().replace("first", "third"))
    assert emobench("bench", renamed, "--results", tmp_path / "results") == 0
    again = [row for row in load_board(tmp_path / "results", "renamed") if row.row == "stargan"]
    assert [row.eval_key for row in again] == [row.eval_key for row in found]
    for name, place in (("third", 0), ("second", 1)):
        model = package.load(tmp_path / "results", "renamed", "stargan", name)
        assert (model.datasets, model.dataset) == (("third", "second"), ("third", "second")[place])
    assert package.load(tmp_path / "results", "renamed", "stargan").dataset == "third"


def check_masks(path: Path, results: Path, found: list[StoredCell]) -> None:
    """The masks over the datasets were trained, and each evaluation asked for faces of its own dataset."""
    store = Store(results)
    cells = [cell for cell in planned(path).cells if cell.row == "stargan"]
    before, after = build_model(cells[0], store), load_file(store.weights(cells[0].fit_key))
    first = "generator.layers.0.weight"
    assert after[first].shape == (8, 3 + 5 + 2, 7, 7)
    for plane in range(3 + 5, 3 + 5 + 2):
        assert not torch.equal(before.state_dict()[first][:, plane], after[first][:, plane])
    drawn: list[dict[str, np.ndarray]] = []
    for cell, row in zip(cells, found, strict=True):
        data = build_data(cell, path.parent)
        data.prepare()
        real, k = RealFaces.of(data, None), len(data.emotions)
        asked = np.eye(k)[np.tile(np.arange(k), 4)]
        seeds = 10**6 + np.repeat(np.arange(4), k)  # those of control
        drawn.append({})
        for name in ("first", "second"):
            model = package.load(results, "joint", "stargan", name)
            sampler = Sampler(model, data.emotions, data.size, real, torch.device("cpu"))
            drawn[-1][name] = sampler.sample(asked, seeds, "control")
        picture = np.asarray(Image.open(row.folder / "samples.webp"))  # type: ignore[operator]
        times = picture.shape[0] // (k * 32)
        faces = picture[::times, ::times].reshape(k, 32, 4, 32, 3).transpose(2, 0, 4, 1, 3)  # (4, K, 3, S, S)
        assert np.array_equal(faces.reshape(-1, 3, 32, 32), drawn[-1][cell.dataset])
    assert all((each["first"] != each["second"]).any() for each in drawn)


# ---- interrupted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stargan", "diffusion"])
def test_a_resumed_fit_equals_an_uninterrupted_one(
    name: str, made_suite: Path, both_ways: Callable[..., dict[str, Any]]
) -> None:
    """Two optimisers and their schedules; averaged weights."""
    settings = [f"model.{name}.epochs=3", "data.synthetic-plain.train=80", f"model.{name}.batch=16"]
    cell = next(cell for cell in planned(made_suite, *settings).cells if cell.row == name)
    ends = both_ways(cell)
    for key, tensor in ends["through"][0].items():
        torch.testing.assert_close(tensor, ends["stopped"][0][key], rtol=0, atol=0)
    pd.testing.assert_frame_equal(ends["through"][1], ends["stopped"][1])
