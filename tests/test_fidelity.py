"""Fidelity metrics against the libraries, and in the order that people see."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import cdist
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from emobench.errors import NotFinite
from emobench.metrics.fidelity import Moments, Root, coverage, finite, frechet, kernel_distance, memorisation, score


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return (random.normal(size=(n, d)) @ mixing + shift + 3).astype(np.float32)


def test_moments_are_numpys() -> None:
    data = features(3000, 20, 0)
    found = Moments.of(data)
    assert found.n == 3000
    np.testing.assert_allclose(found.mean, data.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(data.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(500, 64), (200, 300)])  # the second: fewer faces than dimensions
def test_the_frechet_distance_is_scipys_and_torch_fidelitys(n: int, d: int) -> None:
    first, second = Moments.of(features(n, d, 0)), Moments.of(features(n, d, 1, 0.1))
    found = frechet(Root.of(first), second)
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance)
    difference = first.mean - second.mean
    expected = difference @ difference + np.trace(first.covariance + second.covariance - 2 * np.real(root))
    assert found == pytest.approx(expected, rel=1e-4)
    theirs = fid_statistics_to_metric(
        {"mu": first.mean, "sigma": first.covariance}, {"mu": second.mean, "sigma": second.covariance}, False
    )
    assert found == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert frechet(Root.of(first), first) == pytest.approx(0, abs=1e-6 * np.trace(first.covariance))


def test_kid_and_is_are_torch_fidelitys() -> None:
    first, second = features(800, 32, 0), features(700, 32, 1, 0.2)
    options = {"kid_subsets": 100, "kid_subset_size": 350, "kid_kernel": "poly", "kid_kernel_poly_degree": 3}
    theirs = kid_features_to_metric(
        torch.from_numpy(second), torch.from_numpy(first), **options, kid_kernel_poly_coef0=1.0, rng_seed=2020,
        verbose=False,
    )  # fmt: skip
    assert kernel_distance(first, second) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    logits = 2 * features(500, 8, 3)
    assert score(logits) == pytest.approx(isc_features_to_metric(torch.from_numpy(logits))["inception_score_mean"])
    assert score(np.eye(8)[np.arange(800) % 8] * 50) == pytest.approx(8, rel=0.08)  # splits are not quite even
    assert score(np.ones((100, 8))) == pytest.approx(1)


def by_hand(reference: np.ndarray, sample: np.ndarray) -> tuple[float, float, float, float]:
    across = cdist(sample, reference)  # by differences, in float64
    r3, r5 = (np.sort(cdist(reference, reference), 1)[:, k] for k in (3, 5))
    s3 = np.sort(cdist(sample, sample), 1)[:, 3]
    precision = (across <= r3).any(1).mean()
    recall = (across <= s3[:, None]).any(0).mean()
    return precision, recall, (across <= r5).sum() / (5 * len(sample)), (across <= r5).any(0).mean()


def test_precision_recall_density_and_coverage_by_hand() -> None:
    reference, sample = features(150, 5, 0), features(120, 5, 1, 0.5)
    found = coverage(reference, sample)
    expected = by_hand(reference, sample)
    np.testing.assert_allclose((found.precision, found.recall, found.density, found.coverage), expected, rtol=1e-12)
    same = coverage(reference, features(150, 5, 2))
    few = coverage(reference, np.repeat(reference[:3], 50, 0) + 1e-3 * features(150, 5, 4))
    assert few.precision > 0.9
    assert few.recall < 0.2 < same.recall
    assert few.coverage < 0.3 < same.coverage


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("away", [0.0, 30.0, 1000.0])
def test_neighbours_far_from_the_origin_are_those_of_float64(away: float, kind: type) -> None:
    """Features have a large mean in common, which says nothing of who is whose neighbour."""
    random = np.random.default_rng(0)
    centre = away * np.abs(random.normal(size=64))
    reference, sample = ((random.normal(size=(800, 64)) + shift + centre).astype(kind) for shift in (0.0, 0.1))
    found = coverage(reference, sample)
    precision, recall, density, covered = by_hand(reference, sample)
    assert (found.precision, found.recall, found.coverage) == (precision, recall, covered)
    assert found.density == pytest.approx(density, rel=1e-12)

    copies = reference + 1e-3 * random.normal(size=reference.shape).astype(kind)
    copied = memorisation([reference[:500], reference[500:]], sample, {"near": copies[:400]})
    assert copied == {"near": 1.0}
    mixed = np.concatenate([copies[:37], (random.normal(size=(363, 64)) + centre).astype(kind)])
    ratios = []
    for queries in (sample, mixed):
        distances = np.sort(cdist(queries, reference), 1)
        ratios.append(distances[:, 0] / distances[:, 9])
    expected = (ratios[1] < np.quantile(ratios[0], 0.01)).mean()
    assert memorisation([reference], sample, {"mixed": mixed}) == {"mixed": expected}


def test_copies_are_flagged_and_blurred_faces_are_not() -> None:
    training, held_out = features(2000, 16, 0), features(500, 16, 1)
    honest = features(500, 16, 2)
    copies = training[:500] + 0.01 * features(500, 16, 3)
    blurred = np.repeat(training.mean(0, keepdims=True), 500, 0) + 0.1 * features(500, 16, 4)
    samples = {"honest": honest, "copies": copies, "blurred": blurred}
    found = memorisation([training[:700], training[700:]], held_out, samples)
    assert found == pytest.approx(memorisation([training], held_out, samples), abs=0.01)
    assert found["copies"] > 0.95
    assert max(found["honest"], found["blurred"]) < 0.05


def test_features_that_are_not_finite_name_the_sample() -> None:
    data = features(50, 4, 0)
    data[17, 2] = np.nan
    data[30, 0] = np.inf
    with pytest.raises(NotFinite, match=r"generated faces: the features of sample 17 are not finite \(2 such"):
        finite(data, "generated faces")
