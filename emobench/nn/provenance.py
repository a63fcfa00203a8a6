"""What an exported file says of itself: what it takes and gives, which network it is, and all networks behind it.

`emobench export` writes it into every file: into the `metadata_props` of an ONNX file, one a field, and into the
metadata of a safetensors file, as one JSON text under "emobench". It is read here without loading a network, so that a
plan can tell where a file comes from; nothing in a file is run for it.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from emobench.errors import WeightsError, first_line

KEY = "emobench"  # of safetensors' metadata
ONNX, SAFETENSORS = ".onnx", ".safetensors"
FORMS = (ONNX, SAFETENSORS)  # of exported files, by their suffix
HF_WEIGHTS = "model.safetensors"  # in a folder for transformers
_HEADER = 32 * 2**20  # bytes of a safetensors file's header, which names every tensor
_FIELD = 2**20  # bytes of one metadata entry of an ONNX file


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text[:60]!r} is no text on one line")
    return text


Verb = Literal["read", "draw", "edit", "stylize"]
Word = Annotated[str, MinLen(1), MaxLen(256), AfterValidator(_one_line)]
Sentence = Annotated[str, MaxLen(4096), AfterValidator(_one_line)]
Count = Annotated[int, Ge(0), Le(2**53)]
Pixels = Annotated[int, Ge(1), Le(2**12)]


def _once_each(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("names an emotion twice")
    return names


Emotions = Annotated[list[Word], MinLen(1), MaxLen(256), AfterValidator(_once_each)]


class Part(BaseModel):
    """What all that is read of a file has in common: types as they are, finite numbers, no unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Behind(Part):
    """One of the networks behind an exported one, or that network itself.

    Attributes:
        row, model: its row's name in its suite, and the class's name there.
        sha256: of its weights in the store; None: nothing of it is trained.
        judge: of the same in float16, the form in which a classifier judges; None: it reads no emotions.
        data: fingerprints of the datasets that it was trained on.
        files: argument -> digest of the file or folder that it names.
        weights: the published weights that it began with, by name or file name; None: from scratch.
        settings: key of all that it was fitted with, but for seed, data and needs; None: nothing of it is trained.
        architecture, family: of one that reads emotions, as the panel tells networks apart; None: it reads none.
        needs: role -> the fit_keys of the networks that it was made with.
    """

    row: Word
    model: Word
    sha256: Word | None = None
    judge: Word | None = None
    data: list[Word] = []
    files: dict[Word, Word] = {}
    weights: Word | None = None
    settings: Word | None = None
    architecture: Word | None = None
    family: Word | None = None
    needs: dict[Word, list[Word]] = {}


class Figure(Part):
    """A number of a board with its 95 % interval."""

    metric: Word
    value: float
    low: float | None = None
    high: float | None = None
    n: Count | None = None  # faces
    board: Word
    track: Word


class Noise(Part):
    """What a drawing network is given beside the emotions.

    Attributes:
        dimensions: numbers a face.
        seeds: how they come of a seed, in words that a program can follow.
    """

    dimensions: Annotated[int, Ge(1)]
    seeds: Sentence


class Provenance(Part):
    """All of it.

    Attributes:
        emobench: the version that wrote the file.
        row, model, seed: of the cell.
        emotions: the K emotions, in the order of the logits, or of the weights that are asked with.
        size: side of the faces that it is given, px, the evaluation size; of one that is given none, that of the faces
            that it was measured on.
        makes: side of the faces that it makes, px; None: it makes none.
        layout, channels, range: of faces, uint8.
        does: what can be asked of it as it lies in this file.
        inputs, outputs: by name, where the file itself is run.
        fit_key: of the cell; `lineage` has it too.
        weights_sha256: of its weights; None: nothing of it is trained.
        dataset, dataset_fingerprint: that it was measured on.
        lineage: fit_key -> each network behind it, its own among them.
        figures: the ones that its board ranks by, for this seed.
        licence: a note.
    """

    schema_version: Literal[1] = 1
    emobench: Word
    row: Word
    model: Word
    seed: Count
    emotions: Emotions
    size: Pixels
    makes: Pixels | None = None
    layout: Literal["NCHW"] = "NCHW"
    channels: Literal["rgb"] = "rgb"
    range: Literal["0-255"] = "0-255"
    does: Annotated[list[Verb], MinLen(1)] = ["read"]
    inputs: list[Word] = ["images"]
    outputs: Literal["logits", "images"] = "logits"
    noise: Noise | None = None
    fit_key: Word
    weights_sha256: Word | None = None
    dataset: Word
    dataset_fingerprint: Word
    lineage: Annotated[dict[Word, Behind], MinLen(1), MaxLen(1024)]
    figures: Annotated[list[Figure], MaxLen(64)] = []
    licence: Sentence = ""

    @property
    def label(self) -> str:
        """Which network it is, in words."""
        return f"{self.row} on {self.dataset}, seed {self.seed}"

    def properties(self) -> dict[str, str]:
        """As texts by field: words as they are, all else as JSON."""
        plain = self.model_dump(mode="json")
        return {name: value if name in _TEXTS else json.dumps(value) for name, value in plain.items()}

    @classmethod
    def of_properties(cls, properties: Mapping[str, str]) -> Self:
        """Of what `properties` gave.

        Raises:
            ValueError: a field is missing or does not fit.
        """
        fields = {name: text if name in _TEXTS else json.loads(text) for name, text in properties.items()}
        return cls.model_validate_json(json.dumps(fields))


