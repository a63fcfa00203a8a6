"""What a board says: the verdict, whether it can be trusted, and for each track and dataset its tables and pictures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from emobench.evaluation.tracks.recognition import cannot_fail
from emobench.evaluation.tracks.track import Check, Column, Key, Name, Ranking
from emobench.metrics import intervals
from emobench.report import outside, power, unranked
from emobench.report.board import AT_CHANCE, MFU, Board, Entry, Number, Section
from emobench.report.page import (
    Block,
    Bullets,
    Code,
    Cost,
    Gallery,
    Heading,
    Link,
    Paragraph,
    Part,
    Picture,
    Rank,
    Score,
    Strong,
    Table,
    Text,
    Warning,
    joined,
)
from emobench.report.spread import Held, few_seeds, held, moved
from emobench.report.trainers import first_trainer, trainers
from emobench.runner.choice import NOT_CHOSEN, READ_EARLIER, Choice, Setting, is_candidate
from emobench.runner.record import Card, Record
from emobench.suite.keys import PROTOCOL
from emobench.suite.scale import stands_in_for

Pictures = Mapping[tuple[str, ...], str]  # (track, dataset, what, …) -> path from the board's folder

_COSTS = {"params": "params", "flops": "FLOPs/face", "fit_seconds": "training"}


def page(board: Board, pictures: Pictures) -> list[Block]:
    """All of leaderboard.md: the verdict, the state, a section for each track and dataset, and what it all means."""
    shown = [section for section in board.sections if any_wanted(section)]
    verdicts = [verdict(section) for section in shown]
    blocks: list[Block] = [Heading(1, ("Leaderboard: ", Name(board.suite))), *failures(board)]
    blocks += [Paragraph(verdicts[0])] if len(verdicts) == 1 else [Bullets(verdicts)]
    blocks += state(board)
    blocks += overviews(shown)
    panels: set[tuple[str, ...]] = set()
    for section in shown:
        blocks += _section(section, pictures, panels)
    return [*blocks, *skipped(board), *meaning(board)]


def skipped(board: Board) -> list[Block]:
    """The optional rows that cannot run here, and why."""
    found = {(cell.row, cell.dataset): cell.reason for cell in board.cells if cell.state == "skipped"}
    if not found:
        return []
    items: list[Text] = [(Name(row), " on ", Name(data), ": ", Name(why)) for (row, data), why in found.items()]
    return [Heading(2, ("Skipped",)), Bullets(items)]


def any_wanted(section: Section) -> bool:
    return any(cell.state != "skipped" for entry in (*section.entries, *section.controls) for cell in entry.cells)


# The verdict


def verdict(section: Section) -> Text:
    """Which model is best, by how much, and whether that is certain: one sentence a track and dataset."""
    where: Text = (f"{section.track.name.capitalize()} on ", Code(section.dataset))
    parts: list[Text] = []
    for place, ranking in enumerate(section.track.rankings):
        if section.compared.get(ranking.name):
            parts.append(_best(section, ranking) if place == 0 else _nearest(section, ranking))
        elif _blind(section, ranking) is not None:
            parts.append((Strong(f"nobody is ranked by {ranking.heading}"), ", as said above"))
    if not parts:
        return (*where, *_nobody(section))
    first = section.compared.get(section.track.rankings[0].name, [])
    short = [entry for entry in first[1:] if _short(entry)]
    if short:
        are = "is" if len(short) == 1 else "are"
        parts.append((*joined(Name(entry.name) for entry in short), f" {are} under-trained"))
    said = [part for text in parts for part in ("; ", *text)]
    return (*where, ": ", *said[1:], ".")


def _nobody(section: Section) -> Text:
    """What is said where no row takes a rank."""
    key = section.track.headline
    shown = [entry for entry in section.measured if key in entry.numbers]
    if not shown:
        return (": nothing is measured yet.",)
    said: Text = (": no row takes a rank",)
    for entry in shown:
        why = f" ({', '.join(entry.unranked)})" if entry.unranked else ""
        said = (*said, "; ", Name(entry.name), f": {_words(key)} ", Score(entry.numbers[key]), why)
    return (*said, ".")


def _words(key: Key) -> str:
    return key.metric.replace("_", " ")


def _blind(section: Section, ranking: Ranking) -> str | None:
    """Why nobody is ranked by it: nobody can read the faces; None: somebody is, or nothing is measured."""
    if section.compared.get(ranking.name) or not section.measured:
        return None
    return next((section.blind[key.metric] for key in ranking.metrics if key.metric in section.blind), None)


def _short(entry: Entry) -> bool:
    return "under-trained" in entry.flags


def _judged(entry: Entry) -> bool:
    """Whether a row can win: it had half of its recipe, and has learned something."""
    return not _short(entry) and AT_CHANCE not in entry.flags


def _unfit(entry: Entry) -> str:
    """Why a row that leads a table wins nothing."""
    if AT_CHANCE in entry.flags:
        also = f", and had {_had(entry)}" if _short(entry) else ""
        return f", which is {AT_CHANCE} class by its interval{also}"
    return f", though it had {_had(entry)}"


def _had(entry: Entry) -> str:
    """How little of its recipe an under-trained row had."""
    share = entry.share
    if share is None:
        return "less than its recipe"
    whose = "its recipe" if entry.costs["recipe_share"].value is not None else "a recipe that it is made of"
    return f"{100 * share:.2g} % of {whose}"


def _nearest(section: Section, ranking: Ranking) -> Text:
    """The first of a ranking by one number a seed."""
    best, key = section.compared[ranking.name][0], section.ranked_by[ranking.name]
    said: Text = (Strong(Name(best.name)), f" {ranking.says} {key.metric.upper()} ", Score(best.numbers[key]))
    said = (*said, *((" (order only)",) if ranking.name in section.order_only else ()))
    said = (*said, *((f", though it had {_had(best)}",) if _short(best) else ()))
    ranked = section.compared[ranking.name]
    if ranking.name not in section.order_only or len(ranked) < 2:
        return said
    return (*said, "; ", *_again(ranked, held(section, ranking, ranked)))


def _again(entries: Sequence[Entry], found: Held) -> Text:
    """How far another training moves the figures of some rows, and whether their first would be the first again."""
    unknown = [Name(entry.name) for entry, each in zip(entries, found.spreads, strict=True) if each is None]
    if unknown:
        which = ("such a figure",) if len(unknown) == len(entries) else joined(unknown)
        return ("how far another training moves ", *which, " is not known")
    shown = [0, *(found.rivals or [1])]
    moves = [(Name(entries[place].name), f" by about {each.said}") for place in shown if (each := found.spreads[place])]
    said: Text = ("another training moves ", *moves[0])
    for place, text in enumerate(moves[1:], 2):
        said = (*said, " and " if place == len(moves) else ", ", *text)
    if not found.rivals:
        return (*said, ", too little to put another first")
    return (*said, ", so that ", *joined(Name(entries[place].name) for place in found.rivals), " could be first")


def _best(section: Section, ranking: Ranking) -> Text:
    """The first row, and the winner among those that are not under-trained, where that is another."""
    ranked, key = section.compared[ranking.name], section.ranked_by[ranking.name]
    whole = [place for place, entry in enumerate(ranked) if _judged(entry)]
    if whole[:1] == [0]:
        return _winner(section, ranking, whole)
    first = ranked[0]
    leads: Text = (Name(first.name), " leads with ", *_scored(ranking, first, key), _unfit(first))
    if whole:
        among = "that had at least half of their recipe" if _short(first) else "that are better"
        return (*leads, f"; of the rows {among} ", *_winner(section, ranking, whole))
    if all(AT_CHANCE in entry.flags for entry in ranked):
        return (*leads, "; nor is any other row, so there is no winner" if len(ranked) > 1 else "; there is no winner")
    which = "no row" if all(_short(entry) for entry in ranked) else "no row that is better"
    return (*leads, f"; {which} had half of its recipe, so there is no winner")


def _scored(ranking: Ranking, entry: Entry, key: Key) -> Text:
    """The number that a row is ranked by, and its scale where that does not go without saying."""
    scale = ranking.scale.get(key.metric)
    return (Score(entry.numbers[key]), *(() if scale is None else (f" where {scale}",)))


def _only(others: Sequence[Entry]) -> str:
    """What a row alone is, where none of the others can win."""
    had, better = "that had half of its recipe", "better than the majority class"
    if not others:
        return "measured"
    if all(_short(entry) for entry in others):
        return had
    return better if not any(_short(entry) for entry in others) else f"{better} {had}"


def _winner(section: Section, ranking: Ranking, places: Sequence[int]) -> Text:
    """The first of some rows, how far above the next it is, and whether that is certain."""
    ranked, key = section.compared[ranking.name], section.ranked_by[ranking.name]
    first = ranked[places[0]]
    best: Text = (Strong(Name(first.name)), f" {ranking.says} ", *_scored(ranking, first, key))
    compared = section.comparisons.get(ranking.name, [])
    pairs = [pair for pair in compared if pair.first == places[0] and pair.second in places]
    if not pairs:
        return (*best, f" (the only one {_only([entry for entry in ranked if entry is not first])})")
    nearest = next(pair for pair in pairs if pair.second == places[1])
    said: Text = (*best, ", ", nearest, " above ", Name(ranked[places[1]].name))
    known = all(pair.seeds_known for pair in pairs)
    seeds = min(len(ranked[place].seeds) for place in places)
    doubt = f"{'one seed' if seeds == 1 else f'{seeds} seeds'} cannot say what other seeds would give"
    tied = [Name(ranked[pair.second].name) for pair in pairs if not pair.certain]
    if tied:
        more = "" if known else f", and {doubt}"
        near = [Name(ranked[pair.second].name) for pair in pairs if pair.borderline]
        close: Text = (
            (" (", *joined(near), ": borderline, p too near 5 % for the resamples to tell its side)") if near else ()
        )
        return (*said, "; **not certain**: it cannot be told apart from ", *joined(tied), more, *close)
    if not known:
        rows = [ranked[place] for place in places]
        found = held(section, ranking, rows)
        if found.known and not found.rivals:
            return (*said, "; **certain**, also of other seeds: ", *_again(rows, found))
        why: Text = () if found.known else (doubt, ", and ")
        return (*said, "; **certain for these trained networks only**: ", *why, *_again(rows, found))
    p = max(pair.p for pair in pairs)
    chance = "corrected p < 0.001" if p < 0.001 else f"corrected p = {p:.3f}"
    return (*said, f"; **certain** ({seeds} seeds, {chance})")


# The state of the board


def failures(board: Board) -> list[Block]:
    """Before anything else is said: who cannot be ranked because nobody can read the faces, and controls that fail."""
    blind: dict[tuple[str, str], list[str]] = {}  # dataset and reason -> by what nobody is ranked there
    for section in board.sections:
        for ranking in section.track.rankings:
            if (reason := _blind(section, ranking)) is not None:
                by = blind.setdefault((section.dataset, reason), [])
                by += [ranking.heading] if ranking.heading not in by else []
    said: list[Block] = [
        Warning((f"**Nobody is ranked by {' and '.join(by)}** on ", Code(dataset), ": ", Name(reason), "."))
        for (dataset, reason), by in blind.items()
    ]
    failing = [check for check in board.checks if not check.passed and not check.follows]
    by_finding: dict[tuple[int, str], list[Part]] = {}
    for check in failing:
        by_finding.setdefault((check.seed, check.found), []).append(Name(check.name))
    return said + [
        Warning((_FAILS, ": ", *joined(names), f", seed {seed}: ", Name(found), ". ", _CAUSES))
        for (seed, found), names in by_finding.items()
    ]


_FAILS = "**A control fails: trust no number of this board**"
_CAUSES = (
    "What usually causes it: labels in the names of files, test faces among the training faces, one network on both "
    "sides, or too few faces to train what measures."
)


def state(board: Board) -> list[Block]:
    """Whether the board is whole; every cell without numbers, with its reason."""
    done = len(board.wanted) - len(board.missing)
    whole = "Complete" if done == len(board.wanted) else "**Incomplete**"
    missing = [
        (Name(_row_name(number)), " on ", Name(number.dataset), f", seed {number.seed}: ", Name(number.reason))
        for number in board.missing
    ]
    return [
        *_stand_ins(board),
        *(Warning(("**Part of the suite cannot be used**: ", Name(each), ".")) for each in board.trouble),
        Paragraph((f"{whole}: {done} of {len(board.wanted)} cells done.",)),
        *([Bullets(missing)] if missing else []),
    ]


def _stand_ins(board: Board) -> Iterator[Block]:
    """That a board says nothing of a dataset, because drawn faces stand in for it."""
    for dataset in dict.fromkeys(section.dataset for section in board.sections):
        if (real := stands_in_for(dataset)) is not None:
            lost: Text = (Name(real), " was not here, and the numbers of ", Code(dataset), " say nothing of it.")
            yield Warning(("**Drawn faces stand in for a dataset**: ", *lost))


def _row_name(number: Number) -> str:
    name = number.variant if number.variant and not number.model.startswith("control:") else number.model
    return f"{name} (trainer {number.trainer})" if number.trainer else name


def overviews(shown: Sequence[Section]) -> list[Block]:
    """The first ranking of each model on each dataset, of tracks that are run on several."""
    blocks: list[Block] = []
    for track in dict.fromkeys(section.track for section in shown):
        mine = [section for section in shown if section.track is track]
        if len(mine) < 2 or not track.rankings:
            continue
        ranking = track.rankings[0]
        every = (entry for section in mine for entry in section.entries)
        names = dict.fromkeys(entry.name for entry in every if any(cell.state != NOT_CHOSEN for cell in entry.cells))
        rows = [(Name(name), *(_placed(section, name, ranking) for section in mine)) for name in names]
        header: list[Text] = [(f"{track.name}: {ranking.heading}",), *((Name(section.dataset),) for section in mine)]
        blocks += [Heading(2, (f"Overview of {track.name}",)), Table(header, [_texts(row) for row in rows])]
    return blocks


def _placed(section: Section, name: str, ranking: Ranking) -> Part | Text:
    entry = next((entry for entry in section.entries if entry.name == name), None)
    key = section.ranked_by.get(ranking.name, ranking.metrics[0])
    if entry is None:
        return "n/a (not in the suite)"
    rank = entry.ranks.get(ranking.name)
    return (Score(entry.numbers.get(key)), *((" · rank ", Rank(rank)) if rank else ()))


def _texts(row: Sequence[Part | Text]) -> list[Text]:
    return [cell if isinstance(cell, tuple) and not isinstance(cell, Number) else (cell,) for cell in row]


# One track on one dataset


def _section(section: Section, pictures: Pictures, panels: set[tuple[str, ...]]) -> list[Block]:
    rest = section.track.title.partition(":")[2].strip()
    blocks: list[Block] = [Heading(2, heading(section))]
    blocks += [Paragraph((f"{rest.capitalize()}.",))] if rest else []
    return blocks + [block for about in topics(section, pictures, panels).values() for block in about]


def heading(section: Section) -> Text:
    """What is measured, on which faces."""
    return (f"{section.track.title.partition(':')[0]} on ", Name(section.dataset), f", {section.size} px")


def topics(section: Section, pictures: Pictures, panels: set[tuple[str, ...]]) -> dict[str, list[Block]]:
    """What is said of a section, by what it is about, in the order of leaderboard.md.

    Args:
        panels: those that were shown before, and so are not again; this section's is put to them.
    """
    place = (section.track.name, section.dataset)
    machines = {number.hardware: "" for entry in section.measured for number in [entry.costs["params"]]}
    machines = {machine: chr(ord("A") + k % 26) for k, machine in enumerate(machines)}
    named = [(entry.name, entry.cells) for entry in section.measured]
    ranking = pictures.get((*place, "ranking"))
    drawn = [] if ranking is None else [Picture(ranking, ("each model with its interval",))]
    return {
        "models": [*_models(section, machines), *drawn],
        "notes": [Bullets(list(_notes(section, machines)))] if section.usable else [],
        "settings": [block for choice in section.choices for block in _settings(section, choice)],
        "trainers": trainers(section),
        "outside": outside.blocks(named),
        "claims": outside.claims([(entry.name, entry.cells, dict(entry.numbers)) for entry in section.measured]),
        "emotions": _by_emotion(section) if section.usable else [],
        "guided": _guided(section) if section.usable else [],
        "shown": _shown(section, pictures),
        "training": _training(section, pictures),
        "panel": _panel_of(section, panels),
        "controls": _controls(section),
    }


def _models(section: Section, machines: Mapping[str, str]) -> list[Block]:
    """The models, best first, with what they are ranked by, and a second table of all else; then the controls."""
    rankings = section.track.rankings
    columns = [column for column in section.track.columns if not column.optional or _any(section, column.key)]
    spreads = _spreads(section)
    first = _first(section, columns, room=_WIDTH - len(rankings) - 2 - bool(spreads))
    others = [column for column in columns if column not in first]
    header: list[Text] = [(_rank_heading(section, ranking),) for ranking in rankings]
    beside: Text | None = ("another training",) if spreads else None
    by = any(entry.trainer for entry in section.every)
    trainer: list[Text] = [("trainer",)] if by else []
    header += [("model",), *trainer, *_beside([(column.heading,) for column in first], beside), ("flags",)]
    also: list[Text] = [("model",), *((column.heading,) for column in others)]
    used = any(entry.costs[MFU].value is not None for entry in section.entries if MFU in entry.costs)
    also += [(each,) for each in _COSTS.values()]
    also += [("faces/s trained",), ("MFU",)] if used else []
    also += [(each,) for each in ("faces/s", "of the recipe", "seeds", "hardware")]
    rows: list[list[Text]] = []
    further: list[list[Text]] = []
    for entry in section.entries:
        if all(cell.state in ("skipped", NOT_CHOSEN) for cell in entry.cells):
            continue
        ranks: list[Text] = [_ranked(section, entry, ranking) for ranking in rankings]
        name: Text = (Name(entry.name),)
        trainer = [(Name(entry.trainer),)] if by else []
        if entry.seeds:
            flags = ", ".join(flag for flag in entry.flags if flag != "stale")  # a footnote says that
            cells = [_cell(section, entry, column) for column in first]
            rows.append([*ranks, name, *trainer, *_beside(cells, spreads.get(entry.name)), (flags,)])
            cells = [_cell(section, entry, column) for column in others]
            further.append([name, *cells, *_costs(entry, machines, used)])
        else:
            reason: Text = (Score(next(iter(entry.numbers.values()), None)),)
            empty: list[Text] = [("n/a",)] * (len(first) - 1 + bool(spreads))
            rows.append([*ranks, name, *trainer, reason, *empty, (f"0 of {len(entry.cells)} seeds",)])
    for control in section.controls:
        if any(column.key in control.numbers for column in columns) and control.name != "control:majority":
            name = (Name(control.name),)
            trainer = [(Name(control.trainer),)] if by else []
            cells = [_cell(section, control, column) for column in first]
            rows.append([*[("",)] * len(rankings), name, *trainer, *_beside(cells, ("",) if spreads else None), ("",)])
            if any(column.key in control.numbers for column in others):
                cells = [_cell(section, control, column) for column in others]
                further.append([name, *cells, *[("",)] * (len(also) - 1 - len(cells))])
    blocks: list[Block] = [Table(header, rows, left=(*range(len(rankings), len(rankings) + 1 + by), -1))]
    if further:
        blocks += [Paragraph(("All else that was measured, and what each model cost:",)), Table(also, further, (0, -1))]
    return blocks


def _ranked(section: Section, entry: Entry, ranking: Ranking) -> Text:
    """The rank of a row; of one that takes none, the place that it would have."""
    if (place := entry.would_be.get(ranking.name)) is not None:
        return (f"would be {outside.ordinal(place)}",)
    return (Rank(entry.ranks.get(ranking.name), ranking.name in section.order_only),)


_WIDTH = 7  # columns of a table that is read at a glance


def _beside(cells: Sequence[Text], spread: Text | None) -> list[Text]:
    """The cells of a line, and beside the first how far another training moves such a figure; None: not said."""
    return [*cells[:1], *([] if spread is None else [spread]), *cells[1:]]


def _spreads(section: Section) -> dict[str, Text]:
    """How far another training moves what each row is ranked by; empty where that is known of none, or of all by their
    own seeds."""
    few = {entry.name: _moved(section, entry) for entry in few_seeds(section.measured)}
    if not any(few.values()):
        return {}
    return {entry.name: few.get(entry.name, ("in the interval",)) or ("not known",) for entry in section.measured}


def _moved(section: Section, entry: Entry) -> Text:
    """How far another training moves the figures that a row is ranked by, as far as that is known."""
    said: list[str] = []
    for ranking in section.track.rankings:
        key = section.ranked_by.get(ranking.name)
        if key is not None and (spread := moved(section, entry, key)) is not None:
            where = f" on {spread.on}" if spread.on else ""
            said.append(f"{'' if ranking.by == 'faces' else f'{key.metric.upper()} '}{spread.said}{where}")
    return (Name("; ".join(said)),) if said else ()


def _first(section: Section, columns: Sequence[Column], room: int) -> list[Column]:
    """The columns beside rank, model and flags: what the ranks go by, then the next ones while there is room."""
    ranked_by = {section.ranked_by.get(each.name, each.metrics[0]) for each in section.track.rankings}
    leading = [column for column in columns if column.key in ranked_by and column.shows != "worst"]
    chosen = [*leading, *(column for column in columns if column not in leading)][:room]
    return [column for column in columns if column in chosen]


def _any(section: Section, key: Key) -> bool:
    return any(key in entry.numbers for entry in (*section.entries, *section.controls))


def _rank_heading(section: Section, ranking: Ranking) -> str:
    key = section.ranked_by.get(ranking.name)
    return f"rank: {key.metric.upper() if key is not None and ranking.by == 'samples' else ranking.heading}"


def _cell(section: Section, entry: Entry, column: Column) -> Text:
    if column.shows == "behind":
        return ("–",) if entry.behind is None else (entry.behind,)
    if column.shows == "worst":
        values = {each: entry.value(column.key._replace(emotion=each)) for each in section.emotions}
        known = {each: value for each, value in values.items() if value is not None}
        if not known:
            return ("",)
        worst = min(known, key=lambda each: known[each])
        return (Name(worst), " ", Score(entry.numbers[column.key._replace(emotion=worst)]))
    number = entry.numbers.get(column.key)
    return ("",) if number is None else (Score(number, bare=column.optional),)


def _costs(entry: Entry, machines: Mapping[str, str], used: bool = False) -> list[Text]:
    seeds = f"{len(entry.seeds)} of {len(entry.cells)}" if "incomplete" in entry.flags else str(len(entry.seeds))
    speed = entry.numbers.get(Key("faces_per_s"))
    return [
        *((Cost(entry.costs[name]),) for name in _COSTS),
        *(_trained(entry) if used else ()),
        ("n/a",) if speed is None else (Cost(speed),),
        (Score(entry.costs["recipe_share"], bare=True),),
        (seeds,),
        (machines[entry.costs["params"].hardware],),
    ]


def _trained(entry: Entry) -> tuple[Text, Text]:
    """How fast a row was trained, and the share of its device's peak that it used."""
    share: Text = (Score(entry.costs[MFU]),) if MFU in entry.costs else ("n/a",)
    return (Cost(entry.costs["fit_faces_per_s"]),), share


