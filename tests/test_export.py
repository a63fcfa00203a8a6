"""Networks as files for others: the same predictions in a fresh process, refusals, cards, and files of strangers."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from watching import ran

import emobench as package
from emobench.classifiers.classifier import EmotionClassifier
from emobench.data.datasets.synthetic import Synthetic
from emobench.errors import WeightsError
from emobench.exported import load, parity
from emobench.exported.hf import HfClassifier
from emobench.exported.network import Networks, exportable
from emobench.exported.onnx import graph_of, noise_of, write_onnx
from emobench.nn.provenance import Provenance, provenance
from emobench.runner.build import load_model
from emobench.runner.record import read_record
from emobench.runner.store import Store, load_board, sha256_of
from emobench.suite.catalog import classes, parameters, resolve

Emobench = Callable[..., int]
EMOTIONS = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"]
RUN, BOARD = "tiny/synthetic-plain/resnet18", "made/synthetic-plain"


def noisy(n: int, size: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=random).to(torch.uint8)


# Runs the programs that it is sent, one a line.
STRANGER = """
import contextlib, io, json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    folder, code, *sys.argv[1:] = json.loads(line)
    os.chdir(folder)
    said, failed = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(said):
            exec(code, {"__name__": "__main__"})
    except BaseException:
        failed = traceback.format_exc()
    print(json.dumps([said.getvalue(), failed]), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable[..., str]]:
    """`elsewhere(library, code, folder, ...)`: what a program prints in a process that knows nothing of emobench.

    There is one process for the programs that use a library, since most of their time is to import it.
    """
    plain = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    strangers: dict[str, subprocess.Popen[str]] = {}

    def run(library: str, code: str, folder: Path, *arguments: object) -> str:
        if library not in strangers:
            command = [sys.executable, "-c", STRANGER]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            strangers[library] = subprocess.Popen(command, text=True, env=plain, **pipes)
        asked, answers = strangers[library].stdin, strangers[library].stdout
        assert asked is not None
        assert answers is not None
        print(json.dumps([str(folder), code, *map(str, arguments)]), file=asked, flush=True)
        said, failed = json.loads(answers.readline())
        assert failed is None, failed
        return str(said)

    yield run
    for stranger in strangers.values():
        stranger.communicate()


def shares(logits: torch.Tensor | np.ndarray) -> np.ndarray:
    return torch.as_tensor(logits).double().softmax(1).numpy()


def key_of(results: Path, board: str, row: str) -> str:
    return next(cell.fit_key for cell in load_board(results, board) if cell.row == row)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, str]]:
    """`exported(results, run, form)`: the folder that the command wrote into, and what it said; once each."""
    from emobench.cli import main

    top = tmp_path_factory.mktemp("exported")

    @functools.cache
    def run(results: Path, name: str, form: str) -> tuple[Path, str]:
        out, said = top / f"{form}-{re.sub('[/:]', '-', name)}", io.StringIO()
        with pytest.raises(SystemExit) as stop, contextlib.redirect_stdout(said):
            main(["export", name, "--to", form, "--out", str(out), "--results", str(results)])
        assert not stop.value.code
        return out, said.getvalue()

    return run


@pytest.fixture
def export(exported: Callable[..., tuple[Path, str]], tmp_path: Path) -> Callable[..., Path]:
    """`export(results, run, form)`: a copy of the file that the command writes, or of the folder; says what it said."""

    def run(results: Path, name: str, form: str) -> Path:
        made, said = exported(results, name, form)
        print(said, end="")
        out = shutil.copytree(made, tmp_path / made.name, dirs_exist_ok=True)
        return out if form == "hf" else next(out.glob(f"*.{form}"))

    return run


# Classifiers


@pytest.fixture(scope="module")
def folder_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that transformers has classes for, on a folder of pictures that is gone afterwards."""
    from emobench.cli import main

    home = tmp_path_factory.mktemp("folder")
    data = Synthetic(size=32, variant="plain", train=80, val=40, test=40)
    data.prepare()
    for place, (split, label) in enumerate(zip(data.faces["split"], data.faces["label"], strict=True)):
        path = home / "data" / "drawn" / split / EMOTIONS[label] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[place, 0]).save(path)
    (home / "own.toml").write_text("""
