"""The path slider in a real notebook, by keyboard: arrow keys move alpha, baseline and picture."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = """\
import torch
from torch import nn
from xailab import widgets

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
widgets.path_slider(model, torch.rand(2, 1, 8, 8), [1, 2], names=["a one", "a two"], n_steps=8)"""


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The slider on a small network."""
    with explorer("path", CELL) as shown:
        yield shown


def test_arrow_keys_move_alpha_baseline_and_picture(it: Explorer) -> None:
    expect(it.status).to_contain_text("a one, path from black, alpha 0.50: the score rose by ")
    it.press_and_look("alpha", "ArrowRight", "a one, path from black, alpha 0.62: ")
    it.press_and_look("alpha", "End", "a one, path from black, alpha 1.00: ")
    it.press_and_look("baseline", "ArrowRight", "a one, path from white, alpha 1.00: ")
    it.press_and_look("picture", "ArrowRight", "a two, path from white, alpha 1.00: ")
    it.press_and_look("alpha", "Home", "No step is taken yet, the map is empty.")


def test_every_control_is_reached_by_tab(it: Explorer) -> None:
    assert it.tab_order("picture") == ["picture", "baseline", "alpha"]
