"""The written board: leaderboard.md, metrics.csv, metrics.json and the pictures, from the stored results alone."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emobench.files import replacing
from emobench.report import figures
from emobench.report.board import Board, Number, sections
from emobench.report.judged import JudgedSection, judged_sections
from emobench.report.markdown import csv_cell
from emobench.report.text import markdown
from emobench.report.written import stamp
from emobench.runner.store import (
    PROTOCOL,
    SCHEMA_VERSION,
    Origin,
    cards,
    commit_cell,
    commit_judges,
    committed_judge,
    load_board,
    write_json,
)


def write(results: Path, suite: str) -> Board:
    """Write results/<suite>/ from what the store holds, and put the finished cells' raw files beside it.

    A pure function of those files; every file is replaced as a whole.

    Raises:
        StoreError: the suite has never been run here.
    """
    rows = load_board(results, suite)
    folder = results / suite
    reading = [row for row in rows if row.track == "recognition"]
    command = Origin.recorded(results, suite).command(suite)
    board = Board(
        suite, folder / "leaderboard.md", rows, sections(suite, reading), judged_sections(suite, rows), command
    )
    for section in board.all_sections:
        for row in section.usable:
            commit_cell(results, suite, row)
    commit_judges(results, [row.result or {} for judged in board.judged for row in judged.usable])
    places = {row.fit_key: row.eval_key for row in reading}
    for judged in board.judged:
        known = {card["sha256"]: card for row in judged.usable for card in cards(row.result or {})}
        judged.without_weights = [
            card
            for sha256, card in known.items()
            if committed_judge(results, folder / "cells" / places.get(card["fit_key"], ""), sha256) is None
        ]
    pictures = _draw(board, folder)
    _write_text(folder / "metrics.csv", _csv(board))
    write_json(folder / "metrics.json", _json(board))
    _write_text(board.path, f"{markdown(board, pictures)}\n{stamp(rows)}\n")
    return board


def _write_text(path: Path, text: str) -> None:
    """Write beside the place and move there, so that a reader sees all of it or the old file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _draw(board: Board, folder: Path) -> dict[tuple[str, ...], str]:
    """Draw all pictures; returns their paths from the board's folder, by dataset and row."""
    pictures: dict[tuple[str, ...], str] = {}
    for section in board.sections:
        for entry in (*section.entries, *section.controls):
            if entry.shares is not None:
                path = f"figures/confusion-{_file_name(entry.name)}-{_file_name(section.dataset)}.webp"
                figures.confusion(folder / path, entry.shares, section.emotions, entry.name)
                pictures[section.dataset, entry.name] = path
        if len(section.ranked) > 1:
            path = f"figures/ranking-{_file_name(section.dataset)}.webp"
            numbers = [(entry.name, entry.numbers["macro_f1", ""]) for entry in section.ranked]
            rows = [(name, each.value, each.low, each.high) for name, each in numbers if each.value is not None]
            floors = [entry.value("macro_f1") for entry in section.controls if entry.name == "control:majority"]
            figures.ranking(folder / path, rows, next(iter(floors), None))
            pictures[(section.dataset,)] = path
    for judged in board.judged:
        pictures |= _draw_judged(judged, folder)
    return pictures


def _draw_judged(section: JudgedSection, folder: Path) -> dict[tuple[str, ...], str]:
    """The pictures of generators: what the cells hold, of each row's first seed, and those of all rows together."""
    pictures: dict[tuple[str, ...], str] = {}
    edited: dict[str, Path] = {}
    for row in section.usable:
        raw = (row.result or {}).get("raw", {})
        for kind in ("samples", "intensity", "edits", "styles"):
            if kind in raw and (section.dataset, row.row, kind) not in pictures:
                pictures[section.dataset, row.row, kind] = f"cells/{row.eval_key}/{raw[kind]}"
                if kind == "edits":
                    edited[row.row] = folder / pictures[section.dataset, row.row, kind]
    name = _file_name(section.dataset)
    if edited:
        pictures[section.dataset, "edits"] = f"figures/edits-{name}.webp"
        figures.edits(folder / pictures[section.dataset, "edits"], edited, section.emotions)
    if section.curves:
        pictures[section.dataset, "curves"] = f"figures/intensity-{name}.webp"
        curves = {row: (curve.index.tolist(), curve.tolist()) for row, curve in section.curves.items()}
        figures.curves(folder / pictures[section.dataset, "curves"], curves)
    return pictures


def _file_name(name: str) -> str:
    """A name as part of a file's; two names never give the same."""
    safe = re.sub(r"[^A-Za-z0-9.-]", "_", name)[:60]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _numbers(board: Board) -> Iterator[Number]:
    """Every number in the table's order: a model over its seeds, then seed by seed, then what is missing."""
    for section in board.all_sections:
        for entry in (*section.entries, *section.controls):
            for number in (*entry.numbers.values(), *entry.single, *entry.missing):
                if number.metric != "f1":  # follows from precision and recall
                    yield number


def _csv(board: Board) -> str:
    """PROTOCOL.md 9, one row a number; a missing one is `n/a`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Number._fields)
    for number in _numbers(board):
        cells = number._replace(value="n/a") if number.value is None else number  # type: ignore[arg-type]
        writer.writerow([csv_cell(cell) for cell in cells])
    return file.getvalue()


def _json(board: Board) -> dict[str, Any]:
    """What metrics.csv cannot hold, for programs: ranks, comparisons and the outcomes of the controls."""
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": PROTOCOL,
        "suite": board.suite,
        "cells": len(board.wanted),
        "done": len(board.wanted) - len(board.missing),
        "controls_pass": all(check.passed for check in board.checks),
        "ranks": [
            {"dataset": section.dataset, "row": entry.name, "best": entry.rank[0], "worst": entry.rank[1]}
            for section in board.sections
            for entry in section.ranked
            if entry.rank is not None
        ]
        + [
            {"dataset": section.dataset, "row": row, "track": track, "by": by, "best": best, "worst": worst}
            | {"order_only": by == "fidelity" and track in section.order_only}
            for section in board.judged
            for (track, by, row), (best, worst) in section.ranks.items()
        ],
        "comparisons": [
            asdict(pair)
            | {"dataset": section.dataset, "certain": pair.certain}
            | {"first": section.ranked[pair.first].name, "second": section.ranked[pair.second].name}
            for section in board.sections
            for pair in section.comparisons
        ]
        + [
            asdict(pair)
            | {"dataset": section.dataset, "track": track, "certain": pair.certain}
            | {"first": section.compared[track][pair.first], "second": section.compared[track][pair.second]}
            for section in board.judged
            for track, pairs in section.comparisons.items()
            for pair in pairs
        ],
        "controls": [
            asdict(check) | {"dataset": section.dataset, "passed": check.passed}
            for section in board.all_sections
            for check in section.checks
        ],
    }
