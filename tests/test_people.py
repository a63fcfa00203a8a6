"""The ceiling of classifiers: what one annotator reads in faces on which several have voted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reading import pages
from test_report import Results, one

from emobench.evaluation.tracks.recognition import Predictions, Recognition
from emobench.evaluation.tracks.track import Key, MeasuredCell
from emobench.metrics import intervals
from emobench.metrics.recognition import measures
from emobench.report.figures import marked
from emobench.report.html.write import write_page
from emobench.report.people import NAME, annotator
from emobench.report.write import write
from emobench.suite.keys import key

EMOTIONS = ("neutral", "happy", "sad")
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
# Of every four faces: happy by all; neutral, two sad; sad, four neutral; neutral, three sad and one unknown.
VOTES = ((0, 10, 0, 0), (8, 0, 2, 0), (4, 0, 6, 0), (6, 0, 3, 1))
LABELS = (1, 0, 2, 0)
FACES = 120


def voted(labels: np.ndarray) -> Predictions:
    faces = pd.DataFrame({"index": np.arange(len(labels)), "label": labels, "leaked": False, "id": "", "subject": None})
    return Predictions(MeasuredCell("m", 0, None, EMOTIONS, Path()), faces, np.empty(0))


def test_one_annotator_is_held_against_the_others() -> None:
    """By hand: leaving one out changes who leads only where the lead is a single vote."""
    votes = np.array([[5, 0, 5, 0], [6, 0, 4, 0], [2, 1, 0, 1], [0, 3, 0, 0]], float)
    found = annotator(voted(np.array([0, 0, 0, 1])), votes)
    confusion = found.tally[:, :9].reshape(-1, 3, 3)
    # Five to five: whoever is left out finds the five others in the lead, and so is never with them.
    assert confusion[0] == pytest.approx(np.array([[0, 0, 0.5], [0, 0, 0], [0.5, 0, 0]]))
    # Six to four: six find five to four for neutral, four find six to three.
    assert confusion[1] == pytest.approx(np.array([[0.6, 0, 0.4], [0, 0, 0], [0, 0, 0]]))
    # Two neutral, one happy, one of no emotion: a neutral one finds one to one, half a lead each.
    assert confusion[2] == pytest.approx(np.array([[0.25, 0.25, 0], [0.25, 0, 0], [0, 0, 0]]))
    assert found.tally[2, -3:] == pytest.approx([0.25, 0, 0])  # named no emotion, the others say neutral
    assert confusion[3, 1, 1] == 1
    assert measures(found.tally.sum(0), 3)["accuracy"] == pytest.approx((0 + 0.6 + 0.25 + 1) / 4)
    assert found.tally[:, 9 : 9 + 16].sum() == 0


def test_an_annotators_interval_is_that_of_whole_faces() -> None:
    """A face of close votes counts for several emotions: each has the others' for its own."""
    votes = np.random.default_rng(0).integers(0, 5, (200, 4)).astype(float)
    votes[:, 2] += 1
    found = annotator(voted(votes[:, :3].argmax(1)), votes)
    own = np.eye(3)[found.faces["label"]]
    assert (found.tally[:, :9].reshape(-1, 3, 3).sum(2) * (1 - own)).sum() > 10  # of the other annotators' emotions
    drawn = Recognition().estimates([found])[0][0]
    resampled = intervals.bootstrap(found.tally[None], lambda sums: measures(sums, 3)["accuracy"][..., None])
    np.testing.assert_allclose(drawn.draws[:, drawn.keys.index(Key("accuracy"))], resampled[:, 0, 0], rtol=1e-6)


