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


class Log(StrEnum):
    """Where cells are logged besides the board."""

    wandb = "wandb"
    tensorboard = "tensorboard"


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
    scale: Annotated[
        float | None,
        typer.Option(
            help="A share of faces and epochs, such as 0.05, drawn faces for datasets not here: board SUITE+scale=0.05."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never download pre-trained weights; W&B logs offline.")
    ] = False,
    log: Annotated[
        list[Log] | None, typer.Option(help="Show every cell, and the board, there too; several are possible.")
    ] = None,
    wandb: Annotated[
        Wandb | None, typer.Option(help="The same in Weights & Biases: at once, or to be uploaded later.")
    ] = None,
    samples_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between logged grids of a generator's faces. [default: 10 a fit]")
    ] = None,
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
        scale=scale,
        offline=offline,
        log=[each.value for each in log or []],
        wandb=None if wandb is None else wandb.value,
        samples_every=samples_every,
        weights_dir=weights_dir,
    )
    raise typer.Exit(outcome.exit_code)


Board = Annotated[str | None, typer.Argument(help="The board's name, its folder, or the file of its suite.")]


@app.command(epilog="Example: emobench report demo")
def report(
    board: Board = None,
    every: Annotated[bool, typer.Option("--all", help="All boards of the folder, and one page of them.")] = False,
    results: Results = Path("results"),
    data: Data = Path("data"),
) -> None:
    """Write a suite's board again from its stored results, and index.html, a page for the browser."""
    from emobench.commands.report import report

    raise typer.Exit(report(board, results, data, every=every))


@app.command(epilog="Example: emobench view demo")
def view(board: Board = None, results: Results = Path("results"), data: Data = Path("data")) -> None:
    """Open a board's page in the browser, or that of all boards; prints its path."""
    from emobench.commands.view import view

    raise typer.Exit(view(board, results, data))


