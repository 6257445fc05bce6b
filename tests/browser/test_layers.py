"""The layer browser in a real notebook, by keyboard: arrow keys move the unit and the layer."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = """\
import torch
from torch import nn
from xailab import widgets
from xailab.models import Pretrained

torch.manual_seed(0)
convolutions = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1)
head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
net = Pretrained(nn.Sequential(*convolutions, *head), lambda image: image, ["a", "b", "c"], "")
widgets.layer_browser(net, torch.rand(3, 3, 8, 8), ["tom", "rex", "hen"], layers=["1", "3"])"""


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The browser on a small network."""
    with explorer("layers", CELL) as shown:
        yield shown


def test_arrow_keys_move_unit_layer_photo_and_order(it: Explorer) -> None:
    expect(it.status).to_contain_text("Unit 1 of 5 by importance. 3, unit ")
    expect(it.status).to_contain_text(" on tom: ")
    it.press_and_look("unit", "ArrowRight", "Unit 2 of 5 by importance. 3, unit ")
    it.press_and_look("layer", "ArrowLeft", "Unit 1 of 4 by importance. 1, unit ")
    it.press_and_look("photo", "ArrowRight", " on rex: ")
    it.press_and_look("unit", "End", "Unit 4 of 4 by importance. 1, unit ")
    it.press_and_look("order", "ArrowRight", "Unit 1 of 4 by number. 1, unit 0 on rex: ")


def test_every_control_is_reached_by_tab(it: Explorer) -> None:
    assert it.tab_order("photo") == ["photo", "layer", "order", "unit"]
