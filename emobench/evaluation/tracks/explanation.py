"""Explanation: where a classifier looks, and whether that is where a drawn face shows its emotion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emobench.errors import NotExplained, RawError
from emobench.evaluation.protocol import CHOICE_SEED, READ_BATCH
from emobench.evaluation.tracks.track import (
    Column,
    Estimates,
    Floats,
    Key,
    MeasuredCell,
    Metric,
    Track,
    digest,
    people,
    table_of,
)
from emobench.evaluation.values import Value
from emobench.metrics import intervals
from emobench.metrics.attention import area_of, area_under, curves, order, share_within, upsampled

if TYPE_CHECKING:
    from emobench.data.datamodule import EmotionDataModule

METRICS: tuple[Metric, ...] = ()
POINTS = 17  # of a deletion or insertion curve, from no pixel to all
PICTURED = 4  # faces of each emotion in the picture
_MEAN_OF = 2000  # training faces whose mean takes the place of what is deleted
_SHARES = ("attention", "attention_random")  # columns of the raw table: shares of a map within the face's region
_CURVES = ("deletion", "deletion_random", "insertion", "insertion_random")
_BESIDE = {  # attention_on_units: metric -> heading
    "attention_on_units_random": "random weights",
    "attention_over_random": "above random weights",
    "attention_over_permuted": "above permuted labels",
    "attention_share": "share of attention",
    "units_area": "share of area",
    "deletion": "deletion ↓",
    "deletion_random": "deletion by random weights",
    "insertion": "insertion ↑",
    "insertion_random": "insertion by random weights",
}
_ROUNDING = 1e-6  # of a share, and of a number that is computed again
UNREAD = -1  # the prediction of a face of which nothing was asked
NOT_DRAWN = "nobody knows where the action units of real faces are"


@dataclass(frozen=True)
class Explained:
    """The maps of one cell.

    Attributes:
        faces: a row a face: what was read, how much of its map lies where its emotion is shown, its curves.
        arrays: `maps` (N, g, g), `deletion` and `insertion` (N, P), by the rows of `faces`; empty: there is no map.
        pictures: uint8 (rows, columns, 3, S, S) by kind, and whether real faces are to be seen in it.
        value: `attention_on_units` of all faces.
    """

    faces: pd.DataFrame
    value: Value
    arrays: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)
    pictures: Mapping[str, tuple[NDArray[np.uint8], bool]] = field(default_factory=dict)


def measure(model: Any, untrained: Any, data: EmotionDataModule, settings: Mapping[str, Any]) -> Explained:
    """Makes the maps of some test faces, the same ones for all rows, each for the emotion that is read in it.

    Args:
        untrained: a network of the same architecture as it begins its training; None: nothing here builds one.
        settings: of the suite's `[explain]`.
    """
    from emobench.attribution.explainer import Explainer

    rows = _chosen(data, settings["per_emotion"])
    faces = data.faces.loc[rows, ["id", "subject", "label"]].reset_index(drop=True)
    faces.insert(0, "index", rows)
    images = np.array(np.broadcast_to(data.images[rows], (len(rows), 3, data.size, data.size)))  # which torch may take
    given = _tensor(model, images)
    how = settings["head_fusion"], settings["discard_ratio"]
    empty = dict.fromkeys(("area", *_SHARES, *_CURVES), np.full(len(rows), np.nan))
    try:
        explainer = Explainer(model, given[:1], *how)
    except NotExplained as error:
        unread = faces.assign(prediction=UNREAD, probability=np.float32(np.nan), method="", **empty)
        return Explained(unread, Value(None, len(rows), str(error)))
    shares = _shares(model, images)
    read = shares.argmax(1)
    cells = explainer.maps(given, read.tolist())
    maps = {"": upsampled(cells, data.size)}
    if untrained is not None:
        guess = _shares(untrained, images).argmax(1).tolist()
        maps["_random"] = upsampled(Explainer(untrained, given[:1], *how).maps(given, guess), data.size)
    regions = _regions(data, data.faces.loc[rows])
    faces = faces.assign(prediction=read, probability=shares.max(1).astype(np.float32), method=explainer.described)
    faces = faces.assign(**{**empty, **_within(regions, maps)})
    faded = _faded(_answering(model, read), images, _mean_face(data), maps)
    faces = faces.assign(**{name: area_under(curve) for name, curve in faded.items()})
    arrays: dict[str, NDArray[Any]] = {"maps": cells, "deletion": faded["deletion"], "insertion": faded["insertion"]}
    drawn, classes = regions is not None, len(data.emotions)
    pictures = {
        "explained": (_with_maps(faces, images, maps[""], classes), not drawn),
        "means": (_mean_maps(faces, images if drawn else None, maps[""], classes), False),
    }
    return Explained(faces, _value(faces), {name: of.astype(np.float16) for name, of in arrays.items()}, pictures)


def _within(regions: NDArray[np.bool_] | None, maps: Mapping[str, Floats]) -> dict[str, NDArray[np.float64]]:
    """(N,) each, the area of the regions and the share of each map in them; empty: the faces are not drawn."""
    if regions is None:
        return {}
    shares = {f"attention{whose}": share_within(of, regions) for whose, of in maps.items()}
    return {"area": area_of(regions), **shares}


def _faded(
    answer: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    images: NDArray[np.uint8],
    mean: NDArray[np.uint8],
    maps: Mapping[str, Floats],
) -> dict[str, NDArray[np.float64]]:
    """(N, P) each, the deletion and the insertion curve in the order of each map."""
    found: dict[str, NDArray[np.float64]] = {}
    for whose, of in maps.items():
        deleted, inserted = curves(answer, images, mean, order(of, CHOICE_SEED), POINTS)
        found |= {f"deletion{whose}": deleted, f"insertion{whose}": inserted}
    return found


def _chosen(data: EmotionDataModule, each: int) -> NDArray[np.int64]:
    """Rows of the test split, `each` of every emotion as far as there are so many, by lot."""
    test = data.faces[data.faces["split"] == "test"]
    random = np.random.default_rng(CHOICE_SEED)
    of = [random.permutation(test.index[test["label"] == k].to_numpy())[:each] for k in range(len(data.emotions))]
    return np.sort(np.concatenate(of)).astype(np.int64)


def _tensor(model: Any, images: NDArray[np.uint8]) -> Any:
    """Faces where a model is."""
    import torch

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return torch.from_numpy(images).to(device)


def _shares(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, K) what a model says of faces uint8 (N, 3, S, S)."""
    from emobench.evaluation.predict import predict

    return predict(model, images, READ_BATCH)[0]


