"""Numbers by slice: which faces are in one, what a model does there, and which gaps are certain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from sklearn.metrics import f1_score
from test_judged import Board as Judged
from test_report import EMOTIONS, Results, predictions

from emobench.data.datasets.synthetic import Synthetic
from emobench.data.drawn.parameters import VARIANTS, identities, scenes
from emobench.metrics import intervals
from emobench.report.attributes import Lookup
from emobench.report.board import Number
from emobench.report.html.write import write_page
from emobench.report.slices import LEAST, Drawn, Group, row_of
from emobench.runner.record import MadeOf, read_record

FACES = 400


def columns(**more: Any) -> pd.DataFrame:
    """What a dataset says of the faces of `predictions`, whose rows begin with 1000."""
    rows = np.arange(1000 + FACES)
    return pd.DataFrame({"id": rows.astype(str), "gender": np.where(rows // 4 % 2, "female", "male"), **more})


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has read the dataset of `Results`."""
    monkeypatch.setenv("EMOBENCH_CACHE", str(tmp_path / "cache"))
    return keep(tmp_path / "cache", columns())


def keep(cache: Path, faces: pd.DataFrame, fingerprint: str = "f") -> Path:
    folder = cache / "plans" / "plan"
    folder.mkdir(parents=True, exist_ok=True)
    faces.to_parquet(folder / "faces.parquet")
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return cache


def rows(folder: Path, **where: str) -> pd.DataFrame:
    found = pd.read_csv(folder / "demo" / "slices.csv", keep_default_na=False)
    for column, value in where.items():
        found = found[found[column] == value]
    return found


def blinded(table: pd.DataFrame, wrong: np.ndarray) -> pd.DataFrame:
    """Predictions of which some faces (N,) are read as the next emotion."""
    probabilities = table[[f"p_{emotion}" for emotion in EMOTIONS]].to_numpy().copy()
    label = table["label"].to_numpy()
    probabilities[wrong] = 0.02
    probabilities[wrong, (label[wrong] + 1) % len(EMOTIONS)] = 0.94
    named = {f"p_{emotion}": probabilities[:, k] for k, emotion in enumerate(EMOTIONS)}
    return table.assign(prediction=probabilities.argmax(1), **named)


# ---- which faces are in a slice --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_slices_of_drawn_faces_are_what_was_drawn(variant: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"variant": variant, "train": 80, "val": 40, "test": 400, "draw_seed": 3}
    index = Synthetic(size=32, **settings).index()
    made_of = MadeOf(fit={"recipe": None, "data": {"dataset": "synthetic", "arguments": settings}}, eval={})
    record = read_record(Results(tmp_path).cell("resnet18", 0, 3.0) / "result.json")
    lookup = Lookup(record.model_copy(update={"made_of": made_of}))
    test = index[index["split"] == "test"]
    found = {each.name: each for each in lookup.of(test.index.to_numpy())}
    who = identities(3, test["person"].to_numpy())
    scene = scenes(VARIANTS[variant], 3, test["person"].to_numpy(), test["face"].to_numpy())
    assert (found["glasses"].of == (who["glasses"] > 0)).all()
    assert (found["beard"].of == (who["beard"] > 0)).all()
    assert (found["skin tone"].of == (3 * who["skin"]).astype(int)).all()
    if variant == "plain":
        assert set(found) == {"skin tone", "glasses", "beard"}  # all look straight, are free and show much
        return
    assert (found["occlusion"].of == (scene["covered"] > 0)).all()
    assert ((found["pose"].of == 0) == (np.abs(scene["yaw"]) < 5)).all()
    neutral = test["label"].to_numpy() == "neutral"
    assert (found["intensity"].of[neutral] == -1).all()
    strong = test["intensity"].to_numpy() >= 0.75
    assert ((found["intensity"].of == 2) == strong)[~neutral].all()


