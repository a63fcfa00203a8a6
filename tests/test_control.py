"""Control by a panel: raw, calibrated, with intervals that cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emobench.metrics.control import (
    Verdicts,
    calibrated,
    control,
    corrected,
    false_rates,
    hits,
    intensity,
    rates,
    resampled,
    unchanged_hits,
)

K = 4


def judged(truth: np.ndarray, asked: np.ndarray, recalls: list[float], seed: int = 0) -> Verdicts:
    """Judges of given recall, whose errors fall on the other emotions alike, look at faces that show `truth`."""
    random = np.random.default_rng(seed)
    read = []
    for recall in recalls:
        wrong = (truth + random.integers(1, K, len(truth))) % K
        read.append(np.where(random.random(len(truth)) < recall, truth, wrong))
    return Verdicts(asked, np.stack(read))


def shown(asked: np.ndarray, share: float, seed: int) -> np.ndarray:
    """What faces show of which a share obeys, the others showing any other emotion."""
    random = np.random.default_rng(seed)
    return np.where(random.random(len(asked)) < share, asked, (asked + random.integers(1, K, len(asked))) % K)


def test_rates_and_false_rates_by_hand() -> None:
    asked = np.array([0, 0, 0, 0, 1, 1, 2, 3])
    read = np.array([[0, 0, 1, 2, 1, 0, 2, 3]])
    found = rates(asked, read, K)[0]
    assert found[0].tolist() == [0.5, 0.25, 0.25, 0]
    assert hits(rates(asked, read, K))[0].tolist() == [0.5, 0.5, 1, 1]
    assert false_rates(rates(asked, read, K))[0, 0] == pytest.approx((0.5 + 0 + 0) / 3)  # other emotions weigh alike


def test_calibration_undoes_the_judges_errors() -> None:
    asked = np.tile(np.arange(K), 20_000)
    real = judged(asked, asked, [0.9, 0.6], seed=1)
    made = judged(shown(asked, 0.7, 2), asked, [0.9, 0.6], seed=3)
    found = control(made, real, K)
    assert found.raw.mean() == pytest.approx(np.mean([0.7 * r + 0.3 * (1 - r) / 3 for r in (0.9, 0.6)]), abs=0.01)
    assert (found.each[1] < found.raw).all()
    assert (found.raw < found.each[0]).all()
    np.testing.assert_allclose(found.calibrated, 0.7 + 0.3 * 0, atol=0.05)  # what the faces truly show
    assert control(real, real, K).calibrated == pytest.approx(np.ones(K))
    assert corrected(0.25, K) == 0
    assert corrected(1.0, K) == 1


def test_a_judge_that_cannot_tell_an_emotion_says_nothing_about_it() -> None:
    asked = np.tile(np.arange(K), 500)
    read = np.stack([asked, np.where(asked == 3, 0, asked)])  # the second never sees emotion 3
    real = rates(asked, read, K)
    made = hits(real)
    found = calibrated(made, real)
    assert found[3] == 1  # the first judge alone gives it
    assert np.isnan(calibrated(np.where(np.arange(K) == 1, np.nan, made), real)[1])  # nobody was asked for it
    blind = rates(asked, read[1:], K)
    assert np.isnan(calibrated(hits(blind), blind)[3])
    assert np.isnan(control(Verdicts(asked, read[1:]), Verdicts(asked, read[1:]), K).macro()["control_calibrated"])


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_intervals_cover(share: float) -> None:
    inside = {"raw": 0, "calibrated": 0}
    asked, people = np.tile(np.arange(K), 100), np.repeat(np.arange(100), K)
    truth = {"raw": share * 0.8 + (1 - share) * 0.2 / 3, "calibrated": share}
    for run in range(200):
        real = judged(asked, asked, [0.8, 0.8], seed=3 * run)
        real = replace(real, groups=people)
        made = judged(shown(asked, share, 3 * run + 1), asked, [0.8, 0.8], seed=3 * run + 2)
        draws = resampled(made, real, K, 300, seed=0)
        for name in inside:
            values = getattr(draws, name).mean(-1)
            low, high = np.quantile(values, [0.025, 0.975])
            inside[name] += low <= truth[name] <= high
    assert 0.89 <= inside["raw"] / 200 <= 0.995
    assert 0.88 <= inside["calibrated"] / 200 <= 0.995


def test_intensity_that_rises_is_monotone() -> None:
    levels = np.repeat([0, 0.25, 0.5, 0.75, 1.0], 50)
    random = np.random.default_rng(0)
    rank, slope = intensity(0.1 + 0.7 * levels + 0.05 * random.normal(size=250), levels)
    assert rank > 0.9
    assert slope == pytest.approx(0.7, abs=0.05)
    rank, slope = intensity(random.random(250), levels)
    assert abs(rank) < 0.2


def test_nothing_that_changes_has_no_monotonicity() -> None:
    rank, slope = intensity(np.full(10, 0.3), np.linspace(0, 1, 10))
    assert np.isnan(rank)
    assert slope == 0


def test_edits_are_resampled_by_source_and_paired() -> None:
    """Two editors that differ on the same sources are told apart by fewer faces than two generators would need."""
    random = np.random.default_rng(0)
    sources = np.repeat(np.arange(60), K)
    asked = np.tile(np.arange(K), 60)
    easy = np.repeat(random.random(60), K)  # some people obey every editor
    good, better = (np.where(easy < share, asked, (asked + 1) % K) for share in (0.5, 0.6))
    real = judged(asked, asked, [1.0])
    draws = [
        resampled(Verdicts(asked, read[None], sources), real, K, 500, seed=0).raw.mean(-1) for read in (good, better)
    ]
    paired = (draws[1] - draws[0]).std()
    alone = [
        resampled(Verdicts(asked, read[None]), real, K, 500, 0, k).raw.mean(-1) for k, read in enumerate((good, better))
    ]
    assert draws[0].std() > 1.5 * alone[0].std()  # four edits of one face are no four faces
    assert paired < 0.8 * np.hypot(draws[0].std(), draws[1].std())


def test_unchanged_faces_scatter_around_the_false_rates() -> None:
    asked = np.tile(np.arange(K), 400)
    real = judged(asked, asked, [0.9, 0.7], seed=1)
    few = np.array([5, 3, 4, 4])
    found = unchanged_hits(real, few, K, 4000, np.random.default_rng(0))
    seen = rates(asked, real.read, K)
    for e in range(K):
        others = np.arange(K) != e
        expected = (few[others, None] * seen[:, others, e].T).sum(0) / few[others].sum()
        np.testing.assert_allclose(found[..., e].mean(0), expected, atol=0.005)
        spread = np.sqrt((few[others, None] * (seen * (1 - seen))[:, others, e].T).sum(0)) / few[others].sum()
        np.testing.assert_allclose(found[..., e].std(0), spread, rtol=0.05)
