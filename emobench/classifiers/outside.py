"""What classifiers share that emobench did not train: classes of their own, and what is done to faces for them.

Nothing of that is guessed. What neither the file nor the suite says is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypedDict, Unpack, cast

import numpy as np
import torch
from annotated_types import Ge, Lt
from PIL import Image
from torch import Tensor, nn

from emobench.classifiers.classifier import EmotionClassifier
from emobench.emotions import EMOTIONS, canonical, is_emotion
from emobench.errors import SuiteError, Unsaid, unknown
from emobench.nn.provenance import Behind, written_here
from emobench.recipe import Count

Channels = Literal["rgb", "bgr", "gray"]
Outputs = Literal["logits", "probabilities"]

# Classes that are no emotion, as models name them.
NO_EMOTION = ("other", "none", "unknown", "uncertain", "no face", "non-face", "nf")
LEAST = 1e-30  # probability that stands for 0 in a logarithm
_SUM = 1e-3  # by which probabilities may miss 1
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in gray (ITU-R BT.601), as Pillow has it


class OutsideArguments(TypedDict, total=False):
    """What every outside classifier takes; None: as its file says it."""

    labels: list[str] | None  # its classes in its own order, by any usual spelling
    channels: Channels | None  # and in which order
    range: tuple[float, float] | None  # what the pixel values 0 and 255 are to it, before mean and std
    mean: list[float] | None  # of values in that range, a channel; taken off
    std: list[float] | None  # likewise; divided by
    side: Count | None  # of the faces that it takes, px
    margin: Annotated[float, Ge(0), Lt(0.5)]  # share of the side that is cut off at each edge
    flip: bool  # the mean of its probabilities for a face and its mirror image
    batch: Count  # faces at a time
    outputs: Outputs | None  # None: probabilities where all of them are, else logits


DEFAULTS = OutsideArguments(
    labels=None,
    channels=None,
    range=None,
    mean=None,
    std=None,
    side=None,
    margin=0.0,
    flip=False,
    batch=64,
    outputs=None,
)

# What is tried of what is not said: the settings that networks for faces have most often.
USUAL: Mapping[str, Mapping[str, Any]] = {
    "range = [0, 1]": {"range": (0.0, 1.0)},
    "range = [0, 255]": {"range": (0.0, 255.0)},
    "range = [0, 1], mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]": {
        "range": (0.0, 1.0),
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


@dataclass(frozen=True)
class Said:
    """What is known of an outside classifier, from its file and the suite.

    Attributes:
        labels: its classes in its own order.
        emotions: of each class, None where it is no emotion.
        whence: of each field, "file" or "suite".
    """

    labels: tuple[str, ...]
    channels: Channels
    range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    margin: float
    flip: bool
    whence: Mapping[str, str]

    @property
    def emotions(self) -> tuple[str | None, ...]:
        return tuple(canonical(label) if is_emotion(label) else None for label in self.labels)

    def words(self) -> str:
        """All that is done to a face, in words."""
        low, high = (f"{each:g}" for each in self.range)
        said = [f"{self.channels} values from {low} to {high}"]
        if any(self.mean) or any(each != 1 for each in self.std):
            mean, std = (", ".join(f"{each:g}" for each in values) for values in (self.mean, self.std))
            said.append(f"less {mean}, by {std}")
        if self.margin:
            said.append(f"{100 * self.margin:g} % cut off at each edge")
        said.append(f"{self.side} px")
        if self.flip:
            said.append("mean with the mirror image")
        of = ", ".join(name for name, whence in self.whence.items() if whence == "suite")
        return "; ".join(said) + (f" ({of}: as the suite says)" if of else " (as its file says)")


class OutsideClassifier(EmotionClassifier):
    """A classifier of somebody else's, whose own classes are told as those of a dataset.

    A class that the dataset lacks is dropped, and the others' probabilities sum to 1 again; an emotion that it lacks
    has probability 0. A subclass says what its file knows (`known`) and asks its network (`own`).

    Args:
        outside: see `OutsideArguments`.
    """

    recipe = None
    foreign: ClassVar[bool] = True
    uint8: ClassVar[bool] = False  # whether its network takes pixels as they are
    differentiable: ClassVar[bool] = False  # whether a gradient flows back through its network

    def __init__(self, *, emotions: Sequence[str], size: int, **outside: Unpack[OutsideArguments]) -> None:
        super().__init__(emotions=emotions, size=size)
        self.save_hyperparameters({**DEFAULTS, **outside}, logger=False)
        self.said = self.settled(self.hparams, size)
        low, high = self.said.range
        at = [(mean - low) / (high - low) for mean in self.said.mean]
        self.register_buffer("pixel_mean", torch.tensor(at).view(1, -1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor([s / (high - low) for s in self.said.std]).view(1, -1, 1, 1))
        self.size = self.said.side
        told = self.said.emotions
        self.columns = [told.index(emotion) if emotion in told else -1 for emotion in self.emotions]
        self.outputs: Outputs | None = self.hparams["outputs"]

    # What is known before anything is run

    @classmethod
    def argument_defaults(cls) -> Any:
        return DEFAULTS

    @classmethod
    def known(cls, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the file of these arguments says of the fields of `OutsideArguments`, and of `classes`, their number.

        Raises:
            SuiteError, WeightsError: there is no such file, or it is none of its kind.
        """
        return {}

    @classmethod
    def located(cls, arguments: Mapping[str, Any]) -> list[str]:
        """The arguments that say where something lies on this machine, which no key holds."""
        return [name for name in cls.files if Path(str(arguments.get(name) or "")).expanduser().exists()]

    @classmethod
    def shown(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Its arguments as keys and boards have them, without places on this machine."""
        return {**arguments, **{name: cls.title(arguments) for name in cls.located(arguments)}}

    @classmethod
    def inputs(cls, arguments: Mapping[str, Any]) -> dict[str, list[Path | str]]:
        """What decides its answers beside its arguments: files and folders, or what tells one state of a repository."""
        return {name: [Path(str(arguments[name])).expanduser()] for name in cls.files if arguments.get(name)}

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], size: int) -> Said:
        """What is known of the network altogether.

        Raises:
            Unsaid: something that decides its answers is said nowhere.
            SuiteError: what is said cannot be.
        """
        of_file = {name: value for name, value in cls.known(arguments).items() if value is not None}
        of_suite = {name: arguments[name] for name in DEFAULTS if arguments.get(name) is not None}
        both = {**of_file, **of_suite}
        if cls.uint8:
            both.setdefault("side", size)
            both |= {"range": (0.0, 255.0)}
            both.setdefault("channels", "rgb")
        lacking = [name for name in ("labels", "channels", "range", "side") if name not in both]
        if lacking:
            number = of_file.get("classes")
            many = f" (it tells {number} classes)" if number is not None and "labels" in lacking else ""
            said = "; ".join(_EXPLAINED[name] for name in lacking)
            raise Unsaid(
                f"its file does not say {', '.join(lacking)}{many}, and nothing is guessed. Set {said}", lacking
            )
        given = "labels" in of_suite
        labels = _labels([str(each) for each in both["labels"]], of_file.get("classes"), given=given)
        channels = cast(Channels, both["channels"])
        values = 1 if channels == "gray" else 3
        mean, std = (
            _a_channel(name, both.get(name), values, default) for name, default in (("mean", 0.0), ("std", 1.0))
        )
        low, high = (float(each) for each in both["range"])
        if low == high:
            raise SuiteError(f"range = [{low:g}, {high:g}]: black and white are the same to it")
        whence = {
            name: "suite" if name in of_suite else "file"
            for name in ("labels", "channels", "range", "mean", "std", "side")
        }
        if cls.uint8:
            whence = {name: each for name, each in whence.items() if name == "labels" or name in of_suite}
        return Said(
            labels,
            channels,
            (low, high),
            mean,
            std,
            int(both["side"]),
            float(both.get("margin", 0.0)),
            bool(both.get("flip", False)),
            whence,
        )

    @classmethod
    def weight_files(cls, arguments: Mapping[str, Any]) -> list[Any]:
        return []

    @classmethod
    def untrained(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return dict(arguments)

    @classmethod
    def exported(cls, arguments: Mapping[str, Any]) -> Behind | None:
        """The network of emobench's own that its file holds; None: it is somebody else's."""
        for name in cls.located(arguments):
            said = written_here(Path(str(arguments[name])).expanduser())
            if said is not None:
                return said.lineage.get(said.fit_key)
        return None

    @classmethod
    def architecture(cls, arguments: Mapping[str, Any]) -> str:
        own = cls.exported(arguments)
        return f"{cls.name}:{cls.title(arguments)}" if own is None or own.architecture is None else own.architecture

    @classmethod
    def architecture_family(cls, arguments: Mapping[str, Any]) -> str:
        own = cls.exported(arguments)
        return cls.architecture(arguments) if own is None or own.family is None else own.family

    @classmethod
    def compares(cls, arguments: Mapping[str, Any]) -> bool:
        """Whether it has features beside its outputs, in which a reader compares faces."""
        return cls.differentiable

    @classmethod
    def cannot_guide(cls, arguments: Mapping[str, Any], size: int) -> str | None:
        """Why nothing can be guided by it; None: it can be."""
        if not cls.differentiable:
            return "gives no gradient; an hf: or timm: network does"
        said = cls.settled(arguments, size)
        if said.channels != "rgb" or said.margin:
            return "takes faces otherwise than whole and in RGB, which is all that a guide is given"
        return None

    @classmethod
    def title(cls, arguments: Mapping[str, Any]) -> str:
        """What boards call it: the name of its file, without the folders of this machine."""
        assert cls.family is not None
        return str(arguments[cls.family]).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]

    # Faces to probabilities

    def own(self, pixels: Tensor) -> Tensor:
        """Faces as it takes them, (N, C, side, side), to its own outputs (N, M)."""
        raise NotImplementedError

    def taken(self, faces: Iterable[np.ndarray]) -> Tensor:
        """Faces uint8 (C, h, w) of a dataset's own pixels as it takes them, (N, C, side, side), in one resize."""
        side = self.said.side
        found = [np.broadcast_to(_resized(self.cut(face), side), (3, side, side)) for face in faces]
        return self.pixels(torch.from_numpy(np.stack(found)).to(self.pixel_mean.device))

    def cut(self, face: np.ndarray) -> np.ndarray:
        """A face uint8 (C, h, w) without its margin."""
        _, high, wide = face.shape
        up, left = round(self.said.margin * high), round(self.said.margin * wide)
        return face[:, up : high - up, left : wide - left]

    def shares_of(self, faces: Sequence[np.ndarray]) -> Tensor:
        """Faces uint8 (C, h, w) of a dataset's own pixels to the logarithm of its own probabilities (N, M), float64."""
        found = self._logarithms(self.own(self.taken(faces)))
        if self.said.flip:
            mirrored = self._logarithms(self.own(self.taken([face[..., ::-1] for face in faces])))
            found = torch.stack([found, mirrored]).logsumexp(0) - math.log(2)
        return found

    def pixels(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) as it takes them: (N, C, side, side)."""
        self.check_images(images)
        if self.said.margin and images.shape[-1] != self.said.side:
            up, left = (round(self.said.margin * length) for length in images.shape[-2:])
            images = images[..., up : images.shape[-2] - up, left : images.shape[-1] - left]
        if self.said.channels == "bgr":
            images = images.flip(1)
        if self.said.channels == "gray":
            luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
            images = (images * luma).sum(1, keepdim=True).round().to(torch.uint8)
        if self.uint8:
            return images
        return super().pixels(images)

    def shares(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) to the logarithm of its own probabilities (N, M), float64."""
        found = self._logarithms(self.own(self.pixels(images)))
        if self.said.flip:
            mirrored = self._logarithms(self.own(self.pixels(images.flip(-1))))
            found = torch.stack([found, mirrored]).logsumexp(0) - math.log(2)
        return found

    def _logarithms(self, outputs: Tensor) -> Tensor:
        if outputs.ndim != 2 or outputs.shape[1] != len(self.said.labels):
            raise SuiteError(
                f"{self.title(self.hparams)} gives {tuple(outputs.shape)}, and {len(self.said.labels)} classes are "
                f"named: {', '.join(self.said.labels)}. Name each of its outputs once, in its own order"
            )
        outputs = outputs.double()
        if self.outputs is None:  # said by the first batch, for all
            sums = outputs.sum(1)
            alike = bool(((outputs >= 0) & (outputs <= 1 + _SUM)).all() and ((sums - 1).abs() < _SUM).all())
            self.outputs = "probabilities" if alike else "logits"
        return outputs.clamp_min(LEAST).log() if self.outputs == "probabilities" else outputs.log_softmax(1)

    def told(self, shares: Tensor) -> Tensor:
        """Logarithms of its own probabilities (N, M) to logits (N, K) of the dataset's emotions."""
        known = [column for column in self.columns if column >= 0]
        logits = shares[:, [max(column, 0) for column in self.columns]].clone()
        logits[:, [column < 0 for column in self.columns]] = -1e4  # of what it does not know: probability 0
        if not known:
            raise SuiteError(f"none of its classes ({', '.join(self.said.labels)}) is an emotion of the dataset")
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) to logits (N, K) in the order of `emotions`."""
        return self.told(self.shares(images))

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and features (N, D) of faces uint8 (N, 3, H, W); without features the logits stand for them."""
        if not self.compares(self.hparams):
            logits = self(images)
            return logits, logits
        seen = self.seen(self.pixels(images))
        return self(images), seen

    def seen(self, pixels: Tensor) -> Tensor:
        """Faces as it takes them, (N, C, side, side), to the features (N, D) that its last linear layer reads.

        Raises:
            SuiteError: it has no such layer.
        """
        network = self.opened(pixels.device)
        layers = [each for each in network.modules() if isinstance(each, nn.Linear)]
        if not layers:
            raise SuiteError(f"{self.title(self.hparams)} has no linear layer, whose features a reader compares")
        found: list[Tensor] = []
        hook = layers[-1].register_forward_pre_hook(lambda _, given: found.append(given[0]))
        try:
            self.own(pixels)
        finally:
            hook.remove()
        return found[-1].flatten(1)

    def opened(self, device: torch.device) -> nn.Module:
        """Its network as a module of torch, of those through which a gradient flows."""
        raise NotImplementedError

    def logits(self, pixels: Tensor) -> Tensor:
        """Faces as it takes them to logits (N, K)."""
        return self.told(self._logarithms(self.own(pixels)))

    @property
    def lacking(self) -> list[str]:
        """Emotions of the dataset that it does not know."""
        return [emotion for emotion, column in zip(self.emotions, self.columns, strict=True) if column < 0]

    @property
    def dropped(self) -> list[str]:
        """Its classes that the dataset does not have."""
        pairs = zip(self.said.labels, self.said.emotions, strict=True)
        return [label for label, emotion in pairs if emotion is None or emotion not in self.emotions]


