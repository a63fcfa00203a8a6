"""emobench: emotion classifiers and emotion-conditioned generators, measured under one protocol.

import emobench
board = emobench.bench("demo")                         # trains and measures; a pandas frame, a row a number
board = emobench.read_board("results/demo")            # the same, of a board that was run before
mine = emobench.score("model", "face.onnx", on="fer2013", board="results/demo")    # somebody else's model beside them

model = emobench.load("results", "demo", "resnet18")   # a finished cell, ready to use
logits = model(images)                                 # uint8 (N, 3, H, W) -> (N, K)
model.emotions                                         # the K classes

maker = emobench.load("results", "my-suite", "cvae")   # a generator
faces = maker.sample(["happy", "sad"], seeds=[0, 1])   # uint8 (N, 3, S, S)
faces = maker.sample(emotions, seeds)                  # the same of (N, K) weights that sum to 1, and (N,) int64
faces = maker.edit(images, emotions, seeds)            # the same people with other emotions

model = emobench.load("resnet18.safetensors")          # a file that `emobench export` wrote
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["__version__", "bench", "load", "read_board", "score"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> str:
    if name == "__version__":  # read when it is asked for: a source tree that is not installed has none
        from importlib.metadata import version

        return version("emobench")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def bench(
    suite: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    results: Path | str = "results",
    data: Path | str = "data",
    engine: str = "local",
) -> pd.DataFrame:
    """Train and measure every cell of a suite that has no result yet, and write its board, as `emobench bench` does.

    Call it below `if __name__ == "__main__":` in a script, since cells run in processes that import the script.

    Args:
        suite: path of a TOML file, name of a suite of the package ("smoke", "demo", "gpu", "full"), or what a file
            would say as a dict, with the board's "name".
        overrides: such as "model.resnet18.lr=0.05".
        results: folder of the results; the board is its folder of the suite's name.
        data: folder of the datasets.
        engine: where cells run: "local", or a class of a file, as "my_engine.py:Mine".

    Returns:
        The board's numbers, see `read_board`. Cells that failed have no value, and a reason.

    Raises:
        EmobenchError: the suite cannot be read or planned, or the results cannot be written.
        KeyboardInterrupt: a signal stopped it; what is done is kept, and the same call goes on.
    """
    from emobench.commands.bench import bench

    outcome = bench(suite, overrides, Path(results).expanduser(), Path(data).expanduser(), engine=engine)
    if outcome.exit_code > 128:
        raise KeyboardInterrupt
    return read_board(outcome.board)


def score(
    what: Literal["model", "predictions", "images"],
    named: Path | str,
    *,
    on: str,
    board: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    name: str | None = None,
    results: Path | str = "results",
    data: Path | str = "data",
) -> pd.DataFrame:
    """Measure an outside model, its predictions, or a generator's pictures, as `emobench score` does.

    Args:
        what: what is measured.
        named: "onnx:FILE", "hf:REPOSITORY", "timm:NAME", "python:FILE.py:NAME"; or a file or folder.
        on: name of the dataset.
        board: folder of one, whose judges, reader and rows are used; None: none.
        settings: of its row, such as {"labels": ["neutral", ...], "range": [0, 1], "trained_on": "AffectNet"}.
        dataset: settings of the dataset, such as {"size": 48}.
        name: of its row; None: that of its file.
        results: folder of the results, where no board is named.
        data: folder of the datasets.

    Returns:
        The board's numbers, see `read_board`.

    Raises:
        EmobenchError: there is no such model or dataset, or something decisive is not said.
    """
    from emobench.commands.score import scored

    outcome, _ = scored(
        what,
        str(named),
        on,
        board=None if board is None else Path(board).expanduser(),
        table=settings or {},
        of_data=dataset or {},
        name=name,
        results=Path(results).expanduser(),
        data=Path(data).expanduser(),
    )
    return read_board(outcome.board)


def read_board(folder: Path | str) -> pd.DataFrame:
    """The numbers of a board: a row a number, the columns of its `metrics.csv`.

    Args:
        folder: the board's, such as results/demo.

    Raises:
        StoreError: there is no board.
    """
    from emobench.report.written import read_board

    return read_board(Path(folder).expanduser())


def load(
    results: Path | str,
    suite: str | None = None,
    row: str | None = None,
    dataset: str | None = None,
    seed: int | None = None,
) -> Any:
    """The network of a finished cell, frozen, in evaluation mode: a classifier, or a generator.

    Args:
        results: folder of the results; or, alone, a file that `emobench export` wrote.
        suite: name of a suite that was run there.
        row: the row's name in it.
        dataset: needed where the row was trained on several, each by itself. Of one fit on several together, the
            dataset of whose faces a model makes that was told them in training; None: the first.
        seed: None: the first of the suite.

    Raises:
        StoreError: there is no such cell, or it is not finished here.
        WeightsError: the file cannot be read, or is none that emobench exported.
    """
    from emobench.errors import StoreError, unknown

    if suite is None:
        from emobench.exported import load

        return load(results)
    if row is None:
        raise TypeError("load() takes a results folder, a suite and a row, or one exported file")
    from emobench.runner.build import load_model
    from emobench.runner.store import Store, load_board

    board = load_board(Path(results).expanduser(), suite)
    found = [
        each
        for each in board
        if each.row == row and dataset in (None, each.dataset) and seed in (None, each.seed) and each.part is None
    ]
    if not found:
        names = {f"{each.row} on {each.dataset}, seed {each.seed}" for each in board}
        raise StoreError(unknown("cell", f"{row} on {dataset or 'any dataset'}, seed {seed}", names))
    first = found[0]
    if any(each.seed == first.seed and each.fit_key != first.fit_key for each in found):
        raise StoreError(f"{row} was run on {', '.join(sorted({each.dataset for each in found}))}: say which dataset")
    together = dict.fromkeys(each.dataset for each in board if each.row == row and each.fit_key == first.fit_key)
    return load_model(Store(Path(results).expanduser()), first.fit_key, list(together), first.dataset)
