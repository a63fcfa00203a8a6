"""What a running cell writes about itself: a line per epoch in `history.csv`, its progress for the live table, and,
where the user asks for it, a run in Weights & Biases.
"""

from __future__ import annotations

import csv
import io
import json
import netrc
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import WandbLogger

from emobench.files import replacing
from emobench.runner.record import read_record
from emobench.suite.cell import Cell

_REACH_SECONDS = 3.0  # for the first answer of the W&B server; wandb itself would wait for a minute and a half


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

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
                temporary.write_text(text.getvalue())


class Progress(Callback):
    """`progress.json`, at most once a second: how far the fit is, for whoever watches the sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
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
            temporary.write_text(json.dumps(content))


def reachable_mode(mode: str) -> tuple[str, str | None]:
    """The mode in which W&B can log here, "online" or "offline", and why it is not the one asked for."""
    if mode == "offline":
        return mode, None
    import wandb

    server = urlsplit(wandb.Settings().base_url)
    host = server.hostname or ""
    if not (os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _in_netrc(host)):
        return "offline", "no W&B key is set (WANDB_API_KEY, or `wandb login`)"
    try:
        socket.create_connection((host, server.port or 443), _REACH_SECONDS).close()
    except OSError as error:
        return "offline", f"the W&B server cannot be reached ({error})"
    return mode, None


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def sync_command(results: Path) -> str:
    """What uploads all runs that were logged offline; files of one run, resumed or not, become one run there."""
    return f"wandb sync {results / 'cells' / '*' / 'wandb' / 'offline-run-*'}"


def wandb_logger(cell: Cell, folder: Path, options: dict[str, str]) -> WandbLogger:
    """A W&B run for a cell; a cell that goes on continues its own.

    Args:
        folder: of the cell; the run's files lie in `wandb/` in it.
        options: `mode` ("online" or "offline"), `project`, `group` (the suite), and perhaps `entity`.
    """
    import wandb

    # Nothing of the machine, the environment or the command line: it may hold what is nobody's business.
    settings = wandb.Settings(
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        quiet=True,
    )
    config = {name: value for name, value in cell.fit.items() if name != "code"}
    config |= {
        "row": cell.row,
        "model": cell.model,
        "dataset": cell.dataset,
        "size": cell.size,
        "emotions": cell.emotions,
    }
    return WandbLogger(
        name=cell.label[:128],  # the server's limit
        save_dir=folder,
        id=cell.fit_key,
        project=options["project"],
        entity=options.get("entity"),
        group=options["group"][:128],
        offline=options["mode"] == "offline",
        config=config,
        settings=settings,
    )


def log_result(logger: WandbLogger, cell: Cell, folder: Path) -> None:
    """The test metrics in the run's summary, and pictures: the confusion matrix, or what a generator made.

    Args:
        folder: of the evaluation: its `result.json` and raw files.
    """
    import pandas as pd
    import wandb
    from PIL import Image

    evaluation, run = read_record(folder / "result.json").evaluation, logger.experiment
    if evaluation is None:
        return
    for track, of in evaluation.tracks.items():
        prefix = "test" if track == "recognition" else track
        run.summary.update(
            {f"{prefix}_{name}": each.value for name, each in of.values.items() if each.value is not None}
        )
    pictures = {kind: file for kind, file in evaluation.raw.items() if file.endswith((".webp", ".png"))}
    if pictures:
        run.log({kind: wandb.Image(Image.open(folder / file)) for kind, file in pictures.items()})
    if "predictions" in evaluation.raw:
        read = pd.read_parquet(folder / evaluation.raw["predictions"], columns=["label", "prediction"])
        labels, predictions = read["label"].tolist(), read["prediction"].tolist()
        matrix = wandb.plot.confusion_matrix(
            y_true=labels, preds=predictions, class_names=list(cell.emotions), title=cell.label
        )
        run.log({"confusion matrix": matrix})
