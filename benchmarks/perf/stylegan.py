"""Speed of StyleGAN2: a training step compiled and not, and a search in its latent space by batch size."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import paired, ratio, synchronize

from emobench.classifiers.vgg import VGG16
from emobench.generators.generator import frozen
from emobench.generators.latent_search import LatentSearch
from emobench.generators.stylegan2 import StyleGAN2
from emobench.runner.build import build_model
from emobench.runner.store import Store
from emobench.suite.expand import expand
from emobench.suite.file import load

BENCHMARKS = Path(__file__).parents[1]


def _device() -> torch.device:
    """The GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _reference(device: torch.device) -> tuple[StyleGAN2, int]:
    """The network that the reference suite of such a device trains, and its batch; weights do not matter for speed."""
    suite = "reference-stylegan2-gpu.toml" if device.type == "cuda" else "reference-style.toml"
    with tempfile.TemporaryDirectory() as folder:
        plan = expand(load(BENCHMARKS / suite), Path(folder))
        cell = next(cell for cell in plan.cells if cell.row == "stylegan2")
        model: StyleGAN2 = build_model(cell, Store(Path(folder)))
    return model.to(device), cell.fit["recipe"]["batch"]


def measure_compiled(runs: int) -> dict[str, Any]:
    """Training steps of generator and discriminator without penalties, which are never compiled; bf16 on a GPU."""
    device = _device()
    (compiled, batch), (eager, _) = _reference(device), _reference(device)
    for network in compiled.compilable():
        network.compile()
    steps = 20 if device.type == "cuda" else 1
    one, other = (_stepping(model.train(), batch, steps) for model in (compiled, eager))
    started = time.perf_counter()
    one()
    compiling = time.perf_counter() - started
    with_it, without = paired(one, other, runs)
    return {
        "compiled_s": statistics.median(with_it) / steps,
        "eager_s": statistics.median(without) / steps,
        "ratio": ratio(with_it, without),
        "compiling_s": compiling,
        "size": compiled.size,
        "batch": batch,
    }


def _stepping(model: StyleGAN2, batch: int, steps: int) -> Callable[[], None]:
    """Takes so many steps when called."""
    k, device = len(model.emotions), model.device
    faces = torch.randn(batch, 3, model.size, model.size, device=device).clamp(-1, 1)
    emotions = torch.eye(k, device=device)[torch.arange(batch, device=device) % k]
    for_generator, for_discriminator = model.configure_optimizers()

    def step() -> None:
        for opponent, optimizer, parts in (
            (model.discriminator, for_generator, lambda: model._generator_parts(emotions, 1)),
            (model.generator, for_discriminator, lambda: model._discriminator_parts(faces, emotions, emotions, 1)),
        ):
            with frozen(opponent):
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    loss = torch.stack(list(parts().values())).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def many() -> None:
        for _ in range(steps):
            step()
        synchronize(device)

    return many


def measure_search(runs: int) -> list[dict[str, Any]]:
    """Seconds of a face's search, guided by a VGG16 (on a CPU of quarter width), at several batches."""
    device = _device()
    stylegan2 = _reference(device)[0].eval().requires_grad_(False)
    guide = VGG16(
        emotions=stylegan2.emotions, size=stylegan2.size, width=1.0 if device.type == "cuda" else 0.25, stem="small",
        batch_norm=True, pool=1, head=256,
    )  # fmt: skip
    search = LatentSearch(
        emotions=stylegan2.emotions,
        size=stylegan2.size,
        generator=[stylegan2],
        guide=[guide.to(device).eval().requires_grad_(False)],
    )
    k, found = len(search.emotions), []
    for batch in (1, 8, 64):
        emotions = torch.eye(k, device=device)[torch.arange(batch, device=device) % k]
        seeds, times = torch.arange(batch, device=device), []
        for run in range(runs + 1):
            started = time.perf_counter()
            search.sample(emotions, seeds)
            synchronize(device)
            if run > 0:
                times.append(time.perf_counter() - started)
        found.append({"size": search.size, "batch": batch, "s_per_face": statistics.median(times) / batch})
    return found
