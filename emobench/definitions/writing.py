"""A statement in writing, the same on every Python, with a gap wherever a name refers to something."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from emobench.definitions.statements import Chain, Import, Parsed, Statement, chain_of, executed_by, live, position

_ANYTHING_BUILT_IN = ("eval", "exec", "__import__")
_ANY_ATTRIBUTE = ("__subclasses__", "__globals__", "__builtins__")
_BY_NAME = ("getattr", "setattr", "delattr", "hasattr")  # of a computed name: the whole file counts
# Decorators that do not look at the annotations of what they decorate; those of other decorated functions count.
_BLIND = (
    "property", "staticmethod", "classmethod", "dataclasses", "functools.cache", "functools.lru_cache",
    "functools.cached_property", "functools.wraps", "contextlib", "abc", "typing.overload", "typing.override",
    "typing.final", "typing.no_type_check", "torch.no_grad", "torch.inference_mode", "torch.compile",
)  # fmt: skip
_UNWRITTEN = ("ctx", "type_comment", "kind")


@dataclass(frozen=True)
class Reference:
    """A place in a statement that refers to something.

    kind: "name": what the chain means, with all that it reaches. "class": the same, but only which class it is, as the
        second argument of `isinstance` asks. "import": an import statement. "module": a module by its name in a
        string. "file", "package": all of it.
    """

    kind: str
    chain: Chain = ()
    imports: tuple[Import, ...] = ()  # inside functions, that bind the chain's first name
    module: Import | None = None


def written(statement: Statement) -> list[str | Reference]:
    """A statement in writing: texts, and references between them."""
    return _in_writing(statement.file)[statement.place]


@functools.cache
def _in_writing(file: Parsed) -> list[list[str | Reference]]:
    """All statements of a file, which is parsed for that once more."""
    return [_Writer(each).written(node) for each, node in zip(file.statements, file.nodes(), strict=True)]


def shape(statement: Statement) -> str:
    """A statement in writing, with equal gaps for all references."""
    return "\0".join(part if isinstance(part, str) else part.kind for part in written(statement))


class _Writer:
    """Writes a statement out: node types, their fields, and gaps where names refer to something."""

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self.parts: list[str | Reference] = []
        self.scopes: list[Sequence[tuple[str, Import]]] = []  # imports of the functions and classes around
        self.classes = 0  # around
        self.in_class = False  # directly in a class body
        self.raising = False  # in what is handed to an error

    def written(self, node: ast.stmt) -> list[str | Reference]:
        """Texts and references in turn."""
        self.write(node)
        joined: list[str | Reference] = []
        text: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                text.append(part)
            else:
                joined += ["".join(text), part]
                text.clear()
        return [*joined, "".join(text)]

    def write(self, value: Any) -> None:
        """A node, a list of nodes, or what a field holds otherwise."""
        if isinstance(value, ast.AST):
            if self.raising and _is_words(value):
                self.parts.append("words")
            else:
                _WRITES.get(type(value), _Writer._node)(self, value)
        elif isinstance(value, list):
            self.parts.append("[")
            for each in live(value) if value and isinstance(value[0], ast.stmt) else value:
                self.write(each)
                self.parts.append(",")
            self.parts.append("]")
        else:
            self.parts.append(ascii(value))

    def _node(self, node: ast.AST, without: Collection[str] = ()) -> None:
        self.parts.append(f"{type(node).__name__}(")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in _UNWRITTEN or name in without:
                continue  # a field that another version of Python lacks is like one that is empty
            self.parts.append(f"{name}=")
            self.write(value)
        self.parts.append(")")

    def _refer(self, kind: str, chain: Chain = (), module: Import | None = None) -> None:
        imports = [each for scope in reversed(self.scopes) for name, each in scope if chain and name == chain[0]]
        self.parts.append(Reference(kind, chain, tuple(dict.fromkeys(imports)), module))

    # Names

    def _name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.parts.append(f"<{node.id}>")
            return
        self._refer("name", (node.id,))
        if node.id in _ANYTHING_BUILT_IN:
            self._refer("package")
        elif node.id in ("globals", "locals"):
            self._refer("file")

    def _attribute(self, node: ast.Attribute) -> None:
        chain = chain_of(node)
        if node.attr in _ANY_ATTRIBUTE:
            self._refer("package")
        if chain is None:
            self._node(node)
        else:
            self.parts.append("" if isinstance(node.ctx, ast.Load) else "<")
            self._refer("name", chain)

    def _augmented(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._refer("name", (node.target.id,))  # which it reads, too
        self._node(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for each in executed_by(node):
            self._refer("import", module=each)

    def _call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
        first, second = (*node.args, None, None)[:2]
        if name in _BY_NAME and second is not None and not isinstance(second, ast.Constant):
            if not (self.classes and isinstance(first, ast.Name) and first.id in ("self", "cls")):
                self._refer("file")  # of one's own object, all methods count anyway
        elif name == "vars" and first is None:
            self._refer("file")
        elif name in ("isinstance", "issubclass") and second is not None:
            self._node(node, without=("args",))
            self.write(first)
            self._classes(second)
            return
        elif name in ("import_module", "__import__") and isinstance(first, ast.Constant) and len(node.args) == 1:
            self._refer("module", module=Import(str(first.value), None))
            return
        self._node(node)

    def _classes(self, node: ast.expr) -> None:
        """What something is asked to be an instance of."""
        chain = chain_of(node)
        if chain is not None:
            self._refer("class", chain)
        elif isinstance(node, ast.Tuple):
            for each in node.elts:
                self._classes(each)
        elif isinstance(node, ast.BinOp):  # A | B
            self._classes(node.left)
            self._classes(node.right)
        else:
            self.write(node)

    # Functions, classes and annotations

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        in_class, self.in_class = self.in_class, False
        self.scopes.append(self.statement.scan.within.get(position(node), ()))
        self._node(node, without=("returns",))
        if not all(map(self._blind, node.decorator_list)):
            self.parts.append("annotations")
            for each in ast.walk(node.args):
                if isinstance(each, ast.arg):
                    self.write(each.annotation)
            self.write(node.returns)
        self.scopes.pop()
        self.in_class = in_class

    def _blind(self, decorator: ast.expr) -> bool:
        """Whether a decorator does not look at annotations."""
        chain = chain_of(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if chain is None:
            return False
        sources = self.statement.file.bindings.get(chain[0], ())
        imported = [each for each in sources if isinstance(each, Import)]
        if not sources:
            return begins(chain, _BLIND) or chain[-1] in ("setter", "getter", "deleter")
        if len(imported) != len(sources):
            return chain[-1] in ("setter", "getter", "deleter")
        return all(begins((*dotted(each), *chain[1:]), _BLIND) for each in imported)

    def _lambda(self, node: ast.Lambda) -> None:
        in_class, self.in_class = self.in_class, False
        self._node(node)
        self.in_class = in_class

    def _argument(self, node: ast.arg) -> None:
        self.parts.append(f"arg({node.arg})")

    def _class(self, node: ast.ClassDef) -> None:
        in_class, self.in_class = self.in_class, True
        self.scopes.append(self.statement.scan.within.get(position(node), ()))
        self.classes += 1
        self._node(node)
        self.classes -= 1
        self.scopes.pop()
        self.in_class = in_class

    def _annotated(self, node: ast.AnnAssign) -> None:
        if not self.in_class:  # not looked at outside a class: like an assignment without an annotation
            if node.value is not None:
                self._node(ast.Assign([node.target], node.value))
            return
        self._node(node)
        if isinstance(node.annotation, ast.Constant) and isinstance(node.annotation.value, str):
            try:
                self.write(ast.parse(node.annotation.value, mode="eval").body)
            except SyntaxError:
                self._refer("file")

    # Texts

    def _raise(self, node: ast.Raise) -> None:
        if not isinstance(node.exc, ast.Call):
            self._node(node)
            return
        self._node(node, without=("exc",))
        self.write(node.exc.func)
        self.raising = True
        self.write([*node.exc.args, *node.exc.keywords])
        self.raising = False

    def _assert(self, node: ast.Assert) -> None:
        self._node(node, without=("msg",))

    def _constant(self, node: ast.Constant) -> None:
        self.parts.append(f"{type(node.value).__name__}:{node.value!a}")

    def _joined(self, node: ast.JoinedStr) -> None:
        """Versions of Python cut the texts of an f-string differently: neighbours are joined, empty ones left out."""
        values: list[ast.expr] = []
        for value in node.values:
            last = values[-1] if values else None
            if not isinstance(value, ast.Constant):
                values.append(value)
            elif isinstance(last, ast.Constant):
                values[-1] = ast.Constant(str(last.value) + str(value.value))
            elif value.value != "":
                values.append(value)
        self.parts.append("JoinedStr")
        self.write(values)

    def _formatted(self, node: ast.FormattedValue) -> None:
        empty = isinstance(node.format_spec, ast.JoinedStr) and not any(
            getattr(value, "value", None) != "" for value in node.format_spec.values
        )
        self._node(node, without=("format_spec",) if empty else ())


_WRITES: dict[type[ast.AST], Callable[[_Writer, Any], None]] = {
    ast.Name: _Writer._name,
    ast.Attribute: _Writer._attribute,
    ast.AugAssign: _Writer._augmented,
    ast.Import: _Writer._import,
    ast.ImportFrom: _Writer._import,
    ast.Call: _Writer._call,
    ast.FunctionDef: _Writer._function,
    ast.AsyncFunctionDef: _Writer._function,
    ast.Lambda: _Writer._lambda,
    ast.arg: _Writer._argument,
    ast.ClassDef: _Writer._class,
    ast.AnnAssign: _Writer._annotated,
    ast.Raise: _Writer._raise,
    ast.Assert: _Writer._assert,
    ast.Constant: _Writer._constant,
    ast.JoinedStr: _Writer._joined,
    ast.FormattedValue: _Writer._formatted,
}


def _is_words(node: ast.AST) -> bool:
    """Whether an expression is a text."""
    if isinstance(node, ast.BinOp):
        return _is_words(node.left) and _is_words(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def dotted(imported: Import) -> Chain:
    """What an import is called from outside."""
    return tuple(filter(None, (*imported.module.split("."), imported.name)))


def begins(chain: Chain, names: Iterable[str]) -> bool:
    """Whether a dotted name is one of these or lies in one of them."""
    dotted = ".".join(chain) + "."
    return any(dotted.startswith(f"{name}.") for name in names)
