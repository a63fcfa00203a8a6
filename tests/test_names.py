"""Whose a board is, and what it is called: one suite file and what is overridden, names with dots and blanks."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RESULTS, TINY
from PIL import Image
from reading import pages

import emobench as package
from emobench.cli import main
from emobench.errors import StoreError, SuiteError
from emobench.files import read_json
from emobench.runner.store import Origin, check_owner, load_board
from emobench.suite.file import PACKAGED, load, packaged
from emobench.suite.overrides import LONGEST, board_name, parsed

Emobench = Callable[..., int]
REPOSITORY = Path(__file__).parents[1]
SHORT = TINY.replace("epochs = 4", "epochs = 1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite and its results."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(SHORT)
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(folder / "tiny.toml"), "--results", str(folder / "results")])
    assert not stop.value.code
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "home")
    return tmp_path / "home"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "demo"),
        (["model.vit.lr=3e-5"], "demo+model.vit.lr=3e-5"),
        (["seeds=[0, 1]", "model.vit.lr = 3e-5"], "demo+model.vit.lr=3e-5+seeds=[0,1]"),
        (["model.vit.lr=1", "model.vit={ lr = 2 }"], "demo+model.vit=__lr__2_-"),
        (['model.vit.schedule="step"'], "demo+model.vit.schedule=step"),
        (["model.vit.schedule=step"], "demo+model.vit.schedule=step"),
        (['model."timm:x=y".lr=0.1'], "demo+model.timm_x=y.lr=0.1-"),
        (["evaluation.lpips=/home/me/../vgg 16.pth"], "demo+evaluation.lpips=_home_me_.._vgg_16.pth-"),
        ([f"model.row{place}.epochs={place}" for place in range(20)], "demo+model.row0.epochs=0+model.row1.epochs=1+"),
    ],
)
def test_a_board_is_named_after_what_is_overridden(overrides: list[str], name: str) -> None:
    found = board_name("demo", parsed(overrides))
    if name.endswith(("-", "+")):  # a hash follows
        assert found.startswith(name)
        assert len(found.rpartition("-")[2]) == 8
    else:
        assert found == name
    assert len(found.encode()) <= LONGEST
    assert not set(found) & set('/\\:*?"<>| {}')


def test_the_order_of_overrides_counts_only_where_it_changes_something() -> None:
    one, two = "model.vit.lr=1", "seeds=[1]"
    assert board_name("s", parsed([one, two])) == board_name("s", parsed([two, one]))
    table = "model.vit={ epochs = 3 }"
    assert [str(each) for each in parsed([one, table])] == [table]  # the table replaces what was set in it
    assert [str(each) for each in parsed([table, one])] == [table, one]
    with pytest.raises(SuiteError, match=r"--set model.vit.lr=1 and --set model.vit.lr=2: one key, set twice"):
        parsed([one, "model.vit.lr=2"])  # of two values neither is what the user surely meant


def test_other_overrides_are_other_boards() -> None:
    sets = [
        [], ["a=1"], ["a=2"], ["a=1", "b=2"], ["a=1+b=2"], ["a='1 2'"], ["a=1_2"], ["a=1/2"], ["a=1:2"],
        [f"a={'x' * 200}y"], [f"a={'x' * 200}z"],
    ]  # fmt: skip
    assert len({board_name("s", parsed(each)) for each in sets}) == len(sets)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nonsense", "expected KEY=VALUE"),
        ("=3", "is not a key"),
        ("model.timm:x.lr=3", "quote names with a colon"),
        ("seeds.x=3", "`seeds` is no table"),
    ],
)
def test_what_is_no_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    with pytest.raises(SuiteError, match=message):
        load(tmp_path / "tiny.toml", [override])


def test_overrides_never_touch_the_board_without(
    emobench: Emobench, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(home / "results" / "tiny")
    options = ["--set", "model.resnet18.schedule='one of'", "--set", "data.synthetic-plain.test=160"]
    monkeypatch.chdir(home)
    assert emobench("bench", "tiny.toml", *options) == 2  # no such schedule
    options[1] = 'model.resnet18.schedule="onecycle"'
    capsys.readouterr()
    assert emobench("bench", "tiny.toml", *options) == 0
    name = "tiny+data.synthetic-plain.test=160+model.resnet18.schedule=onecycle"
    shown = capsys.readouterr().out
    said = 'with data.synthetic-plain.test=160, model.resnet18.schedule="onecycle": the board is ' + name
    assert said in shown
    assert contents(home / "results" / "tiny") == before
    record = read_json(home / "results" / name / "suite.json")
    assert (record["suite"], record["file"]) == (name, "tiny.toml")
    assert record["overrides"] == ["data.synthetic-plain.test=160", 'model.resnet18.schedule="onecycle"']

    page = pages(home / "results" / name)
    (line,) = {line for line in page.splitlines() if line.startswith("- To repeat: ")}
    repeat, again = line.split("`")[1::2]
    assert shlex.split(again) == ["emobench", "report", name]
    capsys.readouterr()
    assert emobench(*shlex.split(repeat)[1:]) == 0
    assert f"2 of 2 cells are done; the board is results/{name}/leaderboard.md" in capsys.readouterr().out
    assert emobench(*shlex.split(again)[1:]) == 0
    Image.new("L", (32, 32)).save(home / "face.png")
    assert emobench("predict", f"best:{name}/synthetic-plain", "face.png") == 0
    assert emobench("predict", f"{name}/synthetic-plain/resnet18", "face.png") == 0
    assert package.load("results", name, "resnet18").emotions[0] == "neutral"
    assert contents(home / "results" / "tiny") == before


def test_names_with_dots_and_blanks_are_whole_everywhere(
    emobench: Emobench, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    names = ["lr0", "lr0.001", "my suite.v1"]
    for name in names:
        shutil.copy("tiny.toml", f"{name}.toml")
        assert emobench("bench", f"{name}.toml") == 0
        assert json.loads(Path("results", name, "metrics.json").read_text())["suite"] == name
    Image.new("L", (32, 32)).save("face.png")
    for name in names:
        others = {other: contents(Path("results", other)) for other in names if other != name}
        page = Path("results", name, "leaderboard.md")
        for word in (name, f"{name}.toml", f"results/{name}/"):
            page.unlink()
            assert emobench("report", word) == 0
            assert page.exists()
        assert {other: contents(Path("results", other)) for other in others} == others
        assert emobench("predict", f"best:{name}/synthetic-plain", "face.png") == 0
        assert package.load("results", name, "resnet18").name == "resnet18"
    assert "`emobench bench 'my suite.v1.toml'`" in page.read_text()
    capsys.readouterr()
    assert emobench("report", "lr0.01") == 2
    assert "Boards that are here: lr0, lr0.001, my suite.v1, tiny" in capsys.readouterr().err


def test_a_second_file_of_one_name_is_refused(
    emobench: Emobench, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = home / "results"
    before = contents(results / "tiny")
    (home / "other").mkdir()
    second = home / "other" / "tiny.toml"
    second.write_text(SHORT)
    assert emobench("bench", second, "--results", results) == 2
    shown = capsys.readouterr().err
    assert "is the board of `emobench bench tiny.toml`, and not of this suite" in shown
    assert "--name tiny-2" in shown
    assert contents(results / "tiny") == before
    assert emobench("bench", second, "--name", "tiny-2", "--results", results) == 0
    assert contents(results / "tiny") == before
    assert Origin.recorded(results, "tiny-2") == Origin("other/tiny.toml", [])
    assert "`emobench bench other/tiny.toml --name tiny-2`" in pages(results / "tiny-2")
    assert emobench("bench", home / "tiny.toml", "--name", "tiny-2", "--results", results) == 2
    changed = ["--set", "model.resnet18.lr=0.01", "--dry-run"]
    assert emobench("bench", second, *changed, "--name", "tiny-2", "--results", results) == 2
    for name in ("cells", "judges", "a/b", "..", ".hidden", "", "x" * 200):
        assert emobench("bench", second, "--name", name, "--results", results) == 2
        assert "name" in capsys.readouterr().err

    # The same file: edited, by another path, or moved with its results or alone.
    (home / "link.toml").symlink_to(home / "tiny.toml")
    (home / "tiny.toml").write_text(SHORT + "# edited\n")
    assert emobench("bench", home / "other" / ".." / "tiny.toml", "--results", results) == 0
    moved = home.rename(home.with_name("moved"))
    assert emobench("bench", moved / "tiny.toml", "--results", moved / "results") == 0
    (moved / "tiny.toml").rename(moved / "other" / "tiny.toml")
    assert emobench("bench", moved / "other" / "tiny.toml", "--results", moved / "results") == 0
    assert Origin.recorded(moved / "results", "tiny") == Origin("other/tiny.toml", [])


def test_committed_boards_are_those_of_their_suites(tmp_path: Path) -> None:
    """They were written before boards said whose they are."""
    results, suites = tmp_path / "results", tmp_path / "benchmarks"
    suites.mkdir()
    for name in ("reference-recognition", "demo"):
        (results / name).mkdir(parents=True)
        record = json.loads((RESULTS / name / "suite.json").read_text())
        (results / name / "suite.json").write_text(
            json.dumps({key: value for key, value in record.items() if key not in ("file", "overrides")})
        )
    shutil.copy(REPOSITORY / "benchmarks" / "reference-recognition.toml", suites)
    (tmp_path / "demo.toml").write_text(TINY)
    check_owner(results, load(suites / "reference-recognition.toml"))
    check_owner(results, load("demo"))
    assert Origin.recorded(results, "demo").command("demo") == "emobench bench demo"
    command = Origin.recorded(results, "reference-recognition").command("reference-recognition")
    assert command == "emobench bench benchmarks/reference-recognition.toml"
    shutil.copy(suites / "reference-recognition.toml", tmp_path)
    for other in ("demo.toml", "reference-recognition.toml"):
        with pytest.raises(StoreError, match="and not of this suite"):
            check_owner(results, load(tmp_path / other))
        check_owner(results, load(tmp_path / other, name="mine"))


def test_a_bare_name_is_a_suite_of_the_package(
    emobench: Emobench, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    papers = ("cnn21", "cvae-stylegan", "edits", "style", "vit", "vit-cvae")
    assert packaged() == ["demo", "full", "gpu", *(f"paper-{each}" for each in papers), "smoke"]
    assert emobench("bench", "smoke", "--dry-run") == 0
    assert "smoke: 4 cells, 4 to run" in capsys.readouterr().out
    (tmp_path / "mine.toml").write_text(TINY)
    assert emobench("bench", "mine", "--dry-run") == 2
    shown = capsys.readouterr().err
    assert "unknown suite 'mine'" in shown
    assert "named by its path, such as mine.toml" in shown
    assert emobench("bench", "./mine.toml", "--dry-run") == 0
    assert load(PACKAGED / "smoke.toml").model == load("smoke").model


def test_trusted_cells_of_the_board_without_overrides_are_trusted_with_them(
    emobench: Emobench, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = home / "results"
    shutil.rmtree(results / "cells")
    more = ["--set", "seeds=[0, 1]", "--on-existing", "trust", "--results", results]
    assert emobench("bench", home / "tiny.toml", *more, "--dry-run") == 0
    assert "tiny+seeds=[0,1]: 3 cells, 1 to run, 2 done" in capsys.readouterr().out
    assert emobench("bench", home / "tiny.toml", *more) == 0
    assert [row.state for row in load_board(results, "tiny+seeds=[0,1]")] == ["done"] * 3
    assert len(list(results.glob("tiny+*/cells/*/result.json"))) == 3
