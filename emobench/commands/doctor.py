"""`emobench doctor`: versions, hardware, and which datasets and weights are found."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from emobench.errors import DatasetError
from emobench.metrics import inception
from emobench.nn.weights import offline
from emobench.runner.machine import hardware, versions
from emobench.suite.catalog import broken, classes, resolve
from emobench.suite.plugins import Broken, source_of

_LIBRARIES = (
    "torch", "torchvision", "lightning", "torchmetrics", "transformers", "timm", "albumentations", "numpy", "pandas",
)  # fmt: skip

# What the suites of the package name.
_PRETRAINED = {
    "resnet18": "IMAGENET1K_V1",
    "vgg16": "IMAGENET1K_V1",
    "vit": "google/vit-base-patch16-224-in21k",
}


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
    print(f"Places\n  results {results.resolve()} ({'there' if results.is_dir() else 'made at the first run'})")
    print(
        f"  data root {data_root.resolve()} (--data or EMOBENCH_DATA; {'there' if data_root.is_dir() else 'not there'})"
    )
    print("Datasets")
    for name, cls in classes("dataset").items():
        _dataset(name, cls, data_root)
    for each in broken("model", "dataset"):
        print(f"  PASSED OVER {each}")
    print("Pre-trained weights")
    for name, weights in _PRETRAINED.items():
        _weights(name, resolve("model", name)[0], {"weights": weights})
    found = inception.find()
    state = f"found, {found.path}" if found.reason is None else f"MISSING: {found.reason}"
    print(f"  Inception (FID, KID, IS): {state}; looked for {' and '.join(map(str, inception.places()))}")
    print(f"Downloads are {'off (--offline, EMOBENCH_OFFLINE or HF_HUB_OFFLINE)' if offline() else 'allowed'}")


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


def _weights(name: str, cls: Any, arguments: dict[str, Any]) -> None:
    found = cls.weight_file(arguments)
    if found.path is not None:
        print(f"  {name}: found, {found.path}")
    else:
        how = "a run downloads it" if found.download else found.how
        print(f"  {name}: MISSING {found.name}, looked for {found.looked_for}. {how}")
