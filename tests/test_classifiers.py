"""The contract of every classifier, which finds new ones by itself; then what is each model's own."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import pickle
import typing
from pathlib import Path

import lightning as L
import pytest
import sklearn.metrics
import timm
import torch
import torchvision
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTModel
from transformers.models.vit.modeling_vit import ViTLayer

from emobench.classifiers import classifier
from emobench.classifiers.classifier import (
    DEFAULTS,
    EmotionClassifier,
    WarmupThenPlateau,
    flops,
    flops_of,
    make_schedule,
    parameters_of,
)
from emobench.classifiers.cnn21 import CNN21
from emobench.classifiers.ensemble import Ensemble
from emobench.classifiers.resnet import ResNet18
from emobench.classifiers.timm_backbone import TimmBackbone
from emobench.classifiers.vgg import VGG16
from emobench.classifiers.vit import ViT, resized
from emobench.errors import SizeError, SuiteError, WeightsError
from emobench.metrics import recognition
from emobench.nn.weights import read_weights
from emobench.suite.catalog import classes

EMOTIONS = ("neutral", "happy", "sad", "anger")
K = len(EMOTIONS)
URLS = {"resnet18": "resnet18-f37072fd.pth", "vgg16": "vgg16-397923af.pth"}

# Small versions; a class that is not listed is tested as it is, at its recipe's size or 48 px.
SMALL_VIT = {"weights": None, "dim": 32, "depth": 2, "heads": 2, "patch": 8, "hidden": 16, "dropout": 0.0}
SMALL = {
    "resnet18": {"size": 32, "width": 0.125, "stem": "small"},
    "vgg16": {"size": 32, "width": 0.125, "stem": "small", "pool": 1, "head": 32, "batch_norm": True, "dropout": 0.0},
    "cnn21": {"size": 32, "padding": True, "width": 0.5, "dense": (32, 16), "dropout": 0.0},
    "vit": {"size": 32, **SMALL_VIT},
    "vit_linear": {"size": 32, **{name: value for name, value in SMALL_VIT.items() if name != "hidden"}},
    "timm": {"size": 32, "backbone": "test_resnet"},
}
# Those that emobench did not train have tests of their own (test_outside.py): each needs a file.
OURS = {name: cls for name, cls in classes("model").items() if not getattr(cls, "foreign", False)}
ALL = sorted(name for name, cls in OURS.items() if issubclass(cls, EmotionClassifier))
TRAINED = [name for name in ALL if classes("model")[name].recipe is not None]


def build(name, seed=0, **changes):
    torch.manual_seed(seed)
    cls = classes("model")[name]
    options = dict(SMALL.get(name, {"size": (cls.recipe and cls.recipe.size) or 48}))
    if cls.needs:
        options = {"size": 32, next(iter(cls.needs)): [build("resnet18", 1), build("cnn21", 2)]}
    return cls(emotions=EMOTIONS, **{**options, **changes})


def options_of(name):
    """The arguments of the small version, without its size."""
    return {key: value for key, value in SMALL.get(name, {}).items() if key != "size"}


def faces(n=8, size=32, seed=0):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def batch_of(n=8, size=32, seed=0):
    labels = F.one_hot(torch.arange(n) % K, K).float()
    return {"image": faces(n, size, seed), "emotions": labels, "index": torch.arange(n)}


# Every class


def read_by_the_last_linear_layer(network, call):
    """What `call()` returns, and the input of the linear layer that a network registered last."""
    seen = []
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        return call(), seen[-1]
    finally:
        hook.remove()


@pytest.mark.parametrize("size", [32, 41])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_features_are_what_the_final_linear_layer_reads(name, training, size):
    """To the last bit, with dropout too, and in one pass with the logits."""
    if size == 41 and name not in SMALL:
        return  # those are large
    dropout = "dropout" in inspect.signature(classes("model")[name].__init__).parameters
    model = build(name, **({"dropout": 0.4} if dropout else {})).train(training)
    images = faces(4, size)

    def same_dropout(call):
        model.load_state_dict(start)  # batch norm's averages move in training
        torch.manual_seed(1)
        return call(images)

    start = {key: value.clone() for key, value in model.state_dict().items()}
    logits, seen = read_by_the_last_linear_layer(model, lambda: same_dropout(model))
    features = same_dropout(model.features)
    both = same_dropout(model.read)
    assert torch.equal(both[0], logits)
    assert torch.equal(both[1], features)
    if isinstance(model, Ensemble):  # which layer was registered last says nothing here
        assert torch.equal(features, torch.cat([member.features(images) for member in model.members], 1))
    else:
        assert torch.equal(features, seen)
        assert torch.equal(model.classify(features), logits)


TIMM_CLASSIFIERS = {
    "test_vit": (64, True),
    "resnetv2_18": (512, True),  # a 1×1 convolution
    "levit_128s": (384, False),  # batch norm and a linear layer, twice
    "deit_tiny_distilled_patch16_224": (192, False),  # two linear layers
}


@pytest.mark.parametrize("backbone", TIMM_CLASSIFIERS)
@torch.no_grad()
def test_features_of_timms_networks_are_what_their_classifier_reads(backbone):
    wide, linear = TIMM_CLASSIFIERS[backbone]
    size = 224 if timm.get_pretrained_cfg(backbone).fixed_input_size else 64
    model = build("timm", backbone=backbone, size=size).eval()
    images = faces(2, size)
    logits, features = model.read(images)
    assert torch.equal(logits, model(images))
    assert features.shape == (2, wide)
    assert torch.equal(features, model.features(images))
    if backbone != "resnetv2_18":
        assert torch.equal(features, read_by_the_last_linear_layer(model, lambda: model(images))[1])
    if linear:
        torch.testing.assert_close(model.classify(features), logits)
    else:
        with pytest.raises(NotImplementedError, match="has no features"):
            model.classify(features)


def test_a_network_of_logits_alone_says_that_it_has_no_features():
    class Bright(EmotionClassifier):
        name, source, recipe = "bright", "", None

        def logits(self, pixels):
            return pixels.mean((2, 3))  # (N, 3)

    model = Bright(emotions=EMOTIONS[:3], size=8)
    assert model(faces(2)).shape == (2, 3)
    with pytest.raises(NotImplementedError, match="Bright has no features: define `embed`"):
        model.read(faces(2))


def rebuilt(model, **needs):
    """The same network from its `hparams` and its weights; the pre-trained file that they name is not opened."""
    again = type(model)(**type(model).untrained(model.hparams), **needs)
    again.load_state_dict(model.state_dict())
    return again.eval()


@pytest.mark.slow
def test_files_of_vgg_keep_torchvisions_names():
    """Alone, within an ensemble, and in the order in which they were written before."""
    model = build("vgg16", stem="imagenet", width=1.0, pool=7, head=4096, batch_norm=False)
    theirs = torchvision.models.vgg16(num_classes=K).state_dict()
    ours = [name for name in model.state_dict() if not name.startswith("pixel_")]
    assert ours == list(theirs)
    small = build("vgg16").eval()
    again = rebuilt(small)
    ensemble = Ensemble(emotions=EMOTIONS, size=32, members=[small])
    ensemble.load_state_dict(ensemble.state_dict())
    assert torch.equal(again(faces(2)), small(faces(2)))


@pytest.mark.parametrize("name", ALL)
def test_faces_of_any_size_become_finite_logits(name):
    model = build(name).eval()
    assert model(faces(3)).shape == (3, K)
    other = model(faces(2, size=41))
    assert other.shape == (2, K)
    assert other.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_predictions_do_not_depend_on_the_batch(name):
    model = build(name).eval()
    with torch.no_grad():
        whole = model(faces(6))
        parts = torch.cat([model(part) for part in faces(6).split([1, 4, 1])])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert (whole[0] - whole[1]).abs().max() > 1e-6  # else they would depend on nothing


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("loss", ["cross-entropy", "focal"])
def test_a_few_steps_on_one_batch_lower_the_loss(name, loss):
    model = build(name, optimizer="adamw", lr=5e-3, loss=loss)
    optimizer = classifier.make_optimizer(list(model.parameters()), model.training_arguments)
    batch, seen = batch_of(), []
    for step in range(15):
        loss_now = model.training_step(batch, step)
        optimizer.zero_grad()
        loss_now.backward()
        optimizer.step()
        seen.append(loss_now.item())
    assert seen[-1] < 0.8 * seen[0]


@pytest.mark.parametrize("name", TRAINED)
def test_soft_labels_mix_the_losses_of_their_classes(name):
    model = build(name).eval()
    logits = model(faces(2))
    happy, sad = (F.one_hot(torch.full((2,), k), K).float() for k in (1, 2))
    mixed = model.losses(logits, 0.25 * happy + 0.75 * sad)
    torch.testing.assert_close(mixed, 0.25 * model.losses(logits, happy) + 0.75 * model.losses(logits, sad))


@pytest.mark.parametrize("name", ALL)
def test_hparams_are_plain_and_build_the_same_model_again(name):
    model = build(name).eval()
    plain = dict(model.hparams)
    assert json.loads(json.dumps(plain)) == plain
    needs = {role: model.members for role in type(model).needs}
    again = rebuilt(model, **needs)
    assert dict(again.hparams) == plain
    assert not again.training
    assert torch.equal(again(faces(3)), model(faces(3)))


@pytest.mark.parametrize("name", ALL)
def test_no_face_of_no_size(name):
    options = SMALL.get(name, {})
    with pytest.raises(SizeError, match=r"cannot take 0 px.*(it takes|of the usual sizes)"):
        classes("model")[name].check_size(0, options)
    with pytest.raises(SizeError):
        build(name, size=0)


@pytest.mark.parametrize("name", TRAINED)
def test_flops_from_arguments_alone_are_those_of_the_model(name):
    model = build(name)
    counted = flops(type(model), options_of(name), EMOTIONS, model.size)
    assert counted == flops_of(model) > 1e5
    assert model.training  # as it was


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 0.0), ("dropout", 1.0), ("lr", -1e-3), ("label_smoothing", 1.0), ("step_size", 0), ("momentum", -0.1)],
)
def test_ranges_are_part_of_the_types(name, value):
    hints = typing.get_type_hints(ResNet18.__init__, include_extras=True)
    hints |= typing.get_type_hints(classifier.TrainingArguments, include_extras=True)
    with pytest.raises(ValidationError):
        TypeAdapter(hints[name]).validate_python(value)
    assert TypeAdapter(hints[name]).validate_python(1 if name == "step_size" else 0.5)


@pytest.mark.parametrize("name", ALL)
def test_class_attributes(name):
    cls = classes("model")[name]
    assert cls.source
    assert set(cls.argument_defaults()) == set(DEFAULTS)
    assert set(cls.defaults) <= set(DEFAULTS)
    if cls.recipe is not None:
        assert (cls.recipe.epochs is None) != (cls.recipe.steps is None)
        assert dataclasses.replace(cls.recipe) == cls.recipe


# Input


def test_pixels_are_scaled_and_normalised_inside():
    seen = []
    model = build("resnet18")
    model.logits = lambda pixels: seen.append(pixels) or torch.zeros(len(pixels), K)
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    model(image)
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(seen[0][0, :, 5, 7], torch.tensor(expected))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_other_sizes_are_resized_with_antialias():
    seen = []
    model = build("cnn21")
    model.logits = lambda pixels: seen.append(pixels) or torch.zeros(len(pixels), K)
    image = faces(1, size=96)
    model(image)
    expected = F.interpolate(image.float(), (32, 32), mode="bilinear", antialias=True) / 255
    torch.testing.assert_close(seen[0] * model.pixel_std + model.pixel_mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_half_precision_gives_nearly_the_same_logits(name):
    model = build(name).eval()
    whole = model(faces(3)).detach()
    half = model.bfloat16()(faces(3)).detach().float()  # as Lightning's "bf16-true" does
    assert (half - whole).abs().max() < 0.05 * whole.abs().max() + 0.02


# Optimisers, schedules


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizers(name, kind):
    arguments = {**DEFAULTS, "optimizer": name, "lr": 0.02, "weight_decay": 0.3, "momentum": 0.8, "nesterov": True}
    optimizer = classifier.make_optimizer([torch.nn.Parameter(torch.zeros(1))], arguments)
    group = optimizer.param_groups[0]
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.8, True)


def rates(epochs, losses=(), steps=0, **arguments):
    """The learning rate before each of the steps of a schedule, and after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=arguments["lr"])
    schedule = make_schedule(optimizer, {**DEFAULTS, **arguments}, steps)
    seen = [optimizer.param_groups[0]["lr"]]
    for epoch in range(epochs):
        optimizer.step()
        schedule.step(*losses[epoch : epoch + 1])
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_step_and_cosine_and_onecycle():
    assert rates(4, lr=1.0, schedule="step", step_size=2, gamma=0.1) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert rates(4, lr=1.0, schedule="cosine", steps=4) == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)
    onecycle = rates(19, lr=1.0, schedule="onecycle", steps=20)
    assert max(onecycle) == onecycle[5] == pytest.approx(1.0)  # after 30 % of the steps
    assert onecycle[0] == pytest.approx(1 / 25)
    assert onecycle[-1] == pytest.approx(4e-6)


