"""The code of a package: what its names mean, and what some roots reach."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Union

from emobench.definitions.statements import Chain, Class, Import, Parsed, Statement, parse
from emobench.definitions.writing import Reference, begins, dotted, shape, written

PACKAGE = Path(__file__).resolve().parents[1]

Root = tuple[str | Path, str]  # a module of the package or a file, and a qualified name in it

# Names with which code is found that no name shows: the whole package counts.
_ANYTHING = (
    "importlib.import_module", "importlib.reload", "importlib.util", "importlib.machinery", "importlib.metadata.entry",
    "pkgutil", "runpy", "sys.modules", "sys._getframe", "inspect.currentframe", "inspect.stack", "gc", "builtins",
)  # fmt: skip
_OF_MODULES = ("__file__", "__name__", "__doc__", "__path__", "__package__")  # of a module, without a definition

# What may be called at the top level of a file without an effect beyond the value that it returns.
_HARMLESS = (
    "dataclasses", "typing", "typing_extensions", "functools", "collections", "enum", "abc", "contextlib", "pathlib",
    "math", "re.compile", "types", "operator", "itertools", "string", "fractions", "decimal", "annotated_types",
    "pydantic", "numpy.array", "numpy.asarray", "numpy.arange", "numpy.linspace", "numpy.eye", "numpy.ones",
    "numpy.zeros", "numpy.finfo", "numpy.diag", "numpy.outer", "numpy.sqrt", "numpy.float32", "numpy.float64",
    "torch.tensor", "torch.eye", "torch.ones", "torch.zeros", "torch.arange", "torch.diag", "torch.outer",
    "torch.device", "torch.no_grad", "torch.inference_mode",
)  # fmt: skip
_HARMLESS_METHODS = (
    "items", "keys", "values", "get", "resolve", "joinpath", "split", "strip", "join", "format", "lower", "upper",
    "replace", "copy", "index", "count", "removeprefix", "removesuffix", "setter", "getter", "fromkeys", "with_suffix",
)  # fmt: skip
_HARMFUL_BUILT_IN = ("eval", "exec", "__import__", "setattr", "delattr", "globals", "vars", "print", "open", "input")
_SHARED = ("site-packages", "dist-packages")  # folders in which libraries of many authors lie
_CONSTRUCTS = ("__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__", "__call__")


class NoDefinition(Exception):
    """A root that names nothing: the module or the name in it is gone."""


@dataclass(eq=False)
class Module:
    """A file, and what it is imported by."""

    path: Path  # of a package its `__init__.py`, or the folder where there is none
    name: str  # dotted; of a file outside the package as it is imported from its own folder
    outside: bool
    parsed: Parsed

    @property
    def folder(self) -> Path:
        """Where its submodules, and the targets of its relative imports, lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def is_package(self) -> bool:
        return self.path.is_dir() or self.path.name == "__init__.py"


_Target = tuple[Module, Statement] | Module | str  # a definition, a whole file, or a name that is not ours
_Part = Union[_Target, "_Class", "_Executed", "_Everything"]


@dataclass(frozen=True)
class Reached:
    """What some roots reach."""

    digest: str
    definitions: tuple[tuple[Path, range, tuple[str, ...]], ...]  # file, lines, names
    files: tuple[Path, ...]  # those outside the package among the files that any of it comes from

    def holds(self, file: str | Path, line: int) -> bool:
        """Whether a line of a file is part of a definition that is reached."""
        return any(line in lines for path, lines, _ in self.definitions if path == Path(file))


