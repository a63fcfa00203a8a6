"""Asks a model for faces, a batch at a time, at the evaluation size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from emobench.data.readers.images import resized
from emobench.errors import NotFinite
from emobench.evaluation import given
from emobench.evaluation.protocol import CHOICE_SEED, DRAW_BATCH, LARGEST_DRAW
from emobench.evaluation.reference import RealFaces
from emobench.nn.batches import batches


class Sampler:
    """Samples, edits and stylizes with one model; remembers how fast that was.

    Args:
        model: a generator, an editor, a stylizer, or several of these.
        emotions: of the dataset, in its order; the model may know more of them.
        size: evaluation size, px.
        real: whose validation faces an editor is given where it must generate.
        grows: batches may be as large as the GPU's memory allows: by a grey level at most, a face may be another one.

    Attributes:
        speed: faces per second by what they were asked for.
        batch: faces of the largest batch so far.
    """

    def __init__(
        self,
        model: Any,
        emotions: Sequence[str],
        size: int,
        real: RealFaces,
        device: torch.device,
        *,
        grows: bool = False,
    ) -> None:
        self.model, self.size, self.real, self.device = model, size, real, device
        self.emotions = tuple(emotions)
        self.given: dict[str, tuple[int, int]] = {}  # of pictures: set -> how many there are, and are asked for
        self.known_as = np.array([[own == emotion for own in model.emotions] for emotion in emotions], np.float32)
        self.grows = grows
        self.speed: dict[str, float] = {}
        self.batch = DRAW_BATCH

    def sample(self, emotions: np.ndarray, seeds: np.ndarray, what: str) -> np.ndarray:
        """uint8 (N, 3, size, size) of emotions (N, K); an editor edits validation faces that the seeds pick.

        Args:
            what: the set of faces; pictures that are given are taken for it.
        """
        if given.is_given(self.model):
            paths = given.chosen(self.model, self.emotions, emotions.argmax(1), what)
            return given.read(paths, self.size)
        if hasattr(self.model, "sample"):
            return self._in_batches(lambda e, s, _: self.model.sample(e, s), emotions, seeds, None, what)
        return self.edit(self.real.faces(self.picked(seeds)), emotions, seeds, what)

    def answered(self, asked: np.ndarray, what: str) -> np.ndarray:
        """(N,) which of the emotions (N,) asked for in a set of faces it can make: all, but where pictures lack."""
        there = given.answered(self.model, self.emotions, asked, what)
        if given.is_given(self.model):
            self.given[what] = int(there.sum()), len(there)
        return there

    def picked(self, seeds: np.ndarray) -> np.ndarray:
        """(N,) rows of the validation faces that seeds (N,) stand for, where an editor must generate."""
        val = self.real.val
        return np.asarray(val[np.random.default_rng(CHOICE_SEED).permutation(len(val))[seeds % len(val)]])

    def begin(self, emotions: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """The faces uint8 (N, 3, size, size) from which a search for emotions (N, K) starts."""
        return self._in_batches(lambda e, s, _: self.model.begin(e, s), emotions, seeds, None, "start")

    def edit(self, images: np.ndarray, emotions: np.ndarray, seeds: np.ndarray, what: str) -> np.ndarray:
        """uint8 (N, 3, size, size) of faces (N, C, size, size) towards emotions (N, K)."""
        return self._in_batches(lambda e, s, faces: self.model.edit(faces, e, s), emotions, seeds, images, what)

    def stylize(self, images: np.ndarray, emotions: np.ndarray | None, what: str) -> np.ndarray:
        """uint8 (N, 3, S, S) of faces (N, C, S, S), as they are; emotions (N, K), None: the model's own label."""
        none = np.zeros((len(images), len(self.known_as)))

        def draw(e: torch.Tensor, _: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.model.stylize(faces, None if emotions is None else e)
            return made

        asked = none if emotions is None else emotions
        return self._in_batches(draw, asked, np.arange(len(images)), images, what, images.shape[-1])

    def _in_batches(
        self, draw: Any, emotions: np.ndarray, seeds: np.ndarray, images: Any, what: str, size: int | None = None
    ) -> np.ndarray:
        made, spent = [], 0.0
        for rows in batches(len(seeds), DRAW_BATCH, LARGEST_DRAW, self.device, grows=self.grows):
            asked = torch.from_numpy(emotions[rows].astype(np.float32) @ self.known_as).to(self.device)
            noise = torch.from_numpy(seeds[rows]).to(self.device)
            faces = None
            if images is not None:  # perhaps a memory map, of which a batch is read at a time
                faces = torch.from_numpy(np.ascontiguousarray(images[rows])).to(self.device).expand(-1, 3, -1, -1)
            started = time.perf_counter()
            try:
                drawn = draw(asked, noise, faces).cpu().numpy()
            except NotFinite as error:
                index = None if error.index is None else rows.start + error.index
                place = "" if index is None else f" {index}"
                raise NotFinite(f"{what}: face{place} is not finite ({error})", index) from error
            spent += time.perf_counter() - started
            made.append(np.stack([resized(face, size or self.size) for face in drawn]))
            self.batch = max(self.batch, len(drawn))
        self.speed[what] = len(seeds) / spent
        return np.concatenate(made)
