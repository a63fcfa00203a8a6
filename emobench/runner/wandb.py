"""Weights & Biases: a run for every cell, and one for the whole sweep, where the user asks for it."""

from __future__ import annotations

import hashlib
import netrc
import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from emobench.runner.tracking import Epoch, Leaderboard, Result, Tracker, Tracking
from emobench.suite.cell import Cell

_REACH_SECONDS = 3.0  # for the first answer of the W&B server; wandb itself would wait for a minute and a half
_NAME, _TAG = 128, 64  # characters that the server takes
_DATA = "WANDB_DATA_DIR"


def reachable_mode(mode: str) -> tuple[str, str | None]:
    """The mode in which W&B can log here, "online" or "offline", and why it is not the one asked for."""
    if mode == "offline":
        return mode, None
    from wandb.sdk import wandb_setup

    server = urlsplit(wandb_setup.singleton().settings.base_url)  # as the environment and `wandb login --host` say
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


def sync_command(results: Path, board: str | None = None) -> str:
    """What uploads all runs that were logged offline: those of cells, and the summary of a board."""
    folders = [shlex.quote(str(results / "cells")) + "/*"]
    folders += [] if board is None else [shlex.quote(str(results / board))]
    return f"wandb sync {' '.join(f'{each}/wandb/offline-run-*' for each in folders)}"  # the stars are the shell's


def _started(tracking: Tracking, folder: Path, **more: Any) -> Any:
    """A run that takes the place of one of the same id, if there is any; its files lie in `wandb/` of a folder."""
    import wandb

    options = tracking.wandb or {}
    offline = options["mode"] == "offline"
    # Nothing of the machine, the environment or the command line: it may hold what is nobody's business.
    settings = wandb.Settings(
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=offline,  # which would be of the seconds in which the run is written
        x_save_requirements=False,
        silent=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        dir=folder,
        project=options["project"],
        entity=options.get("entity"),
        group=tracking.suite[:_NAME],
        mode="offline" if offline else "online",
        reinit="create_new",
        settings=settings,
        **more,
    )


@contextmanager
def _staging(run: Any) -> Iterator[None]:
    """Within the block what goes with tables and artifacts is kept with the run, and goes when that is replaced.

    Else wandb keeps it in the home directory until it is uploaded.
    """
    if _DATA in os.environ:  # where the user wants it
        yield
        return
    os.environ[_DATA] = str(run.settings.sync_dir)
    try:
        yield
    finally:
        del os.environ[_DATA]


def _ended(run: Any, folder: Path, *, failed: bool) -> None:
    """End a run; of those that were logged here under its id it is the only one from then on."""
    mine = Path(run.settings.sync_dir).name
    run.finish(exit_code=1 if failed else 0)
    for path in (folder / "wandb").glob("*run-*"):
        if path.is_dir() and not path.is_symlink() and path.name != mine:
            shutil.rmtree(path, ignore_errors=True)


def configuration(cell: Cell) -> dict[str, Any]:
    """All that a cell is made of, in plain values, but for its code."""
    config = {name: value for name, value in cell.fit.items() if name != "code"}
    return config | {
        "row": cell.row,
        "model": f"control:{cell.control}" if cell.control else cell.model,  # as boards call it
        "dataset": cell.dataset,
        "size": cell.size,
        "track": cell.track,
        "control": cell.control,
        "emotions": cell.emotions,
        "evaluation": {name: value for name, value in cell.evaluation.items() if name != "code"},
    }


class WandbRun(Tracker):
    """A cell's run in W&B.

    Args:
        folder: of the fit.
    """

    def __init__(self, tracking: Tracking, cell: Cell, folder: Path) -> None:
        super().__init__()
        self.cell, self.folder = cell, folder
        tags = [cell.model, cell.dataset, cell.track, f"seed {cell.seed}", *([cell.control] if cell.control else [])]
        self.run = _started(
            tracking,
            folder,
            id=cell.fit_key,
            name=cell.label[:_NAME],
            job_type=cell.track,
            tags=list(dict.fromkeys(each[:_TAG] for each in tags)),
            config=configuration(cell),
        )

    def epoch(self, epoch: Epoch) -> None:
        import wandb

        row: dict[str, Any] = {"epoch": epoch.number, **epoch.scalars}
        if epoch.samples is not None:
            row["samples"] = wandb.Image(str(epoch.samples), caption=f"epoch {epoch.number + 1}")
        self.run.log(row, step=epoch.number)

    def result(self, result: Result) -> None:
        import wandb

        self.run.summary.update(dict(result.scalars))
        shown: dict[str, Any] = {kind: wandb.Image(str(path)) for kind, path in result.pictures.items()}
        if result.confusion is not None:
            labels, predictions = result.confusion.nonzero()
            times = result.confusion[labels, predictions]
            shown["confusion matrix"] = wandb.plot.confusion_matrix(
                y_true=labels.repeat(times).tolist(),
                preds=predictions.repeat(times).tolist(),
                class_names=list(result.emotions),
                title=self.cell.label,
            )
        if result.cards:
            header, rows = result.judges
            shown["judges"] = wandb.Table(columns=header, data=rows)
        if shown:
            with _staging(self.run):
                self.run.log(shown)

    def close(self, *, failed: bool) -> None:
        _ended(self.run, self.folder, failed=failed)


def summarise(tracking: Tracking, folder: Path, boards: Sequence[Leaderboard], page: Path) -> str | None:
    """The run of a whole sweep: its leaderboards with pictures and links to the runs of cells, and the board's page.

    Args:
        folder: of the board.
        page: its index.html.

    Returns:
        Its address; None: it waits to be uploaded.
    """
    import wandb

    digest = hashlib.sha256(tracking.suite.encode()).hexdigest()[:16]
    run = _started(
        tracking,
        folder,
        id=f"summary-{digest}",
        name=f"{tracking.suite}: summary"[:_NAME],
        job_type="summary",
        tags=["summary"],
    )
    shown: dict[str, Any] = {}
    for board in boards:
        pictures = [None if path is None else wandb.Image(str(path)) for path in board.pictures]
        rows: list[Any] = [
            [*row, picture, "\n".join(_address(run, each) for each in runs)]
            for row, picture, runs in zip(board.rows, pictures, board.runs, strict=True)
        ]
        shown[board.name] = wandb.Table(columns=[*board.header, "picture", "runs"], data=rows)
    shown["page"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
    with _staging(run):
        artifact = wandb.Artifact(f"page-{digest}", type="page", description=f"the board {tracking.suite}")
        artifact.add_file(str(page))
        run.log_artifact(artifact)
        run.log(shown)
    address: str | None = None if run.offline else run.url
    _ended(run, folder, failed=False)
    return address


def _address(run: Any, fit_key: str) -> str:
    """Where the run of a cell is shown; offline, where nobody knows whose it will be, its id."""
    if not run.entity:
        return fit_key
    return f"{run.settings.app_url}/{quote(run.entity)}/{quote(run.project)}/runs/{fit_key}"
