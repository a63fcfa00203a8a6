"""Who may import whom: the rooms of the package stand in an order, and doors open towards earlier ones only."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "emobench"

# What each room, or module beside the rooms, may import; none of it stands below it.
MAY: dict[str, set[str]] = {
    "errors": set(),
    "downloads": set(),
    "emotions": {"errors"},
    "files": {"errors"},
    "garbage": set(),
    "recipe": set(),
    "definitions": set(),
    "nn": {"downloads", "emotions", "errors", "files"},
    "cues": {"downloads", "emotions", "errors", "nn"},
    "model": {"nn", "recipe"},
    "metrics": {"errors", "nn"},
    "attribution": {"errors"},  # of any network of torch
    "classifiers": {"downloads", "emotions", "errors", "metrics", "model", "nn", "recipe"},
    "generators": {"emotions", "errors", "model", "nn", "recipe"},  # `asking` reads names
    "data": {"definitions", "emotions", "errors", "recipe"},
    # `cues`: what the track text is asked.
    "evaluation": {"attribution", "cues", "data", "emotions", "errors", "files", "metrics", "nn"},
    # A suite's classes are found by their names; it counts parameters and FLOPs with what all classifiers share.
    "suite": {
        "classifiers", "cues", "data", "definitions", "emotions", "errors", "evaluation", "files", "garbage", "metrics",
        "nn", "recipe",
    },
    "exported": {"classifiers", "errors", "generators", "nn", "suite"},  # networks as files that others can use
    # `downloads`: a job says whether its machine may fetch what the cell was planned with.
    "runner": {
        "classifiers", "data", "definitions", "downloads", "errors", "evaluation", "files", "generators", "metrics",
        "recipe", "suite",
    },
    # `data` draws the test faces of a page that emobench has drawn before.
    "report": {"data", "emotions", "errors", "evaluation", "files", "garbage", "metrics", "runner", "suite"},
    # `nn` says where weights are looked for, `generators.asking` what an emotion is called, `evaluation` what the
    # numbers of a board are, `recipe` how a cell's fit is computed, by which its hours are shown.
    "commands": {
        "attribution", "cues", "data", "downloads", "errors", "evaluation", "exported", "files", "generators",
        "metrics", "nn", "recipe", "report", "runner", "suite",
    },
    "__init__": {"commands", "errors", "exported", "report", "runner"},  # `emobench.bench`, `read_board` and `load`
    "cli": {"commands", "errors", "files"},
    "__main__": {"cli"},
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imports(nodes: Iterator[ast.AST], path: Path) -> set[str]:
    """Modules of the package that import statements name: of `from a import b` the module b where it is one."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
    return {name for name in found if name.partition(".")[0] == PACKAGE.name}


def everywhere(path: Path) -> set[str]:
    """All that a file imports, in functions and for types only too."""
    return imports(ast.walk(ast.parse(path.read_text())), path)


def at_once(path: Path) -> set[str]:
    """What is imported when the file is: at its top, and not for types only."""
    return imports(iter(ast.parse(path.read_text()).body), path)


def test_every_room_is_in_the_table_in_an_order_of_stages() -> None:
    assert set(MAY) == {room(path) for path in FILES}
    order = list(MAY)
    for place, (name, doors) in enumerate(MAY.items()):
        assert doors <= set(order[:place]), f"{name} may import what stands below it"


@pytest.mark.parametrize("name", MAY)
def test_rooms_import_only_what_they_may(name: str) -> None:
    for path in (path for path in FILES if room(path) == name):
        for imported in everywhere(path):
            to = room(MODULES[imported])
            assert to == name or to in MAY[name], f"{path.relative_to(PACKAGE)} imports {imported}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {name: at_once(path) - {name} for name, path in MODULES.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(FILES)  # CycleError names a circle


def test_models_and_data_meet_only_in_the_runner() -> None:
    for path in FILES:
        rooms = {room(MODULES[name]) for name in everywhere(path)}
        if room(path) in ("classifiers", "generators", "data"):
            rooms.add(room(path))
        meet = "data" in rooms and not rooms.isdisjoint({"classifiers", "generators"})
        assert not meet or room(path) == "runner", path


def test_reports_are_made_without_torch() -> None:
    modules = [name for name, path in MODULES.items() if room(path) == "report"]
    asked = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; print('torch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert answer.stdout.strip() == "False"
