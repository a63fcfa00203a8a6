"""`--budget`: a suite fitted to a time by what this machine was measured to take."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GENERATORS_SUITE, TINY, TINY_DATA
from reading import pages
from safetensors.torch import load_file
from toys import ENGINE

from emobench.classifiers.resnet import ResNet18
from emobench.commands.budget import fit, place_of, warn
from emobench.errors import EmobenchError, SuiteError
from emobench.files import SCHEMA_VERSION
from emobench.recipe import Execution
from emobench.runner import calibrate
from emobench.runner import trial as trials
from emobench.runner.budget import VALIDATION, execution_of, fitted, paid_first, table_of, times_of
from emobench.runner.calibrate import (
    _best,
    _that_fits,
    keep_as,
    kind,
    known,
    memory_of,
    settings_of,
)
from emobench.runner.duration import elapsed
from emobench.runner.machine import Machines, cores, lives
from emobench.runner.record import read_record
from emobench.runner.run import Job, run
from emobench.runner.store import Store
from emobench.runner.threads import Packing
from emobench.runner.trial import Calibration, Settings, Trial
from emobench.suite.budget import PlanFile, RowPlan, planned, read, seconds_of, two_digits, write
from emobench.suite.cell import Plan
from emobench.suite.expand import expand
from emobench.suite.file import Suite, load

Emobench = Callable[..., int]
ALONE = Packing(1, 2, Machines(2, 0, 8))
LONG = GENERATORS_SUITE.replace("epochs = 1\n", "epochs = 50\n").replace('epochs = 50\npatience = "none"', "epochs = 2")


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Plan]:
    """Judges, a guide, and generators of 50 epochs each."""
    folder = tmp_path_factory.mktemp("budget")
    (folder / "long.toml").write_text(LONG)
    suite = load(folder / "long.toml")
    return suite, expand(suite, folder)


def measured(plan: Plan, seconds: float = 1e-3, **of_rows: float) -> dict[str, Calibration]:
    """Every cell takes so many seconds a face, rows that are named others, and nothing for drawing."""
    found = {}
    for cell in plan.cells:
        settings = None
        if cell.trains:
            settings = Settings(cell.trainer["precision"], cell.fit["recipe"]["batch"], 1)
        found[cell.fit_key] = Calibration(settings, of_rows.get(cell.row, seconds), 1, 1.0, 1.0)
    return found


@pytest.mark.parametrize(
    ("said", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1h0m5s", 3605)]
)
def test_a_budget_is_a_time(said: str, seconds: int) -> None:
    assert seconds_of(said) == seconds


@pytest.mark.parametrize("said", ["", "2", "2 h", "-1h", "0s", "1.5h", "30m2h", "two hours"])
def test_what_is_no_time_is_refused(said: str) -> None:
    with pytest.raises(SuiteError, match="no time such as 2h"):
        seconds_of(said)


def test_budgets_have_two_digits_and_are_never_rounded_up() -> None:
    assert [two_digits(each) for each in (0.9, 9.99, 99.9, 100, 129, 1999, 781_250)] == [
        0, 9, 99, 100, 120, 1900, 780_000
    ]  # fmt: skip


def test_judges_reader_and_guides_are_paid_first_and_the_rest_is_shared(generators: tuple[Suite, Plan]) -> None:
    suite, plan = generators
    found = measured(plan)
    rows = {cell.row for cell in plan.cells if cell.fit_key in paid_first(suite, plan.cells)}
    assert {"resnet18", "vit", "cnn21", "vgg16"} == rows - {"control:permuted"}
    times = times_of(plan, found)
    first = {table_of(c, suite, plan.cells) for c in plan.cells if c.fit_key in paid_first(suite, plan.cells)}
    fixed = sum(times[cell.fit_key].both for cell in plan.cells if table_of(cell, suite, plan.cells) in first)
    others = sum(times[cell.fit_key].both for cell in plan.cells) - fixed
    budget = round(fixed + 0.5 * others)
    made = fitted(suite, plan, found, ALONE, f"{budget}s")
    assert not made.notes
    assert not first & {name for name, row in made.plan.model.items() if row.epochs or row.steps}
    again = expand(planned(suite, made.plan), Path("nowhere"))
    by_row = {cell.row: cell for cell in again.cells}
    shares = {name: row.epochs / 50 for name, row in made.plan.model.items() if row.epochs is not None}
    assert len(set(shares.values())) == 1 < len(shares)
    for name in shares:
        assert by_row[name].fit["recipe"]["epochs"] == made.plan.model[name].epochs
    for row in first:
        assert by_row[str(row)].fit_key == next(c.fit_key for c in plan.cells if c.row == row)
    after = times_of(again, {cell.fit_key: dataclasses.replace(found[old.fit_key]) for cell, old in zip(
        again.cells, plan.cells, strict=True
    )})  # fmt: skip
    takes = elapsed(again.cells, {name: each.both for name, each in after.items()}, 1)
    epoch = others / 50
    assert budget - 2 * epoch < takes <= budget
    assert made.seconds == pytest.approx(takes)


def test_nothing_gets_more_than_its_own_recipe_nor_less_than_an_epoch(generators: tuple[Suite, Plan]) -> None:
    suite, plan = generators
    found = measured(plan)
    rich = fitted(suite, plan, found, ALONE, "99h")
    assert rich.share == 1
    assert rich.plan.model == {}
    poor = fitted(suite, plan, found, ALONE, "1s")
    epochs = {name: row.epochs for name, row in poor.plan.model.items() if row.epochs is not None}
    assert {"cvae", "vit_cvae"} <= epochs.keys()
    assert set(epochs.values()) == {1}
    assert sum("would get less than 1 epoch, and gets that" in note for note in poor.notes) == len(epochs)
    assert "judges, reader and guides at their full recipe" in poor.notes[-1]


def test_validation_and_each_evaluation_take_time(generators: tuple[Suite, Plan]) -> None:
    _, plan = generators
    cell = next(cell for cell in plan.cells if cell.row == "cvae")
    calibrated = Calibration(Settings("32-true", 32, 1), 1e-3, 1, 1.0, 1.0, 0.1, 0.2)
    alone = times_of(dataclasses.replace(plan, cells=[cell]), {cell.fit_key: calibrated})[cell.fit_key]
    assert plan.validation == {"synthetic-plain": 80}
    assert alone.fit == pytest.approx(50 * (1280 + VALIDATION * 80) * 1e-3)
    second = dataclasses.replace(cell, evaluation={**cell.evaluation, "size": 64})
    twice = dataclasses.replace(plan, cells=[cell, second, second])
    both = times_of(twice, {cell.fit_key: calibrated})[cell.fit_key]
    assert both.fit == alone.fit
    assert both.rest == pytest.approx(2 * alone.rest)
    assert alone.rest > 0.1 * 640
    judges = {fit_key for keys in cell.panel.values() for fit_key in keys}
    reads = {each: dataclasses.replace(calibrated, seconds_read=0.01) for each in judges}
    judged = times_of(dataclasses.replace(plan, cells=[cell]), {cell.fit_key: calibrated, **reads})[cell.fit_key]
    asked = cell.evaluation["faces"]
    drawn = asked["fidelity"] + 8 * asked["per_emotion"] + 5 * 8 * asked["intensity"]
    assert judged.rest - alone.rest == pytest.approx(len(judges) * 0.01 * (drawn + 7 * asked["sources"]))
    seen = dataclasses.replace(calibrated, seconds_seen=0.05)
    with_inception = times_of(dataclasses.replace(plan, cells=[cell]), {cell.fit_key: seen})[cell.fit_key]
    assert with_inception.rest - alone.rest == pytest.approx(0.05 * asked["fidelity"])
    without = dataclasses.replace(plan, validation={"synthetic-plain": 0})
    ensemble = dataclasses.replace(cell, fit={**cell.fit, "recipe": None})
    found = {cell.fit_key: calibrated, ensemble.fit_key: dataclasses.replace(calibrated, settings=None)}
    times = times_of(dataclasses.replace(without, cells=[cell, ensemble]), found)
    assert [times[each.fit_key].fit for each in (cell, ensemble)] == [pytest.approx(64), 0]
    classifier = next(cell for cell in plan.cells if cell.row == "resnet18")
    of_it = dataclasses.replace(calibrated, seconds_read=0.5)
    took = times_of(dataclasses.replace(plan, cells=[classifier]), {classifier.fit_key: of_it})[classifier.fit_key]
    assert plan.test == {"synthetic-plain": 640}
    assert took.rest == calibrate.START + 0.5 * 640


def test_side_by_side_a_budget_holds_more(generators: tuple[Suite, Plan]) -> None:
    suite, plan = generators
    found = measured(plan)
    alone = fitted(suite, plan, found, ALONE, "200s").share
    assert fitted(suite, plan, found, Packing(2, 1, Machines(2, 0, 8)), "200s").share > alone


def test_micro_batches_and_precision_become_settings_of_the_suite(generators: tuple[Suite, Plan]) -> None:
    suite, plan = generators
    found = measured(plan)
    cell = next(cell for cell in plan.cells if cell.row == "cvae")
    batch = cell.fit["recipe"]["batch"]
    small = Settings("bf16-mixed", batch // 4, 4)
    found[cell.fit_key] = dataclasses.replace(found[cell.fit_key], settings=small)
    made = fitted(suite, plan, found, ALONE, "99h")
    assert made.plan.model == {"cvae": RowPlan(batch=batch // 4, precision="bf16-mixed", accumulate_grad_batches=4)}
    table = planned(suite, made.plan).model["cvae"]
    assert table["batch"] == batch // 4
    assert table["trainer"] == {"precision": "bf16-mixed", "accumulate_grad_batches": 4}


ROW = '[model.resnet18]\nwidth = 0.0625\nbatch = 64\nepochs = 50\npatience = "none"\n'


def faces_of(name: str, size: int = 32, train: int = 80) -> str:
    return f'[data.{name}]\nclass = "synthetic-plain"\nsize = {size}\ntrain = {train}\nval = 80\ntest = 80\n'


def written(folder: Path, text: str) -> tuple[Suite, Plan]:
    (folder / "some.toml").write_text(text)
    suite = load(folder / "some.toml")
    return suite, expand(suite, folder)


def test_a_row_has_the_micro_batch_that_fits_in_each_of_its_cells(tmp_path: Path) -> None:
    suite, plan = written(tmp_path, faces_of("small") + faces_of("large", 224) + ROW)
    fits = {32: Settings("32-true", 64, 1, fused=True), 224: Settings("bf16-mixed", 8, 8, channels_last=True)}
    found = {
        cell.fit_key: dataclasses.replace(each, settings=fits[cell.size])
        for cell in plan.cells
        for each in [measured(plan)[cell.fit_key]]
    }
    made = fitted(suite, plan, found, ALONE, "99h")
    whole = RowPlan(batch=8, accumulate_grad_batches=8, precision="bf16-mixed", channels_last=True)
    assert made.plan.model == {"resnet18": whole}
    assert {(c.fit["recipe"]["batch"], c.trainer["accumulate_grad_batches"]) for c in expand(
        planned(suite, made.plan), tmp_path
    ).cells} == {(8, 8)}  # fmt: skip
    fits[224] = Settings("bf16-mixed", 64, 1)  # as many as elsewhere: of the cell that takes longest
    found = {cell.fit_key: Calibration(fits[cell.size], cell.size / 1e5, 1, 1.0, 1.0) for cell in plan.cells}
    assert fitted(suite, plan, found, ALONE, "99h").plan.model == {"resnet18": RowPlan(precision="bf16-mixed")}


SWEPT = ROW.replace("batch = 64", "batch = { sweep = [32, 64] }")
TRAINERS = "[trainer.one]\n[trainer.two]\naccumulate_grad_batches = 2\n"


@pytest.mark.parametrize(("text", "rows"), [
    (SWEPT, {"resnet18[batch=32]", "resnet18[batch=64]"}),
    (ROW + TRAINERS, {"resnet18", "resnet18@two"}),
])  # fmt: skip
def test_batches_that_a_sweep_or_trainers_set_stay(text: str, rows: set[str], tmp_path: Path) -> None:
    suite, plan = written(tmp_path, faces_of("small") + text)
    found = measured(plan)
    for cell in plan.cells:
        batch, times = cell.fit["recipe"]["batch"], cell.trainer.get("accumulate_grad_batches", 1)
        settings = Settings("32-true", 16, batch * times // 16, fused=True)
        found[cell.fit_key] = dataclasses.replace(found[cell.fit_key], settings=settings)
    made = fitted(suite, plan, found, ALONE, "99h")
    assert made.plan.model == {"resnet18": RowPlan(fused=True)}
    assert "resnet18 keeps its batch, which a sweep or its trainers set" in made.notes[0]
    again = expand(planned(suite, made.plan), tmp_path)
    assert {cell.row for cell in again.cells if cell.control is None} == rows


def test_a_length_that_is_swept_stays(tmp_path: Path) -> None:
    text = ROW.replace("epochs = 50", "epochs = { sweep = [50] }")
    suite, plan = written(tmp_path, faces_of("small") + text)
    assert fitted(suite, plan, measured(plan), ALONE, "1s").plan.model == {}


def test_kinds_are_alike_whatever_seed_and_length_and_differ_by_what_costs(generators: tuple[Suite, Plan]) -> None:
    _, plan = generators
    cells = {cell.fit_key: cell for cell in plan.cells}
    of = {cell.row: kind(cell, cells) for cell in plan.cells if cell.control is None}
    assert len(set(of.values())) == len(of)
    cell = next(cell for cell in plan.cells if cell.row == "cvae")

    def changed(**recipe: Any) -> str:
        return kind(dataclasses.replace(cell, fit={**cell.fit, "recipe": {**cell.fit["recipe"], **recipe}}), cells)

    assert changed(epochs=7) == of["cvae"] == kind(dataclasses.replace(cell, seed=5), cells)
    assert changed(batch=7) != of["cvae"]


# ---- the file --------------------------------------------------------------------------------------------------------

PLAN = PlanFile(
    budget="2h",
    machine="a machine",
    threads=4,
    model={"cvae": RowPlan(epochs=12, batch=32, accumulate_grad_batches=2), "timm:x": RowPlan(precision="bf16-mixed")},
)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(tmp_path / "plan.toml") is None
    write(tmp_path / "plan.toml", PLAN)
    assert read(tmp_path / "plan.toml") == PLAN


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda text: text.replace("epochs = 12", "epochs = 120"), 7),
        (lambda text: text.replace("threads = 4", "threads = 2"), 4),
        (lambda text: text.replace("[model.cvae]\n", ""), 6),
        (lambda text: text.replace("[model.cvae]\n", "# mine\n[model.cvae]\n"), 6),
        (lambda text: text[:60], 1),
        (lambda text: text[: text.index("batch")], 7),
        (lambda text: "", 1),
    ],
)
def test_a_plan_that_was_changed_is_refused_with_its_line(
    change: Callable[[str], str], line: int, tmp_path: Path
) -> None:
    path = tmp_path / "plan.toml"
    write(path, PLAN)
    path.write_text(change(path.read_text()))
    with pytest.raises(SuiteError, match=rf"plan\.toml, line {line}: .*--recalibrate"):
        read(path)


# ---- measuring -------------------------------------------------------------------------------------------------------


def trial(plan: Plan, row: str) -> Trial:
    cell = next(cell for cell in plan.cells if cell.row == row)
    return Trial(cell, {}, Path("nowhere"), 1, 0, 0.1)


def with_memory_for(monkeypatch: pytest.MonkeyPatch, **faces: int) -> list[int]:
    """Measuring finds memory for so many faces at a time, by the precision's first word; returns the batches tried."""
    tried: list[int] = []

    def measured(engine: Any, trial: Trial) -> Calibration:
        settings = trial.settings
        assert settings is not None
        tried.append(settings.batch)
        name = settings.precision.partition("-")[0]
        if settings.batch > faces["bf16" if name == "bf16" else "fp32"]:
            raise MemoryError("none left")
        return Calibration(settings, 1.0 if name == "bf16" else 2.0, 1, 1.0, 1.0)

    monkeypatch.setattr(calibrate, "measure_alone", measured)
    return tried


