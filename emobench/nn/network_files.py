"""StyleGAN2-ADA networks as files: the published pickles, read without running anything in them, and our safetensors.

A published file (Karras et al. 2020b, the PyTorch version) is a pickle of {"G", "D", "G_ema", ...} whose modules carry
their own source code for the reader to execute. Here a module is only looked at: its class's name and its `__dict__`.

Of the settings that such a network can have been trained with,

- read are the dimensions z_dim, c_dim and w_dim, img_resolution, img_channels, the mapping's num_layers and
  lr_multiplier, channels at each resolution (channel_base, channel_max), conv_clamp, mbstd_group_size;
- refused by name, unless they have their default, are architecture ("skip"; of the discriminator "resnet"), activation
  ("lrelu"), resample_filter ([1, 3, 3, 1]), use_noise, embed_features, layer_features, cmap_dim, mbstd_num_channels; a
  discriminator with another one is left unread, and its generator is used without it;
- those that change nothing of what a network computes may have any value: num_fp16_res and channels_last (here the
  trainer's precision holds), w_avg_beta (the mean of w is in the file), freeze_layers.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import isclose, prod, sqrt
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from emobench.errors import WeightsError
from emobench.files import replacing
from emobench.nn.stylegan2 import CLAMP, GROUP, LR_MULTIPLIER

_HEADER = "emobench"  # the key of safetensors' metadata
_CONFIG = (
    "resolution", "z_dim", "w_dim", "c_dim", "mapping_layers", "channels", "img_channels", "conv_clamp", "architecture",
)  # fmt: skip
_SOURCE = "Fetch the file again from where the network was published."


@dataclass(frozen=True)
class Network:
    """A StyleGAN2 generator, and the discriminator that it was trained against.

    Args:
        config: plain values: resolution (px), z_dim, w_dim, c_dim (0: unconditional), mapping_layers, channels of the
            synthesis by resolution ({"4": 512, ...}), img_channels, conv_clamp (None: none), architecture ("skip"),
            lr_multiplier (of the mapping); and `discriminator`: its conv_clamp, mbstd_group_size (None: the batch) and,
            where there are classes, lr_multiplier; None: there is none.
        generator: G_ema's tensors by their published names, resampling filters left out.
        discriminator: D's likewise; None: the file has none, or one that is not read.
        unread: why the file's discriminator is not read; None: it is, or there is none.
    """

    config: dict[str, Any]
    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor] | None
    unread: str | None = None


def read_network(path: Path) -> Network:
    """A network file: .safetensors as `write_network` writes it, anything else as StyleGAN2-ADA (PyTorch) publishes it.

    Raises:
        WeightsError: the file is missing, cannot be read, carries something that is refused, or is no such network.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file. Check the path.")
    return _read_ours(path) if path.suffix == ".safetensors" else _read_published(path)


# Ours


def write_network(path: Path, network: Network) -> None:
    """Write a network as safetensors, its config as JSON among the metadata, whole or not at all."""
    from safetensors.torch import save_file

    networks = {"generator": network.generator, "discriminator": network.discriminator or {}}
    tensors = {
        f"{role}.{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for role, named in networks.items()
        for name, value in named.items()
    }
    header = {_HEADER: json.dumps(network.config, allow_nan=False)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, header)


def _read_ours(path: Path) -> Network:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        config = json.loads(header) if header is not None else None
    except Exception as error:  # header, JSON and length errors; all mean that it cannot be read
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({_said(error)}). Fetch or write the file again."
        ) from None
    if not isinstance(config, dict):
        raise WeightsError(
            f"{path}: does not say what network it holds: its metadata have no '{_HEADER}'. "
            "Name a file that emobench wrote, or the published .pkl."
        )
    missing = [name for name in _CONFIG if name not in config]
    if missing:
        raise WeightsError(f"{path}: its description of the network lacks {', '.join(missing)}. Write the file again.")
    # Files written before these were named have what emobench trains with.
    usual = {"conv_clamp": CLAMP, "lr_multiplier": LR_MULTIPLIER, "mbstd_group_size": GROUP}
    config = {"lr_multiplier": LR_MULTIPLIER, "discriminator": usual, **config}
    parts: dict[str, dict[str, Tensor]] = {"generator": {}, "discriminator": {}}
    for name, value in tensors.items():
        role, _, rest = name.partition(".")
        if role not in parts:
            raise WeightsError(f"{path}: holds {name}, which is part of neither network. Write the file again.")
        parts[role][rest] = value
    if not parts["generator"]:
        raise WeightsError(f"{path}: holds no tensors of a generator. Write the file again.")
    return Network(config, parts["generator"], parts["discriminator"] or None)


