"""`timm:NAME` with a `checkpoint`: a network of timm that somebody else trained, whose file says its classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import torch
from torch import Tensor

from emobench.classifiers.outside import OutsideArguments, OutsideClassifier
from emobench.errors import SuiteError, WeightsError, first_line, unknown
from emobench.nn.weights import read_weights

_NAMES = ("label_names", "classes", "class_names", "labels", "emotions")  # of the list of classes, in a file
_FILES = ("model.safetensors", "pytorch_model.bin", "model.pth", "checkpoint.pth", "model_best.pth.tar")


class TimmCheckpoint(OutsideClassifier):
    """A network of timm with the weights of a file, or of a folder as `timm.save_for_hf` writes it.

    Args:
        backbone: timm's name of it.
        checkpoint: .safetensors, or a state dict of PyTorch; or the folder. Nothing in it is run.
    """

    name = "timm-checkpoint"
    asked_for = False  # `timm:` with a checkpoint is meant
    family = "backbone"
    files = ("checkpoint",)
    source = "the checkpoint's own"
    differentiable = True

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        backbone: str,
        checkpoint: str,
        **outside: Unpack[OutsideArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size, **outside)
        self.network: Any = None  # built when it is first asked

    @classmethod
    def title(cls, arguments: Mapping[str, Any]) -> str:
        return f"{arguments['backbone']}, {Path(arguments['checkpoint']).name}"

    @classmethod
    def known(cls, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        import timm

        backbone = arguments["backbone"]
        if not timm.is_model(backbone.partition(".")[0]):
            raise SuiteError(unknown("timm model", backbone, timm.list_models()))
        said = described(arguments["checkpoint"])
        config = dict(said.get("pretrained_cfg") or {})
        labels = next((said[name] for name in _NAMES if said.get(name)), None) or config.get("label_names")
        index = said.get("class_to_idx")
        if labels is None and isinstance(index, dict):
            labels = [name for name, _ in sorted(index.items(), key=lambda pair: int(pair[1]))]
        found: dict[str, Any] = {"labels": labels, "channels": "rgb" if config else None}
        if config.get("mean") is not None:
            found |= {"range": (0.0, 1.0), "mean": list(config["mean"]), "std": list(config["std"])}
        size = config.get("input_size")
        found["side"] = size[-1] if isinstance(size, list | tuple) and size[-1] == size[-2] else None
        return found

    def own(self, pixels: Tensor) -> Tensor:
        """Faces (N, C, side, side) to its logits (N, M)."""
        return cast(Tensor, self.opened(pixels.device)(pixels))

    def opened(self, device: torch.device) -> torch.nn.Module:
        """Its network, built when it is first asked."""
        if self.network is None:
            channels = 1 if self.said.channels == "gray" else 3
            arguments = self.hparams["backbone"], self.hparams["checkpoint"], len(self.said.labels), channels
            self.network = _network(*arguments).to(device)
        return cast(torch.nn.Module, self.network)


def weights_of(checkpoint: str) -> Path:
    """The file of the weights.

    Raises:
        WeightsError: there is none.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        found = [path / name for name in _FILES if (path / name).is_file()]
        if not found:
            raise WeightsError(f"{checkpoint}: holds none of {', '.join(_FILES)}")
        return found[0]
    if not path.is_file():
        raise WeightsError(f"{checkpoint}: no such file or folder. checkpoint is the path of one")
    return path


def described(checkpoint: str) -> dict[str, Any]:
    """What a checkpoint says of itself: config.json of a folder, the metadata of a .safetensors file, or the entries
    beside the tensors of a state dict.

    Raises:
        WeightsError: it cannot be read, or holds code.
    """
    path = weights_of(checkpoint)
    beside = path.with_name("config.json")
    if beside.is_file():
        try:
            return dict(json.loads(beside.read_text(encoding="utf-8")))
        except (ValueError, OSError, TypeError) as error:
            raise WeightsError(f"{beside}: cannot be read ({first_line(error)})") from None
    return _inside(str(path), path.stat().st_mtime_ns)


@functools.cache
def _inside(path: str, stamp: int) -> dict[str, Any]:
    if path.endswith(".safetensors"):
        from safetensors import safe_open

        try:
            with safe_open(path, "pt") as file:
                said = dict(file.metadata() or {})
        except Exception as error:  # safetensors raises kinds of its own
            raise WeightsError(f"{path}: cannot be read ({first_line(error)})") from None
        return {name: _value(text) for name, text in said.items()}
    read_weights(Path(path))  # refuses what holds code, in its own words
    content = torch.load(path, map_location="cpu", weights_only=True)
    plain = (str, int, list, tuple, dict)
    return {name: value for name, value in content.items() if isinstance(value, plain) and name != "state_dict"}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@functools.cache
def _network(backbone: str, checkpoint: str, classes: int, channels: int) -> Any:
    import timm

    try:
        with torch.inference_mode(False):  # whoever asks first: a gradient may be asked for later
            network = timm.create_model(backbone, pretrained=False, num_classes=classes, in_chans=channels)
            network.load_state_dict(read_weights(weights_of(checkpoint)))
    except RuntimeError as error:
        raise WeightsError(
            f"{checkpoint}: is no timm:{backbone} with {classes} classes ({first_line(error)})"
        ) from None
    return network.eval().requires_grad_(False)
