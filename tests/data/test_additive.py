from itertools import combinations
from math import factorial

import numpy as np
import pytest

from xailab.data import additive_table
from xailab.data.additive import AdditiveTruth, predict

TABLE = additive_table(seed=0, n=20_000)


def game(x, background, present):
    """v(S) = mean over the background of f(x on S, background elsewhere)."""
    rows = background.copy()
    rows[:, list(present)] = x[list(present)]
    return predict(rows).mean()


def brute_force(x, background):
    """Return Shapley's definition for one row: every coalition of the other players."""
    values = np.zeros(6)
    for j in range(6):
        others = [k for k in range(6) if k != j]
        for size in range(6):
            weight = factorial(size) * factorial(5 - size) / factorial(6)
            for some in combinations(others, size):
                gain = game(x, background, (*some, j)) - game(x, background, some)
                values[j] += weight * gain
    return values


def test_by_hand():
    # m3 = m4 = 1, m34 = 2; x3 x4 = 2: phi3 = (1-2)/2 + (2-2)/2, phi4 = (2-2)/2 + (2-1)/2
    background = np.array([[0, 0, 0, 0, 0, 0], [0, 2, 2, 2, 5, 5]], dtype=float)
    x = np.array([[np.pi / 2, 3, 1, 2, 9, 9]])
    values = TABLE.truth.shapley(x, background)
    np.testing.assert_allclose(values, [[2, 9 - 2, -0.5, 0.5, 0, 0]], atol=1e-15)
    assert TABLE.truth.interaction(x, background).tolist() == [2 - 1 - 2 + 2]


def test_shapley_equals_brute_force():
    background, x = TABLE.X[:7], TABLE.X[100:104]
    expected = np.array([brute_force(row, background) for row in x])
    np.testing.assert_allclose(TABLE.truth.shapley(x, background), expected, atol=1e-13)


def test_shapley_sums_to_the_difference_of_predictions():
    background, x = TABLE.X[:50], TABLE.X[50:100]
    total = TABLE.predict(x) - TABLE.predict(background).mean()
    np.testing.assert_allclose(TABLE.truth.shapley(x, background).sum(1), total, atol=1e-12)


def test_interaction_equals_its_definition_and_other_pairs_have_none():
    background, x = TABLE.X[:7], TABLE.X[100]

    def index(i, j):
        v = [game(x, background, some) for some in ((i, j), (i,), (j,), ())]
        return v[0] - v[1] - v[2] + v[3]

    found = {pair: index(*pair) for pair in combinations(range(6), 2)}
    expected = TABLE.truth.interaction(x[None], background)[0]
    assert abs(expected) > 0.1
    for pair, value in found.items():
        assert value == pytest.approx(expected if pair == (2, 3) else 0, abs=1e-12)


@pytest.mark.parametrize("column", range(6))
def test_effects_are_the_centered_partial_dependence(column):
    grid = np.array([-0.8, 0.1, 1.5])
    measured = [game(np.full(6, v), TABLE.X, (column,)) for v in grid] - predict(TABLE.X).mean()
    effect = TABLE.truth.effects[TABLE.names[column]](grid)
    np.testing.assert_allclose(measured, effect, atol=0.05)


@pytest.mark.parametrize("name", ["x1", "x2", "x3", "x4", "x5", "x6"])
def test_effects_have_mean_zero(name):
    column = TABLE.X[:, TABLE.names.index(name)]
    assert abs(TABLE.truth.effects[name](column).mean()) < 0.03


def test_correlations_are_as_told():
    found = np.corrcoef(TABLE.X.T)
    assert found[0, 1] == pytest.approx(0.8, abs=0.01)
    assert found[0, 4] == pytest.approx(0.8, abs=0.01)
    assert abs(found[2:4]).sum() == pytest.approx(2, abs=0.2)  # x3, x4: with themselves only
    assert abs(found[5]).sum() == pytest.approx(1, abs=0.1)


def test_irrelevant_column_correlates_with_the_answer():
    assert np.corrcoef(TABLE.X[:, 4], TABLE.y)[0, 1] > 0.4


def test_noise_has_the_size_told():
    assert (TABLE.y - TABLE.predict(TABLE.X)).std() == pytest.approx(0.1, rel=0.02)


def test_same_seed_same_numbers():
    again = additive_table(seed=0, n=20_000)
    assert (again.X == TABLE.X).all()
    assert (again.y == TABLE.y).all()
    assert (additive_table(seed=1, n=5).X != additive_table(seed=0, n=5).X).any()


def test_bad_shapes_are_refused():
    truth = AdditiveTruth()
    with pytest.raises(ValueError, match=r"expected rows of shape \(N, 6\), got \(3, 5\)"):
        predict(np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"got \(6,\)"):
        truth.shapley(np.zeros(6), np.zeros((1, 6)))
    with pytest.raises(ValueError, match="background is empty"):
        truth.shapley(np.zeros((1, 6)), np.zeros((0, 6)))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        additive_table(n=0)
