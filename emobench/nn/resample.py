"""Changes of resolution by a filter: zeros between the pixels, a FIR convolution, every n-th pixel of the result.

A network that resizes by nearest or strided pixels aliases; StyleGAN2 blurs instead (Karras et al. 2020a, section 4.2,
after Zhang 2019), and the augmentation of StyleGAN2-ADA resamples within the band limit (2020b, appendix B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        for kernel, stride in steps:
            x = _Filtered.apply(x, (kernel * gain ** (1 / len(steps))).flip(0, 1), stride)
    return x.reshape(n, channels, *x.shape[2:])


class _Filtered(torch.autograd.Function):
    """Every channel of (N, C, H, W) correlated with one kernel (k, l), which gets no gradient.

    As a convolution of torch it has a second derivative that computes the kernel's gradient all the same, by a
    convolution for each channel: thousands in the gradient penalty of a discriminator.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.shape, ctx.layout = stride, x.shape, _layout(x)
        return F.conv2d(x, _each(kernel, x), stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kernel,) = ctx.saved_tensors
        return _Unfiltered.apply(gradient, kernel, ctx.stride, ctx.shape, ctx.layout), None, None


class _Unfiltered(torch.autograd.Function):
    """The transpose of `_Filtered`, to a tensor of a shape."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, kernel: Tensor, stride: tuple[int, int], shape: Sequence[int], layout: Any
    ) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride = stride
        # Only its shape and layout count.
        x = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
        none, wanted = [0, 0], [True, False, False]  # by x; by the kernel, by a bias
        transpose = torch.ops.aten.convolution_backward
        spread: Tensor = transpose(
            gradient, x, _each(kernel, x), None, stride, none, [1, 1], False, none, shape[1], wanted
        )[0]
        return spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (kernel,) = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return _Filtered.apply(gradient, kernel, ctx.stride), None, None, None, None


def _each(kernel: Tensor, x: Tensor) -> Tensor:
    """The kernel for each channel of x: (C, 1, k, l)."""
    return kernel.expand(x.shape[1], 1, *kernel.shape)


def _layout(x: Tensor) -> torch.memory_format:
    plain = x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if plain else torch.channels_last


def upsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), as bright as before; each pixel is centred between the two that it becomes."""
    k = len(taps)
    return firdn(x, taps, up=2, padding=((k + 1) // 2, (k - 2) // 2), gain=4)


def downsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, 2H, 2W) to (N, C, H, W); each pixel is centred between the two that it was."""
    k = len(taps)
    return firdn(x, taps, down=2, padding=((k - 1) // 2, (k - 2) // 2))
