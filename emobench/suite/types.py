"""Types of arguments as a person writes them: `float from 0 to 1`, `"a" or "b"`, `int from 1 on, or "none"`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Len, Lt

_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    float: "float",
    int: "int",
    str: "text",
    Path: "path",
    type(None): '"none"',
}
_COUNTED = ("int", "float", "text", "path", "list", "table")  # words with a plural


def written(kind: Any) -> str:
    """A type in words, as what it admits stands in a suite.

    >>> written(typing.Annotated[float, Ge(0), Lt(1)])
    'float from 0 to below 1'
    >>> written(typing.Literal["sgd", "adam"] | None)
    '"sgd" or "adam", or "none"'
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return f"{written(inner[0])}{_bounds(inner[1:])}"
    if origin is typing.Literal:
        return _either([f'"{each}"' if isinstance(each, str) else str(each) for each in inner])
    if origin in (typing.Union, types.UnionType):
        return _union([written(each) for each in inner])
    if origin is tuple and inner[-1] is not Ellipsis:  # of so many
        return f"list of {len(inner)} {_several(inner)}"
    if origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return f"list of {_several(inner)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"table of {_several(inner[1:])}"
    if dataclasses.is_dataclass(kind):
        return f"table with {', '.join(field.name for field in dataclasses.fields(kind))}"
    return _NAMES.get(kind, kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", ""))


def _several(kinds: Sequence[Any]) -> str:
    """What a list or a table holds: what is of one kind is named once, in the plural where it has one."""
    alternatives: list[Any] = []
    for kind in kinds:
        union = typing.get_origin(kind) in (typing.Union, types.UnionType)
        alternatives += typing.get_args(kind) if union else [kind]
    found = list(dict.fromkeys(written(each) for each in alternatives if each is not Ellipsis))
    return " or ".join(_plural(each) for each in found)


def _plural(words: str) -> str:
    """`ints from 1 on` of `int from 1 on`."""
    word, blank, rest = words.partition(" ")
    return f"{word}s{blank}{rest}" if word in _COUNTED else words


def _union(kinds: list[str]) -> str:
    """Alternatives; one that is said in several words is set apart by a comma."""
    first, *others = dict.fromkeys(kinds)
    for other in others:
        first += f"{',' if ' ' in first else ''} or {other}"
    return first


def _either(words: list[str]) -> str:
    """`"a"`, `"a" or "b"`, `"a", "b" or "c"`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _bounds(found: Sequence[Any]) -> str:
    """` from 0 to 1`, ` above 0`, ` from 1 on`, ` between 0 and 1` (neither of them)."""
    low = next((each for each in found if isinstance(each, Ge | Gt)), None)
    high = next((each for each in found if isinstance(each, Le | Lt)), None)
    least = next((f", at least {each.min_length}" for each in found if isinstance(each, Len) and each.min_length), "")
    match low, high:
        case None, None:
            words = ""
        case None, _:
            words = f" {'at most' if isinstance(high, Le) else 'below'} {_limit(high)}"
        case Ge(), None:
            words = f" from {_limit(low)} on"
        case Gt(), None:
            words = f" above {_limit(low)}"
        case Ge(), _:
            words = f" from {_limit(low)} to {'' if isinstance(high, Le) else 'below '}{_limit(high)}"
        case _, Le():
            words = f" above {_limit(low)}, at most {_limit(high)}"
        case _:
            words = f" between {_limit(low)} and {_limit(high)}"
    return words + least


def _limit(bound: Any) -> str:
    """The number of a bound."""
    return f"{getattr(bound, type(bound).__name__.lower()):g}"
