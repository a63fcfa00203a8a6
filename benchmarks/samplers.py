"""Do fewer sampling steps cost control? Writes results/checks/samplers.md.

The diffusion model of reference-generation, 64 faces at guidance 1 by 20 steps of DPM-Solver++ and by all 1,000 of
DDPM, read by that board's panel. Needs its store: run `emobench bench benchmarks/reference-generation.toml` first.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import emobench
from emobench.evaluation.tracks.panel import resampled_hits
from emobench.metrics.control import Verdicts, hits, rates
from emobench.runner.build import load_judges
from emobench.runner.machine import hardware
from emobench.runner.store import Store, load_board

SUITE, FACES = "reference-generation", 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    rows = load_board(options.results, SUITE)
    row = next(row for row in rows if row.row == "diffusion")
    assert row.record is not None
    assert row.record.evaluation is not None
    keys = [judge.fit_key for judge in row.record.evaluation.panel]
    judges = load_judges(Store(options.results), keys, torch.device("cpu"))
    model = emobench.load(options.results, SUITE, "diffusion", seed=row.seed)
    model.guidance = 1.0
    asked = np.arange(FACES) % len(model.emotions)
    emotions, seeds = torch.eye(len(model.emotions))[torch.from_numpy(asked)], torch.arange(FACES)
    lines = []
    for sampler, steps in (("dpm", 20), ("ddpm", 1000)):
        model.sampler, model.sampling_steps = sampler, steps
        started = time.perf_counter()
        faces = model.sample(emotions, seeds).numpy()
        seconds = time.perf_counter() - started
        verdicts = Verdicts(asked, np.stack([judge.read(faces)[0].argmax(1) for judge in judges]))
        value = hits(rates(asked, verdicts.read, len(model.emotions))).mean()
        draws = resampled_hits(verdicts, len(model.emotions), "samplers", 2000).mean((1, 2))
        low, high = np.quantile(draws, [0.025, 0.975])
        lines.append(f"| {sampler} | {steps:,} | {seconds:.1f} s | {value:.3f} ({low:.3f}–{high:.3f}) |")
    machine = hardware()
    text = "\n".join(
        [
            "# Sampling steps and control",
            "",
            f"The diffusion model of `{SUITE}`, {FACES} faces at guidance 1; panel control, raw, with a 95 % interval "
            f"over faces; {machine.cpu}, {machine.cores} cores. Repeat: `python benchmarks/samplers.py`.",
            "",
            "| sampler | steps | time | control |",
            "| --- | --: | --: | --: |",
            *lines,
        ]
    )
    (options.results / "checks" / "samplers.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
