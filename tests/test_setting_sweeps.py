"""Sweeps of settings: rows with the keys of rows written by hand, of which one is chosen on validation faces."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from conftest import TINY
from reading import pages

from emobench.errors import SuiteError
from emobench.files import read_json, write_json
from emobench.report.markdown import csv_cell, escape, markdown
from emobench.report.page import Name, Table
from emobench.report.write import write
from emobench.runner.choice import Choice, Setting, groups
from emobench.runner.record import read_record
from emobench.runner.reuse import to_run
from emobench.runner.store import Store, StoredCell, load_board
from emobench.suite.cell import Plan
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.settings import settings

Emobench = Callable[..., int]
TWO = TINY.replace("seeds = [0]", "seeds = [0, 1]").replace("epochs = 4", "epochs = 2")
SWEPT = TWO.replace("lr = 0.02", "lr = { sweep = [1e-7, 0.02] }")
LOW, HIGH = "resnet18[lr=1e-07]", "resnet18[lr=0.02]"
GENERATORS = """
panel = ["judge", "other"]
reader = "reading"
[data.synthetic-plain]
size = 32
train = 80
val = 80
test = 80
[model.judge]
class = "resnet18"
width = 0.0625
epochs = 1
[model.other]
class = "vgg16"
width = 0.0625
batch_norm = true
pool = 1
head = 32
epochs = 1
[model.reading]
class = "cnn21"
padding = true
size = 32
dense = [64, 16]
epochs = 1
[model.vit_cvae]
size = 32
width = 8
latent = 8
dim = 32
depth = 1
heads = 2
perceptual = "none"
epochs = 1

