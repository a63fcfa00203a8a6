"""The suite of a machine with a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from emobench.suite.catalog import classes
from emobench.suite.expand import expand
from emobench.suite.file import load

CHOOSE = Path(__file__).parents[1] / "benchmarks" / "choose.py"


@pytest.mark.slow
def test_it_plans_every_class_on_drawn_faces_and_on_fer2013_where_that_lies(tmp_path: Path) -> None:
    (tmp_path / "fer2013").mkdir()
    random, lines = np.random.default_rng(0), ["emotion,pixels,Usage"]
    for usage in ("Training", "PublicTest", "PrivateTest"):
        for label in range(7):
            pixels = (" ".join(map(str, random.integers(0, 256, 48 * 48))) for _ in range(3))
            lines += [f"{label},{each},{usage}" for each in pixels]
    (tmp_path / "fer2013" / "fer2013.csv").write_text("\n".join(lines) + "\n")
    plan = expand(load("gpu", ["data.synthetic.train=640", "data.fer2013.max_bad=1.0"]), tmp_path)
    assert not plan.skipped
    wanted = {name for name, cls in classes("model").items() if cls.asked_for and not getattr(cls, "foreign", False)}
    for dataset in ("synthetic", "fer2013"):
        cells = [cell for cell in plan.cells if cell.dataset == dataset]
        assert {cell.fit["model"] for cell in cells} == wanted
        assert {cell.size for cell in cells} == {64}
        assert {cell.seed for cell in cells} == {0}
        assert {cell.fit["recipe"]["size"] or cell.size for cell in cells if cell.trains} == {64}


@pytest.mark.parametrize(("listed", "suite"), [(["GPU 0: NVIDIA H100"], "gpu"), ([], "demo")])
def test_make_bench_runs_it_where_a_gpu_is_found(
    listed: list[str], suite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("choose", CHOOSE)
    assert spec is not None
    assert spec.loader is not None
    choose = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(choose)
    monkeypatch.setattr(choose, "gpus", lambda: listed)
    for arguments, expected in (([], suite), (["full"], "full"), (["mine"], "benchmarks/mine.toml")):
        monkeypatch.setattr(sys, "argv", ["choose.py", "--quiet", *arguments])
        choose.main()
        assert capsys.readouterr().out.strip() == expected
