"""ONNX files of other people, read as they are; and an exchanged order of classes in every form that a row may have."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from reading import pages

from emobench.data.datasets.synthetic import Synthetic
from emobench.emotions import EMOTIONS
from emobench.errors import SuiteError, Unsaid
from emobench.runner.store import load_board
from emobench.suite.catalog import resolve

SIDE = 16
DATA = {"size": 32, "train": 1600, "val": 640, "test": 320}
LABELS = {"labels": list(EMOTIONS[:3]), "channels": "rgb", "range": (0.0, 1.0)}


def written(
    path: Path,
    weights: np.ndarray,
    shape: Sequence[Any] = ("N", 3, SIDE, SIDE),
    *,
    more: Sequence[str] = (),
    second: bool = False,
    **metadata: str,
) -> Path:
    """A linear network on pixels: input of a shape, weights (M, C·H·W) for its values in their order."""
    nodes = [
        helper.make_node("Flatten", ["faces"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights"], ["scores"], transB=1),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", len(weights)])]
    if second:
        nodes.append(helper.make_node("Relu", ["scores"], ["valence"]))
        outputs.append(helper.make_tensor_value_info("valence", TensorProto.FLOAT, ["N", len(weights)]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("faces", *more)]
    graph = helper.make_graph(
        nodes, "linear", inputs, outputs, [numpy_helper.from_array(weights.astype(np.float32), "weights")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def weights(seed: int = 0, number: int = 3) -> np.ndarray:
    """(M, 3, SIDE, SIDE)"""
    return np.random.default_rng(seed).normal(size=(number, 3, SIDE, SIDE))


def model(path: Path, **arguments: Any) -> Any:
    cls, preset = resolve("model", f"onnx:{path}")
    return cls(emotions=EMOTIONS, size=SIDE, **preset, **arguments)


def faces(n: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).byte()


def test_layouts_and_fixed_batches_give_the_same_answers(tmp_path: Path) -> None:
    flat = weights().reshape(3, -1)
    last = weights().transpose(0, 2, 3, 1).reshape(3, -1)
    expected = torch.tensor(flat, dtype=torch.float32) @ (faces().float() / 255).flatten(1).T
    shapes = {
        "nchw": (flat, ("N", 3, SIDE, SIDE)),
        "nhwc": (last, ("N", SIDE, SIDE, 3)),
        "one": (flat, (1, 3, SIDE, SIDE)),
        "two": (flat, (2, 3, SIDE, SIDE)),
    }
    for name, (values, shape) in shapes.items():
        network = model(written(tmp_path / f"{name}.onnx", values, shape), **LABELS)
        found = network(faces())[:, :3]
        np.testing.assert_allclose(found, expected.T.double().log_softmax(1), atol=1e-4, err_msg=name)
        assert network.lacking == list(EMOTIONS[3:])


def test_metadata_says_what_the_suite_need_not(tmp_path: Path) -> None:
    told = {"labels": '["angry", "happy", "sad"]', "channels": "bgr", "range": "[0, 1]", "mean": "[0.5, 0.4, 0.3]"}
    network = model(written(tmp_path / "a.onnx", weights().reshape(3, -1), **told))
    assert network.said.labels == ("angry", "happy", "sad")
    pixels = faces().float().flip(1) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    np.testing.assert_allclose(network.pixels(faces()), pixels, atol=1e-5)
    both = model(tmp_path / "a.onnx", labels=["happy", "sad", "fear"])
    assert "labels: as the suite says" in both.said.words()


def test_what_a_graph_cannot_say_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "any.onnx", weights().reshape(3, -1), ("N", 3, "H", "W"))
    with pytest.raises(Unsaid, match=r"does not say side, and nothing is guessed. Set side = 224"):
        model(path, **LABELS)
    assert model(path, side=SIDE, **LABELS)(faces()).shape == (5, len(EMOTIONS))
    with pytest.raises(Unsaid, match=r"does not say labels, channels, range \(it tells 3 classes\)"):
        model(written(tmp_path / "b.onnx", weights().reshape(3, -1)))


@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        (("N", 3, SIDE, SIDE), ["age"], r"has 2 inputs \(faces .*, age .*\), and a classifier of faces has one"),
        (("N", "C", SIDE, SIDE), [], "neither \\(N, C, H, W\\) nor \\(N, H, W, C\\).*fixed number of channels"),
        (("N", 3, SIDE, 2 * SIDE), [], f"takes faces of {2 * SIDE} x {SIDE} px; only squares"),
        (("N", 3 * SIDE * SIDE), [], "not four dimensions of faces"),
    ],
)
def test_inputs_that_are_no_faces_are_refused_by_name(
    tmp_path: Path, shape: Sequence[Any], more: list[str], message: str
) -> None:
    values = math.prod(each if isinstance(each, int) else 3 for each in shape[1:])
    path = written(tmp_path / "a.onnx", np.zeros((3, values)), shape, more=more)
    with pytest.raises(SuiteError, match=message):
        model(path, **LABELS)


def test_of_several_outputs_one_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", weights().reshape(3, -1), second=True)
    with pytest.raises(SuiteError, match=r"which output tells the emotions\? .*scores \(3 classes\), valence"):
        model(path, **LABELS)
    network = model(path, **LABELS, output="scores", features="valence")
    logits, seen = network.read(faces())
    np.testing.assert_allclose(seen, network.own(network.pixels(faces())).clamp_min(0), atol=1e-5)
    assert logits.shape == (5, len(EMOTIONS))
    assert model(path, **LABELS, features="valence").output == "scores"  # the one that is left
    with pytest.raises(SuiteError, match="no output nothing of shape"):
        model(path, **LABELS, features="nothing")


# ---- an order of classes that is exchanged on purpose ----------------------------------------------------------------


def ridge(inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (8, D) and offsets (8,) of least squares from inputs (N, D) to one-hot labels."""
    centre = inputs.mean(0)
    x, y = inputs - centre, np.eye(len(EMOTIONS))[labels] - 1 / len(EMOTIONS)
    found = np.linalg.solve(x.T @ x + 0.01 * len(x) * x.var() * np.eye(x.shape[1]), x.T @ y).T
    return 8 * found, -8 * found @ centre


