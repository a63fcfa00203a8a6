"""A page for a terminal: tables with aligned columns, and no foreign name that could steer it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text as Line

from emobench.errors import printable_name
from emobench.evaluation.tracks.track import Name
from emobench.metrics.intervals import Comparison
from emobench.report.markdown import one_line
from emobench.report.page import (
    Block,
    Bullets,
    Code,
    Cost,
    Gallery,
    Heading,
    Link,
    Paragraph,
    Part,
    Picture,
    Rank,
    Score,
    Strong,
    Table,
    Text,
    Warning,
)
from emobench.report.readable import cost, gap, rank, score

_EMPHASIS = re.compile(r"\*\*(.+?)\*\*|`([^`]+)`")


def show(blocks: Sequence[Block]) -> None:
    """Print blocks; pictures by the names of their files."""
    console = Console(highlight=False, soft_wrap=True)
    for block in blocks:
        match block:
            case Heading(level, text):
                console.print(Line(f"\n{written(text)}", style="bold" if level < 3 else "underline"))
            case Paragraph(text):
                console.print(Line(written(text)))
            case Warning(text):
                console.print(Line(f"! {written(text)}", style="bold"))
            case Bullets(items):
                for item in items:
                    console.print(Line(f"- {written(item)}"))
            case Table():
                heading, *lines = _lines(block)
                console.print(Line(f"\n{heading}", style="bold"))
                console.print(Line("\n".join(lines)))
            case Picture(path, _, _):
                console.print(Line(printable_name(path)))
            case Gallery(pictures, _):
                for each in pictures:
                    console.print(Line(printable_name(each.path)))


def _lines(table: Table) -> Iterator[str]:
    """A table, two blanks between its columns; a terminal that is too narrow breaks lines, and no number is cut."""
    cells = [[written(text) for text in line] for line in (table.header, *table.rows)]
    wide = [max(cell_len(cell) for cell in column) for column in zip(*cells, strict=True)]
    words = [place in table.left or place - len(wide) in table.left for place in range(len(wide))]
    for line in cells:
        blanks = [" " * (width - cell_len(cell)) for cell, width in zip(line, wide, strict=True)]
        parts = [
            f"{cell}{blank}" if left else f"{blank}{cell}"
            for cell, blank, left in zip(line, blanks, words, strict=True)
        ]
        yield "  ".join(parts).rstrip()


def written(text: Text) -> str:
    """A text in one line."""
    return "".join(_part(part) for part in text)


def _part(part: Part) -> str:
    match part:
        case str():
            return _EMPHASIS.sub(lambda match: match[1] or match[2], part)
        case Name(text) | Code(text):
            return printable_name(one_line(text))
        case Link(path, text):
            return printable_name(one_line(path if text is None else text))
        case Strong(inner):
            return _part(inner)
        case Score(number, bare):
            missing = number is None or number.value is None
            return "n/a" if bare and missing else score(number, one_line)
        case Cost(number):
            return cost(number, one_line)
        case Rank(places, order_only):
            return rank(places, order_only)
        case Comparison():
            return gap(part)
    raise TypeError(f"no way to write {part!r}")
