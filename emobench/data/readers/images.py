"""Image files decoded to uint8 arrays; one that is not intact is an error with its name."""

from __future__ import annotations

import os
import stat
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from emobench.data.readers.files import HEAD, pointer, read_whole
from emobench.data.readers.metadata import bare, orientation
from emobench.errors import RowError

SUFFIXES = frozenset(  # that only pictures have; a picture under another name is known by its content
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"}
    | {".heic", ".heif", ".avif"}
)
MAX_PIXELS = 64_000_000  # larger pictures are refused by their header

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
_READ_PACKED = ([".csv", ".gz"], [".csv", ".xz"])
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no EPS: it starts another program
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_RAW = frozenset({".cr2", ".nef", ".nrw", ".arw", ".dng", ".orf", ".pef", ".rw2", ".srw"})  # begin as TIFF does
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TURNS = {  # of an EXIF orientation: how the stored pixels come upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REMEDY = "Replace the file by an intact copy, or remove it."


def is_archive(path: Path) -> bool:
    """Whether a path looks like something to be unpacked first; .csv.gz and .csv.xz are read as they are."""
    packed = path.suffix.lower() in _ARCHIVES or ".7z" in path.suffixes  # x.7z.001 is a part of one
    return packed and path.is_file() and [suffix.lower() for suffix in path.suffixes[-2:]] not in _READ_PACKED


def is_picture(path: Path | str) -> bool:
    """Whether a file is a picture by its suffix, or else by the first bytes of its content."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return True
    try:
        if suffix in _RAW or not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    if head[:4] == b"RIFF" or head[4:8] == b"ftyp":
        return head[8:12] in (b"WEBP", b"avif", b"avis", *_HEIF_BRANDS)
    return head.startswith(_BEGINNINGS)


def read_face(path: Path, upright: bool = True) -> np.ndarray:
    """An image file as uint8 (C, h, w): one channel where it is gray, else RGB.

    Transparent pixels are shown on white, 16-bit values are rescaled (65,535 becomes 255); of several frames the first
    counts. Of the metadata the orientation alone is read: a broken tag, profile or comment costs no face.

    Args:
        upright: apply an orientation; boxes are measured on the pixels as they are stored.

    Raises:
        RowError: the file is no intact image, has more than `MAX_PIXELS`, or values without a fixed range; whatever a
            decoder raises becomes one.
    """
    data = read_whole(path)
    if said := pointer(data[:HEAD]):
        raise RowError(path, None, None, *said)
    try:
        return _decoded(path, data, upright)
    except RowError:
        raise
    except Image.DecompressionBombError as error:
        raise RowError(path, None, None, str(error), "Scale the picture down.") from error
    except Exception as error:  # decoders raise what they like, such as OverflowError or ZeroDivisionError
        raise RowError(path, None, None, f"not an intact image ({_reason(data, error)})", _REMEDY) from error


def read_bytes(path: Path, data: bytes) -> np.ndarray:
    """A picture that lies in another file, such as a table, as `read_face` gives one that is a file of its own.

    Args:
        path: how errors name it.

    Raises:
        RowError: see `read_face`.
    """
    try:
        return _decoded(path, data, upright=True)
    except RowError:
        raise
    except Image.DecompressionBombError as error:
        raise RowError(path, None, None, str(error), "Scale the picture down.") from error
    except Exception as error:  # decoders raise what they like
        raise RowError(path, None, None, f"not an intact image ({_reason(data, error)})", _REMEDY) from error


def _decoded(path: Path, data: bytes, upright: bool) -> np.ndarray:
    """uint8 (C, h, w) of a file's bytes."""
    needed, turn = bare(data)
    heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if heif and not _reads_heif():
        found = "a HEIC picture, as phones take them, which needs pillow-heif"
        raise RowError(path, None, None, found, "Install it (`pip install 'emobench[heif]'`), or save it as JPEG.")
    formats = [*_FORMATS, *(["AVIF"] if features.check("avif") else []), *(["HEIF"] if heif else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders; our own limit of pixels is lower than Pillow's
        with Image.open(BytesIO(needed), formats=formats) as picture:
            _refuse_huge(path, picture.width, picture.height)
            if picture.mode == "I" and picture.format == "TIFF":  # of other formats, 16 bits come as this mode too
                raise RowError(path, None, None, "32-bit pixels have no fixed range", "Save it with 8 or 16 bits.")
            if picture.format in ("WEBP", "AVIF", "HEIF") and isinstance(exif := picture.info.get("exif"), bytes):
                turn = orientation(exif)
            picture.load()
            return _to_array(path, picture.transpose(_TURNS[turn]) if upright and turn in _TURNS else picture)


@cache
def _reads_heif() -> bool:
    """Whether pillow-heif is there; it is then one of Pillow's decoders, which turns its pictures upright itself."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def crop(path: Path, picture: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The part of a picture, uint8 (C, h, w), within a box, px; its right and bottom edges are exclusive.

    A box that reaches over the picture's edge is cut off there.

    Args:
        path: of the picture, for errors.

    Raises:
        RowError: the box and the picture have no pixel in common.
    """
    _, height, width = picture.shape
    part = picture[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if part.size == 0:
        found = f"the box from ({left}, {top}) to ({right}, {bottom}) holds nothing of its {width} x {height} pixels"
        raise RowError(path, None, None, found, "Correct the box, or remove its row.")
    return part


def resized(face: np.ndarray, size: int) -> np.ndarray:
    """uint8 (C, h, w) -> (C, size, size), by Pillow's antialiased bilinear interpolation, whatever the aspect ratio."""
    if face.shape[1:] == (size, size):
        return face
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR) for plane in face]
    return np.stack([np.asarray(plane) for plane in planes])


def _refuse_huge(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        found = f"{width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million"
        raise RowError(path, None, None, found, "Scale the picture down.")


def _reason(data: bytes, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        head = data[:64].lstrip().lower()
        if not head:
            return "0 bytes"
        return "a web page" if head.startswith((b"<!doctype", b"<html")) else "of no known image format"
    return str(error) or type(error).__name__


def _to_array(path: Path, picture: Image.Image) -> np.ndarray:
    """uint8 (C, h, w) from any Pillow mode."""
    if picture.mode == "F":
        raise RowError(path, None, None, "floating-point pixels have no fixed range", "Save it with 8 or 16 bits.")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _from_16_bit(path, np.asarray(picture))
    if picture.has_transparency_data:
        colour = picture.mode not in ("LA", "La")
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        picture = Image.alpha_composite(ground, layer).convert("RGB" if colour else "L")
    if picture.mode == "1":
        picture = picture.convert("L")
    if picture.mode == "L":
        return np.asarray(picture)[None]  # (1, h, w)
    return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))  # (3, h, w)


def _from_16_bit(path: Path, values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65_535:
        raise RowError(path, None, None, "32-bit pixels have no fixed range", "Save it with 8 or 16 bits.")
    return np.rint(values[None] / 257).astype(np.uint8)  # (1, h, w)
