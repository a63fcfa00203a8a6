"""Trainers as an axis: `[trainer.NAME]` tables, under each of which every row is fitted.

    [trainer]                    # options that all of them share
    gradient_clip_val = 1.0
    [trainer.fp32]
    [trainer.amp]
    precision = "bf16-mixed"

makes two rows of `[model.resnet18]`: `resnet18`, of the first trainer, and `resnet18@amp`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emobench.errors import SuiteError
from emobench.suite.keys import apart, with_global_batch
from emobench.suite.rows import ModelRow, check_devices, trainer_options

USUAL: Mapping[str, Any] = {"precision": "32-true", "devices": 1}  # of every fit whose suite says nothing else


@dataclass(frozen=True)
class Trainer:
    """Options of Lightning's Trainer for every row of a suite."""

    name: str  # "": the suite's only one, which has none
    options: dict[str, Any]  # all of them
    suffix: str  # of the names of its rows; the first trainer's rows keep theirs


def trainers_of(where: str, table: Mapping[str, Any]) -> list[Trainer]:
    """The trainers of a suite's `[trainer]` table, in its order: one without a name unless it holds tables.

    Raises:
        SuiteError: an option is unknown or does not fit, or two trainers are the same.
    """
    named = {name: options for name, options in table.items() if isinstance(options, Mapping)}
    for name in named:
        _check_name(where, name)
    shared = {name: value for name, value in table.items() if name not in named}
    shared = {**USUAL, **trainer_options(f"{where}, [trainer]", shared)}
    if not named:
        return [Trainer("", shared, "")]
    found: list[Trainer] = []
    for name, options in named.items():
        own = trainer_options(f"{where}, [trainer.{name}]", options)
        found.append(Trainer(name, {**shared, **own}, f"@{name}" if found else ""))
    _check_differ(where, found, "Leave one of them out, or say in what they differ")
    return found


def _check_name(where: str, name: str) -> None:
    """A trainer's name is no option, for which it could be taken, and can be part of a row's."""
    from lightning.pytorch import Trainer as Lightning

    if name in inspect.signature(Lightning.__init__).parameters:
        raise SuiteError(
            f"{where}, [trainer]: {name} is an option of Lightning's Trainer, and so neither a table nor the name of a "
            f'trainer. Give it a value, or the table another name, such as [trainer.amp] with precision = "bf16-mixed"'
        )
    if not re.fullmatch(r"[\w-]+", name):
        raise SuiteError(f"{where}, [trainer.{name!r}]: a trainer is named by letters, digits, - and _, such as amp")


def _check_differ(where: str, trainers: Sequence[Trainer], remedy: str) -> None:
    """Two trainers that differ in what is shown alone, or in nothing, would be one and the same cell."""
    known: list[tuple[Any, str]] = []
    for trainer in trainers:
        counts = with_global_batch(None, trainer.options)["trainer"], apart(trainer.options)
        same = next((name for other, name in known if other == counts), None)
        if same is not None:
            raise SuiteError(f"{where}: the trainers {same} and {trainer.name} would do the same. {remedy}")
        known.append((counts, trainer.name))


def by_trainer(where: str, rows: Sequence[ModelRow], trainers: Sequence[Trainer]) -> list[ModelRow]:
    """Each row once for each of its trainers, with the whole of the trainer's options, and the needs of that trainer.

    What trains nothing, and needs nothing that is trained, is the same under every trainer: it is run with the first.

    Raises:
        SuiteError: a row names trainers of which one changes nothing, needs a row that is not run with its own, or is
            fitted on devices in a way that is not held to the numbers of one.
    """
    fixed = _fixed(rows)
    found = [each for row in rows for each in _rows_of(where, row, trainers, row.row in fixed)]
    names: set[str] = set()
    for row in found:
        if row.row in names:
            raise SuiteError(f"{where}: two rows would both be called {row.row}; rename one of them")
        names.add(row.row)
        if row.recipe is not None:
            check_devices(f"{where}, trainer {row.trained_by}".rstrip() + f" of [model.{row.row}]", row.trainer)
    suffixes = {trainer.name: trainer.suffix for trainer in trainers}
    return [_with_needs(where, row, suffixes[row.trained_by], names, fixed) for row in found]


def _fixed(rows: Sequence[ModelRow]) -> set[str]:
    """The rows that are the same under every trainer."""
    untrained = [row for row in rows if row.recipe is None]
    fixed: set[str] = set()
    more = True
    while more:  # until what rests on them is among them too
        more = False
        for row in untrained:
            if row.row not in fixed and all(name in fixed for names in row.needs.values() for name in names):
                fixed.add(row.row)
                more = True
    return fixed


def _rows_of(where: str, row: ModelRow, trainers: Sequence[Trainer], fixed: bool) -> Iterator[ModelRow]:
    where = f"{where}, [model.{row.row}]"
    mine = [each for each in trainers if row.trainers is None or each.name in row.trainers]
    if fixed:
        if row.trainers is not None:
            raise SuiteError(f"{where}: is not trained, so that a trainer changes nothing of it; leave trainers out")
        mine = mine[:1]
    effective = [dataclasses.replace(each, options={**each.options, **row.trainer}) for each in mine]
    _check_differ(f"{where} trainer", effective, 'Name one of them, such as trainers = ["fp32"]')
    for each in effective:
        setting_of = row.setting_of and f"{row.setting_of}{each.suffix}"
        name = f"{row.row}{each.suffix}"
        yield dataclasses.replace(row, row=name, setting_of=setting_of, trainer=each.options, trained_by=each.name)


def _with_needs(where: str, row: ModelRow, suffix: str, names: set[str], fixed: set[str]) -> ModelRow:
    """The row with the names of the rows of its trainer that fill its needs."""

    def of_mine(role: str, name: str) -> str:
        mine = f"{name}{suffix}"
        if mine not in names and any(other == name or other.startswith(f"{name}@") for other in names):
            raise SuiteError(
                f"{where}, [model.{row.row.removesuffix(suffix)}]: its {role} {name} is not run with the trainer "
                f"{row.trained_by}. Name trainers that both of them have, by trainers = [...]"
            )
        return mine

    needs = {role: [name if name in fixed else of_mine(role, name) for name in of] for role, of in row.needs.items()}
    return dataclasses.replace(row, needs=needs)
