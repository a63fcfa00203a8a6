"""Classifier-guided search in the latent space of StyleGAN2: any emotion without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from emobench.generators.search import SearchArguments, SearchingGenerator
from emobench.nn.latents import Space, laid_out
from emobench.nn.noise import Noise


class LatentSearch(SearchingGenerator):
    """Moves the w of a finished generator until a guide reads the emotion; edits project the face into w first.

    Minimises −log p(emotion | G(w)) + distances of w from its start and from the mean of all w. A search of a
    conditional generator starts from the w of another emotion, so that whatever is reached is the search's.

    Args:
        start: of a face that is drawn: the w of random noise, or the mean of all w.
        generator, guide: the networks that fill the needs of these names; several guides are heard alike.
        search: see `SearchArguments`.
    """

    name = "latent_search"
    source = (
        "Facial-Emotion-CVAE-StyleGAN (docs/systems.md), latent optimization; projection: Karras et al. 2020a, "
        "arXiv:1912.04958, section 5"
    )
    needs: ClassVar[Mapping[str, str]] = {"guide": "classifier"}

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        start: Literal["random", "mean"] = "random",
        generator: Sequence[Any] = (),
        guide: Sequence[Any] = (),
        **search: Unpack[SearchArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size, generator=generator, guide=guide, **search)
        self.start = start

    def begin(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The faces (N, 3, S, S) from which `sample` starts, for what they show by themselves."""
        space, noise = self.space(seeds.device), Noise(seeds)
        start, noises = self._start(space, emotions, seeds, noise)
        return self.images(space.pixels(start, noises))

    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K)."""
        space, noise = self.space(seeds.device), Noise(seeds)
        start, noises = self._start(space, emotions, seeds, noise)
        return self.found(space, start, emotions, noises, noise)

    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The same faces (N, 3, S, S) with emotions (N, K): projected into w, and moved from there."""
        space, noise = self.space(seeds.device), Noise(seeds)
        start, noises = self.projected(space, images, noise)
        return self.found(space, start, emotions, noises, noise)

    def _start(self, space: Space, emotions: Tensor, seeds: Tensor, noise: Noise) -> tuple[Tensor, list[Tensor]]:
        """w, and the noise of each layer; of a conditional generator w is that of another emotion."""
        if self.start == "mean":
            w = space.mean.expand(len(seeds), -1)
        else:
            k = len(self.emotions)
            other = (emotions.argmax(1) + 1 + seeds % (k - 1)) % k
            w = space.random(noise, torch.eye(k, device=seeds.device)[other])
        return laid_out(space, w, self.hparams["plus"]), space.generator.synthesis.noises(noise)
