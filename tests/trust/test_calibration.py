"""Calibration by hand and against torchmetrics, scikit-learn, uncertainty-toolbox and MAPIE."""

from typing import Any

import numpy as np
import pytest
import torch
import uncertainty_toolbox as uct
from mapie.classification import SplitConformalClassifier
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from xailab.trust.calibration import (
    conformal_sets,
    coverage_table,
    expected_calibration_error,
    fit_temperature,
    reliability_table,
)

NAN = float("nan")


def draws(n: int, k: int = 4, scale: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn from their softmax: as calibrated as can be."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, (n, k))
    y = (softmax(z, axis=1).cumsum(1) < rng.uniform(size=(n, 1))).sum(1)
    return z, np.minimum(y, k - 1)


# ---- reliability ---------------------------------------------------------------------------------


def test_a_table_by_hand() -> None:
    """Bins (0.5, 0.75] and (0.75, 1]: 0.6 right, 0.75 wrong | 0.8 right, 1.0 right."""
    probs = [[0.6, 0.4], [0.25, 0.75], [0.8, 0.2], [0.0, 1.0]]
    table = reliability_table(probs, [0, 0, 0, 1], n_bins=4)
    assert table["n"].tolist() == [0, 0, 2, 2]
    assert table["confidence"][2:].tolist() == pytest.approx([0.675, 0.9])
    assert table["accuracy"][2:].tolist() == [0.5, 1]
    assert table["gap"][2:].tolist() == pytest.approx([-0.175, 0.1])
    assert table["gap"][:2].isna().all()
    ece = expected_calibration_error(probs, [0, 0, 0, 1], n_bins=4)
    assert ece == pytest.approx((2 * 0.175 + 2 * 0.1) / 4)


@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_ece_equals_torchmetrics(n_bins: int) -> None:
    z, y = draws(500)
    probs = softmax(2 * z, axis=1)
    want = multiclass_calibration_error(torch.tensor(probs), torch.tensor(y), 4, n_bins=n_bins)
    got = expected_calibration_error(probs, y, n_bins=n_bins)
    assert got == pytest.approx(want.item(), abs=1e-6)


def test_an_edge_belongs_to_the_bin_below() -> None:
    """Guo et al.: (low, high]. torchmetrics has [low, high), so 0.75 joins 0.9 there."""
    probs, y = [[0.75, 0.25], [0.1, 0.9]], [1, 1]
    ours = expected_calibration_error(probs, y, n_bins=4)
    theirs = multiclass_calibration_error(
        torch.tensor(probs, dtype=torch.float64), torch.tensor(y), 2, n_bins=4
    )
    assert ours == pytest.approx((0.75 + 0.1) / 2)
    assert theirs.item() == pytest.approx(abs((0.75 + 0.9) / 2 - 0.5))


def test_sums_just_above_one_stay_in_the_last_bin() -> None:
    table = reliability_table(np.float32([[1.00001, 0.0]]), [0], n_bins=3)
    assert table["n"].tolist() == [0, 0, 1]


def test_ece_lies_twice() -> None:
    """Zero for a model that has learnt nothing; above zero for perfect probabilities."""
    y = np.repeat([0, 1], [70, 30])
    assert expected_calibration_error(np.tile([0.7, 0.3], (100, 1)), y) == pytest.approx(0)
    few, many = (
        np.mean(
            [
                expected_calibration_error(softmax(z, axis=1), y)
                for z, y in (draws(n, seed=s) for s in range(20))
            ]
        )
        for n in (100, 10_000)
    )
    assert few > 0.07
    assert many < 0.012


@pytest.mark.parametrize(
    ("probs", "y", "n_bins", "error", "words"),
    [
        ([[0.6, 0.3]], [0], 5, ValueError, "row 0 sums to 0.9"),
        ([[3.0, -2.0]], [0], 5, ValueError, "logits"),
        ([[0.5, 0.5]], [2], 5, ValueError, r"y must lie in 0\.\.1"),
        ([[0.5, 0.5]], [-1], 5, ValueError, r"0\.\.1"),
        ([[0.5, 0.5]], [0, 1], 5, ValueError, r"y.*\(1,\).*\(2,\)"),
        ([[0.5, 0.5]], [0.5], 5, ValueError, "y must hold whole class numbers"),
        ([[0.5, 0.5]], ["0"], 5, TypeError, "y must hold class numbers"),
        ([[0.5, 0.5]], [[0, 1]], 5, ValueError, r"y must be \(1,\).*one-hot"),
        ([[0.5, 0.5]], 0, 5, ValueError, r"y must be \(1,\).*shape \(\)"),
        ([0.5], [0], 5, ValueError, r"\(N, K\).*1 - p and p"),
        ([[0.5]], [0], 5, ValueError, r"\(N, K\).*1 - p and p"),
        ([[0.5, 0.5]], [0], 0, ValueError, "n_bins"),
        ([[0.5, 0.5]], [0], 2.0, TypeError, "n_bins"),
    ],
)
def test_bad_input(probs: Any, y: Any, n_bins: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        expected_calibration_error(probs, y, n_bins=n_bins)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_in_half_precision_are_taken(dtype: torch.dtype) -> None:
    """Ten of them, rounded: the row sums to 1.0002 or to .99; the answers are the same."""
    z, y = draws(200, k=10)
    fine = torch.tensor(z).softmax(1)
    got = expected_calibration_error(fine.to(dtype), y, n_bins=1)
    assert got == pytest.approx(expected_calibration_error(fine, y, n_bins=1), abs=0.01)


def test_labels_come_in_any_container() -> None:
    probs = [[0.6, 0.4], [0.25, 0.75]]
    for y in ([0, 1], (0.0, 1.0), [False, True], np.uint8([0, 1]), torch.tensor([0.0, 1.0])):
        assert expected_calibration_error(probs, y, n_bins=1) == pytest.approx(0.325)


def test_any_integer_counts_bins() -> None:
    probs = [[0.6, 0.4], [0.25, 0.75]]
    for n_bins in (np.int64(4), np.array(4), torch.tensor(4)):
        assert len(reliability_table(probs, [0, 1], n_bins=n_bins)) == 4


# ---- regression ----------------------------------------------------------------------------------


def test_coverage_by_hand() -> None:
    """|y - mean| / std = 0.5, 1.5, 2.5; 68 % is one std, 95 % nearly two."""
    table = coverage_table([0.0, 1, 2], [1.0, 2, 1], [0.5, -2, 4.5], levels=[0, 0.68, 0.95, 1])
    assert table["observed"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_coverage_equals_uncertainty_toolbox() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=300), rng.uniform(0.2, 2, 300)
    y = mean + 1.7 * std * rng.normal(size=300)  # overconfident
    expected, observed = uct.metrics_calibration.get_proportion_lists_vectorized(
        mean, std, y, num_bins=101
    )
    table = coverage_table(mean, std, y)
    np.testing.assert_allclose(table["expected"], expected, atol=1e-12)
    np.testing.assert_allclose(table["observed"], observed, atol=1e-12)
    error = (table["expected"] - table["observed"]).abs()
    want = uct.mean_absolute_calibration_error(mean, std, y, num_bins=101)
    assert error.mean() == pytest.approx(want, abs=1e-12)
    assert error.mean() > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"std": [0.0]}, "above 0, got 0"),
        ({"y": [1.0, 2.0]}, "1, 1 and 2"),
        ({"levels": [1.5]}, r"0\.\.1"),
        ({"levels": [0.5, 1.5]}, r"0\.\.1"),
        ({"levels": [-0.5, 0.5]}, r"0\.\.1"),
        ({"mean": [NAN]}, "NaN"),
    ],
)
def test_bad_intervals(changes: dict[str, Any], words: str) -> None:
    arguments = {"mean": [0.0], "std": [1.0], "y": [0.5], **changes}
    with pytest.raises(ValueError, match=words):
        coverage_table(**arguments)


