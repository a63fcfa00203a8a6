"""leaderboard.md: an answer and a table that fits a screen, for each track and dataset; all else is in the details."""

from __future__ import annotations

import re
from typing import Any

import pytest
from reading import pages
from test_report import Results, results

from emobench.report.board import Number
from emobench.report.readable import brief

__all__ = ["results"]


def leaderboard(made: Results) -> list[str]:
    return str(made.write().path.read_text()).splitlines()


def cells(line: str) -> list[str]:
    return [each.strip() for each in line.strip("|").split(" | ")]


def table(lines: list[str]) -> list[list[str]]:
    return [cells(line) for line in lines if line.startswith("| ") and "---" not in line]


def test_an_answer_and_a_table_of_seven_columns(results: Results) -> None:
    for seed in range(3):
        results.cell("good", seed, 3.5)
        results.cell("bad", seed, 1.0)
    lines = leaderboard(results)
    assert lines[0] == "# Leaderboard: demo"
    assert "**good** is best; **certain** (3 seeds, corrected p < 0.001)." in lines
    header, good, bad = table(lines)
    assert header == ["rank", "model", "macro F1, %", "accuracy, %", "ECE, %", "training", "seeds"]
    assert good[:2] + good[5:] == ["1", "good", "7 min", "3"]
    assert bad[:2] == ["2", "bad"]
    assert re.fullmatch(r"\d\d\.\d \(\d\d\.\d–\d\d\.\d\)", good[2].replace("\u00a0", " ").replace("\u2060", ""))
    assert any("n = 400 faces; [all numbers and pictures](details-recognition.md)." in line for line in lines)
    assert len(lines) < 30  # a screen


def test_what_cannot_win_is_not_called_best_and_has_a_footnote(results: Results) -> None:
    results.cell("short", 0, 3.5, recipe_share=0.04)
    results.cell("whole", 0, 2.0)
    lines = leaderboard(results)
    said = next(line for line in lines if "short leads" in line)
    assert said.startswith("short leads, though it had 4 % of its recipe; of the rows that had at least half of their ")
    assert "**whole** is best" in said
    assert "short is best" not in "\n".join(lines).replace("*", "")
    assert [row[1] for row in table(lines)[1:]] == ["short\u00a0¹", "whole"]
    assert (
        "- ¹ *under-trained*: less than half of the recipe's faces were seen, which says nothing against the model."
        in lines
    )


def test_a_row_without_numbers_stands_there_with_its_reason_above(results: Results) -> None:
    results.cell("good", 0, 3.0)
    results.cell("lost", 0, state="failed", reason="out of memory on 2 cores")
    lines = leaderboard(results)
    assert "**Incomplete**: 1 of 2 cells done." in lines
    assert "- lost on faces, seed 0: failed: out of memory on 2 cores" in lines
    assert ["–", "lost", "n/a", "n/a", "n/a", "–", "0 of 1"] in table(lines)


def test_nothing_is_measured_yet(results: Results) -> None:
    results.cell("later", 0)
    lines = leaderboard(results)
    assert "Nothing is measured yet." in lines
    assert "Nothing shows whether these numbers can be trusted: no control is measured." in lines


def test_overviews_of_many_datasets_fit_a_screen_too(results: Results) -> None:
    for k in range(8):
        results.cell("one", 0, 3.0, dataset=f"data{k}")
    overview = [line for line in leaderboard(results) if line.startswith("| recognition: macro F1, % |")]
    assert [len(cells(line)) for line in overview] == [7, 3]


def test_details_of_a_track_that_went_go_too(results: Results) -> None:
    results.cell("one", 0, 3.0)
    board = results.write().path
    former = board.parent / "details-telepathy.md"
    former.write_text("of an older suite")
    results.write()
    assert not former.exists()
    assert "](figures/confusion-one-faces.webp)" in (board.parent / "details-recognition.md").read_text()
    assert "](figures/" not in board.read_text()


def test_all_that_was_said_is_said_still(results: Results) -> None:
    """No sentence of the details contradicts the leaderboard's: both are made of the same parts."""
    for seed in range(3):
        results.cell("good", seed, 2.0)
        results.cell("near", seed, 1.95)
    said = pages(results.write().path.parent)
    answers = re.findall(r"\*\*(\w+)\*\* is best[^;]*; \*\*([^*]+)\*\*", said)
    assert len(answers) == 2
    assert len(set(answers)) == 1


NUMBER: dict[str, Any] = dict.fromkeys(Number._fields, "")


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "shown"),
    [
        ("macro_f1", 0.9734, 0.9532, 0.9944, "97.3 (95.3–99.4)"),
        ("macro_f1", 0.3456, 0.29, 0.41, "35 (29–41)"),  # a decimal would say more than the interval bears
        ("control", 0.5734, None, None, "57.3"),
        ("control_calibrated", -0.0004, -0.009, 0.01, "0.0 (−0.9\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}1.0)"),
        ("fed", 1490.6, None, None, "1,491"),
        ("fed", 27.383, 26.0, 28.91, "27.4 (26.0–28.9)"),
        ("ssim", 0.604, 0.559, 0.65, "0.60 (0.56–0.65)"),
        ("kid", 0.00714, None, None, "0.0071"),
        ("macro_f1", None, None, None, "n/a"),
    ],
)
def test_figures_have_as_many_digits_as_their_interval_bears(
    metric: str, value: float | None, low: float | None, high: float | None, shown: str
) -> None:
    number = Number(**{**NUMBER, "metric": metric, "value": value, "low": low, "high": high})
    assert brief(number) == shown
