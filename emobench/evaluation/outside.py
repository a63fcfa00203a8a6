"""What classifiers of somebody else's say of a dataset's faces, and whether their classes are named rightly."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from emobench.emotions import canonical, is_emotion
from emobench.errors import NotFinite
from emobench.evaluation.tracks.track import people
from emobench.metrics.label_order import Audit, audit

if TYPE_CHECKING:
    import pandas as pd

    from emobench.data.dataset import Dataset


@dataclass(frozen=True)
class Answers:
    """What a classifier says of N faces.

    Attributes:
        labels: its own classes, M.
        own: (N,) which of them each face was read as; −1: it said nothing of the face.
        probabilities: (N, K) of the dataset's emotions.
        predictions: (N,) the emotion that each face was read as; −1: none of the K.
        by_class: whether it says classes alone, so that probabilities are certainties.
        seconds: that it took; 0: nothing was run.
    """

    labels: tuple[str, ...]
    own: np.ndarray
    probabilities: np.ndarray
    predictions: np.ndarray
    by_class: bool
    seconds: float

    @property
    def emotions(self) -> tuple[str | None, ...]:
        """(M,) the emotion that each of its classes is."""
        return tuple(canonical(label) if is_emotion(label) else None for label in self.labels)


def answers(model: Any, data: Dataset, faces: pd.DataFrame) -> Answers:
    """What an outside classifier says of some rows of a dataset's index.

    A network sees the dataset's own pixels; a file of predictions is looked up.
    """
    if model.said is None:
        return _looked_up(model, data, faces)
    return _asked(model, data, faces)


def _asked(model: Any, data: Dataset, faces: pd.DataFrame) -> Answers:
    import torch

    shares, told, seconds = [], [], 0.0
    with torch.inference_mode():
        for part in _batches(data.source_faces(faces), model.hparams["batch"]):
            started = time.perf_counter()
            own = model.shares_of(part)
            told.append(model.told(own).softmax(1).cpu().numpy())
            shares.append(own.cpu().numpy())
            seconds += time.perf_counter() - started
    found, probabilities = np.concatenate(shares), np.concatenate(told)
    broken = np.flatnonzero(~(np.isfinite(found).all(1) & np.isfinite(probabilities).all(1)))
    if len(broken):
        raise NotFinite(f"the model's output for face {broken[0]} is not finite ({len(broken)} such faces)")
    return Answers(model.said.labels, found.argmax(1), probabilities, probabilities.argmax(1), False, seconds)


def _batches(faces: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while part := list(islice(faces, size)):
        yield part


def _looked_up(model: Any, data: Dataset, faces: pd.DataFrame) -> Answers:
    """Of a file's classes those that the dataset lacks are dropped; a face that is none of the rest is wrong."""
    found = model.answers(faces)
    emotions = [canonical(label) if is_emotion(label) else None for label in found.labels]
    place = np.array([data.emotions.index(each) if each in data.emotions else -1 for each in emotions] + [-1])
    predictions = place[found.own]
    probabilities = np.full((len(faces), len(data.emotions)), 1 / len(data.emotions))
    if found.shares is None:
        probabilities[predictions >= 0] = np.eye(len(data.emotions))[predictions[predictions >= 0]]
        return Answers(found.labels, found.own, probabilities, predictions, True, 0.0)
    kept = np.zeros((len(faces), len(data.emotions)))
    for column, emotion in enumerate(place[:-1]):
        if emotion >= 0:
            kept[:, emotion] = found.shares[:, column]
    total = kept.sum(1, keepdims=True)
    known = (total[:, 0] > 0) & (found.own >= 0)
    probabilities[known] = kept[known] / total[known]
    predictions = np.where(known, probabilities.argmax(1), -1)
    return Answers(found.labels, found.own, probabilities, predictions, False, 0.0)


def label_order(found: Answers, data: Dataset, faces: pd.DataFrame) -> Audit:
    """Whether its classes are named in the right order, by some rows of a dataset's index; people are kept together."""
    said = found.own >= 0
    emotions: Sequence[str] = data.emotions
    given = np.array([emotions.index(each) if each in emotions else -1 for each in found.emotions], np.int64)
    labels = faces["label"].to_numpy(np.int64)[said]
    return audit(labels, found.own[said], given, len(emotions), people(faces["subject"][said]))


def renamed(order: Audit, labels: Sequence[str], emotions: Sequence[str]) -> dict[str, str | None]:
    """Which of a model's classes (M,) an audit does not believe, and the emotion (K,) that each rather tells."""
    return {labels[m]: None if k is None else emotions[k] for m, k in order.renamed.items()}
