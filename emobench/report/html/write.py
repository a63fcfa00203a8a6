"""index.html: a board, or all boards of a folder, as one file that a browser opens without a server or a network.

Sentences and tables are those of leaderboard.md, from the same `Board`; charts are drawn by the page's script from the
same numbers, as JSON in the page. All that is foreign is escaped text or JSON, never markup; the page's own policy lets
the browser run the one script that is in it, and load nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from emobench.errors import EmobenchError
from emobench.evaluation.tracks.track import Check
from emobench.files import write_text
from emobench.report import papers, slices
from emobench.report.board import Board, Section
from emobench.report.html.faces import Allowance
from emobench.report.html.text import Grid, Said, answer, grid, said, written
from emobench.report.html.values import files, values
from emobench.report.markdown import one_line
from emobench.report.page import Block, Heading, Link, Paragraph, Table
from emobench.report.readable import signed
from emobench.report.tables import heading, meaning, overviews, topics
from emobench.report.verdict import any_wanted, failures, outcome, skipped, state, tells, trust, verdict
from emobench.runner.store import Origin
from emobench.suite.keys import PROTOCOL

FILE = "index.html"
PICTURES = 900_000  # bytes of WebP that the pictures of a board may take; a third more as base64
OF_ALL = 5_000_000  # of those of all boards of a folder together
SCRIPTS = ("elements.js", "tables.js", "charts.js", "sections.js")  # each uses what stands in those before it
_HERE = Path(__file__).parent
_FILES = {
    "leaderboard.md": "as Markdown",
    "metrics.csv": "every number",
    "metrics.json": "ranks, pairs, controls",
    "slices.csv": "by slice",
}


@dataclass(frozen=True)
class SectionPage:
    """A section as the template writes it.

    Attributes:
        place: of its data in the page's JSON.
        answer: what the verdict says first, and the rest.
        table: the rows as they are ranked; None: there is none.
        about: blocks by the tab that they stand in.
        files: of each cell, its row and seed, and links.
        tabs: those that have something to show, and what they are called.
    """

    place: int
    title: Markup
    name: str
    answer: tuple[Markup, Markup]
    facets: Mapping[str, str]
    table: Grid | None
    about: Mapping[str, Sequence[Said]]
    files: Sequence[tuple[str, int, Sequence[Markup]]]
    tabs: Mapping[str, str]


@dataclass(frozen=True)
class BoardPage:
    """A board as the template writes it."""

    name: str
    trusted: bool | None  # None: nothing says
    trust: str
    warnings: Sequence[Said]
    controls: Sequence[Control]
    state: Sequence[Said]
    overviews: Sequence[Said]
    sections: Sequence[SectionPage]
    meaning: Sequence[Said]
    links: Sequence[Markup]


@dataclass(frozen=True)
class Control:
    """The outcome of a control.

    Attributes:
        tells: whether it could have failed.
        range: where its bounds and its value lie on a scale, 0 to 1; None: it has none.
    """

    where: Markup
    name: str
    what: str
    seed: int
    value: str
    bounds: str
    outcome: Markup
    passed: bool
    tells: bool
    range: tuple[float, float, float] | None


@dataclass
class Pages:
    """The boards that one page shows, one after the other, and the data of their sections.

    Attributes:
        apart: whether each lies in a folder of its own below the page.
        documents: what is said of the documents that they repeat.
    """

    apart: bool
    boards: list[BoardPage] = field(default_factory=list)
    sections: list[dict[str, Any]] = field(default_factory=list)
    documents: list[Said] = field(default_factory=list)

    def add_documents(self, results: Path, names: Sequence[str]) -> None:
        """What the documents report whose experiments are among these boards."""
        self.documents += said(papers.of_boards(results, names, "" if self.apart else "../"))

    def add(self, board: Board, results: Path, pictures: int = PICTURES) -> None:
        """A further board; `pictures`: bytes that its pictures may take."""
        folder = f"{board.suite}/" if self.apart else ""
        shown = [section for section in board.sections if any_wanted(section)]
        allowance = Allowance(pictures)
        real_faces = _real_faces(results, board.suite)
        pages = []
        for k, section in enumerate(shown):
            share = Allowance(allowance.left // (len(shown) - k))  # what one leaves, the others have
            before = share.left
            name = f"{folder}{section.track.name}/{section.dataset}/{section.size}"
            found = values(section, one_line(name), folder, real_faces, share)
            allowance.left -= before - share.left
            pages.append(_section(board, section, found, len(self.sections), folder))
            self.sections.append(found)
        self.boards.append(_board(board, shown, pages, folder))


def _real_faces(results: Path, suite: str) -> bool:
    """Whether the board's suite lets pictures of real people into pages."""
    try:
        return Origin.recorded(results, suite).real_faces
    except (EmobenchError, OSError):
        return False


