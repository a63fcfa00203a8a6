"""The pictures of a board. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import functools
import hashlib
import itertools
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

import numpy as np
from numpy.typing import NDArray

from emobench.errors import RawError
from emobench.evaluation.protocol import INTENSITIES
from emobench.evaluation.tracks.explanation import PICTURED
from emobench.files import replacing
from emobench.runner.store import WEBP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.text import Text

    from emobench.report.history import Run

DPI = 130
COLOURS = 64  # of a chart
FACES: Mapping[str, Any] = {"quality": 65, "method": 6}  # how Pillow writes faces: eyes see no loss
_INK, _SOFT = "#1f2937", "#6b7280"
_LINES = ("#1d4ed8", "#ea580c", "#059669", "#9333ea", "#ca8a04", "#0891b2")  # of one panel, in this order
_KEPT = 1024  # pictures, of some 20 KiB each

_drawn: OrderedDict[bytes, bytes] = OrderedDict()  # SHA-256 of what a picture shows -> its file; the newest last
P = ParamSpec("P")


def _once(draw: Callable[Concatenate[Path, P], None]) -> Callable[Concatenate[Path, P], None]:
    """Draw only what this process has not drawn before: a sweep writes its board again and again, and most of its
    pictures show what they showed then.
    """

    @functools.wraps(draw)
    def drawn(path: Path, *args: P.args, **kwargs: P.kwargs) -> None:
        inputs = pickle.dumps((draw.__name__, path.suffix, [_content(each) for each in args], _content(kwargs)))
        shown = hashlib.sha256(inputs).digest()
        if shown not in _drawn:
            draw(path, *args, **kwargs)
            _drawn[shown] = path.read_bytes()
            if len(_drawn) > _KEPT:
                _drawn.popitem(last=False)
            return
        _drawn.move_to_end(shown)
        if path.is_file() and path.read_bytes() == _drawn[shown]:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(_drawn[shown])

    return cast(Callable[Concatenate[Path, P], None], drawn)


def _content(argument: Any) -> Any:
    """An argument with the content of the files that it names, which may change under their names."""
    if isinstance(argument, Path):
        return argument.read_bytes()
    if isinstance(argument, Mapping):
        return [(name, _content(each)) for name, each in argument.items()]
    return argument


MARKED = 0.05  # share of a model, and of annotators, from which on a confusion is one that people make too


def marked(people: NDArray[np.floating], shares: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(K, K) the confusions `shares` that people make too: both do so often enough."""
    apart = 1 - np.eye(len(people))
    return np.asarray(np.minimum(np.nan_to_num(people), np.nan_to_num(shares)) * apart >= MARKED)


def _grid_alone(axes: Any, axis: str = "both", width: float = 0.8) -> None:
    """Pale lines behind what is drawn, and no frame around it."""
    axes.grid(axis=axis, color="#e5e7eb", linewidth=width)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


@_once
def confusion(
    path: Path,
    shares: NDArray[np.floating],
    emotions: Sequence[str],
    title: str,
    people: NDArray[np.floating] | None = None,
) -> None:
    """Draw a confusion matrix: of the faces of each emotion (row), the share read as each (column), in percent.

    Args:
        path: the file, WebP (lossless) or PNG by its ending.
        shares: (K, K), rows sum to 1; a row of NaN has no test face.
        emotions: the K names.
        title: shown above it, as plain text.
        people: (K, K) the same of annotators: confusions that they make too are framed; None: not known.
    """
    from matplotlib.patches import Rectangle

    figure, image, texts, name = _matrix(tuple(emotions))
    image.set_data(np.nan_to_num(shares))
    for (row, column), share in np.ndenumerate(shares):
        if np.isnan(share):
            text, colour = "n/a" if column == row else "", _SOFT
        else:  # what would round to 0 stays empty, so that the confusions stand out
            text, colour = f"{100 * share:.0f}" if share >= 0.005 else "", "white" if share > 0.55 else _INK
        texts[row][column].set(text=text, color=colour)
    frames = [
        Rectangle((column - 0.43, row - 0.43), 0.86, 0.86, fill=False, edgecolor=_LINES[1], linewidth=0.9)
        for row, column in ([] if people is None else np.argwhere(marked(people, shares)))
    ]
    for frame in frames:
        image.axes.add_patch(frame)
    name.set_text(_short(title))
    try:
        _save(figure, path)
    finally:
        for frame in frames:
            frame.remove()


