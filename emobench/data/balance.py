"""How often an epoch sees the faces of each class, and which. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from emobench.recipe import Recipe


@dataclass(frozen=True)
class Balance:
    """How many faces of each class an epoch sees.

    Args:
        oversample: a class below the cap is repeated up to this factor, never above the cap.
        undersample: the cap as a share of the largest class, but never below the smallest: balanced faces are all
            kept; None: the largest class itself.
        rotate_to: a class with fewer faces is filled up to this many with rotated copies (Padalia and Saxena,
            "Emotion-based Style Transfer", section 4.2); None: no class is.
        rotate_by: by at most so many degrees either way.
    """

    oversample: float = 1.0
    undersample: float | None = None
    rotate_to: int | None = None
    rotate_by: float = 0.0

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """The balance that a recipe asks for."""
        return cls(recipe.oversample, recipe.undersample, recipe.rotate_to, recipe.rotate_by)

    def counts(self, available: np.ndarray) -> np.ndarray:
        """(K,) faces an epoch sees, from the (K,) faces that there are."""
        counts = self._repeated(available)
        if self.rotate_to is not None:
            counts = np.where(available > 0, np.maximum(counts, self.rotate_to), 0)
        return np.asarray(counts)

    def _repeated(self, available: np.ndarray) -> np.ndarray:
        share = 1.0 if self.undersample is None else self.undersample
        smallest = min(available[available > 0], default=1)
        cap = max(round(share * int(available.max())), int(smallest))
        wanted = np.maximum(available, np.rint(self.oversample * available).astype(np.int64))
        return np.asarray(np.minimum(wanted, cap))

    def draw(self, labels: np.ndarray, rows: np.ndarray, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of one epoch in training order; larger classes give a fresh subset each epoch.

        Args:
            labels: (n,) class of each row.
            rows: (n,) the training rows.

        Returns:
            (m,) rows, and (m,) degrees by which each is rotated at most, either way: 0 for a face that is no copy.
        """
        random = np.random.default_rng((seed, epoch))
        available = np.bincount(labels)
        counts, repeated = self.counts(available), self._repeated(available)
        chosen, turns = [], []
        for label, count in enumerate(counts):
            members = rows[labels == label]
            whole, rest = divmod(count, max(1, len(members)))
            chosen += [members] * whole + [random.permutation(members)[:rest]]
            copies = np.arange(count) >= (len(members) if count > repeated[label] else count)
            turns.append(self.rotate_by * copies)
        order = random.permutation(sum(map(len, chosen)))
        return np.concatenate(chosen)[order], np.concatenate(turns)[order]
