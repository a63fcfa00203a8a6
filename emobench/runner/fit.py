"""Training one cell: resumable at any moment, the same numbers whether or not it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from emobench.classifiers.classifier import EmotionClassifier, parameters_of
from emobench.data.datamodule import EmotionDataModule
from emobench.data.joint import Joint
from emobench.errors import EmobenchError, StoreError
from emobench.files import SCHEMA_VERSION, Attempt, published, read_json, replacing, write_json
from emobench.generators.generator import EmotionGenerator
from emobench.recipe import Execution, Recipe
from emobench.runner.build import build_model, judging_sha256, own_recipe, recipe_of
from emobench.runner.callbacks import (
    AtomicCheckpoints,
    Averaging,
    Fused,
    Guard,
    History,
    LastTwo,
    Patience,
    Progress,
    Reproducible,
    Statistics,
    Stopwatch,
    best_epoch,
    newest_whole,
    within_epochs,
)
from emobench.runner.flops import training_flops
from emobench.runner.machine import hardware, peak_memory_gb, record_of, versions
from emobench.runner.record import Fit, FitCost, Record, Validation, Weights
from emobench.runner.reuse import made_with
from emobench.runner.store import JUDGE, Store, sha256_of
from emobench.suite.cell import Cell
from emobench.suite.keys import processes

MADE_WITH = "made_with.json"  # beside checkpoints: SHA-256 of the networks that the fit was handed


def fit(
    cell: Cell,
    store: Store,
    data: EmotionDataModule | Joint,
    *,
    workers: int = 0,
    redo: bool = False,
    logger: Logger | None = None,
    execution: Execution = Execution(),  # noqa: B008
) -> bool:
    """Train the cell's model, from its newest whole checkpoint if there is one, and keep its best epoch's weights.

    Returns:
        Whether the network in the store is the one that was trained here: not that of another process, which was first.
    """
    folder = store.fit_folder(cell.fit_key)
    checkpoints = folder / "checkpoints"
    networks = made_with(store, cell, own=False)
    if redo or not _made_with(folder, networks):
        shutil.rmtree(checkpoints, ignore_errors=True)
    if networks:
        write_json(folder / MADE_WITH, {"schema_version": SCHEMA_VERSION, "made_with": networks})
    before = published(folder)
    recipe = recipe_of(cell)
    pl.seed_everything(cell.seed, verbose=False)
    data.feed(recipe=recipe, seed=cell.seed, workers=workers, permuted=cell.fit["permuted"])
    model = build_model(cell, store)
    model.micro_batches = cell.trainer.get("accumulate_grad_batches", 1)
    if isinstance(model, EmotionClassifier) and isinstance(data, EmotionDataModule) and recipe.class_weights:
        model.class_weights.copy_(torch.from_numpy(data.class_weights()))
    best = None if recipe.monitor is None else best_epoch(checkpoints, recipe.monitor)
    stopwatch, history = Stopwatch(), History(folder / "history.csv")
    callbacks: list[pl.Callback] = [
        Reproducible(cell.seed),
        Statistics(model.micro_batches if model.automatic_optimization else 1),
        Guard(),
        stopwatch,
        Progress(folder / "progress.json"),
    ]
    if recipe.patience is not None and best is not None and best.monitor is not None:
        callbacks.append(Patience(best.monitor, mode=best.mode, patience=recipe.patience, check_finite=True))
    if recipe.ema is not None:
        callbacks.append(Averaging(recipe.ema))
    callbacks += [history, *([] if best is None else [best]), within_epochs(checkpoints), LastTwo(checkpoints)]
    if logger is not None:
        callbacks.append(LearningRateMonitor("epoch"))
    if execution.fused:
        callbacks.append(Fused())
    prepare(model, recipe, execution)
    trainer = _trainer(cell, recipe, callbacks, folder, logger, model)
    with attention(trainer.strategy.root_device.type, str(trainer.precision)):
        trainer.fit(model, datamodule=data, ckpt_path=newest_whole(checkpoints), weights_only=True)
    if not trainer.is_global_zero:
        return True
    if not history.rows:
        raise EmobenchError("no epoch was finished: the budget is smaller than one epoch. Raise `epochs` or `steps`")
    validation = None
    if best is None:
        state = model.state_dict()
    else:
        state = _weights_of(Path(best.best_model_path))
        chosen = (min if best.mode == "min" else max)(history.rows, key=lambda row: row[f"val_{recipe.monitor}"])
        scores = {name: chosen[f"val_{name}"] for name in ("macro_f1", "accuracy", "loss")}
        validation = Validation(**scores, epoch=chosen["epoch"])
    stopped_early = recipe.patience is not None and recipe.epochs is not None and len(history.rows) < recipe.epochs
    cost = FitCost(
        params=parameters_of(model),
        fit_seconds=stopwatch.seconds,
        fit_faces_per_s=stopwatch.faces / stopwatch.seconds,
        peak_memory_gb=peak_memory_gb(trainer.strategy.root_device.type),
        steps=trainer.global_step // _turns(model),
        epochs=len(history.rows),
        recipe_share=1.0 if stopped_early else stopwatch.seen / _recipe_faces(cell, data, model),
        precision=str(trainer.precision),
        recipe=None if cell.small is None else cell.model,
    )
    kept = {name: value.cpu().clone() for name, value in state.items()}  # before counting moves running means
    cost = cost.model_copy(update={"flops": training_flops(model), **asdict(execution)})
    with Attempt.at(folder, before) as attempt:
        weights = attempt.folder / store.weights(cell.fit_key).name
        _save_weights(kept, weights)
        judge = judging_sha256(weights) if isinstance(model, EmotionClassifier) else None
        made = Fit(
            cost=cost,
            validation=validation,
            versions=versions(),
            hardware=hardware(trainer.strategy.root_device.type),
            weights=Weights(sha256=sha256_of(weights), judge=judge),
        )
        record_of(cell, "done", fit=made, made_with=networks).write(attempt.folder / "fit.json")
        first = attempt.publish("fit.json")
        if not first:
            print("another process has finished this fit meanwhile: its network is the one that counts")
    if first:
        (folder / JUDGE).unlink(missing_ok=True)  # of the weights that these replace
    shutil.rmtree(checkpoints, ignore_errors=True)  # a finished cell keeps its weights only
    (folder / MADE_WITH).unlink(missing_ok=True)
    return first


def prepare(model: Any, recipe: Recipe, execution: Execution) -> None:
    """Have a model compute as its recipe and the machine's plan say."""
    if execution.channels_last:
        model.to(memory_format=torch.channels_last)
    if recipe.compile or execution.compile:
        for network in model.compilable():
            network.compile(mode="reduce-overhead" if execution.cuda_graphs else None)


