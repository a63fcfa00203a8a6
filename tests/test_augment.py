"""Augmentation: what each change does, and that it depends on its seed alone."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from emobench.data.augment import augmenter
from emobench.recipe import Augment

FACES = np.random.default_rng(0).integers(0, 256, (32, 1, 24, 24), np.uint8)
OFF = {"hflip": 0.0, "rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "blur_p": 0.0}


def changed(images: np.ndarray, seed: tuple[int, ...] = (0, 0, 0, 0), **changes: object) -> np.ndarray:
    augment = augmenter(Augment(**{**OFF, **changes}))  # type: ignore[arg-type]
    assert augment is not None
    return augment(images, seed)


def test_nothing_to_do_needs_no_albumentations() -> None:
    assert augmenter(Augment.none()) is None
    code = "import sys, emobench.data.augment as a; print('albumentations' in sys.modules or 'cv2' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.strip() == "False"


def test_the_flip_mirrors_about_half_of_the_faces() -> None:
    flipped = changed(FACES, hflip=0.5)
    mirrored = [np.array_equal(after, before[..., ::-1]) for before, after in zip(FACES, flipped, strict=True)]
    same = [np.array_equal(after, before) for before, after in zip(FACES, flipped, strict=True)]
    assert np.logical_xor(mirrored, same).all()
    assert 6 <= sum(mirrored) <= 26
    assert np.array_equal(changed(FACES, hflip=1.0), FACES[..., ::-1])


def test_brightness_and_contrast_stay_in_their_range() -> None:
    gray = np.full((500, 1, 8, 8), 128, np.uint8)
    bright = changed(gray, brightness=0.25)[:, 0, 0, 0].astype(int)
    assert 128 - 64 <= bright.min() < 80
    assert 176 < bright.max() <= 128 + 64
    contrast = changed(gray, contrast=0.25)[:, 0, 0, 0] / 128
    assert 0.74 <= contrast.min() < 0.8
    assert 1.2 < contrast.max() <= 1.26


def test_rotation_turns_at_most_so_far() -> None:
    bar = np.zeros((300, 1, 65, 65), np.uint8)
    bar[:, :, 32, 40:60] = 255  # a ray from the middle to the right
    turned = changed(bar, rotation=15.0)[:, 0].astype(float)
    y, x = np.mgrid[:65, :65] - 32
    weights = turned * (x > 0)
    angle = np.degrees(np.arctan2((weights * y).sum((1, 2)), (weights * x).sum((1, 2))))
    assert -15.5 < angle.min() < -13
    assert 13 < angle.max() < 15.5


def test_blur_erase_shift_and_scale_change_what_they_should() -> None:
    assert changed(FACES, blur_p=1.0, blur=(1.0, 1.0)).std() < 0.6 * FACES.std()
    white = np.full((64, 1, 24, 24), 255, np.uint8)
    erased = (changed(white, erase=1.0) < 255).mean((1, 2, 3))
    assert 0.01 < erased.min() < erased.max() < 0.4
    dot = np.zeros((200, 1, 41, 41), np.uint8)
    dot[:, :, 20, 20] = 255
    rows, columns = np.array([np.unravel_index(face[0].argmax(), (41, 41)) for face in changed(dot, shift=0.1)]).T
    assert 16 <= rows.min() < 18 < 22 < rows.max() <= 24
    assert 16 <= columns.min() < 18 < 22 < columns.max() <= 24
    square = np.zeros((200, 1, 41, 41), np.uint8)
    square[:, :, 10:31, 10:31] = 255
    sides = np.sqrt((changed(square, scale=0.2) / 255).sum((1, 2, 3))) / 21
    assert 0.78 < sides.min() < 0.85
    assert 1.15 < sides.max() < 1.22


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_seeds_equal_changes(channels: int) -> None:
    faces = np.repeat(FACES, channels, 1)
    everything = augmenter(Augment(shift=0.1, scale=0.1, erase=0.5))
    assert everything is not None
    first = everything(faces, (0, 1, 2, 0))
    everything(faces, (9, 9, 9, 0))  # what came before does not matter
    assert np.array_equal(everything(faces, (0, 1, 2, 0)), first)
    assert first.shape == faces.shape
    assert first.dtype == np.uint8
    for seed in [(1, 1, 2, 0), (0, 2, 2, 0), (0, 1, 3, 0), (0, 1, 2, 1)]:
        assert not np.array_equal(everything(faces, seed), first)


def test_a_wrong_argument_is_an_error_not_a_warning() -> None:
    with pytest.raises((UserWarning, ValueError)):
        changed(FACES, hflip=1.5)
