"""papers.md: what the five documents report, beside what their experiments gave here.

A figure of a document and one of ours differ for many reasons besides the network. Their difference is shown only where
faces, test rows, size, starting weights and judge are the document's and ours had at least half of its recipe;
else the figures stand beside each other as not comparable, with what is missing. What the documents report lies in
papers.toml, ours is read from the boards of their suites, also those on a share of them (`emobench.suite.scale`).
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from emobench.errors import EmobenchError
from emobench.evaluation.protocol import UNDER_TRAINED
from emobench.evaluation.tracks.track import Name
from emobench.files import write_text
from emobench.report.board import Number
from emobench.report.markdown import markdown
from emobench.report.page import Block, Bullets, Code, Heading, Link, Paragraph, Part, Score, Table, Text, joined
from emobench.report.readable import shown_value
from emobench.report.written import PAGE, read_board
from emobench.runner.record import Evaluation, Record
from emobench.runner.store import Origin, StoredCell, load_board
from emobench.suite.file import stem
from emobench.suite.keys import PROTOCOL
from emobench.suite.scale import stands_in_for

FILE = "papers.md"
_PUBLIC = "no PrivateTest rows"  # how a note of FER-2013 begins where its test split is PublicTest
_DRAWN = "no official split"


class Figure(BaseModel):
    """A number that a document reports; shares are 0 to 1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    metric: str
    value: float
    emotion: str = ""  # as in metrics.csv
    of: Literal["test", "validation", "training"] = "test"
    spread: float | None = None  # as the document gives it, "1.47 ± 0.09"


class Experiment(BaseModel):
    """A network of a document; what is None or empty the document does not say."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    suite: str
    row: str
    instead: str | None = None  # a row that runs without the weights that this one starts from
    dataset: str
    test: str  # which rows it was tested on
    official: bool = False  # whether these are known: a split of the dataset's own
    n: int | None = None  # of them
    size: int | None = None  # px
    weights: str | None = None  # "none": from scratch
    judge: str | None = None  # what read its pictures
    budget: str | None = None
    figures: tuple[Figure, ...] = ()


class Document(BaseModel):
    """One of the five.

    Attributes:
        notes: where its protocol differs from ours, or leaks.
        without: what it names and gives no figure of.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cited: str
    about: str
    notes: tuple[str, ...]
    without: tuple[str, ...]
    experiment: tuple[Experiment, ...]


@functools.cache
def documents() -> tuple[Document, ...]:
    """What the five documents report."""
    text = (Path(__file__).parent / "papers.toml").read_text(encoding="utf-8")
    # By way of JSON, whose lists are tuples to pydantic also where it is strict.
    return tuple(Document.model_validate_json(json.dumps(each)) for each in tomllib.loads(text)["document"])


# What there is of ours


@dataclass(frozen=True)
class Ours:
    """A row of a board that repeats an experiment.

    Attributes:
        cell: of the first seed that is done.
        numbers: (metric, emotion) -> number over its seeds.
    """

    board: str
    cell: StoredCell
    record: Record
    evaluation: Evaluation
    numbers: dict[tuple[str, str], Number]

    @property
    def size(self) -> int:
        """Side of the faces that the network sees, px."""
        recipe = self.record.made_of.fit.get("recipe") or {}
        return int(recipe.get("size") or self.cell.size)

    @property
    def weights(self) -> str | None:
        """That it starts from; "none": from scratch. Those of a loss network are no start."""
        arguments = self.record.made_of.fit.get("arguments", {})
        given = None if "perceptual" in arguments else arguments.get("weights")
        return "none" if given is None else str(given)

    @property
    def faces(self) -> int:
        """Of its test split."""
        return sum(self.evaluation.dataset.counts.get("test", {}).values())

    def noted(self, start: str) -> bool:
        """Whether its dataset has a note that begins so."""
        return any(note.startswith(start) for note in self.evaluation.dataset.notes)

    def number(self, figure: Figure) -> Number | None:
        """Ours of a document's figure, with its interval; None: no board has it."""
        if figure.of == "test":
            return self.numbers.get((figure.metric, figure.emotion))
        validation = None if self.record.fit is None else self.record.fit.validation
        if figure.of != "validation" or validation is None:
            return None
        value = getattr(validation, figure.metric)
        n = sum(self.evaluation.dataset.counts.get("val", {}).values())
        return _number(self.cell, figure.metric, value, n)


