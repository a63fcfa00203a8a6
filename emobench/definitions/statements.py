"""A file by itself: the statements at its top level, and what each of them binds, changes, calls and imports.

Of the whole package no syntax trees are kept, which would take a hundred megabytes: of each file what was found in one
look at its tree, and its text, from which those files are parsed again of which something is to be written out.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Chain = tuple[str, ...]  # a dotted name, such as ("losses", "focal")

_MUTATORS = (
    "append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear", "sort",
    "reverse", "register", "appendleft", "extendleft", "__setitem__", "__setattr__", "__delitem__", "__delattr__",
)  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*FUNCTIONS, ast.ClassDef, ast.Lambda)
_IMPORTANT = (ast.Import, ast.ImportFrom, ast.Global)  # wherever they stand
_CHANGING = (ast.Attribute, ast.Subscript, ast.Expr, ast.Call, *FUNCTIONS, ast.ClassDef)


@dataclass(frozen=True)
class Import:
    """`import module`, or `from module import name`, under a name that it binds."""

    module: str
    name: str | None
    level: int = 0


@dataclass(eq=False)
class Class:
    """A class statement: what decides whether code runs where the class is defined, and where it is called."""

    name: str
    bases: tuple[Chain | None, ...]  # the dotted name at the beginning of each
    metaclasses: tuple[Chain | None, ...]  # the same of what `metaclass` names; at most one
    names: frozenset[str]  # of the functions and classes in its body
    texts: Mapping[str, str]  # attributes that are set to a string in it

    @classmethod
    def of(cls, node: ast.ClassDef) -> Class:
        metaclasses = [each.value for each in node.keywords if each.arg == "metaclass"]
        texts: dict[str, str] = {}
        for each in node.body:
            if isinstance(each, ast.Assign | ast.AnnAssign) and isinstance(each.value, ast.Constant):
                targets = each.targets if isinstance(each, ast.Assign) else [each.target]
                if isinstance(each.value.value, str) and len(targets) == 1 and isinstance(targets[0], ast.Name):
                    texts[targets[0].id] = each.value.value
        names = frozenset(name for each in node.body for name in bound_by(each))
        return cls(node.name, tuple(map(stem_of, node.bases)), tuple(map(stem_of, metaclasses)), names, texts)


@dataclass(eq=False)
class Statement:
    """A statement at the top level of a file."""

    file: Parsed
    place: int  # among the statements of its file
    lines: range  # of its file, that it stands on
    scan: Scan
    defines: bool  # a function or a class


@dataclass(eq=False)
class Parsed:
    """A file as it is by itself."""

    text: bytes = b""
    statements: list[Statement] = field(default_factory=list)
    bindings: dict[str, list[Statement | Import]] = field(default_factory=dict)
    imports: tuple[Import, ...] = ()  # executed with the file
    stars: tuple[Import, ...] = ()
    broken: str | None = None  # why it is no Python

    def nodes(self) -> list[ast.stmt]:
        """The syntax trees of its statements."""
        found = live(ast.parse(self.text).body, top=True)
        return [node for node in found if not isinstance(node, ast.Import | ast.ImportFrom)]


def _type_checking(test: ast.expr) -> bool | None:
    """True for `TYPE_CHECKING`, False for `not TYPE_CHECKING`, None for any other condition."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        found = _type_checking(test.operand)
        return None if found is None else not found
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else None
    return True if name == "TYPE_CHECKING" else None


def _is_main(test: ast.expr) -> bool:
    """`__name__ == "__main__"`: never so where something is imported."""
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def live(statements: Iterable[ast.stmt], top: bool = False) -> Iterator[ast.stmt]:
    """Statements that do something: without docstrings, `pass`, and blocks for type checkers."""
    for node in statements:
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node, ast.If) and (checking := _type_checking(node.test)) is not None:
            yield from live(node.orelse if checking else node.body, top)
        elif not (top and isinstance(node, ast.If) and _is_main(node.test) and not node.orelse):
            yield node


@functools.cache
def _fields(kind: Any) -> tuple[str, ...]:
    """The fields of a kind of node that may hold nodes."""
    without = ("ctx", "op", "ops", "id", "attr", "kind", "type_comment", "lineno", "level", "module", "asname", "arg")
    keep = ("arg",) if kind in (ast.keyword, ast.ExceptHandler) else ()
    return tuple(name for name in kind._fields if name in keep or name not in without)


