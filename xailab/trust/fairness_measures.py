"""Does the model treat groups of people alike: rates, their differences, and what errors cost.

Lesson `fairness` teaches this file. Everywhere y is what happened (0 or 1), pred what the model
decided (0 or 1), probs its probability of a 1, and group says which group a row belongs to: one
value a row, as text, numbers or tuples. A number from this file describes decisions and records;
whether the records are themselves fair, it cannot say.
"""

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from xailab.core.checks import check_positive
from xailab.trust.alignment import check_alignment
from xailab.trust.groups import (
    Array,
    Groups,
    Labels,
    Numbers,
    binary_labels,
    chances_of_one,
    check_costs,
    check_rate_exists,
    check_two_groups,
    counted_rows,
    group_index,
    members_of,
)


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
        One row a group (the parts of a tuple are levels of the index): `n`, `positives` (y = 1),
        `selected` (pred = 1); and for `base_rate`, `selection_rate`, `tpr`, `fpr` and `precision`
        the share, its `..._low` and its `..._high`. NaN where nobody is there to take a share of.

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
        check_alignment(group=group, probs=probs)
        sums = np.bincount(rows.codes, chances_of_one(probs, len(rows.y)))
        columns["mean_probability"] = sums / np.bincount(rows.codes)
    positives, n = _counts(rows, "base_rate")
    whole = {"n": n, "positives": positives, "selected": _counts(rows, "selection_rate")[0]}
    return pd.DataFrame(whole | columns, index=group_index(rows.names))


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
    check_two_groups(table.index)
    names = table.index.tolist()
    if reference not in names:
        raise ValueError(f"reference must be one of {names}, got {reference!r}")
    place = names.index(reference)
    ours, theirs = table.iloc[np.arange(len(names)) != place], table.iloc[place]
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
    truth = binary_labels("y", y)
    chance = chances_of_one(probs, len(truth))
    codes, names = members_of(group, len(truth), y=y, probs=probs)
    count = check_positive("n_bins", n_bins)
    bins = np.minimum(chance * count, count - 1).astype(int)
    frame = pd.DataFrame({"group": codes, "bin": bins, "probability": chance, "y": truth})
    cells = frame.groupby(["group", "bin"])
    n, hits = cells.y.size(), cells.y.sum()
    ends = wilson_interval(hits, n, confidence=confidence)
    columns = {"n": n, "mean_probability": cells.probability.mean(), "observed": hits / n}
    table = pd.DataFrame({**columns, "observed_low": ends.low, "observed_high": ends.high})
    return table.set_axis(_cell_names(table.index, names), axis=0)


def _cell_names(cells: pd.MultiIndex, names: list[Hashable]) -> pd.MultiIndex:
    """Return the names of groups and bins; the parts of a tuple are levels of their own."""
    parts = [
        (*group, bin) if isinstance(group, tuple) else (group, bin)
        for group, bin in ((names[code], bin) for code, bin in cells)
    ]
    several = len(parts[0]) > 2
    levels = [f"group {i}" for i in range(len(parts[0]) - 1)] if several else ["group"]
    return pd.MultiIndex.from_tuples(parts, names=[*levels, "bin"])


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
    truth = binary_labels("y", y)
    p = chances_of_one(probs, len(truth))
    codes, names = members_of(group, len(truth), y=y, probs=probs)
    check_costs(cost_fp, cost_fn)
    thresholds = np.linspace(0, 1, check_positive("n_thresholds", n_thresholds))
    size = np.bincount(codes)
    costs = np.zeros((len(thresholds), len(names)))
    for g in range(len(names)):
        blamed, missed = (np.sort(p[(codes == g) & (truth == v)]) for v in (0, 1))
        false_positives = len(blamed) - np.searchsorted(blamed, thresholds)  # p >= t
        false_negatives = np.searchsorted(missed, thresholds)  # p < t
        costs[:, g] = (cost_fp * false_positives + cost_fn * false_negatives) / size[g]
    overall = costs @ size / len(truth)
    return CostCurve(thresholds, overall, pd.DataFrame(costs, thresholds, group_index(names)))


# ---- counting ----------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Checked input: labels and decisions (N,) of 0 and 1, and the number of each row's group."""

    y: Array
    pred: Array
    codes: Array
    names: list[Hashable]


def _rows(y: Labels, pred: Labels, group: Groups) -> _Rows:
    truth = binary_labels("y", y)
    decided = binary_labels("pred", pred, len(truth))
    return _Rows(truth, decided, *members_of(group, len(truth), y=y, pred=pred))


def _counts(rows: _Rows, rate: str) -> tuple[Array, Array]:
    """Return hits (G,) and rows (G,) whose quotient is the rate of each group."""
    if rate == "base_rate":
        hits, among = rows.y, rows.y >= 0
    elif rate == "precision":
        hits, among = rows.y, rows.pred == 1
    else:
        hits, among = rows.pred, counted_rows(rate, rows.y)
    groups = len(rows.names)
    n = np.bincount(rows.codes[among], minlength=groups)
    return np.bincount(rows.codes[among & (hits == 1)], minlength=groups), n


def _divide(hits: Array, n: Array) -> Array:
    with np.errstate(invalid="ignore"):  # 0/0: no such rate
        return hits / n


def _gap(rows: _Rows, rate: str) -> float:
    """Return the highest minus the lowest rate of a group."""
    check_two_groups(rows.names)
    hits, n = _counts(rows, rate)
    check_rate_exists(rate, n, rows.names)
    return float(np.ptp(hits / n))
