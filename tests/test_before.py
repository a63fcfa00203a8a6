"""Stores and boards as emobench wrote them at commit 0c8123b are read, reported and trusted.

`stores/0c8123b.tar.xz` is what that commit's own command wrote for its `before.toml`: a store, a board, its committed
cells. Left out are the weights of all but the ViT and the cVAE, logs and figures; pictures of faces are gray.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from reading import pages

import emobench as package
from emobench.errors import StoreError
from emobench.runner.store import load_board

COMMIT = "0c8123be0330"
LOGITS = [-0.654164, 0.128315, -0.332481, 0.122972, 0.05498, 0.576661, 0.379342, 0.107021]  # of the ViT, of `face()`
DRAWN = [138.28580729166666, 137.33854166666666]  # mean gray value of the cVAE's first two faces


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A folder with `before.toml` and its results."""
    shutil.unpack_archive(Path(__file__).parent / "stores" / "0c8123b.tar.xz", tmp_path, filter="data")
    return tmp_path


def face() -> torch.Tensor:
    return (torch.arange(3 * 32 * 32) * 37 % 256).reshape(1, 3, 32, 32).to(torch.uint8)


def test_its_networks_are_loaded_and_say_what_they_said(before: Path) -> None:
    results = before / "results"
    found = package.load(results, "before", "vit")(face())
    torch.testing.assert_close(found, torch.tensor([LOGITS]), atol=2e-6, rtol=0)
    faces = package.load(results, "before", "cvae").sample(torch.eye(8)[:2], torch.arange(2))
    assert faces.double().mean((1, 2, 3)).tolist() == pytest.approx(DRAWN, abs=1)
    with pytest.raises(StoreError, match="weights are gone"):
        package.load(results, "before", "resnet18")


def test_its_networks_predict(before: Path, emobench: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    picture = before / "face.png"
    Image.fromarray(face()[0].permute(1, 2, 0).numpy()).save(picture)
    asked = ("--results", before / "results", "--format", "json")
    assert emobench("predict", "before/synthetic-plain/vit", picture, *asked) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["emotion"] == "disgust"
    shares = torch.tensor(LOGITS).softmax(0).tolist()
    assert [row[name] for name in row if name not in ("file", "emotion")] == pytest.approx(shares, abs=1e-5)


def test_its_board_is_written_again(before: Path, emobench: Callable[..., int]) -> None:
    results = before / "results"
    assert emobench("report", "before", "--results", results) == 0
    board = package.read_board(results / "before")
    asked = (board["metric"] == "accuracy") & (board["emotion"] == "") & board["seed"].isna()
    found = board[asked].set_index(["model", "variant"])["value"].astype(float)
    for cell in load_board(results, "before"):
        if cell.track == "recognition" and cell.record is not None and cell.record.evaluation is not None:
            then = cell.record.evaluation.tracks["recognition"].values["accuracy"].value
            assert found[cell.model, cell.variant] == pytest.approx(then), cell.row
    assert COMMIT in pages(results / "before")


@pytest.mark.parametrize("store", [True, False], ids=["with its store", "as a clone has it"])
def test_its_cells_are_trusted_and_say_which_commit_made_them(
    before: Path, store: bool, emobench: Callable[..., int]
) -> None:
    results = before / "results"
    if not store:
        shutil.rmtree(results / "cells")
    fits = {path: path.read_bytes() for path in results.glob("cells/*/fit.json")}
    asked = ("bench", before / "before.toml", "--results", results, "--data", before / "data")
    assert emobench(*asked, "--on-existing", "trust") == 0
    assert {path: path.read_bytes() for path in results.glob("cells/*/fit.json")} == fits  # nothing was fitted
    cells = load_board(results, "before")
    assert [cell.row for cell in cells] == ["vit", "cnn21", "resnet18", "cvae", "control:permuted"]
    assert all(cell.state == "done" for cell in cells)
    assert {cell.record.versions.commit for cell in cells if cell.record and cell.record.versions} == {COMMIT}
    assert COMMIT in pages(results / "before")


def test_a_generator_that_is_new_is_judged_by_its_panel(before: Path, emobench: Callable[..., int]) -> None:
    """The judges are taken from the board, where that commit kept their weights, and are not trained again."""
    results, suite = before / "results", before / "before.toml"
    shutil.rmtree(results / "cells")
    new = "[model.other]\nclass = 'cvae'\nsize = 32\nwidth = 2\nlatent = 2\nperceptual = 'none'\nepochs = 1\n"
    suite.write_text(suite.read_text().replace("[evaluation]", f"{new}\n[evaluation]"))
    asked = ("bench", suite, "--results", results, "--data", before / "data")
    assert emobench(*asked, "--on-existing", "trust") == 0
    by_row = {cell.row: cell for cell in load_board(results, "before")}
    assert all(cell.state == "done" for cell in by_row.values())
    made = {row: cell.record.versions.commit for row, cell in by_row.items() if cell.record and cell.record.versions}
    assert {row for row, commit in made.items() if commit != COMMIT} == {"other"}
    other = by_row["other"].record
    assert other is not None
    assert other.evaluation is not None
    trusted = {by_row[row].fit_key for row in ("vit", "cnn21", "resnet18")}
    assert {card.fit_key for card in other.evaluation.cards} == trusted


@pytest.mark.parametrize("weights", [True, False], ids=["whose weights are here", "whose weights are gone"])
def test_a_new_row_is_made_with_a_network_of_before(before: Path, weights: bool, emobench: Callable[..., int]) -> None:
    """Only where the store has the weights: a board does not hold those of a network that others are built with."""
    results, suite = before / "results", before / "before.toml"
    (vit,) = (cell for cell in load_board(results, "before") if cell.row == "vit")
    if not weights:
        (results / "cells" / vit.fit_key / "weights.safetensors").unlink()
    new = "[model.pair]\nclass = 'ensemble'\nneeds = { members = ['vit'] }\n"
    suite.write_text(suite.read_text().replace("[evaluation]", f"{new}\n[evaluation]"))
    fits = set(results.glob("cells/*/fit.json"))
    asked = ("bench", suite, "--results", results, "--data", before / "data")
    assert emobench(*asked, "--on-existing", "trust") == 0
    by_row = {cell.row: cell for cell in load_board(results, "before")}
    assert all(cell.state == "done" for cell in by_row.values())
    fitted = {path.parent.name for path in set(results.glob("cells/*/fit.json")) - fits}
    assert fitted == {by_row["pair"].fit_key, *([] if weights else [by_row["vit"].fit_key])}
    pair = by_row["pair"].record
    assert pair is not None
    assert pair.cell.needs == {"members": [by_row["vit"].fit_key]}
    assert (by_row["vit"].fit_key == vit.fit_key) == weights
    if weights:
        said = package.load(results, "before", "pair")(face()).softmax(1)
        torch.testing.assert_close(said, torch.tensor([LOGITS]).softmax(1), atol=1e-5, rtol=0)
    again = {path: path.stat().st_mtime_ns for path in results.glob("cells/*/**/*.json")}
    assert emobench(*asked, "--on-existing", "trust") == 0
    assert {path: path.stat().st_mtime_ns for path in results.glob("cells/*/**/*.json")} == again
