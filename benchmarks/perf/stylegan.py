"""Speed of StyleGAN2: a training step compiled and not, and a search in its latent space by batch size."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from timing import paired, ratio

from emobench.bench.build import build_model
from emobench.bench.store import Store
from emobench.classifiers.vgg import VGG16
from emobench.expand import expand
from emobench.generators.latent_search import LatentSearch
from emobench.generators.stylegan2 import StyleGAN2
from emobench.suite import load

REFERENCE = Path(__file__).parents[1] / "reference-style.toml"


def _stylegan2() -> StyleGAN2:
    """The reference suite's, whose speed does not depend on its weights."""
    with tempfile.TemporaryDirectory() as folder:
        plan = expand(load(REFERENCE), Path(folder))
        cell = next(cell for cell in plan.cells if cell.row == "stylegan2")
        model: StyleGAN2 = build_model(cell, Store(Path(folder)))
    return model


def measure_compiled(runs: int, batch: int = 32) -> dict[str, Any]:
    """A step of generator and discriminator without penalties, which are never compiled."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    faces = torch.randn(batch, 3, 32, 32, device=device).clamp(-1, 1)
    emotions = torch.eye(8, device=device).repeat(batch // 8, 1)
    models = [_stylegan2().to(device).train() for _ in range(2)]
    for network in models[0].compilable():
        network.compile()

    def step(model: StyleGAN2) -> None:
        for_generator, for_discriminator = model.configure_optimizers()
        for parts, optimizer, other in (
            (lambda: model._generator_parts(emotions, 1), for_generator, model.discriminator),
            (lambda: model._discriminator_parts(faces, emotions, emotions, 1), for_discriminator, model.generator),
        ):
            other.requires_grad_(False)
            loss = torch.stack(list(parts().values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            other.requires_grad_(True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    step(models[0])  # compiles
    compiled, eager = paired(lambda: step(models[0]), lambda: step(models[1]), runs)
    return {
        "compiled_s": statistics.median(compiled),
        "eager_s": statistics.median(eager),
        "ratio": ratio(compiled, eager),
        "batch": batch,
    }


def measure_search(runs: int) -> list[dict[str, Any]]:
    """Seconds of a face's search, guided by a VGG16 of quarter width, at several batches."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stylegan2 = _stylegan2().to(device).eval().requires_grad_(False)
    guide = VGG16(emotions=stylegan2.emotions, size=32, width=0.25, stem="small", batch_norm=True, pool=1, head=256).to(
        device
    )
    search = LatentSearch(
        emotions=stylegan2.emotions, size=32, generator=[stylegan2], guide=[guide.eval().requires_grad_(False)]
    )
    found = []
    for batch in (1, 8, 64):
        emotions = torch.eye(8, device=device)[torch.arange(batch) % 8]
        seeds, times = torch.arange(batch, device=device), []
        for run in range(runs + 1):
            started = time.perf_counter()
            search.sample(emotions, seeds)  # whose answer is on the CPU's side only when it is done
            if device.type == "cuda":
                torch.cuda.synchronize()
            if run > 0:
                times.append(time.perf_counter() - started)
        found.append({"batch": batch, "s_per_face": statistics.median(times) / batch})
    return found
