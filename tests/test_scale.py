"""Many cells: what each costs does not grow with their number, and boards are brought up to date, not made anew."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perf.scale import GIGABYTE, LIBRARIES, PLAN, finish, fresh, limited, mixed, planned
from reading import pages
from rich.console import Console

from emobench.classifiers.classifier import parameters_of
from emobench.classifiers.vit import ViT
from emobench.commands import bench, live
from emobench.errors import SuiteError
from emobench.evaluation.tracks.recognition import Recognition
from emobench.metrics import intervals
from emobench.report import board
from emobench.report.memory import Memory
from emobench.report.write import write
from emobench.runner import reuse
from emobench.runner import sweep as sweeping
from emobench.runner.engines.engine import Engine
from emobench.runner.engines.local import Local
from emobench.runner.machine import Machines
from emobench.runner.run import Job
from emobench.runner.store import Origin, Store
from emobench.runner.sweep import sweep, write_suite
from emobench.runner.threads import Packing
from emobench.suite import expand as expanding
from emobench.suite import plan_cache, plugins
from emobench.suite.cell import Plan
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.keys import key

FACES = 64


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Counter[str]]:
    """`counted((module, name), ...)` counts the calls of functions from then on."""

    def count(*functions: tuple[Any, str]) -> Counter[str]:
        calls: Counter[str] = Counter()
        for owner, name in functions:
            before = getattr(owner, name)

            def noted(*args: Any, before: Any = before, name: str = name, **kwargs: Any) -> Any:
                calls[name] += 1
                return before(*args, **kwargs)

            monkeypatch.setattr(owner, name, noted)
        return calls

    return count


# ---- plans ----------------------------------------------------------------------------------------------------------


def test_networks_are_built_once_a_row_whatever_the_number_of_seeds_and_datasets(
    tmp_path: Path, counted: Callable[..., Counter[str]]
) -> None:
    calls = counted((expanding, "_weightless"), (expanding, "fit_code"), (expanding, "evaluation_code"))
    found = []
    for name, cells in (("few", 25), ("more seeds", 99), ("more datasets", 100)):
        (tmp_path / f"{name}.toml").write_text(mixed(cells))
        calls.clear()
        plan = expand(load(tmp_path / f"{name}.toml"), tmp_path)
        datasets = {cell.dataset for cell in plan.cells}
        found.append((len(plan.cells), len(datasets), dict(calls)))
        assert len({cell.fit_key for cell in plan.cells}) == len(plan.cells)  # each with its own seed and data
    (few, one, before), (more, still_one, after), (_, four, of_four) = found
    assert more > 2.5 * few
    assert (one, still_one, four) == (1, 1, 4)
    assert after == before
    assert of_four["_weightless"] == before["_weightless"]


def test_a_row_has_another_network_for_other_faces_and_emotions(tmp_path: Path) -> None:
    (tmp_path / "faces.toml").write_text(
        'seeds = [0]\n[data.faces]\nclass = "synthetic-plain"\nsize = 32\n'
        '[data.larger]\nclass = "synthetic-plain"\nsize = 48\n'
        '[data.fewer]\nclass = "synthetic-plain"\nsize = 32\nonly = ["happy", "sad"]\n'
        '[model.vit]\nclass = "vit-full"\nweights = "none"\ndim = 32\ndepth = 1\nheads = 2\npatch = 8\nsize = "none"\n'
        '[model.mean]\nclass = "ensemble"\nneeds = { members = ["vit"] }\n'
    )
    cells = expand(load(tmp_path / "faces.toml"), tmp_path).cells
    own = {cell.dataset: cell for cell in cells if cell.row == "vit"}
    assert (own["larger"].size, own["fewer"].emotions) == (48, ["happy", "sad"])
    for cell in own.values():
        network = ViT(emotions=cell.emotions, size=cell.size, **cell.fit["arguments"])
        assert cell.parameters == parameters_of(network)
    assert len({cell.parameters for cell in own.values()}) == 3
    assert {cell.parameters for cell in cells if cell.row == "mean"} == {0}


def test_a_plan_is_kept_under_its_key(tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_text(mixed(25))
    plan = expand(load(tmp_path / "some.toml"), tmp_path)
    plan_cache.keep(tmp_path / "plan.json", plan)
    found = plan_cache.kept(tmp_path / "plan.json")
    assert found == asdict(plan)
    text = (tmp_path / "plan.json").read_text()
    assert f'"digest": "{key(asdict(plan))}"' in text
    (tmp_path / "plan.json").write_text(text.replace('"seed":0', '"seed":1', 1))
    assert plan_cache.kept(tmp_path / "plan.json") is None
    plan_cache.keep(tmp_path / "plan.json", replace(plan, cells=[]))
    assert plan_cache.kept(tmp_path / "plan.json") == asdict(replace(plan, cells=[]))


def test_garbage_is_collected_again_after_a_plan(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where that fails; and not where it was not before."""
    seen = []

    def expanded(*arguments: Any) -> Plan:
        seen.append(gc.isenabled())
        raise SuiteError("no plan")

    monkeypatch.setattr(plan_cache, "expand", expanded)
    for before in (True, False):
        (gc.enable if before else gc.disable)()
        try:
            with pytest.raises(SuiteError, match="no plan"):
                plan_cache.plan_of(load(tiny), tmp_path, tmp_path / "cells")
            assert gc.isenabled() == before
        finally:
            gc.enable()
    assert seen == [False, False]


