"""Speed with a GPU: how fast faces reach it, and how much of it a training step uses."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loading import faces, recipe_r1
from timing import paired, ratio, synchronize
from torch.utils.data import DataLoader, Dataset

from emobench.classifiers.classifier import EmotionClassifier, flops_of
from emobench.classifiers.resnet import ResNet18
from emobench.classifiers.vgg import VGG16
from emobench.classifiers.vit import ViT
from emobench.data.loaders import Balance, PackedFaces, TrainBatches, finish
from emobench.emotions import EMOTIONS
from emobench.recipe import Augment

# Dense bf16 peak, FLOPs a second, from the makers' data sheets: what MFU is a share of.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12}


class _OneByOne(Dataset[tuple[torch.Tensor, int]]):
    """Faces as one would serve them without emobench: albumentations in the workers, a face at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.compose = recipe_r1()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        changed = self.compose(image=np.ascontiguousarray(self.images[row].transpose(1, 2, 0)))["image"]
        return torch.from_numpy(changed.transpose(2, 0, 1)), int(self.labels[row])


def measure_feed(device: torch.device, runs: int, sizes: tuple[int, ...] = (48, 224), batch: int = 256) -> list[Any]:
    """An epoch of faces on the device, changed there, against a DataLoader with a worker per core."""
    measured = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            data = faces(size, Path(folder))
            train = np.flatnonzero(data.faces["split"] == "train")
            labels = data.faces["label"].to_numpy()
            emotions = np.eye(len(data.emotions), dtype=np.float32)[labels]
            resident = torch.from_numpy(np.array(data.images)).to(device)
            served = PackedFaces(data.images, emotions, Augment(backend="batched"), 0, on_device=True, resident=True)
            picks = TrainBatches(labels[train], train, Balance(), batch, 0, 0, 1)
            workers = len(os.sched_getaffinity(0))
            loader = DataLoader(
                _OneByOne(np.asarray(data.images[train]), labels[train]),
                batch,
                shuffle=True,
                drop_last=True,
                num_workers=workers,
                persistent_workers=True,
                pin_memory=device.type == "cuda",
                prefetch_factor=4,
            )

            def ours() -> None:
                for pick in picks:  # noqa: B023
                    each = served[pick]  # noqa: B023
                    each["index"] = each["index"].to(device, non_blocking=True)
                    finish(each, resident)  # noqa: B023
                synchronize(device)

            def dataloader() -> None:
                for images, _ in loader:  # noqa: B023
                    images.to(device, non_blocking=True)
                synchronize(device)

            one, other = paired(ours, dataloader, runs)
            n = len(picks) * batch
        measured.append(
            {
                "size": size,
                "emobench_images_per_s": n / statistics.median(one),
                "dataloader_images_per_s": n / statistics.median(other),
                "workers": workers,
                "ratio": ratio(other, one),
            }
        )
    return measured


def measure_steps(device: torch.device, batch: int = 256, steps: int = 30, compiled: bool = True) -> list[Any]:
    """Training steps in bf16 at the recipes' 224 px, faces lying on the device."""
    networks: list[tuple[type[EmotionClassifier], dict[str, Any]]] = [
        (ViT, {"weights": None}),
        (ResNet18, {}),
        (VGG16, {}),
    ]
    measured = []
    for cls, arguments in networks:
        for compile_ in (False, True) if compiled else (False,):
            torch.manual_seed(0)
            model = cls(emotions=EMOTIONS, size=224, **arguments).to(device)
            images_per_s = _steps_per_s(model, device, batch, steps, compile_) * batch
            flops = 3 * flops_of(model) * images_per_s  # a backward pass costs twice the forward
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
            peak = next((value for gpu, value in PEAKS.items() if gpu in name), None)
            measured.append(
                {
                    "model": cls.name,
                    "size": 224,
                    "batch": batch,
                    "compiled": compile_,
                    "images_per_s": images_per_s,
                    "flops_per_s": flops,
                    "mfu": None if peak is None else flops / peak,  # of an unknown GPU
                }
            )
    return measured


def _steps_per_s(model: EmotionClassifier, device: torch.device, batch: int, steps: int, compiled: bool) -> float:
    images = torch.randint(0, 256, (batch, 3, model.size, model.size), dtype=torch.uint8, device=device)
    emotions = torch.eye(len(EMOTIONS), device=device)[torch.randint(0, len(EMOTIONS), (batch,), device=device)]
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], fused=device.type == "cuda"
    )
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = model.losses(forward(images).float(), emotions).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for _ in range(5):
        step()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return steps / (time.perf_counter() - started)
