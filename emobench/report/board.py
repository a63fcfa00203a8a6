"""A board in numbers: from stored cells and their raw results to values, intervals, ranks and controls.

One `Section` for each track and dataset, whatever the track. A pure function of the stored files: the same files give
the same board.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emobench.errors import RawError
from emobench.evaluation.protocol import MEMORISED, UNDER_TRAINED
from emobench.evaluation.tracks.track import Check, ControlRow, Estimates, Key, MeasuredCell, Ranking, Track
from emobench.evaluation.values import Value
from emobench.metrics import intervals
from emobench.report import figures, unranked
from emobench.report.history import Run
from emobench.report.memory import Memory, identity
from emobench.runner.choice import NOT_CHOSEN, Choice
from emobench.runner.flops import mfu
from emobench.runner.record import Card, Record
from emobench.runner.store import HISTORY, StoredCell, check_raw
from emobench.suite.keys import PROTOCOL, processes

if TYPE_CHECKING:
    from emobench.report.slices import Sliced

COSTS = ("params", "flops", "fit_seconds", "fit_faces_per_s", "peak_memory_gb", "recipe_share")
MFU = "mfu"
FIT_COSTS = (
    "fit_seconds",
    "fit_faces_per_s",
    "peak_memory_gb",
    MFU,
)  # measured where the fit ran, which may be elsewhere
AT_CHANCE = "no better than the majority"  # flag of a model whose interval reaches its track's floor
AT_ONCE = 64  # cells whose faces are held in memory, some MB each; a section of more is measured row by row
REDRAWN = 5 * intervals.RESAMPLES  # resamples at most by which the pairs of such a section are told apart
EVERYWHERE = ("params", "flops", "recipe_share")  # the same on any hardware


class Number(NamedTuple):
    """One number; the fields are the columns of metrics.csv (see docs/protocol.md, Names)."""

    suite: str
    dataset: str
    size: int
    track: str
    model: str
    variant: str
    trainer: str  # the suite's name of it; "": the suite has one alone
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
    """One model on one track and dataset, over its seeds.

    Attributes:
        numbers: over all seeds.
        single: the same for each seed.
        costs: of the row, whatever the track, over all seeds and for each.
        missing: why a seed has no numbers.
        seeds: those measured.
        ranks: ranking -> best and worst possible rank.
        behind: the first of the table minus this one, in the first ranking.
        shares: (K, K) mean over seeds of P(read as j | emotion i); NaN rows: no such face.
        units: how many units its intervals resample, and what they are.
        without: what a number of the whole leaves out, or why it has no value.
        unranked: flags that keep it from being ranked.
        would_be: ranking -> the place that it would have if it were.
    """

    name: str
    cells: list[StoredCell]
    numbers: dict[Key, Number] = field(default_factory=dict)
    single: list[Number] = field(default_factory=list)
    costs: dict[str, Number] = field(default_factory=dict)
    single_costs: list[Number] = field(default_factory=list)
    missing: list[Number] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)
    behind: intervals.Comparison | None = None
    shares: NDArray[np.floating] | None = None
    units: tuple[int, str] = (0, "faces")
    without: dict[Key, str] = field(default_factory=dict)
    unranked: list[str] = field(default_factory=list)
    would_be: dict[str, int] = field(default_factory=dict)

    @property
    def trainer(self) -> str:
        """The suite's name of the trainer that it was fitted with; "": the suite has one alone, or nothing was."""
        return "" if self.control and not any(cell.control for cell in self.cells) else self.cells[0].trainer

    @property
    def control(self) -> bool:
        """Whether it is no model but a control."""
        return self.name.startswith("control:")

    @property
    def share(self) -> float | None:
        """The least share of the recipe that a seed had, or, of what trains nothing, a network that it is made of."""
        return min((cell.share for cell in self.cells if cell.share is not None), default=None)

    @property
    def ranked(self) -> bool:
        return bool(self.seeds) and not self.control and "diverged" not in self.flags and not self.unranked

    def value(self, key: Key) -> float | None:
        number = self.numbers.get(key)
        return None if number is None else number.value


