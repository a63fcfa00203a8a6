"""What is wrong with a dataset: unreadable and constant faces, duplicates, contradictions, counts per split.

Only faces that cannot be read are excluded, for every model alike; all else is counted and listed, never changed.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emobench.data.readers.files import HEAD, MOST, pointer, read_whole, regular, too_large
from emobench.errors import RowError, from_text

LISTED = 1000  # of each kind of finding, at most
EXCLUDED = "excluded"  # the split of faces that cannot be read
UNSPLIT = "unsplit"  # of the others where there is no split, because too many cannot be read or too few are left
FINDINGS = {  # the counts among `findings`, and what each counts
    "faces": "faces",
    "excluded": "cannot be read, excluded",
    "constant": "of one colour (kept)",
    "duplicates": "surplus exact duplicates (kept)",
    "duplicate_groups": "groups of exact duplicates",
    "groups_across_splits": "of these across splits",
    "groups_with_contradicting_labels": "of these with contradicting labels",
    "test_faces_seen_in_training": "test faces that also occur in training or validation",
    "near_groups": "groups of copies and near duplicates: mirrored, turned, lighter or darker (kept)",
    "near_groups_across_splits": "of these across splits",
    "near_groups_with_contradicting_labels": "of these with contradicting labels",
    "test_faces_copied_in_training": "test faces of which training or validation has an equal or near one",
}


def by_name_and_size(folder: Path, sources: pd.Series) -> pd.DataFrame:
    """The records of an audit that decodes nothing, by the names and sizes of files alone.

    Args:
        folder: of the dataset.
        sources: (n,) each row's file, relative to it.

    Returns:
        A row for each source: `problem`, why its file is missing or empty, else None; and `hash`, equal for files of
        equal name and size, the candidates for duplicates. Rows that share a file are never candidates.
    """
    problems: dict[str, str | None] = {}
    names: dict[str, str] = {}
    for source in pd.unique(sources):
        size, problem = -1, None
        try:
            size, problem = _without_decoding(folder / from_text(source))
        except RowError as error:
            problem = str(error)
        if size == 0:
            problem = f"{folder / source}: not an intact image (0 bytes). Replace or remove the file."
        problems[source], names[source] = problem, f"{source.rpartition('/')[2]} {size}"
    hashes = sources.map(names) if sources.is_unique else sources.index.astype(str)
    return pd.DataFrame({"problem": sources.map(problems).astype(object), "hash": hashes})


def _without_decoding(path: Path) -> tuple[int, str | None]:
    """A file's size, bytes, and what can be said against it without reading it, but for what may be a pointer."""
    size = regular(path)
    found = (too_large(size), "Scale the picture down, or remove it.") if size > MOST else None
    if 60 <= size < HEAD:  # bytes; that of git-lfs has about 130
        found = pointer(read_whole(path))
    return size, str(RowError(path, None, None, *found)) if found else None


def findings(faces: pd.DataFrame, emotions: tuple[str, ...], problems: dict[str, str]) -> dict[str, Any]:
    """All findings of an audit as plain values.

    Args:
        faces: `id`, `label` (into `emotions`), `subject` and `split`, `hash` (equal for equal pixels), and with it
            `copy` (equal for copies too) and `constant`, `px_wide` and `px_high` where pixels were looked at.
        emotions: the K classes.
        problems: id -> why the face cannot be read; their split is `EXCLUDED`.
    """
    good = faces[faces["split"] != EXCLUDED]
    found: dict[str, Any] = {
        "faces": len(faces),
        "excluded": len(problems),
        "excluded_faces": dict(list(problems.items())[:LISTED]),
        "reasons": _reasons(problems),
        "classes": {
            str(split): {emotion: int((part["label"] == k).sum()) for k, emotion in enumerate(emotions)}
            for split, part in faces.groupby("split", sort=False)
        },
    }
    if good["subject"].notna().any():
        found["subjects"] = {
            str(split): int(n) for split, n in good.groupby("split", sort=False)["subject"].nunique().items()
        }
    if "hash" in good:
        found |= _exact(good)
    if "copy" in good:
        constant = good.loc[good["constant"], "id"]
        found |= {"constant": len(constant), "constant_faces": constant.head(LISTED).tolist(), **_near(good)}
    if "px_wide" in good and len(good):
        found["sizes"] = _sizes(good)
    return found


