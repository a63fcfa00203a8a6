"""FER-2013 in every form that people have, written by the tests; the real rows where they are at hand."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emobench.data.datasets.fer2013 import FER2013
from emobench.errors import DatasetError, RowError

NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # in the order of the ids
CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
USAGES = ["Training"] * 70 + ["PublicTest"] * 14 + ["PrivateTest"] * 21
FACES = np.random.default_rng(0).integers(0, 256, (105, 48, 48), np.uint8)
LABELS = np.arange(105) % 7


def text(header: str = "emotion,pixels,Usage", usages: list[str] | None = None, end: str = "\n") -> str:
    """A CSV file with columns in the header's order."""
    lines = [header]
    for label, face, usage in zip(LABELS, FACES, usages or USAGES, strict=False):
        fields = {"emotion": str(label), "pixels": " ".join(map(str, face.ravel())), "Usage": usage}
        lines.append(",".join(fields[name.strip()] for name in header.split(",")))
    return end.join(lines) + end


def fer(place: Path, **arguments: Any) -> FER2013:
    return FER2013(folder=place, cache=place.parent / "cache", **arguments)


def place_with(tmp_path: Path, content: dict[str, str | bytes]) -> Path:
    place = tmp_path / "fer2013"
    for name, data in content.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return place


OFFICIAL = {"train": 70, "val": 14, "test": 21}


def sizes(data: FER2013) -> dict[str, int]:
    return {split: sum(counts.values()) for split, counts in data.counts().items()}


# ---- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "header", "pack"),
    [
        ("fer2013.csv", "emotion,pixels,Usage", str.encode),
        ("fer2013.csv.gz", "emotion,pixels,Usage", lambda text: gzip.compress(text.encode())),
        ("fer2013.csv.xz", "emotion,pixels,Usage", lambda text: lzma.compress(text.encode())),
        ("icml_face_data.csv", "emotion, Usage, pixels", str.encode),
        ("archive/fer2013/fer2013.csv", "emotion,pixels,Usage", str.encode),
        ("data/fer2013.csv", "emotion,pixels,Usage", lambda text: b"\xef\xbb\xbf" + text.encode()),  # BOM
        ("fer2013.csv", "emotion,pixels,Usage", lambda text: text.replace("\n", "\r\n").encode()),
        ("fer2013.csv", "emotion,pixels,Usage", lambda text: (text + "\n\n").encode()),
    ],
)
def test_csv_layouts(tmp_path: Path, name: str, header: str, pack: Callable[[str], bytes]) -> None:
    data = fer(place_with(tmp_path, {name: pack(text(header))}))
    data.prepare()
    assert data.emotions == CLASSES
    assert sizes(data) == OFFICIAL
    assert data.counts()["train"] == dict.fromkeys(CLASSES, 10)
    assert np.array_equal(data.images[:, 0], FACES)  # in the order of the rows, not resized
    assert [CLASSES[label] for label in data.faces["label"][:7]] == [
        "anger", "disgust", "fear", "happy", "sad", "surprise", "neutral",
    ]  # fmt: skip
    assert data.faces["id"].tolist() == [str(n) for n in range(105)]
    assert data.notes == []
    assert not data.leaked().any()


def test_without_private_test(tmp_path: Path) -> None:
    data = fer(place_with(tmp_path, {"fer2013.csv": text(usages=USAGES[:84])})).plan()
    assert sizes(data) == {"train": 63, "val": 7, "test": 14}
    assert data.faces["split"][70:].tolist() == ["test"] * 14
    assert data.notes == [
        "no PrivateTest rows: PublicTest (14 rows) is the test split",
        "validation is carved from training (stratified, 10 %)",
    ]
    assert data.counts()["val"] == dict.fromkeys(CLASSES, 1)


def test_carved_validation_and_leaks_know_equal_rows(tmp_path: Path) -> None:
    rows = text(usages=USAGES[:84]).splitlines()
    pixels = [row.split(",")[1] for row in rows]
    rows[72] = f"1,{pixels[5]},PublicTest"
    rows += [f"4,{pixels[5]},Training", f"4,{pixels[6]},Training"]
    data = fer(place_with(tmp_path, {"fer2013.csv": "\n".join(rows)}))
    data.prepare()
    assert data.leaked().nonzero()[0].tolist() == [71]
    assert data.faces["split"][4] == data.faces["split"][84] != "test"
    assert data.faces["split"][5] == data.faces["split"][85]


def test_contest_tables(tmp_path: Path) -> None:
    place = place_with(tmp_path, {"train.csv": text("emotion,pixels"), "test.csv": text("pixels")})
    data = fer(place)
    data.prepare()
    assert sizes(data) == {"train": 84, "val": 11, "test": 10}
    assert data.notes == [
        "test.csv has no labels: its 105 rows are not used",
        "no official split: stratified, 80 % / 10 % / 10 %",
    ]
    assert np.array_equal(data.images[:, 0], FACES)
    (place / "test.csv").write_text(text("emotion,pixels", usages=["x"] * 14))
    labelled = fer(place)
    labelled.prepare()
    assert sizes(labelled)["test"] == 14
    assert sizes(labelled)["val"] in (10, 11)
    assert labelled.leaked().sum() == 14  # test.csv repeats the first rows


