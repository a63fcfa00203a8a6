"""What packages of others add by an entry point: one file each, found by the command, its engines and forked cells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from reading import pages
from toys import COSTS, ENGINE, installed

import emobench as package
from emobench.runner.engines import engine_of
from emobench.runner.store import load_board
from emobench.suite.catalog import broken
from emobench.suite.cell import Cell
from emobench.suite.file import load
from emobench.suite.plan_cache import plan_of

TOYS = {
    "classifier": '''
from torch import nn

from emobench.classifiers.classifier import EmotionClassifier
from emobench.recipe import Recipe


class Flat(EmotionClassifier):
    """A linear classifier of pixels."""

    name = "flat"
    source = "these tests"
    recipe = Recipe(batch=16, epochs=1)

    def __init__(self, *, emotions, size):
        super().__init__(emotions=emotions, size=size)
        self.head = nn.Linear(3 * size * size, len(self.emotions))

    def logits(self, pixels):
        return self.head(pixels.flatten(1))
''',
    "generator": '''
import torch
from torch import nn

from emobench.generators.generator import EmotionGenerator
from emobench.nn.noise import Noise
from emobench.recipe import Recipe


class Means(EmotionGenerator):
    """The mean face of each emotion, and noise."""

    name = "means"
    source = "these tests"
    recipe = Recipe(batch=16, epochs=1, monitor=None)

    def __init__(self, *, emotions, size):
        super().__init__(emotions=emotions, size=size)
        self.faces = nn.Linear(len(emotions), 3 * size * size, bias=False)

    def loss_parts(self, pixels, emotions, *, training):
        return {"l2": (self.faces(emotions) - pixels.flatten(1)).square().mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)

    def sample(self, emotions, seeds):
        noise = Noise(seeds).normal(3, self.size, self.size)
        return self.images(self.faces(emotions).unflatten(1, noise.shape[1:]) + noise / 8)
''',
    "dataset": '''
from emobench.data.datasets.synthetic import Synthetic


class Portrayed(Synthetic):
    """Drawn faces under another name."""

    name = "portrayed"
    variants = {}
''',
    "track": """
import numpy as np

from emobench.evaluation.protocol import FIRST_SEED
from emobench.evaluation.tracks.generation import CONTROL_COLUMNS, CONTROL_RANKING
from emobench.evaluation.tracks.panel import PanelTrack, control_of


def measure(task):
    asked = np.repeat(np.arange(task.classes), 4)
    seeds = FIRST_SEED["control"] + np.tile(np.arange(4), task.classes)
    faces = task.sampler.sample(np.eye(task.classes)[asked], seeds, "portraits")
    task.judge("portraits", faces, asked, **task.origin(seeds))
    return {}


class Portraits(PanelTrack):
    name = "portraits"
    judged = "portraits"
    title = "Portraits: an emotion in, four faces out"
    measure = staticmethod(measure)
    rankings = (CONTROL_RANKING,)
    columns = CONTROL_COLUMNS

    @classmethod
    def measures(cls, model):
        return hasattr(model, "sample")

    def estimates(self, cells):
        return [[control_of(faces, "portraits")] for faces in cells]
""",
    "metric": """
from emobench.evaluation.tracks.track import Metric


def brightness(made):
    return made.images.mean((1, 2, 3)) / 255


BRIGHTNESS = Metric("brightness", "recognition", brightness, low=0, high=1)
""",
    "engine": ENGINE,
}
SUITE = """
panel = ["resnet18", "vgg16"]

[data.portrayed]
size = 32
train = 80
val = 80
test = 80

[model.flat]

[model.means]

[model.resnet18]
width = 0.0625
batch = 16
epochs = 1
lr = 0.02

[model.vgg16]
width = 0.0625
batch_norm = true
pool = 1
head = 32
batch = 32
epochs = 1

[model.cnn21]
padding = true
size = 32
dense = [64, 16]
batch = 32
epochs = 1

