"""Augmentation: parameters sampled for a batch, applied by albumentations face by face or by torch to all at once.

albumentations' own seeding gives every worker and every epoch the same augmentations. Here `draw` samples the
parameters of all faces of a batch from (seed, epoch, step, rank), and either backend only applies them: the numbers
depend on neither the number of workers nor what came before, and both backends change a face in the same way.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from emobench.recipe import Augment

ERASED = (0.02, 0.33)  # area of an erased patch, share of the face (Zhong et al. 2020, section 4.2; as albumentations)
ASPECT = (0.3, 3.3)  # its width over its height


@dataclass(frozen=True)
class Changes:
    """Augmentation parameters of n faces, in the order in which they are applied."""

    flip: np.ndarray  # (n,) bool: mirrored
    angle: np.ndarray  # (n,) degrees, counter-clockwise
    scale: np.ndarray  # (n,) factor
    shift: np.ndarray  # (n, 2) shares of the side: to the right, down
    contrast: np.ndarray  # (n,) factor
    brightness: np.ndarray  # (n,) added, share of the full range
    sigma: np.ndarray  # (n,) px, of a Gaussian blur; 0: none
    patch: np.ndarray  # (n, 4) int64, px: left, top, right, bottom of what is erased; all 0: nothing
    noise: np.ndarray  # (n,) int64, seed of the random pixels in the erased patch


def active(augment: Augment) -> bool:
    """Whether a recipe's augmentation changes anything."""
    return bool(
        _moves(augment) or augment.hflip or augment.brightness or augment.contrast or augment.blur_p or augment.erase
    )


def _moves(augment: Augment) -> bool:
    return bool(augment.rotation or augment.shift or augment.scale)


def draw(augment: Augment, n: int, size: int, seed: Sequence[int], turn: np.ndarray | None = None) -> Changes:
    """Samples the changes of n faces; equal `seed`, equal changes.

    Args:
        augment: strengths and probabilities.
        n: faces.
        size: their side, px.
        seed: of numpy's generator.
        turn: (n,) degrees by which a face may be rotated further, either way; None: none.
    """
    random = np.random.default_rng(tuple(seed))
    u = random.random((14, n))  # a row for each number: an option switched off leaves the others as they are

    def either_way(row: int, most: float | np.ndarray) -> np.ndarray:
        return np.asarray(most * (2 * u[row] - 1), np.float64)

    angle = either_way(1, augment.rotation)
    if turn is not None:
        angle = angle + either_way(13, turn)
    low, high = augment.blur
    return Changes(
        flip=u[0] < augment.hflip,
        angle=angle,
        scale=1 + either_way(2, augment.scale),
        shift=np.stack([either_way(3, augment.shift), either_way(4, augment.shift)], 1),
        contrast=1 + either_way(5, augment.contrast),
        brightness=either_way(6, augment.brightness),
        sigma=np.where(u[7] < augment.blur_p, low + (high - low) * u[8], 0.0),
        patch=_patches(u[9] < augment.erase, u[10:13], random.random((1, n))[0], size),
        noise=random.integers(0, 2**31, n),
    )


def _patches(erased: np.ndarray, u: np.ndarray, across: np.ndarray, size: int) -> np.ndarray:
    """(n, 4): a patch's area and aspect are drawn such that it fits, then its place."""
    largest = min(ERASED[1], ASPECT[0], 1 / ASPECT[1])  # a patch of the most extreme aspect still fits
    area = ERASED[0] + (largest - ERASED[0]) * u[0]
    aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * u[1]
    height = np.minimum(np.rint(size * np.sqrt(area / aspect)).astype(np.int64), size)
    width = np.minimum(np.rint(size * np.sqrt(area * aspect)).astype(np.int64), size)
    top = np.floor(u[2] * (size - height + 1)).astype(np.int64)
    left = np.floor(across * (size - width + 1)).astype(np.int64)
    return np.where(erased[:, None], np.stack([left, top, left + width, top + height], 1), 0)


def kernels(sigma: np.ndarray, side: int) -> np.ndarray:
    """(n, k) Gaussian kernels, k the widest one's width; narrower ones have zeros beside, σ = 0 is the identity.

    A kernel reaches int(3.5 σ) px either way, as in Pillow and albumentations, and no further than the face's side.
    """
    reach = np.minimum(3.5 * sigma, side - 1).astype(np.int64)
    x = np.arange(-reach.max(initial=0), reach.max(initial=0) + 1)
    weights = np.exp(-0.5 * (x / np.maximum(sigma, 1e-6)[:, None]) ** 2) * (np.abs(x) <= reach[:, None])
    return np.asarray(weights / weights.sum(1, keepdims=True))


