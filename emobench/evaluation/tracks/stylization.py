"""Stylization: a face in, the same face in the style of its emotion out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from emobench.evaluation.protocol import CHOICE_SEED, STYLIZED_FACES, STYLIZED_SIZE
from emobench.evaluation.tracks.editing import ssim
from emobench.evaluation.tracks.generation import CONTROL_COLUMNS, CONTROL_RANKING
from emobench.evaluation.tracks.panel import JudgedFaces, PanelTrack, control_of, means_of
from emobench.evaluation.tracks.track import Column, Estimates, Key, Metric, Name, listed
from emobench.evaluation.values import Value

if TYPE_CHECKING:
    from emobench.evaluation.task import Task

LOSSES = ("content_loss", "style_loss", "total_loss")  # of the model, in the features of its loss network


def _loss(name: str) -> Metric:
    """One of the model's own losses of each face."""
    heading = f"{name.replace('_', ' ')} ↓"
    return Metric(name, "stylization", lambda made: made.columns[name], heading, 0, significant=True)


METRICS = (Metric("ssim", "stylization", ssim, "SSIM ↑", -1, 1), *map(_loss, LOSSES))


def measure(task: Task) -> dict[str, Value]:
    """Gives the fixed list of test faces the style of the emotion that the model itself reads in each.

    A model without a classifier is told the emotion. What the panel reads before and after is kept, and how much of
    the face remains.
    """
    import torch

    from emobench.data.readers.images import resized

    real, model, classes = task.real, task.model, task.classes
    chosen = real.sources(task.settings["sources"], classes, np.random.default_rng(CHOICE_SEED + 2))
    rows = np.concatenate(chosen)
    images, shown = real.coloured(rows), real.labels[rows]
    label = model.label if model.classifier else None
    made = task.sampler.stylize(images, None if label else np.eye(classes)[shown], "stylization")
    faces = [torch.from_numpy(each).to(task.device) for each in (images, made)]
    used = label(faces[0]) if label else torch.eye(classes, device=task.device)[torch.from_numpy(shown).to(task.device)]
    losses = {name: value.double().cpu().numpy() for name, value in model.losses(*faces, used).items()}
    place = {"row": rows, "person": real.person[rows], "style": used.argmax(1).cpu().numpy()}
    columns = task.measured("stylization", task.made(made, shown, rows, losses))
    task.judge("stylized", made, shown, **place, **columns)
    task.judge("stylized_start", images, shown, row=rows, person=real.person[rows])
    first = real.coloured(np.array([group[0] for group in chosen if len(group)]))
    every = np.repeat(np.eye(classes)[None], len(first), 0).reshape(-1, classes)
    styled = task.sampler.stylize(np.repeat(first, classes, 0), every, "styles")
    styled = styled.reshape(len(first), classes, *first.shape[1:])
    task.pictures["styles"] = np.concatenate([first[:, None], styled], 1), bool(task.data.expects)
    large = np.stack([resized(face, STYLIZED_SIZE) for face in images[:STYLIZED_FACES]])
    for what in ("warm-up", "stylization at 256 px"):
        task.sampler.stylize(large, np.eye(classes)[shown[:STYLIZED_FACES]], what)
    return {}


class Stylization(PanelTrack):
    """The emotion that a face shows, before and after it is given the style of it."""

    name = "stylization"
    judged = "stylized"
    title = "Stylization: a face in, the same face in the style of its emotion out"
    settings = ("sources",)
    measure = staticmethod(measure)
    metrics = METRICS
    rankings = (CONTROL_RANKING,)
    columns = (
        *CONTROL_COLUMNS,
        *(Column(metric.heading, Key(metric.name), significant=metric.significant) for metric in METRICS),
    )
    pictures: ClassVar[dict[str, str]] = {"styles": "a source of each emotion, then in every style"}

    @classmethod
    def measures(cls, model: type) -> bool:
        return hasattr(model, "stylize")

    def notes(self, cells: Mapping[str, Any]) -> list[tuple[str | Name, ...]]:
        """What control means here, and whose features the losses are measured in."""
        networks = [(Name(row), " in ", *_loss_network(record)) for row, record in cells.items()]
        return [
            (
                "Control: the share of the faces that the panel reads as the emotion that it shows; at the start, "
                "before the style.",
            ),
            ("Losses: ", *listed(networks), ". The total is at the document's weights, 1 and 400,000."),
            ("Faces per second at 256 px, 16 at a time.",),
            *super().notes(cells),
        ]

    def estimates(self, cells: Sequence[JudgedFaces]) -> list[list[Estimates]]:
        return [
            [
                each
                for each in (control_of(faces, "stylized"), means_of(faces, "stylized", self.metrics))
                if each is not None
            ]
            for faces in cells
        ]


def _loss_network(record: Any) -> tuple[str | Name, ...]:
    """Whose features style losses are measured in."""
    if record.made_of.fit["arguments"]["perceptual"] != "guide":
        return ("VGG16's features, as trained on ImageNet",)
    keys = record.cell.needs["guide"]
    named = [(Name(card.row),) for card in record.evaluation.guides if card.fit_key in keys]
    return ("the features of ", *listed(named), ", an emotion classifier of this suite and not VGG16 on ImageNet")
