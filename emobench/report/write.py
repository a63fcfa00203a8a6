"""The written board: leaderboard.md, the details of each track, metrics.csv, metrics.json and the pictures, from the
stored results alone."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from emobench.errors import EmobenchError, RawError
from emobench.files import SCHEMA_VERSION, write_text
from emobench.garbage import uncollected
from emobench.report import figures, people, slices
from emobench.report.board import Board, Entry, Number, Section, content, sections
from emobench.report.explained import fading
from emobench.report.history import runs
from emobench.report.leaderboard import details_name, leaderboard
from emobench.report.markdown import csv_cell, markdown
from emobench.report.memory import Memory
from emobench.report.tables import Pictures, details
from emobench.report.trainers import plain
from emobench.report.verdict import any_wanted
from emobench.report.written import stamp
from emobench.runner.choice import RECOGNITION
from emobench.runner.record import Card
from emobench.runner.store import (
    Origin,
    StoredCell,
    commit_cell,
    commit_fit,
    commit_judges,
    committed_judge,
    load_choices,
)
from emobench.suite import plugins
from emobench.suite.catalog import tracks
from emobench.suite.keys import PROTOCOL

_VALUE = Number._fields.index("value")


@uncollected()
def write(results: Path, suite: str, memory: Memory | None = None, data: Path | None = None) -> Board:
    """Write results/<suite>/ from what the store holds, and put the finished cells' raw files beside it.

    A pure function of those files, and of the votes of annotators where these are at hand (`people`) and the attributes
    of faces (`slices`); every file is replaced as a whole. What of them is damaged costs its row; so do
    files of the user's own that cannot be imported, with the tracks that they define.

    Args:
        memory: of the board as this process wrote it before, so that what did not change is not computed again.
        data: the data root, in which votes are looked for; None: nowhere.

    Raises:
        StoreError: the suite has never been run here, or its `suite.json` is no list of cells.
    """
    memory = memory or Memory()
    cells, choices = load_choices(results, suite, memory.record)
    folder = results / suite
    command, trouble = _origin(results, suite)

    def by_slice(section: Section) -> None:
        section.slices = slices.sliced(section, suite)

    found = sections(suite, cells, list(tracks().values()), memory, by_slice)
    for section in found if choices else ():
        mine = (section.dataset, section.size)
        measured = section.track.name == RECOGNITION
        section.choices = [each for each in choices if measured and (each.dataset, each.size) == mine]
    board = Board(suite, folder / "leaderboard.md", cells, found, command, trouble)
    for section in board.sections:
        _commit(results, suite, section)
    for cell in cells:
        commit_fit(results, suite, cell)
    commit_judges(results, [record for section in board.sections for record in section.records])
    for section in board.sections:
        section.without_weights = _without_weights(results, suite, section, cells)
        people.add(section, suite, data)
    _read_training(board)
    pictures = _draw(board, folder)
    write_text(folder / "metrics.csv", _csv(board))
    write_text(folder / "metrics.json", _entry_a_line(_json(board)))
    _write_details(board, pictures)
    write_text(folder / "slices.csv", slices.table(board))
    write_text(folder / "slices.md", markdown(slices.page(board)))
    write_text(board.path, f"{markdown(leaderboard(board))}\n{stamp(cells, memory.text)}\n")
    memory.written()
    return board


def _write_details(board: Board, pictures: Pictures) -> None:
    """A page for each track; those of tracks that the board no longer has go."""
    shown = dict.fromkeys(section.track for section in board.sections if any_wanted(section))
    pages = {details_name(track): track for track in shown}
    for former in board.path.parent.glob(details_name(None)):
        if former.name not in pages:
            former.unlink()
    for name, track in pages.items():
        write_text(board.path.parent / name, markdown(details(board, track, pictures)))


def _commit(results: Path, suite: str, section: Section) -> None:
    """`commit_cell` of its cells, unless that was done when the board was written before."""
    committed = results / suite / "cells"
    for cell in section.usable:
        key = ("committed", committed, *content(section.track, cell))
        if key not in section.memory or not os.path.exists(os.path.join(committed, cell.eval_key, "result.json")):
            commit_cell(results, suite, cell)
        section.memory.once(key, lambda: None)


def _origin(results: Path, suite: str) -> tuple[str, list[str]]:
    """The command that runs the board again, and what of its origin cannot be used."""
    try:
        origin = Origin.recorded(results, suite)
        command = origin.command(suite)
    except EmobenchError as error:
        plugins.use({})
        return f"emobench bench {shlex.quote(suite)}", [str(error)]
    try:
        origin.use_plugins(results)
    except EmobenchError as error:
        plugins.use({})
        return command, [f"what it defines is not shown: {error}"]
    return command, []


def _without_weights(results: Path, suite: str, section: Section, cells: Sequence[StoredCell]) -> list[Card]:
    """The judges, readers and guides of a section whose weights are not committed."""
    cards = {card.sha256: card for record in section.records if record.evaluation for card in record.evaluation.cards}
    evaluations = {cell.fit_key: cell.eval_key for cell in cells}
    committed = results / suite / "cells"
    return [
        card
        for sha256, card in cards.items()
        if not card.outside and committed_judge(results, committed / evaluations.get(card.fit_key, ""), sha256) is None
    ]


def _read_training(board: Board) -> None:
    """How the fits went; of a row that stands in several sections of a dataset, in the first."""
    told: set[tuple[str, str, int]] = set()
    for section in board.sections:
        usable = {id(cell) for cell in section.usable}
        for entry in (*section.entries, *section.controls):
            mine = [cell for cell in entry.cells if id(cell) in usable]
            if entry.control and all(cell.control is None for cell in mine):
                continue  # measured in the faces of others' cells
            if mine and (row := (entry.name, section.dataset, section.size)) not in told:
                told.add(row)
                section.training[entry.name] = runs(mine)


def _draw(board: Board, folder: Path) -> Pictures:
    """Draw all pictures; returns their paths from the board's folder, by track, dataset, kind and row."""
    pictures: dict[tuple[str, ...], str] = {}
    for section in board.sections:
        place, name = (section.track.name, section.dataset), _file_name(section.dataset)
        for entry in (*section.entries, *section.controls):
            if entry.shares is not None:
                path = f"figures/confusion-{_file_name(entry.name)}-{name}.webp"
                figures.confusion(folder / path, entry.shares, section.emotions, entry.name, people.confusions(section))
                pictures[*place, "confusion", entry.name] = path
        if section.track.name == "recognition" and len(section.compared.get("macro_f1", [])) > 1:
            pictures[*place, "ranking"] = path = f"figures/ranking-{name}.webp"
            _ranking(section, folder / path)
        for row, of in section.training.items():
            if any(run.history for run in of):
                path = f"figures/training-{_file_name(row)}-{name}.webp"
                figures.training(folder / path, row, of)
                pictures[*place, "training", row] = path
        pictures |= _raw_pictures(section, folder)
        curves = {entry.name: section.track.curve(section.data_of(entry)) for entry in section.measured}
        if faded := fading(section):
            pictures[*place, "fading"] = path = f"figures/fading-{name}.webp"
            figures.fading(folder / path, faded)
        drawn = {row: (curve.index.tolist(), curve.tolist()) for row, curve in curves.items() if curve is not None}
        if drawn:
            pictures[*place, "curves"] = path = f"figures/intensity-{name}.webp"
            figures.curves(folder / path, drawn)
    return pictures


