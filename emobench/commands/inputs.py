"""What a command is given to read: pictures, folders of any size, standard input, and videos frame by frame."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emobench.data.readers.files import MOST, let_read, regular
from emobench.data.readers.images import MAX_PIXELS, is_picture, read_face
from emobench.data.readers.tree import CLUTTER, LeftOut
from emobench.errors import DatasetError, RowError

STDIN = Path("-")
STDIN_NAME = "standard input"
_VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts"})
_MOVIE_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_BEGINNINGS = (  # of Matroska and WebM, MPEG, Flash, Ogg, ASF
    b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1", b"OggS", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
)  # fmt: skip
_WHOLE = 0.9  # share of the frames that a video says it has, below which it is taken for cut off


@dataclass
class Inputs:
    """The pictures and videos among paths and below folders, those of a folder in order of their names.

    Pictures in folders are known by their suffix, or by their content; a file that is named is taken as one. A folder
    is listed when it is its turn, so that memory holds the names of a few folders at a time.

    Attributes:
        left_out: what else lies in the folders, counted as they are read.
        unread: folders that may not be read.
        empty: folders that are named and hold no picture.
    """

    paths: Sequence[Path]
    left_out: LeftOut = field(default_factory=LeftOut)
    unread: list[RowError] = field(default_factory=list)
    empty: list[RowError] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise a DatasetError where a path does not exist."""
        for path in self.paths:
            if path != STDIN and not os.path.lexists(path):
                raise DatasetError(f"{path}: no such file or folder")

    def __iter__(self) -> Iterator[Path]:
        for path in self.paths:
            if path == STDIN or not path.is_dir():
                yield path
                continue
            below = self._below(path, set())
            first = next(below, None)
            if first is not None:
                yield first
                yield from below
            elif all(error.file != path for error in self.unread):
                found = "a folder, and no picture lies in it"
                self.empty.append(RowError(path, None, None, found, "Name a file, or a folder of pictures."))

    def _below(self, folder: Path, seen: set[str]) -> Iterator[Path]:
        """The pictures below a folder; a folder that links lead to again is passed over."""
        if (real := os.path.realpath(folder)) in seen:
            return
        seen.add(real)
        try:
            names = sorted(os.listdir(folder))
        except PermissionError as error:
            found = f"this folder may not be read ({error.strerror})"
            self.unread.append(RowError(folder, None, None, found, let_read(folder)))
            return
        for name in names:
            path = folder / name
            if name.startswith(".") or name.lower() in CLUTTER:
                self.left_out.add(name)
            elif path.is_dir():
                yield from self._below(path, seen)
            elif is_picture(path):
                yield path
            else:
                self.left_out.add(name)

    def nothing(self) -> DatasetError:
        """The error where there is no picture at all."""
        unread = (f"{error.file}: {error.found}" for error in self.unread)
        also = "".join(f"; {note}" for note in (*unread, *self.left_out.notes()))
        where = ", ".join(map(str, self.paths))
        return DatasetError(f"no picture in {where}{also}. JPEG, PNG and their like are taken")


def listed(paths: Sequence[Path]) -> tuple[list[Path], list[str], list[RowError]]:
    """All pictures among paths and below folders, notes of what else lies there, and errors of folders without any.

    Raises:
        DatasetError: a path does not exist, or there is no picture.
    """
    inputs = Inputs(paths)
    files = list(dict.fromkeys(inputs))
    if not files:
        raise inputs.nothing()
    return files, inputs.left_out.notes(), [*inputs.unread, *inputs.empty]


def named(path: Path) -> str:
    """How a file is called in what is written of it."""
    return STDIN_NAME if path == STDIN else str(path)


def read_picture(path: Path) -> np.ndarray:
    """A picture, or the one on standard input, as `read_face` reads it: uint8 (C, h, w), turned as its EXIF says.

    Raises:
        RowError: it is no intact picture.
    """
    if path != STDIN:
        return read_face(path)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "stdin"
        with open(kept, "wb") as file:
            size = 0
            while size <= MOST and (part := sys.stdin.buffer.read(2**20)):
                size += file.write(part)
        try:
            return read_face(kept)
        except RowError as error:
            raise RowError(STDIN_NAME, None, None, error.found, error.remedy) from error


def coloured(picture: np.ndarray) -> np.ndarray:
    """uint8 (C, h, w) as (3, h, w): a gray picture's channel three times."""
    return np.array(np.broadcast_to(picture, (3, *picture.shape[1:])))  # a copy, which torch may take


# Videos


def is_video(path: Path) -> bool:
    """Whether a file is a video by its suffix, or by the first bytes of its content."""
    if path == STDIN or path.is_dir():
        return False
    suffix = path.suffix.lower()
    return suffix in _VIDEOS or (not is_picture(path) and _begins_as_video(path))


def _begins_as_video(path: Path) -> bool:
    """Whether the first bytes are those of a container; no list of other files or addresses is one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError:
        return False
    stream = head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G"  # MPEG transport, of 188 bytes each
    riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return stream or riff or head[4:8] in _MOVIE_ATOMS or head.startswith(_BEGINNINGS)


class Video:
    """The frames of a video file.

    Args:
        path: a regular file.

    Attributes:
        frames: how many it says that it has; None: it does not say.

    Raises:
        RowError: it is no video that OpenCV can read, or its frames are too large.
    """

    def __init__(self, path: Path) -> None:
        import cv2

        self.path = path
        size = regular(path)
        if not size:
            raise self._error("a video of 0 bytes")
        if not _begins_as_video(path):
            raise self._error("no video by its content")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says is said below
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # and so is what FFmpeg says
        # An absolute path: a name such as concat:x, or one with a number's pattern, means other files to a decoder.
        self._capture: Any = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise self._error("a video that cannot be opened: it is cut off, or of an unknown codec")
        wide, high = (int(self._capture.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if wide * high > MAX_PIXELS:
            raise self._error(f"frames of {wide} x {high} pixels, more than {MAX_PIXELS / 1e6:.0f} million")
        said = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(said) if 0 < said < 2**31 else None
        self._position, self._rate = cv2.CAP_PROP_POS_MSEC, self._capture.get(cv2.CAP_PROP_FPS)

    def _error(self, found: str) -> RowError:
        return RowError(self.path, None, None, found, "Replace the file by an intact copy, or remove it.")

    def __iter__(self) -> Iterator[tuple[float, np.ndarray | None]]:
        return self.every(0)

    def every(self, seconds: float) -> Iterator[tuple[float, np.ndarray | None]]:
        """The time, s, of each frame and the frame, uint8 (3, h, w); None for those that are passed over.

        Args:
            seconds: from one frame that is wanted to the next, at least; 0: all are.

        Raises:
            RowError: there is no frame, or far fewer than the file says; after those that there are.
        """
        import cv2

        read, due = 0, 0.0
        while self._capture.grab():
            time = self._capture.get(self._position) / 1000
            if not 0 <= time < 1e9 or (time == 0 and read):
                time = read / self._rate if self._rate > 0 else float(read)
            read += 1
            if time + 1e-6 < due:
                yield time, None
                continue
            good, frame = self._capture.retrieve()
            if not good or frame is None:
                break
            due = (np.floor((time + 1e-6) / seconds) + 1) * seconds if seconds else 0.0
            yield time, np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).transpose(2, 0, 1))
        self._capture.release()
        if not read:
            raise self._error("a video without a frame that can be read")
        if self.frames is not None and read < _WHOLE * self.frames:
            raise self._error(f"ends after {read:,} of the {self.frames:,} frames that it says it has")
