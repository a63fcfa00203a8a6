"""StyleGAN2 is the published architecture, layer by layer, and its training is what the papers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import convolve, correlate
from torch.nn import functional as F

from emobench.errors import SizeError, WeightsError
from emobench.generators.stylegan2 import StyleGAN2
from emobench.nn.network_files import Network, write_network
from emobench.nn.stylegan2 import Discriminator, Generator, MappingNetwork, channels_of

EMOTIONS = ("neutral", "happy", "sad", "anger")
SMALL: dict[str, Any] = {"latent": 8, "style": 6, "base": 256, "most": 8, "mapping_layers": 2}
TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def model(**arguments: Any) -> StyleGAN2:
    torch.manual_seed(0)
    return StyleGAN2(emotions=EMOTIONS, size=32, **{**SMALL, **arguments})


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """With biases and noise strengths that are not 0, so that forgetting one shows."""
    torch.manual_seed(1)
    for name, value in network.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            value.data.add_(torch.randn_like(value) * 0.3)
    return network.eval()


# ---- the architecture, from the equations ----------------------------------------------------------------------------


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def leaky(x: np.ndarray, gain: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x) * np.sqrt(2) * gain


def dense(layer: Any, x: np.ndarray, slow: float = 1.0) -> np.ndarray:
    weight = array(layer.weight) * slow / np.sqrt(layer.weight.shape[1])
    return x @ weight.T + array(layer.bias) * slow


def mapped(mapping: MappingNetwork, z: np.ndarray | None, classes: np.ndarray) -> np.ndarray:
    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(1, keepdims=True))

    x = unit(dense(mapping.embed, classes))
    x = x if z is None else np.concatenate([unit(z), x], 1)
    for place in range(mapping.layers):
        x = leaky(dense(getattr(mapping, f"fc{place}"), x, 0.01))
    return x


def filtered(x: np.ndarray, gain: float) -> np.ndarray:
    return np.stack([[convolve(channel, TAPS * gain, "valid") for channel in face] for face in x])


def spaced(x: np.ndarray) -> np.ndarray:
    """A zero after each pixel."""
    n, c, h, w = x.shape
    out = np.zeros((n, c, 2 * h, 2 * w))
    out[..., ::2, ::2] = x
    return out


def pad(x: np.ndarray, before: int, after: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))


def modulated(layer: Any, x: np.ndarray, w: np.ndarray, *, up: bool, demodulate: bool) -> np.ndarray:
    """Equations 1 and 3 with a kernel for each face; upsampling by zeros, convolution and blur (figure 7)."""
    style = dense(layer.affine, w)
    weight = array(layer.weight)
    found = []
    for face, scale in zip(x, style, strict=True):
        kernel = weight * scale[None, :, None, None]
        if demodulate:
            kernel = kernel / np.sqrt((kernel**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        else:
            kernel = kernel / np.sqrt(weight[0].size)
        if up:
            wide = spaced(face[None])[0][:, :-1, :-1]
            made = [sum(convolve(c, k, "full") for c, k in zip(wide, each, strict=True)) for each in kernel]
        else:
            same = weight.shape[-1] // 2
            wide = pad(face[None], same, same)[0]
            made = [sum(correlate(c, k, "valid") for c, k in zip(wide, each, strict=True)) for each in kernel]
        found.append(np.stack(made))
    out = np.stack(found)
    return filtered(pad(out, 1, 1), 4) if up else out


def layer(of: Any, x: np.ndarray, w: np.ndarray, noise: np.ndarray, *, up: bool) -> np.ndarray:
    x = modulated(of, x, w, up=up, demodulate=True)
    return leaky(x + noise * array(of.noise_strength) + array(of.bias)[:, None, None])


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_generator_is_the_published_one_layer_by_layer() -> None:
    torch.manual_seed(0)
    channels = channels_of(16, 128, 8)
    assert channels == {4: 8, 8: 8, 16: 8}
    network: Any = shaken(Generator(z_dim=5, c_dim=4, w_dim=6, mapping_layers=3, channels=channels))
    z, classes = torch.randn(3, 5), torch.eye(4)[:3]
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.synthesis.named_modules():
        if name.endswith(("conv0", "conv1", "torgb")):
            module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    ws = torch.randn(3, 6, 6)
    noises = [torch.randn(3, 1, side, side) for side in (4, 8, 8, 16, 16)]
    image = network.synthesis(ws, noises)

    close(network.mapping(z, classes), mapped(network.mapping, array(z), array(classes)))
    x, made, place = np.repeat(array(network.synthesis.b4.const)[None], 3, 0), None, 0
    w, drawn = array(ws), [array(noise) for noise in noises]
    for side in (4, 8, 16):
        block = getattr(network.synthesis, f"b{side}")
        if side > 4:
            x = layer(block.conv0, x, w[:, place], drawn[place], up=True)
            close(seen[f"b{side}.conv0"], x)
            place += 1
        x = layer(block.conv1, x, w[:, place], drawn[place], up=False)
        close(seen[f"b{side}.conv1"], x)
        place += 1
        added = modulated(block.torgb, x, w[:, place], up=False, demodulate=False)
        added += array(block.torgb.bias)[:, None, None]
        close(seen[f"b{side}.torgb"], added)
        made = added if made is None else filtered(pad(spaced(made), 2, 1), 4) + added
    assert made is not None
    close(image, made)


def convolution(of: Any, x: np.ndarray, *, down: bool, gain: float = 1.0) -> np.ndarray:
    weight = array(of.weight) / np.sqrt(of.weight[0].numel())
    size = weight.shape[-1]
    x = filtered(pad(x, 1 + size // 2, 1 + size // 2), 1) if down else pad(x, size // 2, size // 2)
    made = np.stack(
        [[sum(correlate(c, k, "valid") for c, k in zip(face, each, strict=True)) for each in weight] for face in x]
    )
    made = made[..., ::2, ::2] if down else made
    return made * gain if of.bias is None else leaky(made + array(of.bias)[:, None, None], gain)


def test_the_discriminator_is_the_published_one() -> None:
    torch.manual_seed(0)
    network: Any = shaken(Discriminator(c_dim=4, channels=channels_of(16, 64, 8), mapping_layers=2))
    pixels, classes = torch.randn(8, 3, 16, 16), torch.eye(4).repeat(2, 1)
    x = array(pixels)
    for side in (16, 8):
        block = getattr(network, f"b{side}")
        x = convolution(block.fromrgb, x, down=False) if side == 16 else x
        half = np.sqrt(0.5)
        through = convolution(block.conv1, convolution(block.conv0, x, down=False), down=True, gain=half)
        x = through + convolution(block.skip, x, down=True, gain=half)
    groups = x.reshape(4, 2, *x.shape[1:])  # the i-th of each quarter of the batch make a group
    spread = np.sqrt(groups.var(0) + 1e-8).mean((1, 2, 3))
    x = np.concatenate([x, np.tile(spread, 4)[:, None, None, None] * np.ones((8, 1, 4, 4))], 1)
    x = convolution(network.b4.conv, x, down=False).reshape(8, -1)
    x = dense(network.b4.out, leaky(dense(network.b4.fc, x)))
    wanted = mapped(network.mapping, None, array(classes))
    close(network(pixels, classes), (x * wanted).sum(1) / np.sqrt(wanted.shape[1]))


def test_unconditional_networks_take_no_classes() -> None:
    plain = model(conditional=False).eval()
    assert not any("embed" in name for name in plain.state_dict())
    one, other = (plain.sample(torch.eye(4)[k : k + 1], torch.tensor([3])) for k in (0, 2))
    assert torch.equal(one, other)
    assert plain.discriminator(torch.randn(4, 3, 32, 32), None).shape == (4,)


def test_the_mean_of_w_follows_and_truncation_moves_towards_it() -> None:
    network = model(truncation=0.0)
    assert torch.equal(network.generator.mapping.w_avg, torch.zeros(6))
    with torch.no_grad():
        network.generator.train()(torch.randn(16, 8), torch.eye(4).repeat(4, 1))
    assert network.generator.mapping.w_avg.abs().sum() > 0
    network.eval()
    moved = network.generator.mapping.w_avg.clone()
    faces = network.sample(torch.eye(4)[:2], torch.tensor([1, 1]))
    assert torch.equal(faces[0], faces[1])  # at ψ = 0 every emotion is the mean
    network.truncation = 1.0
    faces = network.sample(torch.eye(4)[:2], torch.tensor([1, 1]))
    assert not torch.equal(faces[0], faces[1])
    assert torch.equal(network.generator.mapping.w_avg, moved)


def test_mixing_gives_later_layers_the_styles_of_another_z() -> None:
    generator = model().generator.eval()
    seen: list[torch.Tensor] = []
    generator.synthesis.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    z, classes = torch.randn(2, 8), torch.eye(4)[:2]
    torch.manual_seed(3)
    generator(z, classes, mixing=1.0)
    own = generator.mapping(z, classes)
    same = (seen[0] == own[:, None]).all(2).all(0)  # (L,)
    cut = int(same.sum())
    assert 1 <= cut < len(same)
    assert same.tolist() == [True] * cut + [False] * (len(same) - cut)


# ---- training ------------------------------------------------------------------------------------------------------


def test_r1_is_the_squared_gradient_at_real_faces() -> None:
    network = model(ada_target=None)

    class Linear(torch.nn.Module):
        def forward(self, pixels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            return 3 * pixels[:, :, 0, 0].sum(1)

    network.discriminator = Linear()  # type: ignore[assignment]
    assert float(network._gradient_penalty(torch.randn(4, 3, 32, 32), torch.eye(4))) == pytest.approx(27)


def test_r1_goes_through_the_augmentation() -> None:
    network = model()
    network.augment.p.fill_(1.0)
    penalty = network._gradient_penalty(torch.randn(4, 3, 32, 32), torch.eye(4))
    penalty.backward()
    gradients = [value.grad for value in network.discriminator.parameters() if value.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_path_lengths_are_pulled_to_their_mean() -> None:
    network = model(path_length=2.0)
    torch.manual_seed(0)
    first = network._path_penalty(torch.eye(4))
    assert network.usual_path > 0
    first.backward()
    assert network.generator.synthesis.b32.conv1.weight.grad is not None  # type: ignore[union-attr]
    parts = network._generator_parts(torch.eye(4), 0)
    assert set(parts) == {"adversarial", "path_length"}
    assert set(network._generator_parts(torch.eye(4), 1)) == {"adversarial"}
    assert set(network._discriminator_parts(torch.randn(4, 3, 32, 32), torch.eye(4), torch.eye(4), 16)) == {
        "fake", "real", "r1",
    }  # fmt: skip


def test_the_default_r1_is_the_papers_heuristic() -> None:
    assert model().r1 == pytest.approx(0.0002 * 32**2 / 32)
    assert model(r1=0.5).r1 == 0.5


@pytest.mark.parametrize("size", [16, 48, 2048])
def test_only_powers_of_two_are_made(size: int) -> None:
    with pytest.raises(SizeError, match="32, 64, 128"):
        StyleGAN2(emotions=EMOTIONS, size=size, **SMALL)


def test_convolutions_of_high_resolutions_are_half_precise_and_the_image_is_not() -> None:
    network = StyleGAN2(emotions=EMOTIONS, size=64, **SMALL).eval()
    seen: dict[str, torch.dtype] = {}
    for name, module in network.generator.synthesis.named_modules():
        if name.endswith("conv1"):
            module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        image = network.generator(torch.randn(2, 8), torch.eye(4)[:2])
        score = network.discriminator(image, torch.eye(4)[:2])
    assert image.dtype == score.dtype == torch.float32
    assert seen["b4.conv1"] == torch.float32
    assert seen["b64.conv1"] == torch.bfloat16


def test_a_few_steps_teach_the_discriminator_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model(ada_target=None, lr=0.01).train()
    real = torch.zeros(16, 3, 32, 32) + torch.linspace(-1, 1, 32)
    labels = torch.eye(4).repeat(4, 1)
    optimizer = torch.optim.Adam(network.discriminator.parameters(), 0.01, betas=(0.0, 0.99))
    losses = []
    for step in range(15):
        torch.manual_seed(step)
        parts = network._discriminator_parts(real, labels, labels, step)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimizer.step()
        losses.append((parts["fake"] + parts["real"]).item())
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    with torch.no_grad():
        fooled = F.softplus(-network.discriminator(real, labels)).mean()
    assert fooled < np.log(2)


def written(path: Path, config: Any, *, discriminator: bool = True) -> Path:
    """A network file of a small model whose config has changed."""
    network = model(ada_target=None).network()
    changed = {**network.config, **config}
    write_network(path, Network(changed, network.generator, network.discriminator if discriminator else None))
    return path


def test_a_fit_starts_from_a_files_networks(tmp_path: Path) -> None:
    path = written(tmp_path / "start.safetensors", {"discriminator": {"conv_clamp": 256.0, "mbstd_group_size": 8}})
    torch.manual_seed(1)
    again = StyleGAN2(emotions=EMOTIONS, size=32, **{**SMALL, "weights": str(path), "ada_target": None})
    first = model(ada_target=None)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    assert again.discriminator.b4.group == 8  # not to be seen from the weights
    pixels, classes = torch.randn(8, 3, 32, 32), torch.eye(4).repeat(2, 1)
    whole, halves = again.discriminator(pixels, classes), first.discriminator(pixels, classes)
    assert not torch.allclose(whole, halves)
    assert again.network().config["discriminator"]["mbstd_group_size"] == 8


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"lr_multiplier": 0.1}, "the lr_multiplier of its generator is 0.1, and only networks with 0.01"),
        ({"conv_clamp": None}, "the conv_clamp of its generator is None, and only networks with 256.0"),
        (
            {"discriminator": {"conv_clamp": 256.0, "mbstd_group_size": 4, "lr_multiplier": 1.0}},
            "the lr_multiplier of its discriminator is 1.0",
        ),
    ],
)
def test_a_fit_does_not_start_from_another_network_than_is_trained(tmp_path: Path, config: Any, says: str) -> None:
    path = written(tmp_path / "start.safetensors", config)
    with pytest.raises(WeightsError, match=says):
        model(weights=str(path))


def test_a_fit_that_starts_without_a_discriminator_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "start.safetensors", {"discriminator": None}, discriminator=False)
    with pytest.warns(UserWarning, match=r"start.safetensors: no discriminator is read: the fit begins with an untr"):
        model(weights=str(path))


@pytest.mark.parametrize(("group", "of"), [(2, 2), (4, 4), (5, 4), (None, 8)])
def test_the_spread_is_over_groups_of_the_batch(group: int | None, of: int) -> None:
    network = Discriminator(c_dim=0, channels={4: 6, 8: 4}, group=group)
    seen: list[torch.Tensor] = []
    network.b4.conv.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    network(torch.randn(8, 3, 8, 8), None)
    features, spread = seen[0][:, :6], seen[0][:, 6]
    parted = features.unflatten(0, (of, -1))  # (G, N/G, C, 4, 4)
    wanted = (parted.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat(of)
    torch.testing.assert_close(spread, wanted[:, None, None].expand(-1, 4, 4))
