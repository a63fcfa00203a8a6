"""What a running cell writes about itself: a line per epoch in `history.csv`, and its progress for the live table."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


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
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text(text.getvalue())
            os.replace(temporary, self.path)


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
        done = trainer.global_step / max(1, trainer.estimated_stepping_batches)
        score = trainer.callback_metrics.get("val_macro_f1")
        content = {
            "epoch": trainer.current_epoch + 1,
            "epochs": trainer.max_epochs,
            "done": min(1.0, done),
            "val_macro_f1": None if score is None else score.item(),
        }
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, self.path)
