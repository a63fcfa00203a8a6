"""`emobench stylize`: pictures in the style of an emotion, by a trained style transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emobench.commands.inputs import coloured, listed, named, read_picture
from emobench.commands.pictures import (
    SHEET,
    Sheet,
    as_image,
    check_new,
    note,
    progress,
    requests,
    save,
    save_table,
    stems,
)
from emobench.commands.runs import chosen
from emobench.errors import RowError, SizeError, StoreError, shown

TABLE = "styles.csv"


def stylize(
    run: str,
    images: Sequence[Path],
    emotions: Sequence[str],
    *,
    longest: int,
    out: Path,
    force: bool,
    results: Path,
) -> int:
    """Paint pictures in the style of emotions, and write them with a sheet and a table of all.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        images: pictures of any size and form, which they keep, or folders of them.
        emotions: whose styles; none: that of the emotion which the row's own classifier reads in each picture.
        longest: side, px, to which larger pictures are scaled down first: memory grows with their area.

    Returns:
        The exit code: 1 where a picture cannot be read; the others are painted.

    Raises:
        StoreError: there is no such cell, its weights are gone, it paints nothing, it has no classifier and no emotion
            is named, or a file is there already.
        DatasetError: a path does not exist, or there is no picture.
        EmobenchError: a wrong emotion.
    """
    network = chosen(results, run, "stylize")
    files, notes, errors = listed(images)
    model, device = network.load()
    if not emotions and not model.classifier:
        raise StoreError(f"{network.label}: it has no classifier to read a picture's emotion. Name one by --emotion")
    wanted = {each.emotion: each.weights for each in requests(emotions, [], 1.0, model.emotions)}
    names = dict(zip(files, stems(files), strict=True))
    may_be = wanted or model.emotions  # which one is read is known only later
    check_new(
        [*(out / f"{names[file]}-{each}.png" for file in files for each in may_be), out / SHEET, out / TABLE], force
    )
    for text in (f"painted by {network.described}", *notes):
        note(text)
    sheet, rows, smaller = Sheet(), [], 0
    with progress(len(files), "pictures") as done, torch.no_grad():
        for file in files:
            try:
                picture = coloured(read_picture(file))
                scaled = _at_most(picture, longest)
                painted = _painted(model, torch.from_numpy(scaled)[None].to(device), wanted)
            except RowError as error:
                errors.append(error)
                continue
            except SizeError as error:
                errors.append(RowError(named(file), None, None, str(error), "Take a larger picture."))
                continue
            smaller += scaled.shape != picture.shape
            sheet.add(Path(named(file)).name, "as given", scaled)
            for emotion, made in painted.items():
                name = f"{names[file]}-{emotion}.png"
                save(out / name, made)
                sheet.add(Path(named(file)).name, emotion, made)
                rows.append([name, shown(named(file)), emotion, "asked for" if wanted else "read in the picture"])
            done(1)
    if rows:
        sheet.write(out / SHEET)
        save_table(out / TABLE, ["file", "source", "emotion", "which"], rows)
        print(f"{len(rows):,} pictures are in {out}, with {SHEET} and {TABLE}")
    if smaller:
        note(f"{smaller:,} scaled down to {longest} px (--longest)")
    for each in errors:
        note(f"emobench: {each}")
    return 1 if errors else 0


def _painted(model: Any, given: torch.Tensor, wanted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A picture (1, 3, h, w) in each style that is wanted; none: in that of the emotion which is read in it."""
    styles = {emotion: torch.from_numpy(weights)[None].to(given.device) for emotion, weights in wanted.items()}
    if not styles:
        read = model.label(given)
        styles = {model.emotions[int(read.argmax())]: read}
    return {emotion: model.stylize(given, weights)[0].cpu().numpy() for emotion, weights in styles.items()}


def _at_most(picture: np.ndarray, longest: int) -> np.ndarray:
    """A picture uint8 (3, h, w), scaled down where a side is longer."""
    side = max(picture.shape[1:])
    if side <= longest:
        return picture
    height, width = (max(1, round(each * longest / side)) for each in picture.shape[1:])
    small = as_image(picture).resize((width, height), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))