@app.command(
    "check", epilog="Example: emobench check demo --min resnet18.macro_f1=0.9 --against results/demo --drop 0.02"
)
def check_board(
    board: Annotated[str, typer.Argument(help="The board's name, its folder, or the file of its suite.")],
    least: Annotated[
        list[str] | None, typer.Option("--min", help="ROW.METRIC=VALUE: no figure of the row may be below it.")
    ] = None,
    greatest: Annotated[
        list[str] | None, typer.Option("--max", help="ROW.METRIC=VALUE: likewise above it, as of a distance.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(callback=_home, help="Folder of another board: no row may rank by a worse figure.")
    ] = None,
    drop: Annotated[
        float, typer.Option(min=0.0, help="By how much it may be worse; of distances, as a share of the former one.")
    ] = 0.0,
    results: Results = Path("results"),
) -> None:
    """Check that a board's figures are as high as they have to be, for CI: exit code 1 where one is not."""
    from emobench.commands.check import Bound, check

    bounds = [Bound.of(text, least=True) for text in least or []]
    bounds += [Bound.of(text, least=False) for text in greatest or []]
    raise typer.Exit(check(board, results, bounds, against, drop))


@app.command(epilog="Example: emobench compare demo/resnet18 cnn21 --on synthetic-plain")
def compare(
    first: Annotated[str, typer.Argument(help="BOARD/ROW, BOARD/DATASET/ROW or best:BOARD/DATASET.")],
    second: Annotated[str, typer.Argument(help="Likewise; ROW alone is one of the same board.")],
    on: Annotated[str | None, typer.Option(help="The dataset, where a row stands on several.")] = None,
    out: Annotated[Path, typer.Option(callback=_home, help="Folder of what is written.")] = Path("compared"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    results: Results = Path("results"),
    data: Data = Path("data"),
) -> None:
    """Compare two rows on the same faces: figures, emotions, slices, and the faces on which they disagree.

    Rows of one board, or of two on the same test faces. Also written as compare.md and compare.json, with a picture of
    the faces where these are nobody's.
    """
    from emobench.commands.compare import compare

    raise typer.Exit(compare(first, second, on, results, data, out, force=force))


class Format(StrEnum):
    """How predictions are written."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"


Reader = Annotated[
    str,
    typer.Argument(
        help="best:BOARD/DATASET (by validation), BOARD/DATASET/ROW, the key of a finished cell, or a file that "
        "`emobench export` wrote."
    ),
]


@app.command(epilog="Example: emobench predict best:demo/synthetic-plain holiday.mp4 --detect --chart strip.png")
def predict(
    run: Reader,
    images: Annotated[
        list[Path],
        typer.Argument(
            callback=_home,
            help="Pictures of one face each, folders of them, videos, or -, a picture on standard input.",
        ),
    ],
    format_: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.table,
    out: Annotated[Path | None, typer.Option(callback=_home, help="Write it here instead of printing it.")] = None,
    detect: Annotated[bool, typer.Option("--detect", help="Find the faces first: each, with its box.")] = False,
    detector: Annotated[
        Path | None,
        typer.Option(callback=_home, help="YuNet's ONNX file, to find them by. [default: scikit-image's cascade]"),
    ] = None,
    margin: Annotated[float, typer.Option(min=0, max=2, help="Around a face that is found, a share of its box.")] = 0.0,
    every: Annotated[float, typer.Option(min=0, help="Seconds between frames of a video; 0: all are read.")] = 0.0,
    chart: Annotated[
        Path | None, typer.Option(callback=_home, help="Draw a video's emotions over time here, as .png.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    results: Results = Path("results"),
) -> None:
    """Say which emotion pictures show, by a trained classifier; of videos frame by frame.

    Exit code 1 where a picture cannot be read; the others are answered. That no face is found is an answer.
    """
    from emobench.commands.predict import Finding, predict

    finding = Finding(detect or detector is not None, detector, margin, every)
    raise typer.Exit(predict(run, images, format_.value, out, results, finding=finding, chart=chart, force=force))


Network = Annotated[
    str,
    typer.Argument(
        help="best:BOARD/DATASET (by calibrated control), BOARD/DATASET/ROW, or the key of a finished cell."
    ),
]
Images = Annotated[list[Path], typer.Argument(callback=_home, help="Pictures of one face each, or folders of them.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Seed = Annotated[int, typer.Option(min=0, max=2**62, help="Of the noise: the same seed gives the same face.")]
Intensity = Annotated[
    float, typer.Option(min=0, max=1, help="Of the emotion, from neutral: t gives (1 - t) neutral + t emotion.")
]


@app.command(epilog="Example: emobench generate best:demo/synthetic-plain --emotion happy --emotion sad --n 8")
def generate(
    run: Network,
    emotion: Annotated[
        list[str] | None, typer.Option(help="Such as happy, in any usual spelling, or all; a row for each.")
    ] = None,
    mix: Annotated[list[str] | None, typer.Option(help="A mixture, as happy=0.6,surprise=0.4; a row for each.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A sentence, as 'she just heard that she won'; a row for each.")
    ] = None,
    text_model: Annotated[
        str | None, typer.Option(help="Read sentences with a network of transformers: a repository or a folder.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, max=100_000, help="Faces of each emotion and mixture.")] = 8,
    seed: Seed = 0,
    intensity: Intensity = 1.0,
    as_scored: Annotated[
        bool,
        typer.Option(
            "--as-scored", help="The very faces that the row was measured on: fidelity/EMOTION and control/EMOTION."
        ),
    ] = False,
    out: Annotated[Path, typer.Option(callback=_home, help="Folder of the pictures.")] = Path("generated"),
    force: Force = False,
    results: Results = Path("results"),
    data: Data = Path("data"),
) -> None:
    """Draw faces of emotions by a trained generator: PNGs, a contact sheet, and a table of seeds and weights."""
    from emobench.commands.generate import generate, generate_as_measured

    if not as_scored:
        generate(
            run,
            emotion or [],
            mix or [],
            text or [],
            text_model=text_model,
            n=n,
            seed=seed,
            intensity=intensity,
            out=out,
            force=force,
            results=results,
        )
        return
    if emotion or mix or text or (n, seed, intensity) != (8, 0, 1.0):
        raise typer.BadParameter("--as-scored draws what was measured: leave out emotions, seeds and intensity")
    generate_as_measured(run, out=out, force=force, results=results, data_root=data)


@app.command(epilog="Example: emobench edit best:demo/synthetic-plain photo.jpg --to surprise --to sad")
def edit(
    run: Network,
    images: Images,
    to: Annotated[list[str], typer.Option(help="The emotion, in any usual spelling, or all; several are possible.")],
    seed: Seed = 0,
    intensity: Intensity = 1.0,
    out: Annotated[Path, typer.Option(callback=_home, help="Folder of the pictures.")] = Path("edited"),
    force: Force = False,
    results: Results = Path("results"),
) -> None:
    """Give pictures of people another emotion by a trained editor: PNGs, a contact sheet, and a table.

    Exit code 1 where a picture cannot be read; the others are edited.
    """
    from emobench.commands.edit import edit

    raise typer.Exit(edit(run, images, to, seed=seed, intensity=intensity, out=out, force=force, results=results))


@app.command(epilog="Example: emobench morph best:demo/synthetic-plain --from neutral --to happy --out smile.gif")
def morph(
    run: Network,
    out: Annotated[Path, typer.Option(callback=_home, help="A .gif, which loops, an .mp4, or a strip, .png.")],
    to: Annotated[str, typer.Option(help="The emotion at the end.")],
    from_: Annotated[str, typer.Option("--from", help="The emotion at the beginning.")] = "neutral",
    frames: Annotated[int, typer.Option(min=2, max=1000, help="From the one to the other.")] = 24,
    image: Annotated[
        Path | None,
        typer.Option(callback=_home, help="A picture of the person, who is edited. [default: one is drawn]"),
    ] = None,
    seed: Seed = 0,
    fps: Annotated[float, typer.Option(min=1, max=50, help="Frames a second.")] = 12.0,
    back: Annotated[bool, typer.Option("--back", help="And back again.")] = False,
    force: Force = False,
    results: Results = Path("results"),
) -> None:
    """Show one person's way from one emotion to another, drawn from one seed or edited, as a film or a strip."""
    from emobench.commands.morph import morph

    morph(
        run, from_, to, frames=frames, out=out, image=image, seed=seed, fps=fps, back=back, force=force, results=results
    )


@app.command(epilog="Example: emobench stylize best:demo/synthetic-plain photo.jpg --emotion happy")
def stylize(
    run: Network,
    images: Annotated[list[Path], typer.Argument(callback=_home, help="Pictures of any form, or folders of them.")],
    emotion: Annotated[
        list[str] | None,
        typer.Option(help="Whose style, or all; several are possible. [default: what is read in each picture]"),
    ] = None,
    longest: Annotated[int, typer.Option(min=16, help="Side, px, to which larger pictures are scaled first.")] = 1024,
    out: Annotated[Path, typer.Option(callback=_home, help="Folder of the pictures.")] = Path("stylized"),
    force: Force = False,
    results: Results = Path("results"),
) -> None:
    """Paint pictures in the style of an emotion by a trained style transfer: PNGs, a contact sheet, and a table.

    Exit code 1 where a picture cannot be read; the others are painted.
    """
    from emobench.commands.stylize import stylize

    raise typer.Exit(stylize(run, images, emotion or [], longest=longest, out=out, force=force, results=results))


class Heads(StrEnum):
    """How the heads of a layer become one."""

    mean = "mean"
    max = "max"
    min = "min"


@app.command(epilog="Example: emobench explain best:demo/synthetic-plain photo.jpg --out looked")
def explain(
    run: Reader,
    images: Images,
    emotion: Annotated[
        str | None, typer.Option(help="That a map of Grad-CAM is of. [default: what is read in each picture]")
    ] = None,
    head_fusion: Annotated[Heads, typer.Option(help="Of a rollout: how the heads of a layer become one.")] = Heads.mean,
    discard_ratio: Annotated[
        float,
        typer.Option(min=0, max=0.99, help="Of a rollout: the share of a layer's attentions that is left out."),
    ] = 0.0,
    out: Annotated[Path, typer.Option(callback=_home, help="Folder of the maps.")] = Path("explained"),
    force: Force = False,
    results: Results = Path("results"),
) -> None:
    """Show where a trained classifier looks: attention rollout of a ViT, Grad-CAM of a CNN, as PNGs and arrays.

    Grad-CAM needs captum: pip install 'emobench[explain]'. Exit code 1 where a picture cannot be read.
    """
    from emobench.commands.explain import explain

    how: dict[str, Any] = {"fusion": head_fusion.value, "discard": discard_ratio}
    raise typer.Exit(explain(run, images, emotion=emotion, **how, out=out, force=force, results=results))


@app.command(epilog="Example: emobench demo best:demo/synthetic-plain")
def demo(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BOARD|RUN]...",
            help="Boards; best:BOARD/DATASET, BOARD/DATASET/ROW, keys of finished cells; or files that `emobench "
            "export` wrote. [default: the board demo, else the newest]",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: one that is free.")] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the page's address.")] = False,
    results: Results = Path("results"),
) -> None:
    """Serve a page on this machine: read, draw and edit faces, and compare networks, by those that are finished.

    Nothing leaves the machine, and pictures are not kept. Ctrl-C ends it.
    """
    from emobench.commands.demo import demo

    demo(runs or [], results, port=port, browser=not no_browser)


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


