"""Pictures of samples and intensities say which emotion a line of faces was asked for."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from conftest import RESULTS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from reading import pages

from emobench.cli import main
from emobench.errors import RawError
from emobench.report import figures
from emobench.runner.store import WEBP

SIDE = 48


def faces(path: Path, lines: int, columns: int) -> np.ndarray:
    """A grid of squares of one gray level each, as a cell makes it."""
    levels = np.linspace(40, 220, lines * columns).reshape(lines, columns)
    pixels = np.repeat(levels.repeat(SIDE, 0).repeat(SIDE, 1)[..., None], 3, 2).round().astype(np.uint8)
    Image.fromarray(pixels).save(path, "WEBP", lossless=True)
    return pixels


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_every_face_keeps_its_pixels_beside_the_names(tmp_path: Path) -> None:
    pixels = faces(tmp_path / "made.webp", 3, 5)
    before = (tmp_path / "made.webp").read_bytes()
    figures.grid(tmp_path / "a.webp", tmp_path / "made.webp", ["happy", "sad", "fear"])
    figures.grid(tmp_path / "b.webp", tmp_path / "made.webp", ["happy", "sad", "fear"], ["0", "¼", "½", "¾", "1"])
    one, other = drawn(tmp_path / "a.webp"), drawn(tmp_path / "b.webp")
    for picture in (one, other):
        shown = picture[-pixels.shape[0] :, -pixels.shape[1] :]
        assert np.abs(shown.astype(int) - pixels).mean() < 3
        left = picture[-pixels.shape[0] :, : -pixels.shape[1]].reshape(3, SIDE, -1)
        assert (left.min((1, 2)) < 120).all()  # a name beside every line
    assert one.shape[0] == pixels.shape[0]
    top = other[: -pixels.shape[0], -pixels.shape[1] :]
    assert all(part.min() < 120 for part in np.split(top, 5, 1))  # and above every column
    assert (tmp_path / "made.webp").read_bytes() == before


def test_a_picture_is_drawn_again_where_what_it_shows_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep writes its board after every cell, and most of its pictures show what they showed before."""
    times: list[object] = []
    draw = FigureCanvasAgg.draw

    def counted(canvas: FigureCanvasAgg) -> None:
        times.append(canvas)
        draw(canvas)

    monkeypatch.setattr(FigureCanvasAgg, "draw", counted)
    monkeypatch.setattr(figures, "_drawn", OrderedDict())  # whatever other tests drew in this process
    path, made = tmp_path / "a.webp", tmp_path / "made.webp"
    faces(made, 3, 5)

    def write(shares: list[float], lines: list[str], sign: str) -> tuple[bytes, ...]:
        matrix = np.array(shares).reshape(2, 2)
        figures.confusion(tmp_path / "new" / f"{sign}.webp", matrix, ["happy", "sad"], "vit")
        figures.grid(path, made, lines)
        return (tmp_path / "new" / f"{sign}.webp").read_bytes(), path.read_bytes()

    names = ["happy", "sad", "fear"]
    first = write([0.25, 0.75, 1, 0], names, "here")
    assert len(times) == 2
    path.unlink()
    assert write([0.25, 0.75, 1, 0], names, "there") == first
    assert len(times) == 2
    other = write([0.5, 0.5, 1, 0], [*names[:2], "anger"], "there")
    assert len(times) == 4
    assert all(one != another for one, another in zip(first, other, strict=True))
    Image.open(made).transpose(Image.Transpose.ROTATE_180).save(made, "WEBP", lossless=True)
    assert write([0.25, 0.75, 1, 0], names, "here")[0] == first[0]
    assert len(times) == 5  # the faces changed under their file's name
    assert path.read_bytes() != first[1]


def test_a_chart_keeps_its_colours_in_half_of_the_bytes(tmp_path: Path) -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(8), 8)
    emotions = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"]
    for name in ("a.png", "a.webp"):
        figures.confusion(tmp_path / name, shares, emotions, "vit")
    whole, kept = drawn(tmp_path / "a.png"), drawn(tmp_path / "a.webp")
    assert len(np.unique(kept.reshape(-1, 3), axis=0)) <= figures.COLOURS
    assert np.abs(whole.astype(int) - kept).mean() < 1  # of 255
    with Image.open(tmp_path / "a.png") as picture:
        picture.convert("RGB").save(tmp_path / "b.webp", "WEBP", **WEBP)
    assert (tmp_path / "a.webp").stat().st_size < 0.6 * (tmp_path / "b.webp").stat().st_size


@pytest.mark.parametrize(("lines", "columns"), [(4, 0), (3, 4), (0, 0)])
def test_another_grid_is_refused(tmp_path: Path, lines: int, columns: int) -> None:
    faces(tmp_path / "made.webp", 3, 5)
    with pytest.raises(RawError, match=f"is no grid of {lines} lines"):
        figures.grid(tmp_path / "a.webp", tmp_path / "made.webp", ["x"] * lines, ["y"] * columns)
    assert not (tmp_path / "a.webp").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (RESULTS / "reference-style").exists(), reason="the reference boards are not here")
def test_a_board_shows_the_named_pictures(tmp_path: Path) -> None:
    for name in ("reference-style", "judges"):
        shutil.copytree(RESULTS / name, tmp_path / name)
    board = tmp_path / "reference-style"
    with pytest.raises(SystemExit) as stop:
        main(["report", "reference-style", "--results", str(tmp_path)])
    assert not stop.value.code
    page = pages(board)
    named = sorted(path.name for path in (board / "figures").glob("*-of-*.webp"))
    assert {name.partition("-of-")[0] for name in named} == {"samples", "intensity"}
    assert all(f"(figures/{name})" in page for name in named)
    assert "samples.webp)" not in page
