"""What is wrong with a dataset: unreadable and constant faces, duplicates, contradictions, counts per split.

Only faces that cannot be read are excluded, for every model alike; all else is counted and listed, never changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emobench.data.readers.files import HEAD, MOST, pointer, read_whole, regular, too_large
from emobench.errors import RowError, from_text

NEAR = 3  # bits of the 64 of a perceptual hash in which near duplicates may differ
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
    "near_pairs": "pairs of near duplicates (listed only)",
    "near_pairs_across_splits": "of these across splits",
    "near_pairs_with_contradicting_labels": "of these with contradicting labels",
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
            `phash` and `constant` where pixels were looked at.
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
    if "phash" in good:
        constant = good.loc[good["constant"], "id"]
        found |= {"constant": len(constant), "constant_faces": constant.head(LISTED).tolist(), **_near(good)}
    return found


def _reasons(problems: dict[str, str]) -> dict[str, int]:
    """How many faces cannot be read for the same reason, the most frequent one first.

    A problem is `<file>: <what was found>. <what to do>`; names of files and numbers in it do not make another reason.
    """
    counts: Counter[str] = Counter()
    for face, problem in problems.items():
        source = face.partition("#")[0]
        said = problem.partition(f"{source}: ")[2] if f"{source}: " in problem else problem.partition(": ")[2]
        counts[re.sub(r"\d[\d,.]*", "…", said or problem)] += 1
    return dict(counts.most_common(LISTED))


def leaked(faces: pd.DataFrame) -> np.ndarray:
    """(N,) bool: a test face pixel-equal, at the source's resolution, to one of training or validation."""
    seen = set(faces.loc[faces["split"].isin(["train", "val"]), "hash"])
    return np.asarray((faces["split"] == "test") & faces["hash"].isin(seen))


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


def _near(good: pd.DataFrame) -> dict[str, Any]:
    """Pairs of faces that look alike but are not equal; constant ones, which all look alike, aside."""
    varied = good[~good["constant"]].drop_duplicates("hash")
    left, right = pairs_within(varied["phash"].to_numpy(), NEAR)
    ids, splits, labels = (varied[name].to_numpy() for name in ("id", "split", "label"))
    return {
        "near_pairs": len(left),
        "near_pairs_across_splits": int((splits[left] != splits[right]).sum()),
        "near_pairs_with_contradicting_labels": int((labels[left] != labels[right]).sum()),
        "near_faces": [[ids[i], ids[k]] for i, k in zip(left[:LISTED], right[:LISTED], strict=True)],
    }


def pairs_within(hashes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of 64-bit hashes that differ in at most `bits` bits: the positions (m,) of the first and the second.

    Such a pair agrees in at least one of `bits` + 1 bands of the hash, so that only faces with an equal band are
    compared: the number of comparisons grows with the faces that look alike, not with the square of all.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int)
    found = []
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64(2 ** int(high - low) - 1)
        order = np.argsort(band, kind="stable")
        for first, second in _in_runs(band[order]):
            i, k = order[first], order[second]
            near = np.bitwise_count(hashes[i] ^ hashes[k]) <= bits
            found.append(np.stack([np.minimum(i[near], k[near]), np.maximum(i[near], k[near])], 1))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _in_runs(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of positions within runs of equal values, those at equal distance together."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    ends = np.repeat(np.r_[starts[1:], len(values)], np.diff(np.r_[starts, len(values)]))  # of each position's run
    first = np.arange(len(values))
    distance = 0
    while len(first):
        distance += 1
        first = first[first + distance < ends[first]]
        if len(first):
            yield first, first + distance
