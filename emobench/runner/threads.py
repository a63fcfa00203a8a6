"""How the threads of a cell wait for each other. Imports no torch: it must be said before torch is loaded."""

from __future__ import annotations

import os

SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by whoever wants something else
SPINS = "1000"


def wait_gently() -> None:
    """Have OpenMP's threads give their core up soon where they wait, in processes that load torch from now on.

    A network's work is shared out between threads hundreds of times a step. GNU's OpenMP, which torch's wheels for
    Linux bring, lets a thread that is done spin for milliseconds until the others are; where another process has their
    core, it spins on the time that they need. A thousand turns, some microseconds, are enough on free cores; no turn
    at all would make small networks take twice as long there.
    """
    if not any(name in os.environ for name in SAID):
        os.environ["GOMP_SPINCOUNT"] = SPINS
