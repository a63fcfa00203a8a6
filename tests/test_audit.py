"""The audit: what is found, by the real command, in numbers that the tests planted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading import pages
from scipy.ndimage import rotate
from scipy.sparse.csgraph import connected_components

from emobench.data.copies import ALIKE, PATCH, copy_groups
from emobench.data.datasets.fer2013 import FER2013
from emobench.data.datasets.folder import Folder
from emobench.data.pack import look
from emobench.runner.record import read_record

REAL = Path(__file__).parents[2] / "shared" / "data" / "fer2013"  # real rows, where they are at hand


def face(number: int, side: int = 40) -> np.ndarray:
    """A picture of broad shapes, as faces are: noise alone has no low frequencies for a perceptual hash."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 5), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def make(place: Path) -> Path:
    """60 faces a class in split folders, and one of each fault."""
    number = 0
    for split, n in (("train", 40), ("val", 10), ("test", 10)):
        for emotion in ("happy", "sad", "anger"):
            (place / split / emotion).mkdir(parents=True)
            for k in range(n):
                Image.fromarray(face(number)).save(place / split / emotion / f"{split}-{emotion}-{k}.png")
                number += 1
    whole = (place / "train/happy/train-happy-0.png").read_bytes()
    (place / "test/happy/test-happy-0.png").write_bytes(whole)  # leaks, with the same label
    (place / "test/sad/test-sad-0.png").write_bytes(
        (place / "train/happy/train-happy-1.png").read_bytes()
    )  # and another
    (place / "train/sad/train-sad-0.png").write_bytes((place / "train/sad/train-sad-1.png").read_bytes())
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(place / "val/sad/val-sad-0.png")
    brighter = np.clip(face(2).astype(int) + 3, 0, 255).astype(np.uint8)  # of train-happy-2: near, not equal
    Image.fromarray(brighter).save(place / "val/anger/val-anger-0.png")
    (place / "train/anger/train-anger-0.png").write_bytes(b"")
    (place / "train/anger/train-anger-1.png").write_bytes(b"<!DOCTYPE html><html>")
    (place / "train/anger/train-anger-2.png").write_bytes(whole[: len(whole) // 2])
    return place


def test_everything_planted_is_found(tmp_path: Path, snapshot: Callable[[Path], object]) -> None:
    place = make(tmp_path / "mine")
    before = snapshot(place)
    data = Folder(dataset="mine", folder=place, cache=tmp_path / "cache", max_bad=0.05).plan()
    found = data.audit
    assert found["faces"] == 180
    assert found["excluded"] == 3
    reasons = " ".join(found["excluded_faces"].values())
    assert all(reason in reasons for reason in ("0 bytes", "a web page", "truncated"))
    assert found["constant_faces"] == ["val/sad/val-sad-0.png"]
    assert (found["duplicates"], found["duplicate_groups"]) == (3, 3)
    assert found["groups_across_splits"] == 2
    assert found["groups_with_contradicting_labels"] == 1
    assert found["test_faces_seen_in_training"] == 2
    assert [sorted(group) for group in found["near_faces"]] == [
        ["train/happy/train-happy-2.png", "val/anger/val-anger-0.png"]
    ]
    assert found["near_groups_across_splits"] == 1
    assert found["near_groups"] == 1
    assert found["classes"]["train"] == {"happy": 40, "sad": 40, "anger": 37}
    assert found["classes"]["excluded"] == {"happy": 0, "sad": 0, "anger": 3}
    assert snapshot(place) == before  # never touched


def test_a_read_only_dataset_works(tmp_path: Path) -> None:
    place = make(tmp_path / "mine")
    for folder in [place, *(path for path in place.rglob("*") if path.is_dir())]:
        folder.chmod(0o555)
    try:
        data = Folder(dataset="mine", folder=place, cache=tmp_path / "cache", max_bad=0.05)
        data.prepare()
        assert len(data.images) == 180
    finally:
        for folder in [place, *(path for path in place.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)


def test_check_prints_a_report_and_its_exit_code_says_whether_it_is_good(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = make(tmp_path / "mine")
    (place / "train/happy/=cmd()|<script>[x](y).png").write_bytes(b"")
    assert emobench("data", "check", "folder:mine", "--root", tmp_path) == 1
    report = capsys.readouterr().out
    assert "| cannot be read, excluded | 4 |" in report
    assert "| groups of exact duplicates | 3 |" in report
    assert "| of these with contradicting labels | 1 |" in report
    assert "more than max_bad = 0.01 allows" in report
    assert "&lt;script&gt;\\[x\\]" in report
    assert "<script>" not in report
    assert "`train/happy/train-happy-1.png` (happy, train)" in report
    out = tmp_path / "audit.json"
    assert emobench("data", "check", "folder:mine", "--root", tmp_path, "--set", "max_bad=0.1", "--out", out) == 0
    assert json.loads(out.read_text())["excluded"] == 4
    out = tmp_path / "audit.md"
    assert emobench("data", "check", "folder:mine", "--root", tmp_path, "--names-only", "--out", out) == 1
    assert "By names and sizes only" in out.read_text()
    assert "| cannot be read, excluded | 2 |" in out.read_text()  # the empty ones
    assert emobench("data", "check", "synthetic", "--set", "train=80", "--set", "val=80", "--set", "test=80") == 0
    assert "| subjects | 8 | 8 | 8 |" in capsys.readouterr().out


def test_show_writes_a_labelled_picture(emobench: Callable[..., int], tmp_path: Path) -> None:
    make(tmp_path / "mine")
    out = tmp_path / "faces.png"
    given = ["data", "show", "folder:mine", "--root", tmp_path, "--set", "max_bad=0.1", "--each", 5, "--out", out]
    assert emobench(*given) == 0
    with Image.open(out) as picture:
        assert picture.size == (120 + 5 * 48, 3 * 48)
        pixels = np.asarray(picture)
    assert (pixels[:48, :120] < 100).any()  # a name beside each row
    assert len(np.unique(pixels[:48, 120:])) > 50
    assert emobench(*given, "--split", "nowhere") == 2


def test_a_dataset_with_an_unreadable_face_trains_and_says_so(emobench: Callable[..., int], tmp_path: Path) -> None:
    make(tmp_path / "mine")
    suite = tmp_path / "s.toml"
    suite.write_text(
        '[data."folder:mine"]\nsize = 32\nmax_bad = 0.05\n[model.resnet18]\nwidth = 0.0625\nbatch = 16\nepochs = 1\n'
    )
    assert emobench("bench", suite, "--data", tmp_path, "--results", tmp_path / "results") == 0
    evaluation = read_record(next((tmp_path / "results/s/cells").glob("*/result.json"))).evaluation
    assert evaluation is not None
    assert evaluation.dataset.audit["excluded"] == 3
    assert evaluation.dataset.audit["test_faces_seen_in_training"] == 2
    assert evaluation.tracks["recognition"].values["accuracy_unleaked"].n == 28
    assert "3 of 180 faces cannot be read and are left out" in evaluation.dataset.notes[0]
    board = pages(tmp_path / "results/s")
    assert "3 of 180 faces cannot be read" in board
    suite.write_text(suite.read_text().replace("max_bad = 0.05\n", ""))
    assert emobench("bench", suite, "--data", tmp_path, "--results", tmp_path / "results") == 2


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_groups_are_those_of_a_comparison_of_all() -> None:
    """The definition, written as plain loops: every pair, mirrored or not, turned by half a step."""
    random = np.random.default_rng(0)
    faces = [np.asarray(Image.fromarray(face(number, 48))) for number in range(14)]
    changed = []
    for number, each in enumerate(faces):
        picture = Image.fromarray(each).rotate(float(random.uniform(-14, 14)), Image.Resampling.BILINEAR)
        changed.append(np.asarray(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else picture))
    looks = np.stack(faces + changed)
    across = (np.arange(48) + 0.5) / 24 - 1
    window = np.clip((1 - np.hypot(across[:, None], across[None])) / 0.2, 0, 1)

    def normal(picture: np.ndarray) -> np.ndarray:
        disc = (picture - (picture * window).sum() / window.sum()) * window
        return disc / np.linalg.norm(disc)

    expected = np.zeros((28, 28), bool)
    for i in range(28):
        for mirror in (1, -1):
            for angle in np.arange(-17.5, 17.6, 2.5):
                moved = normal(
                    rotate(looks[i][:, ::mirror].astype(float), angle, reshape=False, order=1, mode="nearest")
                )
                for k in range(28):
                    other = normal(looks[k].astype(float))
                    patches = ((moved - other) ** 2).reshape(6, 8, 6, 8).sum((1, 3))
                    expected[i, k] |= (moved * other).sum() >= ALIKE and patches.max() <= PATCH
    groups = connected_components(expected, directed=False)[1]
    found = copy_groups(looks)
    assert (found[:, None] == found[None]).tolist() == (groups[:, None] == groups[None]).tolist()
    assert len(set(found)) == 14
    assert len(copy_groups(looks[:0])) == 0


def test_copies_survive_what_eyes_do_not_see() -> None:
    faces = [face(number, 96) for number in range(50)]
    resized = [np.asarray(Image.fromarray(each).resize((48, 48), Image.Resampling.BILINEAR)) for each in faces]
    noisy = [
        np.clip(each + np.random.default_rng(1).normal(0, 3, each.shape), 0, 255).astype(np.uint8) for each in faces
    ]
    looks = np.stack([look(each[None]) for part in (faces, resized, noisy) for each in part])
    groups = copy_groups(looks)
    assert (groups[:50] == groups[50:100]).all()
    assert (groups[:50] == groups[100:]).all()
    assert len(set(groups)) == 50
    colour = np.stack([faces[0]] * 3)
    assert (look(colour) == looks[0]).all()


# ---- real rows, and a million ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real FER-2013 rows are not here")
def test_the_known_defects_of_fer2013_are_found(tmp_path: Path) -> None:
    found = FER2013(folder=REAL, cache=tmp_path).plan().audit
    assert found["faces"] == 32_298
    assert found["excluded"] == 0
    assert found["test_faces_seen_in_training"] == 280  # PublicTest rows that also occur in Training


MANY = """
import os, sys, time
from pathlib import Path
from emobench.data.datasets.folder import Folder

# Of this program alone: `ru_maxrss` begins with the peak of the process that started it.
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

place = Path(sys.argv[1])
Folder(dataset="few", folder=place.with_name("few"), cache=place.parent / "cache").plan(pixels=False)
few = peak()
started = time.monotonic()
data = Folder(dataset="big", folder=place, cache=place.parent / "cache").plan(pixels=False)
first = time.monotonic() - started
assert len(data.faces) == int(sys.argv[2]), len(data.faces)
assert data.audit["excluded"] == 1 and data.audit["duplicates"] == 0
splits = data.faces["split"].value_counts()
assert abs(splits["train"] / len(data.faces) - 0.8) < 0.001, splits
again = time.monotonic()
Folder(dataset="big", folder=place, cache=place.parent / "cache").plan(pixels=False)
print(few / 2**20, peak() / 2**20, first, time.monotonic() - again)
"""


def crowd(place: Path, n: int) -> None:
    """n files of one byte, and one that is empty; links, because a million inodes are not everybody's."""
    names = ("happy", "sad", "anger", "fear")
    for k, name in enumerate(names):
        (place / name).mkdir(parents=True)
        source = ""
        for number in range(k, n, len(names)):
            path = f"{place}/{name}/{number:07}.jpg"
            if number // len(names) % 50_000 == 0:  # a file system bounds the links to one file
                source = path
                Path(path).write_bytes(b"x")
            else:
                os.link(source, path)
    (place / "happy" / "empty.jpg").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("n", [200_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_million_files_fit_into_little_memory(tmp_path: Path, n: int) -> None:
    """By what each of fewer files takes, in a run of the tests that is not the long one."""
    crowd(tmp_path / "few", 400)
    crowd(tmp_path / "big", n)
    command = [sys.executable, "-c", MANY, str(tmp_path / "big"), str(n + 1)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    few, gigabytes, first, again = map(float, ended.stdout.split())
    million = few + (gigabytes - few) / n * 1_000_000
    print(f"{gigabytes:.2f} GiB, {million:.2f} of a million; {first:.1f} s, again {again:.1f} s")
    assert million < 2
    assert again < first
