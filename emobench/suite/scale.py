"""`--scale`: a suite on a share of its faces and epochs, on drawn faces in the place of a dataset that is not here.

What it comes to is written into the suite's tables before anything is planned, so that keys are those of a suite that
says so by itself:

- `epochs` times the share, one at least; `steps`, which stand for faces and epochs, times its square.
- An epoch is a share of its batches (Lightning's `limit_train_batches`), one at least, drawn anew each time. Which
  faces are training, validation and test stays as it is, and the test split is read whole.
- `rotate_to`, which fills classes up to so many faces, times the share where faces are drawn.
- A dataset that is not below the data root becomes one of drawn faces with its emotions, under a name that says so:
  `drawn-for-ckplus`. Of drawn faces there are fewer instead, in all splits.
- What an evaluation draws, and the steps of a search, which is all that a row without a fit does: the share likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emobench.emotions import EMOTIONS
from emobench.errors import SuiteError
from emobench.suite.file import Cues, Suite
from emobench.suite.overrides import checked_name
from emobench.suite.rows import DataRow, ModelRow, class_of_data, data_row, datasets_of, model_row
from emobench.suite.settings import is_sweep, settings
from emobench.suite.trainers import trainers_of

STAND_IN = "drawn-for-"  # before the name of the dataset that drawn faces stand in for
_DRAWN = "synthetic-plain"  # gray, aligned and strong: what little training can read
_LEAST = {"train": 10, "val": 4, "test": 4}  # drawn faces of each emotion
_SEARCHES = ("steps", "projection_steps")  # arguments of rows that search instead of being fitted
_LEAST_DRAWN = {"per_emotion": 2, "sources": 8, "intensity": 0}  # of an evaluation


def stands_in_for(dataset: str) -> str | None:
    """The dataset that drawn faces of this name stand in for; None: they do not.

    >>> stands_in_for("drawn-for-ckplus"), stands_in_for("synthetic")
    ('ckplus', None)
    """
    return dataset.removeprefix(STAND_IN) if dataset.startswith(STAND_IN) else None


def scaled(suite: Suite, scale: float, name: str | None, data_root: Path) -> Suite:
    """The suite on a share of its faces and epochs, whose board has a name of its own, unless it is given one.

    Args:
        scale: above 0, at most 1: then drawn faces stand in for what is not here, and nothing else differs.

    Raises:
        SuiteError, DatasetError: the share is none, or the suite is wrong.
    """
    if not 0 < scale <= 1:
        raise SuiteError(f"--scale {scale:g}: a share of faces and epochs is above 0 and at most 1, such as 0.05")
    where = f"suite {suite.name}"
    tables = datasets_of(suite, data_root)
    found = {
        each: data_row(where, each, {**table, "optional": True}, data_root) for each, table in tables.items()
    }  # in the place of those that are not here stands the reason
    data = dict(_dataset(where, each, tables[each], row, scale) for each, row in found.items())
    named = dict(zip(found, data, strict=True))
    faces = {each: _faces(row, scale) for each, row in found.items()}
    trainers = [each.name for each in trainers_of(where, suite.trainer)]
    model = {
        row: _row(where, row, table, suite, trainers, scale, faces, named) for row, table in _rows(where, suite).items()
    }
    asked = {each: getattr(suite.evaluation, each) for each in _LEAST_DRAWN}
    drawn = {each: max(min(_LEAST_DRAWN[each], number), round(scale * number)) for each, number in asked.items()}
    cues = suite.cues and Cues(each=max(1, round(scale * (suite.cues.each or 10))))
    board = suite.name if name is not None else checked_name(f"{suite.name}+scale={scale:g}")
    return suite.model_copy(
        update={
            "name": board,
            "scale": scale,
            "data": data,
            "model": model,
            "cues": cues,
            "evaluation": suite.evaluation.model_copy(update=drawn),
        }
    )


# Datasets


def _dataset(
    where: str, name: str, table: Mapping[str, Any], found: DataRow | str, scale: float
) -> tuple[str, dict[str, Any]]:
    """A dataset's name and table: as they are where its faces lie here, else those of drawn faces."""
    from emobench.suite.catalog import resolve

    cls = resolve("dataset", class_of_data(f"{where}, [data.{name}]", name, dict(table)))[0]
    if not isinstance(found, str):
        return name, {**table, **(_drawn(dict(table), found.arguments, scale) if not cls.expects else {})}
    emotions = list(cls.classes or EMOTIONS)
    drawn = {"class": _DRAWN, **_counts(len(emotions), {}, scale)}
    drawn |= {"size": table["size"]} if "size" in table else {}
    drawn |= {"only": emotions} if len(emotions) < len(EMOTIONS) else {}
    return f"{STAND_IN}{name.removeprefix('folder:')}", drawn


