"""`emobench score`: one outside model, measured without writing a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emobench.errors import StoreError, SuiteError, Unsaid
from emobench.files import say

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
    """Measure one model on a dataset, write a board of it, and print its figures.

    Args:
        named: `onnx:FILE` and its like; or a file or folder, whose kind is told by what it is.
        dataset: its name; of a board, one of that board's.
        board: folder of one, whose judges, reader and rows are used.
        given: settings of the row as `--set` takes them; `data.` before those of the dataset.
        split: "test"; or "validation", of which no board is written: by it settings are chosen.

    Returns:
        The exit code: that of `emobench bench`.

    Raises:
        EmobenchError: there is no such model or dataset, or something decisive is not said.
    """
    from emobench.commands.bench import bench

    table, of_data = _settings(given)
    table = {"class": _class(what, named), **table}
    row = name or _name(table["class"])
    if split not in ("test", "validation"):
        raise SuiteError(f"--split {split}: test, or validation")
    if split == "validation":
        return _on_validation(what, row, table, dataset, of_data, data)
    if board is None:
        suite: dict[str, Any] = {"name": f"score-{row}", "data": {dataset: of_data}, "model": {row: table}}
        trust: Literal["skip", "trust"] = "skip"
    else:
        results, suite = _beside(board, row, table, dataset, of_data)
        trust = "trust"
    outcome = bench(suite, [], results, data, on_existing=trust)
    _print(outcome.board, row)
    say(f"The page is {outcome.board / 'leaderboard.md'}")
    return outcome.exit_code


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
    from emobench.commands.usual import advised
    from emobench.evaluation.outside import answers, label_order
    from emobench.metrics.recognition import measures, tally
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
    from emobench.runner.build import build_data, new_model

    (cell,) = plan.cells
    module = build_data(cell, data)
    model = new_model(cell, {}, pretrained=True).eval()
    faces = module.faces[module.faces["split"] == "val"]
    found = answers(model, module, faces)
    order = label_order(found, module, faces)
    labels = faces["label"].to_numpy()
    numbers = measures(tally(found.probabilities, labels, predictions=found.predictions).sum(0), len(module.emotions))
    shown = Table("validation", "n", *_SHOWN["recognition"], box=None)
    shown.add_row(row, f"{len(faces):,}", *(f"{float(numbers[each]):.3f}" for each in _SHOWN["recognition"]))
    Console().print(shown)
    print(f"faces: {model.said.words()}")
    for label, emotion in ((model.said.labels[m], e) for m, e in order.renamed.items()):
        print(f"its class {label} rather tells {'none of these' if emotion is None else module.emotions[emotion]}")
    return 0


def _print(board: Path, row: str) -> None:
    """The figures of the new row, and of the best other one, with their intervals."""
    from emobench.report.written import read_board

    numbers = read_board(board)
    whole = numbers[numbers["seed"].isna() & numbers["emotion"].isin(["", "macro"]) & (numbers["judge"] == "")]
    for track, metrics in _SHOWN.items():
        mine = whole[whole["track"] == track]
        names = mine["variant"].where(mine["variant"] != "", mine["model"])
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
