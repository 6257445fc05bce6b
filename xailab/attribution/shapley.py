"""Sharing out a score fairly: Shapley values by definition, by sampling, by regression, in trees.

Lesson 11 teaches this file. A feature's share is what it adds on average, over all orders in which
the features could have come. All ways here compute that one number; they differ in what "not there
yet" means (a baseline, a background, the tree's own training rows) and in what they cost.
"""

from collections.abc import Callable
from itertools import combinations, zip_longest
from math import comb, factorial
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xailab.attribution.occlusion import check_feature_mask, count_features
from xailab.core.batching import batched
from xailab.core.checks import (
    Model,
    Target,
    as_integer,
    check_baseline,
    check_index,
    check_input,
    check_positive,
)
from xailab.core.outputs import as_array
from xailab.core.registry import grid_of, method
from xailab.core.scores import variant_scores
from xailab.core.tables import column_names, finite_floats

Array = np.ndarray
Predict = Callable[[Array], Array]

_MOST = 20  # features whose 2^n coalitions are enumerated: a million


def shapley_of_game(value: Callable[[frozenset[int]], float], n_players: int) -> Array:
    r"""Share out what a game is worth, straight from the definition.

    $$\phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n - |S| - 1)!}{n!}
      \big(v(S \cup i) - v(S)\big)$$

    Args:
        value: $v$, what a coalition (a frozenset of players 0..n-1) is worth.
        n_players: n.

    Returns:
        (n,) float64, in units of the worth; the sum is v(all) - v(nobody).

    Raises:
        TypeError: `n_players` is not an integer, a worth is not a number.
        ValueError: n below 1, too many players to enumerate, or a worth that is NaN or infinite.

    Reference: Shapley (1953), A value for n-person games.

    >>> glove = {frozenset({0, 1}): 1.0, frozenset({0, 2}): 1.0, frozenset({0, 1, 2}): 1.0}
    >>> shapley_of_game(lambda team: glove.get(team, 0.0), 3).round(3)
    array([0.667, 0.167, 0.167])
    """
    return _shares(_game(value, _coalitions(_countable(n_players, "players"))))


