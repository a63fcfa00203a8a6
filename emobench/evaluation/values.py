"""A number as evaluations hand it on: its value and the faces behind it, or why there is none."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class Value:
    """A number of a whole sample.

    Attributes:
        value: None: not available, `reason` says why.
        n: faces that it was measured on.
    """

    value: float | None
    n: int
    reason: str | None = None
