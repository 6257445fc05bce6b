"""SHAP values of trees, forests and boosting, against paper, all coalitions, and shap."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shap
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
)
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor

from tests.oracles import mean_below, shares
from xailab.attribution.trees import (
    path_attribution,
    read_trees,
    tree_answers,
    tree_shap,
    tree_shap_by_hand,
    tree_start,
    why_no_trees,
)

Array = np.ndarray
ALL = [tree_shap, path_attribution, tree_shap_by_hand]
BOTH = [tree_shap, path_attribution]
NAMES = ["age", "dose", "weight", "height"]
CORNERS = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])


def ties(n: int, seed: int) -> tuple[Array, Array]:
    """Few different values, so splits repeat features and rows lie on thresholds."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, size=(n, 4)) / 2
    return x, x[:, 0] * x[:, 1] + (x[:, 2] > 0.5) * x[:, 0] + rng.normal(0, 0.1, n)


def holes(x: Array) -> Array:
    """The same rows, one number in eight missing."""
    x = x.copy()
    x[np.random.default_rng(9).random(x.shape) < 1 / 8] = np.nan
    return x


X, Y = ties(80, 0)
CLASSES = np.digitize(Y, [0.5, 2])
WEIGHTS = np.random.default_rng(2).uniform(0.2, 3, 80)
SMALL: dict[str, Any] = {"n_estimators": 4, "random_state": 0, "max_depth": 4}
FEW: dict[str, Any] = {"max_iter": 4, "random_state": 0, "min_samples_leaf": 5}

# name -> (model, what it is fitted on, target)
MODELS: dict[str, tuple[Any, Any, Any, int | None]] = {
    "tree": (DecisionTreeRegressor(random_state=0), X, Y, None),
    "tree, absolute error": (
        DecisionTreeRegressor(criterion="absolute_error", max_depth=4, random_state=0), X, Y, None
    ),
    "tree, NaN": (DecisionTreeRegressor(max_depth=4, random_state=0), holes(X), Y, None),
    "one random tree": (ExtraTreeRegressor(max_depth=4, random_state=0), X, Y, None),
    "tree of classes": (DecisionTreeClassifier(max_depth=4, random_state=0), X, CLASSES, 2),
    "forest": (RandomForestRegressor(**SMALL), X, Y, None),
    "forest, NaN": (RandomForestRegressor(**SMALL), holes(X), Y, None),
    "forest, pruned": (RandomForestRegressor(ccp_alpha=0.01, **SMALL), X, Y, None),
    "forest, two outputs": (RandomForestRegressor(**SMALL), X, np.c_[Y, -5 * X[:, 1]], 1),
    "forest of classes": (RandomForestClassifier(class_weight="balanced", **SMALL), X, CLASSES, 1),
    "random forest of words": (RandomForestClassifier(**SMALL), X, np.array(list("abc"))[CLASSES], 2),  # noqa: E501
    "one class": (RandomForestClassifier(**SMALL), X, np.ones(80), 0),
    "extra trees": (ExtraTreesRegressor(**SMALL), X, Y, None),
    "extra trees of classes": (ExtraTreesClassifier(**SMALL), X, CLASSES, 0),
    "bagging": (BaggingRegressor(n_estimators=3, random_state=0, max_features=0.5), X, Y, None),
    "bagging of few rows": (
        BaggingClassifier(n_estimators=3, random_state=0, max_samples=4), X, CLASSES, 2
    ),
    "boosting": (GradientBoostingRegressor(**SMALL), X, Y, None),
    "boosting, part of the rows": (GradientBoostingRegressor(subsample=0.5, **SMALL), X, Y, None),
    "boosting, quantile": (GradientBoostingRegressor(loss="quantile", **SMALL), X, Y, None),
    "boosting from zero": (GradientBoostingRegressor(init="zero", **SMALL), X, Y, None),
    "boosting of two": (GradientBoostingClassifier(**SMALL), X, CLASSES > 0, 1),
    "boosting of two, class 0": (GradientBoostingClassifier(**SMALL), X, CLASSES > 0, 0),
    "boosting, exponential": (
        GradientBoostingClassifier(loss="exponential", **SMALL), X, CLASSES > 0, 1
    ),
    "boosting of three": (GradientBoostingClassifier(**SMALL), X, CLASSES, 2),
    "histograms": (HistGradientBoostingRegressor(**FEW), X, Y, None),
    "histograms, NaN": (HistGradientBoostingRegressor(**FEW), holes(X), Y, None),
    "histograms, Poisson": (HistGradientBoostingRegressor(loss="poisson", **FEW), X, Y**2, None),
    "histograms of two": (HistGradientBoostingClassifier(**FEW), X, CLASSES > 0, 1),
    "histograms of three": (HistGradientBoostingClassifier(**FEW), holes(X), CLASSES, 0),
    "histograms, categories": (
        HistGradientBoostingRegressor(categorical_features=[1, 3], **FEW), holes(X * 2),
        Y + 3 * (X[:, 1] == 0.5) + 2 * (X[:, 3] == 1), None,
    ),
}  # fmt: skip


