"""Training one cell: resumable at any moment, the same numbers whether or not it was interrupted."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import (
    Checkpoint,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.loggers import WandbLogger
from safetensors.torch import save_file

from emobench.classifiers.classifier import EmotionClassifier, parameters_of
from emobench.data.datamodule import EmotionDataModule
from emobench.data.joint import Joint
from emobench.errors import Diverged, EmobenchError, StoreError
from emobench.files import SCHEMA_VERSION, read_json, replacing, write_json
from emobench.generators.generator import EmotionGenerator
from emobench.recipe import Recipe
from emobench.runner.build import build_model, judging_sha256, model_class, recipe_of
from emobench.runner.logging import History, Progress
from emobench.runner.machine import hardware, record_of, versions
from emobench.runner.record import Fit, FitCost, Validation, Weights
from emobench.runner.reuse import made_with
from emobench.runner.store import JUDGE, Store, sha256_of
from emobench.suite.cell import Cell

CHECKPOINT_MINUTES = 10  # within an epoch that takes longer than this
MADE_WITH = "made_with.json"  # beside checkpoints: SHA-256 of the networks that the fit was handed


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
    """All randomness of a step follows from (seed, epoch, step, rank): a resumed fit repeats an uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        entropy = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


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
        if (batch_idx + 1) % getattr(pl_module, "batches_a_step", 1) == 0:
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


def by_step(checkpoints: Iterable[Path]) -> list[Path]:
    """Checkpoints, the newest first."""
    return sorted(checkpoints, key=lambda path: int(path.stem.rpartition("=")[2].partition("-")[0]), reverse=True)


def fit(
    cell: Cell,
    store: Store,
    data: EmotionDataModule | Joint,
    *,
    workers: int = 0,
    redo: bool = False,
    logger: WandbLogger | None = None,
) -> None:
    """Train the cell's model, from its newest whole checkpoint if there is one, and keep its best epoch's weights."""
    folder = store.fit_folder(cell.fit_key)
    checkpoints = folder / "checkpoints"
    networks = made_with(store, cell, own=False)
    if redo or not _made_with(folder, networks):
        shutil.rmtree(checkpoints, ignore_errors=True)
    if networks:
        write_json(folder / MADE_WITH, {"schema_version": SCHEMA_VERSION, "made_with": networks})
    recipe = recipe_of(cell)
    pl.seed_everything(cell.seed, verbose=False)
    data.feed(recipe=recipe, seed=cell.seed, workers=workers, permuted=cell.fit["permuted"])
    model = build_model(cell, store)
    if isinstance(model, EmotionClassifier) and isinstance(data, EmotionDataModule) and recipe.class_weights:
        model.class_weights.copy_(torch.from_numpy(data.class_weights()))
    best = None if recipe.monitor is None else _best(checkpoints, recipe.monitor)
    stopwatch, history = Stopwatch(), History(folder / "history.csv")
    callbacks: list[pl.Callback] = [Reproducible(cell.seed), Guard(), stopwatch, Progress(folder / "progress.json")]
    if recipe.patience is not None and best is not None and best.monitor is not None:
        callbacks.append(Patience(best.monitor, mode=best.mode, patience=recipe.patience, check_finite=True))
    if recipe.ema is not None:
        callbacks.append(Averaging(recipe.ema))
    callbacks += [history, *([] if best is None else [best]), _within_epochs(checkpoints), LastTwo(checkpoints)]
    if logger is not None:
        callbacks.append(LearningRateMonitor("epoch"))
    if recipe.compile:
        for network in model.compilable():
            network.compile()
    trainer = _trainer(cell, recipe, callbacks, folder, logger, model)
    trainer.fit(model, datamodule=data, ckpt_path=_newest_whole(checkpoints), weights_only=True)
    if not trainer.is_global_zero:
        return
    if not history.rows:
        raise EmobenchError("no epoch was finished: the budget is smaller than one epoch. Raise `epochs` or `steps`")
    validation = None
    if best is None:
        state = model.state_dict()
    else:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        chosen = (min if best.mode == "min" else max)(history.rows, key=lambda row: row[f"val_{recipe.monitor}"])
        scores = {name: chosen[f"val_{name}"] for name in ("macro_f1", "accuracy", "loss")}
        validation = Validation(**scores, epoch=chosen["epoch"])
    weights = store.weights(cell.fit_key)
    (folder / JUDGE).unlink(missing_ok=True)  # of the weights that these replace
    _save_weights(state, weights)
    stopped_early = recipe.patience is not None and recipe.epochs is not None and len(history.rows) < recipe.epochs
    cost = FitCost(
        params=parameters_of(model),
        fit_seconds=stopwatch.seconds,
        fit_faces_per_s=stopwatch.faces / stopwatch.seconds,
        peak_memory_gb=_peak_memory_gb(),
        steps=trainer.global_step // _turns(model),
        epochs=len(history.rows),
        recipe_share=1.0 if stopped_early else stopwatch.seen / _recipe_faces(cell, data, model),
        precision=str(trainer.precision),
    )
    judge = judging_sha256(weights) if isinstance(model, EmotionClassifier) else None
    made = Fit(
        cost=cost,
        validation=validation,
        versions=versions(),
        hardware=hardware(),
        weights=Weights(sha256=sha256_of(weights), judge=judge),
    )
    record_of(cell, "done", fit=made, made_with=networks).write(folder / "fit.json")
    shutil.rmtree(checkpoints, ignore_errors=True)  # a finished cell keeps its weights only
    (folder / MADE_WITH).unlink(missing_ok=True)