def test_the_columns_of_a_dataset_are_slices(results: Results, cached: Path) -> None:
    ages = np.where(np.arange(1000 + FACES) % 3 == 0, np.nan, np.arange(1000 + FACES) % 70)
    keep(cached, columns(age=ages, race=[f"r{row}" for row in range(1000 + FACES)]))
    record = read_record(results.cell("resnet18", 0, 3.0) / "result.json")
    found = {each.name: each for each in Lookup(record).of(np.arange(1000, 1000 + FACES))}
    assert set(found) == {"gender", "age"}  # a race a face divides nothing
    assert [found["gender"].slices[k] for k in found["gender"].of[:5]] == ["male"] * 4 + ["female"]
    assert found["age"].slices == ("0–19", "20–39", "40–59", "from 60")
    assert found["age"].of[[0, 1, 2, 4, 39]].tolist() == [1, 1, -1, 1, 2]  # of 20, 21, none, 24 and 59 years


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


# ---- what a model does there -----------------------------------------------------------------------------------------


def test_a_slice_has_the_numbers_of_its_faces_alone(results: Results, cached: Path) -> None:
    tables = [predictions(2.0, seed) for seed in range(3)]
    for seed, table in enumerate(tables):
        results.cell("resnet18", seed, table=table)
    results.write()
    female = np.arange(1000, 1000 + FACES) // 4 % 2 == 1
    for name, mine in (("female", female), ("male", ~female)):
        found = rows(results.folder, slice=name).set_index("metric")
        assert set(found["n"]) == {mine.sum()}
        assert set(found["units"]) == {50}  # people of four faces
        right = np.mean([(table["label"] == table["prediction"])[mine].mean() for table in tables])
        f1 = np.mean([f1_score(table["label"][mine], table["prediction"][mine], average="macro") for table in tables])
        assert float(found.loc["accuracy", "value"]) == pytest.approx(right, abs=1e-6)
        assert float(found.loc["macro_f1", "value"]) == pytest.approx(f1, abs=1e-6)
        assert float(found.loc["accuracy", "low"]) < right < float(found.loc["accuracy", "high"])


def test_a_gap_has_its_faces_its_interval_and_a_corrected_p(results: Results, cached: Path) -> None:
    table = predictions(2.0, 0)
    female = np.arange(1000, 1000 + FACES) // 4 % 2 == 1
    worse = blinded(table, female & (np.random.default_rng(0).random(FACES) < 0.4))
    results.cell("fair", 0, table=table)
    results.cell("blinded", 0, table=worse)
    board = results.write()
    (gap,) = rows(results.folder, model="blinded", slice="male − female", metric="accuracy").itertuples()
    right = (worse["label"] == worse["prediction"]).to_numpy()
    assert float(gap.value) == pytest.approx(right[~female].mean() - right[female].mean(), abs=1e-6)
    assert 0 < float(gap.low) < float(gap.value) < float(gap.high)
    assert gap.n == FACES
    assert gap.reason == "corrected p < 0.001"
    text = (results.folder / "demo" / "slices.md").read_text()
    assert "blinded by gender, macro F1: male " in text
    assert "fair by gender" not in text
    assert "male, n = 200" in text
    page = write_page(board, results.folder).read_text()
    assert 'data-tab="slices"' in page


def test_a_slice_that_is_too_small_says_so_and_is_in_no_gap(results: Results, cached: Path) -> None:
    ages = np.full(1000 + FACES, "4-19", object)
    ages[1000:1012] = "70+"  # twelve faces
    keep(cached, columns(age=ages, angle=np.where(np.arange(1000 + FACES) < 1036, "left", "right")))
    results.cell("resnet18", 0, 3.0)
    results.write()
    text = (results.folder / "demo" / "slices.md").read_text()
    assert "n/a (too few: 12 faces)" in text
    assert "n/a (too few: 36 faces of 9 people)" in text
    found = rows(results.folder, attribute="age")
    assert set(found["slice"]) == {"4-19", "70+"}  # and no gap
    assert set(found[found["slice"] == "70+"]["value"]) == {"n/a"}
    assert LEAST > 12


