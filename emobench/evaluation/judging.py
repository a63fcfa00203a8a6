"""What is drawn from a generator and how it is measured: all that determines its numbers (PROTOCOL.md, 3 to 5).

Judges, guides and the reader are networks that `read` faces; which ones, and where the numbers go, is `generation.py`'s
business.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from emobench.data.readers.images import resized
from emobench.errors import NotFinite
from emobench.files import replacing
from emobench.metrics.features import pixel_features
from emobench.metrics.fidelity import (
    Moments,
    Root,
    coverage,
    finite,
    frechet,
    kernel_distance,
    memorisation,
    score,
)
from emobench.metrics.identity import Embedding, Lpips, cosine, psnr, ssim
from emobench.metrics.inception import Inception

MOST = 10_000  # faces for fidelity
LEAST_FOR_FED, LEAST = 640, 20  # faces; below the second, no score of a whole sample means anything
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of intensity
_SEED = 20130615  # of every choice among real faces: the same for all rows
BATCH = 64  # faces drawn at a time
STYLIZED, _AT_A_TIME = 256, 16  # px and faces, where the speed of stylizing is measured
_BLOCK = 4096  # real faces compared at a time
_SEEDS = {"fidelity": 0, "control": 10**6, "intensity": 2 * 10**6, "editing": 3 * 10**6}  # where each use's begin
_BY_INCEPTION = ("fid", "kid", "is", "sample_precision", "sample_recall", "density", "coverage")


class Reads(Protocol):
    """A network that reads emotions."""

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities (N, K) and features (N, D) of uint8 images (N, C, H, W)."""


@dataclass(frozen=True)
class Real:
    """The real faces that everything is compared with; the same for every row of a dataset.

    Attributes:
        images: uint8 (M, C, S, S), the pack.
        labels: (M,) of all rows of the pack.
        reference: rows of the pack, a fixed subset of training.
        floor: as many test rows.
        train, val, test: all rows of each split.
        person: (M,) whose face each is, a number; -1 where people are not known.
        half: (N,) which half of the people each test face belongs to: 0 calibrates, 1 is a control.
        leaked: (N,) test faces that occur in training too.
    """

    images: np.ndarray
    labels: np.ndarray
    reference: np.ndarray
    floor: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    person: np.ndarray
    half: np.ndarray
    leaked: np.ndarray

    @classmethod
    def of(cls, data: Any, fidelity: int | None) -> Real:
        """The choice for a prepared data module; at most `fidelity` faces are compared as a sample."""
        random = np.random.default_rng(_SEED)
        split = data.faces["split"].to_numpy()
        train, val, test = (np.flatnonzero(split == name) for name in ("train", "val", "test"))
        n = min(MOST, len(test), fidelity or MOST, len(train))
        people = data.faces["subject"]
        known = not people.iloc[test].isna().any()
        person = pd.factorize(people)[0] if known else np.full(len(people), -1)
        who = np.unique(person[test], return_inverse=True)[1] if known else np.arange(len(test))
        half = np.random.default_rng(_SEED + 1).permutation(who.max() + 1)[who] % 2
        reference, floor = (np.sort(random.choice(rows, n, False)) for rows in (train, test))
        labels = data.faces["label"].to_numpy()
        return cls(data.images, labels, reference, floor, train, val, test, person, half, data.leaked()[test])

    def faces(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, C, S, S) of rows of the pack."""
        return np.asarray(self.images[rows])


class Faces(Protocol):
    """Faces uint8 (N, C, S, S) that are read where they are asked for: an array, a pack on disk, or rows of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> np.ndarray:
        """uint8 (n, C, S, S) of a slice or of an array of rows."""


@dataclass(frozen=True)
class Rows:
    """Rows of other faces, in an order and as often as one likes; only those that are asked for are read."""

    of: Faces
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.of[self.rows[rows]])


