"""What README and docs print runs exactly as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY_DATA
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from emobench.runner.store import load_board
from emobench.suite.catalog import tracks_of

TOP = Path(__file__).parents[1]
SWEEP = ["emobench", "bench", "full", "--engine", "ray", "--address", "auto"]
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


def test_the_batch_script_for_ray_can_be_copied(tmp_path: Path) -> None:
    """It runs with Slurm's commands stood in for, and Ray's command is given what it knows."""
    script = printed("docs/clusters.md", "#SBATCH", "bash")
    (nodes,) = re.findall(r"--nodes=(\d+)", script)
    commands = {"scontrol": 'printf "%s\\n" node7 node8', "srun": 'env | grep ^RAY_; printf "%s\\n" "$@"'}
    for name, line in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": nodes,
    }
    ran = subprocess.run(["bash", "-eu"], input=script, env=slurm, capture_output=True, text=True, check=True)
    said = ran.stdout.splitlines()
    at = said.index("ray")
    separator = said.index("--")
    assert said[at : at + 3] == ["ray", "symmetric-run", "--address"]
    assert said[at + 3 : separator] == ["node7:6379", "--min-nodes", nodes]
    assert said[separator + 1 : separator + 8] == SWEEP

    ray = pytest.importorskip("ray.scripts.symmetric_run", reason="Ray is not installed")
    known = {option for each in ray.symmetric_run.params for option in each.opts}
    assert {"--address", "--min-nodes"} <= known
    assert "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT" in Path(ray.__file__).read_text()
    assert "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300" in said


def test_the_job_of_kuberay_can_be_copied() -> None:
    """The image that the page builds has Ray's job server, and its user may write where the sweep does."""
    claim, job = yaml.safe_load_all(printed("docs/clusters.md", "RayJob", "yaml"))
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], worker)]
    containers = [container for pod in pods for container in pod["containers"]]
    entry = spec["entrypoint"].split()
    assert entry[:7] == SWEEP
    shell = printed("docs/clusters.md", "docker build", "bash")
    subprocess.run(["bash", "-n"], input=shell, text=True, check=True)

    # One image: what is built is what all pods run, with the extras that Ray's job server and the store need.
    (build,) = (line.split() for line in shell.splitlines() if line.startswith("docker build"))
    assert {container["image"] for container in containers} == {build[build.index("--tag") + 1]}
    (extras,) = (word.removeprefix("EXTRAS=") for word in build if word.startswith("EXTRAS="))
    needed = required(extras.split(","))
    assert "default" in needed["ray"], "a RayJob is submitted to the job server, of which plain Ray has none"
    assert "obstore" in needed
    lines = (TOP / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert cluster["rayVersion"] == pinned["ray"]  # by which KubeRay decides how it asks pods whether they are alive
    with suppress(PackageNotFoundError):
        asked = [Requirement(each) for each in requires("ray") or ()]
        whole = {each.name for each in asked if each.marker is None or each.marker.evaluate({"extra": "default"})}
        assert {canonicalize_name(name) for name in whole} <= pinned.keys()

    # The boards outlive the head, on the volume that the file claims, where the group of the image's user may write.
    (head,) = pods[0]["containers"]
    volumes = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in pods[0].get("volumes", ())}
    mounted = {each["mountPath"]: volumes[each["name"]] for each in head.get("volumeMounts", ())}
    results = PurePosixPath(entry[entry.index("--results") + 1])
    assert mounted.get(str(results.parent)) == claim["metadata"]["name"]
    (group,) = re.findall(r"^USER \d+:(\d+)$", (TOP / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert pods[0]["securityContext"]["fsGroup"] == int(group)
    # Nodes share no folder: each needs the store, and its account.
    assert "--store" in entry
    (secret,) = re.findall(r"kubectl create secret generic (\S+)", shell)
    assert all({"secretRef": {"name": secret}} in container["envFrom"] for container in containers)


def required(extras: list[str]) -> dict[str, set[str]]:
    """What extras of emobench ask for, with the extras of it."""
    offered = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    found: dict[str, set[str]] = {}
    waiting = list(extras)
    while waiting:
        for asked in map(Requirement, offered[waiting.pop()]):
            if asked.name == "emobench":
                waiting += asked.extras
            else:
                found.setdefault(asked.name, set()).update(asked.extras)
    return found


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
