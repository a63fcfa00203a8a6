"""What a map says that tells where a classifier looks: how much of it lies in a region, and what it finds that counts.

Shapes: N faces, S × S pixels, g × g cells, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def upsampled(cells: Floats, side: int) -> NDArray[np.float64]:
    """Maps (N, g, g) as (N, side, side): bilinear between the middles of cells, the outermost ones held to the edge."""
    weights = _between(cells.shape[-1], side)
    return np.asarray(np.einsum("ij,njk,lk->nil", weights, np.asarray(cells, np.float64), weights))


def _between(cells: int, side: int) -> NDArray[np.float64]:
    """(side, cells) how much each pixel of a line takes from each cell."""
    place = np.clip((np.arange(side) + 0.5) * cells / side - 0.5, 0, cells - 1)
    low = np.minimum(place.astype(int), max(cells - 2, 0))
    weights = np.zeros((side, cells))
    weights[np.arange(side), low] = 1 - (place - low)
    if cells > 1:
        weights[np.arange(side), low + 1] += place - low
    return weights


def share_within(maps: Floats, regions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N,) the share of each map that lies in its region; NaN where the map is 0 everywhere.

    Args:
        maps: (N, S, S), none below 0.
        regions: (N, S, S).
    """
    whole = np.asarray(maps, np.float64).sum((1, 2))
    inside = np.where(regions, maps, 0.0).sum((1, 2))
    return np.asarray(np.divide(inside, whole, out=np.full(len(whole), np.nan), where=whole > 0))


def area_of(regions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N,) the share of the pixels that lies in each region."""
    return np.asarray(regions.mean((1, 2)), np.float64)


def order(maps: Floats, seed: int) -> NDArray[np.int64]:
    """(N, S²) the pixels of each map, the highest first; equal ones in an order by lot, the same for all maps."""
    flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
    lot = np.random.default_rng(seed).permutation(flat.shape[1])
    return lot[np.argsort(-flat[:, lot], axis=1, kind="stable")]


def curves(
    answer: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    faces: NDArray[np.uint8],
    mean: NDArray[np.uint8],
    ranked: NDArray[np.int64],
    points: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The probability of an answer while a face's pixels give way to those of the mean face, and the other way round.

    Deletion and insertion of Petsiuk, Das and Saenko 2018 (section 3.3), with the mean face in the place of their gray
    and blurred pictures: what is left is a face at every step.

    Args:
        answer: faces uint8 (N, C, S, S) to the probability (N,) of what is explained.
        faces: uint8 (N, C, S, S).
        mean: uint8 (C, S, S).
        ranked: (N, S²) the pixels of each face, those first that count most.
        points: P, from no pixel to all of them.

    Returns:
        Deletion (N, P) and insertion (N, P).
    """
    n, _, side, _ = faces.shape
    background = np.broadcast_to(mean, faces.shape)
    place = np.empty_like(ranked)
    np.put_along_axis(place, ranked, np.broadcast_to(np.arange(side * side), ranked.shape), 1)  # (N, S²) rank of each
    place = place.reshape(n, 1, side, side)
    deleted, inserted = np.empty((2, n, points))
    for k in range(points):
        first = place < round(side * side * k / (points - 1))  # (N, 1, S, S)
        deleted[:, k] = answer(np.where(first, background, faces))
        inserted[:, k] = answer(np.where(first, faces, background))
    return deleted, inserted


def area_under(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) the mean height of curves (N, P) whose points are evenly spaced, by the trapezoid rule."""
    return np.asarray((curve[:, 1:] + curve[:, :-1]).mean(1) / 2, np.float64)
