"""An explorer in a notebook of its own, moved by keyboard."""

import hashlib
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect


@dataclass(frozen=True)
class Explorer:
    """One widget on a page: its elements have classes that begin with `xailab-NAME`.

    Attributes:
        page: the notebook.
        name: of the widget, "layers" for `.xailab-layers` and `.xailab-layers-unit`.
    """

    page: Page
    name: str

    @property
    def status(self) -> Locator:
        """The words under the picture."""
        return self.page.locator(f".xailab-{self.name} [role=status]")

    def focus(self, control: str) -> None:
        """Put the focus on one control: a slider's handle or an input."""
        part = self.page.locator(f".xailab-{self.name}-{control}")
        part.locator("input[type=checkbox], .noUi-handle").first.focus()

    def press(self, control: str, key: str, words: str) -> None:
        """Press a key on one control; the words must follow."""
        self.focus(control)
        self.page.keyboard.press(key)
        expect(self.status).to_contain_text(words, timeout=20_000)

    def press_and_look(self, control: str, key: str, words: str) -> None:
        """Press a key on one control; the words must follow, and the picture."""
        before = self.picture()
        self.press(control, key, words)
        for _ in range(100):
            if self.picture() != before:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{key} on {control} left the picture as it was")

    def picture(self) -> str:
        """Return a digest of the picture as the browser holds it."""
        data = self.page.locator(f".xailab-{self.name} img").evaluate(
            """async image => Array.from(new Uint8Array(
                await (await fetch(image.src)).arrayBuffer()))"""
        )
        return hashlib.sha256(bytes(data)).hexdigest()

    def tab_order(self, first: str) -> list[str]:
        """Return the controls in the order in which Tab reaches them from the first one on."""
        self.focus(first)
        prefix, seen = f"xailab-{self.name}-", []
        for _ in range(12):
            here = self.page.evaluate(
                f"document.activeElement.closest('[class*={prefix}]')?.className ?? ''"
            )
            seen += [word.removeprefix(prefix) for word in here.split() if word.startswith(prefix)]
            self.page.keyboard.press("Tab")
        return list(dict.fromkeys(seen))
