"""Drawn faces: emotions become action units by EMFACS, action units become faces in `faces.py`.

Nothing is downloaded, every face knows its person, its action units and their intensity, and the same photograph can be
taken again with another emotion: the true counterpart, which no collection of real faces has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.data.datamodule import EmotionDataModule
from emobench.data.drawn.canvas import Array, mix, uniform
from emobench.data.drawn.faces import UNITS, Faces, draw
from emobench.emotions import EMOTIONS, canonical
from emobench.errors import DatasetError, SizeError

# Emotion -> action units and how strong they are at full intensity, 0..1: the prototypes of EMFACS (Friesen & Ekman
# 1983). Contempt is one-sided (R12, R14): it is drawn on the right or on the left.
PROTOTYPES: Mapping[str, Mapping[int, float]] = {
    "neutral": {},
    "happy": {6: 0.8, 12: 0.9},
    "sad": {1: 1.0, 4: 0.5, 15: 1.0},
    "surprise": {1: 0.9, 2: 1.0, 5: 0.9, 26: 0.95},
    "fear": {1: 1.0, 2: 0.5, 4: 0.6, 5: 1.0, 7: 0.2, 20: 1.0, 26: 0.45},
    "disgust": {9: 1.0, 15: 0.5, 16: 0.6},
    "anger": {4: 1.0, 5: 0.3, 7: 0.8, 23: 1.0},
    "contempt": {12: 0.75, 14: 1.0},
}
# Variants that EMFACS lists beside the prototypes; each joins in some of the faces.
VARIATIONS: Mapping[str, Mapping[int, float]] = {
    "happy": {25: 0.9},
    "sad": {17: 0.7},
    "fear": {25: 0.6},
    "disgust": {10: 0.9},
    "anger": {17: 0.5},
}
ONE_SIDED = "contempt"
# An emotion borrows from the one that people take it for most often.
NEIGHBOURS = {"surprise": "fear", "fear": "surprise", "anger": "disgust", "disgust": "anger"}

# A person: name -> range, in units of the face (half a picture is 1, see faces.py) unless said otherwise.
IDENTITY: Mapping[str, tuple[float, float]] = {
    "width": (0.60, 0.71),  # half width of the head
    "crown": (0.78, 0.88),  # from the middle of the face up
    "chin": (0.80, 0.92),  # and down
    "jaw": (0.0, 0.75),  # squareness, 0 is an ellipse
    "taper": (0.0, 0.22),  # share of the width that is lost towards the chin
    "skin": (0.0, 1.0),  # tone in the palette, as the next two
    "hair": (0.0, 1.0),
    "iris": (0.0, 1.0),
    "lip_tone": (0.0, 1.0),  # from the skin's colour to rose
    "cloth": (0.0, 1.0),
    "hairline": (-0.66, -0.50),
    "temples": (0.10, 0.75),  # how much the hairline falls to the sides
    "parting": (-0.16, 0.16),  # and to one side
    "hair_volume": (0.03, 0.13),
    "hair_length": (-0.10, 1.30),  # lower end of the hair behind the head
    "curl": (-0.04, 0.05),  # waves of its outline, where above 0
    "tufts": (-0.03, 0.05),  # waves of the hairline, where above 0
    "has_hair": (-8.0, 1.0),  # below 0: yes
    "eye_x": (0.26, 0.31),
    "eye_y": (-0.13, -0.07),
    "eye_w": (0.150, 0.185),  # half width
    "eye_open": (0.44, 0.60),  # half height over half width
    "eye_tilt": (-0.06, 0.16),
    "iris_size": (0.070, 0.084),
    "lash": (0.014, 0.026),
    "brow_x": (0.28, 0.32),
    "brow_y": (0.20, 0.25),  # above the eye
    "brow_w": (0.18, 0.23),  # half width
    "brow_thick": (0.022, 0.044),  # half thickness
    "brow_arch": (0.008, 0.035),
    "brow_tilt": (-0.030, 0.004),
    "nose_w": (0.095, 0.14),  # half width
    "nose_y": (0.17, 0.24),
    "mouth_y": (0.47, 0.53),
    "mouth_w": (0.22, 0.28),  # half width
    "mouth_rest": (-0.018, 0.018),  # corners of the resting mouth, down
    "lip_up": (0.030, 0.055),
    "lip_low": (0.045, 0.080),
    "glasses": (-4.0, 1.0),  # above 0: yes
    "frame_tone": (0.0, 1.0),
    "frame_square": (0.0, 0.8),
    "beard": (-2.0, 1.0),  # density where above 0 and the hair is short
    "beard_line": (0.0, 0.22),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How hard the faces are to read. Amplitudes are the most that is drawn, either way from 0."""

    intensity: tuple[float, float]  # of the emotion, 1 is the prototype
    blend: float  # at most this share of a face's emotion is its neighbour's
    jitter: float  # of each unit's activation, as a share
    asymmetry: float  # between the sides, as a share
    rest: float  # activation of any unit in a face at rest
    missing: float  # probability that a unit of the prototype stays at rest
    tilt: float  # degrees, as yaw and nod
    yaw: float
    nod: float
    shift: float  # half pictures
    scale: float  # share
    light: float  # darkening across the head and the picture, share
    gain: float  # exposure, share
    backdrop: float  # contrast within the background, 0 is even
    blur: float  # half pictures
    noise: float  # share of the full range
    covered: float  # probability of something before the face
    gray: bool = False


