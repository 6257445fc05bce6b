from typing import Any, NamedTuple

import fairlearn.metrics as theirs
import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, ExponentiatedGradient
from scipy.stats import binomtest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from xailab.data import load
from xailab.trust.fairness import (
    calibration_table,
    cost_curve,
    demographic_parity_difference,
    difference_table,
    equal_opportunity_difference,
    equalized_odds_difference,
    fair_thresholds,
    fairness_penalty,
    forced_fpr,
    group_table,
    reweigh,
    wilson_interval,
)

Array = np.ndarray
METRICS = [
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
]

# Ten people: six of group a (3 with y = 1), four of group b (1 with y = 1).
Y = [1, 1, 1, 0, 0, 0, 1, 0, 0, 0]
PRED = [1, 1, 0, 1, 0, 0, 1, 1, 1, 0]
GROUP = list("aaaaaabbbb")


class People(NamedTuple):
    y: Array
    pred: Array
    probs: Array
    group: Array


def people(n: int = 300, groups: int = 3, seed: int = 0, bias: float = 0.15) -> People:
    """Random people: groups differ in base rate and in how the score treats them."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    y = (rng.random(n) < 0.3 + 0.1 * group).astype(int)
    probs = np.clip(0.2 + 0.3 * y + bias * group + rng.normal(0, 0.2, n), 0, 1)
    return People(y, (probs >= 0.5).astype(int), probs, np.array(list("abcdefgh"))[group])


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


# ---- before training ---------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    """The applicants of Kamiran, Calders (2012): five of each sex, 4 of 5 men and 2 of
    5 women accepted; 0.5 * 0.6 / 0.4 = 0.75 for accepted men, and so on."""
    y = [1, 1, 1, 1, 0, 1, 1, 0, 0, 0]
    want = [0.75] * 4 + [2] + [1.5] * 2 + [2 / 3] * 3
    np.testing.assert_allclose(reweigh(y, ["m"] * 5 + ["f"] * 5), want, rtol=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_group_and_label_are_independent(seed: int) -> None:
    y, _, _, group = people(200, 4, seed)
    w = reweigh(y, group)
    assert demographic_parity_difference(y, y, group) > 0.1
    gap = theirs.demographic_parity_difference(y, y, sensitive_features=group, sample_weight=w)
    assert gap == pytest.approx(0, abs=1e-12)
    assert w.sum() == pytest.approx(200)
    for name in np.unique(group):
        assert w[group == name].sum() == pytest.approx((group == name).sum())


def test_no_weights_make_up_for_rows_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"y = 1 in groups \['b'\]"):
        reweigh([1, 0, 0, 0], list("aabb"))


# ---- during training ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_sure_logits_give_fairlearns_metrics_squared(seed: int) -> None:
    y, pred, _, group = people(seed=seed)
    logits = torch.tensor(2000.0 * pred - 1000)
    tpr = theirs.equal_opportunity_difference(y, pred, sensitive_features=group)
    fpr = theirs.equal_opportunity_difference(1 - y, pred, sensitive_features=group)
    want = {
        "demographic_parity": theirs.demographic_parity_difference(
            y, pred, sensitive_features=group
        )
        ** 2,
        "equal_opportunity": tpr**2,
        "equalized_odds": tpr**2 + fpr**2,
    }
    both = torch.stack([-logits / 2, logits / 2], dim=1)
    for name, value in want.items():
        for given in (logits, both):
            got = fairness_penalty(given, torch.tensor(y), group, constraint=name)  # type: ignore
            assert float(got) == pytest.approx(value, abs=1e-12)


def test_penalty_by_hand_and_its_gradient() -> None:
    """Means 1/2 and 3/4; d/dl = 2 * gap * (+-1/2) * p (1 - p)."""
    odds = torch.tensor([1.0, 1, 3, 3], dtype=torch.float64)
    logits = odds.log().requires_grad_()
    penalty = fairness_penalty(logits, torch.tensor([0, 1, 1, 0]), list("aabb"))
    assert float(penalty.detach()) == pytest.approx(1 / 16)
    (gradient,) = torch.autograd.grad(penalty, logits)
    np.testing.assert_allclose(gradient, [-1 / 16, -1 / 16, 3 / 64, 3 / 64], rtol=1e-12)


@pytest.mark.parametrize(
    "constraint", ["demographic_parity", "equal_opportunity", "equalized_odds"]
)
def test_penalty_gradient_by_differences(constraint: Any) -> None:
    y, _, probs, group = people(40)
    logits = torch.logit(torch.tensor(probs), eps=0.05).requires_grad_()
    labels = torch.tensor(y)
    assert torch.autograd.gradcheck(
        lambda z: fairness_penalty(z, labels, group, constraint=constraint), logits
    )


@pytest.mark.filterwarnings("ignore:Setting an? ")  # fairlearn, of its own code
def test_penalty_closes_the_gap_as_cheaply_as_fairlearns_reductions() -> None:
    """A logistic regression that sees the group. Its gap goes; fairlearn's mixture of many
    regressions, at a gap no smaller, is right no more than 1.5 points more often."""
    y, _, probs, group = people(400, 2, bias=0.3)
    x, labels = np.stack([probs, group == "b"], axis=1).astype(float), torch.tensor(y)
    before, after = (trained(x, labels, group, strength) for strength in (0, 100))
    assert soft_gap(before, group) > 0.05
    assert soft_gap(after, group) < 0.005
    rival = ExponentiatedGradient(
        LogisticRegression(C=1e6), DemographicParity(difference_bound=0.01)
    ).fit(x, y, sensitive_features=group)
    mixed = rival._pmf_predict(x)[:, 1]
    assert soft_gap(mixed, group) > 0.005
    assert accuracy(y, after >= 0.5) > accuracy(y, mixed) - 0.015


def trained(x: Array, labels: torch.Tensor, group: Array, strength: float) -> Array:
    """Return the probabilities of a logistic regression trained with the penalty."""
    inputs = torch.tensor(np.column_stack([x, np.ones(len(x))]))
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ weights
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.double())
        total = fit + strength * fairness_penalty(logits, labels, group)
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore
    return torch.sigmoid(inputs @ weights).detach().numpy()


def soft_gap(p: Array, group: Array) -> float:
    return abs(float(p[group == "a"].mean() - p[group == "b"].mean()))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"logits": np.zeros(4)}, TypeError, "ndarray"),
        ({"logits": torch.zeros(4, dtype=torch.long)}, TypeError, "int64"),
        ({"logits": torch.zeros(4, 3)}, ValueError, r"\(N, 2\), got \(4, 3\)"),
        ({"logits": torch.tensor([0.0, 0, 0, torch.nan])}, ValueError, "NaN"),
        ({"y": torch.tensor([0, 0, 1])}, ValueError, "4, got 3"),
        ({"y": torch.tensor([0, 1, 0, 0])}, ValueError, r"y = 1 in groups \['b'\]"),
        ({"group": list("aaaa")}, ValueError, "two groups"),
        ({"constraint": "kindness"}, ValueError, "equalized_odds.*'kindness'"),
    ],
)
def test_penalty_refusals(changes: Any, error: type[Exception], words: str) -> None:
    usual = {
        "logits": torch.zeros(4),
        "y": torch.tensor([0, 1, 1, 0]),
        "group": list("aabb"),
        "constraint": "equal_opportunity",
    }
    with pytest.raises(error, match=words):
        fairness_penalty(**(usual | changes))


# ---- after training ----------------------------------------------------------------------------


class Given(ClassifierMixin, BaseEstimator):
    """A "model" whose probability is its only feature, for fairlearn."""

    classes_ = np.array([0, 1])

    def fit(self, x: Array, y: Array) -> "Given":
        self.fitted_ = True
        return self

    def predict_proba(self, x: Array) -> Array:
        p = np.asarray(x)[:, 0]
        return np.stack([1 - p, p], axis=1)


THEIR_NAMES = {
    "demographic_parity": "demographic_parity",
    "equal_opportunity": "true_positive_rate_parity",
    "equalized_odds": "equalized_odds",
}


def their_chance(people: People, constraint: str, grid_size: int) -> Array:
    """Return the chance of a yes of each row by fairlearn's optimizer."""
    y, _, probs, group = people
    optimizer = ThresholdOptimizer(
        estimator=Given().fit(probs[:, None], y),
        constraints=THEIR_NAMES[constraint],
        grid_size=grid_size,
        prefit=True,
        predict_method="predict_proba",
    ).fit(probs[:, None], y, sensitive_features=group)
    return optimizer._pmf_predict(probs[:, None], sensitive_features=group)[:, 1]


