"""Who judges whom: the panel of a suite, the wall between it and what it judges, and the files that measure.

PROTOCOL.md, 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emobench.data.content import contents, listing
from emobench.errors import SuiteError, WeightsError
from emobench.suite.file import Suite


class Row(Protocol):
    """A row of a suite's model table."""

    row: str
    cls: Any
    recipe: Any
    needs: dict[str, list[str]]

    @property
    def generates(self) -> bool:
        """Whether it makes faces, instead of reading them."""


def panel_of(suite: Suite) -> list[str]:
    """The rows that judge, and the one that reads for FED and ES."""
    return [*suite.panel, suite.reader]


def check_panel(where: str, suite: Suite, rows: Sequence[Row]) -> None:
    """Judges are trained classifiers of at least two architectures, and none of them is the reader.

    Raises:
        SuiteError: they are not.
    """
    by_name = {row.row: row for row in rows}
    for name in panel_of(suite):
        if by_name[name].generates or by_name[name].recipe is None:
            raise SuiteError(f"{where}: panel and reader must be trained classifiers, and {name} is none")
    if suite.reader in suite.panel:
        raise SuiteError(f"{where}: {suite.reader} is a judge and the reader; name another reader")
    if len({by_name[name].cls.name for name in suite.panel}) < 2:
        raise SuiteError(f"{where}: all judges are {by_name[suite.panel[0]].cls.name}; name two architectures at least")


def check_firewall(where: str, suite: Suite, rows: Sequence[Row]) -> None:
    """No judge, and not the reader, has helped to make what it judges; no guide is of a judge's architecture.

    Raises:
        SuiteError: one has; shows both lineages.
    """
    by_name = {row.row: row for row in rows}

    def lineage(name: str) -> set[str]:
        return {name}.union(*(lineage(other) for names in by_name[name].needs.values() for other in names), set())

    for row in (row for row in rows if row.generates):
        own = lineage(row.row) - {row.row}
        for judge in panel_of(suite):
            if shared := own & lineage(judge):
                raise SuiteError(
                    f"{where}: {row.row} needs {', '.join(sorted(own))}, and {judge}, which judges it, comes of "
                    f"{', '.join(sorted(lineage(judge)))}: {', '.join(sorted(shared))} stands on both sides"
                )
        alike = {by_name[name].cls.name for name in own} & {by_name[name].cls.name for name in suite.panel}
        if alike:
            raise SuiteError(
                f"{where}: {row.row} is guided by {', '.join(sorted(own))}, and a judge is {', '.join(sorted(alike))} "
                "too: what deceives one deceives the other. Choose another guide or judge"
            )


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
