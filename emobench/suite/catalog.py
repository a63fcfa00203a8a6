"""Finds models and datasets, and reads and checks their arguments.

A new model or dataset is one new file with one class, and nothing registers it. It lies in the package or anywhere
else, see `emobench.suite.plugins`. A class says under which names it goes: `name`; `variants`, further names that
preset some arguments, as `small_faces` does for `<name>-small-faces`; `family`, the argument that follows `name` and a
colon.

A file that cannot be imported is passed over, and named to whoever lists what there is or wants what it may hold.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import pkgutil
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from emobench.errors import SuiteError, unknown
from emobench.recipe import Augment, Recipe
from emobench.suite import plugins
from emobench.suite.file import OUTSIDE
from emobench.suite.plugins import Broken
from emobench.suite.types import written

if TYPE_CHECKING:
    from emobench.evaluation.tracks.track import Metric, Track

Kind = Literal["model", "dataset", "track"]
_PACKAGES = {"model": ("emobench.classifiers", "emobench.generators"), "dataset": ("emobench.data.datasets",)}
_PACKAGES["track"] = ("emobench.evaluation.tracks",)
SMALL_FACES, SMALL_SIDE = "-small-faces", 64  # the ending of such a name, and the largest side that it is for, px
_MARKS = {"model": "recipe", "dataset": "expects"}  # what every class of a kind has, and none of the other kind


def classes(kind: Kind) -> dict[str, Any]:
    """Every class of a kind under its `name`, of the package and of the user's own files."""
    return _discovered(kind, plugins.state())[0]


def broken(*kinds: Kind) -> list[Broken]:
    """The files that may hold a class of some kind, and cannot be used; each once."""
    return list(dict.fromkeys(each for kind in kinds for each in _discovered(kind, plugins.state())[1]))


@functools.cache
def _discovered(kind: Kind, state: object) -> tuple[dict[str, Any], list[Broken]]:
    """Classes by name, and broken files; `state` renews the cache when the user's files change."""
    found: dict[str, Any] = {}
    taken: dict[str, Any] = {}
    passed_over: list[Broken] = []
    for module in _modules(kind, passed_over):
        for member in _members(kind, module):
            if (problem := _problem(member)) is None:
                for name in (vars(member)["name"], *variants_of(member)):
                    if (other := taken.setdefault(name, member)) is not member:
                        raise SuiteError(
                            f"two {kind}s are called '{name}': {_place(other)} and {_place(member)}. Rename one of them"
                        )
                found[vars(member)["name"]] = member
            else:
                passed_over.append(problem)
    return found, passed_over


def variants_of(cls: Any) -> dict[str, Mapping[str, Any]]:
    """The further names of a class and what each presets: its variants, and its recipe for small faces."""
    small = getattr(cls, "small_faces", None)
    return {**cls.variants, **({f"{cls.name}{SMALL_FACES}": small} if small else {})}


def _modules(kind: Kind, passed_over: list[Broken]) -> Iterator[ModuleType]:
    """Every module that may hold a class of a kind; those that cannot be imported are added to `passed_over`."""
    for name in module_names(kind):
        try:
            yield importlib.import_module(name)
        except plugins.ANYTHING as error:
            file = cast(str, importlib.import_module(name.rpartition(".")[0]).__file__)
            passed_over.append(Broken.by(error, Path(file).with_name(name.rpartition(".")[2] + ".py")))
    yield from plugins.modules(passed_over)


def _members(kind: Kind, module: ModuleType) -> Iterator[Any]:
    """The classes of a kind that a module, or the package that it is, defines."""
    for member in plugins.own_classes(module):
        if "name" in vars(member) and hasattr(member, _MARKS[kind]):
            yield member


def _problem(cls: Any) -> Broken | None:
    """What keeps a class from being used at all."""
    try:
        if not isinstance(vars(cls)["name"], str):
            raise TypeError(f"{cls.__qualname__}.name is {vars(cls)['name']!r}, not a text")
        if not hasattr(cls, "family") or not hasattr(cls, "variants"):
            bases = "EmotionClassifier, EmotionGenerator or EmotionDataModule"
            raise TypeError(f"{cls.__qualname__} has no `family` and `variants`: derive it from {bases}")
        parameters(cls)
    except Exception as error:
        return Broken(plugins.source_of(cls), plugins.line_of(cls), f"{type(error).__name__}: {error}")
    return None


