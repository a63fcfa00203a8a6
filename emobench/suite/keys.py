"""Keys: the SHA-256 of everything that determines a number, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emobench.data.content import contents, listing
from emobench.definitions import PACKAGE, NoDefinition
from emobench.definitions.roots import catalogue, catalogued, current, evaluation_code, fit_code

PROTOCOL = 1  # of docs/protocol.md: what the numbers mean
KEY_LENGTH = 20  # hex digits of the SHA-256 that name a folder: 80 bits, no chance of a collision among cells


def key(made_of: Any) -> str:
    """The key of plain values, the same whatever the order of their dicts."""
    text = json.dumps(made_of, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


# Options of Lightning's Trainer that change no number, and why; `devices` and `num_nodes` are in the global batch.
NEUTRAL: Mapping[str, str] = {
    "accelerator": "where the work is done; records name the hardware",
    "enable_progress_bar": "what is shown",
    "enable_model_summary": "what is shown",
    "log_every_n_steps": "what is logged",
    "profiler": "what is timed",
}

# Catalogue names of the classes that records made before commit 0c8123b, and at it, name by their module.
_BEFORE = {
    "CNN21": "cnn21", "Ensemble": "ensemble", "ResNet18": "resnet18", "TimmBackbone": "timm", "VGG16": "vgg16",
    "ViT": "vit", "CVAE": "cvae", "CVAEStyleGAN": "cvae_stylegan", "Diffusion": "diffusion",
    "LatentSearch": "latent_search", "StarGAN": "stargan", "StyleGAN2": "stylegan2", "StyleTransfer": "style_transfer",
    "ViTCVAE": "vit_cvae", "AffectNet": "affectnet", "CKPlus": "ckplus", "ExpW": "expw", "FER2013": "fer2013",
    "FERPlus": "ferplus", "Folder": "folder", "Synthetic": "synthetic",
}  # fmt: skip


def name_of(made_of: Mapping[str, Any]) -> str:
    """The catalogue name of the model or dataset that a key is made of."""
    if "class" in made_of:  # a record of commit 0c8123b or before: "module:name"
        return _BEFORE[made_of["class"].partition(":")[2]]
    return str(made_of["model"] if "model" in made_of else made_of["dataset"])


def datasets_in(fit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a fit's key holds of each of its datasets."""
    found: list[dict[str, Any]] = fit["data"].get("joint", [fit["data"]])
    return found


DRAWN = "synthetic"  # the dataset whose people nobody is


def processes(trainer: Mapping[str, Any]) -> int | None:
    """Over how many processes a fit's batch is spread; None where only the machine knows that it runs on."""
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes", 1))
    if isinstance(devices, list):
        return len(devices) * nodes
    return devices * nodes if isinstance(devices, int) and devices > 0 else None


def with_global_batch(recipe: Mapping[str, Any] | None, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """A fit's `recipe` and `trainer` as its key holds them: the batch of all processes together, and no neutral option.

    Where the number of processes is not known, the batch is that of one, and what is known of them stays.
    """
    world = processes(trainer)
    without = {*NEUTRAL, *(() if world is None else ("devices", "num_nodes"))}
    if recipe is not None and world is not None:
        recipe = {**recipe, "batch": recipe["batch"] * world}
    return {"recipe": recipe, "trainer": {name: value for name, value in trainer.items() if name not in without}}


def apart(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Options that change no number of a fit but its costs, where they are not the usual ones.

    A key holds them where trainers are compared: each is measured by itself then, and none is taken for another.
    """
    usual = {"devices": 1, "num_nodes": 1, "accelerator": "auto"}
    return {name: trainer[name] for name, value in usual.items() if trainer.get(name, value) != value}


def settings_key(fit: Mapping[str, Any]) -> str:
    """Of what a network is fitted with, but for seed, data and the networks that it needs: equal of equal settings."""
    apart_from = ("code", "data", "needs", "permuted", "seed")
    return key({name: value for name, value in fit.items() if name not in apart_from})


def batch_of_one(fit: Mapping[str, Any], trainer: Mapping[str, Any]) -> int:
    """Faces a step and process of a fit, from what its key is made of and the options of its trainer."""
    batch: int = fit["recipe"]["batch"]
    return batch if "devices" in fit["trainer"] else batch // (processes(trainer) or 1)


def in_todays_form(fit: Mapping[str, Any]) -> dict[str, Any]:
    """What a fit's key is made of, its code aside, as it would be written today."""

    def of_data(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {"dataset": name_of(entry), **{name: value for name, value in entry.items() if name != "class"}}

    rest = {name: value for name, value in fit.items() if name not in ("class", "code")}
    data = fit["data"]
    data = {**data, "joint": list(map(of_data, data["joint"]))} if "joint" in data else of_data(data)
    return {**rest, "model": name_of(fit), "data": data, **with_global_batch(fit["recipe"], fit["trainer"])}


def is_current(fit: Mapping[str, Any], evaluation: Mapping[str, Any]) -> bool:
    """Whether today's code is that which determined a record's numbers, from what its keys are made of.

    True also where only a plan can tell: of classes, tracks and metrics in files of the user's own.
    """
    if "code" not in fit or "own_metrics" in evaluation:
        return True
    try:
        today = _code_of_fit(fit), evaluation_code(catalogued(evaluation.get("tracks", ())))
    except KeyError:
        return True
    except NoDefinition:  # what is gone from the package
        return False
    return (fit["code"]["digest"], evaluation["code"]["digest"]) == today


def fit_is_current(fit: Mapping[str, Any]) -> bool:
    """Whether today's code is that of a fit, from the model, the data and the code that its key is made of.

    True also where only a plan can tell: of classes in files of the user's own.
    """
    try:
        return bool(fit["code"]["digest"] == _code_of_fit(fit))
    except KeyError:
        return True
    except NoDefinition:
        return False


def _code_of_fit(fit: Mapping[str, Any]) -> str:
    """The digest of the code that a fit would be made with today."""
    datasets = [catalogue("dataset")[name_of(entry)] for entry in datasets_in(fit)]
    return fit_code(catalogue("model")[name_of(fit)], datasets, "joint" in fit["data"])


def package_digest() -> str:
    """SHA-256 of every file of the package as it lies there: changes whenever any of its code does."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def contents_of_files(cls: Any, arguments: Mapping[str, Any]) -> dict[str, str]:
    """What lies in the files and folders that a model's arguments name: argument -> digest."""
    if hasattr(cls, "inputs"):
        return {
            name: key([contents(each) if isinstance(each, Path) else each for each in of])
            for name, of in cls.inputs(arguments).items()
        }
    return {name: contents(path) for name, path in _named(cls, arguments).items()}


def listings_of_files(cls: Any, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Names, sizes and times of the same, which tell soon whether to look again: path -> digest."""
    if hasattr(cls, "inputs"):
        paths = [each for of in cls.inputs(arguments).values() for each in of if isinstance(each, Path)]
        return {str(path): listing(path) for path in paths}
    return {str(path): listing(path) for path in _named(cls, arguments).values()}


def listings_of_code() -> dict[str, str]:
    """The same of the files outside the package that the keys so far hold code of."""
    return {str(path): listing(path) for path in current().outside()}


def _named(cls: Any, arguments: Mapping[str, Any]) -> dict[str, Path]:
    from emobench.nn.weights import is_path

    named = {name: arguments[name] for name in cls.files if arguments.get(name) is not None}
    paths = {name: Path(value).expanduser() for name, value in named.items() if is_path(value)}
    return {name: path for name, path in paths.items() if path.exists()}
