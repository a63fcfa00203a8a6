"""A cell that is shown elsewhere too, in Weights & Biases or in TensorBoard: while it is trained, and when it is done.

All that there is to show lies in files of the cell: `history.csv` and its results, and in `tracked/` what these do not
hold. Whenever a process begins to show a cell somewhere it shows the whole of it, from the first epoch on, in the place
of what was there. So a fit that went on after an interruption looks like one that did not stop: of two parts of a W&B
run that were logged offline under one name, `wandb sync` keeps the second alone.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from emobench.errors import Interrupted, StoreError
from emobench.evaluation.protocol import MEMORISED
from emobench.files import replacing, write_text
from emobench.generators.generator import EmotionGenerator
from emobench.metrics.recognition import confusion_matrix
from emobench.runner.callbacks import Watcher
from emobench.runner.record import Card, Evaluation, Record, read_record
from emobench.runner.store import WEBP, Store, StoredCell
from emobench.suite.cell import Cell
from emobench.suite.keys import DRAWN, datasets_in, name_of

GRIDS = 10  # of a fit, where the user does not say how many epochs lie between two
ACROSS = 4  # faces of each emotion, or people who are edited
_FOLDER = "tracked"  # of a cell's fit
_OF_PEOPLE = ("edits", "styles")  # kinds of pictures that show the people they were made of


@dataclass(frozen=True)
class Tracking:
    """Where the cells of a sweep are shown; crosses process boundaries.

    Attributes:
        suite: the board's name.
        real_faces: whether pictures of real people may be shown there.
        every: epochs from one grid of a generator's faces to the next; None: `GRIDS` a fit.
        wandb: `mode` ("online" or "offline"), `project`, and perhaps `entity`; None: not in W&B.
        tensorboard: whether in TensorBoard.
    """

    suite: str
    real_faces: bool = False
    every: int | None = None
    wandb: dict[str, str] | None = None
    tensorboard: bool = False


@dataclass(frozen=True)
class Epoch:
    """What an epoch of a fit has to show.

    Attributes:
        number: from 0.
        scalars: losses, scores, learning rates, faces a second.
        samples: a picture of what a generator makes by now; None: there is none of this epoch.
    """

    number: int
    scalars: Mapping[str, float]
    samples: Path | None


@dataclass(frozen=True)
class Result:
    """What a finished cell has to show.

    Attributes:
        scalars: what was measured, by `test_<metric>` or `<track>_<metric>`, and what the fit took.
        pictures: by what they show; of real people only where these may be shown.
        emotions: the K classes.
        confusion: (K, K) faces of each emotion (row) that were read as each (column); None: it reads none.
        cards: of the judges, the reader and the guides of a generator.
        stamp: tells this result from another one of the cell.
    """

    scalars: Mapping[str, float]
    pictures: Mapping[str, Path]
    emotions: Sequence[str]
    confusion: NDArray[np.int64] | None
    cards: Sequence[Card]
    stamp: str

    @property
    def judges(self) -> tuple[list[Any], list[Any]]:
        """The cards as a table: its header and its rows."""
        shown = ("row", "architecture", "seed", "outside", "fit_key", "sha256", "data")
        return list(shown), [[getattr(card, name) for name in shown] for card in self.cards]


@dataclass(frozen=True)
class Leaderboard:
    """A table of a board: of one track on one dataset.

    Attributes:
        header: names of the columns.
        rows: numbers, texts and None, as the header says.
        pictures: of each row; None: there is none that may be shown.
        runs: of each row the fit_keys of its cells.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    pictures: Sequence[Path | None]
    runs: Sequence[Sequence[str]]


