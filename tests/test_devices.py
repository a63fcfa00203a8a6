"""Fits on several devices: two processes on the CPU stand for two GPUs."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from watching import beside, until

import emobench
from emobench.data.datasets.synthetic import Synthetic
from emobench.evaluation.predict import predict
from emobench.runner import run as running
from emobench.runner import sweep as sweeping
from emobench.runner.engines import local
from emobench.runner.engines.engine import TOGETHER
from emobench.runner.record import FitCost, read_record
from emobench.runner.store import Store, StoredCell, load_board
from emobench.runner.sweep import Running, Sweep
from emobench.suite.expand import expand
from emobench.suite.file import load

TWO = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp")

SAME = """
[data.synthetic-plain]
size = 32
train = 80
val = 80
test = 80

[model.vit]
class = "vit-full"
weights = "none"
dim = 32
depth = 1
heads = 2
patch = 8
dropout = 0.0
size = 32
batch = 8
epochs = 3
patience = "none"
oversample = 1.0
undersample = "none"
class_weights = "none"
optimizer = "sgd"  # Adam makes as much of a gradient that is nothing but rounding as of any other
lr = 0.01
augment = "none"
"""

STYLEGAN2 = """
[model.stylegan2]
size = 32
latent = 8
style = 8
base = 256
most = 8
path_length = 2.0
batch = 16
epochs = 1
trainer = { devices = 2, accelerator = "cpu" }
"""


Run = Callable[..., StoredCell]


@pytest.fixture
def run(emobench: Callable[..., int]) -> Run:
    """`run(suite, results, *settings)` runs a suite by the real command; returns its first cell."""
    return functools.partial(_run, emobench)


def _run(emobench: Callable[..., int], suite: Path, results: Path, *settings: str) -> StoredCell:
    options = [word for setting in settings for word in ("--set", setting)]
    options += ["--name", suite.stem]
    code = emobench("bench", suite, *options, "--results", results)
    assert code == 0, "\n".join(path.read_text() for path in results.glob("cells/*/log.txt"))
    return load_board(results, suite.stem)[0]


def cost(row: StoredCell) -> FitCost:
    assert row.record is not None
    assert row.record.fit is not None
    assert row.record.fit.cost is not None
    return row.record.fit.cost


def test_two_processes_fit_one_cell_and_one_evaluates_it(run: Run, tiny: Path, tmp_path: Path) -> None:
    """The validation count does not divide by two."""
    results = tmp_path / "results"
    row = run(tiny, results, *TWO, "data.synthetic-plain.val=88", "model.resnet18.epochs=2")
    assert row.state == "done"
    assert row.record is not None
    assert row.record.made_of.fit["recipe"]["batch"] == 32  # of both processes: what determines the number
    assert "devices" not in row.record.made_of.fit["trainer"]
    assert row.record.cell.trainer["devices"] == 2
    assert cost(row).steps == 2 * (80 // 32)  # 16 faces a step and process
    assert cost(row).recipe_share == 2 / 15  # of the epochs, each of the same two times 32 faces
    predictions = pd.read_parquet(row.folder / "predictions.parquet")  # type: ignore[operator]
    assert len(predictions) == predictions["index"].nunique() == 80
    folder = results / "cells" / row.fit_key
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [0, 1]
    accuracy = history["val_accuracy"] * 88
    assert accuracy.round(3).tolist() == pytest.approx(accuracy.round().tolist(), abs=1e-2)  # each face counted once
    assert load_file(folder / "weights.safetensors")
    # Evaluated in one process: exactly what its weights say on one device.
    data = Synthetic(size=32, variant="plain", train=80, val=88, test=80)
    data.prepare()
    network = emobench.load(results, "tiny", "resnet18")
    said, _ = predict(network, np.asarray(data.images[predictions["index"].to_numpy()]), 256)
    stored = predictions[[f"p_{emotion}" for emotion in network.emotions]].to_numpy()
    assert np.array_equal(said.astype(np.float32), stored)


def test_the_same_global_batch_gives_the_same_losses(run: Run, tmp_path: Path) -> None:
    """Two processes of 8 faces a step, and one that accumulates over two batches of 8; nothing depends on the batch."""
    suite = tmp_path / "same.toml"
    suite.write_text(SAME)
    two = run(suite, tmp_path / "two", *TWO)
    one = run(suite, tmp_path / "one", "trainer.accumulate_grad_batches=2")
    assert cost(two).steps == cost(one).steps == 3 * (80 // 16)
    # Of 15 epochs of two batches of 32, however the batch came together.
    assert cost(two).recipe_share == cost(one).recipe_share == 3 * 80 / (15 * 64)
    of_two = pd.read_csv(tmp_path / "two" / "cells" / two.fit_key / "history.csv")
    of_one = pd.read_csv(tmp_path / "one" / "cells" / one.fit_key / "history.csv")
    for column in ("train_loss", "val_loss", "val_accuracy", "lr"):
        np.testing.assert_allclose(of_two[column], of_one[column], rtol=2e-5, err_msg=column)
    assert of_one["train_loss"].is_monotonic_decreasing


def test_gans_are_fitted_on_two_processes(run: Run, made_suite: Path, tmp_path: Path) -> None:
    """Two optimisers, each of which leaves the other's network alone; the judges run on one process."""
    results, path = tmp_path / "results", tmp_path / "gan.toml"
    parts = made_suite.read_text().split("\n[")
    left_out = ("model.vgg16", "model.cvae", "model.vit_cvae", "model.diffusion")
    path.write_text("\n[".join(part for part in parts if not part.startswith(left_out)) + STYLEGAN2)
    settings = ['model.stargan.trainer={ devices = 2, accelerator = "cpu" }', "model.stargan.batch=16"]
    settings += [f"model.{judge}.epochs=1" for judge in ("resnet18", "vit", "cnn21")]
    settings += ["data.synthetic-plain.train=320", "data.synthetic-plain.val=40", "data.synthetic-plain.test=80"]
    run(path, results, *settings)
    steps, shares = {}, {}
    for row in load_board(results, "gan"):
        assert row.state == "done", row.reason
        steps[row.row], shares[row.row] = cost(row).steps, cost(row).recipe_share
    # The generators', of 16 faces a step and process; StarGAN's takes every fifth.
    assert (steps["stargan"], steps["stylegan2"]) == (320 // 32 // 5, 320 // 32)
    # Faces of StarGAN's generator over those of 20 epochs with a batch of 16, and StyleGAN2's over 781,250 steps of 32.
    assert shares["stargan"] == 2 * 32 / (20 * (320 // 16 // 5) * 16)
    assert shares["stylegan2"] == 320 / (781_250 * 32)


BROKEN = '''
import os

from emobench.classifiers.resnet import ResNet18


class Second(ResNet18):
    """Whose second process fails in the first step."""

    name = "second"

    def training_step(self, *arguments):
        if os.environ.get("LOCAL_RANK") == "1":
            raise RuntimeError("the second is broken")
        return super().training_step(*arguments)
'''


STILL = '''
import os
import time
from pathlib import Path

from emobench.classifiers.resnet import ResNet18


class Second(ResNet18):
    """Whose processes stand still in the first step."""

    name = "second"

    def training_step(self, *arguments):
        Path("FOLDER", f"still-{os.environ['LOCAL_RANK']}").touch()
        time.sleep(100)
'''


def test_a_process_that_fails_costs_its_cell_and_not_the_sweep(
    emobench: Callable[..., int], tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "second.py").write_text(BROKEN)
    tiny.write_text(tiny.read_text() + '[model.second]\nclass = "second.py:Second"\n')
    tiny.write_text(tiny.read_text() + 'trainer = { devices = 2, accelerator = "cpu", strategy = "ddp" }\n')
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--results", results) == 1
    rows = {row.row: row for row in load_board(results, "tiny")}
    assert {row.state for name, row in rows.items() if name != "second"} == {"done"}
    assert rows["second"].state == "failed"
    assert rows["second"].reason == "RuntimeError: the second is broken (in another process of the fit)"
    assert "the second is broken" in (results / "cells" / rows["second"].fit_key / "log.txt").read_text()
    tiny.write_text(tiny.read_text().replace("devices = 2, ", ""))
    assert emobench("bench", tiny, "--results", results) == 0  # and nothing of it is left


def test_a_process_that_is_killed_is_said_to_be(emobench: Callable[..., int], tiny: Path, tmp_path: Path) -> None:
    """The first sees that a connection was reset."""
    killed = BROKEN.replace('raise RuntimeError("the second is broken")', "os.kill(os.getpid(), 9)")
    (tmp_path / "second.py").write_text(killed)
    tiny.write_text(tiny.read_text().replace("[model.resnet18]", '[model.second]\nclass = "second.py:Second"'))
    tiny.write_text(tiny.read_text() + 'trainer = { devices = 2, accelerator = "cpu", strategy = "ddp" }\n')
    assert emobench("bench", tiny, "--results", tmp_path / "results") == 1
    (row,) = [row for row in load_board(tmp_path / "results", "tiny") if row.row == "second"]
    assert row.reason == "killed by SIGKILL: out of memory, or by hand"


def test_a_fit_whose_processes_stand_still_ends_in_order(tiny: Path, tmp_path: Path) -> None:
    """A signal comes in the middle of a step, in which the other process can answer nothing."""
    (tmp_path / "second.py").write_text(STILL.replace("FOLDER", str(tmp_path)))
    tiny.write_text(tiny.read_text().replace("[model.resnet18]", '[model.second]\nclass = "second.py:Second"'))
    tiny.write_text(tiny.read_text() + 'trainer = { devices = 2, accelerator = "cpu", strategy = "ddp" }\n')
    sweep = beside(tmp_path / "said", "bench", tiny, "--results", tmp_path / "results")
    until(lambda: len(list(tmp_path.glob("still-*"))) == 2, 60, "both processes in a step")
    began = time.monotonic()
    os.kill(sweep.pid, signal.SIGINT)
    sweep.join(40)
    assert time.monotonic() - began < 30
    states = {read_record(path).state for path in (tmp_path / "results").glob("cells/*/fit.json")}
    assert states == {"interrupted"}


def test_why_a_process_failed_is_known_where_the_first_waited_and_was_ended(tiny: Path, tmp_path: Path) -> None:
    plan = expand(load(tiny), tmp_path)
    cell, store = plan.cells[0], Store(tmp_path / "results")
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    store.elsewhere(cell.fit_key).write_text("RuntimeError: the second is broken")
    state = Sweep(plan, store, plan.cells, [])
    sweeping._ended(state, Running(cell, None, 0.0), 1)
    assert state.state(cell) == ("failed", "RuntimeError: the second is broken (in another process of the fit)")


def test_further_processes_touch_nothing_before_the_first_has_the_cell(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a fit that is made again would delete the checkpoints of the process that has it."""
    cell, store = expand(load(tiny), tmp_path).cells[0], Store(tmp_path / "results")
    best = store.fit_folder(cell.fit_key) / "checkpoints" / "best-step=5.ckpt"
    best.parent.mkdir(parents=True)
    best.write_text("of another machine")
    (store.fit_folder(cell.fit_key) / "together.txt").write_text("of an attempt before")
    monkeypatch.setenv(TOGETHER, "of this one")
    fitted: list[bool] = []
    monkeypatch.setattr(running, "fit", lambda *_, **__: fitted.append(best.exists()))
    job = running.Job(cell, store.results, tmp_path, redo=True, only="fit")
    thread = threading.Thread(target=running.run, args=(job, store, True))
    thread.start()
    time.sleep(1)
    assert not fitted
    running.run(job, store)  # the first
    thread.join(10)
    assert fitted == [True, True]


class Process:
    """One that runs until it is killed."""

    def __init__(self, code: int | None = None) -> None:
        self.exitcode = code

    def kill(self) -> None:
        self.exitcode = -9 if self.exitcode is None else self.exitcode


def test_what_waits_for_a_process_that_failed_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, now = local.Local(), [100.0]
    monkeypatch.setattr(local.time, "monotonic", lambda: now[0])
    first, second, third = Process(), Process(), Process(0)
    job = local.Started([first, second, third], None, True)
    engine.running.append(job)
    assert engine.poll(job) is None
    second.exitcode = -11
    assert engine.poll(job) is None
    now[0] += local.PATIENCE - 1
    assert engine.poll(job) is None
    now[0] += 2
    assert engine.poll(job) == -11  # how the one ended that failed
    assert (first.exitcode, engine.running) == (-9, [])


def test_further_processes_end_with_the_first() -> None:
    engine, second = local.Local(), Process()
    job = local.Started([Process(0), second], None, True)
    engine.running.append(job)
    assert engine.poll(job) == 0
    assert (second.exitcode, engine.running) == (-9, [])
