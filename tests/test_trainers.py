"""Trainers as an axis: rows, keys and needs of each, and what a board says of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TINY, TINY_DATA
from PIL import Image
from reading import pages

import emobench as package
from emobench.emotions import EMOTIONS
from emobench.errors import SuiteError
from emobench.report.board import sections
from emobench.report.trainers import against
from emobench.runner import machine
from emobench.runner.choice import groups
from emobench.runner.record import Hardware, read_record
from emobench.runner.store import load_board
from emobench.suite.catalog import tracks
from emobench.suite.cell import Cell, Plan
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.plan_cache import plan_of

AXIS = """
[trainer.fp32]
[trainer.amp]
precision = "bf16-mixed"
[trainer.two]
devices = 2
accelerator = "cpu"
"""
TRAINERS = ("fp32", "amp", "two")


def planned(folder: Path, text: str, *overrides: str) -> Plan:
    path = folder / "axis.toml"
    path.write_text(text)
    return expand(load(path, overrides), folder)


def keys(plan: Plan) -> dict[str, str]:
    return {cell.row: cell.fit_key for cell in plan.cells}


def cells(plan: Plan) -> dict[str, Cell]:
    return {cell.row: cell for cell in plan.cells}


# ---- rows and keys ---------------------------------------------------------------------------------------------------


def test_each_row_is_run_under_each_trainer_and_the_control_under_the_first(tmp_path: Path) -> None:
    plan = planned(tmp_path, TINY + AXIS)
    assert [(cell.row, cell.trained_by) for cell in plan.cells] == [
        ("resnet18", "fp32"),
        ("resnet18@amp", "amp"),
        ("resnet18@two", "two"),
        ("control:permuted", "fp32"),
    ]
    assert {cell.row: cell.trainer for cell in plan.cells if cell.control is None} == {
        "resnet18": {"precision": "32-true", "devices": 1},
        "resnet18@amp": {"precision": "bf16-mixed", "devices": 1},
        "resnet18@two": {"precision": "32-true", "devices": 2, "accelerator": "cpu"},
    }
    assert {cell.entry()["variant"] for cell in plan.cells if cell.control is None} == {""}
    assert [cell.entry()["trainer"] for cell in plan.cells] == ["fp32", "amp", "two", "fp32"]
    plain = planned(tmp_path, TINY).cells[0]
    assert "trainer" not in plain.entry()
    assert plain.trained_by == ""


def test_the_first_trainer_shares_the_keys_of_a_suite_without_an_axis(tmp_path: Path) -> None:
    plain, axis = keys(planned(tmp_path, TINY)), keys(planned(tmp_path, TINY + AXIS))
    assert axis["resnet18"] == plain["resnet18"]
    assert axis["control:permuted"] == plain["control:permuted"]
    amp = keys(planned(tmp_path, TINY, "trainer.precision=bf16-mixed"))
    assert axis["resnet18@amp"] == amp["resnet18"]  # the same fit, whoever asks for it


def test_what_is_measured_on_other_devices_is_not_taken_for_it(tmp_path: Path) -> None:
    """A plain suite counts faces, however many devices see them; trainers are compared in what that costs."""
    two = "[trainer.two]\ndevices = 2\naccelerator = 'cpu'\n"
    one = planned(tmp_path, TINY, "model.resnet18.batch=32").cells[0]
    assert planned(tmp_path, TINY, "trainer.devices=2").cells[0].fit_key == one.fit_key
    axis = cells(planned(tmp_path, TINY + "[trainer.one]\n" + two))
    assert axis["resnet18@two"].fit["recipe"]["batch"] == 32  # of both together
    assert axis["resnet18@two"].fit["apart"] == {"devices": 2, "accelerator": "cpu"}
    assert "apart" not in axis["resnet18"].fit
    assert axis["resnet18@two"].fit_key != one.fit_key
    # Nor where the first trainer is the one with two devices, or the accelerator alone differs.
    first = planned(tmp_path, TINY + two + "[trainer.one]\n").cells[0]
    assert first.row == "resnet18"
    assert first.fit_key == axis["resnet18@two"].fit_key
    places = keys(planned(tmp_path, TINY + "[trainer.any]\n[trainer.here]\naccelerator = 'cpu'\n"))
    assert places["resnet18"] != places["resnet18@here"]


def test_options_beside_the_tables_are_shared(tmp_path: Path) -> None:
    shared = "[trainer]\ngradient_clip_val = 1.0\nprecision = 'bf16-mixed'\n[trainer.amp]\n"
    rows = cells(planned(tmp_path, f"{TINY}{shared}[trainer.full]\nprecision = '32-true'\n"))
    assert rows["resnet18"].trainer == {"precision": "bf16-mixed", "devices": 1, "gradient_clip_val": 1.0}
    assert rows["resnet18@full"].trainer == {"precision": "32-true", "devices": 1, "gradient_clip_val": 1.0}
    # An option of one is no option of another.
    only = cells(planned(tmp_path, TINY + "[trainer.clipped]\ngradient_clip_val = 1.0\n[trainer.plain]\n"))
    assert "gradient_clip_val" not in only["resnet18@plain"].trainer
    # A row's own options come last.
    own = cells(planned(tmp_path, f"{TINY}trainer = {{ deterministic = true }}\n{AXIS}"))
    assert all(cell.trainer["deterministic"] is True for cell in own.values())


def test_overrides_reach_into_a_trainer(tmp_path: Path) -> None:
    plan = planned(tmp_path, TINY + AXIS, "trainer.amp.precision=16-mixed", "trainer.three.devices=3")
    rows = cells(plan)
    assert rows["resnet18@amp"].trainer["precision"] == "16-mixed"
    assert rows["resnet18@three"].trainer["devices"] == 3
    assert rows["resnet18"].trainer["precision"] == "32-true"


def test_a_row_may_leave_trainers_out(tmp_path: Path) -> None:
    rows = keys(planned(tmp_path, TINY + 'trainers = ["two", "amp"]\n' + AXIS))
    assert list(rows) == ["resnet18@amp", "resnet18@two", "control:permuted"]
    assert rows["control:permuted"]  # of the first that there is


def test_a_plan_is_kept_apart_from_that_of_another_first_trainer(tmp_path: Path) -> None:
    path = tmp_path / "axis.toml"
    found = []
    for order in (
        "[trainer.fp32]\n[trainer.amp]\nprecision = 'bf16-mixed'\n",
        "[trainer.amp]\nprecision = 'bf16-mixed'\n[trainer.fp32]\n",
    ):
        path.write_text(TINY + order)
        found.append([cell.row for cell in plan_of(load(path), tmp_path, tmp_path / "cells").cells])
    assert found[0][:2] == ["resnet18", "resnet18@amp"]
    assert found[1][:2] == ["resnet18", "resnet18@fp32"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[trainer.precision]\n[trainer.b]\n", "precision is an option of Lightning's Trainer, and so neither"),
        ("[trainer.max_epochs]\n", "max_epochs is an option of Lightning's Trainer"),
        ("[trainer.amp]\nprecison = '16-mixed'\n", r"\[trainer.amp\]: unknown option 'precison': did you mean 'prec"),
        ("[trainer]\nprecison = '16-mixed'\n[trainer.amp]\n", r"\[trainer\]: unknown option 'precison'"),
        ("[trainer.amp]\nmax_epochs = 3\n", r"\[trainer.amp\]: max_epochs is set by emobench"),
        ("[trainer.'a b']\n", "a trainer is named by letters, digits"),
        ("[trainer.a]\n[trainer.b]\nlog_every_n_steps = 3\n", "the trainers a and b would do the same"),
        ("[trainer.a]\n[trainer.b]\nstrategy = 'fsdp'\n", r"trainer b of \[model.resnet18@b\]: strategy = 'fsdp'"),
        ("[trainer.a]\nprecision = { sweep = ['32-true', '16-mixed'] }\n", "a.precision cannot be swept"),
    ],
)  # fmt: skip
def test_what_is_no_trainer_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        planned(tmp_path, TINY + text)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('trainers = ["ampp"]', "trainers: unknown trainer 'ampp': did you mean 'amp'"),
        ("trainers = []", "is no list of trainers"),
        ('trainer = { precision = "64-true" }', "resnet18\\] trainer: the trainers fp32 and amp would do the same"),
        ('trainers = { sweep = [["fp32"], ["amp"]] }', "trainers is no setting that can be swept"),
        ('[model."resnet18@amp"]\nclass = "resnet18"', "two rows would both be called resnet18@amp"),
    ],
)  # fmt: skip
def test_what_a_row_says_of_trainers_is_checked(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        planned(tmp_path, f"{TINY}{row}\n{AXIS}")


def test_trainers_without_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="names trainers, and the suite has no table of one"):
        planned(tmp_path, TINY + 'trainers = ["fp32"]\n')


# ---- what rests on other rows ----------------------------------------------------------------------------------------

RESTING = """
[model.ensemble]
needs = { members = ["resnet18", "cnn21"] }
[model.cnn21]
padding = true
size = 32
dense = [64, 16]
"""


def test_needs_are_filled_by_rows_of_the_same_trainer(tmp_path: Path) -> None:
    rows = cells(planned(tmp_path, TINY + RESTING + AXIS))
    for suffix in ("", "@amp", "@two"):
        members = [rows[f"{name}{suffix}"].fit_key for name in ("resnet18", "cnn21")]
        assert rows[f"ensemble{suffix}"].needs == {"members": members}
    assert len({rows[f"ensemble{suffix}"].fit_key for suffix in ("", "@amp", "@two")}) == 3
    with pytest.raises(SuiteError, match=r"\[model.ensemble\]: its members cnn21 is not run with the trainer two"):
        planned(tmp_path, TINY + RESTING + 'trainers = ["fp32", "amp"]\n' + AXIS)


def test_judges_and_guides(made_suite: Path, tmp_path: Path) -> None:
    """A guide is of the generator's trainer, its judges of the first; a search without a network to train is fixed."""
    text = made_suite.read_text() + '[trainer.fp32]\n[trainer.amp]\nprecision = "bf16-mixed"\n'
    rows = cells(planned(tmp_path, text))
    plain = cells(planned(tmp_path, made_suite.read_text()))
    for name, cell in plain.items():
        assert (rows[name].fit_key, rows[name].eval_key) == (cell.fit_key, cell.eval_key)
    assert rows["cvae@amp"].needs == {"guide": [rows["vgg16@amp"].fit_key]}
    panel = {"judges": [plain[name].fit_key for name in ("resnet18", "vit")], "reader": [plain["cnn21"].fit_key]}
    assert rows["cvae@amp"].panel == rows["cvae"].panel == panel
    for changed in ('panel = ["resnet18@amp", "vit"]\n', ""):
        suite = changed + (text if changed else text.replace("[model.cnn21]", '[model.cnn21]\ntrainers = ["amp"]'))
        name = "resnet18@amp" if changed else "cnn21"
        with pytest.raises(SuiteError, match=f"first trainer, fp32, and {name} is not run with it"):
            planned(tmp_path, suite)


