"""What the commands that make pictures share: what is asked for, the files that are written, and a sheet of them."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emobench.errors import EmobenchError, StoreError, printable_name
from emobench.report.markdown import csv_cell, one_line

if TYPE_CHECKING:
    from emobench.cues.reader import Cue

SHEET = "sheet.png"
BATCH = 64  # faces that a network makes at a time
_ON_A_SHEET = 240  # pictures at most, of what is written one by one too
_ACROSS = 12  # pictures beside each other, at most
_SHOWN = 128, 256  # px: small pictures are enlarged to about the first, large ones reduced to the second
_TEXT, _WIDEST = 15, 240  # px: height of the letters, and width of the longest caption
_GAP = 8  # px
_LONGEST_STEM = 150  # characters of a file's name that the name of what is made of it keeps
T = TypeVar("T")


# What is asked for


@dataclass(frozen=True)
class Request:
    """An emotion, or a mixture, as a network is asked for it.

    Attributes:
        emotion: such as happy or happy0.6+surprise0.4.
        words: the same for people.
        weights: float32 (K,), of the network's emotions; they sum to 1.
        intensity: from 0, neutral, to 1.
    """

    emotion: str
    words: str
    weights: np.ndarray
    intensity: float

    @property
    def name(self) -> str:
        """In names of files."""
        return self.emotion if self.intensity == 1 else f"{self.emotion}-{self.intensity:g}"

    @property
    def caption(self) -> str:
        return self.words if self.intensity == 1 else f"{self.words}, {100 * self.intensity:g} %"


def requests(emotions: Sequence[str], mixes: Sequence[str], intensity: float, known: Sequence[str]) -> list[Request]:
    """What `--emotion` and `--mix` ask for, each once.

    Args:
        emotions: in any of their usual spellings; "all": every one that the network knows.
        mixes: such as "happy=0.6,surprise=0.4".
        intensity: t of (1 − t)·neutral + t·emotion.
        known: the K emotions of the network.

    Raises:
        EmobenchError: an emotion that the network does not know, weights that are none or do not sum to 1, or an
            intensity below 1 of a network that knows no neutral face.
    """
    named = [each for name in emotions for each in (known if name.strip().lower() == "all" else [name])]
    wanted = []
    for weights in (*(row(each, known) for each in named), *(mixed(text, known) for text in mixes)):
        shares = [(each, f"{share:g}") for each, share in zip(known, weights.tolist(), strict=True) if share]
        emotion = words = shares[0][0]
        if len(shares) > 1:
            emotion, words = "+".join(map("".join, shares)), " + ".join(map(" ".join, shares))
        wanted.append(Request(emotion, words, at_intensity(weights, intensity, known), intensity))
    return list({each.name: each for each in wanted}.values())


def told(texts: Sequence[str], known: Sequence[str], model: str | None = None) -> list[Request]:
    """What `--text` asks for, each sentence as its reader understands it; says on stderr how.

    Args:
        model: a text classification network of transformers in the lexicon's place.

    Raises:
        EmobenchError: a text is empty or too long, or the network cannot be loaded.
    """
    from emobench.cues.reader import CueReader
    from emobench.cues.request import weights_of

    if not texts:
        return []
    if model is None:
        reader: Any = CueReader()
    else:
        from emobench.cues.text_model import TextModel

        reader = TextModel(model)
    found = []
    for number, text in enumerate(texts, 1):
        cue = reader.read(text)
        for line in understood(text, cue, known):
            note(line)
        found.append(Request(f"text{number}", text, weights_of(cue, known).astype(np.float32), 1.0))
    return found


def understood(text: str, cue: Cue, known: Sequence[str]) -> list[str]:
    """What a sentence was read as, and by what, in words; and that a network of the emotions `known` cannot show it."""
    felt = sorted(((share, name) for name, share in cue.weights.items() if share >= 0.05), reverse=True)
    said = ", ".join(f"{name} {share:.2f}" for share, name in felt)
    cues = "; ".join(f"'{each.words}' {each.emotion}" for each in cue.found[:6])
    why = "no cue of an emotion, so neutral" if cue.says_nothing else f"by {cues}" if cues else "by the network"
    lines = [f"{text!r}: {said}, intensity {cue.intensity:.2f} ({why})"]
    if cue.emotion not in known and not cue.says_nothing:
        lines.append(f"this network knows no {cue.emotion}")
    return lines


def at_intensity(weights: np.ndarray, intensity: float, known: Sequence[str]) -> np.ndarray:
    """(1 − t)·neutral + t·weights, float32 (K,).

    Raises:
        EmobenchError: t is below 1, and the network knows no neutral face.
    """
    if intensity == 1:
        return weights
    if "neutral" not in known:
        raise EmobenchError(
            f"--intensity {intensity:g}: this network knows no neutral face to begin from, only {', '.join(known)}. "
            "Leave it out"
        )
    return ((1 - intensity) * row("neutral", known) + intensity * weights).astype(np.float32)


def row(emotion: str, known: Sequence[str]) -> np.ndarray:
    """An emotion, in any of its usual spellings, as weights float32 (K,).

    Raises:
        EmobenchError: the network does not know it; says which it knows.
    """
    from emobench.generators.asking import emotion_rows  # imports torch, which comparing boards does without

    try:
        return emotion_rows([emotion], known)[0].numpy()
    except ValueError as error:
        raise EmobenchError(str(error)) from None


def mixed(text: str, known: Sequence[str]) -> np.ndarray:
    """The weights float32 (K,) that `--mix happy=0.6,surprise=0.4` says.

    Raises:
        EmobenchError: they are no shares of emotions that sum to 1.
    """
    weights = np.zeros(len(known), np.float64)
    for part in text.split(","):
        name, equals, share = part.partition("=")
        try:
            value = float(share) if equals else math.nan
        except ValueError:
            value = math.nan
        place = int(row(name.strip(), known).argmax())
        if not 0 < value <= 1:
            raise EmobenchError(f"--mix {text}: '{part.strip()}' is no share above 0. Write happy=0.6,surprise=0.4")
        if weights[place]:
            raise EmobenchError(f"--mix {text}: {known[place]} stands there twice")
        weights[place] = value
    if not math.isclose(weights.sum(), 1, abs_tol=1e-6):
        parts = zip(known, (weights / weights.sum()).tolist(), strict=True)
        shares = ",".join(f"{emotion}={part:.3g}" for emotion, part in parts if part)
        raise EmobenchError(f"--mix {text}: the shares sum to {weights.sum():g}, not to 1. Perhaps {shares}?")
    return weights.astype(np.float32)


# Files


def check_new(paths: Iterable[Path], force: bool) -> None:
    """Make the folders of files that are written later, and refuse to overwrite what is there.

    Raises:
        StoreError: a file is there and `force` is not said, a folder has its name, or it cannot be written.
    """
    paths = list(paths)
    there = [path for path in paths if os.path.lexists(path) and (path.is_file() or not path.exists())]
    if there and not force:
        more = f" (and {len(there) - 1:,} more)" if len(there) > 1 else ""
        raise StoreError(f"{there[0]}: is there already{more}. --force overwrites it, --out names another place")
    for path in paths:
        if path.is_dir():
            raise StoreError(f"{path}: a folder has this name. Choose another place by --out")
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"--out {folder}: no folder can be made there ({reason}). Choose another one") from error
        if not os.access(folder, os.W_OK):
            raise StoreError(f"--out {folder}: may not be written. Choose another place")


def stems(files: Sequence[Path]) -> list[str]:
    """A name for what is made of each file: its own without the suffix, with a number where several have the same."""
    used: set[str] = set()
    found = []
    for file in files:
        stem = "stdin" if str(file) == "-" else file.stem[:_LONGEST_STEM]
        name = next(name for name in _numbered(stem) if name.lower() not in used)
        used.add(name.lower())
        found.append(name)
    return found


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


def save(path: Path, picture: np.ndarray) -> None:
    """Write a picture uint8 (3, h, w) as PNG, whole or not at all; the same picture gives the same bytes."""
    from emobench.files import replacing

    with replacing(path) as temporary:
        as_image(picture).save(temporary, "PNG")


def as_image(picture: np.ndarray) -> Image.Image:
    """A picture uint8 (3, h, w) as Pillow's."""
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def save_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV, whole or not at all."""
    import csv
    import io

    from emobench.files import write_text

    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([csv_cell(cell) for cell in row] for row in rows)
    write_text(path, file.getvalue())


# Sheets


@dataclass
class Sheet:
    """Pictures in lines, each line and each picture with a caption; of many the first ones alone.

    Attributes:
        most: pictures on it.
        lines: caption, and the pictures uint8 (3, h, w) with theirs.
        left_out: how many more there were.
    """

    most: int = _ON_A_SHEET
    lines: list[tuple[str, list[tuple[str, np.ndarray]]]] = field(default_factory=list)
    left_out: int = 0

    def add(self, line: str, caption: str, picture: np.ndarray) -> None:
        """Put a picture at the end of the last line where that is called so, else of a new one."""
        if sum(len(pictures) for _, pictures in self.lines) >= self.most:
            self.left_out += 1
            return
        if not self.lines or self.lines[-1][0] != line:
            self.lines.append((line, []))
        self.lines[-1][1].append((caption, shown(picture)))

    def write(self, path: Path) -> None:
        """Write it as PNG."""
        save(path, self.drawn())

    def drawn(self) -> np.ndarray:
        """It as one picture, uint8 (3, h, w): a line of many pictures goes on below."""
        rows = []
        for caption, pictures in self.lines:
            across = math.ceil(len(pictures) / math.ceil(len(pictures) / _ACROSS))  # of two rows, both are as long
            for start in range(0, len(pictures), across):
                rows.append((caption if start == 0 else "", pictures[start : start + across]))
        pictures = [pair for _, line in rows for pair in line]
        margin = max(_width(caption) for caption, _ in rows)
        left = margin + 2 * _GAP if margin else _GAP
        wide = max(max(picture.shape[2], _width(caption)) for caption, picture in pictures) + _GAP
        text = _TEXT + 6 if any(caption for caption, _ in pictures) else 0
        heights = [max(picture.shape[1] for _, picture in line) + text + _GAP for _, line in rows]
        size = left + wide * max(len(line) for _, line in rows), sum(heights) + _GAP
        canvas = Image.new("RGB", size, "white")
        pen, top = ImageDraw.Draw(canvas), _GAP
        for (caption, line), height in zip(rows, heights, strict=True):
            tall = height - text - _GAP
            pen.text((_GAP, top + tall // 2), _cut(caption), "black", _font(), anchor="lm")
            for place, (below, picture) in enumerate(line):
                middle = left + place * wide + (wide - _GAP) // 2
                corner = middle - picture.shape[2] // 2, top + tall - picture.shape[1]
                canvas.paste(as_image(picture), corner)
                pen.text((middle, top + tall + 3), _cut(below), "#374151", _font(), anchor="ma")
            top += height
        return np.asarray(canvas).transpose(2, 0, 1)


def shown(picture: np.ndarray) -> np.ndarray:
    """A picture uint8 (3, h, w) as a sheet shows it: a small one enlarged by whole pixels, a large one reduced."""
    small, large = _SHOWN
    longest = max(picture.shape[1:])
    if longest <= large:
        return larger(picture, max(1, round(small / longest)))
    height, width = (max(1, round(side * large / longest)) for side in picture.shape[1:])
    reduced = as_image(picture).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(reduced).transpose(2, 0, 1)


def larger(picture: np.ndarray, times: int) -> np.ndarray:
    """A picture uint8 (3, h, w) whose every pixel is a square of `times` px."""
    return picture.repeat(times, 1).repeat(times, 2)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: Pillow's own knows few letters beyond English."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), _TEXT)


@functools.lru_cache(maxsize=1024)
def _cut(caption: str) -> str:
    """A caption on one line; of a long one, such as a file's name, both ends with … between them."""
    line = one_line(printable_name(caption))
    if _font().getlength(line) <= _WIDEST:
        return line
    kept = next(n for n in range(len(line) - 1, 1, -1) if _font().getlength(_ends(line, n)) <= _WIDEST)
    return _ends(line, kept)


def _ends(line: str, kept: int) -> str:
    return f"{line[: (kept + 1) // 2]}…{line[len(line) - kept // 2 :]}"


def _width(caption: str) -> int:
    return math.ceil(_font().getlength(_cut(caption))) if caption else 0


# Progress


@contextmanager
def progress(total: int | None, what: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; what is yielded moves it on by so many.

    Args:
        total: None: not known.
        what: is counted, such as "faces".
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    # What is printed goes where it always does, not to the bar's stderr.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


def batches(items: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """Parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def note(text: object) -> None:
    """A sentence on stderr, which may hold foreign names."""
    from emobench.errors import printable

    print(printable(text), file=sys.stderr)
