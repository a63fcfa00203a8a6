"""What is known of a finished network: its record, its lineage, and the numbers and controls of its board."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emobench.commands.runs import Run
from emobench.errors import StoreError, shown
from emobench.evaluation.tracks.track import Column, Key, Track
from emobench.files import read_json, read_object
from emobench.report.markdown import one_line
from emobench.report.written import read_board
from emobench.runner.record import Evaluation, Record, read_record
from emobench.runner.store import Store, StoredCell, load_board, sha256_of
from emobench.suite.catalog import tracks
from emobench.suite.keys import datasets_in, name_of, settings_key

if TYPE_CHECKING:
    import pandas as pd

    from emobench.nn.provenance import Behind, Figure, Provenance

_DRAWN = "synthetic"  # the dataset whose faces emobench draws itself


@dataclass(frozen=True)
class Control:
    """A control of a board, and its outcome."""

    name: str
    track: str
    what: str
    value: float | None
    low: float | None
    high: float | None
    passed: bool
    reason: str | None


@dataclass(frozen=True)
class Known:
    """All of it.

    Attributes:
        record: of the cell, with what was measured where it was.
        board: that it stands on; "": none that is here.
        numbers: of the board's metrics.csv, those of this seed of the row on this dataset; None: there is no board.
        seeds: of the row on the board.
        flags: of the row there.
        controls: of the board's tracks on this dataset; None: no board says.
        missing: why there are no numbers.
    """

    run: Run
    record: Record
    board: str = ""
    numbers: pd.DataFrame | None = None
    seeds: int = 1
    flags: tuple[str, ...] = ()
    controls: list[Control] | None = None
    missing: str = ""
    _lineage: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Known:
        """What is known of a cell's network; a run that was named by its key is looked for on the boards that are here.

        Raises:
            StoreError: its record is gone or damaged.
        """
        fit = read_record(Store(run.results).fit_folder(run.fit_key) / "fit.json")
        board = run.board or _board_of(run)
        if not board:
            return cls(run, fit, missing="it stands on no board here")
        cells = [each for each in load_board(run.results, board) if each.fit_key == run.fit_key and each.part is None]
        cell = next((each for each in cells if each.dataset == run.dataset), cells[0] if cells else None)
        if cell is None or cell.record is None or cell.record.evaluation is None:
            return cls(run, fit, missing="it was not evaluated")
        try:
            numbers = read_board(run.results / board)
            controls = _controls(run.results / board, cell)
        except StoreError as error:
            return cls(run, cell.record, board, missing=str(error))
        mine = (numbers["dataset"] == cell.dataset) & (numbers["size"] == cell.size)
        mine &= (numbers["model"] == cell.model) & (numbers["variant"] == cell.variant)
        mine &= numbers["trainer"] == cell.trainer
        row = numbers[mine]
        flags = dict.fromkeys(flag for told in row["flags"].dropna().unique() for flag in str(told).split(";") if flag)
        seeds = row["seed"].dropna().nunique()
        return cls(run, cell.record, board, row[row["seed"] == cell.seed], max(1, seeds), tuple(flags), controls)

    @property
    def evaluation(self) -> Evaluation | None:
        """What was measured; None: nothing."""
        return self.record.evaluation

    @property
    def drawn(self) -> bool:
        """Whether emobench itself drew the faces that it was trained on."""
        return all(name_of(each) == _DRAWN for each in datasets_in(self.record.made_of.fit))

    @property
    def tracks(self) -> list[Track]:
        """Those that it was measured on."""
        measured = () if self.evaluation is None else self.evaluation.tracks
        return [track for name, track in tracks().items() if name in measured]

    def number(self, track: Track, key: Key) -> Any | None:
        """A number of this seed as a row of metrics.csv; None: the board has it not."""
        if self.numbers is None:
            return None
        judge = getattr(key, "judge", "")
        of = self.numbers
        found = of[
            (of["track"] == track.name)
            & (of["metric"] == key.metric)
            & (of["emotion"] == key.emotion)
            & (of["judge"] == judge)
        ]
        return None if found.empty else next(found.itertuples())

    def columns(self, track: Track) -> list[tuple[Column, Any]]:
        """The columns of the track's tables with a number of this network, and these numbers."""
        found = [(column, self.number(track, column.key)) for column in track.columns if column.shows == "number"]
        return [(column, number) for column, number in found if number is not None]

    def figures(self) -> list[Figure]:
        """The numbers by which its tracks rank."""
        from emobench.nn.provenance import Figure

        found: list[Figure] = []
        for track in self.tracks:
            for ranking in track.rankings:
                numbers = (self.number(track, key) for key in ranking.metrics)
                number = next((each for each in numbers if each is not None and each.value == each.value), None)
                if number is not None:
                    values = {name: _finite(getattr(number, name)) for name in ("value", "low", "high")}
                    n = None if number.n != number.n else int(number.n)
                    place = {"metric": number.metric, "board": one_line(self.board), "track": track.name}
                    found.append(Figure.model_validate({**place, **values, "n": n}))
        return found

    def lineage(self) -> dict[str, Behind]:
        """Every network behind this one, itself first, by fit_key.

        Raises:
            StoreError: a record or weights among them are gone.
        """
        if not self._lineage:
            store, todo = Store(self.run.results), [self.run.fit_key]
            for key in todo:  # which grows meanwhile
                if key not in self._lineage:
                    self._lineage[key] = _behind(store, key)
                    todo += [each for keys in self._lineage[key].needs.values() for each in keys]
        return dict(self._lineage)

    def licence(self) -> str:
        """A note on what binds who uses it."""
        began = sorted({each.weights for each in self.lineage().values() if each.weights is not None})
        said = "emobench is under the MIT licence"
        if self.drawn:
            said += ", and drew the faces that this network was trained on"
        else:
            names = ", ".join(dict.fromkeys(name_of(each) for each in datasets_in(self.record.made_of.fit)))
            said += (
                f"; the network was trained on faces of {names}, whose licence and terms of use, which emobench does "
                "not know, may bind whoever uses or passes on what was trained on them"
            )
        return (
            f"{said}. It began with the weights {', '.join(began)}: their licence holds too." if began else f"{said}."
        )

    def provenance(self, network: Any, does: list[str], **more: Any) -> Provenance:
        """What an exported file of this network says of itself.

        Args:
            more: further fields, of the form.
        """
        from importlib.metadata import version

        from emobench.nn.provenance import Provenance

        cell, lineage = self.record.cell, self.lineage()
        described = None if self.evaluation is None else self.evaluation.dataset
        trained_on = "+".join(each["fingerprint"] for each in datasets_in(self.record.made_of.fit))
        return Provenance.model_validate(
            {
                "emobench": version("emobench"),
                "row": one_line(self.run.row or cell.row),
                "model": one_line(cell.model),
                "seed": cell.seed,
                "emotions": list(network.emotions),
                "size": self.run.size,
                "makes": None if does == ["read"] else network.size,
                "does": does,
                "outputs": "logits" if does == ["read"] else "images",
                "fit_key": self.run.fit_key,
                "weights_sha256": lineage[self.run.fit_key].sha256,
                "dataset": one_line(self.run.dataset),
                "dataset_fingerprint": trained_on if described is None else described.fingerprint,
                "lineage": lineage,
                "figures": self.figures(),
                "licence": self.licence(),
                **more,
            }
        )


