"""Pictures of somebody's generator as a row, and faces asked for in sentences."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from reading import pages

from emobench.cues.reader import Cue, CueReader
from emobench.cues.request import weights_of
from emobench.cues.sentences import sentences
from emobench.emotions import EMOTIONS
from emobench.errors import SuiteError
from emobench.evaluation import given
from emobench.generators.pictures import Pictures, edits_in, pictures_in
from emobench.report.written import read_board
from emobench.runner.store import load_board

Run = Callable[..., int]


def paint(folder: Path, counts: dict[str, int], size: int = 8) -> Path:
    """A folder an emotion with so many pictures, each of a shade of its own."""
    for emotion, count in counts.items():
        (folder / emotion).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shade = (number * 7 + len(emotion)) % 256
            Image.new("RGB", (size, size), (shade, shade, shade)).save(folder / emotion / f"{number:03d}.png")
    return folder


def model(folder: Path) -> Pictures:
    return Pictures(emotions=("neutral", "happy"), size=8, directory=str(folder))


def test_requests_are_answered_as_far_as_there_are_pictures(tmp_path: Path) -> None:
    pictures = model(paint(tmp_path, {"Neutral": 3, "joy": 5, "happiness": 1}))
    asked = np.array([0, 1] * 5)
    names = ("neutral", "happy")
    there = given.answered(pictures, names, asked, "control")
    assert there.tolist() == [True, True, True, True, True, True, False, True, False, True]
    paths = given.chosen(pictures, names, asked[there], "control")
    assert len(set(paths)) == 8
    assert [path.parent.name in ("Neutral",) for path in paths] == (asked[there] == 0).tolist()
    faces = given.read(paths, 8)
    assert faces.shape == (8, 3, 8, 8)
    again = given.chosen(model(tmp_path), names, asked[there], "control")
    assert again == paths


def test_control_takes_other_pictures_than_fidelity_where_there_are_enough(tmp_path: Path) -> None:
    pictures, names = model(paint(tmp_path, {"neutral": 10, "happy": 10})), ("neutral", "happy")
    fidelity = given.chosen(pictures, names, np.repeat([0, 1], 6), "fidelity")
    control = given.chosen(pictures, names, np.repeat([0, 1], 4), "control")
    assert not {*fidelity} & {*control}
    assert fidelity[:6] != sorted(fidelity[:6])  # a draw, not the first by name


def test_sets_of_their_own_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("fidelity", "control"):
        paint(tmp_path / name, {"neutral": 2, "happy": 2})
    paths = given.chosen(model(tmp_path), ("neutral", "happy"), np.array([1, 0, 1, 0]), "fidelity")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "fidelity/happy/000.png", "fidelity/neutral/000.png", "fidelity/happy/001.png", "fidelity/neutral/001.png",
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "control")
    with pytest.raises(SuiteError, match="has fidelity/ alone"):
        pictures_in(str(tmp_path))


def test_what_is_no_folder_of_faces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such folder"):
        pictures_in(str(tmp_path / "none"))
    (tmp_path / "cats").mkdir()
    with pytest.raises(SuiteError, match="holds no folder of an emotion"):
        pictures_in(str(tmp_path))
    with pytest.raises(SuiteError, match="is pictures, and draws none"):
        model(paint(tmp_path, {"happy": 1, "neutral": 1})).sample(torch.eye(2), torch.arange(2))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "has no rows with the columns"),
        ("a.png,3,hapy\n", "row 1: 'hapy' is no emotion"),
        ("b.png,3,happy\n", "row 1: no picture b.png"),
        ("../a.png,3,happy\n", r"row 1: no picture \.\./a.png"),
        ("a.png,3,happy\na.png,3,joy\n", "row 2: 3 towards joy stands there already"),
    ],
)
def test_a_list_of_edits_that_means_nothing_is_refused(rows: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "edits"
    folder.mkdir()
    for place in (folder, tmp_path):
        Image.new("L", (8, 8)).save(place / "a.png")
    (folder / "edits.csv").write_text(f"file,source,emotion\n{rows}")
    with pytest.raises(SuiteError, match=message):
        edits_in(str(folder))


# ---- by the judges of a board ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_faces_as_scored_are_scored_the_same_to_the_last_digit(
    emobench: Run, generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(generated, results)
    scored = tmp_path / "scored"
    assert emobench("generate", "made/synthetic-plain/cvae", "--as-scored", "--out", scored, "--results", results) == 0
    named = ("--data", "synthetic-plain", "--board", results / "made")
    assert emobench("score", "images", scored, *named) == 0
    assert " scored " in capsys.readouterr().out
    numbers = read_board(results / "made+scored")
    numbers = numbers[(numbers["track"] == "generation") & numbers["seed"].isna()]
    by = ["metric", "emotion", "judge"]
    ours = numbers[numbers["model"] == "cvae"].set_index(by)["value"]
    theirs = numbers[numbers["model"] == "images:scored"].set_index(by)["value"].dropna()
    assert len(theirs) > 50
    assert (theirs - ours[theirs.index]).abs().max() <= 1e-6
    for metric in ("fed", "memorisation", "control_calibrated", "control"):
        assert metric in theirs.index.get_level_values(0)
    page = pages(results / "made+scored")
    assert "scored is pictures of 32 px that somebody made: fidelity 640 of 640; control 64 of 64 faces" in page
    assert str(tmp_path) not in page


@pytest.mark.slow
def test_few_pictures_have_figures_and_take_no_rank(emobench: Run, generated: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(generated, results)
    folder = paint(tmp_path / "few", {emotion: 5 for emotion in EMOTIONS if emotion != "fear"}, size=20)
    named = ("--data", "synthetic-plain", "--board", results / "made")
    assert emobench("score", "images", folder, *named) == 0
    record = next(cell.record for cell in load_board(results, "made+few") if cell.row == "few")
    assert record is not None
    assert record.evaluation is not None
    assert record.evaluation.outside is not None
    assert record.evaluation.outside.pictures == {"fidelity": (35, 640), "control": (35, 64)}
    assert record.evaluation.own_size == 20
    page = pages(results / "made+few")
    line = next(line for line in page.splitlines() if "| few |" in line)
    assert line.startswith("| would be ")
    assert "few pictures" in line
    numbers = read_board(results / "made+few").set_index(["variant", "metric", "emotion", "judge"])
    reason = numbers.loc[("few", "control", "fear", ""), "reason"]
    assert "no face here was asked for as it" in set(np.atleast_1d(reason))


# ---- sentences -------------------------------------------------------------------------------------------------------


def test_the_held_out_sentences_are_as_many_of_each_kind() -> None:
    found = pd.DataFrame([vars(each) for each in sentences(EMOTIONS)])
    assert found.groupby(["emotion", "kind"]).size().tolist() == [10] * 32
    assert not found["text"].duplicated().any()
    assert len(sentences(("happy", "sad"), 2)) == 16


def test_a_request_is_the_emotions_at_their_intensity() -> None:
    cue = Cue({**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.6, "contempt": 0.4}, 0.5, (), False)
    assert weights_of(cue, ("neutral", "happy", "contempt")) == pytest.approx([0.5, 0.3, 0.2])
    assert weights_of(cue, ("neutral", "happy")) == pytest.approx([0.5, 0.5])  # contempt is none of the dataset's
    assert weights_of(cue, ("happy", "sad")) == pytest.approx([1, 0])
    assert weights_of(cue, ("neutral", "sad")) == pytest.approx([1, 0])
    assert weights_of(CueReader().read("The bus leaves at ten."), ("neutral", "sad")) == pytest.approx([1, 0])


@pytest.mark.slow
def test_a_suite_with_cues_measures_generators_by_sentences(
    emobench: Run, made_suite: Path, generated: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(generated, results)
    suite = tmp_path / "texts.toml"
    parts = made_suite.read_text().replace("[evaluation]", "[cues]\neach = 1\n\n[evaluation]").split("\n[")
    suite.write_text("\n[".join(part for part in parts if not part.startswith(("model.vit_cvae", "model.diffusion"))))
    assert emobench("bench", suite, "--results", results) == 0
    board = results / "texts"
    numbers = read_board(board)
    whole = numbers[(numbers["track"] == "text") & numbers["seed"].isna()].set_index(["model", "metric", "emotion"])
    right = np.mean([CueReader().read(each.text).emotion == each.emotion for each in sentences(EMOTIONS, 1)])
    assert whole.loc[("cvae", "understood", ""), "value"] == pytest.approx(right)
    assert whole.loc[("cvae", "understood_names_only", ""), "value"] < 0.3
    assert whole.loc[("cvae", "understood", ""), "n"] == 32
    for metric in ("control_named", "control_names_only", "control_shuffled", "control_calibrated"):
        assert np.isfinite(whole.loc[("cvae", metric, "macro"), "value"])
    page = pages(board)
    assert "## Text on synthetic-plain" in page
    assert "| control:shuffled_sentences | calibrated control |" in page
    assert "over 32 sentences" in page
    assert "![text of cvae](figures/text-of-cvae-synthetic-plain.webp)" in page  # with the emotions' names
    assert ("stargan" in {cell.row for cell in load_board(results, board.name)}) is True
    assert "stargan" not in set(whole.index.get_level_values(0))  # it draws nothing from an emotion alone


@pytest.mark.slow
def test_a_sentence_draws_the_face_that_it_means(
    emobench: Run, generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "out", ("generate", "made/synthetic-plain/cvae", "--results", generated, "--n", 2)
    assert emobench(*command, "--text", "she just heard that she won", "--out", out) == 0
    said = capsys.readouterr().err
    assert "'she just heard that she won': happy" in said
    assert "by 'won' happy" in said
    listed = pd.read_csv(out / "faces.csv")
    assert (listed["happy"] > listed["sad"]).all()
    assert listed[list(EMOTIONS)].sum(1).to_numpy() == pytest.approx(np.ones(2))
    assert emobench(*command, "--text", "the bus leaves at ten", "--out", tmp_path / "other") == 0
    assert "neutral 1.00, intensity 0.00" in capsys.readouterr().err
    assert emobench(*command, "--text", "", "--out", tmp_path / "third") == 2


def test_a_network_of_transformers_can_read_sentences(tmp_path: Path) -> None:
    """A small BERT whose weights are random; its labels are GoEmotions' and one that has to be mapped."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    from emobench.cues.text_model import TextModel

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "she", "won"]))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    labels = {0: "joy", 1: "grief", 2: "desire", 3: "neutral"}
    config = BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, id2label=labels,
        label2id={label: k for k, label in labels.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    reader = TextModel(str(tmp_path))
    assert reader.emotions == ["happy", "sad", None, "neutral"]
    cue = reader.read("she won")
    assert sum(cue.weights.values()) == pytest.approx(1)
    assert cue.intensity == pytest.approx(1 - cue.weights["neutral"])
    assert {name for name, share in cue.weights.items() if share} == {"happy", "sad", "neutral"}
    config.id2label = {0: "zest", 1: "grief", 2: "desire", 3: "neutral"}
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(SuiteError, match="its label zest: unknown emotion 'zest'"):
        TextModel(str(tmp_path))
    assert TextModel(str(tmp_path), {"zest": "happy"}).emotions[0] == "happy"