def test_warmup_rises_tenfold_then_waits_on_the_plateau():
    losses = [1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9]
    seen = rates(7, losses, lr=1e-5, schedule="warmup-plateau", plateau_patience=1, plateau_factor=0.5)
    assert seen == pytest.approx([1e-5, 4e-5, 7e-5, 1e-4, 1e-4, 1e-4, 5e-5, 5e-5])


def test_warmup_goes_on_where_it_was_saved():
    def fresh():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, WarmupThenPlateau(optimizer, 3, 10.0, 0.1, 2)

    optimizer, schedule = fresh()
    schedule.step(1.0)
    other_optimizer, other = fresh()
    other_optimizer.load_state_dict(optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    other.step(1.0)
    assert other_optimizer.param_groups[0]["lr"] == pytest.approx(7.0)


def trainer(folder, **options):
    options = {"max_epochs": 2, "limit_train_batches": 3, **options}
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


def rows(batch):
    return [{key: value[i] for key, value in batch.items()} for i in range(len(batch["index"]))]


class Rates(L.Callback):
    """The learning rate of every step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *_):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


COSINE = [0.5e-3 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1e-3] * 6),
        ("step", [1e-3] * 3 + [1e-4] * 3),
        ("cosine", COSINE),
        ("onecycle", None),
        ("plateau", [1e-3] * 6),
        ("warmup-plateau", [1e-3] * 3 + [1e-2] * 3),
    ],
)
def test_schedules_in_a_real_fit(tmp_path, schedule, expected):
    model = build("cnn21", schedule=schedule, lr=1e-3, step_size=1, warmup_epochs=1)
    loader, rate = DataLoader(rows(batch_of(12)), batch_size=4), Rates()
    fit = trainer(tmp_path, callbacks=[rate])
    fit.fit(model, loader, loader)
    if expected is None:  # spans exactly the 6 steps of the fit: from a 25th up, then down to a 250,000th
        assert (rate.seen[0], rate.seen[-1]) == pytest.approx((4e-5, 4e-9), rel=1e-3)
        assert len(rate.seen) == 6
    else:
        assert rate.seen == pytest.approx(expected)
    assert fit.callback_metrics["train_loss"].isfinite()


# Validation


def test_validation_counts_each_face_once_and_agrees_with_sklearn(tmp_path):
    model = build("cnn21", loss="focal", label_smoothing=0.1)
    model.class_weights = torch.tensor([0.5, 2.0, 1.0, 3.0])
    batch = batch_of(11)
    batch["emotions"][3] = torch.tensor([0.2, 0.3, 0.4, 0.1])  # counts as sad
    repeated = [*rows(batch), *rows(batch)[2:6]]
    measured = trainer(tmp_path).validate(model, DataLoader(repeated, batch_size=4), verbose=False)[0]
    with torch.no_grad():
        logits = model.eval()(batch["image"])
    labels, predictions = batch["emotions"].argmax(1), logits.argmax(1)
    assert measured["val_loss"] == pytest.approx(model.losses(logits, batch["emotions"]).mean().item(), rel=1e-5)
    assert measured["val_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    f1 = sklearn.metrics.f1_score(labels, predictions, labels=range(K), average="macro", zero_division=0)
    assert measured["val_macro_f1"] == pytest.approx(f1)


def test_macro_f1_counts_an_absent_class_as_0():
    table = recognition.confusion_matrix([0, 0, 1, 1], [0, 0, 1, 0], 4)
    assert recognition.accuracy(table) == 0.75
    assert recognition.macro_f1(table) == pytest.approx((2 * 2 / 5 + 2 / 3 + 0 + 0) / 4)


class Uneven(L.LightningDataModule):
    """Five faces for two processes: the even rows, and the odd ones with repeats, four faces in all."""

    def val_dataloader(self):
        assert self.trainer.world_size == 2
        mine = [[0, 2, 4], [1, 3, 0, 1]][self.trainer.global_rank]
        return DataLoader([rows(batch_of(5))[i] for i in mine], batch_size=2)


@pytest.mark.filterwarnings("ignore")
def test_two_processes_validate_like_one(tmp_path):
    model = build("cnn21").eval()
    batch = batch_of(5)
    alone = trainer(tmp_path).validate(model, DataLoader(rows(batch), batch_size=5), verbose=False)[0]
    both = trainer(tmp_path, strategy="ddp_fork", devices=2).validate(model, Uneven(), verbose=False)[0]
    assert both == pytest.approx(alone, rel=1e-5)
    assert set(both) == {"val_loss", "val_accuracy", "val_macro_f1"}


# ResNet18, VGG16, CNN21


def test_full_size_networks_are_torchvisions():
    with torch.device("meta"):
        resnet = torchvision.models.resnet18(num_classes=K)
        ours = ResNet18(emotions=EMOTIONS, size=224)
        vgg, our_vgg = torchvision.models.vgg16(num_classes=K), VGG16(emotions=EMOTIONS, size=224)
    assert parameters_of(ours) == sum(p.numel() for p in resnet.parameters())
    assert parameters_of(our_vgg) == sum(p.numel() for p in vgg.parameters())
    # The published multiply-adds, 1.81 and 15.47 G with the head for 1,000 classes, are half of the FLOPs.
    assert flops(ResNet18, {}, EMOTIONS, 224) == pytest.approx(2 * 1.81e9, rel=0.01)
    assert flops(VGG16, {}, EMOTIONS, 224) == pytest.approx(2 * 15.47e9, rel=0.01)


def test_small_stems_keep_the_side():
    with torch.device("meta"):
        resnet = ResNet18(emotions=EMOTIONS, size=48, stem="small", width=0.5)
        vgg = VGG16(emotions=EMOTIONS, size=48, stem="small", width=0.5)
        pixels = torch.empty(2, 3, 48, 48)
        assert resnet.layer1(resnet.maxpool(resnet.conv1(pixels))).shape == (2, 32, 48, 48)
        assert vgg.convolutions(pixels).shape == (2, 256, 3, 3)


def test_sizes_of_vgg_and_cnn():
    for cls, arguments, smallest in [
        (VGG16, {}, 32),
        (VGG16, {"stem": "small"}, 16),
        (CNN21, {}, 94),
        (CNN21, {"padding": True}, 32),
    ]:
        cls.check_size(smallest, arguments)
        with torch.device("meta"):
            model = cls(emotions=EMOTIONS, size=smallest, **arguments)
            assert model(torch.empty(2, 3, smallest, smallest, dtype=torch.uint8)).shape == (2, K)
        with pytest.raises(SizeError, match=f"takes any size from {smallest} px on"):
            cls.check_size(smallest - 1, arguments)


def test_cnn21_has_the_documents_layers():
    model = CNN21(emotions=EMOTIONS, size=128)
    convolutions = [layer.out_channels for layer in model.blocks if isinstance(layer, torch.nn.Conv2d)]
    assert convolutions == [16, 32, 64, 128, 256]
    dense = [layer for layer in [*model.dense, model.head] if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in dense] == [(1024, 512), (512, 256), (256, K)]
    dropouts = [place for place, layer in enumerate(model.blocks) if isinstance(layer, torch.nn.Dropout)]
    activations = sum(isinstance(layer, torch.nn.ReLU) for layer in [*model.blocks, *model.dense])
    assert dropouts == [8, 17]  # at the ends of the second and the fourth block
    # As the document counts, ReLU belongs to its layer, and flattening is a layer: 21.
    assert len(model.blocks) + len(model.dense) + 1 - activations + 1 == 21


# Pre-trained weights


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of all three libraries, and no network asked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("EMOBENCH_OFFLINE", "1")
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    return tmp_path


def hugging_face_folder(root: Path, repository: str) -> Path:
    """A repository's folder in the layout of Hugging Face's cache."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0123abc")
    (folder / "snapshots/0123abc").mkdir(parents=True)
    return folder / "snapshots/0123abc"


