"""What a board shows of where its classifiers look, beside their numbers."""

from __future__ import annotations

from zipfile import BadZipFile

import numpy as np

from emobench.report.board import Section

MOST = 12  # rows whose curves are drawn: more cannot be told apart


def fading(section: Section) -> dict[str, tuple[list[float], list[float]]]:
    """The mean deletion and insertion curve of each model with maps, of its first seed; empty: of any other track."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for entry in section.measured if section.track.name == "explanation" else ():
        cell = next(iter(section.usable_of(entry)), None)
        evaluation = None if cell is None or cell.record is None else cell.record.evaluation
        if cell is None or cell.folder is None or evaluation is None or "maps" not in evaluation.raw:
            continue
        try:
            with np.load(cell.folder / evaluation.raw["maps"]) as arrays:
                of = [np.asarray(arrays[name], np.float64).mean(0).tolist() for name in ("deletion", "insertion")]
        except (OSError, KeyError, ValueError, BadZipFile):  # damaged: its numbers are in another file
            continue
        found[entry.name] = of[0], of[1]
    return dict(list(found.items())[:MOST])
