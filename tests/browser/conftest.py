"""The lab in a real browser: started as a learner starts it, looked into as JupyterLab allows.

Skipped where there is no Chromium, unless XAILAB_REQUIRE_BROWSER=1 (CI) makes that a failure.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

from tests.browser.explorers import Explorer

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Lab(NamedTuple):
    """A running JupyterLab: its address with the token, its notebooks, its log."""

    address: str
    folder: Path
    log: Path

    def url(self, notebook: str) -> str:
        """Return the address of one notebook, alone: a workspace remembers what was open."""
        place = f"/lab/workspaces/{Path(notebook).stem}/tree/{notebook}?reset&"
        return re.sub(r"/lab\S*\?", place, self.address)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all browser tests, and give them time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(600))


def first_lesson() -> str:
    """Return the file name of the first lesson, whatever its number."""
    (path,) = (ROOT / "notebooks").glob("*_start_here.ipynb")
    return path.name


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start `xailab lab` on a copy of the notebooks."""
    home = tmp_path_factory.mktemp("learner")
    folder, log = home / "work", home / "lab.log"
    own = {"XAILAB_PROGRESS": str(home / "progress.json"), "OMP_NUM_THREADS": "2"}
    own |= {"XAILAB_SCOREBOARD": str(home / "scoreboard.csv")}
    own |= {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "RUNTIME")}
    (home / "CONFIG").mkdir()
    exposed = json.dumps({"LabApp": {"expose_app_in_browser": True}})  # window.jupyterapp
    (home / "CONFIG" / "jupyter_lab_config.json").write_text(exposed)
    command = [sys.executable, "-m", "xailab", "lab", "--no-browser", f"--port={free_port()}"]
    command += [f"--folder={folder}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | own, cwd=home
        )
        try:
            yield Lab(address(process, log), folder, log)
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def address(process: subprocess.Popen, log: Path) -> str:
    for _ in range(240):
        found = re.search(
            r"http://127\.0\.0\.1:\d+/lab\S*\?token=\w+", log.read_text("utf-8", "replace")
        )
        if found:
            return found.group()
        assert process.poll() is None, log.read_text("utf-8", "replace")
        time.sleep(0.5)
    raise AssertionError(f"no address after two minutes:\n{log.read_text('utf-8', 'replace')}")


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        if os.environ.get("XAILAB_REQUIRE_BROWSER") == "1":
            pytest.fail("there is no Chromium, and XAILAB_REQUIRE_BROWSER=1 asks for one")
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


# Asked of JupyterLab itself: the page does not draw cells that are out of view, so their prompts
# and texts cannot be relied on.
SETTLED = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return Boolean(session?.isReady) && session.session?.kernel?.status === 'idle'
        && session.session.kernel.connectionStatus === 'connected';
}"""
# Done, or stopped at an error.
FINISHED = """() => {
    const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells]
        .filter(cell => cell.type === 'code');
    const failed = cells.some(cell => cell.toJSON().outputs.some(o => o.output_type === 'error'));
    return failed || cells.every(cell => cell.executionCount && cell.executionState === 'idle');
}"""
STATE = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const session = panel?.sessionContext;
    const cells = [...(panel?.content?.model?.cells ?? [])].filter(cell => cell.type === 'code');
    return {
        path: panel?.context?.path, ready: session?.isReady,
        kernel: session?.session?.kernel?.status,
        connection: session?.session?.kernel?.connectionStatus,
        cells: cells.map(cell => `${cell.executionCount} ${cell.executionState}`),
        dialogs: [...document.querySelectorAll('.jp-Dialog')].map(dialog => dialog.innerText),
    };
}"""


@pytest.fixture(scope="package")
def opened(chromium: Browser, lab: Lab) -> Callable[[str], Page]:
    """Return what opens a notebook on a page of its own, its kernel ready for the first cell."""

    def open_(notebook: str) -> Page:
        page = chromium.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(lab.url(notebook))
        page.locator(".jp-Notebook").first.wait_for(timeout=90_000)
        await_state(page, SETTLED, 120, lab)
        return page

    return open_


@pytest.fixture(scope="package")
def run_all(lab: Lab) -> Callable[[Page], None]:
    """Return what chooses Run > Run All Cells and waits till all is done."""

    def run(page: Page) -> None:
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        await_state(page, FINISHED, 300, lab)

    return run


def await_state(page: Page, wanted: str, seconds: float, lab: Lab) -> None:
    """Wait for a condition; if it does not come, say what the page and the server were at."""
    try:
        page.wait_for_function(wanted, timeout=seconds * 1000)
    except TimeoutError:
        log = lab.log.read_text("utf-8", "replace")[-3000:]
        pytest.fail(f"not within {seconds} s: {wanted}\n{page.evaluate(STATE)}\n{log}")


SAVED = "() => !window.jupyterapp.shell.currentWidget.context.model.dirty"


@pytest.fixture(scope="package")
def save(lab: Lab) -> Callable[[Page], None]:
    """Return what saves the notebook and waits till it is saved."""

    def save_(page: Page) -> None:
        page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        await_state(page, SAVED, 60, lab)

    return save_


KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture(scope="package")
def explorer(
    lab: Lab, opened: Callable[[str], Page], run_all: Callable[[Page], None]
) -> Callable[[str, str], AbstractContextManager[Explorer]]:
    """Return what shows the explorer that one cell makes, in a notebook of its own."""

    @contextmanager
    def shown(name: str, cell: str) -> Iterator[Explorer]:
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell)], metadata=KERNEL
        )
        nbformat.write(notebook, lab.folder / f"{name}.ipynb")
        page = opened(f"{name}.ipynb")
        run_all(page)
        yield Explorer(page, name)
        page.close()

    return shown
