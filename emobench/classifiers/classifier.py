"""What every classifier of emotions shares: input, losses, optimisers, schedules and validation.

A model is a file beside this one with one subclass: its blocks and wiring, `defaults` of the arguments below and the
`recipe` it is trained by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypedDict, Unpack

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.flop_counter import FlopCounterMode

from emobench.errors import SizeError
from emobench.metrics.recognition import accuracy, confusion_matrix, macro_f1
from emobench.model import EmotionModel
from emobench.nn.losses import cross_entropy, focal
from emobench.recipe import BelowOne, Count, NotNegative, Positive

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; what torchvision's networks were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


class TrainingArguments(TypedDict, total=False):
    """Loss, optimiser and schedule: keyword arguments of every classifier, beside those of its architecture."""

    loss: Literal["cross-entropy", "focal"]  # weighted by class where the recipe's `class_weights` says so
    focal_alpha: Positive  # α of Lin et al. 2017, eq. 5
    focal_gamma: NotNegative  # γ of the same
    label_smoothing: BelowOne  # ε
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Positive  # base learning rate; with "onecycle" the highest one
    weight_decay: NotNegative  # on all parameters, as torch's optimisers do; L2 in SGD and Adam, decoupled in AdamW
    momentum: BelowOne  # SGD only
    nesterov: bool  # SGD only
    schedule: Literal["constant", "step", "cosine", "onecycle", "plateau", "warmup-plateau"]
    step_size: Count  # epochs between two decays of "step"
    gamma: Positive  # factor of a decay of "step"
    warmup_epochs: Annotated[int, Ge(0)]  # epochs over which "warmup-plateau" rises
    warmup_factor: Positive  # times `lr` at the end of that rise
    plateau_patience: Annotated[int, Ge(0)]  # epochs without a lower validation loss before a decay of "plateau"
    plateau_factor: Annotated[float, Gt(0), Lt(1)]  # factor of that decay


DEFAULTS = TrainingArguments(
    loss="cross-entropy",
    focal_alpha=0.25,  # Di Iorio, section 4.3, as all that names no other source (docs/systems.md)
    focal_gamma=2.0,
    label_smoothing=0.0,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=1e-4,
    momentum=0.9,  # no document says; the usual value
    nesterov=False,
    schedule="constant",
    step_size=5,  # section 3.2: 5 to 10
    gamma=0.1,
    warmup_epochs=3,
    warmup_factor=10.0,
    plateau_patience=2,  # not given; below the early stopping's 3, else no decay would ever come to pass
    plateau_factor=0.1,  # not given; torch's default, and γ of StepLR
)


class EmotionClassifier(EmotionModel):
    """Faces to logits of emotions.

    A subclass has the class attributes below, builds its network in `__init__` after `super().__init__(...)`, and
    defines `embed` and `classify`.

    Args:
        emotions: the K classes, in the order of the dataset's labels.
        size: side of the faces that the network sees, px; others are resized to it.
        mean, std: of the RGB values in [0, 1] that the network expects.
        training: see `TrainingArguments`; what is not given is the class's default.
    """

    defaults: ClassVar[TrainingArguments] = {}  # where they differ from DEFAULTS
    channels_last: ClassVar[bool] = False  # the faster layout of convolutional networks, on CPUs too

    class_weights: Tensor  # (K,), ones until the run sets it before the fit
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **training: Unpack[TrainingArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size)
        self.training_arguments = TrainingArguments(**{**self.argument_defaults(), **training})
        if self.recipe is not None:  # all of them, as the subclass resolved them; without a fit there are none
            self.save_hyperparameters(dict(self.training_arguments), logger=False)
        self.register_buffer("class_weights", torch.ones(len(self.emotions)), persistent=False)
        # Saved with the network: a pre-trained one brings its own, and its file may be gone later.
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(1, -1, 1, 1))
        self._train_losses: list[Tensor] = []
        self._validation: list[tuple[Tensor, Tensor, Tensor]] = []

    # What is known of a class before anything is built

    @classmethod
    def argument_defaults(cls) -> TrainingArguments:
        """Every training argument with the value that it has in this class where nothing else is said."""
        return TrainingArguments(**{**DEFAULTS, **cls.defaults})

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where the architecture cannot take faces of `size` px; here: it takes any."""
        at_least(cls.name, size, 1)

    @classmethod
    def has_features(cls) -> bool:
        """Whether its networks have features beside their logits, as judges and readers must."""
        return cls.classify is not EmotionClassifier.classify or cls.read is not EmotionClassifier.read

    @classmethod
    def architecture(cls, arguments: Mapping[str, Any]) -> str:
        """The backbone that these arguments describe, whatever its width and weights; here: the class's name."""
        return cls.name

    @classmethod
    def architecture_family(cls, arguments: Mapping[str, Any]) -> str:
        """Backbones of one family are so alike that what deceives one deceives the others; here: each by itself."""
        return cls.architecture(arguments)

    # Faces to logits

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to features (N, D): what the final linear layer reads."""
        raise NotImplementedError(f"{type(self).__name__} has no features: define `embed`, and `classify` behind it")

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, D) to logits (N, K): the final linear layer."""
        raise NotImplementedError(f"{type(self).__name__} has no features: define `classify`, and `embed` before it")

    def logits(self, pixels: Tensor) -> Tensor:
        """Normalised faces (N, 3, size, size) to logits (N, K)."""
        return self.classify(self.embed(pixels))

    def forward(self, images: Tensor) -> Tensor:
        """Faces to logits.

        Args:
            images: uint8 (N, 3, H, W) of any size; resized to `size` by antialiased bilinear interpolation.

        Returns:
            Logits (N, K) in the order of `emotions`.
        """
        return self.logits(self.pixels(images))

    def features(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) to penultimate features (N, D), in which FED compares faces."""
        return self.embed(self.pixels(images))

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and features (N, D) of faces uint8 (N, 3, H, W), in one pass."""
        features = self.features(images)
        return self.classify(features), features

    def pixels(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) resized and normalised: (N, 3, size, size), as `embed` takes them."""
        self.check_images(images)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        pixels = images.to(torch.float32, memory_format=layout)  # (N, 3, H, W), 0 … 255
        if images.shape[-2:] != (self.size, self.size):
            side = (self.size, self.size)
            pixels = F.interpolate(pixels, side, mode="bilinear", antialias=True).contiguous(memory_format=layout)
        pixels = (pixels - 255 * self.pixel_mean) / (255 * self.pixel_std)  # (N, 3, size, size)
        return pixels.to(self.pixel_mean.dtype)

    def losses(self, logits: Tensor, emotions: Tensor) -> Tensor:
        """The training loss of every face, (N,), of logits (N, K) and one-hot or soft labels (N, K)."""
        options = self.training_arguments
        if options["loss"] == "focal":
            alpha, gamma = options["focal_alpha"], options["focal_gamma"]
            return focal(logits, emotions, alpha, gamma, self.class_weights, options["label_smoothing"])
        return cross_entropy(logits, emotions, self.class_weights, options["label_smoothing"])

    # Fit

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch."""
        loss = self.losses(self(batch["image"]), batch["emotions"]).mean()
        self._train_losses.append(loss.detach())  # logged once an epoch: a log a step costs as much as a small network
        return loss

    def on_train_epoch_end(self) -> None:
        """Log `train_loss`, the mean over the epoch's batches."""
        if self._train_losses:
            distributed = self.trainer.world_size > 1
            self.log("train_loss", torch.stack(self._train_losses).mean(), sync_dist=distributed)
        self._train_losses.clear()

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep what the epoch's end needs."""
        logits = self(batch["image"])
        self._validation.append((logits.float(), batch["emotions"], batch["index"]))

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted validation left."""
        self._validation.clear()

    def on_validation_epoch_end(self) -> None:
        """Log `val_loss`, `val_accuracy` and `val_macro_f1` over all faces of all processes, each counted once.

        The loss is the plain mean of the training loss; a soft label counts as its largest class.
        """
        logits, emotions, index = (torch.cat(parts) for parts in zip(*self._validation, strict=True))
        if self.trainer.world_size > 1:
            from torchmetrics.utilities.distributed import gather_all_tensors  # takes ranks of unequal lengths

            logits, emotions, index = (torch.cat(gather_all_tensors(part)) for part in (logits, emotions, index))
        logits, emotions = once(index, logits, emotions)
        table = confusion_matrix(emotions.argmax(1).cpu(), logits.argmax(1).cpu(), len(self.emotions))
        self.log_dict(
            {
                "val_loss": self.losses(logits, emotions).mean(),
                "val_accuracy": float(accuracy(table)),
                "val_macro_f1": float(macro_f1(table)),
            },
            prog_bar=True,
        )
        self._validation.clear()

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Logits (N, K) of a batch."""
        logits: Tensor = self(batch["image"])
        return logits

    def configure_optimizers(self) -> Any:
        """The optimiser over all parameters that are not frozen, and its schedule."""
        optimizer = make_optimizer([p for p in self.parameters() if p.requires_grad], self.training_arguments)
        schedule = self.training_arguments["schedule"]
        if schedule == "constant":
            return optimizer
        # Only these two count steps, and asking for the steps of a fit loads its training data.
        steps = int(self.trainer.estimated_stepping_batches) if schedule in _STEPWISE else 0
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": make_schedule(optimizer, self.training_arguments, steps),
                "interval": "step" if schedule in _STEPWISE else "epoch",
                "monitor": "val_loss",
            },
        }


