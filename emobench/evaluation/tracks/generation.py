"""Generation: an emotion in, faces out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from emobench.evaluation.given import is_given
from emobench.evaluation.protocol import FIRST_SEED, INTENSITIES
from emobench.evaluation.tracks.panel import (
    JudgedFaces,
    PanelTrack,
    checked,
    control_of,
    intensity_of,
    known_faces,
    means_of,
    probability,
)
from emobench.evaluation.tracks.track import Column, ControlRow, Estimates, Key, Metric, Name, Ranking, listed
from emobench.evaluation.values import Value

if TYPE_CHECKING:
    from emobench.evaluation.reference import RealFaces
    from emobench.evaluation.task import Task

PICTURED = 10  # faces of each emotion in the picture of samples

METRICS: tuple[Metric, ...] = ()

# What the judged tracks show alike
CONTROL_RANKING = Ranking(
    name="control",
    heading="control",
    metrics=(Key("control_calibrated", "macro"), Key("control_corrected", "macro")),
    says="obeys best, control",
    scale={"control_calibrated": "real faces score 1"},
)
FIDELITY_RANKING = Ranking(
    name="fidelity",
    heading="distance",
    metrics=(Key("fid"), Key("fed")),
    says="is nearest to real faces,",
    by="samples",
    better="lower",
)
CONTROL_COLUMNS = (
    Column("control, calibrated", Key("control_calibrated", "macro")),
    Column("control, raw", Key("control", "macro")),
    Column("raw, at the start", Key("control_start", "macro"), optional=True),
    Column("worst emotion", Key("control"), shows="worst"),
)
SAMPLE_COLUMNS = (
    Column("FID ↓", Key("fid"), optional=True),
    Column("KID ↓", Key("kid"), optional=True, significant=True),
    Column("IS ↑", Key("is"), optional=True),
    Column("FED ↓", Key("fed"), optional=True),
    Column("ES ↑", Key("es"), optional=True),
    Column("copies", Key("memorisation"), optional=True),
)


def measure(task: Task) -> dict[str, Value]:
    """Draws the faces of the track and records what every judge reads in them.

    Raises:
        NotFinite: a face or a feature is NaN or infinite; names it by its index.
    """
    drawn = fidelity_sample(task)
    task.copies["generation"] = drawn
    real_people = not hasattr(task.model, "sample") and bool(task.data.expects)  # it edits pictures of theirs
    faces = control(task)
    task.pictures["samples"] = faces[:PICTURED].swapaxes(0, 1), real_people
    if task.settings["intensity"] and "neutral" in task.emotions and not is_given(task.model):
        task.pictures["intensity"] = intensity(task)[:, :, 0], real_people
    return task.fidelity.measure(drawn, "fidelity")


def fidelity_sample(task: Task) -> np.ndarray:
    """As many faces as the reference set has, asked for with its emotions: uint8 (N, 3, S, S)."""
    asked, seeds = fidelity_request(task.real)
    there = task.sampler.answered(asked, "fidelity")
    asked, seeds = asked[there], seeds[there]
    return task.sampler.sample(np.eye(task.classes)[asked], seeds, "fidelity")


def fidelity_request(real: RealFaces) -> tuple[np.ndarray, np.ndarray]:
    """The emotions (N,), numbers of the dataset's, and the seeds (N,) that the fidelity sample is asked for with."""
    asked = real.labels[real.reference]
    return asked, FIRST_SEED["fidelity"] + np.arange(len(asked))


def control(task: Task) -> np.ndarray:
    """Requests of their own, the same number for each emotion; returns the faces, uint8 (each, K, 3, S, S)."""
    each, classes = task.settings["per_emotion"], task.classes
    asked, seeds = control_request(each, classes)
    there = task.sampler.answered(asked, "control")
    asked, seeds = asked[there], seeds[there]
    faces = task.sampler.sample(np.eye(classes)[asked], seeds, "control")
    columns = task.measured("generation", task.made(faces, asked))
    task.judge("control", faces, asked, **task.origin(seeds), **columns)
    if hasattr(task.model, "begin"):
        begun = task.sampler.begin(np.eye(classes)[asked], seeds)
        task.judge("control_start", begun, asked, **task.origin(seeds))
    if there.all():
        return faces.reshape(each, classes, *faces.shape[1:])
    whole = np.full((len(there), *faces.shape[1:]), 127, np.uint8)  # gray where a picture lacks
    whole[there] = faces
    return whole.reshape(each, classes, *faces.shape[1:])


