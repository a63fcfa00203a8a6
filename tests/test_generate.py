"""Faces drawn by a finished generator, by the real command: what is asked for, what is written, what was measured."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reading import best_that_draws

import emobench as package
from emobench.commands.pictures import Sheet, requests, stems
from emobench.data.datasets.synthetic import Synthetic
from emobench.errors import EmobenchError
from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.reference import RealFaces
from emobench.runner.build import load_judges
from emobench.runner.store import Store, load_board

Emobench = Callable[..., int]
EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


def face(path: Path) -> np.ndarray:
    """uint8 (3, h, w) of a PNG."""
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened.convert("RGB")).transpose(2, 0, 1)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- what is asked for -----------------------------------------------------------------------------------------------


def test_emotions_mixtures_and_intensities_are_weights() -> None:
    joy, angry, mixture = requests(["Joy", "angry"], ["happy=0.6, surprised=0.4"], 1.0, EMOTIONS)
    assert (joy.name, angry.name, mixture.name) == ("happy", "anger", "happy0.6+surprise0.4")
    assert mixture.caption == "happy 0.6 + surprise 0.4"
    np.testing.assert_allclose(joy.weights, np.eye(8)[1])
    np.testing.assert_allclose(mixture.weights, [0, 0.6, 0, 0.4, 0, 0, 0, 0])
    (half,) = requests(["happy"], [], 0.25, EMOTIONS)
    np.testing.assert_allclose(half.weights, [0.75, 0.25, 0, 0, 0, 0, 0, 0])
    assert (half.name, half.caption) == ("happy-0.25", "happy, 25 %")
    (none,) = requests([], ["sad=0.5,fear=0.5"], 0.0, EMOTIONS)
    np.testing.assert_allclose(none.weights, np.eye(8)[0])
    assert [each.name for each in requests(["all", "happy"], [], 1.0, EMOTIONS)] == list(EMOTIONS)


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ("happy=0.6,surprise=0.6", r"sum to 1\.2, not to 1\. Perhaps happy=0\.5,surprise=0\.5\?"),
        ("happy=0.6,joy=0.4", "happy stands there twice"),
        ("happy", "'happy' is no share"),
        ("happy=1.5,sad=-0.5", "'happy=1.5' is no share"),
        ("happy=nan", "'happy=nan' is no share"),
        ("happpy=1", "did you mean 'happy'"),
        ("", "unknown emotion ''"),
    ],
)
def test_mixtures_that_are_none_are_refused(mix: str, said: str) -> None:
    with pytest.raises(EmobenchError, match=said):
        requests([], [mix], 1.0, EMOTIONS)


def test_an_intensity_needs_a_neutral_face_to_begin_from() -> None:
    with pytest.raises(EmobenchError, match="knows no neutral face"):
        requests(["happy"], [], 0.5, ("happy", "sad"))
    assert len(requests(["happy"], [], 1.0, ("happy", "sad"))) == 1


def test_what_is_made_of_files_of_one_name_has_names_of_its_own() -> None:
    files = [Path(name) for name in ("a/face.jpg", "b/Face.png", "face-2.png", "-", "c.tar.gz", "é" * 300)]
    assert stems(files) == ["face", "Face-2", "face-2-2", "stdin", "c.tar", "é" * 150]


def test_a_sheet_shows_whole_pixels_and_whole_captions(tmp_path: Path) -> None:
    sheet = Sheet()
    picture = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    for place in range(14):
        sheet.add("a very long caption of a line " * 3, f"picture {place} with a long caption", picture)
    wide = np.zeros((3, 400, 800), np.uint8)
    wide[0] = 200
    sheet.add("", "wide", wide)
    sheet.write(tmp_path / "sheet.png")
    shown = face(tmp_path / "sheet.png")
    enlarged = picture.repeat(4, 1).repeat(4, 2)
    top, lefts = 8, []
    for left in range(shown.shape[2] - 128):
        if np.array_equal(shown[:, top : top + 128, left : left + 128], enlarged):
            lefts.append(left)
    assert len(lefts) == 7  # of fourteen, in two rows
    assert min(np.diff(lefts)) > 200  # the captions below do not touch
    assert (shown[:, :, -8:] == 255).all()
    assert (shown[:, -8:] == 255).all()
    assert ((shown[0] == 200) & (shown[1] == 0)).sum() == 256 * 128  # the wide one, reduced


# ---- drawn by the command --------------------------------------------------------------------------------------------


def test_the_best_that_draws_is_taken_and_the_faces_are_its(
    generated: Path, emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    best = best_that_draws(generated)
    asked = ["--emotion", "joy", "--emotion", "SAD", "--n", 3, "--seed", 5]
    run = ["generate", "best:made/synthetic-plain", *asked, "--results", generated]
    assert emobench(*run, "--out", tmp_path / "a") == 0
    said = capfd.readouterr()
    assert f"drawn by {best.model} on synthetic-plain, seed 0, the best of 3" in said.err
    assert f"calibrated control, {best.value:.3f}" in said.err
    assert f"6 faces of 32 x 32 px are in {tmp_path / 'a'}" in said.out
    names = [f"{emotion}-{seed}.png" for emotion in ("happy", "sad") for seed in (5, 6, 7)]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([*names, "sheet.png", "faces.csv"])
    model = package.load(generated, "made", best.model)
    expected = model.sample(["happy"] * 3 + ["sad"] * 3, [5, 6, 7, 5, 6, 7]).numpy()
    for name, wanted in zip(names, expected, strict=True):
        assert np.abs(face(tmp_path / "a" / name).astype(int) - wanted).max() <= 1  # another batch
    rows = table(tmp_path / "a" / "faces.csv")
    assert list(rows[0]) == ["file", "seed", *EMOTIONS, "intensity"]
    assert [(row["file"], row["seed"], row["happy"]) for row in rows[:3]] == [
        (f"happy-{seed}.png", str(seed), "1") for seed in (5, 6, 7)
    ]
    assert emobench(*run, "--out", tmp_path / "b") == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    contents = {(tmp_path / "a" / name).read_bytes() for name in names}
    assert len(contents) == 6  # other seeds, other faces


def test_an_intensity_and_a_mixture_are_drawn_as_their_weights(
    generated: Path, emobench: Emobench, tmp_path: Path
) -> None:
    run = ["generate", "made/synthetic-plain/vit_cvae", "--results", generated, "--n", 2]
    assert emobench(*run, "--emotion", "happy", "--intensity", 0.5, "--out", tmp_path / "half") == 0
    assert emobench(*run, "--mix", "happy=0.5,neutral=0.5", "--out", tmp_path / "mix") == 0
    assert emobench(*run, "--emotion", "happy", "--out", tmp_path / "whole") == 0
    half, mixture, whole = (
        face(tmp_path / name) for name in ("half/happy-0.5-1.png", "mix/neutral0.5+happy0.5-1.png", "whole/happy-1.png")
    )
    np.testing.assert_array_equal(half, mixture)
    assert not np.array_equal(half, whole)
    (row, *_) = table(tmp_path / "half" / "faces.csv")
    assert (row["neutral"], row["happy"], row["sad"], row["intensity"]) == ("0.5", "0.5", "0", "0.5")


def test_nothing_is_overwritten_unless_it_is_said(
    generated: Path, emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ["generate", "made/synthetic-plain/vit_cvae", "--results", generated, "--emotion", "fear", "--n", 1]
    for name in ("fear-0.png", "sheet.png", "faces.csv"):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text("mine")
        assert emobench(*run, "--out", out) == 2
        assert f"{out / name}: is there already. --force overwrites it" in capfd.readouterr().err
        assert [path.name for path in out.iterdir()] == [name]
        assert (out / name).read_text() == "mine"
    assert emobench(*run, "--out", out, "--force") == 0
    assert len(table(out / "faces.csv")) == 1
    (tmp_path / "file").write_text("mine")
    assert emobench(*run, "--out", tmp_path / "file") == 2
    assert "no folder can be made there" in capfd.readouterr().err


def test_what_cannot_be_drawn_is_refused_by_name(
    generated: Path, emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for run, said in (
        (["made/synthetic-plain/stargan"], "it edits faces, and draws none"),
        (["made/synthetic-plain/resnet18"], "it reads faces. Name a row that draws faces"),
        (["made/synthetic-plain/cvea"], "did you mean 'made/synthetic-plain/cvae'"),
        (["best:made/fer2013"], "Known: best:made/synthetic-plain"),
        (["best:made/synthetic-plain", "--emotion", "hapy"], "unknown emotion 'hapy': did you mean 'happy'?"),
        (["best:made/synthetic-plain", "--as-scored", "--n", "3"], "leave out emotions, seeds and intensity"),
    ):
        assert emobench("generate", *run, "--results", generated, "--out", tmp_path / "out") == 2
        assert said in capfd.readouterr().err
        assert not list(tmp_path.glob("out/*"))


# ---- the faces that were measured ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["vit_cvae", "stargan"])
def test_as_scored_writes_the_very_faces_of_the_evaluation(
    generated: Path, emobench: Emobench, tmp_path: Path, row: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run = ["generate", f"made/synthetic-plain/{row}", "--as-scored", "--results", generated, "--out", out]
    assert emobench(*run) == 0
    assert "the first 64 for control are those that the evaluation kept, to the last bit" in capfd.readouterr().err
    (cell,) = (each for each in load_board(generated, "made") if each.row == row)
    assert cell.record is not None
    assert cell.record.evaluation is not None
    assert cell.folder is not None
    with Image.open(cell.folder / "samples.webp") as opened:  # a line an emotion, twice as large
        kept = np.asarray(opened.convert("RGB"))[::2, ::2].transpose(2, 0, 1)
    for k, emotion in enumerate(EMOTIONS):
        files = sorted((out / "control" / emotion).iterdir())
        assert [path.name for path in files] == [f"{place * 8 + k:06d}.png" for place in range(8)]
        line = np.concatenate([face(path) for path in files], 2)
        np.testing.assert_array_equal(line, kept[:, 32 * k : 32 * k + 32])
    rows = [each for each in table(out / "faces.csv") if each["file"].startswith("fidelity/")]
    assert [int(each["seed"]) for each in rows] == list(range(640))
    assert all(float(each[Path(each["file"]).parent.name]) == 1 for each in rows)
    made = np.stack([face(out / each["file"]) for each in rows])
    data = Synthetic(size=32, variant="plain", train=1280, val=80, test=640)
    data.prepare()
    assert cell.record.evaluation.reader is not None
    (reader,) = load_judges(Store(generated), [cell.record.evaluation.reader.fit_key], torch.device("cpu"))
    fidelity = Fidelity(RealFaces.of(data, 640), reader, None, None, "none", tmp_path)
    values = cell.record.evaluation.tracks["generation"].values
    for name, value in fidelity.measure(made, "fidelity").items():
        if value.value is not None:
            assert value.value == pytest.approx(values[name].value, rel=1e-4), name
    assert values["fed"].value is not None
    assert emobench(*run) == 2
    assert "is there already" in capfd.readouterr().err
    (out / "fidelity" / "happy" / "999999.png").write_bytes(b"of a larger sample")
    assert emobench(*run, "--force") == 0
    assert not (out / "fidelity" / "happy" / "999999.png").exists()


def test_as_scored_by_a_key_and_what_was_not_measured_so(
    generated: Path, emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cells = {each.row: each for each in load_board(generated, "made")}
    run = ["--as-scored", "--results", generated, "--out"]
    assert emobench("generate", cells["vit_cvae"].fit_key[:10], *run, tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("control/*/*.png"))) == 64
    assert emobench("generate", "made/synthetic-plain/vit", *run, tmp_path / "none") == 2
    assert "it reads faces. Name a row that was measured on generation" in capfd.readouterr().err
