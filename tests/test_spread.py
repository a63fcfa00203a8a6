"""How far another training moves a figure: the packaged table, and what boards of one seed say with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import demo_seeds
import numpy as np
import pandas as pd
import pytest
import spread as script
from reading import pages
from test_judged import Board
from test_report import Results

from emobench.metrics.intervals import half_width
from emobench.report import spread
from emobench.report.board import Board as Written
from emobench.report.board import Number


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A table of its own, in the place of the packaged one: `known.write_text(...)`."""
    path = tmp_path / "spread.csv"
    monkeypatch.setattr(spread, "TABLE", path)
    spread.table.cache_clear()
    yield path
    spread.table.cache_clear()


def lines(*lines: str) -> str:
    return "\n".join([",".join(spread.Known._fields), *lines]) + "\n"


def verdict(board: Written) -> str:
    return (board.path.parent / "details-recognition.md").read_text().splitlines()[2]


def good_and_bad(known: Path, results: Results, *, spread_of_good: float, freedom: int) -> Written:
    """The board of two rows of one seed, whose spreads are known; that of the second is 0.02."""
    known.write_text(
        lines(
            f"recognition,faces,48,good,no,macro_f1,,linear,{spread_of_good},{freedom},reference",
            f"recognition,faces,48,bad,no,macro_f1,,linear,0.02,{freedom},reference",
        )
    )
    results.cell("good", 0, 3.5)
    results.cell("bad", 0, 1.0)
    return results.write()


def first_table(board: Written) -> list[list[str]]:
    page = pages(board.path.parent).splitlines()
    start = next(place for place, line in enumerate(page) if line.startswith("| rank"))
    rows = page[start : page.index("", start)]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


# ---- the table -----------------------------------------------------------------------------------------------------


def test_the_packaged_table_is_what_the_script_makes_of_the_committed_boards(committed_boards: list[Path]) -> None:
    made = script.written(script.pooled(committed_boards, script.DEMO))
    assert spread.TABLE.read_text() == made, "a committed board has changed: run benchmarks/spread.py"
    numbers = pd.read_csv(script.RESULTS / "reference-recognition" / "metrics.csv", keep_default_na=False)
    mine = numbers[(numbers.model == "vgg16") & (numbers.metric == "macro_f1") & (numbers.seed != "")]
    (found,) = (
        each
        for each in spread.table()
        if (each.model, each.metric, each.dataset, each.size) == ("vgg16", "macro_f1", "synthetic", 48)
    )
    if found.source == "reference-recognition":
        assert found.spread == pytest.approx(np.std(mine.value.astype(float), ddof=1), rel=1e-3)
        assert found.freedom == len(mine) - 1 == 2


def test_the_page_of_the_demo_with_three_seeds_says_what_its_table_says() -> None:
    table = demo_seeds.of_runs(pd.read_csv(script.DEMO, keep_default_na=False, na_values={"seed": "", "value": "n/a"}))
    page = script.DEMO.with_suffix(".md").read_text()
    seeds, orders = ["seed 0", "seed 1", "seed 2"], list(demo_seeds.orders(table))
    assert len(orders) >= 3
    for heading, values in orders:
        assert f"| {heading} | {' | '.join(seeds)} |" in page
        for model in values.index:
            assert demo_seeds.line(model, values, seeds) in page


def test_runs_are_compared_with_the_first() -> None:
    def row(model: str, seed: object, value: float, low: float = math.nan) -> dict[str, object]:
        place = dict.fromkeys(demo_seeds.PLACE, "") | {"track": "recognition", "metric": "macro_f1", "model": model}
        return {**place, "seed": seed, "value": value, "low": low, "high": low + 0.2}

    first = [row("one", 0, 0.8, 0.7), row("two", 0, 0.7, 0.6), row("three", 0, 0.2, 0.1)]
    rows = [
        row("one", None, 0.7),
        *first,
        row("one", 1, 0.6, 0.5),
        row("two", 1, 0.7, 0.6),
        row("three", 1, 0.25, 0.15),
    ]
    table = demo_seeds.of_runs(pd.DataFrame(rows))
    assert list(demo_seeds.inside(table)) == [("seed 1", 3, 2 / 3)]
    ((_, values),) = demo_seeds.orders(table)
    assert list(values.index) == ["one", "two", "three"]
    assert [demo_seeds.kept(values, run) for run in ("seed 0", "seed 1")] == [(3, 3), (2, 3)]
    assert demo_seeds.kept(values, "seed 1", apart=True) == (2, 2)  # those with the third


