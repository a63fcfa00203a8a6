"""A file like the published Inception network's, with random weights: same arithmetic, same cost, no meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from emobench.metrics import inception


def write_weights(folder: Path) -> Path:
    """The file, under the published one's name."""
    path = folder / inception.FILE
    torch.save({}, path)
    load = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = lambda *_: None
    try:
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=str(path))
    finally:
        FeatureExtractorInceptionV3.load_state_dict = load
    for parameter in network.parameters():
        if parameter.ndim > 1:  # so that faces differ in the features: torch's own start lets them fade on the way
            torch.nn.init.kaiming_normal_(parameter)
    torch.save(network.state_dict(), path)
    return path


def write_faces(images: np.ndarray, folder: Path) -> str:
    """uint8 (N, 3, S, S) as PNG files, for torch-fidelity."""
    folder.mkdir()
    for place, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{place:04d}.png")
    return str(folder)
