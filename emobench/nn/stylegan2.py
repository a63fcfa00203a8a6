"""The networks of StyleGAN2 (Karras et al. 2020a), their parameters named as in the published StyleGAN2-ADA (2020b).

Weights are drawn from N(0, 1) and scaled where they are used (equalised learning rate, Karras et al. 2018, section
4.1). Convolutions below the four highest resolutions, images and styles stay in float32 under mixed precision, as in
appendix D of the second paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import log2, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.nn.noise import Noise
from emobench.nn.resample import downsampled, firdn, upsampled

HALF_RESOLUTIONS = 4  # the highest ones, that mixed precision is for
LR_MULTIPLIER, CLAMP, GROUP = 0.01, 256.0, 4  # of mapping layers; of activations; of the discriminator's batch
_SLOPE, _GAIN = 0.2, sqrt(2)  # of the leaky ReLU, which keeps the second moment
_FILTER = (1.0, 3.0, 3.0, 1.0)  # of every change of resolution (section 4.2 of the first paper)


def resolutions(size: int) -> list[int]:
    """4, 8, … size px."""
    return [2**level for level in range(2, int(log2(size)) + 1)]


def channels_of(size: int, base: int, most: int) -> dict[int, int]:
    """Channels at every resolution: `base` over the resolution, at most `most`."""
    return {side: max(1, min(base // side, most)) for side in resolutions(size)}


def _taps() -> Tensor:
    taps = torch.tensor(_FILTER)
    return taps / taps.sum()


def _unit(x: Tensor) -> Tensor:
    """Rows (N, D) of second moment 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def _leaky(x: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    x = F.leaky_relu(x, _SLOPE) * (_GAIN * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def _precision(x: Tensor, mixed: bool) -> Any:
    """Whatever the trainer's precision is where `mixed`, else float32."""
    return nullcontext() if mixed else torch.autocast(x.device.type, enabled=False)


class _Dense(nn.Module):
    """(N, before) to (N, after), weights scaled at run time."""

    def __init__(self, before: int, after: int, *, slow: float = 1.0, bias: float = 0.0, leaky: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / slow)
        self.bias = nn.Parameter(torch.full((after,), bias))
        self.scale, self.slow, self.leaky = slow / sqrt(before), slow, leaky

    def forward(self, x: Tensor) -> Tensor:
        with _precision(x, False):
            x = F.linear(x.float(), self.weight * self.scale, self.bias * self.slow)
            return _leaky(x, None) if self.leaky else x


class MappingNetwork(nn.Module):
    """z (N, Z) and classes (N, C) to w (N, W): dense layers that learn a hundredth as fast (2019, appendix C).

    Args:
        z_dim: Z; 0: there is no z (the discriminator's, which maps classes only).
        c_dim: C; 0: unconditional.
        w_dim: W.
        layers: dense layers.
        lr_multiplier: of their learning rate; weights are scaled by it where they are used.
    """

    DECAY = 0.995  # of the mean of w that truncation moves towards

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        layers: int,
        *,
        averages: bool = True,
        lr_multiplier: float = LR_MULTIPLIER,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.layers, self.averages = z_dim, c_dim, layers, averages
        if c_dim:
            self.embed = _Dense(c_dim, w_dim)
        before = z_dim + (w_dim if c_dim else 0)
        for place in range(layers):
            layer = _Dense(before if place == 0 else w_dim, w_dim, slow=lr_multiplier, leaky=True)
            setattr(self, f"fc{place}", layer)
        if averages:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, classes: Tensor | None) -> Tensor:
        parts = [] if z is None else [_unit(z.float())]
        if self.c_dim:
            assert classes is not None
            parts.append(_unit(self.embed(classes.float())))
        x = torch.cat(parts, 1)
        for place in range(self.layers):
            x = getattr(self, f"fc{place}")(x)
        if self.averages and self.training:
            self.w_avg.copy_(x.detach().mean(0).lerp(self.w_avg, self.DECAY))
        return x


class _Modulated(nn.Module):
    """Convolution whose input channels are scaled by a style, and its outputs normalised (2020a, eq. 1–3).

    Scaling activations before and after one convolution is the same as a convolution of its own for each face, and
    quicker.
    """

    taps: Tensor

    def __init__(self, before: int, after: int, w_dim: int, kernel: int, *, up: bool, demodulate: bool) -> None:
        super().__init__()
        self.affine = _Dense(w_dim, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after))
        self.up, self.demodulate = up, demodulate
        self.register_buffer("taps", _taps(), persistent=False)

    def convolved(self, x: Tensor, w: Tensor) -> Tensor:
        """Features (N, before, s, s) and w (N, W) to (N, after, s, s), twice the side where it upsamples."""
        style, weight = self.affine(w), self.weight  # (N, before), (after, before, k, k)
        if self.demodulate:
            style = style / style.abs().amax(1, keepdim=True).clamp_min(1e-8)  # cancels out; keeps half floats finite
            norm = (style.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()  # (N, after)
        else:
            style = style / sqrt(weight[0].numel())
            norm = None
        x = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (N, after, 2s + 1, 2s + 1)
            x = firdn(x, self.taps, padding=(1, 1), gain=4)
        else:
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return x if norm is None else x * norm[:, :, None, None].to(x.dtype)


class _Layer(_Modulated):
    """A modulated 3×3 convolution, noise, bias and leaky ReLU."""

    noise_const: Tensor

    def __init__(self, before: int, after: int, w_dim: int, side: int, *, up: bool, clamp: float | None) -> None:
        super().__init__(before, after, w_dim, 3, up=up, demodulate=True)
        self.clamp = clamp
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(side, side))  # of published files; ours is each face's own

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """As `convolved`; noise (N, 1, s, s), None: drawn here."""
        x = self.convolved(x, w)
        if noise is None:
            noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device)
        x = x + (noise * self.noise_strength).to(x.dtype) + self.bias[:, None, None].to(x.dtype)
        return _leaky(x, self.clamp)


