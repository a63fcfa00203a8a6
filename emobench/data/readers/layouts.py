"""Which of a dataset's layouts lies in a folder: exactly one, or an error that says what was found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from emobench.data.readers.tree import archives
from emobench.errors import DatasetError, DatasetMissing


def the_only(layouts: Iterable[Path], chosen: str | None, folder: Path, title: str, expects: str) -> Path:
    """The one layout that was found, or the chosen one.

    Args:
        layouts: the files and folders below `folder` that are a layout of the dataset, or the folder itself.
        chosen: the user's choice, a path relative to the folder, "." for itself; None: there must be one only.
        folder: where they were looked for.
        title: of what was looked for, for errors.
        expects: what may lie there, for errors.

    Raises:
        DatasetMissing: none was found.
        DatasetError: several were found, which are named, or not the chosen one.
    """
    found = {path.relative_to(folder).as_posix(): path for path in layouts}
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
