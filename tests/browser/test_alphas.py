"""The path slider in a real notebook, by keyboard: arrow keys move alpha, baseline and picture."""

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

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
widgets.path_slider(model, torch.rand(2, 1, 8, 8), [1, 2], names=["a one", "a two"], n_steps=8)"""


@pytest.fixture(scope="module")
def page(
    lab: Any, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> Iterator[Page]:
    """A notebook with the slider on a small network in its one cell, which has run."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "alphas.ipynb"
    )
    page = opened("alphas.ipynb")
    run_all(page)
    yield page
    page.close()


def picture(page: Page) -> str:
    """Return a digest of the picture as the browser holds it."""
    data = page.locator(".xailab-path img").evaluate(
        """async image => Array.from(new Uint8Array(
            await (await fetch(image.src)).arrayBuffer()))"""
    )
    return hashlib.sha256(bytes(data)).hexdigest()


def press(page: Page, control: str, key: str, words: str) -> None:
    """Press a key on one control; the words under the picture must follow, and the picture."""
    before = picture(page)
    page.locator(f".xailab-path-{control} .noUi-handle").focus()
    page.keyboard.press(key)
    expect(page.locator(".xailab-path [role=status]")).to_contain_text(words, timeout=20_000)
    for _ in range(100):
        if picture(page) != before:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{key} on {control} left the picture as it was")


def test_arrow_keys_move_alpha_baseline_and_picture(page: Page) -> None:
    status = page.locator(".xailab-path [role=status]")
    expect(status).to_contain_text("a one, path from black, alpha 0.50: the score rose by ")
    press(page, "alpha", "ArrowRight", "a one, path from black, alpha 0.62: ")
    press(page, "alpha", "End", "a one, path from black, alpha 1.00: ")
    press(page, "baseline", "ArrowRight", "a one, path from white, alpha 1.00: ")
    press(page, "picture", "ArrowRight", "a two, path from white, alpha 1.00: ")
    press(page, "alpha", "Home", "No step is taken yet, the map is empty.")


def test_every_control_is_reached_by_tab(page: Page) -> None:
    page.locator(".xailab-path-picture .noUi-handle").focus()
    seen = []
    for _ in range(9):
        here = page.evaluate(
            "document.activeElement.closest('[class*=xailab-path-]')?.className ?? ''"
        )
        seen += [name for name in here.split() if name.startswith("xailab-path-")]
        page.keyboard.press("Tab")
    order = [name.removeprefix("xailab-path-") for name in dict.fromkeys(seen)]
    assert order == ["picture", "baseline", "alpha"]