def fitted(name: str) -> tuple[Any, Array, int | None]:
    model, x, y, target = MODELS[name]
    return model.fit(x, y), x, target


# ---- on paper ------------------------------------------------------------------------------------


def test_both_games_by_hand() -> None:
    """AND of two features. Half of the rows have either, so an unknown feature passes half.

    v() = 1/4, v(0) = v(1) = 1/2, v(0, 1) = 1: each gets (1/4 + 1/2) / 2. From the corner (0, 0)
    v() = v(0) = v(1) = 0: each gets 1/2. From (0, 1) the first feature alone gives 1.
    """
    tree = DecisionTreeRegressor(random_state=0).fit(CORNERS, [0, 0, 0, 1])
    one = CORNERS[3]
    assert tree_shap(tree, one).tolist() == pytest.approx([0.375, 0.375])
    assert tree_shap_by_hand(tree, one).tolist() == pytest.approx([0.375, 0.375])
    assert tree_start(tree).tolist() == pytest.approx([0.25])
    assert tree_shap(tree, one, background=CORNERS[:1]).tolist() == pytest.approx([0.5, 0.5])
    assert tree_shap(tree, one, background=CORNERS[1:2]).tolist() == pytest.approx([1, 0])
    both = tree_shap(tree, one, background=CORNERS[:2])
    assert both.tolist() == pytest.approx([0.75, 0.25])  # the mean over the two
    assert tree_start(tree, background=CORNERS[2:]).tolist() == pytest.approx([0.5])


def test_shares_of_rows_are_weights() -> None:
    """A stump on rows that weigh 1 and 3: v() = 3/4 of 8, so that passing is worth 2."""
    tree = DecisionTreeRegressor().fit([[0], [1]], [0, 8], sample_weight=[1, 3])
    assert tree_shap(tree, [1.0]).tolist() == pytest.approx([2])
    assert tree_shap(tree, [0.0]).tolist() == pytest.approx([-6])


def test_a_forest_is_the_mean_and_boosting_the_sum() -> None:
    forest = RandomForestRegressor(**SMALL).fit(X, Y)
    want = np.mean([tree_shap_by_hand(tree, X[:9]) for tree in forest.estimators_], axis=0)
    np.testing.assert_allclose(tree_shap(forest, X[:9]), want, rtol=0, atol=1e-12)
    boosting = GradientBoostingRegressor(learning_rate=0.3, **SMALL).fit(X, Y)
    want = 0.3 * sum(tree_shap_by_hand(tree, X[:9]) for tree in boosting.estimators_.ravel())
    np.testing.assert_allclose(tree_shap(boosting, X[:9]), want, rtol=0, atol=1e-12)


def test_saabas_sums_too_but_is_not_shap() -> None:
    """AND of two features: the lower split gets twice as much, though they are symmetric."""
    tree = DecisionTreeRegressor(random_state=0).fit(CORNERS, [0, 0, 0, 1])
    assert sorted(path_attribution(tree, CORNERS[3]).tolist()) == pytest.approx([0.25, 0.5])


