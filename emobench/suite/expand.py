"""From a suite to its cells, every one validated before the first one starts.

Names, arguments, sizes, datasets, weight files, needs: the first thing that is wrong is named.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emobench.definitions.roots import evaluation_code, fit_code, measured_by, root_of
from emobench.emotions import EMOTIONS
from emobench.errors import DatasetError, SizeError, SuiteError, Unsaid, WeightsError
from emobench.suite import plugins
from emobench.suite.catalog import SMALL_FACES, SMALL_SIDE, files_of_metrics, tracks_of
from emobench.suite.cell import Cell, Plan, Skipped, without_trainer
from emobench.suite.file import Suite
from emobench.suite.firewall import EvaluationFiles, Networks, check_firewall, check_panel, evaluation_files, panel_of
from emobench.suite.keys import (
    PROTOCOL,
    apart,
    contents_of_files,
    key,
    listings_of_code,
    listings_of_files,
    with_global_batch,
)
from emobench.suite.rows import (
    DataRow,
    ModelRow,
    check_by_hand,
    check_cross_validated,
    data_row,
    datasets_of,
    evaluation_size,
    in_order_of_needs,
    model_row,
    parts_of,
    passed_over,
)
from emobench.suite.settings import check_chosen_among, check_nobody_uses, check_places, settings
from emobench.suite.trainers import Trainer, by_trainer, trainers_of


def expand(suite: Suite, data_root: Path) -> Plan:
    """All cells of a suite, every one validated.

    Raises:
        SuiteError, DatasetError, WeightsError, SizeError: the first thing that is wrong.
    """
    where = f"suite {suite.name}"
    check_places(where, suite)
    trainers = trainers_of(where, suite.trainer)
    tables = datasets_of(suite, data_root)
    rows = _model_rows(where, suite, list(tables), trainers)
    plan = Plan(suite.name, [], [], [], {}, {})
    files = EvaluationFiles({}, {})
    if any(row.generates for row in rows):
        named = {row.row for row in rows}
        unnamed = [name for name in dict.fromkeys(panel_of(suite)) if name not in named]
        further = [row.row for row in rows if row.row != without_trainer(row.row, row.trained_by)]
        for name in panel_of(suite):
            if name in further or (name in unnamed and name in suite.model):
                raise SuiteError(
                    f"{where}: panel and reader are of the suite's first trainer, {trainers[0].name}, and {name} is "
                    f"not run with it. Name another row, or let this one be run with {trainers[0].name} too"
                )
        first = {"seeds": suite.seeds[:1]}  # a panel is of the first seed and the first trainer
        judges = [model_row(where, name, first, suite, list(tables), ()) for name in unnamed]
        rows += by_trainer(where, judges, trainers[:1])
        check_panel(where, suite, rows)
        files = evaluation_files(where, suite, plan.listings)
    rows = sorted(in_order_of_needs(rows), key=lambda row: row.generates)  # judges come before those they judge
    if any(row.generates for row in rows):
        sizes = [evaluation_size(where, name, table) for name, table in tables.items()]
        check_firewall(where, suite, Networks(rows, _settings, sizes))
    for row in rows:
        plan.listings.update(listings_of_files(row.cls, row.arguments))
    builder = _Builder(where, suite, rows, files)
    plan.data_notes.update({name: notes for name, notes in passed_over(suite, data_root).items() if notes})
    for data_name, table in tables.items():
        data = _usable_data(where, data_name, table, data_root, named=data_name in suite.data)
        mine = [row for row in rows if row.train_on is None and (row.on is None or data_name in row.on)]
        if isinstance(data, str):
            size = table.get("size", 0)
            plan.skipped.extend(_skipped(row, data_name, size, data) for row in mine)
            continue
        counts = data.module.counts()
        plan.faces[data_name] = counts["train"]
        plan.validation[data_name], plan.test[data_name] = (sum(counts[each].values()) for each in ("val", "test"))
        plan.data_notes[data_name] = [*data.module.notes, *data.module.counted()]
        plan.listings.update(data.module.listings)
        usable: list[ModelRow] = []
        for row in mine:
            reason = _unusable(where, row, data, plan.downloads)
            if reason is None and (lacking := _unfilled(row, suite, [other.row for other in usable])):
                skipped = lacking in [other.row for other in mine]
                reason = f"needs {lacking}, which is {'skipped' if skipped else f'not run on {data_name}'}"
            if reason is None:
                usable.append(row)
            else:
                plan.skipped.append(_skipped(row, data_name, data.module.size, reason))
        if data.module.pooled:
            check_cross_validated(where, data, mine)
            parts = parts_of(where, data_name, table, data_root)
            plan.cells.extend(builder.cross_validated(data, parts, usable))
        else:
            plan.cells.extend(builder.cells_on(data, usable))
    for row in rows:
        if row.train_on is not None:
            plan.cells.extend(builder.joint_cells(row, plan))
    if suite.explain is not None:
        plan.cells.extend(builder.explained(plan.cells))
    if not plan.cells:
        reasons = dict.fromkeys(each.reason for each in plan.skipped)
        reasons |= {
            f"{name}: {note}": None for name in passed_over(suite, data_root) for note in plan.data_notes.get(name, [])
        }
        raise SuiteError(f"{where}: nothing can run here: {'; '.join(reasons)}")
    plan.listings.update(listings_of_code())
    return plan


def _skipped(row: ModelRow, dataset: str, size: int, reason: str) -> Skipped:
    """With the reason as a board may say it, which others read: the home of whoever runs it is called ~."""
    return Skipped(row.row, row.model, dataset, size, reason.replace(f"{Path.home()}/", "~/"), row.trained_by)


def _model_rows(where: str, suite: Suite, datasets: list[str], trainers: Sequence[Trainer]) -> list[ModelRow]:
    """The rows that a suite's model tables name, each setting of a sweep, under each trainer, one of its own."""
    rows: list[ModelRow] = []
    for name, table in suite.model.items():
        for row_name, setting in settings(where, name, table).items():
            row = model_row(where, row_name, setting, suite, datasets, [each.name for each in trainers])
            if row_name != name:
                row = dataclasses.replace(row, setting_of=name)
                check_chosen_among(where, row)
            if any(other.row == row_name for other in rows):
                raise SuiteError(f"{where}: two rows would both be called {row_name}; rename one of them")
            rows.append(row)
    check_nobody_uses(where, suite, rows)
    return by_trainer(where, rows, trainers)


