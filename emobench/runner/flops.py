"""How much of a device a fit uses: FLOPs of a face in training, and what devices reach at most."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

# FLOPs a second without sparsity, in units of 1e12, from the makers' data sheets: of bf16 and fp16 on the tensor cores,
# and of float32, which is that of TF32 where the device has it, since convolutions are computed so. The first name
# counts that is found in the device's.
PEAKS: Mapping[str, tuple[float, float]] = {
    "H200": (989, 495),
    "H100 PCIe": (756, 378),
    "H100 NVL": (835, 418),
    "H100": (989, 495),
    "A100": (312, 156),
    "V100": (125, 15.7),
    "T4": (65, 8.1),
    "L40S": (362, 183),
    "L40": (181, 90.5),
    "L4": (121, 60.5),
    "A10G": (70, 35),
    "A10": (125, 62.5),
    "A40": (150, 74.8),
    "RTX A6000": (155, 77.4),
    "RTX 4090": (165, 82.6),
    "RTX 3090": (71, 35.6),
}
_NO_BF16 = ("V100", "T4")
_HALF = ("bf16-mixed", "16-mixed", "bf16-true", "16-true")
_FULL = ("32-true", "32", "32-mixed")
BACKWARD = 3  # a step's FLOPs are that many times those of the forward pass: the gradients cost twice as much


def peak(gpu: str | None, precision: str) -> float | str:
    """FLOPs a second that a device reaches at most in a precision; a text where that is not known, why.

    Args:
        gpu: its name, as CUDA says it; None: a CPU did the work.
        precision: as Lightning names it.
    """
    if gpu is None:
        return "no peak is known of a CPU"
    name = next((each for each in PEAKS if _is_named(each, gpu)), None)
    if name is None:
        return f"no peak is known of {gpu}"
    half, full = PEAKS[name]
    if precision in _FULL:
        return full * 1e12
    if precision not in _HALF or (precision.startswith("bf16") and name in _NO_BF16):
        return f"no peak is known of {gpu} in {precision}"
    return half * 1e12


def _is_named(name: str, gpu: str) -> bool:
    """Whether all words of a name are among a device's: `A10` is not in `A100`, `V100` is in `V100-SXM2`."""
    return all(re.search(rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])", gpu) for word in name.split())


def mfu(flops: float | None, faces_per_s: float, gpu: str | None, precision: str, devices: int) -> float | str:
    """Model FLOPs utilisation (Chowdhery et al. 2022): the share of its peak that a fit uses; a text: why unknown.

    Args:
        flops: of a face forward in training.
        faces_per_s: of training, all devices together.
    """
    most = peak(gpu, precision)
    if isinstance(most, str):
        return most
    return "not counted" if flops is None else BACKWARD * flops * faces_per_s / (most * devices)


def training_flops(model: Any) -> float | None:
    """FLOPs of one face forward in a training step, two for each multiply-add; None: they cannot be counted.

    Of optimisers that take turns, those of all turns of a step of the trained network are spread over its faces.
    """
    import torch

    n = 4
    device = next(model.parameters()).device
    images = torch.zeros(n, 3, model.size, model.size, dtype=torch.uint8, device=device)
    emotions = torch.eye(len(model.emotions), device=device)[torch.arange(n, device=device) % len(model.emotions)]
    faces = n

    def forward() -> None:
        if hasattr(model, "logits"):
            model(images)
        elif model.automatic_optimization:
            model.loss_parts(model.pixels(images), emotions, training=True)
        else:
            for step in range(1, 1 + model.batches_a_step):  # at the first, lazy penalties have their turn
                for _ in model.turns({"image": images, "emotions": emotions}, step):
                    pass

    if not (hasattr(model, "logits") or model.automatic_optimization):
        faces = n * model.batches_a_step
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model.train()
            return counted(forward) / faces
    except Exception:  # a class of the user's own may want more than it is given here
        return None


def counted(work: Callable[[], Any]) -> float:
    """FLOPs of convolutions, matrices and attention in a piece of work; what is compiled runs as it is written."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):  # torch's own follows modules, which gradients of gradients do not bear
        total: float = 0.0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if (formula := flop_registry.get(func._overloadpacket)) is not None:
                self.total += formula(*args, **(kwargs or {}), out_val=out)
            return out

    with torch.compiler.set_stance("force_eager"), Counter() as counter:
        work()
    return float(counter.total)
