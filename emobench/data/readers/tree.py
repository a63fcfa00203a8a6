"""Faces in folders: a folder per emotion, perhaps below a folder per split."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from emobench.data.readers.beside import names_beside
from emobench.data.readers.files import let_read
from emobench.data.readers.images import is_archive, is_picture
from emobench.data.readers.labels import Ids, Meaning, agreed, known_orders, questioned, unexplained
from emobench.emotions import ORDERS, canonical, is_emotion
from emobench.errors import DatasetError, shown, to_text

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "publictest": "val",  # FER-2013's own names
    "test": "test",
    "testing": "test",
    "privatetest": "test",
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
            n = self.others.total()
            which = "1 file that is no face is" if n == 1 else f"{n:,} files that are no faces are"
            found.append(f"{which} left out: {_listed(self.others)}")
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


def split_named(name: str) -> str | None:
    """The split that a name stands for, whatever its case, blanks, underscores and hyphens; None: none."""
    return SPLIT_NAMES.get(re.sub(r"[\s_\-]+", "", name).lower())


def holds_faces(place: Path, meaning: Meaning) -> bool:
    """Whether a folder has emotion or number folders in it, directly or below split folders."""
    folders = [path for path in visible(place) if path.is_dir()]
    below = [inner for path in folders if split_named(path.name) for inner in visible(path) if inner.is_dir()]
    return any(meaning.knows(path.name) or path.name.isdecimal() for path in folders) or bool(below)


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
        raise DatasetError(f"order '{order}': {known_orders()}")
    return ORDERS[order]


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


def scan(place: Path, order: tuple[str, ...] | None, meaning: Meaning, top: Path) -> Tree:
    """All faces below a folder; labels are emotions, or the user's own names for them.

    Args:
        place: holds emotion folders, or split folders with emotion folders in each.
        order: what numeric folder names mean; None: what the files beside the data say, else they are refused.
        meaning: of the user's own names; folders that it ignores are left out.
        top: the dataset's folder, where names of classes may lie.

    Raises:
        DatasetError: a folder is neither, a split has two folders, or an emotion has no picture at all.
    """
    tree, left_out = Tree(place), LeftOut()
    folders = [path for path in visible(place) if path.is_dir()]
    splits = {path: split for path in folders if (split := split_named(path.name)) and not meaning.explains(path.name)}
    beside = [path for path in folders if path not in splits and path.name.lower() not in WRAPPERS]
    if splits and (others := [path.name for path in beside if not meaning.ignores(path.name)]):
        raise DatasetError(f"{place}: beside the split folders lies {', '.join(others)}. Keep the splits only")
    if len(set(splits.values())) < len(splits):
        raise DatasetError(f"{place}: two folders for one split: {', '.join(p.name for p in splits)}. Keep one of them")
    for path in beside if splits else []:
        if meaning.ignores(path.name):
            meaning.leave_out(path.name, len(visible(path)))
    tops = splits or dict.fromkeys([place])
    ids = _ids([path for above in tops for path in visible(above) if path.is_dir()], order, meaning, place, top)
    if ids is not None:
        tree.notes += ids[1]
    if splits:
        left_out.invisible(place)
    present: set[str] = set()
    for above, split in tops.items():
        left_out.invisible(above)
        for path in visible(above):
            if not path.is_dir():
                left_out.add(path.name)
        for folder, label in _emotion_folders(above, None if ids is None else ids[0], meaning, tree.notes):
            present.add(label)
            below = folder.relative_to(place).as_posix()
            for name in _pictures(folder, left_out):
                tree.files.append((f"{below}/{name}", label, split))
    if empty := present - {label for _, label, _ in tree.files}:
        raise DatasetError(f"{place}: no picture of {', '.join(sorted(empty))}. Fill the folder, or remove it")
    tree.notes += left_out.notes()
    return tree


def _ids(
    folders: list[Path], order: tuple[str, ...] | None, meaning: Meaning, place: Path, top: Path
) -> tuple[Ids, list[str]] | None:
    """What the numbers that folders are named by mean, and what is said of it; None: no number needs a meaning."""
    numbers = [path for path in folders if path.name.isdecimal() and not meaning.explains(path.name)]
    if not numbers:
        return None
    beside = names_beside(place, top)
    ids = agreed([None if order is None else Ids.of_order(order), *beside], meaning, place)
    if ids is None:
        raise DatasetError(f"{numbers[0]}: a number says no emotion. Set `order`; {known_orders()}")
    notes = questioned(ids, {int(path.name) for path in numbers}, meaning, place)
    return ids, notes if ids.counted else [f"the numbers mean what {ids.says} says: {ids.listed()}", *notes]


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


def _emotion_folders(top: Path, ids: Ids | None, meaning: Meaning, notes: list[str]) -> list[tuple[Path, str]]:
    """(folder, label) of the folders of emotions; labels that the user explains as they stand."""
    found, unknown = [], []
    for path in (path for path in visible(top) if path.is_dir()):
        name = path.name
        if ids is not None and name.isdecimal() and not meaning.explains(name):
            name = ids.names[int(name)]
        if meaning.ignores(name):
            meaning.leave_out(name, len(visible(path)))
        elif meaning.explains(name):
            found.append((path, name))
        elif name.lower() in _NOT_EMOTIONS:
            notes.append(f"{name} is no emotion: its {len(visible(path))} files are left out")
        elif is_emotion(name):
            found.append((path, canonical(name)))
        else:
            unknown.append(name)
    if unknown:
        raise DatasetError(f"{top}: {unexplained(unknown, meaning)}")
    if not found:
        packed = ", ".join(path.name for path in archives(top))
        remedy = f"Unpack {packed} first" if packed else "A folder per emotion is expected there"
        raise DatasetError(f"{top}: no folder of an emotion. {remedy}")
    return found