def test_a_board_that_is_read_elsewhere_says_what_is_not_at_hand(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOBENCH_CACHE", str(tmp_path / "nothing"))
    results.cell("resnet18", 0, 3.0)
    results.write()
    text = (results.folder / "demo" / "slices.md").read_text()
    assert "this machine's cache has not read it" in text
    assert "emobench bench SUITE --dry-run" in text
    assert rows(results.folder).empty


def test_control_is_by_what_is_known_of_the_faces_that_were_given(tmp_path: Path, cached: Path) -> None:
    gender = np.where(np.arange(1000) < 44, "male", "female")
    keep(cached, pd.DataFrame({"gender": gender}))
    board = Judged(tmp_path / "results")
    verdicts = pd.read_parquet(board.generator("cvae", 0.9, edits=0.7) / "verdicts.parquet")
    board.write()
    part = verdicts[(verdicts["kind"] == "editing") & (verdicts["row"] < 44)]
    obeyed = (part[["read_0", "read_1"]].to_numpy() == part["asked"].to_numpy()[:, None]).mean(1)
    control = pd.Series(obeyed).groupby(part["asked"].to_numpy()).mean().mean()
    found = rows(board.folder, track="editing", model="cvae", slice="male")
    assert found["metric"].tolist() == ["control"]
    assert float(found["value"].iloc[0]) == pytest.approx(control, abs=1e-6)
    assert found["n"].tolist() == [len(part)]
    assert rows(board.folder, track="generation").empty  # faces that were made up
    assert len(rows(board.folder, track="editing", model="control:real"))  # the panel's own gaps


# ---- which gaps are certain ------------------------------------------------------------------------------------------


def equal(random: np.random.Generator, share: float, seeds: int = 1) -> Drawn:
    """A model that is as good on each of eleven slices, of five attributes of 100 people or of their 600 faces."""
    person = np.repeat(np.arange(100), 6)
    hard = random.normal(size=100)[person] + random.normal(size=600)
    limit = np.sqrt(3) * ndtri(share)
    right = np.stack([hard + random.normal(size=600) < limit for _ in range(seeds)]).astype(float)
    of = [random.choice(count, 100)[person] if count == 2 else random.choice(count, 600) for count in (3, 2, 2, 2, 2)]
    member = np.stack([each == k for each in of for k in range(each.max() + 1)], 1)
    names = [(place, k) for place, each in enumerate(of) for k in range(each.max() + 1)]
    groups = [
        Group(str(place), str(k), int(mine.sum()), len(np.unique(person[mine])))
        for (place, k), mine in zip(names, member.T, strict=True)
    ]

    def statistic(sums: Any) -> Any:
        return sums[..., 11:] / sums[..., :11]

    each = np.stack([intervals.grouped(np.concatenate([member, member * line[:, None]], 1), person) for line in right])
    draws = intervals.bootstrap(each, statistic, 500)
    return Drawn(tuple(groups), ("accuracy",), statistic(each.sum(1))[..., None], draws[..., None], 100)


@pytest.mark.parametrize(("share", "seeds"), [(0.8, 1), (0.97, 1), (0.8, 3)])
def test_hardly_any_gap_is_certain_where_there_is_none(share: float, seeds: int) -> None:
    random = np.random.default_rng(0)
    base = Number("s", "d", 48, "recognition", "m", "", "", None, "", "", None, None, None, None, None, "", "", 1, "")
    worlds = [row_of(equal(random, share, seeds), base).gaps for _ in range(60)]
    assert all(len(gaps) == 5 for gaps in worlds)
    assert sum(any(pair.certain for pair in gaps.values()) for gaps in worlds) <= 5
    assert sum(all(pair.low <= 0 for pair in gaps.values()) for gaps in worlds) >= 55  # type: ignore[operator]
