"""A finished cell put to use on pictures, by the real command."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emobench.data.datasets.synthetic import Synthetic
from emobench.runner.store import load_board

EMOTIONS = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"]


def test_what_evaluation_said_is_said_again(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Synthetic(size=32, variant="plain", train=80, val=80, test=80)
    data.prepare()
    row = load_board(tiny_results, "tiny")[0]
    evaluated = pd.read_parquet(row.folder / "predictions.parquet")  # type: ignore[operator]
    for place in range(6):
        Image.fromarray(data.images[evaluated["index"][place], 0]).save(tmp_path / f"{place}.png")
    files = [tmp_path / f"{place}.png" for place in range(6)]
    for run in ("best:tiny/synthetic-plain", "tiny/synthetic-plain/resnet18", row.fit_key, row.fit_key[:8]):
        capsys.readouterr()
        assert emobench("predict", run, *files, "--format", "json", "--results", tiny_results) == 0
        said = json.loads(capsys.readouterr().out)
        assert [each["file"] for each in said] == [str(path) for path in files]
        for each, place in zip(said, range(6), strict=True):
            assert each["emotion"] == EMOTIONS[evaluated["prediction"][place]]
            expected = [evaluated[f"p_{emotion}"][place] for emotion in EMOTIONS]
            np.testing.assert_allclose([each[emotion] for emotion in EMOTIONS], expected, atol=1e-5)


def test_folders_formats_and_what_cannot_be_read(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    faces = tmp_path / "faces"
    (faces / "below").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(picture).save(faces / "a.jpg")
    Image.fromarray(picture).save(faces / "below" / "=cmd()|<script>.png")
    (faces / "notes.txt").write_text("no picture")
    (faces / ".hidden.png").write_bytes(b"x")
    run = ["predict", "best:tiny/synthetic-plain", faces, "--results", tiny_results]
    assert emobench(*run) == 0
    table = capfd.readouterr().out
    assert "a.jpg" in table
    assert "contempt" in table
    assert emobench(*run, "--format", "csv", "--out", tmp_path / "new" / "deep" / "out.csv") == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "deep" / "out.csv").read_text())))
    assert list(rows[0]) == ["file", "emotion", *EMOTIONS]
    assert [Path(row["file"]).name for row in rows] == ["a.jpg", "=cmd()|<script>.png"]
    assert sum(float(rows[0][emotion]) for emotion in EMOTIONS) == pytest.approx(1, abs=1e-4)
    (faces / "broken.jpg").write_bytes(b"<html>")
    assert emobench(*run, "--format", "json", "--out", tmp_path / "out.json") == 1
    assert "broken.jpg: not an intact image (a web page)" in capfd.readouterr().err
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("best:tiny/fer2013", "unknown choice 'best:tiny/fer2013'. Known: best:tiny/synthetic-plain"),
        ("best:demo/synthetic", "this suite was never run here"),
        ("tiny/synthetic-plain/resnet81", "did you mean 'tiny/synthetic-plain/resnet18'"),
        ("0000", "no cell '0000' in"),
        ("*", r"no cell '\*' in"),
    ],
)
def test_an_unknown_run_is_refused(
    emobench: Callable[..., int],
    tiny_results: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    run: str,
    message: str,
) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    assert emobench("predict", run, tmp_path / "a.png", "--results", tiny_results) == 2
    assert message.replace("\\", "") in capfd.readouterr().err


def test_a_missing_picture_is_refused(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert emobench("predict", "best:tiny/synthetic-plain", tmp_path / "no.png", "--results", tiny_results) == 2
    assert "no.png: no such file or folder" in capfd.readouterr().err
