"""AffectNet in every form that people have, written by the tests."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emobench.data.datasets.affectnet import AffectNet
from emobench.errors import DatasetError, RowError

IDS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")  # 0 … 7
ALPHABETICAL = ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"


def affectnet(place: Path, **arguments: Any) -> AffectNet:
    return AffectNet(folder=place, cache=place.parent / "cache", **{"size": 16, **arguments})


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number)).save(path)


def named(data: AffectNet, rows: slice) -> list[str]:
    return [data.emotions[label] for label in data.faces["label"][rows]]


def sizes(data: AffectNet) -> dict[str, int]:
    return {split: sum(counts.values()) for split, counts in data.counts().items()}


# ---- CSV -------------------------------------------------------------------------------------------------------------


def rows(first: int, n: int, ids: int = 8) -> list[str]:
    return [f"{k % 5}/{k}.png,5,6,20,30,1.0;2.0,{k % ids},0.25,-2" for k in range(first, first + n)]


def tables(
    place: Path,
    header: bool = True,
    images: str = "Manually_Annotated_Images",
    lists: str = "",
    end: str = "\n",
    mark: str = "",
) -> Path:
    for number in range(100):
        save(place / images / str(number % 5) / f"{number}.png", number)
    (place / lists).mkdir(parents=True, exist_ok=True)
    (place / lists / "training.csv").write_text(mark + end.join([HEADER, *rows(0, 80)]), newline="")
    (place / lists / "validation.csv").write_text(end.join([HEADER] * header + rows(80, 16)), newline="")
    return place


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"header": False},
        {"images": "Manually_Annotated/Manually_Annotated_Images", "lists": "Manually_Annotated_file_lists"},
        {"end": "\r\n"},
        {"mark": "\ufeff"},
    ],
)
def test_tables_with_boxes(tmp_path: Path, layout: dict[str, Any]) -> None:
    data = affectnet(tables(tmp_path / "affectnet", **layout))
    data.prepare()
    assert data.emotions == IDS
    assert named(data, slice(0, 8)) == list(IDS)
    assert sizes(data) == {"train": 72, "val": 8, "test": 16}
    assert "no test split: the validation split (16 faces) is the test split" in data.notes
    face = data.read(next(data.faces.itertuples()))
    assert np.array_equal(face, pixels(0)[6:36, 5:25].transpose(2, 0, 1))
    assert data.faces["valence"].eq(0.25).all()
    assert data.faces["arousal"].isna().all()  # -2: invalid


def test_faces_without_an_emotion_are_left_out_and_counted(tmp_path: Path) -> None:
    place = tables(tmp_path / "affectnet")
    more = [f"{k % 5}/{k}.png,5,6,20,30,,{8 + k % 3},-2,-2" for k in range(96, 100)]
    (place / "training.csv").write_text("\n".join([HEADER, *rows(0, 80), *more]))
    data = affectnet(place).plan()
    assert len(data.faces) == 96
    assert data.notes[0] == "faces without an emotion are left out: 2 none, 1 uncertain, 1 no face"


def test_automatic_annotations_train_only_where_asked_for(tmp_path: Path) -> None:
    place = tables(tmp_path / "affectnet")
    with pytest.raises(DatasetError, match=r"no automatically_annotated\.csv"):
        affectnet(place, automatic=True).plan()
    save(place / "Automatically_Annotated/Automatically_Annotated_Images/0/7.png", 7)
    packed = gzip.compress("\n".join([HEADER, "0/7.png,0,0,50,40,,3,0.1,0.2"]).encode())
    (place / "automatically_annotated.csv.gz").write_bytes(packed)
    assert len(affectnet(place).plan().faces) == 96
    data = affectnet(place, automatic=True).plan()
    assert sizes(data)["train"] + sizes(data)["val"] == 81
    assert data.faces["source"].iloc[-1] == "Automatically_Annotated/Automatically_Annotated_Images/0/7.png"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0/5.png,5,6,20,30,,11,0,0", r"row 2, expression: '11'\. Known: 0 is neutral"),
        ("0/5.png,5,6,20,30,,1,0", "row 2: 8 columns, the header has 9"),
        ("../0/5.png,5,6,20,30,,1,0,0", "row 2, subDirectory_filePath: .* leads out of the folder"),
        ("0/5.png,5,6,twenty,30,,1,0,0", "row 2, face_width: 'twenty' is no number"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: str, message: str) -> None:
    place = tables(tmp_path / "affectnet")
    (place / "training.csv").write_text("\n".join([HEADER, row, *rows(0, 80)]))
    with pytest.raises(RowError, match=rf"training\.csv, {message}"):
        affectnet(place).plan()


def test_empty_tables_are_named(tmp_path: Path) -> None:
    place = tables(tmp_path / "affectnet")
    (place / "training.csv").write_text("")
    with pytest.raises(RowError, match=r"training\.csv: the file is empty"):
        affectnet(place).plan()
    (place / "training.csv").write_text(HEADER.replace("expression", "emotion"))
    with pytest.raises(RowError, match=r"training\.csv, row 1: no header with expression"):
        affectnet(place).plan()


def test_tables_without_pictures(tmp_path: Path) -> None:
    place = tables(tmp_path / "affectnet")
    (place / "Manually_Annotated_Images").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="no folder manually_annotated_images"):
        affectnet(place).plan()


# ---- npy, folders, YOLO ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
def test_npy_annotations_numbers_or_text(tmp_path: Path, text: bool) -> None:
    place = tmp_path / "affectnet"
    for number in range(96):
        top = place / ("train_set" if number < 80 else "val_set")
        save(top / "images" / f"{number}.jpg", number)
        (top / "annotations").mkdir(exist_ok=True)
        for name, value in (("exp", number % 8), ("val", 0.5), ("aro", -2.0), ("lnd", 0.0)):
            np.save(top / "annotations" / f"{number}_{name}.npy", np.array(str(value)) if text else np.array(value))
    np.save(place / "train_set/annotations/8_exp.npy", np.array("9" if text else 9))
    data = affectnet(place)
    data.prepare()
    assert sizes(data) == {"train": 71, "val": 8, "test": 16}
    assert data.notes[0] == "faces without an emotion are left out: 1 uncertain"
    label = dict(zip(data.faces["id"], data.faces["label"], strict=True))
    assert [data.emotions[label[f"train_set/images/{n}.jpg"]] for n in range(8)] == list(IDS)
    assert data.faces["valence"].eq(0.5).all()
    assert data.faces["arousal"].isna().all()


def test_npy_pickles_are_never_opened(tmp_path: Path) -> None:
    place = tmp_path / "affectnet"
    for number in range(16):
        save(place / "train_set/images" / f"{number}.jpg", number)
        (place / "train_set/annotations").mkdir(exist_ok=True)
        np.save(place / f"train_set/annotations/{number}_exp.npy", np.array(print, dtype=object), allow_pickle=True)
    with pytest.raises(RowError, match=r"0_exp\.npy: no number"):
        affectnet(place).plan()


def test_eight_folders_with_labels_csv(tmp_path: Path) -> None:
    place = tmp_path / "affectnet"
    for number in range(80):
        save(place / ALPHABETICAL[number % 8] / f"{number}.png", number)
    lines = [f"{ALPHABETICAL[k % 8]}/{k}.png,{ALPHABETICAL[k % 8] if k else 'happy'},0.8" for k in range(80)]
    (place / "labels.csv").write_text("\n".join(["pth,label,relFCs", *lines]))
    data = affectnet(place).plan()
    assert sizes(data) == {"train": 64, "val": 8, "test": 8}
    assert data.notes[0].startswith("1 file that is no face is left out: 1 .csv")
    assert "labels.csv names another emotion than the folder for 1 of 80 pictures" in data.notes


def test_numbered_folders_need_an_order(tmp_path: Path) -> None:
    place = tmp_path / "affectnet"
    for split, n in (("train", 64), ("val", 16), ("test", 16)):
        for number in range(n):
            save(place / split / str(number % 8) / f"{split}{number}.png", number + len(split) * 100)
    with pytest.raises(DatasetError, match="a number says no emotion. Set `order`; known orders are"):
        affectnet(place).plan()
    data = affectnet(place, order="affectnet").plan()
    assert sizes(data) == {"train": 64, "val": 16, "test": 16}
    contempt = data.faces[data.faces["source"].str.contains("/7/")]
    assert contempt["label"].eq(data.emotions.index("contempt")).all()


@pytest.mark.parametrize("top", ["YOLO_format", "archive/YOLO_format", ""])
def test_yolo_ids_are_alphabetical(tmp_path: Path, top: str) -> None:
    place = tmp_path / "affectnet" / top
    for split, n in (("train", 64), ("valid", 16), ("test", 16)):
        for number in range(n):
            save(place / split / "images" / f"{number}.jpg", number + len(split) * 100)
            (place / split / "labels").mkdir(exist_ok=True)
            label = f"{number % 8} 0.5 0.5 0.4 0.5\n" if number or split == "test" else ""
            (place / split / "labels" / f"{number}.txt").write_text(label)
    data = affectnet(tmp_path / "affectnet").plan()
    assert sizes(data) == {"train": 63, "val": 15, "test": 16}
    assert data.notes == ["2 pictures without a labelled face are left out"]
    label = dict(zip(data.faces["source"], data.faces["label"], strict=True))
    where = f"{top}/test/images" if top else "test/images"
    assert [data.emotions[label[f"{where}/{n}.jpg"]] for n in range(8)] == list(ALPHABETICAL)
    assert data.read(next(data.faces.itertuples())).shape == (3, 20, 20)  # of 40 x 50 px
    (place / "train" / "labels" / "3.txt").unlink()
    with pytest.raises(RowError, match=r"3\.jpg: no label file"):
        affectnet(tmp_path / "affectnet").plan()


def test_two_layouts_are_named(tmp_path: Path) -> None:
    place = tables(tmp_path / "affectnet")
    (place / "train_set/images").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"several layouts match: training\.csv, \."):
        affectnet(place).plan()