seeds = [0]
[data."folder:drawn"]
size = 32
[model.vit_linear]
class = "vit_linear-small-faces"
dim = 32
depth = 1
patch = 8
epochs = 2
[model."timm:test_vit"]
size = 64
epochs = 1
batch = 20
""")
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(home / "own.toml"), "--results", str(home / "results"), "--data", str(home / "data")])
    assert not stop.value.code
    shutil.rmtree(home / "data")
    return home / "results"


ONNX_READS = """
import json, sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
logits = [session.run(None, {"images": numpy.load("faces.npy")[:n]})[0] for n in (1, 12)]
said = session.get_modelmeta().custom_metadata_map
print(json.dumps({"logits": logits[1].tolist(), "one": logits[0].tolist(), "emotions": json.loads(said["emotions"])}))
assert "torch" not in sys.modules
"""


def test_a_classifier_in_onnx_says_the_same_to_onnxruntime_alone(
    export: Callable[..., Path],
    elsewhere: Callable[..., str],
    tiny_results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = export(tiny_results, RUN, "onnx")
    said = capsys.readouterr().out
    assert re.search(r"a probability is [\d.e-]+, on 64 validation faces of synthetic-plain", said)
    faces = noisy(12, 32)
    np.save(tmp_path / "faces.npy", faces.numpy())
    answer = json.loads(elsewhere("onnxruntime", ONNX_READS, tmp_path, path))
    network = package.load(tiny_results, "tiny", "resnet18")
    assert answer["emotions"] == list(network.emotions)
    np.testing.assert_allclose(shares(np.array(answer["logits"])), shares(network(faces)), atol=1e-4)
    np.testing.assert_allclose(answer["one"][0], answer["logits"][0], atol=1e-4)
    assert str(Path(package.__file__).parent).encode() not in path.read_bytes()  # no folder of this machine


def test_predictions_of_a_file_are_those_of_its_cell(
    export: Callable[..., Path],
    emobench: Emobench,
    tiny_results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [export(tiny_results, RUN, form) for form in ("onnx", "safetensors")]
    Image.fromarray(noisy(1, 50)[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    answers = []
    for run in (RUN, *files):
        capsys.readouterr()
        options = ("--format", "json", "--results", tiny_results if run == RUN else tmp_path / "none")
        assert emobench("predict", run, tmp_path / "a.png", *options) == 0
        answers.append(json.loads(capsys.readouterr().out)[0])
    for answer in answers[1:]:
        assert answer["emotion"] == answers[0]["emotion"]
        np.testing.assert_allclose([answer[e] for e in EMOTIONS], [answers[0][e] for e in EMOTIONS], atol=1e-4)
    network = package.load(tiny_results, "tiny", "resnet18")
    code = "import emobench, sys, torch; print(emobench.load(sys.argv[1])(torch.ones(1, 3, 9, 9).byte()).tolist())"
    logits = json.loads(ran(code, tmp_path, files[1]))
    assert torch.tensor(logits).allclose(network(torch.ones(1, 3, 9, 9).byte()), atol=1e-5)


@pytest.mark.parametrize(("row", "kind"), [("vit_linear", "ViT"), ("timm:test_vit", "TimmWrapper")])
def test_transformers_loads_a_folder_by_its_own_classes(
    export: Callable[..., Path],
    elsewhere: Callable[..., str],
    folder_results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    row: str,
    kind: str,
) -> None:
    folder = export(folder_results, f"own/folder:drawn/{row}", "hf")
    assert "pictures of random pixels (folder:drawn is not at hand)" in capsys.readouterr().out
    network = package.load(folder_results, "own", row)
    faces = noisy(12, network.size)
    np.save(tmp_path / "faces.npy", faces.numpy())
    code = """
