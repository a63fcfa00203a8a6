"""The fusion of Facial-Emotion-CVAE-StyleGAN: a conditional VAE has the emotion, StyleGAN2 the photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from emobench.generators.search import SearchArguments, SearchingGenerator
from emobench.nn.noise import Noise


class CVAEStyleGAN(SearchingGenerator):
    """The CVAE's face of an emotion is projected into StyleGAN2's w, and a search keeps its emotion.

    Edits are the CVAE's, projected and searched likewise.

    Args:
        generator, cvae, guide: the networks that fill the needs of these names; several guides are heard alike.
        search: see `SearchArguments`.
    """

    name = "cvae_stylegan"
    source = "Facial-Emotion-CVAE-StyleGAN (docs/systems.md), conceptual fusion"
    needs: ClassVar[Mapping[str, str]] = {"cvae": "cvae", "guide": "classifier"}
    defaults: ClassVar[SearchArguments] = {"steps": 50}

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        generator: Sequence[Any] = (),
        cvae: Sequence[Any] = (),
        guide: Sequence[Any] = (),
        **search: Unpack[SearchArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size, generator=generator, guide=guide, others=cvae, **search)
        self.cvae = list(cvae)

    def begin(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The CVAE's faces (N, 3, S, S) as StyleGAN2 makes them, before the search."""
        space, noise = self.space(seeds.device), Noise(seeds)
        start, noises = self.projected(space, self._drawn(emotions, seeds), noise)
        with torch.no_grad():
            return self.images(space.pixels(start, noises))

    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K)."""
        return self._kept(self._drawn(emotions, seeds), emotions, seeds)

    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The same faces (N, 3, S, S) with emotions (N, K)."""
        return self._kept(self.cvae[0].to(seeds.device).edit(images, emotions, seeds), emotions, seeds)

    def _drawn(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        faces: Tensor = self.cvae[0].to(seeds.device).sample(emotions, seeds)
        return faces

    def _kept(self, faces: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        space, noise = self.space(seeds.device), Noise(seeds)
        start, noises = self.projected(space, faces, noise)
        return self.found(space, start, emotions, noises, noise)
