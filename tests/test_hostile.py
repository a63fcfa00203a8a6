"""What a hostile or an unlucky user does next: relatives of the faults that were met, each with its own small input."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import signal
import stat
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from PIL import Image
from test_judged import Board
from test_report import Results

from emobench.commands.live import Display
from emobench.data.datasets.affectnet import AffectNet
from emobench.data.datasets.ckplus import CKPlus
from emobench.data.datasets.folder import Folder
from emobench.data.readers.beside import names_beside
from emobench.data.readers.images import read_face
from emobench.data.readers.tables import read_rows, read_words
from emobench.errors import DatasetError, EmobenchError, Interrupted, RowError, StoreError, SuiteError, printable
from emobench.files import heard_or_not, say
from emobench.nn.styles import read_picture
from emobench.report.written import read_board
from emobench.runner import callbacks
from emobench.runner.build import build_data
from emobench.runner.fit import fit
from emobench.runner.machine import record_of
from emobench.runner.run import Job, execute
from emobench.runner.store import Store, intact
from emobench.runner.sweep import Running, Sweep, _ended, _signals
from emobench.suite import plugins
from emobench.suite.cell import Cell, Plan
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.plan_cache import plan_of

Emobench = Callable[..., int]


def face(seed: int, size: int = 32) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def tree(top: Path) -> Path:
    for k, name in enumerate(("happy", "sad", "neutral")):
        (top / name).mkdir(parents=True)
        for i in range(6):
            face(10 * k + i).save(top / name / f"{i}.png")
    return top


# ---- data and pictures -----------------------------------------------------------------------------------------------


def test_32_bit_pixels_are_refused_whatever_they_hold(tmp_path: Path) -> None:
    """They were taken for 16-bit ones where none was above 65,535: faces of 0 to 255 became black."""
    values = np.arange(256).reshape(16, 16)
    for name, kind in (("int32", np.int32), ("int16", np.int16)):
        Image.fromarray(values.astype(np.int32)).save(tmp_path / f"{name}.tif")
        if kind is np.int16:  # signed: what Pillow cannot write is a tag more
            Image.fromarray(values.astype(np.uint16)).save(tmp_path / f"{name}.tif", tiffinfo={339: 2})
        with pytest.raises(RowError, match=rf"{name}\.tif: 32-bit pixels have no fixed range"):
            read_face(tmp_path / f"{name}.tif")
    wide = (values * 257).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "uint16.tif")
    (tmp_path / "uint16.pgm").write_bytes(b"P5 16 16 65535\n" + wide.astype(">u2").tobytes())
    for name in ("uint16.tif", "uint16.pgm"):
        np.testing.assert_array_equal(read_face(tmp_path / name)[0], values)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bytes])
def test_a_line_without_end_costs_no_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """32 KB that unpack to a line of 32 MB."""
    path = tmp_path / "fer2013.csv"
    path.write_bytes(pack(b"emotion,pixels\n0," + b"7 " * (16 * 2**20)))
    tracemalloc.start()
    with pytest.raises(RowError, match=r"row 2: a line of more than 1,048,576 characters"):
        list(read_rows(path, {"emotion", "pixels"}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 2**20  # of which the decoder of .xz has 8


@pytest.mark.timeout(60)
def test_label_files_that_are_pipes_or_too_large_are_named(tmp_path: Path) -> None:
    """Opened, a pipe waits until somebody writes."""
    place = tmp_path / "affectnet" / "train_set"
    (place / "annotations").mkdir(parents=True)
    (place / "images").mkdir()
    for k in range(8):
        face(k).save(place / "images" / f"{k}.png")
        np.save(place / "annotations" / f"{k}_exp.npy", np.array(k))
    label = place / "annotations" / "3_exp.npy"
    promise = (
        b"\x93NUMPY\x01\0" + struct.pack("<H", 118) + b"{'descr':'<f8','fortran_order':False,'shape':(10000000000000,)}"
    )
    for make, said in (
        (lambda: os.mkfifo(label), "no file of at most 65,536 bytes"),
        (lambda: label.symlink_to("/dev/zero"), "no file of at most 65,536 bytes"),
        (lambda: label.write_bytes(bytes(2**20)), "no file of at most 65,536 bytes"),
        (lambda: label.write_bytes(promise.ljust(128)), "3_exp.npy: (no number|'')"),
    ):
        label.unlink()
        make()
        with pytest.raises(RowError, match=said):
            AffectNet(folder=tmp_path / "affectnet", cache=tmp_path / "cache", max_bad=0).plan(pixels=False)

    sequence = "S005/001/S005_001_00000001"
    for path in (tmp_path / "ckplus/cohn-kanade-images" / f"{sequence}.png", tmp_path / "ckplus/Emotion" / sequence):
        path.parent.mkdir(parents=True)
    face(1).save(tmp_path / "ckplus/cohn-kanade-images" / f"{sequence}.png")
    os.mkfifo(tmp_path / "ckplus/Emotion" / f"{sequence}_emotion.txt")
    with pytest.raises(RowError, match=r"_emotion\.txt: no file of at most 4,096 bytes"):
        CKPlus(folder=tmp_path / "ckplus", cache=tmp_path / "cache").plan(pixels=False)

    os.mkfifo(tmp_path / "label.lst")
    for rows in (read_words(tmp_path / "label.lst", ("name", "label")), read_rows(tmp_path / "label.lst", {"label"})):
        with pytest.raises(RowError, match=r"label\.lst: no regular file"):
            list(rows)


@pytest.mark.timeout(60)
def test_aliases_and_tags_of_yaml_are_no_trap(tmp_path: Path) -> None:
    """Thirty lines that a reader of every branch would follow a billion times; a tag that the parser stumbles over."""
    lines = ["---", "a0: &a0 {class_label: {names: [happy, sad]}}"]
    lines += [f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 30)]
    (tmp_path / "README.md").write_text("\n".join([*lines, "---", "# Faces"]))
    (found,) = names_beside(tmp_path, tmp_path)
    assert found.names == {0: "happy", 1: "sad"}
    (tmp_path / "data.yaml").write_text("names: &a [*a]")
    assert [each.says for each in names_beside(tmp_path, tmp_path)] == ["README.md"]
    for content in ("names: !!bool x", "names: !!timestamp x", "names: !!int ''", "names: " + "[" * 5000):
        (tmp_path / "data.yaml").write_text(content)
        with pytest.raises(RowError, match=r"data\.yaml: cannot be read \(.+\)\. Mend or remove the file"):
            names_beside(tmp_path, tmp_path)


@pytest.mark.timeout(60)
def test_pictures_of_styles_are_read_as_faces_are(tmp_path: Path) -> None:
    """Regular files of bounded size, no program started by one, metadata that cost nothing."""
    turned = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 3, 0)
    turned += struct.pack("<HHII", 0x0131, 5, 1, 38) + bytes(4) + struct.pack("<II", 1, 1)  # a text as a fraction
    face(1).save(tmp_path / "happy.jpg", exif=turned, quality=95)
    face(1).save(tmp_path / "plain.jpg", quality=95)
    upright = read_picture(tmp_path / "plain.jpg", 32)
    np.testing.assert_array_equal(read_picture(tmp_path / "happy.jpg", 32), upright[:, ::-1, ::-1])
    (tmp_path / "sad.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    os.mkfifo(tmp_path / "fear.jpg")
    (tmp_path / "anger.jpg").symlink_to("/dev/zero")
    Image.new("1", (9000, 8000)).save(tmp_path / "disgust.png")
    for name, said in {
        "sad.jpg": "cannot identify",
        "fear.jpg": "no regular file",
        "anger.jpg": "no regular file",
        "disgust.png": "more than 64 million",
    }.items():
        with pytest.raises(SuiteError, match=rf"{name}: this picture of .* cannot be read \(.*{said}"):
            read_picture(tmp_path / name, 32)


def damaged(cache: Path) -> list[tuple[Path, Callable[[], object]]]:
    """Every file of a cache with every way to damage it."""
    ways: list[tuple[Path, Callable[[], object]]] = []
    for path in sorted(each for each in cache.rglob("*") if each.is_file() and each.suffix != ".lock"):
        content = path.read_bytes()
        ways += [(path, lambda path=path: path.write_bytes(b""))]
        ways += [(path, lambda path=path, content=content: path.write_bytes(content[: len(content) // 2]))]
        ways += [(path, lambda path=path, content=content: path.write_bytes(b"\xff" * len(content)))]
        ways += [(path, lambda path=path: path.unlink())]
        ways += [(path, lambda path=path: (path.unlink(), path.mkdir()))]
    return ways


def test_a_damaged_cache_is_made_again_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Packs and manifests that a full or failing disk left: before, a traceback until somebody deleted them."""

    def prepared() -> Folder:
        data = Folder(dataset="faces", folder=tmp_path / "faces", cache=tmp_path / "cache", size=16)
        data.prepare()
        return data

    tree(tmp_path / "faces")
    whole = prepared()
    faces, images = whole.faces.copy(), np.array(whole.images)
    ways = damaged(tmp_path / "cache")
    assert {path.name for path, _ in ways} == {
        "manifest.json", "faces.parquet", "records.parquet", "images.npy", "looks.npy",
    }  # fmt: skip
    for path, damage in ways:
        damage()
        capsys.readouterr()
        again = prepared()
        assert f"{path.parent}: damaged, and made again" in capsys.readouterr().err
        np.testing.assert_array_equal(again.images, images)
        pd.testing.assert_frame_equal(again.faces, faces)


