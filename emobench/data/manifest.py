"""The manifest of a dataset: its index audited and split, made once for the content of its files and then cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emobench.data.audit import EXCLUDED, UNSPLIT, findings
from emobench.data.content import digest
from emobench.data.pack import published
from emobench.data.readers.labels import PROBLEM, Meaning
from emobench.data.split import SPLITS, complete, parts
from emobench.emotions import EMOTIONS, in_canonical_order
from emobench.errors import DatasetError

NO_LABEL = -1  # of an excluded face
PART = "part"  # column of a cross-validated dataset: in which of its parts, from 0, a face is read
_COLUMNS = ("id", "source", "label", "subject", "split")


def checked(
    index: pd.DataFrame, classes: tuple[str, ...] | None, place: Path | str, expects: str, meaning: Meaning
) -> tuple[pd.DataFrame, list[str]]:
    """An index with its required columns first, its rows numbered from 0 and its labels understood; and what is said.

    Args:
        index: see `Dataset.index`.
        classes: the labels that may occur; None: any canonical emotion.
        place: where the dataset lies, for errors.
        expects: how its files must lie there, for errors.
        meaning: of the labels; the faces of those that it ignores are left out.

    Raises:
        DatasetError: a column is missing, a label means nothing, there are no faces or fewer than two emotions, a label
            or split is unknown, or two faces have the same id.
    """
    if missing := set(_COLUMNS) - set(index.columns):
        raise DatasetError(f"{place}: the index lacks {', '.join(sorted(missing))}")
    index, notes = meaning.understood(index, place)
    if index.empty:
        raise DatasetError("; ".join([f"{place}: no faces", *notes]) + f". Expected there: {expects}")
    labels = index["label"].dropna()
    lacking = index["label"].isna() & (index[PROBLEM].isna() if PROBLEM in index else True)
    if lacking.any():
        raise DatasetError(f"{place}: {lacking.sum():,} faces have no label, such as {index['id'][lacking].iloc[0]}")
    if wrong := set(labels) - set(classes or EMOTIONS):
        raise DatasetError(f"{place}: labels outside the dataset's emotions: {', '.join(map(str, wrong))}")
    if wrong := set(index["split"].dropna()) - set(SPLITS):
        raise DatasetError(f"{place}: splits other than {', '.join(SPLITS)}: {', '.join(map(str, wrong))}")
    if labels.nunique() == 1:
        raise DatasetError(f"{place}: all faces show {labels.iloc[0]}. Two emotions are the least to tell apart")
    if not index["id"].is_unique:
        raise DatasetError(f"{place}: several faces have the id {index['id'][index['id'].duplicated()].iloc[0]}")
    further = [column for column in index.columns if column not in _COLUMNS]
    return index[[*_COLUMNS, *further]].reset_index(drop=True), notes


@dataclass(frozen=True)
class Manifest:
    """A dataset, indexed, audited and split.

    Attributes:
        faces: as `Dataset.faces`.
        emotions: the K classes.
        notes: what was decided or left out, in sentences.
        fingerprint: SHA-256 of the faces, the settings and the emotions.
        undivided: the same without the split: equal for all parts of a cross-validation, which share their pixels.
        audit: see `audit.findings`.
        usable: whether few enough faces were unreadable; else there is no split.
        refused: why there is no split for another reason, such as too few faces; the audit stands all the same.
    """

    faces: pd.DataFrame
    emotions: tuple[str, ...]
    notes: list[str]
    fingerprint: str
    undivided: str
    audit: dict[str, Any]
    usable: bool
    refused: str | None

    @classmethod
    def make(
        cls,
        index: pd.DataFrame,
        records: pd.DataFrame,
        *,
        place: Path | str,
        top: str,
        classes: tuple[str, ...] | None,
        settings: Mapping[str, Any],
        max_bad: float,
        fold: tuple[int, int] | None,
        cross: tuple[int | None, int] | None,
        together: Sequence[str],
    ) -> Self:
        """Excludes what cannot be read, draws the split where none is official, and audits the result.

        Args:
            index: see `checked`.
            records: a row for each of the index: `problem` (why the face cannot be read, or None), `hash`, `copy`,
                `constant`, `px_wide` and `px_high`, as far as they are known; see `pack.write_pack` and
                `pack.read_copies`.
            place: where the dataset lies, for errors.
            top: taken off the paths in problems: results are shared, and name files below the dataset's folder.
            classes: K classes by definition; None: those that occur.
            settings: part of the fingerprint.
            max_bad: share of unreadable faces above which the dataset is not split.
            fold: see `split.complete`.
            cross: see `split.complete`; where no part is held out the faces have a column `PART`.
            together: columns of which equal values never cross a split drawn here.
        """
        problems = records.get("problem", pd.Series(None, index.index, object))
        problems = problems.map(lambda problem: problem.replace(top, ""), na_action="ignore")
        good = problems.isna()
        usable = float((~good).mean()) <= max_bad
        index = index.assign(**records.drop(columns="problem", errors="ignore"))
        emotions = classes or in_canonical_order(set(index["label"].dropna()))
        labels = index["label"].map(emotions.index, na_action="ignore").fillna(NO_LABEL)
        faces = index.assign(split=EXCLUDED, label=labels.astype(np.int64))
        notes: list[str] = []
        such = "" if good.all() else f"such as {problems[~good].iloc[0]}"
        if such:
            notes.append(f"{(~good).sum():,} of {len(index):,} faces cannot be read and are left out, {such}")
        refused = None if good.any() else f"{place}: none of {len(index):,} faces can be read, {such}"
        if usable and refused is None:
            try:
                drawn = cross is not None or bool(index["split"].isna().all())  # copies in official splits are counted
                twins = _twins(index[good], (*together, "copy") if drawn else together)
                whole = index[good].assign(twin=twins)
                split, more = complete(whole, place, fold, cross)
                faces.loc[good, "split"] = split
                if cross is not None and cross[0] is None:
                    faces[PART] = NO_LABEL
                    faces.loc[good, PART] = parts(whole, cross[1])
                    notes += more
                else:
                    notes += more + _absent(faces, emotions)
            except DatasetError as error:
                refused = str(error) + _one_scene(index[good])
        if not usable or refused is not None:
            faces.loc[good, "split"] = UNSPLIT
        found = findings(faces, emotions, dict(zip(index.loc[~good, "id"], problems[~good], strict=True)))
        faces = faces.drop(columns=["constant", "px_wide", "px_high"], errors="ignore")
        content = faces.drop(columns="copy", errors="ignore")  # follows from the pixels
        fingerprint = undivided = digest([_content(content), settings, emotions])
        if cross is not None:
            shared = {name: value for name, value in settings.items() if name != "held_out"}
            undivided = digest([_content(content.drop(columns=["split", PART], errors="ignore")), shared, emotions])
        return cls(faces, emotions, notes, fingerprint, undivided, found, usable, refused)

    @property
    def unreadable(self) -> float:
        """Share of the faces that cannot be read."""
        return float(self.audit["excluded"] / self.audit["faces"])

    def write(self, folder: Path) -> None:
        """Keep it in a folder, which appears whole or not at all."""
        with published(folder) as scratch:
            self.faces.to_parquet(scratch / "faces.parquet")
            rest = {name: value for name, value in vars(self).items() if name != "faces"}
            (scratch / "manifest.json").write_text(json.dumps(rest), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest that was written there."""
        rest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return cls(faces=pd.read_parquet(folder / "faces.parquet"), **{**rest, "emotions": tuple(rest["emotions"])})

    @classmethod
    def kept(cls, folder: Path) -> Self | None:
        """As `read`; None where there is none, or a damaged disk left one that cannot be read."""
        try:
            found = cls.read(folder)
            return found if len(found.faces) == found.audit["faces"] else None
        except (OSError, ValueError, KeyError, TypeError):  # whatever JSON and Parquet say of what is not theirs
            return None


