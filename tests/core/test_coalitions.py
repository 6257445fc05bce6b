"""Coalitions, how often each counts, and a game shared out: by hand and over all orders."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tests.oracles import shares
from xailab.core.coalitions import MOST, all_coalitions, countable, order_weight, shared_out


def test_coalitions_by_hand() -> None:
    """Player i is bit i of the row's number: 5 is 0 and 2."""
    every = all_coalitions(3)
    assert (every.shape, every.dtype) == ((8, 3), bool)
    assert np.flatnonzero(every[5]).tolist() == [0, 2]
    assert len({tuple(row) for row in every.tolist()}) == 8


@pytest.mark.parametrize("n", [1, 2, 4])
def test_weights_are_shares_of_orders(n: int) -> None:
    """Just before player 0 stand exactly the players of a coalition: 0..size, but 0."""
    orders = list(permutations(range(n)))
    for size in range(n):
        before = set(range(1, size + 1))
        hits = [set(order[: order.index(0)]) == before for order in orders]
        assert order_weight(size, n) == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_shared_out_by_definition(n: int) -> None:
    worths = np.random.default_rng(n).normal(size=2**n)
    want = shares(lambda team: worths[sum(2**player for player in team)], n)
    np.testing.assert_allclose(shared_out(worths), want, atol=1e-12)
    assert shared_out(worths).sum() == pytest.approx(worths[-1] - worths[0])


@pytest.mark.parametrize(
    ("n", "error", "words"),
    [
        (0, ValueError, "number of players must be at least 1"),
        (MOST + 1, ValueError, r"21 players have 2\^21.*at most 20 players.*group them"),
        (2.0, TypeError, "integer"),
    ],
)
def test_what_cannot_be_counted(n: Any, error: type[Exception], words: str) -> None:
    assert countable(np.uint8(MOST), "players") == MOST
    with pytest.raises(error, match=words):
        countable(n, "players")
