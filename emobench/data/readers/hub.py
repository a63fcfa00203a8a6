"""Hugging Face's datasets on disk: Parquet files as the hub has them, and folders that `datasets` has saved.

Nothing of `datasets` is needed, and nothing that lies there is run.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from emobench.data.readers.beside import class_labels, may_name_classes
from emobench.data.readers.columns import ColumnFile
from emobench.data.readers.files import read_small
from emobench.data.readers.images import SUFFIXES
from emobench.data.readers.tree import LeftOut, visible
from emobench.errors import DatasetError, RowError, first_line, shown

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_LARGEST = 2**20  # bytes of these
_DEPTH = 4  # folders below the dataset's own
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?")  # a name without its suffix
_WORDS = {  # in names of files and folders
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


@dataclass(frozen=True)
class Part:
    """A file of a dataset.

    Attributes:
        file: the file.
        split: train, val, test, or None where its name says none.
    """

    file: ColumnFile
    split: str | None


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        layouts: folder -> the Parquet files of a dataset, or None where `datasets` has saved one there.
        scripts: programs, which are never run.
        streams: folders with Arrow files that nothing describes.
        others: what else lies there, counted.
    """

    layouts: dict[Path, list[Path] | None] = field(default_factory=dict)
    scripts: list[Path] = field(default_factory=list)
    streams: list[Path] = field(default_factory=list)
    others: LeftOut = field(default_factory=LeftOut)


def look(folder: Path) -> Found:
    """The datasets below a folder.

    Raises:
        DatasetError: a folder may not be read.
    """
    found = Found()
    _look(folder, folder, found, {os.path.realpath(folder)})
    return found


def _look(place: Path, top: Path, found: Found, seen: set[str]) -> None:
    inside = visible(place)
    names = {path.name for path in inside}
    saved = [path for path in inside if path.suffix.lower() not in SUFFIXES and (path / _STATE).is_file()]
    if _STATE in names or _SPLITS in names or (saved and all(split_of(path.name) for path in saved)):
        found.layouts[place] = None
        return
    for path in inside:
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:  # a folder of pictures may hold a million
            found.others.add(path.name)
        elif path.is_dir():
            real = os.path.realpath(path)
            if len(path.relative_to(top).parts) <= _DEPTH and real not in seen:  # a link may lead back
                seen.add(real)
                _look(path, top, found, seen)
        elif suffix == ".parquet":
            files = found.layouts.setdefault(_root(place, top), [])
            if files is not None:
                files.append(path)
        elif suffix == ".py":
            found.scripts.append(path)
        elif suffix == ".arrow":
            found.streams.append(place)
        elif not may_name_classes(path.name):
            found.others.add(path.name)


def _root(place: Path, top: Path) -> Path:
    """The folder of a dataset whose Parquet files lie in `place`, perhaps in data/ and in a folder for each split."""
    while place != top and (place.name.lower() == "data" or split_of(place.name)):
        place = place.parent
    return place


def split_of(name: str) -> str | None:
    """The split that a name of a file or folder says, without its suffix; None: none.

    Raises:
        DatasetError: it says two.
    """
    words = re.split(r"[^a-z]+", name.lower())
    said = {_WORDS[word] for word in words if word in _WORDS}
    if len(said) > 1:
        raise DatasetError(f"{shown(name)}: the name says {' and '.join(sorted(said))}. Rename the file or folder")
    return next(iter(said), None)


def parts_of(layout: Path, files: list[Path] | None) -> list[Part]:
    """The files of a dataset with their splits, in order of their names.

    Args:
        files: see `Found.layouts`.

    Raises:
        DatasetError: some are missing, two versions of one lie there, or a split has a name that says none.
    """
    if files is None:
        return list(_saved(layout))
    _check_shards(files)
    return [Part(ColumnFile(path, stream=False), _split(path, layout)) for path in files]


def _split(path: Path, layout: Path) -> str | None:
    """The split that a file's name says, else that of the nearest folder whose name says one."""
    names = [path.stem, *(each.name for each in path.parents if each != layout and each.is_relative_to(layout))]
    return next((split for name in names if (split := split_of(name))), None)


def _check_shards(files: list[Path]) -> None:
    """Of `train-00000-of-00002.parquet` both must be there, once."""
    found: dict[Path, list[tuple[int, int, Path]]] = defaultdict(list)
    for path in files:
        if match := _SHARD.fullmatch(path.stem):
            found[path.parent / match[1]].append((int(match[2]), int(match[3]), path))
    for name, shards in found.items():
        numbers, totals = [number for number, _, _ in shards], {total for _, total, _ in shards}
        if len(totals) > 1 or len(set(numbers)) < len(numbers):
            listed = ", ".join(path.name for _, _, path in shards[:6])
            raise DatasetError(f"{name.parent}: two versions of {name.name}: {listed}. Keep the files of one")
        if missing := sorted({*range(max(totals))} - set(numbers)):
            first = f"{name.name}-{missing[0]:05}-of-{max(totals):05}{shards[0][2].suffix}"
            found_of = f"{len(numbers)} of {max(totals)} files of {name.name}, without {first}"
            raise DatasetError(f"{name.parent}: {found_of}. Fetch the others")


