"""A cue as what a generator is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emobench.cues.reader import Cue


def weights_of(cue: Cue, emotions: Sequence[str]) -> np.ndarray:
    """A cue as a request (K,): its emotions at its intensity, the rest neutral; those that the dataset lacks left out.

    Where there is no neutral face the emotions alone are asked for, and where there is nothing else, all alike.
    """
    weights = np.array([cue.weights.get(emotion, 0.0) for emotion in emotions], np.float64)
    if "neutral" not in emotions:
        even = np.full(len(emotions), 1 / len(emotions))
        return np.asarray(weights / weights.sum()) if weights.sum() > 0 else even
    neutral = np.eye(len(emotions))[list(emotions).index("neutral")]
    if weights.sum() <= 0:
        return np.asarray(neutral)
    return np.asarray((1 - cue.intensity) * neutral + cue.intensity * weights / weights.sum())
