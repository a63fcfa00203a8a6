"""Measuring one finished cell on its tracks, in one process, and keeping what was measured."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from emobench.classifiers.classifier import EmotionClassifier, flops_of, parameters_of
from emobench.classifiers.cross_validated import CrossValidated
from emobench.data.datamodule import EmotionDataModule
from emobench.errors import StoreError, WeightsError
from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.given import is_given, side
from emobench.evaluation.independence import check_answers
from emobench.evaluation.judge import Judge
from emobench.evaluation.outside import Answers, answers, label_order, renamed
from emobench.evaluation.protocol import READ_BATCH
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.sampler import Sampler
from emobench.evaluation.task import Task
from emobench.evaluation.tracks import explanation, recognition
from emobench.evaluation.values import Value
from emobench.files import Attempt, published, replacing
from emobench.metrics import inception
from emobench.metrics.identity import Embedding, Lpips
from emobench.metrics.recognition import class_measures, measures, tally
from emobench.runner.build import load_judges, load_model, model_class, new_model
from emobench.runner.machine import record_of
from emobench.runner.record import Dataset, Evaluation, LabelOrder, Outside, TrackValues, read_record
from emobench.runner.reuse import made_with
from emobench.runner.store import HISTORY, WEBP, Store, write_table
from emobench.suite.catalog import metrics_of, tracks
from emobench.suite.cell import Cell

_SPEED_OF = {"generation": "control", "stylization": "stylization at 256 px"}  # track -> what is timed, else its name


def evaluate(cell: Cell, store: Store, data: EmotionDataModule) -> None:
    """Measure a finished cell; raw results, pictures and the record are put into the store.

    Raises:
        NotFinite: an output, a face or a feature is NaN or infinite.
        StoreError, WeightsError: a judge or a weight file is gone, or the file is another one than was planned with.
    """
    fit = read_record(store.fit_folder(cell.fit_key) / "fit.json").fit
    folder = store.eval_folder(cell.fit_key, cell.eval_key)
    with Attempt.at(folder, published(folder)) as attempt:
        reads = measure_explained if cell.track == "explanation" else measure_classifier
        measure = reads if issubclass(model_class(cell), EmotionClassifier) else measure_judged
        evaluation = _with_history(cell, store, measure(cell, store, data, attempt.folder), attempt.folder)
        made = record_of(cell, "done", fit=fit, evaluation=evaluation, made_with=made_with(store, cell))
        made.write(attempt.folder / "result.json")
        if not attempt.publish("result.json"):
            print("another process has finished this evaluation meanwhile: its result is the one that counts")


def _with_history(cell: Cell, store: Store, evaluation: Evaluation, folder: Path) -> Evaluation:
    """The evaluation with a copy of its fit's history among its raw files, which travel with a board."""
    source = store.fit_folder(cell.fit_key) / "history.csv"
    if not cell.trains or not source.is_file():
        return evaluation
    with replacing(folder / source.name) as temporary:
        shutil.copyfile(source, temporary)
    return evaluation.model_copy(update={"raw": {**evaluation.raw, HISTORY: source.name}})


def loaded(cell: Cell, store: Store) -> tuple[Any, torch.device]:
    """The cell's network where it is measured."""
    # float32 is measured in: TF32 makes answers depend on the batch.
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_model(store, cell.fit_key, cell.datasets, cell.dataset).to(device), device


def _described(cell: Cell, data: EmotionDataModule) -> Dataset:
    return Dataset.model_validate(data.described(cell.dataset))


def measure_classifier(cell: Cell, store: Store, data: EmotionDataModule, folder: Path) -> Evaluation:
    """Read the test split once; `folder`: for raw results."""
    model, _ = loaded(cell, store)
    said, outside = _outside(cell, store, model, data) if hasattr(model, "said") else (None, None)
    predictions, speed = recognition.measure(model, data, metrics_of("recognition"), said)
    write_table(folder / "predictions.parquet", predictions)
    values, per_emotion = summary(predictions, data.emotions)
    if outside is not None and outside.by_class:
        why = "it says classes alone, and no probabilities"
        values |= {name: Value(None, values[name].n, why) for name in ("ece", "nll")}
    network: Any = model.members[0] if isinstance(model, CrossValidated) else model  # by which its size is known
    return Evaluation(
        dataset=_described(cell, data),
        tracks={"recognition": TrackValues(values=values, per_emotion=per_emotion, faces_per_s=speed)},
        params=parameters_of(network),
        flops=0 if outside is not None else flops_of(network),
        batch=READ_BATCH if outside is None else model.hparams.get("batch", READ_BATCH),
        outside=outside,
        raw={"predictions": "predictions.parquet"},
    )