class Code:
    """The code of a package, and of files that use it, as it lies there when it is first looked at.

    Args:
        package: its folder.
        exempt: definitions that change no number, "module:name", or whole modules and packages: "module"; not followed.
    """

    def __init__(self, package: Path = PACKAGE, exempt: Iterable[str] = ()) -> None:
        self.package = package.resolve()
        self.exempt = frozenset(exempt)
        self._modules: dict[Path, Module] = {}
        self._named: dict[tuple[Module, str], list[_Target]] = {}
        self._asked: list[tuple[Module, str]] = []  # what is being looked up
        self._circle = False
        self._changes: dict[Statement | Module, list[tuple[Module, Statement]]] | None = None
        self._effects: dict[Statement, bool] = {}
        self._resolved: dict[Statement, list[_Part]] = {}
        self._execution: dict[Module, tuple[list[Module], list[tuple[Module, Statement]]]] = {}
        self._reached: dict[tuple[Root, ...], Reached] = {}
        self._outside: dict[Path, tuple[int, int]] = {}  # files outside -> time and size

    def digest(self, roots: Iterable[Root]) -> str:
        """SHA-256 of all that some roots reach; see `reached`."""
        return self.reached(roots).digest

    def reached(self, roots: Iterable[Root]) -> Reached:
        """What some roots reach, in an order that their code alone determines.

        Raises:
            NoDefinition: a root is not there.
        """
        self._renew()
        key = tuple(roots)
        if key not in self._reached:
            self._reached[key] = _Walk(self).over([self.root(*each) for each in key])
        return self._reached[key]

    def outside(self) -> list[Path]:
        """The files outside the package that any of the roots so far reached, and what they import of their own."""
        return list(self._outside)

    def root(self, where: str | Path, name: str) -> list[_Target]:
        """The definition of a root; of "*" the whole file."""
        module = self.file(where) if isinstance(where, Path) else self.module(where)
        if module is not None and name == "*":
            return [module]
        found = [] if module is None else self.named(module, name.partition(".")[0])
        if module is not None and module.parsed.broken:
            raise NoDefinition(f"{module.path} cannot be read: {module.parsed.broken}")
        if not found:
            raise NoDefinition(f"{where} has no `{name}`")
        return found

    def modules(self) -> list[Module]:
        """All of the package."""
        paths = sorted(path for path in self.package.rglob("*.py"))
        return [self._module(path, self._name(path)) for path in paths]

    def subclasses(self, bases: Iterable[Root]) -> list[tuple[Module, Class]]:
        """The classes of the package that derive from some, nearer ones first."""
        targets = [target for root in bases for target in self.root(*root)]

        def derives(module: Module, cls: Class, seen: frozenset[Statement] = frozenset()) -> bool:
            above = [base for base in self.bases(module, cls) if base[1] not in seen]
            return any(
                base in targets
                or (base[1].scan.cls is not None and derives(base[0], base[1].scan.cls, seen | {base[1]}))
                for base in above
            )

        found = [(module, each.scan.cls) for module in self.modules() for each in module.parsed.statements]
        return [(module, cls) for module, cls in found if cls is not None and derives(module, cls)]

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.package.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    # Names

    def _module(self, path: Path, name: str) -> Module:
        if path not in self._modules:
            outside = not path.is_relative_to(self.package)
            self._modules[path] = Module(path, name, outside, parse(path))
            if outside and path.is_file():
                self._outside[path] = _stamp(path)
        return self._modules[path]

    def _renew(self) -> None:
        """Look anew at files outside the package, where one of them has changed."""
        if any(not path.is_file() or _stamp(path) != stamp for path, stamp in self._outside.items()):
            self._outside.clear()
            self._reached.clear()
            self._named.clear()
            self._resolved.clear()
            self._execution.clear()
            self._modules = {path: module for path, module in self._modules.items() if not module.outside}

    def module(self, dotted: str) -> Module | None:
        """A module of the package by its name."""
        return self._below(self.package.parent, dotted.split("."))

    def file(self, path: Path) -> Module | None:
        """The module that a file is."""
        path = path.resolve()
        if path.is_relative_to(self.package):
            return self._module(path, self._name(path))
        return self._module(path, path.stem) if path.is_file() else None

    def _below(self, folder: Path, parts: Sequence[str]) -> Module | None:
        """The module that lies below a folder under a dotted name."""
        place = folder.joinpath(*parts)
        inside = place.is_relative_to(self.package)
        name = ".".join(place.relative_to(self.package.parent).parts if inside else parts or [place.name])
        beside = place.with_name(f"{place.name}.py")
        if (place / "__init__.py").is_file():
            return self._module(place / "__init__.py", name)
        if parts and beside.is_file():
            return self._module(beside, name)
        if place.is_dir() and (inside or any(place.glob("*.py"))):
            return self._module(place, name)
        return None

    def _located(self, module: str, level: int, importer: Module) -> Module | None:
        """The module that an import names; None where it is not ours."""
        parts = module.split(".") if module else []
        if level:
            folder = importer.folder
            for _ in range(level - 1):
                folder = folder.parent
            return self._below(folder, parts)
        if parts[0] == self.package.name:
            return self._below(self.package.parent, parts)
        for folder in _own_folders(importer, parts[0]) if importer.outside else ():
            if (found := self._below(folder, parts)) is not None:
                return found
        return None

    def submodule(self, module: Module, name: str) -> Module | None:
        """A module within a package."""
        return self._below(module.folder, [name]) if module.is_package else None

    def is_exempt(self, module: Module, name: str | None = None) -> bool:
        """Whether a definition, or a whole module, is not followed."""
        return begins(tuple(module.name.split(".")), self.exempt) or f"{module.name}:{name}" in self.exempt

    def named(self, module: Module, name: str) -> list[_Target]:
        """What a name of a module means; nothing where the module does not bind it."""
        key = (module, name)
        if key not in self._named:
            if key in self._asked:  # modules that import from each other in a circle
                self._circle = True
                return []
            self._asked.append(key)
            found = self._look_up(module, name)
            self._asked.pop()
            if self._circle and self._asked:  # not known in full
                return found
            self._circle = False
            self._named[key] = found
        return self._named[key]

    def _look_up(self, module: Module, name: str) -> list[_Target]:
        if self.is_exempt(module, name):
            return [f"exempt.{name}"]
        found: list[_Target] = []
        for each in module.parsed.bindings.get(name, ()):
            found += [(module, each)] if isinstance(each, Statement) else self._imported(each, module)
        for star in module.parsed.stars:
            source = self._located(star.module, star.level, module)
            if source is not None and (taken := self.named(source, name)):
                found += [*taken, source]
        return list(dict.fromkeys(found))

    def _imported(self, each: Import, importer: Module) -> list[_Target]:
        source = self._located(each.module, each.level, importer)
        if source is None:
            return [".".join(dotted(each))]
        if each.name is None or each.name == "*":
            return [self._open(source)]
        found = list(self.named(source, each.name))
        if (below := self.submodule(source, each.name)) is not None:
            found.append(self._open(below))
        return found or [source]  # such as by a `__getattr__` of the module

    def _open(self, module: Module) -> _Target:
        return "exempt" if self.is_exempt(module) else module

    def meaning(self, module: Module, chain: Chain, imports: Iterable[Import] = ()) -> list[tuple[_Target, Chain]]:
        """What a dotted name means in a module, and the attributes that are left of it."""
        found = [target for each in imports for target in self._imported(each, module)]
        found += self.named(module, chain[0])
        if not found:
            return [(".".join(chain), ())]  # built in, or a name of a function's own
        return list(dict.fromkeys(each for target in found for each in self._attribute(target, chain[1:])))

    def _attribute(self, target: _Target, rest: Chain) -> list[tuple[_Target, Chain]]:
        if isinstance(target, str):
            return [(".".join((target, *rest)), ())]
        if not isinstance(target, Module):
            return [(target, rest)]
        if self.is_exempt(target):
            return [(".".join(("exempt", *rest)), ())]
        if not rest:
            return [(target, rest)]
        found = list(self.named(target, rest[0]))
        if (below := self.submodule(target, rest[0])) is not None:
            found.append(below)
        if found:
            return [each for next_target in found for each in self._attribute(next_target, rest[1:])]
        return [("module", rest)] if rest[0] in _OF_MODULES else [(target, rest)]

    # Effects

    def changes(self) -> Mapping[Statement | Module, list[tuple[Module, Statement]]]:
        """What in the package changes a definition, or a module, besides what defines it."""
        if self._changes is None:
            found: dict[Statement | Module, list[tuple[Module, Statement]]] = {}
            for module in self.modules():
                for statement in module.parsed.statements:
                    for target in self._changed_by(module, statement):
                        found.setdefault(target, []).append((module, statement))
            for statements in found.values():
                if len({id(module) for module, _ in statements}) > 1:  # in an order that does not follow file names
                    statements.sort(key=lambda each: shape(each[1]))
            self._changes = found
        return self._changes

    def _changed_by(self, module: Module, statement: Statement) -> Iterator[Statement | Module]:
        found: dict[Statement | Module, None] = {}
        for how, stem, imports in statement.scan.changes:
            for target, _ in self.meaning(module, stem, imports):
                if isinstance(target, Module):
                    if how == "set":
                        found[target] = None
                elif not (isinstance(target, str) or target[1] is statement or (target[1].defines and how == "called")):
                    found[target[1]] = None
        yield from found

    def has_effect(self, module: Module, statement: Statement) -> bool:
        """Whether a statement may do more, when its file is executed, than bind its names."""
        if statement not in self._effects:
            self._effects[statement] = (
                statement.scan.effects
                or any(self._harmful(module, *call) for call in statement.scan.calls)
                or any(self._registers(module, each) for each in statement.scan.classes)
            )
        return self._effects[statement]

    def _harmful(self, module: Module, chain: Chain | None, method: str) -> bool:
        """Whether a call may do more than return a value."""
        if chain is None:
            return method not in _HARMLESS_METHODS
        return not all(self._harmless(*each) for each in self.meaning(module, chain))

    def _harmless(self, target: _Target, rest: Chain) -> bool:
        if isinstance(target, Module):
            return False
        if isinstance(target, str) and "." not in target:
            return target not in _HARMFUL_BUILT_IN
        if isinstance(target, str):
            return begins((target,), _HARMLESS) or target.rpartition(".")[2] in _HARMLESS_METHODS
        return rest[-1] in _HARMLESS_METHODS if rest else self._constructs(*target)

    def _constructs(self, module: Module, statement: Statement, seen: frozenset[Statement] = frozenset()) -> bool:
        """Whether a call makes an instance of a class, by code that is not ours, and does nothing else."""
        cls = statement.scan.cls
        if cls is None or cls.metaclasses:
            return False
        return not cls.names & set(_CONSTRUCTS) and all(
            self._constructs(*base, seen | {statement}) for base in self.bases(module, cls) if base[1] not in seen
        )

    def bases(self, module: Module, cls: Class) -> list[tuple[Module, Statement]]:
        """The definitions among the bases of a class, its own aside where it has its parent's name."""
        found = [target for base in cls.bases for target, _ in self.meaning(module, base or ("object",))]
        return [each for each in found if isinstance(each, tuple) and each[1].scan.cls is not cls]

    def _registers(self, module: Module, cls: Class, seen: frozenset[Statement] = frozenset()) -> bool:
        """Whether code of ours runs where a class is defined: a metaclass's, or an `__init_subclass__`."""
        kinds = cls.metaclasses
        if any(isinstance(found, tuple) for kind in kinds for found, _ in self.meaning(module, kind or ("",))):
            return True
        for base in self.bases(module, cls):
            parent = base[1].scan.cls
            if base[1] in seen or parent is None:
                continue
            if "__init_subclass__" in parent.names or self._registers(base[0], parent, seen | {base[1]}):
                return True
        return False

    # Statements with what their references mean

    def resolved(self, module: Module, statement: Statement) -> list[_Part]:
        """A statement in writing, with what its references mean in its module, and what changes it from elsewhere."""
        if statement not in self._resolved:
            parts: list[_Part] = []
            for part in written(statement):
                for each in [part] if isinstance(part, str) else self._meant(part, module):
                    if isinstance(each, str) and parts and isinstance(parts[-1], str):
                        parts[-1] += each
                    else:
                        parts.append(each)
            self._resolved[statement] = [*parts, *self.changes().get(statement, ())]
        return self._resolved[statement]

    def _meant(self, part: Reference, module: Module) -> Iterator[_Part]:
        if part.module is not None:
            executed = self._executed(part.module, module)
            yield from (_Executed(each) for each in executed)
            if part.kind == "import":
                yield "ours" if executed else ".".join(dotted(part.module))
            else:
                yield from self._imported(part.module, module)
        elif part.kind == "file":
            yield module
        elif part.kind == "package":
            yield _Everything()
        else:
            for target, rest in self.meaning(module, part.chain, part.imports):
                asked = part.kind == "class" and not rest
                plain = asked and isinstance(target, tuple) and self._is_plain_class(*target)
                yield _Class(target[1]) if plain and isinstance(target, tuple) else target
                yield "".join(f".{name}" for name in rest) + ";"
                if isinstance(target, str) and begins((target,), _ANYTHING):
                    yield _Everything()

    def _is_plain_class(self, module: Module, statement: Statement, seen: frozenset[Statement] = frozenset()) -> bool:
        """Whether a class leaves it to Python what its instances are."""
        cls = statement.scan.cls
        if cls is None or cls.metaclasses:
            return False
        named = cls.names | {(base or ("",))[-1] for base in cls.bases}
        if named & {"__subclasshook__", "Protocol"} or statement in self.changes():
            return False
        bases = [base for base in self.bases(module, cls) if base[1] not in seen]
        return all(self._is_plain_class(*base, seen | {statement}) for base in bases)

    def whole(self, module: Module) -> Iterator[_Target]:
        """All definitions of a file, and what it imports."""
        for statement in module.parsed.statements:
            if not any(self.is_exempt(module, name) for name in statement.scan.names):
                yield module, statement
        for sources in module.parsed.bindings.values():
            for each in sources:
                if isinstance(each, Import):
                    yield from self._imported(each, module)

    def everything(self, module: Module | None) -> list[_Target]:
        """All files of the package, and all beside a file outside it, in an order that does not follow their names."""
        modules = self.modules()
        if module is not None and module.outside:
            modules += [found for path in sorted(module.folder.glob("*.py")) if (found := self.file(path))]
        kept = [each for each in modules if not self.is_exempt(each)]
        kept.sort(key=lambda each: [shape(statement) for statement in each.parsed.statements])
        return list[_Target](kept)

    def executed_with(self, module: Module) -> tuple[list[Module], list[tuple[Module, Statement]]]:
        """What is executed where a module is imported: modules that it imports, and statements with an effect."""
        if module not in self._execution:
            imported: list[Module] = []
            for folder in (module.folder, *module.folder.parents)[module.is_package :]:
                if not (folder / "__init__.py").is_file():
                    break
                imported += filter(None, [self._below(folder.parent, [folder.name])])
            for each in module.parsed.imports:
                imported += self._executed(each, module)
            effects = [(module, each) for each in module.parsed.statements if self.has_effect(module, each)]
            effects += self.changes().get(module, [])
            exempt = self.is_exempt(module)
            self._execution[module] = ([], []) if exempt else (list(dict.fromkeys(imported)), effects)
        return self._execution[module]

    def _executed(self, each: Import, importer: Module) -> list[Module]:
        """The modules that an import executes, those that are not ours aside."""
        source = self._located(each.module, each.level, importer)
        below = None if source is None or each.name is None else self.submodule(source, each.name)
        return [module for module in (source, below) if module is not None]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _own_folders(importer: Module, first: str) -> Iterator[Path]:
    """Where a file outside the package finds modules of its author's: in its own package, beside it, and among what was
    installed with it.

    A folder without `__init__.py` is a package where Python looks for packages in the folder that holds it.
    """
    regular = True
    for top in (importer.folder, *importer.folder.parents):
        regular = regular and (top / "__init__.py").is_file()
        if top.name == first and (regular or top.parent.name in _SHARED or str(top.parent) in sys.path):
            yield top.parent
        if top.name in _SHARED and first in _installed_with(top, importer.path.relative_to(top).as_posix()):
            yield top
    if importer.folder.name not in _SHARED:
        yield importer.folder