def test_resnet_weights_by_name_and_by_path(caches):
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), caches / "torch/hub/checkpoints" / URLS["resnet18"])
    save_file(theirs.state_dict(), caches / "own.safetensors")
    pixels = torch.randn(1, 3, 64, 64)
    theirs.fc = torch.nn.Identity()
    for weights in ("IMAGENET1K_V1", str(caches / "own.safetensors")):
        model = ResNet18(emotions=EMOTIONS, size=64, weights=weights).eval()
        model.fc = torch.nn.Identity()
        torch.testing.assert_close(model.logits(pixels), theirs.eval()(pixels), rtol=1e-4, atol=1e-5)
    small = ResNet18(emotions=EMOTIONS, size=48, weights="IMAGENET1K_V1", stem="small")
    assert small.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(small.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


def test_vgg_weights_fill_the_dense_layers_where_they_fit(caches):
    torch.manual_seed(3)
    plan = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    state = {f"features.{name}": value for name, value in plan.state_dict().items()}
    shapes = {0: (32, 512), 3: (32, 32), 6: (1000, 32)}  # a narrow head: the published one has 500 MB
    state |= {f"classifier.{i}.weight": torch.randn(shape) for i, shape in shapes.items()}
    state |= {f"classifier.{i}.bias": torch.randn(shape[0]) for i, shape in shapes.items()}
    torch.save(state, caches / "torch/hub/checkpoints" / URLS["vgg16"])
    fits = VGG16(emotions=EMOTIONS, size=32, pool=1, head=32, weights="IMAGENET1K_V1")
    assert torch.equal(fits.classifier[0].weight, state["classifier.0.weight"])
    other = VGG16(emotions=EMOTIONS, size=32, pool=1, head=16, weights="IMAGENET1K_V1")
    assert torch.equal(other.convolutions[0].weight, state["features.0.weight"])
    assert other.classifier[0].weight.shape == (16, 512)


def vit_checkpoint(folder: Path, mean: float = 0.4) -> ViTModel:
    torch.manual_seed(3)
    network = ViTModel(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            image_size=32,
            patch_size=8,
        )
    )
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [mean] * 3, "image_std": [0.25] * 3}))
    return network.eval()


