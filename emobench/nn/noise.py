"""Noise that belongs to a sample: what a face is made of depends on its own seed, never on its batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Noise:
    """A stream of standard normal numbers for each seed.

    Drawn on the CPU by numpy, so that a seed means the same face on every device.

    Args:
        seeds: int64 (N,).
    """

    def __init__(self, seeds: Tensor) -> None:
        self.device = seeds.device
        self._streams = [np.random.default_rng(seed) for seed in seeds.tolist()]

    def normal(self, *shape: int) -> Tensor:
        """The next numbers of every stream, float32 (N, *shape), where the seeds are."""
        drawn = np.stack([stream.standard_normal(shape, np.float32) for stream in self._streams])
        return torch.from_numpy(drawn).to(self.device)