[evaluation]
fidelity = 80
per_emotion = 2
sources = 8
intensity = 1
"""


def planned(path: Path, *overrides: str) -> Plan:
    return expand(load(path, overrides), path.parent)


def written(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text)
    return path


def rows(results: Path, suite: str = "s") -> dict[tuple[str, int], StoredCell]:
    return {(cell.row, cell.seed): cell for cell in load_board(results, suite)}


def states(results: Path, suite: str = "s") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in load_board(results, suite):
        found.setdefault(cell.row, []).append(cell.state)
    return found


def fits(results: Path) -> dict[str, int]:
    """When each network was fitted, ns."""
    return {path.parent.name: path.stat().st_mtime_ns for path in results.glob("cells/*/weights.safetensors")}


def read_the_test(results: Path, cell: StoredCell) -> bool:
    return (Store(results).eval_folder(cell.fit_key, cell.eval_key) / "predictions.parquet").exists()


def page(results: Path, suite: str = "s") -> str:
    return pages(results / suite)


# Names and keys


def test_a_grid_makes_a_row_a_setting_the_last_key_fastest() -> None:
    table = {"lr": {"sweep": [1e-4, 3e-4]}, "augment": {"rotation": {"sweep": [0, 5]}, "hflip": 0.0}, "width": 0.5}
    found = settings("suite s", "resnet18", table)
    assert list(found) == [
        "resnet18[lr=0.0001,augment.rotation=0]",
        "resnet18[lr=0.0001,augment.rotation=5]",
        "resnet18[lr=0.0003,augment.rotation=0]",
        "resnet18[lr=0.0003,augment.rotation=5]",
    ]
    assert found["resnet18[lr=0.0003,augment.rotation=5]"] == {
        "class": "resnet18",
        "lr": 3e-4,
        "augment": {"rotation": 5, "hflip": 0.0},
        "width": 0.5,
    }
    assert table["lr"] == {"sweep": [1e-4, 3e-4]}


def test_nothing_swept_is_the_row_itself() -> None:
    assert settings("suite s", "vit", {"lr": 0.1, "augment": {"hflip": 0.0}}) == {
        "vit": {"lr": 0.1, "augment": {"hflip": 0.0}}
    }


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"lr": {"sweep": []}}, r"lr = {'sweep': \[\]} is no sweep such as lr = { sweep = \[1e-4, 3e-4\] }"),
        ({"lr": {"sweep": 0.1}}, "is no sweep such as"),
        ({"lr": {"sweep": [0.1], "steps": 3}}, "is no sweep such as"),
        ({"lr": {"sweep": [0.1, 0.2, 0.1]}}, "lr sweeps 0.1 2 times; name each value once"),
        ({"lr": {"sweep": ["1", 1]}}, r"two settings would both be called m\[lr=1\]"),
        ({"seeds": {"sweep": [[0], [1]]}}, "seeds is no setting that can be swept; write a row for each value"),
        ({"class": {"sweep": ["vit", "cnn21"]}}, "class is no setting that can be swept"),
        ({"needs": {"guide": {"sweep": ["a", "b"]}}}, "needs.guide is no setting that can be swept"),
    ],
)
def test_what_is_no_sweep_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        settings("suite s", "m", table)


def test_a_setting_has_the_keys_of_the_same_row_written_by_hand(tmp_path: Path) -> None:
    by_hand = {cell.seed: cell for cell in planned(written(tmp_path, TWO)).cells if cell.row == "resnet18"}
    swept = {cell.seed: cell for cell in planned(written(tmp_path, SWEPT)).cells if cell.row == HIGH}
    assert by_hand.keys() == swept.keys() == {0, 1}
    for seed, cell in swept.items():
        assert (cell.fit_key, cell.eval_key) == (by_hand[seed].fit_key, by_hand[seed].eval_key)
        assert (cell.model, cell.setting_of) == ("resnet18", "resnet18")


def test_values_are_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"\[model.resnet18\[lr=fast\]\]: lr = 'fast'"):
        planned(written(tmp_path, TWO.replace("lr = 0.02", 'lr = { sweep = [0.02, "fast"] }')))


@pytest.mark.parametrize("place", ["data.synthetic-plain.train", "trainer.precision"])
def test_only_settings_of_models_are_swept(tmp_path: Path, place: str) -> None:
    with pytest.raises(SuiteError, match=f"{place.split('.')[-1]} cannot be swept: settings of a model are"):
        planned(written(tmp_path, TWO), f"{place}={{ sweep = [80, 160] }}")


def test_the_command_line_sweeps_a_rows_key(tmp_path: Path) -> None:
    plan = planned(written(tmp_path, TWO), "model.resnet18.lr={ sweep = [1e-7, 0.02] }")
    assert plan.suite == "s+model.resnet18.lr=sweep[1e-07,0.02]"  # readable, and a folder on every system
    assert list(dict.fromkeys(cell.row for cell in plan.cells)) == [LOW, HIGH, "control:permuted"]
    assert [cell.fit_key for cell in plan.cells] == [cell.fit_key for cell in planned(written(tmp_path, SWEPT)).cells]


def test_one_key_set_twice_is_refused(emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("--set", "model.resnet18.lr={ sweep = [1e-4, 3e-4] }")
    code = emobench("bench", written(tmp_path, TWO), *sweep, "--set", "model.resnet18.lr=0.1", "--results", tmp_path)
    assert code == 2
    assert "one key, set twice" in capsys.readouterr().err


# Who may not be swept


def test_a_row_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"two rows would both be called resnet18\[lr=0.02\]"):
        planned(written(tmp_path, SWEPT + f'[model."{HIGH}"]\nclass = "resnet18"\n'))


@pytest.mark.parametrize(
    ("row", "more", "said"),
    [
        ("judge", "", "judge is a judge, and a sweep of settings"),
        ("reading", "", "reading is the reader, and a sweep of settings"),
        (
            "guiding",
            '[model.guiding]\nclass = "cnn21"\npadding = true\nsize = 32\n'
            '[model.cvae]\nsize = 32\nneeds = { guide = "guiding" }\n',
            "guiding is the guide of cvae, and a sweep of settings",
        ),
    ],
)
def test_nobody_rests_on_a_sweep(tmp_path: Path, row: str, more: str, said: str) -> None:
    path = written(tmp_path, GENERATORS + more)
    with pytest.raises(SuiteError, match=said) as raised:
        planned(path, f"model.{row}.lr={{ sweep = [1e-3, 1e-2] }}")
    assert "write the setting that it chose as a row of its own" in str(raised.value)


def test_nobody_rests_on_a_setting_by_its_name(tmp_path: Path) -> None:
    mean = f'[model.mean]\nclass = "ensemble"\nneeds = {{ members = ["{HIGH}"] }}\n'
    with pytest.raises(SuiteError, match=r"is the members of mean, and a setting of the sweep resnet18"):
        planned(written(tmp_path, SWEPT + mean))


def test_a_default_judge_is_not_made_beside_a_sweep_of_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, GENERATORS.replace('panel = ["judge", "other"]', 'panel = ["resnet18", "other"]'))
    text = path.read_text().replace("[model.judge]", "[model.resnet18]").replace('class = "resnet18"\n', "")
    path.write_text(text.replace("width = 0.0625\n", "width = { sweep = [0.0625, 0.125] }\n", 1))
    with pytest.raises(SuiteError, match="resnet18 is a judge, and a sweep of settings"):
        planned(path)


@pytest.mark.parametrize("monitor", [True, False])
def test_a_classifier_without_a_validation_score_is_not_swept(tmp_path: Path, monitor: bool) -> None:
    if monitor:
        text, said = SWEPT.replace('patience = "none"', 'patience = "none"\nmonitor = "none"'), "chooses no epoch"
    else:
        mean = '[model.one]\nclass = "resnet18"\n[model.mean]\nclass = "ensemble"\n'
        text = TWO + mean + 'needs = { members = ["resnet18", "one"] }\ntrainer.precision = { sweep = ["32-true"] }\n'
        said = "is not trained"
    with pytest.raises(SuiteError, match=said):
        planned(written(tmp_path, text))


# The choice


def choice(*settings: Setting) -> Choice:
    return Choice("m", "d", 32, list(settings))


def test_the_best_mean_is_chosen_and_of_equal_ones_the_first() -> None:
    first = Setting("a", {0: 0.1, 1: 0.2, 2: 0.3})
    same = Setting("b", {0: 0.3, 1: 0.2, 2: 0.1})  # summed in this order the last bit would differ
    assert sum(first.scores.values()) != sum(same.scores.values())
    assert choice(first, same).chosen == "a"
    assert choice(same, first).chosen == "b"
    assert choice(first, same, Setting("c", {0: 0.1, 1: 0.2, 2: 0.31})).chosen == "c"


def test_nothing_is_chosen_before_all_are_fitted() -> None:
    found = choice(Setting("a", {0: 0.9}), Setting("b", {}, pending=[0]))
    assert found.pending
    assert found.chosen is None


def test_a_setting_without_all_its_seeds_is_not_chosen() -> None:
    part = Setting("a", {0: 0.9}, failed={1: "diverged"})
    assert choice(part, Setting("b", {0: 0.1, 1: 0.1})).chosen == "b"
    assert choice(part).chosen is None


def test_a_setting_is_chosen_for_each_dataset(tmp_path: Path) -> None:
    more = '[data.more]\nclass = "synthetic-plain"\nsize = 32\ntrain = 160\nval = 80\ntest = 80\n'
    found = groups(planned(written(tmp_path, SWEPT + more)).cells)
    cells = [[(cell.dataset, cell.row, cell.seed) for cell in group] for group in found]
    assert cells == [
        [(name, row, seed) for seed in (0, 1) for row in (LOW, HIGH)] for name in ("synthetic-plain", "more")
    ]


def test_the_permuted_control_is_a_row_by_hand_where_there_is_one(tmp_path: Path) -> None:
    """A setting may be one with which nothing is learned, and then a control with it says nothing."""
    larger = '[model.larger]\nclass = "resnet18"\nwidth = 0.125\nlr = 0.01\n'
    alone, beside = (planned(written(tmp_path, text)).cells[-1] for text in (SWEPT, SWEPT + larger))
    assert (alone.control, alone.fit["arguments"]["lr"], alone.setting_of) == ("permuted", 1e-7, "")
    assert (beside.control, beside.fit["arguments"]["lr"]) == ("permuted", 0.01)


# A sweep through the real command


@pytest.fixture(scope="module")
def swept_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from emobench.cli import main

    folder = tmp_path_factory.mktemp("swept")
    path = written(folder, SWEPT)
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(path), "--results", str(folder / "results")])
    assert not stop.value.code
    return folder


@pytest.fixture
def swept(swept_once: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the suite and its results."""
    shutil.copytree(swept_once, tmp_path, dirs_exist_ok=True)
    path = results_file(tmp_path / "results")
    write_json(path, {**read_json(path), "file": "s.toml"})
    return tmp_path / "s.toml", tmp_path / "results"


