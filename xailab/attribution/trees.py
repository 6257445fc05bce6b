"""SHAP values of trees, forests and boosting: exact, leaf by leaf, without enumerating coalitions.

Lesson `shap` teaches this file. A tree is a sum over its leaves, and whether a row comes to a leaf
is a product over features: each of them lets it pass or not. Shapley values add up, and those of a
product are one integral: exact for trees of hundreds of features, and for sums of trees.
"""

from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.special import beta
from torch import Tensor

from xailab.attribution.games import order_weight
from xailab.core.checks import check_index
from xailab.core.outputs import as_array
from xailab.core.tables import check_columns, column_names, finite_floats

Array = np.ndarray

_ROWS = 1000  # explained at once, and
_NUMBERS = 2**18  # numbers of one array on the way: small enough for the processor's cache
_CLOSE = 1e-6  # how far a sum may be from the model's answer, as a share of its largest answer


class Tree(NamedTuple):
    """One tree, node by node; node 0 is the root, and children have larger numbers.

    Attributes:
        left, right: (nodes,) the children; -1 at a leaf.
        feature: (nodes,) what is asked there.
        cover: (nodes,) weight of the training rows that came there.
        value: (nodes, K), what a leaf adds to the K answers of the model.
        goes_left: rows (N, F) -> (N, nodes), whether they would go left there.
    """

    left: Array
    right: Array
    feature: Array
    cover: Array
    value: Array
    goes_left: Callable[[Array], Array]


class Trees(NamedTuple):
    """A model that is a constant and a sum of trees.

    Attributes:
        trees: all of them, with the weights that they are added with.
        base: (K,), the constant.
        width: number of features.
        dtype: of the rows that the splits look at.
        ask: rows (N, F) -> the model's own answers, (N, K), in the units that are explained.
        units: of the answers: "probability", "log-odds" (of two classes; "half log-odds" for
            the loss "exponential"), "logit" (of each of several), "log of the output", "score".
        encode: rows as they are given -> rows as the splits see them.
    """

    trees: list[Tree]
    base: Array
    width: int
    dtype: Any
    ask: Callable[[Array], Array]
    units: str
    encode: Callable[[Array], Array]


def tree_shap(
    tree: Any, x: Array, *, target: int | None = None, background: Array | None = None
) -> Array:
    r"""Exact Shapley values of a tree, a forest or a boosted sum of trees.

    $$v(S) = \sum_{\text{leaves}} \text{value} \prod_{i \in S} o_i \prod_{i \notin S} z_i, \qquad
      \phi_i = \sum_{\text{leaves}} \text{value} \int_0^1 (o_i - z_i)
      \prod_{j \ne i} \big(z_j + t\,(o_j - z_j)\big)\, dt$$

    $o_i$ is 1 if all splits on feature i on the way to the leaf let the row pass. $z_i$ says what
    happens while i is unknown, and here two games differ:

    - `background=None`, **path-dependent**: an unknown feature takes both branches of its splits,
      in proportion to the training rows that went there, and $z_i$ is the product of those shares:
      what would the model say, on average over training rows like this one? Features that go
      together are kept together as far as the trees know it.
    - rows as `background`, **interventional**: $v(S) = \operatorname{mean}_b f(x_S, b_{\bar S})$;
      $z_i$ is 1 if row b passes, and the values are the mean over b: what would the model say if
      the unknown features were set to those of other rows? It is what `kernel_shap` estimates.

    Units: probabilities for classification by trees and forests, the model's own output for
    regression; for boosting the raw score before any link: the log-odds of two classes (half of
    them for the loss "exponential"), the logit of each of several, the logarithm of the answer for
    a loss of "poisson" or "gamma".

    Args:
        tree: a fitted model of scikit-learn: a decision tree, `RandomForest*`, `ExtraTrees*`,
            `Bagging*` of trees, `GradientBoosting*`, `HistGradientBoosting*` (which keeps the
            number of training rows for its shares, without their weights).
        x: (F,) one row, or (N, F): array, tensor, list, Series or DataFrame. NaN goes where the
            tree sends it.
        target: the class that is explained, a column of `predict_proba`, or, where a regressor has
            several outputs, of `predict`; None for a regressor: all outputs. Boosting of two
            classes has one score, that of class 1: None takes it, 0 its negative.
        background: (B, F) rows, or None; see above.

    Returns:
        The shape of `x`, with one more dimension (K,) for a regressor of K > 1 outputs and no
        target; over features it sums to the model's answer minus the mean answer: over training
        rows as the trees count them, or over the background.

    Raises:
        TypeError: a model that is no sum of scikit-learn's trees (XGBoost, LightGBM and CatBoost
            have exact values of their own, and the message says how to ask); text in a column; a
            target that is no integer (True, 1.0 and "1" are none).
        ValueError: x does not fit the model, in number or names of columns; infinity; target
            missing, or out of range; a classifier of several outputs; boosting that starts from a
            model; categories that are no numbers; a sum that is not the model's own answer.

    Reference: Lundberg et al. (2020), From local explanations to global understanding with
        explainable AI for trees (both games); Owen (1972), Multilinear Extensions of Games (the
        integral, here exact by Gauss and Legendre); Yang (2021), Fast TreeSHAP (leaf by leaf).
    Elsewhere: shap `TreeExplainer(feature_perturbation="tree_path_dependent")` and
        `"interventional"`; `model_output="raw"` for boosting.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> rows = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> tree = DecisionTreeRegressor().fit(rows, [0, 0, 0, 1])  # x0 and x1
    >>> tree_shap(tree, np.array([1.0, 1.0])).round(6)
    array([0.375, 0.375])
    """
    model = _chosen(read_trees(tree), target)
    given, others = _given(tree, model, "x", x), _others(tree, model, background)
    found = _shared_out(model, given, others)
    _check_sum(model, given, found, _start(model, others))
    return _like(found, x)