def ours(results: Path, of: Experiment) -> tuple[Ours | None, str]:
    """The row that repeats an experiment, on the largest share of it, or the one in its place; and why it is no better.

    What is said is empty where the experiment's own row is done.
    """
    there = boards(results, of.suite)
    why = "" if there else f"its suite was not run here: `emobench bench {of.suite}`"
    for row in filter(None, (of.row, of.instead)):
        for board in there:
            cells = [cell for cell in load_board(results, board) if cell.row == row and cell.control is None]
            for cell in cells:
                if cell.state == "done" and cell.record is not None and cell.record.evaluation is not None:
                    found = Ours(board, cell, cell.record, cell.record.evaluation, _numbers(results / board, cell))
                    return found, "" if row == of.row else why
                why = why or _reason(cell)
    return None, why or f"no board of {of.suite} has such a row"


def boards(results: Path, suite: str) -> list[str]:
    """The boards of a suite as it stands, the largest share of it first."""
    found: list[tuple[float, str]] = []
    for path in sorted(results.glob("*/suite.json")):
        try:
            origin = Origin.recorded(results, path.parent.name)
        except (EmobenchError, OSError):
            continue
        if stem(origin.file) == suite and not origin.overrides:
            found.append((-(origin.scale or 1.0), path.parent.name))
    return [board for _, board in sorted(found)]


def _reason(cell: StoredCell) -> str:
    """Why a cell has no numbers: of missing weights which, and not where they were looked for."""
    reason = cell.reason or cell.state
    start = reason.find(": weights ") if cell.state == "skipped" else -1
    return reason if start < 0 else f"the {reason[start + 2 :].partition(';')[0]} here"


def _numbers(folder: Path, cell: StoredCell) -> dict[tuple[str, str], Number]:
    """A row's numbers over all seeds and judges, of the track that it has them on first."""

    try:
        table = read_board(folder)
    except EmobenchError:
        return {}
    mine = table[
        (table["variant"].fillna("") == cell.variant)
        & (table["model"] == cell.model)
        & (table["dataset"] == cell.dataset)
        & table["seed"].isna()
        & (table["judge"].fillna("") == "")
    ]
    found: dict[tuple[str, str], Number] = {}
    for line in mine.itertuples():
        value, low, high, faces = (_known(getattr(line, name)) for name in ("value", "low", "high", "n"))
        number = _number(cell, str(line.metric), value, None if faces is None else int(faces), reason=str(line.reason))
        found.setdefault((str(line.metric), str(line.emotion)), number._replace(low=low, high=high))
    return found


def _known(value: Any) -> float | None:
    import pandas as pd

    return None if pd.isna(value) else float(value)


def _number(cell: StoredCell, metric: str, value: float | None, n: int | None, reason: str | None = None) -> Number:
    return Number(
        suite="", dataset=cell.dataset, size=cell.size, track=cell.track, model=cell.model, variant=cell.variant,
        trainer="", seed=None, metric=metric, emotion="", value=value, low=None, high=None, n=n, reason=reason,
        judge="", hardware="", protocol=PROTOCOL, flags="",
    )  # fmt: skip


# Whether they compare


def lacking(of: Experiment, mine: Ours) -> list[str]:
    """What keeps our figures of an experiment from being compared with the document's; empty: nothing."""
    return [
        reason
        for reason in (
            _network(of, mine), _dataset(of, mine), _test_rows(of, mine), _size(of, mine), _weights(of, mine),
            "" if of.judge is None else f"its judge: {of.judge}", _budget(mine),
        )
        if reason
    ]  # fmt: skip


def _network(of: Experiment, mine: Ours) -> str:
    return "" if mine.cell.row == of.row else f"its network: {mine.cell.row} is in its place"


def _dataset(of: Experiment, mine: Ours) -> str:
    if mine.cell.dataset == of.dataset:
        return ""
    real = stands_in_for(mine.cell.dataset)
    return f"its faces: drawn ones stand in for {of.dataset}" if real else f"its faces: {mine.cell.dataset}"


def _test_rows(of: Experiment, mine: Ours) -> str:
    if not of.official:
        return "its test rows, which it does not name"
    if mine.noted(_PUBLIC):
        return f"its test rows: ours are PublicTest, not {of.test}"
    if mine.noted(_DRAWN):
        return f"its test rows: ours are drawn, not {of.test}"
    return "" if mine.faces == of.n else f"its test rows: ours are {mine.faces:,} faces, not {of.n:,}"


