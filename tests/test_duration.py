"""What a dry run says of fits like which none was measured: a bound, from parameters, pixels and steps."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rates as script
from conftest import RESULTS, TINY

from emobench.data.balance import Balance
from emobench.runner import duration
from emobench.runner.duration import Durations, faces, validated
from emobench.runner.record import Record, read_record
from emobench.runner.store import Store
from emobench.suite.cell import Cell, Plan
from emobench.suite.expand import expand
from emobench.suite.file import load


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("suite") / "tiny.toml"
    path.write_text(TINY)
    return expand(load(path), path.parent)


def with_recipe(cell: Cell, **changes: Any) -> Cell:
    return replace(cell, fit={**cell.fit, "recipe": {**cell.fit["recipe"], **changes}})


def test_the_packaged_rates_are_what_the_script_makes_of_the_committed_boards(committed_boards: list[Path]) -> None:
    assert duration.TABLE.read_text() == script.written(committed_boards), (
        "committed boards have new fits: run benchmarks/rates.py"
    )
    rates = duration.packaged()
    path = next(path for path in sorted(RESULTS.glob("demo/cells/*/result.json")) if read_record(path).trains)
    record = read_record(path)
    assert record.fit is not None
    assert record.fit.cost is not None
    pixels = (record.made_of.fit["recipe"]["size"] or record.cell.size) ** 2
    seen = record.fit.cost.fit_faces_per_s * record.fit.cost.fit_seconds
    own = record.fit.cost.fit_seconds / (record.cell.parameters * seen * pixels)
    own *= min(2, record.fit.hardware.threads or record.fit.hardware.cores)
    assert duration.rate(record) == pytest.approx(own)
    assert own <= 1.01 * rates[record.cell.model.partition("-")[0]] < 1e-10


@pytest.mark.parametrize(
    "balance",
    [Balance(), Balance(10.0), Balance(2.0, 0.4), Balance(1.0, 0.4), Balance(1.0, None, 120), Balance(3.0, 0.1)],
)
def test_as_many_faces_are_counted_as_an_epoch_sees(plan: Plan, balance: Balance) -> None:
    cell, counts = plan.cells[0], [50, 100, 40, 0, 80, 7, 20, 100]
    cell = with_recipe(
        cell, oversample=balance.oversample, undersample=balance.undersample, rotate_to=balance.rotate_to, epochs=3
    )
    there = replace(plan, faces={cell.dataset: dict(zip(cell.emotions, counts, strict=True))})
    assert faces(cell, there) == pytest.approx(3 * balance.counts(np.array(counts)).sum(), abs=3 * len(counts))


def test_steps_and_joint_fits_are_counted(plan: Plan) -> None:
    cell = plan.cells[0]
    assert plan.faces[cell.dataset] == dict.fromkeys(cell.emotions, 10)
    by_steps = replace(with_recipe(cell, epochs=None, steps=100), trainer={"accumulate_grad_batches": 2})
    assert faces(by_steps, plan) == 100 * cell.fit["recipe"]["batch"] * 2
    joint = with_recipe(
        replace(cell, fit={**cell.fit, "data": {"joint": []}}), epochs=1, oversample=1.0, undersample=None
    )
    cells = [replace(joint, dataset="a"), replace(joint, dataset="b"), replace(joint, dataset="c", row="other")]
    there = {"a": {"happy": 3}, "b": {"happy": 4, "sad": 2}, "c": {"happy": 100}}
    assert faces(cells[0], replace(plan, cells=cells, faces=there)) == 9  # of those that the row is trained on
    # Each dataset is balanced by itself: 4 and 2 at most of a class, and not 7 of each.
    capped = [with_recipe(each, oversample=9.0) for each in cells]
    assert faces(capped[0], replace(plan, cells=capped, faces=there)) == 3 + 4 + 4


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(5, 5 * 8), (1, 8), (1.0, 800), (0.25, 25 * 8), (0.001, 8), (1000, 800), (None, 800)],
)
def test_of_an_epoch_of_some_batches_only_those_are_counted(plan: Plan, limit: float | None, expected: int) -> None:
    cell = with_recipe(plan.cells[0], epochs=50, batch=8, oversample=1.0, undersample=None)
    cell = replace(cell, trainer={**cell.trainer, **({} if limit is None else {"limit_train_batches": limit})})
    there = replace(plan, faces={cell.dataset: dict.fromkeys(cell.emotions, 100)})
    assert faces(cell, there) == 50 * expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 50 * 300),
        ({"limit_train_batches": 5}, 50 * 300),
        ({"limit_val_batches": 0}, 0),
        ({"limit_val_batches": 2}, 50 * 128),
        ({"limit_val_batches": 0.5}, 50 * 150),
        ({"limit_val_batches": 1.0}, 50 * 300),
        ({"val_check_interval": 0.25}, 50 * 4 * 300),
        ({"val_check_interval": 20}, 50 * 5 * 300),  # of 100 batches
        ({"val_check_interval": 1.0}, 50 * 300),
    ],
)
def test_as_many_validation_faces_are_counted_as_are_read(plan: Plan, options: dict[str, Any], expected: float) -> None:
    cell = with_recipe(plan.cells[0], epochs=50, batch=8, oversample=1.0, undersample=None)
    there = replace(plan, faces={cell.dataset: dict.fromkeys(cell.emotions, 100)}, validation={cell.dataset: 300})
    cell = replace(cell, trainer={**cell.trainer, **options})
    assert validated(cell, there, 1) == expected
    if "limit_train_batches" not in options:  # 200 steps are two epochs of 100, and of a GAN that takes turns four
        by_steps = with_recipe(cell, epochs=None, steps=200)
        assert [validated(by_steps, there, each) for each in (1, 2)] == [expected / 25, expected * 2 / 25]


JOINT = """
[data.other]
class = "synthetic-hard"
size = 32
train = 80
val = 80
test = 80