def write_page(board: Board, results: Path) -> Path:
    """Write results/<suite>/index.html; returns its path.

    Raises:
        OSError: the folder cannot be written.
    """
    pages = Pages(apart=False)
    pages.add(board, results)
    pages.add_documents(results, [board.suite])
    return _write(results / board.suite / FILE, pages, board.suite)


def write_all(pages: Pages, results: Path) -> Path:
    """Write results/index.html of boards that were added; returns its path."""
    return _write(results / FILE, pages, "all boards")


def _write(path: Path, pages: Pages, title: str) -> Path:
    write_text(path, html(pages, title))
    return path


def html(pages: Pages, title: str) -> str:
    """The page as one text."""
    style, script = _asset("page.css"), _script()
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    found: str = (
        _environment()
        .get_template("page.html")
        .render(
            title=one_line(title),
            boards=pages.boards,
            apart=pages.apart,
            documents=pages.documents,
            facets=_facets(pages),
            protocol=PROTOCOL,
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            data=inert({"sections": pages.sections}),
        )
    )
    return found


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@functools.cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").strip()


@functools.cache
def _script() -> str:
    """The files of the page's script as one, in a scope of their own."""
    return '(() => {\n"use strict";\n' + "\n\n".join(map(_asset, SCRIPTS)) + "\n})();"


def _digest(text: str) -> str:
    """What names an inline script or style in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


_ESCAPES = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}


def inert(content: Any) -> Markup:
    """Strict JSON that can stand in a script element: nothing in it ends that, or begins another.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))


def _facets(pages: Pages) -> dict[str, list[str]]:
    """What rows can be filtered by, and the values that there are of each: those of one value alone are left out."""
    found: dict[str, dict[str, None]] = {}
    for board in pages.boards:
        for section in board.sections:
            for row in section.table.rows if section.table is not None else ():
                for name, value in {**section.facets, **row.facets}.items():
                    found.setdefault(name, {})[value] = None
    return {name: sorted(of, key=_number_first) for name, of in found.items() if len(of) > 1}


def _number_first(value: str) -> tuple[float, str]:
    return (float(value) if value.isdecimal() else float("inf"), value)


# A board


def _board(board: Board, shown: Sequence[Section], pages: Sequence[SectionPage], folder: str) -> BoardPage:
    checks = [_control(section, check) for section in shown for check in section.checks]
    warnings = list(said(failures(board), folder))
    trusted, sentence = trust(board)
    there = [name for name in _FILES if (board.path.parent / name).exists()]
    links = [written((Link(name), f" {_FILES[name]}"), folder) for name in there]
    whole = list(said([*state(board), *skipped(board)], folder))
    return BoardPage(
        one_line(board.suite), trusted, sentence, warnings, checks, whole,
        list(said(overviews(shown), folder)), pages, list(said(meaning(board, shown)[1:], folder)), links,
    )  # fmt: skip


def _control(section: Section, check: Check) -> Control:
    value = "n/a" if check.value is None else signed(check.value)
    where = written((f"{section.track.name}, ", *heading(section)[1:]))
    said_of = written(outcome(section, check))
    name = one_line(check.name).removeprefix("control:")
    return Control(
        where, name, check.what, check.seed, value, check.bounds, said_of, check.passed, tells(section, check),
        _range(check),
    )  # fmt: skip


