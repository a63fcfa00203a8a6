"""The judges' verdicts of a cell: read, checked, and made into numbers with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.metrics import intervals as stats
from emobench.metrics.control import (
    Control,
    Shares,
    Verdicts,
    average,
    control,
    hit_shares,
    hit_units,
    hits,
    intensity,
    rate_shares,
    rate_units,
    rates,
)
from emobench.report.board import COSTS, Number
from emobench.report.raw import REMEDY
from emobench.report.readable import listed
from emobench.runner.store import Row

KINDS = {  # track -> the verdicts that its control is counted from
    "generation": "control", "editing": "editing", "stylization": "stylized",
}  # fmt: skip
KEPT = {  # track -> means over its faces
    "generation": (),
    "editing": ("identity", "ssim", "lpips", "truth_psnr", "truth_ssim"),
    "stylization": ("ssim", "content_loss", "style_loss", "total_loss"),
}
RESAMPLES = 1000
NOT_MEASURED = "the comparison has no value"
NO_OTHER = "no other person in the test split shows the emotion"
_SIGNED = ("control_calibrated", "control_corrected", "adversarial_gain")  # may lie outside 0 … 1

Quantities = dict[tuple[str, str, str], Shares]  # (metric, emotion, judge) -> (…)


@dataclass(frozen=True)
class Judged:
    """One cell's verdicts, whole and plausible."""

    row: Row
    emotions: tuple[str, ...]
    table: pd.DataFrame
    panel: tuple[str, ...]  # sha256 of the judges' weights: only equal panels are compared
    known: dict[str, Drawn] = field(default_factory=dict)  # what `drawn` found: a rank asks for it again

    @property
    def result(self) -> dict[str, Any]:
        return self.row.result or {}

    @property
    def judges(self) -> list[str]:
        return [judge["row"] for judge in self.result["panel"]]

    def part(self, kind: str, half: int | None = None) -> pd.DataFrame:
        """The faces of a kind; of real ones perhaps one half of the people."""
        part = self.table[self.table["kind"] == kind]
        return part if half is None else part[part["half"] == half]

    def verdicts(self, kind: str) -> Verdicts | None:
        """What the judges said of the faces of a kind; None: there are none."""
        part = self.part(kind)
        return None if part.empty else self._said(part, "read_")

    def real(self, half: int) -> Verdicts:
        """What they said of the real test faces of one half: 0 calibrates, 1 is a control. It may have no face."""
        return self._said(self.part("real", half), "read_")

    def own_verdicts(self) -> Verdicts | None:
        """What the networks that helped to make the model said of its faces."""
        part = self.part("control")
        return None if part.empty or "self_0" not in part else self._said(part, "self_")

    def _said(self, part: pd.DataFrame, column: str) -> Verdicts:
        names = [name for name in part.columns if name.startswith(column)]
        return Verdicts(part["asked"].to_numpy(np.int64), part[names].to_numpy(np.int64).T, units(part)[1])


def units(part: pd.DataFrame) -> tuple[str, NDArray[np.int64]]:
    """What the faces of one kind share, so that an interval resamples it whole: its name, and (N,) which one.

    People where they are known, else the real faces that are read or edited; of drawn faces the noise seeds, each of
    which is seen with every emotion and every intensity. Results of before seeds were stored hold them in their order:
    of the faces asked for as the same emotion and intensity the n-th has the n-th seed.
    """
    for column, name in (("person", "people"), ("row", "sources"), ("seed", "noise seeds")):
        if column in part and (part[column] >= 0).all():
            real = column == "row" and part["kind"].isin(["real", "copies"]).all()
            return "faces" if real else name, part[column].to_numpy(np.int64)
    order = part.groupby(["asked", "level"])["face"].rank("first")
    return "noise seeds", order.to_numpy(np.int64) - 1


