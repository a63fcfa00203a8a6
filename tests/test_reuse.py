"""What is here is not made again, and what was made with networks that are gone or others by now is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TINY
from made_records import hand_over
from safetensors.torch import load_file, save_file

import emobench as package
from emobench.cli import main
from emobench.errors import Interrupted, StoreError
from emobench.runner.fit import fit
from emobench.runner.record import Card, Evaluation, Record, read_record
from emobench.runner.reuse import made_with
from emobench.runner.store import Store, StoredCell, intact, load_board, sha256_of
from emobench.suite.expand import expand
from emobench.suite.file import load

Emobench = Callable[..., int]
MEAN = '\n[model.mean]\nclass = "ensemble"\nneeds = { members = ["resnet18", "other"] }\n'
OTHER = '\n[model.other]\nclass = "resnet18"\nwidth = 0.0625\nbatch = 16\nepochs = 1\n'


def rows(results: Path, suite: str) -> dict[str, StoredCell]:
    return {row.row: row for row in load_board(results, suite)}


def weights(results: Path, row: StoredCell) -> Path:
    return Store(results).weights(row.fit_key)


def finished(row: StoredCell) -> Record:
    assert row.state == "done", row.reason
    assert row.record is not None
    return row.record


def evaluated(row: StoredCell) -> Evaluation:
    found = finished(row).evaluation
    assert found is not None
    return found


def metrics(row: StoredCell) -> Any:
    """All that was measured of a row, speeds aside."""
    found = evaluated(row)
    return {name: (of.values, of.per_emotion) for name, of in found.tracks.items()}, found.references


def reader(row: StoredCell) -> Card:
    found = evaluated(row).reader
    assert found is not None
    return found


def fit_record(results: Path, fit_key: str) -> Record:
    return read_record(Store(results).fit_folder(fit_key) / "fit.json")


@pytest.fixture(scope="module")
def pair_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two classifiers and their ensemble, run."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "tiny.toml").write_text(TINY.replace("epochs = 4", "epochs = 1") + OTHER + MEAN)
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(folder / "tiny.toml"), "--results", str(folder / "results")])
    assert not stop.value.code
    return folder


@pytest.fixture
def pair(pair_once: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the suite and its results."""
    shutil.copytree(pair_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.toml", tmp_path / "results"


def elsewhere(store: Store, fit_key: str) -> None:
    """Make a network as another machine would have trained it, with slightly other weights."""
    path = store.weights(fit_key)
    state = {name: value * 1.01 if value.is_floating_point() else value for name, value in load_file(path).items()}
    save_file(state, path)


def lose_evaluation(results: Path, suite: str, row: StoredCell) -> None:
    shutil.rmtree(Store(results).eval_folder(row.fit_key, row.eval_key))
    shutil.rmtree(results / suite / "cells", ignore_errors=True)


def test_records_name_the_networks_behind_them(pair: tuple[Path, Path]) -> None:
    _, results = pair
    board = rows(results, "tiny")
    hashes = {board[name].fit_key: sha256_of(weights(results, board[name])) for name in ("resnet18", "other")}
    assert finished(board["mean"]).made_with == hashes
    own = board["other"].fit_key
    assert finished(board["other"]).made_with == {own: hashes[own]}
    fit = fit_record(results, own).fit
    assert fit is not None
    assert fit.weights is not None
    assert fit.weights.sha256 == hashes[own]


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_network_that_is_needed_and_gone_is_trained_again(
    emobench: Emobench, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    tiny, results = pair
    before = rows(results, "tiny")
    path = weights(results, before["other"])
    state = {name: value.clone() for name, value in load_file(path).items()}  # the file's own change with it
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    capsys.readouterr()
    assert emobench("bench", tiny, "--results", results) == 0
    assert "4 of 4 cells are done" in capsys.readouterr().out  # nothing needs it
    lose_evaluation(results, "tiny", before["mean"])
    assert emobench("bench", tiny, "--results", results) == 0
    said = capsys.readouterr().out
    assert "other on synthetic-plain, seed 0: its weights are gone or cut short, and others need them" in said
    assert "resnet18 on" not in said
    after = rows(results, "tiny")
    for name, tensor in load_file(path).items():
        assert torch.equal(tensor, state[name])  # the same seed on the same machine
    assert (finished(after["other"]).finished or "") >= (finished(before["other"]).finished or "9")
    assert metrics(after["mean"]) == metrics(before["mean"])
    assert read_record(Path(after["other"].folder or "", "result.json")) == after["other"].record


def test_what_was_made_with_other_weights_is_made_again_and_said(
    emobench: Emobench, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny, results = pair
    original = rows(results, "tiny")
    elsewhere(Store(results), original["other"].fit_key)
    capsys.readouterr()
    assert emobench("bench", tiny, "--results", results) == 0  # both are measured with the weights that are here
    said = capsys.readouterr().out
    assert "mean on synthetic-plain, seed 0: it was evaluated with other weights of other than are here now" in said
    assert "other on synthetic-plain, seed 0: it was evaluated with other weights of other than are here now" in said
    foreign = rows(results, "tiny")
    assert finished(foreign["mean"]).made_with != finished(original["mean"]).made_with

    weights(results, foreign["other"]).unlink()
    tiny.write_text(tiny.read_text() + MEAN.replace("model.mean", "model.second").replace('"resnet18", ', ""))
    assert emobench("bench", tiny, "--results", results) == 0
    said = capsys.readouterr().out
    assert "other on synthetic-plain, seed 0: its weights are gone or cut short, and others need them" in said
    assert "mean on synthetic-plain, seed 0: it was evaluated with other weights of other than are here now" in said
    again = rows(results, "tiny")
    for name in ("mean", "other"):  # trained here, by the same seed
        one, other = (pd.read_parquet(Path(board[name].folder, "predictions.parquet")) for board in (original, again))  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(one, other)
        assert finished(again[name]).made_with == finished(original[name]).made_with
    mean_of_one, one = (evaluated(again[name]).tracks["recognition"].values["accuracy"] for name in ("second", "other"))
    assert mean_of_one == one
    capsys.readouterr()
    assert emobench("bench", tiny, "--results", results) == 0
    assert "5 of 5 cells are done" in capsys.readouterr().out


def test_records_of_an_older_emobench_are_compared_by_when_they_were_made(
    emobench: Emobench, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny, results = pair
    for path in [*results.glob("cells/*/fit.json"), *results.glob("cells/*/*/result.json")]:
        record = read_record(path)
        assert record.fit is not None
        older = {"fit": record.fit.model_copy(update={"weights": None}), "made_with": {}}
        record.model_copy(update=older).write(path)
    capsys.readouterr()
    assert emobench("bench", tiny, "--dry-run", "--results", results) == 0
    assert "4 cells, 0 to run, 4 done" in capsys.readouterr().out
    fit_json = Store(results).fit_folder(rows(results, "tiny")["other"].fit_key) / "fit.json"
    read_record(fit_json).model_copy(update={"finished": "2999-01-01T00:00:00+00:00"}).write(fit_json)
    assert emobench("bench", tiny, "--dry-run", "--results", results) == 0
    said = capsys.readouterr().out
    assert "4 cells, 2 to run, 2 done" in said
    assert "again: mean on synthetic-plain, seed 0: it was evaluated with other weights of other" in said


def test_a_cut_network_is_refused_with_its_file(pair: tuple[Path, Path]) -> None:
    _, results = pair
    path = weights(results, rows(results, "tiny")["other"])
    assert intact(path)
    for size in (path.stat().st_size - 1, 100, 4, 0):
        path.write_bytes(path.read_bytes()[:size])
        assert not intact(path)
        with pytest.raises(StoreError, match="gone or cut short"):
            package.load(results, "tiny", "other")


@pytest.fixture
def made(generated: Path, made_suite: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The judged suite's store, and a suite of it with one generator that a guide helps to train."""
    results = tmp_path / "results"
    shutil.copytree(generated, results)
    suite = tmp_path / "made.toml"
    hand_over(results, "made", suite)
    parts = made_suite.read_text().split("\n[")
    suite.write_text("\n[".join(part for part in parts if not part.startswith(("model.s", "model.d", "model.vit_"))))
    return suite, results


@pytest.mark.parametrize("how", ["skip", "trust"])
def test_a_damaged_record_of_a_needed_fit_is_made_again(
    emobench: Emobench, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """The network that others need is fitted again, and what was made with other weights than it now has too."""
    suite, results = pair
    before = rows(results, "tiny")
    needed = before["resnet18"]
    store = Store(results)
    record = store.fit_folder(needed.fit_key) / "fit.json"
    record.write_bytes(record.read_bytes()[:100])
    lose_evaluation(results, "tiny", before["mean"])
    assert emobench("bench", suite, "--results", results, "--on-existing", how) == 0
    said = capsys.readouterr()
    assert "again: resnet18 on synthetic-plain, seed 0: the record of its fit is " in said.out
    assert "which did not finish" not in said.out + said.err
    after = rows(results, "tiny")
    assert {row.state for row in after.values()} == {"done"}
    assert metrics(after["resnet18"]) == metrics(before["resnet18"])
    assert metrics(after["mean"]) == metrics(before["mean"])
    assert fit_record(results, needed.fit_key).state == "done"


def test_a_guide_with_other_weights_trains_its_generator_again(
    emobench: Emobench, made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    suite, results = made
    before = rows(results, "made")
    elsewhere(Store(results), before["vgg16"].fit_key)
    assert emobench("bench", suite, "--dry-run", "--results", results) == 0
    said = capsys.readouterr().out
    assert "again: cvae on synthetic-plain, seed 0: it was trained with other weights of vgg16 than are here" in said
    assert "again: vgg16 on synthetic-plain, seed 0: it was evaluated with other weights of vgg16" in said
    assert "2 to run" in said
    fit_before = weights(results, before["cvae"]).read_bytes()
    assert emobench("bench", suite, "--results", results) == 0
    after = rows(results, "made")
    assert weights(results, before["cvae"]).read_bytes() != fit_before
    guide = {after["vgg16"].fit_key: sha256_of(weights(results, after["vgg16"]))}
    assert finished(after["cvae"]).made_with.items() > guide.items()
    assert fit_record(results, after["cvae"].fit_key).made_with == guide


def test_a_judge_with_other_weights_judges_again(
    emobench: Emobench, made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    suite, results = made
    before = rows(results, "made")
    read_by = before["cnn21"].fit_key
    fit = fit_record(results, read_by).fit
    assert fit is not None
    assert fit.weights is not None
    assert reader(before["cvae"]).sha256 == fit.weights.judge
    weights(results, before["cnn21"]).unlink()
    judge = Store(results).fit_folder(read_by) / "judge.safetensors"
    lose_evaluation(results, "made", before["cvae"])
    assert emobench("bench", suite, "--dry-run", "--results", results) == 0
    assert "1 to run" in capsys.readouterr().out  # the form that judges is enough
    judge.write_bytes(judge.read_bytes()[:-1])
    assert emobench("bench", suite, "--results", results) == 0
    assert "cnn21 on synthetic-plain, seed 0: its weights are gone or cut short" in capsys.readouterr().out
    after = rows(results, "made")
    assert reader(after["cvae"]) == reader(before["cvae"])
    assert metrics(after["cvae"]) == metrics(before["cvae"])

    elsewhere(Store(results), read_by)
    assert emobench("bench", suite, "--results", results) == 0
    said = capsys.readouterr().out
    assert "cvae on synthetic-plain, seed 0: it was evaluated with other weights of cnn21" in said
    assert "cnn21 on synthetic-plain, seed 0: it was evaluated with other weights of cnn21" in said
    last = rows(results, "made")["cvae"]
    assert reader(last).sha256 == sha256_of(judge) != reader(after["cvae"]).sha256
    fed, former = (evaluated(row).tracks["generation"].values["fed"] for row in (last, after["cvae"]))
    assert fed != former


@pytest.mark.slow
def test_a_fit_does_not_go_on_from_checkpoints_of_another_guide(
    made_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from emobench.runner import callbacks
    from emobench.runner import fit as fitting
    from emobench.runner.build import build_data

    settings = ["model.cvae.epochs=2", "data.synthetic-plain.train=160"]
    cells = {cell.row: cell for cell in expand(load(made_suite, settings), tmp_path).cells}
    cell, guide, store = cells["cvae"], cells["vgg16"], Store(tmp_path / "results")
    for each in (cell, guide):
        store.fit_folder(each.fit_key).mkdir(parents=True)
    fit(guide, store, build_data(guide, tmp_path))

    def interrupt(self: Any, trainer: Any, module: Any, images: Any, step: int) -> None:
        if (trainer.current_epoch, step) == (1, 1):
            raise Interrupted(15)

    for same in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(callbacks.Guard, "on_train_batch_start", interrupt, raising=False)
            with pytest.raises(Interrupted):
                fit(cell, store, build_data(cell, tmp_path))
        capsys.readouterr()
        if not same:
            elsewhere(store, guide.fit_key)
        fit(cell, store, build_data(cell, tmp_path))
        assert ("going on from" in capsys.readouterr().out) == same
        networks = fit_record(store.results, cell.fit_key).made_with
        assert networks == made_with(store, cell, own=False) == {guide.fit_key: sha256_of(store.weights(guide.fit_key))}
        assert not (store.fit_folder(cell.fit_key) / fitting.MADE_WITH).exists()
