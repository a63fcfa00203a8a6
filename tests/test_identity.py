"""Comparisons of pairs of faces: SSIM, PSNR, LPIPS and the embedding of a face-recognition network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import vgg16

from emobench.data.datasets.synthetic import Synthetic
from emobench.errors import WeightsError
from emobench.metrics.identity import Embedding, Lpips, cosine, psnr, ssim

REAL = sorted((Path(__file__).parents[2] / "shared" / "weights").glob("*.onnx"))


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    data = Synthetic(size=48, train=8, val=8, test=48)
    data.prepare()
    rows = np.flatnonzero(data.faces["split"] == "test")
    return np.ascontiguousarray(data.images[rows])


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def entry(field: int, content: int | str | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(content, int):
        return varint(field << 3) + varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def network(path: Path, *shape: int | str) -> Path:
    """An ONNX file of a network that means over the picture: (N, 3, S, S) -> (N, 3)."""

    def value(name: str, dimensions: tuple[int | str, ...]) -> bytes:
        sizes = b"".join(entry(1, entry(1 if isinstance(size, int) else 2, size)) for size in dimensions)
        return entry(1, name) + entry(2, entry(1, entry(1, 1) + entry(2, sizes)))

    nodes = [("x", "pooled", "GlobalAveragePool"), ("pooled", "y", "Flatten")]
    graph = b"".join(entry(1, entry(1, a) + entry(2, b) + entry(4, kind)) for a, b, kind in nodes)
    graph += entry(2, "means") + entry(11, value("x", shape)) + entry(12, value("y", (shape[0], 3)))
    path.write_bytes(entry(1, 8) + entry(7, graph) + entry(8, entry(1, "") + entry(2, 13)))
    return path


@pytest.mark.slow
def test_ssim_and_psnr_of_equal_and_of_worse_faces(faces: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 1, faces.shape)
    slightly, much = (np.clip(faces + sigma * noise, 0, 255).astype(np.uint8) for sigma in (4, 30))
    for metric, best in ((ssim, 1.0), (psnr, 99.0)):
        assert metric(faces, faces) == pytest.approx(best)
        assert (metric(faces, slightly) > metric(faces, much)).all()
    error = np.square(faces.astype(float) - much).mean((1, 2, 3))
    np.testing.assert_allclose(psnr(faces, much), 10 * np.log10(255**2 / error))


@pytest.mark.parametrize("size", [11, 32, 49])
def test_ssim_is_torchmetrics(size: int) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    random = np.random.default_rng(size)
    one = random.integers(0, 256, (19, 3, size, size)).astype(np.uint8)
    one[:9] = np.sort(one[:9], -1)  # smooth in one direction
    one[9:12] = 200  # without any structure
    other = np.clip(one + random.normal(0, 20, one.shape), 0, 255).astype(np.uint8)
    other[3], other[11] = one[3], one[11]
    pair = (torch.from_numpy(each.astype(np.float64)) for each in (one, other))
    expected = structural_similarity_index_measure(*pair, data_range=255.0, reduction="none")
    np.testing.assert_allclose(ssim(one, other), expected, rtol=1e-9)
    assert ssim(one, other)[[3, 11]] == pytest.approx(1)
    assert len(ssim(one[:0], other[:0])) == 0


def test_an_embedding_compares_people(faces: np.ndarray, tmp_path: Path) -> None:
    embedding = Embedding(network(tmp_path / "means.onnx", "batch", 3, 112, 112))
    vectors = embedding(faces)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert cosine(vectors, vectors) == pytest.approx(1)
    expected = faces.reshape(*faces.shape[:2], -1).mean(2) / 127.5 - 1
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=2e-2)  # resized to 112 px and back to means
    alone = Embedding(network(tmp_path / "one.onnx", 1, 3, 112, 112))  # a network that takes one face at a time
    np.testing.assert_allclose(alone(faces[:3]), vectors[:3], atol=1e-5)


def test_files_that_are_no_embedding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="takes"):
        Embedding(network(tmp_path / "small.onnx", "batch", 3, 96, 96))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(WeightsError, match=r"text\.onnx: cannot be read"):
        Embedding(tmp_path / "text.onnx")


@pytest.mark.slow
def test_lpips_is_torchmetrics(faces: np.ndarray, tmp_path: Path) -> None:
    """The arithmetic, with random weights in place of ImageNet's: both sides have the same."""
    from torchmetrics.functional.image.lpips import _LPIPS

    torch.manual_seed(0)
    backbone = vgg16(weights=None)
    torch.save(backbone.state_dict(), tmp_path / "vgg16.pth")
    theirs = _LPIPS(pretrained=True, net="vgg", pnet_rand=True, resize=None).eval()
    slices = [theirs.net.slice1, theirs.net.slice2, theirs.net.slice3, theirs.net.slice4, theirs.net.slice5]
    for part in slices:
        for place, layer in part.named_children():
            layer.load_state_dict(backbone.features[int(place)].state_dict())
    one, other = faces[:6], faces[6:12]
    with torch.no_grad():
        expected = theirs(*(torch.from_numpy(each).float() / 127.5 - 1 for each in (one, other))).flatten()
    ours = Lpips(str(tmp_path / "vgg16.pth"), torch.device("cpu"))
    np.testing.assert_allclose(ours(one, other), expected.numpy(), rtol=1e-3)
    assert ours(one, one) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_lpips_without_its_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not found"):
        Lpips(str(tmp_path / "vgg16.pth"), torch.device("cpu"))


@pytest.mark.skipif(not REAL, reason="no face-recognition network beside the checkout")
def test_swapped_people_have_a_lower_identity() -> None:
    """The same photograph with another emotion is nearer than another person's with the same one."""
    data = Synthetic(size=112, train=8, val=8, test=160)
    data.prepare()
    rows = np.flatnonzero((data.faces["split"] == "test") & (data.faces["label"] == 0))[:16]
    embedding = Embedding(REAL[0])
    own = embedding(np.ascontiguousarray(data.images[rows]))
    smiling = embedding(data.counterpart(data.faces.iloc[rows], "happy"))
    assert cosine(own, smiling).mean() > cosine(own, np.roll(smiling, 1, 0)).mean() + 0.1
