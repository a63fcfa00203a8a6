"""Records that someone else wrote, or a disk damaged: each costs its own row, which is named with what is wrong.

Every field of a real record is changed to each of several wrong values.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RESULTS
from test_report import Results

from emobench.errors import StoreError
from emobench.report.write import write
from emobench.runner.record import read_record
from emobench.runner.store import load_board

COMMITTED = {"classifier": ("reference-generation", "cnn21"), "generator": ("reference-generation", "cvae")}
Place = tuple[str | int, ...]

# Wrong wherever they stand; what holds a number refuses text too.
WRONG: tuple[Any, ...] = (float("nan"), float("inf"), -1.5, [[]], {"x": [None]})


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where a record's fields stand; of a list its first."""
    if at:
        yield at
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*at, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*at, 0))


def put(record: Any, at: Place, value: Any) -> Any:
    """A copy of a record with another value in one place."""
    changed = table = copy.deepcopy(record)
    for name in at[:-1]:
        table = table[name]
    table[at[-1]] = value
    return changed


def committed(kind: str) -> dict[str, Any]:
    """A real record, as it is written today."""
    board, row = COMMITTED[kind]
    for path in sorted((RESULTS / board / "cells").glob("*/result.json")):
        record = read_record(path)
        if record.cell.row == row:
            content: dict[str, Any] = json.loads(record.text())
            return content
    raise AssertionError(row)


