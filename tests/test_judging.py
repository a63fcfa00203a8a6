"""The measures of generators on faces of which the truth is known, read by trained judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from emobench.data.datasets.synthetic import Synthetic
from emobench.errors import NotFinite
from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.judge import Judge
from emobench.evaluation.protocol import INTENSITIES
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.sampler import Sampler
from emobench.evaluation.task import Task
from emobench.evaluation.tracks import editing, generation
from emobench.evaluation.tracks.panel import units
from emobench.metrics.control import Verdicts, control
from emobench.runner.build import load_judges
from emobench.runner.store import Store, load_board
from emobench.suite.catalog import metrics_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Synthetic:
    data = Synthetic(size=32, variant="plain", train=1280, val=80, test=640)
    data.prepare()
    return data


@pytest.fixture(scope="module")
def real(data: Synthetic) -> RealFaces:
    return RealFaces.of(data, None)


@pytest.fixture(scope="module")
def panel(generated: Path) -> dict[str, Judge]:
    keys = {row.row: row.fit_key for row in load_board(generated, "made")}
    names = ("resnet18", "vit", "cnn21")
    return dict(zip(names, load_judges(Store(generated), [keys[name] for name in names], CPU), strict=True))


@pytest.fixture(scope="module")
def fidelity(real: RealFaces, panel: dict[str, Judge], tmp_path_factory: pytest.TempPathFactory) -> Fidelity:
    return Fidelity(real, panel["cnn21"], None, None, "no file", tmp_path_factory.mktemp("features"))


def task_of(
    model: Any,
    data: Synthetic,
    real: RealFaces,
    judges: list[Judge],
    fidelity: Fidelity,
    settings: dict[str, int],
    **networks: Any,
) -> Task:
    """An evaluation of a model that is no network."""
    sampler = Sampler(model, data.emotions, 32, real, CPU)
    metrics = {"editing": metrics_of("editing")}
    return Task(sampler, judges, [], real, fidelity, settings, data, networks, metrics, CPU)


def read(judges: list[Judge], images: np.ndarray) -> np.ndarray:
    return np.stack([judge.read(images)[0].argmax(1) for judge in judges])


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(images, (0, 0, sigma, sigma)).astype(np.uint8)


def noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def test_more_of_an_emotion_is_more_control(data: Synthetic, real: RealFaces, panel: dict[str, Judge]) -> None:
    judges = [panel["resnet18"], panel["vit"]]
    rows = real.test[:80]
    known = Verdicts(real.labels[real.test], read(judges, real.faces(real.test)))
    asked = np.arange(len(rows)) % 8
    found = []
    for level in INTENSITIES:
        faces = np.concatenate(
            [
                data.counterpart(data.faces.iloc[rows[k : k + 1]], data.emotions[asked[k]], level)
                for k in range(len(rows))
            ]
        )
        found.append(float(control(Verdicts(asked, read(judges, faces)), known, 8).macro()["control_calibrated"]))
    assert spearmanr(found, INTENSITIES).statistic > 0.85
    assert found[-1] > found[0] + 0.4


@pytest.mark.parametrize("worse", [blurred, noisy])
def test_worse_faces_are_further_away(fidelity: Fidelity, real: RealFaces, worse: Any) -> None:
    floor = real.faces(real.floor)
    steps = (0, 0.5, 1, 2) if worse is blurred else (0, 5, 10, 25)  # in worse faces a reader of seconds is lost
    fed = [fidelity.measure(worse(floor, step) if step else floor, "test")["fed"].value for step in steps]
    assert fed == sorted(fed), fed
    assert fed[-1] > 3 * fed[0]


def test_dropped_emotions_are_further_away(fidelity: Fidelity, real: RealFaces) -> None:
    floor, labels = real.faces(real.floor), real.labels[real.floor]
    found = []
    for kept in (8, 4, 2, 1):
        rows = np.resize(np.flatnonzero(labels < kept), len(floor))
        found.append(fidelity.measure(floor[rows], "test"))
    fed, es = ([each[name].value for each in found] for name in ("fed", "es"))
    assert fed == sorted(fed), fed
    assert es == sorted(es, reverse=True), es


def test_copies_are_flagged_and_blurred_faces_are_not(fidelity: Fidelity, real: RealFaces) -> None:
    floor = real.faces(real.floor)
    found = fidelity.copied(
        {
            "copies": real.faces(real.reference),
            "mirrored": real.faces(real.reference)[..., ::-1],
            "nearly": noisy(real.faces(real.reference), 3),
            "real": floor,
            "blurred": blurred(floor, 2),
        }
    )
    shares = {name: each.value for name, each in found.items()}
    assert min(shares[name] for name in ("copies", "mirrored", "nearly")) > 0.9, shares
    assert max(shares[name] for name in ("real", "blurred")) < 0.05, shares


def test_held_out_faces_that_were_trained_on_set_no_limit(fidelity: Fidelity, real: RealFaces) -> None:
    both = np.concatenate([real.test, real.train[:200]])
    leaking = replace(real, test=both, leaked=np.isin(both, real.train))
    nothing_else = replace(real, test=real.train[:200], leaked=np.ones(200, bool))
    copies = {"copies": real.faces(real.reference)}

    def found(of: RealFaces) -> dict[str, Any]:
        other = Fidelity(of, fidelity.reader, None, None, "no file", fidelity.cache)
        return other.copied(copies)["copies"]

    assert found(leaking).value > 0.9
    assert found(nothing_else).value is None
    assert found(nothing_else).reason == "every held-out face occurs in training too"


class Painter:
    """An editor that knows the truth: it draws the counterpart."""

    emotions = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    size = 32

    def __init__(self, data: Synthetic) -> None:
        self.data = data
        images = np.asarray(data.images)
        self.rows = {image.tobytes(): row for row, image in enumerate(images)}
        self.seen: list[int] = []

    def edit(self, images: torch.Tensor, emotions: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        rows = [self.rows[image[:1].numpy().tobytes()] for image in images.contiguous()]
        self.seen += rows
        names = [self.data.emotions[k] for k in emotions.argmax(1)]
        return torch.from_numpy(self.data.counterpart(self.data.faces.iloc[rows], names))


def test_an_editor_that_knows_the_truth(
    data: Synthetic, real: RealFaces, panel: dict[str, Judge], fidelity: Fidelity
) -> None:
    painter = Painter(data)
    judges = [panel["resnet18"], panel["vit"]]
    task = task_of(painter, data, real, judges, fidelity, {"per_emotion": 4, "sources": 16})
    task.judge_real_faces()
    generation.control(task)
    assert set(painter.seen) <= set(real.val)  # asked to generate, it was given validation faces
    painter.seen.clear()
    editing.measure(task)
    assert set(painter.seen) <= set(real.test)
    table = pd.concat(task.tables)
    edits = table[table.kind == "editing"]
    assert (len(edits), task.pictures["edits"][0].shape) == (16 * 7, (8, 9, 3, 32, 32))
    assert (edits.truth_psnr == 99).all()
    assert edits.truth_ssim.to_numpy() == pytest.approx(1)
    assert edits.ssim.mean() > edits.ssim_other.mean() + 0.1
    assert (real.labels[edits.row] != edits.asked).all()
    assert (edits.person == real.person[edits.row]).all()
    control_faces = table[table.kind == "control"]
    assert control_faces.asked.value_counts().tolist() == [4] * 8
    assert control_faces.groupby("seed").asked.nunique().tolist() == [8] * 4  # every seed with every emotion
    assert control_faces.groupby("seed").row.nunique().tolist() == [1] * 4  # and of one validation face
    assert set(control_faces.row) <= set(real.val)
    assert (control_faces.person == real.person[control_faces.row]).all()
    assert units(control_faces)[0] == "people"
    right = (edits.read_0 == edits.asked).mean()
    assert right > 0.5 > (table[table.kind == "source"].read_0 == table[table.kind == "source"].asked).mean()


def test_drawn_faces_say_their_seed(
    data: Synthetic, real: RealFaces, panel: dict[str, Judge], fidelity: Fidelity
) -> None:
    class Grey:
        emotions = Painter.emotions
        size = 32

        def sample(self, emotions: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
            return (seeds % 7 * 20 + 40).to(torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)

    task = task_of(Grey(), data, real, [panel["resnet18"]], fidelity, {"per_emotion": 3, "intensity": 2})
    task.judge_real_faces()
    faces = generation.control(task)
    generation.intensity(task)
    table = pd.concat(task.tables)
    assert (table.seed[table.kind.isin(["real", "copies"])] == -1).all()
    copies = table[table.kind == "copies"]
    assert (copies.person == real.person[copies.row]).all()
    for kind, each in (("control", 3), ("intensity", 2)):
        part = table[table.kind == kind]
        name, seeds = units(part)
        assert name == "noise seeds"
        np.testing.assert_array_equal(seeds, part.seed)
        before = units(part.drop(columns="seed"))[1]  # results of before seeds were stored: from the order of the faces
        np.testing.assert_array_equal(np.unique(seeds, return_inverse=True)[1], before)
        assert set(before) == set(range(each))
    drawn = table[table.kind == "control"]
    np.testing.assert_array_equal(faces.reshape(-1, 3, 32, 32)[:, 0, 0, 0], drawn.seed % 7 * 20 + 40)


def test_a_face_is_never_its_own_stranger(
    data: Synthetic, real: RealFaces, panel: dict[str, Judge], fidelity: Fidelity
) -> None:
    """No test face shows the third emotion, and only one person the first and the fourth."""
    labels, person = real.labels[real.test], real.person[real.test]
    alone = np.intersect1d(person[labels == 0], person[labels == 3])[0]
    there = (labels != 2) & (~np.isin(labels, [0, 3]) | (person == alone))
    few = replace(real, test=real.test[there], half=real.half[there], leaked=real.leaked[there])

    class Turned:
        """An embedding that knows a face from all others: the angle of its mean brightness."""

        def __call__(self, images: np.ndarray) -> np.ndarray:
            angle = images.mean((1, 2, 3)) / 64
            return np.stack([np.cos(angle), np.sin(angle)], 1)

    task = task_of(Painter(data), data, few, [panel["resnet18"]], fidelity, {"sources": 16}, identity=Turned())
    editing.measure(task)
    edits = next(table for table in task.tables if (table.kind == "editing").all())
    mine = edits.asked.isin([0, 3]) & (edits.person == alone)
    assert mine.any()
    missing = (edits.asked == 2) | mine
    for name in ("ssim", "identity"):
        np.testing.assert_array_equal(edits[f"{name}_other"].isna(), missing)
        assert edits[name].notna().all()
        assert edits[f"{name}_other"].max() < 1 - 1e-9


def test_emotions_are_asked_for_as_the_model_knows_them(real: RealFaces) -> None:
    """A model that was trained on more emotions, in its own order."""

    class Asks:
        emotions = ("contempt", *Painter.emotions[:7])
        asked = torch.zeros(0)

        def sample(self, emotions: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
            self.asked = emotions
            return torch.zeros(len(seeds), 3, 16, 16, dtype=torch.uint8)

    model = Asks()
    made = Sampler(model, ("neutral", "contempt"), 32, real, CPU).sample(
        np.array([[0.25, 0.75]]), np.array([0]), "test"
    )
    assert model.asked.tolist() == [[0.75, 0.25, 0, 0, 0, 0, 0, 0]]
    assert made.shape == (1, 3, 32, 32)  # resized to the evaluation size


class Pack:
    """Faces on a disk, which knows what was read."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.read = images, list[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read += rows.tolist()
        return self.images[rows]


