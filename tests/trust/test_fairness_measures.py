"""Measures of fairness by hand, and against fairlearn, scipy and scikit-learn."""

from typing import Any

import fairlearn.metrics as theirs
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from tests.people import GROUP, METRICS, PRED, Y, people
from xailab.trust.fairness import (
    calibration_table,
    cost_curve,
    demographic_parity_difference,
    difference_table,
    equal_opportunity_difference,
    equalized_odds_difference,
    forced_fpr,
    group_table,
    wilson_interval,
)

# ---- measuring ---------------------------------------------------------------------------------


def test_table_by_hand() -> None:
    """a: selects 3 of 6, 2 of 3 with y = 1, 1 of 3 with y = 0. b: 3 of 4, 1 of 1, 2 of 3."""
    table = group_table(Y, PRED, GROUP, probs=[0.5] * 6 + [0.25] * 4)
    assert table.index.tolist() == ["a", "b"]
    assert table[["n", "positives", "selected"]].to_numpy().tolist() == [[6, 3, 3], [4, 1, 3]]
    rates = ["base_rate", "selection_rate", "tpr", "fpr", "precision", "mean_probability"]
    np.testing.assert_allclose(
        table[rates],
        [[1 / 2, 1 / 2, 2 / 3, 1 / 3, 2 / 3, 1 / 2], [1 / 4, 3 / 4, 1, 2 / 3, 1 / 3, 1 / 4]],
        rtol=1e-15,
    )
    low, high = table.loc["a", "tpr_low"], table.loc["a", "tpr_high"]
    assert (low, high) == pytest.approx(tuple(wilson_interval(2, 3)))


def test_differences_by_hand() -> None:
    assert demographic_parity_difference(Y, PRED, GROUP) == 1 / 4
    assert equal_opportunity_difference(Y, PRED, GROUP) == pytest.approx(1 / 3)
    assert equalized_odds_difference(Y, PRED, GROUP) == pytest.approx(1 / 3)


def their_table(y: Any, pred: Any, group: Any) -> pd.DataFrame:
    from sklearn.metrics import precision_score

    metrics = {
        "n": theirs.count,
        "base_rate": lambda true, _: theirs.selection_rate(true, true),
        "selection_rate": theirs.selection_rate,
        "tpr": theirs.true_positive_rate,
        "fpr": theirs.false_positive_rate,
        "precision": precision_score,
    }
    frame = theirs.MetricFrame(metrics=metrics, y_true=y, y_pred=pred, sensitive_features=group)
    return frame.by_group


@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("seed", range(5))
def test_every_metric_equals_fairlearns(groups: int, seed: int) -> None:
    y, pred, _, group = people(400, groups, seed)
    for ours in METRICS:
        want = getattr(theirs, ours.__name__)(y, pred, sensitive_features=group)
        assert ours(y, pred, group) == pytest.approx(want, rel=0, abs=1e-12)
    want = their_table(y, pred, group)
    got = group_table(y, pred, group)[want.columns]
    np.testing.assert_allclose(got.to_numpy(float), want.to_numpy(float), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("y", "pred", "group"),
    [
        ([1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]),  # all selected
        ([1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 1]),  # nobody
        ([1, 0, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]),  # one perfect, the other all wrong
        ([1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 0, 0], [2, 2, 7, 7, -1, -1]),  # two rows a group
        ([True, False] * 3, [1.0, 0.0] * 3, [True] * 4 + [False] * 2),  # other ways of writing 0, 1
    ],
)
def test_edges_equal_fairlearns(y: Any, pred: Any, group: Any) -> None:
    for ours in METRICS:
        want = getattr(theirs, ours.__name__)(y, pred, sensitive_features=group)
        assert ours(y, pred, group) == pytest.approx(want, rel=0, abs=1e-12)


def test_where_fairlearn_makes_a_gap_out_of_nothing() -> None:
    """Group b has nobody to find. fairlearn calls that "0 % found"; here it is refused."""
    y, pred, group = [1, 1, 0, 0], [1, 1, 1, 0], list("aabb")
    assert theirs.equal_opportunity_difference(y, pred, sensitive_features=group) == 1
    with pytest.raises(ValueError, match=r"tpr does not exist.*y = 1.*\['b'\]"):
        equal_opportunity_difference(y, pred, group)
    with pytest.raises(ValueError, match=r"fpr does not exist.*y = 0.*\['a'\]"):
        equalized_odds_difference([1, 1, 1, 0], pred, group)
    assert theirs.demographic_parity_difference(y, pred, sensitive_features=list("aaaa")) == 0
    with pytest.raises(ValueError, match=r"two groups or more, got only \['a'\]"):
        demographic_parity_difference(y, pred, list("aaaa"))