def _outside(cell: Cell, store: Store, model: Any, data: EmotionDataModule) -> tuple[Answers, Outside]:
    """What an outside model says of the test faces, and what is to be said of it.

    The order of its classes is looked at on validation faces; of a file of predictions, which has none, on test faces.
    """
    of = {split: data.faces[data.faces["split"] == split] for split in ("val", "test")}
    said = answers(model, data, of["test"])
    split: Literal["val", "test"] = "test" if model.said is None else "val"
    looked_at = said if split == "test" else answers(model, data, of["val"])
    found = label_order(looked_at, data, of[split])
    emotions = said.emotions
    known = [emotion is not None and emotion in data.emotions for emotion in emotions]
    order = LabelOrder(
        renamed=renamed(found, said.labels, data.emotions),
        gain=found.gain,
        low=found.low,
        power=found.power,
        faces=found.faces,
        split=split,
    )
    outside = Outside(
        preprocessing=None if model.said is None else model.said.words(),
        labels=list(said.labels),
        lacking=[each for each in data.emotions if each not in emotions],
        dropped=[label for label, is_known in zip(said.labels, known, strict=True) if not is_known],
        elsewhere=int(((said.predictions < 0) & (said.own >= 0)).sum()),
        missing=int((said.own < 0).sum()),
        by_class=said.by_class,
        order=order,
        earlier=_earlier(cell, store, list(said.labels)),
    )
    return said, outside


def _earlier(cell: Cell, store: Store, labels: list[str]) -> list[list[str]]:
    """Other orders in which the classes of the same file were measured here, and that an audit did not believe."""
    found: list[list[str]] = []
    for path in store.cells.glob("*/*/result.json"):
        try:
            record = read_record(path)
        except (StoreError, FileNotFoundError):
            continue
        outside = None if record.evaluation is None else record.evaluation.outside
        same = record.made_of.fit.get("files") == cell.fit.get("files") and outside is not None
        if same and outside is not None and outside.order is not None and outside.order.renamed:
            found += [outside.labels] if outside.labels not in (labels, *found) else []
    return found


