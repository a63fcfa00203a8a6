"""Fidelity of generated faces: distances and scores of whole samples of features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from emobench.errors import NotFinite

Features = NDArray[np.float32] | NDArray[np.float64]

KID_SUBSETS, KID_SUBSET = 100, 1000
IS_SPLITS = 10
PR_NEIGHBOURS, DC_NEIGHBOURS = 3, 5  # Kynkäänniemi et al. 2019; Naeem et al. 2020
COPY_NEIGHBOURS, COPY_QUANTILE = 10, 0.01
_ROWS = 1024  # features, at most, of a block
_HELD = 2**23  # distances that are held at a time, a few copies of each
_SEED = 2020  # torch-fidelity's: the same subsets, splits and therefore values


def finite(features: Features, what: str) -> Features:
    """The features as they are.

    Raises:
        NotFinite: one is NaN or infinite; names the sample's index. No eigen-solver ever sees it.
    """
    broken = np.flatnonzero(~np.isfinite(features).all(1))
    if len(broken):
        raise NotFinite(f"{what}: the features of sample {broken[0]} are not finite ({len(broken)} such samples)")
    return features


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and covariance (D, D), unbiased, of n features, in float64."""

    n: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, features: Features) -> Moments:
        """Of features (n, D), n > 1, a block at a time around the first block's mean: nothing is cancelled out."""
        n = len(features)
        centre = features[:_ROWS].mean(0, dtype=np.float64)
        total, products = np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2)
        for start in range(0, n, _ROWS):
            block = features[start : start + _ROWS].astype(np.float64) - centre
            total += block.sum(0)
            products += block.T @ block
        mean = total / n
        return cls(n, centre + mean, (products - n * np.outer(mean, mean)) / (n - 1))