class _ToRGB(_Modulated):
    """A modulated 1×1 convolution to the image's channels, which is not demodulated."""

    def __init__(self, before: int, colours: int, w_dim: int, clamp: float | None) -> None:
        super().__init__(before, colours, w_dim, 1, up=False, demodulate=False)
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.convolved(x, w) + self.bias[:, None, None].to(x.dtype)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class _SynthesisBlock(nn.Module):
    """One resolution: two layers (one at 4 px, from a constant) and what they add to the image."""

    taps: Tensor

    def __init__(
        self, before: int, channels: int, w_dim: int, side: int, colours: int, *, mixed: bool, clamp: float | None
    ) -> None:
        super().__init__()
        self.mixed = mixed
        if before == 0:
            self.const = nn.Parameter(torch.randn(channels, side, side))
        else:
            self.conv0 = _Layer(before, channels, w_dim, side, up=True, clamp=clamp)
        self.conv1 = _Layer(channels, channels, w_dim, side, up=False, clamp=clamp)
        self.torgb = _ToRGB(channels, colours, w_dim, clamp)
        self.layers = 1 if before == 0 else 2
        self.register_buffer("taps", _taps(), persistent=False)

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noises: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Features and image so far, w of each layer (N, layers + 1, W); noises are taken from the list's front."""
        with _precision(ws, self.mixed):
            if x is None:
                x = self.const.expand(len(ws), -1, -1, -1)
            else:
                x = self.conv0(x if self.mixed else x.float(), ws[:, 0], noises.pop(0) if noises else None)
            x = self.conv1(x, ws[:, -2], noises.pop(0) if noises else None)
            added = self.torgb(x, ws[:, -1]).float()
        return x, added if image is None else upsampled(image, self.taps) + added