@functools.cache
def _installed_with(site: Path, file: str) -> frozenset[str]:
    """The modules and packages at the top of the distribution that a file, relative to `site`, was installed by."""
    record = next((each for each in _records(site) if f"\n{file}," in each), "")
    return frozenset(line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in record.splitlines())


@functools.cache
def _records(site: Path) -> list[str]:
    """What each distribution in a folder installed: a line a file, its path before a comma."""
    return [f"\n{each.read_text('RECORD') or ''}" for each in distributions(path=[str(site)])]


class _Walk:
    """Follows references from roots, and numbers what it finds in the order in which it is found."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.places: dict[Statement | Module | str, int] = {}
        self.waiting: deque[tuple[Module | None, Statement | Module | str]] = deque()
        self.executed: dict[Module, None] = {}

    def over(self, roots: Iterable[Iterable[_Target]]) -> Reached:
        heads = [[self.place(target) for target in targets] for targets in roots]
        written: list[list[str | _Class]] = []
        found: list[tuple[Path, range, tuple[str, ...]]] = []
        while self.waiting:
            module, each = self.waiting.popleft()
            if isinstance(each, Statement):
                assert module is not None
                written.append(self._statement(module, each))
                found.append((module.path, each.lines, tuple(each.scan.names)))
            elif isinstance(each, Module):
                written.append([self.place(target) for target in self.code.whole(each)])
            else:
                written.append([self.place(target) for target in self.code.everything(module)])
        texts = [[part if isinstance(part, str) else part.text(self.places) for part in parts] for parts in written]
        digest = hashlib.sha256(json.dumps([heads, texts]).encode()).hexdigest()
        outside = sorted({module.path for module in self.executed if module.outside})
        return Reached(digest, tuple(found), tuple(outside))

    def place(self, target: _Target) -> str:
        """How what a reference means is written: its number, or a name that is not ours."""
        if isinstance(target, str):
            return target
        if isinstance(target, Module):
            self.execute(target)
            return self._number(target, target)
        self.execute(target[0])
        return self._number(target[1], target[0])

    def _number(self, each: Statement | Module | str, module: Module | None) -> str:
        if each not in self.places:
            self.places[each] = len(self.places)
            self.waiting.append((module, each))
        return f"#{self.places[each]}"

    def execute(self, module: Module) -> None:
        """What is done where a module is imported."""
        if module in self.executed:
            return
        self.executed[module] = None
        imported, effects = self.code.executed_with(module)
        for each in imported:
            self.execute(each)
        for statement in effects:
            self.place(statement)

    def _statement(self, module: Module, statement: Statement) -> list[str | _Class]:
        parts: list[str | _Class] = []
        for part in self.code.resolved(module, statement):
            if isinstance(part, str | _Class):
                parts.append(part)
            elif isinstance(part, _Everything):
                within = module.folder if module.outside else self.code.package
                parts.append(self._number(f"all of {within}", module))
            elif isinstance(part, _Executed):
                self.execute(part.module)
            else:
                parts.append(self.place(part))
        return parts


@dataclass(frozen=True)
class _Class:
    """A class that is only asked for: its number where it is reached otherwise, else its name."""

    statement: Statement

    def text(self, places: Mapping[Any, int]) -> str:
        place = places.get(self.statement)
        return next(iter(self.statement.scan.names)) if place is None else f"#{place}"


@dataclass(frozen=True)
class _Executed:
    """A module that is imported inside a function."""

    module: Module


@dataclass(frozen=True)
class _Everything:
    """All of the package, where it cannot be said which part of it."""
