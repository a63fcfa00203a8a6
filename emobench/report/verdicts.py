"""The judges' verdicts of a cell: read, checked, and made into numbers with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.bench.store import Row
from emobench.metrics.control import Control, Shares, Verdicts, control, resampled
from emobench.report import stats
from emobench.report.board import COSTS, Number
from emobench.report.raw import REMEDY

KINDS = {  # track -> the verdicts that its control is counted from
    "generation": "control", "editing": "editing", "stylization": "stylized",
}  # fmt: skip
KEPT = {  # track -> means over its faces
    "generation": (),
    "editing": ("identity", "ssim", "lpips", "truth_psnr", "truth_ssim"),
    "stylization": ("ssim", "content_loss", "style_loss", "total_loss"),
}
RESAMPLES = 1000
_SIGNED = ("control_calibrated", "control_corrected", "adversarial_gain")  # may lie outside 0 … 1

Quantities = dict[tuple[str, str, str], Shares]  # (metric, emotion, judge) -> (…)


@dataclass(frozen=True)
class Judged:
    """One cell's verdicts, whole and plausible."""

    row: Row
    emotions: tuple[str, ...]
    table: pd.DataFrame
    panel: tuple[str, ...]  # sha256 of the judges' weights: only equal panels are compared
    known: dict[str, Any] = field(default_factory=dict)  # what `drawn` found: a rank asks for it again

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

    def verdicts(self, kind: str, half: int | None = None) -> Verdicts | None:
        """What the judges said of them."""
        part = self.part(kind, half)
        if part.empty:
            return None
        read = np.stack([part[f"read_{place}"].to_numpy(np.int64) for place in range(len(self.panel))])
        return Verdicts(part["asked"].to_numpy(np.int64), read, _people(part))

    def own_verdicts(self) -> Verdicts | None:
        """What the networks that helped to make the model said of its faces."""
        part = self.part("control")
        names = [name for name in part.columns if name.startswith("self_")]
        if part.empty or not names:
            return None
        return Verdicts(part["asked"].to_numpy(np.int64), part[names].to_numpy(np.int64).T)


def _people(part: pd.DataFrame) -> NDArray[np.int64] | None:
    """(N,) the person of each face, or the source of each edit where people are not known; None: a drawn face."""
    people, sources = part["person"].to_numpy(np.int64), part["row"].to_numpy(np.int64)
    if (people >= 0).all():
        return people
    return sources if (sources >= 0).all() else None


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


def drawn(cell: Judged, kind: str) -> tuple[Quantities, Quantities, int]:
    """What a cell's verdicts say, the same under resampling, and how many units were resampled."""
    if kind in cell.known:
        return cell.known[kind]  # type: ignore[no-any-return]
    made, real = cell.verdicts(kind), cell.verdicts("real", 0)
    assert made is not None
    assert real is not None
    classes = len(cell.emotions)
    # Edits and stylized faces are compared on the same sources; faces of two generators share nothing.
    name = cell.row.row if kind == "control" else ""
    stream = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    value, draws = control(made, real, classes), resampled(made, real, classes, RESAMPLES, stats.SEED, stream)
    own_value = own_draws = None
    if kind == "control" and (own := cell.own_verdicts()) is not None:
        own_value = control(own, Verdicts(real.asked, real.read[:1]), classes).raw
        single = Verdicts(real.asked, real.read[:1], real.groups)
        own_draws = resampled(own, single, classes, RESAMPLES, stats.SEED, stream).raw
    start_value = start_draws = None
    if (start := cell.verdicts(f"{kind}_start")) is not None:
        start_value = control(start, real, classes).raw
        start_draws = resampled(start, real, classes, RESAMPLES, stats.SEED, stream).raw
    groups = len(made.asked) if made.groups is None else len(np.unique(made.groups))
    found = quantities(cell, value, own_value, start_value), quantities(cell, draws, own_draws, start_draws)
    cell.known[kind] = *found, groups
    return cell.known[kind]  # type: ignore[no-any-return]


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
    each = of.each.mean(-1)  # (…, J)
    macro = {**of.macro(), "control_min": each.min(-1), "control_max": each.max(-1)}
    if own is not None:
        macro |= {"control_self": own.mean(-1), "adversarial_gain": own.mean(-1) - of.raw.mean(-1)}
    if start is not None:
        macro["control_start"] = start.mean(-1)
    found |= {(metric, "macro", ""): values for metric, values in macro.items()}
    for place, judge in enumerate(cell.judges):
        found |= {("control", emotion, judge): of.each[..., place, k] for k, emotion in enumerate(cell.emotions)}
        found["control", "macro", judge] = each[..., place]
    return found


