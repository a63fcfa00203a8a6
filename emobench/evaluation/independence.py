"""Whether networks of which one is somebody else's are one network, by what they answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emobench.errors import SuiteError
from emobench.evaluation.judge import Judge
from emobench.evaluation.reference import RealFaces

FACES = 200  # validation faces that are asked of
LEAST = 0.01  # mean difference of two networks' probabilities, in total variation, from which they are two


def check_answers(panel: Sequence[Judge], guides: Sequence[Judge], real: RealFaces) -> None:
    """No two of the panel, and no guide and one of the panel, answer alike where one of them is outside.

    Where a file does not say what it comes of, its answers do: those of a network and of its export differ by less than
    0.0001, those of two trainings of one architecture by far more than 0.01.

    Args:
        panel: the judges and the reader.
        guides: the classifiers in the lineage of what they judge.
        real: the dataset's faces.

    Raises:
        SuiteError: two do; names them.
    """
    pairs = [(one, other) for place, one in enumerate(panel) for other in panel[:place]]
    pairs += [(guide, judge) for guide in guides for judge in panel]
    pairs = [(one, other) for one, other in pairs if one.card.outside or other.card.outside]
    rows = real.val[np.linspace(0, len(real.val) - 1, min(FACES, len(real.val))).round().astype(int)]
    read = {id(each): each.read(real.coloured(rows))[0] for pair in pairs for each in pair}
    for one, other in pairs:
        differ = float(np.abs(read[id(one)] - read[id(other)]).sum(1).mean() / 2)
        if differ < LEAST:
            raise SuiteError(
                f"{one.row} and {other.row} answer alike: on {len(rows)} validation faces their probabilities differ "
                f"by {differ:.4f} on average, so that one network stands on both sides. Choose another guide or judge"
            )
