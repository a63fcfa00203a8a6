"""What the labels of a dataset mean: emotions by their usual spellings, by names of the user's own, and by ids.

An id means what lies beside the data says (data.yaml, classes.txt, ClassLabel names), or what an order says. Where two
of them differ, the data is refused: nobody would see the wrong labels later.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from emobench.emotions import ORDERS, SPELLINGS, canonical, is_emotion
from emobench.errors import DatasetError, SuiteError, guess, nearest

PROBLEM = "problem"  # column of an index: the RowError of a face without a usable label, or None; it is excluded
Labels = dict[str, str | list[str]]  # emotion -> the dataset's own names, or ids, for it


def _folded(name: Any) -> str:
    """A name whatever its case and blanks, and whatever way of writing its accents a file system prefers."""
    return unicodedata.normalize("NFC", " ".join(str(name).split())).casefold()


class Meaning:
    """What the names that a dataset uses for its labels mean.

    Args:
        labels: emotion -> names of the dataset's own, which come before the usual spellings and any order of ids.
        ignore: names whose faces are left out and counted.

    Raises:
        SuiteError: an emotion is unknown, or a name stands for two things.
    """

    def __init__(self, labels: Mapping[str, Any] | None = None, ignore: str | Sequence[str] | None = None) -> None:
        self._own: dict[str, str | None] = {}  # folded name -> emotion; None: left out
        self._met: Counter[str] = Counter()  # folded names of the user's -> faces, or files
        self._used: set[str] = set()
        self._as_given: dict[str, str] = {}
        if not isinstance(labels, Mapping | None):
            raise SuiteError(
                f'labels = {labels!r} is no table such as {{ happy = "Freude", sad = ["Trauer", "sad1"] }}'
            )
        for emotion, names in (labels or {}).items():
            try:
                known = canonical(str(emotion))
            except DatasetError as error:
                raise SuiteError(
                    f"labels: {error}. An emotion stands on the left, your name for it on the right"
                ) from None
            for name in _listed("labels", names):
                self._add(name, known)
        for name in _listed("ignore", ignore):
            self._add(name, None)

    def _add(self, name: str, emotion: str | None) -> None:
        if _folded(name) in self._own:
            told = [each or "left out" for each in (self._own[_folded(name)], emotion)]
            raise SuiteError(f"labels and ignore: '{name}' is {told[0]} and {told[1]}. Name it once")
        self._own[_folded(name)], self._as_given[_folded(name)] = emotion, name

    def explains(self, name: str) -> bool:
        """Whether the user says what a name means."""
        return _folded(name) in self._own

    def ignores(self, name: str) -> bool:
        """Whether the faces of a name are to be left out."""
        return self._own.get(_folded(name), "") is None

    def knows(self, name: str) -> bool:
        """Whether a name means something: it is a spelling of an emotion, or the user says so."""
        return self.explains(name) or is_emotion(name)

    def emotion(self, name: str) -> str | None:
        """The emotion that the user's name stands for; None: its faces are left out."""
        return self._own[_folded(name)]

    def leave_out(self, name: str, n: int) -> None:
        """Count files of a name that is ignored, and that never become rows of an index."""
        self._met[_folded(name)] += n

    def use(self, names: Iterable[str]) -> None:
        """Remember names that occur otherwise than as labels of an index, such as columns."""
        self._used |= {_folded(name) for name in names}

    def understood(self, index: pd.DataFrame, place: Path | str) -> tuple[pd.DataFrame, list[str]]:
        """An index whose labels are canonical emotions, without the faces that are ignored; and what is said of it.

        Args:
            index: `label` by any name, None where a face has no usable one.
            place: where the dataset lies, for errors.

        Raises:
            DatasetError: names that mean nothing; the nearest known ones are named.
        """
        found = {name: _folded(name) for name in index["label"].dropna().unique()}
        if unknown := [str(name) for name in found if not self.knows(name)]:
            raise DatasetError(f"{place}: {unexplained(unknown, self)}")
        means = {name: self._own[key] if key in self._own else canonical(name) for name, key in found.items()}
        for name, n in index["label"].value_counts().items():
            if found[name] in self._own:
                self._met[found[name]] += int(n)
        ignored = index["label"].map(lambda name: name in means and means[name] is None).astype(bool)
        index = index.assign(label=index["label"].map(means))[~ignored].reset_index(drop=True)
        return index, self._notes(found.values())

    def _notes(self, found: Collection[str]) -> list[str]:
        left = [
            f"{self._met[key]:,} {name}"
            for key, name in self._as_given.items()
            if self.ignores(name) and self._met[key]
        ]
        met = self._used | self._met.keys()
        never = [name for key, name in self._as_given.items() if key not in met]
        notes = [f"left out, as `ignore` says: {', '.join(left)}"] if left else []
        if never:
            listed = ", ".join(repr(name) for name in never)
            notes.append(f"named in `labels` or `ignore`, and nowhere in the data: {listed}")
        return notes

    @property
    def words(self) -> list[str]:
        """The names that mean something."""
        return [*SPELLINGS, *self._as_given.values()]


