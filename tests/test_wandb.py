"""Logging to Weights & Biases, by real offline runs read back from their files; nothing secret gets into any file."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emobench.errors import SuiteError
from emobench.runner.store import load_board
from emobench.runner.wandb import reachable_mode, sync_command
from emobench.suite.file import load, written

BLOCK = 32768  # bytes, of the log that W&B writes: LevelDB's format behind a header of seven bytes
SECRET = "hunter2" * 5 + "abcde"  # 40 characters, as long as a key


def records(path: Path) -> Iterator[Any]:
    """The protobuf records of an offline run."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = 7, b""
    while place < len(data):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def read_back(folder: Path) -> dict[str, Any]:
    """What the offline runs of one cell hold together; `files`: of tables and artifacts, by name."""
    runs = sorted(folder.glob("wandb/offline-run-*"))
    found: dict[str, Any] = {"runs": len(runs), "history": [], "config": {}, "summary": {}, "ids": set(), "files": {}}
    for run in runs:
        for record in records(next(run.glob("*.wandb"))):
            if record.HasField("run"):
                found["ids"].add(record.run.run_id)
                found["name"], found["group"] = record.run.display_name, record.run.run_group
                found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("config"):
                found["config"] |= {item.key: json.loads(item.value_json) for item in record.config.update}
            if record.HasField("history"):
                items = record.history.item
                found["history"].append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
            if record.HasField("artifact"):
                files = record.artifact.manifest.contents
                found["files"] |= {each.path.rpartition("/")[2]: Path(each.local_path) for each in files}
            if record.HasField("summary"):
                found["summary"] |= {
                    "/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update
                }
    return found


@pytest.fixture
def _no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own key or settings are seen, and no server would answer."""
    import wandb

    wandb.teardown()  # which may have read other ones
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.mark.usefixtures("_no_server")
def test_each_cell_is_a_run(
    emobench: Callable[..., int], tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--results", results, "--wandb", "online") == 0  # without a key
    said = capfd.readouterr()
    assert "W&B logs offline: no W&B key is set" in said.err
    assert f"to upload: {sync_command(results)}" in said.out
    row = load_board(results, "tiny")[0]
    run = read_back(results / "cells" / row.fit_key)
    assert run["runs"] == 1
    assert run["ids"] == {row.fit_key}
    assert run["group"] == "tiny"
    assert run["name"] == "resnet18 on synthetic-plain, seed 0"
    assert run["config"]["recipe"]["batch"] == 16
    assert run["config"]["arguments"]["lr"] == 0.02
    epochs = [line for line in run["history"] if "val_macro_f1" in line]
    assert [line["epoch"] for line in epochs] == [0, 1, 2, 3]
    rates = [line[name] for line in run["history"] for name in line if name.startswith("lr-")]
    assert rates[0] == 0.02
    assert row.record is not None
    assert row.record.evaluation is not None
    assert run["summary"]["test_accuracy"] == row.record.evaluation.tracks["recognition"].values["accuracy"].value
    (table,) = (results / "cells" / row.fit_key).glob("wandb/offline-run-*/files/media/table/*.table.json")
    matrix = json.loads(table.read_text())
    assert matrix["columns"] == ["Actual", "Predicted", "nPredictions"]
    read = pd.read_parquet(Path(row.folder or "", "predictions.parquet"))
    emotions = row.record.cell.emotions
    counts = {(shown, said): n for shown, said, n in matrix["data"]}
    assert len(matrix["data"]) == len(counts) == len(emotions) ** 2
    for (k, shown), (j, said) in itertools.product(enumerate(emotions), repeat=2):
        assert counts[shown, said] == ((read["label"] == k) & (read["prediction"] == j)).sum()
    assert sum(counts.values()) == 80
    (panel,) = (line for line in run["history"] if any("confusion matrix" in name for name in line))
    assert any(table.name in str(value) for value in panel.values())


@pytest.mark.usefixtures("_no_server")
def test_a_cell_that_is_measured_again_is_still_one_whole_run(
    emobench: Callable[..., int], tiny: Path, tmp_path: Path
) -> None:
    """Of two parts under one id `wandb sync` would keep one."""
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--results", results, "--wandb", "offline") == 0
    row = load_board(results, "tiny")[0]
    folder = results / "cells" / row.fit_key
    next(folder.glob("*/result.json")).unlink()  # the evaluation is to be done again
    assert emobench("bench", tiny, "--results", results, "--wandb", "offline") == 0
    run = read_back(folder)
    assert run["runs"] == 1
    assert run["ids"] == {row.fit_key}
    assert [line["epoch"] for line in run["history"] if "val_macro_f1" in line] == [0, 1, 2, 3]
    assert "test_accuracy" in run["summary"]


@pytest.mark.usefixtures("_no_server")
def test_no_secret_is_in_any_file(
    emobench: Callable[..., int], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    results = tmp_path / "results"
    with tiny.open("a") as file:
        file.write('[wandb]\nmode = "offline"\nproject = "faces"\n')
    assert emobench("bench", tiny, "--results", results, "--log", "tensorboard") == 0
    files = [path for path in results.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name.startswith("events.out.tfevents") for path in files)
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_a_key_has_no_place_in_a_suite(tiny: Path, tmp_path: Path) -> None:
    content = {"name": "mine", "data": {"synthetic-plain": {}}, "model": {"resnet18": {}}, "wandb": {"api_key": SECRET}}
    with pytest.raises(SuiteError, match="unknown setting of wandb 'api_key'") as refused:
        written(content, [], tmp_path)
    with tiny.open("a") as file:
        file.write(f'[wandb]\napi_key = "{SECRET}"\n')
    with pytest.raises(SuiteError, match=r"wandb\.api_key") as unread:
        load(tiny)
    assert SECRET not in f"{refused.value} {unread.value}"
    assert not (tmp_path / "mine").exists()


@pytest.mark.usefixtures("_no_server")
def test_offline_where_the_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reachable_mode("offline") == ("offline", None)
    mode, why = reachable_mode("online")
    assert mode == "offline"
    assert why is not None
    assert "no W&B key" in why
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    mode, why = reachable_mode("online")
    assert mode == "offline"
    assert why is not None
    assert "cannot be reached" in why
