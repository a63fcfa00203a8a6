"""benchmarks/rekey.py: the suites that records are of, two runs compared, and which rows get which keys."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rekey
import tomli_w
import torch
from conftest import RESULTS
from PIL import Image
from rekey_rows import FIRST, Row, groups, is_costly, rows_of, shortened, suite_of, thinned, with_needs
from rekey_runs import Checkouts, differences
from safetensors.torch import save_file

from emobench.errors import EmobenchError
from emobench.files import read_object
from emobench.runner.record import read_record
from emobench.runner.store import JUDGE, committed_judge, load_board
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.keys import in_todays_form, is_current, key

REPOSITORY = Path(__file__).parents[1]
needs_results = pytest.mark.skipif(not (RESULTS / "demo").exists(), reason="the reference boards are not here")


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """Results as commit 0c8123b wrote them: two judges, a reader, a cVAE and a control."""
    shutil.unpack_archive(Path(__file__).parent / "stores" / "0c8123b.tar.xz", tmp_path, filter="data")
    return tmp_path / "results"


def planned(suite: dict[str, Any], path: Path) -> dict[rekey.Name, dict[str, Any]]:
    """What the keys of a suite's cells are made of."""
    path.write_text(tomli_w.dumps(suite))
    cells = expand(load(path), path.parent / "data").cells
    made_of = [{"fit": cell.fit, "eval": cell.evaluation} for cell in cells]
    return {(c.row, c.dataset, c.seed, c.control): each for c, each in zip(cells, made_of, strict=True)}


def named(rows: list[Row], *names: str) -> list[Row]:
    return [row for row in rows if row.name[0] in names]


# Suites of records


def test_the_suite_of_records_plans_the_rows_that_they_are_of(before: Path, tmp_path: Path) -> None:
    rows = rows_of(before, "before")
    found = planned(suite_of(rows), tmp_path / "again.toml")
    wanted = planned(tomllib.loads((tmp_path / "before.toml").read_text()), tmp_path / "asked.toml")
    assert list(found) == [row.name for row in rows]
    for row in rows:
        assert rekey.unlike(row.name, found, wanted) == []
        then, now = in_todays_form(row.record.made_of.fit), in_todays_form(found[row.name]["fit"])
        for each in (then, now):
            each.pop("needs")
        assert then == now


@needs_results
@pytest.mark.parametrize("board", ["demo", "reference-generation", "reference-recognition", "reference-style"])
def test_suites_of_committed_boards_are_their_rows(board: str, tmp_path: Path) -> None:
    """With needs, rows of some seeds or datasets only, and controls."""
    rows = rows_of(RESULTS, board)
    found = planned(suite_of(rows), tmp_path / "again.toml")
    assert set(found) == {row.name for row in rows}
    for row in rows:
        fit = found[row.name]["fit"]
        then = row.record.made_of.fit
        assert {name: fit["arguments"][name] for name in then["arguments"]} == then["arguments"]
        assert {role: len(keys) for role, keys in fit["needs"].items()} == {r: len(k) for r, k in then["needs"].items()}
        assert fit["permuted"] == then["permuted"]
        if then["recipe"] is not None:
            own = {name: value for name, value in then["recipe"].items() if name != "augment"}
            assert {name: fit["recipe"][name] for name in own} == own


@needs_results
def test_tables_name_classes_whatever_the_suite_called_them() -> None:
    soft = suite_of(rows_of(RESULTS, "reference-ferplus"))["data"]["ferplus-soft"]
    assert (soft["class"], soft["labels"]) == ("ferplus", "soft")
    rows = suite_of(rows_of(RESULTS, "reference-recognition"))["model"]
    assert {name: table["class"] for name, table in rows.items() if table["class"] != name} == {}
    assert rows["timm:resnet10t"]["backbone"] == "resnet10t"
    small = suite_of(rows_of(RESULTS, "demo"))["model"]["resnet18"]  # of resnet18-small-faces
    assert (small["class"], small["width"]) == ("resnet18", 0.25)


