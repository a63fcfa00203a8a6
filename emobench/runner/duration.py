"""How long fits take: as long as like ones took in this store, else at most about what their size and steps allow.

The bound is parameters × faces × pixels × a rate, and a little for each step. The rate is that of the slowest fit of
the class in this store, else on a committed board, on two cores without a GPU (`benchmarks/rates.py` writes that
table); of a class that neither has, the slowest of all.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emobench.data.balance import Balance
from emobench.errors import StoreError
from emobench.runner.record import Record, read_record
from emobench.runner.store import Store
from emobench.suite.cell import Cell, Plan
from emobench.suite.keys import in_todays_form, key, name_of

TABLE = Path(__file__).with_name("rates.csv")
CORES = 2  # of the machines that the table is of
_START, _STEP = 10.0, 0.01  # seconds that the smallest network takes too, for a fit and for a step


def alike(fit: dict[str, Any]) -> str:
    """What two fits have in common that should take the same time."""
    fit = in_todays_form(fit)
    data = {name: value for name, value in fit["data"].items() if name != "fingerprint"}
    return key({name: fit[name] for name in ("model", "arguments", "recipe", "trainer")} | {"data": data})


def rate(record: Record) -> float | None:
    """Seconds for each parameter, face and pixel of a fit; None: it was none."""
    cost, recipe = (None if record.fit is None else record.fit.cost), record.made_of.fit["recipe"]
    if cost is None or recipe is None or cost.fit_faces_per_s <= 0 or not record.cell.parameters:
        return None
    return 1 / cost.fit_faces_per_s / record.cell.parameters / _side(recipe, record.cell.size) ** 2


def slowest(records: Iterable[Record]) -> dict[str, float]:
    """The slowest rate of each class, by its name."""
    found: dict[str, float] = {}
    for record in records:
        if (each := rate(record)) is not None:
            name = name_of(record.made_of.fit)
            found[name] = max(each, found.get(name, 0.0))
    return found


def packaged() -> dict[str, float]:
    """The rates of the committed boards, in seconds."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        return {row["model"]: float(row["picoseconds"]) * 1e-12 for row in csv.DictReader(file)}


@dataclass(frozen=True)
class Durations:
    """What is known of how long fits take.

    Attributes:
        like: seconds of the fits in this store, by what they have in common (see `alike`).
        own: rates of the classes in this store.
        others: rates of committed boards.
    """

    like: Mapping[str, float]
    own: Mapping[str, float]
    others: Mapping[str, float]

    @classmethod
    def of(cls, store: Store) -> Durations:
        """Of the fits of a store."""
        records = [record for path in store.cells.glob("*/fit.json") if (record := _readable(path)) is not None]
        like: dict[str, list[float]] = {}
        for record in records:
            if record.fit is not None and record.fit.cost is not None:
                like.setdefault(alike(record.made_of.fit), []).append(record.fit.cost.fit_seconds)
        return cls({name: sum(each) / len(each) for name, each in like.items()}, slowest(records), packaged())

    def at_most(self, cell: Cell, plan: Plan) -> float:
        """Seconds that a fit may take."""
        name, cores = name_of(cell.fit), len(os.sched_getaffinity(0))
        found = self.own.get(name)
        if found is None:
            found = self.others.get(name, max(self.others.values())) * max(1.0, CORES / cores)
        recipe, seen = cell.fit["recipe"], faces(cell, plan)
        computed: float = found * cell.parameters * seen * _side(recipe, cell.size) ** 2
        return _START + _STEP * seen / float(recipe["batch"]) + computed


def faces(cell: Cell, plan: Plan) -> float:
    """How many faces a fit sees at most, each as often as it does."""
    recipe = cell.fit["recipe"]
    if recipe["steps"] is not None:
        return float(recipe["steps"] * recipe["batch"] * cell.trainer.get("accumulate_grad_batches", 1))
    there: Counter[str] = Counter()
    for dataset in plan.faces if "joint" in cell.fit["data"] else [cell.dataset]:
        there.update(plan.faces[dataset])
    balance = Balance(recipe["oversample"], recipe["undersample"], recipe["rotate_to"])
    return float(recipe["epochs"] * balance.counts(np.array(list(there.values()))).sum())


def _side(recipe: Mapping[str, Any], size: int) -> int:
    side: int = recipe["size"] or size
    return side


def _readable(path: Path) -> Record | None:
    try:
        return read_record(path)
    except (StoreError, OSError):
        return None
