"""A board in numbers: from the rows of a suite and their raw predictions to values, intervals, ranks and controls.

Reads `bench/store.py`'s files and nothing else; the same files give the same board.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from emobench.metrics import intervals as stats
from emobench.metrics.recognition import Floats, class_measures, measures, tally
from emobench.report.raw import Measured, comparable
from emobench.runner.store import PROTOCOL, Row

if TYPE_CHECKING:
    from emobench.report.judged import JudgedSection

COSTS = ("params", "flops", "fit_seconds", "fit_faces_per_s", "faces_per_s", "peak_memory_gb", "recipe_share")
FIT_COSTS = ("fit_seconds", "fit_faces_per_s", "peak_memory_gb")  # measured where the fit ran, which may be elsewhere
UNDER_TRAINED = 0.5  # share of the recipe's steps (PROTOCOL.md 6)
WHOLE = ("accuracy", "accuracy_unleaked", "macro_f1", "weighted_f1", "precision", "recall", "ece", "nll")
SINGLE = ("accuracy", "precision", "recall", "f1")
UNDEFINED = {
    "accuracy_unleaked": "every test face also occurs in training or validation",
    "accuracy": "no test face of it",
    "recall": "no test face of it",
    "precision": "never predicted",
    "f1": "no test face of it, and never predicted",
}


class Number(NamedTuple):
    """One number; the fields are the columns of metrics.csv (PROTOCOL.md 9)."""

    suite: str
    dataset: str
    size: int
    track: str
    model: str
    variant: str
    seed: int | None  # None: the aggregate over seeds
    metric: str
    emotion: str  # "": the whole, "macro": the mean over emotions
    value: float | None  # None: not available, `reason` says why
    low: float | None
    high: float | None
    n: int | None  # test faces it was measured on
    reason: str | None  # why there is no value or no interval, or what the interval leaves out
    judge: str
    hardware: str
    protocol: int
    flags: str  # separated by ";"


@dataclass
class Entry:
    """One model on one dataset, over its seeds."""

    name: str
    rows: list[Row]
    numbers: dict[tuple[str, str], Number] = field(default_factory=dict)  # (metric, emotion) -> over all seeds
    single: list[Number] = field(default_factory=list)  # the same for each seed
    missing: list[Number] = field(default_factory=list)  # why a seed has none
    seeds: list[int] = field(default_factory=list)  # those measured
    flags: list[str] = field(default_factory=list)
    shares: Floats | None = None  # (K, K) mean over seeds of P(read as j | emotion i); NaN rows: no such face
    rank: tuple[int, int] | None = None
    behind: stats.Comparison | None = None  # the first of the table minus this one, in macro F1

    @property
    def ranked(self) -> bool:
        return bool(self.seeds) and self.rows[0].control is None and "diverged" not in self.flags

    def value(self, metric: str, emotion: str = "") -> float | None:
        number = self.numbers.get((metric, emotion))
        return None if number is None else number.value


@dataclass(frozen=True)
class Check:
    """The outcome of a control: where its number must lie, and whether it does."""

    name: str
    seed: int
    what: str
    value: float | None  # None: not available, `reason` says why; nothing failed
    low: float | None
    high: float | None  # None: as high as it likes
    reason: str | None = None

    @property
    def passed(self) -> bool:
        if self.value is None or self.low is None:
            return True
        return self.low - 1e-9 <= self.value and (self.high is None or self.value <= self.high + 1e-9)

    @property
    def bounds(self) -> str:
        if self.low is None:
            return "n/a"
        return f"at least {self.low:.3f}" if self.high is None else f"{self.low:.3f}–{self.high:.3f}".replace("-", "−")


@dataclass
class Section:
    """One dataset at one size: models that were measured on the same faces."""

    dataset: str
    size: int
    entries: list[Entry]  # ranked ones first, best macro F1 first
    controls: list[Entry]
    checks: list[Check] = field(default_factory=list)
    comparisons: list[stats.Comparison] = field(default_factory=list)  # by place among the ranked entries
    emotions: tuple[str, ...] = ()
    faces: int = 0
    subjects: int | None = None  # people among the test faces, where they are known
    leaked: int = 0
    majority: str | None = None
    usable: list[Row] = field(default_factory=list)  # the cells behind the numbers
    notes: list[str] = field(default_factory=list)

    @property
    def ranked(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.ranked]


@dataclass(frozen=True)
class Board:
    """A board as it was written."""

    suite: str
    path: Path  # leaderboard.md
    rows: list[Row]
    sections: list[Section]
    judged: list[JudgedSection] = field(default_factory=list)
    command: str = ""  # that runs its suite again

    @property
    def all_sections(self) -> list[Section | JudgedSection]:
        """Those of classifiers, then those of generators."""
        return [*self.sections, *self.judged]

    @property
    def wanted(self) -> list[Row]:
        """The cells that can run here: all but the skipped ones."""
        return [row for row in self.rows if row.state != "skipped"]

    @property
    def missing(self) -> list[Number]:
        """The cells without numbers, each with its reason; skipped ones are not among them."""
        entries = (entry for section in self.all_sections for entry in (*section.entries, *section.controls))
        return [number for entry in entries for number in entry.missing if not _says(number, "skipped")]

    @property
    def failed(self) -> list[Number]:
        """Those of them that ended badly or cannot be read, pending ones aside."""
        return [number for number in self.missing if not _says(number, "pending")]

    @property
    def checks(self) -> list[Check]:
        """The outcomes of all controls."""
        return [check for section in self.all_sections for check in section.checks]


def _says(number: Number, state: str) -> bool:
    return (number.reason or "").split(":")[0] == state


def hardware(record: Mapping[str, Any] | None) -> str:
    """One line for a machine: what did the work."""
    if not record:
        return "unknown"
    if record.get("gpu"):
        return str(record["gpu"])
    return f"{record.get('cpu') or 'CPU'}, {record.get('cores', '?')} cores"


def sections(suite: str, rows: Sequence[Row]) -> list[Section]:
    """All datasets of a board, in the suite's order."""
    found = []
    for dataset, size in dict.fromkeys((row.dataset, row.size) for row in rows):
        mine = [row for row in rows if (row.dataset, row.size) == (dataset, size)]
        found.append(_section(suite, dataset, size, mine, *comparable(mine)))
    return found


