"""What a newcomer does, in a real browser: open the lab, Run All in lesson 00, move a widget.

Skipped where there is no Chromium, unless XAILAB_REQUIRE_BROWSER=1 (CI) makes that a failure.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.xdist_group("browser")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start `xailab lab` on a copy of the notebooks; yield the address that it prints."""
    folder = tmp_path_factory.mktemp("learner") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)
    log = folder.parent / "lab.log"
    command = [sys.executable, "-m", "xailab", "lab", "--no-browser", f"--port={free_port()}"]
    command += [f"--folder={folder}"]
    own = {"XAILAB_PROGRESS": str(folder.parent / "progress.json"), "OMP_NUM_THREADS": "2"}
    own |= {"XAILAB_SCOREBOARD": str(folder.parent / "scoreboard.csv")}
    own |= {f"JUPYTER_{kind}_DIR": str(folder.parent / kind) for kind in ("CONFIG", "RUNTIME")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | own, cwd=folder.parent
        )
        try:
            yield address(process, log)
        finally:
            process.terminate()
            process.wait(30)


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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def page(chromium: Browser, lab: str) -> Iterator[Page]:
    """Lesson 00 after Run All, with every cell finished."""
    page = chromium.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(lab)
    expect(page.get_by_role("heading", name="0. Start here")).to_be_visible(timeout=90_000)
    if page.locator(".jp-Dialog").count():  # which kernel? the one offered
        page.keyboard.press("Enter")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(FINISHED, timeout=300_000)
    yield page
    page.close()


# The status bar and the icon are drawn late; the prompts tell: no cell is waiting ([*]), and the
# last code cell has its number.
FINISHED = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
        .map(prompt => prompt.textContent);
    return prompts.length > 10 && !prompts.some(text => text.includes('*'))
        && /\\d/.test(prompts[prompts.length - 1]);
}"""


def test_run_all_ends_without_an_error(page: Page) -> None:
    warnings = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
    assert "".join(warnings.all_text_contents()).strip() == ""
    assert (
        page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count()
        == 0
    )


def test_nothing_pops_up_over_the_first_lesson(page: Page) -> None:
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0


def test_the_first_two_cells_explain_the_cat(page: Page) -> None:
    first, second = page.locator(".jp-CodeCell").nth(0), page.locator(".jp-CodeCell").nth(1)
    expect(first).to_contain_text("tiger cat")
    expect(second).to_contain_text("In words:")
    picture = second.locator(".jp-OutputArea img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 300


def test_the_chooser_answers_the_keyboard(page: Page) -> None:
    chooser = page.locator(".xailab-chooser").first
    chooser.scroll_into_view_if_needed()
    before = chooser.inner_text()
    chooser.locator("select").first.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(
        "([chooser, before]) => chooser.innerText !== before",
        arg=[chooser.element_handle(), before],
        timeout=30_000,
    )
    after = chooser.inner_text()
    assert after != before
    if folder := os.environ.get("XAILAB_SCREENSHOTS"):
        chooser.screenshot(path=f"{folder}/chooser.png")
        page.screenshot(path=f"{folder}/lab.png")
