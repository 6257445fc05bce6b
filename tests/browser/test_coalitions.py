"""The coalition explorer in a real notebook, by keyboard: space switches, arrows move."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = """\
import numpy as np
from xailab import widgets

def predict(rows):
    return rows[:, 0] * rows[:, 1] + 10 * rows[:, 2]

background = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
widgets.coalition_explorer(predict, np.array([2.0, 3.0, 1.0]), background, ["a", "b", "c"])"""


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The explorer of a small game."""
    with explorer("coalitions", CELL) as shown:
        yield shown


def test_space_switches_features_and_arrows_move_the_orders(it: Explorer) -> None:
    expect(it.status).to_contain_text("3 of 3 features are in: the team is worth 16.")
    expect(it.status).to_contain_text("Mean over 1 of the orders:")
    it.press_and_look("2", "Space", "2 of 3 features are in: the team is worth 6.")
    it.press_and_look("0", "Space", "1 of 3 features are in: the team is worth 3.")
    it.press_and_look("1", "Space", "Nobody is in: 0.")
    it.press_and_look("1", "Space", "From 0: b +3; together 3.")
    it.press_and_look("2", "Space", "From 0: b +3, then c +10; together 13.")
    it.press_and_look("orders", "ArrowRight", "3 of 3 features are in: the team is worth 16.")
    expect(it.status).to_contain_text("Mean over 2 of the orders:")
    it.press_and_look("orders", "End", "Mean over 6 of the orders: a +1.5 (exact +1.5)")


def test_every_control_is_reached_by_tab(it: Explorer) -> None:
    assert it.tab_order("0") == ["0", "1", "2", "orders"]