def _made_with(folder: Path, networks: dict[str, str]) -> bool:
    """Whether the checkpoints come of a fit that was handed these very networks."""
    try:
        known = read_json(folder / MADE_WITH)["made_with"]
    except (FileNotFoundError, StoreError):
        return True  # there are none, or this fit needs no other network
    if known != networks:
        print("the networks that this fit needs have other weights now; its checkpoints are not gone on from")
    return bool(known == networks)


def _trainer(
    cell: Cell, recipe: Recipe, callbacks: list[pl.Callback], folder: Path, logger: WandbLogger | None, model: Any
) -> pl.Trainer:
    """Lightning's trainer with the suite's options."""
    options = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 50, **cell.trainer}
    if not model.automatic_optimization and options.get("devices", 1) != 1:
        options.setdefault("strategy", "ddp_find_unused_parameters_true")  # a step of one network leaves the others
    return pl.Trainer(
        **options,
        max_epochs=-1 if recipe.epochs is None else recipe.epochs,
        max_steps=-1 if recipe.steps is None else recipe.steps * _turns(model),
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        logger=logger or False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _best(checkpoints: Path, monitor: str) -> ModelCheckpoint:
    """Keeps the weights of the epoch that is best on validation."""
    return ModelCheckpoint(
        checkpoints,
        "best-{epoch}",
        monitor=f"val_{monitor}",
        mode="min" if monitor == "loss" else "max",
        save_weights_only=True,
        save_on_train_epoch_end=True,
    )


def _within_epochs(checkpoints: Path) -> ModelCheckpoint:
    """The newest checkpoint within an epoch that takes long."""
    every = timedelta(minutes=CHECKPOINT_MINUTES)
    return ModelCheckpoint(checkpoints, "within-{step}", monitor="step", mode="max", train_time_interval=every)


def _newest_whole(checkpoints: Path) -> Path | None:
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


def _save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    with replacing(path) as temporary:
        save_file({name: value.contiguous() for name, value in state.items()}, temporary)


def _turns(model: Any) -> int:
    """Steps that Lightning counts, of all optimisers, for one step of the network that is trained."""
    return model.batches_a_step + 1 if isinstance(model, EmotionGenerator) and not model.automatic_optimization else 1


def _recipe_faces(cell: Cell, data: EmotionDataModule | Joint, model: Any) -> float:
    """Faces that the optimiser of the trained network (of a GAN: its generator) sees by the class's own recipe.

    On this dataset and one process.
    """
    recipe: Recipe = model_class(cell).recipe
    batches = data.steps_per_epoch(recipe)
    steps = recipe.steps
    if steps is None:
        assert recipe.epochs is not None
        steps = recipe.epochs * max(1, batches // getattr(type(model), "batches_a_step", 1))
    return steps * data.faces_per_epoch(recipe) / batches


def _peak_memory_gb() -> float:
    """Peak memory of this process in GiB: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