class Tracker(ABC):
    """A cell as it is shown in one place, from its first epoch on."""

    def __init__(self) -> None:
        self._shown = 0  # epochs

    def catch_up(self, epochs: Sequence[Epoch]) -> None:
        """Show the epochs that are not shown yet."""
        for each in epochs[self._shown :]:
            self.epoch(each)
            self._shown += 1

    @abstractmethod
    def epoch(self, epoch: Epoch) -> None:
        """Show the next epoch."""

    @abstractmethod
    def result(self, result: Result) -> None:
        """Show what was measured."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """End: nothing more is to come."""


@dataclass(frozen=True)
class Place:
    """One of the places where a sweep is shown.

    Attributes:
        live: whether a fit is shown there while it is under way.
        mark: file of a cell that says which result of it is shown where.
        where: what of the place that file names.
    """

    name: str
    live: bool
    open: Callable[[], Tracker]
    mark: Path
    where: str = ""

    def shows(self, result: Result) -> bool:
        """Whether a result is shown there already, with all that led to it."""
        try:
            return self.mark.read_text(encoding="utf-8") == self._shown(result)
        except OSError:
            return False

    def remember(self, result: Result) -> None:
        """From now on it is."""
        self.mark.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.mark, self._shown(result))

    def _shown(self, result: Result) -> str:
        return f"{result.stamp}\n{self.where}\n"


def places(tracking: Tracking, cell: Cell, results: Path) -> list[Place]:
    """Where a cell is shown; nothing is opened yet."""
    found: list[Place] = []
    folder = Store(results).fit_folder(cell.fit_key)
    if tracking.wandb is not None:
        from emobench.runner import wandb

        live, where = tracking.wandb["mode"] == "online", " ".join(sorted(tracking.wandb.values()))
        mark = folder / _FOLDER / "shown-in-wandb"
        found.append(Place("W&B", live, lambda: wandb.WandbRun(tracking, cell, folder), mark, where))
    if tracking.tensorboard:
        from emobench.runner import tensorboard

        place = tensorboard.folder_of(results, tracking.suite, cell)
        found.append(Place("TensorBoard", True, lambda: tensorboard.Events(place, cell), place / "shown"))
    return found


# What there is to show


def shown_as(track: str, metric: str) -> str:
    """What a number of a track is called where it is shown."""
    return f"{'test' if track == 'recognition' else track}_{metric}"


def board_name(track: str, dataset: str, size: int) -> str:
    """What the leaderboard of a track on a dataset is called where it is shown."""
    return f"{track} on {dataset}, {size} px"


@dataclass
class Kept:
    """The files of a cell from which it is shown.

    Attributes:
        fit: the fit's folder.
        history: how it went, a row an epoch.
    """

    fit: Path
    history: Path

    @property
    def folder(self) -> Path:
        return self.fit / _FOLDER

    def samples(self, epoch: int) -> Path:
        """Where the grid of an epoch lies, if it has one."""
        return self.folder / f"samples-{epoch:05d}.webp"

    def note(self, epoch: int, **values: Any) -> None:
        """Keep what the history does not hold of an epoch; one that is repeated takes the place of the first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "epochs.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **values}) + "\n")

    def forget(self, first: int) -> None:
        """Drop the grids from an epoch on: they are of another fit than the one that is under way."""
        for path in self.folder.glob("samples-*.webp"):
            if int(path.stem.rpartition("-")[2]) >= first:
                path.unlink(missing_ok=True)

    def epochs(self, before: int | None = None) -> list[Epoch]:
        """The finished epochs, or those before one, in turn."""
        noted = self._noted()
        found: list[Epoch] = []
        for row in self._rows():
            number = int(row.pop("epoch"))
            if before is not None and number >= before:
                break
            mine = noted.get(number, {})
            scalars = {**row, **mine.get("rates", {})}
            taken = _speed(mine, noted.get(number - 1) if number else {"seconds": 0.0, "faces": 0})
            scalars |= {} if taken is None else {"faces_per_s": taken}
            samples = self.samples(number)
            found.append(Epoch(number, scalars, samples if samples.is_file() else None))
        return found

    def _rows(self) -> Iterator[dict[str, float]]:
        try:
            text = self.history.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        for row in csv.DictReader(text.splitlines()):
            yield {name: float(value) for name, value in row.items() if value}

    def _noted(self) -> dict[int, dict[str, Any]]:
        try:
            lines = (self.folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        found: dict[int, dict[str, Any]] = {}
        for line in lines:
            try:
                each = json.loads(line)
                found[int(each["epoch"])] = each
            except (ValueError, KeyError, TypeError):  # half a line, of a process that was killed
                continue
        return found


def _speed(epoch: Mapping[str, Any], before: Mapping[str, Any] | None) -> float | None:
    """Faces a second of an epoch; None: what was noted does not tell."""
    if before is None or not {"seconds", "faces"} <= epoch.keys() & before.keys():
        return None
    seconds, faces = epoch["seconds"] - before["seconds"], epoch["faces"] - before["faces"]
    return faces / seconds if seconds > 0 and faces > 0 else None


def result_of(record: Record, folder: Path, tracking: Tracking) -> Result | None:
    """What a record has to show; None: nothing is measured.

    Args:
        folder: of the evaluation: its record and raw files.
    """
    evaluation, fit = record.evaluation, record.fit
    if record.state != "done" or evaluation is None:
        return None
    scalars: dict[str, float] = {}
    for track, of in evaluation.tracks.items():
        values = {name: each.value for name, each in of.values.items()} | {"faces_per_s": of.faces_per_s}
        scalars |= {shown_as(track, name): value for name, value in values.items() if value is not None}
    if fit is not None and fit.cost is not None:
        costs = ("params", "fit_seconds", "fit_faces_per_s", "peak_memory_gb", "recipe_share")
        found = {name: getattr(fit.cost, name) for name in costs}
        scalars |= {name: float(value) for name, value in found.items() if value is not None}
    stamp = f"{record.eval_key} {record.finished}"
    pictures = dict(_pictures(record, evaluation, folder, tracking.real_faces))
    emotions, confusion = record.cell.emotions, None
    if (read := evaluation.raw.get("predictions")) is not None:
        confusion = _confusion(folder / read, len(emotions))
    return Result(scalars, pictures, emotions, confusion, evaluation.cards, stamp)


def _confusion(path: Path, classes: int) -> NDArray[np.int64]:
    import pandas as pd

    read = pd.read_parquet(path, columns=["label", "prediction"])
    read = read[read["prediction"] >= 0]  # an outside model may see what is none of the emotions
    return confusion_matrix(read["label"], read["prediction"], classes)


def shows_nobody(cell: Cell) -> bool:
    """Whether all people of the datasets that a cell is trained and measured on are drawn by emobench."""
    try:
        return all(name_of(each) == DRAWN for each in datasets_in(cell.fit))
    except KeyError:  # a class of the user's own, in an old record
        return False


def _pictures(record: Record, evaluation: Evaluation, folder: Path, real_faces: bool) -> Iterator[tuple[str, Path]]:
    """Those that may be shown: all of drawn people; else what a generator made up, and copied from no face."""
    if real_faces:
        yield from ((path.stem, path) for path in sorted(folder.glob("*.webp")))
        return
    copied = evaluation.tracks["generation"].values.get("memorisation") if "generation" in evaluation.tracks else None
    made_up = copied is not None and copied.value is not None and copied.value <= MEMORISED
    for kind, name in evaluation.raw.items():
        seen = shows_nobody(record.planned) or (made_up and kind not in _OF_PEOPLE)
        if name.endswith(".webp") and evaluation.outside is None and seen:
            yield kind, folder / name


# What a generator makes by now


def grid(model: Any, faces: torch.Tensor) -> NDArray[np.uint8] | None:
    """Faces that a generator makes with its weights as they are, (rows, columns, 3, S, S); None: it makes none.

    Of one that draws a row an emotion and always the same seeds; of one that edits or paints a row a person, who stands
    in the first column. No random number of the fit is used up, and no weight or statistic changes.

    Args:
        model: an `EmotionGenerator` in evaluation mode.
        faces: uint8 (n, 3, S', S'), of whom some are changed.
    """
    device, classes = faces.device, len(model.emotions)
    emotions = torch.eye(classes, device=device)
    with ExitStack() as around:
        # Tensors of inference mode that a network keeps could not be trained through; and a shape that is compiled for
        # would be compiled again.
        for context in (torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(_devices(device))):
            around.enter_context(context)
        if "torch._dynamo" in sys.modules:
            around.enter_context(torch.compiler.set_stance("force_eager"))
        if hasattr(model, "sample"):
            seeds = torch.arange(ACROSS, device=device).repeat(classes)
            made = model.sample(emotions.repeat_interleave(ACROSS, 0), seeds)
            return _array(made.view(classes, ACROSS, *made.shape[1:]))
        people = faces[:ACROSS]
        asked, sources = emotions.repeat(len(people), 1), people.repeat_interleave(classes, 0)
        if hasattr(model, "edit"):
            made = model.edit(sources, asked, torch.zeros(len(sources), dtype=torch.int64, device=device))
        elif hasattr(model, "stylize"):
            made = model.stylize(sources, asked)
        else:
            return None
        shown = F.interpolate(people.float(), made.shape[-2:], mode="bilinear", antialias=True)
        first = shown.round().clamp(0, 255).to(torch.uint8)
        return _array(torch.cat([first[:, None], made.view(len(people), classes, *made.shape[1:])], 1))


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _array(faces: torch.Tensor) -> NDArray[np.uint8]:
    return np.asarray(faces.cpu().numpy(), np.uint8)


def _write(faces: NDArray[np.uint8], path: Path) -> None:
    """A picture of faces (rows, columns, 3, S, S)."""
    rows, columns, _, height, width = faces.shape
    canvas = faces.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(canvas)).save(temporary, "WEBP", **WEBP)


