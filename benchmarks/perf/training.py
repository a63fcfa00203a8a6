"""Speed of training a cell, of a command that has nothing to do, and of starting a cell."""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loading import recipe_r1
from timing import paired, ratio
from torch.nn import functional as F
from torchvision.models import resnet18

from emobench.data.datamodule import EmotionDataModule
from emobench.runner.build import build_data
from emobench.runner.engines.local import preload
from emobench.runner.fit import attention, fit
from emobench.runner.store import Store
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import PACKAGED, load

FIT = """
[data.synthetic]
size = 48
train = 4000
val = 400
test = 400

[model.resnet18]
batch = 64
epochs = 1
patience = "none"
oversample = 1.0
undersample = "none"
"""


def by_hand(data: EmotionDataModule) -> None:
    """One epoch of ResNet18 as one would write it without emobench, validated and saved."""
    images, labels = np.asarray(data.images), data.faces["label"].to_numpy()
    train, val = (np.flatnonzero(data.faces["split"] == split) for split in ("train", "val"))
    torch.manual_seed(0)
    model = resnet18(num_classes=len(data.emotions)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    augment = recipe_r1()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255

    def pixels(faces: np.ndarray) -> torch.Tensor:
        batch = torch.from_numpy(faces).to(torch.float32, memory_format=torch.channels_last)
        return (batch - mean) / std

    order = np.random.default_rng(0).permutation(train)
    model.train()
    for step in range(len(order) // 64):
        rows = order[step * 64 : (step + 1) * 64]
        faces = np.stack([augment(image=face.transpose(1, 2, 0))["image"] for face in images[rows]]).transpose(
            0, 3, 1, 2
        )
        loss = F.cross_entropy(model(pixels(faces)), torch.from_numpy(labels[rows]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(pixels(images[rows])).argmax(1) == torch.from_numpy(labels[rows])).sum())
            for rows in np.array_split(val, max(1, len(val) // 64))
        )
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": model.state_dict(), "accuracy": right / len(val)}, Path(folder) / "best.pt")


def measure_fit(runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "fit.toml"
        suite.write_text(FIT)
        cell: Cell = expand(load(suite), Path(folder)).cells[0]
        data = build_data(cell, Path(folder))
        data.prepare()

        def ours() -> None:
            with tempfile.TemporaryDirectory() as results:
                store = Store(Path(results))
                store.fit_folder(cell.fit_key).mkdir(parents=True)
                fit(cell, store, data)

        one, other = paired(ours, lambda: by_hand(data), runs)
    return {
        "emobench_s": statistics.median(one),
        "by_hand_s": statistics.median(other),
        "ratio": ratio(one, other),
        "limit": 1.10,
    }


def measure_attention(runs: int) -> dict[str, Any]:
    """Forward and backward in bf16 on a CPU: 64 faces of 64 tokens in four heads of 16, as in vit_cvae-small-faces."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(64, 4, 64, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def fused() -> None:
        F.scaled_dot_product_attention(q, k, v).sum().backward()

    def ours() -> None:
        with attention("cpu", "bf16-mixed"):
            fused()

    one, other = paired(ours, fused, 10 * runs)
    return {
        "emobench_s": statistics.median(one),
        "fused_s": statistics.median(other),
        "ratio": ratio(one, other),
        "limit": 0.5,
    }


def measure_rerun(runs: int) -> dict[str, Any]:
    """The demo's own size matters not: nothing is trained again. The suite is the smoke suite."""
    suite = PACKAGED / "smoke.toml"
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "-m", "emobench", "bench", str(suite), "--results", results]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = []
        for _ in range(runs):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "limit": 3.0}


def _stamp(pipe: Any) -> None:
    pipe.send(time.time())


def measure_start(runs: int) -> dict[str, Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload())
    warm, cold = [], []
    code = "import " + ", ".join(preload()) + "; import time; print(time.time())"
    for run in range(runs + 1):
        near, far = context.Pipe()
        started = time.time()
        process = context.Process(target=_stamp, args=(far,))
        process.start()
        seconds = near.recv() - started
        process.join()
        started = time.time()
        printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        if run > 0:  # the first warm start waits for the server
            warm.append(seconds)
            cold.append(float(printed.split()[-1]) - started)
    return {
        "warm_s": statistics.median(warm),
        "cold_s": statistics.median(cold),
        "ratio": ratio(warm, cold),
        "limit": 0.15,
    }
