"""The uncertainty surface in a real notebook, by keyboard: method, noise and distance."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = "from xailab import widgets\nwidgets.uncertainty_surface()"


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The explorer as lesson `uncertainty` shows it."""
    with explorer("surface", CELL) as shown:
        yield shown


def test_arrow_keys_move_noise_and_distance(it: Explorer) -> None:
    expect(it.status).to_contain_text("ensemble of 5, noise 0.2, distance 4: aleatoric ")
    it.press_and_look("noise", "ArrowRight", "ensemble of 5, noise 0.3, distance 4: ")
    it.press_and_look("distance", "End", "ensemble of 5, noise 0.3, distance 6: ")
    it.press_and_look("distance", "ArrowLeft", "ensemble of 5, noise 0.3, distance 5: ")


def test_space_picks_a_method(it: Explorer) -> None:
    before = it.picture()
    it.page.locator(".xailab-surface-method button").nth(3).focus()
    it.page.keyboard.press("Space")
    expect(it.status).to_contain_text("Laplace, noise ", timeout=20_000)
    assert it.picture() != before


def test_every_control_is_reached_by_tab(it: Explorer) -> None:
    it.page.locator(".xailab-surface-method button").first.focus()
    order = []
    for _ in range(8):
        here = it.page.evaluate(
            "document.activeElement.closest('[class*=xailab-surface-]')?.className ?? ''"
        )
        order += [word for word in here.split() if word.startswith("xailab-surface-")]
        it.page.keyboard.press("Tab")
    names = [word.removeprefix("xailab-surface-") for word in dict.fromkeys(order)]
    assert names == ["method", "noise", "distance"]
