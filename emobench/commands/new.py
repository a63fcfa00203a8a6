"""`emobench new`: a model or a dataset of one's own, as a file that works and a test beside it that passes."""

from __future__ import annotations

import keyword
import os
import re
import shlex
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from string import Template
from typing import Literal

from emobench.errors import SuiteError
from emobench.files import write_text
from emobench.suite.catalog import Kind, classes, variants_of

What = Literal["classifier", "generator", "dataset"]
TEMPLATES = Path(__file__).parents[1] / "templates"
_NAME = re.compile("[a-z][a-z0-9_-]*")


def new(what: What, name: str, out: Path | None) -> int:
    """Write NAME.py and test_NAME.py beside it, and print the suite that uses it and the commands.

    Args:
        name: by which suites and boards call it.
        out: where the file is written; None: NAME.py, here.

    Returns:
        The exit code, 0.

    Raises:
        SuiteError: the name or the file is none that can be used, or a file is there already.
    """
    _check_name("dataset" if what == "dataset" else "model", name)
    path = Path(f"{name.replace('-', '_')}.py") if out is None else out
    test = path.with_name(f"test_{path.name}")
    for each in (path, test):
        if os.path.lexists(each):
            raise SuiteError(f"{each} is there already, and is not overwritten. Name another file by --out")
    _check_file(path)
    words = {"name": name, "Class": _class_name(name), "file": path.name, "module": path.stem}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _filled(f"{what}.py", words))
    write_text(test, _filled(f"{what}_test.py", words))
    suite = path.with_name(f"try-{name}.toml")
    print(f"Written: {path} and {test}, which tests it:\n\n  python -m pytest {shlex.quote(str(test))}\n")
    print(f"A suite with it, such as {suite} (its files are named from the suite's own folder on):\n")
    print("".join(f"  {line}".rstrip() + "\n" for line in _filled(f"{what}.toml", words).splitlines()))
    print(f"  emobench bench {shlex.quote(str(suite) if os.sep in str(suite) else suite.name)}")
    return 0


def _filled(template: str, words: dict[str, str]) -> str:
    return Template((TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")).substitute(words)


def _class_name(name: str) -> str:
    """`my-small_net` -> `MySmallNet`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split("[-_]", name))


def _check_name(kind: Kind, name: str) -> None:
    """Raise a SuiteError where a name is no word for a suite, or is taken."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(_class_name(name)):
        raise SuiteError(f"'{name}' is no name such as small_net: a small letter, then those, digits, _ or -")
    taken = {every for own, cls in classes(kind).items() for every in (own, *variants_of(cls))}
    if name in taken:
        raise SuiteError(f"there is a {kind} '{name}' already; `emobench {kind}s` lists all. Choose another name")


def _check_file(path: Path) -> None:
    """Raise a SuiteError where a file is none that Python imports by its name."""
    if path.suffix != ".py" or not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise SuiteError(f"{path}: no file that Python can import, such as small.py. Name one by --out")
    if path.stem in sys.stdlib_module_names or path.stem in packages_distributions():
        raise SuiteError(
            f"{path}: a module `{path.stem}` is installed, and Python would import that one. Name another file by --out"
        )