@dataclass(frozen=True)
class Drawn:
    """What the verdicts on some faces say, and the same under resampling.

    Attributes:
        values: () by metric, emotion and judge.
        draws: (R,) the same.
        unit, units: what was resampled, and how many of them there are.
        faces: how many faces were asked for as each emotion.
        gaps: emotion -> why its calibrated control has no value.
    """

    values: Quantities
    draws: Quantities
    unit: str
    units: int
    faces: dict[str, int]
    gaps: dict[str, str]

    @classmethod
    def of(
        cls, cell: Judged, made: Verdicts, unit: str, control: Control, values: Quantities, draws: Quantities
    ) -> Drawn:
        """With what was resampled, and what control cannot say."""
        classes = len(cell.emotions)
        faces, test = (np.bincount(each, minlength=classes) for each in (made.asked, cell.part("real")["asked"]))
        gaps = {}
        for k, emotion in enumerate(cell.emotions):
            if not test[k]:
                gaps[emotion] = "no test face of it"
            elif not faces[k]:
                gaps[emotion] = "no face here was asked for as it"
            elif not control.counted[k]:
                gaps[emotion] = "no test face of it in the half that calibrates"
            elif np.isnan(control.calibrated[k]):
                gaps[emotion] = "no judge tells it apart"
        counts = dict(zip(cell.emotions, faces.tolist(), strict=True))
        return cls(values, draws, unit, len(hit_units(made, classes)), counts, gaps)

    def missing(self, metric: str, emotion: str) -> str | None:
        """Why an emotion has no value, or which emotions a macro average is without."""
        gaps = {name: why for name, why in self.gaps.items() if metric == "control_calibrated" or not self.faces[name]}
        if emotion != "macro":
            return gaps.get(emotion)
        said = {why: listed([name for name in gaps if gaps[name] == why]) for why in gaps.values()}
        return "; ".join(f"{names}: {why}" for why, names in said.items()) or None


def read(row: Row) -> Judged | str:
    """A done cell's verdicts, or what is wrong with them."""
    result = row.result or {}
    path = (row.folder or Path()) / result.get("raw", {}).get("verdicts", "verdicts.parquet")
    try:
        table = pd.read_parquet(path)
        panel = tuple(judge["sha256"] for judge in result["panel"])
        emotions = tuple(result["dataset"]["emotions"])
        found = table[["asked", *(f"read_{place}" for place in range(len(panel)))]].to_numpy()
        if found.size == 0 or found.min() < 0 or found.max() >= len(emotions):
            return f"{path}: no verdicts, or an emotion that the dataset has not. {REMEDY}"
        if not (table["kind"] == "real").any():
            return f"{path}: no verdict on a real test face. {REMEDY}"
        return Judged(row, emotions, table, panel)
    except FileNotFoundError:
        return f"{path}: missing. {REMEDY}"
    except Exception as error:  # whatever a broken file makes Parquet or pandas raise: the board goes on
        return f"{path}: cannot be read ({type(error).__name__}: {error}). {REMEDY}"


def place_of(number: Number) -> tuple[str, str]:
    """Where a number stands in an entry; costs have no track."""
    if number.metric in COSTS and number.metric != "faces_per_s":  # of drawing in one track, of editing in the other
        return number.metric, ""
    return f"{number.track}:{number.metric}{'@' if number.judge else ''}{number.judge}", number.emotion


def drawn(cell: Judged, kind: str) -> Drawn:
    """What a cell's verdicts on generated faces say, with their guides' own and those on what they were made from."""
    if kind in cell.known:
        return cell.known[kind]
    made, classes = cell.verdicts(kind), len(cell.emotions)
    assert made is not None
    unit = units(cell.part(kind))[0]
    # The same people and sources are given to all models, which are so compared in pairs; noise seeds mean nothing
    # outside of one model.
    stream = f"row {cell.row.row}" if unit == "noise seeds" else "sources"
    value, draws = resampled(made, cell.real(0), classes, stream)
    raw: list[Shares | None] = []  # of other verdicts on the same requests, and under the same resampling
    for other in (cell.own_verdicts() if kind == "control" else None, cell.verdicts(f"{kind}_start")):
        raw.append(None if other is None else hits(rates(other.asked, other.read, classes)).mean(-2))
        raw.append(None if other is None else resampled_hits(other, classes, stream).mean(-2))
    both = quantities(cell, value, raw[0], raw[2]), quantities(cell, draws, raw[1], raw[3])
    cell.known[kind] = Drawn.of(cell, made, unit, value, *both)
    return cell.known[kind]


