"""Which face trains, validates and tests: official splits where there are such, else by subject, else stratified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from emobench.errors import DatasetError

SPLITS = ("train", "val", "test")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}  # of all faces, where no split is official
CARVED = 0.1  # share of the training faces that become validation, where there is no official one
SEED = 0  # a split belongs to the dataset: the same for every model and every seed of a suite


def complete(
    index: pd.DataFrame,
    place: Path | str,
    fold: tuple[int, int] | None = None,
    cross: tuple[int | None, int] | None = None,
) -> tuple[pd.Series, list[str]]:
    """The split of every row, and what had to be decided.

    Official splits stay. Validation without a test split becomes the test split; a missing validation split is carved
    from training. Subjects never cross a split drawn here, and neither do faces of equal `twin` (pixel-equal ones).

    Args:
        index: `label`, `subject`, `split` (official or None) and `twin`, which is equal for equal pixels.
        place: where the dataset lies, for errors.
        fold: (k, n): the k-th of n parts by subject, from 0, is the test split, the next one validation.
        cross: (k, n), of a cross-validation: the k-th of n parts is the test split, and validation is carved from the
            others; k None: every face is a test face, of the network that was trained without its part (`parts`).

    Raises:
        DatasetError: some rows have a split and others none, subjects cross official splits, a split is empty, or a
            test split is official where one is cross-validated.
    """
    split, notes = index["split"].copy(), []
    named = set(split.dropna())
    if named and split.isna().any():
        found = f"{split.isna().sum()} of {len(index)} faces have no split"
        raise DatasetError(f"{place}: {found}. Give one to all of them, or to none")
    groups, by_subject = _groups(index)
    how = "by subject" if by_subject else "stratified"

    if cross is not None:
        _check_cross(index, place, named, fold, cross[1])
        held_out, folds = cross
        if held_out is None:
            together = "its person" if by_subject else "a copy of it"
            notes.append(
                f"{folds}-fold cross-validation, {how}: each face is read by the one of {folds} networks that saw "
                f"neither it nor {together} in training"
            )
            return pd.Series("test", index=index.index, dtype=object), notes
        mine = parts(index, folds) == held_out
        rest = index.index[~mine]
        split[mine] = "test"
        split[rest] = assign(index.loc[rest, "label"], groups[rest], {"train": 1 - CARVED, "val": CARVED})
        notes.append(f"fold {held_out + 1} of {folds} ({how}) is the test split; validation is carved from the others")
        drawn = rest
    elif fold is not None:
        if named or not by_subject:
            remedy = "Leave `folds` out, or use a layout that names subjects"
            raise DatasetError(f"{place}: folds are by subject, and no subjects are known here. {remedy}")
        test, folds = fold
        mine = parts(index, folds)
        places = [mine == test, mine == (test + 1) % folds]
        split = pd.Series(np.select(places, ["test", "val"], "train").astype(object), index=index.index)
        notes.append(f"fold {fold[0]} of {fold[1]} by subject is the test split, the next one validation")
        drawn = index.index
    elif named <= {"train"}:
        split = pd.Series(assign(index["label"], groups, SHARES), index=index.index)
        notes.append(f"no official split: {how}, " + " / ".join(f"{100 * share:.0f} %" for share in SHARES.values()))
        drawn = index.index
    else:
        drawn = index.index[:0]
        if "test" not in named and "val" in named:
            split = split.replace("val", "test")
            notes.append(f"no test split: the validation split ({(split == 'test').sum():,} faces) is the test split")
        if "val" not in set(split):
            train = index.index[split == "train"]
            shares = {"train": 1 - CARVED, "val": CARVED}
            split[train] = assign(index.loc[train, "label"], groups[train], shares)
            notes.append(f"validation is carved from training ({how}, {100 * CARVED:.0f} %)")
            drawn = train
    _check(index, split, by_subject, place)
    if len(drawn):
        notes[-1] += _uncovered(index.loc[drawn, "label"], groups[drawn], split[drawn], by_subject)
    return split, notes


def parts(index: pd.DataFrame, folds: int) -> np.ndarray:
    """(n,) the part of every face, of `folds`, from 0: stratified, people and copies together."""
    groups, _ = _groups(index)
    return assign(index["label"], groups, {str(k): 1 / folds for k in range(folds)}).astype(int)


def _groups(index: pd.DataFrame) -> tuple[pd.Series, bool]:
    """What never crosses a split that is drawn: people where all are known, else copies; and which of the two."""
    by_subject = bool(index["subject"].notna().all())
    return index["subject"] if by_subject else index["twin"], by_subject


def _check_cross(
    index: pd.DataFrame, place: Path | str, named: set[str], fold: tuple[int, int] | None, folds: int
) -> None:
    if fold is not None:
        raise DatasetError(f"{place}: sets folds and cross_validate. Take one of them")
    if official := sorted(named - {"train"}):
        raise DatasetError(
            f"{place}: cross_validate = {folds}, but its {' and '.join(official)} split is official, and figures on it "
            "compare with those of others. Leave cross_validate out"
        )
    groups, by_subject = _groups(index)
    if groups.nunique() < folds:
        what = "people" if by_subject else "faces that are no copies of each other"
        raise DatasetError(f"{place}: cross_validate = {folds}, but there are {groups.nunique()} {what}. Take fewer")


def assign(labels: pd.Series, groups: pd.Series, shares: Mapping[str, float]) -> np.ndarray:
    """The name in `shares` for every row: whole groups, each class in those shares as far as the groups allow.

    Groups come in a seeded random order, larger ones first, and go where most of their classes are missing. A class
    that has as many groups as there are names then gets one for each, as far as other classes do not lose theirs.
    """
    label, classes = pd.factorize(labels, sort=True)
    group, names = pd.factorize(groups, sort=True)
    sizes = np.zeros((len(names), len(classes)), np.float32)  # (groups, K) faces
    np.add.at(sizes, (group, label), 1)
    missing = np.outer(list(shares.values()), sizes.sum(0))  # (splits, K) faces still to come
    order = np.random.default_rng(SEED).permutation(len(names))
    chosen = np.empty(len(names), int)
    faces = sizes.sum(1)
    order = order[np.argsort(-faces[order], kind="stable")]
    single = int(np.count_nonzero(faces > 1))  # from here on groups are single faces
    for g in order[:single]:
        # The small second term breaks ties between splits that lack a class equally.
        chosen[g] = np.argmax(missing @ sizes[g] + 1e-3 * missing.sum(1))
        missing[chosen[g]] -= sizes[g]
    lacking, splits = missing.tolist(), range(len(missing))
    for g, k in zip(order[single:].tolist(), sizes[order[single:]].argmax(1).tolist(), strict=True):
        # The same, without numpy's cost per call: a million faces in seconds.
        best = max(splits, key=lambda split: lacking[split][k] + 1e-3 * sum(lacking[split]))
        chosen[g] = best
        lacking[best][k] -= 1
    _cover(chosen, sizes, len(shares))
    return np.array(list(shares), object)[chosen[group]]


def _cover(chosen: np.ndarray, sizes: np.ndarray, splits: int) -> None:
    """Move groups so that each split has one of every class that has enough of them; few faces are moved, and in place.

    Args:
        chosen: (groups,) the split of each group.
        sizes: (groups, K) faces of each class.
    """
    has = sizes > 0
    count = np.zeros((splits, sizes.shape[1]), int)  # groups of each class in each split
    np.add.at(count, chosen, has)
    enough = has.sum(0) >= splits
    while True:
        for split, label in np.argwhere((count == 0) & enough):
            of = np.flatnonzero(has[:, label])
            spare = [g for g in of.tolist() if (count[chosen[g]][has[g] & enough] > 1).all()]
            if spare:
                group = min(spare, key=lambda g: (sizes[g].sum(), -count[chosen[g], label], g))
                count[chosen[group]] -= has[group]
                count[split] += has[group]
                chosen[group] = split
                break
        else:
            return


def _uncovered(labels: pd.Series, groups: pd.Series, split: pd.Series, by_subject: bool) -> str:
    """Of the note of a split that was drawn: the classes that are too few to be in each part of it."""
    parts, lacking = split.nunique(), []
    for label, of in groups.groupby(labels, sort=True):
        if split[of.index].nunique() < parts:
            lacking.append(f"{label} has {of.nunique()}")
    if not lacking:
        return ""
    what = "people" if by_subject else "faces that are no copies of each other"
    return f"; too few for a face in each of the {parts}: of {what}, {', '.join(lacking)}"


def _check(index: pd.DataFrame, split: pd.Series, by_subject: bool, place: Path | str) -> None:
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        found = f"{place}: {len(index)} faces, but none for {' and '.join(empty)}"
        raise DatasetError(f"{found}. Training, validation and test need faces each: add more, or a folder per split")
    if by_subject:
        crossing = index.loc[split.groupby(index["subject"]).transform("nunique") > 1, "subject"].unique()
        if len(crossing):
            some = ", ".join(map(str, crossing[:5]))
            raise DatasetError(f"{place}: {len(crossing)} subjects are in several splits ({some} …). Split by subject")
