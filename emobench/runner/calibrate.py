"""What a training step costs on this machine: some seconds of real training, and of drawing, for each kind of cell.

Each kind (class, arguments, size, batch, recipe but for its length) is measured in a process of its own, forked as
those of cells are, with its data, its model, its optimiser and Lightning's loop; the networks that it needs have not
been trained. Where memory does not suffice, for a batch of training or of validation, smaller ones are tried whose
gradients accumulate to the same global batch.
What was measured is kept in `results/cells/calibrations/`, for this machine and this code.
"""

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
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from emobench.errors import EmobenchError, Interrupted, StoreError
from emobench.evaluation.protocol import FIDELITY_FACES, INTENSITIES
from emobench.files import SCHEMA_VERSION, read_json, write_json
from emobench.recipe import Execution
from emobench.runner.duration import faces
from emobench.runner.machine import hardware
from emobench.runner.store import Store
from emobench.runner.sweep import handled
from emobench.runner.threads import Packing
from emobench.suite.cell import Cell, Plan
from emobench.suite.keys import batch_of_one, datasets_in, key, processes

SECONDS = 3.0  # of training steps that are timed, of each kind of cell; and as long for drawing
LONGEST = 600.0  # seconds after which a calibration is given up
ENDING = 5.0  # seconds that its process has to end in order
COMPILING = 8  # the same where networks are compiled, again for the shapes that come
WARM = 2  # batches before the clock starts: libraries choose their kernels
GAIN = 1.03  # by which another choice must be faster to be chosen
COMPILED_FROM = 1200.0  # seconds of a fit: compiling takes a minute, here and in the cell
_OUT_OF_MEMORY = "out of memory"


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
        seconds_drawn, seconds_edited: for a face; None: it does no such thing.
        batches_a_step: of training for one step of the network that is trained.
        peak_memory_gb: GiB, of the GPU or resident.
        own: the same with the cell's own settings; None: these are the best, or memory does not suffice for them.
    """

    settings: Settings | None
    seconds_a_face: float
    seconds_drawn: float | None
    seconds_edited: float | None
    batches_a_step: int
    peak_memory_gb: float
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


# ---- what is alike ---------------------------------------------------------------------------------------------------


def kind(cell: Cell, cells: Mapping[str, Cell]) -> str:
    """What two cells have in common of which a step takes the same time.

    Args:
        cells: those of the plan by their fit_keys.
    """
    fit = cell.fit
    recipe = fit["recipe"]
    if recipe is not None:
        free = ("epochs", "steps", "patience", "monitor")
        recipe = {name: value for name, value in recipe.items() if name not in free}
    data = [{"dataset": each["dataset"], "arguments": each["arguments"]} for each in datasets_in(fit)]
    needs = {role: [kind(cells[each], cells) for each in keys] for role, keys in cell.needs.items() if role}
    same = {"model": fit["model"], "arguments": fit["arguments"], "recipe": recipe, "trainer": fit["trainer"]}
    return key(same | {"size": cell.size, "emotions": cell.emotions, "data": data, "needs": needs})


def place(store: Store, cell: Cell, cells: Mapping[str, Cell], threads: int) -> Path:
    """Where the calibration of a cell's kind lies, for this machine, code and number of threads."""
    import torch

    machine = hardware().model_dump(exclude={"threads"})
    of = [kind(cell, cells), machine, threads, cell.fit["code"], torch.__version__]
    return store.cells / "calibrations" / f"{key(of)}.json"


def known(
    store: Store, cells: Sequence[Cell], threads: int, execution: Callable[[Cell], Execution]
) -> dict[str, Calibration]:
    """What has been measured here of a plan's cells, with the settings that they run by, by fit_key.

    Args:
        execution: how the fit of a cell is computed, which a board's plan says.
    """
    by_key = {cell.fit_key: cell for cell in cells}
    found: dict[str, Calibration] = {}
    for cell in by_key.values():
        best = read(place(store, cell, by_key, threads))
        if best is not None and (mine := best.by(settings_of(cell, execution(cell)))) is not None:
            found[cell.fit_key] = mine
    return found


def memory_of(store: Store, cells: Sequence[Cell], packing: Packing) -> Callable[[Cell], float | None]:
    """How much memory a cell takes on a CPU, GiB, as it was measured; None: it was not, or a GPU does the work."""
    if packing.machines.gpus or not (store.cells / "calibrations").is_dir():
        return lambda cell: None
    by_key = {cell.fit_key: cell for cell in cells}

    def memory(cell: Cell) -> float | None:
        found = read(place(store, cell, by_key, packing.threads))
        return None if found is None else found.peak_memory_gb

    return memory