def control_request(each: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The emotions (N,) and the seeds (N,) that the control sample is asked for with: `each` faces of every emotion."""
    asked = np.tile(np.arange(classes), each)
    return asked, FIRST_SEED["control"] + np.repeat(np.arange(each), classes)  # a seed, seen with every emotion


def intensity(task: Task) -> np.ndarray:
    """Faces from neutral to each other emotion: uint8 (K − 1, levels, each, 3, S, S)."""
    each, neutral = task.settings["intensity"], task.emotions.index("neutral")
    others = [k for k in range(task.classes) if k != neutral]
    asked, levels, number = (part.ravel() for part in np.meshgrid(others, INTENSITIES, np.arange(each), indexing="ij"))
    emotions = levels[:, None] * np.eye(task.classes)[asked]
    emotions[:, neutral] += 1 - levels
    seeds = FIRST_SEED["intensity"] + number  # a seed, seen with every emotion at every level
    faces = task.sampler.sample(emotions, seeds, "intensity")
    task.judge("intensity", faces, asked, level=levels, **task.origin(seeds))
    return faces.reshape(len(others), len(INTENSITIES), each, *faces.shape[1:])


class Generation(PanelTrack):
    """Faces drawn for an emotion; a model that only edits is given validation faces that the seeds pick."""

    name = "generation"
    judged = "control"
    title = "Generation: an emotion in, faces out"
    settings = ("fidelity", "per_emotion", "intensity")
    measure = staticmethod(measure)
    metrics = METRICS
    rankings = (CONTROL_RANKING, FIDELITY_RANKING)
    columns = (*CONTROL_COLUMNS, *SAMPLE_COLUMNS)
    pictures: ClassVar[dict[str, str]] = {
        "samples": "a row an emotion",
        "intensity": "intensity from 0 to 1, a row an emotion",
    }

    meaning = (
        "*Control, raw*: the share of faces that the judges read as the emotion asked for, a mean over judges and "
        "emotions; *calibrated*: the same with the judges' own errors on real faces taken off, on a scale where real "
        "faces score 1. Judges never met what they judge.",
        "*FED*, *ES*: Fréchet distance and score in the reader's features and classes; they compare models on one "
        "dataset and one reader only, and are no FID or IS. `control:floor` is real test faces against the same "
        "reference. *copies*: the share of faces that copy a training face. Control and distance are two ranks.",
    )

    @classmethod
    def measures(cls, model: type) -> bool:
        return hasattr(model, "sample") or hasattr(model, "edit")

    def estimates(self, cells: Sequence[JudgedFaces]) -> list[list[Estimates]]:
        return [
            [
                each
                for each in (
                    control_of(faces, "control"),
                    means_of(faces, "control", self.metrics),
                    intensity_of(faces),
                )
                if each is not None
            ]
            for faces in cells
        ]

    def controls(self, cells: Sequence[JudgedFaces]) -> list[ControlRow]:
        """Real faces, shuffled requests, one emotion for all, copies of training faces; and the floor of distances."""
        first = cells[0]
        rows = checked(first, known_faces(first, ("copies",)))
        return [*rows, ControlRow("control:floor", values=first.cell.references.get("floor", {}))]

    def notes(self, cells: Mapping[str, Any]) -> list[tuple[str | Name, ...]]:
        """Which rows edit validation faces instead of drawing."""
        given = [(Name(row),) for row, record in cells.items() if not record.evaluation.draws]
        said = (*listed(given), " cannot draw a face: here it edits validation faces that the runner picks.")
        return [*([said] if given else []), *super().notes(cells)]

    def curve(self, cells: Sequence[JudgedFaces]) -> pd.Series | None:
        """Mean probability of the panel at each intensity, over emotions, faces and seeds; None without such faces."""
        parts = [faces.part("intensity") for faces in cells]
        if any(part.empty for part in parts):
            return None
        rows = [
            pd.DataFrame({"level": part["level"], "p": probability(faces, part)})
            for faces, part in zip(cells, parts, strict=True)
        ]
        return pd.concat(rows).groupby("level")["p"].mean()
