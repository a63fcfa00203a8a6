"""Augmentation: what each change does with either backend, and that it depends on its seed alone."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from emobench.data.augment import Albumentations, active, batched, draw, kernels
from emobench.recipe import Augment

FACES = np.random.default_rng(0).integers(0, 256, (32, 1, 24, 24), np.uint8)
OFF = {"hflip": 0.0, "rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "blur_p": 0.0}
BACKENDS = ["albumentations", "batched"]


def changed(
    images: np.ndarray, backend: str, seed: tuple[int, ...] = (0, 0, 0, 0), turn: float | None = None, **given: object
) -> np.ndarray:
    augment = Augment(**{**OFF, **given})  # type: ignore[arg-type]
    turns = None if turn is None else np.full(len(images), turn)
    changes = draw(augment, len(images), images.shape[-1], seed, turns)
    if backend == "albumentations":
        return Albumentations(augment)(images, changes)
    return batched(torch.from_numpy(images), changes).numpy()


def smooth(n: int, side: int = 48) -> np.ndarray:
    """Pictures without hard edges, on which two ways of interpolation agree."""
    y, x = np.mgrid[:side, :side] / side
    phase = np.random.default_rng(1).uniform(0, 6.28, (n, 2, 1, 1))
    return np.uint8(127 + 60 * np.sin(5 * x + phase[:, :1]) + 60 * np.cos(4 * y + phase[:, 1:]))


@pytest.mark.slow
def test_nothing_to_do_needs_no_albumentations() -> None:
    assert not active(Augment.none())
    code = "import sys, emobench.data.augment as a; print('albumentations' in sys.modules or 'cv2' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_flip_mirrors_about_half_of_the_faces(backend: str) -> None:
    flipped = changed(FACES, backend, hflip=0.5)
    mirrored = [np.array_equal(after, before[..., ::-1]) for before, after in zip(FACES, flipped, strict=True)]
    same = [np.array_equal(after, before) for before, after in zip(FACES, flipped, strict=True)]
    assert np.logical_xor(mirrored, same).all()
    assert 6 <= sum(mirrored) <= 26
    assert np.array_equal(changed(FACES, backend, hflip=1.0), FACES[..., ::-1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_brightness_and_contrast_stay_in_their_range(backend: str) -> None:
    gray = np.full((500, 1, 8, 8), 128, np.uint8)
    bright = changed(gray, backend, brightness=0.25)[:, 0, 0, 0].astype(int)
    assert 128 - 64 <= bright.min() < 80
    assert 176 < bright.max() <= 128 + 64
    contrast = changed(gray, backend, contrast=0.25)[:, 0, 0, 0] / 128
    assert 0.74 <= contrast.min() < 0.8
    assert 1.2 < contrast.max() <= 1.26


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", [{"rotation": 15.0}, {"turn": 15.0}])
def test_rotation_turns_at_most_so_far(backend: str, how: dict[str, float]) -> None:
    bar = np.zeros((300, 1, 65, 65), np.uint8)
    bar[:, :, 32, 40:60] = 255  # a ray from the middle to the right
    turned = changed(bar, backend, **how)[:, 0].astype(float)  # type: ignore[arg-type]
    y, x = np.mgrid[:65, :65] - 32
    weights = turned * (x > 0)
    angle = np.degrees(np.arctan2((weights * y).sum((1, 2)), (weights * x).sum((1, 2))))
    assert -15.5 < angle.min() < -13
    assert 13 < angle.max() < 15.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_blur_erase_shift_and_scale_change_what_they_should(backend: str) -> None:
    assert changed(FACES, backend, blur_p=1.0, blur=(1.0, 1.0)).std() < 0.6 * FACES.std()
    white = np.full((64, 1, 24, 24), 255, np.uint8)
    erased = (changed(white, backend, erase=1.0) < 255).mean((1, 2, 3))
    assert 0.01 < erased.min() < erased.max() < 0.4
    dot = np.zeros((200, 1, 41, 41), np.uint8)
    dot[:, :, 20, 20] = 255
    moved = changed(dot, backend, shift=0.1)
    rows, columns = np.array([np.unravel_index(face[0].argmax(), (41, 41)) for face in moved]).T
    assert 15 <= rows.min() < 18 < 22 < rows.max() <= 25
    assert 15 <= columns.min() < 18 < 22 < columns.max() <= 25
    square = np.zeros((200, 1, 41, 41), np.uint8)
    square[:, :, 10:31, 10:31] = 255
    sides = np.sqrt((changed(square, backend, scale=0.2) / 255).sum((1, 2, 3))) / 21
    assert 0.78 < sides.min() < 0.85
    assert 1.15 < sides.max() < 1.22


@pytest.mark.parametrize(
    "given",
    [
        {"hflip": 0.5},
        {"rotation": 15.0},
        {"shift": 0.1, "scale": 0.1, "rotation": 10.0, "hflip": 0.5},
        {"brightness": 0.25, "contrast": 0.25},
        {"blur_p": 0.5, "blur": (0.1, 1.0)},
        {"blur_p": 1.0, "blur": (3.0, 3.0)},
        {
            "hflip": 0.5,
            "rotation": 15.0,
            "brightness": 0.25,
            "contrast": 0.25,
            "blur_p": 0.5,
            "erase": 0.5,
            "shift": 0.1,
        },
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_both_backends_make_the_same_changes_but_for_interpolation(given: dict[str, object], channels: int) -> None:
    faces = np.repeat(smooth(64), channels, 1)
    one, all_at_once = (changed(faces, backend, **given).astype(int) for backend in BACKENDS)  # type: ignore[arg-type]
    difference = np.abs(one - all_at_once)
    assert difference.mean() < 0.6  # grey levels of 256
    assert np.quantile(difference, 0.999) <= 3
    assert np.abs(one - faces).mean() > 5 * difference.mean()


def test_blur_is_pillows() -> None:
    sharp = smooth(1)[0, 0]
    sharp[20:28, 20:28] = 255
    blurred = changed(sharp[None, None], "batched", blur_p=1.0, blur=(1.0, 1.0))[0, 0]
    expected = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(1.0)))
    assert np.abs(blurred.astype(int) - expected)[4:-4, 4:-4].max() <= 6  # Pillow approximates by boxes
    assert np.allclose(kernels(np.array([0.0, 0.5, 2.0]), 48).sum(1), 1)
    assert kernels(np.array([40.0]), 24).shape == (1, 47)  # no wider than reflection allows


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_seeds_equal_changes(channels: int, backend: str) -> None:
    faces = np.repeat(FACES, channels, 1)
    given = {"shift": 0.1, "scale": 0.1, "erase": 0.5, "blur_p": 0.5, "hflip": 0.5, "rotation": 15.0}
    first = changed(faces, backend, (0, 1, 2, 0), **given)  # type: ignore[arg-type]
    changed(faces, backend, (9, 9, 9, 0), **given)  # type: ignore[arg-type]  # what came before does not matter
    assert np.array_equal(changed(faces, backend, (0, 1, 2, 0), **given), first)  # type: ignore[arg-type]
    assert first.shape == faces.shape
    assert first.dtype == np.uint8
    for seed in [(1, 1, 2, 0), (0, 2, 2, 0), (0, 1, 3, 0), (0, 1, 2, 1)]:
        assert not np.array_equal(changed(faces, backend, seed, **given), first)  # type: ignore[arg-type]


def test_an_option_switched_off_leaves_the_others_as_they_are() -> None:
    many, few = (draw(Augment(**options), 16, 48, (0, 0, 0, 0)) for options in ({"erase": 0.5}, {"hflip": 0.0}))  # type: ignore[arg-type]
    assert np.array_equal(many.angle, few.angle)
    assert np.array_equal(many.brightness, few.brightness)
    assert not few.flip.any()
    assert not few.patch.any()
