"""The validated result of a cell: what `fit.json` and `result.json` hold, written and read in one place.

A record is data, and may come from anywhere: whatever does not fit is an error that names the file and the field,
never a guess, and no name in it leads out of its own folder. Records of version 1 (before 2026-11-27) are read too;
what they hold twice or compute (intervals) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from emobench.errors import StoreError
from emobench.evaluation.values import Value
from emobench.files import json_text, read_object, write_text
from emobench.suite.cell import Cell
from emobench.suite.keys import PROTOCOL, key

SCHEMA_VERSION = 2

State = Literal["done", "failed", "diverged", "interrupted"]


_LONGEST = 255  # bytes of a name in a folder
_LARGEST = 2**63 - 1  # what a table of integers holds


def _plain_name(name: str) -> str:
    """The name of something in a folder that is known: it leads nowhere else."""
    if not name or name.startswith(".") or any(each in name for each in "/\\") or not name.isprintable():
        raise ValueError(f"{name!r} is no plain file name")
    if len(name.encode()) > _LONGEST:
        raise ValueError(f"a name of {len(name.encode())} bytes is longer than a file's can be")
    return name


PlainName = Annotated[str, AfterValidator(_plain_name)]  # of files, and of what folders and files are named after
Text = Annotated[str, MinLen(1)]
Count = Annotated[int, Ge(0), Le(_LARGEST)]
Amount = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]


class Part(BaseModel):
    """What all parts of a record share: finite numbers, types as they are, fields of later versions passed over."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="ignore", allow_inf_nan=False, ser_json_inf_nan="constants"
    )  # the last, so that what is not finite in a plain value is refused and not written as null


class Versions(Part):
    """What a fit or an evaluation ran with."""

    emobench: str
    commit: str | None = None  # of the checkout that held the package; None: installed
    dirty: bool | None = None  # whether tracked files of the package differed from the commit
    torch: str
    lightning: str
    python: str

    @property
    def named(self) -> str:
        """The commit as boards name it."""
        return f"{self.commit or 'unknown'}{' + changes' if self.dirty else ''}"


class Hardware(Part):
    """The machine that did the work."""

    device: str  # "cpu" or "cuda"
    cpu: str | None
    cores: Count
    gpu: str | None
    memory_gb: Amount  # GiB
    threads: Count | None = None  # that a process of the cell computed with; None: an older emobench, one a core

    @property
    def named(self) -> str:
        """One line, as boards name it."""
        some = "" if self.threads in (None, self.cores) else f"{self.threads} of "
        return self.gpu or f"{self.cpu or 'CPU'}, {some}{self.cores} core{'' if self.cores == 1 else 's'}"


class Validation(Part):
    """The best epoch of a classifier on the validation split."""

    macro_f1: Share
    accuracy: Share
    loss: float
    epoch: Count


class FitCost(Part):
    """What a fit took."""

    params: Count
    fit_seconds: Amount
    fit_faces_per_s: Amount
    peak_memory_gb: Amount | None  # GiB
    steps: Count
    epochs: Count
    recipe_share: Amount  # faces seen, as a share of those of the class's own recipe
    precision: str
    flops: Amount | None = None  # of a face forward in training; None: not counted
    compile: bool = False  # this and the next three: as the machine's plan had it (see `emobench.recipe.Execution`)
    cuda_graphs: bool = False
    channels_last: bool = False
    fused: bool = False
    recipe: PlainName | None = None  # of which name of the class the recipe is; None: the published one


class Weights(Part):
    """The SHA-256 of a network's file, and of the form in which it judges (None: it reads no emotions)."""

    sha256: PlainName
    judge: PlainName | None = None


class Fit(Part):
    """How the network of a cell came to be."""

    cost: FitCost | None  # None: nothing is trained
    validation: Validation | None  # None: no metric selects the epoch
    versions: Versions
    hardware: Hardware
    weights: Weights | None = None  # None: nothing is trained, or an older emobench did not say


def _counted(value: Value) -> Value:
    """Whatever was measured was measured on some faces."""
    if not 0 <= value.n <= _LARGEST:
        raise ValueError(f"measured on {value.n} faces")
    if value.value is None and not value.reason:
        raise ValueError("neither a value nor a reason why there is none")
    return value


Measured = Annotated[Value, AfterValidator(_counted)]


