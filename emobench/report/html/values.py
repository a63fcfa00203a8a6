"""What the charts of a section are drawn from, as plain values for JSON: every number is one of its board's.

Rows are named by their place in `rows`; K emotions; a value that is not there is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emobench.evaluation.tracks.track import Key, Ranking
from emobench.report import people, power
from emobench.report.board import Entry, Number, Section
from emobench.report.explained import fading
from emobench.report.history import History, Run
from emobench.report.html.disagreements import disagreements
from emobench.report.html.faces import Allowance, Shown, pictures
from emobench.report.markdown import one_line
from emobench.report.power import power_of
from emobench.report.readable import address, signed
from emobench.report.spread import RELATIVE
from emobench.runner.record import Card

MATRIX = 48  # rows whose pairs are shown, the best first
EPOCHS = 80  # points of a curve
CURVES = 40_000  # points of all curves of a section
RESPONSES = 24  # rows whose curve over intensity is drawn, the best first
COSTS = {  # what quality is drawn against -> heading, and which end is cheap
    "params": ("parameters", "low"),
    "flops": ("FLOPs a face", "low"),
    "fit_seconds": ("training, s", "low"),
    "peak_memory_gb": ("memory of the fit, GiB", "low"),
    "faces_per_s": ("faces a second", "high"),
}


def values(section: Section, name: str, folder: str, real_faces: bool, allowance: Allowance) -> dict[str, Any]:
    """All that the page's script needs of a section.

    Args:
        name: of the section on the page.
        folder: from the page to the board, with a slash at its end; "": they lie together.
        real_faces: whether pictures of real people may be shown.
        allowance: what pictures may take.
    """
    every = section.every
    places = {entry.name: place for place, entry in enumerate(every)}
    shown = sorted(pictures(section, real_faces, allowance), key=lambda each: places[each.row])
    return {
        "id": name,
        "track": section.track.name,
        "dataset": one_line(section.dataset),
        "emotions": list(section.emotions),
        "rows": [_row(entry) for entry in every],
        "found": power.FOUND,
        "rankings": [_ranking(section, each, places) for each in section.track.rankings if _is_shown(section, each)],
        "emotion": list(_by_emotion(section, places)),
        "confusions": [
            {"row": places[entry.name], "shares": _thousandths(entry.shares)}
            for entry in every
            if entry.shares is not None
        ],
        "people": _people(section),
        "judges": _judges(section),
        "training": _training(section, places, folder),
        "costs": _costs(section, places),
        "curves": list(_curves(section, places)),
        "fading": _fading(section, places),
        "pictures": [_picture(section, each, places, folder) for each in shown],
        "apart": disagreements(section, places, shown, allowance),
    }


def rounded(value: float | None) -> float | None:
    """To as many digits as metrics.csv holds, so that both are shown alike."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def _row(entry: Entry) -> dict[str, Any]:
    return {"name": one_line(entry.name), "control": entry.control, "seeds": entry.seeds}


def _is_shown(section: Section, ranking: Ranking) -> bool:
    return len(section.compared.get(ranking.name, [])) > 0


# Differences


def _ranking(section: Section, ranking: Ranking, places: Mapping[str, int]) -> dict[str, Any]:
    """The rows of a ranking, the best first, with the comparison of each two."""
    compared, key = section.compared[ranking.name], section.ranked_by[ranking.name]
    heading = key.metric.upper() if ranking.by == "samples" else ranking.heading
    kept = compared[:MATRIX]
    pairs = []
    for pair in section.comparisons.get(ranking.name, []):
        if max(pair.first, pair.second) < len(kept):
            found = power_of(section, ranking, pair)
            said = [pair.first, pair.second, *map(rounded, (pair.difference, pair.low, pair.high, pair.p))]
            of = [rounded(found.error), rounded(found.spread)] if found is not None else [None, None]
            pairs.append([*said, int(pair.seeds_known), int(pair.certain), int(pair.borderline), *of])
    units, unit = compared[0].units if ranking.by == "faces" else (0, "seeds")
    return {
        "name": ranking.name,
        "heading": heading,
        "better": ranking.better,
        "order_only": ranking.name in section.order_only,
        "relative": key.metric in RELATIVE,
        "rows": [places[entry.name] for entry in kept],
        "left_out": len(compared) - len(kept),
        "values": [_point(entry.numbers[key]) for entry in kept],
        "pairs": pairs,
        "units": units,
        "unit": unit,
    }


def _point(number: Number | None) -> list[float | None] | None:
    """Value, low and high."""
    return None if number is None else [rounded(each) for each in (number.value, number.low, number.high)]


# Emotions