@pytest.mark.slow
def test_a_plan_of_ten_thousand_cells_takes_little_memory_beside_its_libraries(tmp_path: Path) -> None:
    """Of a gigabyte most is what importing the models takes, which nobody needs who takes the plan from the store."""
    (tmp_path / "many.toml").write_text(mixed(10_000))
    libraries = fresh(LIBRARIES)
    cold, kept = (fresh(PLAN, tmp_path / "many.toml", tmp_path / "results") for _ in "12")
    assert cold["cells"] == kept["cells"] >= 10_000
    assert cold["own_mb"] - libraries["own_mb"] < 100  # MiB; 160 with the syntax trees of the package
    assert kept["memory_mb"] < 300  # as long as neither torch nor the package's code is read


@pytest.mark.long
def test_a_plan_of_ten_thousand_cells_does_with_a_gigabyte(tmp_path: Path) -> None:
    """Of which the pages of its libraries that nobody else reads are a part. It is a limit: who takes more is ended."""
    (tmp_path / "many.toml").write_text(mixed(10_000))
    with limited(100_000_000) as group:
        if group is None:
            pytest.skip("this user cannot limit memory")
        with pytest.raises(subprocess.CalledProcessError):
            fresh("print(len(bytes(range(256)) * 1_000_000))", group=group)
    with limited() as group:
        found = fresh(PLAN, tmp_path / "many.toml", tmp_path / "results", group=group)
    assert found["cells"] >= 10_000
    assert found["own_mb"] < GIGABYTE / 2**20


# ---- sweeps ---------------------------------------------------------------------------------------------------------


class AtOnce(Engine):
    """Whose jobs have ended as soon as they are started."""

    name = "at once"

    def start(self, job: Job) -> int:
        finish(job.results, job.cell, 1.0, faces=8)
        return 0

    def poll(self, started: int) -> int:
        return started

    def wait(self, started: object) -> None:
        pass


def swept(folder: Path, cells: int, engine: Engine | None = None, own: Path | None = None) -> Plan:
    folder.mkdir(exist_ok=True)
    plan, _ = planned(folder, cells)
    plugins.use({} if own is None else {str(own): None})
    display = live.Display(Console(file=open(os.devnull, "w")), plan)  # noqa: SIM115
    state = sweep(
        plan,
        plan.cells,
        folder / "results",
        folder / "data",
        engine=engine or AtOnce(),
        packing=Packing(1, 1, Machines(1, 0, 8)),
        workers=0,
        redo=False,
        tracking=None,
        remote=None,
        on_change=display.update,
        on_tick=display.update,
    )
    assert {state.state(cell)[0] for cell in plan.cells} == {"done"}
    return plan