class TrackValues(Part):
    """What one track measured, beside the raw file from which the rest is computed.

    Attributes:
        values: metric -> value of the whole sample.
        per_emotion: metric -> emotion -> value.
        faces_per_s: how fast the model did what the track asks for.
    """

    values: dict[str, Measured]
    per_emotion: dict[str, dict[str, Measured]] = {}
    faces_per_s: Amount | None = None


class Card(Part):
    """A classifier that judges, reads features or guides, and its lineage."""

    row: Text
    fit_key: PlainName
    sha256: PlainName  # of its weights in float16; of an outside network, of its files
    architecture: Text
    seed: Count
    data: Text | None  # fingerprint of its training data; None: not known to emobench
    needs: dict[str, list[PlainName]]
    outside: bool = False  # whether somebody else trained it


def _once_each(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("names an emotion twice")
    return names


Emotions = Annotated[list[Text], AfterValidator(_once_each)]
Pixels = Annotated[int, Ge(1), Le(2**15)]


class Dataset(Part):
    """The dataset that a cell was evaluated on."""

    name: Text
    size: Pixels  # evaluation size, px
    fingerprint: Text
    emotions: Annotated[Emotions, MinLen(1)]
    counts: dict[str, dict[str, Count]]  # split -> emotion -> faces
    notes: list[str] = []
    audit: dict[str, Count] = {}


class LabelOrder(Part):
    """Whether an outside model's classes are named in the right order (see `emobench.metrics.label_order`).

    Attributes:
        renamed: its class -> the emotion that it rather tells; None: none of the dataset's.
        split: whose faces it was found on.
    """

    renamed: dict[Text, Text | None]
    gain: float
    low: float
    power: Share
    faces: Count
    split: Literal["val", "test"]

    @property
    def checkable(self) -> bool:
        """Whether an exchange of two classes would be noticed as often as not."""
        from emobench.metrics.label_order import LEAST_POWER  # with parts of scipy that take long to load

        return self.power >= LEAST_POWER


class Outside(Part):
    """What is to be said of a model that emobench did not train.

    Attributes:
        preprocessing: all that was done to a face, in words; None: nothing was run.
        labels: its own classes, in its own order.
        lacking: emotions of the dataset that it does not know.
        dropped: its classes that the dataset lacks.
        elsewhere: test faces that it read as one of these.
        missing: test faces that it says nothing of.
        by_class: whether it says classes alone, and no probabilities.
        earlier: other orders of its classes in which it was measured here, and that an audit did not believe.
        pictures: set of faces -> how many there were, and how many are asked for, of a folder of pictures.
    """

    preprocessing: Text | None
    labels: list[Text]
    lacking: list[Text] = []
    dropped: list[Text] = []
    elsewhere: Count = 0
    missing: Count = 0
    by_class: bool = False
    order: LabelOrder | None = None
    earlier: list[list[Text]] = []
    pictures: dict[Text, tuple[Count, Count]] = {}


class Evaluation(Part):
    """What was measured of a finished network on the test split."""

    dataset: Dataset
    tracks: Annotated[dict[str, TrackValues], MinLen(1)]
    references: dict[str, dict[str, Measured]] = {}  # real faces measured in the same way: "floor", "copies"
    params: Count
    flops: Annotated[int | float, Ge(0), Le(1e30)]  # of one face
    batch: Annotated[int, Ge(1), Le(_LARGEST)]
    own_size: Pixels | None = None  # px that a generator draws at; None: the evaluation size
    draws: bool = False  # whether it draws faces from nothing but an emotion
    panel: list[Card] = []
    reader: Card | None = None
    guides: list[Card] = []
    outside: Outside | None = None  # of a model that emobench did not train
    raw: dict[str, PlainName]

    @property
    def cards(self) -> list[Card]:
        """Of the judges, the reader and the guides; none of a classifier."""
        return [*self.panel, *([] if self.reader is None else [self.reader]), *self.guides]


def _writable(options: dict[str, Any]) -> dict[str, Any]:
    json.dumps(options, allow_nan=False)  # a ValueError where a number is not finite
    return options


class CellFields(Part):
    """The fields of a planned cell (see `emobench.suite.cell.Cell`), but for what its keys are made of."""

    row: Text
    model: Text
    dataset: Text
    size: Pixels
    seed: Count
    track: str
    control: str | None
    emotions: Emotions
    parameters: Count
    trainer: Annotated[dict[str, Any], AfterValidator(_writable)] = {}
    needs: dict[str, list[PlainName]] = {}
    panel: dict[str, list[PlainName]] = {}
    sources: dict[str, dict[str, str]] = {}
    datasets: list[str] = []


def _of_a_fit(made_of: dict[str, Any]) -> dict[str, Any]:
    """What is read of it; the rest is as the model and its dataset have it."""
    data, recipe = made_of.get("data"), made_of.get("recipe", "")
    parts = data.get("joint", [data]) if isinstance(data, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise ValueError("does not say which data")
    if not (recipe is None or isinstance(recipe, dict)):
        raise ValueError("does not say which recipe")
    return _with_code(made_of)


def _with_code(made_of: dict[str, Any]) -> dict[str, Any]:
    code = made_of.get("code", {"digest": ""})
    if not isinstance(code, dict) or not isinstance(code.get("digest"), str):
        raise ValueError("does not say which code")
    return made_of


class MadeOf(Part):
    """All that the two keys of a cell are made of, in plain values."""

    fit: Annotated[dict[str, Any], AfterValidator(_of_a_fit)]
    eval: Annotated[dict[str, Any], AfterValidator(_with_code)]


class Record(Part):
    """The result of a cell: of its fit, or of its fit and evaluation.

    Attributes:
        reason: why it did not end well; None where it did.
        versions, hardware, finished: None in the record that a sweep writes for a process that could not.
        fit: of a finished fit.
        evaluation: of a finished evaluation.
        made_with: fit_key -> SHA-256 of the weights of the trained networks behind it, its own among them.
    """

    schema_version: Literal[2] = 2
    protocol: Annotated[int, Ge(1), Le(_LARGEST)] = PROTOCOL
    fit_key: PlainName
    eval_key: PlainName
    made_of: MadeOf
    cell: CellFields
    state: State
    reason: str | None = None
    versions: Versions | None = None
    hardware: Hardware | None = None
    finished: str | None = None  # ISO 8601, UTC
    fit: Fit | None = None
    evaluation: Evaluation | None = None
    made_with: dict[PlainName, str] = {}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.state == "done" and self.fit is None:
            raise ValueError("state is done, but nothing says how it was fitted")
        return self

    @classmethod
    def of(cls, cell: Cell, state: State, reason: str | None = None, **more: Any) -> Self:
        """The record of a cell; `more`: further fields."""
        return cls(
            fit_key=cell.fit_key,
            eval_key=cell.eval_key,
            made_of=MadeOf(fit=cell.fit, eval=cell.evaluation),
            cell=CellFields(**cell.fields()),
            state=state,
            reason=reason,
            **more,
        )

    @property
    def planned(self) -> Cell:
        """The cell that it is of."""
        return Cell(fit=self.made_of.fit, evaluation=self.made_of.eval, **self.cell.model_dump())

    @property
    def trains(self) -> bool:
        """Whether the cell has a network of its own that is trained."""
        return self.made_of.fit["recipe"] is not None

    def text(self) -> str:
        """Strict JSON."""
        return json_text(self.model_dump(mode="json"))

    def write(self, path: Path) -> None:
        """Write it whole or not at all.

        Raises:
            OSError: the disk is full or the folder is read-only; the old file is untouched.
        """
        write_text(path, self.text())


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is not whole or does not fit; the message names the file, the field and what stands there.
    """
    content = read_object(path)
    version = content.get("schema_version")
    if isinstance(version, bool) or version not in (1, SCHEMA_VERSION):
        raise StoreError(f"{path}: schema version {version!r}, this emobench reads 1 and 2. {_AGAIN}")
    try:
        record = Record.model_validate_json(json.dumps(_of_version_1(content) if version == 1 else content))
    except ValidationError as error:
        raise StoreError(f"{path}: {misfit(error)}. {_AGAIN}") from None
    except (AttributeError, KeyError, TypeError) as error:  # of a damaged record of version 1
        raise StoreError(f"{path}: not a result of version 1 ({error!r}). {_AGAIN}") from None
    if (contradiction := _contradiction(record, content)) is not None:
        raise StoreError(f"{path}: {contradiction}: it is damaged, or was written by hand. {_AGAIN}")
    return record


_AGAIN = "Delete it; the cell can run again."


def misfit(error: ValidationError) -> str:
    """The first field of something read that does not fit: where it stands, what is wrong and what was found."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the whole"
    found = "" if first["type"] == "missing" else f", and not {_short(first['input'])}"
    return f"{place}: {first['msg']}{found}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _contradiction(record: Record, content: Mapping[str, Any]) -> str | None:
    """Where a record says two things: its keys, and part of its cell, follow from what the keys are made of."""
    made_of, cell = record.made_of, record.cell
    if "protocol" not in content:
        return "does not say its protocol"
    for name, of in (("fit", made_of.fit), ("eval", made_of.eval)):
        try:
            follows = key(of)
        except ValueError:  # NaN or an infinity
            follows = ""
        if follows != content[f"{name}_key"]:
            return f"made_of.{name} does not give {name}_key"
    panel = {"judges": made_of.eval.get("judges"), "reader": made_of.eval.get("reader")}
    known = {
        "seed": (made_of.fit, cell.seed),
        "needs": (made_of.fit, cell.needs),
        "permuted": (made_of.fit, cell.control == "permuted"),
        "size": (made_of.eval, cell.size),
    }
    for name, (of, said) in known.items():
        if name in of and of[name] != said:
            return f"cell.{'control' if name == 'permuted' else name} is not that of made_of"
    if cell.panel != {role: keys for role, keys in panel.items() if keys is not None}:
        return "cell.panel is not that of made_of"
    return None


_NEWER = {"compile", "channels_last", "cuda_graphs", "fused"}  # than version 1
_FIT_COSTS = tuple(name for name in FitCost.model_fields if name not in _NEWER)
_SPEEDS = {"recognition": "faces_per_s", "generation": "faces_per_s", "editing": "edits_per_s"}
_SPEEDS["stylization"] = "stylized_per_s"


def _of_version_1(old: Mapping[str, Any]) -> dict[str, Any]:
    """A record of version 1 in today's form."""
    shared = ("protocol", "fit_key", "eval_key", "made_of", "cell", "state", "reason", "versions", "hardware")
    new: dict[str, Any] = {name: old[name] for name in (*shared, "finished") if name in old}
    new["schema_version"] = SCHEMA_VERSION
    if old["state"] != "done":
        return new
    cost = old["cost"]
    new["fit"] = {
        "cost": {name: cost.get(name) for name in _FIT_COSTS} if "fit_seconds" in cost else None,
        "validation": old.get("validation"),
        "versions": old.get("fitted_with", old["versions"]),
        "hardware": old.get("fitted_on", old["hardware"]),
        "weights": old.get("weights"),
    }
    new["made_with"] = old.get("made_with", {})
    if "dataset" in old:
        new["evaluation"] = _evaluation_of_version_1(old)
    return new


def _evaluation_of_version_1(old: Mapping[str, Any]) -> dict[str, Any]:
    cost, metrics = old["cost"], old["metrics"]
    reads = old["track"] == "recognition"
    drawn = (
        ["generation"] if not reads and "generation" in metrics else []
    )  # of what edits, validation faces are edited
    tracks = ["recognition"] if reads else list(dict.fromkeys([*drawn, *old["tracks"]]))
    values = {"recognition": metrics} if reads else metrics
    return {
        "dataset": old["dataset"],
        "tracks": {
            track: {
                "values": values.get(track, {}),
                "per_emotion": old.get("per_emotion", {}),
                "faces_per_s": cost.get(_SPEEDS[track]),
            }
            for track in tracks
        },
        "references": {} if reads else {name: metrics[name] for name in ("floor", "copies")},
        **{name: cost[name] for name in ("params", "flops", "batch")},
        **{name: old[name] for name in ("own_size", "draws", "panel", "reader", "guides") if name in old},
        "raw": old["raw"],
    }


def read_finished(path: Path) -> Record | None:
    """The record there, where it is whole and its state is `done`."""
    try:
        record = read_record(path)
    except (FileNotFoundError, StoreError):
        return None
    return record if record.state == "done" else None


def finished(path: Path) -> bool:
    """Whether a whole record lies there whose state is `done`."""
    return read_finished(path) is not None