def _place(cls: type) -> str:
    """Class, file and line of a class."""
    return f"{cls.__qualname__} in {inspect.getsourcefile(cls)}, line {inspect.getsourcelines(cls)[1]}"


# Of tracks on boards; then the user's own.
_ORDER = ("recognition", "generation", "editing", "stylization", "text", "explanation")


@functools.cache
def _tracks(state: object) -> dict[str, Track]:
    from emobench.evaluation.tracks.track import Track

    found: dict[str, Track] = {}
    for module in _modules("track", []):
        for member in plugins.defined(module, Track):
            if (other := found.get(member.name)) is not None:
                where = f"{_place(type(other))} and {_place(member)}"
                raise SuiteError(f"two tracks are called '{member.name}': {where}. Rename one of them")
            found[member.name] = member()
    for track in found.values():
        track.add([metric for metric in _added() if metric.track == track.name])
    first = [name for name in _ORDER if name in found]
    return {name: found[name] for name in (*first, *(name for name in found if name not in first))}


def _added() -> list[Metric]:
    """The metrics in the user's own files; those of tracks that the same file defines may stand in these already."""
    from emobench.evaluation.tracks.track import Metric

    return [
        value for module in plugins.modules([]) for value in list(vars(module).values()) if isinstance(value, Metric)
    ]


def tracks() -> dict[str, Track]:
    """Every track by its name, of the package and of the user's own files; nothing heavy is imported for it."""
    return _tracks(plugins.state())


def tracks_of(model: type) -> dict[str, Track]:
    """The tracks that a class of models is measured on."""
    return {name: track for name, track in tracks().items() if track.measures(model)}


def metrics_of(track: str) -> tuple[Metric, ...]:
    """The means over faces of a track: its own, then those of the user's own files."""
    return tracks()[track].metrics


def files_of_metrics(track: str) -> list[Path]:
    """The user's own files that add metrics to a track."""
    from emobench.evaluation.tracks.track import Metric

    return [
        Path(str(module.__file__)).resolve()
        for module in plugins.modules([])
        if any(isinstance(value, Metric) and value.track == track for value in vars(module).values())
    ]


def module_names(kind: Kind) -> list[str]:
    """Every module that may hold a class of a kind; nothing heavy is imported."""
    found = []
    for package in _PACKAGES[kind]:
        folder = Path(cast(str, importlib.import_module(package).__file__)).parent
        found += sorted(f"{package}.{module.name}" for module in pkgutil.iter_modules([str(folder)]))
    return found


def asked_for(kind: Kind) -> dict[str, Any]:
    """The classes that a suite may name; the others emobench makes of these by itself."""
    return {name: cls for name, cls in classes(kind).items() if getattr(cls, "asked_for", True)}


def names(kind: Kind) -> list[str]:
    """Every name that a suite may use; a family stands as `timm:<backbone>`."""
    listed: list[str] = []
    for name, cls in asked_for(kind).items():
        listed += [f"{name}:<{cls.family}>"] if cls.family else [name, *variants_of(cls)]
    return listed


def resolve(kind: Kind, name: str) -> tuple[Any, dict[str, Any]]:
    """The class behind a name and the arguments that the name presets.

    Args:
        name: or a class of a file, as `/home/me/my_models.py:Small`.

    Raises:
        SuiteError: no class goes under this name; the nearest one and all others are named, and files that may hold it
            and cannot be used.
    """
    if plugins.is_reference(name) and name.partition(":")[0] not in OUTSIDE:
        return _of_file(kind, name), {}
    for own, cls in classes(kind).items():
        family = cls.family
        if family and name.startswith(f"{own}:") and len(name) > len(own) + 1:
            return cls, {family: name[len(own) + 1 :]}
        if name == own and not family:
            return cls, {}
        if name in variants_of(cls):
            return cls, dict(variants_of(cls)[name])
    passed_over = "".join(f"\n{each} (passed over)" for each in broken(kind))
    raise SuiteError(unknown(kind, name, names(kind)) + passed_over)


