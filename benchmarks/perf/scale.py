"""What a sweep costs beside its training, over the number of its cells: `make perf` writes results/perf/scale.md and
scale.json.

- plan: a suite of classifiers, an ensemble and generators with their guides and judges, on four datasets, to its cells
  and what of them must run; then again, from the store; and, where Linux lets this user limit memory, for the first
  time where there is no more of it than a plan may take. Peak memory is that of the process, with and without the
  libraries that are mapped at its end; and what of it importing the models, with the libraries that they are made of,
  takes by itself.
- sweep: the command on cells that cost nothing themselves (at_once.py), as many side by side as it chooses, and one at
  a time; and on a Ray cluster of this machine, where Ray is installed.
- report: a board of finished cells of one dataset, ten seeds a row; then one cell more, in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emobench.evaluation.values import Value
from emobench.metrics.recognition import measures, tally
from emobench.report.markdown import table
from emobench.report.memory import Memory
from emobench.report.write import write
from emobench.runner.machine import hardware, versions
from emobench.runner.record import Dataset, Evaluation, Fit, FitCost, Record, TrackValues, Weights
from emobench.runner.store import Origin, Store, write_table
from emobench.runner.sweep import write_suite
from emobench.suite.cell import Cell, Plan

HERE = Path(__file__).resolve().parent
CELLS = (10, 100, 1000)
PLANS = (*CELLS, 10_000)
GIGABYTE = 1_000_000_000  # bytes, with which a plan must do
LONGEST = 600  # seconds that a process may take: with too little memory it reads its libraries over and over
ROWS = 25  # of `mixed`
FACES = 3589  # FER2013's test split
DATA = "size = 32\ntrain = 80\nval = 80\ntest = 80\n"


def mixed(cells: int) -> str:
    """A suite of about so many cells, of each kind of row, on up to four datasets."""
    datasets = 4 if cells >= 4 * ROWS else 1
    seeds, classifiers = max(1, cells // (datasets * ROWS)), 14 if cells >= ROWS else 3
    small = "size = 32\nwidth = 8\n"
    rows = {
        "judge": 'class = "resnet18"\nwidth = 0.125\n',
        "other": 'class = "vit-full"\nweights = "none"\nsize = 32\ndim = 32\ndepth = 1\nheads = 2\npatch = 8\n',
        "reader": 'class = "cnn21"\npadding = true\nsize = 32\ndense = [32, 16]\n',
        "guide": 'class = "vgg16"\nwidth = 0.0625\nbatch_norm = true\npool = 1\nhead = 32\n',
        **{f"row{k}": f'class = "resnet18"\nwidth = 0.0625\nlr = {0.01 * (k + 1)}\n' for k in range(classifiers)},
        "wide": 'class = "resnet18"\nwidth = 0.25\n',
        "mean": 'class = "ensemble"\nneeds = { members = ["row0", "row1", "row2"] }\n',
        "cvae": f'{small}latent = 8\nperceptual = "guide"\nneeds = {{ guide = "guide" }}\n',
        "plain": f'class = "cvae"\n{small}latent = 4\nperceptual = "none"\n',
        "vit_cvae": f'{small}latent = 8\ndim = 32\ndepth = 1\nheads = 2\nperceptual = "none"\n',
        "stargan": f"{small}blocks = 1\ndiscriminator_width = 8\n",
        "diffusion": "size = 32\nchannels = [8, 16]\nlayers = 1\nsampling_steps = 2\n",
    }
    text = f'seeds = {list(range(seeds))}\npanel = ["judge", "other"]\nreader = "reader"\n'
    for k in range(datasets):
        text += f'\n[data.faces{k}]\nclass = "synthetic-plain"\ndraw_seed = {k}\n{DATA}'
    text += "".join(f"\n[model.{name}]\n{row}" for name, row in rows.items())
    return f"{text}\n[evaluation]\nfidelity = 640\nper_emotion = 8\nsources = 16\nintensity = 2\n"


def at_once(cells: int, seeds: int = 10) -> str:
    """A suite of cells that cost nothing themselves, of the model of at_once.py."""
    text = f"seeds = {list(range(seeds))}\n\n[data.synthetic-plain]\n{DATA}"
    rows = (f'\n[model.row{k}]\nclass = "at_once"\nnumber = {k}\n' for k in range(cells // seeds))
    return text + "".join(rows)


def trained(cells: int, seeds: int = 10) -> str:
    """A suite of classifiers on one dataset, and the control that every board has."""
    text = f'seeds = {list(range(seeds))}\n\n[data.faces]\nclass = "synthetic-plain"\n{DATA}'
    rows = (f'\n[model.row{k}]\nclass = "resnet18"\nlr = {0.001 * (k + 1)}\n' for k in range(cells // seeds))
    return text + "".join(rows)


# ---- plan -----------------------------------------------------------------------------------------------------------

PLAN = """
import json, sys, time
from pathlib import Path
started = time.perf_counter()
from emobench.runner.reuse import to_run
from emobench.suite.file import load
from emobench.suite.plan_cache import plan_of
results = Path(sys.argv[2])
plan = plan_of(load(sys.argv[1]), results / "data", results / "cells")
cells = to_run(results, plan, "skip")
spent = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time()}
print(json.dumps({"cells": len(cells), **spent, **peak()}))
"""
LIBRARIES = """
import gc, json
gc.disable()  # as a plan does
from emobench.suite.catalog import classes, tracks
classes("model"), classes("dataset"), tracks()
print(json.dumps(peak()))
"""
REPORT = """
import json, sys, time
from pathlib import Path
started = time.perf_counter()
from emobench.report.write import write
write(Path(sys.argv[1]), sys.argv[2])
spent = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time()}
print(json.dumps({**spent, **peak()}))
"""
PEAK = """
def peak():  # MiB; getrusage would also count the process that this one was forked from
    lines = open("/proc/self/status").read().splitlines()
    most, mapped = (
        next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024 for name in ("VmHWM", "RssFile")
    )
    return {"memory_mb": most, "own_mb": most - mapped}
