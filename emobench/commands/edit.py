"""`emobench edit`: pictures of people, given another emotion by a trained editor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emobench.commands.inputs import coloured, listed, named, read_picture
from emobench.commands.pictures import (
    BATCH,
    SHEET,
    Request,
    Sheet,
    batches,
    check_new,
    note,
    progress,
    requests,
    save,
    save_table,
    stems,
)
from emobench.commands.runs import chosen
from emobench.data.readers.images import resized
from emobench.errors import RowError, shown

TABLE = "edits.csv"
_SQUARE = 1.15  # of the longer side to the shorter one: what is more than that looks squeezed


def edit(
    run: str,
    images: Sequence[Path],
    emotions: Sequence[str],
    *,
    seed: int,
    intensity: float,
    out: Path,
    force: bool,
    results: Path,
) -> int:
    """Give pictures of people other emotions, and write them with a sheet and a table of all.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        images: pictures of one face each, or folders of them; they are made square as an evaluation makes its faces.
        emotions: see `emobench.commands.pictures.requests`; each picture is edited to each of them.
        seed: of the noise, the same for each picture: what becomes of one does not hang on the others.

    Returns:
        The exit code: 1 where a picture cannot be read; the others are edited.

    Raises:
        StoreError: there is no such cell, its weights are gone, it edits no faces, or a file is there already.
        DatasetError: a path does not exist, or there is no picture.
        EmobenchError: a wrong emotion or intensity.
    """
    network = chosen(results, run, "edit")
    files, notes, errors = listed(images)
    model, device = network.load()
    wanted = requests(emotions, [], intensity, model.emotions)
    names = dict(zip(files, stems(files), strict=True))
    made_of = {(file, each.name): f"{names[file]}-{each.name}.png" for file in files for each in wanted}
    check_new([*(out / name for name in made_of.values()), out / SHEET, out / TABLE], force)
    for text in (f"edited by {network.described}", *notes):
        note(text)
    sheet, rows, squeezed = Sheet(), [], []
    with progress(len(files), "pictures") as done:
        for part in batches(files, max(1, BATCH // len(wanted))):
            faces = []
            for file in part:
                try:
                    picture = coloured(read_picture(file))
                except RowError as error:
                    errors.append(error)
                    continue
                if not is_square(picture):
                    squeezed.append(file)
                faces.append((file, resized(picture, network.size)))
            for file, face, edits in edited(model, device, faces, wanted, seed):
                sheet.add(Path(named(file)).name, "as given", face)
                for request, made in zip(wanted, edits, strict=True):
                    name = made_of[file, request.name]
                    save(out / name, made)
                    sheet.add(Path(named(file)).name, request.caption, made)
                    rows.append([name, shown(named(file)), request.emotion, seed, request.intensity])
            done(len(part))
    if rows:
        sheet.write(out / SHEET)
        save_table(out / TABLE, ["file", "source", "emotion", "seed", "intensity"], rows)
        print(f"{len(rows):,} edits of {model.size} x {model.size} px are in {out}, with {SHEET} and {TABLE}")
    if squeezed:
        others = f" and {len(squeezed) - 1:,} more" if len(squeezed) > 1 else ""
        note(f"{named(squeezed[0])}{others}: not square, so squeezed into one. Crop the face first")
    for each in errors:
        note(f"emobench: {each}")
    return 1 if errors else 0


def is_square(picture: np.ndarray) -> bool:
    """Whether a picture uint8 (C, h, w) is nearly so: others look squeezed as the square that an editor is given."""
    return bool(max(picture.shape[1:]) <= _SQUARE * min(picture.shape[1:]))


def edited(
    model: Any, device: torch.device, faces: Sequence[tuple[Path, np.ndarray]], wanted: Sequence[Request], seed: int
) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
    """Each file, its face uint8 (3, S, S), and its edits, one for each request."""
    if not faces:
        return
    each = torch.from_numpy(np.stack([face for _, face in faces])).to(device)  # (N, 3, S, S)
    weights = torch.from_numpy(np.stack([request.weights for request in wanted])).to(device)  # (R, K)
    seeds = torch.full((len(faces) * len(wanted),), seed, device=device)
    with torch.no_grad():
        made = model.edit(each.repeat_interleave(len(wanted), 0), weights.repeat(len(faces), 1), seeds).cpu().numpy()
    for place, (file, face) in enumerate(faces):
        yield file, face, made[place * len(wanted) : (place + 1) * len(wanted)]
