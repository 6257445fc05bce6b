"""The head browser in a real notebook, by keyboard: arrow keys move layer, head and token."""

from collections.abc import Callable, Iterator
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect

CELL = """\
import torch
from xailab import widgets

left = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
maps = [torch.stack([left, torch.eye(3)]), torch.stack([torch.full((3, 3), 1 / 3), left])]
widgets.head_browser(maps, ["a", "b", "c"])"""


@pytest.fixture(scope="module")
def page(
    lab: Any, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> Iterator[Page]:
    """A notebook with the browser on three tokens in its one cell, which has run."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "heads.ipynb"
    )
    page = opened("heads.ipynb")
    run_all(page)
    yield page
    page.close()


def press(page: Page, control: str, key: str, words: str, above: list[str]) -> None:
    """Press a key on one slider; the sentence and the numbers above the words must follow."""
    page.locator(f".xailab-heads-{control} .noUi-handle").focus()
    page.keyboard.press(key)
    expect(page.locator(".xailab-heads [role=status]")).to_contain_text(words, timeout=20_000)
    expect(page.locator(".xailab-heads ruby rt")).to_have_text(above, timeout=20_000)


def test_arrow_keys_move_layer_head_and_token(page: Page) -> None:
    status = page.locator(".xailab-heads [role=status]")
    expect(status).to_contain_text("Layer 0, head 0: 'a' (token 0) looks at 'a' (token 0) 1")
    press(
        page, "token", "End", "head 0: 'c' (token 2) looks at 'b' (token 1) 1", ["+0", "+1", "+0"]
    )
    press(page, "head", "ArrowRight", "head 1: 'c' (token 2) looks at 'c'", ["+0", "+0", "+1"])
    press(page, "layer", "ArrowRight", "Layer 1, head 1: 'c' (token 2)", ["+0", "+1", "+0"])
    press(page, "head", "ArrowLeft", "Layer 1, head 0: 'c' (token 2)", ["+0.33"] * 3)


def test_every_slider_is_reached_by_tab(page: Page) -> None:
    page.locator(".xailab-heads-layer .noUi-handle").focus()
    seen = []
    for _ in range(9):
        here = page.evaluate(
            "document.activeElement.closest('[class*=xailab-heads-]')?.className ?? ''"
        )
        seen += [name for name in here.split() if name.startswith("xailab-heads-")]
        page.keyboard.press("Tab")
    order = [name.removeprefix("xailab-heads-") for name in dict.fromkeys(seen)]
    assert order == ["layer", "head", "token"]
