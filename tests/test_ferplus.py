"""FERPlus: votes joined to FER-2013's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emobench.data.datasets.ferplus import FERPlus
from emobench.emotions import EMOTIONS
from emobench.errors import DatasetError, RowError
from emobench.recipe import Recipe

COLUMNS = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
NAMES = ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt")
FACES = np.random.default_rng(0).integers(0, 256, (120, 2304), np.uint8)
USAGES = ["Training"] * 80 + ["PublicTest"] * 16 + ["PrivateTest"] * 24


def faces(n: int = 120) -> str:
    rows = [f"{k % 7},{' '.join(map(str, FACES[k]))},{USAGES[k]}" for k in range(n)]
    return "\n".join(["emotion,pixels,Usage", *rows])


def ballot(k: int) -> list[int]:
    """Seven votes for emotion k mod 8, three for the next one."""
    votes = [0] * 10
    votes[k % 8], votes[(k + 1) % 8] = 7, 3
    return votes


def votes(changed: dict[int, list[int]] | None = None, n: int = 120) -> str:
    """Every fourth row without an image name, as 173 of the real ones are."""
    lines = [f"Usage,Image name,{COLUMNS}"]
    for k in range(n):
        name = "" if k % 4 == 0 else f"fer{k + 7:07}.png"
        lines.append(f"{USAGES[k]},{name},{','.join(map(str, (changed or {}).get(k, ballot(k))))}")
    return "\n".join(lines)


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root / "ferplus"


def ferplus(place: Path, **arguments: Any) -> FERPlus:
    return FERPlus(folder=place, cache=place.parent / "cache", **arguments)


@pytest.mark.parametrize(
    ("of_votes", "of_faces"),
    [
        ("ferplus/fer2013new.csv", "ferplus/fer2013.csv"),
        ("ferplus/fer2013new.csv", "fer2013/fer2013.csv"),
        ("fer2013/fer2013new.csv", "fer2013/fer2013.csv"),
        ("fer2013/fer2013new.csv", "fer2013/archive/icml_face_data.csv"),
    ],
)
def test_votes_and_faces_are_found_and_joined(tmp_path: Path, of_votes: str, of_faces: str) -> None:
    data = ferplus(make(tmp_path, {of_votes: votes(), of_faces: faces()}))
    data.prepare()
    assert data.emotions == EMOTIONS
    assert [data.emotions[label] for label in data.faces["label"][:8]] == list(NAMES)
    assert {split: sum(n.values()) for split, n in data.counts().items()} == {"train": 80, "val": 16, "test": 24}
    assert np.array_equal(data.images[:, 0].reshape(120, -1), FACES)
    assert data.notes[0].startswith("of 120 faces 0 with a tie and 0 led by unknown")


def test_ties_unknown_and_no_faces_are_dropped_and_counted(tmp_path: Path) -> None:
    changed = {
        5: [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],
        6: [4, 0, 0, 0, 0, 0, 0, 0, 6, 0],
        7: [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
        90: [0, 4, 0, 0, 0, 0, 0, 0, 4, 2],
    }
    place = make(tmp_path, {"ferplus/fer2013new.csv": votes(changed), "ferplus/fer2013.csv": faces()})
    majority, soft = ferplus(place), ferplus(place, labels="soft")
    for data in (majority, soft):
        data.prepare()
        assert data.notes[0] == ("of 120 faces 2 with a tie and 2 led by unknown or not-a-face votes are left out")
        assert not {"5", "6", "7", "90"} & set(data.faces["id"])
    assert majority.faces["id"].tolist() == soft.faces["id"].tolist()
    assert majority.faces["label"].tolist() == soft.faces["label"].tolist()  # both are scored against the majority
    assert majority.fingerprint != soft.fingerprint


def test_soft_labels_are_the_shares_of_the_emotions(tmp_path: Path) -> None:
    changed = {0: [6, 2, 0, 0, 0, 0, 0, 0, 1, 1]}
    place = make(tmp_path, {"ferplus/fer2013new.csv": votes(changed), "ferplus/fer2013.csv": faces()})
    data = ferplus(place, labels="soft")
    data.prepare()
    data.feed(recipe=Recipe(epochs=1, batch=8), seed=0)
    targets = {
        int(row): shares for b in data.train_dataloader() for row, shares in zip(b["index"], b["emotions"], strict=True)
    }
    assert targets[0].tolist() == [0.75, 0.25, 0, 0, 0, 0, 0, 0]  # of eight votes; unknown and NF do not count
    second = dict(zip(EMOTIONS, targets[1].tolist(), strict=True))
    assert second == pytest.approx({**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.7, "surprise": 0.3})
    majority = ferplus(place)
    majority.prepare()
    majority.feed(recipe=Recipe(epochs=1, batch=8), seed=0)
    batch = next(iter(majority.train_dataloader()))
    assert set(batch["emotions"].flatten().tolist()) == {0.0, 1.0}


def test_permuted_soft_labels_move_with_their_rows(tmp_path: Path) -> None:
    place = make(tmp_path, {"ferplus/fer2013new.csv": votes(), "ferplus/fer2013.csv": faces()})
    data = ferplus(place, labels="soft")
    data.prepare()
    data.feed(recipe=Recipe(epochs=1, batch=8), seed=0, permuted=True)
    assert np.array_equal(data._targets().argmax(1), data._labels())
    assert not np.array_equal(data._labels(), data.faces["label"])


def test_fewer_faces_than_votes_join_the_first(tmp_path: Path) -> None:
    place = make(tmp_path, {"ferplus/fer2013new.csv": votes(), "ferplus/fer2013.csv": faces(96)})
    data = ferplus(place).plan()
    assert len(data.faces) == 96
    assert "no PrivateTest rows: PublicTest (16 rows) is the test split" in data.notes


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    shuffled = votes().splitlines()
    shuffled[3], shuffled[110] = shuffled[110], shuffled[3]
    place = make(tmp_path / "a", {"ferplus/fer2013new.csv": "\n".join(shuffled), "ferplus/fer2013.csv": faces()})
    with pytest.raises(RowError, match=r"fer2013new\.csv, row 4, Usage: 'PrivateTest', but face 2 of fer2013\.csv"):
        ferplus(place).plan()
    place = make(tmp_path / "b", {"ferplus/fer2013new.csv": votes(n=50), "ferplus/fer2013.csv": faces()})
    with pytest.raises(DatasetError, match="50 rows of votes for 120 faces"):
        ferplus(place).plan()
    place = make(tmp_path / "c", {"ferplus/fer2013.csv": faces()})
    with pytest.raises(DatasetError, match=r"no fer2013new\.csv there. Expected there"):
        ferplus(place).plan()
    with pytest.raises(DatasetError, match="no folder"):
        ferplus(tmp_path / "d" / "ferplus").plan()
