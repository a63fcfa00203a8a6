"""Walks in w: towards a face, towards an emotion, and what keeps them where faces are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emobench.classifiers.vgg import VGG16
from emobench.errors import SuiteError, WeightsError
from emobench.generators.cvae import CVAE
from emobench.generators.cvae_stylegan import CVAEStyleGAN
from emobench.generators.latent_search import LatentSearch
from emobench.generators.stylegan2 import StyleGAN2
from emobench.nn.latents import Projection, Search, Space, difference, log_shares
from emobench.nn.network_files import write_network
from emobench.nn.noise import Noise

EMOTIONS = ("neutral", "happy", "sad", "anger")
SMALL: dict[str, Any] = {"latent": 8, "style": 8, "base": 512, "most": 16, "mapping_layers": 2}


class Brightness(nn.Module):
    """Reads an emotion in how bright a face is; a guide whose answer is known."""

    name, size, emotions = "brightness", 32, EMOTIONS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("pixel_std", torch.full((1, 3, 1, 1), 0.5))

    def logits(self, pixels: Tensor) -> Tensor:
        light = pixels.mean((1, 2, 3))  # (N,) -1 … 1
        return 8 * light[:, None] * torch.linspace(-1, 1, 4)


@pytest.fixture(scope="module")
def stylegan() -> StyleGAN2:
    torch.manual_seed(0)
    return StyleGAN2(emotions=EMOTIONS, size=32, **SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def space(stylegan: StyleGAN2) -> Space:
    return Space(stylegan.generator, 4)


def searching(stylegan: StyleGAN2, **arguments: Any) -> LatentSearch:
    settings = {"steps": 25, "step": 0.3, "projection_steps": 40, **arguments}
    return LatentSearch(emotions=EMOTIONS, size=32, generator=[stylegan], guide=[Brightness()], **settings).eval()


def search(**changes: Any) -> Search:
    usual = {"steps": 25, "lr": 0.3, "keep_start": 0.0, "keep_mean": 0.0, "perceptual_weight": 1.0}
    return Search(**{**usual, "views": 0, "noise": 0.0, **changes})


def asked(*emotions: int) -> Tensor:
    return torch.eye(4)[list(emotions)]


def light(faces: Tensor) -> Tensor:
    return faces.float().mean((1, 2, 3))


def test_the_space_knows_mean_and_spread_of_w(space: Space, stylegan: StyleGAN2) -> None:
    w = space.random(Noise(torch.arange(10_000, 12_000)), torch.eye(4).repeat(500, 1))
    cloud, centre = (torch.where(each < 0, each / 0.2, each) for each in (w, space.mean))  # before the last leaky ReLU
    spread = float(cloud.var(0).sum().sqrt())
    assert (cloud.mean(0) - centre).norm() < 0.1 * spread
    assert float(space.axes.square().sum().sqrt()) == pytest.approx(spread, rel=0.05)
    torch.testing.assert_close(cloud.T.cov(), space.axes @ space.axes, rtol=0.2, atol=0.1 * float(cloud.var(0).max()))
    assert space.apart(w, space.mean).mean() == pytest.approx(1.0, rel=0.1)
    assert torch.allclose(space.apart(stylegan.generator.spread(w), space.mean), space.apart(w, space.mean))


def test_a_search_makes_the_guide_believe(space: Space) -> None:
    noise = Noise(torch.arange(6))
    start = space.random(noise, asked(0, 1, 2, 3, 0, 1))
    noises = space.generator.synthesis.noises(noise)
    wanted = asked(3, 3, 3, 0, 0, 0)
    guide = Brightness()
    w = search()(space, start, wanted, noises, noise, [guide], None)
    before, after = ((log_shares(guide, space.pixels(each, noises)) * wanted).sum(1) for each in (start, w))
    assert (after > before).all()
    assert after.mean() > before.mean() + 0.5


def test_a_face_walks_alone(space: Space) -> None:
    noise = Noise(torch.arange(4))
    start = space.random(noise, asked(0, 1, 2, 3))
    noises = space.generator.synthesis.noises(noise)
    together = search(views=1, noise=0.05)(space, start, asked(3, 2, 1, 0), noises, noise, [Brightness()], None)
    single = Noise(torch.arange(2, 3))
    first = space.random(single, asked(2))
    noises = space.generator.synthesis.noises(single)
    alone = search(views=1, noise=0.05)(space, first, asked(1), noises, single, [Brightness()], None)
    torch.testing.assert_close(alone, together[2:3], rtol=1e-3, atol=1e-3)


def test_regularisers_keep_w_near(space: Space) -> None:
    noise = Noise(torch.arange(4))
    start = space.random(noise, asked(0, 1, 2, 3))
    noises = space.generator.synthesis.noises(noise)

    def moved(**changes: Any) -> Tensor:
        return search(**changes)(space, start, asked(3, 3, 0, 0), noises, noise, [Brightness()], None)

    free, near, mean = moved(), moved(keep_start=50.0), moved(keep_mean=50.0)
    assert (space.apart(near, start) < space.apart(free, start)).all()
    assert (space.apart(mean, space.mean) < space.apart(free, space.mean)).all()
    assert (space.apart(mean, space.mean) < space.apart(start, space.mean)).all()


def test_no_emotion_is_no_search(stylegan: StyleGAN2) -> None:
    model, seeds = searching(stylegan), torch.arange(3)
    nothing = torch.zeros(3, 4)
    assert torch.equal(model.sample(nothing, seeds), model.begin(nothing, seeds))


def test_a_random_start_is_of_another_emotion(stylegan: StyleGAN2, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = searching(stylegan), []
    space = model.space(torch.device("cpu"))
    draw = space.random
    monkeypatch.setattr(space, "random", lambda noise, emotions: (seen.append(emotions), draw(noise, emotions))[1])
    wanted = torch.eye(4).repeat(6, 1)
    model.begin(wanted, torch.arange(24))
    assert (seen[0].argmax(1) != wanted.argmax(1)).all()
    assert len({(int(a), int(b)) for a, b in zip(wanted.argmax(1), seen[0].argmax(1), strict=True)}) == 12  # all pairs


def test_mean_start_and_a_w_for_each_layer(stylegan: StyleGAN2) -> None:
    model = searching(stylegan, start="mean", plus=True)
    space, noise = model.space(torch.device("cpu")), Noise(torch.arange(2))
    start, _ = model._start(space, asked(0, 1), torch.arange(2), noise)
    assert start.shape == (2, stylegan.generator.synthesis.ws, 8)
    assert torch.equal(start[1, 3], space.mean)
    made = model.sample(asked(3, 0), torch.arange(2))
    assert light(made)[0] > light(made)[1]


@pytest.mark.slow
def test_a_projection_finds_a_face_that_the_generator_makes(space: Space) -> None:
    noise = Noise(torch.arange(3))
    w = space.mean + 0.5 * (space.random(noise, asked(0, 1, 2)) - space.mean)
    noises = space.generator.synthesis.noises(noise)
    faces = space.pixels(w, noises).detach()
    project = Projection(steps=120, lr=0.3, keep_mean=0.0, perceptual_weight=0.0, plus=False)
    found = space.pixels(project(space, faces, noises, None), noises)
    at_first = space.pixels(space.mean.expand(3, -1), noises)
    error, before = ((each - faces).square().flatten(1).mean(1) for each in (found, at_first))
    assert (error < 0.2 * before).all()


@pytest.mark.slow
def test_an_edit_is_a_projection_that_moves(stylegan: StyleGAN2) -> None:
    model = searching(stylegan, keep_mean=0.0, keep_start=0.0)
    faces = stylegan.sample(asked(0, 1, 2, 3), torch.arange(4))
    brighter, darker = (model.edit(faces, asked(*[k] * 4), torch.arange(4)) for k in (3, 0))
    assert (light(brighter) > light(darker)).all()


def test_difference_is_each_faces_own() -> None:
    one, other = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    all_of_them = difference([one], [other])
    torch.testing.assert_close(all_of_them[1:2], difference([one[1:2]], [other[1:2]]))
    expected = (one[0] - other[0]).square().mean() / other[0].square().mean()
    assert float(all_of_them[0]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_the_fusion_makes_the_cvaes_face_and_keeps_its_emotion(stylegan: StyleGAN2) -> None:
    torch.manual_seed(0)
    cvae = CVAE(emotions=EMOTIONS, size=32, latent=4, width=4).eval().requires_grad_(False)
    model = CVAEStyleGAN(
        emotions=EMOTIONS, size=32, steps=20, step=0.3, projection_steps=30, generator=[stylegan], cvae=[cvae],
        guide=[Brightness()],
    )  # fmt: skip
    assert not model.state_dict()  # the networks that it needs are no part of it
    seeds, wanted = torch.arange(4), asked(3, 3, 0, 0)
    begun, made = model.begin(wanted, seeds), model.sample(wanted, seeds)
    drawn = cvae.sample(wanted, seeds)
    plain = stylegan.sample(wanted, seeds)
    assert (begun.float() - drawn.float()).abs().mean() < (plain.float() - drawn.float()).abs().mean()
    assert light(made)[:2].mean() > light(made)[2:].mean()
    assert model.edit(drawn, wanted, seeds).shape == drawn.shape


def test_a_network_file_takes_the_rows_place(stylegan: StyleGAN2, tmp_path: Path) -> None:
    path = tmp_path / "faces.safetensors"
    write_network(path, stylegan.network())
    by_file = LatentSearch(emotions=EMOTIONS, size=32, network=str(path), guide=[Brightness()], steps=5, step=0.1)
    by_row = searching(stylegan, steps=5, step=0.1)
    seeds = torch.arange(3)
    assert torch.equal(by_file.sample(asked(1, 2, 3), seeds), by_row.sample(asked(1, 2, 3), seeds))


def test_a_fit_starts_from_a_network_file(stylegan: StyleGAN2, tmp_path: Path) -> None:
    path = tmp_path / "faces.safetensors"
    write_network(path, stylegan.network())
    torch.manual_seed(9)
    again = StyleGAN2(emotions=EMOTIONS, size=32, weights=str(path), **SMALL)
    for name, value in stylegan.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[name], value), name
    assert torch.equal(again.discriminator.b4.out.weight, stylegan.discriminator.b4.out.weight)
    with pytest.raises(WeightsError, match="not weights of this architecture"):
        StyleGAN2(emotions=EMOTIONS, size=32, weights=str(path), **{**SMALL, "mapping_layers": 3})


def test_what_cannot_be_searched_is_refused(stylegan: StyleGAN2) -> None:
    with pytest.raises(SuiteError, match="searches one generator"):
        LatentSearch(emotions=EMOTIONS, size=32, guide=[Brightness()])
    with pytest.raises(SuiteError, match="searches one generator"):
        LatentSearch(emotions=EMOTIONS, size=32, network="a.pkl", generator=[stylegan], guide=[Brightness()])
    other = VGG16(emotions=EMOTIONS[::-1], size=32, width=0.0625, stem="small", pool=1, head=8)
    with pytest.raises(SuiteError, match="vgg16, which it needs"):
        LatentSearch(emotions=EMOTIONS, size=32, generator=[stylegan], guide=[other])
