"""Where a classifier looks: the maps against arithmetic by hand, the regions of drawn faces, the command, the track."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from reading import pages
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from emobench.attribution import rollout
from emobench.attribution.explainer import GRAD_CAM, ROLLOUT, Explainer
from emobench.attribution.overlays import overlaid
from emobench.classifiers.ensemble import Ensemble
from emobench.classifiers.hugging_face import HuggingFace
from emobench.classifiers.onnx_file import OnnxFile
from emobench.classifiers.resnet import ResNet18
from emobench.classifiers.timm_backbone import TimmBackbone
from emobench.classifiers.vit import ViT
from emobench.data.datasets.synthetic import Synthetic
from emobench.data.drawn.parameters import VARIANTS, FaceParameters, face_parameters
from emobench.data.drawn.regions import emotion_regions, unit_regions, units_of
from emobench.emotions import EMOTIONS
from emobench.errors import EmobenchError, NotExplained
from emobench.evaluation.tracks import explanation
from emobench.evaluation.tracks.explanation import Explanation, Looks
from emobench.evaluation.tracks.track import MeasuredCell
from emobench.metrics.attention import area_of, area_under, curves, order, share_within, upsampled
from emobench.report.html import faces as page_faces
from emobench.report.write import write
from emobench.runner.build import build_data
from emobench.runner.choice import groups
from emobench.runner.evaluate import evaluate
from emobench.runner.record import read_record
from emobench.runner.store import Origin, Store
from emobench.runner.sweep import write_suite
from emobench.suite.cell import Plan
from emobench.suite.expand import expand
from emobench.suite.file import load

TWO = ("happy", "sad")


# Rollout


def by_hand(network: ViT, pixels: np.ndarray, fuse: Callable[..., Any], discard: float) -> np.ndarray:
    """Attention rollout of one face (3, S, S) from the network's weights alone, step by step in numpy."""
    p = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-12) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    name = "backbone.embeddings"
    kernel = p[f"{name}.patch_embeddings.projection.weight"]  # (dim, 3, P, P)
    dim, _, patch, _ = kernel.shape
    side = pixels.shape[-1] // patch
    tokens = [p[f"{name}.cls_token"][0, 0]]
    for row in range(side):
        for column in range(side):
            part = pixels[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            tokens.append((kernel * part).sum((1, 2, 3)) + p[f"{name}.patch_embeddings.projection.bias"])
    x = np.stack(tokens) + p[f"{name}.position_embeddings"][0]
    heads, count = 2, len(x)
    whole = np.eye(count)
    for layer in range(2):
        name = f"backbone.layers.{layer}"
        before = norm(x, f"{name}.layernorm_before")
        q, k, v = (linear(before, f"{name}.attention.{each}_proj") for each in "qkv")
        weights, mixed = [], []
        for head in range(heads):
            mine = slice(head * dim // heads, (head + 1) * dim // heads)
            scores = np.exp(q[:, mine] @ k[:, mine].T / math.sqrt(dim // heads))
            weights.append(scores / scores.sum(1, keepdims=True))
            mixed.append(weights[-1] @ v[:, mine])
        x = x + linear(np.concatenate(mixed, 1), f"{name}.attention.o_proj")
        inner = linear(norm(x, f"{name}.layernorm_after"), f"{name}.mlp.fc1")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = x + linear(inner, f"{name}.mlp.fc2")
        fused = fuse(np.stack(weights), axis=0)
        fused[fused < np.sort(fused, axis=None)[int(discard * count * count)]] = 0
        attention = 0.5 * fused + 0.5 * np.eye(count)
        whole = attention / attention.sum(1, keepdims=True) @ whole
    return np.asarray(whole[0, 1:].reshape(side, side))


@pytest.mark.parametrize(
    ("fusion", "fuse", "discard"), [("mean", np.mean, 0.0), ("max", np.max, 0.0), ("min", np.min, 0.3)]
)
def test_a_rollout_is_the_published_algorithm_on_a_small_vit(
    fusion: rollout.Fusion, fuse: Callable[..., Any], discard: float
) -> None:
    torch.manual_seed(0)
    network = ViT(
        emotions=TWO, size=12, weights=None, strategy="full", dim=8, depth=2, heads=2, patch=4, hidden=4
    ).eval()
    with torch.no_grad():
        for parameter in network.backbone.parameters():  # far from uniform attention
            parameter.copy_(0.6 * torch.randn_like(parameter))
    faces = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)
    explainer = Explainer(network, faces[:1], fusion, discard)
    assert (explainer.method, explainer.cells, explainer.layer) == (ROLLOUT, 3, "all 2 layers")
    maps = explainer.maps(faces, [0, 0, 0])
    pixels = network.pixels(faces).numpy().astype(np.float64)
    wanted = np.stack([by_hand(network, face, fuse, discard) for face in pixels])
    np.testing.assert_allclose(maps, wanted, rtol=1e-4, atol=1e-6)
    assert np.ptp(wanted[0]) > 0.05  # so that nearly any other matrix would not fit


def test_what_is_read_from_the_mean_of_the_patches_is_rolled_out_for_all_of_them() -> None:
    weights = torch.rand(1, 5, 5).softmax(-1)
    rolled = rollout.rolled_out([weights])
    mixed = (weights[0] + torch.eye(5)) / 2
    torch.testing.assert_close(rolled[0].float(), mixed)
    mean = rollout.to_patches(rolled, 2, from_class=False)
    torch.testing.assert_close(mean[0].float(), mixed[1:, 1:].mean(0).view(2, 2))


def test_timm_networks_are_explained_by_what_they_are() -> None:
    face = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)

    def of(backbone: str) -> Explainer:
        return Explainer(TimmBackbone(emotions=TWO, size=32, backbone=backbone).eval(), face)

    vit = of("test_vit")
    assert (vit.method, vit.cells, vit.layer) == (ROLLOUT, 2, "all 6 layers")
    assert vit.maps(face, [0]).shape == (1, 2, 2)
    cnn = of("test_resnet")
    assert cnn.method == GRAD_CAM
    assert cnn.cells >= 8


def test_outside_networks_of_torch_are_explained(tmp_path: Path) -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    config = ViTConfig(**small, image_size=32, patch_size=8, id2label={0: "happy", 1: "sad", 2: "fear"})
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    face = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    theirs = HuggingFace(emotions=TWO, size=40, repository=str(tmp_path)).eval()
    explainer = Explainer(theirs, face)
    assert (explainer.method, explainer.cells) == (ROLLOUT, 4)
    assert explainer.maps(face, [1]).shape == (1, 4, 4)
    mirrored = HuggingFace(emotions=TWO, size=40, repository=str(tmp_path), flip=True).eval()
    with pytest.raises(NotExplained, match="its mirror image beside it"):
        Explainer(mirrored, face)


def test_attention_in_windows_and_ensembles_are_not_explained() -> None:
    face = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    swin = nn.MultiheadAttention(8, 2, batch_first=True)

    class Windows(Hand):
        def logits(self, pixels: Tensor) -> Tensor:
            parts = pixels.mean(1).reshape(-1, 16, 8)  # 32 windows of 16 tokens a face
            q = parts.reshape(-1, 2, 8, 8)
            return F.scaled_dot_product_attention(q, q, q).reshape(len(pixels), -1)[:, :2] + 0 * swin.in_proj_bias[0]

    with pytest.raises(NotExplained, match="all tokens attend to all"):
        Explainer(Windows(), face)
    members = [ResNet18(emotions=TWO, size=32, width=0.0625) for _ in range(2)]
    with pytest.raises(NotExplained, match="2 networks, each with maps of its own"):
        Explainer(Ensemble(emotions=TWO, size=32, members=members), face)


def test_what_lies_in_an_onnx_file_is_not_explained() -> None:
    model = OnnxFile.__new__(OnnxFile)
    with pytest.raises(NotExplained, match="nothing is seen of the network"):
        Explainer(model, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


# Grad-CAM


class Hand(nn.Module):
    """A network whose gradient is known by hand: maps of red and of green, and their means by two fixed weights.

    Of the emotions' scores 2·mean(red) − mean(green) and mean(green), the gradients in each of the h·w cells are 2/hw
    and −1/hw, and 0 and 1/hw.
    """

    emotions = TWO

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 2, 1, bias=False)
        self.shrink = nn.AvgPool2d(2)
        self.answer = nn.Linear(2, 2, bias=False)
        self.colours.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None]
        self.answer.weight.data = torch.tensor([[2.0, -1], [0, 1]])

    def pixels(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def logits(self, pixels: Tensor) -> Tensor:
        maps = self.shrink(self.colours(pixels))
        answer: Tensor = self.answer(maps.mean((2, 3)))
        return answer

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.pixels(images))


def test_grad_cam_of_a_network_whose_gradient_is_known() -> None:
    torch.manual_seed(0)
    faces = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)  # in two batches
    network = Hand().requires_grad_(False).eval()
    explainer = Explainer(network, faces[:1])
    assert (explainer.method, explainer.layer, explainer.cells) == (GRAD_CAM, "layer shrink", 8)
    emotions = [0, 1] * 10
    maps = explainer.maps(faces, emotions)
    red, green, _ = (faces.numpy() / 255).reshape(20, 3, 8, 2, 8, 2).mean((3, 5)).transpose(1, 0, 2, 3)
    wanted = np.where(np.array(emotions)[:, None, None] == 0, np.maximum(2 * red - green, 0), green) / 64
    np.testing.assert_allclose(maps, wanted, rtol=1e-5, atol=1e-8)
    large = upsampled(maps, 16)
    np.testing.assert_allclose(large[0, 0, 0], wanted[0, 0, 0], rtol=1e-5, atol=1e-8)  # at the edge the outermost cell
    inside = 0.75**2 * wanted[0, 0, 0] + 0.1875 * (wanted[0, 0, 1] + wanted[0, 1, 0]) + 0.0625 * wanted[0, 1, 1]
    np.testing.assert_allclose(large[0, 1, 1], inside, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("cells", "side"), [(12, 48), (7, 32), (3, 48), (1, 8), (8, 8)])
