"""What a track is: one thing that models are measured at, with its raw results, numbers, controls and ranks.

A track is one file with one subclass of `Track`, beside this one or anywhere else. Its `measure` draws and judges, and
alone loads torch; all else is numpy, since reports are made from stored results without torch.

Shapes: R bootstrap replicates, Q numbers, N faces, K emotions.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.errors import RawError
from emobench.evaluation.values import Value
from emobench.metrics import intervals

if TYPE_CHECKING:
    from emobench.evaluation.task import Task

Floats = NDArray[np.float64]

_NO_OTHER = "no other person in the test split shows the emotion"
_NO_VALUE = "the comparison has no value"


@dataclass(frozen=True)
class Name:
    """A foreign name in a sentence of ours, which is shown as it is, whatever markup it holds."""

    text: object


class Key(NamedTuple):
    """Which number of a row."""

    metric: str
    emotion: str = ""  # "": the whole, "macro": the mean over emotions
    judge: str = ""  # "": the whole panel, or no judge at all


@dataclass(frozen=True)
class MeasuredCell:
    """A finished cell as a track reads it: what its record says, and its raw file.

    Attributes:
        same: what must be equal for two cells to be compared at all, such as the protocol's version.
        counts: faces of each emotion in the training split.
        values: numbers of the whole sample, by metric.
        references: the same of real faces, by the name of the control.
        panel: name and sha256 of the weights of each judge.
        draws: whether the model draws faces from nothing but an emotion.
    """

    row: str
    seed: int
    control: str | None
    emotions: tuple[str, ...]
    path: Path
    same: tuple[Any, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    panel: tuple[tuple[str, str], ...] = ()
    draws: bool = True


@dataclass(frozen=True)
class Estimates:
    """Numbers of one network that follow from the same units, and the same numbers under resampled units.

    Attributes:
        keys: Q.
        values: (Q,), NaN where undefined.
        draws: (R, Q).
        units: how many independent units were resampled.
        unit: what they are, such as "people".
        faces: (Q,) faces behind each number.
        low, high: (Q,) where a number cannot lie outside; infinite where it can.
        notes: (Q,) why there is no value, or what it leaves out.
        rests_on: (Q,) how many of the units a number is counted from, such as those of one emotion; None: all of them.
    """

    keys: tuple[Key, ...]
    values: Floats
    draws: Floats
    units: int
    unit: str
    faces: tuple[int, ...]
    low: Floats
    high: Floats
    notes: tuple[str | None, ...]
    rests_on: Floats | None = None

    def only(self, keys: Collection[Key]) -> Estimates:
        """Some of the numbers, without what the others hold in memory."""
        kept = [place for place, key in enumerate(self.keys) if key in keys]
        return Estimates(
            tuple(self.keys[place] for place in kept),
            self.values[kept],
            np.ascontiguousarray(self.draws[:, kept]),
            self.units,
            self.unit,
            tuple(self.faces[place] for place in kept),
            self.low[kept],
            self.high[kept],
            tuple(self.notes[place] for place in kept),
            None if self.rests_on is None else self.rests_on[kept],
        )


@dataclass(frozen=True)
class Check:
    """The outcome of a control: where its number must lie, and whether it does."""

    name: str
    seed: int
    what: str
    value: float | None  # None: it has none, `reason` says why
    low: float | None
    high: float | None  # None: as high as it likes
    reason: str | None = None
    possible: bool = True  # whether its faces are there, so that it ought to have a value
    chance: float | None = None  # what it would be of answers that know nothing
    follows: bool = False  # whether it has no value because nobody can read the faces, which `Track.blind` says

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the board; what ought to have a value and has none does."""
        if self.value is None or self.low is None:
            return not self.possible
        return self.low - 1e-9 <= self.value and (self.high is None or self.value <= self.high + 1e-9)

    @property
    def bounds(self) -> str:
        """Where the number must lie, as text."""
        if self.low is None:
            return "–"
        low = f"{self.low:.3f}"
        return (f"at least {low}" if self.high is None else f"{low}–{self.high:.3f}").replace("-", "−")

    @property
    def found(self) -> str:
        """What is wrong with one that fails, as text."""
        if self.value is None:
            return f"{self.what} cannot be computed ({self.reason})"
        said = f"{self.what} is {self.value:.3f}".replace("-", "−")
        return f"{said}, but must be {self.bounds}" + ("" if self.chance is None else f" (chance: {self.chance:.3f})")


@dataclass(frozen=True)
class ControlRow:
    """Faces or answers of which it is known what they must score.

    Attributes:
        name: "control:<name>".
        trained: whether a network with a seed stands behind it.
    """

    name: str
    estimates: Sequence[Estimates] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    checks: Sequence[Check] = ()
    trained: bool = False


