"""The command: one function per subcommand; heavy imports inside the functions, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emobench.commands.boards import BoardFile

app = typer.Typer(
    help="Emotion classifiers and generators, measured under one protocol.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


class Wandb(StrEnum):
    """How cells are logged to Weights & Biases."""

    online = "online"
    offline = "offline"


class OnExisting(StrEnum):
    """What to do with a cell that has a result."""

    skip = "skip"
    redo = "redo"
    trust = "trust"


Results = Annotated[Path, typer.Option("--results", help="Folder of the results and of the store of cells.")]
Data = Annotated[Path, typer.Option("--data", envvar="EMOBENCH_DATA", help="Data root, which holds <root>/<dataset>/.")]


@app.command(epilog="Example: emobench bench smoke --set model.resnet18.lr=0.05")
def bench(
    suite: Annotated[str, typer.Argument(help="A suite file, such as my.toml, or a suite of emobench, such as demo.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override, such as model.vit.lr=3e-5.")] = None,
    name: Annotated[
        str | None, typer.Option(help="The board's name. [default: the suite's, and what is overridden]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    on_existing: Annotated[
        OnExisting,
        typer.Option(help="skip what is done; redo everything; trust the cells committed with the board too."),
    ] = OnExisting.skip,
    results: Results = Path("results"),
    data: Data = Path("data"),
    workers: Annotated[
        int | None, typer.Option(help="Loader processes per cell. [default: 0 on a CPU, else up to 8]")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never download pre-trained weights; W&B logs offline.")
    ] = False,
    wandb: Annotated[Wandb | None, typer.Option(help="Log every cell to Weights & Biases too.")] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(envvar="EMOBENCH_WEIGHTS", help="Folder of the Inception weights, for FID, KID, IS.")
    ] = None,
) -> None:
    """Train and measure every cell of a suite, and write its boards."""
    from rich.console import Console

    from emobench.commands.boards import BoardFile
    from emobench.commands.live import Display, show_again, show_notes, show_overrides, show_plan
    from emobench.runner.reuse import to_run
    from emobench.runner.store import Origin, Store, check_owner
    from emobench.runner.sweep import trusting
    from emobench.suite.file import load
    from emobench.suite.plan_cache import plan_of

    if offline:
        os.environ["EMOBENCH_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    if weights_dir is not None:
        os.environ["EMOBENCH_WEIGHTS"] = str(weights_dir.resolve())
    store = Store(results)
    store.check_writable()
    loaded = load(suite, set_ or [], name)
    check_owner(results, loaded)
    show_overrides(loaded)
    plan = plan_of(loaded, data, store.cells)
    if on_existing is OnExisting.trust:
        plan = trusting(results, plan)
    chosen = to_run(results, plan, on_existing.value)
    cells = [cell for cell, _ in chosen]
    if dry_run:
        show_plan(plan, cells, results)
    else:
        show_notes(plan)
    show_again(f"{cell.label}: {why}" for cell, why in chosen if why is not None)
    if dry_run:
        return
    board = BoardFile(results, plan, Origin.of(loaded, results))
    if not cells and board.whole():
        print(board.summary())
        raise typer.Exit(_exit_code(board))
    from emobench.runner.sweep import Sweep, sweep

    logged = _wandb(loaded, wandb, offline) if cells else None
    board.write()  # at once, so that a reader sees results from the first minute
    state = None
    if cells:
        with Display(Console(), plan) as display:

            def on_change(state: Sweep) -> None:
                display.update(state)
                board.write()

            state = sweep(
                plan,
                cells,
                results,
                data,
                workers=_workers() if workers is None else workers,
                redo=on_existing is OnExisting.redo,
                wandb=logged,
                on_change=on_change,
                on_tick=display.update,
            )
            display.update(state)
        if not board.whole():
            board.write()
        if state.signal is not None:
            print(f"stopped by signal {state.signal}; run the same command again to go on", file=sys.stderr)
            raise typer.Exit(128 + state.signal)
    if logged is not None and logged["mode"] == "offline":
        from emobench.runner.logging import sync_command

        print(f"Logged offline; to upload: {sync_command(results)}")
    if board.problem is None:
        print(f"The board is {board.path}")
    else:
        print(f"emobench: {board.path} is not the board of these results: {board.problem}", file=sys.stderr)
    raise typer.Exit(_exit_code(board, [] if state is None else [found for found, _ in state.states.values()]))


def _wandb(suite: Any, asked: Wandb | None, offline: bool) -> dict[str, str] | None:
    """How the cells are logged to W&B: as the suite or `--wandb` asks, offline where it cannot be reached."""
    if suite.wandb is None and asked is None:
        return None
    from emobench.runner.logging import reachable_mode

    options = {"project": "emobench"} if suite.wandb is None else suite.wandb.model_dump(exclude_none=True)
    wanted = "offline" if offline else asked.value if asked is not None else options["mode"]
    mode, why = reachable_mode(wanted)
    if why is not None:
        print(f"W&B logs offline: {why}", file=sys.stderr)
    return {**options, "mode": mode, "group": suite.name}


def _exit_code(board: BoardFile, ended: Sequence[str] = ()) -> int:
    """1 where the board could not be written, or a cell of it failed or diverged, or is not done.

    Args:
        ended: the states of cells that this sweep ran.
    """
    return 0 if board.problem is None and {*board.states(), *ended} <= {"done"} else 1


def _workers() -> int:
    """Loader processes per cell: on a CPU they would only take cores from the training."""
    import torch

    return min(8, len(os.sched_getaffinity(0)) - 1) if torch.cuda.is_available() else 0


@app.command(epilog="Example: emobench report demo")
def report(
    board: Annotated[str, typer.Argument(help="The board's name, its folder, or the file of its suite.")],
    results: Results = Path("results"),
) -> None:
    """Write a suite's boards again from its stored results."""
    from emobench.report.write import write
    from emobench.report.written import mark_unwritten
    from emobench.runner.store import load_board
    from emobench.suite.file import stem

    name = stem(board)
    load_board(results, name)
    try:
        written = write(results, name)
    except Exception as error:
        reason = mark_unwritten(results, name, error)
        print(f"emobench: the board {results / name} could not be written: {reason}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(written.path)
    raise typer.Exit(1 if written.failed else 0)


class Format(StrEnum):
    """How predictions are written."""

    table = "table"
    csv = "csv"
    json = "json"


@app.command(epilog="Example: emobench predict best:demo/synthetic photo.jpg --format csv --out emotions.csv")
def predict(
    run: Annotated[
        str,
        typer.Argument(help="best:BOARD/DATASET (by validation), BOARD/DATASET/ROW, or the key of a finished cell."),
    ],
    images: Annotated[list[Path], typer.Argument(help="Pictures of one face each, or folders of them.")],
    format_: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write it here instead of printing it.")] = None,
    results: Results = Path("results"),
) -> None:
    """Say which emotion pictures show, by a trained classifier.

    Exit code 1 where a picture cannot be read; the others are answered.
    """
    from emobench.commands.predict import choose, pictures, written
    from emobench.commands.predict import predict as read

    chosen = choose(results, run)
    table, errors = read(results, chosen, pictures(images))
    print(f"read by {chosen.label}", file=sys.stderr)
    text = written(table, format_.value)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
    for error in errors:
        print(f"emobench: {error}", file=sys.stderr)
    raise typer.Exit(1 if errors else 0)


@app.command(epilog="Example: emobench models resnet18")
def models(name: Annotated[str | None, typer.Argument(help="One model, in detail.")] = None) -> None:
    """List the models, or one model's arguments, defaults, recipe and source."""
    _describe("model", name)


@app.command(epilog="Example: emobench datasets fer2013")
def datasets(name: Annotated[str | None, typer.Argument(help="One dataset, in detail.")] = None) -> None:
    """List the datasets, or what one of them expects on disk and its arguments."""
    _describe("dataset", name)


data_app = typer.Typer(help="Look at a dataset: audit it, show its faces.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

Name = Annotated[str, typer.Argument(help="A dataset, such as fer2013 or folder:my-faces.")]
Root = Annotated[Path, typer.Option("--root", "--data", envvar="EMOBENCH_DATA", help="Data root.")]
Arguments = Annotated[list[str] | None, typer.Option("--set", help="The dataset's argument, such as order=fer2013.")]


@data_app.command(epilog="Example: emobench data check fer2013 --root ~/faces --out audit.md")
def check(
    name: Name,
    root: Root = Path("data"),
    set_: Arguments = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="By names and sizes: no face is decoded, a million take a minute.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the report here, as .md or .json.")] = None,
) -> None:
    """Find unreadable and constant faces, duplicates and contradicting labels; count classes, splits, subjects.

    Exit code 1 where more faces than max_bad allows cannot be read.
    """
    from emobench.commands.data import arguments
    from emobench.commands.data import check as examine

    raise typer.Exit(0 if examine(name, root, arguments(set_ or []), pixels=not names_only, out=out) else 1)