[evaluation]
per_emotion = 4
sources = 8
intensity = 1
"""


def command(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`emobench` in a process of its own, where the packages of `site` are installed."""
    path = os.pathsep.join([str(Path(package.__file__).parents[1]), str(site)])
    return subprocess.run(
        [sys.executable, "-m", "emobench", *map(str, arguments)],
        capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": path}, cwd=site,
    )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where a file of each kind is installed, and a broken one."""
    toys = {**TOYS, "broken": "import os\n\nimport no_such_module\n"}
    (tmp_path / "toys.toml").write_text(SUITE)
    files = {f"toy_{name}.py": text for name, text in toys.items()}
    return installed(tmp_path / "site", files, [f"toy_{name}" for name in toys])


def passed_over(site: Path) -> str:
    return f"passed over {site / 'toy_broken.py'}, line 3: ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.long
def test_a_command_that_starts_cold_finds_them(site: Path, tmp_path: Path) -> None:
    """And so does its fork server."""
    ran = command(site, "bench", tmp_path / "toys.toml", "--results", tmp_path / "local", "--data", tmp_path / "data")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr.count(passed_over(site)) == 1
    assert {cell.state for cell in load_board(tmp_path / "local", "toys")} == {"done"}


def test_a_file_of_each_kind(
    site: Path,
    emobench: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(site))
    here = ("--results", tmp_path / "local", "--data", tmp_path / "data")
    assert emobench("bench", tmp_path / "toys.toml", *here) == 0, capsys.readouterr()
    assert capsys.readouterr().err.count(passed_over(site)) == 1
    for kind, name in {"models": "flat", "datasets": "portrayed"}.items():
        assert emobench(kind) == 0
        shown = capsys.readouterr()
        assert f"\n{name} " in shown.out
        assert passed_over(site) in shown.err
    states = {(cell.row, cell.dataset): cell.state for cell in load_board(tmp_path / "local", "toys")}
    rows = ("flat", "means", "resnet18", "vgg16", "cnn21", "control:permuted")
    assert states == dict.fromkeys(((row, "portrayed") for row in rows), "done")
    local = package.read_board(tmp_path / "local" / "toys")
    whole = local[local.seed.isna() & local.emotion.isin(["", "macro"])]
    assert whole[(whole.model == "flat") & (whole.metric == "accuracy")].value.between(0, 1).all()
    of_faces = whole[(whole.track == "recognition") & (whole.metric == "brightness")]
    assert {"flat", "resnet18", "vgg16", "cnn21"} <= set(of_faces.model)
    assert of_faces.value.between(0.05, 0.95).all()
    control = whole[(whole.track == "portraits") & (whole.model == "means") & (whole.metric == "control")]
    assert control[control.judge == ""].n.item() == 32
    page = pages(tmp_path / "local" / "toys")
    assert "## Portraits on portrayed, 32 px" in page

    there = ("--results", tmp_path / "toy", "--data", tmp_path / "data", "--engine", "here")
    assert emobench("bench", tmp_path / "toys.toml", *there) == 0, capsys.readouterr()
    toy = package.read_board(tmp_path / "toy" / "toys")
    compared = [board[~board.metric.isin(COSTS)].reset_index(drop=True) for board in (toy, local)]
    pd.testing.assert_frame_equal(*compared)


@pytest.mark.parametrize("exports", ["from .parts import BRIGHTNESS, Here", "from brightly.parts import *"])
def test_a_package_that_is_installed_or_edited_later(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exports: str
) -> None:
    """A suite's plan is remembered; the package names itself, and what it shows lies in a file of its own."""

    def cells() -> dict[str, Cell]:
        return {cell.row: cell for cell in plan_of(load(tiny), tmp_path, tmp_path / "cells").cells}

    before = cells()
    parts = tmp_path / "site" / "brightly" / "parts.py"
    files = {"brightly/__init__.py": exports, "brightly/parts.py": TOYS["metric"] + TOYS["engine"]}
    monkeypatch.syspath_prepend(str(installed(tmp_path / "site", files, ["brightly"], "brightly")))
    for name in ("brightly", "brightly.parts"):  # of the case before
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert engine_of("here").__module__ == "brightly.parts"
    with_metric = cells()
    parts.write_text(parts.read_text().replace("/ 255", "/ 256"))
    edited = cells()
    for row in before:
        assert before[row].fit_key == with_metric[row].fit_key == edited[row].fit_key
        assert len({each[row].eval_key for each in (before, with_metric, edited)}) == 3


def test_a_file_beside_a_model_that_is_edited(tiny: Path, tmp_path: Path) -> None:
    """What the model takes from there counts, in plans that are remembered too."""
    beside = tmp_path / "flattening.py"
    beside.write_text("def flat(pixels):\n    return pixels.flatten(1)\n")
    text = TOYS["classifier"].replace("from torch import nn", "from flattening import flat\nfrom torch import nn")
    (tmp_path / "mine.py").write_text(text.replace("pixels.flatten(1)", "flat(pixels)"))
    tiny.write_text(tiny.read_text() + '[model.flat]\nclass = "mine.py:Flat"\n')

    def keys() -> dict[str, str]:
        return {cell.row: cell.fit_key for cell in plan_of(load(tiny), tmp_path, tmp_path / "cells").cells}

    before = keys()
    assert keys() == before
    assert len(list((tmp_path / "cells" / "plans").iterdir())) == 1
    beside.write_text("def flat(pixels):\n    return 2 * pixels.flatten(1)\n")
    assert keys()["flat"] != before["flat"]
    assert keys()["resnet18"] == before["resnet18"]


def test_a_package_that_cannot_be_imported_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"cracked/__init__.py": "x = 1\nraise RuntimeError('so')\n", "cracked/models.py": ""}
    points = ["cracked.models:Small", "not_installed"]
    monkeypatch.syspath_prepend(str(installed(tmp_path / "site", files, points, "cracked")))
    assert [str(each) for each in broken("model", "dataset")] == [
        f"{tmp_path / 'site' / 'cracked' / '__init__.py'}, line 2: RuntimeError: so",
        "not_installed: ModuleNotFoundError: No module named 'not_installed'",
    ]
