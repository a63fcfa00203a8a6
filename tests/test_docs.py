"""The documentation: links lead somewhere, what is generated is whole, and the site builds without a warning."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import reference
from conftest import RESULTS
from PIL import Image

from emobench.cli import app
from emobench.suite.budget import two_digits
from emobench.suite.catalog import names, resolve
from emobench.suite.rows import arguments_of

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"
PAGES = sorted(path.relative_to(TOP).as_posix() for path in [*TOP.glob("*.md"), *DOCS.glob("*.md")])
GENERATED = {"commands": reference.commands, "models": reference.models, "datasets": reference.datasets}
OF_MYST = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # what it will have to change for Sphinx 11
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((TOP / "emobench").rglob("*.py")))


@cache
def generated(page: str) -> str:
    return GENERATED[page]()


def text(path: Path) -> str:
    """A page as the site has it, without its blocks of code."""
    found = path.read_text(encoding="utf-8")
    if path.parent == DOCS and path.stem in GENERATED:
        found += generated(path.stem)
    return re.sub(r"^```.*?^```$", "", found, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(path: Path) -> frozenset[str]:
    """Those that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text(path), re.MULTILINE)
    words = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return frozenset(re.sub(r"[^\w\- ]", "", each).strip().replace(" ", "-") for each in words)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_headings_that_are_there(page: str) -> None:
    path = TOP / page
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", text(path)):
        if "://" not in target:
            assert anchor in anchors((path.parent / target).resolve() if target else path), f"{page}: {target}#{anchor}"


def test_every_page_stands_in_the_index_once() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\((\w[\w-]*)\.md\): ", text(DOCS / "index.md"), re.MULTILINE)
    assert sorted([*listed, "index"]) == sorted(path.stem for path in DOCS.glob("*.md"))


