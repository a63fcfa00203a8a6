"""Texts and tables as HTML. markupsafe escapes every foreign name; nothing but the tags written here becomes markup."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup, escape

from emobench.evaluation.tracks.track import Name
from emobench.metrics.intervals import Comparison
from emobench.report.board import Entry, Number, key_of
from emobench.report.markdown import one_line
from emobench.report.page import (
    Block,
    Bullets,
    Code,
    Cost,
    Heading,
    Link,
    Paragraph,
    Part,
    Rank,
    Score,
    Strong,
    Table,
    Text,
    Warning,
)
from emobench.report.readable import address, cost, gap, rank, score, shown_value, signed

# What sentences of ours hold of Markdown's emphasis.
_EMPHASIS = re.compile(r"\*\*(?P<strong>.+?)\*\*|(?<!\w)\*(?P<em>[^*]+)\*(?!\w)|`(?P<code>[^`]+)`")


def written(text: Text, folder: str = "") -> Markup:
    """A text as inline HTML; `folder`: from the page to the board that its links are relative to."""
    return Markup().join(_part(part, folder) for part in text)


def _part(part: Part, folder: str) -> Markup:
    match part:
        case str():
            return _emphasised(part)
        case Name(text):
            return Markup("<bdi>{}</bdi>").format(one_line(text))
        case Code(text):
            return Markup("<code>{}</code>").format(one_line(text))
        case Link(path, text):
            shown = Markup("<code>{}</code>").format(path) if text is None else escape(one_line(text))
            return Markup('<a href="{}">{}</a>').format(f"./{address(folder + path)}", shown)
        case Strong(inner):
            return Markup("<strong>{}</strong>").format(_part(inner, folder))
        case Score(number, bare):
            missing = number is None or number.value is None
            return escape("n/a" if bare and missing else score(number, one_line))
        case Cost(number):
            return escape(cost(number, one_line))
        case Rank(places, order_only):
            return escape(rank(places, order_only))
        case Comparison():
            return escape(gap(part))
    raise TypeError(f"no way to write {part!r}")


def answer(text: Text, folder: str = "") -> tuple[Markup, Markup]:
    """A verdict as what it says first, and the rest, which says how far that can be believed."""
    for place, part in enumerate(text):
        if isinstance(part, str) and (cut := part.find("; ")) >= 0:
            head, tail = (*text[:place], part[:cut]), (part[cut:], *text[place + 1 :])
            return written(head, folder), written(tail, folder)
    return written(text, folder), Markup()


def _emphasised(text: str) -> Markup:
    found, start = Markup(), 0
    for match in _EMPHASIS.finditer(text):
        tag = match.lastgroup or "em"
        found += text[start : match.start()]  # escaped as it is added
        found += Markup("<{tag}>{inner}</{tag}>").format(tag=Markup(tag), inner=match[tag])
        start = match.end()
    return found + text[start:]


# Tables

_NOTHING = Markup()
_LINE = 48  # characters that stand on one line of a cell


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: by which it is sorted; None: there is none, and it comes last.
        more: what is shown on demand: its interval, the faces behind it, and so on.
        spark: where its point and interval lie on the column's scale, 0 to 1: low, value, high; None: not drawn.
        word: whether it holds words, and no number.
        heads: whether it names its row.
    """

    shown: Markup
    value: float | str | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    spark: tuple[float, float, float] | None = None
    word: bool = False
    heads: bool = False

    @property
    def long(self) -> bool:
        """Whether it takes several lines."""
        return len(self.shown.striptags()) > _LINE


@dataclass(frozen=True)
class Row:
    """A line of a table, with what it can be filtered by."""

    cells: Sequence[Cell]
    facets: Mapping[str, str] = field(default_factory=dict)
    control: bool = False


@dataclass(frozen=True)
class Grid:
    """A table as the page holds it; `words`: the columns that hold words."""

    header: Sequence[Markup]
    rows: Sequence[Row]
    words: Sequence[bool]


def grid(
    table: Table,
    folder: str = "",
    *,
    facets: Callable[[str], Mapping[str, str]] = lambda name: {},
    entries: Mapping[str, Entry] | None = None,
    spark: int | None = None,
) -> Grid:
    """A table with numbers that say more on demand.

    Args:
        facets: of a row by its name, by which it can be filtered.
        entries: rows by name, whose seeds are shown with their numbers; None: not shown.
        spark: the column whose intervals are drawn.
    """
    width = len(table.header)
    words = [column in table.left or column - width in table.left for column in range(width)]
    rows = []
    for line in table.rows:
        head = next((column for column, text in enumerate(line) if any(isinstance(part, Name) for part in text)), None)
        name = "" if head is None else str(next(part.text for part in line[head] if isinstance(part, Name)))
        entry = (entries or {}).get(name)
        cells = [_cell(text, folder, words[column], column == head, entry) for column, text in enumerate(line)]
        rows.append(Row(cells, facets(name), name.startswith("control:")))
    if spark is not None:
        rows = _sparks(rows, table, spark)
    return Grid([written(text, folder) for text in table.header], rows, words)


