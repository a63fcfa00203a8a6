"""TensorBoard: a folder of events for every cell, and one for the whole sweep, where the user asks for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emobench.errors import EmobenchError
from emobench.runner.tracking import Epoch, Leaderboard, Result, Tracker
from emobench.runner.wandb import configuration
from emobench.suite.cell import Cell

_SQUARE = 32  # px of a field of a confusion matrix
_LONGEST = 80  # characters of a cell's name in that of its folder


def check_installed() -> None:
    """Raise an EmobenchError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except ImportError as error:
        raise EmobenchError(
            f"--log tensorboard needs TensorBoard ({error}). Install it: pip install 'emobench[tensorboard]'"
        ) from None


def home(results: Path, suite: str) -> Path:
    """What `tensorboard --logdir` is to be told of a board."""
    return results / suite / "tensorboard"


def folder_of(results: Path, suite: str, cell: Cell) -> Path:
    """Where the events of a cell lie; TensorBoard calls runs by their folders."""
    name = re.sub(r"[^A-Za-z0-9.,=+@ -]", "_", cell.label)[:_LONGEST]
    return home(results, suite) / f"{name} {cell.fit_key[:8]}"


class Events(Tracker):
    """A cell's events, in the place of those that were there."""

    def __init__(self, folder: Path, cell: Cell) -> None:
        super().__init__()
        self.writer = _writer(folder)
        self.last = 0
        config = json.dumps(configuration(cell), indent=1, ensure_ascii=False)
        self.writer.add_text("configuration", f"```\n{config}\n```")

    def epoch(self, epoch: Epoch) -> None:
        for name, value in epoch.scalars.items():
            self.writer.add_scalar(name, value, epoch.number)
        if epoch.samples is not None:
            _add_picture(self.writer, "samples", epoch.samples, epoch.number)
        self.writer.flush()
        self.last = epoch.number

    def result(self, result: Result) -> None:
        for name, value in result.scalars.items():
            self.writer.add_scalar(name, value, self.last)
        for kind, path in result.pictures.items():
            _add_picture(self.writer, kind, path, self.last)
        if result.confusion is not None:
            picture = _squares(result.confusion)
            self.writer.add_image("confusion matrix", picture, self.last, dataformats="HWC")
            rows = [
                [emotion, *counts] for emotion, counts in zip(result.emotions, result.confusion.tolist(), strict=True)
            ]
            text = _table(["shown, read as", *result.emotions], rows)
            self.writer.add_text("confusion matrix", text, self.last)
        if result.cards:
            self.writer.add_text("judges", _table(*result.judges), self.last)

    def close(self, *, failed: bool) -> None:
        self.writer.close()


def summarise(results: Path, suite: str, boards: Sequence[Leaderboard]) -> None:
    """The leaderboards of a sweep with their pictures."""
    writer = _writer(home(results, suite) / "summary")
    for board in boards:
        writer.add_text(board.name, _table(board.header, board.rows))
        for row, path in zip(board.rows, board.pictures, strict=True):
            if path is not None:
                _add_picture(writer, f"{board.name}/{row[0]}", path, 0)
    writer.close()


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder))


def _add_picture(writer: Any, name: str, path: Path, epoch: int) -> None:
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    writer.add_image(name, picture, epoch, dataformats="HWC")


def _squares(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A confusion matrix as a picture: the darker, the more of an emotion's faces (row) are read so (column)."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    gray = np.round(255 * (1 - shares)).astype(np.uint8).repeat(_SQUARE, 0).repeat(_SQUARE, 1)
    return np.stack([gray, gray, np.maximum(gray, 96)], 2)


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, as TensorBoard shows texts."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
