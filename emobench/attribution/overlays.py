"""Maps of where a classifier looks, over faces or by themselves."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_STRONGEST = 0.75  # how much of a face the highest value of its map covers


def overlaid(faces: NDArray[np.uint8] | None, maps: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Faces in gray under their maps, whose colours go from dark blue over violet and orange to yellow.

    Args:
        faces: uint8 (N, 3, S, S); None: the maps alone.
        maps: (N, S, S); each is shown from its own lowest to its own highest value.

    Returns:
        uint8 (N, 3, S, S).
    """
    shown = scaled(maps)
    colours = _palette()[np.rint(255 * shown).astype(np.uint8)].transpose(0, 3, 1, 2)  # (N, 3, S, S)
    if faces is None:
        return np.rint(colours).astype(np.uint8)
    gray = faces.mean(1, keepdims=True)
    alpha = (_STRONGEST * np.sqrt(shown))[:, None]
    return np.asarray(np.rint((1 - alpha) * gray + alpha * colours), np.uint8)


def scaled(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Maps (N, S, S) from 0 at the lowest value of each to 1 at its highest; 0 where all values are one."""
    low = maps.min((1, 2), keepdims=True)
    wide = np.asarray(maps.max((1, 2), keepdims=True) - low, np.float64)
    return np.asarray(np.divide(maps - low, wide, out=np.zeros(maps.shape), where=wide > 0))


@functools.cache
def _palette() -> NDArray[np.float64]:
    """(256, 3) matplotlib's plasma: as bright as its value, to colour-blind eyes and in print too."""
    import matplotlib

    return np.asarray(255 * matplotlib.colormaps["plasma"](np.arange(256))[:, :3], np.float64)
