"""The maps of a classifier, by the method that its network allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emobench.attribution.gradcam import captum, deepest, grad_cam
from emobench.attribution.rollout import Attentions, Fusion, check_tokens, rolled_out, to_patches
from emobench.errors import NotExplained

ROLLOUT, GRAD_CAM = "attention rollout", "Grad-CAM"
AT_ONCE = 16  # faces: their attentions and gradients are held together


class Explainer:
    """Where a classifier looks in faces of one size.

    Args:
        model: a classifier in evaluation mode, see `emobench.classifiers.classifier`.
        face: one face uint8 (1, 3, S, S), with which it is found out what its network is.
        fusion: of a rollout: how the heads of a layer become one.
        discard: of a rollout: the share of each layer's attentions, the lowest ones of each face, that count as 0.

    Attributes:
        method: "attention rollout", or "Grad-CAM".
        layer: whose maps are shown, in words.
        cells: along a side of a map.

    Raises:
        NotExplained: its network allows neither; says why.
        EmobenchError: Grad-CAM needs captum, which is not installed.
    """

    def __init__(self, model: Any, face: Tensor, fusion: Fusion = "mean", discard: float = 0.0) -> None:
        self.model, self.fusion, self.discard = model, fusion, discard
        self.scores, self.columns = _scores(model)
        with torch.no_grad(), Attentions(fusion) as found:
            model(face)  # an outside network is opened by its first call
            found.layers.clear()
            self.scores(model.pixels(face))
        if found.layers or found.others:
            self.method, self.cells = ROLLOUT, check_tokens(found, len(face))
            self.layer = f"all {len(found.layers)} layers"
            return
        self.method, (name, self.cells) = GRAD_CAM, deepest(model, self.scores, model.pixels(face))
        self.layer, self.module = f"layer {name}", model.get_submodule(name)
        captum()  # missing: said before anything is made

    @property
    def described(self) -> str:
        """What is shown, in words."""
        if self.method == GRAD_CAM:
            return f"{self.method} of {self.layer}, {self.cells} x {self.cells} cells"
        how = f"heads fused by their {self.fusion}"
        how += f", the lowest {100 * self.discard:g} % discarded" if self.discard else ""
        return f"{self.method} through {self.layer}, {self.cells} x {self.cells} patches, {how}"

    def maps(self, images: Tensor, emotions: Sequence[int]) -> NDArray[np.float32]:
        """How much each cell of faces counts for the answer.

        Args:
            images: uint8 (N, 3, S, S).
            emotions: (N,) the emotion that each map is of, by its place in the model's; a rollout is of the whole
                answer, whatever the emotion.

        Returns:
            (N, cells, cells), none below 0.
        """
        parts = [
            self._maps(images[start : start + AT_ONCE], emotions[start : start + AT_ONCE])
            for start in range(0, len(images), AT_ONCE)
        ]
        return torch.cat(parts).cpu().numpy().astype(np.float32)

    def _maps(self, images: Tensor, emotions: Sequence[int]) -> Tensor:
        pixels = self.model.pixels(images)
        if self.method == GRAD_CAM:
            return grad_cam(self.module, self.scores, pixels, self._targets(emotions, images))
        with torch.no_grad(), Attentions(self.fusion) as found:
            self.scores(pixels)
        rolled = rolled_out(found.layers, self.discard)
        return to_patches(rolled, self.cells, from_class=_reads_class_token(self.model))

    def _targets(self, emotions: Sequence[int], images: Tensor) -> Tensor:
        """The network's own class of each emotion.

        Raises:
            NotExplained: it has no such class.
        """
        found = [self.columns[emotion] for emotion in emotions]
        if min(found) < 0:
            unknown = self.model.emotions[next(each for each in emotions if self.columns[each] < 0)]
            raise NotExplained(f"it does not know {unknown}")
        return torch.tensor(found, device=images.device)


def _scores(model: Any) -> tuple[Callable[[Tensor], Tensor], Sequence[int]]:
    """What is explained: pixels to the scores of a network's own classes, and the class of each emotion.

    Raises:
        NotExplained: there is not one network through which a gradient flows.
    """
    if hasattr(model, "members"):
        raise NotExplained(f"it is {len(model.members)} networks, each with maps of its own: name one of these")
    if not hasattr(model, "own"):
        return model.logits, range(len(model.emotions))
    if not model.differentiable:
        raise NotExplained("nothing is seen of the network behind its answers: take an hf: or timm: network")
    if model.said.margin or model.said.flip:
        what = "a margin cut off" if model.said.margin else "its mirror image beside it"
        raise NotExplained(f"it sees a face with {what}, over which a map does not fit")
    return model.own, model.columns


def _reads_class_token(model: Any) -> bool:
    """Whether the answer is read from the first token: where timm's networks say otherwise, from the mean of all."""
    pools = [module.global_pool for module in model.modules() if isinstance(getattr(module, "global_pool", None), str)]
    return not pools or pools[0] in ("token", "")
