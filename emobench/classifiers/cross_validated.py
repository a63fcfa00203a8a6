"""What `cross_validate` makes of a row: its networks, each trained without one part of the faces, as one classifier."""

from __future__ import annotations

from collections.abc import Sequence

from emobench.classifiers.classifier import EmotionClassifier
from emobench.classifiers.ensemble import Ensemble


class CrossValidated(Ensemble):
    """The networks of a cross-validation (Stone 1974), one for each part of the dataset.

    On the dataset itself each face is read by the network that was trained without its part alone; faces from elsewhere
    are read by all, as an ensemble.

    Args:
        emotions: the K classes, which the networks must have in the same order.
        size: of the faces that it is handed, px; every network resizes them to its own.
        networks: finished classifiers, in the order of the parts that they were trained without; frozen here.
    """

    name = "cross_validated"
    source = "Stone 1974, doi:10.1111/j.2517-6161.1974.tb00994.x"
    needs = {"networks": "classifier"}  # noqa: RUF012 (read only)
    asked_for = False

    def __init__(self, *, emotions: Sequence[str], size: int, networks: Sequence[EmotionClassifier]) -> None:
        super().__init__(emotions=emotions, size=size, members=networks)
