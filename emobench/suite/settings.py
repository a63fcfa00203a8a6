"""Sweeps of settings: a row of a suite in which keys have several values, as one row for each setting.

    [model.resnet18]
    lr = { sweep = [1e-4, 3e-4] }

makes the rows `resnet18[lr=0.0001]` and `resnet18[lr=0.0003]`; several such keys make a grid. A setting is the same row
as one written by hand, so it has the same keys, and nothing is trained twice.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emobench.errors import SuiteError

if TYPE_CHECKING:
    from emobench.suite.file import Suite
    from emobench.suite.rows import ModelRow

SWEEP = "sweep"
_EXAMPLE = f"lr = {{ {SWEEP} = [1e-4, 3e-4] }}"
# Keys of a row that say which network it is and where it is run: settings that differ in them are no alternatives.
_NO_SETTINGS = ("class", "needs", "on", "train_on", "seeds", "trainers", "optional")

Keys = tuple[str, ...]  # the tables on the way to a setting, and its name


def settings(where: str, name: str, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of a row's table, the last key the fastest: name of the row -> its table, as if written by hand.

    A table in which nothing is swept is its own only setting, under its own name.

    Raises:
        SuiteError: a sweep is no list of values, names one twice, or sweeps what is no setting.
    """
    where = f"{where}, [model.{name}]"
    axes = {keys: _values(where, keys, swept) for keys, swept in _swept(table)}
    if not axes:
        return {name: dict(table)}
    found: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        row = f"{name}[{','.join('.'.join(keys) + '=' + _shown(value) for keys, value in chosen.items())}]"
        if row in found:
            raise SuiteError(f"{where}: two settings would both be called {row}; leave one of them out")
        found[row] = {"class": name, **_with(table, chosen)}
    return found


def is_sweep(value: Any) -> bool:
    """Whether a value of a suite asks for a sweep, rightly or not."""
    return isinstance(value, Mapping) and SWEEP in value


def _swept(table: Mapping[str, Any], above: Keys = ()) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
    """The sweeps of a table and of the tables in it, with their places."""
    for name, value in table.items():
        if is_sweep(value):
            yield (*above, name), value
        elif isinstance(value, Mapping):
            yield from _swept(value, (*above, name))


def _values(where: str, keys: Keys, swept: Mapping[str, Any]) -> list[Any]:
    name, values = ".".join(keys), swept[SWEEP]
    if keys[0] in _NO_SETTINGS:
        raise SuiteError(f"{where}: {name} is no setting that can be swept; write a row for each value")
    if len(swept) > 1 or not isinstance(values, list) or not values:
        raise SuiteError(f"{where}: {name} = {dict(swept)!r} is no sweep such as {_EXAMPLE}")
    for value in values:
        if values.count(value) > 1:
            raise SuiteError(f"{where}: {name} sweeps {value!r} {values.count(value)} times; name each value once")
    return values


def _shown(value: Any) -> str:
    """A value in the name of a row: numbers and words as they are, others as JSON without spaces."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def _with(table: Mapping[str, Any], chosen: Mapping[Keys, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(table))
    for keys, value in chosen.items():
        inner = changed
        for name in keys[:-1]:
            inner = inner[name]
        inner[keys[-1]] = copy.deepcopy(value)
    return changed


def check_places(where: str, suite: Suite) -> None:
    """Settings are swept in rows of models alone.

    Raises:
        SuiteError: a dataset or the trainer has one.
    """
    tables = {f"data.{name}": table for name, table in suite.data.items()} | {"trainer": suite.trainer}
    for place, table in tables.items():
        for keys, _ in _swept(table):
            raise SuiteError(
                f"{where}, [{place}]: {'.'.join(keys)} cannot be swept: settings of a model are, in its own row, such "
                f"as [model.resnet18] with {_EXAMPLE}"
            )


def check_chosen_among(where: str, row: ModelRow) -> None:
    """The settings of a classifier have a validation score by which one of them is chosen.

    Raises:
        SuiteError: they have none.
    """
    if row.generates or (row.recipe is not None and row.recipe.monitor is not None):
        return
    why = "is not trained" if row.recipe is None else "chooses no epoch on validation faces (its monitor is none)"
    raise SuiteError(
        f"{where}, [model.{row.setting_of}]: {row.model} {why}, so it has no validation score that chooses among its "
        "settings; write a row for each of them"
    )


def check_nobody_uses(where: str, suite: Suite, rows: list[ModelRow]) -> None:
    """No other row rests on a sweep: what a row needs, and who judges it, is one network that the suite names.

    Raises:
        SuiteError: a swept row, or a setting of one, is a need, a judge or the reader.
    """
    swept = {name: row.setting_of for row in rows if row.setting_of for name in (row.setting_of, row.row)}
    uses = [(f"the {role} of {row.row}", name) for row in rows for role, names in row.needs.items() for name in names]
    if any(row.generates for row in rows):
        uses += [("a judge", name) for name in suite.panel] + [("the reader", suite.reader)]
    for what, name in uses:
        if name in swept:
            found = "a sweep of settings" if name == swept[name] else f"a setting of the sweep {swept[name]}"
            raise SuiteError(
                f"{where}: {name} is {what}, and {found}. Which setting is chosen is known only when all are trained, "
                f"and what others rest on must be one network from the start: run the sweep in a suite without "
                f"{what}, then write the setting that it chose as a row of its own, or name another row"
            )
