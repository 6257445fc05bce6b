"""What `check` and its kin show: HTML (never color alone) in a notebook, else text."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

Status = Literal["right", "wrong", "stopped", "not done", "noted"]
_LOOKS: dict[str, tuple[str, str, str]] = {  # status -> symbol, words, color of the border
    "right": ("✓", "Right", "#1a7f37"),
    "wrong": ("✗", "Not yet right", "#b35900"),
    "stopped": ("■", "Stopped", "#b35900"),
    "not done": ("○", "Not done yet", "#57606a"),
    "noted": ("●", "Noted", "#0969da"),
}


@dataclass(frozen=True)
class Message:
    """A status that never speaks by color alone, the exercise it is about, and a text."""

    status: Status
    about: str
    text: str = ""

    @property
    def plain(self) -> str:
        """The message as plain text."""
        symbol, words, _ = _LOOKS[self.status]
        return f"{symbol} {words}: {self.about}" + f"\n{self.text}" * bool(self.text)

    @property
    def html(self) -> str:
        """The message as HTML; the colors hold on light and on dark pages."""
        body = f"<pre style='margin:.4em 0 0;white-space:pre-wrap'>{escape(self.text)}</pre>"
        return self.html_with(body * bool(self.text))

    def html_with(self, body: str) -> str:
        """The message with HTML in place of its text; the caller has escaped it."""
        symbol, words, color = _LOOKS[self.status]
        return (
            f"<div role='status' style='border-left:4px solid {color};padding:.2em .8em'>"
            f"<strong><span aria-hidden='true'>{symbol}</span> {words}</strong>: "
            f"<code>{escape(self.about)}</code>{body}</div>"
        )

    def show(self) -> None:
        """Show the message."""
        show(self.plain, self.html)


def show(plain: str, html: str, view: Mapping[str, Any] | None = None) -> None:
    """Display HTML with its plain text beside it in a notebook; print the text elsewhere.

    Args:
        plain: the text.
        html: the same as HTML.
        view: a widget by its MIME type; the HTML stands in where no widget runs.
    """
    if in_notebook():
        from IPython.display import display

        display({"text/plain": plain, "text/html": html, **(view or {})}, raw=True)
    else:
        print(plain)


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this code (IPython in a terminal shows no HTML)."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")