PICTURES = f"""
panel = ["resnet18", "vit-small-faces"]
reader = "cnn21"
{TINY_DATA.replace("test = 80", "test = 640")}
[model.theirs]
class = "images:pictures"
[evaluation]
fidelity = 32
per_emotion = 4
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("strategy = 'fsdp'", "strategy = 'fsdp' is no copy of the whole network on each device"),
        ("sync_batchnorm = true", "sync_batchnorm = true normalises by the faces of all devices together"),
    ],
)
def test_judges_that_no_table_names_are_held_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    """A suite of pictures alone names nothing that is fitted; its judges are."""
    monkeypatch.chdir(tmp_path)
    for emotion in EMOTIONS:
        (tmp_path / "pictures" / emotion).mkdir(parents=True)
        for place in range(4):
            Image.effect_noise((32, 32), 60 + place).save(tmp_path / "pictures" / emotion / f"{place}.png")
    judged = cells(planned(tmp_path, f"{PICTURES}[trainer]\ndevices = 2\n"))
    assert judged["resnet18"].trainer == {"precision": "32-true", "devices": 2}
    with pytest.raises(SuiteError, match=rf"trainer of \[model.resnet18\]: {said}"):
        planned(tmp_path, f"{PICTURES}[trainer]\ndevices = 2\n{options}\n")


FIXED = """
import torch

