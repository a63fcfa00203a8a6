"""What a board says: the verdict, whether it can be trusted, and for each track and dataset its tables and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from emobench.evaluation.tracks.recognition import cannot_fail
from emobench.evaluation.tracks.track import Check, Column, Key, Name, Ranking
from emobench.report.board import Board, Entry, Number, Section
from emobench.report.page import (
    Block,
    Bullets,
    Code,
    Cost,
    Gallery,
    Heading,
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
from emobench.runner.record import Card
from emobench.suite.keys import PROTOCOL

Pictures = Mapping[tuple[str, ...], str]  # (track, dataset, what, …) -> path from the board's folder

_COSTS = {"params": "params", "flops": "FLOPs/face", "fit_seconds": "training"}


def page(board: Board, pictures: Pictures) -> list[Block]:
    """All of leaderboard.md: the verdict, the state, a section for each track and dataset, and what it all means."""
    shown = [section for section in board.sections if _any_wanted(section)]
    verdicts = [verdict(section) for section in shown]
    blocks: list[Block] = [Heading(1, ("Leaderboard: ", Name(board.suite)))]
    blocks += [Paragraph(verdicts[0])] if len(verdicts) == 1 else [Bullets(verdicts)]
    blocks += _state(board)
    blocks += _overviews(shown)
    panels: set[tuple[str, ...]] = set()
    for section in shown:
        blocks += _section(section, pictures, panels)
    skipped = {(cell.row, cell.dataset): cell.reason for cell in board.cells if cell.state == "skipped"}
    if skipped:
        blocks.append(Heading(2, ("Skipped",)))
        blocks.append(
            Bullets([(Name(row), " on ", Name(data), ": ", Name(why)) for (row, data), why in skipped.items()])
        )
    return [*blocks, *_meaning(board)]


def _any_wanted(section: Section) -> bool:
    return any(cell.state != "skipped" for entry in (*section.entries, *section.controls) for cell in entry.cells)


# The verdict


def verdict(section: Section) -> Text:
    """Which model is best, by how much, and whether that is certain: one sentence a track and dataset."""
    where: Text = (f"{section.track.name.capitalize()} on ", Code(section.dataset))
    rankings = [ranking for ranking in section.track.rankings if section.compared.get(ranking.name)]
    if not rankings:
        return (*where, ": nothing is measured yet.")
    first, *others = rankings
    said = _best(section, first)
    for ranking in others:
        best = section.compared[ranking.name][0]
        key = section.ranked_by[ranking.name]
        said = (
            *said,
            "; ",
            Strong(Name(best.name)),
            f" {ranking.says} {key.metric.upper()} ",
            Score(best.numbers[key]),
        )
        said = (*said, *((" (order only)",) if ranking.name in section.order_only else ()))
    short = [entry for entry in section.compared[first.name][1:] if "under-trained" in entry.flags]
    if short:
        are = "is" if len(short) == 1 else "are"
        said = (*said, "; ", *joined(Name(entry.name) for entry in short), f" {are} under-trained, so not judged")
    return (*where, ": ", *said, ".")


def _best(section: Section, ranking: Ranking) -> Text:
    ranked, key = section.compared[ranking.name], section.ranked_by[ranking.name]
    best: Text = (Strong(Name(ranked[0].name)), f" {ranking.says} ", Score(ranked[0].numbers[key]))
    pairs = [pair for pair in section.comparisons.get(ranking.name, []) if pair.first == 0]
    if not pairs:
        return (*best, " (the only one measured)")
    nearest = next(pair for pair in pairs if pair.second == 1)
    said: Text = (*best, ", ", nearest, " above ", Name(ranked[1].name))
    known = all(pair.seeds_known for pair in pairs)
    seeds = min(len(entry.seeds) for entry in ranked)
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
        return (*said, f"; **certain for these trained networks only**: {doubt}")
    p = max(pair.p for pair in pairs)
    chance = "corrected p < 0.001" if p < 0.001 else f"corrected p = {p:.3f}"
    return (*said, f"; **certain** ({seeds} seeds, {chance})")


# The state of the board


def _state(board: Board) -> list[Block]:
    """Whether the board can be trusted and is whole; every cell without numbers, with its reason."""
    blocks: list[Block] = []
    for check in board.checks:
        if not check.passed:
            said = ": ", Name(check.name), f", seed {check.seed}: {check.what} {check.value:.3f}, but must be "
            blocks.append(Warning(("**A control fails: trust no number of this board**", *said, bounds(check), ".")))
    blocks += [Warning(("**Part of the suite cannot be used**: ", Name(each), ".")) for each in board.trouble]
    done = len(board.wanted) - len(board.missing)
    whole = "Complete" if done == len(board.wanted) else "**Incomplete**"
    blocks.append(Paragraph((f"{whole}: {done} of {len(board.wanted)} cells done.",)))
    missing = [
        (Name(_row_name(number)), " on ", Name(number.dataset), f", seed {number.seed}: ", Name(number.reason))
        for number in board.missing
    ]
    return [*blocks, *([Bullets(missing)] if missing else [])]


def _row_name(number: Number) -> str:
    return number.variant if number.variant and not number.model.startswith("control:") else number.model


def bounds(check: Check) -> str:
    """Where a control's number must lie."""
    if check.low is None:
        return "–"
    low = f"{check.low:.3f}"
    return (f"at least {low}" if check.high is None else f"{low}–{check.high:.3f}").replace("-", "−")