_STEPWISE = ("cosine", "onecycle")


class WarmupThenPlateau(ReduceLROnPlateau):
    """A linear rise over the first epochs, then a decay where the validation loss stands still (Di Iorio, section 4.3).

    In epoch e < `epochs` the rate is base·(1 + (factor − 1)·e/`epochs`), from then on base·factor, times the decays:
    the gradual warm-up of Goyal et al. 2017 (section 2.2), once an epoch.

    Args:
        optimizer: its rates are the base rates.
        epochs: length of the rise; 0: none.
        factor: times the base rate at its end.
        plateau_factor, plateau_patience: of `ReduceLROnPlateau`, which sees the losses after the rise only.
    """

    def __init__(
        self, optimizer: Optimizer, epochs: int, factor: float, plateau_factor: float, plateau_patience: int
    ) -> None:
        super().__init__(optimizer, factor=plateau_factor, patience=plateau_patience)
        self.warmup_epochs, self.warmup_factor = epochs, factor
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        if epochs == 0:
            self._rise(1.0)

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]  # as its parent
        """End an epoch whose validation loss was `metrics`."""
        if self.last_epoch >= self.warmup_epochs:
            super().step(metrics, epoch)
            return
        self.last_epoch += 1
        self._rise(self.last_epoch / self.warmup_epochs)

    def _rise(self, share: float) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * (1 + (self.warmup_factor - 1) * share)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def make_optimizer(parameters: Sequence[Tensor], arguments: TrainingArguments) -> Optimizer:
    """SGD, Adam or AdamW as the arguments say; their other settings are torch's defaults."""
    lr, weight_decay = arguments["lr"], arguments["weight_decay"]
    if arguments["optimizer"] == "sgd":
        momentum, nesterov = arguments["momentum"], arguments["nesterov"]
        return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
    kind = torch.optim.Adam if arguments["optimizer"] == "adam" else torch.optim.AdamW
    return kind(parameters, lr=lr, weight_decay=weight_decay)


