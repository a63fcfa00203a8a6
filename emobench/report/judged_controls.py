"""Controls of a panel: faces of which it is known what the judges must say (PROTOCOL.md, 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from emobench.metrics.control import Control, Verdicts, control, rates, resampled, resampled_rates, unchanged_hits
from emobench.report import stats
from emobench.report.board import Check, Entry, Number, base_number
from emobench.report.verdicts import RESAMPLES, Judged, kept, place_of, quantities, whole_samples, with_intervals

MEMORISED = 0.05  # share of copies above which a row is flagged (PROTOCOL.md 3)
_NORMAL = 3.2905  # standard deviations on either side that hold 99.9 % of a normal distribution


def _control_faces(cell: Judged) -> Iterator[tuple[str, str, Verdicts]]:
    """Faces of which it is known what control must say, as (name, track, verdicts)."""
    other = cell.verdicts("real", 1)
    assert other is not None
    classes = len(cell.emotions)
    yield "control:real", "generation", other
    shuffled = np.random.default_rng(stats.SEED).permutation(other.asked)
    yield "control:shuffled", "generation", Verdicts(shuffled, other.read, other.groups)
    first = np.flatnonzero(other.asked == 0)
    people = None if other.groups is None else np.repeat(other.groups[first], classes)
    asked = np.tile(np.arange(classes), len(first))
    yield "control:one_emotion", "generation", Verdicts(asked, np.repeat(other.read[:, first], classes, 1), people)
    copies = cell.verdicts("copies")
    assert copies is not None
    yield "control:copies", "generation", Verdicts(copies.asked, copies.read)
    source = cell.verdicts("source")
    if source is not None:
        yield "control:source", "editing", source


@dataclass(frozen=True)
class Known:
    """What the panel says of faces of which it is known what it must say."""

    name: str
    track: str
    verdicts: Verdicts
    value: Control
    draws: Control  # the same under resampling


def measured(cell: Judged) -> list[Known]:
    """Every control of a panel, calibrated by one half of the test faces and measured on the other."""
    real = cell.verdicts("real", 0)
    assert real is not None
    classes = len(cell.emotions)
    return [
        Known(
            name,
            track,
            verdicts,
            control(verdicts, real, classes),
            resampled(verdicts, real, classes, RESAMPLES, stats.SEED),
        )
        for name, track, verdicts in _control_faces(cell)
    ]


def controls(cell: Judged, known: Sequence[Known], suite: str) -> Iterator[Entry]:
    """The control rows of a board, as entries."""
    classes = len(cell.emotions)
    metrics = cell.result["metrics"]
    for each in known:
        base = _control_base(cell, suite, each.name, each.track)
        both = quantities(cell, each.value), quantities(cell, each.draws)
        n, people = len(each.verdicts.asked), each.verdicts.groups
        groups = n if people is None else len(np.unique(people))
        numbers = list(with_intervals([both], groups, n, classes, base))
        if each.name == "control:copies":
            numbers += whole_samples([metrics["copies"]], base)
        yield _control_entry(cell, each.name, numbers)
    yield _control_entry(
        cell,
        "control:floor",
        whole_samples([metrics["floor"]], _control_base(cell, suite, "control:floor", "generation")),
    )
    if not cell.part("editing").empty:
        base = _control_base(cell, suite, "control:other_person", "editing")
        yield _control_entry(cell, "control:other_person", kept([cell], base, ("identity", "ssim", "lpips"), "_other"))


def _control_base(cell: Judged, suite: str, name: str, track: str) -> Number:
    base = base_number(suite, cell.row, None, [], "")
    return base._replace(model=name, variant="", track=track)


def _control_entry(cell: Judged, name: str, numbers: Iterator[Number] | Sequence[Number]) -> Entry:
    """An entry of real faces: no seed that an interval could leave out."""
    entry = Entry(name, [cell.row])
    entry.numbers = {
        place_of(number): number if number.value is None else number._replace(reason=None) for number in numbers
    }
    return entry


def checks(cell: Judged, known: Sequence[Known]) -> Iterator[Check]:
    """Whether each control says what it must (PROTOCOL.md 4).

    Real faces give 1, requests that have nothing to do with the faces 1/K, one emotion what the calibrating half's
    faces of it give, sources that nobody changed 0. Copies of training faces reach the ceiling, and must be recognised
    as copies.
    """
    classes = len(cell.emotions)
    real = cell.verdicts("real", 0)
    assert real is not None
    calibrating = rates(real.asked, real.read, classes)
    one = Control.of(calibrating[:, 0, :], calibrating).macro()["control_calibrated"]
    truths = {"control:real": 1.0, "control:shuffled": 1 / classes, "control:one_emotion": float(one)}
    truths |= {"control:source": 0.0, "control:copies": 1.0}
    for each in known:
        value = float(each.value.macro()["control_calibrated"])
        if np.isnan(value):
            continue  # no judge tells some emotion apart, or no face was asked for it
        spread = _spread(each.draws)
        if each.name == "control:source":
            spread = max(spread, _spread(_as_few_sources(each.verdicts, real, classes)))
        half = _NORMAL * spread
        truth = truths[each.name]
        high = None if each.name == "control:copies" else truth + half
        yield Check(each.name, cell.row.seed, "calibrated control", value, truth - half, high)
    copied = cell.result["metrics"]["copies"]["memorisation"]["value"]
    if copied is not None:
        yield Check("control:copies", cell.row.seed, "memorisation", copied, MEMORISED, 1.0)


def _spread(draws: Control) -> float:
    """The standard deviation of macro calibrated control."""
    return float(np.nanstd(draws.macro()["control_calibrated"]))


def _as_few_sources(sources: Verdicts, real: Verdicts, classes: int) -> Control:
    """Unchanged sources, drawn from the calibrating half's faces.

    A judge misreads few faces. Where a handful of sources holds none of these, resampling them shows no spread,
    although others would have been misread.
    """
    random = np.random.default_rng((stats.SEED, 2))
    wanted = np.bincount(sources.asked, minlength=classes)  # each source is asked for every emotion but its own
    shown = len(sources.asked) // (classes - 1) - wanted
    made = unchanged_hits(real, shown, classes, RESAMPLES, random)
    return Control.of(made, resampled_rates(real, classes, RESAMPLES, np.random.default_rng((stats.SEED, 0))))