def results_file(results: Path) -> Path:
    return results / "s" / "suite.json"


def score(results: Path, cell: StoredCell) -> float:
    fit = read_record(Store(results).fit_folder(cell.fit_key) / "fit.json").fit
    assert fit is not None
    assert fit.validation is not None
    return fit.validation.macro_f1


def with_score(results: Path, cell: StoredCell, macro_f1: float) -> None:
    """Make a fit one whose network did so well on validation faces."""
    path = Store(results).fit_folder(cell.fit_key) / "fit.json"
    record = read_record(path)
    assert record.fit is not None
    assert record.fit.validation is not None
    validation = record.fit.validation.model_copy(update={"macro_f1": macro_f1})
    changed = record.model_copy(update={"fit": record.fit.model_copy(update={"validation": validation})})
    changed.write(path)


def best_of(results: Path) -> tuple[str, str]:
    """The chosen setting and the other, by the records of the fits."""
    cells = rows(results)
    means = {row: fmean(score(results, cells[row, seed]) for seed in (0, 1)) for row in (LOW, HIGH)}
    return (LOW, HIGH) if means[LOW] >= means[HIGH] else (HIGH, LOW)


def test_only_the_chosen_setting_reads_the_test_split(swept: tuple[Path, Path]) -> None:
    _, results = swept
    best, other = best_of(results)
    assert states(results) == {best: ["done"] * 2, other: ["not chosen"] * 2, "control:permuted": ["done"]}
    for (row, _), cell in rows(results).items():
        assert read_the_test(results, cell) == (row != other)
        assert (results / "s" / "cells" / cell.eval_key / "predictions.parquet").exists() == (row != other)