@dataclass
class Section:
    """One track on one dataset at one size: models that were measured on the same faces.

    Attributes:
        entries: ranked ones first, the best first.
        comparisons: ranking -> pairs, by place among `compared`.
        compared: ranking -> the rows that were compared, the best first.
        ranked_by: ranking -> the number that it goes by.
        order_only: rankings without ranks: too few seeds for an interval.
        blind: metrics that rank nobody, and why: whoever reads the faces cannot.
    """

    track: Track
    dataset: str
    size: int
    entries: list[Entry]
    controls: list[Entry] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    comparisons: dict[str, list[intervals.Comparison]] = field(default_factory=dict)
    compared: dict[str, list[Entry]] = field(default_factory=dict)
    ranked_by: dict[str, Key] = field(default_factory=dict)
    order_only: list[str] = field(default_factory=list)
    blind: dict[str, str] = field(default_factory=dict)
    emotions: tuple[str, ...] = ()
    usable: list[StoredCell] = field(default_factory=list)
    data: Sequence[Any] = ()  # what the track read of each usable cell
    without_weights: list[Card] = field(default_factory=list)  # judges, readers, guides: not committed
    many: bool = False  # more cells than are held at once
    memory: Memory = field(default_factory=Memory)
    training: dict[str, list[Run]] = field(default_factory=dict)  # row -> how the fit of each seed went
    choices: list[Choice] = field(default_factory=list)  # among settings, of which the chosen one is measured
    slices: Sliced | None = None  # the rows' numbers by slice, once they are looked up
    without_people: str = ""  # why no annotator stands beside the classifiers of a dataset that people voted on

    @property
    def measured(self) -> list[Entry]:
        """The models with numbers."""
        return [entry for entry in self.entries if entry.seeds]

    @property
    def every(self) -> list[Entry]:
        """Models and controls."""
        return [*self.entries, *self.controls]

    @property
    def records(self) -> list[Record]:
        """Of the usable cells."""
        return [cell.record for cell in self.usable if cell.record is not None]

    def data_of(self, entry: Entry) -> Sequence[Any]:
        """What the track read of an entry's usable cells."""
        return Some(self.data, [self.places[id(cell)] for cell in self.usable_of(entry)])

    def usable_of(self, entry: Entry) -> list[StoredCell]:
        """An entry's usable cells."""
        return [cell for cell in entry.cells if id(cell) in self.places]

    @functools.cached_property
    def places(self) -> dict[int, int]:
        """Of the usable cells, by identity."""
        return {id(cell): place for place, cell in enumerate(self.usable)}


@dataclass(frozen=True)
class Board:
    """A board as it was written."""

    suite: str
    path: Path  # leaderboard.md
    cells: list[StoredCell]
    sections: list[Section]
    command: str  # that runs it again
    trouble: list[str] = field(default_factory=list)  # what of its suite cannot be used, and why

    @property
    def wanted(self) -> list[StoredCell]:
        """The cells that can run here: all but the skipped ones."""
        return [cell for cell in self.cells if cell.state != "skipped"]

    @property
    def missing(self) -> list[Number]:
        """The cells without numbers, each once and with its reason; skipped ones are not among them, nor settings that
        were not chosen."""
        found = [number for section in self.sections for entry in section.every for number in entry.missing]
        found += [_nowhere(self.suite, cell) for cell in self.unplaced]
        kept = {(n.dataset, n.size, n.model, n.variant, n.trainer, n.seed): n for n in found if not _ended(n)}
        return list(kept.values())

    @property
    def unplaced(self) -> list[StoredCell]:
        """The cells of tracks that nothing here knows, so that no section shows them."""
        placed = {id(cell) for section in self.sections for entry in section.every for cell in entry.cells}
        return [cell for cell in self.wanted if id(cell) not in placed and not (cell.part is not None and _ok(cell))]

    @property
    def failed(self) -> list[Number]:
        """Those of them that ended badly or cannot be read, pending ones aside."""
        return [number for number in self.missing if not says(number, "pending")]

    @property
    def checks(self) -> list[Check]:
        """The outcomes of all controls."""
        return [check for section in self.sections for check in section.checks]


def _ok(cell: StoredCell) -> bool:
    return cell.state == "done" and cell.record is not None


def _nowhere(suite: str, cell: StoredCell) -> Number:
    """A cell that no section shows, and why."""
    why = f"{cell.state}: {cell.reason}" if cell.reason and cell.state == "failed" else None
    reason = why or f"not usable: no track {', '.join(tracks_of(cell))!r} is known here"
    place = (suite, cell.dataset, cell.size, cell.track, cell.model, cell.variant, cell.trainer, cell.seed)
    return Number(*place, "", "", None, None, None, None, reason, "", "", PROTOCOL, "")


def _ended(number: Number) -> bool:
    """Whether nothing more is to come of a cell without numbers, and nothing went wrong."""
    return says(number, "skipped") or says(number, NOT_CHOSEN)