def tree_start(tree: Any, *, target: int | None = None, background: Array | None = None) -> Array:
    r"""Return the answer from which the values of `tree_shap` start: $v(\emptyset)$.

    Args:
        tree, target, background: as for `tree_shap`.

    Returns:
        (K,), in the units of `tree_shap`; K is 1 but for a regressor of several outputs. Over
        training rows it is the mean of what the trees answer, and not of the training targets.

    Raises:
        TypeError, ValueError: as `tree_shap`.

    Elsewhere: shap `TreeExplainer.expected_value`.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> tree_start(DecisionTreeRegressor().fit([[0], [1], [2], [3]], [0, 0, 0, 1]))
    array([0.25])
    """
    model = _chosen(read_trees(tree), target)
    return _start(model, _others(tree, model, background))


def tree_answers(tree: Any, x: Array, *, target: int | None = None) -> Array:
    """Return what the model itself answers, in the units in which `tree_shap` explains it.

    Args:
        tree, x, target: as for `tree_shap`.

    Returns:
        (N, K); K is 1 but for a regressor of several outputs.

    Raises:
        TypeError, ValueError: as `tree_shap`.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> tree_answers(DecisionTreeRegressor().fit([[0], [1]], [0, 1]), np.ones((2, 1))).tolist()
    [[1.0], [1.0]]
    """
    model = _chosen(read_trees(tree), target)
    return model.ask(_given(tree, model, "x", x))


