"""The models that the README shows are models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence  # noqa: F401
from pathlib import Path
from typing import Any, ClassVar, Unpack  # noqa: F401

import torch
from torch import Tensor, nn  # noqa: F401
from torch.nn import functional as F  # noqa: F401

from emobench.classifiers.classifier import EmotionClassifier, TrainingArguments  # noqa: F401
from emobench.generators.generator import EmotionGenerator  # noqa: F401
from emobench.nn.noise import Noise  # noqa: F401
from emobench.recipe import Augment, Recipe  # noqa: F401
from emobench.suite.catalog import tracks_of

EMOTIONS = ("neutral", "happy", "sad")
NAMES = {
    name: value for name, value in globals().items() if not name.startswith("_")
}  # what a file beside the others imports


def shown(name: str) -> Any:
    """The class of this name, as the README writes it."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope = dict(NAMES)
    exec(next(block for block in blocks if f"class {name}(" in block), scope)
    return scope[name]


def test_the_classifier() -> None:
    model = shown("Small")(emotions=EMOTIONS, size=48)
    logits = model(torch.zeros(2, 3, 48, 48, dtype=torch.uint8))
    assert logits.shape == (2, 3)
    assert model.training_arguments["schedule"] == "onecycle"


def test_the_generator() -> None:
    model = shown("Mean")(emotions=EMOTIONS, size=32)
    assert list(tracks_of(type(model))) == ["generation"]
    assert model.recipe.monitor is None
    faces = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    emotions = torch.eye(3).repeat(2, 1)
    optimizer = model.configure_optimizers()
    for _ in range(60):
        (loss,) = model.loss_parts(model.pixels(faces), emotions, training=True).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = model.sample(torch.eye(3), torch.arange(3))
    expected = torch.stack([faces[k::3].float().mean(0) for k in range(3)])
    assert (made.float() - expected).abs().mean() < 40
    assert torch.equal(made, model.sample(torch.eye(3), torch.arange(3)))
