"""`emobench predict`: which emotion do these pictures show, by a trained classifier?"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emobench.commands.runs import Run, chosen
from emobench.data.readers.images import is_picture, read_face, resized
from emobench.data.readers.tree import LeftOut, visible
from emobench.errors import DatasetError, RowError, printable, shown
from emobench.files import check_out
from emobench.report.markdown import csv_cell, one_line

_BATCH = 64  # pictures
Form = Literal["table", "csv", "json"]


def predict(run: str, images: Iterable[Path], form: Form, out: Path | None, results: Path) -> int:
    """Say which emotion pictures show, and name on stderr those that cannot be read.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        images: pictures of one face each, or folders of them.
        form: a "table" for people, "csv" or "json".
        out: the file that it is written to; None: it is printed.

    Returns:
        The exit code: 1 where a picture cannot be read; the others are answered.

    Raises:
        StoreError: there is no such cell, it is not finished here, its weights are gone, or `out` cannot be written.
        DatasetError: a path does not exist, or there is no picture.
    """
    if out is not None:
        check_out(out)
    network = chosen(results, run, "read")
    files, notes = _pictures(images)
    table, errors = _read(network, files)
    for note in (f"read by {network.label}", *notes):
        print(printable(note), file=sys.stderr)
    text = _written(table, form)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
    for error in errors:
        print(f"emobench: {error}", file=sys.stderr)
    return 1 if errors else 0


def _pictures(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The picture files among paths and below folders, those of a folder in order; and notes of what else is there.

    Pictures in folders are known by their suffix, or by their content; a file that is named is taken as one.

    Raises:
        DatasetError: a path does not exist, or there is no picture.
    """
    found: list[Path] = []
    left_out = LeftOut()
    for path in paths:
        if path.is_dir():
            found += _below(path, left_out, set())
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise DatasetError(f"{path}: no such file or folder")
    notes = left_out.notes()
    if not found:
        also = "".join(f"; {note}" for note in notes)
        raise DatasetError(f"no picture in {', '.join(map(str, paths))}{also}. JPEG, PNG and their like are taken")
    return found, notes


def _below(folder: Path, left_out: LeftOut, seen: set[str]) -> Iterator[Path]:
    """The pictures below a folder; a folder that links lead to again is passed over."""
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    left_out.invisible(folder)
    for path in visible(folder):
        if path.is_dir():
            yield from _below(path, left_out, seen)
        elif is_picture(path):
            yield path
        else:
            left_out.add(path.name)


def _read(network: Run, files: list[Path]) -> tuple[pd.DataFrame, list[RowError]]:
    """What a finished cell's network says of pictures, as its evaluation would see them.

    Returns:
        One row a picture that can be read: `file`, `emotion` and the probability of each emotion; and the errors of
        those that cannot.

    Raises:
        StoreError: the cell is not finished here, or its weights are gone.
    """
    model, device = network.load()
    rows: list[tuple[str, str, *tuple[float, ...]]] = []
    errors: list[RowError] = []
    for start in range(0, len(files), _BATCH):
        part, faces = [], []
        for path in files[start : start + _BATCH]:
            try:
                face = resized(read_face(path), network.size)
            except RowError as error:
                errors.append(error)
                continue
            part.append(path)
            faces.append(np.broadcast_to(face, (3, network.size, network.size)))
        if faces:
            with torch.inference_mode():
                logits = model(torch.from_numpy(np.stack(faces)).to(device))
            for path, shares in zip(part, logits.double().softmax(1).cpu().tolist(), strict=True):
                rows.append((shown(path), model.emotions[int(np.argmax(shares))], *shares))
    return pd.DataFrame(rows, columns=["file", "emotion", *model.emotions]), errors


def _written(table: pd.DataFrame, form: Form) -> str:
    """Predictions as a "table" for people, as "csv" or as "json"; hostile file names stay inert in all of them."""
    if form == "json":
        return json.dumps(table.to_dict(orient="records"), indent=1) + "\n"
    if form == "csv":
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([csv_cell(cell) for cell in row] for row in table.itertuples(index=False))
        return file.getvalue()
    shown = Table(*table.columns, box=None)
    for row in table.itertuples(index=False):
        shown.add_row(*(Text(one_line(cell) if isinstance(cell, str) else f"{cell:.3f}") for cell in row))
    longest = max((len(name) for name in table["file"]), default=0)
    console = Console(file=io.StringIO(), width=longest + 12 * len(table.columns))  # a name is never cut
    console.print(shown)
    return str(console.file.getvalue())  # type: ignore[attr-defined]
