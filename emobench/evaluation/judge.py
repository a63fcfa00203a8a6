"""Judges, readers and guides: finished classifiers in the one form in which every evaluation reads with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from emobench.errors import NotFinite
from emobench.evaluation.protocol import LARGEST_READ, READ_BATCH
from emobench.nn.batches import batches


class EmotionReader(Protocol):
    """A network that reads emotions."""

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities (N, K) and features (N, D) of uint8 images (N, C, H, W)."""


@dataclass(frozen=True)
class Judge:
    """A classifier that reads faces.

    Attributes:
        row: its name in the suite.
        network: frozen, in evaluation mode.
        card: what results say of it: its weights and its lineage.
        grows: batches may be as large as the GPU's memory allows, by which answers differ in their last digits.
    """

    row: str
    network: Any
    card: Any
    grows: bool = False

    @torch.inference_mode()
    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities (N, K) and the network's `features` (N, D) of uint8 images (N, C, H, W).

        Raises:
            NotFinite: an output is NaN or infinite; names the face.
        """
        device = self.network.pixel_mean.device
        read: list[tuple[Tensor, Tensor]] = []
        for rows in batches(len(images), READ_BATCH, LARGEST_READ, device, grows=self.grows):
            part = torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)
            logits, seen = self.network.read(part.expand(-1, 3, -1, -1))
            read.append((logits.double().cpu(), seen.float().cpu()))
        logits, seen = (torch.cat(parts) for parts in zip(*read, strict=True))
        shares, features = logits.softmax(1).numpy(), seen.numpy()
        broken = np.flatnonzero(~(np.isfinite(features).all(1) & np.isfinite(shares).all(1)))
        if len(broken):
            raise NotFinite(
                f"{self.row} reads something that is not finite in face {broken[0]} ({len(broken)} such)",
                int(broken[0]),
            )
        return shares, features
