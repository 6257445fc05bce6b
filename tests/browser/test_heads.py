"""The head browser in a real notebook, by keyboard: arrow keys move layer, head and token."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.explorers import Explorer

CELL = """\
import torch
from xailab import widgets

left = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
maps = [torch.stack([left, torch.eye(3)]), torch.stack([torch.full((3, 3), 1 / 3), left])]
widgets.head_browser(maps, ["a", "b", "c"])"""


@pytest.fixture(scope="module")
def it(explorer: Any) -> Iterator[Explorer]:
    """The browser on three tokens."""
    with explorer("heads", CELL) as shown:
        yield shown


def press(it: Explorer, control: str, key: str, words: str, above: list[str]) -> None:
    """Press a key on one slider; the sentence and the numbers above the words must follow."""
    it.press(control, key, words)
    expect(it.page.locator(".xailab-heads ruby rt")).to_have_text(above, timeout=20_000)


def test_arrow_keys_move_layer_head_and_token(it: Explorer) -> None:
    expect(it.status).to_contain_text("Layer 0, head 0: 'a' (token 0) looks at 'a' (token 0) 1")
    press(it, "token", "End", "head 0: 'c' (token 2) looks at 'b' (token 1) 1", ["+0", "+1", "+0"])
    press(it, "head", "ArrowRight", "head 1: 'c' (token 2) looks at 'c'", ["+0", "+0", "+1"])
    press(it, "layer", "ArrowRight", "Layer 1, head 1: 'c' (token 2)", ["+0", "+1", "+0"])
    press(it, "head", "ArrowLeft", "Layer 1, head 0: 'c' (token 2)", ["+0.33"] * 3)


def test_every_slider_is_reached_by_tab(it: Explorer) -> None:
    assert it.tab_order("layer") == ["layer", "head", "token"]
