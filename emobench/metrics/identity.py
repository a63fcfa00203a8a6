"""Is it still the same person? Comparisons of pairs of faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional import image

from emobench.errors import WeightsError
from emobench.nn.perceptual import VGG16Features
from emobench.nn.weights import read_weights

Images = NDArray[np.uint8]

_EMBEDDED = 112  # px, the input of face-recognition networks such as MobileFaceNet
_BATCH = 128
_SSIM_BATCH = 16  # the windows of more faces, in float64, take gigabytes
_LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # of VGG16


def ssim(one: Images, other: Images) -> NDArray[np.float64]:
    """(N,) structural similarity of pairs uint8 (N, C, S, S); Wang et al. 2004, eq. 13, 11 px Gaussian windows."""
    found = []
    for start in range(0, len(one), _SSIM_BATCH):
        a, b = (torch.from_numpy(each[start : start + _SSIM_BATCH].astype(np.float64)) for each in (one, other))
        found.append(image.structural_similarity_index_measure(a, b, data_range=255.0, reduction="none"))
    return np.asarray(torch.cat(found).numpy())  # type: ignore[arg-type]


def psnr(one: Images, other: Images) -> NDArray[np.float64]:
    """(N,) peak signal-to-noise ratio of pairs, dB, of 255 levels; equal faces have 99."""
    error = np.square(one.astype(np.float64) - other).reshape(len(one), -1).mean(1)
    return np.asarray(np.minimum(99.0, 10 * np.log10(255**2 / np.maximum(error, 1e-10))))


class Embedding:
    """A face-recognition network that the user names: an ONNX file, input (N, 3, 112, 112), RGB in [-1, 1].

    Raises:
        WeightsError: the file cannot be read, or takes other images.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # it would take all cores
        options.log_severity_level = 3
        try:
            self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises kinds of its own
            raise WeightsError(f"{path}: cannot be read as an ONNX network ({error})") from None
        self.input = self.session.get_inputs()[0]
        if list(self.input.shape[1:]) != [3, _EMBEDDED, _EMBEDDED]:
            raise WeightsError(f"{path}: takes {self.input.shape}, not (N, 3, {_EMBEDDED}, {_EMBEDDED})")

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Unit vectors (N, D) of faces uint8 (N, 3, S, S)."""
        found = []
        size = self.input.shape[0] if isinstance(self.input.shape[0], int) else _BATCH
        for start in range(0, len(images), size):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + size])).float()
            side = (_EMBEDDED, _EMBEDDED)
            pixels = torch.nn.functional.interpolate(pixels, side, mode="bilinear", antialias=True)
            (vectors,) = self.session.run(None, {self.input.name: (pixels / 127.5 - 1).numpy()})
            found.append(vectors)
        vectors = np.concatenate(found)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) cosine of pairs of unit vectors."""
    return np.asarray(np.einsum("nd,nd->n", one.astype(np.float64), other))


class Lpips:
    """LPIPS (Zhang et al. 2018, eq. 1) with VGG16: unit-length activations, their weighted squared differences.

    Args:
        weights: path of torchvision's VGG16 (ImageNet); the paper's weights of the channels come with torchmetrics.

    Raises:
        WeightsError: the file is missing or is no VGG16.
    """

    def __init__(self, weights: str, device: torch.device) -> None:
        self.see, self.device = VGG16Features(weights, _LPIPS_LAYERS), device
        linear = read_weights(Path(image.__file__).parent / "lpips_models" / "vgg.pth")
        self.weights = [linear[f"lin{place}.model.1.weight"].to(device) for place in range(len(_LPIPS_LAYERS))]

    @torch.inference_mode()
    def __call__(self, one: Images, other: Images) -> NDArray[np.float64]:
        """(N,) distances of pairs uint8 (N, 3, S, S)."""
        found = []
        for start in range(0, len(one), _BATCH):
            pair = [torch.from_numpy(np.ascontiguousarray(each[start : start + _BATCH])) for each in (one, other)]
            first, second = (self.see(each.to(self.device).float() / 127.5 - 1) for each in pair)
            terms = [
                (weight * (_unit(a) - _unit(b)).square()).sum(1).flatten(1).mean(1)  # (n,)
                for weight, a, b in zip(self.weights, first, second, strict=True)
            ]
            found.append(torch.stack(terms).sum(0).double().cpu())
        return np.asarray(torch.cat(found).numpy())


def _unit(activations: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) of unit length over channels."""
    return activations / (1e-8 + activations.square().sum(1, keepdim=True)).sqrt()
