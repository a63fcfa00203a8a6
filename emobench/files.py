"""Files that appear whole under their names or not at all, and folders of them that only one process can have made;
JSON in the one form in which all of it is kept."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from emobench.errors import StoreError, printable

_LARGEST = 64 * 2**20  # bytes of a JSON file
SCHEMA_VERSION = 1  # of JSON files that are no records (see `emobench.runner.record`)


def print_anything(stream: object, encoding: str | None = None) -> None:
    """From now on a stream shows what its encoding has not as escapes, where before a print of it ended the program.

    Args:
        encoding: None: the terminal's own, which may be ASCII.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=encoding, errors="backslashreplace")


def say(text: object, *, error: bool = False) -> None:
    """Print what happens in a sweep, which goes on though nobody may hear it: the terminal may be gone, or the disk
    full behind a redirection.

    Args:
        text: may hold foreign names.
        error: print it on stderr.
    """
    with heard_or_not():
        print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


@contextmanager
def heard_or_not() -> Iterator[None]:
    """A block that prints, and whose end does not depend on whether that can be written."""
    try:
        yield
    except OSError:
        if not silenced():
            raise


def silenced() -> bool:
    """Whether a stream of this process can no longer be written; from then on what it is given goes nowhere."""
    lost = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            lost = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return lost