def test_a_missing_class_keeps_its_place(tmp_path: Path) -> None:
    rows = [row for row in text().splitlines() if not row.startswith("1,")]
    data = fer(place_with(tmp_path, {"fer2013.csv": "\n".join(rows)})).plan()
    assert data.emotions == CLASSES
    assert data.counts()["train"]["disgust"] == 0
    assert data.notes[0] == "train has no face of disgust, which counts 0 in macro F1"


ROW = " ".join(["7"] * 2304)
GOOD = f"emotion,pixels,Usage\n0,{ROW},Training\n"


@pytest.mark.parametrize(
    ("content", "row", "column", "message"),
    [
        (GOOD + f"1,{ROW[:-2]},Training\n", 3, "pixels", "2,303 pixels. A row has 2,304 numbers"),
        (GOOD + f"1,{ROW[:-1]}256,Training\n", 3, "pixels", "number 2304 is 256"),
        (GOOD + f"1,-1{ROW[1:]},Training\n", 3, "pixels", "number 1 is -1"),
        (GOOD + f"1,{ROW[:-1]}7.5,Training\n", 3, "pixels", "'7.5' is no pixel"),
        (GOOD + f"1,{ROW[:-1]}99999999999999999999,Training\n", 3, "pixels", "number 2304 is"),
        (GOOD + f"9,{ROW},Training\n", 3, "emotion", "'9'. Known: 0 is anger, 1 is disgust"),
        (GOOD + f",{ROW},Training\n", 3, "emotion", "''. Known: 0 is anger"),
        (GOOD + f"1,{ROW},Test\n", 3, "Usage", "'Test'. Known: Training is train"),
        (GOOD + f"\n\n1,{ROW}\n", 5, None, "2 columns, the header has 3"),
        (GOOD + f"1,{ROW},Training,x\n", 3, None, "4 columns, the header has 3"),
        (f"0,{ROW},Training\n", 1, None, "no header with emotion and pixels, but '0,7 7 7"),
        ("", None, None, "the file is empty"),
        ("emotion,pixels,Usage\n", None, None, "no rows below the header"),
    ],
)
def test_malformed_rows_are_named(
    tmp_path: Path, content: str, row: int | None, column: str | None, message: str
) -> None:
    place = place_with(tmp_path, {"fer2013.csv": content})
    with pytest.raises(RowError) as error:
        fer(place).plan()
    assert (error.value.file, error.value.row, error.value.column) == (place / "fer2013.csv", row, column)
    assert message in str(error.value)