def _section(
    suite: str, dataset: str, size: int, rows: Sequence[Row], cells: list[Measured], trouble: Mapping[int, str]
) -> Section:
    entries = [Entry(name, [row for row in rows if row.row == name]) for name in dict.fromkeys(row.row for row in rows)]
    section = Section(dataset, size, entries, [])
    if cells:
        _describe(section, cells)
        majority = _majority(section, cells)
        crowd = _Crowd.of([*cells, *([] if majority is None else [majority])], section)
        for entry in entries:
            _measure(entry, crowd, suite)
        if majority is not None:
            section.controls.append(_majority_entry(crowd, majority, suite))
        section.checks = [_permuted(cell) for cell in cells if cell.row.control == "permuted"]
        _rank(section, crowd)
    for entry in entries:
        _explain(entry, {id(rows[place]): reason for place, reason in trouble.items()}, suite)
    section.controls += [entry for entry in entries if entry.rows[0].control is not None]
    section.entries = [entry for entry in section.entries if entry.rows[0].control is None]
    return section


def _describe(section: Section, cells: Sequence[Measured]) -> None:
    """What the section says of its test faces."""
    first = cells[0]
    subjects = first.faces["subject"]
    section.usable = [cell.row for cell in cells]
    section.emotions, section.faces = first.emotions, len(first.faces)
    section.subjects = None if subjects.isna().all() else int(subjects.nunique())
    section.leaked = int(first.faces["leaked"].sum())
    notes = (note for cell in cells for note in (cell.row.result or {})["dataset"].get("notes", []))
    section.notes = list(dict.fromkeys(notes))