VARIANTS: Mapping[str, Variant] = {
    "standard": Variant(
        intensity=(0.38, 1.0), blend=0.5, jitter=0.5, asymmetry=0.25, rest=0.16, missing=0.08, tilt=10, yaw=12, nod=6,
        shift=0.06, scale=0.08, light=0.22, gain=0.2, backdrop=1.0, blur=0.025, noise=0.04, covered=0.12,
    ),
    "plain": Variant(
        intensity=(0.85, 1.0), blend=0.0, jitter=0.12, asymmetry=0.08, rest=0.0, missing=0.0, tilt=0, yaw=0, nod=0,
        shift=0.0, scale=0.0, light=0.08, gain=0.05, backdrop=0.0, blur=0.0, noise=0.01, covered=0.0, gray=True,
    ),
    "hard": Variant(
        intensity=(0.30, 0.9), blend=0.5, jitter=0.55, asymmetry=0.35, rest=0.22, missing=0.12, tilt=18, yaw=20, nod=10,
        shift=0.10, scale=0.14, light=0.35, gain=0.35, backdrop=1.0, blur=0.055, noise=0.09, covered=0.40,
    ),
}  # fmt: skip

Ints = NDArray[np.int64]

SPLITS = ("train", "val", "test")
PEOPLE = 1_000_000  # people of split k are numbered from k · PEOPLE on, whatever the splits' sizes
PER_PERSON = 10
UNIT_COLUMNS = [f"{side}{unit}" for unit in UNITS for side in "LR"]  # as FACS writes sides
# Streams of random numbers of a person: the identity, then of each face the photograph and the expression.
_IDENTITY, _FACE = 0, 16


def _table(units: Mapping[str, Mapping[int, float]]) -> Array:
    """Emotion -> action units as an array (K, U, 2), one-sided emotions on the right."""
    table = np.zeros((len(EMOTIONS), len(UNITS), 2))
    for emotion, active in units.items():
        for unit, strength in active.items():
            table[EMOTIONS.index(emotion), list(UNITS).index(unit)] = (emotion != ONE_SIDED) * strength, strength
    return table


def identities(draw_seed: int, person: Ints) -> dict[str, Array]:
    """The people of these numbers: the parameters of `IDENTITY`, each (N,)."""
    low, high = np.array(list(IDENTITY.values())).T
    values = low + (high - low) * uniform(_keys(draw_seed, person, _IDENTITY), len(IDENTITY))
    people = dict(zip(IDENTITY, values.T, strict=True))
    people["has_hair"] = (people["has_hair"] < 0).astype(float)
    people["glasses"] = (people["glasses"] > 0).astype(float)
    dark = 1 - 0.8 * people["skin"]  # dark skin goes with dark eyes, and with dark hair until it is gray
    people["iris"] *= dark
    people["hair"] *= np.where(people["hair"] < 0.85, dark, 1)
    people["curl"], people["tufts"] = np.maximum(people["curl"], 0), np.maximum(people["tufts"], 0)
    short = people["hair_length"] < 0.4
    people["beard"] = np.where((people["beard"] > 0) & short, 0.35 + 0.5 * people["beard"], 0.0)
    return people


