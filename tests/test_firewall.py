"""Whoever judges faces has had no part in making them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import GENERATORS_SUITE
from safetensors.torch import save_file

from emobench.classifiers.classifier import EmotionClassifier
from emobench.classifiers.resnet import ResNet18
from emobench.classifiers.timm_backbone import TimmBackbone
from emobench.classifiers.vit import ViT
from emobench.errors import DatasetMissing, SuiteError
from emobench.runner.build import load_judges
from emobench.runner.machine import hardware, record_of, versions
from emobench.runner.record import Fit
from emobench.runner.store import Store
from emobench.suite.catalog import parameters
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import Suite, load
from emobench.suite.firewall import check_reads

SUITES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.toml"))
READER = (
    '\nclass = "cnn21"\n' + GENERATORS_SUITE.partition("[model.cnn21]\n")[2].partition("\n\n")[0] + "\n"
)  # its twin


@pytest.fixture
def planned(made_suite: Path, tmp_path: Path) -> Any:
    """`planned(rows, *overrides)`: the cells of the suite of generators with more rows."""

    def plan(rows: str = "", *overrides: str) -> list[Cell]:
        path = tmp_path / "walled.toml"
        path.write_text(made_suite.read_text().replace("[evaluation]", f"{rows}\n[evaluation]"))
        return expand(load(path, overrides), tmp_path).cells

    return plan


def guided_by(row: str) -> str:
    return f'model.cvae.needs={{ guide = "{row}" }}'


# ---- one network under two names -------------------------------------------------------------------------------------


def test_a_guide_of_the_readers_settings_is_the_reader(planned: Any) -> None:
    with pytest.raises(SuiteError) as refused:
        planned(f"[model.other]{READER}", guided_by("other"))
    for part in (
        "cvae and its reader cnn21 are not independent",
        "other and cnn21 have equal settings, so that one network stands on both sides",
        "cvae comes of cvae (cvae, guide other); other (cnn21)",
        "cnn21 comes of cnn21 (cnn21)",
    ):
        assert part in str(refused.value)
    assert planned(f"[model.other]{READER.replace('epochs = 6', 'epochs = 7')}", guided_by("other"))


@pytest.mark.parametrize(
    ("own", "others"),
    [
        ("", "size = 32"),  # the evaluation size, said or not
        ("", 'trainer = { accelerator = "cpu" }'),  # where it is trained
        ("", "seeds = [0]"),
        ("batch = 32", ""),  # the recipe's own
    ],
)
def test_settings_are_equal_however_they_are_said(planned: Any, own: str, others: str) -> None:
    rows = f'[model.one]\nclass = "vgg16"\n{own}\n[model.two]\nclass = "vgg16"\n{others}\n'
    with pytest.raises(SuiteError, match="two and one have equal settings"):
        planned(rows, 'reader="one"', guided_by("two"))


def test_lineages_are_followed_to_their_beginnings(planned: Any) -> None:
    """An ensemble guides, of which one member is the reader's twin; then the reader itself, at another seed."""
    rows = f"[model.other]{READER}\n[model.both]\nclass = \"ensemble\"\nneeds = {{ members = ['vgg16', 'other'] }}\n"
    with pytest.raises(SuiteError, match=r"both \(ensemble, members vgg16, other\); vgg16 \(vgg16\); other \(cnn21\)"):
        planned(rows, guided_by("both"))
    with pytest.raises(SuiteError, match="cnn21 stands on both sides"):
        planned(rows.replace("'other'", "'cnn21'"), guided_by("both"), "seeds=[0, 1]", "model.cvae.seeds=[1]")


def test_panel_and_reader_are_different_networks(planned: Any) -> None:
    with pytest.raises(SuiteError, match="other is the reader, and the same network as the judge cnn21"):
        planned(f"[model.other]{READER}", 'panel=["resnet18", "cnn21"]', 'reader="other"')
    with pytest.raises(SuiteError, match="other is a judge, and the same network as the judge cnn21"):
        planned(f"[model.other]{READER}", 'panel=["resnet18", "cnn21", "other"]', 'reader="vit"')


# ---- the same weights ------------------------------------------------------------------------------------------------