def test_of_the_validation_split_only_the_faces_that_an_editor_is_given_are_read(real: RealFaces) -> None:
    """A pack of 400 faces, each of its own brightness, of which 300 are validation's; the editor changes nothing."""

    class Keeps:
        emotions, size = ("neutral", "happy"), 8

        def edit(self, images: torch.Tensor, emotions: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
            return images

    class Draws:
        emotions, size = ("neutral", "happy"), 8

        def sample(self, emotions: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(seeds), 3, 8, 8, dtype=torch.uint8)

    shades = np.arange(400)[:, None, None, None] * np.ones((1, 1, 8, 8))
    pack = Pack((shades % 256).astype(np.uint8))
    whole, lazy = (replace(real, images=images, val=np.arange(100, 400)) for images in (pack.images, pack))
    seeds, asked = np.arange(295, 305), np.tile([[0.0, 1.0]], (10, 1))
    everything = Sampler(Keeps(), Keeps.emotions, 8, whole, CPU).sample(asked, seeds, "test")

    sampler = Sampler(Keeps(), Keeps.emotions, 8, lazy, CPU)
    assert pack.read == []
    made = sampler.sample(asked, seeds, "test")
    assert np.array_equal(made, everything)
    assert len(pack.read) == 10  # 300 faces: the last five, and again from the first on
    assert len(np.unique(pack.read)) == 10
    assert [row % 256 for row in pack.read] == made[:, 0, 0, 0].tolist()
    pack.read.clear()
    Sampler(Draws(), Draws.emotions, 8, lazy, CPU).sample(asked, seeds, "test")
    assert pack.read == []


def test_features_that_are_not_finite_name_the_sample(real: RealFaces, panel: dict[str, Judge], tmp_path: Path) -> None:
    class Broken:
        calls = 0

        def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            shares, features = panel["cnn21"].read(images)
            self.calls += 1
            if self.calls > 1:
                features[5, 0] = np.nan
            return shares, features

    broken = Fidelity(real, Broken(), None, None, "no file", tmp_path)
    with pytest.raises(NotFinite, match="fidelity: the features of sample 5"):
        broken.measure(real.faces(real.floor), "fidelity")
