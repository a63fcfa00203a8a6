"""A long TMPDIR, as batch systems give one, leaves room for the sockets between processes."""

from __future__ import annotations

import tempfile
from multiprocessing import current_process, util
from pathlib import Path

import pytest

from emobench.errors import EmobenchError
from emobench.runner import sockets


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of temporary files in which no socket can lie, and a process that has none yet."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setitem(current_process()._config, "tempdir", None)  # type: ignore[attr-defined]
    return folder


def test_sockets_lie_in_a_short_folder_and_other_files_where_they_did(long: Path) -> None:
    sockets.keep_short()
    assert Path(util.get_temp_dir()).parent == Path(sockets.SHORT)
    assert tempfile.gettempdir() == str(long)
    assert not list(long.iterdir())


def test_where_there_is_no_short_folder_the_user_is_told(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SHORT", str(tmp_path / "nowhere"))
    with pytest.raises(EmobenchError, match="TMPDIR .* has a path of more than 71 bytes.* Set TMPDIR to a shorter one"):
        sockets.keep_short()


def test_a_short_folder_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(util, "get_temp_dir", lambda: pytest.fail("asked for"))
    sockets.keep_short()
