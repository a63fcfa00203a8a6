"""What is committed under results/: small enough to travel, each judge as its record has it, nothing lost."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import RESULTS, as_committed
from reading import pages
from safetensors.torch import load_file

from emobench.runner.build import build_model
from emobench.runner.machine import hardware, versions
from emobench.runner.record import Card, CellFields, Dataset, Evaluation, Fit, MadeOf, Record, TrackValues, read_record
from emobench.runner.store import JUDGE, JUDGES_BYTES, Store, commit_judges, write_table

KEPT = ("demo", "reference-generation", "reference-generation-fer2013")  # boards whose panel and reader are committed
needs_results = pytest.mark.skipif(not (RESULTS / "demo").exists(), reason="the reference boards are not here")


def records(suite: Path) -> list[Record]:
    return [read_record(path) for path in sorted((suite / "cells").glob("*/result.json"))]


def cards(record: Record) -> list[Card]:
    """Of judges, reader and guides; none in a classifier's record."""
    return [] if record.evaluation is None else record.evaluation.cards


def boards() -> list[Path]:
    """Those with generators, and so with judges."""
    suites = sorted(path.parent for path in RESULTS.glob("*/suite.json"))
    return [suite for suite in suites if any(cards(record) for record in records(suite))]


def test_boards_that_somebody_ran_here_are_none_of_them(tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "demo").mkdir(parents=True)
    (results / "demo" / "leaderboard.md").write_text("committed")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert as_committed(results) == results
    (results / "demo" / "leaderboard.md").write_text("run here")
    (results / "mine").mkdir()
    (results / "mine" / "leaderboard.md").touch()
    found = as_committed(results)
    assert {str(path.relative_to(found)) for path in found.rglob("*.md")} == {"demo/leaderboard.md"}
    assert (found / "demo" / "leaderboard.md").read_text() == "committed"
    assert (results / "demo" / "leaderboard.md").read_text() == "run here"
    shutil.rmtree(tmp_path / ".git")
    assert as_committed(results) == results


# ---- the committed boards ------------------------------------------------------------------------------------------


@needs_results
def test_the_results_are_small() -> None:
    here = Path(__file__).parents[1] / "results"
    listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=here, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a clone of the repository")
    files = [RESULTS / name for name in listed.stdout.split("\0") if name]
    sizes = {path: path.stat().st_size for path in files if path.exists()}
    assert len(sizes) > 100
    largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
    assert sum(sizes.values()) < 32 * 2**20, f"{sum(sizes.values()):,} bytes; the largest are {largest}"


@needs_results
def test_each_committed_judge_is_the_network_of_a_record() -> None:
    named: dict[str, tuple[Path, Card]] = {}
    for suite in boards():
        named |= {card.sha256: (suite, card) for record in records(suite) for card in cards(record)}
    files = sorted((RESULTS / "judges").iterdir())
    assert files
    for path in files:
        assert path.name == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors"
        suite, card = named[path.stem]
        (record,) = (each for each in records(suite) if each.fit_key == card.fit_key)
        state = load_file(path)
        assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
        network = build_model(record.planned, Store(RESULTS), pretrained=False)
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        size = record.cell.size
        logits = network.eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        assert torch.isfinite(logits).all()


@needs_results
def test_each_board_has_its_judges_or_names_those_that_it_has_not() -> None:
    assert {suite.name for suite in boards()} >= set(KEPT)
    for suite in boards():
        page = pages(suite)
        found = re.search(r"Weights that are not committed, so that a clone is small: (.*)", page)
        absent = set(re.findall(r"`([0-9a-f]{12})`", found[1])) if found else set()
        for record in records(suite):
            for card in cards(record):
                path = RESULTS / "judges" / f"{card.sha256}.safetensors"
                assert path.exists() != (card.sha256[:12] in absent), (suite.name, card.row)
            if suite.name in KEPT and record.evaluation is not None and record.evaluation.reader is not None:
                used = [*record.evaluation.panel, record.evaluation.reader]
                assert all((RESULTS / "judges" / f"{card.sha256}.safetensors").exists() for card in used)


@needs_results
def test_what_pages_show_and_records_name_is_there() -> None:
    pages = [
        Path(__file__).parents[1] / "README.md",
        RESULTS / "README.md",
        *sorted(RESULTS.glob("*/leaderboard.md")),
        *sorted(RESULTS.glob("*/details-*.md")),
    ]
    for page in pages:
        for shown in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / shown).exists(), f"{page}: {shown}"
    for path in sorted(RESULTS.glob("*/cells/*/result.json")):
        evaluation = read_record(path).evaluation
        assert evaluation is not None
        assert evaluation.raw
        assert all((path.parent / name).exists() for name in evaluation.raw.values()), path


@needs_results
def test_numbers_stand_in_the_table_alone() -> None:
    for path in (suite.parent / "metrics.json" for suite in sorted(RESULTS.glob("*/suite.json"))):
        if path.parent.name != "smoke":
            text = path.read_text(encoding="utf-8")
            found = json.loads(text)
            assert {"ranks", "comparisons", "controls"} <= set(found)
            assert "numbers" not in found
            lines = {line.strip().removesuffix(",") for line in text.splitlines()}
            entries = [entry for value in found.values() if isinstance(value, list) for entry in value]
            assert {json.dumps(entry, ensure_ascii=False) for entry in entries} <= lines, path


