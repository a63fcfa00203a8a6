"""Adaptive discriminator augmentation (Karras et al. 2020b): a discriminator that only sees images changed at random.

Each change is made to an image with probability p, real and drawn ones alike, so that the generator learns faces and
not changes while p stays well below 1 (section 2.2); p follows how far the discriminator overfits (section 3). Here is
the set 'bgc' of appendix B: pixel blitting, geometry and colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.nn.resample import firdn, upsampled

# Low-pass filter of the orthogonal wavelet sym6 (Daubechies 1992, table 6.3); the taps sum to √2.
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
# The filter is not quite symmetric: what is doubled by it lies so many px off, and is halved from there.
_LAG = (sum(place * tap for place, tap in enumerate(SYM6)) / sum(SYM6) - (len(SYM6) - 1) / 2) / 2
_REACH = 4  # px that the filter and the interpolation look beyond a position


class AdaptiveAugment(nn.Module):
    """Images as the discriminator sees them, and the rule that moves the probability p of each change.

    Its whole state is in buffers. Random numbers come from torch's global generator of the CPU, on every device.

    Args:
        target: of r_t, the mean sign of the discriminator's output for real images; None: p stays what it is.
        kimg: thousands of real images in which p can go from 0 to 1.
        interval: calls of `adjust` between two moves of p.
        start: the first p, 0 to 1.
    """

    of_all_processes = True  # see `emobench.nn.running`: its state counts the images of all of them

    p: Tensor
    seen: Tensor
    calls: Tensor

    def __init__(
        self, target: float | None = 0.6, kimg: float = 500.0, interval: int = 4, *, start: float = 0.0
    ) -> None:
        super().__init__()
        self.target, self.kimg, self.interval = target, kimg, interval
        self.register_buffer("p", torch.tensor(float(start)))
        self.register_buffer("seen", torch.zeros(2))  # since p last moved: sum of signs, number of real images
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))  # of adjust

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to the same, changed: float32, whatever the trainer's precision (float64 stays)."""
        if pixels.dtype != torch.float64:
            pixels = pixels.float()
        p = float(self.p)
        if p == 0:
            return pixels
        n, _, height, width = pixels.shape
        with torch.autocast(pixels.device.type, enabled=False):
            back, colour = geometry(n, p, height, width), colours(n, p)
            if not torch.equal(back, torch.eye(3).expand_as(back)):
                pixels = warp(pixels, back)
            if not torch.equal(colour, torch.eye(4).expand_as(colour)):
                pixels = recolour(pixels, colour)
        return pixels

    @torch.no_grad()
    def observe(self, scores: Tensor) -> None:
        """Count the discriminator's outputs (N,) for real images, those of all processes."""
        if self.target is None:
            return
        counted = torch.stack([scores.float().sign().sum(), self.seen.new_tensor(scores.numel())])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counted)
        self.seen += counted

    @torch.no_grad()
    def adjust(self) -> None:
        """Once a step; at every `interval`-th call p moves towards more or less of it by r_t = E[sign(D(real))], eq. 1.

        The step is what makes p cross 0 to 1 in `kimg` thousand images.
        """
        self.calls += 1
        if self.target is None or int(self.calls) % self.interval:
            return
        signs, images = self.seen.tolist()
        if images:
            ahead = signs / images - self.target
            self.p += ((ahead > 0) - (ahead < 0)) * images / (self.kimg * 1000)
            self.p.clamp_(0, 1)
        self.seen.zero_()


# Geometry