def test_vit_weights_by_name_and_by_path(caches):
    theirs = vit_checkpoint(hugging_face_folder(caches, "someone/small-vit"))
    vit_checkpoint(caches / "folder")
    for weights in ("someone/small-vit", str(caches / "folder")):
        model = ViT(emotions=EMOTIONS, size=32, **{**SMALL_VIT, "weights": weights}).eval()
        pixels = (faces(2) / 255 - 0.4) / 0.25
        expected = model.head(theirs(pixels).last_hidden_state[:, 0])
        torch.testing.assert_close(model(faces(2)), expected, rtol=1e-4, atol=1e-5)
        again = rebuilt(model)  # knows the mean without the checkpoint
        torch.testing.assert_close(again(faces(2)), expected, rtol=1e-4, atol=1e-5)


def test_vit_interpolates_its_position_embeddings(caches):
    theirs = vit_checkpoint(caches / "folder")
    model = ViT(emotions=EMOTIONS, size=48, **{**SMALL_VIT, "weights": str(caches / "folder")}).eval()
    pixels = (faces(2, size=48) / 255 - 0.4) / 0.25
    expected = model.head(theirs(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0])
    torch.testing.assert_close(model(faces(2, size=48)), expected, rtol=1e-4, atol=1e-5)
    positions = torch.randn(1, 17, 32)
    assert resized(positions, 4) is positions