@functools.lru_cache(maxsize=1)
def _matrix(emotions: tuple[str, ...]) -> tuple[Figure, AxesImage, list[list[Text]], Text]:
    """A figure, its K x K matrix and the texts on that, and its title, to be filled in: to make them takes a third of
    the time that a matrix takes to be drawn.
    """
    from matplotlib.figure import Figure

    count = len(emotions)
    side = 1.15 + 0.36 * count
    figure = Figure(figsize=(side, side), dpi=DPI)
    axes = figure.add_axes((0.21, 0.19, 0.76, 0.72))
    image = axes.imshow(np.zeros((count, count)), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5}
    texts = [
        [
            axes.text(column, row, "", fontweight="bold" if row == column else "normal", **middle)
            for column in range(count)
        ]
        for row in range(count)
    ]
    ticks = range(count)
    axes.set_xticks(ticks, emotions, fontsize=7.5, rotation=40, ha="right", rotation_mode="anchor", color=_INK)
    axes.set_yticks(ticks, emotions, fontsize=7.5, color=_INK)
    axes.tick_params(length=0)
    axes.set_xlabel("read as (%)", fontsize=8, color=_SOFT)
    axes.set_ylabel("shown", fontsize=8, color=_SOFT)
    title = axes.set_title("", fontsize=9, color=_INK, parse_math=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, image, texts, title


@_once
def ranking(path: Path, rows: Sequence[tuple[str, float, float | None, float | None]], floor: float | None) -> None:
    """Draw macro F1 of each model with its interval, best on top.

    Args:
        path: the file, WebP (lossless) or PNG by its ending.
        rows: name, value, low, high; best first.
        floor: macro F1 of the majority class, drawn as a line; None: unknown.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import offset_copy

    figure = Figure(figsize=(6.4, 0.75 + 0.3 * len(rows)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    known = [(place, low, high) for place, (_, _, low, high) in enumerate(rows) if low is not None and high is not None]
    if known:
        lines = axes.hlines(*zip(*known, strict=True), color="#2563eb", linewidth=2.2, alpha=0.45)
        lines.set_capstyle("round")
    axes.plot([value for _, value, *_ in rows], range(len(rows)), "o", color="#1d4ed8", markersize=5)
    rights = [value if high is None else high for _, value, _, high in rows]
    furthest = max(rights)
    beside = offset_copy(axes.transData, figure, 6, 0, units="points")
    before = offset_copy(axes.get_yaxis_transform(), figure, -6, 0, units="points")
    for place, ((_, value, *_), right) in enumerate(zip(rows, rights, strict=True)):
        label = axes.text(right, place, f"{value:.3f}", transform=beside, va="center", fontsize=8, color=_INK)
        label.set_in_layout(right == furthest)  # no other reaches as far, and a hundred take long to measure
    if floor is not None:
        axes.axvline(floor, color=_SOFT, linewidth=1, linestyle=":")
        axes.annotate("majority", (floor, len(rows) - 0.55), (3, 0), "data", "offset points", fontsize=7, color=_SOFT)
    axes.set_yticks([])
    for place, (name, *_) in enumerate(rows):
        axes.text(
            0, place, _short(name), transform=before, ha="right", va="center", fontsize=8.5, color=_INK,
            parse_math=False,
        )  # fmt: skip
    axes.set_ylim(len(rows) - 0.4, -0.6)
    ends = [end for _, value, low, high in rows for end in (value, low, high) if end is not None]
    margin = 0.12 * max(max(ends) - min(ends), 0.05)
    axes.set_xlim(min(ends) - margin, max(ends) + 1.6 * margin)
    axes.tick_params(length=0, labelsize=8, labelcolor=_SOFT)
    _grid_alone(axes, "x")
    axes.set_xlabel("macro F1, 95 % interval", fontsize=8.5, color=_SOFT)
    _save(figure, path)


@_once
def curves(path: Path, rows: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Draw panel probability over the intensity asked for.

    Args:
        path: the file, WebP (lossless) or PNG by its ending.
        rows: model -> intensities, probabilities.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for (name, (levels, probabilities)), marker in zip(rows.items(), itertools.cycle("osD^v<>"), strict=False):
        axes.plot(levels, probabilities, marker=marker, markersize=4, linewidth=1.5, label=_short(name))
    axes.set_ylim(0, 1)
    axes.set_xlabel("intensity asked for", fontsize=8.5, color=_SOFT)
    axes.set_ylabel("panel's probability of the emotion", fontsize=8.5, color=_SOFT)
    axes.tick_params(length=0, labelsize=8, labelcolor=_SOFT)
    _grid_alone(axes)
    for text in axes.legend(fontsize=7.5, frameon=False).get_texts():
        text.set_parse_math(False)
    _save(figure, path)


@_once
def fading(path: Path, rows: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Draw how the probability of an answer falls while a face gives way to the mean face, and rises the other way.

    Args:
        path: the file, WebP (lossless) or PNG by its ending.
        rows: model -> deletion and insertion, probabilities at evenly spaced shares of the pixels, from none to all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 2.9), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    headings = ("deletion: what counts most goes first", "insertion: what counts most comes first")
    for place, (axes, heading) in enumerate(zip(panels, headings, strict=True)):
        for (name, curves), marker in zip(rows.items(), itertools.cycle("osD^v<>"), strict=False):
            shares = np.linspace(0, 100, len(curves[place]))
            axes.plot(shares, curves[place], marker=marker, markersize=3, linewidth=1.3, label=_short(name, 24))
        axes.set_title(heading, fontsize=8.5, color=_SOFT)
        axes.set_ylim(0, 1)
        axes.set_xlabel("pixels, %", fontsize=8, color=_SOFT)
        axes.tick_params(length=0, labelsize=7.5, labelcolor=_SOFT)
        _grid_alone(axes)
    panels[0].set_ylabel("probability of what was read", fontsize=8, color=_SOFT)
    lines = panels[1].get_legend_handles_labels()
    for text in figure.legend(*lines, loc="outside right center", fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)
    _save(figure, path)


@_once
def training(path: Path, title: str, runs: Sequence[Run]) -> None:
    """Draw how a row was trained, epoch by epoch: its losses, its validation scores and its learning rate.

    Args:
        path: the file, WebP (lossless) or PNG by its ending.
        title: shown above it, as plain text.
        runs: a seed each, drawn over each other in the same colours; those without a history are left out.
    """
    from matplotlib.figure import Figure

    known = [(run, run.history) for run in runs if run.history is not None]
    scores = list(dict.fromkeys(name for _, history in known for name in history.scores))[: len(_LINES)]
    validation = {"validation": scores} if scores else {}  # which a fit may leave out
    panels = {"loss": ["train_loss", "val_loss"], **validation, "learning rate": ["lr"]}
    figure = Figure(figsize=(6.6, 1.9), dpi=100)
    figure.suptitle(_short(title), fontsize=8.5, y=0.96, color=_INK, parse_math=False)
    # Places by hand: to have them found takes as long as all the rest.
    places = {"left": 0.055, "right": 0.99, "bottom": 0.2, "top": 0.76, "wspace": 0.25}
    for axes, (heading, names) in zip(figure.subplots(1, len(panels), gridspec_kw=places), panels.items(), strict=True):
        for name, colour in zip(names, _LINES, strict=False):
            label: str | None = name.removeprefix("val_") if heading == "validation" else name.removesuffix("_loss")
            for run, history in known:
                if name in history.columns and not np.isnan(history.columns[name]).all():
                    values, epochs = history.columns[name], np.add(history.epochs, 1)
                    marker = "." if len(epochs) < 12 else ""  # a single epoch is no line
                    axes.plot(epochs, values, f"{marker}-", color=colour, linewidth=1.1, markersize=3, label=label)
                    label = None
                if run.best is not None:
                    axes.axvline(run.best + 1, color=_SOFT, linewidth=0.7, linestyle=":")
        if heading == "learning rate":
            axes.set_ylim(bottom=0)
        _plain(axes, heading)
        if len(names) > 1 and axes.lines:
            for text in axes.legend(fontsize=6, frameon=False, handlelength=1.2, labelspacing=0.2).get_texts():
                text.set_parse_math(False)
    _save(figure, path)


def _plain(axes: Axes, heading: str) -> None:
    """A small panel over epochs, without a frame."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(heading, fontsize=7.5, color=_SOFT)
    axes.set_xlabel("epoch", fontsize=7, color=_SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.yaxis.get_offset_text().set_fontsize(6)
    axes.tick_params(length=0, labelsize=6.5, labelcolor=_SOFT)
    _grid_alone(axes, width=0.6)


@_once
def strip(
    path: Path, times: NDArray[np.floating], shares: NDArray[np.floating], emotions: Sequence[str], title: str
) -> None:
    """Draw the probabilities of emotions over time: a strip for each, filled from 0 to its probability.

    Args:
        path: the file, WebP (lossless) or PNG by its ending.
        times: (N,) s, ascending.
        shares: (N, K); a row of NaN: no face was found then.
        emotions: the K names.
        title: shown above it, as plain text.
    """
    from matplotlib.figure import Figure

    known = ~np.isnan(shares).any(1)
    read = np.where(known, np.nan_to_num(shares).argmax(1), -1)  # the emotion that is said of each frame
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    edges = np.append(times, times[-1] + step)  # each frame is shown until the next
    top = min(1.0, np.ceil(4 * np.nanmax(shares, initial=0.01)) / 4)
    high = 0.95 + 0.36 * len(emotions)  # inches
    figure = Figure(figsize=(8.2, high), dpi=DPI)
    places = {"left": 0.12, "right": 0.98, "bottom": 0.52 / high, "top": 1 - 0.3 / high, "hspace": 0.25}
    strips = figure.subplots(len(emotions), 1, sharex=True, squeeze=False, gridspec_kw=places)[:, 0]
    for k, (axes, emotion) in enumerate(zip(strips, emotions, strict=True)):
        for heights, colour in (
            (np.where(known, top, np.nan), "#f3f4f6"),
            (shares[:, k], "#93c5fd"),
            (np.where(read == k, shares[:, k], np.nan), "#1d4ed8"),
        ):
            axes.stairs(heights, edges, fill=True, color=colour, linewidth=0)
        axes.set_ylim(0, top)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_yticks([top / 2], [emotion], fontsize=8)
        axes.tick_params(length=0, labelsize=8, labelcolor=_SOFT)
        axes.yaxis.get_ticklabels()[0].set(color=_INK, parse_math=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
    says = f"time, s. Each strip: probability from 0 to {top:g}; dark: the emotion that is read; white: no face found"
    strips[-1].set_xlabel(says, fontsize=8, color=_SOFT)
    figure.suptitle(_short(title, 80), fontsize=9, y=1 - 0.06 / high, va="top", color=_INK, parse_math=False)
    _save(figure, path)


@_once
def edits(path: Path, grids: Mapping[str, Path], emotions: Sequence[str], sources: int = 4) -> None:
    """Draw the same sources, every emotion, every model: one line a source and model. Lossy, as `grid` is.

    Args:
        path: the file, WebP or PNG by its ending.
        grids: model -> picture with a line for each source: itself, then each emotion, the same sources for all.
        emotions: the K of the columns.
        sources: so many of them, spread over all.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    columns = len(emotions) + 1
    opened = {name: Image.open(file).convert("RGB") for name, file in grids.items()}
    width = next(iter(opened.values())).width  # that of all, unless somebody changed one
    resized = {name: each.resize((width, each.height * width // each.width)) for name, each in opened.items()}
    pictures = {name: np.asarray(each) for name, each in resized.items()}
    side = width // columns
    lines = next(iter(pictures.values())).shape[0] // side
    chosen = np.linspace(0, lines - 1, min(sources, lines)).round().astype(int)
    stack = [picture[line * side : (line + 1) * side] for line in chosen for picture in pictures.values()]
    canvas = np.concatenate(stack)
    high, wide = canvas.shape[0] / 72, canvas.shape[1] / 72  # inches
    figure = Figure(figsize=(wide + 1.6, high + 0.35), dpi=DPI)
    axes = figure.add_axes((1.55 / (wide + 1.6), 0, wide / (wide + 1.6), high / (high + 0.35)))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_xticks((np.arange(columns) + 0.5) * side, ["source", *emotions], fontsize=8, color=_INK)
    axes.xaxis.tick_top()
    axes.set_yticks((np.arange(len(stack)) + 0.5) * side, [_short(name, 22) for name in pictures] * len(chosen))
    for label in axes.get_yticklabels():
        label.set(fontsize=8, color=_INK, parse_math=False)
    axes.tick_params(length=0)
    for place in range(1, len(chosen)):
        axes.axhline(place * len(pictures) * side - 0.5, color="white", linewidth=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _save(figure, path, FACES)


@_once
def grid(path: Path, file: Path, lines: Sequence[str], columns: Sequence[str] = ()) -> None:
    """Draw a grid of faces with what its lines and columns are; the picture that a cell made stays as it is.

    Lossy, which eyes do not see, so that a board is no larger for it: the lossless faces lie in the cell's folder.

    Args:
        path: the WebP to write.
        file: faces in lines and columns, of one size.
        lines: a name a line of faces.
        columns: a name a column; none: the faces of a line differ in nothing that has a name.

    Raises:
        RawError: the picture is no grid of so many lines and columns of square faces.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    with Image.open(file) as opened:
        picture = np.asarray(opened.convert("RGB"))
    side = picture.shape[0] // max(1, len(lines))
    across = picture.shape[1] // max(1, side)
    if picture.shape[:2] != (side * len(lines), side * across) or len(columns) not in (0, across):
        raise RawError(file, f"is no grid of {len(lines)} lines of {len(columns) or 'some'} faces")
    high, wide = (length / DPI for length in picture.shape[:2])  # inches: a pixel of a face is one of the figure
    left, top = 0.85, 0.25 if columns else 0.0
    figure = Figure(figsize=(wide + left, high + top), dpi=DPI)
    axes = figure.add_axes((left / (wide + left), 0, wide / (wide + left), high / (high + top)))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_xticks((np.arange(len(columns)) + 0.5) * side - 0.5, columns, fontsize=7)
    axes.xaxis.tick_top()
    axes.set_yticks((np.arange(len(lines)) + 0.5) * side - 0.5, [_short(line, 14) for line in lines], fontsize=7)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(color=_INK, parse_math=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _save(figure, path, FACES)


def names(emotions: Sequence[str], kind: str) -> tuple[Sequence[str], ...] | None:
    """What the lines, and the columns, of a grid of faces of a kind are called; None: not known here."""
    if kind in ("samples", "text"):
        return (emotions,)
    if kind == "intensity":
        return [each for each in emotions if each != "neutral"], [f"{level:g}" for level in INTENSITIES]
    if kind == "explained":
        return emotions, ["face", "map"] * PICTURED
    if kind == "means":
        return emotions, ["right", "wrong"]
    return None


def check(path: Path, columns: int) -> None:
    """Whether a picture that a cell made can be shown.

    Args:
        columns: faces that stand beside each other in it.

    Raises:
        RawError: it is no picture, or one of another form.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width = picture.width
            picture.load()
    except Exception as error:  # whatever a decoder makes of what is no picture
        raise RawError(path, f"is no picture that can be read ({type(error).__name__}: {error})") from error
    if width % columns:
        raise RawError(path, f"a picture {width} px wide does not hold {columns} faces a line")


def _short(text: str, length: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _save(figure: Figure, path: Path, faces: Mapping[str, Any] | None = None) -> None:
    """Write the picture beside its place and move it there; the same picture gives the same bytes.

    Args:
        faces: how Pillow writes a WebP with faces; None: a chart, lossless but for shades of the same colour at the
            edges of letters and lines, without which it is half as large.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    with replacing(path) as temporary:
        if kind != "webp":
            figure.savefig(temporary, format=kind, metadata={"Software": None})
        elif faces is not None:
            figure.savefig(temporary, format=kind, pil_kwargs=dict(faces))
        else:
            _save_chart(figure, temporary)


def _save_chart(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture = drawn.quantize(COLOURS, dither=Image.Dither.NONE).convert("RGB")
    picture.save(path, "WEBP", **WEBP)