class SynthesisNetwork(nn.Module):
    """w of each layer (N, L, W) to images (N, colours, size, size), the 'skip' architecture (2020a, figure 7)."""

    def __init__(self, w_dim: int, channels: Mapping[int, int], colours: int, clamp: float | None) -> None:
        super().__init__()
        self.sides = sorted(channels)
        for place, side in enumerate(self.sides):
            before = channels[side // 2] if place else 0
            mixed = place >= len(self.sides) - HALF_RESOLUTIONS
            block = _SynthesisBlock(before, channels[side], w_dim, side, colours, mixed=mixed, clamp=clamp)
            setattr(self, f"b{side}", block)
        self.ws = 2 * len(self.sides)  # L; a block's last w is the next block's first

    def forward(self, ws: Tensor, noises: Sequence[Tensor] | None = None) -> Tensor:
        """noises: of each layer, (N, 1, s, s); None: drawn here."""
        left = None if noises is None else list(noises)
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0
        for side in self.sides:
            block = getattr(self, f"b{side}")
            x, image = block(x, image, ws[:, first : first + block.layers + 1], left)
            first += block.layers
        assert image is not None
        return image

    def noises(self, noise: Noise) -> list[Tensor]:
        """Of every layer, each face's own: (N, 1, s, s)."""
        return [noise.normal(1, side, side) for side in self.sides for _ in range(getattr(self, f"b{side}").layers)]


class Generator(nn.Module):
    """z (N, Z) and classes (N, C) to images (N, colours, size, size).

    Args:
        channels: of the features at each resolution, 4 px to the image's.
        clamp: of activations, for half precision; None: none.
        lr_multiplier: of the mapping's layers.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        mapping_layers: int,
        channels: Mapping[int, int],
        colours: int = 3,
        clamp: float | None = CLAMP,
        lr_multiplier: float = LR_MULTIPLIER,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.size, self.colours = max(channels), colours
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, mapping_layers, lr_multiplier=lr_multiplier)
        self.synthesis = SynthesisNetwork(w_dim, channels, colours, clamp)

    def forward(self, z: Tensor, classes: Tensor | None, *, mixing: float = 0.0) -> Tensor:
        """Images in about [-1, 1]; with probability `mixing` a batch has the styles of two z (2019, 3.1)."""
        ws = self.spread(self.mapping(z, classes))
        if mixing:
            other = self.spread(self.mapping(torch.randn_like(z), classes))
            last = self.synthesis.ws
            cut = torch.randint(1, last, (), device=z.device)
            cut = torch.where(torch.rand((), device=z.device) < mixing, cut, last)
            ws = torch.where((torch.arange(last, device=z.device) < cut)[None, :, None], ws, other)
        image: Tensor = self.synthesis(ws)
        return image

    def spread(self, w: Tensor) -> Tensor:
        """w (N, W) for every layer alike: (N, L, W)."""
        return w[:, None].expand(-1, self.synthesis.ws, -1)


class _Convolution(nn.Module):
    """A plain convolution with weights scaled at run time; `down` halves the side."""

    taps: Tensor

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        *,
        down: bool = False,
        linear: bool = False,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.bias = None if linear else nn.Parameter(torch.zeros(after))
        self.scale, self.down, self.gain, self.clamp = 1 / sqrt(before * kernel**2), down, gain, clamp
        self.register_buffer("taps", _taps(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        weight = self.weight * self.scale
        if self.down and kernel == 1:
            x = F.conv2d(downsampled(x, self.taps), weight)
        elif self.down:  # blurred, then every second position: (N, before, s + 1, s + 1) -> (N, after, s/2, s/2)
            x = F.conv2d(firdn(x, self.taps, padding=(2, 2)), weight, stride=2)
        else:
            x = F.conv2d(x, weight, padding=kernel // 2)
        if self.bias is None:
            return x * self.gain
        return _leaky(x + self.bias[:, None, None].to(x.dtype), self.clamp, self.gain)


class _DiscriminatorBlock(nn.Module):
    """One resolution of the residual discriminator (2020a, figure 7c); the first reads the image."""

    def __init__(
        self, channels: int, after: int, colours: int, *, first: bool, mixed: bool, clamp: float | None
    ) -> None:
        super().__init__()
        self.mixed = mixed
        if first:
            self.fromrgb = _Convolution(colours, channels, 1, clamp=clamp)
        self.conv0 = _Convolution(channels, channels, 3, clamp=clamp)
        self.conv1 = _Convolution(channels, after, 3, down=True, gain=sqrt(0.5), clamp=clamp)
        self.skip = _Convolution(channels, after, 1, down=True, linear=True, gain=sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        with _precision(x, self.mixed):
            x = x if self.mixed else x.float()
            if hasattr(self, "fromrgb"):
                x = self.fromrgb(x)
            changed: Tensor = self.skip(x) + self.conv1(self.conv0(x))
            return changed


class _Epilogue(nn.Module):
    """4 px features with their spread over a group of the batch, to a score or to what classes are compared with."""

    def __init__(self, channels: int, after: int, clamp: float | None, group: int | None) -> None:
        super().__init__()
        self.group = group
        self.conv = _Convolution(channels + 1, channels, 3, clamp=clamp)
        self.fc = _Dense(channels * 16, channels, leaky=True)
        self.out = _Dense(channels, after)

    def forward(self, x: Tensor) -> Tensor:
        with _precision(x, False):
            x = x.float()
            most = len(x) if self.group is None else min(self.group, len(x))
            group = next(size for size in range(most, 0, -1) if len(x) % size == 0)
            parted = x.unflatten(0, (group, -1))  # (G, N/G, C, 4, 4)
            spread = (parted.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (N/G,)
            spread = spread.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
            answer: Tensor = self.out(self.fc(self.conv(torch.cat([x, spread], 1)).flatten(1)))
            return answer


class Discriminator(nn.Module):
    """Images (N, colours, size, size) and classes (N, C) to scores (N,), high for real; projection of classes.

    Args:
        channels: as the generator's.
        c_dim: C; 0: unconditional.
        group: faces whose standard deviation is one more channel (Karras et al. 2018, section 3); None: the batch. Of a
            batch that it does not divide, the largest smaller group that does.
    """

    def __init__(
        self,
        *,
        c_dim: int,
        channels: Mapping[int, int],
        mapping_layers: int = 8,
        colours: int = 3,
        clamp: float | None = CLAMP,
        group: int | None = GROUP,
    ) -> None:
        super().__init__()
        sides = sorted(channels, reverse=True)
        self.sides = sides[:-1]
        for place, side in enumerate(self.sides):
            block = _DiscriminatorBlock(
                channels[side],
                channels[side // 2],
                colours,
                first=place == 0,
                mixed=place < HALF_RESOLUTIONS,
                clamp=clamp,
            )
            setattr(self, f"b{side}", block)
        wide = channels[4] if c_dim else 1
        self.b4 = _Epilogue(channels[4], wide, clamp, group)
        if c_dim:
            self.mapping = MappingNetwork(0, c_dim, wide, mapping_layers, averages=False)

    def forward(self, pixels: Tensor, classes: Tensor | None) -> Tensor:
        x = pixels
        for side in self.sides:
            x = getattr(self, f"b{side}")(x)
        answer: Tensor = self.b4(x)  # (N, 1) or (N, D)
        if hasattr(self, "mapping"):
            wanted = self.mapping(None, classes)  # (N, D)
            answer = (answer * wanted).sum(1, keepdim=True) / sqrt(wanted.shape[1])
        return answer[:, 0]