# ---- by definition -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_with_a_background_it_is_the_game_of_the_models_own_answers(name: str) -> None:
    model, x, target = fitted(name)
    background, rows = x[40:47], x[:3]

    def worth(row: Array) -> Callable[[tuple[int, ...]], float]:
        def value(team: tuple[int, ...]) -> float:
            mixed = background.copy()
            mixed[:, list(team)] = row[list(team)]
            return float(own_answers(name, model, mixed, target).mean())

        return value

    want = np.array([shares(worth(row), 4) for row in rows])
    got = tree_shap(model, rows, target=target, background=background)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert name == "one class" or np.abs(want).max() > 0.05


def own_answers(name: str, model: Any, rows: Array, target: int | None) -> Array:
    """What scikit-learn says, in the units that the docstring names."""
    if hasattr(model, "decision_function"):
        scores = model.decision_function(rows)
        return scores[:, target] if scores.ndim == 2 else scores * (-1 if target == 0 else 1)
    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)[:, target]
    answers = model.predict(rows)
    answers = answers[:, target] if answers.ndim == 2 else answers
    return np.log(answers) if "Poisson" in name else answers


@pytest.mark.parametrize("name", MODELS)
def test_without_it_is_the_game_that_splits_the_row(name: str) -> None:
    """Unknown features take both ways by the shares of training rows: node after node."""
    model, x, target = fitted(name)
    parts = nodes_of(model, target)
    want = np.array([
        shares(lambda team, row=row: sum(down(one, row, team) for one in parts), 4) for row in x[:4]
    ])  # fmt: skip
    np.testing.assert_allclose(tree_shap(model, x[:4], target=target), want, rtol=0, atol=1e-12)
    start = tree_start(model, target=target)[0]
    change = own_answers(name, model, x[:4], target) - start
    np.testing.assert_allclose(want.sum(1), change, rtol=0, atol=1e-12)


Node = dict[str, Any]


def nodes_of(model: Any, target: int | None) -> list[Node]:
    """Read a model a second time, as nested nodes: {"value"} or {"feature", "low", "shares"}."""
    if hasattr(model, "_predictors"):
        k = target if len(model._predictors[0]) > 1 else 0
        sign = -1 if target == 0 and len(model._predictors[0]) == 1 else 1
        order = list(range(4)) if model.is_categorical_ is None else [1, 3, 0, 2]
        return [from_histogram(stage[k], 0, order, sign) for stage in model._predictors]
    if hasattr(model, "learning_rate"):
        stages = model.estimators_
        k, sign = (target, 1) if stages.shape[1] > 1 else (0, -1 if target == 0 else 1)
        return [from_tree(one.tree_, 0, range(4), lambda v: sign * model.learning_rate * v[0, 0])
                for one in stages[:, k]]  # fmt: skip
    if hasattr(model, "tree_"):
        return [from_tree(model.tree_, 0, range(4), lambda value: entry(value, target))]
    columns = getattr(model, "estimators_features_", [range(4)] * len(model.estimators_))
    n = len(model.estimators_)
    return [
        from_tree(one.tree_, 0, seen, lambda v, one=one: entry_of(one, v, target) / n)
        for one, seen in zip(model.estimators_, columns, strict=True)
    ]


def entry(value: Array, target: int | None) -> float:
    """Out of (outputs, classes)."""
    return float(np.ravel(value)[target or 0])


def entry_of(one: Any, value: Array, target: int | None) -> float:
    """The same of a tree that may not have seen all classes."""
    if not hasattr(one, "classes_"):
        return entry(value, target)
    seen = [int(known) for known in one.classes_]
    return float(value[0, seen.index(target)]) if target in seen else 0.0