def says(number: Number, state: str) -> bool:
    """Whether a missing number's cell is in a state."""
    return (number.reason or "").split(":")[0] == state


def sections(
    suite: str,
    cells: Sequence[StoredCell],
    tracks: Sequence[Track],
    memory: Memory | None = None,
    also: Callable[[Section], None] | None = None,
) -> list[Section]:
    """All tracks and datasets of a board: tracks as given, datasets in the suite's order.

    Args:
        also: what else is found out of a section while its faces are in memory.
    """
    memory = memory or Memory()
    found = []
    for track in tracks:
        places: dict[tuple[str, int], list[StoredCell]] = {}
        for cell in cells:
            if cell.part is None and track.name in tracks_of(cell):
                places.setdefault((cell.dataset, cell.size), []).append(cell)
        for place, mine in places.items():
            found.append(section(suite, track, *place, mine, memory))
            if also is not None:
                also(found[-1])
            if isinstance(raw := found[-1].data, Raw):
                raw.forget()
    return found


def tracks_of(cell: StoredCell) -> tuple[str, ...]:
    """The tracks that a cell was measured on; of one that was not, the first that it is meant for."""
    if cell.record is None or cell.record.evaluation is None:
        return (cell.track,)
    return tuple(cell.record.evaluation.tracks)


