"""How far another training moves a figure, for rows with too few seeds to say so themselves.

From three seeds on a row's own interval holds it. For the others it is looked up in a packaged table: the standard
deviation over seeds of the same class on the same dataset, as committed boards have it (`benchmarks/spread.py` makes
the table). A network that had less than half of its recipe is compared with such networks alone, since they move more.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emobench.evaluation.tracks.track import Key, Ranking
from emobench.metrics.intervals import LEVEL, SEEDS_NEEDED, half_width
from emobench.report.board import Entry, Section, key_of

TABLE = Path(__file__).with_suffix(".csv")

# Figures without an upper end, which span decades: a training moves them by a factor.
_SMALLEST = 1e-12  # of a distance, so that it has a logarithm
RELATIVE = frozenset({"fid", "kid", "fed", "content_loss", "style_loss", "total_loss"})


class Known(NamedTuple):
    """A line of the table; the fields are its columns.

    Attributes:
        under_trained: "yes" where the networks had less than half of their recipe, else "no".
        spread: standard deviation over seeds, of the natural logarithm where `scale` is "log".
        freedom: degrees of freedom: seeds less rows.
        source: the boards that it was found on.
    """

    track: str
    dataset: str
    size: int
    model: str
    under_trained: str
    metric: str
    emotion: str
    scale: str
    spread: float
    freedom: int
    source: str

    @property
    def row(self) -> tuple[str, ...]:
        """What two figures must have in common, whatever the dataset."""
        return self.track, self.model, self.under_trained, self.metric, self.emotion


@dataclass(frozen=True)
class Spread:
    """How far another training moves a figure of a row.

    Attributes:
        sd: standard deviation over seeds, of the logarithm where `relative`.
        freedom: its degrees of freedom.
        source: the boards that it was found on; "": the row's own seeds.
        on: the dataset or size, where it was found on another, which says little of this one; "": the row's own.
    """

    sd: float
    freedom: int
    relative: bool
    source: str = ""
    on: str = ""

    @property
    def said(self) -> str:
        """±0.013, or ×1.24 of what spans decades."""
        return f"×{math.exp(self.sd):.3g}" if self.relative else f"±{self.sd:.3f}"


@dataclass(frozen=True)
class Held:
    """Whether an order of rows is that of another training too.

    Attributes:
        spreads: of each row; None: not known.
        rivals: rows, by place, that another training could put before the first, or for all that is known.
    """

    spreads: Sequence[Spread | None]
    rivals: Sequence[int] = field(default=())

    @property
    def known(self) -> bool:
        return all(each is not None for each in self.spreads)


@functools.cache
def table() -> tuple[Known, ...]:
    """The packaged table."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        lines = [Known._make(row[name] for name in Known._fields) for row in csv.DictReader(file)]
    numbers = ({"size": int(each.size), "spread": float(each.spread), "freedom": int(each.freedom)} for each in lines)
    return tuple(each._replace(**of) for each, of in zip(lines, numbers, strict=True))  # type: ignore[arg-type]


def moved(section: Section, entry: Entry, key: Key) -> Spread | None:
    """How far another training moves a figure of a row; None: not known."""
    relative = key.metric in RELATIVE
    values = [number.value for number in entry.single if key_of(number) == key and number.value is not None]
    if len(values) >= SEEDS_NEEDED:
        return Spread(deviation(values, relative), len(values) - 1, relative)
    trained = "yes" if "under-trained" in entry.flags else "no"
    wanted = (section.track.name, entry.cells[0].model, trained, key.metric, key.emotion)
    found = [each for each in table() if each.row == wanted]
    same = [each for each in found if (each.dataset, each.size) == (section.dataset, section.size)]
    if not found:
        return None
    best = same[0] if same else max(found, key=lambda each: each.spread)
    elsewhere = f"{best.size} px" if best.dataset == section.dataset else best.dataset
    return Spread(best.spread, best.freedom, relative, best.source, "" if same else elsewhere)


def deviation(values: Sequence[float], relative: bool) -> float:
    """Standard deviation over seeds, of logarithms where `relative`."""
    return float(np.std(np.log(np.maximum(values, _SMALLEST)) if relative else values, ddof=1))


def held(section: Section, ranking: Ranking, entries: Sequence[Entry]) -> Held:
    """Whether the first of some rows would be the first again if all were trained once more.

    So it is where it is further from each other row than two trainings of both differ by chance: t·√(2·Σ sd²/S), at
    5 % over all its rivals (Bonferroni), with the degrees of freedom of the spreads. What was found on another dataset
    does not count.
    """
    key = section.ranked_by[ranking.name]
    found = [moved(section, entry, key) for entry in entries]
    spreads = [None if each is None or each.on else each for each in found]
    values = [entry.value(key) or 0.0 for entry in entries]
    if key.metric in RELATIVE:
        values = [math.log(max(value, _SMALLEST)) for value in values]
    parts = [
        None if each is None else (np.array(2 * each.sd**2 / len(entry.seeds)), each.freedom)
        for each, entry in zip(spreads, entries, strict=True)
    ]
    level = 1 - (1 - LEVEL) / max(1, len(entries) - 1)
    rivals = [
        place
        for place in range(1, len(entries))
        if parts[0] is None
        or (part := parts[place]) is None
        or abs(values[0] - values[place]) <= float(half_width([parts[0], part], level))
    ]
    return Held(spreads, rivals)


def few_seeds(entries: Iterable[Entry]) -> list[Entry]:
    """The rows that have numbers, of fewer seeds than tell how far another training moves them."""
    return [entry for entry in entries if entry.seeds and len(entry.seeds) < SEEDS_NEEDED]
