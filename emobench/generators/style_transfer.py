"""Emotion-driven style transfer (Padalia and Saxena): a face in the style of the emotion that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Len
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import SizeError, SuiteError, WeightsError
from emobench.generators.generator import EmotionGenerator
from emobench.nn.perceptual import VGG16Features, features_for, needed_file, normalised
from emobench.nn.styles import folder_pictures, picture, read_picture
from emobench.nn.weights import WeightFile
from emobench.recipe import Augment, Recipe

Layer = Literal["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
CONVOLUTIONS = {"relu1_2": 2, "relu2_2": 4, "relu3_3": 7, "relu4_3": 10}  # how many of VGG16 lead to a layer
CONTENT_WEIGHT, STYLE_WEIGHT = 1.0, 400_000.0  # Padalia and Saxena, section 4.3; those of `total_loss`
_SMALLEST = 5  # px: reflection needs more than the 4 px that the first convolution is padded with
_CHUNK = 16  # faces whose losses are measured at a time


class StyleTransfer(EmotionGenerator):
    """A transformation network for each emotion, trained for the style of one picture; a classifier chooses among them.

    Loss: content (Johnson et al. 2016, eq. 2), the mean squared difference of activations, and style, the mean squared
    difference of Gram matrices (eq. 3), a sum over the style layers. Eq. 4 has their squared Frobenius norm, C² times
    as much, and Padalia and Saxena (section 7) half the sum over activations for content; but weights of 1 and 400,000
    go with means, as in PyTorch's own example of the method (1e5 and 1e10), and so they are read here.

    A label says nothing of which network a training face goes through: as in Padalia and Saxena, every network is
    trained on faces of all emotions.

    Args:
        width: channels of the first convolution; two and four times as many follow.
        perceptual: the loss network: VGG16 (ImageNet), or a guide, a classifier of emobench.
        weights: of VGG16, by torchvision's name or by path; None: of a trained network that measures no losses.
        content_layer: whose activations are kept. Of a guide, those after as many convolutions, or after its last one.
        style_layers: whose Gram matrices are matched.
        content_weight, style_weight: of the terms. A guide's activations are of another size than VGG16's: with a small
            one, at 32 px, weights of 100 to 300 and the content of relu1_2 left the face to be seen.
        tv_weight: of the total variation (Johnson et al. 2016, section 3.2: that of Mahendran and Vedaldi 2015, with
            β = 2), a mean over pixels; 0: none, as in Padalia and Saxena.
        styles: a folder with a picture for each emotion, named after it; None: the built-in ones.
        lr: of Adam.
        classifier, guide: the networks that fill the needs of these names.
    """

    name = "style_transfer"
    source = (
        "Padalia and Saxena (docs/systems.md), sections 3.3, 4.3 and 7; Johnson et al. 2016, eq. 2-4; Gatys et al. "
        "2016; Ulyanov et al. 2016 (instance norm)"
    )
    may_need: ClassVar[Mapping[str, str]] = {"classifier": "classifier", "guide": "classifier"}
    files = ("styles", "weights")
    keeps_files = True  # its losses are measured with them
    # Five epochs a style (section 4.3) for its seven styles, since in a step a face goes through one of the networks: K
    # styles take 5·K. 28 faces are four for each, the batch of Johnson et al. 2016, section 4.1; so is Adam's rate.
    recipe = Recipe(size=256, batch=28, epochs=35, monitor=None, augment=Augment.mirror())

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        width: Annotated[int, Ge(1)] = 32,
        perceptual: Literal["vgg16", "guide"] = "vgg16",
        weights: str | None = "IMAGENET1K_V1",
        content_layer: Layer = "relu2_2",
        style_layers: Annotated[tuple[Layer, ...], Len(1)] = ("relu2_2",),
        content_weight: Annotated[float, Ge(0)] = CONTENT_WEIGHT,
        style_weight: Annotated[float, Ge(0)] = STYLE_WEIGHT,
        tv_weight: Annotated[float, Ge(0)] = 0.0,
        styles: str | None = None,
        lr: Annotated[float, Gt(0)] = 1e-3,
        classifier: Sequence[Any] = (),
        guide: Sequence[Any] = (),
    ) -> None:
        super().__init__(emotions=emotions, size=size)
        self.content_layer, self.style_layers = content_layer, tuple(style_layers)
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        self.styles, self.lr = styles, lr
        self.classifier = tuple(classifier)  # no list of modules: its weights are no part of this model
        _check(self, perceptual, guide)
        self._see = LossNetwork(weights, tuple(guide), (content_layer, *self.style_layers))
        self._targets: dict[torch.device, list[Tensor]] = {}  # Gram matrices of the styles, where they have been needed
        self.networks = nn.ModuleList(Transformation(width) for _ in self.emotions)

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where the two halvings of a training face do not come out even."""
        if size < 16 or size % 4:
            raise SizeError(f"{cls.name} cannot be trained on {size} px; it takes multiples of 4 from 16 px on")

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """VGG16's, where it is the loss network.

        Raises:
            WeightsError: there is to be none: the losses of a random network are nobody's.
        """
        if arguments["perceptual"] == "vgg16" and arguments["weights"] is None:
            raise WeightsError(_no_weights(cls.name))
        return needed_file(arguments)

    def compilable(self) -> list[nn.Module]:
        """The transformation networks, each by itself: the list of them is never called."""
        return list(self.networks)

    # Fit

    def loss_parts(self, pixels: Tensor, emotions: Tensor, *, training: bool) -> Mapping[str, Tensor]:
        """Every face through one network, the next face through the next; in training they begin anywhere."""
        k = len(self.emotions)
        first = int(torch.randint(k, ())) if training else 0
        chosen = (torch.arange(len(pixels)) + first) % k
        targets = self.targets(pixels.device)
        made = self._by_one_each(pixels, chosen)
        content, style = self._distances(pixels, made, chosen, targets)
        parts = {"content": self.content_weight * content.mean(), "style": self.style_weight * style.mean()}
        if self.tv_weight:
            parts["tv"] = self.tv_weight * total_variation(made)
        return parts

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all networks; those that no face of a step went through stay as they are."""
        return torch.optim.Adam(self.parameters(), self.lr)

    def _by_one_each(self, pixels: Tensor, chosen: Tensor) -> Tensor:
        """Faces (N, 3, H, W), each through the network of its number in `chosen`, int64 (N,) on the CPU."""
        made: list[Tensor] = []
        rows: list[Tensor] = []
        for number in chosen.unique().tolist():
            rows.append((chosen == number).nonzero().flatten())
            made.append(self.networks[number](pixels[rows[-1].to(pixels.device)]).float())
        return torch.cat(made)[torch.cat(rows).argsort().to(pixels.device)]

    def _distances(
        self, pixels: Tensor, made: Tensor, chosen: Tensor, targets: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Content and style loss (N,) of each face, unweighted."""
        with torch.no_grad():
            before = self._see(pixels)[self.content_layer]
        seen = self._see(made)
        content = (seen[self.content_layer].float() - before.float()).square().flatten(1).mean(1)  # eq. 2
        terms = [
            (gram(seen[layer]) - styles[chosen.to(styles.device)]).square().flatten(1).mean(1)
            for layer, styles in zip(self.style_layers, targets, strict=True)
        ]
        return content, torch.stack(terms).sum(0)

    def targets(self, device: torch.device) -> list[Tensor]:
        """Gram matrices of the style pictures at the training size: one (K, C, C) for each style layer.

        Raises:
            SuiteError: a picture cannot be read.
            WeightsError: the loss network is VGG16, and its weights are not there.
        """
        if device not in self._targets:
            # Whoever asks first, a validation too, must get tensors that a gradient can pass.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
                images = torch.from_numpy(self.style_pictures()).to(device)
                seen = self._see(images.float() / 127.5 - 1)
                self._targets[device] = [gram(seen[layer]) for layer in self.style_layers]
        return self._targets[device]

    def style_pictures(self) -> np.ndarray:
        """The pictures of the styles, uint8 (K, 3, size, size)."""
        if self.styles is None:
            return np.stack([picture(emotion, self.size) for emotion in self.emotions])
        paths = folder_pictures(self.styles, self.emotions)
        return np.stack([read_picture(paths[emotion], self.size) for emotion in self.emotions])

    # Faces in, faces in another style out

    @torch.no_grad()
    def stylize(self, images: Tensor, emotions: Tensor | None = None) -> Tensor:
        """The same faces in the style of emotions.

        Args:
            images: uint8 (N, 3, H, W), of any size from 5 px on, which they keep.
            emotions: (N, K). A mixture is the weighted mean of what its networks make of the face; the row of zeros
                leaves a face as it is. None: the emotions that the classifier reads.

        Raises:
            SuiteError: neither emotions nor a classifier.
            SizeError: too small for the networks' reflection.
        """
        height, width = images.shape[-2:]
        if min(height, width) < _SMALLEST:
            raise SizeError(
                f"{self.name} cannot stylize faces of {height} x {width} px; it takes any size from {_SMALLEST} px on"
            )
        emotions = self.label(images) if emotions is None else emotions
        pixels = images.float() / 127.5 - 1
        padded = F.pad(pixels, (0, -width % 4, 0, -height % 4), mode="reflect")
        unstyled = (emotions <= 0).all(1)  # (N,)
        made = pixels * unstyled[:, None, None, None]
        for number, network in enumerate(self.networks):
            rows = (emotions[:, number] > 0).nonzero().flatten()
            if len(rows):
                share = emotions[rows, number].float()[:, None, None, None]
                made[rows] += share * network(padded[rows])[..., :height, :width].float()
        return self.images(made)

    @torch.no_grad()
    def label(self, images: Tensor) -> Tensor:
        """The emotions (N, K), one-hot, that the classifier reads in faces uint8 (N, 3, H, W).

        Raises:
            SuiteError: there is no classifier.
        """
        if not self.classifier:
            raise SuiteError(
                f"{self.name} has no classifier to read the emotion of a face. Give emotions (N, K), or name a row for "
                'it in the suite, needs = { classifier = "cnn21" }'
            )
        logits: Tensor = self.classifier[0].to(images.device)(images)
        return F.one_hot(logits.argmax(1), len(self.emotions)).float()

    @torch.no_grad()
    def losses(self, images: Tensor, made: Tensor, emotions: Tensor) -> dict[str, Tensor]:
        """What Padalia and Saxena minimise, for each face: content, style, and both at its weights of 1 and 400,000.

        Args:
            images: faces, uint8 (N, 3, H, W).
            made: what `stylize` made of them.
            emotions: whose styles were used (N, K); of a mixture the strongest.

        Returns:
            `content_loss`, `style_loss` and `total_loss`, each (N,), in the layers of the fit.

        Raises:
            WeightsError: the loss network is VGG16, and its weights are not there.
        """
        targets, chosen = self.targets(images.device), emotions.argmax(1)
        found = []
        with torch.autocast(images.device.type, enabled=False):
            for rows in torch.arange(len(images), device=images.device).split(_CHUNK):
                before, after = (each[rows].float() / 127.5 - 1 for each in (images, made))
                found.append(torch.stack(self._distances(before, after, chosen[rows], targets)))
        content, style = torch.cat(found, 1)
        total = CONTENT_WEIGHT * content + STYLE_WEIGHT * style
        return {"content_loss": content, "style_loss": style, "total_loss": total}


