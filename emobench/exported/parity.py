"""Does an exported file say what the network says? The largest difference on the same faces, emotions and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emobench.classifiers.classifier import EmotionClassifier
from emobench.exported import load
from emobench.exported.hf import HfClassifier
from emobench.exported.onnx import Session
from emobench.generators.search import SearchingGenerator

FACES, SEARCHED = 64, 4  # faces that are compared; of a search, each of which takes a hundred times as long
PROBABILITY, GREY = 1e-4, 1.0  # differences that pass


class Parity(NamedTuple):
    """How far an exported file is from its network.

    Attributes:
        faces: how many were compared.
        largest: difference of a probability, or of a grey level.
        most: that passes.
        of: what differs, in words.
        whose: the faces, in words.
    """

    faces: int
    largest: float
    most: float
    of: str
    whose: str

    @property
    def passed(self) -> bool:
        """Also where something is NaN."""
        return self.largest <= self.most

    def __str__(self) -> str:
        return f"the largest difference of {self.of} is {self.largest:.2g}, on {self.faces} {self.whose}"


@torch.no_grad()
def parity(network: Any, path: Path, form: str, faces: Tensor, whose: str) -> Parity:
    """Compare a network with what lies in a file, or in a folder for transformers.

    Args:
        network: frozen, in evaluation mode, on the CPU.
        form: "onnx", "safetensors" or "hf".
        faces: uint8 (64, 3, S, S) of the evaluation size; of "hf", of the size that the network sees.
        whose: what they are, in words.
    """
    if isinstance(network, EmotionClassifier):
        read: Any = {"onnx": Session, "safetensors": load, "hf": HfClassifier}[form](path)
        shares = [each(faces).double().softmax(1) for each in (network, read)]
        return Parity(len(faces), _largest(*shares), PROBABILITY, "a probability", whose)
    faces = faces[:SEARCHED] if isinstance(network, SearchingGenerator) else faces
    seeds = torch.arange(len(faces))
    emotions = torch.eye(len(network.emotions))[seeds % len(network.emotions)]
    if form == "onnx":
        session = Session(path)
        noise = session.provenance.noise
        if noise is None:
            pairs = [(network.edit(faces, emotions, seeds), session(faces, emotions))]
        else:
            pairs = [(network.sample(emotions, seeds), session(emotions, _noise(seeds, noise.dimensions)))]
        edits = noise is None
    else:
        pairs = list(zip(*(_made(each, faces, emotions, seeds) for each in (network, load(path))), strict=True))
        edits = hasattr(network, "edit") or hasattr(network, "stylize")
    largest = max(_largest(one.double(), other.double()) for one, other in pairs)
    return Parity(len(faces), largest, GREY, "a grey level", whose if edits else "drawn faces")


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def _noise(seeds: Tensor, dimensions: int) -> Tensor:
    """As the metadata of a file says."""
    drawn = [np.random.default_rng(seed).standard_normal(dimensions, dtype=np.float32) for seed in seeds.tolist()]
    return torch.from_numpy(np.stack(drawn))


def _made(network: Any, faces: Tensor, emotions: Tensor, seeds: Tensor) -> list[Tensor]:
    """All that a network makes: drawn, edited and stylized faces."""
    made = [network.sample(emotions, seeds)] if hasattr(network, "sample") else []
    made += [network.edit(faces, emotions, seeds)] if hasattr(network, "edit") else []
    return made + ([network.stylize(faces, emotions)] if hasattr(network, "stylize") else [])
