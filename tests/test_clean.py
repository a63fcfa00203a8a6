"""`emobench clean`: what a board or a running sweep uses stays, what is listed goes, what is not understood stays."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, TINY_DATA
from reading import pages
from test_cross_validation import faces
from test_report import Results

import emobench as package
from emobench.runner import store as storing
from emobench.runner.build import build_data
from emobench.runner.record import Record
from emobench.runner.store import Origin, Store
from emobench.runner.sweep import write_suite
from emobench.runner.usage import delete, sweeping, unused
from emobench.suite.cell import Plan
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.plan_cache import keep

Emobench = Callable[..., int]
HOLD = (
    "import fcntl, sys; file = open(sys.argv[1], 'rb+'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A board of two rows, and a cell of a third that no board lists."""
    made = Results(tmp_path / "results")
    made.cell("good", 0, 3.5)
    made.cell("bad", 0, 1.0)
    made.cell("gone", 0, 2.0)
    made.rows.pop()
    made.write()
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMOBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock of a file."""
    path.touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield other
        finally:
            other.communicate("\n")


def cell_of(made: Results, row: str) -> Path:
    """The folder of a row's cell."""
    (found,) = (
        path.parents[1]
        for path in made.folder.glob("cells/*/*/result.json")
        if json.loads(path.read_text())["cell"]["row"] == row
    )
    return found


def listed(folder: Path, cache: Path | None = None) -> set[Path]:
    return {each.path for each in unused(folder, cache)[0]}


def planned(tmp_path: Path, text: str = TINY) -> Plan:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return expand(load(path), tmp_path / "data")


# ---- the store -----------------------------------------------------------------------------------------------------


