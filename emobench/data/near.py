"""Near duplicates of test faces: the same photograph cut out a little otherwise, scaled, compressed, or mirrored.

`copies` finds what people make of a face that they have, by pixels that lie on each other but for a turn; it decides
which faces a drawn split keeps together. What is found here was often photographed once and collected twice, and counts
for the accuracy without such faces alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from emobench.data.copies import SIDE
from emobench.data.dataset import Dataset
from emobench.data.pack import look

BITS = 4  # of the 64 of a perceptual hash, in which near duplicates may differ
ALIKE = 0.95  # least correlation of their pixels

_LOW = 8  # frequencies of a hash, each way
_TESTED, _OTHERS = 64, 8192  # faces at a time: differences between hashes that stay in a processor's cache
_PAIRS = 4096  # compared at a time

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]


def near_duplicates(data: Dataset) -> NDArray[np.bool_]:
    """(N,) bool: a test face of which training or validation has a near duplicate, as it is or mirrored.

    Their perceptual hashes differ in at most `BITS` bits, and the contrast-normalised pixels of the gray faces of 48 px
    correlate by at least `ALIKE`. Faces of one colour are none, and neither are drawn ones, which show other people in
    each split.

    Args:
        data: after `prepare()`.
    """
    split, found = data.faces["split"], np.zeros(len(data.faces), bool)
    if "copy" in data.faces:
        looks = _looks(data)
        tested, others = np.flatnonzero(split == "test"), np.flatnonzero(split.isin(["train", "val"]))
        found[tested] = near_any(looks[tested], looks[others])
    return found


def near_any(looks: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) bool: a face (n, 48, 48) has a near duplicate among other ones (m, 48, 48), as it is or mirrored."""
    found = np.zeros(len(looks), bool)
    hashes = np.concatenate([np.empty(0, np.uint64), *(perceptual_hash(part) for part in _blocks(others))])
    for start in range(0, len(looks), _TESTED):
        mine = looks[start : start + _TESTED]
        for faces in (mine, mine[:, :, ::-1]):
            found[start : start + _TESTED] |= _near(faces, perceptual_hash(faces), others, hashes)
    return found


def perceptual_hash(looks: NDArray[np.uint8]) -> Hashes:
    """(n,) 64 bits of each face (n, 48, 48): which of its 8 x 8 lowest frequencies lie above their median.

    The hash pHash of Zauner (2010, section 3.2.1), of the DCT-II.
    """
    low = np.matmul(_cosines(), looks.astype(np.float32)) @ _cosines().T  # (n, 8, 8)
    low = low.reshape(len(looks), -1)
    bits = low > np.median(low, 1, keepdims=True)
    return np.packbits(bits, 1).view(">u8").astype(np.uint64).ravel()


def _near(faces: NDArray[np.uint8], own: Hashes, others: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.bool_]:
    """(n,) whether faces have near duplicates among other ones, by hashes first."""
    found, pixels = np.zeros(len(faces), bool), normalised(faces)
    for start in range(0, len(others), _OTHERS):
        left = np.flatnonzero(~found)
        near = np.bitwise_count(own[left, None] ^ hashes[None, start : start + _OTHERS]) <= BITS
        first, second = np.divmod(np.flatnonzero(near), near.shape[1])
        for place in range(0, len(first), _PAIRS):
            i, k = left[first[place : place + _PAIRS]], start + second[place : place + _PAIRS]
            i, k = i[~found[i]], k[~found[i]]
            there, which = np.unique(k, return_inverse=True)
            alike = (pixels[i] * normalised(others[there])[which]).sum(1)
            found[i[alike >= ALIKE]] = True
    return found


def normalised(looks: NDArray[np.uint8]) -> Floats:
    """(n, 2304) the pixels of faces (n, 48, 48) without their mean and of norm 1: products of two are correlations."""
    pixels = looks.reshape(len(looks), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    return np.asarray(pixels / np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6), np.float32)


@cache
def _cosines() -> Floats:
    """(8, 48) the lowest frequencies of the orthonormal DCT-II."""
    return np.asarray(dct(np.eye(SIDE), axis=0, norm="ortho")[:_LOW], np.float32)


def _blocks(looks: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(looks), 2048):
        yield looks[start : start + 2048]


def _looks(data: Dataset) -> NDArray[np.uint8]:
    """(N, 48, 48) the gray faces by which `copies` are found too: beside the pack, made from the source's pixels."""
    name = getattr(data.images, "filename", None)
    beside = None if name is None else Path(name).with_name("looks.npy")
    if beside is not None and beside.is_file():
        return np.asarray(np.load(beside, mmap_mode="r"))
    return np.stack([look(np.asarray(face)) for face in data.images])
