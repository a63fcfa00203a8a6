"""`emobench report`: write a suite's board again from its stored results, and its page; or all boards of a folder.

Where a document's experiments are among them, what it reports is written beside them too (`emobench.report.papers`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from emobench.errors import StoreError
from emobench.report import papers
from emobench.report.board import Board
from emobench.report.html.write import FILE, OF_ALL, PICTURES, Pages, write_all, write_page
from emobench.report.write import write
from emobench.report.written import mark_unwritten, why
from emobench.runner.store import load_board
from emobench.suite.file import stem


def report(board: str | None, results: Path, data: Path | None = None, *, every: bool = False) -> int:
    """Write a board and its page, and print where they are; one that cannot be written says so itself.

    Args:
        board: its name, its folder, or the file of its suite; None: see `every`.
        data: the data root, in which the votes of annotators are looked for.
        every: all boards of the folder, and one page of them.

    Returns:
        The exit code: 1 where one could not be written, or a cell of it failed.

    Raises:
        StoreError: there is no such board, or not one is named.
    """
    if every == (board is not None):
        raise StoreError("name a board, such as `emobench report demo`, or all of them by --all")
    if board is None:
        return _report_all(results, data)
    written = _written(results, stem(board), data)
    if written is None or _paged(results / written.suite / FILE, lambda: write_page(written, results)) is None:
        return 1
    whole = not papers.suites(results, [written.suite]) or _paged(results / papers.FILE, lambda: papers.write(results))
    return 0 if whole and not written.failed else 1


def _report_all(results: Path, data: Path | None) -> int:
    names = boards(results)
    pages, whole = Pages(apart=True), True
    share = min(PICTURES, OF_ALL // len(names))
    for name in names:
        written = _written(results, name, data)
        whole = whole and written is not None and not written.failed
        if written is not None:
            page = _paged(results / name / FILE, lambda written=written: write_page(written, results))  # type: ignore[misc]
            whole = whole and page is not None
            pages.add(written, results, share)
    pages.add_documents(results, names)
    joint = _paged(results / FILE, lambda: write_all(pages, results))
    if papers.suites(results, names):
        whole = whole and _paged(results / papers.FILE, lambda: papers.write(results)) is not None
    return 0 if whole and joint is not None else 1


def boards(results: Path) -> list[str]:
    """The names of the boards of a folder of results.

    Raises:
        StoreError: there is none.
    """
    names = sorted(path.parent.name for path in results.glob("*/suite.json"))
    if not names:
        raise StoreError(f"{results}: no board is here. `emobench bench` makes one")
    return names


def _written(results: Path, name: str, data: Path | None) -> Board | None:
    """The board, written and said; None: it could not be."""
    load_board(results, name)
    try:
        board = write(results, name, data=data)
    except Exception as error:
        reason = mark_unwritten(results, name, error)
        print(f"emobench: the board {results / name} could not be written: {reason}", file=sys.stderr)
        return None
    print(board.path)
    return board


def _paged(path: Path, page: Callable[[], Path]) -> Path | None:
    """The page, written and said; None: it could not be, and the board stays as it is."""
    try:
        print(page())
    except Exception as error:
        print(f"emobench: {path} could not be written: {why(error, path)}", file=sys.stderr)
        return None
    return path
