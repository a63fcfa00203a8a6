"""Models that emobench did not train, as rows of a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from reading import pages

from emobench.classifiers.outside import OutsideClassifier
from emobench.classifiers.python_file import modules
from emobench.data.datasets.synthetic import Synthetic
from emobench.emotions import EMOTIONS
from emobench.errors import SuiteError, Unsaid, WeightsError
from emobench.evaluation.outside import answers
from emobench.report.written import read_board
from emobench.runner.record import Record
from emobench.runner.store import load_board
from emobench.suite.catalog import resolve
from emobench.suite.expand import expand
from emobench.suite.file import load

DATA = {"size": 32, "train": 80, "val": 320, "test": 160}
SUITE = "\n".join(["[data.synthetic-plain]", *(f"{name} = {value}" for name, value in DATA.items())])

# A callable that reads four faces of five rightly, since it knows them; it tells classes in the order `ORDER`.
ORACLE = """
import hashlib
import json
from pathlib import Path

import numpy as np

KNOWN = json.loads((Path(__file__).parent / "known.json").read_text())
ORDER = {order}


def predict(faces):
    assert faces.dtype == np.uint8 and faces.shape[1:] == (3, 32, 32), faces.shape
    found = np.full((len(faces), len(ORDER)), 0.02, np.float32)
    for row, face in enumerate(faces):
        digest = hashlib.sha256(np.ascontiguousarray(face).tobytes()).hexdigest()
        place = ORDER.index(KNOWN[digest]) if int(digest[:4], 16) % 5 else int(digest[4:8], 16) % len(ORDER)
        found[row, place] += 1 - 0.02 * len(ORDER)
    return found
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    module = Synthetic(**DATA, variant="plain", cache=tmp_path_factory.mktemp("packs"))
    module.prepare()
    return module


@pytest.fixture(scope="module")
def known(data: Synthetic) -> str:
    import hashlib

    pixels = [np.broadcast_to(image, (3, 32, 32)) for image in data.images]
    digests = [hashlib.sha256(np.ascontiguousarray(each).tobytes()).hexdigest() for each in pixels]
    return json.dumps(
        {digest: data.emotions[label] for digest, label in zip(digests, data.faces["label"], strict=True)}
    )


def _run(*arguments: object) -> int:
    from emobench.cli import main

    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def oracle(folder: Path, known: str, order: tuple[str, ...] = EMOTIONS, name: str = "oracle.py") -> None:
    (folder / "known.json").write_text(known)
    (folder / name).write_text(ORACLE.format(order=list(order)))


def record_of(results: Path, board: str, row: str) -> Record:
    record = next(cell.record for cell in load_board(results, board) if cell.row == row)
    assert record is not None
    return record


def table(data: Synthetic, wrong: int = 5) -> pd.DataFrame:
    """Answers to the test faces of which each `wrong`-th is the next emotion's."""
    test = data.faces[data.faces["split"] == "test"]
    labels = test["label"].to_numpy()
    shift = np.arange(len(test)) % wrong == 0
    said = [data.emotions[label] for label in np.where(shift, (labels + 1) % 8, labels)]
    return pd.DataFrame({"id": test["id"], "prediction": said})


# ---- the rows of a board ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(data: Synthetic, known: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A callable in the right order and in an exchanged one, and predictions as classes and as probabilities."""
    folder = tmp_path_factory.mktemp("outside")
    oracle(folder, known)
    answers_ = table(data)
    answers_.to_csv(folder / "classes.csv", index=False)
    shares = np.full((len(answers_), 8), 0.05)
    shares[np.arange(len(answers_)), [EMOTIONS.index(each) for each in answers_["prediction"]]] = 0.65
    frame = pd.DataFrame({"id": answers_["id"], **{f"p_{name}": shares[:, k] for k, name in enumerate(EMOTIONS)}})
    frame.to_parquet(folder / "shares.parquet")
    swapped = list(EMOTIONS)
    swapped[2], swapped[4] = swapped[4], swapped[2]
    (folder / "s.toml").write_text(f"""
seeds = [0, 1]
{SUITE}
[model.right]
class = "python:oracle.py:predict"
labels = {json.dumps(EMOTIONS)}
trained_on = "these very faces"
claimed = {{ accuracy = 0.85, source = "a test" }}

[model.exchanged]
class = "python:oracle.py:predict"
labels = {json.dumps(swapped)}
trained_on = "these very faces"

[model.confirmed]
class = "python:oracle.py:predict"
labels = {json.dumps(swapped)}
trained_on = "these very faces"
labels_confirmed = true

[model.secret]
class = "python:oracle.py:predict"
labels = {json.dumps(EMOTIONS)}

[model.classes]
class = "predictions:classes.csv"
trained_on = "these very faces"

[model.shares]
class = "predictions:shares.parquet"
trained_on = "these very faces"
""")
    assert _run("bench", folder / "s.toml", "--results", folder / "results") == 0
    return folder