def path_attribution(tree: Any, x: Array, *, target: int | None = None) -> Array:
    r"""Give each split on a row's way down the change of the mean answer. This is not SHAP.

    $$A_i = \sum_{\text{splits on } i} \big(\text{mean of child} - \text{mean of node}\big)$$

    The sum is the same as SHAP's, but the order of the splits decides who gets what: the lower
    split of a symmetric function gets more. Of several trees the values are added up.

    Args:
        tree: a fitted model of scikit-learn's trees, as for `tree_shap`.
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
    model = _chosen(read_trees(tree), target)
    given = _given(tree, model, "x", x)
    found = np.zeros((*given.shape, len(model.base)))
    rows = model.encode(given)
    for one in model.trees:
        _book_way(one, _means(one), rows, found)
    _check_sum(model, given, found, _start(model, None))
    return _like(found, x)


def tree_shap_by_hand(tree: Any, x: Array, *, target: int | None = None) -> Array:
    r"""Path-dependent `tree_shap` of one decision tree, written to be read: one leaf at a time.

    $$\phi_i = \sum_{\text{leaves}} \text{value}\,(o_i - z_i) \sum_k \frac{k!\,(d - k - 1)!}{d!}
      \, [t^k] \prod_{j \ne i} (z_j + o_j t)$$

    The product over the d features of a leaf, as a polynomial in t, sorts coalitions by their size:
    the coefficient of $t^k$ is the sum over all that hold k of the other features.

    Args:
        tree: a fitted scikit-learn `DecisionTreeRegressor` or `DecisionTreeClassifier`.
        x, target: as for `tree_shap`.

    Returns:
        As `tree_shap`.

    Raises:
        TypeError, ValueError: as `tree_shap`; several trees.

    Reference: Lundberg et al. (2020), From local explanations to global understanding with
        explainable AI for trees; Yang (2021), Fast TreeSHAP.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> rows = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    >>> tree_shap_by_hand(DecisionTreeRegressor().fit(rows, [0, 0, 0, 1]), np.array([1.0, 1.0]))
    array([0.375, 0.375])
    """
    model = _chosen(read_trees(tree), target)
    if len(model.trees) != 1:
        raise TypeError(f"{type(tree).__name__} has {len(model.trees)} trees: ask tree_shap")
    (one,), rows = model.trees, model.encode(_given(tree, model, "x", x))
    goes_left, found = one.goes_left(rows), np.zeros((*rows.shape, one.value.shape[1]))
    for leaf, path in _leaves(one):
        features = sorted({int(one.feature[node]) for node, _ in path})
        ones, zeros = np.ones((len(rows), len(features))), np.ones(len(features))
        for node, left in path:
            i = features.index(one.feature[node])
            ones[:, i] *= goes_left[:, node] == left
            child = one.left[node] if left else one.right[node]
            zeros[i] *= one.cover[child] / one.cover[node]
        found[:, features] += _product_game(ones, zeros)[..., None] * one.value[leaf]
    return _like(found, x)


def _leaves(tree: Tree) -> list[tuple[int, list[tuple[int, bool]]]]:
    """Return every leaf with the way to it: (node, went left) from the root on."""
    found, waiting = [], [(0, [])]  # type: ignore[var-annotated]
    while waiting:
        node, path = waiting.pop()
        if tree.left[node] < 0:
            found.append((node, path))
        else:
            waiting.append((tree.left[node], [*path, (node, True)]))
            waiting.append((tree.right[node], [*path, (node, False)]))
    return found


def _product_game(ones: Array, zeros: Array) -> Array:
    r"""Return the Shapley values, (N, d), of $v(S) = \prod_{i \in S} o_i \prod_{i \notin S} z_i$.

    Player i adds $(o_i - z_i)$ times the product of the others. The coefficient of $t^k$ in
    $\prod_{j \ne i} (z_j + o_j t)$ is the sum of those products over all coalitions of size k.
    """
    n, d = ones.shape
    found = np.empty((n, d))
    weights = np.array([order_weight(k, d) for k in range(d)])
    for i in range(d):
        sums = np.zeros((n, d))
        sums[:, 0] = 1
        for j in (j for j in range(d) if j != i):
            sums[:, 1:] = zeros[j] * sums[:, 1:] + ones[:, j : j + 1] * sums[:, :-1]
            sums[:, 0] *= zeros[j]
        found[:, i] = (ones[:, i] - zeros[i]) * (sums @ weights)
    return found


# ---- many leaves at once -------------------------------------------------------------------------


class _Ways(NamedTuple):
    """How the leaves of a tree are reached, by the nodes that decide.

    Attributes:
        above: (nodes,), of a node, the last one above it that the same feature led to; 0: none.
        leaves: (L,) their nodes.
        deciding: (L, d), for each feature on the way the last node that it led to; 0, the root,
            where there are fewer: it lets all pass, and plays no part.
        feature: (nodes,), which feature led to a node.
        shares: (nodes,), the share of training rows that its feature lets pass, all its splits on
            the way taken together.
    """

    above: Array
    leaves: Array
    deciding: Array
    feature: Array
    shares: Array


def _start(model: Trees, others: Array | None) -> Array:
    """Return the mean answer (K,) over other rows, or over the training rows of the trees."""
    if others is not None:
        return model.ask(others).mean(0)
    return model.base + np.sum([_mean(tree) for tree in model.trees], axis=0)


def _mean(tree: Tree) -> Array:
    leaves = tree.left < 0
    return np.average(tree.value[leaves], axis=0, weights=tree.cover[leaves])


def _shared_out(model: Trees, given: Array, others: Array | None) -> Array:
    """Return the Shapley values (N, F, K)."""
    rows = model.encode(given)
    background = None if others is None else model.encode(others)
    found = np.zeros((rows.shape[1], len(model.base), len(rows)))
    for tree in model.trees:
        if not tree.value.any():  # of another class
            continue
        ways = _ways(tree)
        passed = None if background is None else _passed(tree, ways, background)
        for start in range(0, len(rows), _ROWS):
            chunk = slice(start, start + _ROWS)
            _add_leaves(tree, ways, _passed(tree, ways, rows[chunk]), passed, found[..., chunk])
    return found.transpose(2, 0, 1)


def _ways(tree: Tree) -> _Ways:
    """Go down to all leaves, keeping by whom each feature has been decided last."""
    left, right, asked = tree.left.tolist(), tree.right.tolist(), tree.feature.tolist()
    above, feature = [0] * len(left), [0] * len(left)
    leaves, ends = [], []
    waiting: list[tuple[int, dict[int, int]]] = [(0, {})]
    while waiting:
        node, decided = waiting.pop()
        if left[node] < 0:
            leaves.append(node)
            ends.append(list(decided.values()))
            continue
        for child in (left[node], right[node]):
            above[child], feature[child] = decided.get(asked[node], 0), asked[node]
            waiting.append((child, {**decided, asked[node]: child}))
    order = sorted(range(len(ends)), key=lambda i: len(ends[i]))  # those alike come together
    most = max(1, len(ends[order[-1]]))
    deciding = np.array([ends[i] + [0] * (most - len(ends[i])) for i in order])
    up = np.array(above)
    return _Ways(up, np.array(leaves)[order], deciding, np.array(feature), _covered(tree, up))


def _covered(tree: Tree, above: Array) -> Array:
    """Return the shares of `_Ways`."""
    shares, inner = np.ones(len(above)), np.flatnonzero(tree.left >= 0)
    for children in (tree.left[inner], tree.right[inner]):
        shares[children] = tree.cover[children] / tree.cover[inner]
    for node in np.flatnonzero(above):  # above it stand smaller numbers
        shares[node] *= shares[above[node]]
    return shares


def _passed(tree: Tree, ways: _Ways, rows: Array) -> Array:
    """Return whether each node's feature lets a row pass, as `_Ways.shares`, (nodes, N)."""
    goes_left, inner = np.ascontiguousarray(tree.goes_left(rows).T), np.flatnonzero(tree.left >= 0)
    passed = np.ones((len(tree.left), len(rows)), dtype=bool)
    passed[tree.left[inner]] = goes_left[inner]
    passed[tree.right[inner]] = ~goes_left[inner]
    for node in np.flatnonzero(ways.above):
        passed[node] &= passed[ways.above[node]]
    return passed


