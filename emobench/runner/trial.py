"""A kind of cell is tried: some seconds of real training, and of drawing and reading, in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from emobench.errors import EmobenchError, Interrupted
from emobench.evaluation.protocol import READ_BATCH
from emobench.recipe import Execution
from emobench.suite.cell import Cell

LONGEST = 600.0  # seconds after which a trial is given up
ENDING = 5.0  # seconds that its process has to end in order
COMPILING = 8  # batches before the clock starts where networks are compiled, again for the shapes that come ...
WARM = 2  # ... and else: libraries choose their kernels
_OUT_OF_MEMORY = "out of memory"
_WARM = "warm"


@dataclass(frozen=True)
class Settings:
    """What is free to choose of a fit."""

    precision: str
    batch: int  # faces of a micro-batch
    accumulate_grad_batches: int
    compile: bool = False
    cuda_graphs: bool = False
    channels_last: bool = False
    fused: bool = False

    @property
    def execution(self) -> Execution:
        return Execution(**{each.name: getattr(self, each.name) for each in dataclasses.fields(Execution)})


@dataclass(frozen=True)
class Calibration:
    """What was measured of a kind of cell.

    Attributes:
        settings: that were found best; None: nothing is trained.
        seconds_a_face: of training, each time that one is seen.
        batches_a_step: of training for one step of the network that is trained.
        gpu_memory_gb: GiB of tensors on the GPU; 0: none does the work.
        host_memory_gb: GiB, resident.
        seconds_drawn, seconds_edited, seconds_read: for a face; None: it does no such thing.
        seconds_seen: for a face that Inception sees for its evaluation; None: it is measured without.
        own: the same with the cell's own settings; None: these are the best, or memory does not suffice for them.
    """

    settings: Settings | None
    seconds_a_face: float
    batches_a_step: int
    gpu_memory_gb: float
    host_memory_gb: float
    seconds_drawn: float | None = None
    seconds_edited: float | None = None
    seconds_read: float | None = None
    seconds_seen: float | None = None
    own: Calibration | None = None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Calibration:
        """From plain values."""
        settings = None if plain["settings"] is None else Settings(**plain["settings"])
        own = None if plain.get("own") is None else cls.of(plain["own"])
        return cls(**{**plain, "settings": settings, "own": own})

    def by(self, settings: Settings | None) -> Calibration | None:
        """What was measured with some settings; None: nothing was."""
        return next((each for each in (self, self.own) if each is not None and each.settings == settings), None)


@dataclass(frozen=True)
class Trial:
    """A kind of cell, and how it is tried; crosses process boundaries."""

    cell: Cell
    behind: dict[str, Cell]
    data_root: Path
    threads: int
    workers: int
    seconds: float  # of training steps that are timed, and at most of drawing before that is believed
    settings: Settings | None = None  # None: nothing is trained
    sharing: int = 1  # trials at once on one GPU, each with its part of the memory; then training alone is timed


def measure_alone(engine: Any, trial: Trial) -> Calibration:
    """Measure in a process of its own.

    Raises:
        MemoryError: memory does not suffice; says of what.
        EmobenchError: something else is wrong.
    """
    with _Process.of(engine, trial) as process:
        return process.result()


def measure_together(engine: Any, trials: Sequence[Trial]) -> list[Calibration]:
    """Measure several at once, timed from when the last one is warm.

    Raises:
        MemoryError, EmobenchError: as of one alone.
    """
    with contextlib.ExitStack() as ending:
        processes = [ending.enter_context(_Process.of(engine, trial)) for trial in trials]
        for each in processes:
            each.hear(_WARM)
        for each in processes:
            each.go_on()
        return [each.result() for each in processes]


@dataclass
class _Process:
    """A process that measures."""

    process: Any
    pipe: Connection
    trial: Trial

    @classmethod
    @contextmanager
    def of(cls, engine: Any, trial: Trial) -> Iterator[_Process]:
        """One that is ended when it is left, also where a signal ends the command."""
        mine, its = engine.context.Pipe()
        process = engine.context.Process(target=begin, args=(its, trial))
        process.start()
        its.close()
        try:
            yield cls(process, mine, trial)
        finally:
            if process.exitcode is None:
                process.terminate()
                process.join(ENDING)
                process.kill()
                process.join()
            mine.close()

    def go_on(self) -> None:
        """Have it go on after it said that it is warm."""
        with contextlib.suppress(OSError):  # it has ended, which is heard next
            self.pipe.send(_WARM)

    def result(self) -> Calibration:
        """What it measured."""
        found = self.hear(Calibration)
        assert isinstance(found, Calibration)
        return found

    def hear(self, wanted: Any) -> Any:
        """What it says next, which is a word or of a kind.

        Raises:
            MemoryError: memory does not suffice; says of what.
            EmobenchError: something else is wrong.
        """
        said: Any = None
        with contextlib.suppress(EOFError, OSError):
            if self.pipe.poll(LONGEST):
                said = self.pipe.recv()
        if said == wanted:
            return said
        self.process.join(ENDING)
        ended = self.process.exitcode  # None: it takes too long
        if isinstance(wanted, type) and isinstance(said, wanted):
            return said
        if said is None and ended == -signal.SIGKILL:
            raise MemoryError("killed by SIGKILL: out of memory, or by hand")
        if isinstance(said, str) and said.startswith(_OUT_OF_MEMORY):
            raise MemoryError(said)
        reason = said or (f"it took over {LONGEST:.0f} s" if ended is None else f"its process ended with {ended}")
        raise EmobenchError(f"{self.trial.cell.label} cannot be calibrated: {reason}")


# ---- in its own process ----------------------------------------------------------------------------------------------


def begin(pipe: Connection, trial: Trial) -> None:
    """Entry of a process that measures."""
    from emobench.runner.machine import visible_gpus
    from emobench.runner.run import describe, settle
    from emobench.runner.threads import threads

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command gets it too, and ends this process in order
    signal.signal(signal.SIGTERM, _stop)
    settle()
    if gpus := visible_gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]
    with open(os.devnull, "wb") as nothing:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nothing.fileno(), stream.fileno() if hasattr(stream, "fileno") else 1)

    def ready() -> None:
        pipe.send(_WARM)
        pipe.recv()

    try:
        with threads(trial.threads):
            pipe.send(measure(trial, ready if trial.sharing > 1 else None))
    except BaseException as error:
        with contextlib.suppress(OSError):  # nobody listens any more
            pipe.send(describe(error))


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted(number)


def measure(trial: Trial, ready: Callable[[], None] | None = None) -> Calibration:
    """Train, and draw or read, for some seconds in this process.

    Args:
        ready: called when training is warm, and returns when its time begins; then nothing else is measured.
    """
    import torch

    from emobench.classifiers.classifier import EmotionClassifier
    from emobench.runner.build import build_data, build_joint_data
    from emobench.runner.machine import peak_memory_gb
    from emobench.runner.threads import keep_to_a_part

    cell = trial.cell
    data = build_data(cell, trial.data_root)
    data.prepare()
    model = untrained(cell, trial.behind)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and trial.sharing > 1:
        keep_to_a_part(trial.sharing)
    seconds = 0.0
    if trial.settings is not None:
        training = build_joint_data(cell, trial.data_root, data) if "joint" in cell.fit["data"] else data
        seconds = _training(trial, trial.settings, model, training, ready)
    drawn = edited = read = seen = None
    if ready is None:
        model = model.to(device).eval()
        drawn, edited = _drawing(model, device, trial.seconds)
        read = _reading(model, cell.size, device, trial.seconds) if isinstance(model, EmotionClassifier) else None
        seen = _seeing(cell, device, trial.seconds)
    steps = getattr(model, "batches_a_step", 1)
    on_gpu = peak_memory_gb("cuda") if device.type == "cuda" else 0.0
    return Calibration(trial.settings, seconds, steps, on_gpu, peak_memory_gb("cpu"), drawn, edited, read, seen)


def untrained(cell: Cell, behind: Mapping[str, Cell]) -> Any:
    """The cell's model, with networks that have not been trained in place of those that it needs."""
    from emobench.runner.build import new_model

    needs = {
        role: [untrained(behind[each], behind).eval().requires_grad_(False) for each in keys]
        for role, keys in cell.needs.items()
    }
    return new_model(cell, needs, pretrained=False)


