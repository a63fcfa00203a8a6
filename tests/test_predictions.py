"""`predictions:FILE`: answers of a classifier that is not at hand, and the faces that they are of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reading import pages

from emobench.classifiers.predictions import Predictions
from emobench.data.datasets.synthetic import Synthetic
from emobench.errors import SuiteError, WeightsError
from emobench.evaluation.outside import answers

EMOTIONS = ("neutral", "happy", "sad")
FACES = pd.DataFrame({"id": [str(k) for k in (3, 5, 8, 9)], "source": [f"test/{k}.png" for k in range(4)]})


def of(path: Path, **more: object) -> Predictions:
    return Predictions(emotions=EMOTIONS, size=8, file=str(path), **more)  # type: ignore[arg-type]


def write(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep=";" if path.stem == "semicolons" else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "semicolons.csv", "a.parquet", "a.jsonl"])
@pytest.mark.parametrize(
    ("by", "keys"), [("id", ["9", "3", "5", "8"]), ("path", ["test/3.png", "./test/0.png", "test/1.png", "test/2.png"]),
                     ("source_row", [9, 3, 5, 8])],
)  # fmt: skip
def test_faces_are_found_by_id_path_or_row_of_the_original_table(
    name: str, by: str, keys: list[object], tmp_path: Path
) -> None:
    frame = pd.DataFrame({by: keys, "label": ["happy", "Sadness", "neutral", "sad"]})
    found = of(write(tmp_path / name, frame)).answers(FACES)
    assert [found.labels[k] for k in found.own] == ["sad", "neutral", "sad", "happy"]
    assert found.shares is None


def test_numbers_are_read_in_the_order_of_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", pd.DataFrame({"id": FACES["id"], "prediction": [0, 2, 1, 0]}))
    found = of(path, labels=["sad", "happy", "neutral"]).answers(FACES)
    assert [found.labels[k] for k in found.own] == ["sad", "neutral", "happy", "sad"]
    with pytest.raises(SuiteError, match="answers by numbers, and nothing says what they mean"):
        of(path).answers(FACES)
    with pytest.raises(SuiteError, match="row 2 says 2, and labels names 2 classes from 0"):
        of(path, labels=["sad", "happy"]).answers(FACES)


def test_probabilities_stand_in_columns_of_emotions(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": FACES["id"], "p_joy": [0.5, 0.2, 0.1, 1.0], "p_sad": [0.25, 0.7, 0.1, 0.0]})
    frame["p_contempt"] = 1 - frame["p_joy"] - frame["p_sad"]
    found = of(write(tmp_path / "a.csv", frame)).answers(FACES)
    assert found.labels == ("joy", "sad", "contempt")
    assert found.own.tolist() == [0, 1, 2, 0]
    assert found.shares is not None
    np.testing.assert_allclose(found.shares[2], [0.1, 0.1, 0.8])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"id": ["3", "5", "8", "9", "12"], "label": ["sad"] * 5}, r"1 rows are of no test face .* row 5 \(id 12\)"),
        (
            {"source_row": [3, 5, 8, 9, -1], "label": ["sad"] * 5},
            r"1 rows are of no test face .* row 5 \(source_row -1\)",
        ),
        ({"id": ["3", "5", "8", "9", "3"], "label": ["sad"] * 5}, r"1 rows are of a face that has one already: row 5"),
        ({"id": ["3", "5", "8"], "label": ["sad"] * 3}, "1 of 4 test faces have no prediction, such as 9"),
        ({"id": ["3"], "path": ["test/0.png"], "label": ["sad"]}, "has columns id and path; faces are named by one"),
        ({"face": ["3"], "label": ["sad"]}, "has no column id, path, source_row"),
        ({"id": ["3"], "answer": ["sad"]}, "has no column label, prediction, emotion, nor one an emotion"),
        ({"id": ["3"], "label": ["sad"], "prediction": ["sad"]}, "has columns label and prediction"),
        ({"id": ["3", "5"], "label": ["sad", "hapy"]}, "row 2: unknown emotion 'hapy': did you mean 'happy'"),
        ({"id": ["3"], "happy": [0.9], "sad": [0.9]}, "no probabilities that sum to 1, such as row 1: 0.9, 0.9"),
        ({"id": ["3"], "happy": ["x"], "sad": [0.9]}, "no probabilities"),
        ({"id": ["3"], "happy": [1.5], "sad": [-0.5]}, "no probabilities"),
        ({"id": ["3"], "happy": [0.5], "joy": [0.5]}, "two columns are of happy: happy and joy"),
    ],
)
def test_rows_that_mean_nothing_are_refused_by_number(
    frame: dict[str, list[object]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SuiteError, match=message):
        of(write(tmp_path / "a.csv", pd.DataFrame(frame))).answers(FACES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"id,label\n"),
        ("a.parquet", b"PAR1"),
        ("a.jsonl", b"{"),
        ("a.csv", b"\xff\xfe\x00"),
    ],
)
def test_what_is_no_table_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((WeightsError, SuiteError)):
        of(tmp_path / name).answers(FACES)


def test_a_path_is_asked_for_where_faces_are_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", pd.DataFrame({"source_row": [0], "label": ["sad"]}))
    with pytest.raises(SuiteError, match="faces are files, not rows of a table"):
        of(path).answers(FACES.assign(id=["a", "b", "c", "d"]))


# ---- what the dataset makes of them ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Drawn faces of three emotions."""
    module = Synthetic(
        size=32, variant="plain", train=30, val=30, test=30, only=EMOTIONS, cache=tmp_path_factory.mktemp("p")
    )
    module.prepare()
    return module


