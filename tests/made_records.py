"""Whole records with made-up contents, for boards that are made from files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emobench.files import read_json, write_json
from emobench.suite.keys import key

MACHINE = {"device": "cpu", "cpu": "Test CPU", "cores": 2, "gpu": None, "memory_gb": 8.0}
VERSIONS = {"emobench": "0", "commit": "abc", "dirty": False, "torch": "2", "lightning": "2", "python": "3"}


def made_of(entry: Mapping[str, Any], code: str | None = None) -> dict[str, Any]:
    """What the keys of a row of `suite.json` are made of; see `made_record` for `code`."""
    made_by = {} if code is None else {"code": {"digest": code}}
    data = {"dataset": "folder", "name": entry["dataset"]}  # classes that the catalogue has
    fit = {
        "model": "resnet18",
        "name": entry["model"],
        "row": entry["row"],
        "seed": entry["seed"],
        "recipe": {},
        "data": data,
    }
    return {"fit": fit | made_by, "eval": {"size": entry["size"], "fit_key": key(fit | made_by)} | made_by}


def with_keys(entry: Mapping[str, Any], code: str | None = None) -> dict[str, Any]:
    """A row of `suite.json` with the keys of its `made_record`."""
    made = made_of(entry, code)
    return {**entry, "fit_key": key(made["fit"]), "eval_key": key(made["eval"])}


def made_record(
    entry: Mapping[str, Any], state: str = "done", reason: str | None = None, code: str | None = None, **more: Any
) -> dict[str, Any]:
    """The record of a row of `suite.json` in plain values.

    Args:
        code: digest of the code that made it; None: it does not say.
        more: `fit` and `evaluation`, and other fields.
    """
    names = ("row", "model", "dataset", "size", "seed", "track", "control")
    cell = {**{name: entry[name] for name in names}, "emotions": [], "parameters": 1}
    return {
        "schema_version": 2,
        "protocol": 1,
        "fit_key": entry["fit_key"],
        "eval_key": entry["eval_key"],
        "made_of": made_of(entry, code),
        "cell": cell,
        "state": state,
        "reason": reason,
        "versions": VERSIONS,
        "hardware": MACHINE,
        "finished": "2026-01-01T00:00:00+00:00",
        **more,
    }


def made_fit(recipe_share: float = 1.0, fit_seconds: float = 60.0, memory: float | None = 1.0) -> dict[str, Any]:
    """How a network came to be."""
    cost = {
        "params": 1, "fit_seconds": fit_seconds, "fit_faces_per_s": 300.0, "peak_memory_gb": memory, "steps": 1,
        "epochs": 1, "recipe_share": recipe_share, "precision": "32-true",
    }  # fmt: skip
    return {"cost": cost, "validation": None, "versions": VERSIONS, "hardware": MACHINE}


def made_evaluation(
    emotions: Sequence[str], tracks: Mapping[str, Any], raw: Mapping[str, str], **more: Any
) -> dict[str, Any]:
    """What was measured; `more`: further fields, and `counts` and `notes` of the dataset."""
    counts = {"train": more.pop("counts", dict.fromkeys(emotions, 10))}
    dataset = {"name": "faces", "size": 48, "fingerprint": "f", "emotions": list(emotions), "counts": counts}
    dataset["notes"] = more.pop("notes", [])
    whole = {"dataset": dataset, "tracks": dict(tracks), "raw": dict(raw)}
    return {**whole, "params": 1, "flops": 1.0, "batch": 256, **more}


def hand_over(results: Path, board: str, suite: Path) -> None:
    """Make a board that was copied the board of a suite beside the results."""
    path = results / board / "suite.json"
    write_json(path, {**read_json(path), "file": suite.name})
