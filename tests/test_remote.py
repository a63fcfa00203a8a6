"""Results in an object store: a folder by its URL, and a server of the S3 protocol on this machine."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emobench.errors import StoreError
from emobench.files import COMMIT, Attempt, published
from emobench.runner import lease as leases
from emobench.runner import remote as remotes
from emobench.runner import run as running
from emobench.runner.remote import Remote
from emobench.runner.store import HELD, Store, load_board, sha256_of
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load

pytest.importorskip("obstore", reason="obstore is not installed (pip install 'emobench[store]')")


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of the test's own in each kind of store."""
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def planned(tiny: Path, tmp_path: Path) -> list[Cell]:
    return expand(load(tiny), tmp_path).cells


def job(cell: Cell, results: Path, url: str) -> running.Job:
    return running.Job(cell, results, results.parent, store=url)


def commit_of(url: str, target: str) -> dict[str, Any]:
    content = Remote(url).read(f"{target}/{COMMIT}")
    assert content is not None
    found: dict[str, Any] = json.loads(content)
    return found


@pytest.mark.parametrize("wrong", ["ftp://host/x", "results", "s3:/x", "file://", "az://box/x", "https://host/x"])
def test_other_urls_are_refused(wrong: str) -> None:
    with pytest.raises(StoreError, match=f"--store {wrong}: not a place for results.*s3://bucket/folder"):
        Remote(wrong)


def test_without_obstore_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"needs obstore .*pip install 'emobench\[store\]'"):
        Remote("s3://faces/x")


def test_a_store_that_cannot_be_written_is_refused_before_anything_starts(s3: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"--store s3://nobody/x: cannot be written .*AWS_ACCESS_KEY_ID"):
        Remote("s3://nobody/x").check()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--store file://"):
        Remote(f"file://{tmp_path}/file/x").check()


def test_a_store_that_writes_what_is_there_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(url)
    remote.check()

    def overwrite(path: str, content: bytes) -> bool:
        remote.obstore.put(remote.store, path, content)
        return True

    monkeypatch.setattr(remote, "create", overwrite)
    with pytest.raises(StoreError, match="conditional writes"):
        remote.check()


@pytest.mark.slow
def test_what_one_machine_made_another_has(url: str, tiny: Path, tmp_path: Path) -> None:
    """Two that share nothing but the store: nothing is trained twice, and all files are the same."""
    cell = planned(tiny, tmp_path)[0]
    one, two = Store(tmp_path / "one" / "results"), Store(tmp_path / "two" / "results")
    assert running.execute(job(cell, one.results, url)) == 0
    assert running.execute(job(cell, two.results, url)) == 0
    for name in ("fit.json", "weights.safetensors", "history.csv", f"{cell.eval_key}/result.json",
                 f"{cell.eval_key}/predictions.parquet"):  # fmt: skip
        assert sha256_of(one.fit_folder(cell.fit_key) / name) == sha256_of(two.fit_folder(cell.fit_key) / name)
    left = {name.split("/")[2] for name in Remote(url).names("cells/")}
    assert left == {
        COMMIT,
        commit_of(url, f"cells/{cell.fit_key}")["attempt"],
        cell.eval_key,
    }  # no lease, no checkpoint


