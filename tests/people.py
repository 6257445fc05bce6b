"""People for the tests of fairness: ten by hand, and crowds at random."""

from typing import NamedTuple

import numpy as np

from xailab.trust.fairness_measures import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)

Array = np.ndarray
METRICS = [
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
]

# Ten people: six of group a (3 with y = 1), four of group b (1 with y = 1).
Y = [1, 1, 1, 0, 0, 0, 1, 0, 0, 0]
PRED = [1, 1, 0, 1, 0, 0, 1, 1, 1, 0]
GROUP = list("aaaaaabbbb")


class People(NamedTuple):
    y: Array
    pred: Array
    probs: Array
    group: Array


def people(n: int = 300, groups: int = 3, seed: int = 0, bias: float = 0.15) -> People:
    """Random people: groups differ in base rate and in how the score treats them."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    y = (rng.random(n) < 0.3 + 0.1 * group).astype(int)
    probs = np.clip(0.2 + 0.3 * y + bias * group + rng.normal(0, 0.2, n), 0, 1)
    return People(y, (probs >= 0.5).astype(int), probs, np.array(list("abcdefgh"))[group])