# A cell as it is shown


@dataclass
class _Shown:
    """A place with what is open there."""

    place: Place
    tracker: Tracker | None = None
    lost: bool = False  # an error ended it


class CellLogger(Watcher):
    """What a fit shows of itself: kept in files, and shown from these."""

    def __init__(self, tracking: Tracking, cell: Cell, results: Path) -> None:
        super().__init__()
        self.tracking, self.cell, self.results = tracking, cell, results
        folder = Store(results).fit_folder(cell.fit_key)
        self.kept = Kept(folder, folder / "history.csv")
        self._places = [_Shown(place) for place in places(tracking, cell, results)]
        self._rates: dict[str, float] = {}
        self._first = True  # whether no epoch has been validated here yet

    @property
    def name(self) -> str:
        return "emobench"

    @property
    def version(self) -> str:
        return self.cell.fit_key

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the cell's configuration is known."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep learning rates, as `LearningRateMonitor` names them; all else is in `history.csv`."""
        self._rates |= {name: value for name, value in metrics.items() if name.startswith("lr-")}

    def validated(self, model: Any, epoch: int, faces: torch.Tensor) -> None:
        if self._first:
            self.kept.forget(epoch)
            self._first = False
        if not (self.may_be_seen and isinstance(model, EmotionGenerator)) or (epoch + 1) % self._every(model):
            return
        try:
            made = grid(model, faces)
            if made is not None:
                _write(made, self.kept.samples(epoch))
        except Exception as error:  # no picture is worth a fit
            print(f"no picture of epoch {epoch + 1}: {type(error).__name__}: {error}")

    def _every(self, model: EmotionGenerator) -> int:
        if self.tracking.every is not None:
            return self.tracking.every
        trainer = model.trainer
        epochs = trainer.max_epochs
        if epochs is None or epochs < 0:
            epochs = math.ceil(trainer.max_steps / trainer.num_training_batches)
        return max(1, math.ceil(epochs / GRIDS))

    def ended(self, epoch: int, seconds: float, faces: int) -> None:
        self.kept.note(epoch, seconds=seconds, faces=faces, rates=self._rates)
        if any(each.place.live for each in self._places):
            # This epoch's own row is not in the history yet.
            self._all(lambda tracker: tracker.catch_up(self.epochs(before=epoch)), live=True)

    @property
    def may_be_seen(self) -> bool:
        """Whether pictures of this cell's training may be shown."""
        return self.tracking.real_faces or shows_nobody(self.cell)

    def epochs(self, before: int | None = None) -> list[Epoch]:
        """What may be shown of the finished epochs, or of those before one."""
        found = self.kept.epochs(before)
        return found if self.may_be_seen else [dataclasses.replace(each, samples=None) for each in found]

    def close(self, result: Result | None, *, failed: bool = False) -> None:
        """Show all that there is, everywhere, and end."""

        def last(tracker: Tracker) -> None:
            tracker.catch_up(self.epochs())
            if result is not None:
                tracker.result(result)
            tracker.close(failed=failed)

        self._all(last)
        for each in self._places:
            if result is not None and not each.lost:
                each.place.remember(result)

    def leave(self) -> None:
        """End where the fit is to go on another time: nothing is shown that is not shown yet."""
        for each in self._places:
            if each.tracker is not None:
                each.tracker.close(failed=True)

    def _all(self, act: Callable[[Tracker], None], *, live: bool = False) -> None:
        """Do something in every place, or in those that show a fit under way; one that fails is left alone."""
        for each in self._places:
            if each.lost or (live and not each.place.live):
                continue
            try:
                each.tracker = each.tracker or each.place.open()
                act(each.tracker)
            except Exception as error:  # a server that does not answer, a full disk: no reason to lose a network
                print(f"{each.place.name} shows no more of this cell: {type(error).__name__}: {error}")
                each.lost = True
                if each.tracker is not None:
                    with suppress(Exception):
                        each.tracker.close(failed=True)


