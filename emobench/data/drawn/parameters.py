"""The parameters of drawn faces: who is shown, in what scene, and which action units are active.

All numbers come from a counter-based generator keyed by (seed, person, face), so a face has the same parameters
whatever is drawn beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emobench.data.drawn.canvas import Array, mix, uniform
from emobench.data.drawn.facs import NEIGHBOURS, ONE_SIDED, PROTOTYPES, UNITS, VARIATIONS
from emobench.emotions import EMOTIONS

Ints = NDArray[np.int64]

# A person: name -> range, in units of the face (half a picture is 1, see `faces`) unless said otherwise.
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

# Streams of random numbers of a person: the identity, then for each face the scene and the expression.
_IDENTITY, _FACE = 0, 16


@dataclass(frozen=True)
class FaceParameters:
    """What N faces look like, whatever the size at which they are drawn.

    Args:
        identity: what belongs to the person, the parameters of `IDENTITY`, each (N,).
        scene: pose, light, background, noise and occlusion, see `scenes`, each (N,).
        units: activations of `facs.UNITS`, (N, U, 2): 0 is rest and 1 the strongest.
        gray: one channel, an even background.
    """

    identity: Mapping[str, Array]
    scene: Mapping[str, Array]
    units: Array
    gray: bool = False

    def __len__(self) -> int:
        return len(self.units)

    def chunk(self, start: int, stop: int) -> FaceParameters:
        """The faces from `start` up to `stop`."""
        identity = {name: values[start:stop] for name, values in self.identity.items()}
        scene = {name: values[start:stop] for name, values in self.scene.items()}
        return FaceParameters(identity, scene, self.units[start:stop], self.gray)


def face_parameters(variant: Variant, draw_seed: int, person: Ints, face: Ints, weights: Array) -> FaceParameters:
    """N faces that show given emotions.

    Args:
        variant: how hard the faces are to read.
        draw_seed: seed of everything drawn.
        person: (N,) number of the person.
        face: (N,) number of that person's face: the scene, and the way in which the emotion is shown.
        weights: (N, K) emotion weights in the order of `EMOTIONS`: one-hot rows, mixtures, or intensities
            (1 - t)·neutral + t·emotion; they need not sum to 1.
    """
    units = action_units(variant, draw_seed, person, face, weights)
    return FaceParameters(identities(draw_seed, person), scenes(variant, draw_seed, person, face), units, variant.gray)


def identities(draw_seed: int, person: Ints) -> dict[str, Array]:
    """The parameters of `IDENTITY` for these people (N,), each (N,)."""
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
    """The scenes of these faces (N,): pose, light, background, noise and what occludes the face, each (N,)."""
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
    """Emotion weights (N, K) of these faces: (1 - t)·neutral + t·emotion (N,), a share of t given to its neighbour."""
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
    """Activations (N, U, 2) for emotion weights (N, K), with this face's own strengths, asymmetry and omissions."""
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


def _table(units: Mapping[str, Mapping[int, float]]) -> Array:
    """Emotion -> action units as an array (K, U, 2), one-sided emotions on the right."""
    table = np.zeros((len(EMOTIONS), len(UNITS), 2))
    for emotion, active in units.items():
        for unit, strength in active.items():
            table[EMOTIONS.index(emotion), list(UNITS).index(unit)] = (emotion != ONE_SIDED) * strength, strength
    return table


def _keys(draw_seed: int, person: Ints, stream: Ints | int) -> NDArray[np.uint64]:
    """A key (N,) for each person and stream of random numbers."""
    key = mix(np.array([draw_seed % 2**64], np.uint64))
    for part in (person, stream):
        key = mix(key + np.asarray(part).astype(np.uint64) + np.uint64(1))
    return key