class _Crowd:
    """All networks of a section on the same faces, and the same faces resampled."""

    def __init__(self, cells: Sequence[Measured], section: Section, values: Floats, draws: Floats, groups: int) -> None:
        self.cells, self.section, self.groups = cells, section, groups
        self.values, self.draws = values, draws  # (M, Q), (R, M, Q)
        emotions = section.emotions
        self.names = [(metric, "macro" if metric in ("precision", "recall") else "") for metric in WHOLE]
        self.names += [(metric, emotion) for metric in SINGLE for emotion in emotions]
        support = np.bincount(cells[0].faces["label"], minlength=len(emotions))
        whole = {"accuracy_unleaked": section.faces - section.leaked}
        self.counts = [whole.get(metric, section.faces) for metric in WHOLE] + [int(n) for n in support] * len(SINGLE)
        self.upper = [np.inf if metric == "nll" else 1.0 for metric, _ in self.names]

    @classmethod
    def of(cls, cells: Sequence[Measured], section: Section) -> _Crowd:
        """Measure and resample: whole people where they are known, each other face for itself."""
        classes = len(section.emotions)

        def statistic(sums: Floats) -> Floats:
            whole, single = measures(sums, classes), class_measures(sums, classes)
            joint = np.stack([whole[name] for name in WHOLE], -1)
            return np.concatenate([joint, *(single[name] for name in SINGLE)], -1)

        subjects = cells[0].faces["subject"]
        codes = np.asarray(pd.factorize(subjects)[0], np.int64)
        codes[codes < 0] = codes.max() + 1 + np.arange((codes < 0).sum())
        groups = None if subjects.isna().all() else codes
        units = np.stack([stats.grouped(cell.tally, groups).astype(np.float32) for cell in cells])
        values = statistic(np.stack([cell.tally.sum(0) for cell in cells]))  # in float64; the resamples need less
        return cls(cells, section, values, stats.bootstrap(units, statistic), units.shape[1])

    def places(self, entry: Entry) -> list[int]:
        """Where the networks of a model stand."""
        return [place for place, cell in enumerate(self.cells) if any(cell.row is row for row in entry.rows)]

    def numbers(self, which: Sequence[int], base: Number) -> Iterator[Number]:
        """The numbers of some networks of one model, with their interval."""
        of = stats.spread(self.values[which], self.draws[:, which], self.groups)
        for (metric, emotion), n, mean, interval in zip(
            self.names, self.counts, of.mean, stats.intervals(of, self.upper), strict=True
        ):
            if metric == "accuracy_unleaked" and not self.section.leaked:
                continue
            number = base._replace(metric=metric, emotion=emotion, n=n)
            if np.isnan(mean):
                yield number._replace(reason=UNDEFINED[metric])
            else:
                yield number._replace(value=float(mean), low=interval.low, high=interval.high, reason=interval.note)


def base_number(suite: str, row: Row, seed: int | None, flags: Sequence[str], machine: str) -> Number:
    """A number of a row with everything but the number."""
    protocol = (row.result or {}).get("protocol", PROTOCOL)
    place = (suite, row.dataset, row.size, row.track, row.model, row.variant, seed)
    return Number(*place, "", "", None, None, None, None, None, "", machine, protocol, ";".join(flags))


def _cost_of(row: Row) -> Mapping[str, Any]:
    return (row.result or {}).get("cost") or {}


def flags_of(row: Row) -> list[str]:
    """What is to be said of a cell beside its numbers."""
    share = _cost_of(row).get("recipe_share")
    flags = ["under-trained"] if share is not None and share < UNDER_TRAINED else []
    return flags + (["stale"] if row.stale else [])


def _measure(entry: Entry, crowd: _Crowd, suite: str) -> None:
    """Fill an entry with what its cells gave, each seed and all of them."""
    which = crowd.places(entry)
    if not which:
        return
    done = [crowd.cells[place].row for place in which]
    entry.seeds = [row.seed for row in done]
    entry.flags = list(dict.fromkeys(flag for row in done for flag in flags_of(row)))
    if any(row.state == "diverged" for row in entry.rows):
        entry.flags.append("diverged")
    if len(done) < len(entry.rows):
        entry.flags.append("incomplete")
    machines = [hardware((row.result or {}).get("hardware")) for row in done]
    base = base_number(suite, done[0], None, entry.flags, " + ".join(dict.fromkeys(machines)))
    entry.numbers = {(number.metric, number.emotion): number for number in crowd.numbers(which, base)}
    entry.numbers |= {(number.metric, ""): number for number in costs(done, base)}
    for place, row, machine in zip(which, done, machines, strict=True):
        base = base_number(suite, row, row.seed, flags_of(row), machine)
        entry.single += [*crowd.numbers([place], base), *costs([row], base)]
    confusions = np.stack([crowd.cells[place].confusion for place in which]).astype(np.float64)
    support = confusions.sum(-1, keepdims=True)
    shares = np.divide(confusions, support, out=np.full_like(confusions, np.nan), where=support > 0)
    entry.shares = shares.mean(0)


