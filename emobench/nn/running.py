"""Running statistics of a step that several micro-batches share, wherever each of them is computed.

A micro-batch moves running means (of batch norm, of a mapping's w, of path lengths) from where the step began, and the
mean of what all of them made stays. So it is the same whether one process accumulates the gradients of its
micro-batches or several processes have one each: a step moves them once, with the mean of the batches' statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Running:
    """The buffers of a network in one step of its optimiser.

    Modules with an attribute `of_all_processes` are left out: they count what all processes have seen themselves.
    """

    def __init__(self, network: nn.Module) -> None:
        own = [module for module in network.modules() if not getattr(module, "of_all_processes", False)]
        self.buffers = [buffer for module in own for buffer in module.buffers(recurse=False)]
        self.start = self.now()
        self.moved: list[Tensor] | None = None  # of the floating ones, a sum over the micro-batches so far
        self.counted = 0

    def now(self) -> list[Tensor]:
        """The buffers as they are."""
        return [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def put(self, values: list[Tensor]) -> None:
        """Let the buffers be these, such as where the step began."""
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def count(self) -> None:
        """Take note of what one more micro-batch has made of them."""
        moved = [
            # What stays where it is moves by nothing, be it infinite.
            (buffer - start).masked_fill(buffer == start, 0)
            for buffer, start in zip(self.buffers, self.start, strict=True)
            if buffer.is_floating_point()
        ]
        self.moved = moved if self.moved is None else [a + b for a, b in zip(self.moved, moved, strict=True)]
        self.counted += 1

    @torch.no_grad()
    def settle(self, processes: int = 1) -> None:
        """Let them be where the mean of the micro-batches moves them, those of `processes` processes together.

        Counters stay as the last micro-batch left them: a step is counted once.
        """
        if not self.moved:
            return
        mean = torch.cat([each.flatten() for each in self.moved]) / (self.counted * processes)
        if processes > 1:
            torch.distributed.all_reduce(mean)
        floating = [(b, s) for b, s in zip(self.buffers, self.start, strict=True) if b.is_floating_point()]
        for (buffer, start), move in zip(floating, mean.split([b.numel() for b, _ in floating]), strict=True):
            buffer.copy_(start + move.view_as(start))
