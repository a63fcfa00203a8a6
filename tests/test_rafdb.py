"""RAF-DB as its authors give it and as mirrors have it, written by the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emobench.data.datasets.rafdb import RAFDB
from emobench.errors import DatasetError, DatasetMissing, RowError

IDS = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "anger", 7: "neutral"}
NAMES = [f"train_{n:05}" for n in range(1, 71)] + [f"test_{n:04}" for n in range(1, 15)]
LABEL = {name: n % 7 + 1 for n, name in enumerate(NAMES)}


def rafdb(place: Path, **arguments: Any) -> RAFDB:
    return RAFDB(folder=place, cache=place.parent / "cache", **{"size": 10, **arguments})


def pixels(name: str, height: int = 10, width: int = 10) -> np.ndarray:
    return np.random.default_rng(NAMES.index(name)).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lines() -> list[str]:
    return [f"{name}.jpg {label}" for name, label in LABEL.items()]


def attributes(gender: int, race: int, age: int) -> str:
    return "".join(f"{10.5 * k:.3f}\t{20.25 * k:.3f}\n" for k in range(5)) + f"{gender}\n{race}\n{age}\n"


def aligned(top: Path, suffix: str = "png", name: str = "{}_aligned") -> Path:
    """PNG, so that pixels can be compared; the list says .jpg all the same, as people convert them."""
    write(top / "EmoLabel/list_patition_label.txt", "\n".join(lines()) + "\n")
    for each in NAMES:
        save(top / "Image/aligned" / f"{name.format(each)}.{suffix}", pixels(each))
    return top


def original(top: Path) -> Path:
    """Pictures of 40 x 50 px, whose faces are 20 px wide and 16 px high."""
    write(top / "EmoLabel/list_patition_label.txt", "\n".join(lines()))
    for k, each in enumerate(NAMES):
        save(top / "Image/original" / f"{each}.png", pixels(each, 50, 40))
        box = f"{k % 5:.3f} 6.0 {k % 5 + 20:.3f} 22.0\n"
        write(top / "Annotation/boundingbox" / f"{each}_boundingbox.txt", box)
    return top


def splits(data: RAFDB) -> dict[str, int]:
    return {split: sum(n.values()) for split, n in data.counts().items()}


@pytest.mark.parametrize("top", ["", "basic", "archive/basic", "RAF-DB/basic"])
def test_aligned_pictures_labels_and_splits(tmp_path: Path, top: str) -> None:
    aligned(tmp_path / "rafdb" / top)
    data = rafdb(tmp_path / "rafdb")
    data.prepare()
    assert data.emotions == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
    assert splits(data) == {"train": 63, "val": 7, "test": 14}
    assert "validation is carved from training (stratified, 10 %)" in data.notes
    for k, row in enumerate(data.faces.itertuples()):
        name = NAMES[k]
        assert row.source == f"{top + '/' if top else ''}Image/aligned/{name}_aligned.png"
        assert row.id == row.source
        assert data.emotions[row.label] == IDS[LABEL[name]]
        assert (row.split == "test") == name.startswith("test")
        assert np.array_equal(data.images[k], pixels(name).transpose(2, 0, 1))
    assert data.faces["subject"].isna().all()


def test_jpeg_as_the_list_names_it(tmp_path: Path) -> None:
    place = aligned(tmp_path / "rafdb", suffix="jpg")
    data = rafdb(place)
    data.prepare()
    assert data.faces["source"][0] == "Image/aligned/train_00001_aligned.jpg"
    assert data.audit["excluded"] == 0
    expected = np.asarray(Image.open(place / data.faces["source"][0])).transpose(2, 0, 1)
    assert np.array_equal(data.images[0], expected)


def test_original_pictures_are_cut_out_by_their_boxes(tmp_path: Path) -> None:
    data = rafdb(original(tmp_path / "rafdb")).plan()
    assert splits(data) == {"train": 63, "val": 7, "test": 14}
    row = next(data.faces.iloc[3:].itertuples())
    assert np.array_equal(data.read(row), pixels(NAMES[3], 50, 40)[6:22, 3:23].transpose(2, 0, 1))
    assert data.audit["sizes"]["width"] == [20, 20]
    assert data.audit["sizes"]["height"] == [16, 16]


def test_both_kinds_of_pictures(tmp_path: Path) -> None:
    place = original(aligned(tmp_path / "rafdb"))
    assert rafdb(place).plan().faces["source"][0] == "Image/aligned/train_00001_aligned.png"
    data = rafdb(place, pictures="original").plan()
    assert data.faces["source"][0] == "Image/original/train_00001.png"
    assert data.fingerprint != rafdb(place, pictures="aligned").plan().fingerprint


def test_attributes_are_columns(tmp_path: Path) -> None:
    place = aligned(tmp_path / "rafdb")
    for k, name in enumerate(NAMES[:-2]):
        write(place / f"Annotation/manual/{name}_manu_attri.txt", attributes(k % 3, k % 3, k % 5))
    data = rafdb(place).plan()
    assert data.faces["gender"][:3].tolist() == ["male", "female", "unsure"]
    assert data.faces["race"][:3].tolist() == ["Caucasian", "African-American", "Asian"]
    assert data.faces["age"][:5].tolist() == ["0-3", "4-19", "20-39", "40-69", "70+"]
    assert data.faces[["gender", "race", "age"]].isna().all(axis=1).sum() == 2
    assert "2 of 84 faces have no attributes" in data.notes
    broken = place / "Annotation/manual/train_00004_manu_attri.txt"
    write(broken, attributes(0, 3, 0))
    with pytest.raises(RowError, match=r"train_00004_manu_attri\.txt, race: '3'\. Known: 0 is Caucasian, 1 is"):
        rafdb(place).plan()
    write(broken, "1.0 2.0\n")
    with pytest.raises(RowError, match="no 5 landmarks and gender, race, age in it"):
        rafdb(place).plan()
    broken.unlink()
    assert pd.isna(rafdb(place).plan().faces["age"][3])


def test_numbered_folders_of_mirrors(tmp_path: Path) -> None:
    for name, label in LABEL.items():
        save(tmp_path / "rafdb/DATASET" / name.partition("_")[0] / str(label) / f"{name}_aligned.png", pixels(name))
    write(tmp_path / "rafdb/train_labels.csv", "image,label\n")
    data = rafdb(tmp_path / "rafdb").plan()
    assert splits(data) == {"train": 63, "val": 7, "test": 14}
    for row in data.faces.itertuples():
        assert data.emotions[row.label] == IDS[int(row.source.split("/")[-2])]
    save(tmp_path / "rafdb/DATASET/train/8/x.png", pixels(NAMES[0]))
    with pytest.raises(DatasetError, match=r"the order rafdb \(1 surprise, .*\) has no 8"):
        rafdb(tmp_path / "rafdb").plan()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_00001.jpg 8", r"row 2, label: '8'\. Known: 1 is surprise, 2 is fear"),
        ("train_00001.jpg 0", r"row 2, label: '0'\. Known: 1 is surprise"),
        ("train_00001.jpg", "row 2: 1 words where 2 are expected"),
        ("valid_00001.jpg 3", "row 2, image_name: 'valid_00001.jpg' is of no split"),
        ("../train_00001.jpg 3", "row 2, image_name: .* leads out of the folder"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    place = aligned(tmp_path / "rafdb")
    write(place / "EmoLabel/list_patition_label.txt", "\n".join([lines()[0], line, *lines()[1:]]))
    with pytest.raises(RowError, match=rf"list_patition_label\.txt, {message}"):
        rafdb(place).plan()


def test_doubled_lines_and_pictures_without_a_line_are_counted(tmp_path: Path) -> None:
    place = aligned(tmp_path / "rafdb")
    table = [*lines()[:-1], lines()[3], "train_00005.jpg 7"]
    write(place / "EmoLabel/list_patition_label.txt", "\n".join(table))
    data = rafdb(place).plan()
    assert len(data.faces) == 85
    assert "1 pictures have no line in list_patition_label.txt and are left out" in data.notes
    assert "2 lines of list_patition_label.txt name a picture again; each is a face" in data.notes
    assert data.audit["duplicates"] == 2
    assert data.audit["groups_with_contradicting_labels"] == 1
    assert data.audit["groups_across_splits"] == 0


def test_missing_and_broken_pictures_are_excluded_and_counted(tmp_path: Path) -> None:
    place = aligned(tmp_path / "rafdb")
    (place / "Image/aligned/train_00002_aligned.png").unlink()
    (place / "Image/aligned/train_00003_aligned.png").write_bytes(b"<html>")
    with pytest.raises(DatasetError, match="2 of 84 faces cannot be read, more than max_bad allows"):
        rafdb(place).plan()
    data = rafdb(place, max_bad=0.1).plan()
    assert data.audit["excluded_faces"] == {
        "Image/aligned/train_00002_aligned.jpg": "Image/aligned/train_00002_aligned.jpg: not an intact image (no such "
        "file). Put it there, or remove its row.",
        "Image/aligned/train_00003_aligned.png": "Image/aligned/train_00003_aligned.png: not an intact image (a web "
        "page). Replace the file by an intact copy, or remove it.",
    }


def test_other_cases_and_names(tmp_path: Path) -> None:
    top = tmp_path / "rafdb" / "Basic"
    write(top / "emolabel/list_partition_label.txt", "\r\n".join(line.replace("train_", "Train_") for line in lines()))
    for each in NAMES:
        save(top / "IMAGE/Aligned/aligned" / f"{each.upper()}.PNG", pixels(each))  # without _aligned, packed one deeper
    data = rafdb(tmp_path / "rafdb").plan()
    assert data.audit["excluded"] == 0
    assert data.faces["source"][0] == "Basic/IMAGE/Aligned/aligned/TRAIN_00001.PNG"
    assert splits(data) == {"train": 63, "val": 7, "test": 14}
    save(top / "IMAGE/Aligned/aligned/train_00001.jpg", pixels(NAMES[0]))
    with pytest.raises(RowError, match=r"goes by the same name\. Keep one"):
        rafdb(tmp_path / "rafdb").plan()


def test_boxes_that_are_missing_or_malformed_are_named(tmp_path: Path) -> None:
    place = original(tmp_path / "rafdb")
    box = place / "Annotation/boundingbox/train_00002_boundingbox.txt"
    for text, message in (("1 2 3", "3 numbers where a box has 4"), ("1 2 x 4", "right: 'x' is no number")):
        box.write_text(text)
        with pytest.raises(RowError, match=message):
            rafdb(place).plan()
    box.write_text("100 100 120 120")
    data = rafdb(place, max_bad=0.1).plan()
    assert "holds nothing of its 40 x 50 pixels" in data.audit["excluded_faces"]["Image/original/train_00002.png"]
    box.unlink()
    with pytest.raises(RowError, match=r"train_00002_boundingbox\.txt: no box: the file is missing\. Unpack"):
        rafdb(place).plan()
    for path in box.parent.iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"original pictures without Annotation/boundingbox/\*\.txt"):
        rafdb(place).plan()
    (place / "Annotation/boundingbox.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"Unpack boundingbox\.zip first"):
        rafdb(place).plan()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"no folder .*Expected there: \nEmoLabel/list_patition_label\.txt"):
        rafdb(tmp_path / "rafdb").plan()
    (tmp_path / "rafdb").mkdir()
    with pytest.raises(DatasetMissing, match="no RAF-DB there. Expected there"):
        rafdb(tmp_path / "rafdb").plan()
    (tmp_path / "rafdb/basic.zip").write_bytes(b"PK")
    with pytest.raises(DatasetMissing, match=r"no RAF-DB there\. Unpack basic\.zip first"):
        rafdb(tmp_path / "rafdb").plan()
    place = aligned(tmp_path / "a" / "rafdb")
    (place / "EmoLabel").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"Image/ without EmoLabel/list_patition_label\.txt beside"):
        rafdb(place).plan()
    place = aligned(tmp_path / "b" / "rafdb")
    (place / "Image/aligned").rename(tmp_path / "elsewhere2")
    with pytest.raises(DatasetError, match="list_patition_label.txt without pictures. They are expected in Image/al"):
        rafdb(place).plan()
    (place / "Image/aligned.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"without pictures\. Unpack aligned\.zip first"):
        rafdb(place).plan()
    place = aligned(aligned(tmp_path / "c" / "rafdb") / "basic").parent
    with pytest.raises(DatasetError, match=r"several layouts match: EmoLabel/.*, basic/EmoLabel/.*`layout`"):
        rafdb(place).plan()
    assert len(rafdb(place, layout="EmoLabel/list_patition_label.txt").plan().faces) == 84


def test_a_class_list_beside_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    place = aligned(tmp_path / "rafdb")
    write(place / "EmoLabel/classes.txt", "\n".join(f"{k} {name}" for k, name in IDS.items()))
    assert len(rafdb(place).plan().faces) == 84
    write(place / "EmoLabel/classes.txt", "1 happy\n2 fear")
    with pytest.raises(DatasetError, match="RAF-DB's ids says 1 surprise, but EmoLabel/classes.txt says 1 happy"):
        rafdb(place).plan()


def test_the_command_describes_and_audits_it(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emobench("datasets", "rafdb") == 0
    shown = capsys.readouterr().out
    for words in ("EmoLabel/list_patition_label.txt", "Image/aligned/*_aligned.jpg", "Li et al. 2017", "pictures"):
        assert words in shown
    aligned(tmp_path / "rafdb")
    assert emobench("data", "check", "rafdb", "--data", tmp_path) == 0
    assert "| surprise | 9 | 1 | 2 |" in capsys.readouterr().out
