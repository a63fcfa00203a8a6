"""StarGAN (Choi et al. 2018): one generator that edits a face to any emotion; trainable on several datasets at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import SizeError, SuiteError, unknown
from emobench.generators.generator import EmotionGenerator, frozen
from emobench.generators.turns import Turn
from emobench.recipe import Augment, Recipe


class StarGAN(EmotionGenerator):
    """An image-to-image generator told the target emotion, and a discriminator that also reads the emotion.

    WGAN-GP (eq. 1, 8), domain classification (eq. 2, 3), cycle reconstruction (eq. 4). Trained on several datasets
    together (section 3.2), its labels are over the union of their emotions; the generator is told in n further planes
    which dataset the face is to be of, the one-hot mask m of eq. 7; and the classification loss sees only emotions that
    the face's dataset knows.

    Args:
        datasets: names of the n datasets that it is trained on together; of fewer than two there is no mask.
        width: channels of the generator's first convolution.
        blocks: residual blocks in its middle.
        discriminator_width: channels of the discriminator's first convolution.
        discriminator_layers: its halvings; None: as many as leave at least 2 px, at most 6.
        critic_steps: steps of the discriminator for one of its opponent.
        classification, cycle, penalty: weights of the terms, λ_cls, λ_rec, λ_gp.
        lr: of both Adams; falls to 0 over the second half of the fit, as in the paper.
    """

    name = "stargan"
    joint = True
    batches_a_step = 5  # of its own recipe, at the published `critic_steps`
    source = "Liu et al. 2025, sections 3.2 and 4.1.2 (docs/systems.md); Choi et al. 2018, eq. 1-8"
    recipe = Recipe(size=224, batch=16, epochs=20, monitor=None, augment=Augment.mirror())
    small_faces: ClassVar[Mapping[str, Any]] = {
        "size": "none",
        "width": 16,
        "blocks": 2,
        "discriminator_width": 32,
        "discriminator_layers": 3,
        "critic_steps": 2,
        "lr": 3e-4,
        "steps": 3000,
    }

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        datasets: Sequence[str] = (),
        width: Annotated[int, Ge(1)] = 64,
        blocks: Annotated[int, Ge(0)] = 6,
        discriminator_width: Annotated[int, Ge(1)] = 64,
        discriminator_layers: Annotated[int, Ge(1)] | None = None,
        critic_steps: Annotated[int, Ge(1)] = 5,
        classification: Annotated[float, Ge(0)] = 1.0,
        cycle: Annotated[float, Ge(0)] = 10.0,
        penalty: Annotated[float, Ge(0)] = 10.0,
        lr: Annotated[float, Gt(0)] = 1e-4,
    ) -> None:
        super().__init__(emotions=emotions, size=size)
        self.datasets = tuple(datasets) if len(datasets) > 1 else ()
        self.dataset = self.datasets[0] if self.datasets else None  # of the faces that `edit` makes
        self.automatic_optimization = False
        self.critic_steps, self.lr = critic_steps, lr
        self.classification, self.cycle, self.penalty = classification, cycle, penalty
        k = len(self.emotions)
        self.generator = _Generator(k + len(self.datasets), width, blocks)
        layers = _layers(size) if discriminator_layers is None else discriminator_layers
        self.discriminator = _Discriminator(k, size, discriminator_width, layers)
        self.batches_a_step = critic_steps

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where the halvings do not come out even, or leave the discriminator nothing."""
        if size < 28 or size % 4:
            raise SizeError(f"{cls.name} cannot make faces of {size} px; it takes multiples of 4 from 28 px on")
        layers = arguments.get("discriminator_layers")
        if layers is not None and size >> layers < 1:
            raise SizeError(
                f"{cls.name}: {layers} halvings leave nothing of {size} px; take at most {_layers(size) + 1}"
            )

    def compilable(self) -> list[nn.Module]:
        """Not the discriminator, whose gradient is in its penalty."""
        return [self.generator]

    def turns(self, batch: Mapping[str, Tensor], step: int) -> Iterator[Turn]:
        """A step of the discriminator, and every `critic_steps`-th time one of the generator, which is what counts."""
        pixels, emotions = self.pixels(batch["image"]), batch["emotions"]
        mask = batch.get("mask", torch.ones_like(emotions))  # (N, K) 1 where the face's dataset knows the emotion
        condition = self._condition(emotions, batch.get("dataset"))  # (N, K + n)
        # Each face is asked for as another of the batch, which is of one dataset.
        order = torch.randperm(len(emotions), device=emotions.device)
        target = condition[order]
        with frozen(self.generator):
            parts = self._discriminator_parts(pixels, emotions, mask, target)
        yield Turn(1, parts, "d_")
        if (step + 1) % self.critic_steps == 0:
            with frozen(self.discriminator):
                parts = self._generator_parts(pixels, condition, target, mask[order])
            yield Turn(0, parts)

    def end_of_step(self, step: int) -> None:
        """Move the rates with each step of the generator."""
        if (step + 1) % self.critic_steps == 0:
            schedules: Any = self.lr_schedulers()
            for schedule in schedules:
                schedule.step()

    def _condition(self, emotions: Tensor, dataset: Tensor | None) -> Tensor:
        """What the generator is told (N, K + n): emotions (N, K) and, of several datasets, the one-hot mask (N, n)."""
        if not self.datasets:
            return emotions
        assert dataset is not None
        return torch.cat([emotions, dataset.to(emotions.dtype)], 1)

    def _discriminator_parts(self, pixels: Tensor, emotions: Tensor, mask: Tensor, target: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.generator(pixels, target)
        real_score, read = self.discriminator(pixels)
        fake_score, _ = self.discriminator(fake)
        return {
            "adversarial": fake_score.mean() - real_score.mean(),
            "classification": self.classification * _reading_loss(read, emotions, mask),
            "penalty": self.penalty * self._gradient_penalty(pixels, fake),
        }

    def _gradient_penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """(‖∇D‖ − 1)² between real and fake faces (eq. 8), in float32 whatever the precision."""
        with torch.autocast(real.device.type, enabled=False):
            share = torch.rand(len(real), 1, 1, 1, device=real.device)
            between = (share * real.float() + (1 - share) * fake.float()).requires_grad_()
            score, _ = self.discriminator(between)
            (gradient,) = torch.autograd.grad(score.sum(), between, create_graph=True)
            penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
            return penalty

    def _generator_parts(
        self, pixels: Tensor, condition: Tensor, target: Tensor, target_mask: Tensor
    ) -> dict[str, Tensor]:
        fake = self.generator(pixels, target)
        score, read = self.discriminator(fake)
        back = self.generator(fake, condition)
        return {
            "adversarial": -score.mean(),
            "classification": self.classification * _reading_loss(read, target[:, : len(self.emotions)], target_mask),
            "cycle": self.cycle * F.l1_loss(back, pixels),
        }

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """The terms on validation faces, of whose dataset the generator is told."""
        condition = self._condition(batch["emotions"], batch.get("dataset"))
        self.note("val", self.loss_parts(self.pixels(batch["image"]), condition, training=False))

    def loss_parts(self, pixels: Tensor, emotions: Tensor, *, training: bool) -> Mapping[str, Tensor]:
        """For validation: how well faces come back from another emotion, which needs no opponent.

        Args:
            emotions: (N, K), of several datasets with their mask (N, K + n).
        """
        target = emotions.roll(1, 0)
        return {"cycle": self.cycle * F.l1_loss(self.generator(self.generator(pixels, target), emotions), pixels)}

    @torch.no_grad()
    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor, dataset: str | None = None) -> Tensor:
        """The same faces (N, 3, S, S) with emotions (N, K); nothing of it is random.

        Args:
            dataset: as of which of the datasets that it was trained on together; None: `self.dataset`, which is the
                first one unless it was set, or the model loaded for another.

        Raises:
            SuiteError: it was not trained on that dataset together with others.
        """
        name = self.dataset if dataset is None else dataset
        if name is not None and name not in self.datasets:
            raise SuiteError(f"{self.name}: {unknown('dataset', name, self.datasets)}")
        mask = emotions.new_tensor([[each == name for each in self.datasets]]).expand(len(emotions), -1)  # (N, n)
        return self.images(self.generator(self.pixels(images), self._condition(emotions, mask)))

    def configure_optimizers(self) -> Any:
        """Two Adams, whose rates fall to 0 over the second half of the generator's steps (section 5.1)."""
        optimizers = [
            torch.optim.Adam(network.parameters(), self.lr, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        ]
        if self.trainer.max_steps > 0:  # Lightning counts the steps of both
            steps = self.trainer.max_steps // (self.critic_steps + 1)
        else:
            batches = int(self.trainer.estimated_stepping_batches)
            steps = max(1, batches // (self.micro_batches * self.critic_steps))
        half = steps // 2
        schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                each, lambda step: 1.0 if step < half else max(0.0, 1 - (step - half) / max(1, steps - half))
            )
            for each in optimizers
        ]
        return optimizers, schedules


