"""A network as one safetensors file: its tensors, and in the metadata all that builds it again.

metadata["emobench"]   what it is and where it comes from (see `emobench.nn.provenance`)
metadata["network"]    `Networks`: class, arguments, emotions and size of each network in the file, and who needs whom
<name>                 the tensors of the exported network, by their names there
needs.<key>.<name>     those of each network that it works with
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import MaxLen, MinLen
from pydantic import ValidationError
from torch import Tensor
from torch.nn.modules import module as registering

from emobench.errors import EmobenchError, WeightsError, first_line, unknown
from emobench.generators.search import SearchingGenerator
from emobench.nn.provenance import AGAIN, KEY, Emotions, Header, Part, Pixels, Provenance, Word, header, misfit
from emobench.suite.catalog import checked, classes, parameters

NETWORK = "network"  # of the metadata, beside "emobench" and safetensors' own "format"
LARGEST = 16 * 2**30  # bytes of a file
_DESCRIPTION = 2**20  # characters of what is said of the networks
_LONGEST = 4096  # values in an argument that is a list
_LARGEST_NUMBER = 2**24  # of an argument
_SIDE = 2048  # px
_OWN = ("emobench.classifiers.", "emobench.generators.")
# Arguments that say how many layers there are. Each layer has tensors, so that the file bounds them.
LAYERS = ("attention", "blocks", "class_layers", "depth", "discriminator_layers", "layers", "mapping_layers")
# Of a network under construction: what it may have more than the file holds, for what is made and not kept, such as the
# VGG16 of a perceptual loss that a trained network no longer needs.
_MORE_TENSORS, _MORE_VALUES = 4096, 2**29
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Described(Part):
    """What builds one network again.

    Attributes:
        model: the class's name in emobench's catalogue.
        arguments: of its constructor, plain values; no file or folder is named.
        size: side of the faces that it sees, px.
        datasets: names of the datasets that a model is told of that was trained on several together.
        dataset: as of which of them it makes faces.
        needs: role -> keys of the networks that it works with.
        left_out: arguments that named files of what trained it, which are not here.
    """

    model: Word
    arguments: dict[str, Any]
    emotions: Emotions
    size: Pixels
    datasets: Annotated[list[Word], MaxLen(64)]
    dataset: Word | None
    needs: dict[Word, Annotated[list[Word], MaxLen(64)]]
    left_out: list[Word]


class Networks(Part):
    """All networks in a file.

    Attributes:
        main: key of the exported one; keys are fit_keys.
    """

    schema_version: Literal[1] = 1
    main: Word
    networks: Annotated[dict[Word, Described], MinLen(1), MaxLen(64)]

    def in_order(self) -> list[str]:
        """Keys, each after those that it needs.

        Raises:
            ValueError: one is needed that is not there, they need each other in a circle, or one is needed by nobody.
        """
        needed = {key: {each for keys in of.needs.values() for each in keys} for key, of in self.networks.items()}
        used = {self.main}.union(*needed.values())
        if used != needed.keys():
            raise ValueError(f"the networks {', '.join(sorted(used ^ needed.keys()))} are needed or there, not both")
        try:
            return list(graphlib.TopologicalSorter(needed).static_order())
        except graphlib.CycleError:
            raise ValueError("networks that need each other in a circle") from None


def prefix(networks: Networks, key: str) -> str:
    """What stands before the names of a network's tensors."""
    return "" if key == networks.main else f"needs.{key}."


def write_network(path: Path, networks: Networks, states: Mapping[str, Mapping[str, Tensor]], said: Provenance) -> None:
    """Write the file; nothing lies there yet, or may be replaced.

    Args:
        states: of each network, by its key.
    """
    from safetensors.torch import save_file

    tensors = {
        f"{prefix(networks, key)}{name}": value.contiguous() for key in states for name, value in states[key].items()
    }
    metadata = {"format": "pt", KEY: said.model_dump_json(), NETWORK: networks.model_dump_json()}
    save_file(tensors, path, metadata)


def exportable(cls: Any) -> bool:
    """Whether a class is emobench's own, which alone a file may name."""
    return cls.__module__.startswith(_OWN) and classes("model").get(vars(cls).get("name", "")) is cls


