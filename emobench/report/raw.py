"""The raw predictions of a board's cells: read, checked, and sorted by what can be compared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.metrics.recognition import Floats, confusion_matrix, measures, tally
from emobench.runner.store import Row

REMEDY = "Delete the result.json beside it and run the suite again: the cell is then measured anew."


@dataclass(frozen=True)
class Measured:
    """One cell's raw predictions, whole and plausible."""

    row: Row
    emotions: tuple[str, ...]
    faces: pd.DataFrame  # sorted by index
    tally: Floats  # (N, K² + 18)

    @property
    def test(self) -> tuple[Any, ...]:
        """What must be equal for two cells to be compared: protocol, emotions, faces and their labels."""
        digest = hashlib.sha256(self.faces["label"].to_numpy(np.int64).tobytes())
        digest.update("\0".join(self.faces["id"].astype(str)).encode())
        return (self.row.result or {}).get("protocol"), self.emotions, digest.hexdigest()

    @property
    def confusion(self) -> NDArray[np.int64]:
        return confusion_matrix(self.faces["label"], self.faces["prediction"], len(self.emotions))


def read(row: Row) -> Measured | str:
    """A done cell's predictions, or what is wrong with them."""
    result = row.result or {}
    path = (row.folder or Path()) / result.get("raw", {}).get("predictions", "predictions.parquet")
    try:
        emotions = tuple(result["dataset"]["emotions"])
        faces = pd.read_parquet(path).sort_values("index", ignore_index=True)
        probabilities = faces[[f"p_{emotion}" for emotion in emotions]].to_numpy(np.float64)
        predictions = faces["prediction"].to_numpy(np.int64)
        table = tally(probabilities, faces["label"], predictions=predictions, leaked=faces["leaked"])
        likely = np.take_along_axis(probabilities, predictions[:, None], 1)[:, 0]
        if len(faces) == 0 or faces["index"].duplicated().any():
            return f"{path}: no test faces, or one twice. {REMEDY}"
        if (likely < probabilities.max(1) - 1e-6).any():
            return f"{path}: predictions are not the most probable emotion. {REMEDY}"
        if wrong := _contradiction(result, measures(table.sum(0), len(emotions))):
            return f"{path}: {wrong}. {REMEDY}"
    except FileNotFoundError:
        return f"{path}: missing. {REMEDY}"
    except Exception as error:  # whatever a broken file makes Parquet, pandas or the tally raise: the board goes on
        return f"{path}: cannot be read ({type(error).__name__}: {error}). {REMEDY}"
    return Measured(row, emotions, faces, table)


def _contradiction(result: Mapping[str, Any], found: Mapping[str, Floats]) -> str | None:
    """Whether the record claims other numbers than its raw predictions give."""
    for name in ("accuracy", "macro_f1"):
        claimed = result.get("metrics", {}).get(name, {}).get("value")
        if claimed is not None and abs(claimed - float(found[name])) > 1e-6:
            return f"gives {name} {float(found[name]):.6f}, but result.json says {claimed:.6f}"
    return None


def comparable(rows: Sequence[Row]) -> tuple[list[Measured], dict[int, str]]:
    """The cells that were measured on the same faces under one protocol, and why others (by place) are left out."""
    cells = {place: read(row) for place, row in enumerate(rows) if row.state == "done"}
    tests = Counter(cell.test for cell in cells.values() if isinstance(cell, Measured))
    usual = tests.most_common(1)[0][0] if tests else None
    good, trouble = [], {}
    for place, cell in cells.items():
        if isinstance(cell, str):
            trouble[place] = cell
        elif cell.test != usual:
            trouble[place] = (
                "measured on other test faces, or under another protocol, than most of this board. "
                "Run the suite again with --on-existing redo."
            )
        else:
            good.append(cell)
    return good, trouble