def _notes(section: Section, machines: Mapping[str, str]) -> Iterator[Text]:
    """What the table leaves to be said."""
    yield (f"n = {_faces(section)}. {_intervals(section)}",)
    yield from _few_faces(section)
    yield from _of_another_training(section)
    for column in section.track.columns:
        partial = next((entry for entry in section.measured if column.key in entry.without), None)
        if partial is not None and not column.optional:
            heading, left_out = f"{column.heading[0].upper()}{column.heading[1:]}", Name(partial.without[column.key])
            if not column.key.emotion:  # no mean over emotions, of which some could be left out
                yield (heading, " of ", Name(partial.name), " is n/a: ", left_out, ".")
            else:
                yield (heading, ", is without ", left_out, ".")
    for control in section.controls:
        known = (number for number in control.numbers.values() if number.value is not None and not number.emotion)
        partly = (number.reason for number in known)
        for reason in dict.fromkeys(reason for reason in partly if reason and reason.startswith("without")):
            yield (Name(control.name), " is ", Name(reason), ".")
    columns = [column for column in section.track.columns if column.optional]
    reasons: dict[str, list[str]] = {}
    for column in columns:
        numbers = [entry.numbers[column.key] for entry in section.measured if column.key in entry.numbers]
        for reason in dict.fromkeys(number.reason for number in numbers if number.value is None and number.reason):
            reasons.setdefault(reason, []).append(column.heading.rstrip(" ↑↓"))
    for reason, headings in reasons.items():
        yield ("n/a: ", *joined(Name(heading) for heading in headings), ": ", Name(reason), ".")
    for ranking in section.track.rankings:
        if ranking.name in section.order_only:
            metric = section.ranked_by[ranking.name].metric.upper()
            yield (f"{metric} orders only: fewer than three seeds give no interval, and no rank.",)
    records = {cell.row: cell.record for cell in section.usable}
    yield from section.track.notes(records)
    yield from _all_shown(section)
    yield from _recipes(section)
    for machine, letter in machines.items():
        yield (f"Hardware {letter}: ", Name(machine), ".")
    batches = dict.fromkeys(str(record.evaluation.batch) for record in section.records if record.evaluation)
    yield (f"Batch {' and '.join(batches)} where speed is measured.",)
    datasets = [record.evaluation.dataset for record in section.records if record.evaluation]
    for note in dict.fromkeys(note for dataset in datasets for note in dataset.notes):
        yield ("The data: ", Name(note))


