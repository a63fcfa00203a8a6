"""`emobench morph`: one person from one emotion to another, as a film or a strip of pictures."""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emobench.commands.inputs import coloured, named, read_picture
from emobench.commands.pictures import Sheet, as_image, batches, check_new, larger, note, progress, row
from emobench.commands.runs import chosen
from emobench.data.readers.images import resized
from emobench.errors import EmobenchError, StoreError
from emobench.files import check_out, replacing

_SIDE = 256  # px of a film, at least: smaller faces are enlarged by whole pixels
_CODECS = {"vp09": "VP9", "mp4v": "MPEG-4"}  # in an MP4, the first of them that is there: browsers play VP9
_LIKE = 24  # grey levels by which frames that are read back may differ on average from what was written


def morph(
    run: str,
    begin: str,
    end: str,
    *,
    frames: int,
    out: Path,
    image: Path | None,
    seed: int,
    fps: float,
    back: bool,
    force: bool,
    results: Path,
) -> None:
    """Write a person's way from one emotion to another: the weights of the emotions go from one to the other.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        begin, end: emotions, in any of their usual spellings.
        frames: from `begin` to `end`, both among them.
        out: .gif or .mp4, which play, or .png, a strip.
        image: a picture of the person, who is edited; None: a face that is drawn.
        seed: of the noise, the same for all frames: it is who is drawn.
        back: and back again.

    Raises:
        StoreError: there is no such cell, its weights are gone, it does not draw or edit, or the file is there already
            or cannot be written.
        RowError: the picture cannot be read.
        EmobenchError: a wrong emotion, or another kind of file.
    """
    kind = out.suffix.lower()
    if kind not in (".gif", ".mp4", ".png"):
        raise EmobenchError(f"--out {out}: a morph is a .gif, an .mp4, or a strip of pictures, .png")
    check_out(out)
    check_new([out], force)
    network = chosen(results, run, "draw" if image is None else "edit")
    model, device = network.load()
    shares = np.linspace(0, 1, frames)
    first, last = row(begin, model.emotions), row(end, model.emotions)
    weights = torch.from_numpy(np.outer(1 - shares, first) + np.outer(shares, last)).float().to(device)  # (frames, K)
    face = None if image is None else resized(coloured(read_picture(image)), network.size)
    note(f"{'drawn' if image is None else 'edited'} by {network.described}")
    made = _frames(model, device, face, weights, seed)
    way = [*range(frames), *range(frames - 2, 0, -1)] if back else list(range(frames))
    film = [made[place] for place in way]
    if kind == ".png":
        names = [model.emotions[int(each.argmax())] for each in (first, last)]
        _write_strip(out, film, [shares[place] for place in way], *names)
        print(f"{len(film)} frames are in {out}")
        return
    times = max(1, math.ceil(_SIDE / model.size))
    times += times * model.size % 2  # a film's sides are even
    film = [larger(frame, times) for frame in film]
    how = _write_gif(out, film, fps) if kind == ".gif" else _write_mp4(out, film, fps)
    side = film[0].shape[1]
    who = f"the person of seed {seed}" if image is None else named(image)
    print(f"{len(film)} frames of {side} x {side} px, {how}, of {who} are in {out}")


def _frames(model: Any, device: torch.device, face: np.ndarray | None, weights: torch.Tensor, seed: int) -> np.ndarray:
    """uint8 (frames, 3, S, S): a face uint8 (3, S, S) edited to weights (frames, K), or one drawn for each."""
    made = []
    with progress(len(weights), "frames") as done:
        for part in batches(range(len(weights))):
            asked, seeds = weights[list(part)], torch.full((len(part),), seed, device=device)
            with torch.no_grad():
                if face is None:
                    made.append(model.sample(asked, seeds))
                else:
                    given = torch.from_numpy(face).to(device).expand(len(part), -1, -1, -1)
                    made.append(model.edit(given, asked, seeds))
            done(len(part))
    return torch.cat(made).cpu().numpy()


def _write_strip(path: Path, film: Sequence[np.ndarray], shares: Sequence[float], begin: str, end: str) -> None:
    """The frames beside each other, each with its share of the way."""
    sheet = Sheet(most=len(film))
    for frame, share in zip(film, shares, strict=True):
        sheet.add("", begin if share == 0 else end if share == 1 else f"{100 * share:.0f} %", frame)
    sheet.write(path)


def _write_gif(path: Path, film: Sequence[np.ndarray], fps: float) -> str:
    """A GIF that begins again at its end; says how it plays. A picture that stays is one frame that is shown longer."""
    hundredths = max(2, round(100 / fps))  # of a second, the unit of the format; players take below 2 for 10
    images = [as_image(frame) for frame in film]
    # Without dithering, whose dots would change from frame to frame.
    images = [each.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE) for each in images]
    with replacing(path) as temporary:
        options: dict[str, Any] = {"save_all": True, "append_images": images[1:], "loop": 0, "optimize": False}
        images[0].save(temporary, "GIF", duration=10 * hundredths, **options)
    return f"{100 / hundredths:.3g} a second"


def _write_mp4(path: Path, film: Sequence[np.ndarray], fps: float) -> str:
    """An MP4, read back; says how it plays.

    Raises:
        StoreError: this OpenCV writes none that it can read again.
    """
    said = []
    for codec, name in _CODECS.items():
        with tempfile.TemporaryDirectory() as folder:
            film_file = Path(folder) / "film.mp4"  # by whose suffix OpenCV knows the container
            wrong = _encode(film_file, film, fps, codec) or _unlike(film_file, film)
            if wrong is None:
                with replacing(path) as temporary:
                    shutil.copyfile(film_file, temporary)
                return f"{fps:g} a second, {name}"
            said.append(f"{name}: {wrong}")
    raise StoreError(f"--out {path}: no MP4 can be written here ({'; '.join(said)}). Write a .gif instead")


def _encode(path: Path, film: Sequence[np.ndarray], fps: float, codec: str) -> str | None:
    """Why a film cannot be written; None: it is."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says is said by the command
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, film[0].shape[:0:-1])
    if not writer.isOpened():
        return "not in this OpenCV"
    for frame in film:
        writer.write(np.ascontiguousarray(frame.transpose(1, 2, 0)[..., ::-1]))
    writer.release()
    return None


def _unlike(path: Path, film: Sequence[np.ndarray]) -> str | None:
    """What is wrong with a film that was written; None: nothing."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    for place in itertools.count():
        good, frame = capture.read()
        if not good:
            capture.release()
            return None if place == len(film) else f"{place} of {len(film)} frames can be read again"
        if place < len(film):
            apart = np.abs(frame[..., ::-1].astype(np.int16) - film[place].transpose(1, 2, 0)).mean()
            if apart > _LIKE:
                return f"frame {place} is another picture when it is read again"
    return None
