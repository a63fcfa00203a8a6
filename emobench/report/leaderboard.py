"""leaderboard.md: the answer of each track and dataset, and a table that fits a screen; all else is in the details."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from emobench.evaluation.tracks.track import Column, Key, Name, Track
from emobench.report import people
from emobench.report.board import Board, Entry, Section
from emobench.report.page import Block, Bullets, Cost, Heading, Link, Paragraph, Table, Text, joined
from emobench.report.readable import brief, is_share
from emobench.report.tables import FLAGS, again, earlier, heading, is_listed, overviews, ranked, test_faces
from emobench.report.verdict import answer, any_wanted, failures, skipped, state, trust

_BESIDE = 2  # columns beside the figure that is ranked by
# What is shown there, the first that have values: further rankings come before, metrics of a track's own after them.
_TELLING = ("accuracy", "ece", "fid", "fed", "identity", "truth_ssim", "ssim", "es", "control_named", "content_loss")


def details_name(track: Track | None) -> str:
    """The file of a track's details; None: the pattern of all of them."""
    return f"details-{'*' if track is None else track.name}.md"


def leaderboard(board: Board) -> list[Block]:
    """The whole page."""
    shown = [section for section in board.sections if any_wanted(section)]
    blocks: list[Block] = [Heading(1, ("Leaderboard: ", Name(board.suite))), *failures(board), *state(board)]
    blocks += [Paragraph((trust(board)[1],))] if shown else []
    blocks += overviews(shown, short=True)
    for section in shown:
        blocks += _section(section)
    return [*blocks, *skipped(board), *_end(board, shown)]


def _section(section: Section) -> list[Block]:
    rows = [entry for entry in section.entries if is_listed(entry)]
    marks = _marks(rows)
    table = Table(*_table(section, rows, marks), left=(0, 1))
    notes = [(f"{mark} *{flag}*: ", *FLAGS.get(flag, ("see the details.",))) for flag, mark in marks.items()]
    more: Text = (
        f"n = {test_faces(section)}; " if section.usable else "",
        Link(details_name(section.track), "all numbers and pictures"),
        ".",
    )
    blocks: list[Block] = [Heading(2, heading(section)), Paragraph(answer(section))]
    return [*blocks, *([table] if rows else []), *([Bullets(notes)] if notes else []), Paragraph(more)]


def _marks(rows: Sequence[Entry]) -> dict[str, str]:
    """The flags of some rows, each with the mark of its footnote; of those that are `stale`, the page's end says it."""
    flags = dict.fromkeys(flag for entry in rows for flag in entry.flags if flag != "stale")
    return {flag: "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(k)) for k, flag in enumerate(flags, 1)}


def _table(section: Section, rows: Sequence[Entry], marks: Mapping[str, str]) -> tuple[list[Text], list[list[Text]]]:
    """Rank, model, what it is ranked by, what stands beside it, cost and seeds: at most seven columns."""
    trainer = any(entry.trainer for entry in rows)
    columns = _columns(section, _BESIDE - trainer)
    header: list[Text] = [("rank",), ("model",), *([("trainer",)] if trainer else [])]
    header += [(_titled(column),) for column in columns]
    header += [("training",), ("seeds",)]
    said = []
    for entry in rows:
        name: Text = (Name(entry.name), *(f"\u00a0{marks[flag]}" for flag in entry.flags if flag in marks))
        by: list[Text] = [(Name(entry.trainer),)] if trainer else []
        figures: list[Text] = [(brief(entry.numbers.get(column.key)),) for column in columns]
        said.append([_rank(section, entry), name, *by, *figures, *_cost_and_seeds(entry)])
    for ceiling in section.controls:
        if ceiling.name == people.NAME:
            beside: list[Text] = [("",)] if trainer else []
            figures = [(brief(ceiling.numbers.get(column.key)),) for column in columns]
            said.append([("",), ("*one person*",), *beside, *figures, ("",), ("",)])
    return header, said


def _titled(column: Column) -> str:
    name = column.heading.partition(",")[0] if column.key.metric.startswith("control_calibrated") else column.heading
    return f"{name}, %" if is_share(column.key.metric) else name


def _columns(section: Section, room: int) -> list[Column]:
    """The figure that the first ranking goes by, then further rankings', then the first telling ones with values."""
    keys = [section.ranked_by.get(each.name, each.metrics[0]) for each in section.track.rankings]
    known = [column for column in section.track.columns if column.shows == "number"]
    first = [column for key in keys[:1] or [section.track.headline] for column in known if column.key == key]
    families = {column.heading.partition(",")[0] for column in first}
    others = [column for column in known if column.heading.partition(",")[0] not in families]
    others = [column for column in others if _mostly(section, column.key)]
    order = [key.metric for key in keys] + list(_TELLING)
    others.sort(key=lambda each: order.index(each.key.metric) if each.key.metric in order else len(order))
    return [*first[:1], *others[:room]]


def _mostly(section: Section, key: Key) -> bool:
    """Whether at least half of the measured rows have a value."""
    return 2 * sum(entry.value(key) is not None for entry in section.measured) >= max(1, len(section.measured))


def _rank(section: Section, entry: Entry) -> Text:
    """By the first ranking; of a row that takes none, the place that it would have."""
    ranking = next(iter(section.track.rankings), None)
    return ("–",) if ranking is None else ranked(section, entry, ranking)


def _cost_and_seeds(entry: Entry) -> Iterator[Text]:
    cost, measured = entry.costs.get("fit_seconds"), len(entry.seeds)
    yield ("–",) if cost is None or cost.value is None else (Cost(cost),)
    yield (str(measured) if measured == len(entry.cells) else f"{measured} of {len(entry.cells)}",)


_BRACKETS = (
    "Brackets hold 95 % intervals. Models of one rank, such as 1–3, cannot be told apart at 5 %; a rank in brackets "
    "is an order only, of too few seeds."
)
_CONTROL = "Control: how often judges read the emotion asked for, on a scale where real faces score 100."
_UNITS = (
    "Attention on units: how much of a network's attention lies on the parts of the face that show the emotion, over "
    "their share of the face; 1: it looks everywhere alike."
)


def _end(board: Board, shown: Sequence[Section]) -> list[Block]:
    """What holds of the whole page, and where all else is."""
    tracks = dict.fromkeys(section.track for section in shown)
    items: list[Text] = [(_BRACKETS,)] if shown else []
    rankings = [ranking for track in tracks for ranking in track.rankings]
    items += [(_CONTROL,)] if any(ranking.name == "control" for ranking in rankings) else []
    items += [(_UNITS,)] if any(track.name == "explanation" for track in tracks) else []
    sliced = any(section.slices is not None and section.slices.rows for section in shown)
    files = [
        *(Link(details_name(track)) for track in tracks),
        *([Link("slices.md")] if sliced else []),
        Link("metrics.csv"),
        Link("metrics.json"),
    ]
    items.append(("All else: ", *joined(files), "."))
    return [Heading(2, ("About this page",)), Bullets([*items, *earlier(board), again(board)])]
