"""A suite's plan, remembered: asking again what is to be done must not cost the import of the heavy libraries."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from emobench.data.content import listing
from emobench.errors import StoreError
from emobench.files import SCHEMA_VERSION, read_json, replacing
from emobench.garbage import uncollected
from emobench.suite import plugins
from emobench.suite.catalog import broken
from emobench.suite.cell import Cell, Plan
from emobench.suite.expand import expand
from emobench.suite.file import Suite
from emobench.suite.keys import KEY_LENGTH, key, package_digest
from emobench.suite.rows import datasets_of

_LIBRARIES = ("torch", "torchvision", "lightning", "timm", "transformers", "diffusers", "albumentations")


def plan_of(suite: Suite, data_root: Path, cells: Path) -> Plan:
    """The expanded suite. A plan that skips nothing is taken from the store while suite, code, libraries and the names,
    sizes and times of the datasets' files are the same.

    Args:
        cells: folder of the store, where plans are kept.

    Raises:
        EmobenchError: what is wrong with the suite (see `emobench.suite.expand.expand`).
    """
    made_of = {
        "suite": suite.model_dump(
            exclude={"name", "file", "overrides", "budget", "scale"}
        ),  # two boards may share a plan
        "trainers": list(suite.trainer),  # in their order, since judges come of the first
        "code": package_digest(),
        "libraries": [importlib.metadata.version(library) for library in _LIBRARIES],
        "plugins": [os.environ.get(plugins.VARIABLE), *plugins.stamps()],
        "data": [os.path.realpath(data_root), *datasets_of(suite, data_root)],
    }
    path = cells / "plans" / f"{key(made_of)}.json"
    found = kept(path)
    if found is not None and all(listing(Path(source)) == digest for source, digest in found["listings"].items()):
        planned = [Cell(**cell) for cell in found["cells"]]
        rest = {name: found[name] for name in ("downloads", "data_notes", "listings", "faces", "validation", "test")}
        return Plan(suite.name, planned, [], **rest)
    with uncollected():
        plan = expand(suite, data_root)
    passed_over = broken("model", "dataset")
    for each in passed_over:
        print(f"emobench: passed over {each}", file=sys.stderr)
    if not plan.skipped and not plan.downloads and not passed_over:
        keep(path, plan)
    return plan


def keep(path: Path, plan: Plan) -> None:
    """Write a plan with the digest by which `kept` knows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Cell)]
    cells = [{name: getattr(cell, name) for name in names} for cell in plan.cells]  # whose parts cells share: no copies
    content = {field.name: getattr(plan, field.name) for field in fields(Plan)}
    content |= {"cells": cells, "skipped": [asdict(each) for each in plan.skipped]}
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(f'{{"schema_version": {SCHEMA_VERSION}, "digest": "{_digest(content)}", "plan": ')
        file.writelines(_canonical(content))
        file.write("}\n")


def kept(path: Path) -> dict[str, Any] | None:
    """A plan that was written before; None where there is none, or not the very one that was written."""
    try:
        found = read_json(path)
        plan = found["plan"]
        return plan if isinstance(plan, dict) and found["digest"] == _digest(plan) else None
    except (FileNotFoundError, StoreError, KeyError, TypeError, ValueError):  # NaN is no JSON
        return None


def _digest(plan: Mapping[str, Any]) -> str:
    """The plan's `key`."""
    digest = hashlib.sha256()
    for text in _canonical(plan):
        digest.update(text.encode())
    return digest.hexdigest()[:KEY_LENGTH]


def _canonical(plan: Mapping[str, Any]) -> Iterator[str]:
    """The text of which `key` takes the digest, cell by cell: that of thousands of cells is never held as a whole."""

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))

    for place, name in enumerate(sorted(plan)):
        yield f"{',' if place else '{'}{text(name)}:"
        if name != "cells":
            yield text(plan[name])
            continue
        for number, cell in enumerate(plan[name]):
            yield f"{',' if number else '['}{text(cell)}"
        yield "]" if plan[name] else "[]"
    yield "}"
