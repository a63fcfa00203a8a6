"""Losses of the classifiers, on soft labels throughout: a target is a row of K weights that sum to 1.

Every function gives one value a face, (N,), so that a caller can average over a batch, a split or several processes.
The mean is plain, as in torch's own cross-entropy with class probabilities: it is not divided by the sum of the
class weights, so that it does not depend on which faces share a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def smooth(targets: Tensor, smoothing: float) -> Tensor:
    """Label smoothing: q' = (1 − ε)·q + ε/K (Szegedy et al. 2016, section 7), for one-hot and soft q alike.

    Args:
        targets: (N, K), rows that sum to 1.
        smoothing: ε in [0, 1); 0 returns `targets` itself.
    """
    if smoothing == 0:
        return targets
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy −Σ_k w_k·q_k·log p_k of every face, in nats.

    Args:
        logits: (N, K).
        targets: q, (N, K), one-hot or soft.
        weights: w, (K,), one factor a class; None: 1 for all.
        smoothing: ε of `smooth`.

    Returns:
        (N,), float32 at least, whatever the precision of the logits.
    """
    log_p = F.log_softmax(_precise(logits), dim=1)  # (N, K)
    return -_weighted(smooth(targets, smoothing).to(log_p.dtype) * log_p, weights).sum(1)


def focal(
    logits: Tensor,
    targets: Tensor,
    alpha: float,
    gamma: float,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Focal loss −α·Σ_k w_k·q_k·(1 − p_k)^γ·log p_k of every face.

    For a one-hot q it is eq. 5 of Lin et al. 2017, FL(p_t) = −α_t·(1 − p_t)^γ·log p_t, with the softmax probability
    of the true class as p_t and α the same for all classes (their α and 1 − α tell two classes apart; among K classes
    `weights` does that). A soft label is the mixture of its classes' losses.

    Args:
        logits: (N, K).
        targets: q, (N, K), one-hot or soft.
        alpha: α, a factor on the whole loss.
        gamma: γ ≥ 0; 0 leaves α times the cross-entropy.
        weights: w, (K,), one factor a class; None: 1 for all.
        smoothing: ε of `smooth`.

    Returns:
        (N,), float32 at least.
    """
    log_p = F.log_softmax(_precise(logits), dim=1)  # (N, K)
    # 1 − p without cancellation; the floor keeps the power's slope finite at p = 1 where γ < 1.
    miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)  # (N, K)
    terms = smooth(targets, smoothing).to(log_p.dtype) * miss**gamma * log_p
    return -alpha * _weighted(terms, weights).sum(1)


def _precise(logits: Tensor) -> Tensor:
    """float32 for half precisions: their logarithms are too coarse for a loss."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _weighted(terms: Tensor, weights: Tensor | None) -> Tensor:
    return terms if weights is None else terms * weights.to(terms.dtype)
