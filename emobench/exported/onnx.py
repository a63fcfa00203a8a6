"""Networks as ONNX: classifiers, and generators that draw or edit in one pass; and such a classifier read again.

The graph takes faces as they are evaluated, uint8 at the evaluation size, and holds whatever the network does to them.
An antialiased resize is linear and separable: two constant matrices, which are torch's own weights.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.classifiers.classifier import EmotionClassifier
from emobench.classifiers.ensemble import Ensemble, mean_of
from emobench.errors import WeightsError, first_line
from emobench.generators.search import SearchingGenerator
from emobench.generators.stargan import StarGAN
from emobench.generators.stylegan2 import StyleGAN2
from emobench.generators.vae import ConditionalVAE
from emobench.nn.provenance import AGAIN, Noise, Provenance, opened, provenance

OPSET = 20
LARGEST = 2**31 - 2**20  # bytes: what one protobuf message holds
SEEDS = "noise[i] = numpy.random.default_rng(seeds[i]).standard_normal({}, dtype=numpy.float32)"


class Graph(NamedTuple):
    """A network as ONNX takes it.

    Attributes:
        module: what is traced, from tensors to one tensor.
        inputs: its arguments' names, each with an example of two faces.
        outputs: the name of what it gives.
        noise: numbers a face that come of a seed; 0: none.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: str
    noise: int = 0


def graph_of(network: Any, size: int) -> Graph:
    """The graph of a network that is given faces of `size` px, the evaluation size.

    Raises:
        WeightsError: it takes many steps, or does something else than reading, drawing or editing; names the network,
            and the form that holds it.
    """
    emotions = torch.eye(len(network.emotions))[:2].expand(2, -1)
    faces = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    if isinstance(network, EmotionClassifier):
        return Graph(_Reads(network, size), {"images": faces}, "logits")
    if isinstance(network, StarGAN):
        return Graph(_Edits(network, size), {"faces": faces, "emotions": emotions}, "images")
    draws: _DecodesLatent | _DrawsStyles
    if isinstance(network, ConditionalVAE):
        draws = _DecodesLatent(network)
    elif isinstance(network, StyleGAN2):
        draws = _DrawsStyles(network)
    else:
        raise WeightsError(f"{network.name} {_why_not(network)}, which ONNX does not hold. Take --to safetensors")
    noise = torch.randn(2, draws.noise, generator=torch.Generator().manual_seed(0))
    return Graph(draws, {"emotions": emotions, "noise": noise}, "images", draws.noise)


def _why_not(network: Any) -> str:
    if isinstance(network, SearchingGenerator):
        return "searches for each face by an optimiser"
    if hasattr(network, "stylize"):
        return "runs a face through networks that its emotions choose"
    return "does not draw in one pass"


def noise_of(dimensions: int) -> Noise | None:
    """How seeds become a graph's noise, in words; None: it has none."""
    return Noise(dimensions=dimensions, seeds=SEEDS.format(dimensions)) if dimensions else None


# Graphs


class _Resized(nn.Module):
    """Faces uint8 (N, 3, S, S) as floats (N, 3, size, size), 0 to 255: as `F.interpolate` with `antialias` has them."""

    weights: Tensor

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.same = before == after
        unit = torch.eye(before)[None, None]  # of a picture whose columns are the positions, each by itself
        weights = F.interpolate(unit, (after, before), mode="bilinear", antialias=True)[0, 0]
        self.register_buffer("weights", weights.contiguous())  # (after, before)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        return pixels if self.same else self.weights @ pixels @ self.weights.T


class _Reads(nn.Module):
    """Faces uint8 (N, 3, S, S) to logits (N, K), by what `EmotionClassifier.forward` does."""

    def __init__(self, network: Any, size: int) -> None:
        super().__init__()
        self.network = network
        self.members = nn.ModuleList()
        if isinstance(network, Ensemble):
            self.members.extend(_Reads(member, size) for member in network.members)
        self.resized = _Resized(size, network.size)

    def forward(self, images: Tensor) -> Tensor:
        if self.members:
            return mean_of([member(images) for member in self.members])
        if type(self.network).forward is not EmotionClassifier.forward:  # of a class of the user's own
            own: Tensor = self.network(images)
            return own
        mean, std = self.network.pixel_mean, self.network.pixel_std
        logits: Tensor = self.network.logits((self.resized(images) - 255 * mean) / (255 * std))
        return logits.float()