def test_spreads_of_several_rows_and_boards_are_pooled_and_few_seeds_left_out(tmp_path: Path) -> None:
    head = ",".join(Number._fields)

    def board(name: str, *rows: tuple[str, str, str, str, str, str]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        text = [head]
        for model, variant, seed, metric, value, flags in rows:
            text.append(f"{name},faces,48,recognition,{model},{variant},,{seed},{metric},,{value},,,,,,,1,{flags}")
        (folder / "metrics.csv").write_text("\n".join(text) + "\n")
        return folder

    def row(variant: str, values: list[float], metric: str = "macro_f1", flags: str = "") -> list[tuple[str, ...]]:
        each = [("net", variant, str(seed), metric, str(value), flags) for seed, value in enumerate(values)]
        return [("net", variant, "", metric, "0.5", flags), *each]

    first = board("one", *row("", [0.5, 0.6, 0.7]), *row("", [10.0, 20.0, 40.0], "fed"), *row("short", [0.1, 0.9]))  # type: ignore[arg-type]
    second = board("two", *row("wide", [0.3, 0.5, 0.7, 0.9]), *row("hasty", [0.1, 0.2, 0.6], flags="under-trained;x"))  # type: ignore[arg-type]
    found = {(each.metric, each.under_trained): each for each in script.pooled([first, second])}
    pooled = found["macro_f1", "no"]
    assert pooled.spread == pytest.approx(math.sqrt((2 * 0.1**2 + 3 * (0.2 / 3) * 1) / 5), rel=1e-3)
    assert (pooled.freedom, pooled.source, pooled.scale) == (5, "one, two", "linear")
    assert found["fed", "no"].spread == pytest.approx(math.log(2), rel=1e-3)
    assert found["fed", "no"].scale == "log"
    assert found["macro_f1", "yes"].spread == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1), rel=1e-3)


# ---- what a board says ---------------------------------------------------------------------------------------------


def test_a_winner_by_more_than_another_training_moves_is_one_and_the_spread_stands_beside(
    known: Path, results: Results
) -> None:
    board = good_and_bad(known, results, spread_of_good=0.012, freedom=4)
    assert verdict(board).endswith(
        "above bad; **certain**, also of other seeds: another training moves good by about ±0.012 and bad by about "
        "±0.020, too little to put another first."
    )
    header, _, good, bad, *_ = first_table(board)
    assert header[:4] == ["rank: macro F1", "model", "macro F1", "another training"]
    assert len(header) == 7
    assert (good[3], bad[3]) == ("±0.012", "±0.020")
    assert "as the same class did in `reference`." in pages(board.path.parent)


def test_a_winner_by_less_than_another_training_moves_is_one_of_these_networks_only(
    known: Path, results: Results
) -> None:
    said = verdict(good_and_bad(known, results, spread_of_good=0.3, freedom=2))
    assert said.endswith(
        "**certain for these trained networks only**: another training moves good by about ±0.300 and bad by about "
        "±0.020, so that bad could be first."
    )


def test_the_margin_that_holds_is_that_of_two_trainings_of_both(known: Path, results: Results) -> None:
    results.cell("good", 0, 3.5)
    results.cell("bad", 0, 1.0)
    known.write_text(lines())
    board = results.write()
    (section,) = board.sections
    ranking = section.track.rankings[0]
    key = section.ranked_by[ranking.name]
    good, bad = section.compared[ranking.name]
    apart = (good.value(key) or 0) - (bad.value(key) or 0)
    limit = apart / float(half_width([(np.array(2.0), 2), (np.array(2.0), 2)]))  # of equal spreads of three seeds each
    for factor, rivals in ((0.99, []), (1.01, [1])):
        each = f"no,macro_f1,,linear,{factor * limit},2,reference"
        known.write_text(lines(f"recognition,faces,48,good,{each}", f"recognition,faces,48,bad,{each}"))
        spread.table.cache_clear()
        assert spread.held(section, ranking, [good, bad]).rivals == rivals


