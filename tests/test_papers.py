"""The five documents: their suites, a share of a suite on drawn faces, and what is said of a document's figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TINY
from made_records import made_evaluation, made_fit, made_record

from emobench.commands.score import _beside as beside
from emobench.errors import DatasetMissing, SuiteError
from emobench.evaluation.tracks.track import Name
from emobench.report import papers
from emobench.report.board import Number
from emobench.report.html.write import Pages
from emobench.report.page import Bullets, Heading, Table
from emobench.report.papers import Document, Experiment, documents, lacking, ours
from emobench.report.verdict import state
from emobench.runner.store import Origin, check_owner
from emobench.suite.expand import expand
from emobench.suite.file import Suite, load, packaged
from emobench.suite.keys import key
from emobench.suite.scale import scaled, stands_in_for

Emobench = Callable[..., int]
SUITES = [name for name in packaged() if name.startswith("paper-")]
DOCS = Path(__file__).parents[1] / "docs"
EXPERIMENTS = [(document, each) for document in documents() for each in document.experiment]
VIT = next(each for _, each in EXPERIMENTS if each.row == "vit")


# ---- the suites ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITES)
def test_a_documents_suite_is_planned_on_a_share_and_on_drawn_faces(name: str, tmp_path: Path) -> None:
    suite = load(name)
    part = scaled(suite, 0.01, None, tmp_path)
    assert part.name == f"{name}+scale=0.01"
    (real,) = suite.data
    assert [stands_in_for(each) for each in part.data] == [real.removeprefix("folder:")]
    plan = expand(part, tmp_path)
    assert {cell.dataset for cell in plan.cells} == {*part.data}
    rows = {cell.row for cell in plan.cells} | {each.row for each in plan.skipped}
    assert rows == {*suite.model, "control:permuted"}
    assert all("weights" in each.reason and str(Path.home()) not in each.reason for each in plan.skipped)
    for cell in plan.cells:
        assert sum(plan.faces[cell.dataset].values()) <= 80
        recipe = cell.fit["recipe"] or {"epochs": 1, "steps": None}
        assert (recipe["epochs"] or recipe["steps"]) <= 10


def test_without_a_share_a_dataset_that_is_not_here_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="no folder .*expw"):
        expand(load("paper-cnn21"), tmp_path)


def test_the_checkout_has_the_suites_beside_the_others() -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "papers"
    assert sorted(path.stem for path in folder.glob("*.toml")) == SUITES
    assert all(path.resolve().parent.name == "suites" for path in folder.iterdir())


# ---- a share of a suite --------------------------------------------------------------------------------------------


def tiny(tmp_path: Path, text: str = TINY) -> Suite:
    (tmp_path / "tiny.toml").write_text(text)
    return load(tmp_path / "tiny.toml")


def test_of_drawn_faces_there_are_fewer_and_epochs_are_fewer(tmp_path: Path) -> None:
    text = TINY.replace("train = 80", "train = 800").replace("epochs = 4", "epochs = 40")
    part = scaled(tiny(tmp_path, text), 0.25, None, tmp_path)
    assert part.data["synthetic-plain"] == {"size": 32, "train": 200, "val": 32, "test": 32}
    assert part.model["resnet18"]["epochs"] == 10
    assert "trainer" not in part.model["resnet18"]
    whole = scaled(tiny(tmp_path, text), 1.0, None, tmp_path)
    assert (whole.data, whole.model) == (
        {"synthetic-plain": {"size": 32, "train": 800, "val": 80, "test": 80}},
        tiny(tmp_path, text).model,
    )


def test_of_real_faces_an_epoch_is_a_share_of_the_batches_and_the_test_split_is_whole(tmp_path: Path) -> None:
    lines = [f"{face % 7},{' '.join(str((face * pixel) % 251) for pixel in range(2304))}" for face in range(1, 141)]
    usages = ["Training"] * 70 + ["PublicTest"] * 35 + ["PrivateTest"] * 35
    (tmp_path / "fer2013").mkdir()
    rows = [f"{line},{usage}" for line, usage in zip(lines, usages, strict=True)]
    (tmp_path / "fer2013" / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    text = "[data.fer2013]\n[model.resnet18]\nbatch = 4\nepochs = 10\n"
    part = scaled(tiny(tmp_path, text), 0.3, "its name is given", tmp_path)
    assert (part.name, part.data) == ("tiny", {"fer2013": {}})
    assert part.model["resnet18"] == {"batch": 4, "epochs": 3, "trainer": {"limit_train_batches": 5}}  # 21 of 70 faces
    cell = expand(part, tmp_path).cells[0]
    assert cell.fit["trainer"]["limit_train_batches"] == 5
    whole = expand(tiny(tmp_path, text), tmp_path).cells[0].fit_key
    assert cell.fit_key != whole
    assert expand(scaled(tiny(tmp_path, text), 1.0, None, tmp_path), tmp_path).cells[0].fit_key == whole


def test_steps_stand_for_faces_and_epochs(tmp_path: Path) -> None:
    text = TINY.replace("epochs = 4", "steps = 1000")
    assert scaled(tiny(tmp_path, text), 0.1, None, tmp_path).model["resnet18"]["steps"] == 10


def test_evaluations_draw_less_and_judges_that_are_not_rows_become_such(tmp_path: Path) -> None:
    text = '[data.ckplus]\nsize = 64\n[model.cvae]\non = ["ckplus"]\n[cues]\n'
    text += "[evaluation]\nper_emotion = 200\nsources = 6\n"
    part = scaled(tiny(tmp_path, text), 0.05, None, tmp_path)
    assert part.evaluation.faces == {"fidelity": None, "per_emotion": 10, "sources": 6, "intensity": 1}
    assert part.cues is not None
    assert part.cues.each == 1
    assert part.model["cvae"]["on"] == ["drawn-for-ckplus"]
    assert {name: table.get("epochs") for name, table in part.model.items()} == {
        "cvae": 2, "resnet18": 1, "vit": 1, "cnn21": 2,
    }  # fmt: skip


@pytest.mark.parametrize("scale", [0.0, -0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(scale: float, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="a share of faces and epochs is above 0 and at most 1"):
        scaled(tiny(tmp_path), scale, None, tmp_path)


def test_swept_epochs_have_no_share(tmp_path: Path) -> None:
    text = TINY.replace("epochs = 4", "epochs = { sweep = [4, 8] }")
    with pytest.raises(SuiteError, match="cannot take a share of epochs, which is swept"):
        scaled(tiny(tmp_path, text), 0.5, None, tmp_path)


def test_a_board_says_the_share_and_belongs_to_it(tmp_path: Path) -> None:
    results, suite = tmp_path / "results", tiny(tmp_path)
    part = scaled(suite, 0.5, None, tmp_path)
    origin = Origin.of(part, results)
    assert origin.command(part.name) == "emobench bench tiny.toml --scale 0.5"
    assert origin.command("mine").endswith("--scale 0.5 --name mine")
    folder = results / part.name
    folder.mkdir(parents=True)
    (folder / "suite.json").write_text(
        json.dumps({"schema_version": 1, "protocol": 1, "file": "tiny.toml", "scale": 0.5})
    )
    check_owner(results, part)
    with pytest.raises(Exception, match="and not of this suite"):
        check_owner(results, scaled(suite, 0.25, part.name, tmp_path).model_copy(update={"name": part.name}))


def test_the_command_says_what_stands_in(
    emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suite.toml").write_text("[data.jaffe]\nsize = 32\n[model.resnet18]\nwidth = 0.0625\n")
    asked = ("bench", tmp_path / "suite.toml", "--scale", "0.01", "--dry-run", "--results", tmp_path / "results")
    assert emobench(*asked, "--data", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "jaffe is not below the data root: drawn faces stand in for it, as drawn-for-jaffe" in shown
    assert "suite+scale=0.01: 2 cells" in shown


def test_nothing_is_scored_beside_a_board_of_a_share(tmp_path: Path) -> None:
    board(tmp_path, name="part", scale=0.5)
    with pytest.raises(SuiteError, match="it is of a share .--scale 0.5.; name a board of a whole suite"):
        beside(tmp_path / "part", "mine", {}, "fer2013", {})


# ---- what the documents report -------------------------------------------------------------------------------------


def test_each_experiment_is_a_row_of_a_suite() -> None:
    assert len(documents()) == 5
    assert {each.suite for _, each in EXPERIMENTS} == {*SUITES}
    for _, each in EXPERIMENTS:
        suite = load(each.suite)
        assert each.row in suite.model
        assert each.instead is None or each.instead in suite.model
        assert each.dataset in suite.data


@pytest.mark.parametrize("document", documents(), ids=lambda each: each.cited)
def test_figures_are_those_of_the_page_of_systems(document: Document) -> None:
    text = (DOCS / "systems.md").read_text(encoding="utf-8")
    for each in document.experiment:
        for figure in each.figures:
            shown = {
                f"{figure.value:.2f}",
                f"{figure.value:.4f}",
                f"{100 * figure.value:.1f}",
                f"{100 * figure.value:.2f}",
            }
            assert any(said in text for said in shown), figure
            assert figure.metric in ("fid", "is", "loss") or 0 <= figure.value <= 1


def test_figures_agree_with_each_other() -> None:
    of = {each.row: each.figures for _, each in EXPERIMENTS if each.figures}
    assert sum(map(len, of.values())) == 40
    control = {figure.emotion: figure.value for figure in of["cvae-perceptual"]}
    macro = control.pop("macro")
    assert len(control) == 8
    assert sum(control.values()) / 8 == pytest.approx(macro, abs=5e-4)
    for row in ("vit", "resnet18", "vgg16"):
        assert len({figure.emotion for figure in of[row]}) == 8  # the whole, and seven emotions


def test_notes_say_where_a_protocol_differs_or_leaks() -> None:
    notes = {document.cited: " ".join(document.notes) for document in documents()}
    assert "split" in notes["Padalia and Saxena"]
    assert "leaks" in notes["Padalia and Saxena"]
    assert "no KL term" in notes["Almousa et al. 2025"]
    assert "gray faces" in notes["Almousa et al. 2025"]
    assert "grades itself" in notes["Facial-Emotion-CVAE-StyleGAN"]


# ---- whether a figure compares -------------------------------------------------------------------------------------

FER = {
    "neutral": 589,
    "happy": 879,
    "sad": 594,
    "surprise": 416,
    "fear": 528,
    "disgust": 55,
    "anger": 528,
}  # PrivateTest


def board(
    results: Path,
    of: Experiment = VIT,
    *,
    row: str | None = None,
    dataset: str | None = None,
    size: int = 224,
    weights: str | None = "google/vit-base-patch16-224-in21k",
    share: float = 0.9,
    faces: dict[str, int] = FER,
    notes: tuple[str, ...] = (),
    skipped: str | None = None,
    name: str | None = None,
    **of_suite: Any,
) -> None:
    """A board with one row, as `emobench bench` leaves it in a clone."""
    folder = results / (name or of.suite)
    cell = {
        "row": row or of.row, "model": row or of.row, "variant": "", "dataset": dataset or of.dataset, "size": 48,
        "seed": 0, "track": "recognition", "control": None,
    }  # fmt: skip
    fit = {"model": "vit", "row": cell["row"], "recipe": {"size": size}, "arguments": {"weights": weights}, "seed": 0}
    fit["data"] = {"dataset": "fer2013"}
    made = {"fit": fit, "eval": {"size": 48, "fit_key": key(fit)}}
    entry = {**cell, "fit_key": key(fit), "eval_key": key(made["eval"]), "skipped": skipped}
    folder.mkdir(parents=True)
    head = {"schema_version": 1, "protocol": 1, "suite": folder.name, "commit": "abc", "file": of.suite, **of_suite}
    (folder / "suite.json").write_text(json.dumps({**head, "rows": [entry]}))
    if skipped is None:
        values = {"accuracy": {"value": 0.7, "n": sum(faces.values())}}
        evaluation = made_evaluation([*faces], {"recognition": {"values": values}}, {}, notes=list(notes))
        evaluation["dataset"]["counts"]["test"] = faces
        record = made_record(entry, fit=made_fit(share), evaluation=evaluation, made_of=made)
        place = folder / "cells" / entry["eval_key"]
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(record))
    with open(folder / "metrics.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Number._fields)
        for emotion, value in (("", 0.7), ("anger", 0.5)):
            writer.writerow(
                [folder.name, cell["dataset"], 48, "recognition", cell["model"], "", "", "", "accuracy", emotion, value,
                 value - 0.1, value + 0.1, 3589, "interval for this seed only", "", "CPU", 1, ""]
            )  # fmt: skip


def told(results: Path, of: Experiment = VIT) -> str:
    mine, why = ours(results, of)
    assert mine is not None, why
    return "; ".join(lacking(of, mine))


def test_a_repeated_experiment_compares(tmp_path: Path) -> None:
    board(tmp_path)
    assert told(tmp_path) == ""
    document = documents()[0].model_copy(update={"experiment": (VIT,)})
    blocks = papers.page(tmp_path, [document])
    tables = [block for block in blocks if isinstance(block, Table)]
    differences = {line[0][1:]: line[4] for line in tables[1].rows}
    assert differences[" accuracy",] == ("0.060 (−0.040 to 0.160)",)
    assert differences[" accuracy", ", ", Name("anger")] == ("−0.038 (−0.138 to 0.062)",)
    assert differences[" accuracy", ", ", Name("sad")] == ("not comparable",)  # the board has no such figure
    assert any(item[-1] == " compares." for block in blocks if isinstance(block, Bullets) for item in block.items)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"notes": ("no PrivateTest rows: PublicTest (3,589 rows) is the test split",)}, "ours are PublicTest"),
        ({"notes": ("no official split: drawn",)}, "its test rows: ours are drawn"),
        ({"faces": {**FER, "sad": 593}}, "its test rows: ours are 3,588 faces, not 3,589"),
        ({"dataset": "ferplus"}, "its faces: ferplus"),
        ({"dataset": "drawn-for-fer2013"}, "its faces: drawn ones stand in for fer2013"),
        ({"size": 48}, "its size: ours is 48 px, not 224"),
        ({"weights": None}, "its starting weights: ours are from scratch"),
        ({"share": 0.49}, "half of the recipe: ours had 49 %"),
        ({"row": "vit-scratch"}, "its network: vit-scratch is in its place"),
    ],
)
def test_what_is_not_the_documents_is_named_and_nothing_else_is(
    changes: dict[str, Any], missing: str, tmp_path: Path
) -> None:
    board(tmp_path, **changes)
    assert missing in told(tmp_path)
    assert told(tmp_path).count("; ") == 0
    (settings, figures) = (block for block in papers.page(tmp_path, [documents()[0]]) if isinstance(block, Table))
    assert {line[4] for line in figures.rows} == {("not comparable",), ("",)}
    drawn = [line for line in settings.rows if line[2][0] == "**drawn**, "]
    assert len(drawn) == (changes.get("dataset") == "drawn-for-fer2013")


def test_what_a_document_does_not_say_and_its_own_judge_keep_figures_apart(tmp_path: Path) -> None:
    resnet = next(each for _, each in EXPERIMENTS if each.row == "resnet18" and each.figures)
    board(tmp_path, resnet, size=48, weights=None)
    assert told(tmp_path, resnet) == "its size, which it does not give; its starting weights, which it does not name"
    cvae = next(each for _, each in EXPERIMENTS if each.row == "cvae-perceptual")
    board(tmp_path, cvae, size=128, weights=None)
    assert told(tmp_path, cvae) == "its test rows, which it does not name; its judge: its own ResNet18"


def test_the_largest_share_of_a_suite_counts_and_what_was_not_run_says_why(tmp_path: Path) -> None:
    mine, why = ours(tmp_path, VIT)
    assert (mine, why) == (None, "its suite was not run here: `emobench bench paper-vit`")
    reason = "suite x, [model.vit] on fer2013: weights in21k not found; looked for ~/here. Run hf"
    board(tmp_path, skipped=reason, name="paper-vit+scale=0.1", scale=0.1)
    assert ours(tmp_path, VIT) == (None, "the weights in21k not found here")
    board(tmp_path, share=0.01, name="paper-vit+scale=0.2", scale=0.2)
    board(tmp_path, share=0.02, name="paper-vit+scale=0.3", scale=0.3)
    board(tmp_path, name="paper-vit+model.vit.lr=1", overrides=["model.vit.lr=1"])
    mine, why = ours(tmp_path, VIT)
    assert mine is not None
    assert (mine.board, why) == ("paper-vit+scale=0.3", "")


def test_papers_are_written_and_shown_where_a_documents_suite_was_run(tmp_path: Path) -> None:
    assert papers.of_boards(tmp_path, [], "../") == []
    board(tmp_path, name="mine")
    assert papers.suites(tmp_path, ["mine", "demo"]) == ["paper-vit"]
    text = papers.write(tmp_path).read_text(encoding="utf-8")
    assert text.startswith("# The documents, side by side\n\nThe 5 documents report 40 figures of 6 networks. 1 of ")
    assert "| ours, `mine` |" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {each.cited}" for each in documents()
    ]
    pages = Pages(apart=False)
    pages.add_documents(tmp_path, ["mine"])
    assert [str(each.text.striptags()) for each in pages.documents if each.kind == "heading"] == ["Di Iorio"]
    assert any(
        './../mine/leaderboard.md' in cell.shown for each in pages.documents if each.table for row in each.table.rows
        for cell in row.cells
    )  # fmt: skip
    assert not [block for block in papers.of_boards(tmp_path, ["demo"], "") if isinstance(block, Heading)]


def test_a_board_of_drawn_faces_says_for_what_they_stand(tmp_path: Path) -> None:
    sections = [SimpleNamespace(dataset=name) for name in ("drawn-for-ckplus", "synthetic")]
    made: Any = SimpleNamespace(sections=sections, wanted=[], missing=[], trouble=[])
    (warning, _) = state(made)
    assert warning.text[1] == Name("ckplus")  # type: ignore[union-attr]