@needs_results
def test_a_shortened_suite_keeps_all_but_faces_and_epochs(tmp_path: Path) -> None:
    rows = rows_of(RESULTS, "demo")
    whole = suite_of(rows)
    short = shortened(whole)
    assert short["data"]["synthetic-plain"] == {
        **whole["data"]["synthetic-plain"],
        "train": 256,
        "val": 64,
        "test": 640,
    }
    assert short["evaluation"]["per_emotion"] == 2
    assert short["evaluation"]["fidelity"] == 640
    assert shortened(whole, costly=True)["evaluation"]["fidelity"] == 32
    for name, table in whole["model"].items():
        changed = {key for key in table if table[key] != short["model"][name][key]}
        assert changed <= {"epochs", "steps"}
        assert short["model"][name].keys() == table.keys()
    search = whole["model"]["latent_search"]["steps"]
    assert short["model"]["latent_search"]["steps"] == search == 15  # of its search, which is no fit
    planned(short, tmp_path / "short.toml")


def test_a_row_comes_with_all_that_it_needs(before: Path) -> None:
    rows = rows_of(before, "before")
    assert [row.name[0] for row in with_needs(named(rows, "cvae"), rows)] == ["vit", "cnn21", "resnet18", "cvae"]
    (control,) = named(rows, "control:permuted")
    of = [row.name[0] for row in with_needs([control], rows)]
    assert of[-1] == "control:permuted"
    assert of[0] == control.record.cell.model.partition("-")[0]
    assert [row.name[0] for row in with_needs(named(rows, "vit"), rows)] == ["vit"]


@needs_results
def test_costly_rows_are_run_apart_and_classifiers_by_seeds() -> None:
    rows = rows_of(RESULTS, "reference-recognition")
    assert [{row.record.cell.seed for row in group} for group in groups(rows)] == [{0}, {1}, {2}]
    rows = rows_of(RESULTS, "demo")
    costly = {row.name[0] for group in groups(rows) for row in group if is_costly(row)}
    assert costly == {"diffusion", "latent_search"}


def test_thinned_tables_keep_their_order_and_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "fer2013"
    folder.mkdir(parents=True)
    (folder / "fer2013.csv").write_text("emotion,pixels\n" + "".join(f'{row % 7},"{row} 1"\n' for row in range(150)))
    (folder / "votes.csv").write_text("usage,votes\n" + "".join(f"Training,{row}\n" for row in range(150)))
    thinned(tmp_path / "data", tmp_path / "few")
    faces, votes = (pd.read_csv(tmp_path / "few" / "fer2013" / name) for name in ("fer2013.csv", "votes.csv"))
    assert faces["pixels"].tolist() == ["0 1", "60 1", "120 1"]
    assert votes["votes"].tolist() == [0, 60, 120]


# Two plans, two runs


def test_plans_are_alike_whatever_the_names_of_their_keys() -> None:
    def plan(lr: float, batch: float, needed: float) -> dict[rekey.Name, Any]:
        guide: dict[str, Any] = {"fit": {"lr": needed}, "eval": {}}
        fit = {"lr": lr, "batch": batch, "needs": {"guide": [key(guide["fit"])]}}
        return {("guide", "d", 0, None): guide, ("a", "d", 0, None): {"fit": fit, "eval": {"fit_key": key(fit)}}}

    name: rekey.Name = ("a", "d", 0, None)
    assert rekey.unlike(name, plan(0.1, 0, 1), plan(0.1, 0.0, 2)) == []
    assert rekey.unlike(name, plan(0.1, 0, 1), plan(0.2, 0, 1)) == ["fit lr 0.1, 0.2"]
    assert rekey.unlike(name, plan(0.1, 0, 1), {}) == ["there is no such row"]


def classifier(before: Path) -> Path:
    (row,) = named(rows_of(before, "before"), "vit")
    return before / "cells" / row.record.fit_key / row.record.eval_key


def copy_of(folder: Path, place: Path) -> Path:
    shutil.copytree(folder.parent, place / folder.parent.name)
    return place / folder.parent.name / folder.name


@pytest.mark.parametrize(("by", "said"), [(1e-7, []), (1e-5, ["weights: head.bias by 1e-05"])])
def test_weights_are_compared(before: Path, tmp_path: Path, by: float, said: list[str]) -> None:
    from safetensors.torch import load_file

    old = classifier(before)
    new = copy_of(old, tmp_path / "new")
    state = load_file(old.parent / "weights.safetensors")
    bias = next(name for name in state if name.endswith("bias") and len(state[name]) == 8)
    state[bias] = torch.zeros(8)
    save_file(state, old.parent / "weights.safetensors")
    save_file({**state, bias: torch.tensor([by] + [0.0] * 7)}, new.parent / "weights.safetensors")
    assert [each.replace(bias, "head.bias") for each in differences(old, new)] == said
    state.pop(bias)
    save_file(state, new.parent / "weights.safetensors")
    assert differences(old, new) == [f"weights: other tensors: {bias}"]


