"""What a suite is expanded to: cells with their keys, in an order in which each comes after those that it needs."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any

from emobench.suite.keys import key


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
    files: dict[str, Any] = field(default_factory=dict)  # of its evaluation, or of an outside model: where they lie
    datasets: list[str] = field(default_factory=list)  # those of one fit, by their names, where the model is told them
    setting_of: str = ""  # the row of the suite whose settings are swept, where it is one of them
    part: int | None = None  # of a cross-validation, from 0: which one this fit is without
    small: dict[str, Any] | None = None  # the recipe for small faces, where its share is counted against that
    trained_by: str = ""  # the suite's name of the trainer, where it has several; its row's name may end with it
    declared: dict[str, Any] = field(default_factory=dict)  # what the suite claims of its row

    def fields(self) -> dict[str, Any]:
        """The cell's fields, but for what its keys are made of, which records hold as `made_of`, and for paths.

        Nor that it is one of several settings, or which trainer it is of, which are the suite's matter: a row written
        by hand may share its record. Nor what is claimed of it.
        """
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("fit", "evaluation", "files", "setting_of", "part", "small", "trained_by", "declared")
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
        part = "" if self.part is None else f", without part {self.part + 1}"
        track = ", where it looks" if self.track == "explanation" else ""
        return f"{self.row} on {self.dataset}, seed {self.seed}{part}{track}"

    @property
    def trains(self) -> bool:
        """Whether there is anything to fit: an ensemble has no recipe."""
        return self.fit["recipe"] is not None

    def entry(self) -> dict[str, Any]:
        """The cell as a row of `suite.json`."""
        row = without_trainer(self.row, self.trained_by)
        variant = "" if row == self.model else row
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
            **({"setting_of": self.setting_of} if self.setting_of else {}),
            **({} if self.part is None else {"part": self.part}),
            **({"trainer": self.trained_by} if self.trained_by else {}),
            **({"declared": self.declared} if self.declared else {}),
        }


def without_trainer(row: str, trainer: str) -> str:
    """What a row is called under the suite's first trainer; under a further one, `resnet18@amp`."""
    return row.removesuffix(f"@{trainer}") if trainer else row


@dataclass(frozen=True)
class Skipped:
    """An optional row or dataset that cannot run here, and how to get what it lacks."""

    row: str
    model: str
    dataset: str
    size: int
    reason: str
    trained_by: str = ""  # as of a cell


@dataclass(frozen=True)
class Plan:
    """A suite, expanded: every cell in an order in which each comes after those that it needs."""

    suite: str
    cells: list[Cell]
    skipped: list[Skipped]
    downloads: list[str]  # files that a library will fetch when a cell starts
    data_notes: dict[str, list[str]]  # dataset -> what its loader says
    listings: dict[str, str] = field(default_factory=dict)  # file or folder that it comes of -> digest
    faces: dict[str, dict[str, int]] = field(default_factory=dict)  # dataset -> emotion -> faces of its training split
    validation: dict[str, int] = field(default_factory=dict)  # dataset -> faces of its validation split
    test: dict[str, int] = field(default_factory=dict)  # dataset -> faces of its test split

    @functools.cached_property
    def trained_on(self) -> dict[str, list[str]]:
        """Row -> the datasets that one fit of it sees together, on each of which it has a cell; of joint fits only."""
        found: dict[str, list[str]] = {}
        for cell in self.cells:
            if "joint" in cell.fit["data"] and cell.dataset not in found.setdefault(cell.row, []):
                found[cell.row].append(cell.dataset)
        return found