def _usable_data(where: str, name: str, table: Mapping[str, Any], data_root: Path, named: bool) -> DataRow | str:
    """See `data_row`; of a folder that the suite does not name, also the reason why it is no usable dataset."""
    try:
        return data_row(where, name, table, data_root)
    except DatasetError as error:
        if named:
            raise
        return str(error)


def _unusable(where: str, row: ModelRow, data: DataRow, downloads: list[str]) -> str | None:
    """Check what depends on the dataset: the size and the weight file; the reason where an optional row cannot run."""
    where = f"{where}, [model.{row.row}] on {data.name}"
    size = data.module.size if row.recipe is None or row.recipe.size is None else row.recipe.size
    if row.model.endswith(SMALL_FACES) and size > SMALL_SIDE:
        raise SizeError(
            f"{where}: {row.model} is for faces of {SMALL_SIDE} px and less, and these are {size} px; "
            f'take class = "{row.cls.name}"'
        )
    try:
        row.cls.check_size(size, row.arguments)
        if row.foreign:
            row.cls.settled(row.arguments, size)
    except SizeError as error:
        raise SizeError(f"{where}: {error}") from None
    except Unsaid as error:
        raise error.about(where, row, data) from None
    except SuiteError as error:
        raise SuiteError(f"{where}: {error}") from None
    weights = row.cls.weight_file(row.arguments)
    if weights is None or weights.path is not None:
        return None
    if weights.download:
        if (fetched := f"{row.row}: {weights.name}") not in downloads:
            downloads.append(fetched)
        return None
    reason = f"{where}: weights {weights.name} not found; looked for {weights.looked_for}. {weights.how}"
    if row.optional:
        return reason
    raise WeightsError(reason)


