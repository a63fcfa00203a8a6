"""The Inception weights fetch themselves: from a server on this machine, which sends a file of the tests' own."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from made_records import made_fit

from emobench.errors import WeightsError
from emobench.metrics import inception
from emobench.nn.weights import read_weights
from emobench.runner import fetch
from emobench.runner import run as runner
from emobench.runner.record import Fit, Record, read_record
from emobench.runner.run import Job
from emobench.runner.store import Store, load_board
from emobench.runner.sweep import trusting
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load

CONTENT = b"what the tests' own server calls the Inception weights" * 1000
NOWHERE = """
from emobench.runner.engines.engine import Engine


class Nowhere(Engine):
    \"""Every job fails at once, so that a sweep shows what was planned, and no more.\"""

    name = "nowhere"

    def start(self, job):
        return 1

    def poll(self, started):
        return 1

    def stop(self, started, *, at_once=False):
        pass

    def wait(self, started):
        pass
"""


class Server(ThreadingHTTPServer):
    """Sends `content` as it is told to; counts what it is asked for."""

    content = CONTENT
    length: int | None = None  # that it promises; None: the right one
    delay = 0.0  # seconds before it says anything
    status = 200
    asked = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.length or len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has the published file, where downloads are allowed and torch hub's folder is empty."""
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(inception, "URL", f"http://127.0.0.1:{server.server_port}/{inception.FILE}")
        monkeypatch.setattr(inception, "PUBLISHED", hashlib.sha256(CONTENT).hexdigest()[:8])
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
        for name in ("EMOBENCH_WEIGHTS", "EMOBENCH_OFFLINE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """A suite with a generator, and an engine beside it whose cells fail at once."""
    (tmp_path / "nowhere.py").write_text(NOWHERE)
    suite = tmp_path / "drawing.toml"
    suite.write_text("""
panel = ["resnet18", "vgg16"]
reader = "cnn21"

[data.synthetic-plain]
size = 32
train = 80
val = 80
test = 640

[model.resnet18]
width = 0.0625

[model.vgg16]
width = 0.0625

[model.cnn21]
padding = true
size = 32
dense = [64, 16]

[model.cvae]
size = 32
width = 8
perceptual = "none"
""")
    return suite


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_it_comes_whole_and_checked_to_where_it_is_found(server: Server) -> None:
    assert inception.find().path is None
    path = fetch.fetch_inception()
    assert path.read_bytes() == CONTENT
    assert inception.find() == inception.InceptionFile(path, hashlib.sha256(CONTENT).hexdigest(), None)
    assert left(path.parent) == [inception.FILE]


@pytest.mark.parametrize("terminal", [True, False])
def test_on_a_terminal_its_progress_is_shown(
    terminal: bool, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    fetch.fetch_inception()
    shown = capsys.readouterr().err
    assert ("100%" in shown) == terminal
    assert bool(shown) == terminal  # a log has no use for it


def test_several_at_once_fetch_it_once(server: Server) -> None:
    server.delay = 0.2
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch.fetch_inception())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert server.asked == 1


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"content": b"<html>Please log in</html>"}, "invalid hash value"),
        ({"content": CONTENT[:5000], "length": len(CONTENT)}, "invalid hash value"),
        ({"status": 404}, "404"),
        ({"delay": 1.0}, "timed out"),
    ],
    ids=["another file", "half of it", "not there", "silent"],
)
def test_what_is_not_the_file_never_stands_in_its_place(
    server: Server, how: dict[str, object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    for name, value in how.items():
        setattr(server, name, value)
    with pytest.raises(WeightsError, match=says) as raised:
        fetch.fetch_inception()
    assert f"put {inception.FILE} from {inception.URL} into {inception.places()[-1].parent}" in str(raised.value)
    assert left(inception.places()[-1].parent) == []
    assert socket.getdefaulttimeout() is None


def test_what_a_killed_process_left_is_cleared_away(server: Server) -> None:
    folder = inception.places()[-1].parent
    folder.mkdir(parents=True)
    (folder / f"{inception.FILE}.0123.partial").write_bytes(CONTENT[:99])
    (folder / "another.pth.0123.partial").write_bytes(b"somebody else's")
    fetch.fetch_inception()
    assert left(folder) == ["another.pth.0123.partial", inception.FILE]


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="Not a directory"):
        fetch.fetch_inception()


def test_a_sweep_fetches_before_its_first_cell_and_plans_with_it(
    server: Server, drawing: Path, emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, engine = tmp_path / "results", f"{tmp_path}/nowhere.py:Nowhere"
    emobench("bench", drawing, "--results", results, "--dry-run")
    assert f"Downloads: {fetch.INCEPTION}" in capsys.readouterr().out
    assert server.asked == 0
    emobench("bench", drawing, "--results", results, "--engine", engine)
    assert capsys.readouterr().out.count(f"fetching {fetch.INCEPTION}, from {inception.URL}") == 1
    (cvae,) = (cell for cell in load_board(results, "drawing") if cell.row == "cvae")
    assert cvae.record is not None
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert cvae.record.made_of.eval["files"]["inception"] == {"sha256": sha256, "reason": None}
    emobench("bench", drawing, "--results", results, "--engine", engine)
    emobench("bench", drawing, "--results", results, "--dry-run")
    assert "Downloads: none" in capsys.readouterr().out
    assert server.asked == 1


def measured_with(results: Path, row: str = "cvae") -> str | None:
    """The sha256 of the Inception weights that the board's row was planned with."""
    (found,) = (cell for cell in load_board(results, "drawing") if cell.row == row)
    assert found.record is not None
    sha256: str | None = found.record.made_of.eval["files"]["inception"]["sha256"]
    return sha256


def test_half_a_file_in_its_place_is_said_and_replaced(
    server: Server, drawing: Path, emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = inception.places()[-1]
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:5000])
    results, options = tmp_path / "results", ("--engine", f"{tmp_path}/nowhere.py:Nowhere")
    emobench("bench", drawing, "--results", results, "--dry-run")
    assert f"Downloads: {fetch.INCEPTION}" in capsys.readouterr().out
    server.status = 404
    emobench("bench", drawing, "--results", results, *options)
    assert "could not be fetched" in capsys.readouterr().err
    assert path.read_bytes() == CONTENT[:5000]  # nothing else is there to take its place
    assert measured_with(results) is None
    server.status = 200
    emobench("bench", drawing, "--results", results, *options)
    assert capsys.readouterr().out.count(f"{path} is not the published file, and is replaced") == 1
    assert path.read_bytes() == CONTENT
    assert measured_with(results) == hashlib.sha256(CONTENT).hexdigest()