@pytest.mark.slow
def test_outside_rows_stand_on_a_board_with_all_that_is_known_of_them(board: Path) -> None:
    numbers = read_board(board / "results" / "s")
    whole = numbers[numbers["seed"].isna() & (numbers["emotion"] == "")].set_index(["variant", "metric"])["value"]
    assert whole["classes", "accuracy"] == pytest.approx(128 / 160)
    assert whole["shares", "accuracy"] == pytest.approx(128 / 160)
    assert whole["right", "accuracy"] == pytest.approx(0.825, abs=0.05)
    assert whole["secret", "accuracy"] == whole["right", "accuracy"]
    assert np.isnan(whole["classes", "nll"])
    assert np.isnan(whole["classes", "ece"])
    assert whole["shares", "nll"] == pytest.approx(-(0.8 * np.log(0.65) + 0.2 * np.log(0.05)), abs=1e-6)
    cell = next(each for each in load_board(board / "results", "s") if each.row == "right")
    assert cell.folder is not None
    raw = pd.read_parquet(cell.folder / "predictions.parquet")
    exchanged = raw["prediction"].replace({2: 4, 4: 2})
    assert whole["exchanged", "accuracy"] == pytest.approx((exchanged == raw["label"]).mean())
    assert [each.seed for each in load_board(board / "results", "s") if each.row == "right"] == [0]


@pytest.mark.slow
def test_an_exchanged_order_is_named_and_takes_no_rank_until_it_is_confirmed(board: Path) -> None:
    found = record_of(board / "results", "s", "exchanged").evaluation
    assert found is not None
    assert found.outside is not None
    assert found.outside.order is not None
    assert found.outside.order.renamed == {"fear": "sad", "sad": "fear"}
    assert (found.outside.order.split, found.outside.order.faces) == ("val", 320)
    page = pages(board / "results" / "s")
    lines = {line.split(" | ")[1]: line for line in page.splitlines() if line.startswith("| ") and " | " in line}
    assert lines["exchanged"].startswith("| would be 4th |")
    assert "labels exchanged?" in lines["exchanged"]
    assert lines["confirmed"].startswith("| 4 |")
    assert lines["secret"].startswith("| would be 1st |")
    assert "training data not known" in lines["secret"]
    assert "**seem exchanged**: fear rather tells sad, sad rather tells fear" in page
    assert "confirmed by the suite" in page
    assert "these very faces (a claim)" in page
    assert "| right | accuracy | 0.850 | " in page
    assert "nll" not in lines["classes"]
    right = record_of(board / "results", "s", "right").evaluation
    assert right is not None
    assert right.outside is not None
    assert right.outside.order is not None
    assert right.outside.order.renamed == {}
    assert right.outside.order.power > 0.9
    assert right.outside.preprocessing == "rgb values from 0 to 255; 32 px (labels: as the suite says)"


@pytest.mark.slow
def test_no_path_of_this_machine_stands_on_a_board_or_in_a_key(board: Path, tmp_path: Path) -> None:
    for path in (board / "results" / "s").rglob("*"):
        if path.suffix in (".md", ".csv", ".json") and path.name != "suite.json":
            assert str(board) not in path.read_text(), path
    again = tmp_path / "elsewhere"
    again.mkdir()
    for name in ("s.toml", "oracle.py", "known.json", "classes.csv", "shares.parquet"):
        (again / name).write_bytes((board / name).read_bytes())
    keys = [
        {cell.row: cell.eval_key for cell in expand(load(each / "s.toml"), tmp_path).cells} for each in (board, again)
    ]
    assert keys[0] == keys[1]


@pytest.mark.slow
def test_an_order_that_is_changed_after_an_audit_is_printed_as_such(board: Path, tmp_path: Path) -> None:
    text = (board / "s.toml").read_text()
    swapped = text[text.index("[model.exchanged]") :].split("labels = ")[1].splitlines()[0]
    (board / "later.toml").write_text(
        text[: text.index("[model.right]")]
        + f'[model.mended]\nclass = "python:oracle.py:predict"\nbatch = 32\nlabels = {json.dumps(EMOTIONS)}\n'
    )
    assert _run("bench", board / "later.toml", "--results", board / "results") == 0
    found = record_of(board / "results", "later", "mended").evaluation
    assert found is not None
    assert found.outside is not None
    assert found.outside.earlier == [json.loads(swapped)]
    page = pages(board / "results" / "later")
    assert "**changed after an audit** did not believe neutral, happy, fear, surprise, sad" in page
    assert "no row takes a rank; mended: macro F1" in page


