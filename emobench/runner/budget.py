"""A suite fitted to a budget of time: judges, reader and guides at their full recipe, and what is left for the others.

All other rows get the same share of the epochs or steps that they would have, the largest with which the sweep ends in
time, by the calibration of this machine and in the order in which its cells would run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from emobench.recipe import Execution
from emobench.runner.calibrate import Seconds, seconds, training
from emobench.runner.duration import elapsed, faces, validated
from emobench.runner.machine import hardware
from emobench.runner.threads import Packing
from emobench.runner.trial import Calibration, Settings
from emobench.suite.budget import PlanFile, RowPlan, seconds_of, two_digits
from emobench.suite.cell import Cell, Plan, without_trainer
from emobench.suite.file import Suite
from emobench.suite.firewall import panel_of
from emobench.suite.keys import batch_of_one
from emobench.suite.settings import is_sweep

VALIDATION = 1 / 3  # of what training takes for a face: forward, where training also goes back, which is twice the work
LEAST = 0.01  # of a row's steps; of epochs it is one
_KEPT = (
    "{} keeps its batch, which a sweep or its trainers set, though memory had place for {} faces at a time, "
    "accumulated over {} batches: cells that do not fit will fail. Write such rows by hand, with a smaller batch"
)


@dataclass(frozen=True)
class Fitted:
    """A plan under a budget.

    Attributes:
        share: of their recipe that the rows get which are not paid first.
        seconds: that the sweep takes.
        notes: what does not go as the budget asks for.
    """

    plan: PlanFile
    share: float
    seconds: float
    notes: list[str]


def table_of(cell: Cell, suite: Suite, cells: Sequence[Cell]) -> str | None:
    """The suite's table that a cell is of; None: it has none, as a judge that is a class at its defaults."""
    if cell.control is not None:  # of the cheapest row, under whose name it is not known
        same = ("model", "arguments", "recipe", "trainer", "data")
        found = (each for each in cells if each.control is None and all(each.fit[n] == cell.fit[n] for n in same))
        cell = next(found, cell)
    name = without_trainer(cell.setting_of or cell.row, cell.trained_by)
    return name if name in suite.model else None


def paid_first(suite: Suite, cells: Sequence[Cell]) -> set[str]:
    """The fit_keys of panel and reader, of the classifiers that generators need, and of what these need."""
    by_key = {cell.fit_key: cell for cell in cells}
    judged = any(cell.panel for cell in cells)
    judges = {*panel_of(suite)} if judged else set()
    found = {cell.fit_key for cell in cells if cell.row in judges}
    for cell in cells:
        if cell.panel:
            found |= {each for keys in cell.needs.values() for each in keys if not by_key[each].panel}
    todo = list(found)
    while todo:
        more = {each for keys in by_key[todo.pop()].needs.values() for each in keys} - found
        found |= more
        todo += more
    return found


def times_of(plan: Plan, found: Mapping[str, Calibration]) -> dict[str, Seconds]:
    """How long the cells of a plan take of which something was measured, by fit_key: with validation, and with each of
    the evaluations that a fit has, as one on several datasets together.
    """
    fits: dict[str, float] = {}
    rest: dict[str, dict[str, float]] = {}
    for cell in plan.cells:
        if (measured := found.get(cell.fit_key)) is None:
            continue
        took = seconds(cell, plan, found, faces(cell, plan) if cell.trains else 0.0)
        fits[cell.fit_key] = took.fit + (_validating(cell, plan, measured) if cell.trains else 0.0)
        rest.setdefault(cell.fit_key, {})[cell.eval_key] = took.rest
    return {fit_key: Seconds(took, sum(rest[fit_key].values())) for fit_key, took in fits.items()}


def _validating(cell: Cell, plan: Plan, measured: Calibration) -> float:
    """Seconds of a fit's validation."""
    return VALIDATION * training(cell, measured, validated(cell, plan, measured.batches_a_step))


def fitted(
    suite: Suite,
    plan: Plan,
    found: Mapping[str, Calibration],
    packing: Packing,
    budget: str,
    machine: str | None = None,
) -> Fitted:
    """Fit a suite to a budget.

    Args:
        plan: of the suite as it stands.
        found: what was measured of cells, by fit_key; one that could not be measured takes no time.
        packing: how many cells run side by side.
        budget: as the command takes it.
        machine: that was measured; None: this one.
    """
    tables = {cell.fit_key: table_of(cell, suite, plan.cells) for cell in plan.cells}
    first = paid_first(suite, plan.cells)
    whole = {tables[each] for each in first}
    free = {name for each, name in tables.items() if name is not None and name not in whole}
    times, places = times_of(plan, found), packing.per_node * packing.machines.number
    of_tables: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        if (name := tables[cell.fit_key]) is not None:
            of_tables.setdefault(name, []).append(cell)
    wholes = {name: _length(of_tables[name], suite.model[name]) for name in free}
    lengths = {name: each for name, each in wholes.items() if each is not None}

    def until(share: float) -> float:
        def took(fit_key: str, each: Seconds) -> float:
            name = tables[fit_key]
            part = _scaled(lengths[name], share)[1] / lengths[name][1] if name in lengths else 1.0
            return each.fit * part + each.rest

        return elapsed(plan.cells, {fit_key: took(fit_key, each) for fit_key, each in times.items()}, places)

    asked = seconds_of(budget)
    share = _largest(until, asked)
    rows: dict[str, RowPlan] = {}
    kept: list[str] = []
    for name, cells in of_tables.items():
        length: dict[str, Any] = dict([_scaled(lengths[name], share)]) if name in lengths and share < 1 else {}
        chosen, batch = _chosen(cells, found, suite.model[name])
        if batch and not _batch_is_free(cells, suite.model[name]):
            kept.append(_KEPT.format(name, batch["batch"], batch["accumulate_grad_batches"]))
            batch = {}
        rows[name] = RowPlan(**length, **chosen, **batch)
    rows = {name: each for name, each in rows.items() if each.model_dump(exclude_none=True)}
    file = PlanFile(budget=budget, machine=machine or hardware().named, threads=packing.threads, model=rows)
    takes = until(share)
    return Fitted(file, share, takes, [*kept, *_notes(lengths, share, takes, asked)])