def test_what_is_not_known_is_said(results: Results) -> None:
    results.cell("good", 0, 3.5)
    results.cell("bad", 0, 1.0)
    board = results.write()
    assert verdict(board).endswith(
        "one seed cannot say what other seeds would give, and how far another training moves such a figure is not "
        "known."
    )
    assert "another training" not in first_table(board)[0]
    assert "- How far another training moves these figures is not known" in pages(board.path.parent)


def test_rows_of_three_seeds_say_it_by_their_intervals(results: Results) -> None:
    for seed in range(3):
        results.cell("good", seed, 3.5)
        results.cell("bad", seed, 1.0)
    board = results.write()
    assert "another training" not in pages(board.path.parent).lower().split("## what the numbers mean")[0]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("recognition,other,48,good,no,macro_f1,,linear,0.012,2,reference", "±0.012 on other"),
        ("recognition,faces,32,good,no,macro_f1,,linear,0.012,2,reference", "±0.012 on 32 px"),
        ("recognition,faces,48,good,yes,macro_f1,,linear,0.012,2,reference", None),  # trained less, which moves more
        ("generation,faces,48,good,no,macro_f1,,linear,0.012,2,reference", None),
    ],
)
def test_a_spread_of_another_dataset_is_named_and_rests_no_headline(
    known: Path, results: Results, line: str, shown: str | None
) -> None:
    known.write_text(lines(line))
    results.cell("good", 0, 3.5)
    results.cell("bad", 0, 1.0)
    board = results.write()
    header, _, good, bad, *_ = first_table(board)
    if shown is None:
        assert "another training" not in header
    else:
        assert (good[3], bad[3]) == (shown, "not known")
        assert "another dataset's says little of this one" in pages(board.path.parent)
    assert "how far another training moves" in verdict(board)
    assert "is not known" in verdict(board)


def test_a_row_without_half_of_its_recipe_is_not_said_to_move_as_little_as_a_whole_one(
    known: Path, results: Results
) -> None:
    known.write_text(lines("recognition,faces,48,good,no,macro_f1,,linear,0.012,2,reference"))
    results.cell("good", 0, 3.5, recipe_share=0.04)
    board = results.write()
    assert "±0.012" not in pages(board.path.parent)


def test_a_distance_is_compared_by_factors(known: Path, tmp_path: Path) -> None:
    board = Board(tmp_path / "results")
    for row, fed in (("near", 2.0), ("far", 9.0)):
        board.generator(row, 0.5, fed=fed)
    for factor, said in ((1.1, ", too little to put another first"), (3.0, ", so that far could be first")):
        each = f"no,fed,,log,{math.log(factor)},4,reference"
        known.write_text(lines(f"generation,faces,32,near,{each}", f"generation,faces,32,far,{each}"))
        spread.table.cache_clear()
        board.write()
        moves = f"another training moves near by about ×{factor:.2g} and far by about ×{factor:.2g}"
        assert f"FED 2.000 (order only); {moves}{said}" in board.text
    assert "FED ×3" in board.text


def test_a_row_of_three_seeds_beside_one_of_one_is_compared_by_its_own(known: Path, results: Results) -> None:
    known.write_text(lines("recognition,faces,48,bad,no,macro_f1,,linear,0.02,4,reference"))
    for seed in range(3):
        results.cell("good", seed, 3.5)
    results.cell("bad", 0, 1.0)
    board = results.write()
    good, bad = first_table(board)[2:4]
    assert (good[3], bad[3]) == ("in the interval", "±0.020")
    (section,) = board.sections
    entry = next(each for each in section.entries if each.name == "good")
    own = spread.moved(section, entry, section.ranked_by["macro_f1"])
    values = [number.value for number in entry.single if number.metric == "macro_f1"]
    assert own == spread.Spread(float(np.std(values, ddof=1)), 2, False)  # type: ignore[arg-type]
    assert "**certain**, also of other seeds" in verdict(board)


def test_rows_of_two_trainers_are_not_seeds_of_one(tmp_path: Path) -> None:
    lines = [",".join(Number._fields)]
    for trainer, values in (("fp32", [0.5, 0.6, 0.7]), ("amp", [0.1, 0.2, 0.3])):
        for seed, value in [("", 0.5), *enumerate(values)]:
            lines.append(f"one,faces,48,recognition,net,,{trainer},{seed},macro_f1,,{value},,,,,,,1,")
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    (found,) = script.pooled([tmp_path])
    assert found.freedom == 4
    assert found.spread == pytest.approx(0.1)
