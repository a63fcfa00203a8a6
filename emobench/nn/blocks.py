"""Blocks that several models are built of."""

from __future__ import annotations

from torch import nn


def groups_for(channels: int) -> int:
    """Groups of a group norm: eight where they divide the channels."""
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


def encoder(size: int, width: int, halvings: int) -> tuple[nn.Sequential, int]:
    """Faces (N, 3, size, size) to features (N, D), and D: convolutions that halve the side and double the channels.

    Args:
        width: channels of the first convolution; later ones have at most eight times as many.
        halvings: how many convolutions.
    """
    layers: list[nn.Module] = []
    before = 3
    for level in range(halvings):
        channels = width * min(2**level, 8)
        layers += [nn.Conv2d(before, channels, 4, 2, 1), nn.GroupNorm(groups_for(channels), channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten()), before * (size >> halvings) ** 2
