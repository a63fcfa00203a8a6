"""Is the budget of every `<class>-small-faces` enough? Trains each with it and with twice as much, side by side.

Enough is what gains less than 0.02 when it is doubled: a classifier in macro F1, a generator in control (or its FED
falls by less than a tenth). All is read on the validation faces of the drawn dataset that the suite demo runs, in its
size and with its panel and reader; test faces choose nothing here. Writes results/checks/small-faces.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import emobench
from emobench.evaluation.judge import Judge
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.sampler import Sampler
from emobench.metrics.control import Verdicts, control
from emobench.metrics.fidelity import Moments, Root, frechet
from emobench.runner.build import load_judges, load_model
from emobench.runner.machine import hardware
from emobench.runner.store import Store, StoredCell, load_board
from emobench.suite.catalog import SMALL_FACES, classes
from emobench.suite.file import load
from emobench.suite.rows import data_module

BOARD, DATA, TWICE = "small-faces", "synthetic-plain", "-twice"
PER_EMOTION = 200  # faces of a generator: its control is known to about 0.01
ENOUGH, NEARER = 0.02, 0.1
FIRST_SEED = 5_000_000  # of the noise, far from the protocol's own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the trained networks; it can be resumed")
    parser.add_argument("--only", nargs="*", help="classes; all by default")
    parser.add_argument("--out", type=Path, default=Path("results/checks/small-faces.md"))
    options = parser.parse_args()
    wanted = suite(options.only)
    emobench.bench(wanted, results=options.work)
    torch.set_grad_enabled(False)
    cells = {cell.row: cell for cell in load_board(options.work, BOARD) if not cell.row.startswith("control:")}
    figures = Figures(Store(options.work), [cells[row] for row in wanted["panel"]], cells[wanted["reader"]])
    lines = [line(cells[name], cells[name + TWICE], figures) for name in cells if name + TWICE in cells]
    options.out.write_text(page(lines), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def suite(only: list[str] | None) -> dict[str, Any]:
    """Every class with a recipe for small faces, once with its budget and once with twice that."""
    demo = load("demo")
    found: dict[str, Any] = {}
    for name, cls in classes("model").items():
        small = getattr(cls, "small_faces", {})
        as_in_demo = next((row for row in demo.model.values() if row.get("class") == name + SMALL_FACES), {})
        if small and (only is None or name in only or name in (*demo.panel, demo.reader)):
            found[name] = {**as_in_demo, "class": name + SMALL_FACES}
            budget = "epochs" if "epochs" in small else "steps"
            if only is None or name in only:
                found[name + TWICE] = {**found[name], budget: 2 * small[budget]}
    return {
        "name": BOARD,
        "seeds": [0],
        "panel": demo.panel,
        "reader": demo.reader,
        "data": {DATA: demo.data[DATA]},
        "model": found,
        "evaluation": {"fidelity": 64, "per_emotion": 2, "sources": 8, "intensity": 0},  # what it measures is not used
    }


class Figures:
    """Validation figures of finished cells.

    Args:
        panel, reader: the cells that judge generators.
    """

    def __init__(self, store: Store, panel: list[StoredCell], reader: StoredCell) -> None:
        self.store, self.cpu = store, torch.device("cpu")
        self.judges = load_judges(store, [cell.fit_key for cell in panel], self.cpu)
        self.reader: Judge = load_judges(store, [reader.fit_key], self.cpu)[0]
        self.data, _ = data_module("small-faces", DATA, {"size": reader.size}, Path())
        self.data.prepare_data()
        self.data.setup()
        self.real = RealFaces.of(self.data, None)
        faces = self.real.faces(self.real.val)
        self.known = self._verdicts(faces, self.real.labels[self.real.val])
        self.root = Root.of(Moments.of(self.reader.read(faces)[1]))

    def of(self, cell: StoredCell) -> Mapping[str, float]:
        """`macro_f1` of a classifier; `control` and `fed` of a generator."""
        assert cell.record is not None
        assert cell.record.fit is not None
        if cell.record.fit.validation is not None:
            return {"macro_f1": cell.record.fit.validation.macro_f1}
        model = load_model(self.store, cell.fit_key)
        sampler = Sampler(model, self.data.emotions, self.real.images.shape[-1], self.real, self.cpu)
        classes_ = len(self.data.emotions)
        asked = np.tile(np.arange(classes_), PER_EMOTION)
        seeds = FIRST_SEED + np.repeat(np.arange(PER_EMOTION), classes_)
        faces = sampler.sample(np.eye(classes_)[asked], seeds, "faces")
        made = control(self._verdicts(faces, asked), self.known, classes_).macro()
        fed = frechet(self.root, Moments.of(self.reader.read(faces)[1]))
        return {"control": float(made["control_calibrated"]), "fed": fed}

    def _verdicts(self, faces: np.ndarray, shown: np.ndarray) -> Verdicts:
        return Verdicts(shown, np.stack([judge.read(faces)[0].argmax(1) for judge in self.judges]))


def line(once: StoredCell, twice: StoredCell, figures: Figures) -> str:
    """A class, its figures with the recipe's budget and with twice that, and whether the recipe is enough."""
    first, second = figures.of(once), figures.of(twice)
    if "macro_f1" in first:
        enough = second["macro_f1"] - first["macro_f1"] < ENOUGH
    else:
        enough = second["control"] - first["control"] < ENOUGH or second["fed"] > (1 - NEARER) * first["fed"]
    small = classes("model")[once.row].small_faces
    cells = [
        once.row,
        *(f"{small[budget]:,} {budget}" for budget in ("epochs", "steps") if budget in small),
        *(
            f"{first[name]:.3f} → {second[name]:.3f}" if name in first else ""
            for name in ("macro_f1", "control", "fed")
        ),
        f"{_seconds(once):.0f} s → {_seconds(twice):.0f} s",
        "yes" if enough else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(cell: StoredCell) -> float:
    assert cell.record is not None
    assert cell.record.fit is not None
    assert cell.record.fit.cost is not None
    return cell.record.fit.cost.fit_seconds


def page(lines: list[str]) -> str:
    machine = hardware()
    cores = "one core" if machine.cores == 1 else f"{machine.cores} cores"
    return "\n".join(
        [
            "# Are the recipes for small faces long enough?",
            "",
            f"Every `<class>{SMALL_FACES}` on `{DATA}`, 32 px, seed 0, with its budget → with twice that, read on the "
            "1,000 validation faces: macro F1 of a classifier; of a generator control (calibrated, "
            f"{PER_EMOTION} faces an emotion) and FED. Enough: the doubled budget gains less than 0.02 in macro F1 or "
            f"control, or its FED is less than a tenth lower. {machine.cpu}, {cores}. Repeat: "
            "`python benchmarks/small_faces.py --work DIR`.",
            "",
            "| class | budget | macro F1 | control | FED ↓ | training | enough |",
            "| --- | --: | --: | --: | --: | --: | --- |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
