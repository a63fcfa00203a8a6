"""`--budget`: a suite as its board's `plan.toml` says it, which is measured and written at the first run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from emobench.errors import SuiteError
from emobench.files import say
from emobench.runner import calibrate
from emobench.runner.budget import fitted, keeps_precision, table_of
from emobench.runner.store import Store
from emobench.runner.threads import Packing
from emobench.suite import budget as plans
from emobench.suite.cell import Cell, Plan
from emobench.suite.file import Suite
from emobench.suite.plan_cache import plan_of


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
    found = plans.read(path)
    if found is None:
        return suite
    if budget is not None and budget != found.budget:
        raise SuiteError(
            f"{path} is of --budget {found.budget}, and not of {budget}. Give this one a name of its own by --name, or "
            "have it measured anew by --recalibrate"
        )
    return suite.model_copy(update={"budget": found.budget})


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
    repacked: Callable[[Mapping[str, calibrate.Calibration]], Packing],
    workers: int,
    recalibrate: bool,
    dry_run: bool,
) -> plans.PlanFile:
    """Measure the cells of a suite, fit it to its budget, and write that beside its board unless this is a dry run.

    Args:
        packing: how cells share the machine while nothing is measured.
        repacked: how they do by what was measured; where they have other numbers of threads by that, all is measured
            once more.
    """
    assert suite.budget is not None
    store = Store(results)

    def keeps(cell: Cell) -> bool:
        return keeps_precision(cell, suite.model.get(table_of(cell, suite, plan.cells) or "", {}))

    def measured(threads: int) -> tuple[dict[str, calibrate.Calibration], dict[str, str]]:
        return calibrate.calibrate(
            plan,
            store,
            data,
            threads=threads,
            workers=workers,
            again=recalibrate,
            keeps_precision=keeps,
            say=lambda text: say(text),
        )

    found, failed = measured(packing.threads)
    alone, packing = packing, repacked(found)
    if packing.threads != alone.threads:  # with which a face takes another time
        say(f"cells that share a GPU have {packing.threads} threads each, and are measured with those")
        found, failed = measured(packing.threads)
    made = fitted(suite, plan, found, packing, suite.budget)
    part = "all of their recipe" if made.share >= 1 else f"{100 * made.share:.2g} % of their recipe"
    say(f"budget {suite.budget}: rows that neither judge nor guide get {part}")
    unknown = {cell.row: failed[cell.fit_key] for cell in plan.cells if cell.fit_key in failed}
    for row, why in unknown.items():
        say(f"budget {suite.budget}: {why}. {row} is run all the same, and its time comes on top", error=True)
    for note in made.notes:
        say(f"budget {suite.budget}: {note}")
    if not dry_run:
        plans.write(results / suite.name / plans.FILE, made.plan)
    again = plan_of(plans.planned(suite, made.plan), data, store.cells)
    calibrate.keep_as(store, plan, again, found, packing.threads, again=recalibrate)
    return made.plan


def warn(suite: Suite, plan: plans.PlanFile) -> None:
    """Say which rows have joined the suite since its plan was made."""
    unknown = sorted(plan.model.keys() - suite.model.keys())
    if unknown:
        say(f"the plan of this board has rows that its suite has no more: {', '.join(unknown)}")