def _drawn(table: Mapping[str, Any], arguments: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """The faces of a dataset of the suite's that is drawn anyway; none are taken from files that name no counts."""
    if "train" not in arguments:
        return {}
    return _counts(len(arguments["only"] or EMOTIONS), arguments, scale)


def _counts(emotions: int, whole: Mapping[str, Any], scale: float) -> dict[str, int]:
    """Drawn faces of each split, equally many of each emotion."""
    from emobench.suite.catalog import parameters, resolve

    usual = parameters(resolve("dataset", _DRAWN)[0])
    given = {split: int(whole.get(split, usual[split].default)) for split in _LEAST}
    return {
        split: emotions * min(number // emotions, max(_LEAST[split], round(scale * number / emotions)))
        for split, number in given.items()
    }


def _faces(found: DataRow | str, scale: float) -> int | None:
    """Faces of an epoch of a dataset from files; None: all of them, as of drawn ones, of which there are fewer."""
    if isinstance(found, str) or not found.cls.expects or scale == 1:
        return None
    number: int = sum(found.module.counts()["train"].values())
    return max(1, round(scale * number))


# Rows


def _rows(where: str, suite: Suite) -> dict[str, dict[str, Any]]:
    """The suite's rows, and the judges and the reader that it takes as they are, where something is judged."""
    from emobench.suite.catalog import resolve

    classes = [resolve("model", str(table.get("class", name)))[0] for name, table in suite.model.items()]
    judged = any(not hasattr(cls, "logits") for cls in classes)
    further: dict[str, dict[str, Any]] = {
        name: {} for name in (*suite.panel, suite.reader) if judged and name not in suite.model
    }
    return {**suite.model, **further}


def _row(
    where: str,
    name: str,
    table: Mapping[str, Any],
    suite: Suite,
    trainers: list[str],
    scale: float,
    faces: Mapping[str, int | None],
    named: Mapping[str, str],
) -> dict[str, Any]:
    """A row with its share of epochs and batches, on the datasets as they are called now."""
    moved = {key: [named.get(each, each) for each in table[key]] for key in ("on", "train_on") if _listed(table, key)}
    first = next(iter(settings(where, name, table).values()))
    row = model_row(where, name, first, suite, list(named), trainers)
    if row.recipe is None:
        searched = {key: max(1, round(scale * row.arguments[key])) for key in _SEARCHES if key in row.arguments}
        return {**table, **moved, **searched}
    if swept := [key for key in ("epochs", "steps", "batch") if is_sweep(table.get(key))]:
        raise SuiteError(f"{where}, [model.{name}]: --scale cannot take a share of {swept[0]}, which is swept")
    kept = {key: value for key, value in table.items() if key not in ("epochs", "steps")}
    fewest = _fewest(row, faces)
    budget, batches = _budget(row, scale, fewest)
    if fewest is None and row.recipe.rotate_to is not None:
        budget["rotate_to"] = max(1, round(scale * row.recipe.rotate_to))
    limit = {} if batches is None else {"limit_train_batches": batches}
    trainer = {**table.get("trainer", {}), **limit}
    return {**kept, **moved, **budget, **({"trainer": trainer} if trainer else {})}


def _listed(table: Mapping[str, Any], key: str) -> bool:
    return isinstance(table.get(key), list)


def _fewest(row: ModelRow, faces: Mapping[str, int | None]) -> int | None:
    """Faces of an epoch of the smallest of its datasets; None: they are drawn."""
    of = [faces[each] for each in row.train_on or row.on or faces]
    known = [each for each in of if each is not None]
    return min(known, default=None)


def _budget(row: ModelRow, scale: float, faces: int | None) -> tuple[dict[str, int], int | None]:
    """Epochs or steps, and the batches of an epoch; None: all of them."""
    recipe, a_step = row.recipe, getattr(row.cls, "batches_a_step", 1)
    batches = None if faces is None else max(a_step, faces // recipe.batch)
    if recipe.steps is None:
        return {"epochs": max(1, round(scale * recipe.epochs))}, batches
    steps = max(1, round(scale**2 * recipe.steps))
    return {"steps": steps}, min(a_step * steps, batches or a_step * steps)
