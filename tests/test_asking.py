"""A generator is asked with names and lists as with tensors; what it cannot be asked is refused in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_generators import EMOTIONS, FACES, GENERATORS, small

from emobench.generators.asking import emotion_rows

METHODS = ("begin", "edit", "sample", "stylize")
NAMED, ROWS = ["sad", "happy", "sad"], torch.eye(4)[[2, 1, 2]]


def asked(model: Any, method: str, emotions: Any, seeds: Any) -> torch.Tensor:
    images = [FACES[:3]] if method in ("edit", "stylize") else []
    noise = {} if method == "stylize" or seeds is None else {"seeds": seeds}
    made: torch.Tensor = getattr(model, method)(*images, emotions, **noise)
    return made


@pytest.mark.parametrize("name", GENERATORS)
def test_names_and_lists_draw_what_tensors_draw(name: str) -> None:
    model = small(name)
    methods = [method for method in METHODS if hasattr(model, method)]
    assert methods
    for method in methods:
        expected = asked(model, method, ROWS, torch.tensor([5, 0, 1]))
        assert expected.dtype == torch.uint8
        assert torch.equal(asked(model, method, NAMED, [5, 0, 1]), expected)
        assert torch.equal(asked(model, method, ("Sadness", "joy", "sad"), torch.tensor([5, 0, 1])), expected)
        assert torch.equal(asked(model, method, ROWS.tolist(), [5, 0, 1]), expected)
        assert torch.equal(asked(model, method, ROWS.numpy(), torch.tensor([5, 0, 1]).numpy()), expected)
        first = asked(model, method, NAMED, [0, 1, 2])
        assert torch.equal(asked(model, method, NAMED, None), first)
        assert torch.equal(asked(model, method, ROWS, None), first)


@pytest.mark.parametrize("name", GENERATORS)
def test_what_cannot_be_asked_is_refused(name: str) -> None:
    model = small(name)
    for method in (method for method in METHODS if hasattr(model, method)):
        with pytest.raises(ValueError, match="unknown emotion 'hapy': did you mean 'happy'. Known: anger, happy"):
            asked(model, method, ["hapy", "sad", "sad"], [0, 1, 2])
        with pytest.raises(ValueError, match="unknown emotion 'contempt'"):  # an emotion, and none of this model
            asked(model, method, ["contempt", "sad", "sad"], [0, 1, 2])
        with pytest.raises(ValueError, match=r"emotions are \(N, 4\) weights of neutral, happy, sad, anger"):
            asked(model, method, torch.eye(3), [0, 1, 2])
        if method != "stylize":
            with pytest.raises(ValueError, match="3 emotions and seeds of shape .2,."):
                asked(model, method, NAMED, [0, 1])
            with pytest.raises(ValueError, match="3 emotions and seeds of shape .2,."):
                asked(model, method, ROWS, torch.arange(2))
            with pytest.raises(TypeError, match="seeds are whole numbers, not float"):
                asked(model, method, NAMED, [0.5, 1, 2])
        if method in ("edit", "stylize"):
            with pytest.raises(ValueError, match="3 images and 1 emotions"):
                asked(model, method, "happy", [0])
            line = "images = (images * 255).round().clamp(0, 255).to(torch.uint8)"
            with pytest.raises(TypeError, match="images are uint8") as raised:
                getattr(model, method)(FACES[:3] / 255, NAMED)
            assert str(raised.value).endswith(line)


def test_one_name_is_one_face() -> None:
    assert torch.equal(emotion_rows("happy", EMOTIONS), torch.eye(4)[[1]])
    model = small("cvae")
    assert torch.equal(model.sample("happy", seeds=[3]), model.sample(torch.eye(4)[[1]], torch.tensor([3])))


def test_a_loaded_generator_takes_names(generated: Any) -> None:
    import emobench

    maker = emobench.load(generated, "made", "cvae")
    faces = maker.sample(["happy", "sad"], seeds=[0, 1])
    rows = torch.eye(len(maker.emotions))[[maker.emotions.index(name) for name in ("happy", "sad")]]
    assert torch.equal(faces, maker.sample(rows, torch.arange(2)))