def test_the_table_leaves_empty_what_does_not_exist() -> None:
    table = group_table([1, 1, 0, 0], [0, 0, 1, 1], list("aabb"))
    missing = ["fpr", "fpr_low", "fpr_high", "precision", "precision_low", "precision_high"]
    assert table.columns[table.loc["a"].isna()].tolist() == missing
    assert table.columns[table.loc["b"].isna()].tolist() == ["tpr", "tpr_low", "tpr_high"]


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, torch.tensor])
def test_any_kind_of_column(kind: Any) -> None:
    y, pred, probs, group = people(60)
    numbers = np.unique(group, return_inverse=True)[1]
    want = group_table(y, pred, numbers, probs=probs).to_numpy()
    got = group_table(kind(y), kind(pred), kind(numbers), probs=kind(probs)).to_numpy()
    np.testing.assert_array_equal(got, want)


# ---- intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_intervals_equal_scipys(confidence: float) -> None:
    for k, n in [(0, 1), (1, 1), (0, 30), (3, 10), (10, 10), (499, 1000)]:
        want = binomtest(k, n).proportion_ci(confidence, method="wilson")
        got = wilson_interval(k, n, confidence=confidence)
        np.testing.assert_allclose(got, [want.low, want.high], rtol=0, atol=1e-12)


def test_interval_by_hand() -> None:
    """z = 2 makes it round: (8 + 2 +- 2 sqrt(8 * 8 / 16 + 1)) / (16 + 4)."""
    confidence = 0.9544997361036416  # two standard deviations
    root = 5**0.5
    want = [(10 - 2 * root) / 20, (10 + 2 * root) / 20]
    np.testing.assert_allclose(wilson_interval(8, 16, confidence=confidence), want, rtol=1e-12)


def test_intervals_cover_as_often_as_they_say() -> None:
    """All 41 possible counts, weighted by how likely they are, for true shares 2 % to 98 %."""
    from scipy.stats import binom

    counts, shares = np.arange(41), np.linspace(0.02, 0.98, 97)
    low, high = wilson_interval(counts, 40)
    inside = (low <= shares[:, None]) & (shares[:, None] <= high)
    coverage = (inside * binom.pmf(counts, 40, shares[:, None])).sum(1)
    assert coverage.mean() == pytest.approx(0.95, abs=0.01)
    assert coverage.min() > 0.88


