"""What a training step costs on this machine: some seconds of real training, and of drawing, for each kind of cell.

Each kind (class, arguments, size, batch, recipe but for its length) is measured in a process of its own, forked as
those of cells are, with its data, its model, its optimiser and Lightning's loop; the networks that it needs have not
been trained. Where memory does not suffice, for a batch of training or of validation, smaller ones are tried whose
gradients accumulate to the same global batch.
What was measured is kept in `results/cells/calibrations/`, for this machine and this code.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from emobench.runner.trial import Calibration, Settings, Trial, measure_alone, measure_together
from emobench.suite.cell import Cell, Plan
from emobench.suite.keys import batch_of_one, datasets_in, key, processes

SECONDS = 3.0  # of training steps that are timed, of each kind of cell; and as long for drawing
GAIN = 1.03  # by which another choice must be faster to be chosen
COMPILED_FROM = 1200.0  # seconds of a fit: compiling takes a minute, here and in the cell
PAYS = 1.1  # times as much as alone that cells on one GPU must get done together to share it


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


def place(store: Store, cell: Cell, cells: Mapping[str, Cell], threads: int, per_gpu: int = 1) -> Path:
    """Where the calibration of a cell's kind lies, for this machine and code, and how cells share it."""
    import torch

    machine = hardware().model_dump(exclude={"threads"})
    of = [kind(cell, cells), machine, threads, cell.fit["code"], torch.__version__, *([per_gpu] if per_gpu > 1 else [])]
    return store.cells / "calibrations" / f"{key(of)}.json"


def known(
    store: Store, cells: Sequence[Cell], packing: Packing, execution: Callable[[Cell], Execution]
) -> dict[str, Calibration]:
    """What has been measured here of a plan's cells, with the settings that they run by, by fit_key.

    Args:
        execution: how the fit of a cell is computed, which a board's plan says.
    """
    by_key = {cell.fit_key: cell for cell in cells}
    found: dict[str, Calibration] = {}
    for cell in by_key.values():
        best = read(place(store, cell, by_key, packing.threads, packing.per_gpu))
        if best is not None and (mine := best.by(settings_of(cell, execution(cell)))) is not None:
            found[cell.fit_key] = mine
    return found


def memory_of(store: Store, cells: Sequence[Cell], packing: Packing) -> Callable[[Cell], float | None]:
    """How much memory a cell takes beside that of a GPU, GiB, as it was measured; None: it was not."""
    if not (store.cells / "calibrations").is_dir():
        return lambda cell: None
    by_key = {cell.fit_key: cell for cell in cells}

    def memory(cell: Cell) -> float | None:
        found = read(place(store, cell, by_key, packing.threads, packing.per_gpu))
        return None if found is None else found.host_memory_gb

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
    store: Store, measured: Plan, planned: Plan, found: Mapping[str, Calibration], packing: Packing, *, again: bool
) -> None:
    """Keep what was measured of cells also as that of the same cells with the settings that were chosen for them.

    Args:
        packing: by which they take the time that was found.
        again: it was measured anew, and takes the place of what is known.
    """
    of, by_key = ({cell.fit_key: cell for cell in plan.cells} for plan in (measured, planned))
    before = {_place(of[fit_key]): each for fit_key, each in found.items()}
    threads, per_gpu = packing.threads, packing.per_gpu
    kept = {place(store, of[fit_key], of, threads) for fit_key in found}  # of cells alone, as they were measured
    for cell in by_key.values():
        path, chosen = place(store, cell, by_key, threads, per_gpu), before.get(_place(cell))
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


def _best(engine: Any, trial: Trial, seen: float, keeps_precision: bool = False) -> Calibration:
    """The calibration of the best settings that fit.

    Args:
        seen: faces of the fit, by which it may be long enough to be compiled for.
    """
    own = settings_of(trial.cell)
    if own is None:
        try:
            return measure_alone(engine, trial)
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
            return measure_alone(engine, dataclasses.replace(trial, settings=settings))
        except MemoryError as error:
            reason = error
    raise EmobenchError(f"{trial.cell.label} cannot be calibrated, also with 1 face at a time: {reason}") from None


@dataclass(frozen=True)
class Together:
    """How many cells share a GPU.

    Attributes:
        slower: times as long that each takes by that.
    """

    per_gpu: int
    slower: float

    def of(self, found: Mapping[str, Calibration], plan: Plan) -> dict[str, Calibration]:
        """What was measured of cells alone, as it is where they share a GPU; one on several devices has whole ones."""
        shares = {cell.fit_key for cell in plan.cells if processes(cell.trainer) == 1}
        return {key: _slower(each, self.slower) if key in shares else each for key, each in found.items()}