def _size(of: Experiment, mine: Ours) -> str:
    if of.size is None:
        return "its size, which it does not give"
    return "" if mine.size == of.size else f"its size: ours is {mine.size} px, not {of.size}"


def _weights(of: Experiment, mine: Ours) -> str:
    if of.weights is None:
        return "its starting weights, which it does not name"
    return "" if mine.weights == of.weights else f"its starting weights: ours are {_started(mine.weights)}"


def _budget(mine: Ours) -> str:
    share = mine.cell.share
    if share is not None and share >= UNDER_TRAINED:
        return ""
    return "half of the recipe" if share is None else f"half of the recipe: ours had {_percent(share)}"


def _started(weights: str | None) -> str:
    return "from scratch" if weights == "none" else str(weights)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


# The page


def page(results: Path, of: Sequence[Document] | None = None, folder: str | None = None) -> list[Block]:
    """The documents, or some of them, figure by figure.

    Args:
        folder: from the page to the results, with a slash at its end; None: boards are named, and not linked.
    """
    shown = documents() if of is None else of
    parts = [(document, [(each, *ours(results, each)) for each in document.experiment]) for document in shown]
    return [
        Paragraph(_sums(parts)),
        *(block for document, rows in parts for block in _document(document, rows, folder)),
    ]


Row = tuple[Experiment, Ours | None, str]


def _sums(parts: Sequence[tuple[Document, Sequence[Row]]]) -> Text:
    """How many figures there are, and how many of them compare."""
    rows = [row for _, found in parts for row in found if row[0].figures]
    figures = sum(len(each.figures) for each, _, _ in rows)
    repeated = sum(mine is not None for _, mine, _ in rows)
    compared = sum(
        sum(_compares(each, figure, mine) for figure in each.figures) for each, mine, _ in rows if mine is not None
    )
    whose = "The document reports" if len(parts) == 1 else f"The {len(parts)} documents report"
    of_them = "none of them compares" if not compared else f"{compared} of them compare"
    return (
        f"{whose} {figures} figures of {len(rows)} networks. {repeated} of these are repeated here, and {of_them}: a "
        "difference is shown only where faces, test rows, size, starting weights and judge are the document's, and "
        "ours had at least half of its recipe.",
    )


def _document(document: Document, rows: Sequence[Row], folder: str | None) -> Iterator[Block]:
    yield Heading(2, (Name(document.cited),))
    yield Paragraph((f"{document.about[0].upper()}{document.about[1:]}.",))
    header = ["network", "whose", "faces", "test rows", "size", "starts from", "budget"]
    yield Table([(each,) for each in header], [line for row in rows for line in _settings(*row, folder)], range(7))
    if any(each.figures for each, _, _ in rows):
        header = ["figure", "the document's", "ours", "n", "difference"]
        lines = [_line(each, figure, mine) for each, mine, _ in rows for figure in each.figures]
        yield Table([(each,) for each in header], lines, (0, 4))
    yield Bullets(
        [
            *(_comparability(each, mine) for each, mine, _ in rows if mine is not None and each.figures),
            *(
                ("Not run: ", Code(each.row), ", because ", *_in_place(each, mine, why))
                for each, mine, why in rows
                if why
            ),
            *((note,) for note in document.notes),
            *([("Named without a figure: ", *joined(document.without), ".")] if document.without else []),
        ]
    )


def _in_place(of: Experiment, mine: Ours | None, why: str) -> Text:
    """Why a row was not run, and what was run in its place."""
    instead: Text = () if mine is None else ("; ", Code(mine.cell.row), " was, in its place")
    return (*((why,) if why.startswith("its suite") else (Name(why),)), *instead, ".")