# ---- suites and names ------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_a_suite_is_a_text_file_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    (tmp_path / "deep.toml").write_text("seeds = " + "[" * 5000 + "]" * 5000)
    (tmp_path / "digits.toml").write_text(f"seeds = [{'9' * 5000}]")
    (tmp_path / "latin.toml").write_bytes(b'panel = ["caf\xe9"]')
    said = {name: "a suite is a text file of at most 1 MiB" for name in ("pipe", "zero", "folder", "large")}
    said |= {"deep": "lists in lists without end", "digits": "4300 digits", "latin": "utf-8"}
    for name, words in {**said, "loop": "symbolic links", "nul\0": "null byte"}.items():
        with pytest.raises(SuiteError, match=words):
            load(tmp_path / f"{name}.toml")
    with pytest.raises(SuiteError, match=r"there is no such suite"):  # a list of what is there waits for no pipe
        load(tmp_path / "gone.toml")


def test_settings_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    for value in ("[" * 3000 + "]" * 3000, f"[{'9' * 5000}]"):
        with pytest.raises(SuiteError, match="seeds = .*: Input should be a valid list"):
            load(tmp_path / "tiny.toml", [f"seeds={value}"], name="mine")


def test_links_that_lead_back_to_themselves(
    emobench: Emobench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = tmp_path / "loop.py"
    loop.symlink_to("loop.py")
    (tmp_path / "tiny.toml").write_text(TINY)
    assert emobench("doctor", "--data", loop, "--results", loop) == 0
    assert f"data root {loop}" in capsys.readouterr().out
    there = ["--data", tmp_path / "data", "--results", tmp_path / "results", "--dry-run"]
    for more in (["--set", 'model.resnet18.class="loop.py:Small"'], ["--set", 'plugins=["loop.py"]']):
        assert emobench("bench", tmp_path / "tiny.toml", *more, *there) == 2
        assert "loop.py" in capsys.readouterr().err
    monkeypatch.setenv("EMOBENCH_PLUGINS", str(loop))
    assert emobench("bench", tmp_path / "tiny.toml", *there[:2], "--results", loop) == 2
    assert "loop.py" in capsys.readouterr().err


def test_names_do_not_steer_the_terminal(
    emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that clears the screen, sets the window's title, or forges a line of its own."""
    name = "a\x1b[2J\x1b]0;x\x07\u202e\nemobench: all is well.png"
    inert = r"a\x1b[2J\x1b]0;x\x07\u202e\nemobench: all is well.png"
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(RowError) as error:
        read_face(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path}/{inert}: not an intact image (0 bytes)")
    assert str(DatasetError("two\nlines, \x9b31mred")) == "two\nlines, \\x9b31mred"
    assert printable("größe 表 😀 \t\n") == "größe 表 😀 \t\n"
    row = json.dumps("mine\x1b[2J\nall done")
    (tmp_path / "tiny.toml").write_text(TINY.replace("[model.resnet18]", f'[model.{row}]\nclass = "resnet18"'))
    assert emobench("bench", tmp_path / "tiny.toml", "--dry-run", "--results", tmp_path / "results") == 0
    shown = capsys.readouterr().out
    assert r"mine\x1b[2J\nall done on synthetic-plain, seed 0" in shown
    assert "\x1b" not in shown


def test_what_predict_writes_has_a_place_before_it_works(
    emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face(1).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "out.csv", tmp_path):
        assert emobench("predict", "best:no/board", tmp_path / "a.png", "--results", tmp_path, "--out", out) == 2
        assert f"--out {out}: " in capsys.readouterr().err


# ---- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "tiny.toml").write_text(TINY)
    return expand(load(folder / "tiny.toml"), folder)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, "ended with exit code 0; see "),  # by os._exit, or a library that ends the process
        (3, "ended with exit code 3; see "),
        (-signal.SIGKILL, "killed by SIGKILL: out of memory, or by hand"),
        (-(signal.SIGRTMIN + 1), f"killed by signal {signal.SIGRTMIN + 1}"),  # one without a name
    ],
)
def test_a_cell_that_ends_without_a_word_has_failed(plan: Plan, tmp_path: Path, code: int, reason: str) -> None:
    state = Sweep(plan, Store(tmp_path), plan.cells, [])
    _ended(state, Running(plan.cells[0], None, 0.0), code)
    found, said = state.state(plan.cells[0])
    assert found == "failed"
    assert (said or "").startswith(reason)