def _slower(found: Calibration, times: float) -> Calibration:
    seconds = {name: each for name, each in asdict(found).items() if name.startswith("seconds_") and each is not None}
    own = None if found.own is None else _slower(found.own, times)
    return dataclasses.replace(found, own=own, **{name: each * times for name, each in seconds.items()})


def sharing(
    plan: Plan,
    found: Mapping[str, Calibration],
    numbers: Sequence[int],
    data_root: Path,
    *,
    if_it_pays: bool,
    threads: Callable[[int], int],
    workers: int,
    say: Callable[[str], None],
) -> Together:
    """How many cells share a GPU, and how much slower they are by that, measured with those that train longest.

    Args:
        found: what was measured of each alone, by fit_key.
        numbers: of cells among which there is a choice; none: each has a GPU to itself.
        if_it_pays: one cell alone is a choice, too; of all choices, the one by which most gets done is taken.
        threads: of each of so many.
        say: told what is measured.

    Raises:
        Interrupted: as of `calibrate`.
    """
    from emobench.runner.engines.local import Local

    by_key = {cell.fit_key: cell for cell in plan.cells}
    alone = [cell for cell in by_key.values() if processes(cell.trainer) == 1]  # others have whole GPUs
    known = [cell for cell in alone if cell.fit_key in found and found[cell.fit_key].settings is not None]
    known.sort(key=lambda cell: -found[cell.fit_key].seconds_a_face * faces(cell, plan))
    asked = 1 if if_it_pays else max(numbers, default=1)
    if not numbers or len(known) < 2:
        return Together(asked, 1.0)
    best, most = Together(asked, float(asked)), PAYS if if_it_pays else 0.0  # what is not measured: one after another
    engine = Local()
    engine.serve()
    with _stopped_by_signals():
        for number in numbers:
            cells = known[:number]
            trials = [
                Trial(
                    cell, _behind(cell, by_key), data_root, threads(number), workers, SECONDS,
                    found[cell.fit_key].settings, number,
                )
                for cell in cells
            ]  # fmt: skip
            try:
                times = [each.seconds_a_face for each in measure_together(engine, trials)]
            except (MemoryError, EmobenchError) as error:
                say(f"{number} cells cannot share a GPU: {error}")
                continue
            before = (found[cell.fit_key].seconds_a_face for cell in cells)
            done = sum(each / other for each, other in zip(before, times, strict=True))
            say(f"{len(cells)} cells that share a GPU get {done:.2f} times as much done as one alone")
            if done >= most:
                best, most = Together(number, len(cells) / done), done
    return best


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


def seconds(cell: Cell, plan: Plan, found: Mapping[str, Calibration], faces: float) -> Seconds:
    """How long a cell takes, of what was measured.

    Args:
        found: by fit_key: of the cell, and of those that judge it, where that is known.
        faces: that its fit sees.
    """
    mine, recipe = found[cell.fit_key], cell.fit["recipe"]
    times = mine.batches_a_step if recipe is not None and recipe["steps"] is not None else 1
    fit = training(cell, mine, times * faces) if cell.trains else 0.0
    return Seconds(fit, START + _evaluating(cell, plan, found))


def training(cell: Cell, found: Calibration, faces: float) -> float:
    """Seconds of training with so many faces, on all devices of a cell."""
    return found.seconds_a_face * faces / (processes(cell.trainer) or 1)


def _evaluating(cell: Cell, plan: Plan, found: Mapping[str, Calibration]) -> float:
    """Seconds of what is drawn and read for an evaluation; maps of where a network looks are not known."""
    mine = found[cell.fit_key]
    if "recognition" in cell.evaluation["tracks"]:
        return (mine.seconds_read or 0.0) * plan.test[cell.dataset]
    if (asked := cell.evaluation.get("faces")) is None:
        return 0.0
    k = len(cell.emotions)
    seen: int = asked["fidelity"] or FIDELITY_FACES
    drawn: int = seen + k * asked["per_emotion"] + len(INTENSITIES) * k * asked["intensity"]
    edits: int = asked["sources"] * (k - 1)
    per = mine.seconds_drawn if mine.seconds_drawn is not None else mine.seconds_edited
    readers = {fit_key for keys in cell.panel.values() for fit_key in keys}
    read = sum(found[each].seconds_read or 0.0 for each in readers if each in found)
    made = (per or 0.0) * drawn + (mine.seconds_edited or 0.0) * edits
    return made + read * (drawn + edits) + (mine.seconds_seen or 0.0) * seen
