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
from emobench.runner.calibrate import Calibration, Seconds, of_all
from emobench.runner.duration import elapsed
from emobench.runner.machine import hardware
from emobench.runner.threads import Packing
from emobench.suite.budget import PlanFile, RowPlan, seconds_of, two_digits
from emobench.suite.cell import Cell, Plan, without_trainer
from emobench.suite.file import Suite
from emobench.suite.firewall import panel_of
from emobench.suite.keys import batch_of_one

LEAST = 0.01  # of a row's steps; of epochs it is one


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
    times, places = of_all(plan, found), packing.per_node * packing.machines.number
    wholes = {name: _length(plan.cells, tables, name) for name in free}
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
    for fit_key, name in tables.items():
        if name is None or name in rows:
            continue
        length: dict[str, Any] = dict([_scaled(lengths[name], share)]) if name in lengths and share < 1 else {}
        cell = next(cell for cell in plan.cells if cell.fit_key == fit_key)
        chosen = _chosen(cell, found[fit_key], suite.model[name]) if fit_key in found else {}
        rows[name] = RowPlan(**length, **chosen)
    rows = {name: each for name, each in rows.items() if each.model_dump(exclude_none=True)}
    file = PlanFile(budget=budget, machine=machine or hardware().named, threads=packing.threads, model=rows)
    takes = until(share)
    return Fitted(file, share, takes, list(_notes(lengths, share, takes, asked)))


def _length(cells: Sequence[Cell], tables: Mapping[str, str | None], name: str) -> tuple[str, int] | None:
    """How long a row is trained, as epochs or steps; None: it is not, or its settings differ in that."""
    recipes = [cell.fit["recipe"] for cell in cells if tables[cell.fit_key] == name]
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


def _chosen(cell: Cell, found: Calibration, table: Mapping[str, Any]) -> dict[str, Any]:
    """What the calibration chose for a row, where that is not what the suite says: micro-batch and precision."""
    if found.settings is None:
        return {}
    said = dataclasses.asdict(found.settings)
    speed = {each.name: True for each in dataclasses.fields(Execution) if said.pop(each.name)}
    trainer = cell.trainer
    own = {
        "precision": trainer["precision"],
        "batch": batch_of_one(cell.fit, trainer),
        "accumulate_grad_batches": trainer.get("accumulate_grad_batches", 1),
    }
    chosen = {name: value for name, value in said.items() if value != own[name]}
    if keeps_precision(cell, table):
        chosen.pop("precision", None)
    return {**chosen, **speed}


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
