"""What every generator of faces shares: images in and out, noise by seed, losses by name and their logs.

A model is a file beside this one with one subclass: its blocks, wiring and defaults top to bottom, and the `recipe` it
is trained by. It has the tracks whose methods it defines:

- generation: `sample(emotions, seeds) -> images`
- editing: `edit(images, emotions, seeds) -> images`

`emotions` is float (N, K), rows that sum to 1: one-hot or a mixture; the all-zero row means unconditional. `seeds` is
int64 (N,): all noise of sample i comes from `seeds[i]`. Images are uint8 (N, 3, H, W). Whoever calls them may name
emotions and list seeds instead, see `emobench.generators.asking`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import NotFinite, SizeError
from emobench.generators.asking import understand
from emobench.generators.turns import Turn, take_turns
from emobench.model import EmotionModel


class EmotionGenerator(EmotionModel):
    """Emotions (and for editing a face) to faces.

    A subclass has the class attributes below, builds its networks in `__init__` after `super().__init__(...)`, and
    defines `loss_parts` (one optimiser, Lightning's own loop), and `turns` too where several optimisers take turns: it
    then sets `automatic_optimization = False`.

    Args:
        emotions: the K classes, in the order of the dataset's labels.
        size: side of the faces that the networks see and make, px; others are resized to it.
    """

    # Whether it can be trained on several datasets together: batches then bring `mask` (N, K) and `dataset` (N, n) as
    # `emobench.data.joint.Joint` says, and a class that takes `datasets` is told their names.
    joint: ClassVar[bool] = False
    batches_a_step: int = 1  # of training for one step of the generator; more where an opponent steps more often
    clip: tuple[float, str | None] | None = None  # of gradients, where optimisers take turns: value and algorithm

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        by_hand = cls.training_step is not EmotionGenerator.training_step
        cls.takes_turns = cls.turns is not EmotionGenerator.turns and not by_hand
        understand(cls)

    def __init__(self, *, emotions: Sequence[str], size: int) -> None:
        super().__init__(emotions=emotions, size=size)
        self._sums: dict[str, Tensor] = {}  # of the epoch's losses, by the names they are logged under
        self._counts: dict[str, int] = {}
        self._again = False  # whether another process counts this validation batch too
        self._waiting: list[Any] = []  # micro-batches of a step that is not complete, where optimisers take turns

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where the architecture cannot make faces of `size` px."""
        if size < 8:
            raise SizeError(f"{cls.name} cannot make faces of {size} px; it makes them from 8 px on")

    # Images and pixels

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float32 (N, 3, size, size) in [-1, 1]."""
        self.check_images(images)
        pixels = images.float() / 127.5 - 1
        if images.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        return pixels

    @staticmethod
    def images(pixels: Tensor) -> Tensor:
        """Floats (N, 3, H, W) in [-1, 1] -> uint8, rounded; what lies outside is cut off.

        Raises:
            NotFinite: a pixel is NaN or infinite, of which uint8 would make a black one.
        """
        broken = (~torch.isfinite(pixels).flatten(1).all(1)).nonzero().flatten()
        if len(broken):
            raise NotFinite(
                f"{len(broken)} of {len(pixels)} faces have pixels that are NaN or infinite", int(broken[0])
            )
        return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    # Fit

    def loss_parts(self, pixels: Tensor, emotions: Tensor, *, training: bool) -> Mapping[str, Tensor]:
        """The terms of the loss by name, weighted; their sum is what is minimised.

        Args:
            pixels: (N, 3, size, size) in [-1, 1].
            emotions: (N, K).
            training: False in validation, where noise must be the same each time.
        """
        raise NotImplementedError

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor | dict[str, Tensor]:
        """The loss of a batch."""
        if not self.automatic_optimization:
            return take_turns(self, self._waiting, batch, batch_idx)
        parts = self.loss_parts(self.pixels(batch["image"]), batch["emotions"], training=True)
        self.note("train", parts)
        return torch.stack(list(parts.values())).sum()

    def turns(self, batch: Mapping[str, Tensor], step: int) -> Iterator[Turn]:
        """What a micro-batch wants of each optimiser in a step: the next one is asked for when that has been done.

        The gradients of all micro-batches, and of all processes, are averaged, and the optimiser steps once.

        Args:
            step: of the epoch, from 0.
        """
        raise NotImplementedError

    def end_of_step(self, step: int) -> None:
        """Called when all turns of a step have been taken; here there is nothing left to do."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Clip gradients where optimisers take turns: Lightning does so only in its own loop."""
        if self.clip is not None:
            value, algorithm = self.clip
            self.clip_gradients(optimizer, gradient_clip_val=value, gradient_clip_algorithm=algorithm)

    def on_validation_batch_start(self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take note of a batch that another process has too, so that all have some."""
        self._again = "again" in batch

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """The same terms on validation faces: for the curves only, since nothing is selected by them."""
        self.note("val", self.loss_parts(self.pixels(batch["image"]), batch["emotions"], training=False))

    def note(self, stage: str, parts: Mapping[str, Tensor]) -> None:
        """Keep the terms of a batch for the epoch's means: a log a step costs as much as a small network."""
        terms = {**parts, "loss": torch.stack([each.detach() for each in parts.values()]).sum()}
        for name, value in terms.items():
            key, nothing = f"{stage}_{name}", torch.zeros((), device=value.device)
            again = stage == "val" and self._again
            self._sums[key] = self._sums.get(key, nothing) + (nothing if again else value.detach())
            self._counts[key] = self._counts.get(key, 0) + (0 if again else 1)

    def _log(self, stage: str) -> None:
        """The mean over the batches of all processes."""
        distributed = self.trainer.world_size > 1
        for key in [key for key in self._sums if key.startswith(f"{stage}_")]:
            total, count = self._sums.pop(key), self._counts.pop(key)
            both: Any = torch.stack([total, total.new_tensor(count)])
            if distributed:
                both = self.trainer.strategy.reduce(both, reduce_op="sum")
            self.log(key, both[0] / both[1], sync_dist=distributed)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch's terms."""
        self._log("train")

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted validation left."""
        for key in [key for key in self._sums if key.startswith("val_")]:
            del self._sums[key], self._counts[key]

    def on_validation_epoch_end(self) -> None:
        """Log the means of the validation's terms."""
        self._log("val")


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within the block a network gets no gradients: the opponent of the one that takes a step."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