def scenes(variant: Variant, draw_seed: int, person: Ints, face: Ints) -> dict[str, Array]:
    """The photographs of these faces: pose, light, background, noise and what stands before the face, each (N,)."""
    v, u = variant, iter(uniform(_keys(draw_seed, person, _FACE + 2 * face), 40).T)

    def spread(most: float) -> Array:
        return np.asarray(most * (2 * next(u) - 1))

    scene: dict[str, Array] = {"tilt": spread(v.tilt), "yaw": spread(v.yaw), "nod": spread(v.nod)}
    scene |= {"shift_x": spread(v.shift), "shift_y": spread(v.shift), "scale": 1.04 * (1 + spread(v.scale))}
    scene |= {"light_x": spread(v.light), "light_y": 0.06 + spread(v.light / 2)}
    scene |= {"glow_x": spread(v.light), "glow_y": spread(v.light)}
    scene |= {"gain": 0.94 * (1 + spread(v.gain)), "warmth": spread(0.08)}
    scene |= {"gaze": spread(0.02), "blur": v.blur * next(u) ** 2, "noise": v.noise * next(u) ** 1.5}
    scene |= {"grain_x": next(u), "grain_y": next(u)}
    scene |= {"backdrop": next(u), "backdrop_light": 0.9 + spread(0.28)}
    scene["far"] = scene["backdrop"] + v.backdrop * (next(u) - scene["backdrop"])
    scene["far_light"] = scene["backdrop_light"] * (1 + v.backdrop * spread(0.45))
    scene |= {"far_x": spread(1), "far_y": spread(1), "blob": v.backdrop * next(u)}
    scene |= {"blob_x": spread(1), "blob_y": spread(1), "blob_size": 0.2 + 0.6 * next(u)}
    turn = np.pi * spread(1)
    scene |= {"covered": (next(u) < v.covered).astype(float), "cover_cos": np.cos(turn), "cover_sin": np.sin(turn)}
    scene |= {"cover_tone": next(u), "cover_aside": spread(0.4)}
    scene |= {"cover_from": 0.25 + 0.35 * next(u), "cover_size": 0.25 + 0.3 * next(u)}
    return scene


def emotion_weights(variant: Variant, draw_seed: int, person: Ints, face: Ints, emotion: Ints) -> Array:
    """Emotion weights (N, K) of these faces: (1 - t) neutral + t of the emotion, a part of t being its neighbour's."""
    r = uniform(_keys(draw_seed, person, _FACE + 2 * face + 1), 2)
    low, high = variant.intensity
    strength = low + (high - low) * r[:, 0]
    neighbour = np.array([EMOTIONS.index(NEIGHBOURS.get(name, name)) for name in EMOTIONS])[emotion]
    share = variant.blend * r[:, 1]
    weights, row = np.zeros((len(emotion), len(EMOTIONS))), np.arange(len(emotion))
    np.add.at(weights, (row, emotion), strength * (1 - share))
    np.add.at(weights, (row, neighbour), strength * share)
    weights[:, 0] = 0
    weights[:, 0] = 1 - weights.sum(axis=1)
    return weights


def action_units(variant: Variant, draw_seed: int, person: Ints, face: Ints, weights: Array) -> Array:
    """Activations (N, U, 2) that emotion weights (N, K) call for, with this face's own way of making them."""
    n, k = len(UNITS), len(EMOTIONS)
    r = uniform(_keys(draw_seed, person, _FACE + 2 * face + 1), 2 + 5 * n + k + 1)[:, 2:]  # 2: emotion_weights'
    jitter, side, missing, rest_left, rest_right = r[:, : 5 * n].reshape(-1, 5, n).transpose(1, 0, 2)
    varied = r[:, 5 * n : 5 * n + k] < 0.6
    units = np.tensordot(weights, _table(PROTOTYPES), 1) + np.tensordot(weights * varied, _table(VARIATIONS), 1)
    units *= (1 + variant.jitter * (2 * jitter - 1) - 0.85 * (missing < variant.missing))[:, :, None]
    lean = variant.asymmetry * (2 * side - 1)
    units *= np.stack([1 + lean, 1 - lean], axis=2)
    units += variant.rest * np.stack([rest_left, rest_right], axis=2) ** 3
    mirrored = r[:, -1] < 0.5
    units[mirrored] = units[mirrored][:, :, ::-1]
    return np.asarray(np.round(np.clip(units, 0, 1.15), 4))  # rounded, as the index shows them