def test_the_largest_micro_batch_is_found_that_makes_up_the_same_batch(
    generators: tuple[Suite, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = trial(generators[1], "resnet18")
    assert settings_of(given.cell) == Settings("32-true", 32, 1)
    with_memory_for(monkeypatch, fp32=9)
    assert _best(None, given, 1e6).settings == Settings("32-true", 8, 4)
    tried = with_memory_for(monkeypatch, fp32=20)
    hundred = dataclasses.replace(given, settings=Settings("32-true", 100, 1))
    assert _that_fits(None, hundred).settings == Settings("32-true", 20, 5)
    assert tried == [100, 50, 25, 20]
    accumulated = dataclasses.replace(given, settings=Settings("32-true", 25, 4))
    assert _that_fits(None, accumulated).settings == Settings("32-true", 20, 5)
    with_memory_for(monkeypatch, fp32=1)
    assert _that_fits(None, hundred).settings == Settings("32-true", 1, 100)
    tried = with_memory_for(monkeypatch, fp32=0)
    with pytest.raises(EmobenchError, match="cannot be calibrated, also with 1 face at a time: none left"):
        _that_fits(None, hundred)
    assert tried == [100, 50, 25, 20, 10, 5, 4, 2, 1]


def test_another_precision_is_tried_with_the_whole_batch(
    generators: tuple[Suite, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = trial(generators[1], "resnet18")
    monkeypatch.setattr(calibrate, "_choices", lambda own: [{"precision": "bf16-mixed"}, {"fused": True}])
    tried = with_memory_for(monkeypatch, fp32=9, bf16=16)
    assert _best(None, given, 1e6).settings == Settings("bf16-mixed", 16, 2)
    assert tried == [32, 16, 8, 32, 16, 16]  # what comes after goes on from there


def test_a_batch_of_validation_has_to_fit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        sizes.append(len(batch["index"]))
        if sizes[-1] > memory:
            raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(ResNet18, "validation_step", validation_step)
    monkeypatch.setattr(calibrate, "measure_alone", lambda engine, trial: trials.measure(trial))
    (tmp_path / "tiny.toml").write_text(TINY.replace("train = 80", "train = 4000").replace("val = 80", "val = 256"))
    cell = expand(load(tmp_path / "tiny.toml"), tmp_path).cells[0]
    given = Trial(cell, {}, tmp_path, 1, 0, 0.05, Settings("32-true", 128, 1))
    memory = 100
    assert _that_fits(None, given).settings == Settings("32-true", 64, 2)
    assert sizes == [128, 64]  # one batch each
    memory = 0
    with pytest.raises(MemoryError, match="in validation"):
        trials.measure(given)


def test_a_faster_precision_is_chosen_where_there_is_one(
    generators: tuple[Suite, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {"32-true": 1.0, "bf16-mixed": 0.5}
    monkeypatch.setattr(
        calibrate,
        "measure_alone",
        lambda engine, trial: Calibration(trial.settings, speeds[trial.settings.precision], 1, 1.0, 1.0),
    )
    given = trial(generators[1], "resnet18")
    best = _best(None, given, 1e6)
    assert best.settings == Settings("32-true", 32, 1)  # on a CPU it is the suite's to say
    monkeypatch.setattr(calibrate, "_choices", lambda own: [{"precision": "bf16-mixed"}])
    best = _best(None, given, 1e6)
    assert best.settings == Settings("bf16-mixed", 32, 1)
    assert _best(None, given, 1e6, keeps_precision=True).settings == Settings("32-true", 32, 1)
    speeds["bf16-mixed"] = 0.99
    assert _best(None, given, 1e6).settings == Settings("32-true", 32, 1)


CHOICES = [{"channels_last": True}, {"fused": True}, {"compile": True}, {"compile": True, "cuda_graphs": True}]


def test_layout_and_compilation_are_chosen_where_they_win_and_are_in_no_key(
    generators: tuple[Suite, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, plan = generators
    tried: list[Settings] = []

    def speed(engine: Any, trial: Trial) -> Calibration:
        settings = trial.settings
        assert settings is not None
        tried.append(settings)
        took = 1e-3 * (0.5 if settings.compile else 1) * (2 if settings.channels_last else 1)
        took *= (0.9 if settings.fused else 1) * (0.99 if settings.cuda_graphs else 1)
        return Calibration(settings, took, 1, 1.0, 1.0)

    monkeypatch.setattr(calibrate, "measure_alone", speed)
    monkeypatch.setattr(calibrate, "_choices", lambda own: CHOICES)
    given = trial(plan, "cvae")
    best = _best(None, given, 2e6)
    assert best.settings is not None
    assert best.settings.execution == Execution(fused=True, compile=True)  # graphs win too little to be chosen
    tried.clear()
    assert not _best(None, given, 1e6).settings.compile  # type: ignore[union-attr]
    assert [each.compile for each in tried] == [False] * 3  # too short a fit to be compiled for
    cell = next(cell for cell in plan.cells if cell.row == "cvae")
    made = fitted(suite, plan, {**measured(plan), cell.fit_key: best}, ALONE, "99h").plan
    assert made.model == {"cvae": RowPlan(compile=True, fused=True)}
    assert planned(suite, made).model == suite.model
    assert execution_of(cell, suite, plan.cells, made) == Execution(compile=True, fused=True)
    other = next(cell for cell in plan.cells if cell.row == "vit")
    assert execution_of(other, suite, plan.cells, made) == execution_of(cell, suite, plan.cells, None) == Execution()


@pytest.mark.slow
def test_a_fit_says_how_it_was_computed_and_keeps_its_key(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.replace("epochs = 4", "epochs = 1"))
    cell = expand(load(tmp_path / "tiny.toml"), tmp_path).cells[0]
    job = Job(cell, tmp_path / "results", tmp_path, execution=Execution(channels_last=True, fused=True), only="fit")
    assert Job.of(job.plain()) == dataclasses.replace(job, results=job.results.resolve(), data_root=tmp_path.resolve())
    store = Store(tmp_path / "results")
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    run(job, store)
    fit = read_record(store.fit_folder(cell.fit_key) / "fit.json").fit
    assert fit is not None
    assert fit.cost is not None
    assert (fit.cost.channels_last, fit.cost.fused, fit.cost.compile) == (True, True, False)
    assert all(value.is_contiguous() for value in load_file(store.weights(cell.fit_key)).values())


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_board_is_fitted_once_and_every_later_run_reads_that(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "SECONDS", 0.1)
    (tmp_path / "tiny.toml").write_text(TINY.replace("epochs = 4", "epochs = 4000"))
    command = ("bench", "tiny.toml", "--budget", "10s", "--per-node", "1")
    assert emobench(*command, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "calibrated resnet18 on synthetic-plain" in shown
    assert "tiny+budget=10s: 2 cells, 2 to run" in shown
    assert shown.count("  calibrated ") == 2
    board = tmp_path / "results" / "tiny+budget=10s"
    assert not (board / "plan.toml").exists()
    # A longer measurement would say another thing: what is known is not measured again.
    assert emobench(*command, "--dry-run") == 0
    assert "calibrated resnet18" not in capsys.readouterr().out

    plan = PlanFile(budget="10s", machine="a machine", threads=1, model={"resnet18": RowPlan(epochs=2)})
    write(board / "plan.toml", plan)
    monkeypatch.setattr(calibrate, "calibrate", None)
    (tmp_path / "here.py").write_text(ENGINE)
    assert emobench(*command, "--engine", "here.py:Here") == 0
    rows = json.loads((board / "suite.json").read_text())
    assert rows["budget"] == "10s"
    records = [read_record(path) for path in (tmp_path / "results" / "cells").glob("*/fit.json")]
    assert [(each.fit.cost.epochs, each.fit.hardware.threads) for each in records if each.fit and each.fit.cost] == [
        (2, 1)
    ] * 2
    capsys.readouterr()
    assert emobench(*command) == 0
    assert "2 of 2 cells are done" in capsys.readouterr().out
    assert "emobench bench tiny.toml --budget 10s`" in pages(board)

    text = (board / "plan.toml").read_text()
    (board / "plan.toml").write_text(text.replace("epochs = 2", "epochs = 3"))
    assert emobench(*command) == 2
    assert "plan.toml, line 7: not as emobench wrote it: 'epochs = 3'" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "SECONDS", 0.1)
    assert emobench("bench", "tiny.toml", "--recalibrate") == 2
    assert "for which budget?" in capsys.readouterr().err
    assert emobench(*command, "--recalibrate", "--dry-run") == 0
    assert "calibrated resnet18 on synthetic-plain" in capsys.readouterr().out


def test_of_two_first_runs_both_go_by_the_plan_that_was_there_first(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY.replace("epochs = 4", "epochs = 4000"))
    (tmp_path / "here.py").write_text(ENGINE)
    path = tmp_path / "results" / "tiny+budget=10s" / "plan.toml"
    first = PlanFile(budget="10s", machine="another", threads=1, model={"resnet18": RowPlan(epochs=1)})

    def meanwhile(plan: Plan, *_: Any, **__: Any) -> tuple[dict[str, Calibration], dict[str, str]]:
        write(path, first)
        return measured(plan, 1.0), {}

    monkeypatch.setattr(calibrate, "calibrate", meanwhile)
    command = ("bench", "tiny.toml", "--budget", "10s", "--per-node", "1", "--engine", "here.py:Here")
    assert emobench(*command) == 0
    assert read(path) == first
    assert "another command was first to fit this suite" in capsys.readouterr().out
    records = [read_record(found) for found in (tmp_path / "results" / "cells").glob("*/fit.json")]
    assert [each.fit.cost.epochs for each in records if each.fit and each.fit.cost] == [1, 1]
    assert [each.name for each in path.parent.glob(".plan*")] == []

    path.unlink()
    first = first.model_copy(update={"budget": "20s"})
    assert emobench(*command) == 2
    assert "is of --budget 20s, and not of 10s" in capsys.readouterr().err
    assert emobench(*command, "--recalibrate", "--dry-run") == 0
    assert read(path) == first
    monkeypatch.setattr(calibrate, "calibrate", lambda plan, *_, **__: (measured(plan, 1.0), {}))
    assert emobench(*command, "--recalibrate") == 0
    written_anew = read(path)
    assert written_anew is not None
    assert written_anew.budget == "10s"


def test_machines_that_share_a_store_go_by_the_plan_that_was_there_first(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed (pip install 'emobench[store]')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY.replace("epochs = 4", "epochs = 4000"))
    (tmp_path / "here.py").write_text(ENGINE)
    board = "tiny+budget=20s"
    paths = {each: tmp_path / each / board / "plan.toml" for each in ("one", "two", "three")}
    monkeypatch.setattr(calibrate, "calibrate", lambda plan, *_, **__: (measured(plan, 1.0), {}))

    def run(machine: str, *options: str) -> int:
        command = ("bench", "tiny.toml", "--per-node", "1", "--engine", "here.py:Here", "--results", machine)
        return emobench(*command, "--store", f"file://{tmp_path}/shared", *options)

    assert run("one", "--budget", "20s", "--dry-run") == 0
    assert not paths["one"].exists()
    assert not list((tmp_path / "shared").glob("boards/*/*"))
    first = PlanFile(budget="20s", machine="m", threads=1, model={"resnet18": RowPlan(epochs=1)})
    write(paths["one"], first)  # from before there was a store
    assert run("one", "--budget", "20s") == 0
    assert (tmp_path / "shared" / "boards" / board / "plan.toml").read_bytes() == paths["one"].read_bytes()
    capsys.readouterr()
    assert run("two", "--name", board, "--dry-run") == 0  # the budget is the board's
    assert not paths["two"].exists()
    assert "budget 20s: rows" not in capsys.readouterr().out  # nothing is fitted
    assert run("two", "--budget", "20s") == 0
    assert read(paths["two"]) == first
    assert not list((tmp_path / "two" / "cells" / "calibrations").glob("*"))
    assert run("two", "--name", board, "--budget", "30s") == 2
    assert "is of --budget 20s, and not of 30s" in capsys.readouterr().err

    write(paths["three"], first.model_copy(update={"threads": 2}))
    assert run("three", "--budget", "20s") == 2
    assert "is another plan than that in --store, which other machines go by" in capsys.readouterr().err
    assert run("three", "--budget", "20s", "--recalibrate") == 0
    anew = read(paths["three"])
    assert anew not in (None, first)
    assert read(tmp_path / "shared" / "boards" / board / "plan.toml") == anew
    assert run("two", "--budget", "20s") == 2  # its own is an older one by now
    paths["two"].unlink()
    assert run("two", "--budget", "20s") == 0
    assert read(paths["two"]) == anew


def test_a_machine_whose_measuring_takes_longer_goes_by_the_others_plan(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remotes = pytest.importorskip("emobench.runner.remote")
    pytest.importorskip("obstore", reason="obstore is not installed (pip install 'emobench[store]')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "here.py").write_text(ENGINE)
    url = f"file://{tmp_path}/shared"
    first = PlanFile(budget="10s", machine="another", threads=1, model={"resnet18": RowPlan(epochs=1)})

    def meanwhile(plan: Plan, *_: Any, **__: Any) -> tuple[dict[str, Calibration], dict[str, str]]:
        suite = load(tmp_path / "tiny.toml").model_copy(update={"name": "tiny+budget=10s"})
        assert place_of(suite, tmp_path / "other", remotes.Remote(url)).keep(first) == first
        return measured(plan, 1.0), {}

    monkeypatch.setattr(calibrate, "calibrate", meanwhile)
    command = ("bench", "tiny.toml", "--budget", "10s", "--per-node", "1", "--engine", "here.py:Here")
    assert emobench(*command, "--store", url) == 0
    assert read(tmp_path / "results" / "tiny+budget=10s" / "plan.toml") == first
    assert "another command was first to fit this suite" in capsys.readouterr().out


BY_HAND = """
from emobench.classifiers.resnet import ResNet18


class Mine(ResNet18):
    \"\"\"Optimises by hand, without turns of whose gradients several could be summed.\"\"\"

    name = "mine"
    automatic_optimization = False
"""


def test_a_plan_that_cannot_be_run_is_not_written(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(BY_HAND)
    (tmp_path / "tiny.toml").write_text(TINY.replace("[model.resnet18]", '[model.m]\nclass = "mine.py:Mine"'))
    halved = Calibration(Settings("32-true", 8, 2), 1e-3, 1, 1.0, 1.0)
    found = lambda plan, *_, **__: ({cell.fit_key: halved for cell in plan.cells}, {})  # noqa: E731
    monkeypatch.setattr(calibrate, "calibrate", found)
    assert emobench("bench", "tiny.toml", "--budget", "10s", "--per-node", "1") == 2
    said = capsys.readouterr().err
    assert "--budget 10s: what fits here cannot be run: suite tiny" in said
    assert "accumulate_grad_batches = 2 has no effect" in said
    assert "Or write a smaller batch into the suite" in said
    assert not list((tmp_path / "results").glob("*/plan.toml"))


def test_what_changes_in_a_suite_after_its_plan_is_said_and_the_plan_counts(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.py").write_text(ENGINE)
    suite = tmp_path / "tiny.toml"
    suite.write_text(TINY.replace("epochs = 4", "epochs = 4000"))
    monkeypatch.setattr(calibrate, "calibrate", lambda plan, *_, **__: (measured(plan, 1.0), {}))
    command = ("bench", "tiny.toml", "--budget", "6s", "--per-node", "1", "--engine", "here.py:Here")
    assert emobench(*command) == 0
    made = read(tmp_path / "results" / "tiny+budget=6s" / "plan.toml")
    assert made is not None
    assert "model.resnet18" in made.made_of
    assert made.model["resnet18"].epochs is not None
    capsys.readouterr()

    def said(*arguments: str) -> list[str]:
        assert emobench(*command, "--dry-run", *arguments) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "plan of this board" in line]

    assert said() == []
    more = TINY_DATA.replace("synthetic-plain", "synthetic").partition("[data")[2]
    changed = TINY.replace("epochs = 4", "epochs = 5").replace("seeds = [0]", "seeds = [0, 1]") + SECOND
    suite.write_text(f"{changed}\n[data{more}")
    edited, joined = said()
    assert "made: model.resnet18, seeds. What plan.toml says still takes the place" in edited
    assert "made: model.cnn21, data.synthetic. The budget has no time for it" in joined
    assert "--recalibrate" in edited
    assert "--recalibrate" in joined
    assert said("--recalibrate") == []
    suite.write_text(TINY_DATA + SECOND)
    assert said()[-1].endswith("has what its suite has no more: model.resnet18")


def test_a_plan_from_before_digests_is_read_and_says_what_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "plan.toml", PLAN)
    assert "made_of" not in (tmp_path / "plan.toml").read_text()
    old = read(tmp_path / "plan.toml")
    assert old == PLAN
    suite, _ = written(tmp_path, faces_of("small") + ROW)
    warn(suite, old, tmp_path)
    assert capsys.readouterr().out == (
        "the plan of this board has what its suite has no more: model.cvae, model.timm:x\n"
    )


def test_a_plan_keeps_its_threads_where_there_are_fewer_cores(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("emobench.runner.machine.cores", lambda: 2)
    (tmp_path / "here.py").write_text(ENGINE)
    (tmp_path / "tiny.toml").write_text(TINY)
    plan = PlanFile(budget="1h", machine="one of 8 cores", threads=3, model={"resnet18": RowPlan(epochs=1)})
    write(tmp_path / "results" / "tiny+budget=1h" / "plan.toml", plan)
    assert emobench("bench", "tiny.toml", "--budget", "1h", "--engine", "here.py:Here") == 0
    assert "plan gives each cell 3 threads, and 2 cores are here: they take turns" in capsys.readouterr().out
    records = [read_record(found) for found in (tmp_path / "results" / "cells").glob("*/fit.json")]
    assert [each.fit.hardware.threads for each in records if each.fit] == [3, 3]


def with_speeds(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[int]:
    """Measuring finds so many seconds a face, by the precision's first word, bf16 is a choice; returns the threads."""
    threads: list[int] = []

    def measured(engine: Any, trial: Trial) -> Calibration:
        assert trial.settings is not None
        threads.append(trial.threads)
        name = "bf16" if trial.settings.precision.startswith("bf16") else "fp32"
        return Calibration(trial.settings, seconds[name] / trial.threads, 1, 1.0, 1.0)

    monkeypatch.setattr(calibrate, "measure_alone", measured)
    monkeypatch.setattr(calibrate, "_choices", lambda own: [{"precision": "bf16-mixed"}, {"fused": True}])
    return threads


def test_times_that_are_shown_are_of_the_settings_that_cells_run_by(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY.replace("epochs = 4", "epochs = 4000"))

    def shown(*options: str) -> list[str]:
        assert emobench("bench", "tiny.toml", "--per-node", "1", "--workers", "0", "--dry-run", *options) == 0
        return re.findall(r"calibrated (\d+:\d+:\d+)", capsys.readouterr().out)

    with_speeds(monkeypatch, fp32=2e-3 * cores(), bf16=1e-3 * cores())  # a cell has a thread a core
    assert shown("--budget", "99h") == ["0:07:09"] * 2  # 4,000 times 80 faces, validation, and a start
    assert shown() == ["0:14:15"] * 2
    with_speeds(monkeypatch, fp32=4e-3 * cores(), bf16=3e-3 * cores())
    assert shown("--budget", "99h") == ["0:07:09"] * 2  # what is known is not measured again
    assert shown("--budget", "99h", "--recalibrate") == ["0:21:22"] * 2
    assert shown("--budget", "99h") == ["0:21:22"] * 2
    assert shown() == ["0:28:29"] * 2


@pytest.mark.slow
def test_cells_that_train_nothing_have_hours_too(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of what they draw or read; a cell that is fitted has only these left."""
    monkeypatch.chdir(tmp_path)

    def reads(engine: Any, trial: Trial) -> Calibration:
        return Calibration(trial.settings, 1.0, 1, 1.0, 1.0, seconds_read=1.0 if trial.settings is None else 0.25)

    monkeypatch.setattr(calibrate, "measure_alone", reads)
    (tmp_path / "tiny.toml").write_text(TINY + ENSEMBLE)
    options = ("tiny.toml", "--per-node", "1", "--workers", "0", "--dry-run")

    def shown(*more: str) -> dict[str, str]:
        assert emobench("bench", *options, *more) == 0
        said = capsys.readouterr().out
        assert "(calibrated: training and evaluation, by some seconds of each on this machine)" in said
        found = re.findall(r"^  \w+  to run +(.*?)  (\S+) on synthetic", said, re.MULTILINE)
        whole = re.findall(r"with evaluation, as calibrated: about (\S+)", said)
        return {row: time for time, row in found} | {"whole": "".join(whole)}

    of_all = shown("--budget", "99h")
    assert of_all["ensemble"] == "calibrated 0:01:22"  # 80 test faces, and a start
    assert of_all["cnn21"] == "calibrated 0:02:09"  # 80 faces, a third of 80 of validation, 20 for the test faces
    assert emobench("bench", "tiny.toml", "--per-node", "1") == 0
    for path in (tmp_path / "results" / "cells").glob("*/*/result.json"):
        path.unlink()
    capsys.readouterr()
    left = shown()
    assert left["ensemble"] == "calibrated 0:01:22"
    assert left["cnn21"] == "fitted, 0:00:22"
    assert left["whole"] == "0:02:28"  # two rows and a control that are fitted, and the ensemble


def test_a_budget_counts_how_slow_cells_are_that_share_a_gpu(
    generators: tuple[Suite, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = with_speeds(monkeypatch, fp32=2e-3, bf16=1e-3)
    monkeypatch.setattr(calibrate, "sharing", lambda plan, found, numbers, *_, **__: calibrate.Together(*numbers, 3.0))
    (tmp_path / "tiny.toml").write_text(TINY)
    suite = load(tmp_path / "tiny.toml").model_copy(update={"budget": "99h"})
    plan = expand(suite, tmp_path)
    alone, shared = (Packing(each, 8 // each, Machines(8, 1, 64), each) for each in (1, 4))
    packings, store = {1: alone, 4: shared}, Store(tmp_path)
    options: dict[str, Any] = {"if_it_pays": True, "workers": 0, "recalibrate": False, "dry_run": True}
    made = fit(
        suite, plan, store, place_of(suite, tmp_path, None), tmp_path, alone,
        numbers=lambda found: [4], packed=packings.__getitem__, **options,
    )  # fmt: skip
    assert (made.threads, made.per_gpu) == (2, 4)
    assert threads == [8, 8, 8]

    def seconds(of: Plan, packing: Packing) -> set[float]:
        found = known(store, of.cells, packing, lambda cell: Execution())
        return {each.seconds_a_face for each in found.values()}

    again = expand(planned(suite, made), tmp_path)
    assert seconds(again, shared) == {3 * 1e-3 / 8}
    assert not seconds(again, alone)  # nobody runs them so
    assert seconds(plan, alone) == {2e-3 / 8}


def test_memory_that_was_measured_is_known_beside_that_of_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    plan, store = expand(load(tmp_path / "tiny.toml"), tmp_path), Store(tmp_path)
    cell = plan.cells[0]
    assert memory_of(store, plan.cells, ALONE)(cell) is None
    path = calibrate.place(store, cell, {each.fit_key: each for each in plan.cells}, 2)
    calibrate._keep(path, cell, Calibration(settings_of(cell), 1.0, 1, 40.0, 5.5))
    assert memory_of(store, plan.cells, ALONE)(cell) == 5.5
    assert memory_of(store, plan.cells, dataclasses.replace(ALONE, threads=1))(cell) is None


def test_what_was_measured_is_not_kept_as_that_of_other_settings(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    suite = load(tmp_path / "tiny.toml")
    plan = expand(suite, tmp_path)
    made = PlanFile(
        budget="2h", machine="m", threads=1, model={"resnet18": RowPlan(batch=8, accumulate_grad_batches=2)}
    )
    chosen, store = expand(planned(suite, made), tmp_path), Store(tmp_path)
    one = dataclasses.replace(ALONE, threads=1)
    for settings, kept in ((Settings("32-true", 4, 4), 0), (Settings("32-true", 8, 2, fused=True), len(chosen.cells))):
        found = {cell.fit_key: Calibration(settings, 1.0, 1, 1.0, 1.0) for cell in plan.cells}
        keep_as(store, plan, chosen, found, one, again=False)
        assert len(known(store, chosen.cells, one, lambda cell: Execution(fused=True))) == kept
    assert not known(store, chosen.cells, one, lambda cell: Execution())


SECOND = """
[model.cnn21]
size = 32
padding = true
dense = [8, 8]
epochs = 1
"""


@pytest.mark.slow
def test_a_row_that_cannot_be_calibrated_is_run_all_the_same(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    measure = calibrate.measure_alone

    def measured(engine: Any, trial: Trial) -> Calibration:
        if trial.cell.row == "resnet18":
            raise EmobenchError(f"{trial.cell.label} cannot be calibrated: no such luck")
        return measure(engine, trial)

    monkeypatch.setattr(calibrate, "SECONDS", 0.1)
    monkeypatch.setattr(calibrate, "measure_alone", measured)
    (tmp_path / "tiny.toml").write_text(TINY + SECOND)
    assert emobench("bench", "tiny.toml", "--budget", "1h", "--per-node", "1") == 0
    said, shown = capsys.readouterr()
    assert "calibrated cnn21 on synthetic-plain" in said
    reason = "resnet18 on synthetic-plain, seed 0 cannot be calibrated: no such luck"
    assert f"budget 1h: {reason}. resnet18 is run all the same, and its time comes on top" in shown
    assert "resnet18 on synthetic-plain, seed 0: done" in said


ENSEMBLE = (
    SECOND
    + """
[model.ensemble]
needs = { members = ["resnet18", "cnn21"] }
"""
)


def killed(*_: Any) -> Calibration:
    """In place of measuring: as the system ends a process where memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def too_large(*_: Any) -> Calibration:
    """In place of measuring: as torch says it."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 GiB")


@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        (killed, "killed by SIGKILL: out of memory, or by hand"),
        (too_large, "out of memory (CUDA out of memory. Tried to allocate 99 GiB). Use a smaller batch or model"),
    ],
)
def test_a_row_that_trains_nothing_and_finds_no_memory_costs_itself_only(
    instead: Callable[..., Calibration],
    reason: str,
    emobench: Emobench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    measure = calibrate.measure_alone

    def measured(engine: Any, trial: Trial) -> Calibration:
        if trial.settings is not None:
            return Calibration(trial.settings, 1e-4, 1, 1.0, 1.0)
        engine.context = multiprocessing.get_context("fork")  # in which `instead` is known
        return measure(engine, trial)

    monkeypatch.setattr(calibrate, "measure_alone", measured)
    monkeypatch.setattr(trials, "measure", instead)
    (tmp_path / "tiny.toml").write_text(TINY + ENSEMBLE)
    assert emobench("bench", "tiny.toml", "--budget", "1h", "--per-node", "1", "--dry-run") == 0
    said, shown = capfd.readouterr()
    why = f"ensemble on synthetic-plain, seed 0 cannot be calibrated: {reason}"
    assert f"budget 1h: {why}. ensemble is run all the same" in shown
    assert "calibrated cnn21 on synthetic-plain" in said


PATIENT = '''
import os
import time
from pathlib import Path

from emobench.classifiers.resnet import ResNet18
from emobench.commands.budget import fit


class Patient(ResNet18):
    """A network whose training waits, in a process that says which it is."""

    name = "patient"

    def on_train_start(self):
        Path("number").write_text(f"{os.getpid()}.")
        time.sleep(300)
'''


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_while_it_measures_leaves_nothing_that_runs(
    how: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "patient.py").write_text(PATIENT)
    (tmp_path / "tiny.toml").write_text(TINY.replace("[model.resnet18]", '[model.p]\nclass = "patient.py:Patient"'))
    command = [sys.executable, "-m", "emobench", "bench", "tiny.toml", "--budget", "1h", "--per-node", "1"]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    number = tmp_path / "number"
    try:
        until = time.monotonic() + 120
        while not (number.exists() and number.read_text().endswith(".")):
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)
        with lives(int(number.read_text().strip("."))) as alive:
            assert alive()
            driver.send_signal(how)
            code = driver.wait(20)
            assert not alive(25)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    shown = (tmp_path / "log").read_text()
    if how == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 128 + how
        assert f"stopped by signal {how.value}; run the same command again to go on" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_clean_keeps_calibrations_of_todays_code(
    emobench: Emobench, tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from emobench.runner.usage import unused

    folder = tmp_path / "cells" / "calibrations"
    folder.mkdir(parents=True)
    fit = read_record(next(tiny_results.glob("cells/*/fit.json"))).made_of.fit
    made_of = {name: fit[name] for name in ("model", "data", "code")}
    (folder / "kept.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "fit": made_of}))
    other = {**made_of, "code": {"digest": "0" * 64}}
    (folder / "old.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "fit": other}))
    (folder / "damaged.json").write_text("{")
    found, problems = unused(tmp_path, None)
    assert {each.path.name for each in found} == {"old.json", "damaged.json"}
    assert not problems
