"""Who judges whom: the panel of a suite, the wall between it and what it judges, and the files that measure.

See docs/protocol.md, the panel.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from emobench.data.content import contents, listing
from emobench.errors import SuiteError, WeightsError
from emobench.suite.file import Suite
from emobench.suite.keys import contents_of_files, key, settings_key

if TYPE_CHECKING:
    from emobench.nn.provenance import Behind
    from emobench.nn.weights import WeightFile

_LARGE = 1024  # values from which a tensor tells one file from another
_SHARED = 0.1  # of a file: as much of it makes it a part of another


class Row(Protocol):
    """A row of a suite's model table."""

    row: str
    cls: Any
    recipe: Any
    needs: dict[str, list[str]]
    arguments: dict[str, Any]

    @property
    def generates(self) -> bool:
        """Whether it makes faces, instead of reading them."""

    @property
    def foreign(self) -> bool:
        """Whether emobench did not train it."""


def panel_of(suite: Suite) -> list[str]:
    """The rows that judge, and the one that reads for FED and ES."""
    return [*suite.panel, suite.reader]


def check_panel(where: str, suite: Suite, rows: Sequence[Row]) -> None:
    """Judges are classifiers, trained here or outside ones, of at least two architectures; none of them is the reader.

    Raises:
        SuiteError: they are not.
    """
    by_name = {row.row: row for row in rows}
    for name in panel_of(suite):
        row = by_name[name]
        if row.generates or (row.recipe is None and not row.foreign):
            raise SuiteError(f"{where}: panel and reader must be trained classifiers, and {name} is none")
        check_reads(where, row)
        if name == suite.reader and row.foreign and not row.cls.compares(row.arguments):
            raise SuiteError(
                f"{where}: the reader compares faces in features, and {name} gives none. Name another reader, or, of "
                "an ONNX file, the output that holds them: features = ..."
            )
    if suite.reader in suite.panel:
        raise SuiteError(f"{where}: {suite.reader} is a judge and the reader; name another reader")
    architectures = {_architecture(by_name[name]) for name in suite.panel}
    if len(architectures) < 2:
        raise SuiteError(f"{where}: all judges are {architectures.pop()}; name two architectures at least")


def check_reads(where: str, row: Row) -> None:
    """What reads generated faces says its features beside its logits.

    Raises:
        SuiteError: it is a classifier by its `logits` alone.
    """
    if row.foreign and not row.cls.has_features():
        raise SuiteError(f"{where}: {row.row} reads generated faces, and predictions are of a dataset's faces alone")
    if not row.cls.has_features():
        raise SuiteError(
            f"{where}: {row.row} reads generated faces, and its class {row.cls.__name__} has no features: define "
            "`embed` and `classify` in place of `logits`"
        )


def _architecture(row: Row) -> str:
    return str(row.cls.architecture(row.arguments))


