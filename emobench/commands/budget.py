"""`--budget`: a suite as its board's `plan.toml` says it, which is measured and written at the first run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emobench.errors import SuiteError
from emobench.files import say
from emobench.runner import calibrate
from emobench.runner.budget import fitted, keeps_precision, table_of
from emobench.runner.store import Store
from emobench.runner.threads import Packing
from emobench.runner.trial import Calibration
from emobench.suite import budget as plans
from emobench.suite.cell import Cell, Plan
from emobench.suite.file import Suite
from emobench.suite.plan_cache import plan_of
from emobench.suite.rows import datasets_of

if TYPE_CHECKING:
    from emobench.runner.remote import Remote


@dataclass(frozen=True)
class Place:
    """Where the plan of a board lies: beside the board, and in the object store that machines share, where they do.

    The first that is written there counts for all of them.
    """

    path: Path
    store: Remote | None

    @property
    def _object(self) -> str:
        return f"boards/{self.path.parent.name}/{plans.FILE}"

    def read(self) -> plans.PlanFile | None:
        """The plan; None: it has to be made.

        Raises:
            SuiteError: it is damaged, or other machines go by another one.
        """
        here, theirs = plans.read(self.path), self._shared()
        if here is not None and theirs is not None and here != theirs:
            raise SuiteError(
                f"{self.path} is another plan than that in --store, which other machines go by. To go by that, remove "
                "the file; to keep to this one, give the board a name of its own by --name; or have all measured anew "
                "by --recalibrate"
            )
        return theirs or here

    def _shared(self) -> plans.PlanFile | None:
        if self.store is None or (content := self.store.read(self._object)) is None:
            return None
        return plans.parsed(content, f"{self.store.url}/{self._object}")

    def keep(self, plan: plans.PlanFile) -> plans.PlanFile:
        """Write it where there is none; returns the plan that counts, which may be one that was there first."""
        while True:
            if self.store is not None and not self.store.create(self._object, plans.text_of(plan).encode()):
                if (theirs := self._shared()) is None:
                    continue
                plan = theirs
            if plans.write_first(self.path, plan):
                return plan
            if (first := self.read()) is not None:
                return first

    def replace(self, plan: plans.PlanFile) -> None:
        """Write it in the place of one that may be there."""
        if self.store is not None:
            self.store.put(self._object, plans.text_of(plan).encode())
        plans.write(self.path, plan)


def place_of(suite: Suite, results: Path, store: Remote | None) -> Place:
    """Where the plan of a suite's board lies."""
    return Place(results / suite.name / plans.FILE, store)


def named(
    suite: Suite, results: Path, store: Remote | None, budget: str | None, name: str | None, recalibrate: bool
) -> Suite:
    """The suite with the budget that the command or its board names, and so with the board's name.

    Raises:
        SuiteError: the board's plan is damaged, or of another budget, or there is nothing to calibrate for.
    """
    if budget is not None:
        suite = plans.under(suite, budget, name)
    if recalibrate:
        if budget is None:
            raise SuiteError("--recalibrate: for which budget? Name it, such as --budget 2h")
        return suite
    place = place_of(suite, results, store)
    found = place.read()
    if found is None:
        return suite
    _check_budget(found, place, budget)
    return suite.model_copy(update={"budget": found.budget})


def _check_budget(found: plans.PlanFile, place: Place, budget: str | None) -> None:
    if budget is not None and budget != found.budget:
        raise SuiteError(
            f"{place.path} is of --budget {found.budget}, and not of {budget}. Give this one a name of its own by "
            "--name, or have it measured anew by --recalibrate"
        )


