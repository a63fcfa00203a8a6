"""Editing: a face and an emotion in, the same person with that emotion out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from emobench.evaluation.given import given_edits, is_given, read
from emobench.evaluation.protocol import CHOICE_SEED, FIRST_SEED
from emobench.evaluation.tracks.generation import (
    CONTROL_COLUMNS,
    CONTROL_RANKING,
    FIDELITY_RANKING,
    SAMPLE_COLUMNS,
)
from emobench.evaluation.tracks.panel import JudgedFaces, PanelTrack, checked, control_of, known_faces, means_of
from emobench.evaluation.tracks.track import (
    Column,
    ControlRow,
    Estimates,
    Key,
    Made,
    Metric,
)
from emobench.evaluation.values import Value

if TYPE_CHECKING:
    from emobench.evaluation.task import Task

Scores = NDArray[np.float64]


def identity(made: Made) -> Scores | None:
    """Cosine of face-recognition embeddings of result and source, (N,)."""
    from emobench.metrics.identity import cosine

    embedding = made.networks.get("identity")
    return None if embedding is None else cosine(embedding(made.images), embedding(made.sources))


def ssim(made: Made) -> Scores:
    """Structural similarity of result and source, (N,)."""
    from emobench.metrics.identity import ssim

    assert made.sources is not None
    return ssim(made.images, made.sources)


def lpips(made: Made) -> Scores | None:
    """LPIPS between result and source, (N,)."""
    network = made.networks.get("lpips")
    return None if network is None else np.asarray(network(made.images, made.sources))


def truth_psnr(made: Made) -> Scores | None:
    """PSNR, dB, against the same drawn person with the emotion asked for, (N,)."""
    from emobench.metrics.identity import psnr

    truth = _truth(made)
    return None if truth is None else psnr(made.images, truth)


def truth_ssim(made: Made) -> Scores | None:
    """SSIM to the same drawn person with the emotion asked for, (N,)."""
    from emobench.metrics.identity import ssim

    truth = _truth(made)
    return None if truth is None else ssim(made.images, truth)


def _truth(made: Made) -> np.ndarray | None:
    """The same photographs with the emotions asked for, uint8 (N, 3, S, S); None: nobody knows them."""
    if not hasattr(made.data, "counterpart"):
        return None
    found: np.ndarray = made.data.counterpart(made.data.faces.iloc[made.rows], [made.emotions[k] for k in made.asked])
    return found


_NO_EMBEDDING = "no embedding: [evaluation] identity names an ONNX file"
_NO_LPIPS = "no weights: [evaluation] lpips names torchvision's VGG16"
_NO_TRUTH = "the truth is known of drawn people only"
METRICS = (
    Metric("identity", "editing", identity, "identity ↑", -1, 1, _NO_EMBEDDING, of_others=True),
    Metric("ssim", "editing", ssim, "SSIM ↑", -1, 1, of_others=True),
    Metric("lpips", "editing", lpips, "LPIPS ↓", 0, None, _NO_LPIPS, of_others=True),
    Metric("truth_psnr", "editing", truth_psnr, "truth: PSNR, dB ↑", missing=_NO_TRUTH),
    Metric("truth_ssim", "editing", truth_ssim, "truth: SSIM ↑", -1, 1, _NO_TRUTH),
)


def measure(task: Task) -> dict[str, Value]:
    """Edits a fixed list of test faces, the same number of each emotion, each towards every other emotion.

    Raises:
        NotFinite: a face or a feature is NaN or infinite; names it by its index.
    """
    real, classes = task.real, task.classes
    random = np.random.default_rng(CHOICE_SEED + 2)
    chosen = real.sources(task.settings["sources"], classes, random)
    rows, asked = (part.ravel() for part in np.meshgrid(np.concatenate(chosen), np.arange(classes), indexing="ij"))
    other = real.labels[rows] != asked
    rows, asked = rows[other], asked[other]
    if is_given(task.model):
        there = given_edits(task.model, task.data, rows, asked)
        task.sampler.given["editing"] = int(there.known.sum()), len(rows)
        rows, asked = rows[there.known], asked[there.known]
    others = np.array([real.other_person(int(row), int(k), random) for row, k in zip(rows, asked, strict=True)])
    images = real.faces(rows)
    seeds = FIRST_SEED["editing"] + np.arange(len(rows))
    if is_given(task.model):
        edited = read(there.paths, task.sampler.size)
    else:
        edited = task.sampler.edit(images, np.eye(classes)[asked], seeds, "editing")
    place = {"row": rows, "person": real.person[rows]}
    columns = task.measured("editing", task.made(edited, asked, rows), others)
    task.judge("editing", edited, asked, **place, **columns)
    task.judge("source", images, asked, **place)
    grid = _grid(task, [group[0] for group in chosen if len(group)], rows, asked, edited)
    task.pictures["edits"] = grid, bool(task.data.expects)
    return task.fidelity.measure(edited, "editing")


def _grid(task: Task, sources: Sequence[int], rows: np.ndarray, asked: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """One source of each emotion, itself and what became of it: uint8 (K, 1 + K, 3, S, S)."""
    lines = []
    for source in sources:
        itself = np.broadcast_to(task.real.images[source], edited.shape[1:])
        mine = rows == source
        becomes = dict(zip(asked[mine].tolist(), edited[mine], strict=True))
        lines.append(np.stack([itself, *(becomes.get(k, itself) for k in range(task.classes))]))
    return np.stack(lines)


class Editing(PanelTrack):
    """The same faces for every editor, each towards every emotion but its own."""

    name = "editing"
    judged = "editing"
    title = "Editing: a face and an emotion in, the same person out"
    settings = ("fidelity", "sources")
    measure = staticmethod(measure)
    metrics = METRICS
    rankings = (CONTROL_RANKING, FIDELITY_RANKING)
    columns = (
        *CONTROL_COLUMNS,
        *SAMPLE_COLUMNS,
        *(Column(metric.heading, Key(metric.name), optional=True) for metric in METRICS),
    )
    pictures: ClassVar[dict[str, str]] = {"edits": "a source a row, then every emotion"}

    @classmethod
    def measures(cls, model: type) -> bool:
        return hasattr(model, "edit")

    def estimates(self, cells: Sequence[JudgedFaces]) -> list[list[Estimates]]:
        return [
            [
                each
                for each in (control_of(faces, "editing"), means_of(faces, "editing", self.metrics))
                if each is not None
            ]
            for faces in cells
        ]

    def controls(self, cells: Sequence[JudgedFaces]) -> list[ControlRow]:
        """The unchanged sources, and a random other person in the place of each edit."""
        first = cells[0]
        rows = checked(first, known_faces(first, ("source",)))
        others = means_of(first, "editing", self.metrics, other=True)
        return [*rows, *([] if others is None else [ControlRow("control:other_person", [others])])]
