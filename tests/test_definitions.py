"""What changes the digest of a definition, and what must not: on small packages, and on a copy of the real one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emobench.definitions import Code, NoDefinition

Files = dict[str, str]

BASE: Files = {
    "__init__.py": '"""A package."""\n',
    "model.py": '''
"""A model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

import pkg.tables as tables
from pkg import constants
from pkg.base import Base, logged
from pkg.helpers import scaled, unused_helper

if TYPE_CHECKING:
    from pkg.types_only import Shape

RATE = 3
NAMES = ["a"]
NAMES.append("b")


class Model(Base):
    """A model."""

    name = "model"
    width: int = 4

    @logged(level=1)
    def forward(self, x: float, times: int = 2) -> float:
        """A face to a number."""
        if x < 0:
            raise ValueError(f"{x} is below zero, not {self.width}" + " at all")
        assert x < 100, "too large"
        from pkg.late import shift

        y: float = scaled(x) * RATE  # why
        return F.relu(y) + shift(x) + tables.OFFSETS["a"] + len(NAMES) + constants.BIAS + math.pi * times

    def backward(self, x: float, *rest: int) -> float:
        return x


def unrelated() -> int:
    return 1
''',
    "base.py": """
from pkg.deep import factor


def logged(level):
    def outer(function):
        return function
    return outer


class Root:
    def prepare(self):
        return 1


class Base(Root):
    def helper(self):
        return factor(2)
""",
    "helpers.py": """
from pkg.deep import factor


def scaled(x):
    return x * factor(1)


def unused_helper():
    return 0


def other():
    return 0
""",
    "deep.py": """
SCALE = 2.0


def factor(n):
    return n * SCALE


def twice(n):
    return n * SCALE
""",
    "late.py": "def shift(x):\n    return x + 1\n",
    "tables.py": 'OFFSETS = {"a": 1}\nOTHERS = {"a": 1}\n',
    "constants.py": "BIAS = 1\nELSE = 2\n",
    "types_only.py": "class Shape:\n    sides = 3\n",
}
ROOTS = (("pkg.model", "Model"),)


def write(folder: Path, files: Files) -> Path:
    for name, text in files.items():
        path = folder / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "pkg"


def digest(folder: Path, files: Files, roots: tuple[tuple[str | Path, str], ...] = ROOTS) -> str:
    return Code(write(folder, files)).digest(roots)


def changed(files: Files, name: str, old: str, new: str) -> Files:
    assert old in files[name]
    return {**files, name: files[name].replace(old, new)}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model.py", '"""A model."""\n\n    name', '"""Another text."""\n\n    name'),
        ("model.py", '"""A face to a number."""', "pass"),
        ("model.py", "  # why", "  # because"),
        ("model.py", "\n\nRATE", "\n\n\n\n# rates\n\nRATE"),
        ("model.py", '{x} is below zero, not {self.width}" + " at all', "no: {math.sqrt(x)}"),
        ("model.py", "too large", "much too large"),
        ("model.py", "backward(self, x: float, *rest: int) -> float", "backward(self, x: Any, *rest) -> Shape"),
        ("model.py", "y: float = ", "y = "),
        ("model.py", "def unrelated() -> int:\n    return 1", "def unrelated() -> int:\n    return 2"),
        ("model.py", "import math\nfrom typing", "import math as math\nfrom typing"),
        ("model.py", "from pkg import constants", "import pkg.constants as constants"),
        ("model.py", "scaled, unused_helper", "scaled"),
        ("helpers.py", "def unused_helper():\n    return 0", "def unused_helper():\n    return 1"),
        ("helpers.py", "def other():\n    return 0", ""),
        ("tables.py", 'OTHERS = {"a": 1}', 'OTHERS = {"a": 2}'),
        ("constants.py", "ELSE = 2", "ELSE = 3"),
        ("types_only.py", "sides = 3", "sides = 4"),
        ("deep.py", "def twice(n):", '"""A text."""\ndef thrice(n):'),
    ],
)
def test_what_can_change_no_number_leaves_the_digest(tmp_path: Path, name: str, old: str, new: str) -> None:
    assert digest(tmp_path / "a", BASE) == digest(tmp_path / "b", changed(BASE, name, old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model.py", "RATE = 3", "RATE = 4"),
        ("model.py", "RATE = 3", "RATE = 3.0"),
        ("model.py", "RATE = 3", "RATE = 3\nRATE += 1"),
        ("model.py", 'NAMES.append("b")', 'NAMES.append("c")'),
        ("model.py", 'NAMES.append("b")', ""),
        ("model.py", 'NAMES.append("b")', "NAMES[0] = 'c'"),
        ("model.py", 'NAMES.append("b")', "NAMES.append('b')\ndef grow():\n    global NAMES\n    NAMES = []"),
        ("model.py", 'NAMES.append("b")', "NAMES.append('b')\ndef grow():\n    NAMES.clear()"),
        ("model.py", 'NAMES.append("b")', "if math.pi > 3:\n    NAMES.append('b')"),
        ("model.py", 'name = "model"', 'name = "other"'),
        ("model.py", "width: int = 4", "width: int = 5"),
        ("model.py", "width: int = 4", "width: float = 4"),
        ("model.py", "times: int = 2", "times: int = 3"),
        ("model.py", "level=1", "level=2"),
        ("model.py", "x: float, times: int = 2", "x: int, times: int = 2"),  # `logged` might look at it
        ("model.py", "ValueError", "KeyError"),
        ("model.py", "class Model(Base)", "class Model(Root)"),
        ("model.py", "class Model(Base)", "class Model(Base, keyword=1)"),
        ("model.py", "import functional as F", "import other as F"),
        ("model.py", "F.relu", "F.gelu"),
        ("model.py", "scaled(x)", "unused_helper()"),
        ("model.py", "constants.BIAS", "constants.ELSE"),
        ("base.py", "return 1", "return 2"),
        ("base.py", "return function", "return None"),
        ("base.py", "factor(2)", "factor(3)"),
        ("helpers.py", "x * factor", "x + factor"),
        ("deep.py", "SCALE = 2.0", "SCALE = 2.5"),
        ("late.py", "x + 1", "x + 2"),
        ("tables.py", 'OFFSETS = {"a": 1}', 'OFFSETS = {"a": 2}'),
        ("constants.py", "BIAS = 1", "BIAS = 2"),
        # A patch, wherever it stands.
        ("tables.py", "OTHERS", "from pkg import helpers\nhelpers.scaled = abs\nOTHERS"),
        ("types_only.py", "sides = 3", "sides = 3\nimport pkg.deep\npkg.deep.SCALE = 1"),
        ("types_only.py", "sides = 3", "sides = 3\nfrom pkg import deep\nsetattr(deep, 'SCALE', 1)"),
        ("types_only.py", "sides = 3", "sides = 3\nfrom pkg.base import Base\nBase.helper = abs"),
        ("types_only.py", "sides = 3", "sides = 3\ndef f():\n    from pkg.tables import OFFSETS\n    OFFSETS['a'] = 9"),
        # What importing a module does.
        ("late.py", "def shift", "print('side effect')\ndef shift"),
        ("__init__.py", '"""A package."""', "import os\nos.environ['X'] = '1'"),
    ],
)
def test_what_can_change_a_number_changes_the_digest(tmp_path: Path, name: str, old: str, new: str) -> None:
    assert digest(tmp_path / "a", BASE) != digest(tmp_path / "b", changed(BASE, name, old, new))


def test_moving_a_module_changes_nothing(tmp_path: Path) -> None:
    moved = {
        name: text.replace("pkg.deep", "pkg.room.depths").replace("pkg.base", "pkg.foundation")
        for name, text in BASE.items()
    }
    moved = {{"base.py": "foundation.py", "deep.py": "room/depths.py"}.get(name, name): moved[name] for name in moved}
    moved["room/__init__.py"] = ""
    assert digest(tmp_path / "a", BASE) == digest(tmp_path / "b", moved)


def test_moving_a_definition_to_a_file_of_its_own_changes_nothing(tmp_path: Path) -> None:
    moved = changed(BASE, "deep.py", "SCALE = 2.0", "from pkg.scales import SCALE")
    moved["scales.py"] = "SCALE = 2.0\n"
    assert digest(tmp_path / "a", BASE) == digest(tmp_path / "b", moved)


def test_the_roots_module_and_the_package_may_be_renamed(tmp_path: Path) -> None:
    other = {name: text.replace("pkg", "package") for name, text in BASE.items()}
    other["network.py"] = other.pop("model.py")
    write(tmp_path / "b", other).rename(tmp_path / "b" / "package")
    renamed = Code(tmp_path / "b" / "package").digest([("package.network", "Model")])
    assert renamed == digest(tmp_path / "a", BASE)


def test_what_names_refer_to_is_tied(tmp_path: Path) -> None:
    one = {
        "__init__.py": "",
        "a.py": "def f():\n    return 1\n\n\ndef g():\n    return 2\n",
        "m.py": "from pkg.a import f, g\n\n\ndef go():\n    return f() - g()\n",
    }
    other = changed(one, "m.py", "import f, g", "import f as g, g as f")
    assert digest(tmp_path / "a", one, (("pkg.m", "go"),)) != digest(tmp_path / "b", other, (("pkg.m", "go"),))
    equal = changed(one, "m.py", "from pkg.a import f, g", "import pkg.a\nf = 0")
    equal = changed(equal, "m.py", "f() - g()", "pkg.a.f() - pkg.a.g()")
    assert digest(tmp_path / "a", one, (("pkg.m", "go"),)) == digest(tmp_path / "c", equal, (("pkg.m", "go"),))


REACHED = {
    "tuple assignment": ("A, (B, *C) = (1, (2, VALUE))\ndef root():\n    return C\n",),
    "if and else": ("import sys\nif sys.platform:\n    X = 1\nelse:\n    X = VALUE\ndef root():\n    return X\n",),
    "try": ("try:\n    import numpy as np\nexcept ImportError:\n    np = VALUE\ndef root():\n    return np\n",),
    "for": ("T = {}\nfor k in range(3):\n    T[k] = VALUE\ndef root():\n    return T\n",),
    "with": ("import contextlib\nwith contextlib.nullcontext(VALUE) as X:\n    pass\ndef root():\n    return X\n",),
    "walrus": ("L = [Y := VALUE]\ndef root():\n    return Y\n",),
    "match": ("match 1:\n    case int(x):\n        Z = VALUE\ndef root():\n    return Z, x\n",),
    "update": ("T = {}\nT.update(a=VALUE)\ndef root():\n    return T\n",),
    "operator": ("T = {}\nT |= {'a': VALUE}\ndef root():\n    return T\n",),
    "filled by a function": ("T = {}\ndef fill(t):\n    t['a'] = VALUE\nfill(T)\ndef root():\n    return T\n",),
    "registered by a decorator": (
        "T = {}\ndef register(f):\n    T[f.__name__] = f\n    return f\n@register\ndef a():\n    return VALUE\n"
        "def root():\n    return T['a']()\n",
    ),
    "registered by a base class": (
        "class Base:\n    all = []\n    def __init_subclass__(cls):\n        Base.all.append(cls)\n"
        "class A(Base):\n    x = VALUE\ndef root():\n    return Base.all[0].x\n",
    ),
    "registered by a metaclass": (
        "ALL = []\nclass Meta(type):\n    def __init__(cls, *a):\n        ALL.append(cls)\n"
        "class A(metaclass=Meta):\n    x = VALUE\ndef root():\n    return ALL\n",
    ),
    "singledispatch": (
        "import functools\n@functools.singledispatch\ndef f(x):\n    return 0\n@f.register\ndef _(x: int):\n"
        "    return VALUE\ndef root():\n    return f(1)\n",
    ),
    "annotation that dispatches": (
        "import functools\n@functools.singledispatch\ndef f(x):\n    return 0\n@f.register\ndef _(x: KIND):\n"
        "    return 1\nKIND = {1: int}[VALUE]\ndef root():\n    return f(1)\n",
    ),
    "overloads": (
        "from typing import overload\n@overload\ndef f(x: int) -> int: ...\n@overload\ndef f(x: str) -> str: ...\n"
        "def f(x):\n    return VALUE\ndef root():\n    return f(1)\n",
    ),
    "typed dict": (
        "from typing import Annotated, TypedDict\nclass T(TypedDict):\n    a: Annotated[int, VALUE]\n"
        "def root():\n    return T(a=1)\n",
    ),
    "string annotation of a class": (
        "import dataclasses\nclass B:\n    x = VALUE\n@dataclasses.dataclass\nclass T:\n    b: 'B'\n"
        "def root():\n    return T\n",
    ),
    "nested functions": ("def root():\n    def inner():\n        return lambda: VALUE\n    return inner\n",),
    "comprehension": ("def root():\n    return [VALUE for _ in range(3) if _]\n",),
    "default": ("def root(x=[VALUE]):\n    return x\n",),
    "class decorator": ("def mark(x):\n    return lambda cls: cls\n@mark(VALUE)\nclass root:\n    pass\n",),
    "keyword of a class": ("class B:\n    def __init_subclass__(cls, x): ...\nclass root(B, x=VALUE):\n    pass\n",),
    "computed getattr": ("X = VALUE\ndef root(o, n):\n    return getattr(o, n)\n",),
    "globals": ("X = VALUE\ndef root(n):\n    return globals()[n]\n",),
    "eval": ("X = VALUE\ndef root(n):\n    return eval(n)\n",),
    "class asked for through itself": (
        "class Meta(type):\n    def __instancecheck__(cls, x):\n        return VALUE\nclass A(metaclass=Meta):\n"
        "    pass\nclass B(A):\n    pass\ndef root(x):\n    return isinstance(x, B)\n",
    ),
    "protocol asked for": (
        "from typing import Protocol, runtime_checkable\n@runtime_checkable\nclass A(Protocol):\n    x = VALUE\n"
        "def root(x):\n    return isinstance(x, (int, A))\n",
    ),
    "through a star": ("from pkg.a import *\ndef root():\n    return X\n", "X = VALUE\n"),
    "through a name that a module passes on": (
        "from pkg import X\ndef root():\n    return X\n",
        "X = VALUE\n",
        "from pkg.a import X\n",
    ),
    "through a relative import": ("from . import a as b\ndef root():\n    return b.X\n", "X = VALUE\n"),
    "through a submodule": ("import pkg\ndef root():\n    import pkg.a\n    return pkg.a.X\n", "X = VALUE\n"),
    "through a module's getattr": (
        "from pkg.a import X\ndef root():\n    return X\n",
        "def __getattr__(name):\n    return VALUE\n",
    ),
    "through a module as a value": ("from pkg import a\ndef root(n):\n    return vars(a)[n]\n", "X = VALUE\n"),
    "through a module's dict": ("import pkg.a\ndef root(n):\n    return pkg.a.__dict__[n]\n", "X = VALUE\n"),
    "through a computed getattr of a module": (
        "import pkg.a\ndef root(n):\n    return getattr(pkg.a, n)\n",
        "X = VALUE\n",
    ),
    "through import_module": (
        "from importlib import import_module\ndef root(n):\n    return import_module(n)\n",
        "X = VALUE\n",
    ),
    "through import_module by name": (
        "import importlib as i\ndef root():\n    return i.import_module('pkg.a').X\n",
        "X = VALUE\n",
    ),
    "through sys.modules": ("import sys\ndef root(n):\n    return sys.modules[n]\n", "X = VALUE\n"),
    "through subclasses": (
        "class B: ...\ndef root():\n    return B.__subclasses__()\n",
        "from pkg.m import B\nclass C(B):\n    x = VALUE\n",
    ),
    "through stars in a circle": (
        "from pkg.a import *\ndef root():\n    return X\n",
        "from pkg.m import *\nX = VALUE\n",
    ),
    "imported for its effect": (
        "import pkg.a\ndef root():\n    return 1\n",
        "import torch\ntorch.set_num_threads(VALUE)\n",
    ),
    "imported by a name for its effect": (
        "from pkg import a\ndef root():\n    return 1\n",
        "import torch\ntorch.nn.Linear.x = VALUE\n",
    ),
    "imported in a function for its effect": (
        "def root():\n    import pkg.a\n",
        "import torch\nX = torch.manual_seed(VALUE)\n",
    ),
    "patched by a function of another module": (
        "X = 1\ndef root():\n    return X\n",
        "def f():\n    from pkg import m\n    m.X = VALUE\n",
    ),
    "patched class": ("class A: ...\ndef root():\n    return A\n", "import pkg.m as m\nm.A.x = VALUE\n"),
    "patched by a loop": (
        "class A: ...\ndef root():\n    return A\n",
        "from pkg.m import A\nfor n in 'ab':\n    setattr(A, n, VALUE)\n",
    ),
}


@pytest.mark.parametrize("case", REACHED)
def test_what_is_reached(tmp_path: Path, case: str) -> None:
    """`VALUE` is reached: another one changes the digest; a function that nobody knows does not."""
    texts = dict(zip(("m.py", "a.py", "__init__.py"), REACHED[case], strict=False))

    def with_value(value: str) -> Files:
        return {"__init__.py": "", **{name: text.replace("VALUE", value) for name, text in texts.items()}}

    roots = (("pkg.m", "root"),)
    assert digest(tmp_path / "a", with_value("1"), roots) != digest(tmp_path / "b", with_value("2"), roots)
    assert digest(tmp_path / "a", with_value("1"), roots) == digest(tmp_path / "c", with_value("1"), roots)


NOT_REACHED = {
    "method that only has the name": (
        "class A:\n    def run(self):\n        return VALUE\ndef root(x):\n    return x.run()\n"
    ),
    "class that is only asked for": "class A:\n    x = VALUE\ndef root(x):\n    return isinstance(x, A | int)\n",
    "annotation": "class A:\n    x = VALUE\ndef root(x: A) -> A:\n    y: A = x\n    return y\n",
    "script": "def root():\n    return 1\nif __name__ == '__main__':\n    print(VALUE)\n",
    "type checking": (
        "import typing\nif typing.TYPE_CHECKING:\n    X = VALUE\nelse:\n    X = 1\ndef root():\n"
        "    if not typing.TYPE_CHECKING:\n        return X\n    else:\n        return VALUE\n"
    ),
    "percent and format in an error": "def root(x):\n    raise ValueError('VALUE %s' % x, 'VALUE {}'.format(x))\n",
    "constructed constants": (
        "import dataclasses, re\n@dataclasses.dataclass\nclass C:\n    x: int\n"
        "OTHER = C(VALUE)\nP = re.compile('VALUE')\ndef root():\n    return C\n"
    ),
    "own attribute by a computed name": (
        "Y = VALUE\nclass root:\n    def f(self, n):\n        return getattr(self, n)\n"
    ),
    "exempt": "def left_out():\n    return VALUE\ndef root():\n    return left_out()\n",
}


@pytest.mark.parametrize("case", NOT_REACHED)
def test_what_is_not_reached(tmp_path: Path, case: str) -> None:
    found = []
    for value in ("1", "2"):
        package = write(tmp_path / value, {"__init__.py": "", "m.py": NOT_REACHED[case].replace("VALUE", value)})
        found.append(Code(package, exempt=["pkg.m:left_out"]).digest([("pkg.m", "root")]))
    assert found[0] == found[1]


def test_which_exempt_definition_is_called_counts(tmp_path: Path) -> None:
    text = "def one(): ...\ndef two(): ...\ndef root():\n    return one()\n"
    package = write(tmp_path / "a", {"m.py": text})
    other = write(tmp_path / "b", {"m.py": text.replace("return one", "return two")})
    exempt = ["pkg.m:one", "pkg.m:two"]
    assert Code(package, exempt).digest([("pkg.m", "root")]) != Code(other, exempt).digest([("pkg.m", "root")])


def test_a_root_that_is_gone_is_named(tmp_path: Path) -> None:
    code = Code(write(tmp_path, BASE))
    with pytest.raises(NoDefinition, match=r"pkg\.model has no `Gone`"):
        code.digest([("pkg.model", "Gone")])
    with pytest.raises(NoDefinition, match=r"pkg\.gone has no `Model`"):
        code.digest([("pkg.gone", "Model")])


# Files of users


USER = {
    "models.py": (
        "from pkg.base import Base\nfrom blocks import block\nimport torch\n\n\nclass Small(Base):\n    x = block\n"
    ),
    "blocks.py": "def block():\n    return 1\n\n\ndef other():\n    return 1\n",
    "wandb/log.txt": "a folder that is no package\n",
}


def users(folder: Path, files: Files) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "models.py"


def test_files_of_users_are_followed_into_their_folder_and_into_the_package(tmp_path: Path) -> None:
    package = write(tmp_path / "a", BASE)
    before = Code(package).reached([(users(tmp_path / "one", USER), "Small")])
    assert before.files == (tmp_path / "one" / "blocks.py", tmp_path / "one" / "models.py")
    same = users(tmp_path / "two", changed(USER, "blocks.py", "other():\n    return 1", "other():\n    return 2"))
    assert Code(package).digest([(same, "Small")]) == before.digest
    changes = changed(USER, "blocks.py", "block():\n    return 1", "block():\n    return 2")
    assert Code(package).digest([(users(tmp_path / "three", changes), "Small")]) != before.digest
    other = write(tmp_path / "b", changed(BASE, "deep.py", "SCALE = 2.0", "SCALE = 3.0"))
    assert Code(other).digest([(tmp_path / "one" / "models.py", "Small")]) != before.digest


def test_a_file_of_a_user_is_looked_at_again_when_it_has_changed(tmp_path: Path) -> None:
    code = Code(write(tmp_path / "a", BASE))
    path = users(tmp_path / "one", USER)
    before = code.digest([(path, "Small")])
    assert code.digest([(path, "Small")]) == before
    (tmp_path / "one" / "blocks.py").write_text("def block():\n    return 'another'\n")
    assert code.digest([(path, "Small")]) != before


def test_a_package_of_a_user_is_its_own_and_other_libraries_are_not(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    files = {
        "theirs/__init__.py": "",
        "theirs/models.py": (
            "import library\nfrom theirs.parts import part\n\n\nclass Small:\n    x = part, library.y\n"
        ),
        "theirs/parts.py": "part = 1\n",
        "library.py": "y = 1\n",
    }
    users(site, files)
    package = write(tmp_path / "a", BASE)
    root = (site / "theirs" / "models.py", "Small")
    before = Code(package).digest([root])
    (site / "library.py").write_text("y = 'another'\n")
    assert Code(package).digest([root]) == before
    (site / "theirs" / "parts.py").write_text("part = 'another'\n")
    assert Code(package).digest([root]) != before


INSTALLED = {
    "a package without __init__.py": {"theirs/models.py": "from theirs.parts import part", "theirs/parts.py": ""},
    "two modules of a distribution": {"models.py": "from parts import part", "parts.py": ""},
    "two packages of a distribution": {
        "theirs/__init__.py": "",
        "theirs/models.py": "from parts import part",
        "parts/__init__.py": "",
    },
}


@pytest.mark.parametrize("case", INSTALLED)
def test_what_is_installed_together_is_followed_and_other_distributions_are_not(tmp_path: Path, case: str) -> None:
    site = tmp_path / "site-packages"
    model = "\nimport library\n\n\nclass Small:\n    x = part, library.y\n"
    files = {name: text and text + model for name, text in INSTALLED[case].items()}
    (parts,) = (name for name in files if "parts" in name)
    record = "".join(f"{name},sha256=x,1\n" for name in files)
    users(site, {**files, parts: "part = 1\n", "ours-1.0.dist-info/RECORD": record})
    users(site, {"library.py": "y = 1\n", "other-1.0.dist-info/RECORD": "library.py,,\n"})
    (root,) = ((site / name, "Small") for name in files if name.endswith("models.py"))
    package = write(tmp_path / "a", BASE)
    before = Code(package).digest([root])
    (site / "library.py").write_text("y = 'another'\n")
    assert Code(package).digest([root]) == before
    (site / parts).write_text("part = 'another'\n")
    assert Code(package).digest([root]) != before


def test_a_package_without_init_that_python_finds_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that is installed to be edited."""
    files = {"theirs/models.py": "from theirs.parts import part\n\n\nclass Small:\n    x = part\n"}
    users(tmp_path / "src", {**files, "theirs/parts.py": "part = 1\n"})
    root = (tmp_path / "src" / "theirs" / "models.py", "Small")
    package = write(tmp_path / "a", BASE)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    before = Code(package).digest([root])
    (tmp_path / "src" / "theirs" / "parts.py").write_text("part = 'another'\n")
    assert Code(package).digest([root]) != before


def test_a_root_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = users(tmp_path / "one", {"models.py": "class Small(:\n"})
    with pytest.raises(NoDefinition, match=r"models\.py cannot be read: invalid syntax \(line 1\)"):
        Code(write(tmp_path, BASE)).digest([(path, "Small")])


def test_a_computed_import_of_a_user_counts_the_whole_folder_and_the_package(tmp_path: Path) -> None:
    text = "import importlib\n\n\nclass Small:\n    def f(self, n):\n        return importlib.import_module(n)\n"
    package = write(tmp_path / "a", BASE)
    path = users(tmp_path / "one", {**USER, "models.py": text})
    before = Code(package).digest([(path, "Small")])
    (tmp_path / "one" / "blocks.py").write_text("def block():\n    return 'another'\n")
    after = Code(package).digest([(path, "Small")])
    assert after != before
    other = write(tmp_path / "b", changed(BASE, "constants.py", "ELSE = 2", "ELSE = 3"))
    assert Code(other).digest([(path, "Small")]) != after


def test_a_broken_file_beside_a_users_counts_as_it_is(tmp_path: Path) -> None:
    package = write(tmp_path / "a", BASE)
    one = users(tmp_path / "one", {**USER, "blocks.py": "def block(:\n"})
    two = users(tmp_path / "two", {**USER, "blocks.py": "def block(::\n"})
    assert Code(package).digest([(one, "Small")]) != Code(package).digest([(two, "Small")])


# Versions of Python

SYNTAX = r'''
"""Everything that versions of Python might read differently."""