def resampled(
    made: Verdicts, real: Verdicts, classes: int, stream: str, resamples: int = RESAMPLES
) -> tuple[Control, Control]:
    """Control of faces, and (R, …) under resampled groups of them and, for all models alike, of the real faces."""
    value = control(made, real, classes)
    known = rate_shares(replicates(rate_units(real, classes), "real", resamples))
    return value, value.under(resampled_hits(made, classes, stream, resamples), known)


def resampled_hits(made: Verdicts, classes: int, stream: str, resamples: int = RESAMPLES) -> Shares:
    """(R, J, K) `hits` under resampled groups of faces: of each group all faces that share it, whatever the emotion."""
    return hit_shares(replicates(hit_units(made, classes), stream, resamples))


def replicates(units: Shares, stream: str, resamples: int = RESAMPLES) -> Shares:
    """(R, …) sums of resampled units (G, …): the same units in each replicate of a stream, others in other streams.

    `stats.bootstrap` resamples as many units always alike; replicates in an order of their own are independent of it.
    """
    if not len(units):
        return np.zeros((resamples, *units.shape[1:]))
    sums = stats.bootstrap(units.reshape(1, len(units), -1), lambda sums: sums, resamples)[:, 0]
    order = np.random.default_rng([stats.SEED, *stream.encode()]).permutation(resamples)
    return np.asarray(sums[order], np.float64).reshape(resamples, *units.shape[1:])


def quantities(cell: Judged, of: Control, own: Shares | None = None, start: Shares | None = None) -> Quantities:
    """Control by metric, emotion and judge.

    Args:
        own: (…, K) what the networks that helped to make the faces say of them.
        start: (…, K) raw control of what the faces were made from.
    """
    found: Quantities = {}
    whole = {"control": of.raw, "control_min": of.each.min(-2), "control_max": of.each.max(-2)}
    whole["control_calibrated"] = of.calibrated
    if own is not None:
        whole |= {"control_self": own, "adversarial_gain": own - of.raw}
    if start is not None:
        whole["control_start"] = start
    for metric, values in whole.items():
        found |= {(metric, emotion, ""): values[..., k] for k, emotion in enumerate(cell.emotions)}
    each = average(of.each, of.asked)  # (…, J)
    macro = {**of.macro(), "control_min": each.min(-1), "control_max": each.max(-1)}
    if own is not None:
        macro |= {"control_self": average(own, of.asked), "adversarial_gain": average(own, of.asked) - macro["control"]}
    if start is not None:
        macro["control_start"] = average(start, of.asked)
    found |= {(metric, "macro", ""): values for metric, values in macro.items()}
    for place, judge in enumerate(cell.judges):
        found |= {("control", emotion, judge): of.each[..., place, k] for k, emotion in enumerate(cell.emotions)}
        found["control", "macro", judge] = each[..., place]
    return found


def with_intervals(cells: Sequence[Drawn], base: Number, *, trained: bool = True) -> Iterator[Number]:
    """Values and draws of one row's cells as numbers; real faces were not `trained`: no seed is missing."""
    first = cells[0]
    names = list(first.values)
    values = np.stack([np.array([cell.values[name] for name in names], np.float64) for cell in cells])  # (S, Q)
    draws = np.stack([np.stack([cell.draws[name] for name in names], -1) for cell in cells], 1)  # (R, S, Q)
    signed = np.array([name in _SIGNED for name, _, _ in names])
    of = stats.spread(values, draws, first.units)
    bounds = stats.intervals(of, np.where(signed, np.inf, 1.0), np.where(signed, -np.inf, 0.0))
    for (metric, emotion, judge), mean, interval in zip(names, of.mean, bounds, strict=True):
        n = sum(first.faces.values()) if emotion == "macro" else first.faces[emotion]
        number = base._replace(metric=metric, emotion=emotion, judge=judge, n=n)
        missing = first.missing(metric, emotion)
        if np.isnan(mean):
            yield number._replace(reason=missing)
        else:
            number = number._replace(reason=_notes(missing, interval.note if trained else None))
            yield number._replace(value=float(mean), low=interval.low, high=interval.high)


def _notes(without: str | None, other: str | None) -> str | None:
    """What a number leaves out, and what is to be said of its interval."""
    return "; ".join([*([f"without {without}"] if without else []), *([other] if other else [])]) or None