def without_files(cls: Any, plain: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a trained network without the files that they name, and which of these were named.

    Pre-trained weights are left out without a word: trained ones have taken their place.

    Raises:
        WeightsError: it cannot make faces without such a file, which is not emobench's to pass on.
    """
    searches = issubclass(cls, SearchingGenerator)
    if searches and plain.get("network") is not None:
        raise WeightsError(f"{cls.name}: the generator that it searches is a file of its own. Name a row as its need")
    if searches and plain.get("perceptual") == "vgg16":
        raise WeightsError(f"{cls.name}: its search compares faces in VGG16's features, whose file is needed for each")
    named = [name for name in cls.files if plain.get(name) is not None]
    arguments = {name: None if name in cls.files else value for name, value in plain.items()}
    return arguments, [name for name in named if name != "weights"]


def read_network(path: Path) -> Any:
    """The network in a file that `write_network` wrote.

    Raises:
        WeightsError: it cannot be read, or what it says does not fit together.
    """
    found = header(path, LARGEST)
    networks = _described(path, found)
    try:
        order = networks.in_order()
        with torch.random.fork_rng(devices=[]):  # whoever loads a network draws the same numbers afterwards
            with torch.device("meta"), _bounded(found):  # no memory is taken
                built = _built(networks, order, len(found.tensors))
                _compare(found, networks, {key: each.state_dict() for key, each in built.items()})
            built = _built(networks, order, len(found.tensors))
    except EmobenchError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # whatever arguments that no suite could hold may lead to
        raise WeightsError(f"{path}: cannot be built ({type(error).__name__}: {first_line(error)}). {AGAIN}") from None
    _fill(path, networks, built)
    main = built[networks.main]
    for name in networks.networks[networks.main].left_out:
        if hasattr(main, name):  # so that whoever asks for it is told, and not given another
            setattr(main, name, f"(not in {path.name}: {name})")
    return main.eval().requires_grad_(False)


def _described(path: Path, found: Header) -> Networks:
    if found.metadata.keys() - {"format"} != {KEY, NETWORK}:
        if KEY in found.metadata:
            raise WeightsError(f"{path}: the weights of a folder for transformers. Load them with it")
        raise WeightsError(f"{path}: not a network that emobench exported. `emobench export RUN --to safetensors`")
    said = found.metadata[NETWORK]
    try:
        if len(said) > _DESCRIPTION:
            raise ValueError(f"{len(said):,} characters")
        Provenance.model_validate_json(found.metadata[KEY])
        return Networks.model_validate_json(said)
    except ValidationError as error:
        raise WeightsError(f"{path}: its metadata does not fit: {misfit(error)}. {AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata cannot be read ({first_line(error)}). {AGAIN}") from None


def _built(networks: Networks, order: list[str], most: int) -> dict[str, Any]:
    """All networks with fresh weights, on the device of the moment; `most`: layers that one can have."""
    built: dict[str, Any] = {}
    for key in order:
        built[key] = _build(networks.networks[key], built, most).eval().requires_grad_(False)
    return built


def _build(described: Described, built: Mapping[str, Any], most: int) -> Any:
    known = {name: cls for name, cls in classes("model").items() if exportable(cls)}
    if described.model not in known:
        raise WeightsError(unknown("model", described.model, known))
    cls = known[described.model]
    roles = {*cls.needs, *cls.may_need}
    if not cls.needs.keys() <= described.needs.keys() <= roles:
        raise WeightsError(f"{cls.name} needs {', '.join(sorted(roles)) or 'no networks'}. {AGAIN}")
    if described.size > _SIDE:
        raise WeightsError(f"{cls.name} of {described.size} px, more than {_SIDE} px")
    arguments = arguments_of(cls, described.arguments, most)
    if described.datasets:
        arguments["datasets"] = tuple(described.datasets)
    needs = {role: [built[key] for key in keys] for role, keys in described.needs.items()}
    model = cls(emotions=tuple(described.emotions), size=described.size, **arguments, **needs)
    if described.dataset is not None:
        model.dataset = described.dataset
    return model


def arguments_of(cls: Any, plain: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Plain arguments as the types that a class declares; `most`: layers that it can have.

    Raises:
        SuiteError, WeightsError: the class does not know one, it is of another type, or names a file.
    """
    known = parameters(cls)
    for name, value in plain.items():
        if name not in known:
            raise WeightsError(unknown(f"argument of {cls.name}", name, known))
        if name in cls.files and value is not None:
            raise WeightsError(f"{cls.name}: {name} = {value!r} names a file, and nothing outside this one is read")
        _check_numbers(name, value, most if name in LAYERS else _LARGEST_NUMBER)
    return {name: checked(cls.name, name, known[name], value) for name, value in plain.items()}


def _check_numbers(name: str, value: Any, largest: int) -> None:
    values = value if isinstance(value, list) else [value]
    if len(values) > _LONGEST or any(isinstance(each, int | float) and abs(each) > largest for each in values):
        raise WeightsError(f"{name} is larger than the tensors allow, or than of any network here. {AGAIN}")


@contextmanager
def _bounded(found: Header) -> Iterator[None]:
    """Within the block, the construction of networks ends as soon as they have more tensors than could be in a file."""
    tensors = 2 * len(found.tensors) + _MORE_TENSORS
    values = 2 * sum(_values(shape) for _, shape in found.tensors.values()) + _MORE_VALUES

    def count(module: Any, name: str, value: Tensor | None) -> None:
        nonlocal tensors, values
        tensors -= 1
        values -= 0 if value is None else value.numel()
        if tensors < 0 or values < 0:
            raise WeightsError(f"the arguments describe a larger network than the tensors are of. {AGAIN}")

    hooks = [
        registering.register_module_parameter_registration_hook(count),
        registering.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _values(shape: tuple[int, ...]) -> int:
    values = 1
    for side in shape:
        values *= side
    return values


def _compare(found: Header, networks: Networks, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise a WeightsError unless the tensors of a file are those of the networks."""
    wanted = {
        f"{prefix(networks, key)}{name}": (value.dtype, tuple(value.shape))
        for key, state in states.items()
        for name, value in state.items()
    }
    there = {name: (_DTYPES.get(dtype), shape) for name, (dtype, shape) in found.tensors.items()}
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            is_, must = (_shown(of.get(name)) for of in (there, wanted))
            raise WeightsError(f"the tensor {name} is {is_}, but of this network it is {must}. {AGAIN}")


def _shown(tensor: tuple[torch.dtype | None, tuple[int, ...]] | None) -> str:
    return "not there" if tensor is None else f"{str(tensor[0]).removeprefix('torch.')} {tensor[1]}"


def _fill(path: Path, networks: Networks, built: Mapping[str, Any]) -> None:
    """Give networks their weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for key, network in built.items():
                begins = prefix(networks, key)
                network.load_state_dict({name: file.get_tensor(f"{begins}{name}") for name in network.state_dict()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{path}: cannot be read ({first_line(error)}). {AGAIN}") from None
