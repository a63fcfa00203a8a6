"""Whether a board's page on disk is the whole board of the results that are here."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emobench.errors import WRITE_REMEDIES, EmobenchError, StoreError
from emobench.files import replacing
from emobench.runner.record import Record
from emobench.runner.store import StoredCell, load_board

if TYPE_CHECKING:
    import pandas as pd

PAGE = "leaderboard.md"
_LAST = "<!-- below: the last board that could be written -->"


def stamp(cells: Sequence[StoredCell], text: Callable[[Record], str] = Record.text) -> str:
    """The line that ends a board's page, and says of which results it was written; `text`: of a record."""
    known = [[cell.eval_key, cell.state, cell.reason, cell.record and text(cell.record)] for cell in cells]
    return f"<!-- results {hashlib.sha256(json.dumps(known).encode()).hexdigest()} -->"


def is_written(results: Path, suite: str) -> bool:
    """Whether a board's page was written whole, of the results that are here now."""
    try:
        lines = (results / suite / PAGE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return bool(lines) and _LAST not in lines and lines[-1] == stamp(load_board(results, suite))


def read_board(folder: Path) -> pd.DataFrame:
    """The numbers of a board's metrics.csv, a row a number; without a value it is NaN, and `reason` says why.

    Raises:
        StoreError: there is no board, or its table is damaged.
    """
    import pandas as pd  # the command, which needs it for nothing else, starts without it

    path = folder / "metrics.csv"
    floats, integers = ("value", "low", "high"), ("size", "seed", "n", "protocol")
    missing = {name: ["", "n/a"] for name in (*floats, *integers)}  # a name may look like a missing number
    try:
        board = pd.read_csv(path, keep_default_na=False, na_values=missing, dtype=dict.fromkeys(integers, "Int64"))
        if lacking := {"model", "metric", "reason", *missing} - set(board.columns):
            raise ValueError(f"no column {', '.join(sorted(lacking))}")
        if "trainer" not in board:  # of an older emobench, whose suites had one
            board.insert(list(board.columns).index("model") + 1, "trainer", "")
        return board
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such board; `emobench bench` writes it") from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"{path}: cannot be read ({reason}). `emobench report` writes it again") from error


def overall(board: pd.DataFrame) -> pd.DataFrame:
    """The numbers over all seeds and judges; of those an emotion the macro average, of the rest the whole.

    Their column `row` holds what a suite calls each; of a control its name, not what it is of.
    """
    whole = board[board["seed"].isna() & (board["judge"].fillna("") == "") & board["emotion"].isin(["", "macro"])]
    variant, model = whole["variant"].fillna(""), whole["model"]
    return whole.assign(row=variant.where((variant != "") & ~model.str.startswith("control:"), model))


def why(error: Exception, path: Path) -> str:
    """Why a file could not be written, as people are told."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "emobench" in Path(frame.filename).parts]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    known = isinstance(error, EmobenchError | OSError) and str(error)
    if isinstance(error, OSError) and error.errno in WRITE_REMEDIES:
        return f"{Path(error.filename or path).parent}: {error.strerror}. {WRITE_REMEDIES[error.errno]}"
    return str(error) if known else f"{type(error).__name__}: {error}{place}"


def mark_unwritten(results: Path, suite: str, error: Exception) -> str:
    """Say at the top of a board's page that it could not be written, above the last one that could; returns why."""
    from emobench.report.markdown import escape  # it loads all that pages are made of

    path = results / suite / PAGE
    reason = why(error, path)
    lines = [f"# Leaderboard: {escape(suite)}", "", f"> **This board could not be written**: {escape(reason)}.", ">"]
    lines += ["> What was measured is kept; the board is tried again after the next cell and by `emobench report`.", ""]
    try:
        former = path.read_text(encoding="utf-8") if path.exists() else ""
        former = former.partition(_LAST + "\n")[2] if _LAST in former else former
        with replacing(path) as temporary:
            temporary.write_text("\n".join([*lines, _LAST, former]), encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass  # the caller says it
    return reason
