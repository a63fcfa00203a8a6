"""Speed of generators: samplers, the evaluation of a further row, and each fit against a hand-written loop."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_fidelity
from random_inception import write_faces, write_weights
from timing import paired, ratio

from emobench.data.datamodule import EmotionDataModule
from emobench.data.datasets.synthetic import Synthetic
from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.reference import RealFaces
from emobench.generators.diffusion import Diffusion
from emobench.metrics import inception
from emobench.runner.build import build_data, build_model
from emobench.runner.fit import fit
from emobench.runner.store import Store
from emobench.suite.cell import Cell
from emobench.suite.expand import expand
from emobench.suite.file import load

EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
REFERENCE = Path(__file__).parents[1] / "reference-generation.toml"
UNET: dict[str, Any] = {"channels": (32, 64, 96), "layers": 1, "predict": "v", "noise": "cosine"}
FACES, STEPS = 8, 20


def _diffusion(**arguments: Any) -> Diffusion:
    """The reference suite's U-Net; how long it takes does not depend on its weights."""
    torch.manual_seed(0)
    return Diffusion(emotions=EMOTIONS, size=32, guidance=1.0, **{**UNET, **arguments}).eval()


def measure_samplers(runs: int) -> dict[str, Any]:
    """Eight faces by 20 steps of DPM-Solver++ against all 1,000 of DDPM."""
    quick, slow = _diffusion(), _diffusion(sampler="ddpm")
    asked, seeds = torch.eye(8), torch.arange(FACES)
    one, other = paired(lambda: quick.sample(asked, seeds), lambda: slow.sample(asked, seeds), runs)
    times = statistics.median(b / a for a, b in zip(one, other, strict=True))
    return {"dpm_s": statistics.median(one), "ddpm_s": statistics.median(other), "ratio": times, "limit": 40}


