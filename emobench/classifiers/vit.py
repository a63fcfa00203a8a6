"""Vision Transformer on transformers' ViTModel, with the four strategies of Di Iorio (docs/systems.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel
from transformers.models.vit.modeling_vit import ViTLayer
from transformers.utils import logging

from emobench.classifiers.classifier import EmotionClassifier, TrainingArguments
from emobench.errors import SizeError, SuiteError, WeightsError
from emobench.nn.weights import WeightFile, by_path, from_hugging_face, is_path
from emobench.recipe import BelowOne, Count, Recipe

_FILES = ("model.safetensors", "pytorch_model.bin")
_PUBLISHED = {  # width of a token, blocks and heads of the networks of Dosovitskiy et al. 2021, table 1, and of timm
    (192, 12, 3): "vit_tiny",
    (384, 12, 6): "vit_small",
    (768, 12, 12): "vit_base",
    (1024, 24, 16): "vit_large",
    (1280, 32, 16): "vit_huge",
}


class ViT(EmotionClassifier):
    """ViT (Dosovitskiy et al. 2021): patches to tokens, pre-norm transformer blocks, a head on the class token.

    With the head (section 4.3: dropout, 768 → 256, ReLU, dropout, 256 → K) and the final settings of Di Iorio
    (docs/systems.md), whose sections are meant here. Position embeddings of a checkpoint are interpolated to `size`
    once, when it is loaded.

    Args:
        strategy: what is trained (section 3.3). "frozen": the head only; "partial": the highest `unfrozen` blocks too;
            "full": all; "warmup": all, by the schedule "warmup-plateau" in place of the default one.
        unfrozen: blocks that "partial" trains, with the norm behind them.
        dim: width of a token; with `depth`, `heads` and `patch` the architecture, which a checkpoint must have too.
        depth: blocks.
        heads: attention heads a block.
        patch: side of a patch, px.
        hidden: width of the head's hidden layer.
        dropout: probability before each of the head's layers.
        weights: a name on Hugging Face, the folder of a checkpoint as transformers saves it, or None: from scratch.
    """

    name = "vit"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The document gives its final rate for "warmup" only: 1e-5, which rises to 1e-4. These lie in the range that it
        # explored, with its StepLR: a new head alone bears a high rate, pre-trained blocks a low one.
        "vit-frozen": {"strategy": "frozen", "lr": 1e-3, "schedule": "step"},
        "vit-partial": {"strategy": "partial", "lr": 3e-5, "schedule": "step"},
        "vit-full": {"strategy": "full", "lr": 3e-5, "schedule": "step"},
    }
    source = "Di Iorio (docs/systems.md), sections 3 and 4.3; Dosovitskiy et al. 2021, arXiv:2010.11929"
    recipe = Recipe(
        size=224,
        batch=32,
        epochs=15,
        patience=3,
        oversample=2.0,
        undersample=0.4,
        class_weights="balanced",
    )
    small_faces: ClassVar[Mapping[str, Any]] = {
        "strategy": "full",
        "weights": "none",
        "size": "none",
        "dim": 96,
        "depth": 3,
        "heads": 4,
        "patch": 4,
        "hidden": 96,
        "dropout": 0.1,
        "batch": 64,
        "epochs": 6,
        "patience": "none",
        "oversample": 1.0,
        "undersample": "none",
        "class_weights": "none",
        "loss": "cross-entropy",
        "lr": 1e-3,
        "schedule": "onecycle",
        # Mirror images alone: with more, so small a ViT stays at chance for epochs.
        "augment": {"rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "blur_p": 0.0},
    }
    defaults: ClassVar[TrainingArguments] = {
        "loss": "focal",
        "optimizer": "adamw",
        "lr": 1e-5,
        "weight_decay": 1e-4,
        "schedule": "step",  # of the other strategies; "warmup" brings its own
    }

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        strategy: Literal["frozen", "partial", "full", "warmup"] = "warmup",
        unfrozen: Count = 4,  # of 12; the document says "typically the higher layers"
        dim: Count = 768,
        depth: Count = 12,
        heads: Count = 12,
        patch: Count = 16,
        hidden: Count = 256,
        dropout: BelowOne = 0.3,
        weights: str | None = "google/vit-base-patch16-224-in21k",
        **training: Unpack[TrainingArguments],
    ) -> None:
        if strategy == "warmup":
            if training.get("schedule", "step") not in ("step", "warmup-plateau"):
                raise SuiteError(
                    f'vit: strategy "warmup" is the schedule "warmup-plateau", not "{training["schedule"]}"; '
                    'take strategy = "full" for another schedule'
                )
            training["schedule"] = "warmup-plateau"
        # Without weights anything may be built, since a finished network is restored that way.
        file = None if weights is None else self.weight_file({"weights": weights, "strategy": strategy})
        folder = None if file is None else checkpoint_folder(file)
        mean, std = normalisation(folder)
        super().__init__(emotions=emotions, size=size, mean=mean, std=std, **training)
        config = architecture(dim, depth, heads, patch, size)
        self.backbone = ViTModel(config, add_pooling_layer=False)
        if folder is not None:
            self.backbone.load_state_dict(pretrained_state(folder, config, size // patch))
        else:
            # Drawn with transformers' 0.02 they drown beside the patches: on 8,000 drawn faces the loss then stays at
            # ln 8 for 600 steps at a rate of 1e-3 without augmentation, and falls from step 200 on with 0.2.
            nn.init.trunc_normal_(self.backbone.embeddings.position_embeddings, std=0.2)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(dim, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(self.emotions)),
        )
        if strategy in ("frozen", "partial"):
            self.backbone.requires_grad_(False)
        if strategy == "partial":
            blocks = [module for module in self.backbone.modules() if isinstance(module, ViTLayer)]
            for module in [*blocks[max(0, depth - unfrozen) :], self.backbone.layernorm]:
                module.requires_grad_(True)

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Whole patches only."""
        patch = arguments.get("patch", 16)
        if size < patch or size % patch:
            raise SizeError(
                f"{cls.name} cannot take {size} px with patches of {patch} px; "
                f"it takes any multiple of {patch} px, or set `patch` to a divisor of {size}"
            )

    @classmethod
    def architecture(cls, arguments: Mapping[str, Any]) -> str:
        """As timm calls a published one, such as "vit_base_patch16"; any other is a "vit"."""
        published = _PUBLISHED.get((arguments["dim"], arguments["depth"], arguments["heads"]))
        return cls.name if published is None else f"{published}_patch{arguments['patch']}"

    @classmethod
    def architecture_family(cls, arguments: Mapping[str, Any]) -> str:
        """As timm's."""
        return "visiontransformer"

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The file behind `weights`.

        Raises:
            SuiteError: a head is to be trained on blocks that nothing has trained.
        """
        weights, strategy = arguments["weights"], arguments.get("strategy", "warmup")
        if weights is None:
            if strategy in ("frozen", "partial"):
                raise SuiteError(f'vit: strategy "{strategy}" needs pre-trained weights; from scratch it is "full"')
            return None
        if not is_path(weights):
            return from_hugging_face(weights, weights, _FILES, also=["config.json"])
        file = by_path(weights)
        if file.path is None:
            return file
        found = next((file.path / name for name in _FILES if (file.path / name).exists()), None)
        if found is None or not (file.path / "config.json").exists():
            raise WeightsError(
                f"{weights}: not the folder of a checkpoint; it must hold config.json and {' or '.join(_FILES)}, "
                "as transformers' save_pretrained writes them"
            )
        return WeightFile(name=weights, looked_for=str(found), path=found, download=False, how=file.how)

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to the head's hidden layer, (N, hidden)."""
        x: Tensor = self.backbone(pixels).last_hidden_state[:, 0]  # (N, dim), of (N, 1 + (size / patch)², dim)
        for layer in list(self.head)[:-1]:
            x = layer(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, hidden) to logits (N, K)."""
        logits: Tensor = self.head[-1](features)
        return logits


def architecture(dim: int, depth: int, heads: int, patch: int, size: int) -> ViTConfig:
    """The network's measures as transformers names them; the MLP is four times as wide as a token."""
    if dim % heads:
        raise SuiteError(f"vit: dim = {dim} does not divide into {heads} heads")
    return ViTConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        patch_size=patch,
        image_size=size,
    )