def test_an_answer_that_the_dataset_lacks_is_wrong_and_missing_faces_too(data: Synthetic, tmp_path: Path) -> None:
    test = data.faces[data.faces["split"] == "test"]
    labels = [data.emotions[label] for label in test["label"]]
    said = ["contempt", "other", *labels[2:-3]]
    frame = pd.DataFrame({"id": test["id"].iloc[:-3], "label": said})
    model = of(write(tmp_path / "a.csv", frame), partial=True)
    found = answers(model, data, test)
    assert found.predictions[:2].tolist() == [-1, -1]
    assert found.predictions[2:-3].tolist() == test["label"].iloc[2:-3].tolist()
    assert found.predictions[-3:].tolist() == [-1, -1, -1]
    assert (found.own < 0).sum() == 3
    assert found.by_class
    assert found.probabilities.sum(1) == pytest.approx(np.ones(30))


def test_dropped_probabilities_are_renormalised(data: Synthetic, tmp_path: Path) -> None:
    test = data.faces[data.faces["split"] == "test"]
    frame = pd.DataFrame({"id": test["id"], "happy": 0.1, "sad": 0.3, "fear": 0.6})
    found = answers(of(write(tmp_path / "a.csv", frame)), data, test)
    place = [data.emotions.index(name) for name in ("neutral", "happy", "sad")]
    np.testing.assert_allclose(found.probabilities[:, place], [[0, 0.25, 0.75]] * 30)
    assert set(found.predictions) == {data.emotions.index("sad")}


# ---- the list of faces -----------------------------------------------------------------------------------------------


def test_the_faces_of_a_split_are_listed_and_written(emobench: Callable[..., int], tmp_path: Path) -> None:
    given = [part for each in ("size=32", "train=80", "val=80", "test=80") for part in ("--set", each)]
    out, folder = tmp_path / "faces.csv", tmp_path / "pictures"
    assert emobench("data", "faces", "synthetic-plain", *given, "--out", out, "--pictures", folder) == 0
    listed = pd.read_csv(out, dtype=str)
    assert list(listed.columns) == ["id", "emotion", "picture"]
    assert listed["emotion"].value_counts().to_dict() == dict.fromkeys(listed["emotion"].unique(), 10)
    module = Synthetic(size=32, variant="plain", train=80, val=80, test=80).plan()
    module.prepare()
    test = module.faces[module.faces["split"] == "test"]
    assert listed["id"].tolist() == test["id"].tolist()
    picture = np.asarray(Image.open(folder / listed["picture"][7]))
    assert np.array_equal(picture, module.images[test.index[7]][0])
    assert emobench("data", "faces", "synthetic-plain", *given, "--out", out, "--pictures", folder) == 2


@pytest.mark.slow
def test_a_file_in_the_listed_form_is_scored(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part for each in ("size=32", "train=80", "val=80", "test=80") for part in ("--set", each)]
    assert emobench("data", "faces", "synthetic-plain", *given, "--out", tmp_path / "faces.csv") == 0
    listed = pd.read_csv(tmp_path / "faces.csv", dtype=str)
    listed.loc[::4, "emotion"] = "contempt"
    listed.to_csv(tmp_path / "mine.csv", index=False)
    settings = [f"data.{part}" if "=" in part else part for part in given]
    code = emobench(
        "score",
        "predictions",
        tmp_path / "mine.csv",
        "--data",
        "synthetic-plain",
        *settings,
        "--results",
        tmp_path / "r",
    )
    assert code == 0
    shown = capsys.readouterr().out
    right = (listed["emotion"] == pd.read_csv(tmp_path / "faces.csv")["emotion"]).mean()
    assert f"{right:.3f} (" in shown
    assert f"The page is {tmp_path / 'r' / 'score-mine' / 'leaderboard.md'}" in shown
    assert "training data not known" in pages(tmp_path / "r" / "score-mine")
