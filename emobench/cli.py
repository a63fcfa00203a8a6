"""The command: one function for each subcommand, options in and one call into `commands`.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

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


def _home(given: Path | list[Path] | None) -> Any:
    """`~` in a path, which no shell expands behind `--data=` or in a variable."""
    if isinstance(given, list):
        return [_home(each) for each in given]
    try:
        return None if given is None else given.expanduser()
    except RuntimeError as error:  # ~nobody-of-this-name
        raise typer.BadParameter(f"{given}: {error}") from None


Results = Annotated[
    Path, typer.Option("--results", callback=_home, help="Folder of the results and of the store of cells.")
]
Data = Annotated[
    Path,
    typer.Option("--data", envvar="EMOBENCH_DATA", callback=_home, help="Data root, which holds <root>/<dataset>/."),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"emobench {version('emobench')}")
        raise typer.Exit


@app.callback()
def emobench(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Emotion classifiers and generators, measured under one protocol."""


def _pairs(given: list[str]) -> dict[str, str]:
    """`--resource name=value`, as often as it is given."""
    for each in given:
        if not all(each.partition("=")):
            raise typer.BadParameter(f"--resource {each}: no name=value, such as partition=gpu")
    return {name: value for name, _, value in (each.partition("=") for each in given)}


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
    engine: Annotated[
        str, typer.Option(help="Where cells run: local, ray, slurm, or a class of a file, such as my_engine.py:Mine.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the engine's cluster, such as auto or 10.0.0.1:6379. [default: a new one]")
    ] = None,
    resource: Annotated[
        list[str] | None, typer.Option(help="What a cell asks the cluster for, such as partition=gpu or time=240.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Keep results here too, such as s3://bucket/folder: for machines that share no folder."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Loader processes per cell. [default: 0 on a CPU, else up to 8]")
    ] = None,
    per_node: Annotated[
        int | None,
        typer.Option(
            help="Cells side by side on this machine, which share its cores. [default: one a GPU, else up to 4]"
        ),
    ] = None,
    per_gpu: Annotated[
        str | None,
        typer.Option(help="Cells that share a GPU: a number, or auto, as many as fit by --budget's measurement. [1]"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Fit the suite into such a time on this machine, as 2h or 90m: board SUITE+budget=2h. Measured once."
        ),
    ] = None,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Measure this machine again for --budget, and plan anew.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never download pre-trained weights; W&B logs offline.")
    ] = False,
    wandb: Annotated[Wandb | None, typer.Option(help="Log every cell to Weights & Biases too.")] = None,
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="EMOBENCH_WEIGHTS", callback=_home, help="Folder of the Inception weights, for FID, KID, IS."
        ),
    ] = None,
) -> None:
    """Train and measure every cell of a suite, and write its boards."""
    from emobench.commands.bench import bench

    outcome = bench(
        suite,
        set_ or [],
        results,
        data,
        name=name,
        dry_run=dry_run,
        engine=engine,
        address=address,
        resources=_pairs(resource or []),
        remote=store,
        on_existing=on_existing.value,
        workers=workers,
        per_node=per_node,
        per_gpu=per_gpu,
        budget=budget,
        recalibrate=recalibrate,
        offline=offline,
        wandb=None if wandb is None else wandb.value,
        weights_dir=weights_dir,
    )
    raise typer.Exit(outcome.exit_code)


@app.command(epilog="Example: emobench report demo")
def report(
    board: Annotated[str, typer.Argument(help="The board's name, its folder, or the file of its suite.")],
    results: Results = Path("results"),
) -> None:
    """Write a suite's boards again from its stored results."""
    from emobench.commands.report import report

    raise typer.Exit(report(board, results))


class Format(StrEnum):
    """How predictions are written."""

    table = "table"
    csv = "csv"
    json = "json"


