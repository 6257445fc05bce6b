"""The growth browser in a real notebook: the arrow keys move the slider, the picture follows."""

from typing import Any

from playwright.sync_api import expect

CELL = """
import torch
from xailab import widgets
from xailab.widgets.feature_visualization import Frame
frames = [Frame(3 * i, torch.full((3, 8, 8), i / 7), 1.5 * i) for i in range(8)]
widgets.growth_browser(frames, title="Gray that brightens")
"""


def test_the_arrow_keys_move_the_slider(explorer: Any) -> None:
    with explorer("growth", CELL) as it:
        expect(it.status).to_contain_text("step 21: 10.5", timeout=20_000)
        it.press_and_look("step", "ArrowLeft", "step 18: 9.0")
        it.press_and_look("step", "Home", "step 0: 0.0")
        it.press_and_look("step", "ArrowRight", "step 3: 1.5")