def test_vit_checkpoint_of_another_architecture_is_refused(caches):
    vit_checkpoint(caches / "folder")
    with pytest.raises(WeightsError, match=r"num_hidden_layers 2.*Set dim, depth"):
        ViT(emotions=EMOTIONS, size=32, **{**SMALL_VIT, "weights": str(caches / "folder"), "depth": 3})


def test_timm_weights_by_name_and_by_path(caches):
    torch.manual_seed(3)
    theirs = timm.create_model("test_vit").eval()
    folder = hugging_face_folder(caches, "timm/test_vit.r160_in1k")
    save_file(theirs.state_dict(), folder / "model.safetensors")
    torch.save(theirs.state_dict(), caches / "own.pth")
    pixels = torch.randn(1, 3, 160, 160)
    theirs.reset_classifier(0)
    for weights in ("pretrained", str(caches / "own.pth")):
        model = TimmBackbone(emotions=EMOTIONS, size=160, backbone="test_vit", weights=weights).eval()
        assert model.backbone.get_classifier().weight.shape[0] == K
        model.backbone.reset_classifier(0)
        torch.testing.assert_close(model.logits(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)
    other = TimmBackbone(emotions=EMOTIONS, size=48, backbone="test_vit", weights="pretrained")
    assert other(faces(2, size=48)).shape == (2, K)


def test_timm_head_is_new_even_where_the_file_has_as_many_classes(caches):
    theirs = timm.create_model("test_resnet", num_classes=K)
    torch.save(theirs.state_dict(), caches / "own.pth")
    model = TimmBackbone(emotions=EMOTIONS, size=64, backbone="test_resnet", weights=str(caches / "own.pth"))
    assert torch.equal(model.backbone.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)
    assert not torch.equal(model.backbone.fc.weight, theirs.fc.weight)


@pytest.mark.slow
def test_missing_weights_are_known_before_anything_starts(caches, monkeypatch):
    for cls, arguments, place in [
        (ResNet18, {"weights": "IMAGENET1K_V1"}, URLS["resnet18"]),
        (VGG16, {"weights": "IMAGENET1K_V1"}, URLS["vgg16"]),
        (VGG16, {"weights": "IMAGENET1K_V1", "batch_norm": True}, "vgg16_bn-6c64b313.pth"),
        (ViT, {**SMALL_VIT, "weights": "google/vit-base-patch16-224-in21k"}, "google/vit-base-patch16-224-in21k in"),
        (TimmBackbone, {"backbone": "resnet10t", "weights": "pretrained"}, "timm/resnet10t.c3_in1k"),
        (ResNet18, {"weights": "/nowhere/x.pth"}, "/nowhere/x.pth"),
    ]:
        file = cls.weight_file(arguments)
        assert file.path is None
        assert not file.download
        assert place in file.looked_for
        assert file.how
        with pytest.raises(WeightsError, match="not found; looked for"):
            file.require()
        with pytest.raises(WeightsError, match="not found; looked for"):
            cls(emotions=EMOTIONS, size=64, **arguments)
    monkeypatch.delenv("EMOBENCH_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert ResNet18.weight_file({"weights": "IMAGENET1K_V1"}).download
    assert ViT.weight_file({"weights": "google/x", "strategy": "full"}).download
    assert not ResNet18.weight_file({"weights": "/nowhere/x.pth"}).download
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not ResNet18.weight_file({"weights": "IMAGENET1K_V1"}).download


@pytest.mark.parametrize("name", TRAINED)
def test_nothing_is_needed_from_scratch(name):
    arguments = {**options_of(name), "weights": None, "strategy": "full"}
    assert classes("model")[name].weight_file(arguments) is None


def test_contradictions_are_refused():
    with pytest.raises(WeightsError, match=r"width 1, not 0\.5"):
        ResNet18.weight_file({"weights": "IMAGENET1K_V1", "width": 0.5})
    with pytest.raises(WeightsError, match="did you mean 'IMAGENET1K_V1'"):
        ResNet18.weight_file({"weights": "IMAGENET1K_V2"})
    with pytest.raises(SuiteError, match="needs pre-trained weights"):
        ViT.weight_file({**SMALL_VIT, "strategy": "frozen"})
    with pytest.raises(SuiteError, match='not "cosine"'):
        ViT(emotions=EMOTIONS, size=32, **SMALL_VIT, schedule="cosine")
    with pytest.raises(SuiteError, match="did you mean 'resnet18'"):
        TimmBackbone.check_size(48, {"backbone": "resnett18"})


class Bomb:
    """What a pickle may do when it is opened."""

    def __reduce__(self):
        return (Path.touch, (Path(self.place),))

    def __init__(self, place):
        self.place = str(place)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_file_with_code_is_refused_and_not_run(tmp_path, protocol):
    file = tmp_path / "bad.pth"
    if protocol == "torch":
        torch.save({"conv1.weight": Bomb(tmp_path / "executed")}, file)
    else:
        file.write_bytes(pickle.dumps({"conv1.weight": Bomb(tmp_path / "executed")}))
    with pytest.raises(WeightsError, match="nothing in it was executed"):
        ResNet18(emotions=EMOTIONS, size=32, weights=str(file))
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_folder_with_code_is_refused_and_not_run(tmp_path):
    vit_checkpoint(tmp_path / "folder")
    (tmp_path / "folder/model.safetensors").unlink()
    torch.save({"layernorm.weight": Bomb(tmp_path / "executed")}, tmp_path / "folder/pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be read as a ViT checkpoint"):
        ViT(emotions=EMOTIONS, size=32, **{**SMALL_VIT, "weights": str(tmp_path / "folder")})
    assert not (tmp_path / "executed").exists()


def test_broken_and_foreign_files_are_named(tmp_path):
    model = build("resnet18")
    whole = tmp_path / "whole.pth"
    torch.save({"state_dict": model.state_dict()}, whole)
    assert read_weights(whole).keys() == model.state_dict().keys()
    for name, content in {"cut.pth": whole.read_bytes()[:5000], "empty.pth": b"", "cut.safetensors": b"\x08"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            read_weights(tmp_path / name)
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weights(tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"other shapes: .*conv1.weight is \(8, 3, 3, 3\)"):
        ResNet18(emotions=EMOTIONS, size=32, weights=str(whole))
    save_file({"surplus": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"lacks bn1\.bias.*and .* more; has besides surplus"):
        ResNet18(emotions=EMOTIONS, size=32, weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(WeightsError, match="has besides surplus"):
        TimmBackbone(emotions=EMOTIONS, size=32, backbone="test_resnet", weights=str(tmp_path / "other.safetensors"))


# ViT


@pytest.mark.parametrize(("strategy", "blocks"), [("frozen", 0), ("partial", 1), ("full", 3), ("warmup", 3)])
def test_strategies_train_what_they_say(strategy, blocks):
    model = build("vit", strategy=strategy, depth=3, unfrozen=1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = [module for module in model.backbone.modules() if isinstance(module, ViTLayer)]
    assert [all(p.requires_grad for p in layer.parameters()) for layer in layers] == [i >= 3 - blocks for i in range(3)]
    assert [any(p.requires_grad for p in layer.parameters()) for layer in layers] == [i >= 3 - blocks for i in range(3)]
    assert all(name in trained for name, _ in model.named_parameters() if name.startswith("head."))
    assert ("backbone.layernorm.weight" in trained) == (strategy != "frozen")
    assert ("backbone.embeddings.cls_token" in trained) == (strategy in ("full", "warmup"))
    assert (model.training_arguments["schedule"] == "warmup-plateau") == (strategy == "warmup")


def test_vit_defaults_are_the_documents():
    recipe, arguments = ViT.recipe, ViT.argument_defaults()
    assert (recipe.size, recipe.batch, recipe.epochs, recipe.patience) == (224, 32, 15, 3)
    assert (recipe.oversample, recipe.undersample, recipe.class_weights) == (2.0, 0.4, "balanced")
    assert (arguments["optimizer"], arguments["lr"], arguments["weight_decay"]) == ("adamw", 1e-5, 1e-4)
    assert (arguments["loss"], arguments["focal_alpha"], arguments["focal_gamma"]) == ("focal", 0.25, 2.0)
    with torch.device("meta"):
        model = ViT(emotions=EMOTIONS, size=224, weights=None)
    # ViT-B/16 without a head has 85,798,656 parameters; then 768 → 256 → K.
    assert parameters_of(model) == 85_798_656 + 768 * 256 + 256 + 256 * K + K
    assert [type(layer).__name__ for layer in model.head] == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]


def test_vit_takes_whole_patches():
    with pytest.raises(SizeError, match="any multiple of 16 px"):
        ViT.check_size(50, {})
    ViT.check_size(48, {})


# timm, ensemble


@pytest.mark.slow
def test_timm_sizes():
    with pytest.raises(SizeError, match=r"timm:vit_tiny_patch16_224 cannot take 8 px \(.*it takes 32, 48, 64"):
        TimmBackbone.check_size(8, {"backbone": "vit_tiny_patch16_224"})
    TimmBackbone.check_size(48, {"backbone": "vit_tiny_patch16_224"})


def test_an_ensemble_is_the_mean_of_its_members_probabilities():
    members = [build("resnet18", 1), build("cnn21", 2), build("vit", 3)]
    ensemble = Ensemble(emotions=EMOTIONS, size=48, members=members).train()
    expected = torch.stack([member.eval()(faces(4)).softmax(1) for member in members]).mean(0)
    ensemble.train()
    torch.testing.assert_close(ensemble(faces(4)).exp(), expected)
    torch.testing.assert_close(ensemble(faces(4)).softmax(1), expected)
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())
    assert not any("members" in name for name in ensemble.state_dict())
    assert parameters_of(ensemble) == sum(parameters_of(member) for member in members)
    assert flops_of(ensemble) == pytest.approx(sum(flops_of(member) for member in members), rel=0.01)


def test_members_of_other_emotions_are_refused():
    with pytest.raises(SuiteError, match="resnet18, tells neutral, happy"):
        Ensemble(emotions=EMOTIONS[::-1], size=48, members=[build("resnet18")])
    with pytest.raises(SuiteError, match="at least one member"):
        Ensemble(emotions=EMOTIONS, size=48, members=[])
