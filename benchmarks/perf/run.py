"""Speed, as ratios measured in one run: `make perf` writes results/perf/perf.md and perf.json.

- fit: ResNet18 at 48 px by emobench against a hand-written PyTorch loop with the same data, augmentation and precision.
- attention: forward and backward in bf16 on a CPU, as a fit computes it, against torch's fused one.
- rerun: the command on a finished suite.
- start: a cell's process forked from the warm server against a cold process that imports the same.
- loader: an epoch of the training loader against albumentations alone, on one thread.
- batched: the batched augmentation against albumentations, without and with blur, on one thread.
- samplers: eight faces by 20 steps of DPM-Solver++ against 1,000 of DDPM, the same network.
- pipeline: our sampling loop against diffusers' own pipeline.
- further_row: FID, KID, IS and coverage of a further row against one call of torch-fidelity.
- fits: each generator's fit against a hand-written loop.
- compiled: a training step of StyleGAN2, compiled against not compiled.
- search: a search in its latent space, seconds a face at several batches.
- GPU, where there is one: feeding the device, and training steps; see gpu.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from generating import measure_fits, measure_further_row, measure_pipeline, measure_samplers
from gpu import measure_feed, measure_steps
from loading import measure_batched, measure_loader
from stylegan import measure_compiled, measure_search
from training import measure_attention, measure_fit, measure_rerun, measure_start

from emobench.report.markdown import table
from emobench.runner.machine import hardware, versions

Rows = list[list[str]]  # what, emobench, compared with, ratio, limit


def _fit(found: dict[str, Any]) -> Rows:
    return [_by_hand("fit of ResNet18, one epoch of 4,000 faces at 48 px", found)]


def _attention(found: dict[str, Any]) -> Rows:
    what = "attention of 64 tokens in bf16 on a CPU, and its gradient"
    ours, other = found["emobench_s"], found["fused_s"]
    return [_against("torch's fused one", what, ours, other, found["ratio"], f"at most {found['limit']}")]


def _rerun(found: dict[str, Any]) -> Rows:
    return [["command on a finished suite", f"{found['seconds']:.2f} s", "", "", "at most 3 s"]]


def _start(found: dict[str, Any]) -> Rows:
    what, warm = "start of a cell, warm", f"{found['warm_s']:.3f} s"
    return [[what, warm, f"cold process {found['cold_s']:.2f} s", f"{found['ratio']:.3f}", "at most 0.15"]]


def _augmented(what: str) -> Callable[[dict[str, Any]], Rows]:
    def rows(found: dict[str, Any]) -> Rows:
        return [
            [
                what,
                f"{found['emobench_images_per_s']:,.0f} images/s",
                f"albumentations {found['albumentations_images_per_s']:,.0f} images/s",
                f"{found['ratio']:.2f}",
                "" if found["limit"] is None else f"at least {found['limit']}",
            ]
        ]

    return rows


def _samplers(found: dict[str, Any]) -> Rows:
    what, quick = "eight faces of 32 px, DPM-Solver++, 20 steps", f"{found['dpm_s']:.2f} s"
    return [[what, quick, f"DDPM, 1,000 steps {found['ddpm_s']:.1f} s", f"{found['ratio']:.0f}", "at least 40"]]


def _pipeline(found: dict[str, Any]) -> Rows:
    what, ours, other = "eight faces by 20 DDIM steps", found["emobench_s"], found["diffusers_s"]
    return [_against("diffusers' pipeline", what, ours, other, found["ratio"], "at most 1.05")]


def _further_row(found: dict[str, Any]) -> Rows:
    what = "FID, KID, IS, coverage of a further row of 96 faces"
    ours, other = found["emobench_s"], found["torch_fidelity_s"]
    return [_against("torch-fidelity", what, ours, other, found["ratio"], "at most 0.6")]


def _fits(found: list[dict[str, Any]]) -> Rows:
    return [_by_hand(f"fit of {each['model']}, one epoch of 1,600 faces at 32 px", each) for each in found]


def _compiled(found: dict[str, Any]) -> Rows:
    what = f"training step of stylegan2 at {found['size']} px, batch {found['batch']}, compiled"
    return [_against("not compiled", what, found["compiled_s"], found["eager_s"], found["ratio"], "")]


def _search(found: list[dict[str, Any]]) -> Rows:
    what = "latent search of 100 steps at {size} px, batch {batch}"
    return [[what.format(**each), f"{each['s_per_face']:.3f} s a face", "", "", ""] for each in found]


def _feed(found: list[dict[str, Any]]) -> Rows:
    return [
        [
            f"feeding the GPU at {each['size']} px",
            f"{each['emobench_images_per_s']:,.0f} images/s",
            f"DataLoader {each['dataloader_images_per_s']:,.0f} images/s",
            f"{each['ratio']:.1f}",
            "",
        ]
        for each in found
    ]


def _steps(found: list[dict[str, Any]]) -> Rows:
    rows = []
    for each in found:
        how = "compiled" if each["compiled"] else "eager"
        what = f"training step of {each['model']} at {each['size']} px, bf16, {how}"
        mfu = "" if each["mfu"] is None else f"MFU {100 * each['mfu']:.0f} %"
        rows.append([what, f"{each['images_per_s']:,.0f} images/s", "", mfu, ""])
    return rows


def _by_hand(what: str, found: dict[str, Any]) -> list[str]:
    ours, other = found["emobench_s"], found["by_hand_s"]
    return _against("hand-written loop", what, ours, other, found["ratio"], "at most 1.10")


def _against(other: str, what: str, ours: float, theirs: float, ratio: float, limit: str) -> list[str]:
    """A row of two times, s."""
    digits = 1 if theirs > 10 else 2 if theirs > 1 else 3
    return [what, f"{ours:.{digits}f} s", f"{other} {theirs:.{digits}f} s", f"{ratio:.3f}", limit]


# What is measured, by how many runs, and its rows of the page.
MEASURES: dict[str, tuple[Callable[[int], Any], Callable[[Any], Rows]]] = {
    "fit": (measure_fit, _fit),
    "attention": (measure_attention, _attention),
    "rerun": (measure_rerun, _rerun),
    "start": (measure_start, _start),
    "loader": (measure_loader, _augmented("training loader, the default augmentation, 48 px")),
    "batched": (
        lambda runs: measure_batched(runs, blur=False),
        _augmented("batched augmentation, 48 px: flip, rotation, brightness, contrast"),
    ),
    "batched_with_blur": (lambda runs: measure_batched(runs, blur=True), _augmented("the same with blur")),
    "samplers": (lambda runs: measure_samplers(3), _samplers),  # the slow one takes a minute
    "pipeline": (measure_pipeline, _pipeline),
    "further_row": (lambda runs: measure_further_row(3), _further_row),
    "fits": (measure_fits, _fits),
    "compiled": (measure_compiled, _compiled),
    "search": (lambda runs: measure_search(3), _search),
}
WITH_GPU: dict[str, tuple[Callable[[int], Any], Callable[[Any], Rows]]] = {
    "feed": (lambda runs: measure_feed(torch.device("cuda"), runs), _feed),
    "steps": (lambda runs: measure_steps(torch.device("cuda")), _steps),
}


def main() -> None:
    measures = MEASURES | (WITH_GPU if torch.cuda.is_available() else {})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/perf"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=measures, help="these alone; the page then holds no other")
    options = parser.parse_args()
    found = {name: measures[name][0](options.runs) for name in options.only or measures}
    measured_on = {"hardware": hardware().model_dump(), "versions": versions().model_dump()}
    record = {"runs": options.runs, **measured_on, "measured": found}
    options.results.mkdir(parents=True, exist_ok=True)
    name = "perf-gpu" if torch.cuda.is_available() else "perf"
    (options.results / f"{name}.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    text = page(record)
    (options.results / f"{name}.md").write_text(text)
    print(text)


def page(record: dict[str, Any]) -> str:
    """The page of a record as `main` writes it."""
    machine, made_with, found = record["hardware"], record["versions"], record["measured"]
    measures = MEASURES | (WITH_GPU if machine["gpu"] else {})
    rows = [row for name, value in found.items() for row in measures[name][1](value)]
    arguments = "" if len(found) == len(measures) else f" ARGS='--only {' '.join(found)}'"
    lines = [
        "# Speed",
        "",
        f"Medians of {record['runs']} runs, ratios pair by pair in one run; {machine['cpu']}, {machine['cores']} cores"
        + (f", {machine['gpu']}" if machine["gpu"] else "")
        + f"; torch {made_with['torch']}; emobench {made_with['commit']}. Repeat: `make perf{arguments}`.",
        "",
        *table(["what", "emobench", "compared with", "ratio", "limit"], rows, left=range(5)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
