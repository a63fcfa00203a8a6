"""Adaptive discriminator augmentation: what each change does, how often, and where p goes."""

from __future__ import annotations

from math import exp, log, pi, sqrt

import pytest
import torch
from torch.nn import functional as F

from emobench.nn import ada
from emobench.nn.ada import SYM6, AdaptiveAugment

ONE = torch.ones(1)


def noise(n: int = 4, side: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def smooth(side: int = 48) -> torch.Tensor:
    """Waves and a blob off the middle, far below the band limit, mid-gray towards the border."""
    line = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    window = (1 - x**2) ** 2 * (1 - y**2) ** 2
    blob = torch.exp(-20 * ((x - 0.3) ** 2 + (y + 0.2) ** 2))
    return (torch.stack([torch.sin(5 * x + 2 * y), torch.cos(4 * y - x), blob]) * window)[None]


def changed(p: float, pixels: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return AdaptiveAugment(start=p)(pixels)


def test_the_filter_is_the_wavelet_sym6() -> None:
    taps = torch.tensor(SYM6, dtype=torch.float64)
    n = torch.arange(12, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(sqrt(2), abs=1e-12)
    for shift in range(6):  # orthonormal to its even shifts
        product = (taps[: 12 - 2 * shift] * taps[2 * shift :]).sum().item()
        assert product == pytest.approx(float(shift == 0), abs=1e-11)
    for moment in range(6):  # of the high-pass filter: as many as 12 taps can have
        assert ((-1) ** n * (n / 11) ** moment * taps).sum().item() == pytest.approx(0, abs=1e-11)
    # Which leaves few filters; the least asymmetric one has nearly all of its weight around its middle.
    assert (taps * (n - 5.5)).sum().item() / sqrt(2) == pytest.approx(-0.4, abs=0.01)
    assert taps[4:7].sum() > 1.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_zero_images_pass_as_they_are(dtype: torch.dtype) -> None:
    images = noise().to(dtype)
    assert torch.equal(changed(0.0, images), images.float())


@pytest.mark.parametrize("shape", [(5, 3, 16, 16), (1, 3, 32, 32), (2, 3, 8, 24)])
def test_at_one_every_image_changes(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape) * 2 - 1
    made = changed(1.0, images)
    assert made.shape == images.shape
    assert made.isfinite().all()
    assert ((made - images).abs().flatten(1).mean(1) > 0.05).all()
    assert torch.equal(made, changed(1.0, images))  # the seed decides
    assert not torch.equal(made, changed(1.0, images, seed=1))


def test_where_only_colours_are_drawn_nothing_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ada, "geometry", lambda n, *_: torch.eye(3).repeat(n, 1, 1))
    monkeypatch.setattr(ada, "warp", None)
    images = noise()
    torch.manual_seed(0)
    wanted = ada.recolour(images, ada.colours(4, 0.7))
    assert torch.equal(changed(0.7, images), wanted)


# Geometry


def test_nothing_to_move_and_whole_pixels_move_exactly() -> None:
    images = noise()
    torch.testing.assert_close(ada.warp(images, torch.eye(3).repeat(4, 1, 1)), images, atol=1e-4, rtol=0)
    moved = ada.warp(images, ada.shifting(*torch.tensor([[3.0] * 4, [-2.0] * 4])))  # comes from 3 right, 2 above
    around = F.pad(images, (8, 8, 8, 8), mode="reflect")
    torch.testing.assert_close(moved, around[:, :, 6:22, 11:27], atol=1e-4, rtol=0)


def test_flips_and_quarter_turns_are_torchs() -> None:
    image = smooth()
    pairs = {
        "flip": (ada.scaling(-ONE, ONE), image.flip(3)),
        "quarter": (ada.turning(-ONE * pi / 2), torch.rot90(image, -1, (2, 3))),  # comes from a quarter before: right
        "half": (ada.turning(ONE * pi), torch.rot90(image, 2, (2, 3))),
    }
    for name, (back, wanted) in pairs.items():
        assert (ada.warp(image, back) - wanted).abs().max() < 0.01, name
        assert (ada.warp(image, back) - image).abs().max() > 0.3, name


@pytest.mark.parametrize(
    "back",
    [
        ada.scaling(ONE * 0.8, ONE * 1.1),
        ada.turning(ONE * 0.7),
        ada.shifting(ONE * 1.7, ONE * -2.4),
        ada.turning(ONE * -0.4) @ ada.scaling(ONE * 0.9, ONE / 0.9) @ ada.shifting(ONE * 3.3, ONE),
    ],
    ids=["scale", "turn", "shift", "all"],
)
def test_a_matrix_says_where_a_pixel_comes_from(back: torch.Tensor) -> None:
    image, side = smooth(48), 48
    centred = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(centred, centred, indexing="ij")
    places = torch.einsum("ij,jhw->ihw", back[0, :2], torch.stack([x, y, torch.ones_like(x)]))
    grid = (places / (side / 2)).permute(1, 2, 0)[None]  # [-1, 1] are the outer edges of the outer pixels
    wanted = F.grid_sample(image, grid, mode="bicubic", align_corners=False)
    inside = (places.abs() < side / 2 - 2).all(0)
    error = (ada.warp(image, back) - wanted).abs()[..., inside].max().item()
    assert error < 0.015 < (image - wanted).abs()[..., inside].max().item() / 10


def test_detail_that_shrinking_cannot_keep_turns_gray() -> None:
    stripes = torch.ones(1, 3, 32, 32)
    stripes[..., ::2] = -1
    shrunk = ada.warp(stripes, ada.scaling(ONE * 1.9, ONE))
    aliased = stripes[..., ::2]
    assert shrunk.square().mean() < 0.05 < aliased.square().mean()


def test_beyond_the_border_lies_the_mirrored_image() -> None:
    image = noise(1) * 0.1 + 0.7
    for back in (ada.scaling(ONE * 1.5, ONE * 1.5), ada.turning(ONE * pi / 4), ada.shifting(ONE * 7, ONE * 7)):
        assert ada.warp(image, back).min() > 0.4


def test_geometry_is_drawn_as_the_paper_says() -> None:
    torch.manual_seed(0)
    n, p = 20_000, 0.2
    still = (ada.geometry(n, p, 64, 64) == torch.eye(3)).flatten(1).all(1).double().mean().item()
    # Of the draws, half of the flips, a quarter of the turns and one in 16² of the whole shifts are none; both
    # rotations together are there with probability p.
    assert still == pytest.approx((1 - p / 2) * (1 - p * 3 / 4) * (1 - p * (1 - 1 / 256)) * (1 - p) ** 4, abs=0.01)
    certain = ada.geometry(n, 1.0, 32, 64)
    area = certain[:, :2, :2].det()
    assert area.lt(0).double().mean().item() == pytest.approx(0.5, abs=0.02)  # flipped
    assert (area.abs().log() / log(2)).std().item() == pytest.approx(2 * 0.2, abs=0.01)  # isotropic scale, squared
    stretch = torch.linalg.svdvals(certain[:, :2, :2])
    anisotropic = (stretch[:, 0] / stretch[:, 1]).log2()  # twice the size of an N(0, 0.2²)
    assert anisotropic.square().mean().sqrt().item() == pytest.approx(2 * 0.2, abs=0.01)
    forward = torch.linalg.inv(certain)
    # The shift of whole pixels is uniform, then scaled and turned anywhere; that of parts of pixels comes last.
    scaled = exp(2 * (0.2 * log(2)) ** 2)  # mean square of 2^N(0, 0.2²): of the scale and again of the stretch
    whole = scaled**2 * 0.25**2 / 12 * (64**2 + 32**2) / 2
    for axis, side in enumerate((64, 32)):
        assert forward[:, axis, 2].square().mean().item() == pytest.approx(whole + (0.125 * side) ** 2, rel=0.05)


# Colour


def coloured(matrix: torch.Tensor, *colour: float) -> list[float]:
    pixel = torch.tensor(colour)[None, :, None, None]
    return ada.recolour(pixel, matrix)[0, :, 0, 0].tolist()


def test_colours_by_hand() -> None:
    near = pytest.approx
    assert coloured(ada.brightness(ONE * 0.3), 0.1, -0.5, 0.2) == near([0.4, -0.2, 0.5])
    assert coloured(ada.contrast(ONE * 2), 0.1, -0.5, 0.2) == near([0.2, -1.0, 0.4])
    assert coloured(ada.luma_flip(ONE), 0.5, 0.5, 0.5) == near([-0.5, -0.5, -0.5])
    assert coloured(ada.luma_flip(ONE), 0.6, 0.0, 0.0) == near([0.2, -0.4, -0.4])  # mean 0.2 to -0.2, the rest kept
    assert coloured(ada.luma_flip(ONE * 0), 0.6, 0.0, 0.0) == near([0.6, 0.0, 0.0])
    third = ada.hue(ONE * 2 * pi / 3)
    assert coloured(third, 1.0, 0.0, 0.0) == near([0, 1, 0], abs=1e-6)  # red to green
    assert coloured(third, 0.1, -0.5, 0.2) == near([0.2, 0.1, -0.5], abs=1e-6)
    assert coloured(ada.hue(ONE * 1.1), 0.4, 0.4, 0.4) == near([0.4, 0.4, 0.4])
    assert coloured(ada.saturation(ONE * 0), 0.3, 0.6, -0.3) == near([0.2, 0.2, 0.2])
    assert coloured(ada.saturation(ONE * 2), 0.3, 0.6, -0.3) == near([0.4, 1.0, -0.8])


def test_colours_are_drawn_as_the_paper_says() -> None:
    torch.manual_seed(0)
    n, p = 20_000, 0.2
    still = (ada.colours(n, p) == torch.eye(4)).flatten(1).all(1).double().mean().item()
    assert still == pytest.approx((1 - p) ** 4 * (1 - p / 2), abs=0.01)
    certain = ada.colours(n, 1.0)
    luma = certain[:, :3, :3].sum((1, 2)) / 3  # vᵀ C v, the contrast and the luma flip
    assert luma.lt(0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert luma.abs().log2().std().item() == pytest.approx(0.5, abs=0.02)
    chroma = (certain[:, :3, :3].det() / luma).abs().log2() / 2  # contrast and saturation
    assert chroma.std().item() == pytest.approx(sqrt(0.5**2 + 1), abs=0.02)
    black = certain[:, :3, 3].sum(1) / 3 / luma  # where brightness puts mid-gray, before the contrast
    assert black.std().item() == pytest.approx(0.2, abs=0.01)
    turned = torch.atan2((certain[:, 1, 0] - certain[:, 0, 1]), certain[:, 0, 0] - luma / 3)
    assert turned.abs().mean().item() == pytest.approx(pi / 2, abs=0.05)  # anywhere around


# Derivatives


def test_derivatives_of_both_orders() -> None:
    images = noise(2, 6).double().requires_grad_()

    def squared(x: torch.Tensor) -> torch.Tensor:
        return changed(0.9, x, seed=3).square()

    assert torch.autograd.gradcheck(squared, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, images, fast_mode=True)


def test_a_gradient_penalty_reaches_the_discriminator_through_the_changes() -> None:
    images = noise(2, 8).double()
    weight = torch.randn(3 * 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        real = images.clone().requires_grad_()
        score = (changed(0.9, real).flatten(1) @ weight).tanh()
        (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        return gradient.square().sum()

    assert penalty(weight) > 0
    assert torch.autograd.gradcheck(penalty, weight, fast_mode=True)


def test_float32_even_under_autocast() -> None:
    images = noise()
    with torch.autocast("cpu", torch.bfloat16):
        made = changed(0.9, images.bfloat16())
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, changed(0.9, images.bfloat16()))


# p


def moved(augment: AdaptiveAugment, *scores: float, steps: int = 4) -> float:
    for _ in range(steps):
        augment.observe(torch.tensor(scores))
        augment.adjust()
    return augment.p.item()


def test_p_follows_the_sign_of_what_the_discriminator_says_of_real_images() -> None:
    augment = AdaptiveAugment(target=0.6, kimg=0.1, interval=4)  # 100 images from 0 to 1
    assert moved(augment, 3.0, 0.1, 5.0, steps=3) == 0  # not yet
    assert moved(augment, 3.0, 0.1, 5.0, steps=1) == pytest.approx(0.12)  # r_t = 1, 12 images
    assert moved(augment, -3.0, 0.1) == pytest.approx(0.04)  # r_t = 0 is below the target, 8 images
    assert moved(augment, -3.0, -1.0) == 0  # cut off
    assert moved(augment, *[1.0] * 8, *[-9.0] * 2) == 0  # r_t = 0.6 is the target
    assert moved(augment, *[1.0] * 9, -9.0, steps=16) == 1  # 0.8; cut off at the other end
    assert moved(AdaptiveAugment(target=0.0, kimg=0.1), 0.0, 1.0, -1.0) == 0
    silent = AdaptiveAugment(start=0.5)
    for _ in range(8):
        silent.adjust()  # no images, no word
    assert silent.p == 0.5


def test_without_a_target_p_stays() -> None:
    augment = AdaptiveAugment(None, start=0.3)
    assert moved(augment, 1.0, 1.0, steps=20) == pytest.approx(0.3)


def test_the_images_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counted: counted.add_(torch.tensor([-1.0, 1.0])))
    augment = AdaptiveAugment(target=0.1, kimg=0.1, start=0.5)
    augment.observe(torch.tensor([1.0]))
    assert augment.seen.tolist() == [0.0, 2.0]  # at once: before the next step DDP hands out the first one's buffers
    assert moved(augment, 1.0) == pytest.approx(0.40)  # five scores of 1 here, five of −1 there


def test_a_resumed_fit_goes_on_where_it_was() -> None:
    whole = AdaptiveAugment(kimg=0.1)
    moved(whole, 1.0, steps=6)  # half way between two moves
    again = AdaptiveAugment(kimg=0.1)
    again.load_state_dict({name: value.clone() for name, value in whole.state_dict().items()})
    assert [moved(each, 1.0, steps=2) for each in (whole, again)] == [pytest.approx(0.08)] * 2
    assert not list(whole.parameters())