def _answering(model: Any, read: NDArray[np.int64]) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """The probability of what was read in each face."""
    return lambda faces: _shares(model, np.ascontiguousarray(faces))[np.arange(len(read)), read]


def _regions(data: EmotionDataModule, rows: pd.DataFrame) -> NDArray[np.bool_] | None:
    """(N, S, S) where drawn faces show their emotion; None: the faces are not drawn."""
    from emobench.data.datasets.synthetic import Synthetic
    from emobench.data.drawn.regions import emotion_regions

    return emotion_regions(data, rows) if isinstance(data, Synthetic) else None


def _mean_face(data: EmotionDataModule) -> NDArray[np.uint8]:
    """uint8 (3, S, S) the mean of training faces."""
    train = np.flatnonzero(data.faces["split"] == "train")
    some = np.sort(np.random.default_rng(CHOICE_SEED).permutation(train)[:_MEAN_OF])
    mean = np.rint(np.asarray(data.images[some]).mean(0)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(mean, (3, *mean.shape[1:])))


def _value(faces: pd.DataFrame) -> Value:
    """How much more of the maps lies where emotions are shown than of the faces' area."""
    if faces["area"].isna().all():
        return Value(None, len(faces), NOT_DRAWN)
    known = faces[(faces["area"] > 0) & faces["attention"].notna()]
    if known.empty:
        return Value(None, len(faces), "every map is 0 everywhere")
    return Value(float(known["attention"].sum() / known["area"].sum()), len(known))


# Pictures


def _with_maps(
    faces: pd.DataFrame, images: NDArray[np.uint8], maps: Floats, classes: int
) -> NDArray[np.uint8]:  # (K, 2·PICTURED, 3, S, S)
    """A line an emotion: faces, each beside itself under its map."""
    from emobench.attribution.overlays import overlaid

    blank = np.full((2, *images.shape[1:]), 127, np.uint8)
    lines = []
    for k in range(classes):
        mine = np.flatnonzero(faces["label"] == k)[:PICTURED]
        pairs = [np.stack([images[i], overlaid(images[i : i + 1], maps[i : i + 1])[0]]) for i in mine]
        lines.append(np.concatenate([*pairs, *[blank] * (PICTURED - len(mine))]))
    return np.stack(lines)