def test_a_cell_that_is_killed_after_an_attempt_that_was_interrupted_says_why(plan: Plan, tmp_path: Path) -> None:
    """The record of the attempt before it is still there, and says less."""
    cell, store = plan.cells[0], Store(tmp_path)
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    record_of(cell, "interrupted").write(store.fit_folder(cell.fit_key) / "fit.json")
    state = Sweep(plan, store, plan.cells, [])
    _ended(state, Running(cell, None, 0.0), -signal.SIGKILL)
    assert state.state(cell) == ("failed", "killed by SIGKILL: out of memory, or by hand")


def test_a_cell_that_is_terminated_before_it_can_end_in_order_is_interrupted(plan: Plan, tmp_path: Path) -> None:
    """While it starts, or before: a batch job that is cancelled in the queue."""
    state = Sweep(plan, Store(tmp_path), plan.cells, [])
    _ended(state, Running(plan.cells[0], None, 0.0), -signal.SIGTERM)
    found, said = state.state(plan.cells[0])
    assert found == "interrupted"
    assert said == "stopped by signal 15; run the same command again to go on"


def test_a_signal_in_the_middle_of_what_passes_errors_over_ends_the_cell(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import of a model that may be broken, a picture that may be: the cell went on, and was deaf to the signal."""
    cell = plan.cells[0]

    def passes_over(*args: object) -> None:
        with contextlib.suppress(*plugins.ANYTHING):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    monkeypatch.setattr("emobench.runner.run.run", passes_over)
    assert execute(Job(cell, tmp_path, tmp_path)) == 128 + signal.SIGTERM
    known = Store(tmp_path).failure(cell.fit_key, cell.eval_key)
    assert known is not None
    assert known[0].state == "interrupted"


def test_a_second_signal_does_not_break_off_a_cell_that_ends_in_order(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm signals every process of a job, and the first of them passes it on."""
    cell = plan.cells[0]

    def fits(*args: object) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            signal.signal(signal.SIGTERM, handler)  # as Lightning does

    def record(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return record_of(*args)

    monkeypatch.setattr("emobench.runner.run.run", fits)
    monkeypatch.setattr("emobench.runner.run.record_of", record)
    assert execute(Job(cell, tmp_path, tmp_path)) == 128 + signal.SIGTERM
    known = Store(tmp_path).failure(cell.fit_key, cell.eval_key)
    assert known is not None
    assert known[0].state == "interrupted"


@pytest.mark.parametrize("knows", [True, False])
def test_the_last_word_of_a_cell_that_is_ended_does_not_displace_why(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    """What ran it was killed, say for its memory: the sweep hears of that before SIGTERM ends the cell itself."""
    cell, store = plan.cells[0], Store(tmp_path)
    failed = record_of(cell, "failed", "out of memory on node 1")
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    store.keep_failure(failed)  # of the run before

    def ended(*args: object) -> None:
        if knows:
            store.keep_failure(failed)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("emobench.runner.run.run", ended)
    assert execute(Job(cell, tmp_path, tmp_path)) == 128 + signal.SIGTERM
    known = store.failure(cell.fit_key, cell.eval_key)
    assert known is not None
    assert known[0].state == ("failed" if knows else "interrupted")


def test_a_connection_that_goes_ends_a_sweep_in_order(plan: Plan, tmp_path: Path) -> None:
    """As SIGTERM does, which test_resume.py follows to the end; below `nohup` the sweep goes on."""
    state = Sweep(plan, Store(tmp_path), [], [])
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with _signals(state):
            os.kill(os.getpid(), signal.SIGHUP)
        assert state.signal == signal.SIGHUP
        assert signal.signal(signal.SIGHUP, signal.SIG_IGN) == signal.SIG_DFL
        state.signal = None
        with _signals(state):
            os.kill(os.getpid(), signal.SIGHUP)
        assert state.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_plan_that_was_damaged_is_made_again(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    suite = load(tmp_path / "tiny.toml")
    made = plan_of(suite, tmp_path, tmp_path / "cells")
    (path,) = (tmp_path / "cells" / "plans").iterdir()
    whole = json.loads(path.read_text())
    changed = json.loads(path.read_text())
    changed["plan"]["cells"][0]["seed"] = 7
    for content in ({"schema_version": 1}, {**whole, "plan": []}, {**whole, "digest": None}, changed):
        path.write_text(json.dumps(content))
        assert plan_of(suite, tmp_path, tmp_path / "cells") == made
        assert json.loads(path.read_text()) == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_nobody_hears_ends_no_sweep(
    emobench: Emobench, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log on a full disk. What is asked for its answer alone says that it could not be written."""
    results = tmp_path / "results"
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert emobench("bench", tiny, "--set", "model.resnet18.epochs=1", "--results", results) == 0
    (page,) = results.glob("tiny+*/leaderboard.md")
    assert "Complete: 2 of 2 cells done." in page.read_text()
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        capsys.readouterr()
        assert emobench("--version") == 1
        assert "could not be written (No space left on device)" in capsys.readouterr().err


def test_a_pipe_that_is_closed_silences_the_display(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    state = Sweep(plan, Store(tmp_path), plan.cells, plan.cells)
    for terminal in (True, False):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            say("nobody reads this")
            with Display(Console(file=stream, force_terminal=terminal), plan) as display:
                state.states[f"{plan.cells[0].fit_key}/{plan.cells[0].eval_key}"] = ("failed", str(terminal))
                display.update(state)
            say("nor this")
            assert stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)  # what it is given goes nowhere
    with pytest.raises(FileNotFoundError), heard_or_not():  # other errors are not swallowed
        (tmp_path / "gone").read_bytes()


def fit_to_the_end(cell: Cell, results: Path, patch: pytest.MonkeyPatch, stop: tuple[int, int] | None = None) -> Path:
    """Fit a cell, or up to an (epoch, batch); returns the folder of the fit."""

    def interrupt(self: Any, trainer: Any, module: Any, images: Any, step: int) -> None:
        if (trainer.current_epoch, step) == stop:
            raise Interrupted(signal.SIGTERM)

    store = Store(results)
    store.fit_folder(cell.fit_key).mkdir(parents=True, exist_ok=True)
    with patch.context() as inner, contextlib.suppress(Interrupted):
        if stop is not None:
            inner.setattr(callbacks.Guard, "on_train_batch_start", interrupt, raising=False)
        fit(cell, store, build_data(cell, results.parent))
    return store.fit_folder(cell.fit_key)


@pytest.mark.slow
def test_a_fit_goes_on_where_its_results_were_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a larger disk, say, after the best epoch: the best of the rest passed for it."""
    (tmp_path / "tiny.toml").write_text(TINY)
    for last in range(2, 8):  # which epoch is best hangs on the processor; here it must not be the last one
        cell = expand(load(tmp_path / "tiny.toml", [f"model.resnet18.epochs={last + 1}"]), tmp_path).cells[0]
        through = fit_to_the_end(cell, tmp_path / "through", monkeypatch)
        scores = pd.read_csv(through / "history.csv")["val_macro_f1"]
        if scores.argmax() < last:
            break
    assert scores.argmax() < last, scores
    fit_to_the_end(cell, tmp_path / "stopped", monkeypatch, stop=(last, 1))
    (tmp_path / "stopped").rename(tmp_path / "moved")
    moved = fit_to_the_end(cell, tmp_path / "moved", monkeypatch)
    pd.testing.assert_frame_equal(pd.read_csv(moved / "history.csv"), pd.read_csv(through / "history.csv"))
    assert (moved / "weights.safetensors").read_bytes() == (through / "weights.safetensors").read_bytes()

    stopped = fit_to_the_end(cell, tmp_path / "damaged", monkeypatch, stop=(last, 1))
    (best,) = (stopped / "checkpoints").glob("best-*.ckpt")
    best.write_bytes(best.read_bytes()[:1000])
    with pytest.raises(EmobenchError, match=rf"{best.name}, the weights of the best epoch, cannot be read"):
        fit_to_the_end(cell, tmp_path / "damaged", monkeypatch)
    again = fit_to_the_end(cell, tmp_path / "damaged", monkeypatch)  # from the beginning
    assert (again / "weights.safetensors").read_bytes() == (through / "weights.safetensors").read_bytes()


# ---- records and boards ----------------------------------------------------------------------------------------------


def test_predictions_with_other_columns_cost_their_row_only(tmp_path: Path) -> None:
    changes: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
        "no id": lambda table: table.drop(columns="id"),
        "ids of nobody": lambda table: table.assign(id=None),
        "ids of numbers": lambda table: table.assign(id=range(len(table))),
        "no subject": lambda table: table.drop(columns="subject"),
        "a table a subject": lambda table: table.assign(subject=[{"not": "hashable"}] * len(table)),
        "leaked is text": lambda table: table.assign(leaked="yes"),
        "copied is a table": lambda table: table.assign(copied=[{"a": 1}] * len(table)),
    }
    made = Results(tmp_path)
    for name, change in changes.items():  # before the good one, of whose faces a board says what all have in common
        path = made.cell(name, 0, 2.0) / "predictions.parquet"
        change(pd.read_parquet(path)).to_parquet(path)
    made.cell("good", 0, 3.0)
    board = made.write()
    reasons = {number.model: number.reason or "" for number in board.failed}
    assert reasons.keys() == changes.keys()
    assert all("predictions.parquet: cannot be read (" in reason for reason in reasons.values()), reasons
    assert [entry.name for entry in board.sections[0].compared["macro_f1"]] == ["good"]
    assert f"**Incomplete**: 1 of {len(changes) + 1} cells done." in board.path.read_text()


def test_verdicts_with_other_columns_cost_their_row_only(tmp_path: Path) -> None:
    changes: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
        f"no {name}": lambda table, name=name: table.drop(columns=name)
        for name in ("kind", "face", "asked", "row", "person", "half", "level", "read_1")
    }
    changes |= {
        "text for a level": lambda table: table.assign(level="strong"),
        "no number for a person": lambda table: table.assign(person=np.nan),
        "a table for a likeness": lambda table: table.assign(ssim=[{"a": 1}] * len(table)),
        "text for a reading": lambda table: table.assign(read_0="sad"),
    }
    board = Board(tmp_path)
    for name, change in changes.items():
        path = board.generator(name, 0.5) / "verdicts.parquet"
        change(pd.read_parquet(path)).to_parquet(path)
    board.generator("good", 0.9)
    board.write()
    assert {number.model for number in board.board.failed} == changes.keys()
    assert f"**Incomplete**: 1 of {len(changes) + 1} cells done." in board.text
    assert float(board.one(model="good", metric="control", emotion="macro").value) > 0.7


def test_a_header_of_weights_without_end_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for header in (b"[" * 100_000, b'{"a": []}', b"7", b""):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert not intact(path)
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")  # says that its header is larger than any disk
    assert not intact(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"metric,value,n\na,b", b"metric\na,b,c,d\n", None])
def test_a_damaged_table_of_numbers_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "metrics.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(StoreError, match=r"metrics\.csv: cannot be read \(.*`emobench report` writes it again"):
        read_board(tmp_path)
