"""The coalition explorer in a real notebook, by keyboard: space switches, arrows move."""

from collections.abc import Callable, Iterator
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect

CELL = """\
import numpy as np
from xailab import widgets

def predict(rows):
    return rows[:, 0] * rows[:, 1] + 10 * rows[:, 2]

background = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
widgets.coalition_explorer(predict, np.array([2.0, 3.0, 1.0]), background, ["a", "b", "c"])"""


@pytest.fixture(scope="module")
def page(
    lab: Any, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> Iterator[Page]:
    """A notebook with the explorer of a small game in its one cell, which has run."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "coalitions.ipynb"
    )
    page = opened("coalitions.ipynb")
    run_all(page)
    yield page
    page.close()


def source(page: Page) -> str:
    """Return the address of the picture: the browser makes a new one for each new picture."""
    return page.locator(".xailab-coalitions img").get_attribute("src") or ""


def press(page: Page, control: str, key: str, words: str) -> None:
    """Press a key on one control; the words under the picture must follow, and the picture."""
    before = source(page)
    page.locator(f".xailab-coalitions-{control}").locator("input, .noUi-handle").first.focus()
    page.keyboard.press(key)
    expect(page.locator(".xailab-coalitions [role=status]")).to_contain_text(words, timeout=20_000)
    expect(page.locator(".xailab-coalitions img")).not_to_have_attribute("src", before)


def test_space_switches_features_and_arrows_move_the_orders(page: Page) -> None:
    status = page.locator(".xailab-coalitions [role=status]")
    expect(status).to_contain_text("3 of 3 features are in: the team is worth 16.")
    expect(status).to_contain_text("Mean over 1 of the orders:")
    press(page, "2", "Space", "2 of 3 features are in: the team is worth 6.")
    press(page, "0", "Space", "1 of 3 features are in: the team is worth 3.")
    press(page, "1", "Space", "Nobody is in: 0.")
    press(page, "1", "Space", "From 0: b +3; together 3.")
    press(page, "2", "Space", "From 0: b +3, then c +10; together 13.")
    press(page, "orders", "ArrowRight", "3 of 3 features are in: the team is worth 16.")
    expect(status).to_contain_text("Mean over 2 of the orders:")
    press(page, "orders", "End", "Mean over 6 of the orders: a +1.5 (exact +1.5)")


def test_every_control_is_reached_by_tab(page: Page) -> None:
    page.locator(".xailab-coalitions-0 input").focus()
    seen = []
    for _ in range(8):
        here = page.evaluate(
            "document.activeElement.closest('[class*=xailab-coalitions-]')?.className ?? ''"
        )
        seen += [name for name in here.split() if name.startswith("xailab-coalitions-")]
        page.keyboard.press("Tab")
    order = [name.removeprefix("xailab-coalitions-") for name in dict.fromkeys(seen)]
    assert order == ["0", "1", "2", "orders"]
