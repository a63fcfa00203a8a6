"""`--budget`: a suite as its board's `plan.toml` says it, which is measured and written at the first run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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


def named(suite: Suite, results: Path, budget: str | None, name: str | None, recalibrate: bool) -> Suite:
    """The suite with the budget that the command or its board names, and so with the board's name.

    Raises:
        SuiteError: the board's plan is damaged, or of another budget, or there is nothing to calibrate for.
    """
    if budget is not None:
        suite = plans.under(suite, budget, name)
    path = results / suite.name / plans.FILE
    if recalibrate:
        if budget is None:
            raise SuiteError("--recalibrate: for which budget? Name it, such as --budget 2h")
        return suite
    found = _of_budget(path, budget)
    if found is None:
        return suite
    return suite.model_copy(update={"budget": found.budget})


def _of_budget(path: Path, budget: str | None) -> plans.PlanFile | None:
    """The plan that lies there, which is of this budget; None: there is none."""
    found = plans.read(path)
    if found is not None and budget is not None and budget != found.budget:
        raise SuiteError(
            f"{path} is of --budget {found.budget}, and not of {budget}. Give this one a name of its own by --name, or "
            "have it measured anew by --recalibrate"
        )
    return found


def read(suite: Suite, results: Path, recalibrate: bool) -> plans.PlanFile | None:
    """The plan that the board has; None: it has to be made, or there is no budget."""
    return None if suite.budget is None or recalibrate else plans.read(results / suite.name / plans.FILE)


def fit(
    suite: Suite,
    plan: Plan,
    results: Path,
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
    store = Store(results)

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
    if not dry_run:
        path = results / suite.name / plans.FILE
        if recalibrate:
            plans.write(path, file)
        while not recalibrate and not plans.write_first(path, file):
            if (first := _of_budget(path, suite.budget)) is not None:
                say(f"budget {suite.budget}: another command was first to fit this suite, and its {path} is kept to")
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
