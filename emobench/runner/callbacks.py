"""What Lightning calls while a cell is trained: checkpoints, the choice of the best epoch, seeds, costs, curves."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from abc import abstractmethod
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import Logger

from emobench.errors import Diverged
from emobench.files import replacing

CHECKPOINT_MINUTES = 10  # within an epoch that takes longer than this


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints appear whole under their names or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


class Reproducible(pl.Callback):
    """All randomness of a batch follows from (seed, epoch, its number): a resumed fit repeats an uninterrupted one.

    Its number is that among the batches of all processes, as `TrainBatches` counts them: the same faces have the same
    random numbers whichever process sees them.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        number = batch_idx * trainer.world_size + trainer.global_rank
        entropy = (self.seed, trainer.current_epoch, number, 0)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


class Statistics(pl.Callback):
    """Running statistics move once a step, with the mean of its micro-batches, those of all processes.

    DDP would take those of the first process, and one that accumulates would move them with each micro-batch.

    Args:
        together: micro-batches of this process that make a step, each of which Lightning takes by itself.
    """

    def __init__(self, together: int) -> None:
        self.together = together
        self.running: Any = None  # see `EmotionModel.running`

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.together == 1 and trainer.world_size == 1:
            return
        model: Any = pl_module
        if self.running is None:
            self.running = model.running()
        else:
            self.running.put(self.running.start)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.running is None:
            return
        self.running.count()
        if (batch_idx + 1) % self.together == 0 or trainer.is_last_batch:
            self.running.settle(trainer.world_size)
            self.running = None


class Fused(pl.Callback):
    """Optimisers make each step by one kernel for all weights; another rounding, and the same step."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.update(fused=True, foreach=False)


class Guard(pl.Callback):
    """Ends a fit whose loss is NaN or infinite, and one that a signal asks to stop."""

    EVERY = 100  # batches between two looks at the flag, each of which waits for the device

    def __init__(self) -> None:
        self.finite: torch.Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        finite = torch.isfinite(outputs["loss"].detach())
        self.finite = finite if self.finite is None else self.finite & finite
        if (batch_idx + 1) % self.EVERY == 0:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer)
        loss = trainer.callback_metrics.get("val_loss")
        if loss is not None and not torch.isfinite(loss):
            raise Diverged(f"validation loss {loss.item()} in epoch {trainer.current_epoch + 1}")

    def _look(self, trainer: pl.Trainer) -> None:
        if self.finite is not None and not self.finite.item():
            raise Diverged(
                f"the training loss became NaN or infinite in epoch {trainer.current_epoch + 1}. Lower lr, or clip "
                "gradients ([trainer] gradient_clip_val)"
            )


class Averaging(WeightAveraging):
    """An exponential moving average of the weights, which validation sees and which stays at the end.

    The decay rises with the steps, min(decay, (1 + n) / (10 + n)), so that a short fit does not end as a mean of its
    beginnings.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: list[Any], current: list[Any], n: Any) -> None:
            so_far = float(n)
            share = 1 - min(decay, (1 + so_far) / (10 + so_far))
            if torch.is_floating_point(averaged[0]):
                torch._foreach_lerp_(averaged, current, share)
            else:  # counters among the buffers
                for one, other in zip(averaged, current, strict=True):
                    one.copy_(other)

        super().__init__(multi_avg_fn=torch.no_grad()(average))


class Stopwatch(pl.Callback):
    """Seconds of training, validation aside, and its faces of all processes, over the sessions of a resumed fit."""

    def __init__(self) -> None:
        self.seconds, self.faces = 0.0, 0
        self.seen = 0  # faces of the batches in which the optimiser of the trained network had its turn

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "faces": self.faces, "seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.faces = state_dict["seconds"], state_dict["faces"]
        self.seen = state_dict.get("seen", self.faces)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        faces = len(batch["image"]) * trainer.world_size
        self.faces += faces
        step = batch_idx // getattr(pl_module, "micro_batches", 1)
        if (step + 1) % getattr(pl_module, "batches_a_step", 1) == 0:
            self.seen += faces

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._lap()  # where there is no validation; after one, hardly anything

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._lap()

    def _lap(self) -> None:
        now = time.perf_counter()
        self.seconds, self.started = self.seconds + now - self.started, now

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()


