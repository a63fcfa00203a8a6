"""Boards of generators from files alone: control with intervals, two ranks, controls, and what is not comparable."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import RESULTS
from made_records import made_evaluation, made_fit, made_record, with_keys
from PIL import Image
from reading import pages

from emobench.report.board import sections
from emobench.report.write import write
from emobench.runner.store import load_board
from emobench.suite.catalog import tracks

EMOTIONS = ("neutral", "happy", "sad", "fear")
K = len(EMOTIONS)
RECALL = (0.9, 0.8)  # of the two judges


def reads(shown: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """What each judge reads of faces that show these emotions."""
    found = {}
    for place, recall in enumerate(RECALL):
        wrong = (shown + random.integers(1, K, len(shown))) % K
        found[f"read_{place}"] = np.where(random.random(len(shown)) < recall, shown, wrong)
    return found


def faces(kind: str, asked: np.ndarray, shown: np.ndarray, seed: int, **columns: Any) -> pd.DataFrame:
    random = np.random.default_rng([seed, *kind.encode()])
    n = len(asked)
    empty = {"row": np.full(n, -1), "person": np.full(n, -1), "half": np.full(n, -1), "level": np.ones(n)}
    judged = reads(shown, random)
    probable = {f"p_{place}": (judged[f"read_{place}"] == asked).astype(np.float32) for place in range(len(RECALL))}
    return pd.DataFrame({"kind": kind, "face": np.arange(n), "asked": asked, **judged, **probable, **empty, **columns})


def obeying(asked: np.ndarray, share: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.where(random.random(len(asked)) < share, asked, (asked + random.integers(1, K, len(asked))) % K)


def verdicts(share: float, seed: int, edits: float | None, own: float | None) -> pd.DataFrame:
    """All verdicts of a cell: the same real faces for all, `share` of what it makes shows what was asked for."""
    labels = np.tile(np.arange(K), 200)
    people = np.arange(len(labels)) // K
    rows = np.arange(len(labels))
    asked = np.tile(np.arange(K), 100)
    tables = [
        faces("real", labels, labels, 0, person=people, row=rows, half=people % 2),
        faces("copies", labels, labels, 1, row=rows + 1000),
        faces("control", asked, obeying(asked, share, seed), seed),
    ]
    if own is not None:
        tables[-1]["self_0"] = obeying(asked, own, seed + 50)
    levels = np.tile([0, 0.25, 0.5, 0.75, 1.0], 40)
    target = np.repeat([1, 2, 3, 1, 2], 40)
    strong = np.random.default_rng(seed).random(200) < levels
    tables.append(faces("intensity", target, np.where(strong, target, 0), seed, level=levels))
    if edits is not None:
        sources = np.repeat(np.arange(60), K - 1)
        wanted = (labels[sources] + np.tile(np.arange(1, K), 60)) % K
        shared = np.random.default_rng(5).random(60)[sources]  # some people obey every editor
        shown = np.where(shared < edits, wanted, labels[sources])
        place = {"row": sources, "person": people[sources]}
        kept = {"ssim": 0.5 + 0.4 * edits, "ssim_other": 0.3, "truth_psnr": 20.0, "truth_ssim": 0.7}
        tables.append(faces("editing", wanted, shown, 3, **place, **kept))
        tables.append(faces("source", wanted, labels[sources], 4, **place))
    return pd.concat(tables, ignore_index=True)


class Board:
    """A results folder that is filled generator by generator in the store's layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []

    def generator(
        self,
        row: str,
        share: float,
        seed: int = 0,
        *,
        fed: float = 5.0,
        edits: float | None = None,
        own: float | None = None,
        panel: str = "a",
        copied: float = 0.0,
        recipe_share: float = 1.0,
        **changes: Any,
    ) -> Path:
        entry = {"row": row, "model": row, "variant": "", "dataset": "faces", "size": 32, "seed": seed}
        entry = with_keys({**entry, "track": "generation", "control": None, "skipped": None}, changes.get("code"))
        self.rows.append(entry)
        folder = self.folder / "cells" / entry["fit_key"] / entry["eval_key"]
        folder.mkdir(parents=True)
        verdicts(share, seed, edits, own).to_parquet(folder / "verdicts.parquet", index=False)
        Image.fromarray(np.full((4 * 32, 5 * 32, 3), 90, np.uint8)).save(folder / "edits.png")

        def value(number: float | None, reason: str | None = None) -> dict[str, Any]:
            return {"value": number, "n": 640, "reason": reason}

        whole = {"fed": value(fed + 0.1 * seed), "es": value(3.0), "fid": value(None, "Inception weights not found")}
        card = {"fit_key": "j", "architecture": "resnet18", "seed": 0, "data": "f", "needs": {}}
        drawn = {"values": {**whole, "memorisation": value(copied)}, "faces_per_s": 99.0}
        edited = {"editing": {"values": whole, "faces_per_s": 50.0}} if edits is not None else {}
        evaluation = made_evaluation(
            EMOTIONS,
            {"generation": drawn, **edited},
            {"verdicts": "verdicts.parquet", **({"edits": "edits.png"} if edits is not None else {})},
            references={"floor": whole, "copies": {"memorisation": value(1.0)}},
            panel=[{**card, "row": f"judge{k}", "sha256": f"{panel}{k}"} for k in range(2)],
            reader={**card, "row": "reader", "sha256": "r"},
            guides=[],
            params=1_000_000,
            flops=5e8,
            own_size=32,
            draws=True,
        )
        record = made_record(entry, fit=made_fit(recipe_share), evaluation=evaluation, **changes)
        (folder / "result.json").write_text(json.dumps(record))
        return folder

    def write(self) -> Any:
        suite = self.folder / "demo"
        suite.mkdir(exist_ok=True)
        head = {"schema_version": 1, "protocol": 1, "suite": "demo", "commit": None}
        (suite / "suite.json").write_text(json.dumps({**head, "rows": self.rows}))
        self.board = write(self.folder, "demo")
        self.text = pages(self.board.path.parent)
        self.table = pd.read_csv(suite / "metrics.csv", keep_default_na=False)
        self.json = json.loads((suite / "metrics.json").read_text())
        return self

    def one(self, **where: str) -> pd.Series:
        found = self.table
        for column, value in {"seed": "", "judge": "", "track": "generation", **where}.items():
            found = found[found[column].astype(str) == value]
        assert len(found) == 1, found
        return found.iloc[0]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_control_is_what_the_faces_show(board: Board) -> None:
    board.generator("good", 0.9)
    board.generator("poor", 0.4)
    board.write()
    for model, share in (("good", 0.9), ("poor", 0.4)):
        found = board.one(model=model, metric="control_calibrated", emotion="macro")
        asked = np.tile(np.arange(K), 100)
        shown = float((obeying(asked, share, 0) == asked).mean())
        assert float(found.low) < shown < float(found.high)
        assert float(found.value) == pytest.approx(shown, abs=0.05)
        assert "this seed only" in found.reason
        raw = board.one(model=model, metric="control", emotion="macro")
        expected = np.mean([share * recall + (1 - share) * (1 - recall) / (K - 1) for recall in RECALL])
        assert float(raw.value) == pytest.approx(expected, abs=0.05)
        assert float(board.one(model=model, metric="control_min", emotion="macro").value) < float(raw.value)
        corrected = board.one(model=model, metric="control_corrected", emotion="macro")
        assert float(corrected.value) == pytest.approx((float(raw.value) - 1 / K) / (1 - 1 / K), rel=1e-4)
        each = [
            float(board.one(model=model, metric="control", emotion="macro", judge=f"judge{k}").value) for k in (0, 1)
        ]
        assert np.mean(each) == pytest.approx(float(raw.value), abs=1e-6)
    ranks = {(rank["row"], rank["by"]): (rank["best"], rank["worst"]) for rank in board.json["ranks"]}
    assert ranks["good", "control"] == (1, 1)
    assert ranks["poor", "control"] == (2, 2)
    assert re.search(r"\*\*good\*\* obeys best, control \d\.\d{3} \([^)]*\) where real faces score 1, ", board.text)
    assert "- Control, calibrated, is no share: the judges' own errors on real faces are taken off" in board.text
    assert "certain for these trained networks only" in board.text


