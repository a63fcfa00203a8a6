"""Cells and boards that are shown in W&B and TensorBoard, read back from the files that these write offline."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from test_wandb import SECRET, read_back
from wandb_server import Server

from emobench.commands.dashboard import report_of
from emobench.commands.tracking import leaderboards, show
from emobench.errors import EmobenchError, Interrupted
from emobench.report.write import write
from emobench.runner import callbacks, tensorboard
from emobench.runner.build import build_data, load_model
from emobench.runner.fit import fit
from emobench.runner.record import Record
from emobench.runner.run import Job, run
from emobench.runner.store import Store, StoredCell, load_board
from emobench.runner.tracking import CellLogger, Tracking, result_of
from emobench.runner.wandb import reachable_mode, sync_command
from emobench.suite.expand import expand
from emobench.suite.file import load

pytest.importorskip("tensorboard", reason="TensorBoard is not installed (pip install 'emobench[tensorboard]')")

BOTH = Tracking("tiny", wandb={"mode": "offline", "project": "faces"}, tensorboard=True)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own key or settings are seen."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def events(folder: Path) -> Any:
    """What TensorBoard itself reads in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One that W&B's client takes for its own."""
    import wandb

    found = Server()
    monkeypatch.setenv("WANDB_BASE_URL", found.url)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    wandb.teardown()  # which has read where the server is
    yield found
    wandb.teardown()
    found.stop()