class Transformation(nn.Module):
    """Pixels (N, 3, H, W) in [-1, 1] to pixels in another style; 4 divides H and W. Sixteen convolutions, no pooling.

    Padalia and Saxena, section 3.3: instance norm (Ulyanov et al. 2016, section 2), and upsampling by nearest neighbour
    before a convolution in place of a transposed one. Edges are padded by reflection, about which it is silent.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = _block(3, width, 9)
        for channels in (width, 2 * width):
            layers += _block(channels, 2 * channels, 3, stride=2)
        layers += [_Residual(4 * width) for _ in range(5)]
        for channels in (4 * width, 2 * width):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), *_block(channels, channels // 2, 3)]
        last = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")
        self.layers = nn.Sequential(*layers, last, nn.Tanh())

    def forward(self, pixels: Tensor) -> Tensor:
        made: Tensor = self.layers(pixels)
        return made


def _block(before: int, after: int, kernel: int, *, stride: int = 1, relu: bool = True) -> list[nn.Module]:
    # Instance norm takes a bias out again.
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, padding_mode="reflect", bias=False)
    return [convolution, nn.InstanceNorm2d(after, affine=True), *([nn.ReLU()] if relu else [])]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_block(channels, channels, 3), *_block(channels, channels, 3, relu=False))

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = features + self.layers(features)
        return changed


class LossNetwork:
    """Activations at named layers, for pixels in [-1, 1]: of a guide, or of VGG16, which is read when first used.

    Not a module: its weights are no part of whoever is trained by it.

    Args:
        weights: of VGG16; None: it cannot be used.
        guide: a classifier of emobench to take instead; empty: VGG16.
        layers: of `CONVOLUTIONS`.
    """

    def __init__(self, weights: str | None, guide: Sequence[Any], layers: Sequence[str]) -> None:
        self.weights = weights
        self.layers = [layer for layer in CONVOLUTIONS if layer in layers]  # the deepest comes last
        self._features: VGG16Features | _GuideLayers | None = _GuideLayers(guide[0], self.layers) if guide else None

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to one (N, C, h, w) for each layer."""
        return dict(zip(self.layers, self._network()(pixels), strict=True))

    def _network(self) -> VGG16Features | _GuideLayers:
        if self._features is None:
            if self.weights is None:
                raise WeightsError(_no_weights(StyleTransfer.name))
            with torch.random.fork_rng(devices=[]):  # a fit draws the same whenever the network is read
                self._features = VGG16Features(self.weights, self.layers)
        return self._features


