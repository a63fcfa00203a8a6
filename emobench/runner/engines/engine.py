"""What an engine is: where the jobs of a sweep run, and the only place that knows how."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from emobench.runner.run import Job


class Engine:
    """Starts jobs, says how they ended, and stops them.

    One file with one subclass, beside this one or anywhere else; a sweep builds one of it, without arguments. Wherever
    a job runs, `emobench.runner.run.execute(job)` is what runs it: it keeps the results in the store, which all see.

    Attributes:
        name: what `--engine` calls it.
    """

    name: ClassVar[str]

    def start(self, job: Job) -> Any | None:
        """Start a job; returns what it is known by from then on, None where there is no room for it now.

        At most `job.per_node` jobs run side by side on a machine, each of whose processes has `job.threads` threads.
        """
        raise NotImplementedError

    def poll(self, started: Any) -> int | None:
        """The exit code of a job that ended, −n where signal n killed it; None while it runs."""
        raise NotImplementedError

    def stop(self, started: Any, *, at_once: bool = False) -> None:
        """Ask a job to end in order, as SIGTERM does, or end it at once."""
        raise NotImplementedError

    def wait(self, started: Sequence[Any]) -> None:
        """Until one of the jobs may have ended, about a second at most."""
        time.sleep(1)
