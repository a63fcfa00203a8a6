"""Numbers by slice: how well each model does on the faces of a group, such as people with glasses, and the gap between
the best and the worst group.

Made by the report from the answers that a board holds, and from what is known of the faces (`attributes`). Of
classifiers accuracy and macro F1, of models that are given test faces control, by what is known of the faces given.

Shapes: R resamples, S seeds, N faces, G units, T slices of all attributes together, K emotions, M metrics.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emobench.evaluation.tracks.panel import JudgedFaces, PanelTrack, units
from emobench.evaluation.tracks.recognition import Predictions
from emobench.evaluation.tracks.track import Name, people
from emobench.metrics import intervals
from emobench.report.attributes import Attribute, Lookup
from emobench.report.board import Board, Entry, Number, Section, base_number, content
from emobench.report.markdown import csv_cell
from emobench.report.page import Block, Bullets, Heading, Paragraph, Score, Table, Text

Floats = NDArray[np.float64]

LEAST = 30  # faces of a slice, below which it says nothing
LEAST_UNITS = 10  # people of a slice, likewise: fewer give no interval that holds
ROWS = 48  # models of a section, the best first
REAL = "control:real"  # test faces themselves, as the panel reads them: its own gaps
HEADINGS = {"accuracy": "accuracy", "macro_f1": "macro F1", "control": "control, raw"}
COLUMNS = (
    "suite", "dataset", "size", "track", "model", "variant", "trainer", "attribute", "slice", "metric", "value", "low",
    "high", "n", "units", "reason", "hardware", "protocol", "flags",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """A slice: which faces, how many, and how many people or sources they are of."""

    attribute: str
    name: str
    n: int
    units: int

    @property
    def small(self) -> bool:
        return self.n < LEAST or self.units < LEAST_UNITS

    @property
    def why(self) -> str:
        """Why a small one has no number."""
        return f"too few: {self.n} faces" if self.n < LEAST else f"too few: {self.n} faces of {self.units} people"


@dataclass(frozen=True)
class Drawn:
    """What the seeds of one row do on each slice, and under resampled units, the same ones for all rows.

    Attributes:
        groups: T.
        metrics: M.
        values: (S, T, M).
        draws: (R, S, T, M).
        total: how many units were resampled.
    """

    groups: tuple[Group, ...]
    metrics: tuple[str, ...]
    values: Floats
    draws: Floats
    total: int

    def of(self, attribute: str) -> list[int]:
        """The places of an attribute's slices."""
        return [place for place, group in enumerate(self.groups) if group.attribute == attribute]

    @property
    def attributes(self) -> list[str]:
        return list(dict.fromkeys(group.attribute for group in self.groups))


@dataclass(frozen=True)
class Row:
    """A model's numbers by slice.

    Attributes:
        numbers: metric -> T numbers.
        gaps: (attribute, metric) -> its best slice and its worst, by place; p is corrected over all pairs of slices of
            all attributes of the row, and the interval holds for all of them together.
    """

    groups: tuple[Group, ...]
    numbers: Mapping[str, Sequence[Number]]
    gaps: Mapping[tuple[str, str], intervals.Comparison]


@dataclass
class Sliced:
    """The rows of a section by slice.

    Attributes:
        reason: why there are none; None: there are, or nothing is known of the faces that divides them.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    reason: str | None = None


def sliced(section: Section, suite: str) -> Sliced:
    """The numbers of a section's rows by slice."""
    first = next(iter(section.records), None)
    if first is None or first.evaluation is None:
        return Sliced()
    lookup: Lookup = section.memory.once(("lookup", first.evaluation.dataset.fingerprint), lambda: Lookup(first))
    if lookup.reason is not None:
        return Sliced(reason=lookup.reason if _sees_faces(section) else None)
    found = Sliced()
    for entry in section.measured[:ROWS]:
        cells = section.usable_of(entry)
        key = ("slices", *(content(section.track, cell) for cell in cells))
        drawn = section.memory.once(key, lambda entry=entry: numbers_of(section, entry, lookup))  # type: ignore[misc]
        if drawn is not None:
            base = base_number(section, cells[0], suite, None, entry.flags)
            found.rows[entry.name] = section.memory.once((*key, base), partial(row_of, drawn, base))
    if found.rows and isinstance(section.track, PanelTrack):
        real = _drawn([_judged(section.data[0], "real")], lookup, len(section.emotions))
        if real is not None:
            base = base_number(section, section.usable[0], suite, None, [])
            found.rows[REAL] = row_of(real, base._replace(model=REAL, variant="", trainer=""))
    return found