def _settings(of: Experiment, mine: Ours | None, why: str, folder: str | None) -> Iterator[list[Text]]:
    """What an experiment was made on: a line of the document's, and one of ours."""
    unsaid = "not said"
    yield [
        (Code(of.row),),
        ("document",),
        (Name(of.dataset),),
        (f"{of.test}{f', {of.n:,}' if of.n else ''}",),
        (f"{of.size} px" if of.size else unsaid,),
        (unsaid if of.weights is None else Name(_started(of.weights)),),
        (of.budget or unsaid,),
    ]
    if mine is None:
        yield [("",), ("ours",), *[("not run",)] * 5]
        return
    # A link only on a page, which is made beside its boards: papers.md may be read where these are not.
    whose: Text = ("ours, ", Code(mine.board)) if folder is None else (Link(f"{folder}{mine.board}/{PAGE}", "ours"),)
    marked: Text = (Name(mine.cell.dataset),)
    yield [
        ("",) if mine.cell.row == of.row else (Code(mine.cell.row),),
        whose,
        ("**drawn**, ", *marked) if stands_in_for(mine.cell.dataset) else marked,
        (f"{_split(of, mine)}, {mine.faces:,}",),
        (f"{mine.size} px",),
        (Name(_started(mine.weights)),),
        (_had(mine),),
    ]


def _split(of: Experiment, mine: Ours) -> str:
    if mine.noted(_PUBLIC):
        return "PublicTest"
    return of.test if of.official and not stands_in_for(mine.cell.dataset) and not mine.noted(_DRAWN) else "drawn"


def _had(mine: Ours) -> str:
    """How much of its recipe ours had."""
    cost = None if mine.record.fit is None else mine.record.fit.cost
    share = mine.cell.share
    said = "nothing to train" if cost is None else f"{cost.steps:,} step{'' if cost.steps == 1 else 's'}"
    return said if share is None else f"{said}, {_percent(share)} of the recipe"


def _compares(of: Experiment, figure: Figure, mine: Ours) -> bool:
    """Whether a figure's difference can be shown."""
    number = mine.number(figure)
    return figure.of == "test" and number is not None and number.value is not None and not lacking(of, mine)


def _line(of: Experiment, figure: Figure, mine: Ours | None) -> list[Text]:
    name = f"{figure.metric.replace('_', ' ')}{'' if figure.of == 'test' else f' in {figure.of}'}"
    theirs = f"{figure.value:.4g}" if figure.value < 10 else f"{figure.value:.2f}"
    theirs += "" if figure.spread is None else f" ± {figure.spread:g}"
    label: Text = (Code(of.row), f" {name}", *((", ", Name(figure.emotion)) if figure.emotion else ()))
    if mine is None:
        return [label, (theirs,), ("not run",), ("",), ("",)]
    number = mine.number(figure)
    return [
        label,
        (theirs,),
        (Score(number),) if number is not None else ("n/a (no board measures it)",),
        (f"{number.n:,}" if number is not None and number.n else "",),
        (_difference(number, figure.value),) if _compares(of, figure, mine) else ("not comparable",),
    ]


def _difference(number: Number | None, theirs: float) -> str:
    """Ours minus the document's, whose figure has no interval."""
    assert number is not None
    assert number.value is not None
    shown = f"{shown_value(number, number.value - theirs)}"
    if number.low is None or number.high is None:
        return shown
    return f"{shown} ({shown_value(number, number.low - theirs)} to {shown_value(number, number.high - theirs)})"


def _comparability(of: Experiment, mine: Ours) -> Text:
    missing = lacking(of, mine)
    if not missing:
        return (Code(of.row), " compares.")
    parts: list[Part] = [Name(each) for each in missing]
    said = [part for each in parts for part in ("; ", each)]
    return (Code(of.row), " is not comparable. What is missing: ", *said[1:], ".")


def suites(results: Path, names: Sequence[str]) -> list[str]:
    """The suites of documents whose boards are among these."""
    known = dict.fromkeys(one.suite for each in documents() for one in each.experiment)
    return [suite for suite in known if {*boards(results, suite)} & {*names}]


def of_boards(results: Path, names: Sequence[str], folder: str) -> list[Block]:
    """What is said, on a page of these boards, of the documents that they repeat; nothing where they repeat none."""
    among = suites(results, names)
    found = [each for each in documents() if any(one.suite in among for one in each.experiment)]
    return page(results, found, folder) if found else []


def write(results: Path) -> Path:
    """Write results/papers.md; returns its path.

    Raises:
        OSError: the folder cannot be written.
    """
    path = results / FILE
    head: list[Block] = [Heading(1, ("The documents, side by side",))]
    tail: list[Block] = [
        Paragraph(
            (
                "Ours stand with their 95 % intervals; the documents give none. ",
                "What every number means: docs/protocol.md; the documents and their recipes: docs/systems.md; how this "
                "is decided and repeated: docs/papers.md.",
            )
        )
    ]
    write_text(path, markdown([*head, *page(results), *tail]))
    return path
