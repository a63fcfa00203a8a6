"""Names of classes that lie beside the data: data.yaml, classes.txt, class_indices.json, ClassLabel names, and such."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from emobench.data.readers.labels import Ids, Meaning, agreed
from emobench.errors import RowError

DESCRIPTIONS = ("README.md", "dataset_info.json", "dataset_infos.json")  # of the columns of Hugging Face's datasets

_MOST = 2**20  # bytes: what is larger is no list of classes
_COLUMNS = ("label", "labels", "emotion", "expression", "class")  # of a ClassLabel, where a dataset has several
_LINE = re.compile(r"(?:(\d+)[\s:,=]+)?([^\W\d_][\w \-/()]{0,39})")  # `happy`, or `3 happy`


def files_beside(place: Path, top: Path) -> list[Path]:
    """The files beside a layout that may name its classes, the nearest ones first.

    Looked at are the layout's folder, the folders of its splits and labels, and those above it.

    Args:
        place: the folder of the layout, or its table.
        top: the dataset's folder, above which nothing is looked for.
    """
    folder = place if place.is_dir() else place.parent
    above = [each for each in (folder, *folder.parents) if each == top or each.is_relative_to(top)]
    inside = [each for each in sorted(folder.iterdir()) if each.is_dir()] if place.is_dir() else []
    labels = [each / "labels" for each in (folder, *inside)]
    found = [each / name for each in dict.fromkeys([*above, *inside, *labels]) for name in _READERS]
    return [path for path in found if path.is_file() and path.stat().st_size <= _MOST]


def may_name_classes(name: str) -> bool:
    """Whether a file of this name is looked at for names of classes."""
    return name in _READERS


def names_beside(place: Path, top: Path) -> list[Ids]:
    """What the files beside a layout say of its ids, the nearest ones first; see `files_beside`.

    Raises:
        RowError: a file of this kind cannot be read.
    """
    said = {path: _read(path, _READERS[path.name]) for path in files_beside(place, top)}
    return [Ids(path.relative_to(top).as_posix(), names, False) for path, names in said.items() if names]


def columns_beside(place: Path, top: Path) -> list[tuple[str, dict[str, dict[int, str]]]]:
    """(file, column -> id -> name) of the descriptions of a Hugging Face dataset beside a layout, the nearest first.

    Raises:
        RowError: such a file cannot be read.
    """
    found = []
    for path in files_beside(place, top):
        if path.name in DESCRIPTIONS:
            try:
                columns = class_labels(_content(path))
            except Exception as error:  # parsers raise what they like
                reason = " ".join(str(error).split())[:120] or type(error).__name__
                raise RowError(path, None, None, f"cannot be read ({reason})", "Mend or remove the file.") from error
            found.append((path.relative_to(top).as_posix(), columns))
    return found


def _content(path: Path) -> Any:
    """What a description says, as plain values."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix != ".md":
        return json.loads(text)
    parts = re.split(r"^---\s*$", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}


def class_labels(features: Any) -> dict[str, dict[int, str]]:
    """Column -> id -> name of every ClassLabel in a description of features, as Hugging Face's datasets write it."""
    found = {column: _numbered(names) for column, names in _class_labels(features)}
    return {column: names for column, names in found.items() if names}


def agreed_with_definition(
    says: str,
    names: Mapping[str, str],
    order: Sequence[str] | None,
    layout: Path,
    top: Path,
    meaning: Meaning,
) -> None:
    """Check that nobody says anything else of the ids of a table than its dataset defines.

    Args:
        says: whose ids they are, for errors.
        names: id -> emotion, as the dataset defines it.
        order: as the user says.
        layout: the table; names of classes may lie beside it.
        top: the dataset's folder.
        meaning: of the ids that the user explains, which may differ.

    Raises:
        DatasetError: an order or a file differs; both are named.
    """
    defined = Ids(says, {int(k): name for k, name in names.items()}, True)
    given = None if order is None else Ids.of_order(order)
    agreed([defined, given, *names_beside(layout, top)], meaning, layout)


def _read(path: Path, read: Callable[[str], dict[int, str]]) -> dict[int, str]:
    """Id -> name; empty where the file says nothing of classes."""
    try:
        return read(path.read_text(encoding="utf-8-sig"))
    except Exception as error:  # parsers raise what they like, such as KeyError for `!!bool x`
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise RowError(path, None, None, f"cannot be read ({reason})", "Mend or remove the file.") from error


