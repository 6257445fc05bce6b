"""Ways of mending by hand, and against fairlearn's."""

from typing import Any

import fairlearn.metrics as theirs
import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, ExponentiatedGradient
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from tests.people import GROUP, Array, People, Y, people
from xailab.data import load
from xailab.trust.fairness import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    fair_thresholds,
    fairness_penalty,
    reweigh,
)

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


# ---- forms of input ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["(N,)", "(N, 1)", "(N, 2)"])
def test_one_logit_or_two_give_one_penalty(dtype: torch.dtype, form: str) -> None:
    """Mean probabilities 1/2 and 3/4: a gap of 1/4, squared."""
    z = torch.tensor([0.0, 0.0, 100.0, 0.0], dtype=dtype, requires_grad=True)
    forms = {"(N,)": z, "(N, 1)": z[:, None], "(N, 2)": torch.stack([z * 0 + 1, z + 1], 1)}
    got = fairness_penalty(forms[form], torch.tensor([0, 1, 1, 0]), list("aabb"))
    assert got.item() == pytest.approx(1 / 16)
    assert got.dtype == (dtype if dtype == torch.float64 else torch.float32)
    (slope,) = torch.autograd.grad(got, z)
    assert slope.abs().max() > 0


def test_groups_that_are_tuples_are_mended_as_their_joined_names_are() -> None:
    y, _, probs, group = people(200, 2)
    pairs = [(name, 0) for name in group.tolist()]
    np.testing.assert_array_equal(reweigh(y, pairs), reweigh(y, group))
    want, got = fair_thresholds(y, probs, group), fair_thresholds(y, probs, pairs)
    assert got.likeliest() == {(name, 0): t for name, t in want.likeliest().items()}
    np.testing.assert_array_equal(got.chance(probs, pairs), want.chance(probs, group))
    logits = torch.tensor(probs)
    assert fairness_penalty(logits, torch.tensor(y), pairs) == fairness_penalty(
        logits, torch.tensor(y), group
    )


def test_shuffled_series_are_not_mended() -> None:
    y, _, probs, group = people(60, 2)
    shuffled = pd.Series(group)[::-1]
    rule = fair_thresholds(y, probs, group)
    for call in (
        lambda: reweigh(pd.Series(y), shuffled),
        lambda: fair_thresholds(pd.Series(y), probs, shuffled),
        lambda: fair_thresholds(y, pd.Series(probs), shuffled),
        lambda: rule.chance(pd.Series(probs), shuffled),
    ):
        with pytest.raises(ValueError, match="in another order"):
            call()