def _of_another_training(section: Section) -> Iterator[Text]:
    """What the spreads beside the intervals are, of rows of fewer than three seeds, or that none is known."""
    few = few_seeds(section.measured)
    keys = list(section.ranked_by.values())
    found = [each for entry in few for key in keys if (each := moved(section, entry, key)) is not None]
    if few and keys and not found:
        yield (
            "How far another training moves these figures is not known: no committed board has three seeds of these "
            "classes, trained as far.",
        )
    elif found:
        said = "Another training moves a figure by about so much (standard deviation over seeds"
        said += ", × for one that spans decades)" if any(each.relative for each in found) else ")"
        sources = list(dict.fromkeys(name for each in found for name in each.source.split(", ")))
        elsewhere = "; another dataset's says little of this one" if any(each.on for each in found) else ""
        yield (f"{said}, as the same class did in ", *joined(map(Code, sources)), f"{elsewhere}.")


def _recipes(section: Section) -> Iterator[Text]:
    """Which rows' shares are not of the published recipe."""
    named = []
    for entry in section.measured:
        fits = [cell.record.fit for cell in entry.cells if cell.record is not None and cell.record.fit is not None]
        if any(fit.cost is not None and fit.cost.recipe is not None for fit in fits):
            named.append(Name(entry.name))
    if named:
        recipe = " against the recipe for faces of 64 px and less, "
        yield (
            "'Of the recipe' counts ",
            *joined(named),
            recipe,
            Code("…-small-faces"),
            "; others against the published.",
        )