@pytest.mark.parametrize("page", GENERATED)
def test_a_page_says_where_what_is_generated_stands(page: str) -> None:
    """Once; on GitHub the block shows the command that says the same."""
    block = rf"^```{{{page}}}\nemobench .*?^```$"
    assert len(re.findall(block, (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)) == 1


def test_every_command_and_option_is_on_its_page() -> None:
    parts = re.split(r"^## ", generated("commands"), flags=re.MULTILINE)[1:]
    sections = {part.partition("\n")[0]: part for part in parts}
    groups = {"": app, **{str(each.name): each.typer_instance for each in app.registered_groups}}
    registered = {
        " ".join(filter(None, ("emobench", group, each.name or str(each.callback.__name__)))): each.hidden
        for group, members in groups.items()
        for each in members.registered_commands
        if each.callback is not None
    }
    assert {name for name, hidden in registered.items() if not hidden} == sections.keys()
    for name, command in reference.every_command().items():
        for option in (option for each in command.params for option in each.opts if option.startswith("--")):
            assert re.search(rf"^\| `(?:[^`]+, )?{option}\b", sections[name], re.MULTILINE), f"{name} {option}"
    assert "[default: skip]" in sections["emobench bench"].replace("\\", "")
    assert "Example:" not in generated("commands")


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_every_name_is_on_its_page(kind: str) -> None:
    listed = generated(f"{kind}s").partition("## Each in detail")[0]
    for name in names(kind):  # type: ignore[arg-type]
        assert f"`{name}`" in listed, name


def test_defaults_are_what_a_suite_may_say() -> None:
    """Each block of them, put into a suite, changes nothing."""
    blocks = re.findall(r"^```toml\n(.*?)^```$", generated("models"), re.DOTALL | re.MULTILINE)
    said = {name: given for block in blocks for name, given in tomllib.loads(block)["model"].items()}
    assert {"vit", "cvae", "latent_search", "style_transfer", "timm:NAME"} <= said.keys()
    for name, given in said.items():
        cls, preset = resolve("model", name)
        assert arguments_of(name, cls, preset | given) == arguments_of(name, cls, preset), name


def test_settings_have_the_meaning_that_stands_beside_them() -> None:
    shown = generated("models")
    assert '| `lr` | float above 0 | base learning rate; with "onecycle" the highest one |' in shown
    assert "| `batch` | int from 1 on | faces per optimiser step and process |" in shown
    assert "| `hflip` | float from 0 to 1 | probability of a mirror image |" in shown
    assert '| `weights` | `"google/vit-base-patch16-224-in21k"` |' in shown  # of ViT, not those of a search
    assert "| `max_bad` | float from 0 to 1 | the dataset is refused where" in generated("datasets")
    assert "| `labels` |" in generated("datasets")  # of a table that goes on with another
    assert "`folder` |" not in generated("datasets")  # a run gives it


def test_what_could_be_markup_is_shown_as_it_is() -> None:
    assert reference._prose("<root>/x_y [1] *a* `a|b <c>`") == r"\<root\>/x\_y \[1\] \*a\* `a\|b <c>`"


def test_what_a_thousand_gpus_cost_follows_from_what_was_measured() -> None:
    page = " ".join(text(DOCS / "clusters.md").split())
    found = json.loads((RESULTS / "perf" / "scale.json").read_text(encoding="utf-8"))
    plan, local, on_ray, report = (found[part][-1] for part in ("plan", "sweep", "ray", "report"))
    assert (plan["cells"] // 100, local["cells"], on_ray["cells"], report["cells"]) == (100, 1000, 1000, 1000)
    cold, cell = plan["cold"], round(on_ray["ms_a_cell"])
    for said in (
        f"| plan | {cold['seconds']:.0f} s, {cold['memory_mb'] / 1024:.1f} GiB for 10,000 cells",
        f"{plan['kept']['seconds']:.1f} s when it is read again",
        f"{local['ms_a_cell']:.0f} ms local, {cell} ms on Ray",
        f"the last GPU stands empty for {cell} s",
        f"{report['one_more']['seconds']:.1f} s for a further cell of 1,000",
        f"| report | {report['seconds']:.0f} s and {report['memory_mb'] / 1024:.1f} GiB for 1,000 cells",
        f"at {cell} ms a cell one core of the driver's would be busy with {two_digits(3.6e6 / cell):,} cells an hour",
        f"so with cells of {cell} seconds on 1,000 GPUs",
    ):
        assert said in page


def test_messages_that_are_explained_are_those_of_the_code() -> None:
    headings = re.findall(r"^### (.+)$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    quoted = [each for heading in headings for each in re.findall("`([^`]+)`", heading)]
    assert len(quoted) > 8
    assert not [each for each in quoted if each not in SOURCE and each != "command not found"]


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_a_page_prints_are_understood(page: str) -> None:
    """Each line of a block that calls emobench: the command, its options, and what they take."""
    every = reference.every_command()
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```$", (TOP / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for line in re.findall(r"^\s*emobench (.+)$", "\n".join(blocks), re.MULTILINE):
        words = shlex.split(line, comments=True)
        if "--help" not in words:
            name = next((name for n in (2, 1) if (name := " ".join(["emobench", *words[:n]])) in every), None)
            assert name is not None, f"{page}: emobench {line}"
            every[name].make_context(
                name, words[len(name.split()) - 1 :]
            )  # an error is click's own, and says what is wrong


@pytest.mark.parametrize("page", ["start", "own-model", "own-data"])
def test_suites_that_a_page_prints_can_be_run(
    page: str, emobench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert emobench("new", "classifier", "small") == emobench("new", "generator", "mine") == 0
    for number in range(20):
        picture = tmp_path / "data" / "my-faces" / ("happy", "sad")[number % 2] / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (48, 48), np.uint8)).save(picture)
    blocks = re.findall(r"^```toml\n(.*?)^```$", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for number, block in enumerate(blocks):
        (tmp_path / f"suite{number}.toml").write_text(block, encoding="utf-8")
        assert emobench("bench", f"suite{number}.toml", "--dry-run", "--offline") == 0


def build(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What Sphinx returns and complains of."""
    from sphinx.cmd.build import build_main

    code = build_main(
        ["--quiet", "--fresh-env", "--fail-on-warning", "-d", str(out / "doctrees"), str(source), str(out)]
    )
    return code, capsys.readouterr().err


@OF_MYST
def test_links_that_lead_nowhere_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sphinx", reason="the documentation's packages are not installed")
    (tmp_path / "docs" / "static").mkdir(parents=True)
    for name in ("conf.py", "static/site.css"):
        shutil.copy(DOCS / name, tmp_path / "docs" / name)
    (tmp_path / "README.md").touch()
    links = "[a](no-page.md) [b](#no-heading) [c](index.md#no-heading) [d](../no-file.md) [e](../README.md)"
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n{links}\n", encoding="utf-8")
    code, said = build(tmp_path / "docs", tmp_path / "out", capsys)
    assert code != 0
    assert len(re.findall("WARNING", said)) == 4, said
    assert "../no-file.md is not in the repository" in said
    assert 'href="../README.md"' in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@OF_MYST
@pytest.mark.slow
def test_the_site_builds_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in GitHub's workflow: links to files of the repository lead to that commit there."""
    pytest.importorskip("sphinx", reason="the documentation's packages are not installed")
    where = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "who/emobench", "GITHUB_SHA": "1234"}
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    code, said = build(DOCS, tmp_path, capsys)
    assert (code, said) == (0, "")
    pages = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert {path.stem for path in DOCS.glob("*.md")} <= pages.keys()
    assert 'href="https://github.com/who/emobench/blob/1234/results/README.md"' in pages["index"]
    for page in pages.values():
        assert not re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(?:https?:)?//', page)  # it loads nothing
        assert "../../" not in page
    assert 'id="emobench-bench"' in pages["commands"]
    assert 'href="commands.html"' in pages["protocol"]  # the navigation
