"""Evaluating one finished generator, in one process: who judges it, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from emobench.classifiers.classifier import EmotionClassifier, parameters_of
from emobench.data.datamodule import EmotionDataModule
from emobench.errors import WeightsError
from emobench.evaluation.judging import BATCH, Drawing, Kept, Questions, Real, Rows, Yardstick
from emobench.files import replacing
from emobench.generators.generator import tracks
from emobench.metrics import inception
from emobench.metrics.identity import Embedding, Lpips
from emobench.runner.build import load_model, model_class
from emobench.runner.evaluate import compute_in_float32
from emobench.runner.judges import Judge, load
from emobench.runner.machine import identity
from emobench.runner.reuse import made_with
from emobench.runner.store import WEBP, Store, read_json, write_json, write_table
from emobench.suite.file import Cell

_SPEEDS = {"faces_per_s": "control", "edits_per_s": "editing", "stylized_per_s": "stylization at 256 px"}
GRID = 10  # faces of each emotion in the picture


def evaluate_generator(cell: Cell, store: Store, data: EmotionDataModule) -> None:
    """Draw, judge and compare; keep the judges' verdicts on every face and the numbers of whole samples.

    Raises:
        NotFinite: a face or a feature is NaN or infinite; nothing is written.
        StoreError, WeightsError: a judge or a weight file is gone, or the file is another one than was planned with.
    """
    compute_in_float32()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = load_model(store, cell.fit_key, cell.datasets, cell.dataset).to(device)
    can, plan = tracks(type(model)), cell.evaluation["faces"]
    judges, (reader,) = (load(store, cell.panel[role], device) for role in ("judges", "reader"))
    guides = load(store, _classifiers(store, cell.needs), device)
    real = Real.of(data, plan["fidelity"])
    drawing = Drawing(model, data.emotions, data.size, Rows(real.images, real.val), device)
    questions = Questions(drawing, judges, guides, real, data.emotions)
    questions.real_faces()
    yardstick = _yardstick(cell, real, reader, data.cache, device)
    folder = store.eval_folder(cell.fit_key, cell.eval_key)
    folder.mkdir(parents=True, exist_ok=True)
    raw = {"verdicts": "verdicts.parquet"}
    copies = {"copies": real.faces(real.reference)}
    metrics: dict[str, Any] = {"floor": yardstick.measure(real.faces(real.floor), "floor", again=True), "copies": {}}
    drawn_faces = hasattr(model, "sample") or not data.expects  # else they are edits of real people's pictures
    own = raw if drawn_faces else {}
    if "generation" in can or "editing" in can:
        fakes = questions.fidelity()
        metrics["generation"] = yardstick.measure(fakes, "fidelity")
        copies["generation"] = fakes
        faces = questions.control(plan["per_emotion"])
        _picture(faces[:GRID].swapaxes(0, 1), folder, "samples", own)
        if plan["intensity"] and "neutral" in data.emotions:
            _picture(questions.intensity(plan["intensity"])[:, :, 0], folder, "intensity", own)
    for name, found in yardstick.copied(copies).items():
        metrics[name]["memorisation"] = found
    if "editing" in can:
        kept = Kept(data, _embedding(cell), _lpips(cell, device))
        edited, grid = questions.editing(plan["sources"], kept)
        metrics["editing"] = yardstick.measure(edited, "editing")
        _picture(grid, folder, "edits", {} if data.expects else raw)
    if "stylization" in can:
        _picture(questions.stylization(plan["sources"]), folder, "styles", {} if data.expects else raw)
    write_table(folder / raw["verdicts"], pd.concat(questions.tables, ignore_index=True))
    fit_record = read_json(store.fit_folder(cell.fit_key) / "fit.json")
    cost = {
        "params": _parameters(model, cell, store),
        **fit_record["cost"],
        "flops": _flops(model, device),
        "batch": BATCH,
    }
    record = {
        **identity(cell),
        "state": "done",
        "reason": None,
        "tracks": list(can),
        "own_size": model.size,
        "draws": hasattr(model, "sample"),
        "dataset": data.described(cell.dataset),
        "panel": [judge.card() for judge in judges],
        "reader": reader.card(),
        "guides": [guide.card() for guide in guides],
        "metrics": metrics,
        "cost": {**cost, **{name: drawing.speed.get(what) for name, what in _SPEEDS.items()}},
        "made_with": made_with(store, cell),
        "fitted_with": fit_record["versions"],
        "fitted_on": fit_record["hardware"],
        "raw": raw,
    }
    write_json(folder / "result.json", record)


def _parameters(model: Any, cell: Cell, store: Store) -> int:
    """Of what makes the faces: a search has none of its own, but those of the networks that it is run through."""
    if cell.trains:
        return parameters_of(model)
    return sum(parameters_of(load_model(store, key)) for keys in cell.needs.values() for key in keys)


def _classifiers(store: Store, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of the needs that read emotions."""
    keys = [key for keys in needs.values() for key in keys]
    cells = {key: Cell.from_record(read_json(store.fit_folder(key) / "fit.json")) for key in keys}
    return [key for key in keys if issubclass(model_class(cells[key]), EmotionClassifier)]


def _yardstick(cell: Cell, real: Real, reader: Judge, cache: Path, device: torch.device) -> Yardstick:
    """With Inception where the suite was planned with its file."""
    planned = cell.evaluation["files"]["inception"]
    network = None
    if planned["reason"] is None:
        found = inception.find(planned["sha256"])
        if found.path is None or found.reason is not None:
            raise WeightsError(f"{inception.FILE} changed while the sweep ran. Run the same command again")
        network = inception.Inception(found.path, device)
    return Yardstick(real, reader, network, planned["sha256"], planned["reason"], cache)


def _embedding(cell: Cell) -> Embedding | None:
    file = cell.evaluation["files"]["identity"]
    return None if file is None else Embedding(Path(cell.files["identity"]))


def _lpips(cell: Cell, device: torch.device) -> Lpips | None:
    file = cell.evaluation["files"]["lpips"]
    return None if file is None else Lpips(cell.files["lpips"], device)


def _flops(model: Any, device: torch.device) -> float:
    """FLOPs of one face, drawn, edited or stylized."""
    emotions = torch.eye(len(model.emotions), device=device)[:1]
    seeds = torch.zeros(1, dtype=torch.int64, device=device)
    with FlopCounterMode(display=False) as counter:
        face = torch.zeros(1, 3, model.size, model.size, dtype=torch.uint8, device=device)
        if hasattr(model, "sample"):
            model.sample(emotions, seeds)
        elif hasattr(model, "edit"):
            model.edit(face, emotions, seeds)
        else:
            model.stylize(face, emotions)
    return float(counter.get_total_flops())


def _picture(faces: np.ndarray, folder: Path, name: str, raw: dict[str, str]) -> None:
    """A picture of faces uint8 (rows, columns, 3, S, S), small ones enlarged; what is in `raw` goes to the board."""
    rows, columns, _, side, _ = faces.shape
    canvas = faces.transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
    times = max(1, round(48 / side))
    picture = Image.fromarray(np.ascontiguousarray(canvas))
    path = folder / f"{name}.webp"
    with replacing(path) as temporary:
        large = picture.resize((columns * side * times, rows * side * times), Image.Resampling.NEAREST)
        large.save(temporary, "WEBP", **WEBP)
    raw[name] = path.name
