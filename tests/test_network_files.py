"""Network files of StyleGAN2-ADA: made here as the published code makes them, and as somebody who means harm would."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import re
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from emobench.errors import WeightsError
from emobench.generators.stylegan2 import generator_of
from emobench.nn.network_files import Network, read_network, write_network
from emobench.nn.stylegan2 import Discriminator, Generator
from emobench.nn.weights import load_weights

Z, W, CHANNELS = 5, 7, {4: 6, 8: 4}


def reconstruct(meta: Any) -> Any:
    raise AssertionError("code of a network file was about to run")


class EasyDict(dict):  # type: ignore[type-arg]
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


reconstruct.__name__ = reconstruct.__qualname__ = "_reconstruct_persistent_obj"
reconstruct.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"


@contextmanager
def published_code() -> Iterator[None]:
    """The modules by whose names the published code pickles, there only while a file is written."""
    modules = {name: types.ModuleType(name) for name in ("torch_utils.persistence", "dnnlib.util")}
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = reconstruct  # type: ignore[attr-defined]
    modules["dnnlib.util"].EasyDict = EasyDict  # type: ignore[attr-defined]
    modules |= {name: types.ModuleType(name) for name in ("torch_utils", "dnnlib")}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


class Persistent(nn.Module):
    """A module that is pickled as torch_utils.persistence does it: its source, its class's name and its `__dict__`."""

    def __init__(self, class_name: str, **attributes: Any) -> None:
        super().__init__()
        self.class_name = class_name
        self._init_args, self._init_kwargs = (), EasyDict(attributes)
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self) -> Any:
        state = dict(self.__dict__)
        state |= {key: OrderedDict(state[key]) for key in ("_parameters", "_buffers", "_modules")}  # as torch 1.7's
        source = "open('canary', 'w')\nraise SystemExit('the source of a network file ran')\n"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": state.pop("class_name")}
        return reconstruct, ({**meta, "state": state},), None


def fully_connected(before: int, after: int, activation: str = "linear", multiplier: float = 1) -> Persistent:
    gain = multiplier / np.sqrt(before)
    layer = Persistent("FullyConnectedLayer", activation=activation, weight_gain=gain, bias_gain=multiplier)
    layer.weight = nn.Parameter(torch.randn(after, before) / multiplier)
    layer.bias = nn.Parameter(torch.randn(after))
    return layer


def blurring(module: Persistent) -> Persistent:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    module.register_buffer("resample_filter", torch.outer(taps, taps) / 64)
    return module


def synthesis_layer(before: int, after: int, side: int, kernel: int = 3) -> Persistent:
    settings = {"activation": "lrelu", "act_gain": np.sqrt(2), "use_noise": True} if kernel == 3 else {}
    layer = Persistent("SynthesisLayer" if kernel == 3 else "ToRGBLayer", w_dim=W, conv_clamp=256, **settings)
    layer.affine = fully_connected(W, before)
    layer.weight = nn.Parameter(torch.randn(after, before, kernel, kernel).to(memory_format=torch.channels_last))
    layer.bias = nn.Parameter(torch.randn(after))
    if kernel == 3:
        layer.noise_strength = nn.Parameter(torch.tensor(0.25))
        layer.register_buffer("noise_const", torch.randn(side, side))
        blurring(layer)
    return layer


def mapping(
    z_dim: int,
    c_dim: int,
    w_dim: int,
    layers: int,
    averages: bool,
    *,
    activation: str = "lrelu",
    lr_multiplier: float = 0.01,
    embed_features: int | None = None,
    layer_features: int | None = None,
) -> Persistent:
    beta = 0.995 if averages else None
    module = Persistent("MappingNetwork", z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_layers=layers, w_avg_beta=beta)
    embedded = (embed_features or w_dim) if c_dim else 0
    if c_dim:
        module.embed = fully_connected(c_dim, embedded)
    sides = [z_dim + embedded, *[layer_features or w_dim] * (layers - 1), w_dim]
    for place in range(layers):
        module.add_module(f"fc{place}", fully_connected(*sides[place : place + 2], activation, lr_multiplier))
    if averages:
        module.register_buffer("w_avg", torch.randn(w_dim))
    return module


