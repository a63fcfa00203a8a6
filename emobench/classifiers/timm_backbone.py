"""Any backbone of timm, under its name there: `timm:resnet10t`."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack, cast

import timm
import torch
from torch import Tensor, nn

from emobench.classifiers.classifier import EmotionClassifier, TrainingArguments
from emobench.errors import SizeError, SuiteError, WeightsError, unknown
from emobench.nn.weights import WeightFile, by_path, check_names, from_hugging_face, from_torch_hub, read_weights
from emobench.recipe import BelowOne, Recipe

_TRIED = (32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 320, 336, 384, 448, 512, 518)  # px, for an error


class TimmBackbone(EmotionClassifier):
    """A backbone of timm with a new linear head on its pooled features.

    No document describes one; Di Iorio (docs/systems.md), section 5.2, leaves "different ViT variants" as future work.

    Args:
        backbone: timm's name, with or without the tag of a set of weights ("resnet10t.c3_in1k").
        dropout: probability before the head.
        weights: "pretrained" for the published file of that name or tag, a path to a state dict in timm's naming, or
            None: from scratch. The head is new.
    """

    name = "timm"
    family = "backbone"
    source = "Wightman 2019, github.com/huggingface/pytorch-image-models"
    channels_last = True
    # Ours, for want of a document: the ViT's batch, epochs and patience; optimiser and schedule are usual for timm.
    recipe = Recipe(batch=32, epochs=15, patience=3)
    defaults: ClassVar[TrainingArguments] = {
        "optimizer": "adamw",
        "lr": 3e-4,
        "weight_decay": 0.02,  # as Di Iorio explored, section 3.2
        "schedule": "cosine",
    }

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        backbone: str,
        dropout: BelowOne = 0.0,
        weights: str | None = None,  # nothing is fetched unasked
        **training: Unpack[TrainingArguments],
    ) -> None:
        config = configuration(backbone)
        super().__init__(emotions=emotions, size=size, mean=config.mean, std=config.std, **training)
        create = functools.partial(create_backbone, backbone, size, num_classes=len(self.emotions), drop_rate=dropout)
        file = self.weight_file(self.hparams)
        self.backbone = create() if file is None else pretrained(create, file, weights != "pretrained")
        self.to(memory_format=torch.channels_last)

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Found out by running the network without computing anything."""
        backbone = arguments["backbone"]
        reason = refusal(backbone, size)
        if reason is not None:
            taken = ", ".join(str(side) for side in _TRIED if refusal(backbone, side) is None)
            raise SizeError(f"timm:{backbone} cannot take {size} px ({reason}); of the usual sizes it takes {taken} px")

    @classmethod
    def architecture(cls, arguments: Mapping[str, Any]) -> str:
        """timm's name of the backbone without the tag of its weights, batch norm and the size in px.

        So `timm:resnet18.a1_in1k` is a resnet18, `timm:vgg16_bn` a vgg16.
        """
        return re.sub(r"(_bn|_\d{3})$", "", str(configuration(arguments["backbone"]).architecture))

    @classmethod
    def architecture_family(cls, arguments: Mapping[str, Any]) -> str:
        """The class of timm that builds the backbone: "resnet" of all residual networks, ResNeXts among them."""
        return family_of(configuration(arguments["backbone"]).architecture)

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The file behind `weights`."""
        weights, backbone = arguments.get("weights"), arguments["backbone"]
        config = configuration(backbone)
        if weights is None:
            return None
        if weights != "pretrained":
            return by_path(weights)
        name = f"timm:{backbone}" + (f" ({config.tag})" if config.tag and config.tag not in backbone else "")
        if config.hf_hub_id:
            repository = config.hf_hub_id.split("@")[0]
            own_name = [config.hf_hub_filename] if config.hf_hub_filename else []
            return from_hugging_face(name, repository, own_name or ["model.safetensors", "pytorch_model.bin"])
        if config.url:
            return from_torch_hub(name, config.url)
        raise WeightsError(f"timm publishes no weights for {backbone}; set weights to a path or to none")

    def logits(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to logits (N, K)."""
        logits: Tensor = self.backbone(pixels)
        return logits

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to what timm's classifier reads, (N, D)."""
        return self._both(pixels)[1]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and features (N, D) of faces uint8 (N, 3, H, W), in one pass."""
        return self._both(self.pixels(images))

    def _both(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """By a hook on the last layer: what `forward_head(..., pre_logits=True)` gives is not always its input.

        Some networks of timm normalise it once more, and some average two classifiers.
        """
        read: list[Tensor] = []
        hook = last_layer(self.backbone).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            logits = self.logits(pixels)
        finally:
            hook.remove()
        return logits, read[-1].flatten(1)  # a classifier that is a 1×1 convolution reads (N, D, 1, 1)

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, D) to logits (N, K), where the classifier is one linear layer, as almost always."""
        layer = last_layer(self.backbone)
        if layer is not cast(Any, self.backbone).get_classifier():
            return super().classify(features)
        logits: Tensor = layer(features[..., None, None] if isinstance(layer, nn.Conv2d) else features)
        return logits.flatten(1)


