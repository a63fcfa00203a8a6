"""How cells share the cores of a machine, and how the threads of one wait for each other.

Imports no torch: how threads wait must be said before torch is loaded.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emobench.errors import EmobenchError
from emobench.runner.machine import Machines

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by whoever wants something else
SPINS = "1000"
TIMEOUT = "16"  # of OpenBLAS's threads: 2 ** 16 turns of the clock

MOST_A_GPU = 8  # cells that share a GPU where nobody says how many
CONTEXT_GIB = 0.6  # memory of a GPU that each process takes beside its tensors
SPARE = 1.3  # times the tensors' memory that a process holds: what it gives back to itself, and does not fill again
AT_ONCE = 4  # cells side by side where nobody says how many: so many of a suite can usually run before the others
GIB_A_CELL = 4  # memory that a cell with its copy of the libraries may need


@dataclass(frozen=True)
class Packing:
    """How the cells of a plan share the machines that they run on.

    A network's work is shared out between threads hundreds of times a step, and each time all wait for the last. So
    several cells with a few threads each finish sooner than one after another with all of them, and lose less where
    other processes want the cores too.

    Attributes:
        per_node: how many cells run side by side at most on a machine: some a GPU, or all on the cores.
        threads: of each. Other numbers of threads round otherwise, and so make other networks.
        machines: which they share.
        per_gpu: how many share a GPU, each with its part of the memory.
        fixed: the threads are what a board's plan says, also of each process of a cell on several devices: they are the
            same on every machine, though it may have fewer cores.
    """

    per_node: int
    threads: int
    machines: Machines
    per_gpu: int = 1
    fixed: bool = False

    @classmethod
    def on(
        cls, machines: Machines, asked: int | None, cells: int, fixed: int | None = None, per_gpu: int = 1
    ) -> Packing:
        """On some machines.

        Args:
            asked: cells side by side; None: `per_gpu` on each GPU, else as many as cores, memory and the plan have
                place for.
            cells: of the plan, whether they are done or not: a sweep that goes on has the threads that it had before.
            fixed: threads of each, which a board's plan says; None: as many as there are cores for.
            per_gpu: cells that share a GPU.

        Raises:
            EmobenchError: more are asked for than there are cores, or places on the GPUs.
        """
        there = machines.cores
        if asked is not None and not 1 <= asked <= there:
            which = "this machine" if machines.number == 1 else "the smallest machine"
            reason = f"{which} has {there} core{'s' if there > 1 else ''}, and each cell needs one"
            raise EmobenchError(f"--per-node {asked}: {reason}. Give a number from 1 to {there}, or leave it out")
        places = machines.gpus * per_gpu
        if asked is not None and places and asked > places:
            have = "1 GPU has" if machines.gpus == 1 else f"{machines.gpus} GPUs have"
            room_for = "1 cell" if places == 1 else f"{places} cells"
            raise EmobenchError(
                f"--per-node {asked}: {have} place for {room_for}, {per_gpu} on each. Have more share one by "
                f"--per-gpu {-(-asked // machines.gpus)}, or leave --per-node out"
            )
        if asked is None:
            most = there if fixed is None else there // fixed
            room = min(AT_ONCE, most, machines.memory // GIB_A_CELL, -(-cells // machines.number))
            asked = places or max(1, room)
        threads = max(1, there // asked) if fixed is None else fixed
        return cls(asked, threads, machines, per_gpu, fixed is not None)

    def threads_of(self, processes: int) -> int:
        """Threads of each process of a cell, which has so many, a device each."""
        return self.threads if processes == 1 or self.fixed else max(1, self.machines.cores // processes)


def fit_on_a_gpu(memory: float, peaks: Sequence[float]) -> int:
    """How many cells can share a GPU, each with an equal part of its memory.

    Args:
        memory: of the GPU, GiB.
        peaks: of tensors, of the cells that were measured, GiB; none: it is not known, so one.
    """
    if not peaks:
        return 1
    return max(1, min(MOST_A_GPU, int(memory / (SPARE * max(peaks) + CONTEXT_GIB))))


def keep_to_a_part(number: int) -> None:
    """Limit this process to its part of the GPU that so many share; the CUDA contexts lie beside their tensors."""
    import torch

    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(max(0.0, 1 / number - CONTEXT_GIB / memory))


def wait_gently() -> None:
    """Have waiting threads of OpenMP and OpenBLAS give their core up soon, in processes that load them from now on.

    GNU's OpenMP, which torch's wheels for Linux bring, lets a thread that is done spin for milliseconds until the
    others are; where another process has their core, it spins on the time that they need. A thousand turns, some
    microseconds, are enough on free cores; no turn at all would make small networks take twice as long there.
    OpenBLAS, which numpy's and SciPy's wheels bring, waits for 2 ** 26 turns of the clock: a short cell with two
    threads took twice as long by that (`benchmarks/perf/scale.py`).
    """
    if not any(name in os.environ for name in SAID):
        os.environ["GOMP_SPINCOUNT"] = SPINS
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", TIMEOUT)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch, and what multiplies matrices for NumPy and SciPy, compute with so many threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with multiplying().limit(limits=number, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def multiplying() -> ThreadpoolController:
    """What multiplies matrices for NumPy and SciPy, both of which `emobench.runner.run` has loaded.

    It is found among hundreds of libraries, which takes 20 ms: cells have it from the fork server.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