@contextmanager
def attention(device: str, precision: str) -> Iterator[None]:
    """Have training in bf16 on a CPU compute attention plainly, as two matrix products and a softmax.

    torch's fused one takes eight times as long there, for its gradient, and its own plain one three times, for what it
    does against rows that are masked throughout (torch 2.15; `benchmarks/perf/run.py --only attention`). In float32,
    and on a GPU, the fused one is faster.

    Args:
        device: its type, "cpu" or "cuda".
        precision: as Lightning calls it.
    """
    if device != "cpu" or not precision.startswith("bf16"):
        yield
        return
    own = F.scaled_dot_product_attention

    def plain(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if attn_mask is not None or dropout_p or is_causal or enable_gqa:
            return own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        scaled = query * (query.shape[-1] ** -0.5 if scale is None else scale)
        return (scaled @ key.transpose(-2, -1)).softmax(-1) @ value

    F.scaled_dot_product_attention = plain  # by which torch's own layers, timm, transformers and diffusers call it
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


def together(fits: Sequence[Record]) -> Fit:
    """How a cell came to be that trains nothing: at no cost, or at that of the fits of a cross-validation.

    Their costs are added, and their validation scores averaged; the share of the recipe is the least of theirs.
    """
    known = [record.fit for record in fits if record.fit is not None]
    costs = [each.cost for each in known if each.cost is not None]
    scores = [each.validation for each in known if each.validation is not None]
    cost = validation = None
    if costs:
        seconds = sum(each.fit_seconds for each in costs)
        peaks = [each.peak_memory_gb for each in costs if each.peak_memory_gb is not None]
        cost = costs[0].model_copy(
            update={
                "fit_seconds": seconds,
                "fit_faces_per_s": sum(each.fit_faces_per_s * each.fit_seconds for each in costs) / seconds,
                "peak_memory_gb": max(peaks, default=None),
                "steps": sum(each.steps for each in costs),
                "epochs": max(each.epochs for each in costs),
                "recipe_share": min(each.recipe_share for each in costs),
            }
        )
    if scores and len(scores) == len(fits):
        validation = Validation(
            macro_f1=fmean(each.macro_f1 for each in scores),
            accuracy=fmean(each.accuracy for each in scores),
            loss=fmean(each.loss for each in scores),
            epoch=round(fmean(each.epoch for each in scores)),
        )
    return Fit(cost=cost, validation=validation, versions=versions(), hardware=hardware())


def _weights_of(best: Path) -> dict[str, torch.Tensor]:
    """The weights of the best epoch.

    Raises:
        EmobenchError: a disk damaged them, so that the fit must begin anew; its checkpoints are gone then.
    """
    try:
        state: dict[str, torch.Tensor] = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # whatever torch says of half a file
        shutil.rmtree(best.parent, ignore_errors=True)
        found = f"{best.name}, the weights of the best epoch, cannot be read ({type(error).__name__})"
        raise EmobenchError(f"{found}. Run again: the fit begins anew") from error
    return state


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
    cell: Cell, recipe: Recipe, callbacks: list[pl.Callback], folder: Path, logger: Logger | None, model: Any
) -> pl.Trainer:
    """Lightning's trainer with the suite's options."""
    options = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 50, **cell.trainer}
    if processes(cell.trainer) != 1:
        # A step of one network leaves the others; `Statistics` sees to the buffers.
        unused = isinstance(model, EmotionGenerator) or str(options.get("strategy", "")).endswith("_true")
        options["strategy"] = DDPStrategy(find_unused_parameters=unused, broadcast_buffers=False)
    if not model.automatic_optimization:  # Lightning's own loop does these; here the model does
        options.pop("accumulate_grad_batches", None)
        clip, algorithm = options.pop("gradient_clip_val", None), options.pop("gradient_clip_algorithm", None)
        model.clip = (clip, algorithm) if clip else None
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


def _save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    with replacing(path) as temporary:
        save_file({name: value.contiguous() for name, value in state.items()}, temporary)


def _turns(model: Any) -> int:
    """Steps that Lightning counts, of all optimisers, for one step of the network that is trained."""
    return model.batches_a_step + 1 if isinstance(model, EmotionGenerator) and not model.automatic_optimization else 1


def _recipe_faces(cell: Cell, data: EmotionDataModule | Joint, model: Any) -> float:
    """Faces that the optimiser of the trained network (of a GAN: its generator) sees by the row's own recipe.

    On this dataset and one process. That is the class's, or the one for small faces where the row takes that.
    """
    recipe = own_recipe(cell)
    batches = data.steps_per_epoch(recipe)
    steps = recipe.steps
    if steps is None:
        assert recipe.epochs is not None
        steps = recipe.epochs * max(1, batches // getattr(type(model), "batches_a_step", 1))
    return steps * data.faces_per_epoch(recipe) / batches
