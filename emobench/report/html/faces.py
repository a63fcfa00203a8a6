"""The faces of a page, as WebP in data URIs: what cells drew, and test faces that emobench itself draws.

Whose faces may be seen is decided here: no picture of a real person, unless the suite says `real_faces = true`.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emobench.data.drawn.faces import render
from emobench.data.drawn.parameters import VARIANTS, emotion_weights, face_parameters
from emobench.data.split import SPLITS
from emobench.emotions import EMOTIONS
from emobench.report import figures
from emobench.report.attributes import PEOPLE, dataset_of, is_drawn
from emobench.report.board import Section
from emobench.runner.store import StoredCell, check_raw

QUALITY = 72  # of WebP: lossy, which eyes do not see; the lossless faces lie in the cells' folders
ACROSS = 16  # faces of a line of a sheet
_SMALLEST = 1024  # bytes of a picture of faces
_DRAWN_ID = re.compile(r"(train|val|test)-(\d{5,6})-(\d)")
_OF_PEOPLE = ("edits", "styles")  # kinds of pictures that show the people they were made of
_OF_NOBODY = ("means",)  # kinds that show no face of real people


@dataclass(frozen=True)
class Sheet:
    """Faces of one size in lines and columns."""

    side: int  # px of a face in it
    columns: int
    lines: int
    webp: bytes

    @property
    def plain(self) -> dict[str, Any]:
        source = f"data:image/webp;base64,{base64.b64encode(self.webp).decode()}"
        return {"side": self.side, "columns": self.columns, "lines": self.lines, "src": source}


@dataclass
class Allowance:
    """What pictures may still take of a page, bytes of WebP."""

    left: int

    @property
    def spent(self) -> bool:
        """Whether nothing that is worth looking at would find room."""
        return self.left < _SMALLEST

    def take(self, sheet: Sheet) -> bool:
        """Whether there is room for it, which is then taken."""
        if len(sheet.webp) > self.left:
            return False
        self.left -= len(sheet.webp)
        return True


@dataclass(frozen=True)
class Shown:
    """The picture of a row.

    Attributes:
        lines, columns: what they are called; empty: nothing is known of them.
        path: of the cell's own picture, from the board's folder; "": it lies in the store alone.
        sheet: None: there was no room for it.
    """

    kind: str
    row: str
    lines: Sequence[str]
    columns: Sequence[str]
    path: str
    sheet: Sheet | None


def sheet_of(picture: NDArray[np.uint8], lines: int, times: int = 1) -> Sheet | None:
    """Faces (H, W, 3) as a sheet; None: they are no lines of square faces.

    Args:
        times: how many times as large they are shown as they are.
    """
    side = picture.shape[0] // max(1, lines)
    if side == 0 or picture.shape[0] != side * lines or picture.shape[1] % side:
        return None
    columns = picture.shape[1] // side
    small = picture[::times, ::times]
    if times > 1 and (side % times or not np.array_equal(small.repeat(times, 0).repeat(times, 1), picture)):
        small, times = picture, 1
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(small)).save(file, "WEBP", quality=QUALITY, method=4)
    return Sheet(side // times, columns, lines, file.getvalue())


# Whose faces they are


def may_be_seen(cell: StoredCell, kind: str, flags: Sequence[str]) -> bool:
    """Whether a picture shows nobody real: all people are drawn, or a generator made them up and copies no face."""
    record = cell.record
    if record is None or record.evaluation is None:
        return False
    if kind in _OF_NOBODY:
        return True
    if is_drawn(record):
        return record.evaluation.outside is None
    made_up = record.evaluation.draws and record.evaluation.outside is None and kind not in _OF_PEOPLE
    return made_up and "memorised" not in flags


# What cells drew


def pictures(section: Section, real_faces: bool, allowance: Allowance) -> Iterator[Shown]:
    """The pictures of each row's first seed that has one."""
    told: set[tuple[str, str]] = set()
    flags = {entry.name: entry.flags for entry in section.entries}
    for kind in section.track.pictures:
        for cell in section.usable:
            if (kind, cell.row) in told or not (real_faces or may_be_seen(cell, kind, flags.get(cell.row, ()))):
                continue
            if (found := _file(cell, kind, real_faces)) is not None:
                told.add((kind, cell.row))
                yield _shown(section, cell, kind, *found, allowance)


