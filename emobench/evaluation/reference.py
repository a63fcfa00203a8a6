"""The real faces that everything is compared with: a fixed choice, the same for every row of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emobench.evaluation.protocol import CHOICE_SEED, FIDELITY_FACES


@dataclass(frozen=True)
class RealFaces:
    """The reference set, and all real faces by split.

    Attributes:
        images: uint8 (M, C, S, S), the pack.
        labels: (M,) of all rows of the pack.
        reference: rows of the pack, a fixed subset of training.
        floor: as many test rows.
        train, val, test: all rows of each split.
        person: (M,) whose face each is, a number; -1 where people are not known.
        half: (N,) which half of the people each test face belongs to: 0 calibrates, 1 is a control.
        leaked: (N,) test faces that occur in training too.
    """

    images: np.ndarray
    labels: np.ndarray
    reference: np.ndarray
    floor: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    person: np.ndarray
    half: np.ndarray
    leaked: np.ndarray

    @classmethod
    def of(cls, data: Any, fidelity: int | None) -> RealFaces:
        """The choice for a prepared data module; at most `fidelity` faces are compared as a sample."""
        random = np.random.default_rng(CHOICE_SEED)
        split = data.faces["split"].to_numpy()
        train, val, test = (np.flatnonzero(split == name) for name in ("train", "val", "test"))
        n = min(FIDELITY_FACES, len(test), fidelity or FIDELITY_FACES, len(train))
        people = data.faces["subject"]
        known = not people.iloc[test].isna().any()
        person = pd.factorize(people)[0] if known else np.full(len(people), -1)
        who = np.unique(person[test], return_inverse=True)[1] if known else np.arange(len(test))
        half = np.random.default_rng(CHOICE_SEED + 1).permutation(who.max() + 1)[who] % 2
        reference, floor = (np.sort(random.choice(rows, n, False)) for rows in (train, test))
        labels = data.faces["label"].to_numpy()
        return cls(data.images, labels, reference, floor, train, val, test, person, half, data.leaked()[test])

    def faces(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, C, S, S) of rows of the pack."""
        return np.asarray(self.images[rows])

    def coloured(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, 3, S, S) of rows of the pack: gray faces repeated to three channels."""
        faces = self.faces(rows)
        return np.ascontiguousarray(np.broadcast_to(faces, (len(faces), 3, *faces.shape[2:])))

    def sources(self, number: int, classes: int, random: np.random.Generator) -> list[np.ndarray]:
        """Rows of test faces of each emotion, `number` in all and the same number of each, as far as there are."""
        of, each = self.labels[self.test], max(1, number // classes)
        return [random.permutation(self.test[of == k])[:each] for k in range(classes)]

    def other_person(self, row: int, emotion: int, random: np.random.Generator) -> int:
        """A test face of another person that shows the emotion; -1 where there is none."""
        others = self.test[(self.labels[self.test] == emotion) & (self.test != row)]
        if self.person[row] >= 0:
            others = others[self.person[others] != self.person[row]]
        return int(random.choice(others)) if len(others) else -1
