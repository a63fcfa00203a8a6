"""From a suite to its cells, every one validated before the first one starts.

Names, arguments, sizes, datasets, weight files, needs: the first thing that is wrong is named.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emobench.bench.keys import code_of, key
from emobench.bench.store import PROTOCOL
from emobench.emotions import is_emotion
from emobench.errors import DatasetMissing, SizeError, SuiteError, WeightsError, unknown
from emobench.suite import Cell, Plan, Skipped, Suite

# Options of Lightning's Trainer that emobench sets itself, and who to ask instead.
_OURS = {
    "max_epochs": "the row's `epochs`",
    "max_steps": "the row's `steps`",
    "callbacks": "nothing: emobench brings its own",
    "logger": "nothing: every cell writes its history.csv",
    "default_root_dir": "--results",
    "enable_checkpointing": "nothing: a running cell can always be resumed",
    "num_sanity_val_steps": "nothing",
    "use_distributed_sampler": "nothing: the loaders shard themselves",
    "reload_dataloaders_every_n_epochs": "nothing",
    "max_time": "`epochs` or `steps`: budgets are never seconds",
    "fast_dev_run": "benchmarks/smoke.toml",
}
# Options that change no number (where the work is done, what is shown).
_NEUTRAL = ("accelerator", "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "profiler", "num_nodes")


@dataclass
class _ModelRow:
    """A row of the suite's model table, checked but for what depends on the dataset."""

    row: str
    model: str
    cls: Any
    arguments: dict[str, Any]
    recipe: Any
    needs: dict[str, list[str]]
    trainer: dict[str, Any]  # where it differs from the suite's
    optional: bool


@dataclass
class _DataRow:
    name: str
    module: Any  # an EmotionDataModule after plan()
    cls: Any
    arguments: dict[str, Any]  # as the suite and the defaults say, `size` among them


def expand(suite: Suite, data_root: Path) -> Plan:
    """All cells of a suite, every one validated.

    Raises:
        SuiteError, DatasetError, WeightsError, SizeError: the first thing that is wrong.
    """
    where = f"suite {suite.name}"
    trainer = {"precision": "32-true", "devices": 1, **_trainer(f"{where}, [trainer]", suite.trainer)}
    rows = _in_order_of_needs([_model_row(where, name, table) for name, table in suite.model.items()])
    skipped: list[Skipped] = []
    downloads: dict[str, None] = {}
    cells: list[Cell] = []
    notes: dict[str, list[str]] = {}
    listings: dict[str, str] = {}
    for data_name, table in datasets_of(suite, data_root).items():
        data = _data_row(where, data_name, table, data_root)
        if isinstance(data, str):
            size = table.get("size", 0)
            skipped += [Skipped(row.row, row.model, data_name, size, data) for row in rows]
            continue
        notes[data_name] = [*data.module.notes, *data.module.counted()]
        listings |= data.module.listings
        usable: list[_ModelRow] = []
        for row in rows:
            reason = _unusable(where, row, data, downloads)
            if reason is None and (missing := _unfilled(row, [other.row for other in usable])):
                reason = f"needs {missing}, which is skipped"
            if reason is None:
                usable.append(row)
            else:
                skipped.append(Skipped(row.row, row.model, data_name, data.module.size, reason))
        cells += _cells(suite.seeds, usable, data, trainer)
    if not cells:
        reasons = "; ".join(dict.fromkeys(each.reason for each in skipped))
        raise SuiteError(f"{where}: nothing can run here: {reasons}")
    return Plan(suite.name, cells, skipped, list(downloads), notes, listings)


