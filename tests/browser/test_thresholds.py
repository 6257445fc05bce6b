"""The threshold explorer in a real notebook, by keyboard: each slider moves its own group."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = """\
from xailab import widgets

y = [1, 1, 0, 0, 1, 1, 0, 0]
probs = [0.9, 0.7, 0.6, 0.1, 0.8, 0.5, 0.3, 0.2]
widgets.threshold_explorer(y, probs, list("aaaabbbb"), start=0.6)"""


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The explorer on eight people."""
    with explorer("thresholds", CELL) as shown:
        yield shown


def test_arrow_keys_move_one_group_at_a_time(it: Explorer) -> None:
    expect(it.status).to_contain_text("Thresholds a 0.60, b 0.60: accuracy 0.750; gaps: parity ")
    it.press_and_look("0", "ArrowRight", "a 0.61, b 0.60: accuracy 0.875; gaps: parity 0.250")
    it.press_and_look("1", "Home", "a 0.61, b 0.00: ")
    it.press_and_look("1", "End", "a 0.61, b 1.00: ")


def test_every_slider_is_reached_by_tab(it: Explorer) -> None:
    assert it.tab_order("0") == ["0", "1"]