def _unfilled(row: ModelRow, suite: Suite, usable: list[str]) -> str | None:
    names = [name for names in row.needs.values() for name in names] + (panel_of(suite) if row.generates else [])
    return next((name for name in names if name not in usable), None)


@dataclass(frozen=True)
class _Seedless:
    """What the cells of a row on a dataset have in common, whatever their seed: found once, and shared by them all.

    Attributes:
        fit: what their `fit_key` is made of, but for seed, needs and control.
        measured: what an evaluation's key holds of the tracks.
        datasets: those of one fit, where the model is told them.
    """

    fit: dict[str, Any]
    code: dict[str, Any]
    measured: dict[str, Any]
    track: str
    emotions: list[str]
    parameters: int
    trainer: dict[str, Any]
    sources: dict[str, dict[str, str]]
    datasets: list[str]
    small: dict[str, Any] | None


class _Builder:
    """Makes the cells of a suite, dataset by dataset; remembers them for those that need them."""

    def __init__(self, where: str, suite: Suite, rows: list[ModelRow], files: EvaluationFiles) -> None:
        self.where, self.suite, self.files = where, suite, files
        self.rows = {row.row: row for row in rows}
        self.contents = {row.row: contents_of_files(row.cls, row.arguments) for row in rows}
        self.made: dict[tuple[str, str, int], Cell] = {}  # (dataset, row, seed)
        self.data: dict[str, DataRow] = {}
        self.seedless = functools.cache(self._seedless)
        self.parameters = functools.cache(self._parameters)
        self.flops = functools.cache(self._flops)

    def cells_on(self, data: DataRow, rows: list[ModelRow]) -> list[Cell]:
        """The cells of one dataset, the permuted control last."""
        self.data[data.name] = data
        found = []
        for seed in self.suite.seeds:
            for row in (row for row in rows if seed in row.seeds):
                cell = self._cell(row, data, seed, self._needs(row, data.name, seed))
                self.made[data.name, row.row, seed] = cell
                found.append(cell)
        if (cheapest := self._cheapest(rows, data)) is not None:
            found.append(self._cell(cheapest, data, self.suite.seeds[0], {}, control="permuted"))
        return found

    def cross_validated(self, data: DataRow, parts: Sequence[DataRow], rows: list[ModelRow]) -> list[Cell]:
        """Of every row and seed a fit a part, and the cell that pools their answers; then the permuted control's."""
        from emobench.classifiers.cross_validated import CrossValidated

        self.data[data.name] = data
        pooled: dict[str, Any] = {"cls": CrossValidated, "arguments": {}, "recipe": None}
        wholes = {
            row.row: dataclasses.replace(row, **pooled, needs={"networks": [row.row] * len(parts)}) for row in rows
        }
        found = [
            cell
            for seed in self.suite.seeds
            for row in rows
            if seed in row.seeds
            for cell in self._pooled(row, wholes[row.row], data, parts, seed)
        ]
        if (cheapest := self._cheapest(rows, data)) is not None:
            whole = wholes[cheapest.row]
            found += self._pooled(cheapest, whole, data, parts, self.suite.seeds[0], control="permuted")
        return found

    def _pooled(
        self,
        row: ModelRow,
        whole: ModelRow,
        data: DataRow,
        parts: Sequence[DataRow],
        seed: int,
        control: str | None = None,
    ) -> list[Cell]:
        """The fits of a row, each without one part of the faces, and the cell in which each of them reads that part."""
        fits = [
            dataclasses.replace(self._cell(row, part, seed, {}, control=control), part=k)
            for k, part in enumerate(parts)
        ]
        return [*fits, self._cell(whole, data, seed, {"networks": [fit.fit_key for fit in fits]}, control=control)]

    def joint_cells(self, row: ModelRow, plan: Plan) -> list[Cell]:
        """One fit on several datasets, evaluated on each of them; skipped where one of them is."""
        names = row.train_on or []
        if crossed := [name for name in names if name in self.data and self.data[name].module.pooled]:
            raise SuiteError(
                f"{self.where}, [model.{row.row}]: trains on {', '.join(names)} together, and {crossed[0]} is "
                "cross-validated. Leave cross_validate or train_on out"
            )
        lacking = [name for name in names if name not in self.data]
        if lacking:
            reason = f"is trained on {', '.join(names)} together, and {', '.join(lacking)} cannot be used here"
            plan.skipped.extend(_skipped(row, name, 0, reason) for name in names)
            return []
        parts = [self.data[name] for name in names]
        if len({part.module.size for part in parts}) > 1:
            sizes = ", ".join(f"{part.name} {part.module.size} px" for part in parts)
            raise SizeError(f"{self.where}, [model.{row.row}]: datasets of one size can be trained on, not {sizes}")
        reasons = [_unusable(self.where, row, part, plan.downloads) for part in parts]
        if any(reasons):
            reason = "; ".join(dict.fromkeys(filter(None, reasons)))
            plan.skipped.extend(_skipped(row, part.name, part.module.size, reason) for part in parts)
            return []
        return [
            self._cell(row, part, seed, self._needs(row, part.name, seed), parts=parts)
            for seed in row.seeds
            for part in parts
        ]

    def _needs(self, row: ModelRow, dataset: str, seed: int) -> dict[str, list[str]]:
        """The fit_keys of the cells that fill a row's needs, at its own seed."""
        for role, names in row.needs.items():
            for name in names:
                if (dataset, name, self._seed_of(name, seed)) not in self.made:
                    raise SuiteError(
                        f"{self.where}, [model.{row.row}]: its {role} {name} is not run on {dataset} with seed {seed}; "
                        f"change the seeds or the datasets of one of them"
                    )
        return {
            role: [self.made[dataset, name, self._seed_of(name, seed)].fit_key for name in names]
            for role, names in row.needs.items()
        }

    def _seed_of(self, name: str, seed: int) -> int:
        """The seed of the cell that fills a need at `seed`: a network that nobody trains here has one for all."""
        row = self.rows[name]
        return row.seeds[0] if row.foreign else seed

    def _cell(
        self,
        row: ModelRow,
        data: DataRow,
        seed: int,
        needs: dict[str, list[str]],
        *,
        control: str | None = None,
        parts: Sequence[DataRow] = (),
    ) -> Cell:
        shared = self.seedless(row, data, *parts)
        made_of_fit = {
            **shared.fit,
            "seed": seed,
            "permuted": control == "permuted",
            "needs": needs,
            **({"files": self.contents[row.row]} if self.contents[row.row] else {}),
            "code": shared.code,
        }
        evaluation = {
            "fit_key": key(made_of_fit),
            "protocol": PROTOCOL,
            "size": data.module.size,
            **shared.measured,
        }
        if parts:
            evaluation["part"] = [part.name for part in parts].index(data.name)
        cell = Cell(
            row=f"control:{control}" if control else row.row,
            model=row.model,
            dataset=data.name,
            size=data.module.size,
            seed=seed,
            track=shared.track,
            control=control,
            fit=made_of_fit,
            evaluation=evaluation,
            emotions=shared.emotions,
            parameters=shared.parameters,
            trainer=shared.trainer,
            needs=needs,
            sources=shared.sources,
            datasets=shared.datasets,
            setting_of="" if control else row.setting_of,
            small=shared.small,
            trained_by=row.trained_by,
            files=_placed(row, seed),
            declared={} if control else row.declared,
        )
        return self._judged(cell) if row.generates else cell

    def _seedless(self, row: ModelRow, data: DataRow, *parts: DataRow) -> _Seedless:
        from emobench.suite.catalog import plain

        sources = list(parts) or [data]
        emotions = [each for each in EMOTIONS if any(each in part.module.emotions for part in sources)]
        if not parts:
            emotions = list(data.module.emotions)
        masked = len(parts) > 1 and "datasets" in inspect.signature(row.cls.__init__).parameters
        datasets = [part.name for part in parts] if masked else []
        entry = {"joint": [_data_entry(part) for part in parts], **({"masked": True} if masked else {})}
        measured = self._measured(row)
        code = fit_code(root_of(row.cls), [root_of(part.cls) for part in sources], bool(parts))
        return _Seedless(
            fit={**_settings(row), "data": entry if parts else _data_entry(data)},
            code={"digest": code},
            measured=measured,
            track=next(iter(measured["tracks"]), ""),
            emotions=emotions,
            parameters=self.parameters(row, data.module.size, tuple(emotions), tuple(datasets)),
            trainer=row.trainer,
            sources=plugins.sources(row.cls, *(part.cls for part in sources)),
            datasets=datasets,
            small=None if row.small is None else plain(row.small),
        )

    def _measured(self, row: ModelRow) -> dict[str, Any]:
        """What an evaluation's key holds of a row's tracks: their names and their code."""
        only = getattr(row.cls, "measured_on", None)  # what pictures can be measured on
        measured = {name: track for name, track in tracks_of(row.cls).items() if only is None or name in only}
        if self.suite.cues is None:
            measured.pop("text", None)
        own = {file for name in measured for file in files_of_metrics(name)}
        roots = {name: measured_by(track) for name, track in measured.items()}
        return {
            "tracks": list(measured),
            "code": {"digest": evaluation_code(roots, [(file, "*") for file in sorted(own)])},
            **({"own_metrics": True} if own else {}),
        }

    def explained(self, cells: Sequence[Cell]) -> list[Cell]:
        """Of each classifier a further evaluation, which says where it looks: no key of another cell changes."""
        from emobench.suite.catalog import tracks

        assert self.suite.explain is not None
        if importlib.util.find_spec("captum") is None:
            raise SuiteError(
                f"{self.where}, [explain]: needs captum, which is not installed: pip install 'emobench[explain]'"
            )
        track = tracks()["explanation"]
        own = {
            "tracks": [track.name],
            "code": {"digest": evaluation_code({track.name: measured_by(track)})},
            "explain": self.suite.explain.model_dump(),
        }
        return [
            dataclasses.replace(cell, track=track.name, evaluation={**_of_fit(cell), **own}, declared={})
            for cell in cells
            if cell.track == "recognition" and cell.part is None
        ]

    def _judged(self, cell: Cell) -> Cell:
        """A generator's cell with its judges and reader, of the suite's first seed, and how many faces they see."""
        names = {"judges": self.suite.panel, "reader": [self.suite.reader]}
        for name in panel_of(self.suite):
            if (cell.dataset, name, self.suite.seeds[0]) not in self.made:
                raise SuiteError(
                    f"{self.where}: {name} judges {cell.row} on {cell.dataset}, and is not run there with the suite's "
                    f"first seed"
                )
        panel = {
            role: [self.made[cell.dataset, name, self.suite.seeds[0]].fit_key for name in of]
            for role, of in names.items()
        }
        evaluation = {
            **cell.evaluation,
            **panel,
            "faces": self.suite.evaluation.faces,
            "files": self.files.hashes,
            **({"cues": self._cues()} if "text" in cell.evaluation["tracks"] else {}),
        }
        files = {**cell.files, **self.files.paths}
        return dataclasses.replace(cell, panel=panel, files=files, evaluation=evaluation)

    def _cues(self) -> dict[str, Any]:
        """What an evaluation's key holds of the sentences that generators are asked in."""
        from emobench.cues.sentences import digest

        assert self.suite.cues is not None
        return {**self.suite.cues.model_dump(), "digest": digest()}

    def _parameters(self, row: ModelRow, size: int, emotions: tuple[str, ...], datasets: tuple[str, ...]) -> int:
        """Parameters of the row's own network, 0 where it has none, as an ensemble; what cannot be built is refused."""
        from emobench.classifiers.classifier import parameters_of

        try:
            network = _weightless(row, size, emotions, self.rows, datasets)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # sizes that no tensor has
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            where = f"{self.where}, [model.{row.row}]"
            raise SuiteError(f"{where}: its network cannot be built ({reason}). Change its arguments") from error
        if row.recipe is None:
            return 0
        check_by_hand(f"{self.where}, [model.{row.row}]", network, row.trainer)
        return parameters_of(network)

    def _cheapest(self, rows: Sequence[ModelRow], data: DataRow) -> ModelRow | None:
        """The row that is trained on permuted labels, as a control: one of the suite's first trainer, if any."""
        trained = [row for row in rows if row.recipe is not None and not row.needs and not row.generates]
        trained = [row for row in trained if row.row == without_trainer(row.row, row.trained_by)] or trained
        by_hand = [row for row in trained if not row.setting_of]  # a setting may be one that learns nothing at all
        among = by_hand or trained
        return among[0] if len(among) == 1 else min(among, key=lambda row: self._training_cost(row, data), default=None)

    def _training_cost(self, row: ModelRow, data: DataRow) -> float:
        """FLOPs of a fit, up to a factor that all rows of the dataset share."""
        passes = row.recipe.epochs or row.recipe.steps * row.recipe.batch / sum(data.module.counts()["train"].values())
        return float(passes * self.flops(row, data.module.size, tuple(data.module.emotions)))

    def _flops(self, row: ModelRow, size: int, emotions: tuple[str, ...]) -> int:
        from emobench.classifiers.classifier import flops_of

        return flops_of(_weightless(row, size, emotions, {}))


