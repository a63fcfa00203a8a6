"""`emobench view`: open a board's page, or that of all boards, in the browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from emobench.commands.report import boards, report
from emobench.report.html.write import FILE
from emobench.report.written import PAGE
from emobench.suite.file import stem


def view(board: str | None, results: Path, data: Path | None = None) -> int:
    """Open a page, written first where it is missing or older than its board, and print its path.

    Args:
        board: its name, its folder, or the file of its suite; None: all boards of the folder.
        data: the data root, in which the votes of annotators are looked for.

    Returns:
        The exit code of writing it.

    Raises:
        StoreError: there is no such board.
    """
    name = None if board is None else stem(board)
    folder = results if name is None else results / name
    path = folder / FILE
    made_of = [results / each / PAGE for each in (boards(results) if name is None else [name])]
    code = 0
    if not path.is_file() or any(not each.exists() or _newer(each, path) for each in made_of):
        code = report(board, results, data, every=board is None)
    else:
        print(path)
    if path.is_file():
        webbrowser.open(path.resolve().as_uri())
    return code


def _newer(path: Path, other: Path) -> bool:
    return path.stat().st_mtime > other.stat().st_mtime