def make_schedule(optimizer: Optimizer, arguments: TrainingArguments, steps: int) -> LRScheduler:
    """The schedule that the arguments name, "constant" aside.

    Args:
        optimizer: what it moves.
        arguments: all training arguments.
        steps: optimiser steps of the whole fit, which "cosine" and "onecycle" span.
    """
    factor, patience = arguments["plateau_factor"], arguments["plateau_patience"]
    match arguments["schedule"]:
        case "step":
            return StepLR(optimizer, arguments["step_size"], arguments["gamma"])
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle":
            return OneCycleLR(optimizer, max_lr=arguments["lr"], total_steps=steps)
        case "plateau":
            return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
        case "warmup-plateau":
            epochs, rise = arguments["warmup_epochs"], arguments["warmup_factor"]
            return WarmupThenPlateau(optimizer, epochs, rise, factor, patience)
        case other:
            raise ValueError(f"no schedule for {other!r}")


def once(index: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Rows of `values` without repeats of an index, in the order of the index: (N,) and (N, …) to (M, …), M ≤ N.

    Several processes see some faces twice, to have batches of equal number.
    """
    order = torch.argsort(index, stable=True)
    ordered = index[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return tuple(value[order[first]] for value in values)


def at_least(name: str, size: int, smallest: int, why: str = "") -> None:
    """Raise a SizeError for a size below the smallest that an architecture takes, px."""
    if size < smallest:
        raise SizeError(f"{name} cannot take {size} px{why}; it takes any size from {smallest} px on")


def flops(cls: type[EmotionClassifier], arguments: Mapping[str, Any], emotions: Sequence[str], size: int) -> int:
    """FLOPs of one face forward, as `flops_of`, from the arguments alone: nothing is allocated or computed.

    Args:
        cls: a class that needs no networks of others.
        arguments: of the class; pre-trained weights among them are not opened.
        emotions: the K classes.
        size: side of the faces that the network sees, px.
    """
    with torch.device("meta"):
        return flops_of(cls(**cls.untrained({**arguments, "emotions": emotions, "size": size})))


def flops_of(model: EmotionClassifier) -> int:
    """FLOPs of one face of `model.size` px forward: two for each multiply-add of convolutions, matrices and attention.

    Networks that the model holds for its work, such as the members of an ensemble, are counted.
    """
    was_training = model.training
    image = torch.zeros(1, 3, model.size, model.size, dtype=torch.uint8, device=model.pixel_mean.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    model.train(was_training)
    return int(counter.get_total_flops())


def parameters_of(model: EmotionClassifier) -> int:
    """Parameters of a model, frozen ones and the members of an ensemble among them."""
    return sum(parameter.numel() for parameter in model.parameters())
