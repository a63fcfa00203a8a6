"""`emobench score`: one outside model, measured without writing a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emobench.errors import StoreError, SuiteError, Unsaid
from emobench.files import say

if TYPE_CHECKING:
    from emobench.commands.bench import Outcome

What = Literal["model", "predictions", "images"]
_SHOWN = {  # track -> what the table on the terminal says of it
    "recognition": ("macro_f1", "accuracy", "nll", "ece"),
    "generation": ("control_calibrated", "control", "fid", "kid", "fed"),
    "editing": ("control_calibrated", "control", "identity"),
}


def score(
    what: What,
    named: str,
    dataset: str,
    *,
    board: Path | None,
    given: Sequence[str],
    split: str,
    name: str | None,
    results: Path,
    data: Path,
) -> int:
    """Measure one model on a dataset as `scored` does, and print its figures.

    Args:
        given: settings as `--set` takes them; `data.` before those of the dataset.
        split: "test"; or "validation", of which no board is written: by it settings are chosen.

    Returns:
        The exit code: that of `emobench bench`.

    Raises:
        EmobenchError: there is no such model or dataset, or something decisive is not said.
    """
    table, of_data = _settings(given)
    if split not in ("test", "validation"):
        raise SuiteError(f"--split {split}: test, or validation")
    if split == "validation":
        table = {"class": _class(what, named), **table}
        return _on_validation(what, name or _name(table["class"]), table, dataset, of_data, data)
    outcome, row = scored(
        what, named, dataset, board=board, table=table, of_data=of_data, name=name, results=results, data=data
    )
    _print(outcome.board, row)
    say(f"The page is {outcome.board / 'leaderboard.md'}")
    return outcome.exit_code


def scored(
    what: What,
    named: str,
    dataset: str,
    *,
    board: Path | None,
    table: Mapping[str, Any],
    of_data: Mapping[str, Any],
    name: str | None,
    results: Path,
    data: Path,
) -> tuple[Outcome, str]:
    """Measure one model on a dataset, and write a board of it.

    Args:
        named: `onnx:FILE` and its like; or a file or folder, whose kind is told by what it is.
        dataset: its name; of a board, one of that board's.
        board: folder of one, whose judges, reader and rows are used.
        table, of_data: settings of its row, and of the dataset.
        name: of its row; None: that of its file.

    Returns:
        How the run ended, and the name of the row.

    Raises:
        EmobenchError: there is no such model or dataset, or something decisive is not said.
    """
    from emobench.commands.bench import bench

    table = {"class": _class(what, named), **table}
    row = name or _name(table["class"])
    if board is None:
        suite: dict[str, Any] = {"name": f"score-{row}", "data": {dataset: dict(of_data)}, "model": {row: table}}
        trust: Literal["skip", "trust"] = "skip"
    else:
        results, suite = _beside(board, row, table, dataset, of_data)
        trust = "trust"
    return bench(suite, [], results, data, on_existing=trust), row


def _settings(given: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`--set` as a row's table, and as its dataset's."""
    from emobench.suite.overrides import apply, parsed

    found: dict[str, Any] = {}
    apply(found, parsed(given, "range=[0,1]"))
    of_data = found.pop("data", {})
    if not isinstance(of_data, dict):
        raise SuiteError("--set data: settings of the dataset are set as data.size=48")
    return found, of_data


def _class(what: What, named: str) -> str:
    """What a suite calls it."""
    from emobench.suite.file import OUTSIDE

    if what != "model":
        return named if named.startswith(f"{what}:") else f"{what}:{Path(named).expanduser()}"
    if named.partition(":")[0] in (*OUTSIDE, "timm") and ":" in named:
        return named
    path = Path(named).expanduser()
    if path.suffix == ".onnx":
        return f"onnx:{path}"
    if named.rpartition(":")[0].endswith(".py"):
        return f"python:{named}"
    if path.is_dir() and (path / "config.json").is_file():
        return f"hf:{path}"
    raise SuiteError(
        f"{named}: what is it? Name it as onnx:FILE, hf:FOLDER or hf:OWNER/NAME, timm:NAME with --set checkpoint=FILE, "
        "or python:FILE.py:NAME"
    )


