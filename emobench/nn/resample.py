"""Changes of resolution by a filter: zeros between the pixels, a FIR convolution, every n-th pixel of the result.

A network that resizes by nearest or strided pixels aliases; StyleGAN2 blurs instead (Karras et al. 2020a, section 4.2,
after Zhang 2019), and the augmentation of StyleGAN2-ADA resamples within the band limit (2020b, appendix B).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_FEW = 8  # channels below which convolutions are several times quicker with the images of a batch as channels too


def firdn(
    x: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0), gain: float = 1.0
) -> Tensor:
    """Upsample, pad, filter and downsample, alike in height and width; differentiable as often as wanted.

    Args:
        x: (N, C, H, W).
        taps: (k,), of a true convolution (not a correlation), first along one axis and then along the other.
        up: each pixel is followed by up − 1 zeros.
        down: every `down`-th pixel is kept, the first one included.
        padding: zeros before and after, counted after the upsampling; negative: so many pixels are cut off.
        gain: of the whole, positive; up² keeps the brightness where taps sum to 1.

    Returns:
        (N, C, h, w) in the precision of `x`, h = ⌈(H · up + Σ padding − k + 1) / down⌉.
    """
    n, channels, height, width = x.shape
    taps = taps.to(x.dtype)
    # One convolution with all of a short filter, two with a long one: whichever is quicker.
    if len(taps) <= 4:
        steps = [(torch.outer(taps, taps), (down, down))]
    else:
        steps = [(taps[None], (1, down)), (taps[:, None], (down, 1))]
    with torch.autocast(x.device.type, enabled=False):
        if up > 1:
            x = F.pad(x[..., None, :, None], (0, up - 1, 0, 0, 0, up - 1))  # (N, C, H, up, W, up)
            x = x.reshape(n, channels, height * up, width * up)
        x = F.pad(x, padding * 2)
        if channels < _FEW:
            x = x.reshape(1, n * channels, *x.shape[2:])
        groups = x.shape[1]
        for kernel, stride in steps:
            kernel = (kernel * gain ** (1 / len(steps))).flip(0, 1).expand(groups, 1, *kernel.shape)
            x = F.conv2d(x, kernel, stride=stride, groups=groups)
    return x.reshape(n, channels, *x.shape[2:])


def upsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), as bright as before; each pixel is centred between the two that it becomes."""
    k = len(taps)
    return firdn(x, taps, up=2, padding=((k + 1) // 2, (k - 2) // 2), gain=4)


def downsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, 2H, 2W) to (N, C, H, W); each pixel is centred between the two that it was."""
    k = len(taps)
    return firdn(x, taps, down=2, padding=((k - 1) // 2, (k - 2) // 2))