def test_interval_refusals() -> None:
    with pytest.raises(ValueError, match=r"0\.\.n, got 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="got 95"):
        wilson_interval(1, 2, confidence=95)


def test_difference_intervals_by_newcombe() -> None:
    """Newcombe (1998), table II, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    pred = np.repeat([1, 0, 1, 0], [56, 14, 48, 32])
    group = np.repeat(["one", "two"], [70, 80])
    found = difference_table(pred, pred, group, reference="two").loc["one"]
    names = ["selection_rate", "selection_rate_low", "selection_rate_high"]
    np.testing.assert_allclose(found[names].astype(float), [0.2, 0.0524, 0.3339], atol=5e-5)


def test_difference_intervals_are_near_fairlearns_bootstrap() -> None:
    y, pred, _, group = people(1000, 2)
    quantiles = [0.025, 0.975]
    frame = theirs.MetricFrame(
        metrics=theirs.true_positive_rate,
        y_true=y,
        y_pred=pred,
        sensitive_features=group,
        n_boot=40,
        ci_quantiles=quantiles,
        random_state=0,
    )
    found = difference_table(y, pred, group, reference="a").loc["b"]
    ends = [abs(found["tpr_low"]), abs(found["tpr_high"])]  # fairlearn's differences have no sign
    np.testing.assert_allclose(sorted(ends), frame.difference_ci(), atol=0.06)


def test_differences_need_a_group_that_is_there() -> None:
    with pytest.raises(ValueError, match=r"\['a', 'b'\], got 'c'"):
        difference_table(Y, PRED, GROUP, reference="c")


# ---- calibration -------------------------------------------------------------------------------


def test_calibration_equals_scikit_learns() -> None:
    y, _, probs, group = people(500, 2)
    table = calibration_table(y, probs, group, n_bins=5)
    for name in "ab":
        mine = group == name
        observed, predicted = calibration_curve(y[mine], probs[mine], n_bins=5)
        np.testing.assert_allclose(table.loc[name].observed, observed, rtol=1e-12)
        np.testing.assert_allclose(table.loc[name].mean_probability, predicted, rtol=1e-12)
        assert table.loc[name].n.sum() == mine.sum()


def test_a_calibrated_score_lies_inside_and_a_tilted_one_does_not() -> None:
    rng = np.random.default_rng(0)
    probs, group = rng.random(20_000), rng.choice(["a", "b"], 20_000)
    y = (rng.random(20_000) < np.where(group == "a", probs, probs**2)).astype(int)
    table = calibration_table(y, probs, group)
    inside = table.mean_probability.between(table.observed_low, table.observed_high)
    assert inside["a"].sum() >= 8  # 95 % each, of ten
    assert inside["b"].sum() <= 2
    whole = group_table(y, y, group, probs=probs)
    whole_inside = whole.mean_probability.between(whole.base_rate_low, whole.base_rate_high)
    assert whole_inside.to_dict() == {"a": True, "b": False}


def test_probability_one_is_in_the_last_bin() -> None:
    table = calibration_table([1, 1, 0], [1.0, 0.95, 0.0], ["a"] * 3, n_bins=4)
    assert table.n.to_dict() == {("a", 0): 1, ("a", 3): 2}


# ---- impossibility -----------------------------------------------------------------------------


def test_forced_rate_is_what_one_counts() -> None:
    y, pred, _, group = people(1000)
    for _, row in group_table(y, pred, group).iterrows():
        got = forced_fpr(row.base_rate, ppv=row.precision, tpr=row.tpr)
        assert got == pytest.approx(row.fpr, rel=1e-12)


def test_equal_precision_and_tpr_force_unequal_fpr() -> None:
    """Groups of 100 with 50 and 20 positives, 60 % of each found, 3 of 4 selected rightly."""
    y = np.repeat([1, 0, 1, 0], [50, 50, 20, 80])
    pred = np.concatenate([np.repeat([1, 0], split) for split in [(30, 20), (10, 40), (12, 8)]])
    pred = np.concatenate([pred, np.repeat([1, 0], [4, 76])])
    table = group_table(y, pred, np.repeat(["a", "b"], 100))
    assert table.tpr.tolist() == [0.6, 0.6]
    assert table.precision.tolist() == [0.75, 0.75]
    assert table.fpr.tolist() == [0.2, 0.05]
    assert forced_fpr(0.5, ppv=0.75, tpr=0.6) == pytest.approx(0.2)
    assert forced_fpr(0.2, ppv=0.75, tpr=0.6) == pytest.approx(0.05)
    assert forced_fpr(0.2, ppv=1, tpr=0.6) == forced_fpr(0.5, ppv=1, tpr=0.6) == 0


def test_what_cannot_occur_together() -> None:
    with pytest.raises(ValueError, match=r"cannot occur together.*would be 4"):
        forced_fpr(0.8, ppv=0.5, tpr=1)
    for bad in ({"base_rate": 1}, {"ppv": 0}, {"tpr": 1.1}, {"ppv": np.nan}):
        with pytest.raises(ValueError, match="must lie in"):
            forced_fpr(**{"base_rate": 0.5, "ppv": 0.5, "tpr": 0.5, **bad})


# ---- costs -------------------------------------------------------------------------------------


def test_cost_curve_counts_errors() -> None:
    y, _, probs, group = people(150, 3)
    probs = probs.round(1)  # many on a threshold exactly
    curve = cost_curve(y, probs, group, cost_fp=1, cost_fn=3, n_thresholds=11)
    for t, overall in zip(curve.thresholds, curve.overall, strict=True):
        _, fp, fn, _ = confusion_matrix(y, probs >= t, labels=[0, 1]).ravel()
        assert overall == pytest.approx((fp + 3 * fn) / len(y))
    mine = group == "b"
    _, fp, fn, _ = confusion_matrix(y[mine], probs[mine] >= curve.thresholds[4]).ravel()
    assert curve.by_group["b"].iloc[4] == pytest.approx((fp + 3 * fn) / mine.sum())


def test_calibrated_scores_are_cheapest_at_the_ratio_of_costs() -> None:
    rng = np.random.default_rng(0)
    probs, group = rng.random(50_000), rng.choice(["a", "b"], 50_000)
    y = (rng.random(50_000) < probs).astype(int)
    curve = cost_curve(y, probs, group, cost_fp=1, cost_fn=4)
    np.testing.assert_allclose(curve.by_group.idxmin(), 0.2, atol=0.05)


# ---- refusals ----------------------------------------------------------------------------------

BAD = [
    ({"y": [*Y[:9], 2]}, ValueError, r"y must hold 0 and 1 alone, got \[2\]"),
    ({"y": [*Y[:9], -1]}, ValueError, r"got \[-1\]"),
    ({"y": [*Y[:9], float("nan")]}, ValueError, r"got \[nan\]"),
    ({"y": [*Y[:9], 0.5]}, ValueError, r"got \[0.5\]"),
    ({"y": ["no"] * 10}, TypeError, "numbers, got"),
    ({"y": []}, ValueError, r"\(0,\)"),
    ({"y": np.zeros((10, 1))}, ValueError, r"\(10, 1\)"),
    ({"second": [0.0] * 9}, ValueError, "10, got 9"),
    ({"second": [*[0.0] * 9, float("nan")]}, ValueError, "nan"),
    ({"second": [*[0.0] * 9, 1.5]}, ValueError, r"1\.5"),
    ({"group": GROUP[:9]}, ValueError, r"\(10,\), got shape \(9,\)"),
    ({"group": np.zeros((10, 2))}, ValueError, r"\(10, 2\)"),
    ({"group": [*GROUP[:9], None]}, ValueError, "missing .NaN or None. in 1 rows"),
    ({"group": [float("nan"), *[1.0] * 9]}, ValueError, "in 1 rows"),
    ({"group": pd.Categorical(GROUP, list("abc"))}, ValueError, r"no members: \['c'\]"),
]


@pytest.mark.parametrize("function", [*METRICS, group_table, calibration_table, cost_curve])
@pytest.mark.parametrize(("changes", "error", "words"), BAD)
def test_refusals(function: Any, changes: Any, error: type[Exception], words: str) -> None:
    """`second` is pred or probs: both refuse 1.5 and NaN."""
    usual = {"y": Y, "second": PRED, "group": GROUP}
    with pytest.raises(error, match=words):
        function(*(usual | changes).values())


# ---- groups of two columns -----------------------------------------------------------------------


def test_groups_that_are_tuples_count_as_their_joined_names_do() -> None:
    y, pred, probs, group = people(200, 2)
    other = np.random.default_rng(5).integers(0, 2, 200)
    pairs = list(zip(group.tolist(), other.tolist(), strict=True))
    joined = [f"{a}{b}" for a, b in pairs]
    for metric in METRICS:
        assert metric(y, pred, pairs) == metric(y, pred, joined)
    for function, second in ((group_table, pred), (calibration_table, probs)):
        want, got = function(y, second, joined), function(y, second, pd.Series(pairs))
        np.testing.assert_array_equal(got.to_numpy(), want.to_numpy())
        assert len(got.loc["a", 1].to_numpy()) > 0
    assert calibration_table(y, probs, pairs).index.names == ["group 0", "group 1", "bin"]
    assert group_table(y, pred, pairs).loc[("a", 1)].n == sum(p == ("a", 1) for p in pairs)
    want = difference_table(y, pred, joined, reference="b1")
    got = difference_table(y, pred, pairs, reference=("b", 1))
    np.testing.assert_array_equal(got.to_numpy(), want.to_numpy())
    want, got = cost_curve(y, probs, joined).by_group, cost_curve(y, probs, pairs).by_group
    np.testing.assert_array_equal(got["a", 0], want["a0"])


def test_groups_of_mixed_kinds_keep_their_names() -> None:
    """Text and numbers in one column: not everything becomes text."""
    table = calibration_table([1, 0], [0.9, 0.1], ["1", 1], n_bins=2)
    assert table.index.tolist() == [("1", 1), (1, 0)]


@pytest.mark.parametrize("function", [*METRICS, group_table, calibration_table, cost_curve])
def test_shuffled_series_are_refused(function: Any) -> None:
    y = pd.Series(Y)
    second, group = pd.Series(PRED), pd.Series(GROUP)
    want = function(Y, PRED, GROUP)
    later = function(y, second.set_axis(range(5, 15)), group)  # other labels: by position
    assert str(later) == str(want)
    for changed in ((y, second[::-1], group), (y, second, group[::-1])):
        with pytest.raises(ValueError, match="in another order"):
            function(*changed)
    with pytest.raises(ValueError, match="another order"):
        group_table(Y, PRED, group, probs=second[::-1])


def test_one_group_is_enough_for_tables() -> None:
    whole = ["all"] * 10
    assert group_table(Y, PRED, whole).n.tolist() == [10]
    assert calibration_table(Y, PRED, whole).n.sum() == 10
    assert cost_curve(Y, PRED, whole).by_group.shape == (101, 1)
    with pytest.raises(ValueError, match="two groups or more"):
        difference_table(Y, PRED, whole, reference="all")


@pytest.mark.parametrize(("option", "value"), [("n_bins", 0), ("n_bins", 2.0)])
def test_bins_are_counted(option: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=option):
        calibration_table(Y, PRED, GROUP, **{option: value})
    assert len(calibration_table(Y, PRED, GROUP, n_bins=np.int64(1))) == 2