def generator(c_dim: int) -> Persistent:
    sizes = {"img_resolution": 8, "img_channels": 3}
    network = Persistent("Generator", z_dim=Z, c_dim=c_dim, w_dim=W, num_ws=4, **sizes)
    network.synthesis = Persistent("SynthesisNetwork", w_dim=W, img_resolution_log2=3, **sizes)
    for side, channels in CHANNELS.items():
        block = Persistent("SynthesisBlock", architecture="skip", use_fp16=side == 8, num_conv=1 + (side > 4))
        if side == 4:
            block.const = nn.Parameter(torch.randn(channels, 4, 4))
        else:
            block.conv0 = synthesis_layer(CHANNELS[side // 2], channels, side)
        block.conv1 = synthesis_layer(channels, channels, side)
        block.torgb = synthesis_layer(channels, 3, side, kernel=1)
        network.synthesis.add_module(f"b{side}", blurring(block))
    network.mapping = mapping(Z, c_dim, W, 2, averages=True)
    return network.eval().requires_grad_(False)


def convolution(before: int, after: int, kernel: int, bias: bool = True) -> Persistent:
    layer = Persistent("Conv2dLayer", activation="lrelu" if bias else "linear", conv_clamp=256 if bias else None)
    layer.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
    layer.bias = nn.Parameter(torch.randn(after)) if bias else None
    return blurring(layer)


def discriminator(c_dim: int) -> Persistent:
    network = Persistent("Discriminator", c_dim=c_dim, img_resolution=8, img_channels=3)
    network.b8 = Persistent("DiscriminatorBlock", architecture="resnet", in_channels=0)
    network.b8.fromrgb = convolution(3, CHANNELS[8], 1)
    network.b8.conv0 = convolution(CHANNELS[8], CHANNELS[8], 3)
    network.b8.conv1 = convolution(CHANNELS[8], CHANNELS[4], 3)
    network.b8.skip = convolution(CHANNELS[8], CHANNELS[4], 1, bias=False)
    network.b4 = Persistent("DiscriminatorEpilogue", architecture="resnet", in_channels=CHANNELS[4])
    network.b4.mbstd = Persistent("MinibatchStdLayer", group_size=4, num_channels=1)
    network.b4.conv = convolution(CHANNELS[4] + 1, CHANNELS[4], 3)
    network.b4.fc = fully_connected(CHANNELS[4] * 16, CHANNELS[4], "lrelu")
    network.b4.out = fully_connected(CHANNELS[4], CHANNELS[4] if c_dim else 1)
    if c_dim:
        network.mapping = mapping(0, c_dim, CHANNELS[4], 8, averages=False)  # 8 by default, whatever the generator's
    return network.eval().requires_grad_(False)


def snapshot(c_dim: int = 3) -> dict[str, Any]:
    torch.manual_seed(0)
    made = generator(c_dim)
    augment = Persistent("AugmentPipe", xflip=1.0, brightness_std=0.2)
    augment.register_buffer("p", torch.tensor(0.3))
    settings = EasyDict(class_name="training.dataset.ImageFolderDataset", path="./faces.zip", max_size=100)
    return {
        "training_set_kwargs": settings,
        "G": made,
        "D": discriminator(c_dim),
        "G_ema": made,
        "augment_pipe": augment,
    }


def saved(path: Path, content: Any, protocol: int = 3) -> Path:
    """A pickle as Python 3.7 writes it, with the names that numpy had then."""
    with published_code():
        data = pickle.dumps(content, protocol)
    if protocol == 3:
        data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    path.write_bytes(data)
    return path


def plain_state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.endswith("resample_filter")}


def globals_of(path: Path) -> set[str]:
    return {str(argument) for code, argument, _ in pickletools.genops(path.read_bytes()) if code.name == "GLOBAL"}


# Published files


@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("protocol", [3, 4])
def test_a_published_file_is_read(tmp_path: Path, c_dim: int, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = snapshot(c_dim)
    path = saved(tmp_path / "network-snapshot-000100.pkl", content, protocol)
    if protocol == 3:
        assert globals_of(path) == {
            "torch_utils.persistence _reconstruct_persistent_obj", "dnnlib.util EasyDict", "collections OrderedDict",
            "torch.storage _load_from_bytes", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
            "numpy dtype", "numpy.core.multiarray scalar", "builtins set",
        }  # fmt: skip
    network = read_network(path)
    assert network.config == {
        "resolution": 8, "z_dim": Z, "w_dim": W, "c_dim": c_dim, "mapping_layers": 2, "channels": {"4": 6, "8": 4},
        "img_channels": 3, "conv_clamp": 256.0, "architecture": "skip", "lr_multiplier": 0.01,
        "discriminator": {
            "conv_clamp": 256.0, "mbstd_group_size": 4, **({"lr_multiplier": 0.01} if c_dim else {}),
        },
    }  # fmt: skip
    assert network.unread is None
    assert json.loads(json.dumps(network.config)) == network.config
    for found, wanted in ((network.generator, content["G_ema"]), (network.discriminator, content["D"])):
        assert found is not None
        assert found.keys() == plain_state(wanted).keys()
        assert all(torch.equal(found[name], value) for name, value in plain_state(wanted).items())
    assert network.generator["synthesis.b8.conv0.noise_strength"] == 0.25
    assert os.listdir() == [path.name]  # no source code ran


def test_its_tensors_fit_our_networks(tmp_path: Path) -> None:
    network = read_network(saved(tmp_path / "network.pkl", snapshot()))
    config = network.config
    ours = Generator(z_dim=Z, c_dim=3, w_dim=W, mapping_layers=config["mapping_layers"], channels=CHANNELS)
    load_weights(ours, network.generator, "network.pkl", ())
    assert network.discriminator is not None
    judge = Discriminator(c_dim=3, channels=CHANNELS, mapping_layers=8)
    load_weights(judge, network.discriminator, "network.pkl", ())
    images = ours.eval()(torch.randn(2, Z), torch.eye(3)[:2])
    assert judge(images, torch.eye(3)[:2]).shape == (2,)


def test_a_file_without_a_discriminator_or_clamp(tmp_path: Path) -> None:
    content = snapshot(0)
    for module in content["G_ema"].modules():
        if hasattr(module, "conv_clamp"):
            module.conv_clamp = None
    network = read_network(saved(tmp_path / "network.pkl", {"G_ema": content["G_ema"], "D": None}))
    assert network.config["conv_clamp"] is None
    assert network.discriminator is None


def put(path: str, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of an attribute of a module, by the path to it."""

    def change(content: dict[str, Any]) -> None:
        first, _, rest = path.partition(".")
        setattr(content[first].get_submodule(rest), name, value)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("G_ema.synthesis.b8", "architecture", "resnet"), "architecture of synthesis.b8 is 'resnet', not 'skip'"),
        (put("G_ema.synthesis.b8", "resample_filter", torch.ones(2, 2) / 4), "b8.resample_filter is another filter"),
        (put("G_ema.synthesis.b8.conv0", "conv_clamp", None), "layers have different conv_clamp: 256, None"),
        (put("G_ema", "img_resolution", 16), "there is no synthesis.b16.architecture"),
        (put("G_ema", "img_resolution", 12), "img_resolution is 12, not a power of two"),
        (put("G_ema", "z_dim", 6), r"mapping.fc0.weight is \(7, 12\), not \(any, 13\)"),
        (put("G_ema", "z_dim", "many"), "z_dim is 'many', not a whole number"),
        (put("G_ema", "img_channels", 1), r"torgb.weight is \(3, 6, 1, 1\), not \(1, 6, 1, 1\)"),
        (put("G_ema.mapping", "num_layers", 3), "there is no mapping.fc2.weight"),
        (lambda content: delattr(content["G_ema"], "w_dim"), "there is no w_dim"),
        (lambda content: delattr(content["G_ema"], "synthesis"), "there is no synthesis.b4.architecture"),
        (put("G_ema.mapping", "w_avg_beta", None), "the w_avg_beta of mapping is None"),
        (put("G_ema.mapping.fc1", "activation", "relu"), "the activation of mapping.fc1 is 'relu', not 'lrelu'"),
        (put("G_ema.mapping.fc0", "bias_gain", 1), "mapping.fc0 scales its weights by another lr_multiplier"),
        (put("G_ema.mapping", "fc1", fully_connected(W, W, "lrelu", 0.1)), r"different lr_multiplier: \[0.01, 0.1\]"),
        (put("G_ema.mapping", "embed", fully_connected(3, W, "lrelu")), "activation of mapping.embed is 'lrelu'"),
        (put("G_ema.mapping", "embed", fully_connected(3, 6)), "embed_features of mapping are 6, not w_dim, 7"),
        (
            put("G_ema", "mapping", mapping(Z, 3, W, 2, True, embed_features=6)),
            "embed_features of mapping are 6, not w_dim, 7",
        ),
        (
            put("G_ema", "mapping", mapping(Z, 3, W, 3, True, layer_features=9)),
            "layer_features of mapping are 9, not w_dim, 7",
        ),
        (put("G_ema.synthesis.b8.conv1", "activation", "swish"), "activation of synthesis.b8.conv1 is 'swish'"),
        (put("G_ema.synthesis.b4.conv1", "use_noise", False), "use_noise of synthesis.b4.conv1 is False, not True"),
        (
            put("G_ema.synthesis.b8.conv0", "affine", fully_connected(W, 6, "linear", 0.1)),
            "lr_multiplier of synthesis.b8.conv0.affine is 0.1, not 1",
        ),
        (lambda content: content.pop("G_ema"), "holds no generator 'G_ema'"),
    ],
)  # fmt: skip
def test_what_is_no_such_network_is_said(tmp_path: Path, change: Callable[[Any], None], says: str) -> None:
    content = snapshot()
    change(content)
    with pytest.raises(WeightsError, match=says) as error:
        read_network(saved(tmp_path / "network.pkl", content))
    assert str(tmp_path / "network.pkl") in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("D.b8", "architecture", "orig"), "D: the architecture of b8 is 'orig', not 'resnet'"),
        (put("D.b4", "architecture", "skip"), "D: the architecture of b4 is 'skip', not 'resnet'"),
        (put("D.b8.conv1", "resample_filter", torch.ones(4, 4) / 16), "D: b8.conv1.resample_filter is another filter"),
        (put("D", "c_dim", 5), "D: c_dim is 5, the generator's 3"),
        (put("D.b8.conv0", "activation", "relu"), "D: the activation of b8.conv0 is 'relu', not 'lrelu'"),
        (put("D.b8.skip", "activation", "lrelu"), "D: the activation of b8.skip is 'lrelu', not 'linear'"),
        (put("D.b4.fc", "activation", "relu"), "D: the activation of b4.fc is 'relu', not 'lrelu'"),
        (put("D.b4.conv", "conv_clamp", None), "D: layers have different conv_clamp: 256, None"),
        (put("D.b4", "mbstd", None), "D: its mbstd_num_channels is 0, not 1"),
        (put("D.b4.mbstd", "num_channels", 2), "D: the num_channels of b4.mbstd is 2, not 1"),
        (put("D.b4.mbstd", "group_size", 0), "D: the group_size of b4.mbstd is 0, not at least 1"),
        (put("D.b4", "out", fully_connected(6, 5)), "D: its cmap_dim is 5, not 6, the channels at 4 px"),
        (put("D.b8", "conv0", convolution(8, 8, 3)), r"D: b8.conv0.weight is \(8, 8, 3, 3\), not \(4, 4, 3, 3\)"),
        (put("D", "mapping", mapping(0, 3, 6, 8, False, activation="relu")), "activation of mapping.fc0 is 'relu'"),
    ],
)  # fmt: skip
def test_a_generator_is_used_without_a_discriminator_that_is_none_of_ours(
    tmp_path: Path, change: Callable[[Any], None], says: str
) -> None:
    content = snapshot()
    usual = read_network(saved(tmp_path / "network.pkl", content))
    change(content)
    network = read_network(saved(tmp_path / "network.pkl", content))
    assert network.discriminator is None
    assert network.unread is not None
    assert re.search(says, network.unread)
    assert network.config == {**usual.config, "discriminator": None}
    assert network.generator.keys() == usual.generator.keys()
    images = generator_of(tmp_path / "network.pkl")(torch.randn(2, Z), torch.eye(3)[:2])
    assert images.shape == (2, 3, 8, 8)


def test_settings_that_are_read_make_the_network_that_was_published(tmp_path: Path) -> None:
    """w as the published code computes it, at another rate of learning of the mapping's layers than usual."""
    content = snapshot()
    layers = mapping(Z, 3, W, 4, averages=True, lr_multiplier=0.1)
    content["G_ema"].mapping = layers.requires_grad_(False)
    content["D"].b4.mbstd.group_size = None
    content["D"].mapping = mapping(0, 3, CHANNELS[4], 2, averages=False, lr_multiplier=1.0)
    network = read_network(saved(tmp_path / "network.pkl", content))
    assert (network.config["mapping_layers"], network.config["lr_multiplier"]) == (4, 0.1)
    assert network.config["discriminator"] == {"conv_clamp": 256.0, "mbstd_group_size": None, "lr_multiplier": 1.0}
    z, c = torch.randn(3, Z), torch.eye(3)

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    x = torch.cat([unit(z), unit(c @ layers.embed.weight.T / 3**0.5 + layers.embed.bias)], 1)
    for layer in (layers.fc0, layers.fc1, layers.fc2, layers.fc3):
        x = x @ (layer.weight * 0.1 / layer.weight.shape[1] ** 0.5).T + layer.bias * 0.1
        x = torch.where(x > 0, x, 0.2 * x) * 2**0.5
    for path in (tmp_path / "network.pkl", tmp_path / "network.safetensors"):
        if path.suffix == ".safetensors":
            write_network(path, network)
        torch.testing.assert_close(generator_of(path).mapping(z, c), x, rtol=1e-5, atol=1e-5)


def test_settings_that_change_nothing_may_have_any_value(tmp_path: Path) -> None:
    content = snapshot()
    usual = read_network(saved(tmp_path / "network.pkl", content))
    content["G_ema"].mapping.w_avg_beta = 0.999
    content["G_ema"].synthesis.b8.use_fp16 = False
    frozen = content["D"].b8.fromrgb  # Freeze-D keeps the weights of a layer as buffers
    weight, bias = frozen.weight.data, frozen.bias.data
    del frozen.weight, frozen.bias
    frozen.register_buffer("weight", weight)
    frozen.register_buffer("bias", bias)
    network = read_network(saved(tmp_path / "network.pkl", content))
    assert network.config == usual.config
    assert network.discriminator is not None
    assert usual.discriminator is not None
    assert network.discriminator.keys() == usual.discriminator.keys()


def test_files_written_before_settings_were_named_are_read(tmp_path: Path) -> None:
    path, network = tmp_path / "network.safetensors", read_network(saved(tmp_path / "network.pkl", snapshot()))
    older = {name: value for name, value in network.config.items() if name not in ("lr_multiplier", "discriminator")}
    write_network(path, Network(older, network.generator, network.discriminator))
    assert read_network(path).config == network.config


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path / "network.pkl", snapshot())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=r"network.pkl: cannot be read as a network file .* Fetch the file again"):
        read_network(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.pkl").write_text("<html>404: not found</html>\n")
    torch.save({"weight": torch.ones(3)}, tmp_path / "zip.pt")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2, 3]))
    for name in ("text.pkl", "zip.pt", "list.pkl"):
        with pytest.raises(WeightsError, match=name):
            read_network(tmp_path / name)
    for missing in (tmp_path / "absent.pkl", tmp_path):
        with pytest.raises(WeightsError, match="no such file"):
            read_network(missing)