class _Generator(nn.Module):
    """Face (N, 3, S, S) and condition (N, C) to a face; table 4 of the paper."""

    def __init__(self, conditions: int, width: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = _convolution(3 + conditions, width, 7, 1, 3)
        for channels in (width, 2 * width):
            layers += _convolution(channels, 2 * channels, 4, 2, 1)
        layers += [_Residual(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += _upsampling(channels, channels // 2)
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3, 7, 1, 3, bias=False), nn.Tanh())

    def forward(self, pixels: Tensor, condition: Tensor) -> Tensor:
        planes = condition[:, :, None, None].expand(-1, -1, *pixels.shape[2:])  # (N, C, S, S)
        made: Tensor = self.layers(torch.cat([pixels, planes], 1))
        return made


def _convolution(before: int, after: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
    return [convolution, nn.InstanceNorm2d(after, affine=True), nn.ReLU()]


def _upsampling(before: int, after: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)
    return [convolution, nn.InstanceNorm2d(after, affine=True), nn.ReLU()]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        last = [nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.InstanceNorm2d(channels, affine=True)]
        self.layers = nn.Sequential(*_convolution(channels, channels, 3, 1, 1), *last)

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = features + self.layers(features)
        return changed


class _Discriminator(nn.Module):
    """Face (N, 3, S, S) to scores of its patches and logits (N, K) of its emotion; table 5 of the paper."""

    def __init__(self, emotions: int, size: int, width: int, layers: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before, channels = 3, width
        for _ in range(layers):
            blocks += [nn.Conv2d(before, channels, 4, 2, 1), nn.LeakyReLU(0.01)]
            before, channels = channels, 2 * channels
        self.body = nn.Sequential(*blocks)
        self.score = nn.Conv2d(before, 1, 3, 1, 1, bias=False)
        self.read = nn.Conv2d(before, emotions, size >> layers, bias=False)
        for layer in self.modules():
            # torch's default has a sixth of this variance, of which a few layers leave nothing: read by such a network,
            # emotions stayed at chance for 2,000 steps (32 px, batch 16), and after 160 no longer by this one.
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.01)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(pixels)  # (N, C, s, s)
        return self.score(features), self.read(features).flatten(1)


def _reading_loss(logits: Tensor, emotions: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy (N, K) over the emotions that a face's dataset knows (eq. 2, 3; soft labels throughout)."""
    return F.cross_entropy(logits.masked_fill(mask == 0, -1e4), emotions)


def _layers(size: int) -> int:
    """The discriminator's halvings: as many as leave at least 2 px, six at most as in the paper."""
    layers = 1
    while layers < 6 and size >> (layers + 1) >= 2:
        layers += 1
    return layers