@dataclass(frozen=True)
class Made:
    """What a model made for a track, as metrics see it.

    Attributes:
        images: uint8 (N, 3, S, S).
        asked: (N,) the emotion asked for.
        emotions: the K of the dataset.
        sources: uint8 (N, 3, S, S), the faces that were changed; None: the faces were drawn.
        rows: (N,) rows of the dataset that the sources are; None: the faces were drawn.
        data: the data module; of drawn people it knows the truth (`counterpart`).
        networks: those that the suite names, by use, such as "identity".
        columns: (N,) each, what the model itself says of every face.
    """

    images: NDArray[np.uint8]
    asked: NDArray[np.int64]
    emotions: tuple[str, ...]
    sources: NDArray[np.uint8] | None = None
    rows: NDArray[np.int64] | None = None
    data: Any = None
    networks: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A metric of a track: a number a face, averaged over faces with an interval over the track's units.

    Attributes:
        name: its column in raw files and in metrics.csv.
        track: of what is measured.
        compute: the faces to (N,) floats, NaN where a face has none; None: it cannot be measured here.
        heading: over its column on boards; "": the name.
        low, high: where no mean lies outside; None: it may lie anywhere.
        missing: why there is no number where `compute` gives None.
        of_others: whether it is also measured of a random other person, for `control:other_person`.
        significant: whether it is shown by significant digits instead of three decimals.
    """

    name: str
    track: str
    compute: Callable[[Made], NDArray[np.floating] | None]
    heading: str = ""
    low: float | None = None
    high: float | None = None
    missing: str = "not measured"
    of_others: bool = False
    significant: bool = False


@dataclass(frozen=True)
class Ranking:
    """A rank of a track's rows.

    Attributes:
        name: as files name it.
        heading: over its column, after "rank: ".
        metrics: the first that all rows have is ranked by, else the last; each with the emotion.
        by: "faces": compared on resampled faces; "samples": by one number a seed, so ordered only below three seeds.
        better: which end is first.
        says: of the first row in the verdict, before its number.
        scale: metric -> what its number is to be compared with, where it is no share and no distance.
    """

    name: str
    heading: str
    metrics: tuple[Key, ...]
    says: str
    by: Literal["faces", "samples"] = "faces"
    better: Literal["higher", "lower"] = "higher"
    scale: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Column:
    """A column of a track's table.

    Attributes:
        shows: "number"; "worst": the emotion with the lowest number, named; "behind": how far behind the first it is.
        optional: whether the column is left out where no row has the number.
    """

    heading: str
    key: Key
    shows: Literal["number", "worst", "behind"] = "number"
    optional: bool = False
    significant: bool = False


class Track:
    """One thing that models are measured at.

    Attributes:
        title: heading of its section.
        raw: which raw file of a record it reads.
        whole_samples: whether its records hold numbers of whole samples, which do not follow from the raw file.
        headline: the number under which a cell without numbers is listed.
        settings: the names of `[evaluation]` that change its numbers.
        most_resamples: how many `redrawn` may be asked for.
        metrics: means over its faces.
        by_emotion: metric and heading of the tables that have a column an emotion.
        pictures: kind of a raw picture -> what it shows.
        meaning: sentences about its numbers, for the end of a board.
        floor: a control and a number that a model must exceed by its interval, or it has learned nothing that counts.
        gains: numbers that must lie above 0 by their intervals, and the flag of a model of which one does not.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    raw: ClassVar[str] = "verdicts"
    whole_samples: ClassVar[bool] = True
    headline: ClassVar[Key]
    settings: ClassVar[tuple[str, ...]] = ()
    most_resamples: ClassVar[int] = intervals.MOST_RESAMPLES
    metrics: tuple[Metric, ...] = ()
    rankings: ClassVar[tuple[Ranking, ...]] = ()
    columns: ClassVar[tuple[Column, ...]] = ()
    by_emotion: ClassVar[tuple[tuple[str, str], ...]] = ()
    pictures: ClassVar[Mapping[str, str]] = {}
    meaning: ClassVar[tuple[str, ...]] = ()
    floor: ClassVar[tuple[str, Key] | None] = None
    gains: ClassVar[tuple[tuple[Key, str], ...]] = ()

    def add(self, metrics: Sequence[Metric]) -> None:
        """Measure and show further metrics, of files of the user's own."""
        new = [metric for metric in metrics if metric not in self.metrics]
        if not new:
            return
        self.metrics = (*self.metrics, *new)
        shown = [Column(each.heading or each.name, Key(each.name), optional=True) for each in new]
        vars(self)["columns"] = (*self.columns, *shown)

    @classmethod
    def measures(cls, model: type) -> bool:
        """Whether a model of this class is measured on the track: by the methods that it has."""
        raise NotImplementedError

    @staticmethod
    def measure(task: Task) -> dict[str, Value]:
        """Draws and judges: the function `measure` of the track's own file, which with `METRICS` alone is in its keys.

        Returns:
            Numbers of the whole sample, by metric.
        """
        raise NotImplementedError

    def read(self, cell: MeasuredCell) -> Any:
        """The raw results of a finished cell, checked.

        Raises:
            RawError: a file is missing, broken or implausible; says which, and what to do.
        """
        raise NotImplementedError

    def same(self, faces: Any) -> Any:
        """What must be equal for the raw results of two cells to be compared."""
        raise NotImplementedError

    def estimates(self, cells: Sequence[Any]) -> list[list[Estimates]]:
        """The numbers of each cell that follow from its raw results."""
        raise NotImplementedError

    def redrawn(self, cells: Sequence[Any], key: Key, resamples: int) -> Floats:
        """(R, M) a number by which cells are ranked, under more resamples: the first are those of `estimates`."""
        raise NotImplementedError

    def controls(self, cells: Sequence[Any]) -> list[ControlRow]:
        """The controls of a board.

        Args:
            cells: the first of those that the board compares, and those that are controls themselves.
        """
        return []

    def blind(self, faces: Any, checks: Sequence[Check]) -> dict[str, str]:
        """Metrics by which nobody may be ranked, and why: whoever reads the faces cannot.

        Args:
            checks: the outcomes of the track's controls on the same faces.
        """
        return {}

    def leaked(self, faces: Any) -> int:
        """How many of the test faces also occur in training or validation."""
        return 0

    def calibrating(self, faces: Any) -> tuple[int, str]:
        """How many units of real faces the judges are calibrated by, and what they are; 0 where none are."""
        return 0, "faces"

    def panel_confusions(self, faces: Any) -> Sequence[Floats]:
        """(K, K) of each judge on real test faces: of the faces of an emotion (row), the share read as each."""
        return ()

    def curve(self, cells: Sequence[Any]) -> pd.Series | None:
        """The panel's probability over the intensity asked for, of one row's cells; None: no such faces."""
        return None

    def notes(self, cells: Mapping[str, Any]) -> list[tuple[str | Name, ...]]:
        """Sentences below the table; `cells`: the record of a finished cell of each row."""
        return []


