"""The details of a board: for each track and dataset all its tables and pictures, and what they mean."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from emobench.evaluation.tracks.track import Column, Key, Name, Ranking, Track
from emobench.metrics import intervals
from emobench.report import outside, people, power, unranked
from emobench.report.board import AT_CHANCE, MFU, Board, Entry, Number, Section
from emobench.report.figures import marked
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
    joined,
)
from emobench.report.readable import brief, is_share
from emobench.report.spread import few_seeds, moved
from emobench.report.trainers import first_trainer, trainers
from emobench.report.verdict import any_wanted, failures, outcome, verdict
from emobench.runner.choice import NOT_CHOSEN, READ_EARLIER, Choice, Setting, is_candidate
from emobench.runner.record import Card, Record
from emobench.suite.keys import PROTOCOL

Pictures = Mapping[tuple[str, ...], str]  # (track, dataset, what, …) -> path from the board's folder

_COSTS = {"params": "params", "flops": "FLOPs/face", "fit_seconds": "training"}


def details(board: Board, track: Track, pictures: Pictures) -> list[Block]:
    """All of a track's details: the verdicts, a section for each dataset, and what it all means."""
    shown = [section for section in board.sections if section.track is track and any_wanted(section)]
    verdicts = [verdict(section) for section in shown]
    blocks: list[Block] = [Heading(1, (f"{track.name.capitalize()} in detail: ", Name(board.suite))), *failures(board)]
    blocks += [Paragraph(verdicts[0])] if len(verdicts) == 1 else [Bullets(verdicts)]
    blocks.append(Paragraph(("The short form: ", Link(board.path.name), ".")))
    panels: set[tuple[str, ...]] = set()
    for section in shown:
        blocks += _section(section, pictures, panels)
    return [*blocks, *meaning(board, shown)]


_ACROSS = 6  # datasets of a brief overview's table


def overviews(shown: Sequence[Section], *, short: bool = False) -> list[Block]:
    """The first ranking of each model on each dataset, of tracks that are run on several; `short`: figures as on a
    leaderboard, in tables that fit a screen."""
    blocks: list[Block] = []
    for track in dict.fromkeys(section.track for section in shown):
        mine = [section for section in shown if section.track is track]
        if len(mine) < 2 or not track.rankings:
            continue
        ranking = track.rankings[0]
        every = (entry for section in mine for entry in section.entries)
        names = dict.fromkeys(entry.name for entry in every if any(cell.state != NOT_CHOSEN for cell in entry.cells))
        blocks.append(Heading(2, (f"Overview of {track.name}",)))
        across = _ACROSS if short else len(mine)
        for part in (mine[start : start + across] for start in range(0, len(mine), across)):
            rows = [(Name(name), *(_placed(section, name, ranking, short) for section in part)) for name in names]
            of = f", {_percent(ranking)}" if short else ""
            header: list[Text] = [(f"{track.name}: {ranking.heading}{of}",)]
            header += [(Name(section.dataset),) for section in part]
            blocks.append(Table(header, [_texts(row) for row in rows]))
    return blocks


def _percent(ranking: Ranking) -> str:
    return "%" if is_share(ranking.metrics[0].metric) else "as measured"


def _placed(section: Section, name: str, ranking: Ranking, short: bool) -> Part | Text:
    entry = next((entry for entry in section.entries if entry.name == name), None)
    key = section.ranked_by.get(ranking.name, ranking.metrics[0])
    if entry is None:
        return "–" if short else "n/a (not in the suite)"
    rank = entry.ranks.get(ranking.name)
    number = entry.numbers.get(key)
    return (brief(number) if short else Score(number), *((" · rank ", Rank(rank)) if rank else ()))


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
        if not is_listed(entry):
            continue
        ranks: list[Text] = [ranked(section, entry, ranking) for ranking in rankings]
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


def is_listed(entry: Entry) -> bool:
    """Whether a row stands in the tables: it can run here, and is no setting that was not chosen."""
    return any(cell.state not in ("skipped", NOT_CHOSEN) for cell in entry.cells)


def ranked(section: Section, entry: Entry, ranking: Ranking) -> Text:
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
    yield (f"n = {test_faces(section)}. {_intervals(section)}",)
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
    yield from people.notes(section)
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


def test_faces(section: Section) -> str:
    """How many faces the ranking number was measured on, and what is known of them."""
    key = next(iter(section.ranked_by.values()), section.track.headline)
    counts = {entry.numbers[key].n or 0 for entry in section.measured if key in entry.numbers}
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
        others = people.confusions(section)
        misread = [_misread(entry, section.emotions, others) for entry in confused]
        blocks.append(Table([("model",), ("most often misread",)], misread, left=(0, 1)))
    return [Heading(3, ("Each emotion",)), *blocks] if blocks else []