def accuracy(y: Array, chance: Array) -> float:
    return float(np.mean(np.where(y == 1, chance, 1 - chance)))


def gaps(people: People, chance: Array, constraint: str) -> list[float]:
    """Return how far apart the expected rates of the groups are."""
    y, group = people.y, people.group
    among = {
        "demographic_parity": [y >= 0],
        "equal_opportunity": [y == 1],
        "equalized_odds": [y == 1, y == 0],
    }[constraint]
    means = [[chance[rows & (group == g)].mean() for g in np.unique(group)] for rows in among]
    return [float(np.ptp(row)) for row in means]


def even(sizes: dict[str, tuple[int, int]], seed: int) -> People:
    """People with exact numbers of y = 1 and y = 0 in each group."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.repeat([1, 0], size) for size in sizes.values()])
    group = np.concatenate([np.repeat(name, sum(size)) for name, size in sizes.items()])
    probs = np.clip(0.35 + 0.25 * y + 0.1 * (group == "b") + rng.normal(0, 0.2, len(y)), 0, 1)
    return People(y, (probs >= 0.5).astype(int), probs, group)


@pytest.mark.parametrize("constraint", ["demographic_parity", "equal_opportunity"])
@pytest.mark.parametrize("seed", range(5))
def test_thresholds_equal_fairlearns_where_its_grid_holds_the_answer(
    constraint: Any, seed: int
) -> None:
    """All rates are multiples of 1/200, and the best one is a rate of some group's threshold."""
    crowd = even({"a": (20, 20), "b": (10, 15), "c": (25, 25)}, seed)
    rule = fair_thresholds(crowd.y, crowd.probs, crowd.group, constraint=constraint)
    chance = rule.chance(crowd.probs, crowd.group)
    assert max(gaps(crowd, chance, constraint)) < 1e-9
    want = accuracy(crowd.y, their_chance(crowd, constraint, 200))
    assert accuracy(crowd.y, chance) == pytest.approx(want, abs=1e-9)
    assert 1 - rule.cost == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("constraint", list(THEIR_NAMES))