def test_a_confusion_is_marked_where_both_make_it() -> None:
    people = np.array([[0.9, 0.1, 0], [0.1, 0.9, 0], [np.nan] * 3])
    shares = np.array([[0.5, 0.5, 0], [0.02, 0.98, 0], [0.5, 0.1, 0.4]])
    assert np.argwhere(marked(people, shares)).tolist() == [[0, 1]]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Path]]:
    """`board(root)` is the board of a classifier on FERPlus, written with a data root."""
    monkeypatch.setenv("EMOBENCH_CACHE", str(tmp_path / "cache"))
    labels = np.tile(LABELS, FACES // 4)
    read = np.where(np.arange(FACES) % 8 == 2, 0, labels)  # half of the sad ones as neutral
    shares = np.where(read[:, None] == np.arange(3), 0.9, 0.05)
    table = pd.DataFrame(
        {
            "index": np.arange(FACES), "id": [str(row) for row in range(FACES)], "subject": None, "label": labels,
            "prediction": read, "leaked": False, **{f"p_{name}": shares[:, k] for k, name in enumerate(EMOTIONS)},
        }
    )  # fmt: skip
    made = Results(tmp_path / "results")
    result = made.cell("resnet18", 0, table=table) / "result.json"
    content = json.loads(result.read_text())
    fit = content["made_of"]["fit"]
    fit["data"] = {"dataset": "ferplus", "arguments": {"labels": "majority", "ignore": None}}
    keys = {"fit_key": key(fit)}
    content["made_of"]["eval"]["fit_key"] = keys["fit_key"]
    keys["eval_key"] = key(content["made_of"]["eval"])
    made.rows[0].update(keys)
    folder = made.folder / "cells" / keys["fit_key"] / keys["eval_key"]
    folder.parent.mkdir()
    result.parent.rename(folder)
    (folder / "result.json").write_text(json.dumps({**content, **keys}))
    made.write()
    return lambda root: (write(made.folder, "demo", data=root), made.folder)


def root(tmp_path: Path, votes: Any = VOTES) -> Path:
    (tmp_path / "data" / "fer2013").mkdir(parents=True)
    lines = [f"Test,face{k}.png,{n},{h},0,{s},0,0,0,0,{u},0" for k, (n, h, s, u) in enumerate([*votes] * (FACES // 4))]
    (tmp_path / "data" / "fer2013" / "fer2013new.csv").write_text("\n".join([HEADER, *lines]))
    return tmp_path / "data"


def test_an_annotator_stands_beside_the_classifiers_of_a_dataset_with_votes(
    board: Callable[..., tuple[Any, Path]], tmp_path: Path
) -> None:
    found, results = board(root(tmp_path))
    table = pd.read_csv(results / "demo" / "metrics.csv", keep_default_na=False)
    number = one(table, model=NAME, metric="accuracy", emotion="")
    # 10 of 10; 8 of 10; 6 of 10, who find five to four; 6 of 10, the unknown one is wrong.
    assert float(number["value"]) == pytest.approx((1 + 0.8 + 0.6 + 0.6) / 4)
    assert float(number["low"]) < float(number["value"]) < float(number["high"])
    assert number["n"] in (FACES, str(FACES))
    assert one(table, model=NAME, metric="ece")["reason"] == "people give no probabilities"
    assert "|  | *one person* | " in found.path.read_text()
    text = pages(found.path.parent)
    assert "| control:annotator | 0.7" in text
    assert "sad as neutral, 50 % (people too, 40 %)" in text
    assert "is one person of those who labelled the faces" in text
    assert len(list((results / "demo" / "figures").glob("confusion-control_annotator*"))) == 1
    page = json.loads(write_page(found, results).read_text().split('id="data">')[1].split("</script>")[0])
    assert page["sections"][0]["people"][2] == [400, 0, 600]


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        (None, "the votes (fer2013new.csv) are not at hand"),
        (((0, 10, 0, 0), (2, 8, 0, 0), (4, 0, 6, 0), (6, 0, 3, 1)), "give 30 of 120 test faces another emotion"),
        (((0, 10, 0, 0), ("x", 8, 0, 0), (4, 0, 6, 0), (6, 0, 3, 1)), "'x' is no number"),
    ],
)
def test_without_the_right_votes_a_board_says_so(
    board: Callable[..., tuple[Any, Path]], tmp_path: Path, votes: Any, said: str
) -> None:
    data = tmp_path if votes is None else root(tmp_path, votes)
    found, results = board(data)
    text = pages(found.path.parent).replace("\\", "")
    assert "No ceiling by people: " in text
    assert said in text
    assert str(tmp_path) not in text
    assert NAME not in set(pd.read_csv(results / "demo" / "metrics.csv", keep_default_na=False)["model"])
