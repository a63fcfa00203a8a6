"""Boards from files alone: numbers, verdicts, controls, and what is broken or hostile."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_records import made_evaluation, made_fit, made_record, with_keys
from reading import pages
from sklearn.metrics import f1_score

from emobench.report.markdown import code, escape, markdown
from emobench.report.tables import details
from emobench.report.write import write
from emobench.runner import store

EMOTIONS = ("neutral", "happy", "sad", "fear")
FACES = 400
COLUMNS = (
    "suite,dataset,size,track,model,variant,trainer,seed,metric,emotion,value,low,high,n,reason,judge,hardware,"
    "protocol,flags"
)


def predictions(
    quality: float, seed: int, faces: int = FACES, leaked: int = 0, emotions: Sequence[str] = EMOTIONS
) -> pd.DataFrame:
    """Raw predictions that are right the more often the higher `quality` is; 0 is chance."""
    shared, own = np.random.default_rng(7), np.random.default_rng([seed, round(quality * 100)])
    labels = np.arange(faces) % len(emotions)
    logits = own.normal(size=(faces, len(emotions)))
    if quality:
        logits[np.arange(faces), labels] += quality + shared.normal(size=faces)  # some faces are hard for every model
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).astype(np.float32)
    return pd.DataFrame(
        {
            "index": np.arange(faces) + 1000,
            "id": [f"face{place}" for place in range(faces)],
            "subject": [f"person{place // 4}" for place in range(faces)],
            "label": labels,
            "prediction": probabilities.argmax(1),
            "leaked": np.arange(faces) < leaked,
            **{f"p_{emotion}": probabilities[:, k] for k, emotion in enumerate(emotions)},
        }
    )


class Results:
    """A results folder that is filled cell by cell in the store's layout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []  # type: ignore[var-annotated]

    def cell(
        self,
        row: str,
        seed: int = 0,
        quality: float | None = None,
        *,
        model: str | None = None,
        dataset: str = "faces",
        control: str | None = None,
        skipped: str | None = None,
        table: pd.DataFrame | None = None,
        **changes: Any,
    ) -> Path:
        """Add a row to the suite; with a quality or a table of predictions it is done. Returns the cell's folder."""
        entry = {"row": row, "model": model or row, "variant": "" if model is None else row, "dataset": dataset}
        if control:
            entry |= {"model": f"control:{control}", "variant": model}
        entry |= {"size": 48, "seed": seed, "track": "recognition", "control": control}
        self.rows.append(with_keys(entry, changes.get("code")) | {"skipped": skipped})
        folder = self.folder / "cells" / self.rows[-1]["fit_key"] / self.rows[-1]["eval_key"]
        if table is None and quality is not None:
            table = predictions(quality, seed)
        if table is not None:
            folder.mkdir(parents=True)
            table.to_parquet(folder / "predictions.parquet", index=False)
            emotions = [column[2:] for column in table if column.startswith("p_")]
            right = float((table["prediction"] == table["label"]).mean())
            track = {"values": {"accuracy": {"value": right, "n": len(table)}}, "faces_per_s": 1234.5}
            fit = made_fit(changes.pop("recipe_share", 1.0), 412.0 + seed, memory=None)
            evaluation = made_evaluation(
                emotions,
                {"recognition": track},
                {"predictions": "predictions.parquet"},
                counts=dict(zip(emotions, (10, 30, 20, 30, 5, 5, 5), strict=False)),
                notes=["carved from Training"],
                params=2_800_000,
                flops=560_000_000.0,
            )
            record = made_record(self.rows[-1], fit=fit, evaluation=evaluation, **changes)
            (folder / "result.json").write_text(json.dumps(record))
        elif "state" in changes:
            folder.parent.mkdir(parents=True)
            (folder.parent / "fit.json").write_text(json.dumps(made_record(self.rows[-1], **changes)))
        return folder

    def write(self, suite: str = "demo") -> Any:
        """Write the board; its page and its numbers come with it."""
        (self.folder / suite).mkdir(parents=True, exist_ok=True)
        content = {"schema_version": 1, "protocol": 1, "suite": suite, "commit": "abc", "rows": self.rows}
        (self.folder / suite / "suite.json").write_text(json.dumps(content))
        return write(self.folder, suite)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


