"""Intervals, comparisons and ranks; the simulation of PROTOCOL.md 8 in a short form."""

from __future__ import annotations

import itertools
import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from emobench.metrics import intervals as stats

SIMULATION = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "intervals.py"))


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., :1] / sums[..., 1:]


def shares(right: np.ndarray) -> np.ndarray:
    """(M, N) right or not -> (M, N, 2) to sum."""
    return np.stack([right, np.ones_like(right)], -1).astype(np.float64)


def test_resamples_are_the_same_ones_every_time() -> None:
    first, again = (np.concatenate(list(stats.resample(37, 50))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (50, 37)
    np.testing.assert_array_equal(first.sum(1), 37)
    assert len({row.tobytes() for row in first}) == 50


def test_bootstrap_variance_of_a_share() -> None:
    right = np.arange(1000)[None] % 10 < 3
    draws = stats.bootstrap(shares(right), mean)
    assert draws.shape == (stats.RESAMPLES, 1, 1)
    assert draws.mean() == pytest.approx(0.3, abs=0.002)
    assert draws.var() == pytest.approx(0.3 * 0.7 / 1000, rel=0.1)


def test_people_are_resampled_whole() -> None:
    people = np.repeat(np.arange(100), 10)
    right = np.repeat(np.arange(100) % 2, 10)[None]  # all ten faces of a person alike
    units = stats.grouped(shares(right), people)
    assert units.shape == (1, 100, 2)
    np.testing.assert_array_equal(units[0, :3], [[0, 10], [10, 10], [0, 10]])
    assert stats.bootstrap(units, mean).var() == pytest.approx(0.25 / 100, rel=0.1)  # not 0.25 / 1000


def test_people_in_any_order() -> None:
    people = np.array([2, 0, 1, 0, 2])
    np.testing.assert_array_equal(stats.grouped(np.arange(5.0)[:, None], people)[:, 0], [1 + 3, 2, 0 + 4])


def test_crossed_variance_by_its_formula() -> None:
    draw = np.random.default_rng(0)
    values, draws = draw.normal(0.5, 0.3, (4, 1)), draw.normal(0.5, 0.05, (300, 4, 1))
    found = stats.spread(values, draws, 1000)
    v_m, v_bar = draws.mean(1).var(ddof=1), draws.var(0, ddof=1).mean()
    s2 = values.var(ddof=1)
    b = max(0.0, s2 - (v_bar - v_m) * 4 / 3) / 4
    assert found.mean[0] == pytest.approx(values.mean())
    assert found.faces[0] == pytest.approx(v_m)
    assert found.seeds[0] == pytest.approx(b)
    assert found.freedom[0] == pytest.approx(3 * (b / (s2 / 4)) ** 2)
    assert b > 0


def test_seeds_that_agree_too_well_add_nothing() -> None:
    draws = np.random.default_rng(0).normal(0.5, 0.05, (300, 3, 1))
    found = stats.spread(np.full((3, 1), 0.5), draws, 1000)
    assert found.seeds[0] == 0
    (interval,) = stats.intervals(found)
    assert interval.high - 0.5 == pytest.approx(1.96 * math.sqrt(found.faces[0]), rel=0.01)
    assert interval.note is None


def test_seed_spread_alone_gives_student_t() -> None:
    values = np.array([[0.70], [0.75], [0.80]])
    draws = np.broadcast_to(values, (100, 3, 1)) + np.random.default_rng(0).normal(0, 1e-6, (100, 3, 1))
    (interval,) = stats.intervals(stats.spread(values, draws, 1000))
    assert interval.high - 0.75 == pytest.approx(4.3027 * 0.05 / math.sqrt(3), rel=1e-3)  # t_2


@pytest.mark.parametrize(("seeds", "note"), [(1, "this seed only"), (2, "these 2 seeds only")])
def test_few_seeds_say_so(seeds: int, note: str) -> None:
    right = np.random.default_rng(0).random((seeds, 500)) < 0.6
    units = shares(right)
    found = stats.spread(mean(units.sum(1)), stats.bootstrap(units, mean), 500)
    (interval,) = stats.intervals(found)
    assert found.seeds[0] == 0
    assert interval.low is not None
    assert interval.low < right.mean() < interval.high
    assert note in interval.note


def test_no_interval_where_none_is_valid() -> None:
    perfect = shares(np.ones((1, 50)))
    (interval,) = stats.intervals(stats.spread(mean(perfect.sum(1)), stats.bootstrap(perfect, mean), 50))
    assert (interval.low, interval.high) == (None, None)
    assert "same value" in interval.note
    rare = perfect.copy()
    rare[0, 1:] = 0  # one face counts: a third of the resamples do not hold it
    with np.errstate(invalid="ignore"):
        (interval,) = stats.intervals(stats.spread(mean(rare.sum(1)), stats.bootstrap(rare, mean), 50))
    assert interval.low is None
    assert "too few" in interval.note


def test_intervals_end_where_values_do() -> None:
    units = shares(np.arange(60)[None] > 0)  # 59 of 60
    found = stats.spread(mean(units.sum(1)), stats.bootstrap(units, mean), 60)
    assert stats.intervals(found)[0].high == 1.0
    assert stats.intervals(found, upper=np.inf)[0].high > 1.0


def compared(*models: np.ndarray) -> list[stats.Comparison]:
    """Compare models, each (S, N) right or not."""
    sizes = np.cumsum([len(model) for model in models])[:-1]
    units = shares(np.concatenate(models))
    values, draws = mean(units.sum(1))[..., 0], stats.bootstrap(units, mean)[..., 0]
    return stats.compare(np.split(values, sizes), np.split(draws, sizes, axis=1), units.shape[1])


def test_equal_predictions_are_not_told_apart() -> None:
    right = np.random.default_rng(0).random((3, 400)) < 0.7
    (pair,) = compared(right, right)
    assert (pair.difference, pair.certain, pair.seeds_known) == (0.0, False, True)
    assert pair.p == 1.0


def test_pairing_sees_what_separate_intervals_cannot() -> None:
    draw = np.random.default_rng(1)
    hard = draw.random(2000)
    good, worse = np.tile(hard < 0.80, (3, 1)), np.tile(hard < 0.78, (3, 1))  # wrong on 2 % of the same faces more
    (pair,) = compared(good, worse)
    assert pair.certain
    assert pair.low > 0
    assert pair.difference == pytest.approx(0.02, abs=0.006)
    independent = draw.random((3, 2000)) < 0.78
    (unpaired,) = compared(good, independent)
    assert unpaired.high - unpaired.low > 2 * (pair.high - pair.low)


def test_one_seed_speaks_for_itself_only() -> None:
    draw = np.random.default_rng(2)
    (pair,) = compared(draw.random((1, 1000)) < 0.9, draw.random((3, 1000)) < 0.5)
    assert pair.certain
    assert not pair.seeds_known


def test_holm() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_rank_ranges() -> None:
    def pair(first: int, second: int, difference: float, p: float) -> stats.Comparison:
        return stats.Comparison(first, second, difference, 0, 0, p, True)

    pairs = [pair(0, 1, 0.1, 0.3), pair(0, 2, 0.2, 0.01), pair(1, 2, 0.1, 0.2), pair(2, 3, 0.5, 0.001)]
    pairs += [pair(0, 3, 0.7, 0.001), pair(1, 3, 0.6, 0.001)]
    assert stats.rank_ranges(4, pairs) == [(1, 2), (1, 3), (2, 3), (4, 4)]
    assert stats.rank_ranges(1, []) == [(1, 1)]


def test_renamed_is_the_distribution_over_all_names() -> None:
    confusion = np.array([[5, 3, 2], [1, 8, 1], [4, 4, 2]])
    rates = confusion / 10
    scores = sorted(np.mean([rates[k, name[k]] for k in range(3)]) for name in itertools.permutations(range(3)))
    value, low, high = stats.renamed(confusion)
    assert value == pytest.approx((0.5 + 0.8 + 0.2) / 3)
    assert (low, high) == pytest.approx((scores[0], scores[-1]))


def test_renamed_finds_a_network_that_knows_the_labels() -> None:
    value, low, high = stats.renamed(np.full((7, 7), 10) + 40 * np.eye(7))
    assert value > high
    draw = np.random.default_rng(0)
    chance = draw.multinomial(250, np.full(8, 1 / 8), 8)
    value, low, high = stats.renamed(chance)
    assert low <= value <= high
    assert high - low < 0.08


def test_renamed_leaves_out_classes_without_faces() -> None:
    confusion = np.array([[9, 1, 0], [0, 0, 0], [2, 0, 8]])
    assert stats.renamed(confusion)[0] == pytest.approx((0.9 + 0.8) / 2)


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("regime", ["face", "seed", "face × seed"])
def test_coverage(regime: str, seeds: int) -> None:
    """PROTOCOL.md 8, over accuracies 0.3 to 0.9; benchmarks/intervals.py has more runs."""
    found = [SIMULATION["accuracy_intervals"](regime, accuracy, seeds, 400, 250) for accuracy in (0.3, 0.6, 0.9)]
    covered = np.mean([each.covered for each in found])  # 1,200 runs: standard error 0.6 %
    assert 0.92 <= covered <= 0.98
    if seeds >= stats.SEEDS_NEEDED:
        assert np.mean([each.alarms for each in found]) <= 0.07
