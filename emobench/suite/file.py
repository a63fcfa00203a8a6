"""Suites: a TOML file in, as its file says it; `expand` finds out what the names in it mean."""

from __future__ import annotations

import copy
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from annotated_types import Ge, Lt, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from emobench.errors import SuiteError, unknown
from emobench.files import write_text
from emobench.suite import plugins
from emobench.suite.overrides import apply, board_name, checked_name, parsed

PACKAGED = Path(__file__).parents[1] / "suites"
_OF_FILE = ("name", "file", "overrides", "budget", "scale")
_LARGEST = 2**20  # bytes of a suite's file
_MOST = 10_000_000  # faces: beyond it is a slip of the keyboard
OUTSIDE = ("onnx", "hf", "python", "predictions", "images")  # prefixes of what is named by a file or folder
_EXAMPLES = {
    "seeds": "seeds = [0, 1, 2]",
    "data": "[data.fer2013] with size = 48",
    "model": "[model.resnet18] with epochs = 8",
    "trainer": '[trainer] with precision = "32-true"',
    "panel": 'panel = ["resnet18", "vit"]',
    "reader": 'reader = "cnn21"',
    "evaluation": "[evaluation] with per_emotion = 100",
    "cues": "[cues], which may be empty",
    "explain": "[explain], which may be empty",
    "wandb": '[wandb] with mode = "offline"',
    "plugins": 'plugins = ["my_track.py"]',
    "real_faces": "real_faces = true",
}


class Wandb(BaseModel):
    """Logging to Weights & Biases, as a suite asks for it."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["online", "offline"] = "online"
    project: str = "emobench"
    entity: str | None = None  # the user or team; None: the key's own


class Evaluation(BaseModel):
    """How many faces an evaluation of a generator draws; the same for every row of the suite."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fidelity: int | None = Field(default=None, ge=1, le=_MOST)  # None: as many as there are test faces, at most 10,000
    per_emotion: int = Field(default=100, ge=1, le=_MOST)  # for control
    sources: int = Field(
        default=96, ge=1, le=_MOST
    )  # test faces in all, the same number an emotion, each to every other one
    intensity: int = Field(default=20, ge=0, le=_MOST)  # faces an emotion and level
    identity: str | None = None  # ONNX file of a face-recognition network, input (N, 3, 112, 112); None: no identity
    lpips: str | None = None  # file of torchvision's VGG16 (ImageNet); None: no LPIPS

    @property
    def faces(self) -> dict[str, int | None]:
        """How many faces, without the files."""
        return {name: value for name, value in self.model_dump().items() if name not in ("identity", "lpips")}


class Cues(BaseModel):
    """That generators are also measured by sentences that mean an emotion (the track text)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    each: int | None = Field(default=None, ge=1, le=10)  # sentences of each emotion and kind; None: all ten


class Explain(BaseModel):
    """That classifiers also say where they look (the track explanation)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    per_emotion: int = Field(default=12, ge=1, le=_MOST)  # test faces
    head_fusion: Literal["mean", "max", "min"] = "mean"  # of a rollout: how the heads of a layer become one
    discard_ratio: float = Field(default=0.0, ge=0, lt=1)  # of a rollout: share of a layer's attentions left out


