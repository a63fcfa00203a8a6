"""Suites planned and run with the code of a commit, and two runs compared.

Of `rekey.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from rekey_rows import Name
from safetensors.numpy import load_file

from emobench.errors import EmobenchError
from emobench.files import read_object
from emobench.runner.record import Evaluation, read_record

REPOSITORY = Path(__file__).resolve().parents[1]
EQUAL = 1e-6  # absolute, and relative to values above 1
_TABLES = {".parquet": pd.read_parquet, ".csv": pd.read_csv}  # of raw results
ORIGIN = ("row", "person", "seed", "half")  # of a face; -1: not said, and what was not said then may be now

# What a commit's own code plans: the data root, suites. Modules have moved since.
PLAN = """
import json, sys
from pathlib import Path
try:
    from emobench.suite.expand import expand
    from emobench.suite.file import load
except ImportError:
    from emobench.suite import load
    try:
        from emobench.expand import expand
    except ImportError:
        from emobench.suite import expand
for suite in sys.argv[2:]:
    try:
        plan = expand(load(Path(suite)), Path(sys.argv[1]))
        cells = [[[c.row, c.dataset, c.seed, c.control], {"fit": c.fit, "eval": c.evaluation}] for c in plan.cells]
        print("PLAN" + json.dumps(cells))
    except Exception as error:
        print("PLAN" + json.dumps(str(error)))
"""

# A judge's logits by a commit's own code: the judge as JSON, its weights, faces, where the logits go.
READ = """
import importlib, json, sys
import numpy, torch
from safetensors.torch import load_file
judge = json.loads(sys.argv[1])
if judge["class"] is not None:
    module, _, name = judge["class"].partition(":")
    cls = getattr(importlib.import_module(module), name)
else:  # records name the catalogue's classes since
    from emobench.suite.catalog import resolve
    cls, _ = resolve("model", judge["model"])
arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in judge["arguments"].items()}
network = cls(emotions=tuple(judge["emotions"]), size=judge["size"], **arguments)
network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(sys.argv[2]).items()})
with torch.inference_mode():
    numpy.save(sys.argv[4], network.eval()(torch.from_numpy(numpy.load(sys.argv[3]))).numpy())
"""


# ---- code of before and of today -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """The package as a commit has it."""

    name: str
    tree: Path  # a checkout of it
    work: Path  # for its results and caches

    @property
    def results(self) -> Path:
        return self.work / self.name / "results"

    def ran(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Python with this code."""
        cache = self.work / self.name / "cache"
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.tree),
            "EMOBENCH_CACHE": str(cache),
            "EMOBENCH_OFFLINE": "1",
        }
        words = (sys.executable, *words)
        return subprocess.run(list(map(str, words)), cwd=self.work, env=environment, capture_output=True, text=True)

    def plans(self, suites: Sequence[Path], data: Path) -> list[dict[Name, dict[str, Any]] | EmobenchError]:
        """What the keys of the cells of each suite are made of; or why it cannot be planned with this code here."""
        done = self.ran("-c", PLAN, data, *suites)
        found = [json.loads(line.removeprefix("PLAN")) for line in done.stdout.splitlines() if line.startswith("PLAN")]
        found += [last_line(done.stderr)] * (len(suites) - len(found))
        return [
            EmobenchError(f"{self.name} cannot plan it: {each}")
            if isinstance(each, str)
            else {tuple(name): made_of for name, made_of in each}
            for each in found
        ]

    def bench(self, suite: Path, data: Path) -> dict[Name, Path]:
        """Run a suite; the folders of its evaluations.

        Raises:
            EmobenchError: it cannot be run with this code here.
        """
        done = self.ran("-m", "emobench", "bench", suite, "--results", self.results, "--data", data, "--offline")
        try:
            rows = read_object(self.results / suite.stem / "suite.json")["rows"]
        except FileNotFoundError:
            raise EmobenchError(f"{self.name} cannot run it: {last_line(done.stderr or done.stdout)}") from None
        return {
            (each["row"], each["dataset"], each["seed"], each["control"]): self.results
            / "cells"
            / each["fit_key"]
            / each["eval_key"]
            for each in rows
        }


def ended(folder: Path | None) -> str:
    """How a cell ended."""
    for path in [] if folder is None else [folder.parent / "fit.json", folder / "result.json"]:
        if path.exists() and (record := read_record(path)).state != "done":
            return f"{record.state}: {record.reason}"
    return "planned otherwise" if folder is None else "done" if (folder / "result.json").exists() else "not run"


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it says nothing")


