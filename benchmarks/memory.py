"""How much memory the evaluation of many faces takes: writes results/checks/memory.md.

50,000 training and 50,000 test faces of 64 px, untrained networks: what is held does not depend on what they learned.
Once as without Inception's weights, once with an extractor whose features are as large as Inception's (without its
network: 0.1 GiB of weights, and the activations of a batch of 64).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from emobench.classifiers.cnn21 import CNN21
from emobench.classifiers.resnet import ResNet18
from emobench.data.datasets.synthetic import Synthetic
from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.sampler import Sampler
from emobench.evaluation.task import Task
from emobench.evaluation.tracks import editing, generation
from emobench.generators.cvae import CVAE

LIMIT = 4.0  # GiB


class Reader:
    """An untrained classifier that reads a batch at a time, as judges do."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network.eval()

    @torch.inference_mode()
    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities (N, K), and these once more as features."""
        shares = [
            self.network(torch.from_numpy(np.ascontiguousarray(images[start : start + 256])).expand(-1, 3, -1, -1))
            for start in range(0, len(images), 256)
        ]
        found = torch.cat(shares).double().softmax(1).numpy()
        return found, found


class Projection:
    """Features and logits of Inception's shapes, of 256 pixels of a face of 64 px."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.features, self.logits = (random.normal(size=(256, d)).astype(np.float32) for d in (2048, 1008))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2048) and (N, 1008), float32, of uint8 (N, C, 64, 64)."""
        small = images[:, 0, ::4, ::4].reshape(len(images), -1).astype(np.float32) / 255
        return small @ self.features, small @ self.logits


def measured(faces: int, inception: bool) -> tuple[int, float, float]:
    """Faces of the fidelity sample, peak GiB of this process and seconds of one whole evaluation."""
    data = Synthetic(size=64, train=faces, val=800, test=faces)
    data.prepare()
    started, cpu = time.perf_counter(), torch.device("cpu")
    judges = [Reader(ResNet18(emotions=data.emotions, size=64, width=0.125)) for _ in range(2)]
    reader = Reader(CNN21(emotions=data.emotions, size=64, padding=True, dense=(64, 16)))
    model = CVAE(emotions=data.emotions, size=64, width=8, latent=16).eval()
    real = RealFaces.of(data, None)
    sampler = Sampler(model, data.emotions, 64, real, cpu)
    settings = {"per_emotion": 100, "intensity": 0, "sources": 96}
    with tempfile.TemporaryDirectory() as folder:
        extractor = Projection() if inception else None
        fidelity = Fidelity(real, reader, extractor, "projection", "no file", Path(folder))  # type: ignore[arg-type]
        metrics = {"generation": generation.METRICS, "editing": editing.METRICS}
        task = Task(sampler, judges, [], real, fidelity, settings, data, {}, metrics, cpu)
        task.judge_real_faces()
        fidelity.measure(real.faces(real.floor), "floor", again=True)
        task.copies["copies"] = real.faces(real.reference)
        for track in (generation, editing):
            track.measure(task)
        fidelity.copied(task.copies)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return len(task.copies["generation"]), peak, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=Path("results/checks/memory.md"))
    options = parser.parse_args()
    # A process each: a peak is of a whole process, and is not forgotten.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.starmap(measured, [(options.faces, False), (options.faces, True)], chunksize=1)
    text = f"""# Memory of an evaluation

{options.faces:,} training and {options.faces:,} test faces of 64 px, {rows[0][0]:,} generated ones for fidelity: the
peak of the process (limit {LIMIT:.0f} GiB), the libraries and the mapped pack included. Repeat:
`python benchmarks/memory.py`.

| features | peak, GiB | seconds |
| --- | ---: | ---: |
"""
    for name, (_, peak, seconds) in zip(("small gray faces", "as large as Inception's"), rows, strict=True):
        text += f"| {name} | {peak:.2f} | {seconds:.0f} |\n"
    options.out.write_text(text)
    print(text)
    raise SystemExit(0 if max(peak for _, peak, _ in rows) < LIMIT else 1)


if __name__ == "__main__":
    main()
