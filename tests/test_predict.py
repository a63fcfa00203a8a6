"""A finished cell put to use on pictures, by the real command."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.data import astronaut
from test_identity import entry

from emobench.commands import detect
from emobench.commands.detect import Box, CascadeDetector, square
from emobench.data.datasets.synthetic import Synthetic
from emobench.runner.store import load_board

Emobench = Callable[..., int]
RUN = "best:tiny/synthetic-plain"
FACE = Box(175, 65, 275, 180)  # of the astronaut, about
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


# ---- faces that are found first --------------------------------------------------------------------------------------


def said(emobench: Emobench, capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """What `predict` says as JSON."""
    capsys.readouterr()
    assert emobench("predict", RUN, *arguments, "--format", "json") == code
    return json.loads(capsys.readouterr().out)


def common(one: Box, other: Box) -> float:
    """Intersection over union."""
    both = Box(max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    inside = both.area if both.right > both.left and both.bottom > both.top else 0
    return inside / (one.area + other.area - inside)


def box(row: dict[str, Any]) -> Box:
    return Box(*(row[edge] for edge in ("left", "top", "right", "bottom")))


def test_every_face_is_found_the_largest_first_and_read_as_its_box_alone(
    emobench: Emobench, tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.full((600, 900, 3), 90, np.uint8)
    face = astronaut()[40:200, 150:310]  # 160 px
    picture[40:200, 50:210] = face
    picture[200:520, 500:820] = np.asarray(Image.fromarray(face).resize((320, 320)))
    Image.fromarray(picture).save(tmp_path / "two.png")
    rows = said(emobench, capsys, tmp_path / "two.png", "--detect", "--results", tiny_results)
    assert [row["face"] for row in rows] == [1, 2]
    assert {row["detector"] for row in rows} == {"scikit-image cascade"}
    assert list(rows[0])[:8] == ["file", "face", "left", "top", "right", "bottom", "detector", "emotion"]
    large, small = map(box, rows)
    assert common(large, Box(550, 250, 750, 480)) > 0.6
    assert common(small, Box(75, 65, 175, 180)) > 0.6
    for number, (row, place) in enumerate(zip(rows, (large, small), strict=True)):
        Image.fromarray(picture).crop(square(place, 0, 600, 900)).save(tmp_path / f"{number}.png")
        (alone,) = said(emobench, capsys, tmp_path / f"{number}.png", "--results", tiny_results)
        for emotion in EMOTIONS:
            assert alone[emotion] == pytest.approx(row[emotion], abs=1e-5)
    wide = said(emobench, capsys, tmp_path / "two.png", "--detect", "--margin", 0.5, "--results", tiny_results)
    assert [box(row) for row in wide] == [large, small]
    assert wide[0]["happy"] != rows[0]["happy"]


def test_that_no_face_is_found_is_an_answer(
    emobench: Emobench, tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (300, 200), "gray").save(tmp_path / "none.png")
    Image.new("RGB", (3, 2), "gray").save(tmp_path / "tiny.png")
    run = [tmp_path / "none.png", tmp_path / "tiny.png", "--detect", "--results", tiny_results]
    none, tiny = said(emobench, capsys, *run)
    assert none == {
        **dict.fromkeys(["face", "left", "top", "right", "bottom", "emotion", *EMOTIONS]),
        "file": str(tmp_path / "none.png"),
        "detector": "scikit-image cascade",
    }
    assert tiny["emotion"] is None
    assert emobench("predict", RUN, *run, "--format", "csv") == 0
    row, _ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["face"], row["emotion"], row["happy"]) == ("", "", "")
    assert emobench("predict", RUN, *run) == 0
    printed = capsys.readouterr()
    assert printed.out.count("no face found") == 2
    assert "faces found by scikit-image's cascade" in printed.err


@pytest.mark.parametrize("variant", [pytest.param("plain", marks=pytest.mark.long), "standard"])
def test_drawn_faces_are_found_where_they_are(variant: str) -> None:
    data = Synthetic(size=48, variant=variant, train=16, val=16, test=16)
    data.prepare()
    find, found = CascadeDetector(), 0
    for face in data.images[:20]:
        large = Image.fromarray(np.ascontiguousarray(np.broadcast_to(face, (3, 48, 48)).transpose(1, 2, 0)))
        picture = Image.new("RGB", (1600, 1200), "gray")  # is looked at scaled down
        picture.paste(large.resize((640, 640), Image.Resampling.BICUBIC), (480, 280))
        boxes = find(np.asarray(picture).transpose(2, 0, 1))
        found += bool(boxes) and common(boxes[0], Box(560, 360, 1040, 840)) > 0.5
    assert found >= 16


@pytest.mark.parametrize(
    ("given", "margin", "expected"),
    [
        (Box(10, 10, 30, 50), 0, Box(0, 10, 40, 50)),
        (Box(10, 10, 30, 50), 0.25, Box(0, 0, 60, 60)),
        (Box(-8, -4, 12, 16), 0, Box(0, 0, 20, 20)),
        (Box(90, 40, 130, 80), 0, Box(60, 40, 100, 80)),
        (Box(0, 0, 200, 200), 1, Box(20, 0, 100, 80)),
    ],
)
def test_the_square_around_a_face_lies_in_the_picture(given: Box, margin: float, expected: Box) -> None:
    assert square(given, margin, 80, 100) == expected


def node(kind: str, given: list[str], made: str, **attributes: list[int]) -> bytes:
    """A node of an ONNX graph."""
    said = b"".join(
        entry(5, entry(1, name) + b"".join(entry(8, value) for value in values) + entry(20, 7))
        for name, values in attributes.items()
    )
    return entry(1, b"".join(entry(1, name) for name in given) + entry(2, made) + entry(4, kind) + said)


def tensor(name: str, shape: list[int], kind: int, raw: bytes) -> bytes:
    return entry(5, b"".join(entry(1, size) for size in shape) + entry(2, kind) + entry(8, name) + entry(9, raw))


def bright_spots(path: Path) -> Path:
    """An ONNX file of YuNet's form that takes each bright square of 8 px for the middle of a face of 32 px."""
    nodes, constants, outputs = b"", b"", b""
    for stride in (8, 16, 32):
        nodes += node("AveragePool", ["input"], f"pool_{stride}", kernel_shape=[stride] * 2, strides=[stride] * 2)
        for what, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{what}_{stride}"
            weight = 1 / 765 if channels == 1 and stride == 8 else 0.0  # of three channels up to 255
            bias = [0.5, 0.5, math.log(4), math.log(4)] if what == "bbox" else [0.0] * channels
            constants += tensor(
                f"w_{name}", [channels, 3, 1, 1], 1, struct.pack(f"<{3 * channels}f", *[weight] * 3 * channels)
            )
            constants += tensor(f"b_{name}", [channels], 1, struct.pack(f"<{channels}f", *bias))
            constants += tensor(f"s_{name}", [3], 7, struct.pack("<3q", 1, -1, channels))
            nodes += node("Conv", [f"pool_{stride}", f"w_{name}", f"b_{name}"], f"c_{name}", kernel_shape=[1, 1])
            nodes += node("Transpose", [f"c_{name}"], f"t_{name}", perm=[0, 2, 3, 1])
            nodes += node("Reshape", [f"t_{name}", f"s_{name}"], name)
            sizes = b"".join(entry(1, entry(1, size)) for size in (1, (320 // stride) ** 2, channels))
            outputs += entry(12, entry(1, name) + entry(2, entry(1, entry(1, 1) + entry(2, sizes))))
    sizes = b"".join(entry(1, entry(1, size)) for size in (1, 3, 320, 320))
    given = entry(11, entry(1, "input") + entry(2, entry(1, entry(1, 1) + entry(2, sizes))))
    graph = nodes + entry(2, "bright") + constants + given + outputs
    path.write_bytes(entry(1, 8) + entry(7, graph) + entry(8, entry(1, "") + entry(2, 13)))
    return path


def test_yunet_finds_the_faces_where_its_file_is_given(
    emobench: Emobench, tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[80:88, 160:168] = 255
    picture[160:168, 40:48] = 230
    Image.fromarray(picture).save(tmp_path / "spots.png")
    Image.fromarray(picture).resize((1280, 853), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
    network = bright_spots(tmp_path / "spots.onnx")
    run = [tmp_path / "spots.png", tmp_path / "large.png", "--detector", network, "--results", tiny_results]
    rows = said(emobench, capsys, *run)
    assert {row["detector"] for row in rows} == {"YuNet"}
    found = {box(row) for row in rows if row["file"].endswith("spots.png")}
    assert found == {Box(148, 68, 180, 100), Box(28, 148, 60, 180)}
    large = [box(row) for row in rows if row["file"].endswith("large.png")]  # looked at half as large: boxes of 64 px
    middles = [((each.left + each.right) / 2 * 300 / 1280, (each.top + each.bottom) / 2 * 300 / 1280) for each in large]
    np.testing.assert_allclose(sorted(middles), [(44, 164), (164, 84)], atol=4)


def test_a_detector_that_is_none_is_refused(
    emobench: Emobench,
    tiny_results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from test_identity import network

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "text.onnx").write_text("no network")
    network(tmp_path / "other.onnx", 1, 3, 64, 64)
    for name, text in (
        ("none.onnx", "no such file. It is YuNet's ONNX file"),
        ("text.onnx", "OpenCV cannot use it as YuNet"),
        ("other.onnx", "OpenCV cannot use it as YuNet"),
    ):
        run = ["predict", RUN, tmp_path / "a.png", "--detector", tmp_path / name, "--results", tiny_results]
        assert emobench(*run) == 2
        assert f"emobench: --detector {tmp_path / name}: {text}" in capfd.readouterr().err
    for module in ("skimage.data", "skimage.feature"):
        monkeypatch.setitem(sys.modules, module, None)
    assert emobench("predict", RUN, tmp_path / "a.png", "--detect", "--results", tiny_results) == 2
    assert "pip install 'emobench[detect]'" in capfd.readouterr().err


def test_pictures_are_turned_as_exif_says(
    emobench: Emobench, tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = Image.fromarray(astronaut())
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    photo.save(tmp_path / "upright.png")
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png")
    files = [tmp_path / f"{name}.png" for name in ("upright", "turned", "lying")]
    upright, turned, lying = said(emobench, capsys, *files, "--results", tiny_results)
    assert {**turned, "file": ""} == {**upright, "file": ""}
    assert lying["happy"] != upright["happy"]
    (found,) = said(emobench, capsys, tmp_path / "turned.png", "--detect", "--results", tiny_results)
    assert common(box(found), FACE) > 0.6


# ---- videos ----------------------------------------------------------------------------------------------------------


def film(path: Path, frames: list[np.ndarray], fps: float = 10.0) -> Path:
    """A video of frames uint8 (h, w, 3)."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    size = frames[0].shape[1::-1] if frames else (64, 64)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a person, who is away for one of them."""
    person, nobody = astronaut()[:300, 50:450], np.full((300, 400, 3), 90, np.uint8)
    frames = [np.roll(nobody if 10 <= k < 20 else person, 2 * k, 1) for k in range(30)]
    return film(tmp_path_factory.mktemp("clip") / "clip.mp4", frames)


def test_a_video_is_read_frame_by_frame(
    emobench: Emobench, tiny_results: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "charts" / "strip.png"
    rows = said(emobench, capsys, clip, "--detect", "--chart", chart, "--results", tiny_results)
    assert [row["time"] for row in rows if row["face"] in (1, None)] == pytest.approx(np.arange(30) / 10)
    for row in rows:
        if not 10 <= round(10 * row["time"]) < 20:
            middle = (row["left"] + row["right"]) / 2
            assert row["face"] != 1 or middle == pytest.approx(175 + 20 * row["time"], abs=15)  # it moves
        else:
            assert row["emotion"] is None
    with Image.open(chart) as drawn:
        assert drawn.format == "PNG"
        pixels = np.asarray(drawn.convert("RGB"))
    dark = (pixels == (0x1D, 0x4E, 0xD8)).all(-1).any(0)  # where an emotion is read
    columns = np.flatnonzero(dark)
    gap = np.flatnonzero(~dark[columns[0] : columns[-1]])
    assert len(gap) == pytest.approx((columns[-1] - columns[0]) / 3, rel=0.1)  # nobody is there for a third
    sparse = said(emobench, capsys, clip, "--every", 0.7, "--results", tiny_results)
    assert [row["time"] for row in sparse] == pytest.approx([0, 0.7, 1.4, 2.1, 2.8])
    assert list(sparse[0]) == ["file", "time", "emotion", *EMOTIONS]


def test_a_chart_is_of_one_video(
    emobench: Emobench, tiny_results: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "there.png").write_text("mine")
    for given, chart, text in (
        ([tmp_path / "a.png"], "strip.png", "a chart is of one video"),
        ([clip, clip], "strip.png", "a chart is of one video"),
        ([clip], "strip.mp3", "a chart is a .png or a .webp"),
        ([clip], "there.png", "is there already. --force overwrites it"),
    ):
        assert emobench("predict", RUN, *given, "--chart", tmp_path / chart, "--results", tiny_results) == 2
        assert text in capsys.readouterr().err
    assert (tmp_path / "there.png").read_text() == "mine"


@pytest.mark.timeout(120)
def test_videos_that_are_none_are_named_and_the_others_answered(
    emobench: Emobench, tiny_results: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = [np.random.default_rng(k).integers(0, 256, (64, 64, 3), np.uint8) for k in range(40)]
    whole = film(tmp_path / "whole.avi", noise).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    film(tmp_path / "no-frames.avi", [])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1\nfile://{clip}\n")  # a playlist, which would be followed
    os.mkfifo(tmp_path / "pipe.mp4")
    Image.new("1", (9000, 8000)).save(tmp_path / "huge.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    wrong = {
        "half.avi": "ends after 20 of the 40 frames",
        "cut.mp4": "a video that cannot be opened",
        "no-frames.avi": "a video without a frame that can be read",
        "empty.mp4": "a video of 0 bytes",
        "folder.mp4": "a folder, and no picture lies in it",
        "list.mp4": "no video by its content",
        "pipe.mp4": "a FIFO (a named pipe), no regular file",
        "huge.png": "9000 x 8000 pixels, more than 64 million",
    }
    files = [tmp_path / name for name in wrong]
    run = ["predict", RUN, *files, tmp_path / "good.png", tmp_path / "whole.avi", "--results", tiny_results]
    assert emobench(*run, "--format", "json") == 1
    printed = capfd.readouterr()
    for name, text in wrong.items():
        assert f"emobench: {tmp_path / name}: {text}" in printed.err
    answered = [(Path(row["file"]).name, row["time"]) for row in json.loads(printed.out)]
    assert answered == [
        *(("half.avi", k / 10) for k in range(20)),
        ("good.png", None),
        *(("whole.avi", k / 10) for k in range(40)),
    ]


# ---- standard input, large folders, and what is written --------------------------------------------------------------


def test_standard_input_is_one_picture(
    emobench: Emobench,
    tiny_results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(astronaut()).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    piped, named = said(emobench, capsys, "-", tmp_path / "a.jpg", "--results", tiny_results)
    assert {**piped, "file": ""} == {**named, "file": ""}
    assert piped["file"] == "standard input"
    for given, text in ((b"", "0 bytes"), (b"<html>", "a web page"), (data[:9000], "truncated")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert emobench("predict", RUN, "-", "--format", "json", "--results", tiny_results) == 1
        printed = capsys.readouterr()
        assert json.loads(printed.out) == []
        assert "emobench: standard input: not an intact image (" in printed.err
        assert text in printed.err


def pictures(folder: Path, n: int) -> Path:
    folder.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    large = Image.fromarray(coarse).resize((600, 600), Image.Resampling.BICUBIC)  # 1 MiB each, decoded
    large.save(folder / "000.jpg")
    for k in range(1, n):
        os.link(folder / "000.jpg", folder / f"{k:03d}.jpg")
    return folder


def test_a_large_folder_needs_the_memory_of_a_small_one(emobench: Emobench, tiny_results: Path, tmp_path: Path) -> None:
    peaks = []
    for n in (20, 150):
        folder = pictures(tmp_path / str(n), n)
        for form in ("csv", "table"):
            run = ["predict", RUN, folder, "--format", form, "--out", tmp_path / f"{n}.{form}"]
            tracemalloc.start()
            assert emobench(*run, "--results", tiny_results) == 0
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert len((tmp_path / f"{n}.{form}").read_text().splitlines()) == n + 1
    assert max(peaks[2:]) < max(peaks[:2]) + 4 * 2**20  # 64 faces of 32 px, and their rows


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_rows_are_written_as_they_come_and_a_bar_shows_how_far(tiny_results: Path, clip: Path, tmp_path: Path) -> None:
    """The last picture comes when the rows of the first ones have been seen; the bar is drawn on a terminal alone."""
    folder = pictures(tmp_path / "faces", 70)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "emobench", "predict", RUN, str(folder), str(cut), "-", "--format", "jsonl"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "300", "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [*command, "--results", str(tiny_results)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    assert process.stdout is not None
    rows = [json.loads(process.stdout.readline()) for _ in range(64)]
    assert [Path(row["file"]).name for row in rows] == [f"{k:03d}.jpg" for k in range(64)]
    rest, _ = process.communicate((folder / "000.jpg").read_bytes())
    assert [json.loads(line)["file"] for line in rest.splitlines()][-1] == "standard input"
    assert process.returncode == 1
    shown = os.read(ours, 2**16).decode()
    os.close(ours)
    assert "pictures and frames" in shown
    assert "/72" in shown
    assert "cut.mp4: a video that cannot be opened" in shown
    assert "moov" not in shown  # what FFmpeg says by itself


def test_a_file_that_is_there_is_kept_unless_it_is_said(
    emobench: Emobench, tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for form in ("table", "csv", "json", "jsonl"):
        out = tmp_path / f"out.{form}"
        out.write_text("mine")
        run = ["predict", RUN, tmp_path / "a.png", "--format", form, "--out", out, "--results", tiny_results]
        assert emobench(*run) == 2
        assert "is there already. --force overwrites it" in capsys.readouterr().err
        assert out.read_text() == "mine"
        assert emobench(*run, "--force") == 0
        assert str(tmp_path / "a.png") in out.read_text()
    assert json.loads((tmp_path / "out.jsonl").read_text())["file"] == str(tmp_path / "a.png")


def test_the_faces_of_the_cascade_are_kept_apart() -> None:
    inside, beside, large = Box(10, 10, 30, 30), Box(90, 0, 150, 60), Box(0, 0, 100, 100)
    assert detect._apart([inside, beside, large]) == [large, beside]
