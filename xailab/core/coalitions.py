"""Arithmetic of games: all coalitions of a few players, and how often each counts."""

from math import factorial

import numpy as np

from xailab.core.checks import check_positive

Array = np.ndarray

MOST = 20  # players whose 2^n coalitions are enumerated: a million


def countable(n: int, what: str) -> int:
    """Return a number of players if their coalitions can be enumerated.

    Raises:
        TypeError: not an integer.
        ValueError: below 1, or too many.

    >>> countable(3, "players")
    3
    """
    count = check_positive(f"number of {what}", n)
    if count > MOST:
        raise ValueError(
            f"{n} {what} have 2^{n} coalitions, more than can be enumerated (at most {MOST} "
            f"{what}): group them, or draw a sample with permutation_shap or kernel_shap"
        )
    return count


def all_coalitions(n: int) -> Array:
    """Return all coalitions as (2^n, n) bools; player i is bit i of the row's number.

    >>> all_coalitions(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    return (np.arange(2**n)[:, None] >> np.arange(n)) % 2 == 1


def order_weight(size: int, n: int) -> float:
    """Return the share of orders in which a coalition of this size comes just before a player.

    >>> order_weight(0, 2), order_weight(1, 3)  # first of two; 0, then me, then the other
    (0.5, 0.16666666666666666)
    """
    return factorial(size) * factorial(n - size - 1) / factorial(n)


def shared_out(worths: Array) -> Array:
    """Return the Shapley values (n,) of the worths (2^n,) of all coalitions, in their order.

    >>> shared_out(np.array([0.0, 1, 2, 5])).tolist()
    [2.0, 3.0]
    """
    n = len(worths).bit_length() - 1
    sizes = all_coalitions(n - 1).sum(1) if n > 1 else np.zeros(1, dtype=int)
    weights = np.array([order_weight(size, n) for size in range(n)])[sizes]
    shares = np.empty(n)
    for i in range(n):
        pairs = worths.reshape(-1, 2, 2**i)  # without player i, with player i
        shares[i] = weights @ (pairs[:, 1] - pairs[:, 0]).ravel()
    return shares
