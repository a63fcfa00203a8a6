"""Which finished network a command is to use: `best:BOARD/DATASET`, `BOARD/DATASET/ROW`, the key of a cell, or a file
that `emobench export` wrote."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emobench.errors import EmobenchError, StoreError, unknown
from emobench.exported import is_exported
from emobench.report.readable import duration
from emobench.runner.record import finished, read_record
from emobench.runner.store import Origin, Store, StoredCell, load_board

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Asked:
    """What is asked of a network.

    Attributes:
        track: on which the best of a board is chosen.
        methods: by one of which a class does it.
        who: what such a network does, after "a row that".
    """

    track: str
    methods: tuple[str, ...]
    who: str


ASKED = {
    "read": Asked("recognition", ("logits",), "reads faces"),
    "draw": Asked("generation", ("sample",), "draws faces"),
    "edit": Asked("editing", ("edit",), "edits faces"),
    "stylize": Asked("stylization", ("stylize",), "paints faces in a style"),
    # The faces that generation was measured on: an editor's are edits of validation faces.
    "measured": Asked("generation", ("sample", "edit"), "was measured on generation"),
}
ANYTHING = "anything"


@dataclass(frozen=True)
class Run:
    """A finished network.

    Attributes:
        label: what it is, in words.
        size: side of the faces that it was evaluated on, px.
        emotions: that it knows, in its order.
        board, row: where it stands; "": it was named by its key, or as a file.
        evaluation: folder of the record and raw files of the evaluation that is meant; None: it was named by its key.
        by: the score by which it was chosen, in words; "": it was named.
        file: the exported file that it lies in; None: it is a cell of the store.
    """

    label: str
    fit_key: str
    size: int
    dataset: str
    emotions: tuple[str, ...]
    results: Path
    board: str = ""
    row: str = ""
    evaluation: Path | None = None
    by: str = ""
    file: Path | None = None

    @property
    def described(self) -> str:
        """What it is, and for a `best:` the score by which it was chosen."""
        return f"{self.label}, {self.by}" if self.by else self.label

    def load(self) -> tuple[Any, torch.device]:
        """The network, frozen, in evaluation mode, and the device that it is on: a GPU where there is one.

        Raises:
            StoreError: its weights are gone.
            WeightsError: its file is damaged, or what it says does not fit together.
        """
        import torch

        network = self.network()
        device = torch.device("cuda" if torch.cuda.is_available() and isinstance(network, torch.nn.Module) else "cpu")
        return (network.to(device) if isinstance(network, torch.nn.Module) else network), device

    def network(self) -> Any:
        """The network, frozen, in evaluation mode, on the CPU; errors as of `load`."""
        if self.file is not None:
            from emobench.exported import load

            return load(self.file)
        import torch

        from emobench.runner.build import load_model

        torch.backends.cudnn.allow_tf32 = False  # as it was measured: TF32 makes answers depend on the batch
        together: Sequence[str] = ()
        if self.board:
            cells = load_board(self.results, self.board)
            mine = (each for each in cells if each.row == self.row and each.fit_key == self.fit_key)
            together = list(dict.fromkeys(each.dataset for each in mine))  # of each there may be several tracks
        return load_model(Store(self.results), self.fit_key, together, self.dataset)


def chosen(results: Path, run: str, asked: str) -> Run:
    """The finished network that a name means.

    Args:
        run: `best:<board>/<dataset>`, the row with the best validation macro F1, or of those that make faces the best
            calibrated control; `<board>/<dataset>/<row>`, at its first seed; the beginning of a cell's key, the name of
            its folder in `results/cells`; or a file that `emobench export` wrote, model.safetensors or model.onnx.
        asked: what it has to do, of `ASKED`; `ANYTHING`: whatever it does.

    Raises:
        StoreError: there is no such cell, several begin so, it does another thing, is not finished here, or its
            class is not to be had.
        WeightsError: the file cannot be read, or none that emobench exported.
    """
    if is_exported(run):
        return _of_file(Path(run).expanduser(), results, asked)
    if run.startswith("best:"):
        if asked == ANYTHING:
            return _best_of_any(results, run)
        board, _, dataset = run.removeprefix("best:").partition("/")
        best = best_by_validation if asked == "read" else functools.partial(best_by_control, asked=asked)
        return _of(results, board, *best(results, board, dataset))
    if "/" in run:
        board, _, wanted = run.partition("/")
        cells = [each for each in load_board(results, board) if each.part is None and each.state == "done"]
        found = [each for each in cells if f"{each.dataset}/{each.row}" == wanted]
        rows = [each for each in found if each.record is not None and _does(each.record.planned, asked)]
        if found and not rows:
            raise StoreError(f"{run}: {_does_not(found[0].track, asked)}")
        if not rows:
            known = {f"{board}/{each.dataset}/{each.row}" for each in cells if _can(each, asked)}
            raise StoreError(unknown("finished cell", run, known))
        return _of(results, board, rows[0])
    keys = [path.parent.name for path in Store(results).cells.glob(f"{run}*/fit.json")] if run.isalnum() else []
    if len(keys) != 1:
        found_ = f"{len(keys)} cells begin with '{run}'" if keys else f"no cell '{run}' in {Store(results).cells}"
        raise StoreError(f"{found_}. Name one as <board>/<dataset>/<row>, best:<board>/<dataset>, or by its key")
    record = read_record(Store(results).fit_folder(keys[0]) / "fit.json")
    cell = record.cell
    if not _does(record.planned, asked):
        raise StoreError(f"{cell.row}: {_does_not(cell.track, asked)}")
    label = f"{cell.row} on {cell.dataset}, seed {cell.seed}"
    return Run(label, keys[0], cell.size, cell.dataset, tuple(cell.emotions), results)


def _of_file(path: Path, results: Path, asked: str) -> Run:
    """The network in an exported file."""
    from emobench.nn.provenance import ONNX, provenance

    said = provenance(path)
    if said is None:
        raise StoreError(f"{path}: not a network that emobench exported. `emobench export RUN --to onnx` writes one")
    if asked != ANYTHING and asked not in said.does:
        does = " and ".join(ASKED[each].who for each in said.does)
        raise StoreError(f"{path}: {said.label} {does}. Name one that {ASKED[asked].who}")
    if path.suffix == ONNX and said.does != ["read"]:
        raise StoreError(f"{path}: emobench reads classifiers from ONNX. Export {said.label} --to safetensors")
    return Run(said.label, said.fit_key, said.size, said.dataset, tuple(said.emotions), results, file=path)


def _best_of_any(results: Path, run: str) -> Run:
    """The best classifier of a board's dataset; where it has none, the best of what makes faces."""
    board, _, dataset = run.removeprefix("best:").partition("/")
    cells = [each for each in load_board(results, board) if each.control is None and each.dataset == dataset]
    does = [asked for asked, of in ASKED.items() if any(each.track == of.track for each in cells)]
    return chosen(results, run, does[0] if does else "read")


