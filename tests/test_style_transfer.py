"""Style transfer and the pictures of its styles: what the networks are, what their losses are, and what is refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16

from emobench.classifiers.cnn21 import CNN21
from emobench.classifiers.vgg import VGG16
from emobench.emotions import EMOTIONS as ALL
from emobench.errors import DatasetError, SizeError, SuiteError, WeightsError
from emobench.generators.style_transfer import (
    STYLE_WEIGHT,
    LossNetwork,
    StyleTransfer,
    Transformation,
    gram,
    total_variation,
)
from emobench.nn.styles import folder_pictures, picture, read_picture
from emobench.suite.catalog import checked, parameters, plain, tracks_of

EMOTIONS = ("neutral", "happy", "anger")
K = len(EMOTIONS)


@functools.cache
def classifier() -> Any:
    torch.manual_seed(1)
    return CNN21(emotions=EMOTIONS, size=32, padding=True, width=0.25, dense=(16, 8)).eval().requires_grad_(False)


@functools.cache
def guide() -> Any:
    torch.manual_seed(2)
    return VGG16(emotions=EMOTIONS, size=32, width=0.125, stem="small", pool=1, head=8).eval().requires_grad_(False)


def build(size: int = 32, **arguments: Any) -> StyleTransfer:
    torch.manual_seed(0)
    needs = {} if arguments.get("perceptual") == "vgg16" else {"perceptual": "guide", "guide": [guide()]}
    return StyleTransfer(emotions=EMOTIONS, size=size, **{"width": 4, **needs, **arguments}).eval()


def faces(n: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, height, width), np.uint8))


def apart(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


# The networks


def test_a_network_is_as_the_document_says() -> None:
    network = Transformation(32)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 16
    assert [module.out_channels for module in convolutions] == [32, 64, *[128] * 11, 64, 32, 3]
    assert [module.stride[0] for module in convolutions] == [1, 2, 2, *[1] * 13]
    assert [module.kernel_size[0] for module in convolutions] == [9, *[3] * 14, 9]
    assert all(module.padding_mode == "reflect" for module in convolutions)
    kinds = {type(module).__name__ for module in network.modules()}
    assert not [kind for kind in kinds if "Pool" in kind or "Transpose" in kind or "BatchNorm" in kind]
    assert sum(isinstance(module, nn.InstanceNorm2d) and module.affine for module in network.modules()) == 15
    assert [module.mode for module in network.modules() if isinstance(module, nn.Upsample)] == ["nearest", "nearest"]
    made = network(torch.randn(2, 3, 32, 48))
    assert made.shape == (2, 3, 32, 48)
    assert made.abs().max() <= 1


def test_it_stylizes_and_does_nothing_else() -> None:
    assert list(tracks_of(StyleTransfer)) == ["stylization"]
    model = build(classifier=[classifier()])
    assert len(model.networks) == K
    assert not [name for name in model.state_dict() if not name.startswith("networks.")]
    assert model.compilable() == list(model.networks)
    hparams = json.loads(json.dumps(plain(dict(model.hparams))))
    assert hparams["style_layers"] == ["relu2_2"]
    assert not {"guide", "classifier"} & hparams.keys()


def test_it_is_counted_without_memory_or_weights() -> None:
    with torch.device("meta"):
        model = StyleTransfer(emotions=ALL, size=256, weights=None)
    assert 8 * 1_600_000 < sum(parameter.numel() for parameter in model.parameters()) < 8 * 1_750_000


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 50), (5, 64), (61, 7), (16, 9)])
def test_a_face_of_any_size_keeps_it(height: int, width: int) -> None:
    images = faces(3, height, width)
    made = build().stylize(images, torch.eye(K))
    assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    assert apart(made, images) > 1


def test_a_face_too_small_to_reflect_is_refused() -> None:
    with pytest.raises(SizeError, match="cannot stylize faces of 4 x 20 px"):
        build().stylize(faces(1, 4, 20), torch.eye(K)[:1])


@pytest.mark.parametrize("size", [12, 34, 37])
def test_sizes_that_it_cannot_be_trained_on_are_refused(size: int) -> None:
    with pytest.raises(SizeError, match=f"style_transfer cannot be trained on {size} px; it takes multiples of 4"):
        build(size)


# Emotions


def test_one_emotion_uses_its_network_alone() -> None:
    model, images = build(), faces(4)
    sizes: list[tuple[int, int]] = []
    for number, network in enumerate(model.networks):
        network.register_forward_pre_hook(lambda _, given, number=number: sizes.append((number, len(given[0]))))
    made = model.stylize(images, torch.eye(K)[[2, 0, 2, 2]])
    assert sorted(sizes) == [(0, 1), (2, 3)]
    by_hand = model.images(model.networks[2](images.float() / 127.5 - 1))
    assert apart(made[[0, 2, 3]], by_hand[[0, 2, 3]]) <= 1
    assert apart(made[1], by_hand[1]) > 1


def test_a_mixture_is_the_weighted_mean_of_its_networks() -> None:
    model, images = build(), faces(2)
    mixed = model.stylize(images, torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5]]))
    one, two, three = (model.stylize(images, torch.eye(K)[[k, k]]).float() for k in range(K))
    assert (mixed[0].float() - (0.25 * one[0] + 0.75 * two[0])).abs().max() <= 1
    assert (mixed[1].float() - (0.5 * one[1] + 0.5 * three[1])).abs().max() <= 1


def test_no_emotion_leaves_a_face_as_it_is() -> None:
    model, images = build(), faces(2, 21, 33)
    made = model.stylize(images, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert torch.equal(made[0], images[0])
    assert apart(made[1], images[1]) > 1


def test_a_face_does_not_depend_on_its_batch() -> None:
    model, images = build(), faces(5, 30, 26)
    emotions = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0, 0.5], [0, 0, 0], [0, 0, 1.0]])
    together = model.stylize(images, emotions)
    alone = torch.cat([model.stylize(images[k : k + 1], emotions[k : k + 1]) for k in range(5)])
    assert apart(together, alone) <= 1


def test_without_emotions_its_classifier_is_asked() -> None:
    model, images = build(classifier=[classifier()]), faces(6, 40, 52)
    read = classifier()(images).argmax(1)
    label = model.label(images)
    assert torch.equal(label, F.one_hot(read, K).float())
    assert torch.equal(model.stylize(images), model.stylize(images, label))
    other = label.roll(1, 1)
    assert apart(model.stylize(images), model.stylize(images, other)) > 1


def test_without_a_classifier_emotions_must_be_given() -> None:
    with pytest.raises(SuiteError, match=r'Give emotions .*needs = \{ classifier = "cnn21" \}'):
        build().stylize(faces())


def test_networks_that_do_not_fit_are_refused() -> None:
    other = CNN21(emotions=("happy", "sad"), size=32, padding=True, width=0.25, dense=(8, 8))
    with pytest.raises(SuiteError, match="styles for neutral, happy, anger, and its classifier cnn21 reads happy, sad"):
        build(classifier=[other])
    with pytest.raises(SuiteError, match="asks one classifier, not cnn21, cnn21"):
        build(classifier=[classifier(), classifier()])
    with pytest.raises(SuiteError, match="names no guide"):
        StyleTransfer(emotions=EMOTIONS, size=32, perceptual="guide")
    with pytest.raises(SuiteError, match="has no use for a guide"):
        build(perceptual="vgg16", guide=[guide()])


def test_a_suite_may_choose_layers_by_name_alone() -> None:
    known = parameters(StyleTransfer)
    assert not {"classifier", "guide", "size"} & known.keys()
    assert checked("suite", "style_layers", known["style_layers"], ["relu1_2", "relu4_3"]) == ("relu1_2", "relu4_3")
    for value in ([], ["relu9_9"], "relu2_2"):
        with pytest.raises(SuiteError, match="style_layers"):
            checked("suite", "style_layers", known["style_layers"], value)


# Losses


def test_a_gram_matrix_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]], [[0.0, 4.0]]]])  # (1, C = 3, H = 1, W = 2)
    expected = torch.tensor([[[5.0, 1.0, 8.0], [1.0, 10.0, -4.0], [8.0, -4.0, 16.0]]]) / 6
    torch.testing.assert_close(gram(features), expected)
    assert gram(features.bfloat16()).dtype == torch.float32


def test_total_variation_by_hand() -> None:
    pixels = torch.tensor([[[[0.0, 1.0], [3.0, 1.0]]]])
    assert float(total_variation(pixels)) == pytest.approx((9 + 0) / 2 + (1 + 4) / 2)
    model, pixels = build(tv_weight=0.5), torch.randn(4, 3, 32, 32).clamp(-1, 1)
    parts = model.loss_parts(pixels, torch.eye(K)[[0, 1, 2, 0]], training=False)
    assert parts.keys() == {"content", "style", "tv"}
    made = torch.cat([model.networks[k](pixels[n : n + 1]) for n, k in enumerate((0, 1, 2, 0))])
    torch.testing.assert_close(parts["tv"], 0.5 * total_variation(made))


def test_a_layer_of_a_guide_is_the_convolution_of_the_same_number() -> None:
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    seen = LossNetwork(None, [guide()], ["relu4_3", "relu1_2", "relu2_2"])(pixels)
    assert list(seen) == ["relu1_2", "relu2_2", "relu4_3"]
    x = (pixels + 1) / 2
    x = (x * 255 - 255 * guide().pixel_mean) / (255 * guide().pixel_std)
    for place, layer in enumerate(guide().convolutions[:23]):
        x = layer(x)
        for name, end in {"relu1_2": 3, "relu2_2": 8, "relu4_3": 22}.items():
            if place == end:
                torch.testing.assert_close(seen[name], x)
    shallow = LossNetwork(None, [classifier()], ["relu3_3", "relu4_3"])(pixels)  # five convolutions, so the fifth
    assert torch.equal(shallow["relu3_3"], shallow["relu4_3"])
    assert shallow["relu3_3"].shape[1] == 64  # 256 at a quarter of the width


def test_a_guide_is_run_no_further_than_the_deepest_layer() -> None:
    network = guide()
    run: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, *_: run.append(module))
    LossNetwork(None, [network], ["relu2_2", "relu1_2"])(torch.rand(1, 3, 32, 32))
    assert len(run) == 4


def test_an_activation_is_what_the_guides_own_relu_leaves() -> None:
    torch.manual_seed(3)
    normed = VGG16(emotions=EMOTIONS, size=32, width=0.0625, stem="small", batch_norm=True, pool=1, head=8)
    normed(faces(8))  # moves the batch norms away from where they began
    normed.eval()
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        seen = LossNetwork(None, [normed], ["relu1_2"])(pixels)["relu1_2"]
        x = ((pixels + 1) / 2 - normed.pixel_mean) / normed.pixel_std
        torch.testing.assert_close(seen, normed.convolutions[:6](x))  # twice convolution, batch norm, ReLU
        normed.convolutions[5] = nn.Identity()
        bare = LossNetwork(None, [normed], ["relu1_2"])(pixels)["relu1_2"]
        torch.testing.assert_close(bare, F.relu(normed.convolutions[:4](x)))


def test_losses_by_hand() -> None:
    model = build(content_layer="relu1_2", style_layers=("relu1_2", "relu2_2"), content_weight=3.0, style_weight=7.0)
    images, emotions = faces(20), torch.eye(K)[torch.arange(20) % K]
    made = model.stylize(images, emotions)
    found = model.losses(images, made, emotions)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(
        ("content_loss", "style_loss", "total_loss"), (20,)
    )
    before, after = (model._see(each.float() / 127.5 - 1) for each in (images, made))
    pictures = torch.from_numpy(np.stack([picture(emotion, 32) for emotion in EMOTIONS])).float() / 127.5 - 1
    styles = model._see(pictures)
    for n in (0, 1, 19):
        content = ((after["relu1_2"][n] - before["relu1_2"][n]) ** 2).mean()
        style = torch.tensor(0.0)
        for layer in ("relu1_2", "relu2_2"):
            both = []
            for features in (after[layer][n], styles[layer][n % K]):
                c, h, w = features.shape
                both.append(torch.einsum("chw,dhw->cd", features, features) / (c * h * w))
            style = style + ((both[0] - both[1]) ** 2).sum() / c**2
        torch.testing.assert_close(found["content_loss"][n], content, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(found["style_loss"][n], style, rtol=1e-4, atol=1e-10)
        torch.testing.assert_close(found["total_loss"][n], content + 400_000 * style, rtol=1e-4, atol=1e-6)


def test_what_is_minimised_is_what_is_measured() -> None:
    """In validation face i goes through network i mod K; labels are not looked at."""
    model, images = build(content_weight=2.0, style_weight=10.0), faces(5)
    parts = model.loss_parts(model.pixels(images), torch.zeros(5, K), training=False)
    before, made = model.pixels(images), torch.cat([model.networks[k % K](model.pixels(images[[k]])) for k in range(5)])
    content = F.mse_loss(model._see(made)["relu2_2"], model._see(before)["relu2_2"])
    torch.testing.assert_close(parts["content"], 2 * content)
    styles = model.targets(torch.device("cpu"))[0][torch.arange(5) % K]
    torch.testing.assert_close(parts["style"], 10 * F.mse_loss(gram(model._see(made)["relu2_2"]), styles))
    other = model.loss_parts(model.pixels(images), torch.eye(K)[[2, 2, 2, 1, 0]], training=False)
    assert all(torch.equal(parts[name], other[name]) for name in parts)


def test_in_training_every_network_gets_its_share() -> None:
    model, pixels = build().train(), build().pixels(faces(4))
    used: list[int] = []
    for number, network in enumerate(model.networks):
        network.register_forward_pre_hook(lambda _, given, number=number: used.extend([number] * len(given[0])))
    for step in range(12):
        torch.manual_seed(step)
        model.loss_parts(pixels, torch.zeros(4, K), training=True)
    counts = np.bincount(used, minlength=K)
    assert counts.sum() == 48
    assert counts.max() - counts.min() < 12


def test_a_validation_may_come_first() -> None:
    model, pixels = build().train(), build().pixels(faces(3))
    with torch.inference_mode():
        model.loss_parts(pixels, torch.zeros(3, K), training=False)
    torch.stack(list(model.loss_parts(pixels, torch.zeros(3, K), training=True).values())).sum().backward()
    assert all(network.layers[0].weight.grad.abs().max() > 0 for network in model.networks)
    assert all(parameter.grad is None for parameter in guide().parameters())


def test_the_loss_falls_and_styles_come_nearer() -> None:
    model, images = build(width=8, style_weight=1e3).train(), faces(6)
    pixels, emotions = model.pixels(images), torch.eye(K)[torch.arange(6) % K]
    before = model.losses(images, model.stylize(images, emotions), emotions)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for step in range(30):
        torch.manual_seed(step % K)
        loss = torch.stack(list(model.loss_parts(pixels, emotions, training=True).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    after = model.losses(images, model.stylize(images, emotions), emotions)
    assert after["style_loss"].mean() < before["style_loss"].mean()


# VGG16


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VGG16 whose dense layers, which nobody uses, take no room."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in vgg16(weights=None).state_dict().items()}
    random = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=random) * (2 / max(1, shape[1:].numel())) ** 0.5
        if name.startswith("features")
        else torch.zeros(1).expand(shape)
        for name, shape in shapes.items()
    }
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state, path)
    return path


@pytest.mark.slow
def test_vgg16_is_read_from_a_file_when_it_is_first_used(vgg_file: Path) -> None:
    model = build(perceptual="vgg16", weights=str(vgg_file))
    found = StyleTransfer.weight_file({"perceptual": "vgg16", "weights": str(vgg_file)})
    assert found is not None
    found.require()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    images, emotions = faces(2, 24, 20), torch.eye(K)[:2]
    made = model.stylize(images, emotions)
    assert model._see._features is None
    losses = model.losses(images, made, emotions)
    assert torch.equal(torch.get_rng_state(), state)  # a fit that goes on draws what an uninterrupted one draws
    assert model.targets(torch.device("cpu"))[0].shape == (K, 128, 128)
    assert all(torch.isfinite(value).all() and (value > 0).all() for value in losses.values())
    torch.testing.assert_close(losses["total_loss"], losses["content_loss"] + STYLE_WEIGHT * losses["style_loss"])
    tensors = torch.load(vgg_file)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (images / 255 - mean) / std
    for block in ((0, 2), (5, 7)):
        for layer in block:
            x = F.relu(F.conv2d(x, tensors[f"features.{layer}.weight"], tensors[f"features.{layer}.bias"], padding=1))
        x = F.max_pool2d(x, 2) if block == (0, 2) else x
    torch.testing.assert_close(model._see(images.float() / 127.5 - 1)["relu2_2"], x, rtol=1e-3, atol=1e-4)
    assert not [name for name in model.state_dict() if not name.startswith("networks.")]


def test_a_missing_file_is_named() -> None:
    found = StyleTransfer.weight_file({"perceptual": "vgg16", "weights": "/nowhere/vgg16.pth"})
    assert found is not None
    with pytest.raises(WeightsError, match="/nowhere/vgg16.pth"):
        found.require()
    assert StyleTransfer.weight_file({"perceptual": "guide", "weights": "/nowhere/vgg16.pth"}) is None


def test_losses_are_never_those_of_a_random_network() -> None:
    with pytest.raises(WeightsError, match="no weights of it"):
        StyleTransfer.weight_file({"perceptual": "vgg16", "weights": None})
    model, images = build(perceptual="vgg16", weights=None), faces(1)
    made = model.stylize(images, torch.eye(K)[:1])  # what a finished network is for needs none
    with pytest.raises(WeightsError, match='Set weights = "IMAGENET1K_V1" or a path, or perceptual = "guide"'):
        model.losses(images, made, torch.eye(K)[:1])


# Pictures of the styles


def test_the_built_in_pictures_differ_in_colour_and_have_texture() -> None:
    pictures = {emotion: picture(emotion, 128) for emotion in ALL}
    assert len(pictures) == 8
    for emotion, drawn in pictures.items():
        assert (drawn.shape, drawn.dtype) == ((3, 128, 128), np.uint8)
        assert np.array_equal(drawn, picture(emotion, 128))
        local = drawn.mean(0).reshape(16, 8, 16, 8).std((1, 3))  # within 8 px
        assert np.median(local) > 12, emotion
    means = np.array([drawn.mean((1, 2)) for drawn in pictures.values()])
    distances = np.linalg.norm(means[:, None] - means[None], axis=2)[np.triu_indices(8, 1)]
    assert distances.min() > 12
    warm, cold = pictures["happy"].mean((1, 2)), pictures["sad"].mean((1, 2))
    assert warm[0] > warm[2] + 60
    assert cold[2] > cold[0] + 20
    red, green, blue = pictures["anger"].mean((1, 2))
    assert red > 3 * max(green, blue)
    with pytest.raises(DatasetError, match="unknown emotion 'bored'"):
        picture("bored", 32)


@pytest.mark.parametrize("size", [16, 33, 100])
def test_a_picture_of_any_size_has_the_same_palette(size: int) -> None:
    drawn = picture("sadness", size)
    assert drawn.shape == (3, size, size)
    assert np.abs(drawn.mean((1, 2)) - picture("sad", 128).mean((1, 2))).max() < 30


def a_folder(path: Path) -> Path:
    path.mkdir()
    colours = {"Neutrality.PNG": (200, 190, 180), "joy.jpg": (250, 200, 10), "angry.webp": (200, 10, 10)}
    for name, colour in colours.items():
        Image.new("RGB", (60, 40), colour).save(path / name)
    (path / "notes.txt").write_text("not a picture")
    return path


def test_pictures_of_ones_own_are_found_by_their_emotion(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "styles")
    model = build(styles=str(folder))
    drawn = model.style_pictures()
    assert drawn.shape == (3, 3, 32, 32)
    expected = np.array([(200, 190, 180), (250, 200, 10), (200, 10, 10)])
    assert np.abs(drawn.mean((2, 3)) - expected).max() < 6
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(folder / "sad.png")
    assert read_picture(folder / "sad.png", 16).min() > 200  # the middle square, not squeezed


def test_a_folder_that_does_not_do_is_refused_before_the_fit(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "styles")
    with pytest.raises(SuiteError, match=r"no picture of sad, fear. Add sad.jpg .*Neutrality.PNG"):
        folder_pictures(str(folder), [*EMOTIONS, "sad", "fear"])
    with pytest.raises(SuiteError, match=r"nowhere is no folder"):
        build(styles=str(tmp_path / "nowhere"))
    (folder / "anger.png").write_bytes((folder / "joy.jpg").read_bytes())
    with pytest.raises(SuiteError, match="several pictures of anger: anger.png, angry.webp"):
        build(styles=str(folder))
    (folder / "anger.png").unlink()
    (folder / "joy.jpg").write_bytes(b"not a picture")
    with pytest.raises(SuiteError, match=r"joy.jpg: this picture of happy cannot be read"):
        build(styles=str(folder)).targets(torch.device("cpu"))
