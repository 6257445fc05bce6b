"""The playground in a real notebook, by keyboard: it trains while another cell runs, and stops."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

CELLS = [
    "from xailab import widgets\nwidgets.playground(depth=2, width=4, epochs=1)",
    "print('the other', 'cell', 6 * 7)",
]


@pytest.fixture(scope="module")
def page(
    lab: Any, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> Iterator[Page]:
    """A notebook with the playground in one cell and another cell beside it; the first has run."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, lab.folder / "playground.ipynb")
    page = opened("playground.ipynb")
    run_all(page)
    yield page
    page.close()


def status(page: Page) -> str:
    return page.locator(".xailab-play-status").inner_text()


def picture(page: Page) -> str:
    """Return a digest of the picture as the browser holds it; the blob's address is not enough."""
    data = page.locator(".xailab-play img").evaluate(
        """async image => Array.from(new Uint8Array(
            await (await fetch(image.src)).arrayBuffer()))"""
    )
    return hashlib.sha256(bytes(data)).hexdigest()


def changes(page: Page, read: Callable[[Page], str], before: str) -> str:
    for _ in range(200):
        if (now := read(page)) != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f"still {before!r} after 20 seconds")


def press(page: Page, button: Locator) -> None:
    """Press a button as someone without a mouse does."""
    button.focus()
    page.keyboard.press("Space")


def shot(page: Page, name: str) -> None:
    if folder := os.environ.get("XAILAB_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_train_by_keyboard_with_another_cell_beside_and_stop(page: Page) -> None:
    expect(page.locator(".xailab-play-status")).to_contain_text("Epoch 0")
    first = picture(page)
    press(page, page.locator(".xailab-play-train"))
    trained = changes(page, picture, first)
    expect(page.locator(".xailab-play-status")).to_contain_text("Training. Epoch")

    other = page.locator(".jp-CodeCell").nth(1)
    other.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("print('the other', 'cell', 6 * 7 + 1)")  # new: 42 stood there before
    page.keyboard.press("Control+Enter")
    expect(other.locator(".jp-OutputArea")).to_contain_text("the other cell 43", timeout=20_000)
    assert status(page).startswith("Training.")
    changes(page, picture, trained)
    shot(page, "playground_training")

    press(page, page.locator(".xailab-play-stop"))
    expect(page.locator(".xailab-play-status")).to_contain_text("Stopped.")
    page.wait_for_timeout(500)
    at_rest = picture(page), status(page)
    page.wait_for_timeout(1500)
    assert (picture(page), status(page)) == at_rest


def test_a_control_begins_anew_by_arrow_key(page: Page) -> None:
    before = picture(page)
    page.locator(".xailab-play-data .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".xailab-play-status")).to_contain_text("Epoch 0", timeout=20_000)
    changes(page, picture, before)
    shot(page, "playground_changed")
    press(page, page.locator(".xailab-play-train"))
    expect(page.locator(".xailab-play-status")).to_contain_text("Training. Epoch", timeout=20_000)


def test_run_again_leaves_only_the_new_one(page: Page) -> None:
    """The test before left the playground training: running its cell again must end that."""
    page.locator(".jp-CodeCell").nth(0).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".xailab-play-status")).to_contain_text("Epoch 0", timeout=30_000)
    assert page.locator(".xailab-play").count() == 1
    still = picture(page)
    page.wait_for_timeout(1500)
    assert picture(page) == still
    assert "Training" not in status(page)


def test_every_control_is_reached_by_tab(page: Page) -> None:
    """Eight controls, then three buttons, in the order in which they stand."""
    page.locator(".xailab-play-data .noUi-handle").focus()
    seen = []
    for _ in range(20):
        here = page.evaluate(
            "document.activeElement.closest('[class*=xailab-play-]')?.className ?? ''"
        )
        seen += [name for name in here.split() if name.startswith("xailab-play-")]
        page.keyboard.press("Tab")
    order = list(dict.fromkeys(name.removeprefix("xailab-play-") for name in seen))
    wanted = "data noise depth width activation residual learning-rate edges train stop reset"
    assert order == wanted.split()
