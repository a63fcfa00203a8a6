"""Sweeps through the real command: skipping, failures that stay where they are, faults of disk and files."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from reading import pages
from toys import ENGINE
from watching import beside

from emobench.classifiers.resnet import ResNet18
from emobench.errors import NotFinite, StoreError
from emobench.evaluation.predict import predict
from emobench.evaluation.values import Value
from emobench.files import read_json, write_json
from emobench.runner import build
from emobench.runner.lease import Lease
from emobench.runner.machine import record_of
from emobench.runner.record import Evaluation, Fit, read_record
from emobench.runner.run import Job, describe, run
from emobench.runner.store import Store, StoredCell, load_board
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.keys import key

Emobench = Callable[..., int]


def only_board(results: Path) -> str:
    """The name of the one board that is here: of the suite, and of what was overridden."""
    (path,) = results.glob("*/suite.json")
    return path.parent.name


def rows(results: Path, suite: str | None = None) -> dict[str, StoredCell]:
    return {row.row: row for row in load_board(results, suite or only_board(results))}


def measured(row: StoredCell) -> tuple[Fit, Evaluation]:
    """What the record of a finished cell says of its fit and of its evaluation."""
    assert row.record is not None
    assert row.record.fit is not None
    assert row.record.evaluation is not None
    return row.record.fit, row.record.evaluation


def accuracy(row: StoredCell) -> Value:
    return measured(row)[1].tracks["recognition"].values["accuracy"]


def test_a_sweep_writes_results_and_board_and_is_skipped_when_done(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--results", results) == 0
    row = rows(results)["resnet18"]
    assert row.state == "done"
    assert accuracy(row).n == 80
    cost = measured(row)[0].cost
    assert cost is not None
    assert cost.steps == 4 * 5
    assert cost.recipe_share == pytest.approx(4 * 80 / (15 * (80 // 32) * 32))
    assert row.stale is None
    predictions = pd.read_parquet(row.folder / "predictions.parquet")  # type: ignore[operator]
    assert (predictions["label"] == predictions["prediction"]).mean() == accuracy(row).value
    assert not (results / "cells" / row.fit_key / "checkpoints").exists()  # a finished cell keeps its weights only
    board = pages(results / "tiny")
    assert "resnet18" in board
    assert (results / "tiny" / "metrics.csv").exists()

    written = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    capsys.readouterr()
    started = time.perf_counter()
    assert emobench("bench", tiny, "--results", results) == 0
    assert time.perf_counter() - started < 3  # the whole command, imports included, is timed by `make perf`
    assert "2 of 2 cells are done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == written


def test_a_changed_configuration_is_a_new_cell_and_overwrites_nothing(
    emobench: Emobench, tiny: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    short = ["--set", "model.resnet18.epochs=1"]
    assert emobench("bench", tiny, *short, "--results", results) == 0
    first = rows(results)["resnet18"]
    before = (results / "cells" / first.fit_key / "fit.json").read_bytes()
    page = (results / "tiny+model.resnet18.epochs=1" / "leaderboard.md").read_bytes()
    assert emobench("bench", tiny, *short, "--set", "model.resnet18.lr=0.3", "--results", results) == 0
    second = rows(results, "tiny+model.resnet18.epochs=1+model.resnet18.lr=0.3")["resnet18"]
    assert (results / "tiny+model.resnet18.epochs=1" / "leaderboard.md").read_bytes() == page
    assert second.fit_key != first.fit_key
    assert (results / "cells" / first.fit_key / "fit.json").read_bytes() == before


def test_a_lost_evaluation_is_made_again_without_training(emobench: Emobench, tiny: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    short = ["--set", "model.resnet18.epochs=1"]
    assert emobench("bench", tiny, *short, "--results", results) == 0
    row = rows(results)["resnet18"]
    fit = results / "cells" / row.fit_key / "fit.json"
    before, first = fit.read_bytes(), measured(row)[1]
    shutil.rmtree(fit.parent / row.eval_key)
    shutil.rmtree(results / only_board(results) / "cells")
    assert emobench("bench", tiny, *short, "--results", results) == 0
    again = measured(rows(results)["resnet18"])[1]
    assert fit.read_bytes() == before
    assert again.tracks["recognition"].values == first.tracks["recognition"].values
    assert again.tracks["recognition"].per_emotion == first.tracks["recognition"].per_emotion


def test_one_failing_cell_costs_only_itself(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell that cannot get its memory, one whose loss becomes NaN and one that needs a failed one; others finish."""
    text = tiny.read_text()
    twin = text[text.index("[model.resnet18]") :].replace("[model.resnet18]", '\n[model.twin]\nclass = "resnet18"')
    tiny.write_text(
        text
        + twin
        + '\n[model.huge]\nclass = "resnet18"\nwidth = 4096\nepochs = 1\nbatch = 16\n'
        + '\n[model.wild]\nclass = "resnet18"\nwidth = 0.0625\nepochs = 2\nbatch = 16\nlr = 1e30\n'
        + '\n[model.mean]\nclass = "ensemble"\nneeds = { members = ["resnet18", "wild"] }\n'
        + '\n[model.pair]\nclass = "ensemble"\nneeds = { members = ["resnet18", "twin"] }\n'
    )
    results = tmp_path / "results"
    short = ("--set", "model.resnet18.epochs=1", "--set", "model.twin.epochs=1")
    assert emobench("bench", tiny, *short, "--results", results) == 1
    board = rows(results)
    assert {name: row.state for name, row in board.items()} == {
        "resnet18": "done",
        "twin": "done",
        "huge": "failed",
        "wild": "diverged",
        "mean": "failed",
        "pair": "done",
        "control:permuted": "done",
    }
    assert "out of memory" in (board["huge"].reason or "")
    assert "became NaN or infinite in epoch 1. Lower lr" in (board["wild"].reason or "")
    assert board["mean"].reason == "needs wild, which did not finish"
    text = pages(results / only_board(results))
    for name in ("huge", "wild", "mean"):
        assert name in text
    assert accuracy(board["pair"]).value == accuracy(board["resnet18"]).value  # a mean of equals
    weights = results / "cells" / board["pair"].fit_key / "weights.safetensors"
    assert not weights.exists()  # an ensemble has none of its own, and never its members'