def test_without_downloads_half_a_file_is_said(
    server: Server, drawing: Path, emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = inception.places()[-1]
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:5000])
    monkeypatch.setenv("EMOBENCH_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    engine = f"{tmp_path}/nowhere.py:Nowhere"
    emobench("bench", drawing, "--results", tmp_path / "results", "--engine", engine)
    assert f"are not here ({path} is another file, or not whole), and downloads are off" in capsys.readouterr().out
    assert path.read_bytes() == CONTENT[:5000]


@pytest.mark.parametrize("hidden", [True, False])
def test_another_file_in_a_folder_that_is_named_is_said_and_left_alone(
    hidden: bool,
    server: Server,
    drawing: Path,
    emobench: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fetch.fetch_inception()
    if not hidden:
        whole.unlink()
    mine = tmp_path / "mine" / inception.FILE
    mine.parent.mkdir()
    mine.write_bytes(b"another file")
    monkeypatch.setenv("EMOBENCH_WEIGHTS", str(mine.parent))
    engine = f"{tmp_path}/nowhere.py:Nowhere"
    emobench("bench", drawing, "--results", tmp_path / "results", "--engine", engine)
    shown = capsys.readouterr().err
    how = f"It hides {whole}, which is whole: delete it" if hidden else "Delete it, and the next run fetches them"
    assert f"{mine} is not the published Inception weights, so FID, KID and IS stay empty. {how}" in shown
    assert mine.read_bytes() == b"another file"
    assert server.asked == 1


def test_cells_that_are_not_committed_are_measured_with_it_though_others_are_trusted(
    server: Server, drawing: Path, emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, trusted = tmp_path / "results", ("--on-existing", "trust")
    emobench("bench", drawing, "--results", results, *trusted, "--dry-run")
    assert f"Downloads: {fetch.INCEPTION}" in capsys.readouterr().out
    emobench("bench", drawing, "--results", results, *trusted, "--engine", f"{tmp_path}/nowhere.py:Nowhere")
    assert server.asked == 1
    assert measured_with(results) == hashlib.sha256(CONTENT).hexdigest()


def test_a_committed_cell_is_trusted_whether_or_not_it_was_measured_with_it(
    server: Server, drawing: Path, tmp_path: Path
) -> None:
    def cvae() -> Cell:
        plan = trusting(tmp_path / "results", expand(load(drawing), tmp_path))
        return next(cell for cell in plan.cells if cell.row == "cvae")

    without = cvae()
    path = tmp_path / "results" / "drawing" / "cells" / "it" / "result.json"
    path.parent.mkdir(parents=True)
    for known in (True, False):
        fetch.fetch_inception()
        with_it = cvae()
        assert with_it.eval_key != without.eval_key
        Record.of(with_it if known else without, "done", fit=Fit.model_validate(made_fit())).write(path)
        for there in (True, False):
            if not there:
                inception.places()[-1].unlink()
            assert cvae().eval_key == (with_it if known else without).eval_key
        path.unlink()


@pytest.mark.parametrize("how", ["--offline", "no network"])
def test_without_a_network_it_says_so_once_and_goes_on(
    how: str,
    server: Server,
    drawing: Path,
    emobench: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--offline"] if how == "--offline" else []
    if not options:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setattr(inception, "URL", f"http://127.0.0.1:{free.getsockname()[1]}/{inception.FILE}")
    monkeypatch.setenv("EMOBENCH_OFFLINE", "")  # `--offline` sets it, and what is set here is put back
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    engine = f"{tmp_path}/nowhere.py:Nowhere"
    emobench("bench", drawing, "--results", tmp_path / "results", "--engine", engine, *options)
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("FID, KID and IS stay empty") == 1
    assert server.asked == 0
    (cvae,) = (cell for cell in load_board(tmp_path / "results", "drawing") if cell.row == "cvae")
    assert cvae.record is not None
    assert cvae.record.made_of.eval["files"]["inception"]["sha256"] is None


def test_a_machine_that_lacks_what_a_cell_was_planned_with_fetches_it_before_the_cell(
    server: Server, drawing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch.fetch_inception()
    cvae = next(cell for cell in expand(load(drawing), tmp_path).cells if cell.row == "cvae")
    path = inception.places()[-1]
    path.unlink()  # as on a node that has a home of its own
    done: list[str] = []
    monkeypatch.setattr(runner, "fit", lambda *_, **__: done.append("fit" if path.exists() else "fit without") or True)
    monkeypatch.setattr(runner, "evaluate", lambda *_: done.append("evaluate"))
    job, store = Job(cvae, tmp_path / "results", tmp_path), Store(tmp_path / "results")
    for name in ("EMOBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # which a job sets that is offline

    def failed(job: Job) -> str:
        assert runner.execute(job) == 1
        return str(read_record(store.fit_folder(cvae.fit_key) / "fit.json").reason)

    assert re.search(
        "is not on .*, where this cell runs, and downloads are off", failed(dataclasses.replace(job, offline=True))
    )
    for name in ("EMOBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    server.status = 404
    assert re.search("404.*, where this cell runs, does not have them, by which it is measured", failed(job))
    assert done == []
    server.status = 200
    assert runner.execute(job) == 0
    assert done == ["fit", "evaluate"]
    assert server.asked == 3
    assert runner.execute(job) == 0
    assert server.asked == 3


def test_jobs_know_whether_anything_may_be_downloaded(
    drawing: Path, emobench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "def start(self, job):\n        open('offline', 'a').write(f'{job.plain()[\"offline\"]} ')\n"
    (tmp_path / "nowhere.py").write_text(NOWHERE.replace("def start(self, job):\n", said))
    monkeypatch.chdir(tmp_path)
    for name in ("EMOBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    emobench("bench", drawing, "--engine", "nowhere.py:Nowhere", "--offline")
    assert {*(tmp_path / "offline").read_text().split()} == {"True"}


def test_a_suite_without_generators_fetches_nothing(
    server: Server, tiny: Path, emobench: Callable[..., int], tmp_path: Path
) -> None:
    (tmp_path / "nowhere.py").write_text(NOWHERE)
    emobench("bench", tiny, "--results", tmp_path / "results", "--engine", f"{tmp_path}/nowhere.py:Nowhere")
    assert server.asked == 0


def test_doctor_says_what_a_run_would_do(
    server: Server, emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emobench("doctor", "--data", tmp_path)
    assert "A run that has generators downloads it" in capsys.readouterr().out
    path = fetch.fetch_inception()
    emobench("doctor", "--data", tmp_path)
    assert f"Inception (FID, KID, IS): found, {path}" in capsys.readouterr().out
    path.write_bytes(b"another file")
    emobench("doctor", "--data", tmp_path)
    shown = capsys.readouterr().out
    assert f"USELESS, {path} is not the published Inception weights" in shown
    assert ". A run that has generators replaces it" in shown


def test_the_file_that_is_fetched_is_read_as_any_other(server: Server, tmp_path: Path) -> None:
    """It is looked at as tensors only, even if the server's file has the hash that is expected."""
    with pytest.raises(WeightsError, match="refused|cannot be read"):
        read_weights(fetch.fetch_inception())