def _range(check: Check) -> tuple[float, float, float] | None:
    """Its lower bound, upper bound and value on a scale that holds them all."""
    if check.value is None or check.low is None:
        return None
    high = max(check.low, check.value) + 0.1 if check.high is None else check.high
    ends = (check.low, high, check.value)
    low, wide = min(*ends, 0.0), max(*ends, 1.0) - min(*ends, 0.0)
    return (check.low - low) / wide, (high - low) / wide, (check.value - low) / wide


# A section

_TABS = {
    "numbers": "All numbers",
    "differences": "Differences",
    "emotions": "Emotions",
    "slices": "Slices",
    "confusions": "Confusions",
    "faces": "Faces",
    "apart": "Disagreements",
    "training": "Training",
    "cost": "Cost",
    "judges": "Judges",
    "claims": "Claims",
    "settings": "Settings",
    "notes": "Notes and files",
}


def _section(board: Board, section: Section, data: Mapping[str, Any], place: int, folder: str) -> SectionPage:
    about = topics(section, {}, set())
    models = [block for block in about["models"] if isinstance(block, Table)]
    entries = {entry.name: entry for entry in section.every}

    def facets(name: str) -> dict[str, str]:
        entry = entries.get(name)
        if entry is None or not entry.seeds:
            return {"seeds": "0"}
        hardware = next((cost.hardware for cost in entry.costs.values()), "")
        return {"seeds": str(len(entry.seeds)), **({"hardware": one_line(hardware)} if hardware else {})}

    ranks = len(section.track.rankings)
    by = any(entry.trainer for entry in section.every)
    table = grid(models[0], folder, facets=facets, entries=entries, spark=ranks + 1 + by) if models else None
    kept = {
        "numbers": [Said("table", table=grid(each, folder, facets=facets, entries=entries)) for each in models[1:]],
        "emotions": _without_heading(about["emotions"], folder),
        "slices": _by_slice(section, folder),
        "judges": [*_without_heading(about["panel"], folder), *_without_heading(about["controls"], folder)],
        "faces": list(said(about["guided"], folder)),
        "claims": [*_without_heading(about["outside"], folder), *said(about["claims"], folder)],
        "settings": [*said(about["settings"], folder), *said(about["trainers"], folder)],
        "training": _without_heading(about["training"], folder),
        "notes": list(said(about["notes"], folder)),
    }
    listed = [
        (one_line(row), seed, [written((Link(path, path.rpartition("/")[2]),), folder) for path in paths])
        for row, seed, paths in files(section, board.path.parent)
    ]
    drawn = {
        "differences": bool(data["rankings"]),
        "confusions": bool(data["confusions"]),
        "faces": bool(data["pictures"] or data["curves"] or data["fading"]),
        "apart": data["apart"] is not None,
        "training": bool(data["training"]),
        "cost": bool(data["costs"]["axes"]) and len(data["costs"]["rows"]) > 1,
        "judges": bool(data["judges"]),
        "notes": bool(listed),
    }
    there = {tab: title for tab, title in _TABS.items() if kept.get(tab) or drawn.get(tab)}
    of_all = {"track": section.track.name, "dataset": one_line(section.dataset), "size": str(section.size)}
    if folder:
        of_all = {"board": one_line(board.suite), **of_all}
    return SectionPage(
        place, written(heading(section)), str(data["id"]), answer(verdict(section), folder), of_all, table, kept,
        listed, there,
    )  # fmt: skip


def _by_slice(section: Section, folder: str) -> list[Said]:
    """The numbers by slice, and what they mean; nothing where nothing is known of the faces."""
    there = section.slices is not None and section.slices.rows
    return list(said([*slices.about(section), *([Paragraph((slices.MEANING,))] if there else [])], folder))


def _without_heading(blocks: Sequence[Block], folder: str) -> list[Said]:
    """What stands under a tab of that name already."""
    return list(said([block for block in blocks if not isinstance(block, Heading)], folder))
