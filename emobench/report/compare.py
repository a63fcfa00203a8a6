"""Two rows on the same faces: how far apart they are in each figure, by emotion and by slice, and on which faces.

Whatever a board does not say of a pair: every figure has its difference, with an interval and p, from the same
resampled faces by which boards rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emobench.errors import StoreError
from emobench.evaluation.tracks.panel import PanelTrack
from emobench.evaluation.tracks.recognition import Predictions
from emobench.evaluation.tracks.track import Estimates, Key, Name, Track
from emobench.metrics import intervals
from emobench.metrics.intervals import Comparison
from emobench.report import power, slices
from emobench.report.attributes import Lookup, catalogue_name, dataset_of, is_drawn
from emobench.report.board import Entry, Number, Section, Some, read_raw, section
from emobench.report.html.disagreements import asked_table, lines_of
from emobench.report.memory import Memory
from emobench.report.page import Block, Bullets, Heading, Paragraph, Picture, Score, Strong, Table, Text, Warning
from emobench.report.readable import signed
from emobench.report.slices import HEADINGS, probability
from emobench.report.spread import few_seeds, moved
from emobench.runner.store import StoredCell
from emobench.suite.keys import DRAWN

LISTED = 24  # faces of each side that are listed, those first on which the wrong one is surest
_NO_EMOTION = "none of these"
_NAMES_ONLY = ("labels", "ignore", "order", "size")  # arguments of datasets that change no picture of a face


@dataclass(frozen=True)
class Side:
    """A row as it is compared.

    Attributes:
        label: what it is called here.
        cells: one a seed, of one dataset and size, whatever their state.
    """

    label: str
    board: str
    cells: Sequence[StoredCell]

    @property
    def done(self) -> list[StoredCell]:
        """The cells that were measured."""
        return [cell for cell in self.cells if cell.state == "done" and cell.record and cell.record.evaluation]


@dataclass(frozen=True)
class Difference:
    """A figure of both rows.

    Attributes:
        gap: the first minus the second; None: one of them has no value.
        pair: the same with its interval and p; None: it has none, `why` says why.
    """

    key: Key
    first: Number
    second: Number
    gap: float | None
    pair: Comparison | None
    why: str = ""


@dataclass(frozen=True)
class Face:
    """A face on which the rows disagree.

    Attributes:
        number: its row in the dataset; of requests, which one of the emotion, from 1.
        name: its id; "": it has none.
        shown: the emotion that it shows, or was asked for.
        first, second: what either reads in it, or most judges in what either made.
        place: of a picture that a cell made, its line and column in that; None: it is a test face.
    """

    number: int
    name: str
    shown: str
    first: str
    second: str
    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Apart:
    """On which faces the rows disagree.

    Attributes:
        what: is counted, such as "test faces".
        n: of how many.
        counts: how many both are right about, the first alone, the second alone, and neither; of several seeds the
            mean over all pairs of one of each.
        only_first, only_second: some of those that one alone is right about.
        more: how many further ones there are of each.
        seeds: of each row those that count.
    """

    what: str
    n: int
    counts: tuple[float, float, float, float]
    only_first: Sequence[Face]
    only_second: Sequence[Face]
    more: tuple[int, int]
    seeds: tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Compared:
    """Two rows on one track.

    Attributes:
        figures: of all faces together, that by which the track ranks first.
        samples: numbers of whole samples, of which each seed has one.
        emotions: metric -> a figure an emotion.
        by_slice: None: `no_slices` says why, or nothing divides the faces.
        apart: None: the answers cannot be set side by side.
    """

    section: Section
    entries: tuple[Entry, Entry]
    figures: Sequence[Difference]
    samples: Sequence[Difference]
    emotions: Mapping[str, Sequence[Difference]]
    by_slice: Sequence[slices.Apart]
    no_slices: str | None
    apart: Apart | None
    notes: Sequence[str]


# Whether two rows can be compared


def check_faces(track: Track, one: Side, other: Side) -> list[str]:
    """Make sure that two rows were measured on the same faces; what is to be said of them all the same.

    Raises:
        StoreError: they were not, or by other judges, at another size or under another protocol; says which.
        RawError: the answers of one cannot be read.
    """
    cells = one.done[0], other.done[0]
    both = f"{one.label} and {other.label}"
    if cells[0].size != cells[1].size:
        sizes = " and ".join(f"{cell.size} px" for cell in cells)
        raise StoreError(f"{both} were measured at {sizes}. Only rows of one size see the same faces")
    records = [cell.record for cell in cells if cell.record is not None]
    known = [record.evaluation.dataset for record in records if record.evaluation is not None]
    alike = known[0].fingerprint == known[1].fingerprint
    if not alike and isinstance(track, PanelTrack):
        raise StoreError(
            f"{both} were measured on datasets that differ ({cells[0].dataset}, {cells[1].dataset}). Only rows of one "
            "dataset are asked for the same faces"
        )
    if not alike and _pixels(records[0]) != _pixels(records[1]):
        raise StoreError(
            f"{both} were measured on other faces: {cells[0].dataset} and {cells[1].dataset} differ in more than their "
            "labels. Compare rows of one dataset"
        )
    raw = [read_raw(track, cell) for cell in cells]
    if track.same(raw[0]) != track.same(raw[1]):
        raise StoreError(f"{both} were measured on other faces: {_differing(raw[0], raw[1])}")
    if alike or is_drawn(records[0]):
        return []
    return ["their datasets differ in labels or settings; the names and labels of the test faces are equal"]


def _pixels(record: Any) -> Any:
    """What two datasets must have in common, or a face of one name may show something else."""
    arguments = dataset_of(record).get("arguments", {})
    if is_drawn(record):
        return DRAWN, arguments.get("variant", "standard"), arguments.get("draw_seed", 0)
    kept = {name: value for name, value in arguments.items() if name not in _NAMES_ONLY and value is not None}
    return catalogue_name(record), kept


def _differing(one: Any, other: Any) -> str:
    """Why two cells' raw results cannot be compared."""
    if one.cell.same != other.cell.same:
        return "under another version of the protocol. Run the older one again"
    if one.emotions != other.emotions:
        return f"of the emotions {', '.join(one.emotions)} and {', '.join(other.emotions)}"
    if isinstance(one, Predictions) and isinstance(other, Predictions):
        ids = [set(each.faces["id"]) for each in (one, other)]
        if ids[0] == ids[1]:
            return "of the same names, but with other labels"
        shared = len(ids[0] & ids[1])
        return f"{len(ids[0]):,} and {len(ids[1]):,} test faces, {shared:,} of them the same"
    return f"judged by other networks: {', '.join(one.judges)} and {', '.join(other.judges)}, or others of these names"


