"""Generators in numbers: from the judges' verdicts on every face to control with intervals, ranks and controls.

Reads `bench/store.py`'s files and nothing else; the same files give the same board.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.metrics import intervals as stats
from emobench.metrics.control import rates
from emobench.report.board import Check, Entry, Number, base_number, costs, flags_of, hardware
from emobench.report.judged_controls import MEMORISED, checks, controls, measured
from emobench.report.verdicts import (
    KEPT,
    KINDS,
    Judged,
    drawn,
    intensities,
    kept,
    place_of,
    probability,
    read,
    units,
    whole_samples,
    with_intervals,
)
from emobench.runner.store import Row

_SPEEDS = {"editing": "edits_per_s", "stylization": "stylized_per_s"}  # of drawing is a cost like others


@dataclass
class JudgedSection:
    """The generators of one dataset at one size, judged by one panel.

    Attributes:
        ranks: (track, "control" or "fidelity", row) -> best and worst possible rank.
        order_only: tracks whose fidelity has no rank, since there are fewer than three seeds.
        curves: row -> mean panel probability at each intensity asked for.
    """

    dataset: str
    size: int
    emotions: tuple[str, ...] = ()
    panel: list[dict[str, Any]] = field(default_factory=list)
    reader: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    controls: list[Entry] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    usable: list[Row] = field(default_factory=list)
    comparisons: dict[str, list[stats.Comparison]] = field(default_factory=dict)
    compared: dict[str, list[str]] = field(default_factory=dict)  # track -> the rows that comparisons number
    ranks: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    order_only: list[str] = field(default_factory=list)
    curves: dict[str, pd.Series] = field(default_factory=dict)
    confusions: list[NDArray[np.float64]] = field(default_factory=list)  # (K, K) of each judge on real test faces
    real: int = 0  # test faces
    without_weights: list[dict[str, Any]] = field(default_factory=list)  # judges, guides: not committed
    calibrating: tuple[int, str] = (0, "faces")  # how many people, or faces, the half has that calibrates
    units: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # (track, row) -> what is resampled
    left_out: dict[str, str] = field(default_factory=dict)  # track -> emotions that its calibrated control is without

    def measured(self, track: str) -> list[Entry]:
        """The models with numbers on a track, the best control first."""
        metric = f"{track}:{self.ranked_by(track)}"
        found = [entry for entry in self.entries if (f"{track}:control", "macro") in entry.numbers]
        return sorted(found, key=lambda entry: -(entry.value(metric, "macro") or 0.0))

    def ranked_by(self, track: str) -> str:
        """The control that a track is ranked by: calibrated, unless no judge can tell some emotion apart."""
        values = [
            entry.value(f"{track}:control_calibrated", "macro")
            for entry in self.entries
            if (f"{track}:control", "macro") in entry.numbers
        ]
        return "control_corrected" if any(value is None for value in values) else "control_calibrated"

    def distance(self, track: str) -> str:
        """The distance that a track is ranked by: `fid` where all rows have it, else `fed`."""
        entries = self.measured(track)
        return "fid" if entries and all(entry.value(f"{track}:fid") is not None for entry in entries) else "fed"


def judged_sections(suite: str, rows: Sequence[Row]) -> list[JudgedSection]:
    """All datasets of a board on which generators run, in the suite's order."""
    made = [row for row in rows if row.track == "generation"]
    places = dict.fromkeys((row.dataset, row.size) for row in made)
    return [_section(suite, *place, [row for row in made if (row.dataset, row.size) == place]) for place in places]


def _section(suite: str, dataset: str, size: int, rows: Sequence[Row]) -> JudgedSection:
    """All generators of a dataset, those with another panel than most explained as missing."""
    found = JudgedSection(dataset, size)
    cells = {id(row): read(row) for row in rows if row.state == "done"}
    good = [cell for cell in cells.values() if isinstance(cell, Judged)]
    panels = [cell.panel for cell in good]
    usual = max(set(panels), key=panels.count) if panels else ()
    usable = {id(cell.row): cell for cell in good if cell.panel == usual}
    for name in dict.fromkeys(row.row for row in rows):
        entry = Entry(name, [row for row in rows if row.row == name])
        mine = [usable[id(row)] for row in entry.rows if id(row) in usable]
        if mine:
            _measure(entry, mine, suite)
            if (curve := _curve(mine)) is not None:
                found.curves[name] = curve
        for row in entry.rows:
            if id(row) not in usable:
                reason = cells.get(id(row), row.reason)
                said = "judged by another panel than most rows of this board" if isinstance(reason, Judged) else reason
                state = "not usable" if row.state == "done" else row.state
                number = base_number(suite, row, row.seed, flags_of(row), "")
                told = f"{state}: {said}" if said else state
                entry.missing.append(number._replace(metric="control", emotion="macro", reason=told))
        found.entries.append(entry)
    if usable:
        _describe(found, list(usable.values()), suite)
        for track in KINDS:
            _rank(found, track, usable)
    return found


def _describe(section: JudgedSection, cells: Sequence[Judged], suite: str) -> None:
    """What all rows of a panel share: the judges, the real faces and the controls."""
    first = next((cell for cell in cells if "editing" in cell.result["tracks"]), cells[0])
    section.emotions, section.panel, section.reader = first.emotions, first.result["panel"], first.result["reader"]
    section.usable = [cell.row for cell in cells]
    real = first.verdicts("real")
    assert real is not None  # `read` has seen to it
    section.real = len(real.asked)
    unit, which = units(first.part("real", 0))
    section.calibrating = len(np.unique(which)), unit
    section.confusions = list(rates(real.asked, real.read, len(first.emotions)))
    known = measured(first)
    section.controls = list(controls(first, known, suite))
    section.checks = list(checks(first, known))