def shapley_interactions(value: Callable[[frozenset[int]], float], n_players: int) -> Array:
    r"""Split the shares into what players add alone and what they add only together.

    $$\phi_{ij} = \sum_{S \subseteq N \setminus \{i, j\}}
      \frac{|S|!\,(n - |S| - 2)!}{2\,(n - 1)!}
      \big(v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)\big), \qquad
      \phi_{ii} = \phi_i - \sum_{j \ne i} \phi_{ij}$$

    Args:
        value: what a coalition (a frozenset of players 0..n-1) is worth.
        n_players: n, at least 1.

    Returns:
        (n, n) float64, symmetric; row i sums to the Shapley value of player i.

    Raises:
        TypeError, ValueError: as `shapley_of_game`.

    Reference: Grabisch, Roubens (1999), An axiomatic approach to the concept of interaction among
        players in cooperative games; Lundberg et al. (2020), From local explanations to global
        understanding with explainable AI for trees (the half, and the diagonal).
    Elsewhere: shap `TreeExplainer.shap_interaction_values`.

    >>> shapley_interactions(lambda team: float(len(team) == 2), 2)  # worth 1 only together
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    n = _countable(n_players, "players")
    masks = _coalitions(n)
    worths = _game(value, masks)
    found = np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        without = ~masks[:, i] & ~masks[:, j]
        base, sizes = np.flatnonzero(without), masks[without].sum(1)
        weights = np.array([_weight(size, n - 1) / 2 for size in sizes])
        both = worths[base + 2**i + 2**j] - worths[base + 2**i] - worths[base + 2**j]
        found[i, j] = found[j, i] = weights @ (both + worths[base])
    return found + np.diag(_shares(worths) - found.sum(1))


@method(
    "few",
    title="Shapley values",
    promises="baseline",
    defaults={"feature_mask": grid_of(3)},
    rows=lambda subject, options: 2 ** count_features(subject, options),
)
def shapley_values(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    baseline: float | Tensor = 0.0,
    feature_mask: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Exact Shapley values of the features, or of groups of them, by all $2^n$ coalitions.

    $$\phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n - |S| - 1)!}{n!}
      \big(f_t(x_{S \cup i}) - f_t(x_S)\big)$$

    $x_S$ has the features of $S$ from $x$ and the others from the baseline.

    Args:
        model: maps (N, ...) to scores (N, K) or (N,); any function of tensors.
        x: (N, ...) floats.
        target: class index, (N,) class indices, or None for a single-output model.
        baseline: what stands in for a missing feature: a number, or a tensor that broadcasts.
        feature_mask: integers that broadcast to `x` or to one row of it: numbers with one label
            are one player. None: each number by itself.
        batch_size: rows evaluated at once; None measures.

    Returns:
        The shape of `x`, in units of the score. Every number of a group carries the group's
        value, as in `feature_ablation`; over players it sums to $f_t(x) - f_t(b)$.

    Raises:
        TypeError: as for `saliency`; a mask that does not hold integers.
        ValueError: as for `saliency`; a mask that does not broadcast; too many features to
            enumerate.

    Reference: Shapley (1953), A value for n-person games; Štrumbelj, Kononenko (2010), An
        Efficient Explanation of Individual Classifications using Game Theory.
    Elsewhere: captum `ShapleyValues`, shap `ExactExplainer`.

    >>> product = lambda x: x[:, 0] * x[:, 1]
    >>> shapley_values(product, torch.tensor([[2.0, 3.0]]), None)
    tensor([[3., 3.]])
    """
    x = check_input(model, x).detach()
    start = check_baseline(baseline, x)
    names, label = check_feature_mask(feature_mask, x).unique(return_inverse=True)
    masks = torch.as_tensor(_coalitions(_countable(len(names), "features")), device=x.device)
    label = label.expand(x.shape)

    def composed(rows: Tensor, numbers: Tensor) -> Tensor:
        shown = masks[numbers].gather(1, label[rows].flatten(1)).reshape(len(rows), *x.shape[1:])
        return torch.where(shown, x[rows], start[rows])

    worths = variant_scores(model, x, target, len(masks), composed, batch_size=batch_size)
    shares = [_shares(row) for row in worths.double().cpu().numpy()]
    found = torch.as_tensor(np.stack(shares), device=x.device)
    return found.gather(1, label.flatten(1)).reshape(x.shape).to(x.dtype)


def permutation_shap(
    predict: Predict,
    x: Array,
    background: Array,
    *,
    n_permutations: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
) -> Array:
    r"""Estimate Shapley values by letting the features come in random orders.

    $$\phi_i \approx \frac{1}{2m} \sum_{\pi}
      \big(v(\text{before } i \text{ in } \pi \cup i) - v(\text{before } i \text{ in } \pi)\big),
      \qquad v(S) = \operatorname{mean}_b f(x_S, b_{\bar S})$$

    Each of the m orders is walked forwards and backwards, which makes models without
    interactions of more than two features exact. Whatever m is, the sum is exact.

    Args:
        predict: maps (M, F) to (M,) or (M, K).
        x: (F,) one row, or (N, F): array, tensor, list, Series or DataFrame.
        background: (B, F) rows whose values stand in for missing features.
        n_permutations: m.
        seed: of the orders; the global random state is neither used nor changed.
        batch_size: coalitions (of B rows each) evaluated at once; None measures.

    Returns:
        The shape of `x`, with one more dimension (K,) where `predict` gives several outputs.

    Raises:
        TypeError: `predict` is not callable; text in a column or among the answers.
        ValueError: NaN in a column, shapes or names of columns that do not fit, m below 1, or
            answers that are NaN or of another shape.

    Reference: Štrumbelj, Kononenko (2014), Explaining prediction models and individual
        predictions with feature contributions; Mitchell, Cooper, Frank, Holmes (2022), Sampling
        Permutations for Shapley Value Estimation.
    Elsewhere: shap `PermutationExplainer`.

    >>> product = lambda rows: rows[:, 0] * rows[:, 1]
    >>> permutation_shap(product, np.array([2.0, 3.0]), np.zeros((1, 2)))
    array([3., 3.])
    """
    rows, others = _table(x, background)
    count = check_positive("n_permutations", n_permutations)
    orders = _orders(rows.shape[1], count, as_integer("seed", seed))
    masks = np.concatenate([_walk(order) for order in orders])  # (2m (F + 1), F)
    found = []
    for row in rows:
        worths = _worths(predict, row, others, masks, batch_size)
        steps = np.diff(worths.reshape(len(orders), -1, *worths.shape[1:]), axis=1)
        added = np.zeros((rows.shape[1], *worths.shape[1:]))
        for order, step in zip(orders, steps, strict=True):
            added[order] += step / len(orders)
        found.append(added)
    return np.stack(found) if np.ndim(x) == 2 else found[0]


