"""How far samples of faces are from a fixed sample of training faces, the reference set."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from emobench.evaluation.judge import EmotionReader
from emobench.evaluation.protocol import BLOCK, LEAST_FOR_FED, LEAST_FOR_SCORES
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.values import Value
from emobench.files import replacing
from emobench.metrics.features import pixel_features
from emobench.metrics.fidelity import (
    Moments,
    Root,
    coverage,
    finite,
    frechet,
    kernel_distance,
    memorisation,
    score,
)
from emobench.metrics.inception import Inception

BY_INCEPTION = ("fid", "kid", "is", "sample_precision", "sample_recall", "density", "coverage")


class Fidelity:
    """Distances and scores of samples against the reference set.

    Args:
        real: the faces; features of theirs that cost much are remembered by content.
        reader: in whose features and classes FED and ES are measured.
        inception: those of FID, KID, IS, precision, recall, density and coverage; None: these are missing.
        sha256: of Inception's weights.
        why: why they are missing.
        cache: folder of what is remembered.
    """

    def __init__(
        self,
        real: RealFaces,
        reader: EmotionReader,
        inception: Inception | None,
        sha256: str | None,
        why: str | None,
        cache: Path,
    ) -> None:
        self.real, self.reader, self.inception = real, reader, inception
        self.sha256, self.why, self.cache = sha256, why, cache
        reference = real.faces(real.reference)
        _, features = reader.read(reference)
        self.by_reader = Root.of(Moments.of(finite(features, "reference")))
        if inception is not None:
            self.by_inception, _ = self._remembered(reference)
            self.root = Root.of(Moments.of(finite(self.by_inception, "reference")))

    def measure(self, images: np.ndarray, what: str, *, again: bool = False) -> dict[str, Value]:
        """Distances and scores of a sample uint8 (N, C, S, S).

        Args:
            what: names the sample in errors.
            again: these are real faces that other evaluations look at too.

        Raises:
            NotFinite: a feature is NaN or infinite; names the sample's index.
        """
        n = len(images)
        if n < LEAST_FOR_SCORES:
            return {name: Value(None, n, f"below {LEAST_FOR_SCORES} faces") for name in ("fed", "es", *BY_INCEPTION)}
        shares, features = self.reader.read(images)
        found = {"es": Value(score(np.log(shares + 1e-12)), n)}
        if min(n, len(self.real.reference)) < LEAST_FOR_FED:
            found["fed"] = Value(None, n, f"below {LEAST_FOR_FED} faces")
        else:
            found["fed"] = Value(frechet(self.by_reader, Moments.of(finite(features, what))), n)
        if self.inception is None:
            return found | {name: Value(None, n, self.why or "") for name in BY_INCEPTION}
        seen, logits = self._remembered(images) if again else self.inception(images)
        finite(seen, what)
        spread = coverage(self.by_inception, seen)
        values = {
            "fid": frechet(self.root, Moments.of(seen)),
            "kid": kernel_distance(self.by_inception, seen),
            "is": score(logits),
            "sample_precision": spread.precision,
            "sample_recall": spread.recall,
            "density": spread.density,
            "coverage": spread.coverage,
        }
        return found | {name: Value(value, n) for name, value in values.items()}

    def copied(self, samples: Mapping[str, np.ndarray]) -> dict[str, Value]:
        """`memorisation` of samples: in Inception's features, else in small gray ones; never in the reader's."""
        real = self.real
        held_out = real.test[~real.leaked]
        if not len(held_out):
            reason = "every held-out face occurs in training too"
            return {name: Value(None, len(images), reason) for name, images in samples.items()}
        training = itertools.chain(self._near_rows(real.train), self._near_rows(real.train, -1))
        near = {name: self._near(images) for name, images in samples.items()}
        shares = memorisation(training, np.concatenate([*self._near_rows(held_out)]), near)
        return {name: Value(shares[name], len(images)) for name, images in samples.items()}

    def _near_rows(self, rows: np.ndarray, way: int = 1) -> Iterator[np.ndarray]:
        """`_near` of rows of the pack, some at a time, mirrored where `way` is -1: never are all faces held."""
        for part in np.array_split(rows, -(-len(rows) // BLOCK)):
            yield self._near(self.real.faces(part)[..., ::way], again=True)

    def _near(self, images: np.ndarray, *, again: bool = False) -> np.ndarray:
        """The features in which faces (N, C, S, S) are near each other; `again`: see `measure`."""
        if self.inception is None:
            return pixel_features(images)
        features, _ = self._remembered(images) if again else self.inception(images)
        return features

    def _remembered(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inception's features and logits, from the cache where these very pixels were seen before."""
        assert self.inception is not None
        pixels = np.ascontiguousarray(images)
        content = hashlib.sha256(f"{self.sha256} {pixels.shape}".encode())
        content.update(pixels.data)  # as they lie, not a copy of them
        path = self.cache / "features" / f"{content.hexdigest()}.npz"
        if path.is_file():
            with np.load(path) as found:
                return found["features"], found["logits"]
        features, logits = self.inception(pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, features=features, logits=logits)
        return features, logits
