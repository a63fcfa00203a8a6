"""`emobench compare`: two rows on the same faces, by figure, emotion and slice, and the faces that divide them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student
from test_judged import Board as Judged
from test_report import EMOTIONS, FACES, Results, predictions
from test_slices import blinded, columns, keep

from emobench.commands.compare import compare, named
from emobench.errors import EmobenchError, StoreError
from emobench.files import read_json, write_json
from emobench.report.compare import Side, check_faces, judgement
from emobench.runner.record import MadeOf
from emobench.suite.catalog import tracks

Compare = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """`run(folder, A, B)` compares and gives the values of the first track, and what was printed."""

    def compared(folder: Path, first: str, second: str, on: str | None = None) -> tuple[dict[str, Any], str]:
        out = tmp_path / "compared"
        assert compare(first, second, on, folder, tmp_path / "data", out, force=True) == 0
        return read_json(out / "compare.json")["tracks"][0], capsys.readouterr().out

    return compared


def figure(found: dict[str, Any], metric: str, emotion: str = "") -> dict[str, Any]:
    (one,) = [
        each
        for each in (*found["figures"], *found["emotions"])
        if (each["metric"], each["emotion"]) == (metric, emotion)
    ]
    return dict(one)


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_a_figure_has_its_difference_its_interval_and_p(results: Results, run: Compare) -> None:
    tables = [predictions(quality, 0) for quality in (2.0, 1.5)]
    for name, table in zip(("good", "fair"), tables, strict=True):
        results.cell(name, 0, table=table)
    results.write()
    found, shown = run(results.folder, "demo/good", "fair")
    right = [(table["label"] == table["prediction"]).to_numpy(float) for table in tables]
    accuracy = figure(found, "accuracy")
    gap = right[0].mean() - right[1].mean()
    assert accuracy["difference"] == pytest.approx(gap)
    assert accuracy["first"]["value"] == pytest.approx(right[0].mean())
    each = (right[0] - right[1]).reshape(100, 4).sum(1)  # of 100 people with four faces
    error = each.std(ddof=1) * np.sqrt(100) / FACES
    half = student.ppf(0.975, 99) * error
    assert accuracy["low"] == pytest.approx(gap - half, abs=0.06 * half)
    assert accuracy["high"] == pytest.approx(gap + half, abs=0.06 * half)
    first = found["figures"][0]
    assert first["metric"] == "macro_f1"  # by which the track ranks
    assert first["certain"]
    assert "good is better than fair by macro F1" in shown
    assert "of these trained networks, which says nothing of other seeds" in " ".join(shown.split())
    assert "could have shown a difference from" in shown
    swapped, _ = run(results.folder, "demo/fair", "demo/good")
    assert figure(swapped, "accuracy")["difference"] == pytest.approx(-gap)
    assert figure(swapped, "macro_f1")["p"] == pytest.approx(first["p"])


def test_of_equal_rows_nothing_is_certain(results: Results, run: Compare) -> None:
    table = predictions(2.0, 0)
    results.cell("one", 0, table=table)
    results.cell("other", 0, table=table)
    results.write()
    found, shown = run(results.folder, "demo/one", "demo/other")
    assert all(each["difference"] in (0, None) and not each.get("certain") for each in found["figures"])
    assert "one and other cannot be told apart by macro F1" in shown
    assert found["disagreements"]["only_first"] == []


def test_three_seeds_of_each_speak_of_the_models(results: Results, run: Compare) -> None:
    for seed in range(3):
        results.cell("good", seed, 3.0)
        results.cell("bad", seed, 1.0)
    results.write()
    found, shown = run(results.folder, "demo/good", "demo/bad")
    assert found["rows"] == [
        {"name": "good", "seeds": [0, 1, 2], "flags": []},
        {"name": "bad", "seeds": [0, 1, 2], "flags": []},
    ]
    assert figure(found, "macro_f1")["seeds_known"]
    assert "says nothing of other seeds" not in shown


def test_each_emotion_has_its_difference_and_its_faces(results: Results, run: Compare) -> None:
    table = predictions(2.5, 0)
    worse = blinded(table, (table["label"] == 1).to_numpy() & (np.arange(FACES) % 8 < 4))
    results.cell("good", 0, table=table)
    results.cell("no_smile", 0, table=worse)
    results.write()
    found, shown = run(results.folder, "demo/good", "demo/no_smile")
    for k, emotion in enumerate(EMOTIONS):
        mine = (table["label"] == k).to_numpy()
        right = [(each["label"] == each["prediction"])[mine].mean() for each in (table, worse)]
        each = figure(found, "accuracy", emotion)
        assert each["difference"] == pytest.approx(right[0] - right[1])
        assert each["first"]["n"] == mine.sum()
        assert each["certain"] == (emotion == "happy")
    assert "accuracy, by emotion" in shown


def test_each_slice_has_its_difference_and_its_faces(results: Results, run: Compare, tmp_path: Path) -> None:
    keep(tmp_path / "cache", columns())
    table = predictions(2.5, 0)
    female = np.arange(1000, 1000 + FACES) // 4 % 2 == 1
    worse = blinded(table, female & (np.arange(FACES) % 3 == 0))
    results.cell("good", 0, table=table)
    results.cell("blinded", 0, table=worse)
    results.write()
    found, shown = run(results.folder, "demo/good", "demo/blinded")
    by_slice = {(each["slice"], each["metric"]): each for each in found["slices"]}
    right = [(each["label"] == each["prediction"]).to_numpy() for each in (table, worse)]
    assert by_slice["female", "accuracy"]["difference"] == pytest.approx(
        right[0][female].mean() - right[1][female].mean()
    )
    assert by_slice["female", "accuracy"]["certain"]
    assert by_slice["male", "accuracy"]["difference"] == 0
    assert by_slice["male", "accuracy"]["n"] == 200
    assert "macro F1, by slice" in shown


def test_what_is_not_known_of_faces_and_probabilities_is_said(results: Results, run: Compare) -> None:
    results.cell("one", 0, 2.0)
    results.cell("other", 0, 1.0)
    results.write()
    found, shown = run(results.folder, "demo/one", "demo/other")
    assert "this machine's cache has not read it" in found["slices_reason"]
    assert "By slice: what the dataset says of its faces is not at hand" in shown


# ---- faces -----------------------------------------------------------------------------------------------------------


def test_the_faces_that_one_alone_reads_are_listed(results: Results, run: Compare, tmp_path: Path) -> None:
    table = predictions(9.0, 0)
    table = blinded(table, np.arange(FACES) < 0)
    assert (table["label"] == table["prediction"]).all()
    results.cell("one", 0, table=blinded(table, np.isin(np.arange(FACES), [5, 6, 7])))
    results.cell("other", 0, table=blinded(table, np.isin(np.arange(FACES), [7, 8])))
    results.write()
    found, shown = run(results.folder, "demo/one", "demo/other")
    apart = found["disagreements"]
    assert apart["counts"] == [FACES - 4, 1, 2, 1]  # both, the first alone, the second alone, neither
    (face,) = apart["only_first"]
    label = int(table["label"][8])
    reads = {"shown": EMOTIONS[label], "first": EMOTIONS[label], "second": EMOTIONS[(label + 1) % len(EMOTIONS)]}
    assert face == {"number": 1008, "name": "face8", "place": None, **reads}
    assert [face["number"] for face in apart["only_second"]] == [1005, 1006]
    said = "Of 400 test faces both are right about 396, only one about 1, only other about 2, neither about 1."
    assert said in " ".join(shown.split())
    assert not list((tmp_path / "compared").glob("*.png"))  # real people: row numbers alone
    assert "| 1008 | face8 |" in (tmp_path / "compared" / "compare.md").read_text()


def test_of_several_seeds_most_of_them_read_a_face(results: Results, run: Compare) -> None:
    right = blinded(predictions(9.0, 0), np.arange(FACES) < 0)
    for seed in range(3):
        results.cell("one", seed, table=blinded(right, np.isin(np.arange(FACES), [1] if seed == 0 else [])))
        results.cell("other", seed, table=blinded(right, np.isin(np.arange(FACES), [1, 2] if seed else [2])))
    results.write()
    apart = run(results.folder, "demo/one", "demo/other")[0]["disagreements"]
    assert [face["number"] for face in apart["only_first"]] == [1002]  # of 1001 one is right with 2 of 3, other with 1
    both = (FACES - 2) + 2 / 3 * 1 / 3
    assert apart["counts"] == pytest.approx([both, 1 + 2 / 3 * 2 / 3, 1 / 3 * 1 / 3, 1 / 3 * 2 / 3])


def test_drawn_faces_are_shown(tiny_results: Path, run: Compare, tmp_path: Path) -> None:
    found, shown = run(tiny_results, "tiny/resnet18", "control:permuted")
    faces = [*found["disagreements"]["only_first"], *found["disagreements"]["only_second"]]
    assert faces
    with Image.open(tmp_path / "compared" / "faces-recognition.png") as picture:
        assert picture.width > 100
    assert "![faces on which resnet18 and control:permuted disagree](faces-recognition.png)" in (
        tmp_path / "compared" / "compare.md"
    ).read_text().replace("\\", "")
    glasses = next(each for each in found["slices"] if each["slice"] == "with")
    assert glasses["reason"].startswith("too few")  # of 80 faces of 8 people
    assert "faces-recognition.png" in shown


def test_generators_differ_in_control_and_in_what_they_edit(tmp_path: Path, run: Compare) -> None:
    board = Judged(tmp_path / "results")
    for seed in range(2):
        board.generator("good", 0.95, seed, edits=0.8)
        board.generator("bad", 0.4, seed, edits=0.3, fed=9.0)
    board.write()
    found, shown = run(board.folder, "demo/good", "demo/bad")
    assert found["track"] == "generation"
    raw = figure(found, "control", "macro")
    values = [float(board.one(model=name, metric="control", emotion="macro")["value"]) for name in ("good", "bad")]
    assert raw["difference"] == pytest.approx(values[0] - values[1], abs=1e-6)
    assert found["figures"][0]["certain"]
    distance = figure(found, "fed")
    assert distance["difference"] == pytest.approx(-4)
    assert distance["p"] is None
    assert distance["reason"] == "one number a seed: fewer than three seeds give no interval"
    assert figure(found, "fid")["reason"] == "Inception weights not found"
    apart = found["disagreements"]
    assert apart["what"] == "requests"
    assert sum(apart["counts"]) == apart["n"] == 400
    assert all(face["first"] == face["shown"] != face["second"] for face in apart["only_first"])
    assert "Generation on faces" in shown
    assert "Editing on faces" in shown
    assert shown.count("Inception weights not found") == 2  # once for all figures, of faces and of edits
    assert not list((tmp_path / "compared").glob("faces-editing.png"))  # edits of real people


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ([1, 1, 0], "happy"),
        ([1, 0], "neutral or happy"),
        ([-1, -1, 0], "none of these"),
        ([0, -1], "neutral or none of these"),
    ],
)
def test_judges_of_two_minds_are_said_to_be(read: list[int], said: str) -> None:
    assert judgement(np.array(read), ["neutral", "happy"]) == said


# ---- which rows ------------------------------------------------------------------------------------------------------


def test_rows_of_two_boards_on_the_same_faces(results: Results, run: Compare, tmp_path: Path) -> None:
    results.cell("resnet18", 0, 2.0)
    results.write("before")
    results.rows.clear()
    results.cell("resnet18", 1, 2.5)
    results.write("after")
    found, _ = run(results.folder, "after/resnet18", "before/resnet18")
    assert [row["name"] for row in found["rows"]] == ["after/resnet18", "before/resnet18"]
    assert read_json(tmp_path / "compared" / "compare.json")["second"] == {
        "board": "before", "dataset": "faces", "row": "resnet18",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("demo/good", "demo/good", "are the same row"),
        ("demo/god", "demo/fair", "good"),
        ("nothing/good", "demo/fair", "BOARD/ROW"),
        ("demo/good", "demo/fewer", "400 and 300 test faces, 300 of them the same"),
        ("demo/good", "demo/relabelled", "of the same names, but with other labels"),
        ("demo/good", "demo/late", "was not measured (pending)"),
        ("demo/both", "demo/good", "stands on several datasets: faces, others"),
    ],
)
def test_what_cannot_be_compared_is_refused(results: Results, run: Compare, first: str, second: str, said: str) -> None:
    table = predictions(2.0, 0)
    results.cell("good", 0, table=table)
    results.cell("fair", 0, 1.5)
    results.cell("fewer", 0, table=table[:300])
    results.cell("relabelled", 0, table=table.assign(label=(table["label"] + 1) % 4))
    results.cell("late", 0)
    results.cell("both", 0, 2.0)
    results.cell("both", 0, 2.0, dataset="others")
    results.write()
    with pytest.raises(EmobenchError) as error:
        run(results.folder, first, second)
    assert said in str(error.value)


def test_drawn_faces_of_one_name_that_are_drawn_otherwise_are_refused(
    tiny_results: Path, run: Compare, tmp_path: Path
) -> None:
    """Drawn test faces have the same names and labels whatever the variant."""
    cells = named(tiny_results, "tiny/resnet18", None).cells
    record = cells[0].record
    assert record is not None
    assert record.evaluation is not None
    fit = json.loads(json.dumps(record.made_of.fit))
    fit["data"]["arguments"]["draw_seed"] = 1
    dataset = record.evaluation.dataset.model_copy(update={"fingerprint": "other"})
    evaluation = record.evaluation.model_copy(update={"dataset": dataset})
    changed = {"made_of": MadeOf(fit=fit, eval=record.made_of.eval), "evaluation": evaluation}
    other = replace(cells[0], record=record.model_copy(update=changed))
    with pytest.raises(StoreError, match="differ in more than their labels"):
        check_faces(tracks()["recognition"], Side("one", "tiny", cells), Side("other", "tiny", [other]))


def test_the_dataset_is_chosen_by_on(results: Results, run: Compare) -> None:
    for dataset in ("faces", "others"):
        results.cell("good", 0, 2.5, dataset=dataset)
        results.cell("fair", 0, 1.5, dataset=dataset)
    results.write()
    assert run(results.folder, "demo/good", "fair", "others")[0]["dataset"] == "others"
    assert run(results.folder, "demo/others/good", "fair")[0]["dataset"] == "others"
    with pytest.raises(EmobenchError, match="stands on faces, others"):
        run(results.folder, "demo/good", "fair", "nowhere")


def test_what_is_there_is_not_overwritten(results: Results, tmp_path: Path) -> None:
    results.cell("good", 0, 2.5)
    results.cell("fair", 0, 1.5)
    results.write()
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out" / "compare.json", {})
    with pytest.raises(EmobenchError, match="is there already"):
        compare("demo/good", "demo/fair", None, results.folder, tmp_path, tmp_path / "out", force=False)


def test_hostile_names_steer_no_terminal(results: Results, run: Compare, tmp_path: Path) -> None:
    results.cell("a\x1b[2Jb", 0, 2.5)
    results.cell("<img src=x>|", 0, 1.5)
    results.write()
    _, shown = run(results.folder, "demo/a\x1b[2Jb", "demo/<img src=x>|")
    assert "\x1b[2J" not in shown
    text = (tmp_path / "compared" / "compare.md").read_text()
    assert "<img" not in text