from emobench.classifiers.classifier import EmotionClassifier


class Fixed(EmotionClassifier):
    \"\"\"Reads nothing, and is not trained.\"\"\"

    name = "fixed"
    source = "here"
    recipe = None

    def __init__(self, *, emotions, size):
        super().__init__(emotions=emotions, size=size)

    def logits(self, pixels):
        return torch.zeros(len(pixels), len(self.emotions))
"""


def test_what_no_trainer_changes_is_run_once(tmp_path: Path) -> None:
    (tmp_path / "fixed.py").write_text(FIXED)
    both = '[model.ensemble]\nneeds = { members = ["resnet18", "fixed"] }\n'
    own = '[model.of-fixed]\nclass = "ensemble"\nneeds = { members = ["fixed"] }\n'
    row = '[model.fixed]\nclass = "fixed.py:Fixed"\n'
    rows = cells(planned(tmp_path, TINY + both + own + row + AXIS))
    assert [name for name in rows if "fixed" in name] == ["fixed", "of-fixed"]
    members = rows["ensemble@two"].needs["members"]
    assert members == [rows["resnet18@two"].fit_key, rows["fixed"].fit_key]
    with pytest.raises(SuiteError, match=r"\[model.fixed\]: is not trained, so that a trainer changes nothing of it"):
        planned(tmp_path, TINY + row + 'trainers = ["fp32"]\n' + AXIS)


def test_settings_are_chosen_under_each_trainer(tmp_path: Path) -> None:
    plan = planned(tmp_path, TINY.replace("lr = 0.02", "lr = { sweep = [0.01, 0.02] }") + AXIS)
    found = {group[0].setting_of: [cell.row for cell in group] for group in groups(plan.cells)}
    rows = ["resnet18[lr=0.01]", "resnet18[lr=0.02]"]
    assert found == {
        "resnet18": rows,
        "resnet18@amp": [f"{row}@amp" for row in rows],
        "resnet18@two": [f"{row}@two" for row in rows],
    }


def test_cross_validation_and_joint_fits_have_each_trainer(tmp_path: Path, made_suite: Path) -> None:
    data = TINY_DATA + "cross_validate = 4\n"
    for name in ("happy", "sad"):
        (tmp_path / "faces" / name).mkdir(parents=True)
    for place in range(40):
        noise = Image.effect_noise((32, 32), 60 + place)
        noise.save(tmp_path / "faces" / ("happy" if place % 2 else "sad") / f"{place}.png")
    data = 'seeds = [0]\n[data."folder:faces"]\nsize = 32\ncross_validate = 4\n[model.resnet18]\nepochs = 1\n'
    plan = planned(tmp_path, data + AXIS)
    for suffix in ("", "@amp", "@two"):
        *parts, whole = [cell for cell in plan.cells if cell.row == f"resnet18{suffix}"]
        assert [cell.part for cell in parts] == [0, 1, 2, 3]
        assert whole.needs == {"networks": [cell.fit_key for cell in parts]}
    suite = made_suite.read_text().replace(
        "[model.stargan]", '[model.stargan]\ntrain_on = ["synthetic-plain", "other"]'
    )
    suite = suite.replace(
        "[model.resnet18]",
        '[data.other]\nclass = "synthetic"\nsize = 32\ntrain = 80\nval = 80\ntest = 640\n[model.resnet18]',
    )
    joint = [cell for cell in planned(tmp_path, suite + AXIS).cells if cell.model == "stargan"]
    assert [(cell.row, cell.dataset) for cell in joint] == [
        (f"stargan{suffix}", name) for suffix in ("", "@amp", "@two") for name in ("synthetic-plain", "other")
    ]
    assert len({cell.fit_key for cell in joint}) == 3


# ---- the board -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the tiny suite under three trainers, one of which fails on no machine."""
    from emobench.cli import main

    folder = tmp_path_factory.mktemp("axis")
    suite = folder / "axis.toml"
    suite.write_text(TINY.replace("epochs = 4", "epochs = 2") + AXIS)
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(suite), "--results", str(folder / "results")])
    logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("results/cells/*/log.txt"))
    assert not stop.value.code, logs
    return folder / "results"