def _once(values: list[Any]) -> list[Any]:
    """A list of a suite is a set: the same seed or judge twice would count one network as two."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"names {value} {values.count(value)} times; name each once")
    return values


Seed = Annotated[int, Ge(0), Lt(2**32)]  # as far as numpy and Lightning take one


class Suite(BaseModel):
    """A suite as its file says it; what the names in it mean is found out by `expand`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str  # of the board, its folder in the results
    file: str  # as the command takes it: the path of a file, or the name of a suite of the package
    overrides: list[str] = []  # with which it was read
    budget: str | None = None  # of time, that the command names (see `emobench.suite.budget`); None: its own recipes
    scale: float | None = None  # of faces and epochs, likewise (see `emobench.suite.scale`); None: the whole
    seeds: Annotated[list[Seed], AfterValidator(_once)] = Field(default=[0], min_length=1)
    data: dict[str, dict[str, Any]] = Field(min_length=1)
    model: dict[str, dict[str, Any]] = Field(min_length=1)
    trainer: dict[str, Any] = {}
    panel: Annotated[list[str], AfterValidator(_once)] = Field(
        default=["resnet18", "vit"], min_length=2
    )  # judges: rows, or classes at their defaults
    reader: Annotated[str, MinLen(1)] = "cnn21"  # for FED and ES
    evaluation: Evaluation = Evaluation()
    cues: Cues | None = None  # None: no generator is asked in sentences
    explain: Explain | None = None  # None: no classifier is asked where it looks
    wandb: Wandb | None = None  # None: not logged there
    plugins: Annotated[
        list[str], AfterValidator(_once)
    ] = []  # files of the user's own that define tracks, metrics, models and datasets
    real_faces: bool = False  # whether the board's index.html may show pictures of real people


def packaged() -> list[str]:
    """The names of the suites that come with emobench."""
    return sorted(path.stem for path in PACKAGED.glob("*.toml"))


def is_file(suite: str | Path) -> bool:
    """Whether a suite is named by its file: a path has a slash or ends in `.toml`; else it is one of the package."""
    return isinstance(suite, Path) or "/" in suite or os.sep in suite or suite.endswith(".toml")


def stem(suite: str | Path) -> str:
    """The name of a suite's board where nothing is overridden: that of its file without `.toml`, dots and all."""
    return Path(suite).name.removesuffix(".toml")


def _path(suite: str | Path) -> Path:
    try:
        return Path(suite).expanduser()
    except RuntimeError:  # neither HOME nor an entry of the user
        raise SuiteError(f"{suite}: nobody's home is known here. Set HOME, or write the path without ~") from None


