"""`emobench export`: a finished network as a file for others, checked against the network, with a model card."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from emobench.commands.model_card import model_card
from emobench.commands.origin import Known
from emobench.commands.runs import ANYTHING, chosen
from emobench.data.readers.images import resized
from emobench.errors import EmobenchError, StoreError, WeightsError, printable
from emobench.exported.network import Described, Networks, exportable, without_files, write_network
from emobench.files import check_out
from emobench.nn.provenance import ONNX, SAFETENSORS, Provenance, provenance
from emobench.runner.build import build_data, load_model, model_class
from emobench.runner.record import read_record
from emobench.runner.store import Store

if TYPE_CHECKING:
    from emobench.exported.parity import Parity

Form = Literal["onnx", "safetensors", "hf"]
_SUFFIX = {"onnx": ONNX, "safetensors": SAFETENSORS}
CARD, README = "MODEL_CARD.md", "README.md"
_METHODS = {"read": "logits", "draw": "sample", "edit": "edit", "stylize": "stylize"}
_FACES = 64


def export(run: str, form: Form, out: Path | None, results: Path, data: Path, *, force: bool = False) -> int:
    """Write a network with its model card; what differs from the network is not kept.

    Args:
        run: of a finished cell, see `emobench.commands.runs.chosen`.
        out: the file, or the folder for it; None: exported/<row>-<dataset>.
        data: data root, whose validation faces the file is checked on.
        force: files that are there are replaced.

    Returns:
        The exit code: 1 where the file does not say what the network says.

    Raises:
        StoreError: there is no such cell, it is not finished here, its weights are gone, or something is there already.
        WeightsError: the form cannot hold such a network; names one that can.
    """
    cell = chosen(results, run, ANYTHING)
    if cell.file is not None:
        raise StoreError(f"{run}: an exported file. Name the cell that it comes of, as <board>/<dataset>/<row>")
    known = Known.of(cell)
    place = _place(known, form, out)
    network = cell.network()
    does = [verb for verb in _METHODS if hasattr(network, _METHODS[verb])]
    writing = _Writing(known, network, does, form)
    check_out(place.card)
    if not force:
        place.check_free(writing.fit_key)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=place.folder) as scratch:
        said = writing.write(Path(scratch), place.name)
        found, note = _parity(known, network, form, Path(scratch) / place.name, data)
        if not found.passed:
            print(f"emobench: {cell.label}: not exported: {found}; at most {found.most:g} passes", file=sys.stderr)
            return 1
        text = model_card(known, said, writing.does, place.files(said), f"{found}{note}")
        (Path(scratch) / place.card.name).write_text(text, encoding="utf-8", newline="\n")
        place.take(Path(scratch))
    print(printable(f"{cell.label}: {place.shown}, with {place.card.name}\n{found}{note}"))
    return 0


# Where it goes


@dataclass(frozen=True)
class _Place:
    """Where a file and its card go.

    Attributes:
        folder: of both.
        name: of the file; "": the folder itself is what is written.
    """

    folder: Path
    name: str
    form: Form

    @property
    def card(self) -> Path:
        return self.folder / (CARD if self.name else README)

    @property
    def shown(self) -> Path:
        return self.folder / self.name

    def check_free(self, fit_key: str) -> None:
        """Raise a StoreError where something is there; the card of the same network may be renewed."""
        if not self.name:
            if any(self.folder.iterdir()):
                raise StoreError(f"{self.folder}: not empty. Choose another --out, or --force to write into it")
            return
        if os.path.lexists(self.shown):
            raise StoreError(f"{self.shown}: is there already. Choose another --out, or --force to replace it")
        if os.path.lexists(self.card) and not _is_card_of(self.card, fit_key):
            raise StoreError(f"{self.card}: a card of something else. Choose another --out, or --force to replace it")

    def files(self, said: Provenance) -> Mapping[str, tuple[str, Provenance]]:
        """What of one network lies there, or will: file -> form, and what it says of itself."""
        if not self.name:
            return {self.folder.name: ("hf", said)}
        found = {self.name: (str(self.form), said)}
        for form, suffix in _SUFFIX.items():
            for path in sorted(self.folder.glob(f"*{suffix}")):
                if path.name not in found and (other := _of_network(path, said.fit_key)) is not None:
                    found[path.name] = form, other
        return found

    def take(self, scratch: Path) -> None:
        """Put what was written into its place, each file whole."""
        for path in sorted(scratch.iterdir()):
            path.chmod(0o666 & ~_umask())
            os.replace(path, self.folder / path.name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _of_network(path: Path, fit_key: str) -> Provenance | None:
    """What a file says of itself, where it holds that network."""
    try:
        said = provenance(path)
    except WeightsError:
        return None
    return said if said is not None and said.fit_key == fit_key else None


def _is_card_of(card: Path, fit_key: str) -> bool:
    try:
        return card.read_text(encoding="utf-8").rstrip().endswith(f"of {fit_key} -->")
    except (OSError, UnicodeDecodeError):
        return False


def _place(known: Known, form: Form, out: Path | None) -> _Place:
    row, dataset = (_file_name(each) for each in (known.run.row or known.record.cell.row, known.run.dataset))
    if form == "hf":
        folder = Path("exported") / f"{row}-{dataset}-hf" if out is None else out
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"--out {folder}: a file. Name a folder for transformers")
        return _Place(folder, "", form)
    name = f"{row}{_SUFFIX[form]}"
    if out is None:
        return _Place(Path("exported") / f"{row}-{dataset}", name, form)
    if out.suffix == _SUFFIX[form] and not out.is_dir():
        return _Place(out.parent, out.name, form)
    if out.suffix and not out.is_dir():
        raise StoreError(f"--out {out}: a file of this form ends in {_SUFFIX[form]}. Name it so, or name a folder")
    return _Place(out, name, form)


def _file_name(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9._+=-]", "_", name).lstrip(".")[:60] or "network"


# Writing


@dataclass(frozen=True)
class _Writing:
    """A network on its way into a file.

    Raises:
        WeightsError: the form cannot hold it; before any work is done.
    """

    known: Known
    network: Any
    does: list[str]
    form: Form

    def __post_init__(self) -> None:
        if self.form == "safetensors":
            for key in self.known.lineage():
                self._check_own(key)
        elif self.form == "hf":
            from emobench.exported.hf import check_hf

            check_hf(self.network)
        else:
            self._graph()

    @property
    def fit_key(self) -> str:
        return self.known.run.fit_key

    def write(self, folder: Path, name: str) -> Provenance:
        """Write it into a folder; returns what the file says of itself."""
        if self.form == "onnx":
            from emobench.exported.onnx import noise_of, write_onnx

            graph = self._graph()
            does = ["draw"] if graph.noise else ["edit"] if "faces" in graph.inputs else ["read"]
            inputs, noise = list(graph.inputs), noise_of(graph.noise)
            said = self.known.provenance(self.network, does, inputs=inputs, noise=noise)
            write_onnx(folder / name, graph, said)
        elif self.form == "hf":
            from emobench.exported.hf import write_hf

            said = self.known.provenance(self.network, self.does, inputs=["pixel_values"])
            write_hf(folder, self.network, said)
        else:
            said = self.known.provenance(self.network, self.does, inputs=_asked(self.does))
            networks = self._networks()
            store = Store(self.known.run.results)
            parts = {key: self.network if key == self.fit_key else load_model(store, key) for key in networks.networks}
            states = {key: each.state_dict() for key, each in parts.items()}
            write_network(folder / name, networks, states, said)
        return said

    def _graph(self) -> Any:
        from emobench.exported.onnx import graph_of

        return graph_of(self.network, self.known.run.size)

    def _check_own(self, key: str) -> None:
        """Raise a WeightsError where a network's class is the user's own, or needs a file of theirs."""
        planned = read_record(Store(self.known.run.results).fit_folder(key) / "fit.json").planned
        cls = model_class(planned)
        if not exportable(cls):
            raise WeightsError(
                f"{planned.row}: its class {cls.__name__} is in a file of your own, which no other emobench has. Take "
                "--to onnx, which holds classifiers of any class"
            )
        without_files(cls, planned.fit["arguments"])

    def _networks(self) -> Networks:
        """What builds all of them again."""
        networks = {}
        for key in self.known.lineage():
            planned = read_record(Store(self.known.run.results).fit_folder(key) / "fit.json").planned
            arguments, left_out = without_files(model_class(planned), planned.fit["arguments"])
            recipe = planned.fit["recipe"]
            size = planned.size if recipe is None or recipe["size"] is None else recipe["size"]
            of = self.network if key == self.fit_key else None
            networks[key] = Described(
                model=vars(model_class(planned))["name"],
                arguments=arguments,
                emotions=planned.emotions,
                size=size,
                datasets=list(planned.datasets) if of is None or not planned.datasets else list(of.datasets),
                dataset=getattr(of, "dataset", None) if planned.datasets else None,
                needs=planned.needs,
                left_out=left_out,
            )
        return Networks(main=self.fit_key, networks=networks)


def _asked(does: list[str]) -> list[str]:
    """What the methods of a network are asked with."""
    if does == ["read"]:
        return ["images"]
    return [*(["images"] if does != ["draw"] else []), "emotions", *(["seeds"] if does != ["stylize"] else [])]


# Checking


def _parity(known: Known, network: Any, form: Form, path: Path, data: Path) -> tuple[Parity, str]:
    """How far what was written is from the network; and what of that the form cannot help."""
    from emobench.exported.parity import parity

    faces, whose = _faces(known, data)
    if form != "hf" or network.size == known.run.size:
        return parity(network, path, form, faces, whose), ""
    # The network resizes without rounding, and a processor to whole grey levels.
    resizes = parity(network, path, form, faces, whose)
    note = f"; through the processor's own resize from {known.run.size} px it is {resizes.largest:.2g}"
    seen = torch.from_numpy(np.stack([resized(face, network.size) for face in faces.numpy()]))
    return parity(network, path, form, seen, f"{whose} at the {network.size} px that it sees"), note


def _faces(known: Known, data: Path) -> tuple[Tensor, str]:
    """uint8 (64, 3, S, S): validation faces, else random pixels; and which."""
    try:
        module = build_data(known.record.planned, data)
        module.prepare_data()
        module.setup()
        rows = np.flatnonzero(module.faces["split"] == "val")
        if not len(rows):
            raise EmobenchError("it has no validation faces")
        rows = rows[np.linspace(0, len(rows) - 1, min(_FACES, len(rows))).round().astype(int)]
        faces = np.ascontiguousarray(np.broadcast_to(module.images[rows], (len(rows), 3, *module.images.shape[2:])))
        return torch.from_numpy(faces), f"validation faces of {known.run.dataset}"
    except (EmobenchError, OSError):
        random = torch.Generator().manual_seed(0)
        faces_ = torch.randint(0, 256, (_FACES, 3, known.run.size, known.run.size), generator=random)
        return faces_.to(torch.uint8), f"pictures of random pixels ({known.run.dataset} is not at hand)"
