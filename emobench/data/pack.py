"""The pack: every face decoded once, hashed for the audit, and kept at one size in a uint8 memory map."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from secrets import token_hex

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from PIL import Image
from rich.console import Console
from rich.progress import track

from emobench.data.copies import SIDE, copy_groups
from emobench.data.readers.images import resized
from emobench.errors import WRITE_REMEDIES, DatasetError, RowError

CHUNK = 1024  # faces that a process decodes at a time, and at most lost when a pack is interrupted, times the processes
_RECORD = {"hash": object, "constant": bool, "px_wide": np.int64, "px_high": np.int64, "problem": object}

Reader = Callable[[pd.DataFrame], Iterator[np.ndarray | RowError]]


def default_cache() -> Path:
    """Where packs and manifests are kept: `EMOBENCH_CACHE`, else `~/.cache/emobench`."""
    given = os.environ.get("EMOBENCH_CACHE")
    try:
        return Path(given or "~/.cache/emobench").expanduser()
    except RuntimeError:  # an account without a home, as in a container
        raise DatasetError(
            "no home folder for the packs of datasets. Set EMOBENCH_CACHE to a folder, or HOME"
        ) from None


def pixel_hash(face: np.ndarray) -> str:
    """A 128-bit hash of a face's shape and pixels, uint8 (C, h, w), at the resolution of its source."""
    return hashlib.blake2b(repr(face.shape).encode() + face.tobytes(), digest_size=16).hexdigest()


