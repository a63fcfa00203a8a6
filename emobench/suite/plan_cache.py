"""A suite's plan, remembered: asking again what is to be done must not cost the import of the heavy libraries."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emobench.data.content import listing
from emobench.errors import StoreError
from emobench.files import SCHEMA_VERSION, read_json, write_json
from emobench.suite import plugins
from emobench.suite.catalog import broken
from emobench.suite.cell import Cell, Plan
from emobench.suite.expand import expand
from emobench.suite.file import Suite
from emobench.suite.keys import key, package_digest
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
        "suite": suite.model_dump(exclude={"name", "file", "overrides"}),  # two boards may share a plan
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
        rest = {name: found[name] for name in ("downloads", "data_notes", "listings", "faces")}
        return Plan(suite.name, planned, [], **rest)
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
    content = asdict(plan)
    write_json(path, {"schema_version": SCHEMA_VERSION, "plan": content, "digest": key(content)})


def kept(path: Path) -> dict[str, Any] | None:
    """A plan that was written before; None where there is none, or not the very one that was written."""
    try:
        found = read_json(path)
        plan = found["plan"]
        return plan if isinstance(plan, dict) and found["digest"] == key(plan) else None
    except (FileNotFoundError, StoreError, KeyError, ValueError):  # NaN is no JSON
        return None
