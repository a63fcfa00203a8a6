"""What README and docs print runs exactly as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY_DATA

from emobench.runner.store import load_board
from emobench.suite.catalog import tracks_of

TOP = Path(__file__).parents[1]
EMOTIONS = ("neutral", "happy", "sad")
SUITE = f"""{TINY_DATA}
[model.small]
class = "small.py:Small"
channels = 8
epochs = 1
"""


def printed(page: str, holding: str, kind: str = "python") -> str:
    """The block of a page that holds a text."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", (TOP / page).read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if holding in block]
    return str(found)


def shown(name: str) -> Any:
    """The class of this name, as the documentation writes it."""
    scope: dict[str, Any] = {"__name__": "shown"}
    exec(printed("docs/extending.md", f"class {name}("), scope)
    return scope[name]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "results/README.md",
        *(f"docs/{each.name}" for each in (TOP / "docs").glob("*.md")),
    ],
)
def test_what_a_page_links_to_is_there(page: str) -> None:
    path = TOP / page
    if not path.exists():
        pytest.skip(f"{page} is not in this copy")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page}: {target}"


def test_files_for_clusters_can_be_copied() -> None:
    """The batch script is one of bash, and the job of KubeRay one of YAML, whose command is that of the script."""
    script, job = printed("docs/clusters.md", "#SBATCH", "bash"), printed("docs/clusters.md", "RayJob", "yaml")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    spec = yaml.safe_load(job)["spec"]
    assert [each["groupName"] for each in spec["rayClusterSpec"]["workerGroupSpecs"]] == ["gpu"]
    for line in (script.splitlines()[-1], spec["entrypoint"]):
        assert line.split()[:7] == ["emobench", "bench", "full", "--engine", "ray", "--address", "auto"]


def test_the_lines_that_score_answers_run(
    tiny_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the rows of a small board."""
    lines = printed("README.md", "emobench.score(").replace("results/demo", "results/tiny")
    shutil.copytree(tiny_results, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    cell = next(each for each in load_board(tiny_results, "tiny") if each.row == "resnet18")
    assert cell.folder is not None
    said = pd.read_parquet(cell.folder / "predictions.parquet")
    emotions = [name.removeprefix("p_") for name in said if name.startswith("p_")]
    answers = {"id": said["id"], "label": said["prediction"].map(dict(enumerate(emotions)))}
    pd.DataFrame(answers).to_csv("answers.csv", index=False)
    exec(lines, {"__name__": "__main__"})
    shown = [line for line in capsys.readouterr().out.splitlines() if re.search(r" 0\.\d+$", line)]
    mine, own = (
        next(line.split()[-3:] for line in shown if name in line and "control" not in line)
        for name in ("answers", "resnet18")
    )
    assert mine == own  # the same answers: the same macro F1 and interval
    assert 0 < float(mine[0]) < 1


def test_the_file_of_a_classifier_runs_in_a_suite(emobench: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(printed("docs/extending.md", "class Small("), encoding="utf-8")
    (tmp_path / "mine.toml").write_text(SUITE)
    assert emobench("bench", tmp_path / "mine.toml", "--results", tmp_path / "results") == 0
    cells = load_board(tmp_path / "results", "mine")
    assert {cell.row: cell.state for cell in cells} == {"small": "done", "control:permuted": "done"}


def test_the_classifier() -> None:
    model = shown("Small")(emotions=EMOTIONS, size=48)
    logits = model(torch.zeros(2, 3, 48, 48, dtype=torch.uint8))
    assert logits.shape == (2, 3)
    assert model.training_arguments["schedule"] == "onecycle"


def test_the_generator() -> None:
    model = shown("Mean")(emotions=EMOTIONS, size=32)
    assert list(tracks_of(type(model))) == ["generation", "text"]
    assert model.recipe.monitor is None
    faces = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    emotions = torch.eye(3).repeat(2, 1)
    optimizer = model.configure_optimizers()
    for _ in range(60):
        (loss,) = model.loss_parts(model.pixels(faces), emotions, training=True).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = model.sample(torch.eye(3), torch.arange(3))
    expected = torch.stack([faces[k::3].float().mean(0) for k in range(3)])
    assert (made.float() - expected).abs().mean() < 40
    assert torch.equal(made, model.sample(torch.eye(3), torch.arange(3)))
