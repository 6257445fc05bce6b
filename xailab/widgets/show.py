"""What all explorers are made of, and one output that is a picture where no widget runs."""

from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from xailab.core.callable_module import make_callable

if TYPE_CHECKING:
    from ipywidgets import Image, VBox, Widget

    from xailab.plots import Picture

_VIEW = "application/vnd.jupyter.widget-view+json"


def show(widget: "Widget", fallback: "Picture") -> None:
    """Display a widget; GitHub, HTML pages and PDF show the fallback picture in its place.

    Both travel in one output, so a front end takes the richest one it can show: JupyterLab the
    widget, a page without a running kernel the PNG. Outside a notebook the sentence is printed.

    Args:
        widget: the explorer.
        fallback: the explorer's picture in its first position, with its sentence.
    """
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    from xailab.plots.pictures import say

    if get_ipython() is not None:
        data, metadata = fallback.mimebundle()
        data[_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        display(data, metadata=metadata, raw=True)
    say(fallback.alt)


def frame() -> "Image":
    """Return the place of an explorer's picture, at its own size: stretched it would blur."""
    from ipywidgets import Image, Layout

    return Image(format="png", layout=Layout(align_self="flex-start", max_width="100%"))


def announced(html: str) -> str:
    """Wrap words so that a screen reader announces them whenever they change."""
    return f"<div role='status' aria-live='polite'>{html}</div>"


class Shown(NamedTuple):
    """What an explorer shows at one position.

    Attributes:
        content: the bytes of a PNG, or HTML.
        words: HTML that says the same.
    """

    content: bytes | str
    words: str


def explorer_of(
    name: str,
    controls: Mapping[str, Any],
    draw: "Callable[..., Picture | Shown]",
    *,
    position: Callable[[], tuple[Any, ...]] | None = None,
    moved: Callable[[str], None] | None = None,
    words_first: bool = False,
) -> "VBox":
    """Return controls above a picture and its words, both of which follow the controls.

    CSS classes: `xailab-NAME` on the whole, `xailab-NAME-CONTROL` on each control.

    Args:
        name: of the explorer.
        controls: the controls by name, in the order in which Tab reaches them.
        draw: returns what is shown at a position; asked once for each.
        position: returns the arguments of `draw`, which can be hashed; None: the controls' values.
        moved: is told the name of the control that moved before anything is drawn, and may move
            others.
        words_first: put the words above the picture.
    """
    from ipywidgets import HTML, VBox

    where = position or (lambda: tuple(control.value for control in controls.values()))
    drawn = cache(lambda *place: _shown(draw(*place)))
    view = frame() if isinstance(drawn(*where()).content, bytes) else HTML()
    words = HTML()

    def update(control: str | None = None) -> None:
        if moved is not None and control is not None:
            moved(control)
        view.value, html = drawn(*where())
        words.value = announced(html)

    for key, control in controls.items():
        control.add_class(f"xailab-{name}-{key}")
        control.observe(lambda _, key=key: update(key), "value")
    update()
    box = VBox([*controls.values(), *([words, view] if words_first else [view, words])])
    box.add_class(f"xailab-{name}")
    return box


def _shown(answer: "Picture | Shown") -> Shown:
    return answer if isinstance(answer, Shown) else Shown(answer.png(), escape(answer.alt))


def slider(name: str, meaning: str, options: Any, value: Any = None, **look: Any) -> Any:
    """Return a slider over options, which redraws when it is let go.

    No menus: JupyterLab takes a closed menu's arrow keys to move between cells.

    Args:
        name: its label.
        meaning: its tooltip, without "the arrow keys move it", which is added.
        options: values, or pairs of a label and a value.
        value: where it stands first; None: on the first option.
        look: more settings of ipywidgets' SelectionSlider.
    """
    from ipywidgets import SelectionSlider

    if value is not None:
        look["value"] = value
    return SelectionSlider(options=options, **(labeled(name, meaning) | look))


def labeled(name: str, meaning: str) -> dict[str, Any]:
    """Return what the sliders of all explorers have in common; arguments as for `slider`."""
    from ipywidgets import Layout

    return {
        "description": name,
        "tooltip": f"{meaning}; the arrow keys move it",
        "continuous_update": False,
        "layout": Layout(width="32em"),
    }


make_callable(__name__)
