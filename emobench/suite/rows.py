"""The rows of a suite: models and datasets, each checked as far as it can be without the other."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from emobench.data.readers.labels import Meaning
from emobench.data.readers.tree import visible
from emobench.errors import DatasetMissing, SuiteError, unknown
from emobench.suite.declared import declared_of
from emobench.suite.file import Suite
from emobench.suite.keys import processes
from emobench.suite.plugins import is_reference

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
    "fast_dev_run": "the suite smoke",
    "check_val_every_n_epoch": "nothing: the best epoch is found among all",
    "barebones": "nothing: a fit keeps its checkpoints and its history",
    "plugins": "nothing: emobench brings the one that writes checkpoints whole; `precision` chooses Lightning's",
}

# Options that count or limit something, of which none would leave nothing to do.
_POSITIVE = (
    "limit_train_batches", "limit_val_batches", "accumulate_grad_batches", "val_check_interval", "log_every_n_steps",
    "devices",
)  # fmt: skip


# Lightning's strategies with which several processes are held to the numbers of one that accumulates their batches.
_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


@dataclass(eq=False)  # told apart by identity, since what is known of a row is kept for it
class ModelRow:
    """A row of the suite's model table, checked but for what depends on the dataset."""

    row: str
    model: str
    cls: Any
    arguments: dict[str, Any]
    recipe: Any
    needs: dict[str, list[str]]
    trainer: dict[str, Any]  # options of its own; then all that it is fitted with (see `by_trainer`)
    optional: bool
    on: list[str] | None  # datasets that it is run on; None: all
    train_on: list[str] | None  # datasets that one fit sees together, and on each of which it is evaluated
    seeds: list[int]  # of the suite's
    small: Any = None  # the recipe for small faces, where the row takes that
    setting_of: str = ""  # the row whose settings are swept, where it is one of them
    trainers: list[str] | None = None  # names of the suite's trainers that it is fitted with; None: all
    trained_by: str = ""  # which of them this is; "": the suite's only one
    declared: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the suite claims of it, in no key
    paths: dict[str, Any] = dataclasses.field(default_factory=dict)  # of an outside model: argument -> path here

    @property
    def foreign(self) -> bool:
        """Whether emobench did not train it."""
        return getattr(self.cls, "foreign", False)

    @property
    def generates(self) -> bool:
        """Whether a panel judges it: it makes faces, instead of reading them."""
        return not hasattr(self.cls, "logits")


@dataclass(eq=False)
class DataRow:
    name: str
    module: Any  # an EmotionDataModule after plan()
    cls: Any
    arguments: dict[str, Any]  # as the suite and the defaults say, `size` among them


def trainer_options(where: str, options: Mapping[str, Any], *, selects: bool = True) -> dict[str, Any]:
    """Options of Lightning's Trainer, checked by name and by the types that Lightning gives them.

    Args:
        selects: whether validation chooses something; what needs it for its curves alone may leave it out.
    """
    from lightning.pytorch import Trainer

    options = table_of(where, "", options, 'precision = "bf16-mixed"')
    hints = typing.get_type_hints(Trainer.__init__)
    known = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self" and name not in _OURS]
    for option in options:
        if option in _OURS:
            raise SuiteError(f"{where}: {option} is set by emobench; use {_OURS[option]}")
        if option not in known:
            raise SuiteError(f"{where}: {unknown('option', option, known)}")
        if selects or (option, options[option]) != ("limit_val_batches", 0):
            _check_option(where, option, options[option], hints[option])
    return dict(options)


def check_devices(where: str, options: Mapping[str, Any]) -> None:
    """What several devices do together gives the numbers of one that accumulates the same micro-batches.

    Raises:
        SuiteError: an option with which nothing shows that it does; says why.
    """
    strategy = str(options.get("strategy", "auto"))
    remedy = 'Leave strategy out, or set it to "ddp"'
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise SuiteError(
            f"{where}: strategy = {strategy!r} starts processes of its own, and emobench starts one a device. {remedy}"
        )
    if strategy not in _STRATEGIES and not (strategy == "single_device" and processes(options) == 1):
        raise SuiteError(
            f"{where}: strategy = {strategy!r} is no copy of the whole network on each device. Only for such copies "
            "(DDP) is it tested that losses and weights are those of one process that accumulates the same "
            f"micro-batches; with others, rows would compare training code, not models. {remedy}"
        )
    if options.get("sync_batchnorm") and processes(options) != 1:
        raise SuiteError(
            f"{where}: sync_batchnorm = true normalises by the faces of all devices together, which no process sees "
            "that accumulates them in micro-batches. Leave it out: each device normalises by its own batch, and the "
            "running statistics are averaged"
        )