def _sees_faces(section: Section) -> bool:
    """Whether the track shows test faces to the models, so that what is known of them could divide its numbers."""
    if not isinstance(section.track, PanelTrack):
        return section.track.name == "recognition"
    part = section.data[0].part(section.track.judged)
    return bool(len(part)) and bool((part["row"] >= 0).all())


# One row


def numbers_of(section: Section, entry: Entry, lookup: Lookup) -> Drawn | None:
    """What a row does on each slice; None: its answers are of no test faces, or nothing divides these."""
    counted = [_counted(section, data) for data in section.data_of(entry)]
    return _drawn(counted, lookup, len(section.emotions))


def _drawn(counted: Sequence[_Counted | None], lookup: Lookup, classes: int) -> Drawn | None:
    """What the seeds of a row do on each slice."""
    parts = [each for each in counted if each is not None]
    if not parts or len(parts) < len(counted):
        return None
    first = parts[0]
    attributes = lookup.of(first.rows)
    if not attributes or any(not np.array_equal(each.rows, first.rows) for each in parts):
        return None
    groups = tuple(_groups(attributes, first.units))
    every = np.stack([each.columns for each in parts])  # (S, N, C)
    member = np.stack([each.of == k for each in attributes for k in range(len(each.slices))], 1)  # (N, T)
    counted_in = _emotions(groups, member, first.shown, classes)

    def statistic(sums: intervals.Floats) -> intervals.Floats:
        apart = sums.reshape(*sums.shape[:-1], len(groups), -1)  # (…, T, C)
        measured: Floats = first.measure(apart, counted_in)
        return measured.reshape(*sums.shape[:-1], -1)

    of = _by_slice(every, attributes, member, first.units)
    values, draws = statistic(intervals.total(of)), intervals.bootstrap(of, statistic)
    shape = (len(groups), len(first.metrics))
    of_seeds: Floats = values.reshape(len(parts), *shape).astype(np.float64)
    count = int(first.units.max()) + 1
    return Drawn(groups, first.metrics, of_seeds, draws.reshape(*draws.shape[:2], *shape), count)


def _by_slice(
    every: Floats, attributes: Sequence[Attribute], member: NDArray[np.bool_], unit: NDArray[np.int64]
) -> intervals.Units:
    """What each unit adds to the sums of each slice.

    Args:
        every: (S, N, C) what each face adds to them.
        member: (N, T) which slices it is in.
        unit: (N,) whose face it is.
    """
    place = np.argsort(unit)
    if np.array_equal(unit[place], np.arange(len(unit))):  # its own, which is in one slice of an attribute at most
        faces = every[:, place]
        return [intervals.Parted(faces, each.of[place], len(each.slices)) for each in attributes]
    wide = (every[:, :, None, :] * member[None, :, :, None]).reshape(*every.shape[:2], -1)
    return np.stack([intervals.grouped(each, unit) for each in wide])


@dataclass(frozen=True)
class _Counted:
    """What each face of a cell adds to the sums of its slices.

    Attributes:
        rows: (N,) of the dataset.
        shown: (N,) the emotion that it shows, or was asked for.
        units: (N,) from 0 to G − 1, the person, or the face.
        columns: (N, C).
    """

    rows: NDArray[np.int64]
    shown: NDArray[np.int64]
    units: NDArray[np.int64]
    columns: Floats
    metrics: tuple[str, ...]
    measure: Any  # sums (…, T, C) and emotions (T, K) -> (…, T, M)


def _counted(section: Section, data: Any) -> _Counted | None:
    classes = np.arange(len(section.emotions))
    if isinstance(data, Predictions):
        faces = data.faces
        labels, read = (faces[name].to_numpy(np.int64)[:, None] == classes for name in ("label", "prediction"))
        group = people(faces["subject"])
        return _Counted(
            faces["index"].to_numpy(np.int64),
            faces["label"].to_numpy(np.int64),
            np.arange(len(faces)) if group is None else group,
            np.concatenate([labels, read, labels & read], 1).astype(np.float64),
            ("accuracy", "macro_f1"),
            _recognised,
        )
    return _judged(data, section.track.judged) if isinstance(section.track, PanelTrack) else None


