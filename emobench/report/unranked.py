"""Flags of models that emobench did not train, and which of them keep a row from being ranked."""

from __future__ import annotations

from collections.abc import Sequence

from emobench.runner.record import Outside
from emobench.runner.store import StoredCell

OUTSIDE = "outside"  # flags
NOT_KNOWN = "training data not known"
EXCHANGED = "labels exchanged?"
NOT_CHECKABLE = "order not checkable"
PARTIAL = "partial"
FEW = "few pictures"
MEANINGS: dict[str, tuple[str, ...]] = {
    OUTSIDE: ("emobench did not train it: what it saw is what its author says.",),
    NOT_KNOWN: ("nobody says what it was trained on, perhaps on these test faces: it takes no rank.",),
    EXCHANGED: ("on held-out faces it is better under another order of its classes: it takes no rank.",),
    NOT_CHECKABLE: ("an exchange of two of its classes would be noticed in less than half of all cases.",),
    FEW: ("fewer faces than are asked for, so that FID and FED are biased: it takes no rank.",),
    PARTIAL: ("test faces have no prediction; they count as wrong, and it takes no rank.",),
}


def outside_of(cells: Sequence[StoredCell]) -> Outside | None:
    """What was found of an outside model; None: emobench trained it."""
    for cell in cells:
        if cell.record is not None and cell.record.evaluation is not None and cell.record.evaluation.outside:
            return cell.record.evaluation.outside
    return None


def flags(cells: Sequence[StoredCell]) -> tuple[list[str], list[str]]:
    """What is to be said of the cells of an outside model, and which of that keeps it from being ranked."""
    found = outside_of(cells)
    if found is None:
        return [], []
    declared = cells[0].declared
    if found.pictures:
        few = any(there < asked for there, asked in found.pictures.values())
        return [OUTSIDE, *([FEW] if few else [])], [FEW] if few else []
    against = [NOT_KNOWN] if declared.trained_on is None else []
    against += [EXCHANGED] if found.order is not None and found.order.renamed and not declared.labels_confirmed else []
    against += [PARTIAL] if found.missing else []
    unsure = found.order is not None and not found.order.checkable
    return [OUTSIDE, *against, *([NOT_CHECKABLE] if unsure else [])], against