@contextlib.contextmanager
def table_of(path: Path) -> Iterator[pd.DataFrame]:
    """A raw table; whatever breaks while it is read, or while its columns are taken in the block, is a RawError.

    The same as `pandas.read_parquet` gives, in two thirds of its time.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(use_threads=False).to_pandas(use_threads=False)
        yield table
    except FileNotFoundError:
        raise RawError(path, "missing") from None
    except Exception as error:  # whatever a broken file makes Parquet, pandas or the block raise: the board goes on
        raise RawError(path, f"cannot be read ({type(error).__name__}: {error})") from error


def digest(faces: pd.DataFrame) -> str:
    """SHA-256 of which faces a table is of, and of their labels."""
    found = hashlib.sha256(faces["label"].to_numpy(np.int64).tobytes())
    found.update("\0".join(faces["id"].astype(str).to_numpy(object)).encode())
    return found.hexdigest()


def people(subjects: pd.Series) -> NDArray[np.int64] | None:
    """(N,) the number of the person of each face; one of nobody known is its own. None: nobody is known at all."""
    if subjects.isna().all():
        return None
    codes = np.asarray(pd.factorize(subjects)[0], np.int64)
    codes[codes < 0] = codes.max() + 1 + np.arange((codes < 0).sum())
    return codes


def means(
    part: pd.DataFrame, group: NDArray[np.int64], unit: str, metrics: Sequence[Metric], *, other: bool = False
) -> Estimates:
    """Means of metrics over faces, whose units are resampled whole.

    Args:
        part: a row a face, a column a metric; NaN where a face has none: the mean is over the others.
        group: (N,) the unit of each face, 0 to G − 1.
        unit: what the units are.
        other: what was measured is not the result but a random other person with the emotion.
    """
    names = [f"{metric.name}_other" if other else metric.name for metric in metrics]
    empty = pd.Series(np.full(len(part), np.nan), part.index)
    columns = np.stack([part.get(name, empty).to_numpy(np.float64) for name in names], -1)  # (N, Q)
    known = ~np.isnan(columns)
    sums = intervals.grouped(np.concatenate([np.nan_to_num(columns), known], 1)[None], group)

    def statistic(sums: intervals.Floats) -> intervals.Floats:
        total, count = np.split(np.asarray(sums, np.float64), 2, axis=-1)
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    n, lacking = known.sum(0), _NO_OTHER if other else _NO_VALUE
    notes: list[str | None] = []
    for metric, name, count in zip(metrics, names, n.tolist(), strict=True):
        if count == 0:
            notes.append(lacking if other and name in part else metric.missing)
        else:
            notes.append(f"{len(part) - count:,} of {len(part):,} faces: {lacking}" if count < len(part) else None)
    return Estimates(
        tuple(Key(metric.name) for metric in metrics),
        statistic(sums.sum(1))[0],
        intervals.bootstrap(sums, statistic)[:, 0],
        sums.shape[1],
        unit,
        tuple(count or len(part) for count in n.tolist()),
        np.array([-np.inf if metric.low is None else metric.low for metric in metrics]),
        np.array([np.inf if metric.high is None else metric.high for metric in metrics]),
        tuple(notes),
    )


def listed(parts: Sequence[tuple[str | Name, ...]]) -> tuple[str | Name, ...]:
    """a, b and c"""
    said: tuple[str | Name, ...] = ()
    for place, part in enumerate(parts):
        said = (*said, *(("",) if place == 0 else (" and ",) if place == len(parts) - 1 else (", ",)), *part)
    return said