def _judged(data: JudgedFaces, kind: str) -> _Counted | None:
    """Of the faces of a kind that were given to a model, or are test faces themselves; None: there are no such."""
    part = data.part(kind)
    rows = part["row"].to_numpy(np.int64)
    if not len(rows) or (rows < 0).any():
        return None
    asked = part["asked"].to_numpy(np.int64)
    read = np.stack([part[f"read_{place}"].to_numpy(np.int64) for place in range(len(data.judges))], 1)
    shown = asked[:, None] == np.arange(len(data.emotions))
    obeyed = (read == asked[:, None]).mean(1)
    which = np.unique(units(part)[1], return_inverse=True)[1]
    return _Counted(rows, asked, which, np.concatenate([shown, shown * obeyed[:, None]], 1), ("control",), _obeyed)


def _recognised(sums: intervals.Floats, emotions: NDArray[np.bool_]) -> Floats:
    """Accuracy, and F1 averaged over some emotions of each slice (T, K), an emotion that is never read counting 0."""
    shown, read, right = np.split(np.asarray(sums, np.float64), 3, -1)
    f1 = np.nan_to_num(_ratio(2 * right, shown + read))
    return np.stack([_ratio(right.sum(-1), shown.sum(-1)), _mean(f1, emotions)], -1)


def _obeyed(sums: intervals.Floats, emotions: NDArray[np.bool_]) -> Floats:
    """The share that judges read as asked, averaged over judges and over some emotions of each slice (T, K)."""
    asked, obeyed = np.split(np.asarray(sums, np.float64), 2, -1)
    return _mean(_ratio(obeyed, asked), emotions)[..., None]


def _mean(values: Floats, emotions: NDArray[np.bool_]) -> Floats:
    """(…, T) the mean of values (…, T, K) over the emotions of each slice; NaN over none."""
    return _ratio(np.where(emotions, values, 0).sum(-1), np.broadcast_to(emotions.sum(-1), values.shape[:-1]))


def _ratio(above: Floats, below: Floats) -> Floats:
    share: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)
    return share


def _groups(attributes: Sequence[Attribute], unit: NDArray[np.int64]) -> Iterator[Group]:
    for attribute in attributes:
        for place, name in enumerate(attribute.slices):
            mine = attribute.of == place
            yield Group(attribute.name, name, int(mine.sum()), len(np.unique(unit[mine])))


def _emotions(
    groups: Sequence[Group], member: NDArray[np.bool_], shown: NDArray[np.int64], classes: int
) -> NDArray[np.bool_]:
    """(T, K) which emotions count in each slice: those that all slices of its attribute show that are no small ones."""
    there = np.stack([np.bincount(shown[mine], minlength=classes) > 0 for mine in member.T])
    kept = np.array([not group.small for group in groups])
    found = np.zeros_like(there)
    for place, group in enumerate(groups):
        of = [k for k, other in enumerate(groups) if other.attribute == group.attribute and kept[k]]
        found[place] = there[of].all(0) if of else False
    return found


def row_of(drawn: Drawn, base: Number) -> Row:
    """The numbers of a row with their intervals, and the gap of each attribute."""
    numbers: dict[str, list[Number]] = {}
    gaps: dict[tuple[str, str], intervals.Comparison] = {}
    rests = np.array([group.units for group in drawn.groups], np.float64)
    for k, metric in enumerate(drawn.metrics):
        spread = intervals.spread(drawn.values[..., k], drawn.draws[..., k], drawn.total)
        bounds = intervals.intervals(spread, units=rests)
        numbers[metric] = [
            base._replace(metric=metric, n=group.n, reason=group.why)
            if group.small
            else base._replace(
                metric=metric, value=float(mean), low=bound.low, high=bound.high, n=group.n, reason=bound.note
            )
            for group, mean, bound in zip(drawn.groups, spread.mean, bounds, strict=True)
        ]
        gaps |= _gaps(drawn, k, rests)
    return Row(drawn.groups, numbers, gaps)


