"""A cell's plain values made into its data module and its model."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from emobench.classifiers.python_file import PythonFile, parts_of
from emobench.data.datamodule import EmotionDataModule
from emobench.data.joint import Joint
from emobench.errors import EmobenchError, StoreError
from emobench.evaluation.judge import Judge
from emobench.files import replacing
from emobench.recipe import Augment, Recipe
from emobench.runner.record import Card, Record, finished, read_record
from emobench.runner.store import JUDGE, Store, intact, is_current, sha256_of
from emobench.suite.catalog import Kind, checked, classes, parameters, resolve
from emobench.suite.cell import Cell
from emobench.suite.keys import batch_of_one, datasets_in, key, name_of
from emobench.suite.plugins import callable_of, class_of
from emobench.suite.rows import dataset_folder


def build_data(cell: Cell, data_root: Path) -> EmotionDataModule:
    """The data module that the cell is evaluated on.

    Raises:
        EmobenchError: the dataset is no longer the one that the cell was planned for.
    """
    return _data_of(cell, datasets_in(cell.fit)[cell.evaluation.get("part", 0)], data_root)


def build_joint_data(cell: Cell, data_root: Path, evaluated: EmotionDataModule) -> Joint:
    """What the cell is trained on: the data module that it is evaluated on, and others together with it."""
    parts, mine = cell.fit["data"]["joint"], cell.evaluation["part"]
    return Joint([evaluated if k == mine else _data_of(cell, part, data_root) for k, part in enumerate(parts)])


def _data_of(cell: Cell, made_of: dict[str, Any], data_root: Path) -> EmotionDataModule:
    cls = _class("dataset", name_of(made_of), cell)
    folder = dataset_folder(data_root, _folder_name(cls, made_of["arguments"])) if cls.expects else None
    data: EmotionDataModule = cls(folder=folder, **_typed(cls, made_of["arguments"]))
    data.max_bad = 1.0  # the sweep has refused what is to be refused
    data.plan()
    if data.fingerprint != made_of["fingerprint"]:
        raise EmobenchError(f"{cell.dataset} changed while the sweep ran. Run the same command again")
    return data


def _folder_name(cls: Any, arguments: dict[str, Any]) -> str:
    return str(arguments[cls.family]) if cls.family else str(cls.name)


def build_model(cell: Cell, store: Store, *, pretrained: bool = True) -> Any:
    """The cell's model before training; the networks that it needs are handed over frozen.

    Args:
        pretrained: read the pre-trained file that the arguments may name.
    """
    needs = {role: [load_model(store, key) for key in keys] for role, keys in cell.needs.items()}
    return new_model(cell, needs, pretrained=pretrained)


def new_model(cell: Cell, needs: Mapping[str, Sequence[Any]], *, pretrained: bool) -> Any:
    """The cell's model before training, with the networks that it needs by their roles."""
    cls = model_class(cell)
    recipe = cell.fit["recipe"]
    size = cell.size if recipe is None or recipe["size"] is None else recipe["size"]
    foreign = cell.files if getattr(cls, "foreign", False) else {}
    arguments = _typed(cls, {**cell.fit["arguments"], **foreign})
    if not pretrained:
        arguments = cls.untrained(arguments)
    if cell.datasets:
        arguments["datasets"] = tuple(cell.datasets)
    torch.manual_seed(cell.seed)
    model = cls(emotions=tuple(cell.emotions), size=size, **arguments, **needs)
    if isinstance(model, PythonFile):
        model.call = callable_of(*parts_of(arguments["reference"]))
    return model


def load_model(store: Store, fit_key: str, datasets: Sequence[str] = (), dataset: str | None = None) -> Any:
    """A finished cell's network from the store, frozen, in evaluation mode.

    Args:
        datasets: what a suite calls the datasets of a fit on several; empty: what the suite that made it called them.
        dataset: as of which of them a model makes faces that was told them in training; None: the first.

    Raises:
        StoreError: the cell is not finished here, or its weights are gone.
    """
    path = store.fit_folder(fit_key) / "fit.json"
    if not finished(path):
        raise StoreError(f"{path}: the cell {fit_key} is not finished here. Run its suite first")
    cell = dataclasses.replace(read_record(path).planned, files=store.files_of(fit_key))
    masked = bool(cell.datasets)
    if masked and datasets:
        cell = dataclasses.replace(cell, datasets=list(datasets))
    # Trained weights take the place of a pre-trained file.
    model = build_model(cell, store, pretrained=not cell.trains or model_class(cell).keeps_files)
    if cell.trains:
        weights = store.weights(fit_key)
        if not intact(weights):
            raise StoreError(
                f"{weights}: the weights are gone or cut short. Run the suite again with --on-existing redo"
            )
        model.load_state_dict(load_file(weights))
    if masked and dataset is not None:
        model.dataset = dataset
    return model.eval().requires_grad_(False)


