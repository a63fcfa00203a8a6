"""Results in an object store, for machines that share no folder: what a cell needs is fetched, what it made is put.

    <url>/cells/<fit_key>/commit.json                 which attempt made the fit, its record, its files' sha256
    <url>/cells/<fit_key>/<attempt>/                  its files
    <url>/cells/<fit_key>/<eval_key>/...              the same of an evaluation
    <url>/cells/<fit_key>/running/<attempt>/          checkpoints of a fit that runs, or was stopped
    <url>/cells/<fit_key>/lease.json                  which process has the cell

Each attempt writes under a name of its own. What counts is the one whose `commit.json` was created first, which the
store does once, whoever else tries; a lease saves work, and nothing depends on it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from filelock import FileLock

from emobench.errors import StoreError, first_line
from emobench.files import COMMIT, SCHEMA_VERSION, Attempt, is_commit, published, replacing, write_text
from emobench.runner.lease import Lease, lease
from emobench.runner.record import Record, finished, read_record
from emobench.runner.store import Store, intact, sha256_of
from emobench.suite.cell import Cell

SCHEMES = ("file", "s3", "gs")
EVERY = 10.0  # seconds between two looks for new checkpoints
SHARE = 0.1  # of a fit's time, at most, in which checkpoints are put: they come more seldom where the store is slow
_RUNNING = "running"
_SET = "set.json"  # the files of a fit that runs, written when all of them are there


class Remote:
    """An object store, by its URL.

    Raises:
        StoreError: no such URL is known, or the store cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        scheme, colon, rest = url.partition("://")
        if scheme not in SCHEMES or not colon or not rest.strip("/"):
            raise StoreError(
                f"--store {url}: not a place for results. Give one as file:///folder, s3://bucket/folder or "
                "gs://bucket/folder"
            )
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise StoreError(
                f"--store {url}: needs obstore ({error}). Install it: pip install 'emobench[store]'"
            ) from None
        self.obstore: Any = obstore
        try:
            self.store: Any = from_url(url, mkdir=True) if scheme == "file" else from_url(url)
        except Exception as error:  # of many kinds, by what the URL means
            raise StoreError(f"--store {url}: {first_line(error)}") from None
        self._seen: dict[str, str | None] = {}  # target -> the attempt that counted when this process fetched

    def check(self) -> None:
        """Find out before anything is trained whether results can be kept.

        Raises:
            StoreError: something cannot be written, or is written twice.
        """
        probe = f"cells/.probe.{token_hex(8)}"
        try:
            first, second = self.create(probe, b""), self.create(probe, b"")
            self.obstore.delete(self.store, [probe])
        except Exception as error:
            raise StoreError(
                f"--store {self.url}: cannot be written ({first_line(error)}). Check the URL and the account "
                "(AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL; GOOGLE_APPLICATION_CREDENTIALS)"
            ) from None
        if not first or second:
            raise StoreError(
                f"--store {self.url}: writes an object a second time that is to be created once, so that two machines "
                "could both finish a cell. Choose a store that knows conditional writes"
            )

    # ---- objects: each raises a StoreError where the store cannot be reached -----------------------------------------

    def read(self, path: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        return self._read(path)[0]

    def _read(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        """The same, and which version of the object they are."""
        try:
            with self._reached():
                found = self.obstore.get(self.store, path)
                version = {name: found.meta[name] for name in ("e_tag", "version") if found.meta.get(name) is not None}
                return bytes(found.bytes()), version
        except FileNotFoundError:
            return None, {}

    def put(self, path: str, content: bytes | Path) -> None:
        """Write an object, of bytes or as a file is."""
        with self._reached():
            self.obstore.put(self.store, path, content)

    def create(self, path: str, content: bytes) -> bool:
        """Write an object unless there is one; returns whether it was written: True once at most, whoever tries.

        Where the store's answer is lost, it is asked again, and then says that there is one.
        """
        try:
            with self._reached():
                self.obstore.put(self.store, path, content, mode="create")
        except self.obstore.exceptions.AlreadyExistsError:
            return False
        return True

    def _replace(self, path: str, content: bytes, before: bytes, version: dict[str, str]) -> None:
        """Write an object in the place of what was read before, and of nothing else."""
        try:
            with self._reached():
                self.obstore.put(self.store, path, content, mode=version)
        except self.obstore.exceptions.PreconditionError:
            return
        except NotImplementedError:  # a folder: taken away under a name of its own, and put back if it is another's
            aside = f"{path}.{token_hex(8)}"
            with suppress(FileNotFoundError), self._reached():
                self.obstore.rename(self.store, path, aside)
                taken = bytes(self.obstore.get(self.store, aside).bytes())
                self.create(path, content if taken == before else taken)
                self.obstore.delete(self.store, [aside])

    def names(self, prefix: str) -> list[str]:
        """The objects below a prefix."""
        with self._reached():
            pages = self.obstore.list(self.store, prefix=prefix)
            return [entry["path"] for page in pages for entry in page]

    def delete(self, prefix: str) -> None:
        """Delete all objects below a prefix."""
        self.delete_each(self.names(prefix))

    def delete_each(self, names: Sequence[str]) -> None:
        """Delete objects, which another process may do too."""
        if names:
            with suppress(FileNotFoundError), self._reached():
                self.obstore.delete(self.store, list(names))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        errors = self.obstore.exceptions
        try:
            yield
        except (errors.AlreadyExistsError, errors.PreconditionError):
            raise  # an answer
        except errors.BaseError as error:
            raise StoreError(
                f"{self.url}: cannot be reached ({first_line(error)}). Run the same command again once it can"
            ) from None

    def _commit(self, target: str) -> dict[str, Any] | None:
        return self._parsed(target, self.read(f"{target}/{COMMIT}"))

    def _parsed(self, target: str, content: bytes | None) -> dict[str, Any] | None:
        if content is None:
            return None
        try:
            commit = json.loads(content)
        except ValueError:
            commit = None
        if not isinstance(commit, dict) or not is_commit(commit) or not _plain(commit.get("files")):
            raise StoreError(f"{self.url}/{target}/{COMMIT}: damaged. Delete it; the cell can run again")
        return commit

    # ---- from here to there ------------------------------------------------------------------------------------------

    def push_fit(self, store: Store, fit_key: str) -> bool:
        """Publish a finished fit of this machine; returns whether it is the one that counts.

        Where another was first, that one is fetched and takes its place here.
        """
        names = [store.weights(fit_key).name, "history.csv"]
        first = self._push(store.fit_folder(fit_key), f"cells/{fit_key}", "fit.json", names)
        if not first:
            self.pull_fit(store, fit_key)
        self.delete(f"cells/{fit_key}/{_RUNNING}")
        return first

    def push_evaluation(self, store: Store, fit_key: str, eval_key: str) -> bool:
        """The same of an evaluation."""
        folder = store.eval_folder(fit_key, eval_key)
        evaluation = read_record(folder / "result.json").evaluation
        names = [] if evaluation is None else list(evaluation.raw.values())
        first = self._push(folder, f"cells/{fit_key}/{eval_key}", "result.json", names)
        if not first:
            self.pull_evaluation(store, fit_key, eval_key)
        return first

    def _push(self, folder: Path, target: str, record: str, names: Iterable[str]) -> bool:
        """Put files, then create the commit that makes them count.

        Raises:
            StoreError: the store cannot be reached; what is finished stays here.
        """
        try:
            return self._put(folder, target, record, names)
        except StoreError as error:
            raise StoreError(f"{error}; what was finished is kept in {folder}") from None

    def _put(self, folder: Path, target: str, record: str, names: Iterable[str]) -> bool:
        attempt = published(folder) or f"attempt-{token_hex(8)}"
        path = f"{target}/{COMMIT}"
        before, version = self._read(path)
        there = self._parsed(target, before)
        if there is not None and there["attempt"] == attempt:
            return True
        files = {}
        for name in names:
            if (folder / name).is_file():
                files[name] = sha256_of(folder / name)
                self.put(f"{target}/{attempt}/{name}", folder / name)
        text = (folder / record).read_text(encoding="utf-8")
        commit = {"schema_version": SCHEMA_VERSION, "attempt": attempt, "record": record, "text": text, "files": files}
        content = json.dumps(commit, ensure_ascii=False).encode()
        if before is not None and there is not None and self._seen.get(target) == there["attempt"]:
            self._replace(path, content, before, version)  # made anew, to take its place
        elif self.create(path, content):
            return True
        now = self._commit(target)  # it may be this one though the store said no (see `create`)
        if now is not None and now["attempt"] == attempt:
            return True
        self.delete(f"{target}/{attempt}")
        return False

    # ---- from there to here ------------------------------------------------------------------------------------------

    def pull_fit(self, store: Store, fit_key: str) -> bool:
        """Fetch a finished fit with its weights, unless it is here; returns whether there is one."""
        return self._pull(store.fit_folder(fit_key), f"cells/{fit_key}", store.weights(fit_key).name)

    def pull_evaluation(self, store: Store, fit_key: str, eval_key: str) -> bool:
        """The same of an evaluation."""
        return self._pull(store.eval_folder(fit_key, eval_key), f"cells/{fit_key}/{eval_key}")

    def _pull(self, folder: Path, target: str, weights: str | None = None) -> bool:
        commit = self._commit(target)
        if commit is None:
            return False
        whole = weights not in commit["files"] or intact(folder / str(weights))
        if published(folder) == commit["attempt"] and finished(folder / commit["record"]) and whole:
            return True
        folder.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(folder / ".pull"),
            Attempt.at(folder, published(folder), commit["attempt"]) as attempt,
        ):
            for name, sha256 in commit["files"].items():
                self._download(f"{target}/{commit['attempt']}/{name}", attempt.folder / name, sha256)
            write_text(attempt.folder / commit["record"], commit["text"])
            attempt.publish(commit["record"])
        return True

    def _download(self, path: str, to: Path, sha256: str | None = None) -> None:
        with replacing(to) as temporary:
            try:
                with open(temporary, "wb") as file, self._reached():
                    for chunk in self.obstore.get(self.store, path).stream(min_chunk_size=2**22):
                        file.write(chunk)
            except FileNotFoundError:
                raise StoreError(
                    f"{self.url}/{path}: is not there. Run again; delete its {COMMIT} if it stays"
                ) from None
            if sha256 is not None and sha256_of(temporary) != sha256:
                raise StoreError(
                    f"{self.url}/{path}: holds other bytes than its commit says. Delete {path}/../{COMMIT}"
                )

    def fetch(self, store: Store, cell: Cell, *, redo: bool = False) -> None:
        """What a cell needs, and what there is of itself: its fit or checkpoints of it, and its evaluation.

        Args:
            redo: it is made again whatever there is.
        """
        todo, done = [*cell.awaits], set()
        while todo:
            fit_key = todo.pop()
            if fit_key not in done:
                done.add(fit_key)
                self.pull_fit(store, fit_key)
                path = store.fit_folder(fit_key) / "fit.json"
                todo += (
                    [key for keys in read_record(path).cell.needs.values() for key in keys] if finished(path) else []
                )
        for target in (f"cells/{cell.fit_key}", f"cells/{cell.fit_key}/{cell.eval_key}"):
            commit = self._commit(target)
            self._seen[target] = None if commit is None else commit["attempt"]
        if not redo:
            if not self.pull_fit(store, cell.fit_key):
                self._fetch_checkpoints(store.fit_folder(cell.fit_key))
            self.pull_evaluation(store, cell.fit_key, cell.eval_key)

    def sync(self, store: Store, cells: Iterable[Cell]) -> None:
        """Fetch what is finished of some cells, and put what is finished here alone."""
        there = {name.rpartition("/")[0] for name in self.names("cells/") if name.endswith(f"/{COMMIT}")}
        for cell in cells:
            if f"cells/{cell.fit_key}" in there:
                self.pull_fit(store, cell.fit_key)
            elif finished(store.fit_folder(cell.fit_key) / "fit.json"):
                self.push_fit(store, cell.fit_key)
            if f"cells/{cell.fit_key}/{cell.eval_key}" in there:
                self.pull_evaluation(store, cell.fit_key, cell.eval_key)
            elif finished(store.eval_folder(cell.fit_key, cell.eval_key) / "result.json"):
                self.push_evaluation(store, cell.fit_key, cell.eval_key)

    # ---- while a cell runs -------------------------------------------------------------------------------------------

    @contextmanager
    def holding(self, store: Store, fit_key: str) -> Iterator[Lease | None]:
        """Have a cell's lease inside the block, and put its checkpoints meanwhile; None: another process has it."""
        with lease(_Object(self, f"cells/{fit_key}/lease.json"), locked=False) as mine:
            if mine is None:
                yield None
                return
            uploads = _Uploads(self, store.fit_folder(fit_key), f"cells/{fit_key}/{_RUNNING}")
            uploads.start()
            try:
                yield mine
            finally:
                uploads.finish()

    def _fetch_checkpoints(self, folder: Path) -> None:
        """The newest set of checkpoints of a fit that did not end, unless newer ones are here."""
        target = f"cells/{folder.name}/{_RUNNING}"
        sets = [_set(self.read(name)) for name in self.names(target) if name.endswith(f"/{_SET}")]
        newest = max((each for each in sets if each is not None), key=lambda each: each["step"], default=None)
        if newest is None or newest["step"] <= _step(folder):
            return
        for name in newest["files"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._download(f"{target}/{newest['attempt']}/{name}", folder / name)


class _Object:
    """Where a lease lies: an object."""

    def __init__(self, remote: Remote, path: str) -> None:
        self.remote, self.path = remote, path

    def read(self) -> bytes | None:
        with self._reached():
            return self.remote.read(self.path)

    def write(self, content: bytes) -> None:
        with self._reached():
            self.remote.put(self.path, content)

    def create(self, content: bytes) -> bool:
        with self._reached():
            return self.remote.create(self.path, content)

    def remove(self) -> None:
        with self._reached():
            self.remote.delete_each([self.path])

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise OSError(str(error)) from None


class _Uploads(threading.Thread):
    """Puts the checkpoints of a fit while it runs, so that another machine can go on from them."""

    def __init__(self, remote: Remote, folder: Path, target: str) -> None:
        super().__init__(daemon=True)
        self.remote, self.folder, self.target = remote, folder, target
        self.attempt = token_hex(8)
        self.put: set[str] = set()
        self.step = _step(folder)
        self.done = threading.Event()

    def run(self) -> None:
        took = 0.0
        while not self.done.wait(max(EVERY, took / SHARE)):
            started = time.monotonic()
            self._look()
            took = time.monotonic() - started

    def finish(self) -> None:
        """Stop; put what is newest."""
        self.done.set()
        self.join()
        self._look()

    def _look(self) -> None:
        """Put a set of checkpoints where there is a newer one; what cannot be put now, is the next time."""
        step = _step(self.folder)
        if step <= self.step:
            return
        try:
            files = [path for path in (self.folder / "checkpoints").glob("*.ckpt")]
            files += [path for path in (self.folder / "made_with.json", self.folder / "history.csv") if path.exists()]
            names = {str(path.relative_to(self.folder)) for path in files}
            for name in sorted(names):
                if name not in self.put or not name.endswith(".ckpt"):
                    self.remote.put(f"{self.target}/{self.attempt}/{name}", self.folder / name)
            entry = {"attempt": self.attempt, "step": step, "files": sorted(names)}
            place = f"{self.target}/{self.attempt}"
            self.remote.put(f"{place}/{_SET}", json.dumps(entry).encode())
            self.remote.delete_each([f"{place}/{name}" for name in self.put - names])
            self.put, self.step = names, step
        except (OSError, StoreError) as error:
            print(f"checkpoints could not be put into {self.remote.url} ({first_line(error)}); trying again")


def _plain(files: object) -> bool:
    """Whether these are names of files in one folder, each with its digest: a store may be a stranger's."""
    return isinstance(files, dict) and all("/" not in name and name not in (".", "..") for name in files)


def _set(content: bytes | None) -> dict[str, Any] | None:
    """A set of checkpoints as `_Uploads` writes it; None: another object, or half of one."""
    try:
        entry = json.loads(content or b"")
        inside = all(re.fullmatch(r"(checkpoints/)?[\w=.-]+", name) and ".." not in name for name in entry["files"])
        return entry if inside and isinstance(entry["step"], int) and re.fullmatch(r"\w+", entry["attempt"]) else None
    except (ValueError, KeyError, TypeError):
        return None


def _step(folder: Path) -> int:
    """Of the newest checkpoint of a fit; -1: none."""
    paths = [path for kind in ("last", "within") for path in folder.glob(f"checkpoints/{kind}-step=*.ckpt")]
    return max((int(path.stem.partition("=")[2].partition("-")[0]) for path in paths), default=-1)


def failure(store: Store, cell: Cell) -> str | None:
    """The record of a cell that did not end well, as text; None where it did, or there is none."""
    for path in (
        store.fit_folder(cell.fit_key) / "fit.json",
        store.eval_folder(cell.fit_key, cell.eval_key) / "result.json",
    ):
        try:
            record: Record = read_record(path)
        except (FileNotFoundError, StoreError):
            return None
        if record.state != "done":
            return record.text()
    return None
