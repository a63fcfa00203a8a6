"""Where the code of a key begins and where it ends: the one place that names definitions for keys.

A fit's code is what its model, its datasets and the fit reach; an evaluation's, what the evaluation of its track
reaches. Whoever moves or renames one of these definitions changes its name here, and no key changes.
"""

from __future__ import annotations

import functools
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from emobench.definitions import PACKAGE, Code, NoDefinition, Root

Kind = Literal["model", "dataset", "track"]

BASES: Mapping[Kind, tuple[Root, ...]] = {  # of all classes of a kind
    "model": (
        ("emobench.classifiers.classifier", "EmotionClassifier"),
        ("emobench.generators.generator", "EmotionGenerator"),
    ),
    "dataset": (("emobench.data.datamodule", "EmotionDataModule"),),
    "track": (("emobench.evaluation.tracks.track", "Track"),),
}
FIT: tuple[Root, ...] = (
    ("emobench.runner.fit", "fit"),
    ("emobench.runner.build", "build_data"),
)
JOINT: tuple[Root, ...] = (("emobench.runner.build", "build_joint_data"),)
READING: Root = ("emobench.runner.evaluate", "measure_classifier")
EXPLAINED: Root = ("emobench.runner.evaluate", "measure_explained")
JUDGED: Root = ("emobench.runner.evaluate", "measure_judged")
MEASURE = "measure"  # what the module of each track calls the function that draws and judges
METRICS = "METRICS"  # and the metrics that it averages over faces

# Code that runs in a fit or an evaluation and can change no number: "module:name", or a whole module.
EXEMPT: Mapping[str, str] = {
    "emobench.definitions": "says which code counts, and does nothing with it",
    "emobench.suite.plugins": "finds the files of the user's own; those that count are roots themselves",
    "emobench.suite.catalog:classes": "finds classes by their names; those that it finds are roots themselves",
    "emobench.suite.catalog:names": "the same",
    "emobench.suite.catalog:module_names": "the same",
    "emobench.suite.catalog:resolve": "the same",
    "emobench.suite.catalog:tracks": "the same",
    "emobench.suite.catalog:metrics_of": "the same",
    "emobench.runner.store": "where results lie, and how their files are written and read",
    "emobench.files": "how files are written",
    "emobench.runner.record": "what a result looks like on disk",
    "emobench.runner.reuse": "which results stand as they are, and by which weights they were made",
    "emobench.runner.evaluate:evaluate": "hands a cell to one of the roots above",
    "emobench.runner.evaluate:_with_history": "copies the history of a fit, from which no number follows",
    "emobench.suite.cell:Cell": "carries plain values, and all that determine a number are in the keys",
    "emobench.runner.machine": "says what a number was measured on",
    "emobench.runner.callbacks:Progress": "progress for whoever watches",
    "emobench.runner.flops": "counts a cost, once the weights are kept",
    "emobench.runner.fit:together": "adds costs, and averages validation scores that choose nothing",
    "emobench.suite.keys:key": "the names of folders",
    "emobench.suite.keys:name_of": "reads a name that is in the key",
    "emobench.generators.asking": "reads names and lists; fits and evaluations ask with tensors, which it hands on",
    "emobench.suite.types": "the words of an error",
    "emobench.errors:unknown": "the words of an error",
    "emobench.runner.run": "hands a cell to its fit and its evaluation",
}


@functools.cache
def current() -> Code:
    """The code of emobench as it lay there when it was first asked for: what this process runs."""
    return Code(PACKAGE, EXEMPT)


def root_of(cls: Any) -> Root:
    """A class as a root."""
    root = (Path(str(sys.modules[cls.__module__].__file__)).resolve(), cls.__qualname__)
    try:
        current().root(*root)
    except NoDefinition:  # made in a way that its file does not show: the whole file counts
        return root[0], "*"
    return root


@functools.cache
def catalogue(kind: Kind) -> dict[str, Root]:
    """The classes of the package by their catalogue names, found without importing anything."""
    found: dict[str, Root] = {}
    for module, cls in current().subclasses(BASES[kind]):
        if "name" in cls.texts:
            found[cls.texts["name"]] = (module.name, cls.name)
    return found


def fit_code(model: Root, datasets: Iterable[Root], joint: bool) -> str:
    """The digest of the code behind a fit, `joint` where it is on several datasets together."""
    return current().digest([model, *datasets, *FIT, *(JOINT if joint else ())])


def evaluation_code(tracks: Mapping[str, Sequence[Root]], metrics: Iterable[Root] = ()) -> str:
    """The digest of the code behind an evaluation; that of its model and its datasets is in the fit's key.

    Args:
        tracks: name -> what measures it.
        metrics: files of the user's own that add metrics.
    """
    return current().digest([*evaluation_roots(tracks), *metrics])


def evaluation_roots(tracks: Mapping[str, Sequence[Root]]) -> list[Root]:
    """Where the code of an evaluation on some tracks begins."""
    alone = {"recognition": READING, "explanation": EXPLAINED}  # tracks that stand by themselves
    whole = alone.get(",".join(tracks), JUDGED)
    return [whole, *(root for name in sorted(tracks) for root in tracks[name])]


def measured_by(track: Any) -> tuple[Root, ...]:
    """What measures a track, an object; one of the user's own may do so in any way: its whole file counts."""
    file = Path(str(sys.modules[type(track).__module__].__file__)).resolve()
    return ((file, MEASURE), (file, METRICS)) if file.is_relative_to(PACKAGE) else ((file, "*"),)


def catalogued(tracks: Iterable[str]) -> dict[str, tuple[Root, ...]]:
    """The same for tracks of the package by their names, found without importing anything."""
    known = catalogue("track")
    return {name: ((known[name][0], MEASURE), (known[name][0], METRICS)) for name in tracks}


@functools.cache
def digest_of(cls: Any) -> str:
    """The digest of the code behind one class; one that was typed in has another digest in every session."""
    in_a_file = getattr(sys.modules[cls.__module__], "__file__", None) is not None
    return current().digest([root_of(cls)]) if in_a_file else secrets.token_hex()
