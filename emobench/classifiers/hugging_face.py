"""`hf:REPOSITORY` or `hf:FOLDER`: an image classification network of transformers, with its own processor."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import torch
from torch import Tensor

from emobench.classifiers.outside import OutsideArguments, OutsideClassifier
from emobench.downloads import offline
from emobench.errors import SuiteError, WeightsError, first_line

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


class HuggingFace(OutsideClassifier):
    """A network of transformers' AutoModelForImageClassification, of a repository or of a folder that holds one.

    Faces go through the processor that lies beside it: its resize and crop of the dataset's own pixels, its mean and
    std. Code in a repository is never run.

    Args:
        repository: a folder, or a name such as "google/vit-base-patch16-224".
    """

    name = "hf"
    family = "repository"
    files = ("repository",)
    source = "the repository's own"
    differentiable = True

    def __init__(
        self, *, emotions: Sequence[str], size: int, repository: str, **outside: Unpack[OutsideArguments]
    ) -> None:
        super().__init__(emotions=emotions, size=size, **outside)
        self.network: Any = None  # loaded when it is first asked

    @classmethod
    def known(cls, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        repository = arguments["repository"]
        config, processor = described(repository, CONFIG), described(repository, PROCESSOR)
        labels = _labels(repository, config)
        said: dict[str, Any] = {"labels": labels, "classes": len(labels), "channels": "rgb"}
        if processor:
            said["range"] = (0.0, 255.0 * processor.get("rescale_factor", 1 / 255))
            if not processor.get("do_rescale", True):
                said["range"] = (0.0, 255.0)
            if processor.get("do_normalize", True) and processor.get("image_mean") is not None:
                said |= {"mean": processor["image_mean"], "std": processor["image_std"]}
            size = processor.get("crop_size") if processor.get("do_center_crop") else None
            said["side"] = _side(size or processor.get("size"))
        said["side"] = said.get("side") or _side(config.get("image_size"))
        return said

    @classmethod
    def inputs(cls, arguments: Mapping[str, Any]) -> dict[str, list[Path | str]]:
        folder = Path(arguments["repository"]).expanduser()
        if folder.is_dir():
            return {"repository": [folder]}
        config = _fetched(arguments["repository"], CONFIG)  # in a folder that is called after the commit
        return {"repository": [arguments["repository"], "" if config is None else config.parent.name]}

    def taken(self, faces: Iterable[np.ndarray]) -> Tensor:
        """Faces uint8 (C, h, w) of a dataset's own pixels as it takes them, by its own processor."""
        processor = _processor(self.hparams["repository"])
        if processor is None or self._changed():
            return super().taken(faces)
        cut = [self.cut(face) for face in faces]
        pictures = [
            np.ascontiguousarray(np.broadcast_to(face, (3, *face.shape[1:])).transpose(1, 2, 0)) for face in cut
        ]
        given = processor(images=pictures, return_tensors="pt", input_data_format="channels_last")
        return cast(Tensor, given["pixel_values"]).to(self.pixel_mean.device)

    def _changed(self) -> bool:
        """Whether the suite sets what the processor would do."""
        return any(self.hparams.get(name) is not None for name in ("channels", "range", "mean", "std", "side"))

    def own(self, pixels: Tensor) -> Tensor:
        """Faces (N, 3, side, side) to its logits (N, M)."""
        return cast(Tensor, self.opened(pixels.device)(pixel_values=pixels).logits)

    def opened(self, device: torch.device) -> torch.nn.Module:
        """Its network, loaded when it is first asked."""
        if self.network is None:
            self.network = _network(self.hparams["repository"]).to(device)
        return cast(torch.nn.Module, self.network)


def described(repository: str, name: str) -> dict[str, Any]:
    """A JSON file of a repository or folder; empty: it has none.

    Raises:
        WeightsError: the repository cannot be reached, or the file is damaged.
    """
    folder = Path(repository).expanduser()
    if folder.is_dir():
        path: Path | None = folder / name if (folder / name).is_file() else None
    else:
        path = _fetched(repository, name)
    if path is None:
        if name == CONFIG:
            raise WeightsError(f"{repository}: no {CONFIG} there. hf: names a folder of a model, or a repository")
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: holds no table")
    return found


def _fetched(repository: str, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    found = try_to_load_from_cache(repository, name) if "/" in repository else None
    if isinstance(found, str):
        return Path(found)
    if "/" not in repository or offline():
        why = "and downloads are off" if "/" in repository else "and it is no repository such as owner/name"
        raise WeightsError(f"hf:{repository}: there is no such folder, {why}")
    try:
        return Path(hf_hub_download(repository, name))
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(f"hf:{repository}: {name} could not be fetched ({first_line(error)})") from None


def _labels(repository: str, config: Mapping[str, Any]) -> list[str]:
    """Its classes in its own order.

    Raises:
        SuiteError: the configuration contradicts itself, wants code to be run, or is of no classifier.
    """
    if config.get("auto_map"):
        raise SuiteError(f"hf:{repository}: wants code of its own to be run (auto_map), which is never done")
    if "id2label" not in config:
        kinds = ", ".join(config.get("architectures") or ["a model"])
        raise SuiteError(f"hf:{repository}: is {kinds} without id2label, and no image classification network")
    numbered = {int(number): str(label) for number, label in config["id2label"].items()}
    if sorted(numbered) != list(range(len(numbered))):
        raise SuiteError(f"hf:{repository}: id2label numbers its classes {sorted(numbered)}, not from 0 on")
    labels = [numbered[number] for number in range(len(numbered))]
    for label, number in (config.get("label2id") or {}).items():
        if not (isinstance(number, int | str) and str(number).isdecimal() and numbered.get(int(number)) == label):
            said = numbered.get(int(number)) if str(number).isdecimal() else None
            raise SuiteError(
                f"hf:{repository}: contradicts itself: label2id says {label} is {number}, and id2label that {number} "
                f"is {said}. Ask its author, and set labels in the order that holds"
            )
    return labels


def _side(size: Any) -> int | None:
    """Of a square input, from what configurations call a size."""
    if isinstance(size, dict):
        sides = {size[name] for name in ("height", "width", "shortest_edge") if size.get(name)}
        size = sides.pop() if len(sides) == 1 else None
    if isinstance(size, list):
        size = size[0] if len(set(size)) == 1 else None
    return size if isinstance(size, int) else None


@functools.cache
def _processor(repository: str) -> Any:
    """The processor that lies beside it; None: there is none."""
    if not described(repository, PROCESSOR):
        return None
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(
            repository, trust_remote_code=False, local_files_only=_here(repository)
        )
    except Exception as error:  # transformers raises whatever it met
        raise WeightsError(f"hf:{repository}: its processor cannot be used ({first_line(error)})") from None


@functools.cache
def _network(repository: str) -> Any:
    from transformers import AutoModelForImageClassification

    try:
        with torch.inference_mode(False):  # whoever asks first: a gradient may be asked for later
            network = AutoModelForImageClassification.from_pretrained(
                repository, trust_remote_code=False, local_files_only=_here(repository), dtype=torch.float32
            )
    except Exception as error:  # likewise
        raise WeightsError(f"hf:{repository}: cannot be loaded ({first_line(error)})") from None
    return network.eval().requires_grad_(False)


def _here(repository: str) -> bool:
    """Whether nothing is to be fetched."""
    return Path(repository).expanduser().is_dir() or offline()
