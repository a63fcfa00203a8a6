"""CK+ in every form that people have, written by the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emobench.data.datasets.ckplus import CKPlus
from emobench.errors import DatasetError, RowError

# 0 neutral 1 anger 2 contempt 3 disgust 4 fear 5 happy 6 sadness 7 surprise, as the label files count
NUMBERED = {1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happy", 6: "sad", 7: "surprise"}


def ckplus(place: Path, **arguments: Any) -> CKPlus:
    return CKPlus(folder=place, size=16, cache=place.parent / "cache", **arguments)


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([number, *path.name.encode()]).integers(0, 256, (20, 16), np.uint8)
    Image.fromarray(pixels).save(path)


def original(place: Path, subjects: int = 70, frames: int = 5) -> Path:
    """A labelled sequence for each subject, and one without a label for every third."""
    for subject in range(subjects):
        name, number = f"S{subject:03}", 1 + subject % 7
        for sequence in ("001", "002")[: 1 + (subject % 3 == 0)]:
            for frame in range(1, frames + 1):
                path = f"cohn-kanade-images/{name}/{sequence}/{name}_{sequence}_{frame:08}.png"
                save(place / path, subject)
            (place / f"Emotion/{name}/{sequence}").mkdir(parents=True)
        (place / f"Emotion/{name}/001/{name}_001_{frames:08}_emotion.txt").write_text(f"   {number}.0000000e+00\n")
        (place / f"cohn-kanade-images/{name}/.DS_Store").write_bytes(b"x")
    return place


def ck48(place: Path, subjects: int = 70) -> Path:
    for subject in range(subjects):
        emotion = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")[subject % 7]
        for frame in (8, 9, 10):
            save(place / emotion / f"S{subject:03}_001_{frame:08}.png", subject)
    return place


def test_original_first_and_peak_frames(tmp_path: Path) -> None:
    data = ckplus(original(tmp_path / "ckplus"))
    data.prepare()
    assert data.emotions == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    assert data.notes[0] == "24 of 94 sequences have no label and are left out"
    assert len(data.faces) == 140
    first = data.faces[data.faces["subject"] == "S004"]
    assert [data.emotions[label] for label in first["label"]] == ["neutral", NUMBERED[5]]
    assert [name[-12:] for name in first["source"]] == ["00000001.png", "00000005.png"]
    assert (data.faces.groupby("subject")["split"].nunique() == 1).all()
    assert data.faces["label"].value_counts()[0] == 70
    assert data.images.shape == (140, 1, 16, 16)


def test_last_frames_and_no_neutral_ones(tmp_path: Path) -> None:
    place = original(tmp_path / "ckplus")
    data = ckplus(place, frames=3, neutral=False).plan()
    assert len(data.faces) == 210
    assert "neutral" not in data.emotions
    assert sorted(name[-5] for name in data.faces["source"][:3]) == ["3", "4", "5"]
    assert len(ckplus(place, frames=9).plan().faces) == 70 * 5  # the first frame is never a peak too


def test_labels_packed_one_deeper(tmp_path: Path) -> None:
    place = original(tmp_path / "ckplus")
    (place / "Emotion_labels").mkdir()
    (place / "Emotion").rename(place / "Emotion_labels" / "Emotion")
    assert len(ckplus(place).plan().faces) == 140


@pytest.mark.parametrize("top", ["", "CK+48", "archive/CK+48"])
def test_ck48_splits_by_subject(tmp_path: Path, top: str) -> None:
    ck48(tmp_path / "ckplus" / top)
    data = ckplus(tmp_path / "ckplus").plan()
    assert len(data.faces) == 210
    assert data.emotions == ("happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    assert set(data.faces["subject"]) == {f"S{n:03}" for n in range(70)}
    assert (data.faces.groupby("subject")["split"].nunique() == 1).all()
    last = ckplus(tmp_path / "ckplus", frames=1).plan()
    assert len(last.faces) == 70
    assert all("00000010" in name for name in last.faces["source"])


def test_folds_by_subject_cover_every_face_once(tmp_path: Path) -> None:
    place = ck48(tmp_path / "ckplus")
    tested = []
    for fold in range(3):
        data = ckplus(place, folds=3, fold=fold).plan()
        assert (data.faces.groupby("subject")["split"].nunique() == 1).all()
        assert set(data.faces["split"]) == {"train", "val", "test"}
        assert data.notes == [f"fold {fold} of 3 by subject is the test split, the next one validation"]
        tested += data.faces.loc[data.faces["split"] == "test", "id"].tolist()
    assert sorted(tested) == sorted(data.faces["id"])
    with pytest.raises(DatasetError, match="Folds are counted from 0"):
        ckplus(place, folds=3, fold=3)


def extended(place: Path) -> Path:
    faces = np.random.default_rng(0).integers(0, 256, (80, 2304))
    usages = ["Training"] * 56 + ["PublicTest"] * 8 + ["PrivateTest"] * 16
    rows = [
        f"{n % 8},{' '.join(map(str, face))},{usage}" for n, (face, usage) in enumerate(zip(faces, usages, strict=True))
    ]
    place.mkdir()
    (place / "ckextended.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    return place


def test_ckextended_counts_contempt_as_seven(tmp_path: Path) -> None:
    data = ckplus(extended(tmp_path / "ckplus"))
    data.prepare()
    assert [data.emotions[label] for label in data.faces["label"][:8]] == [
        "anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt",
    ]  # fmt: skip
    assert {split: sum(n.values()) for split, n in data.counts().items()} == {"train": 56, "val": 8, "test": 16}
    with pytest.raises(DatasetError, match="no subjects are known"):
        ckplus(tmp_path / "ckplus", folds=5).plan()


def test_two_layouts_are_named(tmp_path: Path) -> None:
    place = extended(tmp_path / "ckplus")
    ck48(place / "CK+48")
    with pytest.raises(DatasetError, match=r"several layouts match: ckextended\.csv, CK\+48.*`layout`"):
        ckplus(place).plan()
    assert len(ckplus(place, layout="CK+48").plan().faces) == 210
    assert len(ckplus(place, layout="ckextended.csv").plan().faces) == 80


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    place = original(tmp_path / "a" / "ckplus")
    label = place / "Emotion/S003/001/S003_001_00000005_emotion.txt"
    label.write_text("8.0")
    with pytest.raises(RowError, match=r"S003_001_00000005_emotion\.txt, row 1: '8\.0'\. Known: 0 is neutral"):
        ckplus(place).plan()
    label.write_text("")
    with pytest.raises(RowError, match="''"):
        ckplus(place).plan()
    label.write_text("3")
    label.with_name("another_emotion.txt").write_text("4")
    with pytest.raises(DatasetError, match="2 label files for one sequence"):
        ckplus(place).plan()
    place = ck48(tmp_path / "b" / "ckplus")
    save(place / "happy" / "nobody.png", 0)
    with pytest.raises(RowError, match=r"nobody\.png: no subject in the name"):
        ckplus(place).plan()
    (tmp_path / "c" / "ckplus").mkdir(parents=True)
    (tmp_path / "c" / "ckplus" / "CK+48.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"Unpack CK\+48\.zip first"):
        ckplus(tmp_path / "c" / "ckplus").plan()
    place = original(tmp_path / "d" / "ckplus")
    (place / "Emotion").rename(place / "elsewhere")
    with pytest.raises(DatasetError, match="without Emotion/ beside"):
        ckplus(place).plan()


def test_too_little_is_refused_before_training(tmp_path: Path) -> None:
    place = ck48(tmp_path / "a" / "ckplus")
    (place / "neutral").mkdir()
    with pytest.raises(DatasetError, match="no picture of neutral. Fill the folder, or remove it"):
        ckplus(place).plan()
    with pytest.raises(DatasetError, match="none for val and test"):
        ckplus(ck48(tmp_path / "b" / "ckplus", subjects=3)).plan()


def test_an_index_has_the_sequence(tmp_path: Path) -> None:
    faces: pd.DataFrame = ckplus(original(tmp_path / "ckplus")).plan().faces
    assert faces["sequence"].nunique() == 70
    assert faces.groupby("sequence").size().eq(2).all()