def load(suite: str | Path, overrides: Sequence[str] = (), name: str | None = None) -> Suite:
    """Read a suite and apply `model.vit.lr=3e-5` overrides, whose values are TOML.

    Args:
        suite: the path of a file, which has a slash or ends in `.toml`, or the name of a suite of the package.
        name: of its board; None: the file's, and the overrides.

    Raises:
        SuiteError: the file is missing or no TOML, or says something that no suite says.
    """
    path, changes = _place_of(suite), parsed(overrides)
    content = content_of(suite, overrides)
    try:
        board = checked_name(board_name(stem(path), changes) if name is None else name)
        file = str(path.resolve()) if is_file(suite) else str(suite)
        found = Suite(
            name=board, file=file, overrides=[str(each) for each in changes], budget=None, scale=None, **content
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [name for name in Suite.model_fields if name not in _OF_FILE]
            raise SuiteError(f"{path}: {unknown('table', place, known)}") from None
        found_ = "nothing" if first["type"] == "missing" else f"{first['input']!r}"
        example = f". It is written as {_EXAMPLES[str(first['loc'][0])]}" if first["loc"][0] in _EXAMPLES else ""
        raise SuiteError(f"{path}: {place} = {found_}: {first['msg'].removeprefix('Value error, ')}{example}") from None
    except TypeError:
        raise SuiteError(f"{path}: {', '.join(_OF_FILE)} follow from file and command; none is set in it") from None
    plugins.use(dict.fromkeys(found.plugins))
    return found


def _content(path: Path) -> dict[str, Any]:
    """What a TOML file says; an editor's mark of the encoding is no TOML.

    Raises:
        FileNotFoundError: there is none.
        SuiteError: it is no regular file of a suite's size, or no TOML.
    """
    try:
        state = path.stat()  # a device has no end, and a pipe waits for somebody to write
        if not stat.S_ISREG(state.st_mode) or state.st_size > _LARGEST:
            raise SuiteError(f"{path}: a suite is a text file of at most {_LARGEST >> 20} MiB, and this is none")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise
    except RecursionError:
        raise SuiteError(f"{path}: cannot be read as TOML (lists in lists without end)") from None
    except (ValueError, OSError) as error:  # no TOML, no UTF-8, a number of more digits than Python reads
        raise SuiteError(f"{path}: cannot be read as TOML ({error})") from error


def content_of(suite: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a suite's file says with its overrides, with whole paths; see `load`.

    Raises:
        SuiteError: the file is missing or no TOML, or an override is none.
    """
    path = _place_of(suite)
    if not is_file(suite) and not path.exists():
        files = [str(near) for near in (Path(f"{suite}.toml"), Path("benchmarks") / f"{suite}.toml") if near.exists()]
        example = files[0] if files else "my.toml"
        raise SuiteError(f"{unknown('suite', str(suite), packaged())}. A file is named by its path, such as {example}")
    try:
        content = _content(path)
    except FileNotFoundError:
        others = sorted(path.parent.glob("*.toml")) if path.parent.is_dir() else []
        near = [str(other) for other in others if _is_suite(other)]
        raise SuiteError(f"{path}: there is no such suite. {unknown('suite', str(path), near)}") from None
    apply(content, parsed(overrides))
    _anchor(content, path.parent)
    return content


def _place_of(suite: str | Path) -> Path:
    """Where a suite's file lies, if it is there."""
    return _path(suite) if is_file(suite) else PACKAGED / f"{suite}.toml"


def _is_suite(path: Path) -> bool:
    """Whether a TOML file may be a suite: it has tables of data and models, or cannot be read."""
    try:
        return {"data", "model"} <= _content(path).keys()
    except (SuiteError, OSError):
        return True


def written(suite: Mapping[str, Any], overrides: Sequence[str], results: Path) -> tuple[Path, str]:
    """Write a suite that is no file beside its board, so that the board says how it is repeated.

    Args:
        suite: what a file would say, and the board's `name`; files of classes are relative to the current folder.

    Returns:
        The file, and the board's name.

    Raises:
        SuiteError: there is no name, or a value is nothing that TOML can say.
    """
    content = copy.deepcopy({name: value for name, value in suite.items() if name != "name"})
    if not isinstance(suite.get("name"), str):
        raise SuiteError('a suite that is no file needs a "name": that of its board, such as {"name": "mine", ...}')
    board = checked_name(board_name(suite["name"], parsed(overrides)))
    asked = content.get("wandb")
    for name in asked if isinstance(asked, dict) else ():
        if name not in Wandb.model_fields:  # perhaps a key, which no file may hold
            raise SuiteError(f"the suite {board}: {unknown('setting of wandb', name, Wandb.model_fields)}")
    _anchor(content, Path.cwd())
    try:
        text = tomli_w.dumps(content)
    except (TypeError, ValueError) as error:
        raise SuiteError(f"the suite {board}: {error}: settings are numbers, strings, lists and tables") from None
    path = results / board / "suite.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path, board


# Arguments of outside models that name further files, by the first word of their class.
_FURTHER = {"timm": ("checkpoint",), "python": ("reads",), "images": ("directories",)}


def _anchor(content: dict[str, Any], folder: Path) -> None:
    """Name the files of `plugins`, of `class = "my_models.py:Small"` and of outside models by their whole paths."""
    if isinstance(content.get("plugins"), list):
        content["plugins"] = [os.path.realpath(folder / Path(str(each)).expanduser()) for each in content["plugins"]]
    for kind in ("data", "model"):
        tables = content.get(kind)
        for table in tables.values() if isinstance(tables, dict) else ():
            if not isinstance(table, dict) or not isinstance(table.get("class"), str):
                continue
            prefix, colon, path = table["class"].partition(":")
            for name in _FURTHER.get(prefix, ()):
                given = table.get(name)
                if isinstance(given, str):
                    table[name] = os.path.realpath(folder / Path(given).expanduser())
                elif isinstance(given, list) and all(isinstance(each, str) for each in given):
                    table[name] = [os.path.realpath(folder / Path(each).expanduser()) for each in given]
            if colon and prefix in OUTSIDE:
                place = folder / Path(path).expanduser()
                if prefix != "hf" or place.is_dir():  # else a repository
                    table["class"] = f"{prefix}:{os.path.realpath(place)}"
            elif plugins.is_reference(table["class"]):
                table["class"] = plugins.anchored(table["class"], folder)