from __future__ import annotations

import dataclasses
from typing import Annotated, NamedTuple

TEXT = "a" f"b{1}c" "d" f"{TEXT!r:>{4}}{{}}" f"" f"{1:}" "\N{BULLET}é\ud800" u"u" if 0 else f'{"x"}' f"{1=}"
BYTES = b"bytes" rb"\x"
NUMBERS = (-1, 1_000, 0x10, 1e-3, 1j, -0.0, 1e400, True, None, ..., 10**20)
LONG = f"{'nested' + f'{1:{2}.{3}f}'}" f"plain" "text"


@dataclasses.dataclass(frozen=True)
class Point:
    """A point."""

    x: Annotated[int, "px"] = 0
    y: "int" = dataclasses.field(default=1)


class Pair(NamedTuple):
    first: int
    second: list[int] = []


async def root(a, /, b: int = 1, *args: int, c=2, **kwargs: str) -> None:
    """A text."""
    global TEXT
    try:
        with open(a) as file, open(b):
            x = [y async for y in a if y]
    except* (ValueError, TypeError) as error:
        raise RuntimeError(f"{error}") from error
    else:
        del x
    finally:
        pass
    match a:
        case {"k": [1, *rest], **others} if rest:
            return others
        case Point(x=0, y=z) | Pair(z, _):
            return z
        case -1 | "s" | None:
            return LONG
    assert a, f"{b}"
    lambda q, *r: (yield q)
    while (n := len(args)) > 1 and not a is None:
        n -= 1
    return f"{n:>{b}}", {**kwargs, "a": a[1:2, ::3]}, {*args}, (await a), Point() @ Pair, NUMBERS, TEXT, BYTES