def _of_fit(cell: Cell) -> dict[str, Any]:
    """What an evaluation's key holds of the fit and its faces, whatever is measured."""
    return {name: cell.evaluation[name] for name in ("fit_key", "protocol", "size", "part") if name in cell.evaluation}


def _placed(row: ModelRow, seed: int) -> dict[str, str]:
    """Where the files of an outside model lie; of several folders of pictures the seed's own."""
    if not hasattr(row.cls, "all_folders"):
        return row.paths
    return {"directory": row.cls.all_folders(row.arguments)[row.seeds.index(seed)]}


def _settings(row: ModelRow) -> dict[str, Any]:
    """All that a row's network is fitted with, but for data, seed and needs, as its key holds it."""
    from emobench.suite.catalog import plain

    options = plain(row.trainer)
    measured = apart(options) if row.trained_by else {}
    shown = row.cls.shown(row.arguments) if row.foreign else row.arguments
    return {
        "model": row.cls.name,
        "arguments": plain(shown),
        **with_global_batch(plain(row.recipe), options),
        **({"apart": measured} if measured else {}),
    }


def _data_entry(data: DataRow) -> dict[str, Any]:
    """What a fit's key holds of a dataset."""
    from emobench.suite.catalog import plain

    unsaid = {"max_bad", *(name for name in data.cls.unless_none if data.arguments.get(name) is None)}
    return {
        "dataset": data.cls.name,
        "arguments": {name: value for name, value in plain(data.arguments).items() if name not in unsaid},
        "fingerprint": data.module.fingerprint,
    }


def _weightless(
    row: ModelRow, size: int, emotions: Sequence[str], rows: Mapping[str, ModelRow], datasets: Sequence[str] = ()
) -> Any:
    """The row's network without memory for its parameters, and without opening a pre-trained file.

    Args:
        size: side of the dataset's faces, px, where the row does not say another.
    """
    import torch

    side = size if row.recipe is None or row.recipe.size is None else row.recipe.size
    needs = {
        role: [_weightless(rows[name], size, emotions, rows) for name in names] for role, names in row.needs.items()
    }
    told = {"datasets": datasets} if datasets else {}
    with torch.device("meta"):
        return row.cls(emotions=emotions, size=side, **row.cls.untrained(row.arguments), **needs, **told)