def from_tree(tree: Any, node: int, columns: Any, value: Callable[[Array], float]) -> Node:
    left, right = int(tree.children_left[node]), int(tree.children_right[node])
    if left < 0:
        return {"value": value(tree.value[node])}
    edge, to_left = tree.threshold[node], bool(tree.missing_go_to_left[node])
    cover = tree.weighted_n_node_samples
    return {
        "feature": columns[tree.feature[node]],
        "low": lambda x: to_left if np.isnan(x) else np.float32(x) <= edge,
        "shares": (cover[left] / cover[node], cover[right] / cover[node]),
        "children": [from_tree(tree, child, columns, value) for child in (left, right)],
    }


def from_histogram(predictor: Any, node: int, order: list[int], sign: int) -> Node:
    """Categories 0..3 are their own numbers; they have been put first, into the order given."""
    one = predictor.nodes[node]
    if one["is_leaf"]:
        return {"value": sign * float(one["value"])}
    left, right = int(one["left"]), int(one["right"])
    to_left, edge = bool(one["missing_go_to_left"]), one["num_threshold"]

    def low(x: float) -> bool:
        if np.isnan(x):
            return to_left
        if one["is_categorical"]:
            some = int(predictor.raw_left_cat_bitsets[one["bitset_idx"]][0])
            return f"{some:032b}"[-1 - int(x)] == "1"
        return bool(x <= edge)

    counts = [int(predictor.nodes[child]["count"]) for child in (left, right)]
    return {
        "feature": order[int(one["feature_idx"])],
        "low": low,
        "shares": tuple(count / sum(counts) for count in counts),
        "children": [from_histogram(predictor, child, order, sign) for child in (left, right)],
    }


def down(node: Node, row: Array, team: tuple[int, ...]) -> float:
    if "value" in node:
        return node["value"]
    if node["feature"] in team:
        return down(node["children"][0 if node["low"](row[node["feature"]]) else 1], row, team)
    halves = [down(child, row, team) for child in node["children"]]
    return float(np.dot(node["shares"], halves))


@pytest.mark.parametrize("name", MODELS)
def test_paths_sum_and_give_each_step_to_its_split(name: str) -> None:
    model, x, target = fitted(name)
    want = np.zeros((5, 4))
    for values, row in zip(want, x[:5], strict=True):
        for node in nodes_of(model, target):
            while "value" not in node:
                child = node["children"][0 if node["low"](row[node["feature"]]) else 1]
                values[node["feature"]] += down(child, row, ()) - down(node, row, ())
                node = child
    np.testing.assert_allclose(path_attribution(model, x[:5], target=target), want, atol=1e-12)


def test_the_oracle_of_the_table_reads_the_same_nodes() -> None:
    """`tests/oracles.py` has a reader of its own, for the table of models and methods."""
    tree = DecisionTreeRegressor(max_depth=4, random_state=0).fit(X, Y)
    value = lambda team: mean_below(tree.tree_, tree.tree_.value[:, 0, 0], 0, X[7], team)  # noqa: E731
    np.testing.assert_allclose(tree_shap(tree, X[7]), shares(value, 4), atol=1e-12)


@pytest.mark.parametrize("name", ["tree", "tree, NaN", "tree of classes", "one random tree"])
def test_one_tree_by_hand_is_the_same(name: str) -> None:
    model, x, target = fitted(name)
    want = tree_shap(model, x, target=target)
    np.testing.assert_allclose(tree_shap_by_hand(model, x, target=target), want, atol=1e-12)


# ---- beside shap and beyond ----------------------------------------------------------------------

PEERS = {
    "tree", "tree, absolute error", "tree, NaN", "tree of classes", "forest", "forest, NaN",
    "forest, two outputs", "forest of classes", "extra trees", "extra trees of classes",
    "boosting", "boosting of two", "boosting, exponential", "histograms", "histograms, NaN",
    "histograms, Poisson", "histograms of two", "histograms of three",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PEERS))
