"""An evaluation under way: the model, the panel, the real faces, and what is kept of every face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from emobench.evaluation.fidelity import Fidelity
from emobench.evaluation.judge import EmotionReader
from emobench.evaluation.reference import RealFaces
from emobench.evaluation.sampler import Sampler
from emobench.evaluation.tracks.track import Made, Metric


@dataclass
class Task:
    """All that tracks need to measure a finished generator, editor or stylizer.

    Attributes:
        settings: of the suite's `[evaluation]`: how many faces.
        data: the data module, prepared; of drawn people it knows the truth (`counterpart`).
        networks: further networks by use, such as "identity" and "lpips"; absent ones were not named.
        metrics: of each track, those added from outside among them.
        tables: what the judges read, a table a kind of faces.
        pictures: uint8 (rows, columns, 3, S, S) by kind, and whether real faces are to be seen in it.
        copies: samples uint8 (N, 3, S, S) that are searched for copies of training faces, by track.
    """

    sampler: Sampler
    judges: Sequence[EmotionReader]
    guides: Sequence[EmotionReader]
    real: RealFaces
    fidelity: Fidelity
    settings: Mapping[str, Any]
    data: Any
    networks: Mapping[str, Any]
    metrics: Mapping[str, Sequence[Metric]]
    device: torch.device
    tables: list[pd.DataFrame] = field(default_factory=list)
    pictures: dict[str, tuple[np.ndarray, bool]] = field(default_factory=dict)
    copies: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        return self.sampler.model

    @property
    def emotions(self) -> tuple[str, ...]:
        return tuple(self.data.emotions)

    @property
    def classes(self) -> int:
        return len(self.data.emotions)

    def judge(self, kind: str, images: np.ndarray, asked: np.ndarray, **columns: np.ndarray) -> None:
        """Keep a row a face: what was asked for, what each judge reads and how probable it finds what was asked for.

        Args:
            kind: of faces, such as "control"; of these the guides are asked too.
            images: uint8 (N, C, S, S).
            asked: (N,) emotions.
            columns: (N,) each: `row` and `person` of the source, `seed` of the noise, and metrics.
        """
        n = len(images)
        table: dict[str, Any] = {"kind": kind, "face": np.arange(n), "asked": asked}
        for place, judge in enumerate(self.judges):
            shares, _ = judge.read(images)
            table[f"read_{place}"] = shares.argmax(1)
            table[f"p_{place}"] = shares[np.arange(n), asked].astype(np.float32)
        for place, guide in enumerate(self.guides if kind == "control" else ()):
            table[f"self_{place}"] = guide.read(images)[0].argmax(1)
        empty: dict[str, Any] = {name: np.full(n, -1) for name in ("row", "person", "seed", "half")}
        self.tables.append(pd.DataFrame({**table, **empty, "level": np.ones(n), **columns}))

    def judge_real_faces(self) -> None:
        """All test faces, and the training faces of the reference as a model would have copied them."""
        real = self.real
        test = {"row": real.test, "person": real.person[real.test], "half": real.half}
        self.judge("real", real.faces(real.test), real.labels[real.test], **test)
        copies = {"row": real.reference, "person": real.person[real.reference]}
        self.judge("copies", real.faces(real.reference), real.labels[real.reference], **copies)

    def origin(self, seeds: np.ndarray) -> dict[str, np.ndarray]:
        """Columns (n,) of what faces of these seeds were drawn from: an editor is given validation faces."""
        if hasattr(self.model, "sample"):
            return {"seed": seeds}
        rows = self.sampler.picked(seeds)
        return {"seed": seeds, "row": rows, "person": self.real.person[rows]}

    def made(
        self,
        images: np.ndarray,
        asked: np.ndarray,
        rows: np.ndarray | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> Made:
        """What the model made, as metrics see it: images uint8 (N, 3, S, S), emotions (N,), the sources' rows (N,)."""
        sources = None if rows is None else self.real.coloured(rows)
        return Made(images, asked, self.emotions, sources, rows, self.data, self.networks, columns or {})

    def measured(self, track: str, made: Made, others: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Columns (n,) of a track's metrics on what was made.

        Args:
            others: (n,) rows of the dataset that show a random other person with the emotion, −1 where there is none:
                metrics that compare people are measured of these too, as `<metric>_other`.
        """
        found: dict[str, np.ndarray] = {}
        for metric in self.metrics.get(track, ()):
            values = metric.compute(made)
            if values is None:
                continue
            found[metric.name] = np.asarray(values, np.float64)
            if metric.of_others and others is not None:
                there = others >= 0
                found[f"{metric.name}_other"] = np.full(len(others), np.nan)
                if there.any():
                    found[f"{metric.name}_other"][there] = metric.compute(self._in_place_of(made, others, there))
        return found

    def _in_place_of(self, made: Made, others: np.ndarray, there: np.ndarray) -> Made:
        """Random other people in the place of the results, where there are such."""
        assert made.sources is not None
        assert made.rows is not None
        return replace(
            made,
            images=self.real.coloured(others[there]),
            asked=made.asked[there],
            sources=made.sources[there],
            rows=made.rows[there],
        )