@pytest.mark.parametrize(("groups", "seed"), [(2, 0), (3, 1), (5, 2)])
def test_thresholds_are_as_good_as_fairlearns(constraint: Any, groups: int, seed: int) -> None:
    """Off its grid fairlearn can only be worse, and by less than a step of it."""
    crowd = people(700, groups, seed)
    rule = fair_thresholds(crowd.y, crowd.probs, crowd.group, constraint=constraint)
    chance = rule.chance(crowd.probs, crowd.group)
    assert max(gaps(crowd, chance, constraint)) < 1e-9
    theirs_ = their_chance(crowd, constraint, 1000)
    assert max(gaps(crowd, theirs_, constraint)) < 1e-9
    better = accuracy(crowd.y, chance) - accuracy(crowd.y, theirs_)
    assert -1e-9 < better < 2e-3


@pytest.mark.parametrize("seed", range(3))
def test_no_pair_of_thresholds_is_better(seed: int) -> None:
    """Two small groups: no pair of plain thresholds within the tolerance beats the lottery."""
    crowd = people(24, 2, seed)
    y, _, probs, group = crowd
    rule = fair_thresholds(y, probs, group, constraint="demographic_parity", tolerance=0.15)
    assert gaps(crowd, rule.chance(probs, group), "demographic_parity")[0] <= 0.15 + 1e-9
    best = 1.0
    for first in [*probs[group == "a"], np.inf]:
        for second in [*probs[group == "b"], np.inf]:
            pred = (probs >= np.where(group == "a", first, second)).astype(int)
            if demographic_parity_difference(y, pred, group) <= 0.15:
                best = min(best, float((pred != y).mean()))
    assert rule.cost <= best + 1e-9
    assert rule.cost > best - 0.1


