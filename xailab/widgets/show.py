"""One output that is a widget where widgets run and a picture where they do not."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipywidgets import Image, Widget

    from xailab.core.callable_module import make_callable
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


make_callable(__name__)