def _does_not(track: str, asked: str) -> str:
    """Why a network of a track does not do what is asked of it, and which one does."""
    does = next((each.who for each in ASKED.values() if each.track == track), f"is a row of {track}")
    if asked == "draw" and track == "generation":
        does = "edits faces, and draws none"
    return f"it {does}. Name a row that {ASKED[asked].who}"


def _can(cell: StoredCell, asked: str) -> bool:
    """Whether a row may be offered: one whose class is not to be had here is not."""
    try:
        return cell.record is not None and _does(cell.record.planned, asked)
    except EmobenchError:
        return False


def _does(cell: Any, asked: str) -> bool:
    """Whether the class of a cell's model has a method for it.

    Raises:
        StoreError: the class lies in a file of the user's own that is gone or not trusted.
    """
    if asked == ANYTHING:
        return True
    from emobench.runner.build import model_class

    cls = model_class(cell)
    return any(hasattr(cls, method) for method in ASKED[asked].methods)


def best_by_validation(results: Path, board: str, dataset: str) -> tuple[StoredCell, str]:
    """The row of the board with the best validation macro F1, all seeds apart; controls and ensembles have none.

    Returns:
        The cell, and the score by which it is the best, in words.
    """
    scored = [
        (each.record.fit.validation.macro_f1, each)
        for each in load_board(results, board)
        if each.state == "done" and each.control is None and each.part is None and each.track == ASKED["read"].track
        if each.record is not None and each.record.fit is not None and each.record.fit.validation is not None
    ]
    mine = [(score, each) for score, each in scored if each.dataset == dataset]
    if not mine:
        there = {f"best:{board}/{each.dataset}" for _, each in scored}
        if not there:
            raise StoreError(f"{board}: no finished classifier that was validated. `emobench bench` trains them")
        raise StoreError(unknown("choice", f"best:{board}/{dataset}".rstrip("/"), there))
    score, cell = max(mine, key=lambda pair: pair[0])
    return cell, _best(len(mine), "validation macro F1", f"{score:.3f}")


