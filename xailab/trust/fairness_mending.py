"""Three ways of mending a model that treats groups of people unequally.

Lesson `fairness` teaches this file: before training (`reweigh`), during it (`fairness_penalty`),
after it (`fair_thresholds`). y, probs and group are as in fairness_measures.py.
"""

from collections.abc import Hashable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linprog
from sklearn.metrics import roc_curve
from torch import Tensor

from xailab.core.outputs import class_logits
from xailab.trust.groups import (
    Array,
    Groups,
    Labels,
    Numbers,
    binary_labels,
    chances_of_one,
    check_both_labels,
    check_costs,
    check_rate_exists,
    check_two_groups,
    counted_rows,
    members_of,
)

Constraint = Literal["demographic_parity", "equal_opportunity", "equalized_odds"]

# What each demand wants equal in all groups.
_DEMANDS = {
    "demographic_parity": ["selection_rate"],
    "equal_opportunity": ["tpr"],
    "equalized_odds": ["tpr", "fpr"],
}


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
    truth = binary_labels("y", y)
    codes, names = members_of(group, len(truth), y=y)
    check_two_groups(names)
    check_both_labels(truth, codes, names)
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
        logits: (N,) or (N, 1) scores of a 1 against a 0, or (N, 2) scores of both.
        y: (N,) what happened, 0 or 1.
        group: (N,) which group each row belongs to. Every group has to be in every batch.
        constraint: "demographic_parity", "equal_opportunity" or "equalized_odds".

    Returns:
        A scalar with a gradient, in float32 or finer: 0 (no gap) to 1 (2 for equalized odds).
        Multiply by a strength: near 0 it changes nothing, a very large one makes all answers
        alike.

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
    truth = binary_labels("y", y, len(p))
    codes, names = members_of(group, len(p), y=y)
    check_two_groups(names)
    gaps = []
    for rate in _demanded(constraint):
        among = counted_rows(rate, truth)
        check_rate_exists(rate, np.bincount(codes[among], minlength=len(names)), names)
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
        p = chances_of_one(probs)
        codes, names = members_of(group, len(p), probs=probs)
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
    truth = binary_labels("y", y)
    scores = chances_of_one(probs, len(truth))
    codes, names = members_of(group, len(truth), y=y, probs=probs)
    check_two_groups(names)
    check_both_labels(truth, codes, names)
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must lie in 0..1, got {tolerance}")
    check_costs(cost_fp, cost_fn)
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


# ---- parts -------------------------------------------------------------------------------------


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
    if found.x is None:
        raise RuntimeError(f"no thresholds found: {found.message}")
    q = np.where(found.x[:-n_rates] > 1e-9, found.x[:-n_rates], 0)  # without the solver's dust
    return q / (member @ q)[g]


def _demanded(constraint: str) -> list[str]:
    if constraint not in _DEMANDS:
        raise ValueError(f"constraint must be one of {list(_DEMANDS)}, got {constraint!r}")
    return _DEMANDS[constraint]


def _soft_decisions(logits: Any) -> Tensor:
    """Return the probability of a 1, (N,), with its gradient."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        came = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a tensor of floating-point numbers, got {came}")
    if logits.ndim not in (1, 2) or (logits.ndim == 2 and logits.shape[1] not in (1, 2)):
        raise ValueError(f"logits must be (N,), (N, 1) or (N, 2), got {tuple(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise ValueError("logits hold values that are NaN or infinite")
    both = class_logits(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    return torch.sigmoid(both[:, 1] - both[:, 0])
