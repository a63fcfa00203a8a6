"""Changes of resolution, against scipy's convolution of an image with zeros put in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch.nn import functional as F

from emobench.nn.resample import downsampled, firdn, upsampled

FOUR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
ODD = torch.tensor([0.1, 0.5, -0.2])
LONG = torch.linspace(-0.3, 1, 12)


def plainly(x, taps, up, down, padding, gain):
    """One channel at a time, in numpy."""
    results = []
    for plane in x.reshape(-1, *x.shape[2:]):
        zeros = np.zeros((plane.shape[0] * up, plane.shape[1] * up))
        zeros[::up, ::up] = plane
        before, after = padding
        padded = np.pad(zeros, (max(before, 0), max(after, 0)))
        cut = padded[max(-before, 0) :, max(-before, 0) :]
        cut = cut[: len(cut) - max(-after, 0), : cut.shape[1] - max(-after, 0)]
        results.append(gain * convolve2d(cut, np.outer(taps, taps), mode="valid")[::down, ::down])
    return np.stack(results).reshape(*x.shape[:2], *results[0].shape)


@pytest.mark.parametrize("taps", [FOUR, ODD, LONG], ids=["four", "odd", "long"])
@pytest.mark.parametrize(
    ("up", "down", "padding", "gain"),
    [(1, 1, (6, 6), 1.0), (2, 1, (2, 1), 4.0), (1, 2, (1, 4), 1.0), (3, 2, (-1, 3), 0.5), (2, 3, (3, -2), 2.0)],
)
@pytest.mark.parametrize("channels", [2, 9])  # either side of where batch and channels are convolved as one
def test_it_is_a_true_convolution(taps, up, down, padding, gain, channels):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, channels, 9, 11)))
    made = firdn(x, taps, up=up, down=down, padding=padding, gain=gain)
    np.testing.assert_allclose(made, plainly(x.numpy(), taps.numpy(), up, down, padding, gain), atol=1e-6)


def test_twice_the_size_and_half_of_it_are_centred_and_as_bright():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    double, half = upsampled(ramp, FOUR), downsampled(ramp, FOUR)
    assert double.shape == (1, 1, 32, 32)
    assert half.shape == (1, 1, 8, 8)
    inside = (torch.arange(32.0) - 0.5) / 2  # where the middles of the new pixels lie among the old ones
    torch.testing.assert_close(double[0, 0, 16, 4:-4], inside[4:-4])
    torch.testing.assert_close(half[0, 0, 4, 1:-1], torch.arange(8.0)[1:-1] * 2 + 0.5)
    torch.testing.assert_close(double.transpose(2, 3)[0, 0, 4:-4, 16], inside[4:-4])


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("taps", [FOUR, LONG], ids=["four", "long"])
def test_derivatives_of_both_orders(up, down, taps):
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)

    def squared(x):
        return firdn(x, taps, up=up, down=down, padding=(5, 4)).square()

    assert torch.autograd.gradcheck(squared, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, x, fast_mode=True)


def test_the_precision_is_the_images_even_under_autocast():
    x = torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        made = upsampled(x, FOUR)
    assert made.dtype == torch.float32
    assert torch.equal(made, upsampled(x, FOUR))
    assert upsampled(x.bfloat16(), FOUR).dtype == torch.bfloat16
    x = torch.randn(1, 16, 8, 8).to(memory_format=torch.channels_last)
    torch.testing.assert_close(firdn(x, FOUR, padding=(2, 1)), firdn(x.contiguous(), FOUR, padding=(2, 1)))


def test_a_blur_of_one_tap_is_nothing():
    x = torch.randn(1, 2, 4, 4)
    for up, down in itertools.product((1, 2), (1, 2)):
        zeros = F.pad(x[..., None], (0, up - 1)).flatten(3) if up > 1 else x
        wanted = firdn(x, torch.ones(1), up=up, down=down)
        torch.testing.assert_close(wanted[..., 0, :], zeros[..., 0, ::down])


@pytest.mark.parametrize("channels", [16, 32])
def test_a_gradient_penalty_takes_as_many_convolutions_however_many_the_channels(channels):
    """torch's second derivative of a grouped convolution runs one for each group."""
    x = torch.randn(1, channels, 8, 8, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        (gradient,) = torch.autograd.grad(firdn(x, FOUR).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()
    assert sum(event.count for event in profile.key_averages() if event.key == "aten::convolution") <= 4
