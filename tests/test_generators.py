"""Every generator keeps the contract; what each one is said to be is what it is."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from emobench.classifiers.vgg import VGG16
from emobench.errors import NotFinite, SizeError, SuiteError
from emobench.generators.cvae import CVAE
from emobench.generators.diffusion import Diffusion
from emobench.generators.generator import EmotionGenerator
from emobench.generators.stargan import StarGAN
from emobench.generators.vae import kl_of
from emobench.generators.vit_cvae import ViTCVAE
from emobench.suite.catalog import classes, parameters, plain, tracks_of

EMOTIONS = ("neutral", "happy", "sad", "anger")
SMALL: dict[str, dict[str, Any]] = {
    "cvae": {"width": 8, "latent": 6},
    "vit_cvae": {"width": 8, "latent": 6, "dim": 32, "depth": 1, "heads": 2, "perceptual": "none"},
    "stargan": {"width": 8, "blocks": 1, "discriminator_width": 8},
    "diffusion": {"channels": (8, 16), "layers": 1, "sampling_steps": 3},
    "stylegan2": {"latent": 8, "style": 8, "base": 256, "most": 8, "ada_target": None},
    "latent_search": {"steps": 3, "projection_steps": 3},
    "cvae_stylegan": {"steps": 2, "projection_steps": 3},
    "style_transfer": {"width": 4, "perceptual": "guide"},
}
GENERATORS = [
    name
    for name, cls in classes("model").items()
    if issubclass(cls, EmotionGenerator) and not getattr(cls, "foreign", False)  # pictures: test_pictures.py
]


def small(name: str, size: int = 32, **arguments: Any) -> Any:
    torch.manual_seed(0)
    cls = classes("model")[name]
    arguments = {**SMALL.get(name, {}), **arguments}
    return cls(emotions=EMOTIONS, size=size, **arguments, **needs(cls, arguments)).eval()


@functools.cache
def needed(kind: str) -> Any:
    """A small frozen network of a kind."""
    if kind == "classifier":
        return (
            VGG16(emotions=EMOTIONS, size=32, width=0.0625, stem="small", pool=1, head=8).eval().requires_grad_(False)
        )
    return small(kind).requires_grad_(False)


def needs(cls: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a class must be handed, and what its arguments ask for."""
    wanted = dict(cls.needs)
    if "generator" in cls.may_need:
        wanted["generator"] = cls.may_need["generator"]
    if arguments.get("perceptual") == "guide":
        wanted["guide"] = "classifier"
    return {role: [needed(kind)] for role, kind in wanted.items()}


def needs_no_opponent(name: str) -> bool:
    """Whether one loss is minimised."""
    return classes("model")[name].recipe is not None and name not in ("stargan", "stylegan2")


def requests(n: int) -> torch.Tensor:
    return torch.eye(len(EMOTIONS))[torch.arange(n) % len(EMOTIONS)]


FACES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8))


@pytest.mark.parametrize("name", GENERATORS)
def test_the_contract(name: str) -> None:
    model = small(name)
    assert tracks_of(type(model))
    seeds = torch.arange(6) + 100
    draws = []
    if hasattr(model, "sample"):
        draws.append(lambda emotions, noise, _: model.sample(emotions, noise))
    if hasattr(model, "begin"):
        draws.append(lambda emotions, noise, _: model.begin(emotions, noise))
    if hasattr(model, "edit"):
        draws.append(lambda emotions, noise, faces: model.edit(faces, emotions, noise))
    if hasattr(model, "stylize"):
        draws.append(lambda emotions, _, faces: model.stylize(faces, emotions))
    for draw in draws:
        made = draw(requests(6), seeds, FACES)
        assert (made.shape, made.dtype) == ((6, 3, 32, 32), torch.uint8)
        again = torch.cat([draw(requests(6)[k : k + 1], seeds[k : k + 1], FACES[k : k + 1]) for k in range(6)])
        assert (made.int() - again.int()).abs().max() <= 1  # a face does not depend on its batch
        assert torch.equal(made, draw(requests(6), seeds, FACES))
        mixture = draw(torch.full((6, 4), 0.25), seeds, FACES)
        assert mixture.shape == made.shape
        draw(torch.zeros(6, 4), seeds, FACES)  # unconditional