def tensors(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {"first.weight": torch.randn(64, 64), "second.weight": torch.randn(64, 64), "bias": torch.zeros(4096)}


def initialised(folder: Path) -> str:
    """A reader and a guide, each of which begins with a file of its own."""
    rows = [
        f'[model.{name}]\nclass = "vgg16"\nepochs = {epochs}\nweights = "{folder}/{name}.{end}"\n'
        for name, epochs, end in (("one", 1, "safetensors"), ("two", 2, "pt"))
    ]
    return "\n".join(rows)


def copied(folder: Path) -> None:
    save_file(tensors(0), folder / "one.safetensors")
    shutil.copy(folder / "one.safetensors", folder / "two.pt")


def saved_anew(folder: Path) -> None:
    """In half precision, under other names, within other things."""
    save_file(tensors(0), folder / "one.safetensors")
    torch.save({"model": {f"net.{key}": value.half() for key, value in tensors(0).items()}}, folder / "two.pt")


def a_part(folder: Path) -> None:
    save_file(tensors(0), folder / "one.safetensors")
    torch.save({**tensors(1), "first.weight": tensors(0)["first.weight"]}, folder / "two.pt")


@pytest.mark.parametrize("make", [copied, saved_anew, a_part])
def test_a_guide_that_begins_with_the_readers_weights_is_refused(planned: Any, tmp_path: Path, make: Any) -> None:
    make(tmp_path)
    with pytest.raises(SuiteError) as refused:
        planned(initialised(tmp_path), 'reader="one"', guided_by("two"))
    says = str(refused.value)
    assert f"the weights of {tmp_path}/two.pt (two) and {tmp_path}/one.safetensors (one) stand on both sides" in says
    assert f"two (vgg16, file {tmp_path}/two.pt). one comes of one (vgg16, file {tmp_path}/one.safetensors)" in says


def test_other_weights_are_none_of_the_readers(planned: Any, tmp_path: Path) -> None:
    """Though both have the same zeros."""
    save_file(tensors(0), tmp_path / "one.safetensors")
    torch.save(tensors(1), tmp_path / "two.pt")
    assert planned(initialised(tmp_path), 'reader="one"', guided_by("two"))


def test_a_file_named_by_a_path_is_known_under_its_published_name(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The perceptual loss takes VGG16's ImageNet weights by torchvision's name, the reader a copy of that file."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(tensors(0), tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth")
    rows = '[model.one]\nclass = "vgg16"\nweights = "{}"\n'
    perceptual = ["model.cvae.perceptual=vgg16", "model.cvae.needs={}", 'reader="one"']
    with pytest.raises(SuiteError, match="the weights of IMAGENET1K_V1 \\(cvae\\) and IMAGENET1K_V1 \\(one\\)"):
        planned(rows.format("IMAGENET1K_V1"), *perceptual)
    shutil.copy(tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth", tmp_path / "mine.pth")
    with pytest.raises(SuiteError, match=rf"IMAGENET1K_V1 \(cvae\) and {tmp_path}/mine.pth \(one\)"):
        planned(rows.format(tmp_path / "mine.pth"), *perceptual)
    torch.save(tensors(1), tmp_path / "mine.pth")
    assert planned(rows.format(tmp_path / "mine.pth"), *perceptual)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (
            'class = "timm:convnext_atto"\nweights = "pretrained"',
            'class = "timm:convnext_atto.d2_in1k"\nweights = "pretrained"',
        ),
        ('class = "vit"', 'class = "vit-partial"'),
        ('class = "resnet18"\nweights = "IMAGENET1K_V1"', 'class = "resnet18"\nweights = "IMAGENET1K_V1"\nepochs = 2'),
    ],
)
def test_published_weights_are_compared_by_name_where_they_are_not_here(planned: Any, one: str, two: str) -> None:
    rows = f"[model.one]\n{one}\n[model.two]\n{two}\n"
    panel = 'panel=["cnn21", "vgg16"]'
    with pytest.raises(SuiteError, match=r"the weights of .+ \(two\) and .+ \(one\) stand on both sides"):
        planned(rows, panel, 'reader="one"', guided_by("two"))


def test_a_search_may_look_through_a_network_file_and_a_perceptual_loss(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files count, though both are here."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(tensors(0), tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth")
    (tmp_path / "network.pkl").write_bytes(b"a network")
    rows = f"""
[model.latent_search]
network = "{tmp_path}/network.pkl"
perceptual = "vgg16"
needs = {{ guide = "vgg16" }}

[model.one]
class = "vgg16"
weights = "IMAGENET1K_V1"
"""
    with pytest.raises(SuiteError) as refused:
        planned(rows, 'reader="one"')
    assert "the weights of IMAGENET1K_V1 (latent_search) and IMAGENET1K_V1 (one) stand on both sides" in str(
        refused.value
    )
    assert f"latent_search (latent_search, guide vgg16, file {tmp_path}/network.pkl, file IMAGENET1K_V1)" in str(
        refused.value
    )


