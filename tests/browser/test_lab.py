"""What a newcomer does, in a browser: open the lab, Run All in the first lesson, move a widget."""

import os
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import first_lesson


@pytest.fixture(scope="module")
def page(opened: Callable[[str], Page], run_all: Callable[[Page], None]) -> Iterator[Page]:
    """Lesson `start_here` after Run All, with every cell finished."""
    page = opened(first_lesson())
    expect(page.get_by_role("heading", name="Start here").first).to_be_visible()
    run_all(page)
    yield page
    page.close()


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
    result, answers = chooser.locator(".xailab-chooser-result"), chooser.locator("button")
    expect(result).to_contain_text("Grad-CAM")
    answers.nth(0).focus()
    page.keyboard.press("Tab")  # to the second answer of the first question
    page.keyboard.press("Space")
    expect(answers.nth(1)).to_have_class(re.compile("mod-active"))
    expect(result).not_to_contain_text("Grad-CAM")
    if folder := os.environ.get("XAILAB_SCREENSHOTS"):
        chooser.screenshot(path=f"{folder}/chooser.png")
        page.screenshot(path=f"{folder}/lab.png")


def test_a_lesson_that_the_chooser_names_opens_in_the_same_lab(page: Page) -> None:
    link = page.locator(".xailab-chooser-result a").first
    color = link.evaluate("link => getComputedStyle(link).color")
    words = page.locator(".xailab-chooser-result li").first
    assert color != words.evaluate("words => getComputedStyle(words).color")
    assert "underline" in link.evaluate("link => getComputedStyle(link).textDecorationLine")
    name = link.get_attribute("data-commandlinker-args") or link.get_attribute("href") or ""
    notebook = re.search(r"\d+_\w+\.ipynb", name)
    assert notebook, name
    link.click()
    tab = page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text=notebook.group())
    expect(tab).to_be_visible(timeout=60_000)
    assert len(page.context.pages) == 1  # in this lab, not in another one
