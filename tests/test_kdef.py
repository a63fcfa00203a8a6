"""KDEF: session, person, emotion and angle in the names of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emobench.data.datasets.kdef import ANGLES, KDEF
from emobench.errors import DatasetError, DatasetMissing, RowError, SuiteError
from emobench.suite.rows import data_module

CODES = {"AF": "fear", "AN": "anger", "DI": "disgust", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise"}
PEOPLE = [f"{gender}{number:02}" for gender in "FM" for number in range(1, 6)]


def kdef(place: Path, **arguments: Any) -> KDEF:
    return KDEF(folder=place, cache=place.parent / "cache", **{"size": 16, **arguments})


def pixels(name: str) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).integers(0, 256, (16, 16, 3), np.uint8)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(path.stem.upper())).save(path)


def pictures(top: Path, form: str = "{folder}/{name}.PNG", angles: tuple[str, ...] = ANGLES) -> Path:
    """Ten people in two sessions; PNG, so that pixels can be compared."""
    for person in PEOPLE:
        for session in "AB":
            for code in CODES:
                for angle in angles:
                    name = f"{session}{person}{code}{angle}"
                    save(top / form.format(folder=session + person, name=name))
    return top


@pytest.mark.parametrize(
    ("top", "form"),
    [
        ("", "{folder}/{name}.PNG"),
        ("", "{name}.png"),
        ("KDEF_and_AKDEF/KDEF", "{folder}/{name}.PNG"),
        ("KDEF_and_AKDEF/KDEF_and_AKDEF/KDEF", "{folder}/{name}.PNG"),
    ],
)
def test_people_emotions_slices_and_pixels(tmp_path: Path, top: str, form: str) -> None:
    pictures(tmp_path / "kdef" / top, form, ("S", "HL"))
    data = kdef(tmp_path / "kdef")
    data.prepare()
    assert data.emotions == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
    assert len(data.faces) == 140
    assert "pictures of other angles are left out: 140 HL" in data.notes
    for k, row in enumerate(data.faces.itertuples()):
        name = Path(row.source).stem
        assert (row.session, row.subject, row.angle) == (name[0], name[1:4], "S")
        assert row.gender == {"F": "female", "M": "male"}[name[1]]
        assert data.emotions[row.label] == CODES[name[4:6]]
        assert np.array_equal(data.images[k], pixels(name).transpose(2, 0, 1))
    assert set(data.faces["subject"]) == set(PEOPLE)  # both sessions of a person together
    assert (data.faces.groupby("subject")["split"].nunique() == 1).all()
    assert {split: sum(n.values()) for split, n in data.counts().items()} == {"train": 112, "val": 14, "test": 14}


def test_angles(tmp_path: Path) -> None:
    place = pictures(tmp_path / "kdef")
    both = kdef(place, angle=["HR", "HL"]).plan()
    assert both.faces["angle"].value_counts().to_dict() == {"HL": 140, "HR": 140}
    assert "pictures of other angles are left out: 140 FL, 140 S, 140 FR" in both.notes
    assert both.fingerprint == kdef(place, angle=["HL", "HR"]).plan().fingerprint
    everything = kdef(place, angle="all").plan()
    assert len(everything.faces) == 700
    assert (everything.faces.groupby("subject")["split"].nunique() == 1).all()
    assert not any("other angles" in note for note in everything.notes)
    assert kdef(place).plan().fingerprint == kdef(place, angle=["S"]).plan().fingerprint
    with pytest.raises(DatasetError, match="angle = 'X'. It is one of FL, HL, S, HR, FR, a list of these, or all"):
        kdef(place, angle="X")


def test_angles_in_a_suite(tmp_path: Path) -> None:
    place = pictures(tmp_path / "kdef", angles=("S", "FL"))
    module, arguments = data_module("x", "kdef", {"angle": ["S", "FL"]}, tmp_path)
    assert arguments["angle"] == ["S", "FL"]
    assert len(module.plan(pixels=False).faces) == 280
    with pytest.raises(SuiteError, match="angle = 'front' does not fit"):
        data_module("x", "kdef", {"angle": "front"}, tmp_path)
    (place / "AF01" / "AF01ANS.PNG").unlink()
    for path in place.rglob("*S.PNG"):
        path.unlink()
    with pytest.raises(DatasetError, match="no picture of the angle S, but 140 FL. Set `angle`"):
        kdef(place).plan()


def test_names_that_follow_no_rule_are_left_out_and_counted(tmp_path: Path) -> None:
    place = pictures(tmp_path / "kdef", angles=("S",))
    for name in ("AF31V", "AM31H"):
        save(place / "AF01" / f"{name}.JPG")
    data = kdef(place).plan()
    assert len(data.faces) == 140
    assert "pictures whose names are not such as AF01ANS.JPG are left out: 2 (AF31V.JPG, AM31H.JPG)" in data.notes
    save(place / "AF01" / "AF01XXS.JPG")
    with pytest.raises(RowError, match=r"AF01XXS\.JPG, emotion: 'XX'\. Known: AF is fear"):
        kdef(place).plan()


def test_lower_case_and_broken_pictures(tmp_path: Path) -> None:
    place = pictures(tmp_path / "kdef", "{name}.png", ("S",))
    for path in list(place.iterdir()):
        path.rename(path.with_name(path.name.lower()))
    assert set(kdef(place).plan().faces["subject"]) == set(PEOPLE)
    (place / "af01ans.png").write_bytes(b"x" * 300)
    data = kdef(place).plan()
    assert list(data.audit["excluded_faces"]) == ["af01ans.png"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"no folder .*Expected there: \nAF01/AF01ANS\.JPG"):
        kdef(tmp_path / "kdef").plan()
    (tmp_path / "kdef").mkdir()
    (tmp_path / "kdef/KDEF_and_AKDEF.zip").write_bytes(b"PK")
    with pytest.raises(DatasetMissing, match=r"no KDEF there\. Unpack KDEF_and_AKDEF\.zip first"):
        kdef(tmp_path / "kdef").plan()
    pictures(tmp_path / "kdef/KDEF", angles=("S",))
    pictures(tmp_path / "kdef/archive/KDEF", angles=("S",))
    with pytest.raises(DatasetError, match=r"several layouts match: KDEF, archive/KDEF.*`layout`"):
        kdef(tmp_path / "kdef").plan()
