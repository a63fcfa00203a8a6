"""What a board answers: who is best and whether that is certain, whether the board can be trusted, and whether it is
whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from emobench.evaluation.tracks.recognition import cannot_fail
from emobench.evaluation.tracks.track import Check, Key, Name, Ranking
from emobench.report.board import AT_CHANCE, Board, Entry, Number, Section
from emobench.report.page import (
    Block,
    Bullets,
    Code,
    Heading,
    Paragraph,
    Part,
    Score,
    Strong,
    Text,
    Warning,
    joined,
)
from emobench.report.spread import Held, held
from emobench.suite.scale import stands_in_for

# The verdict


def verdict(section: Section) -> Text:
    """Which model is best, by how much, and whether that is certain: one sentence a track and dataset."""
    where: Text = (f"{section.track.name.capitalize()} on ", Code(section.dataset))
    parts = _parts(section)
    if not parts:
        return (*where, ": ", *_nobody(section), ".")
    first = section.compared.get(section.track.rankings[0].name, [])
    short = [entry for entry in first[1:] if _short(entry)]
    if short:
        are = "is" if len(short) == 1 else "are"
        parts.append((*joined(Name(entry.name) for entry in short), f" {are} under-trained"))
    said = [part for text in parts for part in ("; ", *text)]
    return (*where, ": ", *said[1:], ".")


def answer(section: Section) -> Text:
    """The verdict's answer and its certainty alone; the figures stand in the table below it."""
    said = [part for text in _parts(section, brief=True) or [_nobody(section)] for part in ("; ", *text)]
    text: Text = (*said[1:], ".")
    return (f"{text[0][0].upper()}{text[0][1:]}", *text[1:]) if isinstance(text[0], str) else text


def _parts(section: Section, *, brief: bool = False) -> list[Text]:
    """What is said by each ranking."""
    parts: list[Text] = []
    for place, ranking in enumerate(section.track.rankings):
        if section.compared.get(ranking.name):
            say = _best if place == 0 else _nearest
            parts.append(say(section, ranking, brief))
        elif _blind(section, ranking) is not None:
            parts.append((Strong(f"nobody is ranked by {ranking.heading}"), ", as said above"))
    return parts


def _nobody(section: Section) -> Text:
    """What is said where no row takes a rank."""
    key = section.track.headline
    shown = [entry for entry in section.measured if key in entry.numbers]
    if not shown:
        return ("nothing is measured yet",)
    heading = next((column.heading for column in section.track.columns if column.key == key), key.metric)
    ranks = bool(section.track.rankings)
    short = {flag for _, flag in section.track.gains}
    said: Text = ("no row takes a rank" if ranks else f"{heading}, which ranks nobody",)
    for place, entry in enumerate(shown):
        flags = [*entry.unranked, *(flag for flag in entry.flags if flag in short)]
        why = f" ({', '.join(flags)})" if flags else ""
        between = ": " if place == 0 and not ranks else "; "
        said = (*said, between, Name(entry.name), f": {heading} " if ranks else " ", Score(entry.numbers[key]), why)
    return said


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


def _nearest(section: Section, ranking: Ranking, brief: bool) -> Text:
    """The first of a ranking by one number a seed: of the rows that can win, where there are any."""
    ranked, key = section.compared[ranking.name], section.ranked_by[ranking.name]
    able = [entry for entry in ranked if _judged(entry)]
    best = (able or ranked)[0]
    if able:
        said: Text = (
            Strong(Name(best.name)),
            f" {_briefly(ranking) if brief else f'{ranking.says} {key.metric.upper()}'}",
        )
    else:
        said = (Name(best.name), f" leads by {key.metric.upper()}")
    said = (*said, *(() if brief else (" ", Score(best.numbers[key]))))
    said = (*said, *((" (order only)",) if ranking.name in section.order_only else ()))
    said = (*said, *(() if able else (_unfit(best),)))
    if able and best is not ranked[0]:
        said = (*said, f" of the rows {_among(ranked[0])}")
    rows = able or ranked
    if brief or ranking.name not in section.order_only or len(rows) < 2:
        return said
    return (*said, "; ", *_again(rows, held(section, ranking, rows)))


def _briefly(ranking: Ranking) -> str:
    """What is said of a ranking's first row, without the figure's name."""
    return ranking.says.partition(",")[0]


def _among(first: Entry) -> str:
    """Among whom is looked for a winner where the first row cannot be one."""
    return "that had at least half of their recipe" if _short(first) else "that are better"


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