def _cell(text: Text, folder: str, word: bool, heads: bool, entry: Entry | None) -> Cell:
    """One part alone is a number that can say more; several are a text."""
    match text:
        case (Score(number, _),) if number is not None:
            more = {"interval": "", **_more(number, entry)}
            shown = "n/a" if number.value is None else shown_value(number)
            return Cell(escape(shown), number.value, _said(more), word=word, heads=heads)
        case (Cost(number),):
            shown = "n/a" if number.value is None else cost(number)
            more = {"hardware": number.hardware, "why": number.reason or ""}
            return Cell(escape(shown), number.value, _said(more), word=word)
        case (Comparison() as pair,):
            return Cell(escape(signed(pair.difference)), pair.difference, _said(_of_pair(pair)), word=word)
        case (Rank(places, _),):
            return Cell(written(text), None if places is None else places[0] + places[1] / 1000, word=word)
    numbers = [part.number.value for part in text if isinstance(part, Score) and part.number is not None]
    plain = written(text, folder)
    value = numbers[0] if numbers else _sorted_by(plain.striptags())
    return Cell(plain, value, word=word, heads=heads)


def _sorted_by(text: str) -> float | str | None:
    """A cell without a number of its own is sorted as the number that it reads as, else as text."""
    try:
        return float(text.replace("−", "-").replace(",", ""))
    except ValueError:
        return text.lower() if text and text not in ("–", "n/a") else None


def _more(number: Number, entry: Entry | None) -> dict[str, str]:
    more: dict[str, str] = {}
    if number.low is not None and number.high is not None:
        more["interval"] = f"{shown_value(number, number.low)} to {shown_value(number, number.high)}"
    if number.n is not None:
        more["n"] = f"{number.n:,} faces"
    if entry is not None and len(entry.seeds) > 1:
        each = [one for one in entry.single if key_of(one) == key_of(number) and one.value is not None]
        more["seeds"] = ", ".join(f"{shown_value(one)} (seed {one.seed})" for one in each)
    return {**more, "why": number.reason or ""}


def _of_pair(pair: Comparison) -> dict[str, str]:
    """What the comparison behind a difference says."""
    low = "no interval: too few faces to resample"
    if pair.low is not None and pair.high is not None:
        low = f"{signed(pair.low)} to {signed(pair.high)}"
    near = "borderline: p is too near 5 % for the resamples to tell its side"
    told = "certain" if pair.certain else near if pair.borderline else "not told apart"
    whose = "" if pair.seeds_known else "; of these trained networks only"
    return {"interval": low, "p": f"{'< 0.001' if pair.p < 0.001 else f'{pair.p:.3f}'} (Holm)", "why": told + whose}


def _said(more: Mapping[str, str]) -> dict[str, str]:
    return {name: one_line(text) for name, text in more.items() if text}


def _sparks(rows: Sequence[Row], table: Table, column: int) -> list[Row]:
    """The rows, the numbers of a column drawn on the scale of the models; of controls those that lie on it."""
    numbers = [next((part.number for part in line[column] if isinstance(part, Score)), None) for line in table.rows]
    drawn = [None if number is None or number.value is None else _ends(number) for number in numbers]
    of_models = [end for row, ends in zip(rows, drawn, strict=True) if ends and not row.control for end in ends]
    low, high = min(of_models, default=0.0), max(of_models, default=0.0)
    found = []
    for row, ends in zip(rows, drawn, strict=True):
        if ends is not None and high > low and low <= ends[0] and ends[2] <= high:
            first, middle, last = ((end - low) / (high - low) for end in ends)
            cells = list(row.cells)
            cells[column] = replace(cells[column], spark=(first, middle, last))
            row = replace(row, cells=cells)
        found.append(row)
    return found


def _ends(number: Number) -> tuple[float, float, float]:
    """The lower end, the value and the upper end of a number that has a value."""
    value = number.value or 0.0
    return value if number.low is None else number.low, value, value if number.high is None else number.high


# Blocks


@dataclass(frozen=True)
class Said:
    """A block without pictures: what a template needs to know to write it."""

    kind: str  # "heading", "paragraph", "warning", "bullets" or "table"
    text: Markup = _NOTHING
    items: Sequence[Markup] = ()
    table: Grid | None = None


def said(blocks: Sequence[Block], folder: str = "") -> Iterator[Said]:
    """What blocks say; pictures, which the page draws for itself, are left out."""
    for block in blocks:
        match block:
            case Heading(_, text):
                yield Said("heading", written(text, folder))
            case Paragraph(text):
                yield Said("paragraph", written(text, folder))
            case Warning(text):
                yield Said("warning", written(text, folder))
            case Bullets(items):
                yield Said("bullets", items=[written(item, folder) for item in items])
            case Table():
                yield Said("table", table=grid(block, folder))
