"""Pictures whose names say what they show: the person, the emotion, the angle."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from emobench.data.readers.images import SUFFIXES, is_picture
from emobench.data.readers.tree import LeftOut, visible
from emobench.errors import shown

_LISTED = 5  # names that a note lists


def stem_of(path: Path) -> str:
    """A picture's name without its suffix, which may be any that pictures have, or missing."""
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def holding(found: Collection[Path], pattern: re.Pattern[str]) -> list[Path]:
    """Those of some folders in which such pictures lie: directly, or one deeper, in folders that are none of these."""
    return [
        place
        for place in found
        if _has_one(place, pattern)
        or any(_has_one(path, pattern) for path in visible(place) if path.is_dir() and path not in found)
    ]


def named_pictures(
    place: Path, pattern: re.Pattern[str], example: str
) -> tuple[list[tuple[Path, re.Match[str]]], list[str]]:
    """The pictures in a folder, and in the folders in it, with what their names say; and notes of what is left out.

    Args:
        pattern: of a whole name without its suffix.
        example: of such a name, for the note.
    """
    found, others, left_out = [], [], LeftOut()
    for folder in (place, *(path for path in visible(place) if path.is_dir())):
        left_out.invisible(folder)
        for path in visible(folder):
            if path.is_dir():
                continue
            match = pattern.fullmatch(stem_of(path))
            if not is_picture(path):
                left_out.add(path.name)
            elif match is None:
                others.append(path.name)
            else:
                found.append((path, match))
    notes = left_out.notes()
    if others:
        some = ", ".join(shown(name) for name in others[:_LISTED]) + (" …" if len(others) > _LISTED else "")
        notes.append(f"pictures whose names are not such as {example} are left out: {len(others):,} ({some})")
    return found, notes


def _has_one(folder: Path, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(stem_of(path)) and is_picture(path) for path in visible(folder))
