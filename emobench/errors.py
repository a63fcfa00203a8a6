"""Every error that a user can meet. The message says what was found, where, and what to do next.

EmobenchError
├── SuiteError            a suite file, an override or a name in it is wrong
│   └── Unsaid            what decides an outside model's answers is said nowhere
├── DatasetError          a dataset is missing, malformed or unusable
│   ├── DatasetMissing    it is not there: says what is expected, or which archive to unpack
│   └── RowError          one row or file of it is wrong: names the file, the row and the column
├── WeightsError          a weight file is missing, unreadable or not what its name says
├── SizeError             an image size that the architecture cannot take
├── StoreError            the results folder cannot be used
├── RawError              raw results of a cell are missing, broken or implausible
├── Diverged              a loss became NaN or infinite: the cell's state, not ranked
├── NotFinite             an output of a finished model is NaN or infinite
└── NotExplained          a classifier of which no map can be made: says why

Interrupted               a signal asked the cell to stop: no error, so that nothing passes it over as one
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path

_STRANGE = re.compile("[\udc80-\udcff]")  # bytes of a name that is no UTF-8, as Python hands them over (PEP 383)
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
# What moves a terminal's cursor, colours it or turns the direction of its text, a line's end and a tab aside.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def shown(name: object) -> str:
    """A file's name, or a text that holds one, with each byte that is no UTF-8 as `\\xe9`: it can always be written.

    >>> shown("caf\\udce9.png")
    'caf\\\\xe9.png'
    """
    return _STRANGE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", str(name))


def printable(text: object) -> str:
    r"""A text that may hold foreign names, for a terminal: what would steer it is shown as an escape, and does nothing.

    >>> printable("a\x1b[2Jb.png")
    'a\\x1b[2Jb.png'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), shown(text))


def printable_name(name: object) -> str:
    """Likewise a name alone, which stays on one line."""
    return printable(name).replace("\n", r"\n")


def first_line(error: BaseException) -> str:
    """What a library's error says first, at most 300 characters; its kind, where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__).strip()[:300]


def to_text(name: str) -> str:
    """As `shown`, such that `from_text` gives the very name back; almost all names stay as they are."""
    return shown(_ESCAPED.sub(r"\\x5cx\1", name))


def from_text(text: str) -> str:
    """The name of a file behind what `to_text` made of it.

    >>> from_text(to_text("caf\\udce9.png")) == "caf\\udce9.png"
    True
    """
    return _ESCAPED.sub(lambda code: "\\" if code[1] == "5c" else chr(0xDC00 + int(code[1], 16)), text)


class EmobenchError(Exception):
    """Base of all errors that emobench raises on purpose; `str(error)` is meant for the user, and can be printed."""

    def __str__(self) -> str:
        return printable(super().__str__())


class SuiteError(EmobenchError):
    """A suite file, an override or a name in it is wrong."""


class Unsaid(SuiteError):
    """What decides an outside model's answers is said nowhere.

    Attributes:
        lacking: the names of what is not said.
        row, data: of whom and on what, for whoever may try the usual; None: not known yet.
    """

    def __init__(self, message: str, lacking: list[str]) -> None:
        super().__init__(message)
        self.lacking = lacking
        self.row: object = None
        self.data: object = None

    def about(self, where: str, row: object, data: object) -> Unsaid:
        """The same of a row on a dataset."""
        found = Unsaid(f"{where}: {self}", self.lacking)
        found.row, found.data = row, data
        return found


class DatasetError(EmobenchError):
    """A dataset is missing, malformed or unusable."""


class DatasetMissing(DatasetError):
    """A dataset is not there; a suite may say that this is no error."""


class RowError(DatasetError):
    """One row of a label file, or one image file, is wrong.

    Args:
        file: the file that holds the row.
        row: its number as an editor shows it (the header is line 1), None for a whole file.
        column: the column's name or what stands in it, None where the whole row is meant.
        found: what stands there.
        remedy: what to do next.
    """

    def __init__(self, file: Path | str, row: int | None, column: str | None, found: str, remedy: str) -> None:
        self.file, self.row, self.column, self.found, self.remedy = Path(file), row, column, found, remedy
        place = (
            str(file).replace("\n", r"\n")
            + (f", row {row}" if row is not None else "")
            + (f", {column}" if column else "")
        )
        super().__init__(f"{place}: {found}. {remedy}")


class WeightsError(EmobenchError):
    """A weight file is missing, unreadable or not what its name says."""


class SizeError(EmobenchError):
    """An image size that the architecture cannot take; the message names the sizes that it can."""


class StoreError(EmobenchError):
    """The results folder cannot be used."""


class RawError(EmobenchError):
    """The raw results of a cell are missing, broken or implausible.

    Args:
        path: of the file.
        found: what is wrong with it.
    """

    def __init__(self, path: Path, found: str) -> None:
        self.found = found
        super().__init__(
            f"{path}: {found}. Delete the result.json beside it and run the suite again: the cell is then measured "
            "anew."
        )


class Diverged(EmobenchError):
    """A loss became NaN or infinite."""


class NotFinite(EmobenchError):
    """An output of a finished model is NaN or infinite; the message names the sample's index.

    Args:
        index: of the sample among those that were asked for together, where it is known.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        self.index = index
        super().__init__(message)


class NotExplained(EmobenchError):
    """A classifier of which no map can be made that says where it looks; the message says why."""


class Interrupted(BaseException):
    """A signal asked the cell to stop; `signal` is its number.

    It comes in the middle of anything. What passes over any error of an import or a decoder would take it for one of
    those: the cell went on, and its face or its model was left out.
    """

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(f"stopped by signal {signal}; run the same command again to go on")


def unknown(kind: str, name: str, known: Iterable[str], words: Iterable[str] | None = None) -> str:
    """The sentence for an unknown name: the nearest right one first, then all.

    Args:
        words: among which the nearest is looked for, such as other spellings; None: `known`.

    >>> unknown("model", "resnet81", ["resnet18", "vit"])
    "unknown model 'resnet81': did you mean 'resnet18'? Known: resnet18, vit"
    """
    known = sorted(known)
    near = guess(name, known if words is None else words)
    return f"unknown {kind} '{name}'{f': {near}' if near else '.'} Known: {', '.join(known) or 'none'}"


def guess(name: str, words: Iterable[str]) -> str:
    """The question for the word that is nearest to a name; "" where none is near."""
    near = nearest(name, words)
    return "" if near is None else f"did you mean '{near}'?"


def nearest(name: str, words: Iterable[str]) -> str | None:
    """The other word that is nearest to a name; None where none is near."""
    near = [each for each in difflib.get_close_matches(name, list(words), n=2) if each != name]
    return near[0] if near else None


WRITE_REMEDIES = {  # what to do where a file cannot be written
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EACCES: "Ask its owner for the right to write there (`chmod -R g+w` for a group)",
    errno.EPERM: "Ask its owner for the right to write there (`chmod -R g+w` for a group)",
    errno.EROFS: "Make it writable",
}