data_app = typer.Typer(
    help="Look at a dataset: audit it, show and list its faces.", no_args_is_help=True, rich_markup_mode=None
)
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


@data_app.command(epilog="Example: emobench data faces fer2013 --split test --out faces.csv")
def faces(
    name: Name,
    root: Root = Path("data"),
    set_: Arguments = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    out: Annotated[Path, typer.Option(callback=_home, help="The table to write.")] = Path("faces.csv"),
    pictures: Annotated[
        Path | None, typer.Option(callback=_home, help="Write the faces here too, at their own size.")
    ] = None,
) -> None:
    """List a split's faces: what a file of predictions names, and a model of yours can be run on."""
    from emobench.commands.data import faces

    faces(name, root, set_ or [], split=split, out=out, pictures=pictures)


class Scored(StrEnum):
    """What is scored."""

    model = "model"
    predictions = "predictions"
    images = "images"


@app.command(epilog='Example: emobench score model face.onnx --data fer2013 --set trained_on="AffectNet"')
def score(
    what: Annotated[Scored, typer.Argument(help="model, predictions (of one, as a file), or images (of a generator).")],
    named: Annotated[
        str,
        typer.Argument(help="onnx:FILE, hf:REPOSITORY, timm:NAME, python:FILE.py:NAME; or a file or folder."),
    ],
    dataset: Annotated[str, typer.Option("--data", help="The dataset, such as fer2013 or folder:my-faces.")],
    board: Annotated[
        Path | None,
        typer.Option(callback=_home, help="Compare with this board's rows, by its judges: results/BOARD."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Of the row, such as range=[0,1], or data.size=48 of its dataset.")
    ] = None,
    split: Annotated[str, typer.Option(help="test, or validation: for choosing settings.")] = "test",
    name: Annotated[str | None, typer.Option(help="The row's name. [default: the file's]")] = None,
    results: Results = Path("results"),
    root: Annotated[Path, typer.Option("--root", envvar="EMOBENCH_DATA", callback=_home, help="Data root.")] = Path(
        "data"
    ),
) -> None:
    """Measure an outside model, its predictions, or a generator's pictures, without writing a suite."""
    from emobench.commands.score import score

    raise typer.Exit(
        score(
            what.value,
            named,
            dataset,
            board=board,
            given=set_ or [],
            split=split,
            name=name,
            results=results,
            data=root,
        )
    )


wandb_app = typer.Typer(help="What is shown in Weights & Biases.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(wandb_app, name="wandb")


@wandb_app.command(epilog="Example: emobench wandb dashboard demo --project faces")
def dashboard(
    board: Annotated[str, typer.Argument(help="The board's name, its folder, or the file of its suite.")],
    entity: Annotated[str | None, typer.Option(help="User or team. [default: as the suite says, or the key's]")] = None,
    project: Annotated[str | None, typer.Option(help="Of the runs. [default: as the suite says, or emobench]")] = None,
    out: Annotated[
        Path | None,
        typer.Option(callback=_home, help="Write what it is made of here, as .json, and ask nobody."),
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Write a report of a board's runs: a part for each dataset, grouped by model, with each track's figures."""
    from emobench.commands.dashboard import dashboard

    raise typer.Exit(dashboard(board, results, entity=entity, project=project, out=out))


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