import json, sys, numpy, PIL.Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()
pictures = [PIL.Image.fromarray(face.transpose(1, 2, 0)) for face in numpy.load("faces.npy")]
logits = model(**AutoImageProcessor.from_pretrained(sys.argv[1])(pictures, return_tensors="pt")).logits
print(json.dumps([type(model).__name__, logits.tolist(), model.config.id2label, model.config.label2id]))
assert not any(name.startswith("emobench") for name in sys.modules)
"""
    name, logits, names, places = json.loads(elsewhere("transformers", code, tmp_path, folder))
    assert name == f"{kind}ForImageClassification"
    np.testing.assert_allclose(shares(np.array(logits)), shares(network(faces)), atol=1e-4)
    assert [names[str(k)] for k in range(8)] == list(network.emotions) == list(places)
    assert not list(folder.glob("*.py"))
    assert provenance(folder).emotions == list(network.emotions)  # type: ignore[union-attr]


def test_pictures_of_another_size_go_through_the_folders_own_processor(
    export: Callable[..., Path], folder_results: Path
) -> None:
    network = package.load(folder_results, "own", "vit_linear")
    read = HfClassifier(export(folder_results, "own/folder:drawn/vit_linear", "hf"))
    faces = noisy(3, 32).repeat_interleave(2, 2).repeat_interleave(2, 3)  # 64 px
    np.testing.assert_allclose(shares(read(faces)), shares(network(faces)), atol=0.02)  # it rounds to grey levels


# What the graph holds, of networks that are not trained


def untrained(name: str, size: int = 32, **arguments: Any) -> Any:
    torch.manual_seed(0)
    cls, preset = resolve("model", name)
    network = cls(emotions=tuple(EMOTIONS), size=size, **{**preset, **arguments})
    for key, value in network.named_parameters():
        if key.endswith("noise_strength"):
            value.data.fill_(0.3)
    return network.eval().requires_grad_(False)


def as_onnx(network: Any, size: int, path: Path) -> Path:
    graph = graph_of(network, size)
    said = Provenance(
        emobench="0",
        row="r",
        model="m",
        seed=0,
        emotions=list(network.emotions),
        size=size,
        inputs=list(graph.inputs),
        outputs="logits" if graph.outputs == "logits" else "images",
        noise=noise_of(graph.noise),
        fit_key="k",
        dataset="d",
        dataset_fingerprint="f",
        lineage={"k": {"row": "r", "model": "m"}},  # type: ignore[dict-item]
    )
    write_onnx(path, graph, said)
    return path


class Own(EmotionClassifier):
    """A class that computes its logits in a way of its own."""

    name = "own_forward"
    source = "here"
    recipe = None

    def __init__(self, *, emotions: Any, size: int) -> None:
        super().__init__(emotions=emotions, size=size)
        self.layer = torch.nn.Linear(3, len(self.emotions))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.float().mean((2, 3)) / 255  # (N, 3)
        logits: torch.Tensor = self.layer(means.view(len(images), -1))
        return logits


class Pixels(EmotionClassifier):
    """One of every pixel of a face of its size, of which torch makes a graph in a second."""

    name = "of_pixels"
    source = "here"
    recipe = None

    def __init__(self, *, emotions: Any, size: int) -> None:
        super().__init__(emotions=emotions, size=size)
        self.layer = torch.nn.Linear(3 * size * size, len(self.emotions))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(pixels.flatten(1))
        return logits


@pytest.mark.parametrize("size", [32, 20, 47])
def test_the_antialiased_resize_is_in_the_graph(tmp_path: Path, size: int) -> None:
    torch.manual_seed(0)
    network = Pixels(emotions=tuple(EMOTIONS), size=32).eval()
    path = as_onnx(network, size, tmp_path / "a.onnx")
    assert parity.parity(network, path, "onnx", noisy(64, size), "faces").largest < 1e-5


def test_an_ensemble_of_sizes_and_a_class_of_ones_own_are_one_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    members = [Pixels(emotions=tuple(EMOTIONS), size=40), untrained("cnn21", 32, padding=True)]
    ensemble = resolve("model", "ensemble")[0](emotions=tuple(EMOTIONS), size=36, members=members).eval()
    own = Own(emotions=tuple(EMOTIONS), size=36).eval()
    for network in (ensemble, own):
        path = as_onnx(network, 36, tmp_path / f"{network.name}.onnx")
        assert parity.parity(network, path, "onnx", noisy(64, 36), "faces").largest < 1e-5
        assert shares(load(path)(noisy(3, 36))).shape == (3, 8)  # of any number of faces


MADE = {
    "stylegan2": {"latent": 8, "style": 8, "base": 128, "most": 8, "truncation": 0.7},
    "stylegan2 unconditional": {"latent": 8, "style": 8, "base": 128, "most": 8, "conditional": False},
    "stargan of two datasets": {"width": 8, "blocks": 1, "discriminator_width": 8, "datasets": ("a", "b")},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if "unconditional" in name else name for name in MADE]
)
def test_seeds_give_the_same_faces(tmp_path: Path, name: str) -> None:
    network = untrained(name.split()[0], **MADE[name])
    if network.name == "stargan":
        network.dataset = "b"
    path = as_onnx(network, 40, tmp_path / "a.onnx")
    assert parity.parity(network, path, "onnx", noisy(64, 40), "faces").largest <= 1
    session = onnxruntime.InferenceSession(path)
    emotions = np.eye(8, dtype=np.float32)[[3, 1, 7]]
    if network.name == "stargan":
        made = session.run(None, {"faces": noisy(3, 40).numpy(), "emotions": emotions})[0]
        wanted = network.edit(noisy(3, 40), torch.tensor(emotions), torch.arange(3))
        other = network.edit(noisy(3, 40), torch.tensor(emotions), torch.arange(3), "a")
        assert int((other.int() - wanted.int()).abs().max()) > 1  # it is told which dataset
    else:
        said = provenance(path)
        assert said is not None
        assert said.noise is not None
        assert said.noise.seeds.startswith("noise[i] = numpy.random.default_rng(seeds[i]).standard_normal(")
        noise = [np.random.default_rng(s).standard_normal(said.noise.dimensions, np.float32) for s in (5, 6, 900)]
        made = session.run(None, {"emotions": emotions, "noise": np.stack(noise)})[0]
        wanted = network.sample(torch.tensor(emotions), torch.tensor([5, 6, 900]))
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - wanted.numpy().astype(int)).max() <= 1


# Generators, as trained


@pytest.mark.parametrize("row", ["cvae", pytest.param("vit_cvae", marks=pytest.mark.long), "stargan"])
def test_generators_draw_the_same_from_both_forms(
    export: Callable[..., Path], generated: Path, tmp_path: Path, row: str
) -> None:
    network = package.load(generated, "made", row)
    emotions, seeds = torch.eye(8)[[0, 4, 6]], torch.tensor([11, 3, 70])
    faces = noisy(3, 32)
    path = export(generated, f"{BOARD}/{row}", "safetensors")
    code = """