def _mean_maps(
    faces: pd.DataFrame, images: NDArray[np.uint8] | None, maps: Floats, classes: int
) -> NDArray[np.uint8]:  # (K, 2, 3, S, S)
    """A line an emotion: the mean map of right and of wrong answers, over the mean of these faces, or alone."""
    from emobench.attribution.overlays import overlaid

    whole = maps.sum((1, 2), keepdims=True)
    each = np.divide(maps, whole, out=np.zeros(maps.shape), where=whole > 0)  # every face counts alike
    right = (faces["prediction"] == faces["label"]).to_numpy()
    lines = []
    for k in range(classes):
        for of in (right, ~right):
            mine = np.flatnonzero((faces["label"] == k).to_numpy() & of)
            if not len(mine):
                lines.append(np.full((3, *maps.shape[1:]), 127, np.uint8))
                continue
            mean = None if images is None else np.rint(images[mine].mean(0, keepdims=True)).astype(np.uint8)
            lines.append(overlaid(mean, each[mine].mean(0, keepdims=True))[0])
    return np.stack(lines).reshape(classes, 2, 3, *maps.shape[1:])


# Reading


@dataclass(frozen=True)
class Looks:
    """What one cell's maps say, a row a face."""

    cell: MeasuredCell
    faces: pd.DataFrame  # sorted by index

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.cell.emotions


class Explanation(Track):
    """Where classifiers look; nobody is ranked by it."""

    name = "explanation"
    title = "Explanation: where a classifier looks"
    raw = "explanations"
    whole_samples = False
    headline = Key("attention_on_units")
    measure = staticmethod(measure)  # type: ignore[assignment]
    metrics = METRICS
    columns = (
        Column("attention on units", Key("attention_on_units")),
        *(Column(heading, Key(metric), optional=True) for metric, heading in _BESIDE.items()),
    )
    by_emotion = (("attention_on_units", "attention on units"),)
    gains: ClassVar[tuple[tuple[Key, str], ...]] = (
        (Key("attention_over_random"), "looks as with random weights"),
        (Key("attention_over_permuted"), "looks as with permuted labels"),
    )
    pictures: ClassVar[dict[str, str]] = {
        "explained": "test faces, each beside itself under its map",
        "means": "mean maps of right answers (left) and wrong ones",
    }
    meaning = (
        "Explanation: attention rollout of Vision Transformers, Grad-CAM of convolutional networks from their deepest "
        "layer of at least 8 × 8 cells. *Attention on units* is the share of the maps that lies where a drawn face "
        "shows its emotion, over the share of the area that this takes: 1 is as if a network looked everywhere alike. "
        "Beside it the same of that architecture with random weights, and of `control:permuted`. *Deletion* and "
        "*insertion*: the mean probability of what was read while the pixels that the map puts first give way to "
        "those of the mean face, or come in their place; beside it in the order of the map of random weights.",
    )

    @classmethod
    def measures(cls, model: type) -> bool:
        return False  # by itself: a suite with [explain] has cells of their own for it

    def read(self, cell: MeasuredCell) -> Looks:
        with table_of(cell.path) as table:
            faces = table.sort_values("index", ignore_index=True)
            numbers = faces[["area", *_SHARES, *_CURVES]].to_numpy(np.float64)
            labels = faces[["label", "prediction"]].to_numpy(np.int64)
        if len(faces) == 0 or faces["index"].duplicated().any():
            raise RawError(cell.path, "no test faces, or one twice")
        inside = ((labels >= (0, UNREAD)) & (labels < len(cell.emotions))).all()
        if not inside or (numbers < -_ROUNDING).any() or (numbers > 1 + _ROUNDING).any():
            raise RawError(cell.path, "shares or labels lie outside of what they can be")
        claimed, found = cell.values.get("attention_on_units"), _value(faces)
        if claimed is not None and claimed.value is not None and abs(claimed.value - (found.value or 0.0)) > _ROUNDING:
            raise RawError(cell.path, f"gives attention_on_units {found.value}, but result.json says {claimed.value}")
        return Looks(cell, faces)

    def same(self, faces: Looks) -> object:
        """Protocol, emotions, faces and their labels."""
        return faces.cell.same, faces.emotions, digest(faces.faces)

    def estimates(self, cells: Sequence[Looks]) -> list[list[Estimates]]:
        """Whole people are resampled where they are known; the same ones for all cells."""
        permuted = next((cell for cell in cells if cell.cell.control == "permuted"), None)
        return [[_estimates(cell, permuted)] for cell in cells]