def summary(predictions: pd.DataFrame, emotions: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values with their n, of all faces and of each emotion, from raw predictions: what a reader of a record looks for.

    Intervals are the report's, which computes the values again.
    """
    classes, labels = len(emotions), predictions["label"].to_numpy()
    shares = predictions[[f"p_{emotion}" for emotion in emotions]].to_numpy()
    leaked, copied = predictions["leaked"].to_numpy(), predictions["copied"].to_numpy()
    sums = tally(shares, labels, leaked=leaked, copied=copied).sum(0)
    counts = {"accuracy_unleaked": int((~leaked).sum()), "accuracy_distinct": int((~copied).sum())}
    support = np.bincount(labels, minlength=classes)

    def value(number: Any, n: int) -> Value:
        return Value(float(number), n) if np.isfinite(number) else Value(None, n, "undefined: no such faces")

    whole = {name: value(of, counts.get(name, len(labels))) for name, of in measures(sums, classes).items()}
    single = {
        name: {emotion: value(of[k], int(support[k])) for k, emotion in enumerate(emotions)}
        for name, of in class_measures(sums, classes).items()
    }
    return whole, single


def measure_explained(cell: Cell, store: Store, data: EmotionDataModule, folder: Path) -> Evaluation:
    """Make the maps of some test faces; `folder`: for raw results and pictures."""
    model, device = loaded(cell, store)
    untrained = new_model(cell, {}, pretrained=False).to(device).eval() if cell.trains else None
    found = explanation.measure(model, untrained, data, cell.evaluation["explain"])
    write_table(folder / "explanations.parquet", found.faces)
    raw = {"explanations": "explanations.parquet"}
    if found.arrays:
        with replacing(folder / "maps.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **found.arrays)
        raw["maps"] = "maps.npz"
    for kind, (faces, real_people) in found.pictures.items():
        _write_picture(faces, folder / f"{kind}.webp")
        raw |= {} if real_people else {kind: f"{kind}.webp"}
    return Evaluation(
        dataset=_described(cell, data),
        tracks={"explanation": TrackValues(values={"attention_on_units": found.value})},
        params=parameters_of(model),
        flops=0 if hasattr(model, "said") else flops_of(model),
        batch=READ_BATCH,
        raw=raw,
    )


def measure_judged(cell: Cell, store: Store, data: EmotionDataModule, folder: Path) -> Evaluation:
    """Have the model do what its tracks ask for, and the panel read it; `folder`: for raw results and pictures."""
    model, device = loaded(cell, store)
    settings = {**cell.evaluation["faces"], "cues": cell.evaluation.get("cues")}

    def load(fit_keys: Sequence[str]) -> list[Judge]:
        return load_judges(store, fit_keys, device, grows=_grows(cell))

    judges, (reader,) = (load(cell.panel[role]) for role in ("judges", "reader"))
    behind = {judge.card.fit_key: judge for judge in load(_behind(store, cell.needs))}
    guides = [behind[fit_key] for fit_key in _classifiers(store, cell.needs)]
    real = RealFaces.of(data, settings["fidelity"])
    check_answers([*judges, reader], [*behind.values()], real)
    fidelity = _fidelity(cell, real, reader, data.cache, device)
    known = tracks()
    measured = {name: known[name] for name in cell.evaluation["tracks"]}
    sampler = sampler_of(cell, model, data, real, device)
    metrics = {name: metrics_of(name) for name in measured}
    task = Task(sampler, judges, guides, real, fidelity, settings, data, _networks(cell, device), metrics, device)
    task.judge_real_faces()
    references: dict[str, dict[str, Any]] = {"floor": fidelity.measure(real.faces(real.floor), "floor", again=True)}
    task.copies["copies"] = real.faces(real.reference)
    values = {name: dict(track.measure(task)) for name, track in measured.items()}
    references["copies"] = {}
    for name, share in fidelity.copied(task.copies).items():
        (references if name in references else values)[name]["memorisation"] = share
    write_table(folder / "verdicts.parquet", pd.concat(task.tables, ignore_index=True))
    raw = {"verdicts": "verdicts.parquet"}
    for kind, (faces, real_people) in task.pictures.items():
        _write_picture(faces, folder / f"{kind}.webp")
        raw |= {} if real_people else {kind: f"{kind}.webp"}
    speeds = {name: sampler.speed.get(_SPEED_OF.get(name, name)) for name in measured}
    return Evaluation(
        dataset=_described(cell, data),
        tracks={name: TrackValues(values=values[name], faces_per_s=speeds[name]) for name in measured},
        references=references,
        params=_parameters(model, cell, store),
        flops=0 if is_given(model) else _flops(model, device),
        batch=sampler.batch,
        own_size=side(model) if is_given(model) else model.size,
        outside=Outside(preprocessing=None, labels=[], pictures=sampler.given) if is_given(model) else None,
        draws=hasattr(model, "sample"),
        panel=[judge.card for judge in judges],
        reader=reader.card,
        guides=[guide.card for guide in guides],
        raw=raw,
    )


def sampler_of(cell: Cell, model: Any, data: EmotionDataModule, real: RealFaces, device: torch.device) -> Sampler:
    """What asks the cell's model for faces."""
    return Sampler(model, data.emotions, data.size, real, device, grows=_grows(cell))


def _grows(cell: Cell) -> bool:
    """Whether batches may be as large as a GPU's memory allows: not where last digits must not hang on what is free."""
    return not cell.trainer.get("deterministic")


def _write_picture(faces: np.ndarray, path: Path) -> None:
    """A picture of faces uint8 (rows, columns, 3, S, S), small ones enlarged."""
    rows, columns, _, side, _ = faces.shape
    canvas = faces.transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
    times = enlarged(side)
    picture = Image.fromarray(np.ascontiguousarray(canvas))
    with replacing(path) as temporary:
        large = picture.resize((columns * side * times, rows * side * times), Image.Resampling.NEAREST)
        large.save(temporary, "WEBP", **WEBP)


def enlarged(side: int) -> int:
    """How many times as large a picture shows faces of `side` px."""
    return max(1, round(48 / side))


def _parameters(model: Any, cell: Cell, store: Store) -> int:
    """Of what makes the faces: a search has none of its own, but those of the networks that it is run through."""
    if cell.trains:
        return parameters_of(model)
    return sum(parameters_of(load_model(store, key)) for keys in cell.needs.values() for key in keys)


def _classifiers(store: Store, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of the needs that read emotions."""
    keys = [key for keys in needs.values() for key in keys]
    cells = {key: read_record(store.fit_folder(key) / "fit.json").planned for key in keys}
    return [key for key in keys if issubclass(model_class(cells[key]), EmotionClassifier)]


def _behind(store: Store, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The classifiers among the needs, and among what these need, at any depth."""
    found = _classifiers(store, needs)
    for key in dict.fromkeys(key for keys in needs.values() for key in keys):
        found += _behind(store, read_record(store.fit_folder(key) / "fit.json").planned.needs)
    return list(dict.fromkeys(found))


def _fidelity(cell: Cell, real: RealFaces, reader: Any, cache: Path, device: torch.device) -> Fidelity:
    """With Inception where the suite was planned with its file."""
    planned = cell.evaluation["files"]["inception"]
    network = None
    if planned["reason"] is None:
        found = inception.find(planned["sha256"])
        if found.path is None or found.reason is not None:
            raise WeightsError(f"{inception.FILE} changed while the sweep ran. Run the same command again")
        network = inception.Inception(found.path, device, grows=_grows(cell))
    return Fidelity(real, reader, network, planned["sha256"], planned["reason"], cache)


def _networks(cell: Cell, device: torch.device) -> dict[str, Any]:
    """The further networks that the suite names, by use."""
    files = cell.evaluation["files"]
    found: dict[str, Any] = {}
    if files["identity"] is not None:
        found["identity"] = Embedding(Path(cell.files["identity"]))
    if files["lpips"] is not None:
        found["lpips"] = Lpips(cell.files["lpips"], device, grows=_grows(cell))
    return found


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