class Networks:
    """The networks that a suite's rows stand for, and what each of them comes of.

    Args:
        rows: all of them, each after those that it needs.
        settings: all that a row's network is fitted with, but for data, seed and needs; with "arguments" and "recipe".
        sizes: evaluation sizes of the suite, px.

    Attributes:
        keys: of each row, its network's key at each evaluation size, the seed left out: of equal settings, equal keys.
        files: of each row, the files that its own network begins with or is measured with, published ones too.
        settings: of each row that is trained here, `settings_key` of what it is fitted with.
        exported: of each row, the networks of emobench's behind the files that it names, which say so.
    """

    def __init__(self, rows: Iterable[Any], settings: Callable[[Any], dict[str, Any]], sizes: Iterable[int]) -> None:
        self.rows: dict[str, Row] = {}
        self.keys: dict[str, list[str]] = {}
        self.files: dict[str, list[WeightFile]] = {}
        self.settings: dict[str, str] = {}
        self.exported: dict[str, list[Behind]] = {}
        for row in rows:
            self.rows[row.row] = row
            self.keys[row.row] = [self._key(row, settings(row), place, size) for place, size in enumerate(sizes)]
            self.files[row.row] = _files(row)
            self.exported[row.row] = _exported(self.files[row.row])
            if row.recipe is not None:
                files = contents_of_files(row.cls, row.arguments)
                self.settings[row.row] = settings_key({**settings(row), **({"files": files} if files else {})})

    def lineage(self, name: str) -> list[str]:
        """A row and all that it needs, directly or not, itself first."""
        found = [name]
        for each in found:  # which grows meanwhile
            found += [other for names in self.rows[each].needs.values() for other in names if other not in found]
        return list(dict.fromkeys(found))

    def same(self, name: str, other: str) -> str | None:
        """How two rows are of one network, by their settings or by what the files say that they name; None: not."""
        if any(one == its for one, its in zip(self.keys[name], self.keys[other], strict=True)):
            return f"{name} and {other} have equal settings, so that one network stands on both sides"
        for one, its in ((name, other), (other, name)):
            known = {self.settings.get(its), *(behind.settings for behind in self.exported[its])} - {None}
            for behind in self.exported[one]:
                if behind.settings in known:
                    file = self.files[one][-1].name
                    return f"{one} ({file}) is an export of {behind.row}, which has the settings of {its}"
        return None

    def _key(self, row: Row, settings: dict[str, Any], place: int, size: int) -> str:
        recipe = settings["recipe"]
        if recipe is not None and recipe["size"] is None:
            settings["recipe"] = {**recipe, "size": size}
        found = {argument: contents(path) for argument, path in _named_files(row)}  # wherever they lie
        settings["arguments"] = {**settings["arguments"], **found}
        needs = {role: [self.keys[other][place] for other in names] for role, names in row.needs.items()}
        return key({**settings, "needs": needs})

    def described(self, names: Iterable[str]) -> str:
        """Rows as an error shows them, each with its architecture, needs and files."""
        return "; ".join(self._described(self.rows[name]) for name in names)

    def _described(self, row: Row) -> str:
        facts = [row.cls.name if row.generates else _architecture(row)]
        facts += [f"{role} {', '.join(names)}" for role, names in row.needs.items()]
        facts += [f"file {file.name}" for file in self.files[row.row]]
        return f"{row.row} ({', '.join(facts)})"


def _named_files(row: Row) -> list[tuple[str, Path]]:
    """The files and folders on this machine that a row's arguments name."""
    from emobench.nn.weights import is_path

    named = [(argument, row.arguments[argument]) for argument in row.cls.files if row.arguments.get(argument)]
    paths = [(argument, Path(value).expanduser()) for argument, value in named if is_path(value)]
    return [(argument, path) for argument, path in paths if path.exists()]


def _files(row: Row) -> list[WeightFile]:
    from emobench.nn.weights import FILES, by_path

    found = list(row.cls.weight_files(row.arguments))
    for _, path in _named_files(row):
        parts = [path] if path.is_file() else [each for end in FILES for each in sorted(path.rglob(f"*{end}"))]
        found += [by_path(str(part)) for part in parts if all(part != file.path for file in found)]
    return found


def _exported(files: Iterable[WeightFile]) -> list[Behind]:
    """The networks of emobench's that are behind files, as its exports say."""
    from emobench.nn.provenance import written_here

    said = [written_here(file.path) for file in files if file.path is not None]
    return [behind for each in said if each is not None for behind in each.lineage.values()]


def check_firewall(where: str, suite: Suite, networks: Networks) -> None:
    """No judge, and not the reader, has helped to make what it judges; no guide is of a judge's architecture family.

    Networks are compared by their rows' names, by their keys without the seed, by the weights that they begin with, and
    by what exported files say of their origin; what outside networks answer is compared where they are first asked.
    The family is the judges' matter alone: the reader, which ranks nobody by what was asked for, may be a guide's kin.

    Raises:
        SuiteError: one has; shows both lineages. Or two of panel and reader are one network.
    """
    panel = panel_of(suite)
    for place, name in enumerate(panel):
        for other in panel[:place]:
            if networks.same(name, other) is not None:
                what = "the reader" if name == suite.reader else "a judge"
                raise SuiteError(f"{where}: {name} is {what}, and the same network as the judge {other}; name another")
    for row in (row for row in networks.rows.values() if row.generates):
        for guide in (networks.rows[name] for names in row.needs.values() for name in names):
            if not guide.generates:
                check_reads(where, guide)
        own = networks.lineage(row.row)
        for judge in panel:
            theirs = networks.lineage(judge)
            met = _met(networks, own, theirs, judge != suite.reader)
            if met is not None:
                role = "reader" if judge == suite.reader else "judge"
                raise SuiteError(
                    f"{where}: {row.row} and its {role} {judge} are not independent: {met}. {row.row} comes of "
                    f"{networks.described(own)}. {judge} comes of {networks.described(theirs)}. Choose another guide "
                    f"or {role}"
                )
        for name in row.needs.get("guide", ()):
            _check_guides(where, row, [networks.rows[each] for each in networks.lineage(name)])