# Numbers: all follow from sums over faces, so that whole people can be resampled


_WHOLE = tuple(map(Key, ("attention_on_units", *_BESIDE)))


def _estimates(looks: Looks, permuted: Looks | None) -> Estimates:
    """All numbers of one network; `permuted`: the one of permuted labels, on the same faces."""
    faces = looks.faces
    groups, labels = people(faces["subject"]), faces["label"].to_numpy(np.int64)
    scopes = [np.ones(len(faces), bool), *(labels == k for k in range(len(looks.emotions)))]
    of = _sums(faces, None if permuted is None or permuted is looks else permuted.faces)  # (N, C)
    columns = np.concatenate([np.where(scope[:, None], of, 0.0) for scope in scopes], 1)
    units = intervals.grouped(columns[None], groups)

    def statistic(sums: intervals.Floats) -> intervals.Floats:
        each = np.asarray(sums, np.float64).reshape(*sums.shape[:-1], len(scopes), of.shape[1])
        return np.concatenate([_numbers(each[..., 0, :]), _ratio(each[..., 1:, 0], each[..., 1:, 1])], -1)

    keys = (*_WHOLE, *(Key("attention_on_units", emotion) for emotion in looks.emotions))
    values = statistic(units.sum(1))[0]
    places = [0] * len(_WHOLE) + list(range(1, len(scopes)))  # of each key, its scope
    whose = np.arange(len(faces)) if groups is None else groups
    rests_on = np.array([len(np.unique(whose[scope])) for scope in scopes], np.float64)[places]
    signed = np.array([key.metric.startswith("attention_over") for key in keys])
    return Estimates(
        keys,
        values,
        intervals.bootstrap(units, statistic)[:, 0],
        units.shape[1],
        "faces" if groups is None else "people",
        tuple(int(scopes[place].sum()) for place in places),
        np.where(signed, -np.inf, 0.0),
        np.full(len(keys), np.inf),
        tuple(
            _note(looks, permuted, key) if np.isnan(value) else None for key, value in zip(keys, values, strict=True)
        ),
        rests_on,
    )


def _sums(faces: pd.DataFrame, permuted: pd.DataFrame | None) -> Floats:
    """(N, 7 + 8) what each face adds: of three networks the share of attention and of area, of the first their number
    too, and of each curve its height and number.

    A neutral face, and one whose map is 0 everywhere, adds nothing to a network's shares.
    """
    area = faces["area"].to_numpy(np.float64)
    maps = [faces["attention"], faces["attention_random"], *([] if permuted is None else [permuted["attention"]])]
    shares = np.full((3, len(faces)), np.nan)
    shares[: len(maps)] = maps
    known = ~np.isnan(shares) & (area > 0)
    of_maps = np.where(known, [shares, np.broadcast_to(area, shares.shape)], 0.0)  # (2, 3, N)
    heights = faces[list(_CURVES)].to_numpy(np.float64)
    of_curves = np.stack([np.nan_to_num(heights), ~np.isnan(heights)], -1).reshape(len(faces), -1)
    return np.concatenate([of_maps.transpose(2, 1, 0).reshape(len(faces), -1), known[:1].T, of_curves], 1)


def _numbers(sums: Floats) -> Floats:
    """(..., 15) sums to the numbers of `_WHOLE`."""
    own, random, permuted = (_ratio(sums[..., 2 * k], sums[..., 2 * k + 1]) for k in range(3))
    means = [_ratio(sums[..., k], sums[..., 6]) for k in range(2)]
    heights = [_ratio(sums[..., k], sums[..., k + 1]) for k in range(7, sums.shape[-1], 2)]
    return np.stack([own, random, own - random, own - permuted, *means, *heights], -1)


def _ratio(total: Floats, of: Floats) -> Floats:
    return np.divide(total, of, out=np.full_like(total, np.nan), where=of > 0)


def _note(looks: Looks, permuted: Looks | None, key: Key) -> str:
    """Why there is no number."""
    value = looks.cell.values.get("attention_on_units")
    if value is not None and value.reason is not None:
        return value.reason
    if key.metric == "attention_over_permuted" and (permuted is None or permuted is looks):
        return "the board has no network of permuted labels" if permuted is None else "it is that network"
    if key.emotion:
        return "no map of a face that moves an action unit"
    return "no network with random weights to compare it with"