def look(face: np.ndarray) -> np.ndarray:
    """uint8 (C, h, w) -> gray uint8 (48, 48), by which copies of faces are found; whatever size a pack has."""
    gray = face[0] if len(face) == 1 else np.rint(face.mean(0)).astype(np.uint8)
    return np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` in one step when the block ends without an error.

    Whoever comes second keeps the first one's: equal names have equal content.

    Raises:
        DatasetError: the cache cannot be written.
    """
    with writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = folder.with_name(f".{folder.name}-{os.getpid()}-{token_hex(4)}")
        scratch.mkdir()  # unlike tempfile's, it follows the umask: a group may share the cache
    try:
        with writable(folder):
            yield scratch
            _publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, folder: Path) -> None:
    try:
        os.replace(scratch, folder)
    except OSError:
        if not folder.is_dir():  # not another process's
            raise


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """An OSError in the block, such as a full disk, becomes a DatasetError that says what to do."""
    try:
        yield
    except OSError as error:
        first = WRITE_REMEDIES.get(error.errno or 0, "See that it can be written")
        place = error.filename or folder
        remedy = f"{first}, or set EMOBENCH_CACHE to another folder that can be written"
        raise DatasetError(f"cannot write {place} ({error.strerror or error}). {remedy}") from error


# ---- the pack --------------------------------------------------------------------------------------------------------


def write_pack(folder: Path, read: Reader, rows: pd.DataFrame, size: int, title: str) -> None:
    """Decode every face and write below `folder`, which appears when all is done:

    - `records.parquet`, one row a face: `hash`, `constant` (all pixels are equal), `px_wide` and `px_high`, the
      size of its source, and `problem`, why a face cannot be read, else None; its pixels in the pack are black.
    - `looks.npy`, uint8 (n, 48, 48), see `look`.
    - `images.npy`, uint8 (n, C, size, size). C is 1 where all faces are gray, else 3. A face
      that is not square is resized to the square as it is, by Pillow's antialiased bilinear.

    A pack that is there stays; one that is damaged is made again, and that is said. All cores decode. What they have
    done stays when they are interrupted, and the next call goes on from there; a second process that wants the same
    pack waits for the first.

    Args:
        read: the faces of a part of the rows in their order, each uint8 (C, h, w), or the error that says why not.
        rows: (n,) rows of the index.
        size: side, px.
        title: what the progress bar says.

    Raises:
        DatasetError: the cache cannot be written, or a decoding process was killed.
    """
    with writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.parent.parent, folder.name, title):
            if is_whole(folder, len(rows), size):
                return
            if folder.is_dir():
                print(f"{folder}: damaged, and made again", file=sys.stderr)
                shutil.rmtree(folder)
            partial = folder.with_name(f".{folder.name}.partial")
            partial.mkdir(exist_ok=True)
            channels = 3 if (partial / "3-channels").exists() else 1
            if not _decode(_Job(partial, read, rows, size, channels), title):  # a colour face among gray ones
                shutil.rmtree(partial)
                partial.mkdir()
                (partial / "3-channels").touch()
                _decode(_Job(partial, read, rows, size, 3), title)
            _gather(partial)
            _publish(partial, folder)


@contextmanager
def alone(cache: Path, name: str, title: str) -> Iterator[None]:
    """A lock between processes, held during the block; a process that comes second says so and waits.

    Args:
        cache: below which the lock file lies.
        name: of the lock.
        title: of what is being done, for the message.
    """
    lock = FileLock(cache / "locks" / f"{name}.lock")
    with writable(cache):
        (cache / "locks").mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{title}: another process is at it; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Job:
    partial: Path  # the folder that grows
    read: Reader
    rows: pd.DataFrame  # of the index
    size: int  # px
    channels: int  # 1 as long as all faces are gray, else 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all images."""
        return len(self.rows), self.channels, self.size, self.size

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """The files of pixels, and their shapes."""
        return {"images.npy": self.shape, "looks.npy": (len(self.rows), SIDE, SIDE)}

    def records(self, start: int) -> Path:
        return self.partial / f"{start:09d}.json"


def _decode(job: _Job, title: str) -> bool:
    """Decode every chunk that is not done yet; False where a face has more channels than the pack."""
    for name, shape in job.arrays.items():
        if not (job.partial / name).exists():
            (job.partial / name).write_bytes(_header(shape))
    starts = [start for start in range(0, len(job.rows), CHUNK) if not job.records(start).exists()]
    console = Console(stderr=True)
    hidden = not console.is_terminal
    parts = _in_processes(job, starts) if len(starts) > 2 else (_decode_part(job, start) for start in starts)
    with closing(parts):
        return all(track(parts, title, total=len(starts), console=console, disable=hidden, transient=True))


def _header(shape: tuple[int, ...]) -> bytes:
    """Of a .npy file of uint8."""
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _in_processes(job: _Job, starts: list[int]) -> Generator[bool]:
    """Decodes chunks by a process per core, and yields for each what `_decode_part` returned.

    Forked, so that what the reader holds (a parsed table of all faces) is there already; nothing of torch runs in them.
    """
    processes = min(len(os.sched_getaffinity(0)), len(starts))
    pool = ProcessPoolExecutor(processes, get_context("fork"), initializer=_begin, initargs=(job,))
    try:
        futures = [pool.submit(_decode_in_process, start) for start in starts]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise DatasetError("a decoding process was killed: out of memory, or by hand. Run again to go on") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_job: _Job  # of this decoding process


def _begin(job: _Job) -> None:
    """A decoding process: it ends with its parent, and leaves signals of the terminal to it."""
    global _job
    _job = job
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _decode_in_process(start: int) -> bool:
    return _decode_part(_job, start)


def _decode_part(job: _Job, start: int) -> bool:
    """Decode one chunk; its records appear when its pixels are written. False where a face has too many channels."""
    rows = job.rows.iloc[start : start + CHUNK]
    n = len(rows)
    pixels = np.zeros((n, *job.shape[1:]), np.uint8)
    looks = np.zeros((n, SIDE, SIDE), np.uint8)
    hashes, constant, widths, heights = [""] * n, [False] * n, [0] * n, [0] * n
    problems: list[str | None] = [None] * n
    k = -1
    for k, face in enumerate(job.read(rows)):
        if isinstance(face, RowError):
            problems[k] = str(face)
            continue
        if len(face) > job.channels:
            return False
        hashes[k], constant[k], looks[k] = pixel_hash(face), bool((face == face[:, :1, :1]).all()), look(face)
        pixels[k] = resized(face, job.size)
        heights[k], widths[k] = face.shape[1:]
    if k + 1 != n:
        raise DatasetError(f"{k + 1} faces were read where the index has {n}. The dataset's read_many is wrong")
    for (name, shape), part in zip(job.arrays.items(), (pixels, looks), strict=True):
        with (job.partial / name).open("r+b") as file:  # a memory map is killed where a disk is full
            file.seek(len(_header(shape)) + start * part[0].size)
            file.write(part.tobytes())
    records = {"hash": hashes, "constant": constant, "px_wide": widths, "px_high": heights, "problem": problems}
    temporary = job.records(start).with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(records), encoding="utf-8")
    os.replace(temporary, job.records(start))
    return True


def _gather(partial: Path) -> None:
    """Joins the chunks' records in one table."""
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(partial.glob("*.json"))]
    columns = {name: [value for part in parts for value in part[name]] for name in _RECORD}
    pd.DataFrame(columns).astype(_RECORD).to_parquet(partial / "records.parquet")
    for path in [*partial.glob("*.json"), partial / "3-channels"]:
        path.unlink(missing_ok=True)


def is_whole(folder: Path, n: int, size: int) -> bool:
    """Whether a pack of n faces of `size` px lies there and all of it can be read, which a damaged disk may prevent."""
    try:
        images, looks = read_images(folder), np.load(folder / "looks.npy", mmap_mode="r")
        shapes = [((n, channels, size, size), (n, SIDE, SIDE)) for channels in (1, 3)]
        return len(read_records(folder)) == n and (images.shape, looks.shape) in shapes
    except (OSError, ValueError, EOFError, KeyError):  # whatever numpy and Parquet say of what is no file of theirs
        return False


def read_images(folder: Path) -> np.ndarray:
    """The images of a pack: a read-only memory map, uint8 (n, C, size, size)."""
    images: np.ndarray = np.load(folder / "images.npy", mmap_mode="r")
    return images


def read_records(folder: Path) -> pd.DataFrame:
    """The records of a pack: `hash`, `constant`, `px_wide`, `px_high` and `problem` of each face, see `write_pack`."""
    return pd.read_parquet(folder / "records.parquet")


def read_copies(folder: Path) -> np.ndarray:
    """(n,) the group of each face of a pack, equal for copies; of faces of one colour equal pixels alone count."""
    records = read_records(folder)
    groups = np.asarray(pd.factorize(records["hash"].where(records["problem"].isna(), records.index.astype(str)))[0])
    varied = np.flatnonzero(~records["constant"] & records["problem"].isna() & ~records["hash"].duplicated())
    looks = np.load(folder / "looks.npy", mmap_mode="r")
    found = copy_groups(np.asarray(looks[varied]))
    joined = np.arange(groups.max() + 1)
    joined[groups[varied]] = groups[varied][np.unique(found, return_index=True)[1]][found]
    return np.asarray(joined[groups])
