"""How many faces a network is given at a time: a fixed number, or on a GPU as many as its memory has room for."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def batches(number: int, first: int, most: int, device: torch.device, *, grows: bool) -> Iterator[slice]:
    """The places of `number` faces in turn, `first` of them at a time.

    Args:
        most: faces of a batch.
        grows: on a GPU, a batch is twice as large as the one before where memory has room for that. What has been
            computed of the one before is asked for then, so that it has to be done.
    """
    start, size = 0, first
    while start < number:
        yield slice(start, start + size)
        start += size
        if grows and device.type == "cuda" and 2 * size <= most and twice_fits(device):
            size *= 2


def twice_fits(device: torch.device) -> bool:
    """Whether a GPU has memory for twice what this process has used of it at most: in the part that is the process's
    own where cells share the GPU, and with half of what is free kept for others.
    """
    free, total = torch.cuda.mem_get_info(device)
    used = torch.cuda.max_memory_reserved(device)
    own = total * torch.cuda.get_per_process_memory_fraction(device)
    return used < free / 2 and 2 * used < own