@pytest.mark.parametrize("name", GENERATORS)
def test_hparams_are_plain_and_rebuild_the_model(name: str) -> None:
    model = small(name)
    hparams = json.loads(json.dumps(plain(dict(model.hparams))))
    arguments = {key: value for key, value in hparams.items() if key in parameters(type(model))}
    again = type(model)(emotions=EMOTIONS, size=32, **arguments, **needs(type(model), arguments))
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert len(set(plain(arguments)) - set(parameters(type(model)))) == 0


@pytest.mark.parametrize("name", [name for name in GENERATORS if classes("model")[name].recipe is not None])
def test_sizes_that_it_cannot_make_are_refused_by_name(name: str) -> None:
    with pytest.raises(SizeError, match=name):
        small(name, size=37)


@pytest.mark.parametrize("name", [name for name in GENERATORS if needs_no_opponent(name)])
def test_losses_are_named_and_fall(name: str) -> None:
    model = small(name).train()
    pixels = model.pixels(FACES)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for step in range(40):
        torch.manual_seed(step % 4)
        loss = torch.stack(list(model.loss_parts(pixels, requests(6), training=True).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    model.eval()
    with torch.no_grad():
        one, other = (model.loss_parts(pixels, requests(6), training=False) for _ in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)  # validation is the same each time


def test_pixels_and_images_are_inverse_and_refuse_nan() -> None:
    model = small("cvae")
    assert torch.equal(model.images(model.pixels(FACES)), FACES)
    assert model.pixels(FACES[:, :, :16, :16]).shape == (6, 3, 32, 32)
    broken = model.pixels(FACES).clone()
    broken[4, 1, 2, 3] = float("nan")
    with pytest.raises(NotFinite, match="1 of 6 faces") as error:
        model.images(broken)
    assert error.value.index == 4


def test_kl_is_torchs() -> None:
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum(1).mean()
    torch.testing.assert_close(kl_of(mean, log_variance), expected)


def test_cvae_beta_weighs_the_kl() -> None:
    torch.manual_seed(0)
    parts = [
        small("cvae", beta=beta).loss_parts(small("cvae").pixels(FACES), requests(6), training=False) for beta in (1, 2)
    ]
    torch.testing.assert_close(2 * parts[0]["kl"], parts[1]["kl"])


def test_vit_cvae_without_its_head_makes_the_face_itself() -> None:
    with_head, without = (small("vit_cvae", head=head) for head in (True, False))
    assert with_head.tokens * 2 == without.tokens
    assert without.decode(torch.randn(2, 6), requests(2)).shape == (2, 3, 32, 32)


def test_stargan_classifies_only_emotions_that_the_dataset_knows() -> None:
    from emobench.generators.stargan import _reading_loss

    logits = torch.tensor([[0.0, 5.0, 0.0, 0.0]])
    happy = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    all_known, second_unknown = torch.ones(1, 4), torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    assert _reading_loss(logits, happy, all_known) > 4
    assert _reading_loss(logits, happy, second_unknown) == pytest.approx(np.log(3), abs=1e-4)


def test_stargan_is_told_of_several_datasets_which_one_a_face_is_to_be_of() -> None:
    """Choi et al. 2018, eq. 7: the label and a one-hot mask over the datasets, as planes beside the face."""
    model = small("stargan", datasets=("first", "second"))
    seen: list[torch.Tensor] = []
    model.generator.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    made = {name: model.edit(FACES, requests(6), torch.arange(6), dataset=name) for name in (None, "first", "second")}
    model.dataset = "second"
    assert torch.equal(model.edit(FACES, requests(6), torch.arange(6)), made["second"])
    assert torch.equal(made[None], made["first"])
    assert not torch.equal(made["first"], made["second"])
    for planes, mask in zip(seen, ([1, 0], [1, 0], [0, 1], [0, 1]), strict=True):
        assert planes.shape == (6, 3 + 4 + 2, 32, 32)
        assert torch.equal(planes[:, :3], model.pixels(FACES))
        assert torch.equal(planes[:, 3:7], requests(6)[:, :, None, None].expand(-1, -1, 32, 32))
        assert torch.equal(planes[:, 7:], torch.tensor(mask).float()[:, None, None].expand(6, -1, 32, 32))
    with pytest.raises(SuiteError, match="unknown dataset 'secnod': did you mean 'second'"):
        model.edit(FACES, requests(6), torch.arange(6), dataset="secnod")


def test_stargan_trained_on_one_dataset_has_no_mask() -> None:
    alone = small("stargan")
    assert alone.generator.layers[0].weight.shape == (8, 3 + 4, 7, 7)
    assert alone.hparams["datasets"] == []
    assert alone.datasets == ()
    named = small("stargan", datasets=("only",))
    assert all(torch.equal(value, named.state_dict()[name]) for name, value in alone.state_dict().items())
    with pytest.raises(SuiteError, match="unknown dataset 'only'"):
        alone.edit(FACES, requests(6), torch.arange(6), dataset="only")


def test_stargans_discriminator_begins_with_answers_that_differ() -> None:
    model = small("stargan")
    _, read = model.discriminator(model.pixels(FACES))
    assert 0.1 < read.std(0).mean().item() < 10  # with torch's default weights 0.005


def test_stargans_penalty_is_of_unit_gradients() -> None:
    model = small("stargan")
    pixels = model.pixels(FACES)

    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 3 * x[:, :, 0, 0].sum(1), x  # gradient of norm 3·√3

    model.discriminator = Linear()
    penalty = model._gradient_penalty(pixels, pixels.flip(0))
    assert float(penalty) == pytest.approx((3 * np.sqrt(3) - 1) ** 2, rel=1e-4)


@pytest.mark.parametrize("predict", ["epsilon", "v"])
@pytest.mark.parametrize("sampler", ["dpm", "ddim"])
def test_diffusion_finds_a_face_that_its_network_knows(predict: Any, sampler: Any) -> None:
    """A network that always answers as if one face were the truth leads every noise to that face."""
    model = small("diffusion", predict=predict, sampler=sampler, sampling_steps=20, guidance=1.0, noise="cosine")
    truth = model.pixels(FACES[:1])

    def oracle(noised: torch.Tensor, times: torch.Tensor, emotions: torch.Tensor) -> torch.Tensor:
        signal = model.alphas[times].view(-1, 1, 1, 1)
        noise = (noised - signal.sqrt() * truth) / (1 - signal).sqrt().clamp_min(1e-4)
        return noise if predict == "epsilon" else signal.sqrt() * noise - (1 - signal).sqrt() * truth

    model.predicted = oracle
    made = model.sample(requests(3), torch.arange(3))
    assert (made.float() - FACES[:1].float()).abs().mean() < 6
    parts = model.loss_parts(truth.expand(4, -1, -1, -1), requests(4), training=False)
    assert parts["denoising"] < 1e-6  # the oracle's answer is what training asks for


def test_guidance_needs_no_second_pass_at_one_and_one_batch_otherwise() -> None:
    model = small("diffusion", guidance=1.0)
    sizes: list[int] = []
    network = model.predicted
    model.predicted = lambda noised, times, emotions: (sizes.append(len(noised)), network(noised, times, emotions))[1]
    model.sample(requests(2), torch.arange(2))
    assert set(sizes) == {2}
    model.guidance = 2.0
    sizes.clear()
    model.sample(requests(2), torch.arange(2))
    assert set(sizes) == {4}


def test_an_edit_of_little_strength_stays_close_to_its_source() -> None:
    model = small("diffusion", sampling_steps=20, guidance=1.0)
    near, far = (
        (setattr(model, "strength", strength), model.edit(FACES, requests(6), torch.arange(6)))[1]
        for strength in (0.05, 1.0)
    )
    assert (near.float() - FACES.float()).abs().mean() < (far.float() - FACES.float()).abs().mean()


def test_classes_are_what_they_are_called() -> None:
    assert {cls.name for cls in (CVAE, ViTCVAE, StarGAN, Diffusion)} <= set(GENERATORS)
