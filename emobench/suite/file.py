"""Suites: a TOML file in, and what it is expanded to: cells with their keys (see `expand`)."""

from __future__ import annotations

import dataclasses
import functools
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emobench.errors import SuiteError, unknown
from emobench.suite import plugins
from emobench.suite.keys import key
from emobench.suite.overrides import apply, board_name, checked_name, parsed

PACKAGED = Path(__file__).parents[1] / "suites"
_OF_FILE = ("name", "file", "overrides")


class Wandb(BaseModel):
    """Logging to Weights & Biases, as a suite asks for it."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["online", "offline"] = "online"
    project: str = "emobench"
    entity: str | None = None  # the user or team; None: the key's own


class Evaluation(BaseModel):
    """How many faces an evaluation of a generator draws; the same for every row of the suite."""

    model_config = ConfigDict(extra="forbid")

    fidelity: int | None = Field(default=None, ge=1)  # None: as many as there are test faces, at most 10,000
    per_emotion: int = Field(default=100, ge=1)  # for control
    sources: int = Field(default=96, ge=1)  # test faces in all, the same number an emotion, each to every other one
    intensity: int = Field(default=20, ge=0)  # faces an emotion and level
    identity: str | None = None  # ONNX file of a face-recognition network, input (N, 3, 112, 112); None: no identity
    lpips: str | None = None  # file of torchvision's VGG16 (ImageNet); None: no LPIPS

    @property
    def faces(self) -> dict[str, int | None]:
        """How many faces, without the files."""
        return {name: value for name, value in self.model_dump().items() if name not in ("identity", "lpips")}


class Suite(BaseModel):
    """A suite as its file says it; what the names in it mean is found out by `expand`."""

    model_config = ConfigDict(extra="forbid")

    name: str  # of the board, its folder in the results
    file: str  # as the command takes it: the path of a file, or the name of a suite of the package
    overrides: list[str] = []  # with which it was read
    seeds: list[int] = Field(default=[0], min_length=1)
    data: dict[str, dict[str, Any]] = Field(min_length=1)
    model: dict[str, dict[str, Any]] = Field(min_length=1)
    trainer: dict[str, Any] = {}
    panel: list[str] = Field(default=["resnet18", "vit"], min_length=2)  # judges: rows, or classes at their defaults
    reader: str = "cnn21"  # for FED and ES
    evaluation: Evaluation = Evaluation()
    wandb: Wandb | None = None  # None: not logged there


@dataclass(frozen=True)
class Cell:
    """One model on one dataset with one seed: what is fitted and evaluated, all of it in plain values."""

    row: str  # the table's name in the suite, "control:permuted" for the control
    model: str  # the name of the class, such as "resnet18" or "timm:resnet10t"
    dataset: str
    size: int  # evaluation size, px
    seed: int
    track: str
    control: str | None
    fit: dict[str, Any]  # all that `fit_key` is made of
    evaluation: dict[str, Any]  # all that `eval_key` is made of
    emotions: list[str]
    parameters: int  # of the cell's own network
    trainer: dict[str, Any] = field(default_factory=dict)  # options of Lightning's Trainer, those without a number too
    needs: dict[str, list[str]] = field(default_factory=dict)  # role -> fit_keys of the cells that fill it
    panel: dict[str, list[str]] = field(default_factory=dict)  # "judges" and "reader" -> fit_keys, of a generator's
    sources: dict[str, dict[str, str]] = field(default_factory=dict)  # where its classes lie (`plugins.sources`)
    files: dict[str, str] = field(default_factory=dict)  # weight files of its evaluation, as the suite names them
    datasets: list[str] = field(default_factory=list)  # those of one fit, by their names, where the model is told them

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Cell:
        """The cell that a fit or result record is of."""
        return cls(fit=record["made_of"]["fit"], evaluation=record["made_of"]["eval"], **record["cell"])

    def record(self) -> dict[str, Any]:
        """The cell's fields, but for what its keys are made of, which records hold as `made_of`, and for paths."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("fit", "evaluation", "files")
        }

    @functools.cached_property
    def fit_key(self) -> str:
        return key(self.fit)

    @functools.cached_property
    def eval_key(self) -> str:
        return key(self.evaluation)

    @property
    def awaits(self) -> list[str]:
        """The fit_keys of all cells that must be finished before this one is evaluated."""
        return [fit_key for keys in (*self.needs.values(), *self.panel.values()) for fit_key in keys]

    @property
    def disk_bytes(self) -> int:
        """Disk for its checkpoints while it runs: two with two float32 moments each, and the best one."""
        return self.parameters * 4 * (2 * 3 + 1)

    @property
    def label(self) -> str:
        return f"{self.row} on {self.dataset}, seed {self.seed}"

    @property
    def trains(self) -> bool:
        """Whether there is anything to fit: an ensemble has no recipe."""
        return self.fit["recipe"] is not None

    def entry(self) -> dict[str, Any]:
        """The cell as a row of `suite.json`."""
        variant = "" if self.row == self.model else self.row
        if self.control is not None:
            variant = self.model
        return {
            "row": self.row,
            "model": f"control:{self.control}" if self.control else self.model,
            "variant": variant,
            "dataset": self.dataset,
            "size": self.size,
            "seed": self.seed,
            "track": self.track,
            "control": self.control,
            "fit_key": self.fit_key,
            "eval_key": self.eval_key,
        }


