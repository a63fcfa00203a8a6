"""`emobench check`: whether a board's figures are as high as they have to be, for CI."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emobench.errors import SuiteError, printable, unknown
from emobench.report.written import overall, read_board
from emobench.runner.store import load_board
from emobench.suite.file import stem

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Bound:
    """What a row's figure has to be.

    Attributes:
        least: whether it is a least value, else a greatest one.
    """

    row: str
    metric: str
    value: float
    least: bool

    @classmethod
    def of(cls, text: str, *, least: bool) -> Bound:
        """Of `ROW.METRIC=VALUE`; a row's name may hold dots.

        Raises:
            SuiteError: it is written otherwise.
        """
        name, equals, number = text.rpartition("=")
        row, dot, metric = name.rpartition(".")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (equals and dot and row and metric) or not math.isfinite(value):
            option = "--min" if least else "--max"
            raise SuiteError(f"{option} {text}: is written as ROW.METRIC=VALUE, such as resnet18.macro_f1=0.3")
        return cls(row, metric, value, least)

    def broken_by(self, value: float) -> bool:
        return value < self.value if self.least else value > self.value

    def __str__(self) -> str:
        return f"{'at least' if self.least else 'at most'} {self.value:g}"


def check(board: str, results: Path, bounds: Sequence[Bound], against: Path | None, drop: float) -> int:
    """Print what is not as it must be, and how many figures are.

    Args:
        board: its name, its folder, or the file of its suite.
        bounds: of rows, on every dataset and track that has the metric.
        against: the folder of another board, than whose ranking figures none may be worse by more than `drop`.
        drop: of shares and scores as it is, of distances as a share of the former one.

    Returns:
        The exit code: 1 where a figure is not as it must be, is n/a, or a row of `against` is missing or unfinished.

    Raises:
        StoreError: there is no such board, or its table is damaged.
        SuiteError: nothing is asked, or a row or a metric is not on the board.
    """
    if not bounds and against is None:
        raise SuiteError("nothing to check: say --min resnet18.macro_f1=0.3, or --against results/<suite>")
    name = stem(board)
    unfinished = [cell for cell in load_board(results, name) if cell.state not in ("done", "not chosen")]
    figures = overall(read_board(results / name))
    found = [*_bounded(figures, bounds), *([] if against is None else _compared(figures, against, drop))]
    broken = [wrong for wrong in found if wrong]
    for line in (*(f"{cell.row} on {cell.dataset}, seed {cell.seed}: {cell.state}" for cell in unfinished), *broken):
        print(printable(line), file=sys.stderr)
    print(f"{len(found) - len(broken)} of {len(found)} figures are as they must be")
    return 1 if broken or unfinished else 0


def _rows(figures: pd.DataFrame) -> Iterator[Any]:
    """The figures one by one, with a table's columns as attributes."""
    return iter(figures.itertuples())


def _bounded(figures: pd.DataFrame, bounds: Sequence[Bound]) -> Iterator[str]:
    """For each figure under a bound what is wrong, empty where nothing is."""
    for bound in bounds:
        of = figures[figures["row"] == bound.row]
        if of.empty:
            raise SuiteError(unknown("row", bound.row, sorted({*figures["row"]})))
        found = of[of["metric"] == bound.metric]
        if found.empty:
            raise SuiteError(f"{bound.row}: {unknown('metric', bound.metric, sorted({*of['metric']}))}")
        for figure in _rows(found):
            if math.isnan(figure.value):
                yield f"{_place(figure)}: {bound.metric} is n/a ({figure.reason}), and must be {bound}"
            elif bound.broken_by(figure.value):
                yield f"{_place(figure)}: {bound.metric} is {figure.value:.4g}, and must be {bound}"
            else:
                yield ""


def _compared(figures: pd.DataFrame, against: Path, drop: float) -> Iterator[str]:
    """For each figure by which the other board ranks what is wrong, empty where nothing is."""
    from emobench.suite.catalog import tracks

    before = overall(read_board(against))
    before = before[~before["row"].str.startswith("control:")]
    for name, track in tracks().items():
        for ranking in track.rankings:
            for key in ranking.metrics:
                these = (
                    (before["track"] == name) & (before["metric"] == key.metric) & (before["emotion"] == key.emotion)
                )
                for figure in _rows(before[these & before["value"].notna()]):
                    allowed = drop if ranking.better == "higher" else drop * figure.value
                    yield _fell(figures, figure, allowed, 1 if ranking.better == "higher" else -1)


def _fell(figures: pd.DataFrame, before: Any, allowed: float, better: int) -> str:
    """How a figure is worse than it was by more than is allowed; empty: it is not.

    Args:
        better: 1 where a higher figure is better, else −1.
    """
    same = ("dataset", "size", "track", "row", "trainer", "metric", "emotion")
    found = figures
    for column in same:
        found = found[found[column] == getattr(before, column)]
    what = f"{_place(before)}: {before.metric}"
    if found.empty:
        return f"{what} was {before.value:.4g}, and the row is not there any more"
    now = next(_rows(found))
    if math.isnan(now.value):
        return f"{what} was {before.value:.4g}, and is n/a ({now.reason})"
    fell = better * (before.value - now.value)
    if fell <= allowed:
        return ""
    return f"{what} was {before.value:.4g}, and is {now.value:.4g}: worse by {fell:.4g}, and {allowed:.4g} is allowed"


def _place(figure: Any) -> str:
    trainer = f" [{figure.trainer}]" if isinstance(figure.trainer, str) and figure.trainer else ""
    return f"{figure.row}{trainer} on {figure.dataset}, {figure.track}"
