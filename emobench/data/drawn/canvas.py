"""What drawings are made with: patches of pixels with soft-edged paint, palettes, noise, and random numbers by key.

Pixels are made by additions, multiplications, divisions and square roots alone, which IEEE 754 rounds alike
everywhere: a picture does not depend on the pictures drawn beside it, nor on the machine (but for the last bit of the
few sines and powers that its parameters need, which could move a grey level by one).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 in drawings (numpy's types cannot follow it through arithmetic), float64 in parameters
NOISE_SIDE = 48  # cells of the noise along a side, whatever the size of the picture


class Patch:
    """A part of the canvas of n faces: its pixels (n, C, h, w) and the place of each on the face (n, h, w)."""

    def __init__(self, pixels: Array, u: Array, v: Array, sharpness: Array) -> None:
        self.pixels, self.u, self.v, self.sharpness = pixels, u, v, sharpness

    def cover(self, depth: Array) -> Array:
        """How much of a pixel lies inside, from the signed distance to the edge (inside is positive)."""
        alpha = depth * self.sharpness
        alpha += 0.5
        return np.clip(alpha, 0, 1, out=alpha)

    def between(self, top: Array, bottom: Array) -> Array:
        """Coverage of what lies between two heights; right also where they are closer than a pixel is wide."""
        alpha = self.cover(self.v - top) - self.cover(self.v - bottom)
        return np.clip(alpha, 0, 1, out=alpha)

    def line(self, distance: Array, half: Array | float) -> Array:
        """Coverage of a line of half width `half`."""
        return self.cover(distance + half) - self.cover(distance - half)

    def paint(self, alpha: Array, colour: Array) -> None:
        """Lays a colour (n, C, 1, 1) over the pixels, alpha (n, h, w)."""
        change = colour - self.pixels
        change *= alpha[:, None]
        self.pixels += change

    def shade(self, alpha: Array) -> None:
        """Darkens the pixels by the share alpha (n, h, w); negative values lighten."""
        self.pixels *= (1 - alpha)[:, None]


def column(values: Array) -> Array:
    """(n,) or (n, 2) as float32 (n, 1, 1) or (n, 2, 1)."""
    return np.ascontiguousarray(values, np.float32).reshape(len(values), -1, 1)


def wave(x: Array) -> Array:
    """A smooth wave of period 1 between -1 and 1, without a sine."""
    t = np.asarray(2 * np.abs(x - np.rint(x)), np.float32)
    return t * t * (6 - 4 * t) - 1


def pick(palette: tuple[tuple[float, ...], ...], tone: Array) -> Array:
    """The colour (n, 3) at each tone (n, 1, 1) of 0..1, between its neighbours in the palette."""
    colours = np.array(palette, np.float32)
    place = np.clip(tone.reshape(-1, 1), 0, 1) * (len(colours) - 1)
    low = np.minimum(place.astype(int), len(colours) - 2)
    start, end = colours[low[:, 0]], colours[low[:, 0] + 1]
    return np.asarray(start + (place - low) * (end - start), np.float32)


@cache
def _grain() -> NDArray[np.float32]:
    """A sheet of noise (256, 256), mean 0 and standard deviation 1; each face takes a piece of it."""
    n = 256
    total = uniform(np.arange(n * n, dtype=np.uint64), 4).sum(axis=1)  # of four: near enough to normal
    return np.asarray((total - 2) * np.sqrt(3), np.float32).reshape(n, n)


def noise(x: Array, y: Array, size: int) -> Array:
    """Noise (n, size, size) of `NOISE_SIDE` cells a side, from the places x, y (n, 1, 1) in 0..1 of the sheet."""
    sheet, side = _grain(), NOISE_SIDE
    room = len(sheet) - side
    corners = zip((y.ravel() * room).astype(int).tolist(), (x.ravel() * room).astype(int).tolist(), strict=True)
    cells: Array = np.stack([sheet[top : top + side, left : left + side] for top, left in corners])
    if size == side:
        return cells
    centres = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(side / size) - 0.5
    place = np.clip(centres, 0, side - 1)
    low = np.minimum(place.astype(int), side - 2)
    share = place - low
    cells = cells[:, low] + share[:, None] * (cells[:, low + 1] - cells[:, low])
    return cells[:, :, low] + share * (cells[:, :, low + 1] - cells[:, :, low])  # type: ignore[no-any-return]  # too


def uniform(keys: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for each key (N,), as (N, count): the same for a key whatever stands beside it.

    Splitmix64 (Steele, Lea & Flood 2014): each number is a hash of its key and its place.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    state = mix(keys)[:, None] + golden * np.arange(1, count + 1, dtype=np.uint64)
    return (mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: a hash of 64 bits to 64 bits, each of which depends on all."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