def _best(section: Section, ranking: Ranking, brief: bool) -> Text:
    """The first row, and the winner among those that are not under-trained, where that is another."""
    ranked, key = section.compared[ranking.name], section.ranked_by[ranking.name]
    whole = [place for place, entry in enumerate(ranked) if _judged(entry)]
    if whole[:1] == [0]:
        return _winner(section, ranking, whole, brief)
    first = ranked[0]
    leads: Text = (
        Name(first.name),
        " leads",
        *(() if brief else (" with ", *_scored(ranking, first, key))),
        _unfit(first),
    )
    if whole:
        return (*leads, f"; of the rows {_among(first)} ", *_winner(section, ranking, whole, brief))
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


def _winner(section: Section, ranking: Ranking, places: Sequence[int], brief: bool) -> Text:
    """The first of some rows, how far above the next it is, and whether that is certain."""
    ranked, key = section.compared[ranking.name], section.ranked_by[ranking.name]
    first = ranked[places[0]]
    best: Text = (Strong(Name(first.name)), f" {ranking.says} ", *_scored(ranking, first, key))
    if brief:
        best = (Strong(Name(first.name)), f" {_briefly(ranking)}")
    compared = section.comparisons.get(ranking.name, [])
    pairs = [pair for pair in compared if pair.first == places[0] and pair.second in places]
    if not pairs:
        return (*best, f" (the only one {_only([entry for entry in ranked if entry is not first])})")
    if not brief:
        nearest = next(pair for pair in pairs if pair.second == places[1])
        best = (*best, ", ", nearest, " above ", Name(ranked[places[1]].name))
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
        beside = (*best, "; **not certain**: it cannot be told apart from ", *joined(tied))
        return beside if brief else (*beside, more, *close)
    if not known:
        rows = [ranked[place] for place in places]
        found = held(section, ranking, rows)
        if found.known and not found.rivals:
            best = (*best, "; **certain**, also of other seeds")
            return best if brief else (*best, ": ", *_again(rows, found))
        why: Text = () if found.known else (doubt, ", and ")
        best = (*best, "; **certain for these trained networks only**")
        return best if brief else (*best, ": ", *why, *_again(rows, found))
    p = max(pair.p for pair in pairs)
    chance = "corrected p < 0.001" if p < 0.001 else f"corrected p = {p:.3f}"
    return (*best, f"; **certain** ({seeds} seeds, {chance})")


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


_ITS_PLACE = re.compile(r"^suite [^\[\]]*, \[model\.[^\[\]]*\] on \S*: ")  # that begins a reason, and is said already


def skipped(board: Board) -> list[Block]:
    """The optional rows that cannot run here, and why."""
    found = {(cell.row, cell.dataset): cell.reason for cell in board.cells if cell.state == "skipped"}
    if not found:
        return []
    rows: dict[tuple[str, str], list[str]] = {}  # dataset and reason -> which are skipped for it
    for (row, dataset), why in found.items():
        rows.setdefault((dataset, _ITS_PLACE.sub("", why or "")), []).append(row)
    items: list[Text] = [
        (*joined([Name(row) for row in names]), " on ", Name(dataset), ": ", Name(why))
        for (dataset, why), names in rows.items()
    ]
    return [Heading(2, ("Skipped",)), Bullets(items)]


def any_wanted(section: Section) -> bool:
    return any(cell.state != "skipped" for entry in (*section.entries, *section.controls) for cell in entry.cells)


# Controls


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


def trust(board: Board) -> tuple[bool | None, str]:
    """Whether controls let a board be trusted (None: nothing says), and that in one sentence."""
    checks = [(check, tells(section, check)) for section in board.sections for check in section.checks]
    telling, failing = sum(told for _, told in checks), sum(not check.passed for check, _ in checks)
    if failures(board) or failing:
        if not failing:
            return False, "Not all of these numbers can be trusted, as the warnings say."
        fail = "fails" if failing == 1 else "fail"
        return False, f"Trust no number of this board: {failing} of {len(checks)} controls {fail}."
    if not telling:
        why = "no control here can fail" if checks else "no control is measured"
        return None, f"Nothing shows whether these numbers can be trusted: {why}."
    score = "the one that tells scores" if telling == 1 else f"{'both' if telling == 2 else f'all {telling}'} score"
    return True, f"These numbers can be trusted, as far as controls can tell: {score} what known faces must."