@data_app.command(epilog="Example: emobench data show fer2013 --root ~/faces --out faces.png")
def show(
    name: Name,
    root: Root = Path("data"),
    set_: Arguments = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    each: Annotated[int, typer.Option(min=1, help="Faces of each emotion.")] = 12,
    seed: Annotated[int, typer.Option(help="Which faces.")] = 0,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("faces.png"),
) -> None:
    """Write a picture of faces with their labels, to see whether they are right."""
    from emobench.commands.data import arguments
    from emobench.commands.data import show as examine

    examine(name, root, arguments(set_ or []), split=split, each=each, seed=seed, out=out)


@app.command(epilog="Example: emobench doctor --data ~/faces")
def doctor(data: Data = Path("data"), results: Results = Path("results")) -> None:
    """Show versions, hardware, and which weights and datasets are found or missing and where to put them."""
    from emobench.commands.inventory import doctor as examine

    examine(data, results)


@app.command(hidden=True)
def cell(job: Path) -> None:
    """Run one cell in this process: how a cell on several devices is started."""
    from emobench.files import read_json
    from emobench.runner.run import Job, start

    start(Job.of(read_json(job)))


def _describe(kind: Any, name: str | None) -> None:
    from emobench.commands.inventory import describe, overview

    if name is None:
        overview(kind)
    else:
        describe(kind, name)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command. Errors that emobench raises on purpose are one message and exit code 2.

    Args:
        arguments: None: those of the process.
    """
    try:
        code = app(arguments, standalone_mode=False)  # a command's typer.Exit comes back as its code
    except Exception as error:
        from emobench.errors import EmobenchError

        if isinstance(error, EmobenchError):
            print(f"emobench: {error}", file=sys.stderr)
            sys.exit(2)
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own: a wrong option, say
            print(f"emobench: {error.format_message()}", file=sys.stderr)
            sys.exit(error.exit_code)
        raise
    sys.exit(code if isinstance(code, int) else 0)
