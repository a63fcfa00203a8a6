"""ExpW: boxes in pictures, several faces in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emobench.data.datasets.expw import ExpW
from emobench.errors import DatasetError, RowError

FER = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)


def row(number: int, face: int, label: int, confidence: float = 30.5) -> str:
    """image_name face_id top left right bottom confidence label: top before left, right before bottom."""
    return f"name_{number}.png {face} {4 + face} {10 + face} {40 + face} {30 + face} {confidence} {label}"


def make(
    place: Path, rows: list[str] | None = None, images: str = "image/origin", label: str = "label/label.lst"
) -> Path:
    """70 faces, two a picture."""
    (place / images).mkdir(parents=True)
    for number in range(35):
        Image.fromarray(picture(number)).save(place / images / f"name_{number}.png")
    (place / label).parent.mkdir(exist_ok=True)
    given = rows or [row(number, face, (number + face) % 7) for number in range(35) for face in (0, 1)]
    (place / label).write_text("\n".join(given) + "\n")
    return place


def expw(place: Path, **arguments: Any) -> ExpW:
    return ExpW(folder=place, cache=place.parent / "cache", **{"size": 16, **arguments})


@pytest.mark.parametrize(
    ("images", "label"),
    [("image/origin", "label/label.lst"), ("data/image/origin", "data/label/label.lst"), ("origin", "label.lst")],
)
def test_boxes_are_cut_out(tmp_path: Path, images: str, label: str) -> None:
    data = expw(make(tmp_path / "expw", images=images, label=label))
    data.prepare()
    assert data.emotions == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
    assert [data.emotions[k] for k in data.faces["label"][:3]] == [FER[0], FER[1], FER[1]]
    face = picture(0)[4:30, 10:40].transpose(2, 0, 1)
    assert np.array_equal(data.read(next(data.faces.itertuples())), face)
    second = picture(0)[5:31, 11:41].transpose(2, 0, 1)
    resized = [np.asarray(Image.fromarray(p).resize((16, 16), Image.Resampling.BILINEAR)) for p in second]
    assert np.array_equal(data.images[1], np.stack(resized))


def test_faces_of_one_picture_never_cross_a_split(tmp_path: Path) -> None:
    data = expw(make(tmp_path / "expw")).plan()
    assert (data.faces.groupby("source")["split"].nunique() == 1).all()
    assert set(data.faces["split"]) == {"train", "val", "test"}


def test_unsure_faces_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row(number, 0, number % 7, confidence=number) for number in range(35)]
    data = expw(make(tmp_path / "expw", rows), confidence=7).plan()
    assert len(data.faces) == 28
    assert data.notes[0] == "7 faces with a confidence below 7 are left out"


def test_a_box_outside_its_picture_is_excluded_and_said(tmp_path: Path) -> None:
    rows = [row(number, 0, number % 7) for number in range(35)]
    rows[3] = "name_3.png 0 70 10 40 90 30 3"  # below the picture
    rows[4] = "name_4.png 0 -5 -5 20 20 30 4"  # partly outside: what is inside counts
    place = make(tmp_path / "expw", rows)
    with pytest.raises(DatasetError, match=r"1 of 35 faces cannot be read, more than max_bad allows"):
        expw(place).plan()
    data = expw(place, max_bad=0.1).plan()
    assert data.faces["split"][3] == "excluded"
    assert "1 of 35 faces cannot be read and are left out" in data.notes[0]
    assert "(10, 70) to (40, 90) holds nothing of its 80 x 60 pixels" in data.notes[0]
    assert np.array_equal(data.read(list(data.faces.itertuples())[4]), picture(4)[:20, :20].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("name_0.png 0 4 10 40 30 30.5", r"row 2: 7 words where 8 are expected"),
        ("name_0.png 0 4 10 40 30 30.5 7", r"row 2, label: '7'\. Known: 0 is anger"),
        ("name_0.png 0 x 10 40 30 30.5 1", r"row 2, top: 'x' is no number"),
        ("name_0.png 0 nan 10 40 30 30.5 1", r"row 2, top: 'nan' is no finite number"),
        ("../name_0.png 0 4 10 40 30 30.5 1", r"row 2, image_name: '\.\./name_0\.png' leads out of the folder"),
        ("/etc/passwd 0 4 10 40 30 30.5 1", r"row 2, image_name: the absolute path '/etc/passwd'"),
        ("a\0b.png 0 4 10 40 30 30.5 1", r"row 2, image_name: a name with a NUL"),
        (f"{'a' * 300}.png 0 4 10 40 30 30.5 1", r"row 2, image_name: a name of 304 characters"),
        ("link.png 0 4 10 40 30 30.5 1", r"row 2, image_name: 'link\.png' is a link out of the folder"),
        ("up/name_0.png 0 4 10 40 30 30.5 1", r"row 2, image_name: 'up/name_0\.png' is a link out of the folder"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, bad: str, message: str) -> None:
    place = make(tmp_path / "root" / "expw", [row(0, 0, 0), bad, row(1, 0, 1)])
    (tmp_path / "secret.png").write_bytes((place / "image/origin/name_0.png").read_bytes())
    (place / "image/origin/link.png").symlink_to(tmp_path / "secret.png")
    (place / "image/origin/up").symlink_to(tmp_path)
    with pytest.raises(RowError, match=message):
        expw(place).plan()


def test_a_link_inside_the_folder_is_fine(tmp_path: Path) -> None:
    rows = [row(number, 0, number % 7) for number in range(35)]
    place = make(tmp_path / "expw", rows)
    path = place / "image/origin/name_3.png"
    path.rename(path.with_name("real.png"))
    path.symlink_to(path.with_name("real.png"))
    assert len(expw(place).plan().faces) == 35


def test_a_missing_picture_is_excluded_and_pictures_that_are_packed_are_said(tmp_path: Path) -> None:
    place = make(tmp_path / "expw")
    (place / "image/origin/name_9.png").unlink()
    with pytest.raises(DatasetError, match=r"(?s)2 of 70 faces.*name_9\.png: not an intact image"):
        expw(place).plan()
    for path in (place / "image/origin").iterdir():
        path.unlink()
    (place / "image/origin").rmdir()
    (place / "image").rmdir()
    (place / "image").mkdir()
    (place / "image/origin.7z.001").write_bytes(b"7z")
    with pytest.raises(DatasetError, match=r"label\.lst without pictures\. Unpack origin\.7z\.001 first"):
        expw(place).plan()
