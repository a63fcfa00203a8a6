"""The documentation as a site: `make docs` writes it to build/docs/, without a network; every warning is an error.

The pages are plain Markdown, as GitHub shows them. What only a site needs is added to them as they are read:

- ```` ```{commands} ```` and its like are replaced by what `reference.py` reads in the code.
- The lists of links in `index.md` become the navigation, a part for each heading.
- Links to files of the repository outside of this folder lead to GitHub where its workflow builds the site, else to the
  files of this checkout.
"""

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import reference  # noqa: E402  # from this folder

project = "emobench"
author = "the emobench authors"
copyright = f"{author}, MIT licence"
extensions = ["myst_parser"]
root_doc = "index"
nitpicky = True  # a link that leads nowhere is a warning
smartquotes = False  # `--data` is no dash
highlight_language = "bash"  # of blocks that name none: commands

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_use_index = False

GENERATED = {"commands": reference.commands, "models": reference.models, "datasets": reference.datasets}


def setup(app: Sphinx) -> None:
    app.connect("source-read", completed)


def completed(app: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page what the site needs and GitHub does not."""
    if page in GENERATED:
        source[0] = re.sub(rf"```{{{page}}}\n.*?```", lambda _: GENERATED[page](), source[0], flags=re.DOTALL)
    if page == app.config.root_doc:
        source[0] += navigation(source[0])
    base = repository(app)
    source[0] = re.sub(r"\]\(\.\./([^)]+)\)", lambda match: _outside(page, base, match[1]), source[0])


def navigation(index: str) -> str:
    """The pages that are linked below each heading of the index, as hidden tables of contents."""
    lines = []
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        pages = re.findall(r"^- \[([^\]]+)\]\((\w[\w-]*)\.md\)", part, re.MULTILINE)
        lines += ["", "```{toctree}", ":hidden:", f":caption: {part.splitlines()[0]}", ""]
        lines += [*(f"{title} <{page}>" for title, page in pages), "```"]
    return "\n".join(lines)


def repository(app: Sphinx) -> str:
    """Where the files of the repository are: on GitHub within its workflow, else in this checkout."""
    if {"GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA"} <= os.environ.keys():
        return "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/blob/{GITHUB_SHA}".format_map(os.environ)
    return Path(os.path.relpath(DOCS.parent, app.outdir)).as_posix()


def _outside(page: str, base: str, target: str) -> str:
    """The end of a link to a file of the repository, which has to be there."""
    if not (DOCS.parent / target.partition("#")[0]).exists():
        getLogger(__name__).warning(f"../{target} is not in the repository", location=page)
    return f"]({base}/{target}){{.external}}"
