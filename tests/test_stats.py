"""Intervals, comparisons and ranks; the simulation of benchmarks/intervals.py in a short form."""

from __future__ import annotations

import itertools
import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import RESULTS
from scipy.stats import t as student

from emobench.evaluation.tracks.recognition import Predictions, Recognition
from emobench.evaluation.tracks.track import Key, MeasuredCell
from emobench.files import read_json
from emobench.metrics import intervals as stats
from emobench.metrics.recognition import tally
from emobench.report.board import sections
from emobench.runner.store import load_board
from emobench.suite.catalog import tracks

SIMULATION = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "intervals.py"))


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., :1] / sums[..., 1:]


def shares(right: np.ndarray) -> np.ndarray:
    """(M, N) right or not -> (M, N, 2) to sum."""
    return np.stack([right, np.ones_like(right)], -1).astype(np.float64)


def test_resamples_are_the_same_ones_every_time() -> None:
    first, again = (np.concatenate(list(stats.resample(37, 50)), 1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (37, 50)
    np.testing.assert_array_equal(first.sum(0), 37)
    assert len({column.tobytes() for column in first.T}) == 50


def test_resamples_of_another_seed_are_others_also_where_the_first_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = (np.concatenate(list(stats.resample(41, number)), 1) for number in (60, 80))
    monkeypatch.setattr(stats, "SEED", stats.SEED + 1)
    other, more = (np.concatenate(list(stats.resample(41, number)), 1) for number in (60, 400))
    assert (first != other).any()
    np.testing.assert_array_equal(other, more[:, :60])  # few and many are drawn alike: else pairs come apart


def test_resamples_that_are_not_kept_are_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = np.concatenate(list(stats.resample(300, 40)), 1)
    monkeypatch.setattr(stats, "_MOST_KEPT", 0)
    monkeypatch.setattr(stats, "_CHUNK", 300 * 7)
    chunks = list(stats.resample(300, 40))
    assert [chunk.shape for chunk in chunks] == [(300, 7)] * 5 + [(300, 5)]
    np.testing.assert_array_equal(np.concatenate(chunks, 1), kept)


def test_sums_of_parts_are_those_of_columns_that_are_0_elsewhere() -> None:
    random = np.random.default_rng(3)
    counts, rest = random.integers(0, 2, (2, 90, 3)), random.normal(size=(2, 90, 2))
    rest[..., 1] = 0
    part = random.integers(-1, 4, 90)  # −1: of none
    part[part == 2] = 3  # and nobody is of that one
    wide = (counts[:, :, None, :] * (part[:, None] == np.arange(4))[None, :, :, None]).reshape(2, 90, 12)
    parted = [stats.Parted(counts, part, 4), rest]
    together = np.concatenate([wide, rest], -1)
    np.testing.assert_allclose(stats.total(parted), together.sum(1))
    found, expected = (stats.bootstrap(units, lambda sums: sums, 60) for units in (parted, together))
    assert found.shape == (60, 2, 14)
    np.testing.assert_array_equal(found[..., :12], expected[..., :12])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert found[..., :12].any()
    assert not found[..., 13].any()


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


def test_a_share_of_one_has_an_interval() -> None:
    """Nothing varies, though others would have been misread: Wilson's, (1 − low) = t²/(n + t²)."""
    perfect = shares(np.ones((1, 50)))
    found = stats.spread(mean(perfect.sum(1)), stats.bootstrap(perfect, mean), 50)
    (interval,) = stats.intervals(found)
    assert interval.high == 1.0
    assert interval.low == pytest.approx(1 - 2.0096**2 / (50 + 2.0096**2), abs=1e-4)  # t of 49 degrees of freedom
    (few,) = stats.intervals(found, units=5)  # a share of five faces among the fifty
    assert few.low == pytest.approx(1 - 2.7764**2 / (5 + 2.7764**2), abs=1e-4)
    never = stats.spread(1 - found.mean[None], 1 - stats.bootstrap(perfect, mean), 50)
    (zero,) = stats.intervals(never)
    assert (zero.low, zero.high) == pytest.approx((0.0, 1 - interval.low))


def test_wilson_by_its_formula() -> None:
    units = shares(np.arange(500)[None] >= 40)  # 460 of 500
    found = stats.spread(mean(units.sum(1)), stats.bootstrap(units, mean, 20_000), 500)
    (interval,) = stats.intervals(found)
    n, p, t = 500, 0.92, 1.966  # nearly normal: some 200 degrees of freedom
    half = t * math.sqrt(p * (1 - p) / n + t * t / (4 * n * n)) / (1 + t * t / n)
    middle = (p + t * t / (2 * n)) / (1 + t * t / n)
    assert (interval.low, interval.high) == pytest.approx((middle - half, middle + half), abs=5e-4)


def test_no_interval_where_none_is_valid() -> None:
    same = np.stack([np.full((1, 50), 0.3), np.ones((1, 50))], -1)  # an SSIM that is the same for all faces
    (interval,) = stats.intervals(stats.spread(mean(same.sum(1)), stats.bootstrap(same, mean), 50), None, -np.inf)
    assert (interval.low, interval.high) == (None, None)
    assert "same value" in interval.note
    perfect = shares(np.ones((1, 50)))
    rare = perfect.copy()
    rare[0, 1:] = 0  # one face counts: a third of the resamples do not hold it
    with np.errstate(invalid="ignore"):
        (interval,) = stats.intervals(stats.spread(mean(rare.sum(1)), stats.bootstrap(rare, mean), 50))
    assert interval.low is None
    assert "too few" in interval.note


def test_intervals_end_where_values_do() -> None:
    units = shares(np.arange(60)[None] > 0)  # 59 of 60
    found = stats.spread(mean(units.sum(1)), stats.bootstrap(units, mean), 60)
    assert 0.99 < stats.intervals(found)[0].high < 1.0  # one was misread, so that 1 is not the share
    assert stats.intervals(found, lower=-1.0)[0].high == 1.0  # not taken as a share, but ends there
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


def near_the_limit(resamples: int, groups: int = 400) -> tuple[list[stats.Comparison], list[int]]:
    """Two networks that differ in 100 of 400 faces, 61 to 39: p = 0.028 … 0.05 by the resamples; and what was drawn."""
    right = np.ones((2, groups), bool)
    right[1, :61] = right[0, 61:100] = False
    units = shares(right)
    values, drawn = mean(units.sum(1)), []

    def more(models: list[int], number: int) -> list[np.ndarray]:
        drawn.append(number)
        return [stats.bootstrap(units[[model]], mean, number)[..., 0] for model in models]

    draws = stats.bootstrap(units, mean, resamples)[..., 0]
    pairs = stats.compare(list(values), [draws[:, :1], draws[:, 1:]], groups, more)
    return pairs, drawn


def test_decisions_do_not_hang_on_the_resampling_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions, drawn = [], []
    for seed in range(7):
        monkeypatch.setattr(stats, "SEED", seed)
        ((pair,), more) = near_the_limit(200)  # p = 0.0279, known to within a third at first
        decisions.append((pair.certain, pair.borderline))
        drawn += more
    assert decisions == [(True, False)] * 7
    assert max(drawn) > 200  # the first resamples do not settle it


def test_what_no_resamples_settle_is_borderline() -> None:
    draw = np.random.default_rng(0)
    width = student.ppf(0.975, 999)  # p is the limit itself
    draws = [draw.standard_normal((2000, 1)), np.zeros((2000, 1))]
    scale = width * draws[0].std(ddof=1) * math.sqrt(1000 / 999)
    (pair,) = stats.compare([np.array([scale * 1.001]), np.array([0.0])], draws, 1000)
    assert pair.p < 0.05
    assert (pair.certain, pair.borderline) == (False, True)
    assert stats.rank_ranges(2, [pair]) == [(1, 2), (1, 2)]
    (far,) = stats.compare([np.array([scale * 1.5]), np.array([0.0])], draws, 1000)
    assert (far.certain, far.borderline) == (True, False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_ranks_of_the_committed_fer2013_do_not_hang_on_the_resampling_seed(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    committed = read_json(RESULTS / "reference-fer2013" / "metrics.json")["ranks"]
    assert stats.SEED not in (1, 2, 3)
    monkeypatch.setattr(stats, "SEED", seed)
    (section,) = sections("reference-fer2013", load_board(RESULTS, "reference-fer2013"), [tracks()["recognition"]])
    ranks = [(entry.name, *entry.ranks["macro_f1"]) for entry in section.entries if entry.ranked]
    assert ranks == [(each["row"], each["best"], each["worst"]) for each in committed if each["by"] == "macro_f1"]
    assert ranks[0] == ("resnet18-hour", 1, 1)


def test_pooling_the_seeds_of_a_table_finds_more() -> None:
    draw = np.random.default_rng(4)
    values = [0.5 + 0.02 * (model % 2) + 0.005 * draw.standard_normal(3) for model in range(8)]
    pairs = stats.compare_means(values)
    apart = [pair for pair in pairs if (pair.first - pair.second) % 2]
    assert all(not pair.certain for pair in pairs if pair not in apart)
    two = [stats.compare_means([values[pair.first], values[pair.second]])[0].p for pair in pairs]
    alone = sum(p < 0.05 for p in stats.holm(two))  # of the pairs' own spread only
    assert sum(pair.certain for pair in apart) >= 8 > 2 * alone


def test_a_pair_of_one_seed_ignores_the_seeds_of_others() -> None:
    """One seed tells nothing of other seeds, so a comparison with it speaks of the networks, as its p does."""
    draw = np.random.default_rng(3)
    faces = 0.01 * draw.standard_normal((2000, 1))
    values = [np.array([0.60]), np.array([0.50, 0.55, 0.60])]
    draws = [faces + 0.01 * draw.standard_normal((2000, 1)), faces + 0.001 * draw.standard_normal((2000, 3))]
    (pair,) = stats.compare(values, draws, 1000)
    assert not pair.seeds_known
    assert pair.high - pair.difference == pytest.approx(1.96 * 0.01, rel=0.05)


@pytest.mark.parametrize(("world", "models", "seeds"), [
    ("face × seed and seed", 12, 3), ("all alike", 6, 3), ("people", 12, 3), ("seed, one model's seeds × 3", 6, 5),
    ("few people, 0.95", 6, 1),
])  # fmt: skip
def test_family_wise_error_and_power(world: str, models: int, seeds: int) -> None:
    """At most 5 % of tables tell any two equally good models apart: 8.8 % of 400 lie 3.5 standard errors above."""
    found = SIMULATION["table_alarms"](SIMULATION["TABLES"][world], models, seeds, 400, 200, 100)
    assert found.found / found.tables <= 0.088
    assert not found.power < found.welch_power


@pytest.mark.parametrize(("people", "each", "accuracy", "seeds"), [
    (10, 20, 0.95, 1), (20, 10, 0.95, 3), (40, 20, 0.9, 5), (118, 3, 0.97, 1),
])  # fmt: skip
def test_coverage_for_few_people(people: int, each: int, accuracy: float, seeds: int) -> None:
    """The symmetric interval covers 78 to 92 % there."""
    world = replace(SIMULATION["PEOPLE"], people=people, each=each, accuracy=accuracy)
    found = SIMULATION["share_intervals"](world, seeds, 1000, 250)  # standard error 0.8 %
    assert found.covered >= 0.92
    assert people < 40 or found.covered <= 0.985
    assert found.covered > found.plain


@pytest.mark.slow
def test_coverage_of_macro_f1_and_control() -> None:
    assert 0.91 <= SIMULATION["macro_f1_intervals"](1, 300, 200, easy=1.8, people=40, each=16).covered <= 0.99
    assert SIMULATION["control_intervals"](0.5, 3, 150, 200).covered >= 0.91


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("regime", ["face", "seed", "face × seed"])
def test_coverage(regime: str, seeds: int) -> None:
    """Over accuracies 0.3 to 0.9; benchmarks/intervals.py has more runs."""
    found = [SIMULATION["accuracy_intervals"](regime, accuracy, seeds, 400, 250) for accuracy in (0.3, 0.6, 0.9)]
    covered = np.mean([each.covered for each in found])  # 1,200 runs: standard error 0.6 %
    assert 0.92 <= covered <= 0.98
    if seeds >= stats.SEEDS_NEEDED:
        assert np.mean([each.alarms for each in found]) <= 0.07
    assert min(each.covered for each in found) >= 0.9  # 400 runs: standard error 1.1 to 1.4 %


def test_more_resamples_are_of_the_number_that_ranks() -> None:
    """Drawn again, a number is that of `estimates` bit for bit, also where answers are outside the emotions."""
    random = np.random.default_rng(3)
    for outside in (False, True):
        cells = []
        for _ in range(2):
            labels, shares = np.arange(60) % 3, random.dirichlet([1, 1, 1, 1], 60)
            predictions = shares.argmax(1)
            predictions[labels == 0] %= 2  # so that an emotion is read seldom, and one is never shown
            shares[np.arange(60), predictions] = 2
            shares /= shares.sum(1, keepdims=True)
            if outside:
                predictions[:5] = -1
            table = tally(shares, labels, predictions=predictions)
            faces = pd.DataFrame({"label": labels, "subject": None, "prediction": predictions, "leaked": False})
            cells.append(Predictions(MeasuredCell("m", 0, None, ("a", "b", "c", "d"), Path()), faces, table))
        track = Recognition()
        for name in ("macro_f1", "accuracy"):
            again = track.redrawn(cells, Key(name, "macro" if name == "macro_f1" else ""), stats.RESAMPLES)
            for column, (first, *_) in enumerate(track.estimates(cells)):
                place = [key.metric for key in first.keys].index(name)
                np.testing.assert_array_equal(again[:, column], first.draws[:, place])
