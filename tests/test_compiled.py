"""No second derivative is taken through what the recipe's `compile` compiles: torch.compile's networks have none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_classifiers import TRAINED, batch_of, build, rows, trainer
from test_generators import small
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from emobench.recipe import Execution
from emobench.runner.fit import prepare
from emobench.suite.catalog import classes

# Gradients in a step that are differentiated again: a penalty in each of the critic's steps; R1 and the path length.
SECOND = {"stargan": 5, "stylegan2": 2}
FITTED = [name for name, cls in classes("model").items() if cls.recipe is not None]


def model_of(name: str, **changes: Any) -> Any:
    if name in TRAINED:
        return build(name)
    return small(name, **({"path_length": 2.0} if name == "stylegan2" else {}) | changes).train()


def fit_a_step(model: Any, folder: Path) -> None:
    """A step of the trained network as a run makes it, compiled; lazy penalties have their turn in the first one."""
    prepare(model, model.recipe, Execution(compile=True))
    faces = rows(batch_of(4 * getattr(model, "batches_a_step", 1)))
    lightning = trainer(folder, max_epochs=1, limit_train_batches=len(faces) // 4)
    lightning.fit(model, DataLoader(faces, batch_size=4), DataLoader(faces[:4], batch_size=4))


def everything(model: Any) -> list[nn.Module]:
    return [module for module in model.modules() if module is not model]


class Once(torch.autograd.Function):
    """Passes x on, and its gradient, unless that is to be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        if torch.is_grad_enabled():  # as under create_graph = True alone
            raise ArithmeticError("a second derivative")
        return gradient


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks that were called compiled, which here costs no time: they are as they were, but for `Once`."""
    seen: list[nn.Module] = []

    def compiled(call: Any, mode: str | None = None) -> Callable[..., Any]:
        def answer(*arguments: Any, **named: Any) -> Any:
            seen.append(call.__self__)
            answered = call(*arguments, **named)
            return tree_map_only(Tensor, lambda x: Once.apply(x) if x.requires_grad else x, answered)

        return answer

    monkeypatch.setattr(torch, "compile", compiled)  # by which nn.Module.compile does it
    return seen


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """An entry for each gradient that is to be differentiated again."""
    own, seen = torch.autograd.grad, list[bool]()

    def grad(*arguments: Any, create_graph: bool = False, **named: Any) -> Any:
        seen.extend([True] * create_graph)
        return own(*arguments, create_graph=create_graph, **named)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    return seen


@pytest.mark.parametrize("name", FITTED)
def test_no_second_derivative_goes_through_what_is_compiled(
    name: str, called: list[nn.Module], second: list[bool], tmp_path: Path
) -> None:
    model = model_of(name)
    fit_a_step(model, tmp_path)
    assert called
    assert {*called} <= {*model.compilable()}
    assert len(second) == SECOND.get(name, 0)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("stargan", {}), ("stylegan2", {"r1": 0.0}), ("stylegan2", {"path_length": 0.0})],
    ids=["gradient penalty", "path length", "R1"],
)
def test_one_through_what_is_compiled_would_be_seen(
    name: str, changes: dict[str, float], called: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(name, **changes)
    monkeypatch.setattr(type(model), "compilable", everything)
    with pytest.raises(ArithmeticError, match="a second derivative"):
        fit_a_step(model, tmp_path)


@pytest.mark.slow
def test_torch_trains_what_is_compiled_and_refuses_what_these_tests_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its front end and its gradients, without the compiler behind them."""
    own, graphs = torch.compile, list[Any]()

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(torch, "compile", lambda call, mode=None: own(call, mode=mode, backend=backend))
    try:
        fit_a_step(model_of("stargan"), tmp_path)
        assert graphs
        model = model_of("stargan")
        monkeypatch.setattr(type(model), "compilable", lambda self: [self.discriminator])
        with pytest.raises(RuntimeError, match="double backward|create_graph=False"):
            fit_a_step(model, tmp_path)
    finally:
        torch._dynamo.reset()