def test_models_that_obey_alike_share_a_rank(board: Board) -> None:
    board.generator("one", 0.80)
    board.generator("two", 0.81, seed=0)
    board.generator("three", 0.3)
    board.write()
    ranks = {rank["row"]: (rank["best"], rank["worst"]) for rank in board.json["ranks"] if rank["by"] == "control"}
    assert ranks["one"] == ranks["two"] == (1, 2)
    assert ranks["three"] == (3, 3)
    assert "it cannot be told apart from" in board.text


def test_distances_order_below_three_seeds_and_rank_from_three_on(board: Board) -> None:
    for row, fed in (("near", 2.0), ("far", 9.0)):
        for seed in range(2):
            board.generator(row, 0.5, seed, fed=fed)
    board.write()
    found = board.one(model="near", metric="fed")
    assert float(found.value) == pytest.approx(2.05)
    assert (found.low, found.high) == ("", "")
    assert "order only" in found.reason
    assert all(rank["order_only"] for rank in board.json["ranks"] if rank["by"] == "fidelity")
    for row, fed in (("near", 2.0), ("far", 9.0)):
        board.generator(row, 0.5, 2, fed=fed)
    board.write()
    found = board.one(model="near", metric="fed")
    assert float(found.low) < 2.1 < float(found.high)
    assert float(board.one(model="near", metric="control", emotion="macro").low) > 0
    ranks = {rank["row"]: rank for rank in board.json["ranks"] if rank["by"] == "fidelity"}
    assert (ranks["near"]["best"], ranks["far"]["best"]) == (1, 2)
    assert not ranks["near"]["order_only"]


