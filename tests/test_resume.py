"""Interrupted sweeps: what was finished stays, the rest goes on, the numbers are those of an uninterrupted run."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from soak import processes_of
from watching import beside

from emobench.cli import main
from emobench.runner.record import read_record
from emobench.runner.store import StoredCell, load_board

# A network that stands still in the middle of an epoch while a file lies beside its own, until a signal comes.
PAUSED = """
import time
from pathlib import Path
from typing import Any

from emobench.classifiers.resnet import ResNet18


class Paused(ResNet18):
    name = "paused"

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        while (self.current_epoch, batch_idx) == (3, 2) and Path(__file__).with_name("pause").exists():
            time.sleep(0.01)
"""
EPOCHS = 6
Outcome = tuple[dict[str, torch.Tensor], pd.DataFrame, pd.DataFrame]
SCHEDULES = ["step", "warmup-plateau", "onecycle"]


def when(condition: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """Do something as soon as a condition holds, beside what the test does."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def written(folder: Path) -> Path:
    """The tiny suite with a network that can be made to stand still: by a file `pause` in the suite's folder."""
    (folder / "paused.py").write_text(PAUSED)
    text = TINY.replace("[model.resnet18]", '[model.paused]\nclass = "paused.py:Paused"')
    (folder / "tiny.toml").write_text(text.replace("epochs = 4", f"epochs = {EPOCHS}"))
    return folder / "tiny.toml"


@pytest.fixture
def pausing(tmp_path: Path) -> Path:
    return written(tmp_path)


def scheduled(schedule: str) -> tuple[str, str]:
    return "--set", f"model.paused.schedule={schedule}"


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """`through(schedule)`: what comes of an uninterrupted run, which is made once."""

    @functools.cache
    def run(schedule: str) -> Outcome:
        folder = tmp_path_factory.mktemp("through")
        with pytest.raises(SystemExit) as stop:
            main(["bench", str(written(folder)), *scheduled(schedule), "--results", str(folder / "results")])
        assert not stop.value.code
        return outcome(folder / "results")

    return run


def pause(suite: Path) -> Path:
    """The file during which the network stands still, made."""
    path = suite.with_name("pause")
    path.touch()
    return path


def epochs_done(results: Path, fit_key: str = "*") -> int:
    """Finished epochs of the furthest cell that is not done yet, or of a certain one."""
    counts = [
        len(path.read_text().splitlines()) - 1
        for path in results.glob(f"cells/{fit_key}/history.csv")
        if not (path.parent / "fit.json").exists()
    ]
    return max(counts, default=0)


def board(results: Path) -> list[StoredCell]:
    """The rows of the one board that is here, which is named after what was overridden too."""
    (path,) = results.glob("*/suite.json")
    return load_board(results, path.parent.name)


def outcome(results: Path) -> Outcome:
    """Weights, predictions and history of the first row of the tiny suite."""
    row = board(results)[0]
    folder = results / "cells" / row.fit_key
    predictions = pd.read_parquet(folder / row.eval_key / "predictions.parquet")
    return load_file(folder / "weights.safetensors"), predictions, pd.read_csv(folder / "history.csv")