class Checkouts:
    """Checkouts of commits, one for all whose package is the same."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.made: dict[str, Code] = {}

    def of(self, commit: str) -> Code:
        """The code of a commit.

        Raises:
            EmobenchError: the repository does not have it, or the files that made the row differed from it.
        """
        if "+" in commit or commit == "unknown":
            raise EmobenchError(f"made by {commit}, which nobody has")
        done = _git("rev-parse", "--verify", f"{commit}:emobench")
        if done.returncode != 0:
            raise EmobenchError(f"made by {commit}, which this repository does not have")
        package = done.stdout.strip()[:12]
        if package not in self.made:
            tree = self.work / package / "tree"
            if not tree.exists() and (added := _git("worktree", "add", "--detach", str(tree), commit)).returncode != 0:
                raise EmobenchError(f"{commit} cannot be checked out: {last_line(added.stderr)}")
            self.made[package] = Code(package, tree, self.work)
        return self.made[package]

    def remove(self) -> None:
        for code in self.made.values():
            _git("worktree", "remove", "--force", str(code.tree))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True)


# ---- two runs compared -----------------------------------------------------------------------------------------------


def differences(before: Path, after: Path, *, evaluated: bool = True) -> list[str]:
    """Where two evaluations differ by more than `EQUAL`; each folder lies in that of its fit.

    Args:
        evaluated: False compares the fits alone.
    """
    old, new = before.parent / "weights.safetensors", after.parent / "weights.safetensors"
    found = _of_weights(old, new) if old.exists() or new.exists() else []
    if not evaluated:
        return found
    records = [read_record(folder / "result.json").evaluation for folder in (before, after)]
    if records[0] is None or records[1] is None:
        return [*found, "it was not evaluated"]
    found += _of_values(_values(records[0]), _values(records[1]))
    for kind, name in records[0].raw.items():
        other = records[1].raw.get(kind)
        if other is None:
            found.append(f"{kind}: no longer kept")
        elif (read := _TABLES.get(Path(name).suffix)) is not None:
            found += _of_tables(read(before / name), read(after / other))
        elif name.endswith(".npz"):
            found += _of_arrays(kind, np.load(before / name), np.load(after / other))
        else:
            found += _of_pictures(kind, before / name, after / other)
    return found


def _of_weights(before: Path, after: Path) -> list[str]:
    if not (before.exists() and after.exists()):
        return ["weights: one of them has none"]
    old, new = load_file(before), load_file(after)
    if {name: value.shape for name, value in old.items()} != {name: value.shape for name, value in new.items()}:
        return [f"weights: other tensors: {', '.join(sorted(old.keys() ^ new.keys())) or 'shapes'}"]
    apart = {name: farthest(value, new[name]) for name, value in old.items()}
    worst = max(apart, key=lambda name: apart[name])
    return [f"weights: {worst} by {apart[worst]:.2g}"] if apart[worst] > EQUAL else []


def _values(evaluation: Evaluation) -> dict[str, tuple[float | None, int | None]]:
    """Every value of an evaluation with its n, by its place."""
    found: dict[str, tuple[float | None, int | None]] = {}
    for track, of in evaluation.tracks.items():
        found |= {f"{track} {name}": (value.value, value.n) for name, value in of.values.items()}
        for name, single in of.per_emotion.items():
            found |= {f"{track} {name} of {emotion}": (value.value, value.n) for emotion, value in single.items()}
    for kind, values in evaluation.references.items():
        found |= {f"{kind} {name}": (value.value, value.n) for name, value in values.items()}
    return found


def _of_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted(old.keys() & new.keys()):
        (a, of_a), (b, of_b) = old[name], new[name]
        if (a is None) != (b is None) or of_a != of_b or (a is not None and b is not None and farthest(a, b) > EQUAL):
            found.append(f"{name}: {a} of {of_a}, {b} of {of_b}")
    return found + [f"{name}: no longer measured" for name in sorted(old.keys() - new.keys())]


def _of_tables(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    if len(old) != len(new):
        return [f"{len(old)} rows of raw results, {len(new)}"]
    found = [f"column {name}: no longer kept" for name in old.columns if name not in new]
    for name in (name for name in old.columns if name in new):
        said = old[name] >= 0 if name in ORIGIN else old[name].index >= 0
        a, b = old[name][said], new[name][said]
        if pd.api.types.is_float_dtype(a):
            if (apart := farthest(a.to_numpy(np.float64), b.to_numpy(np.float64))) > EQUAL:
                found.append(f"column {name}: by {apart:.2g}")
        elif not (a.eq(b) | (a.isna() & b.isna())).all():
            found.append(f"column {name}: {int((~a.eq(b)).sum())} values")
    return found


def _of_arrays(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    if (lacks := old.keys() - new.keys()) or any(old[name].shape != new[name].shape for name in old):
        return [f"{kind}: other arrays: {', '.join(sorted(lacks)) or 'shapes'}"]
    worst = max((farthest(old[name], new[name]) for name in old), default=0.0)
    return [f"{kind}: by {worst:.2g}"] if worst > EQUAL else []


def _of_pictures(kind: str, before: Path, after: Path) -> list[str]:
    old, new = (np.asarray(Image.open(path).convert("RGB"), dtype=np.int16) for path in (before, after))
    if old.shape != new.shape:
        return [f"{kind}: a picture of {old.shape}, {new.shape}"]
    worst = int(np.abs(old - new).max())
    return [f"{kind}: by {worst} grey levels"] if worst > 0 else []


def farthest(old: Any, new: Any) -> float:
    """The largest difference, relative to values above 1; missing values are equal to each other alone."""
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if old.shape != new.shape or (np.isnan(old) != np.isnan(new)).any():
        return float("inf")
    with np.errstate(invalid="ignore"):
        apart = np.where((old == new) | np.isnan(old), 0.0, np.abs(old - new) / np.maximum(1.0, np.abs(old)))
    return float(apart.max(initial=0.0))