def _name(cls: str) -> str:
    """A row's name: the file's or folder's, in characters that boards and overrides take."""
    last = cls.rstrip("/").rsplit("/", 1)[-1].rpartition(":")[2] or cls
    stem = last.removesuffix(".onnx").removesuffix(".csv").removesuffix(".parquet").removesuffix(".jsonl")
    return "".join(each if each.isalnum() or each in "-_" else "-" for each in stem) or "outside"


def _beside(
    board: Path, row: str, table: Mapping[str, Any], dataset: str, of_data: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """The results that hold a board, and its suite with a further row, on one dataset, under a name of its own."""
    from emobench.runner.store import Origin
    from emobench.suite.file import content_of

    results, name = board.parent, board.name
    try:
        origin = Origin.recorded(results, name)
    except FileNotFoundError:
        raise StoreError(f"--board {board}: there is no such board (no suite.json)") from None
    if origin.scale is not None:
        raise SuiteError(f"--board {board}: it is of a share (--scale {origin.scale:g}); name a board of a whole suite")
    content = content_of(origin.path(results) or origin.file, origin.overrides)
    if dataset not in content["data"]:
        raise SuiteError(f"--data {dataset}: the board {name} is of {', '.join(content['data'])}")
    if row in content["model"]:
        raise SuiteError(f"{name} has a row {row} already. Name this one otherwise: --name")
    if of_data:
        raise SuiteError(f"--set data.{next(iter(of_data))}: the dataset is as the board {name} has it")
    content["data"] = {dataset: content["data"][dataset]}
    content["model"] = {**content["model"], row: dict(table)}
    return results, {**content, "name": f"{name}+{row}"}


def _on_validation(
    what: What, row: str, table: Mapping[str, Any], dataset: str, of_data: Mapping[str, Any], data: Path
) -> int:
    """Print how a classifier does on validation faces; nothing is kept."""
    from emobench.runner.usual import advised, validated
    from emobench.suite.expand import expand
    from emobench.suite.file import load, written

    if what != "model":
        raise SuiteError(f"--split validation: {what} are given for test faces, and cannot be asked for others")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        suite = {"name": "validation", "data": {dataset: dict(of_data)}, "model": {row: dict(table)}}
        path, name = written(suite, [], Path(folder))
        try:
            plan = expand(load(path, [], name), data)
        except Unsaid as error:
            raise advised(error) from None
    (cell,) = plan.cells
    found = validated(cell, data)
    shown = Table("validation", "n", *_SHOWN["recognition"], box=None)
    shown.add_row(Text(row), f"{found.faces:,}", *(f"{found.numbers[each]:.3f}" for each in _SHOWN["recognition"]))
    Console().print(shown)
    print(f"faces: {found.words}")
    for label, emotion in found.renamed.items():
        print(f"its class {label} rather tells {emotion or 'none of these'}")
    return 0


def _print(board: Path, row: str) -> None:
    """The figures of the new row, and of the best other one, with their intervals."""
    from emobench.report.written import overall, read_board

    whole = overall(read_board(board))
    for track, metrics in _SHOWN.items():
        mine = whole[whole["track"] == track]
        names = mine["row"]
        if row not in set(names):
            continue
        shown = Table(track, *metrics, "n", "flags", box=None)
        others = [name for name in dict.fromkeys(names) if name != row and not name.startswith("control:")]
        for name in [row, *others]:
            of = mine[names == name]
            cells = [_cell(of[of["metric"] == metric]) for metric in metrics]
            n = of["n"].dropna()
            flags = of["flags"].iloc[0] if len(of) else ""
            shown.add_row(
                Text(name), *cells, f"{int(n.max()):,}" if len(n) else "", Text(str(flags).replace(";", ", "))
            )
        Console(width=160).print(shown)


def _cell(of: Any) -> str:
    if of.empty or of["value"].isna().all():
        return "n/a"
    number = of.iloc[0]
    if number["low"] != number["low"]:
        return f"{number['value']:.3f}"
    return f"{number['value']:.3f} ({number['low']:.3f}–{number['high']:.3f})"
