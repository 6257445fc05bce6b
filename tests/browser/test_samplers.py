"""The LIME sampler in a real notebook, by keyboard: arrow keys change what LIME is given."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = """\
import numpy as np
from xailab import widgets

image = np.random.default_rng(0).random((8, 8))
quarters = np.kron([[0, 1], [2, 3]], np.ones((4, 4), int))
cuts = {"quarters": quarters, "pixels": np.arange(64).reshape(8, 8)}
predict = lambda p: np.stack([p[:, :4].mean((1, 2)) * p[:, 4:].mean((1, 2)), p.mean((1, 2))], 1)
widgets.lime_sampler(predict, image, 0, patches=cuts, n_samples=200)"""


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The sampler on a small box."""
    with explorer("lime", CELL) as shown:
        yield shown


def test_arrow_keys_move_samples_width_and_patches(it: Explorer) -> None:
    expect(it.status).to_contain_text("100 samples, width 0.25, quarters: rank correlation ")
    it.press_and_look("samples", "ArrowLeft", "50 samples, width 0.25, quarters: ")
    it.press_and_look("samples", "End", "200 samples, width 0.25, quarters: ")
    it.press_and_look("width", "Home", "200 samples, width 0.02, quarters: ")
    it.press_and_look("width", "ArrowRight", "200 samples, width 0.05, quarters: ")
    it.press_and_look("patches", "ArrowRight", "200 samples, width 0.05, pixels: ")


def test_every_control_is_reached_by_tab(it: Explorer) -> None:
    assert it.tab_order("patches") == ["patches", "samples", "width"]