def geometry(n: int, p: float, height: int, width: int) -> Tensor:
    """Where the pixels of n changed images come from, each change drawn with probability p: (n, 3, 3) on the CPU.

    A matrix takes the position (x, y, 1) of a pixel in the result to that in the image, in px from the centre. It is
    the product of the changes' inverses, the first change leftmost (appendix B).
    """
    sides = torch.tensor([[width], [height]])  # (2, 1)
    flip = _sometimes(p, 1 - 2.0 * torch.randint(2, (n,)), 1)
    quarters = _sometimes(p, torch.randint(4, (n,)) * (pi / 2), 0)
    whole = _sometimes(p, ((torch.rand(2, n) - 0.5) / 4 * sides).round(), 0)  # (2, n)
    size = _sometimes(p, (0.2 * torch.randn(n)).exp2(), 1)
    # Two rotations, so that the stretch between them has any direction; at least one of them with probability p.
    before, after = (_sometimes(1 - sqrt(1 - p), (2 * torch.rand(n) - 1) * pi, 0) for _ in range(2))
    stretch = _sometimes(p, (0.2 * torch.randn(n)).exp2(), 1)
    part = _sometimes(p, 0.125 * torch.randn(2, n) * sides, 0)  # (2, n)
    inverses = [
        scaling(flip, torch.ones(n)),
        turning(-quarters),
        shifting(*-whole),
        scaling(1 / size, 1 / size),
        turning(-before),
        scaling(1 / stretch, stretch),
        turning(-after),
        shifting(*-part),
    ]
    return reduce(torch.matmul, inverses)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Factors (N,) along x and y as matrices (N, 3, 3)."""
    return _combined([(x - 1, _unit(3, 0, 0)), (y - 1, _unit(3, 1, 1))])


def turning(angle: Tensor) -> Tensor:
    """Rotations by angles (N,), in radians from x (right) to y (down), as matrices (N, 3, 3)."""
    plane, quarter = _unit(3, 0, 0) + _unit(3, 1, 1), _unit(3, 1, 0) - _unit(3, 0, 1)
    return _combined([(angle.cos() - 1, plane), (angle.sin(), quarter)])


def shifting(x: Tensor, y: Tensor) -> Tensor:
    """Translations (N,) in px as matrices (N, 3, 3)."""
    return _combined([(x, _unit(3, 0, 2)), (y, _unit(3, 1, 2))])


def warp(pixels: Tensor, back: Tensor) -> Tensor:
    """Images resampled within their band limit: padded, doubled, sampled bilinearly, halved (appendix B).

    The taps of an orthogonal wavelet, reversed on the way down, undo themselves: where a pixel lands on a pixel, it is
    the same as before.

    Args:
        pixels: (N, C, H, W).
        back: (N, 3, 3) on the CPU, as `geometry` gives it.
    """
    taps = torch.tensor(SYM6, device=pixels.device, dtype=pixels.dtype) / sqrt(2)
    sides = torch.tensor(pixels.shape[:1:-1])  # (2,) width and height
    canvas = 2 * sides + len(taps) - 2  # of the doubled result, with what the last filter eats
    lag = torch.tensor([_LAG])
    back = shifting(lag, lag) @ back @ shifting(-lag, -lag)
    padding = _padding(back, canvas / 4, sides)  # (2, 2) before and after, of x and y
    doubled = upsampled(F.pad(pixels, padding.flatten().tolist(), mode="reflect"), taps)
    # From [-1, 1] over the canvas to px from the centre, through `back`, to [-1, 1] over the padded image.
    enter = scaling(*(canvas / 4)[:, None])
    padded = sides + padding.sum(1)
    leave = scaling(*(2 / padded)[:, None]) @ shifting(*((padding[:, 0] - padding[:, 1]) / 2)[:, None])
    x, y, shift = (leave @ back @ enter)[:, None, None, :2].to(pixels).unbind(4)  # each (N, 1, 1, 2)
    across, down = ((torch.arange(side).to(pixels) * 2 + 1) / side - 1 for side in canvas.tolist())
    grid = x * across[:, None] + y * down[:, None, None] + shift  # (N, h, w, 2); no matmul, which TF32 would coarsen
    sampled: Tensor = _Sampled.apply(doubled, grid)  # (N, C, h, w)
    return firdn(sampled, taps.flip(0), down=2)


def _padding(back: Tensor, extent: Tensor, sides: Tensor) -> Tensor:
    """Pixels (2, 2) that the images of a batch lack before and after, along x and y; reflection gives at most side − 1.

    Args:
        back: (N, 3, 3).
        extent: (2,) half of what the result needs, px.
        sides: (2,) px.
    """
    corners = torch.tensor([[-1.0, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]])  # (3, 4)
    reached = (back @ (corners * torch.cat([extent, torch.ones(1)])[:, None]))[:, :2]  # (N, 2, 4)
    lacking = torch.stack([-reached.amin((0, 2)), reached.amax((0, 2))], 1) - sides[:, None] / 2
    return (lacking + _REACH).ceil().long().clamp_min(0).minimum(sides[:, None] - 1)


class _Sampled(torch.autograd.Function):
    """Bilinear samples (N, C, h, w) of images (N, C, H, W) at a grid (N, h, w, 2) that needs no gradient; 0 outside.

    They are linear in the image, so that all that its derivatives take is this function and its transpose. torch's own
    second derivative of grid_sample is younger than the oldest torch that emobench admits.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.sides = image.shape[2:]
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradient, grid, ctx.sides), None