def _all_shown(section: Section) -> Iterator[Text]:
    """That no setting of a generator is chosen."""
    sweeps: dict[str, int] = {}
    for entry in section.entries:
        if entry.cells[0].setting_of and not is_candidate(entry.cells[0]):
            sweeps[entry.cells[0].setting_of] = sweeps.get(entry.cells[0].setting_of, 0) + 1
    for sweep, count in sweeps.items():
        yield (
            f"All {count} settings of ",
            Name(sweep),
            " are shown and none is chosen: whatever would choose among settings of a generator would have had a hand "
            "in making it. The best of them is the best on these test faces, which flatters it.",
        )


def _settings(section: Section, choice: Choice) -> list[Block]:
    """The validation scores of all settings of a row, and which of them reads the test split."""
    rows: list[list[Text]] = []
    for setting in choice.settings:
        seeds = f"{len(setting.scores)} of {setting.seeds}" if len(setting.scores) < setting.seeds else setting.seeds
        came: Text = _of_setting(section, choice, setting)
        rows.append([(Name(setting.row),), (_signed(setting.mean),), (str(seeds),), came])
    said = "Macro F1 on validation faces at the best epoch, mean over seeds. "
    if choice.pending:
        said += "A setting is chosen when all are fitted; until then none is measured on test faces."
    elif choice.chosen is None:
        said += "No setting was fitted with every seed, so none is chosen."
    else:
        said += "The best one is chosen, the first of equal ones, and it alone is measured on test faces."
    header: list[Text] = [("setting",), ("validation macro F1",), ("seeds",), ("outcome",)]
    title: Text = ("Settings of ", Name(choice.sweep))
    return [Heading(3, title), Table(header, rows, left=(0, -1)), Paragraph((said,))]