# ---- what is committed of judges -----------------------------------------------------------------------------------


def judge(results: Path, row: str, size: int) -> Card:
    """A judge in the store, and its card."""
    content = row.encode() * (size // len(row))
    folder = results / "cells" / f"fit-{row}"
    folder.mkdir(parents=True)
    (folder / JUDGE).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return Card(row=row, fit_key=f"fit-{row}", sha256=sha256, architecture=row, seed=0, data="0" * 64, needs={})


def judged(panel: list[Card], reader: Card, guides: list[Card]) -> Record:
    """The record of a generator that these networks have judged or guided."""
    cell = CellFields(
        row="cvae", model="cvae", dataset="drawn", size=32, seed=0, track="generation", control=None,
        emotions=["neutral", "happy"], parameters=1,
    )  # fmt: skip
    dataset = Dataset(name="drawn", size=32, fingerprint="0" * 64, emotions=cell.emotions, counts={})
    evaluation = Evaluation(
        dataset=dataset, tracks={"generation": TrackValues(values={})}, params=1, flops=1.0, batch=64, draws=True,
        panel=panel, reader=reader, guides=guides, raw={},
    )  # fmt: skip
    fit = Fit(cost=None, validation=None, versions=versions(), hardware=hardware())
    made_of = MadeOf(fit={"recipe": None, "data": {}}, eval={})
    return Record(
        fit_key="fit", eval_key="eval", made_of=made_of, cell=cell, state="done", fit=fit, evaluation=evaluation
    )


def committed(results: Path) -> set[str]:
    return {path.stem for path in (results / "judges").glob("*")}


def test_a_network_of_two_boards_is_committed_once(tmp_path: Path) -> None:
    first, second, reader = (judge(tmp_path, row, 1000) for row in ("first", "second", "reader"))
    commit_judges(tmp_path, [judged([first, second], reader, [])])
    assert committed(tmp_path) == {card.sha256 for card in (first, second, reader)}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "judges").iterdir()}
    shutil.rmtree(tmp_path / "cells")  # a clone, on which another board has the same panel
    third = judge(tmp_path, "third", 1000)
    commit_judges(tmp_path, [judged([first, second], third, [])])
    assert committed(tmp_path) == {card.sha256 for card in (first, second, reader, third)}
    assert before.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "judges").iterdir()}.items()


def test_a_panel_is_committed_whole_or_not_and_guides_come_last(tmp_path: Path) -> None:
    small, reader, guide = (judge(tmp_path, row, 1000) for row in ("small", "reader", "guide"))
    large, other = (judge(tmp_path, row, JUDGES_BYTES) for row in ("large", "other"))
    commit_judges(tmp_path, [judged([small, large], reader, [guide])])
    assert committed(tmp_path) == {guide.sha256}
    shutil.rmtree(tmp_path / "judges")
    commit_judges(tmp_path, [judged([small], reader, [other, guide])])
    assert committed(tmp_path) == {card.sha256 for card in (small, reader, guide)}


def test_weights_that_have_changed_since_are_not_committed_in_place_of_the_judge(tmp_path: Path) -> None:
    first, reader = judge(tmp_path, "first", 1000), judge(tmp_path, "reader", 1000)
    (tmp_path / "cells" / "fit-first" / JUDGE).write_bytes(b"fitted again")
    commit_judges(tmp_path, [judged([first], reader, [])])
    assert committed(tmp_path) == set()


# ---- raw results ---------------------------------------------------------------------------------------------------


def table(faces: int, subjects: list[str] | list[None]) -> pd.DataFrame:
    random = np.random.default_rng(0)
    odd = [np.nan, np.inf, -0.0, np.float32(1e-45), 1.0]
    return pd.DataFrame(
        {
            "index": np.arange(faces) + 28_709,
            "id": [f"test-{place // 8:05d}-{place % 8}" for place in range(faces)],
            "subject": subjects,
            "kind": np.repeat(["real", "control"], faces // 2),
            "label": random.integers(0, 8, faces),
            "row": random.integers(-1, 2**40, faces),
            "leaked": random.random(faces) < 0.1,
            "p_happy": np.r_[odd, random.random(faces - 5)].astype(np.float32),
            "ssim": np.r_[odd, random.random(faces - 5)],
        }
    )


@pytest.mark.parametrize("people", [True, False])
def test_a_table_comes_back_as_it_was_in_fewer_bytes(tmp_path: Path, people: bool) -> None:
    subjects: Any = [f"person{place // 8}" for place in range(4000)] if people else [None] * 4000
    before = table(4000, subjects)
    write_table(tmp_path / "small.parquet", before)
    after = pd.read_parquet(tmp_path / "small.parquet")
    pd.testing.assert_frame_equal(after, before, check_exact=True)
    for name in ("p_happy", "ssim"):
        known = ~np.isnan(before[name].to_numpy())
        assert after[name].to_numpy()[known].tobytes() == before[name].to_numpy()[known].tobytes()  # −0.0 too
    before.to_parquet(tmp_path / "plain.parquet", index=False)
    assert (tmp_path / "small.parquet").stat().st_size < 0.7 * (tmp_path / "plain.parquet").stat().st_size
    again = tmp_path / "again.parquet"
    write_table(again, before)
    assert again.read_bytes() == (tmp_path / "small.parquet").read_bytes()
