"""Faces in folders: a folder per emotion, perhaps below a folder per split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from emobench.data.readers.files import let_read
from emobench.data.readers.images import is_archive, is_picture
from emobench.emotions import ORDERS, canonical, is_emotion
from emobench.errors import DatasetError, shown, to_text

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
WRAPPERS = ("archive", "data", "dataset", "images")  # folders that downloads put on top
CLUTTER = frozenset(  # names, in lower case, that systems, servers and galleries leave among pictures
    {".ds_store", ".thumbnails", ".trashes", ".nomedia", ".picasa.ini", "__macosx", "thumbs.db", "ehthumbs.db"}
    | {"desktop.ini", "picasa.ini", "$recycle.bin", "system volume information", "lost+found", "zbthumbnail.info"}
    | {"@eadir", "#recycle", "#snapshot", "@recycle", "@__thumb", ".@__thumb", "@tmp", ".spotlight-v100", ".fseventsd"}
)
_LISTED = 12  # kinds of files that a note names
_NOT_EMOTIONS = ("ahegao",)  # pornographic; comes with some copies of the Emotion Recognition Dataset


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, in order of the names, without what operating systems leave there.

    Raises:
        DatasetError: the folder may not be read; names it.
    """
    try:
        return sorted(path for path in folder.iterdir() if _is_visible(path.name))
    except PermissionError as error:
        raise DatasetError(f"{folder}: this folder may not be read (Permission denied). {let_read(folder)}") from error


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in CLUTTER


@dataclass
class LeftOut:
    """What lies among pictures and is none, counted.

    Attributes:
        clutter: of operating systems and servers, by name.
        others: by suffix.
    """

    clutter: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, name: str) -> None:
        """Count a file or folder of this name."""
        if name.lower() in CLUTTER or name.startswith("._"):  # ._x is how macOS keeps what a disk cannot hold of x
            self.clutter["._*" if name.startswith("._") else shown(name)] += 1
        elif name.startswith("."):
            self.others["hidden"] += 1
        else:
            self.others[shown(os.path.splitext(name)[1]) or "without a suffix"] += 1

    def invisible(self, folder: Path) -> None:
        """Count what `visible` leaves out of a folder."""
        for name in os.listdir(folder):
            if not _is_visible(name):
                self.add(name)

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        found = []
        if self.others:
            found.append(f"{self.others.total()} files that are no faces are left out: {_listed(self.others)}")
        if self.clutter:
            found.append(f"thumbnails, trash and the like are ignored: {_listed(self.clutter)}")
        return found


def _listed(counts: Counter[str]) -> str:
    """Counts in words, the most frequent ones where there are many."""
    most = counts.most_common(_LISTED)
    more = [f"{counts.total() - sum(n for _, n in most)} others"] if len(counts) > _LISTED else []
    return ", ".join([*(f"{n} {name}" for name, n in sorted(most)), *more])


def named(path: Path, folder: Path) -> str:
    """How an index names a file, by its path below the dataset's folder; see `Dataset.file` for the way back."""
    return to_text(path.relative_to(folder).as_posix())


def places(folder: Path, *wrappers: str) -> list[Path]:
    """The folder and those in which a download may have wrapped its content, two deep.

    Args:
        wrappers: further names, in lower case, of folders that this dataset's downloads put on top.
    """
    found, level = [folder], [folder]
    for _ in range(2):
        level = [
            path
            for above in level
            for path in visible(above)
            if path.is_dir() and path.name.lower() in (*WRAPPERS, *wrappers, folder.name.lower())
        ]
        found += level
    return found


def archives(folder: Path) -> list[Path]:
    """The archives that lie in a folder."""
    return [path for path in visible(folder) if is_archive(path)]


def holds_faces(place: Path) -> bool:
    """Whether a folder has emotion or number folders in it, directly or below split folders."""
    folders = [path for path in visible(place) if path.is_dir()]
    below = [inner for path in folders if path.name.lower() in SPLIT_NAMES for inner in visible(path) if inner.is_dir()]
    return any(is_emotion(path.name) or path.name.isdigit() for path in folders) or bool(below)


