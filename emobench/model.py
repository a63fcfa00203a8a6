"""What every model shares, classifier or generator: what is known of its class, its arguments, files and sizes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import lightning as L
import torch
from torch import Tensor, nn

from emobench.nn.running import Running
from emobench.nn.weights import WeightFile
from emobench.recipe import Recipe


class EmotionModel(L.LightningModule):
    """A network of K emotions for faces of one size.

    A subclass has the class attributes below and a typed, keyword-only `__init__`, which calls
    `super().__init__(emotions=emotions, size=size)` before it builds its networks. From then on `hparams` has the
    arguments of the call and the defaults of the others: plain values, from which the same network is built again.

    Args:
        emotions: the K classes, in the order of the dataset's labels.
        size: side of the faces that the networks see, px; others are resized to it.
    """

    name: ClassVar[str]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # further names of the class, and what each presets
    family: ClassVar[str | None] = None  # the argument that follows the name and a colon, as in `timm:resnet18`
    needs: ClassVar[Mapping[str, str]] = {}  # role: kind of row that fills it; all must be filled
    may_need: ClassVar[Mapping[str, str]] = {}  # those that an argument asks for
    files: ClassVar[Sequence[str]] = ("weights",)  # arguments that may name a file or folder: its content counts
    asked_for: ClassVar[bool] = True  # whether a suite names it; False: emobench makes it of other rows
    keeps_files: ClassVar[bool] = False  # whether a trained one still reads them
    source: ClassVar[str]  # where it is described: author, year, section
    recipe: ClassVar[Recipe | None]  # how it is trained by default; None: nothing is trained
    # What `<name>-small-faces` presets: a network and a recipe for faces of 64 px and less, where the published one is
    # for large faces and long training. `benchmarks/small_faces.py` checks that its budget is enough for drawn faces.
    small_faces: ClassVar[Mapping[str, Any]] = {}
    takes_turns: ClassVar[bool] = False  # whether it says what several optimisers are to minimise, and leaves the rest
    micro_batches: int = 1  # of a process, whose gradients make one step of an optimiser together; the fit sets it

    def __new__(cls, **arguments: Any) -> Self:
        """Keep the arguments of the call for `__init__`, which sees them only as the subclass hands them on."""
        model = super().__new__(cls)
        model.__dict__["_arguments"] = arguments
        return model

    def __init__(self, *, emotions: Sequence[str], size: int) -> None:
        super().__init__()
        self.save_hyperparameters(self._as_called(), logger=False)
        self.check_size(size, self.hparams)
        self.emotions = tuple(emotions)
        self.size = size

    def _as_called(self) -> dict[str, Any]:
        """The arguments of the call and the defaults of the others, without the networks that fill needs."""
        call = inspect.signature(type(self).__init__).bind(self, **self.__dict__.pop("_arguments"))
        call.apply_defaults()
        found: dict[str, Any] = {}
        for name, value in call.arguments.items():
            found |= value if call.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        hidden = {next(iter(call.arguments)), *self.needs, *self.may_need}  # the first is `self`
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if name not in hidden
        }

    @staticmethod
    def check_images(images: Tensor) -> None:
        """Raise a TypeError where pictures are no uint8: floats from 0 to 1 would be read as black, and answered."""
        if images.dtype != torch.uint8:
            raise TypeError(
                f"images are uint8 (N, 3, H, W) from 0 to 255, not {str(images.dtype).removeprefix('torch.')}. Floats "
                "from 0 to 1 are converted by images = (images * 255).round().clamp(0, 255).to(torch.uint8)"
            )

    # What is known of a class before anything is built

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where the architecture cannot take faces of `size` px; here: it takes any."""

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The pre-trained file that these arguments need; None: they need none.

        Raises:
            WeightsError, SuiteError: the arguments and such a file contradict each other.
        """
        return None

    @classmethod
    def weight_files(cls, arguments: Mapping[str, Any]) -> list[WeightFile]:
        """All pre-trained files that these arguments need, whether they are here or not."""
        file = cls.weight_file(arguments)
        return [] if file is None else [file]

    @classmethod
    def untrained(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the same architecture without its pre-trained file."""
        has_weights = "weights" in inspect.signature(cls.__init__).parameters
        return {**arguments, **({"weights": None} if has_weights else {})}

    def running(self) -> Running:
        """Its running statistics in a step that begins now."""
        return Running(self)

    def compilable(self) -> list[nn.Module]:
        """The networks that the recipe's `compile` is for: those through which no second derivative is taken."""
        return list(self.children())