class Albumentations:
    """Applies changes by albumentations, a face at a time.

    Its transforms are given parameters that were sampled before; they are built at first use, once in each worker.
    """

    def __init__(self, augment: Augment) -> None:
        self.augment = augment
        self._transforms: dict[str, Any] | None = None

    def __call__(self, images: np.ndarray, changes: Changes) -> np.ndarray:
        """uint8 (n, C, S, S) -> the same shape, changed."""
        if self._transforms is None:
            self._transforms = _transforms()
        by, augment, side = self._transforms, self.augment, images.shape[-1]
        matrices = _matrices(changes, (side - 1) / 2, side)
        blurs = kernels(changes.sigma, side)
        changed = np.empty_like(images)
        for k, (image, out) in enumerate(zip(images, changed, strict=True)):
            face = np.ascontiguousarray(image.transpose(1, 2, 0))  # (S, S, C)
            if changes.flip[k]:
                face = by["flip"].apply(face)
            if _moves(augment) or changes.angle[k]:
                face = by["move"].apply(face, matrix=matrices[k], output_shape=(side, side))
            if augment.brightness or augment.contrast:
                face = by["light"].apply(face, alpha=changes.contrast[k], beta=255 * changes.brightness[k])
            if changes.sigma[k]:
                face = by["blur"].apply(face, kernel=blurs[k])
            if changes.patch[k].any():
                face = by["erase"].apply(face, holes=changes.patch[k : k + 1], seed=int(changes.noise[k]))
            out[:] = face.reshape(side, side, -1).transpose(2, 0, 1)
        return changed


def _transforms() -> dict[str, Any]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for its newest version
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)  # more threads than one only cost on small faces, and fight over the cores
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it warns of a wrong argument and goes on without it
        return {
            "flip": A.HorizontalFlip(),
            # No black corners, which only training faces would have.
            "move": A.Affine(border_mode=cv2.BORDER_REFLECT_101),
            "light": A.RandomBrightnessContrast(),
            "blur": A.GaussianBlur(),
            "erase": A.Erasing(fill="random"),
        }


def _matrices(changes: Changes, centre: float, side: int) -> np.ndarray:
    """(n, 3, 3) from a pixel to where it goes, x before y: scaled and turned about the centre, then shifted."""
    radians = np.deg2rad(changes.angle)
    cos, sin = changes.scale * np.cos(radians), changes.scale * np.sin(radians)
    matrices = np.zeros((len(cos), 3, 3))
    matrices[:, 0, 0], matrices[:, 0, 1] = cos, sin  # y points down: this sine turns counter-clockwise
    matrices[:, 1, 0], matrices[:, 1, 1] = -sin, cos
    matrices[:, :2, 2] = centre - matrices[:, :2, :2].sum(2) * centre + changes.shift * side
    matrices[:, 2, 2] = 1
    return matrices


def batched(images: Tensor, changes: Changes) -> Tensor:
    """Applies changes to all faces of a batch at once, on their device.

    As `Albumentations` but for rounding and interpolation.

    Args:
        images: uint8 (n, C, S, S).
        changes: of these n faces.

    Returns:
        uint8 (n, C, S, S).
    """
    side, device = images.shape[-1], images.device
    pixels = F.grid_sample(  # a flip and any movement in one interpolation
        images.float(),  # (n, C, S, S), 0 … 255
        F.affine_grid(_theta(changes, side).to(device), list(images.shape), align_corners=True),  # (n, S, S, 2)
        mode="bilinear",
        padding_mode="reflection",  # about the outermost pixels' centres, as BORDER_REFLECT_101
        align_corners=True,
    )
    factor = torch.from_numpy(changes.contrast).float().to(device).view(-1, 1, 1, 1)
    more = torch.from_numpy(255 * changes.brightness).float().to(device).view(-1, 1, 1, 1)
    pixels = torch.addcmul(more, pixels, factor).clamp_(0, 255)
    blurred = np.flatnonzero(changes.sigma)
    if len(blurred):
        rows = torch.from_numpy(blurred).to(device)
        pixels[rows] = _blurred(
            pixels[rows], torch.from_numpy(kernels(changes.sigma[blurred], side)).float().to(device)
        )
    out = pixels.round_().to(torch.uint8)
    for k in np.flatnonzero(changes.patch.any(1)):
        left, top, right, bottom = changes.patch[k]
        shape = (bottom - top, right - left, images.shape[1])
        noise = np.random.default_rng(int(changes.noise[k])).integers(0, 256, shape, np.uint8)
        out[k, :, top:bottom, left:right] = torch.from_numpy(noise.transpose(2, 0, 1)).to(device)
    return out


def _theta(changes: Changes, side: int) -> Tensor:
    """(n, 2, 3) for `affine_grid`: from where a pixel goes back to where it comes from, the sides at -1 and 1."""
    forward = _matrices(changes, 0.0, side)
    forward[:, :2, 2] *= 2 / (side - 1)  # px to halves of the side between outermost centres
    back = np.linalg.inv(forward)[:, :2]
    back[changes.flip, 0] *= -1  # mirrored before it was moved
    return torch.from_numpy(back).float()


def _blurred(pixels: Tensor, kernel: Tensor) -> Tensor:
    """(m, C, S, S), each face by its own kernel (m, k): down, then across."""
    m, channels, side, _ = pixels.shape
    width = kernel.shape[1]
    weights = kernel.repeat_interleave(channels, 0)  # (m·C, k)
    planes = F.pad(pixels, [width // 2] * 4, mode="reflect").view(1, m * channels, side + width - 1, -1)
    planes = F.conv2d(planes, weights.view(-1, 1, width, 1), groups=m * channels)
    planes = F.conv2d(planes, weights.view(-1, 1, 1, width), groups=m * channels)
    return planes.view(m, channels, side, side)
