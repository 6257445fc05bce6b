"""Rules by hand, and the tree itself as the judge of every rule read from it."""

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
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
        (np.array([["a", 1.0]], dtype=object), "X must hold numbers, got object"),
    ],
)
def test_rows_that_do_not_fit(X: np.ndarray, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        RULE.fires(X)


# ---- a rule read aloud ---------------------------------------------------------------------------


def read_aloud(rule: Rule, values: np.ndarray) -> list[bool]:
    """Decide as somebody would who sees nothing but the rule's words, in exact arithmetic."""
    said = re.sub(r"^IF | THEN .*$", "", str(rule)).replace(" AND ", " and ")
    said = re.sub(r"-?\d[\d.]*(e[+-]\d+)?", lambda number: f"Fraction('{number[0]}')", said)
    return [eval(said, {"Fraction": Fraction, "v": Fraction(v)}) for v in values.tolist()]


DRAWN = np.random.default_rng(0)
COLUMNS = {
    "years": np.arange(1990, 2025),
    "counts": np.arange(12340, 12390),
    "money": 1e5 + np.arange(0, 1000, 10),
    "cents": np.arange(100) / 100,
    "negative": -12345.5 - np.arange(30),
    "small": 1e-6 * np.arange(1, 40),
    "huge": 1e37 * np.arange(1, 30),
    "time stamps an hour apart": 1_700_000_000 + 3600 * np.arange(50),
    "numbers that single precision merges": 16_777_200 + np.arange(60),
    "the same below zero": -16_777_200 - np.arange(60),
    "near one": 1 + 2e-7 * np.arange(60),
    "neighbors in single precision": 1000 + 2.0**-14 * np.arange(30),
    "tenths": np.arange(1, 40) / 10,
    "drawn": DRAWN.normal(size=80),
    "drawn in single precision": DRAWN.normal(size=80).astype(np.float32),
    "across many sizes": np.exp(DRAWN.normal(size=80) * 20),
    "pixels": np.arange(256, dtype=np.float32) / 255,
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_rule_read_aloud_decides_as_the_rule_does(name: str, known: bool) -> None:
    """Two classes that alternate in runs: borders up and down, and intervals between them."""
    values = COLUMNS[name].astype(np.float64)
    y = np.arange(len(values)) // 5 % 2
    tree = DecisionTreeClassifier(random_state=0).fit(values[:, None], y)
    rules = rules_of(tree, ["v"], values[:, None] if known else None)
    assert len(rules) > 1
    for rule in rules:
        assert read_aloud(rule, values) == rule.fires(values[:, None]).tolist(), str(rule)


def test_without_rows_a_rule_is_right_for_every_number_of_single_precision() -> None:
    """Also for those beside a border, and of double precision around a border that is halfway."""
    for border in (0.5, 0.1, 0.3, 1 / 3, 2009.5, 1e-30, -7.3, float(np.float32(0.1))):
        near = np.float32(border)
        beside = np.array(
            [np.nextafter(near, np.float32(-9)), near, np.nextafter(near, np.float32(9))]
        )
        rule = Rule({0: (-np.inf, border)}, 1, 1.0, ("v",))
        assert read_aloud(rule, beside) == rule.fires(beside[:, None]).tolist()
        low, high = beside[1:].astype(float)
        halfway = Rule({0: ((low + high) / 2, np.inf)}, 1, 1.0, ("v",))
        between = np.linspace(low, high, 99)
        assert read_aloud(halfway, between) == halfway.fires(between[:, None]).tolist()


def test_as_few_digits_as_the_rows_allow() -> None:
    values = np.array([0.1234567, 0.3333333, 0.7])[:, None]
    tree = DecisionTreeClassifier().fit(values, [0, 1, 1])
    assert str(rules_of(tree, ["v"], values)[1]) == "IF v <= 0.2284 THEN 0"
    assert str(Rule({0: (-np.inf, 2.6)}, 1, 1.0, ("v",))) == "IF v <= 2.6 THEN 1"
    assert str(Rule({0: (-0.0, 1e12)}, 1, 1.0, ("v",))) == "IF 0 < v <= 1e+12 THEN 1"
    other = np.array([[5.0], [6.0]])  # rows that lie on one side say nothing about the border
    assert rules_of(tree, ["v"], other)[1].shown == {}
    with pytest.raises(ValueError, match=r"X must have shape \(N, 1\), got \(3, 2\)"):
        rules_of(tree, ["v"], np.c_[values, values])


def test_a_tree_deeper_than_pythons_stack() -> None:
    values = np.arange(2000.0)[:, None]
    chain = DecisionTreeRegressor(max_leaf_nodes=1900).fit(values, 1.2 ** np.arange(2000.0))
    assert chain.get_depth() > 1000
    assert len(rules_of(chain, ["v"])) == 1900


def test_classes_that_are_plain_texts_and_rows_that_are_tensors() -> None:
    y = np.array(["cat", "dog"], dtype=object)
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], y)
    assert {rule.conclusion for rule in rules_of(tree, ["x"])} == {"cat", "dog"}
    rows = torch.tensor([[1.5, 0.0], [3.0, 0.0]], dtype=torch.bfloat16)
    assert RULE.fires(rows).tolist() == [True, False]  # type: ignore[arg-type]


def test_trees_that_have_no_rules() -> None:
    X, y = table(20)
    with pytest.raises(NotFittedError):
        rules_of(DecisionTreeClassifier(), ["a"])
    with pytest.raises(ValueError, match="3 features, got 2 names"):
        rules_of(DecisionTreeClassifier().fit(X, y), ["a", "b"])
    with pytest.raises(ValueError, match="must differ"):
        rules_of(DecisionTreeClassifier().fit(X, y), ["a", "a", "b"])
    with pytest.raises(TypeError, match="list of texts, got 'abc'"):
        rules_of(DecisionTreeClassifier().fit(X, y), "abc")
    with pytest.raises(TypeError, match=r"got RandomForestClassifier: .*estimators_"):
        rules_of(RandomForestClassifier(2).fit(X, y), ["a", "b", "c"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 numbers that are no probabilities"):
        rules_of(DecisionTreeRegressor().fit(X, np.c_[X[:, 0], y]), ["a", "b", "c"])
    with pytest.raises(ValueError, match="2 outputs"):
        rules_of(DecisionTreeClassifier().fit(X, np.c_[y, y]), ["a", "b", "c"])
