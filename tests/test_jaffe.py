"""JAFFE: person and emotion in the names of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emobench.data.datasets.jaffe import JAFFE
from emobench.errors import DatasetError, DatasetMissing, RowError

CODES = {"AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise"}
PEOPLE = ("KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM")


def jaffe(place: Path, **arguments: Any) -> JAFFE:
    return JAFFE(folder=place, cache=place.parent / "cache", **{"size": 16, **arguments})


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 16), np.uint8)


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number)).save(path)


def pictures(top: Path, suffix: str = "tiff", each: int = 2) -> Path:
    """As they are named: the last number runs through all pictures, from 1."""
    number = 0
    for person in PEOPLE:
        for code in CODES:
            for k in range(1, each + 1):
                number += 1
                save(top / f"{person}.{code}{k}.{number}.{suffix}", number)
    return top


@pytest.mark.parametrize("top", ["", "jaffe", "archive/jaffedbase", "Japanese Women"])
def test_people_emotions_and_pixels(tmp_path: Path, top: str) -> None:
    pictures(tmp_path / "jaffe" / top)
    (tmp_path / "jaffe" / top / ".DS_Store").write_bytes(b"")
    (tmp_path / "jaffe" / top / "README").write_text("...")
    data = jaffe(tmp_path / "jaffe")
    data.prepare()
    assert data.emotions == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
    assert len(data.faces) == 140
    for k, row in enumerate(data.faces.itertuples()):
        person, code, number = row.source.rpartition("/")[2].split(".")[:3]
        assert row.subject == person
        assert data.emotions[row.label] == CODES[code[:2]]
        assert np.array_equal(data.images[k, 0], pixels(int(number)))
    assert set(data.faces["subject"]) == set(PEOPLE)
    assert (data.faces.groupby("subject")["split"].nunique() == 1).all()
    assert {split: sum(n.values()) for split, n in data.counts().items()} == {"train": 112, "val": 14, "test": 14}
    assert data.notes[-1] == "no official split: by subject, 80 % / 10 % / 10 %"


def test_every_person_is_read_by_a_network_that_has_not_seen_her(tmp_path: Path) -> None:
    data = jaffe(pictures(tmp_path / "jaffe"), cross_validate=10).plan()
    assert data.faces.groupby("subject")["part"].nunique().eq(1).all()
    assert data.faces["part"].nunique() == 10


def test_other_suffixes_and_cases(tmp_path: Path) -> None:
    place = pictures(tmp_path / "jaffe", suffix="png")
    for path in list(place.iterdir()):
        path.rename(path.with_name(path.name.lower()))
    data = jaffe(place).plan()
    assert len(data.faces) == 140
    assert set(data.faces["subject"]) == set(PEOPLE)


def test_other_names_are_left_out_and_counted(tmp_path: Path) -> None:
    place = pictures(tmp_path / "jaffe")
    save(place / "mean face.tiff", 999)
    (place / "notes.txt").write_text("...")
    data = jaffe(place).plan()
    assert len(data.faces) == 140
    assert "pictures whose names are not such as KA.AN1.39.tiff are left out: 1 (mean face.tiff)" in data.notes
    assert "1 file that is no face is left out: 1 .txt" in data.notes


def test_own_meanings_and_unknown_codes(tmp_path: Path) -> None:
    place = pictures(tmp_path / "jaffe")
    data = jaffe(place, labels={"surprise": "FE"}, ignore="NE").plan()
    assert len(data.faces) == 120
    assert sum(counts["surprise"] for counts in data.counts().values()) == 40
    save(place / "KA.XX1.500.tiff", 500)
    with pytest.raises(RowError, match=r"KA\.XX1\.500\.tiff, emotion: 'XX'\. Known: AN is anger"):
        jaffe(place).plan()


def test_broken_pictures_are_excluded_and_counted(tmp_path: Path) -> None:
    place = pictures(tmp_path / "jaffe")
    (place / "KA.AN1.1.tiff").write_bytes(b"")
    data = jaffe(place).plan()
    assert list(data.audit["excluded_faces"].values()) == [
        "KA.AN1.1.tiff: not an intact image (0 bytes). Replace the file by an intact copy, or remove it."
    ]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"no folder .*Expected there: \nKA\.AN1\.39\.tiff"):
        jaffe(tmp_path / "jaffe").plan()
    (tmp_path / "jaffe").mkdir()
    (tmp_path / "jaffe/jaffe.zip").write_bytes(b"PK")
    with pytest.raises(DatasetMissing, match=r"no JAFFE there\. Unpack jaffe\.zip first"):
        jaffe(tmp_path / "jaffe").plan()
    pictures(tmp_path / "jaffe")
    pictures(tmp_path / "jaffe/jaffe")
    with pytest.raises(DatasetError, match=r"several layouts match: \., jaffe.*`layout`"):
        jaffe(tmp_path / "jaffe").plan()
    assert len(jaffe(tmp_path / "jaffe", layout="jaffe").plan().faces) == 140