def checkpoint_folder(file: WeightFile) -> Path:
    """The folder of a checkpoint on this machine, fetched from Hugging Face where it is not here and may be.

    Raises:
        WeightsError: it is missing and cannot be fetched.
    """
    file.require()
    if file.path is not None:
        return file.path.parent
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    def fetch(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(file.name, name)).parent
        except EntryNotFoundError:
            return None

    try:
        fetch("preprocessor_config.json")
        config = fetch("config.json")
        folder = next((folder for folder in map(fetch, _FILES) if folder is not None), None)
    except (OSError, HfHubHTTPError) as error:
        raise WeightsError(f"weights {file.name} could not be fetched ({error}). {file.how}") from None
    if folder is None or config is None:
        raise WeightsError(f"{file.name} on Hugging Face has no config.json with {' or '.join(_FILES)}. {file.how}")
    return folder


def normalisation(folder: Path | None) -> tuple[list[float], list[float]]:
    """Mean and std of the checkpoint's image processor; 0.5, the processor's own default, without one."""
    file = None if folder is None else folder / "preprocessor_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.exists() else {}
    return said.get("image_mean", [0.5] * 3), said.get("image_std", [0.5] * 3)


def pretrained_state(folder: Path, config: ViTConfig, side: int) -> dict[str, Tensor]:
    """The parameters of a checkpoint of the architecture `config`, for faces of `side`² patches.

    Raises:
        WeightsError: the checkpoint cannot be read, lacks parameters, or is of another architecture.
    """
    try:
        theirs = ViTConfig.from_pretrained(folder, local_files_only=True)
        measures = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")
        same = (*measures, "hidden_act", "layer_norm_eps", "qkv_bias")
        other = [f"{name} {getattr(theirs, name)}" for name in same if getattr(theirs, name) != getattr(config, name)]
        if other:
            raise WeightsError(
                f"{folder}: the checkpoint has another architecture: {', '.join(other)}. Set dim, depth, heads and "
                "patch to its hidden_size, num_hidden_layers, num_attention_heads and patch_size."
            )
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # its report of unused heads; what is missing is checked here
        loading: Any = ViTModel.from_pretrained(
            folder, config=theirs, add_pooling_layer=False, output_loading_info=True, local_files_only=True
        )
        network, report = loading
    except WeightsError:
        raise
    except Exception as error:  # each format fails in a way of its own; code in a pickle is refused by torch.load
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(f"{folder}: cannot be read as a ViT checkpoint ({reason}). Fetch it again.") from None
    if report["missing_keys"]:
        raise WeightsError(f"{folder}: the checkpoint lacks {', '.join(sorted(report['missing_keys'])[:3])}")
    state: dict[str, Tensor] = network.float().state_dict()
    state["embeddings.position_embeddings"] = resized(state["embeddings.position_embeddings"], side)
    return state


def resized(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + s², dim) for a grid of `side`² patches: bicubic, as in Dosovitskiy et al. 3.2."""
    cls, grid = positions[:, :1], positions[:, 1:]  # (1, 1, dim), (1, s², dim)
    old = round(grid.shape[1] ** 0.5)
    if old == side:
        return positions
    grid = grid.unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, dim, s, s)
    grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([cls, grid.flatten(2).transpose(1, 2)], 1)  # (1, 1 + side², dim)