def _misread(entry: Entry, emotions: Sequence[str], others: np.ndarray | None) -> list[Text]:
    return [(Name(entry.name),), _confused(entry.shares, emotions, others)]


def _row(entry: Entry, keys: Sequence[Key], *, bare: bool = False) -> list[Text]:
    """An entry's name and some of its numbers."""
    return [(Name(entry.name),), *((Score(entry.numbers.get(key), bare),) for key in keys)]


def _confused(shares: np.ndarray | None, emotions: Sequence[str], others: np.ndarray | None = None) -> Text:
    """The largest share of one emotion's faces that is read as one other; `others`: the same of people, if known."""
    if shares is None:
        return ("n/a",)
    wrong = np.nan_to_num(shares * (1 - np.eye(len(emotions))))
    shown, read = divmod(int(wrong.argmax()), len(emotions))
    said = f", {100 * wrong[shown, read]:.0f} %"
    if others is not None:
        too = "people too, " if marked(others, shares)[shown, read] else "people "
        said += f" ({too}{100 * np.nan_to_num(others)[shown, read]:.0f} %)"
    return (Name(emotions[shown]), " as ", Name(emotions[read]), said)


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
    if (*place, "fading") in pictures:
        what = "While the pixels that a map puts first give way to the mean face, and while they come in its place:"
        blocks.append(Paragraph((what,)))
        blocks.append(Picture(pictures[*place, "fading"], ("deletion and insertion curves",)))
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


FLAGS: dict[str, Text] = {
    "under-trained": ("less than half of the recipe's faces were seen, which says nothing against the model.",),
    "memorised": ("more than 5 % of its faces are much nearer to one training face than real faces are: copies.",),
    "incomplete": ("seeds are missing; the numbers are those of the others.",),
    AT_CHANCE: ("its balanced accuracy is not above that of naming one class for every face, by its interval.",),
    "diverged": ("a seed diverged, so the model is not ranked; the numbers are those of the other seeds.",),
    **unranked.MEANINGS,
    "looks as with random weights": (
        "its attention lies on the parts that show the emotion no more than with random weights, by the interval.",
    ),
    "looks as with permuted labels": (
        "its attention lies on the parts that show the emotion no more than that of a network whose training labels "
        "were permuted, by the interval.",
    ),
}


def meaning(board: Board, sections: Sequence[Section]) -> list[Block]:
    """How the numbers of some sections are made, and how to make them again."""
    seeds = sorted({cell.seed for cell in board.wanted})
    tracks = dict.fromkeys(section.track for section in sections)
    items: list[Text] = [(text,) for text in (*_MEANING, *(text for track in tracks for text in track.meaning))]
    every = [pair for section in sections for pairs in section.comparisons.values() for pair in pairs]
    near = sum(pair.borderline for pair in every)
    if near:
        pairs = f"{near} pair{'s' if near > 1 else ''} of models, whose p lies so near 5 % that more resamples do not"
        items.append((f"*Borderline*: {pairs} settle its side; a borderline pair counts as not told apart.",))
    flags = {flag for section in sections for entry in section.entries for flag in entry.flags}
    items += [(f"*{flag}*: ", *meaning) for flag, meaning in FLAGS.items() if flag in flags]
    items.append(
        (f"Protocol {PROTOCOL}; seeds {', '.join(map(str, seeds))}. All numbers: `metrics.csv`; raw: `cells/`.",)
    )
    absent = {card.sha256: card for section in sections for card in section.without_weights}
    if absent:
        named = [part for card in absent.values() for part in (", ", Name(card.row), " ", Code(card.sha256[:12]))]
        why = "Weights that are not committed, so that a clone is small: "
        items.append((why, *named[1:], ". The command at the end of this page trains them again."))
    items += [*earlier(board), again(board)]
    return [Heading(2, ("What the numbers mean",)), Bullets(items)]


def again(board: Board) -> Text:
    """How a board is made again."""
    report = f"emobench report {shlex.quote(board.suite)}"
    return (
        "To repeat: ",
        Code(board.command),
        "; to write this page again from the stored results: ",
        Code(report),
        ".",
    )


def earlier(board: Board) -> list[Text]:
    """Which rows were made by code that reads differently today, and by which commit."""
    rows: dict[str, list[str]] = {}
    for cell in board.cells:
        if (commit := cell.stale) and cell.row not in rows.setdefault(commit, []):
            rows[commit].append(cell.row)
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