class _SeenEnough(Exception):
    """The activations that are wanted are known: the rest of a guide need not be run."""


class _GuideLayers:
    """A guide's activations after as many convolutions as lead to the layers in VGG16, or after its last one.

    The activation of a convolution is what the next ReLU makes of it, behind a batch norm too: before that, a channel
    may be negative everywhere, and a ReLU of our own would leave nothing of it.
    """

    def __init__(self, guide: Any, layers: Sequence[str]) -> None:
        self.guide, self.numbers = guide, [CONVOLUTIONS[layer] for layer in layers]

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        guide = self.guide.to(pixels.device)
        found: list[tuple[Tensor, bool]] = []  # of each convolution what came of it, and whether a ReLU has

        def note(module: nn.Module, _: Any, made: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                found.append((made, False))
            elif found and not found[-1][1] and made.shape == found[-1][0].shape:
                found[-1] = made, True
            if sum(active for _, active in found) >= max(self.numbers):
                raise _SeenEnough  # two thirds of a VGG16 lie behind the default layer

        hooks = [m.register_forward_hook(note) for m in guide.modules() if isinstance(m, nn.Conv2d | nn.ReLU)]
        try:
            guide.logits(normalised(guide, (pixels + 1) * 127.5))
        except _SeenEnough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        wanted = [found[min(number, len(found)) - 1] for number in self.numbers]
        return [made if active else F.relu(made) for made, active in wanted]


def gram(features: Tensor) -> Tensor:
    """Gram matrices F Fᵀ / (C·H·W) (Johnson et al. 2016, eq. 3), (N, C, H, W) to (N, C, C), in float32 at least."""
    with torch.autocast(features.device.type, enabled=False):
        rows = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))  # (N, C, H·W)
        return rows @ rows.mT / (rows.shape[1] * rows.shape[2])


