"""The explorer's worths, steps and means are those of the game; its controls redraw."""

from itertools import permutations

import numpy as np
import pytest

from xailab import widgets
from xailab.attribution.shapley import shapley_of_game
from xailab.widgets.shapley import Teams, coalition_explorer, explorer

X = np.array([2.0, 3.0, 1.0])
BACKGROUND = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
NAMES = ["<a>", "b", "c"]


def predict(rows):
    return rows[:, 0] * rows[:, 1] + 10 * rows[:, 2]


@pytest.fixture
def teams():
    return Teams(predict, X, BACKGROUND, NAMES, xlabel="points")


def test_steps_by_hand(teams):
    """Nobody: 0. Only b known: the mean of 0 * 3 and 2 * 3. All: 2 * 3 + 10."""
    assert teams.worths[frozenset()] == 0
    assert teams.worths[frozenset({1})] == 3
    assert teams.worths[frozenset({0, 1, 2})] == 16
    assert teams.steps((1, 0, 2)).tolist() == [3, 3, 10]
    assert teams.steps((0, 1)).tolist() == [0, 6]
    assert teams.steps(()).tolist() == []


def test_means_run_over_all_orders_and_end_at_the_exact_values(teams):
    assert sorted(teams.orders) == sorted(permutations(range(3)))
    first = np.empty(3)
    first[list(teams.orders[0])] = teams.steps(teams.orders[0])
    np.testing.assert_allclose(teams.means[0], first)
    exact = shapley_of_game(lambda team: teams.worths[team], 3)
    np.testing.assert_allclose(exact, [1.5, 4.5, 10])
    np.testing.assert_allclose(teams.means[-1], exact)
    np.testing.assert_allclose(teams.exact, exact, atol=1e-8)


def test_five_features_with_interactions_end_at_the_exact_values():
    rng = np.random.default_rng(0)
    wiggly = lambda rows: rows[:, 0] * rows[:, 1] * rows[:, 4] + np.maximum(rows[:, 2], rows[:, 3])  # noqa: E731
    teams = Teams(wiggly, rng.normal(size=5), rng.normal(size=(7, 5)), list("abcde"))
    assert len(teams.worths) == 32
    assert len(set(teams.orders)) == 120
    np.testing.assert_allclose(teams.means[-1], teams.exact, atol=1e-8)


def test_the_controls_redraw(teams):
    box = explorer(teams)
    *features, slider, image, words = box.children
    first, order = bytes(image.value), teams.orders[0]
    assert first.startswith(b"\x89PNG")
    assert "3 of 3 features are in: the team is worth 16" in words.value
    assert "Mean over 1 of the orders: " in words.value
    features[0].value = False
    assert bytes(image.value) != first
    assert "2 of 3 features are in" in words.value
    features[0].value = True  # comes in again, as the last one
    again = [*(player for player in order if player != 0), 0]
    last = f"{teams.steps(again)[-1]:+.3g}; together 16"
    assert f"then &lt;a&gt; {last}" in words.value
    features[2].value = False
    slider.value = 6  # all in, in another order
    assert all(feature.value for feature in features)
    assert "&lt;a&gt; +1.5 (exact +1.5), b +4.5 (exact +4.5)" in words.value
    for feature in features:
        feature.value = False
    assert "0 of 3 features are in: the team is worth 0. Nobody is in: 0." in words.value
    slider.value = 1
    assert bytes(image.value) == first


def test_controls_are_labelled(teams):
    controls = explorer(teams).children[:4]
    assert [control.description for control in controls] == [*NAMES, "Orders"]
    assert all(control.tooltip for control in controls)


def test_a_picture_asks_the_model_nothing():
    calls = []

    def counted(rows):
        calls.append(len(rows))
        return predict(rows)

    teams = Teams(counted, X, BACKGROUND, NAMES)
    before = len(calls)
    teams.picture((2, 0), 4)
    assert len(calls) == before


def test_outside_a_notebook_the_sentence_is_printed(capsys):
    coalition_explorer(predict, X, BACKGROUND, NAMES)
    assert capsys.readouterr().out.startswith("In words: 3 of 3 features are in")


@pytest.mark.parametrize(
    ("function", "x", "names", "match"),
    [
        (predict, X[:1], ["a"], r"2 to 5 features.*\(1,\) and 1 names"),
        (predict, np.ones(6), list("abcdef"), r"\(6,\)"),
        (predict, X, ["a"], "1 names"),
        (predict, X[None], NAMES, r"\(1, 3\)"),
        (lambda rows: rows[:, :2], X, NAMES, "one number a row, got 2"),
    ],
)
def test_bad_input_is_named(function, x, names, match):
    with pytest.raises(ValueError, match=match):
        Teams(function, x, BACKGROUND, names)


def test_the_function_is_not_hidden_by_its_module():
    assert widgets.coalition_explorer is coalition_explorer
