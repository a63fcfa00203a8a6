"""Columns of Parquet files and of Arrow streams, a batch at a time: files of any size in little memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emobench.data.readers.files import HEAD, MOST, cannot_open, pointer, regular, too_large
from emobench.errors import RowError, first_line

BATCH_BYTES = 8 * 2**20  # about so much of a column is decoded at a time, and at least a row
BATCH_ROWS = 1024  # at most
_BUFFER = 2**20  # bytes of a Parquet file that are read ahead
_AGAIN = "Fetch the file again."

Batch = tuple[int, int, Any]  # number of its first row, number of its rows, the values as an Arrow array, or a RowError


@dataclass(frozen=True)
class ColumnFile:
    """A Parquet file, or a file in Arrow's stream format, as `datasets.save_to_disk` writes it.

    Attributes:
        path: of the file.
        stream: whether it is the latter.
    """

    path: Path
    stream: bool

    def schema(self) -> Any:
        """The Arrow schema, with what is said in the file as its metadata.

        Raises:
            RowError: it is no such file, or cannot be read; says what it is instead.
        """
        with self._opened() as file:
            if self.stream:
                return file.schema
            said = {**(file.schema_arrow.metadata or {}), **(file.metadata.metadata or {})}
            return file.schema_arrow.with_metadata(said)

    def rows(self) -> int:
        """The number of rows.

        Raises:
            RowError: the file cannot be read.
        """
        with self._opened() as file:
            return sum(batch.num_rows for batch in file) if self.stream else int(file.metadata.num_rows)

    def values(self, columns: list[str]) -> Iterator[tuple[Any, ...]]:
        """The values of small columns, row by row, as Python has them.

        Raises:
            RowError: the file cannot be read further.
        """
        with self._opened() as file:
            if self.stream:
                batches = (batch.select(columns) for batch in file)
            else:
                batches = file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)
            for batch in batches:
                yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)

    def batches(self, column: str, wanted: Callable[[], int]) -> Iterator[Batch]:
        """The batches of a column in their order; where a part cannot be read, a RowError in its place.

        Args:
            wanted: the row that is looked for next: what ends before it may be left out, unread.

        Raises:
            RowError: the file cannot be opened.
        """
        with self._opened() as file:
            yield from (_of_stream if self.stream else _of_parquet)(self.path, file, column, wanted)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The reader of its kind; whatever Arrow says of a file that is none becomes a RowError."""
        regular(self.path)  # a pipe would be waited for
        try:
            with self.path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise cannot_open(self.path, error) from error
        if said := pointer(head):
            raise RowError(self.path, None, None, *said)
        try:
            name = os.fsencode(self.path)  # which need not be UTF-8
            if self.stream:
                with pa.memory_map(name) as source, pa.ipc.open_stream(source) as reader:
                    yield reader
            else:
                # Without read-ahead of whole column chunks, which may hold all pictures.
                with pa.OSFile(name) as source, pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER) as reader:
                    yield reader
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            kind = "Arrow stream" if self.stream else "Parquet file"
            raise RowError(self.path, None, None, f"no intact {kind} ({first_line(error)})", _AGAIN) from error


class Pictures:
    """The bytes of pictures in a column, row by row: quick where rows are asked for in order, whatever the file's size.

    Args:
        column: of structs with a field `bytes`, or of bytes.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._at: tuple[int, ColumnFile] | None = None  # process, file: a forked one begins anew
        self._batches: Iterator[Batch] = iter(())
        self._batch: Batch = (0, 0, None)
        self._row = 0

    def read(self, file: ColumnFile, row: int) -> bytes:
        """The bytes of one picture.

        Args:
            row: from 0.

        Raises:
            RowError: there are none, or more than a picture may have, or the file cannot be read there.
        """
        place = picture_name(file.path, row)
        if self._at != (os.getpid(), file) or row < self._batch[0]:
            self._at, self._batch = (os.getpid(), file), (0, 0, None)
            self._batches = file.batches(self._column, lambda: self._row)
        self._row = row
        try:
            while row >= self._batch[0] + self._batch[1]:
                self._batch = next(self._batches, (row + 1, 0, None))
        except RowError:
            self._at = None
            raise
        if row < self._batch[0]:
            raise RowError(place, None, None, "the file has no such row", _AGAIN)
        start, _, values = self._batch
        if isinstance(values, RowError):
            raise RowError(place, None, None, values.found, values.remedy)
        return _picture(place, values[row - start])


def picture_name(path: Path, row: int) -> Path:
    """How errors name a picture in a file, as its `id` does."""
    return path.with_name(f"{path.name}#{row}")


def _picture(place: Path, value: Any) -> bytes:
    """The bytes in a value of a column."""
    where = None
    if pa.types.is_struct(value.type):
        where = value["path"].as_py() if value.is_valid and "path" in value.type.names else None
        value = value["bytes"] if value.is_valid else value
    content = value.as_buffer() if value.is_valid else None
    if content is None or content.size == 0:
        found = "no picture" + (f", only the path '{str(where)[:60]}'" if where else "")
        raise RowError(place, None, None, found, "Save the dataset again, with its pictures in it.")
    if content.size > MOST:
        raise RowError(place, None, None, too_large(content.size), "Scale the picture down, or remove it.")
    return bytes(content)


def _of_parquet(path: Path, file: Any, column: str, wanted: Callable[[], int]) -> Iterator[Batch]:
    end = 0
    for group in range(file.num_row_groups):
        told = file.metadata.row_group(group)
        at, end = end, end + told.num_rows
        if wanted() >= end:
            continue
        chunks = (told.column(k) for k in range(told.num_columns))
        size = sum(each.total_uncompressed_size for each in chunks if each.path_in_schema.split(".")[0] == column)
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * told.num_rows // max(1, size)))
        try:
            for batch in file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False):
                yield at, batch.num_rows, batch.column(column)
                at += batch.num_rows
                if wanted() >= end:
                    break
        except (pa.ArrowException, OSError) as error:  # the other groups may be intact
            yield at, end - at, RowError(path, None, None, f"cannot be read ({first_line(error)})", _AGAIN)


def _of_stream(path: Path, file: Any, column: str, wanted: Callable[[], int]) -> Iterator[Batch]:
    at = 0
    for batch in file:  # mapped into memory: what nobody looks at is never read
        if wanted() < at + batch.num_rows:
            yield at, batch.num_rows, batch.column(column)
        at += batch.num_rows
