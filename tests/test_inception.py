"""FID, KID and IS through the published network's file: found, checked, and equal to torch-fidelity's."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from conftest import TINY
from perf.random_inception import write_faces, write_weights

from emobench.data.datasets.synthetic import Synthetic
from emobench.errors import WeightsError
from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.reference import RealFaces
from emobench.metrics import inception
from emobench.runner.calibrate import settings_of
from emobench.runner.trial import Trial, measure
from emobench.suite.expand import expand
from emobench.suite.file import load


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of random weights under the published one's name."""
    return write_weights(tmp_path_factory.mktemp("weights")).parent


class Reader:
    """Reads emotions from random projections of the pixels."""

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = images.reshape(len(images), -1)[:, ::97].astype(np.float64) / 255
        logits = flat[:, :8]
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), flat[:, :16]


@pytest.fixture(scope="module")
def data() -> Synthetic:
    data = Synthetic(size=48, train=64, val=8, test=24)
    data.prepare()
    return data


@pytest.mark.slow
def test_the_scores_are_torch_fidelitys_on_the_same_files(weights: Path, data: Synthetic, tmp_path: Path) -> None:
    real = RealFaces.of(data, None)
    network = inception.Inception(weights / inception.FILE, torch.device("cpu"))
    fidelity = Fidelity(real, Reader(), network, "made by the test", None, tmp_path)
    fakes = np.ascontiguousarray(real.faces(real.floor)[:, :, ::-1])  # upside down
    ours = fidelity.measure(fakes, "fakes")
    theirs = torch_fidelity.calculate_metrics(
        input1=write_faces(fakes, tmp_path / "fakes"),
        input2=write_faces(real.faces(real.reference), tmp_path / "real"),
        fid=True, kid=True, isc=True, kid_subset_size=len(fakes) // 2, cuda=False, verbose=False, batch_size=16,
        feature_extractor_weights_path=str(weights / inception.FILE), cache=False, samples_find_deep=False,
    )  # fmt: skip
    assert theirs["frechet_inception_distance"] > 1  # the features do differ
    assert ours["fid"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours["kid"].value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours["is"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert {"sample_precision", "sample_recall", "density", "coverage"} <= ours.keys()
    cached = list((tmp_path / "features").glob("*.npz"))
    assert len(cached) == 1  # of the reference: a further row does not compute it again

    def fail(images: np.ndarray) -> Any:
        raise AssertionError("the reference was computed again")

    again = Fidelity(real, Reader(), fail, "made by the test", None, tmp_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.by_inception, fidelity.by_inception)


def test_only_the_published_file_counts(weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("EMOBENCH_WEIGHTS", raising=False)
    found = inception.find()
    assert found.path is None
    assert "not found" in (found.reason or "")
    monkeypatch.setenv("EMOBENCH_WEIGHTS", str(weights))
    found = inception.find()
    assert found.path == weights / inception.FILE
    assert found.reason == "not the published Inception weights"
    sha256 = hashlib.sha256((weights / inception.FILE).read_bytes()).hexdigest()
    assert inception.find(sha256[:8]).reason is None


def test_a_file_that_carries_code_is_not_executed(tmp_path: Path) -> None:
    """torch-fidelity itself would run it."""
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    torch.save({"weight": Bomb()}, tmp_path / inception.FILE)
    with pytest.raises(WeightsError, match="nothing in it was executed"):
        inception.Inception(tmp_path / inception.FILE, torch.device("cpu"))
    assert not marker.exists()


@pytest.mark.slow
def test_a_calibration_times_what_inception_sees(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights / inception.FILE
    planned = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "reason": None}
    monkeypatch.setenv("EMOBENCH_WEIGHTS", str(weights))
    (tmp_path / "tiny.toml").write_text(TINY)
    cell = expand(load(tmp_path / "tiny.toml"), tmp_path).cells[0]

    def seconds(inception: dict[str, Any] | None) -> float | None:
        files = {} if inception is None else {"files": {"inception": inception}}
        given = dataclasses.replace(cell, evaluation={**cell.evaluation, **files})
        return measure(Trial(given, {}, tmp_path, 1, 0, 0.05, settings_of(given))).seconds_seen

    assert (took := seconds(planned)) is not None
    assert took > 0
    assert seconds({**planned, "sha256": "0"}) is None  # no such file any more, which the cell says
    assert seconds({"sha256": None, "reason": "not found"}) is None
    assert seconds(None) is None