def _gaps(drawn: Drawn, k: int, rests: Floats) -> dict[tuple[str, str], intervals.Comparison]:
    """Of each attribute the largest difference between two slices, tested among all pairs of all attributes."""
    pairs = [
        pair
        for attribute in drawn.attributes
        for pair in itertools.combinations([t for t in drawn.of(attribute) if not drawn.groups[t].small], 2)
    ]
    if not pairs:
        return {}
    one, other = np.array(pairs).T
    values, draws = drawn.values[..., k], drawn.draws[..., k]
    spread = intervals.spread(values[:, one] - values[:, other], draws[..., one] - draws[..., other], drawn.total)
    short = _short(drawn, k)
    spread = replace(spread, faces=spread.faces + short[one] + short[other])
    level = 1 - (1 - intervals.LEVEL) / len(pairs)
    alike = sum(len([t for t in drawn.of(each) if not drawn.groups[t].small]) > 1 for each in drawn.attributes)
    p, half = intervals.against_zero(spread, level, rests[one] + rests[other] - 1, alike)
    corrected, known = intervals.holm(p), len(values) >= intervals.SEEDS_NEEDED
    found: dict[tuple[str, str], intervals.Comparison] = {}
    for place, (first, second) in enumerate(pairs):
        key = drawn.groups[first].attribute, drawn.metrics[k]
        gap, width = float(spread.mean[place]), float(half[place])
        if np.isnan(gap) or (key in found and found[key].difference >= abs(gap)):
            continue
        best, worst = (first, second) if gap >= 0 else (second, first)
        low, high = (None, None) if np.isnan(width) else (abs(gap) - width, abs(gap) + width)
        found[key] = intervals.Comparison(best, worst, abs(gap), low, high, corrected[place], known)
    return found


def _short(drawn: Drawn, k: int) -> Floats:
    """(T,) by how much the variance of a slice is below that of as many faces of its attribute.

    A few faces that happen to be all right, or all wrong, vary under no resampling, and would be told apart from any
    others. Without a gap they vary as the others do.
    """
    faces = intervals.spread(drawn.values[..., k], drawn.draws[..., k], drawn.total).faces
    n = np.array([group.n for group in drawn.groups], np.float64)
    found = np.zeros(len(n))
    for attribute in drawn.attributes:
        kept = [place for place in drawn.of(attribute) if not drawn.groups[place].small and np.isfinite(faces[place])]
        if kept:
            of_one = float((n[kept] ** 2 * faces[kept]).sum() / n[kept].sum())  # variance of one face, a mean over all
            found[kept] = np.maximum(0, of_one / n[kept] - faces[kept])
    return found


# Two rows


@dataclass(frozen=True)
class Apart:
    """A metric of two rows on one slice; no values and no `pair` where the slice is too small.

    Attributes:
        pair: the first minus the second, its p corrected over all slices of the metric.
    """

    group: Group
    metric: str
    first: float | None = None
    second: float | None = None
    pair: intervals.Comparison | None = None


def apart(one: Drawn, other: Drawn) -> list[Apart]:
    """Two rows on each slice."""
    found: list[Apart] = []
    for k, metric in enumerate(one.metrics):
        kept = [place for place, group in enumerate(one.groups) if not group.small]
        pairs = []
        for place in kept:
            values = [each.values[:, place, k] for each in (one, other)]
            draws = [each.draws[:, :, place, k] for each in (one, other)]
            pairs += intervals.compare(values, draws, one.groups[place].units)
        p = intervals.holm([pair.p for pair in pairs])
        told = {place: replace(pair, p=each) for place, pair, each in zip(kept, pairs, p, strict=True)}
        for place, group in enumerate(one.groups):
            if place not in told:
                found.append(Apart(group, metric))
                continue
            first, second = (float(each.values[:, place, k].mean()) for each in (one, other))
            found.append(Apart(group, metric, first, second, told[place]))
    return found


# What is said of them


def page(board: Board) -> list[Block]:
    """All of slices.md."""
    blocks: list[Block] = [Heading(1, ("By slice: ", Name(board.suite))), Paragraph((MEANING,))]
    for section in board.sections:
        said = about(section)
        if said:
            title: Text = (f"{section.track.name.capitalize()} on ", Name(section.dataset), f", {section.size} px")
            blocks += [Heading(2, title), *said]
    if len(blocks) == 2:
        blocks.append(Paragraph(("Nothing is known of these faces that divides them.",)))
    return blocks


MEANING = (
    "A slice is the test faces of a group. n: its faces. A gap is the best slice minus the worst one: its p is "
    "corrected (Holm) over all pairs of slices of all attributes of the model, and its interval holds for all of them "
    f"together (Bonferroni). A slice of fewer than {LEAST} faces or {LEAST_UNITS} people is too small to say anything. "
    "F1 and control are averaged over the emotions that all slices of the attribute show. Groups may differ in more "
    "than their name, such as in their emotions: a gap is a difference, and no cause."
)


