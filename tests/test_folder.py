"""Folders of faces: any folder per emotion, with or without folders for the splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emobench.data.datasets.folder import Folder
from emobench.errors import DatasetError


def fill(folder: Path, n: int, suffix: str = ".jpg", start: int = 0) -> None:
    """n different 20 px faces, other ones in each folder, wherever the temporary folder of the test lies."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + n):
        random = np.random.default_rng([number, *"/".join(folder.parts[-2:]).encode()])
        blocks = random.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(blocks.repeat(4, 0).repeat(4, 1)).save(folder / f"face {number:02}{suffix}")


def folder(place: Path, **arguments: Any) -> Folder:
    return Folder(dataset=place.name, folder=place, size=16, cache=place.parent / "cache", **arguments)


def test_the_usual_spellings_are_understood(tmp_path: Path) -> None:
    for name in ("Happiness", "angry", "Surprised", "FEAR"):
        fill(tmp_path / "mine" / name, 10)
    (tmp_path / "mine" / "Happiness" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "mine" / "Happiness" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "mine" / "__MACOSX").mkdir()
    data = folder(tmp_path / "mine")
    data.prepare()
    assert data.emotions == ("happy", "surprise", "fear", "anger")
    assert data.counts()["train"] == dict.fromkeys(data.emotions, 8)
    assert data.notes == [
        "thumbnails, trash and the like are ignored: 1 .DS_Store, 1 Thumbs.db, 1 __MACOSX",
        "no official split: stratified, 80 % / 10 % / 10 %",
    ]
    assert data.faces["id"][0] == "FEAR/face 00.jpg"
    assert data.images.shape == (40, 3, 16, 16)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "valid", "Testing"), ("train", "validation", "test")]
)
def test_split_folders(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for split, n in zip(names, (6, 3, 2), strict=True):
        for emotion in ("sad", "neutral"):
            fill(tmp_path / "x" / split / emotion, n, ".png")
    data = folder(tmp_path / "x").plan()
    assert data.counts() == {
        "train": {"neutral": 6, "sad": 6},
        "val": {"neutral": 3, "sad": 3},
        "test": {"neutral": 2, "sad": 2},
    }
    assert data.notes == []


def test_train_and_test_only(tmp_path: Path) -> None:
    for split, n in (("train", 20), ("test", 4)):
        for emotion in ("sad", "neutral"):
            fill(tmp_path / "x" / split / emotion, n)
    data = folder(tmp_path / "x").plan()
    assert {split: sum(n.values()) for split, n in data.counts().items()} == {"train": 36, "val": 4, "test": 8}
    assert data.notes == ["validation is carved from training (stratified, 10 %)"]


def test_equal_files_stay_on_one_side_and_leaks_are_found(tmp_path: Path) -> None:
    for emotion in ("sad", "neutral"):
        fill(tmp_path / "x" / "train" / emotion, 20)
        fill(tmp_path / "x" / "test" / emotion, 4, start=30)
    picture = (tmp_path / "x/train/sad/face 03.jpg").read_bytes()
    for number in range(4):
        (tmp_path / f"x/train/sad/copy {number}.jpg").write_bytes(picture)
    (tmp_path / "x/test/sad/copy.jpg").write_bytes(picture)
    data = folder(tmp_path / "x")
    data.prepare()
    copies = data.faces[data.faces["hash"] == data.faces["hash"][data.faces["id"] == "test/sad/copy.jpg"].iloc[0]]
    assert len(copies) == 6
    assert copies.loc[copies["split"] != "test", "split"].nunique() == 1
    assert data.faces["id"][data.leaked()].tolist() == ["test/sad/copy.jpg"]


def test_ahegao_is_refused_by_name_and_counted(tmp_path: Path) -> None:
    for name in ("Angry", "Happy", "Ahegao"):
        fill(tmp_path / "dataset" / name, 10)
    data = folder(tmp_path / "dataset").plan()
    assert data.emotions == ("happy", "anger")
    assert len(data.faces) == 20
    assert data.notes[0] == "Ahegao is no emotion: its 10 files are left out"


def test_what_downloads_put_on_top_is_passed(tmp_path: Path) -> None:
    for name in ("Angry", "Happy"):
        fill(tmp_path / "x" / "archive" / "dataset" / name, 10)
    assert len(folder(tmp_path / "x").plan().faces) == 20
    fill(tmp_path / "x" / "data" / "sad", 10)
    with pytest.raises(DatasetError, match="faces in several places: .*x/data, .*x/archive/dataset"):
        folder(tmp_path / "x").plan()


def test_numbers_need_an_order(tmp_path: Path) -> None:
    for name in ("0", "3", "6"):
        fill(tmp_path / "x" / name, 10)
    with pytest.raises(
        DatasetError, match=r"x/0: a number says no emotion. Set `order`; known orders are\n  fer2013: 0 anger"
    ):
        folder(tmp_path / "x").plan()
    by_fer, by_name = (
        folder(tmp_path / "x", order="fer2013").plan(),
        folder(tmp_path / "x", order="alphabetical7").plan(),
    )
    assert by_fer.emotions == ("neutral", "happy", "anger")
    assert by_name.emotions == ("happy", "surprise", "anger")
    assert by_fer.fingerprint != by_name.fingerprint
    own = folder(tmp_path / "x", order=["sad", "fear", "joy", "anger", "fear", "fear", "contempt"]).plan()
    assert own.emotions == ("sad", "anger", "contempt")
    with pytest.raises(DatasetError, match="has no 3"):
        folder(tmp_path / "x", order=["sad", "fear"]).plan()
    with pytest.raises(DatasetError, match=r"order 'fer': known orders are\n  fer2013"):
        folder(tmp_path / "x", order="fer")


def test_folders_that_are_no_emotion_are_named(tmp_path: Path) -> None:
    for name in ("sad", "cats", "dogs", "happy"):
        fill(tmp_path / "x" / name, 2)
    with pytest.raises(DatasetError, match="x: no emotions: cats, dogs. Rename"):
        folder(tmp_path / "x").plan()


def test_other_structure_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "x" / "train" / "sad", 2)
    fill(tmp_path / "x" / "happy", 2)
    with pytest.raises(DatasetError, match="beside the split folders lies happy"):
        folder(tmp_path / "x").plan()
    fill(tmp_path / "y" / "val" / "sad", 2)
    fill(tmp_path / "y" / "valid" / "sad", 2)
    with pytest.raises(DatasetError, match="two folders for one split: val, valid"):
        folder(tmp_path / "y").plan()
    fill(tmp_path / "z" / "sad" / "more", 2)
    with pytest.raises(DatasetError, match="z/sad/more: a folder among pictures"):
        folder(tmp_path / "z").plan()


