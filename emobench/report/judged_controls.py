"""Controls of a panel: faces of which it is known what the judges must say (PROTOCOL.md, 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emobench.metrics import intervals as stats
from emobench.metrics.control import (
    Control,
    Verdicts,
    average,
    control,
    rate_shares,
    rate_units,
    rates,
    unchanged_hits,
)
from emobench.report.board import Check, Entry, Number, base_number
from emobench.report.verdicts import (
    RESAMPLES,
    Drawn,
    Judged,
    kept,
    place_of,
    quantities,
    replicates,
    resampled,
    units,
    whole_samples,
    with_intervals,
)

MEMORISED = 0.05  # share of copies above which a row is flagged (PROTOCOL.md 3)
_NORMAL = 3.2905  # standard deviations on either side that hold 99.9 % of a normal distribution


def _control_faces(cell: Judged) -> Iterator[tuple[str, str, str, Verdicts]]:
    """Faces of which it is known what control must say, as (name, track, unit of resampling, verdicts)."""
    other, unit = cell.real(1), units(cell.part("real"))[0]
    classes = len(cell.emotions)
    yield "control:real", "generation", unit, other
    shuffled = np.random.default_rng(stats.SEED).permutation(np.array(other.asked))
    yield "control:shuffled", "generation", unit, Verdicts(shuffled, other.read, other.groups)
    first = np.flatnonzero(other.asked == _one_emotion(cell))
    people = None if other.groups is None else np.repeat(other.groups[first], classes)
    one = Verdicts(np.tile(np.arange(classes), len(first)), np.repeat(other.read[:, first], classes, 1), people)
    yield "control:one_emotion", "generation", unit, one
    for kind, track in (("copies", "generation"), ("source", "editing")):
        verdicts = cell.verdicts(kind)
        if verdicts is not None:
            yield f"control:{kind}", track, units(cell.part(kind))[0], verdicts


def _one_emotion(cell: Judged) -> int:
    """The first emotion with test faces in both halves, which stands for all that are asked for; −1: there is none."""
    both = np.intersect1d(cell.real(0).asked, cell.real(1).asked)
    return int(both.min(initial=len(cell.emotions))) if len(both) else -1


@dataclass(frozen=True)
class Known:
    """What the panel says of faces of which it is known what it must say."""

    name: str
    track: str
    verdicts: Verdicts
    value: Control
    draws: Control  # the same under resampling
    drawn: Drawn  # both by metric


def measured(cell: Judged) -> list[Known]:
    """Every control of a panel, calibrated by one half of the test faces and measured on the other."""
    found = []
    for name, track, unit, verdicts in _control_faces(cell):
        value, draws = resampled(verdicts, cell.real(0), len(cell.emotions), name)
        both = quantities(cell, value), quantities(cell, draws)
        found.append(Known(name, track, verdicts, value, draws, Drawn.of(cell, verdicts, unit, value, *both)))
    return found


def controls(cell: Judged, known: Sequence[Known], suite: str) -> Iterator[Entry]:
    """The control rows of a board, as entries."""
    metrics = cell.result["metrics"]
    for each in known:
        base = _control_base(cell, suite, each.name, each.track)
        numbers = list(with_intervals([each.drawn], base, trained=False))
        if each.name == "control:copies":
            numbers += whole_samples([metrics["copies"]], base, trained=False)
        yield _control_entry(cell, each.name, numbers)
    base = _control_base(cell, suite, "control:floor", "generation")
    yield _control_entry(cell, "control:floor", whole_samples([metrics["floor"]], base, trained=False))
    if not cell.part("editing").empty:
        base = _control_base(cell, suite, "control:other_person", "editing")
        others = kept([cell], base, ("identity", "ssim", "lpips"), other=True)
        yield _control_entry(cell, "control:other_person", others)


def _control_base(cell: Judged, suite: str, name: str, track: str) -> Number:
    base = base_number(suite, cell.row, None, [], "")
    return base._replace(model=name, variant="", track=track)


def _control_entry(cell: Judged, name: str, numbers: Iterator[Number] | Sequence[Number]) -> Entry:
    """An entry of real faces."""
    entry = Entry(name, [cell.row])
    entry.numbers = {place_of(number): number for number in numbers}
    return entry


def checks(cell: Judged, known: Sequence[Known]) -> Iterator[Check]:
    """Whether each control says what it must (PROTOCOL.md 4).

    Real faces give 1, requests that have nothing to do with the faces the share of each emotion among them (1/K on
    average), one emotion what the calibrating half's faces of it give, sources that nobody changed 0. Copies of
    training faces reach the ceiling, and must be recognised as copies.
    """
    classes = len(cell.emotions)
    real = cell.real(0)
    calibrating = rates(real.asked, real.read, classes)
    one = Control.of(calibrating[:, _one_emotion(cell), :], calibrating).macro()["control_calibrated"]
    truths = {"control:real": 1.0, "control:one_emotion": float(one), "control:source": 0.0, "control:copies": 1.0}
    for each in known:
        if each.name == "control:shuffled":
            shares = np.bincount(each.verdicts.asked, minlength=classes) / max(len(each.verdicts.asked), 1)
            truths[each.name] = float(average(shares, each.value.counted))
        value = float(each.value.macro()["control_calibrated"])
        spread = _spread(each.draws)
        if each.name == "control:source":
            spread = max(spread, _spread(_as_few_sources(each.verdicts, real, classes)))
        half, truth = _NORMAL * spread, truths[each.name]
        if not np.isfinite([value, half, truth]).all():
            reason = each.drawn.missing("control_calibrated", "macro") if np.isnan(value) else None
            reason = reason or "too few faces to resample"
            yield Check(each.name, cell.row.seed, "calibrated control", None, None, None, reason)
            continue
        high = None if each.name == "control:copies" else truth + half
        yield Check(each.name, cell.row.seed, "calibrated control", value, truth - half, high)
    copied = cell.result["metrics"]["copies"]["memorisation"]["value"]
    if copied is not None:
        yield Check("control:copies", cell.row.seed, "memorisation", copied, MEMORISED, 1.0)


def _spread(draws: Control) -> float:
    """The standard deviation of macro calibrated control; NaN where it is undefined under most resamples."""
    found = draws.macro()["control_calibrated"]
    found = found[np.isfinite(found)]
    return float(found.std()) if len(found) > RESAMPLES / 2 else float("nan")


def _as_few_sources(sources: Verdicts, real: Verdicts, classes: int) -> Control:
    """Unchanged sources, drawn from the calibrating half's faces.

    A judge misreads few faces. Where a handful of sources holds none of these, resampling them shows no spread,
    although others would have been misread.
    """
    random = np.random.default_rng((stats.SEED, 2))
    wanted = np.bincount(sources.asked, minlength=classes)  # each source is asked for every emotion but its own
    shown = len(sources.asked) // (classes - 1) - wanted
    made = unchanged_hits(real, shown, classes, RESAMPLES, random)
    return control(sources, real, classes).under(made, rate_shares(replicates(rate_units(real, classes), "real")))