@dataclass(frozen=True)
class Root:
    """The symmetric root (D, D) of a reference's covariance: found once, used for every row."""

    moments: Moments
    root: NDArray[np.float64]

    @classmethod
    def of(cls, moments: Moments) -> Root:
        values, vectors = np.linalg.eigh(moments.covariance)
        return cls(moments, (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def frechet(reference: Root, sample: Moments) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), Heusel et al. 2017, eq. 6.

    The trace of the root is that of (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric: its eigenvalues are real, and quick to find.
    """
    first, second = reference.moments, sample
    between = reference.root @ second.covariance @ reference.root
    root = np.sqrt(np.clip(np.linalg.eigvalsh((between + between.T) / 2), 0, None)).sum()
    difference = first.mean - second.mean
    return float(difference @ difference + np.trace(first.covariance) + np.trace(second.covariance) - 2 * root)


def kernel_distance(reference: Features, sample: Features) -> float:
    """KID (Bińkowski et al. 2018, section 3): mean unbiased MMD² of subsets under the cubic kernel.

    Subsets of min(1,000, N/2) features: smaller samples have smaller ones.
    """
    size = min(KID_SUBSET, len(reference) // 2, len(sample) // 2)
    first, second = (torch.from_numpy(np.asarray(each, np.float64)) for each in (sample, reference))
    settings = {"kid_subsets": KID_SUBSETS, "kid_subset_size": size, "rng_seed": _SEED, "verbose": False}
    found = kid_features_to_metric(
        first, second, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1.0, **settings
    )
    return float(found[KEY_METRIC_KID_MEAN])


def score(logits: Features) -> float:
    """IS (Salimans et al. 2016, section 4): exp of the mean KL of a face's classes from all faces', over 10 splits."""
    found = isc_features_to_metric(torch.from_numpy(np.asarray(logits, np.float64)), IS_SPLITS, True, _SEED)
    return float(found[KEY_METRIC_ISC_MEAN])


def _centred(features: Features, centre: NDArray[np.float64]) -> NDArray[np.float32]:
    """Features (N, D) from a centre (D,) among them: `_distances` cancels what all of them have in common."""
    return np.asarray(features - centre, np.float32)


def _distances(
    queries: NDArray[np.float32], points: NDArray[np.float32]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Squared Euclidean distances of all queries from all points, a block (rows, N) of queries at a time.

    ‖a‖² + ‖b‖² − 2ab in float32, which holds about seven digits of the norms: both must be `_centred` alike.
    """
    squares = np.einsum("nd,nd->n", points, points)
    rows = min(_ROWS, max(1, _HELD // max(1, len(points))))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        found = np.einsum("nd,nd->n", block, block)[:, None] + squares - 2 * block @ points.T
        yield slice(start, start + len(block)), np.maximum(found, 0)


def _radii(points: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """(N,) squared distance of each point from its k-th nearest other one."""
    radii = np.empty(len(points), np.float32)
    for rows, distances in _distances(points, points):
        radii[rows] = np.partition(distances, k, axis=1)[:, k]  # the nearest is the point itself
    return radii


@dataclass(frozen=True)
class Coverage:
    """How much of a sample lies among real faces, and the other way round, 0 to 1 (density may exceed it)."""

    precision: float
    recall: float
    density: float
    coverage: float


def coverage(reference: Features, sample: Features) -> Coverage:
    """Precision and recall (Kynkäänniemi et al. 2019, eq. 1–3), density and coverage (Naeem et al. 2020, eq. 4, 6).

    Args:
        reference, sample: (N, D) and (M, D), each more than 5.
    """
    centre = reference.mean(0, dtype=np.float64)
    reference, sample = _centred(reference, centre), _centred(sample, centre)
    within, dense = _radii(reference, PR_NEIGHBOURS), _radii(reference, DC_NEIGHBOURS)
    of_sample = _radii(sample, PR_NEIGHBOURS)
    precise, balls = np.zeros(len(sample), bool), 0
    recalled, covered = np.zeros(len(reference), bool), np.zeros(len(reference), bool)
    for rows, distances in _distances(sample, reference):  # (rows of the sample, N)
        precise[rows] = (distances <= within).any(1)
        inside = distances <= dense
        balls += int(inside.sum())
        covered |= inside.any(0)
        recalled |= (distances <= of_sample[rows, None]).any(0)
    density = balls / (DC_NEIGHBOURS * len(sample))
    return Coverage(float(precise.mean()), float(recalled.mean()), density, float(covered.mean()))


def memorisation(training: Iterable[Features], held_out: Features, samples: Mapping[str, Features]) -> dict[str, float]:
    """The share of each sample that copies training faces: much nearer to one of them than to its neighbours.

    A face's ratio is its distance from the nearest training face over that from the tenth; a copy's is about 0, that of
    a blurred face, which is about equally far from many, about 1. Copies are those below the 1 % quantile of held-out
    real faces.

    Args:
        training: (n, D) of training faces and of their mirror images, some at a time; at least ten in all.
        held_out: (H, D) of real faces that do not occur in training.
        samples: (M, D) each, by name.
    """
    centre = held_out.mean(0, dtype=np.float64)
    asked = [_centred(each, centre) for each in (held_out, *samples.values())]
    nearest = [np.full((len(each), COPY_NEIGHBOURS), np.inf, np.float32) for each in asked]  # squared distances
    for block in (_centred(each, centre) for each in training):
        for queries, found in zip(asked, nearest, strict=True):
            for rows, distances in _distances(queries, block):
                both = np.concatenate([found[rows], distances], axis=1)
                found[rows] = np.partition(both, COPY_NEIGHBOURS - 1, axis=1)[:, :COPY_NEIGHBOURS]
    real, *ratios = [np.sqrt(found.min(1) / np.maximum(found.max(1), 1e-12)) for found in nearest]
    limit = np.quantile(real, COPY_QUANTILE)
    return {name: float((ratio < limit).mean()) for name, ratio in zip(samples, ratios, strict=True)}