@app.command(epilog="Example: emobench predict best:demo/synthetic-plain photo.jpg --format csv --out emotions.csv")
def predict(
    run: Annotated[
        str,
        typer.Argument(
            help="best:BOARD/DATASET (by validation), BOARD/DATASET/ROW, the key of a finished cell, or a file that "
            "`emobench export` wrote."
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(callback=_home, help="Pictures of one face each, or folders of them.")
    ],
    format_: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.table,
    out: Annotated[Path | None, typer.Option(callback=_home, help="Write it here instead of printing it.")] = None,
    results: Results = Path("results"),
) -> None:
    """Say which emotion pictures show, by a trained classifier.

    Exit code 1 where a picture cannot be read; the others are answered.
    """
    from emobench.commands.predict import predict

    raise typer.Exit(predict(run, images, format_.value, out, results))


class Form(StrEnum):
    """As what a network is exported."""

    onnx = "onnx"
    safetensors = "safetensors"
    hf = "hf"


@app.command(epilog="Example: emobench export best:demo/synthetic-plain --to onnx --out face.onnx")
def export(
    run: Annotated[str, typer.Argument(help="best:BOARD/DATASET, BOARD/DATASET/ROW, or the key of a finished cell.")],
    to: Annotated[
        Form,
        typer.Option(
            help="onnx: classifiers, and generators that draw in one pass; safetensors: any network, for emobench; hf: "
            "a folder for transformers, of vit_linear and timm:... rows."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(callback=_home, help="The file, or a folder for it. [default: exported/ROW-DATASET]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    results: Results = Path("results"),
    data: Data = Path("data"),
) -> None:
    """Write a trained network as a file for others, with a model card filled from its board.

    The file is compared with the network on 64 faces: probabilities may differ by 0.0001, made faces by one grey
    level. Exit code 1 where they differ by more; nothing is kept then.
    """
    from emobench.commands.export import export

    raise typer.Exit(export(run, to.value, out, results, data, force=force))


@app.command(epilog="Example: emobench history demo/synthetic-plain/cnn21")
def history(
    run: Annotated[
        str, typer.Argument(help="best:BOARD/DATASET (by validation), BOARD/DATASET/ROW, or the key of a cell.")
    ],
    csv: Annotated[bool, typer.Option("--csv", help="Print history.csv as it is.")] = False,
    results: Results = Path("results"),
) -> None:
    """Show how a fit went, epoch by epoch: losses, validation scores, learning rate.

    Of a row with several seeds the first one that has a history. A fit under way is shown as far as it is.
    """
    from emobench.commands.history import history

    history(run, results, csv=csv)


@app.command(epilog="Example: emobench models resnet18")
def models(name: Annotated[str | None, typer.Argument(help="One model, in detail.")] = None) -> None:
    """List the models, or one model's arguments, defaults, recipe and source."""
    from emobench.commands.inventory import inventory

    inventory("model", name)


@app.command(epilog="Example: emobench datasets fer2013")
def datasets(name: Annotated[str | None, typer.Argument(help="One dataset, in detail.")] = None) -> None:
    """List the datasets, or what one of them expects on disk and its arguments."""
    from emobench.commands.inventory import inventory

    inventory("dataset", name)


class What(StrEnum):
    """What one writes oneself."""

    classifier = "classifier"
    generator = "generator"
    dataset = "dataset"


@app.command(epilog="Example: emobench new classifier small")
def new(
    what: Annotated[What, typer.Argument(help="classifier, generator or dataset.")],
    name: Annotated[str, typer.Argument(help="By which suites and boards call it, such as small.")],
    out: Annotated[Path | None, typer.Option(callback=_home, help="The file. [default: NAME.py]")] = None,
) -> None:
    """Write a model or a dataset of your own: a file that works, and a test of it beside it."""
    from emobench.commands.new import new

    raise typer.Exit(new(what.value, name, out))


data_app = typer.Typer(help="Look at a dataset: audit it, show its faces.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

Name = Annotated[str, typer.Argument(help="A dataset, such as fer2013 or folder:my-faces.")]
Root = Annotated[Path, typer.Option("--root", "--data", envvar="EMOBENCH_DATA", callback=_home, help="Data root.")]
Arguments = Annotated[list[str] | None, typer.Option("--set", help="The dataset's argument, such as order=fer2013.")]


@data_app.command(epilog="Example: emobench data check fer2013 --root ~/faces --out audit.md")
def check(
    name: Name,
    root: Root = Path("data"),
    set_: Arguments = None,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="By names and sizes: no face is decoded, a million take a minute.")
    ] = False,
    out: Annotated[Path | None, typer.Option(callback=_home, help="Write the report here, as .md or .json.")] = None,
) -> None:
    """Find unreadable and constant faces, duplicates and contradicting labels; count classes, splits, subjects.

    Exit code 1 where more faces than max_bad allows cannot be read.
    """
    from emobench.commands.data import check

    raise typer.Exit(check(name, root, set_ or [], pixels=not names_only, out=out))


@data_app.command(epilog="Example: emobench data show fer2013 --root ~/faces --out faces.png")
def show(
    name: Name,
    root: Root = Path("data"),
    set_: Arguments = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    each: Annotated[int, typer.Option(min=1, help="Faces of each emotion.")] = 12,
    seed: Annotated[int, typer.Option(help="Which faces.")] = 0,
    out: Annotated[Path, typer.Option(callback=_home, help="The picture to write.")] = Path("faces.png"),
) -> None:
    """Write a picture of faces with their labels, to see whether they are right."""
    from emobench.commands.data import show

    show(name, root, set_ or [], split=split, each=each, seed=seed, out=out)


@app.command(epilog="Example: emobench doctor --data ~/faces")
def doctor(data: Data = Path("data"), results: Results = Path("results")) -> None:
    """Show versions, hardware, and which weights and datasets are found or missing and where to put them."""
    from emobench.commands.doctor import doctor

    doctor(data, results)


@app.command(epilog="Example: emobench clean --dry-run")
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    results: Results = Path("results"),
) -> None:
    """Delete what no board and no running sweep uses: cells, evaluations, plans, and packed faces of datasets.

    It is listed with its sizes first, and you are asked. What cannot be read is listed apart and stays. Exit code 1
    where something could not be deleted.
    """
    from emobench.commands.clean import clean

    raise typer.Exit(clean(results, dry_run=dry_run, yes=yes))


@app.command(hidden=True)
def cell(job: Path) -> None:
    """Run one cell in this process: how a cell on several devices is started."""
    from emobench.commands.cell import cell

    cell(job)


def command() -> NoReturn:
    """The process of the command: `main`, and then its end at once.

    Python would first take apart all that was imported, which takes two seconds.
    """
    ended: list[int] = []
    atexit.register(_end, ended)  # the first to be registered and so the last to be called
    try:
        main()
    except SystemExit as stop:
        if isinstance(stop.code, int):
            ended.append(stop.code)
        raise


def _end(ended: list[int]) -> None:
    """End this process with its exit code, once all is written; what keeps it from being written, Python says."""
    with contextlib.suppress(Exception):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if ended:
            os._exit(ended[0])


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command. Errors that emobench raises on purpose are one message and exit code 2.

    Args:
        arguments: None: those of the process.
    """
    from emobench.files import print_anything

    # The libraries that a command imports make a million objects that stay. Python's own limit, 700, was for looking
    # through them again and again: a quarter of the time until a command begins.
    gc.set_threshold(50_000, 10, 10)
    for stream in (sys.stdout, sys.stderr):
        print_anything(stream)
    try:
        code = app(arguments, standalone_mode=False)  # a command's typer.Exit comes back as its code
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception as error:
        from emobench.errors import EmobenchError, shown
        from emobench.files import silenced

        if isinstance(error, OSError) and silenced():
            print(f"emobench: what was to be printed could not be written ({error.strerror})", file=sys.stderr)
            sys.exit(1)
        if isinstance(error, EmobenchError):
            print(f"emobench: {error}", file=sys.stderr)
            sys.exit(2)
        if isinstance(error, OSError) and error.filename is not None:  # not on purpose, but a disk's or a right's
            print(f"emobench: {shown(os.fsdecode(error.filename))}: {error.strerror}", file=sys.stderr)
            sys.exit(2)
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own: a wrong option, say
            print(f"emobench: {error.format_message()}", file=sys.stderr)
            sys.exit(error.exit_code)
        raise
    sys.exit(code if isinstance(code, int) else 0)
