"""Trainers compared: what each row gains or loses under another trainer than the suite's first, and what that costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emobench.evaluation.tracks.track import Name, Ranking
from emobench.metrics.intervals import Comparison
from emobench.report.board import Entry, Section
from emobench.report.page import Block, Cost, Heading, Paragraph, Part, Score, Table, Text, joined
from emobench.suite.cell import without_trainer
from emobench.suite.keys import processes

SPEED, MEMORY = "fit_faces_per_s", "peak_memory_gb"


@dataclass(frozen=True)
class Against:
    """A row under one trainer, against the same row under the suite's first.

    Attributes:
        options: of Lightning's Trainer; of a further trainer those that differ.
        better: ranking -> how much better it is than the first, positive: better; None: it is the first, or they have
            not been compared.
        speed: faces a second of the fit over those of the first; None: not on like hardware, or not measured.
        scaling: that over the number of devices, where the first has one and this one several; on a CPU faces a second
            and core over those of the first, as one process may compute with all cores too.
    """

    entry: Entry
    row: str  # its name under the first
    options: Mapping[str, Any]
    better: Mapping[str, Comparison | None]
    speed: float | None
    scaling: float | None


def first_trainer(section: Section) -> str:
    """The suite's first trainer, of which judges come; "": there is one alone, or no row here is of it."""
    cells = (cell for entry in section.entries for cell in entry.cells if cell.trainer)
    return next((cell.trainer for cell in cells if cell.row == without_trainer(cell.row, cell.trainer)), "")


def against(section: Section) -> list[Against]:
    """The rows that were measured under several trainers, under each of them, those of one row together."""
    rows: dict[str, list[Entry]] = {}
    for entry in section.measured:
        if entry.trainer:
            rows.setdefault(without_trainer(entry.name, entry.trainer), []).append(entry)
    several = ((row, entries) for row, entries in rows.items() if len(entries) > 1)
    return [each for row, entries in several for each in _of_row(section, row, entries)]


def _of_row(section: Section, row: str, entries: list[Entry]) -> Iterator[Against]:
    first = next((entry for entry in entries if entry.name == row), None)
    for entry in sorted(entries, key=lambda entry: entry is not first):  # the first trainer's before the others
        other = None if entry is first else first
        better = {
            each.name: None if other is None else _better(section, each, entry, other) for each in _shown(section)
        }
        speed, scaling = (None, None) if other is None else _speeds(entry, other)
        options = _options(entry)
        if other is not None:
            usual = _options(other)
            options = {name: value for name, value in options.items() if usual.get(name) != value}
            options |= dict.fromkeys(usual.keys() - _options(entry).keys(), "not set")
        yield Against(entry, row, options, better, speed, scaling)


def _options(entry: Entry) -> Mapping[str, Any]:
    """Options of Lightning's Trainer with which a row was fitted."""
    return next((cell.record.cell.trainer for cell in entry.cells if cell.record is not None), {})


def _better(section: Section, ranking: Ranking, entry: Entry, other: Entry) -> Comparison | None:
    """How much better one row is than another, from the comparison of all pairs that ranks them."""
    places = section.compared.get(ranking.name, [])
    for pair in section.comparisons.get(ranking.name, []):
        first, second = places[pair.first], places[pair.second]
        if (first, second) == (entry, other):
            return pair
        if (first, second) == (other, entry):
            low = None if pair.high is None else -pair.high
            high = None if pair.low is None else -pair.low
            return dataclasses.replace(pair, difference=-pair.difference, low=low, high=high)
    return None


@dataclass(frozen=True)
class _Place:
    """What a row was fitted on.

    Attributes:
        machine: its name, whatever the number of threads.
        devices: processes of the fit; None: not recorded.
        cores: that all of them together compute with; None: GPUs do the work.
    """

    machine: str
    devices: int | None
    cores: int | None


