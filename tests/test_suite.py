"""Suites: what is refused before anything starts, and what a key depends on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emobench.data.content import contents
from emobench.definitions import Code
from emobench.errors import EmobenchError, SizeError, SuiteError, WeightsError
from emobench.suite.cell import Plan
from emobench.suite.expand import expand
from emobench.suite.file import load
from emobench.suite.rows import datasets_of


def add(path: Path, *tables: str) -> None:
    """Append tables to a suite file."""
    path.write_text("\n".join([path.read_text(), *tables]) + "\n")


def planned(path: Path, *overrides: str) -> Plan:
    return expand(load(path, overrides), path.parent / "data")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.resnet81.lr=0.1", "unknown model 'resnet81': did you mean 'resnet18'?"),
        ("model.resnet18.widht=0.5", "unknown argument 'widht': did you mean 'width'?"),
        ("model.resnet18.epoch=3", "unknown argument 'epoch': did you mean 'epochs'?"),
        ("model.resnet18.lr='0.1'", "lr = '0.1' does not fit"),
        ("model.resnet18.lr=-0.1", "lr = -0.1 does not fit (Input should be greater than 0)"),
        ("model.resnet18.batch=0", "batch = 0 does not fit"),
        ("model.resnet18.optimizer='adamx'", 'expected "sgd", "adam" or "adamw"'),
        ("model.resnet18.augment.rotatoin=3", "did you mean 'rotation'?"),
        ("data.synthetic-plane.size=32", "did you mean 'synthetic-plain'?"),
        ("data.synthetic-plain.trian=80", "did you mean 'train'?"),
        ("trainer.percision='bf16-mixed'", "did you mean 'precision'?"),
        ("trainer.max_epochs=3", "max_epochs is set by emobench; use the row's `epochs`"),
        ("model.resnet18.trainer.percision='bf16-mixed'", "did you mean 'precision'?"),
        ("sedes=[1]", "unknown table 'sedes': did you mean 'seeds'?"),
        ("seeds='one'", "seeds"),
        ("model.ensemble.needs.members=['resnet18', 'vgg61']", "unknown members row 'vgg61'"),
        ("model.ensemble.weights='x'", "unknown argument 'weights'"),
        ("model.resnet18.needs.guide='resnet18'", "unknown need 'guide'"),
        ("nonsense", "expected KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_refused_with_the_right_name(tiny: Path, override: str, message: str) -> None:
    with pytest.raises(SuiteError) as refused:
        planned(tiny, override)
    assert message in str(refused.value)


def test_the_last_cell_is_checked_before_the_first_starts(
    emobench: Callable[..., int], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(tiny.read_text() + '\n[model."timm:resnet10"]\n')
    results = tmp_path / "results"
    assert emobench("bench", tiny, "--results", results) == 2
    assert "resnet10t" in capsys.readouterr().err
    assert not list(results.glob("cells/*/fit.json"))


def test_both_budgets_are_refused(tiny: Path) -> None:
    with pytest.raises(SuiteError, match="both epochs and steps"):
        planned(tiny, "model.resnet18.steps=3")


def test_one_budget_replaces_the_other_of_the_recipe(tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("epochs = 4", "steps = 40"))
    recipe = planned(tiny).cells[0].fit["recipe"]
    assert (recipe["epochs"], recipe["steps"]) == (None, 40)


def test_a_size_that_the_model_cannot_take_is_refused(tiny: Path) -> None:
    with pytest.raises(SizeError, match="from 94 px on"):
        planned(tiny, "model.cnn21.size=48")


def test_missing_weights_are_named_with_the_remedy(tiny: Path, tmp_path: Path) -> None:
    weights = tmp_path / "gone.pth"
    with pytest.raises(WeightsError) as refused:
        planned(tiny, "model.resnet18.width=1.0", f"model.resnet18.weights='{weights}'")
    assert str(weights) in str(refused.value)
    assert "Check the path" in str(refused.value)


def test_an_optional_row_without_its_weights_is_listed_and_skipped(tiny: Path) -> None:
    add(
        tiny,
        '[model.pretrained]\nclass = "vit"\noptional = true',
        '[model.ensemble]\nneeds = { members = ["pretrained", "resnet18"] }',
    )
    plan = planned(tiny)
    assert [skipped.row for skipped in plan.skipped] == ["pretrained", "ensemble"]
    assert "google/vit-base-patch16-224-in21k" in plan.skipped[0].reason
    assert plan.skipped[1].reason == "needs pretrained, which is skipped"
    assert {cell.row for cell in plan.cells} == {"resnet18", "control:permuted"}


def test_a_dataset_that_is_not_there_is_refused_or_skipped(tiny: Path) -> None:
    with pytest.raises(EmobenchError, match=r"(?s)fer2013.*EMOBENCH_DATA"):
        planned(tiny, "data.fer2013.size=48")
    plan = planned(tiny, "data.fer2013.size=48", "data.fer2013.optional=true")
    assert [skipped.dataset for skipped in plan.skipped] == ["fer2013"]


def test_folders_found_under_the_data_root_are_datasets(tiny: Path) -> None:
    for name in ("mine/happy", "split/train/Angry", "fer2013/train/happy", "papers/notes"):
        (tiny.parent / "data" / name).mkdir(parents=True)
    add(tiny, '[data."folder:*"]\nsize = 32\n[data.fer2013]\noptional = true')
    found = datasets_of(load(tiny), tiny.parent / "data")
    assert list(found) == ["synthetic-plain", "folder:mine", "folder:split", "fer2013"]
    assert found["folder:mine"] == {"class": "folder:mine", "size": 32}


def test_needs_come_first_and_their_keys_are_in_the_key(tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("seeds = [0]", "seeds = [0, 1]"))
    add(
        tiny,
        '[model.both]\nclass = "ensemble"\nneeds = { members = ["resnet18", "other"] }',
        '[model.other]\nclass = "resnet18"\nwidth = 0.0625\nepochs = 1',
    )
    cells = planned(tiny).cells
    assert [cell.row for cell in cells if cell.seed == 0] == ["resnet18", "other", "both", "control:permuted"]
    both = next(cell for cell in cells if cell.row == "both" and cell.seed == 1)
    members = [cell.fit_key for cell in cells if cell.row in ("resnet18", "other") and cell.seed == 1]
    assert both.needs == both.fit["needs"] == {"members": members}
    changed = planned(tiny, "model.other.lr=0.5").cells
    assert next(cell for cell in changed if cell.row == "both" and cell.seed == 1).fit_key != both.fit_key


def test_rows_that_need_each_other_are_refused(tiny: Path) -> None:
    add(
        tiny,
        '[model.one]\nclass = "ensemble"\nneeds = { members = ["two"] }',
        '[model.two]\nclass = "ensemble"\nneeds = { members = ["one"] }',
    )
    with pytest.raises(SuiteError, match="circle: one → two → one"):
        planned(tiny)


def test_a_key_holds_what_changes_numbers_and_nothing_else(tiny: Path) -> None:
    key = planned(tiny).cells[0].fit_key
    assert planned(tiny).cells[0].fit_key == key
    for neutral in ("trainer.accelerator='cpu'", "trainer.log_every_n_steps=7"):
        assert planned(tiny, neutral).cells[0].fit_key == key
    for telling in (
        "model.resnet18.lr=0.3",
        "model.resnet18.augment.rotation=3",
        "trainer.precision='bf16-mixed'",
        "trainer.accumulate_grad_batches=2",
        "data.synthetic-plain.train=160",
        "seeds=[1]",
    ):
        assert planned(tiny, telling).cells[0].fit_key != key, telling


def test_the_content_of_a_file_that_a_row_names_is_in_its_key(tiny: Path, tmp_path: Path) -> None:
    weights = tmp_path / "own.pth"
    overrides = ("model.resnet18.width=1.0", f"model.resnet18.weights='{weights}'")
    weights.write_bytes(b"one")
    before = planned(tiny, *overrides)
    weights.touch()
    assert planned(tiny, *overrides).cells[0].fit_key == before.cells[0].fit_key
    weights.write_bytes(b"two")
    after = planned(tiny, *overrides)
    assert after.cells[0].fit_key != before.cells[0].fit_key
    assert after.listings[str(weights)] != before.listings[str(weights)]  # a plan that was kept is made anew


def test_the_content_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    happy = tmp_path / "styles" / "happy.png"
    happy.write_bytes(b"one")
    before = contents(tmp_path / "styles")
    (tmp_path / "styles" / ".hidden").write_bytes(b"of a file manager")
    assert contents(tmp_path / "styles") == before
    happy.write_bytes(b"two")
    changed = contents(tmp_path / "styles")
    happy.rename(happy.with_stem("sad"))
    assert len({before, changed, contents(tmp_path / "styles")}) == 3


def test_a_row_may_differ_from_the_suites_trainer(tiny: Path) -> None:
    add(tiny, "[trainer]\nprecision = 'bf16-mixed'\ngradient_clip_val = 1.0")
    cell = planned(tiny, "model.resnet18.trainer.precision='32-true'").cells[0]
    assert cell.fit["trainer"] == {"precision": "32-true", "gradient_clip_val": 1.0}


def test_the_evaluation_key_follows_the_fit_and_the_metrics(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = planned(tiny).cells[0]
    assert cell.evaluation["fit_key"] == cell.fit_key
    monkeypatch.setattr("emobench.suite.expand.PROTOCOL", 2)
    again = planned(tiny).cells[0]
    assert again.fit_key == cell.fit_key
    assert again.eval_key != cell.eval_key


def test_code_counts_in_a_key_but_comments_and_docstrings_do_not(tmp_path: Path) -> None:
    package = tmp_path / "emobench"
    package.mkdir()
    root = [("emobench.model", "f")]
    (package / "leaf.py").write_text('"""A leaf."""\nX = 1\n')
    model = package / "model.py"
    model.write_text('"""Doc."""\nfrom emobench.leaf import X\n\ndef f():\n    """Doc."""\n    return X\n')
    before = Code(package).digest(root)
    model.write_text(
        '"""Other."""\n# why\nfrom emobench.leaf import X\n\n\ndef f():\n    """Changed."""\n    return X  # so\n'
    )
    assert Code(package).digest(root) == before
    (package / "leaf.py").write_text('"""A leaf."""\nX = 20\n')
    assert Code(package).digest(root) != before


def test_the_permuted_control_is_the_cheapest_classifier(tiny: Path) -> None:
    tiny.write_text(tiny.read_text() + '\n[model.larger]\nclass = "resnet18"\nwidth = 0.25\nepochs = 4\n')
    control = planned(tiny).cells[-1]
    assert (control.row, control.control) == ("control:permuted", "permuted")
    assert control.fit["arguments"]["width"] == 0.0625
    assert control.fit["permuted"] is True
    assert control.entry()["model"] == "control:permuted"
