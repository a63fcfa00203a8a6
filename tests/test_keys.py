"""What changes the keys of cells: of the real package, copied and changed, and of suites."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import RESULTS

from emobench.definitions import PACKAGE, Code
from emobench.definitions.roots import (
    EXEMPT,
    FIT,
    JOINT,
    MEASURE,
    METRICS,
    catalogue,
    catalogued,
    evaluation_code,
    evaluation_roots,
    fit_code,
    measured_by,
    root_of,
)
from emobench.runner.sweep import _but_for_code
from emobench.suite.catalog import classes, tracks
from emobench.suite.cell import Cell, Plan
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.keys import NEUTRAL, in_todays_form, is_current, key, name_of

MODELS = catalogue("model")
DATASETS = {f"{name} (data)" if name in MODELS else name: root for name, root in catalogue("dataset").items()}
OUTSIDE = {"hf", "onnx", "predictions", "python", "timm-checkpoint"}
CLASSIFIERS = {"cnn21", "cross_validated", "ensemble", "resnet18", "timm", "vgg16", "vit", "vit_linear", *OUTSIDE}
TRACKS = {name: evaluation_roots(catalogued([name])) for name in catalogue("track")}
JUDGING = {*TRACKS} - {"recognition", "explanation"}  # on these a panel reads what a model made


def digests(package: Path = PACKAGE, renamed: Mapping[str, str] | None = None) -> dict[str, str]:
    """The code behind each model's fit, each dataset, joint data and each track's evaluation."""

    def now(module: str) -> str:
        return (renamed or {}).get(module, module)

    exempt = [entry.partition(":") for entry in EXEMPT]
    code = Code(package, [f"{now(module)}{colon}{name}" for module, colon, name in exempt])

    def of(*roots: Any) -> str:
        return code.digest([(now(module), name) for module, name in roots])

    return {
        **{name: of(root, *FIT) for name, root in MODELS.items()},
        **{name: of(root) for name, root in DATASETS.items()},
        **{track: of(*roots) for track, roots in TRACKS.items()},
        "joint": of(*JOINT),
    }


@pytest.fixture(scope="module")
def today() -> dict[str, str]:
    return digests()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package elsewhere; who changes it puts it back."""
    place = tmp_path_factory.mktemp("copy") / "emobench"
    return Path(shutil.copytree(PACKAGE, place, ignore=shutil.ignore_patterns("__pycache__")))


def place(package: Path, definition: str) -> Path:
    """The file of the package that holds a line, wherever it lies."""
    found = [path for path in package.rglob("*.py") if definition in path.read_text()]
    assert len(found) == 1, (definition, found)
    return found[0]


CHANGES: list[tuple[str, str, set[str]]] = [
    # What a model reaches changes that model alone.
    ("def focal(", "def focal(_=0, /, *, x=0, ", CLASSIFIERS),
    ("_SLOPE, _GAIN = 0.2", "_SLOPE, _GAIN = 0.3", {"stylegan2", "latent_search", "cvae_stylegan"}),
    ("class WarmupThenPlateau(", "class WarmupThenPlateau(object, ", CLASSIFIERS),
    # The data that training sees, and the faces that are packed.
    ("class Balance:", "class Balance(object):", set(DATASETS)),
    ("_RECORD = ", "_RECORD = {} or ", set(DATASETS)),
    # The fit: weight averaging, the seeding of steps, the choice of the checkpoint.
    ("(1 + so_far) / (10 + so_far)", "(2 + so_far) / (10 + so_far)", set(MODELS)),
    (">> 1))", ">> 2))", set(MODELS)),
    ('mode="min" if monitor == "loss" else "max"', 'mode="max"', set(MODELS)),
    # Joint data.
    ("0x517CC1B7", "0x517CC1B8", {"joint"}),
    # What the panel reads, and what is computed of it.
    ("logits.softmax(1).numpy(), seen.numpy()", "(logits / 2).softmax(1).numpy(), seen.numpy()", JUDGING),
    ("COPY_QUANTILE = 10, ", "COPY_QUANTILE = 11, ", JUDGING),
    ("CHOICE_SEED = ", "CHOICE_SEED = 1 + ", {*JUDGING, "explanation"}),
    # What one track does.
    ("few = np.arange(min(len(images), 96))", "few = np.arange(min(len(images), 97))", {"recognition"}),
    ("BINS = ", "BINS = 1 + ", {"recognition"}),
    ("PICTURED = 10", "PICTURED = 11", {"generation"}),
    ("return None if truth is None else psnr(made.images, truth)", "return None", {"editing"}),
    ("becomes.get(k, itself)", "becomes.get(k + 1, itself)", {"editing"}),
    ("STYLIZED_SIZE, STYLIZED_FACES = 256", "STYLIZED_SIZE, STYLIZED_FACES = 128", {"stylization"}),
    ("return ssim(made.images, made.sources)", "return -ssim(made.images, made.sources)", {"editing", "stylization"}),
    ("mixed @ rolled", "rolled @ mixed", {"explanation"}),
    ("CHANGED = 8", "CHANGED = 9", {"explanation"}),
    # What all evaluations and every fit go through.
    ("def _typed(", "def _typed(_=0, /, *, x=0, ", {*MODELS, *TRACKS, "joint"}),
    # No number hangs on reports, what tracks say in them, the command, the store, the plan, the words of an error.
    ("def markdown(", "def markdown(_=0, /, *, x=0, ", set()),
    ("_MAJORITY = ", "_MAJORITY = '' + ", set()),
    ("REPLICATES = 1000", "REPLICATES = 2000", set()),
    ("JUDGES_BYTES = ", "JUDGES_BYTES = 1 + ", set()),
    ("KEY_LENGTH = ", "KEY_LENGTH = 1 + ", set()),
    ("def show_plan(", "def show_plan(_=0, /, *, x=0, ", set()),
    ("the training loss became NaN or infinite in epoch", "no number in epoch", set()),
    ("did you mean", "perhaps", set()),
    ("An exponential moving average of the weights", "EMA of the weights", set()),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "affected"), CHANGES)