def with_intervals(
    cells: Sequence[tuple[Quantities, Quantities]], groups: int, n: int, classes: int, base: Number
) -> Iterator[Number]:
    """Values and draws of one row's cells as numbers."""
    names = list(cells[0][0])
    values = np.stack([np.array([value[name] for name in names], np.float64) for value, _ in cells])  # (S, Q)
    draws = np.stack([np.stack([drawn[name] for name in names], -1) for _, drawn in cells], 1)  # (R, S, Q)
    signed = np.array([name in _SIGNED for name, _, _ in names])
    of = stats.spread(values, draws, groups)
    bounds = stats.intervals(of, np.where(signed, np.inf, 1.0), np.where(signed, -np.inf, 0.0))
    for (metric, emotion, judge), mean, interval in zip(names, of.mean, bounds, strict=True):
        count = n if emotion == "macro" else n // classes
        number = base._replace(metric=metric, emotion=emotion, judge=judge, n=count)
        if np.isnan(mean):
            yield number._replace(reason="no judge tells this emotion apart")
        else:
            yield number._replace(value=float(mean), low=interval.low, high=interval.high, reason=interval.note)


def whole_samples(cells: Sequence[Mapping[str, Any]], base: Number) -> Iterator[Number]:
    """What belongs to whole samples: mean over seeds, an interval by t from three on, none by resampling faces."""
    for name in dict.fromkeys(name for cell in cells for name in cell):
        each = [cell.get(name) for cell in cells]
        number = base._replace(metric=name, n=None if each[0] is None else each[0]["n"])
        values = np.array([one["value"] for one in each if one is not None and one["value"] is not None])
        if len(values) < len(cells):
            reasons = dict.fromkeys(one["reason"] for one in each if one is not None and one["value"] is None)
            yield number._replace(reason="; ".join(reasons) or "not measured for every seed")
        elif len(values) < stats.SEEDS_NEEDED:
            yield number._replace(value=float(values.mean()), reason="order only: fewer than three seeds")
        else:
            half = float(stats.half_width([(np.array(values.var(ddof=1) / len(values)), len(values) - 1)]))
            mean = float(values.mean())
            yield number._replace(value=mean, low=mean - half, high=mean + half)


def kept(cells: Sequence[Judged], base: Number, names: Sequence[str], suffix: str = "") -> Iterator[Number]:
    """Means over a track's faces, with intervals over the sources' people."""
    parts = [cell.part(KINDS[base.track]) for cell in cells]
    there = [
        name for name in names if all(name + suffix in part and part[name + suffix].notna().all() for part in parts)
    ]
    if there:
        people = _people(parts[0])
        group = None if people is None else np.unique(people, return_inverse=True)[1]
        faces = np.stack([part[[name + suffix for name in there]].to_numpy(np.float64) for part in parts])  # (S, N, Q)
        units = stats.grouped(np.concatenate([faces, np.ones_like(faces[..., :1])], -1), group)

        def statistic(sums: stats.Floats) -> stats.Floats:
            return np.asarray(sums[..., :-1] / sums[..., -1:])

        of = stats.spread(statistic(units.sum(1)), stats.bootstrap(units, statistic), units.shape[1])
        for name, mean, interval in zip(there, of.mean, stats.intervals(of, None, -np.inf), strict=True):
            number = base._replace(metric=name, n=faces.shape[1], reason=interval.note)
            yield number._replace(value=float(mean), low=interval.low, high=interval.high)
    why = {"identity": "no embedding: [evaluation] identity names an ONNX file"}
    why["lpips"] = "no weights: [evaluation] lpips names torchvision's VGG16"
    for name in names:
        if name in why and name not in there:
            yield base._replace(metric=name, n=len(parts[0]), reason=why[name])


def probability(cell: Judged, part: pd.DataFrame) -> NDArray[np.float64]:
    """(N,) how probable the panel finds what was asked for."""
    return np.asarray(part[[f"p_{place}" for place in range(len(cell.panel))]].to_numpy(np.float64).mean(1))