def unexplained(names: Sequence[str], meaning: Meaning) -> str:
    """The sentence for names that mean nothing, with the nearest ones that do, and what to do."""
    near = {name: guess(name.strip().lower(), meaning.words) for name in names}
    listed = ", ".join(f"{name} ({question})" if question else name for name, question in near.items())
    word = nearest(names[0].strip().lower(), SPELLINGS)
    emotion = "happy" if word is None else canonical(word)
    means, left_out = f'labels = {{ {emotion} = "{names[0]}" }}', f'ignore = ["{names[0]}"]'
    remedy = f"Rename or remove them, say what they mean, as in {means}, or leave them out, as in {left_out}"
    return f"no emotions: {listed}. {remedy}"


def _listed(what: str, names: Any) -> list[str]:
    """One name or a list of names as a list."""
    found = [names] if isinstance(names, str | int) else names if isinstance(names, list | tuple) else None
    if names is None:
        return []
    if found is None or not all(isinstance(name, str | int) and str(name).strip() for name in found):
        raise SuiteError(f'{what}: {names!r} is neither a name nor a list of names such as ["Trauer", "sad1"]')
    return [str(name) for name in found]


@dataclass(frozen=True)
class Ids:
    """What ids mean, as somebody says.

    Attributes:
        says: who, such as a file or an order, as it stands in a sentence.
        names: id -> an emotion by any name.
        counted: whether it is an order that is assumed, and not what lies beside the data.
    """

    says: str
    names: Mapping[int, str]
    counted: bool

    @classmethod
    def of_order(cls, order: Sequence[str], says: str = "") -> Ids:
        """An order of emotions, of which an empty one has no id."""
        name = next((name for name, known in ORDERS.items() if known == tuple(order)), "")
        says = says or (f"the order {name}" if name else "the order given")
        return cls(says, {k: emotion for k, emotion in enumerate(order) if emotion}, True)

    def listed(self, ids: Collection[int] | None = None) -> str:
        """The ids and what they mean, in words."""
        return ", ".join(f"{k} {name}" for k, name in self.names.items() if ids is None or k in ids)


def agreed(claims: Sequence[Ids | None], meaning: Meaning, place: Path | str) -> Ids | None:
    """The first of what is said of the ids, where all say the same of those that the user does not explain.

    Raises:
        DatasetError: two differ; both are named.
    """
    said = [claim for claim in claims if claim is not None]
    for other in said[1:]:
        first = said[0]
        both = [k for k in first.names if k in other.names and not meaning.explains(str(k))]
        if apart := [k for k in both if _meant(first.names[k], meaning) != _meant(other.names[k], meaning)]:
            told = f"{first.says} says {first.listed(apart)}, but {other.says} says {other.listed(apart)}"
            name = first.names[apart[0]]
            example = f'labels = {{ {canonical(name) if is_emotion(name) else "happy"} = "{apart[0]}" }}'
            remedy = f"Look at some faces, then drop the wrong one, or say what each id means, as in {example}"
            raise DatasetError(f"{place}: {told}. {remedy}")
    return said[0] if said else None


def _meant(name: str, meaning: Meaning) -> str:
    """A name as two of them are compared."""
    if meaning.explains(name):
        return f"the user's {_folded(name)}"
    return canonical(name) if is_emotion(name) else _folded(name)


def questioned(ids: Ids, found: Collection[int], meaning: Meaning, place: Path | str) -> list[str]:
    """Check that what is said of ids explains those that occur; a note where some never do.

    An order counts from 0 without a gap. Data whose ids start higher, or that has as many ids as a known order of other
    emotions, follows another one.

    Args:
        found: the ids that occur.

    Raises:
        DatasetError: an id has no meaning, or they follow another order.
    """
    found = sorted({k for k in found if not meaning.explains(str(k))})
    if lacking := [k for k in found if k not in ids.names]:
        listed = ", ".join(map(str, lacking))
        raise DatasetError(f"{place}: {ids.says} ({ids.listed()}) has no {listed}. {_remedy(ids, found)}")
    if not ids.counted or not found:
        return []
    first, never = min(ids.names), [k for k in ids.names if k not in found and not meaning.explains(str(k))]
    if first in never:
        there = ", ".join(map(str, found))
        told = f"{ids.says} counts from {first} ({ids.listed()}), and there is no {first}, but {there}"
        raise DatasetError(f"{place}: {told}. {_remedy(ids, found)}")
    rivals = [set(order) for order in ORDERS.values() if order[0] and len(order) == len(found)]
    here = {canonical(ids.names[k]) for k in found}
    if never and found == list(range(len(found))) and rivals and here not in rivals:
        told = f"{ids.says} ({ids.listed()}) would mean that there is no {ids.listed(never)}"
        raise DatasetError(f"{place}: {len(found)} ids, 0 to {found[-1]}: {told}. {_remedy(ids, found)}")
    return [f"{ids.says}: {ids.listed(never)} never occurs"] if never else []


def _remedy(ids: Ids, found: Sequence[int]) -> str:
    """How to say what ids mean, with the line to copy where their order is the right one after all."""
    lines = ", ".join(f'{name} = "{k}"' for k, name in ids.names.items() if k in found)
    right = f" (if it is right after all: labels = {{ {lines} }})" if lines else ""
    how = f"Look at some faces of each, then set another `order`, or say what each id means by `labels`{right}"
    return f"{how}; {known_orders()}"


def known_orders() -> str:
    """The known orders, a line each."""
    lines = (f"  {name}: {Ids.of_order(emotions).listed()}" for name, emotions in ORDERS.items())
    return "known orders are\n" + "\n".join(lines)
