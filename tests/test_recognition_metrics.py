"""The measures of recognition agree with scikit-learn, also where classes are missing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn

from emobench.metrics.recognition import BINS, class_measures, confusion_matrix, measures, tally


def drawn(faces: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right about half of the time, and labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, faces)
    logits = draw.normal(size=(faces, classes))
    logits[np.arange(faces), labels] += 1.5
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(1, keepdims=True), labels


def absent(faces: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The last class has no face, the one before it is never predicted, the first is neither."""
    probabilities, labels = drawn(faces, classes, seed)
    labels[(labels == classes - 1) | (labels == 0)] = 1
    probabilities[:, [0, classes - 2]] = 1e-9
    return probabilities / probabilities.sum(1, keepdims=True), labels


CASES = [drawn(500, 8, 0), drawn(90, 7, 1), drawn(3, 5, 2), absent(400, 8, 3), absent(40, 5, 4)]


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
def test_agrees_with_scikit_learn(probabilities: np.ndarray, labels: np.ndarray) -> None:
    classes = probabilities.shape[1]
    predictions = probabilities.argmax(1)
    names = list(range(classes))
    found = measures(tally(probabilities, labels).sum(0), classes)
    options = {"labels": names, "zero_division": 0}
    expected = {
        "accuracy": sklearn.accuracy_score(labels, predictions),
        "accuracy_unleaked": sklearn.accuracy_score(labels, predictions),
        "accuracy_distinct": sklearn.accuracy_score(labels, predictions),
        "macro_f1": sklearn.f1_score(labels, predictions, average="macro", **options),
        "weighted_f1": sklearn.f1_score(labels, predictions, average="weighted", **options),
        "precision": sklearn.precision_score(labels, predictions, average="macro", **options),
        "recall": sklearn.recall_score(labels, predictions, average="macro", **options),
        "nll": sklearn.log_loss(labels, probabilities, labels=names),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert found.keys() == expected.keys() | {"ece"}


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
def test_each_class_agrees_with_scikit_learn(probabilities: np.ndarray, labels: np.ndarray) -> None:
    classes = probabilities.shape[1]
    predictions = probabilities.argmax(1)
    found = class_measures(tally(probabilities, labels).sum(0), classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
            labels, predictions, labels=list(range(classes)), zero_division=np.nan
        )
    np.testing.assert_allclose(found["precision"], precision, atol=1e-6)
    np.testing.assert_allclose(found["recall"], recall, atol=1e-6)
    np.testing.assert_allclose(found["accuracy"], recall, atol=1e-6)
    np.testing.assert_allclose(found["f1"], f1, atol=1e-6)


@pytest.mark.parametrize(("probabilities", "labels"), CASES)
def test_confusion_matrix_agrees_with_scikit_learn(probabilities: np.ndarray, labels: np.ndarray) -> None:
    classes = probabilities.shape[1]
    expected = sklearn.confusion_matrix(labels, probabilities.argmax(1), labels=list(range(classes)))
    np.testing.assert_array_equal(confusion_matrix(labels, probabilities.argmax(1), classes), expected)


def test_ece_by_its_definition() -> None:
    probabilities, labels = drawn(700, 6, 5)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for place in range(BINS):  # Guo et al. 2017, equation 3
        inside = (confidence > place / BINS) & (confidence <= (place + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert measures(tally(probabilities, labels).sum(0), 6)["ece"] == pytest.approx(expected, abs=1e-12)


def test_ece_of_certainty() -> None:
    certain = np.eye(2)[[0, 0, 0, 1]]  # right three times of four, at confidence 1
    assert measures(tally(certain, [0, 0, 0, 0]).sum(0), 2)["ece"] == pytest.approx(0.25)


def test_impossible_label_costs_a_finite_amount() -> None:
    surprisal = measures(tally(np.array([[1.0, 0.0]]), [1]).sum(0), 2)["nll"]
    assert surprisal == pytest.approx(-np.log(np.finfo(np.float64).eps))
    assert surprisal == pytest.approx(sklearn.log_loss([1], np.array([[1.0, 0.0]]), labels=[0, 1]), abs=1e-6)


def test_distinct_faces_alone() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])  # read as 0, 1, 0, 1
    labels, leaked, copied = [0, 1, 1, 0], [True, False, False, False], [True, True, False, False]
    found = measures(tally(probabilities, labels, leaked=leaked, copied=copied).sum(0), 2)
    assert (found["accuracy"], found["accuracy_unleaked"], found["accuracy_distinct"]) == (0.5, 1 / 3, 0.0)
    assert np.isnan(measures(tally(probabilities, labels, copied=[True] * 4).sum(0), 2)["accuracy_distinct"])


def test_unleaked_faces_alone() -> None:
    probabilities = np.eye(2)[[0, 0, 1, 1]]
    found = measures(tally(probabilities, [0, 1, 1, 0], leaked=[True, False, False, True]).sum(0), 2)
    assert found["accuracy"] == 0.5
    assert found["accuracy_unleaked"] == 0.5
    found = measures(tally(probabilities, [0, 1, 1, 1], leaked=[True, True, False, False]).sum(0), 2)
    assert found["accuracy"] == 0.75
    assert found["accuracy_unleaked"] == 1.0
    assert np.isnan(measures(tally(probabilities, [0, 1, 1, 1], leaked=[True] * 4).sum(0), 2)["accuracy_unleaked"])


def test_sums_of_many_samples_at_once() -> None:
    probabilities, labels = drawn(200, 4, 6)
    table = tally(probabilities, labels)
    both = measures(np.stack([table[:50].sum(0), table[50:].sum(0)]), 4)
    assert both["macro_f1"][0] == measures(tally(probabilities[:50], labels[:50]).sum(0), 4)["macro_f1"]
    assert both["ece"][1] == pytest.approx(measures(tally(probabilities[50:], labels[50:]).sum(0), 4)["ece"])


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [
        (np.array([[0.5, np.nan]]), [0]),
        (np.array([[1.5, -0.5]]), [0]),
        (np.array([[0.5, 0.5]]), [2]),
        (np.array([[0.5, 0.5]]), [-1]),
        (np.array([[0.5, 0.5]]), [0, 1]),
    ],
)
def test_refuses_what_is_no_prediction(probabilities: np.ndarray, labels: list[int]) -> None:
    with pytest.raises(ValueError):
        tally(probabilities, labels)
