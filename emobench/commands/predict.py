"""`emobench predict`: which emotion do these pictures show, by a trained classifier?"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emobench.data.readers.images import is_picture, read_face, resized
from emobench.data.readers.tree import LeftOut, visible
from emobench.errors import DatasetError, RowError, StoreError, printable, shown, unknown
from emobench.files import check_out
from emobench.report.markdown import csv_cell, one_line
from emobench.report.readable import duration
from emobench.runner.build import load_model
from emobench.runner.record import finished, read_record
from emobench.runner.store import Origin, Store, StoredCell, load_board

_BATCH = 64  # pictures
Form = Literal["table", "csv", "json"]


def predict(run: str, images: Iterable[Path], form: Form, out: Path | None, results: Path) -> int:
    """Say which emotion pictures show, and name on stderr those that cannot be read.

    Args:
        run: of a finished cell, see `_chosen`.
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
    chosen = _chosen(results, run)
    files, notes = _pictures(images)
    table, errors = _read(results, chosen, files)
    for note in (f"read by {chosen.label}", *notes):
        print(printable(note), file=sys.stderr)
    text = _written(table, form)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
    for error in errors:
        print(f"emobench: {error}", file=sys.stderr)
    return 1 if errors else 0


@dataclass(frozen=True)
class _Chosen:
    """A finished cell to predict with."""

    label: str
    fit_key: str
    size: int  # px that its evaluation saw


def _chosen(results: Path, run: str) -> _Chosen:
    """The finished cell that a name means.

    Args:
        run: `best:<suite>/<dataset>`, the row with the best validation macro F1; `<suite>/<dataset>/<row>`, at its
            first seed; or the beginning of a cell's key, the name of its folder in `results/cells`.

    Raises:
        StoreError: there is no such cell, several begin so, or it is not finished here.
    """
    if run.startswith("best:"):
        suite, _, dataset = run.removeprefix("best:").partition("/")
        return _of(results, suite, best_by_validation(results, suite, dataset))
    if "/" in run:
        suite, _, wanted = run.partition("/")
        cells = [each for each in load_board(results, suite) if each.part is None]
        rows = [each for each in cells if each.state == "done" and each.track == "recognition"]
        found = [each for each in rows if f"{each.dataset}/{each.row}" == wanted]
        if not found:
            known = {f"{suite}/{each.dataset}/{each.row}" for each in rows}
            raise StoreError(unknown("finished cell", run, known))
        return _of(results, suite, found[0])
    keys = [path.parent.name for path in Store(results).cells.glob(f"{run}*/fit.json")] if run.isalnum() else []
    if len(keys) != 1:
        found_ = f"{len(keys)} cells begin with '{run}'" if keys else f"no cell '{run}' in {Store(results).cells}"
        raise StoreError(f"{found_}. Name one as <suite>/<dataset>/<row>, best:<suite>/<dataset>, or by its key")
    cell = read_record(Store(results).fit_folder(keys[0]) / "fit.json").cell
    if cell.track != "recognition":
        raise StoreError(f"{cell.row} makes faces and reads none. Name a classifier")
    return _Chosen(f"{cell.row} on {cell.dataset}, seed {cell.seed}", keys[0], cell.size)


def best_by_validation(results: Path, suite: str, dataset: str) -> StoredCell:
    """The row of the board with the best validation macro F1, all seeds apart; controls and ensembles have none."""
    scored = [
        (each.record.fit.validation.macro_f1, each)
        for each in load_board(results, suite)
        if each.state == "done" and each.control is None and each.part is None
        if each.record is not None and each.record.fit is not None and each.record.fit.validation is not None
    ]
    if not any(each.dataset == dataset for _, each in scored):
        there = {f"best:{suite}/{each.dataset}" for _, each in scored}
        if not there:
            raise StoreError(f"{suite}: no finished classifier that was validated. `emobench bench` trains them")
        raise StoreError(unknown("choice", f"best:{suite}/{dataset}".rstrip("/"), there))
    return max(((score, each) for score, each in scored if each.dataset == dataset), key=lambda pair: pair[0])[1]


def _of(results: Path, suite: str, row: StoredCell) -> _Chosen:
    """The cell of a row.

    Raises:
        StoreError: its weights are not here, as those of a committed board are not; says the command that trains it.
    """
    if not finished(Store(results).fit_folder(row.fit_key) / "fit.json"):
        cost = None if row.record is None or row.record.fit is None else row.record.fit.cost
        took = "" if cost is None else f"; it was trained in {duration(cost.fit_seconds)}"
        command = Origin.recorded(results, suite).command(suite)
        raise StoreError(f"{row.row}: its weights are not in {results}{took}. To train it here: `{command}`")
    return _Chosen(f"{row.row} on {row.dataset}, seed {row.seed}", row.fit_key, row.size)


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


def _read(results: Path, chosen: _Chosen, files: list[Path]) -> tuple[pd.DataFrame, list[RowError]]:
    """What a finished cell's network says of pictures, as its evaluation would see them.

    Returns:
        One row a picture that can be read: `file`, `emotion` and the probability of each emotion; and the errors of
        those that cannot.

    Raises:
        StoreError: the cell is not finished here, or its weights are gone.
    """
    model = load_model(Store(results), chosen.fit_key)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    rows: list[tuple[str, str, *tuple[float, ...]]] = []
    errors: list[RowError] = []
    for start in range(0, len(files), _BATCH):
        part, faces = [], []
        for path in files[start : start + _BATCH]:
            try:
                face = resized(read_face(path), chosen.size)
            except RowError as error:
                errors.append(error)
                continue
            part.append(path)
            faces.append(np.broadcast_to(face, (3, chosen.size, chosen.size)))
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
