"""`emobench generate`: faces of an emotion, drawn by a trained generator, as pictures to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emobench.commands.pictures import (
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
    told,
)
from emobench.commands.runs import Run, chosen
from emobench.errors import StoreError

TABLE = "faces.csv"
_SHOWN = 12  # faces of an emotion in the sheet of those that were measured


def generate(
    run: str,
    emotions: Sequence[str],
    mixes: Sequence[str],
    texts: Sequence[str] = (),
    *,
    text_model: str | None = None,
    n: int,
    seed: int,
    intensity: float,
    out: Path,
    force: bool,
    results: Path,
) -> None:
    """Draw faces, a row of them for each emotion and mixture, and write them with a sheet and a table of all.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        emotions, mixes: see `emobench.commands.pictures.requests`; neither: all emotions that the network knows.
        texts, text_model: see `emobench.commands.pictures.told`.
        n: faces of each.
        seed: of the first face of each; the others count on from there.

    Raises:
        StoreError: there is no such cell, its weights are gone, it draws no faces, or a file is there already.
        EmobenchError: a wrong emotion, mixture or intensity.
    """
    network = chosen(results, run, "draw")
    model, device = network.load()
    wanted = requests(emotions or ([] if mixes or texts else ["all"]), mixes, intensity, model.emotions)
    wanted += told(texts, model.emotions, text_model)
    seeds = range(seed, seed + n)
    check_new([out / _name(request, each) for request in wanted for each in seeds] + [out / SHEET, out / TABLE], force)
    note(f"drawn by {network.described}")
    sheet, rows = Sheet(), []
    with progress(len(wanted) * n, "faces") as done:
        for request in wanted:
            for part in batches(seeds):
                for each, face in zip(part, drawn(model, device, request.weights, part), strict=True):
                    save(out / _name(request, each), face)
                    sheet.add(request.caption, f"seed {each}", face)
                    rows.append([_name(request, each), each, *request.weights.tolist(), request.intensity])
                done(len(part))
    sheet.write(out / SHEET)
    save_table(out / TABLE, ["file", "seed", *model.emotions, "intensity"], rows)
    print(f"{len(rows):,} faces of {model.size} x {model.size} px are in {out}, with {SHEET} and {TABLE}")
    if sheet.left_out:
        print(f"{SHEET} shows the first {len(rows) - sheet.left_out:,}")


def drawn(model: Any, device: torch.device, weights: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """A face for each of n seeds, uint8 (n, 3, S, S), all of the emotion weights float32 (K,)."""
    asked = torch.from_numpy(weights).expand(len(seeds), -1).to(device)
    with torch.no_grad():
        return np.asarray(model.sample(asked, torch.tensor(seeds, device=device)).cpu().numpy())


def _name(request: Request, seed: int) -> str:
    return f"{request.name}-{seed}.png"


def generate_as_measured(run: str, *, out: Path, force: bool, results: Path, data_root: Path) -> None:
    """Write the very faces that a row was measured on for generation: `fidelity/<emotion>/` and `control/<emotion>/`.

    A picture is named after its place in the sample, from 0, as in `verdicts.parquet`. Where the evaluation kept a
    picture of the first ones, they are compared with it.

    Raises:
        StoreError: there is no such cell, its weights are gone, it was not measured so, or a file is there already.
        EmobenchError: the dataset is another one than the row was measured on.
    """
    from emobench.runner.measured import measured_faces, pictured_faces
    from emobench.runner.record import read_record
    from emobench.runner.store import Store

    network = chosen(results, run, "measured")
    folder = _evaluation(network)
    record = read_record(folder / "result.json")
    emotions = record.cell.emotions
    earlier = [path for kind in ("fidelity", "control") for path in (out / kind).glob(f"*/{'[0-9]' * 6}.png")]
    check_new([out / SHEET, out / TABLE, *earlier], force)
    note(f"drawn by {network.described}, as it was measured")
    sheet, rows = Sheet(), []
    for sample in measured_faces(record, Store(results), data_root):
        for path in earlier:  # of another row, whose sample may be larger
            path.unlink(missing_ok=True)
        with progress(len(sample.images), sample.kind) as done:
            for place, (face, asked, seed) in enumerate(zip(sample.images, sample.asked, sample.seeds, strict=True)):
                emotion = emotions[int(asked)]
                name = f"{sample.kind}/{emotion}/{place:06d}.png"
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                save(out / name, face)
                weights = np.eye(len(emotions))[int(asked)]
                rows.append([name, int(seed), *weights.tolist(), 1.0])
                done(1)
        if sample.kind == "control":
            for k, emotion in enumerate(emotions):
                for place in np.flatnonzero(sample.asked == k)[:_SHOWN]:
                    sheet.add(emotion, f"seed {sample.seeds[place]}", sample.images[place])
            _compare(sample.images, sample.asked, pictured_faces(record, folder))
    sheet.write(out / SHEET)
    save_table(out / TABLE, ["file", "seed", *emotions, "intensity"], rows)
    size = record.cell.size
    print(
        f"{len(rows):,} faces of {size} x {size} px are in {out}/fidelity and {out}/control, with {SHEET} and {TABLE}"
    )


def _evaluation(network: Run) -> Path:
    """The folder of the evaluation that is meant.

    Raises:
        StoreError: a key names none, or several.
    """
    from emobench.runner.record import read_record
    from emobench.runner.store import Store

    if network.evaluation is not None:
        return network.evaluation
    found = []
    for path in sorted(Store(network.results).fit_folder(network.fit_key).glob("*/result.json")):
        record = read_record(path)
        if record.state == "done" and record.evaluation is not None and "generation" in record.evaluation.tracks:
            found.append(path.parent)
    if len(found) != 1:
        raise StoreError(
            f"{network.label}: {len(found) or 'no'} evaluations of generation are here. Name one by its row, as "
            "<board>/<dataset>/<row>"
        )
    return found[0]


def _compare(images: np.ndarray, asked: np.ndarray, kept: np.ndarray | None) -> None:
    """Say whether the first control faces of each emotion are those of which the evaluation kept a picture."""
    if kept is None:
        note("the evaluation kept no picture to compare them with")
        return
    again = np.stack([images[asked == k][: kept.shape[1]] for k in range(len(kept))])
    apart = np.abs(again.astype(np.int16) - kept)
    n = again.shape[0] * again.shape[1]
    if not apart.any():
        note(f"the first {n} for control are those that the evaluation kept, to the last bit")
    else:
        note(
            f"the first {n} for control differ from those that the evaluation kept by up to {apart.max()} grey levels "
            f"({apart.mean():.2g} on average): this machine rounds otherwise than the one that measured"
        )