def test_upsampling_is_bilinear(cells: int, side: int) -> None:
    maps = torch.rand(2, 1, cells, cells, dtype=torch.float64)
    wanted = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(upsampled(maps[:, 0].numpy(), side), wanted[:, 0].numpy(), atol=1e-12)


def test_a_network_without_a_fine_layer_is_not_explained() -> None:
    network = Hand()
    network.colours, network.shrink = nn.Conv2d(3, 2, 1, stride=4), nn.Identity()  # type: ignore[assignment]
    with pytest.raises(NotExplained, match="its finest layer has 4 x 4 cells, and fewer than 8 x 8"):
        Explainer(network, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_who_lacks_captum_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it could not be imported
    with pytest.raises(EmobenchError, match=r"pip install 'emobench\[explain\]'"):
        Explainer(Hand(), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmobenchError, match=r"\[explain\]: needs captum.*pip install 'emobench\[explain\]'"):
        expand(load(tiny, ["explain={}"]), tiny.parent)


# Where drawn faces show their emotions


def drawn(emotion: str, **changes: float) -> FaceParameters:
    """One plain face at full intensity, gray and upright: v of a place is 2·row/size − 1, over its scale of 1.04."""
    weights = np.eye(len(EMOTIONS))[[EMOTIONS.index(emotion)]]
    faces = face_parameters(VARIANTS["plain"], 0, np.array([5]), np.array([0]), weights)
    for name, value in changes.items():
        faces.identity[name][:] = value
    return faces


def rows_of(region: np.ndarray) -> tuple[float, float]:
    """The highest and the lowest v on the face that lies in a region (S, S)."""
    lines = np.flatnonzero(region.any(1))
    return (2 * (lines[0] + 0.5) / len(region) - 1) / 1.04, (2 * (lines[-1] + 0.5) / len(region) - 1) / 1.04


def test_regions_lie_where_the_parts_are_drawn_that_move() -> None:
    at = {"eye_y": -0.10, "brow_y": 0.22, "mouth_y": 0.50, "mouth_w": 0.25, "glasses": 0.0, "beard": 0.0}
    brows = unit_regions(drawn("surprise", **at), [(2,)], 96)[0]
    top, bottom = rows_of(brows)
    assert top < -0.10 - 0.22 - 0.1  # the raised outer brow, and the creases above it
    assert bottom < -0.10  # nothing below the eyes
    mouth = unit_regions(drawn("sad", **at), [(15,)], 96)[0]
    top, bottom = rows_of(mouth)
    assert top > 0.3
    assert bottom < 0.85
    columns = np.flatnonzero(mouth.any(0))
    assert columns[0] < 96 * (0.5 - 0.5 * 1.04 * 0.2)  # both corners, a fifth of a half picture away from the middle
    assert columns[-1] > 96 * (0.5 + 0.5 * 1.04 * 0.2)
    assert not (brows & mouth).any()
    contempt = unit_regions(drawn("contempt", **at), [units_of("contempt")], 96)[0]
    left, right = contempt[:, :48].sum(), contempt[:, 48:].sum()
    assert min(left, right) < 0.6 * max(left, right)  # one corner is pulled, and the middle of the mouth with it
    assert not unit_regions(drawn("neutral", **at), [(12,)], 96).any()


def test_a_map_of_the_right_region_is_told_from_one_of_another() -> None:
    data = Synthetic(size=48, variant="plain", train=80, val=80, test=80)
    faces = data.index()
    test = faces[faces["split"] == "test"]
    test = test.assign(label=[EMOTIONS.index(each) for each in test["label"]])
    data.emotions = EMOTIONS
    regions = emotion_regions(data, test)
    labels = test["label"].to_numpy()
    area = area_of(regions)
    assert (area[labels == 0] == 0).all()
    assert ((area > 0.02) & (area < 0.5))[labels != 0].all()
    for emotion in ("sad", "anger", "contempt"):
        mine = regions[labels == EMOTIONS.index(emotion)][:1]
        wrong = np.roll(mine, 48 // 2, axis=2)  # the same area, half a picture aside
        assert share_within(mine.astype(float), mine)[0] == 1
        assert share_within(mine.astype(float), wrong)[0] < 0.3
        np.testing.assert_allclose(share_within(np.ones((1, 48, 48)), mine), area_of(mine))
    assert np.isnan(share_within(np.zeros((1, 48, 48)), regions[:1])).all()


# Deletion and insertion


def test_curves_follow_what_the_map_puts_first() -> None:
    face = np.zeros((1, 3, 2, 2), np.uint8)
    face[0, :, 0, 1] = 200  # all that the answer hangs on
    mean = np.zeros((3, 2, 2), np.uint8)

    def answer(faces: np.ndarray) -> np.ndarray:
        return np.asarray(faces[:, 0, 0, 1] / 200.0)

    good, bad = np.array([[[0.0, 1], [0, 0]]]), np.array([[[1.0, 0], [1, 1]]])
    first = order(good, 0)
    assert first[0, 0] == 1
    deleted, inserted = curves(answer, face, mean, first, 5)
    assert deleted.tolist() == [[1, 0, 0, 0, 0]]
    assert inserted.tolist() == [[0, 1, 1, 1, 1]]
    assert area_under(deleted).tolist() == [0.125]
    assert area_under(inserted).tolist() == [0.875]
    deleted, _ = curves(answer, face, mean, order(bad, 0), 5)
    assert deleted.tolist() == [[1, 1, 1, 1, 0]]


# The numbers


def looks(attention: float, random: float, control: str | None = None, people: int = 40) -> Looks:
    """Maps of which so much lies in regions of a tenth of the face, a little by lot; half of the faces are neutral."""
    n = 4 * people
    noise = 0.02 * np.random.default_rng(0).standard_normal(n)
    table = pd.DataFrame(
        {
            "index": np.arange(n),
            "id": [f"face-{i}" for i in range(n)],
            "subject": [f"person-{i // 4}" for i in range(n)],
            "label": np.arange(n) % 2,
            "prediction": 0,
            "area": np.where(np.arange(n) % 2, 0.1, 0.0),
            "attention": np.where(np.arange(n) % 2, attention + noise, 0.0),
            "attention_random": np.where(np.arange(n) % 2, random + 0.5 * noise, 0.0),
            **dict.fromkeys(("deletion", "insertion", "deletion_random", "insertion_random"), np.full(n, 0.5)),
        }
    )
    return Looks(MeasuredCell("row", 0, control, ("neutral", "happy"), Path("explanations.parquet")), table)


def test_attention_on_units_is_over_the_area_and_beside_random_and_permuted_networks() -> None:
    cells = [looks(0.3, 0.1), looks(0.1, 0.1), looks(0.2, 0.1, "permuted")]
    good, chance, permuted = ({key.metric: k for k, key in enumerate(of[0].keys)} | {"of": of[0]} for of in _of(cells))

    def number(of: dict[str, Any], metric: str) -> tuple[float, float, float]:
        place = next(k for k, key in enumerate(of["of"].keys) if (key.metric, key.emotion) == (metric, ""))
        draws = of["of"].draws[:, place]
        return float(of["of"].values[place]), *np.quantile(draws, [0.025, 0.975])

    value, low, high = number(good, "attention_on_units")
    assert value == pytest.approx(3, abs=0.1)
    assert low < 3 < high
    assert number(good, "attention_share")[0] == pytest.approx(0.3, abs=0.01)
    assert number(good, "units_area")[0] == pytest.approx(0.1)
    assert number(good, "attention_over_random")[1] > 1.9
    assert number(good, "attention_over_permuted")[0] == pytest.approx(1, abs=0.05)
    value, low, high = number(chance, "attention_over_random")
    assert low < 0 < high
    assert number(chance, "attention_over_permuted")[2] < 0
    assert math.isnan(number(permuted, "attention_over_permuted")[0])
    assert good["of"].units == 40


def _of(cells: list[Looks]) -> list[Any]:
    return Explanation().estimates(cells)


# The command


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of drawn faces, larger than the network's, one of them gray."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    data = Synthetic(size=64, variant="plain", train=80, val=80, test=80)
    rows = data.index().iloc[:3]
    for place, face in enumerate(data.read_many(rows)):
        Image.fromarray(face[0] if place else np.stack([face[0]] * 3, 2)).save(folder / f"{place}.png")
    return folder


def test_the_command_writes_a_picture_and_an_array_a_face(
    emobench: Callable[..., int], tiny_results: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    run = ["explain", "tiny/synthetic-plain/resnet18", pictures, "--results", tiny_results, "--out", tmp_path / "out"]
    assert emobench(*run) == 1
    said = capsys.readouterr()
    assert "Grad-CAM of layer layer1, 8 x 8 cells" in said.err
    assert "broken.png" in said.err
    table = pd.read_csv(tmp_path / "out" / "explained.csv")
    assert table["file"].tolist() == ["0-map.png", "1-map.png", "2-map.png"]
    assert set(table["method"]) == {GRAD_CAM}
    assert (table["read"] == table["explained"]).all()
    for row in table.itertuples():
        found = np.load(tmp_path / "out" / str(row.array))
        assert (found.shape, found.dtype) == ((32, 32), np.dtype("float32"))
        with Image.open(tmp_path / "out" / str(row.file)) as picture:
            assert picture.size == (128, 128)
    assert emobench(*run) == 2  # nothing is overwritten unasked
    assert "--force" in capsys.readouterr().err
    assert emobench(*run, "--force", "--emotion", "sad") == 1
    assert set(pd.read_csv(tmp_path / "out" / "explained.csv")["explained"]) == {"sad"}


def test_an_overlay_shows_its_face_and_marks_what_is_highest() -> None:
    face = np.full((1, 3, 4, 4), 100, np.uint8)
    maps = np.zeros((1, 4, 4))
    maps[0, 1, 2] = 5.0
    shown = overlaid(face, maps)
    assert (shown[0, :, 0, 0] == 100).all()
    assert shown[0, 0, 1, 2] > 180  # yellow, over what is left of the face
    assert (overlaid(face, np.zeros((1, 4, 4))) == 100).all()
    assert (overlaid(None, maps)[0, :, 0, 0] != 100).any()


# The suite and the board


def explained_plan(folder: Path) -> Plan:
    """That of the tiny suite with two faces an emotion explained."""
    return expand(load(folder / "tiny.toml", ["explain.per_emotion=2"], "tiny"), folder)


def test_an_explanation_has_a_key_of_its_own_and_changes_no_other(tiny: Path) -> None:
    plain = expand(load(tiny), tiny.parent)
    asked = explained_plan(tiny.parent)
    keys = [(cell.fit_key, cell.eval_key) for cell in plain.cells]
    assert [(cell.fit_key, cell.eval_key) for cell in asked.cells[: len(keys)]] == keys
    further = asked.cells[len(keys) :]
    assert [cell.fit_key for cell in further] == [key for key, _ in keys]
    assert {cell.track for cell in further} == {"explanation"}
    assert not {cell.eval_key for cell in further} & {key for _, key in keys}
    others = expand(load(tiny, ["explain.discard_ratio=0.5"]), tiny.parent).cells[len(keys) :]
    assert not {cell.eval_key for cell in further} & {cell.eval_key for cell in others}


def test_of_swept_settings_only_the_chosen_one_is_explained(tiny: Path) -> None:
    plan = expand(load(tiny, ["model.resnet18.lr={ sweep = [0.01, 0.02] }", "explain={}"]), tiny.parent)
    recognition, explanation = groups(plan.cells)  # one is chosen in each, of the same fits
    assert [cell.fit_key for cell in recognition] == [cell.fit_key for cell in explanation]
    assert {cell.track for cell in explanation} == {"explanation"}


@pytest.fixture
def explained(tiny: Path, tiny_results: Path, tmp_path: Path) -> tuple[Path, Plan]:
    """The tiny board with what its two networks look at, measured in this process."""
    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    plan = explained_plan(tiny.parent)
    for cell in plan.cells:
        if cell.track == "explanation":
            data = build_data(cell, tmp_path)
            data.prepare()
            evaluate(cell, Store(results), data)
    write_suite(results, plan, Origin.of(load(tiny, ["explain.per_emotion=2"], "tiny"), results))
    return results, plan


def test_a_board_says_where_its_networks_look(explained: tuple[Path, Plan]) -> None:
    results, _ = explained
    board = write(results, "tiny")
    assert not board.missing
    section = next(each for each in board.sections if each.track.name == "explanation")
    row = next(each for each in section.entries if each.name == "resnet18")
    numbers = {key.metric: number for key, number in row.numbers.items() if not key.emotion}
    assert numbers["attention_on_units"].low is not None
    assert numbers["attention_on_units"].n == 16
    ratio = (numbers["attention_share"].value or 0) / (numbers["units_area"].value or 1)
    assert numbers["attention_on_units"].value == pytest.approx(ratio, rel=1e-5)
    assert any(each.name == "control:permuted" for each in section.controls)
    text = pages(board.path.parent)
    assert "Explanation on synthetic-plain" in text
    assert "looks as with" in text  # four epochs on 80 faces teach nobody where to look
    assert "figures/explained-of-resnet18" in text
    table = pd.read_csv(results / "tiny" / "metrics.csv")
    mine = table[(table["track"] == "explanation") & (table["model"] == "resnet18") & (table["emotion"] == "neutral")]
    assert mine["reason"].str.contains("moves an action unit").all()


def test_pictures_of_real_people_stay_in_the_store(
    explained: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, plan = explained
    monkeypatch.setattr(explanation, "_regions", lambda data, rows: None)  # as if the faces were not drawn
    cell = next(each for each in plan.cells if each.track == "explanation" and each.control is None)
    data = build_data(cell, tmp_path)
    data.prepare()
    folder = Store(results).eval_folder(cell.fit_key, cell.eval_key)
    shutil.rmtree(folder)
    evaluate(cell, Store(results), data)
    evaluation = read_record(folder / "result.json").evaluation
    assert evaluation is not None
    assert (folder / "explained.webp").exists()
    assert set(evaluation.raw.values()) == {"explanations.parquet", "maps.npz", "means.webp", "history.csv"}
    assert evaluation.tracks["explanation"].values["attention_on_units"].reason == explanation.NOT_DRAWN
    with np.load(folder / "maps.npz") as kept:
        assert kept["maps"].shape == (16, 8, 8)
        assert kept["deletion"].shape == (16, explanation.POINTS)
    board = write(results, "tiny")
    assert not (results / "tiny" / "cells" / cell.eval_key / "explained.webp").exists()
    monkeypatch.setattr(page_faces, "is_drawn", lambda record: False)
    (stored,) = (each for section in board.sections for each in section.usable if each.eval_key == cell.eval_key)
    assert not page_faces.may_be_seen(stored, "explained", ())
    assert page_faces.may_be_seen(stored, "means", ())  # maps alone, without a face
