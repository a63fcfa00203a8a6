"""Classifiers as folders that transformers loads by its own classes: a ViT with a linear head, timm's backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emobench.classifiers.timm_backbone import TimmBackbone, configuration
from emobench.classifiers.vit_linear import ViTLinear
from emobench.errors import WeightsError
from emobench.nn.provenance import HF_WEIGHTS, KEY, Provenance

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
_BILINEAR = 2  # of PIL's ways to resize, as ViTImageProcessor names them


def check_hf(network: Any) -> None:
    """Raise a WeightsError where transformers has no such architecture, which names the form that holds it."""
    if type(network) not in (ViTLinear, TimmBackbone):
        raise WeightsError(
            f"transformers has no class for {network.name}: it loads vit_linear, a ViT with a linear head, and rows "
            f"of timm:... Take --to {'onnx' if hasattr(network, 'logits') else 'safetensors'}"
        )


def write_hf(folder: Path, network: Any, said: Provenance) -> list[str]:
    """Write the folder's files: configuration, preprocessing and weights.

    The processor squashes any picture to the side that the network sees.

    Args:
        folder: exists, and is empty.

    Returns:
        Their names.

    Raises:
        WeightsError: transformers has no such architecture.
    """
    from safetensors.torch import save_file

    check_hf(network)
    write = _write_timm if isinstance(network, TimmBackbone) else _write_vit
    files, tensors = write(network)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    metadata = {"format": "pt", KEY: said.model_dump_json()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / HF_WEIGHTS, metadata)
    return [*files, HF_WEIGHTS]


def _labels(network: Any) -> dict[str, Any]:
    return {
        "id2label": {str(k): emotion for k, emotion in enumerate(network.emotions)},
        "label2id": {emotion: k for k, emotion in enumerate(network.emotions)},
    }


def _write_vit(network: ViTLinear) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """`ViTForImageClassification`: the same blocks, and a linear layer on the class token behind the last norm."""
    config = {
        **network.backbone.config.to_dict(),
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        **_labels(network),
        "dtype": "float32",
    }
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": network.size, "width": network.size},
        "resample": _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": network.pixel_mean.flatten().tolist(),
        "image_std": network.pixel_std.flatten().tolist(),
    }
    tensors = {f"vit.{name}": value for name, value in network.backbone.state_dict().items()}
    tensors |= {f"classifier.{name}": value for name, value in network.head[-1].state_dict().items()}
    return {CONFIG: config, PROCESSOR: processor}, tensors


def _write_timm(network: TimmBackbone) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """`TimmWrapperForImageClassification`, whose processor takes its values from the same configuration."""
    backbone = str(network.hparams["backbone"])
    published = configuration(backbone)
    config = {
        "architecture": backbone.partition(".")[0],  # without the tag of published weights
        "architectures": ["TimmWrapperForImageClassification"],
        "model_type": "timm_wrapper",
        "num_classes": len(network.emotions),
        "label_names": list(network.emotions),
        **_labels(network),
        "model_args": {"img_size": network.size} if published.fixed_input_size else {},
        "pretrained_cfg": {
            "input_size": [3, network.size, network.size],
            "fixed_input_size": bool(published.fixed_input_size),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": network.pixel_mean.flatten().tolist(),
            "std": network.pixel_std.flatten().tolist(),
            "classifier": published.classifier,
            "first_conv": published.first_conv,
        },
        "dtype": "float32",
    }
    return {CONFIG: config}, network.backbone.state_dict()


class HfClassifier:
    """Such a folder as transformers loads it, offline and without foreign code, asked with faces as arrays.

    Args:
        folder: that `write_hf` wrote.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self.processor: Any = AutoImageProcessor.from_pretrained(folder, **options)
            self.network: Any = AutoModelForImageClassification.from_pretrained(folder, **options).eval()
        finally:
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) of any size, through the folder's own processor, to logits (N, K)."""
        from PIL import Image

        pictures = [Image.fromarray(face.permute(1, 2, 0).numpy()) for face in images]
        logits: Tensor = self.network(**self.processor(pictures, return_tensors="pt")).logits
        return logits
