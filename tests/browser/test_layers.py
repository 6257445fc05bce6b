"""The layer browser in a real notebook, by keyboard: arrow keys move the unit and the layer."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect

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
def page(
    lab: Any, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> Iterator[Page]:
    """A notebook with the browser on a small network in its one cell, which has run."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "layers.ipynb"
    )
    page = opened("layers.ipynb")
    run_all(page)
    yield page
    page.close()


def picture(page: Page) -> str:
    """Return a digest of the picture as the browser holds it."""
    data = page.locator(".xailab-layers img").evaluate(
        """async image => Array.from(new Uint8Array(
            await (await fetch(image.src)).arrayBuffer()))"""
    )
    return hashlib.sha256(bytes(data)).hexdigest()


def press(page: Page, control: str, key: str, words: str) -> None:
    """Press a key on one control; the words under the picture must follow, and the picture."""
    before = picture(page)
    page.locator(f".xailab-layers-{control} .noUi-handle").focus()
    page.keyboard.press(key)
    expect(page.locator(".xailab-layers [role=status]")).to_contain_text(words, timeout=20_000)
    for _ in range(100):
        if picture(page) != before:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{key} on {control} left the picture as it was")


def test_arrow_keys_move_unit_layer_photo_and_order(page: Page) -> None:
    status = page.locator(".xailab-layers [role=status]")
    expect(status).to_contain_text("Unit 1 of 5 by importance. 3, unit ")
    expect(status).to_contain_text(" on tom: ")
    press(page, "unit", "ArrowRight", "Unit 2 of 5 by importance. 3, unit ")
    press(page, "layer", "ArrowLeft", "Unit 1 of 4 by importance. 1, unit ")
    press(page, "photo", "ArrowRight", " on rex: ")
    press(page, "unit", "End", "Unit 4 of 4 by importance. 1, unit ")
    press(page, "order", "ArrowRight", "Unit 1 of 4 by number. 1, unit 0 on rex: ")


def test_every_control_is_reached_by_tab(page: Page) -> None:
    page.locator(".xailab-layers-photo .noUi-handle").focus()
    seen = []
    for _ in range(12):
        here = page.evaluate(
            "document.activeElement.closest('[class*=xailab-layers-]')?.className ?? ''"
        )
        seen += [name for name in here.split() if name.startswith("xailab-layers-")]
        page.keyboard.press("Tab")
    order = [name.removeprefix("xailab-layers-") for name in dict.fromkeys(seen)]
    assert order == ["photo", "layer", "order", "unit"]