_EXPLAINED = {
    "labels": 'labels = ["neutral", "happy", ...] in its own order',
    "channels": 'channels = "rgb", "bgr" or "gray"',
    "range": "range = [0, 1] (what 0 and 255 are to it), with mean and std where it wants them",
    "side": "side = 224 (px)",
}


def _labels(labels: Sequence[str], number: int | None, *, given: bool) -> tuple[str, ...]:
    """A model's classes, checked.

    Args:
        number: of its outputs; None: not known before it is run.
        given: the suite names them, where a misspelt emotion is a slip; a file may have classes that are none.
    """
    if number is not None and len(labels) != number:
        raise SuiteError(f"labels names {len(labels)} classes, and it tells {number}. Name each, in its own order")
    told = [canonical(label) for label in labels if is_emotion(label)]
    for label in labels:
        if given and not is_emotion(label) and label.strip().lower() not in NO_EMOTION:
            raise SuiteError(f"labels: {unknown('emotion', label, [*EMOTIONS, *NO_EMOTION])}")
    for emotion in told:
        if told.count(emotion) > 1:
            raise SuiteError(f"labels: two classes are {emotion} ({', '.join(labels)}). Name each emotion once")
    if not told:
        raise Unsaid(
            f"its file names its classes {', '.join(labels[:8])}, of which none is an emotion. Set "
            f"{_EXPLAINED['labels']}",
            ["labels"],
        )
    return tuple(labels)


def _resized(face: np.ndarray, side: int) -> np.ndarray:
    """uint8 (C, h, w) -> (C, side, side), by Pillow's antialiased bilinear interpolation, as datasets are packed."""
    if face.shape[1:] == (side, side):
        return face
    planes = [Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR) for plane in face]
    return np.stack([np.asarray(plane) for plane in planes])


def _a_channel(name: str, given: Any, channels: int, default: float) -> tuple[float, ...]:
    values = [default] * channels if given is None else [float(each) for each in given]
    values = values * channels if len(values) == 1 else values
    if len(values) != channels:
        raise SuiteError(f"{name} has {len(values)} values, and it takes {channels} channels")
    if name == "std" and any(each <= 0 for each in values):
        raise SuiteError(f"std = {values}: each is above 0")
    return tuple(values)