def check_by_hand(where: str, network: Any, options: Mapping[str, Any]) -> None:
    """A model that optimises by hand gets what Lightning does for others only where it says its turns.

    Raises:
        SuiteError: it has a training step of its own, which would leave an option without effect.
    """
    if network.automatic_optimization or network.takes_turns:
        return
    for name, neutral in (("accumulate_grad_batches", 1), ("gradient_clip_val", None)):
        if options.get(name, neutral) not in (neutral, 0):
            raise SuiteError(
                f"{where}: {name} = {options[name]!r} has no effect in a training_step that optimises by hand. Define "
                f"`turns` in {type(network).__name__} instead (docs/extending.md), or leave {name} out"
            )


def _check_option(where: str, option: str, value: Any, hint: Any) -> None:
    """Refuse what Lightning would refuse when the cell starts, and what leaves it nothing to do."""
    try:
        kind = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False))
        kind.validate_python(value)
        json.dumps(value, allow_nan=False)
    except (ValidationError, TypeError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise SuiteError(
            f"{where}: {option} = {value!r} does not fit ({reason}). Say what Lightning's Trainer takes"
        ) from None
    number = isinstance(value, int | float)
    if option == "num_nodes" and value != 1:
        raise SuiteError(
            f"{where}: num_nodes = {value!r}, and a cell runs on one machine. Leave it out; more machines run more "
            "cells: --engine ray"
        )
    if option == "devices" and value in (-1, "-1", "auto"):
        raise SuiteError(
            f"{where}: devices = {value!r} is another number on each machine, and with it another global batch and "
            "other weights, of which a key would know nothing. Write the number, such as devices = 2"
        )
    if option == "devices" and isinstance(value, str):  # one process would wait for the others
        raise SuiteError(f"{where}: devices = {value!r} is text; it is a number such as 2, without quotes")
    if option in _POSITIVE and (value <= 0 if number else not value and value is not None):
        raise SuiteError(f"{where}: {option} = {value!r} leaves nothing to do; it is 1 or more, or a share above 0")


def table_of(where: str, key: str, value: Any, example: str) -> dict[str, Any]:
    """A value of a suite that must be a table.

    Raises:
        SuiteError: it is none; shows it and an example.
    """
    if not isinstance(value, Mapping):
        said = f"{key} = {value!r}" if key else f"{value!r}"
        raise SuiteError(f"{where}: {said} is no table such as {{ {example} }}")
    return dict(value)


def taken(where: str, table: dict[str, Any], key: str, kind: type, default: Any, example: str) -> Any:
    """Take a key out of a table; a value of another kind is refused, with an example."""
    value = table.pop(key, default)
    if type(value) is not kind or value == "":
        raise SuiteError(f"{where}: {key} = {value!r} is no {_KINDS[kind]} such as {example}")
    return value


_KINDS = {str: "text", bool: "yes or no"}


def model_row(
    where: str, name: str, table: Mapping[str, Any], suite: Suite, datasets: list[str], trainers: Sequence[str]
) -> ModelRow:
    """Check a row's class, arguments, recipe, the names of its needs, and where and how often it is run."""
    from emobench.suite.catalog import SMALL_FACES, resolve

    table = dict(table)
    where = f"{where}, [model.{name}]"
    model = taken(where, table, "class", str, name, '"resnet18"')
    optional = taken(where, table, "optional", bool, False, "true")
    needs = table_of(where, "needs", table.pop("needs", {}), 'guide = "vgg16"')
    options = table.pop("trainer", {})
    on = _some_of(f"{where} on", "dataset", table.pop("on", None), datasets)
    train_on = _some_of(f"{where} train_on", "dataset", table.pop("train_on", None), datasets)
    seeds = _some_of(f"{where} seeds", "seed", table.pop("seeds", None), suite.seeds)
    of = table.pop("trainers", None)
    if of is not None and not any(trainers):
        raise SuiteError(f"{where}: names trainers, and the suite has no table of one, such as [trainer.fp32]")
    of = _some_of(f"{where} trainers", "trainer", of, trainers)
    declared = declared_of(where, table)
    if model.startswith("timm:") and "checkpoint" in table:  # somebody else's network, and none to be trained
        model = model.replace("timm:", "timm-checkpoint:", 1)
    if model.startswith("images:") and (Path(model.partition(":")[2]) / "edits.csv").is_file():
        model = model.replace("images:", "edited-images:", 1)
    cls, preset = resolve("model", model)
    if (lacking := [name for name in declared if name != "claimed"]) and not getattr(cls, "foreign", False):
        raise SuiteError(f"{where}: {lacking[0]} is said of outside models alone, and {model} is trained here")
    if not cls.asked_for and not getattr(cls, "foreign", False):
        raise SuiteError(f"{where}: {model} is what `cross_validate` makes of a row. Set it in [data.…]: docs/data.md")
    model = cls.name if is_reference(model) else model
    small = arguments_of(where, cls, preset)[1] if model.endswith(SMALL_FACES) else None
    if table.keys() & {"epochs", "steps"}:  # a budget of the row's own replaces a preset one of either kind
        preset = {key: value for key, value in preset.items() if key not in ("epochs", "steps")}
    arguments, recipe = arguments_of(where, cls, {**preset, **table})
    if not hasattr(cls, "logits") and recipe is not None and (recipe.monitor or recipe.patience):
        raise SuiteError(f"{where}: {model} is evaluated at its last weights; leave monitor and patience out")
    trainer = trainer_options(f"{where} trainer", options, selects=recipe is None or bool(recipe.monitor))
    may_need = {**cls.needs, **getattr(cls, "may_need", {})}
    for role in needs:
        if role not in may_need:
            raise SuiteError(f"{where}: {unknown('need', role, may_need)}")
    for role in cls.needs:
        if role not in needs:
            raise SuiteError(
                f"{where}: says no row for `{role}`; add needs = {{ {role} = ... }} with a row of this suite"
            )
    filled = {role: _rows_of(f"{where} needs", role, rows) for role, rows in needs.items()}
    if train_on is not None and not getattr(cls, "joint", False):
        raise SuiteError(f"{where}: {model} cannot be trained on several datasets together; leave train_on out")
    if train_on is not None and on is not None:
        raise SuiteError(f"{where}: sets on and train_on; a row that is trained on several is evaluated on each")
    at = suite.seeds if seeds is None else [seed for seed in suite.seeds if seed in seeds]
    row = ModelRow(name, model, cls, arguments, recipe, filled, trainer, optional, on, train_on, at, small)
    row = dataclasses.replace(row, trainers=of, declared=declared)
    return _outside(row) if row.foreign else row


def _outside(row: ModelRow) -> ModelRow:
    """A model that nobody trains here has one seed, and keys and boards know nothing of where its files lie."""
    paths = {name: row.arguments[name] for name in row.cls.located(row.arguments)}
    kind = row.model.partition(":")[0].removesuffix("-checkpoint").removeprefix("edited-")
    number = len(row.cls.all_folders(row.arguments)) if hasattr(row.cls, "all_folders") else 1
    if number > len(row.seeds):
        raise SuiteError(f"[model.{row.row}]: {number} folders are as many seeds, and the suite has {len(row.seeds)}")
    model = f"{kind}:{row.cls.title(row.arguments)}"
    return dataclasses.replace(row, model=model, seeds=row.seeds[:number], paths=paths)


def _rows_of(where: str, role: str, given: Any) -> list[str]:
    """The rows that fill a need: one, or a list of them."""
    rows = [given] if isinstance(given, str) else given
    if not isinstance(rows, list) or not rows or not all(isinstance(row, str) for row in rows):
        raise SuiteError(f'{where}: {role} = {given!r} is no row such as "vgg16", and no list of rows')
    return once(where, "row", rows)


def once(where: str, kind: str, given: list[Any]) -> list[Any]:
    """A list whose values differ.

    Raises:
        SuiteError: one stands twice.
    """
    for each in given:
        if given.count(each) > 1:
            raise SuiteError(f"{where}: names {each} {given.count(each)} times; name each {kind} once")
    return given


def _some_of(where: str, kind: str, given: Any, known: Sequence[Any]) -> list[Any] | None:
    """A list of known names, or None where nothing is given."""
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise SuiteError(f"{where}: {given!r} is no list of {kind}s such as {list(known)[:2]}")
    for each in given:
        if not any(type(each) is type(other) and each == other for other in known):
            raise SuiteError(f"{where}: {unknown(kind, str(each), map(str, known))}")
    return once(where, kind, given)


def arguments_of(where: str, cls: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The resolved arguments of a class and its recipe, with what a suite gives checked by name and type.

    Raises:
        SuiteError: a name is neither an argument nor a field of the recipe, or a value does not fit.
    """
    from emobench.suite.catalog import checked, parameters, recipe_fields

    known = parameters(cls)
    recipe = getattr(cls, "recipe", None)
    fields = recipe_fields(recipe) if recipe is not None else {}
    changes: dict[str, Any] = {}
    arguments = {name: parameter.default for name, parameter in known.items() if not parameter.required}
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SuiteError(f"{where}: {name} = {value!r} is no finite number such as 0.1")
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


def in_order_of_needs(rows: list[ModelRow]) -> list[ModelRow]:
    """Rows so that each comes after those that it needs.

    Raises:
        SuiteError: a need names no row or one of another kind, or rows need each other in a circle.
    """
    by_name = {row.row: row for row in rows}
    ordered: dict[str, ModelRow] = {}

    def visit(row: ModelRow, above: tuple[str, ...]) -> None:
        if row.row in above:
            raise SuiteError(f"rows need each other in a circle: {' → '.join((*above, row.row))}")
        for role, names in row.needs.items():
            for name in names:
                if name not in by_name:
                    raise SuiteError(f"[model.{row.row}]: {unknown(role + ' row', name, by_name)}")
                _check_kind(row, role, by_name[name])
                visit(by_name[name], (*above, row.row))
        ordered.setdefault(row.row, row)

    for row in rows:
        visit(row, ())
    return list(ordered.values())


def _check_kind(row: ModelRow, role: str, other: ModelRow) -> None:
    """A need says what fills it: any classifier, or a generator by the name of its class."""
    kind = {**row.cls.needs, **getattr(row.cls, "may_need", {})}[role]
    if not (other.cls.name == kind or (kind == "classifier" and not other.generates)):
        raise SuiteError(f"[model.{row.row}]: its {role} must be a {kind}, and {other.row} is a {other.model}")


def datasets_of(suite: Suite, data_root: Path) -> dict[str, dict[str, Any]]:
    """The suite's datasets, `folder:*` replaced by every folder of the data root that holds a folder per emotion."""
    found: dict[str, dict[str, Any]] = {}
    for name, table in suite.data.items():
        if table.get("class", name) != "folder:*":
            found[name] = table
            continue
        for folder in _unnamed_folders(suite, data_root):
            if _holds_emotions(folder, table):
                found[f"folder:{folder.name}"] = {**table, "class": f"folder:{folder.name}"}
    return found


def passed_over(suite: Suite, data_root: Path) -> dict[str, list[str]]:
    """Of each `folder:*` of a suite: the folders of the data root that it does not take, each with the reason."""
    found: dict[str, list[str]] = {}
    for name, table in suite.data.items():
        if table.get("class", name) == "folder:*":
            none = "no folder of an emotion in it, nor below folders for splits"
            folders = _unnamed_folders(suite, data_root)
            told = [f"{folder} is no dataset: {none}" for folder in folders if not _holds_emotions(folder, table)]
            found[name] = told if folders else [f"{data_root}: no folder there that the suite does not name"]
    return found


def _unnamed_folders(suite: Suite, data_root: Path) -> list[Path]:
    """The folders of the data root that no dataset of the suite names."""
    named = {str(table.get("class", name)).split(":", 1)[-1] for name, table in suite.data.items()}
    if not data_root.is_dir():
        return []
    return [path for path in visible(data_root) if path.is_dir() and path.name not in named]


def _holds_emotions(folder: Path, table: Mapping[str, Any]) -> bool:
    """Whether there are folders of emotions, as a `folder:*` table may name and number them."""
    meaning = Meaning(table.get("labels"), table.get("ignore"))
    inside = [path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_dir()]
    numbered = table.get("order") is not None
    return any(meaning.knows(path.name) or (numbered and path.name.isdecimal()) for path in inside)


def data_row(where: str, name: str, table: Mapping[str, Any], data_root: Path) -> DataRow | str:
    """Check a dataset, audit and split it; the reason where an optional one is not there."""
    table = dict(table)
    where = f"{where}, [data.{name}]"
    optional = taken(where, table, "optional", bool, False, "true")
    module, arguments = data_module(where, class_of_data(where, name, table), table, data_root)
    try:
        module.sources()
    except DatasetMissing as error:
        reason = f"{error} (The data root is set by --data or EMOBENCH_DATA.)"
        if optional:
            return reason
        raise DatasetMissing(reason) from None
    module.plan()
    return DataRow(name, module, type(module), arguments)


def parts_of(where: str, name: str, table: Mapping[str, Any], data_root: Path) -> list[DataRow]:
    """A cross-validated dataset once for each of its parts, which is then the test split."""
    found = [data_row(where, name, {**table, "held_out": k}, data_root) for k in range(table["cross_validate"])]
    return [each for each in found if isinstance(each, DataRow)]


def check_cross_validated(where: str, data: DataRow, rows: Sequence[ModelRow]) -> None:
    """What is run on a cross-validated dataset is trained on it, and on it alone.

    Raises:
        SuiteError: a row is a generator, needs other rows, or is one of several settings.
    """
    for row in rows:
        why = ""
        if row.generates:
            why = "makes faces, and judges need test faces that no network has seen"
        elif row.needs or row.recipe is None:
            why = "is made of other rows"
        elif row.setting_of:
            why = "is one of several settings, of which one is chosen on validation faces of one split"
        if why:
            raise SuiteError(
                f"{where}, [model.{row.row}]: {row.model} {why}, so it cannot be run on {data.name}, which is "
                f"cross-validated. Name other datasets by `on`, or leave cross_validate out"
            )


def class_of_data(where: str, name: str, table: dict[str, Any]) -> str:
    """Take the class of a dataset out of its table; where that says none it is the table's name."""
    found: str = taken(where, table, "class", str, name, '"fer2013"')
    return found


def evaluation_size(where: str, name: str, table: Mapping[str, Any]) -> int:
    """The side of a dataset's faces in evaluations, px, before the dataset is looked for."""
    from emobench.suite.catalog import resolve

    cls, preset = resolve("dataset", class_of_data(f"{where}, [data.{name}]", name, dict(table)))
    given = {key: value for key, value in table.items() if key not in ("class", "optional")}
    return int(arguments_of(f"{where}, [data.{name}]", cls, {**preset, **given})[0]["size"])


def data_module(where: str, name: str, given: Mapping[str, Any], data_root: Path) -> tuple[Any, dict[str, Any]]:
    """The data module of a dataset's name, before `plan()`, and its resolved arguments.

    Raises:
        SuiteError, DatasetError: an unknown name, or an argument that does not fit.
    """
    from emobench.suite.catalog import parameters, resolve

    cls, preset = resolve("dataset", name)
    name = cls.name if is_reference(name) else name
    if "cross_validate" in given and "cross_validate" not in parameters(cls):
        raise SuiteError(f"{where}: the splits of {name} are its own, so it is not cross-validated. Leave it out")
    arguments, _ = arguments_of(where, cls, {**preset, **given})
    folder = dataset_folder(data_root, name) if cls.expects else None
    return cls(folder=folder, **arguments), arguments


def dataset_folder(data_root: Path, name: str) -> Path:
    """`<root>/<dataset>/`; for `folder:<x>` it is `<root>/<x>/`."""
    return data_root / name.split(":", 1)[-1]