def _length(cells: Sequence[Cell], table: Mapping[str, Any]) -> tuple[str, int] | None:
    """How long a row is trained, as epochs or steps; None: it is not, or that is a setting which is swept."""
    if is_sweep(table.get("epochs")) or is_sweep(table.get("steps")):
        return None
    recipes = [cell.fit["recipe"] for cell in cells]
    found = {(unit, recipe[unit]) for recipe in recipes if recipe for unit in ("epochs", "steps") if recipe[unit]}
    return found.pop() if len(found) == 1 else None


def _scaled(length: tuple[str, int], share: float) -> tuple[str, int]:
    """A share of it with two digits: an epoch at least, or a hundredth of the steps."""
    unit, number = length
    if share >= 1:
        return length
    least = 1 if unit == "epochs" else max(1, two_digits(number * LEAST))
    return unit, max(least, two_digits(number * share))


def _largest(until: Callable[[float], float], budget: float) -> float:
    """The largest share with which all is done in time; 0: there is none."""
    if until(1.0) <= budget:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if until(middle) <= budget else (low, middle)
    return low


def keeps_precision(cell: Cell, table: Mapping[str, Any]) -> bool:
    """Whether a row's precision is the suite's to say: it is the row's own, or of trainers that are compared."""
    return cell.trained_by != "" or "precision" in table.get("trainer", {})


def _chosen(
    cells: Sequence[Cell], found: Mapping[str, Calibration], table: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the calibration chose for a row, where that is not what the suite says, and its micro-batch apart.

    A row is of one setting on all datasets. So it is that of the cell for which memory had to be shared out most, since
    what was measured to fit there fits in the others too; of several, that of the one that takes longest.
    """
    measured = [
        (settings, found[cell.fit_key].seconds_a_face, cell)
        for cell in cells
        if cell.fit_key in found and (settings := found[cell.fit_key].settings) is not None
    ]
    if not measured:
        return {}, {}

    def tightest(each: tuple[Settings, float, Cell]) -> tuple[float, float]:
        return each[0].batch / _own_batch(each[2])[0], -each[1]

    settings, _, cell = min(measured, key=tightest)
    chosen: dict[str, Any] = {name: True for name, chosen in dataclasses.asdict(settings.execution).items() if chosen}
    if settings.precision != cell.trainer["precision"] and not keeps_precision(cell, table):
        chosen["precision"] = settings.precision
    batch = {"batch": settings.batch, "accumulate_grad_batches": settings.accumulate_grad_batches}
    return chosen, {} if tuple(batch.values()) == _own_batch(cell) else batch


def _own_batch(cell: Cell) -> tuple[int, int]:
    """Faces of a cell's micro-batch and over how many of them gradients are accumulated, as the suite says."""
    return batch_of_one(cell.fit, cell.trainer), cell.trainer.get("accumulate_grad_batches", 1)


def _batch_is_free(cells: Sequence[Cell], table: Mapping[str, Any]) -> bool:
    """Whether one micro-batch can take the place of the suite's: all of a row's cells have the same, by no sweep."""
    swept = (table.get("batch"), table.get("trainer", {}).get("accumulate_grad_batches"))
    return not any(map(is_sweep, swept)) and len({_own_batch(cell) for cell in cells if cell.trains}) == 1


def execution_of(cell: Cell, suite: Suite, cells: Sequence[Cell], plan: PlanFile | None) -> Execution:
    """How a cell's fit is computed, by the board's plan."""
    name = None if plan is None else table_of(cell, suite, cells)
    row = None if plan is None or name is None else plan.model.get(name)
    if row is None:
        return Execution()
    return Execution(**{each.name: bool(getattr(row, each.name)) for each in dataclasses.fields(Execution)})


def _notes(lengths: Mapping[str, tuple[str, int]], share: float, takes: float, asked: float) -> Sequence[str]:
    notes = []
    for name, (unit, number) in lengths.items():
        if share < 1 and (number * share < 1 if unit == "epochs" else share < LEAST):
            least = "1 epoch" if unit == "epochs" else "1 % of its steps"
            notes.append(f"{name} would get less than {least}, and gets that")
    if takes > asked:
        notes.append(
            f"this takes {timedelta(seconds=round(takes))}: judges, reader and guides at their full recipe, and what "
            "generators draw to be measured, take more than the budget leaves. Name a longer one, or a smaller suite"
        )
    return notes