def test_a_change_of_the_package_changes_the_keys_that_it_reaches_and_no_other(
    copy: Path, today: dict[str, str], old: str, new: str, affected: set[str]
) -> None:
    path = place(copy, old)
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    found = digests(copy)
    path.write_text(text)
    assert {name for name in today if found[name] != today[name]} == affected


def test_a_copy_elsewhere_has_the_same_keys(copy: Path, today: dict[str, str]) -> None:
    assert digests(copy) == today


@pytest.mark.slow
def test_moving_modules_changes_no_key(tmp_path: Path, today: dict[str, str]) -> None:
    """Losses, the fit, the store, the base of all classifiers and a track in other rooms, under other names."""
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "emobench", ignore=shutil.ignore_patterns("__pycache__")))
    moves = {
        "emobench.nn.losses": "emobench.criteria",
        "emobench.runner.fit": "emobench.engine_room.training",
        "emobench.runner.store": "emobench.engine_room.storage",
        "emobench.evaluation.tracks.editing": "emobench.evaluation.tracks.changing",
        "emobench.classifiers.classifier": "emobench.classifiers.base",
    }
    (copy / "engine_room").mkdir()
    (copy / "engine_room" / "__init__.py").write_text("")
    for old, new in moves.items():
        source, target = (copy.parent / (name.replace(".", "/") + ".py") for name in (old, new))
        source.rename(target)
    for path in copy.rglob("*.py"):
        text = path.read_text()
        for old, new in moves.items():
            text = text.replace(f"{old} import", f"{new} import").replace(f"import {old}", f"import {new}")
        path.write_text(text)
    assert digests(copy, moves) == today


def test_the_catalogue_is_found_without_importing_anything() -> None:
    assert set(MODELS) == set(classes("model"))
    assert set(catalogue("dataset")) == set(classes("dataset"))
    for kind in ("model", "dataset"):
        for name, cls in classes(kind).items():  # type: ignore[arg-type]
            assert catalogue(kind)[name] == (cls.__module__, cls.__qualname__)  # type: ignore[arg-type]
    resnet = root_of(classes("model")["resnet18"]), [root_of(classes("dataset")["synthetic"])]
    assert fit_code(*resnet, False) == fit_code(MODELS["resnet18"], [DATASETS["synthetic"]], False)


def test_a_track_is_measured_by_what_its_keys_hold() -> None:
    assert set(TRACKS) == set(tracks())
    for name, track in tracks().items():
        assert evaluation_code({name: measured_by(track)}) == evaluation_code(catalogued([name]))
        module = sys.modules[type(track).__module__]
        assert track.metrics is getattr(module, METRICS)
        assert type(track).measure is getattr(module, MEASURE)


# Suites


def planned(path: Path, *overrides: str) -> Plan:
    return expand(load(path, overrides), path.parent / "data")


def test_the_key_names_the_model_as_the_catalogue_does_and_holds_no_path(tiny: Path) -> None:
    for cell in planned(tiny).cells:
        assert cell.fit["model"] == "resnet18"
        assert cell.fit["data"]["dataset"] == "synthetic"
        assert ".py" not in json.dumps([cell.fit, cell.evaluation])
        assert "emobench." not in json.dumps([cell.fit, cell.evaluation])