import sys, torch, emobench
model = emobench.load(sys.argv[1])
emotions, seeds, faces = torch.load("asked.pt")
drawn = [model.sample(emotions, seeds)] if hasattr(model, "sample") else []
torch.save([model.edit(faces, emotions, seeds), *drawn], "m.pt")
"""
    torch.save([emotions, seeds, faces], tmp_path / "asked.pt")
    ran(code, tmp_path, path)
    edited, *drawn = torch.load(tmp_path / "m.pt")
    assert torch.equal(edited, network.edit(faces, emotions, seeds))
    session = onnxruntime.InferenceSession(export(generated, f"{BOARD}/{row}", "onnx"))
    if row == "stargan":
        made, wanted = session.run(None, {"faces": faces.numpy(), "emotions": emotions.numpy()})[0], edited
    else:
        wanted = network.sample(emotions, seeds)
        assert torch.equal(drawn[0], wanted)
        noise = np.stack([np.random.default_rng(s).standard_normal(8, np.float32) for s in seeds.tolist()])
        made = session.run(None, {"emotions": emotions.numpy(), "noise": noise})[0]
    assert np.abs(made.astype(int) - wanted.numpy().astype(int)).max() <= 1


def test_who_is_behind_a_network_stands_in_each_file(export: Callable[..., Path], generated: Path) -> None:
    store, key, guide = Store(generated), key_of(generated, "made", "cvae"), key_of(generated, "made", "vgg16")
    for form in ("onnx", "safetensors"):
        said = provenance(export(generated, f"{BOARD}/cvae", form))
        assert said is not None
        assert (said.fit_key, said.weights_sha256) == (key, sha256_of(store.weights(key)))
        assert set(said.lineage) == {key, guide}
        assert said.lineage[key].needs == {"guide": [guide]}
        assert said.lineage[guide].sha256 == sha256_of(store.weights(guide))
        fit = read_record(store.fit_folder(guide) / "fit.json").fit
        assert fit is not None
        assert fit.weights is not None
        assert said.lineage[guide].judge == fit.weights.judge
        evaluation = load_board(generated, "made")[0].record.evaluation  # type: ignore[union-attr]
        assert said.dataset_fingerprint == evaluation.dataset.fingerprint  # type: ignore[union-attr]
        assert said.size == said.makes == 32
        assert said.emotions == EMOTIONS
    names = onnxruntime.InferenceSession(export(generated, f"{BOARD}/resnet18", "onnx")).get_modelmeta()
    properties = names.custom_metadata_map
    assert properties["channels"] == "rgb"
    assert properties["range"] == "0-255"
    assert properties["outputs"] == "logits"
    assert json.loads(properties["size"]) == 32
    assert json.loads(properties["figures"])[0]["metric"] == "macro_f1"
    assert "MIT" in properties["licence"]


def test_a_network_that_works_with_others_brings_them(tmp_path: Path) -> None:
    from emobench.exported.network import Described, read_network, without_files, write_network

    guide = untrained("vgg16", width=0.0625, stem="small", pool=1, head=16)
    generator = untrained("stylegan2", latent=8, style=8, base=128, most=8)
    search = untrained("latent_search", generator=[generator], guide=[guide], steps=2, projection_steps=2)
    style = untrained("style_transfer", width=4, perceptual="guide", weights=None, guide=[guide], classifier=[guide])
    members = untrained("ensemble", members=[guide, untrained("cnn21", padding=True)])
    parts = {"g": generator, "v": guide, "c": members.members[1]}

    def described(network: Any, needs: dict[str, list[str]]) -> Described:
        known = {name: value for name, value in network.hparams.items() if name in parameters(type(network))}
        arguments, left_out = without_files(type(network), json.loads(json.dumps(known)))
        fields = {"model": network.name, "arguments": arguments, "emotions": EMOTIONS, "size": 32, "needs": needs}
        return Described(**fields, datasets=[], dataset=None, left_out=left_out)

    emotions, seeds = torch.eye(8)[[1, 2]], torch.tensor([4, 5])
    for network, needs in (
        (search, {"generator": ["g"], "guide": ["v"]}),
        (style, {"guide": ["v"], "classifier": ["v"]}),
        (members, {"members": ["v", "c"]}),
    ):
        used = {each for keys in needs.values() for each in keys}
        networks = {"main": described(network, needs), **{key: described(parts[key], {}) for key in used}}
        states = {"main": network.state_dict(), **{key: parts[key].state_dict() for key in used}}
        path = tmp_path / f"{network.name}.safetensors"
        said = Provenance(
            emobench="0", row="r", model="m", seed=0, emotions=EMOTIONS, size=32, fit_key="main", dataset="d",
            dataset_fingerprint="f", lineage={"main": {"row": "r", "model": "m"}},  # type: ignore[dict-item]
        )  # fmt: skip
        write_network(path, Networks(main="main", networks=networks), states, said)
        before = torch.get_rng_state()
        found = read_network(path)
        assert torch.equal(torch.get_rng_state(), before)  # whoever loads a network draws what it would have drawn
        if network is members:
            assert torch.equal(found(noisy(2, 32)), network(noisy(2, 32)))
        elif network is style:
            assert torch.equal(found.stylize(noisy(2, 32)), network.stylize(noisy(2, 32)))
        else:
            assert torch.equal(found.sample(emotions, seeds), network.sample(emotions, seeds))


# Refusals


@pytest.mark.parametrize(
    ("row", "form", "message"),
    [
        ("diffusion", "onnx", "diffusion does not draw in one pass, which ONNX does not hold. Take --to safetensors"),
        ("resnet18", "hf", "transformers has no class for resnet18.*Take --to onnx"),
        ("vit", "hf", "transformers has no class for vit:.*Take --to onnx"),
        ("cvae", "hf", "transformers has no class for cvae.*Take --to safetensors"),
        ("cvea", "onnx", "did you mean 'made/synthetic-plain/cvae'"),
    ],
)
def test_what_a_form_cannot_hold_is_refused_with_another(
    emobench: Emobench,
    generated: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    row: str,
    form: str,
    message: str,
) -> None:
    out = tmp_path / "out"
    assert emobench("export", f"{BOARD}/{row}", "--to", form, "--out", out, "--results", generated) == 2
    assert re.search(message, capfd.readouterr().err)
    assert not out.exists()


def test_the_best_of_a_board_is_its_best_classifier(
    emobench: Emobench, generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        emobench(
            "export", "best:made/synthetic-plain", "--to", "safetensors", "--out", tmp_path, "--results", generated
        )
        == 0
    )
    cells = [cell for cell in load_board(generated, "made") if cell.control is None and cell.track == "recognition"]
    best = max(cells, key=lambda cell: cell.record.fit.validation.macro_f1)  # type: ignore[union-attr]
    assert f"{best.row} on synthetic-plain" in capsys.readouterr().out
    assert (tmp_path / f"{best.row}.safetensors").exists()


def test_nothing_is_overwritten_without_force(
    emobench: Emobench, tiny_results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, card = tmp_path / "a.safetensors", tmp_path / "MODEL_CARD.md"
    run = ["export", RUN, "--to", "safetensors", "--results", tiny_results]
    path.write_text("mine")
    assert emobench(*run, "--out", path) == 2
    assert "is there already. Choose another --out, or --force" in capfd.readouterr().err
    assert path.read_text() == "mine"
    card.write_text("my own card")
    assert emobench(*run, "--out", tmp_path / "b.safetensors") == 2
    assert "a card of something else" in capfd.readouterr().err
    assert emobench(*run, "--out", path, "--force") == 0
    assert load(path).emotions == tuple(EMOTIONS)
    assert card.read_text().startswith("# resnet18")
    assert emobench(*run, "--out", tmp_path / "b.safetensors") == 0  # the card of the same network is renewed
    text = card.read_text()
    assert "`a.safetensors`" in text
    assert "`b.safetensors`" in text
    assert emobench("export", path, "--to", "onnx") == 2
    assert "an exported file. Name the cell" in capfd.readouterr().err
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "x").touch()
    assert emobench(*run, "--out", tmp_path / "a.onnx") == 2
    assert "ends in .safetensors" in capfd.readouterr().err


def test_a_folder_that_holds_something_is_left_alone(
    emobench: Emobench, folder_results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    run = ["export", "own/folder:drawn/vit_linear", "--to", "hf", "--out", tmp_path, "--results", folder_results]
    assert emobench(*run) == 2
    assert "not empty" in capfd.readouterr().err
    assert emobench(*run, "--force") == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {
        "notes.txt", "config.json", "model.safetensors", "preprocessor_config.json", "README.md",
    }  # fmt: skip


def test_a_file_that_differs_from_its_network_is_not_kept(
    emobench: Emobench,
    tiny_results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(parity, "PROBABILITY", 1e-12)  # which rounding alone exceeds
    (tmp_path / "a.onnx").write_text("the last good one")
    run = ["export", RUN, "--to", "onnx", "--out", tmp_path / "a.onnx", "--force", "--results", tiny_results]
    assert emobench(*run) == 1
    assert re.search(
        r"not exported: the largest difference of a probability is [\d.]+e-\d+, on 64", capfd.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    assert (tmp_path / "a.onnx").read_text() == "the last good one"


# The card


def snippets(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)


def test_figures_of_a_card_are_those_of_the_board(export: Callable[..., Path], generated: Path) -> None:
    board = pd.read_csv(generated / "made" / "metrics.csv", keep_default_na=False)
    for row, wanted in (
        ("resnet18", ["macro_f1", "accuracy", "ece"]),
        ("cvae", ["control_calibrated", "control", "fed"]),
    ):
        card = (export(generated, f"{BOARD}/{row}", "safetensors").parent / "MODEL_CARD.md").read_text()
        mine = board[(board["model"] == row) & (board["seed"] == "0") & (board["judge"] == "")]
        for metric in wanted:
            number = mine[(mine["metric"] == metric) & mine["emotion"].isin(["", "macro"])].iloc[0]
            value, low, high = (None if each == "" else float(each) for each in number[["value", "low", "high"]])
            shown = f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f}–{high:.3f})"
            assert f"| {shown.replace('-', '−')} | {int(number['n']):,} |" in card, metric
        said = json.loads((generated / "made" / "metrics.json").read_text())["controls"]
        assert said
        for control in said:
            assert f"| `{control['name']}` | {control['track']} | {control['what']} | {control['value']:.3f}".replace(
                "-", "−"
            ) in card.replace("-", "−")
        assert "| train | 160 | 160" in card
        assert "1,280 |" in card
        assert "hiring" in card
        assert "it has never seen a photograph" in card


def test_the_code_of_a_card_runs(
    export: Callable[..., Path], elsewhere: Callable[..., str], generated: Path, folder_results: Path
) -> None:
    picture = noisy(1, 40)[0].permute(1, 2, 0).numpy()
    network = package.load(generated, "made", "resnet18")
    reduced = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR))
    read = network.emotions[int(network(torch.tensor(reduced).permute(2, 0, 1)[None]).argmax())]
    for row in ("cvae", "stargan"):
        for form in ("onnx", "safetensors"):
            folder = export(generated, f"{BOARD}/{row}", form).parent
            Image.fromarray(picture).save(folder / "face.png")
            (code,) = snippets(folder / "MODEL_CARD.md")
            assert code.count("\n") <= 5
            ran(code, folder) if form == "safetensors" else elsewhere("onnxruntime", code, folder)
            (made,) = [path for path in folder.glob("*.png") if path.name != "face.png"]
            assert Image.open(made).size == (32, 32)
    folder = export(generated, f"{BOARD}/resnet18", "onnx").parent
    Image.fromarray(picture).save(folder / "face.png")
    (code,) = snippets(folder / "MODEL_CARD.md")
    assert elsewhere("onnxruntime", code, folder).strip() == read
    folder = export(folder_results, "own/folder:drawn/vit_linear", "hf")
    Image.fromarray(picture).save(folder / "face.png")
    (code,) = snippets(folder / "README.md")
    said = elsewhere("transformers", code, folder)
    assert all(emotion in said for emotion in ("happy", "score"))
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers")
    assert "whose licence and terms of use, which emobench does not know" in card
    assert "never seen a photograph" not in card


def test_a_cell_by_its_key_has_the_card_of_its_board(export: Callable[..., Path], tiny_results: Path) -> None:
    path = export(tiny_results, key_of(tiny_results, "tiny", "resnet18")[:10], "safetensors")
    assert "From the board `tiny`" in (path.parent / "MODEL_CARD.md").read_text()
    said = provenance(path)
    assert said is not None
    assert said.figures[0].board == "tiny"


# Files of strangers


@pytest.fixture
def honest(export: Callable[..., Path], tiny_results: Path) -> Path:
    return export(tiny_results, RUN, "safetensors")


def changed(
    path: Path, change: Callable[[dict[str, Any]], None], tensors: dict[str, torch.Tensor] | None = None
) -> Path:
    """The file with what it says of its network changed."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    network = json.loads(metadata["network"])
    change(network)
    metadata["network"] = json.dumps(network)
    save_file(load_file(path) if tensors is None else tensors, path, metadata)
    return path


