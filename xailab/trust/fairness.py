"""Does the model treat groups of people alike: measuring it, and three ways of mending it.

Lesson 25 teaches this file. Everywhere y is what happened (0 or 1), pred what the model decided
(0 or 1), probs its probability of a 1, and group says which group a row belongs to: one value a
row, as text or numbers. A number from this file describes decisions and records; whether the
records are themselves fair, it cannot say.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linprog
from scipy.special import ndtri
from sklearn.metrics import roc_curve
from torch import Tensor

from xailab.core.checks import check_positive

Array = np.ndarray
Labels: TypeAlias = Array | Tensor | pd.Series | Sequence[int]
Numbers: TypeAlias = Array | Tensor | pd.Series | Sequence[float]
Groups: TypeAlias = Array | Tensor | pd.Series | pd.Categorical | Sequence[Hashable]
Constraint = Literal["demographic_parity", "equal_opportunity", "equalized_odds"]

# What each demand wants equal in all groups.
_DEMANDS = {
    "demographic_parity": ["selection_rate"],
    "equal_opportunity": ["tpr"],
    "equalized_odds": ["tpr", "fpr"],
}


# ---- measuring ---------------------------------------------------------------------------------


class Interval(NamedTuple):
    """Lower and upper ends of confidence intervals."""

    low: Array
    high: Array


def wilson_interval(hits: Numbers, n: Numbers, *, confidence: float = 0.95) -> Interval:
    r"""Confidence interval of a share: k hits in n rows.

    $$\frac{k + z^2/2}{n + z^2} \pm \frac{z}{n + z^2} \sqrt{\frac{k (n - k)}{n} + \frac{z^2}{4}}$$

    z is 1.96 for 95 %. Unlike $\hat p \pm z \sqrt{\hat p (1 - \hat p) / n}$ it never leaves 0..1
    and does not shrink to nothing when all rows, or none, are hits.

    Args:
        hits: k, counts of any shape.
        n: rows, counts of a shape that broadcasts with `hits`.
        confidence: how often such intervals cover the true share, in (0, 1).

    Returns:
        Ends of the intervals; NaN where n is 0.

    Raises:
        ValueError: not 0 <= k <= n, or a confidence outside (0, 1).

    Reference: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    Elsewhere: scipy `binomtest(k, n).proportion_ci(method="wilson")`.

    >>> low, high = wilson_interval(8, 10)
    >>> round(float(low), 2), round(float(high), 2)
    (0.49, 0.94)
    """
    k, rows = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if not ((k >= 0) & (k <= rows)).all():
        raise ValueError(f"hits must lie in 0..n, got {hits} of {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    z = ndtri((1 + confidence) / 2)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN, as promised
        half = z * np.sqrt(k * (rows - k) / rows + z**2 / 4) / (rows + z**2)
    middle = (k + z**2 / 2) / (rows + z**2)
    return Interval(np.maximum(middle - half, 0), np.minimum(middle + half, 1))


def group_table(
    y: Labels,
    pred: Labels,
    group: Groups,
    *,
    probs: Numbers | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    r"""Count, group by group, whom the model selects and how often it is wrong.

    $$\text{base rate} = P(y{=}1), \quad \text{selection rate} = P(\hat y{=}1), \quad
      \text{tpr} = P(\hat y{=}1 \mid y{=}1), \quad \text{fpr} = P(\hat y{=}1 \mid y{=}0), \quad
      \text{precision} = P(y{=}1 \mid \hat y{=}1)$$

    Args:
        y: (N,) what happened, 0 or 1.
        pred: (N,) decisions, 0 or 1.
        group: (N,) which group each row belongs to; one group is enough here.
        probs: (N,) probabilities of a 1: adds their mean, which a calibrated model has inside the
            interval of the base rate.
        confidence: of the Wilson intervals.

    Returns:
        One row a group: `n`, `positives` (y = 1), `selected` (pred = 1); and for `base_rate`,
        `selection_rate`, `tpr`, `fpr` and `precision` the share, its `..._low` and its
        `..._high`. NaN where nobody is there to take a share of.

    Raises:
        TypeError: y, pred or probs that are not numbers.
        ValueError: labels other than 0 and 1, NaN, lengths that differ, a group with no members,
            probabilities outside 0..1, or a confidence outside (0, 1).

    Reference: Wilson (1927), Probable inference, the law of succession, and statistical inference
        (the intervals).
    Elsewhere: fairlearn `MetricFrame(...).by_group`.

    >>> table = group_table([1, 1, 0, 0], [1, 0, 1, 1], ["a", "a", "b", "b"])
    >>> table[["n", "positives", "selection_rate", "tpr", "fpr"]]
       n  positives  selection_rate  tpr  fpr
    a  2          2             0.5  0.5  NaN
    b  2          0             1.0  NaN  1.0
    """
    rows = _rows(y, pred, group)
    columns: dict[str, Array] = {}
    for name in ("base_rate", "selection_rate", "tpr", "fpr", "precision"):
        hits, n = _counts(rows, name)
        columns[name] = _divide(hits, n)
        ends = wilson_interval(hits, n, confidence=confidence)
        columns |= {f"{name}_low": ends.low, f"{name}_high": ends.high}
    if probs is not None:
        sums = np.bincount(rows.codes, _probabilities(probs, len(rows.y)))
        columns["mean_probability"] = sums / np.bincount(rows.codes)
    positives, n = _counts(rows, "base_rate")
    whole = {"n": n, "positives": positives, "selected": _counts(rows, "selection_rate")[0]}
    return pd.DataFrame(whole | columns, index=rows.names)


def difference_table(
    y: Labels,
    pred: Labels,
    group: Groups,
    *,
    reference: Hashable,
    confidence: float = 0.95,
) -> pd.DataFrame:
    r"""Compare each group with one of them: differences of rates, with intervals.

    $$d = p_1 - p_2, \qquad
      \Big[d - \sqrt{(p_1 - l_1)^2 + (u_2 - p_2)^2},\;\;
           d + \sqrt{(u_1 - p_1)^2 + (p_2 - l_2)^2}\Big]$$

    l and u are the ends of the two Wilson intervals. An interval with 0 inside means that the
    rows do not decide who has the higher rate, not that the rates are equal.

    Args:
        y: (N,) what happened, 0 or 1.
        pred: (N,) decisions, 0 or 1.
        group: (N,) which group each row belongs to.
        reference: the group whose rates are subtracted.
        confidence: of the intervals.

    Returns:
        One row a group other than the reference; for `base_rate`, `selection_rate`, `tpr`, `fpr`
        and `precision` the difference, its `..._low` and its `..._high`.

    Raises:
        TypeError, ValueError: as `group_table`; a reference that is no group, or no other group.

    Reference: Newcombe (1998), Interval estimation for the difference between independent
        proportions: comparison of eleven methods (method 10).
    Elsewhere: statsmodels `confint_proportions_2indep(method="newcomb")`.

    >>> pred, group = [1, 1, 1, 0, 1, 0, 0, 0], list("aaaabbbb")
    >>> found = difference_table([1, 0] * 4, pred, group, reference="b")
    >>> found.filter(like="selection").round(2)
       selection_rate  selection_rate_low  selection_rate_high
    a             0.5               -0.14                 0.79
    """
    table = group_table(y, pred, group, confidence=confidence)
    _at_least_two(table.index)
    if reference not in table.index:
        raise ValueError(f"reference must be one of {list(table.index)}, got {reference!r}")
    ours, theirs = table.drop(index=reference), table.loc[reference]
    columns = {}
    for name in ("base_rate", "selection_rate", "tpr", "fpr", "precision"):
        low, high = f"{name}_low", f"{name}_high"
        gap = ours[name] - theirs[name]
        columns[name] = gap
        columns[low] = gap - np.hypot(ours[name] - ours[low], theirs[high] - theirs[name])
        columns[high] = gap + np.hypot(ours[high] - ours[name], theirs[name] - theirs[low])
    return pd.DataFrame(columns)


def calibration_table(
    y: Labels, probs: Numbers, group: Groups, *, n_bins: int = 10, confidence: float = 0.95
) -> pd.DataFrame:
    r"""Ask, group by group, whether a probability of 0.7 comes true seven times in ten.

    $$P(y = 1 \mid \text{probability in bin } b, \text{group } g) \;\overset{?}{=}\;
      \text{mean probability in } b \text{ and } g$$

    Args:
        y: (N,) what happened, 0 or 1.
        probs: (N,) probabilities of a 1.
        group: (N,) which group each row belongs to; one group is enough here.
        n_bins: bins of equal width in 0..1; the last holds 1 too.
        confidence: of the Wilson intervals.

    Returns:
        One row a group and bin that holds anybody: `n`, `mean_probability`, `observed` (the share
        of y = 1) with `observed_low` and `observed_high`. Calibrated: the mean probability is
        inside.

    Raises:
        TypeError, ValueError: as `group_table`; `n_bins` below 1.

    Reference: Kleinberg, Mullainathan, Raghavan (2016), Inherent Trade-Offs in the Fair
        Determination of Risk Scores (calibration within groups).
    Elsewhere: scikit-learn `calibration_curve` (one group, no intervals).

    >>> table = calibration_table([1, 0, 1, 1], [0.7, 0.9, 0.8, 0.2], list("aaab"), n_bins=2)
    >>> table.reset_index().iloc[:, :5].round(2)
      group  bin  n  mean_probability  observed
    0     a    1  3               0.8      0.67
    1     b    0  1               0.2      1.00
    """
    truth = _labels("y", y)
    chance = _probabilities(probs, len(truth))
    codes, names = _members(group, len(truth))
    bins = np.minimum(chance * check_positive("n_bins", n_bins), n_bins - 1).astype(int)
    frame = pd.DataFrame(
        {"group": np.asarray(names)[codes], "bin": bins, "probability": chance, "y": truth}
    )
    cells = frame.groupby(["group", "bin"])
    n, hits = cells.y.size(), cells.y.sum()
    ends = wilson_interval(hits, n, confidence=confidence)
    columns = {"n": n, "mean_probability": cells.probability.mean(), "observed": hits / n}
    return pd.DataFrame({**columns, "observed_low": ends.low, "observed_high": ends.high})


def demographic_parity_difference(y: Labels, pred: Labels, group: Groups) -> float:
    r"""Return how far apart the groups' selection rates are; what happened plays no part.

    $$\max_g P(\hat y = 1 \mid g) - \min_g P(\hat y = 1 \mid g)$$

    Args:
        y: (N,) what happened, 0 or 1: not used, but checked, so that all metrics are called alike.
        pred: (N,) decisions, 0 or 1.
        group: (N,) which group each row belongs to.

    Returns:
        0 (all groups alike) to 1.

    Raises:
        TypeError: labels that are not numbers.
        ValueError: labels other than 0 and 1, NaN, lengths that differ, a group with no members,
            or fewer than two groups.

    Reference: Calders, Kamiran, Pechenizkiy (2009), Building Classifiers with Independency
        Constraints.
    Elsewhere: fairlearn `demographic_parity_difference`.

    >>> demographic_parity_difference([1, 0, 1, 0], [1, 1, 1, 0], ["a", "a", "b", "b"])
    0.5
    """
    return _gap(_rows(y, pred, group), "selection_rate")


def equal_opportunity_difference(y: Labels, pred: Labels, group: Groups) -> float:
    r"""Return how far apart the groups' true positive rates are.

    $$\max_g P(\hat y = 1 \mid y = 1, g) - \min_g P(\hat y = 1 \mid y = 1, g)$$

    Args:
        y: (N,) what happened, 0 or 1.
        pred: (N,) decisions, 0 or 1.
        group: (N,) which group each row belongs to.

    Returns:
        0 (of those with y = 1, all groups' are found equally often) to 1.

    Raises:
        TypeError, ValueError: as `demographic_parity_difference`; a group without any y = 1.

    Reference: Hardt, Price, Srebro (2016), Equality of Opportunity in Supervised Learning.
    Elsewhere: fairlearn `equal_opportunity_difference` (a group without any y = 1 counts as rate
        0 there, which makes a gap out of nothing).

    >>> equal_opportunity_difference([1, 0, 1, 1], [1, 1, 1, 0], ["a", "a", "b", "b"])
    0.5
    """
    return _gap(_rows(y, pred, group), "tpr")


def equalized_odds_difference(y: Labels, pred: Labels, group: Groups) -> float:
    r"""Return how far apart true or false positive rates are, whichever is worse.

    $$\max_{v \in \{0, 1\}} \Big(\max_g P(\hat y = 1 \mid y = v, g)
      - \min_g P(\hat y = 1 \mid y = v, g)\Big)$$

    Args:
        y: (N,) what happened, 0 or 1.
        pred: (N,) decisions, 0 or 1.
        group: (N,) which group each row belongs to.

    Returns:
        0 (errors of both kinds are equally common in all groups) to 1.

    Raises:
        TypeError, ValueError: as `demographic_parity_difference`; a group without any y = 1, or
            without any y = 0.

    Reference: Hardt, Price, Srebro (2016), Equality of Opportunity in Supervised Learning.
    Elsewhere: fairlearn `equalized_odds_difference(agg="worst_case")`.

    >>> equalized_odds_difference([1, 0, 1, 0], [1, 1, 1, 0], ["a", "a", "b", "b"])
    1.0
    """
    rows = _rows(y, pred, group)
    return max(_gap(rows, "tpr"), _gap(rows, "fpr"))


def forced_fpr(base_rate: float, ppv: float, tpr: float) -> float:
    r"""Return the false positive rate that base rate, precision and true positive rate leave.

    $$\text{fpr} = \frac{p}{1 - p} \cdot \frac{1 - \text{ppv}}{\text{ppv}} \cdot \text{tpr}$$

    Nothing but counting is used. So where base rates p differ, equal precision and equal true
    positive rates make unequal false positive rates, whoever or whatever decides: the metrics
    cannot all be fair at once, unless the decisions are perfect (ppv = 1).

    Args:
        base_rate: p, share of y = 1 in the group, in (0, 1).
        ppv: precision, the share of y = 1 among those selected, in (0, 1].
        tpr: share selected among those with y = 1, in (0, 1].

    Returns:
        The false positive rate, 0..1.

    Raises:
        ValueError: a number out of its range, or three that cannot occur together (a false
            positive rate above 1 would be needed).

    Reference: Chouldechova (2017), Fair prediction with disparate impact: A study of bias in
        recidivism prediction instruments; Kleinberg, Mullainathan, Raghavan (2016), Inherent
        Trade-Offs in the Fair Determination of Risk Scores.

    >>> forced_fpr(0.5, ppv=0.5, tpr=0.5), forced_fpr(0.2, ppv=0.5, tpr=0.5)
    (0.5, 0.125)
    """
    if not (0 < base_rate < 1 and 0 < ppv <= 1 and 0 < tpr <= 1):
        raise ValueError(
            "base_rate must lie in (0, 1), ppv and tpr in (0, 1], "
            f"got base_rate={base_rate}, ppv={ppv}, tpr={tpr}"
        )
    fpr = base_rate * (1 - ppv) * tpr / ((1 - base_rate) * ppv)
    if fpr > 1:
        raise ValueError(
            f"base_rate={base_rate}, ppv={ppv} and tpr={tpr} cannot occur together: "
            f"the false positive rate would be {fpr:.3g}"
        )
    return fpr


# ---- mending -----------------------------------------------------------------------------------


def reweigh(y: Labels, group: Groups) -> Array:
    r"""Weigh training rows so that group and label are independent: mitigation before training.

    $$w(g, v) = \frac{P(g)\, P(y = v)}{P(g, y = v)}$$

    Rows of a combination that is rarer than independence would have it weigh more than 1. The
    weights sum to N, and each group keeps its total weight.

    Args:
        y: (N,) what happened, 0 or 1.
        group: (N,) which group each row belongs to.

    Returns:
        (N,) float64, to be passed on as `sample_weight`.

    Raises:
        TypeError: labels that are not numbers.
        ValueError: as `demographic_parity_difference`; a group without any y = 1 or any y = 0:
            no weights can make up for rows that are not there.

    Reference: Kamiran, Calders (2012), Data preprocessing techniques for classification without
        discrimination.
    Elsewhere: AIF360 `Reweighing`.

    >>> reweigh([1, 1, 0, 0, 1, 0], ["a", "a", "a", "b", "b", "b"])
    array([0.75, 0.75, 1.5 , 0.75, 1.5 , 0.75])
    """
    truth = _labels("y", y)
    codes, names = _members(group, len(truth))
    _at_least_two(names)
    _both_labels(truth, codes, names)
    together = np.zeros((len(names), 2))
    np.add.at(together, (codes, truth), 1)
    expected = together.sum(1, keepdims=True) * together.sum(0) / len(truth)
    return (expected / together)[codes, truth]


def fairness_penalty(
    logits: Tensor, y: Tensor, group: Groups, *, constraint: Constraint = "demographic_parity"
) -> Tensor:
    r"""Return a number to add to the loss that grows with the gap: mitigation during training.

    $$\sum_r \big(\max_g \bar p_{r, g} - \min_g \bar p_{r, g}\big)^2, \qquad
      \bar p_{r, g} = \operatorname{mean} \{\, p_i : i \text{ in } g \text{ and among } r \,\}$$

    The rates r are those of the metric of the same name, with the probability $p_i$ of a 1 in the
    place of the decision, since a decision has no gradient. r is among all rows for demographic
    parity, among y = 1 for equal opportunity, among y = 1 and among y = 0 for equalized odds.

    Args:
        logits: (N,) scores of a 1 against a 0, or (N, 2) scores of both.
        y: (N,) what happened, 0 or 1.
        group: (N,) which group each row belongs to. Every group has to be in every batch.
        constraint: "demographic_parity", "equal_opportunity" or "equalized_odds".

    Returns:
        A scalar with a gradient, 0 (no gap) to 1 (2 for equalized odds). Multiply by a strength:
        near 0 it changes nothing, a very large one makes all answers alike.

    Raises:
        TypeError: logits that are no floating-point tensor; labels that are not numbers.
        ValueError: as the metric; logits of another shape, or that hold NaN; an unknown
            constraint.

    Reference: Bechavod, Ligett (2017), Penalizing Unfairness in Binary Classification.
    Elsewhere: fairlearn `ExponentiatedGradient` reaches the same end by reweighting and refitting.

    >>> logits = torch.tensor([0.0, 0.0, 100.0, 0.0])  # mean probabilities 0.5 and 0.75
    >>> fairness_penalty(logits, torch.tensor([0, 1, 1, 0]), ["a", "a", "b", "b"])
    tensor(0.0625)
    """
    p = _soft_decisions(logits)
    truth = _labels("y", y, len(p))
    codes, names = _members(group, len(p))
    _at_least_two(names)
    gaps = []
    for rate in _demanded(constraint):
        among = _among(rate, truth)
        _nobody_missing(rate, np.bincount(codes[among], minlength=len(names)), names)
        places = [torch.as_tensor(among & (codes == g), device=p.device) for g in range(len(names))]
        means = torch.stack([p[place].mean() for place in places])
        gaps.append(means.max() - means.min())
    return torch.stack(gaps).square().sum()


class Lottery(NamedTuple):
    """Thresholds (K,) and the chance (K,) of each to be the one that decides; chances sum to 1."""

    thresholds: Array
    chances: Array


class FairThresholds(NamedTuple):
    """A rule with thresholds of its own for every group.

    Attributes:
        lotteries: for each group its thresholds and their chances. Mostly one or two.
        cost: expected cost a row, on the rows that the rule was made from.
    """

    lotteries: Mapping[Hashable, Lottery]
    cost: float

    def chance(self, probs: Numbers, group: Groups) -> Array:
        """Return each row's chance (N,) of a yes: 0 or 1, save between a group's thresholds.

        Raises:
            TypeError: probabilities that are not numbers.
            ValueError: probabilities outside 0..1, lengths that differ, or a group for which the
                rule has no threshold.
        """
        p = _probabilities(probs)
        codes, names = _members(group, len(p))
        chance = np.zeros(len(p))
        for code, name in enumerate(names):
            if name not in self.lotteries:
                raise ValueError(f"no threshold for {name!r}, only for {list(self.lotteries)}")
            thresholds, chances = self.lotteries[name]
            chance[codes == code] = (p[codes == code, None] >= thresholds) @ chances
        return np.clip(chance, 0, 1)  # chances of 1/3, 1/3, 1/3 may sum to a hair above 1

    def decide(self, probs: Numbers, group: Groups, *, seed: int = 0) -> Array:
        """Return decisions (N,) of 0 and 1; `seed` draws the lots.

        Raises:
            TypeError, ValueError: as `chance`.
        """
        chance = self.chance(probs, group)
        return (np.random.default_rng(seed).random(len(chance)) < chance).astype(np.int64)

    def likeliest(self) -> dict[Hashable, float]:
        """Return each group's threshold with the highest chance: a rule without lots.

        Measure it: the rates are nearly equal where lots decide between neighboring thresholds,
        as mostly for one equation, and may be far apart after "equalized_odds".
        """
        return {g: float(t[np.argmax(chance)]) for g, (t, chance) in self.lotteries.items()}


def fair_thresholds(
    y: Labels,
    probs: Numbers,
    group: Groups,
    *,
    constraint: Constraint = "equal_opportunity",
    tolerance: float = 0.0,
    cost_fp: float = 1.0,
    cost_fn: float = 1.0,
) -> FairThresholds:
    r"""Choose thresholds for each group that make their rates equal: mitigation after training.

    $$\min_q \sum_{g, t} q_{g,t}\, \text{cost}_{g,t} \quad \text{with} \quad
      q_{g,t} \ge 0, \;\; \sum_t q_{g,t} = 1, \;\;
      m_r \le \sum_t q_{g,t}\, r_{g,t} \le m_r + \text{tolerance} \;\; \text{for all } g, r$$

    A yes is a probability of at least t, and q the chance that t decides. One threshold a group
    can rarely meet an equation exactly, so somebody's answer is drawn by lot between two. For
    equalized odds the group that is easier to predict is made worse, until it is as bad as the
    others: part of its answers is drawn without looking at the probability.

    Args:
        y: (N,) what happened, 0 or 1.
        probs: (N,) probabilities of a 1, or any score in 0..1.
        group: (N,) which group each row belongs to; it is needed to decide, too.
        constraint: which rates r are equal: "demographic_parity" (selection rates),
            "equal_opportunity" (true positive rates), "equalized_odds" (true and false).
        tolerance: largest difference allowed, 0..1; 1 allows all, and gives the cheapest rule.
        cost_fp: of selecting a row with y = 0.
        cost_fn: of not selecting a row with y = 1. With both 1, the cost is the share of errors.

    Returns:
        The cheapest such rule. On other rows rates will differ by chance.

    Raises:
        TypeError: y or probs that are not numbers.
        ValueError: as `demographic_parity_difference`; probabilities outside 0..1; a group without
            any y = 1 or any y = 0; a tolerance outside 0..1; negative costs; an unknown constraint.

    Reference: Hardt, Price, Srebro (2016), Equality of Opportunity in Supervised Learning.
    Elsewhere: fairlearn `ThresholdOptimizer` (rates on a grid; thresholds between two scores).

    >>> y, probs = [1, 0, 1, 0], [0.9, 0.6, 0.4, 0.2]
    >>> fair_thresholds(y, probs, ["a", "a", "b", "b"]).likeliest()
    {'a': 0.9, 'b': 0.4}
    """
    truth = _labels("y", y)
    scores = _probabilities(probs, len(truth))
    codes, names = _members(group, len(truth))
    _at_least_two(names)
    _both_labels(truth, codes, names)
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must lie in 0..1, got {tolerance}")
    _check_costs(cost_fp, cost_fn)
    points = pd.concat(
        [_curve(truth[codes == g], scores[codes == g]).assign(g=g) for g in range(len(names))]
    )
    cost = (cost_fp * points.false_positives + cost_fn * points.false_negatives) / len(truth)
    rates = points[_demanded(constraint)].to_numpy().T
    q = _cheapest(cost.to_numpy(), rates, points.g.to_numpy(), tolerance)
    lotteries = {}
    for g, name in enumerate(names):
        used = (points.g == g).to_numpy() & (q > 0)
        lotteries[name] = Lottery(points.threshold.to_numpy()[used], q[used])
    return FairThresholds(lotteries, float(cost @ q))


class CostCurve(NamedTuple):
    """Mean cost a row at thresholds (T,): of everybody (T,), and by_group (T, G columns)."""

    thresholds: Array
    overall: Array
    by_group: pd.DataFrame


def cost_curve(
    y: Labels,
    probs: Numbers,
    group: Groups,
    *,
    cost_fp: float = 1.0,
    cost_fn: float = 1.0,
    n_thresholds: int = 101,
) -> CostCurve:
    r"""Price every threshold: what errors cost on average, for all and for each group.

    $$C_g(t) = \operatorname{mean}_{i \in g} \big(c_{fp}\, [p_i \ge t,\, y_i = 0]
      + c_{fn}\, [p_i < t,\, y_i = 1]\big)$$

    Where probabilities are calibrated, the cheapest t is near $c_{fp} / (c_{fp} + c_{fn})$ in
    every group.

    Args:
        y: (N,) what happened, 0 or 1.
        probs: (N,) probabilities of a 1.
        group: (N,) which group each row belongs to; one group is enough here.
        cost_fp: of selecting a row with y = 0.
        cost_fn: of not selecting a row with y = 1.
        n_thresholds: T, thresholds from 0 to 1 in equal steps.

    Returns:
        Thresholds and costs, in units of the two costs.

    Raises:
        TypeError, ValueError: as `group_table`; negative costs; `n_thresholds` below 1.

    Reference: Elkan (2001), The Foundations of Cost-Sensitive Learning.

    >>> curve = cost_curve([1, 0], [0.8, 0.6], ["a", "a"], cost_fn=5, n_thresholds=3)
    >>> curve.thresholds.tolist(), curve.overall.tolist()
    ([0.0, 0.5, 1.0], [0.5, 0.5, 2.5])
    """
    truth = _labels("y", y)
    p = _probabilities(probs, len(truth))
    codes, names = _members(group, len(truth))
    _check_costs(cost_fp, cost_fn)
    thresholds = np.linspace(0, 1, check_positive("n_thresholds", n_thresholds))
    size = np.bincount(codes)
    costs = np.zeros((len(thresholds), len(names)))
    for g in range(len(names)):
        blamed, missed = (np.sort(p[(codes == g) & (truth == v)]) for v in (0, 1))
        false_positives = len(blamed) - np.searchsorted(blamed, thresholds)  # p >= t
        false_negatives = np.searchsorted(missed, thresholds)  # p < t
        costs[:, g] = (cost_fp * false_positives + cost_fn * false_negatives) / size[g]
    overall = costs @ size / len(truth)
    return CostCurve(thresholds, overall, pd.DataFrame(costs, thresholds, names))


# ---- counting ----------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Checked input: labels and decisions (N,) of 0 and 1, and the number of each row's group."""

    y: Array
    pred: Array
    codes: Array
    names: list[Hashable]


def _rows(y: Labels, pred: Labels, group: Groups) -> _Rows:
    truth = _labels("y", y)
    return _Rows(truth, _labels("pred", pred, len(truth)), *_members(group, len(truth)))


def _among(rate: str, y: Array) -> Array:
    """Return True where a row counts for a rate of decisions."""
    return {"selection_rate": y >= 0, "tpr": y == 1, "fpr": y == 0}[rate]


def _counts(rows: _Rows, rate: str) -> tuple[Array, Array]:
    """Return hits (G,) and rows (G,) whose quotient is the rate of each group."""
    if rate == "base_rate":
        hits, among = rows.y, rows.y >= 0
    elif rate == "precision":
        hits, among = rows.y, rows.pred == 1
    else:
        hits, among = rows.pred, _among(rate, rows.y)
    groups = len(rows.names)
    n = np.bincount(rows.codes[among], minlength=groups)
    return np.bincount(rows.codes[among & (hits == 1)], minlength=groups), n


def _divide(hits: Array, n: Array) -> Array:
    with np.errstate(invalid="ignore"):  # 0/0: no such rate
        return hits / n


def _gap(rows: _Rows, rate: str) -> float:
    """Return the highest minus the lowest rate of a group."""
    _at_least_two(rows.names)
    hits, n = _counts(rows, rate)
    _nobody_missing(rate, n, rows.names)
    return float(np.ptp(hits / n))


def _curve(y: Array, scores: Array) -> pd.DataFrame:
    """Return what each threshold of one group does; those on a line between two others left out."""
    fpr, tpr, thresholds = roc_curve(y, scores)
    positives, negatives = y.sum(), len(y) - y.sum()
    selected = tpr * positives + fpr * negatives
    columns = {"threshold": thresholds, "tpr": tpr, "fpr": fpr, "selection_rate": selected / len(y)}
    errors = {"false_positives": fpr * negatives, "false_negatives": (1 - tpr) * positives}
    return pd.DataFrame(columns | errors)


def _cheapest(cost: Array, rates: Array, g: Array, tolerance: float) -> Array:
    """Solve the linear program: chances (K,) for costs (K,) and rates (R, K) of points in groups g.

    After the K chances come R variables m, the lower ends of the windows of width `tolerance`.
    """
    member = (g == np.arange(g.max() + 1)[:, None]).astype(float)  # (G, K)
    each = (rates[:, None] * member).reshape(-1, len(g))  # (R G, K): times q, a group's rate
    n_rates, n_groups = len(rates), len(member)
    above = np.hstack([each, -np.eye(n_rates).repeat(n_groups, axis=0)])  # the rate minus its m
    found = linprog(
        np.append(cost, np.zeros(n_rates)),
        A_ub=np.vstack([above, -above]),
        b_ub=np.repeat([tolerance, 0.0], len(above)),
        A_eq=np.pad(member, ((0, 0), (0, n_rates))),
        b_eq=np.ones(n_groups),
        bounds=(0, 1),
    )
    q = np.where(found.x[:-n_rates] > 1e-9, found.x[:-n_rates], 0)  # without the solver's dust
    return q / (member @ q)[g]


# ---- checks ------------------------------------------------------------------------------------


def _numbers(name: str, values: Any, n: int | None) -> Array:
    """Return a column of n numbers as an array."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must have one number a row, (N,), got shape {array.shape}")
    if n is not None and len(array) != n:
        raise ValueError(f"{name} must have one number a row, {n}, got {len(array)}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {array.dtype}")
    return array


def _labels(name: str, values: Any, n: int | None = None) -> Array:
    """Return labels as int64, refusing all but 0 and 1."""
    array = _numbers(name, values, n)
    others = np.unique(array[~np.isin(array, (0, 1))])
    if len(others):
        raise ValueError(f"{name} must hold 0 and 1 alone, got {others[:3].tolist()} too")
    return array.astype(np.int64)


def _probabilities(values: Any, n: int | None = None) -> Array:
    """Return probabilities as float64, refusing NaN and all outside 0..1."""
    array = _numbers("probs", values, n).astype(np.float64)
    outside = array[~((array >= 0) & (array <= 1))]
    if len(outside):
        raise ValueError(f"probs must lie in 0..1, got {outside[:3].tolist()}")
    return array


def _members(group: Any, n: int) -> tuple[Array, list[Hashable]]:
    """Return the number of each row's group (N,) and the groups' names, sorted."""
    column = group.detach().cpu().numpy() if isinstance(group, Tensor) else group
    if np.shape(column) != (n,):
        raise ValueError(f"group must have one value a row, ({n},), got shape {np.shape(column)}")
    found = pd.Categorical(column)
    if (found.codes < 0).any():
        raise ValueError(f"group is missing (NaN or None) in {(found.codes < 0).sum()} rows")
    names = found.categories.tolist()
    empty = set(names) - set(found.unique())  # a categorical column may list what it lacks
    if empty:
        raise ValueError(f"groups with no members: {sorted(map(str, empty))}")
    return found.codes.astype(np.int64), names


def _at_least_two(names: Sequence[Hashable]) -> None:
    if len(names) < 2:
        raise ValueError(f"a difference needs two groups or more, got only {list(names)}")


def _nobody_missing(rate: str, n: Array, names: list[Hashable]) -> None:
    """Refuse a rate that is a share of nobody."""
    lacking = [name for name, size in zip(names, n, strict=True) if not size]
    if lacking:
        value = {"tpr": 1, "fpr": 0}[rate]
        raise ValueError(f"{rate} does not exist: no row with y = {value} in groups {lacking}")


def _both_labels(y: Array, codes: Array, names: list[Hashable]) -> None:
    for rate in ("tpr", "fpr"):
        _nobody_missing(rate, np.bincount(codes[_among(rate, y)], minlength=len(names)), names)


def _demanded(constraint: str) -> list[str]:
    if constraint not in _DEMANDS:
        raise ValueError(f"constraint must be one of {list(_DEMANDS)}, got {constraint!r}")
    return _DEMANDS[constraint]


def _check_costs(cost_fp: float, cost_fn: float) -> None:
    if not (0 <= cost_fp < np.inf and 0 <= cost_fn < np.inf):
        raise ValueError(f"costs must be 0 or more, got cost_fp={cost_fp}, cost_fn={cost_fn}")


def _soft_decisions(logits: Any) -> Tensor:
    """Return the probability of a 1, (N,), with its gradient."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        came = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a tensor of floating-point numbers, got {came}")
    if logits.ndim not in (1, 2) or (logits.ndim == 2 and logits.shape[1] != 2):
        raise ValueError(f"logits must be (N,) or (N, 2), got {tuple(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise ValueError("logits hold values that are NaN or infinite")
    return torch.sigmoid(logits if logits.ndim == 1 else logits[:, 1] - logits[:, 0])