def _children(node: ast.AST) -> list[ast.AST]:
    """The nodes directly below one in source order, but for what type checkers alone see."""
    if isinstance(node, ast.If) and (checking := _type_checking(node.test)) is not None:
        return list(node.orelse if checking else node.body)
    found: list[ast.AST] = []
    for name in _fields(type(node)):  # type: ignore[arg-type]  # typeshed has no hash for it
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            found.append(value)
        elif isinstance(value, list):
            found += [each for each in value if isinstance(each, ast.AST)]
    return found


def chain_of(node: ast.AST) -> Chain | None:
    """The dotted name that an expression is."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else None


def stem_of(node: ast.AST) -> Chain | None:
    """The dotted name at the beginning of `a.b[0].c`; None where there is a call, or no name, in it."""
    while (found := chain_of(node)) is None:
        if not isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            return None
        node = node.value
    return found


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    """The names that an import binds ("*" for all of a module), and to what."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, Import(node.module or "", alias.name, node.level)
        elif alias.asname:
            yield alias.asname, Import(alias.name, None)
        else:
            yield alias.name.partition(".")[0], Import(alias.name.partition(".")[0], None)


def executed_by(node: ast.Import | ast.ImportFrom) -> Iterator[Import]:
    """The modules that an import executes."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield Import(node.module or "", alias.name, node.level)
        else:
            yield Import(alias.name, None)


def bound_by(node: Any) -> Iterator[str]:
    """The names that one node binds where it stands."""
    if isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Load):
            yield node.id
    elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.MatchMapping):
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name is not None:
            yield name


def parse(path: Path) -> Parsed:
    """The file as it is now, each state parsed once."""
    if path.is_dir():  # a package without `__init__.py`
        return Parsed()
    status = path.stat()
    return _parse_state(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _parse_state(path: Path, mtime: int, size: int) -> Parsed:
    content = path.read_bytes()
    broken = None
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:  # it cannot be imported either; its content counts all the same
        broken = f"{error.msg} (line {error.lineno})" if isinstance(error, SyntaxError) else str(error)
        content = f"print({hashlib.sha256(content).digest()!r})".encode()
        tree = ast.parse(content)
    file = Parsed(content, broken=broken)
    imports: dict[Import, None] = {}
    stars: list[Import] = []
    for node in live(tree.body, top=True):
        found = Scan(node)
        imports |= dict.fromkeys(found.executes)
        stars += [each for name, each in found.imports if name == "*"]
        for name, each in found.imports:
            file.bindings.setdefault(name, []).append(each)
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        defines = isinstance(node, (*FUNCTIONS, ast.ClassDef))
        file.statements.append(Statement(file, len(file.statements), _lines(node), found, defines))
        for name in found.names:
            file.bindings.setdefault(name, []).append(file.statements[-1])
    for statement in file.statements:
        statement.scan.settle(file.bindings)
    file.imports, file.stars = tuple(imports), tuple(stars)
    return file


def _lines(node: ast.stmt) -> range:
    """The lines of its file that a statement stands on, its decorators among them."""
    decorators = [each.lineno for each in getattr(node, "decorator_list", [])]
    return range(min([node.lineno, *decorators]), (node.end_lineno or node.lineno) + 1)


def position(node: Any) -> tuple[int, int]:
    """Where a function or a class stands in its file, by which it is known again when that is parsed anew."""
    return node.lineno, node.col_offset


class Scan:
    """What one look at a statement at the top level of a file finds.

    Attributes:
        names: that it binds there.
        imports: names that imports in it bind there, and to what.
        executes: modules that these import.
        calls: what is called when it is executed, a dotted name, or a method of something else.
        effects: whether it does something when it is executed, whatever it calls.
        cls: itself where it is a class.
        classes: that it defines when it is executed, itself among them.
        within: imports in each function and class in it, by its `position`.
        changes: dotted names that it does not define itself, and that it, or a function in it when that runs, changes,
            with imports in functions that bind them: they are "set", a method is "called" for its effect, or one that
            "adds" to them. Known once the whole file has been looked at (`settle`).
    """

    def __init__(self, statement: ast.stmt) -> None:
        self.names: dict[str, None] = {}
        self.imports: list[tuple[str, Import]] = []
        self.executes: list[Import] = []
        self.calls: dict[tuple[Chain | None, str], None] = {}
        self.effects = False
        self.classes: list[Class] = []
        self.within: dict[tuple[int, int], list[tuple[str, Import]]] = {}
        self.changes: list[tuple[str, Chain, tuple[Import, ...]]] = []
        self._changes: list[tuple[str, Chain, tuple[Any, ...]]] = []  # of any name, with the functions around
        todo: list[tuple[ast.AST, tuple[Any, ...], bool]] = [(statement, (), True)]
        while todo:  # a node, the functions and classes around it, whether it is executed with the statement
            node, scopes, executed = todo.pop()
            kind = type(node)
            if not scopes or kind in _IMPORTANT:
                self._bind(node, scopes)
            if kind in _CHANGING:
                self._change(node, scopes)
            if executed:
                self._execute(node)
            below = _children(node)
            if kind in _SCOPES:
                runs = executed and isinstance(node, ast.ClassDef)
                outer = _executed_with(node)
                todo.extend((each, (*scopes, node), runs) for each in reversed(below) if each not in outer)
                todo.extend((each, scopes, executed) for each in outer)
            elif below:
                todo += [(each, scopes, executed) for each in reversed(below)]
        self.cls = self.classes[0] if isinstance(statement, ast.ClassDef) else None

    def settle(self, bindings: Collection[str]) -> None:
        """Find out what it changes, now that all names are known that its file binds; then no tree is held any more."""
        found: dict[tuple[str, Chain, tuple[Import, ...]], None] = {}
        for how, stem, scopes in self._changes:
            around = [each for scope in scopes for each in self.within.get(position(scope), ())]
            local = tuple(each for name, each in around if name == stem[0])
            if not local and stem[0] not in bindings:
                continue
            if not any(stem[0] in _locals(each) for each in scopes if not isinstance(each, ast.ClassDef)):
                found[how, stem, local] = None
        self.changes = list(found)
        self._changes.clear()

    def _bind(self, node: ast.AST, scopes: tuple[Any, ...]) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = list(_imports(node))
            if scopes:
                self.within.setdefault(position(scopes[-1]), []).extend(found)
            else:
                self.imports += found
                self.names |= dict.fromkeys(name for name, _ in found)
            if not any(isinstance(each, FUNCTIONS) for each in scopes):
                self.executes += executed_by(node)
        elif isinstance(node, ast.Global):
            self.names |= dict.fromkeys(node.names)
        elif not scopes:
            self.names |= dict.fromkeys(bound_by(node))

    def _change(self, node: ast.AST, scopes: tuple[Any, ...]) -> None:
        if isinstance(node, ast.Attribute | ast.Subscript):
            if not isinstance(node.ctx, ast.Load):
                self._changed("set", stem_of(node), scopes)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):  # @X.register
            for stem in (stem_of(getattr(each, "func", each)) for each in node.decorator_list):
                self._changed("adds", stem[:-1] if stem is not None and len(stem) > 1 else None, scopes)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if isinstance(node.value.func, ast.Attribute):
                self._changed("called", stem_of(node.value.func.value), scopes)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
                self._changed("adds", stem_of(node.func.value), scopes)
            elif isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr", "vars") and node.args:
                stem, name = stem_of(node.args[0]), node.args[1] if len(node.args) > 1 else None
                if stem is not None and isinstance(name, ast.Constant):
                    stem = (*stem, str(name.value))
                self._changed("set", stem, scopes)

    def _changed(self, how: str, stem: Chain | None, scopes: tuple[Any, ...]) -> None:
        if stem is not None and not (scopes and stem[0] in ("self", "cls")):
            self._changes.append((how, stem, scopes))

    def _execute(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            self.calls[_called(node.func)] = None
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            self.classes += [Class.of(node)] if isinstance(node, ast.ClassDef) else []
            self.calls |= dict.fromkeys(_called(getattr(each, "func", each)) for each in node.decorator_list)
        elif isinstance(node, ast.Expr):
            self.effects |= not isinstance(node.value, ast.Constant)
        elif isinstance(node, ast.Attribute | ast.Subscript):
            self.effects |= not isinstance(node.ctx, ast.Load)
        elif isinstance(node, ast.With | ast.AsyncWith | ast.Raise | ast.Assert):
            self.effects = True


def _executed_with(node: Any) -> list[ast.AST]:
    """What is executed where a function or a class is defined, outside its own scope."""
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return [*decorators, *node.args.defaults, *filter(None, node.args.kw_defaults)]


def _called(node: ast.expr) -> tuple[Chain | None, str]:
    chain = chain_of(node)
    return chain, "" if chain is not None else node.attr if isinstance(node, ast.Attribute) else "()"


def _locals(function: Any) -> set[str]:
    """The names that are a function's own, but for what it imports."""
    arguments = function.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
    names = {each.arg for each in every if each is not None}
    elsewhere: set[str] = set()
    todo = [] if isinstance(function, ast.Lambda) else list(function.body)
    while todo:
        node = todo.pop()
        names |= set(bound_by(node))
        if isinstance(node, ast.Global):
            elsewhere |= set(node.names)
        if not isinstance(node, _SCOPES):
            todo += _children(node)
    return names - elsewhere