def load_judges(store: Store, fit_keys: Sequence[str], device: torch.device, *, grows: bool = False) -> list[Judge]:
    """Finished classifiers as they judge: their weights in float16, written beside the full ones at the first time.

    Args:
        grows: as a `Judge` has it.

    Raises:
        StoreError: one is not finished here, or its weights are gone.
    """
    return [_load_judge(store, fit_key, device, grows) for fit_key in fit_keys]


def _load_judge(store: Store, fit_key: str, device: torch.device, grows: bool) -> Judge:
    path = store.fit_folder(fit_key) / "fit.json"
    if not finished(path):
        raise StoreError(f"{path}: the judge {fit_key} is not finished here. Run its suite first")
    record, weights = read_record(path), store.fit_folder(fit_key) / JUDGE
    if getattr(model_class(record.planned), "foreign", False):
        return _outside_judge(record, load_model(store, fit_key), device, grows)
    if not is_current(weights, store.weights(fit_key)):
        _write_judge(store, fit_key, weights)
    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(weights).items()}
    cell = dataclasses.replace(record.planned, files=store.files_of(fit_key))
    network = build_model(cell, store, pretrained=False)
    network.load_state_dict(state)
    card = _card(record, sha256_of(weights), network.architecture(record.made_of.fit["arguments"]))
    return Judge(record.cell.row, network.to(device).eval().requires_grad_(False), card, grows)


def _outside_judge(record: Record, network: Any, device: torch.device, grows: bool) -> Judge:
    """A network that emobench did not train, which is told by its files."""
    card = _card(record, key(record.made_of.fit["files"]), network.architecture(network.hparams))
    card = card.model_copy(update={"data": None, "outside": True})
    return Judge(record.cell.row, network.to(device), card, grows)


def _card(record: Record, sha256: str, architecture: str) -> Card:
    """What results say of a judge: its weights and its lineage."""
    cell = record.cell
    return Card(
        row=cell.row,
        fit_key=record.fit_key,
        sha256=sha256,
        architecture=architecture,
        seed=cell.seed,
        data=datasets_in(record.made_of.fit)[0]["fingerprint"],
        needs=cell.needs,
    )


def _write_judge(store: Store, fit_key: str, path: Path) -> None:
    weights = store.weights(fit_key)
    if not intact(weights):
        raise StoreError(f"{weights}: the weights are gone or cut short. Run the suite again with --on-existing redo")
    with replacing(path) as temporary:
        save_file(_half(weights), temporary)


def judging_sha256(weights: Path) -> str:
    """SHA-256 that a classifier's weights have in the form in which they judge."""
    return hashlib.sha256(save(_half(weights))).hexdigest()


def _half(weights: Path) -> dict[str, Tensor]:
    """Weights in float16; counters stay what they are."""
    state = load_file(weights)
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def model_class(cell: Cell) -> Any:
    """The class of a cell's model."""
    return _class("model", name_of(cell.fit), cell)


def _class(kind: Kind, name: str, cell: Cell) -> Any:
    """The class of a name: one of the user's files that the cell was planned with, else one of the catalogue."""
    for reference in cell.sources:
        cls = class_of(reference, cell.sources)
        if cls.name == name:
            return cls
    known = classes(kind)  # by the class's own name: that of a family, such as "timm", is none that a suite may use
    return known[name] if name in known else resolve(kind, name)[0]


def _typed(cls: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Plain arguments as the types that the class declares (JSON knows no tuples)."""
    known = parameters(cls)
    return {name: checked(cls.__name__, name, known[name], value) for name, value in arguments.items()}


def recipe_of(cell: Cell) -> Recipe:
    """The recipe of a cell's fit, as each of its processes follows it."""
    plain = cell.fit["recipe"]
    return _recipe({**plain, "batch": batch_of_one(cell.fit, cell.trainer)})


def own_recipe(cell: Cell) -> Recipe:
    """The recipe that a cell's share is counted against: its class's, or the one for small faces if it takes that."""
    own: Recipe = model_class(cell).recipe
    return own if cell.small is None else _recipe(cell.small)


def _recipe(plain: Mapping[str, Any]) -> Recipe:
    """The recipe whose `plain` values these are."""
    augment = Augment(**{**plain["augment"], "blur": tuple(plain["augment"]["blur"])})
    return Recipe(**{**plain, "augment": augment})