def test_predictions_and_values_are_compared(before: Path, tmp_path: Path) -> None:
    old = classifier(before)
    new = copy_of(old, tmp_path / "new")
    assert differences(old, new) == []
    table = pd.read_parquet(new / "predictions.parquet")
    assert len(table) == 16
    changed = table.assign(p_happy=table["p_happy"] + np.float32(3e-6), prediction=(table["prediction"] + 1) % 8)
    changed.drop(columns="leaked").to_parquet(new / "predictions.parquet")
    found = differences(old, new)
    assert [each.partition(":")[0] for each in found] == ["column leaked", "column prediction", "column p_happy"]
    table.iloc[1:].to_parquet(new / "predictions.parquet")
    assert differences(old, new) == ["16 rows of raw results, 15"]
    table.to_parquet(new / "predictions.parquet")
    content = read_object(new / "result.json")
    content["metrics"]["accuracy"]["value"] += 0.01
    (new / "result.json").write_text(json.dumps(content))
    (only,) = differences(old, new)
    assert only.startswith("recognition accuracy: ")


def test_pictures_and_where_faces_come_from_are_compared(before: Path, tmp_path: Path) -> None:
    (row,) = named(rows_of(before, "before"), "cvae")
    old = before / "cells" / row.record.fit_key / row.record.eval_key
    new = copy_of(old, tmp_path / "new")
    table = pd.read_parquet(new / "verdicts.parquet")
    unsaid = table["person"] < 0
    assert unsaid.any()
    assert not unsaid.all()
    table.assign(person=table["person"].mask(unsaid, 3), more=1).to_parquet(new / "verdicts.parquet")
    assert differences(old, new) == []  # what was not said then is said now
    table.assign(person=table["person"] + 1).to_parquet(new / "verdicts.parquet")
    assert differences(old, new) == [f"column person: {int((~unsaid).sum())} values"]
    table.to_parquet(new / "verdicts.parquet")
    with Image.open(new / "samples.png") as picture:
        Image.new("L", picture.size, 129).save(new / "samples.png")
    assert differences(old, new) == ["samples: by 1 grey levels"]


def test_histories_and_arrays_are_compared(before: Path, tmp_path: Path) -> None:
    """Kinds of raw files that later records have."""
    old = classifier(before)
    content = read_object(old / "result.json")
    content["raw"] |= {"history": "history.csv", "maps": "maps.npz"}
    (old / "result.json").write_text(json.dumps(content))
    (old / "history.csv").write_text("epoch,val_loss\n0,2.5\n1,\n")
    np.savez(old / "maps.npz", gradients=np.arange(4.0), units=np.zeros(2))
    new = copy_of(old, tmp_path / "new")
    assert differences(old, new) == []
    (new / "history.csv").write_text("epoch,val_loss\n0,2.6\n1,\n")
    assert differences(old, new) == ["column val_loss: by 0.04"]
    shutil.copyfile(old / "history.csv", new / "history.csv")
    np.savez(new / "maps.npz", gradients=np.arange(4.0) + 0.1, units=np.zeros(2))
    assert differences(old, new) == ["maps: by 0.1"]
    np.savez(new / "maps.npz", gradients=np.arange(4.0))
    assert differences(old, new) == ["maps: other arrays: units"]
    np.savez(new / "maps.npz", gradients=np.arange(4.0), units=np.zeros(3))
    assert differences(old, new) == ["maps: other arrays: shapes"]


# Which rows get which keys


def settle(rows: list[Row], tmp_path: Path) -> dict[str, str]:
    for name, new in planned(suite_of(rows), tmp_path / "now.toml").items():
        for row in rows:
            row.new = new if row.name == name else row.new
    return rekey.settled(rows)


def test_a_row_keeps_its_key_where_one_that_it_names_does(before: Path, tmp_path: Path) -> None:
    rows = rows_of(before, "before")
    (judge,) = named(rows, "cnn21")
    judge.why.append("weights: by 1")
    keys = settle(rows, tmp_path)
    (generator,) = named(rows, "cvae")
    assert generator.why == ["cnn21 keeps its key"]
    moved = {row.record.eval_key for row in named(rows, "vit", "resnet18", "control:permuted")}
    assert {row.record.eval_key for row in rows if row.record.eval_key in keys} == moved


