"""Is it still the same person? Comparisons of pairs of faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from emobench.errors import WeightsError
from emobench.nn.batches import batches
from emobench.nn.perceptual import VGG16Features
from emobench.nn.weights import read_weights

Images = NDArray[np.uint8]

_EMBEDDED = 112  # px, the input of face-recognition networks such as MobileFaceNet
_BATCH, _LARGEST = 128, 1024  # faces at a time, and at most on a GPU whose memory has room for them
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of the structural similarity of 255 levels
_GAUSS = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_WINDOW = _GAUSS / _GAUSS.sum()
_AT_ONCE = 16  # pairs, of which there are some ten arrays of float64
_LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # of VGG16


def ssim(one: Images, other: Images) -> NDArray[np.float64]:
    """(N,) structural similarity of pairs uint8 (N, C, S, S); Wang et al. 2004, eq. 13, 11 px Gaussian windows.

    As torchmetrics computes it, to rounding, and fifty times faster: its windows are not taken apart into lines and
    columns, and float64, which the differences of squares need, goes through the slow way of its convolutions.
    """
    found = [np.empty(0)]
    for start in range(0, len(one), _AT_ONCE):
        a, b = (each[start : start + _AT_ONCE].astype(np.float64) for each in (one, other))
        mean_a, mean_b = _windowed(a), _windowed(b)
        variances = np.maximum(_windowed(a * a) - mean_a**2, 0) + np.maximum(_windowed(b * b) - mean_b**2, 0)
        covariance = _windowed(a * b) - mean_a * mean_b
        light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
        structure = (2 * covariance + _C2) / (variances + _C2)
        found.append((light * structure).reshape(len(a), -1).mean(1))
    return np.concatenate(found)


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean in a Gaussian window around each pixel (N, C, S, S), of faces that go on mirrored."""
    for axis in (-2, -1):
        values = correlate1d(values, _WINDOW, axis=axis, mode="mirror")
    return values


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
        grows: batches may be as large as the GPU's memory allows, by which distances differ in their last digits.

    Raises:
        WeightsError: the file is missing or is no VGG16.
    """

    def __init__(self, weights: str, device: torch.device, *, grows: bool = False) -> None:
        self.see, self.device, self.grows = VGG16Features(weights, _LPIPS_LAYERS), device, grows
        from torchmetrics.functional import image

        linear = read_weights(Path(image.__file__).parent / "lpips_models" / "vgg.pth")
        self.weights = [linear[f"lin{place}.model.1.weight"].to(device) for place in range(len(_LPIPS_LAYERS))]

    @torch.inference_mode()
    def __call__(self, one: Images, other: Images) -> NDArray[np.float64]:
        """(N,) distances of pairs uint8 (N, 3, S, S)."""
        found = []
        for rows in batches(len(one), _BATCH, _LARGEST, self.device, grows=self.grows):
            pair = [torch.from_numpy(np.ascontiguousarray(each[rows])) for each in (one, other)]
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
