"""`emobench models` and `emobench datasets`: what there is, and one of them in detail."""

from __future__ import annotations

import dataclasses
import inspect
import sys

from emobench.suite.catalog import Kind, Parameter, broken, classes, parameters, plain, recipe_fields, resolve


def inventory(kind: Kind, name: str | None) -> None:
    """Print the models or the datasets, or one of them in detail.

    Raises:
        SuiteError: there is none of this name.
    """
    if name is None:
        _overview(kind)
    else:
        _details(kind, name)


def _overview(kind: Kind) -> None:
    """One line for each name."""
    for name, cls in classes(kind).items():
        family = cls.family
        shown = f"{name}:<{family}>" if family else ", ".join([name, *cls.variants])
        print(f"{shown:48} {_first_line(cls)}")
    print(f"\n`emobench {kind}s NAME` shows one in detail.")
    for each in broken(kind):
        print(f"emobench: passed over {each}", file=sys.stderr)


def _details(kind: Kind, name: str) -> None:
    """Signature, defaults, recipe and source of a model; layouts and arguments of a dataset."""
    cls, preset = resolve(kind, name)
    print(f"{name}\n\n{inspect.getdoc(cls)}\n")
    if getattr(cls, "source", None):
        print(f"Source: {cls.source}\n")
    if kind == "dataset":
        print(f"Expected below <data root>/{name.split(':', 1)[-1]}/:\n{_indented(cls.expects)}\n")
    if getattr(cls, "needs", None):
        print(f"Needs: {', '.join(f'{role} ({kind})' for role, kind in cls.needs.items())}\n")
    if getattr(cls, "may_need", None):
        print(f"May need: {', '.join(f'{role} ({kind})' for role, kind in cls.may_need.items())}\n")
    print("Arguments:")
    for argument, parameter in parameters(cls).items():
        _line(
            argument, parameter if argument not in preset else dataclasses.replace(parameter, default=preset[argument])
        )
    recipe = getattr(cls, "recipe", None)
    if recipe is not None:
        print("Recipe:")
        for field, parameter in recipe_fields(recipe).items():
            _line(field, parameter)


def _indented(expects: str) -> str:
    return "\n".join(f"  {line}" for line in (expects.strip() or "nothing: it is drawn").splitlines())


def _line(name: str, parameter: Parameter) -> None:
    default = "must be given" if parameter.required else f"= {plain(parameter.default)}"
    print(f"  {name:18} {default:34} {parameter.text().replace('emobench.recipe.', '')}")


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n", 1)[0]
