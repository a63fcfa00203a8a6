"""`onnx:FILE`: a classifier of emotions in an ONNX file, run by onnxruntime."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from emobench.classifiers.outside import OutsideArguments, OutsideClassifier
from emobench.errors import SuiteError, WeightsError, first_line

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_FIELDS = ("labels", "channels", "range", "mean", "std", "outputs")  # that a file's metadata may say, as JSON


@dataclass(frozen=True)
class Graph:
    """What a file says of its input and its outputs.

    Attributes:
        nhwc: whether the channels come last.
        channels, side: of a face; None: any.
        batch: faces at a time; None: any.
        dtype: of its values.
        outputs: names and last dimensions of those of two dimensions.
        metadata: as the file has it.
    """

    input: str
    nhwc: bool
    channels: int | None
    side: int | None
    batch: int | None
    dtype: type
    outputs: Mapping[str, int | None]
    metadata: Mapping[str, str]


class OnnxFile(OutsideClassifier):
    """A network that somebody else trained, in an ONNX file: one input of faces, one output of classes.

    Layout, size and number of channels are read from the graph; labels, the order of the channels and the range of
    the values from the file's metadata, where they are there under these names as JSON.

    Args:
        file: path of the file.
        output: name of the output that tells the emotions, where there are several.
        features: name of the output, of shape (N, D), in which faces are compared, where it is the reader.
    """

    name = "onnx"
    family = "file"
    files = ("file",)
    source = "the file's own"

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        file: str,
        output: str | None = None,
        features: str | None = None,
        **outside: Unpack[OutsideArguments],
    ) -> None:
        graph = graph_of(file)
        self.uint8 = graph.dtype is np.uint8  # type: ignore[misc]  # of this file
        super().__init__(emotions=emotions, size=size, **outside)
        self.graph = graph
        self.output = _output(graph, file, output, features)
        self.features_in = features

    @classmethod
    def known(cls, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        graph = graph_of(arguments["file"])
        output = _output(graph, arguments["file"], arguments.get("output"), arguments.get("features"))
        said: dict[str, Any] = {"side": graph.side, "classes": graph.outputs[output]}
        for name in _FIELDS:
            if name in graph.metadata and not (name == "range" and graph.dtype is np.uint8):
                said[name] = _parsed(arguments["file"], name, graph.metadata[name])
        if "emotions" in graph.metadata:  # as emobench writes them
            said["labels"] = _parsed(arguments["file"], "emotions", graph.metadata["emotions"])
        if graph.channels == 1:
            said["channels"] = "gray"
        if graph.dtype is np.uint8:
            said["range"] = (0.0, 255.0)
        return said

    @classmethod
    def compares(cls, arguments: Mapping[str, Any]) -> bool:
        return arguments.get("features") is not None

    def own(self, pixels: Tensor) -> Tensor:
        """Faces (N, C, side, side) to the output (N, M) that tells the emotions."""
        return self._run(pixels, self.output)

    def seen(self, pixels: Tensor) -> Tensor:
        """Faces (N, C, side, side) to the output (N, D) in which they are compared."""
        assert self.features_in is not None
        return self._run(pixels, self.features_in)

    def _run(self, pixels: Tensor, output: str) -> Tensor:
        graph, session = self.graph, _session(*_state(self.hparams["file"]))
        values: np.ndarray = pixels.detach().cpu().numpy().astype(graph.dtype)
        if graph.nhwc:
            values = values.transpose(0, 2, 3, 1)
        step = graph.batch or len(values)
        found = []
        for start in range(0, len(values), step):
            part = np.ascontiguousarray(values[start : start + step])
            lacking = step - len(part) if graph.batch else 0
            whole = np.concatenate([part, np.repeat(part[-1:], lacking, 0)]) if lacking else part
            try:
                (answer,) = session.run([output], {graph.input: whole})
            except Exception as error:  # onnxruntime raises kinds of its own
                raise SuiteError(f"{self.hparams['file']}: cannot be run ({first_line(error)})") from None
            found.append(np.asarray(answer, np.float32)[: len(part)])
        return torch.from_numpy(np.concatenate(found))


def graph_of(file: str) -> Graph:
    """What a file says of its input and outputs.

    Raises:
        WeightsError: it is not there, or no ONNX file.
        SuiteError: its input is not one of faces.
    """
    return _graph(*_state(file))


def _state(file: str) -> tuple[str, int]:
    """A file's path and time, by which it is known whether it was read before."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise WeightsError(f"{file}: no such file. onnx: is followed by the path of one, from the suite's folder on")
    return str(path), path.stat().st_mtime_ns


@functools.cache
def _graph(path: str, stamp: int) -> Graph:
    session = _session(path, stamp)
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(f"{each.name} {each.shape}" for each in inputs)
        raise SuiteError(f"{path}: has {len(inputs)} inputs ({names}), and a classifier of faces has one")
    (given,) = inputs
    shape = [each if isinstance(each, int) and each > 0 else None for each in given.shape]
    if given.type not in _TYPES:
        raise SuiteError(f"{path}: its input {given.name} is {given.type}; {', '.join(_TYPES)} can be given")
    if len(shape) != 4:
        raise SuiteError(f"{path}: its input {given.name} has the shape {given.shape}, not four dimensions of faces")
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        raise SuiteError(
            f"{path}: its input {given.name} has the shape {given.shape}: neither (N, C, H, W) nor (N, H, W, C) with "
            "one or three channels. Export it with a fixed number of channels"
        )
    high, wide = (shape[1], shape[2]) if last else (shape[2], shape[3])
    if high != wide:
        raise SuiteError(f"{path}: takes faces of {wide or 'any'} x {high or 'any'} px; only squares are given")
    outputs = {
        each.name: each.shape[-1] if isinstance(each.shape[-1], int) else None
        for each in session.get_outputs()
        if len(each.shape) == 2
    }
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    channels = shape[3] if last else shape[1]
    return Graph(given.name, last, channels, high, shape[0], _TYPES[given.type], outputs, metadata)


def _output(graph: Graph, file: str, asked: str | None, features: str | None) -> str:
    """The output that tells the emotions."""
    if features is not None and features not in graph.outputs:
        has = ", ".join(graph.outputs) or "none"
        raise SuiteError(f"{file}: no output {features} of shape (N, D) for features; it has {has}")
    known = {name: last for name, last in graph.outputs.items() if name != features}
    if asked is not None and asked not in known:
        raise SuiteError(f"{file}: no output {asked} of shape (N, classes); it has {', '.join(known) or 'none'}")
    if asked is None and len(known) != 1:
        found = ", ".join(f"{name} ({number or 'any'} classes)" for name, number in known.items()) or "none"
        raise SuiteError(f"{file}: which output tells the emotions? Of shape (N, classes) are: {found}. Set output")
    return asked or next(iter(known))


def _parsed(file: str, name: str, text: str) -> Any:
    """A value of the file's metadata: JSON, or a plain word; nothing in it is run."""
    try:
        value = json.loads(text)
    except ValueError:
        if name in ("channels", "outputs"):
            return text
        raise SuiteError(f"{file}: its metadata says {name} = {text[:80]!r}, which is no JSON. Set {name}") from None
    return list(value.values()) if isinstance(value, dict) else value


@functools.cache
def _session(path: str, stamp: int) -> Any:
    """A file as it lay there at a time, ready to be run on the CPU with this process's threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own
        raise WeightsError(f"{path}: cannot be read as an ONNX network ({first_line(error)})") from None