def about(section: Section) -> list[Block]:
    """Which gaps are certain, and a table an attribute and metric with a column a slice."""
    found = section.slices or Sliced()
    if found.reason is not None:
        return [Paragraph(("By slice: ", Name(found.reason), "."))]
    if not found.rows:
        return []
    headline = list(next(iter(found.rows.values())).numbers)[-1]
    gaps = [
        _said(name, row, key)
        for name, row in found.rows.items()
        for key, pair in row.gaps.items()
        if key[1] == headline and pair.certain
    ]
    blocks: list[Block] = [Bullets(gaps) if gaps else Paragraph(("No gap between two slices is certain.",))]
    first = next(iter(found.rows.values()))
    for attribute in dict.fromkeys(group.attribute for group in first.groups):
        blocks.append(Heading(3, (Name(attribute),)))
        blocks += [_table(found, attribute, metric) for metric in first.numbers]
    left = len(section.measured) - len(section.measured[:ROWS])
    return [*blocks, *([Paragraph((f"The best {ROWS} models; {left} more are left out.",))] if left else [])]


def _said(name: str, row: Row, key: tuple[str, str]) -> Text:
    """A gap in a sentence, each slice with its number of faces."""
    pair, (attribute, metric) = row.gaps[key], key
    ends = [(row.groups[place].name, row.numbers[metric][place]) for place in (pair.first, pair.second)]
    best, worst = ((Name(slice_), " ", Score(number), f" of {number.n:,} faces") for slice_, number in ends)
    known = "" if pair.seeds_known else ", of these trained networks"
    what: Text = (Name(name), " by ", Name(attribute), f", {HEADINGS[metric]}: ")
    return (*what, *best, "; ", *worst, "; gap ", pair, f", {probability(pair.p)}{known}.")


def probability(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _table(found: Sliced, attribute: str, metric: str) -> Table:
    first = next(iter(found.rows.values()))
    places = [place for place, group in enumerate(first.groups) if group.attribute == attribute]
    header: list[Text] = [(HEADINGS[metric],)]
    counts = {place: first.groups[place].n for place in places}
    header += [(Name(first.groups[place].name), f", n = {n:,}") for place, n in counts.items()]
    header += [("gap",), ("between",), ("p",)]
    rows: list[list[Text]] = []
    for name, row in found.rows.items():
        pair = row.gaps.get((attribute, metric))
        of: list[Text] = [("n/a",), ("",), ("",)]
        if pair is not None:
            ends: Text = (Name(row.groups[pair.first].name), " and ", Name(row.groups[pair.second].name))
            of = [(pair,), ends, ("< 0.001" if pair.p < 0.001 else f"{pair.p:.3f}",)]
        cells: list[Text] = []
        for place, n in counts.items():
            number = row.numbers[metric][place]
            cells.append((Score(number), *(() if number.n == n else (f", n = {number.n:,}",))))
        rows.append([(Name(name),), *cells, *of])
    return Table(header, rows, left=(0, len(places) + 2))


def table(board: Board) -> str:
    """slices.csv: a row a model, slice and metric; and the gap of each attribute, whose slice is "best − worst"."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section in board.sections:
        for row in section.slices.rows.values() if section.slices else ():
            for metric, numbers in row.numbers.items():
                for group, number in zip(row.groups, numbers, strict=True):
                    writer.writerow(_line(number, group.attribute, group.name, group.units))
                for (attribute, of), pair in row.gaps.items():
                    if of == metric:
                        ends = [row.groups[place] for place in (pair.first, pair.second)]
                        number = numbers[pair.first]._replace(
                            value=pair.difference, low=pair.low, high=pair.high, n=sum(end.n for end in ends),
                            reason=f"corrected {probability(pair.p)}",
                        )  # fmt: skip
                        said = f"{ends[0].name} − {ends[1].name}"
                        writer.writerow(_line(number, attribute, said, sum(end.units for end in ends)))
    return file.getvalue()


def _line(number: Number, attribute: str, name: str, count: int) -> list[str]:
    of = number._asdict() | {"attribute": attribute, "slice": name, "units": count}
    cells = {column: csv_cell(of[column]) for column in COLUMNS}
    return list(({**cells, "value": "n/a"} if number.value is None else cells).values())
