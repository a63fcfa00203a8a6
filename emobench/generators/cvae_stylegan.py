"""The fusion of Facial-Emotion-CVAE-StyleGAN: a conditional VAE has the emotion, StyleGAN2 the photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from emobench.generators.generator import EmotionGenerator
from emobench.generators.latent_search import Networks, check_networks, first_missing, network_files
from emobench.nn.latents import Projection, Search, Space
from emobench.nn.noise import Noise
from emobench.nn.perceptual import Perceptual, features_for
from emobench.nn.weights import WeightFile


class CVAEStyleGAN(EmotionGenerator):
    """The CVAE's face of an emotion is projected into StyleGAN2's w, and a search keeps its emotion.

    Nothing is trained. Edits are the CVAE's, projected and searched likewise.

    Args:
        network: a StyleGAN2-ADA network file instead of a `generator` row: the published format or .safetensors.
        plus: one w for each layer of the synthesis ('w+') instead of one for all.
        steps, step: of the search's Adam, the second in deviations of w.
        keep_start, keep_mean: weights of the squared distances from the projection and from the mean of all w, in
            deviations of w, a mean over dimensions.
        perceptual: features in which faces are compared beside their pixels: VGG16's at relu2_2, the first guide's, or
            none.
        perceptual_weight: of that term.
        weights: of VGG16, by torchvision's name or by path.
        views: randomly shifted, turned and lit views of a face that the guides read at each step; 0: the face itself.
        projection_steps, projection_keep_mean: of Adam from the mean of w to the CVAE's face, and the weight of the
            distance from there.
        generator, cvae, guide: the networks that fill the needs of these names; several guides are heard alike.
    """

    name = "cvae_stylegan"
    source = "Facial-Emotion-CVAE-StyleGAN (docs/systems.md), conceptual fusion"
    needs: ClassVar[Mapping[str, str]] = {"cvae": "cvae", "guide": "classifier"}
    may_need: ClassVar[Mapping[str, str]] = {"generator": "stylegan2"}
    files = ("network", "weights")
    recipe = None

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        network: str | None = None,
        plus: bool = False,
        steps: Annotated[int, Ge(1)] = 50,
        step: Annotated[float, Gt(0)] = 0.1,
        keep_start: Annotated[float, Ge(0)] = 2.0,
        keep_mean: Annotated[float, Ge(0)] = 0.5,
        perceptual: Perceptual = "none",
        perceptual_weight: Annotated[float, Ge(0)] = 1.0,
        weights: str | None = "IMAGENET1K_V1",
        views: Annotated[int, Ge(0)] = 1,
        projection_steps: Annotated[int, Ge(1)] = 200,
        projection_keep_mean: Annotated[float, Ge(0)] = 0.01,
        generator: Sequence[Any] = (),
        cvae: Sequence[Any] = (),
        guide: Sequence[Any] = (),
    ) -> None:
        architecture = {
            "network": network, "plus": plus, "steps": steps, "step": step, "keep_start": keep_start,
            "keep_mean": keep_mean, "perceptual": perceptual, "perceptual_weight": perceptual_weight,
            "weights": weights, "views": views, "projection_steps": projection_steps,
            "projection_keep_mean": projection_keep_mean,
        }  # fmt: skip
        super().__init__(emotions=emotions, size=size, architecture=architecture)
        check_networks(self, network, generator, (*cvae, *guide))
        self.networks = Networks(network, generator, len(self.emotions))
        self.cvae, self.guides = list(cvae), list(guide)
        self.size = generator[0].size if generator else size
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
            views=views, noise=0.0,
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
        """The CVAE's faces (N, 3, S, S) as StyleGAN2 makes them, before the search."""
        space, noise = self.networks.space(seeds.device), Noise(seeds)
        start, noises = self._projected(space, self._drawn(emotions, seeds), noise)
        with torch.no_grad():
            return self.images(space.pixels(start, noises))

    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K)."""
        return self._found(self._drawn(emotions, seeds), emotions, seeds)

    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The same faces (N, 3, S, S) with emotions (N, K)."""
        return self._found(self.cvae[0].to(seeds.device).edit(images, emotions, seeds), emotions, seeds)

    def _drawn(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        faces: Tensor = self.cvae[0].to(seeds.device).sample(emotions, seeds)
        return faces

    def _projected(self, space: Space, faces: Tensor, noise: Noise) -> tuple[Tensor, list[Tensor]]:
        noises = space.generator.synthesis.noises(noise)
        return self.projection(space, self.pixels(faces), noises, self._see), noises

    def _found(self, faces: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        space, noise = self.networks.space(seeds.device), Noise(seeds)
        start, noises = self._projected(space, faces, noise)
        w = self.search(space, start, emotions, noises, noise, self.guides, self._see)
        with torch.no_grad():
            return self.images(space.pixels(w, noises))
