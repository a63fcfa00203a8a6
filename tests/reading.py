"""What tests read of a board."""

from __future__ import annotations

from pathlib import Path

from emobench.report.written import PAGE


def pages(board: Path) -> str:
    """All that a board says in Markdown: the details of its tracks, then its leaderboard."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (*sorted(board.glob("details-*.md")), board / PAGE))
