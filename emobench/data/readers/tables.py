"""Label files: CSV and blank-separated text, compressed or not. Errors name the row as an editor counts lines.

Columns go by name, whatever its case, blanks and underscores; what a file is, is read from its first bytes.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import lzma
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emobench.data.readers.files import HEAD, pointer
from emobench.data.readers.labels import Meaning
from emobench.errors import RowError

PACKED = ("", ".gz", ".xz")  # suffixes that may follow .csv
_AGAIN = "Fetch the file again."
_NOTHING = ("", "na", "n/a", "<na>", "null", "none")  # how tables write that there is no value
_BYTES = re.compile(r"b(['\"])(.*)\1")  # bytes as Python prints them: b'3'
_LONGEST = 2**20  # characters of a line; a row of 48 x 48 pixels has 9,216
_NEAR = 0.75  # of difflib's ratio: from here on a column's name is taken for a misspelt one
_NO_TABLES = {  # first bytes of what is no text -> (what it is, what to do)
    b"PK\x03\x04": ("a zip archive (or a spreadsheet)", "Unpack it first (unzip), or save the sheet as CSV."),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it first."),
    b"Rar!": ("a rar archive", "Unpack it first."),
    b"BZh": ("packed by bzip2", "Unpack it first (bunzip2), or pack it by gzip."),
    b"PAR1": ("a Parquet file", "Save it as CSV."),
    b"\xff\xfe": ("text in UTF-16", "Save it as UTF-8."),
    b"\xfe\xff": ("text in UTF-16", "Save it as UTF-8."),
    b"<!doctype": ("a web page", _AGAIN),
    b"<html": ("a web page", _AGAIN),
}


class NoNumber(RowError):
    """A field that should hold a number or an id holds NaN, infinity or nothing: this face cannot be used."""


def table_names(*stems: str) -> tuple[str, ...]:
    """The names under which CSV tables may lie: `x` becomes x.csv, x.csv.gz, x.csv.xz."""
    return tuple(f"{stem}.csv{packed}" for stem in stems for packed in PACKED)


@contextmanager
def _text(path: Path) -> Iterator[Any]:
    """The file's lines as text; what cannot be read is a RowError with the line that was reached."""
    reached = [0]

    def lines(file: Any) -> Iterator[str]:
        while line := file.readline(_LONGEST):  # a packed file may unpack to a line that fills the memory
            reached[0] += 1
            if len(line) == _LONGEST:
                found = f"a line of more than {_LONGEST:,} characters"
                raise RowError(path, reached[0], None, found, _AGAIN)
            yield line

    try:
        with _unpacker(path)(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield lines(file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise RowError(path, reached[0] or None, None, f"no text table after this row ({error})", _AGAIN) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RowError(path, reached[0] or None, None, f"cannot be read further ({error})", _AGAIN) from error


def _unpacker(path: Path) -> Any:
    """What opens a file, by its first bytes: downloads lose and keep suffixes as they like.

    Raises:
        RowError: it is an archive, a web page, a pointer of git-lfs and the like; says what to do.
    """
    if not path.is_file():  # a pipe would be waited for
        raise RowError(path, None, None, "no regular file", "Put the file itself there.")
    with path.open("rb") as file:
        head = file.read(HEAD)
    said = pointer(head)
    if said is not None:
        raise RowError(path, None, None, *said)
    for magic, (found, remedy) in _NO_TABLES.items():
        if head.startswith(magic) or head.lstrip().lower().startswith(magic):
            raise RowError(path, None, None, f"cannot be read further: it is {found}", remedy)
    if head.startswith(b"\x1f\x8b"):
        return gzip.open
    return lzma.open if head.startswith(b"\xfd7zXZ") or path.suffix == ".xz" else open


def read_rows(
    path: Path,
    needed: Collection[str],
    without_header: Sequence[str] = (),
    *,
    optional: Collection[str] = (),
    spellings: Mapping[str, Sequence[str]] | None = None,
    said: list[str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column -> text) of every row of a CSV file.

    A column of `needed` and `optional` is found whatever the case, blanks and underscores of its name, and is named in
    the rows as it is asked for; a byte order mark, CRLF and empty lines are read over.

    Args:
        needed: columns that the header must name.
        without_header: the columns of a file whose first line is a row already, as some copies have it.
        optional: further columns that are looked for.
        spellings: column -> other names that it goes by in the wild, taken where it is missing.
        said: gets a sentence for each column that was taken by another name.

    Raises:
        RowError: the file is empty, has no such header or cannot be read; the header names a column twice, or almost
            one that is looked for; a row has too few or too many columns.
    """
    with _text(path) as lines:
        reader = csv.reader(lines)
        first = next(reader, [])
        if not first:
            raise RowError(path, None, None, "the file is empty", "Fetch it again.")
        columns = _named(path, first, [*needed, *optional], spellings or {}, [] if said is None else said)
        if set(needed) & set(columns):
            _refuse_doubles(path, first)
        if not set(needed) <= set(columns):
            if len(first) != len(without_header) or set(needed) & set(columns):
                raise _no_header(path, columns, needed)
            columns = list(without_header)
            yield 1, dict(zip(columns, first, strict=True))
        elif (missed := _near_miss(columns, optional, needed)) is not None:
            found, column = missed
            remedy = f"Rename it to {column} if that is meant, else to something that is not so near it."
            raise RowError(path, 1, found, f"no column {column}, but '{found}', which is almost it", remedy)
        for fields in reader:
            if not any(fields):
                continue
            if len(fields) != len(columns):
                found = f"{len(fields)} columns, the header has {len(columns)}"
                raise RowError(path, reader.line_num, None, found, "Each row needs them all, and no more.")
            yield reader.line_num, dict(zip(columns, fields, strict=True))


def _folded(column: str) -> str:
    """A column's name without what copies change in it."""
    return re.sub(r"[\s_\-]+", "", column).casefold()


def _refuse_doubles(path: Path, header: Sequence[str]) -> None:
    found = [_folded(column) for column in header]
    for name, n in Counter(filter(None, found)).items():
        if n > 1:
            both = [f"'{column.strip()}' (column {k})" for k, column in enumerate(header, 1) if _folded(column) == name]
            remedy = "Keep one of them: which is the right one cannot be known."
            raise RowError(path, 1, None, f"the header names {' and '.join(both)}", remedy)


def _named(
    path: Path, header: list[str], wanted: Sequence[str], spellings: Mapping[str, Sequence[str]], said: list[str]
) -> list[str]:
    """The header's columns, those that are wanted by the names under which they are wanted."""
    found = [_folded(column) for column in header]
    columns = [column.strip() for column in header]
    for name in wanted:
        others = [other for other in spellings.get(name, ()) if _folded(other) in found]
        if _folded(name) in found:
            columns[found.index(_folded(name))] = name
        elif others:
            place = found.index(_folded(others[0]))
            said.append(f"{path.name}: the column '{columns[place]}' is taken for {name}")
            columns[place] = name
    return columns


def _near_miss(columns: Sequence[str], wanted: Collection[str], found: Collection[str]) -> tuple[str, str] | None:
    """(a column of the file, the wanted one that it almost names), where one of these is missing.

    Args:
        found: columns that mean something else.
    """
    others = {_folded(column): column for column in columns if column not in wanted and column not in found}
    for name in wanted:
        near = difflib.get_close_matches(_folded(name), others, n=1, cutoff=_NEAR) if name not in columns else []
        if near:
            return others[near[0]], name
    return None


def _no_header(path: Path, columns: Sequence[str], needed: Collection[str]) -> RowError:
    missing = sorted(set(needed) - set(columns))
    near = _near_miss(columns, missing, needed)
    guess = f" Is '{near[0]}' meant to be {near[1]}?" if near else ""
    remedy = f"The first line must name the columns: {','.join(sorted(needed))}.{guess}"
    return RowError(path, 1, None, f"no header with {' and '.join(missing)}, but '{','.join(columns)[:40]}'", remedy)


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


def plain(text: str) -> str:
    """A field without blanks around it, and without what Python prints around bytes: b'3' is 3."""
    match = _BYTES.fullmatch(text.strip())
    return (match[2] if match else text).strip()


def holds_nothing(text: str) -> bool:
    """Whether a field that should hold a number or an id holds NaN, infinity or nothing."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return text.strip().lower() in _NOTHING


def known(
    path: Path,
    line: int | None,
    row: Mapping[str, str],
    column: str,
    names: Mapping[str, str],
    meaning: Meaning | None = None,
) -> str:
    """What a field stands for, such as the emotion behind an id.

    Args:
        names: id -> what it stands for.
        meaning: of names that may stand there instead; these are returned as they stand.

    Raises:
        NoNumber: it is NaN, infinite or empty.
        RowError: it stands for nothing; what is known is listed.
    """
    value = plain(row[column])
    if meaning is not None and meaning.explains(value):
        return value
    if value in names:
        return names[value]
    if meaning is not None and meaning.knows(value):
        return value
    listed = ", ".join(f"{number} is {name}" for number, name in names.items())
    kind = NoNumber if holds_nothing(value) else RowError
    raise kind(path, line, column, f"'{value[:20]}'", f"Known: {listed}.")


def labelled(
    path: Path, line: int | None, row: Mapping[str, str], column: str, names: Mapping[str, str], meaning: Meaning
) -> tuple[str | None, NoNumber | None]:
    """(label, None), or of a field that is NaN, infinite or empty (None, why the face is excluded); see `known`."""
    try:
        return known(path, line, row, column, names, meaning), None
    except NoNumber as error:
        return None, error


def number(path: Path, line: int | None, row: Mapping[str, str], column: str) -> float:
    """A field as a number.

    Raises:
        NoNumber: it is NaN, infinite or empty.
        RowError: it is no number.
    """
    text = plain(row[column])
    if holds_nothing(text):
        found = f"'{text[:20]}' is no finite number" if text else "nothing, where a number is expected"
        raise NoNumber(path, line, column, found, "Fetch the file again.")
    try:
        return float(text)
    except ValueError as error:
        raise RowError(path, line, column, f"'{text[:20]}' is no number", "Fetch the file again.") from error


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