def measure_pipeline(runs: int) -> dict[str, Any]:
    """Our sampling loop against diffusers' own pipeline: equal steps, batch and precision."""
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    ours = _diffusion(sampler="ddim", sampling_steps=STEPS)
    config = {name: value for name, value in ours.unet.config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    unet = UNet2DModel(**{**config, "class_embed_type": None}).eval()
    pipeline = DDIMPipeline(unet, DDIMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2"))
    pipeline.set_progress_bar_config(disable=True)
    asked, seeds = torch.eye(8), torch.arange(FACES)

    def theirs() -> None:
        pipeline(batch_size=FACES, num_inference_steps=STEPS, output_type="np")

    one, other = paired(lambda: ours.sample(asked, seeds), theirs, runs)
    return {
        "emobench_s": statistics.median(one),
        "diffusers_s": statistics.median(other),
        "ratio": ratio(one, other),
        "limit": 1.05,
    }


class _Reader:
    """Costs nothing, so that what is compared is Inception's part."""

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = images.reshape(len(images), -1)[:, ::97].astype(np.float64) / 255
        return np.full((len(images), 8), 1 / 8), features


def measure_further_row(runs: int, faces: int = 96) -> dict[str, Any]:
    """A further row against a remembered reference, and one call of torch-fidelity for the same metrics.

    The network has the published one's architecture and random weights, which cost the same.
    """
    data = Synthetic(size=48, train=faces, val=8, test=faces)
    data.prepare()
    real = RealFaces.of(data, None)
    fakes = np.ascontiguousarray(real.faces(real.floor)[:, :, ::-1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = write_weights(folder)
        extractor = inception.Inception(weights, torch.device("cpu"))
        fidelity = Fidelity(real, _Reader(), extractor, "random", None, folder)
        inputs = [
            write_faces(images, folder / kind)
            for kind, images in (("fakes", fakes), ("real", real.faces(real.reference)))
        ]

        def theirs() -> None:
            torch_fidelity.calculate_metrics(
                input1=inputs[0], input2=inputs[1], fid=True, kid=True, isc=True, prc=True,
                kid_subset_size=faces // 2, cuda=False, verbose=False, batch_size=64, cache=False,
                feature_extractor="inception-v3-compat",  # of prc, too, whose default is another network
                feature_extractor_weights_path=str(weights),
            )  # fmt: skip

        one, other = paired(lambda: fidelity.measure(fakes, "fakes"), theirs, runs)
    return {
        "emobench_s": statistics.median(one),
        "torch_fidelity_s": statistics.median(other),
        "ratio": ratio(one, other),
        "limit": 0.6,
    }


def measure_fits(runs: int, epochs: int = 1) -> list[dict[str, Any]]:
    """One epoch of each generator of the reference suite, on fewer faces, against a loop written by hand."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        settings = ["data.synthetic-plain.train=1600", "data.synthetic-plain.val=80", "data.synthetic-plain.test=640"]
        for row in ("cvae", "vit_cvae", "stargan", "diffusion"):
            plan = expand(load(REFERENCE, [*settings, "seeds=[0]", f"model.{row}.epochs={epochs}"]), Path(name))
            cell = next(each for each in plan.cells if each.row == row)
            data = build_data(cell, Path(name))
            data.prepare()

            def ours(cell: Cell = cell, data: EmotionDataModule = data) -> None:
                with tempfile.TemporaryDirectory() as results:
                    store = Store(Path(results))
                    store.fit_folder(cell.fit_key).mkdir(parents=True)
                    fit(cell, store, data)

            def theirs(cell: Cell = cell, data: EmotionDataModule = data) -> None:
                by_hand(cell, data)

            one, other = paired(ours, theirs, runs)
            found.append(
                {"model": row, "emobench_s": statistics.median(one), "by_hand_s": statistics.median(other)}
                | {"ratio": ratio(one, other), "limit": 1.10}
            )
    return found


def by_hand(cell: Cell, data: EmotionDataModule) -> None:
    """One epoch as one would write it without emobench: the same networks and losses, faces from an array."""
    images, labels = np.asarray(data.images), data.faces["label"].to_numpy()
    train, val = (np.flatnonzero(data.faces["split"] == split) for split in ("train", "val"))
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(cell, Store(Path(folder)))
        batch, ema = cell.fit["recipe"]["batch"], cell.fit["recipe"]["ema"]
        step = _gan_steps(model) if cell.row == "stargan" else _plain_steps(model, ema)
        random = np.random.default_rng(0)
        order = random.permutation(train)
        model.train()
        for place in range(len(order) // batch):
            rows = order[place * batch : (place + 1) * batch]
            faces = images[rows]
            flipped = random.random(len(faces)) < 0.5
            faces[flipped] = faces[flipped][..., ::-1]
            step(place, *_batch(faces, labels[rows]))
        model.eval()
        with torch.no_grad():
            for rows in np.array_split(val, max(1, len(val) // 64)):
                pixels, emotions = _batch(images[rows], labels[rows])
                model.loss_parts(pixels, emotions, training=False)
        torch.save(model.state_dict(), Path(folder) / "last.pt")


def _batch(faces: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(faces).expand(-1, 3, -1, -1).float() / 127.5 - 1
    return pixels, torch.eye(8)[torch.from_numpy(labels)]


def _plain_steps(model: Any, ema: float | None) -> Any:
    optimizer = model.configure_optimizers()
    average = None
    if ema is not None:
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        )

    def step(place: int, pixels: torch.Tensor, emotions: torch.Tensor) -> None:
        loss = torch.stack(list(model.loss_parts(pixels, emotions, training=True).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)

    return step


def _gan_steps(model: Any) -> Any:
    networks = (model.generator, model.discriminator)
    for_generator, for_discriminator = (
        torch.optim.Adam(network.parameters(), model.lr, betas=(0.5, 0.999)) for network in networks
    )

    def step(place: int, pixels: torch.Tensor, emotions: torch.Tensor) -> None:
        known = torch.ones_like(emotions)
        target = emotions[torch.randperm(len(emotions))]
        model.generator.requires_grad_(False)
        loss = torch.stack(list(model._discriminator_parts(pixels, emotions, known, target).values())).sum()
        for_discriminator.zero_grad()
        loss.backward()
        for_discriminator.step()
        model.generator.requires_grad_(True)
        if (place + 1) % model.critic_steps == 0:
            model.discriminator.requires_grad_(False)
            loss = torch.stack(list(model._generator_parts(pixels, emotions, target, known).values())).sum()
            for_generator.zero_grad()
            loss.backward()
            for_generator.step()
            model.discriminator.requires_grad_(True)

    return step