def _overviews(shown: Sequence[Section]) -> list[Block]:
    """The first ranking of each model on each dataset, of tracks that are run on several."""
    blocks: list[Block] = []
    for track in dict.fromkeys(section.track for section in shown):
        mine = [section for section in shown if section.track is track]
        if len(mine) < 2 or not track.rankings:
            continue
        ranking = track.rankings[0]
        names = dict.fromkeys(entry.name for section in mine for entry in section.entries)
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
    track, place = section.track, (section.track.name, section.dataset)
    title, _, rest = track.title.partition(":")
    blocks: list[Block] = [Heading(2, (f"{title} on ", Name(section.dataset), f", {section.size} px"))]
    blocks += [Paragraph((f"{rest.strip().capitalize()}.",))] if rest else []
    machines = {number.hardware: "" for entry in section.measured for number in [entry.costs["params"]]}
    machines = {machine: chr(ord("A") + k % 26) for k, machine in enumerate(machines)}
    blocks.append(_models(section, machines))
    if (*place, "ranking") in pictures:
        blocks.append(Picture(pictures[*place, "ranking"], ("each model with its interval",)))
    if section.usable:
        blocks.append(Bullets(list(_notes(section, machines))))
        blocks += _by_emotion(section)
        blocks += _guided(section)
    blocks += _shown(section, pictures)
    blocks += _controls(section, panels)
    return blocks


def _models(section: Section, machines: Mapping[str, str]) -> Table:
    """The models, best first, then the controls that have the same numbers, with what they cost."""
    rankings = section.track.rankings
    columns = [column for column in section.track.columns if not column.optional or _any(section, column.key)]
    header: list[Text] = [(_rank_heading(section, ranking),) for ranking in rankings]
    header += [("model",), *((column.heading,) for column in columns)]
    header += [*((each,) for each in (*_COSTS.values(), "faces/s", "of the recipe", "seeds", "hardware", "flags"))]
    rows: list[list[Text]] = []
    for entry in section.entries:
        if all(cell.state == "skipped" for cell in entry.cells):
            continue
        ranks: list[Text] = [(Rank(entry.ranks.get(each.name), each.name in section.order_only),) for each in rankings]
        first: list[Text] = [*ranks, (Name(entry.name),)]
        if not entry.seeds:
            reason: list[Text] = [(Score(next(iter(entry.numbers.values()), None)),)]
            empty: list[Text] = [("n/a",)] * (len(header) - len(first) - 4)
            rows.append([*first, *reason, *empty, (f"0 of {len(entry.cells)}",), ("",), ("",)])
            continue
        rows.append([*first, *(_cell(section, entry, column) for column in columns), *_costs(entry, machines)])
    for control in section.controls:
        if any(column.key in control.numbers for column in columns) and control.name != "control:majority":
            cells = [_cell(section, control, column) for column in columns]
            row: list[Text] = [*[("",)] * len(rankings), (Name(control.name),), *cells]
            rows.append([*row, *[("",)] * (len(header) - len(row))])
    return Table(header, rows, left=(len(rankings), -1, -2))


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


def _costs(entry: Entry, machines: Mapping[str, str]) -> list[Text]:
    seeds = f"{len(entry.seeds)} of {len(entry.cells)}" if "incomplete" in entry.flags else str(len(entry.seeds))
    speed = entry.numbers.get(Key("faces_per_s"))
    return [
        *((Cost(entry.costs[name]),) for name in _COSTS),
        ("n/a",) if speed is None else (Cost(speed),),
        (Score(entry.costs["recipe_share"], bare=True),),
        (seeds,),
        (machines[entry.costs["params"].hardware],),
        (", ".join(entry.flags),),
    ]