def best_by_control(results: Path, board: str, dataset: str, asked: str) -> tuple[StoredCell, str]:
    """The row of the board with the best calibrated control on the track of what is asked, at its first seed.

    Returns:
        The cell, and the score by which it is the best, in words.

    Raises:
        StoreError: there is none.
    """
    from emobench.report.written import read_board

    numbers = read_board(results / board)
    mine = numbers[
        (numbers["metric"] == "control_calibrated")
        & (numbers["emotion"] == "macro")
        & (numbers["track"] == ASKED[asked].track)
        & numbers["seed"].isna()
        & numbers["value"].notna()
        & ~numbers["model"].str.startswith("control:")
    ].sort_values("value", ascending=False, kind="stable")
    cells = [each for each in load_board(results, board) if each.state == "done" and each.control is None]
    able: list[tuple[Any, StoredCell]] = []  # the first seed of each row
    for number in mine.itertuples():
        wanted = (number.model, number.variant, number.trainer, number.dataset)
        of = [each for each in cells if (each.model, each.variant, each.trainer, each.dataset) == wanted]
        able += [(number, each) for each in of if _can(each, asked)][:1]
    here = [pair for pair in able if pair[1].dataset == dataset]
    if not here:
        there = {f"best:{board}/{each.dataset}" for _, each in able}
        if not there:
            raise StoreError(f"{board}: no finished row that {ASKED[asked].who} has a calibrated control. Name a row")
        raise StoreError(unknown("choice", f"best:{board}/{dataset}".rstrip("/"), there))
    number, cell = here[0]
    interval = f" ({number.low:.3f}–{number.high:.3f})" if number.low == number.low else ""
    return cell, _best(len(here), "calibrated control", f"{number.value:.3f}{interval}")


def offers(results: Path, board: str, asked: str) -> list[Run]:
    """The networks of a board that do what is asked and whose weights are here: a row's first seed, and before all of
    them the best of each dataset, as `best:` chooses it.

    Raises:
        StoreError: there is no such board, or it cannot be read.
    """
    rows: dict[tuple[str, str], Run] = {}
    for cell in load_board(results, board):
        place = cell.dataset, cell.row
        mine = cell.state == "done" and cell.control is None and cell.part is None
        if mine and place not in rows and _is_here(results, cell) and _can(cell, asked):
            rows[place] = _of(results, board, cell)
    for dataset in dict.fromkeys(dataset for dataset, _ in rows):
        with suppress(StoreError):  # the best is not here, or the board does not say which it is
            best = chosen(results, f"best:{board}/{dataset}", asked)
            rows[dataset, best.row] = best
    return sorted(rows.values(), key=lambda run: not run.by)


def _is_here(results: Path, cell: StoredCell) -> bool:
    """Whether a network was trained here: those of most rows of a committed board were not."""
    return finished(Store(results).fit_folder(cell.fit_key) / "fit.json")


def _best(rows: int, metric: str, value: str) -> str:
    return f"the best of {rows} by {metric}, {value}" if rows > 1 else f"the only candidate, {metric} {value}"


def _of(results: Path, board: str, cell: StoredCell, by: str = "") -> Run:
    """The network of a board's cell; `by`: the score by which it was chosen.

    Raises:
        StoreError: its weights are not here, as those of most rows of a committed board are not; says the command that
            trains it.
    """
    if not _is_here(results, cell):
        cost = None if cell.record is None or cell.record.fit is None else cell.record.fit.cost
        took = "" if cost is None else f"; it was trained in {duration(cost.fit_seconds)}"
        command = Origin.recorded(results, board).command(board)
        raise StoreError(f"{cell.row}: its weights are not in {results}{took}. To train it here: `{command}`")
    label = f"{cell.row} on {cell.dataset}, seed {cell.seed}"
    emotions = () if cell.record is None else tuple(cell.record.cell.emotions)
    return Run(label, cell.fit_key, cell.size, cell.dataset, emotions, results, board, cell.row, cell.folder, by)