# The comparison


def compared(track: Track, one: Side, other: Side) -> Compared:
    """Compare two rows on a track.

    Raises:
        StoreError, RawError: see `check_faces`; or none of a row's cells can be used.
    """
    notes = check_faces(track, one, other)
    cells = [replace(cell, row=side.label) for side in (one, other) for cell in side.cells]
    first = one.done[0]
    found = section("", track, first.dataset, first.size, cells, Memory())
    entries = _entry(found, one.label), _entry(found, other.label)
    of = [_estimates(found, entry) for entry in entries]
    differences = list(_differences(entries, *of))
    ranked = {ranking.metrics[0] for ranking in track.rankings if ranking.by == "faces"} | set(found.ranked_by.values())
    whole = [each for each in differences if each.key.emotion not in found.emotions and not each.key.judge]
    headline = [_ranked(found, entries, each) for each in whole if each.key in ranked]
    others = _corrected([each for each in whole if each.key not in ranked])
    emotions = {
        metric: _corrected([each for each in differences if each.key.metric == metric and _of(each, found)])
        for metric, _ in track.by_emotion
    }
    by_slice, reason = _by_slice(found, entries)
    for entry in entries:
        notes += [f"{entry.name}: seed {each.seed}: {each.reason}" for each in entry.missing]
        notes += [f"{entry.name}: {flag}" for flag in entry.flags if flag not in ("stale", "incomplete")]
    return Compared(
        found, entries, [*headline, *others], list(_samples(found, entries)),
        {metric: of_metric for metric, of_metric in emotions.items() if of_metric}, by_slice, reason,
        _apart(found, entries), [*notes, *dict.fromkeys(found.blind.values())],
    )  # fmt: skip