def cast(variant: Variant, draw_seed: int, person: Ints, face: Ints, weights: Array) -> Faces:
    """Faces of these people (N,) in these photographs (N,) showing these emotion weights (N, K), in `EMOTIONS`' order.

    Weights are one-hot rows, mixtures, or intensities ((1 - t)·neutral + t·emotion); they need not sum to 1.
    """
    units = action_units(variant, draw_seed, person, face, weights)
    return Faces(identities(draw_seed, person), scenes(variant, draw_seed, person, face), units, variant.gray)


def _keys(draw_seed: int, person: Ints, stream: Ints | int) -> NDArray[np.uint64]:
    """A key (N,) for each person and stream of random numbers."""
    key = mix(np.array([draw_seed % 2**64], np.uint64))
    for part in (person, stream):
        key = mix(key + np.asarray(part).astype(np.uint64) + np.uint64(1))
    return key


class Synthetic(EmotionDataModule):
    """Drawn faces of the eight emotions, ten a person, equally many of each emotion; splits share no person.

    Args:
        variant: "standard" is hard enough to rank models; "plain" is gray, aligned and strong; "hard" is weak, turned,
            blurred and covered.
        train: faces of this split, a multiple of eight; so `val` and `test`.
        draw_seed: seed of everything drawn; another one is another dataset.
        only: draw these emotions alone; None: all eight.

    Raises:
        SizeError: the size is not between 32 and 256 px.
        DatasetError: a number of faces is no multiple of the emotions, or one of these is unknown.
    """

    name: ClassVar[str] = "synthetic"  # type: ignore[misc]  # Lightning has an instance variable of this name
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "synthetic-plain": {"variant": "plain"},
        "synthetic-hard": {"variant": "hard"},
    }
    family: ClassVar[str | None] = None
    expects: ClassVar[str] = ""

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
            yield from draw(self._photographs(part, units), self.size)

    def _photographs(self, rows: pd.DataFrame, units: Array) -> Faces:
        person, face = rows["person"].to_numpy(np.int64), rows["face"].to_numpy(np.int64)
        variant = VARIANTS[self.variant]
        scene = scenes(variant, self.draw_seed, person, face)
        return Faces(identities(self.draw_seed, person), scene, units, variant.gray)

    def counterpart(
        self, rows: pd.DataFrame, emotion: str | Sequence[str], intensity: float | None = None
    ) -> NDArray[np.uint8]:
        """The same photographs (person, pose, light, background, noise) with another emotion: uint8 (N, 3, size, size).

        Args:
            rows: N rows of the index.
            emotion: of all rows, or one for each.
            intensity: 0 (neutral) to 1; None: as strong, and as mixed, as if the dataset had drawn it so.

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
        """These people (N,) in these photographs (N,) with emotion weights (N, 8), see `cast`: uint8 (N, 3, …)."""
        pictures = draw(cast(VARIANTS[self.variant], self.draw_seed, person, face, weights), self.size)
        return np.broadcast_to(pictures, (len(pictures), 3, self.size, self.size)).copy()


def grid(variant: str = "standard", size: int = 96, people: int = 12, draw_seed: int = 0) -> NDArray[np.uint8]:
    """A picture for people to look at: emotions are rows, each column is another person: (8·size, people·size, 3)."""
    emotion, column = np.repeat(np.arange(len(EMOTIONS)), people), np.tile(np.arange(people), len(EMOTIONS))
    person, settings = emotion * people + column, VARIANTS[variant]
    weights = emotion_weights(settings, draw_seed, person, emotion, emotion)
    pictures = draw(cast(settings, draw_seed, person, emotion, weights), size)
    pictures = np.broadcast_to(pictures, (len(pictures), 3, size, size))
    rows = pictures.reshape(len(EMOTIONS), people, 3, size, size).transpose(0, 3, 1, 4, 2)
    return rows.reshape(len(EMOTIONS) * size, people * size, 3)
