"""What the searches in StyleGAN2's latent space share: the generator that they search, the guides and all settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypedDict, Unpack

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from emobench.errors import SuiteError
from emobench.generators.generator import EmotionGenerator
from emobench.generators.stylegan2 import generator_of
from emobench.nn.latents import Projection, Search, Space
from emobench.nn.noise import Noise
from emobench.nn.perceptual import Perceptual, features_for, needed_file
from emobench.nn.stylegan2 import Generator
from emobench.nn.weights import WeightFile, by_path


class SearchArguments(TypedDict, total=False):
    """Settings of the search and of the projection of a face into w; distances are a mean over w's dimensions."""

    network: str | None  # a StyleGAN2-ADA network file instead of a `generator` row: published format or .safetensors
    plus: bool  # one w for each layer of the synthesis ('w+') instead of one for all
    steps: Annotated[int, Ge(1)]  # of Adam
    step: Annotated[float, Gt(0)]  # its rate, in deviations of w
    keep_start: Annotated[float, Ge(0)]  # weight of the squared distance from the start, in deviations of w
    keep_mean: Annotated[float, Ge(0)]  # weight of that from the mean of all w
    perceptual: Perceptual  # in whose features a face stays close to the start: VGG16's relu2_2, the first guide's
    perceptual_weight: Annotated[float, Ge(0)]  # of that term, and of the same in a projection
    weights: str | None  # of VGG16, by torchvision's name or by path
    views: Annotated[int, Ge(0)]  # shifted, turned and lit at random, which the guides read at each step; 0: the face
    noise: Annotated[float, Ge(0)]  # deviation of the noise on the pixels of a view
    projection_steps: Annotated[int, Ge(1)]  # of Adam, from the mean of w to a given face
    projection_keep_mean: Annotated[float, Ge(0)]  # weight of the distance from that mean


DEFAULTS = SearchArguments(
    network=None,
    plus=False,
    steps=100,
    step=0.1,
    keep_start=2.0,
    keep_mean=0.5,
    perceptual="none",
    perceptual_weight=1.0,
    weights="IMAGENET1K_V1",
    views=1,  # without any, the guides are deceived sooner
    noise=0.0,
    projection_steps=200,
    projection_keep_mean=0.01,
)


class SearchingGenerator(EmotionGenerator):
    """Searches the w of a finished StyleGAN2 for a face in which the guides read the emotion. Nothing is trained.

    Args:
        generator: the StyleGAN2 row, unless there is a `network` file.
        guide: classifiers; several are heard alike.
        others: further networks that must tell the same emotions.
        search: see `SearchArguments`; what is not given is the class's default.
    """

    may_need: ClassVar[Mapping[str, str]] = {"generator": "stylegan2"}
    files = ("network", "weights")
    recipe = None
    defaults: ClassVar[SearchArguments] = {}  # where they differ from DEFAULTS

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        generator: Sequence[Any],
        guide: Sequence[Any],
        others: Sequence[Any] = (),
        **search: Unpack[SearchArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size)
        given = SearchArguments(**{**self.argument_defaults(), **search})
        self.save_hyperparameters(dict(given), logger=False)
        self._check(given["network"], generator, (*others, *guide))
        self.guides = list(guide)
        self.size = generator[0].size if generator else size
        self._network, self._generator = given["network"], generator
        self._space: Space | None = None
        self._see = features_for(given["perceptual"], given["weights"], guide if given["perceptual"] == "guide" else ())
        self.projection = Projection(
            steps=given["projection_steps"],
            lr=given["step"],
            keep_mean=given["projection_keep_mean"],
            perceptual_weight=given["perceptual_weight"],
            plus=given["plus"],
        )
        self.search = Search(
            steps=given["steps"],
            lr=given["step"],
            keep_start=given["keep_start"],
            keep_mean=given["keep_mean"],
            perceptual_weight=given["perceptual_weight"],
            views=given["views"],
            noise=given["noise"],
        )

    @classmethod
    def argument_defaults(cls) -> SearchArguments:
        """Every setting with the value that it has in this class where nothing else is said."""
        return SearchArguments(**{**DEFAULTS, **cls.defaults})

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The first of `weight_files` that is not there, else the last; None: there are none."""
        files = cls.weight_files(arguments)
        return next((file for file in files if file.path is None), files[-1] if files else None)

    @classmethod
    def weight_files(cls, arguments: Mapping[str, Any]) -> list[WeightFile]:
        """The network file, and VGG16's where faces are compared in its features."""
        network = None if arguments["network"] is None else by_path(arguments["network"])
        return [file for file in (network, needed_file(arguments)) if file is not None]

    def _check(self, network: str | None, generator: Sequence[Any], readers: Sequence[Any]) -> None:
        """Raise a SuiteError unless there is one generator, and all networks tell the same emotions."""
        if (network is None) != bool(generator):
            raise SuiteError(
                f"{self.name} searches one generator: name needs = {{ generator = ... }} with a stylegan2 row, or "
                "network = a StyleGAN2-ADA file"
            )
        for each in (*generator, *readers):
            if each.emotions != self.emotions:
                raise SuiteError(
                    f"{self.name} tells {', '.join(self.emotions)}, and {each.name}, which it needs, "
                    f"{', '.join(each.emotions)}. Take networks trained on the same dataset"
                )

    def space(self, device: torch.device) -> Space:
        """The space of the generator's w on a device, found when first used; its weights are no part of this model."""
        if self._space is None or self._space.mean.device != device:
            found: Generator = (
                generator_of(Path(self._network).expanduser()) if self._network else self._generator[0].generator
            )
            self._space = Space(found.to(device), len(self.emotions))
        return self._space

    def projected(self, space: Space, images: Tensor, noise: Noise) -> tuple[Tensor, list[Tensor]]:
        """The w of faces (N, 3, H, W), and the noise of each layer of the synthesis."""
        noises = space.generator.synthesis.noises(noise)
        return self.projection(space, self.pixels(images), noises, self._see), noises

    def found(self, space: Space, start: Tensor, emotions: Tensor, noises: Sequence[Tensor], noise: Noise) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K), searched from w = `start`."""
        w = self.search(space, start, emotions, noises, noise, self.guides, self._see)
        with torch.no_grad():
            return self.images(space.pixels(w, noises))
