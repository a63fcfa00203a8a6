"""docs/faults.md: each kind of fault stands there once, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PAGE = (TOP / "docs" / "faults.md").read_text(encoding="utf-8")
HEADINGS = {  # and a word or two of every kind of fault that must stand below it
    "Data and pictures": (
        "cut off, has 0 bytes, or is a web page", "60,000² pixels", "Transparent, palette", "32-bit", "metadata",
        "decoder raises", "link to a device", "other suffixes", "HEIC", "no UTF-8", "pointers of git-lfs", "archive",
        "may not be written", "Copies made from a face", "frames of one scene", "million files", "without a face",
        "cache that is damaged",
    ),
    "Labels and tables": (
        "pixel of 256", "byte order mark", "lead out", "Backslashes", "Columns by other names", "order is assumed",
        "NaN, infinity or nothing", "other words or misspelt", "under the name of a table", "own split names",
        "line without end", "name of a label file", "aliases", "Pickles",
    ),
    "Suites and names": (
        "unknown model", "another type", "same seed or judge twice", "size that the model cannot take",
        "dots, blanks and slashes", "second suite", "`<script>`", "steer a terminal", "device, a pipe, or TOML",
        "byte order mark", "is no dataset", "file of one's own", "lead back to themselves",
    ),
    "Training and sweeps": (
        "loss becomes NaN", "generated faces", "Too few samples", "out of memory", "SIGTERM", "Ctrl-C",
        "connection goes", "SIGKILL", "newest checkpoint", "moved while a fit is stopped", "carries code",
        "same suite again", "same seed with 0",
        "Several devices", "Two sweeps", "DataParallel", "Float images", "plan that was kept",
    ),
    "Records and boards": (
        "cut off or damaged", "other values, fields or types", "other columns", "names a file elsewhere",
        "behind a finished row", "file of weights", "without faces of an emotion", "board cannot be written",
        "older than its results", "hundreds of cells", "thousands of cells", "table of numbers",
    ),
    "Files of networks": (
        "differs from its network", "cannot hold", "where a file is to go", "other classes", "without end",
        "foreign ONNX",
    ),
    "Machines and networks": (
        "disk is full", "Output that cannot be written", "cache that cannot be written", "`--out`", "share a cache",
        "`~`", "may not be read", "without a home", "C locale", "No network", "W&B", "secrets",
    ),
}  # fmt: skip
KINDS = [(heading, kind) for heading, kinds in HEADINGS.items() for kind in kinds]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, its head aside."""
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@cache
def defined_in(name: str) -> frozenset[str]:
    """The tests that a file defines."""
    tree = ast.parse((TOP / name).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef))


def test_the_page_has_its_headings() -> None:
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == list(HEADINGS)


@pytest.mark.parametrize(("heading", "kind"), KINDS)
def test_each_kind_of_fault_stands_there(heading: str, kind: str) -> None:
    found = [fault for fault, *_ in rows(heading) if kind in fault]
    assert found, f"no line about {kind!r} below {heading!r}"


@pytest.mark.parametrize("heading", HEADINGS)
def test_each_line_names_tests_that_exist(heading: str) -> None:
    for cells in rows(heading):
        assert len(cells) == 3, cells
        fault, happens, named = cells
        assert fault, cells
        assert happens, cells
        tests = re.findall(r"`([^`]+)`", named)
        assert tests, f"{fault}: no test"
        assert re.sub(r"`[^`]+`|\s", "", named) == "", f"{fault}: {named} is more than names of tests"
        for test in tests:
            file, _, function = test.partition("::")
            assert function.startswith("test_"), test
            assert function in defined_in(file), f"{fault}: there is no {test}"


def test_each_relative_of_a_fault_stands_there() -> None:
    """A test of test_hostile.py that no line names would be found by nobody who looks for its fault."""
    named = set(re.findall(r"tests/test_hostile\.py::(\w+)", PAGE))
    tests = {name for name in defined_in("tests/test_hostile.py") if name.startswith("test_")}
    assert named == tests


def test_no_line_stands_twice() -> None:
    faults = [fault for heading in HEADINGS for fault, *_ in rows(heading)]
    assert len(set(faults)) == len(faults)
