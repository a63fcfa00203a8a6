"""`emobench doctor`: versions, hardware, and which datasets and weights are found."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from emobench.data.readers.hub import look
from emobench.data.readers.tree import visible
from emobench.downloads import offline
from emobench.errors import DatasetError, shown
from emobench.metrics import inception
from emobench.nn.weights import WeightFile
from emobench.runner.machine import hardware, versions
from emobench.suite.catalog import broken, classes, parameters, resolve
from emobench.suite.file import load, packaged
from emobench.suite.plugins import Broken, source_of

_LIBRARIES = (
    "torch", "torchvision", "lightning", "torchmetrics", "transformers", "timm", "albumentations", "numpy", "pandas",
)  # fmt: skip

_SHOWN = 20  # folders of the user's own, at most


def doctor(data_root: Path, results: Path) -> None:
    """Print versions, hardware, and which weights and datasets are found, missing, and how to get them."""
    print("Versions")
    print(f"  emobench {versions().emobench} (commit {versions().commit}), Python {platform.python_version()}")
    for library in _LIBRARIES:
        try:
            print(f"  {library} {version(library)}")
        except PackageNotFoundError:
            print(f"  {library} MISSING: run `make` in the checkout, or `pip install -e .`")
    machine = hardware()
    print(f"Hardware\n  {machine.cpu}, {machine.cores} cores, {machine.memory_gb} GiB")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print(f"  GPU: {', '.join(gpus) or 'none; `make bench` runs the demo suite'}")
    if gpus:
        print(f"  MPS: {_mps()}")
    print(f"Places\n  results {os.path.realpath(results)} ({'there' if results.is_dir() else 'made at the first run'})")
    print(
        f"  data root {os.path.realpath(data_root)} (--data or EMOBENCH_DATA; "
        f"{'there' if data_root.is_dir() else 'not there'})"
    )
    print("Datasets")
    for name, cls in classes("dataset").items():
        _dataset(name, cls, data_root)
    _own_folders(data_root)
    for each in broken("model", "dataset"):
        print(f"  PASSED OVER {each}")
    print("Pre-trained weights")
    for name, file in _pretrained().items():
        _weights(name, file)
    _inception()
    print(f"Downloads are {'off (--offline, EMOBENCH_OFFLINE or HF_HUB_OFFLINE)' if offline() else 'allowed'}")


def _mps() -> str:
    """Whether the daemon of NVIDIA's Multi-Process Service runs, which CUDA programs find by its folder, and use."""
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps")
    number = folder / "nvidia-cuda-mps-control.pid"  # which goes when it ends, where its sockets stay
    try:
        process = int(number.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"no daemon runs in {folder} (CUDA_MPS_PIPE_DIRECTORY)"
    try:
        runs = Path(f"/proc/{process}/comm").read_text(encoding="utf-8").startswith("nvidia-cuda-mps")
    except OSError:
        runs = False
    if runs:
        return f"its daemon runs in {folder}, process {process}; cells that share a GPU use it"
    return f"the daemon of {folder}, process {process}, is not seen here: it crashed, or runs outside of this container"


def _dataset(name: str, cls: Any, data_root: Path) -> None:
    if not cls.expects:
        print(f"  {name}: drawn, always there")
        return
    if cls.family:
        print(f"  {name}:<{cls.family}>: any folder below the data root; `emobench datasets {name}:x` says how")
        return
    try:
        print(f"  {name}: found, {', '.join(map(str, cls(folder=data_root / name).sources()))}")
    except DatasetError as error:
        reason = str(error).split("Expected there")[0].strip()
        print(f"  {name}: MISSING, {reason} `emobench datasets {name}` says how to put it there")
    except Exception as error:  # of a dataset that someone else wrote
        print(f"  {name}: BROKEN, {Broken.by(error, source_of(cls))}")


def _own_folders(data_root: Path) -> None:
    """The folders below the data root that are no dataset of the catalogue, and what is in them."""
    known = {*classes("dataset")}
    own = (
        [path for path in visible(data_root) if path.is_dir() and path.name not in known] if data_root.is_dir() else []
    )
    for path in own[:_SHOWN]:
        name = f"folder:{path.name}"
        try:
            if look(path).layouts:
                name = f"hf:{path.name}"
            cls, given = resolve("dataset", name)
            labels = cls(folder=path, **given).index()["label"].dropna()
            print(f"  {shown(name)}: found, {len(labels):,} faces of {', '.join(sorted(set(labels)))}")
        except DatasetError as error:
            reason = str(error).split("Expected there")[0].strip()
            print(f"  {shown(name)}: NO DATASET, {reason}")
        except Exception as error:  # whatever a folder that is none may raise
            print(f"  {shown(name)}: NO DATASET, {type(error).__name__}: {shown(error)}")
    if len(own) > _SHOWN:
        print(f"  and {len(own) - _SHOWN} folders more")


def _pretrained() -> dict[str, WeightFile]:
    """The files of weights that rows of emobench's own suites take: row -> file, each file once."""
    found: dict[str, WeightFile] = {}
    for suite in packaged():
        for name, table in load(suite).model.items():
            cls, preset = resolve("model", str(table.get("class", name)))
            defaults = {key: each.default for key, each in parameters(cls).items()}
            said = {key: None if value == "none" else value for key, value in {**preset, **table}.items()}
            for file in cls.weight_files({**defaults, **said}):
                if file.looked_for not in [other.looked_for for other in found.values()]:
                    found[name] = file
    return found


def _weights(name: str, file: WeightFile) -> None:
    address = file.url or file.page
    place = f"looked for {file.looked_for}{'' if address is None else f'; from {address}'}"
    if file.path is not None:
        print(f"  {name}: found, {file.path}; {place}")
    else:
        how = "A run downloads it" if file.download else file.how
        print(f"  {name}: MISSING {file.name}, {place}. {how}")


def _inception() -> None:
    """The weights behind FID, KID and IS."""
    found = inception.find()
    places = f"looked for {' and '.join(map(str, inception.places()))}; from {inception.URL}"
    if found.path is not None and found.reason is not None:
        state, how = f"USELESS, {found.path} is {found.reason}", ". Delete it, and the next run fetches the right one"
        if found.path == inception.places()[-1] and not offline():
            how = ". A run that has generators replaces it"
    elif found.path is not None:
        state, how = f"found, {found.path}", ""
    else:
        state = f"MISSING {inception.FILE}"
        how = f". {'Put it there' if offline() else 'A run that has generators downloads it'}"
    print(f"  Inception (FID, KID, IS): {state}; {places}{how}")
