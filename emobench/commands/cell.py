"""`emobench cell`, which no help shows: one cell in this process. So starts a cell on several devices."""

from __future__ import annotations

from pathlib import Path

from emobench.files import read_json
from emobench.runner.sockets import keep_short
from emobench.runner.threads import wait_gently


def cell(job: Path) -> None:
    """Run the job of a file that an engine wrote, and exit with its code."""
    wait_gently()
    keep_short()
    content = read_json(job)
    from emobench.runner.run import Job, start  # it loads torch

    start(Job.of(content))
