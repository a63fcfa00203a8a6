"""Conditional diffusion (Ho et al. 2020; Salimans and Ho 2022) with classifier-free guidance (Ho and Salimans 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.errors import SizeError
from emobench.generators.generator import EmotionGenerator
from emobench.nn.noise import Noise
from emobench.recipe import Augment, Recipe

STEPS = 1000  # of the noising that is learned to undo


class Diffusion(EmotionGenerator):
    """A U-Net that predicts the noise, or the velocity, in a noised face, told the time and the emotion.

    The emotion enters as a row of weights times a table of embeddings, so that mixtures are as good as labels; its last
    row is the unconditional one, trained by dropping labels.

    Args:
        channels: of the U-Net's levels, from the full resolution down.
        layers: residual blocks a level.
        attention: the deepest levels, so many, have self-attention.
        patch: pixel unshuffle before the U-Net and shuffle after it: for 2, about a quarter of the cost.
        predict: "epsilon" (Ho et al., eq. 14) or "v" (Salimans and Ho, appendix D).
        noise: schedule of the noise, "linear" (Ho et al.) or "cosine" (Nichol and Dhariwal 2021, eq. 17).
        drop: share of the labels that are dropped in training.
        guidance: weight of the condition; 1: none, and no second pass.
        sampler: "dpm" (DPM-Solver++, Lu et al. 2022), "ddim" (Song et al. 2021) or "ddpm" (Ho et al.).
        sampling_steps: of the sampler; None: 20, and all 1,000 of "ddpm".
        strength: how much of the noising an edit undoes, 0 to 1.
        inversion: edits start from the noise that DDIM leads back to (deterministic) instead of random noise.
        lr, weight_decay: of AdamW.
    """

    name = "diffusion"
    source = (
        "Liu et al. 2025, sections 3.3 and 4.1.3 (docs/systems.md); Ho et al. 2020, algorithm 1; Ho and Salimans 2022, "
        "algorithm 1 and eq. 6"
    )
    recipe = Recipe(
        size=48,
        batch=32,
        epochs=1000,
        ema=0.9999,
        monitor=None,
        augment=Augment.mirror(),
    )

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        channels: tuple[int, ...] = (64, 128, 256),
        layers: Annotated[int, Ge(1)] = 2,
        attention: Annotated[int, Ge(0)] = 1,
        patch: Annotated[int, Ge(1)] = 1,
        predict: Literal["epsilon", "v"] = "epsilon",
        noise: Literal["linear", "cosine"] = "linear",
        drop: Annotated[float, Ge(0), Le(1)] = 0.1,
        guidance: Annotated[float, Ge(0)] = 1.5,
        sampler: Literal["dpm", "ddim", "ddpm"] = "dpm",
        sampling_steps: Annotated[int, Ge(1), Le(STEPS)] | None = None,
        strength: Annotated[float, Gt(0), Le(1)] = 0.6,
        inversion: bool = False,
        lr: Annotated[float, Gt(0)] = 3e-4,
        weight_decay: Annotated[float, Ge(0)] = 1e-3,
    ) -> None:
        from diffusers import UNet2DModel

        super().__init__(emotions=emotions, size=size)
        self.patch, self.predict, self.drop, self.guidance = patch, predict, drop, guidance
        self.sampler, self.sampling_steps = sampler, sampling_steps
        self.strength, self.inversion = strength, inversion
        self.lr, self.weight_decay, self.schedule = lr, weight_decay, noise
        plain = len(channels) - attention
        self.unet: Any = UNet2DModel(
            sample_size=size // patch,
            in_channels=3 * patch**2,
            out_channels=3 * patch**2,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attention,
            up_block_types=("AttnUpBlock2D",) * attention + ("UpBlock2D",) * plain,
            norm_num_groups=next(groups for groups in (32, 16, 8, 4, 2, 1) if all(c % groups == 0 for c in channels)),
            class_embed_type="identity",
            attention_head_dim=min(8, *channels),
        )
        width = 4 * channels[0]  # of the time's embedding, to which the emotion's is added
        # N(0, 1) as a table of embeddings usually begins, so that the condition is heard from the first step.
        self.table = nn.Parameter(torch.randn(len(self.emotions) + 1, width))
        alphas = self._schedule().alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)  # (1000,) ᾱ of Ho et al., eq. 4

    alphas: Tensor

    @classmethod
    def check_size(cls, size: int, arguments: Mapping[str, Any]) -> None:
        """Raise a SizeError where patches and halvings do not come out even."""
        step = arguments["patch"] * 2 ** (len(arguments["channels"]) - 1)
        if size % step or size < 2 * step:
            raise SizeError(
                f"{cls.name} cannot make faces of {size} px; here it makes multiples of {step} from {2 * step} px"
            )

    # The network

    def condition(self, emotions: Tensor) -> Tensor:
        """Emotions (N, K), all-zero rows for none, to embeddings (N, D)."""
        none = 1 - emotions.sum(1, keepdim=True).clamp(0, 1)  # (N, 1)
        return torch.cat([emotions, none], 1).to(self.table.dtype) @ self.table

    def predicted(self, noised: Tensor, times: Tensor, emotions: Tensor) -> Tensor:
        """The network's answer (N, 3, S, S) for noised faces at integer times (N,)."""
        folded = F.pixel_unshuffle(noised, self.patch)
        answer = self.unet(folded, times, class_labels=self.condition(emotions)).sample
        return F.pixel_shuffle(answer, self.patch)

    def loss_parts(self, pixels: Tensor, emotions: Tensor, *, training: bool) -> Mapping[str, Tensor]:
        """MSE of the predicted noise or velocity at random times (algorithm 1 of Ho et al.)."""
        n = len(pixels)
        if training:
            times = torch.randint(0, STEPS, (n,), device=pixels.device)
            noise = torch.randn_like(pixels)
            emotions = emotions * (torch.rand(n, 1, device=pixels.device) >= self.drop)
        else:
            times = torch.linspace(0, STEPS - 1, n, device=pixels.device).long()
            noise = Noise(torch.arange(n, device=pixels.device)).normal(*pixels.shape[1:])
        signal = self.alphas[times].view(-1, 1, 1, 1)
        noised = signal.sqrt() * pixels + (1 - signal).sqrt() * noise
        target = noise if self.predict == "epsilon" else signal.sqrt() * noise - (1 - signal).sqrt() * pixels
        return {"denoising": F.mse_loss(self.predicted(noised, times, emotions).float(), target)}

    # Sampling

    def _schedule(self, sampler: str = "ddpm") -> Any:
        from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

        kinds = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler}
        options: dict[str, Any] = {
            "num_train_timesteps": STEPS,
            "beta_schedule": "linear" if self.schedule == "linear" else "squaredcos_cap_v2",
            "prediction_type": "epsilon" if self.predict == "epsilon" else "v_prediction",
        }
        if sampler != "dpm":
            options["clip_sample"] = True  # faces lie in [-1, 1]
        return kinds[sampler](**options)

    def _guided(self, noised: Tensor, time: Tensor, emotions: Tensor) -> Tensor:
        """The answer moved away from the unconditional one (Ho and Salimans, eq. 6); both halves in one batch."""
        times = time.expand(len(noised)).to(noised.device)
        if self.guidance == 1:
            return self.predicted(noised, times, emotions)
        both = torch.cat([emotions, torch.zeros_like(emotions)])
        told, untold = self.predicted(noised.repeat(2, 1, 1, 1), times.repeat(2), both).chunk(2)
        return untold + self.guidance * (told - untold)

    @torch.no_grad()
    def sample(self, emotions: Tensor, seeds: Tensor) -> Tensor:
        """Faces (N, 3, S, S) of emotions (N, K)."""
        noise = Noise(seeds)
        start = noise.normal(3, self.size, self.size)
        return self.images(self._denoise(start, emotions, noise, 1.0))

    @torch.no_grad()
    def edit(self, images: Tensor, emotions: Tensor, seeds: Tensor) -> Tensor:
        """The same faces (N, 3, S, S) with emotions (N, K): noised up to `strength`, and denoised as the emotion."""
        noise, pixels = Noise(seeds), self.pixels(images)
        if self.inversion:
            start = self._inverted(pixels)
        else:
            signal = self.alphas[self._first_time(self.strength)]
            start = signal.sqrt() * pixels + (1 - signal).sqrt() * noise.normal(*pixels.shape[1:])
        return self.images(self._denoise(start, emotions, noise, self.strength))

    def _times(self, sampler: str, strength: float) -> tuple[Any, Tensor]:
        """A schedule with its steps set, and the times from `strength` on down."""
        schedule = self._schedule(sampler)
        usual = STEPS if sampler == "ddpm" else 20
        schedule.set_timesteps(self.sampling_steps or usual, device=self.device)
        first = round((1 - strength) * len(schedule.timesteps))
        times: Tensor = schedule.timesteps[min(first, len(schedule.timesteps) - 1) :]
        if hasattr(schedule, "set_begin_index"):
            schedule.set_begin_index(len(schedule.timesteps) - len(times))
        return schedule, times

    def _first_time(self, strength: float) -> int:
        return int(self._times(self.sampler, strength)[1][0])

    def _denoise(self, start: Tensor, emotions: Tensor, noise: Noise, strength: float) -> Tensor:
        schedule, times = self._times(self.sampler, strength)
        pixels = start
        for time in times:
            answer = self._guided(pixels, time, emotions).float()
            if self.sampler == "ddpm":
                pixels = self._ddpm_step(schedule, answer, int(time), pixels, noise)
            else:
                pixels = schedule.step(answer, time, pixels).prev_sample
        return pixels

    @staticmethod
    def _ddpm_step(schedule: Any, answer: Tensor, time: int, pixels: Tensor, noise: Noise) -> Tensor:
        """diffusers' step, its noise replaced by each sample's own (it takes a generator for the whole batch)."""
        mean = schedule.step(answer, time, pixels, generator=torch.Generator(pixels.device).manual_seed(0))
        if time == 0:
            return mean.prev_sample  # type: ignore[no-any-return]
        common = torch.randn(
            pixels.shape, generator=torch.Generator(pixels.device).manual_seed(0), device=pixels.device
        )
        deviation = schedule._get_variance(time) ** 0.5
        return mean.prev_sample + deviation * (noise.normal(*pixels.shape[1:]) - common)  # type: ignore[no-any-return]

    def _inverted(self, pixels: Tensor) -> Tensor:
        """The noise from which DDIM leads to these faces, unconditionally (Song et al. 2021, eq. 13, backwards)."""
        _, times = self._times("ddim", self.strength)
        nothing = pixels.new_zeros(len(pixels), len(self.emotions))
        signal = self.alphas.new_ones(())
        for time in times.flip(0):
            answer = self.predicted(pixels, time.expand(len(pixels)), nothing).float()
            face, noise = self._face_and_noise(pixels, answer, signal)
            signal = self.alphas[time]
            pixels = signal.sqrt() * face + (1 - signal).sqrt() * noise
        return pixels

    def _face_and_noise(self, noised: Tensor, answer: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """What the answer says of the face and of the noise in it."""
        if self.predict == "v":
            return signal.sqrt() * noised - (1 - signal).sqrt() * answer, (
                1 - signal
            ).sqrt() * noised + signal.sqrt() * answer
        return (noised - (1 - signal).sqrt() * answer) / signal.sqrt().clamp_min(1e-3), answer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over all parameters."""
        return torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)