def test_all_that_names_a_key_gets_the_new_one(before: Path, tmp_path: Path) -> None:
    rows = rows_of(before, "before")
    then = {row.name: row.record for row in rows}
    keys = settle(rows, tmp_path)
    assert len(keys) == 2 * len(rows)
    rekey.give_keys(before, "before", rows, keys)
    shutil.rmtree(before / "cells")  # as a clone has it
    texts = [json.loads(path.read_text()) for path in before.glob("before/**/*.json")]
    text = json.dumps([{name: value for name, value in each.items() if name != FIRST} for each in texts])
    assert not any(each in text for each in keys)
    cells = load_board(before, "before")
    assert [cell.state for cell in cells] == ["done"] * len(rows)
    assert all(cell.stale is None for cell in cells)
    for cell in cells:
        record, old = cell.record, then[cell.row, cell.dataset, cell.seed, cell.control]
        assert record is not None
        assert cell.folder is not None
        assert cell.folder.name == record.eval_key == key(record.made_of.eval) == keys[old.eval_key]
        assert record.fit_key == key(record.made_of.fit) == keys[old.fit_key]
        assert is_current(record.made_of.fit, record.made_of.eval)
        assert record.versions == old.versions
        assert read_object(cell.folder / "result.json")[FIRST]["fit_key"] == old.fit_key
    (generator,) = (cell for cell in cells if cell.row == "cvae")
    assert generator.record is not None
    assert generator.record.evaluation is not None
    by_row = {cell.row: cell for cell in cells}
    for card in generator.record.evaluation.cards:
        judge = by_row[card.row]
        assert card.fit_key == judge.fit_key
        assert judge.folder is not None
        assert committed_judge(before, judge.folder, card.sha256) == judge.folder / JUDGE
    assert generator.record.made_of.eval["judges"] == [by_row[row].fit_key for row in ("vit", "cnn21")]


def test_keys_can_be_given_again(before: Path, tmp_path: Path) -> None:
    """When the code has moved once more: what its own commit gave is what is asked for again."""
    rows = rows_of(before, "before")
    first = {row.name: row.first["fit_key"] for row in rows}
    rekey.give_keys(before, "before", rows, settle(rows, tmp_path))
    again = rows_of(before, "before")
    assert rekey.moved(again) == []
    assert {row.name: row.first["fit_key"] for row in again} == first
    assert all(key(row.first["made_of"]["fit"]) == row.first["fit_key"] for row in again)
    assert suite_of(again) == suite_of([Row(row.board, row.folder, row.record, row.first) for row in again])


def test_a_row_that_keeps_its_key_names_judges_by_their_new_ones(before: Path, tmp_path: Path) -> None:
    rows = rows_of(before, "before")
    (generator,) = named(rows, "cvae")
    generator.why.append("column read_0: 3 values")
    old = generator.record
    keys = settle(rows, tmp_path)
    rekey.give_keys(before, "before", rows, keys)
    record = read_record(generator.folder / "result.json")
    assert record.eval_key == old.eval_key == key(record.made_of.eval)
    assert record.evaluation is not None
    judges = {keys[each] for of in old.cell.panel.values() for each in of}
    assert {card.fit_key for card in record.evaluation.cards} == judges


@pytest.mark.parametrize("commit", ["0123456789ab", "unknown", "0c8123be0330 + changes"])
def test_a_commit_that_is_not_here_is_named(commit: str, tmp_path: Path) -> None:
    with pytest.raises(EmobenchError, match="made by"):
        Checkouts(tmp_path).of(commit)


def test_pages_show_pictures_by_their_new_keys(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text("![](results/b/cells/aaaa/samples.webp)")
    (tmp_path / "results" / "README.md").write_text("![](b/cells/aaaa/samples.webp)")
    rekey.give_keys_in_texts(tmp_path, {"aaaa": "bbbb"})
    assert (tmp_path / "results" / "README.md").read_text() == "![](b/cells/bbbb/samples.webp)"
    assert (tmp_path / "README.md").read_text() == "![](results/b/cells/bbbb/samples.webp)"
