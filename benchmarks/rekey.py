"""Committed results keep their keys when the code has moved and computes what it did: new keys, where that is shown.

A key holds the code that determined a number. Where that code reads differently now, its results count as made by
another. For each committed row whose key is not the one that today's code would give, this

1. writes the suite of the row and of those that it needs from their records, and plans it with the code of the commit
   in the row's own record, which has to give the very key that the row has, and with today's, which gives the new one;
2. runs that suite with both, with the row's own arguments, only shortened (few faces, two epochs): weights,
   predictions, verdicts, values and pictures have to be equal to 1e-6;
3. gives each committed judge the same faces with both: its logits have to be equal to 1e-6.

A row for which all this holds, and for all that it needs, gets its new key with --write: in its record, its board and
the records of those that name it. What cannot be shown keeps its key and its commit, and the reason is printed.

    python benchmarks/rekey.py                      # says what could be, and changes nothing
    python benchmarks/rekey.py --data ROOT --write  # with ROOT/fer2013/ for the rows on FER-2013
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from rekey_rows import FIRST, Name, Row, groups, is_costly, rows_of, shortened, suite_of, thinned, with_needs
from rekey_runs import EQUAL, READ, REPOSITORY, Checkouts, Code, differences, ended, farthest, last_line
from safetensors.torch import load_file

from emobench.errors import EmobenchError
from emobench.files import read_object, write_json, write_text
from emobench.report.write import write
from emobench.runner.build import build_model
from emobench.runner.store import Origin, Store
from emobench.suite.file import PACKAGED
from emobench.suite.keys import is_current, key

SAID = 3  # reasons that are printed of a row that keeps its key


# ---- what is shown ---------------------------------------------------------------------------------------------------


def examine(rows: Sequence[Row], today: Code, checkouts: Checkouts, data: Path, short: Path) -> None:
    """Find out of the rows of one board which of them today's code would make as they are.

    Args:
        data: root of the datasets' files.
        short: the same with few faces.
    """
    made_by: dict[Code, list[Row]] = {}
    for row in (row for row in moved(rows) if not row.why):
        try:
            codes = {checkouts.of(commit) for commit in row.commits}
        except EmobenchError as error:
            row.why.append(str(error))
            continue
        if len(codes) > 1:
            row.why.append("fitted and evaluated by different code")
        else:
            made_by.setdefault(codes.pop(), []).append(row)
    todo = [Trial(code, group, rows) for code, wanted in made_by.items() for group in groups(wanted)]
    todo.sort(key=lambda trial: bool(trial.group[0].record.cell.panel))  # judges first
    _plan(todo, rows, today, data)
    for trial in todo:
        started = time.monotonic()
        for row in trial.group:
            row.why += _kept(row, rows)
        rest = [row for row in trial.group if not row.why]
        if not rest:
            continue
        _run(trial, rest, today, short)
        names = ", ".join(dict.fromkeys(row.name[0] for row in rest))
        equal = sum(not row.why for row in rest)
        took = f"{time.monotonic() - started:.0f} s"
        print(f"{rest[0].board}, {trial.code.name}: {names}: {equal} of {len(rest)} are equal ({took})", flush=True)


class Trial:
    """Rows of one board that some code made, and the suites that they are of, whole and shortened."""

    def __init__(self, code: Code, group: Sequence[Row], board: Sequence[Row]) -> None:
        self.code, self.group = code, group
        name = f"{group[0].board}-{code.name}-{key([row.name for row in group])[:6]}"
        self.whole, self.brief = (code.work / "suites" / f"{name}-{kind}.toml" for kind in ("whole", "short"))
        try:
            suite = suite_of(with_needs(group, board))
        except ValueError as error:
            for row in group:
                row.why.append(str(error))
            suite = {}
        write_text(self.whole, tomli_w.dumps(suite))
        write_text(self.brief, tomli_w.dumps(shortened(suite, any(map(is_costly, group))) if suite else ""))


def _plan(trials: Sequence[Trial], board: Sequence[Row], today: Code, data: Path) -> None:
    """Have the code of each trial, and today's, plan the whole suites: it has to be the rows that are committed."""
    mine = {row.name: row.first["made_of"] for row in board}
    wanted = {row.name: row.new for row in board if row.new is not None}
    for code in dict.fromkeys(trial.code for trial in trials):
        of = [trial for trial in trials if trial.code == code]
        before, now = (each.plans([trial.whole for trial in of], data) for each in (code, today))
        for trial, then, planned in zip(of, before, now, strict=True):
            for row in trial.group:
                for plan in (then, planned):
                    row.why += [str(plan)] if isinstance(plan, EmobenchError) else []
                if isinstance(then, dict) and isinstance(planned, dict):
                    row.why += [f"its commit plans another here: {each}" for each in unlike(row.name, mine, then)]
                    row.why += [f"its suite says another now: {each}" for each in unlike(row.name, planned, wanted)]


