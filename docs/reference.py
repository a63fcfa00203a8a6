"""What the pages of the documentation say of commands, models and datasets, as Markdown, from the code itself.

`conf.py` puts it into the pages when the site is built, so nothing here is written twice or grows old.
"""

from __future__ import annotations

import inspect
import io
import re
import tokenize
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from emobench.cli import app
from emobench.commands.inventory import Described, Setting, described, groups, toml
from emobench.recipe import Augment, Recipe
from emobench.report.markdown import table
from emobench.suite.catalog import asked_for, resolve
from emobench.suite.types import written

_PLACE = "NAME"  # what stands for a family's file, folder or name


# Commands


def every_command() -> dict[str, Any]:
    """Each command that a user may type, by its full name, in the order of `emobench --help`."""
    found: dict[str, Any] = {}

    def visit(words: tuple[str, ...], command: Any) -> None:
        if not command.hidden:
            if hasattr(command, "commands"):
                for name, below in command.commands.items():
                    visit((*words, name), below)
            else:
                found[" ".join(words)] = command

    visit(("emobench",), typer.main.get_command(app))
    return found


def commands() -> str:
    """A list of all commands, and each with its arguments, options and example."""
    every = every_command()
    rows = [[f"[`{name}`](#{_anchor(name)})", _prose(_sentence(command.help))] for name, command in every.items()]
    lines = table(["command", "what it does"], rows, left=(0, 1))
    for name, command in every.items():
        lines += ["", *_command(name, command)]
    return "\n".join(lines)


def _command(name: str, command: Any) -> Iterator[str]:
    """One command: its help, a usage, an example, and a table of what it takes, in the words of `--help`."""
    context = command.make_context(name, [], resilient_parsing=True)
    yield from (f"## {name}", "", _prose(command.help), "")
    example = (command.epilog or "").removeprefix("Example: ")
    yield from ("```", command.get_usage(context).removeprefix("Usage: "), *filter(None, [example]), "```", "")
    records = [record for each in command.params if (record := each.get_help_record(context)) is not None]
    rows = [[_code(takes), _prose(" ".join(means.split()))] for takes, means in records]
    yield from table(["argument or option", "what it is"], rows, left=(0, 1))


def _sentence(text: str) -> str:
    """The first paragraph of a help."""
    return " ".join(text.split("\n\n")[0].split())


# Models and datasets


def models() -> str:
    """All models in tables, each with its own arguments and recipe, and the settings that several of them share."""
    return "\n".join([*_lists("model"), *_details("model"), *_shared("model")])


def datasets() -> str:
    """All datasets in tables, what each expects on disk, and the settings that they share."""
    return "\n".join([*_lists("dataset"), *_details("dataset"), *_shared("dataset")])


def _lists(kind: Any) -> Iterator[str]:
    for title, members in groups(kind).items():
        columns = ["name", "what it is", *(["from"] if any(each.works for each in members) else [])]
        rows = [[_linked(each.names), _prose(each.what), _prose("; ".join(each.works))] for each in members]
        cells = [row[: len(columns)] for row in rows]
        yield from (f"## {title}", "", *table(columns, cells, left=range(3)), "")


def _linked(names: Sequence[str]) -> str:
    """A class's own name, which leads to its details, and its variants."""
    return ", ".join([f"[{_code(names[0])}](#{_anchor(names[0])})", *map(_code, names[1:])])


def _shared(kind: Any) -> Iterator[str]:
    """The settings that several classes take, a table each; what they mean stands beside them in the code."""
    tables = {typed: None for cls in asked_for(kind).values() if (typed := _typed(cls)) is not None}
    for typed in tables:
        hidden = ("folder", "cache")  # a run gives them
        settings = [each for each in _fields(typed) if each[0] not in hidden]
        yield from _meanings(_first_line(typed), settings)
    if kind == "model":
        yield from _meanings("Recipe: what every model that is trained takes beside its arguments.", _fields(Recipe))
        yield from _meanings("Fields of `augment`: random changes of a training face.", _fields(Augment))