def test_the_board_has_the_validation_scores_and_one_setting(swept: tuple[Path, Path]) -> None:
    _, results = swept
    best, other = best_of(results)
    cells = rows(results)
    text = page(results)
    assert "Complete: 5 of 5 cells done." in text
    table = text.partition("### Settings of resnet18")[2].partition("###")[0]
    for row, outcome in ((best, "**chosen**"), (other, "not chosen")):
        mean = fmean(score(results, cells[row, seed]) for seed in (0, 1))
        assert f"| {escape(row)} | {mean:.3f} | 2 | {outcome} |" in table
    first = text.partition("## Recognition")[2].partition("###")[0]
    assert escape(best) in first
    assert escape(other) not in first
    found = read_json(results / "s" / "metrics.json")
    assert [(each["row"], each["seeds"], each["chosen"]) for each in found["settings"]] == [
        (LOW, 2, best == LOW),
        (HIGH, 2, best == HIGH),
    ]
    with open(results / "s" / "metrics.csv", newline="") as file:
        values = [row for row in csv.DictReader(file) if row["variant"] == other]
    assert {row["value"] for row in values} == {"n/a"}
    assert all(row["reason"].startswith("not chosen: validation macro F1") for row in values)


def test_names_are_safe_in_folders_tables_and_pages(swept: tuple[Path, Path]) -> None:
    _, results = swept
    for path in results.rglob("*"):
        assert not set(path.relative_to(results).as_posix()) & set('[]:*?"<>|'), path
    (row,) = settings("suite s", "=m", {"weights": {"sweep": ["a/../b|c <x>\n=1+1"]}})
    (line,) = markdown([Table([], [[(Name(row),)]])]).splitlines()[2:]
    assert line == r"| \=m\[weights=a/../b\|c &lt;x&gt; =1+1\] |"
    assert csv_cell(row) == "'=m[weights=a/../b|c <x> =1+1]"  # no formula to a spreadsheet


