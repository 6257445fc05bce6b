"""Rules by hand, and the tree itself as the judge of every rule read from it."""

import re

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from xailab.behavior.surrogates import Rule, rules_of

RULE = Rule({0: (1.0, 2.5), 1: (-np.inf, 3.0)}, 4, 0.5, ("length", "width"))


def table(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 3))
    return X, (X[:, 0] * X[:, 1] > 0.3).astype(int) + (X[:, 2] > 1)


def test_a_rule_fires_between_its_bounds_the_upper_one_included() -> None:
    X = np.array([[1.0, 0.0], [1.1, 3.0], [2.5, 3.0], [2.6, 0.0], [2.0, 3.1]])
    assert RULE.fires(X).tolist() == [False, True, True, False, False]


def test_a_rule_without_conditions_always_fires() -> None:
    rule = Rule({}, "yes", 1.0, ("length",))
    assert rule.fires(np.zeros((3, 1))).tolist() == [True] * 3
    assert str(rule) == "ALWAYS yes"


def test_questions_about_one_feature_become_one_interval() -> None:
    tree = DecisionTreeClassifier().fit([[0.0], [2.0], [4.0]], ["a", "b", "a"])
    rules = {str(rule): rule.share for rule in rules_of(tree, ["size"])}
    expected = ["IF size <= 1 THEN a", "IF 1 < size <= 3 THEN b", "IF size > 3 THEN a"]
    assert rules == pytest.approx(dict.fromkeys(expected, 1 / 3))


def test_the_most_used_rule_comes_first_and_weights_count() -> None:
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [7, 8], sample_weight=[1, 3])
    assert [(rule.conclusion, rule.share) for rule in rules_of(tree, ["x"])] == [
        (8, 0.75),
        (7, 0.25),
    ]


def probabilities(y: np.ndarray) -> np.ndarray:
    return np.eye(3)[y]


@pytest.mark.parametrize("seed", range(3))
def test_rules_answer_what_the_tree_answers(seed: int) -> None:
    """Exactly one rule fires on each row; its conclusion is scikit-learn's prediction."""
    X, y = table(seed=seed)
    new = np.random.default_rng(seed + 10).normal(size=(500, 3))
    number = DecisionTreeRegressor(max_depth=4).fit(X, X[:, 1])
    for tree, answers in (
        (classes := DecisionTreeClassifier(max_depth=6).fit(X, y), classes.predict(new)),
        (number, number.predict(new)),
        (
            several := DecisionTreeRegressor(max_leaf_nodes=9).fit(X, probabilities(y)),
            several.predict(new).argmax(1),
        ),
    ):
        rules = rules_of(tree, ["a", "b", "c"])
        fired = np.array([rule.fires(new) for rule in rules])
        assert (fired.sum(0) == 1).all()
        told = np.array([rule.conclusion for rule in rules])[fired.argmax(0)]
        np.testing.assert_array_equal(told, answers)
        assert sum(rule.share for rule in rules) == pytest.approx(1)


def test_numbers_at_a_threshold_fall_where_the_tree_puts_them() -> None:
    """Trees compare in single precision: 0.1 + 1e-12 is 0.1 to them."""
    tree = DecisionTreeClassifier().fit([[0.1], [0.3]], [0, 1])
    threshold = tree.tree_.threshold[0]
    X = np.array([[threshold], [threshold + 1e-12], [np.nextafter(np.float32(threshold), 1)]])
    low = next(rule for rule in rules_of(tree, ["x"]) if rule.conclusion == 0)
    np.testing.assert_array_equal(low.fires(X), tree.predict(X) == 0)


def test_a_tree_that_asks_nothing_is_one_rule() -> None:
    (rule,) = rules_of(DecisionTreeClassifier().fit([[0.0], [1.0]], [3, 3]), ["x"])
    assert (str(rule), rule.share) == ("ALWAYS 3", 1.0)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros((2, 3)), r"(N, 2), got (2, 3)"),
        (np.zeros(2), r"(N, 2), got (2,)"),
        (np.array([[np.nan, 1.0]]), "1 NaN"),
    ],
)
def test_rows_that_do_not_fit(X: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        RULE.fires(X)


def test_trees_that_have_no_rules() -> None:
    X, y = table(20)
    with pytest.raises(NotFittedError):
        rules_of(DecisionTreeClassifier(), ["a"])
    with pytest.raises(ValueError, match="3 features, got 2 names"):
        rules_of(DecisionTreeClassifier().fit(X, y), ["a", "b"])
    with pytest.raises(ValueError, match="2 outputs"):
        rules_of(DecisionTreeClassifier().fit(X, np.c_[y, y]), ["a", "b", "c"])