def _trainer(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of Lightning's Trainer, checked by name."""
    from lightning.pytorch import Trainer

    known = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self" and name not in _OURS]
    for option in options:
        if option in _OURS:
            raise SuiteError(f"{where}: {option} is set by emobench; use {_OURS[option]}")
        if option not in known:
            raise SuiteError(f"{where}: {unknown('option', option, known)}")
    return dict(options)


def _model_row(where: str, name: str, table: Mapping[str, Any]) -> _ModelRow:
    """Check a row's class, arguments, recipe and the names of its needs."""
    from emobench.discover import resolve

    table = dict(table)
    where = f"{where}, [model.{name}]"
    model = table.pop("class", name)
    optional = table.pop("optional", False)
    needs = table.pop("needs", {})
    trainer = _trainer(f"{where} trainer", table.pop("trainer", {}))
    cls, preset = resolve("model", model)
    arguments, recipe = arguments_of(where, cls, {**preset, **table})
    for role in needs:
        if role not in cls.needs:
            raise SuiteError(f"{where}: {unknown('need', role, cls.needs)}")
    for role in cls.needs:
        if role not in needs:
            raise SuiteError(
                f"{where}: says no row for `{role}`; add needs = {{ {role} = ... }} with a row of this suite"
            )
    filled = {role: [rows] if isinstance(rows, str) else list(rows) for role, rows in needs.items()}
    return _ModelRow(name, model, cls, arguments, recipe, filled, trainer, optional)


def arguments_of(where: str, cls: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The resolved arguments of a class and its recipe, with what a suite gives checked by name and type.

    Raises:
        SuiteError: a name is neither an argument nor a field of the recipe, or a value does not fit.
    """
    from emobench.discover import checked, parameters, recipe_fields

    known = parameters(cls)
    recipe = getattr(cls, "recipe", None)
    fields = recipe_fields(recipe) if recipe is not None else {}
    changes: dict[str, Any] = {}
    arguments = {name: parameter.default for name, parameter in known.items() if not parameter.required}
    for name, value in given.items():
        if name in known:
            arguments[name] = checked(where, name, known[name], value)
        elif name in fields:
            changes[name] = checked(where, name, fields[name], value)
        else:
            raise SuiteError(f"{where}: {unknown('argument', name, [*known, *fields])}")
    missing = [name for name, parameter in known.items() if parameter.required and name not in arguments]
    if missing:
        raise SuiteError(f"{where}: {', '.join(missing)} must be given")
    if recipe is not None:
        budget = {"epochs", "steps"}
        if budget <= changes.keys():
            raise SuiteError(f"{where}: sets both epochs and steps; a budget is one of them")
        for name in budget & changes.keys():
            changes |= dict.fromkeys(budget - {name})
        recipe = dataclasses.replace(recipe, **changes)
    return arguments, recipe


def _in_order_of_needs(rows: list[_ModelRow]) -> list[_ModelRow]:
    """Rows so that each comes after those that it needs.

    Raises:
        SuiteError: a need names no row, or rows need each other in a circle.
    """
    by_name = {row.row: row for row in rows}
    ordered: dict[str, _ModelRow] = {}

    def visit(row: _ModelRow, above: tuple[str, ...]) -> None:
        if row.row in above:
            raise SuiteError(f"rows need each other in a circle: {' → '.join((*above, row.row))}")
        for role, names in row.needs.items():
            for name in names:
                if name not in by_name:
                    raise SuiteError(f"[model.{row.row}]: {unknown(role + ' row', name, by_name)}")
                visit(by_name[name], (*above, row.row))
        ordered.setdefault(row.row, row)

    for row in rows:
        visit(row, ())
    return list(ordered.values())


def datasets_of(suite: Suite, data_root: Path) -> dict[str, dict[str, Any]]:
    """The suite's datasets, `folder:*` replaced by every folder of the data root that holds a folder per emotion."""
    found: dict[str, dict[str, Any]] = {}
    for name, table in suite.data.items():
        if table.get("class", name) != "folder:*":
            found[name] = table
            continue
        others = {str(other.get("class", other_name)) for other_name, other in suite.data.items()}
        for folder in sorted(path for path in data_root.glob("*") if path.is_dir() and path.name not in others):
            if any(path.is_dir() and is_emotion(path.name) for path in [*folder.glob("*"), *folder.glob("*/*")]):
                found[f"folder:{folder.name}"] = {**table, "class": f"folder:{folder.name}"}
    return found


def _data_row(where: str, name: str, table: Mapping[str, Any], data_root: Path) -> _DataRow | str:
    """Check a dataset, audit and split it; the reason where an optional one is not there."""
    table = dict(table)
    where = f"{where}, [data.{name}]"
    optional = table.pop("optional", False)
    module, arguments = data_module(where, table.pop("class", name), table, data_root)
    try:
        module.sources()
    except DatasetMissing as error:
        reason = f"{error} (The data root is set by --data or EMOBENCH_DATA.)"
        if optional:
            return reason
        raise DatasetMissing(reason) from None
    module.plan()
    return _DataRow(name, module, type(module), arguments)


def data_module(where: str, name: str, given: Mapping[str, Any], data_root: Path) -> tuple[Any, dict[str, Any]]:
    """The data module of a dataset's name, before `plan()`, and its resolved arguments.

    Raises:
        SuiteError, DatasetError: an unknown name, or an argument that does not fit.
    """
    from emobench.discover import resolve

    cls, preset = resolve("dataset", name)
    arguments, _ = arguments_of(where, cls, {**preset, **given})
    folder = dataset_folder(data_root, name) if cls.expects else None
    return cls(folder=folder, **arguments), arguments


def dataset_folder(data_root: Path, name: str) -> Path:
    """`<root>/<dataset>/`; for `folder:<x>` it is `<root>/<x>/`."""
    return data_root / name.split(":", 1)[-1]


def _unusable(where: str, row: _ModelRow, data: _DataRow, downloads: dict[str, None]) -> str | None:
    """Check what depends on the dataset: the size and the weight file; the reason where an optional row cannot run."""
    where = f"{where}, [model.{row.row}] on {data.name}"
    size = data.module.size if row.recipe is None or row.recipe.size is None else row.recipe.size
    try:
        row.cls.check_size(size, row.arguments)
    except SizeError as error:
        raise SizeError(f"{where}: {error}") from None
    weights = row.cls.weight_file(row.arguments)
    if weights is None or weights.path is not None:
        return None
    if weights.download:
        downloads[f"{row.row}: {weights.name}"] = None
        return None
    reason = f"{where}: weights {weights.name} not found; looked for {weights.looked_for}. {weights.how}"
    if row.optional:
        return reason
    raise WeightsError(reason)


def _unfilled(row: _ModelRow, usable: list[str]) -> str | None:
    return next((name for names in row.needs.values() for name in names if name not in usable), None)


def _cells(seeds: list[int], rows: list[_ModelRow], data: _DataRow, trainer: dict[str, Any]) -> list[Cell]:
    """The cells of one dataset, the permuted control last."""
    cells: dict[tuple[str, int], Cell] = {}
    parameters = {row.row: _parameters(row, data) for row in rows}
    for seed in seeds:
        for row in rows:
            needs = {role: [cells[name, seed].fit_key for name in names] for role, names in row.needs.items()}
            cells[row.row, seed] = _cell(row, data, trainer, seed, needs, None, parameters[row.row])
    trained = [row for row in rows if row.recipe is not None and not row.needs]
    found = list(cells.values())
    if trained:
        cheapest = min(trained, key=lambda row: _training_cost(row, data))
        found.append(_cell(cheapest, data, trainer, seeds[0], {}, "permuted", parameters[cheapest.row]))
    return found


def _training_cost(row: _ModelRow, data: _DataRow) -> float:
    """FLOPs of a fit, up to a factor that all rows of the dataset share."""
    from emobench.classifiers.classifier import flops_of

    passes = row.recipe.epochs or row.recipe.steps * row.recipe.batch / sum(data.module.counts()["train"].values())
    return float(flops_of(_weightless(row, data)) * passes)


def _parameters(row: _ModelRow, data: _DataRow) -> int:
    """Parameters of the row's own network; 0 where it has none, as an ensemble."""
    from emobench.classifiers.classifier import parameters_of

    return 0 if row.recipe is None else parameters_of(_weightless(row, data))


def _weightless(row: _ModelRow, data: _DataRow) -> Any:
    """The row's network without memory for its parameters, and without opening a pre-trained file."""
    import torch

    from emobench.classifiers.classifier import untrained

    size = row.recipe.size or data.module.size
    with torch.device("meta"):
        return row.cls(emotions=data.module.emotions, size=size, **untrained(row.cls, row.arguments))


def _cell(
    row: _ModelRow,
    data: _DataRow,
    trainer: dict[str, Any],
    seed: int,
    needs: dict[str, list[str]],
    control: str | None,
    parameters: int,
) -> Cell:
    from emobench.discover import plain

    trainer = {**trainer, **row.trainer}
    made_of_fit = {
        "class": f"{row.cls.__module__}:{row.cls.__qualname__}",
        "arguments": plain(row.arguments),
        "recipe": plain(row.recipe),
        "data": {
            "class": f"{data.cls.__module__}:{data.cls.__qualname__}",
            "arguments": {name: value for name, value in plain(data.arguments).items() if name != "max_bad"},
            "fingerprint": data.module.fingerprint,
        },
        "trainer": {name: value for name, value in plain(trainer).items() if name not in _NEUTRAL},
        "seed": seed,
        "permuted": control == "permuted",
        "needs": needs,
        "code": code_of([row.cls.__module__, data.cls.__module__]),
    }
    made_of_eval = {
        "fit_key": key(made_of_fit),
        "protocol": PROTOCOL,
        "size": data.module.size,
        "code": code_of(["emobench.metrics.recognition"]),
    }
    return Cell(
        row=f"control:{control}" if control else row.row,
        model=row.model,
        dataset=data.name,
        size=data.module.size,
        seed=seed,
        track="recognition",
        control=control,
        fit=made_of_fit,
        evaluation=made_of_eval,
        emotions=list(data.module.emotions),
        parameters=parameters,
        trainer=trainer,
        needs=needs,
    )
