"""Do the metrics say what they should? Writes results/checks/metrics.md.

Agreement with the libraries on the same arrays and files; the order of samples that are known to be worse, read by the
panel of reference-generation (its store is needed: run `emobench bench benchmarks/reference-generation.toml` first).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
import torch_fidelity
from perf.random_inception import write_faces, write_weights
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from sklearn import metrics as sklearn
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from emobench.data.datasets.synthetic import Synthetic
from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.judge import Judge
from emobench.evaluation.protocol import INTENSITIES
from emobench.evaluation.reference import RealFaces
from emobench.metrics.control import Verdicts, control
from emobench.metrics.fidelity import Moments, Root, frechet, kernel_distance, score
from emobench.metrics.identity import Embedding, cosine, ssim
from emobench.metrics.inception import Inception
from emobench.metrics.recognition import measures, tally
from emobench.report.markdown import table
from emobench.runner.build import load_judges
from emobench.runner.store import Store, load_board

SUITE = "reference-generation"
CPU = torch.device("cpu")


def agreement() -> Iterator[tuple[str, str, float, float, float]]:
    """What, against what, ours, theirs, the difference that is allowed."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(64, 64)) / 8
    one, other = ((random.normal(size=(800, 64)) @ mixing + shift).astype(np.float32) for shift in (3.0, 3.1))
    first, second = Moments.of(one), Moments.of(other)
    found = frechet(Root.of(first), second)
    difference = first.mean - second.mean
    root = np.real(scipy.linalg.sqrtm(first.covariance @ second.covariance))
    by_scipy = difference @ difference + np.trace(first.covariance + second.covariance - 2 * root)
    yield "Fréchet distance, 64 dimensions", "scipy's sqrtm", found, float(by_scipy), 1e-4
    statistics = ({"mu": each.mean, "sigma": each.covariance} for each in (first, second))
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    yield "Fréchet distance, 64 dimensions", "torch-fidelity", found, theirs, 1e-4
    theirs = kid_features_to_metric(
        torch.from_numpy(other), torch.from_numpy(one), kid_subsets=100, kid_subset_size=400, kid_kernel="poly",
        kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1.0, rng_seed=2020, verbose=False,
    )["kernel_inception_distance_mean"]  # fmt: skip
    yield "KID, 64 dimensions", "torch-fidelity", kernel_distance(one, other), theirs, 1e-4
    logits = 2 * one[:, :8]
    theirs = isc_features_to_metric(torch.from_numpy(logits))["inception_score_mean"]
    yield "IS, 8 classes", "torch-fidelity", score(logits), theirs, 1e-4
    yield from _by_files()
    labels = random.integers(0, 8, 2000)
    shares = np.exp(random.normal(size=(2000, 8)) + 1.5 * np.eye(8)[labels])
    shares /= shares.sum(1, keepdims=True)
    read, ours = shares.argmax(1), measures(tally(shares, labels).sum(0), 8)
    expected = {
        "accuracy": sklearn.accuracy_score(labels, read),
        "macro_f1": sklearn.f1_score(labels, read, average="macro"),
        "weighted_f1": sklearn.f1_score(labels, read, average="weighted"),
        "nll": sklearn.log_loss(labels, shares),
    }
    for name, value in expected.items():
        yield name, "scikit-learn", float(ours[name]), float(value), 1e-6


def _by_files() -> Iterator[tuple[str, str, float, float, float]]:
    """The whole way from faces, through a network of Inception's architecture with random weights."""

    class Nobody:
        def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.full((len(images), 8), 1 / 8), images.reshape(len(images), -1)[:, :4].astype(np.float64)

    data = Synthetic(size=48, train=96, val=8, test=96)
    data.prepare()
    real = RealFaces.of(data, None)
    fakes = np.ascontiguousarray(real.faces(real.floor)[:, :, ::-1])  # upside down
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = write_weights(folder)
        ours = Fidelity(real, Nobody(), Inception(weights, CPU), "random", None, folder).measure(fakes, "fakes")
        theirs = torch_fidelity.calculate_metrics(
            input1=write_faces(fakes, folder / "fakes"),
            input2=write_faces(real.faces(real.reference), folder / "real"), fid=True, kid=True, isc=True,
            kid_subset_size=len(fakes) // 2, cuda=False, verbose=False, batch_size=16,
            feature_extractor_weights_path=str(weights), cache=False,
        )  # fmt: skip
    names = {"fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean", "is": "inception_score_mean"}
    for name, key in names.items():
        yield f"{name.upper()} of 96 files", "torch-fidelity", ours[name].value, theirs[key], 1e-4


def worse(fidelity: Fidelity, real: RealFaces) -> Iterator[list[str]]:
    """FED and ES of real test faces that are made worse step by step."""
    floor, labels = real.faces(real.floor), real.labels[real.floor]
    noise = np.random.default_rng(0).normal(0, 1, floor.shape)
    ways = {
        "blur, σ in px": {s: gaussian_filter(floor, (0, 0, s, s)) if s else floor for s in (0, 0.5, 1, 2, 4)},
        "noise, σ in levels": {s: np.clip(floor + s * noise, 0, 255).astype(np.uint8) for s in (0, 5, 10, 25, 60)},
        "emotions left": {n: floor[np.resize(np.flatnonzero(labels < n), len(floor))] for n in (8, 6, 4, 2, 1)},
    }
    for way, samples in ways.items():
        found = [fidelity.measure(images, way) for images in samples.values()]
        fed, es = ([each[name].value for each in found] for name in ("fed", "es"))
        steps = ", ".join(f"{step:g}" for step in samples)
        yield [way, steps, ", ".join(f"{v:.1f}" for v in fed), _ordered(fed), ", ".join(f"{v:.2f}" for v in es)]


