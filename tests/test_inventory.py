"""`emobench models` and `datasets`: tables that fit the terminal, types in words, works as they are cited."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Len, Lt

from emobench.commands.inventory import toml
from emobench.recipe import Augment
from emobench.suite.catalog import classes, names, parameters, recipe_fields
from emobench.suite.types import written

Emobench = Callable[..., int]
WIDTHS = (80, 100)
DETAILS = [
    *(("models", name) for name in names("model") if "<" not in name),
    ("models", "timm:resnet10t"),
    *(("datasets", name) for name in names("dataset") if "<" not in name),
    ("datasets", "folder:mine"),
    ("datasets", "hf:mine"),
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_the_list_fits_and_names_everything(
    kind: str, width: int, emobench: Emobench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert emobench(kind) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) > width - 12  # and uses the width
    assert not any("…" in line for line in lines)
    listed = {line.split("  ")[0] for line in lines}
    assert set(names(kind.removesuffix("s"))) <= listed  # type: ignore[arg-type]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("words", DETAILS, ids="-".join)
def test_details_fit_and_say_every_type_in_words(
    words: tuple[str, str],
    width: int,
    emobench: Emobench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert emobench(*words) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    assert not re.search(r"Annotated\[|Literal\[|Optional|Ge\(|Gt\(|collections\.abc|typing\.|<class|\bstr \|", shown)
    first = shown.splitlines()[0]
    assert first == words[1]


def test_groups_and_works(
    emobench: Emobench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert emobench("models") == 0
    shown = capsys.readouterr().out
    titles = re.findall(r"^(Classifiers|Generators, .*)$", shown, re.MULTILINE)
    assert titles[0] == "Classifiers"
    assert "Generators, measured on generation and editing" in titles
    assert len(titles) == len(set(titles))
    before = shown.partition("Generators")[0]
    assert "cnn21" in before
    assert "diffusion" not in before
    works, start = "", 0
    for line in shown.splitlines():  # each group has columns of its own
        start = line.index("from") if line.startswith("name ") else start
        works += f" {line[start:].strip()}" if start and line[:start].endswith("  ") else ""
    for work in ("He et al. 2016", "Hansen and Salamon 1990", "Liu et al. 2025; Choi et al. 2018", "Wightman 2019"):
        assert work in works
    assert "arXiv" not in shown
    assert emobench("datasets") == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^(\S.*)\nname ", shown, re.MULTILINE) == [
        "Published datasets",
        "Any folder of yours",
        "Drawn faces",
    ]
    assert "Goodfellow et al. 2013" in shown
    assert "Lucey et al. 2010" in shown


def test_what_a_docstring_says_of_an_argument_stands_beside_its_type(
    emobench: Emobench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert emobench("models", "vit-frozen") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        'strategy "frozen" "frozen", "partial", "full" or "warmup": what is trained' in shown
    )  # as the variant presets
    assert "depth 12 int from 1 on: blocks." in shown
    assert 'weights "google/vit-base-patch16 text or "none": a name on Hugging Face' in shown


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Annotated[float, Ge(0), Le(1)], "float from 0 to 1"),
        (Annotated[float, Ge(0), Lt(1)], "float from 0 to below 1"),
        (Annotated[float, Gt(0), Le(1)], "float above 0, at most 1"),
        (Annotated[float, Gt(0), Lt(0.5)], "float between 0 and 0.5"),
        (Annotated[float, Ge(-1)], "float from -1 on"),
        (Annotated[int, Gt(0)], "int above 0"),
        (Annotated[int, Le(9)], "int at most 9"),
        (Annotated[int, Lt(9)], "int below 9"),
        (Literal["a", "b"], '"a" or "b"'),
        (Literal["a", "b", "c"], '"a", "b" or "c"'),
        (Literal["a"] | None, '"a" or "none"'),
        (Literal[1, 2], "1 or 2"),
        (str | None, 'text or "none"'),
        (Annotated[int, Ge(1)] | None, 'int from 1 on, or "none"'),
        (tuple[int, ...], "list of ints"),
        (tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]], "list of 2 ints from 1 on"),
        (Annotated[tuple[Literal["a", "b"], ...], Len(1)], 'list of "a" or "b", at least 1'),
        (dict[str, str | list[str]] | None, 'table of texts or lists of texts, or "none"'),
        (bool, "true or false"),
        (Path, "path"),
    ],
)
def test_types_in_words(kind: Any, words: str) -> None:
    assert written(kind) == words


def test_every_argument_of_the_package_has_such_a_type() -> None:
    found = [
        each.text()
        for kind in ("model", "dataset")
        for cls in classes(kind).values()  # type: ignore[arg-type]
        for each in (
            *parameters(cls).values(),
            *(recipe_fields(cls.recipe).values() if getattr(cls, "recipe", None) else ()),
        )
    ]
    assert len(found) > 200
    assert not [words for words in found if re.search(r"[\[\]()<>|]", words)]
    assert written(Augment).startswith("table with hflip, rotation")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, '"none"'),
        ("a", '"a"'),
        (True, "true"),
        (1e-5, "1e-05"),
        ([1, None], '[1, "none"]'),
        ({"a": 0.5, "b": [1]}, "{ a = 0.5, b = [1] }"),
    ],
)
def test_defaults_as_a_suite_writes_them(value: Any, words: str) -> None:
    assert toml(value) == words
