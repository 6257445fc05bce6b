"""The growth browser in a real notebook: the arrow keys move the slider, the picture follows."""

from collections.abc import Callable
from typing import Any

import nbformat
from playwright.sync_api import Page, expect

CELL = """
import torch
from xailab import widgets
from xailab.widgets.dreams import Frame
frames = [Frame(3 * i, torch.full((3, 8, 8), i / 7), 1.5 * i) for i in range(8)]
widgets.growth_browser(frames, title="Gray that brightens")
"""


def test_the_arrow_keys_move_the_slider(
    lab: Any, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    nbformat.write(notebook, lab.folder / "growth.ipynb")
    page = opened("growth.ipynb")
    run_all(page)
    words = page.locator(".xailab-growth [role=status]")
    expect(words).to_contain_text("step 21: 10.5", timeout=20_000)
    image = page.locator(".xailab-growth img")
    before = image.get_attribute("src")
    handle = page.locator(".xailab-growth-step .noUi-handle")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    expect(words).to_contain_text("step 18: 9.0", timeout=20_000)
    assert image.get_attribute("src") != before
    page.keyboard.press("Home")
    expect(words).to_contain_text("step 0: 0.0", timeout=20_000)
    page.keyboard.press("ArrowRight")
    expect(words).to_contain_text("step 3: 1.5", timeout=20_000)
    page.close()
