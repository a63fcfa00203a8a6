"""Two processes with b faces each are one process that accumulates over two micro-batches of b: of every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from emobench.errors import SuiteError
from emobench.generators.cvae import CVAE
from emobench.nn.ada import AdaptiveAugment
from emobench.nn.running import Running
from emobench.runner.build import build_model
from emobench.runner.engines.local import Local
from emobench.runner.record import finished
from emobench.runner.run import Job
from emobench.runner.store import Store
from emobench.suite.catalog import classes
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load

EPOCHS = 4  # of five steps each: what a history says of an epoch is a mean over them

# One batch of validation faces for two processes.
DATA = """
panel = ["resnet18-one", "vit-one"]
reader = "cnn21-one"

[data.synthetic-plain]
size = 32
train = 40
val = 16
test = 80

[data.other]
class = "synthetic-hard"
size = 32
train = 40
val = 16
test = 80

[evaluation]
fidelity = 80
per_emotion = 8
sources = 16
intensity = 2

[model.vgg-guide]
class = "vgg16"
width = 0.0625
batch_norm = true
stem = "small"
pool = 1
head = 8
batch = 16
epochs = 1
"""
# Row -> what differs from the class's defaults. Among them: dropout, batch norm, balance, class weights, moving
# averages of weights, clipping, schedules that count steps, all regularisers of StyleGAN2, a probability of ADA that
# moves.
ROWS = {
    "resnet18": 'width = 0.0625\nschedule = "onecycle"\nlr = 0.02\nclass_weights = "balanced"\noversample = 2.0',
    "vit": 'class = "vit-full"\nweights = "none"\nsize = 32\ndim = 32\ndepth = 1\nheads = 2\npatch = 8\nema = 0.9',
    "vit_linear": 'weights = "none"\nstrategy = "full"\nsize = 32\ndim = 32\ndepth = 1\nheads = 2\npatch = 8',
    "cnn21": "padding = true\nsize = 32\ndense = [16, 8]",
    "vgg16": 'width = 0.0625\nbatch_norm = true\nstem = "small"\npool = 1\nhead = 8\nloss = "focal"',
    "timm": 'class = "timm:test_resnet"\nweights = "none"\nsize = 32',
    "cvae": 'size = 32\nwidth = 8\nlatent = 8\nperceptual = "guide"\nneeds = { guide = "vgg-guide" }',
    "vit_cvae": 'size = 32\nwidth = 8\nlatent = 8\ndim = 32\ndepth = 1\nheads = 2\nperceptual = "none"',
    "diffusion": "size = 32\nchannels = [8, 8]\nlayers = 1\nema = 0.9",
    "stargan": "size = 32\nwidth = 8\nblocks = 1\ndiscriminator_width = 8\ncritic_steps = 2",
    "stylegan2": (
        "size = 32\nlatent = 8\nstyle = 8\nbase = 128\nmost = 4\nr1_every = 2\npath_length = 2.0\n"
        "path_length_every = 2\nada_target = -1.0\nada_kimg = 0.1"
    ),
    # It has more networks than a batch has faces: some take no part in a step, or in that of one process alone.
    "style_transfer": 'size = 32\nwidth = 4\nperceptual = "guide"\nneeds = { guide = "vgg-guide" }',
}
# One fit on two datasets: the batches of a step are of one of them.
ROWS["joint"] = f'class = "stargan"\n{ROWS["stargan"]}\ntrain_on = ["synthetic-plain", "other"]'
TRAINER = 'accelerator = "cpu", gradient_clip_val = 1.0'
CLASSIFIERS = ("resnet18", "vit", "vit_linear", "cnn21", "vgg16", "timm")
KINDS = {  # how a row's micro-batches of a step are computed
    "two": f"trainer = {{ devices = 2, {TRAINER} }}",
    "one": f"trainer = {{ accumulate_grad_batches = 2, {TRAINER} }}",
    "both": f"trainer = {{ devices = 2, accumulate_grad_batches = 2, {TRAINER} }}",
    "four": f"trainer = {{ accumulate_grad_batches = 4, {TRAINER} }}",
    # To what is next to nothing beside Adam's ε.
    "clipped": "trainer = { accumulate_grad_batches = 2, gradient_clip_val = 1e-12 }",
}
PAIRS = [(row, "two", "one") for row in ROWS] + [(row, "both", "four") for row in ("vit", "stargan")]
LONG = ("diffusion", "stylegan2", "style_transfer", "joint", "stargan-both")  # half of the time of all
# Four gradients are not added up in the same order, and what is left of that grows from step to step.
TOLERANCE = {"one": 1e-5, "four": 5e-3}


def suite_of(folder: Path) -> Path:
    """Each row twice: `<row>-two` on two processes, `<row>-one` on one that accumulates; and so on."""
    text = DATA
    for name, *kinds in [*PAIRS, ("stargan", "clipped")]:
        settings = ROWS[name]
        lines = [
            *(() if "class = " in settings else (f'class = "{name}"',)),
            settings,
            "batch = 4",
            f"epochs = {EPOCHS}",
            *(('patience = "none"',) if name in CLASSIFIERS else ()),
        ]
        for kind in kinds:
            text += "\n".join([f"\n[model.{name}-{kind}]", *lines, KINDS[kind], ""])
    path = folder / "suite.toml"
    path.write_text(text)
    return path


class Fits:
    """The rows of the suite, each fitted by the processes of the local engine when a test asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.engine = folder, Store(folder / "results"), Local()
        plan = expand(load(suite_of(folder)), folder)
        self.cells = {
            cell.row: cell for cell in plan.cells if cell.control is None and cell.dataset == "synthetic-plain"
        }
        self.rows = {cell.fit_key: row for row, cell in self.cells.items()}

    def of(self, row: str) -> Cell:
        """A row's cell, fitted, with the networks that it needs before it."""
        cell = self.cells[row]
        folder = self.store.fit_folder(cell.fit_key)
        if not finished(folder / "fit.json"):
            for fit_key in (key for keys in cell.needs.values() for key in keys):
                self.of(self.rows[fit_key])
            job = Job(cell, self.store.results, self.folder, threads=1, only="fit")
            started = self.engine.start(job)
            assert started is not None
            while (code := self.engine.poll(started)) is None:
                self.engine.wait([started])
            assert code == 0, (folder / "log.txt").read_text()
        return cell


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Fits:
    return Fits(tmp_path_factory.mktemp("micro"))


