"""Control by a panel: raw, calibrated, with intervals that cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import spearmanr

from emobench.evaluation.tracks.panel import replicates, resampled
from emobench.metrics import intervals as stats
from emobench.metrics.control import (
    Control,
    Verdicts,
    average,
    calibrated,
    control,
    corrected,
    false_rates,
    hit_shares,
    hit_units,
    hits,
    intensity,
    rate_shares,
    rate_units,
    rates,
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


def test_an_emotion_without_faces_is_left_out() -> None:
    """False rates are over the emotions that have faces, macro averages over those that can have a value."""
    asked = np.array([0, 0, 1, 1, 2, 2])
    known = Verdicts(asked, np.array([[0, 0, 1, 0, 2, 3]]))  # no real face of emotion 3
    found = rates(known.asked, known.read, K)
    assert np.isnan(found[0, 3]).all()
    assert false_rates(found)[0].tolist() == [0.25, 0, 0, pytest.approx(1 / 6)]
    everything = np.tile(np.arange(K), 2)
    made = Verdicts(everything, np.array([[0, 1, 2, 3, 0, 1, 0, 0]]))
    of = control(made, known, K)
    assert of.asked.all()
    assert of.counted.tolist() == [True, True, True, False]
    assert np.isnan(of.calibrated).tolist() == [False, False, False, True]
    each = [(1 - 0.25) / (1 - 0.25), 1 / 0.5, 0.5 / 0.5]
    assert of.macro()["control_calibrated"] == pytest.approx(np.mean(each))
    assert of.macro()["control"] == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)  # the judges do read it
    itself = control(known, known, K)
    assert itself.asked.tolist() == [True, True, True, False]
    assert itself.macro()["control"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    nothing = Verdicts(np.empty(0, np.int64), np.empty((1, 0), np.int64))
    assert np.isnan(control(nothing, known, K).macro()["control"])
    assert np.isnan(average(np.ones(K), np.zeros(K, bool)))


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
        _, draws = resampled(made, real, K, "made", 300)
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


def test_intensity_is_scipys_and_numpys_and_counts_faces() -> None:
    random = np.random.default_rng(0)
    levels = np.tile([0, 0.25, 0.5, 0.75, 1.0], 12)
    probable = (levels + random.normal(0, 0.5, 60)).round(1)  # with ties
    rank, slope = intensity(probable, levels)
    assert rank == pytest.approx(spearmanr(levels, probable).statistic, rel=1e-12)
    assert slope == pytest.approx(np.polyfit(levels, probable, 1)[0], rel=1e-12)
    counts = random.integers(0, 4, (3, 60))
    ranks, slopes = intensity(probable, levels, counts)
    for place, count in enumerate(counts):
        a, b = (np.repeat(each, count) for each in (levels, probable))
        assert ranks[place] == pytest.approx(spearmanr(a, b).statistic, rel=1e-12)
        assert slopes[place] == pytest.approx(np.polyfit(a, b, 1)[0], rel=1e-9)


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
        resampled(Verdicts(asked, read[None], sources), real, K, "sources", 500)[1].raw.mean(-1)
        for read in (good, better)
    ]
    paired = (draws[1] - draws[0]).std()
    alone = [
        resampled(Verdicts(asked, read[None]), real, K, f"row {k}", 500)[1].raw.mean(-1)
        for k, read in enumerate((good, better))
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


def test_groups_add_what_their_faces_add() -> None:
    asked = np.array([0, 1, 0, 2, 1, 0])
    verdicts = Verdicts(asked, np.array([[0, 1, 1, 2, 0, 0], [0, 1, 0, 2, 1, 3]]), np.array([7, 7, 3, 3, 7, 3]))
    units = hit_units(verdicts, K)
    assert units.shape == (2, 1 + 2, K)
    assert units[0, 0].tolist() == [2, 0, 1, 0]  # group 3 was asked for these
    assert units[1, 1].tolist() == [1, 1, 0, 0]  # and of group 7 the first judge reads these rightly
    np.testing.assert_array_equal(hit_shares(units.sum(0)), hits(rates(asked, verdicts.read, K)))
    np.testing.assert_array_equal(rate_shares(rate_units(verdicts, K).sum(0)), rates(asked, verdicts.read, K))


def test_streams_share_nothing_and_each_is_paired_with_itself() -> None:
    units = np.random.default_rng(0).normal(size=(50, 2))
    one, again, other = (replicates(units, stream, 4000) for stream in ("row a", "row a", "row b"))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (4000, 2)
    assert one.std(0) == pytest.approx(other.std(0))
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.05
    assert replicates(units[:0], "row a", 10).tolist() == [[0, 0]] * 10


CLASSES, SEEDS, TABLES = 4, 60, 1500


def generator(random: np.random.Generator, signs: np.ndarray) -> np.ndarray:
    """(G, T, 1 + J, K) `hit_units` of a generator in T tables: half of its faces obey, mostly a matter of the seed.

    What makes a seed's face obey one emotion makes it obey the others too, or, where the signs differ, not.
    """
    seed, face = random.normal(size=(SEEDS, TABLES, 1)), random.normal(size=(SEEDS, TABLES, CLASSES))
    obeys = np.sqrt(0.8) * seed * signs + np.sqrt(0.2) * face < 0
    recalls = (0.9, 0.8)
    read = [random.random(obeys.shape) < np.where(obeys, recall, (1 - recall) / (CLASSES - 1)) for recall in recalls]
    return np.stack([np.ones(obeys.shape), *read], 2)


def real_faces(random: np.random.Generator) -> np.ndarray:
    """(G, T, J, K, K) `rate_units` of 60 people with a face of each emotion, some of whom are hard to read."""
    seen = np.zeros((60, TABLES, 2, CLASSES, CLASSES))
    hard = random.normal(size=(60, TABLES, 1, 1))
    face = np.sqrt(0.5) * hard + np.sqrt(0.5) * random.normal(size=(60, TABLES, 2, CLASSES))
    right = face < ndtri(np.array([0.9, 0.8]))[:, None]
    shown = np.arange(CLASSES)
    wrong = (shown + random.integers(1, CLASSES, right.shape)) % CLASSES
    np.put_along_axis(seen, np.where(right, shown, wrong)[..., None], 1, -1)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("signs", ["alike", "opposite"])
def test_stated_and_true_spread_agree_where_emotions_share_noise_seeds(signs: str) -> None:
    """Faces resampled as if independent state 0.64 and 1.36 times the true standard deviation of the raw average."""
    random = np.random.default_rng(1)
    sign = np.ones(CLASSES) if signs == "alike" else np.tile([1.0, -1.0], CLASSES // 2)
    known = real_faces(random)
    rates_ = rate_shares(known.sum(0)), rate_shares(replicates(known, "real", 300))
    names = ("control", "control_calibrated")
    models = []
    for stream in ("row a", "row b"):
        units = generator(random, sign)
        counts = (units.sum(0), replicates(units, stream, 300))
        found = [_macro(hit_shares(count), known_) for count, known_ in zip(counts, rates_, strict=True)]
        models.append(found)
        for name in names:
            true, stated = found[0][name].std(), np.sqrt(found[1][name].var(0).mean())
            assert 0.9 < stated / true < 1.1, (name, stated / true)
    for name in names:
        values, draws = zip(*((each[0][name], each[1][name]) for each in models), strict=True)  # (T,), (R, T)
        pairs = [
            stats.compare([each[[t]] for each in values], [each[:, [t]] for each in draws], SEEDS)[0]
            for t in range(TABLES)
        ]
        assert np.mean([pair.certain for pair in pairs]) <= 0.065  # of equal ones; 1,500 tables: standard error 0.6 %


def _macro(made: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    every = np.ones(CLASSES, bool)
    return Control(made, calibrated(made, known), every, every).macro()
