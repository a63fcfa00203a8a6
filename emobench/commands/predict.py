"""`emobench predict`: which emotion do these pictures show, by a trained classifier?"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import torch
from rich.cells import cell_len, set_cell_size

from emobench.commands.detect import Detector, detector, square
from emobench.commands.inputs import Inputs, Video, coloured, is_video, named, read_picture
from emobench.commands.pictures import BATCH, check_new, note, progress
from emobench.commands.runs import chosen
from emobench.data.readers.images import crop, resized
from emobench.errors import EmobenchError, RowError, shown
from emobench.files import check_out, replacing
from emobench.report.markdown import csv_cell, one_line

_PENDING = 1024  # rows that wait at most, where most have no face
Form = Literal["table", "csv", "json", "jsonl"]
_BOX = ("face", "left", "top", "right", "bottom", "detector")


@dataclass(frozen=True)
class Finding:
    """How faces are found in a picture.

    Attributes:
        detect: whether they are looked for; else the whole picture is the face.
        file: of YuNet; None: scikit-image's cascade.
        margin: around a face, a share of its box.
        every: seconds from a frame of a video to the next that is read; 0: all are.
    """

    detect: bool = False
    file: Path | None = None
    margin: float = 0.0
    every: float = 0.0


@dataclass(frozen=True)
class Face:
    """A face, or a picture in which none was found.

    Attributes:
        cells: what its row says before the emotion, by column.
        pixels: uint8 (3, S, S); None: there is no face.
    """

    cells: dict[str, Any]
    pixels: np.ndarray | None


def cut_out(
    path: Path, picture: np.ndarray, find: Detector | None, margin: float = 0.0
) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    """The faces in a picture, the largest first, each with what its row says of it; else None, for there is none.

    Args:
        path: of the picture, for messages.
        picture: uint8 (C, h, w).
        find: None: the whole picture is the face.
        margin: around a face that is found, a share of its box.
    """
    if find is None:
        yield {}, picture
        return
    picture = coloured(picture)
    boxes = find(picture)
    for number, box in enumerate(boxes, 1):
        place = square(box, margin, *picture.shape[1:])
        yield {"face": number, **box._asdict(), "detector": find.name}, crop(path, picture, *place)
    if not boxes:
        yield {"detector": find.name}, None


def read_faces(model: Any, device: torch.device, faces: Sequence[Face]) -> list[dict[str, Any]]:
    """What a classifier says of faces.

    Returns:
        A row a face, in their order: its cells, and if there is a face its emotion and the probability of each.
    """
    pixels = [face.pixels for face in faces if face.pixels is not None]
    shares: Iterator[list[float]] = iter(())
    if pixels:
        with torch.inference_mode():
            logits = model(torch.from_numpy(np.stack(pixels)).to(device))
        shares = iter(logits.double().softmax(1).cpu().tolist())
    rows = []
    for face in faces:
        row = dict(face.cells)
        if face.pixels is not None:
            each = next(shares)
            row["emotion"] = model.emotions[int(np.argmax(each))]
            row |= zip(model.emotions, each, strict=True)
        rows.append(row)
    return rows


def predict(
    run: str,
    images: Sequence[Path],
    form: Form,
    out: Path | None,
    results: Path,
    *,
    finding: Finding = Finding(),
    chart: Path | None = None,
    force: bool = False,
) -> int:
    """Say which emotion pictures show, and name on stderr those that cannot be read.

    Rows are written as they come, so that memory does not grow with their number.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        images: pictures of one face each, folders of them, videos, or "-", a picture on standard input.
        form: a "table" for people, "csv", "json", or "jsonl", a JSON object a line.
        out: the file that it is written to; None: it is printed.
        chart: a picture of the emotions of one video over time, of the largest face in each frame.

    Returns:
        The exit code: 1 where a picture cannot be read; the others are answered.

    Raises:
        StoreError: there is no such cell, it is not finished here, its weights are gone, or a file cannot be written
            or is there already.
        DatasetError: a path does not exist, or there is no picture.
        WeightsError: the detector's file is none.
        EmobenchError: a chart of anything but one video, or no detector is installed.
    """
    for path in filter(None, (out, chart)):
        check_out(path)
    check_new(filter(None, (out, chart)), force)
    inputs = Inputs(images)
    videos = [path for path in images if is_video(path)]
    if chart is not None and (len(videos) != 1 or len(images) != 1):
        raise EmobenchError(f"--chart {chart}: a chart is of one video, and of nothing else")
    if chart is not None and chart.suffix.lower() not in (".png", ".webp"):
        raise EmobenchError(f"--chart {chart}: a chart is a .png or a .webp")
    network = chosen(results, run, "read")
    find = detector(finding.file) if finding.detect else None
    model, device = network.load()
    files = iter(inputs)
    first = next(files, None)
    if first is None:
        raise inputs.nothing()
    note(f"read by {network.described}")
    if find is not None:
        note(f"faces found by {find.described}")
    elif videos:
        note("each frame is read as a face, whole: --detect finds the faces in it")
    columns = ["file", *(["time"] if videos else []), *(_BOX if find else ()), "emotion", *model.emotions]
    reader = _Reader(find, finding, network.size)
    curve = _Curve(model.emotions)
    quiet = out is None and sys.stdout.isatty()  # the rows themselves show how far it is
    total = None if quiet else _total(images)
    with _stream(out, form) as stream, progress(total, "pictures and frames", quiet=quiet) as done:
        reader.done = done
        rows = _Rows(stream, form, columns)
        for part in _parts(face for path in _and(first, files) for face in reader.faces(path)):
            said = read_faces(model, device, part)
            rows.write(said)
            if chart is not None:
                curve.add(said)
        rows.end()
    for error in (*inputs.unread, *inputs.empty):
        reader.fail(error)
    for text in inputs.left_out.notes():
        note(text)
    if chart is not None:
        curve.draw(chart, videos[0])
    return 1 if reader.failed else 0


def _and(first: Path, others: Iterator[Path]) -> Iterator[Path]:
    yield first
    yield from others


def _total(images: Sequence[Path]) -> int | None:
    """How many pictures there are, counted where a bar shows it; None: nobody sees it, or a video does not say."""
    if not sys.stderr.isatty():
        return None
    total = 0
    for path in Inputs(images):
        if not is_video(path):
            total += 1
            continue
        try:
            frames = Video(path).frames
        except RowError:
            frames = 1
        if frames is None:
            return None
        total += frames
    return total


def _parts(faces: Iterator[Face]) -> Iterator[list[Face]]:
    """Rows in their order, with at most `BATCH` faces at a time."""
    part: list[Face] = []
    n = 0
    for face in faces:
        part.append(face)
        n += face.pixels is not None
        if n == BATCH or len(part) == _PENDING:
            yield part
            part, n = [], 0
    if part:
        yield part


@dataclass
class _Reader:
    """Reads pictures and videos into faces, and names what cannot be read.

    Attributes:
        failed: how many there were of these.
        done: told of each picture and frame.
    """

    find: Detector | None
    finding: Finding
    size: int
    failed: int = 0
    done: Callable[[int], None] = field(default=lambda _: None)

    def faces(self, path: Path) -> Iterator[Face]:
        """Those of a picture or of all frames of a video."""
        try:
            if not is_video(path):
                yield from self._of(path, read_picture(path), {"file": shown(named(path))})
                self.done(1)
                return
            for time, frame in Video(path).every(self.finding.every):
                if frame is not None:
                    yield from self._of(path, frame, {"file": shown(named(path)), "time": round(time, 3)})
                self.done(1)
        except RowError as error:
            self.fail(error)
            self.done(1)

    def fail(self, error: RowError) -> None:
        """Name what cannot be read."""
        self.failed += 1
        note(f"emobench: {error}")

    def _of(self, path: Path, picture: np.ndarray, cells: dict[str, Any]) -> Iterator[Face]:
        """The faces in a picture uint8 (C, h, w), with what is known of all of them."""
        for found, face in cut_out(path, picture, self.find, self.finding.margin):
            yield Face({**cells, **found}, None if face is None else coloured(resized(face, self.size)))


# What is written


@contextmanager
def _stream(out: Path | None, form: Form) -> Iterator[TextIO]:
    """Where rows go: a CSV or lines of JSON stay as far as they came, a document takes its place when it is whole."""
    if out is None:
        yield sys.stdout
    elif form in ("csv", "jsonl") or (out.exists() and not out.is_file()):  # such as /dev/stdout
        with open(out, "w", encoding="utf-8") as file:
            yield file
    else:
        with replacing(out) as temporary, open(temporary, "w", encoding="utf-8") as file:
            yield file


class _Rows:
    """Writes rows as they come; hostile file names stay inert in every form."""

    def __init__(self, stream: TextIO, form: Form, columns: Sequence[str]) -> None:
        self.stream, self.form, self.n = stream, form, 0
        self.columns = [name for name in columns if form != "table" or name != "detector"]
        self.widths: list[int] = []
        self.csv = csv.writer(stream, lineterminator="\n")
        if form == "csv":
            self.csv.writerow(self.columns)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some."""
        write = {"table": self._table, "csv": self._csv, "json": self._json, "jsonl": self._lines}[self.form]
        write([{name: row.get(name) for name in self.columns} for row in rows])
        self.n += len(rows)
        self.stream.flush()

    def end(self) -> None:
        """Write what comes after the last."""
        if self.form == "json":
            self.stream.write("\n]\n" if self.n else "[]\n")

    def _csv(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.csv.writerows([csv_cell(cell) for cell in row.values()] for row in rows)

    def _json(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for place, row in enumerate(rows):
            text = json.dumps(_finite(row), indent=1, allow_nan=False).replace("\n", "\n ")
            self.stream.write(("[\n " if self.n + place == 0 else ",\n ") + text)

    def _lines(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.stream.writelines(json.dumps(_finite(row), allow_nan=False) + "\n" for row in rows)

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Columns as wide as the first rows need; a longer name is never cut."""
        cells = [[_cell(value) for value in row.values()] for row in rows]
        place = self.columns.index("emotion")
        for line in cells:
            line[place] = line[place] or "no face found"
        if not self.widths:
            self.widths = [max(map(cell_len, column)) for column in zip(self.columns, *cells, strict=True)]
            cells = [self.columns, *cells]
        for line in cells:
            parts = [
                text if cell_len(text) > width else set_cell_size(text, width)
                for text, width in zip(line, self.widths, strict=True)
            ]
            self.stream.write("  ".join(parts).rstrip() + "\n")


def _cell(value: Any) -> str:
    """A value for people."""
    if value is None:
        return ""
    return one_line(value) if isinstance(value, str) else f"{value:.3f}" if isinstance(value, float) else str(value)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it: a number that is none is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


class _Curve:
    """The emotions of the largest face in each frame of a video."""

    def __init__(self, emotions: Sequence[str]) -> None:
        self.emotions = emotions
        self.times: list[float] = []
        self.shares: list[list[float]] = []

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take note of rows; a frame without a face is a gap."""
        for row in rows:
            if row.get("face", 1) == 1:
                self.times.append(row["time"])
                self.shares.append([row.get(emotion, math.nan) for emotion in self.emotions])

    def draw(self, path: Path, video: Path) -> None:
        """Write the chart; a video without a frame has none."""
        from emobench.report.figures import strip

        if not self.times:
            note(f"--chart {path}: not drawn, since no frame was read")
            return
        strip(path, np.array(self.times), np.array(self.shares), self.emotions, one_line(shown(video.name)))