def test_controls_say_what_is_known_of_them(board: Board) -> None:
    board.generator("good", 0.9, edits=0.7)
    board.write()
    assert board.json["controls_pass"], board.json["controls"]
    for name, truth in (("real", 1.0), ("shuffled", 1 / K), ("copies", 1.0)):
        found = board.one(model=f"control:{name}", metric="control_calibrated", emotion="macro")
        assert float(found.value) == pytest.approx(truth, abs=0.1)
        assert found.reason == ""
    source = board.one(model="control:source", metric="control_calibrated", emotion="macro", track="editing")
    assert float(source.value) == pytest.approx(0, abs=0.05)
    assert float(board.one(model="control:floor", metric="fed").value) == 5.0
    other = board.one(model="control:other_person", metric="ssim", track="editing")
    assert float(other.value) == pytest.approx(0.3)
    names = set(board.table[board.table.model.str.startswith("control:")].model)
    assert names == {
        f"control:{name}" for name in ("real", "shuffled", "one_emotion", "copies", "floor", "source", "other_person")
    }


def source_check(board: Board, *, changed: bool) -> dict[str, Any]:
    """Sixteen sources of which no judge misreads one; or every second is edited into what was asked for."""
    folder = board.generator("good", 0.9, edits=0.7)
    table = pd.read_parquet(folder / "verdicts.parquet")
    few = (table.kind == "source") & (table.row < 16)
    table = table[few | (table.kind != "source")].reset_index(drop=True)
    few = (table.kind == "source").to_numpy()
    edited = changed & (np.arange(few.sum()) % 2 == 0)
    shown = np.where(edited, table.asked[few], table.row[few] % K)
    for place in range(len(RECALL)):
        table.loc[few, f"read_{place}"] = shown
    table.to_parquet(folder / "verdicts.parquet", index=False)
    board.write()
    return next(check for check in board.json["controls"] if check["name"] == "control:source")


def test_a_handful_of_sources_that_nobody_misreads_is_as_it_should_be(board: Board) -> None:
    """Their own spread is none; that of as many other faces, of which judges misread a few, is wide."""
    check = source_check(board, changed=False)
    assert check["value"] < -0.04  # −f / (recall − f), for judges that misread 10 and 20 %
    assert check["low"] < check["value"]
    assert board.json["controls_pass"]


def test_sources_that_were_changed_are_not(board: Board) -> None:
    check = source_check(board, changed=True)
    assert check["value"] > check["high"]
    assert not board.json["controls_pass"]


