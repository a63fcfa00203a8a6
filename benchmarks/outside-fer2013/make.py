"""Make networks of emobench's own into somebody else's: other forms, other orders of labels, one of them wrong.

    python benchmarks/outside-fer2013/make.py --results WORK --data DATA
    emobench bench benchmarks/outside-fer2013/outside-fer2013.toml --data DATA

The first command trains the two networks of trained.toml into WORK, exports them and writes models/ beside this file:
resnet18.onnx with the order of labels of the original fer2013.csv, exchanged.onnx, the same with sad and surprise
exchanged among its labels, vit/ for transformers in alphabetical order, and answers.csv, what the first says of the
test faces. It prints the test accuracies that the suite claims.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import helper, numpy_helper
from safetensors import safe_open
from safetensors.torch import save_file

from emobench.cli import main as emobench
from emobench.emotions import canonical
from emobench.runner.store import load_board

HERE = Path(__file__).parent
MODELS = HERE / "models"
ORIGINAL = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]  # 0 to 6 in fer2013.csv
ALPHABETICAL = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]


def order(emotions: Sequence[str], labels: Sequence[str]) -> list[int]:
    """The place of each label among a network's emotions."""
    return [emotions.index(canonical(label)) for label in labels]


def reordered_onnx(source: Path, target: Path, labels: Sequence[str], named: Sequence[str]) -> None:
    """An ONNX file whose outputs come in the order of `labels`, and which says of itself that they are `named`."""
    model = onnx.load(source)
    (output,) = model.graph.output
    said = {entry.key: entry.value for entry in model.metadata_props}
    places = np.array(order(json.loads(said["emotions"]), labels), np.int64)
    model.graph.initializer.append(numpy_helper.from_array(places, "places"))
    model.graph.node.append(helper.make_node("Gather", [output.name, "places"], ["scores"], axis=1))
    output.name = "scores"
    del model.metadata_props[:]
    helper.set_model_props(model, {"labels": json.dumps(list(named)), "channels": "rgb"})
    onnx.checker.check_model(model)
    onnx.save(model, target)


def reordered_folder(source: Path, target: Path, labels: Sequence[str]) -> None:
    """A folder for transformers whose head is in the order of `labels`."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    emotions = [config["id2label"][str(k)] for k in range(len(labels))]
    config["id2label"] = {str(k): name for k, name in enumerate(labels)}
    config["label2id"] = {name: k for k, name in enumerate(labels)}
    (target / "config.json").write_text(json.dumps(config, indent=1))
    with safe_open(target / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][order(emotions, labels)].contiguous()
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    (target / "README.md").unlink()


def run(*arguments: object) -> None:
    try:
        emobench([str(argument) for argument in arguments])
    except SystemExit as stop:
        if stop.code:
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="where the two networks are trained")
    parser.add_argument("--data", type=Path, required=True, help="data root, which holds fer2013/")
    options = parser.parse_args()
    run("bench", HERE / "trained.toml", "--results", options.results, "--data", options.data)
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir()
    exported = options.results / "exported"
    shutil.rmtree(exported, ignore_errors=True)
    for row, form in (("resnet18", "onnx"), ("vit_linear", "hf")):
        place = ("--out", exported / row, "--results", options.results, "--data", options.data)
        run("export", f"trained/fer2013/{row}", "--to", form, *place)
    (resnet18,) = (exported / "resnet18").glob("*.onnx")
    exchanged = [{"sad": "surprise", "surprise": "sad"}.get(name, name) for name in ORIGINAL]
    for name, named in (("resnet18", ORIGINAL), ("exchanged", exchanged)):
        reordered_onnx(resnet18, MODELS / f"{name}.onnx", ORIGINAL, named)
    reordered_folder(exported / "vit_linear", MODELS / "vit", ALPHABETICAL)
    for cell in load_board(options.results, "trained"):
        if cell.control is None and cell.folder is not None:
            found = pd.read_parquet(cell.folder / "predictions.parquet")
            emotions = [name.removeprefix("p_") for name in found if name.startswith("p_")]
            print(f"{cell.row}: test accuracy {(found['prediction'] == found['label']).mean():.4f}")
            if cell.row == "resnet18":
                said = found["prediction"].map(dict(enumerate(emotions)))
                pd.DataFrame({"id": found["id"], "label": said}).to_csv(MODELS / "answers.csv", index=False)


if __name__ == "__main__":
    main()