def main_of(network: dict[str, Any]) -> dict[str, Any]:
    main: dict[str, Any] = network["networks"][network["main"]]
    return main


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: main_of(n).update(model="os.system"), "unknown model 'os.system'"),
        (lambda n: main_of(n).update(model="evil.py:Evil"), "unknown model"),
        (lambda n: main_of(n).update(run="import os"), "Extra inputs are not permitted"),
        (lambda n: n.update(code="x"), "Extra inputs are not permitted"),
        (lambda n: main_of(n)["arguments"].update(widht=1), "did you mean 'width'"),
        (lambda n: main_of(n)["arguments"].update(weights="/etc/passwd"), "names a file, and nothing outside"),
        (lambda n: main_of(n)["arguments"].update(width="1"), "does not fit"),
        (lambda n: main_of(n)["arguments"].update(width=1.0), "the tensor .* is float32 .*, but of this network"),
        (lambda n: main_of(n)["arguments"].update(width=1e7), "larger network than the tensors|cannot be built"),
        (lambda n: main_of(n)["arguments"].update(width=1e300), "larger than the tensors allow"),
        (lambda n: main_of(n).update(emotions=["a", "b"]), "the tensor fc"),
        (lambda n: main_of(n).update(emotions=["a", "a"]), "names an emotion twice"),
        (lambda n: main_of(n).update(size=100000), "size"),
        (lambda n: main_of(n).update(size=4000), "more than 2048 px"),
        (lambda n: main_of(n).update(needs={"guide": [n["main"]]}), "circle"),
        (lambda n: main_of(n).update(needs={"guide": ["x"]}), "needed or there, not both"),
        (lambda n: n["networks"].update(x=main_of(n)), "needed or there, not both"),
        (lambda n: n.update(main="x"), "needed or there, not both"),
        (lambda n: n.update(schema_version=2), "schema_version"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    honest: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        load(changed(honest, change))


def test_metadata_that_is_none_is_refused(honest: Path, emobench: Emobench, capfd: pytest.CaptureFixture[str]) -> None:
    with safe_open(honest, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(honest)
    deep = "[" * 100_000
    for change, message in (
        ({"network": "no JSON"}, "cannot be read|does not fit"),
        ({"network": deep}, "cannot be read|does not fit"),
        ({"network": " " * 2_000_000}, "2,000,000 characters"),
        ({"emobench": "{}"}, "does not fit: emobench: Field required"),
        ({"emobench": deep}, "cannot be read|does not fit"),
        ({"more": "x"}, "weights of a folder for transformers|not a network"),
    ):
        save_file(tensors, honest, {**metadata, **change})
        with pytest.raises(WeightsError, match=message):
            load(honest)
    save_file(tensors, honest, {"format": "pt"})
    with pytest.raises(WeightsError, match="not a network that emobench exported"):
        load(honest)
    assert emobench("predict", honest, honest) == 2
    assert "not a network that emobench exported" in capfd.readouterr().err


def test_damaged_files_are_named(honest: Path, tmp_path: Path) -> None:
    whole = honest.read_bytes()
    for content in (
        b"",
        b"x" * 7,
        whole[:100],
        whole[:-1],
        whole + b"x",
        b"\xff" * 8 + whole[8:],
        whole[:8] + b"[]" + whole[10:],
    ):
        honest.write_bytes(content)
        for read in (load, provenance):
            with pytest.raises(WeightsError, match=r"resnet18.safetensors: .*Export it again"):
                read(honest)
    with pytest.raises(WeightsError, match="No such file"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    with pytest.raises(WeightsError, match="no file of at most"):
        load(tmp_path / "zero.safetensors")
    with pytest.raises(WeightsError, match="a folder"):
        load(tmp_path)
    with pytest.raises(WeightsError, match="an exported file ends in"):
        load(tmp_path / "a.pth")


def test_damaged_and_foreign_onnx_is_named(export: Callable[..., Path], tiny_results: Path) -> None:
    path = export(tiny_results, RUN, "onnx")
    whole = path.read_bytes()
    for content in (b"", b"no ONNX at all", whole[:50], whole[:-1], b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"):
        path.write_bytes(content)
        with pytest.raises(
            WeightsError, match=r"resnet18.onnx: (not an ONNX file|not a network that emobench exported)"
        ):
            load(path)
    path.write_bytes(whole.replace(b'"surprise"', b'"surpr\\u0007"'[:10]))
    with pytest.raises(WeightsError, match="what it says of itself"):
        load(path)
    path.write_bytes(whole.replace(b"Conv", b"Conq"))  # no operator of this name
    with pytest.raises(WeightsError, match="cannot be read by onnxruntime"):
        load(path)
    path.write_bytes(whole)
    assert load(path).size == 32
    with pytest.raises(TypeError, match="images are uint8"):
        load(path)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="this file takes"):
        load(path)(noisy(1, 16))


def test_onnx_of_a_generator_is_for_other_programs(
    export: Callable[..., Path], emobench: Emobench, generated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = export(generated, f"{BOARD}/cvae", "onnx")
    with pytest.raises(WeightsError, match="emobench reads classifiers from ONNX; export it --to safetensors"):
        load(path)
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    for file in (path, export(generated, f"{BOARD}/cvae", "safetensors")):
        assert emobench("predict", file, tmp_path / "a.png") == 2
        assert "cvae on synthetic-plain, seed 0 draws faces" in capfd.readouterr().err


SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 0.125},
    "vgg16": {"width": 0.0625, "stem": "small", "pool": 1, "head": 16},
    "cnn21": {"padding": True, "width": 0.25},
    "vit": {"weights": None, "dim": 16, "depth": 1, "heads": 2, "patch": 8, "hidden": 8, "strategy": "full"},
    "vit_linear": {"weights": None, "dim": 16, "depth": 1, "heads": 2, "patch": 8, "strategy": "full"},
    "timm": {"backbone": "test_resnet"},
    "cvae": {"width": 4, "latent": 4, "perceptual": "none", "weights": None},
    "vit_cvae": {"width": 4, "latent": 4, "dim": 8, "depth": 1, "heads": 2, "perceptual": "none", "weights": None},
    "stargan": {"width": 4, "blocks": 1, "discriminator_width": 4},
    "diffusion": {"channels": [8, 16], "layers": 1},
    "stylegan2": {"latent": 8, "style": 8, "base": 128, "most": 8, "class_layers": 0},
    "style_transfer": {"width": 4, "perceptual": "vgg16", "weights": None},
}


@pytest.mark.parametrize("name", SMALL)
def test_no_argument_of_a_stranger_takes_the_machine_away(tmp_path: Path, name: str) -> None:
    """Each whole number of every class, very large: refused in seconds, before memory is taken for it."""
    from emobench.exported.network import Described, read_network, write_network

    cls = classes("model")[name]
    assert exportable(cls)
    network = untrained("timm:test_resnet") if name == "timm" else untrained(name, **{
        key: tuple(value) if isinstance(value, list) else value for key, value in SMALL[name].items()
    })  # fmt: skip
    said = Provenance(
        emobench="0", row="r", model="m", seed=0, emotions=EMOTIONS, size=32, fit_key="k", dataset="d",
        dataset_fingerprint="f", lineage={"k": {"row": "r", "model": "m"}},  # type: ignore[dict-item]
    )  # fmt: skip
    path = tmp_path / "a.safetensors"

    def write(**more: Any) -> None:
        arguments = {**SMALL[name], **more}
        fields: dict[str, Any] = {"model": name, "arguments": arguments, "emotions": EMOTIONS, "size": 32, "needs": {}}
        one = Described(**fields, datasets=[], dataset=None, left_out=[])
        write_network(path, Networks(main="k", networks={"k": one}), {"k": network.state_dict()}, said)

    write()
    assert type(read_network(path)) is cls
    numbers = [key for key, each in parameters(cls).items() if re.search(r"\bint\b|\bfloat\b", str(each.type))]
    assert numbers
    for key in numbers:
        for value in (2**23, 2**40, [2**23], [8] * 4000):
            write(**{key: value})
            start = time.monotonic()
            with contextlib.suppress(WeightsError):  # but of a rate or a share, which changes nothing that is built
                read_network(path)
            assert time.monotonic() - start < 20, (key, value)


def test_a_class_of_ones_own_is_exported_as_onnx_only(
    emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.py").write_text("""
from torch import nn

from emobench.classifiers.classifier import EmotionClassifier
from emobench.recipe import Recipe


class Mine(EmotionClassifier):
    name = "mine"
    source = "here"
    recipe = Recipe(batch=16, epochs=1)

    def __init__(self, *, emotions, size):
        super().__init__(emotions=emotions, size=size)
        self.layer = nn.Linear(3 * size * size, len(self.emotions))

    def logits(self, pixels):
        return self.layer(pixels.flatten(1))
""")
    (tmp_path / "own.toml").write_text("""
seeds = [0]
[data.synthetic-plain]
size = 32
train = 80
val = 80
test = 80
[model.mine]
class = "small.py:Mine"
patience = "none"
""")
    results = tmp_path / "results"
    assert emobench("bench", tmp_path / "own.toml", "--results", results) == 0
    run = ["export", "own/synthetic-plain/mine", "--results", results, "--out", tmp_path / "out"]
    assert emobench(*run, "--to", "safetensors") == 2
    assert "in a file of your own, which no other emobench has. Take --to onnx" in capfd.readouterr().err
    assert emobench(*run, "--to", "onnx") == 0
    network = load_model(Store(results), key_of(results, "own", "mine"))
    faces = noisy(5, 32)
    np.testing.assert_allclose(shares(load(tmp_path / "out" / "mine.onnx")(faces)), shares(network(faces)), atol=1e-4)