def test_the_same_seed_and_any_number_of_workers_give_the_same_numbers(
    emobench: Emobench, tiny: Path, tmp_path: Path
) -> None:
    found = []
    for name, options in {"a": [], "b": [], "c": ["--workers", "1"], "d": ["--workers", "2"]}.items():
        results = tmp_path / name
        assert emobench("bench", tiny, "--set", "model.resnet18.epochs=2", *options, "--results", results) == 0
        row = rows(results)["resnet18"]
        found.append(pd.read_parquet(row.folder / "predictions.parquet"))  # type: ignore[operator]
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0])


def test_two_sweeps_on_one_folder_run_each_cell_once(emobench: Emobench, tiny: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (tmp_path / "here.py").write_text(ENGINE)  # no server of its own, which would be up when all is done
    other = beside(tmp_path / "said", "bench", tiny, "--results", results, "--engine", f"{tmp_path / 'here.py'}:Here")
    code = emobench("bench", tiny, "--results", results)
    other.join(timeout=180)
    assert (code, other.exitcode) == (0, 0), (tmp_path / "said").read_text()
    assert {row.state for row in load_board(results, "tiny")} == {"done"}
    fits = list(results.glob("cells/*/fit.json"))
    assert len(fits) == 2
    for fit in fits:
        history = pd.read_csv(fit.parent / "history.csv")
        assert list(history["epoch"]) == [0, 1, 2, 3]
        log = fit.parent / "log.txt"  # the other sweep's engine runs a cell in its own process, and writes none
        assert not log.exists() or "going on from" not in log.read_text()


def test_a_corrupt_result_is_named_and_can_run_again(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    short = ["--set", "model.resnet18.epochs=1"]
    assert emobench("bench", tiny, *short, "--results", results) == 0
    row = rows(results)["resnet18"]
    name = only_board(results)
    shutil.rmtree(results / name / "cells")
    record = results / "cells" / row.fit_key / row.eval_key / "result.json"
    record.write_text(record.read_text()[:100])
    assert emobench("report", name, "--results", results) == 1
    board = pages(results / name)
    assert "Incomplete" in board
    assert "not a whole result file" in board
    assert emobench("bench", tiny, *short, "--results", results) == 0
    assert rows(results)["resnet18"].state == "done"


# A network in whose process no file can grow beyond 400 KiB while a file `full` lies beside its own.
LIMITED = """
import resource
from pathlib import Path

from emobench.classifiers.resnet import ResNet18


class Limited(ResNet18):
    name = "limited"

    def on_fit_start(self) -> None:
        if Path(__file__).with_name("full").exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (400 * 1024, 400 * 1024))
"""


def test_a_full_disk_fails_the_cell_with_its_reason_and_loses_nothing(
    emobench: Emobench, tiny: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk: writing a checkpoint fails in its middle."""
    results, full = tmp_path / "results", tmp_path / "full"
    (tmp_path / "limited.py").write_text(LIMITED)
    tiny.write_text(tiny.read_text().replace("[model.resnet18]", '[model.limited]\nclass = "limited.py:Limited"'))
    assert emobench("bench", tiny, "--set", "model.limited.epochs=1", "--results", results) == 0
    before = {path: path.read_bytes() for path in results.glob("cells/*/*") if path.suffix in (".json", ".safetensors")}
    wider = "model.limited.width=0.125"
    full.touch()
    assert emobench("bench", tiny, "--set", wider, "--results", results) == 1
    row = rows(results, f"tiny+{wider}")["limited"]
    assert row.state == "failed"
    assert "file too large" in (row.reason or "")
    folder = results / "cells" / row.fit_key
    assert not list(folder.glob("checkpoints/*.ckpt"))  # nothing half there under a final name
    assert not list(folder.rglob("*.tmp"))
    assert {path: path.read_bytes() for path in before} == before
    full.unlink()
    assert emobench("bench", tiny, "--set", wider, "--results", results) == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk full: .* Free some space and run again"),
        (OSError(errno.EFBIG, "File too large"), "file too large: .* Raise the file-size limit"),
        (MemoryError(), r"out of memory \(host\). Use a smaller batch or model"),
        (ValueError("a bug"), "ValueError: a bug"),
    ],
)
def test_errors_say_what_to_do_also_where_a_library_wraps_them(error: Exception, said: str) -> None:
    assert re.match(said, describe(error))
    if isinstance(error, OSError):
        wrapped = RuntimeError("unexpected pos 64 vs 0")  # as torch.save does
        wrapped.__context__ = error
        assert re.match(said, describe(wrapped))


def test_results_that_cannot_be_written_are_refused_before_training(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "results"
    blocked.write_text("a file where the folder should be")  # read-only folders do not stop root
    assert emobench("bench", tiny, "--results", blocked) == 2
    assert "choose another folder with --results" in capsys.readouterr().err


def test_trust_takes_committed_cells_of_equal_or_earlier_code(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    short = ["--set", "model.resnet18.epochs=1"]
    assert emobench("bench", tiny, *short, "--results", results) == 0
    shutil.rmtree(results / "cells")  # another clone has the committed board only
    capsys.readouterr()
    assert emobench("bench", tiny, *short, "--on-existing", "trust", "--results", results) == 0
    assert not list(results.glob("cells/*/fit.json"))
    # As if earlier code had made them: their keys differ from today's in the code alone.
    for path in results.glob("*/cells/*/result.json"):
        record = read_record(path)
        fit, evaluation = record.made_of.fit, record.made_of.eval
        fit["code"]["digest"] = evaluation["code"]["digest"] = "0" * 64
        evaluation["fit_key"] = key(fit)
        record.model_copy(update={"fit_key": key(fit), "eval_key": key(evaluation)}).write(path)
        path.parent.rename(path.parent.with_name(key(evaluation)))
    assert emobench("bench", tiny, *short, "--on-existing", "trust", "--results", results) == 0
    assert not list(results.glob("cells/*/fit.json"))
    assert all(row.state == "done" and row.stale for row in rows(results).values())
    assert emobench("bench", tiny, *short, "--results", results) == 0  # without trust the cells run
    assert len(list(results.glob("cells/*/fit.json"))) == 2


def test_dry_run_shows_cells_and_starts_nothing(
    emobench: Emobench, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--dry-run", "--results", results) == 0
    shown = capsys.readouterr().out
    assert "2 cells, 2 to run" in shown
    assert shown.count("  at most 0:00:1") == 2  # parameters and steps bound what was never measured
    assert "MiB" in shown
    assert "Downloads: none" in shown
    assert not list(results.glob("cells/*/fit.json"))


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_never_run(emobench: Emobench, tiny: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--set", "model.resnet18.epochs=1", "--results", results) == 0
    row = rows(results)["resnet18"]
    folder = results / "cells" / row.fit_key
    shutil.rmtree(folder / row.eval_key)
    (folder / "fit.json").unlink()
    (folder / "checkpoints").mkdir()
    trap = tmp_path / "executed"
    torch.save({"state_dict": {}, "payload": Evil(trap)}, folder / "checkpoints" / "last-step=99.ckpt")
    (folder / "checkpoints" / "last-step=98.ckpt").write_bytes(pickle.dumps(Evil(trap)))
    assert emobench("bench", tiny, "--set", "model.resnet18.epochs=1", "--results", results) == 0
    assert not trap.exists()
    assert (folder / "log.txt").read_text().count("cannot be read") == 2


def test_outputs_that_are_not_finite_fail_the_evaluation_with_the_face(
    emobench: Emobench, tiny: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--set", "model.resnet18.epochs=1", "--results", results) == 0
    model = build.load_model(Store(results), rows(results)["resnet18"].fit_key)
    images = torch.zeros(5, 3, 32, 32, dtype=torch.uint8).numpy()
    forward = model.forward
    model.forward = lambda faces: forward(faces) / torch.tensor([1.0, 1, 1, 0, 1])[: len(faces), None] * float("inf")  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match="test face 0"):
        predict(model, images, 8)


def test_evaluations_compute_in_float32_and_not_in_tf32(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = expand(load(tiny, ["model.resnet18.epochs=1"]), tmp_path).cells[0]
    seen: dict[str, bool] = {}
    logits = ResNet18.logits

    def watched(self: ResNet18, pixels: torch.Tensor) -> torch.Tensor:
        seen["fit" if self.training else "evaluation"] = torch.backends.cudnn.allow_tf32
        return logits(self, pixels)

    monkeypatch.setattr(ResNet18, "logits", watched)
    store = Store(tmp_path / "results")
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    with torch.backends.cudnn.flags(allow_tf32=True):
        run(Job(cell, tmp_path / "results", tmp_path), store)
    assert seen == {"fit": True, "evaluation": False}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    write_json(path, {"schema_version": 1, "value": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"schema_version": 1, "value": float("nan")})
    assert read_json(path)["value"] == 1.5
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(json.dumps({"schema_version": 99}))
    for read in (read_json, read_record):
        with pytest.raises(StoreError, match="schema version 99"):
            read(path)


def test_a_record_is_written_whole_or_not_at_all(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    path = folder / "result.json"
    record = record_of(expand(load(tiny), tmp_path).cells[0], "failed", "out of memory")
    record.write(path)
    assert read_record(path) == record
    made_of = {**record.made_of.fit, "arguments": {"lr": float("nan")}}
    broken = record.model_copy(update={"made_of": record.made_of.model_copy(update={"fit": made_of})})
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.write(path)
    assert read_record(path) == record
    assert list(folder.iterdir()) == [path]
    for damage, says in {
        '"state": "ready"': "state: Input should be",
        '"state": "done"': "nothing says how it was fitted",
    }.items():
        path.write_text(record.text().replace('"state": "failed"', damage))
        with pytest.raises(StoreError, match=f"result.json: .*{says}"):
            read_record(path)


def test_a_cell_is_held_by_one_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("k") as first:
        assert first
        seen: list[Lease | None] = []

        def other() -> None:
            with store.lock("k") as mine:
                seen.append(mine)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert seen == [None]
    with store.lock("k") as again:
        assert again