def pixels(data: Synthetic, rows: np.ndarray) -> np.ndarray:
    """(N, 3, SIDE, SIDE) in 0 to 1, as a network of that side is given them."""
    images = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(data.images[rows], (len(rows), 3, 32, 32)))).float()
    small = torch.nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (small / 255).numpy()


class SmallViT:
    """transformers' ViT with random weights and one patch: random numbers of all pixels, which its last layer reads."""

    def __init__(self, classes: int = len(EMOTIONS)) -> None:
        from transformers import ViTConfig, ViTForImageClassification

        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=512, num_hidden_layers=1, num_attention_heads=4, intermediate_size=256, image_size=SIDE,
            patch_size=SIDE, num_labels=classes, initializer_range=0.3,
        )  # fmt: skip
        self.network = ViTForImageClassification(config).eval()

    def read_by(self, head: np.ndarray, bias: np.ndarray) -> None:
        classifier = self.network.classifier
        classifier.weight.data, classifier.bias.data = torch.tensor(head).float(), torch.tensor(bias).float()

    def save(self, folder: Path, labels: Sequence[str]) -> None:
        """A folder of the network and its processor."""
        from transformers import ViTImageProcessor

        self.network.config.id2label = dict(enumerate(labels))
        self.network.config.label2id = {label: k for k, label in enumerate(labels)}
        self.network.save_pretrained(folder)
        ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks that read well enough, in three forms, each in its own order and with fear and sad exchanged."""
    from emobench.cli import main

    folder = tmp_path_factory.mktemp("forms")
    data = Synthetic(**DATA, variant="plain", cache=folder / "packs")
    data.prepare()
    train = np.flatnonzero(data.faces["split"] == "train")
    labels = data.faces["label"].to_numpy()
    exchanged = [{"sad": "fear", "fear": "sad"}.get(name, name) for name in EMOTIONS]
    said: dict[str, Sequence[str]] = {"right": EMOTIONS, "exchanged": exchanged}

    flat = pixels(data, train).reshape(len(train), -1)
    coefficients, offsets = ridge(flat, labels[train])
    with_offset = coefficients + offsets[:, None] / flat.sum(1).mean()  # the mean brightness carries the offset
    test = np.flatnonzero(data.faces["split"] == "test")
    answers = (pixels(data, test).reshape(len(test), -1) @ coefficients.T + offsets).argmax(1)

    vit = SmallViT()
    with torch.inference_mode():
        given = (torch.from_numpy(pixels(data, train)) - 0.5) / 0.5
        features = vit.network.vit(given).last_hidden_state[:, 0].numpy().astype(np.float64)
    vit.read_by(*ridge(features, labels[train]))

    rows = ""
    for name, order in said.items():
        written(folder / f"{name}.onnx", with_offset, labels=json.dumps(list(order)), channels="rgb", range="[0, 1]")
        rows += f'[model.onnx_{name}]\nclass = "onnx:{name}.onnx"\n'
        vit.save(folder / name, order)
        rows += f'[model.hf_{name}]\nclass = "hf:{name}"\n'
        ids = data.faces["id"].iloc[test]
        pd.DataFrame({"id": ids, "label": answers}).to_csv(folder / f"{name}.csv", index=False)
        rows += f'[model.csv_{name}]\nclass = "predictions:{name}.csv"\nlabels = {json.dumps(list(order))}\n'
    table = "\n".join(f"{name} = {value}" for name, value in DATA.items())
    (folder / "forms.toml").write_text(f"seeds = [0]\n[data.synthetic-plain]\n{table}\n{rows}")
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(folder / "forms.toml"), "--results", str(folder / "results")])
    assert not stop.value.code
    return folder / "results"


@pytest.mark.parametrize("form", ["onnx", "hf", "csv"])
def test_an_exchanged_order_is_found_in_every_form(board: Path, form: str) -> None:
    found = {}
    for cell in load_board(board, "forms"):
        if cell.row.startswith(f"{form}_"):
            assert cell.record is not None
            assert cell.record.evaluation is not None
            assert cell.record.evaluation.outside is not None
            order = cell.record.evaluation.outside.order
            assert order is not None
            assert order.checkable, order
            found[cell.row] = order.renamed, cell.record.evaluation.tracks["recognition"].values["accuracy"].value
    renamed, accuracy = found[f"{form}_right"]
    assert not renamed
    assert accuracy is not None
    assert accuracy > 0.4
    renamed, below = found[f"{form}_exchanged"]
    assert renamed == {"sad": "fear", "fear": "sad"}
    assert below is not None
    assert below < accuracy - 0.05


def test_the_page_names_the_exchange(board: Path) -> None:
    page = pages(board / "forms")
    for row in ("onnx_exchanged", "hf_exchanged", "csv_exchanged"):
        line = next(line for line in page.splitlines() if line.startswith(f"| {row} ") and "seem exchanged" in line)
        assert "sad rather tells fear" in line
