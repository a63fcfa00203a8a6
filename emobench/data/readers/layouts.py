"""Which of a dataset's layouts lies in a folder: exactly one, or an error that says what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from emobench.data.readers.tree import archives
from emobench.errors import DatasetError, DatasetMissing

T = TypeVar("T")


def the_only(found: Mapping[str, T], chosen: str | None, folder: Path, title: str, expects: str) -> T:
    """The layout that was found, or the chosen one.

    Args:
        found: name -> layout, as `layout` chooses among them.
        chosen: the user's choice; None: there must be one only.
        title: of the dataset.
        expects: what may lie there.

    Raises:
        DatasetMissing: none was found.
        DatasetError: several were found, which are named, or not the chosen one.
    """
    if chosen is not None:
        if chosen not in found:
            raise DatasetError(f"{folder}: no layout '{chosen}'. Found: {', '.join(found) or 'none'}")
        return found[chosen]
    if len(found) > 1:
        remedy = "Keep one of them, or choose by `layout`"
        raise DatasetError(f"{folder}: several layouts match: {', '.join(found)}. {remedy}")
    if not found:
        packed = ", ".join(path.name for path in archives(folder))
        remedy = f"Unpack {packed} first" if packed else f"Expected there: {expects}"
        raise DatasetMissing(f"{folder}: no {title} there. {remedy}")
    return next(iter(found.values()))


def named_below(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Paths under the names by which `layout` chooses among them: relative to the folder, "." for itself."""
    return {path.relative_to(folder).as_posix(): path for path in paths}
