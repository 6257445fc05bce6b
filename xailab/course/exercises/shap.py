"""Exercises of lesson `shap`: Shapley values from the definition, and what may be read into them."""

from collections.abc import Callable
from math import comb, factorial
from typing import Any

import numpy as np

from xailab.course import (
    criticize,
    exercise,
    expect_close,
    expect_number,
    question,
)

Worth = Callable[[frozenset[int]], float]
# Nobody is worth something, and no two teams add alike, so that every mistake shows.
_WORTHS = (2.0, 5.0, 3.0, 11.0, 4.0, 16.0, 6.0, 30.0)  # player i is bit i of the team's number


@exercise(
    "shap.shares",
    kind="code",
    points=3,
    minutes=15,
    difficulty=3,
    hints=(
        "Three loops: over players, over sizes of the teams they may meet, over teams of that size "
        "(itertools.combinations of the other players).",
        "A team of `size` others has the weight factorial(size) * factorial(n - size - 1) / "
        "factorial(n).",
        "shares[player] += weight * (worth(team | {player}) - worth(team)), team being a frozenset "
        "of others; size runs from 0 to n - 1.",
    ),
)
def shares(answer: Any) -> None:
    """A game of three in which every mistake shows, one player alone, and a game of five."""
    three = _right(_game, 3)
    expect_close(answer(_game, 3), three, "the shares of a game of three", known=_slips(_game, 3))
    single = [7.0]
    expect_close(answer(lambda team: 7.0 * len(team) + 1, 1), single, "the share of a player alone")
    five = _right(_five, 5)
    expect_close(answer(_five, 5), five, "the shares of a game of five", known=_slips(_five, 5))


def _game(team: frozenset[int]) -> float:
    return _WORTHS[sum(2**player for player in team)]


def _five(team: frozenset[int]) -> float:
    return float(sum(player + 1 for player in team) ** 2 % 17 + len(team) + 3)


def _slips(worth: Worth, n: int) -> dict[str, np.ndarray]:
    """Return what each of the usual mistakes computes."""
    return _wrong_means(worth, n) | _wrong_games(worth, n) | _wrong_weights(worth, n)


def _wrong_means(worth: Worth, n: int) -> dict[str, np.ndarray]:
    """Return what comes out when one order stands for all of them, or one place in the order."""
    teams = [frozenset(range(i)) for i in range(n + 1)]
    first = [worth(frozenset({i})) - worth(frozenset()) for i in range(n)]
    last = [worth(teams[n]) - worth(teams[n] - {i}) for i in range(n)]
    return {
        "this is one order, 0, 1, 2, ...: the mean goes over all of them.": np.diff(
            [worth(team) for team in teams]
        ),
        "this is what each adds when it comes last; the mean goes over all teams that may be there "
        "before.": np.array(last),
        "this is what each adds when it comes first; the mean goes over all teams that may be "
        "there before.": np.array(first),
        "the sum over orders is not divided by their number, n!.": _right(worth, n) * factorial(n),
    }


def _wrong_games(worth: Worth, n: int) -> dict[str, np.ndarray]:
    """Return what comes out when something else is summed than what the player adds."""
    return {
        "what the team is worth without the player is not subtracted.": _summed(
            worth, n, _weights(n), added=False
        ),
        "nobody is worth something in this game: what the first one adds is worth({i}) - "
        "worth(nobody).": _right(worth, n) + worth(frozenset()) / n,
    }


def _wrong_weights(worth: Worth, n: int) -> dict[str, np.ndarray]:
    """Return what comes out when the right gains are weighed wrongly."""
    sizes = np.array([bin(k).count("1") for k in range(2**n)])
    right, equal = _weights(n), np.full(2**n, 1 / 2 ** (n - 1))
    too_much = np.array([factorial(s) * factorial(n - s) / factorial(n) for s in sizes])
    weights = {
        "every team counts the same here; a team's weight depends on its size.": equal,
        "the weight is factorial(size) * factorial(n - size) / n!; it lacks a - 1: the player takes "
        "a place too.": too_much,
        "the team of all others is missing: sizes run from 0 to n - 1.": right * (sizes != n - 1),
        "the empty team is missing: sizes run from 0.": right * (sizes != 0),
        "// drops the fraction of the weight: divide by n! with /.": np.floor(right),
    }
    return {slip: _summed(worth, n, weight) for slip, weight in weights.items()}


def _right(worth: Worth, n: int) -> np.ndarray:
    """Return the Shapley values; as the package's, but without loading torch."""
    return _summed(worth, n, _weights(n))


def _weights(n: int) -> np.ndarray:
    """Return the definition's weight of every team, (2^n,)."""
    return np.array([_weight(bin(k).count("1"), n) for k in range(2**n)])


def _weight(size: int, n: int) -> float:
    return factorial(size) * factorial(n - size - 1) / factorial(n) if size < n else 0.0


def _summed(worth: Worth, n: int, weights: np.ndarray, *, added: bool = True) -> np.ndarray:
    """Sum what each player adds to (or, not `added`, is worth with) every team, weighed."""
    found = np.zeros(n)
    for k in range(2**n):
        team = frozenset(i for i in range(n) if k >> i & 1)
        for player in set(range(n)) - team:
            found[player] += weights[k] * (worth(team | {player}) - added * worth(team))
    return found


