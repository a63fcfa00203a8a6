"""Comparing two ways of doing the same in one run, since machines are noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def paired(one: Callable[[], None], other: Callable[[], None], runs: int) -> tuple[list[float], list[float]]:
    """Seconds of two functions run in turn, after one uncounted run of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 1):
        for function, seconds in zip((one, other), times, strict=True):
            started = time.perf_counter()
            function()
            if run > 0:
                seconds.append(time.perf_counter() - started)
    return times


def ratio(one: list[float], other: list[float]) -> float:
    """The median of the first over the second, pair by pair."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