def fit(
    suite: Suite,
    plan: Plan,
    store: Store,
    place: Place,
    data: Path,
    packing: Packing,
    *,
    numbers: Callable[[Mapping[str, Calibration]], Sequence[int]],
    if_it_pays: bool,
    packed: Callable[[int], Packing],
    workers: int,
    recalibrate: bool,
    dry_run: bool,
) -> plans.PlanFile:
    """Measure the cells of a suite, fit it to its budget, and write that beside its board unless this is a dry run.

    Where another command has written a plan meanwhile, cells may run by it already: it is the board's.

    Args:
        packing: how cells share the machine while nothing is measured.
        numbers: how many may share a GPU, by the memory that was measured; how fast they are then is measured, too.
        if_it_pays: they do so only where that pays.
        packed: how cells share the machine where so many share a GPU.

    Raises:
        SuiteError: what was chosen is nothing that the suite could say, such as smaller batches for a model that
            cannot accumulate over them.
    """
    assert suite.budget is not None

    def keeps(cell: Cell) -> bool:
        return keeps_precision(cell, suite.model.get(table_of(cell, suite, plan.cells) or "", {}))

    alone, failed = calibrate.calibrate(
        plan,
        store,
        data,
        threads=packing.threads,
        workers=workers,
        again=recalibrate,
        keeps_precision=keeps,
        say=say,
    )
    sharing = calibrate.sharing(
        plan,
        alone,
        numbers(alone),
        data,
        if_it_pays=if_it_pays,
        threads=lambda number: packed(number).threads,
        workers=workers,
        say=say,
    )
    packing, found = packed(sharing.per_gpu), sharing.of(alone, plan)
    made = fitted(suite, plan, found, packing, suite.budget)
    part = "all of their recipe" if made.share >= 1 else f"{100 * made.share:.2g} % of their recipe"
    say(f"budget {suite.budget}: rows that neither judge nor guide get {part}")
    unknown = {cell.row: failed[cell.fit_key] for cell in plan.cells if cell.fit_key in failed}
    for row, why in unknown.items():
        say(f"budget {suite.budget}: {why}. {row} is run all the same, and its time comes on top", error=True)
    for note in made.notes:
        say(f"budget {suite.budget}: {note}")
    file = made.plan.model_copy(
        update={"per_gpu": packing.per_gpu, "made_of": plans.made_of(suite, datasets_of(suite, data))}
    )
    try:
        again = plan_of(plans.planned(suite, file), data, store.cells)
    except SuiteError as error:  # said before it is written: every later run would read it
        remedy = "Or write a smaller batch into the suite, which fits without"
        raise SuiteError(f"--budget {suite.budget}: what fits here cannot be run: {error}. {remedy}") from None
    if not dry_run and recalibrate:
        place.replace(file)
    elif not dry_run and (first := place.keep(file)) != file:
        _check_budget(first, place, suite.budget)
        say(f"budget {suite.budget}: another command was first to fit this suite, and its {place.path} is kept to")
        return first
    calibrate.keep_as(store, plan, again, found, packing, again=recalibrate)
    return file


def warn(suite: Suite, plan: plans.PlanFile, data: Path) -> None:
    """Say what of the suite was edited, joined or is gone since its plan was made: the plan counts all the same.

    An older plan does not hold what it was made of: only rows that are gone can be told by it.
    """
    before, now = plan.made_of, plans.made_of(suite, datasets_of(suite, data))
    remedy = "--recalibrate, with --budget, measures and plans anew, and so makes other cells"
    if before and (edited := [name for name in now if before.get(name, now[name]) != now[name]]):
        say(
            f"edited in the suite since the plan of this board was made: {', '.join(edited)}. What {plans.FILE} says "
            f"still takes the place of what the suite says now. {remedy}"
        )
    if before and (joined := [name for name in now if name not in before]):
        say(
            f"joined the suite since the plan of this board was made: {', '.join(joined)}. The budget has no time for "
            f"it: rows that the plan does not know run at their full recipe, all others as planned. {remedy}"
        )
    if gone := [name for name in before or [f"model.{row}" for row in plan.model] if name not in now]:
        say(f"the plan of this board has what its suite has no more: {', '.join(gone)}")
