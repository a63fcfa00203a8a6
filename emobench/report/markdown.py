"""A page as Markdown, and CSV cells, that foreign names cannot break out of."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence

from emobench.evaluation.tracks.track import Name
from emobench.metrics.intervals import Comparison
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
from emobench.report.readable import address, cost, gap, rank, score

# A backslash before these makes them text in every Markdown; the underscore inside a word is text already.
_ACTIVE = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# What readers turn into links by themselves.
_LINK = re.compile(r"(?i):/(?=/)|www(?=\.)|(?:mailto|xmpp|javascript)(?=:)")
_BLOCK = re.compile(r"^(\d*)(?=[.)#+=-])")  # a list, a heading or a rule, where the text begins a line


def escape(text: object) -> str:
    """Any text as one line of Markdown that shows it and does nothing: no markup, link, HTML or table cell.

    >>> escape("a|b <script> [x](javascript:y)")
    'a\\\\|b &lt;script&gt; \\\\[x\\\\](javascript\\\\:y)'
    """
    line = one_line(text)
    line = _ACTIVE.sub(r"\\\1", line)
    line = re.sub("[&<>]", lambda match: _ENTITIES[match[0]], line)
    line = _LINK.sub(lambda match: f"{match[0]}\\", line)
    return _BLOCK.sub(r"\1\\", line)


def code(text: object) -> str:
    """Any text as a code span; what could end it, a table's cell or a tag is shown by a like character."""
    return "`" + one_line(text).translate(str.maketrans("`|<>", "'¦‹›")) + "`"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """A table of cells that are Markdown already; the `left` columns (−1: the last) are aligned left, others right."""
    width = len(header)
    line = ["---" if column in left or column - width in left else "--:" for column in range(width)]
    return [f"| {' | '.join(cells)} |" for cells in (header, line, *rows)]


def csv_cell(value: object) -> str:
    """A number as it is; a text on one line, and never a formula to a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.7g}"
    if not isinstance(value, str):
        return str(value)
    return _csv_text(value)


@functools.lru_cache(maxsize=4096)  # names and reasons stand in many rows
def _csv_text(text: str) -> str:
    line = one_line(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def one_line(text: object) -> str:
    """Printable characters on one line; also without the marks that turn the direction of text."""
    kept = str(text)
    if not kept.isprintable():
        kept = "".join(each if each.isprintable() else " " for each in kept)
    return " ".join(kept.split())


# A page


def markdown(blocks: Sequence[Block]) -> str:
    """The page as one Markdown file."""
    lines: list[str] = []
    for block in blocks:
        lines += [*_block(block), ""]
    return "\n".join(lines[:-1]) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(level, text):
            yield f"{'#' * level} {written(text)}"
        case Paragraph(text):
            yield written(text)
        case Warning(text):
            yield f"> {written(text)}"
        case Bullets(items):
            yield from (f"- {written(item)}" for item in items)
        case Table(header, rows, left):
            yield from table(
                [written(cell) for cell in header],
                [[_unbroken(written(cell)) for cell in row] for row in rows],
                left,
            )
        case Picture(path, shows, caption):
            if caption:
                yield from (written(caption), "")
            yield f"![{written(shows)}]({address(path)})"
        case Gallery(pictures, across):
            shown = [f"![{written(each.shows)}]({address(each.path)})" for each in pictures]
            width = min(across, len(shown))
            lines = [shown[start : start + across] for start in range(0, len(shown), across)]
            yield from table([" "] * width, [[*line, *[""] * (width - len(line))] for line in lines], range(width))


def _unbroken(cell: str) -> str:
    """A number and its interval stay on one line of a cell: neither the blank nor the dash between them breaks it."""
    cell = re.sub(r"(?<=\d) \((?=[−\d])", "\u00a0(", cell)
    return re.sub(r"(\(−?[\d.,]+)–(?=[−\d])", "\\1–\u2060", cell)


def written(text: Text) -> str:
    """A text in one line."""
    return "".join(_part(part) for part in text)


def _part(part: Part) -> str:
    match part:
        case str():
            return part
        case Name(text):
            return escape(text)
        case Code(text):
            return code(text)
        case Link(path, text):
            return f"[{code(path) if text is None else escape(text)}]({address(path)})"
        case Strong(inner):
            return f"**{_part(inner)}**"
        case Score(number, bare):
            missing = number is not None and number.value is None
            return "n/a" if bare and (missing or number is None) else score(number, escape)
        case Cost(number):
            return cost(number, escape)
        case Rank(places, order_only):
            return rank(places, order_only)
        case Comparison():
            return gap(part)
    raise TypeError(f"no way to write {part!r}")
