"""emobench: emotion classifiers and emotion-conditioned generators, measured under one protocol.

import emobench
model = emobench.load("results", "demo", "resnet18")   # a finished cell, ready to use
logits = model(images)                                 # uint8 (N, 3, H, W) -> (N, K)
model.emotions                                         # the K classes

maker = emobench.load("results", "my-suite", "cvae")   # a generator
faces = maker.sample(emotions, seeds)                  # (N, K) that sum to 1, (N,) int64 -> uint8 (N, 3, S, S)
faces = maker.edit(images, emotions, seeds)            # the same people with other emotions
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["load"]


def load(results: Path | str, suite: str, row: str, dataset: str | None = None, seed: int | None = None) -> Any:
    """The network of a finished cell, frozen, in evaluation mode: a classifier, or a generator.

    Args:
        results: folder of the results.
        suite: name of a suite that was run there.
        row: the row's name in it.
        dataset: needed where the row was trained on several, each by itself. Of one fit on several together, the
            dataset of whose faces a model makes that was told them in training; None: the first.
        seed: None: the first of the suite.

    Raises:
        StoreError: there is no such cell, or it is not finished here.
    """
    from emobench.errors import StoreError, unknown
    from emobench.runner.build import load_model
    from emobench.runner.store import Store, load_board

    board = load_board(Path(results), suite)
    found = [
        each for each in board if each.row == row and dataset in (None, each.dataset) and seed in (None, each.seed)
    ]
    if not found:
        names = {f"{each.row} on {each.dataset}, seed {each.seed}" for each in board}
        raise StoreError(unknown("cell", f"{row} on {dataset or 'any dataset'}, seed {seed}", names))
    first = found[0]
    if any(each.seed == first.seed and each.fit_key != first.fit_key for each in found):
        raise StoreError(f"{row} was run on {', '.join(sorted({each.dataset for each in found}))}: say which dataset")
    together = [each.dataset for each in board if each.row == row and each.fit_key == first.fit_key]
    return load_model(Store(Path(results)), first.fit_key, together, first.dataset)
