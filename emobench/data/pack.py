"""Faces decoded once: a packed uint8 memory map per dataset, size and content, with the pixel hash of every face."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from emobench.errors import DatasetError, RowError


def default_cache() -> Path:
    """Where packs and indices are kept: `EMOBENCH_CACHE`, else `~/.cache/emobench`."""
    return Path(os.environ.get("EMOBENCH_CACHE") or Path.home() / ".cache" / "emobench")


def pixel_hash(face: np.ndarray) -> str:
    """A 128-bit hash of a face's shape and pixels, uint8 (C, h, w), at the resolution of its source."""
    return hashlib.blake2b(repr(face.shape).encode() + face.tobytes(), digest_size=16).hexdigest()


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` in one step when the block ends without an error.

    Whoever comes second keeps the first one's: equal names have equal content.

    Raises:
        DatasetError: the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        remedy = "Set EMOBENCH_CACHE to a folder that can be written"
        raise DatasetError(f"cannot write {folder.parent} ({error.strerror}). {remedy}") from error
    try:
        yield scratch
        try:
            os.replace(scratch, folder)
        except OSError:
            if not folder.is_dir():  # not another process's
                raise
    except OSError as error:
        remedy = "Free some space, or set EMOBENCH_CACHE to another folder"
        raise DatasetError(f"cannot write {folder} ({error.strerror or error}). {remedy}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


Reader = Callable[[], Iterator[np.ndarray | RowError]]


def write_pack(folder: Path, read: Reader, n: int, size: int, title: str) -> None:
    """Write `images.npy`, uint8 (n, C, size, size), and `hashes.npy`, (n,), below `folder`, atomically.

    C is 1 where all faces are gray, else 3. A face that is not square is resized to the square as it is; resizing is
    Pillow's antialiased bilinear. Written as a stream: a full disk is an error, while a memory map would be killed.

    Args:
        read: starts the faces from the first, each uint8 (C, h, w) or the error that says why it cannot be read.
        n: number of faces.
        size: side, px.
        title: what the progress bar says.

    Raises:
        DatasetError: faces that cannot be read (all of them are named), or the cache cannot be written.
    """
    with published(folder) as scratch:
        hashes = _write_images(scratch / "images.npy", read, (n, 1, size, size), title)
        if hashes is None:  # a colour face among gray ones: once more, all in colour
            hashes = _write_images(scratch / "images.npy", read, (n, 3, size, size), title)
        np.save(scratch / "hashes.npy", np.array(hashes, "S32"))


def _write_images(path: Path, read: Reader, shape: tuple[int, int, int, int], title: str) -> list[str] | None:
    """The faces' pixel hashes, or None when `shape` has one channel and a face has three."""
    n, channels, size, _ = shape
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    hashes: list[str] = []
    unreadable: list[RowError] = []
    console = Console(stderr=True)
    with path.open("wb", buffering=1 << 20) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for face in track(read(), title, total=n, console=console, disable=not console.is_terminal, transient=True):
            if isinstance(face, RowError):
                unreadable.append(face)
                continue
            if len(face) > channels:
                return None
            hashes.append(pixel_hash(face))
            file.write(np.broadcast_to(_resized(face, size), shape[1:]).tobytes())
    _refuse(unreadable, n)
    if len(hashes) != n:
        raise DatasetError(f"{title}: {len(hashes)} faces were read where the index has {n}. Its read_many is wrong")
    return hashes


def _refuse(unreadable: list[RowError], n: int) -> None:
    """What happens to unreadable faces: the dataset is refused, and every one is named."""
    if unreadable:
        lines = "\n".join(f"  {error}" for error in unreadable)
        raise DatasetError(f"{len(unreadable)} of {n} faces cannot be read:\n{lines}")


def _resized(face: np.ndarray, size: int) -> np.ndarray:
    """uint8 (C, h, w) -> (C, size, size)."""
    if face.shape[1:] == (size, size):
        return face
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR) for plane in face]
    return np.stack([np.asarray(plane) for plane in planes])


def read_pack(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images, hashes) of a pack: a read-only memory map uint8 (N, C, size, size), and str (N,)."""
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "hashes.npy").astype(str)