class Drawing:
    """Draws faces from a model, a batch at a time, at the evaluation size.

    Args:
        model: a generator, an editor, or both.
        emotions: of the dataset, in its order; the model may know more of them.
        size: evaluation size, px.
        validation: V faces uint8 (C, S, S), what an editor is given where it must generate.
    """

    def __init__(self, model: Any, emotions: Sequence[str], size: int, validation: Faces, device: torch.device) -> None:
        self.model, self.size, self.validation, self.device = model, size, validation, device
        self.asked_as = np.array([[own == emotion for own in model.emotions] for emotion in emotions], np.float32)
        self.speed: dict[str, float] = {}  # faces per second by what they were drawn for

    def sample(self, emotions: np.ndarray, seeds: np.ndarray, what: str) -> np.ndarray:
        """uint8 (N, 3, size, size) of emotions (N, K); an editor edits validation faces that the seeds pick."""
        if hasattr(self.model, "sample"):
            return self._in_batches(lambda e, s, _: self.model.sample(e, s), emotions, seeds, None, what)
        return self.edit(Rows(self.validation, self.picked(seeds)), emotions, seeds, what)

    def picked(self, seeds: np.ndarray) -> np.ndarray:
        """(N,) which validation face each seed (N,) stands for, where an editor must generate."""
        order = np.random.default_rng(_SEED).permutation(len(self.validation))
        return np.asarray(order[seeds % len(order)])

    def begin(self, emotions: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """The faces uint8 (N, 3, size, size) from which a search for emotions (N, K) starts."""
        return self._in_batches(lambda e, s, _: self.model.begin(e, s), emotions, seeds, None, "start")

    def stylize(self, images: np.ndarray, emotions: np.ndarray | None, what: str) -> np.ndarray:
        """uint8 (N, 3, S, S) of faces (N, C, S, S), as they are; emotions (N, K), None: the model's own label."""
        none = np.zeros((len(images), len(self.asked_as)))
        asked = none if emotions is None else emotions

        def draw(e: torch.Tensor, _: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.model.stylize(faces, None if emotions is None else e)
            return made

        return self._in_batches(draw, asked, np.arange(len(images)), images, what, images.shape[-1])

    def edit(self, images: Faces, emotions: np.ndarray, seeds: np.ndarray, what: str) -> np.ndarray:
        """uint8 (N, 3, size, size) of faces (N, C, size, size) towards emotions (N, K)."""
        return self._in_batches(lambda e, s, faces: self.model.edit(faces, e, s), emotions, seeds, images, what)

    def _in_batches(
        self,
        draw: Any,
        emotions: np.ndarray,
        seeds: np.ndarray,
        images: Faces | None,
        what: str,
        size: int | None = None,
    ) -> np.ndarray:
        made, spent = [], 0.0
        for start in range(0, len(seeds), BATCH):
            rows = slice(start, start + BATCH)
            asked = torch.from_numpy(emotions[rows].astype(np.float32) @ self.asked_as).to(self.device)
            noise = torch.from_numpy(seeds[rows]).to(self.device)
            faces = None
            if images is not None:
                faces = torch.from_numpy(np.ascontiguousarray(images[rows])).to(self.device).expand(-1, 3, -1, -1)
            started = time.perf_counter()
            try:
                drawn = draw(asked, noise, faces).cpu().numpy()
            except NotFinite as error:
                index = None if error.index is None else start + error.index
                place = "" if index is None else f" {index}"
                raise NotFinite(f"{what}: face{place} is not finite ({error})", index) from error
            spent += time.perf_counter() - started
            made.append(np.stack([resized(face, size or self.size) for face in drawn]))
        self.speed[what] = len(seeds) / spent
        return np.concatenate(made)


def value_of(value: float, n: int) -> dict[str, Any]:
    """A number of a whole sample of n faces, as records hold it."""
    return {"value": value, "n": n, "reason": None}


def missing(n: int, reason: str) -> dict[str, Any]:
    """The same where there is none."""
    return {"value": None, "n": n, "reason": reason}


class Yardstick:
    """A fixed sample of training faces, and how far other samples are from it.

    Args:
        real: the faces; features of theirs that cost much are remembered by content.
        reader: in whose features and classes FED and ES are measured.
        inception: those of FID, KID, IS, precision, recall, density and coverage; None: these are missing.
        sha256: of Inception's weights.
        why: why they are missing.
        cache: folder of what is remembered.
    """

    def __init__(
        self, real: Real, reader: Reads, inception: Inception | None, sha256: str | None, why: str | None, cache: Path
    ) -> None:
        self.real, self.reader, self.inception = real, reader, inception
        self.sha256, self.why, self.cache = sha256, why, cache
        reference = real.faces(real.reference)
        _, features = reader.read(reference)
        self.read = Root.of(Moments.of(finite(features, "reference")))
        if inception is not None:
            self.seen, _ = self._remembered(reference)
            self.root = Root.of(Moments.of(finite(self.seen, "reference")))

    def measure(self, images: np.ndarray, what: str, *, again: bool = False) -> dict[str, Any]:
        """Distances and scores of a sample uint8 (N, C, S, S).

        Args:
            what: names the sample in errors.
            again: these are real faces that other evaluations look at too.

        Raises:
            NotFinite: a feature is NaN or infinite; names the sample's index.
        """
        n = len(images)
        if n < LEAST:
            return {name: missing(n, f"below {LEAST} faces") for name in ("fed", "es", *_BY_INCEPTION)}
        shares, features = self.reader.read(images)
        found = {"es": value_of(score(np.log(shares + 1e-12)), n)}
        if min(n, len(self.real.reference)) < LEAST_FOR_FED:
            found["fed"] = missing(n, f"below {LEAST_FOR_FED} faces")
        else:
            found["fed"] = value_of(frechet(self.read, Moments.of(finite(features, what))), n)
        if self.inception is None:
            return found | {name: missing(n, self.why or "") for name in _BY_INCEPTION}
        seen, logits = self._remembered(images) if again else self.inception(images)
        finite(seen, what)
        spread = coverage(self.seen, seen)
        values = {
            "fid": frechet(self.root, Moments.of(seen)),
            "kid": kernel_distance(self.seen, seen),
            "is": score(logits),
            "sample_precision": spread.precision,
            "sample_recall": spread.recall,
            "density": spread.density,
            "coverage": spread.coverage,
        }
        return found | {name: value_of(value, n) for name, value in values.items()}

    def copied(self, samples: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        """`memorisation` of samples: in Inception's features, else in small gray ones; never in the reader's."""
        real = self.real
        held_out = real.test[~real.leaked]
        if not len(held_out):
            reason = "every held-out face occurs in training too"
            return {name: missing(len(images), reason) for name, images in samples.items()}
        training = itertools.chain(self._near_rows(real.train), self._near_rows(real.train, -1))
        near = {name: self._near(images) for name, images in samples.items()}
        shares = memorisation(training, np.concatenate([*self._near_rows(held_out)]), near)
        return {name: value_of(shares[name], len(images)) for name, images in samples.items()}

    def _near_rows(self, rows: np.ndarray, way: int = 1) -> Iterator[np.ndarray]:
        """`_near` of rows of the pack, some at a time, mirrored where `way` is -1: never are all faces held."""
        for part in np.array_split(rows, -(-len(rows) // _BLOCK)):
            yield self._near(self.real.faces(part)[..., ::way], again=True)

    def _near(self, images: np.ndarray, *, again: bool = False) -> np.ndarray:
        """The features in which faces (N, C, S, S) are near each other; `again`: see `measure`."""
        if self.inception is None:
            return pixel_features(images)
        features, _ = self._remembered(images) if again else self.inception(images)
        return features

    def _remembered(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inception's features and logits, from the cache where these very pixels were seen before."""
        assert self.inception is not None
        pixels = np.ascontiguousarray(images)
        content = hashlib.sha256(f"{self.sha256} {pixels.shape}".encode())
        content.update(pixels.data)  # as they lie, not a copy of them
        path = self.cache / "features" / f"{content.hexdigest()}.npz"
        if path.is_file():
            with np.load(path) as found:
                return found["features"], found["logits"]
        features, logits = self.inception(pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, features=features, logits=logits)
        return features, logits


class Questions:
    """What is asked of a model and of the panel, and every verdict on every face.

    Args:
        drawing: of the model.
        judges: the panel.
        guides: networks that helped to make the model: what they say is 'self-graded'.
        real: the faces that it is compared with.
        emotions: of the dataset.
    """

    def __init__(
        self, drawing: Drawing, judges: Sequence[Reads], guides: Sequence[Reads], real: Real, emotions: Sequence[str]
    ) -> None:
        self.drawing, self.judges, self.guides, self.real = drawing, judges, guides, real
        self.emotions, self.classes = tuple(emotions), len(emotions)
        self.tables: list[pd.DataFrame] = []

    def _verdicts(self, kind: str, images: np.ndarray, asked: np.ndarray, **columns: np.ndarray) -> None:
        """One row a face: what was asked for, and what each judge reads and how probable it finds what was asked."""
        n = len(images)
        table: dict[str, Any] = {"kind": kind, "face": np.arange(n), "asked": asked}
        for place, judge in enumerate(self.judges):
            shares, _ = judge.read(images)
            table[f"read_{place}"] = shares.argmax(1)
            table[f"p_{place}"] = shares[np.arange(n), asked].astype(np.float32)
        for place, guide in enumerate(self.guides if kind == "control" else ()):
            table[f"self_{place}"] = guide.read(images)[0].argmax(1)
        empty: dict[str, Any] = {name: np.full(n, -1) for name in ("row", "person", "seed", "half")}
        self.tables.append(pd.DataFrame({**table, **empty, "level": np.ones(n), **columns}))

    def _origin(self, seeds: np.ndarray) -> dict[str, np.ndarray]:
        """Columns (n,) of what faces of these seeds were drawn from: an editor is given validation faces."""
        if hasattr(self.drawing.model, "sample"):
            return {"seed": seeds}
        rows = self.real.val[self.drawing.picked(seeds)]
        return {"seed": seeds, "row": rows, "person": self.real.person[rows]}

    def real_faces(self) -> None:
        """All test faces, and the training faces of the reference as a model would have copied them."""
        real = self.real
        test = {"row": real.test, "person": real.person[real.test], "half": real.half}
        self._verdicts("real", real.faces(real.test), real.labels[real.test], **test)
        copies = {"row": real.reference, "person": real.person[real.reference]}
        self._verdicts("copies", real.faces(real.reference), real.labels[real.reference], **copies)

    def fidelity(self) -> np.ndarray:
        """As many faces as the reference has, asked for with its emotions: uint8 (N, 3, S, S)."""
        labels = self.real.labels[self.real.reference]
        seeds = _SEEDS["fidelity"] + np.arange(len(labels))
        return self.drawing.sample(np.eye(self.classes)[labels], seeds, "fidelity")

    def control(self, each: int) -> np.ndarray:
        """Requests of their own, `each` for each emotion; returns the faces, uint8 (each, K, 3, S, S)."""
        asked = np.tile(np.arange(self.classes), each)
        seeds = _SEEDS["control"] + np.repeat(np.arange(each), self.classes)  # a seed, seen with every emotion
        faces = self.drawing.sample(np.eye(self.classes)[asked], seeds, "control")
        self._verdicts("control", faces, asked, **self._origin(seeds))
        if hasattr(self.drawing.model, "begin"):
            begun = self.drawing.begin(np.eye(self.classes)[asked], seeds)
            self._verdicts("control_start", begun, asked, **self._origin(seeds))
        return faces.reshape(each, self.classes, *faces.shape[1:])

    def intensity(self, each: int) -> np.ndarray:
        """Faces from neutral to each other emotion: uint8 (K − 1, levels, each, 3, S, S)."""
        neutral = self.emotions.index("neutral")
        others = [k for k in range(self.classes) if k != neutral]
        asked, levels, number = (part.ravel() for part in np.meshgrid(others, LEVELS, np.arange(each), indexing="ij"))
        emotions = levels[:, None] * np.eye(self.classes)[asked]
        emotions[:, neutral] += 1 - levels
        seeds = _SEEDS["intensity"] + number  # a seed, seen with every emotion at every level
        faces = self.drawing.sample(emotions, seeds, "intensity")
        self._verdicts("intensity", faces, asked, level=levels, **self._origin(seeds))
        return faces.reshape(len(others), len(LEVELS), each, *faces.shape[1:])

    def editing(self, sources: int, kept: Callable[..., dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """A fixed list of test faces, the same number of each emotion, each towards every other emotion.

        Args:
            sources: in all.
            kept: what is compared of edits, see `Kept`.

        Returns:
            The edits, uint8 (n, 3, S, S); and for a picture one source of each emotion, uint8 (K, 1 + K, 3, S, S):
            itself and what became of it.
        """
        real, classes = self.real, self.classes
        random = np.random.default_rng(_SEED + 2)
        chosen = self._sources(sources, random)
        rows, asked = (part.ravel() for part in np.meshgrid(np.concatenate(chosen), np.arange(classes), indexing="ij"))
        other = real.labels[rows] != asked
        rows, asked = rows[other], asked[other]
        strangers = np.array([self._stranger(int(row), int(k), random) for row, k in zip(rows, asked, strict=True)])
        images = real.faces(rows)
        edited = self.drawing.edit(images, np.eye(classes)[asked], _SEEDS["editing"] + np.arange(len(rows)), "editing")
        place = {"row": rows, "person": real.person[rows]}
        self._verdicts("editing", edited, asked, **place, **kept(edited, rows, strangers, asked))
        self._verdicts("source", images, asked, **place)
        lines = []
        for source in (group[0] for group in chosen if len(group)):
            itself = np.broadcast_to(real.images[source], edited.shape[1:])
            mine = rows == source
            becomes = dict(zip(asked[mine].tolist(), edited[mine], strict=True))
            lines.append(np.stack([itself, *(becomes.get(k, itself) for k in range(classes))]))
        return edited, np.stack(lines)

    def _sources(self, sources: int, random: np.random.Generator) -> list[np.ndarray]:
        """Rows of test faces of each emotion, the same number of each, as far as there are so many."""
        real, each = self.real, max(1, sources // self.classes)
        of = real.labels[real.test]
        return [random.permutation(real.test[of == k])[:each] for k in range(self.classes)]

    def stylization(self, sources: int) -> np.ndarray:
        """The fixed list of test faces, each in the style of the emotion that the model itself reads in it.

        A model without a classifier is told the emotion. What the panel reads before and after is kept, and how much of
        the face remains.

        Returns:
            For a picture one source of each emotion, uint8 (K, 1 + K, 3, S, S): itself, and in every style.
        """
        real, model, classes = self.real, self.drawing.model, self.classes
        chosen = self._sources(sources, np.random.default_rng(_SEED + 2))
        rows = np.concatenate(chosen)
        images, shown = self._coloured(rows), real.labels[rows]
        label = model.label if model.classifier else None
        made = self.drawing.stylize(images, None if label else np.eye(classes)[shown], "stylization")
        device = self.drawing.device
        faces = [torch.from_numpy(each).to(device) for each in (images, made)]
        used = label(faces[0]) if label else torch.eye(classes, device=device)[torch.from_numpy(shown).to(device)]
        found = {name: value.double().cpu().numpy() for name, value in model.losses(*faces, used).items()}
        style = used.argmax(1).cpu().numpy()
        place = {"row": rows, "person": real.person[rows]}
        self._verdicts("stylized", made, shown, **place, **found, ssim=ssim(made, images), style=style)
        self._verdicts("stylized_start", images, shown, **place)
        first = self._coloured(np.array([group[0] for group in chosen if len(group)]))
        every = np.repeat(np.eye(classes)[None], len(first), 0).reshape(-1, classes)
        styled = self.drawing.stylize(np.repeat(first, classes, 0), every, "styles").reshape(
            len(first), classes, *first.shape[1:]
        )
        large = np.stack([resized(face, STYLIZED) for face in images[:_AT_A_TIME]])
        self.drawing.stylize(large, np.eye(classes)[shown[:_AT_A_TIME]], "warm-up")
        self.drawing.stylize(large, np.eye(classes)[shown[:_AT_A_TIME]], "stylization at 256 px")
        return np.concatenate([first[:, None], styled], 1)

    def _coloured(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, 3, S, S) of rows of the pack."""
        faces = self.real.faces(rows)
        return np.ascontiguousarray(np.broadcast_to(faces, (len(faces), 3, *faces.shape[2:])))

    def _stranger(self, row: int, emotion: int, random: np.random.Generator) -> int:
        """A test face of another person that shows the emotion; −1: there is none."""
        real = self.real
        others = real.test[(real.labels[real.test] == emotion) & (real.test != row)]
        if real.person[row] >= 0:
            others = others[real.person[others] != real.person[row]]
        return int(random.choice(others)) if len(others) else -1


@dataclass(frozen=True)
class Kept:
    """How much of a person an edit keeps, beside the same of a random other person with that emotion.

    Attributes:
        data: the data module; of drawn people the truth is known: the same photograph with the emotion asked for.
        embedding: of a face-recognition network; None: no identity.
        lpips: None: no LPIPS.
    """

    data: Any
    embedding: Embedding | None
    lpips: Lpips | None

    def __call__(
        self, edited: np.ndarray, rows: np.ndarray, strangers: np.ndarray, asked: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Columns (n,) for edits uint8 (n, 3, S, S) of rows of the pack, and for the strangers' rows.

        NaN where there is no stranger, −1.
        """
        there = strangers >= 0
        colour = edited.shape[1:]
        sources, others = (
            np.ascontiguousarray(np.broadcast_to(self.data.images[each], (len(each), *colour)))
            for each in (rows, strangers[there])
        )
        found = {}
        for name, (seen_as, alike) in self._comparisons().items():
            own = seen_as(sources)
            found[name] = alike(seen_as(edited), own)
            found[f"{name}_other"] = np.full(len(rows), np.nan)
            if there.any():
                found[f"{name}_other"][there] = alike(seen_as(others), own[there])
        if hasattr(self.data, "counterpart"):
            truth = self.data.counterpart(self.data.faces.iloc[rows], [self.data.emotions[k] for k in asked])
            found |= {"truth_psnr": psnr(edited, truth), "truth_ssim": ssim(edited, truth)}
        return found

    def _comparisons(self) -> dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]]:
        """By name: what faces are compared as, and how pairs are compared."""
        found: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {"ssim": (np.asarray, ssim)}
        if self.embedding is not None:
            found["identity"] = (self.embedding, cosine)
        if self.lpips is not None:
            found["lpips"] = (np.asarray, self.lpips)
        return found