def test_full_tolerance_is_each_groups_cheapest_threshold() -> None:
    y, _, probs, group = people(200, 3)
    rule = fair_thresholds(y, probs, group, tolerance=1, cost_fp=2, cost_fn=1)
    cheapest = 0.0
    for name in np.unique(group):
        mine = group == name
        costs = []
        for t in [*probs[mine], np.inf]:
            _, fp, fn, _ = confusion_matrix(y[mine], probs[mine] >= t, labels=[0, 1]).ravel()
            costs.append(2 * fp + fn)
        cheapest += min(costs) / len(y)
    assert rule.cost == pytest.approx(cheapest)
    assert all(len(lottery.chances) == 1 for lottery in rule.lotteries.values())


def test_fairness_costs_more_the_more_is_asked() -> None:
    y, _, probs, group = people(500, 3)
    for constraint in THEIR_NAMES:
        costs = [
            fair_thresholds(y, probs, group, constraint=constraint, tolerance=t).cost  # type: ignore
            for t in (1, 0.2, 0.1, 0.05, 0)
        ]
        assert all(np.diff(costs) > -1e-9)
        assert costs[-1] > costs[0]


def test_a_rule_by_hand() -> None:
    """a has a yes of 1 in 2, b of 1 in 3: b's share needs a lot. Error-free: a 0.9, b 0.8."""
    y, group = [1, 0, 1, 0, 0], list("aabbb")
    rule = fair_thresholds(y, [0.9, 0.1, 0.8, 0.3, 0.2], group, constraint="demographic_parity")
    # At rate 1/2 b errs by (1/2 - 1/3) * 3 = 1/2 a row; at rate 1/3 a errs by (1/2 - 1/3) * 2.
    assert rule.cost == pytest.approx((1 / 3) / 5)
    assert rule.likeliest() == {"a": 0.9, "b": 0.8}
    np.testing.assert_allclose(rule.lotteries["a"].chances, [1 / 3, 2 / 3])
    chance = rule.chance([0.95, 0.5, 0.85, 0.79], list("aabb"))
    np.testing.assert_allclose(chance, [2 / 3, 0, 1, 0], atol=1e-12)


def test_lots_are_drawn_as_often_as_promised_and_only_from_the_seed() -> None:
    crowd = people(300, 2)
    rule = fair_thresholds(crowd.y, crowd.probs, crowd.group, constraint="equalized_odds")
    chance = rule.chance(crowd.probs, crowd.group)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    draws = np.mean([rule.decide(crowd.probs, crowd.group, seed=s) for s in range(400)], axis=0)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    np.testing.assert_allclose(draws, chance, atol=0.1)  # 4 standard deviations
    again = rule.decide(crowd.probs, crowd.group, seed=3)
    assert (again == rule.decide(crowd.probs, crowd.group, seed=3)).all()
    certain = (chance == 0) | (chance == 1)
    assert (again[certain] == chance[certain]).all()


def test_without_lots_equal_opportunity_nearly_holds_and_equalized_odds_does_not() -> None:
    """One group is easy to tell apart, the other is not: it was made worse by lots."""
    rng = np.random.default_rng(0)
    group, y = np.repeat(["hard", "easy"], 1000), rng.integers(0, 2, 2000)
    noise = np.where(group == "easy", 0.1, 0.5)
    probs = np.clip(0.5 + 0.4 * (y - 0.5) + noise * rng.normal(size=2000), 0, 1)

    def without_lots(constraint: Any) -> Array:
        chosen = fair_thresholds(y, probs, group, constraint=constraint).likeliest()
        return (probs >= np.vectorize(chosen.get)(group)).astype(int)

    assert equal_opportunity_difference(y, without_lots("equal_opportunity"), group) < 0.02
    assert equalized_odds_difference(y, without_lots("equalized_odds"), group) > 0.1