def test_the_global_batch_is_in_the_key_and_not_how_it_is_spread(tiny: Path) -> None:
    def fit_key(*overrides: str) -> str:
        return planned(tiny, *overrides).cells[0].fit_key

    one = fit_key("model.resnet18.batch=32")
    cpu = "trainer.accelerator=cpu"
    assert one == fit_key("trainer.devices=2", "model.resnet18.batch=16", cpu)
    assert one == fit_key("trainer.devices=[0, 1]", "model.resnet18.batch=16", cpu)
    assert one == fit_key("trainer.devices=4", "trainer.num_nodes=1", "model.resnet18.batch=8", cpu)
    assert one != fit_key("trainer.devices=2", "model.resnet18.batch=32", cpu)
    assert one != fit_key("model.resnet18.batch=32", "trainer.accumulate_grad_batches=2")


@pytest.mark.parametrize("option", NEUTRAL)
def test_neutral_options_are_in_no_key(tiny: Path, option: str) -> None:
    value = {"accelerator": "cpu", "log_every_n_steps": "7", "profiler": "simple"}.get(option, "true")
    assert planned(tiny, f"trainer.{option}={value}").cells[0].fit_key == planned(tiny).cells[0].fit_key


@pytest.mark.parametrize("override", ["trainer.precision=bf16-mixed", "seeds=[1]", "data.synthetic-plain.train=88"])
def test_other_settings_are(tiny: Path, override: str) -> None:
    assert planned(tiny, override).cells[0].fit_key != planned(tiny).cells[0].fit_key


def test_two_names_of_one_network_share_a_key(tiny: Path) -> None:
    tiny.write_text(tiny.read_text() + "\n[model.twin]\nclass = 'resnet18'\n" + tiny.read_text().split("18]\n")[1])
    cells = {cell.row: cell for cell in planned(tiny).cells}
    assert cells["twin"].fit_key == cells["resnet18"].fit_key


def test_the_digests_of_a_large_plan_are_quick() -> None:
    """A hundred cells, of all models on all datasets, within about a second once the package has been read."""
    started = time.process_time()
    for model in MODELS.values():
        for dataset in DATASETS.values():
            fit_code(model, [dataset], False)
    assert time.process_time() - started < 5


# Records of before


def in_the_form_of_before(cell: Cell) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a cell's keys were made of at commit 0c8123b."""
    of = {"resnet18": "emobench.classifiers.resnet:ResNet18", "synthetic": "emobench.data.synthetic:Synthetic"}
    code = {"files": ["emobench/classifiers/resnet.py", "emobench/data/synthetic.py"], "digest": "0" * 64}
    fit = {name: value for name, value in cell.fit.items() if name != "model"}
    data = {name: value for name, value in cell.fit["data"].items() if name != "dataset"}
    fit |= {"class": of[cell.fit["model"]], "data": {**data, "class": of[cell.fit["data"]["dataset"]]}, "code": code}
    fit["trainer"] = {**cell.fit["trainer"], "devices": 1}
    return fit, {
        **cell.evaluation,
        "fit_key": key(fit),
        "code": {"files": ["emobench/metrics/recognition.py"], "digest": "0" * 64},
    }


def test_records_of_before_match_the_cells_of_today_but_for_the_code(tiny: Path) -> None:
    cell = planned(tiny).cells[0]
    fit, evaluation = in_the_form_of_before(cell)
    assert _but_for_code(fit, evaluation) == _but_for_code(cell.fit, cell.evaluation)
    assert _but_for_code({**fit, "seed": 9}, evaluation) != _but_for_code(cell.fit, cell.evaluation)
    two = {**fit, "trainer": {**fit["trainer"], "devices": 2}}
    assert in_todays_form(two)["recipe"]["batch"] == 2 * cell.fit["recipe"]["batch"]
    assert not is_current(fit, evaluation)
    assert is_current(cell.fit, cell.evaluation)
    assert not is_current(cell.fit, {**cell.evaluation, "code": {"digest": "0" * 64}})


def test_every_committed_record_names_classes_of_the_catalogue() -> None:
    records = sorted(RESULTS.glob("*/cells/*/result.json"))
    assert len(records) > 60
    for path in records:
        fit = json.loads(path.read_text())["made_of"]["fit"]
        today = in_todays_form(fit)
        assert today["model"] == name_of(fit) in MODELS
        assert {entry["dataset"] for entry in today["data"].get("joint", [today["data"]])} <= set(DATASETS)
