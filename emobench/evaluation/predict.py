"""What a finished classifier says of faces, and the check that it says so whatever the batch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from emobench.errors import EmobenchError, NotFinite
from emobench.evaluation.protocol import SAME_ANSWER


@torch.inference_mode()
def predict(model: Any, images: np.ndarray, batch: int) -> tuple[np.ndarray, float]:
    """Class probabilities in float64 `(N, K)`, networks in float32, and the seconds that it took.

    Args:
        model: a classifier in evaluation mode: uint8 (N, 3, H, W) to logits (N, K).
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


def check_batches(model: Any, images: np.ndarray, probabilities: np.ndarray) -> None:
    """Predictions must not depend on the batch that a face is in: another size and order give the same.

    Raises:
        EmobenchError: they do, as with a batch norm left in training mode.
    """
    few = np.arange(min(len(images), 96))[::-1]
    again, _ = predict(model, images[few], 7)
    difference = float(np.abs(again - probabilities[few]).max())
    if difference > SAME_ANSWER:
        raise EmobenchError(
            f"predictions change with batch size and order, by up to {difference:.2g}: not a classifier"
        )