def test_a_rule_has_no_answer_for_strangers() -> None:
    rule = fair_thresholds(Y, np.linspace(0, 1, 10), GROUP)
    with pytest.raises(ValueError, match=r"no threshold for 'c', only for \['a', 'b'\]"):
        rule.chance([0.5], ["c"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tolerance": -0.1}, r"0\.\.1, got -0.1"),
        ({"tolerance": float("nan")}, r"0\.\.1, got nan"),
        ({"cost_fp": -1}, "cost_fp=-1"),
        ({"cost_fn": float("inf")}, "cost_fn=inf"),
        ({"constraint": "calibration"}, "'calibration'"),
        ({"y": [0] * 6 + [1, 0, 0, 0]}, r"y = 1 in groups \['a'\]"),
        ({"y": [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]}, r"y = 0 in groups \['b'\]"),
    ],
)
def test_thresholds_refusals(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fair_thresholds(**{"y": Y, "probs": [0.5] * 10, "group": GROUP, **options})


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


def test_nothing_given_is_changed() -> None:
    crowd = people(80, 2)
    before = [column.copy() for column in crowd]
    for function in METRICS:
        function(crowd.y, crowd.pred, crowd.group)
    group_table(crowd.y, crowd.pred, crowd.group, probs=crowd.probs)
    reweigh(crowd.y, crowd.group)
    fair_thresholds(crowd.y, crowd.probs, crowd.group).decide(crowd.probs, crowd.group)
    for column, copy in zip(crowd, before, strict=True):
        np.testing.assert_array_equal(column, copy)


# ---- real people -------------------------------------------------------------------------------


def test_compas_has_what_propublica_found() -> None:
    """Angwin et al. (2016), all defendants, medium or high scores against charged again:
    false positives 44.9 % of black and 23.5 % of white people, false negatives 28.0 % and 47.7 %;
    and Chouldechova (2017): precision is nearly equal, so base rates force the gap."""
    data = load("compas")
    pred = (data.extra["score_text"] != "Low").astype(int)
    table = group_table(data.y, pred, data.X.race).loc[["African-American", "Caucasian"]]
    np.testing.assert_allclose(table.fpr, [0.4485, 0.2345], atol=5e-5)
    np.testing.assert_allclose(1 - table.tpr, [0.2799, 0.4772], atol=5e-5)
    assert table.precision.diff().abs().max() < 0.04
    for _, row in table.iterrows():
        assert forced_fpr(row.base_rate, ppv=row.precision, tpr=row.tpr) == pytest.approx(row.fpr)


def test_mending_a_regression_on_compas() -> None:
    """All three shrink its gap where it may see race. Weights alone do next to nothing where it
    may not: the columns that carry race keep their meaning."""
    data = load("compas")
    two = data.X.race.isin(["African-American", "Caucasian"]).to_numpy()
    y, race = data.y[two], data.X.race[two].to_numpy()
    blind = data.X.loc[two, ["age", "priors_count", "juv_fel_count"]].to_numpy(float)
    blind = (blind - blind.mean(0)) / blind.std(0)
    weights = reweigh(y, race)

    def gap(x: Array, weights: Array | None = None) -> float:
        pred = LogisticRegression().fit(x, y, sample_weight=weights).predict(x)
        return demographic_parity_difference(y, pred, race)

    seeing = np.column_stack([blind, race == "Caucasian"])
    assert gap(seeing) > 0.2
    assert gap(seeing, weights) < 0.1
    assert gap(blind, weights) > 0.2
    plain = LogisticRegression().fit(seeing, y).predict_proba(seeing)[:, 1]
    errors = np.mean((plain >= 0.5) != y)
    for constraint in THEIR_NAMES:
        rule = fair_thresholds(y, plain, race, constraint=constraint)  # type: ignore
        chance = rule.chance(plain, race)
        assert max(gaps(People(y, y, plain, race), chance, constraint)) < 1e-9
        assert errors - 0.01 < rule.cost < errors + 0.05


# ---- the figures of lesson 25 --------------------------------------------------------------------


def two_groups() -> tuple[Array, Array, Array]:
    """Return COMPAS's two largest groups: seven standardized columns, y, race."""
    data = load("compas")
    data = data.take(data.X.race.isin(["African-American", "Caucasian"]).to_numpy())
    columns = [data.X[name] for name in ("age", "priors_count", "juv_fel_count", "juv_misd_count")]
    columns += [data.X.juv_other_count, data.X.c_charge_degree == "F", data.X.sex == "Male"]
    x = np.column_stack([np.asarray(column, float) for column in columns])
    return (x - x.mean(0)) / x.std(0), data.y, data.X.race.to_numpy()


def halves(n: int, seed: int = 0) -> tuple[Array, Array]:
    train, test = np.split(np.random.default_rng(seed).permutation(n), 2)
    return train, test


def penalized(x: Array, y: Array, group: Array, strength: float) -> Any:
    """Fit a logistic regression by gradient descent with the penalty; return it as a function."""
    layer = torch.nn.Linear(x.shape[1], 1).double()
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    inputs, labels = torch.tensor(x), torch.tensor(y).double()
    for _ in range(150):
        optimizer.zero_grad()
        logits = layer(inputs)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        (loss + strength * fairness_penalty(logits, labels, group)).backward()
        optimizer.step()
    return lambda rows: (layer(torch.tensor(rows))[:, 0] > 0).long().numpy()


def test_three_ways_of_mending_hold_on_people_they_have_not_seen() -> None:
    """The parity gap of about .2 shrinks, for at most four points of accuracy. Weights and penalty
    overshoot with a linear model: they equalize data and mean probabilities, not decisions."""
    blind, y, race = two_groups()
    train, test = halves(len(y))
    seeing = np.column_stack([blind, race == "Caucasian"])
    plain = LogisticRegression().fit(seeing[train], y[train])
    weights = reweigh(y[train], race[train])
    weighed = LogisticRegression().fit(seeing[train], y[train], sample_weight=weights)
    probs = plain.predict_proba(seeing)[:, 1]
    rule = fair_thresholds(y[train], probs[train], race[train], constraint="demographic_parity")
    pressed = penalized(seeing[train], y[train], race[train], 3.0)
    ways = {
        "before": weighed.predict(seeing[test]),
        "during": pressed(seeing[test]),
        "after": rule.decide(probs[test], race[test]),
    }
    start = plain.predict(seeing[test])
    assert demographic_parity_difference(y[test], start, race[test]) > 0.18
    allowed = {"before": 0.15, "during": 0.15, "after": 0.1}
    rates = group_table(y[test], ways["before"], race[test]).selection_rate
    assert rates["Caucasian"] > rates["African-American"]
    for name, pred in ways.items():
        assert demographic_parity_difference(y[test], pred, race[test]) < allowed[name], name
        lost = np.mean(start == y[test]) - np.mean(pred == y[test])
        assert -0.01 < lost < 0.04, name


def test_leaving_race_out_leaves_the_gap() -> None:
    """And what is left tells race better than chance, though far from surely."""
    from sklearn.metrics import roc_auc_score

    blind, y, race = two_groups()
    train, test = halves(len(y))
    pred = LogisticRegression().fit(blind[train], y[train]).predict(blind[test])
    assert demographic_parity_difference(y[test], pred, race[test]) > 0.15
    black = race == "African-American"
    tells = LogisticRegression().fit(blind[train], black[train])
    auc = roc_auc_score(black[test], tells.decision_function(blind[test]))
    assert 0.6 < auc < 0.75


def test_a_gap_in_scores_is_shared_out_among_columns() -> None:
    """Shapley values of one group against the other sum to the gap; linear ones by hand."""
    from xailab.attribution.shapley import kernel_shap

    blind, y, race = two_groups()
    black, white = (blind[race == name][:40] for name in ("African-American", "Caucasian"))
    model = LogisticRegression().fit(blind, y)
    shares = kernel_shap(model.decision_function, black, white).mean(0)
    by_hand = model.coef_[0] * (black.mean(0) - white.mean(0))
    np.testing.assert_allclose(shares, by_hand, atol=1e-9)


def test_plain_thresholds_can_close_all_three_gaps_but_not_that_of_precision() -> None:
    """On COMPAS, as the reader finds with the sliders: another equation gives way."""
    blind, y, race = two_groups()
    probs = LogisticRegression().fit(blind, y).predict_proba(blind)[:, 1]

    def at(first: float, second: float) -> Array:
        return (probs >= np.where(race == "Caucasian", second, first)).astype(int)

    grid = np.arange(0.4, 0.7, 0.02)
    best = min(
        ((a, b) for a in grid for b in grid),
        key=lambda cut: max(metric(y, at(*cut), race) for metric in METRICS),
    )
    assert max(metric(y, at(*best), race) for metric in METRICS) < 0.05
    precision = group_table(y, at(*best), race).precision
    assert precision["African-American"] - precision["Caucasian"] > 0.06


def test_parity_on_adult_makes_the_odds_gap_worse() -> None:
    data = load("adult").take(np.random.default_rng(0).permutation(48_842)[:6000])
    names = ["workclass", "marital_status", "occupation", "relationship"]
    x = pd.get_dummies(data.X[["age", "education_num", "hours_per_week", *names]]).astype(float)
    x = ((x - x.mean()) / x.std()).to_numpy()
    sex, y = data.X.sex.to_numpy(), data.y
    probs = LogisticRegression(max_iter=500, C=0.1).fit(x, y).predict_proba(x)[:, 1]
    plain = (probs >= 0.5).astype(int)
    rule = fair_thresholds(y, probs, sex, constraint="demographic_parity")
    decided = rule.decide(probs, sex)
    assert demographic_parity_difference(y, decided, sex) < 0.03
    before = equalized_odds_difference(y, plain, sex)
    assert equalized_odds_difference(y, decided, sex) > before + 0.05


def test_equal_odds_on_a_skewed_label_are_not_equal_in_truth() -> None:
    """Two groups that behave alike; of what B does, twice as much is recorded. Parity, which
    never looks at the label, is nearer to the truth than equalized odds, which trust it."""
    rng = np.random.default_rng(0)
    town, inclined = rng.choice(["A", "B"], 20_000), rng.normal(size=20_000)
    seen = np.where(town == "A", 0.4, 0.8)
    did = (rng.random(20_000) < 1 / (1 + np.exp(0.5 - 1.5 * inclined))).astype(int)
    label = did * (rng.random(20_000) < seen)
    earlier = rng.binomial(rng.poisson(np.exp(0.8 * inclined)), seen)
    x = np.column_stack([inclined + rng.normal(size=20_000), np.log1p(earlier)])
    probs = LogisticRegression().fit(x, label).predict_proba(x)[:, 1]
    gap = {}
    for constraint in ("equalized_odds", "demographic_parity"):
        rule = fair_thresholds(label, probs, town, constraint=constraint, cost_fn=2)  # type: ignore
        decided = rule.decide(probs, town)
        gap[constraint] = [equalized_odds_difference(t, decided, town) for t in (label, did)]
    assert gap["equalized_odds"][0] < gap["demographic_parity"][0] - 0.02  # by the label
    assert gap["equalized_odds"][1] > gap["demographic_parity"][1] + 0.02  # by the truth
    assert abs(did[town == "A"].mean() - did[town == "B"].mean()) < 0.02


def test_a_group_drawn_by_lot_has_a_gap_too() -> None:
    """32 White people of 2,454: there is nothing to find, and the mean gap is above .05."""
    data = load("compas")
    data = data.take((data.X.race == "Caucasian").to_numpy())
    flagged = (data.extra["decile_score"] >= 5).astype(int)
    gaps = [
        demographic_parity_difference(
            data.y, flagged, np.random.default_rng(seed).permutation(len(flagged)) < 32
        )
        for seed in range(50)
    ]
    assert 0.05 < np.mean(gaps) < 0.09


def test_arrests_differ_also_at_equal_records() -> None:
    """Black people are released less often, at each number of data bases up to four."""
    data = load("arrests")
    for checks in range(5):
        same = data.take((data.X.checks == checks).to_numpy())
        found = difference_table(same.y, same.y, same.X.colour, reference="White").loc["Black"]
        assert found.selection_rate_high < 0
