"""Shapley values by every way, against paper, all orders, and the shap package."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shap
import torch
from captum.attr import ShapleyValues
from torch import nn

from tests.toys import inputs, toy
from xailab.attribution.shapley import (
    kernel_shap,
    linear_shap,
    permutation_shap,
    shapley_kernel_weights,
    shapley_of_game,
    shapley_values,
)

Array = np.ndarray
RNG = np.random.default_rng(0)
BACKGROUND = RNG.normal(size=(12, 5))
ROWS = RNG.normal(size=(3, 5))


def wiggly(rows: Array) -> Array:
    """Interactions of two and three features, two outputs."""
    a, b, c, d, e = rows.T
    return np.stack([a * b * c + np.sin(d) - e, np.maximum(a, d) * e], axis=1)


def by_orders(value: Callable[[frozenset[int]], float], n: int) -> Array:
    """Average what each player adds over all n! orders: the definition, slow and plain."""
    shares = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        for at, player in enumerate(order):
            before = frozenset(order[:at])
            shares[player] += (value(before | {player}) - value(before)) / len(orders)
    return shares


def random_game(n: int, seed: int = 0) -> Callable[[frozenset[int]], float]:
    worths = np.random.default_rng(seed).normal(size=2**n)
    return lambda team: float(worths[sum(2**player for player in team)])


def worth(row: Array, output: int) -> Callable[[frozenset[int]], float]:
    """The game that the regression and the permutations play."""

    def value(team: frozenset[int]) -> float:
        rows = BACKGROUND.copy()
        rows[:, list(team)] = row[list(team)]
        return float(wiggly(rows)[:, output].mean())

    return value


# ---- networks ----------------------------------------------------------------------------------


def test_a_product_by_hand() -> None:
    """x0 * x1 from (1, 0) to (2, 3): x0 adds 0 first or 3 last, x1 adds 3 first or 6 last."""
    product = lambda x: x[:, 0] * x[:, 1]  # noqa: E731
    got = shapley_values(
        product, torch.tensor([[2.0, 3.0]]), None, baseline=torch.tensor([1.0, 0.0])
    )
    assert got.tolist() == [[1.5, 4.5]]


def test_groups_play_as_one_and_equal_captum() -> None:
    model, x = toy(torch.float64).eval(), inputs(2, dtype=torch.float64)
    groups = (torch.arange(64).reshape(1, 1, 8, 8) // 13).repeat(1, 3, 1, 1)
    with torch.no_grad():
        want = ShapleyValues(model).attribute(x, target=1, feature_mask=groups, baselines=0.3)
    got = shapley_values(model, x, 1, feature_mask=groups[0, 0], baseline=0.3)
    torch.testing.assert_close(got, want.double(), rtol=0, atol=1e-6)  # captum: float32


def test_a_network_equals_the_game_that_it_plays() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, base = torch.randn(2, 6).double(), torch.randn(6).double()

    def value(team: frozenset[int]) -> float:
        row = base.clone()
        row[list(team)] = x[1][list(team)]
        return net(row[None])[0, 2].item()

    got = shapley_values(net, x, 2, baseline=base)[1].numpy()
    np.testing.assert_allclose(got, by_orders(value, 6), atol=1e-12)


def test_too_many_features_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"192 features.*group them"):
        shapley_values(toy().eval(), inputs(1), 0)


# ---- black boxes -------------------------------------------------------------------------------


def test_all_coalitions_give_the_exact_values() -> None:
    got = kernel_shap(wiggly, ROWS, BACKGROUND)
    assert got.shape == (3, 5, 2)
    for row, found in zip(ROWS, got, strict=True):
        for output in range(2):
            want = by_orders(worth(row, output), 5)
            np.testing.assert_allclose(found[:, output], want, rtol=0, atol=1e-8)


def test_exact_values_equal_shaps() -> None:
    peer = shap.ExactExplainer(wiggly, shap.maskers.Independent(BACKGROUND, max_samples=100))
    np.testing.assert_allclose(kernel_shap(wiggly, ROWS, BACKGROUND), peer(ROWS).values, atol=1e-8)


def test_samples_come_closer_as_one_over_the_root() -> None:
    game = random_game(10)
    predict = lambda rows: np.array([game(frozenset(np.flatnonzero(row))) for row in rows])  # noqa: E731
    x, background = np.ones(10), np.zeros((1, 10))
    exact = shapley_of_game(game, 10)

    def error(n: int) -> float:
        draws = [kernel_shap(predict, x, background, n_samples=n, seed=s) for s in range(20)]
        return float(np.sqrt(np.mean((np.stack(draws) - exact) ** 2)))

    assert 1.6 < error(80) / error(320) < 2.5  # four times as many: half the error


def test_samples_keep_the_sum() -> None:
    got = kernel_shap(wiggly, ROWS[0], BACKGROUND, n_samples=12)
    change = wiggly(ROWS[:1])[0] - wiggly(BACKGROUND).mean(0)
    np.testing.assert_allclose(got.sum(0), change)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 samples.*5 features"):
        kernel_shap(wiggly, ROWS[0], BACKGROUND, n_samples=2)


def test_one_feature_gets_all() -> None:
    double = lambda rows: 2 * rows[:, 0]  # noqa: E731
    x, background = np.array([3.0]), np.array([[1.0], [2.0]])
    assert kernel_shap(double, x, background).tolist() == [3]
    assert permutation_shap(double, x, background, n_permutations=1).tolist() == [3]


def test_both_ways_make_pairs_exact() -> None:
    pairs = lambda rows: rows[:, 0] * rows[:, 1] - rows[:, 2] * rows[:, 4] + rows[:, 3]  # noqa: E731
    got = permutation_shap(pairs, ROWS, BACKGROUND, n_permutations=1)
    np.testing.assert_allclose(got, kernel_shap(pairs, ROWS, BACKGROUND), atol=1e-12)


def test_permutations_converge_and_always_sum() -> None:
    exact = kernel_shap(wiggly, ROWS, BACKGROUND)
    rough = permutation_shap(wiggly, ROWS, BACKGROUND, n_permutations=1)
    fine = permutation_shap(wiggly, ROWS, BACKGROUND, n_permutations=300)
    np.testing.assert_allclose(rough.sum(1), exact.sum(1), atol=1e-12)
    assert np.abs(fine - exact).max() < 0.02 < np.abs(rough - exact).max()


def test_weights_by_hand() -> None:
    """n = 4: 3/(1*3), 3/(2*2), 3/(3*1)."""
    assert shapley_kernel_weights(4).tolist() == [1, 0.75, 1]
    with pytest.raises(ValueError, match="at least 2"):
        shapley_kernel_weights(1)


@pytest.mark.parametrize("function", [kernel_shap, permutation_shap])
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"x": np.zeros(4)}, ValueError, r"\(4,\).*\(12, 5\)"),
        ({"x": np.full(5, np.nan)}, ValueError, "NaN"),
        ({"background": np.zeros((0, 5))}, ValueError, "empty"),
        ({"background": np.zeros(5)}, ValueError, r"\(B, F\).*\(5,\)"),
        ({"predict": lambda rows: rows[:1, 0]}, ValueError, r"predict must give.*\(1,\)"),
        ({"predict": 3}, TypeError, "int"),
    ],
)
def test_bad_tables(
    function: Any, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    arguments = {"predict": wiggly, "x": ROWS[0], "background": BACKGROUND, **changes}
    with pytest.raises(error, match=words):
        function(**arguments)


# ---- linear models -----------------------------------------------------------------------------


def test_linear_by_hand() -> None:
    background = np.array([[0.0, 0], [2, 4]])
    assert linear_shap(np.array([3.0, 1]), np.array([2.0, 2]), background).tolist() == [3, 0]


def test_conditional_lets_a_twin_speak() -> None:
    """x1 equals x0, only x0 has a weight: known either way, each gets half."""
    values = np.array([-1.0, 0, 1])
    background = np.stack([values, values], axis=1)
    got = linear_shap(np.array([2.0, 0]), np.array([1.0, 1]), background, conditional=True)
    np.testing.assert_allclose(got, [1, 1])


def test_conditional_by_orders() -> None:
    weights = np.array([1.0, -2, 0.5, 3, 0])
    mixed = BACKGROUND @ np.random.default_rng(1).normal(size=(5, 5))
    mean, covariance = mixed.mean(0), np.cov(mixed.T)

    def value(team: frozenset[int]) -> float:
        s, rest = sorted(team), sorted(set(range(5)) - team)
        guess = ROWS[0].copy()
        solved = np.linalg.solve(covariance[np.ix_(s, s)], (ROWS[0] - mean)[s]) if s else []
        guess[rest] = mean[rest] + covariance[np.ix_(rest, s)] @ solved if s else mean[rest]
        return float(weights @ guess)

    got = linear_shap(weights, ROWS[0], mixed, conditional=True)
    np.testing.assert_allclose(got, by_orders(value, 5), atol=1e-10)


def test_interventional_equals_the_kernel() -> None:
    weights = np.array([1.0, -2, 0.5, 3, 0])
    want = kernel_shap(lambda rows: rows @ weights + 7, ROWS, BACKGROUND)
    np.testing.assert_allclose(linear_shap(weights, ROWS, BACKGROUND), want, atol=1e-8)


def test_weights_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\(5,\), got \(4,\)"):
        linear_shap(np.zeros(4), ROWS, BACKGROUND)


# ---- tables, by their columns --------------------------------------------------------------------


@pytest.mark.parametrize("function", [kernel_shap, permutation_shap])
def test_tables_of_any_kind(function: Any) -> None:
    names = list("abcde")
    x, background = pd.DataFrame(ROWS, columns=names), pd.DataFrame(BACKGROUND, columns=names)
    want = function(wiggly, ROWS, BACKGROUND)
    for rows, others in (
        (x, background),
        (ROWS.tolist(), BACKGROUND),
        (torch.tensor(ROWS), background),
    ):
        np.testing.assert_array_equal(function(wiggly, rows, others), want)
    np.testing.assert_allclose(function(wiggly, x.iloc[1], background), want[1], atol=1e-9)
    refused = [
        (x.assign(c="cook"), background, TypeError, "x must hold numbers; column 'c' holds 'cook'"),
        (x, background.assign(c="cook"), TypeError, "background.*column 'c' holds 'cook'"),
        (x, background.assign(d=np.nan), ValueError, "background.*column 'd' holds NaN"),
        (x.iloc[0].mask([False] * 4 + [True]), background, ValueError, "x must.*'e' holds NaN"),
        (x[names[::-1]], background, ValueError, "x has the column 'e' where background has 'a'"),
        (x, [1.0, 2.0], ValueError, r"background \(B, F\)"),
    ]
    for rows, others, error, words in refused:
        with pytest.raises(error, match=words):
            function(wiggly, rows, others)


# ---- columns that are one player -----------------------------------------------------------------


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1], [9, -4, 9, 7, -4]])
def test_columns_with_one_label_are_one_player(labels: list[int]) -> None:
    """Players {0, 2}, {1, 4}, {3}: the game of three, each column carrying its player's value."""
    members = [[0, 2], [1, 4], [3]]

    def value(team: frozenset[int]) -> float:
        return worth(ROWS[0], 1)(frozenset(i for player in team for i in members[player]))

    want = by_orders(value, 3)[[0, 1, 0, 2, 1]]
    mask = np.array(labels)
    for kind in (mask, labels, mask.astype(np.int8), torch.tensor(labels), mask[None]):
        got = kernel_shap(wiggly, ROWS[0], BACKGROUND, feature_mask=kind)
        np.testing.assert_allclose(got[:, 1], want, atol=1e-8)
    got = permutation_shap(wiggly, ROWS[0], BACKGROUND, n_permutations=60, feature_mask=mask)
    np.testing.assert_allclose(got[:, 1], want, atol=0.05)
    for found in (got, kernel_shap(wiggly, ROWS[0], BACKGROUND, feature_mask=mask, n_samples=20)):
        change = wiggly(ROWS[:1])[0] - wiggly(BACKGROUND).mean(0)
        np.testing.assert_allclose(found[[0, 1, 3]].sum(0), change, atol=1e-9)


