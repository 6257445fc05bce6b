"""The LIME sampler in a real notebook, by keyboard: arrow keys change what LIME is given."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, expect

CELL = """\
import numpy as np
from xailab import widgets

image = np.random.default_rng(0).random((8, 8))
quarters = np.kron([[0, 1], [2, 3]], np.ones((4, 4), int))
cuts = {"quarters": quarters, "pixels": np.arange(64).reshape(8, 8)}
predict = lambda p: np.stack([p[:, :4].mean((1, 2)) * p[:, 4:].mean((1, 2)), p.mean((1, 2))], 1)
widgets.lime_sampler(predict, image, 0, patches=cuts, n_samples=200)"""


@pytest.fixture(scope="module")
def page(
    lab: Any, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> Iterator[Page]:
    """A notebook with the sampler on a small box in its one cell, which has run."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "samplers.ipynb"
    )
    page = opened("samplers.ipynb")
    run_all(page)
    yield page
    page.close()


def picture(page: Page) -> str:
    """Return a digest of the picture as the browser holds it."""
    data = page.locator(".xailab-lime img").evaluate(
        """async image => Array.from(new Uint8Array(
            await (await fetch(image.src)).arrayBuffer()))"""
    )
    return hashlib.sha256(bytes(data)).hexdigest()


def press(page: Page, control: str, key: str, words: str) -> None:
    """Press a key on one control; the words under the picture must follow, and the picture."""
    before = picture(page)
    page.locator(f".xailab-lime-{control} .noUi-handle").focus()
    page.keyboard.press(key)
    expect(page.locator(".xailab-lime [role=status]")).to_contain_text(words, timeout=20_000)
    for _ in range(100):
        if picture(page) != before:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{key} on {control} left the picture as it was")


def test_arrow_keys_move_samples_width_and_patches(page: Page) -> None:
    status = page.locator(".xailab-lime [role=status]")
    expect(status).to_contain_text("100 samples, width 0.25, quarters: rank correlation ")
    press(page, "samples", "ArrowLeft", "50 samples, width 0.25, quarters: ")
    press(page, "samples", "End", "200 samples, width 0.25, quarters: ")
    press(page, "width", "Home", "200 samples, width 0.02, quarters: ")
    press(page, "width", "ArrowRight", "200 samples, width 0.05, quarters: ")
    press(page, "patches", "ArrowRight", "200 samples, width 0.05, pixels: ")


def test_every_control_is_reached_by_tab(page: Page) -> None:
    page.locator(".xailab-lime-patches .noUi-handle").focus()
    seen = []
    for _ in range(9):
        here = page.evaluate(
            "document.activeElement.closest('[class*=xailab-lime-]')?.className ?? ''"
        )
        seen += [name for name in here.split() if name.startswith("xailab-lime-")]
        page.keyboard.press("Tab")
    order = [name.removeprefix("xailab-lime-") for name in dict.fromkeys(seen)]
    assert order == ["patches", "samples", "width"]
