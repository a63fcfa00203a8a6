"""`emobench report`: write a suite's board again from its stored results."""

from __future__ import annotations

import sys
from pathlib import Path

from emobench.report.write import write
from emobench.report.written import mark_unwritten
from emobench.runner.store import load_board
from emobench.suite.file import stem


def report(board: str, results: Path) -> int:
    """Write a board and print where it is; one that cannot be written says so itself.

    Args:
        board: its name, its folder, or the file of its suite.

    Returns:
        The exit code: 1 where it could not be written, or a cell of it failed.

    Raises:
        StoreError: there is no such board.
    """
    name = stem(board)
    load_board(results, name)
    try:
        written = write(results, name)
    except Exception as error:
        reason = mark_unwritten(results, name, error)
        print(f"emobench: the board {results / name} could not be written: {reason}", file=sys.stderr)
        return 1
    print(written.path)
    return 1 if written.failed else 0
