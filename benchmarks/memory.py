"""How much memory the evaluation of many faces takes: writes results/checks/memory.md.

50,000 training and 50,000 test faces of 64 px, untrained networks: what is held does not depend on what they learned.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from emobench.bench.judging import Drawing, Kept, Questions, Real, Yardstick
from emobench.classifiers.cnn21 import CNN21
from emobench.classifiers.resnet import ResNet18
from emobench.data.synthetic import Synthetic
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=Path("results/checks/memory.md"))
    options = parser.parse_args()
    data = Synthetic(size=64, train=options.faces, val=800, test=options.faces)
    data.prepare()
    started, cpu = time.perf_counter(), torch.device("cpu")
    judges = [Reader(ResNet18(emotions=data.emotions, size=64, width=0.125)) for _ in range(2)]
    reader = Reader(CNN21(emotions=data.emotions, size=64, padding=True, dense=(64, 16)))
    model = CVAE(emotions=data.emotions, size=64, width=8, latent=16).eval()
    real = Real.of(data, None)
    questions = Questions(Drawing(model, data.emotions, 64, real.faces(real.val), cpu), judges, [], real, data.emotions)
    with tempfile.TemporaryDirectory() as folder:
        yardstick = Yardstick(real, reader, None, None, "no file", Path(folder))
        questions.real_faces()
        fakes = questions.fidelity()
        yardstick.measure(fakes, "fidelity")
        yardstick.measure(real.faces(real.floor), "floor")
        yardstick.copied({"generation": fakes, "copies": real.faces(real.reference)})
        questions.control(100)
        questions.editing(96, Kept(data, None, None))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = f"""# Memory of an evaluation

{options.faces:,} training and {options.faces:,} test faces of 64 px, {len(fakes):,} generated ones for fidelity:
peak {peak:.2f} GiB resident (limit {LIMIT:.0f}), the libraries and the mapped pack included; {seconds:.0f} s.
Repeat: `python benchmarks/memory.py`.
"""
    options.out.write_text(text)
    print(text)
    raise SystemExit(0 if peak < LIMIT else 1)


if __name__ == "__main__":
    main()