def test_every_class_is_here() -> None:
    trained = {name for name, cls in classes("model").items() if cls.recipe is not None}
    assert set(ROWS) - trained == {"joint"}
    assert trained <= set(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "kind", "other"),
    [
        pytest.param(*pair, marks=[pytest.mark.long] if {pair[0], f"{pair[0]}-{pair[1]}"} & {*LONG} else [])
        for pair in PAIRS
    ],
)
def test_losses_and_weights_are_those_of_one_process(fits: Fits, row: str, kind: str, other: str) -> None:
    """Running statistics too: they move once a step, with the mean of its micro-batches."""
    store, many, one = fits.store, fits.of(f"{row}-{kind}"), fits.of(f"{row}-{other}")
    ours, theirs = (pd.read_csv(store.fit_folder(cell.fit_key) / "history.csv") for cell in (many, one))
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs) == EPOCHS
    tolerance = TOLERANCE[other]
    for column in theirs:
        np.testing.assert_allclose(ours[column], theirs[column], tolerance, tolerance / 100, err_msg=column)
    begun = build_model(one, store).state_dict()
    of_many, of_one = (load_file(store.weights(cell.fit_key)) for cell in (many, one))
    assert of_many.keys() == of_one.keys()
    for name, weights in of_one.items():
        moved = (weights - begun[name]).double().norm()
        assert (of_many[name] - weights).double().norm() <= 10 * tolerance * moved + 1e-6, name
    assert any(not torch.equal(weights, begun[name]) for name, weights in of_one.items())
    assert row != "stylegan2" or of_one["augment.p"] > 0.1  # its moving average


@pytest.mark.slow
def test_gradients_are_clipped_where_optimisers_take_turns(fits: Fits) -> None:
    store, moved = fits.store, []
    for cell in map(fits.of, ("stargan-one", "stargan-clipped")):
        begun, weights = build_model(cell, store).state_dict(), load_file(store.weights(cell.fit_key))
        moved.append(sum(float((weights[name] - begun[name]).square().sum()) for name in begun))
    assert 0 < moved[1] < 1e-4 * moved[0]


def test_a_validation_batch_that_another_process_has_too_is_counted_there() -> None:
    model = CVAE(emotions=("neutral", "happy"), size=32, width=8, latent=8, perceptual="none")
    model.on_validation_batch_start({}, 0)
    model.note("val", {"loss_of_it": torch.tensor(1.0)})
    model.on_validation_batch_start({"again": torch.tensor(True)}, 1)
    model.note("val", {"loss_of_it": torch.tensor(3.0)})
    model.note("train", {"loss_of_it": torch.tensor(5.0)})
    assert {name: float(total) for name, total in model._sums.items() if "of_it" in name} == {
        "val_loss_of_it": 1.0,
        "train_loss_of_it": 5.0,
    }
    assert (model._counts["val_loss_of_it"], model._counts["train_loss_of_it"]) == (1, 1)


def test_running_statistics_move_once_with_the_mean_of_the_micro_batches() -> None:
    network = torch.nn.BatchNorm1d(2)
    network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    ada = AdaptiveAugment()
    first, second = torch.randn(8, 2), torch.randn(8, 2) + 3
    running = Running(torch.nn.ModuleList([network, ada]))
    for batch in (first, second):
        running.put(running.start)
        network(batch)
        ada.observe(batch[:, 0])
        running.count()
    running.settle()
    torch.testing.assert_close(network.running_mean, 0.1 * (first.mean(0) + second.mean(0)) / 2)
    torch.testing.assert_close(network.running_var, 0.9 + 0.1 * (first.var(0) + second.var(0)) / 2)
    assert network.num_batches_tracked == 1
    assert torch.equal(network.mask, torch.tensor([0.0, -torch.inf]))
    assert ada.seen[1] == 16  # a count of all, and no mean


BY_HAND = """
import torch

from emobench.generators.generator import EmotionGenerator
from emobench.recipe import Recipe


class ByHand(EmotionGenerator):
    \"\"\"One that optimises by hand, in a training step of its own.\"\"\"

    name = "by_hand"
    source = "here"
    recipe = Recipe(epochs=1, monitor=None)

    def __init__(self, *, emotions, size):
        super().__init__(emotions=emotions, size=size)
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        raise NotImplementedError

    def sample(self, emotions, seeds):
        raise NotImplementedError
"""


@pytest.mark.parametrize("option", ["accumulate_grad_batches = 2", "gradient_clip_val = 1.0"])
def test_what_a_training_step_by_hand_would_ignore_is_refused(tmp_path: Path, option: str) -> None:
    (tmp_path / "hand.py").write_text(BY_HAND)
    suite = suite_of(tmp_path)
    suite.write_text(suite.read_text() + f'[model.hand]\nclass = "hand.py:ByHand"\ntrainer = {{ {option} }}\n')
    with pytest.raises(SuiteError, match=r"\[model.hand\]: .* has no effect in a training_step that optimises by hand"):
        expand(load(suite), tmp_path)
