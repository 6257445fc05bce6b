"""Sharing out a score fairly: Shapley values by definition, by sampling, by regression, in trees.

Lesson `shap` teaches this file. A feature's share is what it adds on average, over all orders in
which the features could have come. All ways here compute that one number; they differ in what "not
there yet" means (a baseline, a background, the tree's own training rows) and in what they cost.
"""

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xailab.attribution.games import owen_of_game as owen_of_game
from xailab.attribution.games import owen_text as owen_text
from xailab.attribution.games import owen_values as owen_values
from xailab.attribution.games import shapley_interactions as shapley_interactions
from xailab.attribution.games import shapley_of_game as shapley_of_game
from xailab.attribution.occlusion import check_feature_mask, count_features
from xailab.attribution.trees import path_attribution as path_attribution
from xailab.attribution.trees import tree_shap as tree_shap
from xailab.core.black_boxes import ask_in_chunks, numbers_of
from xailab.core.checks import (
    Model,
    Target,
    as_integer,
    check_baseline,
    check_input,
    check_positive,
)
from xailab.core.coalitions import all_coalitions, countable, shared_out
from xailab.core.outputs import as_array
from xailab.core.registry import grid_of, method
from xailab.core.scores import variant_scores
from xailab.core.tables import check_columns, column_names, finite_floats

Array = np.ndarray
Predict = Callable[[Array], Array]


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
    masks = torch.as_tensor(all_coalitions(countable(len(names), "features")), device=x.device)
    label = label.expand(x.shape)

    def composed(rows: Tensor, numbers: Tensor) -> Tensor:
        shown = masks[numbers].gather(1, label[rows].flatten(1)).reshape(len(rows), *x.shape[1:])
        return torch.where(shown, x[rows], start[rows])

    worths = variant_scores(model, x, target, len(masks), composed, batch_size=batch_size)
    shares = [shared_out(row) for row in worths.double().cpu().numpy()]
    found = torch.as_tensor(np.stack(shares), device=x.device)
    return found.gather(1, label.flatten(1)).reshape(x.shape).to(x.dtype)


def permutation_shap(
    predict: Predict,
    x: Array,
    background: Array,
    *,
    n_permutations: int = 10,
    feature_mask: Any = None,
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
        feature_mask: (F,) integers: features with one label are one player, which comes as a
            whole, and each of them carries its value. None: each feature by itself.
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
    player = _players(feature_mask, rows.shape[1])
    orders = _orders(player.max() + 1, count, as_integer("seed", seed))
    masks = np.concatenate([_walk(order) for order in orders])  # (2m (P + 1), P)
    found = []
    for row in rows:
        worths = _worths(predict, row, others, masks[:, player], batch_size)
        steps = np.diff(worths.reshape(len(orders), -1, *worths.shape[1:]), axis=1)
        added = np.zeros((masks.shape[1], *worths.shape[1:]))
        for order, step in zip(orders, steps, strict=True):
            added[order] += step / len(orders)
        found.append(added[player])
    return np.stack(found) if np.ndim(x) == 2 else found[0]


def kernel_shap(
    predict: Predict,
    x: Array,
    background: Array,
    *,
    n_samples: int | None = None,
    feature_mask: Any = None,
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
        feature_mask: (F,) integers: features with one label are one player, which comes as a
            whole, and each of them carries its value. None: each feature by itself.
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
    player = _players(feature_mask, rows.shape[1])
    masks, weights = _sampled(int(player.max()) + 1, n_samples, as_integer("seed", seed))
    ends = np.array([[False], [True]]).repeat(masks.shape[1], axis=1)
    every = np.concatenate([ends, masks])
    found = []
    for row in rows:
        worths = _worths(predict, row, others, every[:, player], batch_size)
        nobody, everybody = worths[:2]
        shares = _regressed(masks, weights, worths[2:] - nobody, everybody - nobody)
        found.append(shares[player])
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
        masks = all_coalitions(countable(w.size, "features"))
        worths = np.stack([away @ _given(mask, others) @ w for mask in masks])
        found = np.stack([shared_out(column) for column in worths.T])
    return found if np.ndim(x) == 2 else found[0]


# ---- what they share ---------------------------------------------------------------------------


def _table(x: Any, background: Any) -> tuple[Array, Array]:
    """Return x and the background as (N, F) and (B, F) float64, with the same columns."""
    shapes = np.shape(x), np.shape(background)
    if len(shapes[0]) not in (1, 2) or len(shapes[1]) != 2 or shapes[0][-1] != shapes[1][-1]:
        raise ValueError(
            f"x must be (F,) or (N, F) and background (B, F), got {shapes[0]} and {shapes[1]}"
        )
    if 0 in shapes[0] + shapes[1]:
        raise ValueError(f"x or background is empty: {shapes[0]} and {shapes[1]}")
    check_columns("x", column_names(x), "background", column_names(background))
    rows = finite_floats("x", x, len(shapes[0]))
    return np.atleast_2d(rows), finite_floats("background", background, 2)


def _players(feature_mask: Any, n: int) -> Array:
    """Return which player each of n features belongs to, numbers 0..P-1, (n,)."""
    if feature_mask is None:
        return np.arange(n)
    given = as_array(feature_mask) if isinstance(feature_mask, Tensor) else np.asarray(feature_mask)
    if given.dtype.kind not in "iu":
        raise TypeError(f"feature_mask must hold integers, got {given.dtype}")
    if given.size != n or given.shape[-1:] != (n,):
        raise ValueError(f"feature_mask must be ({n},), a label for each column, got {given.shape}")
    return np.unique(given.ravel(), return_inverse=True)[1]


def _worths(
    predict: Predict, row: Array, background: Array, masks: Array, batch_size: int | None
) -> Array:
    """Return the mean answer of each coalition over the background, (M,) or (M, K)."""

    def mean_answers(some: Array) -> Array:
        rows = np.where(some[:, None], row, background)  # (m, B, F)
        answers = numbers_of(predict(rows.reshape(-1, len(row))), rows.shape[0] * rows.shape[1])
        return answers.reshape(*rows.shape[:2], *answers.shape[1:]).mean(1)

    return ask_in_chunks(
        predict, mean_answers, masks, batch_size=batch_size, row_bytes=background.nbytes
    )


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
        masks = all_coalitions(countable(n, "features"))[1:-1]
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