def _run(trial: Trial, rows: Sequence[Row], today: Code, short: Path) -> None:
    """Run the shortened suite with the code of before and with today's."""
    try:
        old, new = (code.bench(trial.brief, short) for code in (trial.code, today))
    except EmobenchError as error:
        for row in rows:
            row.why.append(str(error))
        return
    for row in rows:
        try:
            row.why += differences(old[row.name], new[row.name])
        except (FileNotFoundError, KeyError, EmobenchError) as error:
            ends = f"{ended(old.get(row.name))} with {trial.code.name}, {ended(new.get(row.name))} now"
            row.why.append(f"{ends} ({error})")


def _kept(row: Row, rows: Sequence[Row]) -> list[str]:
    """Why a row keeps its key whatever it computes: one that it names keeps its own."""
    kept = [each.name[0] for each in named_by(row, rows) if each.why]
    return [f"{', '.join(dict.fromkeys(kept))} keeps its key"] if kept else []


def plan_today(results: Path, board: str, rows: Sequence[Row], today: Code, data: Path) -> None:
    """Plan the suite of a board with today's code."""
    origin = Origin.recorded(results, board)
    path = origin.path(results) or PACKAGED / f"{origin.file}.toml"
    (plan,) = today.plans([path], data)
    if origin.overrides or origin.scale or isinstance(plan, EmobenchError):
        for row in rows:
            row.why.append(str(plan) if isinstance(plan, EmobenchError) else "the board's suite is overridden")
        return
    for row in rows:
        row.new = plan.get(row.name)
        row.why += ["its suite has no such row now, or it cannot run here"] if row.new is None else []


def moved(rows: Sequence[Row]) -> list[Row]:
    """Those whose code reads differently now, and those that name them."""
    found = {id(row) for row in rows if not is_current(row.record.made_of.fit, row.record.made_of.eval)}
    for _ in rows:
        found |= {id(row) for row in rows if any(id(each) in found for each in named_by(row, rows))}
    return [row for row in rows if id(row) in found]


