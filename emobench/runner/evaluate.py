"""Measuring one finished cell on the test split, in one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from emobench.classifiers.classifier import EmotionClassifier, flops_of, parameters_of
from emobench.data.datamodule import EmotionDataModule
from emobench.errors import EmobenchError, NotFinite
from emobench.metrics.intervals import Interval, bootstrap, grouped, intervals, spread
from emobench.metrics.recognition import class_measures, measures, tally
from emobench.runner.build import load_model
from emobench.runner.machine import identity
from emobench.runner.reuse import made_with
from emobench.runner.store import Store, read_json, write_json, write_table
from emobench.suite.file import Cell


def evaluate(cell: Cell, store: Store, data: EmotionDataModule) -> None:
    """Read the test split once, in this one process, and keep predictions and metrics."""
    compute_in_float32()
    fit_record = read_json(store.fit_folder(cell.fit_key) / "fit.json")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(store, cell.fit_key).to(device)
    test = data.faces[data.faces["split"] == "test"]
    images = np.asarray(data.images[test.index.to_numpy()])
    batch = 256
    predict(model, images[:batch], batch)  # libraries choose their kernels at the first call: not part of the speed
    probabilities, seconds = predict(model, images, batch)
    _check_batches(model, images, probabilities)
    labels = test["label"].to_numpy()
    leaked = data.leaked()[test.index.to_numpy()]
    predictions = pd.DataFrame(
        {
            "index": test.index.to_numpy(),
            "id": test["id"].to_numpy(),
            "subject": test["subject"].to_numpy(),
            "label": labels,
            "prediction": probabilities.argmax(1),
            "leaked": leaked,
            **{f"p_{emotion}": probabilities[:, k].astype(np.float32) for k, emotion in enumerate(data.emotions)},
        }
    )
    folder = store.eval_folder(cell.fit_key, cell.eval_key)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "predictions.parquet", predictions)
    metrics, per_emotion = measured(predictions, data.emotions)
    cost = {
        "params": parameters_of(model),
        **fit_record["cost"],
        "flops": flops_of(model),
        "faces_per_s": len(images) / seconds,
        "batch": batch,
    }
    record = {
        **identity(cell),
        "state": "done",
        "reason": None,
        "dataset": data.described(cell.dataset),
        "metrics": metrics,
        "per_emotion": per_emotion,
        "cost": cost,
        "validation": fit_record["validation"],
        "made_with": made_with(store, cell),
        "fitted_with": fit_record["versions"],
        "fitted_on": fit_record["hardware"],
        "raw": {"predictions": "predictions.parquet"},
    }
    write_json(folder / "result.json", record)


def compute_in_float32() -> None:
    """Switch TF32 off, which makes answers depend on the batch."""
    torch.backends.cudnn.allow_tf32 = False


def measured(predictions: pd.DataFrame, emotions: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values with n and the interval of this one seed, of all faces and of each emotion, from raw predictions."""
    classes = len(emotions)
    labels = predictions["label"].to_numpy()
    faces = tally(
        predictions[[f"p_{emotion}" for emotion in emotions]].to_numpy(),
        labels,
        leaked=predictions["leaked"].to_numpy(),
    )
    subjects = predictions["subject"]
    groups = None if subjects.isna().any() else pd.factorize(subjects)[0].astype(np.int64)

    def statistic(sums: np.ndarray) -> np.ndarray:
        whole, single = measures(sums, classes), class_measures(sums, classes)
        return np.concatenate([np.stack(list(whole.values()), -1), *single.values()], -1)

    units = grouped(faces[None], groups)
    values = statistic(units.sum(1))
    names = list(measures(units.sum(1)[0], classes))
    upper = [np.inf if name == "nll" else 1.0 for name in names] + [1.0] * (values.shape[1] - len(names))
    found = intervals(spread(values[:1], bootstrap(units, statistic), units.shape[1]), upper)
    support = np.bincount(labels, minlength=classes)
    counts = {"accuracy_unleaked": int((~predictions["leaked"]).sum())}
    rows = iter(zip(values[0], found, strict=True))
    whole = {name: _entry(*next(rows), counts.get(name, len(labels))) for name in names}
    per_emotion = {
        name: {emotion: _entry(*next(rows), int(n)) for emotion, n in zip(emotions, support, strict=True)}
        for name in class_measures(units.sum(1)[0], classes)
    }
    return whole, per_emotion


def _entry(value: float, interval: Interval, n: int) -> dict[str, Any]:
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None, "n": n, "reason": "undefined: no such faces"}
    return {"value": float(value), "low": interval.low, "high": interval.high, "n": n, "reason": interval.note}


@torch.inference_mode()
def predict(model: EmotionClassifier, images: np.ndarray, batch: int) -> tuple[np.ndarray, float]:
    """Class probabilities in float64 `(N, K)`, networks in float32, and the seconds that it took.

    Args:
        images: uint8 `(N, C, H, W)`, C 1 or 3.

    Raises:
        NotFinite: an output is NaN or infinite; names the face's place among `images`.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    started = time.perf_counter()
    outputs = []
    for first in range(0, len(images), batch):
        faces = torch.from_numpy(images[first : first + batch]).to(device)
        outputs.append(model(faces.expand(-1, 3, -1, -1)).double().softmax(1).cpu())
    probabilities = torch.cat(outputs).numpy()
    seconds = time.perf_counter() - started
    broken = np.flatnonzero(~np.isfinite(probabilities).all(1))
    if len(broken):
        raise NotFinite(f"the model's output for test face {broken[0]} is not finite ({len(broken)} such faces)")
    return probabilities, seconds


def _check_batches(model: EmotionClassifier, images: np.ndarray, probabilities: np.ndarray) -> None:
    """Predictions must not depend on the batch that a face is in: another size and order give the same.

    Raises:
        EmobenchError: they do, as with a batch norm left in training mode.
    """
    few = np.arange(min(len(images), 96))[::-1]
    again, _ = predict(model, images[few], 7)
    difference = float(np.abs(again - probabilities[few]).max())
    if difference > 1e-3:
        raise EmobenchError(
            f"predictions change with batch size and order, by up to {difference:.2g}: not a classifier"
        )
