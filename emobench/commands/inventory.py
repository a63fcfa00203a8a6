"""`emobench models` and `emobench datasets`: what there is, and one of them in detail.

`groups` and `described` say it as values, for the terminal here and for the pages of the documentation.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emobench.suite.catalog import (
    Kind,
    Parameter,
    asked_for,
    broken,
    parameters,
    plain,
    recipe_fields,
    resolve,
    tracks_of,
    variants_of,
)
from emobench.suite.rows import arguments_of

_SMALL = 72  # columns: on a narrower terminal lines are broken by the terminal itself
_BETWEEN = (0, 2, 0, 0)  # blanks around a cell: top, right, bottom, left


def inventory(kind: Kind, name: str | None) -> None:
    """Print the models or the datasets, or one of them in detail.

    Raises:
        SuiteError: there is none of this name.
    """
    console = Console(highlight=False, soft_wrap=False)
    console.width = max(_SMALL, console.width)
    if name is None:
        _overview(console, kind)
    else:
        _details(console, kind, name)


# ---- all of them -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Listed:
    """A class as a list shows it."""

    names: list[str]  # its own and those of its variants; of a family one, such as timm:<backbone>
    what: str
    works: list[str]  # that it is from, as they are cited


def groups(kind: Kind) -> dict[str, list[Listed]]:
    """All models by what they are measured on, or all datasets by where their faces come from."""
    found: dict[str, list[Listed]] = {}
    for name, cls in asked_for(kind).items():
        names = [f"{name}:<{cls.family}>"] if cls.family else [name, *variants_of(cls)]
        listed = Listed(names, (inspect.getdoc(cls) or "").split("\n", 1)[0], _works(_source(cls)))
        found.setdefault(_group(kind, cls), []).append(listed)
    return found


def _overview(console: Console, kind: Kind) -> None:
    """A table of each group: name, what it is, where it is from."""
    for title, members in groups(kind).items():
        table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=_BETWEEN, expand=True)
        table.add_column("name", min_width=17, max_width=22, overflow="fold")
        table.add_column("what it is", ratio=3)
        table.add_column("from", min_width=28, ratio=2, overflow="fold")
        for each in members:
            table.add_row(Text("\n".join(each.names)), Text(each.what), Text("; ".join(each.works)))
        _print(console, table)
        console.print()
    console.print(f"`emobench {kind}s NAME` shows one in detail.", markup=False)
    for missing in broken(kind):
        print(f"emobench: passed over {missing}", file=sys.stderr)


def _print(console: Console, table: Table) -> None:
    """Print a table without the blanks that fill its lines."""
    with console.capture() as capture:
        console.print(table)
    console.out("\n".join(line.rstrip() for line in capture.get().splitlines()), highlight=False)


def _group(kind: Kind, cls: Any) -> str:
    """Models are grouped by what they are measured on, datasets by where their faces come from."""
    if kind == "dataset":
        if not cls.expects:
            return "Drawn faces"
        return "Any folder of yours" if cls.family else "Published datasets"
    if hasattr(cls, "logits"):
        return "Classifiers"
    return f"Generators, measured on {' and '.join(tracks_of(cls)) or 'nothing'}"


def _source(cls: Any) -> str:
    """Where a class is described; of a dataset, the work that its file cites."""
    said = getattr(cls, "source", None)
    if said is not None:
        return str(said)
    cited = re.search(r"\(([^()]* \d{4}[a-z]?)\b", inspect.getdoc(sys.modules[cls.__module__]) or "")
    return cited[1] if cited else ""


def _works(source: str) -> list[str]:
    """The works that a source names, without places in them: `Liu et al. 2025`."""
    found = []
    for part in re.split(r"[;,]\s*(?:and )?| and (?=[A-Z][\w-]+-[A-Z])", source.replace("(docs/systems.md)", "")):
        work = part.rpartition(": ")[2].strip()
        if re.search(r"\d{4}[a-z]?\b", work) and not re.match(r"arXiv|doi", work):
            work = re.match(r"(.*?\d{4}[a-z]?)\b.*", work)[1]  # type: ignore[index]  # it was found
            found.append(work)
        elif re.match(r"[A-Z]", work) and "." not in work and (not found or "-" in work):
            found.append(work)
    return list(dict.fromkeys(found))


# ---- one of them -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """An argument of a class, or a field of its recipe."""

    name: str
    default: Any  # plain; `inspect.Parameter.empty` where a value must be given
    takes: str  # its type in words
    means: str  # what the docstring of the class says of it, or nothing

    @property
    def written(self) -> str:
        """The default as a suite writes it."""
        return "must be given" if self.default is inspect.Parameter.empty else toml(self.default)


@dataclasses.dataclass(frozen=True)
class Described:
    """A model or a dataset in detail."""

    about: list[str]  # paragraphs
    source: str
    expects: str | None  # of a dataset: the layouts that it is read in
    needs: list[tuple[str, str]]  # "Needs" or "May need", and what
    arguments: list[Setting]
    recipe: list[Setting]


def described(kind: Kind, name: str) -> Described:
    """What a class takes under one of its names, with the defaults that hold there.

    Raises:
        SuiteError: there is none of this name.
    """
    cls, preset = resolve(kind, name)
    about, said = _documented(inspect.getdoc(cls) or "")
    needs = [
        (word, ", ".join(f"{role} ({what})" for role, what in getattr(cls, attribute).items()))
        for word, attribute in (("Needs", "needs"), ("May need", "may_need"))
        if getattr(cls, attribute, None)
    ]
    arguments, recipe = arguments_of(name, cls, preset)
    found = {
        argument: dataclasses.replace(each, default=arguments[argument]) if argument in preset else each
        for argument, each in parameters(cls).items()
    }
    fields = {} if recipe is None else recipe_fields(recipe)
    expects = cls.expects if kind == "dataset" else None
    return Described(about, _source(cls), expects, needs, _settings(found, said), _settings(fields, {}))


def _settings(found: Mapping[str, Parameter], said: Mapping[str, str]) -> list[Setting]:
    return [
        Setting(name, each.default if each.required else plain(each.default), each.text(), said.get(name, ""))
        for name, each in found.items()
    ]


def _details(console: Console, kind: Kind, name: str) -> None:
    """Signature, defaults, recipe and source of a model; layouts and arguments of a dataset."""
    found = described(kind, name)
    console.print(Text(name, style="bold"))
    for paragraph in found.about:
        console.print()
        _paragraph(console, paragraph)
    if found.source:
        console.print()
        _paragraph(console, f"Source: {found.source}")
    if found.expects is not None:
        console.print(Text(f"\nExpected below <data root>/{name.split(':', 1)[-1]}/:"))
        _expected(console, found.expects)
    for word, what in found.needs:
        console.print(Text(f"\n{word}: {what}"))
    _table(console, "Arguments", found.arguments)
    if found.recipe:
        _table(console, "Recipe", found.recipe)


def _documented(text: str) -> tuple[list[str], dict[str, str]]:
    """The paragraphs of a docstring above its sections, and what its `Args:` say of each argument."""
    above, _, arguments = text.partition("\nArgs:\n")
    above = re.split(r"\n(?:Raises|Returns|Attributes):\n", above)[0]
    said: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(arguments)):
        names, colon, words = entry.partition(":")
        if colon and re.fullmatch(r"[\w, ]+", names):
            said |= dict.fromkeys(re.split(r",\s*", names), " ".join(words.split()))
    return [" ".join(paragraph.split()) for paragraph in above.strip().split("\n\n")], said


def _expected(console: Console, expects: str) -> None:
    """The layouts that a dataset is read in: what lies there, and what of it."""
    lines = [line.partition("  ") for line in (expects.strip() or "nothing: it is drawn").splitlines()]
    width = min(42, max((len(left) for left, blanks, _ in lines if blanks), default=0))
    for left, blanks, right in lines:
        if not blanks:
            _paragraph(console, left, "  ")
            continue
        table = Table(box=None, show_header=False, padding=_BETWEEN)
        table.add_column(width=width + 2, overflow="fold")
        table.add_column(overflow="fold")
        table.add_row(Text(f"  {left.strip()}"), Text(right.strip()))
        _print(console, table)


def _paragraph(console: Console, text: str, indent: str = "") -> None:
    """Print a text in lines of the terminal's width."""
    for line in textwrap.wrap(
        text,
        console.width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    ):
        console.out(line, highlight=False)


def _table(console: Console, title: str, settings: Sequence[Setting]) -> None:
    """A table of settings: name, default as a suite writes it, what may stand there, and what it means."""
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, padding=_BETWEEN)
    table.add_column("name", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=24)
    table.add_column("takes", overflow="fold", ratio=1)
    for each in settings:
        table.add_row(Text(each.name), Text(each.written), Text(": ".join(filter(None, (each.takes, each.means)))))
    _print(console, table)


def toml(value: Any) -> str:
    """A plain value as a suite writes it; None is "none"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return f'"{"none" if value is None else value}"'
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{name} = {toml(each)}' for name, each in value.items())} }}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(toml, value))}]"
    return str(value)
