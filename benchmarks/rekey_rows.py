"""Committed rows, the suites that they are of as their records have them, and the same suites shortened.

Of `rekey.py`.
"""

from __future__ import annotations

import csv
import lzma
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emobench.files import read_object
from emobench.runner.record import Record, read_record
from emobench.runner.store import load_board
from emobench.suite.keys import key, name_of

EPOCHS, STEPS = 2, 16  # of a shortened fit
FACES = {"train": 256, "val": 64, "test": 640}  # drawn; from 640 test faces on there is FED
EVALUATION = {"fidelity": 640, "per_emotion": 2, "sources": 8, "intensity": 1}
COSTLY = 5e8  # FLOPs of a face from which on ...
FEW = 32  # ... so few are drawn for fidelity
EVERY = 60  # of the rows of a file of faces, each so-manieth is kept
FIRST = "first"  # of a record that has another key now: the keys that its commit gave it, and what they are made of

Name = tuple[str, str, int, str | None]  # row, dataset, seed, control


@dataclass
class Row:
    """A committed row, and what is found out about it."""

    board: str
    folder: Path  # results/<board>/cells/<eval_key>
    record: Record
    first: Mapping[str, Any]  # its keys as its commit gave them, and `made_of`: what these are made of
    new: Mapping[str, Any] | None = (
        None  # what today's keys are made of: "fit" and "eval"; None: it is not planned here
    )
    why: list[str] = field(default_factory=list)  # it keeps its key

    @property
    def name(self) -> Name:
        cell = self.record.cell
        return cell.row, cell.dataset, cell.seed, cell.control

    @property
    def label(self) -> str:
        row, dataset, seed, _ = self.name
        return f"{self.board}: {row} on {dataset}, seed {seed}"

    @property
    def commits(self) -> list[str]:
        """Those that fitted and evaluated it, mostly one."""
        made = [self.record.versions, None if self.record.fit is None else self.record.fit.versions]
        return list(dict.fromkeys(each.named for each in made if each is not None))


def rows_of(results: Path, board: str) -> list[Row]:
    """The finished rows of a board whose records are committed with it."""
    found = []
    for cell in load_board(results, board):
        folder = results / board / "cells" / cell.eval_key
        if cell.state == "done" and (folder / "result.json").exists():
            found.append(read_row(board, folder))
    return found


def read_row(board: str, folder: Path) -> Row:
    """A committed row; one that was given another key before says which it had."""
    content = read_object(folder / "result.json")
    first = content.get(FIRST, {name: content[name] for name in ("fit_key", "eval_key", "made_of")})
    return Row(board, folder, read_record(folder / "result.json"), first)


def with_needs(wanted: Iterable[Row], board: Sequence[Row]) -> list[Row]:
    """Rows and all that they need: networks, judges and reader; of a control, the row whose control it is."""
    by_key: dict[str, list[Row]] = {}
    for row in board:
        by_key.setdefault(row.record.fit_key, []).append(row)
    found: dict[Name, Row] = {}
    todo = list(wanted)
    while todo:
        row = todo.pop()
        if row.name in found:
            continue
        found[row.name] = row
        cell = row.record.cell
        todo += [each for keys in (*cell.needs.values(), *cell.panel.values()) for k in keys for each in by_key[k]]
        if cell.control is not None:
            todo += [each for each in board if each.record.cell.control is None and _network(each) == _network(row)]
    return [row for row in board if row.name in found]


def _network(row: Row) -> str:
    """What a row and its control have in common."""
    fit = row.first["made_of"]["fit"]
    return key([row.record.cell.dataset, *(fit[name] for name in ("arguments", "recipe", "trainer", "seed"))])


def suite_of(rows: Sequence[Row]) -> dict[str, Any]:
    """What a suite file says whose rows these are, each with all its arguments, as their records have them.

    Raises:
        ValueError: a row is fitted on several datasets together, or rows disagree on what a suite says once.
    """
    seeds = sorted({row.record.cell.seed for row in rows})
    suite: dict[str, Any] = {"seeds": seeds, "data": {}, "model": {}}
    keys = {row.record.fit_key: row.record.cell.row for row in rows}
    named = [row for row in rows if row.record.cell.control is None]
    datasets = list(dict.fromkeys(row.record.cell.dataset for row in named))
    shared = _shared([row.first["made_of"]["fit"]["trainer"] for row in named])
    if shared:
        suite["trainer"] = shared
    for row in named:
        cell, made_of = row.record.cell, row.first["made_of"]
        data = made_of["fit"]["data"]
        if "joint" in data:
            raise ValueError(f"{cell.row} is fitted on several datasets together")
        _set(suite["data"], cell.dataset, {"class": _class(cell.dataset, data), **_given(data["arguments"])})
        mine = [other.record.cell for other in named if other.record.cell.row == cell.row]
        _set(suite["model"], cell.row, {**_table(row, keys, shared), **_where(mine, datasets, seeds)})
        if cell.panel:
            _set(suite, "panel", [keys[each] for each in cell.panel["judges"]])
            _set(suite, "reader", keys[cell.panel["reader"][0]])
            _set(suite, "evaluation", {name: n for name, n in made_of["eval"]["faces"].items() if n is not None})
    return suite