@exercise(
    "shap.weight",
    kind="code",
    points=1,
    minutes=4,
    difficulty=1,
    hints=(
        "`comb(n, size)` is the number of teams of this size.",
        "The numerator is n - 1; three factors stand below.",
        "return (n - 1) / (comb(n, size) * size * (n - size))",
    ),
)
def weight(answer: Any) -> None:
    """The weight of one team, for every size among six features and among nine."""
    for n in (6, 9):
        sizes = range(1, n)
        teams = np.array([comb(n, k) for k in sizes])
        pairs = np.array([k * (n - k) for k in sizes])
        want = (n - 1) / (teams * pairs)
        known = {
            "this is what all teams of one size weigh together; one team is asked for.": (n - 1)
            / pairs,
            "the numerator is n - 1.": 1 / (teams * pairs),
            "the numerator is n - 1, not n.": n / (teams * pairs),
            "this is the weight of a step in Shapley's definition. The regression has another "
            "one.": [_weight(k, n) for k in sizes],
            "the factor size * (n - size) below is missing.": (n - 1) / teams,
            "the brackets: all three factors stand below the line.": (n - 1) / teams * pairs,
        }
        got = [answer(n, k) for k in sizes]
        expect_close(got, want, f"the weights of sizes 1 to {n - 1} for n = {n}", known=known)


@exercise(
    "shap.product",
    kind="predict",
    points=1,
    minutes=3,
    hints=(
        "From (1, 1), x1 first: the product goes from 1 * 1 to 0 * 1.",
        "x1 last: x2 is 3 already, so the product goes from 1 * 3 to 0 * 3.",
    ),
)
def product(guess: Any) -> None:
    """A number."""
    expect_number(guess, -10, 10)


@exercise(
    "shap.background",
    kind="predict",
    points=1,
    minutes=2,
    hints=("The patient's bmi is above the mean of all patients. Is it above that of the heavy?",),
)
def background(guess: Any) -> None:
    """A number of points."""
    expect_number(guess, -100, 100)


criticize(
    "shap.report",
    points=3,
    minutes=8,
    difficulty=3,
    hints=(
        "Three claims: it protects; it is the only fair answer; so leave it alone. Which of "
        "them is about the model, which about the body?",
        "Compared with whom? And what did LDL get, which goes with cholesterol?",
        "Background not named; a share is no cause; cholesterol and LDL move together (impossible "
        "patients, shares that cancel in part); the theorem holds for a game that somebody chose.",
    ),
    model="""
    The share says what the model's prediction owes to this value, compared with a background of
    100 patients: another background gives another number, even another sign, and the report
    does not name it. It is about the model, not about the body: nothing here is causal, and a
    network with large errors may use cholesterol in a way that has no cause behind it.
    Cholesterol and LDL are correlated at .9; the share of LDL is large and positive and cancels
    half of that of cholesterol, and the rows in which only one of the two is changed include
    patients who cannot exist. I would ask for the share of both together. The theorem says that
    the shares are the only ones which keep four promises for a given game; it does not choose
    the game. Advice on treatment needs a trial, not an attribution.
    """,
    rubric={
        "background": "The share is relative to a background that the report does not name: "
        "another one gives another number, even another sign.",
        "model, not body": "It is about the model's prediction, not about the body: nothing here "
        "is causal.",
        "LDL": "Cholesterol and LDL go together, and LDL's share cancels part of it: ask for the "
        "share of both together.",
        "impossible patients": "Rows in which only one of the two is changed are patients who "
        "cannot exist.",
        "theorem": "The theorem holds for a given game; it does not choose the game, so other "
        "explanations are not excluded.",
        "treatment": "Advice on treatment needs a trial, not an attribution.",
    },
)


question(
    "shap.q_slope",
    "A model is f = 3 * x1 + 5 * x2. Your row has x1 = 2, and the background's mean of x1 is 2 as "
    "well. What is the Shapley value of x1?",
    choices={
        "3": "That is the slope. It lacks the way from the background: 2 - 2 = 0.",
        "6": "That is slope times input: right if the background's mean were 0.",
        "0": "Being at the mean explains no difference from the mean, however steep the model.",
    },
    right="0",
)

question(
    "shap.q_draws",
    "You let GradientSHAP draw ten million times on a network with ReLUs. What do you get?",
    choices={
        "The exact Shapley values.": "The noise is gone, but what it converges to is the mean of "
        "integrated gradients, where all features come together and not one by one.",
        "The mean of integrated gradients over the background.": "That is what it estimates: it "
        "adds up to the same whole, but shares it out in another way.",
        "Nothing of use: ReLUs have no slope at 0.": "A path meets that point with probability 0.",
    },
    right="The mean of integrated gradients over the background.",
)

question(
    "shap.q_ignored",
    "A bank removes the column 'sex' from its model. Conditional SHAP, asked about all columns, still "
    "gives 'sex' a share of -12. What do you know?",
    choices={
        "The model uses sex in secret.": "It cannot: it never gets the column.",
        "The share is a mistake in the program.": "It is what conditional values are meant to show.",
        "Other columns tell something about sex, and the model uses those.": "Knowing the sex moves "
        "what you expect of the other columns, and with them the answer: a lead worth following.",
    },
    right="Other columns tell something about sex, and the model uses those.",
)