@dataclass(frozen=True)
class Skipped:
    """An optional row or dataset that cannot run here, and how to get what it lacks."""

    row: str
    model: str
    dataset: str
    size: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """A suite, expanded: every cell in an order in which each comes after those that it needs."""

    suite: str
    cells: list[Cell]
    skipped: list[Skipped]
    downloads: list[str]  # files that a library will fetch when a cell starts
    data_notes: dict[str, list[str]]  # dataset -> what its loader says
    listings: dict[str, str] = field(default_factory=dict)  # file or folder of a dataset -> digest of what lies there


def packaged() -> list[str]:
    """The names of the suites that come with emobench."""
    return sorted(path.stem for path in PACKAGED.glob("*.toml"))


def is_file(suite: str | Path) -> bool:
    """Whether a suite is named by its file: a path has a slash or ends in `.toml`; else it is one of the package."""
    return isinstance(suite, Path) or "/" in suite or os.sep in suite or suite.endswith(".toml")


def stem(suite: str | Path) -> str:
    """The name of a suite's board where nothing is overridden: that of its file without `.toml`, dots and all."""
    return Path(suite).name.removesuffix(".toml")


def load(suite: str | Path, overrides: Sequence[str] = (), name: str | None = None) -> Suite:
    """Read a suite and apply `model.vit.lr=3e-5` overrides, whose values are TOML.

    Args:
        suite: the path of a file, which has a slash or ends in `.toml`, or the name of a suite of the package.
        name: of its board; None: the file's, and the overrides.

    Raises:
        SuiteError: the file is missing or no TOML, or says something that no suite says.
    """
    path = Path(suite).expanduser() if is_file(suite) else PACKAGED / f"{suite}.toml"
    changes = parsed(overrides)
    if not is_file(suite) and not path.exists():
        files = [str(near) for near in (Path(f"{suite}.toml"), Path("benchmarks") / f"{suite}.toml") if near.exists()]
        example = files[0] if files else "my.toml"
        raise SuiteError(f"{unknown('suite', str(suite), packaged())}. A file is named by its path, such as {example}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(str(other) for other in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise SuiteError(f"{path}: there is no such suite. {unknown('suite', str(path), near)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SuiteError(f"{path}: cannot be read as TOML ({error})") from error
    apply(content, changes)
    _anchor_classes(content, path.parent)
    try:
        board = checked_name(board_name(stem(path), changes) if name is None else name)
        file = str(path.resolve()) if is_file(suite) else str(suite)
        return Suite(name=board, file=file, overrides=[str(each) for each in changes], **content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [name for name in Suite.model_fields if name not in _OF_FILE]
            raise SuiteError(f"{path}: {unknown('table', place, known)}") from None
        raise SuiteError(f"{path}: {place}: {first['msg']}") from None
    except TypeError:
        raise SuiteError(f"{path}: {', '.join(_OF_FILE)} follow from file and command; none is set in it") from None


def _anchor_classes(content: Mapping[str, Any], folder: Path) -> None:
    """Name the files of `class = "my_models.py:Small"` by their whole paths."""
    for kind in ("data", "model"):
        tables = content.get(kind)
        for table in tables.values() if isinstance(tables, dict) else ():
            if isinstance(table, dict) and plugins.is_reference(str(table.get("class", ""))):
                table["class"] = plugins.anchored(table["class"], folder)