def _table(row: Row, keys: Mapping[str, str], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a row in its suite.

    Args:
        keys: fit_key -> row.
        shared: options of the trainer that the suite says for all.
    """
    cell, fit = row.record.cell, row.first["made_of"]["fit"]
    table = {"class": _class(cell.model, fit), **_given(fit["arguments"])}
    recipe = {} if fit["recipe"] is None else _given(fit["recipe"])
    table |= {name: value for name, value in recipe.items() if name not in ("epochs", "steps") or value != "none"}
    trainer = {name: value for name, value in fit["trainer"].items() if name not in shared}
    needs = {role: [keys[each] for each in of] for role, of in cell.needs.items()}
    return table | ({"trainer": trainer} if trainer else {}) | ({"needs": needs} if needs else {})


def _shared(trainers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The options that all rows have in common."""
    return {name: value for name, value in trainers[0].items() if all(each.get(name) == value for each in trainers)}


def _class(named: str, made_of: Mapping[str, Any]) -> str:
    """The class of a table, whose arguments say the rest: of a family, as `timm:resnet10t`, its member."""
    name = name_of(made_of)
    return named if named.startswith(f"{name}:") else name


def _set(table: dict[str, Any], name: str, value: Any) -> None:
    if table.setdefault(name, value) != value:
        raise ValueError(f"rows of one suite have two settings of {name}")


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a suite gives them: TOML has no null."""
    return {name: "none" if value is None else value for name, value in arguments.items()}


def _where(cells: Sequence[Any], datasets: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """On which of the datasets and with which of the seeds a row is run, where that is not all of them."""
    on = [name for name in datasets if any(cell.dataset == name for cell in cells)]
    at = sorted({cell.seed for cell in cells})
    return {**({} if on == datasets else {"on": on}), **({} if at == seeds else {"seeds": at})}


def shortened(suite: Mapping[str, Any], costly: bool = False) -> dict[str, Any]:
    """The same suite with few faces and steps.

    Args:
        costly: a face of one of its rows takes long.
    """
    data = {
        name: {**table, **{split: n for split, n in FACES.items() if split in table}}
        for name, table in suite["data"].items()
    }
    model = {}
    for name, table in suite["model"].items():
        short = {"epochs": EPOCHS} if "epochs" in table else {"steps": STEPS} if "batch" in table else {}
        model[name] = {**table, **short}
    evaluation = {**EVALUATION, **({"fidelity": FEW} if costly else {})}
    return {**suite, "data": data, "model": model, **({"evaluation": evaluation} if "panel" in suite else {})}


def is_costly(row: Row) -> bool:
    """Whether a face that the row makes takes long."""
    of = row.record.evaluation
    return bool(row.record.cell.panel) and of is not None and of.flops > COSTLY


def groups(wanted: Sequence[Row]) -> list[list[Row]]:
    """Rows that are run together: classifiers seed by seed, others apart where a face of theirs takes long."""
    found: dict[Any, list[Row]] = {}
    for row in wanted:
        of = (is_costly(row),) if row.record.cell.panel else ("seed", row.record.cell.seed)
        found.setdefault(of, []).append(row)
    return list(found.values())


def thinned(source: Path, target: Path) -> None:
    """A data root with each `EVERY`th row of the tables of faces of another one, in which rows stand in one order."""
    for path in sorted(source.glob("*/*.csv*")):
        place = target / path.parent.name / path.name.removesuffix(".xz")
        place.parent.mkdir(parents=True, exist_ok=True)
        with (lzma.open if path.suffix == ".xz" else open)(path, "rt", newline="") as file:
            rows = csv.reader(file)
            head = next(rows)
            kept = [row for number, row in enumerate(rows) if number % EVERY == 0]
        with open(place, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([head, *kept])
