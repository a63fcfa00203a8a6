"""What of a plan need not run: results that are here, made with the networks that are here.

A fit's record holds the SHA-256 of its weights, and the records of what was made with them hold it too. Where weights
are gone or cut short, the network is trained again as soon as something needs it; where they then differ, what was made
with the earlier ones is made again.

Imports no torch, so that asking what is to be done is quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emobench.errors import StoreError
from emobench.runner.choice import groups
from emobench.runner.record import Card, Record, Weights, finished, read_finished, read_record
from emobench.runner.store import FINISHED, JUDGE, Store, choice_of, find, intact, is_current, sha256_of
from emobench.suite.cell import Cell, Plan

OnExisting = Literal["skip", "redo", "trust"]


def made_with(store: Store, cell: Cell, *, own: bool = True) -> dict[str, str]:
    """The trained networks behind a cell, its own among them: fit_key -> SHA-256 of the weights.

    Args:
        own: False leaves out the cell's own network, which is still to be trained.
    """
    found: dict[str, str] = {}
    todo = [cell.fit_key] if own else [key for keys in cell.needs.values() for key in keys]
    while todo:
        fit_key = todo.pop()
        fit = read_record(store.fit_folder(fit_key) / "fit.json")
        todo += [key for keys in fit.cell.needs.values() for key in keys]
        if fit.trains:
            found[fit_key] = sha256_of(store.weights(fit_key))
    return found


@dataclass(frozen=True)
class Needed:
    """Networks that some cells load: whole ones, and judges, of which the form that judges is enough."""

    whole: frozenset[str]
    judging: frozenset[str]

    def __contains__(self, fit_key: object) -> bool:
        return fit_key in self.whole or fit_key in self.judging


class Reuse:
    """What the store holds at this moment: records are read, and weights are looked at, once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._fits: dict[str, Record | None] = {}
        self._hashes: dict[str, str | None] = {}

    def needed(self, cells: Iterable[Cell]) -> Needed:
        """All networks that cells load when they are fitted or evaluated, and those that these load in turn."""
        whole: set[str] = set()
        judging: set[str] = set()
        for cell in cells:
            whole |= self._behind(cell)
            judging |= {key for keys in cell.panel.values() for key in keys}
        for fit_key in judging:
            whole |= self._with_needs(self._needs(fit_key))
        return Needed(frozenset(whole), frozenset(judging))

    def there(self, fit_key: str, needed: Needed) -> bool:
        """Whether a network that is needed can be loaded."""
        if self._is_whole(fit_key):
            return True
        return fit_key not in needed.whole and intact(self.store.fit_folder(fit_key) / JUDGE)

    def lost(self, cell: Cell) -> str | None:
        """Why a finished fit has to be made again before its cell is evaluated; None where it has not."""
        fit = self._fit(cell.fit_key)
        if fit is None or not cell.trains:
            return None
        if not self._is_whole(cell.fit_key):
            return "its weights are gone or cut short"
        return self._fitted_with_others(cell, fit)

    def fitted(self, cell: Cell) -> bool:
        """Whether a finished fit lies here, made with the networks that are here."""
        fit = self._fit(cell.fit_key)
        return fit is not None and (not cell.trains or self._fitted_with_others(cell, fit) is None)

    def evaluated(self, cell: Cell) -> bool:
        """Whether a finished evaluation lies here, made with the networks that are here."""
        result = self._result(cell)
        return result is not None and self._evaluated_with_others(cell, result) is None

    def remade(self, cell: Cell, needed: Needed, *, reads: bool = True) -> str | None:
        """Why a cell that was finished runs again; None where it need not.

        Args:
            needed: the networks that must be there for others.
            reads: False: it is a setting that is not chosen, so that whatever was measured with it is not looked at.
        """
        fit = self._fit(cell.fit_key)
        if fit is None:
            return "the record of its fit is gone or damaged, and others need it" if cell.fit_key in needed else None
        if cell.trains and cell.fit_key in needed and not self.there(cell.fit_key, needed):
            return "its weights are gone or cut short, and others need them"
        result = self._result(cell) if reads else None
        return (self._fitted_with_others(cell, fit) if cell.trains else None) or (
            None if result is None else self._evaluated_with_others(cell, result)
        )

    def damaged(self, cell: Cell) -> str | None:
        """What of a cell's records lies here and cannot be read; None: nothing."""
        folder = self.store.fit_folder(cell.fit_key)
        for path, what in ((folder / "fit.json", "fit"), (folder / cell.eval_key / "result.json", "evaluation")):
            try:
                read_record(path)
            except FileNotFoundError:
                continue
            except StoreError:
                return f"the record of its {what} is damaged"
        return None

    def _behind(self, cell: Cell) -> set[str]:
        """The networks that a cell's own is built with."""
        return self._with_needs(key for keys in cell.needs.values() for key in keys)

    def _with_needs(self, fit_keys: Iterable[str]) -> set[str]:
        found: set[str] = set()
        todo = list(fit_keys)
        while todo:
            fit_key = todo.pop()
            if fit_key not in found:
                found.add(fit_key)
                todo += self._needs(fit_key)
        return found

    def _needs(self, fit_key: str) -> list[str]:
        fit = self._fit(fit_key)
        return [] if fit is None else [key for keys in fit.cell.needs.values() for key in keys]

    def _fit(self, fit_key: str) -> Record | None:
        """The record of a finished fit."""
        if fit_key not in self._fits:
            self._fits[fit_key] = read_finished(self.store.fit_folder(fit_key) / "fit.json")
        return self._fits[fit_key]

    def _result(self, cell: Cell) -> Record | None:
        return read_finished(self.store.eval_folder(cell.fit_key, cell.eval_key) / "result.json")

    def _is_whole(self, fit_key: str) -> bool:
        return intact(self.store.weights(fit_key))

    def _sha256(self, fit_key: str) -> str | None:
        """Of the weights that are here; None where there are none."""
        if fit_key not in self._hashes:
            weights = self._weights(fit_key)
            known = None if weights is None else weights.sha256
            if known is None or not self._untouched(fit_key):
                known = sha256_of(self.store.weights(fit_key)) if self._is_whole(fit_key) else None
            self._hashes[fit_key] = known
        return self._hashes[fit_key]

    def _weights(self, fit_key: str) -> Weights | None:
        """What the fit's record says of its weights."""
        fit = self._fit(fit_key)
        return None if fit is None or fit.fit is None else fit.fit.weights

    def _untouched(self, fit_key: str) -> bool:
        """Whether the weights are no younger than the fit's record, which was written after them."""
        record = self.store.fit_folder(fit_key) / "fit.json"
        return self._is_whole(fit_key) and self.store.weights(fit_key).stat().st_mtime_ns <= record.stat().st_mtime_ns

    def _fitted_with_others(self, cell: Cell, fit: Record) -> str | None:
        return _said("was trained", self._others(fit, self._behind(cell)))

    def _evaluated_with_others(self, cell: Cell, result: Record) -> str | None:
        others = self._others(result, {cell.fit_key, *self._behind(cell)})
        of = result.evaluation
        cards = [] if of is None else [*of.panel, *([] if of.reader is None else [of.reader])]
        return _said("was evaluated", [*others, *(card.row for card in cards if self._judges_otherwise(card))])

    def _others(self, record: Record, fit_keys: Iterable[str]) -> list[str]:
        """Rows whose weights are not those that a record was made with."""
        found = []
        for fit_key in sorted(fit_keys):
            fit = self._fit(fit_key)
            if fit is None or not fit.trains:
                continue  # one that is to be trained is compared when it ends
            then = record.made_with.get(fit_key)
            if then is None:  # of an older emobench: what was made before the network was trained is not of it
                differs = (fit.finished or "") > (record.finished or "")
            else:
                differs = self._sha256(fit_key) not in (None, then)
            if differs:
                found.append(fit.cell.row)
        return found

    def _judges_otherwise(self, card: Card) -> bool:
        """Whether a judge has other weights now than a result says."""
        fit_key, known = card.fit_key, self._weights(card.fit_key)
        if self._fit(fit_key) is None:
            return False
        if known is not None and known.judge is not None and self._untouched(fit_key):
            return known.judge != card.sha256
        path = self.store.fit_folder(fit_key) / JUDGE
        if is_current(path, self.store.weights(fit_key)):
            return sha256_of(path) != card.sha256
        return known is not None and self._sha256(fit_key) not in (None, known.sha256)


