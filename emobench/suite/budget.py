"""`plan.toml` of a board: how its suite was fitted to a budget of time, once, for every later run on any engine.

    budget = "2h"
    machine = "NVIDIA H100 80GB HBM3"
    threads = 4                     # of each process of a cell, on every machine
    per_gpu = 3                     # cells that share a GPU under `--per-gpu auto`: so many get most done

    [model.cvae]                    # a row of the suite; what stands here takes the place of what that says
    epochs = 12
    precision = "bf16-mixed"
    batch = 32
    accumulate_grad_batches = 2

    [made_of]                       # digests of what the suite said then, by which later edits are seen
    "model.cvae" = "2f1c0a9be4d7"

What counts for a network is in the keys of its cells, as it would be if the suite said it; `threads`, and how a fit is
computed (`emobench.recipe.Execution`), make other networks, as another processor does, and are in none. The last line
holds a checksum of every line, by which a change is found.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any

import tomli_w
from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, ValidationError

from emobench.errors import SuiteError
from emobench.files import create, write_text
from emobench.recipe import Execution
from emobench.suite.file import Suite
from emobench.suite.overrides import checked_name

FILE = "plan.toml"
_CHECKS = "# checksums: "
_UNITS = {"h": 3600, "m": 60, "s": 1}
_WRITE_AGAIN = "Settings are changed in the suite; --recalibrate then measures and writes this file anew"

Count = Annotated[int, Ge(1)]


class RowPlan(BaseModel):
    """What of a row differs from the suite's own words; None: nothing does."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    epochs: Count | None = None
    steps: Count | None = None
    batch: Count | None = None  # faces of a micro-batch
    precision: str | None = None
    accumulate_grad_batches: Count | None = None
    compile: bool | None = None  # this and what follows are in no key (see `emobench.recipe.Execution`)
    cuda_graphs: bool | None = None
    channels_last: bool | None = None
    fused: bool | None = None


class PlanFile(BaseModel):
    """A suite's plan under a budget.

    Attributes:
        budget: as the command takes it.
        machine: that was measured, as boards name it.
        threads: of each process of a cell, on every machine.
        per_gpu: cells that share a GPU under `--per-gpu auto`, as it was measured to pay.
        model: row of the suite -> what differs.
        made_of: see `made_of`; empty: the file was written by a version that kept none.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    budget: str
    machine: str
    threads: Count
    per_gpu: Count = 1
    model: dict[str, RowPlan] = {}
    made_of: dict[str, str] = {}


def made_of(suite: Suite, datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Digests of what a suite says that counts for how long it takes, by the names of its tables.

    Args:
        datasets: their tables, where one of the suite may stand for several folders.
    """
    parts = {f"model.{name}": table for name, table in suite.model.items()}
    parts |= {f"data.{name}": dict(table) for name, table in datasets.items()}
    rest = suite.model_dump(include={"seeds", "trainer", "panel", "reader", "cues", "explain"})
    said = {**parts, **rest, "evaluation": suite.evaluation.faces}
    return {name: _digest(json.dumps(each, sort_keys=True, default=str))[:12] for name, each in said.items()}


def seconds_of(budget: str) -> int:
    """Seconds of `2h`, `90m`, `1h30m` or `45s`.

    Raises:
        SuiteError: it is no such time.
    """
    parts = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", budget)
    seconds = 0 if parts is None else sum(int(n) * _UNITS[u] for n, u in zip(parts.groups("0"), "hms", strict=True))
    if seconds == 0:
        raise SuiteError(f"--budget {budget}: no time such as 2h, 90m, 1h30m or 45s")
    return seconds


def under(suite: Suite, budget: str, name: str | None) -> Suite:
    """The suite under a budget, whose board has a name of its own, unless it is given one.

    Raises:
        SuiteError: the budget is no time.
    """
    seconds_of(budget)
    board = suite.name if name is not None else checked_name(f"{suite.name}+budget={budget}")
    return suite.model_copy(update={"name": board, "budget": budget})


