"""Models and datasets found by their names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emobench.errors import SuiteError
from emobench.suite import catalog as discover

MODEL = """
from emobench.classifiers.resnet import ResNet18

class {name}(ResNet18):
    name = "{called}"
    variants = {variants}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose modules hold models."""
    folder = tmp_path / "twins"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(discover._PACKAGES, "model", ("twins",))
    discover._discovered.cache_clear()
    yield folder
    discover._discovered.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "twins"]:
        del sys.modules[name]


@pytest.mark.parametrize(("called", "variants"), [("small", {}), ("other", {"small": {"width": 0.5}})])
def test_two_models_of_one_name_are_an_error_that_names_both_places(
    package: Path, called: str, variants: dict[str, dict[str, float]]
) -> None:
    (package / "first.py").write_text(MODEL.format(name="First", called="small", variants={}))
    (package / "second.py").write_text("\n" + MODEL.format(name="Second", called=called, variants=variants))
    with pytest.raises(SuiteError) as refused:
        discover.resolve("model", "small")
    for place in (f"First in {package / 'first.py'}, line 4", f"Second in {package / 'second.py'}, line 5"):
        assert place in str(refused.value)


def test_models_of_different_names_are_found(package: Path) -> None:
    (package / "first.py").write_text(MODEL.format(name="First", called="small", variants={}))
    (package / "second.py").write_text(MODEL.format(name="Second", called="large", variants={"wide": {"width": 2.0}}))
    assert {name: cls.__name__ for name, cls in discover.classes("model").items()} == {
        "small": "First",
        "large": "Second",
    }
    assert discover.resolve("model", "wide")[1] == {"width": 2.0}
