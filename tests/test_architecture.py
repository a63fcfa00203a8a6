"""Who may import whom (the packages are rooms, and doors open one way)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "emobench"
MAY = {
    "errors": set(),
    "atomic": set(),
    "emotions": {"errors"},
    "recipe": set(),
    "nn": {"errors", "atomic", "emotions", "recipe", "nn"},
    "metrics": {"errors", "emotions", "nn", "metrics"},
    "definitions": {"definitions"},
    "roots": {"definitions"},
    "data": {"errors", "emotions", "recipe", "roots", "data"},
    "classifiers": {"errors", "emotions", "recipe", "nn", "classifiers"},
    "generators": {"errors", "emotions", "recipe", "nn", "generators"},
    "report": {"errors", "atomic", "emotions", "metrics", "bench.store", "report"},
}


def imports(path: Path) -> set[str]:
    """Modules of emobench that a file imports, without the package's name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.removeprefix("emobench.") for name in found if name.startswith("emobench.")}


@pytest.mark.parametrize("room", MAY)
def test_rooms_import_only_what_they_may(room: str) -> None:
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        for module in imports(path):
            allowed = any(module == door or module.startswith(f"{door}.") for door in MAY[room])
            assert allowed, f"{path.relative_to(PACKAGE)} imports {module}"


def test_models_and_data_meet_only_in_bench() -> None:
    for path in PACKAGE.rglob("*.py"):
        found = imports(path)
        meets = any(name.startswith("data.") for name in found) and any(
            name.startswith(("classifiers", "generators")) for name in found
        )
        assert not meets or path.parent.name == "bench", path