def read(path: Path) -> PlanFile | None:
    """The plan of a board; None where it has none.

    Raises:
        SuiteError: it is not as emobench wrote it; says in which line.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error}). {_WRITE_AGAIN}") from None
    return parsed(content, str(path))


def parsed(content: bytes, path: str) -> PlanFile:
    """A plan from its file's bytes; `path` is for errors, which are those of `read`."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: cannot be read ({error}). {_WRITE_AGAIN}") from None
    *lines, last = text.splitlines() or [""]
    if not last.startswith(_CHECKS):
        where = f"line {len(lines) + 1}: the file ends before its checksums"
        raise SuiteError(f"{path}, {where}. {_WRITE_AGAIN}")
    checks = last.removeprefix(_CHECKS).split()
    for number, line in enumerate(lines, 1):
        if number > len(checks) or _check(line) != checks[number - 1]:
            raise SuiteError(f"{path}, line {number}: not as emobench wrote it: {line[:80]!r}. {_WRITE_AGAIN}")
    if len(lines) < len(checks):
        raise SuiteError(f"{path}, line {len(lines) + 1}: {len(checks) - len(lines)} lines are gone. {_WRITE_AGAIN}")
    try:
        return PlanFile(**tomllib.loads(text))
    except (ValidationError, tomllib.TOMLDecodeError, TypeError) as error:  # of another version
        first = str(error.errors()[0]["loc"]) if isinstance(error, ValidationError) else str(error)
        raise SuiteError(f"{path}: not a plan that this emobench reads ({first}). {_WRITE_AGAIN}") from None


def write(path: Path, plan: PlanFile) -> None:
    """Write the plan of a board, in the place of one that it may have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text_of(plan))


def write_first(path: Path, plan: PlanFile) -> bool:
    """Write the plan of a board that has none; False: another process was first, and its plan stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{token_hex(8)}")
    try:
        write_text(mine, text_of(plan))
        return create(mine, path)
    finally:
        mine.unlink(missing_ok=True)


def text_of(plan: PlanFile) -> str:
    """A plan as its file holds it."""
    head = "# How this board's suite was fitted to its budget: every later run of it reads this file.\n"
    unsaid = {name for name in ("per_gpu", "made_of") if getattr(plan, name) == PlanFile.model_fields[name].default}
    text = head + tomli_w.dumps(plan.model_dump(exclude_none=True, exclude=unsaid))
    checks = " ".join(map(_check, text.splitlines()))
    return f"{text}{_CHECKS}{checks}\n"


def _check(line: str) -> str:
    return _digest(line)[:4]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def planned(suite: Suite, plan: PlanFile) -> Suite:
    """The suite with what its plan says in place of its own words."""
    return suite.model_copy(
        update={"model": {name: _table(table, plan.model.get(name)) for name, table in suite.model.items()}}
    )


def _table(table: Mapping[str, Any], plan: RowPlan | None) -> dict[str, Any]:
    if plan is None:
        return dict(table)
    said = plan.model_dump(exclude_none=True, exclude=_EXECUTION)
    options = {name: said.pop(name) for name in ("precision", "accumulate_grad_batches") if name in said}
    rest = {name: value for name, value in table.items() if not (said.keys() & {"epochs", "steps"} and name in _BUDGET)}
    trainer = {**table.get("trainer", {}), **options}
    return {**rest, **said, **({"trainer": trainer} if trainer else {})}


_BUDGET = ("epochs", "steps")
_EXECUTION = {each.name for each in fields(Execution)}


def two_digits(number: float) -> int:
    """A whole number's first two digits, not rounded up: 1,234 -> 1,200.

    >>> two_digits(1290.0), two_digits(17.9), two_digits(0.4)
    (1200, 17, 0)
    """
    whole = int(number)
    unit: int = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit
