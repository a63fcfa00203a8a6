"""Copies of faces: mirrored, a little turned, lighter or darker, compressed or noisy ones, found as groups.

Two faces are copies where, once one is mirrored and turned as fits best, the pixels of their inscribed discs correlate
by at least `ALIKE` and no patch differs by more than `PATCH` of the contrast: a copy differs a little everywhere, two
different faces in one light differ at the eyes or the mouth. The limits were set on FER-2013's training faces.

The search compares all faces, in memory that does not grow with the pairs that look alike: a face that is near an
earlier one, its leader, stands back, and only leaders are compared mirrored and turned.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

SIDE = 48  # px of the gray faces that are compared
ALIKE = 0.95  # least correlation
PATCH = 0.013  # largest squared difference within a patch of normalised faces, share of the whole contrast
MOST_TURNED = 15  # degrees, either way
STEP = 5  # degrees, of the search; the comparison itself has half of it

_POOLED = 8  # the search sees 8×8 means of the disc
_CANDIDATE = 0.94  # least correlation of these
_PATCHES = 6  # a side
_CANDIDATES = 4  # of each face and mirroring or turning, the nearest ones
_BLOCK = 2048  # faces at a time

Floats = NDArray[np.float32]


def copy_groups(looks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n,) the number of each face's group: equal for copies.

    Args:
        looks: (n, 48, 48) gray faces, none of them of one colour.
    """
    n = len(looks)
    if n == 0:
        return np.empty(0, np.int64)
    leaders, pairs = _leaders(looks)
    pairs += [leaders[found] for found in _transformed(looks[leaders])]
    first, second = np.concatenate([np.empty((0, 2), np.int64), *pairs]).T
    edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


# ---- the search ------------------------------------------------------------------------------------------------------


