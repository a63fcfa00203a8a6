"""How outside classifiers do on validation faces: as they are set, and under usual settings of what nobody says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emobench.errors import EmobenchError, SuiteError, Unsaid, first_line
from emobench.evaluation.outside import answers, label_order, renamed
from emobench.metrics.recognition import measures, tally
from emobench.suite.cell import Cell

FACES = 500  # of validation at most, on which a setting is tried
_CHANNELS = ("rgb", "bgr")
_TRIED = 3  # settings at most


@dataclass(frozen=True)
class Validated:
    """How an outside classifier does on validation faces.

    Attributes:
        numbers: metric -> value.
        words: what is done to a face.
        renamed: its class -> the emotion that it rather tells, None: none of them; empty: its order is not beaten.
    """

    faces: int
    numbers: dict[str, float]
    words: str
    renamed: dict[str, str | None]


def validated(cell: Cell, data_root: Path) -> Validated:
    """Ask a planned cell's model for the validation faces alone."""
    from emobench.runner.build import build_data, new_model

    data = build_data(cell, data_root)
    model = new_model(cell, {}, pretrained=True).eval()
    faces = data.faces[data.faces["split"] == "val"]
    found = answers(model, data, faces)
    order = label_order(found, data, faces)
    labels = faces["label"].to_numpy()
    sums = tally(found.probabilities, labels, predictions=found.predictions).sum(0)
    numbers = {name: float(value) for name, value in measures(sums, len(data.emotions)).items()}
    return Validated(len(faces), numbers, model.said.words(), renamed(order, found.labels, data.emotions))


def advised(error: Unsaid) -> SuiteError:
    """The error, with the validation accuracy under usual settings of what is not said; labels cannot be tried."""
    lines = []
    if error.row is not None and not {"labels", "side"} & {*error.lacking}:
        lines = [
            f"  {words}: {_accuracy(error.row, error.data, settings)}" for words, settings in _usual(error.lacking)
        ]
    if not lines:
        return error
    head = f"{error}\nOn validation faces it is right of so many, under usual settings:"
    return SuiteError("\n".join([head, *lines, "The best of them is no proof: ask its author."]))


def _usual(lacking: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    from emobench.classifiers.outside import USUAL

    if "range" not in lacking:
        yield from ((f'channels = "{channels}"', {"channels": channels}) for channels in _CHANNELS)
        return
    for words, settings in list(USUAL.items())[:_TRIED]:
        more: Mapping[str, Any] = {"channels": "rgb"} if "channels" in lacking else {}
        said = 'channels = "rgb", ' if more else ""
        yield f"{said}{words}", {**settings, **more}


def _accuracy(row: Any, data: Any, settings: Mapping[str, Any]) -> str:
    """In words, on validation faces; why it has none."""
    module = data.module
    faces = module.faces[module.faces["split"] == "val"]
    faces = faces.iloc[np.random.default_rng(0).permutation(len(faces))[:FACES]].sort_index()
    try:
        arguments = {**row.arguments, **settings}
        if arguments.get("mean") is not None and row.cls.known(arguments).get("channels") == "gray":
            return "n/a (it takes gray faces)"
        model = row.cls(emotions=tuple(module.emotions), size=module.size, **arguments).eval()
        found = answers(model, module, faces)
    except EmobenchError as error:
        return f"n/a ({first_line(error)})"
    right = float((found.predictions == faces["label"].to_numpy()).mean())
    return f"{right:.3f} of {len(faces):,}"
