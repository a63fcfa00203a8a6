"""A picture for the style of each emotion: the user's own, or drawn here, so that nobody's paintings are needed.

The document took paintings and pictures made by DALL-E, which are not ours to give. What a style loss sees of a picture
is its colours and its texture (Gatys et al. 2016, section 2.2), and these are drawn: every picture has the palette and
the stroke of its emotion. Lengths are in strokes' units, of which one is a pixel at 256 px; a smaller picture shows
fewer strokes rather than finer ones, so that there is a texture to learn at 32 px too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from emobench.emotions import EMOTIONS, canonical, is_emotion
from emobench.errors import SuiteError

Array = NDArray[Any]  # float32 fields (side, side), but for colours, which are (3, side, side)
Palette = tuple[tuple[float, float, float], ...]  # RGB in 0..1

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no EPS: it starts another program
_LARGEST, _MOST_PIXELS = 256 * 2**20, 64_000_000  # bytes and pixels: what is larger is never decoded
_TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE"}
_TURNS[8] = "ROTATE_90"  # of an EXIF orientation: how the stored pixels come upright
_FINER = 2  # drawn so many times finer than asked for, and averaged: strokes get soft edges


def picture(emotion: str, size: int) -> NDArray[np.uint8]:
    """The built-in style of an emotion, uint8 (3, size, size): the same whenever it is drawn.

    Raises:
        DatasetError: an unknown emotion.
    """
    name = canonical(emotion)
    colours = _DRAWN[name](_Canvas(size, EMOTIONS.index(name)))
    averaged: Array = colours.reshape(3, size, _FINER, size, _FINER).mean((2, 4))
    return np.asarray(np.rint(averaged.clip(0, 1) * 255), np.uint8)


# The user's own


def folder_pictures(folder: str, emotions: Sequence[str]) -> dict[str, Path]:
    """The picture of each emotion in a folder, by its name: happy.jpg, Anger.png, sadness.webp ...

    Raises:
        SuiteError: there is no such folder, or it has none or several pictures of an emotion.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise SuiteError(f"styles = {folder!r}: {place} is no folder. Name one with a picture for each emotion")
    found: dict[str, list[Path]] = {}
    for path in sorted(place.iterdir()):
        if path.suffix.lower() in SUFFIXES and is_emotion(path.stem):
            found.setdefault(canonical(path.stem), []).append(path)
    missing = [emotion for emotion in emotions if emotion not in found]
    if missing:
        there = ", ".join(path.name for paths in found.values() for path in paths) or "none"
        raise SuiteError(
            f"{place}: no picture of {', '.join(missing)}. Add {missing[0]}.jpg or another picture of that name, "
            f"or leave styles out for the built-in ones. Pictures there: {there}"
        )
    for emotion in emotions:
        if len(found[emotion]) > 1:
            names = ", ".join(path.name for path in found[emotion])
            raise SuiteError(f"{place}: several pictures of {emotion}: {names}. Keep one of them")
    return {emotion: found[emotion][0] for emotion in emotions}


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """The middle square of a picture, uint8 (3, size, size): its strokes keep their proportions.

    Raises:
        SuiteError: it cannot be read.
    """
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise OSError(f"no regular file of at most {_LARGEST >> 20} MiB")
        with Image.open(path, formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise OSError(f"{opened.width} x {opened.height} pixels, more than {_MOST_PIXELS // 10**6} million")
            upright = _upright(opened).convert("RGBA")
        ground = Image.new("RGBA", upright.size, "white")
        flat = Image.alpha_composite(ground, upright).convert("RGB")
    except Exception as error:  # decoders raise what they like
        raise SuiteError(
            f"{path}: this picture of {canonical(path.stem)} cannot be read ({error}). Replace it by an intact one"
        ) from None
    fitted = ImageOps.fit(flat, (size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _upright(picture: Image.Image) -> Image.Image:
    """A picture as its orientation says; whatever else its metadata holds, and however broken they are, counts not."""
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None
    return picture if turn is None else picture.transpose(Image.Transpose[turn])


# What the built-in ones are drawn with


class _Canvas:
    """The places x, y (side, side) of a picture, and random fields over them."""

    def __init__(self, size: int, seed: int) -> None:
        self.span = np.float32(16 * np.sqrt(size))
        places = (np.arange(_FINER * size, dtype=np.float32) + 0.5) * (self.span / (_FINER * size))
        self.x, self.y = np.meshgrid(places, places)
        self.random = np.random.default_rng(seed)

    def noise(self, u: Array, v: Array, turn: int = 64) -> Array:
        """Smooth random values 0..1 over cells of side 1; repeats after 64 cells of u and `turn` of v."""
        sheet = self.random.random(64 * turn, np.float32)
        (i, share_u), (j, share_v) = _cell(u, 64), _cell(v, turn)
        row, below, right = i * turn, (i + 1) % 64 * turn, (j + 1) % turn
        first, second = sheet.take(row + j), sheet.take(below + j)
        first += share_v * (sheet.take(row + right) - first)
        second += share_v * (sheet.take(below + right) - second)
        return first + share_u * (second - first)  # type: ignore[no-any-return]

    def drift(self, over: float, by: float) -> Array:
        """A slow random change of place, within ±`by`, over lengths of about `over`."""
        return (self.noise(self.x / over, self.y / over) - 0.5) * (2 * by)

    def around(self, centres: Array, reach: float = np.inf) -> tuple[Array, Array, Array]:
        """Of every place, the nearest of centres (n, 2): its distance, direction in 0..1, and number.

        Args:
            reach: a centre is looked for within this distance, along x and y.
        """
        number, nearest = np.zeros(self.x.shape, np.intp), np.full_like(self.x, np.inf)
        fine = self.x.shape[0] / self.span
        for each, centre in enumerate(centres):
            low, high = (np.clip((centre + side) * fine, 0, len(number)) for side in (-reach, reach))
            part = slice(int(low[1]), int(high[1]) + 1), slice(int(low[0]), int(high[0]) + 1)
            squared = (self.x[part] - np.float32(centre[0])) ** 2 + (self.y[part] - np.float32(centre[1])) ** 2
            closer = squared < nearest[part]
            np.copyto(nearest[part], squared, where=closer)
            np.copyto(number[part], each, where=closer)
        column, row = (places.take(number) for places in centres.T.astype(np.float32))
        turned = np.arctan2(self.y - row, self.x - column) / np.float32(2 * np.pi)
        return np.sqrt(nearest), turned % 1, number

    def scattered(self, step: float) -> Array:
        """Centres (n, 2) all over the picture, about `step` apart."""
        grid = np.arange(-step / 2, self.span + step, step)
        places = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
        places[(np.arange(len(places)) // len(grid)) % 2 == 1, 0] += step / 2  # rows in quincunx
        return places + self.random.uniform(-0.28, 0.28, places.shape) * step


def _cell(u: Array, period: int) -> tuple[Array, Array]:
    """The cell of each place, and how far into it, eased."""
    low = np.floor(u)
    return low.astype(np.int32) % period, _eased(u - low)


def _eased(t: Array) -> Array:
    """0..1 to 0..1 without a corner at the ends; what lies outside is cut off."""
    t = np.clip(t, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _contrast(t: Array, low: Array | float, high: Array | float) -> Array:
    """From 0 below `low` to 1 above `high`."""
    return _eased((t - low) / (high - low))


def _wave(t: Array) -> Array:
    """0..1..0, with period 1."""
    return 0.5 - 0.5 * np.cos(t * np.float32(2 * np.pi))


def _coloured(palette: Palette, tone: Array) -> Array:
    """Colours (3, side, side) at tones 0..1 of a palette."""
    place = np.clip(tone, 0, 1) * np.float32(len(palette) - 1)
    low = np.minimum(place.astype(np.int32), len(palette) - 2)
    share, colours = place - low, np.array(palette, np.float32).T  # colours (3, stops)
    steps = np.diff(colours)
    return np.stack([channel.take(low) + share * step.take(low) for channel, step in zip(colours, steps, strict=True)])


def _laid(ground: Array, alpha: Array, colour: Array | tuple[float, float, float]) -> Array:
    """A colour, or colours, laid over a ground where alpha is 1."""
    over = np.asarray(colour, np.float32)
    over = over if over.ndim == 3 else over[:, None, None]
    return ground + alpha * (over - ground)


# The eight


def _neutral(c: _Canvas) -> Array:
    """Undyed linen: threads over and under one another."""
    x, y = c.x + c.drift(40, 2), c.y + c.drift(40, 2)
    column, row = x / 7, y / 7
    over = (np.floor(column) + np.floor(row)) % 2 == 0  # the upright thread lies above
    across, along = np.where(over, column, row) % 1, np.where(over, row, column) % 1
    relief = np.sin(np.pi * across) * (0.55 + 0.45 * np.sin(np.pi * along))
    thread = np.where(over, c.noise(np.floor(column) * 1.37, y / 60), c.noise(np.floor(row) * 1.37, x / 60))
    fibre = np.where(over, c.noise(x / 1.6, y / 9), c.noise(y / 1.6, x / 9))
    palette = ((0.36, 0.33, 0.29), (0.66, 0.61, 0.54), (0.83, 0.78, 0.70), (0.94, 0.91, 0.86))
    return _coloured(palette, 0.62 * relief + 0.28 * thread + 0.22 * fibre - 0.06)


def _happy(c: _Canvas) -> Array:
    """Suns, with strokes that circle around them, and dots of light."""
    centres = np.array([(0.30, 0.32), (0.86, 0.74), (0.12, 0.95), (0.95, 0.05)]) * c.span
    distance, direction, _ = c.around(centres)
    distance = distance + c.drift(26, 5)
    stroke = _contrast(c.noise(distance / 4.5, direction * 26, 26), 0.25, 0.75)
    ring = _wave(distance / 13)
    palette = ((0.86, 0.30, 0.08), (0.97, 0.55, 0.08), (1.00, 0.80, 0.16), (1.00, 0.95, 0.62))
    picture = _coloured(palette, 0.50 * stroke + 0.34 * ring + 0.30 * np.exp(-distance / 34))
    apart, _, number = c.around(c.scattered(20), 30)
    light = np.where(number % 3 == 0, 1 - _contrast(apart, 2.4, 3.4), 0)
    blush = np.where(number % 3 == 1, 1 - _contrast(apart, 2.0, 3.0), 0)
    return _laid(_laid(picture, light, (1.0, 0.99, 0.88)), blush, (0.93, 0.28, 0.30))


def _sad(c: _Canvas) -> Array:
    """Rain down a window at dusk."""
    x = c.x + c.drift(50, 4)
    streak = c.noise(x / 3.4, c.y / 46)
    shower = c.noise(x / 11, c.y / 80)
    picture = _coloured(
        ((0.10, 0.15, 0.26), (0.24, 0.34, 0.49), (0.43, 0.53, 0.64), (0.66, 0.72, 0.77)),
        _contrast(streak, 0.1, 0.9) * 0.72 + shower * 0.34 - 0.04,
    )
    drop = _contrast(c.noise(x / 2.2, c.y / 22), 0.74, 0.86)
    return _laid(picture, 0.8 * drop, (0.83, 0.88, 0.90))


_BRIGHT = (
    (1.0, 0.80, 0.1),
    (0.98, 0.2, 0.5),
    (0.05, 0.7, 0.92),
    (0.98, 0.45, 0.1),
    (0.5, 0.25, 0.85),
    (0.2, 0.8, 0.45),
)


def _surprise(c: _Canvas) -> Array:
    """Bursts in every colour, from many places at once, as comics draw them."""
    centres = c.scattered(60)
    distance, direction, number = c.around(centres, 90)
    number = c.random.permutation(len(centres))[number]
    first, second = number % 6, (number + 1 + number // 6 % 5) % 6  # never the same
    one, other = (np.moveaxis(np.array(_BRIGHT, np.float32)[each], -1, 0) for each in (first, second))
    dark, white = (0.10, 0.07, 0.30), (1.0, 0.98, 0.90)
    point = np.abs((direction * (8 + number % 4) + 0.01 * c.drift(9, 8)) % 1 * 2 - 1)  # 1 along a ray's middle
    picture = _laid(one, _contrast(point, 0.45, 0.55), white)
    for size, ink in ((1.0, other), (0.5, np.asarray(white)[:, None, None])):
        star = distance - size * (9 + 19 * point**1.5)  # below 0 within
        picture = _laid(picture, 1 - _contrast(star, 0.8, 2.0), dark)
        picture = _laid(picture, 1 - _contrast(star, -1.4, -0.4), ink)
    apart, _, spark = c.around(c.scattered(14), 21)
    outside = _contrast(distance - 9 - 19 * point**1.5, 2.5, 3.5)
    return _laid(picture, np.where(spark % 2 == 0, 1 - _contrast(apart, 1.5, 2.5), 0) * outside, dark)


def _fear(c: _Canvas) -> Array:
    """Lines that waver around one place under a dark sky, as in Munch's 'The Scream'."""
    x, y = c.x + c.drift(48, 22), c.y + c.drift(48, 22)
    away = np.sqrt((x - 0.64 * c.span) ** 2 + (1.5 * (y - 0.36 * c.span)) ** 2) + 3 * np.sin(x / 9)
    line = _contrast(_wave(away / 11), 0.25, 0.75)
    stroke = c.noise(away / 3, (x - y) / 34)
    glow = _contrast(c.noise(away / 30, (x + y) / 90), 0.45, 0.8)
    night = _coloured(((0.03, 0.02, 0.08), (0.17, 0.08, 0.27), (0.38, 0.20, 0.50)), 0.45 * stroke + 0.65 * line)
    marsh = _coloured(((0.04, 0.10, 0.09), (0.10, 0.34, 0.26), (0.55, 0.68, 0.34)), 0.5 * stroke + 0.55 * line)
    return _laid(night, np.clip(0.15 + glow * (0.4 + line), 0, 1), marsh)


def _disgust(c: _Canvas) -> Array:
    """Mould and slime: blotches with dark rims, and bubbles."""
    x, y = c.x + c.drift(14, 6), c.y + c.drift(14, 6)
    blotch = 0.65 * c.noise(x / 15, y / 15) + 0.35 * c.noise(x / 6, y / 6)
    fine = c.noise(x / 2.6, y / 2.6)
    picture = _coloured(
        ((0.17, 0.13, 0.05), (0.37, 0.28, 0.10), (0.45, 0.46, 0.13), (0.62, 0.66, 0.22), (0.76, 0.77, 0.42)),
        _contrast(blotch, 0.2, 0.8) * 0.85 + 0.3 * (fine - 0.4),
    )
    rim = 1 - _contrast(np.abs(blotch - 0.5), 0.015, 0.045)
    picture = _laid(picture, 0.7 * rim, (0.13, 0.14, 0.04))
    distance, _, number = c.around(c.scattered(17), 26)
    radius = 2.2 + number % 4 * 1.1
    picture = _laid(picture, 1 - _contrast(np.abs(distance - radius), 0.5, 1.3), (0.16, 0.19, 0.05))
    return _laid(picture, 0.8 * (1 - _contrast(distance, 0.35 * radius, 0.6 * radius)), (0.80, 0.84, 0.45))


def _anger(c: _Canvas) -> Array:
    """Slashes of red and black, with edges like broken glass."""
    down, up = (c.x + c.y) / np.float32(np.sqrt(2)), (c.x - c.y) / np.float32(np.sqrt(2))
    zigzag = np.abs(up / 15 % 2 - 1) * 13
    across = down + zigzag + c.drift(30, 9)
    slash = across / 12 % 1  # a saw's tooth: sharp on one side
    stroke = _contrast(c.noise(across / 2.6, up / 24), 0.2, 0.8)
    rage = c.noise(across / 24, up / 60)
    palette = ((0.03, 0.01, 0.01), (0.25, 0.01, 0.02), (0.66, 0.04, 0.03), (0.90, 0.13, 0.04), (1.0, 0.50, 0.08))
    picture = _coloured(palette, 0.62 * slash + 0.28 * stroke + 0.5 * rage - 0.25)
    cut = _contrast(c.noise(down / 3, up / 40), 0.72, 0.80)
    return _laid(picture, cut, (0.04, 0.0, 0.01))


def _contempt(c: _Canvas) -> Array:
    """A cold engraving: slanted hatches, crossed where it is dark."""
    tone = _contrast(0.7 * c.noise(c.x / 44, c.y / 44) + 0.3 * c.noise(c.x / 15, c.y / 15), 0.2, 0.8)
    slanted, crossing = 0.91 * c.x + 0.42 * c.y + c.drift(34, 2), 0.42 * c.x - 0.91 * c.y + c.drift(34, 2)
    picture = _coloured(((0.50, 0.49, 0.60), (0.74, 0.73, 0.82), (0.88, 0.88, 0.93)), tone)
    hatch = 1 - _contrast(_wave(slanted / 7), 0.75 - 0.6 * tone, 1.0 - 0.6 * tone)
    cross = 1 - _contrast(_wave(crossing / 7), 0.55 - 0.9 * tone, 0.80 - 0.9 * tone)
    picture = _laid(picture, 0.8 * (1 - hatch), (0.30, 0.24, 0.42))
    return _laid(picture, 0.75 * cross, (0.20, 0.15, 0.33))


_DRAWN: dict[str, Callable[[_Canvas], Array]] = {
    "neutral": _neutral,
    "happy": _happy,
    "sad": _sad,
    "surprise": _surprise,
    "fear": _fear,
    "disgust": _disgust,
    "anger": _anger,
    "contempt": _contempt,
}