def numbers(folder: Path, suite: str = "demo") -> pd.DataFrame:
    return pd.read_csv(folder / suite / "metrics.csv", keep_default_na=False)


def one(table: pd.DataFrame, **where: str) -> pd.Series:
    """The single row of metrics.csv with these values."""
    for column, value in where.items():
        table = table[table[column].astype(str) == value]
    assert len(table) == 1, table
    return table.iloc[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A finished board: two good models, a bad one, a control; three seeds."""
    made = Results(tmp_path_factory.mktemp("board"))
    for seed in range(3):
        made.cell("resnet18", seed, 3.0)
        made.cell("small", seed, 2.9, model="resnet18")
        made.cell("vit", seed, 1.0)
    made.cell("control:permuted", 0, 0.0, model="vit", control="permuted")
    made.write()
    return made


def test_verdict_state_and_ranks(whole: Results) -> None:
    page = (whole.folder / "demo" / "details-recognition.md").read_text().splitlines()
    assert page[0] == "# Recognition in detail: demo"
    assert page[2].startswith("Recognition on `faces`: **")
    assert "not certain" in page[2]
    assert "cannot be told apart from" in page[2]
    assert "Complete: 10 of 10 cells done." in pages(whole.folder / "demo").splitlines()
    rows = [line.split(" | ") for line in page if line.startswith("| 1–2 ") or line.startswith("| 3 ")]
    assert [row[0] for row in rows] == ["| 1–2", "| 1–2", "| 3"]
    assert rows[2][1] == "vit"
    assert {rows[0][1], rows[1][1]} == {"resnet18", "small"}
    assert rows[0][3] == "–"  # behind the first
    further = next(k for k, line in enumerate(page) if line.startswith("| model | ECE |"))
    cost = page[further + 2].split(" | ")
    assert cost[0] == f"| {rows[0][1]}"
    assert {"2.8 M", "560 M", "7 min"} <= set(cost)
    assert "- Hardware A: Test CPU, 2 cores." in page
    assert "- n = 400 faces. 95 % intervals: over 100 people, each with all its faces." in page
    assert "- The data: carved from Training" in page
    assert any("`emobench bench demo`" in line for line in page)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        # row -> how good it is, and its share of its recipe
        ({"lost": (0.0, 1.0)}, "which is no better than the majority class by its interval; there is no winner."),
        ({"lost": (0.0, 1.0), "too": (0.0, 1.0)}, "by its interval; nor is any other row, so there is no winner."),
        ({"short": (3.0, 0.04), "lost": (0.0, 1.0)}, "4 % of its recipe; no row that is better had half of its recipe"),
        ({"short": (3.0, 0.04), "near": (2.0, 0.1)}, "4 % of its recipe; no row had half of its recipe, so there is"),
        ({"short": (3.0, 0.04), "good": (2.0, 1.0)}, "of the rows that had at least half of their recipe **good** is"),
        ({"good": (2.0, 1.0), "near": (1.0, 0.1)}, "(the only one that had half of its recipe)"),
        ({"good": (2.0, 1.0), "lost": (0.0, 1.0)}, "(the only one better than the majority class)."),
        (
            {"good": (2.0, 1.0), "near": (1.0, 0.1), "lost": (0.0, 1.0)},
            "(the only one better than the majority class that had half of its recipe)",
        ),
    ],
)
def test_a_row_that_has_learned_nothing_or_little_wins_nothing(
    results: Results, rows: dict[str, tuple[float, float]], said: str
) -> None:
    for row, (quality, share) in rows.items():
        results.cell(row, 0, quality, recipe_share=share)
    results.write()
    page = pages(results.folder / "demo")
    verdict = page.splitlines()[2]
    assert said in verdict, verdict
    flagged = {row: f"| {row} |" in page and "no better than the majority" in line(page, row) for row in rows}
    assert flagged == {row: quality == 0 for row, (quality, _) in rows.items()}


def line(page: str, row: str) -> str:
    """The first line of a table that is about a row."""
    return next(each for each in page.splitlines() if f"| {row} |" in each)


def test_csv_holds_what_the_predictions_say(whole: Results) -> None:
    text = (whole.folder / "demo" / "metrics.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    table = numbers(whole.folder)
    per_seed = []
    for seed in range(3):
        raw = predictions(3.0, seed)
        found = one(table, model="resnet18", variant="", metric="macro_f1", seed=str(seed))
        expected = f1_score(raw["label"], raw["prediction"], average="macro")
        assert float(found["value"]) == pytest.approx(expected, abs=1e-6)
        assert float(found["low"]) < expected < float(found["high"])
        assert found["reason"] == "interval for this seed only"
        per_seed.append(expected)
        happy = one(table, model="resnet18", variant="", metric="recall", emotion="happy", seed=str(seed))
        asked = raw[raw["label"] == 1]
        assert float(happy["value"]) == pytest.approx((asked["prediction"] == 1).mean(), abs=1e-6)
        assert int(happy["n"]) == 100
    found = one(table, model="resnet18", variant="", metric="macro_f1", seed="")
    assert float(found["value"]) == pytest.approx(np.mean(per_seed), abs=1e-6)
    assert (int(found["n"]), found["reason"], int(found["protocol"])) == (400, "", 1)
    assert (found["hardware"], found["track"], int(found["size"])) == ("Test CPU, 2 cores", "recognition", 48)
    time = one(table, model="resnet18", variant="", metric="fit_seconds", seed="")
    assert (float(time["value"]), time["low"]) == (413.0, "")
    memory = one(table, model="resnet18", variant="", metric="peak_memory_gb", seed="")
    assert (memory["value"], memory["reason"]) == ("n/a", "not measured")
    assert set(table["metric"]) == {
        "accuracy", "macro_f1", "weighted_f1", "precision", "recall", "ece", "nll", "params", "flops", "fit_seconds",
        "fit_faces_per_s", "faces_per_s", "peak_memory_gb", "recipe_share",
    }  # fmt: skip
    assert "nan" not in text.lower()


def test_json_is_strict_and_holds_what_the_table_cannot(whole: Results) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (whole.folder / "demo" / "metrics.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert (found["cells"], found["done"], found["controls_pass"]) == (10, 10, True)
    assert "numbers" not in found  # they are in the CSV, and in it alone
    table = numbers(whole.folder)
    assert {rank["row"] for rank in found["ranks"]} <= {*table["model"], *table["variant"]}
    assert {(rank["row"], rank["worst"]) for rank in found["ranks"]} == {("resnet18", 2), ("small", 2), ("vit", 3)}
    pairs = {frozenset((pair["first"], pair["second"])): pair["certain"] for pair in found["comparisons"]}
    assert pairs[frozenset(("resnet18", "small"))] is False
    assert pairs[frozenset(("resnet18", "vit"))] is True


def test_controls(whole: Results) -> None:
    page = pages(whole.folder / "demo")
    table = numbers(whole.folder)
    majority = one(table, model="control:majority", metric="accuracy", emotion="")
    assert float(majority["value"]) == pytest.approx(0.25)  # happy and fear tie in training: the first of them
    assert "the floor of every model" in page
    assert float(one(table, model="control:majority", metric="macro_f1")["value"]) == pytest.approx(0.1)  # 0.4 / 4
    assert one(table, model="control:majority", metric="nll")["value"] == "n/a"
    permuted = one(table, model="control:permuted", metric="recall", emotion="macro", seed="0")
    assert permuted["variant"] == "vit"
    assert float(permuted["value"]) == pytest.approx(0.25, abs=0.1)
    (check,) = json.loads((whole.folder / "demo" / "metrics.json").read_text())["controls"]
    assert check["low"] <= check["value"] <= check["high"]
    assert "cannot fail: 4 emotions have too few names to tell" in page
    assert "A control fails" not in page


def test_pictures_and_committed_cells(whole: Results) -> None:
    folder = whole.folder / "demo"
    page = pages(folder)
    for name in ("confusion-resnet18-faces.webp", "confusion-vit-faces.webp", "ranking-faces.webp"):
        assert (folder / "figures" / name).read_bytes()[8:16] == b"WEBPVP8L"  # the lossless kind
        assert f"(figures/{name})" in page
    for row in whole.rows:
        cell = folder / "cells" / row["eval_key"]
        assert {file.name for file in cell.iterdir()} == {"result.json", "predictions.parquet"}


def test_the_board_is_a_function_of_its_files(whole: Results) -> None:
    folder = whole.folder / "demo"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    whole.write()
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before == after


def test_committed_cells_alone_give_the_same_page(whole: Results, tmp_path: Path) -> None:
    clone = tmp_path / "results"
    subprocess.run(["cp", "-r", str(whole.folder / "demo"), str(tmp_path / "demo")], check=True)
    clone.mkdir()
    (tmp_path / "demo").rename(clone / "demo")
    page = pages(clone / "demo")
    (clone / "demo" / "leaderboard.md").unlink()
    write(clone, "demo")
    assert pages(clone / "demo") == page


def test_certain_winner(results: Results) -> None:
    for seed in range(3):
        results.cell("good", seed, 3.5)
        results.cell("bad", seed, 1.0)
    board = results.write()
    verdict = pages(board.path.parent).splitlines()[2]
    assert verdict.startswith("Recognition on `faces`: **good** is best, macro F1 0.")
    assert "above bad; **certain** (3 seeds, corrected p < 0.001)" in verdict


def test_borderline_pairs_are_named(results: Results) -> None:
    results.cell("good", 0, 3.5)
    results.cell("bad", 0, 1.0)
    board = results.write()
    (section,) = board.sections
    near = dataclasses.replace(section.comparisons["macro_f1"][0], borderline=True)
    section.comparisons["macro_f1"][0] = section.entries[1].behind = near
    said = markdown(details(board, board.sections[0].track, {}))
    assert "**not certain**: it cannot be told apart from bad" in said.splitlines()[2]
    assert "(bad: borderline, p too near 5 % for the resamples to tell its side)" in said.splitlines()[2]
    assert "- *Borderline*: 1 pair of models, whose p lies so near 5 %" in said


def test_a_perfect_emotion_has_an_interval_of_its_own_faces(results: Results) -> None:
    table = predictions(3.0, 0)
    few = np.flatnonzero(table["label"] == 0)
    table = table.drop(index=table.index[few[5:]]).reset_index(drop=True)  # five faces of it, all read rightly
    mine = table["label"] == 0
    table.loc[mine, "prediction"] = 0
    for k, emotion in enumerate(EMOTIONS):
        table.loc[mine, f"p_{emotion}"] = 1.0 if k == 0 else 0.0
    table["index"] = np.arange(len(table))
    results.cell("net", 0, table=table)
    results.write()
    found = one(numbers(results.folder), model="net", metric="accuracy", emotion=EMOTIONS[0], seed="")
    assert (float(found["value"]), float(found["high"])) == (1.0, 1.0)
    assert float(found["low"]) == pytest.approx(1 - 2.7764**2 / (5 + 2.7764**2), abs=1e-3)  # not 1 − 4/500


def test_one_seed_is_certain_of_its_networks_only(results: Results) -> None:
    results.cell("good", 0, 3.5)
    results.cell("bad", 0, 1.0)
    verdict = pages(results.write().path.parent).splitlines()[2]
    assert "**certain for these trained networks only**: one seed cannot say what other seeds would give" in verdict


def test_failing_control_marks_the_whole_board(results: Results) -> None:
    seven = (*EMOTIONS, "surprise", "disgust", "anger")
    results.cell("good", 0, table=predictions(3.5, 0, emotions=seven))
    table = predictions(2.0, 0, emotions=seven)  # it knows the labels, which it cannot have learned
    results.cell("control:permuted", 0, table=table, model="good", control="permuted")
    board = results.write()
    page = pages(board.path.parent)
    failing = page.splitlines()[2]  # before any verdict
    assert failing.startswith(
        "> **A control fails: trust no number of this board**: control:permuted, seed 0: balanced"
    )
    assert "(chance: 0.143)" in failing
    assert "labels in the names of files" in failing
    assert "**FAILS**" in page
    assert [check.passed for check in board.checks] == [False]
    (check,) = json.loads((results.folder / "demo" / "metrics.json").read_text())["controls"]
    assert check["value"] == pytest.approx(
        (table["prediction"] == table["label"]).groupby(table["label"]).mean().mean()
    )


def test_board_without_a_permuted_run_says_so(results: Results) -> None:
    results.cell("good", 0, 3.5)
    said = "| control:permuted | balanced accuracy | n/a | – | not measured: nothing shows that no label leaks |"
    assert said in pages(results.write().path.parent)


def test_states_stay_visible(results: Results) -> None:
    for seed in range(3):
        results.cell("good", seed, 3.0)
    results.cell("torn", 0, 2.0)
    results.cell("torn", 1, state="diverged", reason="loss is NaN in step 12")
    results.cell("gone", 0, state="failed", reason="out of memory")
    results.cell("later", 0)
    results.cell("absent", 0, skipped="no weights; put them there")
    board = results.write()
    page = pages(board.path.parent)
    assert "**Incomplete**: 4 of 7 cells done." in page
    assert "- torn on faces, seed 1: diverged: loss is NaN in step 12" in page
    assert "- gone on faces, seed 0: failed: out of memory" in page
    assert "- later on faces, seed 0: pending" in page
    assert "| – | gone | n/a (failed: out of memory) |" in page
    assert "- absent on faces: no weights; put them there" in page
    (torn,) = (line for line in page.splitlines() if line.startswith("| – | torn |"))
    assert torn.endswith(" | diverged, incomplete |")
    assert any(line.startswith("| torn |") and line.endswith("| 1 of 2 | A |") for line in page.splitlines())
    assert any(line.startswith("| – | gone |") and line.endswith("| 0 of 1 seeds |") for line in page.splitlines())
    assert [entry.ranks for entry in board.sections[0].entries if entry.name == "torn"] == [{}]
    assert {(number.model, number.reason) for number in board.failed} == {
        ("torn", "diverged: loss is NaN in step 12"),
        ("gone", "failed: out of memory"),
    }
    found = one(numbers(results.folder), model="gone", metric="macro_f1", seed="0")
    assert (found["value"], found["reason"]) == ("n/a", "failed: out of memory")


def test_rows_that_are_skipped_for_one_reason_are_named_together(results: Results) -> None:
    results.cell("good", 0, 3.0)
    for row in ("one", "two", "three"):
        results.cell(row, 0, skipped=f"suite demo, [model.{row}] on faces: weights x not found; fetch them")
    results.cell("other", 0, skipped="no such dataset")
    page = pages(results.write().path.parent)
    assert "- one, two and three on faces: weights x not found; fetch them" in page
    assert "- other on faces: no such dataset" in page


def test_a_control_that_failed_is_a_cell_as_others_are(results: Results) -> None:
    results.cell("good", 0, 3.0)
    results.cell("control:permuted", 0, model="good", control="permuted", state="failed", reason="out of memory")
    board = results.write()
    page = pages(board.path.parent)
    assert "**Incomplete**: 1 of 2 cells done." in page
    assert "- control:permuted on faces, seed 0: failed: out of memory" in page
    assert [number.model for number in board.failed] == ["control:permuted"]
    assert json.loads((results.folder / "demo" / "metrics.json").read_text())["done"] == 1


def test_nothing_done_yet(results: Results) -> None:
    results.cell("later", 0)
    page = pages(results.write().path.parent)
    assert page.splitlines()[2] == "Recognition on `faces`: nothing is measured yet."
    assert "**Incomplete**: 0 of 1 cells done." in page


def damage(folder: Path, how: str) -> None:
    path = folder / "predictions.parquet"
    table = pd.read_parquet(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "missing":
        path.unlink()
    elif how == "half a result":
        (folder / "result.json").write_text('{"schema_version": 1, "protocol"')
    elif how == "not finite":
        table.assign(p_happy=np.float32("nan")).to_parquet(path)
    elif how == "a column less":
        table.drop(columns="p_sad").to_parquet(path)
    elif how == "other predictions":
        table.assign(prediction=(table["prediction"] + 1) % 4).to_parquet(path)
    elif how == "other numbers":
        record = json.loads((folder / "result.json").read_text())
        record["evaluation"]["tracks"]["recognition"]["values"]["accuracy"]["value"] = 0.99
        (folder / "result.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "predictions.parquet: cannot be read"),
        ("missing", "predictions.parquet: missing"),
        ("half a result", "result.json: not a whole result file"),
        ("not finite", "probabilities must lie between 0 and 1"),
        ("a column less", "p_sad"),
        ("other predictions", "not the most probable emotion"),
        ("other numbers", "but result.json says 0.99"),
    ],
)
def test_broken_files_are_named_and_left_out(results: Results, how: str, said: str) -> None:
    results.cell("good", 0, 3.0)
    damage(results.cell("broken", 0, 2.0), how)
    board = results.write()
    page = pages(board.path.parent)
    assert "**Incomplete**: 1 of 2 cells done." in page
    (reason,) = (number.reason for number in board.failed)
    assert said in reason
    assert str(results.folder) in reason
    assert [entry.name for entry in board.sections[0].compared["macro_f1"]] == ["good"]


def test_other_test_faces_are_not_compared(results: Results) -> None:
    results.cell("good", 0, 3.0)
    results.cell("like it", 0, 2.5)
    results.cell("other", 0, table=predictions(3.5, 0, faces=300))
    board = results.write()
    assert [entry.name for entry in board.sections[0].compared["macro_f1"]] == ["good", "like it"]
    (number,) = board.failed
    assert "measured on other test faces" in number.reason


def test_leaked_faces_have_their_own_accuracy(results: Results) -> None:
    raw = predictions(2.0, 0, leaked=80)
    results.cell("good", 0, table=raw)
    page = pages(results.write().path.parent)
    found = one(numbers(results.folder), model="good", metric="accuracy_unleaked", seed="0")
    rest = raw[~raw["leaked"]]
    assert float(found["value"]) == pytest.approx((rest["prediction"] == rest["label"]).mean(), abs=1e-6)
    assert int(found["n"]) == 320
    assert "accuracy, unleaked" in page
    assert "80 of which also occur in training or validation" in page


def test_copied_faces_have_their_own_accuracy(results: Results) -> None:
    raw = predictions(2.0, 0, leaked=80).assign(copied=lambda table: np.arange(len(table)) < 120)
    results.cell("good", 0, table=raw)
    page = pages(results.write().path.parent)
    found = one(numbers(results.folder), model="good", metric="accuracy_distinct", seed="0")
    rest = raw[~raw["copied"]]
    assert float(found["value"]) == pytest.approx((rest["prediction"] == rest["label"]).mean(), abs=1e-6)
    assert int(found["n"]) == 280
    assert "accuracy, distinct" in page
    unleaked = one(numbers(results.folder), model="good", metric="accuracy_unleaked", seed="0")
    assert int(unleaked["n"]) == 320


def test_flags(results: Results) -> None:
    results.cell("full", 0, 3.0)
    results.cell("short", 0, 2.0, recipe_share=0.3)
    results.cell("old", 0, 2.0, code="of another day")
    page = pages(results.write().path.parent)
    table = numbers(results.folder)
    assert one(table, model="short", metric="accuracy", emotion="", seed="")["flags"] == "under-trained"
    assert one(table, model="old", metric="accuracy", emotion="", seed="")["flags"] == "stale"
    assert "stale" not in page
    said = "- Made by earlier commits; code that these numbers depend on reads differently today: old by `abc`."
    assert said in page.splitlines()
    assert page.splitlines()[2].endswith("such a figure is not known; short is under-trained.")
    assert "*under-trained*: less than half of the recipe's faces" in page


def test_several_datasets_are_ranked_apart(results: Results) -> None:
    for dataset, best in (("plain", 3.0), ("hard", 1.0)):
        results.cell("one", 0, best, dataset=dataset)
        results.cell("two", 0, 2.0, dataset=dataset)
    page = pages(results.write().path.parent)
    assert "- Recognition on `plain`: **one** is best" in page
    assert "- Recognition on `hard`: **two** is best" in page
    (line,) = (line for line in page.splitlines() if line.startswith("| one |") and "rank" in line)
    assert line.count("rank") == 2


HOSTILE = ["<script>a(1)</script>", "a|b\nc", "[x](javascript:alert(1))", "=cmd()", "`tick` _it_ *b*", "<img src=x>"]


def test_hostile_names_are_inert(results: Results) -> None:
    for name in HOSTILE:
        results.cell(name, 0, 2.0, model="vit", dataset="=data|<b>")
    results.cell("-1+1|<i>", 0, state="failed", reason="[see](javascript:x)\n# Heading <iframe> |")
    results.cell("@sum", 0, skipped="<script>")
    page = pages(results.write().path.parent)
    for active in ("<script", "<img", "<b>", "<i>", "<iframe", "](javascript:", "\n# Heading"):
        assert active not in page
    header, *_ = (line for line in page.splitlines() if line.startswith("| rank: macro F1 |"))
    start = page.splitlines().index(header)
    for line in page.splitlines()[start : start + 2 + len(HOSTILE)]:
        assert line.replace("\\|", "").count("|") == header.count("|")
    with open(results.folder / "demo" / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {19}
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@", "-"))]
    assert not [cell for row in rows for cell in row if "\n" in cell]
    assert {"'=cmd()", "a|b c"} <= {row[5] for row in rows}
    pictures = {path.name for path in (results.folder / "demo" / "figures").iterdir()}
    assert len(pictures) == len(HOSTILE) + 1
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in pictures)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("resnet18", "resnet18"),
        ("vit_cvae", "vit_cvae"),
        ("timm:resnet10t", "timm:resnet10t"),
        ("a|b\nc", "a\\|b c"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("[x](javascript:y)", "\\[x\\](javascript\\:y)"),
        ("_x_ *y* `z`", "\\_x\\_ \\*y\\* \\`z\\`"),
        ("https://a.b www.c.d", "https:/\\/a.b www\\.c.d"),
        ("# h", "\\# h"),
        ("1. x", "1\\. x"),
        ("- x", "\\- x"),
        ("back\\slash", "back\\\\slash"),
        ("\u202eabc\x00", "abc"),
    ],
)
def test_escape(text: str, safe: str) -> None:
    assert escape(text) == safe


def test_code_span_cannot_be_left() -> None:
    assert code("a`b\n|<c>") == "`a'b ¦‹c›`"


@pytest.mark.slow
def test_the_report_needs_no_torch(whole: Results) -> None:
    program = (
        "import sys; from pathlib import Path; from emobench.report.write import write\n"
        f"write(Path({str(whole.folder)!r}), 'demo')\n"
        "print(sorted({'torch', 'lightning', 'torchvision', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_first_table_has_seven_columns_and_unbroken_intervals(results: Results) -> None:
    for seed in range(3):
        results.cell("good", seed, 3.0)
    page = pages(results.write().path.parent)
    lines = page.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("| rank: macro F1 |"))
    assert lines[start] == "| rank: macro F1 | model | macro F1 | behind the first | accuracy | weighted F1 | flags |"
    good = next(line for line in lines[start:] if line.startswith("| 1 | good |"))
    assert re.search(r"\| 0\.\d{3}\u00a0\(0\.\d{3}–\u2060\d", good)
    further = next(line for line in lines[start:] if line.startswith("| model | ECE |"))
    assert further.endswith("| of the recipe | seeds | hardware |")


def test_settings_are_chosen_among_once_a_board(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in ("net[lr=1]", "net[lr=2]"):
        results.cell(row, 0, 2.0)
        results.rows[-1]["setting_of"] = "net"
    asked: list[list[str]] = []
    real = store.choice

    def choice(group: Any, fit_of: Any) -> Any:
        asked.append([cell.row for cell in group])
        return real(group, fit_of)

    monkeypatch.setattr(store, "choice", choice)
    board = results.write()
    assert asked == [["net[lr=1]", "net[lr=2]"]]
    assert [each.sweep for section in board.sections for each in section.choices] == ["net"]
    assert "### Settings of net" in pages(board.path.parent)