def order_named(order: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The emotions behind the ids 0, 1, … : an order's name in `emotions.ORDERS`, or the emotions themselves.

    Raises:
        DatasetError: no order of this name, or a name that is no emotion.
    """
    if order is None:
        return None
    if not isinstance(order, str):
        return tuple(canonical(name) for name in order)
    if order not in ORDERS:
        raise DatasetError(f"order '{order}': {_known_orders()}")
    return ORDERS[order]


def _known_orders() -> str:
    lines = (f"  {name}: " + ", ".join(f"{k} {e}" for k, e in enumerate(emotions)) for name, emotions in ORDERS.items())
    return "known orders are\n" + "\n".join(lines)


@dataclass
class Tree:
    """The faces below a folder.

    Attributes:
        place: the folder.
        files: (path below it, canonical emotion, split or None) of every picture, in order of the paths; strings,
            since a million `Path`s are half a gigabyte.
        notes: what was left out.
    """

    place: Path
    files: list[tuple[str, str, str | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self, folder: Path) -> pd.DataFrame:
        """An index: `id` and `source` are the path below `folder`, nothing is known of subjects."""
        top = "" if self.place == folder else f"{self.place.relative_to(folder).as_posix()}/"
        names = [to_text(top + name) for name, _, _ in self.files]
        labels, splits = [label for _, label, _ in self.files], [split for _, _, split in self.files]
        return pd.DataFrame({"id": names, "source": names, "label": labels, "subject": None, "split": splits})


def scan(place: Path, order: tuple[str, ...] | None) -> Tree:
    """All faces below a folder.

    Args:
        place: holds emotion folders, or split folders with emotion folders in each.
        order: what numeric folder names mean; None: they are refused.

    Raises:
        DatasetError: a folder is neither, a split has two folders, or an emotion has no picture at all.
    """
    tree, left_out = Tree(place), LeftOut()
    folders = [path for path in visible(place) if path.is_dir()]
    splits = {path: SPLIT_NAMES[path.name.lower()] for path in folders if path.name.lower() in SPLIT_NAMES}
    others = [path.name for path in folders if path not in splits and path.name.lower() not in WRAPPERS]
    if splits and others:
        raise DatasetError(f"{place}: beside the split folders lies {', '.join(others)}. Keep the splits only")
    if len(set(splits.values())) < len(splits):
        raise DatasetError(f"{place}: two folders for one split: {', '.join(p.name for p in splits)}. Keep one of them")
    if splits:
        left_out.invisible(place)
    present: set[str] = set()
    for top, split in splits.items() or [(place, None)]:
        left_out.invisible(top)
        for path in visible(top):
            if not path.is_dir():
                left_out.add(path.name)
        for folder, label in _emotion_folders(top, order, tree.notes):
            present.add(label)
            below = folder.relative_to(place).as_posix()
            for name in _pictures(folder, left_out):
                tree.files.append((f"{below}/{name}", label, split))
    if empty := present - {label for _, label, _ in tree.files}:
        raise DatasetError(f"{place}: no picture of {', '.join(sorted(empty))}. Fill the folder, or remove it")
    tree.notes += left_out.notes()
    return tree


def _pictures(folder: Path, left_out: LeftOut) -> list[str]:
    """The names of the pictures in a folder, in order; other files are counted."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_visible(entry.name):
                    left_out.add(entry.name)
                elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # a link may be a loop
                    raise DatasetError(f"{entry.path}: a folder among pictures. Move its pictures up, or remove it")
                elif is_picture(entry.path):
                    names.append(entry.name)
                else:
                    left_out.add(entry.name)
    except PermissionError as error:
        raise DatasetError(f"{folder}: this folder may not be read (Permission denied). {let_read(folder)}") from error
    return sorted(names)


def _emotion_folders(top: Path, order: tuple[str, ...] | None, notes: list[str]) -> list[tuple[Path, str]]:
    found, unknown = [], []
    for path in (path for path in visible(top) if path.is_dir()):
        if path.name.lower() in _NOT_EMOTIONS:
            notes.append(f"{path.name} is no emotion: its {len(visible(path))} files are left out")
        elif path.name.isdigit():
            found.append((path, _by_number(path, order)))
        elif is_emotion(path.name):
            found.append((path, canonical(path.name)))
        else:
            unknown.append(path.name)
    if unknown:
        raise DatasetError(f"{top}: no emotions: {', '.join(unknown)}. Rename these folders, or remove them")
    if not found:
        packed = ", ".join(path.name for path in archives(top))
        remedy = f"Unpack {packed} first" if packed else "A folder per emotion is expected there"
        raise DatasetError(f"{top}: no folder of an emotion. {remedy}")
    return found


def _by_number(path: Path, order: tuple[str, ...] | None) -> str:
    if order is None:
        raise DatasetError(f"{path}: a number says no emotion. Set `order`; {_known_orders()}")
    if int(path.name) >= len(order):
        raise DatasetError(f"{path}: the order {', '.join(order)} has no {path.name}. Set another `order`")
    return order[int(path.name)]
