"""`recipe_share`: faces that the trained network's optimiser saw, over those of the class's own recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emobench.classifiers.resnet import ResNet18
from emobench.errors import SizeError
from emobench.generators.stargan import StarGAN
from emobench.runner import fit as fitting
from emobench.runner.build import build_data
from emobench.runner.record import FitCost, read_record
from emobench.runner.store import Store
from emobench.suite.catalog import classes
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.rows import arguments_of

SUITE = """
[data.synthetic-plain]
size = 32
train = 80
val = 80
test = 80

[model.stargan]
size = 32
width = 4
blocks = 0
discriminator_width = 4

[model.vit]
class = "vit-full"
weights = "none"
size = 32
dim = 32
depth = 1
heads = 2

[model.resnet18]
width = 0.0625
patience = "none"

[model.cnn21]
padding = true
size = 32
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "shares.toml"
    path.write_text(SUITE)
    return path


def planned(suite: Path, row: str, *overrides: str) -> Cell:
    cells = expand(load(suite, overrides), Path("nowhere")).cells
    return next(cell for cell in cells if cell.row == row)


def cost(store: Store, cell: Cell) -> FitCost:
    fit = read_record(store.fit_folder(cell.fit_key) / "fit.json").fit
    assert fit is not None
    assert fit.cost is not None
    return fit.cost


def share(cell: Cell, folder: Path) -> float:
    """Of a fit in this process."""
    store = Store(folder)
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    fitting.fit(cell, store, build_data(cell, folder))
    return cost(store, cell).recipe_share


OWN = 15 * 64  # faces of ResNet18's recipe: 15 epochs of two batches of 32, of 80 faces


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "faces"),
    [
        (["model.resnet18.batch=32", "model.resnet18.epochs=15"], OWN),
        (["model.resnet18.batch=64", "model.resnet18.epochs=15"], OWN),  # half the steps
        (["model.resnet18.batch=16", "model.resnet18.epochs=15"], 15 * 80),  # here no face of an epoch is left out
        (["model.resnet18.batch=64", "model.resnet18.steps=6"], 6 * 64),
        (["model.resnet18.batch=16", "model.resnet18.epochs=3", "trainer.accumulate_grad_batches=2"], 3 * 80),
        (["model.resnet18.batch=16", "model.resnet18.steps=6", "trainer.accumulate_grad_batches=2"], 2 * 80),
    ],
)
def test_faces_are_counted_and_not_steps(suite: Path, tmp_path: Path, overrides: list[str], faces: int) -> None:
    """The last step of an epoch of five batches accumulates over one of them."""
    assert (ResNet18.recipe.epochs, ResNet18.recipe.batch) == (15, 32)
    assert share(planned(suite, "resnet18", *overrides), tmp_path) == faces / OWN


@pytest.mark.parametrize(("critic_steps", "epochs"), [(5, 1), (5, 2), (2, 2), (1, 1)])
def test_of_a_gan_the_faces_of_its_generator_are_counted(
    suite: Path, tmp_path: Path, critic_steps: int, epochs: int
) -> None:
    """Ten batches of 8 an epoch; the recipe's five of 16 are one step of the generator."""
    assert (StarGAN.recipe.epochs, StarGAN.recipe.batch, StarGAN.batches_a_step) == (20, 16, 5)
    settings = [f"model.stargan.critic_steps={critic_steps}", f"model.stargan.epochs={epochs}", "model.stargan.batch=8"]
    cell = planned(suite, "stargan", *settings)
    assert share(cell, tmp_path) == epochs * (10 // critic_steps) * 8 / (20 * 16)


def test_a_row_for_small_faces_is_counted_against_that_recipe(suite: Path, tmp_path: Path) -> None:
    cell = planned(suite, "resnet18", 'model.resnet18.class="resnet18-small-faces"', "model.resnet18.epochs=3")
    assert share(cell, tmp_path) == 3 / ResNet18.small_faces["epochs"]
    assert cost(Store(tmp_path), cell).recipe == "resnet18-small-faces"


def test_a_budget_in_steps_is_counted_in_steps_of_the_generator(suite: Path, tmp_path: Path) -> None:
    """Of StarGAN, whose own epochs would count fewer."""
    cell = planned(suite, "stargan", 'model.stargan.class="stargan-small-faces"', "model.stargan.epochs=2")
    assert (cell.fit["recipe"]["steps"], cell.fit["arguments"]["width"]) == (None, 4)
    assert share(cell, tmp_path) == 2 * (5 // 2) * 16 / (StarGAN.small_faces["steps"] * 16)
    assert cost(Store(tmp_path), cell).recipe == "stargan-small-faces"


def test_the_published_recipe_counts_where_no_other_is_named(suite: Path, tmp_path: Path) -> None:
    cell = planned(suite, "resnet18", "model.resnet18.epochs=3")
    assert share(cell, tmp_path) == 3 / 15
    assert cost(Store(tmp_path), cell).recipe is None


def test_faces_that_are_not_small_are_refused(suite: Path) -> None:
    large = ('model.resnet18.class="resnet18-small-faces"', "data.synthetic-plain.size=96")
    with pytest.raises(SizeError, match=r"\[model.resnet18\].*64 px and less.*96 px.*class = \"resnet18\""):
        planned(suite, "resnet18", *large)
    assert planned(suite, "resnet18", *large[:1], "data.synthetic-plain.size=64").row == "resnet18"


@pytest.mark.parametrize("cls", [cls for cls in classes("model").values() if getattr(cls, "small_faces", None)])
def test_every_recipe_for_small_faces_is_complete(cls: Any) -> None:
    """Its names and values are of the class, it has a budget, and it takes every size that a suite may give it."""
    arguments, recipe = arguments_of("here", cls, cls.small_faces)
    assert len({"epochs", "steps"} & cls.small_faces.keys()) == 1
    assert recipe.size is None
    for size in (32, 48, 64):
        cls.check_size(size, arguments)
    assert recipe.patience is None


def test_stargans_own_recipe_has_the_published_critic_steps() -> None:
    model = StarGAN(emotions=("neutral", "happy"), size=32, width=4, blocks=0, discriminator_width=4)
    assert model.batches_a_step == StarGAN.batches_a_step


def test_a_resumed_fit_counts_each_face_once(
    suite: Path, tmp_path: Path, both_ways: Callable[..., dict[str, Any]]
) -> None:
    cell = planned(suite, "resnet18", "model.resnet18.batch=16", "model.resnet18.epochs=4")
    both_ways(cell)
    for kind in ("through", "stopped"):
        assert cost(Store(tmp_path / kind), cell).recipe_share == 4 * 80 / OWN