def _ranking(section: Section, path: Path) -> None:
    key = section.ranked_by["macro_f1"]
    numbers = [(entry.name, entry.numbers[key]) for entry in section.compared["macro_f1"]]
    rows = [(name, each.value, each.low, each.high) for name, each in numbers if each.value is not None]
    floors = [entry.value(key) for entry in section.controls if entry.name == "control:majority"]
    figures.ranking(path, rows, next(iter(floors), None))


def _raw_pictures(section: Section, folder: Path) -> dict[tuple[str, ...], str]:
    """What the cells hold, of each row's first seed; edits of all rows in one."""
    pictures: dict[tuple[str, ...], str] = {}
    place = section.track.name, section.dataset
    for cell in section.usable:
        raw = {} if cell.record is None or cell.record.evaluation is None else cell.record.evaluation.raw
        for kind in section.track.pictures:
            if kind in raw and (*place, kind, cell.row) not in pictures:
                pictures[*place, kind, cell.row] = f"cells/{cell.eval_key}/{raw[kind]}"
    for (*_, kind, row), path in list(pictures.items()):
        if (named := figures.names(section.emotions, kind)) is not None:
            drawn = f"figures/{kind}-of-{_file_name(row)}-{_file_name(section.dataset)}.webp"
            try:
                figures.grid(folder / drawn, folder / path, *named)
            except RawError:
                continue  # an older grid, or somebody's: shown as it is
            pictures[*place, kind, row] = drawn
    edited = {row: folder / path for (*_, kind, row), path in pictures.items() if kind == "edits"}
    if edited:
        joint = f"figures/edits-{_file_name(section.dataset)}.webp"
        figures.edits(folder / joint, edited, section.emotions)
        return {(*place, "edits"): joint}
    return pictures


