"""What costs nothing itself, so that what a cell costs beside its fit and its evaluation can be measured.

A classifier that trains nothing, data that are not read, and an evaluation that returns at once; all else of a cell is
as ever: its lock, its process, its two records on disk, and its place on the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emobench.classifiers.classifier import EmotionClassifier
from emobench.evaluation.tracks.track import Estimates, Key, MeasuredCell, Track
from emobench.files import Attempt, published
from emobench.runner import run
from emobench.runner.machine import record_of
from emobench.runner.record import Dataset, Evaluation, TrackValues, read_record
from emobench.runner.store import Store
from emobench.suite.cell import Cell


class AtOnce(EmotionClassifier):
    """Trains nothing."""

    name = "at_once"
    source = "nowhere"
    recipe = None

    def __init__(self, *, emotions: Sequence[str], size: int, number: int = 0) -> None:
        super().__init__(emotions=emotions, size=size)

    def logits(self, pixels: Tensor) -> Tensor:
        return torch.zeros(len(pixels), len(self.emotions))


class Nothing(Track):
    """Without a number."""

    name = "nothing"
    title = "Nothing"
    headline = Key("nothing")
    whole_samples = False

    @classmethod
    def measures(cls, model: type) -> bool:
        return getattr(model, "name", None) == AtOnce.name

    def read(self, cell: MeasuredCell) -> MeasuredCell:
        return cell

    def same(self, faces: MeasuredCell) -> object:
        return faces.emotions

    def estimates(self, cells: Sequence[MeasuredCell]) -> list[list[Estimates]]:
        return [[] for _ in cells]


class Unread:
    """Data that nobody asks for."""

    def prepare(self) -> None:
        pass


def build_data(cell: Cell, root: Path) -> Any:
    return Unread()


def evaluate(cell: Cell, store: Store, data: object) -> None:
    folder = store.eval_folder(cell.fit_key, cell.eval_key)
    evaluation = Evaluation(
        dataset=Dataset(name=cell.dataset, size=cell.size, fingerprint="unread", emotions=cell.emotions, counts={}),
        tracks={Nothing.name: TrackValues(values={})},
        params=0,
        flops=0,
        batch=1,
        raw={},
    )
    fit = read_record(store.fit_folder(cell.fit_key) / "fit.json").fit
    with Attempt.at(folder, published(folder)) as attempt:
        record_of(cell, "done", fit=fit, evaluation=evaluation).write(attempt.folder / "result.json")
        attempt.publish("result.json")


run.build_data, run.evaluate = build_data, evaluate  # type: ignore[assignment]
