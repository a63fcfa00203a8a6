"""The board of a sweep: written after every cell, and never a reason to stop training."""

from __future__ import annotations

import sys
from pathlib import Path

from emobench.report.written import is_written, mark_unwritten
from emobench.runner.store import Origin, load_board
from emobench.runner.sweep import suite_is_written, write_suite
from emobench.suite.cell import Plan


class BoardFile:
    """A plan's board on disk.

    Attributes:
        problem: why the board could not be written when that was last tried; None where it could.
    """

    def __init__(self, results: Path, plan: Plan, origin: Origin) -> None:
        self.results, self.plan, self.origin = results, plan, origin
        self.path = results / plan.suite / "leaderboard.md"
        self.problem: str | None = None

    def whole(self) -> bool:
        """Whether the board on disk is that of the plan, with the results that the store holds now."""
        try:
            return suite_is_written(self.results, self.plan, self.origin) and is_written(self.results, self.plan.suite)
        except Exception:  # what keeps it from being read keeps it from being written, and is said there
            return False

    def write(self) -> None:
        """Write it; where that fails, whatever the reason, say so once and in the board itself."""
        from emobench.report.write import write

        try:
            write_suite(self.results, self.plan, self.origin)
            write(self.results, self.plan.suite)
        except Exception as error:
            reason = mark_unwritten(self.results, self.plan.suite, error)
            if reason != self.problem:
                print(f"emobench: the board {self.path} could not be written: {reason}", file=sys.stderr, flush=True)
            self.problem = reason
        else:
            self.problem = None

    def states(self) -> list[str]:
        """The states of its cells, skipped ones aside; none where the board has no list of its cells."""
        try:
            states = [row.state for row in load_board(self.results, self.plan.suite)]
        except Exception:
            return []
        return [state for state in states if state != "skipped"]

    def summary(self) -> str:
        """How many cells are done, and where the board is."""
        states = self.states()
        return f"{states.count('done')} of {len(states)} cells are done; the board is {self.path}"