def test_it_is_whole_when_run_again(
    emobench: Emobench, swept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, results = swept
    before = fits(results)
    assert to_run(results, planned(path), "skip") == []
    assert emobench("bench", path, "--results", results) == 0
    assert "5 of 5 cells are done, 2 of them settings that are not chosen" in capsys.readouterr().out
    assert fits(results) == before


def test_an_interrupted_sweep_fits_what_is_missing_and_chooses_then(
    emobench: Emobench, swept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, results = swept
    best, _ = best_of(results)
    numbers = (results / "s" / "metrics.json").read_text()
    last = rows(results)[best, 1]
    for seed in (0, 1):
        shutil.rmtree(Store(results).eval_folder(*(getattr(rows(results)[best, seed], key) for key in KEYS)))
    shutil.rmtree(Store(results).fit_folder(last.fit_key))
    shutil.rmtree(results / "s" / "cells")
    assert {state for row, of in states(results).items() if row != "control:permuted" for state in of} == {"pending"}
    write(results, "s")
    assert "A setting is chosen when all are fitted" in page(results)
    before = fits(results)
    assert emobench("bench", path, "--results", results) == 0
    assert {key: time for key, time in fits(results).items() if key in before} == before
    assert (results / "s" / "metrics.json").read_text() == numbers
    assert states(results)[best] == ["done"] * 2


KEYS = ("fit_key", "eval_key")


def test_a_setting_that_is_added_later_is_chosen_anew(
    emobench: Emobench, swept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, results = swept
    best, other = best_of(results)
    for seed in (0, 1):  # the network of the old choice turns out to be worse than any other
        with_score(results, rows(results)[best, seed], 0.0)
        with_score(results, rows(results)[other, seed], 0.0)
    before, old = fits(results), rows(results)
    path.write_text(path.read_text().replace("[1e-7, 0.02]", "[1e-7, 0.02, 0.03]"))
    assert emobench("bench", path, "--results", results) == 0
    new = "resnet18[lr=0.03]"
    assert states(results) == {
        LOW: ["not chosen"] * 2,
        HIGH: ["not chosen"] * 2,
        new: ["done"] * 2,
        "control:permuted": ["done"],
    }
    assert {key: time for key, time in fits(results).items() if key in before} == before
    assert len(fits(results)) == len(before) + 2
    assert "the test split was read with it earlier" in str(rows(results)[best, 0].reason)
    assert "earlier" not in str(rows(results)[other, 0].reason)
    assert read_the_test(results, old[best, 0])  # stays recorded
    table = page(results).partition("### Settings")[2].partition("###")[0].splitlines()
    assert [line.endswith("which is kept and not shown |") for line in table if line.startswith("| resnet18")] == [
        row == best for row in (LOW, HIGH, new)
    ]
    capsys.readouterr()
    assert emobench("bench", path, "--results", results) == 0
    assert "7 of 7 cells are done, 4 of them settings that are not chosen" in capsys.readouterr().out


def test_a_setting_that_fails_leaves_the_choice_to_the_others(emobench: Emobench, tmp_path: Path) -> None:
    text = TINY.replace("epochs = 4", "epochs = 1").replace("lr = 0.02", "lr = { sweep = [0.02, 1e30] }")
    path, results = written(tmp_path, text), tmp_path / "results"
    assert emobench("bench", path, "--results", results) == 1
    assert states(results) == {"resnet18[lr=1e+30]": ["diverged"], HIGH: ["done"], "control:permuted": ["done"]}
    board = page(results)
    assert r"| resnet18\[lr=1e+30\] | n/a | 0 of 1 | seed 0 diverged" in board
    assert rf"| resnet18\[lr=0.02\] | {score(results, rows(results)[HIGH, 0]):.3f} | 1 | **chosen** |" in board


STOPPED = """
import os
import signal
from typing import Any

from emobench.classifiers.resnet import ResNet18


class Stopped(ResNet18):
    name = "stopped"

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.hparams["lr"] == 0.02:
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_without_a_setting_that_was_stopped_none_is_chosen_and_the_sweep_ends(
    emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED)
    text = TINY.replace("epochs = 4", "epochs = 1").replace("lr = 0.02", "lr = { sweep = [1e-3, 0.02] }")
    path = written(tmp_path, text.replace("[model.resnet18]", '[model.m]\nclass = "stopped.py:Stopped"'))
    results = tmp_path / "results"
    assert emobench("bench", path, "--results", results) == 1
    found = states(results)
    assert (found["m[lr=0.001]"], found["m[lr=0.02]"]) == (["pending"], ["interrupted"])
    assert "m[lr=0.001] on synthetic-plain, seed 0: pending" in capsys.readouterr().out
    assert not read_the_test(results, rows(results)["m[lr=0.001]", 0])
    assert "fitted; a setting is chosen when all are" in page(results)


def test_one_evaluation_serves_a_row_by_hand_too(emobench: Emobench, swept: tuple[Path, Path]) -> None:
    """A row by hand with the values of the setting that is not chosen is measured, and the setting still is not."""
    path, results = swept
    best, other = best_of(results)
    value = other.removeprefix("resnet18[lr=").removesuffix("]")
    row = TWO.partition("[model.resnet18]")[2].replace("lr = 0.02", f"lr = {value}")
    path.write_text(f'{path.read_text()}\n[model.mine]\nclass = "resnet18"\n{row}')
    before = fits(results)
    assert emobench("bench", path, "--results", results) == 0
    after = fits(results)
    assert {key: after[key] for key in before} == before
    (control,) = after.keys() - before.keys()  # the row by hand is permuted now, since a setting may learn nothing
    assert read_record(Store(results).fit_folder(control) / "fit.json").cell.control == "permuted"
    found = states(results)
    assert (found["mine"], found[other], found[best]) == (["done"] * 2, ["not chosen"] * 2, ["done"] * 2)


def test_a_clone_comes_to_the_same_choice(emobench: Emobench, swept: tuple[Path, Path]) -> None:
    path, results = swept
    best, other = best_of(results)
    numbers, text = (results / "s" / "metrics.csv").read_text(), page(results)
    shutil.rmtree(results / "cells")
    write(results, "s")
    assert states(results) == {best: ["done"] * 2, other: ["not chosen"] * 2, "control:permuted": ["done"]}
    assert (results / "s" / "metrics.csv").read_text() == numbers
    assert page(results) == text
    assert to_run(results, planned(path), "trust") == []
    assert emobench("bench", path, "--results", results, "--on-existing", "trust") == 0
    assert fits(results) == {}
    assert len(to_run(results, planned(path), "skip")) == 5  # its own store holds nothing


def test_redo_fits_and_measures_again(emobench: Emobench, swept: tuple[Path, Path]) -> None:
    path, results = swept
    best, other = best_of(results)
    before, old = fits(results), rows(results)
    assert emobench("bench", path, "--results", results, "--on-existing", "redo") == 0
    after = fits(results)
    assert before.keys() == after.keys()
    assert all(after[key] > before[key] for key in before)
    assert states(results) == {best: ["done"] * 2, other: ["not chosen"] * 2, "control:permuted": ["done"]}
    new = rows(results)[best, 0].record
    was = old[best, 0].record
    assert new is not None
    assert was is not None
    assert new.finished != was.finished


# Generators


def test_settings_of_a_generator_are_all_shown_and_none_is_chosen(emobench: Emobench, tmp_path: Path) -> None:
    path, results = written(tmp_path, GENERATORS), tmp_path / "results"
    sweep = ("--set", "model.vit_cvae.lr={ sweep = [1e-3, 2e-3] }")
    assert emobench("bench", path, *sweep, "--results", results, "--name", "two") == 0
    found = states(results, "two")
    assert (found["vit_cvae[lr=0.001]"], found["vit_cvae[lr=0.002]"]) == (["done"], ["done"])
    text = page(results, "two")
    assert "All 2 settings of vit_cvae are shown and none is chosen" in text
    assert "### Settings of" not in text
    table = text.partition("## Generation on")[2].partition("###")[0]
    assert all(escape(f"vit_cvae[lr={lr}]") in table for lr in (0.001, 0.002))
    assert read_json(results / "two" / "metrics.json")["settings"] == []