def test_cut_and_foreign_files_are_named(tmp_path: Path) -> None:
    packed = lzma.compress(text().encode())
    place = place_with(tmp_path, {"fer2013.csv.xz": packed[: len(packed) // 2]})
    with pytest.raises(RowError, match=r"fer2013\.csv\.xz.*cannot be read further"):
        fer(place).plan()
    (place / "fer2013.csv.xz").unlink()
    (place / "fer2013.csv.gz").write_bytes(b"<html>")
    with pytest.raises(RowError, match=r"fer2013\.csv\.gz: cannot be read further"):
        fer(place).plan()
    (place / "fer2013.csv.gz").rename(place / "fer2013.csv")
    (place / "fer2013.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(RowError, match=r"fer2013\.csv: no text table"):
        fer(place).plan()


# ---- folders ---------------------------------------------------------------------------------------------------------


def fill(folder: Path, prefix: str, n: int, side: int = 48, mode: str = "L", start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + n):
        face = Image.fromarray(FACES[(number + 11 * len(folder.name)) % 105]).resize((side, side))
        face.convert(mode).save(folder / f"{prefix}{number}.png")


@pytest.mark.parametrize("top", ["", "archive/", "data/", "images/", "archive/fer2013/"])
def test_the_official_split_is_recovered_from_the_names(tmp_path: Path, top: str) -> None:
    place = tmp_path / "fer2013"
    for name in NAMES:
        fill(place / f"{top}train" / name, "Training_", 4)
        fill(place / f"{top}test" / name, "PublicTest_", 2, start=10)
        fill(place / f"{top}test" / name, "PrivateTest_", 3, start=20)
    data = fer(place)
    data.prepare()
    assert sizes(data) == {"train": 28, "val": 14, "test": 21}
    assert data.counts()["test"] == dict.fromkeys(CLASSES, 3)
    assert data.notes == []
    assert data.images.shape == (63, 1, 48, 48)
    row = data.faces[data.faces["source"] == f"{top}test/sad/PublicTest_11.png"].iloc[0]
    assert (row["split"], CLASSES[row["label"]]) == ("val", "sad")


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_validation_folder(tmp_path: Path, val: str) -> None:
    place = tmp_path / "fer2013"
    for name in NAMES:
        for split, n in (("train", 4), (val, 2), ("test", 1)):
            fill(place / split / name, f"{split}-", n)
    assert sizes(fer(place).plan()) == {"train": 28, "val": 14, "test": 7}


def test_public_test_alone_is_the_test_split(tmp_path: Path) -> None:
    place = tmp_path / "fer2013"
    for name in NAMES:
        fill(place / "train" / name, "Training_", 10)
        fill(place / "test" / name, "PublicTest_", 2, start=20)
    data = fer(place).plan()
    assert sizes(data) == {"train": 63, "val": 7, "test": 14}
    assert data.notes[0] == "no test split: the validation split (14 faces) is the test split"


def test_numbered_folders_need_an_order(tmp_path: Path) -> None:
    place = tmp_path / "fer2013"
    for number in range(7):
        for split in ("train", "val", "test"):
            fill(place / split / str(number), f"{split}-", number + 1)
    with pytest.raises(DatasetError, match="Set `order`; known orders are"):
        fer(place).plan()
    assert fer(place, order="fer2013").plan().counts()["train"]["neutral"] == 7
    assert fer(place, order="alphabetical7").plan().counts()["train"]["neutral"] == 5


@pytest.mark.parametrize(("side", "mode", "channels"), [(28, "L", 1), (224, "RGB", 3), (48, "RGBA", 3)])
def test_other_sizes_and_modes(tmp_path: Path, side: int, mode: str, channels: int) -> None:
    place = tmp_path / "fer2013"
    for name in NAMES:
        for split in ("train", "val", "test"):
            fill(place / split / name, f"{split}-", 1, side, mode)
    data = fer(place)
    data.prepare()
    assert data.images.shape == (21, channels, 48, 48)
    if mode == "RGBA":
        source = np.asarray(Image.open(place / data.faces["source"][0]).convert("RGB"))
        assert np.array_equal(data.images[0], source.transpose(2, 0, 1))


def test_an_emotion_that_fer_has_not_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "fer2013"
    for name in (*NAMES, "contempt"):
        fill(place / name, "", 10)
    with pytest.raises(DatasetError, match="labels outside the dataset's emotions: contempt"):
        fer(place).plan()


# ---- which layout ----------------------------------------------------------------------------------------------------


def test_two_layouts_are_refused_by_name_and_one_can_be_chosen(tmp_path: Path) -> None:
    place = place_with(tmp_path, {"fer2013.csv": text(), "data/icml_face_data.csv": text("emotion, Usage, pixels")})
    for name in NAMES:
        fill(place / "train" / name, "", 10)
    with pytest.raises(
        DatasetError, match=r"several layouts match: fer2013\.csv, \., data/icml_face_data\.csv\. Keep one"
    ):
        fer(place).plan()
    assert sizes(fer(place, layout="data/icml_face_data.csv").plan()) == OFFICIAL
    assert len(fer(place, layout=".").plan().faces) == 70
    with pytest.raises(DatasetError, match=r"no layout 'x'\. Found: fer2013\.csv"):
        fer(place, layout="x").plan()


def test_nothing_there(tmp_path: Path) -> None:
    place = tmp_path / "fer2013"
    with pytest.raises(DatasetError, match=r"fer2013: no folder .*fer2013. Expected there: \nfer2013\.csv"):
        fer(place).plan()
    place.mkdir()
    (place / ".DS_Store").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no FER-2013 there. Expected there"):
        fer(place).plan()
    (place / "fer2013.tar.gz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no FER-2013 there. Unpack fer2013\.tar\.gz first"):
        fer(place).plan()


def test_the_folder_is_only_read(tmp_path: Path, snapshot: Callable[[Path], object]) -> None:
    place = place_with(tmp_path, {"fer2013.csv": text()})
    (place / "fer2013.csv").chmod(0o444)
    place.chmod(0o555)
    before = snapshot(place)
    fer(place).prepare()
    assert snapshot(place) == before
    place.chmod(0o755)


# ---- the real rows ---------------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("EMOBENCH_DATA", "")) / "fer2013"


@pytest.mark.skipif(not (REAL / "fer2013.csv.xz").is_file(), reason="needs fer2013.csv.xz below EMOBENCH_DATA")
def test_the_real_rows(tmp_path: Path) -> None:
    data = FER2013(folder=REAL, cache=tmp_path)
    data.prepare()
    assert sizes(data) == {"train": 25_838, "val": 2_871, "test": 3_589}
    assert data.leaked().sum() == 280
    labels = pd.Series(np.array(data.emotions)[data.faces["label"]])
    assert labels[data.faces["split"] == "test"].value_counts()["happy"] == 895
    hashes = data.faces.groupby("split")["hash"].agg(set)
    assert not hashes["train"] & hashes["val"]
