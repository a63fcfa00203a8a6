"""Where the faces in a picture are: by OpenCV's YuNet where its file is given, else by scikit-image's cascade."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from emobench.errors import EmobenchError, WeightsError, first_line

_LONGEST = 640  # px: larger pictures are looked at scaled down to it
_SMALLEST = 24  # px: the side of the cascade's own window
_SHARE = 10  # of a picture's shorter side: the cascade sees a face that is a tenth of it, and fewer that are none
_OVERLAP = 0.5  # of the smaller box: the same face, found twice
_SURE = 0.6, 0.3  # YuNet's score of a face, and the overlap above which two are one: those of its own demonstration


class Box(NamedTuple):
    """Edges in px of the upright picture; right and bottom are exclusive, and all may lie outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


class Detector(Protocol):
    """Finds faces.

    Attributes:
        name: in tables.
        described: in words.
    """

    name: str
    described: str

    def __call__(self, picture: np.ndarray) -> list[Box]:
        """The faces in a picture uint8 (3, h, w), the largest first."""


def detector(file: Path | None) -> Detector:
    """YuNet of an ONNX file; None: the cascade.

    Raises:
        WeightsError: the file is none that OpenCV reads as YuNet.
        EmobenchError: scikit-image is not installed.
    """
    return CascadeDetector() if file is None else YuNet(file)


class CascadeDetector:
    """scikit-image's cascade of local binary patterns, with the trained file in its wheel: frontal faces, upright."""

    name = "scikit-image cascade"
    described = "scikit-image's cascade (LBP, frontal faces from a tenth of the picture's shorter side on)"

    def __init__(self) -> None:
        try:
            from skimage.data import lbp_frontal_face_cascade_filename
            from skimage.feature import Cascade
        except ImportError as error:
            raise EmobenchError(
                f"--detect needs scikit-image ({error}): pip install 'emobench[detect]'. Or name YuNet's ONNX file by "
                "--detector"
            ) from error
        self._cascade: Any = Cascade(lbp_frontal_face_cascade_filename())

    def __call__(self, picture: np.ndarray) -> list[Box]:
        small, scale = _scaled(picture)
        shorter = min(small.shape[:2])
        if shorter < _SMALLEST:
            return []
        least = max(_SMALLEST, shorter // _SHARE)
        found = self._cascade.detect_multi_scale(
            small, scale_factor=1.2, step_ratio=1, min_size=(least, least), max_size=(shorter, shorter)
        )
        boxes = [(each["c"], each["r"], each["c"] + each["width"], each["r"] + each["height"]) for each in found]
        return _apart([_box(*(edge * scale for edge in each)) for each in boxes])


class YuNet:
    """OpenCV's face detector (Wu et al. 2023), of a file that its authors publish.

    Raises:
        WeightsError: it cannot be read, or is another network.
    """

    name = "YuNet"

    def __init__(self, file: Path) -> None:
        import cv2

        self.described = f"YuNet ({file.name})"
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            if not file.is_file():
                raise WeightsError(f"--detector {file}: no such file. It is YuNet's ONNX file, of OpenCV's model zoo")
            self._network: Any = cv2.FaceDetectorYN.create(str(file), "", (64, 64), *_SURE)
            self(np.zeros((3, 64, 64), np.uint8))  # one of another network is only found out so
        except cv2.error as error:
            reason = first_line(error)
            raise WeightsError(
                f"--detector {file}: OpenCV cannot use it as YuNet ({reason}). Take its ONNX file"
            ) from None

    def __call__(self, picture: np.ndarray) -> list[Box]:
        small, scale = _scaled(picture)
        self._network.setInputSize(small.shape[1::-1])
        _, found = self._network.detect(np.ascontiguousarray(small[..., ::-1]))
        edges = np.zeros((0, 4)) if found is None else found[:, :4].astype(np.float64)  # left, top, width, height
        boxes = np.concatenate([edges[:, :2], edges[:, :2] + edges[:, 2:]], 1) * scale
        return sorted((_box(*each) for each in boxes.tolist()), key=lambda box: -box.area)


def _scaled(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """A picture uint8 (3, h, w) as (h, w, 3), of a bounded size; and by what its pixels become those of the picture."""
    pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
    longest = max(pixels.shape[:2])
    if longest <= _LONGEST:
        return pixels, 1.0
    height, width = (max(1, round(side * _LONGEST / longest)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)), longest / _LONGEST


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    return Box(round(left), round(top), round(right), round(bottom))


def _apart(boxes: list[Box]) -> list[Box]:
    """The largest first, without those that show a part of a larger one."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.area):
        if all(_common(box, other) <= _OVERLAP * box.area for other in kept):
            kept.append(box)
    return kept


def _common(one: Box, other: Box) -> int:
    """px that both have."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    return max(0, width) * max(0, height)


def square(box: Box, margin: float, height: int, width: int) -> Box:
    """The square around a box, moved into the picture where it reaches over its edge.

    Args:
        margin: added on each side, a share of the box's longer side.
    """
    side = min(round((1 + 2 * margin) * max(box.right - box.left, box.bottom - box.top)), height, width)
    left = min(max(0, round((box.left + box.right - side) / 2)), width - side)
    top = min(max(0, round((box.top + box.bottom - side) / 2)), height - side)
    return Box(left, top, left + side, top + side)
