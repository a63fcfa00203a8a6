"""Faces rendered from their parameters.

Every shape is an implicit function of the pixel's place on the face, painted with an edge as soft as a pixel is wide;
a blurred picture is one with softer edges. So a face is the same at every size, only sharper, and pose is a change of
coordinates and not of pixels.

Places on the face: u to the right of the picture (the person's left), v down, the middle of the face at 0, the
picture's edges at about ±1. All lengths below are in these units; half a picture is one unit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from emobench.data.drawn.canvas import Array, Patch, column, noise, pick, wave
from emobench.data.drawn.facs import UNITS
from emobench.data.drawn.parameters import FaceParameters

Places = list[tuple[slice, slice]]  # rows and columns of a window of the canvas, one for each face

DEPTH = 0.95  # radius of the cylinder on which features turn with yaw and nod

# Colours are RGB in 0..1; a tone t in 0..1 picks between neighbours of a palette.
SKIN = ((0.98, 0.87, 0.79), (0.94, 0.78, 0.67), (0.85, 0.66, 0.53), (0.69, 0.49, 0.37), (0.46, 0.31, 0.24))
HAIR = ((0.10, 0.08, 0.09), (0.22, 0.14, 0.10), (0.38, 0.24, 0.15), (0.55, 0.31, 0.18), (0.83, 0.67, 0.42), (0.70,) * 3)
IRIS = ((0.20, 0.12, 0.08), (0.38, 0.23, 0.11), (0.27, 0.40, 0.24), (0.22, 0.42, 0.60))
CLOTH = ((0.20, 0.30, 0.45), (0.55, 0.20, 0.24), (0.22, 0.42, 0.36), (0.82, 0.80, 0.76), (0.16, 0.16, 0.18))
BACKDROP = ((0.62, 0.70, 0.78), (0.80, 0.76, 0.68), (0.56, 0.66, 0.58), (0.74, 0.62, 0.62), (0.36, 0.40, 0.46))
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def render(faces: FaceParameters, size: int) -> NDArray[np.uint8]:
    """Renders the faces: uint8 (N, 3, size, size), or (N, 1, size, size) when they are gray.

    Works through chunks small enough to stay in a core's cache; the images do not depend on the chunks.
    """
    images = np.empty((len(faces), 1 if faces.gray else 3, size, size), np.uint8)
    step = max(1, 16 * 48 * 48 // (size * size))
    for start in range(0, len(faces), step):
        images[start : start + step] = _Renderer(faces.chunk(start, start + step), size).image()
    return images


class _Renderer:
    """One chunk of faces on its way from parameters to pixels; the methods paint from the back to the front."""

    def __init__(self, faces: FaceParameters, size: int) -> None:
        self.n, self.size, self.gray = len(faces), size, faces.gray
        self.p = {name: column(values) for name, values in faces.identity.items()}  # each (n, 1, 1)
        self.s = {name: column(values) for name, values in faces.scene.items()}
        self.au = {unit: column(faces.units[:, i]) for i, unit in enumerate(UNITS)}  # each (n, 2, 1)
        both = {unit: values.mean(axis=1, keepdims=True) for unit, values in self.au.items()}
        self.both: dict[int, Array] = both  # each (n, 1, 1)
        self.drop = both[26] * 0.17  # how far the jaw has dropped
        self.colours = self._palette()
        tilt = faces.scene["tilt"] * (np.pi / 180)
        self.cos, self.sin = column(np.cos(tilt)), column(np.sin(tilt))
        yaw, nod = faces.scene["yaw"] * (np.pi / 180), faces.scene["nod"] * (np.pi / 180)
        self.yaw_cos, self.yaw_sin, self.nod = column(np.cos(yaw)), column(np.sin(yaw)), column(np.sin(nod) * 0.7)
        edge = 2 / size / self.s["scale"]
        self.sharpness = 1 / np.sqrt(edge * edge + (self.s["blur"] * 2.5) ** 2)
        x = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
        u, v = self._on_face(x[None, None, :], x[None, :, None])
        self.x = x
        self.canvas = Patch(np.empty((self.n, 1 if self.gray else 3, size, size), np.float32), u, v, self.sharpness)

    def image(self) -> NDArray[np.uint8]:
        """Paints everything: uint8 (n, C, size, size)."""
        self._background()
        self._behind()
        self._head()
        self._centre()
        for side in (0, 1):
            self._eye(side)
        self._mouth()
        self._glasses()
        self._occlusion()
        return self._develop()

    # -- places ---------------------------------------------------------------------------------------------------
    def _on_face(self, x: Array, y: Array) -> tuple[Array, Array]:
        """From the picture (-1..1) to the face, undoing shift, tilt and scale."""
        x, y = x - self.s["shift_x"], y - self.s["shift_y"]
        cos, sin = self.cos / self.s["scale"], self.sin / self.s["scale"]
        return cos * x + sin * y, cos * y - sin * x

    def _window(self, u: Array | float, v: Array | float, half_u: float, half_v: float) -> tuple[Patch, Places]:
        """The part of the canvas around (u, v) of the turned face, ±half_u × ±half_v or more, with turned places."""
        seen_u: Array = u * self.yaw_cos - np.sqrt(np.maximum(DEPTH**2 - u * u, 0)) * self.yaw_sin
        seen_v: Array = v - self.nod
        x = (self.cos * seen_u - self.sin * seen_v) * self.s["scale"] + self.s["shift_x"]
        y = (self.sin * seen_u + self.cos * seen_v) * self.s["scale"] + self.s["shift_y"]
        half = self.size / 2
        # Large enough for the most tilted, largest and most turned face here: nothing is cut off, so the size of the
        # window is not seen in the picture.
        cos, sin = self.cos.max(), np.abs(self.sin).max()
        growth = 1.04 * self.s["scale"].max() * (1 + 0.7 * np.abs(self.yaw_sin).max())
        w = min(self.size, int(self.size * (growth * (half_u * cos + half_v * sin) + 0.02)) + 2)
        h = min(self.size, int(self.size * (growth * (half_v * cos + half_u * sin) + 0.02)) + 2)
        left = np.clip(np.rint((x + 1) * half - w / 2), 0, self.size - w).astype(int).ravel()
        top = np.clip(np.rint((y + 1) * half - h / 2), 0, self.size - h).astype(int).ravel()
        corners = zip(top.tolist(), left.tolist(), strict=True)
        places = [(slice(row, row + h), slice(column, column + w)) for row, column in corners]
        pixels = np.stack([self.canvas.pixels[i, :, rows, columns] for i, (rows, columns) in enumerate(places)])
        x, y = self.x[left[:, None] + np.arange(w)], self.x[top[:, None] + np.arange(h)]
        seen_u, seen_v = self._on_face(x[:, None, :], y[:, :, None])
        turned = seen_u * self.yaw_cos + np.sqrt(np.maximum(DEPTH**2 - seen_u * seen_u, 0)) * self.yaw_sin
        return Patch(pixels, turned, seen_v + self.nod, self.sharpness), places

    def _put_back(self, patch: Patch, places: Places) -> None:
        for i, (rows, columns) in enumerate(places):
            self.canvas.pixels[i, :, rows, columns] = patch.pixels[i]

    # -- colours --------------------------------------------------------------------------------------------------
    def _palette(self) -> dict[str, Array]:
        p, s = self.p, self.s
        skin, hair = pick(SKIN, p["skin"]), pick(HAIR, p["hair"])
        rose = np.array([0.78, 0.25, 0.28], np.float32)
        colours = {
            "skin": skin,
            "hair": hair,
            "brow": 0.55 * hair + 0.12 * skin,  # darker than the skin, whatever the hair
            "lash": 0.25 * hair + 0.08 * skin,
            "lip": skin * 0.80 + (rose - skin * 0.62) * (0.25 + 0.4 * p["lip_tone"][:, 0]),
            "fold": skin * np.array([0.62, 0.48, 0.45], np.float32),
            "blush": skin * np.array([1.0, 0.72, 0.70], np.float32),
            "white": np.full_like(skin, 0.96) * (0.9 + 0.1 * skin),
            "iris": pick(IRIS, p["iris"]),
            "pupil": np.full_like(skin, 0.06),
            "throat": np.broadcast_to(np.array([0.28, 0.07, 0.09], np.float32), skin.shape),
            "tongue": np.broadcast_to(np.array([0.78, 0.36, 0.38], np.float32), skin.shape),
            "teeth": np.full_like(skin, 0.97),
            "cloth": pick(CLOTH, p["cloth"]),
            "frame": np.full_like(skin, 0.10) + 0.25 * p["frame_tone"][:, 0] * np.array([1.6, 0.9, 0.5], np.float32),
            "backdrop": pick(BACKDROP, s["backdrop"]) * s["backdrop_light"][:, 0],
            "far": pick(BACKDROP, s["far"]) * s["far_light"][:, 0],
            "cover": pick(CLOTH, s["cover_tone"]),
        }
        if self.gray:
            luma = np.array(LUMA, np.float32)
            colours = {name: (rgb * luma).sum(axis=1, keepdims=True) for name, rgb in colours.items()}
        return {name: rgb[:, :, None, None].astype(np.float32) for name, rgb in colours.items()}  # (n, C, 1, 1)

    # -- the parts, from back to front ------------------------------------------------------------------------------
    def _background(self) -> None:
        s, c, x = self.s, self.canvas, self.x
        slope = np.clip(0.5 + 0.5 * (s["far_x"] * x[None, None, :] + s["far_y"] * x[None, :, None]), 0, 1)
        blob = 1 - ((x[None, None, :] - s["blob_x"]) ** 2 + (x[None, :, None] - s["blob_y"]) ** 2) / s["blob_size"] ** 2
        alpha = slope + s["blob"] * np.clip(3 * blob, 0, 1) * (0.9 - slope)
        c.pixels[:] = self.colours["backdrop"] + (self.colours["far"] - self.colours["backdrop"]) * alpha[:, None]

    def _behind(self) -> None:
        """Hair behind the head, neck, shoulders and ears."""
        p, c, rgb = self.p, self.canvas, self.colours
        u, v = c.u, c.v
        across, u2 = np.abs(u), u * u
        # hair: a dome above, falling straight down to its length
        dome = np.minimum(v + 0.1, 0) / (p["crown"] - 0.1 + p["hair_volume"])
        curls = p["curl"] * (wave(6 * v) * np.minimum(4 * u2, 1) + 0.6 * wave(5 * u))
        depth = 1 - np.sqrt(u2 / (p["width"] + p["hair_volume"]) ** 2 + dome * dome) + curls
        self.hair = c.cover(depth * p["width"]) * c.cover(p["hair_length"] - 0.55 * u2 - v) * p["has_hair"]
        c.paint(self.hair, rgb["hair"] * 0.82)
        half = self.size // 2
        low = Patch(c.pixels[:, :, half:], u[:, half:], v[:, half:], c.sharpness)  # a view: paints on the canvas
        low.paint(low.cover(0.62 * p["width"] - across[:, half:]) * low.cover(low.v - 0.3), rgb["skin"] * 0.72)
        low.paint(low.cover(low.v - 1.0 - 0.25 * u2[:, half:]), rgb["cloth"])
        ear = 1 - np.sqrt(((across - p["width"] * 0.98) / 0.09) ** 2 + ((v - 0.08) / 0.17) ** 2)
        hidden = (p["hair_length"] > 0.2) * p["has_hair"]
        c.paint(c.cover(ear * 0.1) * (1 - hidden), rgb["skin"] * 0.88)

    def _head(self) -> None:
        """Skin, beard, and the hair before the forehead."""
        p, c, rgb = self.p, self.canvas, self.colours
        u, v, u2 = c.u, c.v, c.u * c.u
        # an ellipse above, a squarer and tapering one below (x² + y² - s·x²y² = 1, Fernández-Guasti 1992)
        below = (np.maximum(v, 0) / (p["chin"] + self.drop)) ** 2
        above = (np.minimum(v, 0) / p["crown"]) ** 2
        x2 = u2 / (p["width"] * (1 - p["taper"] * below)) ** 2
        q = x2 + below + above - p["jaw"] * np.minimum(x2, 1) * np.minimum(below, 1)
        head = c.cover((1 - np.sqrt(q)) * p["width"])
        c.paint(head, rgb["skin"])
        # round and lit: darker to the rim and away from the light
        light = 0.20 * np.minimum(q * q, 1.5) - self.s["light_x"] * u - self.s["light_y"] * v
        c.shade(light * head)
        beard = np.clip(12 * (v - 0.30 - p["beard_line"] + 0.62 * x2 * x2), 0, 1)  # leaves the cheeks free
        c.paint(beard * head * p["beard"], rgb["brow"])
        hairline = p["hairline"] + p["temples"] * u2 + p["parting"] * u + p["tufts"] * wave(4.5 * u + 1.5 * v)
        fringe = c.cover(hairline - v) * np.maximum(head, self.hair) * p["has_hair"]
        c.paint(fringe, rgb["hair"])
        sheen = 1 - ((v + p["crown"] * 0.82) / 0.10) ** 2 - 4 * (u + 0.15) ** 2
        c.shade(np.maximum(sheen, 0) * fringe * -0.35)

    def _centre(self) -> None:
        """Cheeks, forehead, nose."""
        p, a = self.p, self.both
        patch, places = self._window(0.0, -0.12, 0.56, 0.52)
        u, v = patch.u, patch.v
        across, u2 = np.abs(u), u * u
        # cheeks, rosier and higher with a smile
        cheek = 1 - ((across - 0.38) / 0.17) ** 2 - ((v - 0.26 + 0.05 * a[6]) / 0.15) ** 2
        patch.paint(np.maximum(cheek, 0) * (0.15 + 0.6 * a[6]), self.colours["blush"])
        # forehead: long wrinkles where the whole brow is raised, short ones where only its inner part is
        for above in (0.08, 0.18):
            crease = patch.line(v - (p["eye_y"] - p["brow_y"] - above + 0.25 * u2), 0.011)
            reach = patch.cover(0.16 + 0.26 * a[2] - across)
            patch.shade(crease * reach * (0.30 * np.minimum(a[1] + 0.3 * a[2], 1)))
        # frown: two upright lines between the brows
        height = 1 - ((v - p["eye_y"] + 0.12) / 0.10) ** 2
        frown = patch.line(across - 0.05, 0.012) * np.maximum(height, 0)
        patch.shade(frown * (0.55 * np.minimum(a[4] + 0.4 * a[9], 1)))
        self._nose(patch, across, u2)
        self._put_back(patch, places)

    def _nose(self, patch: Patch, across: Array, u2: Array) -> None:
        p, a, u, v = self.p, self.both, patch.u, patch.v
        tip = p["nose_y"] - 0.06 * a[9] - 0.02 * a[10]
        # bridge: its shaded side, turned away from the light
        side = np.where(self.s["light_x"] > 0, -u, u) - 0.045 - 0.08 * np.maximum(v - p["eye_y"], 0)
        bridge = patch.line(side, 0.022) * patch.between(p["eye_y"] - 0.02, tip - 0.03)
        patch.shade(bridge * 0.16)
        # wings, tip and nostrils
        wing = p["nose_w"] * (1 + 0.25 * a[9] + 0.1 * a[10] + 0.1 * a[12])
        ball = 1 - np.sqrt((u / wing) ** 2 + ((v - tip) / 0.085) ** 2)
        patch.shade(patch.cover(ball * 0.08) * 0.10)
        patch.shade(patch.line(ball * 0.08, 0.012) * patch.cover(v - tip + 0.01) * 0.35)
        gleam = 1 - (u2 + (v - tip + 0.045) ** 2) / 0.0022
        patch.shade(np.maximum(gleam, 0) * -0.12)
        hole = 1 - np.sqrt(((across - wing * 0.48) / 0.042) ** 2 + ((v - tip - 0.045) / 0.026) ** 2)
        patch.shade(patch.cover(hole * 0.03) * 0.5)
        # wrinkles across the bridge and beside it
        if a[9].any():
            for below in (0.02, 0.09, 0.16):
                crease = patch.line(v - (p["eye_y"] + below - 2.5 * u2), 0.012) * np.maximum(1 - u2 * 45, 0)
                patch.shade(crease * (0.65 * np.minimum(a[9], 1)))

    def _eye(self, side: int) -> None:
        """One eye with its lids and brow; side 0 is the person's left. In here u points outwards."""
        p, rgb = self.p, self.colours
        a = {unit: values[:, side : side + 1] for unit, values in self.au.items()}
        sign = np.float32(1 - 2 * side)
        patch, places = self._window(sign * p["eye_x"], p["eye_y"] - 0.10, 0.30, 0.32)
        u, v = patch.u * sign, patch.v
        # lids: an upper and a lower line that meet in the corners
        x = (u - p["eye_x"]) / p["eye_w"]
        x2, reach = np.minimum(x * x, 1), np.abs(x)
        arch = 1 - x2
        middle = p["eye_y"] - p["eye_tilt"] * p["eye_w"] * x + 0.02 * a[6] * x2
        open_up = np.maximum(1 + 0.62 * a[5] - 0.28 * a[7] - 0.22 * a[6] - 0.34 * a[9], 0.25)
        open_low = 0.72 + 0.12 * a[5] - 0.62 * a[7] - 0.85 * a[6] - 0.62 * a[9]
        upper = middle - p["eye_open"] * p["eye_w"] * open_up * arch
        lower = np.maximum(middle + p["eye_open"] * p["eye_w"] * open_low * arch, upper + 0.02)
        # socket, fold of the upper lid, and the bag that a raised cheek or a tight lid pushes up
        socket = arch - ((v - p["eye_y"] + 0.02) / 0.16) ** 2
        patch.shade(np.maximum(socket, 0) * 0.10)
        ends = patch.cover((1.05 - reach) * p["eye_w"])
        fold = patch.line(v - upper + 0.055 - 0.03 * a[5], 0.012)
        patch.shade(fold * ends * np.maximum(0.22 - 0.1 * a[5], 0))
        bag = patch.line(v - middle - 0.095 + 0.02 * a[6] + 0.07 * x2, 0.013)
        patch.shade(bag * patch.cover((0.95 - reach) * p["eye_w"]) * (0.06 + 0.30 * np.minimum(a[6] + 0.6 * a[7], 1)))
        inside = patch.between(upper, lower) * patch.cover((1 - reach) * p["eye_w"])
        patch.paint(inside, rgb["white"])
        self._iris(patch, u - p["eye_x"] - sign * self.s["gaze"], v - p["eye_y"] + 0.008, sign, inside)
        patch.paint(patch.line(v - upper, p["lash"]) * ends, rgb["lash"])
        patch.paint(patch.line(v - lower, 0.008) * ends * 0.55, rgb["fold"])
        self._brow(patch, u, a)
        self._put_back(patch, places)

    def _iris(self, patch: Patch, u: Array, v: Array, sign: np.float32, inside: Array) -> None:
        """Iris, pupil and a spark of light, which is on the same side of both eyes; u and v from the iris' middle."""
        size, rgb = self.p["iris_size"], self.colours
        r = np.sqrt(u * u + v * v)
        patch.paint(patch.cover(size - r) * inside, rgb["iris"])
        patch.paint(patch.cover(size * 0.5 - r) * inside, rgb["pupil"])
        spark = 0.022 - np.sqrt((u - sign * 0.03) ** 2 + (v + 0.03) ** 2)
        patch.paint(patch.cover(spark) * inside * 0.9, rgb["white"])

    def _brow(self, patch: Patch, u: Array, a: Mapping[int, Array]) -> None:
        """From the inner end (t = -1) to the outer (t = 1): the inner half obeys AU 1 and 4, the outer AU 2."""
        p = self.p
        along = (u - p["brow_x"] + 0.045 * a[4]) / p["brow_w"]
        t = np.clip(along, -1.2, 1.2)
        inner, outer = (1 - t) * 0.5, (1 + t) * 0.5
        rise = (0.165 * a[1] - 0.16 * a[4] - 0.09 * a[9]) * inner * inner
        rise += (0.125 * a[2] - 0.02 * a[4] - 0.03 * a[6]) * outer
        rise -= 0.030 * a[4] + 0.045 * a[9]
        rise += (p["brow_arch"] + 0.035 * a[2]) * (1 - t * t) + p["brow_tilt"] * t
        height = p["eye_y"] - p["brow_y"] - rise
        half = p["brow_thick"] * (1 - 0.55 * outer * outer)
        alpha = patch.line(patch.v - height, half) * patch.cover((1 - np.abs(along)) * p["brow_w"])
        patch.paint(alpha * 0.92, self.colours["brow"])

    def _mouth(self) -> None:
        """Mouth, folds beside it and chin. In here x runs from the middle of the mouth (0) to its corners (1)."""
        p, a = self.p, self.both
        patch, places = self._window(0.0, 0.56, 0.56, 0.40)
        across, left = np.abs(patch.u), patch.u > 0
        one = {unit: np.where(left, self.au[unit][:, :1], self.au[unit][:, 1:]) for unit in (12, 14, 15, 20)}
        middle = p["mouth_y"] + 0.025 * a[12] - 0.03 * a[10] - 0.012 * a[9] + 0.25 * self.drop - 0.02 * a[17]
        rounding = 0.36 * np.maximum(a[26] - 0.8 * a[20] - a[12], 0)  # a dropped jaw draws the corners in
        width = p["mouth_w"] * (1 + 0.24 * one[12] + 0.24 * one[20] - 0.10 * a[23] - rounding)
        corner = p["mouth_rest"] - 0.155 * one[12] - 0.05 * one[14] + 0.12 * one[15] + 0.02 * one[20] + 0.03 * a[17]
        self._folds(patch, across, one, width)
        self._lips(patch, across, width, middle, corner)
        self._put_back(patch, places)

    def _lips(self, patch: Patch, across: Array, width: Array, middle: Array, corner: Array) -> None:
        p, a, rgb, v = self.p, self.both, self.colours, patch.v
        x = across / width
        x2 = np.minimum(x * x, 1)
        arch, oval = 1 - x2, np.sqrt(1 - x2)
        line = middle + corner * x2
        part = np.maximum(a[25], np.minimum(a[26] * 1.5, 1))
        high = 0.030 * part + 0.055 * a[10] * (0.5 + 0.5 * part) + 0.075 * a[26] * (1 - 0.6 * a[20])
        low = 0.045 * part + 0.06 * a[12] * part + 0.050 * a[16] + 1.1 * self.drop
        upper, lower = line - high * oval, line + low * oval
        thin = np.maximum(1 - 0.62 * a[23] - 0.18 * a[12] - 0.15 * a[20], 0.25)
        top = upper - p["lip_up"] * thin * (1 - 0.3 * a[10]) * arch * (0.75 + 0.6 * x2)  # highest beside the middle
        bottom = lower + p["lip_low"] * thin * arch
        under = patch.line(v - bottom - 0.05 + 0.02 * a[17], 0.022) * patch.cover(0.6 * width - across)
        patch.shade(under * (0.12 + 0.30 * np.minimum(a[17] + 0.5 * a[15], 1)))
        ends = patch.cover((1 - x) * width)
        patch.paint(patch.between(top, bottom) * ends, rgb["lip"])
        patch.paint(patch.between(upper, lower) * ends, rgb["throat"])
        tongue = np.maximum(lower - 0.35 * (lower - upper) * arch, upper)
        patch.paint(patch.between(tongue, lower) * ends * (0.8 * np.minimum(self.drop * 9, 1)), rgb["tongue"])
        teeth = patch.cover((0.88 - x) * width)
        bite = np.minimum(upper + part * (0.025 + 0.075 * a[12] + 0.035 * a[20]) + 0.06 * a[10], lower)
        patch.paint(patch.between(upper, bite) * teeth, rgb["teeth"])
        bite = np.maximum(lower - 0.035 * a[16] - 0.03 * a[20] * part, upper)
        patch.paint(patch.between(bite, lower) * teeth * np.minimum(3 * (a[16] + a[20] * part), 1), rgb["teeth"])
        closed = patch.line(v - line, 0.012) * ends * np.clip(1 - 12 * (high + low), 0, 1)
        patch.paint(closed * 0.85, rgb["throat"])

    def _folds(self, patch: Patch, across: Array, one: Mapping[int, Array], width: Array) -> None:
        """Nasolabial folds, the dimple beside a corner pulled in (14), the bracket below one pulled down (15)."""
        p, a = self.p, self.both
        start, end = p["nose_y"] - 0.01, p["mouth_y"] + 0.02 - 0.06 * one[12]
        t = np.clip((patch.v - start) / (end - start), 0, 1)
        place = p["nose_w"] + 0.03 + (width + 0.07 - p["nose_w"]) * t * (0.55 + 0.45 * t)
        depth = 0.06 + np.minimum(0.34 * one[12] + 0.34 * a[10] + 0.30 * a[9] + 0.12 * a[6], 0.42)
        patch.shade(patch.line(across - place, 0.016) * patch.between(start, end) * depth)
        corner = p["mouth_y"] - 0.11 * one[12] - 0.03 * one[14] + 0.10 * one[15]
        bow = across - width - 0.045 + 3 * (patch.v - corner) ** 2
        dimple = patch.line(bow, 0.018) * patch.between(corner - 0.10, corner + 0.10)
        patch.shade(dimple * np.minimum(0.65 * one[14] + 0.2 * one[15], 0.6))

    def _glasses(self) -> None:
        p = self.p
        if not p["glasses"].any():
            return
        patch, places = self._window(0.0, p["eye_y"], 0.72, 0.26)
        across = np.abs(patch.u)
        x, y = (across - p["eye_x"]) / (p["eye_w"] * 1.42), (patch.v - p["eye_y"] - 0.025) / (p["eye_w"] * 1.22)
        x, y = x * x, y * y
        ring = 1 - np.sqrt(x + y - p["frame_square"] * np.minimum(x, 1.3) * np.minimum(y, 1.3))
        lens = patch.cover(ring * p["eye_w"]) * p["glasses"]
        patch.shade(lens * -0.06)
        frame = patch.line(ring * p["eye_w"] * 1.2, 0.016)
        bar = patch.line(patch.v - p["eye_y"] + 0.02, 0.014) * (ring < 0)
        frame = np.maximum(frame, bar * patch.cover(p["width"] * 0.92 - across))
        patch.paint(frame * p["glasses"], self.colours["frame"])
        self._put_back(patch, places)

    def _occlusion(self) -> None:
        """Something plain before the face: a bar with a round end that comes in from one direction."""
        s = self.s
        chosen = np.flatnonzero(s["covered"].ravel())
        if not len(chosen):
            return
        c = self.canvas
        cos, sin = s["cover_cos"][chosen], s["cover_sin"][chosen]
        x, y = self.x[None, None, :], self.x[None, :, None]
        along, beside = cos * x + sin * y, cos * y - sin * x - s["cover_aside"][chosen]
        part = Patch(c.pixels[chosen], along, beside, c.sharpness[chosen])
        r = s["cover_size"][chosen]
        away = np.maximum(s["cover_from"][chosen] + r - along, 0)
        alpha = part.cover(r - np.sqrt(away * away + beside * beside))
        part.paint(alpha, self.colours["cover"][chosen])
        part.shade(alpha * (0.25 * (beside / r) ** 2))
        c.pixels[chosen] = part.pixels

    def _develop(self) -> NDArray[np.uint8]:
        """Light, noise and grey levels."""
        s, x = self.s, self.x
        pixels = self.canvas.pixels
        pixels *= (s["gain"] * (1 + s["glow_x"] * x[None, None, :] + s["glow_y"] * x[None, :, None]))[:, None]
        if not self.gray:
            warmth = s["warmth"]
            pixels *= np.stack([1 + warmth, 0 * warmth + 1, 1 - warmth], axis=1)
        pixels += (noise(s["grain_x"], s["grain_y"], self.size) * s["noise"])[:, None]
        pixels *= 255
        pixels += 0.5
        return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
