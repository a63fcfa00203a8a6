"""Weights & Biases: a run for every cell, where the user asks for it."""

from __future__ import annotations

import netrc
import os
import shlex
import socket
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger

from emobench.runner.record import read_record
from emobench.suite.cell import Cell

_REACH_SECONDS = 3.0  # for the first answer of the W&B server; wandb itself would wait for a minute and a half


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
    return f"wandb sync {shlex.quote(str(results / 'cells'))}/*/wandb/offline-run-*"  # the stars are the shell's


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