def test_a_cell_that_ends_costs_the_same_in_a_sweep_of_any_length(
    tmp_path: Path, counted: Callable[..., Counter[str]]
) -> None:
    calls = counted(
        (sweeping, "read_record"), (sweeping, "_place"), (reuse, "read_record"), (reuse, "read_finished"),
        (reuse.Reuse, "needed"), (reuse.Reuse, "remade"), (live, "_state"),
    )  # fmt: skip
    each = {}
    for cells in (20, 80):
        calls.clear()
        plan = swept(tmp_path / str(cells), cells)
        each[len(plan.cells)] = {name: count / len(plan.cells) for name, count in calls.items()}
    few, more = each.values()
    assert few.keys() == more.keys() >= {"read_record", "_place", "_state"}
    for name, count in more.items():
        assert count < 1.2 * few[name], (name, few[name], count)


def test_an_edit_of_a_suites_own_file_reaches_no_cell_of_the_sweep_that_runs(tmp_path: Path) -> None:
    """Each has the digest of what the keys speak of, by which its process refuses the edited file."""
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    planned, jobs = hashlib.sha256(path.read_bytes()).hexdigest(), []

    class Edited(AtOnce):
        def start(self, job: Job) -> int:
            jobs.append(job)
            path.write_text(f"x = {len(jobs) + 1}\n")
            return super().start(job)

    try:
        plan = swept(tmp_path, 20, Edited(), path)
    finally:
        plugins.use({})
    assert [job.plugins for job in jobs] == [{str(path): planned}] * len(plan.cells)


def test_a_long_table_shows_what_fits_the_screen(tmp_path: Path) -> None:
    plan, _ = planned(tmp_path, 100)
    console = Console(force_terminal=True, width=100, height=20, file=open(os.devnull, "w"))  # noqa: SIM115
    state = sweeping.Sweep(plan, Store(tmp_path), list(plan.cells), list(plan.cells))
    for cell in plan.cells[:30]:
        state.waiting.remove(cell)
        state.note(cell, "done")
    state.running.append(sweeping.Running(state.waiting.pop(0), None, time.monotonic()))
    shown = live.Display(console, plan)._shown(state)
    assert len(shown) == 14
    assert state.running[0].cell in shown
    assert {state.state(cell)[0] for cell in shown} == {"done", "pending"}
    assert shown == [cell for cell in plan.cells if any(cell is each for each in shown)]


# ---- boards ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Plan]:
    """A board of 10 rows and 3 seeds, of which the last cell is still to come, and that counts as one of many."""
    monkeypatch.setattr(board, "AT_ONCE", 4)
    plan, origin = planned(tmp_path, 100)
    cells = [cell for cell in plan.cells if cell.control is None and cell.seed < 3]
    plan = replace(plan, cells=cells)
    write_suite(tmp_path / "results", plan, origin)
    for cell in plan.cells[:-1]:
        finish(tmp_path / "results", cell, 1.0 + 50 * cell.fit["arguments"]["lr"], FACES)
    return tmp_path / "results", plan


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def test_a_board_brought_up_to_date_is_the_one_made_anew(
    some: tuple[Path, Plan], counted: Callable[..., Counter[str]]
) -> None:
    """After a further cell, after one that was evaluated again, and after one whose file was damaged."""
    results, plan = some
    memory = Memory()
    write(results, plan.suite, memory)
    calls = counted((Recognition, "read"))

    def compared() -> int:
        calls.clear()
        write(results, plan.suite, memory)
        read, updated = calls["read"], files(results / plan.suite)
        write(results, plan.suite)
        assert files(results / plan.suite) == updated
        return read

    *_, other, last = plan.cells
    finish(results, last, 1.5, FACES)
    assert compared() <= 3 + 1  # the seeds of its row, and the first of the board
    assert calls["read"] >= len(plan.cells)  # anew: all
    folder = Store(results).eval_folder(other.fit_key, other.eval_key)
    for path in (*folder.iterdir(), folder.parent / "fit.json"):
        path.unlink()
    folder.rmdir()
    finish(results, other, 0.5, FACES)
    assert compared() <= 3 + 1
    assert compared() <= 1
    (folder / "predictions.parquet").write_bytes(b"damaged")
    assert compared() < len(plan.cells) / 2  # others may be too near each other by now, and are resampled more often
    assert "predictions.parquet" in pages(results / plan.suite)


def test_of_many_cells_each_is_read_once_for_its_numbers(
    some: tuple[Path, Plan], counted: Callable[..., Counter[str]]
) -> None:
    results, plan = some
    calls = counted((Recognition, "read"))
    write(results, plan.suite)
    assert len(plan.cells) - 1 <= calls["read"] <= 2 * len(plan.cells)  # and once for its slices