def _of_setting(section: Section, choice: Choice, setting: Setting) -> Text:
    if setting.failed:
        seed, why = next(iter(setting.failed.items()))
        return (f"seed {seed} ", Name(why))
    if choice.pending:
        return ("to be fitted" if setting.pending else "fitted",)
    if setting.row == choice.chosen:
        return ("**chosen**",)
    cells = [cell for entry in section.entries for cell in entry.cells if cell.row == setting.row]
    earlier = any(cell.record is not None and cell.record.evaluation is not None for cell in cells)
    return (NOT_CHOSEN, READ_EARLIER if earlier else "")


def _faces(section: Section) -> str:
    """How many faces the ranking number was measured on, and what is known of them."""
    key = next(iter(section.ranked_by.values()), None)
    counts = {entry.numbers[key].n or 0 for entry in section.measured if key in entry.numbers} if key else set()
    said = f"{' and '.join(f'{n:,}' for n in sorted(counts))} faces"
    leaked = section.track.leaked(section.data[0])
    return f"{said}, {leaked:,} of which also occur in training or validation" if leaked else said


FEW = 200  # test faces below which a board says how little it can tell


def _few_faces(section: Section) -> Iterator[Text]:
    """Of a board of few test faces, the smallest difference that it could have found, and what finds smaller ones."""
    key = next(iter(section.ranked_by.values()), None)
    scores = [entry.numbers[key] for entry in section.measured if key in entry.numbers] if key is not None else []
    if section.track.name != "recognition" or not scores or max(score.n or 0 for score in scores) >= FEW:
        return
    pairs: Sequence[Number | intervals.Comparison] = section.comparisons.get(section.track.rankings[0].name, [])
    of_one = 1.0 if pairs else math.sqrt(2)  # of one row alone: against another like it, that errs for itself
    given = [(each.low, each.high) for each in pairs or scores]
    widths = [of_one * (high - low) for low, high in given if low is not None and high is not None]
    if not widths:
        return
    least = power.FOUND * power.standard_error(float(np.median(widths)))
    drawn = any(note.startswith("no official split") for record in section.records for note in _data_notes(record))
    offer: Text = ("; ", Code("cross_validate = 5"), " in the dataset's table makes every face a test face")
    said = f"Few test faces: a difference of macro F1 below about {least:.2f} could hardly have been found (80 % power"
    yield (f"{said} at 5 %)", *(offer if drawn else ()), ".")