def _as_images(pixels: Tensor) -> Tensor:
    """As `EmotionGenerator.images`, which also looks for what is not finite."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class _Edits(nn.Module):
    """Faces uint8 (N, 3, S, S) and emotions (N, K) to edited faces (N, 3, size, size)."""

    told: Tensor

    def __init__(self, network: StarGAN, size: int) -> None:
        super().__init__()
        self.generator = network.generator
        self.resized = _Resized(size, network.size)
        self.register_buffer("told", torch.tensor([[float(each == network.dataset) for each in network.datasets]]))

    def forward(self, faces: Tensor, emotions: Tensor) -> Tensor:
        condition = torch.cat([emotions, self.told.expand(emotions.shape[0], -1)], 1)  # (N, K + n)
        return _as_images(self.generator(self.resized(faces) / 127.5 - 1, condition))


class _DecodesLatent(nn.Module):
    """Emotions (N, K) and noise (N, latent) to faces, of a conditional VAE."""

    def __init__(self, network: ConditionalVAE) -> None:
        super().__init__()
        self.network, self.noise = network, int(network.latent)

    def forward(self, emotions: Tensor, noise: Tensor) -> Tensor:
        return _as_images(self.network.decode(noise, emotions))


class _DrawsStyles(nn.Module):
    """Emotions (N, K) and noise (N, D) to faces, of StyleGAN2: z first, then the noise of each layer."""

    def __init__(self, network: StyleGAN2) -> None:
        super().__init__()
        self.generator, self.truncation = network.generator, network.truncation
        synthesis = self.generator.synthesis
        self.sides = [side for side in synthesis.sides for _ in range(getattr(synthesis, f"b{side}").layers)]
        self.parts = [self.generator.z_dim, *(side**2 for side in self.sides)]
        self.noise = sum(self.parts)

    def forward(self, emotions: Tensor, noise: Tensor) -> Tensor:
        z, *layers = noise.split(self.parts, 1)
        noises = [each.unflatten(1, (1, side, side)) for each, side in zip(layers, self.sides, strict=True)]
        w = self.generator.mapping(z, emotions)
        w = self.generator.mapping.w_avg.lerp(w, self.truncation)
        return _as_images(self.generator.synthesis(self.generator.spread(w), noises))


# Writing


def write_onnx(path: Path, graph: Graph, said: Provenance) -> None:
    """Write the file; its graph takes any number of faces.

    Raises:
        WeightsError: the packages that write ONNX are not there, torch cannot express the network, or it is larger than
            one file of ONNX holds.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise WeightsError(
                f"{package} is not installed, by which ONNX is written: `pip install 'emobench[export]'`"
            )
    bytes_ = sum(each.numel() * each.element_size() for each in graph.module.state_dict().values())
    if bytes_ > LARGEST:
        raise WeightsError(f"{bytes_ >> 20:,} MiB, more than one ONNX file holds. Take --to safetensors")
    n = torch.export.Dim("N", min=1, max=2**16)
    examples = tuple(graph.inputs.values())
    try:
        with _traceable(graph.module), torch.no_grad():
            program = torch.onnx.export(
                graph.module.eval(),
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=[graph.outputs],
                dynamic_shapes=tuple({0: n} for _ in examples),
                verbose=False,
            )
    except Exception as error:  # a class of the user's own may do what torch cannot trace
        raise WeightsError(f"torch cannot express this network in ONNX ({first_line(error)})") from error
    assert program is not None
    _forget_where(program.model)
    program.model.metadata_props.update(said.properties())
    program.model.producer_name, program.model.producer_version = "emobench", said.emobench
    program.save(path, external_data=False)


def _forget_where(model: Any) -> None:
    """Take out what torch notes of each node: lines of code with the folders of this machine."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
        graph.metadata_props.clear()
    model.metadata_props.clear()


@contextlib.contextmanager
def _traceable(module: nn.Module) -> Iterator[None]:
    """Within the block, code that computes the same otherwise is written so that any number of faces goes through.

    `len` of a tensor is a constant to torch.export, its shape is not; a convolution whose groups are the faces of a
    batch cannot be said in ONNX; nor can PyTorch's fused layers. The classes stay as they are: their code is in the
    keys of results.
    """

    def length(of: Any) -> Any:
        return of.shape[0] if isinstance(of, Tensor) else builtins.len(of)

    names = {cls.__module__ for each in module.modules() for cls in type(each).__mro__}
    own = [sys.modules[name] for name in names if not name.startswith(("torch.", "builtins", "lightning."))]
    with contextlib.ExitStack() as stack:
        for each in own:
            if "len" not in vars(each):
                vars(each)["len"] = length
                stack.callback(vars(each).pop, "len")
        # Looked up, not imported: keys would take this for a change of what a fit computes with, and none runs in here.
        filters = sys.modules["emobench.nn.resample"]
        stack.callback(vars(filters).update, {"_FEW": vars(filters)["_FEW"]})
        vars(filters)["_FEW"] = 0  # channels below which the faces of a batch become groups of a convolution
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        yield


# Reading


class Session:
    """An ONNX file that emobench exported, as onnxruntime runs it on the CPU.

    Raises:
        WeightsError: it cannot be read, or emobench did not write it.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        said = provenance(path)
        if said is None:
            raise WeightsError(f"{path}: not a network that emobench exported. `emobench export RUN --to onnx`")
        self.provenance = said
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            with opened(path, LARGEST) as file:
                self._session = onnxruntime.InferenceSession(file.read(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds, of a damaged file
            raise WeightsError(f"{path}: cannot be read by onnxruntime ({first_line(error)}). {AGAIN}") from None
        named = [[each.name for each in of()] for of in (self._session.get_inputs, self._session.get_outputs)]
        if named != [said.inputs, [said.outputs]]:
            raise WeightsError(f"{path}: its graph takes {named[0]} and gives {named[1]}, unlike what it says. {AGAIN}")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output for inputs in the order of `provenance.inputs`."""
        values = [each.cpu().numpy() for each in inputs]
        return torch.from_numpy(self._session.run(None, dict(zip(self.provenance.inputs, values, strict=True)))[0])


class OnnxClassifier:
    """A classifier in an ONNX file, asked as those of emobench are.

    Attributes:
        emotions: the K classes, in the order of the logits.
        size: side of the faces that it takes, px.

    Raises:
        WeightsError: the file cannot be read, emobench did not write it, or it reads no emotions.
    """

    def __init__(self, path: Path) -> None:
        self._session = Session(path)
        self.provenance = self._session.provenance
        if self.provenance.outputs != "logits":
            raise WeightsError(
                f"{path}: holds {self.provenance.row}, which makes faces. emobench reads classifiers from ONNX; export "
                "it --to safetensors"
            )
        self.emotions, self.size = tuple(self.provenance.emotions), self.provenance.size

    def __call__(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, size, size) to logits (N, K).

        Raises:
            ValueError: the faces are of another size.
        """
        EmotionClassifier.check_images(images)
        if images.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"faces of {tuple(images.shape[1:])}: this file takes (3, {self.size}, {self.size})")
        return self._session(images)