'''
DIGEST = "8539be1c9098bac8f59a3be2ed809b6b18a240418ed7468c54b6547806083968"
PRINT = """
import sys
from pathlib import Path
from emobench.definitions import Code
print(Code(Path(sys.argv[1])).digest([("pkg.m", "root")]))
"""


def interpreters() -> list[str]:
    """Other versions of Python on this machine, each once."""
    paths = [shutil.which(f"python3.{minor}") for minor in range(11, 15)]
    paths += [str(path) for path in sorted((Path.home() / ".pyenv" / "versions").glob("3.1[1-9]*/bin/python3"))]
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": ""}
    for path in filter(None, paths):
        asked = [path, "-c", "import sys; print(f'{sys.version_info.major}.{sys.version_info.minor}')"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            found.setdefault(answer.stdout.strip(), path)
    return list(filter(None, found.values()))


def test_the_same_code_has_the_same_digest_on_every_python(tmp_path: Path) -> None:
    package = write(tmp_path, {"__init__.py": "", "m.py": SYNTAX})
    assert Code(package).digest([("pkg.m", "root")]) == DIGEST


@pytest.mark.skipif(not interpreters(), reason="no second version of Python on this machine; CI runs both")
def test_another_python_on_this_machine_agrees(tmp_path: Path) -> None:
    package = write(tmp_path, {"__init__.py": "", "m.py": SYNTAX})
    here = Path(__file__).parents[1]
    for python in interpreters():
        command = [python, "-c", PRINT, str(package)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False)
        assert done.returncode == 0, (python, done.stderr)
        assert done.stdout.strip() == DIGEST, python


REAL = ("emobench.metrics.recognition", "tally")  # a piece of the package that hardly ever changes; then this does too
REAL_DIGEST = "583787995f7a52d904562ff875bb9b526136f58951db8042ba882d3e38fe2e9e"
EVERY = """
import json
from emobench.definitions.roots import catalogue, catalogued, current, evaluation_code, fit_code
datasets = catalogue("dataset").values()
fits = {name: fit_code(model, datasets, True) for name, model in catalogue("model").items()}
tracks = {name: evaluation_code(catalogued([name])) for name in catalogue("track")}
print(json.dumps({"fits": fits, "tracks": tracks, "piece": current().digest([tuple(PIECE)])}))
"""


def digests_of_the_package(python: str) -> dict[str, Any]:
    """Of all models with all datasets and of all tracks, as a Python without any library finds them."""
    here = Path(__file__).parents[1]
    command = [python, "-I", "-c", f"import sys\nsys.path.insert(0, {str(here)!r})\nPIECE = {REAL!r}\n{EVERY}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (python, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_the_package_itself_has_the_same_digests_on_every_python() -> None:
    found = digests_of_the_package(sys.executable)
    assert found["piece"] == REAL_DIGEST
    assert len(found["fits"]) > 10
    assert len({*found["fits"].values(), *found["tracks"].values()}) == len(found["fits"]) + len(found["tracks"])
    for python in interpreters():
        assert digests_of_the_package(python) == found, python