def _saved(layout: Path) -> Iterator[Part]:
    """The files of what `datasets.save_to_disk` wrote: a Dataset, or a DatasetDict with a folder a split."""
    if (layout / _STATE).is_file():
        yield from (Part(file, None) for file in _named_in(layout))
        return
    if (layout / _SPLITS).is_file():
        names = _read(layout / _SPLITS).get("splits")
    else:
        names = [path.name for path in visible(layout) if (path / _STATE).is_file()]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DatasetError(f"{layout / _SPLITS}: no list of splits in it. Save the dataset again")
    for name in names:
        if not _inside(name) or not (layout / name / _STATE).is_file():
            raise DatasetError(f"{layout}: no {shown(name)}/{_STATE}, which {_SPLITS} names. Save the dataset again")
        split = split_of(name)
        if split is None:
            remedy = f"Rename the folder, and its name in {_SPLITS}, to train, validation or test, or remove both"
            raise DatasetError(f"{layout / name}: the name says no split. {remedy}")
        yield from (Part(file, split) for file in _named_in(layout / name))


def _named_in(folder: Path) -> Iterator[ColumnFile]:
    """The files that make up a saved Dataset."""
    state = _read(folder / _STATE)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        remedy = "Save the dataset again after `flatten_indices()`"
        raise DatasetError(f"{folder / _STATE}: its rows are chosen by a further file of indices. {remedy}")
    files = state.get("_data_files")
    names = [each.get("filename") if isinstance(each, Mapping) else None for each in files or ()]
    if not names or not all(isinstance(name, str) and _inside(name) for name in names):
        raise DatasetError(f"{folder / _STATE}: no list of files in it (_data_files). Save the dataset again")
    for name in names:
        if not (folder / str(name)).is_file():
            raise DatasetError(f"{folder}: no {shown(name)}, which {_STATE} names. Copy the folder again")
        yield ColumnFile(folder / str(name), stream=True)


def _inside(name: str) -> bool:
    """Whether a name is that of something in the folder itself."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name and "\0" not in name


def _read(path: Path) -> dict[str, Any]:
    """A small file of JSON."""
    try:
        content = json.loads(read_small(path, _LARGEST))
    except (ValueError, RecursionError, FileNotFoundError) as error:
        raise RowError(path, None, None, f"cannot be read ({error})", "Save the dataset again.") from error
    return content if isinstance(content, dict) else {}


def descriptions(layout: Path, files: list[Path] | None) -> list[Path]:
    """The files that say which of a saved dataset's files count."""
    if files is not None:
        return []
    inside = [layout, *(path for path in visible(layout) if path.is_dir())]
    return [path for folder in inside for path in (folder / _STATE, folder / _SPLITS) if path.is_file()]


# ---- columns ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """What the columns of a file hold.

    Attributes:
        pictures: those of structs with the bytes of a picture; where there is none, of bytes.
        named: ClassLabels, and id -> name of each.
        numbers: of whole numbers, these aside.
        texts: of texts.
        plain: all of numbers, texts, and yes or no.
    """

    pictures: tuple[str, ...]
    named: Mapping[str, Mapping[int, str]]
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    plain: tuple[str, ...]

    @classmethod
    def of(cls, file: ColumnFile) -> Columns:
        """What stands in a file's schema.

        Raises:
            RowError: the file cannot be read.
        """
        schema = file.schema()
        features = _features(file.path, schema.metadata)
        kinds = {each.name: each.type for each in schema if not each.name.startswith("__")}
        structs = [name for name, kind in kinds.items() if pa.types.is_struct(kind) and "bytes" in kind.names]
        binary = [name for name, kind in kinds.items() if _is_binary(kind)]
        whole = [name for name, kind in kinds.items() if pa.types.is_integer(kind)]
        texts = [name for name, kind in kinds.items() if _is_text(kind)]
        named = {name: names for name, names in class_labels(features).items() if name in whole}
        others = [name for name, kind in kinds.items() if pa.types.is_floating(kind) or pa.types.is_boolean(kind)]
        numbers = tuple(name for name in whole if name not in named)
        return cls(tuple(structs or binary), named, numbers, tuple(texts), (*whole, *texts, *others))


def _features(path: Path, metadata: Mapping[bytes, bytes] | None) -> Any:
    """What the key `huggingface` of a file's metadata says of its columns."""
    try:
        said = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError) as error:
        found = f"the metadata `huggingface` cannot be read ({first_line(error)[:80]})"
        raise RowError(path, None, None, found, "Fetch the file again.") from error
    info = said.get("info") if isinstance(said, dict) else None
    return info.get("features") if isinstance(info, dict) else {}


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