def _file(cell: StoredCell, kind: str, real_faces: bool) -> tuple[Path, str] | None:
    """A cell's picture, and its path from the board's folder; those of real people lie in the store alone."""
    record, folder = cell.record, cell.folder
    if record is None or record.evaluation is None or folder is None:
        return None
    if (name := record.evaluation.raw.get(kind)) is not None:
        return folder / name, f"cells/{cell.eval_key}/{name}"
    private = folder / f"{kind}.webp"
    if not real_faces or not private.exists():
        return None
    check_raw(folder, [private.name])
    return private, ""


def _shown(section: Section, cell: StoredCell, kind: str, file: Path, path: str, allowance: Allowance) -> Shown:
    with Image.open(file) as opened:
        lines, columns = names(section.emotions, kind, (opened.height, opened.width))
        picture = None if allowance.spent or not lines else np.asarray(opened.convert("RGB"))
    if picture is None:
        return Shown(kind, cell.row, lines, columns, path, None)
    sheet = sheet_of(picture, len(lines), _enlarged(picture, len(lines), cell.size))
    kept = sheet if sheet is not None and allowance.take(sheet) else None
    return Shown(kind, cell.row, lines, columns, path, kept)


def names(emotions: Sequence[str], kind: str, shape: Sequence[int]) -> tuple[Sequence[str], Sequence[str]]:
    """What the lines and the columns of a picture (H, W, …) of a kind are; no lines: nothing is known of the kind."""
    if kind in _OF_PEOPLE:
        columns = ["source", *emotions]
        side = shape[1] // len(columns)
        return [f"source {line + 1}" for line in range(shape[0] // max(1, side))], columns
    lines, *columns_of = figures.names(emotions, kind) or ((),)
    return lines, columns_of[0] if columns_of else ()


def _enlarged(picture: NDArray[np.uint8], lines: int, size: int) -> int:
    """How many times as large as they are faces of `size` px stand in a picture."""
    side = picture.shape[0] // max(1, lines)
    return side // size if size and side % size == 0 and side > size else 1


# Test faces that emobench draws


def drawn_faces(section: Section, ids: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Drawn test faces again, uint8 (N, 3, S, S), from the numbers in their names; None: they are no drawn faces.

    Args:
        ids: (N,) names such as test-00012-3: the third face of a person.
        labels: (N,) emotions, of the section's.
    """
    record = next(iter(section.records), None)
    parts = [_DRAWN_ID.fullmatch(each) for each in ids]
    if record is None or not is_drawn(record) or not ids or any(part is None for part in parts):
        return None
    arguments = dataset_of(record).get("arguments", {})
    variant, seed = VARIANTS.get(arguments.get("variant", "standard")), arguments.get("draw_seed", 0)
    if variant is None or not isinstance(seed, int):
        return None
    found = [part.groups() for part in parts if part is not None]
    person = np.array([SPLITS.index(split) * PEOPLE + int(number) for split, number, _ in found], np.int64)
    face = np.array([int(number) for *_, number in found], np.int64)
    emotion = np.array([EMOTIONS.index(name) for name in section.emotions], np.int64)[labels]
    weights = emotion_weights(variant, seed, person, face, emotion)
    images = render(face_parameters(variant, seed, person, face, weights), section.size)
    return np.broadcast_to(images, (len(images), 3, section.size, section.size))


def sheet_of_faces(images: NDArray[np.uint8]) -> Sheet:
    """Faces uint8 (N, 3, S, S) as a sheet of `ACROSS` a line, the last line filled with gray."""
    n, _, side, _ = images.shape
    lines = -(-n // ACROSS)
    canvas = np.full((lines * ACROSS, 3, side, side), 127, np.uint8)
    canvas[:n] = images
    picture = canvas.reshape(lines, ACROSS, 3, side, side).transpose(0, 3, 1, 4, 2)
    found = sheet_of(np.ascontiguousarray(picture.reshape(lines * side, ACROSS * side, 3)), lines)
    assert found is not None
    return found