def _data_notes(record: Record) -> Sequence[str]:
    return () if record.evaluation is None else record.evaluation.dataset.notes


def _intervals(section: Section) -> str:
    """What the 95 % intervals of a section are over."""
    found = dict.fromkeys(entry.units for entry in section.measured)
    said = f"95 % intervals: over {' and '.join(f'{count:,} {unit}' for count, unit in found)}"
    said += ", each with all its faces" if any(unit != "faces" for _, unit in found) else ""
    calibrating = section.track.calibrating(section.data[0])
    more = f"; of calibrated control also over the {calibrating[0]:,} {calibrating[1]} that calibrate"
    return f"{said}{more if calibrating[0] else ''}."


def _by_emotion(section: Section) -> list[Block]:
    """A table a metric with a column an emotion, and what each classifier confuses most."""
    blocks: list[Block] = []
    for metric, heading in section.track.by_emotion:
        shown = [
            entry
            for entry in (*section.measured, *section.controls)
            if Key(metric, section.emotions[0]) in entry.numbers and entry.name != "control:majority"
        ]
        rows = [_row(entry, [Key(metric, each) for each in section.emotions], bare=True) for entry in shown]
        header: list[Text] = [(heading,), *((Name(emotion),) for emotion in section.emotions)]
        blocks += [Table(header, rows)]
    confused = [entry for entry in section.measured if entry.shares is not None]
    if confused:
        misread = [_misread(entry, section.emotions) for entry in confused]
        blocks.append(Table([("model",), ("most often misread",)], misread, left=(0, 1)))
    return [Heading(3, ("Each emotion",)), *blocks] if blocks else []


def _misread(entry: Entry, emotions: Sequence[str]) -> list[Text]:
    return [(Name(entry.name),), _confused(entry.shares, emotions)]


def _row(entry: Entry, keys: Sequence[Key], *, bare: bool = False) -> list[Text]:
    """An entry's name and some of its numbers."""
    return [(Name(entry.name),), *((Score(entry.numbers.get(key), bare),) for key in keys)]


