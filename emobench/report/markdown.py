"""Markdown and CSV that foreign names cannot break out of."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

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
    line = one_line(value)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def one_line(text: object) -> str:
    """Printable characters on one line; also without the marks that turn the direction of text."""
    kept = "".join(each if each.isprintable() else " " for each in str(text))
    return " ".join(kept.split())