def _of(difference: Difference, found: Section) -> bool:
    return difference.key.emotion in found.emotions and not difference.key.judge


def _entry(found: Section, label: str) -> Entry:
    entry = next(each for each in found.every if each.name == label)
    if not entry.seeds and not found.usable_of(entry):
        reasons = "; ".join(dict.fromkeys(each.reason or "" for each in entry.missing))
        raise StoreError(f"{label}: none of its cells can be used: {reasons}")
    return entry


def _estimates(found: Section, entry: Entry) -> dict[Key, list[tuple[Estimates, int]]]:
    """Of each number the estimates of all seeds, and its place in them."""
    places = [found.places[id(cell)] for cell in found.usable_of(entry)]
    of: dict[Key, list[tuple[Estimates, int]]] = {}
    for parts in found.track.estimates(Some(found.data, places)):
        for part in parts:
            for place, key in enumerate(part.keys):
                of.setdefault(key, []).append((part, place))
    return {key: each for key, each in of.items() if len(each) == len(places)}


def _differences(
    entries: tuple[Entry, Entry],
    one: Mapping[Key, list[tuple[Estimates, int]]],
    other: Mapping[Key, list[tuple[Estimates, int]]],
) -> Iterator[Difference]:
    """Of every number that both rows have."""
    for key in one:
        numbers = [entry.numbers.get(key) for entry in entries]
        if key not in other or numbers[0] is None or numbers[1] is None:
            continue
        values = [np.array([part.values[place] for part, place in of[key]]) for of in (one, other)]
        if numbers[0].value is None or numbers[1].value is None:
            reason = next(number.reason for number in numbers if number and number.value is None)
            yield Difference(key, numbers[0], numbers[1], None, None, reason or "no value")
            continue
        draws = [np.stack([part.draws[:, place] for part, place in of[key]], 1) for of in (one, other)]
        units = min(_rests(part, place) for of in (one, other) for part, place in of[key])
        (pair,) = intervals.compare(values, draws, units)
        yield Difference(key, numbers[0], numbers[1], pair.difference, pair)


def _rests(part: Estimates, place: int) -> int:
    return part.units if part.rests_on is None else max(1, int(part.rests_on[place]))


def _ranked(found: Section, entries: tuple[Entry, Entry], difference: Difference) -> Difference:
    """The comparison by which a board would rank the two, which has as many resamples as it needs."""
    for ranking in found.track.rankings:
        pairs = found.comparisons.get(ranking.name, [])
        if ranking.by == "faces" and found.ranked_by.get(ranking.name) == difference.key and len(pairs) == 1:
            order = found.compared[ranking.name]
            return replace(difference, pair=pairs[0] if order[0] is entries[0] else _turned(pairs[0]))
    return difference


def _turned(pair: Comparison) -> Comparison:
    """The second minus the first."""
    low, high = (None if end is None else -end for end in (pair.high, pair.low))
    return replace(pair, difference=-pair.difference, low=low, high=high)


def _corrected(of: Sequence[Difference]) -> list[Difference]:
    """The same with p corrected over all of them."""
    pairs = [each.pair for each in of if each.pair is not None]
    corrected = iter(intervals.holm([pair.p for pair in pairs]))
    return [each if each.pair is None else replace(each, pair=replace(each.pair, p=next(corrected))) for each in of]