def _confused(shares: np.ndarray | None, emotions: Sequence[str]) -> Text:
    """The largest share of one emotion's faces that is read as one other."""
    if shares is None:
        return ("n/a",)
    wrong = np.nan_to_num(shares * (1 - np.eye(len(emotions))))
    shown, read = divmod(int(wrong.argmax()), len(emotions))
    return (Name(emotions[shown]), " as ", Name(emotions[read]), f", {100 * wrong[shown, read]:.0f} %")


def _guided(section: Section) -> list[Block]:
    """What guides say of their own product, beside what the panel says."""
    own = [entry for entry in section.measured if Key("control_self", "macro") in entry.numbers]
    if not own:
        return []
    header = ("self-graded, never ranked", "its guide says", "the panel says", "adversarial gain")
    keys = [Key(name, "macro") for name in ("control_self", "control", "adversarial_gain")]
    return [Table([(each,) for each in header], [_row(entry, keys) for entry in own])]


def _shown(section: Section, pictures: Pictures) -> list[Block]:
    """Confusion matrices, curves and faces."""
    place, blocks = (section.track.name, section.dataset), list[Block]()
    matrices = [
        entry for entry in (*section.entries, *section.controls) if (*place, "confusion", entry.name) in pictures
    ]
    if matrices:
        blocks.append(Heading(3, ("Confusion matrices",)))
        blocks.append(Paragraph(("Means over seeds: rows are what was shown, columns what was read.",)))
        shown = [
            Picture(pictures[*place, "confusion", entry.name], ("confusion matrix of ", Name(entry.name)))
            for entry in matrices
        ]
        blocks.append(Gallery(shown))
    for kind, caption in section.track.pictures.items():
        for entry in section.measured:
            if (*place, kind, entry.name) in pictures:
                text: Text = (Strong(Name(entry.name)), f": {caption} (", ", ".join(section.emotions), ")")
                blocks.append(Picture(pictures[*place, kind, entry.name], (f"{kind} of ", Name(entry.name)), text))
        if (*place, kind) in pictures:
            blocks.append(
                Picture(pictures[*place, kind], (f"{kind} by all models",), ("All models, the same sources:",))
            )
    if (*place, "curves") in pictures:
        keys = (Key("intensity_spearman"), Key("intensity_slope"))
        rows = [_row(entry, keys) for entry in section.measured if keys[0] in entry.numbers]
        blocks.append(Paragraph(("Intensity asked for, from neutral to the emotion:",)))
        blocks.append(Table([("intensity",), ("Spearman",), ("slope",)], rows))
        blocks.append(Picture(pictures[*place, "curves"], ("the panel's probability over intensity",)))
    return blocks


def _training(section: Section, pictures: Pictures) -> list[Block]:
    """How the fits went: curves of each row, the file of each seed, and why a row has none."""
    if not section.training:
        return []
    place, rows, shown = (section.track.name, section.dataset), list[list[Text]](), list[Picture]()
    without: dict[str, list[str]] = {}
    for name, runs in section.training.items():
        files: list[Part] = [Link(run.path) for run in runs if run.path is not None]
        if (path := pictures.get((*place, "training", name))) is not None:
            shown.append(Picture(path, ("training of ", Name(name))))
            epochs = " and ".join(dict.fromkeys(str(len(run.history.epochs)) for run in runs if run.history))
            rows.append([(Name(name),), (epochs,), (Link(path, "curves"),), joined(files)])
        for run in runs:
            if run.reason is not None and name not in without.setdefault(run.reason, []):
                without[run.reason].append(name)
    blocks: list[Block] = [Heading(3, ("Training",))]
    if rows:
        said = "Loss, validation scores and learning rate, a line a seed; dotted: the epoch that was kept."
        header: list[Text] = [("model",), ("epochs",), ("picture",), ("epoch by epoch",)]
        blocks += [Paragraph((said,)), Gallery(shown, across=2), Table(header, rows, left=(0, 2, 3))]
    none = [("No history of ", *joined(map(Name, names)), ": ", Name(why), ".") for why, names in without.items()]
    return [*blocks, *([Bullets(none)] if none else [])]


# Panel and controls


def _panel_of(section: Section, panels: set[tuple[str, ...]]) -> list[Block]:
    evaluation = next((record.evaluation for record in section.records), None)
    if evaluation is None or not evaluation.panel or evaluation.reader is None:
        return []
    panel = (section.dataset, *(judge.sha256 for judge in evaluation.panel))
    if panel in panels:
        return []
    panels.add(panel)
    return [Heading(3, ("Panel",)), *_panel(section, evaluation.panel, evaluation.reader)]


def _controls(section: Section) -> list[Block]:
    checks: list[list[Text]] = [
        [(Name(check.name),), (check.what,), (_signed(check.value),), (check.bounds,), outcome(section, check)]
        for check in section.checks
    ]
    majority = next((entry for entry in section.controls if entry.name == "control:majority"), None)
    if majority is not None:
        number = majority.numbers[Key("macro_f1")]
        checks.append([(Name(majority.name),), ("macro F1",), (Score(number),), ("–",), ("the floor of every model",)])
    if section.track.name == "recognition" and not any("permuted" in check.name for check in section.checks):
        why = "not measured: nothing shows that no label leaks"
        checks.append([("control:permuted",), ("balanced accuracy",), ("n/a",), ("–",), (why,)])
    header: list[Text] = [("control",), ("what",), ("value",), ("must be",), ("outcome",)]
    return [Heading(3, ("Controls",)), Table(header, checks, left=(0, 1, -1))] if checks else []


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}".replace("-", "−")


