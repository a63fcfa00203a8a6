"""The page that a person chooses a model from: a board as Markdown."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from emobench.metrics.intervals import CONTROL_LEVEL
from emobench.report.board import Board, Entry, Number, Section
from emobench.report.judged_text import judged, verdict
from emobench.report.markdown import code, escape, table
from emobench.report.readable import cost, gap, listed, score
from emobench.runner.store import PROTOCOL, Row

Pictures = Mapping[tuple[str, ...], str]  # (dataset, row) or (dataset,) -> path from the board's folder


def markdown(board: Board, pictures: Pictures) -> str:
    """leaderboard.md: the verdict, the state, a section for each dataset, and what it all means."""
    shown = [section for section in board.sections if any(row.state != "skipped" for row in _rows(section))]
    verdicts = [*(_verdict(section) for section in shown), *(verdict(each) for each in board.judged)]
    lines = [f"# Leaderboard: {escape(board.suite)}", ""]
    lines += verdicts if len(verdicts) == 1 else [f"- {verdict}" for verdict in verdicts]
    lines += ["", *_state(board)]
    if len(shown) > 1:
        lines += ["", "## Overview", "", *_overview(shown)]
    for section in shown:
        lines += ["", f"## {escape(section.dataset)}, {section.size} px", "", *_section(section, pictures)]
    for judged_section in board.judged:
        head = f"## Generators on {escape(judged_section.dataset)}, {judged_section.size} px"
        lines += ["", head, *judged(judged_section, pictures)]
    skipped = {(row.row, row.dataset): row.reason for row in board.rows if row.state == "skipped"}
    if skipped:
        lines += ["", "## Skipped", ""]
        lines += [f"- {escape(row)} on {escape(data)}: {escape(why)}" for (row, data), why in skipped.items()]
    return "\n".join([*lines, "", *_meaning(board)]) + "\n"


def _rows(section: Section) -> list[Row]:
    return [row for entry in (*section.entries, *section.controls) for row in entry.rows]


def _verdict(section: Section) -> str:
    """Which model is best, by how much, and whether that is certain: one sentence."""
    ranked, where = section.ranked, code(section.dataset)
    if not ranked:
        return f"Nothing is measured on {where} yet."
    name, said = f"**{escape(ranked[0].name)}**", score(ranked[0].numbers["macro_f1", ""])
    pairs = [entry.behind for entry in ranked[1:] if entry.behind is not None]
    if not pairs:
        return f"Only {name} is measured on {where}: macro F1 {said}."
    start = f"Best on {where}: {name}, macro F1 {said}, {gap(pairs[0])} above {escape(ranked[1].name)}"
    known = all(pair.seeds_known for pair in pairs)
    seeds = min(len(entry.seeds) for entry in ranked)
    doubt = f"{'one seed' if seeds == 1 else f'{seeds} seeds'} cannot say what other seeds would give"
    short = [escape(entry.name) for entry in ranked[1:] if "under-trained" in entry.flags]
    caveat = f"; {listed(short)} {'is' if len(short) == 1 else 'are'} under-trained, so not judged" if short else ""
    tied = [escape(ranked[pair.second].name) for pair in pairs if not pair.certain]
    if tied:
        more = "" if known else f", and {doubt}"
        return f"{start}; **not certain**: it cannot be told apart from {listed(tied)}{more}{caveat}."
    if not known:
        return f"{start}; **certain for these trained networks only**: {doubt}{caveat}."
    chance = _chance(max(pair.p for pair in pairs))
    return f"{start}; **certain** ({seeds} seeds, paired over the same faces, {chance}){caveat}."


def _state(board: Board) -> list[str]:
    """Whether the board can be trusted and is whole; every cell without numbers, with its reason."""
    done = len(board.wanted) - len(board.missing)
    lines = []
    for check in board.checks:
        if not check.passed:
            lines += [
                f"> **A control fails: trust no number of this board.** {escape(check.name)}, seed {check.seed}: "
                f"{check.what} {check.value:.3f}, but must be {check.bounds}.",
                "",
            ]
    whole = "Complete" if done == len(board.wanted) else "**Incomplete**"
    lines += [f"{whole}: {done} of {len(board.wanted)} cells done."]
    missing = [
        f"- {escape(_row_name(number))} on {escape(number.dataset)}, seed {number.seed}: {escape(number.reason)}"
        for number in board.missing
    ]
    return [*lines, *([""] if missing else []), *missing]


def _overview(sections: Sequence[Section]) -> list[str]:
    """Macro F1 and rank of each model on each dataset."""
    names = dict.fromkeys(entry.name for section in sections for entry in section.entries)
    rows = []
    for name in names:
        cells = []
        for section in sections:
            entry = next((entry for entry in section.entries if entry.name == name), None)
            number = entry.numbers.get(("macro_f1", "")) if entry else None
            rank = f" · rank {_range(entry)}" if entry and entry.rank else ""
            cells.append("n/a (not in the suite)" if number is None else score(number) + rank)
        rows.append([escape(name), *cells])
    return table(["macro F1", *(escape(section.dataset) for section in sections)], rows)


def _section(section: Section, pictures: Pictures) -> list[str]:
    machines = {entry.numbers["params", ""].hardware: "" for entry in section.entries if entry.seeds}
    machines = {machine: chr(ord("A") + place % 26) for place, machine in enumerate(machines)}
    lines = _recognition(section, machines)
    if (section.dataset,) in pictures:
        lines += ["", f"![macro F1 of each model with its interval]({pictures[(section.dataset,)]})"]
    if section.faces:
        people = f" of {section.subjects:,} people" if section.subjects else ""
        leaks = f", {section.leaked:,} of which also occur in training or validation" if section.leaked else ""
        lines += ["", f"- n = {section.faces:,} test faces{people}{leaks}."]
        lines += [f"- Hardware {letter}: {escape(machine)}." for machine, letter in machines.items()]
        lines += [f"- The data: {escape(note)}" for note in section.notes]
    if section.emotions:
        lines += ["", "### Each emotion", "", *_emotions(section)]
    lines += ["", "### Controls", "", *_controls(section)]
    shown = [entry for entry in (*section.entries, *section.controls) if (section.dataset, entry.name) in pictures]
    if shown:
        lines += ["", "### Confusion matrices", "", "Means over seeds: rows are what was shown, columns what was read."]
        lines += ["", *_gallery([(_title(entry), pictures[section.dataset, entry.name]) for entry in shown])]
    return lines


def _recognition(section: Section, machines: Mapping[str, str]) -> list[str]:
    """The models, best first, with what they cost."""
    leaks = ["accuracy, unleaked"] if section.leaked else []
    header = ["rank", "model", "macro F1", "behind the first", "accuracy", *leaks, "weighted F1", "ECE"]
    header += ["params", "FLOPs/face", "training", "faces/s", "seeds", "hardware", "flags"]
    metrics = ["accuracy", *(["accuracy_unleaked"] if section.leaked else []), "weighted_f1", "ece"]
    rows = []
    for entry in section.entries:
        if all(row.state == "skipped" for row in entry.rows):
            continue
        first = [_range(entry), escape(entry.name), score(entry.numbers.get(("macro_f1", "")))]
        if not entry.seeds:
            rows.append([*first, *["n/a"] * (len(header) - 6), f"0 of {len(entry.rows)}", "", ""])
            continue
        behind = "–" if entry.behind is None else gap(entry.behind)
        scores = [score(entry.numbers.get((metric, ""))) for metric in metrics]
        costs = [cost(entry.numbers[metric, ""]) for metric in ("params", "flops", "fit_seconds", "faces_per_s")]
        seeds = f"{len(entry.seeds)} of {len(entry.rows)}" if "incomplete" in entry.flags else str(len(entry.seeds))
        machine = machines[entry.numbers["params", ""].hardware]
        rows.append([*first, behind, *scores, *costs, seeds, machine, ", ".join(entry.flags)])
    return table(header, rows, left=(0, 1, -2, -1))


def _emotions(section: Section) -> list[str]:
    """Accuracy (recall) and F1 of each emotion, and what each model confuses most."""
    measured = [entry for entry in section.entries if entry.seeds]
    lines = ["Accuracy: the share of an emotion's faces that are read as it (its recall).", ""]
    for metric in ("accuracy", "f1"):
        rows = [
            [escape(entry.name), *(score(entry.numbers.get((metric, emotion))) for emotion in section.emotions)]
            for entry in measured
        ]
        header = ["accuracy" if metric == "accuracy" else "F1", *(escape(emotion) for emotion in section.emotions)]
        if metric == "accuracy":
            header.append("most often misread")
            rows = [[*row, _confused(entry, section.emotions)] for row, entry in zip(rows, measured, strict=True)]
        lines += [*table(header, rows, left=(0, -1) if metric == "accuracy" else (0,)), ""]
    return lines[:-1]


def _confused(entry: Entry, emotions: Sequence[str]) -> str:
    """The largest share of one emotion's faces that is read as one other."""
    if entry.shares is None:
        return "n/a"
    wrong = np.nan_to_num(entry.shares * (1 - np.eye(len(emotions))))
    shown, read = divmod(int(wrong.argmax()), len(emotions))
    return f"{escape(emotions[shown])} as {escape(emotions[read])}, {100 * wrong[shown, read]:.0f} %"


