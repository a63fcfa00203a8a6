"""What tests read of a board."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import emobench
from emobench.report.written import PAGE


def pages(board: Path) -> str:
    """All that a board says in Markdown: the details of its tracks, then its leaderboard."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (*sorted(board.glob("details-*.md")), board / PAGE))


def best_that_draws(results: Path) -> pd.Series:
    """The row of the board `made` that draws faces and obeys best, as the table of its numbers has it."""
    numbers = emobench.read_board(results / "made")
    mine = numbers[(numbers.metric == "control_calibrated") & (numbers.emotion == "macro") & numbers.seed.isna()]
    mine = mine[(mine.track == "generation") & mine.model.isin(["cvae", "vit_cvae", "diffusion"])]  # stargan only edits
    return mine.loc[mine.value.idxmax()]