def _of_file(kind: Kind, reference: str) -> Any:
    """The class that a file and a name mean."""
    path, _, name = reference.rpartition(":")
    module = plugins.wanted(Path(path), "`class` names one from the suite's own folder on")
    found = {member.__name__: member for member in _members(kind, module)}
    if name not in found:
        if any(each.__name__ == name and hasattr(each, _MARKS[kind]) for each in plugins.own_classes(module)):
            example = f'`name = "{name.lower()}"`'
            raise SuiteError(f"{path}: {name} has no `name` of its own. Give it one, such as {example}: boards show it")
        raise SuiteError(f"{path}: {unknown(f'{kind} class', name, found)}")
    if (problem := _problem(found[name])) is not None:
        raise SuiteError(str(problem))
    return found[name]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One argument of a class, or one field of its recipe."""

    type: Any
    default: Any  # `inspect.Parameter.empty` where a value must be given

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def text(self) -> str:
        """The type as a person writes it, with its bounds."""
        return written(self.type)


GIVEN_BY_RUN = ("self", "emotions", "datasets", "folder", "cache")  # not for a suite to set


def parameters(cls: Any) -> dict[str, Parameter]:
    """The keyword arguments of a class with the defaults that hold for it, those behind `Unpack[...]` included."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    found: dict[str, Parameter] = {}
    hidden = {
        *GIVEN_BY_RUN,
        *getattr(cls, "needs", {}),
        *getattr(cls, "may_need", {}),
        *(("size",) if hasattr(cls, "recipe") else ()),
    }
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            table = typing.get_args(hints[name])[0]  # Unpack[TrainingArguments], Unpack[DataArguments]
            defaults = cls.argument_defaults()
            found |= {
                key: Parameter(kind, defaults[key])
                for key, kind in typing.get_type_hints(table, include_extras=True).items()
                if key not in hidden
            }
        elif name not in hidden:
            found[name] = Parameter(hints[name], parameter.default)
    return found


def recipe_fields(recipe: Recipe) -> dict[str, Parameter]:
    """The fields of a class's recipe with its own defaults."""
    hints = typing.get_type_hints(Recipe, include_extras=True)
    return {
        field.name: Parameter(hints[field.name], getattr(recipe, field.name)) for field in dataclasses.fields(Recipe)
    }


def checked(where: str, name: str, parameter: Parameter, value: Any) -> Any:
    """A value from a suite as its parameter's type.

    TOML has no null: the string "none" stands for None where the type admits it. Numbers in quotes are refused.

    Raises:
        SuiteError: it does not fit; says what was found and what is expected.
    """
    if value == "none" and type(None) in typing.get_args(parameter.type):
        return None
    if parameter.type is Augment:
        return Augment.none() if value == "none" else _augment(where, name, value, parameter.default)
    try:
        adapter = TypeAdapter(parameter.type, config=ConfigDict(strict=True))
    except Exception:  # a type that brings a configuration of its own
        adapter = TypeAdapter(parameter.type)
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise SuiteError(f"{where}: {name} = {value!r} does not fit ({reason}); expected {parameter.text()}") from None


def _augment(where: str, name: str, value: Any, default: Augment) -> Augment:
    """The recipe's own changes with those that the suite names replaced."""
    if not isinstance(value, Mapping):
        raise SuiteError(f'{where}: {name} = {value!r}; expected a table such as {{ hflip = 0.5 }}, or "none"')
    hints = typing.get_type_hints(Augment, include_extras=True)
    for field in value:
        if field not in hints:
            raise SuiteError(f"{where}: {unknown('field of ' + name, field, hints)}")
    changes = {
        field: checked(f"{where}, {name}", field, Parameter(hints[field], None), each) for field, each in value.items()
    }
    return dataclasses.replace(default, **changes)


def plain(value: Any) -> Any:
    """A value as numbers, strings, lists and dicts, as keys and results hold it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: plain(each) for key, each in dataclasses.asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is not a plain value")