# ---- temperature ---------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [0.05, 0.5, 1.0, 3.0, 40.0])
def test_a_planted_temperature_is_found(true: float) -> None:
    z, y = draws(20_000)
    assert fit_temperature(true * z, y) == pytest.approx(true, rel=0.04)


def test_temperature_minimizes_sklearns_log_loss() -> None:
    z, y = draws(400)

    def nll(t: float) -> float:
        return log_loss(y, softmax(3 * z / t, axis=1))

    best = minimize_scalar(nll, bounds=(0.5, 20), method="bounded", options={"xatol": 1e-9})
    got = fit_temperature(3 * z, y)
    assert got == pytest.approx(best.x, rel=1e-6)
    assert nll(got) <= best.fun + 1e-12


def test_temperature_equals_sklearns_calibrator() -> None:
    z, y = draws(400)
    model = LogisticRegression(C=1e4, max_iter=500).fit(z[:40], y[:40])  # overconfident
    peer = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(z[40:], y[40:])
    (calibrated,) = peer.calibrated_classifiers_
    got = fit_temperature(model.decision_function(z[40:]), y[40:])
    assert got == pytest.approx(1 / calibrated.calibrators[0].beta_, rel=1e-5)
    assert got > 1


def test_a_temperature_mends_ece_and_keeps_answers() -> None:
    z, y = draws(6000)
    z = 3 * z
    t = fit_temperature(z[:3000], y[:3000])
    before, after = softmax(z[3000:], axis=1), softmax(z[3000:] / t, axis=1)
    assert expected_calibration_error(before, y[3000:]) > 0.15
    assert expected_calibration_error(after, y[3000:]) < 0.03
    assert (before.argmax(1) == after.argmax(1)).all()