def _measure(entry: Entry, cells: Sequence[Judged], suite: str) -> None:
    """Fill an entry with what its cells gave, all seeds together and each."""
    entry.seeds = [cell.row.seed for cell in cells]
    entry.flags = list(dict.fromkeys(flag for cell in cells for flag in flags_of(cell.row)))
    made = [cell.result["metrics"].get("generation", {}) for cell in cells]  # stylizers draw no faces
    copied = [each["memorisation"]["value"] for each in made if each]
    if np.mean([value for value in copied if value is not None] or [0.0]) > MEMORISED:
        entry.flags.append("memorised")
    if len(cells) < len(entry.rows):
        entry.flags.append("incomplete")
    entry.numbers = {place_of(number): number for number in _numbers(cells, suite, None, entry.flags)}
    for cell in cells:
        entry.single += _numbers([cell], suite, cell.row.seed, flags_of(cell.row))


def _numbers(cells: Sequence[Judged], suite: str, seed: int | None, flags: Sequence[str]) -> list[Number]:
    """All numbers of some cells of one row."""
    machines = [hardware(cell.result.get("hardware")) for cell in cells]
    base = base_number(suite, cells[0].row, seed, flags, " + ".join(dict.fromkeys(machines)))
    draws = "generation" in cells[0].result["metrics"]
    if not draws:  # a stylizer's costs belong to its only track, which brings its own speed
        base = base._replace(track=cells[0].result["tracks"][0])
    found = [each for each in costs([cell.row for cell in cells], base) if draws or each.metric != "faces_per_s"]
    for track, kind in KINDS.items():
        if all(cell.verdicts(kind) is not None for cell in cells):
            at = base._replace(track=track)
            found += with_intervals([drawn(cell, kind) for cell in cells], at)
            found += whole_samples([cell.result["metrics"].get(track, {}) for cell in cells], at)
            found += kept(cells, at, KEPT[track])
            if track in _SPEEDS:
                speed = [cell.result["cost"][_SPEEDS[track]] for cell in cells]
                found.append(at._replace(metric="faces_per_s", value=float(np.mean(speed))))
    found += _rising(cells, base)
    return found


def _rising(cells: Sequence[Judged], base: Number) -> Iterator[Number]:
    """Monotonicity and slope of the panel's probability over the intensity asked for, with intervals over seeds."""
    values, draws, seeds = [], [], 0
    for cell in cells:
        part = cell.part("intensity")
        if part.empty:
            return
        value, under, seeds = intensities(cell, part)
        values.append(value)
        draws.append(under)
    of = stats.spread(np.stack(values), np.stack(draws, 1), seeds)
    bounds = stats.intervals(of, np.array([1.0, np.inf]), np.array([-1.0, -np.inf]))
    n = len(cells[0].part("intensity"))
    for name, mean, interval in zip(("intensity_spearman", "intensity_slope"), of.mean, bounds, strict=True):
        number = base._replace(metric=name, n=n)
        if np.isnan(mean):
            yield number._replace(reason="the faces do not change with the intensity")
        else:
            yield number._replace(value=float(mean), low=interval.low, high=interval.high, reason=interval.note)


def _curve(cells: Sequence[Judged]) -> pd.Series | None:
    """Mean probability of the panel at each intensity, over emotions, faces and seeds."""
    parts = [cell.part("intensity") for cell in cells]
    if any(part.empty for part in parts):
        return None
    rows = [
        pd.DataFrame({"level": part["level"], "p": probability(cell, part)})
        for cell, part in zip(cells, parts, strict=True)
    ]
    return pd.concat(rows).groupby("level")["p"].mean()


def _rank(section: JudgedSection, track: str, usable: Mapping[int, Judged]) -> None:
    """Two ranks, never merged into one: by control, and by the distance from real faces."""
    entries = section.measured(track)
    if not entries:
        return
    names = [entry.name for entry in entries]
    key = (section.ranked_by(track), "macro", "")
    values, draws, groups = [], [], []
    for entry in entries:
        cells = [usable[id(row)] for row in entry.rows if id(row) in usable]
        measured = [drawn(cell, KINDS[track]) for cell in cells]
        values.append(np.array([float(each.values[key]) for each in measured]))
        draws.append(np.stack([each.draws[key] for each in measured], 1))
        groups += [each.units for each in measured]
        section.units[track, entry.name] = measured[0].units, measured[0].unit
        if left_out := measured[0].missing("control_calibrated", "macro"):
            section.left_out[track] = left_out
    section.compared[track], section.comparisons[track] = names, stats.compare(values, draws, min(groups))
    for name, rank in zip(names, stats.rank_ranges(len(names), section.comparisons[track]), strict=True):
        section.ranks[track, "control", name] = rank
    if track == "stylization":
        return  # a stylized face is not meant to look like a real one
    metric = f"{track}:{section.distance(track)}"
    near = sorted(
        (entry for entry in entries if entry.value(metric) is not None), key=lambda entry: entry.value(metric) or 0
    )
    single = [[_single(entry, metric, seed) for seed in entry.seeds] for entry in near]
    if any(len(values) < stats.SEEDS_NEEDED for values in single):
        section.order_only.append(track)
        ranges = [(place + 1, place + 1) for place in range(len(near))]
    else:
        pairs = stats.compare_means([-np.array(values) for values in single])  # the less distant is better
        ranges = stats.rank_ranges(len(near), pairs)
    for entry, rank in zip(near, ranges, strict=True):
        section.ranks[track, "fidelity", entry.name] = rank


def _single(entry: Entry, metric: str, seed: int) -> float:
    return next(n.value or 0.0 for n in entry.single if n.seed == seed and place_of(n) == (metric, ""))
