"""A suite's plan, remembered: asking again what is to be done must not cost the import of the heavy libraries."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import asdict
from pathlib import Path

from emobench.bench.keys import key, package_digest
from emobench.bench.store import SCHEMA_VERSION, Store, read_json, write_json
from emobench.errors import StoreError
from emobench.suite import Cell, Plan, Suite, dataset_folder, datasets_of, expand

_LIBRARIES = ("torch", "torchvision", "lightning", "timm", "transformers", "albumentations")


def plan_of(suite: Suite, data_root: Path, store: Store) -> Plan:
    """The expanded suite. A plan that skips nothing is taken from the store while suite, code, libraries and the names,
    sizes and times of the dataset's files are the same.

    Raises:
        EmobenchError: what is wrong with the suite (see `emobench.suite.expand`).
    """
    made_of = {
        "suite": suite.model_dump(),
        "code": package_digest(),
        "libraries": [importlib.metadata.version(library) for library in _LIBRARIES],
        "data": {
            name: _listing(dataset_folder(data_root, str(table.get("class", name))))
            for name, table in datasets_of(suite, data_root).items()
        },
    }
    path = store.cells / "plans" / f"{key(made_of)}.json"
    try:
        found = read_json(path)
        cells = [Cell(**cell) for cell in found["cells"]]
        return Plan(suite.name, cells, [], found["downloads"], found["data_notes"])
    except (FileNotFoundError, StoreError):
        plan = expand(suite, data_root)
    if not plan.skipped and not plan.downloads:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(plan)})
    return plan


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file below a folder; nothing where it is not there."""
    found = []
    for top, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            status = os.stat(os.path.join(top, name), follow_symlinks=False)
            found.append((os.path.relpath(os.path.join(top, name), folder), status.st_size, status.st_mtime_ns))
    return found