# The published format: what a pickle may ask for, and what it gets instead


class _Array(NamedTuple):
    """A tensor, wrapped: a pickle can call methods of what it is given, and a tuple has none that change anything."""

    value: Tensor


class _Record(NamedTuple):
    """A module as it was saved: never built, only looked at."""

    class_name: str
    state: dict[str, Any]


class _Dtype:
    """A numeric numpy dtype; numpy's own can stand for objects, which are unpickled by whoever reads them."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"a number's byte order {state[1]!r}")
        self.order = state[1]


class _Maker(NamedTuple):
    """A function of ours under a name that a file may ask for; unlike a function, it has nothing that can be set."""

    make: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)


class _Reader(pickle.Unpickler):
    """An unpickler that knows plain containers, tensors, numbers and modules as records, and refuses all else by name.

    What it hands out are builtin containers and tuples, neither of which a pickle can alter beyond their contents.

    Raises:
        WeightsError: from `load`, where the file asks for something else; nothing was executed until then.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self.path = path
        self.known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("builtins", "set"): set,
            ("__builtin__", "set"): set,
            ("dnnlib.util", "EasyDict"): dict,
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Maker(self._module),
            ("torch.storage", "_load_from_bytes"): _Maker(self._storage),
            ("torch._utils", "_rebuild_tensor_v2"): _Maker(self._tensor),
            ("torch._utils", "_rebuild_parameter"): _Maker(self._parameter),
            ("numpy", "dtype"): _Maker(self._dtype),
            ("numpy.core.multiarray", "scalar"): _Maker(self._number),
            ("numpy._core.multiarray", "scalar"): _Maker(self._number),
        }

    def find_class(self, module: str, name: str, /) -> Any:
        """What stands here for a global of the file."""
        known = self.known.get((module, name))
        if known is not None:
            return known
        if module.startswith("dnnlib.tflib"):
            raise WeightsError(
                f"{self.path}: a network of the TensorFlow version ({module}.{name}), which is not read; nothing in it "
                "was executed. Convert it to the PyTorch version's .pkl first, with legacy.py of the published "
                "StyleGAN2-ADA (PyTorch) code."
            )
        raise self._refused(f"{module}.{name}")

    def _refused(self, what: str) -> WeightsError:
        return WeightsError(
            f"{self.path}: refused: it asks for {what}, which no StyleGAN2-ADA network needs; nothing in it was "
            f"executed. {_SOURCE}"
        )

    def _module(self, meta: Mapping[str, Any]) -> _Record:
        """A module, whose source code (`module_src`) is left where it is."""
        if meta["type"] != "class":
            raise self._refused(f"an object of type {meta['type']!r}")
        return _Record(meta["class_name"], meta["state"])

    def _storage(self, data: bytes) -> _Array:
        """The numbers of a storage as a flat tensor; the bytes are a file of torch.save's, a pickle once more."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of storages with a type, torch's older kind
                storage = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+)", str(error))
            raise self._refused(f"{asked[1]} in a tensor" if asked else f"no tensor ({_said(error)})") from None
        if not isinstance(storage, torch.storage.TypedStorage):
            raise self._refused(f"a {type(storage).__name__} for a tensor's numbers")
        return _Array(torch.tensor([], dtype=storage.dtype).set_(storage._untyped_storage))

    @staticmethod
    def _tensor(storage: _Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Array:
        flat = storage.value
        if prod(size) > flat.numel():  # before any memory is taken for it
            raise ValueError(f"a tensor of {tuple(size)} in a storage of {flat.numel()}")
        return _Array(flat.as_strided(size, stride, offset).clone())

    @staticmethod
    def _parameter(data: _Array, *_: Any) -> _Array:
        return _Array(data.value)

    def _dtype(self, name: str, *_: Any) -> _Dtype:
        if not re.fullmatch(r"[biuf][1248]", name):
            raise self._refused(f"numpy's dtype {name!r}, which is no number's")
        return _Dtype(name)

    @staticmethod
    def _number(dtype: _Dtype, data: bytes) -> Any:
        return np.frombuffer(data, np.dtype(dtype.order + dtype.name)).item()


# The published format: what its modules say


def _read_published(path: Path) -> Network:
    try:
        with path.open("rb") as file:
            content = _Reader(file, path).load()
        if not isinstance(content, dict) or not isinstance(content.get("G_ema"), _Record):
            raise WeightsError(f"{path}: holds no generator 'G_ema'. Name a network file of StyleGAN2-ADA (PyTorch).")
        generator = _Saved.of(path, "G_ema", content["G_ema"])
        config = {**_config(generator), "discriminator": None}
        if not isinstance(content.get("D"), _Record):
            return Network(config, generator.tensors, None)
        try:
            discriminator = _Saved.of(path, "D", content["D"])
            config["discriminator"] = _discriminator(discriminator, config)
        except WeightsError as error:  # none of ours; its generator can be used all the same
            return Network(config, generator.tensors, None, unread=str(error))
        return Network(config, generator.tensors, discriminator.tensors)
    except WeightsError:
        raise
    except Exception as error:  # a pickle that is cut off or damaged can fail in any way
        raise WeightsError(
            f"{path}: cannot be read as a network file of StyleGAN2-ADA ({_said(error)}). {_SOURCE}"
        ) from None


@dataclass(frozen=True)
class _Saved:
    """A network as it was saved: its modules' attributes and its tensors by dotted names, "" being the network."""

    path: Path
    role: str  # its name in the file
    modules: dict[str, dict[str, Any]]
    tensors: dict[str, Tensor]

    @staticmethod
    def of(path: Path, role: str, record: _Record) -> _Saved:
        """The network in a record; its resampling filters are checked and left out."""
        modules = dict(_walk(record, ""))
        tensors = {
            f"{module}.{name}".lstrip("."): array.value
            for module, state in modules.items()
            for kind in ("_parameters", "_buffers")
            for name, array in state[kind].items()
            if array is not None
        }
        filters = [name for name in tensors if name.rpartition(".")[2] == "resample_filter"]
        saved = _Saved(path, role, modules, tensors)
        usual = torch.tensor([1.0, 3, 3, 1]) / 8
        for name in filters:
            taps = tensors.pop(name)
            wanted = usual if taps.ndim == 1 else torch.outer(usual, usual)
            if taps.shape != wanted.shape or not torch.allclose(taps.float(), wanted, atol=1e-6):
                raise saved.unfit(f"{name} is another filter than [1, 3, 3, 1]")
        return saved

    def unfit(self, found: str) -> WeightsError:
        """The error for a network that is read but is not one of ours."""
        return WeightsError(
            f"{self.path}: {self.role}: {found}. Only StyleGAN2's networks as StyleGAN2-ADA (PyTorch) trains them by "
            "default are read; name a file of those."
        )

    def attribute(self, module: str, name: str) -> Any:
        """An attribute of a module."""
        place = f"{module}.{name}".lstrip(".")
        if module not in self.modules or name not in self.modules[module]:
            raise self.unfit(f"there is no {place}")
        return self.modules[module][name]

    def whole(self, module: str, name: str) -> int:
        """An attribute that is a whole number from 0 on."""
        value = self.attribute(module, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.unfit(f"{module}.{name}".lstrip(".") + f" is {value!r}, not a whole number")
        return value

    def shape(self, name: str, *wanted: int | None) -> tuple[int, ...]:
        """The shape of a tensor, which must be the wanted one where that is not None."""
        if name not in self.tensors:
            raise self.unfit(f"there is no {name}")
        found = tuple(self.tensors[name].shape)
        if len(found) != len(wanted) or any(w is not None and f != w for f, w in zip(found, wanted, strict=True)):
            shown = ", ".join("any" if side is None else str(side) for side in wanted)
            raise self.unfit(f"{name} is {found}, not ({shown})")
        return found

    def sides(self) -> list[int]:
        """4, 8, … px, up to the resolution of the images."""
        resolution = self.whole("", "img_resolution")
        if resolution < 4 or resolution & (resolution - 1):
            raise self.unfit(f"img_resolution is {resolution}, not a power of two from 4 on")
        return [2**level for level in range(2, resolution.bit_length())]

    def check(self, module: str, setting: str, wanted: Any) -> None:
        """Raise a WeightsError unless a module has this setting."""
        found = self.attribute(module, setting)
        if found != wanted:
            raise self.unfit(f"the {setting} of {module} is {found!r}, not {wanted!r}")

    def dense(self, module: str, activation: str) -> float:
        """The lr_multiplier of a dense layer, which must have this activation: a bias is scaled by it."""
        self.check(module, "activation", activation)
        before = self.shape(f"{module}.weight", None, None)[1]
        lr_multiplier = float(self.attribute(module, "bias_gain"))
        if not isclose(self.attribute(module, "weight_gain") * sqrt(before), lr_multiplier, rel_tol=1e-6):
            raise self.unfit(f"{module} scales its weights by another lr_multiplier than its bias, {lr_multiplier}")
        return lr_multiplier

    def check_dense(self, module: str, activation: str) -> None:
        """Raise a WeightsError unless a dense layer has this activation and learns at the usual rate."""
        if (found := self.dense(module, activation)) != 1:
            raise self.unfit(f"the lr_multiplier of {module} is {found}, not 1")


def _walk(record: _Record, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield name, record.state
    for child, module in record.state["_modules"].items():
        if module is not None:
            yield from _walk(module, f"{name}.{child}".lstrip("."))


def _config(saved: _Saved) -> dict[str, Any]:
    """What the generator is, read off its attributes, which its tensors must bear out."""
    z, c, w, colours = (saved.whole("", name) for name in ("z_dim", "c_dim", "w_dim", "img_channels"))
    layers, lr_multiplier = _mapping(saved, z, c, w)
    if saved.attribute("mapping", "w_avg_beta") is None:
        raise saved.unfit("the w_avg_beta of mapping is None, so that it has no mean of w, not a number")
    saved.shape("mapping.w_avg", w)
    channels: dict[str, int] = {}
    sides = saved.sides()
    for side in sides:
        block = f"synthesis.b{side}"
        saved.check(block, "architecture", "skip")
        channels[str(side)] = wide = saved.shape(f"{block}.conv1.weight", None, None, 3, 3)[0]
        saved.shape(f"{block}.conv1.affine.weight", wide, w)
        saved.shape(f"{block}.torgb.weight", colours, wide, 1, 1)
        if side == 4:
            saved.shape(f"{block}.const", wide, 4, 4)
        else:
            saved.shape(f"{block}.conv0.weight", wide, channels[str(side // 2)], 3, 3)
        for layer in ("conv1",) if side == 4 else ("conv0", "conv1"):
            saved.check(f"{block}.{layer}", "activation", "lrelu")
            saved.check(f"{block}.{layer}", "use_noise", True)
        for layer in ("conv1", "torgb") if side == 4 else ("conv0", "conv1", "torgb"):
            saved.check_dense(f"{block}.{layer}.affine", "linear")
    return {
        "resolution": sides[-1], "z_dim": z, "w_dim": w, "c_dim": c, "mapping_layers": layers, "channels": channels,
        "img_channels": colours, "conv_clamp": _clamp(saved, saved.modules), "architecture": "skip",
        "lr_multiplier": lr_multiplier,
    }  # fmt: skip


def _mapping(saved: _Saved, z: int, c: int, w: int) -> tuple[int, float]:
    """Layers of a mapping network, all of them w wide, and their lr_multiplier."""
    layers = saved.whole("mapping", "num_layers")
    if layers < 1:
        raise saved.unfit("mapping.num_layers is 0")
    if c:
        embedded = saved.shape("mapping.embed.weight", None, c)[0]
        if embedded != w:
            raise saved.unfit(f"the embed_features of mapping are {embedded}, not w_dim, {w}")
        saved.check_dense("mapping.embed", "linear")
    wide = saved.shape("mapping.fc0.weight", None, z + (w if c else 0))[0]
    for place in range(1, layers):
        if wide != w:
            raise saved.unfit(f"the layer_features of mapping are {wide}, not w_dim, {w}")
        wide = saved.shape(f"mapping.fc{place}.weight", None, wide)[0]
    saved.shape(f"mapping.fc{layers - 1}.weight", w, None)
    multipliers = {saved.dense(f"mapping.fc{place}", "lrelu") for place in range(layers)}
    if len(multipliers) > 1:
        raise saved.unfit(f"layers of mapping have different lr_multiplier: {sorted(multipliers)}")
    return layers, multipliers.pop()


def _clamp(saved: _Saved, layers: Iterable[str]) -> float | None:
    """What all convolutions among some modules are clamped to; None: nothing."""
    found = {saved.modules[name]["conv_clamp"] for name in layers if "conv_clamp" in saved.modules[name]}
    if not found:
        raise saved.unfit("no layer says its conv_clamp")
    if len(found) > 1:
        raise saved.unfit(f"layers have different conv_clamp: {', '.join(sorted(map(repr, found)))}")
    (clamp,) = found
    return None if clamp is None else float(clamp)


def _discriminator(saved: _Saved, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the discriminator is, which must be a residual one of the generator's images, classes and channels."""
    for name, wanted in (("img_resolution", "resolution"), ("img_channels", "img_channels"), ("c_dim", "c_dim")):
        found = saved.whole("", name)
        if found != config[wanted]:
            raise saved.unfit(f"{name} is {found}, the generator's {config[wanted]}")
    sides = saved.sides()
    for side in sides:
        saved.check(f"b{side}", "architecture", "resnet")
    clamped = ["b4.conv"]
    for side in sides[1:]:
        wide = config["channels"][str(side)]
        saved.shape(f"b{side}.conv0.weight", wide, wide, 3, 3)
        saved.check(f"b{side}.skip", "activation", "linear")
        clamped += [f"b{side}.conv0", f"b{side}.conv1", *([f"b{side}.fromrgb"] if side == sides[-1] else [])]
    if "b4.mbstd" not in saved.modules:
        raise saved.unfit("its mbstd_num_channels is 0, not 1")
    saved.check("b4.mbstd", "num_channels", 1)
    group = saved.attribute("b4.mbstd", "group_size")
    if group is not None and saved.whole("b4.mbstd", "group_size") < 1:
        raise saved.unfit("the group_size of b4.mbstd is 0, not at least 1")
    wide = config["channels"]["4"]
    saved.shape("b4.conv.weight", wide, wide + 1, 3, 3)
    compared = saved.shape("b4.out.weight", None, wide)[0]
    if compared != (wide if config["c_dim"] else 1):
        raise saved.unfit(f"its cmap_dim is {compared}, not {wide}, the channels at 4 px")
    saved.check_dense("b4.fc", "lrelu")
    saved.check_dense("b4.out", "linear")
    for layer in clamped:
        saved.check(layer, "activation", "lrelu")
    settings: dict[str, Any] = {"conv_clamp": _clamp(saved, clamped), "mbstd_group_size": group}
    if config["c_dim"]:
        settings["lr_multiplier"] = _mapping(saved, 0, config["c_dim"], wide)[1]
    return settings


def _said(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "").strip()[:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