def test_a_panel_that_reads_something_else_marks_the_board(board: Board) -> None:
    """Faces of the second half were mislabelled: a real face is no longer read as itself."""
    folder = board.generator("good", 0.9)
    table = pd.read_parquet(folder / "verdicts.parquet")
    wrong = (table.kind == "real") & (table.half == 1)
    table.loc[wrong, "asked"] = (table.loc[wrong, "asked"] + table.loc[wrong, "person"] // 2 % 2) % K
    table.to_parquet(folder / "verdicts.parquet", index=False)
    board.write()
    assert not board.json["controls_pass"]
    assert "trust no number of this board" in board.text
    assert "control:real" in board.text


def test_editors_are_compared_on_the_same_sources(board: Board) -> None:
    board.generator("better", 0.5, edits=0.8)
    board.generator("worse", 0.5, edits=0.7)
    board.write()
    edits = board.one(model="better", metric="control_calibrated", emotion="macro", track="editing")
    assert float(edits.value) == pytest.approx(0.8, abs=0.12)
    kept = board.one(model="better", metric="ssim", track="editing")
    assert float(kept.value) == pytest.approx(0.5 + 0.4 * 0.8)
    identity = board.one(model="better", metric="identity", track="editing")
    assert identity.value == "n/a"
    assert "[evaluation] identity" in identity.reason
    pair = next(pair for pair in board.json["comparisons"] if pair.get("track") == "editing")
    wide = float(edits.high) - float(edits.low)
    assert pair["high"] - pair["low"] < wide  # paired: what is hard about a source is hard for both
    picture = board.folder / "demo" / "figures" / "edits-faces.webp"
    assert Image.open(picture).size[0] > 5 * 32


def by_seed(folder: Path, *, column: bool) -> None:
    """Of every noise seed all four faces obey, or none: 100 seeds are 100 faces and not 400."""
    table = pd.read_parquet(folder / "verdicts.parquet")
    drawn = table.kind == "control"
    seeds = np.repeat(np.arange(100), K)
    for place in range(len(RECALL)):
        table.loc[drawn, f"read_{place}"] = (table.asked[drawn] + (seeds % 10 >= 7)) % K
    if column:  # newer results say the seed, in whatever order the faces stand
        table["seed"] = -1
        table.loc[drawn, "seed"] = 10**6 + seeds
        mixed = np.random.default_rng(0).permutation(np.flatnonzero(drawn))
        table = pd.concat([table[~drawn], table.iloc[mixed].assign(face=np.arange(len(mixed)))], ignore_index=True)
    table.to_parquet(folder / "verdicts.parquet", index=False)


@pytest.mark.parametrize("column", [False, True])
def test_faces_of_a_noise_seed_are_resampled_together(board: Board, column: bool) -> None:
    by_seed(board.generator("good", 0.9), column=column)
    board.write()
    found = board.one(model="good", metric="control", emotion="macro")
    error = np.sqrt(0.7 * 0.3 / 100)
    assert float(found.high) - float(found.low) == pytest.approx(2 * 1.984 * error, rel=0.06)  # t of 99
    single = board.one(model="good", metric="control", emotion="sad")
    assert float(single.high) - float(single.low) == pytest.approx(2 * 1.984 * error, rel=0.06)
    assert "95 % intervals: over 100 noise seeds" in board.text
    assert "also over the 100 people that calibrate" in board.text


def test_two_generators_of_few_seeds_are_not_told_apart(board: Board) -> None:
    """A difference of 0.07 is certain of 400 faces each, but not of 100 seeds."""
    by_seed(board.generator("one", 0.9), column=False)
    (first,) = board.folder.glob(f"cells/{board.rows[0]['fit_key']}/*/verdicts.parquet")
    table = pd.read_parquet(first)
    other = table.copy()
    lost = (other.kind == "control") & (other.face // K % 14 == 0)
    for place in range(len(RECALL)):
        other.loc[lost, f"read_{place}"] = (other.asked[lost] + 1) % K
    other.to_parquet(board.generator("two", 0.9) / "verdicts.parquet", index=False)
    board.write()
    (pair,) = board.json["comparisons"]
    raw = [float(board.one(model=model, metric="control", emotion="macro").value) for model in ("one", "two")]
    assert raw[0] - raw[1] == pytest.approx(0.06, abs=0.011)
    assert pair["p"] == pytest.approx(0.36, abs=0.1)
    assert not pair["certain"]


def test_diffusion_and_the_cvae_of_the_committed_board_are_not_told_apart() -> None:
    """Faces as if independent gave p = 0.026; by noise seeds, which older files hold as an order only, about 0.07."""
    found = sections("reference-generation", load_board(RESULTS, "reference-generation"), list(tracks().values()))
    section = next(each for each in found if each.track.name == "generation")
    names = [entry.name for entry in section.compared["control"]]
    pairs = {frozenset((names[pair.first], names[pair.second])): pair for pair in section.comparisons["control"]}
    assert not pairs[frozenset(("diffusion", "cvae"))].certain
    assert pairs[frozenset(("cvae", "vit_cvae"))].certain
    entries = {entry.name: entry for entry in section.entries}
    assert entries["diffusion"].ranks["control"] == entries["cvae"].ranks["control"]
    assert entries["diffusion"].units == (100, "noise seeds")
    edits = next(each for each in found if each.track.name == "editing")
    assert {entry.units for entry in edits.entries} == {(74, "people")}


def test_copies_of_a_persons_faces_are_resampled_together(board: Board) -> None:
    folder = board.generator("good", 0.9)
    table = pd.read_parquet(folder / "verdicts.parquet")
    copies = (table.kind == "copies").to_numpy()
    wrong = np.arange(copies.sum()) // 16 % 5 == 0  # all or none of a person's sixteen
    for place in range(len(RECALL)):
        table.loc[copies, f"read_{place}"] = (table.asked[copies] + wrong) % K
    table.loc[copies, "person"] = np.arange(copies.sum()) // 16
    table.to_parquet(folder / "verdicts.parquet", index=False)
    board.write()
    found = board.one(model="control:copies", metric="control", emotion="macro")
    error = np.sqrt(0.2 * 0.8 / 50)
    assert float(found.high) - float(found.low) == pytest.approx(2 * 2.01 * error, rel=0.08)


def test_a_guide_is_shown_beside_and_never_ranked(board: Board) -> None:
    board.generator("guided", 0.4, own=0.95)
    board.write()
    own = float(board.one(model="guided", metric="control_self", emotion="macro").value)
    assert own == pytest.approx(0.95, abs=0.04)
    gain = board.one(model="guided", metric="adversarial_gain", emotion="macro")
    raw = float(board.one(model="guided", metric="control", emotion="macro").value)
    assert float(gain.value) == pytest.approx(own - raw, abs=1e-6)
    assert float(gain.low) > 0
    assert "self-graded, never ranked" in board.text


def test_rows_of_another_panel_are_not_compared(board: Board) -> None:
    board.generator("one", 0.5)
    board.generator("two", 0.6)
    board.generator("other", 0.9, panel="b")
    board.write()
    missing = board.table[(board.table.model == "other") & (board.table.metric == "control")]
    assert missing.value.tolist() == ["n/a", "n/a"]  # of all seeds together, and of the one
    assert "another panel" in missing.reason.iloc[0]
    assert "other" not in {rank["row"] for rank in board.json["ranks"]}


UNRANKED = "> **Nobody is ranked by control** on `faces`: the panel cannot judge these faces"


def test_an_emotion_that_no_judge_tells_apart_is_not_available(board: Board) -> None:
    folder = board.generator("good", 0.9)
    table = pd.read_parquet(folder / "verdicts.parquet")
    for place in range(2):
        table.loc[table[f"read_{place}"] == 3, f"read_{place}"] = 0  # no judge ever reads fear
    table.to_parquet(folder / "verdicts.parquet", index=False)
    board.write()
    assert board.one(model="good", metric="control_calibrated", emotion="fear").value == "n/a"
    assert board.one(model="good", metric="control_calibrated", emotion="macro").value == "n/a"
    assert float(board.one(model="good", metric="control_calibrated", emotion="happy").value) > 0.5
    assert float(board.one(model="good", metric="control_corrected", emotion="macro").value) > 0.3
    assert f"{UNRANKED}: no judge tells fear apart. Train the judges longer, or name others." in board.text
    assert "trust no number" not in board.text  # what its controls lack follows from that
    assert not board.json["controls_pass"]
    assert not [rank for rank in board.json["ranks"] if rank["by"] == "control"]


def test_edits_of_too_few_people_rank_nobody(board: Board) -> None:
    """Two people: where one is drawn twice, nobody was asked for some emotion, and no judge can be calibrated."""
    for row, share in (("better", 0.8), ("worse", 0.7)):
        folder = board.generator(row, 0.5, edits=share)
        table = pd.read_parquet(folder / "verdicts.parquet")
        table = table[~table.kind.isin(["editing", "source"]) | table.row.isin([0, 5])].reset_index(drop=True)
        table.to_parquet(folder / "verdicts.parquet", index=False)
    board.write()
    assert not [pair for pair in board.json["comparisons"] if pair.get("track") == "editing"]
    failing = "control:source, seed 0: calibrated control cannot be computed (too few faces to resample)"
    assert f"**A control fails: trust no number of this board**: {failing}" in board.text
    assert board.text.index("A control fails") < board.text.index("Generation on `faces`")
    editing = next(line for line in board.text.splitlines() if line.startswith("Editing on `faces`"))
    assert "**nobody is ranked by control**, as said above" in editing
    assert (
        "> **Nobody is ranked by control** on `faces`: the panel cannot judge these faces: control:source" in board.text
    )
    assert "obeys best" not in editing


@pytest.mark.parametrize(
    ("recall", "said"),
    [
        ((1 / K, 1 / K), "no judge reads real test faces better than chance (0.250) by its interval"),
        ((0.9, 1 / K), "only one judge reads real test faces better than chance (0.250) by its interval"),
    ],
)
def test_a_blind_panel_crowns_nobody(
    board: Board, monkeypatch: pytest.MonkeyPatch, recall: tuple[float, float], said: str
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "RECALL", recall)
    board.generator("good", 0.9, fed=2.0)
    board.generator("poor", 0.3, fed=9.0)
    board.write()
    lines = board.text.splitlines()
    assert lines[2].startswith(
        f"> **Nobody is ranked by control** on `faces`: the panel cannot judge these faces: {said}"
    )
    assert lines[2].endswith(". Train the judges longer, or name others.")
    assert "trust no number" not in board.text  # its controls cannot be computed, which follows
    verdict = next(line for line in lines if line.startswith("Generation on `faces`"))
    assert "**nobody is ranked by control**, as said above" in verdict
    assert "obeys best" not in board.text
    assert "**good** is nearest to real faces, FED" in verdict  # the reader is not blind
    assert {rank["by"] for rank in board.json["ranks"]} == {"fidelity"}


def test_a_blind_reader_takes_the_distance_that_it_measures(board: Board) -> None:
    for row, fed in (("near", 2.0), ("far", 9.0)):
        folder = board.generator(row, 0.9, fed=fed)
        record = json.loads((folder / "result.json").read_text())
        record["evaluation"]["references"]["floor"]["es"] = {"value": 1.001, "n": 640, "reason": None}
        (folder / "result.json").write_text(json.dumps(record))
    board.write()
    verdict = next(line for line in board.text.splitlines() if line.startswith("Generation on `faces`"))
    assert "obeys best" in verdict
    assert "**nobody is ranked by distance**, as said above" in verdict
    assert (
        "**Nobody is ranked by distance** on `faces`: the reader cannot read these faces: its ES of real" in board.text
    )
    for row, fid in (("near", 30.0), ("far", 20.0)):  # with FID there is a distance that needs no reader
        paths = board.folder.glob("cells/*/*/result.json")
        path = next(path for path in paths if f'"row": "{row}"' in path.read_text())
        record = json.loads(path.read_text())
        record["evaluation"]["tracks"]["generation"]["values"]["fid"] = {"value": fid, "n": 640, "reason": None}
        path.write_text(json.dumps(record))
    board.write()
    assert "**far** is nearest to real faces, FID" in board.text


def test_no_winner_among_rows_that_are_under_trained(board: Board) -> None:
    board.generator("hasty", 0.9, fed=1.0, recipe_share=0.04)
    board.generator("whole", 0.7)
    board.generator("other", 0.5)
    board.write()
    verdict = next(line for line in board.text.splitlines() if line.startswith("Generation on `faces`"))
    assert "hasty leads with" in verdict
    assert (
        "though it had 4 % of its recipe; of the rows that had at least half of their recipe **whole** obeys best"
        in verdict
    )
    assert "above other; **certain for these trained networks only**" in verdict
    nearest = r"\*\*(whole|other)\*\* is nearest to real faces, FED \d\.\d+ \(order only\) of the rows that had"
    assert re.search(nearest, verdict)
    assert "**hasty**" not in verdict


def test_no_winner_where_all_are_under_trained(board: Board) -> None:
    board.generator("hasty", 0.9, recipe_share=0.04)
    board.write()
    assert "though it had 4 % of its recipe; no row had half of its recipe, so there is no winner" in board.text
    assert "obeys best" not in board.text


@pytest.mark.parametrize(("share", "wins"), [(0.04, False), (1.0, True)])
def test_a_search_had_no_more_of_a_recipe_than_its_generator(board: Board, share: float, wins: bool) -> None:
    board.generator("hasty", 0.7, recipe_share=share)
    path = board.generator("search", 0.9) / "result.json"
    record = json.loads(path.read_text())
    record["fit"]["cost"] = None
    record["cell"]["needs"] = {"generator": [board.rows[0]["fit_key"]]}
    path.write_text(json.dumps(record))
    board.write()
    assert ("**search** obeys best" in board.text) is wins
    assert ("search leads with" in board.text) is not wins
    if not wins:
        assert "though it had 4 % of a recipe that it is made of; no row had half of its recipe" in board.text
    assert ("under-trained" in board.one(model="search", metric="fed")["flags"]) is not wins


def test_intensity_that_rises(board: Board) -> None:
    board.generator("good", 0.9)
    board.write()
    for metric in ("intensity_spearman", "intensity_slope"):
        found = board.one(model="good", metric=metric)
        assert float(found.value) > 0.4
        assert float(found.low) < float(found.value) < float(found.high)
        assert found.reason == "interval for this seed only"
    assert (board.folder / "demo" / "figures" / "intensity-faces.webp").exists()


def test_flags(board: Board) -> None:
    board.generator("copier", 0.9, copied=0.4)
    board.generator("brief", 0.9, recipe_share=0.1)
    board.write()
    assert "memorised" in board.one(model="copier", metric="control", emotion="macro")["flags"]
    assert "under-trained" in board.one(model="brief", metric="control", emotion="macro")["flags"]
    assert "*memorised*" in board.text


def test_broken_verdicts_are_named(board: Board) -> None:
    board.generator("good", 0.9)
    folder = board.generator("broken", 0.9)
    (folder / "verdicts.parquet").write_bytes(b"PAR1")
    board.write()
    assert "verdicts.parquet" in board.text
    assert "**Incomplete**: 1 of 2" in board.text
    folder.joinpath("verdicts.parquet").unlink()
    board.write()
    assert "missing" in board.text


def lose(folder: Path, how: str) -> None:
    """Take test faces away, as a split without them would have none."""
    table = pd.read_parquet(folder / "verdicts.parquet")
    real, of = table.kind == "real", table.asked
    sources = table.kind.isin(["editing", "source"])
    gone = {
        "no neutral": (real & (of == 0)) | (sources & (table.row % K == 0)),
        "only happy": (real & (of != 1)) | (sources & (table.row % K != 1)),
        "no fear to calibrate by": real & (of == 3) & (table.half == 0),
        "no fear in the other half": real & (of == 3) & (table.half == 1),
        "one person": (real & (table.person != 0)) | (sources & (table.person != 0)),
        "two faces": real & ~table.row.isin([0, K + 1]),
    }[how]
    table[~gone].reset_index(drop=True).to_parquet(folder / "verdicts.parquet", index=False)


@pytest.mark.parametrize(
    ("how", "without", "says"),
    [
        ("no neutral", "neutral", "no test face of it"),
        ("only happy", "neutral", "no test face of it"),
        ("no fear to calibrate by", "fear", "no test face of it in the half that calibrates"),
        ("no fear in the other half", "", ""),
        ("one person", "", ""),
        ("two faces", "sad", "no test face of it"),
    ],
)
def test_a_board_is_written_whatever_faces_a_split_holds(board: Board, how: str, without: str, says: str) -> None:
    """What an emotion without test faces leaves undefined is n/a and says so; JSON stays strict."""
    for row, share in (("good", 0.9), ("poor", 0.5)):
        lose(board.generator(row, share, edits=share), how)
    board.write()
    assert "NaN" not in (board.folder / "demo" / "metrics.json").read_text()
    missing = board.table[board.table.value == "n/a"]
    assert (missing.reason != "").all(), missing
    raw = board.one(model="good", metric="control", emotion="macro")
    assert float(raw.value) == pytest.approx(0.78, abs=0.06)  # the judges read what was drawn all the same
    if without:
        found = board.one(model="good", metric="control_calibrated", emotion=without)
        assert (found.value, found.reason) == ("n/a", says)
        (line, _) = (line for line in board.text.splitlines() if line.startswith("- Control, calibrated, is without"))
        assert without in line
    values = [
        float(value)
        for emotion in EMOTIONS
        for value in [board.one(model="good", metric="control_calibrated", emotion=emotion).value]
        if value != "n/a"
    ]
    macro = board.one(model="good", metric="control_calibrated", emotion="macro")
    if values:
        assert float(macro.value) == pytest.approx(np.mean(values), rel=1e-6)
        assert ("without" in macro.reason) == (len(values) < K)
    else:
        assert macro.value == "n/a"


def test_without_neutral_the_rest_is_measured_and_controlled(board: Board) -> None:
    for row, share in (("good", 0.9), ("poor", 0.5)):
        lose(board.generator(row, share, edits=share), "no neutral")
    board.write()
    assert board.json["controls_pass"], board.json["controls"]
    checks = {check["name"]: check for check in board.json["controls"] if check["what"] == "calibrated control"}
    truths = {"control:real": 1.0, "control:shuffled": 1 / 3, "control:copies": 1.0, "control:source": 0.0}
    for name, truth in truths.items():
        assert checks[name]["value"] == pytest.approx(truth, abs=0.12), name
        assert checks[name]["reason"] is None
    assert (checks["control:shuffled"]["low"] + checks["control:shuffled"]["high"]) / 2 == pytest.approx(1 / 3)
    one = board.one(model="control:one_emotion", metric="control", emotion="happy")
    assert float(one.value) == pytest.approx(np.mean(RECALL), abs=0.05)  # the first emotion that has test faces
    real = board.one(model="control:real", metric="control", emotion="neutral")
    assert (real.value, real.reason) == ("n/a", "no test face of it")
    macro = board.one(model="control:real", metric="control", emotion="macro")
    assert macro.reason == "without neutral: no test face of it"
    assert float(macro.value) == pytest.approx(np.mean(RECALL), abs=0.05)
    good = board.one(model="good", metric="control_calibrated", emotion="macro")
    asked = np.tile(np.arange(K), 100)
    shown = (obeying(asked, 0.9, 0) == asked)[asked > 0].mean()
    assert float(good.value) == pytest.approx(shown, abs=0.08)
    assert good.reason == "without neutral: no test face of it; interval for this seed only"
    assert "Control, calibrated, is without neutral: no test face of it." in board.text
    assert {rank["row"]: rank["best"] for rank in board.json["ranks"] if rank["track"] == "generation"} == {
        "good": 1, "poor": 2,
    }  # fmt: skip
    edits = board.one(model="good", metric="control", emotion="neutral", track="editing")
    assert int(edits.n) == 45  # the sources of three emotions, each towards neutral
    assert int(board.one(model="good", metric="control", emotion="sad", track="editing").n) == 30


def test_controls_that_cannot_be_measured_are_not_available(board: Board) -> None:
    """One person is one half: nothing is left to control with."""
    lose(board.generator("good", 0.9), "one person")
    board.write()
    (check,) = [check for check in board.json["controls"] if check["name"] == "control:real"]
    assert (check["value"], check["passed"]) == (None, True)
    assert "no face here was asked for as it" in check["reason"]
    assert board.one(model="control:real", metric="control", emotion="macro").value == "n/a"
    assert "n/a (neutral, happy, sad and fear: no face here was asked for as it)" in board.text


def test_edits_without_another_person_are_counted(board: Board) -> None:
    folder = board.generator("good", 0.9, edits=0.7)
    table = pd.read_parquet(folder / "verdicts.parquet")
    edits = (table.kind == "editing").to_numpy()
    table.loc[edits, "ssim_other"] = np.where(table.asked[edits] == 3, np.nan, 0.25)
    table["lpips"] = np.where(edits, 0.2, np.nan)
    table["lpips_other"] = np.nan
    table.to_parquet(folder / "verdicts.parquet", index=False)
    board.write()
    gone = int((table.asked[edits] == 3).sum())
    found = board.one(model="control:other_person", metric="ssim", track="editing")
    assert (float(found.value), int(found.n)) == (0.25, edits.sum() - gone)
    said = f"without {gone} of {edits.sum()} faces: no other person in the test split shows the emotion"
    assert found.reason == f"{said}; no interval: every resample gives the same value"
    assert f"control:other\\_person is {said}" in board.text or f"control:other_person is {said}" in board.text
    none = board.one(model="control:other_person", metric="lpips", track="editing")
    assert (none.value, none.reason) == ("n/a", "no other person in the test split shows the emotion")
    assert float(board.one(model="good", metric="lpips", track="editing").value) == pytest.approx(0.2)
