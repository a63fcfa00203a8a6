"""What runs of emobench in a fit or an evaluation is in its key, or on the list of those that need not."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emobench.data.datasets.synthetic import Synthetic
from emobench.definitions import PACKAGE, Code, Root
from emobench.definitions.roots import EXEMPT, FIT, JOINT, catalogue, catalogued, current, evaluation_roots
from emobench.emotions import EMOTIONS
from emobench.runner import evaluate, fit
from emobench.runner.run import Job, run
from emobench.runner.store import Store
from emobench.suite.catalog import classes
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.keys import datasets_in, name_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the trace slows every call down

SUITE = """
seeds = [0]
[data.synthetic-plain]
size = 32
train = 80
val = 24
test = 40
[data.other]
class = "synthetic-hard"
size = 32
train = 64
val = 24
test = 24
[data.mine]
class = "folder:mine"
size = 32
[data.crossed]
class = "folder:mine"
size = 32
cross_validate = 2
[model.resnet18]
width = 0.0625
batch = 16
epochs = 2
patience = 1
oversample = 2.0
undersample = 0.9
class_weights = "balanced"
loss = "focal"
label_smoothing = 0.1
schedule = "warmup-plateau"
warmup_epochs = 1
ema = 0.9
[model.vit]
on = ["synthetic-plain", "other"]
class = "vit-full"
weights = "none"
size = 32
dim = 16
depth = 1
heads = 2
patch = 8
hidden = 16
batch = 16
epochs = 1
optimizer = "sgd"
schedule = "onecycle"
rotate_to = 12
augment = { backend = "batched", shift = 0.1, scale = 0.1, erase = 0.5 }
[model.cnn21]
on = ["synthetic-plain", "other"]
padding = true
size = 32
dense = [16, 8]
batch = 16
epochs = 1
augment = { shift = 0.1, scale = 0.1, erase = 0.5 }
[model.vgg16]
on = ["synthetic-plain", "other"]
width = 0.0625
batch_norm = true
pool = 1
head = 16
batch = 16
epochs = 1
schedule = "step"
[model.vit_linear]
on = ["synthetic-plain"]
weights = "none"
size = 32
dim = 16
depth = 1
heads = 2
patch = 8
batch = 16
epochs = 1
[model.timm]
on = ["synthetic-plain"]
class = "timm:resnet10t"
batch = 16
epochs = 1
[model.ensemble]
on = ["synthetic-plain"]
needs = { members = ["resnet18", "cnn21"] }
[model.cvae]
on = ["synthetic-plain"]
size = 32
width = 4
latent = 4
perceptual = "guide"
needs = { guide = "vgg16" }
epochs = 1
ema = 0.9
[model.vit_cvae]
on = ["synthetic-plain"]
size = 32
width = 4
latent = 4
dim = 16
depth = 1
heads = 2
perceptual = "none"
epochs = 1
[model.stargan]
on = ["synthetic-plain"]
size = 32
width = 4
blocks = 1
discriminator_width = 4
batch = 16
epochs = 1
[model.stargan-joint]
class = "stargan"
train_on = ["synthetic-plain", "other"]
size = 32
width = 4
blocks = 1
discriminator_width = 4
batch = 16
epochs = 1
[model.diffusion]
on = ["synthetic-plain"]
size = 32
channels = [8, 8]
layers = 1
sampling_steps = 2
epochs = 1
[model.stylegan2]
on = ["synthetic-plain"]
size = 32
latent = 8
style = 8
base = 128
most = 4
path_length = 2.0
batch = 16
epochs = 2
[model.latent_search]
on = ["synthetic-plain"]
steps = 2
projection_steps = 2
perceptual = "guide"
needs = { generator = "stylegan2", guide = "vgg16" }
[model.cvae_stylegan]
on = ["synthetic-plain"]
steps = 2
projection_steps = 2
needs = { cvae = "cvae", generator = "stylegan2", guide = "vgg16" }
[model.style_transfer]
on = ["synthetic-plain"]
size = 32
width = 4
perceptual = "guide"
content_layer = "relu1_2"
style_layers = ["relu1_2"]
needs = { guide = "vgg16" }
epochs = 1
[model.their_callable]
on = ["synthetic-plain"]
class = "python:theirs.py:predict"
labels = ["happy", "sad", "fear"]
flip = true
[model.their_onnx]
on = ["synthetic-plain"]
class = "onnx:theirs.onnx"
labels = ["happy", "sad", "other"]
channels = "gray"
range = [0, 1]
[model.their_repository]
on = ["synthetic-plain"]
class = "hf:theirs"
[model.their_checkpoint]
on = ["synthetic-plain"]
class = "timm:test_vit"
checkpoint = "theirs.pth"
labels = ["happy", "sad", "fear"]
channels = "bgr"
range = [0, 1]
side = 160
margin = 0.1
[model.their_answers]
on = ["synthetic-plain"]
class = "predictions:theirs.csv"
[model.their_pictures]
on = ["synthetic-plain"]
class = "images:pictures"
[model.their_edits]
on = ["synthetic-plain"]
class = "images:edits"
[cues]
each = 1
[explain]
per_emotion = 1
[evaluation]
fidelity = 40
per_emotion = 2
sources = 8
intensity = 2
"""


class Trace:
    """Which functions of emobench run, by what they run in: a fit, an evaluation, or what is around them."""

    def __init__(self) -> None:
        # By `id`: a code object is hashed by its content, each time anew, and every call would pay for it.
        self.found: dict[str, dict[int, CodeType]] = defaultdict(dict)
        self.stages = {
            id(fit.fit.__code__): "fit",
            id(evaluate.measure_classifier.__code__): "evaluation",
            id(evaluate.measure_explained.__code__): "evaluation",
            id(evaluate.measure_judged.__code__): "evaluation",
        }
        self.stage = "around"

    def __enter__(self) -> Trace:
        threading.settrace(self._seen)
        sys.settrace(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _seen(self, frame: FrameType, event: str, _: object) -> Any:
        """A call: of what happens in a frame, nothing else is asked for but the end of a fit and an evaluation."""
        code = frame.f_code
        if id(code) in self.stages:
            self.stage = self.stages[id(code)]
            frame.f_trace_lines = False
        self.found[self.stage][id(code)] = code
        return self._left if id(code) in self.stages else None

    def _left(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "return":
            self.stage = "around"
        return self._left

    def of_emobench(self, stage: str) -> set[tuple[Path, int, str]]:
        """Files, lines and names; the code of modules and classes, which imports execute, is none of a function."""
        functions = inspect.CO_OPTIMIZED | inspect.CO_NEWLOCALS
        return {
            (Path(code.co_filename), code.co_firstlineno, code.co_qualname)
            for code in self.found[stage].values()
            if code.co_filename.startswith(str(PACKAGE)) and code.co_flags & functions == functions
        }


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Cell, Trace]]:
    """A smoke cell of every kind, each run in this process and traced."""
    folder = tmp_path_factory.mktemp("traced")
    path = folder / "suite.toml"
    path.write_text(SUITE)
    pictures(folder / "data" / "mine")
    theirs(folder)
    suite = load(path)
    store = Store(folder / "results")
    traced = []
    for cell in expand(suite, folder / "data").cells:
        store.fit_folder(cell.fit_key).mkdir(parents=True, exist_ok=True)
        with Trace() as trace:
            run(Job(cell, store.results, folder / "data"), store)
        traced.append((cell, trace))
    return traced


def theirs(folder: Path) -> None:
    """Outside models of every form, whose answers mean nothing."""
    import timm
    import torch
    from test_outside_files import SmallViT, written

    (folder / "theirs.py").write_text("def predict(faces):\n    return faces.reshape(len(faces), -1)[:, :3] / 9\n")
    written(folder / "theirs.onnx", np.random.default_rng(0).normal(size=(3, 256)), ("N", 1, 16, 16))
    SmallViT(3).save(folder / "theirs", ("happy", "sad", "fear"))
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), folder / "theirs.pth")
    data = Synthetic(size=32, variant="plain", train=80, val=24, test=40, cache=folder / "packs")
    data.prepare()
    test = data.faces[data.faces["split"] == "test"]
    pd.DataFrame({"id": test["id"], "label": "happy"}).to_csv(folder / "theirs.csv", index=False)
    pictures(folder / "pictures", EMOTIONS)
    pictures(folder / "edits", ("happy",))
    rows = {"file": [f"happy/{n % 30}.png" for n in range(len(test))], "source": test["id"], "emotion": "happy"}
    pd.DataFrame(rows).to_csv(folder / "edits" / "edits.csv", index=False)


def pictures(folder: Path, emotions: Sequence[str] = ("happy", "sad", "anger")) -> None:
    from PIL import Image

    for k, emotion in enumerate(emotions):
        (folder / emotion).mkdir(parents=True)
        for n in range(30):
            Image.effect_noise((32, 32), 10 + 20 * k + n).save(folder / emotion / f"{n}.png")


def test_every_function_that_runs_is_in_a_key_or_on_the_list(cells: list[tuple[Cell, Trace]]) -> None:
    by_key = {cell.fit_key: cell for cell, _ in cells}
    listed = by_file(exempt_lines())
    missing: dict[str, set[str]] = defaultdict(set)
    for cell, trace in cells:
        behind = [by_key[key] for keys in cell.needs.values() for key in keys]
        of_fit = [root for each in [cell, *behind] for root in fit_roots(each)]
        judges = [root for keys in cell.panel.values() for key in keys for root in fit_roots(by_key[key])]
        of_both = [*of_fit, *judges, *evaluation_roots(catalogued(cell.evaluation["tracks"]))]
        for stage, roots in (("fit", of_fit), ("evaluation", of_both), ("around", of_both)):
            known = reached(tuple(dict.fromkeys(roots)))
            for file, line, name in trace.of_emobench(stage):
                if not any(line in lines for lines in (*known.get(file, ()), *listed.get(file, ()))):
                    missing[f"{file.relative_to(PACKAGE)}: {name}"].add(f"{stage} of {cell.row} on {cell.dataset}")
    assert not missing, "\n".join(f"{name}: {', '.join(sorted(where))}" for name, where in sorted(missing.items()))


@functools.cache
def reached(roots: tuple[Root, ...]) -> dict[Path, list[range]]:
    """The lines of each file that are part of what is reached."""
    return by_file((path, lines) for path, lines, _ in current().reached(roots).definitions)


def by_file(places: Iterable[tuple[Path, range]]) -> dict[Path, list[range]]:
    found: dict[Path, list[range]] = defaultdict(list)
    for path, lines in places:
        found[path].append(lines)
    return dict(found)


def fit_roots(cell: Cell) -> list[Root]:
    datasets = [catalogue("dataset")[name_of(entry)] for entry in datasets_in(cell.fit)]
    return [catalogue("model")[name_of(cell.fit)], *datasets, *FIT, *(JOINT if "joint" in cell.fit["data"] else ())]


def exempt_lines() -> list[tuple[Path, range]]:
    """Where the definitions on the list stand."""
    code, found = Code(), []
    for entry in EXEMPT:
        module, _, name = entry.partition(":")
        roots: list[Root] = [(module, name)] if name else []
        if not name:
            prefix = f"{module}."
            names = [each.name for each in code.modules() if f"{each.name}.".startswith(prefix)]
            roots = [(each, "*") for each in names]
        for root in roots:
            for target in code.root(*root):
                statements = target.parsed.statements if not isinstance(target, tuple) else [target[1]]  # type: ignore[union-attr]
                path = target[0].path if isinstance(target, tuple) else target.path  # type: ignore[union-attr]
                found += [(path, each.lines) for each in statements]
    return found


def test_the_trace_sees_every_track_and_kind_of_cell(cells: list[tuple[Cell, Trace]]) -> None:
    ran = {name for _, trace in cells for stage in ("fit", "evaluation") for _, _, name in trace.of_emobench(stage)}
    assert {name_of(cell.fit) for cell, _ in cells} == {*classes("model")}
    for name in (
        "fidelity_sample", "control", "intensity", "_grid", "truth_ssim", "_loss.<locals>.<lambda>", "Judge.read",
        "Search.__call__", "Joint.on_after_batch_transfer", "Averaging.__init__.<locals>.average", "predict",
        "Reproducible.on_train_batch_start", "EmotionDataModule.train_dataloader", "Balance.draw", "memorisation",
        "Attentions._record", "grad_cam", "emotion_regions",
    ):  # fmt: skip
        assert name in ran, name


def test_a_function_outside_the_keys_would_be_seen(cells: list[tuple[Cell, Trace]]) -> None:
    """Without the fit among the roots, its callbacks are missing."""
    cell, trace = cells[0]
    without = current().reached([root for root in fit_roots(cell) if root not in FIT])
    missing = {name for file, line, name in trace.of_emobench("fit") if not without.holds(file, line)}
    assert {"fit", "Reproducible.on_train_batch_start", "History.on_train_epoch_end"} <= missing


def test_the_list_of_exemptions_is_short_and_each_exists_and_says_why() -> None:
    assert len(EXEMPT) <= 25
    assert all(reason for reason in EXEMPT.values())
    assert exempt_lines()
    for entry in EXEMPT:
        module, _, name = entry.partition(":")
        assert Code().root(module, name or "*"), entry
