"""The Inception-v3 of the FID, KID and IS papers, as torch-fidelity ports it: a file of weights, found and checked.

Only the published file gives numbers of these names; no other network's distance is ever called FID.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emobench.nn.batches import batches
from emobench.nn.weights import read_weights

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
PUBLISHED = "6726825d"  # how the sha256 of the published file begins
_BATCH, _LARGEST = 64, 1024  # faces at a time, and at most on a GPU whose memory has room for them


@dataclass(frozen=True)
class InceptionFile:
    """Where the weights were looked for and what was found.

    Attributes:
        path: None where there is no such file.
        sha256: of the file.
        reason: why no metric comes of it; None: it is the published one.
    """

    path: Path | None
    sha256: str | None
    reason: str | None


def places() -> list[Path]:
    """Where the file is looked for: in `EMOBENCH_WEIGHTS` (`--weights-dir`), then in torch hub's folder."""
    named = os.environ.get("EMOBENCH_WEIGHTS")
    folders = [*([Path(named).expanduser()] if named else []), Path(torch.hub.get_dir()) / "checkpoints"]
    return [folder / FILE for folder in folders]


def find(published: str | None = None) -> InceptionFile:
    """The first file that is there.

    Args:
        published: how the sha256 of the file that counts begins; None: `PUBLISHED`.
    """
    for path in places():
        if path.is_file():
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            known = sha256.startswith(published or PUBLISHED)
            return InceptionFile(path, sha256, None if known else "not the published Inception weights")
    return InceptionFile(None, None, f"Inception weights not found: {FILE}; --weights-dir names a folder that holds it")


class Inception:
    """Features and logits of the network that the weights file holds.

    Args:
        path: of the file; what is in it is read as tensors only, never executed.
        grows: batches may be as large as the GPU's memory allows, by which features differ in their last digits.

    Raises:
        WeightsError: it cannot be read.
    """

    def __init__(self, path: Path, device: torch.device, *, grows: bool = False) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity would load the file itself, and run what is in it: it gets the tensors alone.
        tensors = io.BytesIO()
        torch.save(read_weights(path), tensors)
        tensors.seek(0)
        wanted = ["2048", "logits_unbiased"]
        self.network = FeatureExtractorInceptionV3(
            "inception-v3-compat", wanted, feature_extractor_weights_path=tensors
        )
        self.network.to(device)
        self.device, self.grows = device, grows

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features (N, 2048) and logits (N, 1008) of uint8 (N, C, S, S), resized as the original graph does."""
        features, logits = [], []
        for rows in batches(len(images), _BATCH, _LARGEST, self.device, grows=self.grows):
            part = torch.from_numpy(np.ascontiguousarray(images[rows])).to(self.device)
            found, classes = self.network(part.expand(-1, 3, -1, -1))
            features.append(found.float().cpu())
            logits.append(classes.float().cpu())
        return torch.cat(features).numpy(), torch.cat(logits).numpy()
