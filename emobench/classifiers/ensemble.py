"""An ensemble of finished classifiers: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emobench.classifiers.classifier import EmotionClassifier
from emobench.errors import SuiteError


class Ensemble(EmotionClassifier):
    """The mean of the members' probabilities, all alike (Hansen and Salamon 1990), as logits: its logarithm.

    It has nothing to train. Di Iorio (docs/systems.md), section 5.2, leaves ensembles as future work.

    Args:
        emotions: the K classes, which the members must have in the same order.
        size: of the faces that it is handed, px; every member resizes them to its own.
        members: finished classifiers, frozen here.
    """

    name = "ensemble"
    source = "Hansen and Salamon 1990, doi:10.1109/34.58871; Di Iorio (docs/systems.md), section 5.2"
    needs = {"members": "classifier"}  # noqa: RUF012 (read only)
    recipe = None

    def __init__(self, *, emotions: Sequence[str], size: int, members: Sequence[EmotionClassifier]) -> None:
        super().__init__(emotions=emotions, size=size)
        if not members:
            raise SuiteError("an ensemble needs at least one member")
        for member in members:
            if member.emotions != self.emotions:
                raise SuiteError(
                    f"a member of the ensemble, {member.name}, tells {', '.join(member.emotions)}; "
                    f"the ensemble {', '.join(self.emotions)}. Take members trained on the same dataset."
                )
        self.members = nn.ModuleList(members).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """The members stay in evaluation mode."""
        super().train(mode)
        self.members.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Without the members, whose own cells hold them."""
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if "members." in name]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Strict about what is the ensemble's own."""
        members = {f"members.{name}": value for name, value in self.members.state_dict().items()}
        return super().load_state_dict({**members, **state_dict}, strict=strict, assign=assign)

    def forward(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) to log p̄, p̄ = mean over members of softmax(logits); (N, K), float32 at least."""
        return mean_of([member(images) for member in self.members])

    def features(self, images: Tensor) -> Tensor:
        """Faces uint8 (N, 3, H, W) to the features of all members, one after the other: (N, ΣD)."""
        return self.read(images)[1]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Log p̄ (N, K) and all members' features (N, ΣD), each member asked once."""
        members: Any = self.members
        logits, features = zip(*(member.read(images) for member in members), strict=True)
        return mean_of(logits), torch.cat([each.float() for each in features], 1)


def mean_of(logits: Sequence[Tensor]) -> Tensor:
    """Log of the mean over M members of softmax(logits), each (N, K): (N, K), float32 at least."""
    log_p = torch.stack([F.log_softmax(each.float(), dim=1) for each in logits])  # (M, N, K)
    return log_p.logsumexp(0) - math.log(len(logits))  # (N, K)