def test_tables_have_the_trainer(pair_once: Path) -> None:
    table = package.read_board(pair_once / "axis")
    assert list(table.columns[4:7]) == ["model", "variant", "trainer"]
    trained = table[(table.metric == "macro_f1") & table.seed.notna() & (table.emotion == "")]
    rows = {(row.model, row.trainer) for row in trained.itertuples()}
    assert rows == {*(("resnet18", name) for name in TRAINERS), ("control:permuted", "fp32")}
    majority = table[table.model == "control:majority"]
    assert len(majority) > 0
    assert set(majority.trainer) == {""}
    page = pages(pair_once / "axis")
    (header,) = [line for line in page.splitlines() if line.startswith("| rank: macro F1 |")]
    assert header.startswith("| rank: macro F1 | model | trainer | macro F1 |")
    for name, row in (("fp32", "resnet18"), ("amp", "resnet18@amp"), ("two", "resnet18@two")):
        assert f" | {row} | {name} | " in page
    stored = {cell.row: cell for cell in load_board(pair_once, "axis")}
    assert [cell.trainer for cell in stored.values()] == ["fp32", "amp", "two", "fp32"]
    costs = {row: cell.record.fit.cost for row, cell in stored.items()}  # type: ignore[union-attr]
    assert [costs[row].precision for row in ("resnet18", "resnet18@amp")] == ["32-true", "bf16-mixed"]
    assert costs["resnet18@two"].steps == 2 * (80 // 32)
    assert package.load(pair_once, "axis", "resnet18@two").emotions


def test_a_table_compares_each_row_with_the_first_trainers(pair_once: Path) -> None:
    found = json.loads((pair_once / "axis" / "metrics.json").read_text())
    assert [(each["row"], each["under_first"], each["trainer"]) for each in found["trainers"]] == [
        ("resnet18", "resnet18", "fp32"),
        ("resnet18@amp", "resnet18", "amp"),
        ("resnet18@two", "resnet18", "two"),
    ]
    first, amp, two = found["trainers"]
    assert amp["options"] == {"precision": "bf16-mixed"}
    assert two["options"] == {"devices": 2, "accelerator": "cpu"}
    records = {cell.row: cell.record for cell in load_board(pair_once, "axis")}
    speeds = {row: record.fit.cost.fit_faces_per_s for row, record in records.items()}  # type: ignore[union-attr]
    machines = {row: record.fit.hardware for row, record in records.items()}  # type: ignore[union-attr]
    assert amp["fit_faces_per_s"] == pytest.approx(speeds["resnet18@amp"])
    assert amp["of_the_firsts_speed"] == pytest.approx(speeds["resnet18@amp"] / speeds["resnet18"])
    assert (first["of_the_firsts_speed"], first["scaling"], amp["scaling"]) == (None, None, None)
    one, both = machines["resnet18"], machines["resnet18@two"]
    cores = [min(number, one.cores) for number in (one.threads or 0, 2 * (both.threads or 0))]
    assert two["scaling"] == pytest.approx(speeds["resnet18@two"] / speeds["resnet18"] * cores[0] / cores[1])


@pytest.mark.parametrize(
    ("cores", "threads", "gpu", "faces_per_s", "speed", "scaling"),
    [
        (2, (2, 1), (None, None), (100.0, 90.0), 0.9, 0.9),  # --per-node 1: both have both cores
        (2, (1, 1), (None, None), (100.0, 160.0), 1.6, 0.8),  # --per-node 2: the first has one core alone
        (3, (3, 1), (None, None), (150.0, 90.0), None, 0.9),  # two processes leave one of three cores idle
        (1, (1, 1), (None, None), (100.0, 80.0), 0.8, 0.8),  # two processes on one core
        (8, (8, 4), ("a GPU", "a GPU"), (100.0, 180.0), 1.8, 0.9),
        (8, (8, 4), ("a GPU", "another"), (100.0, 180.0), None, None),
        (8, (8, 4), ("a GPU", None), (100.0, 180.0), None, None),
    ],
)
def test_cores_compare_on_a_cpu_and_devices_elsewhere(
    pair_once: Path,
    cores: int,
    threads: tuple[int, int],
    gpu: tuple[str | None, str | None],
    faces_per_s: tuple[float, float],
    speed: float | None,
    scaling: float | None,
) -> None:
    stored = load_board(pair_once, "axis")
    for row, number, device, faces in zip(("resnet18", "resnet18@two"), threads, gpu, faces_per_s, strict=True):
        (place,) = [place for place, cell in enumerate(stored) if cell.row == row and cell.control is None]
        record: Any = stored[place].record
        hardware = record.fit.hardware.model_copy(update={"cores": cores, "threads": number, "gpu": device})
        cost = record.fit.cost.model_copy(update={"fit_faces_per_s": faces})
        fit = record.fit.model_copy(update={"hardware": hardware, "cost": cost})
        stored[place] = dataclasses.replace(stored[place], record=record.model_copy(update={"fit": fit}))
    (section,) = sections("axis", stored, [tracks()["recognition"]])
    (two,) = [each for each in against(section) if each.entry.trainer == "two"]
    assert (two.speed, two.scaling) == (speed and pytest.approx(speed), scaling and pytest.approx(scaling))


def test_the_difference_is_that_of_the_comparison_that_ranks(pair_once: Path) -> None:
    table = package.read_board(pair_once / "axis")
    scores = table[(table.metric == "macro_f1") & table.seed.isna() & (table.model == "resnet18")]
    of = scores.set_index("trainer")["value"]
    pairs = json.loads((pair_once / "axis" / "metrics.json").read_text())["comparisons"]
    lines = pages(pair_once / "axis").split("### Trainers")[1].split("###")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| resnet18")]
    assert [line[1] for line in cells] == list(TRAINERS)
    assert cells[0][4] == "–"
    for line in cells[1:]:
        shown = f"{of[line[1]] - of['fp32']:.3f}".replace("-", "−")
        (pair,) = [each for each in pairs if {each["first"], each["second"]} == {"resnet18", f"resnet18@{line[1]}"}]
        sign = -1 if pair["first"] == "resnet18" else 1
        low, high = sorted((sign * pair["low"], sign * pair["high"]))
        bounds = f"({low:.3f} to {high:.3f})".replace("-", "−")
        assert line[4].replace("\N{NO-BREAK SPACE}", " ").startswith(f"{shown} {bounds}"), line
        assert ("not told apart" in line[4]) != pair["certain"]


def test_a_board_without_the_column_is_read(pair_once: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    now = package.read_board(pair_once / "axis")
    pd.read_csv(pair_once / "axis" / "metrics.csv", keep_default_na=False).drop(columns="trainer").to_csv(
        tmp_path / "old" / "metrics.csv", index=False
    )
    before = package.read_board(tmp_path / "old")
    assert set(before.trainer) == {""}
    assert set(before.columns) == set(now.columns)


def test_records_do_not_hold_what_a_suite_calls_a_trainer(pair_once: Path) -> None:
    for cell in load_board(pair_once, "axis"):
        assert cell.record is not None
        assert "trained_by" not in read_record(pair_once / "cells" / cell.fit_key / "fit.json").cell.model_dump()
        assert math.isfinite(cell.record.fit.cost.peak_memory_gb)  # type: ignore[union-attr, arg-type]


Emobench = Callable[..., int]


def test_no_other_board_speaks_of_trainers(tiny_results: Path) -> None:
    page: Any = pages(tiny_results / "tiny")
    assert "trainer" not in page.lower()
    assert "trainers" not in json.loads((tiny_results / "tiny" / "metrics.json").read_text())
    assert set(package.read_board(tiny_results / "tiny").trainer) == {""}


def test_work_on_the_processor_is_not_said_to_be_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a GPU a trainer may have the processor alone: its costs do not compare with those of the GPU."""
    both = Hardware(device="cuda", cpu="a processor", cores=8, gpu="a GPU", memory_gb=1.0)
    monkeypatch.setattr(machine, "_machine", lambda: both)
    assert machine.hardware().named == machine.hardware("cuda").named == "a GPU"
    assert machine.hardware("cpu").named.startswith("a processor, ")
    assert machine.hardware("cpu").device == "cpu"
