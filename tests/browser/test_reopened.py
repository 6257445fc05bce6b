"""The next day: a notebook is saved, closed, its kernel gone, and opened again."""

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import KERNEL, Lab

CELLS = [
    """\
import ipywidgets
from xailab import plots, widgets
widgets.show(ipywidgets.IntSlider(), plots.bars([1, 2], ["a", "b"], title="An explorer"))""",
    """\
from tqdm.auto import tqdm  # a library's bar, which is a widget
for _ in tqdm(range(3)): pass""",
    """\
import time
from xailab.core import batched
batched(lambda rows: time.sleep(1.5) or rows, list(range(6)), batch_size=1)""",
]
BROKEN = re.compile("Error displaying widget|Loading widget|model not found")


@pytest.fixture(scope="module")
def live(
    lab: Lab,
    opened: Callable[[str], Page],
    run_all: Callable[[Page], None],
    save: Callable[[Page], None],
) -> Iterator[Page]:
    """An explorer, a library's bar and one of ours, run and saved."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
    nbformat.write(notebook, lab.folder / "evening.ipynb")
    page = opened("evening.ipynb")
    run_all(page)
    save(page)
    yield page
    if not page.is_closed():
        page.close()


def test_while_the_kernel_runs_the_explorer_is_there(live: Page) -> None:
    expect(live.locator(".widget-slider")).to_be_visible()
    assert live.locator(".jp-Dialog").count() == 0  # saving changed nothing behind the page's back


def test_our_bars_are_text_and_go_when_they_are_done(live: Page) -> None:
    cell = live.locator(".jp-CodeCell").nth(2)
    assert cell.locator(".jupyter-widgets").count() == 0
    streams = cell.locator("[data-mime-type='application/vnd.jupyter.stderr']")
    assert "".join(streams.all_text_contents()).strip() == ""


def kernels(lab: Lab) -> list[dict]:
    server = urlsplit(lab.address)
    token = parse_qs(server.query)["token"][0]
    address = f"{server.scheme}://{server.netloc}/api/kernels?token={token}"
    return json.load(urllib.request.urlopen(address, timeout=60))


def test_a_closed_tab_lets_go_of_its_kernel(live: Page, lab: Lab) -> None:
    """An idle kernel that no page is connected to is what the server ends after half an hour."""
    mine = live.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.id")
    live.evaluate("window.jupyterapp.commands.execute('application:close')")
    for _ in range(60):
        (kernel,) = (kernel for kernel in kernels(lab) if kernel["id"] == mine)
        if kernel["connections"] == 0:
            break
        time.sleep(0.5)
    assert kernel["connections"] == 0
    live.close()


def test_reopened_it_shows_pictures_and_no_error(
    live: Page, lab: Lab, opened: Callable[[str], Page]
) -> None:
    (lab.folder / "evening.ipynb").rename(lab.folder / "morning.ipynb")  # so: a new kernel
    page = opened("morning.ipynb")
    explorer, bar, ours = page.locator(".jp-CodeCell").all()
    image = explorer.locator(".jp-OutputArea img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") > 300
    expect(explorer).to_contain_text("In words: An explorer")
    page.wait_for_timeout(3000)  # as long as a page takes to give up a widget
    assert page.get_by_text(BROKEN).count() == 0
    for cell in (explorer, bar, ours):
        assert cell.locator(".jupyter-widgets, .jp-OutputArea-output .lm-mod-hidden").count() == 0
    page.close()
