"""`synthetic`: drawn faces, ten a person, whose person, emotion, intensity and action units are known.

Nothing is downloaded, and the same person can be drawn in the same scene with another emotion: the true counterpart,
which no collection of real faces has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.data.datamodule import EmotionDataModule
from emobench.data.drawn.canvas import Array
from emobench.data.drawn.faces import render
from emobench.data.drawn.facs import UNIT_COLUMNS, UNITS
from emobench.data.drawn.parameters import (
    VARIANTS,
    FaceParameters,
    Ints,
    action_units,
    emotion_weights,
    face_parameters,
    identities,
    scenes,
)
from emobench.data.split import SPLITS
from emobench.emotions import EMOTIONS, canonical
from emobench.errors import DatasetError, SizeError

PEOPLE = 1_000_000  # people of split k are numbered from k · PEOPLE on, whatever the splits' sizes
PER_PERSON = 10  # faces


class Synthetic(EmotionDataModule):
    """Drawn faces of the eight emotions, ten a person, equally many of each emotion; splits share no person.

    Which people, scenes, emotions and intensities there are is said here; `emobench.data.drawn` draws them.

    Args:
        folder: not used.
        size: side of the faces, 32 to 256 px.
        cache: where packs and manifests are kept; None: `default_cache()`.
        variant: "standard" is hard enough to rank models; "plain" is gray, aligned and strong; "hard" is weak, turned,
            blurred and occluded.
        train: faces of this split, a multiple of eight; so `val` and `test`.
        draw_seed: seed of everything drawn; another one is another dataset.
        only: draw these emotions alone; None: all eight.

    Raises:
        SizeError: the size is not between 32 and 256 px.
        DatasetError: a number of faces is no multiple of the emotions, or one of these is unknown.
    """

    name = "synthetic"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "synthetic-plain": {"variant": "plain"},
        "synthetic-hard": {"variant": "hard"},
    }

    def __init__(
        self,
        *,
        folder: Path | None = None,
        size: int = 48,
        cache: Path | None = None,
        variant: Literal["standard", "plain", "hard"] = "standard",
        train: int = 8000,
        val: int = 1000,
        test: int = 2000,
        draw_seed: int = 0,
        only: tuple[str, ...] | None = None,
    ) -> None:
        if not 32 <= size <= 256:
            raise SizeError(f"synthetic faces cannot be drawn at {size} px: choose a size from 32 to 256")
        wanted = EMOTIONS if only is None else {canonical(emotion) for emotion in only}
        self.drawn = np.array([k for k, emotion in enumerate(EMOTIONS) if emotion in wanted])
        kinds = len(self.drawn)
        for split, count in zip(SPLITS, (train, val, test), strict=True):
            if count < kinds or count % kinds or count > PEOPLE * PER_PERSON:
                raise DatasetError(
                    f"synthetic: {split} = {count} faces cannot be shared equally by {kinds} emotions; "
                    f"choose a multiple of {kinds}, such as {max(kinds, count // kinds * kinds)}"
                )
        self.variant, self.draw_seed = variant, draw_seed
        self.faces_per_split = {"train": train, "val": val, "test": test}
        settings: dict[str, Any] = {"variant": variant, "draw_seed": draw_seed, **self.faces_per_split}
        if only is not None:
            settings["only"] = sorted(wanted)
        super().__init__(settings, folder=folder, size=size, cache=cache)

    def index(self) -> pd.DataFrame:
        """One row a face, its `person`, `face` number, `intensity` (0..1) and action units (`L1`, `R1` …)."""
        parts = [self._index_split(number, split) for number, split in enumerate(SPLITS)]
        return pd.concat(parts, ignore_index=True)

    def _index_split(self, number: int, split: str) -> pd.DataFrame:
        i = np.arange(self.faces_per_split[split])
        person, face, emotion = number * PEOPLE + i // PER_PERSON, i % PER_PERSON, self.drawn[i % len(self.drawn)]
        weights = emotion_weights(VARIANTS[self.variant], self.draw_seed, person, face, emotion)
        units = action_units(VARIANTS[self.variant], self.draw_seed, person, face, weights)
        table = pd.DataFrame(
            {
                "id": [f"{split}-{k // PER_PERSON:05d}-{k % PER_PERSON}" for k in i],
                "source": "drawn",
                "label": [EMOTIONS[k] for k in emotion.tolist()],
                "subject": [f"{split}-{k // PER_PERSON:05d}" for k in i],
                "split": split,
                "person": person,
                "face": face,
                "intensity": np.round(1 - weights[:, 0], 4),
            }
        )
        return table.assign(**dict(zip(UNIT_COLUMNS, units.reshape(len(i), -1).T, strict=True)))

    def read(self, row: Any) -> NDArray[np.uint8]:
        """One face, uint8 (C, size, size)."""
        return next(self.read_many(pd.DataFrame([row])))

    def read_many(self, rows: pd.DataFrame) -> Iterator[NDArray[np.uint8]]:
        """The faces of these rows, each uint8 (C, size, size), C = 1 for "plain" and else 3."""
        for start in range(0, len(rows), 512):
            part = rows.iloc[start : start + 512]
            units = part[UNIT_COLUMNS].to_numpy(np.float64).reshape(len(part), len(UNITS), 2)
            yield from render(self._parameters(part, units), self.size)

    def _parameters(self, rows: pd.DataFrame, units: Array) -> FaceParameters:
        """The people and scenes of rows of the index, with activations (N, U, 2) of the action units."""
        person, face = rows["person"].to_numpy(np.int64), rows["face"].to_numpy(np.int64)
        variant = VARIANTS[self.variant]
        scene = scenes(variant, self.draw_seed, person, face)
        return FaceParameters(identities(self.draw_seed, person), scene, units, variant.gray)

    def counterpart(
        self, rows: pd.DataFrame, emotion: str | Sequence[str], intensity: float | None = None
    ) -> NDArray[np.uint8]:
        """The same people in the same scenes (pose, light, background, noise) with another emotion.

        Args:
            rows: N rows of the index.
            emotion: of all rows, or one for each.
            intensity: 0 (neutral) to 1; None: as strong, and as mixed, as if the dataset had drawn it so.

        Returns:
            uint8 (N, 3, size, size).

        Raises:
            DatasetError: an unknown emotion.
        """
        names = [emotion] * len(rows) if isinstance(emotion, str) else list(emotion)
        target = np.array([EMOTIONS.index(canonical(name)) for name in names])
        person, face = rows["person"].to_numpy(np.int64), rows["face"].to_numpy(np.int64)
        if intensity is None:
            weights = emotion_weights(VARIANTS[self.variant], self.draw_seed, person, face, target)
        else:
            weights = np.eye(len(EMOTIONS))[target] * intensity
        return self.draw_people(person, face, weights)

    def draw_people(self, person: Ints, face: Ints, weights: Array) -> NDArray[np.uint8]:
        """Faces of given people (N,) and scenes (N,) with emotion weights (N, 8), see `face_parameters`.

        Returns:
            uint8 (N, 3, size, size).
        """
        images = render(face_parameters(VARIANTS[self.variant], self.draw_seed, person, face, weights), self.size)
        return np.broadcast_to(images, (len(images), 3, self.size, self.size)).copy()


def grid(variant: str = "standard", size: int = 96, people: int = 12, draw_seed: int = 0) -> NDArray[np.uint8]:
    """A contact sheet, uint8 (8·size, people·size, 3): a row an emotion, every face another person."""
    emotion, column = np.repeat(np.arange(len(EMOTIONS)), people), np.tile(np.arange(people), len(EMOTIONS))
    person, settings = emotion * people + column, VARIANTS[variant]
    weights = emotion_weights(settings, draw_seed, person, emotion, emotion)
    images = render(face_parameters(settings, draw_seed, person, emotion, weights), size)
    images = np.broadcast_to(images, (len(images), 3, size, size))
    rows = images.reshape(len(EMOTIONS), people, 3, size, size).transpose(0, 3, 1, 4, 2)
    return rows.reshape(len(EMOTIONS) * size, people * size, 3)