def _add_leaves(tree: Tree, ways: _Ways, passed: Array, others: Array | None, found: Array) -> None:
    """Add the games of all leaves to the values found, (F, K, N)."""
    wide = passed.shape[1] * (1 if others is None else others.shape[1])
    for some in _chunks(ways.deciding, wide):
        deciding = ways.deciding[some]
        deciding = deciding[:, : max(1, int((deciding > 0).sum(1).max()))]
        ones = passed[deciding]  # (L, d, N)
        if others is None:
            shares = _by_integral(ones, ways.shares[deciding])
        else:
            shares = _by_pairs(ones, others[deciding])
        values = tree.value[ways.leaves[some]]  # (L, K)
        k = values.shape[1]
        places = (ways.feature[deciding][..., None] * k + np.arange(k)).ravel()  # in (F K)
        weights = values[:, None].repeat(deciding.shape[1], 1).ravel()
        columns = np.arange(deciding.size).repeat(k)
        spread = csr_matrix((weights, (places, columns)), (found.shape[0] * k, deciding.size))
        found += (spread @ shares.reshape(deciding.size, -1)).reshape(found.shape)


def _chunks(deciding: Array, wide: int) -> Iterator[slice]:
    """Cut the leaves so that one array of them stays small."""
    step = max(1, _NUMBERS // (wide * deciding.shape[1]))
    return (slice(i, i + step) for i in range(0, len(deciding), step))


def _by_integral(ones: Array, zeros: Array) -> Array:
    r"""Return the shares of each leaf's product game, (L, d, N), by the integral of `tree_shap`.

    The product has the degree d - 1 in t, so that d / 2 points give the integral exactly. A factor
    has one of two values at each of them: with the row's feature known to pass, or not to.
    """
    points, weights = np.polynomial.legendre.leggauss((ones.shape[1] + 1) // 2)
    t, w = (points + 1) / 2, weights / 2
    if_passed = zeros[..., None] + t * (1 - zeros[..., None])  # (L, d, points)
    if_not = zeros[..., None] * (1 - t)
    product: Any = 1.0  # (L, points, N)
    for i in range(ones.shape[1]):
        factor = np.where(ones[:, i, None], if_passed[:, i, :, None], if_not[:, i, :, None])
        product = product * factor
    gain = ((1 - zeros[..., None]) / if_passed * w) @ product  # the others' product, times 1 - z
    loss = (-w / (1 - t)) @ product  # times 0 - z; z itself cancels
    return np.where(ones, gain, loss[:, None])


def _by_pairs(ones: Array, others: Array) -> Array:
    r"""Return the shares, (L, d, N), as the mean over background rows, (L, d, B).

    The pair of a row x and a background row b counts where each feature passes with one of the two.
    Let p pass with x alone, and q with b alone: the product is $t^p (1 - t)^q$, and the integral
    is that of Euler's beta function.
    """
    d, n = ones.shape[1], others.shape[2]
    fails, theirs = (~ones).astype(np.float32), (~others).astype(np.float32)
    leaf, row, other = np.nonzero(fails.transpose(0, 2, 1) @ theirs == 0)  # the pairs that count
    p, q = (side.sum(1).astype(int) for side in (theirs, fails))
    sizes = np.arange(d + 1)
    first = beta(np.maximum(sizes, 1)[:, None], sizes + 1) / n  # at p = 0, q = 0 nobody takes it
    second = beta(sizes[:, None] + 1, np.maximum(sizes, 1)) / n
    gain = np.zeros((len(ones), ones.shape[2], n))
    loss = gain.copy()
    gain[leaf, row, other] = first[p[leaf, other], q[leaf, row]]
    loss[leaf, row, other] = second[p[leaf, other], q[leaf, row]]
    gain = gain @ theirs.transpose(0, 2, 1)  # (L, N, d)
    return np.where(ones, gain.transpose(0, 2, 1), -loss.sum(2)[:, None])


def _means(tree: Tree) -> Array:
    """Return the mean over training rows of the answers below every node, (nodes, K)."""
    sums = tree.value * tree.cover[:, None]
    for node in reversed(np.flatnonzero(tree.left >= 0)):  # children have larger numbers
        sums[node] = sums[tree.left[node]] + sums[tree.right[node]]
    return sums / tree.cover[:, None]


def _book_way(tree: Tree, means: Array, rows: Array, found: Array) -> None:
    """Add, at each step of every row's way, the change of the mean to the feature asked."""
    goes_left, node = tree.goes_left(rows), np.zeros(len(rows), dtype=int)
    while (some := np.flatnonzero(tree.left[node] >= 0)).size:
        here = node[some]
        child = np.where(goes_left[some, here], tree.left[here], tree.right[here])
        found[some, tree.feature[here]] += means[child] - means[here]
        node[some] = child


def _check_sum(model: Trees, given: Array, found: Array, mean: Array) -> None:
    """Refuse values whose sum is not the model's own answer minus the mean."""
    answers = model.ask(given)
    gap = np.abs(found.sum(1) + mean - answers)
    if not (gap <= _CLOSE * max(1e-9, np.abs(answers).max(), np.abs(mean).max())).all():
        raise ValueError(
            f"the values do not add up to the model's own answers (a gap of {gap.max():.3g}): it "
            "is not the sum of its trees that scikit-learn's class computes; ask permutation_shap"
        )


def _like(found: Array, x: Any) -> Array:
    """Return (N, F, K) as one row where x is one, without the last axis where K is 1."""
    whole = np.ascontiguousarray(found[..., 0] if found.shape[2] == 1 else found)
    return whole if np.ndim(x) == 2 else whole[0]


# ---- what is given -------------------------------------------------------------------------------


def _given(tree: Any, model: Trees, name: str, x: Any) -> Array:
    """Return x as (N, F) float64, NaN included, in the columns that the model knows."""
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} is sparse: pass {name}.toarray()")
    if np.ndim(x) not in (1, 2):
        raise ValueError(f"{name} must be (F,) or (N, F), got shape {np.shape(x)}")
    trained = getattr(tree, "feature_names_in_", None)
    check_columns(name, column_names(x), "the tree", None if trained is None else list(trained))
    holes = np.asarray(pd.isna(as_array(x) if isinstance(x, Tensor) else x))
    values = finite_floats(name, _filled(x, holes) if holes.any() else x, np.ndim(x))
    rows = np.atleast_2d(np.where(holes, np.nan, values))
    if rows.shape[1] != model.width:
        raise ValueError(f"the tree knows {model.width} features, {name} has shape {np.shape(x)}")
    with np.errstate(over="ignore"):
        if np.isinf(rows.astype(model.dtype)).any():
            raise ValueError(f"{name} holds values that are too large for float32, which the tree "
                             "works in")  # fmt: skip
    return rows


def _others(tree: Any, model: Trees, background: Any) -> Array | None:
    """Return the background as (B, F), or None."""
    if background is None:
        return None
    if np.ndim(background) != 2:
        raise ValueError(f"background must be rows (B, F), got shape {np.shape(background)}")
    return _given(tree, model, "background", background)


def _filled(x: Any, holes: Array) -> Any:
    """Return x with 0 where something is missing, under the same names."""
    values = np.where(holes, 0.0, np.asarray(x, dtype=object))
    if isinstance(x, pd.DataFrame):
        return pd.DataFrame(values, columns=x.columns)
    return pd.Series(values, index=x.index) if isinstance(x, pd.Series) else values


def _chosen(model: Trees, target: int | None) -> Trees:
    """Return the model with those of its answers that are explained."""
    k = len(model.base)
    if target is None and model.units in ("probability", "logit") and k > 1:
        raise ValueError(f"target=None, but the tree has {k} classes: say which one")
    if target is None and model.units in ("log-odds", "half log-odds"):
        target = 1
    if target is None:
        return model
    column = [check_index("target", target, k)]
    return model._replace(
        trees=[one._replace(value=one.value[:, column]) for one in model.trees],
        base=model.base[column],
        ask=lambda rows: model.ask(rows)[:, column],
    )


# ---- reading scikit-learn's models ---------------------------------------------------------------

_OWN = {  # libraries whose models give exact values themselves
    "xgboost": "model.get_booster().predict(xgboost.DMatrix(x), pred_contribs=True)",
    "lightgbm": "model.predict(x, pred_contrib=True)",
    "catboost": 'model.get_feature_importance(catboost.Pool(x), type="ShapValues")',
}
_LAST = "tree_shap(pipe[-1], pipe[:-1].transform(x))"
_READS = "it reads scikit-learn's fitted decision trees, forests and gradient boosting"


def why_no_trees(model: Any) -> str:
    """Say why a model is not read as a sum of trees, and what to do; "" if it is.

    >>> from sklearn.linear_model import Ridge
    >>> why_no_trees(Ridge())
    "it reads scikit-learn's fitted decision trees, forests and gradient boosting; kernel_shap asks any model"
    """  # noqa: E501
    library = type(model).__module__.split(".")[0]
    if type(model).__name__ == "Pipeline":
        return f"{_READS}; of a pipeline ask for the last step, `{_LAST}`"
    if hasattr(model, "best_estimator_"):
        return f"{_READS}; of a search ask `tree_shap(search.best_estimator_, x)`"
    if library in _OWN:
        return f"{_READS}; of {library} ask for its own values, `{_OWN[library]}`"
    if _reader(model) is None:
        return f"{_READS}; kernel_shap asks any model"
    return ""


def read_trees(model: Any) -> Trees:
    """Return the trees that a model of scikit-learn adds up.

    Args:
        model: as for `tree_shap`.

    Raises:
        TypeError, ValueError: as `tree_shap`.

    >>> from sklearn.ensemble import RandomForestRegressor
    >>> forest = RandomForestRegressor(3, random_state=0).fit([[0], [1]], [0, 1])
    >>> len(read_trees(forest).trees)
    3
    """
    if reason := why_no_trees(model):
        fitted = "" if hasattr(model, "n_features_in_") else ", or it is not fitted"
        raise TypeError(
            f"a {type(model).__name__} is no sum of trees that can be read{fitted}: {reason}; a "
            "whole model of another kind is explained by permutation_shap(model.predict, ...)"
        )
    reader = _reader(model)
    assert reader is not None
    read = reader(model)
    if not all((tree.cover > 0).all() for tree in read.trees):
        raise ValueError("a node of the trees has training rows of no weight: fit it without them")
    return read


def _reader(model: Any) -> Callable[[Any], Trees] | None:
    """Return how a fitted model is read, by the class of scikit-learn that it is made from."""
    if hasattr(getattr(model, "tree_", None), "children_left"):
        return _read_tree
    own = {one.__name__ for one in type(model).__mro__ if one.__module__.startswith("sklearn.")}
    if own & {"RandomTreesEmbedding", "IsolationForest"}:
        return None
    if "BaseHistGradientBoosting" in own:
        return _read_histograms if getattr(model, "_predictors", None) else None
    readers = {
        "BaseForest": _read_forest,
        "BaseBagging": _read_forest,
        "BaseGradientBoosting": _read_boosting,
    }
    reader = next((one for name, one in readers.items() if name in own), None)
    trees = np.ravel(getattr(model, "estimators_", []))
    of_trees = len(trees) > 0 and all(hasattr(one, "tree_") for one in trees)
    return reader if of_trees else None


def _read_tree(model: Any) -> Trees:
    value = _answers_of(model.tree_.value)
    return _as_read(model, [_nodes(model.tree_, value)], np.zeros(value.shape[1]))


def _read_forest(model: Any) -> Trees:
    """Read trees that are averaged; each may see some of the features and of the classes."""
    n = len(model.estimators_)
    everything = np.arange(model.n_features_in_)
    columns = getattr(model, "estimators_features_", None) or [everything] * n
    trees = []
    for one, seen in zip(model.estimators_, columns, strict=True):
        value = _answers_of(one.tree_.value)
        if hasattr(model, "n_classes_") and value.shape[1] != model.n_classes_:
            spread = np.zeros((len(value), model.n_classes_))
            spread[:, np.asarray(one.classes_, dtype=int)] = value
            value = spread
        trees.append(_nodes(one.tree_, value / n, np.asarray(seen)))
    return _as_read(model, trees, np.zeros(trees[0].value.shape[1]))


def _as_read(model: Any, trees: list[Tree], base: Array) -> Trees:
    """Return trees whose answers are probabilities or outputs."""
    classes = hasattr(model, "classes_")
    ask = _asking(model, model.predict_proba if classes else model.predict)
    return Trees(trees, base, model.n_features_in_, np.float32, ask,
                 "probability" if classes else "score", _rounded)  # fmt: skip


def _answers_of(values: Array) -> Array:
    """Return a tree's answers (nodes, outputs, classes) as (nodes, K)."""
    outputs, classes = values.shape[1:]
    if outputs > 1 and classes > 1:
        raise ValueError(
            f"the tree has {outputs} outputs of several classes: fit one tree for each"
        )
    return values[:, :, 0] if classes == 1 else values[:, 0]


def _read_boosting(model: Any) -> Trees:
    """Read regression trees that are added up, one column for each class."""
    if type(model.init_).__name__ not in ("DummyClassifier", "DummyRegressor", "str"):
        raise ValueError(
            f"the boosting starts from a {type(model.init_).__name__}, which is no tree and no "
            "constant: fit it without init=, or ask permutation_shap(model.decision_function, ...)"
        )
    base = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_))))[0]
    trees = [
        _nodes(one.tree_, _in_column(model.learning_rate * one.tree_.value[:, 0, 0], k, len(base)))
        for stage in model.estimators_
        for k, one in enumerate(stage)
    ]
    classes = hasattr(model, "classes_")
    ask = _asking(model, model.decision_function if classes else model.predict)
    read = Trees(trees, base, model.n_features_in_, np.float32, ask, "score", _rounded)
    return _boosted(read, model) if classes else read


