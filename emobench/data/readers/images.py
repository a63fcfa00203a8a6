"""Image files decoded to uint8 arrays; one that is not intact is an error with its name."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from emobench.errors import RowError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
MAX_PIXELS = 64_000_000  # larger pictures are refused by their header

_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
_READ_PACKED = ([".csv", ".gz"], [".csv", ".xz"])
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no EPS: it starts another program
_REMEDY = "Replace the file by an intact copy, or remove it."


def is_archive(path: Path) -> bool:
    """Whether a path looks like something to be unpacked first; .csv.gz and .csv.xz are read as they are."""
    packed = path.suffix.lower() in _ARCHIVES or ".7z" in path.suffixes  # x.7z.001 is a part of one
    return packed and path.is_file() and [suffix.lower() for suffix in path.suffixes[-2:]] not in _READ_PACKED


def read_face(path: Path, upright: bool = True) -> np.ndarray:
    """An image file as uint8 (C, h, w): one channel where it is gray, else RGB.

    Transparent pixels are shown on white, 16-bit values are rescaled (65,535 becomes 255); of several frames the first
    counts.

    Args:
        upright: apply an EXIF orientation; boxes are measured on the pixels as they are stored.

    Raises:
        RowError: the file is no intact image, has more than `MAX_PIXELS`, or values without a fixed range.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            with Image.open(path, formats=_FORMATS) as picture:
                _refuse_huge(path, picture.width, picture.height)
                return _to_array(path, ImageOps.exif_transpose(picture) if upright else picture)
    except Image.DecompressionBombError as error:
        raise RowError(path, None, None, str(error), "Scale the picture down.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error) as error:
        raise RowError(path, None, None, f"not an intact image ({_reason(path, error)})", _REMEDY) from error


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


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        head = path.read_bytes()[:64].lstrip().lower()
        if not head:
            return "0 bytes"
        return "a web page" if head.startswith((b"<!doctype", b"<html")) else "of no known image format"
    return str(error).replace(str(path), path.name)


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