def section(suite: str, track: Track, dataset: str, size: int, cells: Sequence[StoredCell], memory: Memory) -> Section:
    """All models of a track and dataset; those that were measured on something else are explained as missing."""
    rows: dict[str, list[StoredCell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    entries = [Entry(name, of) for name, of in rows.items()]
    found = Section(track, dataset, size, entries, many=len(cells) > AT_ONCE, memory=memory)
    if found.many and memory.first:
        _row_by_row(found, suite)
    found.usable, raw, trouble = comparable(track, cells, memory)
    found.data = raw
    if found.usable:
        found.emotions = found.data[0].emotions
        estimates: dict[int, list[Estimates]] = {}
        for part in _parts(found):
            estimates |= _measured(found, part, suite) if not found.many else _remembered(found, part[0], suite)
        controls = [place for place, cell in enumerate(found.usable) if place == 0 or cell.control is not None]
        for control in track.controls(Some(found.data, controls)):
            add_control(found, control, suite)
        found.blind = track.blind(found.data[0], found.checks)
        for ranking in track.rankings:
            _rank(found, ranking, estimates)
    for entry in entries:
        _explain(found, entry, trouble, suite)
    if track.floor is not None:
        _below_the_floor(found, *track.floor)
    _without_gain(found)
    found.controls += [entry for entry in entries if entry.control]
    found.entries = [entry for entry in entries if not entry.control]
    first = track.rankings[0] if track.rankings else None
    if first is not None and first.name in found.ranked_by:
        found.entries.sort(key=lambda entry: _order(entry, first, found.ranked_by[first.name]))
    return found


def _below_the_floor(section: Section, control: str, key: Key) -> None:
    """Flag the models that are no better than a control by their interval."""
    floor = next((each.value(key) for each in section.controls if each.name == control), None)
    for entry in section.entries:
        number = entry.numbers.get(key)
        if floor is not None and number is not None and not entry.control and (number.low or 0.0) <= floor:
            _flag(entry, AT_CHANCE)


def _without_gain(section: Section) -> None:
    """Flag the models of which a number that must lie above 0 does not by its interval."""
    for entry in section.entries:
        for key, flag in section.track.gains:
            number = entry.numbers.get(key)
            if number is not None and number.value is not None and not (number.low or 0.0) > 0 and not entry.control:
                _flag(entry, flag)


def _flag(entry: Entry, flag: str) -> None:
    """Flag a model, and its numbers with it."""
    entry.flags.append(flag)
    told = ";".join(entry.flags)
    entry.numbers = {name: each._replace(flags=told) for name, each in entry.numbers.items()}


def _order(entry: Entry, ranking: Ranking, key: Key) -> tuple[bool, bool, float]:
    value = entry.value(key)
    worse = 0.0 if value is None else -value if ranking.better == "higher" else value
    return not entry.ranked, value is None, worse


class Raw(Sequence[Any]):
    """What a track reads of each cell: read when it is asked for, the last `AT_ONCE` kept."""

    def __init__(self, track: Track, cells: Sequence[StoredCell]) -> None:
        self.track, self.cells = track, cells
        self.kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, place: Any) -> Any:
        if place not in self.kept:
            found = read_raw(self.track, self.cells[place])
            if len(self.kept) >= AT_ONCE:
                del self.kept[next(iter(self.kept))]
            self.kept[place] = found
        return self.kept[place]

    def forget(self) -> None:
        """Keep the first alone, of which a page says what all have in common."""
        self.kept = {place: found for place, found in self.kept.items() if place == 0}


class Some(Sequence[Any]):
    """Some places of a sequence, each looked up when it is asked for."""

    def __init__(self, whole: Sequence[Any], places: Sequence[int]) -> None:
        self.whole, self.places = whole, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        return self.whole[self.places[place]]


def comparable(
    track: Track, cells: Sequence[StoredCell], memory: Memory
) -> tuple[list[StoredCell], Raw, dict[int, str]]:
    """The cells that were measured on the same faces, their raw results, and why others (by identity) are left out."""
    done = [cell for cell in cells if cell.state == "done" and cell.record is not None and cell.folder is not None]
    raw = Raw(track, done)
    same: dict[int, Any] = {}
    trouble: dict[int, str] = {}
    for place, cell in enumerate(done):
        try:
            same[place] = memory.once(
                ("same", *content(track, cell)),
                lambda place=place: track.same(raw[place]),  # type: ignore[misc]
            )
        except RawError as error:
            trouble[id(cell)] = str(error)
    usual = Counter(same.values()).most_common(1)[0][0] if same else None
    for place, of in same.items():
        if of != usual:
            trouble[id(done[place])] = (
                "measured on other test faces, by another panel or under another protocol than most of this board. "
                "Run the suite again with --on-existing redo."
            )
    usable = [place for place, cell in enumerate(done) if id(cell) not in trouble]
    kept = Raw(track, [done[place] for place in usable])
    kept.kept = {new: raw.kept[place] for new, place in enumerate(usable) if place in raw.kept}
    return [done[place] for place in usable], kept, trouble


def content(track: Track, cell: StoredCell) -> tuple[Hashable, ...]:
    """What the raw results of a finished cell are read from, as a key: what its record says, and its raw files."""
    record, folder = cell.record, cell.folder
    assert record is not None
    assert record.evaluation is not None
    assert folder is not None
    stamps = []
    for name in ("result.json", *(name for kind, name in record.evaluation.raw.items() if kind != HISTORY)):
        try:
            stamps.append((name, identity(os.path.join(folder, name))))  # a board asks this of every cell
        except FileNotFoundError:
            stamps.append((name, ()))
    return track, cell.row, cell.seed, cell.control, cell.eval_key, folder, tuple(stamps)


def read_raw(track: Track, cell: StoredCell) -> Any:
    """The raw results of a finished cell, whose pictures can be shown.

    Raises:
        RawError: a file is missing, broken or implausible, or none that a board may read.
    """
    record, folder = cell.record, cell.folder
    assert record is not None
    assert record.evaluation is not None
    assert folder is not None
    raw = record.evaluation.raw
    check_raw(folder, (name for kind, name in raw.items() if kind != HISTORY))
    for kind in track.pictures:
        if kind in raw:
            columns = len(record.evaluation.dataset.emotions) + 1  # the source, then every emotion
            figures.check(folder / raw[kind], columns if kind == "edits" else 1)
    return track.read(measured_cell(track, cell, record, folder))


def measured_cell(track: Track, cell: StoredCell, record: Record, folder: Path) -> MeasuredCell:
    """A finished cell as its track reads it."""
    evaluation = record.evaluation
    assert evaluation is not None
    of = evaluation.tracks[track.name]
    return MeasuredCell(
        row=cell.row,
        seed=cell.seed,
        control=cell.control,
        emotions=tuple(evaluation.dataset.emotions),
        path=folder / evaluation.raw.get(track.raw, f"{track.raw}.parquet"),
        same=(record.protocol,),
        counts=evaluation.dataset.counts.get("train", {}),
        values=of.values,
        references=evaluation.references,
        panel=tuple((judge.row, judge.sha256) for judge in evaluation.panel),
        draws=evaluation.draws,
    )


# Numbers


def base_number(section: Section, cell: StoredCell, suite: str, seed: int | None, flags: Iterable[str]) -> Number:
    """A number of a row with everything but the number."""
    protocol = PROTOCOL if cell.record is None else cell.record.protocol
    row = (cell.model, cell.variant, cell.trainer)
    place = (suite, cell.dataset, cell.size, section.track.name, *row, seed)
    return Number(*place, "", "", None, None, None, None, None, "", "", protocol, ";".join(flags))


def flags_of(cells: Sequence[StoredCell]) -> list[str]:
    """What is to be said of measured cells of one row beside their numbers."""
    flags, copied = [], []
    for cell in cells:
        record = cell.record
        if cell.share is not None and cell.share < UNDER_TRAINED:
            flags.append("under-trained")
        if record is not None and record.evaluation is not None and "generation" in record.evaluation.tracks:
            share = record.evaluation.tracks["generation"].values.get("memorisation")
            copied += [] if share is None or share.value is None else [share.value]
        if cell.stale:
            flags.append("stale")
    if copied and np.mean(copied) > MEMORISED:
        flags.append("memorised")
    return list(dict.fromkeys(flags))


def _parts(section: Section) -> Iterator[list[Entry]]:
    """The entries in parts whose cells' raw results are held at once: all of them, on most boards.

    Where there are many, each is by itself: what a row's numbers are then does not depend on which others are there.
    """
    if section.many:
        yield from ([entry] for entry in section.entries)
        return
    usable = {id(cell) for cell in section.usable}
    part: list[Entry] = []
    cells = 0
    for entry in section.entries:
        count = sum(id(cell) in usable for cell in entry.cells)
        if part and cells + count > AT_ONCE:
            yield part
            part, cells = [], 0
        part.append(entry)
        cells += count
    yield part


def _measured(section: Section, part: Sequence[Entry], suite: str) -> dict[int, list[Estimates]]:
    """Fill some entries; returns what ranks need of their cells, by identity."""
    places = sorted(section.places[id(cell)] for entry in part for cell in section.usable_of(entry))
    if not places:
        return {}
    of = section.track.estimates(Some(section.data, places))
    estimates = {id(section.usable[place]): each for place, each in zip(places, of, strict=True)}
    for entry in part:
        _measure(section, entry, estimates, suite)
    keys = {key for ranking in section.track.rankings for key in ranking.metrics}
    return {cell: [each.only(keys) for each in found] for cell, found in estimates.items()}


def _remembered(section: Section, entry: Entry, suite: str) -> dict[int, list[Estimates]]:
    """`_measured` of one entry, from memory where nothing changed that it follows from."""
    usable = {id(cell): content(section.track, cell) for cell in section.usable_of(entry)}
    named = ("model", "variant", "seed", "state", "share", "stale", "declared")
    said = ((*(getattr(cell, name) for name in named), usable.get(id(cell))) for cell in entry.cells)
    key = ("row", suite, section.dataset, section.size, section.track, entry.name, *said)

    def measured() -> tuple[Entry, list[list[Estimates]]]:
        estimates = _measured(section, [entry], suite)
        return _copied(entry), [estimates[cell] for cell in usable]

    kept, estimates = section.memory.once(key, measured)
    vars(entry).update(vars(_copied(kept)) | {"cells": entry.cells})
    return dict(zip(usable, estimates, strict=True))


def _row_by_row(section: Section, suite: str) -> None:
    """Remember of each row which faces its cells saw and what its numbers are, while these cells are held: which faces
    most rows saw is known when all are read, and cells that are not held by then would be read again.

    The numbers of a row that saw others are not used.
    """
    for entry in section.entries:
        alone = Section(section.track, section.dataset, section.size, [], many=True, memory=section.memory)
        alone.usable, alone.data, _ = comparable(section.track, entry.cells, section.memory)
        if alone.usable:
            _remembered(alone, Entry(entry.name, entry.cells), suite)


def _copied(entry: Entry) -> Entry:
    """An entry of its own, whose lists and numbers can be added to."""
    new: dict[str, Any] = {name: type(of)(of) for name, of in vars(entry).items() if isinstance(of, dict | list)}
    return replace(entry, **new)


def _measure(section: Section, entry: Entry, estimates: Mapping[int, list[Estimates]], suite: str) -> None:
    """Fill an entry with what its cells gave, each seed and all of them."""
    done = [cell for cell in entry.cells if id(cell) in estimates]
    if not done:
        return
    entry.seeds = [cell.seed for cell in done]
    more, entry.unranked = unranked.flags(done)
    entry.flags = [*flags_of(done), *more]
    if any(cell.state == "diverged" for cell in entry.cells):
        entry.flags.append("diverged")
    if len(done) < len(entry.cells):
        entry.flags.append("incomplete")
    base = base_number(section, done[0], suite, None, entry.flags)._replace(hardware=_machines(done))
    of = [estimates[id(cell)] for cell in done]
    entry.units = (of[0][0].units, of[0][0].unit) if of[0] else entry.units
    noted = ((key, note) for each in of[0] for key, note in zip(each.keys, each.notes, strict=True))
    entry.without = {key: note for key, note in noted if note is not None}
    entry.numbers = {key_of(number): number for number in _numbers(section, done, of, base)}
    entry.costs = {number.metric: number for number in costs(done, base)}
    for cell, each in zip(done, of, strict=True):
        base = base_number(section, cell, suite, cell.seed, flags_of([cell]))._replace(hardware=_machines([cell]))
        entry.single += _numbers(section, [cell], [each], base)
        entry.single_costs += costs([cell], base)
    matrices = [data.confusion for data in section.data_of(entry) if hasattr(data, "confusion")]
    if matrices:
        confusions = np.stack(matrices).astype(np.float64)
        support = confusions.sum(-1, keepdims=True)
        entry.shares = np.divide(confusions, support, out=np.full_like(confusions, np.nan), where=support > 0).mean(0)


def key_of(number: Number) -> Key:
    """Where a number stands in its entry."""
    return Key(number.metric, number.emotion, number.judge)


def _numbers(
    section: Section, cells: Sequence[StoredCell], estimates: Sequence[list[Estimates]], base: Number
) -> list[Number]:
    """All numbers of some cells of one row: resampled ones, those of whole samples, and the speed."""
    found: list[Number] = []
    for of in zip(*estimates, strict=False):  # the same numbers of each seed
        found += resampled(of, base)
    name = section.track.name
    values = [cell.record.evaluation.tracks[name] for cell in cells if cell.record and cell.record.evaluation]
    if section.track.whole_samples:
        found += whole_samples([of.values for of in values], base)
    if any(of.faces_per_s is not None for of in values):
        found.append(_cost(cells, "faces_per_s", [of.faces_per_s for of in values], base))
    return found


def resampled(of: Sequence[Estimates], base: Number, *, trained: bool = True) -> Iterator[Number]:
    """Numbers with their intervals from the estimates of one row's seeds; `trained`: a seed stands behind each."""
    first = of[0]
    spread = intervals.spread(
        np.stack([each.values for each in of]), np.stack([each.draws for each in of], 1), first.units
    )
    counted = [each.rests_on for each in of if each.rests_on is not None]
    rests_on = np.min(counted, axis=0) if counted else None
    bounds = intervals.intervals(spread, first.high, first.low, rests_on)
    for place, (key, mean, interval) in enumerate(zip(first.keys, spread.mean, bounds, strict=True)):
        number = base._replace(metric=key.metric, emotion=key.emotion, judge=key.judge, n=first.faces[place])
        note = next((each.notes[place] for each in of if each.notes[place]), None)
        if np.isnan(mean):
            yield number._replace(reason=note or "undefined")
            continue
        said = [f"without {note}"] if note else []
        said += [interval.note] if interval.note and (trained or interval.low is None) else []
        yield number._replace(value=float(mean), low=interval.low, high=interval.high, reason="; ".join(said) or None)


def whole_samples(cells: Sequence[Mapping[str, Value]], base: Number, *, trained: bool = True) -> Iterator[Number]:
    """What belongs to whole samples: mean over seeds, an interval by t from three on, none by resampling faces."""
    for name in dict.fromkeys(name for cell in cells for name in cell):
        each = [cell.get(name) for cell in cells]
        number = base._replace(metric=name, n=None if each[0] is None else each[0].n)
        values = np.array([one.value for one in each if one is not None and one.value is not None])
        if len(values) < len(cells):
            reasons = dict.fromkeys(one.reason for one in each if one is not None and one.value is None)
            yield number._replace(reason="; ".join(filter(None, reasons)) or "not measured for every seed")
        elif len(values) < intervals.SEEDS_NEEDED:
            reason = "order only: fewer than three seeds" if trained else None
            yield number._replace(value=float(values.mean()), reason=reason)
        else:
            half = float(intervals.half_width([(np.array(values.var(ddof=1) / len(values)), len(values) - 1)]))
            mean = float(values.mean())
            yield number._replace(value=mean, low=mean - half, high=mean + half)


def _machines(cells: Sequence[StoredCell]) -> str:
    found = (cell.record.hardware for cell in cells if cell.record is not None)
    return " + ".join(dict.fromkeys("unknown" if machine is None else machine.named for machine in found))


def costs(cells: Sequence[StoredCell], base: Number) -> Iterator[Number]:
    """Costs have no interval; means over seeds only where all ran on like machines."""
    for name in COSTS:
        values = [_cost_of(cell, name) for cell in cells]
        yield _cost(cells, name, values, base)
    if any(cell.record and cell.record.fit and cell.record.fit.cost and cell.record.fit.cost.flops for cell in cells):
        yield _mfu(cells, base)


def _mfu(cells: Sequence[StoredCell], base: Number) -> Number:
    """The share of their device's peak that fits used, of records that say how many FLOPs a face took."""
    found: list[float | str] = []
    for cell in cells:
        fit = None if cell.record is None else cell.record.fit
        if cell.record is not None and fit is not None and fit.cost is not None:
            devices, cost = processes(cell.record.cell.trainer), fit.cost
            if devices is None:  # a record of a suite that said "all that there are"
                found.append("not recorded on how many devices")
            else:
                found.append(mfu(cost.flops, cost.fit_faces_per_s, fit.hardware.gpu, cost.precision, devices))
    known = [each if isinstance(each, float) else None for each in found]
    number = _cost(cells, MFU, known, base)
    reasons = dict.fromkeys(each for each in found if isinstance(each, str))
    return number._replace(reason="; ".join(reasons)) if reasons else number


def _cost_of(cell: StoredCell, name: str) -> float | None:
    record = cell.record
    if record is None or record.evaluation is None or record.fit is None:
        return None
    if name in ("params", "flops"):
        counted: int | float = getattr(record.evaluation, name)
        return counted if counted or record.evaluation.outside is None else None
    found: float | None = getattr(record.fit.cost, name, None)
    return found


def _cost(cells: Sequence[StoredCell], name: str, values: Sequence[float | None], base: Number) -> Number:
    records = [cell.record for cell in cells if cell.record is not None]
    of_fit = name in FIT_COSTS
    machines = {
        machine.named
        for record in records
        for machine in [record.fit.hardware if of_fit and record.fit is not None else record.hardware]
        if machine is not None
    }
    number = base._replace(metric=name, hardware=" + ".join(sorted(machines)))
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        untrained = all(record.fit is not None and record.fit.cost is None for record in records)
        nothing = untrained and (of_fit or name == "recipe_share")
        elsewhere = any(record.evaluation is not None and record.evaluation.outside is not None for record in records)
        why = "not trained here" if elsewhere else "nothing is trained"
        return number._replace(reason=why if nothing else "not counted" if elsewhere else "not measured")
    if len(machines) > 1 and name not in EVERYWHERE:
        return number._replace(reason="seeds ran on different hardware")
    return number._replace(value=known[0] if len(set(known)) == 1 else sum(known) / len(known))


def _explain(section: Section, entry: Entry, trouble: Mapping[int, str], suite: str) -> None:
    """A number for each cell that has none, so that nothing that failed is out of sight."""
    key = section.track.headline
    for cell in entry.cells:
        reason = trouble.get(id(cell))
        if cell.state != "done" or reason is not None:
            state, said = "not usable" if reason else cell.state, reason or cell.reason
            base = base_number(section, cell, suite, cell.seed, flags_of([cell]))._replace(hardware=_machines([cell]))
            told = f"{state}: {said}" if said else state
            entry.missing.append(base._replace(metric=key.metric, emotion=key.emotion, reason=told))
    if not entry.seeds and entry.missing:
        reasons = dict.fromkeys(number.reason or "" for number in entry.missing)
        number = entry.missing[0]._replace(seed=None, reason="; ".join(reasons))
        entry.numbers[key] = number


# Controls and ranks


def add_control(section: Section, control: ControlRow, suite: str) -> None:
    """A control's checks, and its row unless a trained network is the row already."""
    section.checks += control.checks
    if control.trained:
        return
    cell = section.usable[0]
    base = base_number(section, cell, suite, None, [])._replace(model=control.name, variant="", trainer="")
    entry = Entry(control.name, [cell])
    numbers = [number for of in control.estimates for number in resampled([of], base, trained=False)]
    numbers += whole_samples([control.values], base, trained=False)
    entry.numbers = {key_of(number): number for number in numbers}
    section.controls.append(entry)


def _rank(section: Section, ranking: Ranking, estimates: Mapping[int, list[Estimates]]) -> None:
    """Compare all pairs; equal ranks where nothing tells two apart."""
    ranked = [entry for entry in section.entries if entry.ranked]
    key = _ranked_by(ranked, [key for key in ranking.metrics if key.metric not in section.blind])
    if key is None:
        return
    with_value = [entry for entry in ranked if entry.value(key) is not None]
    ordered = sorted(with_value, key=lambda entry: _order(entry, ranking, key))
    section.ranked_by[ranking.name], section.compared[ranking.name] = key, ordered
    _place_others(section, ranking, key, ordered)
    if ranking.by == "faces":
        pairs = _compared_on_faces(section, ordered, key, estimates)
    else:
        values = [[_of_seed(entry, key, seed) for seed in entry.seeds] for entry in ordered]
        if any(len(each) < intervals.SEEDS_NEEDED for each in values):
            section.order_only.append(ranking.name)
            for place, entry in enumerate(ordered):
                entry.ranks[ranking.name] = (place + 1, place + 1)
            return
        sign = 1 if ranking.better == "higher" else -1
        pairs = intervals.compare_means([sign * np.array(each) for each in values])
    section.comparisons[ranking.name] = pairs
    for entry, rank in zip(ordered, intervals.rank_ranges(len(ordered), pairs), strict=True):
        entry.ranks[ranking.name] = rank
    if ranking is section.track.rankings[0]:
        for pair in pairs:
            if pair.first == 0:
                ordered[pair.second].behind = pair


def _place_others(section: Section, ranking: Ranking, key: Key, ordered: Sequence[Entry]) -> None:
    """Say which place the rows would have that take no rank, and move nobody's."""
    for entry in section.entries:
        if entry.unranked and entry.seeds and entry.value(key) is not None:
            mine = _order(entry, ranking, key)[2]
            entry.would_be[ranking.name] = 1 + sum(_order(other, ranking, key)[2] < mine for other in ordered)


def _ranked_by(entries: Sequence[Entry], keys: Sequence[Key]) -> Key | None:
    """The first of some numbers that all entries have, else the last that any has."""
    for key in keys:
        if entries and all(entry.value(key) is not None for entry in entries):
            return key
    return next((key for key in keys[::-1] if any(entry.value(key) is not None for entry in entries)), None)


def _compared_on_faces(
    section: Section, entries: Sequence[Entry], key: Key, estimates: Mapping[int, list[Estimates]]
) -> list[intervals.Comparison]:
    found = [[_with(key, estimates[id(cell)]) for cell in entry.cells if id(cell) in estimates] for entry in entries]
    values = [np.array([each.values[each.keys.index(key)] for each in of]) for of in found]
    draws = [np.stack([each.draws[:, each.keys.index(key)] for each in of], 1) for of in found]
    groups = min(each.units for of in found for each in of)
    most = section.track.most_resamples

    def more(models: Sequence[int], resamples: int) -> list[NDArray[np.float64]]:
        cells = [section.usable_of(entries[model]) for model in models]
        again = _redrawn(section, [cell for of in cells for cell in of], key, resamples)
        return np.split(again, np.cumsum([len(of) for of in cells])[:-1], axis=1)

    return intervals.compare(values, draws, groups, more, min(most, REDRAWN) if section.many else most)


def _redrawn(section: Section, cells: Sequence[StoredCell], key: Key, resamples: int) -> NDArray[np.float64]:
    """(R, M) the number by which cells are ranked under more resamples, from memory in a section of many."""
    keys = [("redrawn", key, resamples, *content(section.track, cell)) for cell in cells]
    new = [place for place, of in enumerate(keys) if not (section.many and of in section.memory)]
    found: dict[int, NDArray[np.float64]] = {}
    for start in range(0, len(new), AT_ONCE):
        part = new[start : start + AT_ONCE]
        data = Some(section.data, [section.places[id(cells[place])] for place in part])
        drawn = section.track.redrawn([data[place] for place in range(len(part))], key, resamples)
        found |= {place: drawn[:, column] for column, place in enumerate(part)}
    if section.many:
        again = {place: np.ascontiguousarray(drawn) for place, drawn in found.items()}
        found = {place: section.memory.once(of, lambda place=place: again[place]) for place, of in enumerate(keys)}  # type: ignore[misc]
    return np.stack([found[place] for place in range(len(cells))], 1)


def _with(key: Key, estimates: Sequence[Estimates]) -> Estimates:
    return next(each for each in estimates if key in each.keys)


def _of_seed(entry: Entry, key: Key, seed: int) -> float:
    return next(n.value or 0.0 for n in entry.single if n.seed == seed and key_of(n) == key)