def _place(entry: Entry) -> _Place | None:
    records = (cell.record for cell in entry.cells)
    record = next((record for record in records if record is not None and record.fit is not None), None)
    if record is None or record.fit is None:
        return None
    hardware, devices = record.fit.hardware, processes(record.cell.trainer)
    machine = hardware.model_copy(update={"threads": None}).named
    threads = hardware.cores if hardware.threads is None else hardware.threads
    cores = None if hardware.gpu is not None else min(threads * (devices or 1), hardware.cores)
    return _Place(machine, devices, cores)


def _speeds(entry: Entry, other: Entry) -> tuple[float | None, float | None]:
    """See `Against`. Threads differ where one process has the cores that several share: cores are what compares."""
    mine, theirs = entry.costs[SPEED], other.costs[SPEED]
    on, first = _place(entry), _place(other)
    if mine.value is None or not theirs.value or on is None or first is None or on.machine != first.machine:
        return None, None
    ratio = mine.value / theirs.value
    speed = ratio if mine.hardware == theirs.hardware or on.cores == first.cores else None
    if on.devices is None or on.devices == 1 or first.devices != 1:
        return speed, None
    if on.cores is None or first.cores is None:
        return speed, ratio / on.devices
    return speed, ratio * first.cores / on.cores


def _shown(section: Section) -> list[Ranking]:
    return [each for each in section.track.rankings if each.name in section.ranked_by]


def trainers(section: Section) -> list[Block]:
    """A table of the rows under each trainer; none where there is one alone."""
    found = against(section)
    if not found:
        return []
    name = first_trainer(section)
    first: Part = Name(name) if name else "the first"
    header: list[Text] = [("model",), ("trainer",), ("options",)]
    for ranking in _shown(section):
        key = section.ranked_by[ranking.name]
        header.append((next((each.heading for each in section.track.columns if each.key == key), key.metric),))
        header += [("better than ", first, " by")] if section.comparisons.get(ranking.name) else []
    header += [("faces/s of the fit",), ("times ", first), ("memory, GiB",), ("scaling",)]
    rows = [_line(section, each) for each in found]
    said: Text = (
        "Each row under the suite's first trainer", *((", ", first, ",") if name else ()), " then under the others, "
        "with the options in which they differ. A row's batch is that of one process: on n devices a step has n of "
        "them. Memory is that of one process at its peak; scaling is faces a second over n times those of the first, "
        "where that has one device, and on a CPU faces a second and core over those of the first. Judges, "
        "reader and what is trained on permuted labels are of the first.",
    )  # fmt: skip
    return [Heading(3, ("Trainers",)), Table(header, rows, left=(0, 1, 2)), Paragraph(said)]


def _line(section: Section, each: Against) -> list[Text]:
    shown = [f"{name} = {value}" for name, value in each.options.items()]
    cells: list[Text] = [(Name(each.row),), (Name(each.entry.trainer),), joined(Name(option) for option in shown)]
    for ranking in _shown(section):
        cells.append((Score(each.entry.numbers.get(section.ranked_by[ranking.name])),))
        if section.comparisons.get(ranking.name):
            cells.append(_gap(each.better[ranking.name]))
    speed: Part = "–" if each.speed is None else f"{each.speed:.2f}"
    scaling: Part = "–" if each.scaling is None else f"{100 * each.scaling:.0f} %"
    return [*cells, (Cost(each.entry.costs[SPEED]),), (speed,), (Cost(each.entry.costs[MEMORY]),), (scaling,)]


def _gap(pair: Comparison | None) -> Text:
    if pair is None:
        return ("–",)
    return (pair,) if pair.certain else (pair, ", not told apart")


def plain(section: Section) -> Iterator[dict[str, Any]]:
    """The same as `metrics.json` holds it."""
    for each in against(section):
        yield {
            "row": each.entry.name,
            "under_first": each.row,
            "trainer": each.entry.trainer,
            "options": dict(each.options),
            "fit_faces_per_s": each.entry.costs[SPEED].value,
            "peak_memory_gb": each.entry.costs[MEMORY].value,
            "of_the_firsts_speed": each.speed,
            "scaling": each.scaling,
        }
