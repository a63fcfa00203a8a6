"""`emobench explain`: where does a trained classifier look in these pictures?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emobench.attribution.explainer import GRAD_CAM, Explainer
from emobench.attribution.overlays import overlaid
from emobench.attribution.rollout import Fusion
from emobench.commands.edit import is_square
from emobench.commands.inputs import coloured, listed, named, read_picture
from emobench.commands.pictures import (
    SHEET,
    Sheet,
    batches,
    check_new,
    note,
    progress,
    row,
    save,
    save_table,
    stems,
)
from emobench.commands.pictures import shown as enlarged
from emobench.commands.runs import chosen
from emobench.data.readers.images import resized
from emobench.errors import NotExplained, RowError, shown
from emobench.files import replacing
from emobench.metrics.attention import upsampled

TABLE = "explained.csv"
_HEADER = ("file", "array", "source", "read", "probability", "explained", "method", "from", "cells")


def explain(
    run: str,
    images: Sequence[Path],
    *,
    emotion: str | None,
    fusion: Fusion,
    discard: float,
    out: Path,
    force: bool,
    results: Path,
) -> int:
    """Show where a classifier looks: of each picture a PNG with its map over it, the map as an array, and a table.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        images: pictures of one face each, or folders of them; they are made square as an evaluation makes its faces.
        emotion: that a map of Grad-CAM is of; None: what is read in each picture. A rollout is of the whole answer.
        fusion, discard: of a rollout, see `emobench.attribution.explainer`.

    Returns:
        The exit code: 1 where a picture cannot be read; the others are explained.

    Raises:
        StoreError: there is no such cell, its weights are gone, it reads no faces, or a file is there already.
        DatasetError: a path does not exist, or there is no picture.
        EmobenchError: a wrong emotion, a network of which no map can be made, or captum is missing.
    """
    network = chosen(results, run, "read")
    files, notes, errors = listed(images)
    model, device = network.load()
    wanted = None if emotion is None else int(row(emotion, model.emotions).argmax())
    blank = torch.full((1, 3, network.size, network.size), 127, dtype=torch.uint8, device=device)
    try:
        explainer = Explainer(model, blank, fusion, discard)
    except NotExplained as error:
        raise NotExplained(f"{network.label}: n/a: {error}") from None
    names = dict(zip(files, stems(files), strict=True))
    made = [out / f"{names[file]}-map{end}" for file in files for end in (".png", ".npy")]
    check_new([*made, out / SHEET, out / TABLE], force)
    for text in (f"read by {network.described}", explainer.described, *notes):
        note(text)
    sheet, rows, squeezed, empty = Sheet(), [], [], 0
    with progress(len(files), "pictures") as done:
        for part in batches(files):
            faces = []
            for file in part:
                try:
                    picture = coloured(read_picture(file))
                except RowError as error:
                    errors.append(error)
                    continue
                squeezed += [] if is_square(picture) else [file]
                faces.append((file, resized(picture, network.size)))
            for look in _looks(model, device, explainer, faces, wanted):
                name = f"{names[look.file]}-map"
                save(out / f"{name}.png", look.picture)
                _save_array(out / f"{name}.npy", upsampled(look.cells[None], network.size)[0])
                sheet.add("", f"{look.read} {look.probability:.2f}", look.face)
                sheet.add("", f"for {look.of}", look.picture)
                said = [shown(named(look.file)), look.read, f"{look.probability:.6f}", look.of]
                rows.append([f"{name}.png", f"{name}.npy", *said, explainer.method, explainer.layer, explainer.cells])
                empty += not look.cells.any()
            done(len(part))
    if rows:
        sheet.write(out / SHEET)
        save_table(out / TABLE, _HEADER, rows)
        print(f"{len(rows):,} maps are in {out}, each as a .png and a .npy, with {SHEET} and {TABLE}")
    if empty:
        note(f"{empty:,} of them are 0 everywhere: no cell of that layer speaks for what is explained")
    if squeezed:
        others = f" and {len(squeezed) - 1:,} more" if len(squeezed) > 1 else ""
        note(f"{named(squeezed[0])}{others}: not square, so squeezed into one. Crop the face first")
    for each in errors:
        note(f"emobench: {each}")
    return 1 if errors else 0


@dataclass(frozen=True)
class _Look:
    """Where a classifier looks in one picture.

    Attributes:
        face: uint8 (3, S, S), as it was read.
        read: the most probable emotion.
        of: what the map is of.
        cells: the map, (g, g).
    """

    file: Path
    face: np.ndarray
    read: str
    probability: float
    of: str
    cells: np.ndarray

    @property
    def picture(self) -> np.ndarray:
        """The face under its map, uint8 (3, h, w)."""
        face = enlarged(self.face)
        over: np.ndarray = overlaid(face[None], upsampled(self.cells[None], face.shape[-1]))[0]
        return over


def _looks(
    model: Any, device: torch.device, explainer: Explainer, faces: Sequence[tuple[Path, np.ndarray]], wanted: int | None
) -> Iterator[_Look]:
    """Where it looks in each face uint8 (3, S, S), for an emotion, by its place, or for what is read in it."""
    if not faces:
        return
    images = torch.from_numpy(np.stack([face for _, face in faces])).to(device)
    with torch.no_grad():
        shares = model(images).double().softmax(1).cpu().numpy()
    of = shares.argmax(1).tolist() if wanted is None else [wanted] * len(faces)
    for (file, face), emotion, share, cells in zip(faces, of, shares, explainer.maps(images, of), strict=True):
        what = model.emotions[emotion] if explainer.method == GRAD_CAM else "the whole answer"
        yield _Look(file, face, model.emotions[int(share.argmax())], float(share.max()), what, cells)


def _save_array(path: Path, values: np.ndarray) -> None:
    """Write a map float32 (S, S), whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, values.astype(np.float32))