def test_both_games_equal_shaps(name: str) -> None:
    """shap reads no bagging, no boosting of three classes, and categories as numbers.

    With a background it compares in float32, and sends rows on a threshold the wrong way: only rows
    off all thresholds are compared. Of an exponential loss it starts from the log-odds, where the
    trees add to half of them: its `expected_value` and values do not sum to the model's score.
    """
    model, x, target = fitted(name)
    rows, some = x[:9], x[40:50]
    rows, some = rows + 0.01, some + 0.01
    for kind, others in (("tree_path_dependent", None), ("interventional", some)):
        peer = shap.TreeExplainer(model, others, feature_perturbation=kind)
        want = peer.shap_values(rows, check_additivity=False)
        want = want[..., target] if want.ndim == 3 else want
        got = tree_shap(model, rows, target=target, background=others)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
        if name == "boosting, exponential":
            continue
        start = np.ravel(peer.expected_value)
        start = start[target] if len(start) > 1 else start
        mine = tree_start(model, target=target, background=others)
        np.testing.assert_allclose(mine, start, rtol=0, atol=1e-6)


def test_paths_equal_shaps_approximation() -> None:
    forest = RandomForestRegressor(**SMALL).fit(X, Y)
    want = shap.TreeExplainer(forest).shap_values(X[:9], approximate=True)
    np.testing.assert_allclose(path_attribution(forest, X[:9]), want, rtol=0, atol=1e-9)