def _twins(index: pd.DataFrame, together: Sequence[str]) -> np.ndarray:
    """(n,) a number for each row, equal where rows must not cross a split: where any of `together` is equal."""
    columns = [column for column in together if column in index]
    if not columns:
        return np.arange(len(index))
    found = np.asarray(pd.factorize(index[columns[0]], sort=True)[0])
    for column in columns[1:]:
        n, other = len(index), pd.factorize(index[column], sort=True)[0] + found.max() + 1
        edges = coo_array((np.ones(n, np.int8), (found, other)), shape=(other.max() + 1,) * 2)
        found = np.asarray(connected_components(edges, directed=False)[1][found])
    return found


def _one_scene(index: pd.DataFrame) -> str:
    """What explains that no split could be drawn: too many faces are copies of each other; else nothing."""
    largest = int(index["copy"].value_counts().max()) if "copy" in index else 1
    if largest <= len(index) / 10:
        return ""
    return (
        f". {largest:,} of the faces are copies of each other, or frames of one scene, which a drawn split keeps "
        "together; split folders of your own (train/, val/, test/) are taken as they are"
    )


def _absent(faces: pd.DataFrame, emotions: tuple[str, ...]) -> list[str]:
    """A note for each split that lacks an emotion."""
    notes = []
    for name in SPLITS:
        present = set(faces.loc[faces["split"] == name, "label"])
        if absent := [emotion for k, emotion in enumerate(emotions) if k not in present]:
            notes.append(f"{name} has no face of {', '.join(absent)}, which counts 0 in macro F1")
    return notes


def _content(faces: pd.DataFrame) -> str:
    """SHA-256 of a table as CSV, a part at a time: a million rows at once would be gigabytes."""
    found = hashlib.sha256()
    for start in range(0, len(faces), 65_536):
        found.update(faces.iloc[start : start + 65_536].to_csv(index=False).encode())
    return found.hexdigest()
