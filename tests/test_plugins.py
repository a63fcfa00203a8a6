"""Models and datasets outside the package: found in three ways, run as any other, passed over where broken."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from reading import pages
from toys import installed

import emobench as package
from emobench.errors import EmobenchError, StoreError, SuiteError
from emobench.files import write_json
from emobench.runner.record import read_record
from emobench.runner.run import Job
from emobench.runner.store import Store, load_board
from emobench.suite import plugins
from emobench.suite.catalog import broken, classes, resolve, tracks
from emobench.suite.expand import expand
from emobench.suite.file import load

Emobench = Callable[..., int]

MODEL = '''
from collections.abc import Sequence
from typing import ClassVar, Unpack

from torch import Tensor, nn

from emobench.classifiers.classifier import EmotionClassifier, TrainingArguments
from emobench.recipe import Recipe
{imports}

class {cls}(EmotionClassifier):
    """One convolution and a linear head."""

    name = "{name}"
    source = "these tests"
    recipe = Recipe(batch=16, epochs=1)
    defaults: ClassVar[TrainingArguments] = {{"optimizer": "adamw", "lr": 1e-3}}

    def __init__(
        self, *, emotions: Sequence[str], size: int, channels: int = 4, **training: Unpack[TrainingArguments]
    ) -> None:
        super().__init__(emotions=emotions, size=size, **training)
        self.body = nn.Conv2d(3, channels, 3, stride=2)
        self.head = nn.Linear(channels, len(self.emotions))

    def logits(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(pixels).relu().mean((2, 3)))
'''

DATASET = '''
from emobench.data.datasets.synthetic import Synthetic


class Drawn(Synthetic):
    """Drawn faces under another name."""

    name = "drawn"
    variants = {}
'''


def model(path: Path, cls: str, name: str, imports: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MODEL.format(cls=cls, name=name, imports=imports))
    return path


SUITE = """
[data.drawn]
class = "mine/data.py:Drawn"
size = 32
train = 80
val = 80
test = 80

[model.small]
class = "mine/models.py:Small"

[model.from_folder]

[model.installed]
"""


@pytest.fixture
def three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite whose classes all lie outside the package."""
    model(tmp_path / "mine" / "models.py", "Small", "small", "from beside import BESIDE")
    (tmp_path / "mine" / "beside.py").write_text("BESIDE = 1\n")
    (tmp_path / "mine" / "data.py").write_text(DATASET)
    model(tmp_path / "folder" / "more.py", "More", "from_folder")
    model(tmp_path / "site" / "installed_plugin.py", "Installed", "installed")
    monkeypatch.syspath_prepend(str(installed(tmp_path / "site", {}, ["installed_plugin"])))
    monkeypatch.setenv("EMOBENCH_PLUGINS", str(tmp_path / "folder"))
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path / "mine.toml"


def test_a_change_beside_a_users_class_renews_the_plan(three_ways: Path) -> None:
    folder = three_ways.parent / "mine"
    text = (folder / "models.py").read_text().replace("Conv2d(3, channels,", "Conv2d(3, channels * BESIDE,")
    (folder / "models.py").write_text(text.replace("nn.Linear(channels,", "nn.Linear(channels * BESIDE,"))
    plan = expand(load(three_ways), three_ways.parent)
    behind = {folder / name for name in ("models.py", "beside.py", "data.py")}
    assert {str(path.resolve()) for path in behind} <= plan.listings.keys()


