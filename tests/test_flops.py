"""How much of a device a fit uses."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import torch
from reading import pages
from test_generators import GENERATORS, small
from test_report import Results, numbers, one, results

from emobench.classifiers.classifier import flops_of
from emobench.classifiers.resnet import ResNet18
from emobench.emotions import EMOTIONS
from emobench.runner.flops import counted, mfu, peak, training_flops

__all__ = ["results"]  # the fixture


@pytest.mark.parametrize(
    ("gpu", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989e12),
        ("NVIDIA H100 80GB HBM3", "32-true", 495e12),
        ("NVIDIA H100 PCIe", "bf16-mixed", 756e12),
        ("NVIDIA H200", "bf16-mixed", 989e12),
        ("NVIDIA A100-SXM4-40GB", "16-mixed", 312e12),
        ("NVIDIA A10", "bf16-mixed", 125e12),
        ("NVIDIA A10G", "bf16-mixed", 70e12),
        ("Tesla T4", "16-mixed", 65e12),
        ("Tesla V100-SXM2-16GB", "32-true", 15.7e12),
        ("NVIDIA L4", "bf16-mixed", 121e12),
        ("NVIDIA L40S", "bf16-mixed", 362e12),
        ("NVIDIA GeForce RTX 3090", "bf16-mixed", 71e12),
        ("NVIDIA GeForce RTX 4090", "32-true", 82.6e12),
        ("Tesla T4", "bf16-mixed", "no peak is known of Tesla T4 in bf16-mixed"),
        ("NVIDIA H100 80GB HBM3", "64-true", "no peak is known of NVIDIA H100 80GB HBM3 in 64-true"),
        ("Quadro P5000", "32-true", "no peak is known of Quadro P5000"),
        (None, "bf16-mixed", "no peak is known of a CPU"),
    ],
)
def test_devices_are_known_by_their_names(gpu: str | None, precision: str, expected: float | str) -> None:
    found = peak(gpu, precision)
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_mfu_is_the_share_of_the_peak_of_all_devices() -> None:
    h100 = "NVIDIA H100 80GB HBM3"
    assert mfu(1e9, 100_000.0, h100, "bf16-mixed", 1) == pytest.approx(3e14 / 989e12)
    assert mfu(1e9, 100_000.0, h100, "bf16-mixed", 2) == pytest.approx(3e14 / 989e12 / 2)
    assert mfu(None, 100_000.0, h100, "bf16-mixed", 1) == "not counted"


def test_multiply_adds_count_twice() -> None:
    weight, batch = torch.ones(5, 7), torch.ones(3, 5)
    assert counted(lambda: batch @ weight) == 2 * 3 * 5 * 7


def test_a_classifier_trains_with_what_it_reads_with() -> None:
    model = ResNet18(emotions=EMOTIONS, size=32, width=0.25)
    assert training_flops(model) == flops_of(model)


@pytest.mark.parametrize("name", [name for name in GENERATORS if name not in ("latent_search", "cvae_stylegan")])
def test_the_flops_of_every_generator_are_counted_and_draw_no_random_number(name: str) -> None:
    model: Any = small(name)
    before = torch.get_rng_state()
    found = training_flops(model)
    assert found is not None
    assert found > 1000
    assert torch.equal(torch.get_rng_state(), before)


def of_gpu(results: Results, gpu: str | None, flops: float | None, devices: int = 1) -> pd.DataFrame:
    path = results.cell("resnet18", 0, 3.0) / "result.json"
    record = json.loads(path.read_text())
    record["fit"]["hardware"] |= {"gpu": gpu, "device": "cuda" if gpu else "cpu"}
    record["cell"]["trainer"] = {"devices": devices}
    record["fit"]["cost"] |= {"fit_faces_per_s": 50_000.0, "precision": "bf16-mixed", "flops": flops}
    path.write_text(json.dumps(record))
    results.write()
    return numbers(results.folder)


def test_the_board_shows_it_where_a_gpu_is_known(results: Results) -> None:
    table = of_gpu(results, "NVIDIA H100 80GB HBM3", 1e9)
    row = one(table, model="resnet18", metric="mfu", seed="")
    assert float(row["value"]) == pytest.approx(3 * 1e9 * 50_000 / 989e12, rel=1e-4)
    assert row["hardware"] == "NVIDIA H100 80GB HBM3"
    page = pages(results.folder / "demo")
    assert "| faces/s trained | MFU |" in " ".join(page.split())
    assert "50,000 | 0.152" in " ".join(page.split())


@pytest.mark.parametrize(
    ("devices", "share", "reason"), [(2, 0.0758, ""), (-1, None, "not recorded on how many devices")]
)
def test_it_is_of_as_many_devices_as_the_record_says(
    results: Results, devices: int, share: float | None, reason: str
) -> None:
    row = one(of_gpu(results, "NVIDIA H100 80GB HBM3", 1e9, devices), model="resnet18", metric="mfu", seed="")
    assert row["value"] == "n/a" if share is None else float(row["value"]) == pytest.approx(share, rel=1e-3)
    assert row["reason"] == reason


def test_elsewhere_it_has_a_reason_and_no_column(results: Results) -> None:
    table = of_gpu(results, None, 1e9)
    row = one(table, model="resnet18", metric="mfu", seed="")
    assert (row["value"], row["reason"]) == ("n/a", "no peak is known of a CPU")
    assert "MFU" not in pages(results.folder / "demo")


def test_records_that_do_not_say_it_have_no_row(results: Results) -> None:
    assert "mfu" not in set(of_gpu(results, None, None)["metric"])