def interrupted(job: Job, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a cell until a signal stops it in its third epoch."""

    def interrupt(self: Any, trainer: Any, module: Any, images: Any, step: int) -> None:
        if (trainer.current_epoch, step) == (2, 4):
            raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Guard, "on_train_batch_start", interrupt, raising=False)
        with pytest.raises(Interrupted):
            run(job, store)


def test_a_fit_that_was_interrupted_is_one_whole_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """In the files that it leaves, in TensorBoard, and after `wandb sync`."""
    cell = expand(load(tiny), tmp_path).cells[0]
    store = Store(tmp_path / "results")
    folder = store.fit_folder(cell.fit_key)
    folder.mkdir(parents=True)
    job = Job(cell, store.results, tmp_path, tracking=BOTH)
    interrupted(job, store, monkeypatch)
    assert not list(folder.glob("wandb/*")), "half a run would be uploaded"
    place = tensorboard.folder_of(store.results, "tiny", cell)
    assert events(place).Scalars("val_macro_f1"), "it is shown while it is under way"
    (folder / "wandb" / "offline-run-20200101_000000-half").mkdir(parents=True)  # as it was logged before
    run(job, store)

    history = pd.read_csv(folder / "history.csv")
    uploaded = read_back(folder)
    assert uploaded["runs"] == 1
    assert uploaded["ids"] == {cell.fit_key}
    rows = [line for line in uploaded["history"] if "val_macro_f1" in line]
    assert [line["epoch"] for line in rows] == [0, 1, 2, 3]
    for name in ("train_loss", "val_loss", "val_macro_f1", "lr"):
        assert [line[name] for line in rows] == pytest.approx(history[name].tolist())
    assert all(line["faces_per_s"] > 0 for line in rows)
    assert [line["_step"] for line in rows] == [0, 1, 2, 3]
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # where `wandb` is
    command = sync_command(store.results)
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sent = [row for row in server.rows(cell.fit_key) if "val_macro_f1" in row]
    assert [row["val_macro_f1"] for row in sent] == pytest.approx(history["val_macro_f1"].tolist())
    assert server.groups[cell.fit_key] == "tiny"

    (written,) = place.glob("events.out.tfevents.*")
    shown = events(place)
    assert written.stat().st_size > 0
    for name in ("train_loss", "val_loss", "val_macro_f1", "lr"):
        assert [(each.step, each.value) for each in shown.Scalars(name)] == [
            (epoch, pytest.approx(value, rel=1e-5)) for epoch, value in enumerate(history[name])
        ]
    assert {"faces_per_s", "lr-SGD", "test_accuracy", "fit_faces_per_s"} <= set(shown.Tags()["scalars"])
    assert shown.Tags()["images"] == ["confusion matrix"]
    assert {"configuration/text_summary", "confusion matrix/text_summary"} <= set(shown.Tags()["tensors"])


def test_online_a_fit_is_shown_while_it_is_under_way(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """And whoever goes on with it shows the whole again, in the place of what was there."""
    assert reachable_mode("online") == ("online", None)
    cell = expand(load(tiny), tmp_path).cells[0]
    store = Store(tmp_path / "results")
    folder = store.fit_folder(cell.fit_key)
    folder.mkdir(parents=True)
    online = Tracking("tiny", wandb={"mode": "online", "project": "faces"})
    job = Job(cell, store.results, tmp_path, tracking=online)
    interrupted(job, store, monkeypatch)
    assert [row["epoch"] for row in server.rows(cell.fit_key)] == [0]
    run(job, store)
    rows = [row for row in server.rows(cell.fit_key) if "val_macro_f1" in row]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert all(row["faces_per_s"] > 0 for row in rows)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("row", ["vit_cvae", "stargan", "diffusion"])
def test_what_is_shown_of_a_generator_changes_nothing(row: str, made_suite: Path, tmp_path: Path) -> None:
    """One that draws, one that edits, one whose averaged weights are shown: with and without, the same network."""
    few = ["data.synthetic-plain.train=80", f"model.{row}.epochs=2", f"model.{row}.batch=16"]
    cell = next(each for each in expand(load(made_suite, few), tmp_path).cells if each.row == row)
    weights, histories = [], []
    for kind in ("unseen", "seen"):
        store = Store(tmp_path / kind)
        folder = store.fit_folder(cell.fit_key)
        folder.mkdir(parents=True)
        logger = CellLogger(Tracking("makers"), cell, store.results) if kind == "seen" else None
        fit(cell, store, build_data(cell, tmp_path), logger=logger)
        weights.append(load_file(store.weights(cell.fit_key)))
        histories.append(pd.read_csv(folder / "history.csv"))
    rates = [name for name in histories[1] if name.startswith("lr-")]  # which Lightning's monitor adds
    pd.testing.assert_frame_equal(histories[0], histories[1].drop(columns=rates))
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    epochs = logger.kept.epochs() if logger is not None else []
    assert len(epochs) == cell.fit["recipe"]["epochs"]
    assert all(each.samples is not None for each in epochs)


def test_a_board_that_was_made_before_is_shown_whole(
    tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of its cells is a run, from its files, and the board is one too."""
    results = Path(shutil.copytree(tiny_results, tmp_path / "results"))
    board = write(results, "tiny")
    show(BOTH, results, board)
    assert f"wandb sync {results}/cells/*/wandb/offline-run-* {results}/tiny/wandb" in capsys.readouterr().out
    written = {cell.row: sorted((results / "cells" / cell.fit_key).glob("wandb/offline-run-*")) for cell in board.cells}
    for cell in board.cells:
        found = read_back(results / "cells" / cell.fit_key)
        assert found["runs"] == 1
        assert found["group"] == "tiny"
        assert len([line for line in found["history"] if "val_macro_f1" in line]) == 4
        assert "test_accuracy" in found["summary"]
        place = tensorboard.folder_of(results, "tiny", dataclasses.replace(planned(cell), row=cell.row))
        assert len(events(place).Scalars("lr")) == 4
    summary = read_back(results / "tiny")
    assert (summary["runs"], summary["group"], summary["name"]) == (1, "tiny", "tiny: summary")
    files = summary["files"]  # which travel with the run
    assert all(path.is_relative_to(results / "tiny" / "wandb") for path in files.values())
    content = json.loads(files["recognition on synthetic-plain, 32 px.table.json"].read_text(encoding="utf-8"))
    shown = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    first = next(row for row in shown if row["model"] == "resnet18")
    (section,) = board.sections
    entry = next(each for each in section.entries if each.name == "resnet18")
    assert first["accuracy"] == entry.numbers["accuracy", "", ""].value  # type: ignore[index]
    assert first["macro F1, low"] <= first["macro F1"] <= first["macro F1, high"]
    assert first["runs"] == entry.cells[0].fit_key  # offline nobody knows whose run it will be
    assert files[Path(first["picture"]["path"]).name].read_bytes()[8:12] == b"WEBP"
    page = (results / "tiny" / "index.html").read_text(encoding="utf-8")
    assert files["index.html"].read_text(encoding="utf-8") == page
    (panel,) = results.glob("tiny/wandb/offline-run-*/files/media/html/*.html")
    assert panel.read_text(encoding="utf-8") == page

    show(BOTH, results, board)
    again = {cell.row: sorted((results / "cells" / cell.fit_key).glob("wandb/offline-run-*")) for cell in board.cells}
    assert again == written, "what is shown is not shown again"
    assert read_back(results / "tiny")["runs"] == 1


def planned(cell: StoredCell) -> Any:
    assert cell.record is not None
    return cell.record.planned


def of_people(record: Record) -> Record:
    """The record as if its dataset were one of real people."""
    made_of = record.made_of
    data = {**made_of.fit["data"], "dataset": "fer2013"}
    return record.model_copy(update={"made_of": made_of.model_copy(update={"fit": {**made_of.fit, "data": data}})})


def test_no_picture_of_a_real_person_is_shown_unless_the_suite_says_so(generated: Path, tmp_path: Path) -> None:
    kinds: dict[tuple[str, str], set[str]] = {}
    makers = {"vit_cvae": "sample", "stargan": "edit"}
    for cell in load_board(generated, "made"):
        if cell.row not in makers:
            continue
        assert cell.record is not None
        assert cell.folder is not None
        drawn, real = cell.record, of_people(cell.record)
        for name, record, real_faces in (("drawn", drawn, False), ("real", real, False), ("allowed", real, True)):
            shown = Tracking("made", real_faces=real_faces, every=1)
            result = result_of(record, cell.folder, shown)
            assert result is not None
            kinds[cell.row, name] = set(result.pictures)
            # and while it is trained
            logger = CellLogger(shown, record.planned, tmp_path / name)
            logger.kept.fit.mkdir(parents=True, exist_ok=True)
            faces = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
            logger.validated(load_model(Store(generated), cell.fit_key), 0, faces)
            assert logger.kept.samples(0).exists() == (name != "real")
            shutil.copyfile(cell.folder / "history.csv", logger.kept.history)
            assert logger.epochs()[0].samples is not None or name == "real"
            if name == "allowed":  # as if the suite had said so once
                later = CellLogger(Tracking("made"), record.planned, tmp_path / name)
                assert [each.samples for each in later.epochs()] == [None]
    for row in makers:
        assert kinds[row, "drawn"]
        assert kinds[row, "drawn"] <= kinds[row, "allowed"]
    assert not kinds["stargan", "real"] & {"edits", "styles"}


def test_leaderboards_have_pictures_and_runs(generated: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(generated / "made", results / "made")  # as a clone has it
    board = write(results, "made")
    tables = {table.name: table for table in leaderboards(board, False, tmp_path)}
    assert {name.partition(" on ")[0] for name in tables} == {"recognition", "generation", "editing"}
    for name, table in tables.items():
        assert len(table.rows) == len(table.pictures) == len(table.runs) > 1, name
        assert all(len(row) == len(table.header) for row in table.rows)
        for row, picture, runs in zip(table.rows, table.pictures, table.runs, strict=True):
            if not str(row[0]).startswith("control:"):
                assert picture is not None, (name, row)
                assert picture.is_file()
                assert runs
    tensorboard.summarise(results, "made", list(tables.values()))
    shown = events(tensorboard.home(results, "made") / "summary")
    assert {f"{name}/text_summary" for name in tables} == set(shown.Tags()["tensors"])
    assert any(tag.endswith("/stargan") for tag in shown.Tags()["images"])


def test_the_dashboard_is_what_the_library_reads(
    generated: Path, tmp_path: Path, emobench: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wr = pytest.importorskip("wandb_workspaces.reports.v2", reason="wandb-workspaces is not installed")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody answers
    report = report_of(load_board(generated, "made"), "made", "faces", "us")
    read = wr.Report._from_model(report._to_model())
    assert (read.title, read.project, read.entity) == ("made: emobench", "faces", "us")
    titles = [block.text for block in read.blocks if isinstance(block, wr.H2)]
    assert titles == ["synthetic-plain, 32 px"]
    grids = [block for block in read.blocks if isinstance(block, wr.PanelGrid)]
    runsets = [each for grid in grids for each in grid.runsets if each.name.endswith("by model")]
    assert len(runsets) == 4  # three tracks, and the training
    for runset in runsets:
        assert runset.groupby == ["config.model.value"]  # as W&B writes the key
        assert "Metric(\"Group\") == 'made'" in runset.filters
        assert "Config(\"dataset\") == 'synthetic-plain'" in runset.filters
    panels = [panel for grid in grids for panel in grid.panels]
    bars = [metric for panel in panels if isinstance(panel, wr.BarPlot) for metric in panel.metrics]
    assert {"test_macro_f1", "test_accuracy"} <= {getattr(each, "name", each) for each in bars}
    # as the command writes it
    out = tmp_path / "made.json"
    assert emobench("wandb", "dashboard", "made", "--results", generated, "--out", out) == 0
    assert len(json.loads(out.read_text(encoding="utf-8"))["blocks"]) == len(report._to_model().spec.blocks)
    assert emobench("wandb", "dashboard", "made", "--results", generated) == 2  # no key


def test_what_is_not_installed_is_said_before_anything_starts(
    emobench: Callable[..., int],
    tiny: Path,
    tiny_results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert emobench("bench", tiny, "--results", tmp_path / "results", "--log", "tensorboard") == 2
    assert "pip install 'emobench[tensorboard]'" in capsys.readouterr().err
    assert not list((tmp_path / "results" / "cells").glob("*/fit.json"))
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports", None)
    monkeypatch.delitem(sys.modules, "wandb_workspaces.reports.v2", raising=False)
    with pytest.raises(EmobenchError, match=r"pip install 'emobench\[dashboard\]'"):
        report_of(load_board(tiny_results, "tiny"), "tiny", "faces", "us")
