"""What `import emobench` gives."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pandas as pd
import pytest
from reading import pages

import emobench
from emobench.errors import StoreError, SuiteError


def test_the_package_shows_what_is_meant_to_be_used_and_nothing_else() -> None:
    assert dir(emobench) == ["__version__", "bench", "load", "read_board", "score"]
    assert all(getattr(emobench, name) for name in dir(emobench))
    assert (Path(emobench.__file__).parent / "py.typed").exists()


@pytest.mark.slow
def test_a_suite_from_python(tiny: Path, tmp_path: Path) -> None:
    """Twice, since the first call imports whatever could hide the function."""
    suite = {"name": "mine", **tomllib.loads(tiny.read_text())}
    results = tmp_path / "results"
    board = emobench.bench(suite, results=results, data=tmp_path / "data")
    row = board[(board.model == "resnet18") & (board.metric == "accuracy") & board.seed.isna() & (board.emotion == "")]
    assert 0 <= row.value.item() <= 1
    assert row.n.item() == 80
    pd.testing.assert_frame_equal(board, emobench.read_board(results / "mine"))
    pd.testing.assert_frame_equal(board, emobench.bench(suite, results=str(results), data=str(tmp_path / "data")))
    assert (results / "mine" / "suite.toml").exists()
    assert "suite.toml --name mine" in pages(results / "mine")
    emotions = board.emotion[~board.emotion.isin(["", "macro"])].unique().tolist()
    assert list(emobench.load(results, "mine", "resnet18").emotions) == emotions


@pytest.mark.slow
def test_cells_that_fail_raise_nothing(tiny: Path, tmp_path: Path) -> None:
    there = {"results": tmp_path / "results", "data": tmp_path / "data"}
    board = emobench.bench(tiny, overrides=["model.resnet18.lr=1e30"], **there)
    failed = board[(board.model == "resnet18") & board.value.isna() & (board.metric == "macro_f1")]
    assert failed.reason.str.startswith("diverged").all()
    assert len(failed)


def test_bad_input_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such board"):
        emobench.read_board(tmp_path / "nothing")
    with pytest.raises(SuiteError, match='needs a "name"'):
        emobench.bench({"model": {}}, results=tmp_path)
    with pytest.raises(SuiteError, match="numbers, strings, lists and tables"):
        emobench.bench({"name": "mine", "model": {"resnet18": {"lr": None}}}, results=tmp_path)
