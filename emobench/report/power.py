"""What a comparison could have found: the power of paired tests, from the intervals that they came with.

A difference d is found with 80 % power at 5 %, two-sided, where d = (1.96 + 0.84) · SE: of a pair by itself, before
Holm's correction for the others. Its variance falls as the faces, and the seeds, grow in number, so that
(2.8 · SE / d)² times as many of both find d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from emobench.evaluation.tracks.track import Ranking
from emobench.metrics.intervals import SEEDS_NEEDED, Comparison
from emobench.report.board import Section
from emobench.report.spread import moved

LIMIT = 1.96  # standard errors on either side that hold 95 %
FOUND = LIMIT + 0.84  # standard errors of a difference that is found with 80 % power


def standard_error(width: float) -> float:
    """Of a difference, from the width of its 95 % interval."""
    return width / (2 * LIMIT)


@dataclass(frozen=True)
class Power:
    """What the comparison of two rows could have found.

    Attributes:
        error: standard error of the difference.
        seeds: of each row, the lesser number.
        spread: standard deviation over trainings of the difference of two networks, one of each row, where fewer than
            three seeds stand behind the comparison; None: not known, or the seeds are in `error` already.
    """

    error: float
    seeds: int
    spread: float | None

    @property
    def least(self) -> float:
        """The smallest difference that could have been found."""
        return FOUND * self.error

    def times(self, difference: float) -> float:
        """How many times as many faces find a difference, and seeds where they are in the error."""
        return (FOUND * self.error / difference) ** 2


def power_of(section: Section, ranking: Ranking, pair: Comparison) -> Power | None:
    """What a comparison of a section's rows could have found; None: it has no interval."""
    if pair.low is None or pair.high is None or pair.high - pair.low <= 0:
        return None
    rows = [section.compared[ranking.name][place] for place in (pair.first, pair.second)]
    seeds = min(len(row.seeds) for row in rows)
    found = [None if seeds >= SEEDS_NEEDED else moved(section, row, section.ranked_by[ranking.name]) for row in rows]
    known = [each.sd for each in found if each is not None and not each.relative and not each.on]
    spread = math.hypot(*known) if len(known) == len(rows) else None
    return Power(standard_error(pair.high - pair.low), seeds, spread)
