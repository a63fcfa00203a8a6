"""What a new track and a new metric cost: one file outside the package, named by the suite."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import pages

import emobench as package
from emobench.errors import SuiteError

TOYS = """
import numpy as np

from emobench.evaluation.protocol import FIRST_SEED
from emobench.evaluation.tracks.generation import CONTROL_COLUMNS, CONTROL_RANKING
from emobench.evaluation.tracks.panel import PanelTrack, control_of, means_of
from emobench.evaluation.tracks.track import Column, Key, Metric


def brightness(made):
    return made.images.mean((1, 2, 3)) / 255


def measure(task):
    asked = np.repeat(np.arange(task.classes), 4)
    seeds = FIRST_SEED["control"] + np.tile(np.arange(4), task.classes)
    faces = task.sampler.sample(np.eye(task.classes)[asked], seeds, "portraits")
    columns = task.measured("portraits", task.made(faces, asked))
    task.judge("portraits", faces, asked, **task.origin(seeds), **columns)
    return {}


OF_FACES = Metric("brightness", "recognition", brightness, low=0, high=1)
OF_PORTRAITS = Metric("brightness", "portraits", brightness, "brightness", low=0, high=1)


class Portraits(PanelTrack):
    name = "portraits"
    judged = "portraits"
    title = "Portraits: an emotion in, four faces out"
    measure = staticmethod(measure)
    metrics = (OF_PORTRAITS,)
    rankings = (CONTROL_RANKING,)
    columns = (*CONTROL_COLUMNS, Column("brightness", Key("brightness")))

    @classmethod
    def measures(cls, model):
        return hasattr(model, "sample")

    def estimates(self, cells):
        return [[control_of(faces, "portraits"), means_of(faces, "portraits", self.metrics)] for faces in cells]
"""


@pytest.fixture
def suite(made_suite: Path, tmp_path: Path) -> dict[str, Any]:
    """The suite of generators with one of them, and a file of toys."""
    (tmp_path / "toys.py").write_text(TOYS)
    content = tomllib.loads(made_suite.read_text())
    for name in ("vit_cvae", "stargan", "diffusion"):
        del content["model"][name]
    return {"name": "toys", "plugins": [str(tmp_path / "toys.py")], **content}


def test_a_track_and_a_metric_in_a_file_of_ones_own(generated: Path, suite: dict[str, Any], tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(generated, results)
    board = package.bench(suite, results=results, data=tmp_path / "data")
    assert not board.reason.str.startswith("failed").any()
    whole = board[board.seed.isna()]
    of_faces = whole[(whole.track == "recognition") & (whole.metric == "brightness")]
    assert {"resnet18", "vit-full", "cnn21", "vgg16", "control:permuted"} <= set(of_faces.model)
    assert np.allclose(of_faces.value, of_faces.value.iloc[0])  # of the same faces
    portraits = whole[(whole.track == "portraits") & (whole.model == "cvae")]
    assert portraits[portraits.metric == "brightness"].value.between(0.05, 0.95).all()
    control = portraits[(portraits.metric == "control") & (portraits.emotion == "macro") & (portraits.judge == "")]
    assert control.n.item() == 32
    page = pages(results / "toys")
    assert "## Portraits on synthetic-plain, 32 px" in page
    assert "Portraits on `synthetic-plain`: cvae leads with" in page
    assert "earlier commits" not in page
    (results / "toys" / "leaderboard.md").unlink()
    (tmp_path / "toys.py").rename(tmp_path / "elsewhere.py")
    with pytest.raises(SuiteError, match=r"toys\.py: no such file"):
        package.bench(suite, results=results, data=tmp_path / "data")


def test_a_broken_file_that_a_suite_names_is_refused(suite: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "toys.py").write_text("import nothing_of_this_name")
    with pytest.raises(SuiteError, match=r"toys\.py, line 1: ModuleNotFoundError"):
        package.bench(suite, results=tmp_path / "results", data=tmp_path / "data")
