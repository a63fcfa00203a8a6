"""Losses on soft labels, against torch's own and against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from emobench.nn.losses import cross_entropy, focal, smooth

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 0.0], [-1.0, -1.0, 0.5], [0.3, 0.2, 0.1]])  # (4, 3)
LABELS = torch.tensor([0, 2, 2, 1])
ONE_HOT = F.one_hot(LABELS, 3).float()
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5], [0.0, 1.0, 0.0]])
WEIGHTS = torch.tensor([0.5, 2.0, 1.25])


@pytest.mark.parametrize("targets", [ONE_HOT, SOFT], ids=["one-hot", "soft"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(targets, weights, smoothing):
    expected = F.cross_entropy(LOGITS, targets, weights, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(cross_entropy(LOGITS, targets, weights, smoothing), expected)


def test_cross_entropy_of_hard_labels_is_torchs_too():
    expected = F.cross_entropy(LOGITS, LABELS, WEIGHTS, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(cross_entropy(LOGITS, ONE_HOT, WEIGHTS, 0.2), expected)


def test_smoothing_moves_a_share_to_all_classes():
    torch.testing.assert_close(smooth(ONE_HOT[:1], 0.3), torch.tensor([[0.8, 0.1, 0.1]]))
    assert smooth(SOFT, 0.0) is SOFT


def test_focal_is_equation_5_of_lin_et_al():
    logits = torch.tensor([[math.log(0.9), math.log(0.1)], [math.log(0.2), math.log(0.8)]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # p_t = 0.9 and 0.2
    expected = torch.tensor([-0.25 * 0.1**2 * math.log(0.9), -0.25 * 0.8**2 * math.log(0.2)])
    torch.testing.assert_close(focal(logits, targets, 0.25, 2.0), expected)
    torch.testing.assert_close(focal(logits, targets, 0.25, 2.0, torch.tensor([3.0, 7.0])), 3 * expected)


def test_focal_of_a_soft_label_mixes_its_classes():
    parts = [focal(LOGITS, F.one_hot(torch.full((4,), k), 3).float(), 0.5, 1.5, WEIGHTS) for k in range(3)]
    expected = (SOFT * torch.stack(parts, 1)).sum(1)
    torch.testing.assert_close(focal(LOGITS, SOFT, 0.5, 1.5, WEIGHTS), expected)


def test_focal_without_focus_is_scaled_cross_entropy():
    torch.testing.assert_close(focal(LOGITS, SOFT, 0.25, 0.0, None, 0.1), 0.25 * cross_entropy(LOGITS, SOFT, None, 0.1))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_stays_finite_where_a_face_is_certain(gamma):
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    right, wrong = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert focal(logits, right, 1.0, gamma).item() == 0.0
    assert focal(logits, wrong, 1.0, gamma).item() == pytest.approx(200.0)
    (focal(logits, right, 1.0, gamma) + focal(logits, wrong, 1.0, gamma)).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0]]))


def test_half_precision_logits_give_float32_losses():
    loss = cross_entropy(LOGITS.bfloat16(), ONE_HOT)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(LOGITS.bfloat16().float(), ONE_HOT))
    assert focal(LOGITS.half(), ONE_HOT, 0.25, 2.0).dtype == torch.float32