def test_tensorflow_files_are_to_be_converted(tmp_path: Path) -> None:
    path = tmp_path / "stylegan2.pkl"
    path.write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01.")
    with pytest.raises(WeightsError, match=r"TensorFlow version \(dnnlib.tflib.network.Network\).*legacy.py"):
        read_network(path)


# Hostile files


class Calls:
    """Unpickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def legacy(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "posix.system": (lambda: Calls(os.system, "touch canary"), "posix.system"),
    "eval": (lambda: Calls(eval, "open('canary', 'w')"), "builtins.eval"),
    "getattr": (lambda: Calls(getattr, {}, "keys"), "builtins.getattr"),
    "nested": (
        lambda: Calls(torch.storage._load_from_bytes, legacy(Calls(os.system, "touch canary"))),
        "posix.system in a tensor",
    ),
    "no storage": (lambda: Calls(torch.storage._load_from_bytes, legacy({"a": 1})), "a dict for a tensor's numbers"),
    "objects": (lambda: np.array([Calls(os.system, "touch canary")], dtype=object), "multiarray._reconstruct"),
    "array": (lambda: np.ones(3), "multiarray._reconstruct"),
    "object number": (lambda: np.dtype("O"), "numpy's dtype 'O8'"),
    "harmless": (lambda: torch.float32, "torch.float32"),
    "harmless class": (lambda: torch.Size([1]), "torch.Size"),
}


@pytest.mark.parametrize("place", ["alone", "in a module"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(
    tmp_path: Path, name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, says = HOSTILE[name]
    content: Any = snapshot()
    if place == "alone":
        content = make()
    else:
        content["G_ema"].synthesis.b8.extra = make()
    path = saved(tmp_path / "network.pkl", content)
    assert os.listdir() == ["network.pkl"]
    with pytest.raises(WeightsError, match=says) as error:
        read_network(path)
    assert "nothing in it was executed" in str(error.value)
    assert os.listdir() == ["network.pkl"]


@pytest.mark.parametrize(
    "asked", ["ctorch._utils\n_rebuild_tensor_v2\n", "ccollections\nOrderedDict\n", "cdnnlib.util\nEasyDict\n"]
)
@pytest.mark.parametrize("state", ["}X\x04\x00\x00\x00makeK\x01s", "N}X\x04\x00\x00\x00makeK\x01s\x86"])
def test_what_stands_for_a_name_cannot_be_altered(tmp_path: Path, asked: str, state: str) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x03" + (asked + state + "b.").encode("latin1"))  # BUILD sets attributes of what is there
    with pytest.raises(WeightsError, match="cannot be read"):
        read_network(path)


def test_a_tensor_stays_within_its_storage(tmp_path: Path) -> None:
    storage = torch.ones(4).untyped_storage()
    for size, stride, offset in (((5,), (1,), 0), ((4,), (1,), 1), ((1 << 40,), (0,), 0), ((-1,), (1,), 0)):
        typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
        content = Calls(torch._utils._rebuild_tensor_v2, typed, offset, size, stride, False, OrderedDict())
        with pytest.raises(WeightsError, match="cannot be read"):
            read_network(saved(tmp_path / "network.pkl", content))


# Ours


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for c_dim in (0, 3):
        network = read_network(saved(tmp_path / "network.pkl", snapshot(c_dim)))
        path = tmp_path / "network.safetensors"
        write_network(path, network)
        again = read_network(path)
        assert again.config == network.config
        for before, after in ((network.generator, again.generator), (network.discriminator, again.discriminator)):
            assert before is not None
            assert after is not None
            assert before.keys() == after.keys()
            assert all(torch.equal(after[name], value) for name, value in before.items())
    shared = nn.Parameter(torch.ones(4, 4))
    write_network(path, Network(network.config, {"a": shared, "b": shared.T}, None))
    assert read_network(path).discriminator is None
    assert sorted(os.listdir(tmp_path)) == ["network.pkl", "network.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    network = read_network(saved(tmp_path / "network.pkl", snapshot(0)))
    write_network(path, network)
    with pytest.raises(ValueError, match="JSON"):
        write_network(path, Network({"conv_clamp": float("nan")}, {}, None))
    assert read_network(path).config == network.config


def test_safetensors_of_others_are_refused_by_name(tmp_path: Path) -> None:
    path, tensors = tmp_path / "model.safetensors", {"generator.weight": torch.ones(2)}
    config = {**read_network(saved(tmp_path / "network.pkl", snapshot(0))).config}
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"model.safetensors: does not say what network.*published .pkl"):
        read_network(path)
    lacking = {key: value for key, value in config.items() if key not in ("z_dim", "channels")}
    save_file(tensors, path, {"emobench": json.dumps(lacking)})
    with pytest.raises(WeightsError, match="lacks z_dim, channels"):
        read_network(path)
    save_file({"critic.weight": torch.ones(2)}, path, {"emobench": json.dumps(config)})
    with pytest.raises(WeightsError, match="holds critic.weight, which is part of neither network"):
        read_network(path)
    save_file({"discriminator.weight": torch.ones(2)}, path, {"emobench": json.dumps(config)})
    with pytest.raises(WeightsError, match="no tensors of a generator"):
        read_network(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        read_network(path)
