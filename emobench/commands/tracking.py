"""A sweep as it is shown elsewhere when it ends: its leaderboards with pictures and links to runs, and its page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emobench.evaluation.tracks.track import Column
from emobench.files import say
from emobench.report import figures
from emobench.report.board import Board, Entry, Section
from emobench.report.html.faces import Allowance, pictures
from emobench.report.html.write import PICTURES, write_page
from emobench.runner import tensorboard, wandb
from emobench.runner.tracking import Leaderboard, Tracking, board_name, show_stored

_COSTS = ("params", "fit_seconds", "faces_per_s")


def show(tracking: Tracking, results: Path, board: Board) -> None:
    """Show a board, and those of its cells that were finished without being shown; say where."""
    for cell in board.cells:
        if cell.state == "done":
            show_stored(tracking, cell, results)
    with TemporaryDirectory() as folder:
        boards = list(leaderboards(board, tracking.real_faces, Path(folder)))
        if tracking.wandb is not None:
            address = wandb.summarise(tracking, results / board.suite, boards, write_page(board, results))
            upload = f"Logged offline; to upload: {wandb.sync_command(results, board.suite)}"
            say(upload if address is None else f"Logged to {address}")
        if tracking.tensorboard:
            tensorboard.summarise(results, board.suite, boards)
    if tracking.tensorboard:
        say(f"To look at the curves: tensorboard --logdir {shlex.quote(str(tensorboard.home(results, board.suite)))}")


def leaderboards(board: Board, real_faces: bool, folder: Path) -> Iterator[Leaderboard]:
    """The tables of a board, with what its models make or confuse.

    Args:
        real_faces: whether pictures of real people may be shown.
        folder: where the pictures are written.
    """
    for place, section in enumerate(board.sections):
        if not section.measured:
            continue
        rows = [entry for entry in section.every if entry.seeds]
        shown = _pictures(section, real_faces, folder / str(place))
        columns = [column for column in section.track.columns if _is_shown(column, rows)]
        yield Leaderboard(
            board_name(section.track.name, section.dataset, section.size),
            ["model", "rank", *_header(section, columns), "seeds", *_COSTS],
            [[entry.name, _rank(section, entry), *_numbers(section, columns, entry), *_costs(entry)] for entry in rows],
            [shown.get(entry.name) for entry in rows],
            [[cell.fit_key for cell in entry.cells] for entry in rows],
        )


def _is_shown(column: Column, rows: list[Entry]) -> bool:
    return column.shows == "number" and any(entry.value(column.key) is not None for entry in rows)


def _is_ranked_by(section: Section, column: Column) -> bool:
    return column.key in section.ranked_by.values()


def _header(section: Section, columns: list[Column]) -> Iterator[str]:
    """The number that rows are ranked by has its interval beside it."""
    for column in columns:
        yield column.heading
        if _is_ranked_by(section, column):
            yield from (f"{column.heading}, low", f"{column.heading}, high")


def _numbers(section: Section, columns: list[Column], entry: Entry) -> Iterator[float | None]:
    for column in columns:
        number = entry.numbers.get(column.key)
        yield None if number is None else number.value
        if _is_ranked_by(section, column):
            yield from (None, None) if number is None else (number.low, number.high)


def _rank(section: Section, entry: Entry) -> str | None:
    """The best and worst possible rank in the track's first ranking."""
    first = next(iter(section.track.rankings), None)
    places = None if first is None or first.name in section.order_only else entry.ranks.get(first.name)
    return None if places is None else "–".join(map(str, dict.fromkeys(places)))


def _costs(entry: Entry) -> list[Any]:
    found = (entry.costs.get(name) for name in _COSTS)
    return [len(entry.seeds), *(None if number is None else number.value for number in found)]


def _pictures(section: Section, real_faces: bool, folder: Path) -> Mapping[str, Path]:
    """Of each row what it makes, where that may be seen, or else what it confuses."""
    folder.mkdir()
    found: dict[str, Path] = {}
    for each in pictures(section, real_faces, Allowance(PICTURES)):
        if each.sheet is not None and each.row not in found:
            path = folder / f"{len(found)}.webp"
            path.write_bytes(each.sheet.webp)
            found[each.row] = path
    for entry in section.every:
        if entry.shares is not None and entry.name not in found:
            path = folder / f"{len(found)}.webp"
            figures.confusion(path, entry.shares, section.emotions, entry.name)
            found[entry.name] = path
    return found
