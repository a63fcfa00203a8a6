"""Several machines on one folder of results: leases that end with their holders, and results that one of them made."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from emobench import files
from emobench.files import COMMIT, Attempt, attempts, complete, published, read_json, restore
from emobench.runner import lease as leases
from emobench.runner import run as running
from emobench.runner import store as storing
from emobench.runner.lease import FILE, FilePlace, Lease, has_lease, lease
from emobench.runner.record import finished, read_record
from emobench.runner.store import HELD, Store, sha256_of
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load

ELSEWHERE = {"holder": "another", "host": "another machine", "pid": 1, "count": 7}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed, and taken for given up, fifty times as fast."""
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(leases, "PATIENCE", 0.6)


def written(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def make(target: Path, content: str, before: str | None = None) -> bool:
    """An attempt from its start to its end."""
    with Attempt.at(target, before) as attempt:
        written(attempt.folder, "weights", content)
        written(attempt.folder, "record.json", f"record of {content}")
        return attempt.publish("record.json")


def there(target: Path) -> dict[str, str]:
    return {
        path.name: path.read_text() for path in target.iterdir() if path.is_file() and path.name not in (COMMIT, FILE)
    }


# ---- attempts --------------------------------------------------------------------------------------------------------


def test_of_two_attempts_the_first_to_publish_is_there_and_the_other_leaves_nothing(tmp_path: Path) -> None:
    with Attempt.at(tmp_path, None) as slow:
        written(slow.folder, "weights", "slow")
        written(slow.folder, "record.json", "record of slow")
        assert make(tmp_path, "fast")
        assert not slow.publish("record.json")
    assert there(tmp_path) == {"weights": "fast", "record.json": "record of fast"}


def test_what_another_process_completes_meanwhile_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder goes between the look at it and the list of its files."""
    target = tmp_path / "target"
    target.mkdir()
    with Attempt.at(target, None) as mine:
        written(mine.folder, "record.json", "mine")
        real, asked = Path.is_dir, []

        def gone(path: Path) -> bool:
            found = real(path)
            if path == mine.folder and found:
                asked.append(path)
                shutil.rmtree(path)
            return found

        monkeypatch.setattr(Path, "is_dir", gone)
        assert mine.publish("record.json")
    assert asked
    assert (target / "record.json").read_text() == "mine"


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_many_at_once_make_one(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever publishes first, its weights and its record stand together; also where files have one name only."""
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(files.os, "link", refuse)
    for trial in range(20):
        target = tmp_path / str(trial)
        target.mkdir()
        barrier, won = threading.Barrier(4), []

        def attempt(name: str, target: Path = target, barrier: Any = barrier, won: list[str] = won) -> None:
            with Attempt.at(target, None) as mine:
                written(mine.folder, "weights", name)
                written(mine.folder, "record.json", f"record of {name}")
                barrier.wait()
                if mine.publish("record.json"):
                    won.append(name)

        threads = [threading.Thread(target=attempt, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        complete(target)
        assert len(won) == 1
        assert there(target) == {"weights": won[0], "record.json": f"record of {won[0]}"}


@pytest.mark.parametrize("before", ["weights", "record.json", "the end"])
def test_what_a_killed_process_had_begun_to_publish_is_finished_by_the_next(before: str, tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_killed_while_it_publishes, args=(tmp_path, before))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert ("record.json" in there(tmp_path)) == (before == "the end")
    (left,) = attempts(tmp_path)
    complete(tmp_path)
    begun = list(tmp_path.glob("*.tmp"))  # `Store.tidy` deletes it
    assert len(begun) == (before == "record.json")
    for path in begun:
        path.unlink()
    assert there(tmp_path) == {"weights": "first", "record.json": "record of first"}
    assert not left.exists()
    assert not make(tmp_path, "second")  # it began when nothing was there


def _killed_while_it_publishes(target: Path, before: str) -> None:
    def replace(source: Path, path: Path) -> None:
        if path == target / before:
            os.kill(os.getpid(), signal.SIGKILL)
        os.rename(source, path)

    def rmtree(*_: object, **__: object) -> None:
        if (target / "record.json").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace, files.shutil.rmtree = replace, rmtree  # type: ignore[assignment]
    make(target, "first")


def test_an_attempt_takes_the_place_of_the_one_that_it_knew_and_of_no_other(tmp_path: Path) -> None:
    make(tmp_path, "first")
    first = published(tmp_path)
    assert make(tmp_path, "second", before=first)
    assert there(tmp_path)["weights"] == "second"
    assert not make(tmp_path, "third", before=first)  # which is no longer there
    assert there(tmp_path) == {"weights": "second", "record.json": "record of second"}


def test_a_damaged_commit_is_taken_for_none(tmp_path: Path) -> None:
    make(tmp_path, "first")
    for damage in ("", "{", "[]", '{"schema_version": 1}', '{"schema_version": 1, "attempt": "../x", "record": "r"}'):
        (tmp_path / COMMIT).write_text(damage)
        complete(tmp_path)
        assert make(tmp_path, f"after {damage}", before=published(tmp_path))
        assert there(tmp_path)["weights"] == f"after {damage}"


def test_a_failure_never_stands_over_what_another_process_has_finished(tmp_path: Path) -> None:
    seen = published(tmp_path)
    make(tmp_path, "done")  # between a look at the record and the writing of a failure
    written(tmp_path, "record.json", "a failure")
    restore(tmp_path, seen)
    assert there(tmp_path)["record.json"] == "record of done"
    written(tmp_path, "record.json", "a failure of a later run")
    restore(tmp_path, published(tmp_path))
    assert there(tmp_path)["record.json"] == "a failure of a later run"


def held(folder: Path) -> AbstractContextManager[Lease | None]:
    """The lease of a folder whose lock this process has."""
    return lease(FilePlace(folder / FILE), locked=True)


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_a_lease_counts_while_it_is_held_and_is_gone_afterwards(impatient: None, tmp_path: Path) -> None:
    with held(tmp_path) as mine:
        assert mine is not None
        first = json.loads((tmp_path / FILE).read_text())["count"]
        time.sleep(0.5)
        assert json.loads((tmp_path / FILE).read_text())["count"] >= first + 2
        assert not mine.lost
        assert not has_lease(tmp_path)
    assert there(tmp_path) == {}


def test_one_of_another_machine_holds_while_it_counts(impatient: None, tmp_path: Path) -> None:
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            written(tmp_path, f"{FILE}.new", json.dumps({**ELSEWHERE, "count": number}))
            os.replace(tmp_path / f"{FILE}.new", tmp_path / FILE)

    thread = threading.Thread(target=count)
    thread.start()
    time.sleep(0.3)
    with held(tmp_path) as mine:
        assert mine is None
    assert has_lease(tmp_path)
    stop.set()
    thread.join()


@pytest.mark.parametrize("left", [json.dumps(ELSEWHERE), "{", "[]"], ids=["another machine's", "half", "a list"])
def test_one_that_stands_still_is_taken_over_and_by_nobody_before(left: str, impatient: None, tmp_path: Path) -> None:
    written(tmp_path, FILE, left)
    began = time.monotonic()
    with held(tmp_path) as mine:
        assert mine is not None
        assert time.monotonic() - began >= leases.PATIENCE
        assert json.loads((tmp_path / FILE).read_text())["host"] == leases.host()


def test_one_that_a_killed_process_of_this_machine_left_is_taken_over_at_once(tmp_path: Path) -> None:
    written(tmp_path, FILE, json.dumps({**ELSEWHERE, "host": leases.host()}))
    began = time.monotonic()
    with held(tmp_path) as mine:
        assert mine is not None
    assert time.monotonic() - began < 5 < leases.PATIENCE


@pytest.mark.parametrize("operation", ["read", "write"])
def test_a_place_that_cannot_be_reached_for_a_moment_costs_no_holder_its_cell(
    operation: str, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = getattr(FilePlace, operation), []

    def once(self: FilePlace, *content: bytes) -> Any:
        if len(failed) < 2:
            failed.append(operation)
            raise OSError("stale file handle")
        return real(self, *content)

    with held(tmp_path) as mine:
        assert mine is not None
        monkeypatch.setattr(FilePlace, operation, once)
        first = json.loads((tmp_path / FILE).read_text())["count"]
        time.sleep(0.8)
        assert len(failed) == 2
        assert not mine.lost
        assert json.loads((tmp_path / FILE).read_text())["count"] > first


def test_without_locks_the_lease_is_enough(impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none: the first has the cell, another one has not, and who comes after it has."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(storing.fcntl, "flock", no_locks)
    store = Store(tmp_path)
    with store.lock("cell") as first, store.lock("cell") as second:
        assert first is not None
        assert second is None
    with store.lock("cell") as third:
        assert third is not None


def test_a_link_whose_answer_was_lost_is_this_process_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS asks again, and is told that there is one."""
    real = os.link

    def twice(source: Path, path: Path) -> None:
        real(source, path)
        real(source, path)

    monkeypatch.setattr(files.os, "link", twice)
    assert make(tmp_path, "first")
    assert not make(tmp_path, "second")
    assert there(tmp_path)["weights"] == "first"


def test_clocks_do_not_matter(impatient: None, tmp_path: Path) -> None:
    """Its file may be of tomorrow, or a year old."""
    for days in (1, -365):
        written(tmp_path, FILE, json.dumps(ELSEWHERE))
        os.utime(tmp_path / FILE, (time.time() + days * 86400,) * 2)
        began = time.monotonic()
        with held(tmp_path) as mine:
            assert mine is not None
        assert time.monotonic() - began >= leases.PATIENCE


# ---- cells -----------------------------------------------------------------------------------------------------------


def planned(tiny: Path, tmp_path: Path) -> Cell:
    return expand(load(tiny), tmp_path).cells[0]


def job(cell: Cell, results: Path) -> running.Job:
    return running.Job(cell, results, results.parent)


def test_a_process_whose_lease_was_taken_over_ends_and_says_that_the_cell_is_held(
    impatient: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, store = planned(tiny, tmp_path), Store(tmp_path / "results")

    def taken_over(*_: object) -> None:
        written(store.fit_folder(cell.fit_key), FILE, json.dumps(ELSEWHERE))
        time.sleep(30)

    monkeypatch.setattr(running, "run", taken_over)
    began = time.monotonic()
    assert running.execute(job(cell, store.results)) == HELD
    assert time.monotonic() - began < 20
    assert not (store.fit_folder(cell.fit_key) / "fit.json").exists()  # the other process writes it
    assert json.loads((store.fit_folder(cell.fit_key) / FILE).read_text()) == ELSEWHERE


@pytest.mark.slow
def test_a_paused_holder_that_wakes_after_takeover_changes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that fit and evaluate a cell at once, the first makes its record; the other ends well, and is not seen."""
    cell, store = planned(tiny, tmp_path), Store(tmp_path / "results")
    folder = store.fit_folder(cell.fit_key)
    ours = running.fit
    shown: dict[str, object] = {}

    def both(*arguments: Any, **options: Any) -> bool:
        """While this one is about to publish, the other goes the whole way."""
        publish = Attempt.publish

        def late(self: Attempt, record: str) -> bool:
            monkeypatch.setattr(Attempt, "publish", publish)
            monkeypatch.setattr(running, "fit", ours)
            running.run(job(cell, store.results), store)
            shown.update(
                weights=sha256_of(store.weights(cell.fit_key)),
                fit=(folder / "fit.json").read_text(),
                result=(folder / cell.eval_key / "result.json").read_text(),
            )
            self.folder.mkdir(exist_ok=True)  # the other process, whose cell this is by now, has tidied up
            (self.folder / record).write_text("of the one that was paused")
            return publish(self, record)

        monkeypatch.setattr(Attempt, "publish", late)
        return ours(*arguments, **options)

    monkeypatch.setattr(running, "fit", both)
    assert running.execute(job(cell, store.results)) == 0
    assert sha256_of(store.weights(cell.fit_key)) == shown["weights"]
    assert (folder / "fit.json").read_text() == shown["fit"]
    assert (folder / cell.eval_key / "result.json").read_text() == shown["result"]
    assert finished(folder / "fit.json")
    assert read_record(folder / cell.eval_key / "result.json").state == "done"
    assert not attempts(folder)
    assert not attempts(folder / cell.eval_key)


@pytest.mark.slow
def test_what_a_killed_attempt_left_is_tidied_up_by_the_next(
    tiny: Path, tmp_path: Path, emobench: Callable[..., int]
) -> None:
    cell, results = planned(tiny, tmp_path), tmp_path / "results"
    folder = Store(results).fit_folder(cell.fit_key)
    for target in (folder, folder / cell.eval_key):
        (target / "attempt-0123").mkdir(parents=True)
        written(target / "attempt-0123", "weights.safetensors", "half")
    assert emobench("bench", tiny, "--results", results) == 0
    assert not attempts(folder)
    assert not attempts(folder / cell.eval_key)
    for target, record in ((folder, "fit.json"), (folder / cell.eval_key, "result.json")):
        assert read_json(target / COMMIT)["text"] == (target / record).read_text()