def test_of_many_rows_one_that_saw_other_faces_is_left_out(some: tuple[Path, Plan]) -> None:
    results, plan = some
    first = plan.cells[0].row
    before = {entry.name: entry for entry in write(results, plan.suite).sections[0].entries}
    for cell in (cell for cell in plan.cells if cell.row == first):
        shutil.rmtree(results / "cells" / cell.fit_key)
        shutil.rmtree(results / plan.suite / "cells" / cell.eval_key)
        finish(results, cell, 1.0, FACES - 8)
    after = {entry.name: entry for entry in write(results, plan.suite).sections[0].entries}
    assert (before[first].seeds, after[first].seeds) == ([0, 1, 2], [])
    assert {number.value for number in after[first].numbers.values()} == {None}
    assert "measured on other test faces" in pages(results / plan.suite)
    for name in after.keys() - {first}:
        assert after[name].numbers == before[name].numbers


def test_many_models_are_compared_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    faces = random.normal(size=(500, 1))
    values = [random.normal(place / 20, 0.1, 3) for place in range(40)]
    draws = [each + 0.2 * faces + 0.1 * random.normal(size=(500, 3)) for each in values]

    def more(models: Any, resamples: int) -> Iterator[np.ndarray]:
        return (np.tile(draws[model], (resamples // 500, 1)) for model in models)

    together = intervals.compare(values, draws, 50, more)
    monkeypatch.setattr(intervals, "_MANY", 1000)
    apart = intervals.compare(values, draws, 50, more)
    assert len(together) == len(apart) == 780
    assert [pair.certain for pair in together] == [pair.certain for pair in apart]
    np.testing.assert_allclose([pair.p for pair in together], [pair.p for pair in apart], rtol=1e-6)
    for name in ("low", "high"):
        ends = ([getattr(pair, name) for pair in pairs] for pairs in (together, apart))
        np.testing.assert_allclose(*ends, rtol=1e-6, atol=1e-9)


def test_boards_are_written_once_a_minute_and_in_a_twentieth_of_the_time(
    some: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now, takes, written = [1000.0], [1.0], []

    def writes(*arguments: object) -> None:
        now[0] += takes[0]
        written.append(now[0])

    def run(seconds: int) -> list[float]:
        """The times that pass between the boards of a sweep whose cells take 10 ms."""
        del written[:-1]
        ends = now[0] + seconds
        while now[0] < ends:
            now[0] += 0.01
            file.changed()
        return list(np.diff(written))

    results, plan = some
    monkeypatch.setattr(bench.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("emobench.report.write.write", writes)
    file = bench.BoardFile(results, plan, Origin.of(load(tmp_path / "board.toml"), results))
    file.write()
    file.changed()
    assert len(written) == 2  # with the first cell at once
    file.changed()
    assert len(written) == 2
    assert run(200) == pytest.approx([61, 61, 61], abs=0.1)
    takes[0] = 10.0
    assert run(500)[1:] == pytest.approx([200, 200], abs=0.1)
    file.changed()
    assert file.due
    now[0] += 200
    file.write_if_due()
    assert not file.due


# ---- the local engine -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_waits_for_a_job_costs_none(tiny: Path, tmp_path: Path) -> None:
    plan = expand(load(tiny), tmp_path / "data")
    engine = Local()
    for place, (cell, before) in enumerate(zip(plan.cells, (signal.SIGKILL, signal.SIGSTOP), strict=True)):
        process, _ = engine._forked()
        engine.ahead[:] = [(process, _)]
        os.kill(process.pid, before)
        if before == signal.SIGKILL:
            process.join()
        started = engine.start(Job(cell, tmp_path / str(place), tmp_path / "data"))
        assert started is not None
        if before == signal.SIGSTOP:
            os.kill(process.pid, signal.SIGKILL)
        while (code := engine.poll(started)) is None:
            engine.wait([started])
        assert code == 0
    waiting = engine.ahead[0][0]
    assert waiting.exitcode is None
    del engine
    waiting.join(timeout=20)
    assert waiting.exitcode == 0  # with the engine goes what waits for a job