def test_groups_make_many_columns_exact() -> None:
    """Forty columns in four groups of a sum: 16 coalitions, and each group's change."""
    x, background = np.arange(40.0), np.ones((2, 40))
    got = kernel_shap(lambda rows: rows.sum(1), x, background, feature_mask=np.arange(40) // 10)
    want = [sum(x[i // 10 * 10 : i // 10 * 10 + 10] - 1) for i in range(40)]
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize("function", [kernel_shap, permutation_shap])
@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (
            [0, 1, 2],
            ValueError,
            r"must be \(5,\), a label for each column, got \(3,\)",
        ),
        (np.zeros((5, 1), dtype=int), ValueError, r"got \(5, 1\)"),
        ([0.0, 1, 2, 3, 4], TypeError, "integers, got float64"),
        ([True, False, True, True, True], TypeError, "integers, got bool"),
    ],
)
def test_bad_masks(function: Any, mask: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        function(wiggly, ROWS[0], BACKGROUND, feature_mask=mask)


# ---- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [kernel_shap, permutation_shap])
@pytest.mark.parametrize(
    ("predict", "error", "words"),
    [
        (lambda rows: rows[:, 0] * np.nan, ValueError, "NaN"),
        (lambda rows: rows[:, :, None], ValueError, r"predict must give \(\d+,\) or"),
        (lambda rows: rows[:, 0].sum(), ValueError, r"got \(\)"),
        (lambda rows: rows[:, :0], ValueError, r"0\)"),
        (lambda rows: ["yes"] * len(rows), TypeError, "numbers, got <U3: .*yes"),
        (lambda rows: rows[:, 0] + 1j, TypeError, "complex128"),
        (lambda rows: [[1.0]] * (len(rows) - 1) + [[1.0, 2.0]], ValueError, "rows that differ"),
        (lambda rows: None, ValueError, "predict must give"),
    ],
)
def test_answers_are_looked_at(
    function: Any, predict: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        function(predict, ROWS[0], BACKGROUND)


@pytest.mark.parametrize("function", [kernel_shap, permutation_shap])
def test_answers_of_any_kind(function: Any) -> None:
    """Tensors with a graph, bfloat16, tables, truth values: numbers are numbers."""
    want = function(lambda rows: rows > 0, ROWS[0], BACKGROUND)
    kinds = [
        lambda rows: torch.tensor(rows > 0).float().requires_grad_(),
        lambda rows: torch.tensor(rows > 0).bfloat16(),
        lambda rows: pd.DataFrame(rows > 0),
        lambda rows: (rows > 0).tolist(),
    ]
    for kind in kinds:
        np.testing.assert_allclose(function(kind, ROWS[0], BACKGROUND), want, atol=1e-9)


def test_integers_of_any_kind() -> None:
    """2^9 coalitions do not fit in the eight bits of the number of players."""
    game = random_game(9)
    np.testing.assert_array_equal(shapley_of_game(game, np.uint8(9)), shapley_of_game(game, 9))
    np.testing.assert_array_equal(shapley_kernel_weights(np.uint8(40)), shapley_kernel_weights(40))
    few = {"n_samples": np.uint8(20), "seed": np.int32(3)}
    want = kernel_shap(wiggly, ROWS, BACKGROUND, n_samples=20, seed=3)
    np.testing.assert_array_equal(kernel_shap(wiggly, ROWS, BACKGROUND, **few), want)
    orders = {"n_permutations": np.uint8(2), "seed": np.int32(3)}
    want = permutation_shap(wiggly, ROWS, BACKGROUND, n_permutations=2, seed=3)
    np.testing.assert_array_equal(permutation_shap(wiggly, ROWS, BACKGROUND, **orders), want)
    for function in (kernel_shap, permutation_shap):
        with pytest.raises(TypeError, match="seed must be an integer"):
            function(wiggly, ROWS, BACKGROUND, seed=0.5)


def test_linear_models_by_their_columns() -> None:
    names = list("abcde")
    weights = pd.Series([1.0, -2, 0.5, 3, 0], index=names)
    x, background = pd.DataFrame(ROWS, columns=names), pd.DataFrame(BACKGROUND, columns=names)
    want = linear_shap(weights.to_numpy(), ROWS, BACKGROUND)
    np.testing.assert_array_equal(linear_shap(weights, x, background), want)
    with pytest.raises(ValueError, match=r"background must have at least two rows.*got 1"):
        linear_shap(weights, ROWS, BACKGROUND[:1], conditional=True)
    with pytest.raises(ValueError, match="21 features have 2"):
        linear_shap(np.ones(21), np.ones(21), np.eye(21), conditional=True)
    with pytest.raises(ValueError, match=r"weights must be a row.*place 0 holds NaN"):
        linear_shap(np.full(5, np.nan), ROWS, BACKGROUND)
    with pytest.raises(ValueError, match=r"weights must be a row.*\(1, 5\)"):
        linear_shap(np.ones((1, 5)), ROWS, BACKGROUND)
