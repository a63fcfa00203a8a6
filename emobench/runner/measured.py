"""The faces that a row's figures of generation were measured on, drawn once more by its network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from emobench.errors import DatasetError, EmobenchError
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.tracks.generation import control_request, fidelity_request
from emobench.runner.build import build_data
from emobench.runner.evaluate import enlarged, loaded, sampler_of
from emobench.runner.record import Record
from emobench.runner.store import Store


@dataclass(frozen=True)
class Sample:
    """Faces of one kind, in the order in which the evaluation asked for them.

    Attributes:
        kind: "fidelity", whose distance from real faces is measured, or "control", which the panel reads.
        images: uint8 (N, 3, S, S) at the evaluation size.
        asked: (N,) emotions, numbers of the dataset's.
        seeds: (N,) of the noise.
    """

    kind: str
    images: np.ndarray
    asked: np.ndarray
    seeds: np.ndarray


def measured_faces(record: Record, store: Store, data_root: Path) -> Iterator[Sample]:
    """The fidelity sample and the control sample of a finished evaluation, one after the other.

    The same requests, seeds and batches; where rounding differs, as on another processor or with another number of
    threads, a face may differ too.

    Raises:
        EmobenchError: the dataset is another one than the row was measured on, or the weights are gone.
    """
    cell = record.planned
    try:
        data = build_data(cell, data_root)
    except DatasetError:
        raise
    except EmobenchError:  # that is said of a sweep
        raise EmobenchError(
            f"{cell.dataset}: what lies below {data_root}, or the code that reads it, is not what the row was measured "
            "on. Name its folder by --data"
        ) from None
    data.prepare()
    model, device = loaded(cell, store)
    settings, classes = cell.evaluation["faces"], len(data.emotions)
    real = RealFaces.of(data, settings["fidelity"])
    sampler = sampler_of(cell, model, data, real, device)
    requests = {"fidelity": fidelity_request(real), "control": control_request(settings["per_emotion"], classes)}
    for kind, (asked, seeds) in requests.items():
        yield Sample(kind, sampler.sample(np.eye(classes)[asked], seeds, kind), asked, seeds)


def pictured_faces(record: Record, folder: Path) -> np.ndarray | None:
    """The first control faces of each emotion as the evaluation kept them, uint8 (K, n, 3, S, S); None: it did not.

    Args:
        folder: of the record and its raw files.
    """
    name = None if record.evaluation is None else record.evaluation.raw.get("samples")
    if name is None or not (folder / name).is_file():
        return None
    side, classes = record.cell.size, len(record.cell.emotions)
    times = enlarged(side)
    with Image.open(folder / name) as opened:
        picture = np.asarray(opened.convert("RGB"))[::times, ::times]
    across = picture.shape[1] // side
    if picture.shape != (classes * side, across * side, 3):
        return None
    return picture.reshape(classes, side, across, side, 3).transpose(0, 2, 4, 1, 3)
