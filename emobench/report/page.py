"""What a report says, as values: headings, sentences, tables and pictures, apart from how they are written.

Texts are sequences of parts. A plain string is a sentence of ours and may hold Markdown's emphasis; whatever comes from
a suite, a dataset or a file is a `Name` or `Code`, which a writer shows as it is and never runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from emobench.evaluation.tracks.track import Name
from emobench.metrics.intervals import Comparison
from emobench.report.board import Number


@dataclass(frozen=True)
class Code:
    """A name or command as code."""

    text: object


@dataclass(frozen=True)
class Link:
    """A file beside the page, by its path from the board's folder; None: shown by its path."""

    path: str
    text: str | None = None


@dataclass(frozen=True)
class Strong:
    """An emphasised part."""

    part: Part


@dataclass(frozen=True)
class Score:
    """A number with its interval; None: not measured. `bare`: 'n/a' alone where there is no value."""

    number: Number | None
    bare: bool = False


@dataclass(frozen=True)
class Cost:
    """A count, a time or a speed."""

    number: Number


@dataclass(frozen=True)
class Rank:
    """The best and worst possible rank of a row; None: not ranked. `order_only`: a place that is no rank."""

    places: tuple[int, int] | None
    order_only: bool = False


Part = str | Name | Code | Link | Strong | Score | Cost | Rank | Comparison
Text = tuple[Part, ...]


@dataclass(frozen=True)
class Heading:
    level: int  # 1: the page's title
    text: Text


@dataclass(frozen=True)
class Paragraph:
    text: Text


@dataclass(frozen=True)
class Warning:
    """What must be read first."""

    text: Text


@dataclass(frozen=True)
class Bullets:
    items: Sequence[Text]


@dataclass(frozen=True)
class Table:
    """A table of values.

    Attributes:
        header: a text a column.
        rows: a text a cell.
        left: the columns that hold words (−1: the last); the others hold numbers.
    """

    header: Sequence[Text]
    rows: Sequence[Sequence[Text]]
    left: Collection[int] = (0,)


@dataclass(frozen=True)
class Picture:
    path: str  # from the board's folder
    shows: Text  # for those who cannot see it
    caption: Text = ()


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    pictures: Sequence[Picture]
    across: int = 3


Block = Heading | Paragraph | Warning | Bullets | Table | Picture | Gallery


def joined(parts: Iterable[Part]) -> Text:
    """a, b and c"""
    given = list(parts)
    said: Text = ()
    for place, part in enumerate(given):
        between = "" if place == 0 else " and " if place == len(given) - 1 else ", "
        said = (*said, *([between] if between else []), part)
    return said