def _notes(section: Section, machines: Mapping[str, str]) -> Iterator[Text]:
    """What the table leaves to be said."""
    yield (f"n = {_faces(section)}. {_intervals(section)}",)
    for column in section.track.columns:
        left_out = next((entry.without[column.key] for entry in section.measured if column.key in entry.without), None)
        if left_out is not None and not column.optional:
            yield (column.heading.capitalize(), ", is without ", Name(left_out), ".")
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
    for machine, letter in machines.items():
        yield (f"Hardware {letter}: ", Name(machine), ".")
    batches = dict.fromkeys(str(record.evaluation.batch) for record in section.records if record.evaluation)
    yield (f"Batch {' and '.join(batches)} where speed is measured.",)
    datasets = [record.evaluation.dataset for record in section.records if record.evaluation]
    for note in dict.fromkeys(note for dataset in datasets for note in dataset.notes):
        yield ("The data: ", Name(note))


def _faces(section: Section) -> str:
    """How many faces the ranking number was measured on, and what is known of them."""
    key = next(iter(section.ranked_by.values()), None)
    counts = {entry.numbers[key].n or 0 for entry in section.measured if key in entry.numbers} if key else set()
    said = f"{' and '.join(f'{n:,}' for n in sorted(counts))} faces"
    leaked = section.track.leaked(section.data[0])
    return f"{said}, {leaked:,} of which also occur in training or validation" if leaked else said


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


# Panel and controls


def _controls(section: Section, panels: set[tuple[str, ...]]) -> list[Block]:
    blocks: list[Block] = []
    records = section.records
    evaluation = records[0].evaluation if records else None
    if evaluation is not None and evaluation.panel and evaluation.reader is not None:
        panel = (section.dataset, *(judge.sha256 for judge in evaluation.panel))
        if panel not in panels:
            panels.add(panel)
            blocks += [Heading(3, ("Panel",)), *_panel(section, evaluation.panel, evaluation.reader)]
    checks: list[list[Text]] = [
        [(Name(check.name),), (check.what,), (_signed(check.value),), (bounds(check),), _outcome(section, check)]
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
    if checks:
        blocks += [Heading(3, ("Controls",)), Table(header, checks, left=(0, 1, -1))]
    return blocks


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}".replace("-", "−")


def _outcome(section: Section, check: Check) -> Text:
    if check.value is None:
        return ("n/a (", Name(check.reason), ")")
    if not check.passed:
        return ("**FAILS**",)
    if check.what == "balanced accuracy" and cannot_fail(len(section.emotions)):
        return (f"cannot fail: {len(section.emotions)} emotions have too few names to tell",)
    return ("as it should be",)


def _panel(section: Section, judges: Sequence[Card], reader: Card) -> list[Block]:
    """Who judges, and how well each judge reads real test faces."""
    rows: list[list[Text]] = []
    confusions = section.track.panel_confusions(section.data[0])
    for judge, confusion in zip(judges, confusions, strict=True):
        recall = np.diagonal(confusion)
        worst = int(np.nanargmin(recall))
        read: list[Text] = [(f"{np.nanmean(recall):.3f}",), (Name(section.emotions[worst]), f" {recall[worst]:.3f}")]
        card: list[Text] = [(Name(judge.architecture),), (str(judge.seed),), (Code(judge.sha256[:12]),)]
        rows.append([(Name(judge.row),), *read, _confused(confusion, section.emotions), *card])
    header = ("judge", "recall on real faces", "worst emotion", "most often misread", "architecture", "seed", "weights")
    said: Text = (
        "FED and ES are measured by the reader ",
        Name(reader.row),
        ", weights ",
        Code(reader.sha256[:12]),
        ".",
    )
    blocks: list[Block] = [Table([(each,) for each in header], rows, left=(0, 3, 4, 6)), Paragraph(said)]
    return blocks


# What it all means


def _meaning(board: Board) -> list[Block]:
    """How the numbers are made, and how to make them again."""
    stale = sorted({cell.stale for cell in board.cells if cell.stale})
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
        "diverged": ("a seed diverged, so the model is not ranked; the numbers are those of the other seeds.",),
        "stale": ("made by commit ", Name(", ".join(stale)), "; today's code would measure it anew."),
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
    report = f"emobench report {shlex.quote(board.suite)}"
    items.append(
        ("To repeat: ", Code(board.command), "; to write this page again from the stored results: ", Code(report), ".")
    )
    return [Heading(2, ("What the numbers mean",)), Bullets(items)]


_MEANING: tuple[str, ...] = (
    "A rank such as 1–3 is shared by models that cannot be told apart at 5 %, all pairs compared on the same faces and "
    "Holm-corrected: from three seeds on as models, with one or two as these very networks.",
    "Brackets hold 95 % intervals: over independent units (people, noise seeds, sources) as each section says, and "
    "over seeds where there are three or more; with fewer they hold for those networks only. Of a share they are "
    "Wilson's, with the design effect of people and seeds; of a difference, that of the pair alone, by the test that "
    "ranks it.",
    "Costs of different hardware do not compare. Controls must lie within their 99.9 % interval.",
)