def total_variation(pixels: Tensor) -> Tensor:
    """Squared differences of neighbours in x and in y, a mean over pixels."""
    return pixels.diff(dim=2).square().mean() + pixels.diff(dim=3).square().mean()


def _check(model: StyleTransfer, perceptual: Literal["vgg16", "guide"], guide: Sequence[Any]) -> None:
    """Raise a SuiteError where a network or a picture that is needed is not there, or one is of no use."""
    if perceptual == "guide" or guide:
        features_for(perceptual, None, guide)
    if len(model.classifier) > 1:
        names = ", ".join(each.name for each in model.classifier)
        raise SuiteError(f"{model.name} asks one classifier, not {names}; name an ensemble row, or one of them")
    for each in model.classifier:
        if each.emotions != model.emotions:
            raise SuiteError(
                f"{model.name} has styles for {', '.join(model.emotions)}, and its classifier {each.name} reads "
                f"{', '.join(each.emotions)}. Take one trained on the same dataset"
            )
    if model.styles is not None:
        folder_pictures(model.styles, model.emotions)


def _no_weights(name: str) -> str:
    return (
        f'{name} measures its losses in VGG16, and has no weights of it. Set weights = "IMAGENET1K_V1" or a path, or '
        'perceptual = "guide" with needs = { guide = ... }'
    )
