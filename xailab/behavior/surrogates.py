"""Simple models in the place of a network, and the rules that can be read from them."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf, isinf
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from xailab.core.outputs import as_array

_LEAF = -1  # scikit-learn's mark for "no child"


class Rule(NamedTuple):
    """One leaf of a tree, read as IF every condition holds THEN the conclusion.

    Attributes:
        bounds: feature number -> (low, high): the rule asks low < value <= high, of the value in
            single precision.
        conclusion: the class the leaf answers, or the number of a tree that predicts a number.
        share: part of the tree's training rows that reach the leaf, 0..1.
        names: the names of all features.
        shown: (feature number, border) -> how a border is printed, where rows were known.
    """

    bounds: Mapping[int, tuple[float, float]]
    conclusion: Any
    share: float
    names: tuple[str, ...]
    shown: Mapping[tuple[int, float], str] = MappingProxyType({})

    def fires(self, X: np.ndarray) -> np.ndarray:
        r"""Tell of every row whether all conditions hold.

        $$\text{fires}(x) = \prod_j \big[\, l_j < x_j \le h_j \,\big]$$

        Args:
            X: (N, F) numbers, compared in single precision as scikit-learn's trees do.

        Returns:
            (N,) booleans.

        Raises:
            TypeError: a table that does not hold numbers.
            ValueError: another number of features, or NaN, which no comparison can place.
        """
        rows = _table(X)
        if rows.ndim != 2 or rows.shape[1] != len(self.names):
            raise ValueError(f"X must have shape (N, {len(self.names)}), got {rows.shape}")
        asked = _single(rows[:, list(self.bounds)])
        if np.isnan(asked).any():
            raise ValueError(f"X holds {int(np.isnan(asked).sum())} NaN where the rule compares")
        low, high = np.array(list(self.bounds.values())).reshape(-1, 2).T
        return np.all((low < asked) & (asked <= high), axis=1)

    def __str__(self) -> str:
        """The rule in words, each feature once.

        Read aloud, it decides as `fires` does: a border has as many digits as that takes.
        Compared with it are numbers of single precision, and all rows that a tree was grown on;
        of `rules_of(tree, names, X)` the rows of X, which is shorter.

        >>> print(Rule({0: (1.0, 2.5), 1: (-np.inf, 3.0)}, "cat", 0.5, ("length", "width")))
        IF 1 < length <= 2.5 AND width <= 3 THEN cat
        """
        conditions = [self._asks(j, *bound) for j, bound in self.bounds.items()]
        premise = f"IF {' AND '.join(conditions)} " if conditions else ""
        return f"{premise}{'THEN' if premise else 'ALWAYS'} {self.conclusion}"

    def _asks(self, feature: int, low: float, high: float) -> str:
        """One interval in words."""
        ends = [self.shown.get((feature, end)) or _border(end) for end in (low, high)]
        name = self.names[feature]
        if isinf(low):
            return f"{name} <= {ends[1]}"
        return f"{name} > {ends[0]}" if isinf(high) else f"{ends[0]} < {name} <= {ends[1]}"


def rules_of(
    tree: DecisionTreeClassifier | DecisionTreeRegressor,
    feature_names: Sequence[str],
    X: np.ndarray | None = None,
) -> list[Rule]:
    """Read the rules out of a tree: one for every leaf, the most used first.

    Several questions about one feature on the way to a leaf become one interval. Every row
    fires exactly one rule, so the rules together answer what the tree answers.

    Args:
        tree: a fitted scikit-learn tree. A regressor with several outputs is taken for one that
            predicts a probability for each class, as `simplify.distill_tree` grows them.
        feature_names: a name for each feature, F different ones.
        X: (N, F), the rows that the rules are about, such as those the tree was grown on: the
            borders are printed with as few digits as decide these rows rightly. None: with
            enough for any row the tree can have been grown on.

    Returns:
        The rules; their shares add up to 1.

    Raises:
        TypeError: no single decision tree (a forest has many); names that are no texts.
        sklearn.exceptions.NotFittedError: the tree has not been fitted.
        ValueError: another number of names than features, or a name twice; a classifier with
            several outputs, or a regressor whose several outputs are no probabilities.

    Reference: Quinlan (1987), Generating Production Rules from Decision Trees.
    Elsewhere: scikit-learn `export_text`, which draws the tree instead.

    >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0], [3.0]], ["small", "small", "large"])
    >>> for rule in rules_of(tree, ["size"]):
    ...     print(rule)
    IF size <= 2 THEN small
    IF size > 2 THEN large
    """
    if not isinstance(tree, DecisionTreeClassifier | DecisionTreeRegressor):
        raise TypeError(
            f"tree must be one scikit-learn decision tree, got {type(tree).__name__}: of a forest "
            "give one of its estimators_, or grow one tree on what it predicts"
        )
    check_is_fitted(tree)
    names = _names(tree, feature_names)
    if isinstance(tree, DecisionTreeClassifier) and tree.n_outputs_ > 1:
        raise ValueError(f"a rule has one conclusion, the tree has {tree.n_outputs_} outputs")
    nodes = tree.tree_
    _check_probabilities(tree)
    shown = {} if X is None else _shown(nodes, X, len(names))
    whole = nodes.weighted_n_node_samples
    rules = [
        Rule(bounds, _conclusion(tree, leaf), float(whole[leaf] / whole[0]), names, shown)
        for leaf, bounds in _leaves(nodes)
    ]
    return sorted(rules, key=lambda rule: -rule.share)


def _names(tree: Any, feature_names: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(feature_names, str) else tuple(feature_names)
    if isinstance(feature_names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"feature_names must be a list of texts, got {feature_names!r:.80}")
    if len(names) != tree.n_features_in_:
        raise ValueError(f"the tree has {tree.n_features_in_} features, got {len(names)} names")
    if len(set(names)) < len(names):
        raise ValueError(f"feature_names must differ, got {names}")
    return names


def _check_probabilities(tree: Any) -> None:
    """Refuse several numbers of which the largest is no likeliest class."""
    if isinstance(tree, DecisionTreeRegressor) and tree.n_outputs_ > 1:
        values = tree.tree_.value[:, :, 0]
        if values.min() < -1e-6 or np.abs(values.sum(1) - 1).max() > 1e-3:
            raise ValueError(
                f"a rule has one conclusion, the tree predicts {tree.n_outputs_} numbers that are "
                "no probabilities"
            )


def _table(X: Any) -> np.ndarray:
    """Return rows as an array of numbers."""
    rows = as_array(X) if isinstance(X, Tensor) else np.asarray(X)
    if rows.dtype.kind not in "iufb":
        try:
            return rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"X must hold numbers, got {rows.dtype}: {error}") from error
    return rows


def _single(rows: np.ndarray) -> np.ndarray:
    """Return numbers as trees see them."""
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def _leaves(nodes: Any) -> Iterator[tuple[int, dict[int, tuple[float, float]]]]:
    """Yield every leaf, from left to right, with the intervals that lead to it."""
    waiting: list[tuple[int, dict[int, tuple[float, float]]]] = [(0, {})]
    while waiting:  # no recursion: a tree may be deeper than Python's stack
        node, bounds = waiting.pop()
        if nodes.children_left[node] == _LEAF:
            yield node, bounds
            continue
        feature, threshold = int(nodes.feature[node]), float(nodes.threshold[node])
        low, high = bounds.get(feature, (-inf, inf))
        below = {**bounds, feature: (low, min(high, threshold))}
        above = {**bounds, feature: (max(low, threshold), high)}
        waiting.append((int(nodes.children_right[node]), above))
        waiting.append((int(nodes.children_left[node]), below))


def _conclusion(tree: DecisionTreeClassifier | DecisionTreeRegressor, leaf: int) -> Any:
    value = tree.tree_.value[leaf].ravel()
    if isinstance(tree, DecisionTreeClassifier):
        answer = tree.classes_[value.argmax()]
        return answer.item() if hasattr(answer, "item") else answer  # texts may be plain objects
    return float(value[0]) if len(value) == 1 else int(value.argmax())


# ---- borders in words ----------------------------------------------------------------------------


def _border(threshold: float) -> str:
    """Return a border with the fewest digits that decide as it does.

    A tree sees single precision: a row of it below the border stays below the text. Numbers of
    double precision are rounded to the nearest single one first, so that the true border lies
    halfway to the next number above. A border that lies there may have been drawn between two
    neighbors, and rows may lie anywhere between them: then no shorter text is right.
    """
    if isinf(threshold):
        return str(threshold)
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        below = near if near.astype(float) <= threshold else np.nextafter(near, np.float32(-inf))
        above = float(np.nextafter(below, np.float32(inf)))
    halfway = float(below) + (above - float(below)) / 2
    if threshold == halfway:  # halfway itself is rounded to the even one of the two
        fires = float(np.float32(halfway)) <= threshold
        return _shortest(halfway if fires else float(np.nextafter(halfway, -inf)))
    return _shortest(threshold, float(below), halfway)


def _shortest(threshold: float, low: float | None = None, high: float = inf) -> str:
    """Return the threshold rounded to as few digits as leave it in low <= text < high.

    Without `low`, in as few as give this very number.
    """
    if low is not None:
        threshold = float(min(max(threshold, low), np.nextafter(high, -inf)))
    threshold += 0.0  # no "-0"
    for digits in range(4, 17):
        text = f"{threshold:.{digits}g}"
        number = float(text)
        if number == threshold or (low is not None and low <= number < high):
            return _spelled(text)
    return _spelled(repr(threshold))


def _spelled(text: str) -> str:
    """Write 1.235e+04 as 12350, the same number; what is very large or small stays as it is."""
    if "e" not in text:
        return text
    plain = np.format_float_positional(float(text), trim="-")
    return plain if len(plain) <= 12 else text


def _shown(nodes: Any, X: Any, n_features: int) -> dict[tuple[int, float], str]:
    """Return how each border of a tree is printed: it separates the rows that it lies between."""
    rows = _table(X)
    if rows.ndim != 2 or rows.shape[1] != n_features:
        raise ValueError(f"X must have shape (N, {n_features}), got {rows.shape}")
    asked = nodes.children_left != _LEAF
    borders = {
        (int(j), float(t))
        for j, t in zip(nodes.feature[asked], nodes.threshold[asked], strict=True)
    }
    shown = {}
    for feature, threshold in borders:
        values = rows[:, feature].astype(np.float64)
        seen = _single(values).astype(np.float64)  # else the border would be rounded, too
        below, above = seen <= threshold, seen > threshold  # NaN is neither
        if below.any() and above.any():
            low, high = values[below].max(), values[above].min()
            shown[feature, threshold] = _shortest(threshold, float(low), float(high))
    return shown
