"""Checks of `shap`: right answers pass, also unlike ours; wrong ones are named."""

from itertools import combinations, permutations
from math import comb, factorial

import numpy as np
import pytest

from tests.course.exercises.answers import assert_accepted, assert_rejected, solution_of
from xailab.attribution.shapley import shapley_of_game
from xailab.course.exercises import shap as exercises

LESSON = "shap"
EMPTY = frozenset()


def by_orders(worth, n):
    found = [0.0] * n
    for order in permutations(range(n)):
        for at, player in enumerate(order):
            before = frozenset(order[:at])
            found[player] += (worth(before | {player}) - worth(before)) / factorial(n)
    return found


def test_shares_takes_the_model_answer_and_other_ways():
    assert_accepted("shap.shares", solution_of(LESSON, "my_shares"))
    assert_accepted("shap.shares", by_orders)
    assert_accepted("shap.shares", shapley_of_game)


def by_teams(weight, sizes=lambda n: range(n), gain=lambda w, team, i: w(team | {i}) - w(team)):
    """The formula with one part replaced."""

    def answer(worth, n):
        found = np.zeros(n)
        for player in range(n):
            others = [other for other in range(n) if other != player]
            for size in sizes(n):
                for team in map(frozenset, combinations(others, size)):
                    found[player] += weight(size, n) * gain(worth, team, player)
        return found

    return answer


def right_weight(size, n):
    return factorial(size) * factorial(n - size - 1) / factorial(n)


def one_order(worth, n):
    return [worth(frozenset(range(i + 1))) - worth(frozenset(range(i))) for i in range(n)]


def nobody_is_zero(worth, team, player):
    return worth(team | {player}) - (worth(team) if team else 0)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (by_teams(lambda size, n: 1 / 2 ** (n - 1)), "every team counts the same"),
        (one_order, "one order"),
        (lambda worth, n: [by_last(worth, n, i) for i in range(n)], "comes last"),
        (lambda worth, n: [worth(frozenset({i})) - worth(EMPTY) for i in range(n)], "comes first"),
        (by_teams(right_weight, gain=lambda w, team, i: w(team | {i})), "not subtracted"),
        (by_teams(right_weight, gain=nobody_is_zero), "nobody is worth something"),
        (by_teams(lambda s, n: factorial(s) * factorial(n - s) / factorial(n)), "lacks a - 1"),
        (by_teams(lambda s, n: factorial(s) * factorial(n - s - 1)), "not divided by their number"),
        (by_teams(right_weight, sizes=lambda n: range(n - 1)), "of all others is missing"),
        (by_teams(right_weight, sizes=lambda n: range(1, n)), "empty team is missing"),
        (by_teams(lambda s, n: factorial(s) * factorial(n - s - 1) // factorial(n)), "fraction"),
        (lambda worth, n: -shapley_of_game(worth, n), "wrong sign"),
        (lambda worth, n: shapley_of_game(worth, n).sum(), "shape"),
        (lambda worth, n: None, "None"),
    ],
)
def test_shares_names_the_mistake(wrong, match):
    assert_rejected("shap.shares", wrong, match)


def by_last(worth, n, player):
    everybody = frozenset(range(n))
    return worth(everybody) - worth(everybody - {player})


def test_the_check_knows_the_right_shares():
    for game, n in ((exercises._game, 3), (exercises._five, 5)):
        np.testing.assert_allclose(exercises._right(game, n), shapley_of_game(game, n))


def test_no_two_mistakes_look_alike():
    """A slip that computes the right shares, or another slip's, would be named wrongly."""
    for game, n in ((exercises._game, 3), (exercises._five, 5)):
        found = [shapley_of_game(game, n), *exercises._slips(game, n).values()]
        for i, a in enumerate(found):
            assert not any(np.allclose(a, b) for b in found[:i])


def test_weight_takes_the_model_answer_and_another_way():
    assert_accepted("shap.weight", solution_of(LESSON, "my_weight"))

    def by_factorials(n, size):
        ways = factorial(n) / (factorial(size) * factorial(n - size))
        return (n - 1) / ways / size / (n - size)

    assert_accepted("shap.weight", by_factorials)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda n, k: (n - 1) / (k * (n - k)), "weigh together"),
        (lambda n, k: 1 / (comb(n, k) * k * (n - k)), "numerator is n - 1"),
        (lambda n, k: n / (comb(n, k) * k * (n - k)), "not n"),
        (lambda n, k: right_weight(k, n), "step in Shapley's definition"),
        (lambda n, k: (n - 1) / comb(n, k), "is missing"),
        (lambda n, k: (n - 1) / comb(n, k) * k * (n - k), "brackets"),
        (lambda n, k: 2 * (n - 1) / (comb(n, k) * k * (n - k)), "2 times"),
    ],
)
def test_weight_names_the_mistake(wrong, match):
    assert_rejected("shap.weight", wrong, match)


@pytest.mark.parametrize(("id", "limit"), [("shap.product", 10), ("shap.background", 100)])
def test_guesses_are_numbers(id, limit):
    assert_accepted(id, -2)
    assert_rejected(id, limit + 1, f"from -{limit} to {limit}")
    assert_rejected(id, "down", "should be numbers")
    assert_rejected(id, [1, 2], "one number|number from")