def _check_guides(where: str, row: Row, guides: Sequence[Row]) -> None:
    """Raise a SuiteError unless a gradient flows back through a guide and all that it needs."""
    for guide in guides:
        reason = guide.cls.cannot_guide(guide.arguments, 1) if guide.foreign else None
        if reason is not None:
            raise SuiteError(f"{where}: {row.row} is guided by {guide.row}, which {reason}. Choose another guide")


def _met(networks: Networks, own: list[str], theirs: list[str], judges: bool) -> str | None:
    """Where the lineages of a generator's row and of a judge or the reader meet; None: nowhere."""
    rows = networks.rows
    for one in own:
        for other in theirs:
            if one == other:
                return f"{one} stands on both sides"
            if (alike := networks.same(one, other)) is not None:
                return alike
            for file in networks.files[one]:
                for its in networks.files[other]:
                    if _share(file, its):
                        return f"the weights of {file.name} ({one}) and {its.name} ({other}) stand on both sides"
    if judges:
        families = {rows[name].cls.architecture_family(rows[name].arguments): name for name in theirs}
        for one in own:
            for family in _guides(networks, one):
                if family in families:
                    kind = f"a guide in {one} and {families[family]} are of the architecture family {family}"
                    return f"{kind}, and what deceives one deceives the other"
    return None


def _guides(networks: Networks, name: str) -> list[str]:
    """The architecture families of what a row of a generator's lineage lets guide it: itself, or perceptual losses."""
    row = networks.rows[name]
    found = [file.guides for file in networks.files[name] if file.guides is not None]
    return found if row.generates else [row.cls.architecture_family(row.arguments)]


def _share(one: WeightFile, other: WeightFile) -> bool:
    """Whether two files are one, hold the same bytes, or share tensors that are a tenth of the smaller one or more."""
    if one.looked_for == other.looked_for:
        return True
    if one.path is None or other.path is None:
        return False
    if one.path.stat().st_size == other.path.stat().st_size and contents(one.path) == contents(other.path):
        return True
    some, others = (_tensors(str(path), path.stat().st_mtime_ns) for path in (one.path, other.path))
    shared = sum(size for digest, size in some.items() if digest in others)
    return shared > 0 and shared >= _SHARED * min(sum(some.values()), sum(others.values()))


@functools.cache
def _tensors(path: str, stamp: int) -> dict[str, int]:
    """Digest and number of values of each large tensor of a file, in float16 as another file may hold it.

    Tensors that are constant say nothing; of files that hold other things than tensors nothing is known.
    """
    from emobench.nn.weights import read_weights

    try:
        tensors = read_weights(Path(path))
    except WeightsError:
        return {}
    large = (each for each in tensors.values() if each.is_floating_point() and each.numel() >= _LARGE)
    varied = (each.half().contiguous() for each in large if each.min() != each.max())
    return {hashlib.sha256(each.numpy().tobytes()).hexdigest(): each.numel() for each in varied}


@dataclass(frozen=True)
class EvaluationFiles:
    """Weight files that an evaluation of generators uses: what is in its key, and where they lie."""

    hashes: dict[str, Any]
    paths: dict[str, str]


def evaluation_files(where: str, suite: Suite, listings: dict[str, str]) -> EvaluationFiles:
    """Find them before anything starts; those that were looked for are put into `listings`.

    Raises:
        WeightsError: one that the suite names is not there.
    """
    from emobench.metrics import inception

    found = inception.find()
    listings.update({str(path): listing(path) for path in inception.places()})
    sha256 = None if found.reason is not None else found.sha256
    hashes: dict[str, Any] = {"inception": {"sha256": sha256, "reason": found.reason}}
    paths = {}
    for name in ("identity", "lpips"):
        given = getattr(suite.evaluation, name)
        hashes[name] = None
        if given is not None:
            path = Path(given).expanduser()
            if not path.is_file():
                raise WeightsError(f"{where}, [evaluation] {name}: no file {path}. Check the path, or leave it out")
            hashes[name] = contents(path)
            listings[str(path)] = listing(path)
            paths[name] = str(path.resolve())
    return EvaluationFiles(hashes, paths)