def _reasons(problems: dict[str, str]) -> dict[str, int]:
    """How many faces cannot be read for the same reason, the most frequent one first.

    A problem is `<file>: <what was found>. <what to do>`; names of files and numbers in it do not make another reason.
    """
    counts: Counter[str] = Counter()
    for face, problem in problems.items():
        source = face.partition("#")[0]
        said = problem.partition(f"{source}: ")[2] if f"{source}: " in problem else problem.partition(": ")[2]
        counts[re.sub(r"\b(?!0 bytes)\d[\d,.]*", "…", said or problem)] += 1
    return dict(counts.most_common(LISTED))


def leaked(faces: pd.DataFrame) -> np.ndarray:
    """(N,) bool: a test face pixel-equal, at the source's resolution, to one of training or validation."""
    return _seen_in_training(faces, "hash")


def copied(faces: pd.DataFrame) -> np.ndarray:
    """(N,) bool: a test face of which training or validation has a copy, see `copies`, or an equal face."""
    return _seen_in_training(faces, "copy" if "copy" in faces else "hash")


def _seen_in_training(faces: pd.DataFrame, column: str) -> np.ndarray:
    group, names = pd.factorize(faces[column], use_na_sentinel=False)  # not a set: of a million texts it is 300 MB
    seen = np.zeros(len(names), bool)
    seen[group[np.asarray(faces["split"].isin(["train", "val"]))]] = True
    return np.asarray(faces["split"] == "test") & seen[group]


def _exact(good: pd.DataFrame) -> dict[str, Any]:
    """Groups of equal faces."""
    group = good[good["hash"].duplicated(keep=False)].groupby("hash", sort=False)
    splits, labels = group["split"].nunique(), group["label"].nunique()
    listed = [
        {"faces": [*part["id"]], "splits": [*part["split"]], "labels": [*map(int, part["label"])]}
        for _, part in list(group)[:LISTED]
    ]
    return {
        "duplicates": int(good["hash"].duplicated().sum()),
        "duplicate_groups": len(splits),
        "groups_across_splits": int((splits > 1).sum()),
        "groups_with_contradicting_labels": int((labels > 1).sum()),
        "test_faces_seen_in_training": int(leaked(good).sum()),
        "duplicate_faces": listed,
    }


def _sizes(good: pd.DataFrame) -> dict[str, Any]:
    """The sizes of the faces as they lie there, px: least and most, how many different ones, how many not square."""
    return {
        "width": [int(good["px_wide"].min()), int(good["px_wide"].max())],
        "height": [int(good["px_high"].min()), int(good["px_high"].max())],
        "different": int(good[["px_wide", "px_high"]].drop_duplicates().shape[0]),
        "not_square": int((good["px_wide"] != good["px_high"]).sum()),
    }


def _near(good: pd.DataFrame) -> dict[str, Any]:
    """Groups of faces that are copies of each other but not all equal."""
    group = good[good["copy"].duplicated(keep=False)].groupby("copy", sort=False)
    near = group["hash"].nunique() > 1
    splits, labels = group["split"].nunique()[near], group["label"].nunique()[near]
    listed = [[*part["id"].head(LISTED)] for name, part in list(group)[: 2 * LISTED] if near[name]]
    return {
        "near_groups": len(splits),
        "near_groups_across_splits": int((splits > 1).sum()),
        "near_groups_with_contradicting_labels": int((labels > 1).sum()),
        "test_faces_copied_in_training": int(copied(good).sum()),
        "near_faces": listed[:LISTED],
    }
