"""StyleGAN2-ADA (Karras et al. 2020a, 2020b): a class-conditional GAN that also learns from few faces."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import SizeError, WeightsError
from emobench.generators.generator import EmotionGenerator, frozen
from emobench.generators.turns import Turn
from emobench.nn.ada import AdaptiveAugment
from emobench.nn.network_files import Network, read_network
from emobench.nn.noise import Noise
from emobench.nn.stylegan2 import CLAMP, GROUP, LR_MULTIPLIER, Discriminator, Generator, channels_of
from emobench.nn.weights import WeightFile, by_path, load_weights
from emobench.recipe import Augment, Recipe


class StyleGAN2(EmotionGenerator):
    """A mapping of noise and emotion to styles w, a synthesis of faces from them, and a residual discriminator.

    Non-saturating logistic loss (Goodfellow et al. 2014, section 3), lazy R1 (Mescheder et al. 2018, eq. 9; 2020a,
    section 4.1), path-length regularisation (2020a, eq. 4), and augmentation of whatever the discriminator sees, driven
    by how far it overfits (2020b, eq. 1). Regularisers are added to the loss of every n-th step instead of taking steps
    of their own, so that Adam needs no correction for them.

    Args:
        conditional: whether generator and discriminator are told the emotion.
        latent: dimensions of z.
        style: dimensions of w.
        mapping_layers: of z to w; 8 in the first papers, 2 in StyleGAN2-ADA's settings for small datasets.
        class_layers: of an emotion to what the discriminator compares its features with; 8 as in the published code,
            which hardly move in a short fit, at a hundredth of the rate; 0: a projection discriminator as in Miyato and
            Koyama 2018.
        base, most: channels at a resolution: base over the resolution, at most so many.
        mixing: probability that the faces of a step have the styles of two z.
        r1: weight γ of R1; None: 0.0002 · size² / 32, the second paper's heuristic at a batch of 32.
        r1_every: steps between two R1 terms.
        path_length: weight of path-length regularisation; 0: none; 2 in the papers.
        path_length_every: steps between two such terms.
        ada_target: of the heuristic r_t; None: no augmentation.
        ada_kimg: thousands of real faces in which its probability may go from 0 to 1.
        truncation: ψ of w's move towards its mean when faces are drawn (2019, appendix B); 1: none.
        weights: a StyleGAN2-ADA network file to start from: the published format, or .safetensors written by emobench.
        lr: of both Adams (β 0 and 0.99).
    """

    name = "stylegan2"
    source = (
        "Facial-Emotion-CVAE-StyleGAN (docs/systems.md); Karras et al. 2020a and 2020b, arXiv:1912.04958 and "
        "arXiv:2006.06676"
    )
    # 25 million faces, the second paper's budget.
    recipe = Recipe(
        size=64,
        batch=32,
        steps=781_250,
        ema=0.999,
        monitor=None,
        augment=Augment.mirror(),
    )

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        conditional: bool = True,
        latent: Annotated[int, Ge(1)] = 512,
        style: Annotated[int, Ge(1)] = 512,
        mapping_layers: Annotated[int, Ge(1)] = 2,
        class_layers: Annotated[int, Ge(0)] = 8,
        base: Annotated[int, Ge(1)] = 16384,
        most: Annotated[int, Ge(1)] = 512,
        mixing: Annotated[float, Ge(0), Le(1)] = 0.9,
        r1: Annotated[float, Ge(0)] | None = None,
        r1_every: Annotated[int, Ge(1)] = 16,
        path_length: Annotated[float, Ge(0)] = 0.0,
        path_length_every: Annotated[int, Ge(1)] = 4,
        ada_target: Annotated[float, Ge(-1), Le(1)] | None = 0.6,
        ada_kimg: Annotated[float, Gt(0)] = 500.0,
        truncation: Annotated[float, Ge(0)] = 1.0,
        weights: str | None = None,
        lr: Annotated[float, Gt(0)] = 0.0025,
    ) -> None:
        super().__init__(emotions=emotions, size=size)
        self.automatic_optimization = False
        self.mixing, self.truncation, self.lr = mixing, truncation, lr
        self.r1, self.r1_every = 0.0002 * size**2 / 32 if r1 is None else r1, r1_every
        self.path_length, self.path_length_every = path_length, path_length_every
        classes, channels = len(self.emotions) if conditional else 0, channels_of(size, base, most)
        self.generator = Generator(
            z_dim=latent, c_dim=classes, w_dim=style, mapping_layers=mapping_layers, channels=channels
        )
        start = None if weights is None else _start(Path(weights).expanduser())
        against = None if start is None else start.config["discriminator"]
        group = GROUP if against is None else against["mbstd_group_size"]
        self.discriminator = Discriminator(c_dim=classes, channels=channels, mapping_layers=class_layers, group=group)
        self.augment = AdaptiveAugment(ada_target, ada_kimg)
        self.register_buffer("usual_path", torch.zeros(()))  # running mean of path lengths, a in eq. 4
        self.to(memory_format=torch.channels_last)  # a sixth faster on CPUs
        if start is not None:
            load_weights(self.generator, start.generator, str(weights), ())
            if start.discriminator is not None:
                load_weights(self.discriminator, start.discriminator, str(weights), ())

    usual_path: Tensor

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError unless the size is a power of two, 32 to 1024 px."""
        if size not in (32, 64, 128, 256, 512, 1024):
            raise SizeError(f"{cls.name} cannot make faces of {size} px; it makes 32, 64, 128, 256, 512 or 1024 px")

    @classmethod
    def weight_file(cls, arguments: Mapping[str, Any]) -> WeightFile | None:
        """The network file that the fit starts from."""
        return None if arguments["weights"] is None else by_path(arguments["weights"])

    def network(self) -> Network:
        """Both networks as `write_network` takes them."""
        arguments = self.hparams
        config = {
            "resolution": self.size, "z_dim": self.generator.z_dim, "w_dim": self.generator.w_dim,
            "c_dim": self.generator.c_dim, "mapping_layers": arguments["mapping_layers"], "img_channels": 3,
            "channels": {str(k): v for k, v in channels_of(self.size, arguments["base"], arguments["most"]).items()},
            "conv_clamp": CLAMP, "architecture": "skip", "lr_multiplier": LR_MULTIPLIER,
            "discriminator": {
                "conv_clamp": CLAMP, "lr_multiplier": LR_MULTIPLIER, "mbstd_group_size": self.discriminator.b4.group,
            },
        }  # fmt: skip
        return Network(config, self.generator.state_dict(), self.discriminator.state_dict())

    def compilable(self) -> list[nn.Module]:
        """All three: the penalties call what is not compiled."""
        return [self.generator.mapping, self.generator.synthesis, self.discriminator]

    # Fit

    def turns(self, batch: Mapping[str, Tensor], step: int) -> Iterator[Turn]:
        """A step of the generator, and one of the discriminator."""
        pixels, emotions = self.pixels(batch["image"]), batch["emotions"]
        asked = emotions[torch.randperm(len(emotions), device=emotions.device)]
        with frozen(self.discriminator):
            parts = self._generator_parts(asked, step)
        yield Turn(0, parts)
        with frozen(self.generator):
            parts = self._discriminator_parts(pixels, emotions, asked, step)
        yield Turn(1, parts, "d_")

    def end_of_step(self, step: int) -> None:
        """Move the probability of the augmentation."""
        self.augment.adjust()

    def _noise(self, n: int) -> Tensor:
        return torch.randn(n, self.generator.z_dim, device=self.device)

    def _generator_parts(self, asked: Tensor, step: int) -> dict[str, Tensor]:
        fake = self.generator(self._noise(len(asked)), asked, mixing=self.mixing)
        parts = {"adversarial": F.softplus(-self.discriminator(self.augment(fake), asked)).mean()}
        if self.path_length and step % self.path_length_every == 0:
            half = asked[: max(1, len(asked) // 2)]  # half a batch suffices (2020a, appendix B)
            parts["path_length"] = self.path_length * self.path_length_every * self._path_penalty(half)
        return parts

    def _path_penalty(self, asked: Tensor) -> Tensor:
        """(‖∇_w (G(w) · y)‖ − a)² for images y of noise, a the running mean of that length (2020a, eq. 4)."""
        with torch.autocast(asked.device.type, enabled=False):
            ws = self.generator.spread(self.generator.mapping.forward(self._noise(len(asked)), asked))
            images = self.generator.synthesis.forward(ws)
            projected = (images * torch.randn_like(images) / self.size).sum()
            (gradient,) = torch.autograd.grad(projected, ws, create_graph=True)
            lengths = gradient.square().sum(2).mean(1).sqrt()  # (N,)
            self.usual_path.lerp_(lengths.detach().mean(), 0.01)
            penalty: Tensor = (lengths - self.usual_path).square().mean()
            return penalty

    def _discriminator_parts(self, pixels: Tensor, emotions: Tensor, asked: Tensor, step: int) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.generator(self._noise(len(asked)), asked, mixing=self.mixing)
        on_fake = self.discriminator(self.augment(fake), asked)
        on_real = self.discriminator(self.augment(pixels), emotions)
        self.augment.observe(on_real.detach())
        parts = {"fake": F.softplus(on_fake).mean(), "real": F.softplus(-on_real).mean()}
        if self.r1 and step % self.r1_every == 0:
            parts["r1"] = 0.5 * self.r1 * self.r1_every * self._gradient_penalty(pixels, emotions)
        return parts

    def _gradient_penalty(self, pixels: Tensor, emotions: Tensor) -> Tensor:
        """‖∇D‖² at real faces, through their augmentation, in float32 whatever the precision."""
        with torch.autocast(pixels.device.type, enabled=False):
            real = pixels.float().detach().requires_grad_()
            score = self.discriminator.forward(self.augment(real), emotions)
            (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            penalty: Tensor = gradient.square().sum((1, 2, 3)).mean()
            return penalty

    def loss_parts(self, pixels: Tensor, emotions: Tensor, *, training: bool) -> Mapping[str, Tensor]:
        """For validation: what the discriminator thinks of unseen faces, and of drawn ones."""
        z = Noise(torch.arange(len(pixels))).normal(self.generator.z_dim).to(pixels.device)
        noises = self.generator.synthesis.noises(Noise(torch.arange(len(pixels), device=pixels.device)))
        fake = self.generator.synthesis(self.generator.spread(self.generator.mapping(z, emotions)), noises)
        on_real, on_fake = self.discriminator(pixels, emotions), self.discriminator(fake, emotions)
        return {"real": F.softplus(-on_real).mean(), "fake": F.softplus(on_fake).mean()}

    def configure_optimizers(self) -> Any:
        """Two Adams."""
        return [
            torch.optim.Adam(network.parameters(), self.lr, betas=(0.0, 0.99), eps=1e-8)
            for network in (self.generator, self.discriminator)
        ]

    # Sampling

    @torch.no_grad()
    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K)."""
        noise, generator = Noise(seeds), self.generator
        w = generator.mapping(noise.normal(generator.z_dim), emotions)
        w = generator.mapping.w_avg.lerp(w, self.truncation)
        return self.images(generator.synthesis(generator.spread(w), generator.synthesis.noises(noise)))


def _start(path: Path) -> Network:
    """The networks in a file, to go on training from.

    What was trained is later built again without the file: what cannot be seen from its weights must be as here.

    Raises:
        WeightsError: it is no such network, or has other settings than are trained here.
    """
    network = read_network(path)
    for role, config in (("generator", network.config), ("discriminator", network.config["discriminator"] or {})):
        for name, wanted in (("conv_clamp", CLAMP), ("lr_multiplier", LR_MULTIPLIER)):
            if (found := config.get(name, wanted)) != wanted:
                raise WeightsError(
                    f"{path}: the {name} of its {role} is {found}, and only networks with {wanted} can be trained on. "
                    "Name another file, or use its generator as it is, as the `network` of latent_search"
                )
    if network.discriminator is None:
        reason = "" if network.unread is None else f" ({network.unread})"
        warnings.warn(f"{path}: no discriminator is read{reason}: the fit begins with an untrained one", stacklevel=2)
    return network


def generator_of(path: Path) -> Generator:
    """The generator in a StyleGAN2-ADA network file, ready to make images.

    Raises:
        WeightsError: the file is missing, carries something that is refused, or is no such network.
    """
    network = read_network(path)
    config = network.config
    if config["img_channels"] != 3:
        raise WeightsError(f"{path}: makes images of {config['img_channels']} channels, not 3. Name a network of faces")
    generator = Generator(
        z_dim=config["z_dim"],
        c_dim=config["c_dim"],
        w_dim=config["w_dim"],
        mapping_layers=config["mapping_layers"],
        channels={int(side): channels for side, channels in config["channels"].items()},
        clamp=config["conv_clamp"],
        lr_multiplier=config["lr_multiplier"],
    )
    load_weights(generator, network.generator, path, ())
    return generator.eval().requires_grad_(False)
