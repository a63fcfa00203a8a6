"""What tests share: the real command in this process, whose cells start warm from one fork server."""

# ruff: noqa: E402

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import tempfile

gc.disable()  # until all tests are collected: what is imported stays
if "PYTEST_XDIST_WORKER" in os.environ:
    atexit.register(os._exit, 0)  # the last to be called: taking apart all that was imported takes five seconds

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # One core a process, and before torch counts its threads: those of two processes on the same cores wait for each
    # other by spinning, which made fits of a second take half a minute.
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(_cores)]})

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import Watched, watched_page
from filelock import FileLock
from safetensors.torch import load_file

from emobench.files import write_text

os.environ["EMOBENCH_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"  # before any library looks


def as_committed(results: Path) -> Path:
    """`results/` as it is committed, or staged, for what is said of these: `make bench` writes its own boards there."""
    changes = ["git", "status", "--porcelain", "--ignored", "--", "."]
    try:
        changed = subprocess.run(changes, cwd=results, capture_output=True, text=True, check=True).stdout
        staged = subprocess.run(["git", "ls-files", "-z"], cwd=results, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return results  # no clone of the repository
    if all(line[1] == " " for line in changed.splitlines()):
        return results
    copy = Path(tempfile.mkdtemp(prefix="committed-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    write = ["git", "checkout-index", "-z", "--stdin", f"--prefix={copy}/"]
    subprocess.run(write, cwd=results, input=staged, check=True)
    return copy / results.name


RESULTS = as_committed(Path(__file__).parents[1] / "results")

TINY_DATA = """
seeds = [0]

[data.synthetic-plain]
size = 32
train = 80
val = 80
test = 80
"""
TINY = f"""{TINY_DATA}
[model.resnet18]
width = 0.0625
batch = 16
epochs = 4
lr = 0.02
momentum = 0.8
step_size = 2
patience = "none"
"""


# Judges that can read, generators that have hardly been trained.
GENERATORS_SUITE = """
seeds = [0]

[data.synthetic-plain]
size = 32
train = 1280
val = 80
test = 640

[model.resnet18]
width = 0.25
batch = 32
epochs = 10
patience = "none"
lr = 0.05
schedule = "onecycle"
augment = "none"

[model.vit]
class = "vit-full"
weights = "none"
size = 32
dim = 64
depth = 2
heads = 4
patch = 8
dropout = 0.0
hidden = 64
batch = 32
epochs = 12
patience = "none"
oversample = 1.0
undersample = "none"
class_weights = "none"
loss = "cross-entropy"
lr = 2e-3
schedule = "onecycle"
augment = "none"

[model.cnn21]
padding = true
size = 32
dense = [64, 16]
batch = 32
epochs = 6
patience = "none"
lr = 2e-3
schedule = "onecycle"
oversample = 1.0
undersample = "none"
augment = "none"

[model.vgg16]
width = 0.0625
batch_norm = true
pool = 1
head = 32
batch = 32
epochs = 1
patience = "none"
augment = "none"

[model.cvae]
size = 32
width = 8
latent = 8
perceptual = "guide"
needs = { guide = "vgg16" }
epochs = 1

[model.vit_cvae]
size = 32
width = 8
latent = 8
dim = 32
depth = 1
heads = 2
perceptual = "none"
epochs = 1

[model.stargan]
size = 32
width = 8
blocks = 1
discriminator_width = 8
batch = 32
epochs = 1

[model.diffusion]
size = 32
channels = [8, 16]
layers = 1
patch = 2
sampling_steps = 2
guidance = 1.0
epochs = 1

[evaluation]
fidelity = 640
per_emotion = 8
sources = 16
intensity = 2
"""


SWEEPS = {"emobench", "both_ways", "generated", "tiny_results"}  # fixtures with which tests train networks


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that train through the command are slow, and `make test-quick` leaves them out."""
    used = set(getattr(item, "fixturenames", ()))
    if used & SWEEPS:
        item.add_marker(pytest.mark.slow)
    if used & {"generated", "tiny_results"}:  # whoever is first makes what is shared, and the others wait for it
        item.add_marker(pytest.mark.timeout(1200))


def pytest_collection_finish() -> None:
    """From here on garbage is collected again, but not looked for in what was imported."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Else libraries report as leaked what is left when the process ends; those of pytest-xdist end at once."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        gc.unfreeze()


def of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What reads the networks of a module's fixture is as slow as the first that wants them; and the wheel, which is
    last by its name and takes a minute, comes first, so that it does not run alone in the end.
    """
    items.sort(key=lambda item: item.path.name != "test_wheel.py")
    for item in items:
        if {"pair_once", "swept_once"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Packs are made once for all tests, and never in the user's own cache; nor are their files trusted outside."""
    folder = of_all_processes(tmp_path_factory) / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["EMOBENCH_CACHE"] = str(folder)
    os.environ["XDG_STATE_HOME"] = str(of_all_processes(tmp_path_factory) / "state")


@pytest.fixture
def emobench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`emobench(*arguments)` runs the command in this process and returns its exit code.

    Its board is written in the end: with the first cell too, it takes as long as the cell.
    """
    from emobench.cli import main
    from emobench.commands.bench import BoardFile

    monkeypatch.setattr(BoardFile, "AT_ONCE", 0)

    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return int(stop.value.code or 0)

    return run


@pytest.fixture
def snapshot() -> Callable[[Path], object]:
    """`snapshot(folder)` tells two states of a folder apart; not by access times, which reading moves."""

    def take(folder: Path) -> object:
        found = ((path, path.stat()) for path in [folder, *folder.rglob("*")])
        return {str(path): (state.st_size, state.st_mtime_ns) for path, state in found}

    return take


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A suite whose cells take about a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`both_ways(cell)` fits it in one go and once more with an interruption: weights and history of each."""
    from emobench.errors import Interrupted
    from emobench.runner import callbacks
    from emobench.runner import fit as fitting
    from emobench.runner.build import build_data
    from emobench.runner.store import Store

    def run(cell: Any, epoch: int = 2, batch: int = 4) -> dict[str, Any]:
        def interrupt(self: Any, trainer: Any, module: Any, images: Any, step: int) -> None:
            if (trainer.current_epoch, step) == (epoch, batch):
                raise Interrupted(15)

        ends = {}
        for kind in ("through", "stopped"):
            store = Store(tmp_path / kind)
            folder = store.fit_folder(cell.fit_key)
            folder.mkdir(parents=True)
            if kind == "stopped":
                with monkeypatch.context() as patch:
                    patch.setattr(callbacks.Guard, "on_train_batch_start", interrupt, raising=False)
                    with pytest.raises(Interrupted):
                        fitting.fit(cell, store, build_data(cell, tmp_path))
            fitting.fit(cell, store, build_data(cell, tmp_path))
            ends[kind] = load_file(store.weights(cell.fit_key)), pd.read_csv(folder / "history.csv")
        return ends

    return run


@pytest.fixture(scope="session")
def made_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = of_all_processes(tmp_path_factory) / "made.toml"
    write_text(path, GENERATORS_SUITE)
    return path


@pytest.fixture(scope="session")
def generated(made_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the whole suite, made once; tests that change something copy them."""
    return _made(made_suite)


@pytest.fixture(scope="session")
def tiny_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the tiny suite, likewise."""
    path = of_all_processes(tmp_path_factory) / "tiny.toml"
    write_text(path, TINY)
    return _made(path)


def _made(suite: Path) -> Path:
    """The results of a suite, made by the process that is here first."""
    from emobench.cli import main

    folder = suite.with_suffix("")
    with FileLock(suite.with_suffix(".lock")):
        if not (folder / "done").exists():
            with pytest.raises(SystemExit) as stop:
                main(["bench", str(suite), "--results", str(folder / "results")])
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("results/cells/*/log.txt"))
            assert not stop.value.code, logs
            (folder / "done").touch()
    return folder / "results"


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A page of a headless Chromium, which asks nobody but this machine; skipped where there is none."""
    with watched_page() as page:
        yield page


@pytest.fixture
def committed_boards() -> list[Path]:
    """The folders of the boards that are committed."""
    import spread  # of benchmarks/

    if not (RESULTS / "reference-recognition").exists():
        pytest.skip("the reference boards are not here")
    try:
        return [RESULTS / board.name for board in spread.committed()]
    except subprocess.CalledProcessError:
        pytest.skip("not a clone of the repository")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    found = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    host, port = found.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ALLOW_HTTP="true",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_REGION="us-east-1",
    )
    import boto3

    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket="faces")
    yield "s3://faces"
    found.stop()
    os.environ.clear()
    os.environ.update(before)
