"""People edited, moods that change, and pictures painted by finished networks, by the real command."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import GENERATORS_SUITE
from filelock import FileLock
from PIL import Image
from reading import best_that_draws

import emobench as package
from emobench.commands import morph
from emobench.data.readers.images import resized

Emobench = Callable[..., int]
EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
STYLES = (
    GENERATORS_SUITE.partition("[model.cvae]")[0]
    + """
[model.labels]
class = "cnn21"
padding = true
size = 32
dense = [64, 16]
batch = 32
epochs = 2
patience = "none"
augment = "none"

[model.style_transfer]
size = 32
width = 4
perceptual = "guide"
content_layer = "relu1_2"
style_layers = ["relu1_2"]
style_weight = 100.0
needs = { guide = "vgg16", classifier = "labels" }
batch = 32
epochs = 1

[evaluation]
fidelity = 640
per_emotion = 8
sources = 16
"""
)


def picture(path: Path) -> np.ndarray:
    """uint8 (3, h, w) of a PNG."""
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened.convert("RGB")).transpose(2, 0, 1)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def smooth(seed: int, height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Pictures of one name in two folders, one that is wide, and one that is none."""
    folder = tmp_path / "people"
    for k, name in enumerate(("a/anna.png", "b/anna.jpg", "b/wide.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        smooth(k, 40, 80 if "wide" in name else 40).save(folder / name)
    (folder / "b" / "broken.png").write_bytes(b"<html>")
    return folder


@pytest.fixture(scope="session")
def painted(generated: Path) -> Path:
    """The results with a board of style transfer beside the others, whose classifiers it shares."""
    from emobench.cli import main

    results = generated.parent / "painted"
    with FileLock(generated.parent / "painted.lock"):
        if not (results / "done").exists():
            shutil.copytree(generated, results, dirs_exist_ok=True)
            (results / "styles.toml").write_text(STYLES, encoding="utf-8")
            with pytest.raises(SystemExit) as stop:
                main(["bench", str(results / "styles.toml"), "--results", str(results)])
            assert not stop.value.code
            (results / "done").touch()
    return results


# ---- edits -----------------------------------------------------------------------------------------------------------


def test_every_picture_is_edited_to_every_emotion_that_is_named(
    generated: Path, emobench: Emobench, people: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run = ["edit", "made/synthetic-plain/vit_cvae", people, "--to", "surprised", "--to", "joy", "--seed", 3]
    assert emobench(*run, "--results", generated, "--out", out) == 1  # one cannot be read
    said = capfd.readouterr()
    assert "edited by vit_cvae on synthetic-plain, seed 0" in said.err
    assert "broken.png: not an intact image (a web page)" in said.err
    assert "wide.png: not square, so squeezed into one" in said.err
    assert f"6 edits of 32 x 32 px are in {out}" in said.out
    rows = table(out / "edits.csv")
    assert [(row["file"], Path(row["source"]).name, row["emotion"], row["seed"]) for row in rows] == [
        (f"{name}-{emotion}.png", source, emotion, "3")
        for name, source in (("anna", "anna.png"), ("anna-2", "anna.jpg"), ("wide", "wide.png"))
        for emotion in ("surprise", "happy")
    ]
    assert {path.name for path in out.iterdir()} == {"edits.csv", "sheet.png", *(row["file"] for row in rows)}
    model = package.load(generated, "made", "vit_cvae")
    given = resized(picture(people / "a" / "anna.png"), 32)
    expected = model.edit(torch.from_numpy(given)[None], ["surprise"], [3])[0].numpy()
    assert np.abs(picture(out / "anna-surprise.png").astype(int) - expected).max() <= 1  # another batch
    assert emobench(*run, "--results", generated, "--out", out) == 2
    assert "is there already (and 7 more)" in capfd.readouterr().err


def test_an_edit_is_its_intensity_and_its_seed_whatever_else_is_edited(
    generated: Path, emobench: Emobench, people: Path, tmp_path: Path
) -> None:
    (people / "b" / "broken.png").unlink()
    run = ["edit", "made/synthetic-plain/diffusion", "--to", "happy", "--results", generated]
    anna = people / "a" / "anna.png"
    for name, images, options in (
        ("alone", [anna], []),
        ("again", [anna], []),
        ("together", [people], []),
        ("half", [anna], ["--intensity", 0.5]),
        ("other", [anna], ["--seed", 1]),
    ):
        assert emobench(*run, *images, *options, "--out", tmp_path / name) == 0
    alone, half = (tmp_path / name for name in ("alone/anna-happy.png", "half/anna-happy-0.5.png"))
    assert alone.read_bytes() == (tmp_path / "again" / "anna-happy.png").read_bytes()
    assert np.abs(picture(alone).astype(int) - picture(tmp_path / "together" / "anna-happy.png")).max() <= 1
    assert not np.array_equal(picture(alone), picture(half))
    assert not np.array_equal(picture(alone), picture(tmp_path / "other" / "anna-happy.png"))
    assert table(tmp_path / "half" / "edits.csv")[0]["intensity"] == "0.5"


def test_a_picture_on_standard_input_is_edited(
    generated: Path, emobench: Emobench, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (people / "a" / "anna.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    run = ["edit", "made/synthetic-plain/vit_cvae", "--to", "sad", "--results", generated]
    assert emobench(*run, "-", "--out", tmp_path / "piped") == 0
    assert emobench(*run, people / "a" / "anna.png", "--out", tmp_path / "named") == 0
    piped, named = (tmp_path / name for name in ("piped/stdin-sad.png", "named/anna-sad.png"))
    assert piped.read_bytes() == named.read_bytes()
    assert table(tmp_path / "piped" / "edits.csv")[0]["source"] == "standard input"


def test_what_cannot_be_edited_is_refused(
    generated: Path, emobench: Emobench, people: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for run, said in (
        (["made/synthetic-plain/resnet18", people, "--to", "sad"], "it reads faces. Name a row that edits faces"),
        (["made/synthetic-plain/stargan", people, "--to", "sda"], "unknown emotion 'sda': did you mean 'sad'?"),
        (["made/synthetic-plain/stargan", tmp_path / "none.png", "--to", "sad"], "none.png: no such file or folder"),
        (["made/synthetic-plain/stargan", tmp_path / "empty", "--to", "sad"], "no picture in"),
    ):
        assert emobench("edit", *run, "--results", generated, "--out", tmp_path / "out") == 2
        assert said in capfd.readouterr().err
        assert not (tmp_path / "out").exists()


# ---- morphs ----------------------------------------------------------------------------------------------------------


def frames(path: Path) -> np.ndarray:
    """uint8 (frames, h, w, 3) of a GIF or an MP4."""
    found = []
    if path.suffix == ".gif":
        with Image.open(path) as opened:
            for place in range(getattr(opened, "n_frames", 1)):
                opened.seek(place)
                found.append(np.asarray(opened.convert("RGB")))
        return np.stack(found)
    capture = cv2.VideoCapture(str(path))
    while True:
        good, frame = capture.read()
        if not good:
            return np.stack(found)
        found.append(frame[..., ::-1])


def test_a_morph_is_one_persons_way_in_every_form(
    generated: Path, emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ["morph", "made/synthetic-plain/vit_cvae", "--from", "neutral", "--to", "joyful", "--seed", 2]
    run += ["--results", generated, "--frames", 6, "--out"]
    for name in ("smile.gif", "smile.mp4", "smile.png"):
        assert emobench(*run, tmp_path / name) == 0
        said = capfd.readouterr()
        assert "drawn by vit_cvae on synthetic-plain, seed 0" in said.err
        assert f"6 frames{'' if name.endswith('png') else ' of 256 x 256 px'}" in said.out
    assert emobench("morph", "best:made/synthetic-plain", *run[2:], tmp_path / "best.png") == 0
    best = f"{best_that_draws(generated).model} on synthetic-plain, seed 0, the best of 3 by calibrated control"
    assert f"drawn by {best}" in capfd.readouterr().err
    model = package.load(generated, "made", "vit_cvae")
    shares = torch.linspace(0, 1, 6)[:, None]
    weights = (1 - shares) * torch.eye(8)[0] + shares * torch.eye(8)[1]
    expected = model.sample(weights, torch.full((6,), 2)).numpy().transpose(0, 2, 3, 1).astype(int)
    expected = expected.repeat(8, 1).repeat(8, 2)
    gif, film = frames(tmp_path / "smile.gif"), frames(tmp_path / "smile.mp4")
    assert gif.shape == film.shape == (6, 256, 256, 3)
    assert np.abs(gif - expected).mean() < 2  # 256 colours
    assert np.abs(film - expected).mean() < 4  # a lossy film
    with Image.open(tmp_path / "smile.gif") as opened:
        assert opened.info["loop"] == 0  # without end
        assert opened.info["duration"] == 80
    strip = picture(tmp_path / "smile.png").transpose(1, 2, 0)
    np.testing.assert_array_equal(strip[8:136, 8:136], expected[0, ::8, ::8].repeat(4, 0).repeat(4, 1))
    assert emobench(*run, tmp_path / "smile.gif") == 2
    assert "smile.gif: is there already. --force overwrites it" in capfd.readouterr().err
    assert emobench(*run, tmp_path / "smile.gif", "--force", "--back") == 0
    again = frames(tmp_path / "smile.gif")
    assert len(again) == 10
    np.testing.assert_array_equal(again[:6], gif)
    np.testing.assert_array_equal(again[6:], gif[4:0:-1])


def test_a_picture_is_edited_frame_by_frame(
    generated: Path, emobench: Emobench, people: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ["morph", "made/synthetic-plain/stargan", "--to", "anger", "--frames", 3, "--results", generated]
    assert emobench(*run, "--image", people / "a" / "anna.png", "--out", tmp_path / "anna.gif") == 0
    assert f"3 frames of 256 x 256 px, 12.5 a second, of {people / 'a' / 'anna.png'}" in capfd.readouterr().out
    model = package.load(generated, "made", "stargan")
    given = torch.from_numpy(resized(picture(people / "a" / "anna.png"), 32))[None]
    made = model.edit(given, torch.tensor([[0.5, 0, 0, 0, 0, 0, 0.5, 0]]), torch.tensor([0]))[0].numpy()
    assert emobench(*run, "--image", people / "a" / "anna.png", "--out", tmp_path / "anna.png") == 0
    strip = picture(tmp_path / "anna.png")[:, 8:136:4, 8::4]  # a face is 128 px wide, and 8 px lie between two
    assert np.abs(strip[:, :, 34:66].astype(int) - made).max() <= 1
    assert emobench(*run, "--out", tmp_path / "drawn.gif") == 2
    assert "it edits faces, and draws none" in capfd.readouterr().err
    assert emobench(*run, "--image", people / "b" / "broken.png", "--out", tmp_path / "broken.gif") == 2
    assert "broken.png: not an intact image (a web page)" in capfd.readouterr().err
    assert emobench(*run, "--out", tmp_path / "film.webm") == 2
    assert "a morph is a .gif, an .mp4, or a strip of pictures, .png" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["anna.gif", "anna.png"]


def test_a_film_whose_codecs_are_not_there_or_that_cannot_be_read_again_is_none(
    generated: Path,
    emobench: Emobench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = ["morph", "made/synthetic-plain/vit_cvae", "--to", "sad", "--frames", 2, "--results", generated, "--out"]
    monkeypatch.setattr(morph, "_CODECS", {"zzzz": "Nobody's", "mp4v": "MPEG-4"})
    assert emobench(*run, tmp_path / "a.mp4") == 0
    assert "12 a second, MPEG-4" in capfd.readouterr().out
    assert len(frames(tmp_path / "a.mp4")) == 2
    monkeypatch.setattr(morph, "_LIKE", -1)  # nothing is like what was written
    assert emobench(*run, tmp_path / "b.mp4") == 2
    said = capfd.readouterr().err
    assert "no MP4 can be written here (Nobody's: not in this OpenCV; MPEG-4: frame 0 is another picture" in said
    assert not (tmp_path / "b.mp4").exists()


# ---- styles ----------------------------------------------------------------------------------------------------------


def test_pictures_keep_their_form_in_the_style_that_is_read_or_named(
    painted: Path, emobench: Emobench, people: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ["stylize", "best:styles/synthetic-plain", people, "--results", painted]
    assert emobench(*run, "--out", tmp_path / "read") == 1
    said = capfd.readouterr()
    assert "painted by style_transfer on synthetic-plain, seed 0, the only candidate, calibrated control " in said.err
    assert "broken.png: not an intact image" in said.err
    model = package.load(painted, "styles", "style_transfer")
    wide = torch.from_numpy(picture(people / "b" / "wide.png").copy())[None]
    emotion = EMOTIONS[int(model.label(wide).argmax())]
    made = picture(tmp_path / "read" / f"wide-{emotion}.png")
    assert made.shape == (3, 40, 80)
    np.testing.assert_array_equal(made, model.stylize(wide)[0].numpy())
    assert table(tmp_path / "read" / "styles.csv")[2]["which"] == "read in the picture"
    assert emobench(*run, "--emotion", "angry", "--longest", 40, "--out", tmp_path / "named") == 1
    assert "1 scaled down to 40 px" in capfd.readouterr().err
    assert {path.name for path in (tmp_path / "named").glob("*-anger.png")} == {
        "anna-anger.png", "anna-2-anger.png", "wide-anger.png",
    }  # fmt: skip
    assert picture(tmp_path / "named" / "wide-anger.png").shape == (3, 20, 40)
    assert emobench(*run, "--emotion", "angry", "--out", tmp_path / "named") == 2
    assert "is there already" in capfd.readouterr().err


def test_a_picture_that_is_too_small_costs_itself_alone(
    painted: Path, emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    smooth(0, 3, 3).save(tmp_path / "tiny.png")
    smooth(1, 30, 20).save(tmp_path / "good.png")
    run = ["stylize", "styles/synthetic-plain/style_transfer", tmp_path / "tiny.png", tmp_path / "good.png"]
    assert emobench(*run, "--emotion", "sad", "--results", painted, "--out", tmp_path / "out") == 1
    assert "tiny.png: style_transfer cannot stylize faces of 3 x 3 px" in capfd.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good-sad.png", "sheet.png", "styles.csv"]