def outcome(section: Section, check: Check) -> Text:
    """What came of a control."""
    if check.value is None:
        return ("**FAILS**: " if check.possible else "n/a ", "(", Name(check.reason), ")")
    if not check.passed:
        return ("**FAILS**",)
    if not tells(section, check):
        return (f"cannot fail: {len(section.emotions)} emotions have too few names to tell",)
    return ("as it should be",)


def tells(section: Section, check: Check) -> bool:
    """Whether a control that does not fail speaks for the board: it has a value, and could have had another."""
    return check.value is not None and not (check.what == "balanced accuracy" and cannot_fail(len(section.emotions)))


_OUTSIDE = (
    " Outside networks were not trained by emobench: what they saw is what their author says, and that they had no "
    "part in making the faces is known by their files and their answers alone."
)


def _panel(section: Section, judges: Sequence[Card], reader: Card) -> list[Block]:
    """Who judges, and how well each judge reads real test faces."""
    rows: list[list[Text]] = []
    by = first_trainer(section)
    confusions = section.track.panel_confusions(section.data[0])
    for judge, confusion in zip(judges, confusions, strict=True):
        recall = np.diagonal(confusion)
        worst = int(np.nanargmin(recall))
        read: list[Text] = [(f"{np.nanmean(recall):.3f}",), (Name(section.emotions[worst]), f" {recall[worst]:.3f}")]
        card: list[Text] = [(Name(judge.architecture),), (str(judge.seed),), (Code(judge.sha256[:12]),)]
        by_others = (" (outside)",) if judge.outside else ()
        rows.append([(Name(judge.row), *by_others), *read, _confused(confusion, section.emotions), *card])
    header = ("judge", "recall on real faces", "worst emotion", "most often misread", "architecture", "seed", "weights")
    said: Text = (
        "FED and ES are measured by the reader ",
        Name(reader.row),
        *((" (outside)",) if reader.outside else ()),
        ", weights ",
        Code(reader.sha256[:12]),
        ".",
        *((_OUTSIDE,) if reader.outside or any(judge.outside for judge in judges) else ()),
        *((" All of them were fitted with the suite's first trainer, ", Name(by), ".") if by else ()),
    )
    blocks: list[Block] = [Table([(each,) for each in header], rows, left=(0, 3, 4, 6)), Paragraph(said)]
    return blocks


# What it all means


def meaning(board: Board) -> list[Block]:
    """How the numbers are made, and how to make them again."""
    seeds = sorted({cell.seed for cell in board.wanted})
    tracks = dict.fromkeys(section.track for section in board.sections)
    items: list[Text] = [(text,) for text in (*_MEANING, *(text for track in tracks for text in track.meaning))]
    every = [pair for section in board.sections for pairs in section.comparisons.values() for pair in pairs]
    near = sum(pair.borderline for pair in every)
    if near:
        pairs = f"{near} pair{'s' if near > 1 else ''} of models, whose p lies so near 5 % that more resamples do not"
        items.append((f"*Borderline*: {pairs} settle its side; a borderline pair counts as not told apart.",))
    flags = {flag for section in board.sections for entry in section.entries for flag in entry.flags}
    known: dict[str, Text] = {
        "under-trained": ("less than half of the recipe's faces were seen, which says nothing against the model.",),
        "memorised": ("more than 5 % of its faces are much nearer to one training face than real faces are: copies.",),
        "incomplete": ("seeds are missing; the numbers are those of the others.",),
        AT_CHANCE: ("its balanced accuracy is not above that of naming one class for every face, by its interval.",),
        "diverged": ("a seed diverged, so the model is not ranked; the numbers are those of the other seeds.",),
        **unranked.MEANINGS,
    }
    items += [(f"*{flag}*: ", *meaning) for flag, meaning in known.items() if flag in flags]
    items.append(
        (f"Protocol {PROTOCOL}; seeds {', '.join(map(str, seeds))}. All numbers: `metrics.csv`; raw: `cells/`.",)
    )
    absent = {card.sha256: card for section in board.sections for card in section.without_weights}
    if absent:
        named = [part for card in absent.values() for part in (", ", Name(card.row), " ", Code(card.sha256[:12]))]
        why = "Weights that are not committed, so that a clone is small: "
        items.append((why, *named[1:], ". The command at the end of this page trains them again."))
    items += _earlier(board)
    report = f"emobench report {shlex.quote(board.suite)}"
    items.append(
        ("To repeat: ", Code(board.command), "; to write this page again from the stored results: ", Code(report), ".")
    )
    return [Heading(2, ("What the numbers mean",)), Bullets(items)]


def _earlier(board: Board) -> list[Text]:
    """Which rows were made by code that reads differently today, and by which commit."""
    rows: dict[str, list[str]] = {}
    for cell in board.cells:
        if cell.stale and cell.row not in rows.setdefault(cell.stale, []):
            rows[cell.stale].append(cell.row)
    if not rows:
        return []
    named = [part for commit, of in rows.items() for part in ("; ", Name(", ".join(of)), " by ", Code(commit))]
    why = "Made by earlier commits; code that these numbers depend on reads differently today: "
    return [(why, *named[1:], ".")]


_MEANING: tuple[str, ...] = (
    "A rank such as 1–3 is shared by models that cannot be told apart at 5 %, all pairs compared on the same faces and "
    "Holm-corrected: from three seeds on as models, with one or two as these very networks.",
    "Brackets hold 95 % intervals: over independent units (people, noise seeds, sources) as each section says, and "
    "over seeds where there are three or more; with fewer they hold for those networks only. Of a share they are "
    "Wilson's, with the design effect of people and seeds; of a difference, that of the pair alone, by the test that "
    "ranks it.",
    "Costs of different hardware do not compare. Controls must lie within their 99.9 % interval.",
)