# ---- what is done to faces -------------------------------------------------------------------------------------------


class Passes(OutsideClassifier):
    """Says what it was given: the mean of each channel."""

    name = "passes"
    family = "file"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)

    @classmethod
    def title(cls, arguments: Any) -> str:
        return "it"

    def own(self, pixels: torch.Tensor) -> torch.Tensor:
        self.given = pixels
        return torch.zeros(len(pixels), len(self.said.labels))


def passes(**outside: Any) -> Passes:
    given = {"labels": ["sad", "happy"], "channels": "rgb", "range": (0.0, 1.0), "side": 8, **outside}
    return Passes(emotions=("happy", "sad", "anger"), size=8, **given)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [1.0, 0.4, 0.0]),
        ({"channels": "bgr"}, [0.0, 0.4, 1.0]),
        ({"range": (-1.0, 1.0)}, [1.0, -0.2, -1.0]),
        ({"range": (0.0, 255.0), "mean": [255.0, 2.0, 0.0], "std": [2.0, 10.0, 1.0]}, [0.0, 10.0, 0.0]),
        ({"channels": "gray", "range": (0.0, 255.0)}, [round(0.299 * 255 + 0.587 * 102)]),
        ({"mean": [0.5], "std": [0.25]}, [2.0, -0.4, -2.0]),
    ],
)
def test_values_are_what_the_suite_says(said: dict[str, Any], expected: list[float]) -> None:
    face = np.stack([np.full((8, 8), value, np.uint8) for value in (255, 102, 0)])
    model = passes(**said)
    model.shares_of([face])
    np.testing.assert_allclose(model.given[0, :, 3, 3].numpy(), expected, atol=1e-5)
    model.shares(torch.from_numpy(face)[None])
    np.testing.assert_allclose(model.given[0, :, 3, 3].numpy(), expected, atol=1e-5)