def settings_of(cell: Cell, execution: Execution = Execution()) -> Settings | None:  # noqa: B008
    """Those that a cell runs by; None: nothing is trained."""
    trainer = cell.trainer
    if not cell.trains:
        return None
    accumulate = trainer.get("accumulate_grad_batches", 1)
    return Settings(str(trainer["precision"]), batch_of_one(cell.fit, trainer), accumulate, **asdict(execution))


def gpu_memory() -> float:
    """Memory of the smallest GPU of this machine, GiB; 0 where there is none."""
    import torch

    sizes = [torch.cuda.get_device_properties(each).total_memory for each in range(torch.cuda.device_count())]
    return min(sizes, default=0) / 2**30


def read(path: Path) -> Calibration | None:
    """A calibration; None where there is none that is whole."""
    try:
        return Calibration.of(read_json(path)["calibration"])
    except (FileNotFoundError, StoreError, KeyError, TypeError):
        return None


def _keep(path: Path, cell: Cell, found: Calibration) -> None:
    made_of = {"model": cell.fit["model"], "data": cell.fit["data"], "code": cell.fit["code"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": SCHEMA_VERSION, "calibration": asdict(found), "fit": made_of})


def keep_as(
    store: Store, measured: Plan, planned: Plan, found: Mapping[str, Calibration], threads: int, *, again: bool
) -> None:
    """Keep what was measured of cells also as that of the same cells with the settings that were chosen for them.

    Args:
        threads: of each cell that was measured.
        again: it was measured anew, and takes the place of what is known.
    """
    of, by_key = ({cell.fit_key: cell for cell in plan.cells} for plan in (measured, planned))
    before = {_place(of[fit_key]): each for fit_key, each in found.items()}
    kept = {place(store, of[fit_key], of, threads) for fit_key in found}
    for cell in by_key.values():
        path, chosen = place(store, cell, by_key, threads), before.get(_place(cell))
        if chosen is None or path in kept or (path.exists() and not again):
            continue
        own = settings_of(cell)
        if chosen.settings is None or own == _without_execution(chosen.settings):  # not those of another size
            _keep(path, cell, dataclasses.replace(chosen, own=None))


def _without_execution(settings: Settings) -> Settings:
    return dataclasses.replace(settings, **asdict(Execution()))


def _place(cell: Cell) -> tuple[Any, ...]:
    return cell.row, cell.dataset, cell.seed, cell.part


# ---- measuring -------------------------------------------------------------------------------------------------------


def calibrate(
    plan: Plan,
    store: Store,
    data_root: Path,
    *,
    threads: int,
    workers: int,
    again: bool,
    keeps_precision: Callable[[Cell], bool],
    say: Callable[[str], None],
) -> tuple[dict[str, Calibration], dict[str, str]]:
    """Measure what is not known yet of a plan's cells.

    Args:
        threads: of a cell's process.
        workers: loader processes of each cell.
        again: measure also what is known.
        keeps_precision: whether a cell's precision is the suite's to say.
        say: told what is measured.

    Returns:
        What was found by fit_key, and why nothing was of the cells that cannot be trained here.

    Raises:
        Interrupted: a signal asked the command to end; what was measured until then is kept.
    """
    from emobench.runner.engines.local import Local

    by_key = {cell.fit_key: cell for cell in plan.cells}
    places = {fit_key: place(store, cell, by_key, threads) for fit_key, cell in by_key.items()}
    found: dict[Path, Calibration] = {}
    failed: dict[Path, str] = {}
    engine = Local()
    engine.serve()
    with _stopped_by_signals():
        for fit_key, cell in by_key.items():
            path = places[fit_key]
            if path in found or path in failed:
                continue
            before = None if again else read(path)
            if before is None:
                started = time.monotonic()
                seen = faces(cell, plan) if cell.trains else 0.0
                trial = Trial(cell, _behind(cell, by_key), data_root, threads, workers, SECONDS)
                try:
                    before = _best(engine, trial, seen, keeps_precision(cell))
                except EmobenchError as error:  # which costs its row only
                    failed[path] = str(error)
                    continue
                _keep(path, cell, before)
                say(f"calibrated {cell.row} on {cell.dataset} in {time.monotonic() - started:.0f} s")
            found[path] = before
    known_of = {fit_key: found[path] for fit_key, path in places.items() if path in found}
    return known_of, {fit_key: failed[path] for fit_key, path in places.items() if path in failed}


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Signals that ask the command to end raise Interrupted, once the process that measures has ended."""
    raised: list[int] = []

    def stop(number: int, frame: object) -> None:
        raised.append(number)
        if len(raised) == 1:  # a second one would break off what ends in order
            raise KeyboardInterrupt  # which is no row's failure

    try:
        with handled(stop):
            yield
    except KeyboardInterrupt:
        raise Interrupted(raised[0]) from None


def _behind(cell: Cell, cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """The cells whose networks a cell needs, and theirs."""
    mine = {each: cells[each] for keys in cell.needs.values() for each in keys}
    for each in list(mine.values()):
        mine |= _behind(each, cells)
    return mine


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


def _best(engine: Any, trial: Trial, seen: float, keeps_precision: bool = False) -> Calibration:
    """The calibration of the best settings that fit.

    Args:
        seen: faces of the fit, by which it may be long enough to be compiled for.
    """
    own = settings_of(trial.cell)
    if own is None:
        try:
            return _measured(engine, trial)
        except MemoryError as error:  # and there is no batch to make smaller
            raise EmobenchError(f"{trial.cell.label} cannot be calibrated: {error}") from None
    first = best = _that_fits(engine, dataclasses.replace(trial, settings=own))
    for choice in _choices(own.precision):
        assert best.settings is not None
        if "precision" in choice and keeps_precision:
            continue
        if "compile" in choice and best.seconds_a_face * seen < COMPILED_FROM:
            continue
        settings = dataclasses.replace(best.settings, **choice)
        if "precision" in choice:  # which takes other memory, so that a batch may fit that did not
            times = own.accumulate_grad_batches
            settings = dataclasses.replace(settings, batch=own.batch, accumulate_grad_batches=times)
        try:
            other = _that_fits(engine, dataclasses.replace(trial, settings=settings))
        except EmobenchError:  # what the card or the network cannot do
            continue
        if other.seconds_a_face * GAIN < best.seconds_a_face:
            best = other
    return best if best is first or first.settings != own else dataclasses.replace(best, own=first)


def _choices(own: str) -> list[dict[str, Any]]:
    """Settings that may be faster, in turn: none on a CPU, where precision is the suite's to say.

    What is compiled are the networks through which no second derivative is taken (`EmotionModel.compilable`).

    Args:
        own: precision that the suite says.
    """
    import torch

    if not torch.cuda.is_available():
        return []
    usual = ["32-true", *(["bf16-mixed"] if torch.cuda.is_bf16_supported(including_emulation=False) else [])]
    others = [{"precision": each} for each in usual if each != own]
    compiled = [{"compile": True}, {"compile": True, "cuda_graphs": True}]
    return [*others, {"channels_last": True}, {"fused": True}, *compiled]


def _that_fits(engine: Any, trial: Trial) -> Calibration:
    """At the largest micro-batch that memory suffices for, accumulated to the same batch."""
    asked = trial.settings
    assert asked is not None
    together = asked.batch * asked.accumulate_grad_batches
    for batch in range(asked.batch, 0, -1):
        if together % batch:
            continue
        settings = dataclasses.replace(asked, batch=batch, accumulate_grad_batches=together // batch)
        try:
            return _measured(engine, dataclasses.replace(trial, settings=settings))
        except MemoryError as error:
            reason = error
    raise EmobenchError(f"{trial.cell.label} cannot be calibrated, also with 1 face at a time: {reason}") from None


def _measured(engine: Any, trial: Trial) -> Calibration:
    """Measure in a process of its own.

    Raises:
        MemoryError: memory does not suffice; says of what.
        EmobenchError: something else is wrong.
    """
    mine, its = engine.context.Pipe()
    process = engine.context.Process(target=begin, args=(its, trial))
    process.start()
    its.close()
    said: Any = None
    try:
        with contextlib.suppress(EOFError, OSError):
            if mine.poll(LONGEST):
                said = mine.recv()
        process.join(ENDING)
        ended = process.exitcode  # None: it takes too long, and is ended here
    finally:  # also where a signal ends the command
        if process.exitcode is None:
            process.terminate()
            process.join(ENDING)
            process.kill()
            process.join()
    if said is None and ended == -signal.SIGKILL:
        raise MemoryError("killed by SIGKILL: out of memory, or by hand")
    if isinstance(said, str) and said.startswith(_OUT_OF_MEMORY):
        raise MemoryError(said)
    if not isinstance(said, Calibration):
        reason = said or (f"it took over {LONGEST:.0f} s" if ended is None else f"its process ended with {ended}")
        raise EmobenchError(f"{trial.cell.label} cannot be calibrated: {reason}")
    return said


# ---- in its own process ----------------------------------------------------------------------------------------------


def begin(pipe: Connection, trial: Trial) -> None:
    """Entry of a process that measures."""
    from emobench.runner.run import describe, settle, visible_gpus
    from emobench.runner.threads import threads

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command gets it too, and ends this process in order
    signal.signal(signal.SIGTERM, _stop)
    settle()
    if gpus := visible_gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]
    with open(os.devnull, "wb") as nothing:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nothing.fileno(), stream.fileno() if hasattr(stream, "fileno") else 1)
    try:
        with threads(trial.threads):
            pipe.send(measure(trial))
    except BaseException as error:
        with contextlib.suppress(OSError):  # nobody listens any more
            pipe.send(describe(error))


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted(number)


def measure(trial: Trial) -> Calibration:
    """Train and draw for some seconds in this process."""
    import torch

    from emobench.runner.build import build_data, build_joint_data
    from emobench.runner.machine import peak_memory_gb

    cell = trial.cell
    data = build_data(cell, trial.data_root)
    data.prepare()
    model = untrained(cell, trial.behind)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds = 0.0
    if trial.settings is not None:
        training = build_joint_data(cell, trial.data_root, data) if "joint" in cell.fit["data"] else data
        seconds = _training(trial, trial.settings, model, training)
    drawn, edited = _drawing(model.to(device).eval(), device, trial.seconds)
    steps = getattr(model, "batches_a_step", 1)
    return Calibration(trial.settings, seconds, drawn, edited, steps, peak_memory_gb(device.type))


def untrained(cell: Cell, behind: Mapping[str, Cell]) -> Any:
    """The cell's model, with networks that have not been trained in place of those that it needs."""
    from emobench.runner.build import new_model

    needs = {
        role: [untrained(behind[each], behind).eval().requires_grad_(False) for each in keys]
        for role, keys in cell.needs.items()
    }
    return new_model(cell, needs, pretrained=False)


def _training(trial: Trial, settings: Settings, model: Any, data: Any) -> float:
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
    clock = _clock(trial.seconds, COMPILING if settings.compile else WARM, not settings.compile)
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


def _clock(seconds: float, warm: int, validates: bool) -> Any:
    """A callback that times batches, from the end of one to that of the next, and ends the fit after some seconds.

    Args:
        seconds: from the first batch that is timed on.
        warm: batches before it.
        validates: a batch of validation is computed before the end, for which memory has to suffice too.
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
                self.first = now
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


def _timed(draw: Callable[[], Any], enough: float) -> float:
    """Seconds that it takes, once it has been done; where once takes long, of that once."""
    for _ in range(2):
        started = time.perf_counter()
        draw()
        took = time.perf_counter() - started
        if took > enough:
            break
    return took


# ---- what follows of it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seconds:
    """How long a cell takes: its training, and the rest, which no budget shortens."""

    fit: float
    rest: float

    @property
    def both(self) -> float:
        return self.fit + self.rest


START = 2.0  # seconds that a cell takes beside what is measured: its process, its data, its files


def seconds(cell: Cell, found: Calibration, faces: float) -> Seconds:
    """How long a cell takes, of what was measured.

    Args:
        faces: that its fit sees.
    """
    recipe = cell.fit["recipe"]
    times = found.batches_a_step if recipe is not None and recipe["steps"] is not None else 1
    spread = processes(cell.trainer) or 1
    fit = found.seconds_a_face * faces * times / spread if cell.trains else 0.0
    rest = START
    if asked := cell.evaluation.get("faces"):
        k = len(cell.emotions)
        drawn = (
            (asked["fidelity"] or FIDELITY_FACES) + k * asked["per_emotion"] + len(INTENSITIES) * k * asked["intensity"]
        )
        edits = asked["sources"] * (k - 1)
        per = found.seconds_drawn if found.seconds_drawn is not None else found.seconds_edited
        rest += (per or 0.0) * drawn + (found.seconds_edited or 0.0) * edits
    return Seconds(fit, rest)