def costs(rows: Sequence[Row], base: Number) -> Iterator[Number]:
    """Costs have no interval; means over seeds only where all ran on like machines."""
    for name in COSTS:
        machines: set[str] = set()
        values: list[Any] = []
        for row in rows:
            result = row.result or {}
            where = result.get("fitted_on") if name in FIT_COSTS else None
            machines.add(hardware(where or result.get("hardware")))
            values.append(_cost_of(row).get(name))
        number = base._replace(metric=name, hardware=" + ".join(sorted(machines)))
        if any(value is None for value in values):
            of_fit = name in FIT_COSTS or name == "recipe_share"
            untrained = of_fit and all((row.result or {}).get("recipe", "unknown") is None for row in rows)
            yield number._replace(reason="nothing is trained" if untrained else "not measured")
        elif len(machines) > 1 and name not in ("params", "flops", "recipe_share"):
            yield number._replace(reason="seeds ran on different hardware")
        else:
            yield number._replace(value=values[0] if len(set(values)) == 1 else sum(values) / len(values))


def _explain(entry: Entry, trouble: Mapping[int, str], suite: str) -> None:
    """A number for each cell that has none, so that nothing that failed is out of sight."""
    for row in entry.rows:
        reason = trouble.get(id(row))
        if row.state != "done" or reason is not None:
            state = "not usable" if reason else row.state
            said = reason or row.reason
            base = base_number(suite, row, row.seed, flags_of(row), hardware((row.result or {}).get("hardware")))
            entry.missing.append(base._replace(metric="macro_f1", reason=f"{state}: {said}" if said else state))
    if not entry.seeds:
        reasons = dict.fromkeys(number.reason for number in entry.missing)
        base = base_number(suite, entry.rows[0], None, [], "unknown")._replace(metric="macro_f1")
        entry.numbers["macro_f1", ""] = base._replace(reason="; ".join(reason or "" for reason in reasons))


def _majority(section: Section, cells: Sequence[Measured]) -> Measured | None:
    """The control that always answers the most frequent emotion of the training split, first of equal ones."""
    first = cells[0]
    result = first.row.result or {}
    counts = result["dataset"].get("counts", {}).get("train", {})
    if not counts:
        return None
    section.majority = max(section.emotions, key=lambda emotion: counts.get(emotion, 0))
    certain = np.zeros((section.faces, len(section.emotions)))
    certain[:, section.emotions.index(section.majority)] = 1
    faces = first.faces.assign(prediction=certain.argmax(1))
    name = "control:majority"
    row = replace(first.row, row=name, model=name, variant="", control="majority", stale=None)
    return Measured(row, first.emotions, faces, tally(certain, faces["label"], leaked=faces["leaked"]))


def _majority_entry(crowd: _Crowd, majority: Measured, suite: str) -> Entry:
    entry = Entry(majority.row.row, [majority.row])
    for number in crowd.numbers(crowd.places(entry), base_number(suite, majority.row, None, [], "")):
        if number.metric in ("ece", "nll"):
            reason = "the majority class gives no probabilities"
            number = number._replace(value=None, low=None, high=None, reason=reason)
        elif number.low is not None:
            number = number._replace(reason=None)  # it has no seed that the interval could leave out
        entry.numbers[number.metric, number.emotion] = number
    return entry


def _permuted(cell: Measured) -> Check:
    value, low, high = stats.renamed(cell.confusion)
    return Check(cell.row.row, cell.row.seed, "balanced accuracy", value, low, high)


def _rank(section: Section, crowd: _Crowd) -> None:
    """Order by macro F1; compare all pairs on the same faces; equal ranks where nothing tells two apart."""
    metric = crowd.names.index(("macro_f1", ""))
    section.entries.sort(key=lambda entry: (not entry.ranked, -(entry.value("macro_f1") or 0.0)))
    ranked = section.ranked
    values = [crowd.values[crowd.places(entry), metric] for entry in ranked]
    draws = [crowd.draws[:, crowd.places(entry), metric] for entry in ranked]
    section.comparisons = stats.compare(values, draws, crowd.groups)
    for entry, rank in zip(ranked, stats.rank_ranges(len(ranked), section.comparisons), strict=True):
        entry.rank = rank
    for pair in section.comparisons:
        if pair.first == 0:
            ranked[pair.second].behind = pair