def _finite(value: float) -> float | None:
    return None if value != value else float(value)


def _board_of(run: Run) -> str:
    """The first board here that a fit stands on; "": none."""
    for path in sorted(run.results.glob("*/suite.json")):
        try:
            rows = read_object(path).get("rows")
        except (StoreError, FileNotFoundError):
            continue
        rows = rows if isinstance(rows, list) else []
        if any(isinstance(row, dict) and row.get("fit_key") == run.fit_key and not row.get("skipped") for row in rows):
            return path.parent.name
    return ""


def _controls(folder: Path, cell: StoredCell) -> list[Control] | None:
    """The controls of a board's dataset, as it was written; None: it does not say."""
    try:
        said = read_json(folder / "metrics.json").get("controls")
    except FileNotFoundError:
        return None
    found: list[Control] = []
    for each in said if isinstance(said, list) else []:
        if (each.get("dataset"), each.get("size")) == (cell.dataset, cell.size):
            fields = {name: each.get(name) for name in Control.__dataclass_fields__}
            found.append(Control(**fields))
    return found


def _behind(store: Store, fit_key: str) -> Behind:
    """One network of a lineage."""
    from emobench.nn.provenance import Behind
    from emobench.runner.build import model_class

    record = read_record(store.fit_folder(fit_key) / "fit.json")
    made_of, cell = record.made_of.fit, record.cell
    weights = store.weights(fit_key)
    if record.trains and not weights.exists():
        raise StoreError(f"{weights}: the weights are gone. Run the suite again with --on-existing redo")
    stored = None if record.fit is None else record.fit.weights
    cls = model_class(record.planned)
    began = list(cls.weight_files(made_of["arguments"])) if record.trains else []
    reads = hasattr(cls, "logits")
    files = made_of.get("files", {})
    return Behind.model_validate(
        {
            "row": one_line(cell.row),
            "model": one_line(cell.model),
            "sha256": sha256_of(weights) if record.trains else None,
            "judge": None if stored is None else stored.judge,
            "data": [each["fingerprint"] for each in datasets_in(made_of)],
            "files": files if isinstance(files, dict) else {},
            "weights": _file_name(began[0].name) if began else None,
            "settings": settings_key(made_of) if record.trains else None,
            "architecture": one_line(cls.architecture(made_of["arguments"])) if reads else None,
            "family": one_line(cls.architecture_family(made_of["arguments"])) if reads else None,
            "needs": cell.needs,
        }
    )


def _file_name(name: str) -> str:
    """Published weights by their name; those of a path by its last part, since folders are the user's own matter."""
    from emobench.nn.weights import is_path

    return one_line(shown(Path(name).name if is_path(name) else name))