# ---- architectures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18.a1_in1k", "resnet34", "resnet10t"])
def test_a_guide_of_a_judges_family_is_refused_whichever_class_it_is_of(planned: Any, backbone: str) -> None:
    with pytest.raises(SuiteError) as refused:
        planned(f'[model.other]\nclass = "timm:{backbone}"\n', guided_by("other"))
    name = backbone.partition(".")[0]
    for part in (
        "cvae and its judge resnet18 are not independent",
        "of the architecture family resnet, and what deceives one deceives the other",
        f"other ({name})",
        "resnet18 comes of resnet18 (resnet18)",
    ):
        assert part in str(refused.value)


def test_a_perceptual_loss_is_a_guide(planned: Any) -> None:
    rows = '[model.vggs]\nclass = "vgg16"\nwidth = 0.0625\n'
    panel = ['panel=["vggs", "vit"]', "model.cvae.perceptual=vgg16", "model.cvae.needs={}"]
    with pytest.raises(SuiteError, match="a guide in cvae and vggs are of the architecture family vgg"):
        planned(rows, *panel)


def test_architectures_are_backbones(planned: Any) -> None:
    rows = "".join(
        f'[model.{name}]\nclass = "timm:{backbone}"\n'
        for name, backbone in (("a", "resnet18"), ("b", "resnet18.a1_in1k"), ("c", "resnet10t"))
    )
    for panel in ('["a", "b"]', '["a", "resnet18"]', '["b", "resnet18"]'):
        with pytest.raises(SuiteError, match="all judges are resnet18; name two architectures at least"):
            planned(rows, f"panel={panel}")
    cells = planned(rows, 'panel=["a", "c"]')
    judged = next(cell for cell in cells if cell.row == "cvae")
    judges = [next(cell for cell in cells if cell.fit_key == key) for key in judged.panel["judges"]]
    assert [cell.model for cell in judges] == ["timm:resnet18", "timm:resnet10t"]


def architecture(cls: Any, **arguments: Any) -> tuple[str, str]:
    known = {name: parameter.default for name, parameter in parameters(cls).items()}
    return cls.architecture({**known, **arguments}), cls.architecture_family({**known, **arguments})


def test_classes_and_timm_call_the_same_backbone_the_same() -> None:
    def of_timm(backbone: str) -> tuple[str, str]:
        return architecture(TimmBackbone, backbone=backbone)

    assert architecture(ResNet18) == of_timm("resnet18.tv_in1k") == ("resnet18", "resnet")
    assert (
        architecture(ViT) == of_timm("vit_base_patch16_224.augreg_in21k") == ("vit_base_patch16", "visiontransformer")
    )
    assert architecture(ViT, dim=96) == ("vit", "visiontransformer")
    assert of_timm("vgg16_bn")[0] == "vgg16"
    assert of_timm("resnext50_32x4d") == ("resnext50_32x4d", "resnet")
    assert of_timm("deit_tiny_distilled_patch16_224")[1] == "visiontransformer"
    assert of_timm("convnext_atto")[1] == "convnext"


def test_a_judges_card_names_its_backbone(planned: Any, tmp_path: Path) -> None:
    cell = next(cell for cell in planned('[model.other]\nclass = "timm:test_resnet"\n') if cell.row == "other")
    network = TimmBackbone(emotions=cell.emotions, size=32, backbone="test_resnet")
    store, fit = Store(tmp_path), Fit(cost=None, validation=None, versions=versions(), hardware=hardware())
    store.fit_folder(cell.fit_key).mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, store.weights(cell.fit_key))
    record_of(cell, "done", fit=fit).write(store.fit_folder(cell.fit_key) / "fit.json")
    (judge,) = load_judges(store, [cell.fit_key], torch.device("cpu"))
    assert judge.card.architecture == "test_resnet"


def test_what_reads_generated_faces_says_its_features() -> None:
    class Logits(EmotionClassifier):
        name, source, recipe = "logits", "", None

        def logits(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.mean((2, 3))

    row: Any = SimpleNamespace(row="mine", cls=Logits, foreign=False)
    with pytest.raises(SuiteError, match="mine reads generated faces, and its class Logits has no features"):
        check_reads("suite", row)
    row.cls = TimmBackbone
    check_reads("suite", row)


# ---- the suites of this repository -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_suites_of_this_repository_stand_behind_the_firewall(path: Path, tmp_path: Path) -> None:
    """With datasets of the same names that are not there: these are looked for after the firewall."""
    suite: Suite = load(path)
    data = {name: {"class": "fer2013", "size": table["size"]} for name, table in suite.data.items()}
    with pytest.raises(DatasetMissing):
        expand(suite.model_copy(update={"data": data}), tmp_path)
