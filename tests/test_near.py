"""Near duplicates of test faces: by hash and by pixels, mirrored or not, and the accuracy without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from PIL import Image

from emobench.classifiers.resnet import ResNet18
from emobench.data.datasets.folder import Folder
from emobench.data.datasets.synthetic import Synthetic
from emobench.data.near import near_any, near_duplicates, normalised, perceptual_hash
from emobench.evaluation.tracks.recognition import measure
from emobench.metrics.recognition import measures, tally


def face(seed: int) -> np.ndarray:
    """A gray face of 48 px with shapes of many sizes, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC))


def marked(one: np.ndarray) -> np.ndarray:
    """With a white sign of 6 px on the cheek, for which `copies` takes it for another face."""
    found = one.copy()
    found[21:27, 30:36] = 255
    return found


def noisy(one: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    changed = one + np.random.default_rng(seed).normal(0, noise, one.shape)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def bits(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.bitwise_count(perceptual_hash(one[None]) ^ perceptual_hash(other[None]))[0])


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


def test_a_hash_is_what_its_definition_says() -> None:
    faces = np.stack([face(seed) for seed in range(20)])
    for one, found in zip(faces, perceptual_hash(faces), strict=True):
        low = scipy.fft.dctn(one.astype(float), norm="ortho")[:8, :8].ravel()
        expected = "".join("01"[int(value)] for value in low > np.median(low))
        assert f"{int(found):064b}" == expected


def test_normalised_pixels_give_correlations() -> None:
    one, other = face(0), face(1)
    product = float((normalised(one[None]) * normalised(other[None])).sum())
    assert product == pytest.approx(correlation(one, other), abs=1e-5)


def test_both_limits_count_and_mirrors_do() -> None:
    others = np.stack([face(seed) for seed in range(50)])
    one = face(7)
    sign, light = marked(one), (one * 0.5 + 40).astype(np.uint8)
    far = noisy(one, 30)  # the hash sees coarse shapes alone
    assert (bits(one, sign) <= 4, correlation(one, sign) >= 0.95) == (True, True)
    assert (bits(one, far) <= 4, correlation(one, far) >= 0.95) == (True, False)
    smooth = np.asarray(Image.fromarray(one).resize((4, 4)).resize((48, 48), Image.Resampling.BICUBIC))
    spot = smooth.copy()
    spot[20:24, 28:32] = 255 - spot[20:24, 28:32]
    assert (bits(smooth, spot) <= 4, correlation(smooth, spot) >= 0.95) == (False, True)
    tested = [one, one[:, ::-1], sign, sign[:, ::-1], light, far, face(99), one[::-1]]
    assert near_any(np.stack(tested), others).tolist() == [True] * 5 + [False] * 3
    assert near_any(spot[None], smooth[None]).tolist() == [False]
    assert near_any(np.full((2, 48, 48), 9, np.uint8), np.full((3, 48, 48), 9, np.uint8)).tolist() == [False] * 2
    assert near_any(others, np.empty((0, 48, 48), np.uint8)).tolist() == [False] * 50


def test_the_search_finds_what_comparing_all_pairs_finds() -> None:
    random = np.random.default_rng(0)
    others = np.stack([face(seed) for seed in range(9000)])  # more than are compared at a time
    tested = np.stack([face(20_000 + seed) for seed in range(150)])
    for k in range(0, 150, 3):
        origin = noisy(others[random.integers(len(others))], float(random.uniform(0, 30)), k)
        tested[k] = origin[:, ::-1] if k % 2 else origin
    expected = np.zeros(len(tested), bool)
    pixels, hashes = normalised(others), perceptual_hash(others)
    for faces in (tested, tested[:, :, ::-1]):
        alike = normalised(faces) @ pixels.T >= 0.95
        near = np.bitwise_count(perceptual_hash(faces)[:, None] ^ hashes) <= 4
        expected |= (alike & near).any(1)
    assert 10 < expected.sum() < 50
    assert np.array_equal(near_any(tested, others), expected)


@pytest.mark.parametrize("size", [16, 48])
def test_the_accuracy_leaves_near_duplicates_out(tmp_path: Path, size: int) -> None:
    for k, (split, each) in enumerate((("train", 20), ("val", 8), ("test", 8))):
        for number, name in enumerate(("happy", "sad")):
            (tmp_path / "x" / split / name).mkdir(parents=True)
            for i in range(each):
                Image.fromarray(face(1000 * k + 100 * number + i)).save(tmp_path / "x" / split / name / f"{i}.png")
    Image.fromarray(marked(face(3))).save(tmp_path / "x/test/happy/sign.png")
    Image.fromarray(marked(face(1102))[:, ::-1]).save(tmp_path / "x/test/sad/mirrored.png")  # of validation
    Image.fromarray(face(4)).save(tmp_path / "x/test/sad/equal.png")
    data = Folder(dataset="x", folder=tmp_path / "x", cache=tmp_path / "cache", size=size)
    data.prepare()
    assert data.faces["id"][data.copied()].tolist() == ["test/sad/equal.png"]  # a sign is no copy of `copies`
    wanted = ["test/happy/sign.png", "test/sad/equal.png", "test/sad/mirrored.png"]
    assert data.faces["id"][near_duplicates(data)].tolist() == wanted
    model = ResNet18(emotions=data.emotions, size=size, width=0.0625)
    table, _ = measure(model.eval(), data)
    assert table["id"][table["leaked"]].tolist() == ["test/sad/equal.png"]
    assert table["id"][table["copied"]].tolist() == wanted
    shares = table[["p_happy", "p_sad"]].to_numpy()
    found = measures(tally(shares, table["label"], leaked=table["leaked"], copied=table["copied"]).sum(0), 2)
    rest = table[~table["copied"]]
    assert len(rest) == 16
    assert found["accuracy_distinct"] == pytest.approx((rest["prediction"] == rest["label"]).mean())


def test_drawn_faces_are_of_other_people() -> None:
    data = Synthetic(size=32, variant="plain", train=80, val=80, test=80)
    data.prepare()
    assert not near_duplicates(data).any()