def test_classes_found_in_three_ways_run_as_any_other(
    emobench: Emobench,
    three_ways: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = tmp_path / "results"
    assert emobench("models") == 0
    shown = capsys.readouterr().out
    assert "from_folder" in shown
    assert "installed" in shown
    assert emobench("models", "from_folder") == 0
    assert re.search(r"^channels +4 ", capsys.readouterr().out, re.MULTILINE)
    assert emobench("bench", three_ways, "--results", results) == 0, capsys.readouterr()
    board = {row.row: row for row in load_board(results, "mine")}
    assert {name: row.state for name, row in board.items()} == dict.fromkeys(
        ("small", "from_folder", "installed", "control:permuted"), "done"
    )
    assert all(row.stale is None for row in board.values())
    assert (board["small"].model, board["small"].variant) == ("small", "")  # no path on the board
    assert str(tmp_path) not in pages(results / "mine")
    fit = read_record(Store(results).fit_folder(board["small"].fit_key) / "fit.json")
    assert list(fit.cell.sources) == ["models.py:Small", "data.py:Drawn"]
    assert fit.made_of.fit["model"] == "small"
    monkeypatch.delenv("EMOBENCH_PLUGINS")
    for row in ("small", "from_folder", "installed"):
        assert package.load(results, "mine", row).name == row
    (tmp_path / "folder").rename(tmp_path / "moved")
    for name in [name for name in sys.modules if name.startswith("emobench_plugin_more_")]:
        del sys.modules[name]
    with pytest.raises(StoreError, match=r"more\.py:More: not found at .*EMOBENCH_PLUGINS"):
        package.load(results, "mine", "from_folder")
    capsys.readouterr()
    Image.new("L", (32, 32)).save(tmp_path / "face.png")
    for row, code, said in (
        ("from_folder", 2, "more.py:More: not found at "),  # not that it reads no faces
        ("small", 0, "read by small"),
        ("smal", 2, "did you mean 'mine/"),
    ):
        run = ["predict", f"mine/{board['small'].dataset}/{row}", tmp_path / "face.png", "--results", results]
        assert emobench(*run) == code
        assert said in capsys.readouterr().err
    monkeypatch.setenv("EMOBENCH_PLUGINS", str(tmp_path / "moved" / "more.py"))
    assert package.load(results, "mine", "from_folder").name == "from_folder"
    as_a_stranger(monkeypatch, tmp_path)
    with pytest.raises(StoreError, match=r"models\.py: a record names this file .* name it in EMOBENCH_PLUGINS"):
        package.load(results, "mine", "small")
    assert not [name for name in sys.modules if name.startswith("emobench_plugin_models_")]
    monkeypatch.setenv("EMOBENCH_PLUGINS", str(tmp_path / "mine" / "models.py"))
    assert package.load(results, "mine", "small").name == "small"


def as_a_stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From now on no file has been named by this account."""
    monkeypatch.delenv("EMOBENCH_PLUGINS", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of a stranger"))
    monkeypatch.setattr(plugins, "_named", set())
    monkeypatch.setattr(plugins, "_of_suite", {})
    for name in [name for name in sys.modules if name.startswith("emobench_plugin_")]:
        monkeypatch.delitem(sys.modules, name)


def test_no_code_runs_because_a_record_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_a_stranger(monkeypatch, tmp_path)
    path = tmp_path / "theirs.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs:\n    name = 'theirs'\n")
    named = {"theirs.py:Theirs": {"path": str(path), "sha256": "0" * 64}}
    with pytest.raises(StoreError, match="a record names this file of code"):
        plugins.class_of("theirs.py:Theirs", named)
    assert not (tmp_path / "ran").exists()
    for name, places in (("os:system", {}), ("os:system", {"os:system": {"path": os.__file__, "sha256": ""}})):
        with pytest.raises(StoreError):
            plugins.class_of(name, places)
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(StoreError, match="not found"):
        plugins.class_of("pipe.py:Theirs", {"pipe.py:Theirs": {"path": str(tmp_path / "pipe.py"), "sha256": ""}})
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.delenv("XDG_STATE_HOME")
    with pytest.raises(StoreError, match="a record names this file of code"):
        plugins.class_of("theirs.py:Theirs", named)
    plugins.load(path)  # the user names it; nothing can be remembered, and this process goes on
    assert plugins.class_of("theirs.py:Theirs", named).name == "theirs"


def test_a_board_runs_no_file_that_it_alone_names(
    tiny_results: Path,
    tmp_path: Path,
    emobench: Emobench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    as_a_stranger(monkeypatch, tmp_path)
    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    suite = json.loads((results / "tiny" / "suite.json").read_text())
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (results / "tiny" / "suite.json").write_text(json.dumps({**suite, "plugins": ["theirs.py"]}))
    assert emobench("report", "tiny", "--results", results) == 0
    page = pages(results / "tiny")
    assert "a record names this file of code" in page
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_cell_that_starts_cold_finds_its_classes(three_ways: Path, tmp_path: Path) -> None:
    cell = next(cell for cell in expand(load(three_ways), tmp_path).cells if cell.row == "small")
    write_json(tmp_path / "job.json", {"schema_version": 1, **Job(cell, tmp_path / "results", tmp_path).plain()})
    command = [sys.executable, "-m", "emobench", "cell", str(tmp_path / "job.json")]
    environment = {name: value for name, value in os.environ.items() if name != "EMOBENCH_PLUGINS"}
    subprocess.run(command, check=True, timeout=280, env=environment)
    folder = Store(tmp_path / "results").fit_folder(cell.fit_key)
    assert read_record(folder / cell.eval_key / "result.json").state == "done"


def test_where_a_file_lies_is_in_no_key_and_what_it_says_is(three_ways: Path, tmp_path: Path) -> None:
    def keys(suite: Path) -> dict[str, str]:
        return {cell.row: cell.fit_key for cell in expand(load(suite), tmp_path).cells}

    before = keys(three_ways)
    shutil.copytree(tmp_path / "mine", tmp_path / "elsewhere" / "mine")
    shutil.copy(three_ways, tmp_path / "elsewhere" / "mine.toml")
    assert keys(tmp_path / "elsewhere" / "mine.toml") == before
    changed = tmp_path / "mine" / "models.py"
    changed.write_text(changed.read_text().replace("stride=2", "stride=1"))
    after = keys(three_ways)
    assert after["small"] != before["small"]
    assert after["installed"] == before["installed"]
    changed = tmp_path / "folder" / "more.py"
    changed.write_text(changed.read_text().replace("stride=2", "stride=1"))
    assert keys(three_ways)["from_folder"] != before["from_folder"]
    assert plugins.source_of(resolve("model", "from_folder")[0]) == changed


def test_a_file_that_changes_while_a_sweep_runs_stops_its_cells(three_ways: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "models.py"
    planned = plugins.load(path)
    digest = vars(planned)["sha256_of_file"]
    path.write_text(path.read_text() + "\n# edited\n")
    assert plugins.load(path, digest) is planned  # imported before the edit, as in cells of a server that has it
    del sys.modules[planned.__name__]
    with pytest.raises(EmobenchError, match="changed while the sweep ran"):
        plugins.load(path, digest)
    assert plugins.load(path) is not planned


METRIC = """
import numpy as np
from emobench.evaluation.tracks.track import Metric

sure = Metric("sure", "recognition", "Sure", lambda faces: np.ones(len(faces.labels)))
"""


def test_cells_are_measured_by_the_files_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where `EMOBENCH_PLUGINS` names one that adds a metric, and it is edited once it was imported."""
    metric, other = tmp_path / "folder" / "metric.py", model(tmp_path / "folder" / "models.py", "Small", "small")
    metric.write_text(METRIC)
    monkeypatch.setenv("EMOBENCH_PLUGINS", str(tmp_path / "folder"))
    assert "sure" in {each.name for each in tracks()["recognition"].metrics}
    planned = plugins.used()
    assert planned == {str(metric): hashlib.sha256(metric.read_bytes()).hexdigest()}
    metric.write_text(METRIC.replace('"sure"', '"surer"'))
    other.write_text(other.read_text() + "# edited\n")
    try:
        plugins.use(planned)
        assert "sure" in {each.name for each in tracks()["recognition"].metrics}
        del sys.modules[plugins.load(metric).__name__]  # as in a process that started cold
        with pytest.raises(EmobenchError, match=r"metric\.py changed while the sweep ran"):
            plugins.use(planned)
        metric.unlink()
        with pytest.raises(SuiteError, match=r"metric\.py: no such file; put it there"):
            plugins.use(planned, "put it there")
    finally:
        plugins.use({})
    metric.write_text(METRIC.replace('"sure"', '"surer"'))
    assert "surer" in {each.name for each in tracks()["recognition"].metrics}


BROKEN = {
    "syntax": ("x = 1\ndef f(:\n", "line 2: SyntaxError"),
    "missing module": ("import os\n\nimport no_such_module\n", "line 3: ModuleNotFoundError: No module named"),
    "raises": ("def f():\n    raise ValueError('so')\n\nf()\n", "line 2: ValueError: so"),
    "exits": ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
    "no base": ("class Small:\n    name = 'small'\n    recipe = None\n", "line 1: TypeError: Small has no `family`"),
    "unknown type": (
        MODEL.format(cls="Small", name="small", imports="").replace("channels: int", "channels: Unknown"),
        "line 11: NameError: name 'Unknown' is not defined",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_and_passed_over(
    emobench: Emobench,
    tiny: Path,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, reason = BROKEN[kind]
    file = tmp_path / "broken.py"
    file.write_text(text)
    model(tmp_path / "good.py", "Good", "good")
    monkeypatch.setenv("EMOBENCH_PLUGINS", os.pathsep.join([str(file), str(tmp_path / "good.py")]))
    named = f"{file}, {reason}"
    assert [str(each).startswith(named) for each in broken("model")] == [True]
    assert {"good", "vit"} <= classes("model").keys()
    assert emobench("models") == 0
    shown = capsys.readouterr()
    assert "good" in shown.out
    assert named in shown.err
    assert emobench("doctor", "--data", tmp_path) == 0
    assert named in capsys.readouterr().out
    assert emobench("bench", tiny, "--dry-run", "--results", tmp_path / "results") == 0
    shown = capsys.readouterr()
    assert "2 cells, 2 to run" in shown.out
    assert named in shown.err
    for wanted in ('[model.small]\nclass = "broken.py:Small"\n', "[model.small]\n"):
        refused = tmp_path / "refused.toml"
        refused.write_text(f"{tiny.read_text()}\n{wanted}")
        assert emobench("bench", refused, "--results", tmp_path / "results") == 2
        assert named in capsys.readouterr().err


def test_files_and_classes_that_are_not_there_are_refused(tiny: Path, tmp_path: Path) -> None:
    model(tmp_path / "good.py", "Good", "good")
    (tmp_path / "mine.py").write_text(
        "from emobench.classifiers.resnet import ResNet18\n\n\nclass Mine(ResNet18): pass\n"
    )
    for reference, message in {
        "mine.py:Mine": 'Mine has no `name` of its own. Give it one, such as `name = "mine"`: boards show it',
        "gone.py:Small": f"{tmp_path / 'gone.py'}: no such file",
        "good.py:Goot": "unknown model class 'Goot': did you mean 'Good'?",
    }.items():
        with pytest.raises(SuiteError) as refused:
            expand(load(tiny, [f"model.x.class='{reference}'"]), tmp_path)
        assert message in str(refused.value)
    with pytest.raises(SuiteError, match="unknown dataset class 'Good'"):
        expand(load(tiny, ["data.x.class='good.py:Good'"]), tmp_path)


ONE_AFTER_THE_OTHER = """
import contextlib, io, sys
from emobench.cli import main

for suite in sys.argv[1:]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main(["bench", suite, "--results", "results"])
    except SystemExit as stop:
        print("\\f", stop.code or 0, "\\n", said.getvalue(), sep="", file=sys.stderr)
"""


@pytest.mark.slow
def test_a_broken_file_of_the_package_costs_only_its_own_class(tiny: Path, tmp_path: Path) -> None:
    """A copy of the package with an edit that went wrong; the fork server imports the same files."""
    shutil.copytree(Path(package.__file__).parent, tmp_path / "copy" / "emobench")
    file = tmp_path / "copy" / "emobench" / "classifiers" / "vit.py"
    file.write_text(file.read_text() + "\nraise RuntimeError('half edited')\n")
    tiny.write_text(tiny.read_text().replace("epochs = 4", "epochs = 1"))
    (tmp_path / "refused.toml").write_text(tiny.read_text() + "[model.vit]\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "copy")}
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, str(tiny), str(tmp_path / "refused.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    named = f"{file}, line {len(file.read_text().splitlines())}: RuntimeError: half edited"
    (code, said), (refused, why) = (part.split("\n", 1) for part in ended.stderr.split("\f")[1:])
    assert code == "0", said
    assert f"passed over {named}" in said
    states = [read_record(path).state for path in tmp_path.glob("results/cells/*/*/result.json")]
    assert states == ["done", "done"]
    assert refused == "2"
    assert named in why