def test_what_is_listed_goes_and_the_rest_stays(
    results: Results, emobench: Emobench, snapshot: Callable[[Path], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    good, gone = cell_of(results, "good"), cell_of(results, "gone")
    other = good / ("0" * 20)  # an evaluation that no row shows
    shutil.copytree(next(good.glob("*/result.json")).parent, other)
    (other / "result.json").unlink()
    empty = results.folder / "cells" / ("1" * 20)  # of a cell that was stopped before it had a record
    empty.mkdir()
    (empty / "log.txt").write_text("stopped")
    damaged = results.folder / "cells" / ("2" * 20)
    damaged.mkdir()
    (damaged / "fit.json").write_text("{")
    notes = results.folder / "cells" / "my notes"
    notes.mkdir()
    plans = results.folder / "cells" / "plans"
    plans.mkdir()
    (plans / "broken.json").write_text("[]")
    assert listed(results.folder) == {gone, other, empty}

    before = snapshot(results.folder)
    capsys.readouterr()
    assert emobench("clean", "--dry-run", "--results", results.folder) == 0
    shown = capsys.readouterr().out
    assert f"gone on faces, seed 0: {gone}" in shown
    assert sum(path.stat().st_size for path in gone.rglob("*") if path.is_file()) > 2**10
    assert "KiB  in all, which no board and no running sweep uses" in shown
    kept = shown.split("Not understood, and kept:")[1]
    assert all(str(path) in kept for path in (damaged, notes, plans / "broken.json"))
    assert str(gone) not in kept
    assert snapshot(results.folder) == before

    assert emobench("clean", "--yes", "--results", results.folder) == 0
    assert "Deleted 3 of 3." in capsys.readouterr().out
    assert {path.name for path in (results.folder / "cells").iterdir()} == {
        good.name, cell_of(results, "bad").name, damaged.name, notes.name, "plans",
    }  # fmt: skip
    assert not other.exists()
    page = pages(results.folder / "demo")
    assert emobench("report", "demo", "--results", results.folder) == 0
    assert pages(results.folder / "demo") == page
    capsys.readouterr()
    assert emobench("clean", "--results", results.folder) == 0  # nothing to ask
    assert capsys.readouterr().out.startswith("Nothing is unused.")


def test_networks_behind_a_row_stay(results: Results) -> None:
    """What a row needs, is judged by and was made with is in use, whether or not a board lists it."""
    paths = [next(cell_of(results, "good").glob("*/result.json"))]
    names = [f"{place:020d}" for place in range(5)]
    for name in names:
        (results.folder / "cells" / name).mkdir()
    card = {
        "row": "judge", "fit_key": names[2], "sha256": "0" * 64, "architecture": "a", "seed": 0, "data": "0",
        "needs": {"members": [names[3]]},
    }  # fmt: skip
    record = json.loads(paths[0].read_text())
    record["cell"]["needs"] = {"guide": [names[0]]}
    record["made_with"] = {names[1]: "0" * 64}
    record["evaluation"]["panel"] = [card]
    paths[0].write_text(json.dumps(record))
    assert listed(results.folder) == {cell_of(results, "gone"), results.folder / "cells" / names[4]}
    committed = results.folder / "demo" / "cells" / paths[0].parent.name
    shutil.copy(paths[0], committed / "result.json")
    shutil.rmtree(paths[0].parents[1])  # a clone: the board's own records say the same
    assert listed(results.folder) == {cell_of(results, "gone"), results.folder / "cells" / names[4]}


@pytest.mark.parametrize("content", ["", "[]", '{"schema_version": 1, "rows": [{"fit_key": 3, "eval_key": ""}]}'])
def test_nothing_goes_while_a_list_of_cells_cannot_be_read(results: Results, content: str) -> None:
    other = results.folder / "other"
    other.mkdir()
    (other / "suite.json").write_text(content)
    found, problems = unused(results.folder, None)
    assert found == []
    assert set(problems) == {other / "suite.json", results.folder / "cells"}


def test_a_cell_that_a_process_holds_stays(results: Results) -> None:
    gone = cell_of(results, "gone")
    items = unused(results.folder, None)[0]
    assert [item.path for item in items] == [gone]
    with held(gone / ".lock"):
        assert listed(results.folder) == set()
        assert [why for _, why in delete(results.folder, items, None)] == ["in use by now, or gone"]
        assert gone.is_dir()
    assert [why for _, why in delete(results.folder, items, None)] == [None]
    assert not gone.exists()


def test_a_lock_that_is_taken_while_the_list_is_made_holds(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = cell_of(results, "gone")
    items = unused(results.folder, None)[0]
    monkeypatch.setattr("emobench.runner.usage.is_held", lambda path: False)  # asked just before it was taken
    with held(gone / ".lock"):
        assert [why for _, why in delete(results.folder, items, None)] == ["in use by now"]
    assert gone.is_dir()


def test_what_a_running_sweep_has_planned_stays_until_it_ends_or_is_killed(results: Results, tmp_path: Path) -> None:
    store, cells = Store(results.folder), planned(tmp_path).cells
    for cell in cells:
        store.eval_folder(cell.fit_key, cell.eval_key).mkdir(parents=True)
    mine = {store.fit_folder(cell.fit_key) for cell in cells}
    items = unused(results.folder, None)[0]
    assert {item.path for item in items} == {*mine, cell_of(results, "gone")}
    with sweeping(store, cells):
        (said,) = (store.cells / "sweeps").iterdir()
        assert listed(results.folder) == {cell_of(results, "gone")}  # though no board lists them
        assert {item.path for item, why in delete(results.folder, items, None) if why is not None} == mine
        content = said.read_bytes()
    assert list((store.cells / "sweeps").iterdir()) == []
    said.write_bytes(content)  # as one that was killed leaves it
    assert listed(results.folder) == {*mine, said}


def test_a_sweep_of_a_store_that_cannot_be_written_goes_on(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("a file where the folder should be")
    with sweeping(Store(tmp_path), []):
        pass
    with pytest.raises(OSError, match="its own"), sweeping(Store(tmp_path / "new"), []):
        raise OSError("its own")


def test_a_plan_goes_with_its_cells(results: Results, tmp_path: Path) -> None:
    plan = planned(tmp_path)
    origin = Origin.of(load(tmp_path / "tiny.toml"), results.folder)
    write_suite(results.folder, plan, origin)
    path = results.folder / "cells" / "plans" / "mine.json"
    keep(path, plan)
    assert path not in listed(results.folder)
    write_suite(results.folder, replace(plan, cells=plan.cells[:1]), origin)
    assert path in listed(results.folder)


def test_a_lock_is_that_of_the_folder_which_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that is deleted between the opening and the locking of its lock is locked in its new folder."""
    store = Store(tmp_path)
    real, calls = fcntl.flock, []

    def late(file: Any, how: int) -> None:
        if not calls:
            shutil.rmtree(store.fit_folder("cell"))
        calls.append(how)
        real(file, how)

    monkeypatch.setattr(storing.fcntl, "flock", late)
    with store.lock("cell") as mine, store.lock("cell") as second:
        assert mine is not None
        assert second is None
        assert (store.fit_folder("cell") / ".lock").exists()
    assert len(calls) == 3


# ---- asking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "left"), [("n", True), ("", True), ("y", False)])
def test_it_asks_first(
    results: Results, emobench: Emobench, monkeypatch: pytest.MonkeyPatch, answer: str, left: bool
) -> None:
    gone = cell_of(results, "gone")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    with os.fdopen(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert emobench("clean", "--results", results.folder) == 0
    os.close(ours)
    assert gone.exists() is left


def test_without_a_terminal_it_refuses(
    results: Results, emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert emobench("clean", "--results", results.folder) == 2
    assert "Say --yes, or --dry-run" in capsys.readouterr().err
    assert cell_of(results, "gone").exists()
    assert emobench("clean", "--yes", "--results", tmp_path / "nowhere") == 2
    assert "no board" in capsys.readouterr().err


# ---- the cache of datasets -----------------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path, cache: Path) -> tuple[Path, set[Path]]:
    """Results of a dataset that is packed, and what the cache holds of another one."""
    plan = planned(tmp_path)
    results = tmp_path / "results"
    write_suite(results, plan, Origin.of(load(tmp_path / "tiny.toml"), results))
    for cell in plan.cells:
        Store(results).keep_failure(Record.of(cell, "failed", "made up"))
    build_data(plan.cells[0], tmp_path).prepare()
    mine = {*(cache / "packs").iterdir(), *(cache / "plans").iterdir()}
    assert len(mine) == 2
    other = planned(tmp_path, TINY.replace("size = 32", "size = 33")).cells[0]
    build_data(other, tmp_path).prepare()
    return results, {*(cache / "packs").iterdir(), *(cache / "plans").iterdir()} - mine


def test_packs_of_no_board_go_and_are_made_again_by_who_wants_them(
    packed: tuple[Path, set[Path]], cache: Path, emobench: Emobench, tmp_path: Path
) -> None:
    results, others = packed
    (cache / "features").mkdir()
    features = cache / "features" / f"{'0' * 64}.npz"
    np.savez(features, features=np.zeros(1))
    half = cache / "packs" / f".{'1' * 64}.partial"
    half.mkdir()
    (cache / "packs" / "mine").mkdir()
    assert others
    assert listed(results, cache) == {*others, features, half}
    (name,) = (path.name for path in others if path.parent.name == "packs")
    with held(cache / "locks" / f"{name}.lock"), held(cache / "locks" / f"{'1' * 64}.lock"):
        assert {path for path in others if path.parent.name == "plans"} | {features} == listed(results, cache)
    before = {*cache.rglob("*")} - {each for path in (*others, half) for each in (path, *path.rglob("*"))}
    assert emobench("clean", "--yes", "--results", results) == 0
    assert {*cache.rglob("*")} == before - {features}
    build_data(planned(tmp_path, TINY.replace("size = 32", "size = 33")).cells[0], tmp_path).prepare()
    assert all(path.exists() for path in others)


def test_a_part_of_a_cross_validation_keeps_the_pack_of_the_whole(tmp_path: Path, cache: Path) -> None:
    faces(tmp_path / "data" / "mine", 12)
    mine = '\nseeds = [0]\n\n[data."folder:mine"]\nsize = 32\ncross_validate = 2\nheld_out = 0\n'
    plan = planned(tmp_path, TINY.replace(TINY_DATA, mine))
    results = tmp_path / "results"
    write_suite(results, plan, Origin.of(load(tmp_path / "tiny.toml"), results))
    for cell in plan.cells:
        Store(results).keep_failure(Record.of(cell, "failed", "made up"))
    build_data(plan.cells[0], tmp_path / "data").prepare()
    (pack,) = (cache / "packs").iterdir()
    assert pack not in listed(results, cache)
    for manifest in [*(cache / "plans").iterdir()]:
        shutil.rmtree(manifest)
    assert pack in listed(results, cache)  # whoever wants these faces would read them again


def test_no_pack_goes_while_a_dataset_in_use_is_not_known(packed: tuple[Path, set[Path]], cache: Path) -> None:
    results, others = packed
    (path, *_) = (results / "cells").glob("*/fit.json")
    text = path.read_text().replace('"dataset": "synthetic"', '"dataset": "of my own"')
    planned = Record.model_validate_json(text).planned
    shutil.rmtree(path.parent)
    Store(results).keep_failure(Record.of(planned, "failed", "made up"))
    suite = json.loads((results / "tiny" / "suite.json").read_text())
    suite["rows"].append({**suite["rows"][0], "fit_key": planned.fit_key, "eval_key": planned.eval_key})
    (results / "tiny" / "suite.json").write_text(json.dumps(suite))
    found, problems = unused(results, cache)
    assert {each.path for each in found} == {path for path in others if path.parent.name == "plans"}
    assert "EMOBENCH_PLUGINS" in problems[cache / "packs"]


# ---- the whole -----------------------------------------------------------------------------------------------------


def test_a_board_works_after_it(tiny_results: Path, tmp_path: Path, emobench: Emobench) -> None:
    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    page, cells = pages(results / "tiny"), {*(results / "cells").iterdir()}
    assert emobench("clean", "--yes", "--results", results) == 0
    assert {*(results / "cells").iterdir()} == cells
    assert emobench("report", "tiny", "--results", results) == 0
    assert pages(results / "tiny") == page
    assert package.load(results, "tiny", "resnet18").emotions