def _file_name(name: str) -> str:
    """A name as part of a file's; two names never give the same."""
    safe = re.sub(r"[^A-Za-z0-9.-]", "_", name)[:60]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _numbers(board: Board) -> Iterator[tuple[Section, list[Number]]]:
    """Every number in the table's order: a model over its seeds, then seed by seed, then what is missing.

    Costs of a row stand once on each dataset: with the first track that it is measured on.
    """
    told: set[tuple[str, str, int]] = set()
    for section in board.sections:
        for entry in (*section.entries, *section.controls):
            row = entry.name, section.dataset, section.size
            costs = ([], []) if row in told else ([*entry.costs.values()], entry.single_costs)
            told |= {row} if entry.costs else set()
            numbers = [
                *entry.numbers.values(),
                *costs[0],
                *entry.single,
                *(costs[1] if costs[0] else []),
                *entry.missing,
            ]
            yield section, [number for number in numbers if number.metric != "f1"]  # follows from precision and recall


def _csv(board: Board) -> str:
    """One row a number (see docs/protocol.md, Names); a missing one is `n/a`."""
    found = [_lines([Number._fields])]
    for section, numbers in _numbers(board):
        found.append(section.memory.once(("csv", *numbers), partial(_lines, map(_cells, numbers))))
    return "".join(found)


def _lines(rows: Iterable[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _cells(number: Number) -> list[str]:
    cells = [csv_cell(cell) for cell in number]
    if number.value is None:
        cells[_VALUE] = "n/a"
    return cells


def _json(board: Board) -> dict[str, Any]:
    """What metrics.csv does not hold: ranks, comparisons and the outcomes of the controls."""
    trainers = [_place(section) | each for section in board.sections for each in plain(section)]
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": PROTOCOL,
        "suite": board.suite,
        "cells": len(board.wanted),
        "done": len(board.wanted) - len(board.missing),
        "controls_pass": all(check.passed for check in board.checks),
        "settings": [setting for section in board.sections for setting in _settings(section)],
        "ranks": [rank for section in board.sections for rank in _ranks(section)],
        "comparisons": [pair for section in board.sections for pair in _comparisons(section)],
        **({"trainers": trainers} if trainers else {}),
        "controls": [
            asdict(check) | _place(section) | {"passed": check.passed}
            for section in board.sections
            for check in section.checks
        ],
    }


def _entry_a_line(content: Mapping[str, Any]) -> str:
    """Strict JSON, each entry of a list on a line of its own. Indented further, it is json's slow encoder that writes:
    of the pairs of a hundred rows for a tenth of the time of a whole board."""
    encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode

    def text(value: Any) -> str:
        if not isinstance(value, list) or not value:
            return encode(value)
        return "[\n" + ",\n".join(f"  {encode(entry)}" for entry in value) + "\n ]"

    return "{\n" + ",\n".join(f" {encode(name)}: {text(value)}" for name, value in content.items()) + "\n}\n"


def _place(section: Section) -> dict[str, Any]:
    return {"dataset": section.dataset, "size": section.size, "track": section.track.name}


def _settings(section: Section) -> Iterator[dict[str, Any]]:
    """The validation scores by which a setting was chosen."""
    for choice in section.choices:
        for setting in choice.settings:
            yield _place(section) | {
                "sweep": choice.sweep,
                "row": setting.row,
                "val_macro_f1": setting.mean,
                "seeds": len(setting.scores),
                "of_seeds": setting.seeds,
                "chosen": None if choice.pending else setting.row == choice.chosen,
            }


def _ranks(section: Section) -> Iterator[dict[str, Any]]:
    for entry in section.measured:
        for ranking, (best, worst) in entry.ranks.items():
            order_only = ranking in section.order_only
            yield _place(section) | {
                "row": entry.name,
                "by": ranking,
                "best": best,
                "worst": worst,
                "order_only": order_only,
            }


def _comparisons(section: Section) -> Iterator[dict[str, Any]]:
    for ranking, pairs in section.comparisons.items():
        of: list[Entry] = section.compared[ranking]
        for pair in pairs:
            names = {"first": of[pair.first].name, "second": of[pair.second].name}
            yield vars(pair) | _place(section) | {"by": ranking, "certain": pair.certain} | names
