"""FERPlus (Barsoum et al. 2016): FER-2013 labelled again, by ten people a face."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import pandas as pd

from emobench.data.datamodule import EmotionDataModule
from emobench.data.dataset import SOFT, FileArguments
from emobench.data.datasets.fer2013 import LABELS
from emobench.data.readers.labels import PROBLEM, Labels, Meaning
from emobench.data.readers.layouts import the_only
from emobench.data.readers.pixel_table import PixelTable, public_as_test, read_pixel_tables, usage
from emobench.data.readers.tables import NoNumber, number, read_rows, table_names
from emobench.data.readers.tree import places, visible
from emobench.emotions import EMOTIONS, canonical
from emobench.errors import DatasetError, RowError

_VOTES = table_names("fer2013new")
_FACES = table_names("fer2013", "icml_face_data")
_COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


class FERPlus(EmotionDataModule):
    """FER-2013's faces with eight emotions and the votes of ten people, in FER-2013's official splits.

    The votes are joined to the faces by the order of their rows; with fewer faces than votes, to the first of them. A
    face whose votes are tied, or led by unknown or "not a face", is left out and counted, whatever the labels are: the
    same test faces score both kinds of labels against the majority.

    Args:
        labels: what training and validation see: the emotion of most votes, or the shares of the votes for emotions; or
            emotion -> columns of votes, which are counted together, such as { anger = ["anger", "disgust"] }.
        ignore: columns of votes that count as unknown.
        layout: fer2013.csv or its like, relative to the data root, where several are there; None: the only one.
    """

    name = "ferplus"
    classes = EMOTIONS
    expects = """
fer2013new.csv                         Usage,Image name,neutral,…,unknown,NF: ten votes (github.com/microsoft/FERPlus)
fer2013.csv or icml_face_data.csv      the faces, in the original order
Both here or in <data root>/fer2013/. CSV files may end in .gz or .xz.
"""

    def __init__(
        self,
        *,
        labels: Literal["majority", "soft"] | Labels = "majority",
        layout: str | None = None,
        **common: Unpack[FileArguments],
    ) -> None:
        own = labels if isinstance(labels, dict) else None
        super().__init__({"labels": labels, "layout": layout}, labels=own, **common)
        self._soft, self._chosen = labels == "soft", layout

    def located(self) -> Path:
        """The data root, below which votes and faces may lie in two folders.

        Raises:
            DatasetError: neither folder is there.
        """
        if self.folder is not None and not self.folder.exists() and (self.folder.parent / "fer2013").is_dir():
            return self.folder.parent
        return super().located().parent

    def _named(self, names: tuple[str, ...]) -> list[Path]:
        """The files of these names in ferplus/, else in fer2013/."""
        assert self.folder is not None
        for folder in (self.folder, self.folder.parent / "fer2013"):
            if folder.is_dir():
                inside = [path for place in places(folder) for path in visible(place)]
                if found := [path for path in inside if path.name.lower() in names]:
                    return found
        return []

    @cached_property
    def _files(self) -> tuple[Path, Path]:
        """Votes and faces."""
        root = self.located()
        votes = the_only(self._named(_VOTES), None, root, "fer2013new.csv", self.expects)
        return votes, the_only(self._named(_FACES), self._chosen, root, "fer2013.csv", self.expects)

    @cached_property
    def _table(self) -> PixelTable:
        return read_pixel_tables([self._files[1]], self.located(), LABELS, Meaning())

    def sources(self) -> list[Path]:
        """The votes and the faces."""
        return list(self._files)

    def index(self) -> pd.DataFrame:
        """One row a face with a majority; with soft labels the share of each emotion as `soft_<emotion>`."""
        votes, problems = self._votes(self._table.index)  # (N, 10)
        emotions, votes = self._together(votes)
        first, second = np.sort(votes, 1)[:, :-3:-1].T
        leader = votes.argmax(1)
        broken = problems.notna().to_numpy()
        tied, no_emotion = (first == second) & ~broken, (leader >= len(emotions)) & ~broken
        kept = ~tied & ~no_emotion
        labels = np.where(broken, None, np.array([*emotions, *[None] * votes.shape[1]], object)[leader])
        index = self._table.index[kept].assign(**{"label": labels[kept], PROBLEM: problems[kept].to_numpy()})
        if self._soft:
            shares = votes[kept, : len(emotions)] / np.maximum(
                votes[kept, : len(emotions)].sum(1, keepdims=True), 1e-12
            )
            index = index.assign(**{SOFT + emotion: shares[:, k] for k, emotion in enumerate(emotions)})
        self.notes.append(
            f"of {len(votes):,} faces {tied.sum():,} with a tie and {(no_emotion & ~tied).sum():,} led by unknown or "
            "not-a-face votes are left out"
        )
        index, notes = public_as_test(index)
        self.notes += notes
        return index

    def _together(self, votes: np.ndarray) -> tuple[list[str], np.ndarray]:
        """The emotions, and (N, emotions + others) votes, those of columns that mean one emotion counted together."""
        means = {
            name: self.meaning.emotion(name) if self.meaning.explains(name) else canonical(name)
            for name in _COLUMNS
            if self.meaning.knows(name)
        }
        self.meaning.use(_COLUMNS)
        emotions = list(dict.fromkeys(emotion for emotion in means.values() if emotion is not None))
        others = [name for name in _COLUMNS if means.get(name) is None]
        columns = {
            emotion: [k for k, name in enumerate(_COLUMNS) if means.get(name) == emotion] for emotion in emotions
        }
        columns |= {name: [_COLUMNS.index(name)] for name in others}
        return emotions, np.stack([votes[:, of].sum(1) for of in columns.values()], 1)

    def _votes(self, faces: pd.DataFrame) -> tuple[np.ndarray, pd.Series]:
        """(N, 10) votes of the faces, in the order of `_COLUMNS`, and why a row of them cannot be used, or None."""
        path = self._files[0]
        votes: list[list[float]] = []
        problems: list[NoNumber | None] = []
        for line, row in read_rows(path, ("Usage", *_COLUMNS)):
            split = usage(path, line, row)
            if len(votes) < len(faces) and split != faces["split"].iloc[len(votes)]:
                found = f"'{row['Usage']}', but face {len(votes)} of {self._files[1].name} is of another split"
                raise RowError(path, line, "Usage", found, "Both files must be in their original order.")
            try:
                votes.append([number(path, line, row, name) for name in _COLUMNS])
                problems.append(None)
            except NoNumber as error:
                votes.append([0.0] * len(_COLUMNS))
                problems.append(error)
        if len(votes) < len(faces):
            found = f"{len(votes):,} rows of votes for {len(faces):,} faces in {self._files[1]}"
            raise DatasetError(f"{path}: {found}. Fetch the file again")
        return np.array(votes[: len(faces)]), pd.Series(problems[: len(faces)], faces.index, object)

    def read_many(self, rows: pd.DataFrame) -> Iterator[np.ndarray | RowError]:
        """The faces of rows of the index, in their order."""
        yield from self._table.read(rows)
