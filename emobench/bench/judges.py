"""Judges, readers and guides: finished classifiers in the one form in which every evaluation loads them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from emobench.atomic import replacing
from emobench.bench.build import build_model
from emobench.bench.store import JUDGE, Store, finished, intact, is_current, read_json, sha256_of
from emobench.classifiers.classifier import EmotionClassifier
from emobench.errors import NotFinite, StoreError
from emobench.suite import Cell

_BATCH = 256  # faces


@dataclass(frozen=True)
class Judge:
    """A classifier that reads faces, and where it comes from."""

    cell: Cell
    sha256: str  # of its weights in float16
    network: EmotionClassifier

    def card(self) -> dict[str, Any]:
        """What results say of it: its weights and its lineage."""
        fit = self.cell.fit
        return {
            "row": self.cell.row,
            "fit_key": self.cell.fit_key,
            "sha256": self.sha256,
            "architecture": self.network.architecture(fit["arguments"]),
            "seed": self.cell.seed,
            "data": fit["data"]["fingerprint"],
            "needs": self.cell.needs,
        }

    @torch.inference_mode()
    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities (N, K) and the network's `features` (N, D) of uint8 images (N, C, H, W).

        Raises:
            NotFinite: an output is NaN or infinite; names the face.
        """
        device = self.network.pixel_mean.device
        read: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(images), _BATCH):
            part = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).to(device)
            logits, seen = self.network.read(part.expand(-1, 3, -1, -1))
            read.append((logits.double().cpu(), seen.float().cpu()))
        logits, seen = (torch.cat(parts) for parts in zip(*read, strict=True))
        shares, features = logits.softmax(1).numpy(), seen.numpy()
        broken = np.flatnonzero(~(np.isfinite(features).all(1) & np.isfinite(shares).all(1)))
        if len(broken):
            raise NotFinite(
                f"{self.cell.row} reads something that is not finite in face {broken[0]} ({len(broken)} such)",
                int(broken[0]),
            )
        return shares, features


def load(store: Store, fit_keys: Sequence[str], device: torch.device) -> list[Judge]:
    """Finished classifiers: their weights in float16, written beside the full ones when they first judge.

    Raises:
        StoreError: one is not finished here, or its weights are gone.
    """
    return [_load(store, fit_key, device) for fit_key in fit_keys]


def _load(store: Store, fit_key: str, device: torch.device) -> Judge:
    record = store.fit_folder(fit_key) / "fit.json"
    if not finished(record):
        raise StoreError(f"{record}: the judge {fit_key} is not finished here. Run its suite first")
    cell = Cell.from_record(read_json(record))
    path = store.fit_folder(fit_key) / JUDGE
    if not is_current(path, store.weights(fit_key)):
        _write(store, fit_key, path)
    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    network = build_model(cell, store, pretrained=False)
    network.load_state_dict(state)
    return Judge(cell, sha256_of(path), network.to(device).eval().requires_grad_(False))


def _write(store: Store, fit_key: str, path: Path) -> None:
    weights = store.weights(fit_key)
    if not intact(weights):
        raise StoreError(f"{weights}: the weights are gone or cut short. Run the suite again with --on-existing redo")
    with replacing(path) as temporary:
        save_file(_half(weights), temporary)


def judging_sha256(weights: Path) -> str:
    """SHA-256 that a classifier's weights have in the form in which they judge."""
    return hashlib.sha256(save(_half(weights))).hexdigest()


def _half(weights: Path) -> dict[str, Tensor]:
    """Weights in float16; counters stay what they are."""
    state = load_file(weights)
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