def _samples(found: Section, entries: tuple[Entry, Entry]) -> Iterator[Difference]:
    """Of the numbers of whole samples, of which each seed has one."""
    if not found.track.whole_samples:
        return
    records = [found.usable_of(entry)[0].record for entry in entries]
    names = [
        record.evaluation.tracks[found.track.name].values if record and record.evaluation else {} for record in records
    ]
    for name in [each for each in names[0] if each in names[1]]:
        key = Key(name)
        numbers = [entry.numbers[key] for entry in entries]
        values = [
            np.array([n.value for n in entry.single if n.metric == name and not n.emotion and n.value is not None])
            for entry in entries
        ]
        if any(number.value is None for number in numbers):
            reason = next(number.reason for number in numbers if number.value is None)
            yield Difference(key, numbers[0], numbers[1], None, None, reason or "no value")
            continue
        gap = float((numbers[0].value or 0.0) - (numbers[1].value or 0.0))
        if min(len(each) for each in values) < intervals.SEEDS_NEEDED:
            why = "one number a seed: fewer than three seeds give no interval"
            yield Difference(key, numbers[0], numbers[1], gap, None, why)
            continue
        (pair,) = intervals.compare_means(values)
        yield Difference(key, numbers[0], numbers[1], gap, pair)


def _by_slice(found: Section, entries: tuple[Entry, Entry]) -> tuple[list[slices.Apart], str | None]:
    """Both rows on each slice, or why there is none."""
    lookup = Lookup(found.records[0])
    if lookup.reason is not None:
        return [], lookup.reason
    drawn = [slices.numbers_of(found, entry, lookup) for entry in entries]
    if drawn[0] is None or drawn[1] is None:
        return [], None
    if drawn[0].groups != drawn[1].groups:
        return [], "the rows answered for other faces of the slices"
    return slices.apart(drawn[0], drawn[1]), None


# The faces on which they disagree


def _apart(found: Section, entries: tuple[Entry, Entry]) -> Apart | None:
    if found.track.name == "recognition":
        return _read_apart(found, entries)
    return _judged_apart(found, entries) if isinstance(found.track, PanelTrack) else None


def _read_apart(found: Section, entries: tuple[Entry, Entry]) -> Apart:
    """Of all seeds: right is who reads a face rightly with most of them."""
    of: list[list[Predictions]] = [list(found.data_of(entry)) for entry in entries]
    faces = of[0][0].faces
    labels = faces["label"].to_numpy(np.int64)
    read = [np.stack([each.faces["prediction"].to_numpy(np.int64) for each in side]) for side in of]  # (S, N)
    right = [(side == labels).mean(0) for side in read]
    names = [f"p_{emotion}" for emotion in found.emotions]
    sure = [np.mean([each.faces[names].to_numpy(np.float64).max(1) for each in side], 0) for side in of]
    chosen, more = [], []
    for mine in (0, 1):
        wrong = 1 - mine
        lead = right[mine] - right[wrong]
        places = np.flatnonzero(lead > 0.5)
        order = places[np.lexsort((places, -sure[wrong][places], -lead[places]))]
        chosen.append([_face(found, faces, place, read) for place in order[:LISTED].tolist()])
        more.append(max(0, len(order) - LISTED))
    seeds = tuple(entry.seeds for entry in entries)
    return Apart(
        "test faces", len(labels), _counts(*right), chosen[0], chosen[1], (more[0], more[1]), (seeds[0], seeds[1])
    )


def _face(found: Section, faces: Any, place: int, read: Sequence[NDArray[np.int64]]) -> Face:
    shown = found.emotions[int(faces["label"].iloc[place])]
    said = [judgement(side[:, place], found.emotions) for side in read]
    return Face(int(faces["index"].iloc[place]), str(faces["id"].iloc[place]), shown, said[0], said[1])


