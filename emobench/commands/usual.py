"""What an outside model's answers are worth under usual settings, where nobody says which are its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from emobench.errors import EmobenchError, SuiteError, Unsaid, first_line

FACES = 500  # of validation at most, on which a setting is tried
_CHANNELS = ("rgb", "bgr")
_TRIED = 3  # settings at most


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
    from emobench.evaluation.outside import answers

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