def _controls(section: Section) -> list[str]:
    """What the majority class and a model trained on permuted labels get, and whether that is as it should be."""
    rows = []
    for entry in section.controls:
        places = (("accuracy", ""), ("macro_f1", ""), ("recall", "macro"))
        scores = [score(entry.numbers.get(place)) for place in places]
        if entry.name == "control:majority":
            rows.append([_title(entry), *scores, "–", f"always {escape(section.majority)}: the floor of every model"])
            continue
        checks = [check for check in section.checks if check.name == entry.name]
        bounds = [check.bounds for check in checks]
        fine = "as it should be"
        if math.factorial(len(section.emotions)) * (1 - CONTROL_LEVEL) < 2:  # the interval holds all renamings
            fine = f"cannot fail: {len(section.emotions)} emotions have too few names to tell"
        said = [fine if check.passed else "**FAILS**" for check in checks]
        rows.append([_title(entry), *scores, listed(bounds) or "n/a", listed(said) or "not measured yet"])
    if not any(entry.name.startswith("control:permuted") for entry in section.controls):
        rows.append(["control:permuted", *["n/a"] * 4, "the suite has no such run: nothing shows that no label leaks"])
    return table(
        ["control", "accuracy", "macro F1", "balanced accuracy", "must lie within", "outcome"], rows, left=(0, -1)
    )