@pytest.mark.slow
def test_of_two_attempts_that_finish_at_once_one_counts(
    url: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases aside: each takes the cell for its own."""
    cell = planned(tiny, tmp_path)[0]
    stores = [Store(tmp_path / name / "results") for name in ("one", "two")]
    for store in stores:
        assert running.execute(running.Job(cell, store.results, tmp_path)) == 0
    fits = [sha256_of(store.fit_folder(cell.fit_key) / "fit.json") for store in stores]
    assert fits[0] != fits[1]  # when it was finished, and how long it took
    barrier, won = threading.Barrier(2), []

    def put(store: Store) -> None:
        mine = Remote(url)
        barrier.wait()
        won.append((mine.push_fit(store, cell.fit_key), mine.push_evaluation(store, cell.fit_key, cell.eval_key)))

    threads = [threading.Thread(target=put, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each for each, _ in won) == [False, True]
    assert sorted(each for _, each in won) == [False, True]
    records = {(store.fit_folder(cell.fit_key) / "fit.json").read_text() for store in stores}
    assert records == {commit_of(url, f"cells/{cell.fit_key}")["text"]}
    for target in (f"cells/{cell.fit_key}", f"cells/{cell.fit_key}/{cell.eval_key}"):
        folders = {name.split("/")[-2] for name in Remote(url).names(target) if "attempt-" in name}
        kept = {commit_of(url, f"cells/{cell.fit_key}")["attempt"]}
        kept.add(commit_of(url, f"cells/{cell.fit_key}/{cell.eval_key}")["attempt"])
        assert folders <= kept


def finished_fit(store: Store, content: str) -> Store:
    """One that is published in a store of a machine, whatever it was made by."""
    folder = store.fit_folder("key")
    folder.mkdir(parents=True, exist_ok=True)
    with Attempt.at(folder, published(folder)) as attempt:
        (attempt.folder / "weights.safetensors").write_text(content)
        (attempt.folder / "fit.json").write_text(json.dumps({"schema_version": 1, "of": content}))
        attempt.publish("fit.json")
    return store


def test_a_commit_whose_answer_was_lost_counts(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does what it is asked, its answer is lost, and asked again it says that there is one."""
    store = finished_fit(Store(tmp_path / "one" / "results"), "mine")
    create = Remote.create

    def lost(self: Remote, path: str, content: bytes) -> bool:
        create(self, path, content)
        return create(self, path, content)

    monkeypatch.setattr(Remote, "create", lost)
    assert Remote(url).push_fit(store, "key")
    monkeypatch.setattr(Remote, "create", create)
    other = Store(tmp_path / "two" / "results")
    assert Remote(url).pull_fit(other, "key")
    assert (other.fit_folder("key") / "weights.safetensors").read_text() == "mine"


def test_of_two_that_make_a_fit_again_the_first_counts(
    url: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other was paused while it put its files, after it had looked at what they are to take the place of."""
    cell = replace(planned(tiny, tmp_path)[0], fit={}, needs={})
    monkeypatch.setattr(Cell, "fit_key", "key")
    stores = [finished_fit(Store(tmp_path / name / "results"), name) for name in ("first", "paused", "woken")]
    assert Remote(url).push_fit(stores[0], "key")
    remotes_of = [Remote(url) for _ in stores]
    for remote, store in zip(remotes_of, stores, strict=True):
        remote.fetch(store, cell, redo=True)
    put = Remote.put

    def late(self: Remote, path: str, content: bytes | Path) -> None:
        monkeypatch.setattr(Remote, "put", put)
        assert remotes_of[2].push_fit(stores[2], "key")
        put(self, path, content)

    monkeypatch.setattr(Remote, "put", late)
    assert not remotes_of[1].push_fit(stores[1], "key")
    for store in stores[1:]:
        assert (store.fit_folder("key") / "weights.safetensors").read_text() == "woken"
    assert commit_of(url, "cells/key")["attempt"] == published(stores[2].fit_folder("key"))


def test_a_store_that_is_away_says_so_and_loses_nothing(url: str, tmp_path: Path) -> None:
    store, remote = finished_fit(Store(tmp_path / "one" / "results"), "mine"), Remote(url)

    class Away:
        """A store each of whose answers is a refusal."""

        exceptions = remote.obstore.exceptions

        def __getattr__(self, name: str) -> Callable[..., Any]:
            def refuse(*_: object, **__: object) -> Any:
                raise self.exceptions.PermissionDeniedError("403 Forbidden")

            return refuse

    there, remote.obstore = remote.obstore, Away()
    kept = f"cannot be reached .403 Forbidden.. Run the same command again.*is kept in {store.fit_folder('key')}"
    with pytest.raises(StoreError, match=kept):
        remote.push_fit(store, "key")
    with pytest.raises(StoreError, match="cannot be reached"):
        remote.pull_fit(store, "key")
    with pytest.raises(OSError, match="cannot be reached"):  # which a lease waits out
        remotes._Object(remote, "cells/key/lease.json").read()
    remote.obstore = there
    assert remote.push_fit(store, "key")


def test_a_file_that_a_commit_names_and_that_is_gone_is_said(url: str, tmp_path: Path) -> None:
    remote = Remote(url)
    assert remote.push_fit(finished_fit(Store(tmp_path / "one" / "results"), "mine"), "key")
    remote.delete(f"cells/key/{commit_of(url, 'cells/key')['attempt']}")
    with pytest.raises(StoreError, match=r"weights.safetensors: is not there"):
        remote.pull_fit(Store(tmp_path / "two" / "results"), "key")


@pytest.mark.slow
def test_a_paused_holder_that_wakes_after_takeover_makes_no_second_record(
    url: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = planned(tiny, tmp_path)[0]
    one, two = Store(tmp_path / "one" / "results"), Store(tmp_path / "two" / "results")
    push = Remote.push_fit
    monkeypatch.setattr(leases, "BEAT", 1000.0)  # it does not wake in time to see that its lease is gone

    def paused(self: Remote, store: Store, fit_key: str) -> bool:
        """As it is about to publish, its lease is given up, and another machine goes the whole way."""
        monkeypatch.setattr(Remote, "push_fit", push)
        self.obstore.delete(self.store, [f"cells/{fit_key}/lease.json"])
        assert running.execute(job(cell, two.results, url)) == 0
        return push(self, store, fit_key)

    monkeypatch.setattr(Remote, "push_fit", paused)
    assert running.execute(job(cell, one.results, url)) == 0
    for name in ("fit.json", "weights.safetensors", f"{cell.eval_key}/result.json"):
        assert sha256_of(one.fit_folder(cell.fit_key) / name) == sha256_of(two.fit_folder(cell.fit_key) / name)
    assert commit_of(url, f"cells/{cell.fit_key}")["attempt"] == published(two.fit_folder(cell.fit_key))


@pytest.mark.slow
def test_another_machine_goes_on_from_the_checkpoints(
    url: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one that was stopped, and with its curves."""
    cell = planned(tiny, tmp_path)[0]
    one, two = Store(tmp_path / "one" / "results"), Store(tmp_path / "two" / "results")
    monkeypatch.setattr(remotes, "EVERY", 0.05)
    publish = running.fit

    def stopped(*arguments: Any, **options: Any) -> bool:
        from emobench.runner.callbacks import LastTwo

        save = LastTwo.on_train_batch_start

        def stop(self: LastTwo, trainer: Any, *rest: Any) -> None:
            save(self, trainer, *rest)
            if trainer.current_epoch == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(LastTwo, "on_train_batch_start", stop)
            return publish(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(running, "fit", stopped)
        assert running.execute(job(cell, one.results, url)) != 0
    assert running.execute(job(cell, two.results, url)) == 0
    history = (two.fit_folder(cell.fit_key) / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in history[1:]] == ["0", "1", "2", "3"]
    alone = Store(tmp_path / "three" / "results")
    assert running.execute(running.Job(cell, alone.results, tmp_path)) == 0
    assert sha256_of(alone.weights(cell.fit_key)) == sha256_of(two.weights(cell.fit_key))
    assert not [name for name in Remote(url).names("cells/") if "/running/" in name]


def test_a_slow_store_is_given_checkpoints_more_seldom(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a second in which putting them takes 0.05 s, no more than a tenth is spent so."""
    monkeypatch.setattr(remotes, "EVERY", 0.01)
    uploads, looked = remotes._Uploads(Remote(url), tmp_path, "running"), []

    def look() -> None:
        looked.append(time.monotonic())
        time.sleep(0.05)

    monkeypatch.setattr(uploads, "_look", look)
    uploads.start()
    time.sleep(1.2)
    uploads.finish()
    assert len(looked) > 2
    assert all(after - before >= 0.5 for before, after in itertools.pairwise(looked[:-1]))  # the last when it ends


@pytest.mark.slow
def test_a_cell_that_another_machine_has_is_held(
    url: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(leases, "PATIENCE", 1.0)
    cell = planned(tiny, tmp_path)[0]
    store = Store(tmp_path / "one" / "results")
    with Remote(url).holding(store, cell.fit_key) as mine:
        assert mine is not None
        assert running.execute(job(cell, tmp_path / "two" / "results", url)) == HELD
    assert running.execute(job(cell, tmp_path / "two" / "results", url)) == 0


@pytest.mark.slow
def test_a_board_is_of_what_the_store_holds_and_puts_there_what_is_only_here(
    url: str, tiny: Path, tmp_path: Path, emobench: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert emobench("bench", tiny, "--results", tmp_path / "one") == 0
    assert emobench("bench", tiny, "--results", tmp_path / "one", "--store", url) == 0
    capsys.readouterr()
    assert emobench("bench", tiny, "--results", tmp_path / "two", "--store", url) == 0
    assert "running" not in capsys.readouterr().out
    assert all(cell.state == "done" for cell in load_board(tmp_path / "two", "tiny"))
    one, two = (tmp_path / name / "tiny" / "metrics.csv" for name in ("one", "two"))
    assert one.read_text() == two.read_text()


@pytest.mark.parametrize(
    "damage",
    [b"{", b"[]", b'{"schema_version": 1, "attempt": "../x", "record": "r", "text": "", "files": {}}',
     b'{"schema_version": 1, "attempt": "attempt-1", "record": "r", "text": "", "files": {"../x": "0"}}'],
)  # fmt: skip
def test_a_strangers_commit_writes_nothing_elsewhere(damage: bytes, tmp_path: Path) -> None:
    remote = Remote(f"file://{tmp_path}/shared")
    remote.create(f"cells/key/{COMMIT}", damage)
    with pytest.raises(StoreError, match="damaged. Delete it"):
        remote.pull_fit(Store(tmp_path / "results"), "key")


def test_a_file_whose_bytes_are_others_is_refused(tmp_path: Path) -> None:
    remote = Remote(f"file://{tmp_path}/shared")
    commit = {"schema_version": 1, "attempt": "attempt-1", "record": "fit.json", "text": "", "files": {"w": "0" * 64}}
    remote.create("cells/key/attempt-1/w", b"other bytes")
    remote.create(f"cells/key/{COMMIT}", json.dumps(commit).encode())
    with pytest.raises(StoreError, match="holds other bytes than its commit says"):
        remote.pull_fit(Store(tmp_path / "results"), "key")
    assert not (tmp_path / "results" / "cells" / "key" / "w").exists()


def test_names_of_checkpoints_lead_nowhere_else() -> None:
    assert remotes._set(b"") is None
    assert remotes._set(b'{"attempt": "a", "step": 3, "files": ["checkpoints/last-step=3.ckpt"]}') is not None
    assert remotes._set(b'{"attempt": "a", "step": 3, "files": ["checkpoints/../../x"]}') is None
    assert remotes._set(b'{"attempt": "../a", "step": 3, "files": []}') is None
