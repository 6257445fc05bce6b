"""Files of pictures, texts and tables: the suffix says what is written."""

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from xailab.core.files import write_atomically


def save_as(path: str | Path, forms: Mapping[str, Callable[[], str | bytes]]) -> Path:
    """Write one of several forms, which the path's suffix names, whole or not at all.

    Args:
        path: the file.
        forms: suffix, such as ".png", -> what makes the file's content.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if (make := forms.get(path.suffix.lower())) is None:
        *most, last = forms
        known = f"{', '.join(most)} or {last}"
        raise ValueError(f"expected a path ending in {known}, got {path.name!r}")
    return write_atomically(path, make())


def html_page(title: str, body: str) -> str:
    """Return a page of its own with some HTML.

    >>> html_page("a < b", "<p>yes</p>")
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>a &lt; b</title><p>yes</p></html>'
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title>'
    return f'<!doctype html><html lang="en">{head}{body}</html>'