def _gallery(pictures: Sequence[tuple[str, str]], across: int = 3) -> list[str]:
    """Pictures side by side."""
    cells = [f"![confusion matrix of {title}]({path})" for title, path in pictures]
    lines = [cells[start : start + across] for start in range(0, len(cells), across)]
    width = min(across, len(cells))
    full = [[*line, *[""] * (width - len(line))] for line in lines]
    return table([" "] * width, full, left=range(width))


def _meaning(board: Board) -> list[str]:
    """How the numbers are made, and how to make them again."""
    stale = sorted({row.stale for row in board.rows if row.stale})
    seeds = sorted({row.seed for row in board.wanted})
    lines = ["## What the numbers mean", ""]
    lines += [
        "- Models are ranked by macro F1 (an absent or never predicted emotion counts 0). A rank such as 1–3 is shared "
        "by models that cannot be told apart: all pairs are compared on the same faces at 5 %, Holm-corrected.",
        "- Brackets hold 95 % intervals: over people where they are known, else over faces, and over seeds where there "
        "are three or more; with fewer they hold for those seeds only. Of a difference it is that of the pair alone.",
        "- ECE: expected calibration error in 15 bins, lower is better. Costs of different hardware do not compare.",
        "- `control:permuted` was trained on permuted labels: its balanced accuracy must lie within the 99.9 % "
        "interval of the same predictions under random names, or something but the faces gives the labels away.",
    ]
    if board.judged:
        lines += _meaning_of_judged()
    flags = {flag for section in board.all_sections for entry in section.entries for flag in entry.flags}
    known = {
        "under-trained": "less than half of the recipe's steps were run, which says nothing against the model.",
        "memorised": "more than 5 % of its faces are much nearer to one training face than real faces are: copies.",
        "incomplete": "seeds are missing; the numbers are those of the others.",
        "diverged": "a seed diverged, so the model is not ranked; the numbers are those of the other seeds.",
        "stale": f"made by commit {escape(', '.join(stale))}; today's code would measure it anew.",
    }
    lines += [f"- *{flag}*: {meaning}" for flag, meaning in known.items() if flag in flags]
    lines += [
        f"- Protocol {PROTOCOL}; seeds {', '.join(str(seed) for seed in seeds)}. All numbers: `metrics.csv`; "
        "ranks, comparisons and controls: `metrics.json`; the raw predictions: `cells/`.",
        f"- To repeat: {code(board.command)}; to write this page again from the stored results: "
        f"{code(shlex.join(['emobench', 'report', board.suite]))}.",
    ]
    return lines


def _meaning_of_judged() -> list[str]:
    return [
        "- *Control, raw*: the share of faces that the judges read as the emotion asked for, a mean over judges and "
        "emotions. *Calibrated*: what the faces show once the judges' own errors on real faces are taken off; real "
        "faces give 1, and a value above 1 is easier to read than a real face. Judges never met what they judge.",
        "- *FED*, *ES*: Fréchet distance and score in the reader's features and classes; they compare models on one "
        "dataset and one reader only, and are no FID or IS. `control:floor` is real test faces against the same "
        "reference.",
        "- *copies*: the share of faces that copy a training face. Rank ranges by control hold all models that cannot "
        "be told apart at 5 %, Holm-corrected; editors are compared on the same sources. Control and distance are two "
        "ranks and are not merged.",
        "- Faces drawn from one noise seed, with every emotion and intensity, are resampled together, as are all edits "
        "of a person; the real faces that calibrate are resampled with them, the same ones for all models.",
    ]


def _title(entry: Entry) -> str:
    row = entry.rows[0]
    return escape(entry.name) + (f" ({escape(row.variant)})" if row.control is not None and row.variant else "")


def _row_name(number: Number) -> str:
    return number.variant if number.variant and not number.model.startswith("control:") else number.model


def _range(entry: Entry) -> str:
    if entry.rank is None:
        return "–"
    best, worst = entry.rank
    return str(best) if best == worst else f"{best}–{worst}"


def _chance(p: float) -> str:
    return "Holm-corrected p < 0.001" if p < 0.001 else f"Holm-corrected p = {p:.3f}"