def test_nothing_and_too_little(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*/x\. Expected there: \n<Emotion>"):
        folder(tmp_path / "x").plan()
    (tmp_path / "x").mkdir()
    with pytest.raises(DatasetError, match="x: no folder of an emotion. A folder per emotion is expected"):
        folder(tmp_path / "x").plan()
    fill(tmp_path / "x" / "sad", 20)
    (tmp_path / "x" / "happy").mkdir()
    with pytest.raises(DatasetError, match="no picture of happy. Fill the folder, or remove it"):
        folder(tmp_path / "x").plan()
    fill(tmp_path / "x" / "happy", 1)
    data = folder(tmp_path / "x").plan()  # one picture trains; elsewhere the class counts 0
    assert [data.counts()[split]["happy"] for split in ("train", "val", "test")] == [1, 0, 0]
    assert data.notes[1:] == [
        "val has no face of happy, which counts 0 in macro F1",
        "test has no face of happy, which counts 0 in macro F1",
    ]


def test_an_archive_is_never_unpacked(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"only x\.zip\. Unpack it first"):
        folder(tmp_path / "x").plan()
    (tmp_path / "y").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="a file where a folder is expected"):
        folder(tmp_path / "y").plan()
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "faces.tar.gz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"only archives. Unpack faces\.tar\.gz first"):
        folder(tmp_path / "z").plan()


def test_other_files_are_counted_and_broken_ones_named(tmp_path: Path) -> None:
    for name in ("sad", "happy"):
        fill(tmp_path / "x" / name, 10)
    (tmp_path / "x" / "labels.csv").write_text("a,b")
    (tmp_path / "x" / "sad" / "notes.txt").write_text("a")
    assert folder(tmp_path / "x").plan().notes[0] == "2 files that are no faces are left out: 1 .csv, 1 .txt"
    (tmp_path / "x" / "sad" / "face 03.jpg").write_bytes(b"")
    (tmp_path / "x" / "happy" / "face 05.jpg").write_text("<html>")
    with pytest.raises(DatasetError) as error:
        folder(tmp_path / "x").prepare()
    assert "2 of 20 faces cannot be read" in str(error.value)
    assert "happy/face 05.jpg: not an intact image (a web page)" in str(error.value)
    assert "sad/face 03.jpg: not an intact image (0 bytes)" in str(error.value)


def test_a_read_only_folder_works_and_is_not_touched(tmp_path: Path, snapshot: Callable[[Path], object]) -> None:
    place = tmp_path / "x"
    for name in ("sad", "happy"):
        fill(place / name, 10)
    everything = [place, *place.rglob("*")]
    before = snapshot(place)
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        data = folder(place)
        data.prepare()
        assert len(data.images) == 20
        assert snapshot(place) == before  # root may write whatever the mode says
    finally:
        for path in everything:
            path.chmod(0o755)


def test_changed_files_are_noticed(tmp_path: Path) -> None:
    for name in ("sad", "happy"):
        fill(tmp_path / "x" / name, 10)
    first = folder(tmp_path / "x")
    first.prepare()
    fill(tmp_path / "x" / "sad", 1, start=15)
    second = folder(tmp_path / "x").plan()
    assert (len(first.faces), len(second.faces)) == (20, 21)
    (tmp_path / "x" / "sad" / "face 15.jpg").unlink()
    assert folder(tmp_path / "x").plan().fingerprint == first.fingerprint
    Image.new("RGB", (20, 20), "red").save(tmp_path / "x" / "sad" / "face 03.jpg")
    assert folder(tmp_path / "x").plan().fingerprint != first.fingerprint
