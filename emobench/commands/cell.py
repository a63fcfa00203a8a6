"""`emobench cell`, which no help shows: one cell in this process. So starts a cell on several devices."""

from __future__ import annotations

from pathlib import Path

from emobench.files import read_json
from emobench.runner.run import Job, start


def cell(job: Path) -> None:
    """Run the job of a file that an engine wrote, and exit with its code."""
    start(Job.of(read_json(job)))
