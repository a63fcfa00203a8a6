"""Whether anything may be downloaded. Asked by commands before they import a library, which take seconds."""

from __future__ import annotations

import os

_OFFLINE = ("EMOBENCH_OFFLINE", "HF_HUB_OFFLINE")
_NO = ("", "0", "false", "off", "no", "n", "f")


def offline() -> bool:
    """Whether downloads are forbidden: EMOBENCH_OFFLINE or HF_HUB_OFFLINE says something else than no.

    `--offline` sets both.
    """
    return any(os.environ.get(name, "").strip().lower() not in _NO for name in _OFFLINE)


def stay_offline() -> None:
    """Forbid downloads here and in every process from now on, to other libraries too, which know fewer spellings."""
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
