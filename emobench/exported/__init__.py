"""Networks as files that others can use: ONNX, safetensors, folders for transformers; `emobench export` writes them.

What is read here is data and may be a stranger's. Nothing in it is run or imported: a class is looked up by its name in
emobench's own catalogue, arguments are checked as a suite's are, and tensors must be those of the network that they
describe before any memory is taken for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emobench.errors import WeightsError
from emobench.nn.provenance import AGAIN, FORMS, ONNX

__all__ = ["is_exported", "load"]


def is_exported(name: str) -> bool:
    """Whether a name means an exported file rather than a cell."""
    return name.endswith(FORMS)


def load(path: Path | str) -> Any:
    """The network in an exported file, frozen, in evaluation mode: a classifier or a generator, on the CPU.

    Args:
        path: model.safetensors, which gives the very class; or model.onnx of a classifier, whose faces (N, 3, size,
            size) onnxruntime reads.

    Raises:
        WeightsError: it cannot be read, is none that emobench exported, or what it says does not fit together.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise WeightsError(
            f"{path}: a folder. transformers reads those; emobench reads model.safetensors and model.onnx"
        )
    if not is_exported(path.name):
        raise WeightsError(f"{path}: an exported file ends in {' or '.join(FORMS)}. {AGAIN}")
    if path.suffix == ONNX:
        from emobench.exported.onnx import OnnxClassifier

        return OnnxClassifier(path)
    from emobench.exported.network import read_network

    return read_network(path)