[data.further]
class = "synthetic-plain"
size = 32
train = 800
val = 80
test = 80

[model.vgg16]
width = 0.0625

[model.cnn21]
size = 32
padding = true
dense = [8, 8]

[model.stargan]
size = 32
width = 8
blocks = 1
discriminator_width = 8
train_on = ["synthetic-plain", "other"]
epochs = 10
batch = 8

[evaluation]
fidelity = 80
per_emotion = 8
sources = 16
intensity = 2
"""


def test_a_joint_fit_sees_the_datasets_that_it_is_trained_on(tmp_path: Path) -> None:
    (tmp_path / "joint.toml").write_text('panel = ["resnet18", "vgg16"]\n' + TINY + JOINT)
    joint = expand(load(tmp_path / "joint.toml"), tmp_path)
    cells = [cell for cell in joint.cells if cell.row == "stargan"]
    assert [cell.dataset for cell in cells] == ["synthetic-plain", "other"]
    assert {faces(cell, joint) for cell in cells} == {10 * (80 + 80)}
    assert {validated(cell, joint, 1) for cell in cells} == {10 * (80 + 80)}


def test_the_rate_is_that_of_these_results_else_of_the_class_else_the_slowest(plan: Plan) -> None:
    cell = plan.cells[0]
    work = cell.parameters * faces(cell, plan) * cell.size**2
    steps = faces(cell, plan) / cell.fit["recipe"]["batch"]
    other = replace(cell, fit={**cell.fit, "model": "of my own"})
    known = Durations({}, {}, {"resnet18": 1e-9, "vit": 3e-9})
    assert known.at_most(cell, plan, 1) == pytest.approx(10 + 0.01 * steps + 1e-9 * work)
    assert known.at_most(other, plan, 1) == pytest.approx(10 + 0.01 * steps + 3e-9 * work)
    for threads in (2, 64):
        assert known.at_most(other, plan, threads) == pytest.approx(10 + 0.01 * steps + 1.5e-9 * work)
    known = replace(known, own={"resnet18": 2e-9})
    assert known.at_most(cell, plan, 1) == pytest.approx(10 + 0.01 * steps + 2e-9 * work)
    assert known.at_most(with_recipe(cell, size=64), plan, 1) == pytest.approx(10 + 0.01 * steps + 8e-9 * work)


def test_what_a_store_has_measured_is_found(plan: Plan, tiny_results: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_results, tmp_path / "results")
    store = Store(tmp_path / "results")
    (store.cells / "broken").mkdir()
    (store.cells / "broken" / "fit.json").write_text("{")
    known = Durations.of(store)
    records: list[Record] = [
        read_record(path) for path in store.cells.glob("[0-9a-f]*/fit.json") if "broken" not in str(path)
    ]
    assert len(records) == 2
    assert known.own == {"resnet18": max(duration.rate(each) or 0 for each in records)}
    assert list(known.like) == [duration.alike(plan.cells[0].fit, 1)]
    for record in records:
        assert record.fit is not None
        assert record.fit.cost is not None
        assert record.fit.cost.fit_seconds <= known.at_most(plan.cells[0], plan, 1)


def test_the_time_until_all_are_done_counts_what_runs_side_by_side_and_what_waits(plan: Plan) -> None:
    def cell(name: str, *needs: Cell) -> Cell:
        made = replace(plan.cells[0], fit={**plan.cells[0].fit, "model": name})
        return replace(made, needs={"guide": [each.fit_key for each in needs]})

    first, second, third = cell("first"), cell("second"), cell("third")
    last = cell("last", first, third)
    cells = [first, second, last, third, third]
    seconds = {first.fit_key: 2.0, second.fit_key: 5.0, third.fit_key: 4.0, last.fit_key: 1.0}
    assert duration.elapsed(cells, seconds, 1) == 12
    assert duration.elapsed(cells, seconds, 2) == 7  # first and second, third from 2 to 6, last until 7
    assert duration.elapsed(cells, seconds, 4) == 5
    assert duration.elapsed(cells, {name: 1.0 for name in (second.fit_key, last.fit_key)}, 1) == 2
    assert duration.elapsed([], {}, 1) == 0


def test_the_time_until_thousands_are_done_is_found_by_looking_at_each_once(plan: Plan) -> None:
    looks = 0

    class Looked(Cell):
        @property
        def awaits(self) -> list[str]:
            nonlocal looks
            looks += 1
            return super().awaits

    like = {field.name: getattr(plan.cells[0], field.name) for field in fields(Cell)}
    made = [Looked(**{**like, "fit": {**like["fit"], "seed": seed}}) for seed in range(1000)]
    cells = [made[0], *(replace(cell, needs={"guide": [made[0].fit_key]}) for cell in made[1:])]
    seconds = {cell.fit_key: 1.0 for cell in cells}
    assert duration.elapsed(cells, seconds, 3) == 1 + 999 / 3
    assert looks == len(cells)
