"""Speed, as ratios measured in one run: `make perf` writes results/perf/perf.md and perf.json.

- fit: ResNet18 at 48 px by emobench against a hand-written PyTorch loop with the same data, augmentation and precision.
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
from pathlib import Path
from typing import Any

import torch
from generating import measure_fits, measure_further_row, measure_pipeline, measure_samplers
from gpu import measure_feed, measure_steps
from loading import measure_batched, measure_loader
from stylegan import measure_compiled, measure_search
from training import measure_fit, measure_rerun, measure_start

from emobench.bench.machine import hardware, versions
from emobench.report.markdown import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/perf"))
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    runs = options.runs
    found: dict[str, Any] = {
        "fit": measure_fit(runs),
        "rerun": measure_rerun(runs),
        "start": measure_start(runs),
        "loader": measure_loader(runs),
        "batched": measure_batched(runs, blur=False),
        "batched_with_blur": measure_batched(runs, blur=True),
        "samplers": measure_samplers(3),  # the slow one takes a minute
        "pipeline": measure_pipeline(runs),
        "further_row": measure_further_row(3),
        "fits": measure_fits(runs),
        "compiled": measure_compiled(runs),
        "search": measure_search(3),
    }
    if torch.cuda.is_available():
        found |= {"feed": measure_feed(torch.device("cuda"), runs), "steps": measure_steps(torch.device("cuda"))}
    machine, made_with = hardware(), versions()
    options.results.mkdir(parents=True, exist_ok=True)
    record = {"runs": runs, "hardware": machine, "versions": made_with, "measured": found}
    name = "perf-gpu" if torch.cuda.is_available() else "perf"
    (options.results / f"{name}.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    lines = [
        "# Speed",
        "",
        f"Medians of {runs} runs, ratios pair by pair in one run; {machine['cpu']}, {machine['cores']} cores"
        + (f", {machine['gpu']}" if machine["gpu"] else "")
        + f"; torch {made_with['torch']}; emobench {made_with['commit']}. Repeat: `make perf`.",
        "",
        *table(["what", "emobench", "compared with", "ratio", "limit"], _rows(found), left=range(5)),
    ]
    (options.results / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _rows(found: dict[str, Any]) -> list[list[str]]:
    fit, rerun, start = found["fit"], found["rerun"], found["start"]
    rows = [
        [
            "fit of ResNet18, one epoch of 4,000 faces at 48 px",
            f"{fit['emobench_s']:.2f} s",
            f"hand-written loop {fit['by_hand_s']:.2f} s",
            f"{fit['ratio']:.3f}",
            "at most 1.10",
        ],
        ["command on a finished suite", f"{rerun['seconds']:.2f} s", "", "", "at most 3 s"],
        [
            "start of a cell, warm",
            f"{start['warm_s']:.3f} s",
            f"cold process {start['cold_s']:.2f} s",
            f"{start['ratio']:.3f}",
            "at most 0.15",
        ],
    ]
    for name, what in (
        ("loader", "training loader, R1's augmentation, 48 px"),
        ("batched", "batched augmentation, 48 px: flip, rotation, brightness, contrast"),
        ("batched_with_blur", "the same with blur"),
    ):
        each = found[name]
        rows.append(
            [
                what,
                f"{each['emobench_images_per_s']:,.0f} images/s",
                f"albumentations {each['albumentations_images_per_s']:,.0f} images/s",
                f"{each['ratio']:.2f}",
                "" if each["limit"] is None else f"at least {each['limit']}",
            ]
        )
    rows += _generators(found)
    for each in found.get("feed", []):
        ours, other = each["emobench_images_per_s"], each["dataloader_images_per_s"]
        rows.append(
            [f"feeding the GPU at {each['size']} px", f"{ours:,.0f} images/s", f"DataLoader {other:,.0f} images/s",
             f"{each['ratio']:.1f}", ""]
        )  # fmt: skip
    for each in found.get("steps", []):
        how = "compiled" if each["compiled"] else "eager"
        what = f"training step of {each['model']} at {each['size']} px, bf16, {how}"
        mfu = "" if each["mfu"] is None else f"MFU {100 * each['mfu']:.0f} %"
        rows.append([what, f"{each['images_per_s']:,.0f} images/s", "", mfu, ""])
    return rows


def _generators(found: dict[str, Any]) -> list[list[str]]:
    samplers, pipeline, further = found["samplers"], found["pipeline"], found["further_row"]
    rows = [
        [
            "eight faces of 32 px, DPM-Solver++, 20 steps",
            f"{samplers['dpm_s']:.2f} s",
            f"DDPM, 1,000 steps {samplers['ddpm_s']:.1f} s",
            f"{samplers['ratio']:.0f}",
            "at least 40",
        ],
        [
            "eight faces by 20 DDIM steps",
            f"{pipeline['emobench_s']:.2f} s",
            f"diffusers' pipeline {pipeline['diffusers_s']:.2f} s",
            f"{pipeline['ratio']:.3f}",
            "at most 1.05",
        ],
        [
            "FID, KID, IS, coverage of a further row of 96 faces",
            f"{further['emobench_s']:.1f} s",
            f"torch-fidelity {further['torch_fidelity_s']:.1f} s",
            f"{further['ratio']:.2f}",
            "at most 0.6",
        ],
    ]
    for each in found["fits"]:
        rows.append(
            [
                f"fit of {each['model']}, one epoch of 1,600 faces at 32 px",
                f"{each['emobench_s']:.2f} s",
                f"hand-written loop {each['by_hand_s']:.2f} s",
                f"{each['ratio']:.3f}",
                "at most 1.10",
            ]
        )
    step = found["compiled"]
    rows.append(
        [
            f"training step of stylegan2 at 32 px, batch {step['batch']}, compiled",
            f"{step['compiled_s']:.3f} s",
            f"not compiled {step['eager_s']:.3f} s",
            f"{step['ratio']:.2f}",
            "",
        ]
    )
    for each in found["search"]:
        what = f"latent search of 100 steps at 32 px, {each['batch']} faces at a time"
        rows.append([what, f"{each['s_per_face']:.2f} s a face", "", "", ""])
    return rows


if __name__ == "__main__":
    main()
