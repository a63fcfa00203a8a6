"""Steps in which several optimisers take turns, each with the gradients of all micro-batches of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from emobench.generators.generator import EmotionGenerator
    from emobench.nn.running import Running


class Turn(NamedTuple):
    """One optimiser's turn in a step: what a micro-batch wants it to minimise."""

    optimizer: int  # its place in `configure_optimizers`
    parts: Mapping[str, Tensor]  # terms of the loss by name, weighted
    prefix: str = ""  # of their names in the logs


class _Micro:
    """A micro-batch on its way through a step, with the random numbers and the running statistics that it would have in
    a process of its own."""

    def __init__(self, batch: Mapping[str, Tensor], device: torch.device) -> None:
        self.batch, self.device = batch, device
        self.turns: Iterator[Turn] | None = None
        self.buffers: list[Tensor] = []
        self.leave()

    def leave(self) -> None:
        """Take note of how torch's generators stand."""
        self.on_cpu = torch.get_rng_state()
        self.on_gpu = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    def enter(self) -> None:
        """Let them stand so."""
        torch.set_rng_state(self.on_cpu)
        if self.on_gpu is not None:
            torch.cuda.set_rng_state(self.on_gpu, self.device)


def take_turns(
    model: EmotionGenerator, waiting: list[_Micro], batch: Mapping[str, Tensor], batch_idx: int
) -> dict[str, Tensor]:
    """A training step of a model with `turns`; of several micro-batches a step, when the last of them is here.

    Args:
        waiting: the micro-batches of the step so far; this one is kept there, or all are taken out.

    Returns:
        What was minimised last, for whoever watches for NaN.
    """
    count = model.micro_batches
    step = batch_idx // count
    if count == 1:
        turns = model.turns(batch, step)
        losses = [loss for turn in turns if (loss := _optimise(model, [turn], 1)) is not None]
    else:
        waiting.append(_Micro(batch, model.device))
        if (batch_idx + 1) % count and not model.trainer.is_last_batch:
            return {"loss": torch.zeros((), device=model.device)}
        losses = _all_turns(model, waiting, step)
        waiting.clear()
    model.end_of_step(step)
    return {"loss": losses[-1]}


def _all_turns(model: EmotionGenerator, micros: Sequence[_Micro], step: int) -> list[Tensor]:
    """The turns of several micro-batches, side by side; what each turn minimised."""
    running, losses = model.running(), list[Tensor]()
    for micro in micros:
        micro.turns, micro.buffers = model.turns(micro.batch, step), running.start
    while (loss := _optimise(model, _next(micros, running), model.micro_batches)) is not None:
        losses.append(loss)
    for micro in micros:
        running.put(micro.buffers)
        running.count()
    running.settle()
    return losses


def _next(micros: Sequence[_Micro], running: Running) -> Iterator[Turn]:
    """The next turn of each micro-batch, computed when it is asked for."""
    for micro in micros:
        assert micro.turns is not None
        micro.enter()
        running.put(micro.buffers)
        turn = next(micro.turns, None)
        if turn is not None:
            yield turn
        micro.leave()
        micro.buffers = running.now()


def _optimise(model: EmotionGenerator, turns: Sequence[Turn] | Iterator[Turn], count: int) -> Tensor | None:
    """Step an optimiser once with the mean gradient of some micro-batches; the last one's loss, None where none is."""
    loss = optimizer = None
    for turn in turns:
        if optimizer is None:
            optimizer = model.optimizers()[turn.optimizer]  # type: ignore[index]  # a list of several
            optimizer.zero_grad()
        loss = torch.stack(list(turn.parts.values())).sum()
        model.manual_backward(loss if count == 1 else loss / count)
        model.note("train", {f"{turn.prefix}{name}": value for name, value in turn.parts.items()})
    if optimizer is None or loss is None:
        return None
    optimizer.step()
    return loss.detach()