_TEXTS = (  # the fields of words
    "emobench", "row", "model", "layout", "channels", "range", "outputs", "fit_key", "dataset", "dataset_fingerprint",
    "licence",
)  # fmt: skip


def written_here(path: Path) -> Provenance | None:
    """As `provenance`, of any file or folder; None also where it is of a form that emobench does not write.

    Raises:
        WeightsError: it cannot be read, or what it says does not fit.
    """
    holds = (path / HF_WEIGHTS).is_file() if path.is_dir() else path.is_file() and path.suffix in FORMS
    return provenance(path) if holds else None


def provenance(path: Path) -> Provenance | None:
    """What an exported file says of itself; of a folder for transformers, what the weights in it say.

    Returns:
        None where emobench did not write it.

    Raises:
        WeightsError: it cannot be read, or what it says does not fit.
    """
    if path.is_dir():
        path = path / HF_WEIGHTS
    try:
        if path.suffix == ONNX:
            known = {name: text for name, text in onnx_properties(path).items() if name in Provenance.model_fields}
            return Provenance.of_properties(known) if "fit_key" in known and "lineage" in known else None
        said = header(path).metadata.get(KEY)
        return None if said is None else Provenance.model_validate_json(said)
    except ValidationError as error:
        raise WeightsError(f"{path}: what it says of itself does not fit: {misfit(error)}. {AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: what it says of itself cannot be read ({first_line(error)}). {AGAIN}") from None


AGAIN = "Export it again, or take another file"


def misfit(error: ValidationError) -> str:
    """The first field that does not fit: where it stands, and what is wrong."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the whole'}: {first['msg']}"


def opened(path: Path, largest: int) -> IO[bytes]:
    """A regular file of at most `largest` bytes, open for reading.

    Raises:
        WeightsError: it is something else, or cannot be opened.
    """
    try:
        state = path.stat()  # before it is opened: a pipe would wait for somebody to write
        if not stat.S_ISREG(state.st_mode) or state.st_size > largest:
            raise WeightsError(f"{path}: no file of at most {largest >> 20:,} MiB. {AGAIN}")
        return open(path, "rb")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}). Check the path") from None


# safetensors


class Header:
    """The header of a safetensors file: its metadata, and dtype and shape of every tensor.

    Attributes:
        metadata: text by text.
        tensors: name -> dtype as safetensors calls it, and shape.
    """

    def __init__(self, metadata: dict[str, str], tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        self.metadata, self.tensors = metadata, tensors


def header(path: Path, largest: int = 2**40) -> Header:
    """The header of a safetensors file; no tensor is read.

    Raises:
        WeightsError: it is no such file, its header is larger than 32 MiB, or it is longer or shorter than that says.
    """
    try:
        with opened(path, largest) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _HEADER:
                raise ValueError(f"a header of {length:,} bytes")
            content = json.loads(file.read(length))
            size = file.seek(0, 2) - 8 - length
        metadata = content.pop("__metadata__", {})
        if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
            raise ValueError("metadata that is no text")
        tensors = {name: _tensor(entry, size) for name, entry in content.items()}
        if max((end for *_, end in tensors.values()), default=0) != size:
            raise ValueError("its length is not what its header says: it is cut short or damaged")
        return Header(metadata, {name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({first_line(error)}). {AGAIN}") from None


def _tensor(entry: Any, size: int) -> tuple[str, tuple[int, ...], int]:
    """dtype, shape and end of a tensor."""
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(each) is int and each >= 0 for each in (*shape, start, end)) or not start <= end <= size:
        raise ValueError("a tensor that does not lie in it")
    return str(entry["dtype"]), shape, end


# ONNX: the outer message of the file, field by field as protobuf writes it


def onnx_properties(path: Path) -> dict[str, str]:
    """The `metadata_props` of an ONNX file; its graph is passed over unread.

    Raises:
        WeightsError: it is no such file.
    """
    found: dict[str, str] = {}
    try:
        with opened(path, 2**40) as file:
            size = file.seek(0, 2)
            file.seek(0)
            while file.tell() < size:
                number, content = _field(file, size, wanted=14)  # ModelProto.metadata_props
                if number == 14:
                    entry = dict(_fields(content))  # StringStringEntryProto: 1 key, 2 value
                    found[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
    except (ValueError, EOFError) as error:
        raise WeightsError(f"{path}: not an ONNX file ({first_line(error)}). {AGAIN}") from None
    return found


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    from io import BytesIO

    file = BytesIO(content)
    while file.tell() < len(content):
        number, value = _field(file, len(content))
        yield number, value


def _field(file: IO[bytes], size: int, wanted: int | None = None) -> tuple[int, bytes]:
    """Number and bytes of the next field; b"" where it is no text or message, or another than is wanted."""
    tag = _varint(file)
    number, kind = tag >> 3, tag & 7
    if kind == 0:
        _varint(file)
        return number, b""
    length = {1: 8, 5: 4}.get(kind) if kind != 2 else _varint(file)
    if number == 0 or length is None or length > size - file.tell():
        raise ValueError("a field that protobuf does not write")
    if kind != 2 or (wanted is not None and number != wanted):
        file.seek(length, 1)
        return number, b""
    if length > _FIELD:
        raise ValueError(f"metadata of {length:,} bytes")
    return number, file.read(length)


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("it is cut short")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number of more than 64 bits")
