"""What the tracks that a panel judges share: its answers on every face, control under resampling, the panel's controls.

Shapes: R bootstrap replicates, J judges, K emotions, N faces, G groups of faces that are resampled together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.errors import RawError
from emobench.evaluation.protocol import MEMORISED
from emobench.evaluation.tracks.track import (
    Check,
    ControlRow,
    Estimates,
    Floats,
    Key,
    MeasuredCell,
    Metric,
    Name,
    Track,
    listed,
    means,
    table_of,
)
from emobench.metrics import intervals
from emobench.metrics.control import (
    LEAST_SKILL,
    Control,
    Shares,
    Verdicts,
    average,
    control,
    false_rates,
    hit_shares,
    hit_units,
    hits,
    intensity,
    rate_shares,
    rate_units,
    rates,
    unchanged_hits,
)

REPLICATES = 1000
MOST_REPLICATES = 25_000  # where a p-value lies near the limit: some seconds for two rows of three seeds
SIGNED = ("control_calibrated", "control_corrected", "adversarial_gain")  # may lie outside 0 … 1
_OF_PANEL = ("control", "control_min", *SIGNED)  # what the panel's reading decides
CALIBRATED = (
    "Control, calibrated, is no share: the judges' own errors on real faces are taken off, so that real faces score 1, "
    "and faces that are easier to read than real ones more."
)
_COUNTED = ("face", "row", "person", "half", "level")  # columns that every face has a number in
WHAT = "calibrated control"  # what the panel's controls are checked by
LEAST_SCORE = 1.05  # ES of real faces; a reader below it gives nearly the same answer to all
NORMAL = 3.2905  # standard deviations on either side that hold 99.9 % of a normal distribution

Numbers = dict[Key, Shares]  # values () or replicates (R,)


@dataclass(frozen=True)
class JudgedFaces:
    """What the judges read in every face of one cell."""

    cell: MeasuredCell
    table: pd.DataFrame

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.cell.emotions

    @property
    def judges(self) -> list[str]:
        return [name for name, _ in self.cell.panel]

    def part(self, kind: str, half: int | None = None) -> pd.DataFrame:
        """The faces of a kind; of real ones perhaps one half of the people."""
        part = self.table[self.table["kind"] == kind]
        return part if half is None else part[part["half"] == half]

    def verdicts(self, kind: str) -> Verdicts | None:
        """What the judges said of the faces of a kind; None: there are none."""
        part = self.part(kind)
        return None if part.empty else _said(part, "read_")

    def real(self, half: int) -> Verdicts:
        """What they said of the real test faces of one half: 0 calibrates, 1 is a control. It may have no face."""
        return _said(self.part("real", half), "read_")

    def own_verdicts(self) -> Verdicts | None:
        """What the networks that helped to make the model said of its faces."""
        part = self.part("control")
        return None if part.empty or "self_0" not in part else _said(part, "self_")


def _said(part: pd.DataFrame, column: str) -> Verdicts:
    names = [name for name in part.columns if name.startswith(column)]
    return Verdicts(part["asked"].to_numpy(np.int64), part[names].to_numpy(np.int64).T, units(part)[1])


def read(cell: MeasuredCell) -> JudgedFaces:
    """A finished cell's verdicts.

    Raises:
        RawError: they are missing, broken or implausible.
    """
    with table_of(cell.path) as table:
        if (wrong := _no_numbers(table)) is not None:
            raise ValueError(f"{wrong} is missing, or holds no numbers")
        found = table[["asked", *(f"read_{place}" for place in range(len(cell.panel)))]].to_numpy()
    if found.size == 0 or found.min() < 0 or found.max() >= len(cell.emotions):
        raise RawError(cell.path, "no verdicts, or an emotion that the dataset has not")
    if not (table["kind"] == "real").any():
        raise RawError(cell.path, "no verdict on a real test face")
    return JudgedFaces(cell, table)


def _no_numbers(table: pd.DataFrame) -> str | None:
    """A column of verdicts that is missing or holds something else than numbers; None: all are as they should be."""
    for name in ("kind", *_COUNTED, *(each for each in table.columns if each not in ("kind", *_COUNTED))):
        if name not in table:
            return name
        numeric = name == "kind" or pd.api.types.is_numeric_dtype(table[name])
        if not numeric or (name in _COUNTED and not np.isfinite(table[name]).all()):
            return name
    return None


def units(part: pd.DataFrame) -> tuple[str, NDArray[np.int64]]:
    """What the faces of one kind share, so that an interval resamples it whole: its name, and (N,) which one.

    People where they are known, else the real faces that are read or edited; of drawn faces the noise seeds, each of
    which is seen with every emotion and every intensity. Results of before seeds were stored hold them in their order:
    of the faces asked for as the same emotion and intensity the n-th has the n-th seed.
    """
    for column, name in _UNITS:
        if column in part and (part[column] >= 0).all():
            real = column == "row" and part["kind"].isin(["real", "copies"]).all()
            return "faces" if real else name, part[column].to_numpy(np.int64)
    order = part.groupby(["asked", "level"])["face"].rank("first")
    return "noise seeds", order.to_numpy(np.int64) - 1


_UNITS = (("sentence", "sentences"), ("person", "people"), ("row", "sources"), ("seed", "noise seeds"))


# Control


class PanelTrack(Track):
    """A track whose faces a panel judges."""

    headline = Key("control", "macro")
    most_resamples = MOST_REPLICATES
    judged: ClassVar[str]  # the kind of faces by whose control models are ranked

    by_emotion = (("control", "control, raw"), ("control_calibrated", "control, calibrated"))

    def read(self, cell: MeasuredCell) -> JudgedFaces:
        return read(cell)

    def same(self, faces: JudgedFaces) -> object:
        """The protocol, the emotions and the panel."""
        return faces.cell.same, faces.emotions, tuple(sha256 for _, sha256 in faces.cell.panel)

    def panel_confusions(self, faces: JudgedFaces) -> Sequence[Floats]:
        real = faces.verdicts("real")
        assert real is not None  # `read` has seen to it
        return list(rates(real.asked, real.read, len(faces.emotions)))

    def redrawn(self, cells: Sequence[JudgedFaces], key: Key, resamples: int) -> Floats:
        found = []
        for faces in cells:
            made, stream = faces.verdicts(self.judged), _units_and_stream(faces, self.judged)[1]
            assert made is not None
            _, draws = resampled(made, faces.real(0), len(faces.emotions), stream, resamples)
            found.append(np.asarray(draws.macro()[key.metric], np.float64))
        return np.stack(found, 1)

    def blind(self, faces: JudgedFaces, checks: Sequence[Check]) -> dict[str, str]:
        """By what a blind panel or a blind reader says nobody is ranked; FID needs neither."""
        failing = [check for check in checks if check.what == WHAT and not check.passed and not check.follows]
        by_finding = {check.found: [each.name for each in failing if each.found == check.found] for check in failing}
        panel = [*blind_judges(faces), *(f"{_all_of(names)}: {found}" for found, names in by_finding.items())]
        found: dict[str, str] = {}
        if panel:
            remedy = "Train the judges longer, or name others"
            found |= dict.fromkeys(_OF_PANEL, f"the panel cannot judge these faces: {'; '.join(panel)}. {remedy}")
        score = faces.cell.references.get("floor", {}).get("es")
        if score is not None and score.value is not None and score.value < LEAST_SCORE:
            reads = f"its ES of real test faces is {score.value:.3f}, and 1 is that of a reader with one answer for all"
            found |= dict.fromkeys(
                ("fed", "es"), f"the reader cannot read these faces: {reads}. Train it longer, or name another"
            )
        return found

    def calibrating(self, faces: JudgedFaces) -> tuple[int, str]:
        unit, which = units(faces.part("real", 0))
        return len(np.unique(which)), unit

    def notes(self, cells: Mapping[str, Any]) -> list[tuple[str | Name, ...]]:
        """What calibrated control is, and which rows make faces of another size."""
        other = {row: of.evaluation.own_size for row, of in cells.items()}
        sizes = [(Name(row), f" {size} px") for row, size in other.items() if size not in (None, cells[row].cell.size)]
        resized: list[tuple[str | Name, ...]] = [("Made at another size and resized: ", *listed(sizes), ".")]
        return [(CALIBRATED,), *(resized if sizes else [])]


def control_of(faces: JudgedFaces, kind: str) -> Estimates:
    """Control on the faces of a kind, with what their guides say of them and that of what they were made from."""
    made, classes = faces.verdicts(kind), len(faces.emotions)
    assert made is not None
    unit, stream = _units_and_stream(faces, kind)
    value, draws = resampled(made, faces.real(0), classes, stream)
    raw: list[Shares | None] = []  # of other verdicts on the same requests, and under the same resampling
    for other in (faces.own_verdicts() if kind == "control" else None, faces.verdicts(f"{kind}_start")):
        raw.append(None if other is None else hits(rates(other.asked, other.read, classes)).mean(-2))
        raw.append(None if other is None else resampled_hits(other, classes, stream).mean(-2))
    both = numbers_of(faces, value, raw[0], raw[2]), numbers_of(faces, draws, raw[1], raw[3])
    return _estimates(faces, made, unit, value, *both)


def _units_and_stream(faces: JudgedFaces, kind: str) -> tuple[str, str]:
    """What is resampled, and which resamples.

    The same people and sources are given to all models, which are so compared in pairs; noise seeds mean nothing
    outside of one model.
    """
    unit = units(faces.part(kind))[0]
    return unit, f"row {faces.cell.row}" if unit == "noise seeds" else "sources"


def resampled(
    made: Verdicts, real: Verdicts, classes: int, stream: str, resamples: int = REPLICATES
) -> tuple[Control, Control]:
    """Control of faces, and (R, …) under resampled groups of them and, for all models alike, of the real faces."""
    value = control(made, real, classes)
    known = rate_shares(replicates(rate_units(real, classes), "real", resamples))
    return value, value.under(resampled_hits(made, classes, stream, resamples), known)


def resampled_hits(made: Verdicts, classes: int, stream: str, resamples: int = REPLICATES) -> Shares:
    """(R, J, K) `hits` under resampled groups of faces: of each group all faces that share it, whatever the emotion."""
    return hit_shares(replicates(hit_units(made, classes), stream, resamples))


def replicates(of: Shares, stream: str, resamples: int = REPLICATES) -> Shares:
    """(R, …) sums of resampled units (G, …): the same units in each replicate of a stream, others in other streams.

    `intervals.bootstrap` resamples as many units always alike; replicates in an order of their own are independent.
    """
    if not len(of):
        return np.zeros((resamples, *of.shape[1:]))
    sums = intervals.bootstrap(of.reshape(1, len(of), -1), lambda sums: sums, resamples)[:, 0]
    random = np.random.default_rng([intervals.SEED, *stream.encode()])
    starts = range(0, resamples, REPLICATES)  # in parts, so that more replicates begin with the same ones
    order = np.concatenate([start + random.permutation(min(REPLICATES, resamples - start)) for start in starts])
    return np.asarray(sums[order], np.float64).reshape(resamples, *of.shape[1:])


def numbers_of(faces: JudgedFaces, of: Control, own: Shares | None = None, start: Shares | None = None) -> Numbers:
    """Control by metric, emotion and judge.

    Args:
        own: (…, K) what the networks that helped to make the faces say of them.
        start: (…, K) raw control of what the faces were made from.
    """
    whole = {"control": of.raw, "control_min": of.each.min(-2), "control_max": of.each.max(-2)}
    whole["control_calibrated"] = of.calibrated
    if own is not None:
        whole |= {"control_self": own, "adversarial_gain": own - of.raw}
    if start is not None:
        whole["control_start"] = start
    found: Numbers = {}
    for metric, values in whole.items():
        found |= {Key(metric, emotion): values[..., k] for k, emotion in enumerate(faces.emotions)}
    each = average(of.each, of.asked)  # (…, J)
    macro = {**of.macro(), "control_min": each.min(-1), "control_max": each.max(-1)}
    if own is not None:
        macro |= {"control_self": average(own, of.asked), "adversarial_gain": average(own - of.raw, of.asked)}
    if start is not None:
        macro["control_start"] = average(start, of.asked)
    found |= {Key(metric, "macro"): values for metric, values in macro.items()}
    for place, judge in enumerate(faces.judges):
        found |= {Key("control", emotion, judge): of.each[..., place, k] for k, emotion in enumerate(faces.emotions)}
        found[Key("control", "macro", judge)] = each[..., place]
    return found


def _estimates(
    faces: JudgedFaces, made: Verdicts, unit: str, value: Control, values: Numbers, draws: Numbers
) -> Estimates:
    keys = tuple(values)
    counts = np.bincount(made.asked, minlength=len(faces.emotions))
    of = dict(zip(faces.emotions, counts.tolist(), strict=True)) | {"macro": len(made.asked)}
    signed = np.array([key.metric in SIGNED for key in keys])
    groups = len(hit_units(made, len(faces.emotions)))
    gaps = gaps_of(faces, made, value)
    return Estimates(
        keys,
        np.array([values[key] for key in keys], np.float64),
        np.stack([draws[key] for key in keys], -1),
        groups,
        unit,
        tuple(of[key.emotion] for key in keys),
        np.where(signed, -np.inf, 0.0),
        np.where(signed, np.inf, 1.0),
        tuple(_without(gaps, of, key) for key in keys),
        np.array([groups if key.emotion == "macro" else min(groups, of[key.emotion]) for key in keys], np.float64),
    )


def gaps_of(faces: JudgedFaces, made: Verdicts, value: Control) -> dict[str, str]:
    """Emotion -> why its calibrated control has no value."""
    classes = len(faces.emotions)
    asked, test = (np.bincount(each, minlength=classes) for each in (made.asked, faces.part("real")["asked"]))
    gaps = {}
    for k, emotion in enumerate(faces.emotions):
        if not test[k]:
            gaps[emotion] = "no test face of it"
        elif not asked[k]:
            gaps[emotion] = "no face here was asked for as it"
        elif not value.counted[k]:
            gaps[emotion] = "no test face of it in the half that calibrates"
        elif np.isnan(value.calibrated[k]):
            gaps[emotion] = "no judge tells it apart"
    return gaps


def _without(gaps: dict[str, str], asked: dict[str, int], key: Key) -> str | None:
    """Why an emotion has no value, or which emotions a macro average is without."""
    mine = {name: why for name, why in gaps.items() if key.metric == "control_calibrated" or not asked[name]}
    if key.emotion != "macro":
        return mine.get(key.emotion)
    by_reason = {why: [name for name in mine if mine[name] == why] for why in mine.values()}
    return "; ".join(f"{_all_of(names)}: {why}" for why, names in by_reason.items()) or None


def _all_of(names: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# Means over faces, and intensity


def means_of(faces: JudgedFaces, kind: str, metrics: Sequence[Metric], *, other: bool = False) -> Estimates | None:
    """Means of metrics over the faces of a kind, see `means`; None where there are no such metrics."""
    part = faces.part(kind)
    unit, which = units(part)
    wanted = [metric for metric in metrics if metric.of_others or not other]
    return means(part, np.unique(which, return_inverse=True)[1], unit, wanted, other=other) if wanted else None


def intensity_of(faces: JudgedFaces) -> Estimates | None:
    """Monotonicity and slope over the intensity asked for; None where no face was asked for at an intensity.

    Of a seed all its faces are resampled together: those of every emotion at every intensity.
    """
    part = faces.part("intensity")
    if part.empty:
        return None
    probable, levels = probability(faces, part), part["level"].to_numpy(np.float64)
    seeds = np.unique(units(part)[1], return_inverse=True)[1]
    adds = np.equal.outer(np.arange(seeds.max() + 1), seeds).astype(np.float32)  # (G, N): a seed adds its faces
    draws = intervals.bootstrap(
        adds[None], lambda counts: np.stack(intensity(probable, levels, counts), -1), REPLICATES
    )
    values = np.stack(intensity(probable, levels))
    reason = "the faces do not change with the intensity"
    return Estimates(
        (Key("intensity_spearman"), Key("intensity_slope")),
        values,
        draws[:, 0],
        len(adds),
        units(part)[0],
        (len(part), len(part)),
        np.array([-1.0, -np.inf]),
        np.array([1.0, np.inf]),
        tuple(reason if np.isnan(value) else None for value in values),
    )


def probability(faces: JudgedFaces, part: pd.DataFrame) -> Floats:
    """(N,) how probable the panel finds what was asked for."""
    names = [f"p_{place}" for place in range(len(faces.judges))]
    return np.asarray(part[names].to_numpy(np.float64).mean(1))


# Whether a panel can judge


def blind_judges(faces: JudgedFaces) -> list[str]:
    """Why a panel cannot judge a dataset, from what it reads in real test faces; empty: it can.

    Fewer than two judges read better than chance (balanced accuracy, lower end of its 95 % interval), or no judge tells
    some emotion apart (recall minus false rate below `LEAST_SKILL`) that the calibrating test faces show.
    """
    real, calibrating, classes = faces.verdicts("real"), faces.real(0), len(faces.emotions)
    assert real is not None  # `read` has seen to it
    known = rates(real.asked, real.read, classes)
    accuracy = np.nanmean(hits(known), -1)  # (J,)
    drawn = np.nanmean(hits(rate_shares(replicates(rate_units(real, classes), "real"))), -1)  # (R, J)
    chance = 1 / len(np.unique(real.asked))
    able = np.nanquantile(drawn, 0.025, axis=0) > chance
    found = []
    if able.sum() < 2:
        read = ", ".join(f"{name} {value:.3f}" for name, value in zip(faces.judges, accuracy, strict=True))
        found.append(
            f"{('no judge', 'only one judge')[int(able.sum())]} reads real test faces better than chance "
            f"({chance:.3f}) by its interval: balanced accuracy of {read}"
        )
    known = rates(calibrating.asked, calibrating.read, classes)
    skill = hits(known) - false_rates(known)  # (J, K)
    told = [bool(np.any(skill[:, k] >= LEAST_SKILL)) for k in range(classes)]
    unread = [faces.emotions[k] for k in np.unique(calibrating.asked) if not told[k]]
    which = "any emotion" if not any(told) else " or ".join(unread)
    return [*found, *([f"no judge tells {which} apart"] if unread else [])]


# Controls of a panel: faces of which it is known what the judges must say


@dataclass(frozen=True)
class Known:
    """What the panel says of faces of which it is known what it must say."""

    name: str
    verdicts: Verdicts
    value: Control
    draws: Control  # the same under resampling
    estimates: Estimates


def known_faces(faces: JudgedFaces, kinds: Sequence[str]) -> list[Known]:
    """Controls of a panel, calibrated by one half of the test faces and measured on the other.

    Args:
        kinds: those of real faces that were judged: "copies" and "source"; the others need no faces of their own.
    """
    found = []
    for name, unit, verdicts in _control_faces(faces, kinds):
        value, draws = resampled(verdicts, faces.real(0), len(faces.emotions), name)
        both = numbers_of(faces, value), numbers_of(faces, draws)
        found.append(Known(name, verdicts, value, draws, _estimates(faces, verdicts, unit, value, *both)))
    return found


def _control_faces(faces: JudgedFaces, kinds: Sequence[str]) -> Iterator[tuple[str, str, Verdicts]]:
    """Faces of which it is known what control must say, as (name, unit of resampling, verdicts)."""
    if "copies" in kinds:
        other, unit = faces.real(1), units(faces.part("real"))[0]
        classes = len(faces.emotions)
        yield "control:real", unit, other
        shuffled = np.random.default_rng(intervals.SEED).permutation(np.array(other.asked))
        yield "control:shuffled", unit, Verdicts(shuffled, other.read, other.groups)
        first = np.flatnonzero(other.asked == _one_emotion(faces))
        people = None if other.groups is None else np.repeat(other.groups[first], classes)
        asked = np.tile(np.arange(classes), len(first))
        yield "control:one_emotion", unit, Verdicts(asked, np.repeat(other.read[:, first], classes, 1), people)
    for kind in kinds:
        verdicts = faces.verdicts(kind)
        if verdicts is not None:
            yield f"control:{kind}", units(faces.part(kind))[0], verdicts


def _one_emotion(faces: JudgedFaces) -> int:
    """The first emotion with test faces in both halves, which stands for all that are asked for; −1: there is none."""
    both = np.intersect1d(faces.real(0).asked, faces.real(1).asked)
    return int(both.min(initial=len(faces.emotions))) if len(both) else -1


def checked(faces: JudgedFaces, known: Sequence[Known]) -> list[ControlRow]:
    """The controls as rows, each with whether it says what it must (see docs/protocol.md, Controls).

    Real faces give 1, requests that have nothing to do with the faces the share of each emotion among them (1/K on
    average), one emotion what the calibrating half's faces of it give, sources that nobody changed 0. Copies of
    training faces reach the ceiling, and must be recognised as copies.
    """
    rows = []
    for each in known:
        checks = [_check(faces, each)]
        values = faces.cell.references.get(each.name.removeprefix("control:"), {})
        copied = values["memorisation"].value if "memorisation" in values else None
        if copied is not None:
            checks.append(Check(each.name, faces.cell.seed, "memorisation", copied, MEMORISED, 1.0))
        rows.append(ControlRow(each.name, [each.estimates], values, checks))
    empty = any(check.value is None for row in rows for check in row.checks)
    if not empty or not blind_judges(faces):
        return rows
    follow = [[replace(check, follows=check.value is None) for check in row.checks] for row in rows]
    return [replace(row, checks=checks) for row, checks in zip(rows, follow, strict=True)]


def _check(faces: JudgedFaces, known: Known) -> Check:
    value = float(known.value.macro()["control_calibrated"])
    half = NORMAL * _spread(known.draws)
    if known.name == "control:source":
        half = max(half, NORMAL * _spread(_as_few_sources(known.verdicts, faces.real(0), len(faces.emotions))))
    truth = _truth(faces, known)
    if not np.isfinite([value, half, truth]).all():
        place = known.estimates.keys.index(Key("control_calibrated", "macro"))
        reason = known.estimates.notes[place] if np.isnan(value) else None
        reason = reason or "too few faces to resample"
        there = len(known.verdicts.asked) > 1
        return Check(known.name, faces.cell.seed, WHAT, None, None, None, reason, possible=there)
    high = None if known.name == "control:copies" else truth + half
    return Check(known.name, faces.cell.seed, WHAT, value, truth - half, high)


def _truth(faces: JudgedFaces, known: Known) -> float:
    """The calibrated control that these faces have."""
    classes = len(faces.emotions)
    if known.name == "control:shuffled":
        shares = np.bincount(known.verdicts.asked, minlength=classes) / max(len(known.verdicts.asked), 1)
        return float(average(shares, known.value.counted))
    if known.name == "control:one_emotion":
        real = faces.real(0)
        calibrating = rates(real.asked, real.read, classes)
        one = Control.of(calibrating[:, _one_emotion(faces), :], calibrating)
        return float(one.macro()["control_calibrated"])
    return {"control:real": 1.0, "control:source": 0.0, "control:copies": 1.0}[known.name]


def _spread(draws: Control) -> float:
    """The standard deviation of macro calibrated control; NaN where it is undefined under most resamples."""
    found = draws.macro()["control_calibrated"]
    found = found[np.isfinite(found)]
    return float(found.std()) if len(found) > REPLICATES / 2 else float("nan")


def _as_few_sources(sources: Verdicts, real: Verdicts, classes: int) -> Control:
    """Unchanged sources, drawn from the calibrating half's faces.

    A judge misreads few faces. Where a handful of sources holds none of these, resampling them shows no spread,
    although others would have been misread.
    """
    random = np.random.default_rng((intervals.SEED, 2))
    wanted = np.bincount(sources.asked, minlength=classes)  # each source is asked for every emotion but its own
    shown = len(sources.asked) // (classes - 1) - wanted
    made = unchanged_hits(real, shown, classes, REPLICATES, random)
    return control(sources, real, classes).under(made, rate_shares(replicates(rate_units(real, classes), "real")))
