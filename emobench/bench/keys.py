"""Keys: the SHA-256 of everything that determines a number, and of nothing else."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emobench.data.content import contents, listing

_PACKAGE = Path(__file__).resolve().parents[1]
KEY_LENGTH = 20  # hex digits of the SHA-256 that name a folder: 80 bits, no chance of a collision among cells


def key(made_of: Any) -> str:
    """The key of plain values, the same whatever the order of their dicts."""
    text = json.dumps(made_of, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def code_of(modules: Iterable[str]) -> dict[str, Any]:
    """The code behind some modules of emobench, as keys and results hold it: where it starts, and its digest."""
    files = sorted(name.replace(".", "/") + ".py" for name in modules)
    return {"files": files, "digest": code_digest(files)}


def code_digest(files: Iterable[str]) -> str:
    """SHA-256 of the syntax trees, docstrings aside, of some files and of all of emobench that they import.

    Comments, blank lines and docstrings do not change it. A file that is gone counts as empty.

    Args:
        files: paths from the folder that holds the package, such as `emobench/classifiers/vit.py`.
    """
    seen: dict[str, str] = {}
    todo = sorted(files)
    while todo:
        file = todo.pop()
        if file not in seen:
            path = _PACKAGE.parent / file
            stamp = path.stat().st_mtime_ns if path.is_file() else 0
            seen[file], imports = _parse(file, stamp)
            todo.extend(imports)
    return hashlib.sha256(json.dumps(sorted(seen.items())).encode()).hexdigest()


@functools.cache
def _parse(file: str, stamp: int) -> tuple[str, tuple[str, ...]]:
    """A file's code without docstrings, and the emobench files that it imports; `stamp` renews the cache."""
    path = _PACKAGE.parent / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                body[0] = ast.Pass()
    files = (module.replace(".", "/") + ".py" for module in modules if module.startswith("emobench."))
    return ast.unparse(tree), tuple(sorted(file for file in files if (_PACKAGE.parent / file).is_file()))


def package_digest() -> str:
    """SHA-256 of every file of the package as it lies there: changes whenever any of its code does."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def contents_of_files(cls: Any, arguments: Mapping[str, Any]) -> dict[str, str]:
    """What lies in the files and folders that a model's arguments name: argument -> digest."""
    return {name: contents(path) for name, path in _named(cls, arguments).items()}


def listings_of_files(cls: Any, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Names, sizes and times of the same, which tell soon whether to look again: path -> digest."""
    return {str(path): listing(path) for path in _named(cls, arguments).values()}


def _named(cls: Any, arguments: Mapping[str, Any]) -> dict[str, Path]:
    from emobench.nn.weights import is_path

    named = {name: arguments[name] for name in cls.files if arguments.get(name) is not None}
    paths = {name: Path(value).expanduser() for name, value in named.items() if is_path(value)}
    return {name: path for name, path in paths.items() if path.exists()}
