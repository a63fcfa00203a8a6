"""`predictions:FILE`: what some classifier said of a dataset's test faces, as a table; nothing is run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from emobench.classifiers.outside import NO_EMOTION, OutsideClassifier, _labels
from emobench.emotions import EMOTIONS, canonical, is_emotion
from emobench.errors import SuiteError, WeightsError, first_line, unknown
from emobench.recipe import Count

if TYPE_CHECKING:
    import pandas as pd

FACES = ("id", "path", "source_row")  # by which a face is named
ANSWERS = ("label", "prediction", "emotion")  # columns of one class a face
_PREFIXES = ("", "p_", "prob_", "probability_")  # of columns of probabilities
_SUM = 1e-3  # by which probabilities may miss 1
_SHOWN = 5  # rows that an error names


@dataclass(frozen=True)
class Answers:
    """What a file says of faces.

    Attributes:
        labels: the classes that occur in it, in their own order.
        own: (N,) which of them each face was read as; −1: the file does not hold the face.
        shares: (N, M) their probabilities; None: it says classes alone.
    """

    labels: tuple[str, ...]
    own: np.ndarray
    shares: np.ndarray | None


class Predictions(OutsideClassifier):
    """The answers of a classifier that is not at hand: CSV, Parquet or JSON lines, a row a test face.

    A face is named by `id`, `path` or `source_row`, as `emobench data faces` lists them; an answer is a class
    (`label`, `prediction` or `emotion`) or a probability an emotion, in columns of their names.

    Args:
        file: path of the file.
        labels: classes in the order of the numbers that stand for them in the file.
        partial: faces may lack; they count as wrong, and the row is never ranked.
    """

    name = "predictions"
    family = "file"
    files = ("file",)
    source = "the file's own"

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        file: str,
        labels: list[str] | None = None,
        partial: bool = False,
        batch: Count = 64,
    ) -> None:
        super(OutsideClassifier, self).__init__(emotions=emotions, size=size)
        self.said = None  # type: ignore[assignment]  # nothing is done to faces
        table(file)

    @classmethod
    def argument_defaults(cls) -> Any:
        return {}

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], size: int) -> Any:
        if arguments.get("labels"):
            _labels([str(each) for each in arguments["labels"]], None, given=True)
        table(arguments["file"])
        return None

    @classmethod
    def has_features(cls) -> bool:
        return False

    def own(self, pixels: Tensor) -> Tensor:
        raise SuiteError(f"predictions:{self.title(self.hparams)} reads no faces: it has answers to test faces alone")

    def forward(self, images: Tensor) -> Tensor:
        return self.own(images)

    def answers(self, faces: pd.DataFrame) -> Answers:
        """What the file says of the faces of a dataset's index (`id`, `source`), in their order.

        Raises:
            SuiteError: a row is of no such face, a face has two, an answer means nothing, or faces lack.
        """
        file, found = self.hparams["file"], table(self.hparams["file"])
        places = _places(file, found, faces)
        own = np.full(len(faces), -1, np.int64)
        columns = _columns(file, found)
        if columns:
            labels, names = tuple(columns), list(columns.values())
            values = found[names].apply(_number).to_numpy(np.float64)
            _check_shares(file, values)
            shares = np.full((len(faces), len(labels)), 1 / len(labels))
            shares[places] = values / values.sum(1, keepdims=True)
            own[places] = values.argmax(1)
        else:
            labels, said = _classes(file, found, self.hparams["labels"])
            shares, own[places] = None, said
        lacking = np.flatnonzero(own < 0)
        if len(lacking) and not self.hparams["partial"]:
            some = ", ".join(faces["id"].iloc[lacking[:_SHOWN]])
            raise SuiteError(
                f"{file}: {len(lacking):,} of {len(faces):,} test faces have no prediction, such as {some}. Add them, "
                "or set partial = true: they count as wrong then, and the row is never ranked"
            )
        return Answers(labels, own, shares)


def table(file: str) -> pd.DataFrame:
    """The rows of a file, texts as they stand.

    Raises:
        WeightsError: it is not there, or cannot be read.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise WeightsError(f"{file}: no such file. predictions: is followed by the path of one")
    return _table(str(path), path.stat().st_mtime_ns)


@functools.cache
def _table(path: str, stamp: int) -> pd.DataFrame:
    import pandas as pd

    try:
        if path.endswith((".parquet", ".pq")):
            found = pd.read_parquet(path)
        elif path.endswith((".jsonl", ".ndjson", ".json")):
            found = pd.read_json(path, lines=True, dtype=False)
        else:
            found = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=None, engine="python")
    except Exception as error:  # whatever pandas and pyarrow say of what is no table
        raise WeightsError(f"{path}: cannot be read as a table ({first_line(error)})") from None
    found.columns = [str(name).strip() for name in found.columns]
    if found.empty:
        raise WeightsError(f"{path}: holds no rows")
    return found