def named_by(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The rows that fill its needs, judge it and read its features."""
    cell = row.record.cell
    keys = {each for of in (*cell.needs.values(), *cell.panel.values()) for each in of}
    return [each for each in rows if each.record.fit_key in keys]


def unlike(name: Name, old: Mapping[Name, Any], new: Mapping[Name, Any]) -> list[str]:
    """What two plans say differently of a cell; nothing where its keys are the same, but for 0 and 0.0.

    Args:
        old, new: cell -> what its keys are made of, `fit` and `eval`.
    """
    if name not in old or name not in new:
        return ["there is no such row"]
    cells = [{key(made_of["fit"]): str(cell) for cell, made_of in plan.items()} for plan in (old, new)]
    return _unlike(renamed(old[name], cells[0]), renamed(new[name], cells[1]), "")


def _unlike(old: Any, new: Any, place: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = sorted({*old, *new})
        return [each for name in names for each in _unlike(old.get(name), new.get(name), f"{place}{name} ")]
    return [] if old == new else [f"{place}{json.dumps(old)[:40]}, {json.dumps(new)[:40]}"]


def check_judges(results: Path, rows: Sequence[Row], checkouts: Checkouts) -> list[str]:
    """Give each committed judge of a board the same faces with the code that fitted it and with today's.

    Returns:
        A line a judge; those whose logits are not the old ones keep their key, and so do the rows that name them.
    """
    import torch

    lines = []
    cards = {card.sha256: card for row in rows if row.record.evaluation for card in row.record.evaluation.cards}
    for sha256, card in cards.items():
        weights = results / "judges" / f"{sha256}.safetensors"
        row = next((row for row in rows if row.record.fit_key == card.fit_key), None)
        if not weights.exists() or row is None:
            continue
        size = row.record.cell.size
        faces = torch.randint(
            0, 256, (16, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        try:
            apart = farthest(
                _logits_before(row, weights, faces.numpy(), checkouts), _logits(row, results, weights, faces)
            )
            problem = None if apart <= EQUAL else f"its logits are others by {apart:.2g}"
        except (EmobenchError, RuntimeError) as error:
            apart, problem = float("inf"), f"its weights cannot be read: {error}"
        if problem is not None:
            row.why.append(problem)
        lines.append(f"{sha256[:12]} {row.label}: {problem or f'its old logits, to {apart:.1g}'}")
    return lines


def _logits(row: Row, results: Path, weights: Path, faces: Any) -> np.ndarray:
    import torch

    network = build_model(row.record.planned, Store(results), pretrained=False)
    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(weights).items()}
    network.load_state_dict(state)
    with torch.inference_mode():
        found: np.ndarray = network.eval()(faces).numpy()
    return found


def _logits_before(row: Row, weights: Path, faces: np.ndarray, checkouts: Checkouts) -> np.ndarray:
    fit, cell = row.first["made_of"]["fit"], row.record.cell
    recipe = fit["recipe"] or {}
    judge = {
        "class": fit.get("class"),
        "model": fit["model"],
        "arguments": fit["arguments"],
        "emotions": cell.emotions,
        "size": recipe.get("size") or cell.size,
    }
    assert row.record.fit is not None
    code = checkouts.of(row.record.fit.versions.named)
    given, asked = code.work / "faces.npy", code.work / "logits.npy"
    np.save(given, faces)
    done = code.ran("-c", READ, json.dumps(judge), weights.resolve(), given, asked)
    if done.returncode != 0:
        raise EmobenchError(f"{code.name}: {last_line(done.stderr)}")
    logits: np.ndarray = np.load(asked)
    return logits


def settled(rows: Sequence[Row]) -> dict[str, str]:
    """The keys that change, of fits and of evaluations: old -> new; all others' reasons are in their rows.

    A row whose needs, judges or reader keep their keys keeps its own.
    """
    changed = moved(rows)
    for _ in changed:  # as often as a chain of needs may be long
        for row in changed:
            row.why += [] if row.why else _kept(row, rows)
    found: dict[str, str] = {}
    for row in changed:
        if row.new is not None and not row.why:
            found[row.record.fit_key] = key(row.new["fit"])
            found[row.record.eval_key] = key(row.new["eval"])
    return found


# ---- what is written -------------------------------------------------------------------------------------------------


def renamed(value: Any, keys: Mapping[str, str]) -> Any:
    """A plain value with new keys for old ones, but for what keys are made of, which says what it says."""
    if isinstance(value, Mapping):
        return {
            keys.get(name, name): each if name in ("made_of", FIRST) else renamed(each, keys)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [renamed(each, keys) for each in value]
    return keys.get(value, value) if isinstance(value, str) else value


def give_keys(results: Path, board: str, rows: Sequence[Row], keys: Mapping[str, str]) -> None:
    """Write new keys of a board's rows wherever the old ones stand: records, folders, `suite.json`."""
    for row in rows:
        path = row.folder / "result.json"
        old = read_object(path)
        content = renamed(old, keys)
        if row.record.eval_key not in keys:
            content["cell"] = old["cell"]  # as it was planned, and as `made_of` has it
        else:
            assert row.new is not None
            content[FIRST] = dict(row.first)
            content["made_of"] = {"fit": row.new["fit"], "eval": row.new["eval"]}
        write_json(path, content)
        if row.record.eval_key in keys:
            row.folder.rename(row.folder.with_name(keys[row.record.eval_key]))
    path = results / board / "suite.json"
    write_json(path, renamed(read_object(path), keys))


def give_keys_in_texts(repository: Path, keys: Mapping[str, str]) -> None:
    """New keys in the pages that show a result's picture."""
    for path in [
        repository / "README.md",
        *(repository / "results").glob("*.md"),
        *(repository / "docs").glob("*.md"),
        *(repository / "results").glob("checks/*.md"),
    ]:
        text = old = path.read_text()
        for before, after in keys.items():
            text = text.replace(before, after)
        if text != old:
            write_text(path, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boards", nargs="*", help="default: all that are committed")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="root of the datasets' files")
    parser.add_argument("--work", type=Path, help="folder of checkouts and short runs, kept; default: one that is not")
    parser.add_argument("--write", action="store_true", help="give the new keys")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})  # one, so that sums are made in one order
    with tempfile.TemporaryDirectory() as folder:
        work = folder if options.work is None else options.work
        rekey(options.boards, options.results, options.data.resolve(), Path(work).resolve(), write_them=options.write)


def rekey(boards: Sequence[str], results: Path, data: Path, work: Path, *, write_them: bool) -> None:
    """Say of each row of some boards whether it gets another key, and give it."""
    (work / "suites").mkdir(parents=True, exist_ok=True)
    thinned(data, work / "data")
    today, checkouts = Code("today", REPOSITORY, work), Checkouts(work)
    try:
        for board in boards or sorted(path.parent.name for path in results.glob("*/suite.json")):
            rows = rows_of(results, board)
            plan_today(results, board, rows, today, data)
            examine(rows, today, checkouts, data, work / "data")
            judges = check_judges(results, rows, checkouts)
            keys = settled(rows)
            print(f"\n{board}: {len(rows)} rows, {len(moved(rows))} made by other code, {said(rows, keys)}\n")
            print("\n".join(f"judge {line}" for line in judges))
            if write_them and keys:
                give_keys(results, board, rows, keys)
                give_keys_in_texts(results.resolve().parent, keys)
                write(results, board)
    finally:
        checkouts.remove()


def said(rows: Sequence[Row], keys: Mapping[str, str]) -> str:
    """How many rows get a new key, and why the others do not."""
    stay = [row for row in moved(rows) if row.record.eval_key not in keys]
    lines = []
    for row in stay:
        why = list(dict.fromkeys(row.why))
        more = f"; and {len(why) - SAID} more" if len(why) > SAID else ""
        lines.append(f"  {row.label}, made by {', '.join(row.commits)}: {'; '.join(why[:SAID])}{more}")
    return "\n".join([f"{len(moved(rows)) - len(stay)} get a new key", *lines])


if __name__ == "__main__":
    main()