def test_the_temperature_of_one_logit_minimizes_the_binary_log_loss() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 300)
    y = (rng.uniform(size=300) < 1 / (1 + np.exp(-z))).astype(int)

    def nll(t: float) -> float:
        return log_loss(y, 1 / (1 + np.exp(-3 * z / t)))

    best = minimize_scalar(nll, bounds=(0.5, 20), method="bounded", options={"xatol": 1e-9})
    for shape in ((300,), (300, 1)):
        assert fit_temperature(3 * z.reshape(shape), y) == pytest.approx(best.x, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "y", "error", "words"),
    [
        ([[2.0, 0.0], [0.0, 1.0]], [0, 1], ValueError, "every row is right"),
        ([[2.0, 0.0], [0.0, 1.0]], [1, 0], ValueError, "no better than guessing"),
        ([[1.0, 1.0]], [0], ValueError, "no better than guessing"),
        ([[NAN, 0.0]], [0], ValueError, "NaN"),
        ([[[1.0, 2.0]]], [0], ValueError, r"\(N, K\).*\(1, 1, 2\)"),
        ([], [], ValueError, r"\(N, K\).*\(0,\)"),
        ([[2.0, 0.0]], [5], ValueError, r"0\.\.1"),
    ],
)
def test_no_temperature(logits: Any, y: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_temperature(logits, y)


# ---- conformal sets ------------------------------------------------------------------------------


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are its input: MAPIE wants an estimator."""

    def __init__(self, k: int = 4) -> None:
        self.k, self.classes_, self.is_fitted_ = k, np.arange(k), True

    def fit(self, X: Any, y: Any) -> "Given":
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        return X.argmax(1)


def test_sets_by_hand() -> None:
    """Scores 0.1, 0.2, 0.3, 0.6; (4 + 1) 0.6 = 3: the third. In are classes with p >= 0.7."""
    cal = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]
    told = conformal_sets(cal, [0, 1, 0, 1], [[0.75, 0.25], [0.65, 0.35]], alpha=0.4)
    assert told.threshold == pytest.approx(0.3)
    assert told.sets.tolist() == [[True, False], [False, False]]  # an empty set: nothing is likely


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [49, 99, 250])
def test_sets_equal_mapies(n: int, alpha: float) -> None:
    z, y = draws(n + 200, seed=n)
    probs = softmax(z, axis=1)
    peer = SplitConformalClassifier(
        Given(), confidence_level=1 - alpha, conformity_score="lac", prefit=True
    ).conformalize(probs[:n], y[:n])
    _, sets = peer.predict_set(probs[n:])
    told = conformal_sets(probs[:n], y[:n], probs[n:], alpha=alpha)
    np.testing.assert_array_equal(told.sets, sets[:, :, 0])


def test_the_rank_is_that_of_the_decimal_number() -> None:
    """n = 49, alpha = 0.7: rank 50 * 0.3 = 15. MAPIE computes in floats and rounds up to 16."""
    z, y = draws(49)
    probs = softmax(z, axis=1)
    peer = SplitConformalClassifier(
        Given(), confidence_level=0.3, conformity_score="lac", prefit=True
    ).conformalize(probs, y)
    _, sets = peer.predict_set(probs)
    scores = np.sort(1 - probs[np.arange(49), y])
    told = conformal_sets(probs, y, probs, alpha=0.7)
    assert told.threshold == pytest.approx(scores[14])
    np.testing.assert_array_equal(sets[:, :, 0], 1 - probs <= scores[15])


def test_coverage_is_the_promise_whatever_the_probabilities() -> None:
    """20 splits, badly overconfident probabilities: hits lie in the binomial interval."""
    z, y = draws(20 * 600)
    probs = softmax(5 * z, axis=1)
    hits = 0
    for rows in np.arange(len(y)).reshape(20, 600):
        cal, new = rows[:300], rows[300:]
        sets = conformal_sets(probs[cal], y[cal], probs[new], alpha=0.1).sets
        hits += sets[np.arange(300), y[new]].sum()
    low, high = binom.interval(0.999, 20 * 300, 0.9)
    # A split's coverage varies with its calibration rows too: beta, about as much again.
    assert 0.9 - 2 * (0.9 - low / 6000) < hits / 6000 < 0.9 + 2 * (high / 6000 - 0.9)


def test_too_few_rows_say_so() -> None:
    cal = np.tile([0.9, 0.1], (8, 1))
    with pytest.warns(UserWarning, match=r"8 calibration rows.*alpha=0.1: at least 9.*all classes"):
        told = conformal_sets(cal, [0] * 8, [[1.0, 0.0]], alpha=0.1)
    assert told.sets.tolist() == [[True, True]]
    assert told.threshold == np.inf
    cal = np.tile([0.9, 0.1], (9, 1))
    assert conformal_sets(cal, [0] * 9, cal, alpha=0.1).threshold == pytest.approx(0.1)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, NAN])
def test_bad_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        conformal_sets([[0.5, 0.5]], [0], [[0.5, 0.5]], alpha=alpha)


@pytest.mark.parametrize(
    ("cal", "y", "probs", "words"),
    [
        ([[0.5, 0.4]], [0], [[0.5, 0.5]], "probs_cal must sum to 1"),
        ([[0.5, 0.5]], [0], [[0.5, 0.4]], "probs must sum to 1"),
        ([[0.5, 0.5]], [2], [[0.5, 0.5]], "y_cal must lie"),
        ([[0.5, 0.5]], [0], [[0.5, 0.3, 0.2]], "2 classes, probs 3"),
    ],
)
def test_bad_sets(cal: Any, y: Any, probs: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        conformal_sets(cal, y, probs, alpha=0.5)