def _read_histograms(model: Any) -> Trees:
    """Read the trees of a HistGradientBoosting model; they look at float64."""
    base = np.ravel(model._baseline_prediction).astype(np.float64)
    order = _columns_of(model)
    _check_categories(model)
    trees = [
        _binned(one, order, k, len(base))
        for stage in model._predictors
        for k, one in enumerate(stage)
    ]
    classes = hasattr(model, "classes_")
    logarithm = not classes and model.loss in ("poisson", "gamma")
    ask = _asking(model, model.decision_function if classes else model.predict)
    read = Trees(
        trees,
        base,
        model.n_features_in_,
        np.float64,
        (lambda rows: np.log(ask(rows))) if logarithm else ask,
        "log of the output" if logarithm else "score",
        lambda rows: _encoded(model, rows, order),
    )
    return _boosted(read, model) if classes else read


def _boosted(read: Trees, model: Any) -> Trees:
    """Return boosting of two classes with a column for each: the score, and its negative."""
    if len(read.base) > 1:
        return read._replace(units="logit")
    both = np.array([-1.0, 1.0])
    return read._replace(
        trees=[one._replace(value=one.value * both) for one in read.trees],
        base=read.base * both,
        ask=lambda rows: read.ask(rows) * both,
        units="half log-odds" if model.loss == "exponential" else "log-odds",
    )


