"""How long fits take: as long as like ones took in this store, else at most about what their size and steps allow.

The bound is parameters × faces × pixels × a rate, and a little for each step. The rate is that of the slowest fit of
the class in this store, else on a committed board without a GPU (`benchmarks/rates.py` writes that table); of a class
that neither has, the slowest of all. It is that of one thread; a second halves it at best, and of more none is sure.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
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
THREADS = 2  # up to which a fit gets faster with each
_START, _STEP = 10.0, 0.01  # seconds that the smallest network takes too, for a fit and for a step


def alike(fit: dict[str, Any], threads: int) -> str:
    """What two fits have in common that should take the same time."""
    fit = in_todays_form(fit)
    data = {name: value for name, value in fit["data"].items() if name != "fingerprint"}
    same = {name: fit.get(name) for name in ("model", "arguments", "recipe", "trainer", "apart")}
    return key(same | {"data": data, "threads": threads})


def rate(record: Record) -> float | None:
    """Seconds of one thread for each parameter, face and pixel of a fit; None: it was none."""
    cost, recipe = (None if record.fit is None else record.fit.cost), record.made_of.fit["recipe"]
    if cost is None or recipe is None or cost.fit_faces_per_s <= 0 or not record.cell.parameters:
        return None
    seconds = min(_threads(record), THREADS) / cost.fit_faces_per_s
    return seconds / record.cell.parameters / _side(recipe, record.cell.size) ** 2


def _threads(record: Record) -> int:
    """Those that a fit was made with; older records, which do not say, had one a core."""
    machine = record.hardware if record.fit is None else record.fit.hardware
    return 1 if machine is None else machine.threads or machine.cores


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
                name = alike(record.made_of.fit, _threads(record))
                like.setdefault(name, []).append(record.fit.cost.fit_seconds)
        return cls({name: sum(each) / len(each) for name, each in like.items()}, slowest(records), packaged())

    def at_most(self, cell: Cell, plan: Plan, threads: int) -> float:
        """Seconds that a fit may take with so many threads."""
        name = name_of(cell.fit)
        found = self.own.get(name, self.others.get(name, max(self.others.values()))) / min(threads, THREADS)
        recipe, seen = cell.fit["recipe"], faces(cell, plan)
        computed: float = found * cell.parameters * seen * _side(recipe, cell.size) ** 2
        return _START + _STEP * seen / float(recipe["batch"]) + computed


def faces(cell: Cell, plan: Plan) -> float:
    """How many faces a fit sees at most, each as often as it does."""
    recipe = cell.fit["recipe"]
    if recipe["steps"] is not None:
        return float(recipe["steps"] * recipe["batch"] * cell.trainer.get("accumulate_grad_batches", 1))
    return float(recipe["epochs"] * _of_an_epoch(cell, plan))


def validated(cell: Cell, plan: Plan, batches_a_step: int) -> float:
    """How many faces a fit reads for validation at most, each as often as it does.

    Args:
        batches_a_step: of training for one step of the network that is trained.
    """
    recipe, trainer, epoch = cell.fit["recipe"], cell.trainer, _of_an_epoch(cell, plan)
    epochs = recipe["epochs"] or faces(cell, plan) * batches_a_step / epoch
    there = sum(plan.validation[each] for each in _datasets(cell, plan))
    limit, every = trainer.get("limit_val_batches"), trainer.get("val_check_interval")
    if limit is not None:
        batch = max(64, recipe["batch"])  # of the loader
        there = min(there, limit * batch) if isinstance(limit, int) else int(limit * there)
    if every is None:
        return float(epochs * there)
    passes = max(1, epoch // recipe["batch"]) // every if isinstance(every, int) else int(1 / every)
    return float(epochs * there * max(1, passes))


def _datasets(cell: Cell, plan: Plan) -> Sequence[str]:
    """Those that a fit sees."""
    return plan.trained_on[cell.row] if "joint" in cell.fit["data"] else [cell.dataset]


def _of_an_epoch(cell: Cell, plan: Plan) -> int:
    """Faces that a fit sees in an epoch at most."""
    recipe = cell.fit["recipe"]
    balance = Balance(recipe["oversample"], recipe["undersample"], recipe["rotate_to"])
    faces_of = (np.array(list(plan.faces[each].values())) for each in _datasets(cell, plan))
    there = [int(balance.counts(each).sum()) for each in faces_of]
    return _limited(there, recipe["batch"], cell.trainer.get("limit_train_batches"))


def _limited(there: Sequence[int], batch: int, limit: float | None) -> int:
    """Faces of an epoch, of each dataset so many, of which Lightning may see a number of batches or a share of them."""
    if limit is None:
        return sum(there)
    batches = limit if isinstance(limit, int) else int(limit * sum(max(1, each // batch) for each in there))
    return min(sum(there), max(1, batches) * batch)


def elapsed(cells: Iterable[Cell], seconds: Mapping[str, float], per_node: int) -> float:
    """Seconds until all are done, some side by side, each when those that it needs are done and one has ended.

    Args:
        cells: in the plan's order.
        seconds: fit_key -> of a fit; what has none takes no time.
    """
    todo = list({cell.fit_key: cell for cell in cells if cell.fit_key in seconds}.values())
    place = {cell.fit_key: k for k, cell in enumerate(todo)}
    lacks = [{place[name] for name in cell.awaits if name in place} - {k} for k, cell in enumerate(todo)]
    needed_by: list[list[int]] = [[] for _ in todo]
    for k, lacking in enumerate(lacks):
        for needed in lacking:
            needed_by[needed].append(k)
    ready = [k for k, lacking in enumerate(lacks) if not lacking]  # in order, and so a heap
    running: list[tuple[float, int]] = []  # when each ends
    now = 0.0
    while ready or running:
        while ready and len(running) < per_node:
            k = heappop(ready)
            heappush(running, (now + seconds[todo[k].fit_key], k))
        now = running[0][0]
        while running and running[0][0] == now:
            _, ended = heappop(running)
            for k in needed_by[ended]:
                lacks[k].remove(ended)
                if not lacks[k]:
                    heappush(ready, k)
    return now


def _side(recipe: Mapping[str, Any], size: int) -> int:
    side: int = recipe["size"] or size
    return side


def _readable(path: Path) -> Record | None:
    try:
        return read_record(path)
    except (StoreError, OSError):
        return None