def _leaders(looks: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The faces that are copies of no earlier one as they are, and pairs (leader, face) of the others."""
    small = np.concatenate([_search_view(part, False, 0) for part in _blocks(looks)])  # (n, 64)
    leaders = np.empty(0, np.int64)
    pairs = []
    for start in range(0, len(looks), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(looks)))
        found = _verified(looks, *_nearest(small[rows], small[leaders], rows, leaders), False, 0)
        pairs.append(found)
        rows = np.setdiff1d(rows, found[:, 1])
        alike = small[rows] @ small[rows].T >= _CANDIDATE
        free = np.ones(len(rows), bool)  # led by none so far
        for k in range(len(rows)):
            if not free[k]:
                continue
            near = k + 1 + np.flatnonzero(alike[k, k + 1 :] & free[k + 1 :])
            if len(near):
                found = _verified(looks, np.full(len(near), rows[k]), rows[near], False, 0)
                pairs.append(found)
                free[np.searchsorted(rows, found[:, 1])] = False
        leaders = np.concatenate([leaders, rows[free]])
    return leaders, pairs


def _transformed(looks: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Pairs (m, 2) of faces that are copies once the second is mirrored or turned.

    A face turned by an angle is found from the other side as one turned back, and mirrored ones from both sides: of the
    turned, half the angles are enough, and of the mirrored half the pairs.
    """
    small = np.concatenate([_search_view(part, False, 0) for part in _blocks(looks)])
    turned = [(False, angle) for angle in range(STEP, MOST_TURNED + 1, STEP)]
    mirrored = [(True, angle) for angle in range(-MOST_TURNED, MOST_TURNED + 1, STEP)]
    every = np.arange(len(looks))
    for start in range(0, len(looks), _BLOCK):
        rows = every[start : start + _BLOCK]
        for mirror, angle in [*turned, *mirrored]:
            others = every[start:] if mirror else every
            view = _search_view(looks[rows], mirror, angle)
            yield _verified(looks, *_nearest(view, small[others], rows, others), mirror, angle)


def _nearest(
    view: Floats, small: Floats, rows: NDArray[np.int64], others: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (other, row) of candidates: for each row the nearest others, itself aside."""
    best = np.full((len(rows), 0), 0, np.float32)
    named = np.empty((len(rows), 0), np.int64)
    for start in range(0, len(others), 4 * _BLOCK):
        part = others[start : start + 4 * _BLOCK]
        alike = view @ small[start : start + len(part)].T  # (rows, part)
        own = np.minimum(np.searchsorted(part, rows), len(part) - 1)
        alike[part[own] == rows, own[part[own] == rows]] = -1
        hit = np.flatnonzero(alike.max(1) >= _CANDIDATE)  # most rows have none
        k = min(_CANDIDATES, len(part))
        column = np.argpartition(-alike[hit], k - 1, axis=1)[:, :k]
        values, names = np.full((len(rows), k), -1, np.float32), np.zeros((len(rows), k), np.int64)
        values[hit], names[hit] = np.take_along_axis(alike[hit], column, 1), part[column]
        best, named = np.concatenate([best, values], 1), np.concatenate([named, names], 1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :_CANDIDATES]
        best, named = np.take_along_axis(best, order, 1), np.take_along_axis(named, order, 1)
    row, column = np.nonzero(best >= _CANDIDATE)
    return named[row, column], rows[row]


def _verified(
    looks: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64], mirror: bool, angle: float
) -> NDArray[np.int64]:
    """Those of the pairs (m,) that are copies once the second is mirrored and turned by about the angle: (k, 2)."""
    good = np.zeros(len(first), bool)
    angles = (angle - STEP / 2, angle, angle + STEP / 2)
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        whole = _normalised(looks[first[part]], False, 0)  # (m, 2304)
        for each in angles:
            left = np.flatnonzero(~good[part])
            if len(left):
                other = _normalised(looks[second[part][left]], mirror, each)
                good[start + left] = _alike(whole[left], other)
    return np.stack([first[good], second[good]], 1)


def _alike(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """(m,) whether normalised faces (m, 2304) are copies."""
    side = SIDE // _PATCHES
    residual = ((one - other) ** 2).reshape(-1, _PATCHES, side, _PATCHES, side).sum((2, 4))
    return np.asarray(((one * other).sum(1) >= ALIKE) & (residual.max((1, 2)) <= PATCH))


# ---- what is compared ------------------------------------------------------------------------------------------------


def _blocks(looks: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(looks), _BLOCK):
        yield looks[start : start + _BLOCK]


@cache
def _window() -> Floats:
    """(2304,) 1 in the inscribed disc, falling to 0 at its edge: what a turn moves out of the picture is not seen."""
    across = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    radius = np.hypot(across[:, None], across[None])
    return np.clip((1 - radius) / 0.2, 0, 1).astype(np.float32).ravel()


@cache
def _moved(mirror: bool, angle: float) -> csr_array:
    """(2304, 2304) the linear map that mirrors a face and turns it, with bilinear interpolation."""
    places = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    middle = (SIDE - 1) / 2
    y, x = np.mgrid[:SIDE, :SIDE] - middle
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    from_y, from_x = cos * y - sin * x + middle, sin * y + cos * x + middle
    if mirror:
        places = places[:, ::-1]
    low_y, low_x = np.floor(from_y).astype(int), np.floor(from_x).astype(int)
    rows, columns, values = [], [], []
    for step_y in (0, 1):
        for step_x in (0, 1):
            weight = (1 - np.abs(from_y - low_y - step_y)) * (1 - np.abs(from_x - low_x - step_x))
            at = np.clip(low_y + step_y, 0, SIDE - 1), np.clip(low_x + step_x, 0, SIDE - 1)
            rows.append(np.arange(SIDE * SIDE))
            columns.append(places[at].ravel())
            values.append(weight.ravel())
    shape = (SIDE * SIDE, SIDE * SIDE)
    entries = (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(coo_array(entries, shape=shape))


@cache
def _search_map(mirror: bool, angle: float) -> Floats:
    """(64, 2304) what `_normalised` does, the norm aside, followed by means of 6×6 px."""
    window = _window()
    pooled = np.zeros((_POOLED, _POOLED, SIDE, SIDE), np.float32)
    side = SIDE // _POOLED
    for i in range(_POOLED):
        for k in range(_POOLED):
            pooled[i, k, i * side : (i + 1) * side, k * side : (k + 1) * side] = 1
    seen = pooled.reshape(_POOLED**2, -1) * window  # (64, 2304)
    centred = seen - np.outer(seen.sum(1), window / window.sum())
    return np.ascontiguousarray((_moved(mirror, angle).T @ centred.T).T)


def _search_view(looks: NDArray[np.uint8], mirror: bool, angle: float) -> Floats:
    """(n, 64) what the search compares, of norm 1."""
    return _of_norm_1(looks.reshape(len(looks), -1).astype(np.float32) @ _search_map(mirror, angle).T)


def _normalised(looks: NDArray[np.uint8], mirror: bool, angle: float) -> Floats:
    """(n, 2304) the faces mirrored and turned, without their mean and of norm 1 in the disc."""
    pixels = looks.reshape(len(looks), -1).astype(np.float32)
    if mirror or angle:
        pixels = (_moved(mirror, angle) @ pixels.T).T
    window = _window()
    return _of_norm_1((pixels - (pixels @ window / window.sum())[:, None]) * window)


def _of_norm_1(values: Floats) -> Floats:
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norm, 1e-6), np.float32)
