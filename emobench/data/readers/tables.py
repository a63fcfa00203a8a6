"""Label files: CSV and blank-separated text, compressed or not. Errors name the row as an editor counts lines."""

from __future__ import annotations

import csv
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emobench.data.readers.files import HEAD, pointer
from emobench.errors import RowError

PACKED = ("", ".gz", ".xz")  # suffixes that may follow .csv
_AGAIN = "Fetch the file again."


def table_names(*stems: str) -> tuple[str, ...]:
    """The names under which CSV tables may lie: `x` becomes x.csv, x.csv.gz, x.csv.xz."""
    return tuple(f"{stem}.csv{packed}" for stem in stems for packed in PACKED)


@contextmanager
def _text(path: Path) -> Iterator[Any]:
    """The file's lines as text; what cannot be read is a RowError with the line that was reached."""
    _refuse_pointer(path)
    unpack: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    reached = [0]

    def lines(file: Any) -> Iterator[str]:
        for line in file:
            reached[0] += 1
            yield line

    try:
        with unpack(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield lines(file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise RowError(path, reached[0] or None, None, f"no text table after this row ({error})", _AGAIN) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RowError(path, reached[0] or None, None, f"cannot be read further ({error})", _AGAIN) from error


def _refuse_pointer(path: Path) -> None:
    """A table that a clone without git-lfs or git-annex left in place of the table."""
    try:
        with open(path, "rb") as file:
            said = pointer(file.read(HEAD))
    except OSError:
        return  # reading it says why
    if said is not None:
        raise RowError(path, None, None, *said)


def read_rows(
    path: Path, needed: frozenset[str] | set[str], without_header: tuple[str, ...] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column -> text) of every row of a CSV file.

    Blanks around the names of columns are taken off; a byte order mark, CRLF and empty lines are read over.

    Args:
        needed: columns that the header must name.
        without_header: the columns of a file whose first line is a row already, as some copies have it.

    Raises:
        RowError: the file is empty, has no such header or cannot be read, or a row has too few or too many columns.
    """
    with _text(path) as lines:
        reader = csv.reader(lines)
        first = next(reader, [])
        if not first:
            raise RowError(path, None, None, "the file is empty", "Fetch it again.")
        columns = [name.strip() for name in first]
        if not needed <= set(columns):
            if len(first) != len(without_header) or needed & set(columns):
                found = f"no header with {' and '.join(sorted(needed))}, but '{','.join(columns)[:40]}'"
                raise RowError(
                    path, 1, None, found, f"The first line must name the columns: {','.join(sorted(needed))}."
                )
            columns = list(without_header)
            yield 1, dict(zip(columns, first, strict=True))
        for fields in reader:
            if not any(fields):
                continue
            if len(fields) != len(columns):
                found = f"{len(fields)} columns, the header has {len(columns)}"
                raise RowError(path, reader.line_num, None, found, "Each row needs them all, and no more.")
            yield reader.line_num, dict(zip(columns, fields, strict=True))


def read_words(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column -> text) of every row of a file without header whose words have blanks between them.

    Raises:
        RowError: the file cannot be read, or a row has too few or too many words.
    """
    with _text(path) as lines:
        for number, line in enumerate(lines, 1):
            words = line.split()
            if words and len(words) != len(columns):
                found = f"{len(words)} words where {len(columns)} are expected"
                raise RowError(path, number, None, found, f"A row has: {' '.join(columns)}.")
            if words:
                yield number, dict(zip(columns, words, strict=True))


def known(path: Path, line: int, row: Mapping[str, str], column: str, names: Mapping[str, str]) -> str:
    """What a field stands for, such as the emotion behind an id.

    Raises:
        RowError: it stands for nothing; what is known is listed.
    """
    value = row[column].strip()
    if value not in names:
        listed = ", ".join(f"{number} is {name}" for number, name in names.items())
        raise RowError(path, line, column, f"'{value[:20]}'", f"Known: {listed}.")
    return names[value]


def number(path: Path, line: int, row: Mapping[str, str], column: str) -> float:
    """A field as a number.

    Raises:
        RowError: it is none.
    """
    try:
        value = float(row[column])
    except ValueError as error:
        raise RowError(path, line, column, f"'{row[column][:20]}' is no number", "Fetch the file again.") from error
    if value != value or value in (float("inf"), float("-inf")):
        raise RowError(path, line, column, f"'{row[column][:20]}' is no finite number", "Fetch the file again.")
    return value


class Inside:
    """Checks that the paths which a label file names stay below a folder.

    A link may lead on to where the data lie as well: below the data root, or in the cache of the Hugging Face hub,
    whose snapshots are folders of links.

    Args:
        folder: the images' folder.
        root: the data root; None: the folder itself.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        self._real = os.path.realpath(folder)
        self._allowed = [self._real, os.path.realpath(root or folder), *_hub(self._real)]
        self._folders: dict[str, bool] = {}  # resolving a path costs a call for each of its parts

    def __call__(self, path: Path, line: int, column: str, name: str) -> str:
        """The name, to be read below the folder; a file that is not there is the audit's business.

        Backslashes between folders, as Windows writes them, and blanks around are understood, except in the name of a
        file that has them.

        Raises:
            RowError: it is absolute, goes up, holds a NUL, is too long, or a link in it leads out of the folder.
        """
        parts = name.strip().replace("\\", "/").split("/")
        wrong = None
        if not name.strip():
            wrong = "no name"
        elif "\0" in name:
            wrong = "a name with a NUL"
        elif not parts[0] or parts[0].endswith(":"):
            wrong = f"the absolute path '{name[:60]}'"
        elif ".." in parts:
            wrong = f"'{name[:60]}' leads out of the folder"
        elif len(name.encode()) > 1024 or max(len(part.encode()) for part in parts) > 255:
            wrong = f"a name of {len(name)} characters, '{name[:40]}…'"
        elif self._leads_out(found := self._there(name, "/".join(parts))):
            wrong = f"'{name[:60]}' is a link out of the folder"
        if wrong is not None:
            remedy = f"Paths must lie below {self.folder}. Correct or remove the row, or put a copy of the file there."
            raise RowError(path, line, column, wrong, remedy)
        return found

    def _there(self, name: str, plain: str) -> str:
        """The name as it stands where a file has it, else the plain one."""
        return name if name != plain and os.path.lexists(os.path.join(self._real, name)) else plain

    def _leads_out(self, name: str) -> bool:
        parent, _, _ = name.rpartition("/")
        if parent not in self._folders:
            self._folders[parent] = not self._below(os.path.realpath(os.path.join(self._real, parent)))
        whole = os.path.join(self._real, name)
        return self._folders[parent] or (os.path.islink(whole) and not self._below(os.path.realpath(whole)))

    def _below(self, real: str) -> bool:
        return any(real == top or real.startswith(top + os.sep) for top in self._allowed)


def _hub(real: str) -> list[str]:
    """Where links to files of the Hugging Face hub may lead: the hub's cache, and beside a snapshot its blobs.

    The cache is <hub>/datasets--<owner>--<name>/{snapshots/<commit>/…, blobs/<digest>}; a copy may lie anywhere.
    """
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    found, parts = [os.path.realpath(os.path.expanduser(cache))], Path(real).parts
    for k, part in enumerate(parts):
        if part.startswith("datasets--") and parts[k + 1 : k + 2] == ("snapshots",):
            found.append(str(Path(*parts[: k + 1], "blobs")))
    return found
