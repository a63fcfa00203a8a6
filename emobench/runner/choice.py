"""Which of several settings of a classifier reads the test split: the one with the best validation score.

The choice is no file: it follows from the records of the fits each time that it is asked for. So a sweep that was
interrupted goes on, a setting that is added later takes part, and a clone of a board comes to the same choice.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from emobench.errors import StoreError
from emobench.runner.record import Record

NOT_CHOSEN = "not chosen"
RECOGNITION = "recognition"  # the track that is chosen for
EXPLANATION = "explanation"  # a further track of what is chosen
READ_EARLIER = "; the test split was read with it earlier, which is kept and not shown"  # of one that was chosen before


class Candidate(Protocol):
    """A cell, planned or stored."""

    @property
    def row(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def track(self) -> str: ...
    @property
    def setting_of(self) -> str: ...
    @property
    def fit_key(self) -> str: ...
    @property
    def eval_key(self) -> str: ...


C = TypeVar("C", bound=Candidate)


@dataclass
class Setting:
    """One setting on one dataset.

    Attributes:
        scores: seed -> macro F1 on validation faces, at the best epoch.
        failed: seed -> why it has none, and will have none unless it is fitted again.
        pending: seeds that are still to be fitted.
    """

    row: str
    scores: dict[int, float] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)

    @property
    def seeds(self) -> int:
        return len(self.scores) + len(self.failed) + len(self.pending)

    @property
    def mean(self) -> float | None:
        """Over the seeds that have a score; None: none has."""
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else None


@dataclass
class Choice:
    """The settings of one row on one dataset, in the suite's order."""

    sweep: str
    dataset: str
    size: int
    settings: list[Setting]

    @property
    def pending(self) -> bool:
        """Whether a setting is still to be fitted, so that none is chosen yet."""
        return any(setting.pending for setting in self.settings)

    @property
    def chosen(self) -> str | None:
        """The row with the best mean over seeds, the first of equal ones; None: pending, or no setting is whole.

        A setting that failed with one of its seeds has no mean over the same seeds as the others, and is not chosen.
        """
        whole = [setting for setting in self.settings if not setting.failed and setting.mean is not None]
        if self.pending or not whole:
            return None
        return max(whole, key=lambda setting: setting.mean or 0.0).row

    def of(self, row: str) -> Setting:
        return next(setting for setting in self.settings if setting.row == row)

    def scored(self, cell: Candidate) -> bool:
        """Whether a cell has a validation score."""
        return cell.seed in self.of(cell.row).scores

    def reason(self, cell: Candidate) -> str:
        """Why a cell with a score is not the chosen one."""
        if self.pending:
            return "fitted; a setting is chosen when all are"
        if self.chosen is None:
            return "no setting was fitted with every seed"
        mine, best = self.of(cell.row), self.of(self.chosen)
        if mine.failed:
            return f"seed {min(mine.failed)} has no validation score; chosen is {self.chosen}"
        return f"validation macro F1 {mine.mean:.3f}, of {self.chosen} {best.mean:.3f}"


def is_candidate(cell: Candidate) -> bool:
    """Whether a cell reads the test split only if its setting is chosen; settings of generators are all shown."""
    return bool(cell.setting_of) and cell.track in (RECOGNITION, EXPLANATION)


def groups(cells: Sequence[C]) -> list[list[C]]:
    """The candidates among some cells, those together of which one setting is chosen."""
    found: dict[tuple[str, str, int, str], list[C]] = {}
    for cell in cells:
        if is_candidate(cell):
            found.setdefault((cell.setting_of, cell.dataset, cell.size, cell.track), []).append(cell)
    return list(found.values())


def choice(group: Sequence[C], fit_of: Callable[[C], Record | None]) -> Choice:
    """The choice among the cells of a group.

    Args:
        fit_of: the record of a cell's fit, however that ended; None: there is none; a StoreError: it is damaged.
    """
    settings = {cell.row: Setting(cell.row) for cell in group}
    for cell in group:
        setting = settings[cell.row]
        try:
            fit = fit_of(cell)
        except StoreError as error:
            setting.failed[cell.seed] = f"corrupt result: {error}"
            continue
        validation = None if fit is None or fit.fit is None else fit.fit.validation
        if fit is None or fit.state == "interrupted":
            setting.pending.append(cell.seed)
        elif fit.state != "done":
            setting.failed[cell.seed] = f"{fit.state}: {fit.reason}" if fit.reason else fit.state
        elif validation is None:
            setting.failed[cell.seed] = "its record has no validation score"
        else:
            setting.scores[cell.seed] = validation.macro_f1
    first = group[0]
    return Choice(first.setting_of, first.dataset, first.size, list(settings.values()))
