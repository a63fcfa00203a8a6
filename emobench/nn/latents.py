"""Walks in the latent space of a StyleGAN2 generator: towards a face, and towards an emotion that guides read.

Shapes: N faces, L layers of the synthesis, W dimensions of w. A w is (N, W), the same for all layers, or (N, L, W), one
for each ('w+', Abdal et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from emobench.nn.noise import Noise
from emobench.nn.perceptual import normalised
from emobench.nn.stylegan2 import Generator

_DRAWN = 4096  # z from which mean and spread of w are known
_LEAK = 0.2  # of the mapping's last leaky ReLU
_THINNEST = 1e-2  # least deviation along an axis, of the greatest
_SCALES = 3  # halvings at which a face and its projection are compared
_SHIFT, _TURN, _ZOOM, _LIGHT = 0.05, 0.1, 0.1, 0.1  # deviations of a view: sides, radians, octaves, brightness

See = Callable[[Tensor], list[Tensor]]


class Space:
    """Where the w of a generator lie, and the faces that they are.

    They are what the last leaky ReLU makes of a cloud that is far from round. Distances and walks are in that cloud and
    in its own deviations, the P_N space of Zhu et al. 2020 (arXiv:2012.09036), so that a step leads to another face
    and not away from all faces.

    Args:
        generator: in evaluation mode, frozen.
        emotions: K; of an unconditional generator they say nothing.

    Attributes:
        mean: (W,) the w of the cloud's centre, over z and emotions.
        axes: (W, W), the symmetric root of the cloud's covariance: normal numbers @ axes are spread as it is.
    """

    def __init__(self, generator: Generator, emotions: int) -> None:
        self.generator = generator
        noise = Noise(torch.arange(_DRAWN, device=generator.mapping.w_avg.device))
        labels = torch.eye(emotions, device=noise.device)[torch.arange(_DRAWN, device=noise.device) % emotions]
        cloud = _straight(self.random(noise, labels))
        self.mean = _bent(cloud.mean(0))
        variances, directions = torch.linalg.eigh(torch.cov(cloud.double().T))
        deviations = variances.clamp_min(0).sqrt()
        deviations = deviations.clamp_min(_THINNEST * deviations[-1])
        self.axes = (directions * deviations @ directions.T).float()
        self._inverse = (directions / deviations @ directions.T).float()

    @torch.no_grad()
    def random(self, noise: Noise, emotions: Tensor) -> Tensor:
        """w (N, W) of the noise's next z and of emotions (N, K)."""
        z = noise.normal(self.generator.z_dim)
        w: Tensor = self.generator.mapping(z, emotions if self.generator.c_dim else None)
        return w

    def pixels(self, w: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """Faces (N, 3, S, S), about in [-1, 1]."""
        made: Tensor = self.generator.synthesis(self.generator.spread(w) if w.ndim == 2 else w, noises)
        return made

    def apart(self, w: Tensor, other: Tensor) -> Tensor:
        """(N,) squared distances in deviations, a mean over dimensions and layers: 1 of a random w from the mean."""
        found: Tensor = ((_straight(w) - _straight(other)) @ self._inverse).square().mean(-1)  # (N,) or (N, L)
        return found if found.ndim == 1 else found.mean(1)

    def walk(
        self,
        start: Tensor,
        noises: Sequence[Tensor],
        loss: Callable[[Tensor, Tensor, int], Tensor],
        *,
        steps: int,
        lr: float,
    ) -> Tensor:
        """Adam from a w, its rate falling along half a cosine; every face goes its own way.

        Args:
            noises: of each layer.
            loss: of pixels, w and the number of the step, (N,).
            lr: in w's deviations.
        """
        start = _straight(start.detach())
        way = torch.zeros_like(start, requires_grad=True)
        optimizer = torch.optim.Adam([way], lr)
        with torch.enable_grad():
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
                w = _bent(start + way @ self.axes)
                (way.grad,) = torch.autograd.grad(loss(self.pixels(w, noises), w, step).sum(), way)
                optimizer.step()
        found: Tensor = _bent(start + way.detach() @ self.axes)
        return found


def _bent(x: Tensor) -> Tensor:
    """The w of a point in the cloud."""
    return F.leaky_relu(x, _LEAK)


def _straight(w: Tensor) -> Tensor:
    """The point in the cloud of a w."""
    return F.leaky_relu(w, 1 / _LEAK)


def difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """(N,) mean squared distance of activations, a mean over layers, each face by the size of its second ones."""
    terms = [
        (a - b).square().flatten(1).mean(1) / b.detach().square().flatten(1).mean(1).clamp_min(1e-8)
        for a, b in zip(one, other, strict=True)
    ]
    return torch.stack(terms).mean(0)


@dataclass(frozen=True, kw_only=True)
class Projection:
    """From faces to the w that make them (Karras et al. 2020a, section 5 and appendix D): from the mean, by descent.

    Attributes:
        steps, lr: of the walk.
        keep_mean: weight of the distance from the mean of w.
        perceptual_weight: of the distance in features, beside that of pixels at several scales.
        plus: whether each layer has a w of its own.
    """

    steps: int
    lr: float
    keep_mean: float
    perceptual_weight: float
    plus: bool

    def __call__(self, space: Space, pixels: Tensor, noises: Sequence[Tensor], see: See | None) -> Tensor:
        """w of faces (N, 3, S, S)."""
        seen = None if see is None else see(pixels)

        def loss(made: Tensor, w: Tensor, step: int) -> Tensor:
            total = space.apart(w, space.mean) * self.keep_mean
            for scale in range(_SCALES):
                a, b = (F.avg_pool2d(each, 2**scale) for each in (made, pixels))
                total = total + (a - b).square().flatten(1).mean(1)
            if see is not None and seen is not None:
                total = total + self.perceptual_weight * difference(see(made), seen)
            return total

        start = space.mean.expand(len(pixels), -1)
        return space.walk(laid_out(space, start, self.plus), noises, loss, steps=self.steps, lr=self.lr)


@dataclass(frozen=True, kw_only=True)
class Search:
    """From a w to one whose face the guides read as an emotion: −log p(e | G(w)) and what keeps it where faces are.

    Attributes:
        steps, lr: of the walk.
        keep_start, keep_mean: weights of the distances from the start and from the mean of w.
        perceptual_weight: of the distance in features from the face at the start.
        views: randomly shifted, turned and lit views of a face that the guides read at each step; 0: the face itself.
        noise: deviation of what is added to the pixels of a view, of 2.
    """

    steps: int
    lr: float
    keep_start: float
    keep_mean: float
    perceptual_weight: float
    views: int
    noise: float

    def __call__(
        self,
        space: Space,
        start: Tensor,
        emotions: Tensor,
        noises: Sequence[Tensor],
        noise: Noise,
        guides: Sequence[Any],
        see: See | None,
    ) -> Tensor:
        """w of faces that show emotions (N, K); rows of zeros stay at their start.

        Args:
            noises: of each layer of the synthesis.
            noise: that the views are drawn from.
            guides: emotion classifiers of the same K emotions; their mean log-probability counts.
            see: features in which the face is compared with that at the start.
        """
        with torch.no_grad():
            seen = None if see is None else see(space.pixels(start, noises))

        def loss(made: Tensor, w: Tensor, step: int) -> Tensor:
            looked_at = [made] if not self.views else [self._view(made, noise) for _ in range(self.views)]
            read = [log_shares(guide, each) for guide in guides for each in looked_at]
            total = -(torch.stack(read).mean(0) * emotions).sum(1)
            total = total + self.keep_start * space.apart(w, start) + self.keep_mean * space.apart(w, space.mean)
            if see is not None and seen is not None:
                total = total + self.perceptual_weight * difference(see(made), seen)
            return total * (emotions.sum(1) > 0)

        return space.walk(start, noises, loss, steps=self.steps, lr=self.lr)

    def _view(self, pixels: Tensor, noise: Noise) -> Tensor:
        """Each face as another photograph of it might show it."""
        x, y, turn, zoom, light, side = noise.normal(6).T  # (N,) each
        angle, size = _TURN * turn, torch.exp2(_ZOOM * zoom)
        mirror = torch.where(side < 0, -1.0, 1.0)
        rows = [
            torch.stack([mirror * size * angle.cos(), -size * angle.sin(), 2 * _SHIFT * x], 1),
            torch.stack([mirror * size * angle.sin(), size * angle.cos(), 2 * _SHIFT * y], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
        seen: Tensor = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
        seen = seen + _LIGHT * light[:, None, None, None]
        return seen + self.noise * noise.normal(*pixels.shape[1:]) if self.noise else seen


def laid_out(space: Space, w: Tensor, plus: bool) -> Tensor:
    """w (N, W) as it is, or for every layer."""
    return space.generator.spread(w) if plus else w


def log_shares(guide: Any, pixels: Tensor) -> Tensor:
    """Log-probabilities (N, K) that a classifier of emobench gives faces in [-1, 1], differentiable."""
    images = (pixels.clamp(-1, 1) + 1) * 127.5
    logits: Tensor = guide.to(pixels.device).logits(normalised(guide, images))
    shares: Tensor = F.log_softmax(logits.float(), 1)
    return shares