def _by_emotion(section: Section, places: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for metric, heading in section.track.by_emotion:
        rows = []
        for entry in section.every:
            points = [_point(entry.numbers.get(Key(metric, emotion))) for emotion in section.emotions]
            if any(points) and entry.name != "control:majority":
                rows.append({"row": places[entry.name], "points": points})
        if rows:
            yield {"heading": heading, "rows": rows}


def _thousandths(shares: Any) -> list[list[int | None]]:
    """(K, K) shares in thousandths; None: no face of the emotion."""
    return [[None if np.isnan(each) else round(1000 * each) for each in line] for line in np.asarray(shares).tolist()]


def _people(section: Section) -> list[list[int | None]] | None:
    """The confusions of annotators; None: not known."""
    shares = people.confusions(section)
    return None if shares is None else _thousandths(shares)


def _curves(section: Section, places: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """The panel's probability over the intensity asked for."""
    for entry in section.measured[:RESPONSES]:
        curve = section.track.curve(section.data_of(entry))
        if curve is not None:
            points = [rounded(each) for each in curve.tolist()]
            yield {"row": places[entry.name], "x": curve.index.tolist(), "y": points}


def _fading(section: Section, places: Mapping[str, int]) -> list[dict[str, Any]]:
    """Deletion and insertion of explanations, over the share of the pixels in percent."""
    return [
        {
            "row": places[name],
            "x": [rounded(each) for each in np.linspace(0, 100, len(deletion)).tolist()],
            "deletion": [rounded(each) for each in deletion],
            "insertion": [rounded(each) for each in insertion],
        }
        for name, (deletion, insertion) in fading(section).items()
    ]


# Judges


def _judges(section: Section) -> list[dict[str, Any]]:
    """Who judges and reads, with what each judge makes of real test faces."""
    evaluation = next((record.evaluation for record in section.records), None)
    if evaluation is None or not evaluation.panel:
        return []
    confusions = section.track.panel_confusions(section.data[0])
    cards = [_card(card, "judge") for card in evaluation.panel]
    for card, confusion in zip(cards, confusions, strict=True):
        card["recall"] = signed(float(np.nanmean(np.diagonal(confusion))))
        card["shares"] = _thousandths(confusion)
    reader = [] if evaluation.reader is None else [_card(evaluation.reader, "reader")]
    guides = {card.sha256: card for record in section.records if record.evaluation for card in record.evaluation.guides}
    absent = {card.sha256 for card in section.without_weights}
    found = [*cards, *reader, *(_card(card, "guide") for card in guides.values())]
    return [{**card, "committed": card["weights"] not in absent} for card in found]


def _card(card: Card, role: str) -> dict[str, Any]:
    return {
        "role": role,
        "row": one_line(card.row),
        "architecture": one_line(card.architecture),
        "seed": card.seed,
        "weights": card.sha256,
        "data": card.data,
        "needs": [one_line(need) for need in card.needs],
    }


# Training


def _training(section: Section, places: Mapping[str, int], folder: str) -> list[dict[str, Any]]:
    lines = sum(2 + len(run.history.scores) for runs in section.training.values() for run in runs if run.history)
    most = max(8, min(EPOCHS, CURVES // max(1, lines)))
    found = []
    for name, runs in section.training.items():
        drawn = [_run(run, run.history, most, folder) for run in runs if run.history is not None]
        if drawn:
            found.append({"row": places[name], "runs": drawn})
    return found


def _run(run: Run, history: History, most: int, folder: str) -> dict[str, Any]:
    """Losses, validation scores and learning rate after some of the epochs: the last one is always among them."""
    count = len(history.epochs)
    kept = sorted({round(each) for each in np.linspace(0, count - 1, min(count, most)).tolist()})
    wanted = [name for name in ("train_loss", "val_loss", *history.scores, "lr") if name in history.columns]
    columns = {name: [rounded(history.columns[name][place]) for place in kept] for name in wanted}
    return {
        "seed": run.seed,
        "best": None if run.best is None else run.best + 1,
        "path": None if run.path is None else f"./{address(folder + run.path)}",
        "epochs": [history.epochs[place] + 1 for place in kept],
        "columns": {name: of for name, of in columns.items() if any(each is not None for each in of)},
    }


# Cost


def _costs(section: Section, places: Mapping[str, int]) -> dict[str, Any]:
    """What each row costs; `machine`: costs of different ones do not compare."""
    rows = []
    machines: dict[str, int] = {}
    for entry in section.measured:
        of = {name: entry.costs.get(name) or entry.numbers.get(Key(name)) for name in COSTS}
        known = {name: rounded(number.value) for name, number in of.items() if number and number.value is not None}
        if known:
            machine = machines.setdefault(one_line(entry.costs["params"].hardware), len(machines))
            rows.append({"row": places[entry.name], "machine": machine, **known})
    there = {name for row in rows for name in row}
    axes = [{"key": key, "heading": of[0], "cheap": of[1]} for key, of in COSTS.items() if key in there]
    return {"axes": axes, "machines": list(machines), "rows": rows}


# Pictures and files


def _picture(section: Section, shown: Shown, places: Mapping[str, int], folder: str) -> dict[str, Any]:
    return {
        "kind": shown.kind,
        "caption": section.track.pictures[shown.kind],
        "row": places[shown.row],
        "lines": [one_line(each) for each in shown.lines],
        "columns": [one_line(each) for each in shown.columns],
        "path": f"./{address(folder + shown.path)}" if shown.path else None,
        "sheet": None if shown.sheet is None else shown.sheet.plain,
    }


def files(section: Section, suite: Path) -> list[tuple[str, int, list[str]]]:
    """The raw files of each usable cell: row, seed, and paths from the board's folder, as far as they lie there."""
    found = []
    for cell in section.usable:
        raw = [] if cell.record is None or cell.record.evaluation is None else cell.record.evaluation.raw.values()
        paths = [f"cells/{cell.eval_key}/{name}" for name in ("result.json", *raw)]
        found.append((cell.row, cell.seed, [path for path in paths if (suite / path).exists()]))
    return found
