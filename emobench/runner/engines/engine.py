"""What an engine is: where the jobs of a sweep run, and the only place that knows how."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from emobench.errors import EmobenchError
from emobench.runner.machine import Machines, visible_gpus

if TYPE_CHECKING:
    from emobench.runner.run import Job


LOST = -1000  # what `Engine.poll` says of a job whose machine is gone, and that may run elsewhere
AGAIN = -1001  # of one that is to be started again a little later, for no fault of its own

TOGETHER = "EMOBENCH_TOGETHER"  # a variable: a name for the processes that fit a cell together

_CLUSTERS = ("SLURM_", "SUBMITIT_", "LSB_", "JSM_", "TORCHELASTIC_")
_RANKS = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables without those by which Slurm, LSF, torchrun or Kubeflow say what this process is to them.

    Lightning would take a cell for one of their processes: wait for others, or have Slurm queue it again.
    """
    return {name: value for name, value in environment.items() if not name.startswith(_CLUSTERS) and name not in _RANKS}


class Engine:
    """Starts jobs, says how they ended, and stops them.

    One file with one subclass, beside this one or anywhere else; a sweep builds one of it, with the
    address of a cluster where one is named. Wherever a job runs,
    `emobench.runner.run.execute(job)` is what runs it: it keeps the results in the store, which all see.

    Attributes:
        name: what `--engine` calls it.
        shares_gpus: whether it can have several jobs share a GPU.
        shares_machines: whether it can have several jobs share a machine, of those that `machines` says.
    """

    name: ClassVar[str]
    shares_gpus: ClassVar[bool] = True
    shares_machines: ClassVar[bool] = True

    def __init__(self, address: str | None = None, resources: Mapping[str, str] | None = None) -> None:
        """Of a cluster where the engine has one.

        Args:
            address: as `--address` has it; None: where the engine looks itself.
            resources: what a job asks the cluster for, as `--resource` has it.

        Raises:
            EmobenchError: there is no such cluster, or the engine takes no such thing.
        """
        if address is not None:
            raise EmobenchError(f"--address {address}: the engine {self.name} runs on this machine; leave it out")
        if resources:
            raise EmobenchError(f"--resource {next(iter(resources))}: the engine {self.name} takes none; leave it out")

    def machines(self) -> Machines:
        """What it runs on; this machine, unless it says otherwise."""
        return Machines.here(len(visible_gpus()))

    def open(self, results: Path, store: str | None = None) -> None:
        """Get ready, and refuse what cannot work, before anything starts.

        Args:
            results: the folder of this machine's results.
            store: URL of what holds the jobs' results; None: that folder, which all machines share.

        Raises:
            EmobenchError: what is wrong, and where.
        """

    def start(self, job: Job) -> Any | None:
        """Start a job; returns what it is known by from then on, None where there is no room for it now.

        At most `job.per_node` jobs run side by side on a machine, `job.per_gpu` on a GPU of it, and each of their
        processes has `job.threads` threads.
        """
        raise NotImplementedError

    def poll(self, started: Any) -> int | str | None:
        """The exit code of a job that ended, −n where signal n killed it; None while it runs.

        `LOST` where its machine is gone: it is started again, some times at most; `AGAIN`: so it is, a little later,
        however often. A text says why it failed outside of its own process.
        """
        raise NotImplementedError

    def where(self, started: Any) -> str | None:
        """On which machine a job runs, where there are several; None: that is not known yet."""
        return None

    def stop(self, started: Any, *, at_once: bool = False) -> None:
        """Ask a job to end in order, as SIGTERM does, or end it at once."""
        raise NotImplementedError

    def wait(self, started: Sequence[Any]) -> None:
        """Until one of the jobs may have ended, about a second at most."""
        time.sleep(1)

    def close(self) -> None:
        """The sweep has ended, and none of its jobs is left."""