def check_out(out: Path) -> None:
    """Make the folder of a file, `--out`, that is written after all the work.

    Raises:
        StoreError: it cannot be written there.
    """
    if out.is_dir():
        raise StoreError(f"--out {out}: a folder. Name a file in it, such as {out / 'faces.md'}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"--out {out}: no folder can be made there ({error.strerror}). Choose another one") from error
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise StoreError(f"--out {out}: may not be written. Choose another place")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; what was written takes its place when the block ends, and is gone if it fails.

    A reader sees all of the old file or all of the new one, whatever happens meanwhile. Others may read it as the umask
    says, also where a library makes its files for their owner alone, as safetensors does.
    """
    writer = f"{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"  # machines may share the folder
    temporary = path.with_name(f".{path.name}.{writer}.tmp")
    try:
        with open(temporary, "wb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield temporary
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON beside its place and move it there, so that a reader sees all of it or nothing.

    Raises:
        ValueError: `content` holds NaN or an infinity, which JSON cannot.
        OSError: the disk is full or the folder is read-only; the old file is untouched.
    """
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """Strict JSON as `write_json` writes it; a ValueError likewise."""
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text likewise, to the disk before it takes its place; a name's bytes that are no UTF-8 as `\\udce9`."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


COMMIT = "commit.json"  # in a folder: which attempt made it, and the record of that
_ATTEMPT = "attempt-"  # how the folders of attempts are called
# What file systems say that know no second name for a file, such as those of some object stores and of Windows.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)


@dataclass(frozen=True)
class Attempt:
    """What one process makes of a folder: it lies beside what is there, until it takes its place as a whole.

    Several processes may make the same folder at once, on machines that do not know of each other: one was taken for
    dead and wakes, or a lock does not hold on the file system that they share. The first to `publish` is the one whose
    files are there from then on; what another one wrote is never seen.

    Attributes:
        folder: its own, for its files.
        target: the folder that it makes.
        before: the attempt that had made it when this one began, whose place it takes; None: nobody.
    """

    folder: Path
    target: Path
    before: str | None

    @classmethod
    @contextmanager
    def at(cls, target: Path, before: str | None, name: str | None = None) -> Iterator[Attempt]:
        """A new one; its folder is made, and gone at the end of the block.

        Args:
            before: what `published` said when the work began whose files it is for.
            name: that of an attempt which was published elsewhere, whose folder may have been left half; None: one of
                its own.
        """
        folder = target / (name or f"{_ATTEMPT}{token_hex(8)}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield cls(folder, target, before)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, record: str) -> bool:
        """Put its files into place, the record last; returns whether they are: False where another was first.

        Raises:
            OSError: the disk is full, or the folder is read-only.
        """
        text = (self.folder / record).read_text(encoding="utf-8")
        made = {"schema_version": SCHEMA_VERSION, "attempt": self.folder.name, "record": record, "text": text}
        write_json(self.folder / COMMIT, made)
        if self.before is not None:
            self._withdraw()
        first = create(self.folder / COMMIT, self.target / COMMIT)
        complete(self.target)
        return first

    def _withdraw(self) -> None:
        """Take away the attempt whose place this one takes, and no other."""
        aside = self.folder / f"{COMMIT}.before"
        with suppress(FileNotFoundError):
            os.rename(self.target / COMMIT, aside)
            if _published(self.folder, aside.name)[0] != self.before:
                create(aside, self.target / COMMIT)
            aside.unlink()


def attempts(target: Path) -> list[Path]:
    """The folders of attempts at a folder that are under way, or were left by processes that are gone."""
    with suppress(FileNotFoundError, NotADirectoryError):  # and no `glob`, for which every cell would compile a pattern
        return sorted(path for path in target.iterdir() if path.name.startswith(_ATTEMPT))
    return []


def complete(target: Path) -> None:
    """Finish what a process left undone that had published an attempt, and was killed before all was in its place."""
    while True:
        attempt, content = _published(target)
        folder = target / (attempt or "none")
        if not attempt or not folder.is_dir():
            return
        with suppress(FileNotFoundError):  # another process does the same, and is done with it
            for path in list(folder.iterdir()):
                if path.name not in (content["record"], COMMIT):
                    with suppress(FileNotFoundError):
                        os.replace(path, target / path.name)
        write_text(target / content["record"], content["text"])
        shutil.rmtree(folder, ignore_errors=True)
        if _published(target)[0] == attempt:
            return


def restore(target: Path, seen: str | None) -> None:
    """Write the record of a published attempt again, over which this process may have written what it saw.

    Args:
        seen: the attempt that `published` named before this process wrote.
    """
    attempt, content = _published(target)
    if attempt and attempt != seen:
        complete(target)
        write_text(target / content["record"], content["text"])


def published(target: Path) -> str | None:
    """The attempt that made a folder; None where none did, "" where that cannot be read."""
    return _published(target)[0]


def _published(target: Path, name: str = COMMIT) -> tuple[str | None, dict[str, Any]]:
    """The same, and what is known of it."""
    try:
        content = read_json(target / name)
    except FileNotFoundError:
        return None, {}
    except StoreError:
        return "", {}
    return (content["attempt"], content) if is_commit(content) else ("", {})


def is_commit(content: dict[str, Any]) -> bool:
    """Whether this is what `Attempt.publish` writes; its names are those of files in one folder."""
    attempt, record, text = (content.get(name) for name in ("attempt", "record", "text"))
    if not (isinstance(attempt, str) and isinstance(record, str) and isinstance(text, str)):
        return False
    return attempt.startswith(_ATTEMPT) and "/" not in attempt + record


def create(source: Path, path: Path) -> bool:
    """Give a file a further name, unless something has that name: one process at most is told True, also on NFS.

    Where an answer of NFS's is lost, it is asked again, and then says of the name that it has just given that it is
    there.
    """
    try:
        os.link(source, path)
    except FileExistsError:
        return path.exists() and os.path.samefile(source, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with open(path, "xb") as file:
                file.write(source.read_bytes())
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
    return True


def read_text(path: Path, largest: int) -> str:
    """Read a regular file of UTF-8 and of at most `largest` bytes.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is another kind of file, larger, no UTF-8, or cannot be read.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > largest:
            raise StoreError(f"{path}: no file of at most {largest >> 20} MiB. Delete it.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}). Make it readable, or delete it.") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: no UTF-8 ({error}). Delete it.") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is no readable file, or not whole; the message names it.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > _LARGEST:
            raise StoreError(f"{path}: no file of at most {_LARGEST >> 20} MiB. Delete it; the cell can run again.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except NotADirectoryError:  # a file where the folder should be: nothing lies there
        raise FileNotFoundError(path) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}). Make it readable, or delete it.") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of more digits than Python reads
        raise StoreError(f"{path}: not a whole result file ({error}). Delete it; the cell can run again.") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds {type(content).__name__}, not a record. Delete it; the cell can run again.")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote with today's `schema_version`.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is not whole, or of another version; the message names the file.
    """
    content = read_object(path)
    if (found := content.get("schema_version")) != SCHEMA_VERSION:
        raise StoreError(f"{path}: schema version {found}, this emobench reads {SCHEMA_VERSION}. Run the suite again.")
    return content