def _lines(text: str) -> dict[int, str]:
    """A name a line, perhaps with its id before it; nothing where other things stand there too."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [_LINE.fullmatch(line) for line in lines]
    if not lines or len(lines) > 100 or not all(matches):
        return {}
    given = [match[1] for match in matches if match is not None]
    names = [match[2].strip() for match in matches if match is not None]
    if all(given):
        return {int(number): name for number, name in zip(given, names, strict=True)}
    return {} if any(given) else dict(enumerate(names))


def _yaml(text: str) -> dict[int, str]:
    content = yaml.safe_load(text)
    return _numbered(content.get("names")) if isinstance(content, Mapping) else {}


def _json(text: str) -> dict[int, str]:
    """A list, id -> name, name -> id, or one of these under a usual key."""
    content = json.loads(text)
    keys = ("id2label", "label2id", "names", "classes", "class_to_idx")
    key = next((key for key in keys if key in content), None) if isinstance(content, Mapping) else None
    return _numbered(content if key is None else content[key])


def _described(text: str) -> dict[int, str]:
    """The names in a description of much else: id2label of a model, or the ClassLabel of a dataset."""
    content = json.loads(text)
    if not isinstance(content, Mapping):
        return {}
    return _numbered(content.get("id2label")) or _of_column(dict(_class_labels(content)))


def _front_matter(text: str) -> dict[int, str]:
    """The ClassLabel in the YAML on top of a README.md, as the Hugging Face hub writes it."""
    parts = re.split(r"^---\s*$", text, maxsplit=2, flags=re.MULTILINE)
    if len(parts) < 3 or parts[0].strip() or "class_label" not in parts[1]:
        return {}
    return _of_column(dict(_class_labels(yaml.safe_load(parts[1]))))


def _class_labels(content: Any, column: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """(column, names) of every ClassLabel in a description of features.

    Args:
        seen: what was looked into: an alias of YAML is the same object, and a few lines of them a tree of billions.
    """
    seen = set() if seen is None else seen
    if isinstance(content, Mapping | list):
        if id(content) in seen:
            return
        seen.add(id(content))
    if isinstance(content, Mapping):
        column = str(content.get("name", column))
        if content.get("_type") == "ClassLabel" and "names" in content:
            yield column, content["names"]
        for key, value in content.items():
            if key == "class_label" and isinstance(value, Mapping):
                yield column, value.get("names")
            else:
                yield from _class_labels(value, column if key in ("dtype", "feature") else str(key), seen)
    elif isinstance(content, list):
        for each in content:
            yield from _class_labels(each, column, seen)


def _of_column(labels: Mapping[str, Any]) -> dict[int, str]:
    """The names of the one ClassLabel, or of that which is called label, emotion or the like."""
    chosen = next((labels[column] for column in _COLUMNS if column in labels), None)
    return _numbered(next(iter(labels.values())) if len(labels) == 1 else chosen)


def _numbered(names: Any) -> dict[int, str]:
    """Id -> name of a list, or of a table from ids to names or from names to ids; else nothing."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping):
        return {}
    if all(str(key).isdecimal() for key in names):
        found = {int(key): name for key, name in names.items()}
    else:
        found = {number: name for name, number in names.items() if type(number) is int}
    whole = len(found) == len(names) and all(isinstance(name, str) and "." not in name for name in found.values())
    return found if whole else {}


_READERS: dict[str, Callable[[str], dict[int, str]]] = {
    **dict.fromkeys(("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"), _yaml),
    **dict.fromkeys(("classes.txt", "class_names.txt", "labels.txt", "label_names.txt", "_darknet.labels"), _lines),
    **dict.fromkeys(("obj.names", "classes.names", "predefined_classes.txt"), _lines),
    **dict.fromkeys(("classes.json", "class_names.json", "class_indices.json", "class_to_idx.json"), _json),
    **dict.fromkeys(("label_map.json", "labels.json", "id2label.json", "label2id.json"), _json),
    **dict.fromkeys(("dataset_info.json", "dataset_infos.json", "config.json"), _described),
    "README.md": _front_matter,
}
