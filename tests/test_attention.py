"""Which attention a fit computes: on a CPU in bf16 not torch's fused one, whose gradient is slow there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_DATA
from torch import Tensor
from torch.nn import functional as F

from emobench.classifiers.vit import ViT
from emobench.runner import fit as fitting
from emobench.runner.build import build_data
from emobench.runner.fit import attention
from emobench.runner.store import Store
from emobench.suite.expand import expand
from emobench.suite.file import load

VIT = """
[model.vit]
strategy = "full"
weights = "none"
patch = 8
dim = 32
depth = 1
heads = 2
epochs = 1
"""


def is_fused() -> bool:
    return torch.backends.cuda.flash_sdp_enabled()


def of(dtype: torch.dtype) -> list[Tensor]:
    """Attention of 9 tokens and its gradients, of the same numbers each time."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 16).to(dtype).requires_grad_() for _ in range(3))
    found = F.scaled_dot_product_attention(q, k, v)
    found.square().sum().backward()
    return [found, *(each.grad for each in (q, k, v) if each.grad is not None)]


@pytest.mark.parametrize(
    ("device", "precision", "fused"),
    [
        ("cpu", "bf16-mixed", False),
        ("cpu", "bf16-true", False),
        ("cpu", "32-true", True),
        ("cuda", "bf16-mixed", True),
    ],
)
def test_where_attention_is_plain(device: str, precision: str, fused: bool) -> None:
    def state() -> tuple[bool, bool]:
        return is_fused(), torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()

    before = state()
    with attention(device, precision):
        assert is_fused() is fused
    assert state() == before
    with pytest.raises(KeyError), attention(device, precision):
        raise KeyError
    assert state() == before


def test_both_compute_the_same() -> None:
    exact = of(torch.float32)
    fused = of(torch.bfloat16)
    with attention("cpu", "bf16-mixed"):
        plain = of(torch.bfloat16)
    assert len(plain) == 4
    for true, one, other in zip(exact, fused, plain, strict=True):
        error = (other.float() - true).norm() / true.norm()
        assert other.dtype is torch.bfloat16
        assert error < 0.015  # three digits of eight bits, a few of them rounded
        assert error < 2 * (one.float() - true).norm() / true.norm()


@pytest.mark.parametrize(("precision", "fused"), [("bf16-mixed", False), ("32-true", True)])
def test_a_fit_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, fused: bool) -> None:
    seen = []
    step = ViT.training_step

    def spied(self: ViT, *given: Any) -> Any:
        seen.append(is_fused())
        return step(self, *given)

    monkeypatch.setattr(ViT, "training_step", spied)
    path = tmp_path / "attention.toml"
    path.write_text(f'{TINY_DATA}{VIT}trainer = {{ precision = "{precision}" }}\n')
    (cell,) = (each for each in expand(load(path), tmp_path).cells if each.row == "vit")
    store = Store(tmp_path)
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    fitting.fit(cell, store, build_data(cell, tmp_path))
    assert set(seen) == {fused}