def _in_column(values: Array, k: int, columns: int) -> Array:
    found = np.zeros((len(values), columns))
    found[:, k] = values
    return found


def _asking(model: Any, ask: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """Ask a model by the names it was fitted with; its answers are (N, K)."""
    names = getattr(model, "feature_names_in_", None)

    def answers(rows: Array) -> Array:
        found = ask(rows if names is None else pd.DataFrame(rows, columns=names))
        return np.asarray(found, dtype=np.float64).reshape(len(rows), -1)

    return answers


def _rounded(rows: Array) -> Array:
    """Return rows as scikit-learn's trees see them: rounded to float32, compared in float64."""
    return rows.astype(np.float32).astype(np.float64)


def _nodes(tree: Any, value: Array, columns: Array | None = None) -> Tree:
    """Return the nodes of one scikit-learn tree, whose features are these columns of the rows."""
    asked = tree.feature.clip(0)
    feature = asked if columns is None else columns[asked]
    nan_left = getattr(tree, "missing_go_to_left", np.zeros(len(asked))) == 1

    def goes_left(rows: Array) -> Array:
        seen = rows[:, feature]
        return np.where(np.isnan(seen), nan_left, seen <= tree.threshold)

    return Tree(
        tree.children_left, tree.children_right, feature, tree.weighted_n_node_samples, value,
        goes_left,
    )  # fmt: skip


def _binned(predictor: Any, order: Array, k: int, columns: int) -> Tree:
    """Return the nodes of one tree of HistGradientBoosting."""
    nodes, sets = predictor.nodes, predictor.raw_left_cat_bitsets
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[side].astype(int)) for side in ("left", "right"))
    feature = order[np.where(leaf, 0, nodes["feature_idx"])]
    nan_left, named = nodes["missing_go_to_left"] == 1, np.flatnonzero(nodes["is_categorical"])

    def goes_left(rows: Array) -> Array:
        seen = rows[:, feature]
        found = seen <= nodes["num_threshold"]
        for node in named:  # a set of categories, 32 of them in each number
            category = np.nan_to_num(seen[:, node]).astype(int)
            bits = sets[nodes["bitset_idx"][node]][category // 32]
            found[:, node] = bits >> (category % 32).astype(bits.dtype) & 1
        return np.where(np.isnan(seen), nan_left, found)

    value = _in_column(nodes["value"].astype(np.float64), k, columns)
    return Tree(left, right, feature, nodes["count"].astype(np.float64), value, goes_left)


def _columns_of(model: Any) -> Array:
    """Return which column of x each feature of the trees is: categories have been put first."""
    named = getattr(model, "is_categorical_", None)
    if getattr(model, "_preprocessor", None) is None or named is None:
        return np.arange(model.n_features_in_)
    return np.concatenate([np.flatnonzero(named), np.flatnonzero(~np.asarray(named))])


def _check_categories(model: Any) -> None:
    """Refuse categories that are no numbers: x could not name them."""
    steps = getattr(getattr(model, "_preprocessor", None), "named_transformers_", {})
    for one in getattr(steps.get("encoder"), "categories_", ()):
        if not all(isinstance(name, Real) for name in one):
            raise ValueError(
                f"the boosting was fitted on categories that are no numbers, such as {one[0]!r}: "
                "fit it on their codes, table[column].cat.codes, with categorical_features="
            )


def _encoded(model: Any, rows: Array, order: Array) -> Array:
    """Return rows with categories as the trees number them; those never seen are NaN."""
    if getattr(model, "_preprocessor", None) is None:
        return rows
    names = getattr(model, "feature_names_in_", None)
    given = rows if names is None else pd.DataFrame(rows, columns=names)
    found = np.empty_like(rows)
    found[:, order] = model._preprocessor.transform(given)
    return found
