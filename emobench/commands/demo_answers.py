"""What the page of `emobench demo` answers: pictures read, faces drawn and edited, networks beside each other."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emobench.commands.detect import CascadeDetector
from emobench.commands.edit import edited, is_square
from emobench.commands.generate import drawn
from emobench.commands.inputs import coloured, read_picture
from emobench.commands.pictures import Sheet, at_intensity, larger, requests, understood
from emobench.commands.predict import Face, cut_out, read_faces
from emobench.commands.runs import Run
from emobench.cues.reader import Cue, CueReader
from emobench.cues.request import weights_of
from emobench.data.readers.images import resized
from emobench.errors import EmobenchError, RowError

_KEPT = 8  # networks in memory
_SIDE = 256  # px to which small faces are enlarged, by whole pixels
_SEEDS = 2**53  # from here on a browser's numbers are no longer all whole ones
Pictures = list[tuple[np.ndarray, str]]  # uint8 (3, h, w), each with its caption


@dataclass(frozen=True)
class Reading:
    """What a classifier says of a face.

    Attributes:
        name: of the classifier, or of the face among several; "": there is one.
        face: uint8 (3, S, S), as the classifier was given it.
        shares: the probability of each emotion that it knows.
    """

    name: str
    face: np.ndarray
    shares: dict[str, float]

    @property
    def emotion(self) -> str:
        """The likeliest."""
        return max(self.shares, key=lambda emotion: self.shares[emotion])


class Answers:
    """Finished networks, asked by whoever uses the page; whatever cannot be answered is an EmobenchError that says why.

    A network is loaded when it is first asked, and the last few are kept.

    Args:
        offered: verb -> the networks that do it, by their names on the page.
    """

    def __init__(self, offered: Mapping[str, Mapping[str, Run]]) -> None:
        self.offered = offered
        self._loaded = functools.lru_cache(maxsize=_KEPT)(Run.load)
        self._detector = functools.cache(_detector)
        self._reader = functools.cache(CueReader)

    def emotions(self, verb: str) -> list[str]:
        """Those that the networks that do something know, one or the other of them."""
        return list(dict.fromkeys(each for run in self.offered[verb].values() for each in run.emotions))

    def read(self, picture: Path | None, reader: str, find: bool) -> tuple[list[Reading], str]:
        """What a classifier says of each face in a picture, the largest first, and who says it.

        Args:
            picture: a file; None: none was chosen.
            find: look for faces; else the whole picture is one.
        """
        run = self._run("read", reader)
        faces = list(self._faces(picture, find))
        names = [f"face {number}" for number in range(1, len(faces) + 1)] if len(faces) > 1 else [""]
        return self._readings(run, faces, names), f"Read by {run.described}."

    def read_by_all(self, picture: Path | None, readers: Sequence[str], find: bool) -> tuple[list[Reading], str]:
        """What several classifiers say of a picture's face, the largest where there are several."""
        if not readers:
            raise EmobenchError("Choose a classifier, or several.")
        face = next(self._faces(picture, find))
        readings = [each for name in readers for each in self._readings(self._run("read", name), [face], [name])]
        told = {each.emotion for each in readings}
        return readings, "All say the same emotion." if len(told) == 1 < len(readings) else ""

    def draw(
        self, maker: str, shares: Mapping[str, float], intensity: float, seed: int | None, n: int
    ) -> tuple[Pictures, str]:
        """Faces of a mixture of emotions, from as many seeds.

        Args:
            shares: of the emotions, in any measure; those that the network does not know are left out.
            intensity: t of (1 - t) neutral + t mixture; passed over by a network that knows no neutral face.
            seed: of the first face, the others count on from there; None: the field was emptied.
        """
        run = self._run("draw", maker)
        weights = np.array([shares.get(emotion, 0.0) for emotion in run.emotions], np.float64)
        if not weights.sum() > 0:
            raise EmobenchError(f"No emotion is asked for. Move a slider: {maker} knows {', '.join(run.emotions)}.")
        weights /= weights.sum()
        t = _intensity(run, intensity)
        words = ", ".join(
            f"{emotion} {100 * share:.0f} %" for emotion, share in zip(run.emotions, weights, strict=True) if share
        )
        strength = f", at {100 * t:.0f} % from neutral" if t < 1 else ""
        faces = self._drawn(run, at_intensity(weights.astype(np.float32), t, run.emotions), seed, n)
        return _shown(faces), f"{words}{strength}. Drawn by {run.described}."

    def draw_text(self, maker: str, text: str, seed: int | None, n: int) -> tuple[Pictures, str, Cue]:
        """Faces that a sentence tells of, and how it was understood."""
        run = self._run("draw", maker)
        cue = self._reader().read(text)
        faces = self._drawn(run, weights_of(cue, run.emotions).astype(np.float32), seed, n)
        return _shown(faces), f"{'; '.join(understood(text, cue, run.emotions))}. Drawn by {run.described}.", cue

    def draw_by_all(
        self, makers: Sequence[str], emotion: str, intensity: float, seed: int | None, n: int
    ) -> tuple[np.ndarray, str]:
        """The faces that several generators draw of one emotion from the same seeds: a line of them for each.

        Returns:
            The picture of all, uint8 (3, h, w), and who was left out.
        """
        sheet, lacking = Sheet(), []
        for name in makers:
            run = self._run("draw", name)
            if emotion not in run.emotions:
                lacking.append(name)
                continue
            (request,) = requests([emotion], [], _intensity(run, intensity), run.emotions)
            for face, caption in self._drawn(run, request.weights, seed, n):
                sheet.add(name, caption, face)
        left_out = f"Without {', '.join(lacking)}, which cannot show {emotion}." if lacking else ""
        if not sheet.lines:
            raise EmobenchError(left_out or "Choose a generator, or several.")
        return sheet.drawn(), left_out

    def edit(
        self, picture: Path | None, editor: str, emotions: Sequence[str], intensity: float, seed: int | None, find: bool
    ) -> tuple[Pictures, str]:
        """A picture's face as it is, the largest where there are several, and edited to each of some emotions."""
        run = self._run("edit", editor)
        if not emotions:
            raise EmobenchError("Choose an emotion, or several.")
        wanted = requests(emotions, [], _intensity(run, intensity), run.emotions)
        face = next(self._faces(picture, find))
        model, device = self._loaded(run)
        given = coloured(resized(face, run.size))
        ((_, _, made),) = edited(model, device, [(Path(), given)], wanted, _seed(seed))
        captions = [each.caption for each in wanted]
        squeezed = "" if is_square(face) else " The picture is not square, so squeezed into one: find the face first."
        pictures = [(given, "as given"), *zip(made, captions, strict=True)]
        return _shown(pictures), f"Edited by {run.described}.{squeezed}"

    def _run(self, verb: str, name: str) -> Run:
        """The network of a name; the page offers no other."""
        if name not in self.offered[verb]:
            raise EmobenchError("Choose a network.")
        return self.offered[verb][name]

    def _readings(self, run: Run, faces: Sequence[np.ndarray], names: Sequence[str]) -> list[Reading]:
        """What a classifier says of faces uint8 (C, h, w)."""
        given = [Face({}, coloured(resized(face, run.size))) for face in faces]
        model, device = self._loaded(run)
        rows = read_faces(model, device, given)
        return [
            Reading(name, each.pixels, {emotion: row[emotion] for emotion in model.emotions})
            for name, each, row in zip(names, given, rows, strict=True)
            if each.pixels is not None
        ]

    def _drawn(self, run: Run, weights: np.ndarray, seed: int | None, n: int) -> Pictures:
        """Faces of weights float32 (K,), as they are made."""
        first = _seed(seed)
        seeds = range(first, first + int(n))
        faces = drawn(*self._loaded(run), weights, seeds)
        return [(face, f"seed {each}") for face, each in zip(faces, seeds, strict=True)]

    def _faces(self, picture: Path | None, find: bool) -> Iterator[np.ndarray]:
        """The faces in a picture, the largest first, at least one: uint8 (C, h, w)."""
        if picture is None:
            raise EmobenchError("Choose a picture, or take one by the camera.")
        try:
            for _, face in cut_out(picture, read_picture(picture), self._detector() if find else None):
                if face is None:
                    raise EmobenchError(
                        "No face was found in this picture. Where it shows a face alone, read it whole."
                    )
                yield face
        except RowError as error:  # whose path and advice are of a file that is kept
            raise EmobenchError(f"{picture.name}: {error.found}. Choose another picture.") from None


def _detector() -> CascadeDetector:
    try:
        return CascadeDetector()
    except EmobenchError:  # which names options of `predict`
        raise EmobenchError("To find faces, pip install 'emobench[detect]' and start the demo again.") from None


def _intensity(run: Run, asked: float) -> float:
    """Where a network knows no neutral face, there is nothing to begin from."""
    return asked if "neutral" in run.emotions else 1.0


def _seed(seed: int | None) -> int:
    if seed is None or not 0 <= seed < _SEEDS:
        raise EmobenchError(f"The seed is a whole number from 0 on, below {_SEEDS:,}.")
    return int(seed)


def _shown(faces: Pictures) -> Pictures:
    """Faces uint8 (3, S, S) at a size at which people see them."""
    return [(larger(face, max(1, round(_SIDE / face.shape[-1]))), caption) for face, caption in faces]
