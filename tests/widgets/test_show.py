"""One output that is a widget where widgets run and a picture everywhere else."""

import base64
from html.parser import HTMLParser

import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from xailab import plots, widgets
from xailab.widgets.show import Shown, announced, explorer_of, frame, labeled, slider

CODE = """
import ipywidgets
from xailab import plots, widgets
picture = plots.heatmap([[1, -2]], title="Left is for, right against")
widgets.show(ipywidgets.IntSlider(description="step"), picture)
"""
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def executed():
    """A notebook with a widget and a picture, run by a real kernel, widget state left out."""
    cells = [nbformat.v4.new_code_cell(code) for code in (CODE, "picture")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, store_widget_state=False).execute()
    return notebook


def test_a_widget_is_stored_with_its_picture_and_sentence(executed):
    bundle, words = executed.cells[0].outputs
    assert bundle.output_type == "display_data"
    assert set(bundle.data) == {VIEW, "image/png", "text/plain"}
    assert bundle.data[VIEW]["model_id"]
    assert base64.b64decode(bundle.data["image/png"]).startswith(b"\x89PNG")
    sentence = bundle.metadata["image/png"]["alt"]
    assert "peak" not in sentence  # the strongest value is the negative one
    assert "strongest value, negative, at row 1, column 2 of 1 x 2" in sentence
    assert words.data["text/plain"] == f"In words: {sentence}"


def test_a_picture_is_shown_once_with_its_sentence(executed):
    image, words = executed.cells[1].outputs
    assert set(image.data) == {"image/png", "text/plain"}
    assert words.data["text/plain"] == f"In words: {image.metadata['image/png']['alt']}"
    assert image.data["text/plain"].startswith("<Picture: Left is for, right against.")


class _Images(HTMLParser):
    """The attributes of every <img> of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(dict(attrs))


def test_a_page_without_widget_state_shows_the_picture(executed):
    html, _ = HTMLExporter().from_notebook_node(executed)
    page = _Images()
    page.feed(html)
    assert len(page.found) == 2  # in place of the widget, and the picture itself
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.found)
    assert html.count("In words: Left is for, right against.") == 2


def test_outside_a_notebook_the_sentence_is_printed(capsys):
    widgets.show(ipywidgets.IntSlider(), plots.bars([1], ["a"], title="One bar"))
    assert capsys.readouterr().out == "In words: One bar. One bar: a (1).\n"


def test_an_explorers_picture_is_not_stretched():
    layout = frame().layout
    assert (layout.align_self, layout.max_width, layout.width) == ("flex-start", "100%", None)


def counted(draw):
    """Return a drawing function that notes where it was asked."""

    def asked(*place):
        asked.places.append(place)
        return draw(*place)

    asked.places = []
    return asked


def test_an_explorer_draws_each_position_once_and_announces_it():
    draw = counted(lambda one, two: Shown(f"<b>{one}{two}</b>", f"{one} and {two}"))
    controls = {"first": slider("First", "One", [1, 2], 2), "second": slider("Second", "Two", "ab")}
    box = explorer_of("pair", controls, draw)
    first, second, view, words = box.children
    assert (view.value, words.value) == ("<b>2a</b>", announced("2 and a"))
    second.value = "b"
    first.value = 1
    assert (view.value, words.value) == ("<b>1b</b>", announced("1 and b"))
    first.value, second.value = 2, "a"
    assert draw.places == [(2, "a"), (2, "b"), (1, "b")]
    assert box._dom_classes == ("xailab-pair",)
    assert [control._dom_classes for control in (first, second)] == [
        ("xailab-pair-first",),
        ("xailab-pair-second",),
    ]


def test_a_picture_is_shown_as_it_is_and_its_sentence_is_text():
    picture = plots.bars([1], ["<a>"], title="One bar")
    *_, view, words = explorer_of(
        "one", {"at": slider("At", "It", [0])}, lambda at: picture
    ).children
    assert view.value == picture.png()
    assert words.value == announced("One bar. One bar: &lt;a&gt; (1).")


def test_what_moves_along_is_moved_before_the_drawing():
    controls = {"layer": slider("Layer", "It", [3, 1]), "unit": slider("Unit", "It", [0, 1, 2], 2)}

    def fit(name):
        if name == "layer":
            controls["unit"].value = 0

    draw = counted(lambda *place: Shown("", f"{place}"))
    box = explorer_of("units", controls, draw, moved=fit, words_first=True)
    controls["layer"].value = 1
    assert draw.places == [(3, 2), (1, 0)]
    assert box.children[2].value == announced("(1, 0)")


def test_a_position_may_be_another_than_the_values():
    control = slider("At", "It", [0.1, 0.2])
    box = explorer_of(
        "x", {"at": control}, lambda at: Shown("", str(at)), position=lambda: (control.value * 10,)
    )
    assert box.children[-1].value == announced("1.0")


def test_changed_words_are_announced_politely():
    assert announced("<b>a</b>") == "<div role='status' aria-live='polite'><b>a</b></div>"


def test_a_slider_tells_its_keys():
    control = slider("Alpha", "Place on the path", [("0", 0), ("1", 1)], 1)
    assert (control.description, control.value) == ("Alpha", 1)
    assert control.tooltip == "Place on the path; the arrow keys move it"
    assert not control.continuous_update
    assert slider("A", "B", [1], continuous_update=True).continuous_update
    assert labeled("A", "B")["layout"].width == "32em"