"""


def fresh(code: str, *arguments: object, group: Path | None = None) -> dict[str, Any]:
    """What a fresh process prints that runs PLAN, LIBRARIES or REPORT, in a control group of `limited` or in none."""
    command = [sys.executable, "-c", PEAK + code, *map(str, arguments)]
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *command]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=LONGEST).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


# What a control group is given, by where such groups lie: the first and the second version of them.
LIMITS = {
    "/sys/fs/cgroup/memory": {"memory.limit_in_bytes": "{}", "memory.memsw.limit_in_bytes": "{}"},
    "/sys/fs/cgroup": {"memory.max": "{}", "memory.swap.max": "0"},
}


@contextmanager
def limited(most: int = GIGABYTE) -> Iterator[Path | None]:
    """A control group whose processes have so many bytes of memory together, swap and the pages of files that they read
    included; who needs more is ended, or gets ever slower. None: this user, or this system, can make none.
    """
    for folder, limits in LIMITS.items():
        group = Path(folder) / f"emobench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if _take(group, {name: value.format(most) for name, value in limits.items()}):
                unread()
                yield group
                return
        finally:
            group.rmdir()
    yield None


def _take(group: Path, limits: Mapping[str, str]) -> bool:
    """Give a control group its limits; False: this folder is none, or cannot have them."""
    try:
        for name, value in limits.items():
            with open(group / name, "r+") as file:  # which is there already
                file.write(value)
    except OSError:
        return False
    return True


def unread() -> None:
    """Let the system forget what it holds of the libraries' files: a page counts for the group that reads it first."""
    for path in Path(sysconfig.get_path("purelib")).rglob("*.so*"):
        with suppress(OSError), open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_plans(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds and memory of a fresh process, first without and then with a plan in the store; and on little memory."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            suite = Path(folder) / f"plan{size}.toml"
            suite.write_text(mixed(size))
            cold, kept = (fresh(PLAN, suite, Path(folder) / str(size)) for _ in "12")
            found.append({"cells": cold["cells"], "cold": cold, "kept": kept})
            with limited() as group:
                if group is not None:
                    found[-1]["limited"] = fresh(PLAN, suite, Path(folder) / f"{size} limited", group=group)
    return found


# ---- sweep ----------------------------------------------------------------------------------------------------------


def measure_sweeps(sizes: Sequence[int], options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Seconds of the whole command, and milliseconds a cell from the end of the first to that of the last.

    The model is named by `EMOBENCH_PLUGINS`: like those of the package it is imported by the fork server, not by cells.

    Args:
        options: further ones of the command, such as an engine.
    """
    found: list[dict[str, Any]] = []
    environment = {**os.environ, "EMOBENCH_PLUGINS": str(HERE / "at_once.py")}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            suite = Path(folder) / f"sweep{size}.toml"
            suite.write_text(at_once(size))
            results = str(Path(folder) / str(size))
            command = [sys.executable, "-m", "emobench", "bench", str(suite), "--results", results]
            started = time.perf_counter()
            process = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            ended = [time.perf_counter() for line in process.stdout if ": done" in line]
            if process.wait() or len(ended) != size:
                raise RuntimeError(f"{' '.join(command)}: {len(ended)} cells done, exit code {process.returncode}")
            a_cell = 1000 * (ended[-1] - ended[0]) / (size - 1)
            found.append({"cells": size, "seconds": time.perf_counter() - started, "ms_a_cell": a_cell})
    return found


# ---- report ---------------------------------------------------------------------------------------------------------


def planned(folder: Path, cells: int) -> tuple[Plan, Origin]:
    """The plan of `trained`, in the order in which it is run: seed by seed."""
    from emobench.suite.expand import expand
    from emobench.suite.file import load

    path = folder / "board.toml"
    path.write_text(trained(cells))
    suite = load(path)
    return expand(suite, folder / "data"), Origin.of(suite, folder / "results")


def finish(results: Path, cell: Cell, quality: float, faces: int = FACES) -> None:
    """Put a cell into the store as if it had been trained, with made-up answers on made-up faces."""
    shared, own = np.random.default_rng(7), np.random.default_rng([cell.seed, round(1000 * quality)])
    labels, logits = np.arange(faces) % len(cell.emotions), own.normal(size=(faces, len(cell.emotions)))
    logits[np.arange(faces), labels] += quality + shared.normal(size=faces)  # some faces are hard for every model
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    answers = {"index": np.arange(faces), "id": [f"face{place}" for place in range(faces)], "subject": None}
    answers |= {"label": labels, "prediction": shares.argmax(1)}
    answers |= {name: np.zeros(faces, bool) for name in ("leaked", "copied")}
    answers |= {f"p_{emotion}": shares[:, k] for k, emotion in enumerate(cell.emotions)}
    store = Store(results)
    folder = store.eval_folder(cell.fit_key, cell.eval_key)
    folder.mkdir(parents=True)
    write_table(folder / "predictions.parquet", pd.DataFrame(answers))
    found = measures(tally(shares.astype(np.float64), labels).sum(0), len(cell.emotions))
    values = {name: Value(float(found[name]), faces) for name in ("accuracy", "macro_f1")}
    made = {"versions": versions(), "hardware": hardware(), "finished": "2026-01-01T00:00:00+00:00"}
    cost = FitCost(
        params=1, fit_seconds=60.0, fit_faces_per_s=300.0, peak_memory_gb=None, steps=1, epochs=1, recipe_share=1.0,
        precision="32-true",
    )  # fmt: skip
    weights = Weights(sha256="0" * 64)
    fit = Fit(cost=cost, validation=None, versions=versions(), hardware=hardware(), weights=weights)
    counts = {"train": dict.fromkeys(cell.emotions, 10)}
    dataset = Dataset(name=cell.dataset, size=cell.size, fingerprint="made", emotions=cell.emotions, counts=counts)
    evaluation = Evaluation(
        dataset=dataset, tracks={"recognition": TrackValues(values=values, faces_per_s=1e3)},
        params=1, flops=1, batch=1, raw={"predictions": "predictions.parquet"},
    )  # fmt: skip
    Record.of(cell, "done", fit=fit, **made).write(store.fit_folder(cell.fit_key) / "fit.json")
    Record.of(cell, "done", fit=fit, evaluation=evaluation, **made).write(folder / "result.json")


def measure_reports(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds of `emobench report`, and of a further cell's update of a board that this process wrote."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            plan, origin = planned(Path(folder), size)
            plan = replace(plan, cells=[cell for cell in plan.cells if cell.control is None])
            results = Path(folder) / "results"
            write_suite(results, plan, origin)
            last = plan.cells[-1]
            for cell in plan.cells[:-1]:
                finish(results, cell, 1.0 + 2.0 * cell.fit["arguments"]["lr"] / (0.001 * size / 10))
            memory = Memory()
            write(results, plan.suite, memory)
            finish(results, last, 2.0)
            started = time.perf_counter(), time.process_time()
            write(results, plan.suite, memory)
            more = {"seconds": time.perf_counter() - started[0], "cpu_s": time.process_time() - started[1]}
            found.append({"cells": size, "one_more": more, **fresh(REPORT, results, plan.suite)})
    return found


# ---- the page -------------------------------------------------------------------------------------------------------


def page(record: dict[str, Any]) -> str:
    """The page of a record as `main` writes it."""
    machine, made_with = record["hardware"], record["versions"]
    sizes = [each["cells"] for each in max((record["plan"], record["sweep"], record["report"]), key=len)]

    def row(what: str, values: Sequence[str], limit: str) -> list[str]:
        return [what, *values, *[""] * (len(sizes) - len(values)), limit]

    rows = []
    for name, kept in (("cold", "first time"), ("kept", "from the store")):
        of = [each[name] for each in record["plan"]]
        rows.append(row(f"plan, {kept}", list(map(_spent, of)), "20 s for 10,000" if name == "cold" else ""))
        if name == "cold" and all("limited" in each for each in record["plan"]):
            little = [_spent(each["limited"]) for each in record["plan"]]
            rows.append(row("the same where there is 1 GB of memory", little, "20 s for 10,000"))
        rows.append(row(f"plan, {kept}: peak memory", list(map(_memory, of)), ""))
        if name == "cold":
            rows.append(row("of it the models and their libraries", [_memory(record["libraries"])] * len(of), ""))
    sweeps, reports = record["sweep"], record["report"]
    rows.append(row("sweep of cells that cost nothing", [f"{each['seconds']:.1f} s" for each in sweeps], ""))
    rows.append(row("a cell of it", [f"{each['ms_a_cell']:.1f} ms" for each in sweeps], "20 ms"))
    rows.append(row("a cell, one at a time", [f"{each['ms_a_cell']:.1f} ms" for each in record["alone"]], ""))
    if ray := record.get("ray"):
        rows.append(row("the same on Ray", [f"{each['seconds']:.1f} s" for each in ray], ""))
        rows.append(row("a cell of it", [f"{each['ms_a_cell']:.1f} ms" for each in ray], "30 ms"))
    rows.append(row("`report`", list(map(_spent, reports)), "60 s for 1,000"))
    rows.append(row("`report`: peak memory", list(map(_memory, reports)), "1 GB"))
    rows.append(row("a further cell on the board", [_spent(each["one_more"]) for each in reports], "2 s"))
    lines = [
        "# Speed over the number of cells",
        "",
        f"What a sweep costs beside its training; {machine['cpu']}, {machine['cores']} cores; torch "
        f"{made_with['torch']}; emobench {made_with['commit']}. Repeat: `make perf`.",
        "",
        *table(["what", *(f"{size:,} cells" for size in sizes), "limit"], rows, left=range(1)),
        "",
        "Cells that cost nothing have their lock, their process, forked from the server, and two records on disk; the "
        "server has imported their model, as it has those of the package. Where nothing else is said, as many run side "
        "by side as the command chooses. In small sweeps most of a cell's time is what the server takes once, after "
        "eight cells, to move its memory into large pages. Plans are of "
        "classifiers, ensembles and generators with guides and judges on four datasets, ten seeds a hundred cells of "
        "each; memory is that of the process, and in brackets without libraries that are mapped from files, whose "
        "pages all processes share, and the system takes back where memory is short. So where there is 1 GB of memory, "
        "a plan has room for its own and for the pages in use: a control group of 10⁹ bytes, in which each page of a "
        "library counts that it reads. "
        f"Boards are of one dataset with {FACES:,} test faces, ten seeds a row.",
    ]
    return "\n".join(lines) + "\n"


def _spent(of: dict[str, float]) -> str:
    digits = 1 if of["seconds"] > 10 else 2
    return f"{of['seconds']:.{digits}f} s ({of['cpu_s']:.{digits}f} s of a core)"


def _memory(of: dict[str, float]) -> str:
    return f"{of['memory_mb']:,.0f} MiB ({of['own_mb']:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/perf"))
    parser.add_argument("--most", type=int, default=max(PLANS), help="cells at most")
    options = parser.parse_args()
    cells, plans = ([size for size in sizes if size <= options.most] for sizes in (CELLS, PLANS))
    measured_on = {"hardware": hardware().model_dump(), "versions": versions().model_dump()}
    found: dict[str, Any] = {"libraries": fresh(LIBRARIES), "plan": measure_plans(plans)}
    found |= {"sweep": measure_sweeps(cells), "report": measure_reports(cells)}
    found["alone"] = measure_sweeps(cells, ["--per-node", "1"])
    if find_spec("ray") is not None:
        found["ray"] = measure_sweeps(cells, ["--engine", "ray"])
    record = {**measured_on, **found}
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "scale.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    (options.results / "scale.md").write_text(page(record))
    print(page(record))


if __name__ == "__main__":
    main()