class Patience(EarlyStopping):
    """Early stopping that a fit resumed after its last epoch still honours."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class LastTwo(Checkpoint):
    """Checkpoints of the last two finished epochs.

    Saved before the first batch of the next epoch, where Lightning's loops can be left and entered again: at an epoch's
    end, where `ModelCheckpoint` saves, the epoch's learning rate has not yet moved, and a resumed fit never moves it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved = trainer.global_step  # nothing to save at the beginning, or where the fit was resumed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Lightning 2.6 takes the whole resumed epoch for a restart, and passes over its plateau schedule.
        trainer.fit_loop._restarting = False
        if batch_idx > 0 or self.saved == trainer.global_step:
            return
        self.saved = trainer.global_step
        trainer.save_checkpoint(self.folder / f"last-step={self.saved}.ckpt")
        if trainer.is_global_zero:
            for path in by_step(self.folder.glob("last-*.ckpt"))[2:]:
                path.unlink()


class History(Checkpoint):
    """`history.csv`: one line per finished epoch. A resumed fit goes on where its checkpoint stands.

    A `Checkpoint` only because Lightning calls those after the model has logged its epoch; it must stand before those
    that save, which keep its rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": rate, **metrics}
        self.rows = [*self.rows, row]
        if trainer.is_global_zero:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(dict.fromkeys(name for each in self.rows for name in each)))
            writer.writeheader()
            writer.writerows(self.rows)
            with replacing(self.path) as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8")


class Watcher(Logger):
    """A logger that is told more of a fit than Lightning tells it."""

    @abstractmethod
    def validated(self, model: Any, epoch: int, faces: torch.Tensor) -> None:
        """An epoch is validated; the model still has the weights that were, be they averages of those in training.

        Args:
            faces: the first of the validation split, uint8 (n, 3, S, S).
        """

    @abstractmethod
    def ended(self, epoch: int, seconds: float, faces: int) -> None:
        """An epoch has ended: training has taken so many seconds until now, for so many faces."""


class Progress(pl.Callback):
    """`progress.json`, at most once a second: how far the fit is, for whoever watches the sweep.

    A `Watcher` hears more from it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0.0
        self.faces: torch.Tensor | None = None

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0 and isinstance(trainer.logger, Watcher):
            self.faces = batch["image"]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.faces is not None and isinstance(trainer.logger, Watcher):
            trainer.logger.validated(pl_module, trainer.current_epoch, self.faces)
            self.faces = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(trainer.logger, Watcher):
            stopwatch = next(each for each in trainer.callbacks if isinstance(each, Stopwatch))  # type: ignore[attr-defined]
            trainer.logger.ended(trainer.current_epoch, stopwatch.seconds, stopwatch.faces)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self.written < 1 or not trainer.is_global_zero:
            return
        self.written = now
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            done = (trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches) / trainer.max_epochs
        else:
            done = trainer.global_step / max(1, trainer.max_steps)
        score = trainer.callback_metrics.get("val_macro_f1")
        content = {
            "epoch": trainer.current_epoch + 1,
            "epochs": trainer.max_epochs,
            "done": min(1.0, done),
            "val_macro_f1": None if score is None else score.item(),
        }
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")


def by_step(checkpoints: Iterable[Path]) -> list[Path]:
    """Checkpoints, the newest first."""
    return sorted(checkpoints, key=lambda path: int(path.stem.rpartition("=")[2].partition("-")[0]), reverse=True)


class InPlace(ModelCheckpoint):
    """Whose files lie in its folder, wherever that is by now.

    Lightning's forgets the best epoch where the results were moved while a fit was stopped: the best of the rest would
    pass for it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return os.path.join(str(self.dirpath), os.path.basename(path)) if path else path

        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        paths = {name: here(state_dict[name]) for name in names}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})


def best_epoch(checkpoints: Path, monitor: str) -> ModelCheckpoint:
    """Keeps the weights of the epoch that is best on validation."""
    return InPlace(
        checkpoints,
        "best-{epoch}",
        monitor=f"val_{monitor}",
        mode="min" if monitor == "loss" else "max",
        save_weights_only=True,
        save_on_train_epoch_end=True,
    )


class BetweenSteps(InPlace):
    """Saved where no gradients are waiting for further micro-batches: no checkpoint holds them."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % getattr(pl_module, "micro_batches", 1) == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def within_epochs(checkpoints: Path) -> ModelCheckpoint:
    """The newest checkpoint within an epoch that takes long."""
    every = timedelta(minutes=CHECKPOINT_MINUTES)
    return BetweenSteps(checkpoints, "within-{step}", monitor="step", mode="max", train_time_interval=every)


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint that can be read; those that cannot are named and passed over."""
    candidates = [path for pattern in ("last-*.ckpt", "within-*.ckpt") for path in checkpoints.glob(pattern)]
    for path in by_step(candidates):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            print(f"{path.name} cannot be read ({type(error).__name__}: {error}); going back to the one before it")
            path.rename(path.with_suffix(".unreadable"))
        else:
            print(f"going on from {path.name}")
            return path
    return None
