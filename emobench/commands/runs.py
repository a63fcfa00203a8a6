"""Which finished network a command is to use: `best:BOARD/DATASET`, `BOARD/DATASET/ROW`, the key of a cell, or a file
that `emobench export` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emobench.errors import StoreError, unknown
from emobench.exported import is_exported
from emobench.report.readable import duration
from emobench.runner.record import finished, read_record
from emobench.runner.store import Origin, Store, StoredCell, load_board

if TYPE_CHECKING:
    import torch

# What is asked of a network, and the tracks whose cells can do it; of the first one a board's best is chosen.
TRACKS = {
    "read": ("recognition",),
    "draw": ("generation",),
    "edit": ("editing",),
    "stylize": ("stylization",),
}
ANYTHING = "anything"
_WHO = {"read": "reads faces", "draw": "draws faces", "edit": "edits faces", "stylize": "paints faces in a style"}
_DOES = {"read": "logits", "draw": "sample", "edit": "edit", "stylize": "stylize"}  # by which method


@dataclass(frozen=True)
class Run:
    """A finished network.

    Attributes:
        label: what it is, in words.
        size: side of the faces that it was evaluated on, px.
        board, row: where it stands; "": it was named by its key, or as a file.
        file: the exported file that it lies in; None: it is a cell of the store.
    """

    label: str
    fit_key: str
    size: int
    dataset: str
    results: Path
    board: str = ""
    row: str = ""
    file: Path | None = None

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
        from emobench.runner.build import load_model

        together: Sequence[str] = ()
        if self.board:
            cells = load_board(self.results, self.board)
            together = [each.dataset for each in cells if each.row == self.row and each.fit_key == self.fit_key]
        return load_model(Store(self.results), self.fit_key, together, self.dataset)


def chosen(results: Path, run: str, asked: str) -> Run:
    """The finished network that a name means.

    Args:
        run: `best:<board>/<dataset>`, the row with the best validation macro F1, or of those that make faces the best
            calibrated control; `<board>/<dataset>/<row>`, at its first seed; the beginning of a cell's key, the name of
            its folder in `results/cells`; or a file that `emobench export` wrote, model.safetensors or model.onnx.
        asked: what it has to do, of `TRACKS`; `ANYTHING`: whatever it does.

    Raises:
        StoreError: there is no such cell, several begin so, it does another thing, or it is not finished here.
        WeightsError: the file cannot be read, or none that emobench exported.
    """
    if is_exported(run):
        return _of_file(Path(run).expanduser(), results, asked)
    if run.startswith("best:"):
        if asked == ANYTHING:
            return _best_of_any(results, run)
        board, _, dataset = run.removeprefix("best:").partition("/")
        if asked == "read":
            return _of(results, board, best_by_validation(results, board, dataset))
        return _of(results, board, best_by_control(results, board, dataset, asked))
    if "/" in run:
        board, _, wanted = run.partition("/")
        cells = [each for each in load_board(results, board) if each.part is None and each.state == "done"]
        found = [each for each in cells if f"{each.dataset}/{each.row}" == wanted]
        rows = [each for each in found if _can(each, asked)]
        if found and not rows:
            raise StoreError(f"{run}: it {_who_not(found[0].track)}. Name a row that {_WHO[asked]}")
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
        raise StoreError(f"{cell.row} {_who_not(cell.track)}. Name one that {_WHO[asked]}")
    return Run(f"{cell.row} on {cell.dataset}, seed {cell.seed}", keys[0], cell.size, cell.dataset, results)


def _of_file(path: Path, results: Path, asked: str) -> Run:
    """The network in an exported file."""
    from emobench.nn.provenance import ONNX, provenance

    said = provenance(path)
    if said is None:
        raise StoreError(f"{path}: not a network that emobench exported. `emobench export RUN --to onnx` writes one")
    if asked != ANYTHING and asked not in said.does:
        does = " and ".join(_WHO[each] for each in said.does)
        raise StoreError(f"{path}: {said.label} {does}. Name one that {_WHO[asked]}")
    if path.suffix == ONNX and said.does != ["read"]:
        raise StoreError(f"{path}: emobench reads classifiers from ONNX. Export {said.label} --to safetensors")
    return Run(said.label, said.fit_key, said.size, said.dataset, results, file=path)


def _best_of_any(results: Path, run: str) -> Run:
    """The best classifier of a board's dataset; where it has none, the best of what makes faces."""
    board, _, dataset = run.removeprefix("best:").partition("/")
    cells = [each for each in load_board(results, board) if each.control is None and each.dataset == dataset]
    does = [asked for asked, tracks in TRACKS.items() if any(each.track in tracks for each in cells)]
    return chosen(results, run, does[0] if does else "read")