def judgement(read: NDArray[np.int64], emotions: Sequence[str]) -> str:
    """What most of some judges or seeds (J,) read; of emotions that as many of them read, all."""
    counts = {emotion: int((read == k).sum()) for k, emotion in enumerate(emotions)}
    counts[_NO_EMOTION] = int((read < 0).sum())
    return " or ".join(name for name, count in counts.items() if count == max(counts.values()))


def _counts(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Faces that both are right about, one alone, the other alone, and neither, from how often each is right."""
    both = one * other, one * (1 - other), (1 - one) * other, (1 - one) * (1 - other)
    first, second, third, fourth = (float(each.sum()) for each in both)
    return first, second, third, fourth


def _judged_apart(found: Section, entries: tuple[Entry, Entry]) -> Apart | None:
    """Of each row's first seed: right is what more than half of the judges read as it was asked for."""
    assert isinstance(found.track, PanelTrack)
    kind = found.track.judged
    data = [found.data_of(entry)[0] for entry in entries]
    tables = [asked_table(each, kind) for each in data]
    if tables[0] is None or tables[1] is None:
        return None
    common = sorted({*tables[0].index} & {*tables[1].index})
    if not common:
        return None
    names = [f"read_{place}" for place in range(len(data[0].judges))]
    read = [table.loc[common, names].to_numpy(np.int64).T for table in tables if table is not None]  # (J, N)
    asked = np.array([each for _, each in common])
    share = [(side == asked).mean(0) for side in read]
    right = [(side > 0.5).astype(float) for side in share]
    lines = lines_of(data[0], kind, common)
    chosen, more = [], []
    for mine in (0, 1):
        lead = share[mine] - share[1 - mine]
        places = np.flatnonzero(right[mine] > right[1 - mine])
        shown = np.array([line[0] >= 0 for line in lines])
        order = places[np.lexsort((places, ~shown[places], -lead[places]))].tolist()
        picked = [
            Face(
                int(common[place][0]) + (kind == "control"), "", found.emotions[asked[place]],
                judgement(read[0][:, place], found.emotions), judgement(read[1][:, place], found.emotions),
                place=(lines[place][0], lines[place][1]) if lines[place][0] >= 0 else None,
            )
            for place in order[:LISTED]
        ]  # fmt: skip
        chosen.append(picked)
        more.append(max(0, len(order) - LISTED))
    what = {"control": "requests", "editing": "edits"}.get(kind, "faces")
    seeds = [entry.seeds[:1] for entry in entries]
    return Apart(what, len(common), _counts(*right), chosen[0], chosen[1], (more[0], more[1]), (seeds[0], seeds[1]))


# What is said of them


_P = (
    "p of the first figure is that of this pair; in the rest of its table, and in each further one, it is corrected "
    "(Holm) over the lines."
)


def blocks(found: Compared, picture: str | None, listed: int = LISTED) -> list[Block]:
    """The comparison in words and tables.

    Args:
        picture: the file of the faces, beside the page; None: there is none.
        listed: faces of each side.
    """
    one, other = (entry.name for entry in found.entries)
    units, unit = found.entries[0].units
    title: Text = (f"{found.section.track.name.capitalize()} on ", Name(found.section.dataset))
    which = [f" of seed{'s' * (len(each.seeds) > 1)} {', '.join(map(str, each.seeds))}" for each in found.entries]
    about: Text = (f"{found.section.size} px; ", Name(one), f"{which[0]}, ", Name(other), f"{which[1]}. ")
    about = (*about, f"Intervals are 95 %, over {units:,} {unit}; a difference is the first minus the second. {_P}")
    said: list[Block] = [Heading(2, title), *(Warning((Name(note),)) for note in found.notes), Paragraph(about)]
    said += [Bullets([text for each in found.figures[:1] for text in _verdict(found, each)])]
    header: list[Text] = [(Name(one),), (Name(other),), ("difference",), ("p",)]  # the first minus the second
    figures = {_heading(found.section, each.key): each for each in (*found.figures, *found.samples)}
    known = {heading: each for heading, each in figures.items() if not _unknown(each)}
    said.append(Table([("figure",), *header], [_line(each, heading) for heading, each in known.items()]))
    said += _whys(figures)
    for metric, heading in found.section.track.by_emotion:
        if metric in found.emotions:
            of = {each.key.emotion: each for each in found.emotions[metric]}
            rows = [_with_n(_line(each, emotion), each) for emotion, each in of.items()]
            said += [Table([(f"{heading}, by emotion",), ("n",), *header], rows), *_whys(of)]
    return [*said, *_slices(found, header), *_faces(found, picture, listed)]


def _verdict(found: Compared, difference: Difference) -> Iterator[Text]:
    """Whether the two can be told apart by the figure by which the track ranks, and what could have been."""
    one, other = (Name(entry.name) for entry in found.entries)
    pair, metric = difference.pair, _heading(found.section, difference.key)
    if pair is None or difference.gap is None:
        yield (f"{metric}: ", one, " ", Score(difference.first), ", ", other, " ", Score(difference.second))
        return
    better, worse = (one, other) if pair.difference >= 0 else (other, one)
    if not pair.certain:
        told: Text = (one, " and ", other, f" cannot be told apart by {metric}")
    else:
        told = (Strong(better), " is better than ", worse, f" by {metric}")
    whose = "" if pair.seeds_known else "; of these trained networks, which says nothing of other seeds"
    yield (*told, ": difference ", pair, f", {probability(pair.p)}{whose}.")
    if pair.low is not None and pair.high is not None and pair.high > pair.low:
        least = power.FOUND * power.standard_error(pair.high - pair.low)
        what = "These faces and seeds" if pair.seeds_known else "These faces"
        yield (f"{what} could have shown a difference from {least:.3f} on (80 % power at 5 %).",)
    for entry in few_seeds(found.entries):
        spread = moved(found.section, entry, difference.key)
        known = "is not known" if spread is None else f"is about {spread.said}{f' on {spread.on}' if spread.on else ''}"
        yield ("How far another training moves ", Name(entry.name), f" {known}.")


def _heading(of: Section, key: Key) -> str:
    """What a board calls a figure."""
    named = {column.key: column.heading for column in of.track.columns if column.shows == "number"}
    return named.get(key, key.metric.replace("_", " "))


def _unknown(each: Difference) -> bool:
    """Whether neither row has a value."""
    return each.first.value is None and each.second.value is None


def _whys(of: Mapping[str, Difference]) -> Iterator[Block]:
    """Why figures have no value or no interval, each reason once below its table."""
    reasons: dict[str, list[str]] = {}
    for heading, each in of.items():
        if each.pair is None and each.why:
            reasons.setdefault(each.why, []).append(heading)
    if reasons:
        yield Bullets([(f"{', '.join(headings)}: ", Name(why), ".") for why, headings in reasons.items()])


def _line(each: Difference, what: str) -> list[Text]:
    if each.pair is not None:
        gap: Text = (each.pair,)
    else:
        gap = ("n/a" if each.gap is None else signed(each.gap),)
    p: Text = ("",) if each.pair is None else (_p(each.pair),)
    numbers = [("n/a",) if number.value is None else (Score(number),) for number in (each.first, each.second)]
    return [(Name(what),), *numbers, gap, p]


def _p(pair: Comparison) -> str:
    shown = "< 0.001" if pair.p < 0.001 else f"{pair.p:.3f}"
    return f"**{shown}**" if pair.certain else shown


def _with_n(line: Sequence[Text], each: Difference) -> list[Text]:
    return [line[0], (f"{each.first.n or 0:,}",), *line[1:]]


def _slices(found: Compared, header: Sequence[Text]) -> Iterator[Block]:
    if found.no_slices is not None:
        yield Paragraph(("By slice: ", Name(found.no_slices), "."))
    for metric, of in itertools.groupby(found.by_slice, lambda each: each.metric):
        rows = [[(Name(each.group.attribute),), (Name(each.group.name),), *_on_slice(each)] for each in of]
        yield Table([(f"{HEADINGS[metric]}, by slice",), ("",), ("n",), *header], rows, left=(0, 1))


def _on_slice(each: slices.Apart) -> list[Text]:
    if each.pair is None or each.first is None or each.second is None:
        return [(f"{each.group.n:,}",), ("n/a",), ("n/a",), (Name(each.group.why),), ("",)]
    return [(f"{each.group.n:,}",), (signed(each.first),), (signed(each.second),), (each.pair,), (_p(each.pair),)]


def _faces(found: Compared, picture: str | None, listed: int) -> Iterator[Block]:
    """How often the two disagree, and on which faces."""
    apart = found.apart
    if apart is None:
        return
    one, other = (Name(entry.name) for entry in found.entries)
    both, first, second, neither = (f"{count:,.0f}" for count in apart.counts)
    several = "" if max(map(len, apart.seeds)) < 2 else " (a mean over all pairs of their seeds)"
    yield Heading(3, ("Faces on which they disagree",))
    yield Paragraph(
        (
            f"Of {apart.n:,} {apart.what} both are right about {both}, only ", one, f" about {first}, only ", other,
            f" about {second}, neither about {neither}{several}.",
        )
    )  # fmt: skip
    if picture is not None:
        yield Picture(picture, ("faces on which ", one, " and ", other, " disagree"))
    for mine, faces, left_out in ((one, apart.only_first, apart.more[0]), (other, apart.only_second, apart.more[1])):
        more = left_out + max(0, len(faces) - listed)
        if faces:
            rows: list[list[Text]] = [
                [
                    (f"{face.number}",),
                    (Name(face.name),),
                    (Name(face.shown),),
                    (Name(face.first),),
                    (Name(face.second),),
                ]
                for face in faces[:listed]
            ]
            what: Text = ("row",) if apart.what != "requests" else ("request",)
            asked: Text = ("shows",) if apart.what == "test faces" else ("asked for",)
            yield Paragraph(("Only ", mine, " is right", *((f", and about {more:,} more",) if more else ()), ":"))
            yield Table([what, ("face",), asked, (one,), (other,)], rows, left=(1, 2, 3, 4))


# As values


def plain(found: Compared) -> dict[str, Any]:
    """The comparison as JSON holds it."""
    return {
        "track": found.section.track.name,
        "dataset": found.section.dataset,
        "size": found.section.size,
        "rows": [{"name": entry.name, "seeds": entry.seeds, "flags": entry.flags} for entry in found.entries],
        "units": dict(zip(("count", "unit"), found.entries[0].units, strict=True)),
        "notes": list(found.notes),
        "figures": [_plain(each) for each in (*found.figures, *found.samples)],
        "emotions": [_plain(each) for of in found.emotions.values() for each in of],
        "slices": [
            {
                "attribute": each.group.attribute, "slice": each.group.name, "n": each.group.n,
                "units": each.group.units, "metric": each.metric, "first": each.first, "second": each.second,
                **({"reason": each.group.why} if each.pair is None else _pair(each.pair)),
            }
            for each in found.by_slice
        ],
        "slices_reason": found.no_slices,
        "disagreements": None if found.apart is None else asdict(found.apart),
    }  # fmt: skip


def _plain(each: Difference) -> dict[str, Any]:
    ends = {
        name: {"value": number.value, "low": number.low, "high": number.high, "n": number.n, "reason": number.reason}
        for name, number in (("first", each.first), ("second", each.second))
    }
    of = {"difference": each.gap, "low": None, "high": None, "p": None} if each.pair is None else _pair(each.pair)
    return {"metric": each.key.metric, "emotion": each.key.emotion, **ends, **of, "reason": each.why or None}


def _pair(pair: Comparison) -> dict[str, Any]:
    return {
        "difference": pair.difference, "low": pair.low, "high": pair.high, "p": pair.p, "certain": pair.certain,
        "seeds_known": pair.seeds_known,
    }  # fmt: skip