def _places(file: str, found: pd.DataFrame, faces: pd.DataFrame) -> np.ndarray:
    """(R,) the place among the faces of each row of the file."""
    named = [name for name in FACES if name in found]
    if len(named) != 1:
        said = f"columns {' and '.join(named)}" if named else f"no column {', '.join(FACES)}"
        raise SuiteError(f"{file}: has {said}; faces are named by one of them. Its columns: {', '.join(found.columns)}")
    by = named[0]
    keys = faces["id"] if by != "path" else faces["source"]
    if by == "source_row" and not keys.str.isdecimal().all():
        raise SuiteError(f"{file}: the dataset's faces are files, not rows of a table. Name them by path or id")
    known = {key: place for place, key in enumerate(keys.str.removeprefix("./"))}
    asked = found[by].map(_plain)
    places = asked.map(known)
    if places.isna().any():
        wrong = np.flatnonzero(places.isna())
        some = ", ".join(f"row {row + 1} ({by} {asked.iloc[row]})" for row in wrong[:_SHOWN])
        raise SuiteError(
            f"{file}: {len(wrong):,} rows are of no test face of the dataset: {some}. `emobench data faces` lists them"
        )
    twice = np.flatnonzero(places.duplicated())
    if len(twice):
        some = ", ".join(f"row {row + 1} ({by} {asked.iloc[row]})" for row in twice[:_SHOWN])
        raise SuiteError(f"{file}: {len(twice):,} rows are of a face that has one already: {some}. Keep one a face")
    return np.asarray(places, np.int64)


def _plain(value: Any) -> str:
    """A key as text: 12.0, as tables with gaps write it, is 12."""
    text = str(value).strip().removeprefix("./")
    return text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text


def _columns(file: str, found: pd.DataFrame) -> dict[str, str]:
    """Class -> the column that holds its probability; empty: there are none."""
    columns: dict[str, str] = {}
    for column in found.columns:
        for prefix in _PREFIXES:
            name = column.removeprefix(prefix)
            if column.startswith(prefix) and (is_emotion(name) or name.lower() in NO_EMOTION):
                same = [each for other, each in columns.items() if _one(other) == _one(name)]
                if same:
                    raise SuiteError(f"{file}: two columns are of {_one(name)}: {same[0]} and {column}")
                columns[name] = column
                break
    return columns if len(columns) > 1 else {}


def _one(name: str) -> str:
    """One name for all spellings of a class."""
    return canonical(name) if is_emotion(name) else name.lower()


def _check_shares(file: str, values: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        wrong = ~(np.isfinite(values).all(1) & (values >= 0).all(1) & (np.abs(values.sum(1) - 1) <= _SUM))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        said = ", ".join(f"{each:g}" for each in values[row])
        raise SuiteError(
            f"{file}: {wrong.sum():,} rows are no probabilities that sum to 1, such as row {row + 1}: {said}"
        )


def _number(column: Any) -> Any:
    import pandas as pd

    return pd.to_numeric(column, errors="coerce")


def _classes(file: str, found: pd.DataFrame, labels: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes that a file names, and which of them stands in each row."""
    columns = [name for name in ANSWERS if name in found]
    if len(columns) != 1:
        has = f"columns {' and '.join(columns)}" if columns else f"no column {', '.join(ANSWERS)}, nor one an emotion"
        raise SuiteError(f"{file}: has {has}; one of them says the answer. Its columns: {', '.join(found.columns)}")
    said = found[columns[0]].map(_plain)
    if said.str.isdecimal().all():
        if labels is None:
            raise SuiteError(f"{file}: answers by numbers, and nothing says what they mean. Set labels, in their order")
        numbers = said.astype(np.int64).to_numpy()
        if (numbers >= len(labels)).any():
            row = int(np.flatnonzero(numbers >= len(labels))[0])
            raise SuiteError(
                f"{file}: row {row + 1} says {numbers[row]}, and labels names {len(labels)} classes from 0"
            )
        return tuple(labels), numbers
    unknown_ = ~said.map(lambda name: is_emotion(name) or name.lower() in NO_EMOTION)
    if unknown_.any():
        row = int(np.flatnonzero(unknown_)[0])
        raise SuiteError(f"{file}: row {row + 1}: {unknown('emotion', said.iloc[row], [*EMOTIONS, *NO_EMOTION])}")
    names = said.map(_one)
    order = [*(each for each in EMOTIONS if (names == each).any()), *sorted({*names} - {*EMOTIONS})]
    return tuple(order), names.map(order.index).to_numpy(np.int64)