def kernel_shap(
    predict: Predict,
    x: Array,
    background: Array,
    *,
    n_samples: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Array:
    r"""Shapley values as the coefficients of one weighted regression over coalitions.

    $$\min_\phi \sum_{S} \frac{n - 1}{\binom{n}{|S|}\,|S|\,(n - |S|)}
      \Big(v(S) - v(\emptyset) - \sum_{i \in S} \phi_i\Big)^2
      \quad \text{with} \quad \sum_i \phi_i = v(N) - v(\emptyset)$$

    $v(S) = \operatorname{mean}_b f(x_S, b_{\bar S})$. The empty and the full coalition would weigh
    infinitely much, so they are constraints.

    Args:
        predict: maps (M, F) to (M,) or (M, K).
        x: (F,) one row, or (N, F): array, tensor, list, Series or DataFrame.
        background: (B, F) rows whose values stand in for missing features.
        n_samples: coalitions drawn, beside the empty and the full one; None takes all, and the
            answer is exact. Each comes with its complement.
        seed: of the draws; the global random state is neither used nor changed.
        batch_size: coalitions (of B rows each) evaluated at once; None measures.

    Returns:
        The shape of `x`, with one more dimension (K,) where `predict` gives several outputs.

    Raises:
        TypeError, ValueError: as `permutation_shap`; too many features for all coalitions, or
            too few samples to tell the features apart.

    Reference: Lundberg, Lee (2017), A Unified Approach to Interpreting Model Predictions.
    Elsewhere: shap `KernelExplainer`, captum `KernelShap` (one baseline, no averaging).

    >>> product = lambda rows: rows[:, 0] * rows[:, 1]
    >>> kernel_shap(product, np.array([2.0, 3.0]), np.zeros((1, 2))).round(6)
    array([3., 3.])
    """
    rows, others = _table(x, background)
    masks, weights = _sampled(rows.shape[1], n_samples, as_integer("seed", seed))
    ends = np.array([[False], [True]]).repeat(rows.shape[1], axis=1)
    found = []
    for row in rows:
        worths = _worths(predict, row, others, np.concatenate([ends, masks]), batch_size)
        nobody, everybody = worths[:2]
        found.append(_regressed(masks, weights, worths[2:] - nobody, everybody - nobody))
    return np.stack(found) if np.ndim(x) == 2 else found[0]


def shapley_kernel_weights(n: int) -> Array:
    r"""Return what all coalitions of one size weigh together in KernelSHAP's regression.

    $$w_k = \binom{n}{k} \cdot \frac{n - 1}{\binom{n}{k}\, k\, (n - k)} = \frac{n - 1}{k\,(n - k)}$$

    Args:
        n: number of features, at least 2.

    Returns:
        (n - 1,) float64, for sizes 1, ..., n - 1: the smallest and the largest weigh most.

    Raises:
        TypeError: n is not an integer.
        ValueError: n below 2.

    Reference: Lundberg, Lee (2017), A Unified Approach to Interpreting Model Predictions.

    >>> shapley_kernel_weights(4)
    array([1.  , 0.75, 1.  ])
    """
    count = check_positive("n", n)
    if count < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    sizes = np.arange(1, count)
    return (count - 1) / (sizes * (count - sizes))


def linear_shap(weights: Array, x: Array, background: Array, *, conditional: bool = False) -> Array:
    r"""Shapley values of a linear model, in closed form.

    $$\text{interventional: } \phi_i = w_i (x_i - \bar b_i), \qquad
      \text{conditional: } v(S) = w \cdot E[X \mid X_S = x_S]$$

    The conditional ones let a feature speak for those it is correlated with, so a feature with
    weight 0 can get a value. The expectation is that of a normal distribution with the
    background's mean and covariance.

    Args:
        weights: (F,), the model is w · x + constant.
        x: (F,) one row, or (N, F).
        background: (B, F) rows; for `conditional` at least two.
        conditional: condition on the known features instead of setting them.

    Returns:
        The shape of `x`, in units of the score.

    Raises:
        TypeError: data that are not numbers.
        ValueError: NaN, shapes or names of columns that do not fit; for `conditional` too many
            features to enumerate, or a single background row, which has no covariance.

    Reference: Štrumbelj, Kononenko (2014), Explaining prediction models and individual
        predictions with feature contributions; Aas, Jullum, Løland (2021), Explaining individual
        predictions when features are dependent.
    Elsewhere: shap `LinearExplainer(feature_perturbation=...)`.

    >>> linear_shap(np.array([3.0, -2.0]), np.array([1.0, 1.0]), np.zeros((1, 2)))
    array([ 3., -2.])
    """
    w = finite_floats("weights", weights, 1)
    rows, others = _table(x, background)
    if w.shape != rows.shape[1:]:
        raise ValueError(f"weights must have shape {rows.shape[1:]}, got {w.shape}")
    away = rows - others.mean(0)
    if not conditional:
        found = w * away
    elif len(others) < 2:
        raise ValueError("background must have at least two rows for conditional=True, got 1")
    else:
        masks = _coalitions(_countable(w.size, "features"))
        worths = np.stack([away @ _given(mask, others) @ w for mask in masks])
        found = np.stack([_shares(column) for column in worths.T])
    return found if np.ndim(x) == 2 else found[0]


# ---- trees -------------------------------------------------------------------------------------


def tree_shap(tree: Any, x: Array, *, target: int | None = None) -> Array:
    r"""Exact Shapley values of one decision tree, without enumerating coalitions.

    $$v(S) = \sum_{\text{leaves}} \text{value} \prod_{i \in S} o_i \prod_{i \notin S} z_i$$

    A row whose feature i is known goes down its own branch: $o_i$ is 1 if all of the leaf's
    splits on i let it pass. Of unknown ones it takes every branch in proportion to the training
    rows that went there: $z_i$ is the product of those shares. Each leaf is a product game of
    its few features, so its Shapley values come from the coefficients of a polynomial.

    Args:
        tree: a fitted scikit-learn `DecisionTreeRegressor` or `DecisionTreeClassifier`; of a
            forest, one of its trees.
        x: (F,) one row, or (N, F): array, tensor, list, Series or DataFrame. NaN goes where the
            tree sends it.
        target: which column of `predict_proba` is explained, or, where a regressor has several
            outputs, of `predict`; None for a regressor: all outputs.

    Returns:
        The shape of `x`, with one more dimension (K,) for a regressor of K > 1 outputs and no
        target; over features it sums to the tree's answer minus its mean over training rows.

    Raises:
        TypeError: no fitted scikit-learn tree, a forest; text in a column; a target that is no
            integer (True, 1.0 and "1" are none).
        ValueError: x does not fit the tree, in number or names of columns; infinity; target
            missing, or out of range; a classifier of several outputs.

    Reference: Lundberg et al. (2020), From local explanations to global understanding with
        explainable AI for trees (the game); Yang (2021), Fast TreeSHAP (leaf by leaf).
    Elsewhere: shap `TreeExplainer(feature_perturbation="tree_path_dependent")`.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> rows = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> tree = DecisionTreeRegressor().fit(rows, [0, 0, 0, 1])  # x0 and x1
    >>> tree_shap(tree, np.array([1.0, 1.0]))
    array([0.375, 0.375])
    """
    nodes, values, rows = _tree(tree, x, target)
    goes_left = _goes_left(nodes, rows)
    found = np.zeros((*rows.shape, values.shape[1]))
    for leaf, path in _leaves(nodes):
        features = sorted({int(nodes.feature[node]) for node, _ in path})
        ones, zeros = np.ones((len(rows), len(features))), np.ones(len(features))
        for node, left in path:
            i = features.index(nodes.feature[node])
            ones[:, i] *= goes_left[:, node] == left
            child = nodes.children_left[node] if left else nodes.children_right[node]
            zeros[i] *= nodes.weighted_n_node_samples[child] / nodes.weighted_n_node_samples[node]
        found[:, features] += _product_game(ones, zeros)[..., None] * values[leaf]
    return _like(found, x)


def path_attribution(tree: Any, x: Array, *, target: int | None = None) -> Array:
    r"""Give each split on a row's way down the change of the mean answer. This is not SHAP.

    $$A_i = \sum_{\text{splits on } i} \big(\text{mean of child} - \text{mean of node}\big)$$

    The sum is the same as SHAP's, but the order of the splits decides who gets what: the lower
    split of a symmetric function gets more.

    Args:
        tree: a fitted scikit-learn tree, as for `tree_shap`.
        x: (F,) one row, or (N, F).
        target: which column is explained, as for `tree_shap`.

    Returns:
        As `tree_shap`: the means of the nodes are those of the tree's answers, whatever it was
        grown to minimize, so that the sums are the same.

    Raises:
        TypeError, ValueError: as `tree_shap`.

    Reference: Saabas (2014), Interpreting random forests.
    Elsewhere: the `treeinterpreter` package.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> rows = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> tree = DecisionTreeRegressor(random_state=0).fit(rows, [0, 0, 0, 1])
    >>> sorted(path_attribution(tree, np.array([1.0, 1.0])).tolist())
    [0.25, 0.5]
    """
    nodes, values, rows = _tree(tree, x, target)
    goes_left, means = _goes_left(nodes, rows), _means(nodes, values)
    found = np.zeros((*rows.shape, values.shape[1]))
    for i, row in enumerate(found):
        node = 0
        while nodes.children_left[node] >= 0:
            left = goes_left[i, node]
            child = nodes.children_left[node] if left else nodes.children_right[node]
            row[nodes.feature[node]] += means[child] - means[node]
            node = child
    return _like(found, x)


def _tree(tree: Any, x: Any, target: int | None) -> tuple[Any, Array, Array]:
    """Return the tree's nodes, the explained answers (nodes, K), and the rows as it sees them."""
    nodes: Any = getattr(tree, "tree_", None)
    if not hasattr(nodes, "children_left"):
        kind = type(tree).__name__
        trees = len(getattr(tree, "estimators_", ()))
        many = f", which has {trees} trees: take one of its estimators_" if trees else ""
        raise TypeError(
            f"tree must be one fitted scikit-learn decision tree, got {kind}{many}; a whole model "
            "of another kind is explained by permutation_shap(model.predict, ...)"
        )
    rows = _seen_by(tree, x)
    if rows.shape[1] != nodes.n_features:
        raise ValueError(f"the tree knows {nodes.n_features} features, x has shape {np.shape(x)}")
    return nodes, _explained(nodes.value, target), rows


def _seen_by(tree: Any, x: Any) -> Array:
    """Return x as (N, F) float32, as the tree itself rounds it, NaN included."""
    if np.ndim(x) not in (1, 2):
        raise ValueError(f"x must be (F,) or (N, F), got shape {np.shape(x)}")
    trained = getattr(tree, "feature_names_in_", None)
    _check_columns("x", column_names(x), "the tree", None if trained is None else list(trained))
    holes = np.asarray(pd.isna(as_array(x) if isinstance(x, Tensor) else x))
    values = finite_floats("x", _filled(x, holes) if holes.any() else x, np.ndim(x))
    with np.errstate(over="ignore"):
        rows = np.where(holes, np.nan, values).astype(np.float32)
    if np.isinf(rows).any():
        raise ValueError("x holds values that are too large for float32, which the tree works in")
    return np.atleast_2d(rows)


def _filled(x: Any, holes: Array) -> Any:
    """Return x with 0 where something is missing, under the same names."""
    values = np.where(holes, 0.0, np.asarray(x, dtype=object))
    if isinstance(x, pd.DataFrame):
        return pd.DataFrame(values, columns=x.columns)
    return pd.Series(values, index=x.index) if isinstance(x, pd.Series) else values


def _explained(values: Array, target: int | None) -> Array:
    """Return which of the answers (nodes, outputs, classes) are explained, (nodes, K)."""
    outputs, classes = values.shape[1:]
    if outputs > 1 and classes > 1:
        raise ValueError(
            f"the tree has {outputs} outputs of several classes: fit one tree for each"
        )
    answers = values[:, :, 0] if classes == 1 else values[:, 0]
    if target is None and classes > 1:
        raise ValueError(f"target=None, but the tree has {classes} classes: say which one")
    if target is None:
        return answers
    return answers[:, [check_index("target", target, answers.shape[1])]]


def _like(found: Array, x: Any) -> Array:
    """Return (N, F, K) as one row where x is one, without the last axis where K is 1."""
    whole = found[..., 0] if found.shape[2] == 1 else found
    return whole if np.ndim(x) == 2 else whole[0]


def _means(nodes: Any, values: Array) -> Array:
    """Return the mean over training rows of the answers below every node, (nodes, K)."""
    means, weight = values.copy(), nodes.weighted_n_node_samples
    for node in reversed(range(len(means))):  # children have larger numbers
        left, right = nodes.children_left[node], nodes.children_right[node]
        if left >= 0:
            both = weight[left] * means[left] + weight[right] * means[right]
            means[node] = both / weight[node]
    return means


def _goes_left(nodes: Any, rows: Array) -> Array:
    """Tell for every row and every node whether the row would go left there, (N, nodes)."""
    seen = rows[:, nodes.feature.clip(0)].astype(np.float64)
    return np.where(np.isnan(seen), nodes.missing_go_to_left == 1, seen <= nodes.threshold)


def _leaves(nodes: Any) -> list[tuple[int, list[tuple[int, bool]]]]:
    """Return every leaf with the way to it: (node, went left) from the root on."""
    found, waiting = [], [(0, [])]  # type: ignore[var-annotated]
    while waiting:
        node, path = waiting.pop()
        if nodes.children_left[node] < 0:
            found.append((node, path))
        else:
            waiting.append((nodes.children_left[node], [*path, (node, True)]))
            waiting.append((nodes.children_right[node], [*path, (node, False)]))
    return found


def _product_game(ones: Array, zeros: Array) -> Array:
    r"""Return the Shapley values, (N, d), of $v(S) = \prod_{i \in S} o_i \prod_{i \notin S} z_i$.

    Player i adds $(o_i - z_i)$ times the product of the others. The coefficient of $t^k$ in
    $\prod_{j \ne i} (z_j + o_j t)$ is the sum of those products over all coalitions of size k.
    """
    n, d = ones.shape
    found = np.empty((n, d))
    weights = np.array([_weight(k, d) for k in range(d)])
    for i in range(d):
        sums = np.zeros((n, d))
        sums[:, 0] = 1
        for j in (j for j in range(d) if j != i):
            sums[:, 1:] = zeros[j] * sums[:, 1:] + ones[:, j : j + 1] * sums[:, :-1]
            sums[:, 0] *= zeros[j]
        found[:, i] = (ones[:, i] - zeros[i]) * (sums @ weights)
    return found


# ---- what they share ---------------------------------------------------------------------------


def _countable(n: int, what: str) -> int:
    count = check_positive(f"number of {what}", n)
    if count > _MOST:
        raise ValueError(
            f"{n} {what} have 2^{n} coalitions, more than can be enumerated (at most {_MOST} "
            f"{what}): group them, or draw a sample with permutation_shap or kernel_shap"
        )
    return count


def _game(value: Callable[[frozenset[int]], float], masks: Array) -> Array:
    """Return what coalitions are worth, (M,) float64."""
    if not callable(value):
        raise TypeError(f"value must be a function, got {type(value).__name__}")
    worths = [value(frozenset(np.flatnonzero(mask).tolist())) for mask in masks]
    for worth in worths:
        if not isinstance(worth, (Real, np.bool_, np.ndarray, Tensor)) or np.ndim(worth):
            raise TypeError(f"value must give one number, got {worth!r:.60}")
    return finite_floats("value(coalition)", [float(worth) for worth in worths], 1)


def _coalitions(n: int) -> Array:
    """Return all coalitions as (2^n, n) bools; player i is bit i of the row's number."""
    return (np.arange(2**n)[:, None] >> np.arange(n)) % 2 == 1


def _weight(size: int, n: int) -> float:
    """Return the share of orders in which a coalition of this size comes just before a player."""
    return factorial(size) * factorial(n - size - 1) / factorial(n)


def _shares(worths: Array) -> Array:
    """Return the Shapley values (n,) of the worths (2^n,) of all coalitions, in their order."""
    n = len(worths).bit_length() - 1
    sizes = _coalitions(n - 1).sum(1) if n > 1 else np.zeros(1, dtype=int)
    weights = np.array([_weight(size, n) for size in range(n)])[sizes]
    shares = np.empty(n)
    for i in range(n):
        pairs = worths.reshape(-1, 2, 2**i)  # without player i, with player i
        shares[i] = weights @ (pairs[:, 1] - pairs[:, 0]).ravel()
    return shares


def _table(x: Any, background: Any) -> tuple[Array, Array]:
    """Return x and the background as (N, F) and (B, F) float64, with the same columns."""
    shapes = np.shape(x), np.shape(background)
    if len(shapes[0]) not in (1, 2) or len(shapes[1]) != 2 or shapes[0][-1] != shapes[1][-1]:
        raise ValueError(
            f"x must be (F,) or (N, F) and background (B, F), got {shapes[0]} and {shapes[1]}"
        )
    if 0 in shapes[0] + shapes[1]:
        raise ValueError(f"x or background is empty: {shapes[0]} and {shapes[1]}")
    _check_columns("x", column_names(x), "background", column_names(background))
    rows = finite_floats("x", x, len(shapes[0]))
    return np.atleast_2d(rows), finite_floats("background", background, 2)


def _check_columns(
    name: str, columns: list[str] | None, other: str, others: list[str] | None
) -> None:
    """Refuse tables whose columns have other names, or another order."""
    if columns is None or others is None or columns == others:
        return
    pairs = zip_longest(columns, others)
    one, two = next(pair for pair in pairs if pair[0] != pair[1])
    raise ValueError(f"{name} has the column {one!r} where {other} has {two!r}")


def _worths(
    predict: Predict, row: Array, background: Array, masks: Array, batch_size: int | None
) -> Array:
    """Return the mean answer of each coalition over the background, (M,) or (M, K)."""
    if not callable(predict):
        raise TypeError(f"predict must be a function, got {type(predict).__name__}")

    def mean_answers(some: Array) -> Array:
        rows = np.where(some[:, None], row, background)  # (m, B, F)
        answers = _answers(predict(rows.reshape(-1, len(row))), rows.shape[0] * rows.shape[1])
        return answers.reshape(*rows.shape[:2], *answers.shape[1:]).mean(1)

    return batched(
        mean_answers, masks, batch_size=batch_size, owner=predict, row_bytes=background.nbytes
    )


def _answers(given: Any, n: int) -> Array:
    """Return what a black box answered to n rows as finite float64, (n,) or (n, K)."""
    wanted = f"predict must give ({n},) or ({n}, K)"
    try:
        answers = as_array(given) if isinstance(given, Tensor) else np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{wanted}, got rows that differ") from error
    if answers.ndim not in (1, 2) or len(answers) != n or not answers.size:
        raise ValueError(f"{wanted}, got {answers.shape}")
    if answers.dtype.kind not in "biuf":
        raise TypeError(f"predict must give numbers, got {answers.dtype}: {answers.flat[0]!r:.40}")
    if not np.isfinite(answers).all():
        raise ValueError("predict gave values that are NaN or infinite")
    return answers.astype(np.float64)


def _orders(n: int, count: int, seed: int) -> list[Array]:
    """Return random orders of the features, each followed by its reverse."""
    generator = np.random.default_rng(seed)
    return [way for _ in range(count) for way in _both(generator.permutation(n))]


def _both(order: Array) -> tuple[Array, Array]:
    return order, order[::-1]


def _walk(order: Array) -> Array:
    """Return the coalitions on the way from nobody to everybody, (n + 1, n)."""
    return np.argsort(order) < np.arange(len(order) + 1)[:, None]


def _sampled(n: int, n_samples: int | None, seed: int) -> tuple[Array, Array]:
    """Return coalitions, neither empty nor full, and their weights in the regression."""
    count = None if n_samples is None else check_positive("n_samples", n_samples)
    if count is None or count >= 2**n - 2:
        masks = _coalitions(_countable(n, "features"))[1:-1]
        kernel = [0.0] + [(n - 1) / (comb(n, k) * k * (n - k)) for k in range(1, n)]
        return masks, np.array(kernel)[masks.sum(1)]
    generator = np.random.default_rng(seed)
    share = shapley_kernel_weights(n)
    sizes = generator.choice(np.arange(1, n), size=-(-count // 2), p=share / share.sum())
    ranks = generator.random((len(sizes), n)).argsort(1)
    some = ranks < sizes[:, None]
    masks = np.concatenate([some, ~some])
    if np.linalg.matrix_rank(masks[:, 1:] ^ masks[:, :1]) < n - 1:
        raise ValueError(f"{n_samples} samples do not tell {n} features apart: draw more")
    return masks, np.ones(len(masks))  # drawn as often as they weigh


def _regressed(masks: Array, weights: Array, worths: Array, total: Array) -> Array:
    """Solve the weighted regression; the last coefficient is what the sum leaves."""
    last = masks[:, -1:].astype(np.float64)
    design = masks[:, :-1] - last
    scale = np.sqrt(weights)[:, None]
    answers = worths.reshape(len(masks), np.size(total)) - last * np.reshape(total, (1, -1))
    free = np.linalg.lstsq(design * scale, answers * scale, rcond=None)[0]  # (F - 1, K)
    found = np.concatenate([free, np.reshape(total, (1, -1)) - free.sum(0)])
    return found.reshape(masks.shape[1], *np.shape(total))


def _given(known: Array, background: Array) -> Array:
    """Return A with E[X - mean | X_S] = (x - mean) @ A for normal X; S are the known features."""
    covariance = np.atleast_2d(np.cov(background.T))
    found = np.diag(known).astype(np.float64)
    inverse = np.linalg.pinv(covariance[np.ix_(known, known)])
    found[np.ix_(known, ~known)] = inverse @ covariance[np.ix_(known, ~known)]
    return found