def _ordered(values: list[float]) -> str:
    return "in order" if values == sorted(values) else "**not in order**"


def truth(data: Synthetic, real: RealFaces, judges: list[Judge]) -> tuple[list[float], float]:
    """Calibrated control at each true intensity of 400 drawn faces, and their rank correlation."""

    def read(images: np.ndarray) -> np.ndarray:
        return np.stack([judge.read(images)[0].argmax(1) for judge in judges])

    known = Verdicts(real.labels[real.test], read(real.faces(real.test)))
    rows = real.test[:400]
    asked = np.arange(len(rows)) % len(data.emotions)
    found = []
    for level in INTENSITIES:
        faces = [
            data.counterpart(data.faces.iloc[[row]], data.emotions[k], level)
            for row, k in zip(rows, asked, strict=True)
        ]
        verdicts = Verdicts(asked, read(np.concatenate(faces)))
        found.append(float(control(verdicts, known, len(data.emotions)).macro()["control_calibrated"]))
    return found, float(spearmanr(found, INTENSITIES).statistic)


def swapped(identity: Path | None) -> Iterator[list[str]]:
    """A drawn face against itself smiling, and against another person smiling."""
    data = Synthetic(size=112, train=8, val=8, test=800)
    data.prepare()
    faces = data.faces
    rows = np.flatnonzero((faces["split"] == "test") & (faces["label"] == 0))[:100]
    own = np.ascontiguousarray(data.images[rows])
    smiling = data.counterpart(faces.iloc[rows], "happy")
    others = np.roll(smiling, 1, 0)
    measured = {"SSIM": ssim}
    if identity is not None:
        embedding = Embedding(identity)
        measured["identity"] = lambda one, other: cosine(embedding(one), embedding(other))
    for name, measure in measured.items():
        yield [name, f"{measure(smiling, own).mean():.3f}", f"{measure(others, own).mean():.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--identity", type=Path, help="ONNX file of a face-recognition network")
    options = parser.parse_args()
    keys = {row.row: row.fit_key for row in load_board(options.results, SUITE)}
    *judges, reader = load_judges(Store(options.results), [keys[name] for name in ("resnet18", "vit", "cnn21")], CPU)
    data = Synthetic(size=32, variant="plain")
    data.prepare()
    real = RealFaces.of(data, None)

    same = []
    for what, whose, ours, theirs, allowed in agreement():
        apart = abs(ours - theirs) / max(abs(theirs), 1e-12)
        outcome = "as it should be" if apart <= allowed else "**FAILS**"
        same.append([what, whose, f"{ours:.6f}", f"{theirs:.6f}", f"{apart:.1e}", f"{allowed:.0e}", outcome])
    with tempfile.TemporaryDirectory() as folder:
        fidelity = Fidelity(real, reader, None, None, "no file", Path(folder))
        order = list(worse(fidelity, real))
        copies = real.faces(real.reference)
        random = np.random.default_rng(0)
        samples = {
            "training faces": copies,
            "mirrored training faces": copies[..., ::-1],
            "training faces with noise, σ 3": np.clip(copies + random.normal(0, 3, copies.shape), 0, 255).astype("u1"),
            "other real faces": real.faces(real.floor),
            "other real faces, blurred, σ 2": gaussian_filter(real.faces(real.floor), (0, 0, 2, 2)),
        }
        copied = [[name, f"{found.value:.3f}"] for name, found in fidelity.copied(samples).items()]
    rising, correlation = truth(data, real, judges)
    text = "\n".join(
        [
            "# The metrics, tested",
            "",
            "`python benchmarks/metrics.py` (with `--identity FILE.onnx` for the last line). Coverage of the",
            "intervals: [intervals.md](intervals.md).",
            "",
            "## The same as the libraries'",
            "",
            *table(["what", "against", "emobench", "the library", "relative difference", "allowed", "outcome"], same,
                   left=(0, 1, 6)),
            "",
            "FID, KID and IS of files go through a network of Inception's architecture with random weights.",
            "",
            "## Worse faces are further away",
            "",
            f"{len(real.floor):,} real test faces of `synthetic-plain` at 32 px, made worse, read by the reader of "
            f"`{SUITE}`.",
            "",
            *table(["made worse by", "steps", "FED", "", "ES"], order, left=(0, 1, 2, 3, 4)),
            "",
            "## More of an emotion is more control",
            "",
            "400 drawn faces at each true intensity, read by the panel:",
            "",
            *table(
                ["intensity", *map(str, INTENSITIES)], [["control, calibrated", *(f"{value:.3f}" for value in rising)]]
            ),
            "",
            f"Spearman's correlation {correlation:.2f}.",
            "",
            "## Copies are flagged, blurred faces are not",
            "",
            *table(["faces", "share taken for copies"], copied),
            "",
            "## Another person is less alike",
            "",
            "100 drawn faces of 112 px against smiling ones:",
            "",
            *table(["measure", "of the same person", "of another person"], list(swapped(options.identity))),
        ]
    )  # fmt: skip
    (options.results / "checks" / "metrics.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