def _who_not(track: str) -> str:
    """What a row of a track does, as a sentence's end."""
    return next((_WHO[asked] for asked, tracks in TRACKS.items() if track in tracks), f"is a row of {track}")


def _can(cell: StoredCell, asked: str) -> bool:
    if asked == ANYTHING:
        return True
    if cell.track in TRACKS[asked]:
        return True
    return cell.record is not None and asked != "read" and _does(cell.record.planned, asked)


def _does(cell: Any, asked: str) -> bool:
    """Whether the class of a cell's model has the method."""
    if asked == ANYTHING:
        return True
    from emobench.runner.build import model_class

    return hasattr(model_class(cell), _DOES[asked])


def best_by_validation(results: Path, board: str, dataset: str) -> StoredCell:
    """The row of the board with the best validation macro F1, all seeds apart; controls and ensembles have none."""
    scored = [
        (each.record.fit.validation.macro_f1, each)
        for each in load_board(results, board)
        if each.state == "done" and each.control is None and each.part is None
        if each.record is not None and each.record.fit is not None and each.record.fit.validation is not None
    ]
    if not any(each.dataset == dataset for _, each in scored):
        there = {f"best:{board}/{each.dataset}" for _, each in scored}
        if not there:
            raise StoreError(f"{board}: no finished classifier that was validated. `emobench bench` trains them")
        raise StoreError(unknown("choice", f"best:{board}/{dataset}".rstrip("/"), there))
    return max(((score, each) for score, each in scored if each.dataset == dataset), key=lambda pair: pair[0])[1]


def best_by_control(results: Path, board: str, dataset: str, asked: str) -> StoredCell:
    """The row of the board with the best calibrated control on the track of what is asked, at its first seed.

    Raises:
        StoreError: there is none.
    """
    from emobench.report.written import read_board

    track = TRACKS[asked][0]
    numbers = read_board(results / board)
    mine = numbers[
        (numbers["metric"] == "control_calibrated")
        & (numbers["emotion"] == "macro")
        & (numbers["track"] == track)
        & numbers["seed"].isna()
        & numbers["value"].notna()
        & ~numbers["model"].str.startswith("control:")
    ].sort_values("value", ascending=False, kind="stable")
    cells = [each for each in load_board(results, board) if each.state == "done" and each.control is None]
    for number in mine[mine["dataset"] == dataset].itertuples():
        for cell in cells:
            same = (cell.model, cell.variant, cell.dataset) == (number.model, number.variant, dataset)
            if same and _can(cell, asked):
                return cell
    there = {f"best:{board}/{each}" for each in mine["dataset"]}
    if not there:
        raise StoreError(f"{board}: no finished row that {_WHO[asked]} has a calibrated control there. Name a row")
    raise StoreError(unknown("choice", f"best:{board}/{dataset}".rstrip("/"), there))


def _of(results: Path, board: str, cell: StoredCell) -> Run:
    """The network of a board's cell.

    Raises:
        StoreError: its weights are not here, as those of most rows of a committed board are not; says the command that
            trains it.
    """
    if not finished(Store(results).fit_folder(cell.fit_key) / "fit.json"):
        cost = None if cell.record is None or cell.record.fit is None else cell.record.fit.cost
        took = "" if cost is None else f"; it was trained in {duration(cost.fit_seconds)}"
        command = Origin.recorded(results, board).command(board)
        raise StoreError(f"{cell.row}: its weights are not in {results}{took}. To train it here: `{command}`")
    label = f"{cell.row} on {cell.dataset}, seed {cell.seed}"
    return Run(label, cell.fit_key, cell.size, cell.dataset, results, board, cell.row)
