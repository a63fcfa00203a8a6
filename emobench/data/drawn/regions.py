"""Where a drawn face shows its emotion: the pixels that its action units change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.data.datasets.synthetic import Synthetic
from emobench.data.drawn.faces import render
from emobench.data.drawn.facs import PROTOTYPES, UNIT_COLUMNS, UNITS, VARIATIONS
from emobench.data.drawn.parameters import VARIANTS, FaceParameters, identities, scenes

CHANGED = 8  # grey levels of 255 in some channel, from which on a pixel counts as changed
MARGIN = 1 / 48  # of the side: added all around, since a map's cell is no finer


def emotion_regions(data: Synthetic, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Where faces show the emotion that they are drawn for: empty for a neutral face.

    Args:
        rows: N rows of the index of `data`, with `label`, `person`, `face` and the activations of the action units.

    Returns:
        (N, S, S), see `unit_regions`.
    """
    person, face = rows["person"].to_numpy(np.int64), rows["face"].to_numpy(np.int64)
    variant = VARIANTS[data.variant]
    units = rows[UNIT_COLUMNS].to_numpy(np.float64).reshape(len(rows), len(UNITS), 2)
    scene = scenes(variant, data.draw_seed, person, face)
    faces = FaceParameters(identities(data.draw_seed, person), scene, units, variant.gray)
    emotions = [data.emotions[label] for label in rows["label"]]
    return unit_regions(faces, [units_of(emotion) for emotion in emotions], data.size)


def units_of(emotion: str) -> tuple[int, ...]:
    """The action units by which an emotion is drawn, in all of its faces or in some.

    >>> units_of("happy")
    (6, 12, 25)
    """
    return tuple(sorted({*PROTOTYPES[emotion], *VARIATIONS.get(emotion, {})}))


def unit_regions(faces: FaceParameters, units: Sequence[Sequence[int]], size: int) -> NDArray[np.bool_]:
    """The pixels that would be others if one of some action units were at rest, and a margin around them.

    The same person in the same scene is drawn once more without the unit, so that pose, glasses and whatever covers the
    face are accounted for, and what a moved part leaves is in the region as is where it goes.

    Args:
        faces: N faces.
        units: of each face, the action units that are asked about, by their FACS numbers.
        size: S, px.

    Returns:
        (N, S, S).
    """
    whole = render(faces, size).astype(np.int16)
    regions = np.zeros((len(faces), size, size), bool)
    for place, unit in enumerate(UNITS):
        mine = np.array([unit in of for of in units]) & faces.units[:, place].any(1)
        if not mine.any():
            continue
        at_rest = _some(faces, mine)
        at_rest.units[:, place] = 0.0
        regions[mine] |= (np.abs(render(at_rest, size) - whole[mine]) >= CHANGED).any(1)
    return _widened(regions, round(MARGIN * size))


def _some(faces: FaceParameters, which: NDArray[np.bool_]) -> FaceParameters:
    """A copy of some faces."""
    identity = {name: values[which] for name, values in faces.identity.items()}
    scene = {name: values[which] for name, values in faces.scene.items()}
    return replace(faces, identity=identity, scene=scene, units=faces.units[which])


def _widened(regions: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Regions (N, S, S) and all pixels that lie at most `margin` px beside or above one of theirs."""
    size = regions.shape[-1]
    padded = np.pad(regions, [(0, 0), (margin, margin), (margin, margin)])
    steps = range(2 * margin + 1)
    wide = np.logical_or.reduce([padded[:, :, step : step + size] for step in steps])
    return np.asarray(np.logical_or.reduce([wide[:, step : step + size] for step in steps]))