def ways(record: dict[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Every field with every wrong value.

    A loss and a measured value are the numbers that may lie below zero; what Lightning's options hold is its matter, as
    long as JSON can say it.
    """
    for at in places(record):
        value: Any = record
        for name in at:
            value = value[name]
        of_trainer = at[:2] == ("cell", "trainer")
        for wrong in (*WRONG, *(("many",) if isinstance(value, int | float) else ())):
            signed = at[-1] in ("loss", "value") and wrong == -1.5
            if not signed and not (of_trainer and wrong not in WRONG[:2]):
                yield at, wrong


def refuses(path: Path, record: Any) -> bool:
    """Whether a record is refused, and if so by its name and with what to do."""
    path.write_text(json.dumps(record))
    try:
        read_record(path)
    except StoreError as error:
        return str(error).startswith(str(path)) and "gain" in str(error)
    return False


@pytest.mark.parametrize("kind", COMMITTED)
def test_every_field_of_a_real_record_refuses_what_does_not_fit(kind: str, tmp_path: Path) -> None:
    path, whole = tmp_path / "result.json", committed(kind)
    path.write_text(json.dumps(whole))
    read_record(path)
    tried = {(at, repr(value)): refuses(path, put(whole, at, value)) for at, value in ways(whole)}
    assert len(tried) > 1500
    assert [each for each, refused in tried.items() if not refused] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMMITTED)
def test_every_field_of_a_record_of_version_1_is_checked_too(kind: str, tmp_path: Path) -> None:
    """As far as it is taken over; what it holds twice is passed over."""
    board, row = COMMITTED[kind]
    found = [path for path in (RESULTS / board / "cells").glob("*/result.json") if read_record(path).cell.row == row]
    whole, path = json.loads(found[0].read_text()), tmp_path / "result.json"
    assert whole["schema_version"] == 1
    assert sum(refuses(path, put(whole, at, value)) for at, value in ways(whole)) > 1000


def board_of_two(folder: Path) -> tuple[Results, Path]:
    """A good row, and the folder of one that is to be damaged."""
    made = Results(folder)
    made.cell("good", 0, 3.0)
    damaged = made.cell("mine", 0, 2.0)
    return made, damaged


CASES: dict[str, tuple[Place, Any, str]] = {
    "cost is NaN": (("fit", "cost", "fit_seconds"), float("nan"), "fit.cost.fit_seconds"),
    "cost is infinite": (("fit", "cost", "recipe_share"), float("inf"), "fit.cost.recipe_share"),
    "a list for a state": (("state",), ["done"], "state"),
    "no made_of": (("made_of",), None, "made_of"),
    "made of something else": (("made_of", "fit", "seed"), 7, "made_of.fit does not give fit_key"),
    "no raw": (("evaluation", "raw"), None, "evaluation.raw"),
    "text for a number": (("evaluation", "params"), "many", "evaluation.params"),
    "no evaluation": (("evaluation",), None, "nothing says what was measured"),
    "an emotion twice": (("evaluation", "dataset", "emotions"), ["sad", "sad"], "names an emotion twice"),
    "another cell's": (("fit_key",), "f" * 20, "does not give fit_key"),
    "raw leads out": (("evaluation", "raw", "predictions"), "../../../secret", "is no plain file name"),
    "raw is absolute": (("evaluation", "raw", "predictions"), "/etc/passwd", "is no plain file name"),
    "raw is the folder": (("evaluation", "raw", "predictions"), "..", "is no plain file name"),
    "raw is not there": (("evaluation", "raw", "samples"), "gone.webp", "gone.webp: missing"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_record_costs_its_row_only(tmp_path: Path, case: str) -> None:
    at, value, said = CASES[case]
    secret = tmp_path / "secret"
    secret.write_text("nobody's business")
    made, folder = board_of_two(tmp_path / "results")
    path = folder / "result.json"
    path.write_text(json.dumps(put(json.loads(path.read_text()), at, value)))
    board = made.write()
    (number,) = board.failed
    assert (number.model, said in (number.reason or "")) == ("mine", True), number.reason
    page = board.path.read_text()
    assert "**Incomplete**: 1 of 2 cells done." in page
    assert "- mine on faces, seed 0: " in page
    assert [entry.name for entry in board.sections[0].compared["macro_f1"]] == ["good"]
    copied = [
        each for each in (tmp_path / "results").rglob("*") if each.is_file() and each.read_bytes().startswith(b"nobody")
    ]
    assert copied == []


def test_raw_files_are_regular_files_of_their_own_folder(tmp_path: Path) -> None:
    made = Results(tmp_path / "results")
    made.cell("good", 0, 3.0)
    kinds = {}
    for name in ("link out", "link to a device", "folder", "pipe"):
        path = made.cell(name, 0, 2.0) / "predictions.parquet"
        kinds[name] = path
    outside = tmp_path / "predictions.parquet"
    shutil.move(kinds["link out"], outside)
    kinds["link out"].symlink_to(outside)
    for name in ("link to a device", "folder", "pipe"):
        kinds[name].unlink()
    kinds["link to a device"].symlink_to("/dev/zero")
    kinds["folder"].mkdir()
    os.mkfifo(kinds["pipe"])
    board = made.write()
    assert {number.model for number in board.failed} == set(kinds)
    assert all("no regular file of this folder" in (number.reason or "") for number in board.failed)
    assert "**Incomplete**: 1 of 5 cells done." in board.path.read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a whole result file"),
        (b"\xff\xfe", "not a whole result file"),
        (b"[" * 100_000, "not a whole result file"),
        (b'{"schema_version": ' + b"9" * 5000 + b"}", "not a whole result file"),
        (b'{"schema_version": true}', "schema version True"),
        (b'{"schema_version": 3}', "schema version 3"),
        (b"null", "holds NoneType, not a record"),
    ],
)
def test_what_is_no_record_costs_its_row_only(tmp_path: Path, content: bytes, said: str) -> None:
    made, folder = board_of_two(tmp_path / "results")
    (folder / "result.json").write_bytes(content)
    (number,) = made.write().failed
    assert number.model == "mine"
    assert said in number.reason


def test_a_record_that_is_no_file_costs_its_row_only(tmp_path: Path) -> None:
    made, folder = board_of_two(tmp_path / "results")
    (folder / "result.json").unlink()
    (folder / "result.json").symlink_to("/dev/zero")
    (number,) = made.write().failed
    assert "no file of at most 64 MiB" in number.reason
    (folder / "result.json").unlink()
    (folder / "result.json").mkdir()
    (number,) = made.write().failed
    assert "no file of at most 64 MiB" in number.reason


# ---- suite.json ------------------------------------------------------------------------------------------------------


ROWS: tuple[tuple[str, Any, str], ...] = (
    *((field, value, field) for field in ("row", "model", "dataset", "track", "variant") for value in (None, 5, ["x"])),
    *((field, value, field) for field in ("size", "seed") for value in (None, "48", -1, float("nan"), 1.5, [48])),
    *((field, value, "fit_key") for field, value in (("fit_key", "../../x"), ("fit_key", ""), ("fit_key", None))),
    *((field, value, "eval_key") for field, value in (("eval_key", "/tmp"), ("eval_key", ["x"]), ("eval_key", 3))),
    ("control", ["permuted"], "control"),
    ("control", "permuted", "control: 'permuted', but its record says None"),
    ("seed", 7, "seed: 7, but its record says 0"),
    ("size", 64, "size: 64, but its record says 48"),
    ("surprise", 1, "surprise"),
    ("skipped", 5, "skipped"),
)


@pytest.mark.parametrize(("field", "value", "said"), ROWS)
def test_a_damaged_row_of_the_suite_is_named(tmp_path: Path, field: str, value: Any, said: str) -> None:
    made, _ = board_of_two(tmp_path / "results")
    made.rows[1][field] = value
    (tmp_path / "results" / "demo").mkdir(parents=True)
    content = {"schema_version": 1, "protocol": 1, "suite": "demo", "commit": "abc", "rows": made.rows}
    (tmp_path / "results" / "demo" / "suite.json").write_text(json.dumps(content))
    good, bad = load_board(tmp_path / "results", "demo")
    assert (good.state, bad.state) == ("done", "failed")
    assert bad.row == ("row 1" if field == "row" else "mine")
    assert f"suite.json: rows.1.{said}" in (bad.reason or "")


@pytest.mark.parametrize("entry", ["missing field", None, "mine", ["mine"], {}])
def test_a_board_is_written_whatever_a_row_of_its_suite_is(tmp_path: Path, entry: Any) -> None:
    made, _ = board_of_two(tmp_path / "results")
    if entry == "missing field":
        del made.rows[1]["track"]
    else:
        made.rows[1] = entry
    board = made.write()
    page = board.path.read_text()
    assert "**Incomplete**: 1 of 2 cells done." in page
    assert ("mine on faces" if entry == "missing field" else "row 1 on unknown") in page
    assert "suite.json: rows.1" in page
    assert len(board.failed) == 1


def test_a_cell_that_stands_twice_counts_once(tmp_path: Path) -> None:
    made, _ = board_of_two(tmp_path / "results")
    made.rows.append(made.rows[1])
    board = made.write()
    assert [entry.seeds for entry in board.sections[0].entries] == [[0], [0]]
    (number,) = board.failed
    assert "rows.2: the same cell as rows.1" in number.reason


@pytest.mark.parametrize(
    ("field", "value"), [("rows", None), ("rows", {"a": 1}), ("rows", "x"), ("schema_version", [1])]
)
def test_a_suite_without_a_list_of_cells_is_refused_by_name(tmp_path: Path, field: str, value: Any) -> None:
    made, _ = board_of_two(tmp_path / "results")
    made.write()
    path = tmp_path / "results" / "demo" / "suite.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(StoreError, match=r"suite\.json"):
        write(tmp_path / "results", "demo")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("file", 5, "file: Input should be a valid string, and not 5"),
        ("overrides", ["nonsense"], "expected KEY=VALUE"),
        ("overrides", "a=1", "overrides: Input should be a valid list"),
        ("plugins", ["gone.py"], "gone.py: no such file"),
        ("plugins", ["notes.txt"], "notes.txt, line 1: SyntaxError"),
        ("plugins", 5, "plugins: Input should be a valid list"),
    ],
)
def test_a_board_whose_origin_is_damaged_says_so_and_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: Any, said: str
) -> None:
    (tmp_path / "notes.txt").write_text("these are notes, and no Python\n")
    monkeypatch.setenv("EMOBENCH_PLUGINS", str(tmp_path / "notes.txt"))  # else it is not even read
    made, _ = board_of_two(tmp_path / "results")
    made.write()
    path = tmp_path / "results" / "demo" / "suite.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    page = write(tmp_path / "results", "demo").path.read_text()
    assert "**Part of the suite cannot be used**" in page
    assert said.replace("_", r"\_") in page or said in page
    assert "Complete: 2 of 2 cells done." in page


def test_cells_of_a_track_that_nobody_knows_are_named(tmp_path: Path) -> None:
    made, folder = board_of_two(tmp_path / "results")
    record = json.loads((folder / "result.json").read_text())
    record["evaluation"]["tracks"] = {"gaze": record["evaluation"]["tracks"]["recognition"]}
    (folder / "result.json").write_text(json.dumps(record))
    board = made.write()
    (number,) = board.failed
    assert number.reason == "not usable: no track 'gaze' is known here"
    assert "**Incomplete**: 1 of 2 cells done." in board.path.read_text()
