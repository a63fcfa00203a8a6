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


FUSED = F.scaled_dot_product_attention


def is_fused() -> bool:
    return F.scaled_dot_product_attention is FUSED


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
    with attention(device, precision):
        assert is_fused() is fused
    assert is_fused()
    with pytest.raises(KeyError), attention(device, precision):
        raise KeyError
    assert is_fused()


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


@pytest.mark.parametrize(
    "others",
    [
        {"attn_mask": torch.tensor([[True, False, True]] * 3)},
        {"attn_mask": torch.tensor([[0.5, 0.0, -1.0]] * 3)},
        {"is_causal": True},
        {"scale": 0.3},
        {"enable_gqa": True},
    ],
    ids=["mask", "bias", "causal", "scale", "fewer keys"],
)
def test_what_else_a_library_asks_of_it(others: dict[str, Any]) -> None:
    torch.manual_seed(0)
    heads = 1 if "enable_gqa" in others else 2
    q, k, v = torch.randn(2, 2, 3, 8), torch.randn(2, heads, 3, 8), torch.randn(2, heads, 3, 8)
    expected = F.scaled_dot_product_attention(q, k, v, **others)
    with attention("cpu", "bf16-mixed"):
        found = F.scaled_dot_product_attention(q, k, v, **others)
        dropped = F.scaled_dot_product_attention(q, k, v, dropout_p=1.0)
    torch.testing.assert_close(found, expected)
    assert not dropped.any()


@pytest.mark.parametrize("layer", ["torch", "timm"])
def test_the_libraries_layers_take_it(layer: str) -> None:
    """They call it by a name that is looked up at each call; its result is another in the last digits."""
    from timm.layers.attention import Attention

    torch.manual_seed(0)
    tokens = torch.randn(2, 5, 32)
    network = Attention(32, num_heads=2) if layer == "timm" else torch.nn.TransformerEncoderLayer(32, 2, 64, 0.0)
    expected = network(tokens)
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "softmax", lambda self, dim: called.append(dim) or torch.softmax(self, dim))
        with attention("cpu", "bf16-mixed"):
            found = network(tokens)
    assert called == [-1]
    torch.testing.assert_close(found, expected)


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