def _meanings(about: str, settings: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    rows = [[_code(name), _prose(takes), _prose(means)] for name, takes, means in settings]
    yield from (
        f"## {re.split('[:;]', about)[0]}",
        "",
        _prose(about),
        "",
        *table(["setting", "takes", "what it is"], rows, left=range(3)),
        "",
    )


def _typed(cls: Any) -> Any:
    """The table of the keyword arguments that a class shares with others, behind `**arguments: Unpack[Table]`."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return typing.get_args(hints[name])[0]
    return None


def _fields(cls: Any) -> list[tuple[str, str, str]]:
    """Name, type in words and meaning of each field of a class or a typed table."""
    said: dict[str, str] = {}
    for base in (*getattr(cls, "__orig_bases__", ()), cls):
        if getattr(base, "__module__", "").startswith("emobench."):
            said |= _comments(base)
    hints = typing.get_type_hints(cls, include_extras=True)
    return [(name, written(kind), said.get(name, "")) for name, kind in hints.items()]


def _comments(cls: type) -> dict[str, str]:
    """The comment beside each field, in the source of its class."""
    said: dict[str, str] = {}
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(cls)).readline):
        if token.type == tokenize.NAME and (match := re.match(rf"    {token.string}: ", token.line)):
            name = token.string if token.start[1] == 4 and match else name
        elif token.type == tokenize.COMMENT and name:
            said[name] = f"{said.get(name, '')} {token.string.lstrip('# ')}".strip()
        elif token.type == tokenize.NEWLINE:
            name = ""
    return said


def _details(kind: Any) -> Iterator[str]:
    yield from ("## Each in detail", "")
    for members in groups(kind).values():
        for each in members:
            name = re.sub("<.*>", _PLACE, each.names[0])
            typed = _typed(resolve(kind, name)[0])
            shared = set() if typed is None else {field for field, *_ in _fields(typed)}
            yield from _detail(kind, each.names, name, described(kind, name), shared)


def _detail(kind: str, names: Sequence[str], name: str, found: Described, shared: set[str]) -> Iterator[str]:
    """A class: what it is, under which names, from where, and what it takes."""
    yield from (f"### {_code(names[0])}", "")
    for paragraph in found.about:
        yield from (_prose(paragraph), "")
    if len(names) > 1:
        yield from (f"Variants, which preset some of its settings: {', '.join(map(_code, names[1:]))}.", "")
    if found.source:
        yield from (f"Source: {_prose(found.source)}.", "")
    for word, what in found.needs:
        yield from (f"{word}: {_prose(what)}.", "")
    if found.expects is not None:
        layout = found.expects.strip() or "nothing: it is drawn"
        yield from (f"Expected below `<data root>/{name.split(':', 1)[-1]}/`:", "", "```text", layout, "```", "")
    own = [each for each in found.arguments if each.name not in shared]
    if own:
        rows = [[_code(each.name), _code(each.written), _prose(_takes(each))] for each in own]
        yield from (*table(["argument", "default", "takes"], rows, left=range(3)), "")
    if kind == "model" and (block := _defaults(name, found, shared)):
        yield from ("Its defaults of the shared settings, as a suite would say them:", "", "```toml", *block, "```", "")


def _takes(each: Setting) -> str:
    return ": ".join(filter(None, (each.takes, each.means)))


def _defaults(name: str, found: Described, shared: set[str]) -> list[str]:
    """A table of a suite that sets what is the default anyway; what is off needs no line."""
    said = [*(each for each in found.arguments if each.name in shared), *found.recipe]
    lines = [f"{each.name} = {each.written}" for each in said if each.default not in (None, inspect.Parameter.empty)]
    title = name if re.fullmatch(r"[\w-]+", name) else toml(name)
    return [f"[model.{title}]", *lines] if lines else []


# Markdown


def _anchor(heading: str) -> str:
    """The anchor that GitHub and MyST give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _code(text: str) -> str:
    """A code span that may stand in a table."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def _prose(text: str) -> str:
    """A text of the code as Markdown: code spans stay, pages are links, and other markup is shown as it is."""
    parts = re.split(r"(`[^`]+`)", text)
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = _code(part[1:-1])
        else:
            shown = re.sub(r"([\\<>\[\]*_|#$~])", r"\\\1", part)
            parts[place] = re.sub(r"docs/([a-z]+)\.md", r"[docs/\1.md](\1.md)", shown)
    return "".join(parts)


def _first_line(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").split("\n", 1)[0]