def _training(trial: Trial, settings: Settings, model: Any, data: Any, ready: Callable[[], None] | None) -> float:
    """Seconds of training for each face."""
    import lightning.pytorch as pl

    from emobench.runner.build import recipe_of
    from emobench.runner.callbacks import Averaging, Fused, Reproducible, Statistics
    from emobench.runner.fit import _trainer, attention, prepare
    from emobench.runner.run import describe

    cell = trial.cell
    one = {name: value for name, value in cell.trainer.items() if name not in ("devices", "num_nodes", "strategy")}
    accumulate = settings.accumulate_grad_batches
    options = {**one, "precision": settings.precision, "accumulate_grad_batches": accumulate}
    cell = dataclasses.replace(cell, trainer={**options, "devices": 1, "enable_checkpointing": False})
    recipe = dataclasses.replace(recipe_of(trial.cell), batch=settings.batch)
    pl.seed_everything(cell.seed, verbose=False)
    data.feed(recipe=recipe, seed=cell.seed, workers=trial.workers)
    model.micro_batches = accumulate
    prepare(model, recipe, settings.execution)
    # Validation would be compiled too, which takes long; the same batch was computed before without.
    clock = _clock(trial.seconds, COMPILING if settings.compile else WARM, not settings.compile, ready)
    callbacks = [
        Reproducible(cell.seed),
        Statistics(accumulate if model.automatic_optimization else 1),
        *([] if recipe.ema is None else [Averaging(recipe.ema)]),
        *([Fused()] if settings.fused else []),
        clock,
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        trainer = _trainer(cell, recipe, callbacks, Path(folder), None, model)
        try:
            with attention(trainer.strategy.root_device.type, settings.precision):
                trainer.fit(model, datamodule=data)
        except Exception as error:
            if clock.validating and describe(error).startswith(_OUT_OF_MEMORY):
                raise MemoryError("in validation") from error
            raise
    return float(clock.seconds_a_face())


class _Enough(Exception):
    """Enough has been measured."""


def _clock(seconds: float, warm: int, validates: bool, ready: Callable[[], None] | None) -> Any:
    """A callback that times batches, from the end of one to that of the next, and ends the fit after some seconds.

    Args:
        seconds: from the first batch that is timed on.
        warm: batches before it.
        validates: a batch of validation is computed before the end, for which memory has to suffice too.
        ready: called after the batches that are not timed; None: nobody waits for that.
    """
    import lightning.pytorch as pl
    import torch

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.batches: list[tuple[float, int]] = []  # seconds and faces of each
            self.last = self.first = time.perf_counter()
            self.validating = self.validated = False

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.last = time.perf_counter()  # validation aside
            if not self.batches:
                self.first = self.last  # of a fit shorter than that

        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.batches.append((now - self.last, len(batch["index"])))
            self.last = now
            if len(self.batches) == warm:
                if ready is not None:
                    ready()
                self.first = self.last = time.perf_counter()
            if len(self.batches) > warm and now - self.first > seconds:
                if (
                    self.validated or not validates or trainer.should_stop
                ):  # which a suite's `min_steps` may keep it from
                    raise _Enough
                trainer.should_stop = True  # after validation, at the end of whichever epoch
                if trainer.check_val_every_n_epoch is not None:
                    trainer.check_val_every_n_epoch = 1

        def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.validating = True

        def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
            self.validated = True
            if trainer.should_stop:
                raise _Enough

        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.validating = False

        def seconds_a_face(self) -> float:
            timed = self.batches[warm:] or self.batches[-1:]
            return sum(each for each, _ in timed) / sum(faces for _, faces in timed)

    return Clock()


def _drawing(model: Any, device: Any, enough: float) -> tuple[float | None, float | None]:
    """Seconds of a drawn and of an edited face, or a stylized one; None: the model does no such thing."""
    import torch

    n = 64 if device.type == "cuda" else 4
    emotions = torch.eye(len(model.emotions), device=device)[torch.arange(n, device=device) % len(model.emotions)]
    seeds = torch.arange(n, device=device)
    faces = torch.zeros(n, 3, model.size, model.size, dtype=torch.uint8, device=device)
    drawn = edited = None
    if hasattr(model, "sample"):
        drawn = _timed(lambda: model.sample(emotions, seeds).cpu(), enough) / n
    if hasattr(model, "edit"):
        edited = _timed(lambda: model.edit(faces, emotions, seeds).cpu(), enough) / n
    elif hasattr(model, "stylize"):
        edited = _timed(lambda: model.stylize(faces, emotions).cpu(), enough) / n
    return drawn, edited


def _reading(model: Any, size: int, device: Any, enough: float) -> float:
    """Seconds of a face that a classifier reads."""
    import torch

    n = READ_BATCH if device.type == "cuda" else 16
    faces = torch.zeros(n, 3, size, size, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        took = _timed(lambda: model(faces).cpu(), enough)
    return took / n


def _seeing(cell: Cell, device: Any, enough: float) -> float | None:
    """Seconds of a face that Inception sees; None: it sees none, or its weights are not here."""
    import numpy as np

    from emobench.metrics.inception import Inception, find

    planned = cell.evaluation.get("files", {}).get("inception")
    if planned is None or planned["reason"] is not None:
        return None
    file = find(planned["sha256"])
    if file.path is None or file.reason is not None:  # it is gone since, which the cell will say
        return None
    n = 64 if device.type == "cuda" else 4
    network, faces = Inception(file.path, device), np.zeros((n, 3, cell.size, cell.size), np.uint8)
    return _timed(lambda: network(faces), enough) / n


def _timed(draw: Callable[[], Any], enough: float) -> float:
    """Seconds that it takes, once it has been done; where once takes long, of that once."""
    for _ in range(2):
        started = time.perf_counter()
        draw()
        took = time.perf_counter() - started
        if took > enough:
            break
    return took