class _Spread(torch.autograd.Function):
    """The transpose of `_Sampled`: (N, C, h, w) to (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, grid: Tensor, sides: Sequence[int]) -> Tensor:
        ctx.save_for_backward(grid)
        image = samples.new_empty(*samples.shape[:2], *sides)  # only its shape matters
        bilinear, zeros = 0, 0
        wanted = [True, False]  # by the image, by the grid
        transpose = torch.ops.aten.grid_sampler_2d_backward
        spread: Tensor = transpose(samples, image, grid, bilinear, zeros, False, wanted)[0]
        return spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sampled.apply(gradient, grid), None, None


# Colour

_GRAY = torch.tensor([1.0, 1, 1, 0]) / sqrt(3)  # the luma axis v
_RGB = torch.diag(torch.tensor([1.0, 1, 1, 0]))
_CHROMA = _RGB - torch.outer(_GRAY, _GRAY)  # what is at right angles to v


def colours(n: int, p: float) -> Tensor:
    """The colour changes of n images, each drawn with probability p, as matrices (n, 4, 4) on the CPU.

    A matrix takes a pixel (r, g, b, 1) in [-1, 1] to its new colour; the last change is leftmost (appendix B).
    """
    changes = [
        saturation(_sometimes(p, torch.randn(n).exp2(), 1)),
        hue(_sometimes(p, (2 * torch.rand(n) - 1) * pi, 0)),
        luma_flip(_sometimes(p, 1.0 * torch.randint(2, (n,)), 0)),
        contrast(_sometimes(p, (0.5 * torch.randn(n)).exp2(), 1)),
        brightness(_sometimes(p, 0.2 * torch.randn(n), 0)),
    ]
    return reduce(torch.matmul, changes)


def brightness(amount: Tensor) -> Tensor:
    """(N,) added to each channel, as matrices (N, 4, 4)."""
    return _combined([(amount, sqrt(3) * torch.outer(_GRAY, torch.eye(4)[3]))])


def contrast(factor: Tensor) -> Tensor:
    """Factors (N,) of each channel, around mid-gray, as matrices (N, 4, 4)."""
    return _combined([(factor - 1, _RGB)])


def luma_flip(flip: Tensor) -> Tensor:
    """Bright for dark, hue and saturation kept, where `flip` (N,) is 1 and not 0, as matrices (N, 4, 4)."""
    return _combined([(-2 * flip, torch.outer(_GRAY, _GRAY))])


def hue(angle: Tensor) -> Tensor:
    """Rotations around the luma axis by angles (N,), in radians from red to green, as matrices (N, 4, 4)."""
    x, y, z = (_unit(4, i, j) - _unit(4, j, i) for i, j in ((2, 1), (0, 2), (1, 0)))
    return _combined([(angle.cos() - 1, _CHROMA), (angle.sin(), (x + y + z) / sqrt(3))])  # Rodrigues' formula


def saturation(factor: Tensor) -> Tensor:
    """Factors (N,) of the distance from the luma axis, as matrices (N, 4, 4)."""
    return _combined([(factor - 1, _CHROMA)])


def recolour(pixels: Tensor, colour: Tensor) -> Tensor:
    """Images (N, 3, H, W) with the colours of matrices (N, 4, 4)."""
    mixing = colour[:, :3, :, None, None].to(pixels)  # (N, 3, 4, 1, 1)
    return (mixing[:, :, :3] * pixels[:, None]).sum(2) + mixing[:, :, 3]


def _sometimes(chance: float, drawn: Tensor, neutral: float) -> Tensor:
    """Numbers (..., N), each of the N replaced by the neutral one unless it has its chance."""
    return torch.where(torch.rand(drawn.shape[-1]) < chance, drawn, neutral)


def _combined(changes: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The identity plus amounts (N,) of matrices (k, k): (N, k, k). No amount leaves the identity itself."""
    identity = torch.eye(len(changes[0][1]))
    return identity + sum(amount[:, None, None] * matrix for amount, matrix in changes)


def _unit(k: int, row: int, column: int) -> Tensor:
    """(k, k), 1 at one place."""
    matrix = torch.zeros(k, k)
    matrix[row, column] = 1
    return matrix
