"""Simple models in the place of a network, and the rules that can be read from them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted

_LEAF = -1  # scikit-learn's mark for "no child"


class Rule(NamedTuple):
    """One leaf of a tree, read as IF every condition holds THEN the conclusion.

    Attributes:
        bounds: feature number -> (low, high): the rule asks low < value <= high.
        conclusion: the class the leaf answers, or the number of a tree that predicts a number.
        share: part of the tree's training rows that reach the leaf, 0..1.
        names: the names of all features.
    """

    bounds: Mapping[int, tuple[float, float]]
    conclusion: Any
    share: float
    names: tuple[str, ...]

    def fires(self, X: np.ndarray) -> np.ndarray:
        r"""Tell of every row whether all conditions hold.

        $$\text{fires}(x) = \prod_j \big[\, l_j < x_j \le h_j \,\big]$$

        Args:
            X: (N, F) numbers, compared in single precision as scikit-learn's trees do.

        Returns:
            (N,) booleans.

        Raises:
            ValueError: another number of features, or NaN, which no comparison can place.
        """
        rows = np.asarray(X, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self.names):
            raise ValueError(f"X must have shape (N, {len(self.names)}), got {rows.shape}")
        asked = rows[:, list(self.bounds)]
        if np.isnan(asked).any():
            raise ValueError(f"X holds {int(np.isnan(asked).sum())} NaN where the rule compares")
        low, high = np.array(list(self.bounds.values())).reshape(-1, 2).T
        return np.all((low < asked) & (asked <= high), axis=1)

    def __str__(self) -> str:
        """The rule in words, each feature once.

        >>> print(Rule({0: (1.0, 2.5), 1: (-np.inf, 3.0)}, "cat", 0.5, ("length", "width")))
        IF 1 < length <= 2.5 AND width <= 3 THEN cat
        """
        conditions = [_words(self.names[j], *bound) for j, bound in self.bounds.items()]
        premise = f"IF {' AND '.join(conditions)} " if conditions else ""
        return f"{premise}{'THEN' if premise else 'ALWAYS'} {self.conclusion}"


def rules_of(
    tree: DecisionTreeClassifier | DecisionTreeRegressor, feature_names: Sequence[str]
) -> list[Rule]:
    """Read the rules out of a tree: one for every leaf, the most used first.

    Several questions about one feature on the way to a leaf become one interval. Every row
    fires exactly one rule, so the rules together answer what the tree answers.

    Args:
        tree: a fitted scikit-learn tree. A regressor with several outputs is taken for one that
            predicts a probability for each class, as `simplify.distill_tree` grows them.
        feature_names: a name for each feature, F of them.

    Returns:
        The rules; their shares add up to 1.

    Raises:
        sklearn.exceptions.NotFittedError: the tree has not been fitted.
        ValueError: another number of names than features; a classifier with several outputs.

    Reference: Quinlan (1987), Generating Production Rules from Decision Trees.
    Elsewhere: scikit-learn `export_text`, which draws the tree instead.

    >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0], [3.0]], ["small", "small", "large"])
    >>> for rule in rules_of(tree, ["size"]):
    ...     print(rule)
    IF size <= 2 THEN small
    IF size > 2 THEN large
    """
    check_is_fitted(tree)
    names = tuple(feature_names)
    if len(names) != tree.n_features_in_:
        raise ValueError(f"the tree has {tree.n_features_in_} features, got {len(names)} names")
    if isinstance(tree, DecisionTreeClassifier) and tree.n_outputs_ > 1:
        raise ValueError(f"a rule has one conclusion, the tree has {tree.n_outputs_} outputs")
    nodes = tree.tree_
    whole = nodes.weighted_n_node_samples
    rules = [
        Rule(bounds, _conclusion(tree, leaf), float(whole[leaf] / whole[0]), names)
        for leaf, bounds in _leaves(nodes, 0, {})
    ]
    return sorted(rules, key=lambda rule: -rule.share)


def _leaves(
    nodes: Any, node: int, bounds: dict[int, tuple[float, float]]
) -> list[tuple[int, dict[int, tuple[float, float]]]]:
    """Return every leaf below a node with the intervals that lead to it."""
    if nodes.children_left[node] == _LEAF:
        return [(node, bounds)]
    feature, threshold = int(nodes.feature[node]), float(nodes.threshold[node])
    low, high = bounds.get(feature, (-np.inf, np.inf))
    below = {**bounds, feature: (low, min(high, threshold))}
    above = {**bounds, feature: (max(low, threshold), high)}
    left, right = int(nodes.children_left[node]), int(nodes.children_right[node])
    return _leaves(nodes, left, below) + _leaves(nodes, right, above)


def _conclusion(tree: DecisionTreeClassifier | DecisionTreeRegressor, leaf: int) -> Any:
    value = tree.tree_.value[leaf].ravel()
    if isinstance(tree, DecisionTreeClassifier):
        return tree.classes_[value.argmax()].item()
    return float(value[0]) if len(value) == 1 else int(value.argmax())


def _words(name: str, low: float, high: float) -> str:
    if np.isinf(low):
        return f"{name} <= {high:.4g}"
    return f"{name} > {low:.4g}" if np.isinf(high) else f"{low:.4g} < {name} <= {high:.4g}"
