"""`--set KEY=VALUE`: settings that a command changes, and the name of a board that is made with them."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emobench.errors import SuiteError

LONGEST = 120  # bytes of a board's name
_RESERVED = ("cells", "judges")  # folders of the results that are no boards
_UNSAFE = re.compile(r"[^\w.=,\[\]-]")  # in the name of a folder on some system


@dataclass(frozen=True)
class Override:
    """One setting: the tables on the way to it and its name, its value, and that as it was written."""

    path: tuple[str, ...]
    value: Any
    text: str

    @classmethod
    def parse(cls, given: str, example: str = "model.vit.lr=3e-5") -> Override:
        """`model."timm:x.y".lr=3e-5`: the key is TOML's, the value too, and a bare word is a string.

        Raises:
            SuiteError: it is no KEY=VALUE.
        """
        if "=" not in given:
            raise SuiteError(f"--set {given}: expected KEY=VALUE, such as --set {example}")
        parts = given.split("=")
        for end in range(1, len(parts)):  # a quoted name may hold the sign too
            path = _keys("=".join(parts[:end]))
            if path is not None:
                text = "=".join(parts[end:]).strip()
                return cls(path, _value(text), text)
        raise SuiteError(
            f'--set {given}: {parts[0]} is not a key; quote names with a colon, such as model."timm:resnet10t".lr'
        )

    def __str__(self) -> str:
        keys = [key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key) for key in self.path]
        return f"{'.'.join(keys)}={self.text}"

    @property
    def label(self) -> str:
        """As it stands in the name of a board."""
        value = self.text
        if isinstance(self.value, str):
            value = self.value
        elif isinstance(self.value, dict) and self.value.keys() == {"sweep"}:
            value = f"sweep{json.dumps(self.value['sweep'], separators=(',', ':'), default=str)}"
        elif isinstance(self.value, list | dict):
            value = json.dumps(self.value, separators=(",", ":"), default=str)
        return f"{'.'.join(self.path)}={value}"


def _keys(text: str) -> tuple[str, ...] | None:
    """`model."timm:x.y".lr` -> ("model", "timm:x.y", "lr"); None where it is no key."""
    try:
        table: Any = tomllib.loads(f"{text} = 0")
    except (ValueError, RecursionError):
        return None
    keys: list[str] = []
    while isinstance(table, dict) and len(table) == 1:
        ((key, table),) = table.items()
        keys.append(key)
    return tuple(keys) if table == 0 else None


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, more digits than Python reads, lists in lists without end
        return text
    return table["value"] if table.keys() == {"value"} else text


def parsed(given: Sequence[str], example: str = "model.vit.lr=3e-5") -> list[Override]:
    """Overrides in one order for all orders that mean the same; a later table replaces what was set in it before.

    Raises:
        SuiteError: one is no KEY=VALUE, or a key is set twice.
    """
    kept: list[Override] = []
    for override in (Override.parse(each, example) for each in given):
        twice = next((other for other in kept if other.path == override.path), None)
        if twice is not None:
            raise SuiteError(f"--set {twice} and --set {override}: one key, set twice. Leave one of them out")
        kept = [other for other in kept if other.path[: len(override.path)] != override.path]
        kept.append(override)
    return sorted(kept, key=lambda override: override.path)  # a table stands before what is in it


def apply(content: dict[str, Any], overrides: Sequence[Override]) -> None:
    """Set the values in nested tables.

    Raises:
        SuiteError: something on the way is no table.
    """
    for override in overrides:
        tables = content
        for key in override.path[:-1]:
            tables = tables.setdefault(key, {})
            if not isinstance(tables, dict):
                raise SuiteError(f"--set {override}: `{key}` is no table of the suite")
        tables[override.path[-1]] = copy.deepcopy(override.value)


def board_name(stem: str, overrides: Sequence[Override]) -> str:
    """`<stem>`, or `<stem>+<key>=<value>+…`: one for each set of overrides, and a folder's name on every system.

    What is no letter, digit or one of `.-_=,[]` in an override becomes an underscore; where that, or cutting a long
    name, loses something, a hash of the whole follows.
    """
    whole = "+".join([stem, *(override.label for override in overrides)])
    name = "+".join([stem, *(_UNSAFE.sub("_", override.label) for override in overrides)])
    if name == whole and len(name.encode()) <= LONGEST:
        return name
    kept = name.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def checked_name(name: str) -> str:
    """A board's name as the user gives it.

    Raises:
        SuiteError: it can be no folder of the results.
    """
    if not name or name.startswith(".") or re.search(r"[/\\\0]", name) or len(name.encode()) > LONGEST:
        raise SuiteError(
            f"'{name}' cannot be a board's name: a folder of the results, of at most {LONGEST} bytes, without a slash, "
            "not hidden. Choose another with --name"
        )
    if name in _RESERVED:
        raise SuiteError(f"results/{name} holds the networks of all boards. Choose another board's name with --name")
    return name