def configuration(backbone: str) -> Any:
    """timm's facts about a backbone: its mean, std, weight file and whether its size is fixed.

    Raises:
        SuiteError: timm does not know it; the nearest name is given.
    """
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=False) if timm.is_model(backbone) else None
    if config is None:
        near = difflib.get_close_matches(backbone, timm.list_models(), n=8, cutoff=0.4)  # of 1,400 names
        raise SuiteError(unknown("timm backbone", backbone, near))
    return config


@functools.cache
def family_of(architecture: str) -> str:
    """The first of timm's classes from which a backbone's own is derived, in lower case."""
    with torch.device("meta"):
        network = timm.create_model(architecture)
    return [cls.__name__ for cls in type(network).__mro__ if cls.__module__.startswith("timm.")][-1].lower()


def create_backbone(backbone: str, size: int, **options: Any) -> nn.Module:
    """A network of timm for faces of `size` px, which those of fixed size are told."""
    if configuration(backbone).fixed_input_size:
        options["img_size"] = size
    network: nn.Module = timm.create_model(backbone, **options)
    return network


@functools.cache
def refusal(backbone: str, size: int) -> str | None:
    """Why a backbone cannot take faces of `size` px; None: it can."""
    if size < 1:
        return "no pixels"
    try:
        with torch.device("meta"), torch.no_grad():
            create_backbone(backbone, size).eval()(torch.empty(1, 3, size, size))
    except SuiteError:
        raise
    except Exception as error:  # each architecture fails in a way of its own
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None


def pretrained(create: Any, file: WeightFile, by_user: bool) -> nn.Module:
    """A network with the weights of a file; timm adapts position embeddings and leaves the head new.

    Args:
        create: makes the network, with further options of timm.
        file: where its weights lie, or may be fetched from.
        by_user: the user's own file, whose names must be timm's; timm itself would skip others without a word.

    Raises:
        WeightsError: the file is missing, cannot be fetched, or is of another architecture.
    """
    file.require()
    try:
        if file.path is None:
            fetched: nn.Module = create(pretrained=True)
            return fetched
        tensors = read_weights(file.path)
        if by_user:
            plain = create()
            check_names(plain, tensors, file.name, head_of(plain))
        # timm drops the file's head, since the network does not have the classes of the published weights.
        overlay = {"state_dict": tensors, "custom_load": False}
        network: Any = create(pretrained=True, pretrained_cfg_overlay=overlay)
        network.pretrained_cfg["state_dict"] = None  # timm keeps a second copy there
        return cast(nn.Module, network)
    except WeightsError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = next(iter(str(error).splitlines()[1:] or str(error).splitlines()), type(error).__name__).strip()
        raise WeightsError(f"weights {file.name} could not be loaded ({reason}). {file.how}") from None


def last_layer(network: nn.Module) -> nn.Module:
    """The final linear layer of a network's classifier, or of the last of its classifiers where it has several."""
    classifier: Any = cast(Any, network).get_classifier()
    parts = classifier if isinstance(classifier, tuple) else (classifier,)
    return [each for part in parts for each in part.modules() if isinstance(each, nn.Linear | nn.Conv2d)][-1]


def head_of(network: nn.Module) -> tuple[str, ...]:
    """Prefixes of the names of a network's last layer, or layers."""
    names = cast(Any, network).pretrained_cfg["classifier"]
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
