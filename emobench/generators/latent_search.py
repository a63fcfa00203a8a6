"""Classifier-guided search in the latent space of StyleGAN2: any emotion without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from emobench.errors import SuiteError
from emobench.generators.generator import EmotionGenerator
from emobench.generators.stylegan2 import generator_of
from emobench.nn.latents import Projection, Search, Space, laid_out
from emobench.nn.noise import Noise
from emobench.nn.perceptual import Perceptual, features_for, needed_file
from emobench.nn.stylegan2 import Generator
from emobench.nn.weights import WeightFile, by_path


class LatentSearch(EmotionGenerator):
    """Moves the w of a finished generator until a guide reads the emotion; edits project the face into w first.

    Minimises −log p(emotion | G(w)) + distances of w from its start and from the mean of all w. Nothing is trained. A
    search of a conditional generator starts from the w of another emotion, so that whatever is reached is the search's.

    Args:
        network: a StyleGAN2-ADA network file instead of a `generator` row: the published format or .safetensors.
        start: of a face that is drawn: the w of random noise, or the mean of all w.
        plus: one w for each layer of the synthesis ('w+') instead of one for all.
        steps, step: of Adam, the second in deviations of w.
        keep_start, keep_mean: weights of the squared distances, in deviations of w, a mean over dimensions.
        perceptual: features in which a face stays close to that at its start: VGG16's at relu2_2, the first guide's, or
            none.
        perceptual_weight: of that term, and of the same in a projection.
        weights: of VGG16, by torchvision's name or by path.
        views: randomly shifted, turned and lit views of a face that the guides read at each step; 0: the face itself,
            which deceives them sooner.
        noise: deviation of the noise on the pixels of a view.
        projection_steps, projection_keep_mean: of Adam from the mean of w to a given face, and the weight of the
            distance from there.
        generator, guide: the networks that fill the needs of these names; several guides are heard alike.
    """

    name = "latent_search"
    source = (
        "Facial-Emotion-CVAE-StyleGAN (docs/systems.md), latent optimization; projection: Karras et al. 2020a, "
        "arXiv:1912.04958, section 5"
    )
    needs: ClassVar[Mapping[str, str]] = {"guide": "classifier"}
    may_need: ClassVar[Mapping[str, str]] = {"generator": "stylegan2"}
    files = ("network", "weights")
    recipe = None

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        network: str | None = None,
        start: Literal["random", "mean"] = "random",
        plus: bool = False,
        steps: Annotated[int, Ge(1)] = 100,
        step: Annotated[float, Gt(0)] = 0.1,
        keep_start: Annotated[float, Ge(0)] = 2.0,
        keep_mean: Annotated[float, Ge(0)] = 0.5,
        perceptual: Perceptual = "none",
        perceptual_weight: Annotated[float, Ge(0)] = 1.0,
        weights: str | None = "IMAGENET1K_V1",
        views: Annotated[int, Ge(0)] = 1,
        noise: Annotated[float, Ge(0)] = 0.0,
        projection_steps: Annotated[int, Ge(1)] = 200,
        projection_keep_mean: Annotated[float, Ge(0)] = 0.01,
        generator: Sequence[Any] = (),
        guide: Sequence[Any] = (),
    ) -> None:
        architecture = {
            "network": network, "start": start, "plus": plus, "steps": steps, "step": step, "keep_start": keep_start,
            "keep_mean": keep_mean, "perceptual": perceptual, "perceptual_weight": perceptual_weight,
            "weights": weights, "views": views, "noise": noise, "projection_steps": projection_steps,
            "projection_keep_mean": projection_keep_mean,
        }  # fmt: skip
        super().__init__(emotions=emotions, size=size, architecture=architecture)
        check_networks(self, network, generator, guide)
        self.networks, self.guides = Networks(network, generator, len(self.emotions)), list(guide)
        self.size = generator[0].size if generator else size
        self.start, self.plus = start, plus
        self._see = features_for(perceptual, weights, guide if perceptual == "guide" else ())
        self.projection = Projection(
            steps=projection_steps,
            lr=step,
            keep_mean=projection_keep_mean,
            perceptual_weight=perceptual_weight,
            plus=plus,
        )
        self.search = Search(
            steps=steps, lr=step, keep_start=keep_start, keep_mean=keep_mean, perceptual_weight=perceptual_weight,
            views=views, noise=noise,
        )  # fmt: skip

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The first of `weight_files` that is not there."""
        return first_missing(cls.weight_files(arguments))

    @classmethod
    def weight_files(cls, arguments: Mapping[str, Any]) -> list[WeightFile]:
        """The network file, and VGG16's where faces are compared in its features."""
        return network_files(arguments)

    def begin(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The faces (N, 3, S, S) from which `sample` starts, for what they show by themselves."""
        space, noise = self.networks.space(seeds.device), Noise(seeds)
        start, noises = self._start(space, emotions, seeds, noise)
        return self.images(space.pixels(start, noises))

    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K)."""
        space, noise = self.networks.space(seeds.device), Noise(seeds)
        start, noises = self._start(space, emotions, seeds, noise)
        return self._found(space, start, emotions, noises, noise)

    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The same faces (N, 3, S, S) with emotions (N, K): projected into w, and moved from there."""
        space, noise = self.networks.space(seeds.device), Noise(seeds)
        noises = space.generator.synthesis.noises(noise)
        start = self.projection(space, self.pixels(images), noises, self._see)
        return self._found(space, start, emotions, noises, noise)

    def _start(self, space: Space, emotions: Tensor, seeds: Tensor, noise: Noise) -> tuple[Tensor, list[Tensor]]:
        """w, and the noise of each layer; of a conditional generator w is that of another emotion."""
        if self.start == "mean":
            w = space.mean.expand(len(seeds), -1)
        else:
            k = len(self.emotions)
            other = (emotions.argmax(1) + 1 + seeds % (k - 1)) % k
            w = space.random(noise, torch.eye(k, device=seeds.device)[other])
        return laid_out(space, w, self.plus), space.generator.synthesis.noises(noise)

    def _found(self, space: Space, start: Tensor, emotions: Tensor, noises: Sequence[Tensor], noise: Noise) -> Tensor:
        w = self.search(space, start, emotions, noises, noise, self.guides, self._see)
        with torch.no_grad():
            return self.images(space.pixels(w, noises))


class Networks:
    """The generator behind a search, handed over as a row or read from a file, and its space, found when first used.

    Not a module: its weights are no part of whoever searches.
    """

    def __init__(self, network: str | None, generator: Sequence[Any], emotions: int) -> None:
        self.network, self.generator, self.emotions = network, generator, emotions
        self._space: Space | None = None

    def space(self, device: torch.device) -> Space:
        """The space of the generator's w, on a device."""
        if self._space is None or self._space.mean.device != device:
            found: Generator = (
                generator_of(Path(self.network).expanduser()) if self.network else self.generator[0].generator
            )
            self._space = Space(found.to(device), self.emotions)
        return self._space


def check_networks(
    model: EmotionGenerator, network: str | None, generator: Sequence[Any], guide: Sequence[Any]
) -> None:
    """Raise a SuiteError unless there is one generator, and guides that tell the same emotions."""
    if (network is None) != bool(generator):
        raise SuiteError(
            f"{model.name} searches one generator: name needs = {{ generator = ... }} with a stylegan2 row, or "
            "network = a StyleGAN2-ADA file"
        )
    for each in (*generator, *guide):
        if each.emotions != model.emotions:
            raise SuiteError(
                f"{model.name} tells {', '.join(model.emotions)}, and {each.name}, which it needs, "
                f"{', '.join(each.emotions)}. Take networks trained on the same dataset"
            )


def network_files(arguments: Mapping[str, Any]) -> list[WeightFile]:
    """The network file, and VGG16's where faces are compared in its features."""
    network = None if arguments["network"] is None else by_path(arguments["network"])
    return [file for file in (network, needed_file(arguments)) if file is not None]


def first_missing(files: Sequence[WeightFile]) -> WeightFile | None:
    """The first of some files that is not there, else the last; None: there are none."""
    return next((file for file in files if file.path is None), files[-1] if files else None)