@contextmanager
def tracked(tracking: Tracking, cell: Cell, results: Path) -> Iterator[CellLogger]:
    """What shows a cell while it runs in the block, and all of it at the end.

    A block that a signal ends leaves no more than was shown: whoever goes on shows the whole.
    """
    logger = CellLogger(tracking, cell, results)
    try:
        yield logger
    except Interrupted:
        logger.leave()
        raise
    except BaseException:
        logger.close(None, failed=True)
        raise
    folder = Store(results).eval_folder(cell.fit_key, cell.eval_key)
    try:
        result = result_of(read_record(folder / "result.json"), folder, tracking)
    except (FileNotFoundError, StoreError):  # a setting that is fitted, and perhaps never measured
        result = None
    logger.close(result)


def show_stored(tracking: Tracking, cell: StoredCell, results: Path) -> None:
    """Show a finished cell of a board, from its files, wherever this result of it is not shown yet."""
    record, folder = cell.record, cell.folder
    if record is None or folder is None:
        return
    named = dataclasses.replace(record.planned, row=cell.row, dataset=cell.dataset)
    result = result_of(record, folder, tracking)
    if result is None or all(place.shows(result) for place in places(tracking, named, results)):
        return
    logger = CellLogger(tracking, named, results)
    if (folder / "history.csv").is_file():  # as a board commits it
        logger.kept.history = folder / "history.csv"
    logger.close(result)