def test_faces_come_from_the_source_in_one_resize(data: Synthetic) -> None:
    """And are not those of the evaluation size, resized again."""
    from PIL import Image

    face = np.random.default_rng(0).integers(0, 256, (1, 60, 50), np.uint8)
    model = passes(range=(0.0, 255.0), side=24)
    expected = np.asarray(Image.fromarray(face[0]).resize((24, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(model.taken([face])[0].numpy(), np.broadcast_to(expected, (3, 24, 24)))
    model = passes(range=(0.0, 255.0), side=24, margin=0.1)
    expected = np.asarray(Image.fromarray(face[0, 6:54, 5:45]).resize((24, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(model.taken([face])[0].numpy(), np.broadcast_to(expected, (3, 24, 24)))


def test_a_test_time_flip_is_the_mean_of_two_probabilities() -> None:
    class Sided(Passes):
        def own(self, pixels: torch.Tensor) -> torch.Tensor:
            left = pixels[:, 0, :, :4].mean((1, 2))  # 1 where the face is bright on the left
            return torch.stack([left, 1 - left], 1)

    given = {"labels": ["sad", "happy"], "channels": "rgb", "range": (0.0, 1.0), "side": 8, "outputs": "probabilities"}
    face = np.zeros((3, 8, 8), np.uint8)
    face[..., :4] = 255
    plain, flipped = (Sided(emotions=("happy", "sad"), size=8, flip=flip, **given) for flip in (False, True))
    assert plain.shares_of([face]).exp()[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert flipped.shares_of([face]).exp()[0].tolist() == pytest.approx([0.5, 0.5])


def test_classes_become_the_datasets_emotions() -> None:
    """A class that the dataset lacks is dropped and the rest renormalised; an emotion that it lacks has none."""
    model = passes(labels=["Sadness", "contempt", "joy"])
    assert (model.lacking, model.dropped) == (["anger"], ["contempt"])
    told = model.told(torch.log(torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64))).softmax(1)
    np.testing.assert_allclose(told[0].numpy(), [0.6, 0.4, 0.0], atol=1e-9)  # happy, sad, anger


def test_logits_and_probabilities_are_told_apart_by_all_of_a_batch() -> None:
    shares = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    model = passes()
    np.testing.assert_allclose(model._logarithms(shares).exp().numpy(), shares.numpy(), atol=1e-7)
    assert model.outputs == "probabilities"
    model = passes()
    found = model._logarithms(torch.tensor([[0.25, 0.75], [0.5, 0.6]]))  # the second row does not sum to 1
    assert model.outputs == "logits"
    np.testing.assert_allclose(found.exp().sum(1).numpy(), [1, 1])
    model = passes(outputs="logits")
    assert model._logarithms(shares)[0, 0] != pytest.approx(np.log(0.25))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"labels": None}, "does not say labels, and nothing is guessed"),
        (
            {"channels": None, "range": None},
            'does not say channels, range.*channels = "rgb", "bgr" or "gray"; range = ',
        ),
        ({"side": None}, "does not say side"),
        ({"labels": ["sad", "hapy"]}, "unknown emotion 'hapy': did you mean 'happy'"),
        ({"labels": ["sad", "sadness"]}, "two classes are sad"),
        ({"labels": ["other", "none"]}, "of which none is an emotion"),
        ({"mean": [0.5, 0.5]}, "mean has 2 values, and it takes 3 channels"),
        ({"std": [0.5, 0.0, 1.0]}, "each is above 0"),
        ({"range": (1.0, 1.0)}, "black and white are the same"),
    ],
)
def test_what_is_not_said_or_cannot_be_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        passes(**said)


def test_a_count_of_outputs_that_the_labels_do_not_have_is_refused() -> None:
    with pytest.raises(SuiteError, match=r"it gives \(1, 3\), and 2 classes are named: sad, happy"):
        passes()._logarithms(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('class = "onnx:none.onnx"', "none.onnx: no such file"),
        ('class = "python:none.py:predict"', "no file .*none.py"),
        ('class = "python:oracle.py:nothing"\nlabels = ["sad", "happy"]', None),  # seen when it is run
        ('class = "hf:folder"', "hf:folder: there is no such folder, and it is no repository"),
        ('class = "predictions:none.csv"', "none.csv: no such file"),
        ('class = "python:oracle.py:predict"\nlabels = ["sad", "happy"]\nclaimed = { accuracy = 1.2, source = "x" }',
         "claimed.accuracy: Input should be less than or equal to 1"),
        ('class = "python:oracle.py:predict"\nlabels = ["sad", "happy"]\nclaimed = { source = "x" }',
         "claimed names neither"),
        ('class = "python:oracle.py:predict"\nlabels = ["sad", "happy"]\nlabels_confirmed = 1', "labels_confirmed"),
        ('class = "resnet18"\ntrained_on = "x"', "trained_on is said of outside models alone"),
        ('class = "timm:resnet10t"\ncheckpoint = "none.safetensors"', "none.safetensors: no such file"),
        ('class = "timm:resnet10tt"\ncheckpoint = "oracle.py"', "unknown timm model 'resnet10tt'"),
    ],
)  # fmt: skip
def test_a_suite_says_what_it_cannot_take(
    lines: str, message: str | None, known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMOBENCH_OFFLINE", "1")
    oracle(tmp_path, known)
    (tmp_path / "s.toml").write_text(f"{SUITE}\n[model.x]\n{lines}\n")
    if message is None:
        expand(load(tmp_path / "s.toml"), tmp_path)
        return
    with pytest.raises((SuiteError, WeightsError), match=message):
        expand(load(tmp_path / "s.toml"), tmp_path)


def test_modules_of_the_same_folder_count_for_the_key_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\nimport json\nfrom pack import inner\n")
    (tmp_path / "b.py").write_text("from c import value\n")
    (tmp_path / "c.py").write_text("value = 1\n")
    (tmp_path / "unused.py").write_text("value = 2\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "inner.py").write_text("")
    names = [path.relative_to(tmp_path).as_posix() for path in modules(tmp_path / "a.py")]
    assert sorted(names) == ["a.py", "b.py", "c.py", "pack/__init__.py", "pack/inner.py"]
    (tmp_path / "a.py").write_text("import (\n")
    with pytest.raises(SuiteError, match="is no Python"):
        modules(tmp_path / "a.py")


# ---- networks of the libraries ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT of transformers with its processor, whose weights are random."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("hf") / "face-vit"
    labels = {0: "angry", 1: "happy", 2: "sad"}
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=24, patch_size=8,
        id2label=labels, label2id={label: k for k, label in labels.items()},
    )  # fmt: skip
    ViTForImageClassification(config).eval().save_pretrained(folder)
    size = {"height": 24, "width": 24}
    ViTImageProcessor(size=size, image_mean=[0.4] * 3, image_std=[0.3] * 3, resample=3).save_pretrained(folder)
    return folder


def test_a_repository_of_transformers_goes_through_its_own_processor(repository: Path, data: Synthetic) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    cls, preset = resolve("model", f"hf:{repository}")
    model = cls(emotions=tuple(data.emotions), size=32, **preset).eval()
    words = "rgb values from 0 to 1; less 0.4, 0.4, 0.4, by 0.3, 0.3, 0.3; 24 px (as its file says)"
    assert model.said.words() == words
    assert model.said.labels == ("angry", "happy", "sad")
    test = data.faces[data.faces["split"] == "test"].head(40)
    found = answers(model, data, test)
    processor, network = (
        AutoImageProcessor.from_pretrained(repository),
        AutoModelForImageClassification.from_pretrained(repository),
    )
    pictures = [Image.fromarray(data.images[row][0]).convert("RGB") if len(data.images[row]) == 1
                else Image.fromarray(data.images[row].transpose(1, 2, 0)) for row in test.index]  # fmt: skip
    with torch.inference_mode():
        expected = network(**processor(images=pictures, return_tensors="pt")).logits.softmax(1).double().numpy()
    order = [data.emotions.index(name) for name in ("anger", "happy", "sad")]
    np.testing.assert_allclose(found.probabilities[:, order], expected, atol=1e-5)
    assert found.probabilities.sum(1) == pytest.approx(np.ones(40))
    assert set(np.flatnonzero(found.probabilities.max(0))) == set(order)


def changed(repository: Path, folder: Path, **changes: Any) -> Path:
    import shutil

    copy = folder / "changed"
    shutil.copytree(repository, copy)
    config = json.loads((copy / "config.json").read_text())
    config.update(changes)
    (copy / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return copy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label2id": {"angry": 1, "happy": 0, "sad": 2}}, "contradicts itself: label2id says angry is 1"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "wants code of its own to be run"),
        ({"id2label": None}, "without id2label"),
        ({"id2label": {"1": "angry", "2": "happy"}}, "not from 0 on"),
        (
            {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {}},
            "names its classes LABEL_0, LABEL_1, of which none",
        ),
    ],
)
def test_a_configuration_that_cannot_be_believed_is_refused(
    changes: dict[str, Any], message: str, repository: Path, tmp_path: Path
) -> None:
    cls, preset = resolve("model", f"hf:{changed(repository, tmp_path, **changes)}")
    with pytest.raises(SuiteError, match=message):
        cls.settled(preset, 32)


def test_without_a_processor_the_range_has_to_be_said(repository: Path, tmp_path: Path) -> None:
    copy = changed(repository, tmp_path)
    (copy / "preprocessor_config.json").unlink()
    cls, preset = resolve("model", f"hf:{copy}")
    with pytest.raises(Unsaid, match="does not say range"):
        cls.settled(preset, 32)
    assert cls.settled({**preset, "range": (0.0, 1.0)}, 32).side == 24


@pytest.mark.parametrize("form", ["folder", "safetensors", "state dict"])
def test_a_checkpoint_of_timm_says_its_classes(form: str, tmp_path: Path, data: Synthetic) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=3).eval()
    names, more = ["sad", "joy", "angry"], {"range": (0.0, 1.0), "channels": "rgb", "side": 32}
    if form == "folder":
        config = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32], "label_names": names}
        path = tmp_path / "model.safetensors"
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet10t", "pretrained_cfg": config}))
        save_file(network.state_dict(), path)
        path, more = tmp_path, {}
    elif form == "safetensors":
        path = tmp_path / "x.safetensors"
        save_file(network.state_dict(), path, {"classes": json.dumps(names)})
    else:
        path = tmp_path / "x.pth"
        torch.save({"state_dict": network.state_dict(), "class_to_idx": {"joy": 1, "sad": 0, "angry": 2}}, path)
    cls, preset = resolve("model", "timm-checkpoint:resnet10t")
    model = cls(emotions=tuple(data.emotions), size=32, checkpoint=str(path), **preset, **more).eval()
    assert model.said.labels == ("sad", "joy", "angry")
    face = data.images[0]
    pixels = torch.from_numpy(np.broadcast_to(face, (3, 32, 32)).copy())[None].float() / 255
    if form == "folder":
        pixels = (pixels - 0.5) / 0.5
    with torch.inference_mode():
        expected = network(pixels).softmax(1)
        found = model.shares_of([face]).exp()
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    import os
    import pickle

    class Bad:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "x.pth").write_bytes(pickle.dumps({"state_dict": Bad(), "classes": ["sad", "joy"]}))
    cls, preset = resolve("model", "timm-checkpoint:resnet10t")
    with pytest.raises(WeightsError, match="nothing in it was executed"):
        cls.settled({**preset, "checkpoint": str(tmp_path / "x.pth"), "range": (0.0, 1.0)}, 32)
    assert not (tmp_path / "harm").exists()