def assert_same(one: Any, other: Any) -> None:
    for name, tensor in one[0].items():
        torch.testing.assert_close(tensor, other[0][name], rtol=0, atol=0)
    pd.testing.assert_frame_equal(one[1], other[1])
    pd.testing.assert_frame_equal(one[2], other[2])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sigterm_then_resume_equals_uninterrupted(
    emobench: Callable[..., int], pausing: Path, tmp_path: Path, schedule: str, through: Callable[[str], Outcome]
) -> None:
    options, stopped = scheduled(schedule), tmp_path / "stopped"
    waiting = pause(pausing)
    watcher = when(lambda: epochs_done(stopped) >= 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert emobench("bench", pausing, *options, "--results", stopped) == 143
    watcher.join()
    waiting.unlink()
    row = board(stopped)[0]
    assert row.state == "interrupted"
    assert "run the same command again" in (row.reason or "")
    before = epochs_done(stopped) or len(pd.read_csv(stopped / "cells" / row.fit_key / "history.csv"))
    assert before == 3

    assert emobench("bench", pausing, *options, "--results", stopped) == 0
    assert "going on from last-" in (stopped / "cells" / row.fit_key / "log.txt").read_text()
    assert_same(through(schedule), outcome(stopped))


def kill_its_processes(pausing: Path, results: Path) -> None:
    """Have all processes of a suite's first cell killed where its fit is paused, in its fourth epoch.

    Where cores allow, the control is fitted beside it, and stays.
    """
    waiting = pause(pausing)

    def kill() -> None:
        for process in processes_of(results / "cells" / board(results)[0].fit_key):
            os.kill(process, signal.SIGKILL)
        waiting.unlink()

    when(lambda: any(results.glob("*/suite.json")) and epochs_done(results, board(results)[0].fit_key) >= 3, kill)


@pytest.mark.slow
def test_a_fit_of_two_processes_that_is_killed_ends_with_the_same_weights(
    emobench: Callable[..., int], pausing: Path, tmp_path: Path
) -> None:
    """Each process goes on with its own faces and random numbers, and with the means of both."""
    settings = ("trainer.devices=2", "trainer.accelerator=cpu", "model.paused.batch=8", "model.paused.ema=0.9")
    options = [word for setting in settings for word in ("--set", setting)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kill_its_processes(pausing, killed)
    assert emobench("bench", pausing, *options, "--results", killed) == 1
    row = board(killed)[0]
    assert row.state == "failed"
    log = killed / "cells" / row.fit_key / "log.txt"
    log.write_text("")
    assert emobench("bench", pausing, *options, "--results", killed) == 0
    assert log.read_text().count("going on from last-") == 3  # each, and the first as it looks for damaged ones
    assert emobench("bench", pausing, *options, "--results", whole) == 0
    assert_same(outcome(whole), outcome(killed))


def test_sigkill_of_a_cell_costs_only_itself_and_at_most_an_epoch(
    emobench: Callable[..., int], pausing: Path, tmp_path: Path, through: Callable[[str], Outcome]
) -> None:
    options, killed = scheduled("step"), tmp_path / "killed"
    kill_its_processes(pausing, killed)
    assert emobench("bench", pausing, *options, "--results", killed) == 1
    rows = board(killed)
    assert rows[0].state == "failed"
    assert "SIGKILL" in (rows[0].reason or "")
    assert [row.state for row in rows[1:]] == ["done"]  # the permuted control went on
    for checkpoint in (killed / "cells" / rows[0].fit_key / "checkpoints").glob("*.ckpt"):
        torch.load(checkpoint, weights_only=True)  # whole, whatever was being written

    log = killed / "cells" / rows[0].fit_key / "log.txt"
    log.write_text("")
    assert emobench("bench", pausing, *options, "--results", killed) == 0
    assert "going on from last-" in log.read_text()
    assert not list(killed.rglob("*.tmp"))
    assert_same(through("step"), outcome(killed))


@pytest.mark.slow
def test_a_signal_to_the_whole_process_group_ends_the_sweep_in_order(pausing: Path, tmp_path: Path) -> None:
    pause(pausing)
    process = beside(tmp_path / "said", "bench", pausing, "--results", tmp_path / "results")
    when(lambda: epochs_done(tmp_path / "results") >= 3, lambda: os.killpg(process.pid, signal.SIGTERM))
    process.join(timeout=120)
    output = (tmp_path / "said").read_text()
    assert process.exitcode == 143, output
    assert [row.state for row in board(tmp_path / "results")] == ["interrupted", "pending"], output


def test_unreadable_newest_checkpoint_falls_back_to_the_one_before(
    emobench: Callable[..., int], pausing: Path, tmp_path: Path, through: Callable[[str], Outcome]
) -> None:
    options, stopped = scheduled("step"), tmp_path / "stopped"
    waiting = pause(pausing)
    watcher = when(lambda: epochs_done(stopped) >= 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert emobench("bench", pausing, *options, "--results", stopped) == 130
    watcher.join()
    waiting.unlink()

    row = board(stopped)[0]
    folder = stopped / "cells" / row.fit_key
    steps = sorted(int(path.stem.partition("=")[2]) for path in folder.glob("checkpoints/last-*.ckpt"))
    assert len(steps) == 2
    newest = folder / "checkpoints" / f"last-step={steps[-1]}.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    (folder / "log.txt").write_text("")
    assert emobench("bench", pausing, *options, "--results", stopped) == 0
    log = (folder / "log.txt").read_text()
    assert f"last-step={steps[-1]}.ckpt cannot be read" in log
    assert f"going on from last-step={steps[0]}.ckpt" in log
    assert_same(through("step"), outcome(stopped))
    assert read_record(folder / "fit.json").state == "done"


@pytest.mark.slow
def test_a_long_epoch_is_resumed_from_within(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step stands for one every ten minutes; the fit is stopped in the middle of an epoch."""
    from emobench.errors import Interrupted
    from emobench.runner import callbacks
    from emobench.runner import fit as fitting
    from emobench.runner.build import build_data
    from emobench.runner.store import Store
    from emobench.suite.expand import expand
    from emobench.suite.file import load

    monkeypatch.setattr(callbacks, "CHECKPOINT_MINUTES", 1e-9)
    cell = expand(load(tiny, ["data.synthetic-plain.train=160"]), tmp_path).cells[0]
    ends = {}
    for name, stop in {"through": None, "stopped": 23}.items():
        store = Store(tmp_path / name)

        def interrupt(self: Any, trainer: Any, *rest: Any, step: int | None = stop) -> None:
            if trainer.global_step == step:
                raise Interrupted(signal.SIGTERM)

        store.fit_folder(cell.fit_key).mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.setattr(callbacks.Guard, "on_train_batch_start", interrupt, raising=False)
            data = build_data(cell, tmp_path)
            if stop is None:
                fitting.fit(cell, store, data)
            else:
                with pytest.raises(Interrupted):
                    fitting.fit(cell, store, data)
        if stop is not None:
            kept = callbacks.by_step((store.fit_folder(cell.fit_key) / "checkpoints").glob("within-*.ckpt"))
            assert [path.stem for path in kept[:1]] == ["within-step=23"]  # 10 steps an epoch: in the third one
            fitting.fit(cell, store, build_data(cell, tmp_path))
        ends[name] = load_file(store.weights(cell.fit_key)), pd.read_csv(store.fit_folder(cell.fit_key) / "history.csv")
    for key, tensor in ends["through"][0].items():
        torch.testing.assert_close(tensor, ends["stopped"][0][key], rtol=0, atol=0)
    # The training loss of the epoch that was resumed is the mean over its rest.
    pd.testing.assert_frame_equal(
        ends["through"][1].drop(columns="train_loss"), ends["stopped"][1].drop(columns="train_loss")
    )
