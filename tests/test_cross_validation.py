"""`cross_validate`: a network a part of the faces, each reading the part that it was trained without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from reading import pages

import emobench as package
from emobench.data.datasets.folder import Folder
from emobench.data.split import complete, parts
from emobench.errors import DatasetError, EmobenchError, SuiteError
from emobench.evaluation.predict import predict
from emobench.runner.store import load_board
from emobench.suite.expand import expand
from emobench.suite.file import load

Emobench = Callable[..., int]

SUITE = """
seeds = [0]

[data."folder:mine"]
size = 32
cross_validate = 2

[model.resnet18]
width = 0.0625
batch = 8
epochs = 1
patience = "none"

[model.cnn21]
padding = true
size = 32
batch = 8
epochs = 1
"""


def faces(place: Path, n: int, emotions: tuple[str, ...] = ("happy", "sad")) -> None:
    """n different faces of each emotion, every third one twice."""
    for k, emotion in enumerate(emotions):
        (place / emotion).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            random = np.random.default_rng([k, number - number % 3 if number % 3 == 1 else number])
            blocks = random.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(blocks.repeat(4, 0).repeat(4, 1)).save(place / emotion / f"{number:02}.png")


def index(n: int, subjects: int | None = None, split: str | None = None) -> pd.DataFrame:
    random = np.random.default_rng(0)
    subject = [None] * n if subjects is None else [f"p{k % subjects}" for k in range(n)]
    return pd.DataFrame(
        {
            "label": random.choice(["happy", "sad", "fear"], n),
            "subject": subject,
            "split": split,
            "twin": np.arange(n) // 2,
        }
    )


# ---- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subjects", [None, 17])
@pytest.mark.parametrize("folds", [2, 5])
def test_every_face_is_held_out_once_and_groups_stay_together(subjects: int | None, folds: int) -> None:
    table = index(120, subjects)
    groups = table["twin"] if subjects is None else table["subject"]
    held_out = np.zeros(len(table), int)
    for k in range(folds):
        split, notes = complete(table, "here", cross=(k, folds))
        held_out += (split == "test").to_numpy()
        assert (groups.groupby(groups).transform("size") > 0).all()
        assert (split.groupby(groups).nunique() == 1).all()  # nobody, and no copy, is on two sides
        assert set(split) == {"train", "val", "test"}
        assert ((split == "test").to_numpy() == (parts(table, folds) == k)).all()
        share = (split == "val").sum() / (split != "test").sum()
        assert 0.03 < share < 0.2  # carved from the training part
        assert f"fold {k + 1} of {folds}" in notes[0]
    assert (held_out == 1).all()


def test_as_a_whole_every_face_is_a_test_face() -> None:
    split, notes = complete(index(30), "here", cross=(None, 3))
    assert set(split) == {"test"}
    assert notes[0].startswith("3-fold cross-validation, stratified: each face is read by the one of 3 networks that")


def test_what_cannot_be_cross_validated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="its test split is official"):
        complete(index(30, split="test"), "here", cross=(None, 3))
    with pytest.raises(DatasetError, match="sets folds and cross_validate"):
        complete(index(30, 10), "here", fold=(0, 3), cross=(None, 3))
    with pytest.raises(DatasetError, match="cross_validate = 20, but there are 15 faces that are no copies"):
        complete(index(30), "here", cross=(None, 20))
    with pytest.raises(DatasetError, match=r"here: .*cross_validate = 5, but there are 3 people"):
        complete(index(30, 3), "here: x", cross=(0, 5))
    with pytest.raises(DatasetError, match="held_out = 2, but cross_validate = 2"):
        Folder(dataset="mine", folder=tmp_path, cross_validate=2, held_out=2)
    (tmp_path / "drawn.toml").write_text("[data.synthetic]\ncross_validate = 3\n[model.resnet18]\n")
    with pytest.raises(SuiteError, match=r"\[data.synthetic\]: the splits of synthetic are its own"):
        expand(load(tmp_path / "drawn.toml"), tmp_path)


def test_copies_are_held_out_together(tmp_path: Path) -> None:
    faces(tmp_path / "mine", 12)
    for k in range(3):
        data = Folder(dataset="mine", folder=tmp_path / "mine", cache=tmp_path / "cache", cross_validate=3, held_out=k)
        data.prepare()
        assert not data.copied().any()
        assert not data.leaked().any()
    whole = Folder(dataset="mine", folder=tmp_path / "mine", cache=tmp_path / "cache", cross_validate=3).plan()
    assert whole.counts()["test"] == whole.counts()["train"] == {"happy": 12, "sad": 12}


def test_the_parts_share_one_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces(tmp_path / "mine", 12)
    read = Folder.read
    reads: list[str] = []

    def counted(self: Folder, row: Any) -> np.ndarray:
        reads.append(row.id)
        return read(self, row)

    monkeypatch.setattr(Folder, "read", counted)
    place: dict[str, Any] = {"dataset": "mine", "folder": tmp_path / "mine", "cache": tmp_path / "cache"}
    parts = [Folder(**place, cross_validate=3, held_out=k) for k in range(3)]
    whole = Folder(**place, cross_validate=3)
    for data in (*parts, whole):
        data.prepare()
    assert sorted(reads) == sorted(set(reads)) == sorted(whole.faces["id"])
    assert len([*(tmp_path / "cache" / "packs").iterdir()]) == 1
    assert len({data.fingerprint for data in (*parts, whole)}) == 4
    for k, data in enumerate(parts):
        assert (data.faces["split"] == "test").tolist() == (whole.faces["part"] == k).tolist()
        assert data.audit["sizes"] == whole.audit["sizes"]
        pd.testing.assert_frame_equal(
            data.faces.drop(columns="split"), whole.faces.drop(columns=["split", "part"]), check_dtype=False
        )
        assert np.array_equal(data.images, whole.images)


OTHER = 'data."folder:other"={ size = 32 }'
PANEL = 'panel=["resnet18", "cnn21"]'
READER = 'model.reader={ class = "resnet18", width = 0.125 }'

# ---- suites ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    faces(tmp_path / "data" / "mine", 12)
    path = tmp_path / "crossed.toml"
    path.write_text(SUITE)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('model.cvae={ size = 32, on = ["folder:mine"] }', "cvae makes faces, and judges need test faces"),
        ('model.both={ class = "ensemble", needs = { members = ["resnet18", "cnn21"] } }', "is made of other rows"),
        ("model.resnet18.lr={ sweep = [0.1, 0.2] }", "is one of several settings"),
        (
            'model.x={ class = "cross_validated", needs = { networks = "resnet18" } }',
            "what `cross_validate` makes of a",
        ),
        ('data."folder:mine".cross_validate=1', "cross_validate = 1 does not fit"),
    ],
)
def test_rows_that_cannot_be_cross_validated_are_refused(suite: Path, change: str, said: str) -> None:
    panel = (PANEL, READER, 'reader="reader"') if "cvae" in change else ()
    with pytest.raises(EmobenchError, match=said):
        expand(load(suite, [change, *panel]), suite.parent / "data")


def test_a_joint_fit_is_refused(suite: Path) -> None:
    faces(suite.parent / "data" / "other", 12)
    both = 'model.stargan={ size = 32, train_on = ["folder:mine", "folder:other"] }'
    others = ["resnet18", "cnn21", "reader"]
    on = [f'model.{row}.on=["folder:other"]' for row in others]
    with pytest.raises(SuiteError, match="folder:mine is cross-validated"):
        expand(
            load(suite, ['data."folder:other"={ size = 32 }', both, PANEL, READER, 'reader="reader"', *on]),
            suite.parent / "data",
        )


def test_keys_of_other_datasets_do_not_know_of_it(suite: Path) -> None:
    plan = expand(load(suite, ['data."folder:mine"={ size = 32 }']), suite.parent / "data")
    assert [cell.row for cell in plan.cells] == ["resnet18", "cnn21", "control:permuted"]
    assert not {"cross_validate", "held_out"} & plan.cells[0].fit["data"]["arguments"].keys()


def test_a_row_is_a_fit_a_part_and_one_cell_that_pools_them(suite: Path) -> None:
    cells = expand(load(suite, ["seeds=[0, 1]"]), suite.parent / "data").cells
    assert [(cell.row, cell.seed, cell.part) for cell in cells if cell.row == "resnet18"] == [
        ("resnet18", seed, part) for seed in (0, 1) for part in (0, 1, None)
    ]
    pooled = next(cell for cell in cells if cell.part is None)
    assert pooled.needs == {"networks": [cell.fit_key for cell in cells[:2]]}
    assert not pooled.trains
    assert len({cell.fit_key for cell in cells}) == len(cells) == 3 * 5


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_answers_are_pooled_out_of_fold(
    suite: Path, emobench: Emobench, snapshot: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    home = suite.parent
    results, where = home / "results", ("--data", home / "data", "--results", home / "results")
    assert emobench("bench", suite, *where) == 0
    cells = load_board(results, "crossed")
    mine = [cell for cell in cells if cell.row == "resnet18"]
    whole = next(cell for cell in mine if cell.part is None)
    read = {cell.part: pd.read_parquet(cell.folder / "predictions.parquet") for cell in mine if cell.folder is not None}
    pooled = read.pop(None)
    assert sorted(pooled["id"]) == sorted(id_ for of in read.values() for id_ in of["id"])
    assert len(pooled) == 24
    shares = ["p_happy", "p_sad"]
    for of in read.values():  # the very answers of the network that was trained without the face
        pd.testing.assert_frame_equal(
            pooled.set_index("id").loc[of["id"], ["label", "prediction", *shares]],
            of.set_index("id")[["label", "prediction", *shares]],
            atol=1e-6,
        )
    _says_so(results, whole, mine)
    before = snapshot(results / "crossed"), [snapshot(each) for each in sorted((results / "cells").iterdir())]
    assert emobench("bench", suite, *where) == 0
    assert (snapshot(results / "crossed"), [snapshot(each) for each in sorted((results / "cells").iterdir())]) == before
    _answers_of_all(home, whole)


def _says_so(results: Path, whole: Any, cells: list[Any]) -> None:
    """The board has one row a model, with what all fits cost, and says what was done."""
    page = pages(results / "crossed")
    assert "n = 24 faces" in page
    assert "fold cross-validation, stratified: each face is read by the one of 2 networks" in page
    assert "Complete: 9 of 9 cells done" in page
    assert "Few test faces: a difference of macro F1 below about 0." in page
    board = package.read_board(results / "crossed")
    assert (board[board.metric == "macro_f1"].n == 24).all()
    assert set(board.model) == {"resnet18", "cnn21", "control:permuted", "control:majority"}
    costs = [cell.record.fit.cost for cell in cells if cell.part is not None]
    mine = whole.record.fit.cost
    assert mine.fit_seconds == pytest.approx(sum(each.fit_seconds for each in costs))
    assert mine.params == costs[0].params == whole.record.evaluation.params
    assert whole.share == pytest.approx(min(each.recipe_share for each in costs))
    scores = [cell.record.fit.validation.macro_f1 for cell in cells if cell.part is not None]
    assert whole.record.fit.validation.macro_f1 == pytest.approx(np.mean(scores))


def _answers_of_all(home: Path, whole: Any) -> None:
    """A picture from elsewhere is read by all networks, as an ensemble."""
    model = package.load(home / "results", "crossed", "resnet18")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    together, _ = predict(model, images, 3)
    each = [predict(network, images, 3)[0] for network in model.members]
    np.testing.assert_allclose(together, np.mean(each, 0), atol=1e-5)
    assert torch.is_tensor(model(torch.from_numpy(images)))
    assert json.loads((home / "results" / "crossed" / "suite.json").read_text())["rows"][0]["part"] == 0
    assert whole.model == "resnet18"