def whole_samples(cells: Sequence[Mapping[str, Any]], base: Number, *, trained: bool = True) -> Iterator[Number]:
    """What belongs to whole samples: mean over seeds, an interval by t from three on, none by resampling faces."""
    for name in dict.fromkeys(name for cell in cells for name in cell):
        each = [cell.get(name) for cell in cells]
        number = base._replace(metric=name, n=None if each[0] is None else each[0]["n"])
        values = np.array([one["value"] for one in each if one is not None and one["value"] is not None])
        if len(values) < len(cells):
            reasons = dict.fromkeys(one["reason"] for one in each if one is not None and one["value"] is None)
            yield number._replace(reason="; ".join(reasons) or "not measured for every seed")
        elif len(values) < stats.SEEDS_NEEDED:
            reason = "order only: fewer than three seeds" if trained else None
            yield number._replace(value=float(values.mean()), reason=reason)
        else:
            half = float(stats.half_width([(np.array(values.var(ddof=1) / len(values)), len(values) - 1)]))
            mean = float(values.mean())
            yield number._replace(value=mean, low=mean - half, high=mean + half)


def kept(cells: Sequence[Judged], base: Number, names: Sequence[str], *, other: bool = False) -> Iterator[Number]:
    """Means over a track's faces, with intervals over the sources' people.

    Args:
        other: what is compared is not the result but a random other person with the emotion. Where the test split has
            none, there is no value, and the mean is over the others.
    """
    suffix = "_other" if other else ""
    parts = [cell.part(KINDS[base.track]) for cell in cells]
    columns = [name for name in names if all(name + suffix in part for part in parts)]
    there = [name for name in columns if all(part[name + suffix].notna().any() for part in parts)]
    if there:
        group = np.unique(units(parts[0])[1], return_inverse=True)[1]
        faces = np.stack([part[[name + suffix for name in there]].to_numpy(np.float64) for part in parts])  # (S, N, Q)
        known = ~np.isnan(faces)
        sums = stats.grouped(np.concatenate([np.nan_to_num(faces), known], -1), group)

        def statistic(sums: stats.Floats) -> stats.Floats:
            total, count = np.split(sums, 2, axis=-1)
            return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

        of = stats.spread(statistic(sums.sum(1)), stats.bootstrap(sums, statistic), sums.shape[1])
        bounds = stats.intervals(of, None, -np.inf)
        for name, mean, n, interval in zip(there, of.mean, known.sum(1).min(0), bounds, strict=True):
            gone = faces.shape[1] - n
            without = f"{gone:,} of {faces.shape[1]:,} faces: {NO_OTHER if other else NOT_MEASURED}" if gone else None
            number = base._replace(metric=name, n=int(n), reason=_notes(without, None if other else interval.note))
            yield number._replace(value=float(mean), low=interval.low, high=interval.high)
    why = {"identity": "no embedding: [evaluation] identity names an ONNX file"}
    why["lpips"] = "no weights: [evaluation] lpips names torchvision's VGG16"
    why |= dict.fromkeys(columns, NO_OTHER if other else NOT_MEASURED)
    for name in names:
        if name in why and name not in there:
            yield base._replace(metric=name, n=len(parts[0]), reason=why[name])


def probability(cell: Judged, part: pd.DataFrame) -> NDArray[np.float64]:
    """(N,) how probable the panel finds what was asked for."""
    return np.asarray(part[[f"p_{place}" for place in range(len(cell.panel))]].to_numpy(np.float64).mean(1))


def intensities(cell: Judged, part: pd.DataFrame) -> tuple[Shares, Shares, int]:
    """Monotonicity and slope over intensity (2,), the same under resampled noise seeds (R, 2), and how many these are.

    Of a seed all its faces are resampled together: those of every emotion at every intensity.
    """
    probable, levels = probability(cell, part), part["level"].to_numpy(np.float64)
    seeds = np.unique(units(part)[1], return_inverse=True)[1]
    faces = np.equal.outer(np.arange(seeds.max() + 1), seeds).astype(np.float32)  # (G, N): a seed adds its faces
    draws = stats.bootstrap(faces[None], lambda counts: np.stack(intensity(probable, levels, counts), -1), RESAMPLES)
    return np.stack(intensity(probable, levels)), draws[:, 0], len(faces)