def test_hundreds_of_features_and_deep_trees_equal_shaps() -> None:
    """Ways of more than twenty features: the integral stays exact."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 200))
    tree = DecisionTreeRegressor(random_state=0, max_features=1, splitter="random")
    tree.fit(x, x[:, :60].sum(1))
    assert tree.get_depth() > 25
    want = shap.TreeExplainer(tree).shap_values(x[:5])
    np.testing.assert_allclose(tree_shap(tree, x[:5]), want, rtol=0, atol=1e-9)


def test_many_rows_and_many_leaves_go_in_parts() -> None:
    forest = RandomForestRegressor(5, random_state=0).fit(X, Y)
    many = np.random.default_rng(1).choice(X.ravel(), size=(2500, 4))
    got, some = tree_shap(forest, many), [0, 999, 1000, 2499]
    np.testing.assert_allclose(got[some], tree_shap(forest, many[some]), atol=1e-12)
    np.testing.assert_allclose(got.sum(1), forest.predict(many) - tree_start(forest), atol=1e-12)


def test_who_plays_no_part_gets_nothing_and_nothing_changes() -> None:
    x = np.c_[X[:, :3], np.ones(80)]
    model = GradientBoostingClassifier(**SMALL).fit(x, CLASSES)
    before = pickle.dumps((model, x))
    for function in BOTH:
        assert (function(model, x, target=1)[:, 3] == 0).all()
    tree_shap(model, x[:5], target=1, background=x[:9])
    assert pickle.dumps((model, x)) == before


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("forest of classes", "probability"), ("tree of classes", "probability"),
        ("one class", "probability"), ("forest", "score"), ("boosting", "score"),
        ("boosting of two", "log-odds"), ("boosting, exponential", "half log-odds"),
        ("boosting of three", "logit"), ("histograms of two", "log-odds"),
        ("histograms of three", "logit"), ("histograms", "score"),
        ("histograms, Poisson", "log of the output"),
    ],
)  # fmt: skip
def test_units_are_named_truthfully(name: str, units: str) -> None:
    """The link that the name says gives what scikit-learn predicts."""
    model, x, target = fitted(name)
    read = read_trees(model)
    assert read.units == units
    scores = read.ask(x)
    links: dict[str, Callable[[Array], Array]] = {
        "log-odds": lambda s: 1 / (1 + np.exp(-s)),
        "half log-odds": lambda s: 1 / (1 + np.exp(-2 * s)),
        "logit": lambda s: np.exp(s) / np.exp(s).sum(1, keepdims=True),
        "log of the output": np.exp,
    }
    want = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)[:, None]
    np.testing.assert_allclose(links.get(units, np.asarray)(scores), want, atol=1e-9)
    answers = tree_answers(model, x, target=target)
    np.testing.assert_array_equal(answers, scores[:, [target or 0]])


def test_boosting_of_two_has_one_score() -> None:
    model, x, _ = fitted("boosting of two")
    for function in BOTH:
        one = function(model, x, target=1)
        np.testing.assert_array_equal(function(model, x), one)
        np.testing.assert_allclose(function(model, x, target=0), -one, atol=1e-15)


# ---- categories ----------------------------------------------------------------------------------


def test_categories_that_a_table_holds_as_numbers() -> None:
    """Categories 10, 20, ... of a pandas column act as their codes do; new ones are missing."""
    table = pd.DataFrame(X, columns=NAMES).assign(dose=pd.Categorical(X[:, 1] * 20))
    options = {**FEW, "categorical_features": "from_dtype"}
    model = HistGradientBoostingRegressor(**options).fit(table, Y)
    codes = HistGradientBoostingRegressor(categorical_features=[1], **FEW).fit(X * [1, 2, 1, 1], Y)
    want = tree_shap(codes, X[:9] * [1, 2, 1, 1])
    np.testing.assert_allclose(tree_shap(model, table[:9]), want, atol=1e-12)
    new, missing = table[:9].assign(dose=77.0), table[:9].assign(dose=np.nan)
    np.testing.assert_array_equal(tree_shap(model, new), tree_shap(model, missing))
    assert np.abs(tree_shap(model, missing) - want).max() > 0.01


def test_categories_that_are_words_are_refused() -> None:
    table = pd.DataFrame(X, columns=NAMES).assign(dose=pd.Categorical(list("wxyz" * 20)))
    options = {**FEW, "categorical_features": "from_dtype"}
    model = HistGradientBoostingRegressor(**options).fit(table, Y)
    for rows in (table, table.assign(dose=0.0)):
        with pytest.raises(ValueError, match=r"categories that are no numbers, such as 'w'.*codes"):
            tree_shap(model, rows)


# ---- refused -------------------------------------------------------------------------------------


class Doubled(RandomForestRegressor):
    """Answers otherwise than the sum of its trees."""

    def predict(self, X: Any) -> Array:
        return 2 * super().predict(X)


@pytest.mark.parametrize("function", BOTH)
def test_a_model_that_is_not_the_sum_of_its_trees_is_refused(function: Any) -> None:
    with pytest.raises(ValueError, match=r"do not add up.*gap of.*permutation_shap"):
        function(Doubled(**SMALL).fit(X, Y), X)
    drawn = GradientBoostingRegressor(init=LinearRegression(), **SMALL).fit(X, Y)
    with pytest.raises(ValueError, match=r"starts from a LinearRegression.*permutation_shap"):
        function(drawn, X)


def pipeline() -> Any:
    return make_pipeline(StandardScaler(), RandomForestRegressor(**SMALL)).fit(X, Y)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: "oak", "a str is no sum of trees"),
        (DecisionTreeRegressor, "not fitted"),
        (RandomForestClassifier, "not fitted"),
        (HistGradientBoostingClassifier, "not fitted"),
        (pipeline, r"Pipeline.*tree_shap\(pipe\[-1\], pipe\[:-1\].transform\(x\)\)"),
        (lambda: GridSearchCV(DecisionTreeRegressor(), {"max_depth": [2]}).fit(X, Y),
         r"search.best_estimator_"),
        (lambda: LinearRegression().fit(X, Y), "LinearRegression.*kernel_shap asks any model"),
        (lambda: IsolationForest(n_estimators=3).fit(X), "IsolationForest"),
        (lambda: RandomTreesEmbedding(n_estimators=3).fit(X), "RandomTreesEmbedding"),
        (lambda: BaggingRegressor(LinearRegression(), 3).fit(X, Y), "BaggingRegressor"),
        (lambda: CalibratedClassifierCV(DecisionTreeClassifier()).fit(X, CLASSES), "Calibrated"),
    ],
)  # fmt: skip
def test_what_is_no_sum_of_trees(function: Any, make: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        function(make(), X)


def test_a_pipelines_last_step_is_what_to_ask() -> None:
    pipe = pipeline()
    got = tree_shap(pipe[-1], pipe[:-1].transform(X))
    np.testing.assert_allclose(got.sum(1), pipe.predict(X) - tree_start(pipe[-1]), atol=1e-12)


@pytest.mark.parametrize(
    ("library", "words"),
    [("xgboost", "pred_contribs=True"), ("lightgbm", "pred_contrib=True"), ("catboost", "Shap")],
)
def test_other_libraries_give_values_of_their_own(library: str, words: str) -> None:
    model = type("Booster", (), {"__module__": f"{library}.sklearn"})()
    assert words in why_no_trees(model)


def test_one_tree_by_hand_takes_one() -> None:
    with pytest.raises(TypeError, match="RandomForestRegressor has 4 trees: ask tree_shap"):
        tree_shap_by_hand(RandomForestRegressor(**SMALL).fit(X, Y), X)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("tree", "x", "target", "words"),
    [
        (DecisionTreeRegressor().fit([[0, 0]], [1]), np.zeros(3), None, "2 features"),
        (DecisionTreeRegressor().fit([[0], [1]], [0, 1]), np.zeros(1), 1, r"0\.\.0"),
        (DecisionTreeClassifier().fit([[0], [1]], [0, 1]), np.zeros(1), None, "2 classes"),
        (DecisionTreeClassifier().fit([[0], [1]], [0, 1]), np.zeros(1), -1, r"0\.\.1"),
    ],
)
def test_bad_rows_and_targets(
    function: Any, tree: Any, x: Array, target: int | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        function(tree, x, target=target)


@pytest.mark.parametrize("name", ["boosting of three", "histograms of three"])
def test_classes_have_to_be_told_apart(name: str) -> None:
    model, x, _ = fitted(name)
    for target, words in ((None, "3 classes: say which"), (3, r"0\.\.2")):
        with pytest.raises(ValueError, match=words):
            tree_shap(model, x, target=target)


@pytest.mark.parametrize(
    ("background", "error", "words"),
    [
        (X[0], ValueError, r"background must be rows \(B, F\), got shape \(4,\)"),
        (X[:0], ValueError, "background"),
        (X[:, :3], ValueError, "4 features, background"),
        (X + np.inf, ValueError, "background.*infinity"),
        (pd.DataFrame(X, columns=NAMES[::-1]), ValueError, "background has the column 'height'"),
    ],
)
def test_bad_backgrounds(background: Any, error: type[Exception], words: str) -> None:
    forest = RandomForestRegressor(**SMALL).fit(pd.DataFrame(X, columns=NAMES), Y)
    for function in (lambda b: tree_shap(forest, X, background=b),
                     lambda b: tree_start(forest, background=b)):  # fmt: skip
        with pytest.raises(error, match=words):
            function(background)


def test_missing_numbers_where_the_model_takes_none() -> None:
    with pytest.raises(ValueError, match="GradientBoostingRegressor does not accept missing"):
        tree_shap(fitted("boosting")[0], holes(X))


# ---- several outputs, and targets ---------------------------------------------------------------


def two_outputs() -> tuple[DecisionTreeRegressor, Array]:
    x, y = ties(60, 0)
    return DecisionTreeRegressor(max_depth=4, random_state=0).fit(x, np.c_[y, -5 * x[:, 1]]), x


def test_every_output_has_a_column() -> None:
    tree, x = two_outputs()
    want = shap.TreeExplainer(tree, feature_perturbation="tree_path_dependent").shap_values(x[:5])
    got = tree_shap(tree, x[:5])
    assert got.shape == (5, 4, 2)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("function", BOTH)
def test_outputs_one_by_one(function: Any) -> None:
    tree, x = two_outputs()
    both = function(tree, x[:5])
    for output in (0, np.int64(1)):
        alone = function(tree, x[:5], target=output)
        np.testing.assert_allclose(alone, both[..., output], rtol=0, atol=1e-12)
    np.testing.assert_allclose(function(tree, x[0]), both[0], rtol=0, atol=1e-12)
    change = tree.predict(x[:5]) - tree.predict(x).mean(0)
    np.testing.assert_allclose(both.sum(1), change, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.1, got 2"):
        function(tree, x, target=2)


@pytest.mark.parametrize("function", BOTH)
def test_several_outputs_of_classes_are_refused(function: Any) -> None:
    x, y = ties(40, 0)
    tree = DecisionTreeClassifier(max_depth=2).fit(x, np.c_[y > 1, x[:, 0] > 0.5])
    for target in (None, 0):
        with pytest.raises(ValueError, match="2 outputs of several classes"):
            function(tree, x, target=target)


@pytest.mark.parametrize("function", BOTH)
@pytest.mark.parametrize("target", [True, 1.0, "1", [0, 1], np.array([1.0]), np.True_, (1,)])
def test_what_is_no_target(function: Any, target: Any) -> None:
    x, y = ties(40, 0)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(x, y > 1)
    with pytest.raises(TypeError, match="target must be an integer"):
        function(tree, x[0], target=target)
    want = function(tree, x[0], target=1)
    for integer in (np.uint8(1), np.array(1), torch.tensor(1)):
        np.testing.assert_array_equal(function(tree, x[0], target=integer), want)


def test_medians_sum_to_the_change_of_the_answer_too() -> None:
    """A tree grown on absolute errors keeps medians: the node's own is not the answers' mean."""
    x, y = ties(60, 0)
    y = y + 20 * (np.arange(60) % 7 == 0)
    tree = DecisionTreeRegressor(criterion="absolute_error", max_depth=3, random_state=0).fit(x, y)
    change = tree.predict(x) - tree.predict(x).mean()
    assert abs(tree.tree_.value[0, 0, 0] - tree.predict(x).mean()) > 0.1
    for function in BOTH:
        np.testing.assert_allclose(function(tree, x).sum(1), change, rtol=0, atol=1e-9)


# ---- tables, by their columns --------------------------------------------------------------------


@pytest.mark.parametrize("function", BOTH)
def test_trees_take_tables_of_any_kind(function: Any) -> None:
    x, y = ties(40, 0)
    x[3, 1] = np.nan
    table = pd.DataFrame(x, columns=NAMES)
    tree = DecisionTreeRegressor(max_depth=3, random_state=0).fit(table, y)
    want = function(tree, x)
    for same in (table, x.tolist(), torch.tensor(x), table.astype(object), table.astype("Float64")):
        np.testing.assert_array_equal(function(tree, same), want)
    for row in (table.iloc[3], x[3].tolist(), table.astype(object).iloc[3]):
        np.testing.assert_allclose(function(tree, row), want[3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("function", BOTH)
def test_trees_name_what_they_refuse(function: Any) -> None:
    x, y = ties(40, 0)
    table = pd.DataFrame(x, columns=NAMES)
    tree = DecisionTreeRegressor(max_depth=3, random_state=0).fit(table, y)
    job = table.assign(dose="nurse")
    job.loc[0, "weight"] = np.nan
    refused = [
        (job, TypeError, "x must hold numbers; column 'dose' holds 'nurse'"),
        (job.iloc[0], TypeError, "column 'dose' holds 'nurse'"),
        (table.assign(weight=np.inf), ValueError, "column 'weight' holds infinity"),
        (table[NAMES[::-1]], ValueError, "x has the column 'height' where the tree has 'age'"),
        (table.assign(weight=1e300), ValueError, "too large for float32"),
        (np.zeros((0, 4)), ValueError, r"x must be a table.*\(0, 4\)"),
        (np.zeros((2, 2, 4)), ValueError, r"\(F,\) or \(N, F\), got shape \(2, 2, 4\)"),
    ]
    for rows, error, words in refused:
        with pytest.raises(error, match=words):
            function(tree, rows)


def test_a_forest_may_be_one_tree() -> None:
    tree = DecisionTreeRegressor(random_state=0, max_depth=3).fit(X, Y)
    forest = RandomForestRegressor(n_estimators=1, bootstrap=False, random_state=0, max_depth=3)
    got = tree_shap(forest.fit(X, Y), X[:5])
    np.testing.assert_allclose(got, tree_shap(tree, X[:5]), atol=1e-12)