def _said(how: str, rows: Sequence[str]) -> str | None:
    names = ", ".join(dict.fromkeys(rows))
    return f"it {how} with other weights of {names} than are here now" if rows else None


def stored(results: Path, suite: str, cell: Cell, on_existing: OnExisting) -> bool:
    """Whether a cell has ended here for good, or with `trust` on the committed board."""
    if on_existing == "redo":
        return False
    if on_existing == "trust" and find(results, suite, cell.fit_key, cell.eval_key)[0] in FINISHED:
        return True
    folder = Store(results).fit_folder(cell.fit_key)
    states: list[str] = []
    for path in (folder / "fit.json", folder / cell.eval_key / "result.json"):
        try:
            states.append(read_record(path).state)
        except (FileNotFoundError, StoreError):
            states.append("pending")
    return "diverged" in states or states == ["done", "done"]


def passed_over(results: Path, plan: Plan, on_existing: OnExisting) -> set[int]:
    """The cells, by identity, that have ended as settings which are not chosen: all are fitted, and another is better.

    Their fits are here, or with `trust` on the committed board.
    """
    found: set[int] = set()
    for group in groups(plan.cells) if on_existing != "redo" else ():
        choice = choice_of(results, plan.suite, group)
        for cell in group if not choice.pending else ():
            here = on_existing == "trust" or finished(Store(results).fit_folder(cell.fit_key) / "fit.json")
            if cell.row != choice.chosen and choice.scored(cell) and here:
                found.add(id(cell))
    return found


def to_run(results: Path, plan: Plan, on_existing: OnExisting) -> list[tuple[Cell, str | None]]:
    """The cells that must run, and of those that were finished before, why they run again.

    Among them are those whose networks the others need and whose weights are not here, and those that were made with
    other weights than are here now.
    """
    reuse = Reuse(Store(results))
    passed = passed_over(results, plan, on_existing)
    chosen: dict[int, str | None] = {
        id(cell): reuse.damaged(cell)
        for cell in plan.cells
        if id(cell) not in passed and not stored(results, plan.suite, cell, on_existing)
    }
    grown = True
    while grown:
        needed = reuse.needed(cell for cell in plan.cells if id(cell) in chosen)
        others = [cell for cell in plan.cells if id(cell) not in chosen]
        rest = [(cell, reuse.remade(cell, needed, reads=id(cell) not in passed)) for cell in others]
        more = {id(cell): why for cell, why in rest if why is not None}
        chosen |= more
        grown = bool(more)
    return [(cell, chosen[id(cell)]) for cell in plan.cells if id(cell) in chosen]
