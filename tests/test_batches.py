"""How many faces a network is given at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emobench.evaluation.judge import Judge
from emobench.evaluation.sampler import Sampler
from emobench.metrics import identity, inception
from emobench.metrics.identity import Lpips
from emobench.metrics.inception import Inception
from emobench.nn import batches as module
from emobench.nn.batches import batches, twice_fits
from emobench.runner import evaluate
from emobench.runner.build import build_data, load_judges
from emobench.runner.record import read_record
from emobench.runner.store import Store

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose memory has room for two batches that are twice as large, in the place of the CPU."""
    answers = iter([True, True])
    monkeypatch.setattr(module, "twice_fits", lambda device: next(answers, False))

    def there(number: int, first: int, most: int, device: torch.device, *, grows: bool) -> Iterator[slice]:
        return batches(number, first, most, GPU, grows=grows)

    for user in ("emobench.evaluation.sampler", "emobench.evaluation.judge", identity.__name__, inception.__name__):
        monkeypatch.setattr(f"{user}.batches", there)


def sizes(of: Iterator[slice], number: int) -> list[int]:
    """Faces of each batch; all are in one, in turn."""
    found = [np.arange(number)[each] for each in of]
    np.testing.assert_array_equal(np.concatenate(found), np.arange(number))
    return [len(each) for each in found]


def test_batches_are_of_one_size_where_they_may_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "twice_fits", lambda device: True)
    assert sizes(batches(20, 8, 64, CPU, grows=True), 20) == [8, 8, 4]  # a CPU's memory is not what limits it
    assert sizes(batches(20, 8, 64, GPU, grows=False), 20) == [8, 8, 4]


def test_on_a_gpu_they_grow_while_memory_has_room_up_to_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "twice_fits", lambda device: True)
    assert sizes(batches(200, 8, 64, GPU, grows=True), 200) == [8, 16, 32, 64, 64, 16]
    room = iter([True, False, True, False, False])
    monkeypatch.setattr(module, "twice_fits", lambda device: next(room))
    assert sizes(batches(100, 8, 64, GPU, grows=True), 100) == [8, 16, 16, 32, 28]


@pytest.mark.parametrize(
    ("used", "free", "share", "fits"),
    [(10, 60, 1.0, True), (30, 60, 1.0, False), (10, 60, 0.25, True), (10, 60, 0.125, False)],
    ids=["room", "half of what is free is others'", "in its part", "more than its part"],
)
def test_memory_has_room_in_what_is_free_and_in_the_part_of_a_cell_that_shares_a_gpu(
    used: int, free: int, share: float, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 100))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: used)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: share)
    assert twice_fits(GPU) is fits


class Counts(nn.Module):
    """Remembers the sizes of its batches."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.sizes = network, list[int]()
        self.register_buffer("pixel_mean", torch.zeros(1))

    def forward(self, faces: Tensor) -> Any:
        self.sizes.append(len(faces))
        return self.network(faces)

    def read(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        seen: Tensor = self(faces).float().flatten(1)
        return seen[:, :8] / 255, seen


@pytest.mark.usefixtures("room")
def test_a_judge_reads_the_same_in_batches_that_grow() -> None:
    faces = np.random.default_rng(0).integers(0, 256, (1500, 3, 4, 4), dtype=np.uint8)
    fixed, growing = Counts(nn.Identity()), Counts(nn.Identity())
    expected = Judge("fixed", fixed, None).read(faces)
    found = Judge("growing", growing, None, grows=True).read(faces)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert fixed.sizes == [256] * 5 + [220]
    assert growing.sizes == [256, 512, 732]


@pytest.mark.usefixtures("room")
def test_a_generator_draws_the_same_in_batches_that_grow() -> None:
    drawn: list[int] = []

    class Draws:
        emotions, size = ("neutral", "happy"), 8

        def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
            drawn.append(len(seeds))
            return (seeds % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)

    asked, seeds = np.eye(2)[np.arange(900) % 2], np.arange(900)
    real: Any = None  # which only editors need
    fixed = Sampler(Draws(), Draws.emotions, 8, real, CPU)
    expected = fixed.sample(asked, seeds, "test")
    assert (drawn, fixed.batch) == ([64] * 14 + [4], 64)
    drawn.clear()
    growing = Sampler(Draws(), Draws.emotions, 8, real, CPU, grows=True)
    np.testing.assert_array_equal(growing.sample(asked, seeds, "test"), expected)
    assert (drawn, growing.batch) == ([64, 128, 256, 256, 196], 256)


@pytest.mark.usefixtures("room")
def test_inceptions_features_are_the_same_in_batches_that_grow() -> None:
    def network(faces: Tensor) -> tuple[Tensor, Tensor]:
        return faces.flatten(1)[:, :5], faces.flatten(1)[:, 5:9]

    faces = np.random.default_rng(0).integers(0, 256, (400, 1, 4, 4), dtype=np.uint8)
    fixed, growing = (cast("Any", object.__new__(Inception)) for _ in range(2))  # without the file of its weights
    for each, grows in ((fixed, False), (growing, True)):
        each.network, each.device, each.grows = Counts(network), CPU, grows
    for ours, theirs in zip(growing(faces), fixed(faces), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert fixed.network.sizes == [64] * 6 + [16]
    assert growing.network.sizes == [64, 128, 208]


@pytest.mark.usefixtures("room")
def test_lpips_is_the_same_in_batches_that_grow() -> None:
    one, other = np.random.default_rng(0).integers(0, 256, (2, 400, 3, 4, 4), dtype=np.uint8)
    fixed, growing = (cast("Any", object.__new__(Lpips)) for _ in range(2))  # without the file of its weights
    for each, grows in ((fixed, False), (growing, True)):
        each.see, each.device, each.grows = Counts(lambda faces: [faces]), CPU, grows
        each.weights = [torch.ones(1, 3, 1, 1)]
    np.testing.assert_array_equal(growing(one, other), fixed(one, other))
    assert fixed.see.sizes == [128] * 6 + [16] * 2  # each of a pair
    assert growing.see.sizes == [128] * 2 + [256] * 2 + [16] * 2


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [False, True])
def test_an_evaluation_lets_them_grow_unless_its_cell_is_deterministic(
    deterministic: bool, generated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the digits that follow of it, a cell beside others would differ from one alone."""
    found = next(generated.glob("cells/*/*/verdicts.parquet")).with_name("result.json")
    cell = read_record(found).planned
    cell = dataclasses.replace(cell, trainer={**cell.trainer, "deterministic": deterministic})
    seen: list[Any] = []

    def loads(*args: Any, **options: Any) -> list[Judge]:
        judges = load_judges(*args, **options)
        seen.extend(judges)
        return judges

    def stops(sampler: Sampler, *_: Any) -> None:
        seen.append(sampler)
        raise InterruptedError

    monkeypatch.setattr(evaluate, "load_judges", loads)
    monkeypatch.setattr(evaluate, "Task", stops)
    data = build_data(cell, tmp_path)
    data.prepare()
    with pytest.raises(InterruptedError):
        evaluate.measure_judged(cell, Store(generated), data, tmp_path)
    assert len(seen) >= 3
    assert {each.grows for each in seen} == {not deterministic}
